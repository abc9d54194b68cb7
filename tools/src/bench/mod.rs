//! Measurements from one command each; every one starts what it measures, in a scratch directory.
//!
//! Everything shares this machine's cores, the load generator too. Figures of one run compare with
//! each other, not with another machine's.

mod failover;
mod generator;
mod kv;
mod memory;
mod redis;
pub mod report;
mod startup;

use anyhow::{Context, ensure};
use clap::Subcommand;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

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
}

#[derive(Subcommand)]
enum What {
    /// SET through RESP, beside Redis with appendfsync always and one replica.
    Kv(kv::Arguments),
    /// How long clients wait when the primary is killed, paused, or hands over.
    Failover(failover::Arguments),
    /// Resident memory per key.
    Memory(memory::Arguments),
    /// From exec to the first GET, with a snapshot and a log to read.
    Startup(startup::Arguments),
}

/// What every measurement is told.
pub struct Setting {
    pub binary: Option<PathBuf>,
    pub dir: PathBuf,
    pub json: bool,
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

/// Runs one measurement.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let setting = Setting {
        binary: arguments.binary,
        dir: arguments.dir.unwrap_or_else(std::env::temp_dir),
        json: arguments.json,
    };
    match arguments.what {
        What::Kv(arguments) => kv::run(&setting, &arguments),
        What::Failover(arguments) => failover::run(&setting, &arguments),
        What::Memory(arguments) => memory::run(&setting, &arguments),
        What::Startup(arguments) => startup::run(&setting, &arguments),
    }
}
