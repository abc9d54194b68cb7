//! What a client's session asks of the engine, and what comes back.

use crate::state::Reply;
use crate::state::command::Command;
use bytes::Bytes;
use standfast_wal::{Epoch, Lsn, NodeId};

/// One client connection, numbered by the listener; never used again in a process's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// One thing a session wants. Answers carry `seq` back and may come in any order: the session
/// puts them in order. Operations of one session take effect in the order they were asked.
#[derive(Debug)]
pub struct Request {
    pub seq: u64,
    pub op: Op,
}

#[derive(Debug)]
pub enum Op {
    /// An encoded `state::Command` that may change something: ordered in the log.
    Write(Bytes),
    /// Answered from the state. `stale`: this node may answer by itself within `max_staleness`
    /// (the connection said READONLY), else the read is linearizable.
    Read { command: Command, stale: bool },
    /// Everything rare.
    Control(Box<Control>),
}

/// Operations that are not commands of the log.
#[derive(Debug)]
pub enum Control {
    /// What became of an ordered command.
    Outcome {
        generation: u64,
        epoch: Epoch,
        lsn: Lsn,
    },
    /// Answered once `lsn` is applied here, or 0 after the timeout.
    WaitLsn {
        lsn: Lsn,
        timeout_ms: u64,
    },
    /// WAIT: how many other members hold `lsn` durably, once `copies` do or after the timeout.
    Wait {
        lsn: Lsn,
        copies: u32,
        timeout_ms: u64,
    },
    /// Refuse to serve this session from a history that does not contain this point.
    Seen {
        generation: u64,
        history_id: u128,
        lsn: Lsn,
    },
    /// Applied LSN and state digest; with `slots`, one digest per hash slot.
    Digest {
        slots: bool,
    },
    /// Everything `status` shows, as one JSON text.
    Status,
    Switchover {
        to: Option<NodeId>,
        who: String,
        why: String,
    },
    /// Makes this node primary of a new history; what it would lose is answered when `confirm`
    /// is not the cluster's name.
    ForcePromote {
        confirm: String,
        ignore_old_primary: bool,
        who: String,
        why: String,
    },
    AddMember {
        id: NodeId,
        member: crate::replication::config::Member,
        voter: bool,
        who: String,
    },
    RemoveMember {
        id: NodeId,
        who: String,
    },
    SetAcks {
        acks: crate::replication::config::Acks,
        who: String,
    },
    SetProtection {
        protection: crate::replication::config::Protection,
        who: String,
    },
    /// Snapshot and committed log into a directory on this node.
    BackupNow {
        dir: std::path::PathBuf,
        who: String,
    },
    /// Takes a local snapshot (BGSAVE).
    Snapshot,
    /// Hands over by switchover if this node is primary, then stops the process.
    Shutdown,
}

/// One answer to one request.
#[derive(Debug)]
pub struct Answer {
    pub seq: u64,
    /// The LSN of the command for a write, the applied LSN the read saw otherwise.
    pub lsn: Lsn,
    /// The epoch a write was ordered in; 0 otherwise.
    pub epoch: Epoch,
    pub reply: Reply,
}
