//! `loss`: what a forced promotion has lost, from the data directories of the nodes that had it;
//! and its way back into the books.

mod books;
mod doubt;
mod found;
mod plan;
mod prove;
mod replay;
mod show;

use super::exit::{ExitCode, Failure, Outcome};
use crate::node::statement::Acknowledged;
use found::Found;
use std::path::PathBuf;

/// Where the statements are.
#[derive(clap::Args, Debug)]
pub struct From {
    /// The data directory of a node; several are read as one, each command once
    #[arg(long, value_name = "DIR", required = true)]
    from: Vec<PathBuf>,
    /// Also what was cut within one history: nobody was ever told that it was done
    #[arg(long)]
    all: bool,
}

/// Shows what was lost by a forced promotion, exports it, and sends it again
#[derive(clap::Subcommand, Debug)]
pub enum Loss {
    /// The loss statements of a data directory
    List {
        #[command(flatten)]
        from: From,
        #[arg(long)]
        json: bool,
    },
    /// Every lost transfer, account and command, and what they add up to
    Show {
        #[command(flatten)]
        from: From,
        #[arg(long)]
        json: bool,
    },
    /// The same for programs, on standard output
    Export {
        #[command(flatten)]
        from: From,
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
    /// Sends lost accounts and transfers to the primary again, by their ids: each is made once
    Replay(replay::Replay),
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated, with a first line of names
    Csv,
}

pub fn run(command: &Loss) -> Outcome {
    match command {
        Loss::List { from, json } => show::list(&from.read()?, *json),
        Loss::Show { from, json } => {
            let found = from.read()?;
            show::show(&found, &books::open(&found), *json)
        }
        Loss::Export { from, format } => show::export(&books::open(&from.read()?), *format),
        Loss::Replay(args) => replay::run(args),
    }
}

impl From {
    fn read(&self) -> Result<Vec<Found>, Failure> {
        let mut found = found::read(&self.from)?;
        found.retain(|one| self.all || is_of_interest(one));
        Ok(found)
    }
}

/// Whether anybody may have been told that something of it was done.
fn is_of_interest(found: &Found) -> bool {
    let statement = &found.statement;
    statement.rest_acknowledged != Acknowledged::No
        || statement.acknowledged_through >= statement.first_lsn
}

/// Ends a command of which nothing went wrong, or some of it.
fn outcome(is_all_well: bool) -> Outcome {
    Ok(match is_all_well {
        true => ExitCode::Done,
        false => ExitCode::Failed,
    })
}

#[cfg(test)]
mod tests;
