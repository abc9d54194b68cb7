//! A growing list in segments of a fixed number of items, addressed by position.
//!
//! It never moves an item, so growth costs no pause.

/// Items of a segment: 2^16.
const SHIFT: u32 = 16;
const SEGMENT_ITEMS: usize = 1 << SHIFT;
const MASK: u64 = (1 << SHIFT) - 1;

/// A list of `T`; positions count from 0.
#[derive(Debug)]
pub struct Segments<T> {
    segments: Vec<Vec<T>>,
    len: u64,
}

impl<T: Copy> Segments<T> {
    pub fn new() -> Segments<T> {
        Segments {
            segments: Vec::new(),
            len: 0,
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends an item and answers its position.
    pub fn push(&mut self, item: T) -> u64 {
        let (segment, _) = place(self.len);
        if segment == self.segments.len() {
            // The first segment grows as needed: small books stay small.
            let capacity = if segment == 0 { 0 } else { SEGMENT_ITEMS };
            self.segments.push(Vec::with_capacity(capacity));
        }
        self.segments[segment].push(item);
        self.len += 1;
        self.len - 1
    }

    /// Takes the newest item back.
    pub fn pop(&mut self) -> Option<T> {
        let (segment, _) = place(self.len.checked_sub(1)?);
        let item = self.segments[segment].pop();
        if self.segments[segment].is_empty() {
            self.segments.pop();
        }
        self.len -= 1;
        item
    }

    pub fn get(&self, at: u64) -> Option<&T> {
        let (segment, inside) = place(at);
        self.segments.get(segment)?.get(inside)
    }

    /// The item at a position that is known to be there.
    pub fn at(&self, at: u64) -> &T {
        let (segment, inside) = place(at);
        &self.segments[segment][inside]
    }

    pub fn at_mut(&mut self, at: u64) -> &mut T {
        let (segment, inside) = place(at);
        &mut self.segments[segment][inside]
    }

    pub fn last(&self) -> Option<&T> {
        self.get(self.len.checked_sub(1)?)
    }

    /// All items from a position on, in order.
    pub fn iter_from(&self, from: u64) -> impl Iterator<Item = &T> {
        let (segment, inside) = place(from.min(self.len));
        let mut segments = self.segments.iter().skip(segment);
        let first = segments.next().map_or(&[][..], Vec::as_slice);
        let first = first.get(inside..).unwrap_or_default();
        first.iter().chain(segments.flatten())
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.iter_from(0)
    }

    /// All items, to be changed, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.segments.iter_mut().flatten()
    }

    /// The first position whose item does not fulfil `is_before`; the list is partitioned by it.
    pub fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.len);
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
        let first = self.segments.first().map_or(0, Vec::capacity);
        let others = self.segments.len().saturating_sub(1) * SEGMENT_ITEMS;
        ((first + others) * size_of::<T>()) as u64
    }
}

fn place(at: u64) -> (usize, usize) {
    let segment = usize::try_from(at >> SHIFT).expect("positions of what is in memory");
    let inside = usize::try_from(at & MASK).expect("16 bits");
    (segment, inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_over_several_segments_is_as_a_plain_one() {
        let mut list = Segments::new();
        let count = 2 * SEGMENT_ITEMS as u64 + 5;
        for i in 0..count {
            assert_eq!(list.push(i * 2), i);
        }
        assert_eq!((list.len(), list.last()), (count, Some(&(count * 2 - 2))));
        assert!(list.iter().copied().eq((0..count).map(|i| i * 2)));
        let from = SEGMENT_ITEMS as u64 - 1;
        assert!(
            list.iter_from(from)
                .copied()
                .eq((from..count).map(|i| i * 2))
        );
        assert_eq!(list.iter_from(count).count(), 0);
        assert_eq!(list.iter_from(count + 1_000_000).count(), 0);
        assert_eq!(list.partition_point(|item| *item < 77_777), 38_889);
        for i in (0..count).rev() {
            assert_eq!(list.pop(), Some(i * 2));
        }
        assert_eq!((list.pop(), list.len(), list.get(0)), (None, 0, None));
    }
}
