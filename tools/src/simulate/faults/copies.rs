//! What goes wrong just while a snapshot is on its way from one node to another, which is seldom
//! and short: chance alone would hardly ever meet it.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, World};

impl World {
    /// One node has just offered another a snapshot, or sent it.
    pub fn trouble_in_copy(&mut self, from: usize, to: usize) {
        if self.calm.is_some() || !self.dice.net.one_in(4) {
            return;
        }
        let mut random = Random::new(self.dice.net.next());
        match random.below(4) {
            0 if self.faults.may(Kind::Break) => self.break_way(from, to),
            1 if self.faults.may(Kind::Crash) => {
                let node = random.pick(&[from, to]);
                let wait = random.below(20 * MS);
                self.after(wait, Happening::Crash { node });
                let wait = wait + random.scaled(MS, 2000 * MS);
                self.after(wait, Happening::Restart { node });
            }
            2 if self.faults.may(Kind::FailedReads) => {
                let _ = self.fail_reads(from, &mut random);
            }
            // The offer is heard together with what a successor says.
            3 if self.faults.may(Kind::LongPause) => {
                self.pause_node(to, &mut random, true);
                if self.faults.may(Kind::CrashPrimary) {
                    self.after(0, Happening::Crash { node: from });
                    let wait = random.scaled(MS, 2000 * MS);
                    self.after(wait, Happening::Restart { node: from });
                }
            }
            _ => {}
        }
    }
}
