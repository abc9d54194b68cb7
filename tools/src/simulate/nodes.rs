//! The nodes of a world: their turns, starts, crashes and pauses.

use super::clock::Clock;
use super::node::{self, Disks, Process, Wants};
use super::plan::{Plan, first_incarnation, id};
use super::queue::Happening;
use super::random::Random;
use super::world::{CLUSTER, CLUSTER_NAME, MS, World};
use standfast::node::clock::Now;
use standfast::node::engine::Event;
use standfast::node::meta::{MetaFile, unknown_config};
use standfast::replication::{Introduction, Meta};
use standfast_wal::{Incarnation, NodeId};

/// So many wakes of one node without virtual time passing by a millisecond are a busy loop.
const WAKES_PER_MS_MAX: u32 = 400;

pub struct Node {
    pub id: NodeId,
    pub introduction: Introduction,
    /// Of the disk's present life.
    pub incarnation: Incarnation,
    pub disks: Disks,
    pub process: Option<Process>,
    /// Counts processes.
    pub life: u64,
    pub clock: Clock,
    pub paused: bool,
    /// What came while it was paused.
    missed: Vec<Event>,
    wake_at: u64,
    /// Its disk has been told to stop answering: the error that follows is the crash itself.
    pub dying: bool,
    wakes: (u64, u32),
}

impl Node {
    pub fn new(plan: &Plan, place: usize, random: &mut Random) -> Node {
        let disks = Disks::new(random.next());
        let incarnation = first_incarnation(place);
        let is_member = place < plan.members;
        let config = match is_member {
            true => plan.config.clone(),
            false => unknown_config(),
        };
        let core = Meta::first(CLUSTER, id(place), incarnation, config);
        let meta = MetaFile {
            cluster_name: CLUSTER_NAME.to_string(),
            quarantined: false,
            core,
        };
        node::format(&disks, &meta);
        let drift = random.below(plan.drift_ppm * 2 + 1) as i64 - plan.drift_ppm as i64;
        let skew = random.below(400) * MS;
        Node {
            id: id(place),
            introduction: plan.nodes[place].clone(),
            incarnation,
            disks,
            process: None,
            life: 0,
            clock: Clock::new(place, drift, skew as i64),
            paused: false,
            missed: Vec::new(),
            wake_at: u64::MAX,
            dying: false,
            wakes: (0, 0),
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }
}

impl World {
    pub fn clock(&self, node: usize) -> Now {
        self.nodes[node].clock.read(self.now)
    }

    // Turns

    /// Gives a node these events, and then what it asked of itself, until it wants no more.
    pub fn turn(&mut self, node: usize, mut events: Vec<Event>) -> Result<(), String> {
        loop {
            let now = self.clock(node);
            let this = &mut self.nodes[node];
            if this.paused {
                this.missed.extend(events);
                return Ok(());
            }
            let Node {
                process: Some(process),
                disks,
                ..
            } = this
            else {
                return Ok(());
            };
            let wants = match process.turn(disks, now, events) {
                Ok(wants) => wants,
                Err(story) => return self.died(node, &story),
            };
            self.observer
                .turned(self.now, node, &self.nodes, &wants)
                .map_err(|story| format!("n{node}: {story}"))?;
            events = self.carry_out(node, wants)?;
            if events.is_empty() {
                break;
            }
        }
        self.schedule_wake(node);
        Ok(())
    }

    pub fn wake(&mut self, node: usize) -> Result<(), String> {
        let now = self.now;
        let this = &mut self.nodes[node];
        if this.wake_at > now {
            return Ok(());
        }
        this.wake_at = u64::MAX;
        if this.wakes.0 != now / MS {
            this.wakes = (now / MS, 0);
        }
        this.wakes.1 += 1;
        if this.wakes.1 > WAKES_PER_MS_MAX {
            let process = this.process.as_ref();
            let deadline = process.map(|process| process.engine.deadline());
            return Err(format!(
                "n{node} spins: {WAKES_PER_MS_MAX} turns within a millisecond; its deadline is \
                 {deadline:?} at {}",
                this.clock.boot(now)
            ));
        }
        self.turn(node, Vec::new())
    }

    fn schedule_wake(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let process = this.process.as_ref();
        let Some(deadline) = process.and_then(|process| process.engine.deadline()) else {
            return;
        };
        let at = this.clock.when(self.now, deadline.0);
        if at < this.wake_at {
            this.wake_at = at;
            self.queue.push(at, Happening::Wake { node });
        }
    }

