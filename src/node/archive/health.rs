//! How good the archive is, for people and their monitors: its age, its holes, its last proof.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::node::archiver::{Dated, Expired, Verified, follows};
use crate::node::engine::Engine;
use crate::node::view::{Alarm, Metric};
use crate::replication::Time;
use serde_json::{Value, json};
use standfast_wal::Lsn;

impl Engine {
    /// How old what could be restored off-site is, in seconds; `None`: nothing, or it is not known.
    fn archive_age(&self) -> Option<f64> {
        let known = &self.archive.known;
        let is_ours = known.history == self.replica.history() && known.restorable_ns > 0;
        is_ours.then(|| self.now.wall.saturating_sub(known.restorable_ns) as f64 / 1e9)
    }

    /// The newest proof is older than it may be. After a start nobody may know of one.
    pub(super) fn is_verify_due(&self) -> bool {
        let settings = self.settings.archive.as_ref();
        let Some(interval) = settings.map(|a| a.verify_interval).filter(|i| !i.is_zero()) else {
            return false;
        };
        let known = &self.archive.known;
        let is_ahead = known
            .verified
            .as_ref()
            .is_some_and(|v| v.is_ahead_of(self.fair_wall()));
        let age = self.verified_age().filter(|_| !is_ahead);
        let is_due = age.is_none_or(|age| age >= interval.as_secs_f64());
        is_due && known.history == self.replica.history() && known.restorable_ns > 0
    }

    /// When the newest proof ended, if it found something wrong that a snapshot mends: none
    /// fills a hole behind which another one stands.
    pub(super) fn unsound(&self) -> Option<u64> {
        let verified = self.archive.known.verified.as_ref();
        verified
            .filter(|v| v.findings > 0 && v.wants_snapshot)
            .map(|v| v.at_ns)
    }

    /// Tells of a proof that is new.
    pub(super) fn note_verified(&mut self, verified: &Option<Verified>) {
        let Some(verified) = verified
            .as_ref()
            .filter(|_| follows(verified, &self.archive.known.verified, self.fair_wall()))
        else {
            return;
        };
        self.note(format!("archive: {}", verified.text()));
        if let Some(text) = verified.expired.as_ref().and_then(Expired::text) {
            self.note(format!("archive: {text}"));
        }
    }

    fn verified_age(&self) -> Option<f64> {
        let verified = self.archive.known.verified.as_ref();
        verified.map(|v| self.now.wall.saturating_sub(v.at_ns) as f64 / 1e9)
    }

