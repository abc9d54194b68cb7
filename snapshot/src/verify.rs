//! Proves an archive: reads every byte of it, and says what can be restored and what cannot.
//!
//! Each snapshot and each piece of log is read whole, and what a snapshot holds is summed up and
//! held against its head: sound bytes of a state that memory had damaged are damage, too. Of an
//! encrypted one that no identity opens only that is proved which takes no key: that the bytes are
//! those that were put, and its head.
//! Where two of them speak of the same LSN they must name the same chain value. Then every
//! history's log is followed from each snapshot: what is unbroken up to the newest record is a
//! restore point; each hole is named by LSN and time.

mod finding;
mod glance;

use crate::archive::read_log;
use crate::catalogue::{self, Catalogue, HistoryEntry, LogEntry, SnapshotEntry, Unreadable};
use crate::manifest::Named;
use crate::part;
use crate::plan::{Lineage, Point, Reach};
use crate::read::side_by_side;
use crate::seal::{Identities, RecipientsId};
use crate::sealed::fetch_snapshot;
use crate::segment;
use crate::store::{Shared, join};
use crate::{Header, SegmentRef};
use bytes::Bytes;
use standfast_wal::{Chain, ClusterId, History, Lsn};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use finding::Finding;
pub use glance::glance;

/// What a part of a state counts in its digest and its counts: all parts together are what the
/// head says. Sums wrap.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Share {
    pub digest: u128,
    pub counts: [u64; 2],
}

impl Share {
    pub fn add(&mut self, other: Share) {
        self.digest = self.digest.wrapping_add(other.digest);
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.wrapping_add(more);
        }
    }
}

/// What is in a snapshot, to whom its blocks are more than bytes. The errors are damage.
pub trait Contents: Sync {
    fn block(&self, block: &[u8]) -> Result<Share, String>;
    fn segment(&self, reference: &SegmentRef, bytes: Bytes) -> Result<Share, String>;
    /// Holds all parts together against the snapshot's head.
    fn confirm(&self, header: &Header, sum: Share) -> Result<(), String>;
}

/// One stretch of points that can all be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The LSN of the snapshot it starts with; `None`: from nothing.
    pub snapshot_lsn: Option<Lsn>,
    pub from: Point,
    pub to: Point,
}

/// What was proved of one history, with its share of those that it forked from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryReport {
    pub history: History,
    /// The newest point known, reachable or not.
    pub newest: Option<Point>,
    /// By where they start.
    pub ranges: Vec<Range>,
    /// The last Attestation that a restore reaches: proof by digest ends there.
    pub attested_lsn: Lsn,
    pub findings: Vec<Finding>,
}

/// What was proved of one cluster's archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub histories: Vec<HistoryReport>,
    /// Files read.
    pub files: u64,
    pub file_bytes: u64,
    /// Encrypted objects that were not opened, by whom they are for: they are there, and as they
    /// were put.
    pub unopened: BTreeMap<RecipientsId, u64>,
}

impl HistoryReport {
    /// The newest point is restorable and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// The newest point is not in reach.
    fn is_cut_off(&self) -> bool {
        let newest = self.newest.map_or(Lsn::ZERO, |newest| newest.lsn);
        self.ranges.iter().all(|range| range.to.lsn < newest)
    }
}

/// What was found in the files of each history.
type Found = BTreeMap<History, Vec<Finding>>;

impl Report {
    /// Of which nothing was read yet.
    fn of(catalogue: &Catalogue) -> Report {
        Report {
            cluster: catalogue.cluster,
            cluster_name: catalogue.cluster_name.clone(),
            histories: Vec::new(),
            files: 0,
            file_bytes: 0,
            unopened: BTreeMap::new(),
        }
    }

    /// Says what can be restored of each history, now that what is damaged is known of all.
    fn conclude(mut self, catalogue: &Catalogue, mut found: Found) -> Report {
        for entry in &catalogue.histories {
            let found = found.remove(&entry.history).unwrap_or_default();
            let proved = prove_lineage(catalogue, entry.history, found);
            self.histories.push(proved);
        }
        self
    }

