//! `model`: explores the named worlds, all or one, and prints what was found.

use clap::Parser;
use model::run::{Found, explore};
use model::worlds::{Named, WORLDS};
use std::process::ExitCode;

/// Explores every interleaving of small worlds of the replication core.
#[derive(Parser)]
struct Arguments {
    /// Only worlds whose name contains this.
    #[arg(long)]
    world: Option<String>,
    /// Stop a world after this many steps, and say so.
    #[arg(long, default_value_t = 5_000_000)]
    bound: usize,
    /// Only say what there is.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |named: &&Named| {
        let part = arguments.world.as_ref();
        part.is_none_or(|part| named.name.contains(part))
    };
    let mut good = true;
    let mut worlds = 0;
    if !arguments.list {
        println!(
            "{:<18} {:>10} {:>11} {:>6} {:>9} {:>8}",
            "world", "states", "steps", "depth", "end", "time"
        );
    }
    for named in WORLDS.iter().filter(wanted) {
        worlds += 1;
        if arguments.list {
            println!("{:<18} {}", named.name, named.what);
            continue;
        }
        let found = explore(named, arguments.bound);
        print(&found);
        good &= found.is_good();
    }
    if good && worlds > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(found: &Found) {
    let end = match (&found.broken, found.complete) {
        (Some(_), _) => "BROKEN",
        (None, true) => "complete",
        (None, false) => "bound",
    };
    println!(
        "{:<18} {:>10} {:>11} {:>6} {:>9} {:>7.1}s",
        found.name,
        found.states,
        found.steps,
        found.depth,
        end,
        found.took.as_secs_f64(),
    );
    for mark in &found.missing {
        println!("    never seen: {mark:?}");
    }
    for line in found.broken.iter().flatten() {
        println!("    {line}");
    }
}
