//! The continuous archive, as the engine sees it: who archives, what it may ship, how far it is.
//!
//! The primary names one node among those that tell it that they could: a backup before itself, one
//! whose store answers before one whose store does not. Nothing depends on there being one only:
//! what two nodes put is the same (`standfast_snapshot::archive`). Only what is committed, durable
//! and applied here is handed to the archiver (I6). Every node that has an archive learns how far
//! it has come, and keeps its log until then.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod drills;
mod health;

use crate::limits;
use crate::node::archiver::{Order, Standing, follows};
use crate::node::engine::{Engine, Output};
use crate::node::wire::Head;
use crate::replication::Time;
use serde::{Deserialize, Serialize};
use standfast_snapshot::Card;
use standfast_wal::{History, Lsn, Mark, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a node was told to do for the archive.
#[derive(Clone, Debug)]
pub struct ArchiveSettings {
    pub interval: Duration,
    /// How often all of it is proved; zero: never.
    pub verify_interval: Duration,
    /// How often a restore of it is tried; zero: never.
    pub drill_interval: Duration,
    /// Writes are refused rather than log dropped that the archive lacks.
    pub required: bool,
}

/// What nodes tell each other of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Note {
    /// To the primary: this node could archive, from this log, and what its archiver knows.
    Able(Able),
    /// From the primary: who archives, and what that one knows.
    Duty {
        archiver: NodeId,
        standing: Box<Standing>,
    },
}

/// A node that could archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Able {
    pub standing: Box<Standing>,
    /// Its log begins here.
    pub first_lsn: Lsn,
    pub applied: Lsn,
    /// How old what it has may be; `None`: it cannot tell.
    pub staleness: Option<Duration>,
    /// A snapshot of its own waits to be attested.
    pub wants_attestation: bool,
}

/// Which of the nodes that could archive does, and what is known of the archive.
#[derive(Debug, Default)]
pub struct Archiving {
    /// What this node's own archiver said last.
    own: Standing,
    /// When it said last that it has been failing for some time.
    failed_at: Option<Time>,
    /// On a primary: what the others said, and when.
    able: BTreeMap<NodeId, (Time, Able)>,
    /// Who archives, and since when that was not confirmed.
    duty: Option<(NodeId, Time)>,
    /// The newest word of the node that archives.
    known: Standing,
    /// When what can be restored last became newer, by this node's own clock: ages by the wall
    /// clocks of two nodes may be wrong.
    risen: Option<Time>,
    /// When it was first wanted to know of this history.
    since: Option<(History, Time)>,
    told: Time,
    ordered: Option<Time>,
    /// What was acknowledged in this history until then has been applied here: the latest moment
    /// that this is known of. Under load a backup is mostly a few records behind what it hears of.
    complete: Option<(History, Time)>,
    /// An attestation was applied since the last order.
    has_attested: bool,
    snapshot_asked: Option<Time>,
}

/// How good a node would be at archiving; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Fitness {
    is_failing: bool,
    /// Its log begins behind the archive's end: there would be a hole.
    leaves_hole: bool,
    /// What it could ship is old.
    is_behind: bool,
    place: Place,
    id: NodeId,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Synchronous,
    Asynchronous,
    Primary,
}

impl Archiving {
    pub fn attested(&mut self) {
        self.has_attested = true;
    }
}

impl Engine {
    /// Whether this node takes part in archiving at all.
    fn may_archive(&self) -> bool {
        self.settings.archive.is_some() && !self.is_witness && !self.settings.quarantined
    }

    pub(super) fn archive_deadline(&self) -> Option<Time> {
        let told = self.archive.told.after(limits::ARCHIVE_TELL_INTERVAL);
        self.may_archive().then_some(told)
    }

    pub(super) fn archive_turn(&mut self) {
        let Some(settings) = &self.settings.archive else {
            return;
        };
        if !self.may_archive() {
            return;
        }
        let interval = settings.interval;
        let now = self.time();
        let history = self.replica.history();
        if self.archive.since.is_none_or(|(of, _)| of != history) {
            // What the archive lacks of a new history is not late yet.
            self.archive.since = Some((history, now));
            self.archive.risen = None;
        }
        self.note_complete(now);
        if self.archive.told.after(limits::ARCHIVE_TELL_INTERVAL) <= now {
            self.archive.told = now;
            self.tell_of_archive();
        }
        if !self.is_on_duty() {
            if self.archive.ordered.take().is_some() {
                self.emit(Output::Archive(None));
            }
            return;
        }
        let is_due = self
            .archive
            .ordered
            .is_none_or(|at| at.after(interval) <= now);
        if is_due || std::mem::take(&mut self.archive.has_attested) {
            self.archive.ordered = Some(now);
            let order = self.archive_order();
            self.emit(Output::Archive(Some(Box::new(order))));
        }
    }

