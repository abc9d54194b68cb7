//! Processes by pid: signals, whether they have ended, and a keeper that ends them with us.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that reads from a pipe we hold. The pipe closes when this is dropped or when this
/// process ends in any way; the shell then kills whatever names the directory in its command line.
/// It gets the directory through its environment, so that it does not find itself.
pub struct Reaper(Child);

impl Reaper {
    /// Watches over the processes of this directory.
    pub fn start(dir: &Path) -> Reaper {
        const SCRIPT: &str = r#"
            read -r _
            for round in 1 2; do
                for file in $(grep -laF -- "$RIG_DIR" /proc/[0-9]*/cmdline 2>/dev/null); do
                    pid=${file#/proc/}
                    kill -9 "${pid%/cmdline}" 2>/dev/null
                done
            done
        "#;
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .env("RIG_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Reaper(child.expect("sh can be started"))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that must exist.
pub fn signal(pid: u32, which: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid is a positive number");
    kill_process(pid, which).unwrap_or_else(|error| panic!("signal to {pid:?}: {error}"));
}

/// Whether a process has ended; one that only waits to be collected by its parent has.
pub fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The state follows the command's name, which stands in parentheses.
    let state = stat.rsplit(')').next().unwrap_or_default();
    // Its ports are taken until the last of its threads is gone, the first one may be long before.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state.trim().starts_with('Z') && threads <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::until;
    use std::time::Duration;

    #[test]
    fn what_names_the_directory_ends_with_the_reaper_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let waiting = |name: &str| -> Child {
            let mut command = Command::new("sh");
            command
                .args(["-c", "read -r _", name])
                .stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let reaper = Reaper::start(dir.path());
        let mut doomed = waiting(&dir.path().join("node-0").display().to_string());
        let mut spared = waiting("/somewhere/else");
        drop(reaper);
        until(
            "the process of the directory is gone",
            Duration::from_secs(10),
            || is_gone(doomed.id()).then_some(()),
        );
        assert!(!is_gone(spared.id()), "a stranger was killed");
        doomed.wait().unwrap();
        // Its read ends when its pipe does.
        drop(spared.stdin.take());
        spared.wait().unwrap();
    }
}
