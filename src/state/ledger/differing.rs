//! What two ledgers differ in, for people.

use super::Ledger;
use super::list::{Item, List};
use super::record::Account;
use std::collections::BTreeMap;

/// What it is, its name, and how it is shown in one ledger and in the other.
pub(in crate::state) type Differing = (&'static str, String, [Option<String>; 2]);

impl Ledger {
    /// All of it, in memory: for a look at two copies of which one is wrong.
    pub(in crate::state) fn differing(&self, other: &Ledger) -> Vec<Differing> {
        let mut found = Vec::new();
        if self.digest() == other.digest() {
            return found;
        }
        let mut accounts: BTreeMap<u128, [Option<&Account>; 2]> = BTreeMap::new();
        for (side, ledger) in [self, other].into_iter().enumerate() {
            for slot in ledger.accounts.iter() {
                accounts.entry(slot.record.id).or_default()[side] = Some(&slot.record);
            }
        }
        for (id, [one, other]) in accounts {
            if one != other {
                let sides = [one, other].map(|side| side.map(|account| format!("{account:?}")));
                found.push(("account", id.to_string(), sides));
            }
        }
        let (one, two) = (self.transfers.log(), other.transfers.log());
        lists(
            "transfer",
            one,
            two,
            |entry| format!("{:?}", entry.record),
            &mut found,
        );
        let (one, two) = (self.transfers.burned(), other.transfers.burned());
        lists("used-up id", one, two, u128::to_string, &mut found);
        let (one, two) = (self.holds.expiries(), other.holds.expiries());
        lists(
            "expiry",
            one,
            two,
            |expiry| format!("{expiry:?}"),
            &mut found,
        );
        let (one, two) = (self.history.rows(), other.history.rows());
        lists(
            "row of history",
            one,
            two,
            |row| format!("{row:?}"),
            &mut found,
        );
        if self.last_event != other.last_event {
            let sides = [self, other].map(|ledger| Some(format!("{} ns", ledger.last_event)));
            found.push(("clock", "time of the newest event".to_string(), sides));
        }
        found
    }
}

/// Lists only grow: items are held against each other by their positions.
fn lists<T: Item>(
    what: &'static str,
    one: &List<T>,
    other: &List<T>,
    show: impl Fn(&T) -> String,
    found: &mut Vec<Differing>,
) {
    for position in 0..one.len().max(other.len()) {
        let bytes =
            |list: &List<T>| (position < list.len()).then(|| list.bytes_at(position).to_vec());
        if bytes(one) != bytes(other) {
            let sides = [one, other].map(|list| list.get(position).as_ref().map(&show));
            found.push((what, format!("number {position}"), sides));
        }
    }
}
