//! What a drill has found: one struct, filled step by step, judged against the targets.

use super::rules::Rules;
use crate::cli::exit::Failure;
use crate::cli::operate::Reason;
use crate::node::status::Status;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant, SystemTime};

/// The shape of the report; a reader refuses another.
pub const FORMAT: u32 = 1;

/// A drill as it is kept: everything that an auditor may ask for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub kind: String,
    /// What was done to what, as a sentence.
    pub what: String,
    pub cluster: String,
    pub cluster_name: String,
    /// The version of the program that drilled.
    pub program: String,
    pub nodes: Vec<NodeVersion>,
    pub who: String,
    pub why: String,
    /// RFC 3339, as `ended`.
    pub started: String,
    pub ended: String,
    pub steps: Vec<Step>,
    pub targets: Targets,
    pub measured: Measured,
    /// What else was seen, by name, in the order in which it was.
    pub facts: Vec<(String, String)>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    pub passed: bool,
    /// Why it has not passed.
    pub reasons: Vec<String>,
}

/// A node of the cluster, as it was when the drill began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeVersion {
    pub node: u32,
    pub client: String,
    pub role: String,
    /// Empty for a node that did not answer.
    pub version: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// Since the drill began.
    pub start_seconds: f64,
    pub seconds: f64,
    pub ok: bool,
    pub detail: String,
}

/// What was promised; `None` is no target.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Targets {
    pub rto_seconds: Option<f64>,
    pub rpo_seconds: Option<f64>,
}

/// What was found; `None` could not be measured.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub rto_seconds: Option<f64>,
    pub rpo_seconds: Option<f64>,
    pub rpo_commands: Option<u64>,
    /// Acknowledged writes that are not there.
    pub lost: Option<u64>,
    /// Writes that were done more than once.
    pub doubled: Option<u64>,
    pub digests_equal: Option<bool>,
}

/// Seconds to the millisecond: short numbers are read back as they were written.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Now, for people and machines.
pub fn now() -> String {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    format!("{now:.3}")
}

/// A drill while it runs.
pub struct Drill {
    pub report: Report,
    began: Instant,
    /// Whether each step is told as it ends.
    tells: bool,
}

/// A step that has begun.
pub struct Open {
    name: &'static str,
    at: Instant,
}

impl Drill {
    pub fn begin(
        kind: &str,
        what: String,
        rules: &Rules,
        reason: &Reason,
    ) -> Result<Drill, Failure> {
        let [_, who, _, why] = reason.words()?;
        let target = |target: Duration| (!target.is_zero()).then(|| seconds(target));
        let report = Report {
            format: FORMAT,
            kind: kind.to_owned(),
            what,
            cluster: String::new(),
            cluster_name: String::new(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: Vec::new(),
            who,
            why,
            started: now(),
            ended: String::new(),
            steps: Vec::new(),
            targets: Targets {
                rto_seconds: target(rules.rto_target),
                rpo_seconds: target(rules.rpo_target),
            },
            measured: Measured::default(),
            facts: Vec::new(),
            unchecked: Vec::new(),
            passed: false,
            reasons: Vec::new(),
        };
        Ok(Drill {
            report,
            began: Instant::now(),
            tells: !rules.json,
        })
    }

    pub fn open(&self, name: &'static str) -> Open {
        Open {
            name,
            at: Instant::now(),
        }
    }

    /// Ends a step with its value and what to say of it; a failed one fails the drill.
    pub fn close<T>(&mut self, open: Open, result: Result<(T, String), String>) -> Option<T> {
        let Open { name, at } = open;
        let (value, detail) = match result {
            Ok((value, detail)) => (Some(value), detail),
            Err(reason) => {
                self.report.reasons.push(format!("{name}: {reason}"));
                (None, reason)
            }
        };
        let step = Step {
            name: name.to_owned(),
            start_seconds: seconds(at.duration_since(self.began)),
            seconds: seconds(at.elapsed()),
            ok: value.is_some(),
            detail,
        };
        if self.tells {
            let word = if step.ok { "ok    " } else { "FAILED" };
            eprintln!(
                "{:8.3} s  {word}  {name}: {}",
                step.start_seconds, step.detail
            );
        }
        self.report.steps.push(step);
        value
    }

    pub fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(T, String), String>,
    ) -> Option<T> {
        let open = self.open(name);
        let result = work();
        self.close(open, result)
    }

