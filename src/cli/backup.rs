//! `backup …`: `now` asks a node; the others read what an archive holds and can restore.

use super::backup_verify::{self, Depth};
use super::exit::{ExitCode, Failure, Outcome};
use super::random;
use crate::node::run::now;
use serde_json::{Value, json};
use standfast_snapshot::Identities;
use standfast_snapshot::archive::{self, REMOVAL_FOR};
use standfast_snapshot::catalogue::{self, Catalogue, HistoryEntry, Size, SnapshotEntry};
use standfast_snapshot::drills;
use standfast_snapshot::plan::{Lineage, Point};
use standfast_snapshot::retention::{Expiry, Policy, expire};
use standfast_snapshot::store::{self, Shared};
use standfast_wal::{Ancestor, ClusterId};
use std::path::PathBuf;
use std::time::Duration;

/// Which backups of whom.
#[derive(clap::Args, Debug)]
pub struct Where {
    /// The archive: a directory, file:///DIR, s3://BUCKET/PREFIX, gs://… or az://…
    #[arg(long, alias = "dir", value_name = "PLACE")]
    pub(super) from: String,
    /// Which cluster, where the archive has several
    #[arg(long, value_name = "ID")]
    pub(super) cluster: Option<ClusterId>,
    #[arg(long)]
    pub(super) json: bool,
}

/// Who may read an encrypted archive.
#[derive(clap::Args, Debug, Default)]
pub struct Keys {
    /// The age identity file that opens an encrypted archive; it may hold several keys, old and new
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Keys {
    /// As `read`; where no file is named, of the one that the settings name.
    pub fn read_or(&self, by_settings: Option<&PathBuf>) -> Result<Identities, Failure> {
        let identity = self.identity.as_ref().or(by_settings).cloned();
        Keys { identity }.read()
    }

    /// None, if no file is named.
    pub fn read(&self) -> Result<Identities, Failure> {
        let Some(path) = &self.identity else {
            return Ok(Identities::default());
        };
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(ExitCode::Usage, format!("{place}: {error}")))?;
        Identities::parse(&text).map_err(|why| {
            Failure::new(ExitCode::Usage, format!("{place}: {why}"))
                .hint("an identity file is what `age-keygen` writes")
        })
    }
}

/// Makes, shows, proves and expires backups; all but `now` read the archive and ask no node
#[derive(clap::Subcommand, Debug)]
pub enum Backup {
    Now(super::backup_now::Now),
    /// Show snapshots, log and what can be restored; reads headers only
    ///
    /// Ends with 7 where one of them cannot be read, or log is missing in between. Only `verify`
    /// proves that the rest is sound.
    List(Where),
    /// Read every byte, and prove what can be restored and what cannot
    ///
    /// Of an encrypted archive that proves, without --identity, that every object is there and as
    /// it was put; with it, everything.
    Verify {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        keys: Keys,
        /// Only look whether all that should be there is, and whether the log is one chain; damage
        /// inside of an object is not seen
        #[arg(long, conflicts_with = "identity")]
        quick: bool,
    },
    /// Remove what need not be kept; never the last way to the newest point
    Expire {
        #[command(flatten)]
        place: Where,
        /// Snapshots to keep at least of the newest history, and of each that had a command within
        /// --keep-for; what only older histories need goes
        #[arg(long, value_name = "N", default_value_t = 2)]
        keep_full: usize,
        /// How far back every point stays restorable
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
              default_value = "30d")]
        keep_for: Duration,
        /// Only show what would go
        #[arg(long)]
        dry_run: bool,
    },
}

pub fn run(command: &Backup) -> Outcome {
    match command {
        Backup::Now(args) => super::backup_now::run(args),
        Backup::List(place) => list(place),
        Backup::Verify { place, keys, quick } => {
            let depth = match quick {
                true => Depth::Heads,
                false => Depth::All(keys.read()?),
            };
            backup_verify::prove(place, &depth)
        }
        Backup::Expire {
            place,
            keep_full,
            keep_for,
            dry_run,
        } => {
            let keep_for_ns = u64::try_from(keep_for.as_nanos()).unwrap_or(u64::MAX);
            let policy = Policy {
                keep_full: *keep_full,
                keep_for_ns,
            };
            remove(place, policy, *dry_run)
        }
    }
}

