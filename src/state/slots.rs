//! The hash slots of a store, in pages that come into being when something is put there: an empty
//! store costs next to nothing, and a walk over a small one passes over what was never touched.

use super::SLOTS;
use super::digest::Digest;
use super::table::Table;

/// Slots of a page: a bit of a word for each.
const PAGE: u16 = 64;
const _: () = assert!(SLOTS.is_multiple_of(PAGE));

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub table: Table,
    pub digest: Digest,
}

static UNTOUCHED: Slot = Slot {
    table: Table::new(),
    digest: Digest(0),
};

#[derive(Debug)]
pub(super) struct Page {
    /// A bit for each slot that was ever changed: nobody else holds entries.
    touched: u64,
    slots: [Slot; PAGE as usize],
}

#[derive(Debug)]
pub(super) struct Slots {
    pages: Vec<Option<Box<Page>>>,
}

impl Slots {
    pub fn new() -> Slots {
        let mut pages = Vec::new();
        pages.resize_with(usize::from(SLOTS / PAGE), || None);
        Slots { pages }
    }

    pub fn get(&self, slot: u16) -> &Slot {
        match &self.pages[usize::from(slot / PAGE)] {
            Some(page) => &page.slots[usize::from(slot % PAGE)],
            None => &UNTOUCHED,
        }
    }

    pub fn change(&mut self, slot: u16) -> &mut Slot {
        let page = &mut self.pages[usize::from(slot / PAGE)];
        let page = page.get_or_insert_with(Page::new);
        page.touched |= 1 << (slot % PAGE);
        &mut page.slots[usize::from(slot % PAGE)]
    }

    /// The first slot at or above this one that may hold entries; [`SLOTS`] when there is none.
    pub fn next_touched(&self, from: u16) -> u16 {
        let mut from = from;
        while from < SLOTS {
            let page = self.pages[usize::from(from / PAGE)].as_ref();
            let touched = page.map_or(0, |page| page.touched >> (from % PAGE));
            if touched != 0 {
                return from + u16::try_from(touched.trailing_zeros()).expect("below 64");
            }
            from = (from / PAGE + 1) * PAGE;
        }
        SLOTS
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        (0..SLOTS).map(|slot| self.get(slot))
    }

    pub fn into_pages(self) -> Vec<Box<Page>> {
        self.pages.into_iter().flatten().collect()
    }
}

impl Page {
    fn new() -> Box<Page> {
        Box::new(Page {
            touched: 0,
            slots: std::array::from_fn(|_| Slot::default()),
        })
    }

    /// Frees one chunk of one table; false once there is none left.
    pub fn free_chunk(&mut self) -> bool {
        while self.touched != 0 {
            let slot = self.touched.trailing_zeros();
            if self.slots[slot as usize].table.free_chunk() {
                return true;
            }
            self.touched &= self.touched - 1;
        }
        false
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
        assert_eq!(slots.iter().count(), usize::from(SLOTS));
    }
}
