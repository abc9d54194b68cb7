//! How much memory a full node takes, and how long it takes from exec to the first answer after
//! kill -9: with a snapshot and a log behind it, files in the page cache.

use super::load::usage::resident;
use super::report::{Machine, Spread, table};
use super::{Setting, ours};
use anyhow::{Context, ensure};
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Node, Spec, Value, until};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Keys of 16 bytes with values of 100.
    #[arg(long, default_value_t = 0)]
    keys: u64,
    #[arg(long, default_value_t = 0)]
    accounts: u64,
    /// Transfers between them.
    #[arg(long, default_value_t = 0)]
    transfers: u64,
    /// Commands in the log behind the snapshot.
    #[arg(long, default_value_t = 500_000)]
    commands: u64,
    /// Starts; the median is shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Memory counts as settled when it has not changed by more than this part for this long.
const STEADY_PART: f64 = 0.002;
const STEADY_FOR: Duration = Duration::from_secs(10);
const STEADY_LIMIT: Duration = Duration::from_secs(600);

/// The keys of `commands` count from here, so that none of them was there before.
const COMMANDS_FROM: u64 = 1_000_000_000_000;

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let items = arguments.keys + arguments.accounts + arguments.transfers;
    ensure!(items > 0, "give --keys, or --accounts and --transfers");
    ensure!(
        arguments.commands > 0 && arguments.runs > 0,
        "the last command is what the first GET asks for"
    );
    let spec = Spec::standalone();
    let mut cluster = Cluster::start_in(&setting.binary()?, &spec, &setting.dir);
    let node = cluster.primary();
    let empty = settled(cluster.pid(&node));
    fill(&cluster, arguments)?;
    let full = settled(cluster.pid(&node));
    let snapshot = take_snapshot(&cluster, &node)?;
    eprintln!("the snapshot took {snapshot:.1?}");
    // New keys, so that the last one is there only if the log was read to its end.
    let end = COMMANDS_FROM + arguments.commands;
    ours::set_keys(&ours::target(&cluster), COMMANDS_FROM, end)?;
    let last = format!("{:016}", end - 1);

    let mut seconds = Vec::new();
    for number in 1..=arguments.runs {
        cluster.kill(&node);
        warm(&node.data_dir)?;
        let started = Instant::now();
        cluster.restart(&node);
        first_get(&node, &last);
        seconds.push(started.elapsed().as_secs_f64());
        eprintln!("start {number}: {:.2} s", seconds[seconds.len() - 1]);
    }
    let seconds = Spread::of(seconds);
    let per_item = full.saturating_sub(empty) as f64 / items as f64;
    let machine = Machine::here(&setting.dir);
    let Arguments {
        keys,
        accounts,
        transfers,
        commands,
        runs,
    } = *arguments;
    if setting.json {
        let figures = json!({
            "bench": "startup", "machine": machine.json(), "keys": keys, "accounts": accounts,
            "transfers": transfers, "commands": commands, "start_seconds": seconds.json(),
            "snapshot_seconds": snapshot.as_secs_f64(), "empty_bytes": empty, "full_bytes": full,
            "bytes_per_item": per_item,
        });
        println!("{figures}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}\n", machine.line());
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let lines = [
        row(
            "keys, accounts, transfers",
            format!("{keys}, {accounts}, {transfers}"),
        ),
        row("resident, empty", format!("{:.1} MB", empty as f64 / 1e6)),
        row("resident, with all", format!("{:.1} MB", full as f64 / 1e6)),
        row(
            "for each key, account or transfer",
            format!("{per_item:.1} bytes"),
        ),
        row("a snapshot", format!("{:.2} s", snapshot.as_secs_f64())),
        row(
            &format!("exec to first GET, {commands} commands behind it ({runs} starts)"),
            format!(
                "{:.2} s ({:.2}..{:.2})",
                seconds.median,
                seconds.min(),
                seconds.max()
            ),
        ),
    ];
    print!("{}", table(&lines));
    Ok(ExitCode::SUCCESS)
}

fn fill(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<()> {
    let target = ours::target(cluster);
    if arguments.keys > 0 {
        ours::set_keys(&target, 0, arguments.keys)?;
    }
    if arguments.accounts > 0 {
        ours::open_accounts(&target, arguments.accounts)?;
    }
    if arguments.transfers > 0 {
        ours::make_transfers(&target, arguments.accounts, arguments.transfers)?;
    }
    Ok(())
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
    until("the snapshot is finished", 10 * PATIENCE, || {
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
    until("the last key is answered", 10 * PATIENCE, || {
        let mut conn = Conn::open(&node.client, PATIENCE).ok()?;
        let answer = conn.call(&["GET", key]).ok()?;
        matches!(answer, Value::Bulk(_)).then_some(())
    });
}
