//! Every order of a small world: the register's own code, driven through all interleavings.
//!
//! The network is a set of messages that only grows: any of them may be delivered now, later,
//! again, or never, which covers loss, doubling and reordering at once. A node may crash whenever
//! it has asked for something to be persisted, with and without the disk having it. Nodes and
//! messages are numbered, and what a node does with a message is worked out once, so that a world
//! is a few words and millions of them take seconds.

use super::ledger::{Ledger, knows};
use super::*;
use hashbrown::HashMap;
use std::hash::BuildHasher;
use std::rc::Rc;

type Fast = foldhash::fast::FixedState;
type Bits = [u64; 12];

/// A vote that reached a disk: who, at which ballot, for what.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Cast {
    node: usize,
    vote: Accepted,
}

/// One node: what it runs, and what its disk holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    register: Register,
    durable: AcceptorState,
    /// Operation of each ticket given out by this process.
    tickets: Vec<usize>,
    lives: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Act {
    Start(u8),
    Deliver(u16),
    Timeout,
    Crash,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Packet {
    from: usize,
    to: usize,
    message: Message,
}

/// What an observer sees of a step, in order.
#[derive(Clone, Debug)]
enum Event {
    Known(Value),
    Done(usize, Outcome),
}

/// One possible result of an act at a node.
#[derive(Clone, Debug)]
struct Branch {
    node: u32,
    sent: Vec<usize>,
    cast: Vec<usize>,
    events: Vec<Event>,
    crashed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    nodes: [u32; 5],
    net: Bits,
    cast: [u64; 3],
    started: u8,
    ended: u8,
    lost: u8,
    crashes: u8,
    /// For each operation, the newest version chosen when it began.
    floors: [u8; 6],
}

/// One operation of a scenario: where, what, and which operation must have ended before.
pub(super) struct Op {
    pub(super) at: usize,
    pub(super) request: Request,
    pub(super) after: Option<usize>,
}

pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) seats: Vec<(Voter, AcceptorState, Option<Value>)>,
    pub(super) ops: Vec<Op>,
    /// For each seat, the highest round it may propose at; the first round is 2.
    pub(super) rounds_max: [u64; 5],
    pub(super) crashes_max: u8,
    /// Whether `Chosen` messages may arrive at all. They only shorten ways, and multiply worlds.
    pub(super) gossip: bool,
    /// Stop there, and say so.
    pub(super) worlds_max: usize,
}

