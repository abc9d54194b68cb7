//! One node's turn: events in, order them, step the core, route its effects, apply, answer.
//!
//! Owns the replication core, the state and everything unanswered. No thread, no clock, no socket
//! and no file: `node::run` feeds it in production, the simulator feeds it in tests, and what must
//! be done in the world comes out as [`Output`]s, per target in order. A turn is any number of
//! `handle` calls and one `end_turn`; all writes that came in during a turn become one record.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::node::client::{Answer, Request, SessionId};
use crate::node::clock::{LogClock, Now};
use crate::node::copies::Copies;
use crate::node::desk::Desk;
use crate::node::link::LinkEvent;
use crate::node::meta::Identity;
use crate::node::outcomes::Outcomes;
use crate::node::pending::{Client, Pending};
use crate::node::refusal::Refusal;
use crate::node::view::View;
use crate::node::wire::{Frame, Head};
use crate::replication::Introduction;
use crate::replication::{Effect, Input, Loss, Meta, Order, Replica, StopReason, Time};
use crate::state::{Digest, Reply, State};
use bytes::{Bytes, BytesMut};
use standfast_wal::{History, Kind, Link, Lsn, NodeId, Record};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

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
    /// The oldest unanswered `Output::Cut` is done; the log ends here, and this was removed.
    Cut {
        end: Link,
        removed: Vec<Record>,
    },
    /// `Output::ResetLog` is done, durably.
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
    },
    /// `Output::StoreMeta` of this number is on disk, and all before it.
    MetaStored(u64),
    Copy(crate::node::copies::CopyEvent),
    Random(u128),
    /// A write or sync failed: final.
    DiskFailed(String),
    /// The operator stops the process: hand over first.
    Shutdown {
        client: Option<Client>,
    },
}

/// What the shell must do: per target in order, across targets in any order.
#[derive(Debug)]
pub enum Output {
    /// Log: append; answered by `Event::Durable` (many by one).
    Append(Record),
    /// Log: move all after `after` aside; answered by `Event::Cut`.
    Cut {
        after: Lsn,
    },
    /// Log: the next segment carries this history.
    Roll(History),
    /// Log: empty, begins behind `base`; answered by `Event::LogReset`.
    ResetLog {
        base: Link,
        history: History,
        verified: Lsn,
    },
    /// Log: all of it was verified against a primary; suspicion ends.
    TrustLog,
    /// Log: records at or below this LSN are no longer needed.
    Trim {
        through: Lsn,
    },
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
    Peers(BTreeMap<NodeId, String>),
    Snapshot(crate::node::copies::CopyOutput),
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
    fn read(&self, after: Lsn, max_bytes: usize) -> Result<Option<Vec<Record>>, String>;
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
    batch: Batch,
    /// The newest write of each session that may not be applied yet.
    last_write: BTreeMap<SessionId, Lsn>,
    /// The session whose requests are being taken, once one of them was a write.
    gathered_by: Option<SessionId>,
    held: VecDeque<Held>,
    forward_to: Option<(NodeId, Time)>,
    confirmed: u64,
    /// The LSN of the newest Tick that was ordered in this epoch.
    tick: Lsn,
    /// Digests after the newest applied records, for the attestations to come.
    digests: VecDeque<(Lsn, Digest)>,
    attested: Attested,
    pub(super) disk_full: bool,
    pub(super) log_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) is_witness: bool,
    effects: Vec<Effect>,
    out: Vec<Output>,
    /// Appended records that are not durable yet: last LSN, and since when.
    undone: VecDeque<(Lsn, Time)>,
    disk_stalled: bool,
    wall_told: Option<Time>,
    shown: Option<Time>,
    show_now: bool,
    stopping: Option<Time>,
    replies: Vec<Reply>,
}

