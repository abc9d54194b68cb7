//! Proves an archive: reads every byte of it, and says what can be restored and what cannot.
//!
//! Each snapshot and each piece of log is read whole. Where two of them speak of the same LSN they
//! must name the same chain value. Then every history's log is followed from each snapshot: what
//! is unbroken up to the newest record is a restore point; each hole is named by LSN and time.

use crate::archive::read_log;
use crate::catalogue::{self, Catalogue, HistoryEntry, Unreadable};
use crate::plan::{Gap, Lineage, Point};
use crate::read::Reader;
use crate::segment::{self, SegmentRef};
use crate::store::Shared;
use standfast_wal::{Chain, ClusterId, History, Lsn, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// What is wrong with an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The object cannot be read, or lies. The reason names its place.
    Damaged { path: String, reason: String },
    /// Two sound files tell different stories of one LSN. One of them is another history's.
    Disagreement {
        path: String,
        other: String,
        lsn: Lsn,
    },
    /// No log between these two points.
    Hole(Gap),
    /// There is nothing at all that could be restored.
    Nothing,
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
}

impl HistoryReport {
    /// The newest point is restorable and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

impl Report {
    pub fn is_sound(&self) -> bool {
        !self.histories.is_empty() && self.histories.iter().all(HistoryReport::is_sound)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damaged { reason, .. } => write!(f, "damaged: {reason}"),
            Finding::Disagreement { path, other, lsn } => write!(
                f,
                "{} and {} disagree on the record that ends at LSN {lsn}",
                path, other
            ),
            Finding::Hole(gap) => write!(f, "{gap}"),
            Finding::Nothing => write!(f, "no snapshot, and no log from LSN 1: nothing to restore"),
        }
    }
}

/// Reads and proves everything that the archive in `store` has of `cluster`, with `threads`
/// threads. An error is one of a store that does not answer; what is wrong with an object is a
/// finding.
pub fn verify(store: &Shared, cluster: ClusterId, threads: usize) -> crate::Result<Report> {
    let mut catalogue = catalogue::read(store, cluster)?;
    let mut report = Report {
        cluster,
        cluster_name: catalogue.cluster_name.clone(),
        histories: Vec::new(),
        files: 0,
        file_bytes: 0,
    };
    let mut findings = BTreeMap::new();
    let mut segments = Segments {
        store: Arc::clone(store),
        dir: catalogue.segments_dir.clone(),
        sound: BTreeSet::new(),
    };
    for entry in &mut catalogue.histories {
        let found = prove_files(entry, threads, &mut segments, &mut report)?;
        findings.insert(entry.history, found);
    }
    for entry in &catalogue.histories {
        let found = findings.remove(&entry.history).unwrap_or_default();
        report
            .histories
            .push(prove_lineage(&catalogue, entry.history, found));
    }
    Ok(report)
}

/// Reads each file of one history. What is damaged leaves the lists, as if it were not there.
fn prove_files(
    entry: &mut HistoryEntry,
    threads: usize,
    segments: &mut Segments,
    report: &mut Report,
) -> crate::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut damaged: Vec<Unreadable> = Vec::new();
    let probes = Probes::of(entry);
    for snapshot in &entry.snapshots {
        report.files += 1;
        report.file_bytes += snapshot.file_bytes;
        let proved = Reader::fetch(&*segments.store, &snapshot.path).and_then(|reader| {
            reader.check_whole()?;
            reader.load(threads, |_, _| Ok(()))?;
            segments.prove(&reader.segments()?, report)
        });
        let lsn = snapshot.link.position.lsn;
        let unreadable = refused(&snapshot.path, (lsn, lsn), proved)?;
        damaged.extend(unreadable);
    }
    for log in &entry.logs {
        report.files += 1;
        match read_log(&*segments.store, &log.path) {
            Ok((head, records)) => {
                report.file_bytes += head.file_bytes();
                probes.check(&log.path, head.before, &records, &mut findings);
            }
            Err(error) => {
                let lsns = (log.head.first_lsn, log.head.last_lsn());
                damaged.extend(refused(&log.path, lsns, Err(error))?);
            }
        }
    }
    let is_sound = |path: &String| damaged.iter().all(|bad| bad.path != *path);
    entry.snapshots.retain(|snapshot| is_sound(&snapshot.path));
    entry.logs.retain(|log| is_sound(&log.path));
    entry.unreadable.append(&mut damaged);
    for bad in &entry.unreadable {
        findings.push(Finding::Damaged {
            path: bad.path.clone(),
            reason: bad.reason.clone(),
        });
    }
    Ok(findings)
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

/// The segments of a cluster, each read once.
struct Segments {
    store: Shared,
    dir: String,
    sound: BTreeSet<SegmentRef>,
}

impl Segments {
    /// Proves what a snapshot refers to; the error names the first that is damaged or not there.
    fn prove(&mut self, named: &[SegmentRef], report: &mut Report) -> crate::Result<()> {
        for reference in named {
            if !self.sound.contains(reference) {
                report.files += 1;
                report.file_bytes += reference.bytes;
                segment::fetch(&*self.store, &self.dir, reference)?;
                self.sound.insert(*reference);
            }
        }
        Ok(())
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

    /// Holds a piece of log, and the chain value before it, against what others say.
    fn check(&self, path: &str, before: Chain, records: &[Record], findings: &mut Vec<Finding>) {
        let first = records.first().expect("a piece of log holds a record");
        let start = Lsn(first.first_lsn().0 - 1);
        let ends = records.iter().map(|r| (r.last_lsn(), r.chain()));
        let mut expected = self.0.range(start..).peekable();
        let mut reached = start;
        for (lsn, chain) in std::iter::once((start, before)).chain(ends) {
            while let Some((at, claims)) = expected.next_if(|(at, _)| **at <= lsn) {
                // An LSN inside a record is the end of no record: no file of this history ends so.
                let other = claims
                    .iter()
                    .find(|(claim, _)| *at != lsn || *claim != chain);
                if let Some((_, other)) = other {
                    findings.push(Finding::Disagreement {
                        path: path.to_string(),
                        other: other.clone(),
                        lsn: *at,
                    });
                }
            }
            reached = reached.max(lsn);
        }
        debug_assert_eq!(Some(reached), records.last().map(Record::last_lsn));
    }
}

fn prove_lineage(
    catalogue: &Catalogue,
    history: History,
    mut findings: Vec<Finding>,
) -> HistoryReport {
    let lineage = Lineage::of(catalogue, history).expect("it is in this catalogue");
    let reaches = lineage.reaches();
    findings.extend(lineage.gaps().into_iter().map(Finding::Hole));
    if reaches.is_empty() {
        findings.push(Finding::Nothing);
    }
    let attested = reaches.iter().flat_map(|reach| &reach.steps);
    let attested = attested.map(|step| step.head.attested_lsn.min(step.through));
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
