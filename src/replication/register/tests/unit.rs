//! By hand: each rule of the acceptor, each row that ignores an input, each end of an operation.

use super::acceptor::{Acceptor, WAITING_MAX};
use super::cluster::Cluster;
use super::*;

fn ballot(round: u64, node: u32) -> Ballot {
    let process = u64::from(node);
    Ballot {
        round,
        node: NodeId(node),
        process,
    }
}

fn trio() -> [Voter; 3] {
    [voter(1, 0), voter(2, 0), voter(3, 0)]
}

fn acceptor() -> (Value, Acceptor) {
    let first = value(1, 1, &trio());
    let state = AcceptorState::genesis(first.clone());
    (first, Acceptor::new(voter(1, 0), state))
}

fn child(parent: &Value, nonce: u128) -> Proposal {
    Proposal {
        value: value(parent.version + 1, nonce, &trio()),
        parent: Some(parent.clone()),
    }
}

fn persist(acceptor: &mut Acceptor) {
    let (serial, _) = acceptor.take_edit().expect("there is something to persist");
    acceptor.on_persisted(serial);
}

#[test]
fn a_promise_and_a_vote_are_told_only_once_they_are_durable() {
    let (first, mut acceptor) = acceptor();
    let two = voter(2, 0);
    acceptor.on_prepare(two, ballot(5, 2)).expect("taken");
    assert_eq!(acceptor.take_answer(), None);
    let (serial, state) = acceptor.take_edit().expect("a promise changes the state");
    assert_eq!(state.promised, ballot(5, 2));
    assert_eq!(acceptor.take_answer(), None, "handed over is not durable");
    acceptor.on_persisted(serial);
    let (to, body) = acceptor.take_answer().expect("durable now");
    assert_eq!(to, NodeId(2));
    assert!(matches!(body, Body::Promised { accepted: Some(vote), .. }
        if vote.ballot == Ballot::GENESIS));
    let proposal = child(&first, 2);
    acceptor
        .on_accept(two, ballot(5, 2), proposal)
        .expect("taken");
    assert_eq!(acceptor.take_answer(), None);
    persist(&mut acceptor);
    let accepted = Body::Accepted {
        ballot: ballot(5, 2),
        settled: false,
    };
    assert_eq!(acceptor.take_answer(), Some((NodeId(2), accepted)));
}

#[test]
fn the_newest_durable_state_frees_every_answer_before_it_and_none_after() {
    let (_, mut acceptor) = acceptor();
    for round in 2..5 {
        acceptor
            .on_prepare(voter(2, 0), ballot(round, 2))
            .expect("taken");
    }
    let (serial, _) = acceptor.take_edit().expect("three promises");
    acceptor
        .on_prepare(voter(2, 0), ballot(9, 2))
        .expect("taken");
    acceptor.on_persisted(serial);
    let answers = std::iter::from_fn(|| acceptor.take_answer()).count();
    assert_eq!(answers, 3, "the fourth promise is not durable");
}

#[test]
fn an_acceptor_keeps_its_word() {
    let (first, mut acceptor) = acceptor();
    let (two, three) = (voter(2, 0), voter(3, 0));
    acceptor.on_prepare(two, ballot(5, 2)).expect("taken");
    persist(&mut acceptor);
    acceptor.take_answer().expect("promised");
    // Lower ballots are refused, in both phases, with what is in their way.
    acceptor.on_prepare(three, ballot(4, 3)).expect("answered");
    acceptor
        .on_accept(three, ballot(4, 3), child(&first, 3))
        .expect("answered");
    for _ in 0..2 {
        let refused = Body::Refused {
            ballot: ballot(4, 3),
            promised: ballot(5, 2),
        };
        assert_eq!(acceptor.take_answer(), Some((NodeId(3), refused)));
    }
    assert_eq!(acceptor.take_edit(), None, "a refusal changes nothing");
    // A higher ballot is voted for without having been prepared here, and raises the promise.
    acceptor
        .on_accept(three, ballot(6, 3), child(&first, 3))
        .expect("taken");
    persist(&mut acceptor);
    acceptor.take_answer().expect("voted");
    assert_eq!(acceptor.state().promised, ballot(6, 3));
    // One ballot has one value.
    let other = acceptor.on_accept(three, ballot(6, 3), child(&first, 4));
    assert_eq!(other, Err(Reason::TwoValuesAtOneBallot));
}

