//! An append-only list of items of one size, as bytes: what is full never changes again.
//!
//! A segment of so many items is closed when it is full. Closed segments are what a snapshot refers
//! to instead of copying them: the shell writes each into a file of its own once, and hands back
//! the same bytes, mapped ([`List::keep`]). So what lies in the heap is what came since the last
//! snapshot; all the rest is read from the disk, or lies in the system's page cache. An item that
//! is taken back reopens its segment, which happens within a record only: between records no
//! segment is ever reopened.

use super::super::digest::Digest;
use super::Ledger;
use super::walk::Sorts;
use bytes::Bytes;
use std::marker::PhantomData;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Items of a segment, as a power of two, where nothing else is asked for.
pub const SEGMENT_SHIFT: u32 = 16;

/// Bytes of a BLAKE3.
pub const BLAKE3_BYTES: usize = 32;

/// A full segment of one of the lists: its bytes never change again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Which list: the number that blocks of its items carry.
    pub sort: u8,
    /// From 0.
    pub number: u32,
    pub bytes: Bytes,
    /// BLAKE3 of the bytes, where a file holds them.
    pub stored: Option<[u8; BLAKE3_BYTES]>,
}

/// What a list holds.
pub(super) trait Item: Copy {
    type Encoded: AsRef<[u8]>;
    const BYTES: usize;
    /// Which list, in snapshots; and what makes the same bytes count differently in digests.
    const SORT: Sorts;

    fn encode(&self) -> Self::Encoded;

    /// `bytes` is one item, as `encode` made it.
    fn decode(bytes: &[u8]) -> Self;
}

/// A list; positions count from 0.
#[derive(Debug)]
pub(super) struct List<T> {
    closed: Vec<Closed>,
    /// The newest items, fewer than a segment.
    open: Vec<u8>,
    /// A segment has 2^shift items.
    shift: u32,
    /// Of all items.
    digest: Digest,
    /// Bytes of closed segments that no file holds.
    heap_bytes: u64,
    items: PhantomData<T>,
}

/// A segment that is full.
#[derive(Debug)]
struct Closed {
    bytes: Bytes,
    /// BLAKE3 of the bytes, where a file has them.
    stored: Option<[u8; BLAKE3_BYTES]>,
}

impl<T: Item> List<T> {
    pub fn new(shift: u32) -> List<T> {
        List {
            closed: Vec::new(),
            open: Vec::new(),
            shift,
            digest: Digest::default(),
            heap_bytes: 0,
            items: PhantomData,
        }
    }

    pub fn len(&self) -> u64 {
        self.closed_len() + (self.open.len() / T::BYTES) as u64
    }

    /// Items in closed segments.
    pub fn closed_len(&self) -> u64 {
        (self.closed.len() as u64) << self.shift
    }

    /// Sum over all items.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Appends an item and answers its position.
    #[inline]
    pub fn push(&mut self, item: T) -> u64 {
        let position = self.len();
        self.append(item.encode().as_ref());
        position
    }

    // Inlined, the item's length is known, and its bytes are moved in a few instructions.
    #[inline(always)]
    fn append(&mut self, item: &[u8]) {
        if self.open.capacity() == self.open.len() && !self.closed.is_empty() {
            // The first segment grows as needed: small books stay small.
            self.open.reserve_exact(self.segment_bytes());
        }
        self.digest.add(digest_of::<T>(item));
        self.open.extend_from_slice(item);
        if self.open.len() == self.segment_bytes() {
            let bytes = Bytes::from(std::mem::take(&mut self.open));
            self.heap_bytes += bytes.len() as u64;
            self.closed.push(Closed {
                bytes,
                stored: None,
            });
        }
    }

    /// Takes the newest item back.
    pub fn pop(&mut self) -> Option<T> {
        if self.open.is_empty() {
            let closed = self.closed.pop()?;
            assert!(
                closed.stored.is_none(),
                "what a snapshot refers to is never taken back"
            );
            self.heap_bytes -= closed.bytes.len() as u64;
            self.open = closed.bytes.into();
        }
        let at = self.open.len() - T::BYTES;
        let item = &self.open[at..];
        self.digest.subtract(digest_of::<T>(item));
        let item = T::decode(item);
        self.open.truncate(at);
        Some(item)
    }

