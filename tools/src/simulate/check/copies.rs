//! Snapshots: what was taken loads and is what its head says; what is there is started from.

use crate::simulate::node::Process;
use crate::simulate::world::{CLUSTER, World};
use standfast::node::shelf;
use standfast_wal::Lsn;

/// One snapshot in so many is loaded when it has been taken: each fills all slots of a state.
const LOADED_ONE_IN: u64 = 12;

impl World {
    /// A snapshot was taken: now and then it is loaded, which proves its digest.
    pub fn snapshot_taken(&mut self, node: usize, lsn: Lsn) -> Result<(), String> {
        let this = &self.nodes[node];
        let is_sound = !this.failing && this.harmed.is_none();
        if !is_sound || !self.dice.check.one_in(LOADED_ONE_IN) {
            return Ok(());
        }
        let loaded = shelf::open(&this.disks, lsn).and_then(|reader| {
            let loaded = shelf::load_in(&this.disks, &reader, CLUSTER);
            loaded.map_err(|error| error.to_string())
        });
        match loaded {
            Ok(_) => Ok(()),
            Err(why) => Err(format!("I2: n{node} took a snapshot at {lsn}: {why}")),
        }
    }

    /// The newest snapshot on a node's disk.
    pub fn newest_snapshot(&self, node: usize) -> Option<Lsn> {
        let found = shelf::list(&self.nodes[node].disks.snapshots).ok()?;
        found.first().map(|(lsn, _)| *lsn)
    }

    /// A start that passes over a snapshot that nothing had damaged heals what must not be.
    pub fn starts_from_its_newest(
        &mut self,
        node: usize,
        newest: Option<Lsn>,
        process: &Process,
    ) -> Result<(), String> {
        self.summary.ledger.note_started(process);
        let this = &self.nodes[node];
        if this.failing || this.harmed.is_some() || process.from >= newest {
            return Ok(());
        }
        // One of a newer history replaces all of the old one's: `rejoin`.
        let own = process.engine.replica().epochs().last();
        let passed = newest.and_then(|lsn| shelf::open(&this.disks, lsn).ok());
        let header = passed.and_then(|reader| shelf::load_in(&this.disks, &reader, CLUSTER).ok());
        let is_older = header.is_some_and(|(header, _)| {
            own.is_some_and(|own| header.history.generation < own.history.generation)
        });
        if is_older {
            return Ok(());
        }
        Err(format!(
            "n{node} starts from the snapshot at {:?}, and nothing had damaged that at {newest:?}",
            process.from
        ))
    }
}
