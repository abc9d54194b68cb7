//! What one history gives to a lineage: its snapshots and pieces of log between two LSNs.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use super::{Point, Step};
use crate::catalogue::{HistoryEntry, SnapshotEntry};
use standfast_wal::{Chain, Link, Lsn, Position};

/// One history's share of a lineage: LSNs above `above` up to `through`; and log from further back,
/// where its founder put again what its ancestor's archive lacks.
pub(super) struct Segment<'a> {
    pub(super) entry: Option<&'a HistoryEntry>,
    pub(super) above: Lsn,
    pub(super) through: Lsn,
    /// For each piece of log, the one that reaches furthest among it and those before it.
    furthest: Vec<usize>,
}

impl<'a> Segment<'a> {
    pub(super) fn new(entry: Option<&'a HistoryEntry>, above: Lsn, through: Lsn) -> Segment<'a> {
        let mut furthest: Vec<usize> = Vec::new();
        for (i, log) in entry.iter().flat_map(|e| &e.logs).enumerate() {
            let best = furthest.last().copied().filter(|best| {
                entry.is_some_and(|e| e.logs[*best].head.last_lsn() >= log.head.last_lsn())
            });
            furthest.push(best.unwrap_or(i));
        }
        Segment {
            entry,
            above,
            through,
            furthest,
        }
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = &'a SnapshotEntry> {
        let all = self.entry.iter().flat_map(|e| &e.snapshots);
        let (above, through) = (self.above, self.through);
        all.filter(move |s| above <= s.link.position.lsn && s.link.position.lsn <= through)
    }

    /// The number of the piece that goes on right behind `lsn`, if its chain fits.
    pub(super) fn next(&self, lsn: Lsn, chain: Option<Chain>) -> Option<usize> {
        let entry = self.entry?;
        let wanted = lsn.next();
        let behind = entry.logs.partition_point(|l| l.head.first_lsn <= wanted);
        let at = self.furthest[behind.checked_sub(1)?];
        let head = entry.logs[at].head;
        let breaks = head.first_lsn == wanted && chain.is_some_and(|c| c != head.before);
        if head.last_lsn() < wanted || breaks {
            return None;
        }
        Some(at)
    }

    pub(super) fn step(&self, at: usize) -> Step {
        let log = &self.entry.expect("a piece was found there").logs[at];
        Step {
            path: log.path.clone(),
            head: log.head,
            through: log.head.last_lsn().min(self.through),
        }
    }

    /// Every place where following the log can begin: a snapshot, the front of a piece.
    pub(super) fn starts(&self) -> Vec<(Link, Point)> {
        let snapshots = self.snapshots().map(|s| {
            let point = Point {
                lsn: s.link.position.lsn,
                timestamp: Some(s.link.timestamp),
            };
            (s.link, point)
        });
        let logs = self.entry.iter().flat_map(|e| &e.logs).map(|log| {
            let head = &log.head;
            let link = Link {
                position: Position {
                    epoch: head.first_epoch,
                    lsn: Lsn(head.first_lsn.0 - 1),
                },
                chain: head.before,
                timestamp: 0,
            };
            let point = Point {
                lsn: head.first_lsn,
                timestamp: Some(head.first_timestamp),
            };
            (link, point)
        });
        let all = snapshots.chain(logs);
        all.filter(|(_, point)| point.lsn <= self.through).collect()
    }

    /// No point of it is later (ns since 1970). What cannot be read may be of any time.
    pub(super) fn latest_ns(&self) -> Option<u64> {
        let entry = self.entry?;
        let is_inside = |first: Lsn| first <= self.through;
        let snapshots = self.snapshots().map(|s| s.link.timestamp);
        let logs = entry
            .logs
            .iter()
            .filter(|log| is_inside(log.head.first_lsn));
        let logs = logs.map(|log| log.head.end.timestamp);
        let unknown = entry.unreadable.iter().filter_map(|one| one.lsns);
        let unknown = unknown.filter(|(first, _)| is_inside(*first));
        snapshots.chain(logs).chain(unknown.map(|_| u64::MAX)).max()
    }

    pub(super) fn known(&self) -> Vec<Point> {
        let mut points: Vec<Point> = self
            .snapshots()
            .map(|s| Point {
                lsn: s.link.position.lsn,
                timestamp: Some(s.link.timestamp),
            })
            .collect();
        let (above, through) = (self.above, self.through);
        for log in self.entry.iter().flat_map(|e| &e.logs) {
            let last = log.head.last_lsn();
            points.push(Point {
                lsn: last.min(through),
                timestamp: (last <= through).then_some(log.head.end.timestamp),
            });
        }
        for (_, last) in self
            .entry
            .iter()
            .flat_map(|e| &e.unreadable)
            .filter_map(|u| u.lsns)
        {
            points.push(Point {
                lsn: last.min(through),
                timestamp: None,
            });
        }
        points.retain(|point| point.lsn >= above && point.lsn > Lsn::ZERO);
        points
    }
}
