//! Tools around Standfast: `cargo run --release -p tools -- <word>`.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "measurements read clocks and files; the ban is for pure rooms"
)]

mod bench;
mod mutants;
mod simulate;
mod soak;

/// The simulated nodes allocate with what real ones allocate with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "tools", about = "Measure Standfast")]
struct Arguments {
    #[command(subcommand)]
    word: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Measure: throughput and latency, beside others too; failover gaps, memory, start, restore.
    Bench(bench::Arguments),
    /// Plant bugs, one after the other, and see whether the simulator catches each.
    Mutants(mutants::Arguments),
    /// Run many nodes under faults and virtual time, from seeds.
    Simulate(simulate::Arguments),
    /// Hurt real processes in every way for a time while a bank works on them, and audit it.
    Soak(soak::Arguments),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().word {
        Word::Bench(arguments) => bench::run(arguments),
        Word::Mutants(arguments) => mutants::run(&arguments),
        Word::Simulate(arguments) => simulate::run(&arguments),
        Word::Soak(arguments) => soak::run(arguments),
    }
}
