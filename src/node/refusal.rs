//! Why a command was not done, in the words a client reads.
//!
//! The `Display` text is the RESP error: the first word is Redis's own prefix where it has one, so
//! that client libraries react to it, and the rest says what to do. All but `Unknown` are only for
//! commands that were never ordered: a command with an LSN never gets a definite refusal.

use crate::state::Reply;
use standfast_wal::{Epoch, Lsn};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A write, or a linearizable read, at a node that is not primary.
    ReadOnly {
        primary: Option<String>,
    },
    /// Ordered; what became of it is not known yet.
    Unknown {
        generation: u64,
        epoch: Epoch,
        lsn: Lsn,
    },
    /// Fewer copies can be had than protection demands.
    TooFewCopies {
        needed: u32,
        present: u32,
    },
    /// `max-performance`: more is unreplicated than the loss budget allows.
    LossBudget,
    /// No primary is known here: an election is going on, or cannot succeed.
    NoPrimary,
    /// Primary, but a majority of the voters does not answer.
    Isolated,
    /// Primary by the register, but its EpochStart is not committed yet.
    Promoting,
    /// The primary hands over and this command could not be passed on.
    HandingOver {
        to: Option<String>,
    },
    /// Reading snapshot and log, or installing a snapshot.
    Loading,
    /// Restored from a backup and not activated yet: nothing is written there.
    Quarantined,
    /// A witness holds no data.
    Witness {
        primary: Option<String>,
    },
    /// A READONLY read here would be older than `max_staleness`.
    TooStale {
        age_ms: Option<u64>,
        limit_ms: u64,
        primary: Option<String>,
    },
    OutOfMemory {
        used_bytes: u64,
        limit_bytes: u64,
    },
    /// The log's disk has no room but the reserve.
    DiskFull,
    /// `archive_required`: the archive is too far behind.
    Unarchived,
    /// The log's disk does not answer in time.
    DiskStalled,
    /// A SEEN point is not in this node's history.
    TimeTravel {
        generation: u64,
        history_id: u128,
    },
    /// Something of which one can run at a time is running.
    Busy {
        what: &'static str,
    },
    /// The encoded command does not fit a record.
    TooLarge {
        bytes: usize,
        limit_bytes: usize,
    },
    /// OUTCOME of something older than what is kept here.
    OutcomeGone,
    /// The process stops.
    Stopping,
    /// An operator's request that cannot be done as it stands: the sentence says why and what to
    /// do.
    Operator(String),
}

