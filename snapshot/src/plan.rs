//! What a restore to a target reads: one snapshot, and pieces of log in order. Pure.
//!
//! A history that forked from others owns their log up to the fork; `Lineage` strings them
//! together. From every snapshot (and from nothing, where the log reaches back to LSN 1) the log is
//! followed as far as it goes on unbroken: that is a `Reach`. A target inside a reach is met
//! exactly; any other is refused with the nearest points on both sides, never moved to one of them.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod share;

use crate::catalogue::{Catalogue, HistoryEntry, SnapshotEntry};
use crate::object::LogHead;
use share::Segment;
use standfast_wal::{Ancestor, History, Link, Lsn};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// What to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// All that the archive is known to hold; refused if part of that cannot be reached.
    Latest,
    /// The state right after this LSN.
    Lsn(Lsn),
    /// Every command up to and including this time (ns since 1970), none later.
    Time(u64),
}

/// A state that can be named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Point {
    pub lsn: Lsn,
    /// ns since 1970 of the command at that LSN; `None` where only reading the log would tell.
    pub timestamp: Option<u64>,
}

/// Where the replay stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After this LSN.
    Lsn(Lsn),
    /// Before the first command later than this time.
    Time(u64),
}

/// One piece of log to be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub path: String,
    pub head: LogHead,
    /// Commands behind this LSN belong to a past that was given up; a record may be cut by it.
    pub through: Lsn,
}

/// What a restore does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The history restored.
    pub history: History,
    /// What it forked from, oldest first.
    pub ancestors: Vec<Ancestor>,
    /// Where it starts; `None`: from nothing, LSN 1 is in the first step.
    pub snapshot: Option<SnapshotEntry>,
    pub steps: Vec<Step>,
    pub stop: Stop,
    /// Up to this time the log followed is known to miss no command. `None`: it ends inside a
    /// record, and only the replay can tell whether a target by time was met.
    pub complete_until: Option<u64>,
    /// The newest point known of this history (`Lineage::expected`).
    pub newest: Point,
}

/// From where to where the log can be followed without a break.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach<'a> {
    /// `None`: from nothing.
    pub snapshot: Option<&'a SnapshotEntry>,
    /// The first state that can be had.
    pub from: Point,
    /// The last one.
    pub to: Point,
    /// Where it goes along, from its first step on. Many snapshots lie on one way.
    way: Rc<Vec<Step>>,
    first: usize,
    /// The LSN at which the replay starts; 0 from nothing.
    start: Lsn,
    /// An upper bound of the last command's time, where its exact time is not known.
    latest_timestamp: u64,
}

/// A hole in the log: nothing between these two points.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The last point before it.
    pub after: Point,
    /// The first one behind it; `None` if nothing readable is behind it.
    pub before: Option<Point>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.before {
            Some(before) if before.lsn == self.after.lsn.next() => {
                write!(f, "the chain breaks between {} and {before}", self.after)
            }
            Some(before) => write!(f, "no log between {} and {before}", self.after),
            None => write!(f, "no readable log behind {}", self.after),
        }
    }
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unmet {
    /// The archive holds nothing of the cluster or of the history asked for.
    Nothing,
    /// Several histories have the highest generation: somebody must choose.
    Ambiguous(Vec<History>),
    /// Nothing says how far this history had come, which has ended: what is left of it may be what
    /// a later one needs, the rest having expired.
    Expired { newest: Point },
    /// The target is in a hole, or outside of what there is.
    Between {
        below: Option<Point>,
        above: Option<Point>,
        newest: Point,
    },
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::Nothing => write!(f, "the archive holds nothing to restore"),
            Unmet::Ambiguous(histories) => {
                write!(
                    f,
                    "several histories have the highest generation, choose one:"
                )?;
                histories.iter().try_for_each(|one| write!(f, " {one}"))
            }
            Unmet::Expired { newest } => write!(
                f,
                "this history has ended, and nothing says how far it had come: what is left of it, \
                 up to {newest}, may be what a later history needs, the rest having expired"
            ),
            Unmet::Between {
                below,
                above,
                newest,
            } => {
                write!(
                    f,
                    "the target cannot be met exactly; the nearest restorable points are "
                )?;
                match (below, above) {
                    (Some(below), Some(above)) => write!(f, "{below} and {above}")?,
                    (Some(one), None) | (None, Some(one)) => write!(f, "{one}")?,
                    (None, None) => write!(f, "none")?,
                }
                write!(f, "; the newest known is {newest}")
            }
        }
    }
}

