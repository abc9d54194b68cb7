//! From a backup to the first answer: a data directory is lost, made again from the backup, and
//! served; files in the page cache.

use super::Setting;
use super::contents::{Contents, warm};
use super::report::{Machine, Spread, table};
use anyhow::{Context, ensure};
use rig::{Cluster, Node, Spec};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    contents: Contents,
    /// Restores; medians and spread are shown.
    #[arg(long, default_value_t = 5, value_parser = super::at_least_one)]
    runs: usize,
}

pub fn run(setting: &Setting, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let contents = &arguments.contents;
    contents.check()?;
    let spec = Spec::standalone();
    let mut cluster = Cluster::start_in(&setting.binary()?, &spec, &setting.dir);
    let node = cluster.primary();
    contents.fill(&cluster)?;
    contents.write_commands(&cluster)?;
    let place = cluster.scratch().join("backup");
    let place = place.to_str().context("a path in UTF-8")?;
    let backup = timed(|| {
        let said = cluster.cli(&["backup", "now", "--node", &node.client, "--to", place]);
        ensure!(said.code == Some(0), "backup now: {said:?}");
        Ok(())
    })?;
    let bytes = warm(place.as_ref())?;
    eprintln!("the backup took {backup:.1?}");
    let (mut restores, mut totals) = (Vec::new(), Vec::new());
    for number in 1..=arguments.runs {
        cluster.kill(&node);
        let (restore, total) = once(&mut cluster, &node, place, contents)?;
        eprintln!("restore {number}: {restore:.2?}, serving after {total:.2?}");
        restores.push(restore.as_secs_f64());
        totals.push(total.as_secs_f64());
    }
    let (restores, totals) = (Spread::of(restores), Spread::of(totals));
    let machine = Machine::here(&setting.dir);
    if setting.json {
        let figures = json!({
            "bench": "restore", "machine": machine.json(), "contents": contents.json(),
            "backup_seconds": backup.as_secs_f64(), "backup_bytes": bytes,
            "restore_seconds": restores.json(), "serving_after_seconds": totals.json(),
        });
        println!("{figures}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", machine.line());
    println!("medians of {} restores, (min..max)\n", arguments.runs);
    let row = |name: &str, figure: String| vec![name.to_owned(), figure];
    let seconds = |spread: &Spread| {
        let (min, max) = (spread.min(), spread.max());
        format!("{:.2} s ({min:.2}..{max:.2})", spread.median)
    };
    let lines = [
        row("", contents.line()),
        row(
            "the backup",
            format!(
                "{:.2} s, {:.1} MB",
                backup.as_secs_f64(),
                bytes as f64 / 1e6
            ),
        ),
        row("restore", seconds(&restores)),
        row("restore to first GET", seconds(&totals)),
    ];
    print!("{}", table(&lines));
    Ok(ExitCode::SUCCESS)
}

/// Loses the data directory of a node that is down and brings it back: how long the restore took,
/// and until the node serves.
fn once(
    cluster: &mut Cluster,
    node: &Node,
    place: &str,
    contents: &Contents,
) -> anyhow::Result<(Duration, Duration)> {
    // What the operator wrote survives the disk.
    let settings = node.data_dir.join("node.toml");
    let text = settings
        .is_file()
        .then(|| std::fs::read(&settings))
        .transpose()?;
    std::fs::remove_dir_all(&node.data_dir)?;
    let to = node.data_dir.to_str().context("a path in UTF-8")?;
    let begun = Instant::now();
    let said = cluster.cli(&[
        "restore",
        "--from",
        place,
        "--to",
        to,
        "--node",
        &node.id,
        "--activate",
    ]);
    ensure!(said.code == Some(0), "restore: {said:?}");
    let restore = begun.elapsed();
    if let Some(text) = text
        && !settings.is_file()
    {
        std::fs::write(&settings, text)?;
    }
    cluster.restart(node);
    contents.wait_served(node);
    Ok((restore, begun.elapsed()))
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}
