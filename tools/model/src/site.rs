//! One node of a world: its disk, and the process that runs the production core on it.
//!
//! Everything here is part of the state, so that equal sites are one site. `turn` gives the core
//! one input and whatever follows from it at once, and says what the rest of the world sees of it.

use crate::outside::{OUTSIDE, Service};
use standfast::replication::epochs::EpochEntry;
use standfast::replication::register::{self, Value, Voter};
use standfast::replication::{
    Body, Effect, EpochTable, Input, Introduction, LinkEvent, LogFacts, Message, Meta, Order,
    ReadTicket, Replica, Settings, Time,
};
use standfast_wal::{Incarnation, Kind, Link, Lsn, NodeId, Record};
use std::collections::VecDeque;
use std::time::Duration;

/// A small step of a node's clock: a heartbeat is due, and with it whatever waits that long.
pub const TICK: Duration = Duration::from_secs(1);
/// A long step: whatever can expire on a node that is no primary has expired.
const LONG: Duration = Duration::from_secs(36_000);

/// Times such that one tick brings what a tick should, and one long step all the rest.
pub fn settings() -> Settings {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    Settings {
        heartbeat_interval: TICK,
        sync_timeout: TICK,
        join_timeout: TICK,
        fence_grace: TICK,
        stagger: TICK,
        // One record a message: each may be lost by itself.
        message_bytes: 1,
        hold_down: Duration::from_nanos(1),
        hold_down_max: Duration::from_nanos(1),
        failover_timeout: hours(2),
        attempt_timeout: hours(1),
        degraded_timeout: hours(1000),
        switchover_timeout: hours(1000),
        ..Settings::default()
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    pub meta: Meta,
    pub log: Vec<Record>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    Append(Record),
    Cut(Lsn),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    pub replica: Replica,
    /// What the log was told and has not made durable.
    pub work: VecDeque<Work>,
    /// The Meta that is on its way to the disk.
    pub persist: Option<(Box<Meta>, u64)>,
    /// What the register was asked last, and has not answered.
    pub asking: Option<register::Message>,
    /// Reads that wait for their confirmation, and what was committed when they came in.
    pub reads: Vec<(ReadTicket, Lsn)>,
    /// Committed records up to here were reported.
    pub checked: Lsn,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    pub disk: Disk,
    pub process: Option<Process>,
    pub clock: Time,
    /// Processes so far.
    pub lives: u8,
}

/// What may happen at one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Happening {
    Deliver(u16),
    /// The front of the log's queue becomes durable.
    Sync,
    /// The Meta under way becomes durable.
    Persist,
    Tick,
    /// Long enough nothing was heard; also the end of a candidate's attempt.
    Suspect,
    /// What was not synced is lost.
    Crash,
    Start,
    /// A peer's connection is new.
    Meets(u8),
    /// A peer's port refuses: its process is dead.
    Refused(u8),
    Write,
    /// A read comes in when this is committed.
    Read(u8),
    /// A switchover to this node is ordered.
    HandOver(u8),
    /// The register answers the question it was asked.
    Answered,
    /// It says that another value is chosen instead.
    Overtaken,
}

/// What the rest of the world sees of a turn, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// Records that this node has not known to be committed before; whether it is their primary.
    Committed(Vec<Record>, bool),
    /// It has begun an epoch behind this log.
    Reign(u64, Vec<Record>),
    /// It asks the register for this change: the value expected, the value wanted.
    Offered(Value, Value),
    /// An invariant that one node alone can break.
    Broken(Broken, String),
    Mark(Mark),
    /// It has begun to stand as candidate.
    Stands,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    I1,
    I3,
    I4,
    I5,
    I6,
    Halted,
    Panicked,
    /// The course of events that a world begins with is not possible any more.
    Script,
}

/// What an exploration must have seen, so that it does not pass for having seen nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Mark {
    WriteCommitted,
    Failover,
    SetShrunk,
    SetGrown,
    ReadAnswered,
    TailCut,
    SuffixCopied,
    RaceLost,
    Overtaken,
    CrashLost,
    HandedOver,
}

/// What a turn is made of besides the site: what is outside of it.
pub struct Around<'a> {
    pub service: &'a Service,
    pub peers: &'a [u8],
    pub quiet: Quiet,
}

/// What a world leaves out: it counts as lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiet {
    pub beats: bool,
    pub gossip: bool,
}

impl Quiet {
    pub const NOTHING: Quiet = Quiet {
        beats: false,
        gossip: false,
    };
}

pub struct Turn {
    pub site: Site,
    pub sent: Vec<(u8, Message)>,
    pub events: Vec<Event>,
}

