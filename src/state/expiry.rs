//! When what ends: the deadlines of a store in order, and the arithmetic of log time.
//!
//! Log time is u64 nanoseconds; deadlines are whole milliseconds, as clients state them, so that
//! many fall together. Something is gone from `expiry_ms` on by log time, whether it was already
//! swept or not.

use super::command::When;
use super::place::Place;
use std::collections::BTreeMap;

/// Log time in whole milliseconds: everything whose deadline is not above it is gone.
pub(super) fn now_ms(log_time_ns: u64) -> u64 {
    log_time_ns / 1_000_000
}

/// The deadline of a point in time. A relative one in the future is never early: it counts from
/// the end of a millisecond that has started. `None`: it lies before 1970.
pub(super) fn deadline_ms(when: When, log_time_ns: u64) -> Option<u64> {
    match when {
        When::At(ms) => u64::try_from(ms).ok(),
        When::In(ms) => {
            let log_time_ms = i64::try_from(now_ms(log_time_ns)).expect("at most 2^44");
            let sum = log_time_ms
                .checked_add(ms)
                .expect("RELATIVE_MS_MAX bounds it");
            let has_started = !log_time_ns.is_multiple_of(1_000_000);
            u64::try_from(sum + i64::from(ms > 0 && has_started)).ok()
        }
    }
}

/// A multiset of (deadline, place), ascending: which entries end, in which order they are swept.
/// A place counts more than once in the rare case that two keys of one slot share hash and
/// deadline.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    by_time: BTreeMap<(u64, u64), u32>,
    /// Copy of the first deadline, looked at before each command; `u64::MAX` if there is none.
    earliest_ms: u64,
}

impl Deadlines {
    pub fn new() -> Deadlines {
        Deadlines {
            by_time: BTreeMap::new(),
            earliest_ms: u64::MAX,
        }
    }

    /// From deadlines in any order; much faster than one by one.
    pub fn from_unsorted(mut all: Vec<(u64, u64)>) -> Deadlines {
        all.sort_unstable();
        let mut counted: Vec<((u64, u64), u32)> = Vec::with_capacity(all.len());
        for one in all {
            match counted.last_mut() {
                Some((last, count)) if *last == one => *count += 1,
                _ => counted.push((one, 1)),
            }
        }
        let earliest_ms = counted.first().map_or(u64::MAX, |((ms, _), _)| *ms);
        Deadlines {
            by_time: counted.into_iter().collect(),
            earliest_ms,
        }
    }

    pub fn insert(&mut self, expiry_ms: u64, place: Place) {
        *self.by_time.entry((expiry_ms, place.bits())).or_insert(0) += 1;
        self.earliest_ms = self.earliest_ms.min(expiry_ms);
    }

    pub fn remove(&mut self, expiry_ms: u64, place: Place) {
        let key = (expiry_ms, place.bits());
        let count = self
            .by_time
            .get_mut(&key)
            .expect("every expiring entry has a deadline");
        *count -= 1;
        if *count == 0 {
            self.by_time.remove(&key);
            if expiry_ms == self.earliest_ms {
                self.earliest_ms = self.first().map_or(u64::MAX, |(ms, _)| ms);
            }
        }
    }

    /// The earliest deadline and what ends then.
    pub fn first(&self) -> Option<(u64, Place)> {
        let (&(ms, bits), _) = self.by_time.first_key_value()?;
        Some((ms, Place::from_bits(bits)))
    }

    /// Whether anything is to be swept.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.earliest_ms <= now_ms
    }

    /// How many entries are gone but not yet swept.
    pub fn due(&self, now_ms: u64) -> u64 {
        if !self.is_due(now_ms) {
            return 0;
        }
        self.by_time
            .range(..=(now_ms, u64::MAX))
            .map(|(_, count)| u64::from(*count))
            .sum()
    }

    /// The earliest deadline above `now_ms`.
    pub fn next_after(&self, now_ms: u64) -> Option<u64> {
        self.by_time
            .range((now_ms.checked_add(1)?, 0)..)
            .next()
            .map(|(&(ms, _), _)| ms)
    }

    pub fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Frees up to `max` deadlines; false once there is none left.
    pub fn free(&mut self, max: usize) -> bool {
        for _ in 0..max {
            if self.by_time.pop_first().is_none() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::RELATIVE_MS_MAX;
    use super::*;

    #[test]
    fn a_relative_deadline_is_never_early_and_less_than_a_millisecond_late() {
        for now_ns in [0, 1, 999_999, 1_000_000, 1_000_001, 77_000_000_123] {
            let deadline_ms = deadline_ms(When::In(5), now_ns).expect("after 1970");
            let left_ns = deadline_ms * 1_000_000 - now_ns;
            assert!(
                (5_000_000..6_000_000).contains(&left_ns),
                "{left_ns} at {now_ns}"
            );
        }
        // What is not in the future must be gone at once.
        assert_eq!(deadline_ms(When::In(0), 7_000_001), Some(7));
        assert_eq!(deadline_ms(When::At(-1), 0), None);
        assert_eq!(deadline_ms(When::In(-6), 5_000_000), None);
        let last = deadline_ms(When::In(RELATIVE_MS_MAX), u64::MAX);
        assert!(last.is_some_and(|ms| i64::try_from(ms).is_ok()));
    }

    #[test]
    fn deadlines_are_a_multiset() {
        let place = |bits| Place::from_bits(bits);
        let mut one_by_one = Deadlines::new();
        let all = vec![(5, 1), (3, 2), (5, 1), (9, 0)];
        for (ms, bits) in &all {
            one_by_one.insert(*ms, place(*bits));
        }
        assert_eq!(one_by_one, Deadlines::from_unsorted(all));
        assert_eq!(
            (one_by_one.due(4), one_by_one.due(5), one_by_one.due(9)),
            (1, 3, 4)
        );
        assert_eq!(one_by_one.next_after(5), Some(9));
        one_by_one.remove(3, place(2));
        one_by_one.remove(5, place(1));
        assert_eq!(one_by_one.first(), Some((5, place(1))));
        one_by_one.remove(5, place(1));
        one_by_one.remove(9, place(0));
        assert_eq!(one_by_one, Deadlines::new());
    }
}
