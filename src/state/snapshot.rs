//! The state at one LSN while writes go on, and back: blocks out, blocks in.
//!
//! A walk goes over all entries in the order of their places and copies those whose revision is
//! not above the snapshot's LSN. An entry that is changed or removed ahead of the walk is saved
//! first, once: from then on its revision is above. So a write during a snapshot costs one copy of
//! one entry, and no step costs more than one chunk, whatever the keys are.
//!
//! The ledger's full segments are not copied: whoever writes the snapshot refers to them
//! ([`State::segments`]), and a segment that a file holds is read from there from then on
//! ([`State::keep_segment`]).
//!
//! A block is a header ([`BLOCK_HEADER`]), then for each entry its length (u32) and its bytes
//! (`entry.rs`). Blocks may come back in any order. A block ends where its [`Range`] does, so that
//! what has not changed between two snapshots is the same blocks in both: whoever keeps several
//! keeps those once.

mod load;

pub use load::{LoadError, LoadedPart, Tally, load_block, load_segment};

use super::digest::{Digest, Sort};
use super::entry::Entry;
use super::ledger::{BLAKE3_BYTES, Segment};
use super::place::Place;
use super::slots::Slots;
use super::store::Garbage;
use super::table::Table;
use super::{SLOTS, State};
use bytes::Bytes;
use standfast_wal::record::{field, is_gapless};
use standfast_wal::{Field, Lsn};

/// What a block of a snapshot begins with; little-endian.
pub const BLOCK_HEADER: [Field; 4] = [
    field(0, 1, "version", "2"),
    field(1, 1, "sort", "0: keys, 1: ONCE tokens, 2 to 7: the ledger"),
    field(2, 2, "reserved", "0"),
    field(4, 4, "entries", "how many follow"),
];
pub(super) const HEADER: usize = 8;
const _: () = assert!(is_gapless(&BLOCK_HEADER, HEADER));
pub(super) const VERSION: u8 = 2;
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
    pub range: Range,
    pub bytes: Vec<u8>,
}

/// A part of the state by place, wherever its entries came to lie. The same in each snapshot as
/// long as the state does not double.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Range {
    /// Of which sort: the number in the blocks' header and 1; 0: of none.
    pub section: u32,
    /// First and last slot, or number of an account.
    pub first: u32,
    pub last: u32,
}

impl Range {
    /// What is in no order of places.
    pub(super) const NONE: Range = Range {
        section: 0,
        first: 0,
        last: 0,
    };

    /// The range of 2^`shift` places that `at` is in.
    pub(super) fn around(sort: u8, at: u32, shift: u32) -> Range {
        let first = at >> shift << shift;
        Range {
            section: u32::from(sort) + 1,
            first,
            last: first | ((1 << shift) - 1),
        }
    }
}

/// Entries of about so many bytes make a range, as a power of two above that of a segment's items.
const RANGE_SHIFT: u32 = 7;

/// So many slots are a range of a store of so many bytes, as a power of two.
fn slots_shift(store_bytes: u64, range_bytes: u64) -> u32 {
    let slot_bytes = store_bytes / u64::from(SLOTS) + 1;
    (range_bytes / slot_bytes).max(1).ilog2().min(SLOTS.ilog2())
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
    /// Of a store of so many bytes, in ranges of about `range_bytes`.
    fn new(sort: Sort, lsn: Lsn, store_bytes: u64, range_bytes: u64) -> Walk {
        let shift = slots_shift(store_bytes, range_bytes);
        let block_bytes = usize::try_from(range_bytes).map_or(BLOCK_BYTES, |b| b.min(BLOCK_BYTES));
        let copied = Filling::new(sort, Some(shift), block_bytes);
        let saved = Filling::new(sort, None, block_bytes);
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
    /// So many slots are a range, as a power of two; `None`: its entries come in no order.
    shift: Option<u32>,
    /// What a block takes memory for when it begins.
    reserved: usize,
    open: Block,
    entries: u32,
    closed: Vec<Block>,
    /// Bytes ever written.
    written: usize,
}

impl Filling {
    fn new(sort: Sort, shift: Option<u32>, block_bytes: usize) -> Filling {
        Filling {
            sort,
            shift,
            reserved: block_bytes + block_bytes / 8,
            open: empty_block(),
            entries: 0,
            closed: Vec::new(),
            written: 0,
        }
    }

    fn push(&mut self, slot: u16, entry: &Entry) {
        let range = self.shift.map_or(Range::NONE, |shift| {
            Range::around(self.sort as u8, u32::from(slot), shift)
        });
        if self.open.range != range {
            self.close();
        }
        if self.entries == 0 {
            self.open.range = range;
            self.open.bytes.reserve(self.reserved);
            self.open
                .bytes
                .extend_from_slice(&[VERSION, self.sort as u8, 0, 0, 0, 0, 0, 0]);
        }
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
        range: Range::NONE,
        bytes: Vec::new(),
    }
}

impl State {
    /// Starts a snapshot of the state as it is now; nothing is copied yet.
    pub fn begin_snapshot(&mut self) -> SnapshotHead {
        assert!(self.keys.walk.is_none(), "one snapshot at a time");
        let lsn = self.applied.lsn;
        let range_bytes = 1 << (self.limits.segment_shift + RANGE_SHIFT);
        for store in [&mut self.keys, &mut self.tokens] {
            store.walk = Some(Walk::new(store.sort, lsn, store.used_bytes(), range_bytes));
        }
        self.ledger.begin_walk(self.limits.segment_shift);
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
            let mut walk = store.walk.take().expect("a snapshot was begun");
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

    /// Every full segment: what a snapshot that begins now refers to.
    pub fn segments(&self) -> Vec<Segment> {
        self.ledger.segments()
    }

    /// A file holds the bytes of the segment `from` now, which are `mapped`: the heap gives them
    /// back, if this state still has it.
    pub fn keep_segment(&mut self, from: &Segment, mapped: Bytes, blake3: [u8; BLAKE3_BYTES]) {
        self.ledger.keep_segment(from, mapped, blake3);
    }

    /// Whether a snapshot was begun and is neither finished nor aborted.
    pub fn is_in_snapshot(&self) -> bool {
        self.keys.walk.is_some()
    }
}
