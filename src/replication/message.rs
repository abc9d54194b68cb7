//! Peer messages as types; the table that docs/protocol.md shows.
//!
//! Requests are verbs, answers are past participles. Record bytes are not part of the encoding:
//! the wire carries them raw behind the head.

use crate::replication::config::{Addresses, MemberRole};
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::register;
use serde::{Deserialize, Serialize};
use standfast_wal::{Epoch, History, Link, Lsn, Nonce, Position, Record};
use std::fmt;

/// One message between two nodes, with the history that its sender lives in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Message {
    pub history: History,
    pub body: Body,
}

/// Where a snapshot stands, as offered to a node that would install it. The engine fills it from
/// the snapshot's header.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SnapshotHead {
    pub history: History,
    /// The last record that the snapshot covers.
    pub link: Link,
    /// Committed reigns up to there.
    pub epochs: EpochTable,
}

/// What a primary tells every member, each heartbeat interval.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Beat {
    pub epoch: Epoch,
    /// Rises with every beat and append; an answer confirms that the sender was still obeyed
    /// after it was sent.
    pub round: u64,
    pub commit: Lsn,
    /// The version of the newest Config, so that a member asks when it lacks it.
    pub version: u64,
    /// The primary is deaf or its disk has stalled: this is no sign of life.
    pub quiet: bool,
    /// `Heard::stamp` of an answer after whose arrival this primacy was confirmed.
    pub echo: Option<u64>,
    /// The sender's wall clock, nanoseconds since 1970; 0 when not known.
    pub wall: u64,
}

/// What is said. The epoch in a primary's messages is that of its own reign.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Body {
    /// Primary to data member: this is my log's shape; say where yours agrees.
    Follow {
        epoch: Epoch,
        round: u64,
        tip: Lsn,
        epochs: EpochTable,
    },
    /// Answer: the logs are equal up to `agreed`, and that is durable here.
    Followed {
        epoch: Epoch,
        round: u64,
        agreed: Lsn,
        /// Recovery found a damaged end here: what was acknowledged may be missing.
        suspect: bool,
        /// What lies behind `agreed` here was applied in another history: only a snapshot helps.
        rebuild: bool,
    },
    /// Primary to data member: the records behind `previous`.
    Append {
        epoch: Epoch,
        round: u64,
        commit: Lsn,
        previous: Link,
        #[serde(skip)]
        records: Vec<Record>,
    },
    /// Answer: the highest LSN that is durable here and verified record by record against this
    /// epoch's primary.
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
        /// `None`: the primary's log was not compared yet in this epoch.
        verified: Option<Lsn>,
        /// The answering node's own clock, echoed by a later heartbeat.
        stamp: u64,
        /// Its wall clock.
        wall: u64,
    },
    /// Any node to the sender of what its fence forbids.
    Refused { fence: Fence, version: u64 },
    /// Step 1, candidate to voters: have you, too, lost the primary?
    Ask { epoch: Epoch, attempt: Nonce },
    /// Answer.
    Asked {
        attempt: Nonce,
        lost: bool,
        /// The voter's wall clock: a candidate that has just started knows no other.
        wall: u64,
    },
    /// Step 2, candidate to the sync set: refuse everything below this.
    Fence { fence: Fence, attempt: Nonce },
    /// Answer, once the fence and everything accepted before it is durable.
    Fenced {
        fence: Fence,
        attempt: Nonce,
        last: Position,
        commit: Lsn,
        suspect: bool,
        wall: u64,
        epochs: EpochTable,
    },
    /// Step 3, candidate to the holder of the chosen log: send what lies behind `after`.
    Fetch { attempt: Nonce, after: Lsn },
    /// Answer.
    Fetched {
        attempt: Nonce,
        previous: Link,
        #[serde(skip)]
        records: Vec<Record>,
    },
    /// Old primary to its successor: you hold all of it, take over.
    HandOver { epoch: Epoch, tip: Lsn },
    /// A node that has seen signs of a newer Config asks for it.
    AskConfig { version: u64 },
    /// Answer; also primary to every member after a change. Known to be chosen.
    Configured { config: register::Value },
    /// A node whose incarnation is not named asks the primary to be taken in.
    Join {
        role: MemberRole,
        voter: bool,
        site: String,
        priority: u32,
        addresses: Addresses,
        /// An operator wants it: also where the id is unknown.
        asked: bool,
    },
    /// Primary to a backup that lacks what it acknowledged: this incarnation counts as lost.
    Disown {
        epoch: Epoch,
        acknowledged: Lsn,
        found: Lsn,
    },
    /// Forced promotion, before it begins: does anybody here act as primary?
    Sound { attempt: Nonce },
    /// Answer.
    Sounded {
        attempt: Nonce,
        serving: bool,
        generation: u64,
        epoch: Epoch,
        commit: Lsn,
    },
    /// Between the registers of two voters.
    Register(register::Message),
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

    /// Puts the records back that the wire carried raw. False where this message has none.
    pub fn set_records(&mut self, received: Vec<Record>) -> bool {
        match &mut self.body {
            Body::Append { records, .. } | Body::Fetched { records, .. } => *records = received,
            _ => return received.is_empty(),
        }
        true
    }
}

