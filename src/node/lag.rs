//! When the log had reached which LSN: for how long a member has been lacking something.

use crate::replication::Time;
use standfast_wal::Lsn;
use std::collections::VecDeque;
use std::time::Duration;

/// Moments kept; when there are more, every second one goes: what is long ago is known less
/// exactly.
const MOMENTS_MAX: usize = 2048;

/// Ends of a primary's log, looked at now and then, oldest first.
#[derive(Debug, Default)]
pub struct Reached(VecDeque<(Lsn, Time)>);

impl Reached {
    /// The log ends at `end` now.
    pub fn note(&mut self, end: Lsn, now: Time) {
        if self.0.back().is_some_and(|(last, _)| *last >= end) {
            return;
        }
        if self.0.len() >= MOMENTS_MAX {
            let mut number = 0_usize;
            self.0.retain(|_| {
                number += 1;
                !number.is_multiple_of(2)
            });
        }
        self.0.push_back((end, now));
    }

    /// Nothing is known any more: this node is no primary.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// For how long, at least, a member that has all up to `matched` has lacked what follows.
    pub fn behind(&self, matched: Lsn, now: Time) -> Duration {
        let at = self.0.partition_point(|(end, _)| *end <= matched);
        let since = self.0.get(at);
        since.map_or(Duration::ZERO, |(_, since)| now.since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_member_is_as_late_as_the_first_thing_that_it_lacks() {
        let mut reached = Reached::default();
        assert_eq!(reached.behind(Lsn(5), at(9)), Duration::ZERO);
        for (end, seconds) in [(10, 1), (20, 2), (20, 3), (30, 4)] {
            reached.note(Lsn(end), at(seconds));
        }
        let behind = |matched| reached.behind(Lsn(matched), at(10)).as_secs();
        assert_eq!([behind(0), behind(9), behind(10)], [9, 9, 8]);
        assert_eq!([behind(19), behind(20), behind(29)], [8, 6, 6]);
        assert_eq!(behind(30), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_stays() {
        let mut reached = Reached::default();
        for second in 1..=100_000 {
            reached.note(Lsn(second), at(second));
            assert!(reached.0.len() <= MOMENTS_MAX);
        }
        let behind = reached.behind(Lsn(0), at(100_000)).as_secs();
        assert!(behind > 80_000, "{behind}");
        let behind = reached.behind(Lsn(99_990), at(100_000)).as_secs();
        assert!(behind <= 9, "{behind}");
    }
}
