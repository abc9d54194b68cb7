//! What replication tells the engine, the status page and people: roles, refusals, losses.

use crate::replication::config::MemberRole;
use crate::replication::fence::Fence;
use standfast_wal::{Epoch, History, Lsn, NodeId};
use std::fmt;
use std::time::Duration;

/// Why a command is not ordered, or an order not carried out. Only ever said of commands that got
/// no LSN. `Display` is the RESP error's text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Ask the primary, if one is known.
    NotPrimary { primary: Option<NodeId> },
    /// This node is becoming primary, or its first record is not committed yet.
    Starting,
    /// max-protection, and too few synchronous backups are there.
    NoReplicas,
    /// The primary does not hear a majority of the voters.
    Deaf,
    /// The primary's disk has stalled.
    Stalled,
    /// A switchover is under way; commands may be forwarded to the successor, once.
    HandingOver { to: NodeId },
    /// max-performance: more is unreplicated than the loss budget allows.
    LossBudget,
    /// Too much is ordered and not yet committed: wait for commits, then ask again.
    Busy,
    /// An order that cannot be carried out; the text says why and what to do.
    Invalid(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotPrimary { primary: Some(id) } => {
                write!(f, "READONLY this node is a backup; node {id} is primary")
            }
            Refusal::NotPrimary { primary: None } => {
                write!(f, "CLUSTERDOWN no primary is known; try again")
            }
            Refusal::Starting => {
                write!(f, "CLUSTERDOWN this node is taking over; try again")
            }
            Refusal::NoReplicas => write!(
                f,
                "NOREPLICAS too few synchronous backups for max-protection; bring one back"
            ),
            Refusal::Deaf => write!(
                f,
                "MISCONF the primary cannot reach a majority of the voters; writes are refused"
            ),
            Refusal::Stalled => write!(
                f,
                "MISCONF the primary's disk has stalled; writes are refused until it answers"
            ),
            Refusal::HandingOver { to } => {
                write!(
                    f,
                    "READONLY a switchover to node {to} is under way; try there"
                )
            }
            Refusal::LossBudget => write!(
                f,
                "NOREPLICAS the loss budget is used up; writes wait for the backups to catch up"
            ),
            Refusal::Busy => write!(f, "TRYAGAIN too many writes are waiting to be committed"),
            Refusal::Invalid(text) => write!(f, "ERR {text}"),
        }
    }
}

/// What this node is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoleView {
    Primary {
        serving: bool,
    },
    Backup {
        primary: Option<NodeId>,
        synchronous: bool,
    },
    Candidate,
    Witness {
        primary: Option<NodeId>,
    },
    /// Not named in the Config with this incarnation: asks to be taken in.
    Stranger,
}

/// What is known here of another member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerView {
    pub id: NodeId,
    pub role: MemberRole,
    pub connected: bool,
    pub synchronous: bool,
    pub joining: bool,
    /// On the primary: durable there and verified in this epoch.
    pub matched: Lsn,
    /// Commands and bytes of this node's log that it does not hold.
    pub lag: u64,
    pub lag_bytes: u64,
    /// Its wall clock less this node's, nanoseconds.
    pub clock_offset: Option<i64>,
    /// On the primary: how long ago it was last heard.
    pub silent: Option<Duration>,
}

/// Everything `status` shows of replication. Made on demand; not for the write path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub role: RoleView,
    pub fence: Fence,
    pub history: History,
    pub epoch: Epoch,
    pub tip: Lsn,
    pub durable: Lsn,
    pub commit: Lsn,
    /// The highest commit LSN that any primary has told of: what a forced promotion could lose.
    pub heard_commit: Lsn,
    pub suspect: bool,
    pub config_version: u64,
    pub peers: Vec<PeerView>,
    pub forecast: Forecast,
    /// Standing alarms, as sentences.
    pub alarms: Vec<String>,
}

/// What would happen if the primary died now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forecast {
    /// Who would take over by itself; `None`: nobody.
    pub successor: Option<NodeId>,
    /// Acknowledged commands that could be lost.
    pub lost_commands: u64,
    /// About how long until it serves again; `None`: not by itself.
    pub outage: Option<Duration>,
    /// The whole answer as a sentence.
    pub text: String,
}

/// What was cut from a log, or is missing after a forced promotion, for the loss statement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Loss {
    /// The history in which it was ordered.
    pub history: History,
    /// The reign whose log replaced what was cut.
    pub by: Fence,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
    /// Up to here the cut commands were known committed here: acknowledged, or certain to be.
    pub committed: Lsn,
    /// Above `committed`: whether a client may have been told that they were done. False within
    /// one history, where nothing cut was ever committed (I1).
    pub possibly_acknowledged: bool,
}
