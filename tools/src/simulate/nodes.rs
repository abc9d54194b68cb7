//! The nodes of a world: their turns, starts, crashes and pauses.

use super::check::meta_on_disk;
use super::clock::Clock;
use super::heard::Heard;
use super::missed::shuffled;
use super::node::{Process, Wants};
use super::plan::{Plan, first_incarnation, id};
use super::queue::Happening;
use super::random::Random;
use super::starter::Starter;
use super::world::{CLUSTER, CLUSTER_NAME, MS, SECOND, World};
use standfast::node::clock::Now;
use standfast::node::directory::sim::SimDir;
use standfast::node::engine::Event;
use standfast::node::meta::{self, MetaFile, unknown_config};
use standfast::replication::{Introduction, Meta};
use standfast_wal::{Incarnation, NodeId};

/// So many wakes of one node without virtual time passing by a millisecond are a busy loop.
const WAKES_PER_MS_MAX: u32 = 400;

pub struct Node {
    pub id: NodeId,
    pub introduction: Introduction,
    /// Of the disk's present life.
    pub incarnation: Incarnation,
    pub disks: SimDir,
    pub process: Option<Process>,
    /// Counts processes.
    pub life: u64,
    pub clock: Clock,
    pub paused: bool,
    /// What came while it was paused, or busy.
    missed: Vec<Event>,
    /// Until then it takes nothing: it is still at what came before.
    busy_until: u64,
    is_gathering: bool,
    /// A change of the Config is under way here.
    pub is_changing: bool,
    /// Its disk has failed as it was told to, and the process has not heard of it yet.
    pub has_failed: bool,
    /// Its last process died within its disk's work, and its machine did not.
    pub has_unsynced: bool,
    wake_at: u64,
    /// With the next start only: `Starter::may_cut`.
    may_cut: bool,
    /// Its disk has been told to stop answering: the error that follows is the crash itself.
    pub dying: bool,
    /// Its disk fails or is full for a while: the process may stop, and does not start.
    pub failing: bool,
    /// The incarnation whose disk counts as lost (`faults::budget`), and the life it was in.
    pub harmed: Option<Incarnation>,
    pub harmed_in: u64,
    /// How many times as long as usual its disk takes.
    pub slowness: u64,
    /// Its log's disk does nothing before.
    pub stalled_until: u64,
    /// How long its meta file's disk takes at least.
    pub meta_wait: u64,
    wakes: (u64, u32),
    pub heard: Heard,
}

impl Node {
    pub fn new(plan: &Plan, place: usize, random: &mut Random) -> Node {
        let disks = SimDir::new(random.next());
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
        format(&disks, &meta);
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
            busy_until: 0,
            is_gathering: false,
            is_changing: false,
            has_failed: false,
            has_unsynced: false,
            wake_at: u64::MAX,
            may_cut: false,
            dying: false,
            failing: false,
            harmed: None,
            harmed_in: 0,
            slowness: 1,
            stalled_until: 0,
            meta_wait: 0,
            wakes: (0, 0),
            heard: Heard::default(),
        }
    }

    /// Something was done to its disk that may stop the process.
    pub fn may_stop(&self) -> bool {
        self.dying || self.failing || self.has_failed || self.harmed.is_some()
    }

    /// It takes nothing before.
    pub fn is_busy_until(&mut self, time: u64) {
        self.busy_until = self.busy_until.max(time);
    }

    /// What it would not forget now: of a process that is up its newest, else what its disk holds.
    pub fn meta_now(&self) -> Option<Meta> {
        match &self.process {
            Some(process) => Some(process.engine.replica().meta().clone()),
            None => {
                let bytes = self.disks.root.contents(meta::FILE)?;
                MetaFile::decode(&bytes).ok().map(|meta| meta.core)
            }
        }
    }

    /// Both copies of the meta file are whole.
    pub fn has_sound_meta(&self) -> bool {
        let bytes = self.disks.root.contents(meta::FILE);
        bytes.is_some_and(|bytes| MetaFile::decode(&bytes).is_ok_and(|meta| meta.encode() == bytes))
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }
}

/// Puts a node's first meta file on its disk.
fn format(disks: &SimDir, meta: &MetaFile) {
    meta::store(&disks.root, meta).expect("a new disk takes it");
}

