//! From an archive to the first answer: a data directory is lost, made again from a snapshot and
//! the log behind it, and served; what others take for the same keys; what this machine could do at
//! best. Files are in the page cache.

mod machine;
mod others;

use super::Setting;
use super::contents::{Contents, take_snapshot, warm};
use super::load::usage::{peak, resident};
use super::report::{Machine, Spread, table};
use anyhow::{Context, ensure};
use others::Other;
use rig::{Cluster, Node, Spec, until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    contents: Contents,
    /// Restores; medians and spread are shown.
    #[arg(long, default_value_t = 5, value_parser = super::at_least_one)]
    runs: usize,
    /// Redis and PostgreSQL beside it, of --keys.
    #[arg(long)]
    compare: bool,
}

/// How long the archive may take to have all.
const LONG: Duration = Duration::from_secs(600);

/// What one restore took.
struct Run {
    restore: Duration,
    /// Until the restored node answered.
    total: Duration,
    /// Of the restore's memory (bytes), the most; and that of the node that serves what it made.
    peak: u64,
    serving: u64,
    /// What it said of itself.
    said: Value,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let contents = &arguments.contents;
    contents.check()?;
    ensure!(
        !arguments.compare || contents.is_keys_only(),
        "others are compared with --keys alone"
    );
    let best = machine::measure(&setting.dir)?;
    let (runs, bytes) = ours(setting, arguments)?;
    let others = match arguments.compare {
        true => others::measure(setting, contents, arguments.runs)?,
        false => Vec::new(),
    };
    report(setting, arguments, &runs, bytes, &best, &others)?;
    Ok(ExitCode::SUCCESS)
}

/// One node with an archive: a snapshot and the log behind it are there before it is lost. Answers
/// the archive's bytes, too.
fn ours(setting: &Setting, arguments: &Arguments) -> anyhow::Result<(Vec<Run>, u64)> {
    let contents = &arguments.contents;
    let scratch = tempfile::tempdir_in(&setting.dir).context("no scratch directory")?;
    let place = scratch.path().join("archive");
    let url = format!("file://{}", place.display());
    let spec = Spec::standalone()
        .archived(&url)
        .with("STANDFAST_SNAPSHOT_INTERVAL", "0")
        .with("STANDFAST_SNAPSHOT_AFTER", "0B");
    let mut cluster = Cluster::start_in(&setting.binary()?, &spec, &setting.dir);
    let node = cluster.primary();
    contents.fill(&cluster)?;
    take_snapshot(&cluster, &node)?;
    let snapshot = cluster.status(&node)["snapshot_lsn"].clone();
    let name = format!("snapshot-{:020}", snapshot.as_u64().context("an LSN")?);
    until("the snapshot is in the archive", LONG, || {
        holds(&place, &name).then_some(())
    });
    contents.write_commands(&cluster)?;
    let written = cluster.status(&node)["applied"].as_u64();
    let written = written.context("how much is applied")?;
    until("the archive has the log", LONG, || {
        let through = cluster.status(&node)["archive"]["through"].as_u64()?;
        (through >= written).then_some(())
    });
    let mut runs = Vec::new();
    for number in 1..=arguments.runs {
        let bytes = warm(&place)?;
        cluster.kill(&node);
        let run = once(&mut cluster, &node, &url, contents)?;
        eprintln!(
            "restore {number}: {:.2?}, serving after {:.2?}, {} MB at most, {} MB served",
            run.restore,
            run.total,
            run.peak / 1_000_000,
            run.serving / 1_000_000
        );
        runs.push(run);
        if number == arguments.runs {
            return Ok((runs, bytes));
        }
    }
    unreachable!("at least one run")
}

fn holds(dir: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| path.ends_with(name) || (path.is_dir() && holds(&path, name)))
}

/// Loses the data directory of a node that is down and brings it back.
fn once(
    cluster: &mut Cluster,
    node: &Node,
    place: &str,
    contents: &Contents,
) -> anyhow::Result<Run> {
    // What the operator wrote survives the disk.
    let settings = node.data_dir.join("node.toml");
    let text = settings
        .is_file()
        .then(|| std::fs::read(&settings))
        .transpose()?;
    std::fs::remove_dir_all(&node.data_dir)?;
    let begun = Instant::now();
    let mut child = Command::new(cluster.binary())
        .args(["restore", "--json", "--activate", "--ignore-old-cluster"])
        .args(["--from", place])
        .args(["--node", &node.id, "--to"])
        .arg(&node.data_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("the binary can be started")?;
    let mut most = 0;
    let ended = until("the restore is over", LONG, || {
        most = most.max(peak(child.id()).unwrap_or(0));
        child.try_wait().transpose()
    });
    let restore = begun.elapsed();
    ensure!(ended?.success(), "the restore failed");
    let said = child.stdout.take().context("its output")?;
    if let Some(text) = text
        && !settings.is_file()
    {
        std::fs::write(&settings, text)?;
    }
    // The archive that it came from is the old history's.
    cluster.restart_with(node, &[("STANDFAST_ARCHIVE", "")]);
    contents.wait_served(node);
    let total = begun.elapsed();
    Ok(Run {
        restore,
        total,
        peak: most,
        serving: resident(cluster.pid(node)).unwrap_or(0),
        said: serde_json::from_reader(said).context("JSON of the restore")?,
    })
}

fn report(
    setting: &Setting,
    arguments: &Arguments,
    runs: &[Run],
    archive: u64,
    best: &machine::Best,
    others: &[Other],
) -> anyhow::Result<()> {
    let machine = Machine::here(&setting.dir);
    let of = |what: fn(&Run) -> f64| Spread::of(runs.iter().map(what));
    let restore = of(|run| run.restore.as_secs_f64());
    let total = of(|run| run.total.as_secs_f64());
    let peak = of(|run| run.peak as f64);
    let serving = of(|run| run.serving as f64);
    let raw = runs[0].said["bytes"].as_f64().context("bytes")?;
    let contents = &arguments.contents;
    if setting.json {
        let others = others.iter().map(Other::json);
        let figures = json!({
            "bench": "restore", "machine": machine.json(), "contents": contents.json(),
            "archive_bytes": archive, "raw_bytes": raw, "restore_seconds": restore.json(),
            "serving_after_seconds": total.json(), "peak_bytes": peak.json(),
            "serving_bytes": serving.json(), "machine_at_best": best.json(),
            "others": others.collect::<Vec<_>>(),
        });
        println!("{figures}");
        return Ok(());
    }
    println!("{}", machine.line());
    println!("medians of {} runs, (min..max)\n", arguments.runs);
    println!("{}\n", contents.line());
    let seconds = |spread: &Spread| {
        let (min, max) = (spread.min(), spread.max());
        format!("{:.2} s ({min:.2}..{max:.2})", spread.median)
    };
    let head = ["", "to first GET", "memory at most", "files"];
    let mb = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.push(vec![
        "Standfast: snapshot and log from its archive, proved".to_owned(),
        seconds(&total),
        mb(peak.median),
        mb(archive as f64),
    ]);
    for other in others {
        lines.push(vec![
            other.name.clone(),
            seconds(&other.seconds),
            other.peak.map_or(String::new(), |peak| mb(peak as f64)),
            mb(other.bytes as f64),
        ]);
    }
    println!("{}", table(&lines));
    println!(
        "of ours, the restore: {}; {} of state and records, {}/s; memory {:.2} times that of the \
         node which serves it ({})",
        seconds(&restore),
        mb(raw),
        mb(raw / restore.median),
        peak.median / serving.median,
        mb(serving.median),
    );
    println!("this machine at best: {}", best.line());
    Ok(())
}
