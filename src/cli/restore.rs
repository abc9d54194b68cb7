//! `restore`: a ready data directory from a backup, at an exact point in time, proved on the way.

mod directory;
mod rebuild;
#[cfg(test)]
mod tests;

use super::backup::{Keys, choose_cluster, open_store, point, rfc3339};
use super::exit::{ExitCode, Failure, Outcome};
use super::random;
use super::settings::Settings;
use crate::node::meta::{self, RestoredNode};
use crate::replication::config::{Addresses, Member, MemberRole};
use crate::state::Digest;
use directory::Building;
use rebuild::{Progress, Tally, rebuild};
use standfast_snapshot::plan::{Plan, Point, Unmet};
use standfast_snapshot::{Error, Identities, Shared, Target, catalogue, plan};
use standfast_wal::{ClusterId, Disk, History, Incarnation, Link, Lsn, NodeId, Nonce, Storage};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

/// Makes a data directory from a backup, as it was at an exact point.
///
/// The restored node is alone in a new generation of the history: it cannot join or disturb the
/// cluster that the backup is of, and refuses writes until it is activated.
#[derive(clap::Args, Debug)]
pub struct Restore {
    /// The archive: a directory, file:///DIR, s3://BUCKET/PREFIX, gs://… or az://…
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// The data directory to make; it must not hold anything
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// latest, lsn:N (the state right after LSN N), or time:RFC3339 (every command up to then)
    #[arg(long, value_parser = parse_target, default_value = "latest")]
    target: Target,
    /// Which cluster, where the archive has several
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    /// Which history (GENERATION-ID as `backup list` shows it); the newest by default
    #[arg(long, value_name = "HISTORY", value_parser = parse_history)]
    history: Option<History>,
    /// The settings file of the node that will serve the directory: its number and addresses
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The number of that node, where no settings file says it [default: 1]
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    node: Option<u32>,
    /// Let it take writes at once
    #[arg(long)]
    activate: bool,
    /// Threads that load and compress; as many as there are processors by default
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    keys: Keys,
    #[arg(long)]
    json: bool,
}

/// Which data directory to make from what.
pub struct Order {
    pub from: Shared,
    /// Who opens what is encrypted.
    pub identities: Identities,
    pub to: PathBuf,
    pub target: Target,
    pub cluster: Option<ClusterId>,
    pub history: Option<History>,
    /// Who will serve it. Its incarnation is the new directory's.
    pub node: NodeId,
    pub member: Member,
    pub activate: bool,
    pub threads: usize,
    /// Random: the new history's id and the nonce of its first Config.
    pub history_id: u128,
    pub nonce: Nonce,
}

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    pub cluster: ClusterId,
    pub cluster_name: String,
    /// The history that was read.
    pub source: History,
    /// The one that begins here.
    pub history: History,
    pub link: Link,
    pub digest: Digest,
    pub keys: u64,
    pub tally: Tally,
    /// The newest point that the backup is known to hold.
    pub newest: Point,
    pub file_bytes: u64,
    pub quarantined: bool,
}

/// Restores. Nothing is left at the target or beside it unless all of it is whole and durable.
pub fn restore(order: Order, on_progress: &mut dyn FnMut(Progress)) -> Result<Restored, Failure> {
    let cluster = choose_cluster(&order.from, order.cluster)?;
    let listed = catalogue::read(&order.from, cluster)
        .map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))?;
    let plan = plan(&listed, order.history, order.target).map_err(unmet)?;
    check_keys(&plan, &order)?;
    let building = Building::begin(&order.to)?;
    let mut rebuilt = rebuild(&order, cluster, &plan, on_progress)?;
    let generations = listed.histories.iter().map(|e| e.history.generation);
    let history = History {
        generation: generations.max().unwrap_or(0) + 1,
        id: order.history_id,
    };
    let new = RestoredNode {
        cluster,
        cluster_name: listed.cluster_name.clone(),
        node: order.node,
        incarnation: order.member.incarnation,
        history,
        ancestors: ancestors(&plan, rebuilt.link.position.lsn),
        link: rebuilt.link,
        epochs: rebuilt.epochs.clone(),
        nonce: order.nonce,
        quarantined: !order.activate,
    };
    let raw_bytes = rebuilt.state.used_bytes();
    on_progress(Progress::Writing { raw_bytes });
    let file_bytes = building.fill(&mut rebuilt, new, order.member, order.threads)?;
    building.publish()?;
    Ok(Restored {
        cluster,
        cluster_name: listed.cluster_name,
        source: plan.history,
        history,
        link: rebuilt.link,
        digest: rebuilt.state.digest(),
        keys: rebuilt.state.keys(),
        tally: rebuilt.tally,
        newest: plan.newest,
        file_bytes,
        quarantined: !order.activate,
    })
}

