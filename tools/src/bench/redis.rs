//! Redis beside us: a primary and one replica on loopback, each with `appendfsync always`.

use anyhow::{Context, ensure};
use rig::cluster::{PATIENCE, PROMPT};
use rig::process::Reaper;
use rig::{Conn, Value, ports, until};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Two running servers, killed when dropped.
pub struct Pair {
    pub address: String,
    pub version: String,
    children: Vec<Child>,
    _scratch: tempfile::TempDir,
    _range: ports::Range,
    _reaper: Reaper,
}

impl Pair {
    /// Starts both below `dir` and waits until they replicate.
    pub fn start(dir: &Path) -> anyhow::Result<Pair> {
        let scratch = tempfile::Builder::new()
            .prefix("standfast-redis-")
            .tempdir_in(dir)?;
        let range = ports::claim();
        let reaper = Reaper::start(scratch.path());
        let (primary, backup) = (range.base, range.base + 1);
        let mut children = vec![server(scratch.path(), primary, &[])?];
        let address = format!("127.0.0.1:{primary}");
        until("redis-server answers", PATIENCE, || {
            Conn::open(&address, PROMPT).ok()
        });
        let of = ["--replicaof", "127.0.0.1", &primary.to_string()];
        children.push(server(scratch.path(), backup, &of)?);
        let pair = Pair {
            version: info(&address, "redis_version").context("INFO names a version")?,
            address,
            children,
            _scratch: scratch,
            _range: range,
            _reaper: reaper,
        };
        pair.wait_ready(&format!("127.0.0.1:{backup}"))?;
        Ok(pair)
    }

    /// Both in step, and neither still rewriting the file it started with.
    fn wait_ready(&self, backup: &str) -> anyhow::Result<()> {
        until("redis replicates", PATIENCE, || {
            let up = info(backup, "master_link_status")? == "up";
            let idle = [self.address.as_str(), backup]
                .iter()
                .all(|node| info(node, "aof_rewrite_in_progress").as_deref() == Some("0"));
            (up && idle).then_some(())
        });
        let mut conn = Conn::open(&self.address, PROMPT)?;
        conn.call(&["SET", "probe", "x"])?;
        let copies = conn.call(&["WAIT", "1", "5000"])?;
        ensure!(copies == Value::Int(1), "WAIT 1 answers {copies:?}");
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn server(dir: &Path, port: u16, more: &[&str]) -> anyhow::Result<Child> {
    let own = dir.join(port.to_string());
    std::fs::create_dir(&own)?;
    let mut spawned = command("redis-server", &own, port, more).spawn();
    if matches!(&spawned, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        // Debian's redis-tools has the same program under another name; it goes by what it is
        // called. The package redis-server would also start a service that nobody asked for.
        let mut same = command("redis-check-rdb", &own, port, more);
        spawned = same.arg0("redis-server").spawn();
    }
    spawned.context("redis-server cannot be started; ./test.sh installs redis-tools, which has it")
}

fn command(program: &str, dir: &Path, port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ])
        // Neither a rewrite of the growing file nor a slow first copy disturbs the figures.
        .args([
            "--auto-aof-rewrite-percentage",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ])
        // The command line keeps the directory's name, by which stray processes are found.
        .args(["--set-proc-title", "no"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// One field of INFO; `None` while the server does not answer.
fn info(address: &str, field: &str) -> Option<String> {
    let text = Conn::open(address, PROMPT)
        .ok()?
        .call(&["INFO"])
        .ok()?
        .text();
    text.lines().find_map(|line| {
        line.strip_prefix(field)?
            .strip_prefix(':')
            .map(str::to_owned)
    })
}
