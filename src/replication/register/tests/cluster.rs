//! A few registers and a network that delivers in order: for tests that script what happens.

use super::*;
use std::collections::VecDeque;

/// Registers by seat; every message waits in `mail` until it is delivered or dropped.
pub(super) struct Cluster {
    pub(super) now: Time,
    pub(super) seats: Vec<(Voter, Register)>,
    pub(super) mail: VecDeque<(Voter, NodeId, Message)>,
    pub(super) ends: Vec<(NodeId, Ticket, Outcome)>,
    pub(super) ignored: Vec<Reason>,
    /// Nodes that answer nothing.
    pub(super) down: BTreeSet<NodeId>,
}

impl Cluster {
    /// `count` founding voters of version 1, and others that know of it but hold nothing.
    pub(super) fn found(count: u32, others: &[Voter]) -> (Value, Cluster) {
        let founders: Vec<Voter> = (1..=count).map(|node| voter(node, 0)).collect();
        let first = value(1, 1, &founders);
        let founding = |me: &Voter| {
            let state = AcceptorState::genesis(first.clone());
            let process = u64::from(me.node.0);
            (
                *me,
                Register::open(*me, process, state, None, Timing::default()),
            )
        };
        let joining = |me: &Voter| {
            let (state, known) = (AcceptorState::empty(HISTORY), Some(first.clone()));
            (*me, Register::open(*me, 9, state, known, Timing::default()))
        };
        let seats = founders
            .iter()
            .map(founding)
            .chain(others.iter().map(joining));
        let cluster = Cluster {
            now: Time::ZERO,
            seats: seats.collect(),
            mail: VecDeque::new(),
            ends: Vec::new(),
            ignored: Vec::new(),
            down: BTreeSet::new(),
        };
        (first, cluster)
    }

    pub(super) fn submit(&mut self, node: u32, request: Request) -> Result<Ticket, Refusal> {
        let mut effects = Vec::new();
        let now = self.now;
        let (me, register) = self.seat(node);
        let result = register.submit(now, request, &mut effects);
        self.follow(me, effects);
        result
    }

    pub(super) fn step(&mut self, node: u32, input: Input) {
        let mut effects = Vec::new();
        let now = self.now;
        let (me, register) = self.seat(node);
        register.step(now, input, &mut effects);
        self.follow(me, effects);
    }

    pub(super) fn seat(&mut self, node: u32) -> (Voter, &mut Register) {
        let mut seats = self.seats.iter_mut().rev();
        let seat = seats.find(|(me, _)| me.node == NodeId(node));
        let (me, register) = seat.expect("a node of this cluster");
        (*me, register)
    }

    /// Does what a register says; its disk is quick and never fails.
    fn follow(&mut self, me: Voter, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.mail.push_back((me, to, message)),
                Effect::Persist { serial, .. } => self.step(me.node.0, Input::Persisted(serial)),
                Effect::Done { ticket, outcome } => self.ends.push((me.node, ticket, outcome)),
                Effect::Known(_) => {}
                Effect::Ignored { reason, .. } => self.ignored.push(reason),
            }
        }
    }

    /// Delivers until nothing is on its way; no time passes.
    pub(super) fn deliver(&mut self) {
        while let Some((from, to, message)) = self.mail.pop_front() {
            let is_here = self.seats.iter().any(|(me, _)| me.node == to);
            if is_here && !self.down.contains(&to) && !self.down.contains(&from.node) {
                self.step(to.0, Input::Message { from, message });
            }
        }
    }

    /// Tells `node` that `voter` has promised a ballot above the one it is asked about.
    pub(super) fn refuse(&mut self, node: u32, voter: Voter) {
        let ballot = match &self.seat(node).1.proposer.phase {
            Phase::Prepare(round) => round.ballot,
            Phase::Vote(round) => round.ballot,
            phase => panic!("n{node} asks nothing: {phase:?}"),
        };
        let promised = Ballot {
            round: ballot.round + 1,
            ..ballot
        };
        let message = Message {
            history: HISTORY,
            body: Body::Refused { ballot, promised },
        };
        self.step(
            node,
            Input::Message {
                from: voter,
                message,
            },
        );
    }

    /// Delivers until nothing is on its way, then lets time pass where somebody waits for it.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            self.deliver();
            let waiting = self
                .seats
                .iter()
                .filter_map(|(_, register)| register.deadline());
            let Some(deadline) = waiting.min().filter(|time| *time < self.end()) else {
                return;
            };
            self.now = self.now.max(deadline);
            for node in self.nodes() {
                self.step(node, Input::Timeout);
            }
        }
        panic!("no end in sight: {:?}", self.mail);
    }

    /// Time that tests let pass for those that wait in vain.
    fn end(&self) -> Time {
        Time::ZERO.after(Duration::from_secs(10))
    }

    fn nodes(&self) -> Vec<u32> {
        self.seats.iter().map(|(me, _)| me.node.0).collect()
    }

    /// Runs one operation to its end.
    pub(super) fn ask(&mut self, node: u32, request: Request) -> Option<Outcome> {
        let ended = self.ends.len();
        let ticket = self.submit(node, request).expect("submitted");
        self.run();
        let mut ends = self.ends[ended..].iter();
        ends.find(|(at, other, _)| *at == NodeId(node) && *other == ticket)
            .map(|(_, _, outcome)| outcome.clone())
    }

    pub(super) fn change(&mut self, node: u32, expected: &Value, next: &Value) -> Option<Outcome> {
        let (expected, next) = (expected.clone(), next.clone());
        self.ask(node, Request::CompareAndSet { expected, next })
    }
}
