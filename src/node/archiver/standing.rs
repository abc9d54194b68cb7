//! What an archiver tells of the archive.

use crate::node::archive::NO_HISTORY;
use crate::node::archiver::Verified;
use serde::{Deserialize, Serialize};
use standfast_wal::{History, Lsn};

/// What an archiver knows of the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Standing {
    pub history: History,
    /// The archive has the log up to here.
    pub through: Lsn,
    /// Everything up to this time (ns since 1970) was read back and can be restored; 0: nothing.
    pub restorable_ns: u64,
    /// Log that was dropped before it was shipped, until a snapshot behind it is in the archive.
    pub gap: Option<(Lsn, Lsn)>,
    /// A snapshot would help, and this node has none that does.
    pub wants_snapshot: bool,
    /// Why the last round failed.
    pub error: Option<String>,
    /// Rounds have been failing for some time.
    pub is_failing: bool,
    pub stored_bytes: u64,
    pub failures: u64,
    /// Snapshots, pieces of log and segments that this archiver has removed.
    pub removed: u64,
    /// The last proof of all of it.
    pub verified: Option<Verified>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing {
            history: NO_HISTORY,
            through: Lsn::ZERO,
            restorable_ns: 0,
            gap: None,
            wants_snapshot: false,
            error: None,
            is_failing: false,
            stored_bytes: 0,
            failures: 0,
            removed: 0,
            verified: None,
        }
    }
}
