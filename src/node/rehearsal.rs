//! A restore drill that this node does by itself: a child process of the same program.
//!
//! Shell only. The child restores the archive beside the cluster, serves it and proves it
//! (`standfast drill restore`), yields to everybody else on the machine, and dies with the node; a
//! process of its own then removes what it has made.

use crate::config::{Config, SETTINGS};
use crate::limits;
use crate::node::archiver::{Dated, Drilled, Rehearsed};
use crate::node::clock::Now;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use standfast_snapshot::{Shared, drills};
use standfast_wal::ClusterId;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// How a drill ends that has found something (`docs/operations.md`).
const DRILL_FAILED: i32 = 13;

/// How this node does its drills.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    config: Config,
}

/// How a child has ended, and what it has said.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Rehearsal {
    /// `None`: this node does none.
    pub fn new(config: &Config) -> Option<Rehearsal> {
        (!config.drill_interval.is_zero()).then(|| Rehearsal {
            config: config.clone(),
        })
    }

    /// What the last drill of the cluster came to: one of now, if the archive has none that is
    /// young enough.
    pub fn run(&self, store: &Shared, cluster: ClusterId, now: Now) -> Result<Rehearsed, String> {
        if !self.config.archive_recipients.is_empty() && self.config.drill_identity.is_none() {
            let text = "no drill can be done: the archive is encrypted, and drill_identity names \
                        no file that opens it";
            return Err(text.to_string());
        }
        let interval = self.config.drill_interval;
        if let Some(last) = newest(store, cluster)?
            && !last.is_ahead_of(now.wall)
            && Duration::from_nanos(now.wall.saturating_sub(last.at_ns)) < interval
        {
            return Ok((last, None));
        }
        let ended = self
            .child(cluster)
            .map_err(|error| format!("the drill: {error}"))?;
        judge(&ended)
    }

    fn child(&self, cluster: ClusterId) -> std::io::Result<Ended> {
        let config = &self.config;
        let dir = config.drill_dir.clone().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&dir)?;
        // Not where others might have put something under its name.
        let settings = config.data_dir.join("drill.toml");
        std::fs::write(&settings, config.to_toml())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                "drill",
                "restore",
                "--exit-with-parent",
                "--to-archive",
                "--json",
            ])
            .args(["--why", "drill_interval", "--by"])
            .arg(format!("node {}", config.node))
            .args(["--cluster", &cluster.to_string(), "--config"])
            .args([&settings, Path::new("--scratch"), &dir]);
        for setting in SETTINGS {
            command.env_remove(setting.variable());
        }
        command.process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = within(command.spawn()?, config.drill_timeout);
        // The next one writes it again.
        let _ = std::fs::remove_file(&settings);
        ended
    }
}

/// Waits until the child has ended; ends it by its own descriptor when its time is over.
fn within(mut child: Child, limit: Duration) -> std::io::Result<Ended> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // A child that nobody has waited for keeps its number.
    let process = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let process = match process.transpose() {
        Ok(process) => process,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error.into());
        }
    };
    // It may have ended already; then it bothers nobody.
    let _ = rustix::process::setpriority_process(pid, limits::BEHIND_NICE);
    let mut output = child.stdout.take();
    let mut errors = child.stderr.take();
    std::thread::scope(|scope| {
        let read = |from: &mut dyn Read| {
            let mut bytes = Vec::new();
            // What was read before an error is what there is.
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let output = scope.spawn(move || output.as_mut().map(|from| read(from)));
        let errors = scope.spawn(move || errors.as_mut().map(|from| read(from)));
        let (sender, ended) = channel();
        scope.spawn(move || {
            // Whoever waits is there until this has come.
            let _ = sender.send(child.wait());
        });
        let waited = ended.recv_timeout(limit);
        let is_late = waited.is_err();
        if is_late && let Some(process) = &process {
            // It may have ended this moment.
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        let status = match waited {
            Ok(status) => status?,
            Err(_) => ended.recv().expect("the thread above sends it")?,
        };
        let text = |thread: std::thread::ScopedJoinHandle<'_, Option<String>>| {
            thread.join().ok().flatten().unwrap_or_default()
        };
        let (output, mut errors) = (text(output), text(errors));
        if is_late {
            errors = format!("it took longer than drill_timeout and was ended\n{errors}");
        }
        Ok(Ended {
            code: status.code(),
            output,
            errors,
        })
    })
}

