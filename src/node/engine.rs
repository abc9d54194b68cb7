//! One node's turn: events in, order them, step the core, route its effects, apply, answer.
//!
//! Owns the replication core, the state and everything unanswered. No thread, no clock, no socket
//! and no file: `node::run` feeds it in production, the simulator feeds it in tests, and what must
//! be done in the world comes out as [`Output`]s, per target in order. A turn is any number of
//! `handle` calls and one `end_turn`; all writes that came in during a turn become one record.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod applying;
mod reads;
mod requests;
mod routing;
mod showing;
mod time;
mod undone;

use crate::limits;
use crate::node::archive::{ArchiveSettings, Archiving};
use crate::node::client::{Answer, Request, SessionId};
use crate::node::clock::{LogClock, Now};
use crate::node::copies::Copies;
use crate::node::desk::Desk;
use crate::node::lag::Reached;
use crate::node::link::{LinkEvent, Peering};
use crate::node::meta::Identity;
use crate::node::outcomes::Outcomes;
use crate::node::pending::{Client, Pending};
use crate::node::refusal::Refusal;
use crate::node::view::View;
use crate::node::wire::Frame;
use crate::replication::{Effect, Input, Introduction, Meta, Replica, Time};
use crate::state::{Digest, Reply, State};
use bytes::BytesMut;
use standfast_wal::scribe::Command;
use standfast_wal::{Link, Lsn, NodeId, Record, Space, WriterEvent};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use time::Attested;
use undone::Undone;

/// What the engine is told. Links tell it in the order in which things happened to them.
#[derive(Debug)]
pub enum Event {
    /// What one read of a client's socket held, in order.
    Submit {
        session: SessionId,
        requests: Vec<Request>,
    },
    Link(LinkEvent),
    /// Appended records up to here are on disk.
    Durable(Lsn),
    /// The oldest unanswered cut is done; the log ends here, this much of it is on disk, and this
    /// was removed.
    Cut {
        end: Link,
        durable: Lsn,
        removed: Vec<Record>,
    },
    /// The log is reset, durably.
    LogReset,
    /// Room for client commands in the log, or none but the reserve.
    Space {
        full: bool,
    },
    /// Segments were dropped; the log begins here now.
    Trimmed {
        first_lsn: Lsn,
    },
    /// Bytes that the log takes, and that its disk has free.
    LogSize {
        log_bytes: u64,
        free_bytes: u64,
        /// What the disk has in all; 0: not known.
        disk_bytes: u64,
    },
    /// `Output::StoreMeta` of this number is on disk, and all before it.
    MetaStored(u64),
    Copy(crate::node::copies::CopyEvent),
    /// This node's archiver has done a round.
    Archived(Box<crate::node::archiver::Standing>),
    Random(u128),
    /// The scrubber read a sealed segment or a snapshot and found it damaged; of the log, up to
    /// this LSN.
    Damage {
        story: String,
        through: Option<Lsn>,
    },
    /// A write or sync failed: final.
    DiskFailed(String),
    /// The operator stops the process: hand over first.
    Shutdown {
        client: Option<Client>,
    },
}

impl Event {
    /// What the engine must know of what the log's owner reports.
    pub fn of_log(event: WriterEvent) -> Option<Event> {
        match event {
            WriterEvent::Durable(lsn) => Some(Event::Durable(lsn)),
            WriterEvent::Cut(cut) => Some(Event::Cut {
                end: cut.tail,
                durable: cut.durable,
                removed: cut.records,
            }),
            WriterEvent::WasReset(_) => Some(Event::LogReset),
            WriterEvent::Trimmed(first_lsn) => Some(Event::Trimmed { first_lsn }),
            WriterEvent::Space(space) => Some(Event::Space {
                full: space == Space::Full,
            }),
            WriterEvent::Failed(error) => Some(Event::DiskFailed(error.to_string())),
            WriterEvent::Rolled(_) | WriterEvent::Trusted | WriterEvent::Repaired(_) => None,
        }
    }
}

