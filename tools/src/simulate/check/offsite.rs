//! I6: what is in the archive was committed, and is what the nodes have applied; in the end it
//! proves sound, and reaches as far as it says.

use super::Observer;
use crate::simulate::world::{CLUSTER, MS};
use standfast::node::archiver::Standing;
use standfast_snapshot::store::Memory;
use standfast_snapshot::verify::{Finding, verify};
use standfast_snapshot::{Identities, Shared, archive, catalogue, store};
use standfast_wal::{History, Lsn};
use std::collections::{BTreeMap, BTreeSet};

/// What has been looked at. An object never changes.
#[derive(Default)]
pub struct Archived {
    seen: BTreeSet<String>,
    through: BTreeMap<History, Lsn>,
}

/// Clocks begin so far apart (ns); beside that they drift.
const SKEW: u64 = 400 * MS;

impl Observer {
    /// Something may have been put.
    pub fn archived(&mut self, store: &Memory) -> Result<(), String> {
        for name in store.names() {
            if self.archived.seen.contains(&name) || !is_log(&name) {
                continue;
            }
            let sound = Memory::default();
            let bytes = store.contents(&name).unwrap_or_default();
            sound.tamper(&name, |there| there.extend_from_slice(&bytes));
            let (head, records) = archive::read_log(&sound, &name, &Identities::default())
                .map_err(|error| format!("the archive: {error}"))?;
            let branch = self.log.branch(head.history);
            let branch = branch.ok_or_else(|| format!("{name}: of an unknown history"))?;
            let commit = self.log.true_commit(head.history);
            for record in &records {
                let lsn = record.last_lsn();
                if lsn > commit || branch.at(lsn) != Some(record) {
                    return Err(format!(
                        "I6: {name} has {record:?} up to {lsn}; committed is {commit}, there \
                         stands {:?}",
                        branch.at(lsn)
                    ));
                }
            }
            self.archived.seen.insert(name);
            let through = self.archived.through.entry(head.history).or_default();
            *through = head.last_lsn().max(*through);
        }
        Ok(())
    }

    /// An archiver, by whose clock it is `wall` now, says that everything up to some moment can be
    /// restored: what had been acknowledged by then is there. Of clocks that never jump.
    pub fn restorable(&self, now: u64, wall: u64, standing: &Standing) -> Result<(), String> {
        let history = standing.history;
        let there = self.archived.through.get(&history);
        let there = there.copied().unwrap_or_default();
        let age = wall.saturating_sub(standing.restorable_ns);
        let slack = SKEW + now / 1_000_000 * self.drift_ppm * 2;
        let told = self.told_by(history, now.saturating_sub(age + slack));
        if standing.restorable_ns > 0 && told > there {
            return Err(format!(
                "the archive has {history} up to {there}; {told} was acknowledged more than {} ms \
                 ago, and what is older than {} ms is said to be restorable",
                (age + slack) / MS,
                age / MS
            ));
        }
        Ok(())
    }

    /// The highest LSN that a client had been told of in this history by then.
    pub fn told_by(&self, history: History, time: u64) -> Lsn {
        self.log.acknowledged_by(history, time)
    }
}

/// All of the archive is sound. Log that was dropped before it was shipped leaves a hole.
pub fn is_sound(store: &Shared) -> Result<(), String> {
    let report = verify(store, CLUSTER, 1, &Identities::default());
    let report = report.map_err(|error| format!("the archive: {error}"))?;
    let findings = report.histories.iter().flat_map(|one| &one.findings);
    let mut bad = findings.filter(|one| !matches!(one, Finding::Hole(_) | Finding::Nothing));
    bad.next()
        .map_or(Ok(()), |bad| Err(format!("the archive: {bad}")))
}

/// How far the archive has the log of this history.
pub fn reach(store: &Shared, history: History) -> Lsn {
    let listed = catalogue::read(store, CLUSTER).ok();
    let histories = listed.map(|listed| listed.histories).unwrap_or_default();
    let entry = histories.iter().find(|entry| entry.history == history);
    let last = entry.and_then(|entry| entry.logs.last());
    last.map_or(Lsn::ZERO, |log| log.head.last_lsn())
}

fn is_log(name: &str) -> bool {
    store::last_part(name).starts_with("log-")
}
