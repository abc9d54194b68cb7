//! `activate`: the end of a restored directory's quarantine.

use super::Source;
use crate::cli::backup::choose_cluster;
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::node::meta;
use standfast_snapshot::{Target, search};
use standfast_wal::{Disk, Storage};
use std::path::PathBuf;
use std::time::Duration;

/// A cluster whose newest archived command is younger than this may be alive.
const MAY_LIVE: Duration = Duration::from_secs(600);

/// Refuses to found a newer history beside a cluster that still writes to the archive: once a node
/// of the copy ships to it, the cluster's own nodes are refused there. An old archive proves
/// nothing (nobody may have written anything), a young one is reason enough to ask.
pub(super) fn refuse_beside_a_living_cluster(source: &Source, wall: u64) -> Result<(), Failure> {
    let cluster = choose_cluster(&source.from, source.cluster)?;
    // The newest history's, whichever is restored: that is the one that would be an older one.
    let found = search(&source.from, cluster, None, Target::Latest);
    let (listed, _) = found.map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))?;
    let age = Duration::from_nanos(wall.saturating_sub(listed.now_by(wall)));
    if age >= MAY_LIVE {
        return Ok(());
    }
    let text = format!(
        "the newest command in {} is {} s old: the cluster {} seems to be alive. An active copy \
         that archives to the same place ends its archive: nothing was made",
        source.from.place(""),
        age.as_secs(),
        listed.cluster_name,
    );
    Err(Failure::new(ExitCode::Refused, text).hint(
        "restore without --activate to look at it; --ignore-old-cluster says that the cluster is \
         stopped for good, or that the copy's `archive` is another one",
    ))
}

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