pub fn incarnation(id: u8) -> Incarnation {
    Incarnation(u128::from(id) << 64)
}

impl Disk {
    pub fn tip(&self) -> Link {
        self.log.last().map_or(Link::default(), Record::link)
    }

    fn facts(&self) -> LogFacts {
        let epochs = self.log.iter().filter_map(EpochEntry::decode).collect();
        LogFacts {
            tip: self.tip(),
            committed: Lsn::ZERO,
            first_lsn: Lsn(1),
            epochs: EpochTable::new(epochs),
            suspect: false,
        }
    }

    fn apply(&mut self, work: Work) {
        match work {
            Work::Append(record) => {
                assert_eq!(record.follows(self.tip()), Ok(()), "{record:?} on disk");
                self.log.push(record);
            }
            Work::Cut(after) => self.log.retain(|record| record.last_lsn() <= after),
        }
    }
}

impl Site {
    pub fn new(meta: Meta) -> Site {
        let log = Vec::new();
        Site {
            disk: Disk { meta, log },
            process: None,
            clock: Time(1 << 60),
            lives: 0,
        }
    }

    pub fn id(&self) -> u8 {
        u8::try_from(self.disk.meta.node.0).expect("small worlds")
    }

    /// The log with what is not durable yet.
    pub fn written(&self) -> Vec<Record> {
        let mut disk = self.disk.clone();
        let work = self.process.iter().flat_map(|process| &process.work);
        work.for_each(|work| disk.apply(work.clone()));
        disk.log
    }

    /// A process begins; its random numbers are its own.
    fn start(&mut self) {
        self.lives += 1;
        let base = u128::from(self.id()) << 32 | u128::from(self.lives) << 16;
        let random = (1..=24).map(|number| base + number).collect();
        let member = &self.disk.meta.config.members[&self.disk.meta.node];
        let introduction = Introduction {
            role: member.role,
            voter: false,
            site: String::new(),
            priority: member.priority,
            addresses: member.addresses.clone(),
            asked: false,
        };
        let (meta, facts) = (self.disk.meta.clone(), self.disk.facts());
        let replica = Replica::new(settings(), self.clock, meta, facts, introduction, random);
        self.process = Some(Process {
            replica,
            work: VecDeque::new(),
            persist: None,
            asking: None,
            reads: Vec::new(),
            checked: Lsn::ZERO,
        });
    }

    /// What happens at this node, and all that follows from it here.
    pub fn turn(&self, what: Happening, from: Option<(u8, &Message)>, around: &Around) -> Turn {
        let mut turn = Turn {
            site: self.clone(),
            sent: Vec::new(),
            events: Vec::new(),
        };
        turn.happen(what, from, around);
        turn
    }
}

impl Turn {
    fn happen(&mut self, what: Happening, from: Option<(u8, &Message)>, around: &Around) {
        let inputs = match what {
            Happening::Deliver(_) => {
                let (from, message) = from.expect("a message is delivered");
                vec![message_input(from, message.clone())]
            }
            Happening::Sync => self.sync(),
            Happening::Persist => {
                let persist = self.process().persist.take();
                let (meta, serial) = persist.expect("a Meta is under way");
                self.site.disk.meta = *meta;
                vec![Input::Persisted(serial)]
            }
            Happening::Tick => {
                self.site.clock = self.site.clock.after(TICK);
                vec![Input::Timeout]
            }
            Happening::Suspect => return self.suspect(around),
            Happening::Crash => {
                if !self.process().work.is_empty() || self.process().persist.is_some() {
                    self.events.push(Event::Mark(Mark::CrashLost));
                }
                self.site.process = None;
                return;
            }
            Happening::Start => {
                self.site.start();
                let up =
                    |id: &u8| Input::Link(NodeId((*id).into()), LinkEvent::Up(incarnation(*id)));
                around
                    .peers
                    .iter()
                    .map(up)
                    .chain([Input::Timeout])
                    .collect()
            }
            Happening::Meets(id) => {
                let up = LinkEvent::Up(incarnation(id));
                vec![Input::Link(NodeId(id.into()), up)]
            }
            Happening::Refused(id) => {
                vec![Input::Link(NodeId(id.into()), LinkEvent::Refused)]
            }
            Happening::Write => vec![self.write()],
            Happening::Read(committed) => {
                let now = self.site.clock;
                let process = self.process();
                let ticket = process.replica.read(now).expect("a serving primary");
                process.reads.push((ticket, Lsn(committed.into())));
                vec![Input::TurnEnd]
            }
            Happening::HandOver(id) => {
                let to = Some(NodeId(id.into()));
                let order = Order::Switchover { to };
                vec![Input::Operator { ticket: 1, order }]
            }
            Happening::Answered | Happening::Overtaken => {
                let asking = self.process().asking.take().expect("a question");
                let late = what == Happening::Overtaken;
                if late {
                    self.events.push(Event::Mark(Mark::Overtaken));
                }
                let body = around.service.answer(&asking.body, late);
                vec![register_input(asking.history, body)]
            }
        };
        self.run(inputs.into(), around);
    }

