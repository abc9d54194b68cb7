//! A small world: nodes with disks that lose what was not synced, links that lose, delay, double
//! and reorder, one virtual clock, one seed. It checks I1, I3, I4 and the fence at every step.

mod chance;
mod check;
mod disk;
mod effects;
mod fate;

pub use chance::{Dice, Faults};
pub use disk::Disk;

use crate::replication::config::{Acks, Addresses, Member, MemberRole, Protection};
use crate::replication::epochs::{EpochEntry, EpochTable};
use crate::replication::*;
use standfast_wal::{
    ClusterId, Epoch, History, Incarnation, Kind, Link, Lsn, NodeId, Nonce, Record,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

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
        self.counted = process.replica.awaited();
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
}
