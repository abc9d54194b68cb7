//! Redis: a primary and backups that write each command to disk at once, and a WAIT behind each
//! pipeline; or one process that keeps all in memory only.
//!
//! WAIT counts acknowledgements and does not promise the replica's fsync, so that Redis promises
//! less than the others here.

use super::super::load::measure::Run;
use super::super::load::{Plan, Shape, Target, Work, run};
use super::super::system::{Case, System, What};
use super::super::work::pipeline::{Draw, Pipeline};
use super::super::work::skew::{Kind, Skew};
use super::Household;
use anyhow::{Context, ensure};
use rig::cluster::{PATIENCE, PROMPT};
use rig::{Conn, Value, until};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long it may take to load or write all that it holds.
const LONG: Duration = Duration::from_secs(600);

/// A transfer as a Redis user writes it: done once by its id, both balances and the record of it
/// together.
const TRANSFER: &str = "if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end \
     redis.call('HINCRBY', KEYS[1], 'debits', ARGV[1]) \
     redis.call('HINCRBY', KEYS[2], 'credits', ARGV[1]) \
     redis.call('SET', KEYS[3], KEYS[1] .. ' ' .. KEYS[2] .. ' ' .. ARGV[1]) return 1";

pub struct Redis {
    house: Household,
    version: String,
    backups: u8,
    persists: bool,
    keys: u64,
    runs: u64,
}

impl Redis {
    /// A primary and so many backups, in step.
    pub fn start(dir: &Path, backups: u8) -> anyhow::Result<Redis> {
        Redis::launch(dir, backups, true)
    }

    /// One process without any file.
    pub fn in_memory(dir: &Path) -> anyhow::Result<Redis> {
        Redis::launch(dir, 0, false)
    }

    fn launch(dir: &Path, backups: u8, persists: bool) -> anyhow::Result<Redis> {
        let mut house = Household::new("redis", dir)?;
        let primary = house.port(0).to_string();
        for number in 0..=u16::from(backups) {
            let of = ["--replicaof", "127.0.0.1", &primary];
            let of: &[&str] = if number == 0 { &[] } else { &of };
            server(&mut house, number, persists, of)?;
            until("redis-server answers", PATIENCE, || {
                Conn::open(&house.address(number), PROMPT).ok()
            });
        }
        let redis = Redis {
            version: info(&house.address(0), "redis_version").context("INFO names a version")?,
            house,
            backups,
            persists,
            keys: 0,
            runs: 0,
        };
        redis.wait_ready()?;
        Ok(redis)
    }

    /// All in step, and none still rewriting the file it started with.
    fn wait_ready(&self) -> anyhow::Result<()> {
        let nodes = 0..=u16::from(self.backups);
        let nodes: Vec<String> = nodes.map(|number| self.house.address(number)).collect();
        until("redis replicates", PATIENCE, || {
            let up = |node: &String| Some(info(node, "master_link_status")? == "up");
            let idle = |node: &String| Some(info(node, "aof_rewrite_in_progress")? == "0");
            let are_up = nodes[1..].iter().all(|node| up(node) == Some(true));
            (are_up && nodes.iter().all(|node| idle(node) == Some(true))).then_some(())
        });
        let mut conn = Conn::open(&nodes[0], PROMPT)?;
        conn.call(&["SET", "probe", "x"])?;
        let backups = self.backups.to_string();
        let copies = conn.call(&["WAIT", &backups, "5000"])?;
        ensure!(
            copies == Value::Int(i64::from(self.backups)),
            "WAIT is answered {copies:?}"
        );
        Ok(())
    }

