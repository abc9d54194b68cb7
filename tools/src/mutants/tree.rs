//! A copy of the workspace that is mutated, and the commands that are run in it.

use super::patch::Patch;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What cargo may take; a first build of everything takes a few minutes.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

pub struct Tree {
    root: PathBuf,
    pub dir: PathBuf,
}

impl Tree {
    /// A copy of all files of `root` that are not ignored, in `dir`, which may hold an earlier one.
    pub fn new(root: &Path, dir: PathBuf) -> anyhow::Result<Tree> {
        std::fs::create_dir_all(&dir)?;
        let tree = Tree {
            root: root.to_path_buf(),
            dir,
        };
        tree.restore()?;
        Ok(tree)
    }

    /// Makes the copy equal to the original. What is equal is not written: it keeps its time, so
    /// that only what a mutant had changed is built again.
    pub fn restore(&self) -> anyhow::Result<()> {
        let wanted = files_of(&self.root)?;
        for name in &wanted {
            let (from, to) = (self.root.join(name), self.dir.join(name));
            let Ok(bytes) = std::fs::read(&from) else {
                continue; // Deleted, and not yet told to git.
            };
            if std::fs::read(&to).ok().as_deref() != Some(&bytes) {
                std::fs::create_dir_all(to.parent().context("a file in a directory")?)?;
                std::fs::write(&to, bytes)?;
            }
        }
        for name in present(&self.dir)? {
            if !wanted.contains(&name) {
                std::fs::remove_file(self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Applies a patch, or says why it does not apply. Changes nothing then.
    pub fn apply(&self, patch: &Patch) -> anyhow::Result<Result<(), String>> {
        // The copy lies inside of a repository: git must not look for that one's top.
        let above = self.dir.parent().context("a directory in another")?;
        let output = Command::new("git")
            .args(["apply", "-C1"])
            .arg(&patch.path)
            .current_dir(&self.dir)
            .env("GIT_CEILING_DIRECTORIES", above)
            .output()?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr)
                .trim()
                .to_string()));
        }
        // Git says nothing of what it skips.
        for name in &patch.files {
            let read = |dir: &Path| std::fs::read(dir.join(name));
            ensure!(
                read(&self.root)? != read(&self.dir)?,
                "{} left {name} as it was",
                patch.name
            );
        }
        Ok(Ok(()))
    }

    /// Runs cargo in the copy and waits for it.
    pub fn cargo(&self, arguments: &[&str], target: &Path) -> anyhow::Result<Ended> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(arguments).current_dir(&self.dir);
        command.env("CARGO_TARGET_DIR", target);
        run_for(&mut command, BUILD_LIMIT)
    }
}

/// Names of the files of a workspace, relative to it.
fn files_of(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    ensure!(
        output.status.success(),
        "git does not list {}",
        root.display()
    );
    let names = String::from_utf8(output.stdout)?;
    let names = names.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(str::to_string).collect())
}

/// Names of all files that are in the copy.
fn present(dir: &Path) -> anyhow::Result<Vec<String>> {
    let (mut names, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                names.push(path.strip_prefix(dir)?.to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

/// How a bounded command ended.
pub struct Ended {
    /// `None`: it took too long and was killed.
    pub success: Option<bool>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command for at most `limit`.
pub fn run_for(command: &mut Command, limit: Duration) -> anyhow::Result<Ended> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (told, ends) = mpsc::channel();
    let stdout = drain(child.stdout.take(), told.clone());
    let stderr = drain(child.stderr.take(), told);
    // Both pipes close when it ends, however it ends.
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let late = (0..2).any(|_| ends.recv_timeout(left()).is_err());
    if late {
        kill(&mut child)?;
    }
    let status = child.wait()?;
    Ok(Ended {
        success: (!late).then(|| status.success()),
        stdout: stdout.join().expect("reading does not panic"),
        stderr: stderr.join().expect("reading does not panic"),
    })
}

fn kill(child: &mut Child) -> anyhow::Result<()> {
    child.kill().context("a child of ours can be killed")
}

/// Reads a pipe to its end, as text, and says when it is there.
fn drain(
    pipe: Option<impl Read + Send + 'static>,
    told: mpsc::Sender<()>,
) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = told.send(());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
