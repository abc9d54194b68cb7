//! The network: pipes of bytes between processes; slow, cut, broken at any byte.
//!
//! A pipe is one connection, dialled by its sender, as in `node::link`: bytes come out as they went
//! in, in order, or not at all; what was under way when it broke may still come, even behind what
//! its successor carries. A partition holds back what is sent until it heals or the pipe breaks.

use super::check::Trusted;
use super::queue::Happening;
use super::random::Random;
use super::world::{CLUSTER, CLUSTER_NAME, MS, World};
use bytes::{Bytes, BytesMut};
use standfast::node::engine::Event;
use standfast::node::link::LinkEvent;
use standfast::node::wire::{self, Frame, Hello, WIRE_VERSION};
use standfast_wal::{Incarnation, NodeId};
use std::collections::VecDeque;

/// What waits in a cut pipe at most: beyond, it breaks, as a link does whose queue is full.
const HELD_MAX: usize = 256 << 10;

/// One connection.
struct Pipe {
    from: usize,
    to: usize,
    /// The process that accepted it.
    to_life: u64,
    from_life: u64,
    /// Of its dialler, from the greeting.
    incarnation: Incarnation,
    /// It stands; a broken one is noticed by its dialler later.
    is_up: bool,
    is_noticed: bool,
    /// Nothing arrives before what was sent earlier.
    last_arrival: u64,
    /// Received, not yet a whole frame.
    buffer: BytesMut,
    /// Everything under way, oldest first: what arrives is what was sent first, whenever the way
    /// was cut or slow meanwhile.
    under_way: VecDeque<Bytes>,
    /// Arrivals that the cut way holds back.
    held: usize,
    /// Bytes that were sent while the way was cut.
    held_bytes: usize,
    /// Of a broken pipe: how many bytes still come through.
    left: Option<usize>,
    /// Of a broken pipe: what still comes, comes so late.
    late: u64,
}

pub struct Net {
    pipes: Vec<Pipe>,
    /// The newest pipe that each node dialled to each other.
    current: Vec<Vec<Option<usize>>>,
    /// How many partitions cut this way.
    blocked: Vec<Vec<u32>>,
    /// Extra nanoseconds on this way.
    slow: Vec<Vec<u64>>,
    /// The newest intention to dial; older ones are void.
    dials: Vec<Vec<u64>>,
    partitions: Vec<(u64, Vec<(usize, usize)>)>,
    next_partition: u64,
}

impl Net {
    pub fn new(nodes: usize) -> Net {
        Net {
            pipes: Vec::new(),
            current: vec![vec![None; nodes]; nodes],
            blocked: vec![vec![0; nodes]; nodes],
            slow: vec![vec![0; nodes]; nodes],
            dials: vec![vec![0; nodes]; nodes],
            partitions: Vec::new(),
            next_partition: 0,
        }
    }

    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] > 0
    }

    /// Either direction is cut: no connection comes about.
    fn is_cut_off(&self, from: usize, to: usize) -> bool {
        self.is_blocked(from, to) || self.is_blocked(to, from)
    }

    pub fn slow_down(&mut self, from: usize, to: usize, extra: u64) {
        self.slow[from][to] = extra;
    }

    pub fn hasten(&mut self, from: usize, to: usize) {
        self.slow[from][to] = 0;
    }

    /// Cuts these ways; they are healed by the number that is returned.
    pub fn cut(&mut self, ways: Vec<(usize, usize)>) -> u64 {
        for (from, to) in &ways {
            self.blocked[*from][*to] += 1;
        }
        self.next_partition += 1;
        self.partitions.push((self.next_partition, ways));
        self.next_partition
    }

    /// Those that cut a way of this node.
    pub fn partitions_at(&self, node: usize) -> Vec<u64> {
        let touches = |ways: &[(usize, usize)]| ways.iter().any(|(a, b)| *a == node || *b == node);
        let all = self.partitions.iter();
        let near = all.filter(|(_, ways)| touches(ways));
        near.map(|(number, _)| *number).collect()
    }

    pub fn partitions(&self) -> Vec<u64> {
        self.partitions.iter().map(|(number, _)| *number).collect()
    }

    fn live_pipe(&self, from: usize, to: usize) -> Option<usize> {
        self.current[from][to].filter(|pipe| self.pipes[*pipe].is_up)
    }

    /// Nothing is dialled before this process of the dialler knows that the old pipe is broken.
    fn may_dial(&self, from: usize, to: usize, life: u64) -> bool {
        self.current[from][to].is_none_or(|pipe| {
            let pipe = &self.pipes[pipe];
            pipe.from_life != life || pipe.is_noticed
        })
    }
}