/// That nothing is encrypted which no key was given for, before anything is made.
fn check_keys(plan: &Plan, order: &Order) -> Result<(), Failure> {
    let snapshot = plan.snapshot.iter().map(|s| (&s.path, s.recipients));
    let log = plan.steps.iter().map(|s| (&s.path, s.head.recipients));
    let sealed = snapshot.chain(log).find_map(|(path, id)| Some((path, id?)));
    match sealed {
        Some((path, id)) if order.identities.is_empty() => {
            Err(refused(&Error::sealed(&order.from.place(path), id)))
        }
        _ => Ok(()),
    }
}

/// What is wrong with an object, and what to do.
fn refused(error: &Error) -> Failure {
    let text = error.to_string();
    match error.locked_to() {
        None => Failure::new(ExitCode::Damaged, text),
        Some(_) => Failure::new(ExitCode::Failed, text).hint(
            "name the age identity file of one of its recipients with --identity FILE; after a \
             change of keys, one that holds the old ones and the new",
        ),
    }
}

/// What the new history forked from: the one that was read, and its own ancestors, none of them
/// beyond the point restored.
fn ancestors(plan: &Plan, lsn: Lsn) -> Vec<(History, u64)> {
    let older = plan.ancestors.iter().copied();
    let all = older.chain([(plan.history, lsn.0)]);
    all.map(|(history, fork)| (history, fork.min(lsn.0)))
        .collect()
}

fn unmet(unmet: Unmet) -> Failure {
    let (text, hint) = match &unmet {
        Unmet::Nothing => {
            let hint = "`standfast backup list` shows what an archive holds";
            (unmet.to_string(), hint.to_owned())
        }
        Unmet::Ambiguous(_) => (unmet.to_string(), "name one with --history".to_owned()),
        Unmet::Between {
            below,
            above,
            newest,
        } => {
            let newest = point(newest);
            let nearest = [below, above].into_iter().flatten();
            let nearest: Vec<String> = nearest
                .map(|one| format!("`--target lsn:{}` ({})", one.lsn, point(one)))
                .collect();
            (
                format!("the target cannot be met exactly; the newest point known is {newest}"),
                match nearest.len() {
                    0 => "nothing can be restored: `standfast backup verify` says why".to_owned(),
                    _ => format!("what can be restored next to it: {}", nearest.join(", ")),
                },
            )
        }
    };
    Failure::new(ExitCode::NotExact, text).hint(hint)
}

/// `latest`, `lsn:N` or `time:RFC3339`.
fn parse_target(text: &str) -> Result<Target, String> {
    let expected = "expected latest, lsn:N or time:RFC3339 (2026-01-31T12:00:00Z)";
    if text == "latest" {
        return Ok(Target::Latest);
    }
    match text.split_once(':') {
        Some(("lsn", number)) => match number.parse() {
            Ok(lsn) => Ok(Target::Lsn(Lsn(lsn))),
            Err(error) => Err(format!("{error}: {expected}")),
        },
        Some(("time", time)) => {
            let time: jiff::Timestamp = time.parse().map_err(|e| format!("{e}: {expected}"))?;
            let ns = u64::try_from(time.as_nanosecond());
            ns.map(Target::Time)
                .map_err(|_| format!("the time is before 1970: {expected}"))
        }
        _ => Err(expected.to_owned()),
    }
}

/// `GENERATION-ID`, as histories are shown.
fn parse_history(text: &str) -> Result<History, String> {
    let expected = "expected GENERATION-ID as `standfast backup list` shows it";
    let (generation, id) = text.split_once('-').ok_or(expected)?;
    Ok(History {
        generation: generation.parse().map_err(|_| expected)?,
        id: u128::from_str_radix(id, 16).map_err(|_| expected)?,
    })
}

pub fn run(args: &Restore) -> Outcome {
    let incarnation = Incarnation(random::id()?);
    let (node, member) = match &args.config {
        Some(file) => {
            let settings = Settings {
                file: Some(file.clone()),
                flags: Vec::new(),
            };
            let config = settings.load()?.config;
            (config.node, super::create::member_of(&config, incarnation))
        }
        None => (
            NodeId(args.node.unwrap_or(1)),
            Member {
                incarnation,
                role: MemberRole::Data,
                site: String::new(),
                priority: 100,
                addresses: Addresses::default(),
            },
        ),
    };
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let order = Order {
        from: open_store(&args.from)?,
        identities: args.keys.read()?,
        to: args.to.clone(),
        target: args.target,
        cluster: args.cluster,
        history: args.history,
        node,
        member,
        activate: args.activate,
        threads: args.threads.unwrap_or_else(processors).max(1),
        history_id: random::id()?,
        nonce: Nonce(random::id()?),
    };
    let started = Instant::now();
    let shows = std::io::stderr().is_terminal() && !args.json;
    let restored = restore(order, &mut |progress| {
        if shows {
            show_progress(progress, started);
        }
    });
    if shows {
        eprint!("\r\x1b[K");
    }
    let restored = restored?;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        println!("{}", as_json(&restored, &args.to, seconds));
    } else {
        print!("{}", as_text(&restored, &args.to, seconds));
    }
    Ok(ExitCode::Done)
}

