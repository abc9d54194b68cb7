//! What two ledgers differ in, for people.

use super::Ledger;
use super::list::{Item, List};
use super::record::{Account, Transfer};
use std::collections::BTreeMap;

/// Where a difference goes: what it is, its name, and what shows it on one side and on the other.
/// Only what is to be shown is made into text.
pub(in crate::state) type Note<'a> =
    dyn FnMut(&'static str, String, [Option<&dyn std::fmt::Debug>; 2]) + 'a;

impl Ledger {
    /// Takes as long as reading both, and memory for their accounts.
    pub(in crate::state) fn differing(&self, other: &Ledger, note: &mut Note<'_>) {
        if self.digest() == other.digest() {
            return;
        }
        let mut accounts: BTreeMap<u128, [Option<&Account>; 2]> = BTreeMap::new();
        for (side, ledger) in [self, other].into_iter().enumerate() {
            for slot in ledger.accounts.iter() {
                accounts.entry(slot.record.id).or_default()[side] = Some(&slot.record);
            }
        }
        for (id, [one, other]) in accounts {
            if one != other {
                note(
                    "account",
                    id.to_string(),
                    [one.map(shown), other.map(shown)],
                );
            }
        }
        self.differing_transfers(other, note);
        let (one, two) = (self.transfers.burned(), other.transfers.burned());
        lists("used-up id", one, two, note);
        let (one, two) = (self.holds.expiries(), other.holds.expiries());
        lists("expiry", one, two, note);
        lists(
            "row of history",
            self.history.rows(),
            other.history.rows(),
            note,
        );
        if self.last_event != other.last_event {
            let times = [self, other].map(|ledger| Some(shown(&ledger.last_event)));
            note("clock", "ns of the newest event".to_string(), times);
        }
    }

    /// By their ids: one that is on one side only moves all behind it.
    fn differing_transfers(&self, other: &Ledger, note: &mut Note<'_>) {
        let mut are_equal = self.transfers() == other.transfers();
        for position in 0..self.transfers() {
            let one: Transfer = self.transfers.at(position).record;
            let there = other.transfer(one.id);
            if there != Some(one) {
                are_equal = false;
                let sides = [Some(shown(&one)), there.as_ref().map(shown)];
                note("transfer", one.id.to_string(), sides);
            }
        }
        for position in 0..other.transfers() {
            let there = other.transfers.at(position).record;
            if self.transfer(there.id).is_none() {
                are_equal = false;
                note(
                    "transfer",
                    there.id.to_string(),
                    [None, Some(shown(&there))],
                );
            }
        }
        // Their order, and where they hang at accounts and holds.
        let hangs_elsewhere = |at: &u64| self.transfers.at(*at) != other.transfers.at(*at);
        if are_equal && let Some(first) = (0..self.transfers()).find(hangs_elsewhere) {
            let [one, there] = [self, other].map(|ledger| ledger.transfers.at(first));
            note(
                "transfer",
                format!("number {first}"),
                [Some(shown(&one)), Some(shown(&there))],
            );
        }
    }
}

fn shown<T: std::fmt::Debug>(what: &T) -> &dyn std::fmt::Debug {
    what
}

/// Lists only grow: items are held against each other by their positions.
fn lists<T: Item + std::fmt::Debug>(
    what: &'static str,
    one: &List<T>,
    other: &List<T>,
    note: &mut Note<'_>,
) {
    for position in 0..one.len().max(other.len()) {
        let is_in = |list: &List<T>| position < list.len();
        let bytes = [one, other].map(|list| is_in(list).then(|| list.bytes_at(position)));
        if bytes[0] != bytes[1] {
            let [one, two] = [one, other].map(|list| list.get(position));
            let sides = [one.as_ref().map(shown), two.as_ref().map(shown)];
            note(what, format!("number {position}"), sides);
        }
    }
}
