//! The faults of one run: a swarm. Each run draws which kinds strike, how often each, and when.
//!
//! The budget: what was synced stays, so any number of nodes may crash at any time, and the network
//! and the clocks may do whatever they like. What may go beyond (a lost disk, a forced promotion)
//! is bounded where it is done.

mod budget;
mod clocks;
mod comeback;
mod copies;
mod crashes;
mod disks;
mod moments;
mod network;
mod pending;
mod relay;

use super::queue::Happening;
use super::random::Random;
use super::world::World;
use standfast_wal::{History, Nonce};

/// The kinds of faults; the place in `ALL` is the number in a [`Kinds`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Crash,
    CrashAll,
    CrashStorm,
    CrashInDiskWork,
    CrashInStart,
    CrashPrimary,
    Pause,
    LongPause,
    TwoSides,
    OneWay,
    Isolated,
    Bridge,
    Flapping,
    Break,
    BreakAll,
    SlowWay,
    Relay,
    WallJump,
    Drift,
    LostDisk,
    Rot,
    FailedReads,
    FailedWrites,
    FullDisk,
    SlowDisk,
}

/// Every kind, and what it is called.
pub const ALL: &[(Kind, &str)] = &[
    (Kind::Crash, "crash"),
    (Kind::CrashAll, "crash-all"),
    (Kind::CrashStorm, "crash-storm"),
    (Kind::CrashInDiskWork, "crash-in-disk-work"),
    (Kind::CrashInStart, "crash-in-start"),
    (Kind::CrashPrimary, "crash-primary"),
    (Kind::Pause, "pause"),
    (Kind::LongPause, "long-pause"),
    (Kind::TwoSides, "two-sides"),
    (Kind::OneWay, "one-way"),
    (Kind::Isolated, "isolated"),
    (Kind::Bridge, "bridge"),
    (Kind::Flapping, "flapping"),
    (Kind::Break, "break"),
    (Kind::BreakAll, "break-all"),
    (Kind::SlowWay, "slow-way"),
    (Kind::Relay, "relay"),
    (Kind::WallJump, "wall-jump"),
    (Kind::Drift, "drift"),
    (Kind::LostDisk, "lost-disk"),
    (Kind::Rot, "rot"),
    (Kind::FailedReads, "failed-reads"),
    (Kind::FailedWrites, "failed-writes"),
    (Kind::FullDisk, "full-disk"),
    (Kind::SlowDisk, "slow-disk"),
];

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kinds(u64);

impl Kinds {
    pub fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    #[must_use]
    pub fn with(self, place: usize) -> Kinds {
        Kinds(self.0 | 1 << place)
    }

    /// From names; an unknown one is given back.
    pub fn parse(names: &[String]) -> Result<Kinds, String> {
        let mut kinds = Kinds::default();
        for name in names {
            let place = ALL.iter().position(|(_, known)| known == name);
            kinds = kinds.with(place.ok_or_else(|| name.clone())?);
        }
        Ok(kinds)
    }

    pub fn names(self) -> Vec<&'static str> {
        let all = ALL.iter().enumerate();
        let kept = all.filter(|(place, _)| self.has(*place));
        kept.map(|(_, (_, name))| *name).collect()
    }
}

/// What strikes in this run.
pub struct Faults {
    /// How often each kind is drawn, in proportion; 0: never.
    weights: Vec<u64>,
    without: Kinds,
    pub struck: Vec<u64>,
    /// The newest Config that the budget was held against.
    judged: Option<(History, u64)>,
    relay: Option<relay::Relay>,
    moments: moments::Moments,
    /// One connection may still break after the faults have ended.
    breaks_late: bool,
    /// The newest attempt at a promotion that got as far as its fences.
    attempt: Option<Nonce>,
}

impl Faults {
    pub fn draw(random: &mut Random, without: Kinds) -> Faults {
        let mut weights: Vec<u64> = ALL
            .iter()
            .map(|_| match random.below(2) {
                0 => 0,
                _ => random.between(1, 8),
            })
            .collect();
        // A run in which everything dies all the time gets nowhere: rarely, and not often.
        for (place, (kind, _)) in ALL.iter().enumerate() {
            if matches!(kind, Kind::CrashAll | Kind::CrashStorm) {
                weights[place] = weights[place].min(1);
            }
        }
        Faults {
            weights,
            without,
            struck: vec![0; ALL.len()],
            judged: None,
            relay: None,
            moments: moments::Moments::default(),
            breaks_late: true,
            attempt: None,
        }
    }