/// Ends the quarantine of a restored data directory: its node takes writes from its next start on.
///
/// Do it when you are sure that nobody uses the cluster that the backup is of any more: from then
/// on there are two histories.
#[derive(clap::Args, Debug)]
pub struct Activate {
    /// The restored data directory, of a stopped node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(long)]
    json: bool,
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

fn show_progress(progress: Progress, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let text = match progress {
        Progress::Loading { file_bytes } => {
            format!("loading a snapshot of {}", bytesize::ByteSize(file_bytes))
        }
        Progress::Replaying { piece, pieces } => format!("replaying log {piece} of {pieces}"),
        Progress::Writing { raw_bytes } => {
            format!("writing {} of state", bytesize::ByteSize(raw_bytes))
        }
    };
    eprint!("\r\x1b[K{seconds:6.1} s  {text}");
    // Only a picture: nothing depends on it being shown.
    let _ = std::io::stderr().flush();
}

/// What the backup is known to hold beyond the point restored: commands, and seconds if known.
fn behind(restored: &Restored) -> (u64, Option<f64>) {
    let commands = restored.link.position.lsn.distance_to(restored.newest.lsn);
    let ns = restored
        .newest
        .timestamp
        .map(|newest| newest.saturating_sub(restored.link.timestamp));
    (commands, ns.map(|ns| ns as f64 / 1e9))
}

fn as_json(restored: &Restored, to: &std::path::Path, seconds: f64) -> serde_json::Value {
    let Restored { link, tally, .. } = restored;
    let (behind_commands, behind_seconds) = behind(restored);
    serde_json::json!({
        "dir": to.display().to_string(),
        "cluster": restored.cluster.to_string(),
        "cluster_name": restored.cluster_name,
        "source_history": restored.source.to_string(),
        "history": restored.history.to_string(),
        "generation": restored.history.generation,
        "lsn": link.position.lsn,
        "epoch": link.position.epoch,
        "time": rfc3339(link.timestamp),
        "time_ns": link.timestamp,
        "digest": restored.digest.to_string(),
        "keys": restored.keys,
        "snapshot_lsn": tally.snapshot_lsn,
        "records": tally.records,
        "commands": tally.commands,
        "attestations_checked": tally.attestations,
        "attested_lsn": tally.attested_lsn,
        "newest_lsn": restored.newest.lsn,
        "newest_time_ns": restored.newest.timestamp,
        "behind_newest_commands": behind_commands,
        "behind_newest_seconds": behind_seconds,
        "bytes": tally.raw_bytes,
        "file_bytes": restored.file_bytes,
        "seconds": seconds,
        "bytes_per_second": tally.raw_bytes as f64 / seconds,
        "quarantined": restored.quarantined,
    })
}

fn as_text(restored: &Restored, to: &std::path::Path, seconds: f64) -> String {
    let Restored { link, tally, .. } = restored;
    let (commands, time) = behind(restored);
    let start = match tally.snapshot_lsn {
        Some(lsn) => format!("snapshot at LSN {lsn}"),
        None => "an empty state".to_owned(),
    };
    let proof = match tally.attestations {
        0 if tally.records == 0 => "as the snapshot's writer noted it".to_owned(),
        0 => "no attestation lay on the way".to_owned(),
        n => format!(
            "{n} attestations held, the last for LSN {}",
            tally.attested_lsn
        ),
    };
    let time = time.map_or(String::new(), |seconds| format!(", {seconds:.3} s"));
    let next = if restored.quarantined {
        "writes are refused until it is activated (`standfast activate`)"
    } else {
        "it takes writes at once"
    };
    format!(
        "restored   {dir}\n\
         cluster    {name} ({cluster}), history {source}\n\
         point      LSN {lsn}, {time_at}\n\
         newest     LSN {newest}: {commands} commands{time} behind\n\
         read       {start}, then {records} records, {replayed} commands\n\
         digest     {digest}; {proof}\n\
         took       {seconds:.2} s, {bytes}, {rate}/s\n\
         next       {next}; history {history} begins here\n",
        dir = to.display(),
        name = restored.cluster_name,
        cluster = restored.cluster,
        source = restored.source,
        lsn = link.position.lsn,
        time_at = rfc3339(link.timestamp),
        newest = restored.newest.lsn,
        records = tally.records,
        replayed = tally.commands,
        digest = restored.digest,
        bytes = bytesize::ByteSize(tally.raw_bytes),
        rate = bytesize::ByteSize((tally.raw_bytes as f64 / seconds) as u64),
        history = restored.history,
    )
}
