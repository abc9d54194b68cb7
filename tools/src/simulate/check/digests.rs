//! I2: at one place of a history every copy is equal.

use standfast::replication::EpochTable;
use standfast::state::Digest;
use standfast_wal::{Epoch, History, Lsn};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Digests {
    known: BTreeMap<(History, Epoch, Lsn), Digest>,
}

impl Digests {
    pub fn applied(&mut self, lsn: Lsn, digest: Digest, table: &EpochTable) -> Result<(), String> {
        let Some(entry) = table.at(lsn) else {
            return Ok(());
        };
        let known = self
            .known
            .entry((entry.history, entry.epoch, lsn))
            .or_insert(digest);
        if *known != digest {
            return Err(format!(
                "I2: at {lsn} the digest is {digest}, elsewhere it was {known}"
            ));
        }
        Ok(())
    }

    /// What the nodes had there.
    pub fn at(&self, history: History, epoch: Epoch, lsn: Lsn) -> Option<Digest> {
        self.known.get(&(history, epoch, lsn)).copied()
    }

    /// A node has taken another state in, which stands at `applied` of this log: what it keeps of
    /// its past is that state's.
    pub fn kept(
        &self,
        applied: Lsn,
        kept: impl Iterator<Item = (Lsn, Digest)>,
        table: &EpochTable,
    ) -> Result<(), String> {
        for (lsn, digest) in kept {
            let entry = table.at(lsn);
            let known = entry.and_then(|e| self.known.get(&(e.history, e.epoch, lsn)));
            if lsn > applied || known.is_some_and(|known| *known != digest) {
                return Err(format!(
                    "I2: at {applied} a digest of {lsn} is kept, {digest}, and there it was {known:?}"
                ));
            }
        }
        Ok(())
    }
}