    pub fn fact(&mut self, name: &str, value: impl ToString) {
        self.report.facts.push((name.to_owned(), value.to_string()));
    }

    pub fn unchecked(&mut self, text: impl Into<String>) {
        self.report.unchecked.push(text.into());
    }

    /// Which cluster it is about, and which versions run there.
    pub fn of_cluster(&mut self, status: &Status, versions: &[(u32, String)]) {
        self.report.cluster.clone_from(&status.cluster);
        self.report.cluster_name.clone_from(&status.cluster_name);
        let version = |node: u32| versions.iter().find(|(id, _)| *id == node);
        let nodes = status.members.iter().map(|member| NodeVersion {
            node: member.id.0,
            client: member.client.clone(),
            role: member.role.as_str().to_owned(),
            version: version(member.id.0).map_or(String::new(), |(_, text)| text.clone()),
        });
        self.report.nodes = nodes.collect();
    }

    /// Ends the drill: holds what was measured against what was promised.
    pub fn end(mut self) -> Report {
        self.report.ended = now();
        self.report.judge();
        self.report
    }
}

impl Report {
    /// When it began, as names have it: `20260131T120000.000Z`.
    pub fn compact_time(&self) -> String {
        let all = self.started.chars();
        all.filter(|c| !"-:".contains(*c)).collect()
    }

    fn judge(&mut self) {
        let Measured {
            rto_seconds,
            rpo_seconds,
            lost,
            doubled,
            digests_equal,
            ..
        } = self.measured;
        let mut reasons = Vec::new();
        for (name, target, measured) in [
            ("RTO", self.targets.rto_seconds, rto_seconds),
            ("RPO", self.targets.rpo_seconds, rpo_seconds),
        ] {
            match (target, measured) {
                (Some(target), Some(measured)) if measured > target => {
                    let text = format!("{name} was {measured:.3} s, the target is {target:.3} s");
                    reasons.push(text);
                }
                // What nobody has measured has not kept a promise.
                (Some(target), None) => {
                    let text = format!("{name} was not measured, the target is {target:.3} s");
                    reasons.push(text);
                }
                _ => {}
            }
        }
        for (name, count) in [("lost", lost), ("doubled", doubled)] {
            if let Some(count) = count.filter(|count| *count > 0) {
                reasons.push(format!("{count} writes were {name}"));
            }
        }
        if digests_equal == Some(false) {
            reasons.push("digests differ".to_owned());
        }
        self.reasons.extend(reasons);
        self.passed = self.reasons.is_empty();
    }