impl std::error::Error for Unmet {}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timestamp {
            Some(ns) => write!(f, "lsn:{} (time {ns} ns)", self.lsn),
            None => write!(f, "lsn:{}", self.lsn),
        }
    }
}

/// Up to where each ancestor's log is surely that of a history, too, oldest first. A restore may
/// have gone back behind an earlier fork: the lowest one counts.
pub(crate) fn shares(ancestors: &[Ancestor]) -> impl Iterator<Item = (History, Lsn)> {
    ancestors.iter().enumerate().map(|(i, ancestor)| {
        let forks = ancestors[i..].iter().map(|one| one.shared);
        (ancestor.history, forks.min().expect("at least this one"))
    })
}

/// A history with the shares of those that it forked from.
pub struct Lineage<'a> {
    pub history: History,
    pub ancestors: &'a [Ancestor],
    /// No other has a higher generation: nothing has ended it.
    is_newest: bool,
    segments: Vec<Segment<'a>>,
}

impl<'a> Lineage<'a> {
    /// Whether nothing has ended it: no other history has a higher generation.
    pub fn is_newest(&self) -> bool {
        self.is_newest
    }

    /// `None` if the archive has no such history.
    pub fn of(catalogue: &'a Catalogue, history: History) -> Option<Lineage<'a>> {
        let find = |history| catalogue.histories.iter().find(|e| e.history == history);
        let tip = find(history)?;
        let mut segments = Vec::new();
        let mut above = Lsn::ZERO;
        for (ancestor, through) in shares(&tip.ancestors) {
            segments.push(Segment::new(find(ancestor), above, through));
            above = above.max(through);
        }
        segments.push(Segment::new(Some(tip), above, Lsn(u64::MAX)));
        let mut generations = catalogue.histories.iter().map(|e| e.history.generation);
        Some(Lineage {
            history,
            ancestors: &tip.ancestors,
            is_newest: generations.all(|other| other <= history.generation),
            segments,
        })
    }

    /// The newest point that the archive is known to hold, reachable or not, readable or not.
    pub fn newest(&self) -> Option<Point> {
        let points = self.segments.iter().flat_map(Segment::known);
        points.max_by_key(|point| (point.lsn, point.timestamp))
    }

    /// The newest point that there was to be archived, as far as anything tells: what the archive
    /// holds, and the end of the log that the history was founded on, which it puts there.
    pub fn expected(&self) -> Option<Point> {
        let founded = self.ancestors.last().map(|past| Point {
            lsn: past.end,
            timestamp: None,
        });
        let founded = founded.filter(|point| point.lsn > Lsn::ZERO);
        let points = self.newest().into_iter().chain(founded);
        points.max_by_key(|point| (point.lsn, point.timestamp))
    }

    /// An upper bound (ns since 1970) of the newest point's time; `None`: there is no point.
    pub(crate) fn newest_by(&self) -> Option<u64> {
        self.segments.iter().filter_map(Segment::latest_ns).max()
    }

    /// What can be restored, by where it starts.
    pub fn reaches(&self) -> Vec<Reach<'a>> {
        let mut found = Vec::new();
        let mut ways = Ways::new();
        let origin = self.follow(Link::default(), &mut ways);
        if let Some(first) = origin.steps().first() {
            let from = Point {
                lsn: first.head.first_lsn,
                timestamp: Some(first.head.first_timestamp),
            };
            found.push(Reach { from, ..origin });
        }
        for segment in &self.segments {
            for snapshot in segment.snapshots() {
                let reach = self.follow(snapshot.link, &mut ways);
                found.push(Reach {
                    snapshot: Some(snapshot),
                    ..reach
                });
            }
        }
        found.sort_by_key(|reach| reach.from.lsn);
        found
    }

