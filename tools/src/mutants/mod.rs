//! `mutants`: is the net tight? Plants one bug after the other and expects the simulator to see it.
//!
//! A mutant is a patch in `tools/mutants`: a few words, then one or two changed lines at a place
//! where an author might slip. Each is applied to a copy of the tree, built and simulated with the
//! same seeds as the unmutated tree, which must be clean. One that survives fails the run.

mod check;
mod patch;
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
    /// Mutants tried at the same time, each with a tree and a build directory of its own
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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
    let scratch = root.join("target/mutants");
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
    // First of all: what a broken simulator reports of mutants would mean nothing.
    let first = Trial::new(root, scratch, 0, budget)?;
    let clean = first.clean()?;
    eprintln!("unmutated: {clean}");
    if !clean.is_clean() {
        println!("the unmutated tree is not clean: {clean}");
        return Ok(false);
    }
    let count = patches.len();
    let queue = Mutex::new(VecDeque::from(patches));
    let rows = Mutex::new(Vec::new());
    let worker = |trial: Trial| -> anyhow::Result<()> {
        while let Some(patch) = locked(&queue).pop_front() {
            let row: Row = trial.mutant(patch)?;
            let mut rows = locked(&rows);
            rows.push(row);
            let (number, row) = (rows.len(), &rows[rows.len() - 1]);
            eprintln!("{number}/{count} {row}");
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let worker = &worker;
        let others: Vec<_> = (1..arguments.jobs)
            .map(|job| scope.spawn(move || worker(Trial::new(root, scratch, job, budget)?)))
            .collect();
        let own = worker(first);
        let mut results = others
            .into_iter()
            .map(|other| other.join().expect("no panic"));
        results.try_for_each(|result| result).and(own)
    })?;
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|a, b| a.patch.name.cmp(&b.patch.name));
    print!("{}", table::render(&rows, budget, &clean));
    Ok(rows.iter().all(|row| row.verdict.is_caught()))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
