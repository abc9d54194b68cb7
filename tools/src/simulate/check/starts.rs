//! What a process starts with: all that was durable here, or a log that says it is not to be
//! believed.

use super::Observer;
use standfast::replication::Replica;

impl Observer {
    /// A log that is believed has everything that was durable when the last process here ended.
    /// Where a disk was damaged it may have less, but must not count then.
    pub fn believes_what_is_whole(
        &self,
        node: usize,
        replica: &Replica,
        is_harmed: bool,
    ) -> Result<(), String> {
        let Some((incarnation, durable, table)) = &self.nodes[node].left else {
            return Ok(());
        };
        let is_doubted = is_harmed && replica.meta().suspect;
        if *incarnation != replica.meta().incarnation || is_doubted {
            return Ok(());
        }
        let last =
            |table: &standfast::replication::EpochTable| table.last().map(|entry| entry.fence());
        let tip = replica.tip().position.lsn;
        let (kept, had) = (replica.epochs().at(*durable), table.at(*durable));
        // A snapshot of a later reign may have taken its place just before.
        let is_replaced = last(replica.epochs()) > last(table);
        if is_replaced || tip >= *durable && kept == had {
            return Ok(());
        }
        Err(format!(
            "n{node} starts with a log that ends at {tip} and has {kept:?} at {durable}, which was \
             durable here, of {had:?}"
        ))
    }
}
