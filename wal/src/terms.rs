//! The words between a log and its owner: whose it is, its settings, what was found and done.

use crate::error::Error;
use crate::record::{Chain, ClusterId, History, Incarnation, Link, Lsn, NodeId, Record};
use std::fmt;

/// Whose log this is. Stands in every segment; another one's files are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// Settings of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of one segment file.
    pub segment_bytes: u64,
    /// How much log `excess` leaves in place, whoever needs it.
    pub keep_bytes: u64,
    /// Prepared space that only records other than Commands may use.
    pub reserve_bytes: u64,
    /// No peer holds this log: an unfinished end is cut only where it trails off into zeros, and
    /// damage anywhere else is refused.
    pub alone: bool,
    /// An operator's explicit word for one start: damage above the highest position known
    /// durable may be cut (and kept aside) even when alone.
    pub cut_damaged_end: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            keep_bytes: 16 << 30,
            reserve_bytes: 1 << 20,
            alone: false,
            cut_damaged_end: false,
        }
    }
}

/// What `open` found and did. Positions only: records are read through a `Reader`.
#[derive(Debug)]
pub struct Recovered {
    /// The last good record; what the next one must follow. All of it is durable.
    pub tail: Link,
    /// The first LSN that the log still holds; above `tail` when it holds none.
    pub first_lsn: Lsn,
    /// The history that the newest segment was written in.
    pub history: History,
    /// The EpochStart records above the base, in order.
    pub epoch_starts: Vec<Record>,
    pub end: End,
    /// Acknowledged records that are damaged. While there are any, nothing can be appended:
    /// `repair` them first. Always empty when alone (`open` refuses instead).
    pub damaged: Vec<DamagedRange>,
    /// What the disk said where some of that could not be read: perhaps it can be next time.
    pub unreadable: Option<Error>,
    /// A cut or reset that a crash had interrupted was finished first.
    pub finished_interrupted: bool,
    /// How the log and the base fit together: `Contains`, unless damage hides it still.
    pub reach: Reach,
}

/// How a log stands to the snapshot that it is to be replayed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The log holds the snapshot's record, or begins right behind it.
    Contains,
    /// The log ends below the snapshot: installing that snapshot was interrupted before `reset`,
    /// or the end of the log is lost.
    EndsBelow,
    /// The log begins above the snapshot: an older snapshot than the log needs.
    StartsAbove,
    /// The log holds another record there: installing was interrupted, or files were mixed up.
    Diverges,
}

/// How the newest segment ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing but zeros behind the last record.
    Clean,
    /// An unfinished write was cut; it cannot have been acknowledged. `kept` is the file that
    /// holds what was cut.
    Torn { kept: String },
    /// Something was cut (now, or at an earlier start) that cannot be told from acknowledged
    /// records gone bad. Stands until `Log::trust`.
    Suspect { kept: String },
    /// Damaged ranges must be repaired before the end can be judged.
    Unjudged,
}

/// Damaged records between two good places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    /// The good record before.
    pub after: Link,
    /// What the first good record behind names as its predecessor; `None` where there is none.
    pub next_previous_chain: Option<Chain>,
    pub file: String,
    pub offset: u64,
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log file {} offset {}: LSN {} to {} are damaged on disk",
            self.file, self.offset, self.first_lsn, self.last_lsn
        )
    }
}

/// What a cut took away.
#[derive(Debug)]
pub struct Cut {
    /// The end of the log now.
    pub tail: Link,
    /// How much of it is durable: less, where records before the cut wait for space.
    pub durable: Lsn,
    /// What was removed, in order, whether it had been durable or not.
    pub records: Vec<Record>,
    /// The file in `divergent/` that keeps them; `None` if nothing was removed.
    pub file: Option<String>,
}

/// Whether there is disk space to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    Ok,
    /// The next segment could not be prepared; what is prepared still takes client commands.
    Low,
    /// Less than twice the reserve is left: client commands must be refused.
    Full,
}