/// ` at <address>` or what to do when nobody knows it.
struct At<'a>(&'a Option<String>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "the primary is at {address}"),
            None => f.write_str("no primary is known now, retry shortly"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::ReadOnly { primary } => write!(
                f,
                "READONLY You can't write against a backup, nor read from it without READONLY; {}",
                At(primary)
            ),
            Refusal::Unknown {
                generation,
                epoch,
                lsn,
            } => write!(
                f,
                "UNKNOWN {generation} {epoch} {lsn} was ordered but its outcome is not known yet; \
                 ask with OUTCOME {generation} {epoch} {lsn}, do not send it again without ONCE"
            ),
            Refusal::TooFewCopies { needed, present } => write!(
                f,
                "NOREPLICAS Not enough good replicas to write: {needed} copies are needed and \
                 {present} can be had; bring a synchronous backup back, or change protection"
            ),
            Refusal::LossBudget => f.write_str(
                "NOREPLICAS the backups are further behind than max_unreplicated allows; retry \
                 when they have caught up",
            ),
            Refusal::NoPrimary => f.write_str(
                "CLUSTERDOWN no primary is known; retry shortly, and look at `standfast status` \
                 if it lasts",
            ),
            Refusal::Isolated => f.write_str(
                "CLUSTERDOWN this primary does not hear a majority of the voters; retry at \
                 another node, SENTINEL GET-MASTER-ADDR-BY-NAME names the primary",
            ),
            Refusal::Promoting => {
                f.write_str("CLUSTERDOWN this node is being promoted; retry shortly")
            }
            Refusal::HandingOver { to: Some(address) } => {
                write!(f, "READONLY the primary hands over; go on at {address}")
            }
            Refusal::HandingOver { to: None } => {
                f.write_str("CLUSTERDOWN the primary hands over; retry shortly")
            }
            Refusal::Loading => f.write_str("LOADING this node is loading its data; retry shortly"),
            Refusal::Quarantined => f.write_str(
                "READONLY this node was restored from a backup and takes no writes yet; stop it, \
                 run `standfast activate --data-dir DIR`, and start it again",
            ),
            Refusal::Witness { primary } => write!(
                f,
                "READONLY this node is a witness and holds no data; {}",
                At(primary)
            ),
            Refusal::TooStale {
                age_ms,
                limit_ms,
                primary,
            } => {
                f.write_str("MASTERDOWN this backup's data may be ")?;
                match age_ms {
                    Some(age) => write!(f, "{age} ms old")?,
                    None => f.write_str("of any age")?,
                }
                write!(f, ", max_staleness is {limit_ms} ms; {}", At(primary))
            }
            Refusal::OutOfMemory {
                used_bytes,
                limit_bytes,
            } => write!(
                f,
                "OOM command not allowed when used memory > 'maxmemory': {used_bytes} of \
                 {limit_bytes} bytes; delete keys or raise max_memory"
            ),
            Refusal::DiskFull => f.write_str(
                "MISCONF the log's disk is full, so nothing can be made durable; free space or \
                 trim the retention, writes go on by themselves then",
            ),
            Refusal::Unarchived => f.write_str(
                "MISCONF the archive is required and too far behind; see `standfast status`, or \
                 set archive_required = false",
            ),
            Refusal::DiskStalled => f.write_str(
                "MISCONF the log's disk does not answer; look at `standfast status`, or switch \
                 over to another node",
            ),
            Refusal::TimeTravel {
                generation,
                history_id,
            } => write!(
                f,
                "TIMETRAVEL what this session has seen is not in the history here \
                 ({generation}-{history_id:032x}): it was restored or forced from an earlier \
                 point; reconcile, then connect anew without SEEN"
            ),
            Refusal::Busy { what } => write!(f, "BUSY {what} is running; retry when it is done"),
            Refusal::TooLarge { bytes, limit_bytes } => write!(
                f,
                "ERR the command takes {bytes} bytes in the log, the limit is {limit_bytes}; \
                 split it"
            ),
            Refusal::OutcomeGone => f.write_str(
                "ERR that LSN is older than what this node keeps outcomes of; use ONCE or ids for \
                 commands that must not run twice",
            ),
            Refusal::Stopping => {
                f.write_str("LOADING this node is shutting down; retry at another")
            }
            Refusal::Operator(text) => write!(f, "ERR {text}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::Error(refusal.to_string().into())
    }
}

impl Refusal {
    /// One of each, for the list in the documents.
    pub fn all_examples() -> Vec<Refusal> {
        let primary = Some("10.0.0.1:6379".to_string());
        vec![
            Refusal::ReadOnly {
                primary: primary.clone(),
            },
            Refusal::Unknown {
                generation: 1,
                epoch: Epoch(3),
                lsn: Lsn(1042),
            },
            Refusal::TooFewCopies {
                needed: 2,
                present: 1,
            },
            Refusal::LossBudget,
            Refusal::NoPrimary,
            Refusal::Isolated,
            Refusal::Promoting,
            Refusal::HandingOver {
                to: primary.clone(),
            },
            Refusal::Loading,
            Refusal::Quarantined,
            Refusal::Witness {
                primary: primary.clone(),
            },
            Refusal::TooStale {
                age_ms: Some(7_000),
                limit_ms: 5_000,
                primary,
            },
            Refusal::OutOfMemory {
                used_bytes: 1 << 30,
                limit_bytes: 1 << 30,
            },
            Refusal::DiskFull,
            Refusal::Unarchived,
            Refusal::DiskStalled,
            Refusal::TimeTravel {
                generation: 2,
                history_id: 0xfeed,
            },
            Refusal::Busy { what: "a backup" },
            Refusal::TooLarge {
                bytes: 40 << 20,
                limit_bytes: 32 << 20,
            },
            Refusal::OutcomeGone,
            Refusal::Stopping,
            Refusal::Operator("node 4 is not a member; see `standfast status`".to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_one_line_with_a_prefix_in_capitals() {
        for refusal in Refusal::all_examples() {
            let text = refusal.to_string();
            let prefix = text
                .split(' ')
                .next()
                .expect("split gives at least one part");
            assert!(
                !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_uppercase()),
                "{text}"
            );
            assert!(!text.contains(['\r', '\n']), "{text}");
            assert!(text.len() > prefix.len() + 10, "says what to do: {text}");
        }
    }

    #[test]
    fn an_unknown_outcome_is_read_by_its_first_four_words() {
        let text = Refusal::Unknown {
            generation: 1,
            epoch: Epoch(2),
            lsn: Lsn(3),
        }
        .to_string();
        assert!(text.starts_with("UNKNOWN 1 2 3 "), "{text}");
    }
}