impl World {
    fn delay(&mut self, from: usize, to: usize) -> u64 {
        let [low, high] = self.plan.latency;
        self.dice.net.between(low, high) + self.net.slow[from][to]
    }

    // Sending

    /// Puts a turn's frames on the wire: those to one peer in one write, as the link does.
    pub fn send(
        &mut self,
        from: usize,
        frames: Vec<(NodeId, Frame)>,
        trusted: &Trusted,
    ) -> Result<(), String> {
        let mut batches: Vec<(usize, Vec<Bytes>)> = Vec::new();
        for (to, frame) in frames {
            let to = to.0 as usize;
            self.observer
                .sent((from, to), &self.nodes, &frame, trusted)?;
            self.says_what_it_kept(from, &frame)?;
            self.overhears(from, to, &frame);
            if to >= self.nodes.len() || self.net.live_pipe(from, to).is_none() {
                continue;
            }
            let place = match batches.iter().position(|(other, _)| *other == to) {
                Some(place) => place,
                None => {
                    batches.push((to, Vec::new()));
                    batches.len() - 1
                }
            };
            wire::encode(&frame, &mut batches[place].1);
        }
        for (to, buffers) in batches {
            let bytes = joined(buffers);
            self.put(from, to, bytes);
        }
        Ok(())
    }

    fn put(&mut self, from: usize, to: usize, bytes: Bytes) {
        let Some(pipe) = self.net.live_pipe(from, to) else {
            return;
        };
        self.digest.add(bytes.len() as u64);
        if self.net.is_blocked(from, to) {
            let held_bytes = &mut self.net.pipes[pipe].held_bytes;
            if *held_bytes >= HELD_MAX {
                return self.break_way(from, to);
            }
            *held_bytes += bytes.len();
        }
        let split = bytes.len() > 1 && self.dice.net.one_in(self.plan.split_one_in);
        let mut rest = bytes;
        if split {
            let at = 1 + self.dice.net.index(rest.len() - 1);
            let front = rest.split_to(at);
            self.schedule(pipe, front);
        }
        self.schedule(pipe, rest);
    }

    fn schedule(&mut self, pipe: usize, bytes: Bytes) {
        self.net.pipes[pipe].under_way.push_back(bytes);
        self.schedule_arrival(pipe);
    }

    fn schedule_arrival(&mut self, pipe: usize) {
        let (from, to) = (self.net.pipes[pipe].from, self.net.pipes[pipe].to);
        let delay = self.delay(from, to);
        let this = &mut self.net.pipes[pipe];
        this.last_arrival = (self.now + delay).max(this.last_arrival + 1);
        let at = this.last_arrival;
        self.queue.push(at, Happening::Arrive { pipe });
    }

    // Receiving

