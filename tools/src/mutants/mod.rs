//! `mutants`: is the net tight? Plants one bug after the other and expects the simulator to see it.
//!
//! A mutant is a patch in `tools/mutants`: a few words, then one or two changed lines at a place
//! where an author might slip. Each is applied to a copy of the tree, built and simulated with the
//! same seeds as the unmutated tree, which must be clean. One that survives fails the run.

mod check;
mod patch;
mod switch;
mod table;
mod tree;
mod trial;

use patch::Patch;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use table::Row;
use trial::{Budget, Trial};

#[derive(clap::Args)]
pub struct Arguments {
    /// Run only mutants whose name contains this; may be given several times
    #[arg(long)]
    only: Vec<String>,
    /// Seeds for each mutant, from 1 on
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Virtual seconds of faults in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only see whether every patch applies and builds
    #[arg(long)]
    check: bool,
    /// Mutants simulated at the same time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Put the table into docs/mutants.md
    #[arg(long, conflicts_with_all = ["only", "check"])]
    write: bool,
    /// Build each mutant by itself instead of all in one build with switches
    #[arg(long)]
    separate: bool,
    /// Leave the trees and what was built in target/mutants: the next run begins warm
    #[arg(long)]
    keep: bool,
}

/// The workspace that is mutated: this one.
fn root() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().expect("tools has a workspace").to_path_buf()
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let root = root();
    let mut patches = Patch::all(&root.join("tools/mutants"))?;
    let wanted = |patch: &Patch| arguments.only.iter().any(|word| patch.name.contains(word));
    patches.retain(|patch| arguments.only.is_empty() || wanted(patch));
    anyhow::ensure!(!patches.is_empty(), "no mutant has such a name");
    // Apart, so that the one does not clear away what the other works on.
    let scratch = root.join(match arguments.check {
        true => "target/mutants/check",
        false => "target/mutants/run",
    });
    let good = if arguments.check {
        check::run(&root, &scratch, &patches)?
    } else {
        try_all(arguments, &root, &scratch, patches)?
    };
    if !arguments.keep {
        std::fs::remove_dir_all(&scratch)?;
    }
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Tries the unmutated tree and all mutants; true if it is clean and they are all caught.
fn try_all(
    arguments: &Arguments,
    root: &Path,
    scratch: &Path,
    patches: Vec<Patch>,
) -> anyhow::Result<bool> {
    let budget = Budget {
        seeds: arguments.seeds,
        seconds: arguments.seconds,
    };
    let trial = Trial::new(root, scratch, budget)?;
    let wanted = if arguments.separate {
        &[]
    } else {
        &patches[..]
    };
    let planted = trial.plant(wanted)?;
    // First of all: what a broken simulator reports of mutants would mean nothing.
    let clean = trial.simulate(0)?;
    eprintln!("unmutated: {clean}");
    if !clean.is_clean() {
        println!("the unmutated tree is not clean: {clean}");
        return Ok(false);
    }
    let (switched, separate): (VecDeque<_>, VecDeque<_>) = patches
        .into_iter()
        .partition(|patch| planted.contains_key(&patch.name));
    let queue = Mutex::new(switched);
    let rows = Mutex::new(Vec::new());
    let note = |row: Row| {
        eprintln!("{row}");
        locked(&rows).push(row);
    };
    let worker = || -> anyhow::Result<()> {
        loop {
            let Some(patch) = locked(&queue).pop_front() else {
                return Ok(());
            };
            let number = planted[&patch.name];
            note(trial.switched(patch, number)?);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.max(1))
            .map(|_| scope.spawn(worker))
            .collect();
        let mut ended = workers.into_iter().map(|worker| worker.join());
        ended.try_for_each(|result| result.expect("a worker does not panic"))
    })?;
    for patch in separate {
        note(trial.separate(patch)?);
    }
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|a, b| a.patch.name.cmp(&b.patch.name));
    let rendered = table::render(&rows, budget, &clean);
    print!("{rendered}");
    if arguments.write {
        table::write(&root.join("docs/mutants.md"), &rendered)?;
    }
    Ok(rows.iter().all(|row| row.verdict.is_caught()))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