/// `7..9` for these records, `-` for none.
fn span(records: &[Record]) -> String {
    match (records.first(), records.last()) {
        (Some(first), Some(last)) => format!("{}..{}", first.first_lsn(), last.last_lsn()),
        _ => "-".to_string(),
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl fmt::Display for Body {
    /// The house notation: name, `@epoch`, positions, flags.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |set: bool, word: &'static str| if set { word } else { "" };
        match self {
            Body::Follow { epoch, tip, .. } => write!(f, "Follow @{epoch} tip={tip}"),
            Body::Followed {
                epoch,
                agreed,
                suspect,
                rebuild,
                ..
            } => {
                let (suspect, rebuild) = (flag(*suspect, " suspect"), flag(*rebuild, " rebuild"));
                write!(f, "Followed @{epoch} agreed={agreed}{suspect}{rebuild}")
            }
            Body::Append {
                epoch,
                commit,
                previous,
                records,
                ..
            } => {
                let (after, span) = (previous.position, span(records));
                write!(f, "Append @{epoch} {span} after={after} commit={commit}")
            }
            Body::Acked { epoch, matched, .. } => write!(f, "Acked @{epoch} matched={matched}"),
            Body::Heartbeat(beat) => {
                let quiet = flag(beat.quiet, " quiet");
                write!(f, "Heartbeat @{} commit={}{quiet}", beat.epoch, beat.commit)
            }
            Body::Heard { epoch, matched, .. } => write!(f, "Heard @{epoch} matched={matched}"),
            Body::Refused { fence, version } => write!(f, "Refused fence={fence} v{version}"),
            Body::Ask { epoch, .. } => write!(f, "Ask @{epoch}"),
            Body::Asked { lost, .. } => {
                write!(f, "Asked {}", if *lost { "lost" } else { "not lost" })
            }
            Body::Fence { fence, .. } => write!(f, "Fence {fence}"),
            Body::Fenced {
                fence,
                last,
                commit,
                suspect,
                ..
            } => {
                let suspect = flag(*suspect, " suspect");
                write!(f, "Fenced {fence} last={last} commit={commit}{suspect}")
            }
            Body::Fetch { after, .. } => write!(f, "Fetch after={after}"),
            Body::Fetched {
                previous, records, ..
            } => {
                write!(f, "Fetched {} after={}", span(records), previous.position)
            }
            Body::HandOver { epoch, tip } => write!(f, "HandOver @{epoch} tip={tip}"),
            Body::AskConfig { version } => write!(f, "AskConfig above v{version}"),
            Body::Configured { config } => {
                let (version, epoch) = (config.version, config.epoch);
                write!(
                    f,
                    "Configured v{version} @{epoch} primary={}",
                    config.primary
                )
            }
            Body::Join { asked, .. } => write!(f, "Join{}", flag(*asked, " asked")),
            Body::Disown {
                epoch,
                acknowledged,
                found,
            } => {
                write!(
                    f,
                    "Disown @{epoch} acknowledged={acknowledged} found={found}"
                )
            }
            Body::Sound { .. } => write!(f, "Sound"),
            Body::Sounded {
                serving,
                epoch,
                commit,
                ..
            } => {
                write!(
                    f,
                    "Sounded @{epoch} commit={commit}{}",
                    flag(*serving, " serving")
                )
            }
            Body::Register(message) => write!(f, "Register {}", register_word(message)),
        }
    }
}

fn register_word(message: &register::Message) -> String {
    match &message.body {
        register::Body::Prepare { .. } => "Prepare".to_string(),
        register::Body::Promised { .. } => "Promised".to_string(),
        register::Body::Accept { proposal, .. } => format!("Accept v{}", proposal.value.version),
        register::Body::Accepted { .. } => "Accepted".to_string(),
        register::Body::Refused { .. } => "Refused".to_string(),
        register::Body::Chosen { value } => format!("Chosen v{}", value.version),
    }
}