    pub fn arrive(&mut self, pipe: usize) -> Result<(), String> {
        let this = &mut self.net.pipes[pipe];
        let (from, to) = (this.from, this.to);
        if !this.is_up && this.late > self.now {
            self.queue.push(this.late, Happening::Arrive { pipe });
            return Ok(());
        }
        if self.net.blocked[from][to] > 0 {
            this.held += 1;
            return Ok(());
        }
        let Some(mut bytes) = this.under_way.pop_front() else {
            return Ok(());
        };
        if !this.is_up
            && let Some(left) = &mut this.left
        {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        if bytes.is_empty() || self.nodes[to].life != this.to_life {
            return Ok(());
        }
        let this = &mut self.net.pipes[pipe];
        if this.buffer.is_empty() {
            this.buffer = bytes.into();
        } else {
            this.buffer.extend_from_slice(&bytes);
        }
        let (peer, incarnation) = (self.nodes[from].id, this.incarnation);
        let mut events = Vec::new();
        while let Some(frame) = wire::decode(&mut self.net.pipes[pipe].buffer)
            .map_err(|e| format!("a frame does not decode: {e}"))?
        {
            self.double(pipe, peer, incarnation, &frame);
            events.push(Event::Link(LinkEvent::Frame {
                from: peer,
                incarnation,
                frame,
            }));
        }
        if self.order.trace {
            self.say_arrived(from, to, &events);
        }
        if events.is_empty() {
            return Ok(());
        }
        self.turn(to, events)
    }

    /// Between whom this connection stands, if it does and the way is open.
    pub fn stands(&self, pipe: usize) -> Option<(usize, usize)> {
        let this = &self.net.pipes[pipe];
        let (from, to) = (this.from, this.to);
        let stands = this.is_up
            && !self.net.is_blocked(from, to)
            && self.nodes[from].life == this.from_life
            && self.nodes[to].life == this.to_life;
        stands.then_some((from, to))
    }

    fn say_arrived(&self, from: usize, to: usize, events: &[Event]) {
        for event in events {
            if let Event::Link(LinkEvent::Frame { frame, .. }) = event {
                self.say(|| match &frame.head {
                    wire::Head::Core { message } => {
                        let records = &frame.records;
                        let span = records.first().zip(records.last());
                        let span = span
                            .map(|(a, b)| format!(" {}..{}", a.first_lsn(), b.last_lsn()))
                            .unwrap_or_default();
                        format!("n{from} -> n{to} {message}{span}")
                    }
                    head => {
                        let text: String = format!("{head:?}").chars().take(120).collect();
                        format!("n{from} -> n{to} {text}")
                    }
                });
            }
        }
    }

    // Connecting

    pub fn dial_after(&mut self, wait: u64, from: usize, to: usize) {
        self.net.dials[from][to] += 1;
        let ticket = self.net.dials[from][to];
        self.after(wait, Happening::Dial { from, to, ticket });
    }

    pub fn on_dial(&mut self, from: usize, to: usize, ticket: u64) -> Result<(), String> {
        if self.net.dials[from][to] == ticket {
            self.dial(from, to)
        } else {
            Ok(())
        }
    }

    fn dial(&mut self, from: usize, to: usize) -> Result<(), String> {
        let (dialler, target) = (&self.nodes[from], &self.nodes[to]);
        let life = dialler.life;
        if dialler.process.is_none() || !self.net.may_dial(from, to, life) {
            return Ok(());
        }
        let pause = self.dice.net.between(10 * MS, 200 * MS);
        if self.net.is_cut_off(from, to) || target.paused || dialler.paused {
            self.dial_after(self.plan.dial_timeout + pause, from, to);
            return Ok(());
        }
        if target.process.is_none() {
            self.dial_after(pause, from, to);
            let peer = self.nodes[to].id;
            return self.turn(from, vec![Event::Link(LinkEvent::Refused { peer })]);
        }
        let to_life = target.life;
        let wait = self.delay(from, to) + self.delay(to, from);
        self.after(
            wait,
            Happening::Greeted {
                from,
                to,
                life,
                to_life,
            },
        );
        Ok(())
    }

    pub fn greeted(
        &mut self,
        from: usize,
        to: usize,
        life: u64,
        to_life: u64,
    ) -> Result<(), String> {
        let stands = self.nodes[from].life == life
            && self.nodes[from].process.is_some()
            && self.nodes[to].life == to_life
            && self.nodes[to].process.is_some()
            && !self.net.is_cut_off(from, to);
        if !stands || !self.net.may_dial(from, to, life) {
            return self.dial(from, to);
        }
        self.net.pipes.push(Pipe {
            from,
            to,
            from_life: life,
            to_life,
            incarnation: self.nodes[from].incarnation,
            is_up: true,
            is_noticed: false,
            last_arrival: self.now,
            buffer: BytesMut::new(),
            under_way: VecDeque::new(),
            held: 0,
            held_bytes: 0,
            left: None,
            late: 0,
        });
        self.net.current[from][to] = Some(self.net.pipes.len() - 1);
        let hello = Box::new(self.hello(to, from));
        let peer = self.nodes[to].id;
        self.turn(from, vec![Event::Link(LinkEvent::Up { peer, hello })])
    }

    pub fn hello(&self, of: usize, to: usize) -> Hello {
        Hello {
            version: WIRE_VERSION,
            is_packed: false,
            cluster_name: CLUSTER_NAME.to_string(),
            cluster: CLUSTER,
            from: self.nodes[of].id,
            incarnation: self.nodes[of].incarnation,
            process: self.nodes[of].life,
            to: self.nodes[to].id,
        }
    }

    // Breaking

    /// Breaks a node's connection to another, at any byte of what is under way.
    pub fn break_way(&mut self, from: usize, to: usize) {
        let Some(pipe) = self.net.live_pipe(from, to) else {
            return;
        };
        let random = &mut self.dice.net;
        let left = match random.below(3) {
            0 => Some(0),
            1 => Some(random.index(3000)),
            _ => None,
        };
        let late = match random.below(2) {
            0 => self.now + random.below(2000 * MS),
            _ => 0,
        };
        let patience = random.pick(&[MS, 50 * MS, 1000 * MS]);
        let notice = random.between(0, patience);
        let this = &mut self.net.pipes[pipe];
        this.is_up = false;
        this.left = left;
        this.late = late;
        if self.net.blocked[from][to] > 0 || this.held > 0 {
            // What a cut way holds back never comes, nor does what is behind it.
            this.under_way.clear();
        }
        self.after(notice, Happening::Broken { pipe });
    }

    /// The dialler learns of it, and dials again.
    pub fn broken(&mut self, pipe: usize) -> Result<(), String> {
        let this = &mut self.net.pipes[pipe];
        this.is_noticed = true;
        let (from, to, life) = (this.from, this.to, this.from_life);
        if self.nodes[from].life != life || self.nodes[from].process.is_none() {
            return Ok(());
        }
        self.dial_after(MS / 5, from, to);
        let peer = self.nodes[to].id;
        self.turn(from, vec![Event::Link(LinkEvent::Down { peer })])
    }

    /// A process has died: its connections are no more.
    pub fn break_all(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.break_way(node, other);
            self.break_way(other, node);
        }
    }

