//! The world of one run: nodes, connections, clients, faults, all under one virtual clock.

use super::Summary;
use super::check::{Observer, Operation};
use super::node::{self, Process, Starter, Wants};
use super::plan::{self, Tuning};
use super::random::Random;
use bytes::{Bytes, BytesMut};
use standfast::node::client::{Answer, Op, Request, SessionId};
use standfast::node::clock::Now;
use standfast::node::directory::sim::SimDir;
use standfast::node::engine::Event;
use standfast::node::link::LinkEvent;
use standfast::node::meta::MetaFile;
use standfast::node::open::state_limits;
use standfast::node::wire::{self, Frame, Hello, WIRE_VERSION};
use standfast::replication::Meta;
use standfast::replication::config::{Acks, Addresses, Config, Member, MemberRole, Protection};
use standfast::server::command as table;
use standfast::state::{Command, Reply};
use standfast_wal::{ClusterId, Epoch, History, Incarnation, Lsn, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const CLUSTER: ClusterId = ClusterId(0x5746);
const EPOCH_WALL: u64 = 1_700_000_000 * SECOND;
/// After the faults have ended the cluster must serve and be equal within this.
const HEAL: u64 = 150 * SECOND;
/// A client gives up on an answer after this.
const CLIENT_TIMEOUT: u64 = 7 * SECOND;

/// What happens at a moment.
enum Happening {
    /// The node's own deadline, or something queued for it.
    Wake {
        node: usize,
    },
    Arrive {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Bytes,
    },
    LogDone {
        node: usize,
        life: u64,
    },
    MetaDone {
        node: usize,
        life: u64,
    },
    Connect {
        from: usize,
        to: usize,
        life: u64,
    },
    Broken {
        from: usize,
        to: usize,
        connection: u64,
    },
    Restart {
        node: usize,
    },
    Resume {
        node: usize,
    },
    Heal,
    Fault,
    Client {
        client: usize,
    },
    GiveUp {
        client: usize,
        seq: u64,
    },
    Calm,
}

struct Node {
    id: NodeId,
    role: MemberRole,
    disks: SimDir,
    process: Option<Process>,
    life: u64,
    /// Added to virtual time to give this node's wall clock.
    skew: i64,
    paused: bool,
    /// What came while it was paused.
    missed: Vec<Event>,
    wake_at: u64,
}

/// The connection that one node dialled to another.
#[derive(Default, Clone, Copy)]
struct Connection {
    number: u64,
    up: bool,
    /// Nothing arrives before what was sent earlier.
    last_arrival: u64,
}

struct Client {
    at: usize,
    seq: u64,
    busy: Option<(Op2, u64)>,
    written: u64,
    tokens: u64,
}

/// What a client asked.
#[derive(Clone)]
struct Op2 {
    command: Command,
    encoded: Bytes,
    write: bool,
}

pub struct World {
    random: Random,
    now: u64,
    next: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: Vec<Node>,
    connections: BTreeMap<(usize, usize), Connection>,
    blocked: BTreeSet<(usize, usize)>,
    next_connection: u64,
    clients: Vec<Client>,
    observer: Observer,
    summary: Summary,
    calm: bool,
    trace: bool,
    latency_max: u64,
    crash_rate: u64,
    tuning: Tuning,
}

/// Runs one seed; the story of what must not be, if it was.
pub fn run(seed: u64, faults: Duration, trace: bool) -> Result<Summary, String> {
    let mut world = World::new(seed, trace);
    let end = u64::try_from(faults.as_nanos()).unwrap_or(u64::MAX);
    world.at(end, Happening::Calm);
    world.run(end)?;
    Ok(world.summary)
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let layouts: [(usize, usize, usize, Acks, Protection); 7] = [
            (1, 0, 0, Acks::All, Protection::MaxAvailability),
            (2, 0, 1, Acks::All, Protection::MaxAvailability),
            (2, 1, 1, Acks::All, Protection::MaxAvailability),
            (2, 0, 1, Acks::All, Protection::MaxProtection),
            (3, 0, 0, Acks::Majority, Protection::MaxAvailability),
            (3, 0, 0, Acks::All, Protection::MaxAvailability),
            (3, 1, 0, Acks::Majority, Protection::MaxProtection),
        ];
        let (data, asynchronous, witnesses, acks, protection) =
            layouts[random.below(layouts.len() as u64) as usize];
        let mut roles = vec![MemberRole::Data; data];
        roles.extend(vec![MemberRole::Asynchronous; asynchronous]);
        roles.extend(vec![MemberRole::Witness; witnesses]);
        let config = first_config(&roles, acks, protection);
        let nodes = roles.iter().enumerate().map(|(i, role)| {
            let id = NodeId(u32::try_from(i).expect("few nodes"));
            let disks = SimDir::new(random.next());
            let incarnation = config.members[&id].incarnation;
            let core = Meta::first(CLUSTER, id, incarnation, config.clone());
            let meta = MetaFile {
                cluster_name: "sim".to_string(),
                quarantined: false,
                core,
            };
            node::format(&disks, &meta);
            Node {
                id,
                role: *role,
                disks,
                process: None,
                life: 0,
                skew: random.below(400) as i64 * MS as i64,
                paused: false,
                missed: Vec::new(),
                wake_at: u64::MAX,
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let latency_max = [MS / 5, 2 * MS, 20 * MS][random.below(3) as usize];
        let crash_rate = [5, 20, 100][random.below(3) as usize];
        let mut world = World {
            random,
            now: 0,
            next: 0,
            queue: BTreeMap::new(),
            connections: BTreeMap::new(),
            blocked: BTreeSet::new(),
            next_connection: 0,
            clients: (0..4)
                .map(|_| Client {
                    at: 0,
                    seq: 0,
                    busy: None,
                    written: 0,
                    tokens: 0,
                })
                .collect(),
            observer: Observer::default(),
            summary: Summary::default(),
            calm: false,
            trace,
            latency_max,
            crash_rate,
            tuning: Tuning::small(),
            nodes,
        };
        for node in 0..world.nodes.len() {
            world.at(0, Happening::Restart { node });
        }
        for client in 0..world.clients.len() {
            world.at(10 * MS, Happening::Client { client });
        }
        world.at(500 * MS, Happening::Fault);
        world
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.next += 1;
        self.queue.insert((time, self.next), happening);
    }

    fn after(&mut self, wait: u64, happening: Happening) {
        self.at(self.now + wait, happening);
    }

    fn clock(&self, node: usize) -> Now {
        let wall = EPOCH_WALL + self.now;
        // Every node's boot clock starts elsewhere.
        let boot = self.now + (node as u64 + 1) * 1000 * SECOND;
        Now {
            boot,
            wall: wall.saturating_add_signed(self.nodes[node].skew),
        }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e9, text());
        }
    }

    fn run(&mut self, faults_end: u64) -> Result<(), String> {
        while let Some(((time, _), happening)) = self.queue.pop_first() {
            self.now = time;
            self.summary.events += 1;
            if time > faults_end + HEAL {
                return Err(self.story_of_no_calm());
            }
            self.happen(happening)?;
            if self.calm && self.summary.events.is_multiple_of(512) && self.is_settled() {
                break;
            }
        }
        self.summary.virtual_ns = self.now;
        self.observer.histories(state_limits(CLUSTER))
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Wake { node } => {
                if self.nodes[node].wake_at <= self.now {
                    self.nodes[node].wake_at = u64::MAX;
                    self.turn(node, Vec::new())?;
                }
            }
            Happening::Arrive {
                from,
                to,
                connection,
                bytes,
            } => {
                self.arrive(from, to, connection, &bytes)?;
            }
            Happening::LogDone { node, life } => {
                if self.nodes[node].life == life
                    && let Some(process) = &mut self.nodes[node].process
                {
                    let events = process.log_done();
                    self.turn(node, events)?;
                }
            }
            Happening::MetaDone { node, life } => {
                if self.nodes[node].life == life
                    && let Some(process) = &mut self.nodes[node].process
                {
                    let events = process.meta_done();
                    self.turn(node, events)?;
                }
            }
            Happening::Connect { from, to, life } => self.connect(from, to, life)?,
            Happening::Broken {
                from,
                to,
                connection,
            } => self.broken(from, to, connection)?,
            Happening::Restart { node } => self.restart(node)?,
            Happening::Resume { node } => {
                if self.nodes[node].paused {
                    self.nodes[node].paused = false;
                    self.say(|| format!("n{node} goes on"));
                    let missed = std::mem::take(&mut self.nodes[node].missed);
                    self.turn(node, missed)?;
                }
            }
            Happening::Heal => self.heal(),
            Happening::Fault => self.fault()?,
            Happening::Client { client } => self.client(client)?,
            Happening::GiveUp { client, seq } => {
                if self.clients[client].busy.is_some() && self.clients[client].seq == seq {
                    self.clients[client].busy = None;
                    self.summary.unknown += 1;
                    self.clients[client].at = self.random.below(self.nodes.len() as u64) as usize;
                    self.after(MS, Happening::Client { client });
                }
            }
            Happening::Calm => {
                self.calm = true;
                self.say(|| "--- the faults have ended".to_string());
                self.heal();
                for node in 0..self.nodes.len() {
                    self.at(self.now, Happening::Resume { node });
                    self.at(self.now, Happening::Restart { node });
                }
            }
        }
        Ok(())
    }

    // --- Nodes --------------------------------------------------------------------------------

    fn turn(&mut self, node: usize, events: Vec<Event>) -> Result<(), String> {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        if this.paused {
            this.missed.extend(events);
            return Ok(());
        }
        let Some(process) = &mut this.process else {
            return Ok(());
        };
        let wants = process.turn(now, events);
        if let Some(story) = wants.halted {
            return Err(format!("n{node} halted: {story}"));
        }
        let epochs = process.engine.replica().epochs().clone();
        let (lsn, digest) = process.engine.applied();
        if lsn > Lsn::ZERO {
            self.observer
                .applied(NodeId(node as u32), lsn, digest, |at| {
                    epochs.at(at).map(|entry| entry.epoch)
                })?;
        }
        self.carry_out(node, wants)?;
        self.schedule_wake(node);
        Ok(())
    }

    fn schedule_wake(&mut self, node: usize) {
        let boot = self.clock(node).boot;
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let Some(deadline) = process.engine.deadline() else {
            return;
        };
        // A microsecond at least: virtual time always goes on.
        let at = self.now + deadline.0.saturating_sub(boot).max(1_000);
        if at < self.nodes[node].wake_at {
            self.nodes[node].wake_at = at;
            self.at(at, Happening::Wake { node });
        }
    }

    fn carry_out(&mut self, node: usize, wants: Wants) -> Result<(), String> {
        let id = self.nodes[node].id;
        self.summary.promotions += wants.promoted;
        self.summary.cuts += wants.cuts;
        self.summary.snapshots_installed += wants.installed;
        for line in wants.lines {
            self.say(|| format!("n{node}: {line}"));
        }
        let is_primary = self.nodes[node]
            .process
            .as_ref()
            .is_some_and(|p| p.engine.replica().is_primary());
        for record in wants.built.iter().filter(|_| is_primary) {
            self.observer.built(id, record)?;
        }
        for (to, frame) in wants.frames {
            self.send(node, to.0 as usize, &frame);
        }
        let life = self.nodes[node].life;
        if wants.log_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.log_busy = true;
            let wait = self.random.between(20_000, 400_000);
            self.after(wait, Happening::LogDone { node, life });
        }
        if wants.log_idle {
            self.after(SECOND, Happening::LogDone { node, life });
        }
        if wants.meta_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.meta_busy = true;
            let wait = self.random.between(50_000, 2 * MS);
            self.after(wait, Happening::MetaDone { node, life });
        }
        for (session, answer) in wants.answers {
            self.answered(session, answer)?;
        }
        if !wants.events.is_empty() {
            self.turn(node, wants.events)?;
        }
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        let now = self.clock(node);
        let alone = self.nodes.len() == 1;
        let Node {
            disks, role, id, ..
        } = &mut self.nodes[node];
        let id = *id;
        let own = plan::introduction(*role);
        let starter = Starter {
            id,
            cluster: CLUSTER,
            alone,
            introduction: &own,
        };
        let process = Process::start(disks, now, &mut self.random, &self.tuning, &starter)
            .map_err(|e| format!("n{node} does not start: {e}"))?;
        self.nodes[node].life += 1;
        self.nodes[node].wake_at = u64::MAX;
        self.nodes[node].process = Some(process);
        self.say(|| format!("n{node} starts"));
        let life = self.nodes[node].life;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.after(
                MS / 2,
                Happening::Connect {
                    from: node,
                    to: other,
                    life,
                },
            );
        }
        self.turn(node, Vec::new())
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].process.take().is_none() {
            return;
        }
        self.say(|| format!("n{node} crashes"));
        self.summary.crashes += 1;
        self.nodes[node].life += 1;
        self.nodes[node].paused = false;
        self.nodes[node].missed.clear();
        self.nodes[node].disks.crash();
        for ((from, to), connection) in self.connections.clone() {
            if (from == node || to == node) && connection.up {
                self.break_connection(from, to);
            }
        }
    }

    // --- Connections --------------------------------------------------------------------------

    fn connect(&mut self, from: usize, to: usize, life: u64) -> Result<(), String> {
        if self.nodes[from].life != life
            || self.nodes[from].process.is_none()
            || self
                .connections
                .get(&(from, to))
                .is_some_and(|connection| connection.up)
        {
            return Ok(());
        }
        let cut_off = self.blocked.contains(&(from, to)) || self.blocked.contains(&(to, from));
        if cut_off || self.nodes[to].paused || self.nodes[to].process.is_none() {
            self.after(30 * MS, Happening::Connect { from, to, life });
            if !cut_off && self.nodes[to].process.is_none() {
                let peer = self.nodes[to].id;
                self.turn(from, vec![Event::Link(LinkEvent::Refused { peer })])?;
            }
            return Ok(());
        }
        self.next_connection += 1;
        let number = self.next_connection;
        self.connections.insert(
            (from, to),
            Connection {
                number,
                up: true,
                last_arrival: self.now,
            },
        );
        let hello = Box::new(self.hello(to, from));
        let peer = self.nodes[to].id;
        self.turn(from, vec![Event::Link(LinkEvent::Up { peer, hello })])
    }

    fn hello(&self, of: usize, to: usize) -> Hello {
        Hello {
            version: WIRE_VERSION,
            cluster_name: "sim".to_string(),
            cluster: CLUSTER,
            from: self.nodes[of].id,
            incarnation: incarnation(self.nodes[of].id),
            process: self.nodes[of].life,
            to: self.nodes[to].id,
        }
    }

    /// The dialler notices at once, or, cut off, when TCP does.
    fn break_connection(&mut self, from: usize, to: usize) {
        let Some(connection) = self.connections.get_mut(&(from, to)) else {
            return;
        };
        if !connection.up {
            return;
        }
        connection.up = false;
        let number = connection.number;
        let wait = self.random.between(0, MS);
        self.after(
            wait,
            Happening::Broken {
                from,
                to,
                connection: number,
            },
        );
    }

    fn broken(&mut self, from: usize, to: usize, number: u64) -> Result<(), String> {
        if self
            .connections
            .get(&(from, to))
            .is_none_or(|connection| connection.number != number)
        {
            return Ok(());
        }
        let life = self.nodes[from].life;
        self.after(MS, Happening::Connect { from, to, life });
        let peer = self.nodes[to].id;
        self.turn(from, vec![Event::Link(LinkEvent::Down { peer })])
    }

    fn send(&mut self, from: usize, to: usize, frame: &Frame) {
        let Some(connection) = self.connections.get(&(from, to)).copied() else {
            return;
        };
        if !connection.up || self.blocked.contains(&(from, to)) {
            return;
        }
        let mut buffers = Vec::new();
        wire::encode(frame, &mut buffers);
        let bytes: Bytes = buffers.concat().into();
        let delay = self.random.between(20_000, self.latency_max);
        let arrival = (self.now + delay).max(connection.last_arrival + 1);
        if let Some(connection) = self.connections.get_mut(&(from, to)) {
            connection.last_arrival = arrival;
        }
        let connection = connection.number;
        self.at(
            arrival,
            Happening::Arrive {
                from,
                to,
                connection,
                bytes,
            },
        );
    }

    /// What was under way on a broken connection may still arrive, even behind what was sent on
    /// the next one.
    fn arrive(&mut self, from: usize, to: usize, number: u64, bytes: &Bytes) -> Result<(), String> {
        let stale = self
            .connections
            .get(&(from, to))
            .is_none_or(|c| c.number != number || !c.up);
        if self.blocked.contains(&(from, to)) || (stale && self.random.one_in(2)) {
            return Ok(());
        }
        let frame = wire::decode(&mut BytesMut::from(&bytes[..]))
            .map_err(|e| format!("a frame does not decode: {e}"))?
            .ok_or("a frame is not whole")?;
        let (id, incarnation) = (self.nodes[from].id, incarnation(self.nodes[from].id));
        self.say(|| format!("n{from} -> n{to} {:?}", frame.head));
        self.turn(
            to,
            vec![Event::Link(LinkEvent::Frame {
                from: id,
                incarnation,
                frame,
            })],
        )
    }

    // --- Faults -------------------------------------------------------------------------------

    fn heal(&mut self) {
        if !self.blocked.is_empty() {
            self.say(|| "partitions heal".to_string());
        }
        self.blocked.clear();
    }

    fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let wait = self.random.between(10 * MS, 1500 * MS);
        self.after(wait, Happening::Fault);
        let node = self.random.below(self.nodes.len() as u64) as usize;
        match self.random.below(self.crash_rate + 8) {
            0 => self.pause(node),
            1 | 2 => self.partition(),
            3 | 4 => {
                let other = self.random.below(self.nodes.len() as u64) as usize;
                self.summary.breaks += 1;
                self.break_connection(node, other);
            }
            5 => {
                let jump = self.random.between(0, 20 * SECOND) as i64 - 10 * SECOND as i64;
                self.nodes[node].skew += jump;
            }
            6 => {
                for node in 0..self.nodes.len() {
                    self.crash(node);
                    let wait = self.random.between(MS, SECOND);
                    self.after(wait, Happening::Restart { node });
                }
            }
            _ => {
                self.crash(node);
                let wait = self.random.between(MS, 3 * SECOND);
                self.after(wait, Happening::Restart { node });
            }
        }
        Ok(())
    }

    fn pause(&mut self, node: usize) {
        self.say(|| format!("n{node} is paused"));
        self.summary.pauses += 1;
        self.nodes[node].paused = true;
        let wait = self.random.between(50 * MS, 5 * SECOND);
        self.after(wait, Happening::Resume { node });
    }

    fn partition(&mut self) {
        self.summary.partitions += 1;
        let one_way = self.random.one_in(3);
        let side: Vec<bool> = self.nodes.iter().map(|_| self.random.one_in(2)).collect();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] != side[to] && (!one_way || side[from]) {
                    self.blocked.insert((from, to));
                }
            }
        }
        self.say(|| format!("partition {side:?}, one way: {one_way}"));
        let wait = self.random.between(50 * MS, 4 * SECOND);
        self.after(wait, Happening::Heal);
    }

    // --- Clients ------------------------------------------------------------------------------

    fn client(&mut self, number: usize) -> Result<(), String> {
        let op = self.draw(number);
        let client = &mut self.clients[number];
        client.seq += 1;
        let (seq, at) = (client.seq, client.at);
        let request = if op.write {
            Op::Write(op.encoded.clone())
        } else {
            Op::Read {
                command: op.command.clone(),
                stale: false,
            }
        };
        client.busy = Some((op, self.now));
        self.after(
            CLIENT_TIMEOUT,
            Happening::GiveUp {
                client: number,
                seq,
            },
        );
        let session = SessionId((number as u64) << 32 | seq);
        let requests = vec![Request { seq, op: request }];
        if self.nodes[at].process.is_none() {
            return self.refused(number);
        }
        self.turn(at, vec![Event::Submit { session, requests }])
    }

    fn draw(&mut self, number: usize) -> Op2 {
        let client = &mut self.clients[number];
        client.written += 1;
        let key = format!("k{}", self.random.below(6));
        let value = format!("c{number}-{}", client.written);
        let words: Vec<String> = match self.random.below(9) {
            0..=2 => vec!["SET".into(), key, value],
            3 => vec!["INCR".into(), "counter".into()],
            4 => vec!["APPEND".into(), key, value],
            5 => vec!["SET".into(), key, value, "PX".into(), "400".into()],
            6 => vec!["DEL".into(), key],
            _ => vec!["GET".into(), key],
        };
        let words: Vec<Bytes> = words.into_iter().map(Bytes::from).collect();
        let command = parse(&words);
        let write = command.is_write();
        let command = if write && self.random.one_in(4) {
            client.tokens += 1;
            let token = Bytes::from(format!("t{number}-{}", client.tokens));
            Command::Once(standfast::state::command::Once::new(
                token, 86_400_000, 1000, command,
            ))
        } else {
            command
        };
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        Op2 {
            command,
            encoded: encoded.freeze(),
            write,
        }
    }

    fn refused(&mut self, number: usize) -> Result<(), String> {
        self.clients[number].busy = None;
        self.clients[number].at = self.random.below(self.nodes.len() as u64) as usize;
        let wait = self.random.between(MS, 40 * MS);
        self.after(wait, Happening::Client { client: number });
        Ok(())
    }

    fn answered(&mut self, session: SessionId, answer: Answer) -> Result<(), String> {
        let number = (session.0 >> 32) as usize;
        let client = &mut self.clients[number];
        if client.seq != answer.seq {
            return Ok(());
        }
        let Some((op, invoked)) = client.busy.take() else {
            return Ok(());
        };
        if answer.lsn == Lsn::ZERO && matches!(answer.reply, Reply::Error(_)) {
            return self.refused(number);
        }
        let unknown = matches!(&answer.reply, Reply::Error(text) if text.starts_with(b"UNKNOWN"));
        if unknown {
            self.summary.unknown += 1;
            return self.refused(number);
        }
        self.summary.writes += u64::from(op.write);
        self.summary.reads += u64::from(!op.write);
        self.observer.operations.push(Operation {
            client: number as u64,
            invoked,
            returned: self.now,
            lsn: answer.lsn,
            epoch: answer.epoch,
            read: (!op.write).then_some(op.command),
            reply: answer.reply,
            encoded: op.encoded,
        });
        let wait = self.random.between(0, 3 * MS);
        self.after(wait, Happening::Client { client: number });
        Ok(())
    }

    // --- The end ------------------------------------------------------------------------------

    /// One primary serves, and every data node has applied the same and is equal.
    fn is_settled(&self) -> bool {
        let mut ends = BTreeSet::new();
        let mut serving = 0;
        for node in &self.nodes {
            let Some(process) = &node.process else {
                return false;
            };
            if node.role == MemberRole::Witness {
                continue;
            }
            let (lsn, _) = process.engine.applied();
            ends.insert(lsn);
            let admits = process.engine.replica().admit().is_ok();
            serving += u64::from(process.engine.replica().is_primary() && admits);
        }
        let spread = match (ends.first(), ends.last()) {
            (Some(first), Some(last)) => first.distance_to(*last),
            _ => 0,
        };
        serving == 1 && spread <= 64 && self.all_in_place()
    }

    /// In max-availability and max-protection every data node is back in the sync set.
    fn all_in_place(&self) -> bool {
        let primary = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let Some(primary) = primary
            .into_iter()
            .find(|p| p.engine.replica().is_primary())
        else {
            return false;
        };
        let config = primary.engine.replica().config();
        let wanted = config
            .members
            .iter()
            .filter(|(_, m)| m.role == MemberRole::Data)
            .count();
        config.sync_set.len() == wanted
    }

    fn story_of_no_calm(&self) -> String {
        let mut text = format!(
            "no service or no equal copies within {} s after the faults ended; committed {}\n",
            HEAL / SECOND,
            self.observer.committed_through()
        );
        for node in &self.nodes {
            text += &match &node.process {
                Some(process) => format!(
                    "  n{} {:?} applied {} config {:?}\n",
                    node.id,
                    process.engine.replica().view(process.engine.core_time()),
                    process.engine.applied().0,
                    process.engine.replica().config()
                ),
                None => format!("  n{} is down\n", node.id),
            };
        }
        text
    }
}

