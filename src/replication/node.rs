//! What every role shares: the durable small state, the links, the clocks, the register's ends.
//!
//! Keeps "nothing is answered on the strength of what is not durable": an answer that rests on an
//! edit of Meta waits here until that edit, persisted whole, is reported durable.

use crate::replication::config::{Config, MemberRole};
use crate::replication::fence::{Fence, Standing};
use crate::replication::io::{Effect, Introduction, LinkEvent, LogFacts};
use crate::replication::log::Log;
use crate::replication::message::{Body, Message};
use crate::replication::meta::Meta;
use crate::replication::register::{
    self, ConfigStore, Outcome, Register, Request, Ticket, Timing, Value, Voter,
};
use crate::replication::replica::Next;
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use standfast_wal::{Epoch, History, Incarnation, Lsn, NodeId, Nonce};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is known of the connection to one peer.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wire {
    pub up: Option<Incarnation>,
    /// The last attempt was refused: nobody listens there.
    pub refused: bool,
}

/// The last sign that a primary lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub at: Time,
    /// Its port refuses: the process is dead.
    pub refused: bool,
}

/// A fence answer that is owed once fence and log are durable.
#[derive(Clone, Copy, Debug)]
struct Owed {
    attempt: Nonce,
    fence: Fence,
}

/// Edits of Meta and what waits for them.
#[derive(Default, Debug)]
struct Edits {
    /// Number of the newest edit; the serial of the Persist that carries it.
    made: u64,
    issued: u64,
    durable: u64,
    /// Fence carried by each Persist under way.
    fences: VecDeque<(u64, Fence)>,
    /// The register's own serials, by the edit that carries them.
    register: VecDeque<(u64, u64)>,
    /// Messages that may go once an edit is durable.
    waiting: VecDeque<(u64, NodeId, Message)>,
}

pub(super) struct Node {
    pub settings: Settings,
    pub me: NodeId,
    pub introduction: Introduction,
    pub now: Time,
    pub started: Time,
    /// Newest edit; what is durable may be older.
    pub meta: Meta,
    pub durable_fence: Fence,
    edits: Edits,
    pub log: Log,
    register: Register,
    register_effects: Vec<register::Effect>,
    /// Ends of register operations, for the role that asked.
    pub outcomes: VecDeque<(Ticket, Outcome)>,
    pub wires: BTreeMap<NodeId, Wire>,
    pub life: Life,
    owed: BTreeMap<NodeId, Owed>,
    /// Wall clock at a moment of the own clock.
    wall: Option<(u64, Time)>,
    /// Others' wall clocks less this one.
    pub clocks: BTreeMap<NodeId, i64>,
    pub disk_stalled: bool,
    /// The highest commit LSN that any primary has told of.
    pub heard_commit: Lsn,
    /// Peers that wait for records of this log, by their attempt (step 3 of a promotion).
    pub fetches: BTreeMap<NodeId, Nonce>,
    pub next: Option<Next>,
    /// A history above this node's own, seen at a peer: what `rejoin` would follow.
    pub newer: Option<(History, NodeId)>,
    /// The operator has given up this node's history.
    pub rejoining: bool,
    random: VecDeque<u128>,
    pub out: Vec<Effect>,
}

impl Node {
    pub fn new(
        settings: Settings,
        now: Time,
        mut meta: Meta,
        facts: LogFacts,
        introduction: Introduction,
        random: Vec<u128>,
    ) -> Node {
        assert!(random.len() >= 8, "the core needs random numbers to start");
        let mut random = VecDeque::from(random);
        let newly_suspect = facts.suspect && !meta.suspect;
        meta.suspect |= facts.suspect;
        let register = open_register(&settings, &meta, draw_process(&mut random));
        let mut node = Node {
            me: meta.node,
            introduction,
            now,
            started: now,
            durable_fence: meta.fence,
            log: Log::new(facts, settings.tail_bytes),
            settings,
            meta,
            edits: Edits::default(),
            register,
            register_effects: Vec::new(),
            outcomes: VecDeque::new(),
            wires: BTreeMap::new(),
            life: Life {
                at: now,
                refused: false,
            },
            owed: BTreeMap::new(),
            wall: None,
            clocks: BTreeMap::new(),
            disk_stalled: false,
            heard_commit: Lsn::ZERO,
            fetches: BTreeMap::new(),
            next: None,
            newer: None,
            rejoining: false,
            random,
            out: Vec::new(),
        };
        if newly_suspect {
            node.edit(|_| ());
            node.event(
                "the log's end was damaged: it counts as absent until it is verified".into(),
            );
        }
        node.adopt_known();
        node
    }