/// The cluster asked for, or the only one there is.
pub fn choose_cluster(store: &Shared, wanted: Option<ClusterId>) -> Result<ClusterId, Failure> {
    let found = catalogue::clusters(&**store).map_err(unreadable)?;
    let place = store.place("");
    match (wanted, &found[..]) {
        (Some(wanted), _) if found.contains(&wanted) => Ok(wanted),
        (Some(wanted), _) => {
            let text = format!("{place} holds nothing of cluster {wanted}");
            Err(Failure::new(ExitCode::Failed, text))
        }
        (None, [one]) => Ok(*one),
        (None, []) => {
            let text = format!("{place} holds no backup");
            Err(Failure::new(ExitCode::Failed, text))
        }
        (None, several) => {
            let ids: Vec<String> = several.iter().map(ClusterId::to_string).collect();
            let text = format!("{place} holds backups of several clusters");
            let hint = format!("name one with --cluster: {}", ids.join(", "));
            Err(Failure::new(ExitCode::Usage, text).hint(hint))
        }
    }
}

/// Opens the archive that an operator names.
pub fn open_store(place: &str) -> Result<Shared, Failure> {
    store::open(place, &store::Scratch::of_command())
        .map_err(|error| Failure::new(ExitCode::Usage, error.to_string()))
}

pub(super) fn unreadable(error: impl ToString) -> Failure {
    Failure::new(ExitCode::Failed, error.to_string())
}

/// A time in ns since 1970, for people.
pub use crate::node::clock::utc as rfc3339;

/// The time of a point, for people.
pub fn point(point: &Point) -> String {
    match point.timestamp {
        Some(ns) => format!("LSN {}, {}", point.lsn, rfc3339(ns)),
        None => format!("LSN {}", point.lsn),
    }
}

pub(super) fn point_json(point: &Point) -> Value {
    json!({
        "lsn": point.lsn,
        "time": point.timestamp.map(rfc3339),
        "time_ns": point.timestamp,
    })
}

fn list(place: &Where) -> Outcome {
    let store = open_store(&place.from)?;
    let cluster = choose_cluster(&store, place.cluster)?;
    let catalogue = catalogue::read(&store, cluster).map_err(unreadable)?;
    let drills = drills::list(&*store, cluster).map_err(unreadable)?;
    if place.json {
        let mut listed = list_json(&catalogue);
        listed["drills"] = drills.len().into();
        println!("{listed}");
    } else {
        print!("{}", list_text(&catalogue));
        if let Some(newest) = drills.last() {
            println!("\n{} reports of drills, the newest {newest}", drills.len());
        }
    }
    Ok(match is_whole(&catalogue) {
        true => ExitCode::Done,
        false => ExitCode::Damaged,
    })
}

/// Whether all that is listed can be read, and no history has a hole.
pub(super) fn is_whole(catalogue: &Catalogue) -> bool {
    let mut entries = catalogue.histories.iter();
    entries.all(|entry| {
        let lineage = Lineage::of(catalogue, entry.history).expect("it is in this catalogue");
        entry.unreadable.is_empty() && holes(&lineage).is_empty()
    })
}

fn holes(lineage: &Lineage<'_>) -> Vec<String> {
    let mut holes: Vec<String> = lineage.gaps().iter().map(ToString::to_string).collect();
    if let Some(newest) = lineage.newest()
        && lineage.is_newest()
        && lineage.reaches().is_empty()
    {
        let newest = point(&newest);
        holes.push(format!(
            "there is no snapshot, and no log from LSN 1, before {newest}"
        ));
    }
    holes
}

pub(super) fn list_json(catalogue: &Catalogue) -> Value {
    let sized = catalogue.histories.iter().zip(catalogue.snapshot_sizes());
    let histories = sized.map(|(entry, sizes)| {
        let lineage = Lineage::of(catalogue, entry.history).expect("it is in this catalogue");
        let ranges = lineage.reaches().into_iter().map(|reach| {
            json!({
                "snapshot_lsn": reach.snapshot.map(|s| s.link.position.lsn),
                "from": point_json(&reach.from),
                "to": point_json(&reach.to),
            })
        });
        let ancestors = entry.ancestors.iter().map(|past| {
            let (lsn, end) = (past.shared, past.end);
            json!({"history": past.history.to_string(), "lsn": lsn, "end": end})
        });
        let snapshots = entry.snapshots.iter().zip(sizes).map(|(s, size)| {
            json!({
                "lsn": s.link.position.lsn,
                "epoch": s.link.position.epoch,
                "time": rfc3339(s.link.timestamp),
                "time_ns": s.link.timestamp,
                "digest": s.state.map(|(digest, _)| format!("{digest:032x}")),
                "node": s.node,
                "keys": s.state.map(|(_, counts)| counts[0]),
                "recipients": s.recipients.map(|id| id.to_string()),
                "bytes": size.whole,
                "new_bytes": size.new,
                "path": s.path,
            })
        });
        let unreadable = entry
            .unreadable
            .iter()
            .map(|u| json!({"path": u.path, "reason": u.reason}));
        json!({
            "history": entry.history.to_string(),
            "generation": entry.history.generation,
            "ancestors": ancestors.collect::<Vec<_>>(),
            "snapshots": snapshots.collect::<Vec<_>>(),
            "log_pieces": entry.logs.len(),
            "log_bytes": log_bytes(entry),
            "newest": lineage.newest().as_ref().map(point_json),
            "restorable": ranges.collect::<Vec<_>>(),
            "holes": holes(&lineage),
            "unreadable": unreadable.collect::<Vec<_>>(),
        })
    });
    json!({
        "whole": is_whole(catalogue),
        "cluster": catalogue.cluster.to_string(),
        "cluster_name": catalogue.cluster_name,
        "histories": histories.collect::<Vec<_>>(),
    })
}

