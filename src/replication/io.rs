//! What goes into the core and what comes out of it, as types.

use crate::replication::config::{Acks, Addresses, Member, MemberRole, Protection};
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::message::{Message, SnapshotHead};
use crate::replication::meta::Meta;
use crate::replication::view::{Loss, Refusal};
use standfast_wal::{Epoch, History, Incarnation, Link, Lsn, NodeId, Record};
use std::collections::BTreeSet;

/// What the node's log is when the process starts.
#[derive(Clone, Debug)]
pub struct LogFacts {
    /// The written and durable end.
    pub tip: Link,
    /// Up to here the log is known committed: the newest snapshot's LSN, 0 without.
    pub committed: Lsn,
    /// The first LSN that the log still has; `tip + 1` when it is empty.
    pub first_lsn: Lsn,
    /// All reigns, from the snapshot's table and the EpochStarts behind it.
    pub epochs: EpochTable,
    /// Recovery found an end that cannot be told from a torn unacknowledged write.
    pub suspect: bool,
}

/// How this node would describe itself to a primary that has to take it in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Introduction {
    pub role: MemberRole,
    pub voter: bool,
    pub site: String,
    pub priority: u32,
    pub addresses: Addresses,
    /// An operator has said that this node, unknown to the cluster, is to join it.
    pub asked: bool,
}

/// News of the connection that this node dialled to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkEvent {
    /// Established, and the peer said which incarnation it is.
    Up(Incarnation),
    /// Broken, or could not be established; nothing more is known.
    Down,
    /// The port refuses: no process listens there.
    Refused,
}

/// What an operator wants; answered once by `Effect::Answer` with the same ticket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Hand over to this member, or to the best one.
    Switchover {
        to: Option<NodeId>,
    },
    /// Become primary of a new history whose only voter is this node.
    ForcePromote {
        ignore_old_primary: bool,
    },
    /// Give up this node's history and follow the newer one that a peer lives in.
    Rejoin,
    AddMember {
        id: NodeId,
        member: Member,
        voter: bool,
    },
    RemoveMember {
        id: NodeId,
    },
    SetAcks(Acks),
    SetProtection(Protection),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// The deadline has passed. Any other input serves as well.
    Timeout,
    /// The engine has built this record right behind `tip()` after `admit()` said yes.
    Propose(Record),
    /// Everything up to here, of what was appended so far, is durable in this node's log.
    Durable(Lsn),
    /// The oldest `Effect::Cut` not yet answered is done and durable; the log ends here, and is
    /// durable up to there.
    CutDone {
        end: Link,
        durable: Lsn,
    },
    /// This `Effect::Persist` is durable, and all before it.
    Persisted(u64),
    /// From the process behind a verified connection. Records in it were verified one by one.
    Message {
        from: NodeId,
        incarnation: Incarnation,
        message: Message,
    },
    Link(NodeId, LinkEvent),
    /// Answer to `Effect::ReadLog`: records from the one that follows `after`, at least one, and
    /// what they follow.
    LogRead {
        to: NodeId,
        previous: Link,
        records: Vec<Record>,
    },
    /// Answer to `Effect::ReadLog`: that part of the log is gone.
    LogGone {
        to: NodeId,
    },
    /// A peer offers a snapshot: answered by AcceptSnapshot or RefuseSnapshot.
    SnapshotOffered {
        from: NodeId,
        head: SnapshotHead,
    },
    /// All of it is here, verified and durable: answered by InstallSnapshot or RefuseSnapshot.
    SnapshotReceived {
        from: NodeId,
        head: SnapshotHead,
    },
    /// Answer to InstallSnapshot: state and log stand at its LSN, durably.
    SnapshotInstalled(SnapshotHead),
    /// Receiving it came to nothing.
    SnapshotAborted {
        from: NodeId,
    },
    /// Answer to SendSnapshot: the peer has it installed, or said it does not want it.
    SnapshotSent {
        to: NodeId,
    },
    SnapshotFailed {
        to: NodeId,
    },
    /// Segments were dropped: the log begins here now.
    LogTrimmed {
        first_lsn: Lsn,
    },
    /// Everything up to here is applied: the tail may forget it.
    Applied(Lsn),
    Operator {
        ticket: u64,
        order: Order,
    },
    /// The shell sees the disk stall, or answer again.
    DiskStalled(bool),
    /// This node's wall clock now, nanoseconds since 1970; at start and at least each second.
    WallClock(u64),
    /// Answer to `Effect::DrawRandom`.
    Random(u128),
    /// End of the engine's turn: what was collected in it is sent (confirmations for reads).
    TurnEnd,
}