    pub fn config(&self) -> &Config {
        &self.meta.config
    }

    pub fn config_value(&self) -> &Value {
        &self.meta.config
    }

    pub fn history(&self) -> History {
        self.meta.config.history
    }

    /// The registered reign.
    pub fn registered(&self) -> Fence {
        Fence {
            history: self.history(),
            epoch: self.meta.config.epoch,
        }
    }

    /// Whether the Config names this process.
    pub fn is_member(&self) -> bool {
        self.config().names(self.me, self.meta.incarnation)
    }

    pub fn is_voter(&self) -> bool {
        self.is_member() && self.config().voters.contains(&self.me)
    }

    /// What this node is for.
    pub fn role(&self) -> MemberRole {
        let member = self.config().members.get(&self.me);
        member.map_or(self.introduction.role, |member| member.role)
    }

    /// Whether a forced promotion elsewhere has ended this node's history.
    pub fn is_outdated(&self) -> bool {
        self.meta.fence.history != self.history()
    }

    pub fn up(&self, id: NodeId) -> bool {
        let wire = self.wires.get(&id);
        wire.is_some_and(|wire| wire.up.is_some_and(|life| self.config().names(id, life)))
    }

    pub fn refused(&self, id: NodeId) -> bool {
        self.wires.get(&id).is_some_and(|wire| wire.refused)
    }

    // Sending

    pub fn event(&mut self, text: String) {
        self.out.push(Effect::Event(text));
    }

    pub fn halt(&mut self, story: String) {
        self.out.push(Effect::Halt(story));
    }

    pub fn send(&mut self, to: NodeId, body: Body) {
        debug_assert_ne!(to, self.me, "a message to oneself: {body}");
        let history = self.history();
        self.out.push(Effect::Send(to, Message { history, body }));
    }

    /// Sends once everything edited so far is durable; at once when it is.
    pub fn send_when_durable(&mut self, to: NodeId, body: Body) {
        if self.edits.durable == self.edits.made {
            return self.send(to, body);
        }
        let history = self.history();
        let message = Message { history, body };
        self.edits.waiting.push_back((self.edits.made, to, message));
    }

    /// To every named peer whose link is up.
    pub fn send_to_members(&mut self, body: &Body) {
        let ids: Vec<NodeId> = self.config().members.keys().copied().collect();
        for id in ids {
            if id != self.me && self.up(id) {
                self.send(id, body.clone());
            }
        }
    }

    // Durable small state

    /// Changes Meta; the edit is persisted whole at the end of the step.
    pub fn edit(&mut self, change: impl FnOnce(&mut Meta)) {
        let before = self.meta.fence;
        change(&mut self.meta);
        // I3: a fence never falls, whatever else changes.
        assert!(
            self.meta.fence >= before,
            "I3: fence {} after {before}",
            self.meta.fence
        );
        self.edits.made += 1;
    }

    /// Hands the newest Meta to the shell, one at a time.
    pub fn persist_edits(&mut self) {
        self.run_register();
        let edits = &mut self.edits;
        if edits.made > edits.issued && edits.issued == edits.durable {
            edits.issued = edits.made;
            edits.fences.push_back((edits.made, self.meta.fence));
            let meta = Box::new(self.meta.clone());
            self.out.push(Effect::Persist(meta, edits.made));
        }
    }