/// What was reached; tests look here so that no exploration passes for having seen nothing.
#[derive(Default, Debug)]
pub(super) struct Reached {
    pub(super) worlds: usize,
    pub(super) steps: usize,
    pub(super) exhausted: bool,
    pub(super) crashes: usize,
    pub(super) outcomes: BTreeSet<(usize, &'static str)>,
    pub(super) versions: BTreeSet<(u64, u128)>,
}

struct Explorer {
    scenario: Scenario,
    nodes: Vec<Node>,
    /// For each node, the packets that are known to do nothing there, whatever the world.
    deaf_to: Vec<Bits>,
    node_ids: HashMap<Node, u32, Fast>,
    packets: Vec<Packet>,
    packet_ids: HashMap<Packet, usize, Fast>,
    /// Packets by their receiver.
    mail: [Bits; 5],
    casts: Vec<Cast>,
    cast_ids: HashMap<Cast, usize, Fast>,
    results: HashMap<(u32, Act), Rc<Vec<Branch>>, Fast>,
    tallies: HashMap<[u64; 3], Rc<Ledger>, Fast>,
    /// How each world was reached: the one before, where and what happened, with which end.
    trail: Vec<(u32, u8, Act, u8)>,
}

fn has(bits: &[u64], at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 == 1
}

fn set(bits: &mut [u64], at: usize) {
    bits[at / 64] |= 1 << (at % 64);
}

const STILL: Timing = Timing {
    resend: Duration::ZERO,
    backoff_min: Duration::ZERO,
    backoff_max: Duration::ZERO,
    patience: Duration::ZERO,
};

pub(super) fn explore(scenario: Scenario) -> Reached {
    let mut explorer = Explorer {
        scenario,
        nodes: Vec::new(),
        deaf_to: Vec::new(),
        node_ids: HashMap::default(),
        packets: Vec::new(),
        packet_ids: HashMap::default(),
        mail: [[0; 12]; 5],
        casts: Vec::new(),
        cast_ids: HashMap::default(),
        results: HashMap::default(),
        tallies: HashMap::default(),
        trail: Vec::new(),
    };
    explorer.run()
}

impl Explorer {
    fn run(&mut self) -> Reached {
        let mut reached = Reached::default();
        let mut first = World {
            nodes: [u32::MAX; 5],
            net: [0; 12],
            cast: [0; 3],
            started: 0,
            ended: 0,
            lost: 0,
            crashes: 0,
            floors: [0; 6],
        };
        for at in 0..self.scenario.seats.len() {
            let (me, state, known) = self.scenario.seats[at].clone();
            if let Some(vote) = &state.accepted {
                let vote = vote.clone();
                let id = self.cast_id(Cast { node: at, vote });
                set(&mut first.cast, id);
            }
            first.nodes[at] = self.node_id(Node {
                register: Register::open(me, 1, state.clone(), known, STILL),
                durable: state,
                tickets: Vec::new(),
                lives: 1,
            });
        }
        let mut seen: hashbrown::HashSet<u64, Fast> = hashbrown::HashSet::default();
        let hasher = Fast::with_seed(7);
        seen.insert(hasher.hash_one(first));
        self.trail.push((0, 0, Act::Timeout, 0));
        let mut stack = vec![(first, 0_u32)];
        while let Some((world, index)) = stack.pop() {
            if reached.worlds == self.scenario.worlds_max {
                return reached;
            }
            reached.worlds += 1;
            for (at, act) in self.acts(&world) {
                let branches = self.branches(world.nodes[at], at, &act);
                for (number, branch) in branches.iter().enumerate() {
                    reached.steps += 1;
                    let Some(next) = self.follow(&world, at, &act, branch, index, &mut reached)
                    else {
                        continue;
                    };
                    if seen.insert(hasher.hash_one(next)) {
                        let length = u32::try_from(self.trail.len()).expect("fewer worlds");
                        self.trail.push((index, at as u8, act, number as u8));
                        stack.push((next, length));
                    }
                }
            }
        }
        reached.exhausted = true;
        reached
    }

    /// Everything that may happen next.
    fn acts(&self, world: &World) -> Vec<(usize, Act)> {
        let mut acts = Vec::new();
        for (number, op) in self.scenario.ops.iter().enumerate() {
            let ready = op.after.is_none_or(|after| world.ended >> after & 1 == 1);
            if world.started >> number & 1 == 0 && ready {
                acts.push((op.at, Act::Start(number as u8)));
            }
        }
        for at in 0..self.scenario.seats.len() {
            let node = &self.nodes[world.nodes[at] as usize];
            if matches!(node.register.proposer.phase, Phase::BackOff) {
                acts.push((at, Act::Timeout));
            }
            if node.lives <= u64::from(self.scenario.crashes_max)
                && world.crashes < self.scenario.crashes_max
            {
                acts.push((at, Act::Crash));
            }
            let deaf_to = &self.deaf_to[world.nodes[at] as usize];
            let mail = world.net.iter().zip(&self.mail[at]).zip(deaf_to);
            for (word, ((sent, here), deaf)) in mail.enumerate() {
                let mut open = sent & here & !deaf;
                while open != 0 {
                    let packet = word * 64 + open.trailing_zeros() as usize;
                    acts.push((at, Act::Deliver(packet as u16)));
                    open &= open - 1;
                }
            }
        }
        acts
    }

