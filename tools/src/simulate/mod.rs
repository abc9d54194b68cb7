//! `simulate`: the production engine, core, log and state of many nodes in one thread, under
//! virtual time, from one seed; with crashes, partitions, broken connections, pauses, bad clocks.
//!
//! Never more damage than the promises allow: disks keep what was synced, so that any number of
//! crashes may happen at any time. Checked all through: I1 to I6 by an observer who sees every
//! node, and every client's history against a replay of what was committed; and after the faults
//! end, that the cluster serves again and all copies are equal.

mod check;
mod node;
mod plan;
mod random;
mod world;

use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds, from --seed on
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Virtual seconds of faults in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print every event of the run
    #[arg(long)]
    trace: bool,
}

/// What a batch of runs reached.
#[derive(Debug, Default, Clone, Copy)]
pub struct Summary {
    pub events: u64,
    pub virtual_ns: u64,
    pub promotions: u64,
    pub cuts: u64,
    pub crashes: u64,
    pub partitions: u64,
    pub breaks: u64,
    pub pauses: u64,
    pub snapshots_installed: u64,
    pub writes: u64,
    pub reads: u64,
    pub unknown: u64,
}

impl Summary {
    fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.virtual_ns += other.virtual_ns;
        self.promotions += other.promotions;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.partitions += other.partitions;
        self.breaks += other.breaks;
        self.pauses += other.pauses;
        self.snapshots_installed += other.snapshots_installed;
        self.writes += other.writes;
        self.reads += other.reads;
        self.unknown += other.unknown;
    }

    /// What a batch that proves anything must have reached.
    fn missing(&self) -> Vec<&'static str> {
        let marks = [
            ("a promotion", self.promotions),
            ("a tail cut", self.cuts),
            ("a crash", self.crashes),
            ("a partition", self.partitions),
            ("a broken connection", self.breaks),
            ("a pause", self.pauses),
            ("a snapshot installed", self.snapshots_installed),
            ("an acknowledged write", self.writes),
            ("an answered read", self.reads),
            ("an unknown outcome", self.unknown),
        ];
        marks
            .into_iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = std::time::Instant::now();
    let mut total = Summary::default();
    let faults = Duration::from_secs(arguments.seconds);
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        match world::run(seed, faults, arguments.trace) {
            Ok(summary) => total.add(&summary),
            Err(story) => {
                println!("seed {seed} FAILED: {story}");
                println!(
                    "again: simulate --seed {seed} --seeds 1 --seconds {} --trace",
                    arguments.seconds
                );
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let spent = started.elapsed().as_secs_f64();
    println!(
        "{} seeds in {spent:.1} s, {:.2} simulated hours",
        arguments.seeds,
        total.virtual_ns as f64 / 3.6e12
    );
    println!("{total:#?}");
    let missing = total.missing();
    if !missing.is_empty() && arguments.seeds >= 50 {
        println!("vacuous: never reached {}", missing.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// One run twice: the same seed gives the same run.
#[cfg(test)]
mod tests {
    use super::*;

    /// The budget of the test command; `simulate --seeds N` goes on from there.
    #[test]
    fn a_batch_of_seeds_keeps_every_promise_and_reaches_what_it_must() {
        let mut total = Summary::default();
        for seed in 1..=24 {
            match world::run(seed, Duration::from_secs(6), false) {
                Ok(summary) => total.add(&summary),
                Err(story) => panic!("seed {seed}: {story}"),
            }
        }
        assert_eq!(total.missing(), Vec::<&str>::new(), "vacuous: {total:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_run_twice() {
        let faults = Duration::from_secs(5);
        let first = world::run(7, faults, false).expect("seed 7 passes");
        let second = world::run(7, faults, false).expect("seed 7 passes");
        assert_eq!(format!("{first:?}"), format!("{second:?}"));
    }
}