    /// The bytes of the item at a position that is known to be there.
    #[inline]
    pub fn bytes_at(&self, position: u64) -> &[u8] {
        let segment = usize::try_from(position >> self.shift).expect("it is addressable");
        let inside =
            usize::try_from(position & ((1 << self.shift) - 1)).expect("it is addressable");
        let at = inside * T::BYTES;
        let bytes: &[u8] = match self.closed.get(segment) {
            Some(closed) => &closed.bytes,
            None => &self.open,
        };
        &bytes[at..at + T::BYTES]
    }

    /// The item at a position that is known to be there.
    pub fn at(&self, position: u64) -> T {
        T::decode(self.bytes_at(position))
    }

    pub fn get(&self, position: u64) -> Option<T> {
        (position < self.len()).then(|| self.at(position))
    }

    pub fn last(&self) -> Option<T> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The bytes of all items, in order.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        let closed = self.closed.iter().map(|closed| &closed.bytes[..]);
        let segments = closed.chain(std::iter::once(&self.open[..]));
        segments.flat_map(|segment| segment.chunks_exact(T::BYTES))
    }

    /// The first position whose item does not fulfil `is_before`; the list is partitioned by it.
    pub fn partition_point(&self, is_before: impl Fn(T) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.at(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Heap bytes held; asked for before every write.
    pub fn allocated_bytes(&self) -> u64 {
        self.heap_bytes + self.open.capacity() as u64
    }

    /// Its closed segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        (0..).zip(&self.closed).map(|(number, closed)| Segment {
            sort: T::SORT as u8,
            number,
            bytes: closed.bytes.clone(),
            stored: closed.stored,
        })
    }

    /// A file holds the bytes of `from` now: its own are given back for those of the file.
    pub fn keep(&mut self, from: &Segment, mapped: Bytes, blake3: [u8; BLAKE3_BYTES]) {
        let Some(closed) = self.closed.get_mut(index_of(from)) else {
            return;
        };
        // Another state may have replaced the one that the snapshot was of.
        let is_same = closed.bytes.as_ptr() == from.bytes.as_ptr();
        if is_same && closed.stored.is_none() && mapped.len() == closed.bytes.len() {
            self.heap_bytes -= closed.bytes.len() as u64;
            closed.bytes = mapped;
            closed.stored = Some(blake3);
        }
    }

    /// Appends a whole segment that a file has; `None` if it is not the next one, or of another
    /// size. `digest` is that of its items.
    pub fn load(&mut self, part: &Segment, digest: Digest) -> Option<()> {
        let is_next = self.open.is_empty() && index_of(part) == self.closed.len();
        if !is_next || part.bytes.len() != self.segment_bytes() {
            return None;
        }
        self.digest.add(digest);
        self.closed.push(Closed {
            bytes: part.bytes.clone(),
            stored: part.stored,
        });
        Some(())
    }

    /// Appends whole items; `None` if they do not begin at the end of the list.
    pub fn load_items(&mut self, first: u64, items: &[u8]) -> Option<()> {
        if first != self.len() {
            return None;
        }
        for item in items.chunks_exact(T::BYTES) {
            self.append(item);
        }
        Some(())
    }

    fn segment_bytes(&self) -> usize {
        T::BYTES << self.shift
    }
}

impl Ledger {
    /// Every full segment, list by list.
    pub fn segments(&self) -> Vec<Segment> {
        let transfers = self.transfers.log().segments();
        transfers
            .chain(self.transfers.burned().segments())
            .chain(self.holds.expiries().segments())
            .chain(self.history.rows().segments())
            .collect()
    }

