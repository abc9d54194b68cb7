//! `drill restore`: the newest backup restored, served and proved, beside the cluster.
//!
//! Nothing of the cluster is touched: its backup is read, its nodes are asked for their status and
//! whether they have seen the restored point. The node of the drill is quarantined, listens on the
//! loopback only, and dies with the drill.

use super::prove;
use super::report::{Drill, Report, seconds};
use super::rules::{RuleFlags, Rules};
use super::scratch::{Ports, Scratch, Serving, settings};
use crate::cli::backup::{Keys, choose_cluster, open_store};
use crate::cli::connect::{Answer, Node, Target as Nodes};
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::cli::operate::Reason;
use crate::cli::random;
use crate::cli::restore::{Order, Restored, Source, restore};
use crate::cli::serve::die_with_parent;
use crate::config::{Config, HostPort};
use crate::replication::config::{Addresses, Member, MemberRole};
use standfast_snapshot::drills::{self, Drilled};
use standfast_snapshot::{Identities, Recipients, Shared, Target};
use standfast_wal::{ClusterId, Incarnation, NodeId, Nonce};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The number of the drill's node in its own cluster of one.
pub const NODE: NodeId = NodeId(1);

/// Restores the newest backup beside the cluster, serves it, proves it, and writes a report.
///
/// Changes nothing of the cluster and nothing of the backup. Where the primary can be reached, the
/// report says how far the backup is behind it.
#[derive(clap::Args, Debug)]
pub struct Restore {
    /// The archive: a directory or a URL; with --config the setting `archive` by default, or
    /// `backup_dir` where that is empty
    #[arg(long, value_name = "PLACE", required_unless_present = "config")]
    from: Option<String>,
    /// Which cluster, where the archive has several
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    nodes: Nodes,
    /// Where the scratch directory is made; the system's directory for such by default
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// How long the restored node may take until it serves
    #[arg(long, value_name = "DURATION", default_value = "10m",
          value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Keep the report in the archive as well, encrypted as that is, for `drill report --from`
    #[arg(long)]
    to_archive: bool,
    /// End when the process that started this one does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    rules: RuleFlags,
}

pub fn run(args: &Restore) -> Outcome {
    if args.exit_with_parent {
        die_with_parent()?;
    }
    let (rules, config) = args.rules.resolve(args.nodes.config.as_ref())?;
    let from = open_store(&args.from.clone().unwrap_or_else(|| archive_of(&config)))?;
    let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let (scratch, removed) = Scratch::make(&parent)?;
    let report = drill(args, &rules, &config, &from, &scratch, &removed)?;
    let report = clean_up(report, scratch);
    rules.conclude(&report, |text| match args.to_archive {
        false => Ok(()),
        true => keep_in(&from, args.cluster, &config, &report, text),
    })
}

/// Puts the report beside what it is of.
fn keep_in(
    archive: &Shared,
    cluster: Option<ClusterId>,
    config: &Config,
    report: &Report,
    text: &str,
) -> Result<(), Failure> {
    let cluster = choose_cluster(archive, cluster)?;
    let drilled = Drilled {
        began: report.compact_time(),
        n: 0,
        kind: report.kind.clone(),
        passed: report.passed,
        recipients: None,
    };
    // A report has no parts.
    let recipients = Recipients::new(&config.archive_recipients, 0);
    let put = drills::put(&**archive, cluster, &drilled, text, &recipients);
    let lost = |error: standfast_snapshot::Error| {
        let text = format!("the report was not put into the archive: {error}");
        Failure::new(ExitCode::Failed, text)
    };
    put.map(drop).map_err(lost)
}

fn archive_of(config: &Config) -> String {
    match &config.archive {
        Some(place) => place.as_str().to_owned(),
        None => config.backup_dir().display().to_string(),
    }
}

fn drill(
    args: &Restore,
    rules: &Rules,
    config: &Config,
    from: &Shared,
    scratch: &Scratch,
    removed: &[PathBuf],
) -> Result<Drill, Failure> {
    let what = format!("restore of the newest backup in {}", from.place(""));
    let mut drill = Drill::begin("restore", what, rules, &args.reason)?;
    for path in removed {
        drill.fact("removed of a dead drill", path.display());
    }
    let primary = ask_primary(&mut drill, &args.nodes);
    let began = Instant::now();
    let ports = Ports::find()?;
    let addresses = ports.addresses()?;
    let identities = args.keys.read_or(config.drill_identity.as_ref())?;
    let order = order(args, from, identities, scratch, &addresses)?;
    let restored = drill.step("restore", || {
        let restored = restore(order, &mut |_| {}).map_err(|failure| failure.in_short())?;
        let detail = describe(&restored);
        Ok((restored, detail))
    });
    let Some(restored) = restored else {
        return Ok(drill);
    };
    facts(&mut drill, &restored);
    drill.step("the newest way", || match &restored.passed_over[..] {
        [] => Ok(((), "nothing on it is damaged or gone".to_owned())),
        reasons => Err(format!(
            "an older snapshot or other log led there, for: {}",
            reasons.join("; ")
        )),
    });
    let primary = primary.filter(|primary| same_cluster(&mut drill, primary, &restored));
    measure_loss(&mut drill, &restored, primary.as_ref());
    let data_dir = scratch.path.join("data");
    let config = settings(config, &restored.cluster_name, data_dir, addresses);
    let lsn = restored.link.position.lsn.0;
    let open = drill.open("start");
    let started = Serving::start(&scratch.path, &config, ports);
    let serving = started.map_err(|failure| failure.in_short());
    let serving = serving.and_then(|mut serving| {
        let seen = serving.wait_until_it_serves(lsn, args.timeout)?;
        let text = format!("{} serves, pid {}", serving.client, seen.json["pid"]);
        Ok((serving, text))
    });
    let Some(serving) = drill.close(open, serving) else {
        return Ok(drill);
    };
    prove::copy(&mut drill, &restored, &serving.client, began);
    prove::against_cluster(&mut drill, &restored, primary);
    drill.step("stop", || Ok(((), serving.stop()?)));
    Ok(drill)
}

