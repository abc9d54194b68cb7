//! Log time: what a primary stamps on records, tamed so that one bad clock expires nothing.
//!
//! Within an epoch it advances with the monotonic clock that counts suspend and is slewed towards
//! wall time at a bounded rate. A new primary whose wall clock is far ahead of its peers starts
//! from their median (2-replication, "Time").

/// The two clocks of one node at one moment, read by the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Nanoseconds of CLOCK_BOOTTIME: monotonic, counts suspend.
    pub boot: u64,
    /// Nanoseconds since 1970 by the wall clock; may jump.
    pub wall: u64,
}

/// A time in ns since 1970, for people.
pub fn utc(ns: u64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{ns} ns"),
    }
}

/// Log time moves at most this fraction faster or slower than the monotonic clock.
const SLEW_DIVISOR: u64 = 1000;

/// A running log clock; made anew at the start of each epoch.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    boot: u64,
    time: u64,
}

impl LogClock {
    /// Starts a clock for a new epoch. `last` is the timestamp of the log's last command,
    /// `median` the median of the peers' wall clocks now, `max_step` how far ahead of it (ns) this
    /// node's wall clock may be and still be believed.
    pub fn start(now: Now, last: u64, median: Option<u64>, max_step: u64) -> LogClock {
        let believed = match median {
            Some(median) if now.wall > median.saturating_add(max_step) => median,
            _ => now.wall,
        };
        LogClock {
            boot: now.boot,
            time: believed.max(last),
        }
    }

    /// Log time now; never falls.
    pub fn read(&mut self, now: Now) -> u64 {
        let elapsed = now.boot.saturating_sub(self.boot);
        let plain = self.time + elapsed;
        let slew = elapsed / SLEW_DIVISOR;
        self.boot = self.boot.max(now.boot);
        self.time = now.wall.clamp(plain - slew, plain + slew);
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_jump_of_the_wall_clock_moves_log_time_only_at_the_slew_rate() {
        let mut clock = LogClock::start(
            Now {
                boot: 0,
                wall: 100 * SECOND,
            },
            0,
            None,
            SECOND,
        );
        let t = clock.read(Now {
            boot: SECOND,
            wall: 5000 * SECOND,
        });
        assert_eq!(t, 101 * SECOND + SECOND / SLEW_DIVISOR);
        let t = clock.read(Now {
            boot: 2 * SECOND,
            wall: 0,
        });
        assert_eq!(t, 102 * SECOND);
    }

    #[test]
    fn a_primary_far_ahead_of_its_peers_starts_from_their_median_and_never_below_the_log() {
        let now = Now {
            boot: 0,
            wall: 900 * SECOND,
        };
        let mut ahead = LogClock::start(now, 0, Some(100 * SECOND), 10 * SECOND);
        assert_eq!(ahead.read(now), 100 * SECOND);
        let mut near = LogClock::start(now, 0, Some(895 * SECOND), 10 * SECOND);
        assert_eq!(near.read(now), 900 * SECOND);
        let mut log_ahead = LogClock::start(now, 950 * SECOND, Some(895 * SECOND), 10 * SECOND);
        assert_eq!(log_ahead.read(now), 950 * SECOND);
    }
}
