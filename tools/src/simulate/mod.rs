//! `simulate`: the production engine, core, log and state of many nodes in one thread, under
//! virtual time, from one seed; with crashes, partitions, broken connections, pauses, bad clocks.
//!
//! Never more damage than the promises allow: disks keep what was synced, so that any number of
//! crashes may happen at any time. Checked all through: I1 to I6 by an observer who sees every
//! node, and every client's history against a replay of what was committed and by a search for an
//! order; and after the faults end, that the cluster serves again and all copies are equal.

mod batch;
mod check;
mod clients;
mod clock;
mod disks;
mod end;
mod faults;
mod finished;
mod heard;
mod missed;
mod net;
mod node;
mod nodes;
mod offsite;
mod operators;
mod plan;
mod queue;
mod random;
mod starter;
mod summary;
mod world;

use batch::{Failure, Way};
use faults::Kinds;
use std::process::ExitCode;
use summary::Summary;
use world::{Order, SECOND};

/// A batch of so many seeds must reach every mark, or it proves too little.
const SEEDS_THAT_REACH_ALL: u64 = 1000;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds, from --seed on
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Virtual seconds of faults in each run
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Print every event of the run
    #[arg(long)]
    trace: bool,
    /// Run each seed twice, and compare
    #[arg(long)]
    twice: bool,
    /// Of a seed that fails, leave out the kinds of faults that are not needed for it
    #[arg(long)]
    shrink: bool,
    /// Do not stop at a seed that fails: name each, and count them
    #[arg(long)]
    keep_going: bool,
    /// Kinds of faults that do not strike, separated by commas
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
    /// Threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

fn again(seed: u64, seconds: u64, without: Kinds) -> String {
    let mut text = format!("tools simulate --seed {seed} --seeds 1 --seconds {seconds}");
    if without != Kinds::default() {
        text += &format!(" --without {}", without.names().join(","));
    }
    text
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = std::time::Instant::now();
    let without = Kinds::parse(&arguments.without)
        .map_err(|name| anyhow::anyhow!("no kind of fault is called {name}"))?;
    let order = Order {
        seed: arguments.seed,
        faults: arguments.seconds * SECOND,
        trace: arguments.trace,
        without,
    };
    let seconds = arguments.seconds;
    batch::name_the_seed_of_a_panic(move |seed| again(seed, seconds, without));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match arguments.threads {
        0 => cores,
        threads => threads,
    };
    let mut failed = 0;
    let mut tell = |failure: &Failure| {
        failed += 1;
        if arguments.keep_going {
            let start: String = failure.story.chars().take(300).collect();
            println!("seed {} FAILED: {}", failure.seed, start.replace('\n', " "));
        }
    };
    let way = Way {
        threads,
        twice: arguments.twice,
        keep_going: arguments.keep_going,
    };
    let total = match batch::run(order, arguments.seeds, way, &mut tell) {
        Ok(total) => total,
        Err(failure) => {
            tell_failure(&failure, arguments, order);
            return Ok(ExitCode::FAILURE);
        }
    };
    let wall = started.elapsed().as_secs_f64();
    report(arguments, &total, wall);
    if failed > 0 {
        println!("{failed} of {} seeds FAILED", arguments.seeds);
        return Ok(ExitCode::FAILURE);
    }
    let missing = total.missing();
    if !missing.is_empty() && arguments.seeds >= SEEDS_THAT_REACH_ALL {
        println!("vacuous: never reached {}", missing.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the batch reached, for people or as JSON.
fn report(arguments: &Arguments, total: &Summary, wall: f64) {
    let virtual_seconds = total.virtual_ns as f64 / 1e9;
    let cpu = cpu_seconds().max(0.001);
    let speed = virtual_seconds / cpu * if arguments.twice { 2.0 } else { 1.0 };
    if arguments.json {
        let json = serde_json::json!({
            "seeds": arguments.seeds,
            "first_seed": arguments.seed,
            "wall_seconds": wall,
            "cpu_seconds": cpu,
            "simulated_hours": virtual_seconds / 3600.0,
            "virtual_seconds_per_cpu_second": speed,
            "missing": total.missing(),
            "reached": total,
        });
        println!("{json:#}");
    } else {
        println!(
            "{} seeds, {:.2} simulated hours in {wall:.1} s: {speed:.0} virtual seconds per CPU \
             second, {} events",
            arguments.seeds,
            virtual_seconds / 3600.0,
            total.events
        );
        print!("{}", total.text());
    }
}

fn tell_failure(failure: &Failure, arguments: &Arguments, order: Order) {
    let Failure { seed, story } = failure;
    println!("seed {seed} FAILED: {story}");
    println!("again: {}", again(*seed, arguments.seconds, order.without));
    if arguments.shrink {
        let order = Order {
            seed: *seed,
            ..order
        };
        let (without, story) = batch::shrink(order);
        println!("shrunk: {story}");
        println!("again: {}", again(*seed, arguments.seconds, without));
    }
}

/// What this process has used of all cores.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, seconds: u64) -> Order {
        Order {
            seed,
            faults: seconds * SECOND,
            trace: false,
            without: Kinds::default(),
        }
    }

    /// The budget of the test command; `simulate --seeds N` goes on from there.
    #[test]
    fn a_batch_of_seeds_keeps_every_promise() {
        let way = Way {
            threads: 2,
            twice: false,
            keep_going: false,
        };
        let total = match batch::run(order(1, 6), 24, way, &mut |_| ()) {
            Ok(total) => total,
            Err(Failure { seed, story }) => panic!("seed {seed}: {story}"),
        };
        assert!(total.promotions > 24, "{}", total.text());
        assert!(
            total.writes > 1000 && total.crashes > 24,
            "{}",
            total.text()
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_run_twice() {
        for seed in [7, 8] {
            let first = world::run(order(seed, 5)).expect("it passes");
            let second = world::run(order(seed, 5)).expect("it passes");
            assert_eq!(first, second);
            let other = world::run(order(seed + 100, 5)).expect("it passes");
            assert_ne!(first.digest, other.digest, "another seed is another run");
        }
    }
}
