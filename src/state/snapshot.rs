//! The state at one LSN while writes go on, and back: blocks out, blocks in.
//!
//! A walk goes over all entries in the order of their places and copies those whose revision is
//! not above the snapshot's LSN. An entry that is changed or removed ahead of the walk is saved
//! first, once: from then on its revision is above. So a write during a snapshot costs one copy of
//! one entry, and no step costs more than one chunk, whatever the keys are.
//!
//! A block is a header ([`BLOCK_HEADER`]), then for each entry its length (u32) and its bytes
//! (`entry.rs`). Blocks may come back in any order.

use super::digest::{Digest, Sort};
use super::entry::Entry;
use super::ledger::{Ledger, Loading, Sorts};
use super::once;
use super::place::Place;
use super::slots::Slots;
use super::store::{Garbage, Store};
use super::table::Table;
use super::{Applied, Limits, SLOTS, State};
use standfast_wal::record::is_gapless;
use standfast_wal::{Field, Lsn};

const fn field(at: usize, len: usize, name: &'static str, meaning: &'static str) -> Field {
    Field {
        at,
        len,
        name,
        meaning,
    }
}

/// What a block of a snapshot begins with; little-endian.
pub const BLOCK_HEADER: [Field; 4] = [
    field(0, 1, "version", "1"),
    field(1, 1, "sort", "0: keys, 1: ONCE tokens, 2 to 7: the ledger"),
    field(2, 2, "reserved", "0"),
    field(4, 4, "entries", "how many follow"),
];
pub(super) const HEADER: usize = 8;
const _: () = assert!(is_gapless(&BLOCK_HEADER, HEADER));
pub(super) const VERSION: u8 = 1;
/// A block is closed at this size. Small enough to be loaded by several threads, large enough to
/// compress well.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// A chunk with more bytes than this is copied piece by piece.
const PIECE_BYTES: usize = 1 << 20;

/// What a snapshot holds, known before its first block is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    pub lsn: Lsn,
    /// Log time in ns at `lsn`.
    pub timestamp: u64,
    pub digest: Digest,
    pub keys: u64,
    pub tokens: u64,
}

/// A piece of a snapshot. Loads in any order, on any thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Lowest and highest slot of its entries.
    pub first_slot: u16,
    pub last_slot: u16,
    pub bytes: Vec<u8>,
}

