//! Snapshots: what was taken loads and is what its head says; what is there is started from.

use super::Observer;
use crate::simulate::node::Process;
use crate::simulate::world::{CLUSTER, World};
use bytes::Bytes;
use standfast::node::directory::sim::SimDir;
use standfast::node::shelf;
use standfast::state::Digest;
use standfast_snapshot::{Header, Reader};
use standfast_wal::{History, Lsn};

/// One snapshot in so many is loaded when it has been taken: each fills all slots of a state.
const LOADED_ONE_IN: u64 = 12;

/// What a snapshot says of itself. Not as a node reads it: here every sector can be read.
fn header_of(disks: &SimDir, lsn: Lsn) -> Option<Header> {
    let name = shelf::name_of(lsn);
    let bytes = Bytes::from(disks.snapshots.contents(&name)?);
    let reader = Reader::new(bytes, &name).ok()?;
    Some(reader.header().clone())
}

impl Observer {
    /// I6: a state that is written down as one of a history was committed in it.
    fn is_committed_in(&self, header: &Header) -> Result<(), String> {
        let (history, lsn) = (header.history, header.link.position.lsn);
        // What was founded upon is its own, though nothing of it is committed yet.
        let founded = header.ancestors.last().map_or(0, |(_, fork)| *fork);
        let commit = self.log.true_commit(history).max(Lsn(founded));
        let known = self.digest_of(history, lsn);
        if let Some(known) = known.filter(|known| *known != Digest(header.digest)) {
            return Err(format!(
                "I2: a snapshot at {lsn} says it is of {history}, whose digest there is {known}"
            ));
        }
        if lsn <= commit {
            return Ok(());
        }
        Err(format!(
            "I6: a snapshot at {lsn} says it is of {history}, of which {commit} is committed"
        ))
    }
}

impl World {
    /// A snapshot was taken: now and then it is loaded, which proves its digest.
    pub fn snapshot_taken(&mut self, node: usize, lsn: Lsn) -> Result<(), String> {
        if let Some(header) = header_of(&self.nodes[node].disks, lsn) {
            self.observer.is_committed_in(&header)?;
        }
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

    /// The newest snapshot on a node's disk, and the history that it says it is of.
    pub fn newest_snapshot(&self, node: usize) -> Option<(Lsn, Option<History>)> {
        let disks = &self.nodes[node].disks;
        let (lsn, _) = *shelf::list(&disks.snapshots).ok()?.first()?;
        Some((lsn, header_of(disks, lsn).map(|header| header.history)))
    }

    /// A start that passes over a snapshot that nothing had damaged heals what must not be.
    pub fn starts_from_its_newest(
        &mut self,
        node: usize,
        newest: Option<(Lsn, Option<History>)>,
        process: &Process,
    ) -> Result<(), String> {
        self.summary.ledger.note_started(process);
        let this = &self.nodes[node];
        let (lsn, history) = newest.unzip();
        if this.failing || this.harmed.is_some() || process.from >= lsn {
            return Ok(());
        }
        // One of a newer history replaces all of the old one's: `rejoin`.
        let own = process.engine.replica().epochs().last();
        let is_older = history.flatten().is_some_and(|history| {
            own.is_some_and(|own| history.generation < own.history.generation)
        });
        if is_older {
            return Ok(());
        }
        Err(format!(
            "n{node} starts in {own:?} from the snapshot at {:?}, and nothing had damaged that at \
             {newest:?}",
            process.from
        ))
    }
}
