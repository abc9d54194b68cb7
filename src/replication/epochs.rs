//! Which primary wrote which part of a log: one entry per EpochStart, and the fork of two logs.
//!
//! Two logs are equal at an LSN when (history, epoch, LSN) are equal there: one writer per epoch
//! makes that exact (I3), so comparing the tables finds the fork without reading a record.

use crate::replication::fence::Fence;
use serde::{Deserialize, Serialize};
use standfast_wal::record::{field, is_gapless};
use standfast_wal::{Epoch, Field, History, Lsn, NodeId, Nonce, Record};

/// One primary's reign in a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct EpochEntry {
    pub history: History,
    pub epoch: Epoch,
    pub nonce: Nonce,
    pub primary: NodeId,
    /// The LSN of its EpochStart.
    pub first_lsn: Lsn,
}

const GENERATION: Field = field(0, 8, "generation", "number of the history");
const HISTORY_ID: Field = field(8, 16, "history_id", "random id of the history");
const EPOCH: Field = field(24, 8, "epoch", "the epoch that begins; as in the header");
const NONCE: Field = field(32, 16, "nonce", "random number of this promotion");
const PRIMARY: Field = field(48, 4, "primary", "the node that is primary of it");
const VERSION: Field = field(52, 4, "version", "1");
const FORK_EPOCH: Field = field(56, 8, "fork_epoch", "epoch of the last record before");
const FORK_LSN: Field = field(64, 8, "fork_lsn", "LSN of the last record before");

/// The payload of an EpochStart record; little-endian.
pub const EPOCH_START: [Field; 8] = [
    GENERATION, HISTORY_ID, EPOCH, NONCE, PRIMARY, VERSION, FORK_EPOCH, FORK_LSN,
];
/// Bytes of an EpochStart's payload.
pub const EPOCH_START_BYTES: usize = 72;
const EPOCH_START_VERSION: u32 = 1;
const _: () = assert!(is_gapless(&EPOCH_START, EPOCH_START_BYTES));

fn put(out: &mut [u8], field: Field, bytes: &[u8]) {
    out[field.at..field.at + field.len].copy_from_slice(bytes);
}

fn number(payload: &[u8], field: Field) -> Option<u128> {
    let mut wide = [0; 16];
    wide.get_mut(..field.len)?
        .copy_from_slice(payload.get(field.at..field.at + field.len)?);
    Some(u128::from_le_bytes(wide))
}

fn number64(payload: &[u8], field: Field) -> Option<u64> {
    u64::try_from(number(payload, field)?).ok()
}

impl EpochEntry {
    pub fn fence(&self) -> Fence {
        Fence {
            history: self.history,
            epoch: self.epoch,
        }
    }

    /// Whether this reign may stand behind `before` in one log (I3).
    fn succeeds(&self, before: &EpochEntry) -> bool {
        self.fence() > before.fence()
            && self.epoch > before.epoch
            && self.first_lsn > before.first_lsn
    }

    /// The payload of the EpochStart that begins this reign behind (`fork_epoch`, first - 1).
    pub fn encode(&self, fork_epoch: Epoch) -> [u8; EPOCH_START_BYTES] {
        let mut out = [0; EPOCH_START_BYTES];
        put(&mut out, GENERATION, &self.history.generation.to_le_bytes());
        put(&mut out, HISTORY_ID, &self.history.id.to_le_bytes());
        put(&mut out, EPOCH, &self.epoch.0.to_le_bytes());
        put(&mut out, NONCE, &self.nonce.0.to_le_bytes());
        put(&mut out, PRIMARY, &self.primary.0.to_le_bytes());
        put(&mut out, VERSION, &EPOCH_START_VERSION.to_le_bytes());
        put(&mut out, FORK_EPOCH, &fork_epoch.0.to_le_bytes());
        put(&mut out, FORK_LSN, &(self.first_lsn.0 - 1).to_le_bytes());
        out
    }