/// Why a snapshot is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("state block: {what} at byte {at}")]
    Block { what: &'static str, at: usize },
    #[error("state: the ledger has {what}")]
    Ledger { what: &'static str },
    #[error("state: {what} is {found}, the snapshot's head says {expected}")]
    Differs {
        what: &'static str,
        found: String,
        expected: String,
    },
}

/// A snapshot of one store in progress.
#[derive(Debug)]
pub(super) struct Walk {
    /// Entries with a higher revision are not of this snapshot.
    lsn: Lsn,
    /// Everything below is copied.
    next: Place,
    /// What FLUSHALL took out of the store: walked instead of it.
    frozen: Option<Slots>,
    copied: Filling,
    /// Entries that changed ahead of the walk.
    saved: Filling,
}

impl Walk {
    pub fn new(sort: Sort, lsn: Lsn) -> Walk {
        let (copied, saved) = (Filling::new(sort), Filling::new(sort));
        Walk {
            lsn,
            next: Place::start_of(0),
            frozen: None,
            copied,
            saved,
        }
    }

    /// Called before an entry is changed or removed.
    pub fn save(&mut self, place: Place, entry: &Entry) {
        if entry.revision() <= self.lsn && place >= self.next {
            assert!(
                self.frozen.is_none(),
                "after FLUSHALL every revision is above the snapshot's"
            );
            self.saved.push(place.slot(), entry);
        }
    }

    /// Called when the store gives up all its slots: keeps them if the walk still needs them,
    /// else hands them back.
    pub fn freeze(&mut self, slots: Slots) -> Option<Slots> {
        if self.frozen.is_some() || self.is_done() {
            return Some(slots);
        }
        self.frozen = Some(slots);
        None
    }

    fn is_done(&self) -> bool {
        self.next >= Place::start_of(SLOTS)
    }

    /// Copies about `budget_bytes` more; answers how many were copied.
    fn step(&mut self, store: &Slots, seed: u64, budget_bytes: usize) -> usize {
        let mut copied_bytes = 0;
        while copied_bytes < budget_bytes && !self.is_done() {
            let slots = self.frozen.as_ref().unwrap_or(store);
            let slot = slots.next_touched(self.next.slot());
            if slot > self.next.slot() {
                self.next = Place::start_of(slot);
                continue;
            }
            let table = &slots.get(slot).table;
            let before = self.copied.written;
            self.next = copy_chunk(table, self.next, self.lsn, seed, &mut self.copied);
            copied_bytes += self.copied.written - before;
        }
        copied_bytes
    }

    /// Closes what is still open, at the end.
    fn finish(&mut self) {
        self.copied.close();
        self.saved.close();
    }

    fn take_blocks(&mut self, emit: &mut Vec<Block>) {
        emit.append(&mut self.saved.closed);
        emit.append(&mut self.copied.closed);
    }
}

/// Copies what lies at or above `from` in its chunk, or a piece of it where it is large; answers
/// where to go on.
fn copy_chunk(table: &Table, from: Place, lsn: Lsn, seed: u64, into: &mut Filling) -> Place {
    let slot = from.slot();
    let (chunk, next) = table.chunk_from(from);
    let end = next.unwrap_or(Place::start_of(slot + 1));
    let wanted = chunk.iter().filter(|entry| entry.revision() <= lsn);
    let bytes: usize = chunk.iter().map(|entry| entry.bytes().len()).sum();
    let starts_here = from == Place::start_of(slot);
    if starts_here && bytes <= PIECE_BYTES {
        wanted.for_each(|entry| into.push(slot, entry));
        return end;
    }
    let placed = wanted.map(|entry| (Place::in_slot(slot, entry.key(), seed), entry));
    let mut left: Vec<_> = placed.filter(|(place, _)| *place >= from).collect();
    left.sort_unstable_by_key(|(place, _)| *place);
    let mut copied_bytes = 0;
    let mut last = None;
    for (place, entry) in left {
        if copied_bytes >= PIECE_BYTES && last != Some(place) {
            return place;
        }
        into.push(slot, entry);
        copied_bytes += entry.bytes().len();
        last = Some(place);
    }
    end
}

/// A block being filled, and those that are full.
#[derive(Debug)]
struct Filling {
    sort: Sort,
    open: Block,
    entries: u32,
    closed: Vec<Block>,
    /// Bytes ever written.
    written: usize,
}

impl Filling {
    fn new(sort: Sort) -> Filling {
        Filling {
            sort,
            open: empty_block(),
            entries: 0,
            closed: Vec::new(),
            written: 0,
        }
    }

    fn push(&mut self, slot: u16, entry: &Entry) {
        if self.entries == 0 {
            self.open.bytes.reserve(BLOCK_BYTES + BLOCK_BYTES / 8);
            self.open
                .bytes
                .extend_from_slice(&[VERSION, self.sort as u8, 0, 0, 0, 0, 0, 0]);
        }
        self.open.first_slot = self.open.first_slot.min(slot);
        self.open.last_slot = self.open.last_slot.max(slot);
        let len = u32::try_from(entry.bytes().len()).expect("key and value are bounded");
        self.open.bytes.extend_from_slice(&len.to_le_bytes());
        self.open.bytes.extend_from_slice(entry.bytes());
        self.entries += 1;
        self.written += 4 + entry.bytes().len();
        if self.open.bytes.len() >= BLOCK_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.entries == 0 {
            return;
        }
        let mut block = std::mem::replace(&mut self.open, empty_block());
        block.bytes[4..HEADER].copy_from_slice(&self.entries.to_le_bytes());
        self.entries = 0;
        self.closed.push(block);
    }
}

fn empty_block() -> Block {
    Block {
        first_slot: u16::MAX,
        last_slot: 0,
        bytes: Vec::new(),
    }
}

impl State {
    /// Starts a snapshot of the state as it is now; nothing is copied yet.
    pub fn begin_snapshot(&mut self) -> SnapshotHead {
        assert!(self.keys.walk.is_none(), "one snapshot at a time");
        let lsn = self.applied.lsn;
        self.keys.walk = Some(Walk::new(Sort::Key, lsn));
        self.tokens.walk = Some(Walk::new(Sort::Token, lsn));
        self.ledger.begin_walk();
        SnapshotHead {
            lsn,
            timestamp: self.applied.timestamp,
            digest: self.digest(),
            keys: self.keys.len(),
            tokens: self.tokens.len(),
        }
    }

    /// Copies about `budget_bytes` more and adds the blocks that are full; true once all is
    /// emitted. Entries saved from changes since the last step come on top of the budget.
    pub fn snapshot_step(&mut self, budget_bytes: usize, emit: &mut Vec<Block>) -> bool {
        let mut left = budget_bytes.max(1);
        let mut done = true;
        for store in [&mut self.keys, &mut self.tokens] {
            let walk = store.walk.as_mut().expect("a snapshot was begun");
            let mut walk = std::mem::replace(walk, Walk::new(store.sort, Lsn::ZERO));
            left = left.saturating_sub(walk.step(store.slots(), store.seed, left));
            done &= walk.is_done();
            walk.take_blocks(emit);
            store.walk = Some(walk);
        }
        let (_, ledger_done) = match left {
            0 => (0, false),
            left => self.ledger.walk_step(left),
        };
        done &= ledger_done;
        self.ledger.walk_blocks(done, emit);
        if done {
            for store in [&mut self.keys, &mut self.tokens] {
                let walk = store.walk.as_mut().expect("a snapshot was begun");
                walk.finish();
                walk.take_blocks(emit);
            }
            self.abort_snapshot();
        }
        done
    }

    /// Ends a snapshot, finished or not; writes no longer save anything.
    pub fn abort_snapshot(&mut self) {
        for store in [&mut self.keys, &mut self.tokens] {
            let frozen = store.walk.take().and_then(|walk| walk.frozen);
            self.garbage.extend(frozen.map(Garbage::of_slots));
        }
        self.ledger.end_walk();
    }

    /// Whether a snapshot was begun and is neither finished nor aborted.
    pub fn is_in_snapshot(&self) -> bool {
        self.keys.walk.is_some()
    }

    /// Puts loaded blocks together, in any order; refuses what the head does not confirm.
    pub fn assemble(
        limits: Limits,
        head: &SnapshotHead,
        parts: Vec<LoadedPart>,
    ) -> Result<State, LoadError> {
        let mut state = State::new(limits);
        state.applied = Applied {
            lsn: head.lsn,
            timestamp: head.timestamp,
        };
        let mut books = Vec::new();
        let (mut keys, mut tokens) = (Vec::new(), Vec::new());
        for part in parts {
            match part.0 {
                Part::Entries(part) if part.sort == Sort::Key => keys.push(part),
                Part::Entries(part) => tokens.push(part),
                Part::Ledger(part) => books.push(part),
            }
        }
        load_parts(&mut state.keys, keys);
        load_parts(&mut state.tokens, tokens);
        state.ledger = Ledger::assemble(limits.seed, books)?;
        differs("the number of keys", state.keys.len(), head.keys)?;
        differs("the number of tokens", state.tokens.len(), head.tokens)?;
        differs("the digest", state.digest(), head.digest)?;
        Ok(state)
    }
}

fn differs<T: PartialEq + std::fmt::Display>(
    what: &'static str,
    found: T,
    expected: T,
) -> Result<(), LoadError> {
    if found == expected {
        return Ok(());
    }
    Err(LoadError::Differs {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

fn load_parts(store: &mut Store, parts: Vec<Entries>) {
    let deadlines = parts.iter().map(|part| part.deadlines.len()).sum();
    let mut all_deadlines = Vec::with_capacity(deadlines);
    for mut part in parts {
        all_deadlines.append(&mut part.deadlines);
        for run in part.runs {
            store.load(run.slot, run.table, run.digest, run.entry_bytes);
        }
    }
    store.deadlines = super::expiry::Deadlines::from_unsorted(all_deadlines);
}

/// A loaded block, ready to be assembled.
#[derive(Debug)]
pub struct LoadedPart(Part);

#[derive(Debug)]
enum Part {
    Entries(Entries),
    Ledger(Loading),
}

/// Entries of a store.
#[derive(Debug)]
struct Entries {
    sort: Sort,
    runs: Vec<Run>,
    /// Of all entries: deadline and place.
    deadlines: Vec<(u64, u64)>,
}

/// Entries of one slot that came one after another.
#[derive(Debug)]
struct Run {
    slot: u16,
    table: Table,
    digest: Digest,
    entry_bytes: u64,
}

/// Reads one block; called on several threads at once. Everything that takes time happens here:
/// `State::assemble` only moves tables.
pub fn load_block(limits: &Limits, block: &[u8]) -> Result<LoadedPart, LoadError> {
    let broken = |what, at| Err(LoadError::Block { what, at });
    let Some((header, mut rest)) = block.split_first_chunk::<HEADER>() else {
        return broken("the end", block.len());
    };
    let [version, sort, 0, 0, count @ ..] = *header else {
        return broken("a reserved field that is not 0", 2);
    };
    if version != VERSION {
        return broken("a version that this program does not know", 0);
    }
    let sort = match sort {
        0 => Sort::Key,
        1 => Sort::Token,
        number => {
            let Some(sort) = Sorts::from_number(number) else {
                return broken("a sort of entry that this program does not know", 1);
            };
            return match Loading::parse(sort, u32::from_le_bytes(count), rest) {
                Some(part) => Ok(LoadedPart(Part::Ledger(part))),
                None => broken("items of the ledger that are cut off or malformed", HEADER),
            };
        }
    };
    let mut part = Entries {
        sort,
        runs: Vec::new(),
        deadlines: Vec::new(),
    };
    let mut run: Vec<(Place, Entry)> = Vec::new();
    for _ in 0..u32::from_le_bytes(count) {
        let at = block.len() - rest.len();
        let Some(entry) = split_entry(&mut rest) else {
            return broken("an entry that is cut off or malformed", at);
        };
        if sort == Sort::Token && once::remembered(&entry).is_none() {
            return broken("a token without a readable reply", at);
        }
        let place = match sort {
            Sort::Key => Place::of_key(entry.key(), limits.seed),
            Sort::Token => Place::of_token(entry.key(), limits.seed),
        };
        if run
            .last()
            .is_some_and(|(last, _)| last.slot() != place.slot())
        {
            part.close_run(std::mem::take(&mut run), limits.seed);
        }
        run.push((place, entry));
    }
    part.close_run(run, limits.seed);
    if rest.is_empty() {
        Ok(LoadedPart(Part::Entries(part)))
    } else {
        broken("bytes left over", block.len() - rest.len())
    }
}

fn split_entry(rest: &mut &[u8]) -> Option<Entry> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Entry::from_bytes(bytes)
}

impl Entries {
    fn close_run(&mut self, entries: Vec<(Place, Entry)>, seed: u64) {
        let Some((first, _)) = entries.first() else {
            return;
        };
        let slot = first.slot();
        let mut digest = Digest::default();
        let mut entry_bytes = 0;
        for (place, entry) in &entries {
            digest.add(Digest::of(self.sort, entry));
            entry_bytes += entry.allocated_bytes();
            self.deadlines
                .extend(entry.expiry_ms().map(|ms| (ms, place.bits())));
        }
        let mut table_bytes = 0;
        let table = Table::from_entries(entries, seed, &mut table_bytes);
        self.runs.push(Run {
            slot,
            table,
            digest,
            entry_bytes,
        });
    }
}