#[test]
fn what_is_known_to_be_chosen_is_not_unlearned_by_a_delayed_request() {
    let (first, mut acceptor) = acceptor();
    let proposal = child(&first, 2);
    let settled = Proposal::settled(proposal.value.clone());
    let two = voter(2, 0);
    for request in [proposal.clone(), settled.clone()] {
        acceptor
            .on_accept(two, ballot(5, 2), request)
            .expect("taken");
        persist(&mut acceptor);
        acceptor.take_answer().expect("voted");
    }
    acceptor
        .on_accept(two, ballot(5, 2), proposal)
        .expect("taken");
    assert_eq!(acceptor.take_edit(), None);
    let kept = acceptor.state().accepted.clone().map(|vote| vote.proposal);
    assert_eq!(kept, Some(settled));
}

#[test]
fn an_acceptor_votes_only_where_it_is_a_voter() {
    let (first, _) = acceptor();
    let mut stranger = Acceptor::new(voter(1, 7), AcceptorState::empty(HISTORY));
    let result = stranger.on_accept(voter(2, 0), ballot(5, 2), child(&first, 2));
    assert_eq!(
        result,
        Err(Reason::NotAVoter),
        "another incarnation of node 1 is named"
    );
}

#[test]
fn answers_that_wait_for_a_stalled_disk_are_bounded() {
    let (_, mut acceptor) = acceptor();
    for round in 0..WAITING_MAX as u64 {
        acceptor
            .on_prepare(voter(2, 0), ballot(round + 2, 2))
            .expect("taken");
    }
    let beyond = acceptor.on_prepare(voter(2, 0), ballot(999, 2));
    assert_eq!(beyond, Err(Reason::DiskIsBehind));
    persist(&mut acceptor);
    assert_eq!(
        std::iter::from_fn(|| acceptor.take_answer()).count(),
        WAITING_MAX
    );
}

#[test]
fn a_value_follows_another_by_one_version_and_one_voter() {
    let [a, b, c] = trio();
    let (d, reborn) = (voter(4, 0), voter(3, 1));
    let first = value(7, 1, &[a, b, c]);
    for (voters, verdict) in [
        (vec![a, b, c], Ok(())),
        (vec![a, b], Ok(())),
        (vec![a, b, c, d], Ok(())),
        (vec![a, b, d], Ok(())),
        (vec![a, b, reborn], Ok(())),
        (vec![a], Err(Misfit::TooManyVoters)),
        (vec![a, b, c, d, voter(5, 0)], Err(Misfit::TooManyVoters)),
        (vec![a, d, voter(5, 0)], Err(Misfit::TooManyVoters)),
        (vec![a, d, reborn], Err(Misfit::TooManyVoters)),
    ] {
        assert_eq!(
            succession(&first, &value(8, 2, &voters)),
            verdict,
            "{voters:?}"
        );
    }
    let voters = &[a, b, c];
    assert_eq!(
        succession(&first, &value(9, 2, voters)),
        Err(Misfit::Version)
    );
    assert_eq!(
        succession(&first, &value(7, 2, voters)),
        Err(Misfit::Version)
    );
    assert_eq!(succession(&first, &value(8, 1, voters)), Err(Misfit::Nonce));
    let change = |change: &dyn Fn(&mut Config)| {
        let mut config = (*value(8, 2, voters)).clone();
        change(&mut config);
        succession(&first, &Value::new(config))
    };
    assert_eq!(change(&|next| next.epoch = Epoch(0)), Err(Misfit::Epoch));
    assert_eq!(change(&|next| next.history.id += 1), Err(Misfit::History));
    assert_eq!(change(&|next| next.voters.clear()), Err(Misfit::Voters));
    let unnamed = |next: &mut Config| {
        next.voters.insert(NodeId(9));
    };
    assert_eq!(change(&unnamed), Err(Misfit::Voters));
    let distant = |next: &mut Config| {
        let member = next.members.get_mut(&NodeId(3)).expect("a member");
        member.role = MemberRole::Asynchronous;
    };
    assert_eq!(
        change(&distant),
        Err(Misfit::Voters),
        "asynchronous backups do not vote"
    );
}

