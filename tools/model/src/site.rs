//! One node of a world: its disk, and the process that runs the production core on it.
//!
//! Everything here is part of the state, so that equal sites are one site.

use standfast::replication::epochs::EpochEntry;
use standfast::replication::register::{self, Value};
use standfast::replication::{
    EpochTable, Introduction, LogFacts, Meta, ReadTicket, Replica, Settings, Time,
};
use standfast_wal::{Incarnation, Link, Lsn, Record};
use std::collections::VecDeque;
use std::time::Duration;

/// A small step of a node's clock: a heartbeat is due, and with it whatever waits that long.
pub const TICK: Duration = Duration::from_secs(1);
/// A long step: whatever can expire on a node that is no primary has expired.
pub const LONG: Duration = Duration::from_secs(36_000);

/// Times such that one tick brings what a tick should, and one long step all the rest.
pub fn settings() -> Settings {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    Settings {
        heartbeat_interval: TICK,
        sync_timeout: TICK,
        join_timeout: TICK,
        fence_grace: TICK,
        stagger: TICK,
        // One record a message: each may be lost by itself.
        message_bytes: 1,
        hold_down: Duration::from_nanos(1),
        hold_down_max: Duration::from_nanos(1),
        failover_timeout: hours(2),
        attempt_timeout: hours(1),
        degraded_timeout: hours(1000),
        switchover_timeout: hours(1000),
        ..Settings::default()
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    pub meta: Meta,
    pub log: Vec<Record>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    Append(Record),
    Cut(Lsn),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    pub replica: Replica,
    /// What the log was told and has not made durable.
    pub work: VecDeque<Work>,
    /// The Meta that is on its way to the disk.
    pub persist: Option<(Box<Meta>, u64)>,
    /// What the register was asked last, and has not answered.
    pub asking: Option<register::Message>,
    /// Reads that wait for their confirmation, and what was committed when they came in.
    pub reads: Vec<(ReadTicket, Lsn)>,
    /// Committed records up to here were reported.
    pub checked: Lsn,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    pub disk: Disk,
    pub process: Option<Process>,
    pub clock: Time,
    /// Processes so far.
    pub lives: u8,
}

/// What may happen at one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Happening {
    Deliver(u16),
    /// The front of the log's queue becomes durable.
    Sync,
    /// The Meta under way becomes durable.
    Persist,
    Tick,
    /// Long enough nothing was heard; also the end of a candidate's attempt.
    Suspect,
    /// What was not synced is lost.
    Crash,
    Start,
    /// A peer's connection is new.
    Meets(u8),
    /// A peer's port refuses: its process is dead.
    Refused(u8),
    Write,
    /// A read comes in when this is committed.
    Read(u8),
    /// A switchover to this node is ordered.
    HandOver(u8),
    /// The register answers the question it was asked.
    Answered,
    /// It says that another value is chosen instead.
    Overtaken,
}

/// What the rest of the world sees of a turn, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// Records that this node has not known to be committed before; whether it is their primary.
    Committed(Vec<Record>, bool),
    /// It has begun an epoch behind this log.
    Reign(u64, Vec<Record>),
    /// It asks the register for this change: the value expected, the value wanted.
    Offered(Value, Value),
    /// An invariant that one node alone can break.
    Broken(Broken, String),
    Mark(Mark),
    /// It has begun to stand as candidate.
    Stands,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    I1,
    I3,
    I4,
    I5,
    I6,
    Halted,
    Panicked,
    /// The course of events that a world begins with is not possible any more.
    Script,
}

/// What an exploration must have seen, so that it does not pass for having seen nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Mark {
    WriteCommitted,
    Failover,
    SetShrunk,
    SetGrown,
    ReadAnswered,
    TailCut,
    SuffixCopied,
    RaceLost,
    Overtaken,
    CrashLost,
    HandedOver,
}

pub fn incarnation(id: u8) -> Incarnation {
    Incarnation(u128::from(id) << 64)
}

impl Disk {
    pub fn tip(&self) -> Link {
        self.log.last().map_or(Link::default(), Record::link)
    }

    fn facts(&self) -> LogFacts {
        let epochs = self.log.iter().filter_map(EpochEntry::decode).collect();
        LogFacts {
            tip: self.tip(),
            committed: Lsn::ZERO,
            first_lsn: Lsn(1),
            epochs: EpochTable::new(epochs),
            suspect: false,
        }
    }

    pub fn apply(&mut self, work: Work) {
        match work {
            Work::Append(record) => {
                assert_eq!(record.follows(self.tip()), Ok(()), "{record:?} on disk");
                self.log.push(record);
            }
            Work::Cut(after) => self.log.retain(|record| record.last_lsn() <= after),
        }
    }
}

impl Site {
    pub fn new(meta: Meta) -> Site {
        let log = Vec::new();
        Site {
            disk: Disk { meta, log },
            process: None,
            clock: Time(1 << 60),
            lives: 0,
        }
    }

    pub fn id(&self) -> u8 {
        u8::try_from(self.disk.meta.node.0).expect("small worlds")
    }

    /// The log with what is not durable yet.
    pub fn written(&self) -> Vec<Record> {
        let mut disk = self.disk.clone();
        let work = self.process.iter().flat_map(|process| &process.work);
        work.for_each(|work| disk.apply(work.clone()));
        disk.log
    }

    /// A process begins; its random numbers are its own.
    pub fn start(&mut self) {
        self.lives += 1;
        let base = u128::from(self.id()) << 32 | u128::from(self.lives) << 16;
        let random = (1..=24).map(|number| base + number).collect();
        let member = &self.disk.meta.config.members[&self.disk.meta.node];
        let introduction = Introduction {
            role: member.role,
            voter: false,
            site: String::new(),
            priority: member.priority,
            addresses: member.addresses.clone(),
            asked: false,
        };
        let (meta, facts) = (self.disk.meta.clone(), self.disk.facts());
        let replica = Replica::new(settings(), self.clock, meta, facts, introduction, random);
        self.process = Some(Process {
            replica,
            work: VecDeque::new(),
            persist: None,
            asking: None,
            reads: Vec::new(),
            checked: Lsn::ZERO,
        });
    }
}