    /// The world after `branch`, checked; `None` if nothing changed or it goes too far.
    fn follow(
        &mut self,
        world: &World,
        at: usize,
        act: &Act,
        branch: &Branch,
        index: u32,
        reached: &mut Reached,
    ) -> Option<World> {
        let mut next = *world;
        if branch.crashed {
            if world.crashes == self.scenario.crashes_max {
                return None;
            }
            next.crashes += 1;
            reached.crashes += 1;
        }
        next.nodes[at] = branch.node;
        for packet in &branch.sent {
            set(&mut next.net, *packet);
        }
        if let Act::Start(op) = act {
            next.started |= 1 << op;
            let tally = self.tally(&world.cast);
            next.floors[usize::from(*op)] = tally.chosen.keys().last().map_or(0, |top| *top as u8);
        }
        for cast in &branch.cast {
            set(&mut next.cast, *cast);
        }
        let tally = self.tally(&next.cast);
        let verdict = self.judge(world, &mut next, branch, &tally, reached);
        if let Err(story) = verdict {
            self.tell(index, at, act, branch);
            panic!("{}: {story}", self.scenario.name);
        }
        (next != *world).then_some(next)
    }

    /// Holds a step against what the register promises.
    fn judge(
        &mut self,
        world: &World,
        next: &mut World,
        branch: &Branch,
        tally: &Ledger,
        reached: &mut Reached,
    ) -> Result<(), String> {
        if world.cast != next.cast {
            for (value, _) in tally.chosen.values() {
                reached.versions.insert((value.version, value.nonce.0));
            }
            for (number, op) in self.scenario.ops.iter().enumerate() {
                if let (true, Request::CompareAndSet { next, .. }) =
                    (world.lost >> number & 1 == 1, &op.request)
                    && tally.is_chosen(next).is_ok()
                {
                    return Err(format!("{next:?} was reported lost and is chosen"));
                }
            }
        }
        for event in &branch.events {
            match event {
                Event::Known(value) => tally.is_chosen(value)?,
                Event::Done(op, outcome) => {
                    next.ended |= 1 << op;
                    let word = self.judge_end(*op, outcome, next, tally)?;
                    reached.outcomes.insert((*op, word));
                }
            }
        }
        Ok(())
    }

    fn judge_end(
        &self,
        op: usize,
        outcome: &Outcome,
        world: &mut World,
        ledger: &Ledger,
    ) -> Result<&'static str, String> {
        let request = &self.scenario.ops[op].request;
        let word = ledger.judge(request, outcome, u64::from(world.floors[op]))?;
        if word == "lost" {
            world.lost |= 1 << op;
        }
        let Outcome::Chosen(value) = outcome else {
            return Ok(word);
        };
        // Once a change of voters is told done, a majority of the new ones can do without the old.
        let knows = |voter: Voter| {
            (0..self.scenario.seats.len()).any(|at| {
                let node = &self.nodes[world.nodes[at] as usize];
                self.scenario.seats[at].0 == voter && knows(&node.durable, value)
            })
        };
        if value.voters().majority(knows) {
            Ok(word)
        } else {
            Err(format!("{value:?} is done, its voters do not know"))
        }
    }

    fn tally(&mut self, cast: &[u64; 3]) -> Rc<Ledger> {
        if let Some(ledger) = self.tallies.get(cast) {
            return ledger.clone();
        }
        let mut votes: Vec<&Cast> = (0..self.casts.len())
            .filter(|id| has(cast, *id))
            .map(|id| &self.casts[id])
            .collect();
        votes.sort_by_key(|cast| (cast.vote.ballot, cast.vote.proposal.parent.is_none()));
        let mut ledger = Ledger::default();
        ledger.found(&votes[0].vote.proposal.value);
        for cast in votes {
            let from = self.scenario.seats[cast.node].0;
            if let Err(story) = ledger.cast(from, &cast.vote) {
                panic!("{}: {story}", self.scenario.name);
            }
        }
        let ledger = Rc::new(ledger);
        self.tallies.insert(*cast, ledger.clone());
        ledger
    }

