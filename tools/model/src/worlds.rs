//! The worlds by name: what each is made of, how it begins, what may happen, what must be seen.

use crate::script::{Script, Shape};
use crate::site::Mark;
use crate::starts;
use crate::turn::Quiet;
use crate::world::{Budget, World};
use standfast::replication::config::{Acks, Protection};

/// A world by name.
pub struct Named {
    pub name: &'static str,
    pub what: &'static str,
    pub make: fn(&'static str) -> World,
    pub wanted: &'static [Mark],
}

/// Heartbeats and gossip are lost.
pub const QUIET: Quiet = Quiet {
    beats: true,
    gossip: true,
};

pub const NOTHING: Budget = Budget {
    crashes: 0,
    stands: 0,
    writes: 0,
    reads: 0,
    ticks: 0,
    handovers: 0,
    refusals: 0,
    doubles: 0,
};

pub const fn shape(data: u8, acks: Acks) -> Shape {
    Shape {
        data,
        asynchronous: 0,
        acks,
        protection: Protection::MaxAvailability,
        quiet: QUIET,
    }
}

const PAIR: Shape = shape(2, Acks::All);
const THREE_ALL: Shape = shape(3, Acks::All);
const THREE: Shape = shape(3, Acks::Majority);
const LOUD: Quiet = Quiet::NOTHING;
const BEATS: Quiet = Quiet {
    beats: false,
    gossip: true,
};

fn booted(name: &'static str, shape: Shape, left: Budget) -> World {
    let mut script = Script::new(name, shape);
    script.boot();
    script.begin(left)
}

macro_rules! world {
    (
        $name:literal, $what:literal, $shape:expr,
        {$($field:ident: $value:expr),*}, [$($mark:ident),*]
    ) => {
        Named {
            name: $name,
            what: $what,
            make: |name| booted(name, $shape, Budget { $($field: $value,)* ..NOTHING }),
            wanted: &[$(Mark::$mark),*],
        }
    };
    (
        $name:literal, $what:literal, start $start:ident,
        {$($field:ident: $value:expr),*}, [$($mark:ident),*]
    ) => {
        Named {
            name: $name,
            what: $what,
            make: |name| starts::$start(name).begin(Budget { $($field: $value,)* ..NOTHING }),
            wanted: &[$(Mark::$mark),*],
        }
    };
}

pub const WORLDS: &[Named] = &[
    world!("pair-write", "two nodes, acks all: a write", PAIR,
        {writes: 1}, [WriteCommitted]),
    world!("pair-failover", "... and an attempt at promotion", PAIR,
        {writes: 1, stands: 1}, [WriteCommitted, Failover, SetShrunk]),
    world!("pair-crash", "... two attempts, a crash", PAIR,
        {writes: 1, stands: 2, crashes: 1},
        [WriteCommitted, Failover, CrashLost, TailCut, SuffixCopied, RaceLost, Overtaken]),
    world!("pair-read", "a write, a read, an attempt; heartbeats", Shape { quiet: BEATS, ..PAIR },
        {writes: 1, reads: 1, stands: 1}, [WriteCommitted, ReadAnswered, Failover]),
    world!("pair-double", "a write, an attempt; two messages come twice", PAIR,
        {writes: 1, stands: 1, doubles: 2}, [WriteCommitted, Failover]),
    world!("pair-set", "a write, a tick: the set may shrink", PAIR,
        {writes: 1, ticks: 1, stands: 1}, [WriteCommitted, SetShrunk, Failover]),
    world!("pair-regrow", "no write, two ticks, an attempt: the set shrinks and grows",
        start shrunk, {ticks: 1, stands: 1}, [SetGrown, Failover]),
    world!("pair-handover", "a write, a switchover", PAIR,
        {writes: 1, handovers: 1, stands: 1}, [WriteCommitted, HandedOver, Failover]),
    world!("pair-gossip", "a write, an attempt; all messages", Shape { quiet: LOUD, ..PAIR },
        {writes: 1, stands: 1}, [WriteCommitted, Failover]),
    world!("pair-async", "two nodes and an asynchronous one: a write, an attempt",
        Shape { asynchronous: 1, ..PAIR },
        {writes: 1, stands: 1}, [WriteCommitted, Failover]),
    world!("pair-protected", "two nodes, max-protection: a write, a crash, two attempts",
        Shape { protection: Protection::MaxProtection, ..PAIR },
        {writes: 1, stands: 2, crashes: 1}, [WriteCommitted, Failover]),
    world!("three-majority", "three nodes, acks majority: a write, an attempt", THREE,
        {writes: 1, stands: 1}, [WriteCommitted, Failover, TailCut]),
    world!("three-all", "three nodes, acks all: a write, an attempt", THREE_ALL,
        {writes: 1, stands: 1}, [WriteCommitted, Failover, SetShrunk]),
    world!("three-read", "three nodes, acks majority: a write, a read, an attempt; heartbeats",
        Shape { quiet: BEATS, ..THREE },
        {writes: 1, reads: 1, stands: 1}, [WriteCommitted, ReadAnswered, Failover]),
    world!("start-figure-8", "Raft's Figure 8 at (c): an old record on a majority",
        start figure_8, {stands: 2, crashes: 1}, [Failover, TailCut]),
    world!("start-re-add", "max-protection: a member is added before EpochStart is committed",
        start re_add, {ticks: 1, stands: 1, crashes: 1}, [SetGrown]),
    world!("start-stale-fence", "a fence quorum grows stale with its change under way",
        start stale_fence, {writes: 1, stands: 1, crashes: 1}, [WriteCommitted, Failover]),
    world!("start-late-ack", "an acknowledgement outlives the process that it was for",
        start late_ack, {writes: 1, stands: 2, crashes: 1}, [WriteCommitted, Failover]),
    // To a bound.
    world!(
        "three-refused",
        "three nodes, acks majority: two writes, a crash that is seen at once",
        THREE,
        {writes: 2, crashes: 1, refusals: 1},
        [WriteCommitted, SetShrunk]
    ),
    world!("three-set", "three nodes, acks majority: a write, a tick, an attempt", THREE,
        {writes: 1, ticks: 1, stands: 1}, [WriteCommitted, Failover]),
    world!("pair-two", "two nodes: two writes, two crashes, two attempts", PAIR,
        {writes: 2, stands: 2, crashes: 2}, [WriteCommitted, Failover, CrashLost]),
    world!("pair-set-crash", "two nodes: a write, a tick, an attempt, a crash", PAIR,
        {writes: 1, ticks: 1, stands: 1, crashes: 1}, [WriteCommitted, SetShrunk]),
    world!("three-crash", "three nodes, acks majority: a write, a crash, two attempts", THREE,
        {writes: 1, stands: 2, crashes: 1}, [WriteCommitted, Failover, CrashLost]),
    world!("three-all-set", "three nodes, acks all: a write, a tick, an attempt", THREE_ALL,
        {writes: 1, ticks: 1, stands: 1}, [WriteCommitted, SetShrunk]),
];
