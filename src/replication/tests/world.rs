//! A small world: nodes with disks that lose what was not synced, links that lose, delay, double
//! and reorder, one virtual clock, one seed. It checks I1, I3, I4 and the fence at every step.

use crate::replication::config::{Acks, Addresses, Member, MemberRole, Protection};
use crate::replication::epochs::{EpochEntry, EpochTable};
use crate::replication::*;
use standfast_wal::{
    ClusterId, Epoch, History, Incarnation, Kind, Link, Lsn, NodeId, Nonce, Record,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

/// The world's one source of chance (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn wide(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }
}

/// What goes wrong, and how often (per mille).
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub lose: u64,
    pub double: u64,
    /// A message takes up to `slow_ms` instead of `delay_us`.
    pub slow: u64,
    pub slow_ms: u64,
    pub delay_us: u64,
    pub sync_us: u64,
    /// A sync takes up to `slow_ms` longer.
    pub slow_sync: u64,
    /// A message that matters brings misfortune on its sender or receiver, within a few ms.
    pub spite: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        lose: 0,
        double: 0,
        slow: 0,
        slow_ms: 0,
        delay_us: 0,
        sync_us: 0,
        slow_sync: 0,
        spite: 0,
    };
}

/// What lies on a node's disk.
#[derive(Clone)]
pub struct Disk {
    pub meta: Meta,
    pub log: Vec<Record>,
    pub snapshot: Option<SnapshotHead>,
    pub suspect: bool,
}

impl Disk {
    fn base(&self) -> Link {
        self.snapshot
            .as_ref()
            .map_or(Link::default(), |head| head.link)
    }

    pub fn tip(&self) -> Link {
        self.log.last().map_or(self.base(), Record::link)
    }

    pub fn epochs(&self) -> EpochTable {
        let mut entries = match &self.snapshot {
            Some(head) => head.epochs.entries().to_vec(),
            None => Vec::new(),
        };
        entries.extend(self.log.iter().filter_map(EpochEntry::decode));
        EpochTable::new(entries)
    }

    fn facts(&self) -> LogFacts {
        LogFacts {
            tip: self.tip(),
            committed: self.base().position.lsn,
            first_lsn: self.base().position.lsn.next(),
            epochs: self.epochs(),
            suspect: self.suspect,
        }
    }
}

#[derive(Clone, Debug)]
enum Work {
    Append(Record),
    Cut(Lsn),
    Install(SnapshotHead),
}

pub struct Process {
    pub replica: Replica,
    number: u64,
    work: VecDeque<Work>,
    /// How many of the front of `work` the disk is busy with.
    busy: usize,
    wake: Option<u64>,
    confirmed: u64,
    /// Checked against the truth up to here.
    checked: Lsn,
    reads: Vec<(ReadTicket, Lsn)>,
    pending: Vec<(Epoch, Lsn)>,
    pub serving: bool,
    pub halted: bool,
}

pub struct Site {
    pub disk: Disk,
    pub process: Option<Process>,
    /// Its clock is ahead of the world's by this.
    offset: u64,
    paused_until: u64,
    /// What happened to it while it was paused.
    held: Vec<(u64, What)>,
    highest_fence: Fence,
}

#[derive(Debug)]
enum What {
    Input(Input),
    /// To whatever process is there when it arrives, so that an answer may meet a successor of the
    /// asker; but never to another incarnation, for a connection is bound to one.
    Message {
        from: NodeId,
        incarnation: Incarnation,
        bound: Incarnation,
        message: Message,
    },
    Persisted(Box<Meta>, u64),
    DiskDone,
    Wake,
    Resume,
    Misfortune(Misfortune),
    /// The other end's state as it is when this arrives.
    LinkNews(NodeId),
    SnapshotSend(NodeId, SnapshotHead),
}

#[derive(Clone, Copy, Debug)]
enum Misfortune {
    LosesPower,
    Crashes,
    /// It starts again at once.
    Restarts,
    Pauses,
    /// It loses power before it could sync, comes back at once, and cannot talk to this one: what it
    /// said is all that the other has.
    Forgets(NodeId),
    /// It hears nothing from the other data nodes, which go on for a while and then all fail.
    LeftBehind,
    /// It cannot talk to this one any more, in one direction or both.
    Loses(NodeId, bool),
    IsAlone,
    Heals,
}