#[test]
fn a_change_of_voters_needs_both_majorities() {
    let [a, b, c] = trio();
    let (d, first) = (voter(4, 0), value(1, 1, &trio()));
    let proposal = Proposal {
        value: value(2, 2, &[a, b, d]),
        parent: Some(first),
    };
    let chosen = |votes: &[Voter]| proposal.is_chosen_by(|voter| votes.contains(&voter));
    assert!(chosen(&[a, b]));
    assert!(chosen(&[a, c, d]));
    assert!(!chosen(&[a, d]), "a majority of the new ones alone");
    assert!(!chosen(&[a, c]), "a majority of the old ones alone");
    let settled = Proposal::settled(proposal.value.clone());
    assert!(settled.is_chosen_by(|voter| [a, d].contains(&voter)));
    assert!(proposal.changes_voters() && !settled.changes_voters());
}

#[test]
fn a_lone_voter_decides_with_its_own_disk() {
    let (first, mut cluster) = Cluster::found(1, &[]);
    let next = value(2, 2, &[voter(1, 0)]);
    assert_eq!(
        cluster.change(1, &first, &next),
        Some(Outcome::Chosen(next.clone()))
    );
    assert_eq!(cluster.ask(1, Request::Read), Some(Outcome::Current(next)));
    assert!(cluster.mail.is_empty() && cluster.ignored.is_empty());
}

#[test]
fn one_voter_grows_to_three_and_forgets_the_first() {
    let (first, mut cluster) = Cluster::found(1, &[voter(2, 0), voter(3, 0)]);
    let [a, b, c] = trio();
    let mut current = first;
    for (version, voters) in [(2, vec![a, b]), (3, vec![a, b, c]), (4, vec![b, c])] {
        let next = value_with(version, u128::from(version), &voters, &trio());
        let outcome = cluster.change(1, &current, &next);
        assert_eq!(outcome, Some(Outcome::Chosen(next.clone())));
        current = next;
    }
    cluster.down.insert(NodeId(1));
    assert_eq!(
        cluster.ask(3, Request::Read),
        Some(Outcome::Current(current))
    );
}

#[test]
fn the_old_voters_may_go_as_soon_as_a_change_is_told_done() {
    let (first, mut cluster) = Cluster::found(3, &[voter(4, 0)]);
    let next = value(2, 2, &[voter(1, 0), voter(2, 0), voter(4, 0)]);
    let request = Request::CompareAndSet {
        expected: first,
        next: next.clone(),
    };
    cluster.submit(1, request).expect("submitted");
    // Every announcement is lost; all that is known is what the votes left on the disks.
    while cluster.ends.is_empty() {
        cluster
            .mail
            .retain(|(_, _, message)| !matches!(message.body, Body::Chosen { .. }));
        let (from, to, message) = cluster.mail.pop_front().expect("it goes on");
        cluster.step(to.0, Input::Message { from, message });
    }
    cluster.mail.clear();
    cluster.down.extend([NodeId(1), NodeId(3)]);
    assert_eq!(cluster.ask(2, Request::Read), Some(Outcome::Current(next)));
}

