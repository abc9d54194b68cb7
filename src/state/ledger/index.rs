//! From an id to the position of what has it: an open-addressing table of eight bytes a bucket.
//!
//! A bucket holds 24 bits of the id's hash beside the position, so that a probe hardly ever looks
//! at what it points to. The table is split into shards by the first bits of the hash: each grows
//! by itself, so that no growth takes long. A bucket's home follows from the 24 bits alone, so
//! growth reads nothing but the table.
//!
//! Nothing that anybody can see depends on the order of buckets.

const POSITION_BITS: u32 = 40;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const TAG_BITS: u32 = 64 - POSITION_BITS;
/// Positions from 0 to below this can be stored.
pub const POSITIONS_MAX: u64 = POSITION_MASK;
const FIRST_CAPACITY_BITS: u32 = 3;

#[derive(Debug)]
pub struct Index {
    shards: Vec<Shard>,
    shard_bits: u32,
    buckets: u64,
}

#[derive(Debug, Default)]
struct Shard {
    /// 0: free; else the tag in the high bits and the position plus one.
    buckets: Vec<u64>,
    len: usize,
}

impl Index {
    pub fn new(shard_bits: u32) -> Index {
        let mut shards = Vec::new();
        shards.resize_with(1 << shard_bits, Shard::default);
        Index {
            shards,
            shard_bits,
            buckets: 0,
        }
    }

    /// The position under this hash for which `is_it` holds.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u64) -> bool) -> Option<u64> {
        let (shard, tag) = (&self.shards[self.shard_of(hash)], self.tag_of(hash));
        if shard.buckets.is_empty() {
            return None;
        }
        let mask = shard.buckets.len() - 1;
        let mut at = shard.home(tag);
        loop {
            let bucket = shard.buckets[at & mask];
            if bucket == 0 {
                return None;
            }
            let position = (bucket & POSITION_MASK) - 1;
            if bucket >> POSITION_BITS == tag && is_it(position) {
                return Some(position);
            }
            at += 1;
        }
    }

    /// Adds a position whose id is not there yet.
    pub fn insert(&mut self, hash: u64, position: u64) {
        assert!(
            position < POSITIONS_MAX,
            "{position} positions are too many"
        );
        let (at, tag) = (self.shard_of(hash), self.tag_of(hash));
        let shard = &mut self.shards[at];
        if (shard.len + 1) * 4 > shard.buckets.len() * 3 {
            let before = shard.buckets.len();
            shard.grow();
            self.buckets += (shard.buckets.len() - before) as u64;
        }
        shard.put(tag << POSITION_BITS | (position + 1));
        shard.len += 1;
    }

    /// Makes room for so many positions in an empty index, so that it need not grow up to there.
    pub fn reserve(&mut self, positions: u64) {
        assert_eq!(self.buckets, 0, "room is made before anything is added");
        let of_shard = usize::try_from(positions >> self.shard_bits).expect("it fits memory");
        let buckets = (of_shard + of_shard / 2).next_power_of_two();
        if (1 << FIRST_CAPACITY_BITS..=1 << TAG_BITS).contains(&buckets) {
            for shard in &mut self.shards {
                shard.buckets = vec![0; buckets];
            }
            self.buckets = (buckets * self.shards.len()) as u64;
        }
    }

    /// Removes what `insert` added.
    pub fn remove(&mut self, hash: u64, position: u64) {
        let (at, tag) = (self.shard_of(hash), self.tag_of(hash));
        self.shards[at].remove(tag << POSITION_BITS | (position + 1));
    }

    /// Looks at the bucket where a search would begin: see `Ledger::look_up`.
    pub fn touch(&self, hash: u64) -> u64 {
        let shard = &self.shards[self.shard_of(hash)];
        if shard.buckets.is_empty() {
            return 0;
        }
        shard.buckets[shard.home(self.tag_of(hash))]
    }

    /// What is probably the position under this hash: it lies where a search would begin.
    pub fn guess(&self, hash: u64) -> Option<u64> {
        (self.touch(hash) & POSITION_MASK).checked_sub(1)
    }

    /// How many positions there are.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.len as u64).sum()
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.buckets * 8
    }

    fn shard_of(&self, hash: u64) -> usize {
        usize::try_from(hash >> (63 - self.shard_bits) >> 1).expect("a few bits")
    }

    fn tag_of(&self, hash: u64) -> u64 {
        hash << self.shard_bits >> (64 - TAG_BITS)
    }
}

impl Shard {
    /// Where a search for this tag begins.
    fn home(&self, tag: u64) -> usize {
        let bits = self.buckets.len().trailing_zeros();
        usize::try_from(tag >> (TAG_BITS - bits)).expect("24 bits")
    }

    fn put(&mut self, bucket: u64) {
        let mask = self.buckets.len() - 1;
        let mut at = self.home(bucket >> POSITION_BITS);
        while self.buckets[at & mask] != 0 {
            at += 1;
        }
        self.buckets[at & mask] = bucket;
    }

    #[cold]
    fn grow(&mut self) {
        let bits = match self.buckets.len() {
            0 => FIRST_CAPACITY_BITS,
            len => len.trailing_zeros() + 1,
        };
        assert!(bits <= TAG_BITS, "a shard holds at most 2^24 buckets");
        let before = std::mem::replace(&mut self.buckets, vec![0; 1 << bits]);
        for bucket in before.into_iter().filter(|bucket| *bucket != 0) {
            self.put(bucket);
        }
    }

    /// Frees the bucket and moves up those behind it that a search would no longer reach.
    fn remove(&mut self, bucket: u64) {
        let mask = self.buckets.len() - 1;
        let mut hole = self.home(bucket >> POSITION_BITS) & mask;
        while self.buckets[hole] != bucket {
            assert!(self.buckets[hole] != 0, "only what is there is removed");
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.buckets[at];
            if next == 0 {
                break;
            }
            let home = self.home(next >> POSITION_BITS) & mask;
            let is_reachable = (at.wrapping_sub(home) & mask) < (at.wrapping_sub(hole) & mask);
            if !is_reachable {
                self.buckets[hole] = next;
                hole = at;
            }
        }
        self.buckets[hole] = 0;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn next(random: &mut u64) -> u64 {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    }

    #[test]
    fn an_index_is_as_a_map_while_it_grows_and_shrinks() {
        for (shard_bits, hash_mask) in [(0, u64::MAX), (4, u64::MAX), (2, 0xff00_0000_0000_0000)] {
            let mut index = Index::new(shard_bits);
            let mut model = BTreeMap::new();
            let mut random = 7;
            for position in 0..3000u64 {
                let hash = next(&mut random) & hash_mask;
                index.insert(hash, position);
                model.insert(position, hash);
                if position % 3 == 0 {
                    let (position, hash) = model.pop_first().expect("not empty");
                    index.remove(hash, position);
                    assert_eq!(index.find(hash, |found| found == position), None);
                }
            }
            assert_eq!(index.len(), model.len() as u64);
            for (position, hash) in &model {
                let found = index.find(*hash, |found| found == *position);
                assert_eq!(found, Some(*position));
            }
        }
    }
}