/// What a drill's report says, or why there is none.
fn judge(ended: &Ended) -> Result<Rehearsed, String> {
    let report: Value = serde_json::from_str(&ended.output).unwrap_or_default();
    let ended_at = report["ended"].as_str().and_then(time);
    let (Some(at_ns), Some(passed)) = (ended_at, report["passed"].as_bool()) else {
        let said: Value = serde_json::from_str(ended.errors.trim()).unwrap_or_default();
        let said = said["error"].as_str().unwrap_or(ended.errors.trim());
        let code = ended
            .code
            .map_or("a signal".to_string(), |code| format!("exit code {code}"));
        return Err(format!("the drill ended with {code} and no report: {said}"));
    };
    let is_kept = matches!(ended.code, Some(0 | DRILL_FAILED));
    let error = format!("the drill's report is not kept: {}", ended.errors.trim());
    let ms = |name: &str| report["measured"][name].as_f64().map(|s| (s * 1e3) as u64);
    let drilled = Drilled {
        at_ns,
        passed,
        rto_ms: ms("rto_seconds"),
        rpo_ms: ms("rpo_seconds"),
        reason: report["reasons"][0].as_str().map(str::to_string),
    };
    Ok((drilled, (!is_kept).then_some(error)))
}

/// The newest restore drill that the archive has a report of, as far as its name tells.
fn newest(store: &Shared, cluster: ClusterId) -> Result<Option<Drilled>, String> {
    let all = drills::list(&**store, cluster).map_err(|error| error.to_string())?;
    let newest = all.iter().rev().find(|one| one.kind == "restore");
    Ok(newest.and_then(|one| {
        Some(Drilled {
            at_ns: time(&one.began)?,
            passed: one.passed,
            rto_ms: None,
            rpo_ms: None,
            reason: None,
        })
    }))
}

/// ns since 1970.
fn time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("there is a shell")
    }

    #[test]
    fn a_child_is_heard_out_and_one_that_takes_too_long_is_ended() {
        // More than a pipe holds.
        let talker = shell("head -c 300000 /dev/zero; echo why >&2; exit 13");
        let said = within(talker, Duration::from_secs(60)).expect("it ends");
        assert_eq!((said.code, said.output.len()), (Some(13), 300_000));
        assert_eq!(said.errors, "why\n");
        let sleeper = shell("echo begun; exec sleep 600");
        let said = within(sleeper, Duration::from_millis(200)).expect("it is ended");
        assert_eq!((said.code, &said.output[..]), (None, "begun\n"));
        assert!(said.errors.contains("drill_timeout"), "{}", said.errors);
    }

    #[test]
    fn a_report_is_understood_and_what_is_none_is_told() {
        let ended = |code, output: &str, errors: &str| Ended {
            code,
            output: output.to_string(),
            errors: errors.to_string(),
        };
        let report = r#"{"ended": "2026-01-31T12:00:02.500Z", "passed": false,
            "measured": {"rto_seconds": 2.017, "rpo_seconds": null}, "reasons": ["slow", "late"]}"#;
        let (judged, error) = judge(&ended(Some(13), report, "")).expect("a report");
        assert_eq!(error, None);
        let (_, error) = judge(&ended(Some(1), report, "no room")).expect("a report");
        assert!(error.is_some_and(|error| error.ends_with("no room")));
        assert_eq!(judged.at_ns, 1_769_860_802_500_000_000);
        assert_eq!(
            (judged.passed, judged.rto_ms, judged.rpo_ms),
            (false, Some(2017), None)
        );
        assert!(judged.text().contains("slow"), "{}", judged.text());
        let error = judge(&ended(
            Some(4),
            "",
            r#"{"error": "nobody", "exit_code": 4}"#,
        ));
        let error = error.expect_err("no report");
        assert!(
            error.contains("exit code 4") && error.ends_with("nobody"),
            "{error}"
        );
        assert!(judge(&ended(None, "{}", "killed")).is_err());
        assert_eq!(time("20260131T120002.500Z"), Some(judged.at_ns));
    }
}
