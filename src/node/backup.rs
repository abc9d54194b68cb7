//! `backup now`: the newest snapshot, and the committed log behind the last backup, in an archive.
//!
//! Runs on a thread of its own. Only what is committed and durable here is shipped (I6): the engine
//! says through which LSN that is.

use crate::limits;
use crate::node::archiver::{self, read_error};
use crate::node::shelf;
use serde_json::json;
use standfast_snapshot::{Card, Reader as SnapshotReader, Recipients, Shipper, store};
use standfast_wal::{Disk, Lsn, Reader, Record};
use std::io;
use std::path::Path;

/// What is shipped.
#[derive(Clone, Debug)]
pub struct What {
    pub card: Card,
    /// The newest snapshot of the history that this node follows: one of a history that has ended
    /// may be higher, and stay a while.
    pub snapshot: Lsn,
    pub through: Lsn,
}

/// Ships to `to`, a directory or a URL, and says what it did, as JSON.
pub fn back_up(
    data: &Path,
    what: &What,
    log: &Reader<Disk>,
    to: &str,
    recipients: &Recipients,
    who: &str,
) -> Result<String, String> {
    let text = |error: standfast_snapshot::Error| error.to_string();
    let found = shelf::snapshots(data).map_err(|e| format!("cannot list snapshots: {e}"))?;
    let mut found = found.iter();
    let (_, path) = found
        .find(|(lsn, _)| *lsn == what.snapshot)
        .ok_or("the snapshot is gone, ask again")?;
    let (card, through) = (&what.card, what.through);
    let reader = SnapshotReader::open(path).map_err(text)?;
    reader.check_cluster(card.cluster).map_err(text)?;
    let store = store::open(to, &archiver::scratch_in(data)).map_err(|error| error.to_string())?;
    let (mut shipper, _) = Shipper::open(&store, card, recipients).map_err(text)?;
    let before_log = Lsn(log.first_lsn().0.saturating_sub(1));
    let start = shipper.reached().max(before_log);
    let mut shipped = shipper
        .put_log(records(log, start, through))
        .map_err(text)?;
    let (lsn, sent) = shipper.put_snapshot(path).map_err(text)?;
    shipped.stored_bytes += sent.put;
    shipper.note_snapshot(lsn).map_err(text)?;
    shipper.put_manifest().map_err(text)?;
    tracing::info!(%to, %lsn, %through, %who, "backup written");
    Ok(json!({
        "to": to,
        "history": card.history.to_string(),
        "snapshot_lsn": lsn.0,
        "log_through_lsn": shipper.end().map(|end| end.position.lsn.0),
        "log_pieces": shipped.pieces,
        "records": shipped.records,
        "stored_bytes": shipped.stored_bytes,
        "snapshot": json!({"bytes": sent.whole, "new_bytes": sent.put}),
        "gap": shipped.gap.map(|(before, behind)| [before.0, behind.0]),
    })
    .to_string())
}

/// The records behind `after` through `through`, read in stretches.
fn records(
    log: &Reader<Disk>,
    mut after: Lsn,
    through: Lsn,
) -> impl Iterator<Item = io::Result<Record>> {
    let mut stretch = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(record) = stretch.next() {
                let record: Record = record;
                after = record.last_lsn();
                return (after <= through).then_some(Ok(record));
            }
            if after >= through {
                return None;
            }
            match log.read(after, limits::APPEND_BYTES) {
                Ok(records) if records.is_empty() => return None,
                Ok(records) => stretch = records.into_iter(),
                Err(error) => return Some(Err(read_error(error))),
            }
        }
    })
}
