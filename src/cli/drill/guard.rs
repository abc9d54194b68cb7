//! A small process that undoes what a drill did, also when the drill is killed.
//!
//! It is told what to undo before that is done, and does it when its standard input ends: the drill
//! closes it when it is through, and the kernel does when the drill dies. There is no other way to
//! undo, so the one that matters on the bad day is used on every good one.

use crate::cli::exit::{ExitCode, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a directory may be busy with a node that is dying.
const REMOVING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// What the guard says once it has read its orders.
const READY: &str = "ready";

/// What is to be undone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Undo {
    /// A directory of the drill's own.
    pub remove: Option<PathBuf>,
    /// A process that was paused.
    pub resume: Option<u32>,
    /// A process that was killed.
    pub start: Option<Restart>,
}

/// Everything that starts a process again as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Restart {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub dir: PathBuf,
    pub environment: Vec<(String, String)>,
    /// Where its lines went, if that was a file.
    pub output: Option<PathBuf>,
}

/// The guard, as the drill holds it.
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Comes back once the guard knows what to undo.
    pub fn start(undo: &Undo) -> Result<Guard, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["drill", "guard"])
            // Its own group: Ctrl-C ends the drill, not what cleans up after it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = serde_json::to_string(undo).expect("plain fields encode");
        let stdin = child.stdin.as_mut().expect("it was piped");
        writeln!(stdin, "{orders}")?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != READY {
            return Err(Failure::new(
                ExitCode::Failed,
                "the guard that cleans up after a drill did not start",
            ));
        }
        Ok(Guard { child })
    }

    /// Lets it undo, and waits until it has.
    pub fn release(mut self) -> Result<(), String> {
        match self.finish() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("what cleans up ended with {status}")),
            Err(error) => Err(format!("what cleans up cannot be waited for: {error}")),
        }
    }

    fn finish(&mut self) -> std::io::Result<std::process::ExitStatus> {
        drop(self.child.stdin.take());
        self.child.wait()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A drill that gives up half-way; what the guard could not do it has said on stderr.
        let _ = self.finish();
    }
}

/// The guard's own process.
pub fn run() -> Outcome {
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let undo: Undo = serde_json::from_str(&line)
        .map_err(|error| Failure::new(ExitCode::Usage, format!("no orders: {error}")))?;
    println!("{READY}");
    std::io::stdout().flush()?;
    input.read_to_end(&mut Vec::new())?;
    undo.run()
}

impl Undo {
    fn run(&self) -> Outcome {
        if let Some(pid) = self.resume.and_then(raw) {
            // An error means that it has ended by itself meanwhile.
            let _gone = kill_process(pid, Signal::CONT);
        }
        if let Some(restart) = &self.start {
            restart.run()?;
        }
        if let Some(dir) = &self.remove {
            remove(dir)?;
        }
        Ok(ExitCode::Done)
    }
}

pub fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Until it is gone: the node in it may still be writing its last.
fn remove(dir: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + REMOVING;
    loop {
        match std::fs::remove_dir_all(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                let text = format!("{}: {error}", dir.display());
                return Err(Failure::new(ExitCode::Failed, text));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

impl Restart {
    /// Starts it with nothing that ties it to the guard.
    fn run(&self) -> Result<(), Failure> {
        let output = || -> std::io::Result<Stdio> {
            match &self.output {
                Some(file) => Ok(std::fs::OpenOptions::new().append(true).open(file)?.into()),
                None => Ok(Stdio::null()),
            }
        };
        let started = Command::new(&self.program)
            .args(&self.args)
            .current_dir(&self.dir)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn();
        started.map(|_| ()).map_err(|error| {
            let text = format!("{}: {error}", self.program.display());
            Failure::new(ExitCode::Failed, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_done_is_undone() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let (gone, log) = (scratch.path().join("gone"), scratch.path().join("log"));
        std::fs::create_dir_all(gone.join("deep")).expect("a new directory");
        std::fs::write(&log, "").expect("a new file");
        let undo = Undo {
            remove: Some(gone.clone()),
            resume: None,
            start: Some(Restart {
                program: "/bin/sh".into(),
                args: vec!["-c".to_owned(), "echo $WORD in $PWD".to_owned()],
                dir: scratch.path().to_owned(),
                environment: vec![("WORD".to_owned(), "again".to_owned())],
                output: Some(log.clone()),
            }),
        };
        let text = serde_json::to_string(&undo).expect("plain fields encode");
        let undo: Undo = serde_json::from_str(&text).expect("as it was written");
        assert_eq!(undo.run().expect("all of it"), ExitCode::Done);
        assert!(!gone.exists());
        let expected = format!("again in {}\n", scratch.path().display());
        let deadline = Instant::now() + REMOVING;
        while std::fs::read_to_string(&log).expect("there") != expected {
            assert!(Instant::now() < deadline, "it was not started");
            std::thread::yield_now();
        }
        assert_eq!(undo.run().expect("again"), ExitCode::Done);
    }
}
