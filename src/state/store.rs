//! All keys, or all ONCE tokens: 16384 slots, their digests, their deadlines, their memory.
//!
//! Invariants, checked by [`Store::check`]: the digest of a slot is the sum over its entries; the
//! deadlines are exactly those of the entries; the counts of entries and bytes are exact; while a
//! snapshot walks, every entry it still needs is either in place or saved.

use super::digest::{Digest, Sort};
use super::entry::{Content, Entry};
use super::expiry::Deadlines;
use super::place::Place;
use super::slots::{Page, Slots};
use super::snapshot::Walk;
use super::table::{Probe, Table};

/// How many keys are warmed together: enough to overlap the waits, few enough to stay cached.
pub(super) const WARM_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) sort: Sort,
    /// Seed of the hash of keys.
    pub(super) seed: u64,
    slots: Slots,
    /// Sum over the slots.
    digest: Digest,
    entries: u64,
    /// Memory of the entries' blocks, and of the tables.
    entry_bytes: u64,
    table_bytes: u64,
    pub(super) deadlines: Deadlines,
    /// While a snapshot is taken of this store.
    pub(super) walk: Option<Walk>,
}

/// Memory that nobody can see any more, freed little by little.
#[derive(Debug)]
pub(super) struct Garbage {
    pages: Vec<Box<Page>>,
    deadlines: Deadlines,
}

impl Store {
    pub fn new(sort: Sort, seed: u64) -> Store {
        Store {
            sort,
            seed,
            slots: Slots::new(),
            digest: Digest::default(),
            entries: 0,
            entry_bytes: 0,
            table_bytes: 0,
            deadlines: Deadlines::new(),
            walk: None,
        }
    }

    pub fn place(&self, key: &[u8]) -> Place {
        match self.sort {
            Sort::Key => Place::of_key(key, self.seed),
            Sort::Token => Place::of_token(key, self.seed),
        }
    }

    pub fn len(&self) -> u64 {
        self.entries
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    pub fn used_bytes(&self) -> u64 {
        // A deadline is 20 bytes in tree nodes that are about two thirds full.
        const DEADLINE_BYTES: u64 = 32;
        self.entry_bytes + self.table_bytes + self.deadlines.len() as u64 * DEADLINE_BYTES
    }

    /// The entry as it lies there, expired or not.
    pub fn find(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.slots.get(place.slot()).table.find(place, key)
    }

    /// The entry, unless log time has passed its deadline.
    pub fn find_live(&self, place: Place, key: &[u8], now_ms: u64) -> Option<&Entry> {
        self.find(place, key).filter(|entry| is_live(entry, now_ms))
    }

    /// Brings what these keys need into the processor's caches. With millions of keys each step of
    /// a look-up (slot, table, entry) waits for memory; taken step by step for many keys, the
    /// waits overlap. Measured with 5 million keys: an apply takes a quarter of the time.
    pub fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut places = [Place::start_of(0); WARM_MAX];
        let mut count = 0;
        let mut seen = 0;
        for (place, key) in places.iter_mut().zip(keys) {
            *place = self.place(key);
            seen ^= self.slots.get(place.slot()).digest.0;
            count += 1;
        }
        let mut guesses = [None; WARM_MAX];
        for (guess, place) in guesses.iter_mut().zip(&places[..count]) {
            *guess = self.slots.get(place.slot()).table.guess(*place);
        }
        for entry in guesses.into_iter().flatten() {
            // The first and the last cache line of what is usually two or three.
            seen ^= u128::from(entry.revision().0);
            seen ^= u128::from(entry.bytes().last().copied().unwrap_or_default());
        }
        std::hint::black_box(seen);
    }

    /// Stores `content`, whatever was there.
    pub fn put(&mut self, place: Place, content: Content<'_>) {
        let slot = self.slots.change(place.slot());
        match slot.table.find_mut(place, content.key) {
            Some(entry) => {
                if let Some(walk) = &mut self.walk {
                    walk.save(place, entry);
                }
                if let Some(expiry_ms) = entry.expiry_ms() {
                    self.deadlines.remove(expiry_ms, place);
                }
                let before = Digest::of(self.sort, entry);
                self.entry_bytes -= entry.allocated_bytes();
                entry.overwrite(content);
                self.entry_bytes += entry.allocated_bytes();
                let mut change = Digest::of(self.sort, entry);
                change.subtract(before);
                slot.digest.add(change);
                self.digest.add(change);
            }
            None => {
                let entry = Entry::new(content);
                let digest = Digest::of(self.sort, &entry);
                self.entry_bytes += entry.allocated_bytes();
                slot.table
                    .insert_new(place, entry, self.seed, &mut self.table_bytes);
                self.entries += 1;
                slot.digest.add(digest);
                self.digest.add(digest);
            }
        }
        if let Some(expiry_ms) = content.expiry_ms {
            self.deadlines.insert(expiry_ms, place);
        }
    }

