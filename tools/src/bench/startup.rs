//! From exec to the first GET: a standalone node with keys in its snapshot and commands in its log
//! behind it, files in the page cache.

use super::Setting;
use super::memory::fill;
use super::report::{Machine, median};
use anyhow::{Context, ensure};
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Node, Spec, Value, until};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Keys in the snapshot.
    #[arg(long, default_value_t = 5_000_000)]
    keys: u64,
    /// Commands in the log after it.
    #[arg(long, default_value_t = 500_000)]
    commands: u64,
    /// Starts; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// The promise.
const BAR: Duration = Duration::from_secs(5);

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(
        arguments.commands > 0,
        "the last command is what the first GET asks for"
    );
    let mut cluster = Cluster::start_in(&setting.binary()?, &Spec::standalone(), &setting.dir);
    let node = cluster.primary();
    fill(&cluster, 0, arguments.keys)?;
    let snapshot = take_snapshot(&cluster, &node)?;
    eprintln!("the snapshot took {snapshot:.1?}");
    // New keys, so that the last one is there only if the log was read to its end.
    fill(
        &cluster,
        arguments.keys,
        arguments.keys + arguments.commands,
    )?;
    let last = format!("{:016}", arguments.keys + arguments.commands - 1);

    let mut seconds = Vec::new();
    for round in 1..=arguments.rounds {
        cluster.kill(&node);
        warm(&node.data_dir)?;
        let started = Instant::now();
        cluster.restart(&node);
        first_get(&node, &last);
        seconds.push(started.elapsed().as_secs_f64());
        eprintln!("start {round}: {:.2} s", seconds[seconds.len() - 1]);
        let keys = cluster.connect(&node).call(&["DBSIZE"])?.number();
        let expected = arguments.keys + arguments.commands;
        // Its own probe key may stand beside them.
        ensure!(
            keys >= expected as i64,
            "{keys} keys after the start, not {expected}"
        );
    }
    let (middle, machine) = (median(seconds.iter().copied()), Machine::here(&setting.dir));
    let met = middle < BAR.as_secs_f64();
    if setting.json {
        let figures = json!({
            "bench": "startup", "machine": machine.json(), "keys": arguments.keys,
            "commands": arguments.commands, "seconds": middle, "runs": seconds,
            "bar": BAR.as_secs_f64(), "met": met,
        });
        println!("{figures}");
    } else {
        println!(
            "{} keys in the snapshot, {} commands in the log",
            arguments.keys, arguments.commands
        );
        println!("{}\n", machine.line());
        println!(
            "from exec to the first GET: {middle:.2} s, the median of {} (promised: under {} s)",
            arguments.rounds,
            BAR.as_secs()
        );
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks for a snapshot and waits until a new one is there.
fn take_snapshot(cluster: &Cluster, node: &Node) -> anyhow::Result<Duration> {
    let mut conn = cluster.connect(node);
    // LASTSAVE counts whole seconds.
    let before = conn.call(&["LASTSAVE"])?.number();
    until("the clock's second ends", PATIENCE, || {
        let now = conn.call(&["TIME"]).ok()?.array();
        (now.first()?.number() > before).then_some(())
    });
    let started = Instant::now();
    let reply = conn.call(&["BGSAVE"])?;
    ensure!(reply.refusal().is_none(), "BGSAVE: {reply:?}");
    until("the snapshot is finished", 5 * PATIENCE, || {
        (conn.call(&["LASTSAVE"]).ok()?.number() > before).then_some(())
    });
    Ok(started.elapsed())
}

/// Reads every file once, so that it is in the page cache.
fn warm(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).context("the data directory")? {
        let path = entry?.path();
        if path.is_dir() {
            warm(&path)?;
        } else {
            std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// Asks again and again until the key is answered.
fn first_get(node: &Node, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer =
            Conn::open(&node.client, PATIENCE).and_then(|mut conn| conn.call(&["GET", key]));
        if matches!(answer, Ok(Value::Bulk(_))) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no GET within {PATIENCE:?}: {answer:?}"
        );
        rig::poll::between_attempts();
    }
}