    /// Whether another snapshot mends what can be mended: damage in what snapshots share, or that
    /// the newest point is not in reach.
    pub fn wants_snapshot(&self) -> bool {
        let of = |one: &HistoryReport| one.history.generation;
        let newest = self.histories.iter().map(of).max();
        let mut current = self.histories.iter().filter(|one| Some(of(one)) == newest);
        let mut findings = self.histories.iter().flat_map(|one| &one.findings);
        findings.any(Finding::is_mended) || current.any(HistoryReport::is_cut_off)
    }

    pub fn is_sound(&self) -> bool {
        !self.histories.is_empty() && self.histories.iter().all(HistoryReport::is_sound)
    }
}

/// Reads and proves everything that the archive in `store` has of `cluster`, with `threads`
/// threads; `contents` knows what is in a snapshot. An error is one of a store that does not
/// answer; what is wrong with an object is a finding.
pub fn verify(
    store: &Shared,
    cluster: ClusterId,
    threads: usize,
    identities: &Identities,
    contents: &dyn Contents,
) -> crate::Result<Report> {
    let mut catalogue = catalogue::read(store, cluster)?;
    let mut report = Report::of(&catalogue);
    let mut findings = Found::new();
    let mut proof = Proof {
        store: Arc::clone(store),
        identities,
        threads,
        contents,
        sound: BTreeMap::new(),
        locked: BTreeMap::new(),
    };
    for entry in &mut catalogue.histories {
        let found = proof.prove_files(entry, &mut report)?;
        findings.insert(entry.history, found);
    }
    Ok(report.conclude(&catalogue, findings))
}

/// What was read of a cluster's archive so far, and with whose keys.
struct Proof<'a> {
    store: Shared,
    identities: &'a Identities,
    threads: usize,
    contents: &'a dyn Contents,
    /// The segments that need not be read again, by path; `None`: it could not be opened.
    sound: BTreeMap<String, Option<Share>>,
    /// What was not opened of the history at hand.
    locked: BTreeMap<RecipientsId, u64>,
}

