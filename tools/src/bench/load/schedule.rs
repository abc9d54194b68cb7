//! When the requests of an open loop are due: one after the other at a fixed rate, whatever became
//! of those before. What waits because the system is slow is late, and that counts as latency.

use std::time::{Duration, Instant};

pub struct Schedule {
    begin: Instant,
    per_second: f64,
    taken: u64,
}

impl Schedule {
    /// So many requests a second from `begin` on.
    pub fn new(begin: Instant, per_second: f64) -> Schedule {
        assert!(per_second > 0.0, "a rate is positive");
        Schedule {
            begin,
            per_second,
            taken: 0,
        }
    }

    /// When the next request should start.
    pub fn due(&self) -> Instant {
        // From the beginning each time, so that no error adds up.
        self.begin + Duration::from_secs_f64(self.taken as f64 / self.per_second)
    }

    /// Takes the next request if it is due, with the moment at which it should have started.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due();
        if due > now {
            return None;
        }
        self.taken += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_keeps_the_moment_it_was_due() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        let mut schedule = Schedule::new(begin, 100.0);
        assert_eq!(schedule.take(begin), Some(begin));
        assert_eq!(schedule.take(after(9)), None);
        // The system stalls for 25 ms: two requests are due, and say since when.
        assert_eq!(schedule.take(after(35)), Some(after(10)));
        assert_eq!(schedule.take(after(35)), Some(after(20)));
        assert_eq!(schedule.take(after(35)), Some(after(30)));
        assert_eq!(schedule.take(after(35)), None);
        assert_eq!(schedule.due(), after(40));
    }
}