    /// What node `id` may do on `act`: once per crash that may come in between.
    fn branches(&mut self, id: u32, at: usize, act: &Act) -> Rc<Vec<Branch>> {
        if let Some(branches) = self.results.get(&(id, *act)) {
            return branches.clone();
        }
        let mut node = self.nodes[id as usize].clone();
        let mut effects = Vec::new();
        match act {
            Act::Start(op) => {
                let op = usize::from(*op);
                let request = self.scenario.ops[op].request.clone();
                node.tickets.push(op);
                let submitted = node.register.submit(Time::ZERO, request, &mut effects);
                let ticket = submitted.expect("scenarios start what can be started");
                assert_eq!(ticket.0 as usize, node.tickets.len(), "tickets count up");
            }
            Act::Deliver(packet) => {
                let Packet { from, message, .. } = self.packets[usize::from(*packet)].clone();
                let from = self.scenario.seats[from].0;
                let input = Input::Message { from, message };
                node.register.step(Time::ZERO, input, &mut effects);
            }
            Act::Timeout => node.register.step(Time::ZERO, Input::Timeout, &mut effects),
            Act::Crash => {}
        }
        let mut branches = Vec::new();
        let begun = Branch {
            node: 0,
            sent: Vec::new(),
            cast: Vec::new(),
            events: Vec::new(),
            crashed: false,
        };
        if *act == Act::Crash {
            self.crash(at, &node, node.durable.clone(), begun, &mut branches);
        } else {
            self.branch(at, node, effects, begun, &mut branches);
        }
        let changes = |branch: &Branch| {
            branch.node != id
                || !(branch.sent.is_empty() && branch.cast.is_empty() && branch.events.is_empty())
        };
        if let (Act::Deliver(packet), false) = (act, branches.iter().any(changes)) {
            set(&mut self.deaf_to[id as usize], usize::from(*packet));
        }
        let branches = Rc::new(branches);
        self.results.insert((id, *act), branches.clone());
        branches
    }