impl Proof<'_> {
    /// Reads each file of one history.
    fn prove_files(
        &mut self,
        entry: &mut HistoryEntry,
        report: &mut Report,
    ) -> crate::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut damaged: Vec<Unreadable> = Vec::new();
        let probes = Probes::of(entry);
        for snapshot in &entry.snapshots {
            report.files += 1;
            report.file_bytes += snapshot.file_bytes;
            let proved = self.prove_snapshot(snapshot, report);
            let lsn = snapshot.link.position.lsn;
            damaged.extend(refused(&snapshot.path, (lsn, lsn), proved)?);
        }
        for log in &entry.logs {
            report.files += 1;
            report.file_bytes += log.head.file_bytes();
            let read = read_log(&*self.store, &log.path, self.identities);
            let ends = match read {
                Ok((_, records)) => {
                    let ends = records.iter().map(|r| (r.last_lsn(), r.chain()));
                    Ok(ends.collect())
                }
                Err(error) if self.is_locked(&error) => {
                    Ok(vec![(log.head.last_lsn(), log.head.end.chain)])
                }
                Err(error) => Err(error),
            };
            match ends {
                Ok(ends) => probes.check(log, ends, &mut findings),
                Err(error) => {
                    let lsns = (log.head.first_lsn, log.head.last_lsn());
                    damaged.extend(refused(&log.path, lsns, Err(error))?);
                }
            }
        }
        findings.extend(conclude(entry, damaged));
        for (recipients, objects) in std::mem::take(&mut self.locked) {
            *report.unopened.entry(recipients).or_default() += objects;
            if !self.identities.is_empty() {
                findings.push(Finding::Locked {
                    recipients,
                    objects,
                });
            }
        }
        Ok(findings)
    }

    /// Proves a snapshot and its segments; the error names the first that is damaged or not there.
    fn prove_snapshot(
        &mut self,
        snapshot: &SnapshotEntry,
        report: &mut Report,
    ) -> crate::Result<()> {
        let (mut reader, mut sum) = (None, Some(Share::default()));
        match fetch_snapshot(&*self.store, &snapshot.path, self.identities) {
            Ok(opened) => {
                opened.check_whole()?;
                let contents = self.contents;
                let shares = opened.load(self.threads, |_, block| contents.block(block))?;
                sum.iter_mut()
                    .for_each(|sum| shares.iter().for_each(|share| sum.add(*share)));
                reader = Some(opened);
            }
            Err(error) if self.is_locked(&error) => {}
            Err(error) => return Err(error),
        }
        for share in self.prove_named(snapshot, report)? {
            sum = sum.zip(share).map(|(mut sum, share)| {
                sum.add(share);
                sum
            });
        }
        // What was not opened may hold anything.
        let (Some(reader), Some(sum)) = (reader, sum) else {
            return Ok(());
        };
        let confirmed = self.contents.confirm(reader.header(), sum);
        confirmed.map_err(|why| reader.refuse_contents(why))
    }

    /// What each of its segments and parts counts, read side by side where they were not read for
    /// another snapshot before; `None` where one could not be opened.
    fn prove_named(
        &mut self,
        snapshot: &SnapshotEntry,
        report: &mut Report,
    ) -> crate::Result<Vec<Option<Share>>> {
        let dir = &snapshot.segments_dir;
        let all = snapshot.segments.iter();
        let all = all.map(|reference| (join(dir, &reference.name()), reference));
        let all: Vec<(String, &SegmentRef)> = all.collect();
        let new: Vec<_> = all
            .iter()
            .filter(|(path, _)| !self.sound.contains_key(path))
            .collect();
        let read = side_by_side(
            self.threads,
            &new,
            || (),
            |(), (path, reference)| Ok(self.share_of(dir, path, reference)),
        )?;
        let mut failed = None;
        for ((path, reference), share) in new.into_iter().zip(read) {
            report.files += 1;
            report.file_bytes += reference.bytes;
            let share = match share {
                Ok(share) => Some(share),
                Err(error) if self.is_locked(&error) => None,
                Err(error) if error.is_unanswered() => return Err(error),
                Err(error) => {
                    failed.get_or_insert(error);
                    continue;
                }
            };
            self.sound.insert(path.clone(), share);
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(all.iter().map(|(path, _)| self.sound[path]).collect()),
        }
    }

    fn share_of(&self, dir: &str, path: &str, reference: &SegmentRef) -> crate::Result<Share> {
        let bytes = segment::fetch(&*self.store, dir, reference, self.identities)?;
        let place = self.store.place(path);
        if !reference.is_part() {
            let share = self.contents.segment(reference, bytes);
            let refused = |why| crate::Error::new(&place, None, crate::Reason::Contents(why));
            return share.map_err(refused);
        }
        let shares = part::load(&place, &bytes, |_, block| self.contents.block(block))?;
        let mut sum = Share::default();
        shares.iter().for_each(|share| sum.add(*share));
        Ok(sum)
    }

    /// Whether only a key is missing, which is noted.
    fn is_locked(&mut self, error: &crate::Error) -> bool {
        let recipients = error.locked_to();
        if let Some(recipients) = recipients {
            *self.locked.entry(recipients).or_default() += 1;
        }
        recipients.is_some()
    }
}

/// What is wrong with what was read of a history. What is damaged leaves the lists, as if it were
/// not there.
fn conclude(entry: &mut HistoryEntry, mut damaged: Vec<Unreadable>) -> Vec<Finding> {
    let mut findings = replaced(entry);
    let is_sound = |path: &String| damaged.iter().all(|bad| bad.path != *path);
    entry.snapshots.retain(|snapshot| is_sound(&snapshot.path));
    entry.logs.retain(|log| is_sound(&log.path));
    let finding = |bad: &Unreadable, is_mended| Finding::Damaged {
        path: bad.path.clone(),
        reason: bad.reason.clone(),
        is_mended,
    };
    findings.extend(entry.unreadable.iter().map(|bad| finding(bad, false)));
    let in_snapshots = |bad: &Unreadable| catalogue::is_snapshot(&bad.path);
    findings.extend(damaged.iter().map(|bad| finding(bad, in_snapshots(bad))));
    entry.unreadable.append(&mut damaged);
    findings
}

