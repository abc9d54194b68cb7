//! `before:TRANSFER_ID`: which command created a transfer.
//!
//! A transfer that is there stays there, so along a history the answer changes once. The search
//! goes from the newest snapshot back to the first start that lacks the transfer, and from there
//! forward, as a restore does and with its proofs, to the command behind which it is there. A
//! transfer's timestamp spares most of the loading: it is not below the log time of the command
//! that created it, so a snapshot of that time or later has it.

use super::Source;
use super::rebuild::{Broken, Progress, Sought, seek};
use super::target::unmet;
use crate::cli::backup::{point, rfc3339};
use crate::cli::exit::{ExitCode, Failure};
use crate::state::ledger::record::transfer_flags;
use standfast_snapshot::Catalogue;
use standfast_snapshot::plan::{Lineage, Plan, Point, Reach, Stop, Unmet, newest_history};
use standfast_wal::Lsn;
use std::fmt;

/// How a transfer came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Created {
    pub id: u128,
    /// Of the whole command: a batch, an EXEC.
    pub lsn: Lsn,
    /// The transfer's own, ns since 1970.
    pub timestamp: u64,
}

impl Created {
    pub fn as_json(&self) -> serde_json::Value {
        serde_json::json!({
            "transfer": self.id.to_string(), "created_lsn": self.lsn,
            "timestamp": self.timestamp,
        })
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Created { id, lsn, timestamp } = self;
        let time = rfc3339(*timestamp);
        write!(
            f,
            "the command at LSN {lsn} that created transfer {id} ({time})"
        )
    }
}

/// Finds it; refuses if it came to be where nothing can be restored, or not at all.
pub fn find(
    source: &Source,
    listed: &Catalogue,
    id: u128,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Created, Broken> {
    let history = source.history.map_or_else(|| newest_history(listed), Ok);
    let lineage = history.map(|history| Lineage::of(listed, history));
    let lineage = lineage.and_then(|found| found.ok_or(Unmet::Nothing));
    let lineage = lineage.map_err(unmet)?;
    let newest = lineage.expected().ok_or(Unmet::Nothing).map_err(unmet)?;
    // The earliest start that is known to have it, and a log time from which on all have it.
    let (mut has_it, mut from_ns): (Option<Point>, _) = (None, u64::MAX);
    for reach in lineage.reaches().iter().rev() {
        if reach.from.timestamp.is_some_and(|ns| ns >= from_ns) {
            has_it = Some(reach.from);
            continue;
        }
        let plan = whole(&lineage, reach, newest);
        match seek(source, listed.cluster, &plan, id, on_progress)? {
            Sought::There(transfer) => {
                has_it = Some(reach.from);
                // What an imported one says of time is its owner's word.
                if !transfer.has(transfer_flags::IMPORTED) {
                    from_ns = transfer.timestamp;
                }
            }
            Sought::Created(transfer, lsn) => {
                let timestamp = transfer.timestamp;
                return Ok(Created { id, lsn, timestamp });
            }
            Sought::Absent => return Err(missed(id, Some(reach), has_it, newest).into()),
        }
    }
    Err(missed(id, None, has_it, newest).into())
}

/// All that is in reach from one start.
fn whole(lineage: &Lineage<'_>, reach: &Reach<'_>, newest: Point) -> Plan {
    Plan {
        history: lineage.history,
        ancestors: lineage.ancestors.to_vec(),
        snapshot: reach.snapshot.cloned(),
        steps: reach.steps().to_vec(),
        stop: Stop::Lsn(reach.to.lsn),
        complete_until: reach.to.timestamp,
        newest,
    }
}

/// `lacks_it` does not have it from its start to its end.
fn missed(id: u128, lacks_it: Option<&Reach<'_>>, has_it: Option<Point>, newest: Point) -> Failure {
    let (text, hint) = match (lacks_it, has_it) {
        (Some(lacks), Some(has)) => (
            format!(
                "transfer {id} was created behind {} and not behind {}, where the archive has no \
                 log: the state right before it cannot be made",
                point(&lacks.to),
                point(&has)
            ),
            format!("the last point without it: --target lsn:{}", lacks.to.lsn),
        ),
        (None, Some(has)) => (
            format!(
                "transfer {id} is there in the oldest state that can be restored, {}: no state \
                 before it is left",
                point(&has)
            ),
            "an older archive, or another history (`standfast backup list`), may have one".into(),
        ),
        (Some(lacks), None) => (
            format!(
                "no transfer {id} was created up to {}, the last point that can be restored; the \
                 newest known is {}",
                point(&lacks.to),
                point(&newest)
            ),
            "a transfer that was refused leaves none; is it the right id and the right history?"
                .into(),
        ),
        (None, None) => return unmet(Unmet::Nothing),
    };
    Failure::new(ExitCode::NotExact, text).hint(hint)
}
