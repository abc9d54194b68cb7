//! What a client's session asks of the engine, what comes back, and the way between them.

use crate::node::view::View;
use crate::state::Reply;
use crate::state::command::Command;
use bytes::Bytes;
use standfast_wal::{Epoch, Lsn, NodeId};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

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
    /// WAIT: how many other members hold this write durably, once `copies` do or after the timeout;
    /// `None`: nothing was written.
    Wait {
        write: Option<Place>,
        copies: u32,
        timeout_ms: u64,
    },
    /// RECEIPT of a write that was ordered here: a map of generation, history, epoch, lsn, copies
    /// (members that hold it durably, this node included) and protection.
    Receipt {
        write: Place,
    },
    /// Refuse to serve this session from a history that does not contain this point.
    Seen {
        generation: u64,
        history_id: u128,
        epoch: Epoch,
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
    /// Gives up this node's history for the newer one that a peer lives in; what is cut is kept.
    Rejoin {
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
    /// CONFIG SET maxmemory: for this process's life, on this node. 0: no limit.
    SetMaxMemory {
        bytes: u64,
        who: String,
    },
    /// Snapshot and committed log into an archive: a directory on this node, or a URL.
    BackupNow {
        to: String,
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
    /// The LSN of the command for a write, zero if it was never ordered (then the reply is a
    /// `Refusal`); otherwise the applied LSN that the read saw.
    pub lsn: Lsn,
    /// The epoch a write was ordered in; 0 otherwise.
    pub epoch: Epoch,
    /// That of the history in which a write was ordered, or which a read saw.
    pub generation: u64,
    pub reply: Reply,
}

/// Where a write was ordered. A founder may count epochs from one that an old primary used as well,
/// of which it had not heard: only the generation tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub generation: u64,
    pub epoch: Epoch,
    pub lsn: Lsn,
}

/// What reaches the engine from its sessions. Calls of one session arrive in the order they were
/// made. The queue has no bound of its own: each session keeps its operations in flight bounded,
/// and there are at most `max_clients` sessions.
#[derive(Debug)]
pub enum Call {
    /// Comes before anything else of its session. Answers go to `answers`, grouped: one send, and
    /// so one wake-up, per session and round. A failed send means that the session has gone.
    Open {
        session: SessionId,
        answers: mpsc::UnboundedSender<Vec<Answer>>,
    },
    /// Everything one socket read held, in order. Never empty.
    Submit {
        session: SessionId,
        requests: Vec<Request>,
    },
    /// The client has gone; what it had in flight takes effect or not, but is not answered.
    Close { session: SessionId },
}

/// The door to the engine, held by every session, by the listeners and by the HTTP side.
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::UnboundedSender<Call>,
    view: watch::Receiver<Arc<View>>,
}

/// The engine's end of the door.
pub struct Door {
    pub calls: mpsc::UnboundedReceiver<Call>,
    pub view: watch::Sender<Arc<View>>,
}

impl Handle {
    /// A door and the engine's end of it; `view` is what is shown until the engine shows more.
    pub fn new(view: View) -> (Handle, Door) {
        let (to_engine, calls) = mpsc::unbounded_channel();
        let (view_sender, view) = watch::channel(Arc::new(view));
        let handle = Handle {
            calls: to_engine,
            view,
        };
        let door = Door {
            calls,
            view: view_sender,
        };
        (handle, door)
    }

    /// Starts a session; what it receives ends when the engine has stopped.
    pub fn open_session(&self, session: SessionId) -> mpsc::UnboundedReceiver<Vec<Answer>> {
        let (answers, receiver) = mpsc::unbounded_channel();
        self.send(Call::Open { session, answers });
        receiver
    }

    /// Asks for operations, in order. Once the engine has stopped they are dropped, and the
    /// session learns it from its receiver.
    pub fn submit(&self, session: SessionId, requests: Vec<Request>) {
        self.send(Call::Submit { session, requests });
    }

    pub fn close_session(&self, session: SessionId) {
        self.send(Call::Close { session });
    }

    /// What the engine last showed of itself.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// To wait for changes of the view.
    pub fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    fn send(&self, call: Call) {
        // A stopped engine has dropped every session's sender; its receiver ends and tells it.
        let _ = self.calls.send(call);
    }
}