/// What the shell must do: per target in order, across targets in any order.
#[derive(Debug)]
pub enum Output {
    /// Log: do this, in order. An append is answered by `Event::Durable` (many by one), a cut by
    /// `Event::Cut`, a reset by `Event::LogReset`, a trim by `Event::Trimmed`.
    ToLog(Command),
    /// Meta file: replace it; answered by `Event::MetaStored`.
    StoreMeta {
        meta: Box<Meta>,
        serial: u64,
    },
    Send {
        to: NodeId,
        frame: Frame,
    },
    /// Whom to keep connected, by peer address.
    Peers(BTreeMap<NodeId, Peering>),
    Snapshot(crate::node::copies::CopyOutput),
    /// Archive this; the newest counts. `None`: another node does.
    Archive(Option<Box<crate::node::archiver::Order>>),
    /// A file for people in `divergent/`, written once.
    LossStatement {
        name: String,
        text: String,
    },
    Random,
    Show(Box<View>),
    /// One line for the log.
    Log(String),
    /// An invariant is broken, or the disk failed: print the story and stop at once.
    Halt(String),
    /// Everything is handed over: stop.
    Stop,
}

/// What the engine is made with besides its parts.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub write_timeout: Duration,
    pub max_staleness: Duration,
    pub max_clock_step: Duration,
    pub attest_interval: Duration,
    /// How long the disk may leave a record undone before it counts as stalled.
    pub degraded_timeout: Duration,
    pub snapshot_interval: Option<Duration>,
    /// Bytes of log behind the newest snapshot that call for another one.
    pub snapshot_after: Option<u64>,
    /// Log kept for members that lag.
    pub wal_keep: u64,
    pub max_memory: u64,
    /// `None`: there is no continuous archive.
    pub archive: Option<ArchiveSettings>,
    /// Peer addresses by which this node finds its cluster.
    pub seeds: BTreeMap<NodeId, String>,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    pub pid: u32,
    /// Restored and not activated: writes are refused.
    pub quarantined: bool,
    /// How this node describes itself.
    pub introduction: Introduction,
}

/// Reads committed records from the log's files: those that memory no longer holds.
pub trait LogSource: Send {
    /// Records after `after`, at least one, about `max_bytes`; `None`: that part is gone.
    fn read(&self, after: Lsn, max_bytes: usize) -> Result<Option<Vec<Record>>, LogFault>;

    /// What is before has been dropped; `None` on a witness.
    fn first_lsn(&self) -> Option<Lsn>;

    /// Where a segment begins behind this LSN: its place in the chain, though the record itself
    /// may be gone.
    fn base_at(&self, lsn: Lsn) -> Option<Link>;
}

/// Why a part of the log cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogFault {
    /// Its bytes have gone bad, up to this LSN.
    #[error("{story}")]
    Damaged { story: String, through: Lsn },
    /// The disk does not answer.
    #[error("{0}")]
    Failed(String),
}

/// The commands gathered in this turn, which become one record.
#[derive(Debug, Default)]
struct Batch {
    payload: BytesMut,
    clients: Vec<Client>,
}

/// What is done with a request that cannot be taken now.
enum Gate {
    Open,
    /// Not now, but soon: kept in order.
    Hold,
    /// Never ordered here: passed on to the successor.
    Forward(NodeId),
    Closed(Refusal),
}

/// Requests that came in while nothing could be ordered, in order.
#[derive(Debug)]
struct Held {
    session: SessionId,
    request: Request,
    since: Time,
}

