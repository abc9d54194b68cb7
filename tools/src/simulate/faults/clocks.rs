//! Clocks that are set wrongly while a node runs, and clocks that go too fast or too slow.

use crate::simulate::random::Random;
use crate::simulate::world::{MS, SECOND, World};

impl World {
    pub(super) fn wall_jump(&mut self, node: usize, random: &mut Random) {
        let most = random.pick(&[10 * MS, SECOND, 20 * SECOND, 100_000 * SECOND]);
        let jump = random.below(2 * most) as i64 - most as i64;
        self.say(|| format!("n{node}'s wall clock jumps by {} ms", jump / MS as i64));
        self.nodes[node].clock.jump(jump);
    }

    pub(super) fn drift(&mut self, node: usize, random: &mut Random) {
        let most = self.plan.drift_ppm.max(1000);
        let ppm = random.below(2 * most) as i64 - most as i64;
        self.say(|| format!("n{node}'s clocks are off by {ppm} ppm"));
        let now = self.now;
        self.nodes[node].clock.set_rate(now, ppm);
    }
}
