//! All transfers, in the order of their creation: an append-only log of entries of one size.
//!
//! Each entry names the entry before it of its debit account and of its credit account, so that a
//! statement is a walk. Every [`MARK_EVERY`]th entry of an account is marked, so that a walk can
//! begin anywhere. The index finds a transfer by its id, and the ids that refused transfers have
//! used up.

use super::hash_of;
use super::index::Index;
use super::record::Transfer;
use super::segments::Segments;
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
    /// Position plus one of the debit account's entry before; 0: none.
    pub debit_before: u64,
    /// The same of the credit account.
    pub credit_before: u64,
    /// Numbers of the accounts.
    pub debit: u32,
    pub credit: u32,
    /// Number plus one of the hold that it opens or resolves; 0: none.
    pub hold: u64,
}

const _: () = assert!(size_of::<Entry>() == 160);

impl Entry {
    /// Position plus one of the entry before of one of its accounts.
    pub fn before(&self, account: u32) -> u64 {
        if self.debit == account {
            self.debit_before
        } else {
            self.credit_before
        }
    }
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
    log: Segments<Entry>,
    index: Index,
    burned: Segments<u128>,
    /// Positions of marked entries, ascending, by account.
    marks: BTreeMap<u32, Vec<u64>>,
    seed: u64,
}

impl Transfers {
    pub fn new(seed: u64) -> Transfers {
        Transfers {
            log: Segments::new(),
            index: Index::new(SHARD_BITS),
            burned: Segments::new(),
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
            Some(at) => *self.burned.at(at) == id,
            None => self.log.at(at).record.id == id,
        })?;
        Some(if found >= BURNED {
            Known::Burned
        } else {
            Known::Transfer(found)
        })
    }

    pub fn at(&self, position: u64) -> &Entry {
        self.log.at(position)
    }

    pub fn iter_from(&self, position: u64) -> impl Iterator<Item = &Entry> {
        self.log.iter_from(position)
    }

    pub fn newest(&self) -> Option<&Entry> {
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

    pub fn push(&mut self, hash: u64, entry: Entry) -> u64 {
        let position = self.log.push(entry);
        assert!(position < BURNED, "2^39 transfers fit no memory so far");
        self.index.insert(hash, position);
        position
    }

    /// Takes back the newest entry.
    pub fn pop(&mut self) -> Entry {
        let entry = self.log.pop().expect("only what was entered is withdrawn");
        let hash = hash_of(entry.record.id, self.seed);
        self.index.remove(hash, self.log.len());
        entry
    }

    /// Uses an id up.
    pub fn burn(&mut self, id: u128) {
        let at = self.burned.push(id);
        self.index.insert(hash_of(id, self.seed), BURNED + at);
    }

    /// Used-up ids in the order in which they were.
    pub fn burned(&self) -> &Segments<u128> {
        &self.burned
    }

    /// Marks an entry of an account.
    #[cold]
    pub fn mark(&mut self, account: u32, position: u64) {
        self.marks.entry(account).or_default().push(position);
    }

    /// Takes back the newest mark of an account.
    #[cold]
    pub fn unmark(&mut self, account: u32) {
        let marks = self.marks.get_mut(&account);
        let mark = marks.and_then(Vec::pop);
        mark.expect("an account that counts from 0 has just been marked");
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