    pub fn on_persisted(&mut self, serial: u64) {
        let edits = &mut self.edits;
        assert!(
            serial <= edits.issued,
            "persisted {serial}, but the last handed out is {}",
            edits.issued
        );
        edits.durable = edits.durable.max(serial);
        while let Some((_, fence)) = take_if(&mut edits.fences, |(edit, _)| *edit <= serial) {
            self.durable_fence = fence;
        }
        while let Some(ready) = take_if(&mut edits.waiting, |(edit, ..)| *edit <= serial) {
            self.out.push(Effect::Send(ready.1, ready.2));
        }
        let mut newest = None;
        while let Some((_, own)) = take_if(&mut edits.register, |(edit, _)| *edit <= serial) {
            newest = Some(own);
        }
        if let Some(own) = newest {
            let input = register::Input::Persisted(own);
            self.register
                .step(self.now, input, &mut self.register_effects);
        }
        self.answer_fences();
    }

    /// Raises the fence; nothing is answered until that is durable.
    pub fn raise_fence(&mut self, fence: Fence) {
        if fence > self.meta.fence {
            self.edit(|meta| meta.fence = fence);
        }
    }

    pub fn fence_is_durable(&self, fence: Fence) -> bool {
        self.durable_fence >= fence
    }

    // Fence answers

    /// Will answer once the fence and all that was accepted before it is durable.
    pub fn owe_fenced(&mut self, to: NodeId, attempt: Nonce, fence: Fence) {
        self.owed.insert(to, Owed { attempt, fence });
        self.answer_fences();
    }

    pub fn answer_fences(&mut self) {
        if self.owed.is_empty() || !self.log.is_all_durable() {
            return;
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(_, owed)| self.fence_is_durable(owed.fence));
        self.owed = waiting.into_iter().collect();
        for (to, owed) in ready {
            // Promised away to a higher reign meanwhile: this answer would promise less.
            if owed.fence == self.meta.fence {
                let body = Body::Fenced {
                    fence: owed.fence,
                    attempt: owed.attempt,
                    last: self.log.tip().position,
                    commit: self.log.commit,
                    suspect: self.meta.suspect,
                    wall: self.wall_now().unwrap_or(0),
                    epochs: self.log.epochs.clone(),
                };
                self.send(to, body);
            }
        }
    }

    // The register

    /// Begins an operation; its end comes through `outcomes`. `None`: not now.
    pub fn submit(&mut self, request: Request) -> Option<Ticket> {
        let result = self
            .register
            .submit(self.now, request, &mut self.register_effects);
        let ticket = match result {
            Ok(ticket) => Some(ticket),
            Err(refusal) => {
                self.event(format!("the register refuses: {refusal}"));
                None
            }
        };
        self.run_register();
        ticket
    }

    /// Forgets an operation. A change may be chosen all the same.
    pub fn cancel(&mut self, ticket: Ticket) {
        let _ = self
            .register
            .cancel(self.now, ticket, &mut self.register_effects);
        self.outcomes.retain(|(other, _)| *other != ticket);
        self.run_register();
    }

    pub fn on_register_message(&mut self, from: Voter, message: register::Message) {
        let input = register::Input::Message { from, message };
        self.register
            .step(self.now, input, &mut self.register_effects);
        self.run_register();
    }

    pub fn register_deadline(&self) -> Option<Time> {
        self.register.deadline()
    }

    pub fn register_timeout(&mut self) {
        if self
            .register
            .deadline()
            .is_some_and(|deadline| self.now >= deadline)
        {
            let input = register::Input::Timeout;
            self.register
                .step(self.now, input, &mut self.register_effects);
            self.run_register();
        }
    }

