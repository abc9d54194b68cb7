//! `activate`: the end of a restored directory's quarantine.

use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::node::meta;
use standfast_wal::{Disk, Storage};
use std::path::PathBuf;

/// Ends the quarantine of a restored data directory: its node takes writes from its next start on.
///
/// Do it when you are sure that nobody uses the cluster that the backup is of any more: from then
/// on there are two histories.
#[derive(clap::Args, Debug)]
pub struct Activate {
    /// The restored data directory, of a stopped node
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    #[arg(long)]
    pub(super) json: bool,
}

pub fn activate(args: &Activate) -> Outcome {
    let dir = args.data_dir.display();
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(ExitCode::Failed, format!("{dir}: {error}"));
    // Looked for first: opening a disk would make the directory.
    if meta::identity(&args.data_dir)?.is_none() {
        return Err(failed(&"there is no node in it"));
    }
    let disk = Disk::open(&args.data_dir)?;
    let _lock = disk.lock().map_err(|error| {
        let text = format!("{dir}: {error}: its node is running");
        Failure::new(ExitCode::InUse, text).hint("stop it first")
    })?;
    let found = meta::load(&args.data_dir).map_err(|error| failed(&error))?;
    let mut found = found.ok_or_else(|| failed(&"there is no node in it"))?;
    if !found.quarantined {
        let text = format!("{dir}: it is active already; nothing was changed");
        return Err(Failure::new(ExitCode::Refused, text));
    }
    found.quarantined = false;
    meta::store(&disk, &found)?;
    let history = found.core.config.history;
    if args.json {
        println!(
            "{}",
            serde_json::json!({"history": history.to_string(), "active": true})
        );
    } else {
        println!("{dir} is active: history {history} takes writes from its next start on");
    }
    Ok(ExitCode::Done)
}