struct Event {
    at: u64,
    order: u64,
    node: NodeId,
    /// 0: whatever process is there then.
    process: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What has happened in one history.
#[derive(Clone, Default)]
pub struct Past {
    /// The committed log, from LSN 1, as far as anybody has seen it.
    pub truth: Vec<Record>,
    /// (time, last LSN) of what was acknowledged to clients.
    acked: Vec<(u64, Lsn)>,
}

impl Past {
    fn acknowledged(&self) -> Lsn {
        self.acked.last().map_or(Lsn::ZERO, |(_, lsn)| *lsn)
    }
}

pub struct World {
    pub dice: Dice,
    pub now: u64,
    pub faults: Faults,
    pub settings: Settings,
    pub sites: BTreeMap<NodeId, Site>,
    events: BinaryHeap<Reverse<Event>>,
    order: u64,
    processes: u64,
    /// Pairs that cannot talk, in this direction.
    pub cut_links: BTreeSet<(NodeId, NodeId)>,
    /// What has happened in each history.
    pub pasts: BTreeMap<History, Past>,
    /// Who was primary of what: I3.
    reigns: BTreeMap<Fence, (NodeId, u64)>,
    /// Bytes of records sent to each node since it was last paused.
    sent: BTreeMap<NodeId, u64>,
    /// Who counted for the node that steps, before it did: a step may send, and then drop.
    counted: BTreeSet<NodeId>,
    pub trace: Option<Vec<String>>,
    /// Shows everything as it happens.
    pub print: bool,
    pub answers: Vec<(u64, Result<String, Refusal>)>,
    pub cuts: u64,
    pub reads_done: u64,
    pub losses: Vec<(NodeId, Loss)>,
    /// The sync sets, by version, for the judge of disk losses.
    pub installs: u64,
    pub promotions: u64,
    pub cluster: ClusterId,
    pub first: Config,
}

fn member(role: MemberRole, id: u32) -> Member {
    Member {
        incarnation: Incarnation(u128::from(id) << 64),
        role,
        site: String::new(),
        priority: 0,
        addresses: Addresses::default(),
    }
}

/// The shape of a cluster: data nodes first, then asynchronous ones, then witnesses.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub data: u32,
    pub asynchronous: u32,
    pub witnesses: u32,
    pub acks: Acks,
    pub protection: Protection,
}

