//! Restore drills that the cluster does by itself: when one is due, and what the last came to.

use crate::limits;
use crate::node::archiver::{Archiver, Order};
use crate::node::clock::Now;
use serde::{Deserialize, Serialize};
use standfast_snapshot::Shared;

/// What a drill came to, and why its report is not kept.
pub type Rehearsed = (Drilled, Option<String>);

/// What the last drill came to. The newest is the greatest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Drilled {
    /// Wall clock (ns) when it ended, or began where nothing else is known of it.
    pub at_ns: u64,
    pub passed: bool,
    pub rto_ms: Option<u64>,
    pub rpo_ms: Option<u64>,
    /// Why it did not pass, where that is known.
    pub reason: Option<String>,
}

impl Drilled {
    pub fn text(&self) -> String {
        let seconds = |ms: Option<u64>| match ms {
            Some(ms) => format!("{:.3} s", ms as f64 / 1e3),
            None => "not measured".to_string(),
        };
        let (rto, rpo) = (seconds(self.rto_ms), seconds(self.rpo_ms));
        match (self.passed, &self.reason) {
            (true, _) => format!("the restore drill passed: RTO {rto}, RPO {rpo}"),
            (false, Some(reason)) => format!("the restore drill FAILED: {reason}"),
            (false, None) => "the restore drill FAILED: see `standfast drill report`".to_string(),
        }
    }
}

impl Archiver {
    /// The archive that a drill of should begin now, if one is wanted and none is under way.
    pub fn drill(&mut self, order: &Order, now: Now) -> Option<Shared> {
        if !order.is_drill_due || self.is_drilling || now.boot < self.drill_after {
            return None;
        }
        let store = self.store.clone()?;
        let pause = limits::DRILL_RETRY.as_nanos();
        let pause = u64::try_from(pause).unwrap_or(u64::MAX);
        self.drill_after = now.boot.saturating_add(pause);
        self.is_drilling = true;
        Some(store)
    }

    /// The drill has ended, or could not be done.
    pub fn drilled(&mut self, result: Result<Rehearsed, String>) {
        self.is_drilling = false;
        match result {
            Ok((drilled, error)) => {
                self.standing.drill_error = error;
                self.standing.drilled = Some(drilled);
            }
            Err(error) => self.standing.drill_error = Some(error),
        }
    }
}