    /// A file holds the bytes of the segment `from` now, which are `mapped`: the heap gives them
    /// back.
    pub fn keep_segment(&mut self, from: &Segment, mapped: Bytes, blake3: [u8; BLAKE3_BYTES]) {
        match Sorts::from_number(from.sort) {
            Some(Sorts::Transfers) => self.transfers.log_mut().keep(from, mapped, blake3),
            Some(Sorts::Burned) => self.transfers.burned_mut().keep(from, mapped, blake3),
            Some(Sorts::Expiries) => self.holds.expiries_mut().keep(from, mapped, blake3),
            Some(Sorts::Rows) => self.history.rows_mut().keep(from, mapped, blake3),
            Some(Sorts::Head | Sorts::Accounts) | None => {}
        }
    }
}

fn index_of(segment: &Segment) -> usize {
    usize::try_from(segment.number).expect("32 bits are addressable")
}

/// What an item counts in the digest.
pub(super) fn digest_of<T: Item>(item: &[u8]) -> Digest {
    // Seeds of other sums begin above those of the sorts.
    Digest(xxh3_128_with_seed(item, T::SORT as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Item for u64 {
        type Encoded = [u8; 8];
        const BYTES: usize = 8;
        const SORT: Sorts = Sorts::Rows;

        fn encode(&self) -> [u8; 8] {
            self.to_le_bytes()
        }

        fn decode(bytes: &[u8]) -> u64 {
            u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
        }
    }

    fn items(list: &List<u64>) -> impl Iterator<Item = u64> {
        list.bytes().map(u64::decode)
    }

    #[test]
    fn a_list_over_several_segments_is_as_a_plain_one() {
        for shift in [0, 1, 5, 16] {
            let mut list = List::new(shift);
            let count = (2 << shift) + 5;
            for i in 0..count {
                assert_eq!(list.push(i * 2), i);
            }
            assert_eq!((list.len(), list.last()), (count, Some(count * 2 - 2)));
            assert_eq!(list.segments().count() as u64, count >> shift);
            assert!(items(&list).eq((0..count).map(|i| i * 2)));
            assert_eq!(list.get(count), None);
            assert_eq!(list.partition_point(|item| item < count), count.div_ceil(2));
            for i in (0..count).rev() {
                assert_eq!(list.pop(), Some(i * 2));
            }
            assert_eq!((list.pop(), list.len()), (None, 0));
            assert_eq!(list.digest(), Digest::default());
        }
    }

    #[test]
    fn a_kept_segment_is_no_longer_in_the_heap_and_another_states_is_not_taken() {
        let filled = || {
            let mut list = List::new(2);
            (0..9u64).for_each(|i| {
                list.push(i);
            });
            list
        };
        let (mut list, other) = (filled(), filled());
        let before = list.allocated_bytes();
        let theirs = other.segments().next().expect("two are full");
        list.keep(&theirs, theirs.bytes.clone(), [7; BLAKE3_BYTES]);
        assert_eq!(list.allocated_bytes(), before);
        let own = list.segments().next().expect("two are full");
        list.keep(&own, Bytes::copy_from_slice(&own.bytes), [7; BLAKE3_BYTES]);
        assert_eq!(list.allocated_bytes(), before - 32);
        assert!(items(&list).eq(0..9));
        let stored: Vec<_> = list.segments().map(|one| one.stored.is_some()).collect();
        assert_eq!(stored, [true, false]);
    }

    #[test]
    fn a_list_is_loaded_from_its_segments_and_the_rest() {
        let mut list = List::new(2);
        (0..10u64).for_each(|i| {
            list.push(i);
        });
        let mut loaded: List<u64> = List::new(2);
        for segment in list.segments() {
            let items = segment.bytes.chunks_exact(8);
            let mut digest = Digest::default();
            items.for_each(|item| digest.add(digest_of::<u64>(item)));
            assert_eq!(loaded.load(&segment, digest), Some(()));
            assert_eq!(loaded.load(&segment, digest), None, "it is there");
        }
        let rest: Vec<u8> = (8..10u64).flat_map(u64::to_le_bytes).collect();
        assert_eq!(loaded.load_items(7, &rest), None);
        assert_eq!(loaded.load_items(8, &rest), Some(()));
        assert!(items(&loaded).eq(0..10));
        assert_eq!(loaded.digest(), list.digest());
    }
}
