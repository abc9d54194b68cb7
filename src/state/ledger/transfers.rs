//! All transfers, in the order of their creation: an append-only log of entries of one size.
//!
//! Each entry names the entry before it of its debit account and of its credit account, so that a
//! statement is a walk. Every [`MARK_EVERY`]th entry of an account is marked, so that a walk can
//! begin anywhere. The index finds a transfer by its id, and the ids that refused transfers have
//! used up. An entry never changes: what became of a hold is kept elsewhere (`holds.rs`).

use super::hash_of;
use super::index::Index;
use super::list::{Item, List};
use super::record::{RECORD_BYTES, Transfer};
use super::walk::Sorts;
use standfast_wal::Field;
use standfast_wal::record::{field, is_gapless};
use std::collections::BTreeMap;

/// Shards of the index, as a power of two.
const SHARD_BITS: u32 = 10;
/// Positions from here on are those of used-up ids.
const BURNED: u64 = 1 << 39;
const _: () = assert!(BURNED * 2 - 1 <= super::index::POSITIONS_MAX);
/// Entries of one account between two marks.
pub(super) const MARK_EVERY: u32 = 128;

/// A transfer and where it hangs: 160 bytes. Never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub record: Transfer,
    pub debit: Side,
    pub credit: Side,
    /// Number plus one of the hold that it opens or resolves; 0: none.
    pub hold: u64,
}

/// Where an entry hangs at one of its accounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Side {
    /// Number of the account.
    pub account: u32,
    /// Position plus one of the account's entry before; 0: none.
    pub before: u64,
    /// It is one of those that a walk can begin at.
    pub is_mark: bool,
}

/// An entry's bytes: in memory, in a segment's file, in a snapshot.
pub const ENTRY: [Field; 6] = [
    field(0, 128, "transfer", "the record, see below"),
    field(128, 8, "debit_before", BEFORE),
    field(136, 8, "credit_before", "the same of the credit account"),
    field(144, 4, "debit", "number of the debit account"),
    field(148, 4, "credit", "number of the credit account"),
    field(
        152,
        8,
        "hold",
        "number of the hold that it opens or resolves, plus 1; 0: none",
    ),
];
const BEFORE: &str =
    "position of the debit account's entry before, plus 1; 0: none; bit 63: a mark";
const ENTRY_BYTES: usize = 160;
const _: () = assert!(is_gapless(&ENTRY, ENTRY_BYTES));
const MARK: u64 = 1 << 63;

impl Entry {
    pub fn sides(&self) -> [Side; 2] {
        [self.debit, self.credit]
    }

    /// Position plus one of the entry before of one of its accounts.
    pub fn before(&self, account: u32) -> u64 {
        if self.debit.account == account {
            self.debit.before
        } else {
            self.credit.before
        }
    }
}

impl Item for Entry {
    type Encoded = [u8; ENTRY_BYTES];
    const BYTES: usize = ENTRY_BYTES;
    const SORT: Sorts = Sorts::Transfers;

    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let before = |side: Side| side.before | if side.is_mark { MARK } else { 0 };
        let mut out = [0; ENTRY_BYTES];
        out[..RECORD_BYTES].copy_from_slice(&self.record.encode());
        out[128..136].copy_from_slice(&before(self.debit).to_le_bytes());
        out[136..144].copy_from_slice(&before(self.credit).to_le_bytes());
        out[144..148].copy_from_slice(&self.debit.account.to_le_bytes());
        out[148..152].copy_from_slice(&self.credit.account.to_le_bytes());
        out[152..].copy_from_slice(&self.hold.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Entry {
        let (record, rest) = bytes.split_first_chunk().expect("160 bytes");
        let (longs, _) = rest.as_chunks::<8>();
        let (shorts, _) = rest[16..24].as_chunks::<4>();
        let side = |before: [u8; 8], account: [u8; 4]| {
            let before = u64::from_le_bytes(before);
            Side {
                account: u32::from_le_bytes(account),
                before: before & !MARK,
                is_mark: before & MARK != 0,
            }
        };
        Entry {
            record: Transfer::decode(record),
            debit: side(longs[0], shorts[0]),
            credit: side(longs[1], shorts[1]),
            hold: u64::from_le_bytes(longs[3]),
        }
    }
}

/// A used-up id.
impl Item for u128 {
    type Encoded = [u8; 16];
    const BYTES: usize = 16;
    const SORT: Sorts = Sorts::Burned;

    fn encode(&self) -> [u8; 16] {
        self.to_le_bytes()
    }

    fn decode(bytes: &[u8]) -> u128 {
        id_of(bytes)
    }
}

/// What an account, a transfer or a used-up id begins with.
fn id_of(item: &[u8]) -> u128 {
    u128::from_le_bytes(*item.first_chunk().expect("an id is sixteen bytes"))
}

/// What an id stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// The transfer at this position.
    Transfer(u64),
    /// Used up by a refusal.
    Burned,
}