pub struct Engine {
    pub(super) settings: EngineSettings,
    pub(super) identity: Identity,
    pub(super) replica: Replica,
    pub(super) state: State,
    log: Box<dyn LogSource>,
    clock: Option<LogClock>,
    pub(super) now: Now,
    pub(super) pending: Pending,
    pub(super) outcomes: Outcomes,
    pub(super) desk: Desk,
    pub(super) copies: Copies,
    pub(super) archive: Archiving,
    batch: Batch,
    /// The newest write of each session that may not be applied yet.
    pub(super) last_write: BTreeMap<SessionId, Lsn>,
    /// The session whose requests are being taken, once one of them was a write.
    gathered_by: Option<SessionId>,
    held: VecDeque<Held>,
    pub(super) forward_to: Option<(NodeId, Time)>,
    /// The story of an attestation that did not hold here: this node halts.
    pub(super) differs: Option<String>,
    pub(super) reached: Reached,
    /// Whom the shell was told to be connected with.
    pub(super) peers_told: Option<BTreeMap<NodeId, Peering>>,
    confirmed: u64,
    /// The LSN of the newest Tick that was ordered in this epoch.
    tick: Lsn,
    /// Nanoseconds that events of the newest record's batches may take beyond its own.
    events_ns: u64,
    /// Digests after the newest applied records, for the attestations to come.
    digests: VecDeque<(Lsn, Digest)>,
    attested: Attested,
    pub(super) disk_full: bool,
    /// What the scrubber found damaged on this node's disk.
    pub(super) damage: Option<String>,
    /// The log on disk is damaged up to here: a snapshot at or above it makes that part unneeded.
    pub(super) damaged_through: Lsn,
    pub(super) log_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) disk_bytes: u64,
    pub(super) is_witness: bool,
    /// The log keeps a mark that it must not be believed.
    is_log_suspect: bool,
    effects: Vec<Effect>,
    out: Vec<Output>,
    undone: Undone,
    disk_stalled: bool,
    wall_told: Option<Time>,
    shown: Option<Time>,
    show_now: bool,
    stopping: Option<Time>,
    replies: Vec<Reply>,
}

impl Engine {
    pub fn new(
        settings: EngineSettings,
        identity: Identity,
        replica: Replica,
        state: State,
        log: Box<dyn LogSource>,
        copies: Copies,
        is_witness: bool,
    ) -> Engine {
        let is_log_suspect = replica.meta().suspect;
        let mut engine = Engine {
            settings,
            identity,
            replica,
            state,
            log,
            clock: None,
            now: Now::default(),
            pending: Pending::default(),
            outcomes: Outcomes::default(),
            desk: Desk::default(),
            copies,
            archive: Archiving::default(),
            batch: Batch::default(),
            last_write: BTreeMap::new(),
            gathered_by: None,
            held: VecDeque::new(),
            forward_to: None,
            differs: None,
            reached: Reached::default(),
            peers_told: None,
            confirmed: 0,
            tick: Lsn::ZERO,
            events_ns: 0,
            digests: VecDeque::new(),
            attested: Attested::since(Lsn::ZERO),
            disk_full: false,
            damage: None,
            damaged_through: Lsn::ZERO,
            log_bytes: 0,
            free_bytes: u64::MAX,
            disk_bytes: 0,
            is_witness,
            is_log_suspect,
            effects: Vec::new(),
            out: Vec::new(),
            undone: Undone::default(),
            disk_stalled: false,
            wall_told: None,
            shown: None,
            show_now: true,
            stopping: None,
            replies: Vec::new(),
        };
        engine.state_begins();
        engine.tell_peers();
        engine
    }

    pub(super) fn time(&self) -> Time {
        Time(self.now.boot)
    }

