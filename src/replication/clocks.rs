//! Wall clocks: one's own, the peers', their median, and the log time a new epoch starts with.
//!
//! Nothing here is needed for safety; one bad clock expires nothing.

use crate::replication::node::Node;
use standfast_wal::{Mark, NodeId};

impl Node {
    pub fn set_wall(&mut self, wall: u64) {
        // Where this clock has jumped, the others have not jumped with it.
        if let Some(expected) = self.wall_now() {
            let step = bounded(i128::from(wall) - i128::from(expected));
            for offset in self.clocks.values_mut() {
                *offset = offset.saturating_sub(step);
            }
        }
        self.wall = Some((wall, self.now));
    }

    pub fn wall_now(&self) -> Option<u64> {
        let (wall, at) = self.wall?;
        let passed = u64::try_from(self.now.since(at).as_nanos()).unwrap_or(u64::MAX);
        Some(wall.saturating_add(passed))
    }

    /// Remembers how far a peer's wall clock is from this node's; 0 says nothing.
    pub fn on_wall_sample(&mut self, from: NodeId, wall: u64) {
        if let Some(own) = self.wall_now().filter(|_| wall != 0) {
            let offset = bounded(i128::from(wall) - i128::from(own));
            self.clocks.insert(from, offset);
        }
    }

    pub fn knows_only_its_own_clock(&self) -> bool {
        self.wall.is_some() && self.clocks.is_empty()
    }

    /// The median of the peers' wall clocks, now.
    pub fn peers_clock(&self) -> Option<u64> {
        median(self.clocks.values().copied().collect())
            .and_then(|offset| self.wall_now()?.checked_add_signed(offset))
    }

    /// The median of all known wall clocks, this node's included, now.
    pub fn clock_median(&self) -> Option<u64> {
        let offsets = self.clocks.values().copied().chain([0]).collect();
        median(offsets).and_then(|offset| self.wall_now()?.checked_add_signed(offset))
    }

    /// The log time that a new primary starts with: its wall clock, or the median of its peers'
    /// where it is too far ahead of that, and always above what the log has.
    pub fn start_timestamp(&self) -> u64 {
        let own = self.wall_now().unwrap_or(0);
        let step = u64::try_from(self.settings.max_clock_step.as_nanos()).unwrap_or(u64::MAX);
        let tamed = match self.peers_clock() {
            Some(median) if own > median.saturating_add(step) => {
                Mark::ClockDistrusted.hit();
                median
            }
            _ => own,
        };
        tamed.max(self.log.tip().timestamp + 1)
    }
}

fn bounded(offset: i128) -> i64 {
    let bound = i128::from(i64::MAX);
    i64::try_from(offset.clamp(-bound, bound)).expect("clamped")
}

fn median(mut offsets: Vec<i64>) -> Option<i64> {
    offsets.sort_unstable();
    offsets.get(offsets.len().checked_sub(1)? / 2).copied()
}