#[derive(Debug)]
pub(super) struct Transfers {
    log: List<Entry>,
    index: Index,
    burned: List<u128>,
    /// Positions of marked entries, ascending, by account.
    marks: BTreeMap<u32, Vec<u64>>,
    seed: u64,
}

impl Transfers {
    pub fn new(seed: u64, shift: u32) -> Transfers {
        Transfers {
            log: List::new(shift),
            index: Index::new(SHARD_BITS),
            burned: List::new(shift),
            marks: BTreeMap::new(),
            seed,
        }
    }

    pub fn len(&self) -> u64 {
        self.log.len()
    }

    pub fn find(&self, id: u128) -> Option<Known> {
        self.find_hashed(hash_of(id, self.seed), id)
    }

    /// As `find`; `hash` is that of the id.
    pub fn find_hashed(&self, hash: u64, id: u128) -> Option<Known> {
        let found = self.index.find(hash, |at| match at.checked_sub(BURNED) {
            Some(at) => self.burned.at(at) == id,
            None => id_of(self.log.bytes_at(at)) == id,
        })?;
        Some(if found >= BURNED {
            Known::Burned
        } else {
            Known::Transfer(found)
        })
    }

    pub fn at(&self, position: u64) -> Entry {
        self.log.at(position)
    }

    pub fn id_at(&self, position: u64) -> u128 {
        id_of(self.log.bytes_at(position))
    }

    /// All entries, in order.
    pub fn log(&self) -> &List<Entry> {
        &self.log
    }

    pub fn log_mut(&mut self) -> &mut List<Entry> {
        &mut self.log
    }

    pub fn newest(&self) -> Option<Entry> {
        self.log.last()
    }

    /// The first entry that is not before `timestamp`.
    pub fn first_from(&self, timestamp: u64) -> u64 {
        self.log
            .partition_point(|entry| entry.record.timestamp < timestamp)
    }

    /// Whether a transfer was created at exactly this time.
    pub fn is_at(&self, timestamp: u64) -> bool {
        let found = self.log.get(self.first_from(timestamp));
        found.is_some_and(|entry| entry.record.timestamp == timestamp)
    }

    pub fn push(&mut self, hash: u64, entry: Entry) {
        let position = self.log.push(entry);
        self.enlist(hash, position, &entry);
    }

    /// Lists an entry that stands in the log.
    pub fn enlist(&mut self, hash: u64, position: u64, entry: &Entry) {
        assert!(position < BURNED, "2^39 transfers fit no memory so far");
        self.index.insert(hash, position);
        for side in entry.sides() {
            if side.is_mark {
                self.mark(side.account, position);
            }
        }
    }

    /// Takes back the newest entry.
    pub fn pop(&mut self) -> Entry {
        let entry = self.log.pop().expect("only what was entered is withdrawn");
        let hash = hash_of(entry.record.id, self.seed);
        self.index.remove(hash, self.log.len());
        for side in entry.sides() {
            if side.is_mark {
                self.unmark(side.account);
            }
        }
        entry
    }

    /// Uses an id up.
    pub fn burn(&mut self, id: u128) {
        let at = self.burned.push(id);
        self.enlist_burned(id, at);
    }

    /// Lists a used-up id that stands in its list.
    pub fn enlist_burned(&mut self, id: u128, at: u64) {
        self.index.insert(hash_of(id, self.seed), BURNED + at);
    }

    /// Used-up ids in the order in which they were.
    pub fn burned(&self) -> &List<u128> {
        &self.burned
    }

    pub fn burned_mut(&mut self) -> &mut List<u128> {
        &mut self.burned
    }

    /// Makes room in the index for so many ids.
    pub fn reserve(&mut self, ids: u64) {
        self.index.reserve(ids);
    }

    #[cold]
    fn mark(&mut self, account: u32, position: u64) {
        self.marks.entry(account).or_default().push(position);
    }

    #[cold]
    fn unmark(&mut self, account: u32) {
        let marks = self.marks.get_mut(&account);
        let mark = marks.and_then(Vec::pop);
        mark.expect("a marked entry is listed");
    }

    /// Positions of an account's marked entries, ascending.
    pub fn marks(&self, account: u32) -> &[u64] {
        self.marks.get(&account).map_or(&[], Vec::as_slice)
    }

    /// See `Ledger::look_up`.
    pub fn touch(&self, hash: u64) -> u64 {
        self.index.touch(hash)
    }

    /// How many ids the index holds.
    pub fn ids(&self) -> u64 {
        self.index.len()
    }

    pub fn allocated_bytes(&self) -> u64 {
        // A mark is 8 bytes, in lists that double; an entry makes two in 128.
        const MARKS_PER_ENTRY_BYTES: u64 = 16 * 2 / MARK_EVERY as u64 + 1;
        self.log.allocated_bytes()
            + self.burned.allocated_bytes()
            + self.index.allocated_bytes()
            + self.log.len() * MARKS_PER_ENTRY_BYTES
    }
}
