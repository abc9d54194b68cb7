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
}
