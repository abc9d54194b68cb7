//! The smallest worlds, complete, in every test run; `model` explores all of them.

use model::run::explore;
use model::worlds::WORLDS;

/// More than any of these needs.
const BOUND: usize = 1_000_000;

fn holds(name: &str) {
    let named = WORLDS.iter().find(|named| named.name == name);
    let named = named.expect("a world of this name");
    let found = explore(named, BOUND);
    let way = found.broken.unwrap_or_default().join("\n");
    assert!(way.is_empty(), "{name}:\n{way}");
    assert_eq!(found.missing, [], "{name} never saw what it is about");
    assert!(
        found.complete,
        "{name}: {} states are not all",
        found.states
    );
}

#[test]
fn a_write_survives_a_failover_of_two() {
    holds("pair-failover");
}

#[test]
fn messages_that_come_twice_change_nothing() {
    holds("pair-double");
}

#[test]
fn the_set_may_shrink_while_a_successor_stands() {
    holds("pair-set");
}

#[test]
fn the_set_may_grow_while_a_successor_stands() {
    holds("pair-regrow");
}

#[test]
fn a_switchover_loses_nothing() {
    holds("pair-handover");
}

#[test]
fn every_world_has_a_name_of_its_own() {
    let mut names: Vec<&str> = WORLDS.iter().map(|named| named.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), WORLDS.len());
}
