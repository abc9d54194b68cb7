//! A data directory of simulated disks: they tear, forget and rot, each from its seed.

use super::Directory;
use standfast_wal::{SimDisk, Storage};
use std::io;

/// Segments of sixteen transfers: a run of seconds fills many.
const SEGMENT_SHIFT: u32 = 4;

/// The files of a node that survive a crash once they are synced. Clones share them.
#[derive(Clone)]
pub struct SimDir {
    pub root: SimDisk,
    pub wal: SimDisk,
    pub snapshots: SimDisk,
}

impl SimDir {
    pub fn new(seed: u64) -> SimDir {
        SimDir {
            root: SimDisk::new(seed ^ 0xabcd),
            wal: SimDisk::new(seed),
            snapshots: SimDisk::new(seed ^ 0x5a5a),
        }
    }

    /// All three, for what happens to the whole machine.
    pub fn each(&self) -> [&SimDisk; 3] {
        [&self.root, &self.wal, &self.snapshots]
    }

    /// The machine loses power: what was not synced may be lost, torn or reordered.
    pub fn crash(&mut self) {
        self.root = self.root.crash();
        self.wal = self.wal.crash();
        self.snapshots = self.snapshots.crash();
    }

    /// The process dies and the machine goes on: nothing is lost.
    pub fn restart(&mut self) {
        self.root = self.root.restart();
        self.wal = self.wal.restart();
        self.snapshots = self.snapshots.restart();
    }

    /// Every file is gone: a new machine.
    pub fn wipe(&self) {
        for disk in self.each() {
            disk.lose_all();
        }
    }
}

impl Directory for SimDir {
    type Storage = SimDisk;

    fn name(&self) -> String {
        "sim".to_string()
    }

    fn root(&self) -> io::Result<SimDisk> {
        Ok(self.root.clone())
    }

    fn wal(&self) -> io::Result<SimDisk> {
        Ok(self.wal.clone())
    }

    fn snapshots(&self) -> io::Result<SimDisk> {
        Ok(self.snapshots.reopened())
    }

    fn set_aside(&self) -> io::Result<String> {
        // Whoever would look for the old life here is the observer, who knows it already.
        self.root.free_space()?;
        self.wipe();
        Ok("the observer".to_string())
    }

    fn threads(&self) -> usize {
        1
    }

    fn segment_shift(&self) -> u32 {
        SEGMENT_SHIFT
    }
}
