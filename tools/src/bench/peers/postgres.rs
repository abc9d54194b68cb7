//! PostgreSQL: a primary and a standby that has each commit on disk before it is acknowledged.
//! Transfers are made by pgbench, its own load, in one round trip each: two updates and an insert
//! in one transaction.

use super::super::load::Plan;
use super::super::load::measure::{Run, histogram};
use super::super::load::usage::children_cpu;
use super::super::system::{Case, System, What};
use super::Household;
use anyhow::{Context, ensure};
use rig::cluster::PATIENCE;
use rig::until;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The lower account pays: so no two transactions wait for each other in a circle.
const TRANSFER: &str = "\
\\set one random(1, :accounts)
\\set other random(1, :accounts)
\\set debit least(:one, :other)
\\set credit greatest(:one, :other)
\\startpipeline
BEGIN;
UPDATE accounts SET debits = debits + 1 WHERE id = :debit;
UPDATE accounts SET credits = credits + 1 WHERE id = :credit;
INSERT INTO transfers (debit, credit, amount) VALUES (:debit, :credit, 1);
END;
\\endpipeline
";

/// Beside the defaults. Checkpoints come as the size of the log says, not by time.
const SETTINGS: &str = "
synchronous_commit = on
synchronous_standby_names = '*'
max_connections = 300
shared_buffers = 512MB
max_wal_size = 4GB
wal_level = replica
hot_standby = on
";

pub struct Postgres {
    house: Household,
    bin: PathBuf,
    version: String,
    accounts: u64,
}

impl Postgres {
    /// A primary and a synchronous standby that was copied from it.
    pub fn start(dir: &Path) -> anyhow::Result<Postgres> {
        let bin = binaries().context("PostgreSQL is not installed")?;
        let house = Household::new("postgres", dir)?;
        // The servers do not run as root, and must reach their directories.
        std::fs::set_permissions(house.dir(), PermissionsExt::from_mode(0o755))?;
        let (primary, standby) = (house.dir().join("primary"), house.dir().join("standby"));
        own_directory(&primary)?;
        own_directory(&standby)?;
        let mut postgres = Postgres {
            version: version(&bin)?,
            house,
            bin,
            accounts: 0,
        };
        let mut initdb = postgres.unprivileged("initdb");
        done(
            initdb
                .arg("-D")
                .arg(&primary)
                .args(["-A", "trust", "-U", "postgres"]),
        )?;
        let settings = primary.join("postgresql.conf");
        let text = std::fs::read_to_string(&settings)?;
        std::fs::write(&settings, text + SETTINGS)?;
        postgres.serve(0, &primary)?;
        let mut copy = postgres.unprivileged("pg_basebackup");
        copy.arg("-D")
            .arg(&standby)
            .args(["-R", "-h", "127.0.0.1", "-U", "postgres"]);
        done(copy.args(["-p", &postgres.house.port(0).to_string()]))?;
        postgres.serve(1, &standby)?;
        until("the standby is synchronous", PATIENCE, || {
            let state = postgres
                .ask("SELECT sync_state FROM pg_stat_replication")
                .ok()?;
            (state.trim() == "sync").then_some(())
        });
        Ok(postgres)
    }

