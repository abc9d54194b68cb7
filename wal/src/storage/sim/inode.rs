//! One simulated file's bytes, and what a power cut makes of them; the generator that decides.

use crate::storage::SECTOR_BYTES;
use std::collections::BTreeMap;
use std::ops::Range;

const SECTOR: usize = SECTOR_BYTES as usize;

/// A small generator (splitmix64): the same seed gives the same disk, on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    pub(super) fn happens(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    durable_len: usize,
    /// What durable sectors held before they were overwritten and not yet synced.
    before: BTreeMap<usize, Vec<u8>>,
    /// Reading any of these fails.
    pub(super) unreadable: Option<Range<usize>>,
}

impl Inode {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        let (mut sector, last) = (offset / SECTOR, end.div_ceil(SECTOR));
        while sector < last && sector * SECTOR < self.durable_len {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.durable_len);
            let old = &self.bytes[range];
            self.before.entry(sector).or_insert_with(|| old.to_vec());
            sector += 1;
        }
        if self.bytes.len() < end {
            let growth = end - self.bytes.len();
            self.bytes.extend_from_slice(&vec![0; growth]);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn sync(&mut self) {
        self.before.clear();
        self.durable_len = self.bytes.len();
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        // Swarm: a crash loses everything, keeps everything, keeps a prefix, or picks sectors.
        let mode = random.below(4);
        let overwritten: Vec<usize> = self.before.keys().copied().collect();
        let grown = self.durable_len.div_ceil(SECTOR)..self.bytes.len().div_ceil(SECTOR);
        let sectors: Vec<usize> = overwritten.into_iter().chain(grown).collect();
        let prefix = random.below(sectors.len() as u64 + 1);
        let mut kept_end = self.durable_len;
        for (i, sector) in sectors.into_iter().enumerate() {
            let keep = match mode {
                0 => false,
                1 => true,
                2 => (i as u64) < prefix,
                _ => random.below(2) == 0,
            };
            let end = ((sector + 1) * SECTOR).min(self.bytes.len());
            if keep {
                kept_end = kept_end.max(end);
                continue;
            }
            let old = self.before.remove(&sector).unwrap_or_default();
            let start = sector * SECTOR;
            self.bytes[start..start + old.len()].copy_from_slice(&old);
            self.bytes[start + old.len()..end].fill(0);
        }
        if random.below(2) == 0 {
            self.bytes.truncate(kept_end);
        }
        self.sync();
    }
}
