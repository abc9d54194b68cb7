//! Peer messages as types; the table that docs/protocol.md shows.
//!
//! Requests are verbs, answers are past participles. Record bytes are not part of the encoding:
//! the wire carries them raw behind the head.

use crate::replication::config::{Addresses, Config, MemberRole};
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::time::Time;
use serde::{Deserialize, Serialize};
use standfast_wal::{Epoch, History, Link, Lsn, NodeId, Nonce, Position, Record};
use std::fmt;

/// One message between two nodes, with the history that its sender lives in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Message {
    pub history: History,
    pub body: Body,
}

/// Where a snapshot stands, as offered to a node that would install it. The engine fills it from
/// the snapshot's header.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SnapshotHead {
    pub history: History,
    /// The last record that the snapshot covers.
    pub link: Link,
    /// Committed reigns up to there.
    pub epochs: EpochTable,
}

/// What a primary wants every member to know, with each heartbeat.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Beat {
    pub epoch: Epoch,
    pub commit: Lsn,
    /// Rises with every beat and append; an answer confirms that the sender was still obeyed
    /// after it was sent.
    pub round: u64,
    /// The version of the newest Config, so that a member asks when it lacks it.
    pub version: u64,
    /// The primary is deaf or degraded: this is no sign of life.
    pub quiet: bool,
    /// `Heard::stamp` of an answer after whose arrival this primacy was confirmed.
    pub echo: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Primary to data member: here is my log's shape; say where yours agrees.
    Follow {
        epoch: Epoch,
        nonce: Nonce,
        round: u64,
        commit: Lsn,
        tip: Lsn,
        epochs: EpochTable,
    },
    /// Answer: the logs are equal up to `agreed`, and that is durable here.
    Followed {
        epoch: Epoch,
        round: u64,
        agreed: Lsn,
        /// First LSN that this node could not have lost by recovery: it says its log was suspect.
        suspect: bool,
    },
    /// Primary to data member: records behind `previous`.
    Append {
        epoch: Epoch,
        round: u64,
        commit: Lsn,
        previous: Link,
        #[serde(skip)]
        records: Vec<Record>,
    },
    /// Answer: verified record by record against this epoch's primary and durable.
    Acked {
        epoch: Epoch,
        round: u64,
        matched: Lsn,
    },
    /// Primary to every member.
    Heartbeat(Beat),
    /// Answer of every member.
    Heard {
        epoch: Epoch,
        round: u64,
        matched: Lsn,
        /// Received and verified, durable or not: tells the primary what was lost on the way.
        verified: Lsn,
        version: u64,
        /// The answering node's own clock, echoed by a later heartbeat.
        stamp: u64,
        /// Wall clock, nanoseconds since 1970; 0 when not known.
        wall: u64,
    },
    /// Answer to anything below the fence.
    Refused { fence: Fence, config_version: u64 },
    /// Step 1, candidate to voters: have you, too, lost the primary of `epoch`?
    Ask { epoch: Epoch, attempt: Nonce },
    Asked {
        epoch: Epoch,
        attempt: Nonce,
        lost: bool,
    },
    /// Step 2, candidate to the sync set: refuse everything below `fence`.
    Fence { fence: Fence, attempt: Nonce },
    /// Answer, once the fence and everything accepted before it is durable.
    Fenced {
        fence: Fence,
        attempt: Nonce,
        last: Position,
        commit: Lsn,
        suspect: bool,
        epochs: EpochTable,
    },
    /// Step 3, candidate to the holder of the chosen log: send what follows `after`.
    Fetch { attempt: Nonce, after: Lsn },
    Fetched {
        attempt: Nonce,
        previous: Link,
        #[serde(skip)]
        records: Vec<Record>,
    },
    /// Old primary to its chosen successor: you hold all of it, take over.
    HandOver { epoch: Epoch, tip: Lsn },
    /// A node that knows an older Config asks for the newest.
    AskConfig { version: u64 },
    /// A Config known to be chosen.
    Configured { config: Box<Config> },
    /// A node whose incarnation is not named asks to be taken in.
    Join {
        role: MemberRole,
        voter: bool,
        site: String,
        priority: u32,
        addresses: Addresses,
    },
    /// This incarnation acknowledged what it no longer has: it counts as lost.
    Disown {
        epoch: Epoch,
        acknowledged: Lsn,
        found: Lsn,
    },
    /// Forced promotion, before it begins: does anybody here act as primary?
    Sound { attempt: Nonce },
    Sounded {
        attempt: Nonce,
        serving: bool,
        epoch: Epoch,
        commit: Lsn,
        generation: u64,
    },
}

impl Message {
    /// The records that the wire carries raw behind the head.
    pub fn records(&self) -> &[Record] {
        match &self.body {
            Body::Append { records, .. } | Body::Fetched { records, .. } => records,
            _ => &[],
        }
    }

    /// Takes the records out, for the wire to carry them raw.
    pub fn take_records(&mut self) -> Vec<Record> {
        match &mut self.body {
            Body::Append { records, .. } | Body::Fetched { records, .. } => std::mem::take(records),
            _ => Vec::new(),
        }
    }

    /// Puts the records back that the wire carried raw.
    pub fn set_records(&mut self, received: Vec<Record>) {
        match &mut self.body {
            Body::Append { records, .. } | Body::Fetched { records, .. } => *records = received,
            _ => assert!(received.is_empty(), "records behind {self}"),
        }
    }
}

/// `7..9` of these records, `-` for none.
fn span(records: &[Record]) -> String {
    match (records.first(), records.last()) {
        (Some(first), Some(last)) => format!("{}..{}", first.first_lsn(), last.last_lsn()),
        _ => "-".to_string(),
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.body)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

const _: Option<(NodeId, Time)> = None;
