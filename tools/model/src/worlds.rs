//! The worlds by name: what each is made of, how it begins, what may happen, what must be seen.

use crate::script::{Script, Shape};
use crate::site::{Mark, Quiet};
use crate::world::{Budget, World};
use standfast::replication::config::{Acks, Protection};

pub struct Named {
    pub name: &'static str,
    pub what: &'static str,
    pub make: fn(&'static str) -> World,
    pub wanted: &'static [Mark],
}

const QUIET: Quiet = Quiet {
    beats: true,
    gossip: true,
};

const NOTHING: Budget = Budget {
    crashes: 0,
    stands: 0,
    writes: 0,
    reads: 0,
    ticks: 0,
    handovers: 0,
    doubles: 0,
};

const fn shape(data: u8, acks: Acks) -> Shape {
    Shape {
        data,
        asynchronous: 0,
        acks,
        protection: Protection::MaxAvailability,
        quiet: QUIET,
    }
}

fn booted(name: &'static str, shape: Shape, left: Budget) -> World {
    let mut script = Script::new(name, shape);
    script.boot();
    script.begin(left)
}

pub const WORLDS: &[Named] = &[
    Named {
        name: "pair-write",
        what: "2 nodes, acks all: one write",
        make: |name| {
            booted(
                name,
                shape(2, Acks::All),
                Budget {
                    writes: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted],
    },
    Named {
        name: "pair-failover",
        what: "2 nodes, acks all: one write, one attempt at promotion",
        make: |name| {
            booted(
                name,
                shape(2, Acks::All),
                Budget {
                    writes: 1,
                    stands: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::Failover],
    },
    Named {
        name: "pair-crash",
        what: "2 nodes, acks all: one write, one crash, two attempts at promotion",
        make: |name| {
            booted(
                name,
                shape(2, Acks::All),
                Budget {
                    writes: 1,
                    stands: 2,
                    crashes: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::Failover, Mark::CrashLost],
    },
    Named {
        name: "pair-shrink",
        what: "2 nodes, acks all: two writes, two ticks: the set shrinks and grows",
        make: |name| {
            booted(
                name,
                shape(2, Acks::All),
                Budget {
                    writes: 2,
                    ticks: 2,
                    stands: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::SetShrunk],
    },
    Named {
        name: "pair-read",
        what: "2 nodes, acks all: a write, a read, one attempt",
        make: |name| {
            let shape = Shape {
                quiet: Quiet {
                    beats: false,
                    gossip: true,
                },
                ..shape(2, Acks::All)
            };
            booted(
                name,
                shape,
                Budget {
                    writes: 1,
                    reads: 1,
                    stands: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::ReadAnswered],
    },
    Named {
        name: "three-majority",
        what: "3 nodes, acks majority: one write, one attempt",
        make: |name| {
            booted(
                name,
                shape(3, Acks::Majority),
                Budget {
                    writes: 1,
                    stands: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::Failover],
    },
    Named {
        name: "three-all",
        what: "3 nodes, acks all: one write, one attempt",
        make: |name| {
            booted(
                name,
                shape(3, Acks::All),
                Budget {
                    writes: 1,
                    stands: 1,
                    ..NOTHING
                },
            )
        },
        wanted: &[Mark::WriteCommitted, Mark::Failover],
    },
];