    fn archive_order(&self) -> Order {
        let through = self.archivable();
        assert!(
            through <= self.replica.commit() && through <= self.replica.durable(),
            "I6: {through} is shipped above commit or durable"
        );
        let history = self.replica.history();
        let newest = self.copies.newest.as_ref();
        // What this node's state was held against by then: a copy that differs is not put.
        let newest = newest.filter(|newest| {
            newest.head.history == history && self.is_attested(newest.head.link.position.lsn)
        });
        Order {
            card: self.card(),
            through,
            as_of_ns: self.complete_until_ns(),
            snapshot_lsn: newest.map(|newest| newest.head.link.position.lsn),
            is_verify_due: self.is_verify_due(),
            unsound: self.unsound(),
            is_drill_due: self.is_drill_due(),
        }
    }

    /// Whose log and snapshots are shipped.
    pub(super) fn card(&self) -> Card {
        Card {
            cluster: self.identity.cluster,
            cluster_name: self.identity.cluster_name.clone(),
            history: self.replica.history(),
            ancestors: self.replica.config().ancestors.clone(),
        }
    }

    /// What was acknowledged until then this node has applied. A backup that lags must not say that
    /// nothing would be lost only because it has shipped all that it knows of.
    fn complete_until_ns(&self) -> u64 {
        let age = self.complete_age().map_or(u128::MAX, |age| age.as_nanos());
        let age = u64::try_from(age).unwrap_or(u64::MAX);
        self.now.wall.saturating_sub(age)
    }

    fn is_on_duty(&self) -> bool {
        self.archive.duty.is_some_and(|(archiver, confirmed)| {
            archiver == self.identity.node
                && confirmed.after(limits::ARCHIVE_DUTY_FOR) > self.time()
                && self.archivable() > Lsn::ZERO
        })
    }

    /// Up to where this node could ship. A node that follows a newer history still has its old log,
    /// and state, until it is cut or replaced: nothing of that is the new history's.
    fn archivable(&self) -> Lsn {
        match self.replica.has_own_log() {
            true => self.copies.applied.position.lsn,
            false => Lsn::ZERO,
        }
    }

    /// The primary chooses and tells the others; they tell the primary that they could.
    fn tell_of_archive(&mut self) {
        let (me, now) = (self.identity.node, self.time());
        let is_over = |at: Time| at.after(limits::ARCHIVE_FAILED_FOR) <= now;
        if !self.is_on_duty() && self.archive.failed_at.is_none_or(is_over) {
            self.archive.own.is_failing = false;
        }
        if !self.replica.is_primary() {
            self.archive.able.clear();
            if let Some(primary) = self.replica.primary().filter(|primary| *primary != me) {
                let able = self.able(self.archive.own.clone());
                self.send(primary, Head::Archive(Note::Able(able)));
            }
            return;
        }
        let fresh = |at: Time| at.after(limits::ARCHIVE_DUTY_FOR) > now;
        self.archive.able.retain(|_, (at, _)| fresh(*at));
        let asks = |(_, able): &(Time, Able)| able.wants_attestation;
        if self.wants_attestation() || self.archive.able.values().any(asks) {
            self.attest_again();
        }
        let archiver = self.choose();
        if self
            .archive
            .duty
            .is_none_or(|(before, _)| before != archiver)
        {
            if self.archive.duty.is_some() {
                Mark::ArchiveHanded.hit();
            }
            self.note(format!("node {archiver} archives"));
        }
        self.archive.duty = Some((archiver, now));
        let standing = match self.archive.able.get(&archiver) {
            Some((_, able)) => Standing::clone(&able.standing),
            None => self.archive.own.clone(),
        };
        self.learn_of_archive(standing);
        let standing = Box::new(self.archive.known.clone());
        let able: Vec<NodeId> = self.archive.able.keys().copied().collect();
        for to in able {
            let standing = standing.clone();
            self.send(to, Head::Archive(Note::Duty { archiver, standing }));
        }
    }