    pub(in crate::node) fn archive_alarms(&self) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        let Some(settings) = self
            .settings
            .archive
            .as_ref()
            .filter(|_| self.may_archive())
        else {
            return alarms;
        };
        let known = &self.archive.known;
        let limit = limits::ARCHIVE_ALARM_AFTER.max(settings.interval * 10);
        let since = self.archive.since.map_or(self.time(), |(_, at)| at);
        let now = self.time();
        let is_late = match self.archive_age() {
            Some(age) => age > limit.as_secs_f64(),
            None => since.after(limit) <= now && self.replica.commit() > Lsn::ZERO,
        };
        let stands_still = |at: Time| at.max(since).after(limit) <= now;
        if is_late || self.archive.risen.is_some_and(stands_still) {
            let age = match self.archive_age() {
                Some(age) if is_late => {
                    format!("what can be restored off-site is {age:.0} s old")
                }
                Some(_) => format!(
                    "what can be restored off-site has not become newer for {} s",
                    self.archive.risen.map_or(0, |at| now.since(at).as_secs())
                ),
                None => "nothing can be restored off-site".to_string(),
            };
            let why = known
                .error
                .as_deref()
                .unwrap_or("no node reports that it archives");
            let text = format!("{age}: {why}");
            alarms.push(Alarm {
                name: "archive",
                text,
            });
        }
        if let Some((before, behind)) = known.gap {
            let text = format!(
                "the archive has a hole between LSN {before} and {behind}; a snapshot is on its way"
            );
            alarms.push(Alarm {
                name: "archive_gap",
                text,
            });
        }
        let patience = settings.verify_interval.as_secs_f64() * 3.0;
        let unproved_for = match self.verified_age() {
            Some(age) => age,
            None => now.since(since).as_secs_f64(),
        };
        if patience > 0.0 && unproved_for > patience {
            let text = "all of the archive has not been proved for three verify_intervals";
            alarms.push(Alarm {
                name: "archive_unproved",
                text: text.to_string(),
            });
        }
        if let Some(verified) = known.verified.as_ref().filter(|v| v.findings > 0) {
            alarms.push(Alarm {
                name: "archive_unsound",
                text: verified.text(),
            });
        }
        let expired = known.verified.as_ref().and_then(|v| v.expired.as_ref());
        if let Some(text) = expired
            .filter(|e| e.error.is_some())
            .and_then(Expired::text)
        {
            let name = "archive_unexpired";
            alarms.push(Alarm { name, text });
        }
        alarms.extend(self.drill_alarms());
        if self.archive_holds_writes() {
            let text = "the archive is required and too far behind: writes are refused".to_string();
            alarms.push(Alarm {
                name: "archive_required",
                text,
            });
        }
        alarms
    }

    pub(in crate::node) fn archive_metrics(&self) -> Vec<Metric> {
        if !self.may_archive() {
            return Vec::new();
        }
        let lag = self.archived().unwrap_or_default();
        let lag = lag.distance_to(self.replica.commit().max(lag));
        let (known, own) = (&self.archive.known, &self.archive.own);
        let mut metrics = vec![
            Metric {
                name: "offsite_restorable_age_seconds",
                help: "Age of the newest state read back from the archive; NaN: there is none.",
                value: self.archive_age().unwrap_or(f64::NAN),
            },
            Metric {
                name: "archive_lag_lsns",
                help: "Committed commands that the archive lacks.",
                value: lag as f64,
            },
            Metric {
                name: "archive_lsn",
                help: "LSN up to which the archive has the log.",
                value: known.through.0 as f64,
            },
            Metric {
                name: "archive_verified_age_seconds",
                help: "Time since all of the archive was last read and proved; NaN: never.",
                value: self.verified_age().unwrap_or(f64::NAN),
            },
            Metric {
                name: "archive_findings",
                help: "What the last proof of the archive found wrong; NaN: there was none.",
                value: known
                    .verified
                    .as_ref()
                    .map_or(f64::NAN, |v| v.findings as f64),
            },
            Metric {
                name: "archive_on_duty",
                help: "1 where this node archives.",
                value: f64::from(u8::from(self.is_on_duty())),
            },
            Metric {
                name: "archive_stored_bytes_total",
                help: "Bytes that this node has put into the archive.",
                value: own.stored_bytes as f64,
            },
            Metric {
                name: "archive_snapshot_bytes",
                help: "The last snapshot that this node has put, with all it refers to; NaN: none.",
                value: own.sent.map_or(f64::NAN, |sent| sent.whole as f64),
            },
            Metric {
                name: "archive_snapshot_new_bytes",
                help: "What had to be put of it: the rest was in the archive already; NaN: none.",
                value: own.sent.map_or(f64::NAN, |sent| sent.put as f64),
            },
            Metric {
                name: "archive_removed_total",
                help: "Objects that this node has removed from the archive by archive_keep_for.",
                value: own.removed as f64,
            },
            Metric {
                name: "archive_failures_total",
                help: "Rounds of this node's archiver that failed.",
                value: own.failures as f64,
            },
        ];
        metrics.extend(self.drill_metrics());
        metrics
    }

    pub(in crate::node) fn archive_status(&self) -> Value {
        if !self.may_archive() {
            return Value::Null;
        }
        let known = &self.archive.known;
        json!({
            "archiver": self.archive.duty.map(|(id, _)| id.0),
            "through": known.through.0,
            "restorable_ns": (known.restorable_ns > 0).then_some(known.restorable_ns),
            "restorable_age_s": self.archive_age(),
            "gap": known.gap.map(|(before, behind)| [before.0, behind.0]),
            "error": known.error,
            "snapshot": known.sent.map(|sent| json!({"bytes": sent.whole, "new_bytes": sent.put})),
            "drill": self.drill_interval().map(|_| self.drill_status()),
            "verified": known.verified.as_ref().map(|v| json!({
                "age_s": self.verified_age(),
                "objects": v.objects,
                "bytes": v.bytes,
                "findings": v.findings,
                "first_finding": v.first,
                "unopened": v.unopened,
                "expired": v.expired.as_ref().map(|e| json!({
                    "snapshots": e.snapshots,
                    "log_pieces": e.logs,
                    "segments": e.segments,
                    "error": e.error,
                })),
            })),
        })
    }
}
