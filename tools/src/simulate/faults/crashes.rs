//! Processes that die: at any moment, inside their disk's work, while they start, all at once.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, SECOND, World};

impl World {
    pub(super) fn crash_and_restart(&mut self, node: usize, random: &mut Random) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.crash(node);
        let most = random.pick(&[MS, 100 * MS, SECOND, 4 * SECOND]);
        let wait = random.between(0, most);
        self.after(wait, Happening::Restart { node });
    }

    pub(super) fn crash_all(&mut self, random: &mut Random) {
        for node in 0..self.nodes.len() {
            self.crash_and_restart(node, random);
        }
    }

    /// One node dies again and again, a little later each time.
    pub(super) fn crash_storm(&mut self, node: usize, random: &mut Random) {
        if !self.nodes[node].is_up() {
            return;
        }
        let mut wait = 0;
        for _ in 0..random.between(3, 12) {
            self.after(wait, Happening::Crash { node });
            wait += random.between(0, 20 * MS);
            self.after(wait, Happening::Restart { node });
            wait += random.scaled(MS / 10, 300 * MS);
        }
    }

    pub(super) fn crash_primary(&mut self, random: &mut Random) {
        if let Some(node) = self.primary_place() {
            self.crash_and_restart(node, random);
        }
    }

    /// Its disk answers a few more writes, and with the next one the process dies.
    pub(super) fn crash_in_disk_work(&mut self, node: usize, random: &mut Random) {
        if self.nodes[node].is_up() {
            let operations = random.below(12);
            let disks = &self.nodes[node].disks;
            match random.below(5) {
                0 => disks.snapshots.halt_after(operations),
                1 => disks.root.halt_after(operations),
                _ => disks.wal.halt_after(operations),
            }
            self.nodes[node].dying = true;
        }
    }

    /// A cut is under way, which takes a dozen writes and more: now and then one of them is the
    /// last.
    pub fn crash_in_cut(&mut self, node: usize) {
        let one_in = match self.faults.may(Kind::CrashInDiskWork) {
            true => 2,
            false => 6,
        };
        if self.calm.is_none() && self.dice.disk.one_in(one_in) {
            let operations = self.dice.disk.below(20);
            self.nodes[node].disks.wal.halt_after(operations);
            self.nodes[node].dying = true;
        }
    }

    /// It dies now, and again while it starts.
    pub(super) fn crash_in_start(&mut self, node: usize, random: &mut Random) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.crash(node);
        self.nodes[node].disks.wal.halt_after(random.below(8));
        self.nodes[node].dying = true;
        let wait = random.between(0, 500 * MS);
        self.after(wait, Happening::Restart { node });
    }

    /// A stopped process: everything it was to hear comes at once when it goes on.
    pub(super) fn pause_node(&mut self, node: usize, random: &mut Random, long: bool) {
        let wait = match long {
            true => random.scaled(500 * MS, 20 * SECOND),
            false => random.scaled(5 * MS, 2 * SECOND),
        };
        self.pause(node, wait);
    }
}