    /// Removes the entry, expired or not, and hands it out.
    pub fn remove(&mut self, place: Place, key: &[u8]) -> Option<Entry> {
        let probe = Probe {
            place,
            key,
            seed: self.seed,
        };
        let slot = self.slots.change(place.slot());
        let entry = slot.table.remove(probe, &mut self.table_bytes)?;
        if let Some(walk) = &mut self.walk {
            walk.save(place, &entry);
        }
        let digest = Digest::of(self.sort, &entry);
        slot.digest.subtract(digest);
        self.digest.subtract(digest);
        self.entry_bytes -= entry.allocated_bytes();
        self.entries -= 1;
        if let Some(expiry_ms) = entry.expiry_ms() {
            self.deadlines.remove(expiry_ms, place);
        }
        Some(entry)
    }

    /// Removes up to `max` entries that are gone by log time, the longest gone first.
    pub fn sweep(&mut self, now_ms: u64, max: usize) {
        for _ in 0..max {
            if !self.deadlines.is_due(now_ms) {
                return;
            }
            let (expiry_ms, place) = self.deadlines.first().expect("one is due");
            let table = &self.slots.get(place.slot()).table;
            let entry = table.find_expiring(place, expiry_ms, self.seed);
            let key = entry
                .expect("a deadline is that of an entry")
                .key()
                .to_vec();
            self.remove(place, &key).expect("just found");
        }
    }

    /// Becomes empty at once; what was there goes to a running snapshot or to the garbage.
    pub fn clear(&mut self) -> Garbage {
        let slots = std::mem::replace(&mut self.slots, Slots::new());
        let deadlines = std::mem::replace(&mut self.deadlines, Deadlines::new());
        self.digest = Digest::default();
        (self.entries, self.entry_bytes, self.table_bytes) = (0, 0, 0);
        let slots = match &mut self.walk {
            Some(walk) => walk.freeze(slots),
            None => Some(slots),
        };
        Garbage {
            pages: slots.map(Slots::into_pages).unwrap_or_default(),
            deadlines,
        }
    }

    /// Takes in a part of a slot that was loaded from a snapshot, with its digest.
    pub fn load(&mut self, slot: u16, table: Table, digest: Digest, entry_bytes: u64) {
        self.entries += table.len() as u64;
        self.entry_bytes += entry_bytes;
        self.table_bytes += table.allocated_bytes();
        self.digest.add(digest);
        let into = self.slots.change(slot);
        into.digest.add(digest);
        if into.table.len() == 0 {
            into.table = table;
        } else {
            into.table
                .absorb(table, slot, self.seed, &mut self.table_bytes);
        }
    }

    /// The digest of what is stored, kept or not. Takes as long as reading everything.
    pub fn digest_made_again(&self) -> Digest {
        let mut total = Digest::default();
        let entries = self.slots.iter().flat_map(|slot| slot.table.iter());
        entries.for_each(|entry| total.add(Digest::of(self.sort, entry)));
        total
    }

    /// Recomputes everything that is kept incrementally; halts on any difference. Takes as long
    /// as reading everything: for tests and the simulator.
    pub fn check(&self) {
        let mut total = Digest::default();
        let (mut entries, mut entry_bytes, mut table_bytes) = (0, 0, 0);
        let mut deadlines = Vec::new();
        for (slot, number) in self.slots.iter().zip(0u16..) {
            let mut digest = Digest::default();
            for entry in slot.table.iter() {
                let place = self.place(entry.key());
                assert_eq!(place.slot(), number, "an entry lies in its own slot");
                let found = self.find(place, entry.key());
                assert!(
                    found.is_some_and(|found| std::ptr::eq(found, entry)),
                    "found by its key"
                );
                digest.add(Digest::of(self.sort, entry));
                entries += 1;
                entry_bytes += entry.allocated_bytes();
                deadlines.extend(entry.expiry_ms().map(|ms| (ms, place.bits())));
            }
            table_bytes += slot.table.allocated_bytes();
            assert_eq!(
                slot.digest, digest,
                "digest of slot {number} of {:?}",
                self.sort
            );
            total.add(digest);
        }
        assert_eq!(self.digest, total, "digest of {:?}", self.sort);
        assert_eq!(self.entries, entries, "entries of {:?}", self.sort);
        assert_eq!(
            self.entry_bytes, entry_bytes,
            "bytes of entries of {:?}",
            self.sort
        );
        assert_eq!(
            self.table_bytes, table_bytes,
            "bytes of tables of {:?}",
            self.sort
        );
        assert!(
            self.deadlines == Deadlines::from_unsorted(deadlines),
            "deadlines"
        );
    }
}

impl Garbage {
    pub fn of_slots(slots: Slots) -> Garbage {
        Garbage {
            pages: slots.into_pages(),
            deadlines: Deadlines::new(),
        }
    }

    /// Frees about `entries_max` entries; false once there is nothing left.
    pub fn free(&mut self, entries_max: usize) -> bool {
        const CHUNK_ENTRIES: usize = 256;
        for _ in 0..entries_max.div_ceil(CHUNK_ENTRIES) {
            while let Some(page) = self.pages.last_mut() {
                if page.free_chunk() {
                    break;
                }
                self.pages.pop();
            }
        }
        let more_deadlines = self.deadlines.free(entries_max);
        more_deadlines || !self.pages.is_empty()
    }
}

pub(super) fn is_live(entry: &Entry, now_ms: u64) -> bool {
    entry.expiry_ms().is_none_or(|expiry_ms| expiry_ms > now_ms)
}
