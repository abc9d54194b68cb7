//! The small worlds that are explored: what each is about, and what must be seen in it.

use super::explore::{Op, Scenario, explore};
use super::*;

/// `count` founding voters of version 1, and `more` seats that are empty.
fn seats(count: u32, more: &[Voter]) -> (Value, Vec<(Voter, AcceptorState, Option<Value>)>) {
    let founders: Vec<Voter> = (1..=count).map(|node| voter(node, 0)).collect();
    let first = value(1, 1, &founders);
    let mut seats: Vec<_> = founders
        .iter()
        .map(|me| (*me, AcceptorState::genesis(first.clone()), None))
        .collect();
    for me in more {
        seats.push((*me, AcceptorState::empty(HISTORY), Some(first.clone())));
    }
    (first, seats)
}

fn cas(at: usize, expected: &Value, next: &Value) -> Op {
    Op {
        at,
        request: Request::CompareAndSet {
            expected: expected.clone(),
            next: next.clone(),
        },
        after: None,
    }
}

fn read(at: usize, after: Option<usize>) -> Op {
    Op {
        at,
        request: Request::Read,
        after,
    }
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Three founding voters and nothing to do; the parts that a scenario does not name are small.
fn small(name: &'static str) -> Scenario {
    Scenario {
        name,
        seats: Vec::new(),
        ops: Vec::new(),
        rounds_max: [2; 5],
        crashes_max: 0,
        gossip: false,
        worlds_max: 600_000,
    }
}

/// Explores to the end, and holds what was reached against what the scenario is about.
fn exhaust(scenario: Scenario, outcomes: &[(usize, &'static str)]) {
    let (name, crashes) = (scenario.name, scenario.crashes_max > 0);
    let reached = explore(scenario);
    println!("{name}: {reached:?}");
    assert!(
        reached.exhausted,
        "{name}: {} worlds are not all",
        reached.worlds
    );
    assert_eq!(reached.crashes > 0, crashes, "{name}");
    for outcome in outcomes {
        assert!(
            reached.outcomes.contains(outcome),
            "{name}: never saw {outcome:?}"
        );
    }
}

fn trio() -> [Voter; 3] {
    [voter(1, 0), voter(2, 0), voter(3, 0)]
}

fn race(name: &'static str) -> Scenario {
    let (first, seats) = seats(3, &[]);
    let (a, b) = (value(2, 21, &trio()), value(2, 22, &trio()));
    let ops = vec![cas(A, &first, &a), cas(B, &first, &b)];
    Scenario {
        seats,
        ops,
        ..small(name)
    }
}

const RACE_ENDS: [(usize, &str); 3] = [(0, "chosen"), (1, "chosen"), (1, "lost")];

#[test]
fn of_two_changes_that_race_one_is_chosen() {
    let rounds_max = [2, 3, 0, 0, 0];
    exhaust(
        Scenario {
            rounds_max,
            ..race("race with a second try")
        },
        &RACE_ENDS,
    );
    exhaust(
        Scenario {
            gossip: true,
            ..race("race with gossip")
        },
        &RACE_ENDS,
    );
}

#[test]
fn a_crash_between_disk_and_answer_takes_no_vote_back() {
    exhaust(
        Scenario {
            crashes_max: 1,
            ..race("race with a crash")
        },
        &RACE_ENDS,
    );
}

#[test]
fn a_read_is_never_older_than_what_was_chosen_before_it() {
    let mut scenario = race("race and a read");
    scenario.ops.push(read(C, None));
    exhaust(scenario, &[(0, "chosen"), (1, "lost"), (2, "current")]);
}

/// Node 1 replaces voter 3 by 4.
fn replace(name: &'static str) -> Scenario {
    let (first, seats) = seats(3, &[voter(4, 0)]);
    let a = value(2, 21, &[voter(1, 0), voter(2, 0), voter(4, 0)]);
    let ops = vec![cas(A, &first, &a)];
    Scenario {
        seats,
        ops,
        ..small(name)
    }
}

/// As `replace`, and when it is done node 2 changes what it finds.
fn replace_then_change(name: &'static str) -> Scenario {
    let mut scenario = replace(name);
    let Request::CompareAndSet { next, .. } = scenario.ops[0].request.clone() else {
        unreachable!("replace begins with a change");
    };
    let b = value(3, 32, &[voter(1, 0), voter(2, 0), voter(4, 0)]);
    let mut change = cas(B, &next, &b);
    change.after = Some(0);
    scenario.ops.push(change);
    scenario.rounds_max = [2, 3, 2, 2, 2];
    scenario
}

/// One voter becomes two, three, and two others; node 2 reads at any time.
fn grow(name: &'static str, steps: usize) -> Scenario {
    let (first, seats) = seats(1, &[voter(2, 0), voter(3, 0)]);
    let a = value(2, 21, &[voter(1, 0), voter(2, 0)]);
    let b = value(3, 31, &trio());
    let c = value(4, 41, &[voter(2, 0), voter(3, 0)]);
    let mut ops = vec![cas(A, &first, &a), cas(A, &a, &b), cas(A, &b, &c)];
    ops[1].after = Some(0);
    ops[2].after = Some(1);
    ops.truncate(steps);
    ops.push(read(B, None));
    let rounds_max = [1 + steps as u64, 2, 0, 0, 0];
    Scenario {
        seats,
        ops,
        rounds_max,
        ..small(name)
    }
}

/// Node 3 lost its disk; node 1 names its new life while node 2 changes something else.
fn new_life(name: &'static str) -> Scenario {
    let (first, mut seats) = seats(3, &[voter(3, 1)]);
    seats.remove(2);
    let a = value(2, 21, &[voter(1, 0), voter(2, 0), voter(3, 1)]);
    let b = value(2, 22, &trio());
    let ops = vec![cas(A, &first, &a), cas(B, &first, &b)];
    Scenario {
        seats,
        ops,
        ..small(name)
    }
}

#[test]
fn a_voter_is_replaced_whatever_comes_in_between() {
    let done = [(0, "chosen")];
    let crashes_max = 1;
    exhaust(
        Scenario {
            crashes_max,
            ..replace("replace with a crash")
        },
        &done,
    );
    exhaust(
        Scenario {
            gossip: true,
            ..replace("replace with gossip")
        },
        &done,
    );
}

#[test]
fn a_node_that_lost_its_disk_is_another_voter() {
    exhaust(new_life("new life"), &RACE_ENDS);
    let crashes_max = 1;
    exhaust(
        Scenario {
            crashes_max,
            ..new_life("new life with a crash")
        },
        &RACE_ENDS,
    );
}

#[test]
fn a_read_does_not_live_on_the_promises_of_an_earlier_one() {
    let (first, seats) = seats(1, &[voter(2, 0)]);
    let a = value(2, 21, &[voter(1, 0)]);
    let scenario = Scenario {
        seats,
        ops: vec![cas(A, &first, &a), read(B, None), read(B, None)],
        rounds_max: [4, 4, 0, 0, 0],
        ..small("one change and two reads")
    };
    exhaust(scenario, &[(0, "chosen"), (1, "current"), (2, "current")]);
}

#[test]
fn a_process_that_forgot_its_ballots_does_not_speak_with_them_again() {
    // Node 3 votes for nothing, so nothing on its disk tells of the rounds it began.
    let (first, seats) = seats(2, &[voter(3, 0)]);
    let voters = [voter(1, 0), voter(2, 0)];
    let (a, b) = (value(2, 21, &voters), value(2, 22, &voters));
    let scenario = Scenario {
        seats,
        ops: vec![cas(C, &first, &a), cas(C, &first, &b)],
        crashes_max: 1,
        ..small("a process forgets")
    };
    exhaust(scenario, &[(0, "chosen"), (1, "chosen"), (1, "lost")]);
}

#[test]
fn one_voter_becomes_three_and_reads_stay_true() {
    exhaust(grow("grow", 2), &[(1, "chosen"), (2, "current")]);
}

/// Far more worlds than a test run has time for, or than can be gone through to the end. Each of
/// the
/// tests below takes minutes and up to a gigabyte: run one by name after a change of the rules.
fn survey(scenario: Scenario) {
    let name = scenario.name;
    let reached = explore(Scenario {
        worlds_max: 2_000_000,
        ..scenario
    });
    println!("{name}: {reached:?}");
    let chosen = |(_, word): &(usize, &str)| *word == "chosen";
    assert!(
        reached.outcomes.iter().any(chosen),
        "{name}: nothing was chosen"
    );
}

/// Nodes 1 and 2 replace voter 3 by different nodes.
fn rivals(name: &'static str) -> Scenario {
    let (first, seats) = seats(3, &[voter(4, 0), voter(5, 0)]);
    let a = value(2, 21, &[voter(1, 0), voter(2, 0), voter(4, 0)]);
    let b = value(2, 22, &[voter(1, 0), voter(2, 0), voter(5, 0)]);
    let ops = vec![cas(A, &first, &a), cas(B, &first, &b)];
    Scenario {
        seats,
        ops,
        ..small(name)
    }
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_change_after_a_replacement() {
    survey(replace_then_change("replace, then change"));
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_newcomer_that_reads() {
    let mut scenario = replace("replace, the newcomer reads");
    scenario.ops.push(read(3, None));
    survey(scenario);
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_leaving_voter_that_reads() {
    let mut scenario = replace("replace, the old voter reads");
    scenario.ops.push(read(C, None));
    survey(scenario);
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_replacement_against_a_plain_change() {
    let mut scenario = replace("replace against plain change");
    let founded = scenario.seats[0].1.accepted.clone().expect("founded");
    let plain = value(2, 22, &trio());
    scenario.ops.push(cas(B, &founded.proposal.value, &plain));
    survey(scenario);
}

#[test]
#[ignore = "minutes, alone"]
fn survey_growth_beyond_the_founder() {
    survey(grow("grow further", 3));
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_race_with_gossip_and_a_crash() {
    survey(Scenario {
        gossip: true,
        crashes_max: 1,
        ..race("race with gossip and a crash")
    });
}

#[test]
#[ignore = "minutes, alone"]
fn survey_rival_replacements() {
    survey(rivals("rivals"));
}

#[test]
#[ignore = "minutes, alone"]
fn survey_a_race_with_second_tries() {
    let rounds_max = [3, 3, 0, 0, 0];
    survey(Scenario {
        rounds_max,
        ..race("race with second tries")
    });
}