    /// Does what a turn wants done; gives back what the node is to be told at once.
    fn carry_out(&mut self, node: usize, wants: Wants) -> Result<Vec<Event>, String> {
        self.summary.cuts += wants.cuts;
        self.summary.snapshots_installed += wants.installed;
        self.summary.promotions += wants.promoted;
        for line in &wants.lines {
            self.say(|| format!("n{node}: {line}"));
            self.digest.add(line.len() as u64);
        }
        for text in &wants.losses {
            self.observer.loss_statement(text)?;
        }
        let life = self.nodes[node].life;
        if wants.log_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.log_busy = true;
            let [low, high] = self.plan.log_sync;
            let wait = self.dice.disk.between(low, high);
            self.after(wait, Happening::LogDone { node, life });
        }
        if wants.meta_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.meta_busy = true;
            let [low, high] = self.plan.meta_sync;
            let wait = self.dice.disk.between(low, high);
            self.after(wait, Happening::MetaDone { node, life });
        }
        self.send(node, wants.frames)?;
        for (session, answer) in wants.answers {
            self.answered(node, session, answer)?;
        }
        Ok(wants.events)
    }

    // Disks

    pub fn log_done(&mut self, node: usize, life: u64) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.as_mut().filter(|_| this.life == life) else {
            return Ok(());
        };
        match process.log_done() {
            Ok(events) => self.turn(node, events),
            Err(story) => self.died(node, &story),
        }
    }

    pub fn meta_done(&mut self, node: usize, life: u64) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.as_mut().filter(|_| this.life == life) else {
            return Ok(());
        };
        match process.meta_done(&this.disks) {
            Ok(events) => self.turn(node, events),
            Err(story) => self.died(node, &story),
        }
    }

    // Lives

    /// A process ended by itself. That is only right where its disk was told to fail.
    pub fn died(&mut self, node: usize, story: &str) -> Result<(), String> {
        if !self.nodes[node].dying {
            return Err(format!("n{node}: {story}"));
        }
        self.say(|| format!("n{node} dies of its disk: {story}"));
        self.crash(node);
        let wait = self.dice.nodes.between(MS, 1000 * MS);
        self.after(wait, Happening::Restart { node });
        Ok(())
    }

    /// The process dies, and what its disk had not synced may be lost.
    pub fn crash(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.take() else {
            return;
        };
        self.observer.crashed(node, &process);
        // As `join` does: a node asks to be taken in until it knows of a Config.
        this.introduction.asked &= process.engine.replica().config().version == 0;
        this.disks.crash();
        this.paused = false;
        this.dying = false;
        this.missed.clear();
        this.life += 1;
        self.summary.crashes += 1;
        self.say(|| format!("n{node} crashes"));
        self.break_all(node);
        self.clients_lose(node);
    }

    pub fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        let now = self.clock(node);
        let tuning = &self.plan.tuning;
        let this = &mut self.nodes[node];
        let started = Process::start(
            &mut this.disks,
            now,
            &mut self.dice.nodes,
            tuning,
            &this.introduction,
        );
        let process = match started {
            Ok(process) => process,
            Err(story) if this.dying => {
                this.dying = false;
                this.disks.crash();
                self.summary.starts_crashed += 1;
                self.say(|| format!("n{node} dies while it starts: {story}"));
                let wait = self.dice.nodes.between(MS, 500 * MS);
                self.after(wait, Happening::Restart { node });
                return Ok(());
            }
            Err(story) => return Err(format!("n{node} does not start: {story}")),
        };
        this.life += 1;
        this.wake_at = u64::MAX;
        self.observer.started(node, &process)?;
        this.process = Some(process);
        self.say(|| format!("n{node} starts"));
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                let wait = self.dice.net.between(MS / 10, 5 * MS);
                self.dial_after(wait, from, to);
            }
        }
        self.turn(node, Vec::new())
    }

    pub fn pause(&mut self, node: usize, wait: u64) {
        if self.nodes[node].process.is_some() && !self.nodes[node].paused {
            self.say(|| format!("n{node} is paused for {} ms", wait / MS));
            self.nodes[node].paused = true;
            self.after(wait, Happening::Resume { node });
        }
    }

    pub fn resume(&mut self, node: usize) -> Result<(), String> {
        if !self.nodes[node].paused {
            return Ok(());
        }
        self.nodes[node].paused = false;
        self.say(|| format!("n{node} goes on"));
        let missed = std::mem::take(&mut self.nodes[node].missed);
        self.turn(node, missed)
    }
}