    fn serve(&mut self, number: u16, data: &Path) -> anyhow::Result<()> {
        let mut server = self.unprivileged("postgres");
        server.arg("-D").arg(data).arg("-k").arg(data);
        server.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.house.port(number).to_string(),
        ]);
        self.house.spawn(&mut server)?;
        let mut ready = Command::new(self.bin.join("pg_isready"));
        ready.args([
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &self.house.port(number).to_string(),
        ]);
        until("postgres answers", PATIENCE, || {
            ready.status().ok()?.success().then_some(())
        });
        Ok(())
    }

    /// One of its programs, as a user that it accepts.
    fn unprivileged(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ]);
        command.arg(program).current_dir("/");
        command
    }

    fn ask(&self, sql: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-At",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        done(psql.args(["-p", &self.house.port(0).to_string(), "-c", sql]))
    }

    fn prepare(&mut self, accounts: u64) -> anyhow::Result<()> {
        self.ask("DROP TABLE IF EXISTS accounts, transfers")?;
        self.ask(
            "CREATE TABLE accounts (id bigint PRIMARY KEY, debits bigint NOT NULL DEFAULT 0, \
             credits bigint NOT NULL DEFAULT 0)",
        )?;
        self.ask(
            "CREATE TABLE transfers (id bigserial PRIMARY KEY, debit bigint NOT NULL, \
             credit bigint NOT NULL, amount bigint NOT NULL)",
        )?;
        self.ask(&format!(
            "INSERT INTO accounts (id) SELECT generate_series(1, {accounts})"
        ))?;
        self.ask("VACUUM ANALYZE")?;
        std::fs::write(self.house.dir().join("transfer.sql"), TRANSFER)?;
        self.accounts = accounts;
        Ok(())
    }

    /// Runs pgbench for so long; what it logged of each transaction lies in the directory then.
    fn load(&self, case: &Case, length: Duration) -> anyhow::Result<()> {
        for log in self.logs()? {
            std::fs::remove_file(log)?;
        }
        let mut load = Command::new("pgbench");
        load.current_dir(self.house.dir()).env("PGUSER", "postgres");
        load.args([
            "-n",
            "-M",
            "prepared",
            "-f",
            "transfer.sql",
            "-j",
            "1",
            "-l",
        ]);
        load.args(["-h", "127.0.0.1", "-p", &self.house.port(0).to_string()]);
        load.args(["-D", &format!("accounts={}", self.accounts)]);
        load.args(["-c", &case.connections.to_string()]);
        load.args(["-T", &length.as_secs_f64().ceil().to_string(), "postgres"]);
        done(&mut load).map(drop)
    }

    fn logs(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.house.dir())?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_log = |path: &PathBuf| path.to_string_lossy().contains("pgbench_log");
        Ok(paths.filter(is_log).collect())
    }
}

impl System for Postgres {
    fn name(&self) -> String {
        format!("{} with a synchronous standby", self.version)
    }

    fn run(&mut self, case: &Case, plan: &Plan) -> anyhow::Result<Option<Run>> {
        if case.what != What::Transfer || case.depth > 1 {
            return Ok(None);
        }
        if self.accounts != case.among {
            self.prepare(case.among)?;
        }
        self.load(case, plan.warm_up)?;
        let servers = self.house.servers();
        let (used, own) = (servers.usage(), children_cpu());
        self.load(case, plan.measured)?;
        let (used, own) = (servers.usage() - used, children_cpu() - own);
        let mut latency = histogram();
        let mut operations = 0;
        for log in self.logs()? {
            for line in std::fs::read_to_string(log)?.lines() {
                // Client, number of the transaction, microseconds, …
                let micros = line.split(' ').nth(2).context("a line of pgbench's log")?;
                latency.saturating_record(micros.parse::<u64>()? * 1000);
                operations += 1;
            }
        }
        ensure!(operations > 0, "pgbench did nothing");
        // It counts whole seconds.
        let elapsed = Duration::from_secs_f64(plan.measured.as_secs_f64().ceil());
        Ok(Some(Run {
            servers: used,
            own_cpu: own,
            ..Run::of(operations, elapsed, latency)
        }))
    }
}

/// The newest version's programs, where Debian puts them.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    bins.filter(|bin| bin.join("pg_basebackup").exists()).max()
}

fn version(bin: &Path) -> anyhow::Result<String> {
    let text = done(Command::new(bin.join("postgres")).arg("-V"))?;
    let number = text.split_whitespace().nth(2).context("a version")?;
    Ok(format!("PostgreSQL {number}"))
}

/// A directory of the user that the servers run as.
fn own_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
    if rustix::process::geteuid().is_root() {
        let id = |flag| -> anyhow::Result<u32> {
            let text = done(Command::new("id").args([flag, "postgres"]))?;
            Ok(text.trim().parse()?)
        };
        chown(path, Some(id("-u")?), Some(id("-g")?))?;
    }
    Ok(())
}

/// Runs a program to its end; what it said, if that was a success.
fn done(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?} cannot be started"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