    fn run_register(&mut self) {
        let mut effects = std::mem::take(&mut self.register_effects);
        for effect in effects.drain(..) {
            match effect {
                register::Effect::Send { to, message } => self.send(to, Body::Register(message)),
                register::Effect::Persist { serial, state } => {
                    self.edit(|meta| meta.acceptor = state);
                    self.edits.register.push_back((self.edits.made, serial));
                }
                register::Effect::Done { ticket, outcome } => {
                    self.outcomes.push_back((ticket, outcome));
                }
                register::Effect::Known(value) => self.learn(value),
                register::Effect::Ignored { from, reason } if reason.is_suspicious() => {
                    self.event(format!(
                        "the register ignored a message of {from:?}: {reason}"
                    ));
                }
                register::Effect::Ignored { .. } => {}
            }
        }
        self.register_effects = effects;
    }

    /// A Config known to be chosen, in this node's history.
    pub fn learn(&mut self, value: Value) {
        if value.history != self.history() || value.version <= self.config().version {
            return;
        }
        assert!(
            value.epoch >= self.config().epoch,
            "I3: {:?} was chosen behind {:?}",
            *value,
            self.config()
        );
        self.edit(|meta| meta.config = value.clone());
        self.out.push(Effect::NewConfig);
        let input = register::Input::Learned(value);
        self.register
            .step(self.now, input, &mut self.register_effects);
    }

    /// What the acceptor proves chosen may be newer than what Meta remembers.
    fn adopt_known(&mut self) {
        if let Some(value) = self.register.known().cloned() {
            self.learn(value);
        }
    }

    /// Begins a register of another history, whose `config` is known to be chosen. `founder`: its
    /// only voter is this node, which chooses it by decree.
    pub fn enter_history(&mut self, config: Config, founder: bool) {
        let value = Value::new(config);
        let fence = Fence {
            history: value.history,
            epoch: value.epoch,
        };
        let acceptor = if founder {
            register::AcceptorState::genesis(value.clone())
        } else {
            register::AcceptorState::empty(value.history)
        };
        self.edit(|meta| {
            meta.fence = meta.fence.max(fence);
            meta.config = value;
            meta.acceptor = acceptor;
        });
        self.edits.register.clear();
        self.register_effects.clear();
        self.outcomes.clear();
        self.rejoining = false;
        self.newer = None;
        let process = draw_process(&mut self.random);
        self.out.push(Effect::DrawRandom);
        self.register = open_register(&self.settings, &self.meta, process);
        self.out.push(Effect::NewConfig);
    }

    // Randomness, all of it supplied from outside

    pub fn on_random(&mut self, number: u128) {
        self.random.push_back(number);
    }

    /// A fresh nonce; `None` until the shell has supplied more.
    pub fn draw(&mut self) -> Option<Nonce> {
        // The last one is kept for entering a history, which cannot wait.
        if self.random.len() < 2 {
            return None;
        }
        let number = self.random.pop_front()?;
        self.out.push(Effect::DrawRandom);
        Some(Nonce(number))
    }

