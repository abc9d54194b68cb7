//! The nodes' processes: started here or by hand, found by what `/proc` says, and stopped.

use super::layout::node_dir;
use crate::cli::exit::{ExitCode, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// One `dev` per directory.
pub fn lock(dir: &Path) -> Result<OwnedFd, Failure> {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = open(dir.join("lock"), flags, Mode::from(0o644)).map_err(std::io::Error::from)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Failure::new(
            ExitCode::InUse,
            format!("{}: another `standfast dev` runs it", dir.display()),
        )
    })?;
    Ok(file)
}

/// How many of a node's last log lines an error shows.
const LAST_LINES: usize = 5;

/// One node's process, whoever started it.
pub struct Process {
    pub node: u32,
    program: PathBuf,
    /// Its settings file: it stands in the command line and tells the process from others.
    settings: PathBuf,
    log: PathBuf,
    /// Where the log lines of the process started here begin.
    log_from: usize,
    child: Option<Child>,
    /// The process as it was last seen.
    pid: Option<u32>,
    /// How the process that was started here ended.
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn new(program: &Path, dir: &Path, node: u32) -> Process {
        let own = node_dir(dir, node);
        Process {
            node,
            program: program.to_owned(),
            settings: own.join("node.toml"),
            log: own.join("log"),
            log_from: 0,
            child: None,
            pid: None,
            ended: None,
        }
    }

    /// The command line that starts this node again, for a shell.
    pub fn start_command(&self) -> String {
        format!(
            "{} serve --config {}",
            quoted(&self.program),
            quoted(&self.settings)
        )
    }

    /// Starts the node as a child that dies with this process.
    pub fn start(&mut self) -> Result<(), Failure> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        self.log_from = usize::try_from(log.metadata()?.len()).unwrap_or(0);
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--exit-with-parent", "--config"])
            .arg(&self.settings);
        // Settings of the person who runs `dev` are not meant for each node.
        for setting in crate::config::SETTINGS {
            command.env_remove(setting.variable());
        }
        // Its own group: Ctrl-C comes to `dev` alone, which stops the nodes in good order.
        command.process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(|error| {
            Failure::new(
                ExitCode::Failed,
                format!("{}: {error}", self.program.display()),
            )
        })?;
        self.pid = Some(child.id());
        self.child = Some(child);
        Ok(())
    }

    /// Looks whether the node runs now; also reaps it when it has ended.
    pub fn look(&mut self) -> Option<u32> {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return self.pid,
                Ok(Some(status)) => {
                    self.child = None;
                    self.ended = Some(status);
                }
                Err(_) => self.child = None,
            }
        }
        let known = self.pid.filter(|pid| serves(*pid, &self.settings));
        self.pid = known.or_else(|| processes().filter(|pid| serves(*pid, &self.settings)).min());
        self.pid
    }

    /// Asks it to stop; a node that is gone has stopped.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
        // A paused process gets the request only once it goes on.
        self.signal(Signal::CONT);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended by itself meanwhile.
            let _gone = kill_process(pid, signal);
        }
    }

    /// How it ended, and, unless somebody killed it, the last lines it logged.
    pub fn last_words(&self) -> String {
        if let Some(signal) = self.ended.and_then(|status| status.signal()) {
            return format!("killed by signal {signal}");
        }
        let code = self.ended.and_then(|status| status.code());
        let how = code.map_or("it logged last".to_owned(), |code| {
            format!("exit code {code}")
        });
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(self.log_from..).unwrap_or_default());
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let lines = lines[from..].iter().map(|line| format!("\n    {line}"));
        format!("{how}:{}", lines.collect::<String>())
    }
}

/// Every process that `/proc` shows.
fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether the process serves the node of this settings file. A process that has ended and was
/// not reaped has an empty command line.
fn serves(pid: u32, settings: &Path) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_node(&line, settings))
}

fn is_node(line: &[u8], settings: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let names = |word: &[u8]| {
        let file = word.strip_prefix(b"--config=").unwrap_or(word);
        file == settings.as_os_str().as_bytes()
    };
    words.get(1).is_some_and(|word| *word == b"serve") && words.iter().any(|word| names(word))
}

/// Refuses a directory in which a process has open files.
pub fn refuse_running(dir: &Path) -> Result<(), Failure> {
    let dir = dir.canonicalize()?;
    let own = std::process::id();
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|to| to.starts_with(&dir))
    };
    match processes().filter(|pid| *pid != own).find(holds) {
        None => Ok(()),
        Some(pid) => Err(Failure::new(
            ExitCode::InUse,
            format!("{} is in use by process {pid}", dir.display()),
        )
        .hint("stop that node first")),
    }
}

/// A word that a shell takes as it is.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_command_is_one_that_a_shell_understands() {
        let process = Process::new(Path::new("/b/standfast"), Path::new("/d"), 2);
        let plain = "/b/standfast serve --config /d/node-2/node.toml";
        assert_eq!(process.start_command(), plain);
        let odd = Process::new(Path::new("/b/standfast"), Path::new("/a 'b"), 0);
        let output = Command::new("sh")
            .args(["-c", &format!("printf '%s\n' {}", odd.start_command())])
            .output()
            .expect("a shell");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            printed,
            "/b/standfast\nserve\n--config\n/a 'b/node-0/node.toml\n"
        );
    }

    #[test]
    fn a_process_started_by_hand_is_found_by_its_settings_file_and_seen_to_end() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut process = Process::new(Path::new("/b/standfast"), dir.path(), 0);
        assert_eq!(process.look(), None);
        // A shell that waits in a script named `serve`, with the command line of a node.
        std::fs::write(dir.path().join("serve"), "read line\n").expect("a scratch file");
        let mut child = Command::new("sh")
            .args(["serve", "--config"])
            .arg(&process.settings)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        // Its command line stands in /proc a moment after it was started.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while process.look() != Some(child.id()) {
            assert!(
                std::time::Instant::now() < deadline,
                "the process was never seen"
            );
            std::thread::yield_now();
        }
        child.kill().expect("a child can be ended");
        child.wait().expect("a child can be waited for");
        assert_eq!(process.look(), None);
    }

    #[test]
    fn a_process_that_only_mentions_the_settings_file_is_not_the_node() {
        assert!(serves_words(
            &["standfast", "serve", "--config", "/d/n"],
            "/d/n"
        ));
        assert!(serves_words(
            &["standfast", "serve", "--config=/d/n"],
            "/d/n"
        ));
        assert!(!serves_words(
            &["standfast", "status", "--config", "/d/n"],
            "/d/n"
        ));
        assert!(!serves_words(
            &["sh", "-c", "exec standfast serve --config /d/n"],
            "/d/n"
        ));
    }

    fn serves_words(words: &[&str], settings: &str) -> bool {
        is_node(words.join("\0").as_bytes(), Path::new(settings))
    }

    #[test]
    fn a_directory_with_open_files_is_refused() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        refuse_running(dir.path()).expect("nobody is there");
        let file = dir.path().join("x");
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(file)
                    .expect("new"),
            )
            .spawn()
            .expect("a shell");
        let refused = refuse_running(dir.path()).expect_err("a process is there");
        assert_eq!(refused.code, ExitCode::InUse);
        assert!(
            refused.message.contains(&child.id().to_string()),
            "{refused}"
        );
        child.kill().expect("a child can be ended");
        child.wait().expect("a child can be waited for");
    }
}
