//! Knows people: one file per operator command; thin: parse, ask, print (for people or as JSON).
#![expect(
    clippy::disallowed_methods,
    reason = "the command line waits and watches in real time"
)]

mod backup;
mod backup_now;
mod backup_verify;
mod connect;
mod create;
mod dev;
mod differing;
mod drill;
pub mod exit;
mod inspect;
mod loss;
mod operate;
mod random;
pub mod restore;
mod serve;
mod settings;
mod status;

pub use connect::Target;
pub use exit::{EXIT_CODES, ExitCode, Failure, Outcome};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A primary-backup replicated key-value store for account balances.
#[derive(Parser, Debug)]
#[command(name = "standfast", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Dev(dev::Dev),
    Serve(Box<serve::Serve>),
    Init(Box<create::Init>),
    Join(Box<create::Join>),
    Status(status::Show),
    Switchover(operate::Switchover),
    Promote(operate::Promote),
    Rejoin(operate::Rejoin),
    #[command(subcommand)]
    Member(operate::Member),
    #[command(subcommand)]
    Set(operate::Set),
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    #[command(subcommand)]
    Backup(backup::Backup),
    Restore(Box<restore::Restore>),
    Activate(restore::Activate),
    #[command(subcommand)]
    Loss(loss::Loss),
    #[command(subcommand)]
    Drill(drill::Drill),
    #[command(subcommand)]
    Inspect(inspect::Inspect),
}

/// Parses the arguments, runs the command, prints what went wrong; the caller exits with the code.
pub fn main() -> std::process::ExitCode {
    let after = format!("Exit codes:\n{}", exit::table());
    let command = Cli::command().after_help(after);
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let json = std::env::args().any(|arg| arg == "--json");
    let code = match run(&cli.command) {
        Ok(code) => code,
        Err(failure) => {
            if json {
                eprintln!("{}", failure.to_json());
            } else {
                eprintln!("{failure}");
            }
            failure.code
        }
    };
    std::process::ExitCode::from(code as u8)
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Init(args) => create::init(args),
        Command::Join(args) => create::join(args),
        Command::Status(args) => status::run(args),
        Command::Switchover(args) => operate::switchover(args),
        Command::Promote(args) => operate::promote(args),
        Command::Rejoin(args) => operate::rejoin(args),
        Command::Member(command) => operate::member(command),
        Command::Set(command) => operate::set(command),
        Command::Config(command) => settings::run(command),
        Command::Backup(command) => backup::run(command),
        Command::Restore(args) => restore::run(args),
        Command::Activate(args) => restore::activate(args),
        Command::Loss(command) => loss::run(command),
        Command::Drill(command) => drill::run(command),
        Command::Inspect(command) => inspect::run(command),
    }
}

#[cfg(test)]
mod tests;