    fn process(&mut self) -> &mut Process {
        self.site.process.as_mut().expect("it runs")
    }

    /// The log makes durable what is at the front of its queue: a cut, or all appends up to one.
    fn sync(&mut self) -> Vec<Input> {
        let mut input = None;
        while let Some(work) = self.process().work.front().cloned() {
            let cut = matches!(work, Work::Cut(_));
            if cut && input.is_some() {
                break;
            }
            self.process().work.pop_front();
            self.site.disk.apply(work);
            let link = self.site.disk.tip();
            input = Some(match cut {
                true => Input::CutDone(link),
                false => Input::Durable(link.position.lsn),
            });
            if cut {
                break;
            }
        }
        input.into_iter().collect()
    }

    /// Time passes until this node stands as candidate, again if it did; or until it is clear that
    /// it will not.
    fn suspect(&mut self, around: &Around) {
        let before = self.process().replica.attempt();
        for _ in 0..4 {
            let due = self.process().replica.deadline();
            let long = self.site.clock.after(LONG);
            self.site.clock = due.map_or(long, |due| due.max(long));
            self.run(VecDeque::from([Input::Timeout]), around);
            let now = self.process().replica.attempt();
            if now.is_some() && now != before {
                return;
            }
        }
    }

    fn write(&mut self) -> Input {
        let payload = [self.site.id(), self.site.lives];
        let replica = &self.process().replica;
        let (tip, epoch) = (replica.tip(), replica.epoch());
        let stamp = tip.timestamp + 1;
        Input::Propose(Record::build(
            tip,
            Kind::Commands,
            epoch,
            stamp,
            1,
            &payload,
        ))
    }

    fn run(&mut self, mut inputs: VecDeque<Input>, around: &Around) {
        let now = self.site.clock;
        let mut rest = 4;
        loop {
            let Some(input) = inputs.pop_front() else {
                // What is due at this moment happens at this moment.
                let due = self.process().replica.deadline();
                if due.is_none_or(|due| due > now) || rest == 0 {
                    break;
                }
                rest -= 1;
                inputs.push_back(Input::Timeout);
                continue;
            };
            let replica = &self.process().replica;
            let (attempt, primary) = (replica.attempt(), replica.is_primary());
            let counted: Vec<u8> = around
                .peers
                .iter()
                .copied()
                .filter(|id| counts(replica, *id))
                .collect();
            let mut effects = Vec::new();
            self.process().replica.step(now, input, &mut effects);
            let replica = &self.process().replica;
            if replica.attempt().is_some() && replica.attempt() != attempt {
                self.events.push(Event::Stands);
            }
            let begun = !primary && self.process().replica.is_primary();
            for effect in effects {
                self.effect(effect, begun, &counted, &mut inputs, around);
            }
            self.note_committed();
            self.answer_reads();
        }
    }

    fn effect(
        &mut self,
        effect: Effect,
        begun: bool,
        counted: &[u8],
        inputs: &mut VecDeque<Input>,
        around: &Around,
    ) {
        match effect {
            Effect::Append(record) => {
                if record.kind() == Kind::EpochStart && begun {
                    let log = self.site.written();
                    self.events.push(Event::Reign(record.epoch().0, log));
                }
                self.process().work.push_back(Work::Append(record));
            }
            Effect::Cut { after, .. } => {
                self.events.push(Event::Mark(Mark::TailCut));
                self.process().work.push_back(Work::Cut(after));
            }
            Effect::Send(to, message) if to == OUTSIDE => self.ask(message, inputs, around),
            Effect::Send(to, message) => self.send(to, message, counted, around),
            Effect::Persist(meta, serial) => self.process().persist = Some((meta, serial)),
            Effect::ReadLog { to, after, .. } => inputs.push_back(self.read_log(to, after)),
            Effect::StopServing(_) => self.process().reads.clear(),
            Effect::Halt(story) => self.events.push(Event::Broken(Broken::Halted, story)),
            Effect::SendSnapshot { .. }
            | Effect::AcceptSnapshot { .. }
            | Effect::RefuseSnapshot { .. }
            | Effect::InstallSnapshot { .. } => {
                let story = format!("no log was trimmed, and yet {effect:?}");
                self.events.push(Event::Broken(Broken::Halted, story));
            }
            Effect::Answer(..)
            | Effect::Committed(_)
            | Effect::Confirmed(_)
            | Effect::Serving { .. }
            | Effect::Roll(_)
            | Effect::NewConfig
            | Effect::Event(_)
            | Effect::DrawRandom => {}
        }
    }

