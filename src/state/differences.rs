//! What two states differ in, for people: an Attestation tells only that they do (I2).

use super::State;
use super::entry::Entry;
use super::slots::Slot;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One thing that is not the same in both.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// key, token, account, transfer, used-up id, expiry, row of history, clock.
    pub what: &'static str,
    pub name: String,
    /// Of keys and tokens.
    pub slot: Option<u16>,
    /// `None`: it is not there.
    pub one: Option<String>,
    pub other: Option<String>,
}

/// What differs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Differences {
    /// Of the 16384 hash slots.
    pub slots: Vec<u16>,
    pub things: Vec<Difference>,
    /// How many more there are.
    pub more: u64,
}

impl Differences {
    /// Of two states; no more than `max` things are named.
    pub fn of(one: &State, other: &State, max: usize) -> Differences {
        let mut found = Differences::default();
        let digests = one.slot_digests().into_iter().zip(other.slot_digests());
        let slots = (0u16..)
            .zip(digests)
            .filter(|(_, (one, other))| one != other);
        found.slots = slots.map(|(slot, _)| slot).collect();
        for slot in found.slots.clone() {
            let mut of =
                |what, one: &Slot, other: &Slot| found.entries(what, slot, one, other, max);
            of(
                "key",
                one.keys.slots().get(slot),
                other.keys.slots().get(slot),
            );
            of(
                "token",
                one.tokens.slots().get(slot),
                other.tokens.slots().get(slot),
            );
        }
        one.ledger
            .differing(&other.ledger, &mut |what, name, [one, other]| {
                let text = |side: Option<&dyn fmt::Debug>| side.map(|side| format!("{side:?}"));
                found.note(max, || Difference {
                    what,
                    name,
                    slot: None,
                    one: text(one),
                    other: text(other),
                });
            });
        found
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.things.is_empty()
    }

    fn entries(&mut self, what: &'static str, slot: u16, one: &Slot, other: &Slot, max: usize) {
        let mut both: BTreeMap<&[u8], [Option<&Entry>; 2]> = BTreeMap::new();
        for (side, slot) in [one, other].into_iter().enumerate() {
            for entry in slot.table.iter() {
                both.entry(entry.key()).or_default()[side] = Some(entry);
            }
        }
        for (key, [one, other]) in both {
            if one.map(Entry::bytes) != other.map(Entry::bytes) {
                let name = key.escape_ascii().to_string();
                self.note(max, || Difference {
                    what,
                    name,
                    slot: Some(slot),
                    one: one.map(shown),
                    other: other.map(shown),
                });
            }
        }
    }

    fn note(&mut self, max: usize, difference: impl FnOnce() -> Difference) {
        match self.things.len() < max {
            true => self.things.push(difference()),
            false => self.more += 1,
        }
    }
}

/// A value that is longer is cut.
const SHOWN: usize = 200;

fn shown(entry: &Entry) -> String {
    let value = entry.value();
    let cut = &value[..value.len().min(SHOWN)];
    let (more, revision) = (
        if cut.len() < value.len() { "…" } else { "" },
        entry.revision(),
    );
    let expiry = entry.expiry_ms();
    let expiry = expiry.map_or(String::new(), |ms| format!(", expires at {ms} ms"));
    format!(
        "\"{}{more}\", written at LSN {revision}{expiry}",
        cut.escape_ascii()
    )
}
