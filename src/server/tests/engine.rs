//! An engine of one node, in memory: the real state, applied at once, for tests of the front.

use crate::node::client::{Answer, Call, Control, Door, Op, Request, SessionId};
use crate::node::refusal::Refusal;
use crate::node::view::{Peer, Role, View};
use crate::replication::config::{Acks, Addresses, Config, Member, MemberRole, Protection};
use crate::state::{self, Reply, State};
use bytes::BytesMut;
use standfast_wal::{Epoch, History, Incarnation, Kind, Link, Lsn, NodeId, Nonce, Record};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::UnboundedSender;

/// What this engine says of the history that it answers from; the view says another.
const GENERATION: u64 = 7;

pub const HISTORY: History = History {
    generation: 2,
    id: 0xabc,
};

/// What a test turns and reads while the engine runs.
#[derive(Default)]
pub struct Knobs {
    /// Answers of a round are given in reverse, one by one.
    pub reverses: AtomicBool,
    /// Nothing is answered while this is set; what was asked is kept.
    pub holds: AtomicBool,
    /// The most operations of one session that were ever unanswered.
    pub in_flight_most: AtomicUsize,
    /// Data commands are refused with READONLY.
    pub refuses: AtomicBool,
    /// Data commands are answered OK without looking: what remains is the front alone.
    pub skips: AtomicBool,
}

pub struct Engine {
    state: State,
    link: Link,
    sessions: BTreeMap<SessionId, UnboundedSender<Vec<Answer>>>,
    held: Vec<(SessionId, Request)>,
    knobs: Arc<Knobs>,
    /// Writes that are not applied yet, and whom to answer.
    payload: BytesMut,
    writers: Vec<(SessionId, u64)>,
    answers: BTreeMap<SessionId, Vec<Answer>>,
}

/// Node `id` of three: 1 and 2 hold data, 3 is a witness; `primary` is primary of `epoch`.
pub fn view(id: u32, primary: u32, epoch: u64) -> View {
    let member = |id: u32, role| {
        let addresses = Addresses {
            client: format!("10.0.0.{id}:700{id}"),
            peer: format!("10.0.0.{id}:800{id}"),
            http: format!("10.0.0.{id}:900{id}"),
        };
        let member = Member {
            incarnation: Incarnation(u128::from(id)),
            role,
            site: "main".to_string(),
            priority: 100,
            addresses,
        };
        (NodeId(id), member)
    };
    let config = Config {
        history: HISTORY,
        ancestors: Vec::new(),
        epoch: Epoch(epoch),
        version: 7,
        nonce: Nonce(1),
        primary: NodeId(primary),
        sync_set: [NodeId(1), NodeId(2)].into(),
        acks_needed: 2,
        acks: Acks::All,
        protection: Protection::MaxAvailability,
        members: [
            member(1, MemberRole::Data),
            member(2, MemberRole::Data),
            member(3, MemberRole::Witness),
        ]
        .into(),
        voters: [NodeId(1), NodeId(2), NodeId(3)].into(),
    };
    let peer = Peer {
        connected: true,
        heard_ms: Some(3),
        ..Peer::default()
    };
    let peers = (1..=3)
        .filter(|other| *other != id)
        .map(|other| (NodeId(other), peer))
        .collect();
    View {
        role: match id {
            3 => Role::Witness,
            _ if id == primary => Role::Primary,
            _ => Role::Backup,
        },
        serving: true,
        epoch: Epoch(epoch),
        history: HISTORY,
        primary: Some(NodeId(primary)),
        config: Some(Arc::new(config)),
        peers,
        ..View::starting(NodeId(id), "standfast", 1)
    }
}

