//! What goes wrong just while a snapshot is on its way from one node to another, which is seldom
//! and short: chance alone would hardly ever meet it.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, World};

impl World {
    /// One node has just offered another a snapshot, or sent it.
    pub fn trouble_in_copy(&mut self, from: usize, to: usize) {
        if self.calm.is_some() {
            return self.break_late(from, to);
        }
        if !self.dice.net.one_in(3) {
            return;
        }
        let mut random = Random::new(self.dice.net.next());
        match random.below(6) {
            0 if self.faults.may(Kind::Break) => {
                // What is sent, or what is said of it.
                match random.one_in(2) {
                    true => self.break_way(from, to),
                    false => self.break_way(to, from),
                }
            }
            1 if self.faults.may(Kind::Crash) => {
                let node = random.pick(&[from, to]);
                let wait = random.below(20 * MS);
                self.after(wait, Happening::Crash { node });
                let wait = wait + random.scaled(MS, 2000 * MS);
                self.after(wait, Happening::Restart { node });
            }
            2 | 4 | 5 if self.faults.may(Kind::FailedReads) => {
                let _ = self.fail_reads_of(from, 1_000_000, &mut random);
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

    /// One connection breaks after the faults have ended, and no other mends what comes of that:
    /// the way back, on which it is said what became of the snapshot.
    fn break_late(&mut self, from: usize, to: usize) {
        if self.faults.may(Kind::Break) && std::mem::take(&mut self.faults.breaks_late) {
            self.break_way(to, from);
        }
    }
}