/// Why this node stops being primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StopReason {
    /// Another node was or is being promoted.
    Fenced { by: Fence },
    /// By switchover; never-ordered commands may be forwarded there.
    HandedOver { to: NodeId },
    /// The history itself was given up.
    NewHistory,
}

/// What the engine must do: per target in order, across targets in any order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Log: append, and report `Durable`.
    Append(Record),
    /// Log: move everything after this LSN into `divergent/`, and report `CutDone`. Goes in order
    /// with Append; a `Durable` for what was appended before it must not be reported after it.
    Cut {
        after: Lsn,
        loss: Loss,
    },
    /// By force this node founds a new history: this much of the old one is known to be missing,
    /// of what this sync set had.
    Forced {
        loss: Loss,
        sync_set: BTreeSet<NodeId>,
    },
    /// All that this node had of the history it has left is in the one it follows now: that
    /// nothing is lost here has to be said, or nobody could tell it from a log not yet looked at.
    NothingLost(Loss),
    /// Log: the next segment carries this history.
    Roll(History),
    /// To the process at the other end of the link, if it is up; else dropped.
    Send(NodeId, Message),
    /// Meta file: replace it durably, and report `Persisted(serial)`. Newer may skip older.
    Persist(Box<Meta>, u64),
    /// Read records after this LSN for this peer, and report `LogRead` or `LogGone`.
    ReadLog {
        to: NodeId,
        after: Lsn,
        max_bytes: u64,
    },
    /// Offer the peer a snapshot of this history that reaches at least this LSN (which is
    /// committed), and report `SnapshotSent` or `SnapshotFailed`.
    SendSnapshot {
        to: NodeId,
        at_least: Lsn,
    },
    /// Let the peer send what it offered, and report `SnapshotReceived` or `SnapshotAborted`.
    AcceptSnapshot {
        from: NodeId,
    },
    RefuseSnapshot {
        from: NodeId,
        why: String,
    },
    /// Replace state and log by the received snapshot, and report `SnapshotInstalled`. In order
    /// with Append and Cut.
    InstallSnapshot {
        head: SnapshotHead,
        /// What the old log loses by it.
        loss: Option<Loss>,
    },
    /// The commit LSN: apply through min(this, durable here). Never falls within a history.
    Committed(Lsn),
    /// Reads with a ticket of this round or below may be answered once applied >= `after`.
    Confirmed(u64),
    /// This node is primary and its EpochStart is committed: writes may be ordered.
    Serving {
        epoch: Epoch,
    },
    /// Primary no longer. Commands with an LSN wait until their (epoch, LSN) is known committed or
    /// cut; commands without may be refused or forwarded. Read tickets are void.
    StopServing(StopReason),
    /// A new Config is known to be chosen (`config()`): dial its members.
    NewConfig,
    Answer(u64, Result<String, Refusal>),
    /// For the event list and the log.
    Event(String),
    /// Supply one `Input::Random`.
    DrawRandom,
    /// This node must not go on: print the story, stop.
    Halt(String),
}

/// A read's place in line: answer it after `Confirmed(round)` or above, once `after` is applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReadTicket {
    pub after: Lsn,
    pub round: u64,
}