/// Every simulated node keeps its disk, so its incarnation never changes.
fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(u128::from(id.0) + 1)
}

fn parse(words: &[Bytes]) -> Command {
    let spec = table::find(words).expect("a command of the table");
    match table::parse(
        spec,
        words,
        &table::Context {
            once_ttl_ms: 86_400_000,
            once_max: 1000,
            seed: 0,
        },
    ) {
        Ok(table::Parsed::Data(command)) => command,
        other => unreachable!("{words:?} is a data command: {other:?}"),
    }
}

fn first_config(roles: &[MemberRole], acks: Acks, protection: Protection) -> Config {
    let ids = |wanted: &dyn Fn(MemberRole) -> bool| -> BTreeSet<NodeId> {
        let with = roles.iter().enumerate().filter(|(_, role)| wanted(**role));
        with.map(|(i, _)| NodeId(i as u32)).collect()
    };
    let sync_set = ids(&|role| role == MemberRole::Data);
    let voters = ids(&|role| role != MemberRole::Asynchronous);
    let member = |i: usize, role: MemberRole| Member {
        incarnation: Incarnation(i as u128 + 1),
        role,
        site: "sim".to_string(),
        priority: 100,
        addresses: Addresses::default(),
    };
    let members: BTreeMap<NodeId, Member> = roles
        .iter()
        .enumerate()
        .map(|(i, role)| (NodeId(i as u32), member(i, *role)))
        .collect();
    let wanted = match acks {
        Acks::All => sync_set.len(),
        Acks::Majority => sync_set.len() / 2 + 1,
    };
    let least = if protection == Protection::MaxProtection {
        2
    } else {
        1
    };
    Config {
        history: History {
            generation: 1,
            id: 0x1157,
        },
        ancestors: Vec::new(),
        epoch: Epoch(0),
        version: 1,
        nonce: Nonce(1),
        primary: NodeId(0),
        acks_needed: u32::try_from(wanted.max(least)).expect("few"),
        sync_set,
        acks,
        protection,
        members,
        voters,
    }
}