/// Removes the scratch directory as the drill's last step.
fn clean_up(mut drill: Drill, scratch: Scratch) -> Report {
    let path = scratch.path.display().to_string();
    drill.step("clean up", || {
        scratch.remove()?;
        Ok(((), format!("{path} is gone")))
    });
    drill.end()
}

fn order(
    args: &Restore,
    from: &Shared,
    identities: Identities,
    scratch: &Scratch,
    addresses: &[HostPort; 3],
) -> Result<Order, Failure> {
    let [client, peer, http] = addresses.each_ref().map(HostPort::to_string);
    Ok(Order {
        source: Source {
            from: Arc::clone(from),
            identities,
            target: Target::Latest.into(),
            cluster: args.cluster,
            history: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            segment_shift: crate::state::SEGMENT_SHIFT,
        },
        to: scratch.path.join("data"),
        node: NODE,
        member: Member {
            incarnation: Incarnation(random::id()?),
            role: MemberRole::Data,
            site: "drill".to_owned(),
            priority: 100,
            addresses: Addresses { client, peer, http },
        },
        activate: false,
        // What it fetches lies in the scratch directory, and is mapped from there.
        resumable: true,
        history_id: random::id()?,
        nonce: Nonce(random::id()?),
    })
}

/// The primary as it was when the drill began, and a connection to it.
pub struct Primary {
    pub node: Node,
    pub answer: Answer,
}

fn ask_primary(drill: &mut Drill, nodes: &Nodes) -> Option<Primary> {
    match nodes.primary() {
        Ok((node, answer)) => Some(Primary { node, answer }),
        Err(failure) => {
            let why = failure.message;
            drill.unchecked(format!("the running cluster: no primary answered ({why})"));
            None
        }
    }
}

fn same_cluster(drill: &mut Drill, primary: &Primary, restored: &Restored) -> bool {
    let status = &primary.answer.status;
    let same = status.cluster == restored.cluster.to_string();
    if same {
        let own = [(status.node.0, status.version.clone())];
        drill.of_cluster(status, &own);
    } else {
        let (name, address) = (&status.cluster_name, &primary.node.address);
        drill.unchecked(format!(
            "the running cluster: {address} is of another one, {name} ({})",
            status.cluster
        ));
    }
    same
}

fn describe(restored: &Restored) -> String {
    let tally = &restored.tally;
    let from = match tally.snapshot_lsn {
        Some(lsn) => format!("snapshot at LSN {lsn}"),
        None => "no snapshot".to_owned(),
    };
    format!(
        "{from}, then {} commands; {} attestations held, {} of state and log read",
        tally.commands,
        tally.attestations,
        bytesize::ByteSize(tally.raw_bytes)
    )
}

fn facts(drill: &mut Drill, restored: &Restored) {
    let position = restored.link.position;
    let at = crate::cli::backup::rfc3339(restored.link.timestamp);
    drill.report.cluster = restored.cluster.to_string();
    drill.report.cluster_name.clone_from(&restored.cluster_name);
    drill.fact("restored point", format!("LSN {}, {at}", position.lsn));
    drill.fact("history", restored.source);
    drill.fact("digest there", restored.digest);
    drill.fact("keys", restored.keys);
    let attested = restored.tally.attested_lsn;
    drill.fact("attested by the cluster up to", format!("LSN {attested}"));
    let behind = restored.newest.lsn.0.saturating_sub(position.lsn.0);
    if behind > 0 {
        drill.unchecked(format!(
            "{behind} commands that the backup has behind the point"
        ));
    }
    let unattested = position.lsn.0.saturating_sub(attested.0);
    if restored.tally.attestations == 0 && restored.tally.records > 0 {
        drill.unchecked("the digest against the log: no attestation lay on the way");
    } else if restored.tally.attestations > 0 && unattested > 0 {
        drill.unchecked(format!(
            "the last {unattested} commands against an attestation: the chain proves them, no \
             digest of the primary does"
        ));
    }
}

/// What the restored point lacks of what the cluster had committed when the drill began.
fn measure_loss(drill: &mut Drill, restored: &Restored, primary: Option<&Primary>) {
    let point = restored.link;
    let measured = &mut drill.report.measured;
    let Some(primary) = primary else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let age = now
            .unwrap_or_default()
            .saturating_sub(Duration::from_nanos(point.timestamp));
        measured.rpo_seconds = Some(seconds(age));
        drill.unchecked(
            "RPO against the cluster's newest commit: it is the age of the restored point by this \
             machine's clock, the most that can be missing",
        );
        return;
    };
    let (status, json) = (&primary.answer.status, &primary.answer.json);
    let commands = status.applied.saturating_sub(point.position.lsn.0);
    let newest = json["log_time_ns"].as_u64().unwrap_or(0);
    let age = Duration::from_nanos(newest.saturating_sub(point.timestamp));
    measured.rpo_commands = Some(commands);
    measured.rpo_seconds = Some(if commands == 0 { 0.0 } else { seconds(age) });
    drill.fact(
        "the cluster's newest commit",
        format!("LSN {}", status.applied),
    );
}
