//! `serve`: runs one node in the foreground until it is told to stop.

use super::exit::{ExitCode, Failure, Outcome};
use super::settings::Settings;

use crate::config::{Config, LogFormat};
use crate::node::meta;
use crate::node::open::Opening;
use crate::node::run::ServeError;
use rustix::process::Signal;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Runs one node.
#[derive(clap::Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// For this start of a node without peers: if the newest records on its disk are damaged, cut
    /// them off (they are kept in the log's divergent/); acknowledged commands may be among them
    #[arg(long)]
    cut_damaged_end: bool,
    /// Die when the process that started this one dies
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

pub fn run(args: &Serve) -> Outcome {
    if args.exit_with_parent {
        die_with_parent()?;
    }
    let config = args.settings.load()?.config;
    start_log(&config)?;
    identify(&config)?;
    let mut opening = Opening::from(&config);
    opening.options.cut_damaged_end = args.cut_damaged_end;
    crate::server::run::serve(config, opening, || Ok(Box::pin(stop_signal()?))).map_err(explain)?;
    Ok(ExitCode::Done)
}

/// Completes at the first SIGTERM or SIGINT. Must be called inside a runtime.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The kernel ends this process when its parent ends, however that happens.
pub(super) fn die_with_parent() -> Result<(), Failure> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(std::io::Error::from)?;
    // The parent may have died before the call above: then nobody will send the signal.
    if rustix::process::getppid() != parent {
        return Err(Failure::new(
            ExitCode::Failed,
            "the process that started this one is gone",
        ));
    }
    Ok(())
}

/// Log lines go to standard error; standard output is for answers.
fn start_log(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log_level.0)
        .map_err(|error| Failure::new(ExitCode::Settings, format!("log_level: {error}")))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))
}

/// Makes sure that the data directory is this node's.
fn identify(config: &Config) -> Result<(), Failure> {
    let dir = config.data_dir.display();
    // An identity that cannot be read is the node's to judge: it knows who could repair it.
    let Ok(found) = meta::identity(&config.data_dir) else {
        return Ok(());
    };
    match found {
        Some(found) if found.node != config.node => Err(Failure::new(
            ExitCode::Settings,
            format!(
                "{dir} belongs to node {}, not to node {}",
                found.node, config.node
            ),
        )
        .hint("correct `node` or `data_dir`")),
        Some(found) if found.cluster_name != config.cluster.as_str() => Err(Failure::new(
            ExitCode::Settings,
            format!(
                "{dir} belongs to cluster {:?}, not to {:?}",
                found.cluster_name,
                config.cluster.as_str()
            ),
        )
        .hint("correct `cluster` or `data_dir`")),
        Some(_) => Ok(()),
        // Whoever knows its cluster has lost its disk: `node::open` begins anew.
        None => match config.cluster_id {
            Some(_) if !config.peers.is_empty() => Ok(()),
            _ => Err(
                Failure::new(ExitCode::Settings, format!("{dir} holds no node")).hint(
                    "`standfast init` makes the first node of a new cluster, `standfast join` one \
                 more of a running cluster; `standfast dev` a whole cluster on this machine",
                ),
            ),
        },
    }
}

fn explain(error: ServeError) -> Failure {
    let code = match &error {
        ServeError::InUse(_) | ServeError::Address(_) => ExitCode::InUse,
        ServeError::Identity(_) => ExitCode::Settings,
        ServeError::Damaged(_) | ServeError::Differs(_) => ExitCode::Damaged,
        ServeError::Halted(_) => ExitCode::Halted,
    };
    Failure::new(code, error.to_string())
}
