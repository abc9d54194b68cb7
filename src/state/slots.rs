//! The hash slots of a store, and which of them anything was ever put into: a walk over a small
//! store skips the rest.

use super::SLOTS;
use super::digest::Digest;
use super::table::Table;

const WORD_BITS: u16 = 64;

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub table: Table,
    pub digest: Digest,
}

#[derive(Debug)]
pub(super) struct Slots {
    /// Always [`SLOTS`] of them.
    all: Vec<Slot>,
    /// A bit for each: whoever was changed may hold entries, nobody else does.
    touched: Vec<u64>,
}

impl Slots {
    pub fn new() -> Slots {
        let mut all = Vec::new();
        all.resize_with(usize::from(SLOTS), Slot::default);
        Slots {
            all,
            touched: vec![0; usize::from(SLOTS / WORD_BITS)],
        }
    }

    pub fn get(&self, slot: u16) -> &Slot {
        &self.all[usize::from(slot)]
    }

    pub fn change(&mut self, slot: u16) -> &mut Slot {
        self.touched[usize::from(slot / WORD_BITS)] |= 1 << (slot % WORD_BITS);
        &mut self.all[usize::from(slot)]
    }

    /// The first slot at or above this one that may hold entries; [`SLOTS`] when there is none.
    pub fn next_touched(&self, from: u16) -> u16 {
        let first = from / WORD_BITS;
        for (word, number) in self.touched.iter().zip(0..).skip(usize::from(first)) {
            let below = if number == first { from % WORD_BITS } else { 0 };
            let bits = word & (u64::MAX << below);
            if bits != 0 {
                let low = u16::try_from(bits.trailing_zeros()).expect("below 64");
                return number * WORD_BITS + low;
            }
        }
        SLOTS
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.all.iter()
    }

    pub fn into_vec(self) -> Vec<Slot> {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_touched_slot_and_no_other() {
        let mut slots = Slots::new();
        let touched = [0, 1, 63, 64, 4000, SLOTS - 1];
        for slot in touched {
            slots.change(slot);
        }
        let mut found = Vec::new();
        let mut next = slots.next_touched(0);
        while next < SLOTS {
            found.push(next);
            next = slots.next_touched(next + 1);
        }
        assert_eq!(found, touched);
        assert_eq!(slots.next_touched(SLOTS), SLOTS);
    }
}