    /// Reads an EpochStart record; `None` when it is another kind or its payload makes no sense.
    pub fn decode(record: &Record) -> Option<EpochEntry> {
        let payload = record.payload();
        if record.kind() != standfast_wal::Kind::EpochStart || payload.len() != EPOCH_START_BYTES {
            return None;
        }
        let entry = EpochEntry {
            history: History {
                generation: number64(&payload, GENERATION)?,
                id: number(&payload, HISTORY_ID)?,
            },
            epoch: Epoch(number64(&payload, EPOCH)?),
            nonce: Nonce(number(&payload, NONCE)?),
            primary: NodeId(u32::try_from(number(&payload, PRIMARY)?).ok()?),
            first_lsn: record.first_lsn(),
        };
        let known = number(&payload, VERSION)? == u128::from(EPOCH_START_VERSION);
        let fits = number64(&payload, FORK_LSN)? == record.first_lsn().0 - 1
            && entry.epoch == record.epoch();
        (known && fits).then_some(entry)
    }
}

/// All reigns of one log, oldest first; epochs, reigns and first LSNs rise.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "Unverified")]
pub struct EpochTable {
    entries: Vec<EpochEntry>,
}

/// A table as it came from a peer or out of a file, whose reigns may stand in any order.
#[derive(Deserialize)]
struct Unverified {
    entries: Vec<EpochEntry>,
}

impl TryFrom<Unverified> for EpochTable {
    type Error = &'static str;
    fn try_from(table: Unverified) -> Result<EpochTable, &'static str> {
        let entries = table.entries;
        let begins = entries
            .first()
            .is_none_or(|first| first.first_lsn > Lsn::ZERO);
        if begins && entries.windows(2).all(|pair| pair[1].succeeds(&pair[0])) {
            Ok(EpochTable { entries })
        } else {
            Err("a table of epochs whose reigns do not rise")
        }
    }
}