#[test]
fn what_one_voter_tells_of_other_voters_moves_nobody() {
    let (first, mut cluster) = Cluster::found(3, &[voter(4, 0)]);
    let next = value(2, 21, &[voter(1, 0), voter(2, 0), voter(4, 0)]);
    // Node 1 replaces voter 3 by 4 and loses touch when only its own vote is given.
    let request = Request::CompareAndSet {
        expected: first.clone(),
        next: next.clone(),
    };
    cluster.submit(1, request).expect("submitted");
    let voted = |cluster: &mut Cluster| {
        let vote = cluster.seat(1).1.state().accepted.clone();
        vote.is_some_and(|vote| vote.proposal.value.version == 2)
    };
    while !voted(&mut cluster) {
        let (from, to, message) = cluster.mail.pop_front().expect("it goes on");
        cluster.step(to.0, Input::Message { from, message });
    }
    cluster.mail.clear();
    // Node 3 hears of it from node 1, with a majority of the old voters, but not of the new.
    cluster.down.extend([NodeId(2), NodeId(4)]);
    let other = value(2, 22, &trio());
    let request = Request::CompareAndSet {
        expected: first.clone(),
        next: other,
    };
    let change = cluster.submit(3, request).expect("submitted");
    cluster.run();
    assert!(
        cluster.ends.is_empty(),
        "nothing can be decided on that word"
    );
    let vote = cluster.seat(3).1.state().accepted.clone();
    assert!(vote.is_some_and(|vote| vote.proposal.value == first));
    let open = cluster
        .seat(3)
        .1
        .cancel(Time::ZERO, change, &mut Vec::new());
    assert!(!open, "and nothing was offered");
    // Node 2 asks the other majority of the old voters, and they know of nothing.
    cluster.down = BTreeSet::from([NodeId(1), NodeId(4)]);
    cluster.now = Time::ZERO;
    assert_eq!(cluster.ask(2, Request::Read), Some(Outcome::Current(first)));
}

#[test]
fn a_change_is_not_offered_before_its_new_voter_has_answered() {
    let (first, mut cluster) = Cluster::found(1, &[voter(2, 0)]);
    cluster.down.insert(NodeId(2));
    let next = value(2, 2, &[voter(1, 0), voter(2, 0)]);
    let outcome = cluster.change(1, &first, &next);
    assert_eq!(outcome, Some(Outcome::Unready(first.clone())));
    // Had it been offered, one vote of two would now block the register.
    let plain = value(2, 3, &[voter(1, 0)]);
    assert_eq!(
        cluster.change(1, &first, &plain),
        Some(Outcome::Chosen(plain.clone()))
    );
}

/// Seed 1465 was told `Unready`, "nothing was offered, the old value stands", for a change that had
/// waited for a silent voter, after another change had been chosen in its place: the patience of
/// the
/// first round ran out in a later one, which had come to stand on the other value.
#[test]
fn a_change_that_lost_is_not_called_unready() {
    let (first, mut cluster) = Cluster::found(3, &[voter(4, 0)]);
    // Node 2 takes out voter 3, and loses touch when only its own vote is given.
    let other = value(2, 21, &[voter(1, 0), voter(2, 0)]);
    let request = Request::CompareAndSet {
        expected: first.clone(),
        next: other.clone(),
    };
    let rival = cluster.submit(2, request).expect("submitted");
    let holds = |cluster: &mut Cluster, node| {
        let vote = cluster.seat(node).1.state().accepted.clone();
        vote.is_some_and(|vote| vote.proposal.value == other)
    };
    while !holds(&mut cluster, 2) {
        let (from, to, message) = cluster.mail.pop_front().expect("it goes on");
        cluster.step(to.0, Input::Message { from, message });
    }
    cluster.mail.clear();
    cluster.seat(2).1.cancel(Time::ZERO, rival, &mut Vec::new());
    // Node 1 wants to add voter 4, which is silent, and waits; then it is refused, and its next
    // round finds the other change and gets it chosen.
    cluster.down.extend([NodeId(2), NodeId(4)]);
    let mut voters = trio().to_vec();
    voters.push(voter(4, 0));
    let request = Request::CompareAndSet {
        expected: first,
        next: value(2, 22, &voters),
    };
    cluster.submit(1, request).expect("submitted");
    cluster.deliver();
    cluster.refuse(1, voter(3, 0));
    cluster.down = BTreeSet::from([NodeId(3), NodeId(4)]);
    cluster.now = cluster.seat(1).1.deadline().expect("it backs off");
    cluster.step(1, Input::Timeout);
    while cluster.seat(1).1.known() != Some(&other) {
        let (from, to, message) = cluster.mail.pop_front().expect("it goes on");
        if !cluster.down.contains(&to) {
            cluster.step(to.0, Input::Message { from, message });
        }
    }
    // Before that is settled it is refused once more, and time passes.
    cluster.mail.clear();
    cluster.refuse(1, voter(2, 0));
    cluster.now = cluster.now.after(Timing::default().patience);
    cluster.step(1, Input::Timeout);
    cluster.mail.clear();
    cluster.now = cluster.now.after(Timing::default().patience);
    cluster.step(1, Input::Timeout);
    assert!(cluster.ends.is_empty(), "{:?}", cluster.ends);
    cluster.deliver();
    assert_eq!(
        cluster.ends.pop().map(|end| end.2),
        Some(Outcome::Lost(other))
    );
}

