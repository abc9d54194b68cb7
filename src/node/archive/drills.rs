//! How the cluster's restore drills went, for people and their monitors.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::node::archiver::{Dated, Drilled, Standing, follows};
use crate::node::engine::Engine;
use crate::node::view::{Alarm, Metric};
use serde_json::{Value, json};
use std::time::Duration;

impl Engine {
    /// How often a drill is wanted; `None`: never.
    pub(super) fn drill_interval(&self) -> Option<Duration> {
        let settings = self.settings.archive.as_ref()?;
        Some(settings.drill_interval).filter(|interval| !interval.is_zero())
    }

    /// The newest drill is older than it may be, as far as is known here: whoever does one looks
    /// into the archive first.
    pub(super) fn is_drill_due(&self) -> bool {
        let Some(interval) = self.drill_interval() else {
            return false;
        };
        let known = &self.archive.known;
        let is_ahead = known
            .drilled
            .as_ref()
            .is_some_and(|d| d.is_ahead_of(self.fair_wall()));
        let age = self.drill_age().filter(|_| !is_ahead);
        let is_due = age.is_none_or(|age| age >= interval.as_secs_f64());
        is_due && known.history == self.replica.history() && known.restorable_ns > 0
    }

    /// Tells of a drill that is new, and of one that could not be done.
    pub(super) fn note_drilled(&mut self, standing: &Standing) {
        if follows(
            &standing.drilled,
            &self.archive.known.drilled,
            self.fair_wall(),
        ) && let Some(drilled) = &standing.drilled
        {
            self.note(format!("archive: {}", drilled.text()));
        }
        if standing.drill_error != self.archive.own.drill_error
            && let Some(error) = &standing.drill_error
        {
            self.note(format!("archive: {error}"));
        }
    }

    fn drill_age(&self) -> Option<f64> {
        let drilled = self.archive.known.drilled.as_ref();
        drilled.map(|d| self.now.wall.saturating_sub(d.at_ns) as f64 / 1e9)
    }

    pub(super) fn drill_alarms(&self) -> Vec<Alarm> {
        let Some(interval) = self.drill_interval() else {
            return Vec::new();
        };
        let mut alarms = Vec::new();
        let known = &self.archive.known;
        let failed = known.drilled.as_ref().filter(|drilled| !drilled.passed);
        alarms.extend(failed.map(|drilled| Alarm {
            name: "drill_failed",
            text: drilled.text(),
        }));
        let patience = interval * 3;
        let is_overdue = match self.drill_age() {
            Some(age) => age > patience.as_secs_f64(),
            None => self
                .archive
                .since
                .is_some_and(|(_, since)| since.after(patience) <= self.time()),
        };
        if is_overdue || known.drill_error.is_some() {
            let text = match &known.drill_error {
                Some(error) => error.clone(),
                None => "no restore drill has come to an end for three drill_intervals".to_string(),
            };
            alarms.push(Alarm {
                name: "drill_overdue",
                text,
            });
        }
        alarms
    }

    pub(super) fn drill_metrics(&self) -> Vec<Metric> {
        if self.drill_interval().is_none() {
            return Vec::new();
        }
        let drilled = self.archive.known.drilled.as_ref();
        let seconds = |ms: Option<u64>| ms.map_or(f64::NAN, |ms| ms as f64 / 1e3);
        let passed = |drilled: &Drilled| f64::from(u8::from(drilled.passed));
        vec![
            Metric {
                name: "drill_age_seconds",
                help: "Time since the last restore drill of the cluster's own; NaN: none is known.",
                value: self.drill_age().unwrap_or(f64::NAN),
            },
            Metric {
                name: "drill_passed",
                help: "1 if that drill passed, 0 if it failed; NaN: none is known.",
                value: drilled.map_or(f64::NAN, passed),
            },
            Metric {
                name: "drill_rto_seconds",
                help: "How long that drill took to its first proved read; NaN: it is not known.",
                value: seconds(drilled.and_then(|drilled| drilled.rto_ms)),
            },
            Metric {
                name: "drill_rpo_seconds",
                help: "How much time of commits that drill's state lacked; NaN: it is not known.",
                value: seconds(drilled.and_then(|drilled| drilled.rpo_ms)),
            },
        ]
    }

    pub(super) fn drill_status(&self) -> Value {
        let known = &self.archive.known;
        json!({
            "age_s": self.drill_age(),
            "passed": known.drilled.as_ref().map(|d| d.passed),
            "rto_ms": known.drilled.as_ref().and_then(|d| d.rto_ms),
            "rpo_ms": known.drilled.as_ref().and_then(|d| d.rpo_ms),
            "reason": known.drilled.as_ref().and_then(|d| d.reason.clone()),
            "error": known.drill_error,
        })
    }
}