    /// For people, on a terminal.
    pub fn as_text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<10} {value}\n"));
        line("drill", &self.what);
        for (name, value) in self.figures() {
            line(&name, &value);
        }
        for text in &self.unchecked {
            line("unchecked", text);
        }
        for text in &self.reasons {
            line("because", text);
        }
        line("verdict", self.verdict());
        out
    }

    pub fn verdict(&self) -> &'static str {
        if self.passed { "passed" } else { "FAILED" }
    }

    /// The measured figures as name and text, with the targets beside them.
    pub fn figures(&self) -> Vec<(String, String)> {
        let Measured {
            rto_seconds,
            rpo_seconds,
            rpo_commands,
            lost,
            doubled,
            digests_equal,
        } = self.measured;
        let span = |measured: Option<f64>, target: Option<f64>| {
            let measured = measured.map_or("not measured".to_owned(), |s| format!("{s:.3} s"));
            match target {
                Some(target) => format!("{measured} (target {target:.3} s)"),
                None => measured,
            }
        };
        let count = |count: Option<u64>| count.map_or("not measured".to_owned(), |n| n.to_string());
        let mut rpo = span(rpo_seconds, self.targets.rpo_seconds);
        if let Some(commands) = rpo_commands {
            rpo.push_str(&format!(", {commands} commands"));
        }
        let digests = match digests_equal {
            Some(true) => "equal",
            Some(false) => "DIFFER",
            None => "not compared",
        };
        [
            ("RTO", span(rto_seconds, self.targets.rto_seconds)),
            ("RPO", rpo),
            ("lost", count(lost)),
            ("doubled", count(doubled)),
            ("digests", digests.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A drill that went well, with awkward characters.
    pub fn sample() -> Report {
        let step = |name: &str, start_seconds, seconds| Step {
            name: name.to_owned(),
            start_seconds,
            seconds,
            ok: true,
            detail: "1 < 2 & \"so\" on".to_owned(),
        };
        Report {
            format: FORMAT,
            kind: "restore".to_owned(),
            what: "restore of <b>".to_owned(),
            cluster: "c1".to_owned(),
            cluster_name: "standfast".to_owned(),
            program: "0.1.0".to_owned(),
            nodes: vec![NodeVersion {
                node: 1,
                client: "h:1".to_owned(),
                role: "primary".to_owned(),
                version: "0.1.0".to_owned(),
            }],
            who: "me".to_owned(),
            why: String::new(),
            started: "2026-01-31T12:00:00.000Z".to_owned(),
            ended: "2026-01-31T12:00:02.500Z".to_owned(),
            steps: vec![step("restore", 0.1, 1.2), step("start", 1.3, 0.7)],
            targets: Targets {
                rto_seconds: Some(30.0),
                rpo_seconds: None,
            },
            measured: Measured {
                rto_seconds: Some(2.017),
                rpo_seconds: Some(0.0),
                rpo_commands: Some(0),
                lost: Some(0),
                doubled: None,
                digests_equal: Some(true),
            },
            facts: vec![("point".to_owned(), "LSN 7".to_owned())],
            unchecked: vec!["the moon".to_owned()],
            passed: true,
            reasons: Vec::new(),
        }
    }

    #[test]
    fn a_drill_passes_only_if_every_promise_was_kept() {
        let judged = |change: &dyn Fn(&mut Report)| {
            let mut report = sample();
            change(&mut report);
            report.judge();
            assert_eq!(report.passed, report.reasons.is_empty());
            report.reasons.join("; ")
        };
        assert_eq!(judged(&|_| {}), "");
        type Change<'a> = &'a dyn Fn(&mut Report);
        let table: [(Change<'_>, &str); 6] = [
            (&|r| r.measured.rto_seconds = Some(30.001), "RTO was 30.001"),
            (&|r| r.measured.rto_seconds = None, "RTO was not measured"),
            (&|r| r.targets.rpo_seconds = Some(0.0), ""),
            (&|r| r.measured.lost = Some(1), "1 writes were lost"),
            (&|r| r.measured.doubled = Some(2), "2 writes were doubled"),
            (
                &|r| r.measured.digests_equal = Some(false),
                "digests differ",
            ),
        ];
        for (change, expected) in table {
            let reasons = judged(change);
            assert!(reasons.contains(expected), "{reasons}");
            assert_eq!(reasons.is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn a_step_that_fails_fails_the_drill_and_says_why() {
        let mut drill = Drill {
            report: sample(),
            began: Instant::now(),
            tells: false,
        };
        assert_eq!(drill.step("one", || Ok((7, "fine".to_owned()))), Some(7));
        let failed: Option<()> = drill.step("two", || Err("no".to_owned()));
        assert_eq!(failed, None);
        let report = drill.end();
        assert!(!report.passed);
        assert_eq!(report.reasons, ["two: no"]);
        assert!(
            report
                .as_text()
                .contains("because    two: no\nverdict    FAILED")
        );
    }
}