impl World {
    pub fn new(seed: u64, shape: Shape, settings: Settings, faults: Faults) -> World {
        let mut members = BTreeMap::new();
        let mut voters = BTreeSet::new();
        let mut id = 0;
        for (role, count) in [
            (MemberRole::Data, shape.data),
            (MemberRole::Asynchronous, shape.asynchronous),
            (MemberRole::Witness, shape.witnesses),
        ] {
            for _ in 0..count {
                id += 1;
                members.insert(NodeId(id), member(role, id));
                if role != MemberRole::Asynchronous {
                    voters.insert(NodeId(id));
                }
            }
        }
        let history = History {
            generation: 1,
            id: 77,
        };
        let (acks, protection) = (shape.acks, shape.protection);
        let first = Config::first(history, Nonce(1), acks, protection, members, voters);
        let cluster = ClusterId(5);
        let mut dice = Dice(seed);
        let sites = first
            .members
            .iter()
            .map(|(id, member)| {
                let meta = Meta::first(cluster, *id, member.incarnation, first.clone());
                let site = Site {
                    highest_fence: meta.fence,
                    disk: Disk {
                        meta,
                        log: Vec::new(),
                        snapshot: None,
                        suspect: false,
                    },
                    process: None,
                    offset: dice.below(1 << 40),
                    paused_until: 0,
                    held: Vec::new(),
                };
                (*id, site)
            })
            .collect();
        World {
            dice,
            now: 0,
            faults,
            settings,
            sites,
            events: BinaryHeap::new(),
            order: 0,
            processes: 0,
            cut_links: BTreeSet::new(),
            pasts: BTreeMap::from([(history, Past::default())]),
            reigns: BTreeMap::new(),
            sent: BTreeMap::new(),
            counted: BTreeSet::new(),
            trace: None,
            print: false,
            answers: Vec::new(),
            cuts: 0,
            reads_done: 0,
            losses: Vec::new(),
            installs: 0,
            promotions: 0,
            cluster,
            first,
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.sites.keys().copied().collect()
    }

    pub fn replica(&self, id: NodeId) -> Option<&Replica> {
        let process = self.sites[&id].process.as_ref()?;
        (!process.halted).then_some(&process.replica)
    }

    pub fn serving(&self) -> Vec<NodeId> {
        let serves = |id: &NodeId| self.replica(*id).is_some_and(Replica::is_serving);
        self.ids().into_iter().filter(serves).collect()
    }

    fn note(&mut self, line: String) {
        if self.print {
            println!("{:>10.3} {line}", self.now as f64 / 1e6);
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    fn schedule(&mut self, wait: u64, node: NodeId, process: u64, what: What) {
        self.order += 1;
        let at = self.now + wait;
        self.events.push(Reverse(Event {
            at,
            order: self.order,
            node,
            process,
            what,
        }));
    }

    pub fn offset_of(&self, id: NodeId) -> u64 {
        self.sites[&id].offset
    }

    fn local_time(&self, id: NodeId) -> Time {
        Time(self.now + self.sites[&id].offset)
    }

    // Faults and repairs

    pub fn start(&mut self, id: NodeId) {
        if self.sites[&id].process.is_some() {
            return;
        }
        self.processes += 1;
        let number = self.processes;
        let random = (0..16).map(|_| self.dice.wide()).collect();
        let now = self.local_time(id);
        let site = self.sites.get_mut(&id).expect("a site");
        let role = self
            .first
            .members
            .get(&id)
            .map_or(MemberRole::Data, |member| member.role);
        let introduction = Introduction {
            role,
            voter: role != MemberRole::Asynchronous,
            site: String::new(),
            priority: 0,
            addresses: Addresses::default(),
            asked: false,
        };
        let (settings, disk) = (self.settings.clone(), &site.disk);
        let (meta, facts) = (disk.meta.clone(), disk.facts());
        let replica = Replica::new(settings, now, meta, facts, introduction, random);
        site.process = Some(Process {
            replica,
            number,
            work: VecDeque::new(),
            busy: 0,
            wake: None,
            confirmed: 0,
            checked: Lsn::ZERO,
            reads: Vec::new(),
            pending: Vec::new(),
            serving: false,
            halted: false,
        });
        self.note(format!("n{id} starts"));
        self.input(id, Input::WallClock(self.now + 1_000_000_000));
        self.link_news(id);
    }

    /// The process dies: what was not synced is lost, but for some first part of it.
    pub fn crash(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        let Some(mut process) = site.process.take() else {
            return;
        };
        let survive = self.dice.below(process.busy as u64 + 1);
        for _ in 0..survive {
            if let Some(work) = process.work.pop_front() {
                do_work(&mut site.disk, work);
            }
        }
        site.paused_until = 0;
        site.held.clear();
        self.note(format!("n{id} crashes"));
        self.link_news(id);
    }

    /// Power fails at the worst moment: nothing that was not synced survives.
    pub fn lose_unsynced(&mut self, id: NodeId) {
        if let Some(process) = &mut self.sites.get_mut(&id).expect("a site").process {
            process.busy = 0;
        }
        self.crash(id);
    }

    pub fn sent_to(&self, id: NodeId) -> u64 {
        self.sent.get(&id).copied().unwrap_or(0)
    }

    /// It stands still; what happens to it waits. Time passes all the same.
    pub fn pause(&mut self, id: NodeId, wait: u64) {
        let until = self.now + wait;
        self.sites.get_mut(&id).expect("a site").paused_until = until;
        self.sent.remove(&id);
        self.note(format!("n{id} pauses"));
        self.schedule(wait, id, 0, What::Resume);
    }

    pub fn resume(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        site.paused_until = 0;
        for (process, what) in std::mem::take(&mut site.held) {
            self.schedule(0, id, process, what);
        }
    }

    /// The disk is replaced by an empty one: another incarnation.
    pub fn wipe(&mut self, id: NodeId) {
        self.crash(id);
        let incarnation = Incarnation(self.dice.wide());
        let meta = Meta::first(self.cluster, id, incarnation, self.first.clone());
        let site = self.sites.get_mut(&id).expect("a site");
        site.highest_fence = meta.fence;
        site.disk = Disk {
            meta,
            log: Vec::new(),
            snapshot: None,
            suspect: false,
        };
        self.note(format!("n{id} loses its disk"));
    }

    /// The next start finds the log's end damaged, and `lost` records gone that were synced.
    pub fn damage(&mut self, id: NodeId, lost: usize) {
        self.crash(id);
        let disk = &mut self.sites.get_mut(&id).expect("a site").disk;
        disk.log.truncate(disk.log.len().saturating_sub(lost));
        disk.suspect = true;
        self.note(format!("n{id}'s log is damaged"));
    }

    pub fn partition(&mut self, side: &BTreeSet<NodeId>) {
        self.cut_links.clear();
        for a in self.ids() {
            for b in self.ids() {
                if side.contains(&a) != side.contains(&b) {
                    self.cut_links.insert((a, b));
                }
            }
        }
        self.all_link_news();
    }

    pub fn heal(&mut self) {
        self.cut_links.clear();
        self.all_link_news();
    }

    pub fn all_link_news(&mut self) {
        for id in self.ids() {
            self.link_news(id);
        }
    }

    /// Everybody learns of this node's reachability, and it of theirs, a little later.
    fn link_news(&mut self, id: NodeId) {
        for other in self.ids() {
            if other != id {
                let wait = self.delay();
                self.schedule(wait, other, 0, What::LinkNews(id));
                let wait = self.delay();
                self.schedule(wait, id, 0, What::LinkNews(other));
            }
        }
    }

    fn delay(&mut self) -> u64 {
        let us = self.faults.delay_us;
        // Without chance every message takes exactly one millisecond: scripts stay readable.
        if us == 0 {
            1_000_000
        } else {
            20_000 + self.dice.below(us * 1000)
        }
    }

    fn sync_time(&mut self) -> u64 {
        let faults = self.faults;
        if faults.sync_us == 0 {
            return 500_000;
        }
        let slow = self.dice.chance(faults.slow_sync);
        let extra = if slow {
            self.dice.below(faults.slow_ms * 1_000_000)
        } else {
            0
        };
        20_000 + self.dice.below(faults.sync_us * 1000) + extra
    }

    // Running

    pub fn run(&mut self, wait: Duration) {
        let end = self.now + u64::try_from(wait.as_nanos()).expect("short");
        while self
            .events
            .peek()
            .is_some_and(|Reverse(event)| event.at <= end)
        {
            let Some(Reverse(event)) = self.events.pop() else {
                break;
            };
            self.now = self.now.max(event.at);
            self.handle(event);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        let Event {
            node: id,
            process,
            what,
            ..
        } = event;
        let now = self.now;
        if matches!(what, What::Resume) {
            if self.sites[&id].paused_until <= now {
                self.resume(id);
            }
            return;
        }
        if let What::Misfortune(misfortune) = what {
            return self.befall(id, misfortune);
        }
        let site = self.sites.get_mut(&id).expect("a site");
        let Some(running) = &mut site.process else {
            return;
        };
        if running.halted || process != 0 && running.number != process {
            return;
        }
        if site.paused_until > now {
            site.held.push((process, what));
            return;
        }
        match what {
            What::Input(input) => self.input(id, input),
            What::Message {
                from,
                incarnation,
                bound,
                message,
            } => {
                if site.disk.meta.incarnation == bound {
                    self.input(
                        id,
                        Input::Message {
                            from,
                            incarnation,
                            message,
                        },
                    );
                }
            }
            What::Persisted(meta, serial) => {
                let fence = meta.fence;
                assert!(
                    fence >= site.highest_fence,
                    "the fence of n{id} fell to {fence}"
                );
                site.highest_fence = fence;
                site.disk.meta = *meta;
                site.disk.suspect = false;
                self.input(id, Input::Persisted(serial));
            }
            What::Resume | What::Misfortune(_) => unreachable!("handled above"),
            What::DiskDone => self.disk_done(id),
            What::Wake => {
                running.wake = None;
                self.input(id, Input::Timeout);
            }
            What::LinkNews(peer) => {
                let event = self.link_state(id, peer);
                self.input(id, Input::Link(peer, event));
            }
            What::SnapshotSend(from, head) => {
                self.input(id, Input::SnapshotOffered { from, head });
            }
        }
    }

    fn link_state(&self, from: NodeId, to: NodeId) -> LinkEvent {
        if self.cut_links.contains(&(from, to)) || self.cut_links.contains(&(to, from)) {
            return LinkEvent::Down;
        }
        match &self.sites[&to].process {
            Some(process) if !process.halted => {
                LinkEvent::Up(self.sites[&to].disk.meta.incarnation)
            }
            _ => LinkEvent::Refused,
        }
    }

    pub fn input(&mut self, id: NodeId, input: Input) {
        let now = self.local_time(id);
        let mut effects = Vec::new();
        let Some(process) = &mut self.sites.get_mut(&id).expect("a site").process else {
            return;
        };
        if process.halted {
            return;
        }
        let ids = self.first.members.keys().copied();
        self.counted = ids
            .filter(|other| process.replica.is_counted(*other))
            .collect();
        process.replica.step(now, input, &mut effects);
        self.note_reign(id);
        for effect in effects {
            self.effect(id, effect);
        }
        self.check(id);
        self.start_disk(id);
        self.set_wake(id);
    }

    fn set_wake(&mut self, id: NodeId) {
        let now = self.local_time(id);
        let Some(process) = &mut self.sites.get_mut(&id).expect("a site").process else {
            return;
        };
        let Some(deadline) = process.replica.deadline() else {
            return;
        };
        let at = deadline.0.max(now.0 + 1_000);
        if process.wake.is_none_or(|wake| at < wake) {
            process.wake = Some(at);
            let number = process.number;
            self.schedule(at - now.0, id, number, What::Wake);
        }
    }

    /// I3: one process is primary of an epoch, ever.
    fn note_reign(&mut self, id: NodeId) {
        let Some(process) = &self.sites[&id].process else {
            return;
        };
        if !process.replica.is_primary() {
            return;
        }
        let (reign, own) = (process.replica.fence(), (id, process.number));
        let first = *self.reigns.entry(reign).or_insert_with(|| {
            self.promotions += 1;
            own
        });
        assert_eq!(first, own, "I3: two primaries of {reign}");
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        let number = match &self.sites[&id].process {
            Some(process) => process.number,
            None => return,
        };
        match effect {
            Effect::Send(to, message) => self.send(id, to, message),
            Effect::Append(record) => {
                if record.kind() == Kind::EpochStart && self.replica_is_primary(id) {
                    self.check_new_primary(id, &record);
                }
                self.queue(id, Work::Append(record));
            }
            Effect::Cut { after, loss } => {
                self.cuts += 1;
                self.losses.push((id, loss));
                self.note(format!("n{id} cuts after {after}"));
                self.queue(id, Work::Cut(after));
            }
            Effect::InstallSnapshot { head, loss } => {
                self.installs += 1;
                self.losses.extend(loss.map(|loss| (id, loss)));
                self.note(format!(
                    "n{id} installs a snapshot at {}",
                    head.link.position
                ));
                self.queue(id, Work::Install(head));
            }
            Effect::Persist(meta, serial) => {
                let wait = self.sync_time();
                self.schedule(wait, id, number, What::Persisted(meta, serial));
            }
            Effect::ReadLog { to, after, .. } => self.read_log(id, number, to, after),
            Effect::SendSnapshot { to, at_least } => self.send_snapshot(id, number, to, at_least),
            Effect::AcceptSnapshot { from } => {
                let head = self.snapshot_of(from);
                let wait = self.delay() + self.sync_time();
                match head {
                    Some(head) => {
                        let input = Input::SnapshotReceived { from, head };
                        self.schedule(wait, id, number, What::Input(input));
                    }
                    None => {
                        let input = Input::SnapshotAborted { from };
                        self.schedule(wait, id, number, What::Input(input));
                    }
                }
            }
            Effect::RefuseSnapshot { from, why } => {
                self.note(format!("n{id} refuses the snapshot of n{from}: {why}"));
                let wait = self.delay();
                let input = Input::SnapshotFailed { to: id };
                self.schedule(wait, from, 0, What::Input(input));
            }
            Effect::Committed(lsn) => self.note(format!("n{id} commit={lsn}")),
            Effect::Confirmed(round) => {
                if let Some(process) = self.process(id) {
                    process.confirmed = round;
                }
            }
            Effect::Serving { epoch } => {
                if let Some(process) = self.process(id) {
                    process.serving = true;
                }
                self.note(format!("n{id} serves epoch {epoch}"));
            }
            Effect::StopServing(reason) => {
                if let Some(process) = self.process(id) {
                    process.serving = false;
                    process.reads.clear();
                    process.pending.clear();
                }
                self.note(format!("n{id} stops serving: {reason:?}"));
            }
            Effect::Answer(ticket, result) => {
                self.note(match &result {
                    Ok(text) => format!("n{id} answers order {ticket}: {text}"),
                    Err(why) => format!("n{id} refuses order {ticket}: {why}"),
                });
                self.answers.push((ticket, result));
            }
            Effect::Event(text) => self.note(format!("n{id} | {text}")),
            Effect::DrawRandom => {
                let number = self.dice.wide();
                let input = Input::Random(number);
                self.schedule(1_000, id, 0, What::Input(input));
            }
            Effect::Halt(story) => {
                self.note(format!("n{id} halts: {story}"));
                assert!(!story.starts_with('I'), "{story}");
                if let Some(process) = self.process(id) {
                    process.halted = true;
                }
                self.link_news(id);
            }
            Effect::Roll(_) | Effect::NewConfig => {}
        }
    }

    fn process(&mut self, id: NodeId) -> Option<&mut Process> {
        self.sites.get_mut(&id)?.process.as_mut()
    }

    fn replica_is_primary(&self, id: NodeId) -> bool {
        self.replica(id).is_some_and(Replica::is_primary)
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let bytes = message
            .records()
            .iter()
            .map(|record| record.bytes().len() as u64);
        *self.sent.entry(to).or_default() += bytes.sum::<u64>();
        let quiet = matches!(message.body, Body::Heartbeat(_) | Body::Heard { .. });
        if !quiet {
            self.note(format!("n{from} → n{to} {message}"));
        }
        self.check_secrecy(from, to, &message);
        self.maybe_spite(from, to, &message);
        if self.cut_links.contains(&(from, to)) || !self.sites.contains_key(&to) {
            return;
        }
        let incarnation = self.sites[&from].disk.meta.incarnation;
        let copies = 1 + u64::from(self.dice.chance(self.faults.double));
        for _ in 0..copies {
            if self.dice.chance(self.faults.lose) {
                continue;
            }
            let mut wait = self.delay();
            if self.dice.chance(self.faults.slow) {
                wait += self.dice.below(self.faults.slow_ms * 1_000_000);
            }
            let bound = self.sites[&to].disk.meta.incarnation;
            let message = message.clone();
            let what = What::Message {
                from,
                incarnation,
                bound,
                message,
            };
            self.schedule(wait, to, 0, what);
        }
    }

    /// Random walks alone seldom meet the moments at which a rule matters; so these are hit more
    /// often: right around what a promotion, a change or a first acknowledgement says.
    fn maybe_spite(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let matters = match &message.body {
            Body::Heartbeat(_) | Body::Heard { .. } | Body::AskConfig { .. } => false,
            Body::Append { .. } | Body::Acked { .. } => self.dice.chance(100),
            _ => true,
        };
        if self.faults.spite == 0 || !matters || !self.dice.chance(self.faults.spite) {
            return;
        }
        let (id, other) = if self.dice.chance(500) {
            (from, to)
        } else {
            (to, from)
        };
        let misfortune = match self.dice.below(13) {
            0 | 1 => Misfortune::LosesPower,
            2 => Misfortune::Crashes,
            3 | 4 => Misfortune::Restarts,
            5 => Misfortune::Pauses,
            6 | 7 => Misfortune::Loses(other, self.dice.chance(500)),
            8 => Misfortune::LeftBehind,
            9..=11 => {
                let wait = self.dice.below(200_000);
                let misfortune = Misfortune::Forgets(to);
                return self.schedule(wait, from, 0, What::Misfortune(misfortune));
            }
            _ => Misfortune::IsAlone,
        };
        let wait = self.dice.below(6_000_000);
        self.schedule(wait, id, 0, What::Misfortune(misfortune));
    }

    fn befall(&mut self, id: NodeId, misfortune: Misfortune) {
        match misfortune {
            Misfortune::LosesPower => self.lose_unsynced(id),
            Misfortune::Crashes => self.crash(id),
            Misfortune::Restarts => {
                self.lose_unsynced(id);
                self.start(id);
            }
            Misfortune::Forgets(other) => {
                self.lose_unsynced(id);
                self.befall(id, Misfortune::Loses(other, true));
                self.start(id);
            }
            Misfortune::LeftBehind => {
                let data = |other: &NodeId| self.first.members[other].role.holds_data();
                let others = self
                    .ids()
                    .into_iter()
                    .filter(|other| *other != id && data(other));
                let fails = 20_000_000 + self.dice.below(150_000_000);
                for other in others.collect::<Vec<_>>() {
                    self.cut_links.insert((id, other));
                    self.cut_links.insert((other, id));
                    let what = match self.dice.chance(700) {
                        true => Misfortune::Crashes,
                        false => Misfortune::Pauses,
                    };
                    self.schedule(fails, other, 0, What::Misfortune(what));
                }
                self.all_link_news();
                let wait = 1_000_000_000 + self.dice.below(1_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::Pauses => {
                let wait = self.dice.below(1_500_000_000);
                self.pause(id, wait);
            }
            Misfortune::Loses(other, both) => {
                self.cut_links.insert((id, other));
                if both {
                    self.cut_links.insert((other, id));
                }
                self.all_link_news();
                let wait = self.dice.below(3_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::IsAlone => {
                self.partition(&BTreeSet::from([id]));
                let wait = self.dice.below(2_000_000_000);
                self.schedule(wait, id, 0, What::Misfortune(Misfortune::Heals));
            }
            Misfortune::Heals => {
                self.cut_links.retain(|(a, b)| *a != id && *b != id);
                self.all_link_news();
            }
        }
    }

    // Disks

    fn queue(&mut self, id: NodeId, work: Work) {
        if let Some(process) = self.process(id) {
            process.work.push_back(work);
        }
    }

    fn start_disk(&mut self, id: NodeId) {
        let wait = self.sync_time();
        let Some(process) = self.process(id) else {
            return;
        };
        if process.busy > 0 || process.work.is_empty() {
            return;
        }
        let appends = process
            .work
            .iter()
            .take_while(|work| matches!(work, Work::Append(_)));
        process.busy = appends.count().max(1);
        let number = process.number;
        self.schedule(wait, id, number, What::DiskDone);
    }

    fn disk_done(&mut self, id: NodeId) {
        let site = self.sites.get_mut(&id).expect("a site");
        let Some(process) = &mut site.process else {
            return;
        };
        let done: Vec<Work> = process.work.drain(..process.busy).collect();
        process.busy = 0;
        let mut input = None;
        for work in done {
            let report = work.clone();
            do_work(&mut site.disk, work);
            input = Some(match report {
                Work::Append(record) => Input::Durable(record.last_lsn()),
                Work::Cut(_) => Input::CutDone {
                    end: site.disk.tip(),
                    durable: site.disk.tip().position.lsn,
                },
                Work::Install(head) => Input::SnapshotInstalled(head),
            });
        }
        if let Some(input) = input {
            let installed = matches!(input, Input::SnapshotInstalled(_));
            self.input(id, input);
            if installed {
                self.tell_installed(id);
            }
        }
        self.start_disk(id);
    }

    fn tell_installed(&mut self, id: NodeId) {
        for other in self.ids() {
            if self.replica_is_primary(other) {
                let wait = self.delay();
                let input = Input::SnapshotSent { to: id };
                self.schedule(wait, other, 0, What::Input(input));
            }
        }
    }

    fn read_log(&mut self, id: NodeId, number: u64, to: NodeId, after: Lsn) {
        let disk = &self.sites[&id].disk;
        let first = disk
            .log
            .iter()
            .position(|record| record.first_lsn() == after.next());
        let input = match first {
            Some(i) => {
                let previous = if i == 0 {
                    disk.base()
                } else {
                    disk.log[i - 1].link()
                };
                let records = disk.log[i..].iter().take(3).cloned().collect();
                Input::LogRead {
                    to,
                    previous,
                    records,
                }
            }
            None if after < disk.base().position.lsn => Input::LogGone { to },
            // Not on the disk yet: the reader would see it a little later.
            None => Input::LogGone { to },
        };
        let wait = self.delay();
        self.schedule(wait, id, number, What::Input(input));
    }

    /// A snapshot of what is committed and durable.
    fn snapshot_of(&self, id: NodeId) -> Option<SnapshotHead> {
        let replica = self.replica(id)?;
        let disk = &self.sites[&id].disk;
        let applied = replica.commit().min(replica.durable());
        let link = match disk
            .log
            .iter()
            .rev()
            .find(|record| record.last_lsn() <= applied)
        {
            Some(record) => record.link(),
            None => return disk.snapshot.clone(),
        };
        let lsn = link.position.lsn;
        let mut epochs = disk.epochs();
        epochs.cut(lsn);
        Some(SnapshotHead {
            history: replica.history(),
            link,
            epochs,
        })
    }

    fn send_snapshot(&mut self, id: NodeId, number: u64, to: NodeId, at_least: Lsn) {
        let head = self
            .snapshot_of(id)
            .filter(|head| head.link.position.lsn >= at_least);
        let wait = self.delay();
        match head {
            Some(head) if !self.cut_links.contains(&(id, to)) => {
                self.schedule(wait, to, 0, What::SnapshotSend(id, head));
                // The engine gives a transfer that falls silent up.
                let input = Input::SnapshotFailed { to };
                self.schedule(2_000_000_000, id, number, What::Input(input));
            }
            _ => {
                let input = Input::SnapshotFailed { to };
                self.schedule(wait, id, number, What::Input(input));
            }
        }
    }

    /// Takes a snapshot and drops the log below it.
    pub fn compact(&mut self, id: NodeId) {
        let Some(head) = self.snapshot_of(id) else {
            return;
        };
        let lsn = head.link.position.lsn;
        let site = self.sites.get_mut(&id).expect("a site");
        if site.disk.base().position.lsn >= lsn || site.process.as_ref().is_none_or(|p| p.busy > 0)
        {
            return;
        }
        site.disk.log.retain(|record| record.first_lsn() > lsn);
        site.disk.snapshot = Some(head);
        self.note(format!("n{id} drops its log below {lsn}"));
        self.input(
            id,
            Input::LogTrimmed {
                first_lsn: lsn.next(),
            },
        );
    }

    // Clients

    /// Orders one record on this node, if it admits it.
    pub fn propose(&mut self, id: NodeId, count: u32) -> Result<Lsn, Refusal> {
        let payload = self.dice.roll().to_le_bytes();
        let Some(process) = self.process(id) else {
            return Err(Refusal::NotPrimary { primary: None });
        };
        process.replica.admit()?;
        let (tip, epoch) = (process.replica.tip(), process.replica.epoch());
        let stamp = tip.timestamp + 10;
        let record = Record::build(tip, Kind::Commands, epoch, stamp, count, &payload);
        let last = record.last_lsn();
        process.pending.push((epoch, last));
        self.input(id, Input::Propose(record));
        self.input(id, Input::TurnEnd);
        Ok(last)
    }

    pub fn read(&mut self, id: NodeId) -> Result<ReadTicket, Refusal> {
        let now = self.local_time(id);
        let acked = self.past(id).acknowledged();
        let Some(process) = self.process(id) else {
            return Err(Refusal::NotPrimary { primary: None });
        };
        let ticket = process.replica.read(now)?;
        process.reads.push((ticket, acked));
        self.input(id, Input::TurnEnd);
        Ok(ticket)
    }

    // Judging

    /// I6: who does not count is sent nothing that is not committed.
    fn check_secrecy(&self, from: NodeId, to: NodeId, message: &Message) {
        let (Body::Append { records, .. }, Some(replica)) = (&message.body, self.replica(from))
        else {
            return;
        };
        let last = records.last().map_or(Lsn::ZERO, Record::last_lsn);
        assert!(
            last <= replica.commit() || replica.is_counted(to) || self.counted.contains(&to),
            "I6: n{from} sends {last} to n{to}, commit is {}",
            replica.commit()
        );
    }

    /// What has happened in the history that this node lives in. A forced promotion begins another
    /// past: what it lacks is lost, as its operator wished.
    fn past(&mut self, id: NodeId) -> &mut Past {
        let config = self.replica(id).map_or(&self.first, Replica::config);
        let (history, parent) = (config.history, config.ancestors.last().copied());
        if let Some((parent, fork)) = parent.filter(|_| !self.pasts.contains_key(&history)) {
            let mut past = self.pasts[&parent].clone();
            // Its founder is the first to be seen in it; what that one had of its own, uncommitted,
            // belongs to the new past from now on.
            let log = self.written(id);
            let base = self.sites[&id].disk.base().position.lsn;
            past.truth.retain(|record| {
                let lsn = record.last_lsn();
                lsn.0 <= fork && (lsn <= base || log.get(&lsn) == Some(record))
            });
            let end = past.truth.last().map_or(Lsn::ZERO, Record::last_lsn);
            let own = log.into_values().filter(|record| record.last_lsn() > end);
            past.truth
                .extend(own.filter(|record| record.last_lsn().0 <= fork));
            past.acked.clear();
            self.pasts.insert(history, past);
        }
        self.pasts.entry(history).or_default()
    }

    /// I1: the log that a new epoch begins with holds everything that was ever committed.
    fn check_new_primary(&mut self, id: NodeId, start: &Record) {
        let log = self.written(id);
        // A process that stood still may learn late that it was chosen, and begin an epoch that was
        // overtaken: it commits nothing, and need not hold what later epochs did.
        let before = |record: &Record| record.epoch() < start.epoch();
        for record in self.past(id).truth.clone().into_iter().filter(before) {
            let held = log.get(&record.last_lsn());
            let snapshot = self.sites[&id].disk.base().position.lsn;
            assert!(
                record.last_lsn() <= snapshot || held == Some(&record),
                "I1: n{id} begins epoch {} without {record:?}, it has {held:?}",
                start.epoch()
            );
        }
    }

    /// Everything written at this node, by last LSN.
    fn written(&self, id: NodeId) -> BTreeMap<Lsn, Record> {
        let site = &self.sites[&id];
        let mut log: BTreeMap<Lsn, Record> = site
            .disk
            .log
            .iter()
            .map(|record| (record.last_lsn(), record.clone()))
            .collect();
        for work in site.process.iter().flat_map(|process| &process.work) {
            match work {
                Work::Append(record) => {
                    log.insert(record.last_lsn(), record.clone());
                }
                Work::Cut(after) => log.retain(|lsn, _| lsn <= after),
                Work::Install(_) => log.clear(),
            }
        }
        log
    }

    /// The records written at this node that end after `lsn`.
    fn written_after(&self, id: NodeId, lsn: Lsn) -> Vec<Record> {
        let site = &self.sites[&id];
        let mut fresh: Vec<Record> = Vec::new();
        for work in site.process.iter().flat_map(|process| &process.work) {
            match work {
                Work::Append(record) => fresh.push(record.clone()),
                Work::Cut(_) | Work::Install(_) => {
                    let all = self.written(id).into_values();
                    return all.filter(|record| record.last_lsn() > lsn).collect();
                }
            }
        }
        let recent = site.disk.log.iter().rev();
        let recent = recent.take_while(|record| record.last_lsn() > lsn);
        let mut all: Vec<Record> = recent.cloned().collect();
        all.reverse();
        all.extend(fresh.into_iter().filter(|record| record.last_lsn() > lsn));
        all
    }

    /// I1, I4 and what is acknowledged to clients, after each step of a node.
    fn check(&mut self, id: NodeId) {
        let Some(process) = &self.sites[&id].process else {
            return;
        };
        let commit = process.replica.commit();
        if commit != process.checked {
            self.check_committed(id, commit);
        }
        self.check_reads(id);
        self.check_freshness(id);
    }

    fn check_committed(&mut self, id: NodeId, commit: Lsn) {
        let checked = self.sites[&id]
            .process
            .as_ref()
            .map_or(Lsn::ZERO, |p| p.checked);
        for record in self.written_after(id, checked) {
            if record.last_lsn() > commit {
                break;
            }
            let truth = &mut self.past(id).truth;
            match truth.binary_search_by_key(&record.last_lsn(), Record::last_lsn) {
                Ok(i) => assert_eq!(
                    truth[i],
                    record,
                    "I1: n{id} has committed another record at {}",
                    record.last_lsn()
                ),
                Err(i) => {
                    assert_eq!(i, truth.len(), "I1: {record:?} at n{id} is not the truth");
                    let end = truth.last().map_or(Lsn::ZERO, Record::last_lsn);
                    assert_eq!(
                        record.first_lsn(),
                        end.next(),
                        "I1: a gap before {record:?}"
                    );
                    truth.push(record);
                }
            }
        }
        let now = self.now;
        let Some(process) = self.process(id) else {
            return;
        };
        process.checked = commit;
        if process.serving {
            let durable = process.replica.durable();
            let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.pending)
                .into_iter()
                .partition(|(_, lsn)| *lsn <= commit && *lsn <= durable);
            process.pending = rest;
            if let Some((_, lsn)) = done.into_iter().max() {
                let past = self.past(id);
                let last = past.acknowledged();
                past.acked.push((now, lsn.max(last)));
            }
        }
    }

    /// I4: a read that is answered has seen everything acknowledged before it came in.
    fn check_reads(&mut self, id: NodeId) {
        let Some(process) = self.process(id) else {
            return;
        };
        let confirmed = process.confirmed.max(process.replica.confirmed());
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut process.reads)
            .into_iter()
            .partition(|(ticket, _)| ticket.round <= confirmed);
        process.reads = rest;
        self.reads_done += done.len() as u64;
        for (ticket, acked) in done {
            assert!(
                ticket.after >= acked,
                "I4: n{id} answers a read with {} although {acked} was acknowledged before",
                ticket.after
            );
        }
    }

    fn check_freshness(&mut self, id: NodeId) {
        let Some(replica) = self.replica(id) else {
            return;
        };
        // A primary's own acknowledgements stand above what it names here.
        let Some((lsn, at)) = replica.freshness().filter(|_| !replica.is_primary()) else {
            return;
        };
        let at = at.0.saturating_sub(self.sites[&id].offset);
        let acked = &self.past(id).acked;
        let i = acked.partition_point(|(time, _)| *time < at);
        let before = i.checked_sub(1).map_or(Lsn::ZERO, |i| acked[i].1);
        assert!(
            lsn >= before,
            "n{id} calls {lsn} fresh as of {at}, but {before} was acknowledged"
        );
    }
}

fn do_work(disk: &mut Disk, work: Work) {
    match work {
        Work::Append(record) => {
            assert_eq!(record.follows(disk.tip()), Ok(()), "{record:?} on disk");
            disk.log.push(record);
        }
        Work::Cut(after) => disk.log.retain(|record| record.last_lsn() <= after),
        Work::Install(head) => {
            disk.log.clear();
            disk.snapshot = Some(head);
        }
    }
}