    // Partitions

    pub fn heal(&mut self, partition: u64) {
        let place = |(number, _): &(u64, _)| *number == partition;
        let Some(place) = self.net.partitions.iter().position(place) else {
            return;
        };
        let (_, ways) = self.net.partitions.swap_remove(place);
        self.say(|| format!("partition {partition} heals"));
        for (from, to) in ways {
            self.net.blocked[from][to] -= 1;
            if self.net.is_blocked(from, to) {
                continue;
            }
            // What waited goes on its way, or the connection had its timeout meanwhile.
            if self.dice.net.one_in(2) {
                self.break_way(from, to);
            } else if let Some(pipe) = self.net.live_pipe(from, to) {
                self.net.pipes[pipe].held_bytes = 0;
                for _ in 0..std::mem::take(&mut self.net.pipes[pipe].held) {
                    self.schedule_arrival(pipe);
                }
            }
        }
    }
}

fn joined(mut buffers: Vec<Bytes>) -> Bytes {
    if buffers.len() == 1 {
        return buffers.remove(0);
    }
    let mut whole = BytesMut::with_capacity(buffers.iter().map(Bytes::len).sum());
    for part in buffers {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

/// Splits nodes into two sides, neither empty.
pub fn sides(random: &mut Random, nodes: usize) -> Vec<bool> {
    let lonely = random.index(nodes);
    let mut sides: Vec<bool> = (0..nodes).map(|_| random.one_in(2)).collect();
    sides[lonely] = !sides[(lonely + 1) % nodes];
    sides
}