/// What was called `Unready` was found in the one vote for it that was left, and chosen.
#[test]
fn a_change_that_was_offered_and_is_given_up_is_dead() {
    let (first, mut cluster) = Cluster::found(3, &[voter(4, 0)]);
    let mut voters = trio().to_vec();
    voters.push(voter(4, 0));
    let next = value(2, 2, &voters);
    let request = Request::CompareAndSet {
        expected: first.clone(),
        next: next.clone(),
    };
    let change = cluster.submit(1, request).expect("submitted");
    // The promise of voter 4 is long on its way.
    let mut late = Vec::new();
    while let Some((from, to, message)) = cluster.mail.pop_front() {
        match from.node {
            NodeId(4) => late.push(Input::Message { from, message }),
            _ => cluster.step(to.0, Input::Message { from, message }),
        }
    }
    // Node 2 looks at the register, and nodes 1 and 2 promise it a higher ballot.
    let read = cluster.submit(2, Request::Read).expect("submitted");
    while let Some((from, to, message)) = cluster.mail.pop_front() {
        if to == NodeId(1) || to == NodeId(2) && from.node == to {
            cluster.step(to.0, Input::Message { from, message });
        }
    }
    cluster.seat(2).1.cancel(Time::ZERO, read, &mut Vec::new());
    // The change is offered now, and voter 3 alone votes for it.
    for input in late {
        cluster.step(1, input);
    }
    while let Some((from, to, message)) = cluster.mail.pop_front() {
        if to == NodeId(3) {
            cluster.step(3, Input::Message { from, message });
        }
    }
    let vote = cluster.seat(3).1.state().accepted.clone();
    assert!(vote.is_some_and(|vote| vote.proposal.value == next));
    assert!(!cluster.seat(1).1.is_revocable(change));
    cluster.down.extend([NodeId(3), NodeId(4)]);
    cluster.run();
    let outcome = cluster.ends.pop().map(|end| end.2);
    assert_eq!(outcome, Some(Outcome::Unready(first.clone())));
    cluster.down = BTreeSet::from([NodeId(2)]);
    cluster.now = Time::ZERO;
    assert_eq!(cluster.ask(1, Request::Read), Some(Outcome::Current(first)));
}

#[test]
fn a_silent_voter_is_not_added_even_where_the_others_suffice() {
    let (first, mut cluster) = Cluster::found(3, &[voter(4, 0)]);
    cluster.down.insert(NodeId(4));
    let mut voters = trio().to_vec();
    voters.push(voter(4, 0));
    let outcome = cluster.change(1, &first, &value(2, 2, &voters));
    assert_eq!(outcome, Some(Outcome::Unready(first.clone())));
    // To take out one that is silent needs no word of it.
    cluster.down.insert(NodeId(3));
    let next = value(2, 3, &[voter(1, 0), voter(2, 0)]);
    assert_eq!(
        cluster.change(1, &first, &next),
        Some(Outcome::Chosen(next.clone()))
    );
}

#[test]
fn voters_that_lost_their_memory_and_kept_their_name_are_noticed() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    let next = value(2, 2, &trio());
    assert_eq!(
        cluster.change(1, &first, &next),
        Some(Outcome::Chosen(next.clone()))
    );
    for seat in 1..3 {
        let me = cluster.seats[seat].0;
        let state = AcceptorState::genesis(first.clone());
        cluster.seats[seat].1 = Register::open(me, 99, state, None, Timing::default());
    }
    cluster.seats[0].1 = Register::open(
        voter(1, 0),
        98,
        AcceptorState::empty(HISTORY),
        Some(next),
        Timing::default(),
    );
    assert_eq!(cluster.ask(1, Request::Read), None);
    assert!(cluster.ignored.contains(&Reason::VotersForgot));
}

