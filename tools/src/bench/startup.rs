//! How much memory a full node takes, and how long it takes from exec to the first answer after
//! kill -9: with a snapshot and a log behind it, files in the page cache.

use super::Setting;
use super::contents::{Contents, take_snapshot, warm};
use super::load::usage::resident;
use super::report::{Machine, Spread, table};
use rig::{Cluster, Spec, until};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    contents: Contents,
    /// Starts; the median is shown.
    #[arg(long, default_value_t = 5, value_parser = super::at_least_one)]
    runs: usize,
}

/// Memory counts as settled when it has not changed by more than this part for this long.
const STEADY_PART: f64 = 0.002;
const STEADY_FOR: Duration = Duration::from_secs(10);
const STEADY_LIMIT: Duration = Duration::from_secs(600);

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let contents = &arguments.contents;
    contents.check()?;
    let spec = Spec::standalone();
    let mut cluster = Cluster::start_in(&setting.binary()?, &spec, &setting.dir);
    let node = cluster.primary();
    let empty = settled(cluster.pid(&node));
    contents.fill(&cluster)?;
    let full = settled(cluster.pid(&node));
    let snapshot = take_snapshot(&cluster, &node)?;
    eprintln!("the snapshot took {snapshot:.1?}");
    contents.write_commands(&cluster)?;
    let mut seconds = Vec::new();
    for number in 1..=arguments.runs {
        cluster.kill(&node);
        warm(&node.data_dir)?;
        let started = Instant::now();
        cluster.restart(&node);
        contents.wait_served(&node);
        seconds.push(started.elapsed().as_secs_f64());
        eprintln!("start {number}: {:.2} s", seconds[seconds.len() - 1]);
    }
    let seconds = Spread::of(seconds);
    let per_item = full.saturating_sub(empty) as f64 / contents.items() as f64;
    let machine = Machine::here(&setting.dir);
    if setting.json {
        let figures = json!({
            "bench": "startup", "machine": machine.json(), "contents": contents.json(),
            "start_seconds": seconds.json(), "snapshot_seconds": snapshot.as_secs_f64(),
            "empty_bytes": empty, "full_bytes": full, "bytes_per_item": per_item,
        });
        println!("{figures}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}\n", machine.line());
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let starts = format!("exec to first GET, {} starts", arguments.runs);
    let (min, max) = (seconds.min(), seconds.max());
    let lines = [
        row("", contents.line()),
        row("resident, empty", format!("{:.1} MB", empty as f64 / 1e6)),
        row("resident, full", format!("{:.1} MB", full as f64 / 1e6)),
        row(
            "for each key, account or transfer",
            format!("{per_item:.1} bytes"),
        ),
        row("a snapshot", format!("{:.2} s", snapshot.as_secs_f64())),
        row(
            &starts,
            format!("{:.2} s ({min:.2}..{max:.2})", seconds.median),
        ),
    ];
    print!("{}", table(&lines));
    Ok(ExitCode::SUCCESS)
}

/// The resident memory once it has stopped changing: background work after the last write, such
/// as a snapshot, is over by then.
fn settled(pid: u32) -> u64 {
    let mut base = resident(pid).unwrap_or(0);
    let mut since = Instant::now();
    until("resident memory settles", STEADY_LIMIT, || {
        let now = resident(pid)?;
        if now.abs_diff(base) as f64 > base as f64 * STEADY_PART {
            (base, since) = (now, Instant::now());
        }
        (since.elapsed() >= STEADY_FOR).then_some(now)
    })
}