    /// Whether faults of this kind strike in this run.
    fn may(&self, kind: Kind) -> bool {
        let place = ALL.iter().position(|(known, _)| *known == kind);
        place.is_some_and(|place| self.weights[place] > 0 && !self.without.has(place))
    }

    /// Wall clocks may jump in this run.
    pub fn jumps_clocks(&self) -> bool {
        self.may(Kind::WallJump)
    }

    fn count(&mut self, kind: Kind, struck: bool) {
        let place = ALL.iter().position(|(known, _)| *known == kind);
        self.struck[place.expect("every kind is listed")] += u64::from(struck);
    }

    fn next(&self, random: &mut Random) -> Option<usize> {
        let all: u64 = self.weights.iter().sum();
        if all == 0 {
            return None;
        }
        let mut left = random.below(all);
        self.weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        })
    }
}

impl World {
    /// The next fault strikes, and the one after it is set.
    pub fn fault(&mut self) -> Result<(), String> {
        if self.calm.is_some() {
            return Ok(());
        }
        let [low, high] = self.plan.fault_pause;
        // Now and then all is well for a while: what was begun gets its end.
        let rest = match self.dice.faults.one_in(12) {
            true => high * 2,
            false => 0,
        };
        let wait = self.dice.faults.between(low, high) + rest;
        self.after(wait, Happening::Fault);
        let Some(place) = self.faults.next(&mut self.dice.faults) else {
            return Ok(());
        };
        // What a fault draws comes from a stream of its own, so that leaving it out changes as
        // little as can be.
        let mut random = Random::new(self.dice.faults.next());
        if !self.faults.without.has(place) {
            let struck = self.strike(ALL[place].0, &mut random);
            self.faults.struck[place] += u64::from(struck);
        }
        Ok(())
    }

    /// True if it struck: what would be more damage than the promises allow for does not.
    fn strike(&mut self, kind: Kind, random: &mut Random) -> bool {
        let node = random.index(self.nodes.len());
        match kind {
            Kind::LostDisk => return self.lose_disk(node, random),
            Kind::Rot => return self.rot(node, random),
            Kind::FailedReads => return self.fail_reads(node, random),
            Kind::FailedWrites => return self.fail_writes(node, random),
            Kind::FullDisk => return self.fill_disk(node, random),
            Kind::SlowDisk => return self.slow_disk(node, random),
            Kind::Crash => self.crash_and_restart(node, random),
            Kind::CrashAll => self.crash_all(random),
            Kind::CrashStorm => self.crash_storm(node, random),
            Kind::CrashInDiskWork => self.crash_in_disk_work(node, random),
            Kind::CrashInStart => self.crash_in_start(node, random),
            Kind::CrashPrimary => self.crash_primary(random),
            Kind::Pause => self.pause_node(node, random, false),
            Kind::LongPause => self.pause_node(node, random, true),
            Kind::TwoSides => self.two_sides(random),
            Kind::OneWay => self.one_way(random),
            Kind::Isolated => self.isolate(node, random),
            Kind::Bridge => self.bridge(node, random),
            Kind::Flapping => self.flap(node, random),
            Kind::Break => self.break_one(node, random),
            Kind::BreakAll => self.break_all(node),
            Kind::SlowWay => self.slow_way(node, random),
            Kind::Relay => return self.relay(random),
            Kind::WallJump => self.wall_jump(node, random),
            Kind::Drift => self.drift(node, random),
        }
        true
    }

    /// The node that acts as primary, if any does.
    pub fn primary_place(&self) -> Option<usize> {
        let serves = |place: &usize| {
            let process = self.nodes[*place].process.as_ref();
            process.is_some_and(|process| process.engine.replica().is_serving())
        };
        (0..self.nodes.len()).rfind(serves)
    }
}