/// When the next attestation is due.
#[derive(Debug, Default)]
struct Attested {
    at: Time,
    /// Commands were applied since.
    stale: bool,
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
            batch: Batch::default(),
            last_write: BTreeMap::new(),
            gathered_by: None,
            held: VecDeque::new(),
            forward_to: None,
            confirmed: 0,
            tick: Lsn::ZERO,
            digests: VecDeque::new(),
            attested: Attested::default(),
            disk_full: false,
            log_bytes: 0,
            free_bytes: u64::MAX,
            is_witness,
            effects: Vec::new(),
            out: Vec::new(),
            undone: VecDeque::new(),
            disk_stalled: false,
            wall_told: None,
            shown: None,
            show_now: true,
            stopping: None,
            replies: Vec::new(),
        };
        engine.out.push(Output::Peers(engine.peers_wanted()));
        engine
    }

    pub(super) fn time(&self) -> Time {
        Time(self.now.boot)
    }

    /// For those who look: tests, the simulator.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The core's time at the last event.
    pub fn core_time(&self) -> Time {
        self.time()
    }

    /// Where the state stands, and its digest there.
    pub fn applied(&self) -> (Lsn, Digest) {
        (self.state.applied().lsn, self.state.digest())
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Submit { session, requests } => self.submit(session, requests),
            Event::Link(event) => self.on_link(event),
            Event::Durable(lsn) => self.step(Input::Durable(lsn)),
            Event::Cut { end, removed } => {
                self.desk.removed(removed, &mut self.out);
                self.step(Input::CutDone(end));
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
            } => {
                self.log_bytes = log_bytes;
                self.free_bytes = free_bytes;
            }
            Event::MetaStored(serial) => self.step(Input::Persisted(serial)),
            Event::Copy(event) => self.on_copy(event),
            Event::Random(number) => self.step(Input::Random(number)),
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
        let generation = self.replica.history().generation;
        self.pending
            .expire(self.time(), self.settings.write_timeout, generation);
        self.desk_turn();
        self.copies_turn();
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
        let attest = (self.attested.stale && self.replica.is_primary())
            .then(|| self.attested.at.after(self.settings.attest_interval));
        [
            self.replica.deadline(),
            self.pending.deadline(self.settings.write_timeout),
            self.desk.deadline(),
            self.copies.deadline(),
            self.next_tick(),
            self.undone
                .front()
                .map(|(_, since)| since.after(self.settings.degraded_timeout)),
            held,
            shown,
            attest,
            self.stopping,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // --- The core -----------------------------------------------------------------------------

    /// Steps the core and routes what it wants done.
    pub(super) fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.replica.step(Time(self.now.boot), input, &mut effects);
        for effect in effects.drain(..) {
            self.route(effect);
        }
        self.effects = effects;
    }

    fn route(&mut self, effect: Effect) {
        match effect {
            Effect::Append(record) => {
                self.undone.push_back((record.last_lsn(), self.time()));
                self.out.push(Output::Append(record));
            }
            Effect::Cut { after, loss } => {
                self.on_cut(after, loss);
                self.out.push(Output::Cut { after });
            }
            Effect::Roll(history) => self.out.push(Output::Roll(history)),
            Effect::Send(to, message) => self.send_core(to, message),
            Effect::Persist(meta, serial) => self.out.push(Output::StoreMeta { meta, serial }),
            Effect::ReadLog {
                to,
                after,
                max_bytes,
            } => self.read_log(to, after, max_bytes),
            Effect::SendSnapshot { to, at_least } => self.offer_snapshot(to, at_least),
            Effect::AcceptSnapshot { from } => self.accept_snapshot(from),
            Effect::RefuseSnapshot { from, why } => self.refuse_snapshot(from, &why),
            Effect::InstallSnapshot { head, loss } => self.install_snapshot(&head, loss),
            // What may be applied is read from the core at the end of the turn.
            Effect::Committed(_) => {}
            Effect::Confirmed(round) => {
                self.confirmed = round;
                self.pending.confirmed(round);
            }
            Effect::Serving { epoch } => self.on_serving(epoch),
            Effect::StopServing(reason) => self.on_stop_serving(reason),
            Effect::NewConfig => {
                self.out.push(Output::Peers(self.peers_wanted()));
                self.show_now = true;
            }
            Effect::Answer(ticket, result) => self.on_order_done(ticket, result),
            Effect::Event(text) => self.note(text),
            Effect::DrawRandom => self.out.push(Output::Random),
            Effect::Halt(story) => self.halt(story),
        }
    }

    pub(super) fn halt(&mut self, story: String) {
        self.out.push(Output::Halt(story));
    }

    /// Puts a line into the event list and the log.
    pub(super) fn note(&mut self, text: String) {
        self.desk.note(self.now.wall, &text);
        self.show_now = true;
        self.out.push(Output::Log(text));
    }

    pub(super) fn emit(&mut self, output: Output) {
        self.out.push(output);
    }

    fn send_core(&mut self, to: NodeId, mut message: crate::replication::Message) {
        let records = message.take_records();
        self.out.push(Output::Send {
            to,
            frame: Frame {
                head: Head::Core { message },
                records,
            },
        });
    }

    pub(super) fn send(&mut self, to: NodeId, head: Head) {
        self.out.push(Output::Send {
            to,
            frame: Frame::plain(head),
        });
    }

    fn on_link(&mut self, event: LinkEvent) {
        use crate::replication::LinkEvent as Core;
        match event {
            LinkEvent::Up { peer, hello } => {
                self.step(Input::Link(peer, Core::Up(hello.incarnation)));
            }
            LinkEvent::Down { peer } => {
                self.lost_link(peer);
                self.step(Input::Link(peer, Core::Down));
            }
            LinkEvent::Refused { peer } => self.step(Input::Link(peer, Core::Refused)),
            LinkEvent::Frame {
                from,
                incarnation,
                frame,
            } => match frame.head {
                Head::Core { mut message } => {
                    self.learn_address(from, &message.body);
                    message.set_records(frame.records);
                    self.step(Input::Message {
                        from,
                        incarnation,
                        message,
                    });
                }
                Head::Forward { commands } => self.on_forward(from, commands),
                Head::Replied { replies } => self.on_replied(from, replies),
                Head::Copy(piece) => self.on_piece(from, piece),
                // The link itself has dealt with these.
                Head::Hello(_) | Head::Refused(_) => {}
            },
        }
    }

    /// A newcomer says where it is reached: it is in nobody's settings and in no Config yet.
    fn learn_address(&mut self, from: NodeId, body: &crate::replication::Body) {
        let crate::replication::Body::Join { addresses, .. } = body else {
            return;
        };
        let known = self.settings.seeds.get(&from) == Some(&addresses.peer);
        let bounded = self.settings.seeds.len() < limits::MEMBERS_MAX;
        if !known && bounded && !addresses.peer.is_empty() {
            self.settings.seeds.insert(from, addresses.peer.clone());
            self.out.push(Output::Peers(self.peers_wanted()));
        }
    }

    /// Serves a peer from the log's files.
    fn read_log(&mut self, to: NodeId, after: Lsn, max_bytes: u64) {
        let max = usize::try_from(max_bytes).unwrap_or(limits::APPEND_BYTES);
        let read = self.link_at(after).and_then(|previous| {
            let records = self.log.read(after, max)?;
            Ok(previous.zip(records))
        });
        let input = match read {
            Ok(Some((previous, records))) if !records.is_empty() => Input::LogRead {
                to,
                previous,
                records,
            },
            Ok(_) => Input::LogGone { to },
            Err(story) => return self.halt(story),
        };
        self.step(input);
    }

    /// What the record behind `lsn` follows; `None` when the log no longer says.
    fn link_at(&self, lsn: Lsn) -> Result<Option<Link>, String> {
        if lsn == Lsn::ZERO {
            return Ok(Some(Link::default()));
        }
        let newest = self.copies.newest.as_ref().map(|newest| newest.head.link);
        if let Some(link) = newest.filter(|link| link.position.lsn == lsn) {
            return Ok(Some(link));
        }
        let before = self.log.read(Lsn(lsn.0 - 1), 1)?;
        Ok(before.and_then(|records| records.first().map(Record::link)))
    }

    /// Everything that this node's log holds from `first` on, for a loss statement.
    pub(super) fn records_from(&self, first: Lsn) -> Vec<Record> {
        let mut records = Vec::new();
        let mut after = Lsn(first.0 - 1);
        while after < self.replica.tip().position.lsn {
            let more = match self.replica.records_after(after) {
                Some(more) => more.cloned().collect(),
                None => self
                    .log
                    .read(after, limits::APPEND_BYTES)
                    .ok()
                    .flatten()
                    .unwrap_or_default(),
            };
            let Some(last) = more.last() else { break };
            after = last.last_lsn();
            records.extend(more);
        }
        records
    }

    fn on_cut(&mut self, after: Lsn, loss: Loss) {
        self.desk
            .cutting(self.now.wall, self.identity.node, after, loss);
        self.note(format!(
            "cutting the log after {after}: {}..{} never became part of the history",
            loss.first_lsn, loss.last_lsn
        ));
    }

    fn on_serving(&mut self, epoch: standfast_wal::Epoch) {
        self.forward_to = None;
        self.tick = Lsn::ZERO;
        self.attested.stale = true;
        self.note(format!("serving as primary of epoch {epoch}"));
    }

    fn on_stop_serving(&mut self, reason: StopReason) {
        self.clock = None;
        self.tick = Lsn::ZERO;
        let batch = std::mem::take(&mut self.batch);
        let next = match reason {
            StopReason::HandedOver { to } => {
                self.forward_to = Some((to, self.time().after(limits::FORWARD_FOR)));
                Some(to)
            }
            StopReason::Fenced { .. } | StopReason::NewHistory => {
                self.forward_to = None;
                None
            }
        };
        // Not yet a record: never ordered, so it may be passed on or refused for good.
        let commands: Vec<Bytes> = crate::state::command::iter(batch.payload.freeze())
            .flatten()
            .collect();
        for (client, command) in batch.clients.into_iter().zip(commands) {
            match next {
                Some(to) => self.forward_write(to, client, command),
                None => self.pending.refuse(client, self.not_primary()),
            }
        }
        let refusal = match reason {
            StopReason::HandedOver { to } => Refusal::HandingOver {
                to: self.address_of(to),
            },
            _ => self.not_primary(),
        };
        match next {
            Some(to) => self.forward_reads(to),
            None => self.pending.refuse_reads(&refusal),
        }
        self.note(format!("no longer serving as primary: {reason:?}"));
    }

    // --- Requests -----------------------------------------------------------------------------

    fn submit(&mut self, session: SessionId, requests: Vec<Request>) {
        let since = self.time();
        let mut requests = requests.into_iter();
        if self.held.is_empty() {
            let mut gate = self.gate();
            for request in requests.by_ref() {
                if let Some(kept) = self.take(session, request, &mut gate) {
                    self.held.push_back(Held {
                        session,
                        request: kept,
                        since,
                    });
                    break;
                }
            }
        }
        // Behind something held, everything keeps its place in the order.
        self.held.extend(requests.map(|request| Held {
            session,
            request,
            since,
        }));
        self.note_writes();
    }

    fn drain_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut gate = self.gate();
        while let Some(Held {
            session,
            request,
            since,
        }) = self.held.pop_front()
        {
            let overdue = since.after(self.settings.write_timeout) <= self.time();
            if overdue && matches!(gate, Gate::Hold) {
                gate = Gate::Closed(self.overdue());
            }
            let kept = self.take(session, request, &mut gate);
            self.note_writes();
            if let Some(request) = kept {
                self.held.push_front(Held {
                    session,
                    request,
                    since,
                });
                break;
            }
        }
    }

    /// Remembers how far the session's own writes go, for its reads to come.
    fn note_writes(&mut self) {
        let Some(session) = self.gathered_by.take() else {
            return;
        };
        self.last_write.insert(session, self.last_lsn());
        if self.last_write.len() > limits::SESSIONS_REMEMBERED {
            let applied = self.state.applied().lsn;
            self.last_write.retain(|_, lsn| *lsn > applied);
        }
    }

    fn overdue(&self) -> Refusal {
        match self.replica.admit() {
            Err(refusal) => self.refusal(refusal),
            Ok(()) => Refusal::Busy { what: "ordering" },
        }
    }

    /// Whether linearizable work may be taken now, and what to do with it if not.
    fn gate(&self) -> Gate {
        if self.stopping.is_some() && !self.replica.is_primary() {
            return Gate::Closed(Refusal::Stopping);
        }
        use crate::replication::Refusal as Core;
        match self.replica.admit() {
            Ok(()) => Gate::Open,
            Err(Core::Starting | Core::Busy | Core::HandingOver { .. }) => Gate::Hold,
            Err(refusal @ Core::NotPrimary { .. }) => match self.forward_to {
                Some((to, until)) if self.time() < until => Gate::Forward(to),
                _ => Gate::Closed(self.refusal(refusal)),
            },
            Err(refusal) => Gate::Closed(self.refusal(refusal)),
        }
    }

    /// Takes one request; gives it back when it must wait.
    fn take(&mut self, session: SessionId, request: Request, gate: &mut Gate) -> Option<Request> {
        use crate::node::client::Op;
        let client = Client {
            session,
            seq: request.seq,
        };
        match request.op {
            Op::Write(command) => match gate {
                Gate::Open => {
                    self.gather(client, &command);
                    // A full batch is closed, and the core may then say Busy.
                    if self.batch.clients.is_empty() {
                        *gate = self.gate();
                    }
                }
                Gate::Hold => {
                    return Some(Request {
                        seq: request.seq,
                        op: Op::Write(command),
                    });
                }
                Gate::Forward(to) => self.forward_write(*to, client, command),
                Gate::Closed(refusal) => self.pending.refuse(client, refusal.clone()),
            },
            Op::Read {
                command,
                stale: true,
            } => self.read_stale(client, &command),
            Op::Read {
                command,
                stale: false,
            } => match gate {
                Gate::Hold if !self.replica.is_primary() || self.replica_is_starting() => {
                    let op = Op::Read {
                        command,
                        stale: false,
                    };
                    return Some(Request {
                        seq: request.seq,
                        op,
                    });
                }
                Gate::Forward(to) => self.forward_read(*to, client, &command),
                // A primary that takes no writes may still answer reads, if it is confirmed.
                _ => self.read(client, command),
            },
            Op::Control(control) => self.on_control(client, *control),
        }
        None
    }

    fn replica_is_starting(&self) -> bool {
        matches!(
            self.replica.admit(),
            Err(crate::replication::Refusal::Starting)
        )
    }

    fn gather(&mut self, client: Client, command: &Bytes) {
        if self.settings.quarantined {
            return self.pending.refuse(client, Refusal::Quarantined);
        }
        if self.disk_full {
            return self.pending.refuse(client, Refusal::DiskFull);
        }
        if self.settings.max_memory > 0
            && self.state.used_bytes() > self.settings.max_memory
            && crate::state::command::may_grow(command)
        {
            let (used_bytes, limit_bytes) = (self.state.used_bytes(), self.settings.max_memory);
            return self.pending.refuse(
                client,
                Refusal::OutOfMemory {
                    used_bytes,
                    limit_bytes,
                },
            );
        }
        if command.len() > limits::COMMAND_BYTES_MAX {
            let (bytes, limit_bytes) = (command.len(), limits::COMMAND_BYTES_MAX);
            return self
                .pending
                .refuse(client, Refusal::TooLarge { bytes, limit_bytes });
        }
        crate::state::command::push(&mut self.batch.payload, command);
        self.gathered_by = Some(client.session);
        self.batch.clients.push(client);
        if self.batch.payload.len() >= limits::BATCH_BYTES
            || self.batch.clients.len() >= limits::BATCH_COMMANDS_MAX
        {
            self.close_batch();
        }
    }

    /// The LSN that the newest gathered or ordered command has or will have.
    fn last_lsn(&self) -> Lsn {
        Lsn(self.replica.tip().position.lsn.0 + self.batch.clients.len() as u64)
    }

    /// Orders what was gathered as one record.
    pub(super) fn close_batch(&mut self) {
        if self.batch.clients.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let Batch { payload, clients } = batch;
        let count = u32::try_from(clients.len()).expect("at most BATCH_COMMANDS_MAX");
        if let Some(record) = self.propose(Kind::Commands, count, &payload) {
            self.pending.ordered(self.time(), &record, clients);
        } else {
            // Only a role change inside this turn gets here, and `on_stop_serving` has taken the
            // batch then; a primary that merely says Busy or NoReplicas now never ordered these.
            let refusal = self.overdue();
            for client in clients {
                self.pending.refuse(client, refusal.clone());
            }
        }
    }

    /// Builds the next record and proposes it; `None` if the core admits nothing now.
    pub(super) fn propose(&mut self, kind: Kind, count: u32, payload: &[u8]) -> Option<Record> {
        let admitted = match self.replica.admit() {
            Ok(()) => true,
            // Commands were admitted when they were gathered; more may have been ordered since.
            Err(crate::replication::Refusal::Busy) => kind != Kind::Attestation,
            Err(_) => false,
        };
        if !admitted {
            return None;
        }
        let tip = self.replica.tip();
        let timestamp = self.log_time().max(tip.timestamp + 1);
        let record = Record::build(tip, kind, self.replica.epoch(), timestamp, count, payload);
        self.step(Input::Propose(record.clone()));
        Some(record)
    }

    // --- Time ---------------------------------------------------------------------------------

    /// Log time now, on a primary. Starts the epoch's clock at the first call.
    fn log_time(&mut self) -> u64 {
        let last = self.replica.tip().timestamp;
        let median = self.replica.clock_median();
        let max_step = u64::try_from(self.settings.max_clock_step.as_nanos()).unwrap_or(u64::MAX);
        let now = self.now;
        let clock = self
            .clock
            .get_or_insert_with(|| LogClock::start(now, last, median, max_step));
        clock.read(now).max(last)
    }

    /// Commits a Tick where the clock has passed a deadline that log time has not: what expires is
    /// decided by log time only, and an idle store still forgets what is due.
    fn keep_time(&mut self) {
        if !self.replica.is_primary() || self.tick > self.state.applied().lsn {
            return;
        }
        let Some(deadline) = self.state.next_deadline() else {
            return;
        };
        if deadline <= self.log_time() {
            self.order_tick();
        }
    }

    fn order_tick(&mut self) {
        self.close_batch();
        if let Some(record) = self.propose(Kind::Tick, 1, &[]) {
            self.tick = record.last_lsn();
        }
    }

    fn next_tick(&self) -> Option<Time> {
        if !self.replica.is_primary() || self.tick > self.state.applied().lsn {
            return None;
        }
        let clock = self.clock?;
        let deadline = self.state.next_deadline()?;
        let wait = deadline
            .saturating_sub({ clock }.read(self.now))
            .max(limits::TICK_MIN_NS);
        Some(Time(self.now.boot.saturating_add(wait)))
    }

    /// Names an applied LSN and the digest there, so that every copy can prove itself equal.
    fn attest(&mut self) {
        if !self.attested.stale
            || !self.replica.is_primary()
            || self.attested.at.after(self.settings.attest_interval) > self.time()
        {
            return;
        }
        let attestation = crate::state::Attestation {
            lsn: self.state.applied().lsn,
            digest: self.state.digest(),
        };
        if attestation.lsn == Lsn::ZERO {
            return;
        }
        self.close_batch();
        if self
            .propose(Kind::Attestation, 1, &attestation.encode())
            .is_some()
        {
            self.attested = Attested {
                at: self.time(),
                stale: false,
            };
        }
    }

    // --- Reads --------------------------------------------------------------------------------

    fn read(&mut self, client: Client, command: crate::state::Command) {
        let ticket = match self.replica.read(self.time()) {
            Ok(ticket) => ticket,
            Err(refusal) => return self.pending.refuse(client, self.refusal(refusal)),
        };
        let mut after = ticket.after;
        // The session's own writes, gathered or ordered, come before its read.
        if let Some(lsn) = self.last_write.get(&client.session) {
            after = after.max(*lsn);
        }
        if self.gathered_by == Some(client.session) {
            after = after.max(self.last_lsn());
        }
        if let Some(due) = self.state.next_expiry()
            && due <= self.log_time()
        {
            if self.replica.tip().timestamp < due {
                self.order_tick();
            }
            after = after.max(self.replica.tip().position.lsn);
        }
        if after <= self.state.applied().lsn {
            let reply = self.state.read(&command);
            let lsn = self.state.applied().lsn;
            let now = self.time();
            self.pending.evaluated(
                now,
                client,
                command,
                lsn,
                ticket.round,
                self.confirmed,
                reply,
            );
        } else {
            self.pending
                .read_at(self.time(), after, client, command, ticket.round);
        }
    }

    /// A read that this node answers by itself, within `max_staleness` on its own clock.
    fn read_stale(&mut self, client: Client, command: &crate::state::Command) {
        if self.is_witness {
            let primary = self.primary_address();
            return self.pending.refuse(client, Refusal::Witness { primary });
        }
        let limit = self.settings.max_staleness;
        let age = self.staleness();
        if self.replica.is_primary() || age.is_some_and(|age| age <= limit) {
            let reply = self.state.read(command);
            self.pending
                .answer(client, self.state.applied().lsn, Default::default(), reply);
            return;
        }
        let refusal = Refusal::TooStale {
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            primary: self.primary_address(),
        };
        self.pending.refuse(client, refusal);
    }

    /// How old what this backup shows may be; `None`: not known.
    pub(super) fn staleness(&self) -> Option<Duration> {
        let (lsn, at) = self.replica.freshness()?;
        (self.state.applied().lsn >= lsn).then(|| self.time().since(at))
    }

    // --- Applying -----------------------------------------------------------------------------

    fn may_apply(&self) -> Lsn {
        self.replica.commit().min(self.replica.durable())
    }

    fn has_more_to_apply(&self) -> bool {
        !self.is_witness
            && !self.copies.is_installing()
            && self.state.applied().lsn < self.may_apply()
    }

    /// Applies committed records that are durable here, in order; a bounded share per turn.
    fn apply(&mut self) {
        let mut budget = limits::APPLY_BYTES_PER_TURN;
        let before = self.state.applied().lsn;
        while self.has_more_to_apply() && budget > 0 {
            let applied = self.state.applied().lsn;
            let through = self.may_apply();
            let in_memory = self.replica.records_after(applied).map(|records| {
                let committed = records.take_while(|record| record.last_lsn() <= through);
                committed
                    .take(limits::APPLY_RECORDS_AT_ONCE)
                    .cloned()
                    .collect::<Vec<_>>()
            });
            let records = match in_memory {
                Some(records) => records,
                None => match self.log.read(applied, limits::APPEND_BYTES) {
                    Ok(Some(records)) => records,
                    Ok(None) => {
                        return self.halt(format!(
                            "the log no longer has what follows {applied}, which is applied; \
                             restore this node from a snapshot"
                        ));
                    }
                    Err(story) => return self.halt(story),
                },
            };
            for record in records
                .iter()
                .take_while(|record| record.last_lsn() <= through)
            {
                budget = budget.saturating_sub(record.bytes().len());
                self.apply_record(record);
            }
            if self.state.applied().lsn == applied {
                break;
            }
        }
        let applied = self.state.applied().lsn;
        if applied > before {
            self.step(Input::Applied(applied));
        }
        let (state, confirmed) = (&self.state, self.confirmed);
        self.pending
            .evaluate(applied, confirmed, |command| state.read(command));
    }

    fn apply_record(&mut self, record: &Record) {
        assert!(
            record.last_lsn() <= self.replica.commit(),
            "I6: {record:?} is applied above commit {}",
            self.replica.commit()
        );
        let mut replies = std::mem::take(&mut self.replies);
        replies.clear();
        let (pending, confirmed) = (&mut self.pending, self.confirmed);
        self.state
            .apply_each(record, record.last_lsn(), |state, lsn, reply| {
                replies.push(reply);
                // Reads that wait for an LSN inside this record are answered from exactly that state.
                if pending.next_read() == Some(lsn) {
                    pending.evaluate(lsn, confirmed, |command| state.read(command));
                }
            });
        self.outcomes.push(record, &replies);
        let generation = self.replica.history().generation;
        self.pending.applied(generation, record, &mut replies);
        self.replies = replies;
        self.copies.applied = record.link();
        match record.kind() {
            Kind::Commands => self.attested.stale = true,
            Kind::Attestation => self.check_attestation(record),
            Kind::Operator => self.desk.operator_record(record),
            Kind::EpochStart | Kind::Tick => {}
        }
        self.digests
            .push_back((record.last_lsn(), self.state.digest()));
        if self.digests.len() > limits::DIGESTS_KEPT {
            self.digests.pop_front();
        }
    }

    // --- The disk and the clock ---------------------------------------------------------------

    /// Tells the core when the disk leaves a record undone for too long, and when it is back.
    fn watch_disk(&mut self) {
        let durable = self.replica.durable();
        while self.undone.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            self.undone.pop_front();
        }
        let limit = self.settings.degraded_timeout;
        let stalled = self
            .undone
            .front()
            .is_some_and(|(_, since)| since.after(limit) <= self.time());
        if stalled != self.disk_stalled {
            self.disk_stalled = stalled;
            self.step(Input::DiskStalled(stalled));
        }
    }

    fn tell_wall_clock(&mut self) {
        if self
            .wall_told
            .is_none_or(|at| at.after(limits::WALL_CLOCK_INTERVAL) <= self.time())
        {
            self.wall_told = Some(self.time());
            self.step(Input::WallClock(self.now.wall));
        }
    }

    /// I2: two nodes that have applied LSN n of one history have equal digests at n.
    fn check_attestation(&mut self, record: &Record) {
        let Some(attested) = crate::state::Attestation::decode(&record.payload()) else {
            return self.halt(format!("I3: the attestation {record:?} does not decode"));
        };
        let mine = self
            .digests
            .iter()
            .rev()
            .find(|(lsn, _)| *lsn == attested.lsn);
        if let Some((lsn, digest)) = mine
            && *digest != attested.digest
        {
            let story = format!(
                "I2: the state differs from the primary's at LSN {lsn}: digest {digest} here, {} \
                 attested. This node stops so that it serves nothing wrong; keep its data \
                 directory for analysis and give it an empty one",
                attested.digest
            );
            self.halt(story);
        }
    }

    // --- Stopping, showing, answering ---------------------------------------------------------

    fn on_shutdown(&mut self, client: Option<Client>) {
        if let Some(client) = client {
            self.pending
                .answer(client, Lsn::ZERO, Default::default(), Reply::Ok);
        }
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(self.time().after(limits::SHUTDOWN_FOR));
        if self.replica.is_primary() {
            let ticket = self.desk.silent_ticket();
            self.step(Input::Operator {
                ticket,
                order: Order::Switchover { to: None },
            });
        }
    }

    /// A stopping primary goes on until its successor has taken over, or nobody can.
    fn stop_turn(&mut self) {
        let Some(until) = self.stopping else { return };
        let handed_over = !self.replica.is_primary() && !self.pending.has_ordered();
        if handed_over || self.desk.silent_order_failed() || until <= self.time() {
            self.out.push(Output::Stop);
            self.stopping = Some(Time(u64::MAX));
        }
    }

    fn show(&mut self) {
        let due = self
            .shown
            .is_none_or(|at| at.after(limits::VIEW_INTERVAL) <= self.time());
        if !due && !self.show_now {
            return;
        }
        self.show_now = false;
        self.shown = Some(self.time());
        let view = self.view();
        self.out.push(Output::Show(Box::new(view)));
    }

    fn peers_wanted(&self) -> BTreeMap<NodeId, String> {
        let mut peers = self.settings.seeds.clone();
        for (id, member) in &self.replica.config().members {
            if !member.addresses.peer.is_empty() {
                peers.insert(*id, member.addresses.peer.clone());
            }
        }
        peers.remove(&self.identity.node);
        peers
    }

    pub(super) fn address_of(&self, id: NodeId) -> Option<String> {
        Some(
            self.replica
                .config()
                .members
                .get(&id)?
                .addresses
                .client
                .clone(),
        )
    }

    pub(super) fn primary_address(&self) -> Option<String> {
        self.replica.primary().and_then(|id| self.address_of(id))
    }

    pub(super) fn not_primary(&self) -> Refusal {
        Refusal::ReadOnly {
            primary: self.primary_address(),
        }
    }

    /// The core's refusal in the words of clients.
    pub(super) fn refusal(&self, refusal: crate::replication::Refusal) -> Refusal {
        use crate::replication::Refusal as Core;
        match refusal {
            Core::NotPrimary { .. } if self.is_witness => Refusal::Witness {
                primary: self.primary_address(),
            },
            Core::NotPrimary { primary: Some(id) } => Refusal::ReadOnly {
                primary: self.address_of(id),
            },
            Core::NotPrimary { primary: None } => Refusal::NoPrimary,
            Core::Starting => Refusal::Promoting,
            Core::NoReplicas => {
                let config = self.replica.config();
                Refusal::TooFewCopies {
                    needed: config.acks_needed.max(2),
                    present: self.present(),
                }
            }
            Core::Deaf => Refusal::Isolated,
            Core::Stalled => Refusal::DiskStalled,
            Core::HandingOver { to } => Refusal::HandingOver {
                to: self.address_of(to),
            },
            Core::LossBudget => Refusal::LossBudget,
            Core::Busy => Refusal::Busy { what: "ordering" },
            Core::Invalid(text) => Refusal::Operator(text),
        }
    }

    /// Members of the sync set that this node reaches, itself included.
    fn present(&self) -> u32 {
        let set = &self.replica.config().sync_set;
        let peers = self.replica.peers(self.time());
        let others = peers
            .iter()
            .filter(|peer| peer.connected && set.contains(&peer.id))
            .count();
        u32::try_from(others).unwrap_or(u32::MAX) + 1
    }
}