impl Engine {
    pub fn new(knobs: Arc<Knobs>) -> Engine {
        Engine {
            state: State::new(state::Limits::new(1)),
            link: Link::default(),
            sessions: BTreeMap::new(),
            held: Vec::new(),
            knobs,
            payload: BytesMut::new(),
            writers: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Runs until the last handle is gone.
    pub async fn run(mut self, mut door: Door) {
        let mut calls = Vec::new();
        while door.calls.recv_many(&mut calls, 1024).await > 0 {
            for call in calls.drain(..) {
                self.on_call(call);
            }
            if !self.knobs.holds.load(Relaxed) {
                for (session, request) in std::mem::take(&mut self.held) {
                    self.on_request(session, request);
                }
                self.apply();
            }
            self.send();
        }
    }

    fn on_call(&mut self, call: Call) {
        match call {
            Call::Open { session, answers } => {
                self.sessions.insert(session, answers);
            }
            Call::Submit { session, requests } => {
                assert!(
                    !requests.is_empty(),
                    "an empty batch wakes the engine for nothing"
                );
                let is_held = !self.held.is_empty() || self.knobs.holds.load(Relaxed);
                if is_held {
                    let requests = requests.into_iter().map(|request| (session, request));
                    self.held.extend(requests);
                    let own = self.held.iter().filter(|(of, _)| *of == session).count();
                    self.knobs.in_flight_most.fetch_max(own, Relaxed);
                } else {
                    requests
                        .into_iter()
                        .for_each(|request| self.on_request(session, request));
                }
            }
            Call::Close { session } => {
                self.sessions.remove(&session);
            }
        }
    }

    fn on_request(&mut self, session: SessionId, Request { seq, op }: Request) {
        let refuses = self.knobs.refuses.load(Relaxed);
        let skips = self.knobs.skips.load(Relaxed);
        match op {
            Op::Write(_) | Op::Read { .. } if refuses => {
                let primary = Some("10.0.0.2:7002".to_string());
                self.answer(session, seq, Refusal::ReadOnly { primary }.into());
            }
            Op::Write(_) | Op::Read { .. } if skips => self.answer(session, seq, Reply::Ok),
            Op::Write(encoded) => {
                state::command::push(&mut self.payload, &encoded);
                self.writers.push((session, seq));
            }
            Op::Read { command, .. } => {
                self.apply();
                let reply = self.state.read(&command);
                self.answer(session, seq, reply);
            }
            Op::Control(control) => {
                self.apply();
                let reply = self.control(*control);
                self.answer(session, seq, reply);
            }
        }
    }

    fn control(&self, control: Control) -> Reply {
        match control {
            Control::Status => Reply::Bulk("{\"node\":1}".into()),
            Control::Wait { write, .. } => {
                let lsn = write.map_or(0, |write| write.lsn.0);
                Reply::Int(i64::try_from(lsn).expect("small"))
            }
            Control::Snapshot => Reply::Simple("Background saving started"),
            other => Reply::Bulk(format!("{other:?}").into()),
        }
    }

    fn answer(&mut self, session: SessionId, seq: u64, reply: Reply) {
        let answer = Answer {
            seq,
            lsn: Lsn::ZERO,
            epoch: Epoch(0),
            generation: GENERATION,
            reply,
        };
        self.answers.entry(session).or_default().push(answer);
    }

    /// Orders and applies what was collected as one record.
    fn apply(&mut self) {
        if self.writers.is_empty() {
            return;
        }
        let count = u32::try_from(self.writers.len()).expect("a test is small");
        let (epoch, time) = (Epoch(3), self.link.timestamp + 1_000_000);
        let record = Record::build(self.link, Kind::Commands, epoch, time, count, &self.payload);
        self.payload.clear();
        self.link = record.link();
        let mut writers = self.writers.drain(..);
        let answers = &mut self.answers;
        self.state.apply(&record, |lsn, reply| {
            let (session, seq) = writers.next().expect("one reply for each command");
            let answer = Answer {
                seq,
                lsn,
                epoch,
                generation: GENERATION,
                reply,
            };
            answers.entry(session).or_default().push(answer);
        });
    }

    fn send(&mut self) {
        for (session, answers) in std::mem::take(&mut self.answers) {
            let Some(sender) = self.sessions.get(&session) else {
                continue;
            };
            if self.knobs.reverses.load(Relaxed) {
                for answer in answers.into_iter().rev() {
                    let _ = sender.send(vec![answer]);
                }
            } else {
                let _ = sender.send(answers);
            }
        }
    }
}