    fn target(&self) -> Target<'static> {
        Target {
            address: self.house.address(0),
            servers: self.house.servers(),
            follow: None,
        }
    }

    /// Sets each key of `first..end` once.
    pub fn set_keys(&self, first: u64, end: u64) -> anyhow::Result<()> {
        let mut work = Pipeline::set(Draw::Each(first, end), 64);
        let shape = Shape {
            connections: 16,
            window: 1,
        };
        run(&self.target(), &mut work, shape, &Plan::TO_THE_END).map(drop)
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.house.dir().join("0")
    }

    /// Has commands reach the kernel only, while it is filled.
    pub fn hurry(&self) -> anyhow::Result<()> {
        self.call(&["CONFIG", "SET", "appendfsync", "no"]).map(drop)
    }

    /// Writes what it holds as the base of its log; what follows is appended as commands.
    pub fn rewrite(&self) -> anyhow::Result<()> {
        self.call(&["BGREWRITEAOF"])?;
        let address = self.house.address(0);
        until("redis has rewritten its log", LONG, || {
            let is_over = |field| Some(info(&address, field)? == "0");
            let fields = ["aof_rewrite_scheduled", "aof_rewrite_in_progress"];
            let are_over = fields.into_iter().all(|one| is_over(one) == Some(true));
            are_over.then_some(())
        });
        Ok(())
    }

    /// Writes all that it holds as an RDB file.
    pub fn save(&self) -> anyhow::Result<()> {
        self.call(&["SAVE"]).map(drop)
    }

    /// Kills it; starts it again from its log, or from its RDB file; back when `key` is answered.
    pub fn load(&mut self, from_log: bool, key: &str) -> anyhow::Result<Duration> {
        self.house.stop();
        let begun = Instant::now();
        server(&mut self.house, 0, from_log, &[])?;
        let address = self.house.address(0);
        until("redis has loaded", LONG, || {
            let answer = Conn::open(&address, PROMPT).ok()?.call(&["GET", key]);
            matches!(answer, Ok(Value::Bulk(_))).then_some(())
        });
        Ok(begun.elapsed())
    }

    /// The most memory that the process has had so far.
    pub fn peak(&self) -> u64 {
        self.house.peak()
    }

    fn call(&self, words: &[&str]) -> anyhow::Result<Value> {
        let answer = Conn::open(&self.house.address(0), LONG)?.call(words)?;
        ensure!(answer.refusal().is_none(), "{words:?}: {answer:?}");
        Ok(answer)
    }
}

impl System for Redis {
    fn name(&self) -> String {
        match (self.persists, self.backups) {
            (false, _) => format!("Redis {}, one process, in memory only", self.version),
            (true, backups) => format!("Redis {}, AOF always, WAIT {backups}", self.version),
        }
    }

    fn run(&mut self, case: &Case, plan: &Plan) -> anyhow::Result<Option<Run>> {
        self.runs += 1;
        let skew = Skew::new(Kind::Uniform, case.among);
        let mut work = match case.what {
            What::Set => Pipeline::set(Draw::Among(skew), case.depth),
            What::Get => {
                if self.keys < case.among {
                    self.set_keys(self.keys, case.among)?;
                    self.keys = case.among;
                }
                Pipeline::get(Draw::Among(skew), case.depth)
            }
            What::Transfer => {
                let mut conn = Conn::open(&self.house.address(0), PROMPT)?;
                let sha = conn.call(&["SCRIPT", "LOAD", TRANSFER])?.text();
                Pipeline::script(&sha, skew, case.depth, self.runs)
            }
        };
        if self.backups > 0 && case.what != What::Get {
            work = work.wait(self.backups);
        }
        let work: &mut dyn Work = &mut work;
        run(&self.target(), work, case.shape(), plan).map(Some)
    }
}

fn server(house: &mut Household, number: u16, persists: bool, more: &[&str]) -> anyhow::Result<()> {
    let (own, port) = (house.dir().join(number.to_string()), house.port(number));
    std::fs::create_dir_all(&own)?;
    let mut spawned = house.spawn(&mut command("redis-server", &own, port, persists, more));
    if matches!(&spawned, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        // Debian's redis-tools has the same program under another name; it goes by what it is
        // called.
        let mut same = command("redis-check-rdb", &own, port, persists, more);
        spawned = house.spawn(same.arg0("redis-server"));
    }
    spawned.context("redis-server cannot be started")
}

fn command(program: &str, dir: &Path, port: u16, persists: bool, more: &[&str]) -> Command {
    let append = if persists { "yes" } else { "no" };
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .args(["--appendonly", append, "--appendfsync", "always"])
        .args(["--save", ""])
        // Neither a rewrite of the growing file nor a slow first copy disturbs the figures.
        .args(["--auto-aof-rewrite-percentage", "0"])
        .args(["--repl-diskless-sync-delay", "0"])
        // The command line keeps the directory's name, by which stray processes are found.
        .args(["--set-proc-title", "no"])
        .args(more);
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
