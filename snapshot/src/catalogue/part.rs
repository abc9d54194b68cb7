//! A part of an archive, for whoever needs no more of it: an archive of a week has some hundred
//! thousand pieces of log, and a restore looks at those between two snapshots.

use super::names::{MANIFEST_PREFIX, parse_manifest_name};
use super::{
    CARD_NAME, Catalogue, HistoryEntry, SnapshotEntry, Unreadable, histories, history_dir,
    log_name, manifest_name, named_name, newest_manifest, pieces_from, read_objects, snapshot_name,
    snapshots_in,
};
use crate::Result;
use crate::error::Error;
use crate::manifest::Named;
use crate::store::{Shared, Store};
use standfast_wal::{ClusterId, History, Lsn};
use std::collections::BTreeSet;

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
    let mut step = 1;
    while let Some(at) = before.len().checked_sub(step) {
        let from = before[at];
        before.truncate(at);
        // Where there is a hole none will do, and each listing is longer than the last.
        step *= 2;
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

/// An object that a restore does without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    path: String,
    /// What it held, and of which history; `None`: it is neither log nor snapshot.
    held: Option<(History, (Lsn, Lsn))>,
    reason: String,
}

impl Catalogue {
    /// From when (ns since 1970) ages count: the newest command that is listed, if a clock says
    /// that it is later than that. One that is ahead makes nothing old.
    pub fn now_by(&self, wall: u64) -> u64 {
        let of = |entry: &HistoryEntry| {
            let snapshots = entry.snapshots.iter().map(|one| one.link.timestamp);
            let logs = entry.logs.iter().map(|one| one.head.end.timestamp);
            snapshots.chain(logs).max()
        };
        wall.min(self.histories.iter().filter_map(of).max().unwrap_or(0))
    }

    /// What is known here of an object that is to be done without.
    pub fn given_up(&self, path: &str, reason: &str) -> GivenUp {
        let held = self.histories.iter().find_map(|entry| {
            let mut snapshots = entry.snapshots.iter();
            let snapshot = snapshots.find(|one| one.path == path);
            let snapshot = snapshot.map(|one| (one.link.position.lsn, one.link.position.lsn));
            let mut logs = entry.logs.iter();
            let log = logs.find(|one| one.path == path);
            let log = log.map(|one| (one.head.first_lsn, one.head.last_lsn()));
            snapshot.or(log).map(|lsns| (entry.history, lsns))
        });
        GivenUp {
            path: path.to_string(),
            held,
            reason: reason.to_string(),
        }
    }

    /// Does without it, and without the snapshots that need it. What it held is still known to have
    /// been there, also where it is listed no more.
    pub fn give_up(&mut self, one: &GivenUp) {
        for entry in &mut self.histories {
            let needs = |snapshot: &SnapshotEntry| {
                snapshot.path == one.path || snapshot.segment_paths().any(|path| path == one.path)
            };
            let lsn = |s: SnapshotEntry| (s.path, (s.link.position.lsn, s.link.position.lsn));
            let snapshots = entry.snapshots.extract_if(.., |snapshot| needs(snapshot));
            let mut gone: Vec<(String, (Lsn, Lsn))> = snapshots.map(lsn).collect();
            gone.retain(|(path, _)| *path != one.path);
            let own = one.held.filter(|(history, _)| *history == entry.history);
            gone.extend(own.map(|(_, lsns)| (one.path.clone(), lsns)));
            entry.logs.retain(|log| log.path != one.path);
            entry.unreadable.retain(|there| there.path != one.path);
            let unreadable = gone.into_iter().map(|(path, lsns)| Unreadable {
                path,
                lsns: Some(lsns),
                reason: one.reason.clone(),
            });
            entry.unreadable.extend(unreadable);
            entry.sort();
        }
    }
}

/// Adds to one history its log in `window`, and the newest of all. False where a manifest tells of
/// something that matters and is missing, or was not looked at: all of the archive is to be read
/// then.
pub(crate) fn read_window(
    store: &Shared,
    cluster: ClusterId,
    entry: &mut HistoryEntry,
    window: Window,
) -> Result<bool> {
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
    let newest_start = snapshots.iter().max().copied();
    let starts = snapshots.into_iter().map(snapshot_name);
    names.extend(starts.chain([CARD_NAME.to_string()]));
    let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let matters = |one: &Named| window.has(one.first, one.last) || one.last > furthest;
    let mut named = entry.manifests.iter().flat_map(|manifest| &manifest.named);
    let is_looked_at = |one: &Named| there.contains(&*named_name(one));
    let mut told = entry.manifests.iter().map(|one| one.id.snapshot_lsn);
    if named.any(|one| matters(one) && !is_looked_at(one))
        || told.any(|lsn| lsn > newest_start.unwrap_or(Lsn::ZERO))
    {
        return Ok(false);
    }
    entry.sort();
    Ok(true)
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
    if found.is_empty() {
        let newest = newest_manifest(store, dir)?;
        return Ok(newest.map(manifest_name).into_iter().collect());
    }
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
