//! `drill …`: proves again and again, without fear, that the data comes back and the service too.
//!
//! `restore` works beside the cluster, `failover` on it, with keys of its own. Each step is timed
//! and told; `report` holds all of it against the targets, `sign` makes it evidence, `html` and
//! `junit` show it, `trend` lists the past. `guard` undoes what was done, however a drill ends.

mod failover;
mod guard;
mod html;
mod junit;
mod load;
mod prove;
mod report;
mod restore;
mod rules;
mod scratch;
mod sign;
mod trend;
mod victim;
mod watch;

use super::exit::{ExitCode, Outcome};
use std::path::PathBuf;

/// Rehearses a disaster, measures it, and writes a report that can be shown to an auditor
#[derive(clap::Subcommand, Debug)]
pub enum Drill {
    Restore(Box<restore::Restore>),
    Failover(failover::Failover),
    Report(Box<trend::List>),
    VerifyReport(trend::Verify),
    /// Make the key that signs reports; prints its public half, which is for everybody
    Keygen {
        /// The new file; only its owner can read it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Undo what a drill did when standard input ends
    #[command(hide = true)]
    Guard,
}

pub fn run(command: &Drill) -> Outcome {
    match command {
        Drill::Restore(args) => restore::run(args),
        Drill::Failover(args) => failover::run(args),
        Drill::Report(args) => trend::list(args),
        Drill::VerifyReport(args) => trend::verify(args),
        Drill::Keygen { key } => {
            println!("{}", sign::generate(key)?);
            Ok(ExitCode::Done)
        }
        Drill::Guard => guard::run(),
    }
}