    fn branch(
        &mut self,
        at: usize,
        mut node: Node,
        effects: Vec<Effect>,
        mut so_far: Branch,
        branches: &mut Vec<Branch>,
    ) {
        let mut persist = None;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    if !self.scenario.gossip && matches!(message.body, Body::Chosen { .. }) {
                        continue;
                    }
                    let to = self.seat_of(to);
                    if self.is_beyond(ballot_of(&message)) {
                        return;
                    }
                    let packet = Packet {
                        from: at,
                        to,
                        message,
                    };
                    so_far.sent.push(self.packet_id(packet));
                }
                Effect::Persist { serial, state } => persist = Some((serial, state)),
                Effect::Done { ticket, outcome } => {
                    let op = node.tickets[ticket.0 as usize - 1];
                    so_far.events.push(Event::Done(op, outcome));
                }
                Effect::Known(value) => so_far.events.push(Event::Known(value)),
                Effect::Ignored { reason, .. } => {
                    assert!(
                        !reason.is_suspicious(),
                        "a correct peer is suspected: {reason}"
                    );
                }
            }
        }
        let Some((serial, state)) = persist else {
            so_far.node = self.node_id(node);
            branches.push(so_far);
            return;
        };
        // A proposer that asks itself sends nothing.
        if self.is_beyond(state.promised) {
            return;
        }
        // The power goes before the disk has it.
        self.crash(at, &node, node.durable.clone(), so_far.clone(), branches);
        node.durable = state;
        if let Some(vote) = node.durable.accepted.clone() {
            let id = self.cast_id(Cast { node: at, vote });
            so_far.cast.push(id);
        }
        // The disk has it, and the power goes before anybody is told.
        self.crash(at, &node, node.durable.clone(), so_far.clone(), branches);
        let mut effects = Vec::new();
        node.register
            .step(Time::ZERO, Input::Persisted(serial), &mut effects);
        self.branch(at, node, effects, so_far, branches);
    }

    fn crash(
        &mut self,
        at: usize,
        node: &Node,
        durable: AcceptorState,
        mut so_far: Branch,
        branches: &mut Vec<Branch>,
    ) {
        if node.lives > u64::from(self.scenario.crashes_max) {
            return;
        }
        let lives = node.lives + 1;
        let (me, _, known) = self.scenario.seats[at].clone();
        so_far.node = self.node_id(Node {
            register: Register::open(me, lives, durable.clone(), known, STILL),
            durable,
            tickets: Vec::new(),
            lives,
        });
        so_far.crashed = true;
        branches.push(so_far);
    }

    /// Whether a ballot is above what this small world lets its node propose.
    fn is_beyond(&self, ballot: Ballot) -> bool {
        ballot > Ballot::GENESIS
            && ballot.round > self.scenario.rounds_max[self.seat_of(ballot.node)]
    }

    fn seat_of(&self, node: NodeId) -> usize {
        let mut seats = self.scenario.seats.iter();
        // Of two incarnations, the later one listens: it has the earlier one's address.
        seats
            .rposition(|(voter, _, _)| voter.node == node)
            .expect("every member has a seat")
    }

    fn node_id(&mut self, node: Node) -> u32 {
        if let Some(id) = self.node_ids.get(&node) {
            return *id;
        }
        let id = u32::try_from(self.nodes.len()).expect("few nodes");
        self.nodes.push(node.clone());
        self.deaf_to.push([0; 12]);
        self.node_ids.insert(node, id);
        id
    }

    fn packet_id(&mut self, packet: Packet) -> usize {
        if let Some(id) = self.packet_ids.get(&packet) {
            return *id;
        }
        let id = self.packets.len();
        assert!(
            id < 12 * 64,
            "{}: more messages than bits",
            self.scenario.name
        );
        set(&mut self.mail[packet.to], id);
        self.packets.push(packet.clone());
        self.packet_ids.insert(packet, id);
        id
    }

    fn cast_id(&mut self, cast: Cast) -> usize {
        if let Some(id) = self.cast_ids.get(&cast) {
            return *id;
        }
        let id = self.casts.len();
        assert!(id < 3 * 64, "{}: more votes than bits", self.scenario.name);
        self.casts.push(cast.clone());
        self.cast_ids.insert(cast, id);
        id
    }

    /// Prints how a world was reached.
    fn tell(&self, index: u32, at: usize, act: &Act, branch: &Branch) {
        let mut path = vec![(at, *act, u8::MAX)];
        let mut cursor = index;
        while cursor != 0 {
            let (before, at, act, number) = self.trail[cursor as usize];
            path.push((usize::from(at), act, number));
            cursor = before;
        }
        for (at, act, number) in path.into_iter().rev() {
            match act {
                Act::Deliver(packet) => {
                    let packet = &self.packets[usize::from(packet)];
                    let from = self.scenario.seats[packet.from].0;
                    let to = self.scenario.seats[at].0;
                    eprintln!("{from} -> {to} {} /{number}", packet.message.body);
                }
                Act::Start(op) => {
                    let op = &self.scenario.ops[usize::from(op)];
                    eprintln!(
                        "{} starts {:?} /{number}",
                        self.scenario.seats[at].0, op.request
                    );
                }
                Act::Timeout | Act::Crash => {
                    eprintln!("{} {act:?} /{number}", self.scenario.seats[at].0);
                }
            }
        }
        eprintln!("then {:?}, crashed: {}", branch.events, branch.crashed);
    }
}

fn ballot_of(message: &Message) -> Ballot {
    match &message.body {
        Body::Prepare { ballot, .. }
        | Body::Promised { ballot, .. }
        | Body::Accept { ballot, .. }
        | Body::Accepted { ballot, .. }
        | Body::Refused { ballot, .. } => *ballot,
        Body::Chosen { .. } => Ballot::GENESIS,
    }
}