    /// The holes between the first and the newest point.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let Some((start, _)) = self.next_start(None) else {
            return gaps;
        };
        let mut ways = Ways::new();
        let mut to = self.follow(start, &mut ways).to;
        while let Some((start, before)) = self.next_start(Some(to.lsn)) {
            gaps.push(Gap {
                after: to,
                before: Some(before),
            });
            to = self.follow(start, &mut ways).to;
        }
        // One that has ended puts nothing more.
        let known = match self.is_newest {
            true => self.expected(),
            false => self.newest(),
        };
        if known.is_some_and(|newest| newest.lsn > to.lsn) {
            gaps.push(Gap {
                after: to,
                before: None,
            });
        }
        gaps
    }

    /// The pieces of log that hold something of this lineage behind `lsn`.
    pub(crate) fn logs_behind(&self, lsn: Lsn) -> impl Iterator<Item = &'a str> {
        self.logs_between(lsn, Lsn(u64::MAX))
    }

    /// As `logs_behind`, no further than `through`.
    pub(crate) fn logs_between(&self, lsn: Lsn, through: Lsn) -> impl Iterator<Item = &'a str> {
        self.segments.iter().flat_map(move |segment| {
            let through = segment.through.min(through);
            let logs = segment.entry.into_iter().flat_map(|e| &e.logs);
            logs.filter(move |l| l.head.last_lsn() > lsn && l.head.first_lsn <= through)
                .map(|log| log.path.as_str())
        })
    }

    /// Where the log can be taken up again behind `lsn` (from the start if `None`), and the first
    /// point to be had there.
    fn next_start(&self, behind: Option<Lsn>) -> Option<(Link, Point)> {
        let starts = self.segments.iter().flat_map(Segment::starts);
        let later = starts.filter(|(_, point)| behind.is_none_or(|lsn| point.lsn > lsn));
        later.min_by_key(|(link, point)| (link.position.lsn, point.lsn))
    }

    /// Follows the log from `start` as far as it is unbroken; where others have gone along before,
    /// with them.
    fn follow(&self, start: Link, ways: &mut Ways) -> Reach<'a> {
        let from = Point {
            lsn: start.position.lsn,
            timestamp: Some(start.timestamp),
        };
        let mut reach = Reach {
            snapshot: None,
            from,
            to: from,
            way: Rc::default(),
            first: 0,
            start: start.position.lsn,
            latest_timestamp: start.timestamp,
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut places: Vec<Place> = Vec::new();
        // The chain value at `reach.to`; `None` inside a record, where only replay can tell.
        let mut chain = Some(start.chain);
        'way: for (number, segment) in self.segments.iter().enumerate() {
            while segment.through > reach.to.lsn {
                // Where it breaks off a later history may have put it again: what both share.
                let Some(at) = segment.next(reach.to.lsn, chain) else {
                    continue 'way;
                };
                let place = (number, at);
                if let (true, Some((way, first))) = (steps.is_empty(), ways.get(&place)) {
                    reach.way = Rc::clone(way);
                    reach.first = *first;
                    if let Some(last) = way.last() {
                        reach.go(last);
                    }
                    return reach;
                }
                let step = segment.step(at);
                reach.go(&step);
                chain = step.is_whole().then_some(step.head.end.chain);
                steps.push(step);
                places.push(place);
            }
        }
        reach.way = Rc::new(steps);
        for (first, place) in places.into_iter().enumerate() {
            ways.insert(place, (Rc::clone(&reach.way), first));
        }
        reach
    }
}

/// A piece of log in a lineage: the number of its segment, and its own there.
type Place = (usize, usize);

/// The ways that were followed, by the pieces on them: each is followed once, however many
/// snapshots lie on it.
type Ways = BTreeMap<Place, (Rc<Vec<Step>>, usize)>;

impl Step {
    /// No record of it is cut by a fork.
    fn is_whole(&self) -> bool {
        self.through == self.head.last_lsn()
    }
}

