//! Single rules, each shown by the smallest world that can break it.

use super::world::{Faults, Shape, World};
use crate::replication::config::{Acks, Protection};
use crate::replication::settings::LossBudget;
use crate::replication::*;
use standfast_wal::{Ancestor, NodeId};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn world(protection: Protection, settings: Settings) -> World {
    let shape = Shape {
        data: 2,
        asynchronous: 0,
        witnesses: 1,
        acks: Acks::All,
        protection,
    };
    let mut world = World::new(1, shape, settings, Faults::NONE);
    for id in world.ids() {
        world.start(id);
    }
    world.run(MS * 1000);
    assert_eq!(world.serving(), [NodeId(1)]);
    world
}

#[test]
fn beyond_the_loss_budget_nothing_is_admitted_until_a_backup_has_caught_up() {
    let settings = Settings {
        loss_budget: LossBudget {
            commands: Some(4),
            ..LossBudget::default()
        },
        ..Settings::default()
    };
    let mut world = world(Protection::MaxPerformance, settings);
    world.crash(NodeId(2));
    world.run(MS * 10);
    let mut admitted = 0;
    while world.propose(NodeId(1), 1).is_ok() {
        world.run(MS * 5);
        admitted += 1;
    }
    assert_eq!(
        admitted, 5,
        "four may be at risk, the fifth uses the budget up"
    );
    assert_eq!(world.propose(NodeId(1), 1), Err(Refusal::LossBudget));
    world.start(NodeId(2));
    world.run(MS * 100);
    assert!(world.propose(NodeId(1), 1).is_ok());
}

#[test]
fn a_new_primary_with_a_bad_clock_starts_from_its_peers_median() {
    let mut world = world(Protection::MaxAvailability, Settings::default());
    let year = 31_000_000_000_000_000;
    let now = world.now + 1_000_000_000;
    world.input(NodeId(2), Input::WallClock(now + year));
    world.run(MS * 100);
    world.crash(NodeId(1));
    world.run(MS * 1000);
    assert_eq!(world.serving(), [NodeId(2)]);
    let stamp = world
        .replica(NodeId(2))
        .map(|replica| replica.tip().timestamp);
    assert!(
        stamp.is_some_and(|stamp| stamp < now + year / 2),
        "{stamp:?}"
    );
}

/// What was known of the others' clocks stays true when the own one jumps.
#[test]
fn a_clock_that_jumps_when_nobody_is_heard_any_more_is_not_believed() {
    let mut world = world(Protection::MaxAvailability, Settings::default());
    let year = 31_000_000_000_000_000;
    let now = world.now + 1_000_000_000;
    world.run(MS * 100);
    world.crash(NodeId(1));
    world.input(NodeId(2), Input::WallClock(now + year));
    world.run(MS * 1000);
    assert_eq!(world.serving(), [NodeId(2)]);
    let stamp = world
        .replica(NodeId(2))
        .map(|replica| replica.tip().timestamp);
    assert!(
        stamp.is_some_and(|stamp| stamp < now + year / 2),
        "{stamp:?}"
    );
}

/// A primary that was restarted takes over again without asking anybody whether it may, and with
/// nobody's fence but its own: the voters' answers to its asking are all it hears of other clocks.
#[test]
fn a_restarted_primary_with_a_bad_clock_starts_from_its_peers_median() {
    let mut world = world(Protection::MaxAvailability, Settings::default());
    let year = 31_000_000_000_000_000;
    let now = world.now + 1_000_000_000;
    for id in [1, 2, 3] {
        world.crash(NodeId(id));
    }
    world.start(NodeId(1));
    world.input(NodeId(1), Input::WallClock(now + year));
    world.start(NodeId(3));
    world.run(MS * 1000);
    assert_eq!(world.serving(), [NodeId(1)]);
    let stamp = world
        .replica(NodeId(1))
        .map(|replica| replica.tip().timestamp);
    assert!(
        stamp.is_some_and(|stamp| stamp < now + year / 2),
        "{stamp:?}"
    );
}

#[test]
fn a_full_window_is_never_exceeded_and_opens_again() {
    let settings = Settings {
        window_bytes: 300,
        ..Settings::default()
    };
    let mut world = world(Protection::MaxPerformance, settings);
    world.pause(NodeId(2), 1_000_000_000);
    for _ in 0..20 {
        world
            .propose(NodeId(1), 1)
            .expect("the primary is alone in its set");
        world.run(MS);
    }
    let sent = world.sent_to(NodeId(2));
    assert!((300..600).contains(&sent), "{sent} bytes on the way");
    world.run(MS * 2000);
    let replica = world.replica(NodeId(1)).expect("it runs");
    assert_eq!(replica.copies(replica.commit()), 2);
}

/// What the founder held and did not know to be committed the old history may have replaced.
#[test]
fn a_founder_surely_shares_what_it_knew_to_be_committed_and_perhaps_the_rest_of_its_log() {
    let mut world = world(Protection::MaxAvailability, Settings::default());
    let (one, two, witness) = (NodeId(1), NodeId(2), NodeId(3));
    // The second holds it, and nobody hears that it does.
    world.cut_links.insert((two, one));
    world.all_link_news();
    world.propose(one, 2).expect("it serves");
    world.run(MS * 5);
    world.crash(one);
    world.crash(witness);
    world.run(MS * 3000);
    let replica = world.replica(two).expect("it runs");
    let (history, shared, end) = (
        replica.history(),
        replica.commit(),
        replica.tip().position.lsn,
    );
    assert!(shared < end, "{shared} {end}");
    let order = Order::ForcePromote {
        ignore_old_primary: false,
    };
    world.input(two, Input::Operator { ticket: 1, order });
    world.run(MS * 3000);
    let founded = world.replica(two).expect("it runs").config();
    assert_eq!(founded.history.generation, history.generation + 1);
    let fork = Ancestor {
        history,
        shared,
        end,
    };
    assert_eq!(founded.ancestors, [fork]);
}
