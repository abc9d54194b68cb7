//! How much memory a piece of work takes at its highest: an allocator that counts, per thread.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one hands every call on to the system's \
              with the arguments it was given, and only counts"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of every program that links this crate.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Of a thread that is ending nothing is counted any more.
fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every method is System's own, called with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new memory may be there at once.
        count(signed(size));
        count(-signed(layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Does the work; answers also the most bytes that this thread had taken for it at any time.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    let outer = PEAK.replace(before);
    let made = work();
    let peak = PEAK.get();
    PEAK.set(outer.max(peak));
    (made, usize::try_from(peak - before).unwrap_or(0))
}

/// What a decoder may take memory for: so much for each byte of its input, and so much besides.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub per_byte: usize,
    pub fixed: usize,
}

impl Bound {
    /// Does the work on an input of `bytes`, and holds it against the bound.
    #[track_caller]
    pub fn hold<T>(self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let (made, peak) = peak_of(work);
        let most = self.per_byte * bytes + self.fixed;
        assert!(
            peak <= most,
            "{peak} bytes of memory for {bytes} of input; {self:?} allows {most}"
        );
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_and_given_back_is_counted_at_its_highest() {
        let (len, peak) = peak_of(|| {
            let first = vec![0u8; 10_000];
            drop(first);
            vec![1u8; 5_000].len()
        });
        assert_eq!(len, 5_000);
        assert!((10_000..11_000).contains(&peak), "{peak}");
        let ((), outer) = peak_of(|| {
            let ((), inner) = peak_of(|| drop(vec![0u8; 70_000]));
            assert!((70_000..71_000).contains(&inner), "{inner}");
        });
        assert!(outer >= 70_000, "{outer}");
    }

    #[test]
    #[should_panic(expected = "bytes of memory for 10 of input")]
    fn more_than_the_bound_is_a_finding() {
        let bound = Bound {
            per_byte: 2,
            fixed: 100,
        };
        bound.hold(10, || drop(vec![0u8; 121]));
    }
}