/// The history to restore when nobody named one: that of the highest generation.
pub fn newest_history(catalogue: &Catalogue) -> Result<History, Unmet> {
    let generations = catalogue.histories.iter().map(|e| e.history.generation);
    let highest = generations.max().ok_or(Unmet::Nothing)?;
    let histories = catalogue.histories.iter().map(|e| e.history);
    let newest: Vec<History> = histories.filter(|h| h.generation == highest).collect();
    match newest[..] {
        [one] => Ok(one),
        _ => Err(Unmet::Ambiguous(newest)),
    }
}

/// Whether what is there of a history may end before it did: `retention` leaves of one that has
/// ended what others need, and no manifest.
fn is_cut_short(catalogue: &Catalogue, history: History) -> bool {
    let own = catalogue.histories.iter().find(|e| e.history == history);
    let has_ended = |one: &HistoryEntry| one.history.generation > history.generation;
    own.is_some_and(|own| own.manifests.is_empty()) && catalogue.histories.iter().any(has_ended)
}

/// Says what a restore of `history` (the newest if `None`) to `target` reads.
pub fn plan(
    catalogue: &Catalogue,
    history: Option<History>,
    target: Target,
) -> Result<Plan, Unmet> {
    let history = history.map_or_else(|| newest_history(catalogue), Ok)?;
    let lineage = Lineage::of(catalogue, history).ok_or(Unmet::Nothing)?;
    let newest = lineage.expected().ok_or(Unmet::Nothing)?;
    let stop = match target {
        Target::Latest if is_cut_short(catalogue, history) => {
            let newest = lineage.newest().ok_or(Unmet::Nothing)?;
            return Err(Unmet::Expired { newest });
        }
        Target::Latest => Stop::Lsn(newest.lsn),
        Target::Lsn(lsn) => Stop::Lsn(lsn),
        Target::Time(ns) => Stop::Time(ns),
    };
    let reaches = lineage.reaches();
    // The latest start has the least to replay.
    let met = reaches.iter().rev().find(|reach| reach.contains(stop));
    let Some(reach) = met else {
        return Err(nearest(&reaches, stop, newest));
    };
    let is_needed = |step: &&Step| match stop {
        Stop::Lsn(lsn) => reach.start < lsn && step.head.first_lsn <= lsn,
        Stop::Time(ns) => step.head.first_timestamp <= ns,
    };
    Ok(Plan {
        history,
        ancestors: lineage.ancestors.to_vec(),
        snapshot: reach.snapshot.cloned(),
        steps: reach.steps().iter().filter(is_needed).cloned().collect(),
        stop,
        complete_until: reach.to.timestamp,
        newest,
    })
}

impl Reach<'_> {
    /// The pieces of log that are replayed, in order.
    pub fn steps(&self) -> &[Step] {
        &self.way[self.first..]
    }

    fn go(&mut self, step: &Step) {
        self.latest_timestamp = step.head.end.timestamp;
        self.to = Point {
            lsn: step.through,
            timestamp: step.is_whole().then_some(step.head.end.timestamp),
        };
    }

    fn contains(&self, stop: Stop) -> bool {
        match stop {
            Stop::Lsn(lsn) => self.from.lsn <= lsn && lsn <= self.to.lsn,
            // A time behind `to` has a state too, but which one, only later log would tell.
            Stop::Time(ns) => {
                self.from.timestamp.is_some_and(|from| from <= ns) && ns <= self.latest_timestamp
            }
        }
    }
}

fn nearest(reaches: &[Reach<'_>], stop: Stop, newest: Point) -> Unmet {
    let is_below = |point: &Point| match stop {
        Stop::Lsn(lsn) => point.lsn < lsn,
        Stop::Time(ns) => point.timestamp.is_some_and(|at| at < ns),
    };
    let is_above = |point: &Point| match stop {
        Stop::Lsn(lsn) => point.lsn > lsn,
        Stop::Time(ns) => point.timestamp.is_some_and(|at| at > ns),
    };
    let points = reaches.iter().flat_map(|reach| [reach.from, reach.to]);
    Unmet::Between {
        below: points.clone().filter(is_below).max(),
        above: points.filter(is_above).min(),
        newest,
    }
}

#[cfg(test)]
mod tests;