#[test]
fn a_restart_knows_what_its_votes_prove() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    let next = value(2, 2, &trio());
    cluster.change(1, &first, &next).expect("chosen");
    let state = cluster.seat(2).1.state().clone();
    let register = Register::open(voter(2, 0), 7, state, None, Timing::default());
    assert_eq!(
        register.known(),
        Some(&first),
        "its vote proves the parent chosen"
    );
    let state = AcceptorState::empty(HISTORY);
    let mut register = Register::open(voter(5, 0), 7, state, None, Timing::default());
    let refused = register.submit(Time::ZERO, Request::Read, &mut Vec::new());
    assert_eq!(refused, Err(Refusal::NoVoters));
}

#[test]
fn nonsense_is_ignored_with_its_reason() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    let proposal = child(&first, 2);
    let accept = |ballot| Body::Accept {
        ballot,
        proposal: proposal.clone(),
    };
    let orphan = Proposal {
        value: value(9, 2, &trio()),
        parent: Some(first.clone()),
    };
    let unsound = Body::Accept {
        ballot: ballot(5, 2),
        proposal: orphan,
    };
    let late = Body::Accepted {
        ballot: ballot(5, 1),
        settled: false,
    };
    let (known, accepted) = (1, None);
    for (body, reason) in [
        (accept(ballot(5, 3)), Reason::NotItsBallot),
        (accept(ballot(ROUND_MAX, 2)), Reason::NotItsBallot),
        (
            accept(Ballot {
                node: NodeId(2),
                ..Ballot::ZERO
            }),
            Reason::NotItsBallot,
        ),
        (
            Body::Prepare {
                ballot: ballot(5, 1),
                known,
            },
            Reason::NotItsBallot,
        ),
        (unsound, Reason::Unsound),
        (late, Reason::Late),
        (
            Body::Promised {
                ballot: ballot(5, 1),
                accepted,
            },
            Reason::Late,
        ),
        (
            Body::Refused {
                ballot: ballot(5, 1),
                promised: ballot(6, 2),
            },
            Reason::Late,
        ),
    ] {
        let from = voter(2, 0);
        let message = Message {
            history: HISTORY,
            body,
        };
        let before = cluster.seat(1).1.clone();
        cluster.step(
            1,
            Input::Message {
                from,
                message: message.clone(),
            },
        );
        assert_eq!(cluster.ignored.pop(), Some(reason), "{message:?}");
        assert_eq!(*cluster.seat(1).1, before, "{message:?} changed something");
    }
    let history = History { id: 1, ..HISTORY };
    let body = accept(ballot(5, 2));
    let from = voter(2, 0);
    cluster.step(
        1,
        Input::Message {
            from,
            message: Message { history, body },
        },
    );
    assert_eq!(cluster.ignored.pop(), Some(Reason::OtherHistory));
}

#[test]
fn an_earlier_incarnations_answer_does_not_count() {
    let (_, mut cluster) = Cluster::found(3, &[]);
    cluster.down.extend([NodeId(2), NodeId(3)]);
    cluster.submit(1, Request::Read).expect("submitted");
    let (_, _, request) = cluster.mail.pop_front().expect("a prepare");
    let Body::Prepare { ballot, .. } = request.body else {
        panic!("{request:?}");
    };
    let accepted = cluster.seat(1).1.state().accepted.clone();
    let message = Message {
        history: HISTORY,
        body: Body::Promised { ballot, accepted },
    };
    let from = voter(2, 1);
    cluster.step(
        1,
        Input::Message {
            from,
            message: message.clone(),
        },
    );
    assert_eq!(cluster.ignored.pop(), Some(Reason::DoesNotCount));
    assert!(cluster.ends.is_empty());
    let from = voter(2, 0);
    cluster.step(1, Input::Message { from, message });
    assert_eq!(cluster.ends.len(), 1, "the same from the voter itself does");
}

