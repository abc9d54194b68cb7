//! One slot's entries: a hash table, split by ranges of the hash into chunks once it has many.
//!
//! Nearly every slot has one chunk, which lies inline. Chunks bound what a single step may cost
//! however the keys are spread, even if all lie in one slot by a shared `{tag}`: growing a table,
//! one SCAN, one step of a snapshot.

use super::entry::{Entry, size_class};
use super::place::Place;
use hashbrown::HashTable;

/// A chunk that would hold more is split first: 7/8 of 1024 buckets.
pub(super) const CHUNK_ENTRIES_MAX: usize = 896;
/// Smaller tables are not worth shrinking.
const SHRINK_CAPACITY_MIN: usize = 28;

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Entries below `more[0].start`.
    first: HashTable<Entry>,
    /// Ascending by `start`; each reaches to the next one's.
    more: Vec<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    start: Place,
    entries: HashTable<Entry>,
}

/// A key's chunk and the rest of what a table needs to know about it.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub place: Place,
    pub key: &'a [u8],
    /// Seed of the hash, to move entries when a chunk grows.
    pub seed: u64,
}

impl Table {
    pub const fn new() -> Table {
        Table {
            first: HashTable::new(),
            more: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.first.len()
            + self
                .more
                .iter()
                .map(|chunk| chunk.entries.len())
                .sum::<usize>()
    }

    pub fn find(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.chunk(place)
            .find(place.probe(), |entry| entry.key() == key)
    }

    /// An entry that may well be the one of this place, found without looking at any entry.
    pub fn guess(&self, place: Place) -> Option<&Entry> {
        self.chunk(place).find(place.probe(), |_| true)
    }

    /// The entry of exactly this place and expiry, for a sweep that knows no key.
    pub fn find_expiring(&self, place: Place, expiry_ms: u64, seed: u64) -> Option<&Entry> {
        self.chunk(place).find(place.probe(), |entry| {
            entry.expiry_ms() == Some(expiry_ms)
                && Place::probe_of(entry.key(), seed) == place.probe()
        })
    }

    pub fn find_mut(&mut self, place: Place, key: &[u8]) -> Option<&mut Entry> {
        self.chunk_mut(place)
            .find_mut(place.probe(), |entry| entry.key() == key)
    }

    pub fn remove(&mut self, probe: Probe<'_>, table_bytes: &mut u64) -> Option<Entry> {
        let same = |entry: &Entry| entry.key() == probe.key;
        let chunk = self.chunk_mut(probe.place);
        let found = chunk.find_entry(probe.place.probe(), same).ok()?;
        let (entry, _) = found.remove();
        let sparse = chunk.len() < chunk.capacity() / 8 && chunk.capacity() > SHRINK_CAPACITY_MIN;
        if sparse || (chunk.is_empty() && !self.more.is_empty()) {
            self.shrink(probe.place, probe.seed, table_bytes);
        }
        Some(entry)
    }

    /// A table of entries that are all different, sized for them.
    pub fn from_entries(entries: Vec<(Place, Entry)>, seed: u64, table_bytes: &mut u64) -> Table {
        let mut table = Table::default();
        if entries.len() <= CHUNK_ENTRIES_MAX {
            table
                .first
                .reserve(entries.len(), |_| unreachable!("the table is empty"));
            *table_bytes += allocated(&table.first);
        }
        for (place, entry) in entries {
            table.insert_new(place, entry, seed, table_bytes);
        }
        table
    }

    /// Takes in an entry whose key is not there. `table_bytes` follows the memory of the tables.
    pub fn insert_new(&mut self, place: Place, entry: Entry, seed: u64, table_bytes: &mut u64) {
        let chunk = self.chunk(place);
        // Never left to the table itself: growing would go unaccounted, and a chunk too large
        // would not be split.
        if chunk.len() == chunk.capacity() {
            self.make_room(place, seed, table_bytes);
        }
        let rehash = |_: &Entry| -> u64 { unreachable!("there is room") };
        self.chunk_mut(place)
            .insert_unique(place.probe(), entry, rehash);
    }

    /// Takes in another table's entries, none of whose keys is here.
    pub fn absorb(&mut self, other: Table, slot: u16, seed: u64, table_bytes: &mut u64) {
        *table_bytes -= other.allocated_bytes();
        let chunks = other.more.into_iter().map(|chunk| chunk.entries);
        for entry in std::iter::once(other.first).chain(chunks).flatten() {
            let place = Place::in_slot(slot, entry.key(), seed);
            self.insert_new(place, entry, seed, table_bytes);
        }
    }

    /// The chunk that covers a place, and where the next begins (`None`: it is the last).
    pub fn chunk_from(&self, place: Place) -> (&HashTable<Entry>, Option<Place>) {
        let at = self.position(place);
        (self.chunk_at(at), self.more.get(at).map(|next| next.start))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.first
            .iter()
            .chain(self.more.iter().flat_map(|chunk| chunk.entries.iter()))
    }

    /// Frees one chunk; false once there is none left.
    pub fn free_chunk(&mut self) -> bool {
        self.more.pop().is_some() || {
            let was_there = !self.first.is_empty();
            self.first = HashTable::new();
            was_there
        }
    }

    /// Memory of the tables themselves, without the entries' blocks.
    pub fn allocated_bytes(&self) -> u64 {
        let chunks = self.more.iter().map(|chunk| allocated(&chunk.entries));
        allocated(&self.first) + chunks.sum::<u64>()
    }

    /// 0 is `first`, i is `more[i - 1]`.
    fn position(&self, place: Place) -> usize {
        if self.more.is_empty() {
            return 0;
        }
        self.more.partition_point(|chunk| chunk.start <= place)
    }

    fn chunk_at(&self, position: usize) -> &HashTable<Entry> {
        match position.checked_sub(1) {
            None => &self.first,
            Some(at) => &self.more[at].entries,
        }
    }

    fn chunk(&self, place: Place) -> &HashTable<Entry> {
        self.chunk_at(self.position(place))
    }

    fn chunk_mut(&mut self, place: Place) -> &mut HashTable<Entry> {
        match self.position(place).checked_sub(1) {
            None => &mut self.first,
            Some(at) => &mut self.more[at].entries,
        }
    }

    /// Makes the chunk of `place` able to take one more entry, by growing or by splitting it.
    #[cold]
    fn make_room(&mut self, place: Place, seed: u64, table_bytes: &mut u64) {
        *table_bytes -= self.allocated_bytes();
        while self.chunk(place).len() >= CHUNK_ENTRIES_MAX && self.split(place, seed) {}
        let rehash = |entry: &Entry| Place::probe_of(entry.key(), seed);
        self.chunk_mut(place).reserve(1, rehash);
        *table_bytes += self.allocated_bytes();
    }

    /// Splits the chunk of `place` in the middle of its range; false if that is one place only.
    fn split(&mut self, place: Place, seed: u64) -> bool {
        let at = self.position(place);
        let start = match at.checked_sub(1) {
            None => Place::start_of(place.slot()),
            Some(at) => self.more[at].start,
        };
        let end = match self.more.get(at) {
            None => Place::start_of(place.slot() + 1),
            Some(next) => next.start,
        };
        let Some(middle) = start.middle(end) else {
            return false;
        };
        let old = std::mem::take(self.chunk_mut(place));
        let capacity = old.len() / 2 + old.len() / 16;
        let mut halves = [
            HashTable::with_capacity(capacity),
            HashTable::with_capacity(capacity),
        ];
        let rehash = |entry: &Entry| Place::probe_of(entry.key(), seed);
        for entry in old {
            let place = Place::in_slot(start.slot(), entry.key(), seed);
            halves[usize::from(place >= middle)].insert_unique(place.probe(), entry, rehash);
        }
        let [below, above] = halves;
        *self.chunk_mut(start) = below;
        self.more.insert(
            at,
            Chunk {
                start: middle,
                entries: above,
            },
        );
        true
    }

    /// Gives memory back after many entries of a chunk have gone.
    #[cold]
    fn shrink(&mut self, place: Place, seed: u64, table_bytes: &mut u64) {
        *table_bytes -= self.allocated_bytes();
        match self.position(place).checked_sub(1) {
            // An empty chunk's range falls to the chunk before it.
            Some(at) if self.more[at].entries.is_empty() => {
                self.more.remove(at);
            }
            _ => {
                let rehash = |entry: &Entry| Place::probe_of(entry.key(), seed);
                let chunk = self.chunk_mut(place);
                chunk.shrink_to(chunk.len() * 2, rehash);
            }
        }
        *table_bytes += self.allocated_bytes();
    }
}

fn allocated(chunk: &HashTable<Entry>) -> u64 {
    match chunk.allocation_size() {
        0 => 0,
        bytes => size_class(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Content;
    use super::*;
    use standfast_wal::Lsn;
    use std::collections::BTreeMap;

    const SEED: u64 = 5;

    fn probe(key: &[u8]) -> Probe<'_> {
        Probe {
            place: Place::in_slot(9, key, SEED),
            key,
            seed: SEED,
        }
    }

    fn put(table: &mut Table, key: &[u8], value: &[u8], table_bytes: &mut u64) {
        let content = Content {
            revision: Lsn(1),
            expiry_ms: None,
            key,
            value,
        };
        let place = probe(key).place;
        match table.find_mut(place, key) {
            Some(entry) => entry.overwrite(content),
            None => table.insert_new(place, Entry::new(content), SEED, table_bytes),
        }
    }

    #[test]
    fn one_slot_with_many_keys_stays_exact_while_it_splits_and_shrinks() {
        let mut table = Table::default();
        let mut table_bytes = 0;
        let mut model = BTreeMap::new();
        let mut random = 1u64;
        for round in 0..60_000u64 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let key = ((random >> 33) % 20_000).to_string().into_bytes();
            let filling = round < 40_000;
            if filling || round % 8 == 0 {
                put(&mut table, &key, &round.to_le_bytes(), &mut table_bytes);
                model.insert(key, round);
            } else {
                let removed = table.remove(probe(&key), &mut table_bytes).is_some();
                assert_eq!(removed, model.remove(&key).is_some());
            }
            if round == 40_000 {
                assert!(table.more.len() >= 20_000 * 8 / 10 / CHUNK_ENTRIES_MAX);
            }
        }
        assert_eq!(table_bytes, table.allocated_bytes());
        for key in model.keys() {
            assert!(table.find(probe(key).place, key).is_some());
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.iter().count(), model.len());
        for chunk in &table.more {
            assert!(chunk.entries.len() <= CHUNK_ENTRIES_MAX);
            for entry in &chunk.entries {
                let (own, _) = table.chunk_from(probe(entry.key()).place);
                assert!(
                    std::ptr::eq(own, &chunk.entries),
                    "an entry lies in its own chunk"
                );
            }
        }
        for key in model.keys() {
            table
                .remove(probe(key), &mut table_bytes)
                .expect("still there");
        }
        assert_eq!((table.len(), table.more.len()), (0, 0));
        assert_eq!(table_bytes, table.allocated_bytes());
    }
}
