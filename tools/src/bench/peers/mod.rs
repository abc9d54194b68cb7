//! Other systems beside us, started from what is installed; `tools/peers.sh` installs them.

pub mod etcd;
pub mod postgres;
pub mod redis;

use super::load::usage::{Servers, peak};
use rig::ports::{self, Range};
use rig::process::Reaper;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Processes of one system: a directory and ports for them; killed when dropped.
pub struct Household {
    children: Vec<Child>,
    scratch: TempDir,
    range: Range,
    _reaper: Reaper,
}

impl Household {
    pub fn new(system: &str, dir: &Path) -> anyhow::Result<Household> {
        let scratch = tempfile::Builder::new()
            .prefix(&format!("standfast-{system}-"))
            .tempdir_in(dir)?;
        Ok(Household {
            children: Vec::new(),
            _reaper: Reaper::start(scratch.path()),
            range: ports::claim(),
            scratch,
        })
    }

    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub fn port(&self, number: u16) -> u16 {
        assert!(number < ports::PER_RANGE);
        self.range.base + number
    }

    pub fn address(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.port(number))
    }

    /// Starts a server. Its command line must name the directory: so what is left is found.
    pub fn spawn(&mut self, command: &mut Command) -> std::io::Result<()> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        self.children.push(command.stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    /// Kills all that it started.
    pub fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The most memory that the process which was started last has had so far.
    pub fn peak(&self) -> u64 {
        let last = self.children.last();
        last.and_then(|child| peak(child.id())).unwrap_or(0)
    }

    pub fn servers(&self) -> Servers {
        Servers::new(self.children.iter().map(Child::id).collect(), self.dir())
    }
}

impl Drop for Household {
    fn drop(&mut self) {
        self.stop();
    }
}