impl World {
    pub fn clock(&self, node: usize) -> Now {
        self.nodes[node].clock.read(self.now)
    }

    // Turns

    /// Gives a node these events, and then what it asked of itself, until it wants no more.
    pub fn turn(&mut self, node: usize, mut events: Vec<Event>) -> Result<(), String> {
        let this = &mut self.nodes[node];
        if self.now < this.busy_until && !this.paused {
            this.missed.extend(events);
            if !std::mem::replace(&mut this.is_gathering, true) {
                let at = this.busy_until;
                self.queue.push(at, Happening::Gathered { node });
            }
            return Ok(());
        }
        if self.plan.turn_gap > 0 && self.calm.is_none() {
            this.busy_until = self.now + self.dice.nodes.below(self.plan.turn_gap);
        }
        loop {
            let now = self.clock(node);
            let this = &mut self.nodes[node];
            if this.paused {
                this.missed.extend(events);
                return Ok(());
            }
            let Some(process) = &mut this.process else {
                return Ok(());
            };
            this.heard.take(self.now, &events);
            let copied_from = process.copied_from();
            let wants = process.turn(now, events);
            this.heard.turned(process.engine.replica());
            // What it committed in the turn that it dies of is committed, and may be in a snapshot.
            self.observer
                .turned(self.now, node, &self.nodes, &wants)
                .map_err(|story| format!("n{node}: {story}"))?;
            self.note_flush(node, copied_from);
            if let Some(story) = &wants.halted {
                return self.died(node, story);
            }
            // An error of this disk is no reason to stop: the process dies with it.
            if self.nodes[node].disks.snapshots.has_stopped() {
                return self.died(node, "inside the work on a snapshot");
            }
            self.watch_budget()?;
            self.trouble_in_change(node);
            self.trouble_in_moment(node, &wants);
            events = self.carry_out(node, wants)?;
            if events.is_empty() {
                break;
            }
        }
        self.schedule_wake(node);
        Ok(())
    }

