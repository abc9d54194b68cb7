//! A turn: the core at one node gets one input and whatever follows from it at once, and what the
//! rest of the world sees of it is said.

use crate::outside::{OUTSIDE, Service};
use crate::site::{Broken, Event, Happening, LONG, Mark, Process, Site, TICK, Work, incarnation};
use standfast::replication::register;
use standfast::replication::{Body, Effect, Input, LinkEvent, Message, Order};
use standfast_wal::{Kind, Lsn, NodeId, Record};
use std::collections::{BTreeSet, VecDeque};

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

impl Site {
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
                true => Input::CutDone {
                    end: link,
                    durable: link.position.lsn,
                },
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
            let counted = replica.awaited();
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
        counted: &BTreeSet<NodeId>,
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
            | Effect::Forced { .. }
            | Effect::NothingLost(_)
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
                let wall = 0;
                let body = Body::Asked {
                    attempt,
                    lost,
                    wall,
                };
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

    fn send(&mut self, to: NodeId, message: Message, counted: &BTreeSet<NodeId>, around: &Around) {
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
            if last > commit && !replica.awaited().contains(&to) && !counted.contains(&to) {
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