#[test]
fn reads_that_wait_share_a_round_and_the_queue_is_bounded() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    let mut tickets = Vec::new();
    loop {
        match cluster.submit(1, Request::Read) {
            Ok(ticket) => tickets.push(ticket),
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Busy);
                break;
            }
        }
    }
    assert_eq!(tickets.len(), QUEUE_MAX + 1, "one runs, the others wait");
    let sent = cluster.mail.len();
    cluster.run();
    let ends: Vec<Ticket> = cluster.ends.iter().map(|(_, ticket, _)| *ticket).collect();
    assert_eq!(ends, tickets);
    assert!(
        cluster
            .ends
            .iter()
            .all(|end| end.2 == Outcome::Current(first.clone()))
    );
    assert_eq!(sent, 2, "only the first was begun before");
    assert_eq!(
        cluster.seat(1).1.state().promised.round,
        3,
        "two rounds for all of them"
    );
}

#[test]
fn a_cancelled_operation_ends_in_silence_and_the_next_one_runs() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    let next = value(2, 2, &trio());
    let request = Request::CompareAndSet {
        expected: first.clone(),
        next: next.clone(),
    };
    let change = cluster.submit(1, request.clone()).expect("submitted");
    let read = cluster.submit(1, Request::Read).expect("submitted");
    assert!(cluster.seat(1).1.is_revocable(change));
    assert!(!cluster.seat(1).1.is_revocable(read));
    let mut effects = Vec::new();
    let open = cluster.seat(1).1.cancel(Time::ZERO, change, &mut effects);
    assert!(!open, "nobody was asked to vote yet");
    cluster.mail.clear();
    cluster.run();
    let ends: Vec<Ticket> = cluster.ends.iter().map(|(_, ticket, _)| *ticket).collect();
    assert_eq!(ends, [read]);
    // Once votes were asked for, it may be chosen behind our back.
    let change = cluster.submit(1, request).expect("submitted");
    while !cluster
        .mail
        .iter()
        .any(|mail| matches!(mail.2.body, Body::Accept { .. }))
    {
        let (from, to, message) = cluster.mail.pop_front().expect("it goes on");
        cluster.step(to.0, Input::Message { from, message });
    }
    assert!(!cluster.seat(1).1.is_revocable(change));
    assert!(cluster.seat(1).1.cancel(Time::ZERO, change, &mut effects));
    cluster.run();
    assert_eq!(cluster.ask(2, Request::Read), Some(Outcome::Current(next)));
}

#[test]
fn waits_after_refusals_grow_and_are_bounded() {
    let (_, mut cluster) = Cluster::found(3, &[]);
    let timing = Timing::default();
    cluster.submit(1, Request::Read).expect("submitted");
    let mut least = timing.backoff_min;
    for _ in 0..20 {
        let prepare = cluster.mail.back().expect("a prepare").2.clone();
        let Body::Prepare { ballot, .. } = prepare.body else {
            panic!("{prepare:?}");
        };
        let message = Message {
            history: HISTORY,
            body: Body::Refused {
                ballot,
                promised: Ballot {
                    round: ballot.round + 3,
                    ..ballot
                },
            },
        };
        let from = voter(2, 0);
        cluster.step(1, Input::Message { from, message });
        let deadline = cluster.seat(1).1.deadline().expect("it goes on");
        let wait = deadline.since(cluster.now);
        assert!(wait >= least && wait <= least * 2, "{wait:?} for {least:?}");
        least = (least * 2).min(timing.backoff_max);
        cluster.now = deadline;
        cluster.step(1, Input::Timeout);
    }
    assert_eq!(least, timing.backoff_max);
}

#[test]
fn messages_and_states_survive_their_encoding() {
    let (first, mut cluster) = Cluster::found(3, &[]);
    cluster
        .change(1, &first, &value(2, 2, &trio()))
        .expect("chosen");
    let state = cluster.seat(2).1.state().clone();
    let bytes = postcard::to_stdvec(&state).expect("encodes");
    assert_eq!(postcard::from_bytes(&bytes), Ok(state.clone()));
    let message = Message {
        history: HISTORY,
        body: Body::Promised {
            ballot: ballot(5, 2),
            accepted: state.accepted,
        },
    };
    let bytes = postcard::to_stdvec(&message).expect("encodes");
    assert_eq!(postcard::from_bytes(&bytes), Ok(message));
    for cut in 0..bytes.len() {
        assert!(postcard::from_bytes::<Message>(&bytes[..cut]).is_err());
    }
}