impl EpochTable {
    pub fn new(entries: Vec<EpochEntry>) -> EpochTable {
        let mut table = EpochTable::default();
        for entry in entries {
            table.push(entry);
        }
        table
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn last(&self) -> Option<&EpochEntry> {
        self.entries.last()
    }

    /// Adds the reign that begins behind all others.
    pub fn push(&mut self, entry: EpochEntry) {
        if let Some(last) = self.entries.last() {
            assert!(entry.succeeds(last), "I3: reign {entry:?} after {last:?}");
        }
        self.entries.push(entry);
    }

    /// Forgets the reigns that begin after `lsn`.
    pub fn cut(&mut self, lsn: Lsn) {
        self.entries.retain(|entry| entry.first_lsn <= lsn);
    }

    /// The reign that wrote `lsn`; `None` before the first entry.
    pub fn at(&self, lsn: Lsn) -> Option<&EpochEntry> {
        let after = self.entries.partition_point(|entry| entry.first_lsn <= lsn);
        self.entries[..after].last()
    }

    /// The last LSN up to which this log, which ends at `end`, equals the other one.
    pub fn agreed(&self, end: Lsn, other: &EpochTable, other_end: Lsn) -> Lsn {
        for (i, mine) in self.entries.iter().enumerate().rev() {
            let same = |entry: &&EpochEntry| {
                entry.fence() == mine.fence()
                    && entry.nonce == mine.nonce
                    && entry.first_lsn == mine.first_lsn
            };
            if let Some(k) = other.entries.iter().position(|entry| same(&entry)) {
                let mine_last = self.last_lsn_of(i, end);
                let other_last = other.last_lsn_of(k, other_end);
                return mine_last.min(other_last);
            }
        }
        Lsn::ZERO
    }

    fn last_lsn_of(&self, index: usize, end: Lsn) -> Lsn {
        match self.entries.get(index + 1) {
            Some(next) => Lsn(next.first_lsn.0 - 1).min(end),
            None => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::{Kind, Link, Position};

    fn table(reigns: &[(u64, u64, u64)]) -> EpochTable {
        let entry = |(generation, epoch, first): &(u64, u64, u64)| EpochEntry {
            history: History {
                generation: *generation,
                id: 7,
            },
            epoch: Epoch(*epoch),
            nonce: Nonce(u128::from(*epoch)),
            primary: NodeId(1),
            first_lsn: Lsn(*first),
        };
        EpochTable::new(reigns.iter().map(entry).collect())
    }

    #[test]
    fn an_epoch_start_reads_back_and_nonsense_does_not() {
        let position = Position {
            epoch: Epoch(3),
            lsn: Lsn(41),
        };
        let link = Link {
            position,
            ..Link::default()
        };
        let entry = EpochEntry {
            first_lsn: Lsn(42),
            ..table(&[(2, 5, 1)]).entries()[0]
        };
        let payload = entry.encode(Epoch(3));
        let record =
            |kind, epoch, payload: &[u8]| Record::build(link, kind, Epoch(epoch), 100, 1, payload);
        let good = record(Kind::EpochStart, 5, &payload);
        assert_eq!(EpochEntry::decode(&good), Some(entry));
        for (what, bad) in [
            ("another kind", record(Kind::Commands, 5, &payload)),
            (
                "another epoch in the header",
                record(Kind::EpochStart, 6, &payload),
            ),
            ("too short", record(Kind::EpochStart, 5, &payload[1..])),
            ("an unknown version", {
                let mut payload = payload;
                payload[VERSION.at] = 2;
                record(Kind::EpochStart, 5, &payload)
            }),
            ("another place in the log", {
                let mut payload = payload;
                payload[FORK_LSN.at] = 9;
                record(Kind::EpochStart, 5, &payload)
            }),
        ] {
            assert_eq!(EpochEntry::decode(&bad), None, "{what}");
        }
    }

    /// A peer's table is compared with one's own as it is: one out of order would put the fork at a
    /// wrong place, or in front of the first record.
    #[test]
    fn a_table_whose_reigns_do_not_rise_is_no_table() {
        let decode = |table: &EpochTable| {
            let bytes = postcard::to_stdvec(table).expect("numbers");
            postcard::from_bytes::<EpochTable>(&bytes)
        };
        let good = table(&[(1, 1, 1), (1, 3, 4), (2, 4, 9)]);
        assert_eq!(decode(&good).as_ref(), Ok(&good));
        assert_eq!(decode(&EpochTable::default()), Ok(EpochTable::default()));
        let entries = good.entries();
        let bad = [
            vec![entries[1], entries[0]],
            vec![entries[0], entries[0]],
            vec![EpochEntry {
                first_lsn: Lsn::ZERO,
                ..entries[0]
            }],
        ];
        for entries in bad {
            assert!(decode(&EpochTable { entries }).is_err());
        }
    }

    #[test]
    fn the_fork_of_two_logs_is_where_their_last_common_reign_ends_first() {
        // (what, own reigns, own end, other reigns, other end, agreed)
        type Reigns<'a> = &'a [(u64, u64, u64)];
        let cases: [(&str, Reigns, u64, Reigns, u64, u64); 9] = [
            ("both empty", &[], 0, &[], 0, 0),
            ("nothing in common", &[(1, 1, 1)], 9, &[(1, 2, 1)], 9, 0),
            ("the same", &[(1, 1, 1)], 9, &[(1, 1, 1)], 9, 9),
            ("own is a first part", &[(1, 1, 1)], 5, &[(1, 1, 1)], 9, 5),
            (
                "the other is a first part",
                &[(1, 1, 1)],
                9,
                &[(1, 1, 1)],
                5,
                5,
            ),
            (
                "a tail that a successor did not see",
                &[(1, 1, 1)],
                9,
                &[(1, 1, 1), (1, 2, 7)],
                9,
                6,
            ),
            (
                "two tails",
                &[(1, 1, 1), (1, 2, 6)],
                9,
                &[(1, 1, 1), (1, 3, 8)],
                9,
                5,
            ),
            (
                "a later reign in common",
                &[(1, 1, 1), (1, 3, 4)],
                6,
                &[(1, 1, 1), (1, 3, 4), (1, 4, 9)],
                12,
                6,
            ),
            (
                "another history",
                &[(1, 1, 1), (1, 2, 4)],
                9,
                &[(1, 1, 1), (2, 2, 6)],
                9,
                3,
            ),
        ];
        for (what, own, end, other, other_end, agreed) in cases {
            let (own, other) = (table(own), table(other));
            assert_eq!(
                own.agreed(Lsn(end), &other, Lsn(other_end)),
                Lsn(agreed),
                "{what}"
            );
            assert_eq!(
                other.agreed(Lsn(other_end), &own, Lsn(end)),
                Lsn(agreed),
                "{what}, seen from there"
            );
        }
    }
}
