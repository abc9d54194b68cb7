//! What may go from an archive. Pure; never the last restorable point of a history that counts.
//!
//! A history counts while it has the highest generation, or had a command within the time to keep.
//! Of each that counts the newest snapshots are kept, those young enough, and the one that the
//! oldest point within the time to keep is restored from; and all log behind the oldest of them, at
//! least its newest piece.
//! What cannot be read is never removed: somebody has to look at it first.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::catalogue::{
    Catalogue, HistoryEntry, SnapshotEntry, history_dir, manifest_name, named_name,
};
use crate::manifest::Named;
use crate::plan::{Lineage, Reach};
use crate::store::join;
use standfast_wal::{History, Lsn};
use std::collections::BTreeSet;

/// How much to keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// At least this many snapshots of each history that counts; 0 is taken for 1.
    pub keep_full: usize,
    /// Every point of the last so many nanoseconds.
    pub keep_for_ns: u64,
}

/// What may go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expiry {
    /// Those that name anything that may go, and all before them.
    pub manifests: Vec<String>,
    pub snapshots: Vec<String>,
    pub logs: Vec<String>,
    pub segments: Vec<String>,
}

impl Expiry {
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// In the order in which they may go.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.manifests
            .iter()
            .chain(&self.snapshots)
            .chain(&self.logs)
            .chain(&self.segments)
    }
}

/// Says what may go at the time `now_ns` (ns since 1970): `Catalogue::now_by` some clock.
pub fn expire(catalogue: &Catalogue, policy: Policy, now_ns: u64) -> Expiry {
    let from_ns = now_ns.saturating_sub(policy.keep_for_ns);
    let generations = catalogue.histories.iter().map(|e| e.history.generation);
    let highest = generations.max().unwrap_or(0);
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    let mut counting: BTreeSet<History> = BTreeSet::new();
    for entry in &catalogue.histories {
        let Some(lineage) = Lineage::of(catalogue, entry.history) else {
            continue;
        };
        let is_young = lineage.newest_by().is_some_and(|at| at >= from_ns);
        if entry.history.generation == highest || is_young {
            counting.insert(entry.history);
            keep(&lineage, policy, from_ns, &mut kept);
            // It says up to where the archive has come: whoever ships goes on behind it.
            let newest = entry.logs.iter().max_by_key(|log| log.head.last_lsn());
            kept.extend(newest.map(|log| log.path.as_str()));
        }
        if entry.history.generation == highest {
            kept.extend(unlisted(entry));
            // Until it has put what its founder held, that lies nowhere else.
            let owes = lineage.expected().map(|one| one.lsn) > lineage.newest().map(|one| one.lsn);
            let past = entry.ancestors.last().filter(|_| owes);
            let of = past.and_then(|past| Lineage::of(catalogue, past.history));
            if let (Some(past), Some(of)) = (past, of) {
                kept.extend(of.logs_between(past.shared, past.end));
            }
        }
    }
    let may_go = |path: &&String| !kept.contains(path.as_str());
    let all = || catalogue.histories.iter();
    let snapshots = all().flat_map(|e| e.snapshots.iter().map(|s| &s.path));
    let logs = all().flat_map(|e| e.logs.iter().map(|l| &l.path));
    let mut expiry = Expiry {
        manifests: Vec::new(),
        snapshots: snapshots.filter(may_go).cloned().collect(),
        logs: logs.filter(may_go).cloned().collect(),
        segments: unneeded(catalogue, &kept),
    };
    expiry.manifests = manifests(catalogue, &expiry, &counting);
    expiry
}

/// The manifests that name anything of what goes, and those before them: each names the one before,
/// so that only the oldest may go. All of a history that does not count any more, if anything of it
/// goes: what is left of it must not pass for all there was (`plan::Unmet::Expired`).
fn manifests(catalogue: &Catalogue, going: &Expiry, counting: &BTreeSet<History>) -> Vec<String> {
    let going: BTreeSet<&String> = going.snapshots.iter().chain(&going.logs).collect();
    let mut found = Vec::new();
    for entry in &catalogue.histories {
        let dir = history_dir(catalogue.cluster, entry.history);
        let goes = |one: &Named| going.contains(&join(&dir, &named_name(one)));
        let last = entry
            .manifests
            .iter()
            .rposition(|m| m.named.iter().any(goes));
        let own = format!("{dir}/");
        let shrinks = going.iter().any(|path| path.starts_with(&own));
        let some = match shrinks && !counting.contains(&entry.history) {
            true => &entry.manifests[..],
            false => &entry.manifests[..last.map_or(0, |last| last + 1)],
        };
        found.extend(some.iter().map(|m| join(&dir, &manifest_name(m.id))));
    }
    found
}

/// What no manifest names yet: whoever ships is about to put one that does.
fn unlisted(entry: &HistoryEntry) -> impl Iterator<Item = &str> {
    let newest = entry.manifests.last().map(|newest| newest.id);
    let newest = newest.unwrap_or_default();
    let logs = entry.logs.iter();
    let logs = logs.filter(move |log| log.head.last_lsn() > newest.lsn);
    let snapshots = entry.snapshots.iter();
    let snapshots = snapshots.filter(move |one| one.link.position.lsn > newest.snapshot_lsn);
    let paths = logs.map(|log| &log.path);
    paths
        .chain(snapshots.map(|one| &one.path))
        .map(String::as_str)
}

/// The segments that no snapshot of those kept refers to; none where a file cannot be read, for it
/// may refer to any of them.
fn unneeded(catalogue: &Catalogue, kept: &BTreeSet<&str>) -> Vec<String> {
    let all = || catalogue.histories.iter();
    if all().any(|entry| !entry.unreadable.is_empty()) {
        return Vec::new();
    }
    let snapshots = all().flat_map(|entry| &entry.snapshots);
    let needed = snapshots.filter(|snapshot| kept.contains(snapshot.path.as_str()));
    let needed = needed.flat_map(SnapshotEntry::segment_paths);
    let needed: BTreeSet<String> = needed.collect();
    let unneeded = catalogue.segments.iter();
    unneeded
        .filter(|path| !needed.contains(*path))
        .cloned()
        .collect()
}

fn keep<'a>(lineage: &Lineage<'a>, policy: Policy, from_ns: u64, kept: &mut BTreeSet<&'a str>) {
    let reaches = lineage.reaches();
    let count = reaches.len();
    let furthest = reaches.iter().map(|reach| reach.to.lsn).max();
    let base = reaches
        .iter()
        .rposition(|reach| reach.from.timestamp.is_none_or(|at| at <= from_ns));
    let is_kept = |i: usize, reach: &Reach<'_>| {
        let is_recent = i + policy.keep_full.max(1) >= count;
        let is_young = reach.from.timestamp.is_none_or(|at| at >= from_ns);
        is_recent || is_young || base == Some(i)
    };
    let mut oldest: Option<Lsn> = None;
    for (i, reach) in reaches.iter().enumerate() {
        // The last start from which the furthest point is reached is needed whatever its age.
        let is_last_resort = Some(reach.to.lsn) == furthest
            && reaches[i + 1..].iter().all(|r| Some(r.to.lsn) != furthest);
        if is_kept(i, reach) || is_last_resort {
            kept.extend(reach.snapshot.map(|s| s.path.as_str()));
            oldest.get_or_insert(reach.snapshot.map_or(Lsn::ZERO, |s| s.link.position.lsn));
        }
    }
    // Without anything to restore from, nothing is known to be useless.
    let oldest = oldest.unwrap_or(Lsn::ZERO);
    kept.extend(lineage.logs_behind(oldest));
}

#[cfg(test)]
mod tests;
