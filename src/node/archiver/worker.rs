//! An archiver at its work: takes in what it is told, does a round of the newest order, waits after
//! a failure, and says what is to be done beside it. Its shells are `node::ship` and the simulator.

use super::{Archiver, Committed, Order, Proof, Rehearsed, Standing, Upload, Verified};
use crate::limits;
use crate::node::clock::Now;
use standfast_snapshot::Shared;
use standfast_snapshot::archive::Sent;
use standfast_wal::{ClusterId, History};
use std::time::Duration;

/// What the worker is to take in next. Of orders only the newest counts, and of the jobs beside it
/// one of each kind runs: however long the store does not answer, nothing piles up.
#[derive(Default)]
pub struct Words {
    /// Another node archives, or did before the order.
    pub stand_down: bool,
    pub order: Option<Box<Order>>,
    pub uploaded: Option<Result<Sent, String>>,
    pub proved: Option<Result<Verified, String>>,
    pub drilled: Option<Result<Rehearsed, String>>,
}

impl Words {
    /// `None`: another node archives.
    pub fn order(&mut self, order: Option<Box<Order>>) {
        self.stand_down |= order.is_none();
        self.order = order;
    }

    pub fn are_none(&self) -> bool {
        let has_ended = self.uploaded.is_some() || self.proved.is_some() || self.drilled.is_some();
        !self.stand_down && self.order.is_none() && !has_ended
    }
}

/// What came of a turn.
#[derive(Default)]
pub struct Done {
    /// After a round.
    pub standing: Option<Box<Standing>>,
    pub upload: Option<Upload>,
    pub proof: Option<Proof>,
    /// Whose archive is to be restored from.
    pub drill: Option<(Shared, ClusterId)>,
}

pub struct Worker {
    archiver: Archiver,
    /// Somebody does what drills are ordered.
    may_drill: bool,
    failing: Option<Failing>,
}

/// Since when rounds fail, and when the next is tried; ns of the clock that does not jump.
struct Failing {
    since: u64,
    retry_at: u64,
    wait: Duration,
}

impl Worker {
    pub fn new(archiver: Archiver, may_drill: bool) -> Worker {
        Worker {
            archiver,
            may_drill,
            failing: None,
        }
    }

    /// Before the first order: what stands in the way of archiving here, where that is clear.
    pub fn look_around(&mut self, cluster: ClusterId, history: History) -> Option<Box<Standing>> {
        let error = self.archiver.look_around(cluster, history).err()?;
        Some(Box::new(Standing {
            error: Some(error),
            is_failing: true,
            ..Standing::default()
        }))
    }

    pub fn archiver(&self) -> &Archiver {
        &self.archiver
    }

    /// Takes in `words`, and does what they order; blocks as long as the store does.
    pub fn turn(&mut self, words: Words, log: &impl Committed, now: &dyn Fn() -> Now) -> Done {
        if let Some(result) = words.uploaded {
            self.archiver.uploaded(result);
        }
        let has_ended = words.proved.is_some() || words.drilled.is_some();
        if let Some(result) = words.proved {
            self.archiver.proved(result);
        }
        if let Some(result) = words.drilled {
            self.archiver.drilled(result);
        }
        if words.stand_down {
            self.failing = None;
            self.archiver.stand_down();
        }
        let may_try = |failing: &Failing| failing.retry_at <= now().boot;
        match words.order {
            Some(order) if self.failing.as_ref().is_none_or(may_try) => {
                self.round(&order, log, now)
            }
            // It may have been begun on duty, and another node archives by now.
            _ if has_ended => Done {
                standing: Some(self.standing(now().boot)),
                ..Done::default()
            },
            _ => Done::default(),
        }
    }

    fn standing(&self, boot: u64) -> Box<Standing> {
        let failing = self.failing.as_ref();
        let failing_for = failing.map_or(0, |failing| boot.saturating_sub(failing.since));
        Box::new(Standing {
            is_failing: Duration::from_nanos(failing_for) > limits::ARCHIVE_FAILING_AFTER,
            ..self.archiver.standing().clone()
        })
    }

    fn round(&mut self, order: &Order, log: &impl Committed, now: &dyn Fn() -> Now) -> Done {
        let is_done = self.archiver.round(order, log, now());
        self.mind(!is_done, now().boot);
        let standing = self.standing(now().boot);
        let is_well = self.failing.is_none();
        Done {
            standing: Some(standing),
            upload: is_well
                .then(|| self.archiver.upload(order, now()))
                .flatten(),
            proof: is_well.then(|| self.archiver.proof(order, now())).flatten(),
            drill: (is_well && self.may_drill)
                .then(|| self.archiver.drill(order, now()))
                .flatten()
                .map(|store| (store, order.card.cluster)),
        }
    }

    /// Waits twice as long after each failure in a row.
    fn mind(&mut self, has_failed: bool, boot: u64) {
        if !has_failed {
            self.failing = None;
            return;
        }
        let failing = self.failing.get_or_insert(Failing {
            since: boot,
            retry_at: boot,
            wait: limits::ARCHIVE_RETRY_MIN / 2,
        });
        failing.wait = (failing.wait * 2).min(limits::ARCHIVE_RETRY_MAX);
        failing.retry_at = boot + u64::try_from(failing.wait.as_nanos()).unwrap_or(u64::MAX);
    }
}
