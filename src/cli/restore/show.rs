//! What a restore prints: how far it is, and what it did.

use super::Restored;
use super::rebuild::Progress;
use crate::cli::backup::rfc3339;
use bytesize::ByteSize;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// A line that tells how far it is, where somebody looks.
pub struct Line {
    is_shown: bool,
    began: Instant,
    replay_began: Instant,
}

impl Line {
    pub fn new(is_shown: bool) -> Line {
        Line {
            is_shown,
            began: Instant::now(),
            replay_began: Instant::now(),
        }
    }

    pub fn show(&mut self, progress: Progress) {
        if !self.is_shown {
            return;
        }
        let text = match progress {
            Progress::Loading { file_bytes } => {
                format!("loading a snapshot of {}", ByteSize(file_bytes))
            }
            Progress::Replaying {
                done_bytes,
                all_bytes,
            } => {
                if done_bytes == 0 {
                    self.replay_began = Instant::now();
                }
                let seconds = self.replay_began.elapsed().as_secs_f64();
                replaying(done_bytes, all_bytes, seconds)
            }
            Progress::Writing { raw_bytes } => {
                format!("writing {} of state", ByteSize(raw_bytes))
            }
        };
        let seconds = self.began.elapsed().as_secs_f64();
        eprint!("\r\x1b[K{seconds:6.1} s  {text}");
        // Only a picture: nothing depends on it being shown.
        let _ = std::io::stderr().flush();
    }

    /// Takes the line away; answers the seconds since it began.
    pub fn end(self) -> f64 {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
        self.began.elapsed().as_secs_f64()
    }
}

fn replaying(done: u64, all: u64, seconds: f64) -> String {
    let of = format!("replaying {} of {} of log", ByteSize(done), ByteSize(all));
    if done == 0 || seconds <= 0.0 {
        return of;
    }
    let rate = done as f64 / seconds;
    let left = all.saturating_sub(done) as f64 / rate;
    format!("{of}, {}/s, {left:.0} s left", ByteSize(rate as u64))
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

pub fn as_json(restored: &Restored, to: &Path, seconds: f64) -> serde_json::Value {
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
        "before": restored.before.map(|created| created.as_json()),
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
        "passed_over": restored.passed_over,
        "bytes": tally.raw_bytes,
        "file_bytes": restored.file_bytes,
        "kept_objects": restored.spared.objects,
        "kept_bytes": restored.spared.bytes,
        "seconds": seconds,
        "bytes_per_second": tally.raw_bytes as f64 / seconds,
        "quarantined": restored.quarantined,
    })
}

/// What another way was found for, a line each.
pub fn passed_over(reasons: &[String]) -> String {
    let lines = reasons
        .iter()
        .map(|reason| format!("DAMAGED    {reason}\n"));
    lines.collect()
}

pub fn as_text(restored: &Restored, to: &Path, seconds: f64) -> String {
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
    let damaged = passed_over(&restored.passed_over);
    let before = restored
        .before
        .map_or(String::new(), |created| format!(": right before {created}"));
    let kept = match restored.spared.objects {
        0 => String::new(),
        objects => format!(
            "\nkept       {objects} objects, {}, that an interrupted attempt had fetched",
            ByteSize(restored.spared.bytes)
        ),
    };
    let next = if restored.quarantined {
        "writes are refused until it is activated (`standfast activate`)"
    } else {
        "it takes writes at once"
    };
    format!(
        "restored   {dir}\n\
         cluster    {name} ({cluster}), history {source}\n\
         point      LSN {lsn}, {time_at}{before}\n\
         newest     LSN {newest}: {commands} commands{time} behind\n\
         read       {start}, then {records} records, {replayed} commands\n\
         digest     {digest}; {proof}\n\
         took       {seconds:.2} s, {bytes}, {rate}/s{kept}\n\
         {damaged}next       {next}; history {history} begins here\n",
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
        bytes = ByteSize(tally.raw_bytes),
        rate = ByteSize((tally.raw_bytes as f64 / seconds) as u64),
        history = restored.history,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_what_is_done() {
        assert_eq!(
            replaying(0, 4 << 20, 0.0),
            "replaying 0 B of 4.0 MiB of log"
        );
        let text = "replaying 1.0 MiB of 4.0 MiB of log, 512.0 KiB/s, 6 s left";
        assert_eq!(replaying(1 << 20, 4 << 20, 2.0), text);
    }
}
