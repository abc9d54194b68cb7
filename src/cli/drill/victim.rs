//! The process that a fault is for: found by the pid that its node names, and proved to be it.

use super::guard::{Restart, raw};
use crate::cli::connect::Answer;
use crate::node::meta;
use rustix::fd::OwnedFd;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::path::{Path, PathBuf};

/// The process of a node on this machine.
#[derive(Debug)]
pub struct Victim {
    pub pid: u32,
    /// The process itself: its number may be another's when the fault is done.
    process: OwnedFd,
    pub data_dir: PathBuf,
    /// What starts it again.
    pub again: Restart,
}

impl Victim {
    /// The node that answered: its process holds the lock of a data directory with the incarnation
    /// that the node gave, which is random and nobody else's.
    pub fn of(answer: &Answer) -> Result<Victim, String> {
        let node = answer.status.node;
        let pid = answer.json["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| format!("node {node} does not tell its pid"))?;
        let elsewhere = |error: &dyn std::fmt::Display| {
            format!("process {pid} of node {node} is not on this machine, or not ours: {error}")
        };
        // Opened before it is looked at: what is proved is proved of this one.
        let process = raw(pid).ok_or_else(|| elsewhere(&"that is no pid"))?;
        let process = pidfd_open(process, PidfdFlags::empty()).map_err(|e| elsewhere(&e))?;
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let words = words(&proc.join("cmdline")).map_err(|error| elsewhere(&error))?;
        if words.get(1).map(String::as_str) != Some("serve") {
            return Err(elsewhere(&"it is no `standfast serve`"));
        }
        let locked = locked_dirs(&proc).map_err(|error| elsewhere(&error))?;
        let is_it = |dir: &PathBuf| {
            meta::identity(dir).ok().flatten().is_some_and(|found| {
                let status = &answer.status;
                found.node == node
                    && found.cluster.to_string() == status.cluster
                    && found.incarnation.to_string() == status.incarnation
            })
        };
        let data_dir = locked.into_iter().find(is_it);
        let data_dir =
            data_dir.ok_or_else(|| elsewhere(&"it does not hold that data directory"))?;
        let again = restart(&proc, &words).map_err(|error| elsewhere(&error))?;
        Ok(Victim {
            pid,
            process,
            data_dir,
            again,
        })
    }

    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let sent = pidfd_send_signal(&self.process, signal);
        sent.map_err(|error| format!("process {}: {error}", self.pid))
    }
}

/// What stands in a file of `/proc`, each word ended by a zero byte.
fn words(path: &Path) -> std::io::Result<Vec<String>> {
    let bytes = std::fs::read(path)?;
    let words = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    Ok(words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect())
}

/// The directories in which the process has a file named LOCK open.
fn locked_dirs(proc: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(proc.join("fd"))? {
        let Ok(file) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        if file.file_name().is_some_and(|name| name == "LOCK") {
            found.extend(file.parent().map(Path::to_owned));
        }
    }
    Ok(found)
}

/// The program, its arguments, directory, environment and output, as they are now.
fn restart(proc: &Path, words: &[String]) -> std::io::Result<Restart> {
    let exe = std::fs::read_link(proc.join("exe"))?;
    // A program that was replaced on disk is started again as what is there now.
    let program = exe.to_string_lossy();
    let program = program
        .strip_suffix(" (deleted)")
        .unwrap_or(&program)
        .into();
    // What it was started by is not what starts it now.
    let args = words
        .iter()
        .skip(1)
        .filter(|word| *word != "--exit-with-parent");
    let environment = self::words(&proc.join("environ"))?;
    let environment = environment.iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let output = std::fs::read_link(proc.join("fd/2")).ok();
    Ok(Restart {
        program,
        args: args.cloned().collect(),
        dir: std::fs::read_link(proc.join("cwd"))?,
        environment: environment.collect(),
        output: output.filter(|path| path.is_file()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::Status;

    fn answer(pid: serde_json::Value) -> Answer {
        Answer {
            status: Status::default(),
            json: serde_json::json!({"pid": pid}),
        }
    }

    #[test]
    fn a_process_that_is_no_node_is_never_a_victim() {
        let own = std::process::id();
        let refused = Victim::of(&answer(own.into())).expect_err("a test is no node");
        assert!(refused.contains("is no `standfast serve`"), "{refused}");
        let refused = Victim::of(&answer(4_194_999.into())).expect_err("no such process");
        assert!(refused.contains("not on this machine"), "{refused}");
        Victim::of(&answer(serde_json::Value::Null)).expect_err("no pid");
    }

    #[test]
    fn a_process_is_started_again_as_it_was_but_for_its_tie() {
        let words = ["x", "serve", "--exit-with-parent", "--config", "n"].map(str::to_owned);
        let again = restart(Path::new("/proc/self"), &words).expect("our own process");
        assert_eq!(again.args, ["serve", "--config", "n"]);
        assert_eq!(again.program, std::env::current_exe().expect("known"));
        assert_eq!(again.dir, std::env::current_dir().expect("known"));
    }
}