    fn able(&self, standing: Standing) -> Able {
        Able {
            standing: Box::new(standing),
            first_lsn: self.replica.first_lsn(),
            applied: self.archivable(),
            staleness: self.complete_age(),
            wants_attestation: self.wants_attestation(),
        }
    }

    /// Its newest snapshot waits for one, which may be long where nothing is written.
    fn wants_attestation(&self) -> bool {
        let history = self.replica.history();
        let newest = self.copies.newest.as_ref();
        let newest = newest.filter(|newest| newest.head.history == history);
        let waits = newest.is_some_and(|newest| !self.is_attested(newest.head.link.position.lsn));
        self.is_on_duty() && waits
    }

    fn note_complete(&mut self, now: Time) {
        let history = self.replica.history();
        let before = self.archive.complete.filter(|(of, _)| *of == history);
        let nanos = |age: Duration| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let newest = self.staleness();
        let newest = newest.map(|age| Time(now.0.saturating_sub(nanos(age))));
        let at = before.map(|(_, at)| at).max(newest);
        self.archive.complete = at.map(|at| (history, at));
    }

    fn complete_age(&self) -> Option<Duration> {
        let (_, at) = self.archive.complete?;
        Some(self.time().since(at))
    }

    /// Who should archive. The primary itself can at any time, and has what is committed.
    fn choose(&self) -> NodeId {
        let sync_set = &self.replica.config().sync_set;
        let own_first = self.replica.first_lsn();
        // Where nothing is known of the archive's end, the longer log is the better one.
        let end = self.archived().filter(|end| *end > Lsn::ZERO);
        let end = end.unwrap_or(Lsn(own_first.0.saturating_sub(1)));
        let others = self.archive.able.iter().map(|(id, (_, able))| Fitness {
            is_failing: able.standing.is_failing,
            leaves_hole: able.first_lsn > end.next(),
            is_behind: able.applied < end
                || able.applied == Lsn::ZERO
                || able
                    .staleness
                    .is_none_or(|age| age > limits::ARCHIVE_BEHIND_MAX),
            place: match sync_set.contains(id) {
                true => Place::Synchronous,
                false => Place::Asynchronous,
            },
            id: *id,
        });
        let own = Fitness {
            is_failing: self.archive.own.is_failing,
            leaves_hole: own_first > end.next(),
            is_behind: false,
            place: Place::Primary,
            id: self.identity.node,
        };
        others.fold(own, Fitness::min).id
    }

    pub(super) fn on_archive_note(&mut self, from: NodeId, note: Note) {
        if !self.may_archive() {
            return;
        }
        match note {
            Note::Able(able) => {
                let now = self.time();
                let is_archiver = self.archive.duty.is_some_and(|(id, _)| id == from);
                self.learn_of_proofs(&able.standing);
                if is_archiver && self.replica.is_primary() {
                    self.learn_of_archive(Standing::clone(&able.standing));
                }
                self.archive.able.insert(from, (now, able));
            }
            Note::Duty { archiver, standing } if self.replica.primary() == Some(from) => {
                self.archive.duty = Some((archiver, self.time()));
                if archiver != self.identity.node {
                    self.learn_of_archive(*standing);
                }
            }
            // Of a primary that is none any more.
            Note::Duty { .. } => {}
        }
    }

    /// Never back: a node that has only begun to look knows less than is true, and one that has not
    /// reached the store yet knows nothing.
    fn learn_of_archive(&mut self, standing: Standing) {
        let (history, now) = (self.replica.history(), self.time());
        self.learn_of_proofs(&standing);
        let known = &mut self.archive.known;
        if standing.history != history || standing.through < known.through {
            known.error = standing.error;
            return;
        }
        if standing.restorable_ns > known.restorable_ns {
            self.archive.risen = Some(now);
        }
        let restorable_ns = match standing.is_lost {
            true => standing.restorable_ns,
            false => standing.restorable_ns.max(known.restorable_ns),
        };
        *known = Standing {
            restorable_ns,
            verified: known.verified.take(),
            drilled: known.drilled.take(),
            ..standing
        };
    }

