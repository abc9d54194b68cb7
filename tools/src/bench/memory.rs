//! Resident memory per key: that of a standalone node full of keys, less that of an empty one.

use super::Setting;
use super::generator::{self, KEY_BYTES, Keys, Shape, Target, VALUE_BYTES};
use super::report::{Machine, rate};
use anyhow::{Context, ensure};
use rig::{Cluster, Spec, until};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// How many keys are written.
    #[arg(long, default_value_t = 5_000_000)]
    keys: u64,
}

/// The promise, in bytes per key.
const BAR: f64 = 200.0;

/// Memory counts as settled when it has not changed by more than this part for this long.
const STEADY_PART: f64 = 0.002;
const STEADY_FOR: Duration = Duration::from_secs(10);
const STEADY_LIMIT: Duration = Duration::from_secs(300);

/// Resident bytes of a process: all, and those that are not pages of files.
#[derive(Clone, Copy, Debug)]
struct Resident {
    all: u64,
    anonymous: u64,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::start_in(&setting.binary()?, &Spec::standalone(), &setting.dir);
    let node = cluster.primary();
    let pid = cluster.pid(&node);
    let empty = settled(pid)?;
    fill(&cluster, 0, arguments.keys)?;
    let full = settled(pid)?;
    let per_key = |full: u64, empty: u64| full.saturating_sub(empty) as f64 / arguments.keys as f64;
    let all = per_key(full.all, empty.all);
    let anonymous = per_key(full.anonymous, empty.anonymous);
    let machine = Machine::here(&setting.dir);
    if setting.json {
        let figures = json!({
            "bench": "memory", "machine": machine.json(), "keys": arguments.keys,
            "empty_bytes": empty.all, "full_bytes": full.all, "bytes_per_key": all,
            "anonymous_bytes_per_key": anonymous, "bar": BAR, "met": all < BAR,
        });
        println!("{figures}");
    } else {
        println!(
            "{} keys of {KEY_BYTES} + {VALUE_BYTES} bytes",
            arguments.keys
        );
        println!("{}\n", machine.line());
        println!(
            "an empty node        {:>8.1} MB resident",
            empty.all as f64 / 1e6
        );
        println!(
            "with all keys        {:>8.1} MB resident",
            full.all as f64 / 1e6
        );
        println!("per key              {all:>8.1} bytes (promised: under {BAR})");
        println!("without file pages   {anonymous:>8.1} bytes per key");
    }
    Ok(if all < BAR {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes each key of `first..end` once.
pub fn fill(cluster: &Cluster, first: u64, end: u64) -> anyhow::Result<()> {
    let target = Target {
        address: cluster.primary().client,
        wait: false,
    };
    let shape = Shape {
        connections: 16,
        depth: 64,
    };
    let run = generator::run(&target, shape, Keys::Each { first, end })?;
    ensure!(
        run.sets == end - first,
        "{} of {} keys were written",
        run.sets,
        end - first
    );
    eprintln!("wrote {} keys at {}", run.sets, rate(run.per_second()));
    Ok(())
}

/// The resident memory once it has stopped changing: background work after the last write, such
/// as a snapshot, is over by then.
fn settled(pid: u32) -> anyhow::Result<Resident> {
    let mut base = resident(pid)?;
    let mut since = Instant::now();
    let settled = until("resident memory settles", STEADY_LIMIT, || {
        match resident(pid) {
            Ok(now) => {
                if now.all.abs_diff(base.all) as f64 > base.all as f64 * STEADY_PART {
                    base = now;
                    since = Instant::now();
                }
                (since.elapsed() >= STEADY_FOR).then_some(Ok(now))
            }
            Err(error) => Some(Err(error)),
        }
    })?;
    Ok(settled)
}

fn resident(pid: u32) -> anyhow::Result<Resident> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the node runs")?;
    let kib = |name: &str| -> anyhow::Result<u64> {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .context("a line of status")?;
        let number = line.split_whitespace().nth(1).context("a number")?;
        Ok(number.parse::<u64>()? * 1024)
    };
    Ok(Resident {
        all: kib("VmRSS:")?,
        anonymous: kib("RssAnon:")?,
    })
}
