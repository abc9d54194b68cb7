//! PostgreSQL: a primary and a standby that has each commit on disk before it is acknowledged.
//! Transfers are made by pgbench, its own load, in one round trip each: two updates and an insert
//! in one transaction.

use super::super::contents::warm;
use super::super::load::Plan;
use super::super::load::measure::{Run, histogram};
use super::super::load::usage::children_cpu;
use super::super::system::{Case, System, What};
use super::Household;
use anyhow::{Context, ensure};
use rig::cluster::PATIENCE;
use rig::until;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// Of one that keeps its log, and writes it as fast as it can.
const ALONE: &str = "
synchronous_commit = off
shared_buffers = 512MB
max_wal_size = 4GB
wal_level = replica
archive_mode = on
";

/// How long a recovery may take.
const LONG: Duration = Duration::from_secs(1800);

pub struct Postgres {
    house: Household,
    bin: PathBuf,
    version: String,
    accounts: u64,
}

impl Postgres {
    /// A primary and a synchronous standby that was copied from it.
    pub fn start(dir: &Path) -> anyhow::Result<Postgres> {
        let (mut postgres, primary) = Postgres::initialised(dir, SETTINGS)?;
        let standby = postgres.house.dir().join("standby");
        own_directory(&standby)?;
        postgres.serve(0, &primary)?;
        postgres.copy_to(&standby, &["-R"])?;
        postgres.serve(1, &standby)?;
        until("the standby is synchronous", PATIENCE, || {
            let state = postgres
                .ask("SELECT sync_state FROM pg_stat_replication")
                .ok()?;
            (state.trim() == "sync").then_some(())
        });
        Ok(postgres)
    }

    /// One that keeps its log in `log`, and was asked nothing yet.
    pub fn archiving(dir: &Path) -> anyhow::Result<Postgres> {
        let (mut postgres, primary) = Postgres::initialised(dir, ALONE)?;
        let log = postgres.log();
        own_directory(&log)?;
        let command = format!("archive_command = 'cp %p {}/%f'\n", log.display());
        append(&primary.join("postgresql.conf"), &command)?;
        postgres.serve(0, &primary)?;
        Ok(postgres)
    }

    fn log(&self) -> PathBuf {
        self.house.dir().join("log")
    }

    fn base(&self) -> PathBuf {
        self.house.dir().join("base")
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Takes a copy of what is there, whose log is kept from here on.
    pub fn back_up(&self) -> anyhow::Result<()> {
        own_directory(&self.base())?;
        self.copy_to(&self.base(), &["-c", "fast"])
    }

    /// Reads the copy and the log once; how many bytes they are.
    pub fn warm(&self) -> anyhow::Result<u64> {
        Ok(warm(&self.base())? + warm(&self.log())?)
    }

    /// Ends the log that is kept, and the server.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let last = self.ask("SELECT pg_walfile_name(pg_switch_wal())")?;
        until("the last of the log is kept", PATIENCE, || {
            let kept = self.ask("SELECT last_archived_wal FROM pg_stat_archiver");
            (kept.ok()?.trim() >= last.trim()).then_some(())
        });
        self.house.stop();
        Ok(())
    }

    /// Makes a directory of the copy, and has a server replay the log on it; back when `sql` has an
    /// answer.
    pub fn restore(&mut self, sql: &str) -> anyhow::Result<Duration> {
        self.house.stop();
        let to = self.house.dir().join("restored");
        if to.exists() {
            std::fs::remove_dir_all(&to)?;
        }
        let begun = Instant::now();
        done(Command::new("cp").arg("-a").args([self.base(), to.clone()]))?;
        let log = self.log();
        let settings = format!(
            "archive_mode = off\nrestore_command = 'cp {}/%f %p'\n",
            log.display()
        );
        append(&to.join("postgresql.conf"), &settings)?;
        append(&to.join("recovery.signal"), "")?;
        self.serve(0, &to)?;
        until("the last row is there", LONG, || {
            let answer = self.ask(sql).ok()?;
            (!answer.trim().is_empty()).then_some(())
        });
        Ok(begun.elapsed())
    }

    fn copy_to(&self, to: &Path, more: &[&str]) -> anyhow::Result<()> {
        let mut copy = self.unprivileged("pg_basebackup");
        copy.arg("-D").arg(to).args(more);
        copy.args(["-h", "127.0.0.1", "-U", "postgres"]);
        copy.args(["-p", &self.house.port(0).to_string()]);
        done(&mut copy).map(drop)
    }

    /// A new primary's directory, with these settings.
    fn initialised(dir: &Path, settings: &str) -> anyhow::Result<(Postgres, PathBuf)> {
        let bin = binaries().context("PostgreSQL is not installed")?;
        let house = Household::new("postgres", dir)?;
        // The servers do not run as root, and must reach their directories.
        std::fs::set_permissions(house.dir(), PermissionsExt::from_mode(0o755))?;
        let primary = house.dir().join("primary");
        own_directory(&primary)?;
        let postgres = Postgres {
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
        append(&primary.join("postgresql.conf"), settings)?;
        Ok((postgres, primary))
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

    pub fn ask(&self, sql: &str) -> anyhow::Result<String> {
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

/// Whose file it is stays as it is.
fn append(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
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
