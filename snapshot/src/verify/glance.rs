//! Looks an archive over: the heads of all that is there, whether all that should be there is, and
//! whether the log is one chain. Nothing of the rest is read, so damage in it is not seen.

use super::{Found, Probes, Report, conclude};
use crate::catalogue::{self, SnapshotEntry, Unreadable};
use crate::store::{Shared, Store, join, last_part};
use crate::{Error, Reason, Result};
use standfast_wal::ClusterId;
use std::collections::{BTreeMap, BTreeSet};

/// As `verify`, by names, lengths and heads alone; the bytes reported are those that are there.
pub fn glance(store: &Shared, cluster: ClusterId) -> Result<Report> {
    let mut catalogue = catalogue::read(store, cluster)?;
    let mut report = Report::of(&catalogue);
    let mut there = Beside::default();
    let mut findings = Found::new();
    for entry in &mut catalogue.histories {
        let found = findings.entry(entry.history).or_default();
        let probes = Probes::of(entry);
        let mut incomplete = Vec::new();
        let lengths = lengths(&**store, &catalogue::history_dir(cluster, entry.history))?;
        for log in &entry.logs {
            report.files += 1;
            report.file_bytes += log.head.file_bytes();
            let end = (log.head.last_lsn(), log.head.end.chain);
            probes.check(log, vec![end], found);
            let needed = log.head.file_bytes();
            let listed = lengths.get(last_part(&log.path)).copied();
            // It may have been put since the names were listed.
            if let Some(listed) = listed.filter(|listed| *listed != needed) {
                incomplete.push(Unreadable {
                    path: log.path.clone(),
                    lsns: Some((log.head.first_lsn, log.head.last_lsn())),
                    reason: wrong_length(&store.place(&log.path), needed, listed).to_string(),
                });
            }
        }
        for snapshot in &entry.snapshots {
            report.files += 1;
            report.file_bytes += snapshot.file_bytes;
            let lsn = snapshot.link.position.lsn;
            let lacking = there.lacking(&**store, snapshot, &mut report)?;
            incomplete.extend(lacking.map(|reason| Unreadable {
                path: snapshot.path.clone(),
                lsns: Some((lsn, lsn)),
                reason: reason.to_string(),
            }));
        }
        found.extend(conclude(entry, incomplete));
    }
    Ok(report.conclude(&catalogue, findings))
}

fn wrong_length(place: &str, needed: u64, found: u64) -> Error {
    Error::new(place, found, Reason::Truncated { needed, found })
}

/// What lies in a directory of the archive, and how long it is.
fn lengths(store: &dyn Store, dir: &str) -> Result<BTreeMap<String, u64>> {
    let listing = store.list(dir);
    let listing = listing.map_err(|error| Error::io(store.place(dir), error))?;
    let objects = listing.objects.into_iter();
    Ok(objects.map(|one| (one.name, one.bytes)).collect())
}

/// The segments and parts that lie beside the snapshots, with their lengths.
#[derive(Default)]
struct Beside {
    dirs: BTreeMap<String, BTreeMap<String, u64>>,
    counted: BTreeSet<String>,
}

impl Beside {
    /// The first of what a snapshot needs that is not there, or not as long as it was.
    fn lacking(
        &mut self,
        store: &dyn Store,
        snapshot: &SnapshotEntry,
        report: &mut Report,
    ) -> Result<Option<Error>> {
        let dir = &snapshot.segments_dir;
        if !snapshot.segments.is_empty() && !self.dirs.contains_key(dir) {
            self.dirs.insert(dir.clone(), lengths(store, dir)?);
        }
        for reference in &snapshot.segments {
            let name = reference.name();
            let path = join(dir, &name);
            // It may have been put since the names were listed.
            let found = match self.dirs[dir].get(&name) {
                Some(bytes) => Ok(*bytes),
                None => store.length(&path),
            };
            let place = store.place(&path);
            let found = match found.map_err(|error| Error::io(&place, error)) {
                Ok(found) => found,
                Err(error) if error.is_unanswered() => return Err(error),
                Err(error) => return Ok(Some(error)),
            };
            if self.counted.insert(path) {
                report.files += 1;
                report.file_bytes += found;
            }
            // How long an encrypted one is only its own head says.
            let needed = reference.bytes;
            if snapshot.recipients.is_none() && found != needed {
                return Ok(Some(wrong_length(&place, needed, found)));
            }
        }
        Ok(None)
    }
}