fn log_bytes(entry: &HistoryEntry) -> u64 {
    entry.logs.iter().map(|log| log.head.stored_bytes).sum()
}

pub(super) fn list_text(catalogue: &Catalogue) -> String {
    let mut out = format!(
        "cluster {} ({})\n",
        catalogue.cluster_name, catalogue.cluster
    );
    let sized = catalogue.histories.iter().zip(catalogue.snapshot_sizes());
    for (entry, sizes) in sized {
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        line(format!("\nhistory {}", entry.history));
        for past in &entry.ancestors {
            let Ancestor {
                history,
                shared,
                end,
            } = past;
            let perhaps = match shared < end {
                true => format!(", perhaps up to LSN {end}"),
                false => String::new(),
            };
            line(format!("  shares {history} up to LSN {shared}{perhaps}"));
        }
        for (snapshot, size) in entry.snapshots.iter().zip(sizes) {
            line(format!(
                "  snapshot   LSN {:<14} {}  {}, {}, {} of them new",
                snapshot.link.position.lsn.0,
                rfc3339(snapshot.link.timestamp),
                contents(snapshot),
                bytesize::ByteSize(size.whole),
                bytesize::ByteSize(size.new),
            ));
        }
        if !entry.logs.is_empty() {
            let bytes = bytesize::ByteSize(log_bytes(entry));
            let sealed = entry
                .logs
                .iter()
                .filter(|log| log.head.recipients.is_some());
            let sealed = match sealed.count() {
                0 => String::new(),
                count => format!(", {count} of them encrypted"),
            };
            let pieces = entry.logs.len();
            line(format!("  log        {pieces} pieces{sealed}, {bytes}"));
        }
        let lineage = Lineage::of(catalogue, entry.history).expect("it is in this catalogue");
        for reach in lineage.reaches() {
            let (from, to) = (point(&reach.from), point(&reach.to));
            line(format!("  restorable {from}  to  {to}"));
        }
        for hole in holes(&lineage) {
            line(format!("  HOLE       {hole}"));
        }
        for bad in &entry.unreadable {
            line(format!("  UNREADABLE {}", bad.reason));
        }
    }
    let sizes = catalogue.snapshot_sizes().concat();
    let sum = |of: fn(&Size) -> u64| bytesize::ByteSize(sizes.iter().map(of).sum());
    let (stored, whole) = (sum(|size| size.new), sum(|size| size.whole));
    out.push_str(&format!(
        "\nsnapshots  {stored} stored, which were {whole} if they shared nothing\n"
    ));
    out
}

/// What is known of the state in a snapshot.
fn contents(snapshot: &SnapshotEntry) -> String {
    match (snapshot.state, snapshot.recipients) {
        (Some((_, counts)), _) => format!("{} keys", counts[0]),
        (None, Some(id)) => format!("encrypted to recipients {id}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn remove(place: &Where, policy: Policy, dry_run: bool) -> Outcome {
    let store = open_store(&place.from)?;
    let cluster = choose_cluster(&store, place.cluster)?;
    let catalogue = catalogue::read(&store, cluster).map_err(unreadable)?;
    let mut expiry = expire(&catalogue, policy, catalogue.now_by(now().wall));
    if !dry_run {
        let (nonce, began) = (random::id()?, now().boot);
        let may_go_on = || Duration::from_nanos(now().boot.saturating_sub(began)) < REMOVAL_FOR;
        let gone = archive::remove(&store, &catalogue, &expiry, nonce, &may_go_on);
        expiry = gone.map_err(unreadable)?;
    }
    if place.json {
        println!("{}", expiry_json(&expiry, dry_run));
    } else {
        let verb = if dry_run { "would remove" } else { "removed" };
        for path in expiry.all() {
            println!("{verb} {path}");
        }
        let (snapshots, logs) = (expiry.snapshots.len(), expiry.logs.len());
        let segments = expiry.segments.len();
        println!("{verb} {snapshots} snapshots, {logs} pieces of log, {segments} segments");
    }
    Ok(ExitCode::Done)
}

fn expiry_json(expiry: &Expiry, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "manifests": expiry.manifests,
        "snapshots": expiry.snapshots,
        "logs": expiry.logs,
        "segments": expiry.segments,
    })
}