    /// A random part of `most`.
    pub fn draw_wait(&mut self, most: Duration) -> Duration {
        let number = self.draw().map_or(0, |nonce| nonce.0);
        let nanos = most.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(number % nanos).unwrap_or(u64::MAX))
    }

    // Signs of life and clocks

    pub fn on_link(&mut self, id: NodeId, event: LinkEvent) {
        let wire = self.wires.entry(id).or_default();
        *wire = match event {
            LinkEvent::Up(incarnation) => Wire {
                up: Some(incarnation),
                refused: false,
            },
            LinkEvent::Down => Wire {
                up: None,
                refused: wire.refused,
            },
            LinkEvent::Refused => Wire {
                up: None,
                refused: true,
            },
        };
        let refused = wire.refused;
        if id == self.config().primary {
            self.life.refused = refused;
        }
    }

    pub fn sign_of_life(&mut self) {
        self.life = Life {
            at: self.now,
            refused: false,
        };
    }

    pub fn has_lost_primary(&self) -> bool {
        self.life.refused || self.now.since(self.life.at) >= self.settings.failover_timeout
    }

    pub fn set_wall(&mut self, wall: u64) {
        self.wall = Some((wall, self.now));
    }

    pub fn wall_now(&self) -> Option<u64> {
        let (wall, at) = self.wall?;
        let passed = u64::try_from(self.now.since(at).as_nanos()).unwrap_or(u64::MAX);
        Some(wall.saturating_add(passed))
    }

    /// Remembers how far a peer's wall clock is from this node's; 0 says nothing.
    pub fn on_wall_sample(&mut self, from: NodeId, wall: u64) {
        if let Some(own) = self.wall_now().filter(|_| wall != 0) {
            let offset = i128::from(wall) - i128::from(own);
            let bound = i128::from(i64::MAX);
            let offset = offset.clamp(-bound, bound);
            self.clocks
                .insert(from, i64::try_from(offset).expect("clamped"));
        }
    }

    /// The median of the peers' wall clocks, now.
    pub fn peers_clock(&self) -> Option<u64> {
        median(self.clocks.values().copied().collect())
            .and_then(|offset| self.wall_now()?.checked_add_signed(offset))
    }

    /// The median of all known wall clocks, this node's included, now.
    pub fn clock_median(&self) -> Option<u64> {
        let offsets = self.clocks.values().copied().chain([0]).collect();
        median(offsets).and_then(|offset| self.wall_now()?.checked_add_signed(offset))
    }

    /// The log time that a new primary starts with: its wall clock, or the median of its peers'
    /// where it is too far ahead of that, and always above what the log has.
    pub fn start_timestamp(&self) -> u64 {
        let own = self.wall_now().unwrap_or(0);
        let step = u64::try_from(self.settings.max_clock_step.as_nanos()).unwrap_or(u64::MAX);
        let tamed = match self.peers_clock() {
            Some(median) if own > median.saturating_add(step) => median,
            _ => own,
        };
        tamed.max(self.log.tip().timestamp + 1)
    }

    // Gates

    /// Whether a message that speaks for `reign` may be taken; says why not to its sender.
    pub fn obeys(&mut self, from: NodeId, reign: Fence) -> bool {
        if reign.history != self.history() {
            if reign.history.generation > self.history().generation {
                self.newer = Some((reign.history, from));
            } else {
                self.refuse(from);
            }
            return false;
        }
        match self.meta.fence.weigh(reign) {
            Standing::Below | Standing::Foreign => {
                self.refuse(from);
                false
            }
            Standing::Equal | Standing::Above => true,
        }
    }

    /// A refusal says how high the fence is, so it waits until that is durable.
    pub fn refuse(&mut self, to: NodeId) {
        let body = Body::Refused {
            fence: self.meta.fence,
            version: self.config().version,
        };
        self.send_when_durable(to, body);
    }

    /// The epoch that this node obeys.
    pub fn epoch(&self) -> Epoch {
        self.meta.fence.epoch
    }

    pub fn end(&self) -> Lsn {
        self.log.end()
    }
}

fn open_register(settings: &Settings, meta: &Meta, process: u64) -> Register {
    let me = Voter {
        node: meta.node,
        incarnation: meta.incarnation,
    };
    let timing = Timing {
        resend: settings.heartbeat_interval * 2,
        ..Timing::default()
    };
    // A node that joins has not been told a Config yet: the one it holds names nobody.
    let known = (meta.config.version > 0).then(|| meta.config.clone());
    Register::open(me, process, meta.acceptor.clone(), known, timing)
}

fn draw_process(random: &mut VecDeque<u128>) -> u64 {
    let number = random
        .pop_front()
        .expect("one random number is always kept");
    u64::try_from(number & u128::from(u64::MAX)).expect("masked")
}

fn median(mut offsets: Vec<i64>) -> Option<i64> {
    offsets.sort_unstable();
    offsets.get(offsets.len().checked_sub(1)? / 2).copied()
}

/// Takes the front of a queue when it is ready.
fn take_if<T>(queue: &mut VecDeque<T>, ready: impl Fn(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(ready) {
        queue.pop_front()
    } else {
        None
    }
}
