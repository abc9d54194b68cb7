//! Measurements from one command each; every one starts what it measures, in a scratch directory.
//!
//! Everything shares this machine's cores, the load generator too. Figures of one run compare with
//! each other, not with another machine's.

mod archive;
mod compare;
mod contents;
mod failover;
mod fault;
mod kv;
mod ledger;
mod load;
mod ours;
mod peers;
mod plot;
pub mod report;
mod restore;
mod startup;
mod system;
mod work;

use anyhow::{Context, ensure};
use clap::Subcommand;
use load::{Pace, Plan};
use plot::Part;
use report::Machine;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    /// The standfast binary to measure; built in release mode when not given.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Where scratch directories are made: a directory on the disk to measure.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Print one JSON object instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// Draw throughput and latencies into this file, as one HTML page: ledger, kv and compare.
    #[arg(long, global = true, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Transfers in batches through the ledger's binary face.
    Ledger(ledger::Arguments),
    /// SET, GET and single transfers through RESP.
    Kv(kv::Arguments),
    /// SET, GET and transfers beside Redis, PostgreSQL and etcd.
    Compare(compare::Arguments),
    /// How long clients wait when the primary is killed, paused, or hands over.
    Failover(failover::Arguments),
    /// From a backup to the first answer of the node that was restored from it.
    Restore(restore::Arguments),
    /// How old the off-site copy is under load, and what an outage of its store costs.
    Archive(archive::Arguments),
    /// Resident memory, and from exec to the first answer after a kill.
    Startup(startup::Arguments),
}

/// How long, and how often.
#[derive(Clone, clap::Args)]
pub struct Timing {
    /// Runs; medians and spread are shown.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| "a number of runs".to_owned())?;
    if number == 0 {
        return Err("no run, no figure".to_owned());
    }
    Ok(number)
}

impl Timing {
    fn plan(&self, pace: Pace) -> Plan {
        Plan {
            pace,
            warm_up: Duration::from_secs_f64(self.warm_up),
            measured: Duration::from_secs_f64(self.seconds),
        }
    }

    /// So long, whatever was asked for.
    fn of(self, measured: Duration) -> Timing {
        Timing {
            seconds: measured.as_secs_f64(),
            ..self
        }
    }

    fn line(&self) -> String {
        let Timing {
            runs,
            seconds,
            warm_up,
        } = self;
        format!("medians of {runs} runs of {seconds} s, each after {warm_up} s to warm up")
    }
}

/// What every measurement is told.
pub struct Setting {
    pub binary: Option<PathBuf>,
    pub dir: PathBuf,
    pub json: bool,
    pub plot: Option<PathBuf>,
}

impl Setting {
    /// The binary to measure: the one given, else today's code built in release mode.
    pub fn binary(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.binary {
            return path
                .canonicalize()
                .with_context(|| format!("no binary {}", path.display()));
        }
        eprintln!("building the release binary (give --binary to measure another)");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "build",
                "--release",
                "--package",
                "standfast",
                "--bin",
                "standfast",
            ])
            .status()
            .context("cargo cannot be started")?;
        ensure!(status.success(), "the build failed");
        let own = std::env::current_exe().context("the path of this program")?;
        Ok(own.with_file_name("standfast"))
    }
}

impl Setting {
    /// Draws the page, where one is wanted.
    fn draw(&self, heading: &str, machine: &Machine, parts: &[Part]) -> anyhow::Result<()> {
        let Some(path) = &self.plot else {
            return Ok(());
        };
        let page = plot::page(heading, machine, parts);
        std::fs::write(path, page).with_context(|| format!("writing {}", path.display()))
    }
}

/// Runs one measurement.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let setting = Setting {
        binary: arguments.binary,
        dir: arguments.dir.unwrap_or_else(std::env::temp_dir),
        json: arguments.json,
        plot: arguments.plot,
    };
    match arguments.what {
        What::Ledger(arguments) => ledger::run(&setting, &arguments),
        What::Kv(arguments) => kv::run(&setting, &arguments),
        What::Compare(arguments) => compare::run(&setting, &arguments),
        What::Failover(arguments) => failover::run(&setting, &arguments),
        What::Restore(arguments) => restore::run(&setting, &arguments),
        What::Archive(arguments) => archive::run(&setting, &arguments),
        What::Startup(arguments) => startup::run(&setting, &arguments),
    }
}
