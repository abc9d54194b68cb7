//! `status`: what the cluster is doing, what would happen if the primary died now.

use super::connect::{Answer, Target};
use super::exit::{ExitCode, Failure, Outcome};
use crate::node::status::{MemberStatus, Role, Status};
use serde_json::Value;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

/// Shows the cluster as its primary sees it, or as the node that answers does.
#[derive(clap::Args, Debug)]
pub struct Show {
    #[command(flatten)]
    target: Target,
    /// Show it again every second until interrupted
    #[arg(long)]
    watch: bool,
    /// Print the node's own JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Show) -> Outcome {
    if !args.watch {
        let answer = best(&args.target)?;
        print(&answer, args.json);
        return Ok(if answer.status.takes_writes() {
            ExitCode::Done
        } else {
            ExitCode::NotServing
        });
    }
    loop {
        let clear = std::io::stdout().is_terminal() && !args.json;
        let shown = best(&args.target);
        if clear {
            print!("\x1b[H\x1b[2J");
        }
        match shown {
            Ok(answer) => print(&answer, args.json),
            Err(failure) if args.json => println!("{}", failure.to_json()),
            Err(failure) => println!("{failure}"),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The primary's view where it can be had: it alone knows who has matched what.
fn best(target: &Target) -> Result<Answer, Failure> {
    let (_, seen) = target.any()?;
    if seen.status.is_primary() {
        return Ok(seen);
    }
    Ok(target.primary().map_or(seen, |(_, answer)| answer))
}

fn print(answer: &Answer, json: bool) {
    if json {
        println!("{}", answer.json);
    } else {
        print!("{}", render(&answer.status, &answer.json["archive"]));
    }
}

/// `member list`.
pub fn list(target: &Target, json: bool) -> Outcome {
    let answer = best(target)?;
    if json {
        println!(
            "{}",
            answer
                .json
                .get("members")
                .unwrap_or(&serde_json::Value::Null)
        );
    } else {
        print!("{}", members(&answer.status));
    }
    Ok(ExitCode::Done)
}

fn render(status: &Status, archive: &Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all text");
    let state = match (status.is_primary(), status.serving) {
        (true, true) => "serving",
        (true, false) => "not serving yet",
        (false, _) => "no answer from a primary",
    };
    line(format!(
        "cluster {}  {state}  (as node {}, {}, sees it)",
        status.cluster_name, status.node, status.role
    ));
    if !status.reason.is_empty() {
        line(format!("  {}", status.reason));
    }
    let primary = status
        .primary
        .map_or("none".to_owned(), |id| format!("node {id}"));
    line(format!(
        "primary {primary}  epoch {}  generation {}  {}",
        status.epoch,
        status.generation,
        promise(status)
    ));
    line(format!(
        "log     written {}  durable {}  committed {}  applied {}",
        status.written, status.durable, status.committed, status.applied
    ));
    if status.suspect {
        line("        the log's end is suspect until it is proved against a primary's".to_owned());
    }
    if let Some(archive) = archive_line(archive) {
        line(format!("archive {archive}"));
    }
    line(String::new());
    out.push_str(&members(status));
    let mut line = |text: String| writeln!(out, "{text}").expect("a String takes all text");
    if !status.forecast.text.is_empty() {
        line(format!(
            "\nif the primary died now: {}",
            status.forecast.text
        ));
    }
    for alarm in &status.alarms {
        line(format!("ALARM   {}", alarm.text));
    }
    out
}

/// How good what lies off-site is; `None`: this cluster has no archive, as far as this node knows.
fn archive_line(archive: &Value) -> Option<String> {
    if archive.is_null() {
        return None;
    }
    let reached = match archive["restorable_age_s"].as_f64() {
        Some(age) => format!("restorable up to {} ago", span(age)),
        None => "nothing is known to be restorable".to_owned(),
    };
    let verified = &archive["verified"];
    let verified = match (verified["age_s"].as_f64(), verified["findings"].as_u64()) {
        (Some(age), Some(0)) => match verified["unopened"].as_u64() {
            None | Some(0) => format!("verified {} ago: sound", span(age)),
            Some(_) => format!("verified {} ago: as it was put, not opened", span(age)),
        },
        (Some(age), Some(findings)) => format!("verified {} ago: {findings} FINDINGS", span(age)),
        _ => "never verified".to_owned(),
    };
    let drill = &archive["drill"];
    let drilled = match (drill["age_s"].as_f64(), drill["passed"].as_bool()) {
        (Some(age), Some(true)) => format!("drilled {} ago: passed", span(age)),
        (Some(age), _) => format!("drilled {} ago: FAILED", span(age)),
        _ if drill.is_null() => "no drills of its own (drill_interval)".to_owned(),
        _ => "never drilled".to_owned(),
    };
    Some(format!("{reached}  {verified}  {drilled}"))
}

/// A time in its largest unit of which there are some.
fn span(seconds: f64) -> String {
    let units = [("days", 86_400.0), ("h", 3600.0), ("min", 60.0)];
    let unit = units.iter().find(|(_, unit)| seconds >= 2.0 * unit);
    match unit {
        Some((name, unit)) => format!("{:.0} {name}", (seconds / unit).floor()),
        None => format!("{seconds:.1} s"),
    }
}

/// What an acknowledgement means now.
fn promise(status: &Status) -> String {
    let name = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let word = |value: serde_json::Value| value.as_str().map(str::to_owned);
    let acks = status.acks.and_then(|acks| word(serde_json::json!(acks)));
    let protection = status
        .protection
        .and_then(|mode| word(serde_json::json!(mode)));
    format!(
        "{}  acks {} ({} {})",
        name(protection),
        name(acks),
        status.acks_needed,
        if status.acks_needed == 1 {
            "disk"
        } else {
            "disks"
        }
    )
}

/// The members as an aligned table.
fn members(status: &Status) -> String {
    let head = [
        "id", "role", "votes", "state", "lag", "site", "client", "peer", "http",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(status.members.iter().map(|member| row(status, member)));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end()).expect("a String takes all text");
    }
    out
}

fn row(status: &Status, member: &MemberStatus) -> [String; 9] {
    // The primary itself stands for what is written.
    let own = (member.id == status.node).then_some(status.written);
    let lag = member
        .matched
        .or(own)
        .map(|matched| status.written.saturating_sub(matched));
    let holds_data = member.role != Role::Witness && status.is_primary();
    let lag = lag
        .filter(|_| holds_data)
        .map_or("-".to_owned(), |lag| match member.lag_ms {
            Some(ms @ 1000..) => format!("{lag} ({} s)", ms / 1000),
            _ => lag.to_string(),
        });
    [
        member.id.to_string(),
        member.role.as_str().to_owned(),
        if member.voter { "yes" } else { "no" }.to_owned(),
        match (member.up, member.joining) {
            (false, _) => "lost",
            (true, true) => "joining",
            (true, false) => "up",
        }
        .to_owned(),
        lag,
        member.site.clone(),
        member.client.clone(),
        member.peer.clone(),
        member.http.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::{Alarm, Forecast};
    use crate::replication::config::{Acks, Protection};
    use standfast_wal::NodeId;

    #[test]
    fn a_status_reads_well() {
        let member = |id: u32, role: Role, matched: Option<u64>| MemberStatus {
            id: NodeId(id),
            role,
            voter: true,
            up: id != 1,
            site: "main".to_owned(),
            client: format!("h:{id}"),
            matched,
            ..MemberStatus::default()
        };
        let status = Status {
            cluster_name: "standfast".to_owned(),
            role: "primary".to_owned(),
            serving: true,
            primary: Some(NodeId(0)),
            epoch: 3,
            generation: 1,
            protection: Some(Protection::MaxAvailability),
            acks: Some(Acks::All),
            acks_needed: 2,
            written: 12,
            members: vec![
                member(0, Role::Primary, None),
                member(1, Role::SyncBackup, Some(10)),
                member(3, Role::Witness, None),
            ],
            forecast: Forecast {
                text: "node 1 takes over, nothing is lost".to_owned(),
            },
            alarms: vec![Alarm {
                text: "node 1 is lost".to_owned(),
                ..Alarm::default()
            }],
            ..Status::default()
        };
        let expected = "\
cluster standfast  serving  (as node 0, primary, sees it)
primary node 0  epoch 3  generation 1  max-availability  acks all (2 disks)
log     written 12  durable 0  committed 0  applied 0

id  role         votes  state  lag  site  client  peer  http
0   primary      yes    up     0    main  h:0
1   sync-backup  yes    lost   2    main  h:1
3   witness      yes    up     -    main  h:3

if the primary died now: node 1 takes over, nothing is lost
ALARM   node 1 is lost
";
        assert_eq!(render(&status, &Value::Null), expected);
        let archive = serde_json::json!({
            "restorable_age_s": 0.84,
            "verified": {"age_s": 7300.0, "findings": 0},
            "drill": {"age_s": 200_000.0, "passed": false},
        });
        let told = render(&status, &archive);
        let line = "\narchive restorable up to 0.8 s ago  verified 2 h ago: sound  \
                    drilled 2 days ago: FAILED\n\nid  role";
        assert!(told.contains(line), "{told}");
    }

    #[test]
    fn what_is_not_known_of_an_archive_is_said() {
        let archive = serde_json::json!({
            "restorable_age_s": null, "verified": null, "drill": null,
        });
        assert_eq!(
            archive_line(&archive).as_deref(),
            Some(
                "nothing is known to be restorable  never verified  \
                 no drills of its own (drill_interval)"
            )
        );
        let archive = serde_json::json!({
            "restorable_age_s": 300.0,
            "verified": {"age_s": 1.0, "findings": 2},
            "drill": {"age_s": null, "passed": null},
        });
        assert_eq!(
            archive_line(&archive).as_deref(),
            Some("restorable up to 5 min ago  verified 1.0 s ago: 2 FINDINGS  never drilled")
        );
    }

    #[test]
    fn a_status_with_missing_and_unknown_fields_is_understood() {
        let status: Status = serde_json::from_str(
            r#"{"node":2,"role":"backup","later":1,"members":[{"id":0,"role":"primary"}]}"#,
        )
        .expect("tolerant");
        assert_eq!((status.node, status.role.as_str()), (NodeId(2), "backup"));
        assert_eq!(
            status.member(NodeId(0)).map(|member| member.role),
            Some(Role::Primary)
        );
        assert!(!status.serving);
    }
}
