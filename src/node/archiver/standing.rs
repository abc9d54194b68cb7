//! What an archiver tells of the archive.

use crate::limits;
use crate::node::archive::NO_HISTORY;
use crate::node::archiver::{Drilled, Verified};
use serde::{Deserialize, Serialize};
use standfast_snapshot::archive::Sent;
use standfast_wal::{History, Lsn};

/// What an archiver knows of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    pub history: History,
    /// The archive has the log up to here.
    pub through: Lsn,
    /// Everything up to this time (ns since 1970) was read back and can be restored; 0: nothing.
    pub restorable_ns: u64,
    /// More was said to be, and has gone from the archive since.
    pub is_lost: bool,
    /// Log that was dropped before it was shipped, until a snapshot behind it is in the archive.
    pub gap: Option<(Lsn, Lsn)>,
    /// A snapshot would help, and this node has none that does.
    pub wants_snapshot: bool,
    /// Why the last round failed.
    pub error: Option<String>,
    /// Rounds have been failing for some time.
    pub is_failing: bool,
    pub stored_bytes: u64,
    /// Of the last snapshot that it has put.
    pub sent: Option<Sent>,
    pub failures: u64,
    /// Snapshots, pieces of log and segments that this archiver has removed.
    pub removed: u64,
    /// The last proof of all of it.
    pub verified: Option<Verified>,
    /// The last restore drill, and why the one behind it could not be done.
    pub drilled: Option<Drilled>,
    pub drill_error: Option<String>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing {
            history: NO_HISTORY,
            through: Lsn::ZERO,
            restorable_ns: 0,
            is_lost: false,
            gap: None,
            wants_snapshot: false,
            error: None,
            is_failing: false,
            stored_bytes: 0,
            sent: None,
            failures: 0,
            removed: 0,
            verified: None,
            drilled: None,
            drill_error: None,
        }
    }
}

/// What has a date, by some node's wall clock.
pub trait Dated {
    /// ns since 1970.
    fn at_ns(&self) -> u64;

    /// The clock that dated it was wrong.
    fn is_ahead_of(&self, wall: u64) -> bool {
        let slack = u64::try_from(limits::ARCHIVE_DATED_AHEAD.as_nanos()).unwrap_or(u64::MAX);
        self.at_ns() > wall.saturating_add(slack)
    }
}

impl Dated for Verified {
    fn at_ns(&self) -> u64 {
        self.at_ns
    }
}

impl Dated for Drilled {
    fn at_ns(&self) -> u64 {
        self.at_ns
    }
}

/// Whether `one` is newer than what is known: anything is than what a wrong clock has dated.
pub fn follows<T: Dated + Ord>(one: &Option<T>, known: &Option<T>, wall: u64) -> bool {
    let is_right = |of: &Option<T>| of.as_ref().is_some_and(|of| !of.is_ahead_of(wall));
    (is_right(one), one) > (is_right(known), known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_wrong_clock_has_dated_hides_nothing() {
        const HOUR: u64 = 3_600_000_000_000;
        let drilled = |at_ns, passed| {
            Some(Drilled {
                at_ns,
                passed,
                rto_ms: None,
                rpo_ms: None,
                reason: None,
            })
        };
        let wall = 100 * HOUR;
        assert!(follows(&drilled(99 * HOUR, false), &None, wall));
        assert!(follows(
            &drilled(99 * HOUR, false),
            &drilled(98 * HOUR, true),
            wall
        ));
        assert!(!follows(
            &drilled(98 * HOUR, false),
            &drilled(99 * HOUR, true),
            wall
        ));
        // Three hours ahead, and set right since.
        assert!(follows(
            &drilled(99 * HOUR, false),
            &drilled(103 * HOUR, true),
            wall
        ));
        assert!(!follows(
            &drilled(103 * HOUR, true),
            &drilled(99 * HOUR, false),
            wall
        ));
        // A little ahead is no wrong clock.
        let ahead = drilled(wall + 1_000_000_000, true);
        assert!(follows(&ahead, &drilled(99 * HOUR, false), wall));
        assert!(!follows(&None, &ahead, wall));
    }
}