    /// Of proofs and drills the newest counts, whoever has done it: what was begun on duty may end
    /// when another node archives.
    fn learn_of_proofs(&mut self, standing: &Standing) {
        let (history, wall) = (self.replica.history(), self.fair_wall());
        let known = &mut self.archive.known;
        if known.history != history {
            *known = Standing {
                history,
                ..Standing::default()
            };
        }
        if standing.history != history {
            return;
        }
        if follows(&standing.verified, &known.verified, wall) {
            known.verified = standing.verified.clone();
        }
        if follows(&standing.drilled, &known.drilled, wall) {
            known.drilled = standing.drilled.clone();
        }
    }

    /// The archiver of this node has done a round.
    pub(super) fn on_archived(&mut self, standing: Standing) {
        if standing.error.is_some() && standing.error != self.archive.own.error {
            let error = standing.error.as_deref().unwrap_or_default();
            self.note(format!("archive: {error}"));
        }
        if let Some((before, behind)) = standing
            .gap
            .filter(|_| standing.gap != self.archive.own.gap)
        {
            self.note(format!(
                "archive: the log between {before} and {behind} was dropped before it was shipped; \
                 the next snapshot makes restores possible again"
            ));
        }
        self.note_verified(&standing.verified);
        self.note_drilled(&standing);
        let now = self.time();
        if standing.is_failing {
            self.archive.failed_at = Some(now);
        }
        if standing.wants_snapshot {
            let again = limits::ARCHIVE_SNAPSHOT_INTERVAL;
            let asked = self.archive.snapshot_asked;
            if asked.is_none_or(|at| at.after(again) <= now) {
                self.archive.snapshot_asked = Some(now);
                self.copies.want(None);
            }
        }
        self.archive.own = standing.clone();
        self.learn_of_proofs(&standing);
        if !self.is_on_duty() {
            return;
        }
        self.learn_of_archive(standing.clone());
        if let Some(primary) = self
            .replica
            .primary()
            .filter(|_| !self.replica.is_primary())
        {
            let able = self.able(standing);
            self.send(primary, Head::Archive(Note::Able(able)));
        }
    }

    /// Up to where the archive has this history's log; `None` where nobody waits for that.
    fn archived(&self) -> Option<Lsn> {
        if !self.may_archive() {
            return None;
        }
        let known = &self.archive.known;
        let is_ours = known.history == self.replica.history();
        Some(if is_ours { known.through } else { Lsn::ZERO })
    }

    /// More log is kept than there should be.
    fn is_log_over(&self) -> bool {
        let is_disk_full = self.free_bytes <= self.disk_bytes / 100 * limits::ARCHIVE_FREE_PERCENT;
        self.log_bytes > self.settings.wal_keep || is_disk_full
    }

    /// How far the log may be trimmed for the archive's sake.
    pub(super) fn archive_lets_go(&self) -> Lsn {
        let is_required = self.settings.archive.as_ref().is_some_and(|a| a.required);
        match self.archived() {
            Some(archived) if is_required || !self.is_log_over() => archived,
            _ => Lsn(u64::MAX),
        }
    }

    /// The archive is required, and so far behind that log would have to be dropped.
    pub(super) fn archive_holds_writes(&self) -> bool {
        let is_required = self.settings.archive.as_ref().is_some_and(|a| a.required);
        let newest = self.copies.newest.as_ref();
        let covered = newest.map_or(Lsn::ZERO, |newest| newest.head.link.position.lsn);
        is_required
            && self.is_log_over()
            && self.archived().is_some_and(|archived| archived < covered)
    }
}

/// The history that nothing is known of.
pub const NO_HISTORY: History = History {
    generation: 0,
    id: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_archiver_works_leaves_no_hole_is_near_and_is_a_backup() {
        let best = Fitness {
            is_failing: false,
            leaves_hole: false,
            is_behind: false,
            place: Place::Synchronous,
            id: NodeId(4),
        };
        let worse = [
            Fitness {
                id: NodeId(5),
                ..best
            },
            Fitness {
                place: Place::Asynchronous,
                id: NodeId(1),
                ..best
            },
            Fitness {
                place: Place::Primary,
                id: NodeId(1),
                ..best
            },
            // A node whose disk was lost is empty at first; then its log begins at a snapshot.
            Fitness {
                is_behind: true,
                id: NodeId(1),
                ..best
            },
            Fitness {
                leaves_hole: true,
                id: NodeId(1),
                ..best
            },
            Fitness {
                is_failing: true,
                id: NodeId(1),
                ..best
            },
        ];
        assert!(worse.is_sorted(), "{worse:?}");
        assert!(worse.iter().all(|one| best < *one));
    }
}
