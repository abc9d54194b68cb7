//! Two states of one LSN that are not the same, and what is said of them.

use super::super::Differences;
use super::super::command::{Batch, BatchForm};
use super::super::ledger::{Account, Transfer};
use super::*;

fn accounts() -> Command {
    let account = |id| Account {
        id,
        ledger: 1,
        code: 7,
        ..Account::default()
    };
    let events: Vec<u8> = (1..=3u128).flat_map(|id| account(id).encode()).collect();
    Command::CreateAccounts(batch(events))
}

fn batch(events: Vec<u8>) -> Batch {
    Batch {
        events: events.into(),
        form: BatchForm::Results,
    }
}

fn pay(id: u128, amount: u128) -> Command {
    let transfer = Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 1,
        code: 7,
        ..Transfer::default()
    };
    Command::CreateTransfers(batch(transfer.encode().to_vec()))
}

fn state(commands: &[Command]) -> State {
    let mut state = State::new(LIMITS);
    apply_all(
        &mut state,
        &[commands_record(Link::default(), 1_000, commands)],
    );
    state
}

#[test]
fn equal_states_do_not_differ() {
    let commands = [accounts(), pay(1, 5), set(text("a"), text("1"))];
    let found = Differences::of(&state(&commands), &state(&commands), 10);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn keys_that_differ_are_named_with_both_values() {
    let one = state(&[set(text("a"), text("1")), set(text("b"), text("2"))]);
    let other = state(&[set(text("a"), text("1")), set(text("c"), text("\x01"))]);
    let found = Differences::of(&one, &other, 10);
    let mut things = found.things.clone();
    things.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<&str> = things.iter().map(|thing| thing.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(things[0].one.as_deref(), Some("\"2\", written at LSN 2"));
    assert_eq!(things[0].other, None);
    assert_eq!(
        things[1].other.as_deref(),
        Some("\"\\x01\", written at LSN 2")
    );
    let mut slots: Vec<u16> = things.iter().filter_map(|thing| thing.slot).collect();
    slots.sort_unstable();
    assert_eq!(found.slots, slots);
}

#[test]
fn transfers_in_another_order_differ() {
    let one = state(&[accounts(), pay(1, 5), pay(2, 5)]);
    let other = state(&[accounts(), pay(2, 5), pay(1, 5)]);
    let found = Differences::of(&one, &other, 10);
    assert!(found.things.iter().any(|thing| thing.what == "transfer"));
}

#[test]
fn accounts_and_transfers_that_differ_are_named() {
    let one = state(&[accounts(), pay(1, 5), pay(2, 6)]);
    let other = state(&[accounts(), pay(1, 5), pay(2, 7)]);
    let found = Differences::of(&one, &other, 10);
    assert_eq!(found.slots, [0u16; 0]);
    let things = found.things.iter();
    let named: Vec<(&str, &str)> = things.map(|t| (t.what, t.name.as_str())).collect();
    assert_eq!(
        named,
        [("account", "1"), ("account", "2"), ("transfer", "2")]
    );
    assert!(found.things[2].one.as_ref().unwrap().contains("amount: 6"));
    assert!(
        found.things[2]
            .other
            .as_ref()
            .unwrap()
            .contains("amount: 7")
    );
    let found = Differences::of(&one, &other, 1);
    assert_eq!((found.things.len(), found.more), (1, 2));
}
