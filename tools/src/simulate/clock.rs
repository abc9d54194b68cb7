//! A node's two clocks under virtual time: one that drifts, and one that is also set wrongly.

use super::world::SECOND;
use standfast::node::clock::Now;

const EPOCH_WALL: u64 = 1_700_000_000 * SECOND;
const MILLION: i128 = 1_000_000;

/// The boot clock never goes back; its rate is off by up to some percent. The wall clock goes with
/// it and jumps besides.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The virtual time at which the boot clock showed `boot`.
    at: u64,
    boot: u64,
    /// Parts per million by which the boot clock is fast.
    ppm: i64,
    /// The wall clock less the boot clock.
    wall: i64,
}

impl Clock {
    /// Every node's boot clock starts elsewhere.
    pub fn new(node: usize, ppm: i64, skew: i64) -> Clock {
        let boot = (node as u64 + 1) * 1000 * SECOND;
        let wall = (EPOCH_WALL - boot) as i64 + skew;
        Clock {
            at: 0,
            boot,
            ppm,
            wall,
        }
    }

    pub fn boot(&self, now: u64) -> u64 {
        let passed = i128::from(now - self.at);
        let passed = passed + passed * i128::from(self.ppm) / MILLION;
        self.boot + u64::try_from(passed).expect("slower than backwards")
    }

    pub fn read(&self, now: u64) -> Now {
        let boot = self.boot(now);
        let wall = boot.saturating_add_signed(self.wall);
        Now { boot, wall }
    }

    /// The virtual time at which the boot clock shows `boot`, a microsecond from now at least, so
    /// that virtual time always goes on.
    pub fn when(&self, now: u64, boot: u64) -> u64 {
        let wait = i128::from(boot.saturating_sub(self.boot(now)));
        let wait = wait * MILLION / (MILLION + i128::from(self.ppm)) + 1;
        let wait = u64::try_from(wait).unwrap_or(u64::MAX / 4);
        now + wait.clamp(1_000, u64::MAX / 4)
    }

    pub fn set_rate(&mut self, now: u64, ppm: i64) {
        self.boot = self.boot(now);
        self.at = now;
        self.ppm = ppm;
    }

    pub fn jump(&mut self, by: i64) {
        self.wall += by;
    }
}
