//! `model`: explores the named worlds, all or one, and prints what was found.

use clap::Parser;
use model::run::{Found, explore};
use model::worlds::WORLDS;
use std::process::ExitCode;

/// Explores every interleaving of small worlds of the replication core.
#[derive(Parser)]
struct Arguments {
    /// Only worlds whose name contains this.
    #[arg(long)]
    world: Option<String>,
    /// Stop a world after this many steps, and say so.
    #[arg(long, default_value_t = 100_000_000)]
    bound: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wanted = |name: &str| {
        arguments
            .world
            .as_ref()
            .is_none_or(|world| name.contains(world))
    };
    println!(
        "{:<24} {:>12} {:>12} {:>6} {:<9} {:>9}",
        "world", "steps", "states", "depth", "", "time"
    );
    let mut good = true;
    for named in WORLDS.iter().filter(|named| wanted(named.name)) {
        let found = explore(named, arguments.bound);
        print(&found);
        good &= found.is_good();
    }
    if good {
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
        "{:<24} {:>12} {:>12} {:>6} {:<9} {:>8.1}s  sites {} letters {} {:?}",
        found.name,
        found.steps,
        found.states,
        found.depth,
        end,
        found.took.as_secs_f64(),
        found.sites,
        found.letters,
        found.seen
    );
    for mark in &found.missing {
        println!("    never seen: {mark:?}");
    }
    for line in found.broken.iter().flatten() {
        println!("    {line}");
    }
}