/// Plain objects that are not as any manifest that names them says. An encrypted one that was
/// damaged and put again has other bytes, and is proved by its own head.
fn replaced(entry: &HistoryEntry) -> Vec<Finding> {
    let named = entry.manifests.iter().flat_map(|manifest| &manifest.named);
    let mut known: BTreeMap<(Lsn, Lsn), Vec<&Named>> = BTreeMap::new();
    for one in named {
        known.entry((one.first, one.last)).or_default().push(one);
    }
    let snapshots = entry.snapshots.iter().filter(|s| s.recipients.is_none());
    let logs = entry
        .logs
        .iter()
        .filter(|log| log.head.recipients.is_none());
    let snapshots = snapshots.map(|s| (&s.path, s.named()));
    let logs = logs.map(|log| (&log.path, log.head.named()));
    let differs = |found: &Named| {
        let names = known.get(&(found.first, found.last));
        names.is_some_and(|names| !names.contains(&found))
    };
    let all = snapshots.chain(logs).filter(|(_, found)| differs(found));
    all.map(|(path, _)| Finding::Replaced { path: path.clone() })
        .collect()
}

/// What is refused is listed with its reason; that the store does not answer proves nothing.
fn refused(
    path: &str,
    lsns: (Lsn, Lsn),
    proved: crate::Result<()>,
) -> crate::Result<Option<Unreadable>> {
    match proved {
        Ok(()) => Ok(None),
        Err(error) if error.is_unanswered() => Err(error),
        Err(error) => Ok(Some(Unreadable {
            path: path.to_string(),
            lsns: Some(lsns),
            reason: error.to_string(),
        })),
    }
}

/// What the files' headers say of the chain, by LSN.
struct Probes(BTreeMap<Lsn, Vec<(Chain, String)>>);

impl Probes {
    fn of(entry: &HistoryEntry) -> Probes {
        let mut probes: BTreeMap<Lsn, Vec<(Chain, String)>> = BTreeMap::new();
        let ends = entry.logs.iter().map(|log| (log.head.end, &log.path));
        let snapshots = entry.snapshots.iter().map(|s| (s.link, &s.path));
        for (link, path) in snapshots.chain(ends) {
            let at = probes.entry(link.position.lsn).or_default();
            at.push((link.chain, path.clone()));
        }
        Probes(probes)
    }

    /// Holds a piece of log, the chain value before it and those at the ends of its records, as far
    /// as they are known, against what others say.
    fn check(&self, log: &LogEntry, ends: Vec<(Lsn, Chain)>, findings: &mut Vec<Finding>) {
        let start = (Lsn(log.head.first_lsn.0 - 1), log.head.before);
        let is_opened = ends.len() as u64 == log.head.records;
        let mut expected = self.0.range(start.0..).peekable();
        for (lsn, chain) in std::iter::once(start).chain(ends) {
            while let Some((at, claims)) = expected.next_if(|(at, _)| **at <= lsn) {
                // An LSN inside a record is the end of no record: no file of this history ends so.
                let differs = |(claim, _): &&(Chain, String)| {
                    *at == lsn && *claim != chain || *at != lsn && is_opened
                };
                if let Some((_, other)) = claims.iter().find(differs) {
                    findings.push(Finding::Disagreement {
                        path: log.path.clone(),
                        other: other.clone(),
                        lsn: *at,
                    });
                }
            }
        }
    }
}

/// The last Attestation on the way.
fn attested_by(reach: &Reach<'_>) -> Option<Lsn> {
    let steps = reach.steps().iter().rev();
    let mut attested = steps.map(|step| step.head.attested_lsn.min(step.through));
    attested.find(|lsn| *lsn > Lsn::ZERO)
}

fn prove_lineage(
    catalogue: &Catalogue,
    history: History,
    mut findings: Vec<Finding>,
) -> HistoryReport {
    let lineage = Lineage::of(catalogue, history).expect("it is in this catalogue");
    let reaches = lineage.reaches();
    findings.extend(lineage.gaps().into_iter().map(Finding::Hole));
    // Of one that has ended no more may be left than says how far it had come.
    if reaches.is_empty() && lineage.is_newest() {
        findings.push(Finding::Nothing);
    }
    let attested = reaches.iter().filter_map(attested_by);
    HistoryReport {
        history,
        newest: lineage.newest(),
        attested_lsn: attested.max().unwrap_or(Lsn::ZERO),
        ranges: reaches
            .iter()
            .map(|reach| Range {
                snapshot_lsn: reach.snapshot.map(|s| s.link.position.lsn),
                from: reach.from,
                to: reach.to,
            })
            .collect(),
        findings,
    }
}

#[cfg(test)]
mod tests;