    /// For those who look: tests, the simulator.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    pub fn is_taking_snapshot(&self) -> bool {
        self.copies.is_running()
    }

    /// The core's time at the last event.
    pub fn core_time(&self) -> Time {
        self.time()
    }

    /// Log time at this moment, where this node has led an epoch.
    pub fn log_time_at(&self, now: Now) -> Option<u64> {
        self.clock.map(|mut clock| clock.read(now))
    }

    /// Where the state stands, and its digest there.
    pub fn applied(&self) -> (Lsn, Digest) {
        (self.state.applied().lsn, self.state.digest())
    }

    /// All that is stored, to look at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The next attestation is made although nothing was written.
    pub(in crate::node) fn attest_again(&mut self) {
        self.attested.stale = true;
    }

    /// Whether this node's state at `lsn` is what the primary attested.
    pub(in crate::node) fn is_attested(&self, lsn: Lsn) -> bool {
        self.attested.covers(lsn)
    }

    /// The digests that are kept of the state's past, and attestations are held against.
    pub fn past_digests(&self) -> impl Iterator<Item = (Lsn, Digest)> + '_ {
        self.digests.iter().copied()
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Submit { session, requests } => self.submit(session, requests),
            Event::Link(event) => self.on_link(event),
            Event::Durable(lsn) => self.step(Input::Durable(lsn)),
            Event::Cut {
                end,
                durable,
                removed,
            } => {
                self.desk.removed(&removed, &mut self.out);
                self.step(Input::CutDone { end, durable });
            }
            Event::LogReset => self.on_log_reset(),
            Event::Space { full } => {
                self.disk_full = full;
                self.show_now = true;
            }
            Event::Trimmed { first_lsn } => self.step(Input::LogTrimmed { first_lsn }),
            Event::LogSize {
                log_bytes,
                free_bytes,
                disk_bytes,
            } => {
                self.log_bytes = log_bytes;
                self.free_bytes = free_bytes;
                self.disk_bytes = disk_bytes;
            }
            Event::MetaStored(serial) => self.step(Input::Persisted(serial)),
            Event::Copy(event) => self.on_copy(event),
            Event::Archived(standing) => self.on_archived(*standing),
            Event::Random(number) => self.step(Input::Random(number)),
            Event::Damage { story, through } => self.on_damage(story, through),
            Event::DiskFailed(story) => self.halt(story),
            Event::Shutdown { client } => self.on_shutdown(client),
        }
    }

    /// Ends the turn: orders what was gathered, applies what is committed, answers, and hands out
    /// what is to be done and who is answered what.
    pub fn end_turn(&mut self, now: Now) -> (Vec<Output>, Vec<(SessionId, Answer)>) {
        self.now = now;
        let due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= Time(now.boot));
        if due(self.replica.deadline()) {
            self.step(Input::Timeout);
        }
        self.close_batch();
        self.apply();
        self.drain_held();
        self.close_batch();
        self.keep_time();
        self.attest();
        self.watch_disk();
        self.tell_wall_clock();
        self.step(Input::TurnEnd);
        self.apply();
        self.pending
            .expire(self.time(), self.settings.write_timeout);
        self.mind_forwarded();
        self.desk_turn();
        self.copies_turn();
        self.archive_turn();
        self.stop_turn();
        self.show();
        (std::mem::take(&mut self.out), self.take_answers())
    }

    /// When a turn is wanted at the latest, if nothing happens before.
    pub fn deadline(&self) -> Option<Time> {
        if self.has_more_to_apply() {
            return Some(Time::ZERO);
        }
        let held = self
            .held
            .front()
            .map(|held| held.since.after(self.settings.write_timeout));
        let shown = self.shown.map(|at| at.after(limits::VIEW_INTERVAL));
        // Once it counts as stalled, only the disk's own answer changes that.
        let oldest = self.undone.since().filter(|_| !self.disk_stalled);
        let stalls = oldest.map(|since| since.after(self.settings.degraded_timeout));
        let attest = (self.attested.stale && self.replica.is_primary())
            .then(|| self.attested.at.after(self.settings.attest_interval));
        [
            self.replica.deadline(),
            self.pending.deadline(self.settings.write_timeout),
            self.desk.deadline(),
            self.copies.deadline(self.replica.has_own_log()),
            self.archive_deadline(),
            self.next_tick(),
            stalls,
            held,
            shown,
            attest,
            self.stopping,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
