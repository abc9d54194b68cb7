//! A part of an archive, for whoever needs no more of it: an archive of a week has some hundred
//! thousand pieces of log, and a restore looks at those between two snapshots.

use super::names::{MANIFEST_PREFIX, parse_manifest_name};
use super::{CARD_NAME, Catalogue, histories, history_dir, log_name, missing, pieces_from};
use super::{HistoryEntry, SnapshotEntry, Unreadable, read_objects, snapshot_name, snapshots_in};
use crate::Result;
use crate::error::Error;
use crate::manifest::Named;
use crate::segment::SegmentRef;
use crate::store::{Shared, Store, join};
use standfast_wal::{ClusterId, Lsn};

/// Log that is wanted: all pieces with an LSN behind `above`, up to that which holds `through`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    pub(crate) above: Lsn,
    pub(crate) through: Lsn,
}

impl Window {
    fn has(self, first: Lsn, last: Lsn) -> bool {
        last > self.above && first <= self.through
    }
}

/// The pieces of log that begin behind some LSN, so far back that one of them reaches `base`: a
/// piece is named by its first LSN, and may begin before the snapshot that lies in it. Where none
/// reaches it, all of them.
pub(crate) fn pieces_reaching(
    store: &dyn Store,
    dir: &str,
    base: Lsn,
    snapshots: &[Lsn],
) -> Result<Vec<(Lsn, Lsn)>> {
    let mut before: Vec<Lsn> = snapshots.iter().copied().filter(|s| *s < base).collect();
    before.sort_unstable();
    while let Some(from) = before.pop() {
        let pieces = pieces_from(store, dir, from)?;
        let reaches = |(first, last): &(Lsn, Lsn)| *first <= base.next() && *last >= base;
        if pieces.iter().any(reaches) {
            return Ok(pieces);
        }
    }
    pieces_from(store, dir, Lsn::ZERO)
}

/// The cards and snapshots of all histories, and no log.
pub(crate) fn read_starts(store: &Shared, cluster: ClusterId) -> Result<Catalogue> {
    let mut catalogue = Catalogue {
        cluster,
        cluster_name: String::new(),
        histories: Vec::new(),
        segments: Vec::new(),
    };
    for history in histories(&**store, cluster)? {
        let snapshots = snapshots_in(&**store, &history_dir(cluster, history))?;
        let snapshots = snapshots.into_iter().map(snapshot_name);
        let names: Vec<String> = snapshots.chain([CARD_NAME.to_string()]).collect();
        let (entry, name) = read_objects(store, cluster, history, &names)?;
        catalogue.cluster_name = name.unwrap_or(catalogue.cluster_name);
        catalogue.histories.push(entry);
    }
    Ok(catalogue)
}

impl Catalogue {
    /// Does without an object that turned out to be damaged, and without the snapshots that need
    /// it. What it held is still known to have been there.
    pub fn give_up(&mut self, path: &str, reason: &str) {
        for entry in &mut self.histories {
            let needs = |snapshot: &SnapshotEntry| {
                let of = |one: &SegmentRef| join(&snapshot.segments_dir, &one.name()) == path;
                snapshot.path == path || snapshot.segments.iter().any(of)
            };
            let snapshots = entry.snapshots.extract_if(.., |snapshot| needs(snapshot));
            let snapshots = snapshots.map(|s| (s.path, (s.link.position.lsn, s.link.position.lsn)));
            let logs = entry.logs.extract_if(.., |log| log.path == path);
            let logs = logs.map(|log| (log.path, (log.head.first_lsn, log.head.last_lsn())));
            let gone = snapshots.chain(logs).map(|(path, lsns)| Unreadable {
                path,
                lsns: Some(lsns),
                reason: reason.to_string(),
            });
            let gone: Vec<Unreadable> = gone.collect();
            entry.unreadable.extend(gone);
            entry.sort();
        }
    }
}

/// Adds to one history its log in `window`, and the newest of all, with what is missing of both.
pub(crate) fn read_window(
    store: &Shared,
    cluster: ClusterId,
    entry: &mut HistoryEntry,
    window: Window,
) -> Result<()> {
    let dir = history_dir(cluster, entry.history);
    let snapshots: Vec<Lsn> = entry
        .snapshots
        .iter()
        .map(|snapshot| snapshot.link.position.lsn)
        .collect();
    let mut pieces = pieces_reaching(&**store, &dir, window.above, &snapshots)?;
    let furthest = pieces.iter().map(|(_, last)| *last).max();
    let furthest = furthest.unwrap_or(Lsn::ZERO);
    pieces.retain(|(first, last)| window.has(*first, *last) || *last == furthest);
    let mut names: Vec<String> = pieces
        .iter()
        .map(|(first, last)| log_name(*first, *last))
        .collect();
    names.append(&mut manifests(&**store, &dir, window)?);
    let (read, _) = read_objects(store, cluster, entry.history, &names)?;
    entry.logs.extend(read.logs);
    entry.manifests.extend(read.manifests);
    entry.unreadable.extend(read.unreadable);
    let starts = snapshots.into_iter().map(snapshot_name);
    names.extend(starts.chain([CARD_NAME.to_string()]));
    let there = names.iter().map(String::as_str).collect();
    let matters = |one: &Named| window.has(one.first, one.last) || one.last > furthest;
    let missing = missing(&**store, &dir, &there, &entry.manifests, &matters)?;
    entry.unreadable.extend(missing);
    entry.sort();
    Ok(())
}

/// The manifests that may name something in `window`, and the newest.
fn manifests(store: &dyn Store, dir: &str, window: Window) -> Result<Vec<String>> {
    let behind = format!("{}{:020}", MANIFEST_PREFIX, window.above.0);
    let listed = store.list_behind(dir, &behind);
    let listed = listed.map_err(|e| Error::io(store.place(dir), e))?;
    let names = listed.into_iter().map(|one| one.name);
    let ids = names.filter_map(|name| Some((parse_manifest_name(&name)?, name)));
    let mut found: Vec<_> = ids.collect();
    found.sort_unstable();
    // The first one behind the window names its last pieces.
    let behind = found.partition_point(|(id, _)| id.lsn < window.through);
    let newest = found.pop();
    found.truncate(behind.saturating_add(1));
    Ok(found
        .into_iter()
        .chain(newest)
        .map(|(_, name)| name)
        .collect())
}
