//! `backup verify`: what an archive can restore, proved by reading it, or by its heads.

use super::backup::{Where, choose_cluster, open_store, point, point_json, unreadable};
use super::exit::{ExitCode, Outcome};
use crate::node::shelf::Contents;
use serde_json::{Value, json};
use standfast_snapshot::Identities;
use standfast_snapshot::verify::{HistoryReport, Report, glance, verify};
use std::fmt::Write;

/// How much of an archive is read.
pub(super) enum Depth {
    Heads,
    All(Identities),
}

pub(super) fn prove(place: &Where, depth: &Depth) -> Outcome {
    let store = open_store(&place.from)?;
    let cluster = choose_cluster(&store, place.cluster)?;
    let report = match depth {
        Depth::Heads => glance(&store, cluster),
        Depth::All(identities) => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let contents = Contents::of(cluster);
            verify(&store, cluster, threads, identities, &contents)
        }
    };
    let report = report.map_err(unreadable)?;
    if place.json {
        println!("{}", report_json(&report, depth));
    } else {
        print!("{}", report_text(&report, depth));
    }
    Ok(if report.is_sound() {
        ExitCode::Done
    } else {
        ExitCode::Damaged
    })
}

pub(super) fn report_json(report: &Report, depth: &Depth) -> Value {
    let histories = report.histories.iter().map(|one| {
        let ranges = one.ranges.iter().map(|range| {
            json!({
                "snapshot_lsn": range.snapshot_lsn,
                "from": point_json(&range.from),
                "to": point_json(&range.to),
            })
        });
        let findings = one.findings.iter().map(ToString::to_string);
        json!({
            "history": one.history.to_string(),
            "sound": one.is_sound(),
            "newest": one.newest.as_ref().map(point_json),
            "attested_lsn": one.attested_lsn,
            "restorable": ranges.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": report.cluster.to_string(),
        "cluster_name": report.cluster_name,
        "sound": report.is_sound(),
        "quick": matches!(depth, Depth::Heads),
        "files": report.files,
        "bytes": report.file_bytes,
        "unopened": report.unopened.values().sum::<u64>(),
        "histories": histories.collect::<Vec<_>>(),
    })
}

pub(super) fn report_text(report: &Report, depth: &Depth) -> String {
    let mut out = String::new();
    let bytes = bytesize::ByteSize(report.file_bytes);
    let files = report.files;
    let (did, seen, sound) = match depth {
        Depth::Heads => (
            "looked at",
            "there      ",
            "all is there, and in one chain up to the newest record; without --quick it is proved",
        ),
        Depth::All(_) => (
            "read",
            "proved     ",
            "sound: every restore point reaches the newest record",
        ),
    };
    let (name, cluster) = (&report.cluster_name, report.cluster);
    let _ = writeln!(
        out,
        "cluster {name} ({cluster}): {did} {files} files, {bytes}"
    );
    for one in &report.histories {
        let HistoryReport {
            history,
            newest,
            ranges,
            attested_lsn,
            findings,
        } = one;
        let _ = writeln!(out, "\nhistory {history}");
        if let Some(newest) = newest {
            let _ = writeln!(out, "  newest     {}", point(newest));
        }
        for range in ranges {
            let (from, to) = (point(&range.from), point(&range.to));
            let _ = writeln!(out, "  {seen}{from}  to  {to}");
        }
        let _ = writeln!(out, "  attested   up to LSN {attested_lsn}");
        for finding in findings {
            let _ = writeln!(out, "  FINDING    {finding}");
        }
    }
    for (recipients, objects) in &report.unopened {
        let _ = writeln!(
            out,
            "\n{objects} objects are encrypted to recipients {recipients} and were not opened:\n\
             they are there, and as they were put. --identity FILE proves what is in them."
        );
    }
    let verdict = if report.is_sound() && !report.unopened.is_empty() {
        "sound, as far as can be seen without opening it"
    } else if report.is_sound() {
        sound
    } else {
        "NOT sound: see the findings above"
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}