    pub fn gathered(&mut self, node: usize) -> Result<(), String> {
        let this = &mut self.nodes[node];
        this.is_gathering = false;
        if this.paused {
            return Ok(());
        }
        let missed = std::mem::take(&mut this.missed);
        let missed = shuffled(missed, &mut self.dice.nodes);
        self.turn(node, missed)
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
        if wants.cuts > 0 {
            self.crash_in_cut(node);
        }
        self.trims(node, wants.trims)?;
        self.summary
            .installed(wants.installed, self.nodes[node].process.as_ref());
        if let Some(lsn) = wants.taken {
            self.snapshot_taken(node, lsn)?;
        }
        self.summary.promotions += wants.promoted;
        for line in &wants.lines {
            self.say(|| format!("n{node}: {line}"));
            self.digest.add(line.len() as u64);
        }
        for text in &wants.losses {
            self.observer.loss_statement(node, &self.nodes, text)?;
        }
        let life = self.nodes[node].life;
        if wants.log_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.log.busy = true;
            let [low, high] = self.plan.log_sync;
            let pace = match self.calm {
                None => self.plan.paces[node],
                Some(_) => 1,
            };
            let wait = self.dice.disk.between(low, high) * self.nodes[node].slowness * pace;
            self.after(wait, Happening::LogDone { node, life });
        }
        if wants.log_idle {
            self.after(SECOND, Happening::LogDone { node, life });
        }
        if wants.meta_work
            && let Some(process) = &mut self.nodes[node].process
        {
            process.meta_busy = true;
            let [low, high] = self.plan.meta_sync;
            let wait = self.dice.disk.between(low, high) * self.nodes[node].slowness;
            let wait = wait.max(self.nodes[node].meta_wait);
            self.after(wait, Happening::MetaDone { node, life });
        }
        if wants.ships {
            self.ship(node);
        }
        if wants.has_voted {
            self.trouble_in_vote(node);
        }
        self.trouble_in_fencing(node, &wants.frames)?;
        self.send(node, wants.frames, &wants.trusted)?;
        for to in wants.copies {
            self.trouble_in_copy(node, to.0 as usize);
        }
        for (session, answer) in wants.answers {
            self.answered(node, session, answer)?;
        }
        Ok(wants.events)
    }

    // Lives

    /// A process ended by itself. That is only right where its disk was told to fail.
    pub fn died(&mut self, node: usize, story: &str) -> Result<(), String> {
        if !self.nodes[node].may_stop() {
            return Err(format!("n{node}: {story}"));
        }
        self.say(|| format!("n{node} dies of its disk: {story}"));
        self.crash(node);
        let wait = self.dice.nodes.between(MS, 1000 * MS);
        self.after(wait, Happening::Restart { node });
        Ok(())
    }

    /// The process dies, and mostly its machine with it: what its disk had not synced may be lost.
    pub fn crash(&mut self, node: usize) {
        // One that was stopped within its disk's work has written what it has not synced.
        let kept_one_in = if self.nodes[node].dying { 2 } else { 3 };
        let is_powered = self.power_is_safe() || self.dice.nodes.one_in(kept_one_in);
        let this = &mut self.nodes[node];
        let Some(process) = this.process.take() else {
            return;
        };
        self.observer.crashed(node, &process, this.harmed.is_some());
        this.has_unsynced = is_powered && this.may_stop();
        match is_powered {
            true => this.disks.restart(),
            false => this.disks.crash(),
        }
        this.paused = false;
        this.dying = false;
        this.has_failed = false;
        this.busy_until = 0;
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
        let newest = self.newest_snapshot(node);
        self.rehearse_start(node)?;
        let before = meta_on_disk(&self.nodes[node]);
        let alone = self.nodes.len() == 1;
        let this = &mut self.nodes[node];
        let starter = Starter {
            id: this.id,
            cluster: CLUSTER,
            alone,
            may_cut: std::mem::take(&mut this.may_cut),
            introduction: &this.introduction,
        };
        let tuning = &self.plan.tuning;
        let started = Process::start(&this.disks, now, &mut self.dice.nodes, tuning, &starter);
        let mut process = match started {
            Ok(process) => process,
            Err(story) => return self.died_in_start(node, &story),
        };
        process.archives(self.offsite.as_ref(), tuning);
        this.life += 1;
        let incarnation = process.engine.replica().meta().incarnation;
        if this.incarnation != incarnation && this.harmed.is_none() {
            return Err(format!(
                "n{node} begins anew, and nothing had damaged its disk: {:?}",
                process.anew
            ));
        }
        this.incarnation = incarnation;
        this.wake_at = u64::MAX;
        self.starts_from_its_newest(node, newest, &process)?;
        let meta = process.engine.replica().meta();
        self.starts_with_what_is_kept(node, before.as_ref(), meta)?;
        let this = &mut self.nodes[node];
        let is_harmed = this.harmed.is_some();
        self.observer.started(node, &process, is_harmed)?;
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

    fn died_in_start(&mut self, node: usize, story: &str) -> Result<(), String> {
        let is_calm = self.calm.is_some();
        let is_powered = self.power_is_safe();
        let alone = self.nodes.len() == 1;
        let this = &mut self.nodes[node];
        // Sectors of a last write that reached the disk out of order look like any other damage:
        // alone, it is for the operator to say that they were never acknowledged.
        this.may_cut = alone && story.contains("--cut-damaged-end");
        if !this.may_stop() && !this.may_cut {
            return Err(format!("n{node} does not start: {story}"));
        }
        if this.harmed.is_some() && is_calm {
            // What an operator does with a disk that does not answer any more.
            this.disks.wipe();
        }
        match is_powered {
            true => this.disks.restart(),
            false => this.disks.crash(),
        }
        this.dying = false;
        self.summary.starts_crashed += 1;
        self.say(|| format!("n{node} dies while it starts: {story}"));
        let wait = self.dice.nodes.between(MS, 500 * MS);
        self.after(wait, Happening::Restart { node });
        Ok(())
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
        // An error of its disk comes to its ears only now, mended or not.
        let failed = |event: &Event| matches!(event, Event::DiskFailed(_));
        let is_late = !self.nodes[node].failing && missed.iter().any(failed);
        self.nodes[node].failing |= is_late;
        let missed = shuffled(missed, &mut self.dice.nodes);
        let result = self.turn(node, missed);
        self.nodes[node].failing &= !is_late;
        result
    }
}