    /// To the outside: a question of the register, or of whether the primary is lost, which it is.
    fn ask(&mut self, message: Message, inputs: &mut VecDeque<Input>, around: &Around) {
        let history = message.history;
        match message.body {
            Body::Ask { attempt, .. } => {
                let lost = true;
                let body = Body::Asked { attempt, lost };
                inputs.push_back(message_input(outside(), Message { history, body }));
            }
            Body::Register(asked) => match &asked.body {
                // A read, or the first half of a change: at once.
                register::Body::Prepare { .. } => {
                    let body = around.service.answer(&asked.body, false);
                    inputs.push_back(register_input(history, body));
                }
                register::Body::Accept { proposal, .. } => {
                    let parent = proposal.parent.clone();
                    let parent = parent.expect("the outside holds its value for chosen");
                    self.events
                        .push(Event::Offered(parent, proposal.value.clone()));
                    self.process().asking = Some(asked);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn send(&mut self, to: NodeId, message: Message, counted: &[u8], around: &Around) {
        let id = u8::try_from(to.0).expect("small worlds");
        let gossip = match &message.body {
            Body::AskConfig { .. } | Body::Configured { .. } | Body::Register(_) => true,
            Body::Heartbeat(_) if around.quiet.beats => return,
            _ => false,
        };
        if gossip && around.quiet.gossip {
            return;
        }
        if let Body::Append { records, .. } = &message.body {
            let last = records.last().map_or(Lsn::ZERO, Record::last_lsn);
            let replica = &self.process().replica;
            let commit = replica.commit();
            if last > commit && !counts(replica, id) && !counted.contains(&id) {
                let story = format!("{last} is sent to n{to}, committed is {commit}");
                self.events.push(Event::Broken(Broken::I6, story));
            }
        }
        match &message.body {
            Body::Fetched { .. } => self.events.push(Event::Mark(Mark::SuffixCopied)),
            Body::HandOver { .. } => self.events.push(Event::Mark(Mark::HandedOver)),
            _ => {}
        }
        self.sent.push((id, message));
    }

    fn read_log(&mut self, to: NodeId, after: Lsn) -> Input {
        let log = &self.site.disk.log;
        let at = log
            .iter()
            .position(|record| record.first_lsn() == after.next());
        let Some(at) = at else {
            return Input::LogGone { to };
        };
        let before = at.checked_sub(1).map(|before| log[before].link());
        Input::LogRead {
            to,
            previous: before.unwrap_or_default(),
            // As `message_bytes` wants it: one.
            records: vec![log[at].clone()],
        }
    }

    fn note_committed(&mut self) {
        let process = self.process();
        let (commit, checked) = (process.replica.commit(), process.checked);
        if commit <= checked {
            return;
        }
        process.checked = commit;
        let primary = process.replica.is_primary();
        let mut records = self.site.written();
        records.retain(|record| record.last_lsn() <= commit);
        self.events.push(Event::Committed(records, primary));
    }

    /// I4: what a confirmed read sees is all that was committed when it came in.
    fn answer_reads(&mut self) {
        let process = self.process();
        let confirmed = process.replica.confirmed();
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.reads)
            .into_iter()
            .partition(|(ticket, _)| ticket.round <= confirmed);
        process.reads = rest;
        for (ticket, floor) in done {
            self.events.push(Event::Mark(Mark::ReadAnswered));
            if ticket.after < floor {
                let story = format!("a read sees {} of {floor} committed", ticket.after);
                self.events.push(Event::Broken(Broken::I4, story));
            }
        }
    }
}

fn outside() -> u8 {
    u8::try_from(OUTSIDE.0).expect("small worlds")
}

fn counts(replica: &Replica, id: u8) -> bool {
    replica.is_counted(NodeId(id.into()))
}

fn message_input(from: u8, message: Message) -> Input {
    Input::Message {
        from: NodeId(from.into()),
        incarnation: incarnation(from),
        message,
    }
}

fn register_input(history: standfast_wal::History, body: register::Body) -> Input {
    let message = register::Message { history, body };
    let body = Body::Register(message);
    message_input(outside(), Message { history, body })
}

/// The identity of the outside, as the register counts it.
pub fn outside_voter() -> Voter {
    Voter {
        node: OUTSIDE,
        incarnation: incarnation(outside()),
    }
}
