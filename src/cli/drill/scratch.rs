//! A directory of a drill's own and a node in it: neither outlives the drill, however that ends.

use super::guard::{Guard, Undo, raw};
use crate::cli::connect::{Answer, Node};
use crate::cli::exit::Failure;
use crate::config::{Config, HostPort, LogLevel, SETTINGS, Value};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Signal, kill_process};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the names of such directories begin with; the drill's pid is behind it.
const PREFIX: &str = "standfast-drill-";
const LOCK: &str = "lock";
/// Between two looks at a node that starts or stops.
const LOOK: Duration = Duration::from_millis(10);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a node may take to stop before it is killed.
const STOPPING: Duration = Duration::from_secs(5);
/// How many of a node's last log lines an error shows.
const LAST_LINES: usize = 5;

/// The directory.
pub struct Scratch {
    pub path: PathBuf,
    /// Tells other drills that this one lives.
    _lock: OwnedFd,
    guard: Guard,
}

impl Scratch {
    /// Makes it below `parent`; also answers what was removed of drills that have died.
    pub fn make(parent: &Path) -> Result<(Scratch, Vec<PathBuf>), Failure> {
        std::fs::create_dir_all(parent)?;
        let parent = parent.canonicalize()?;
        let removed = remove_leftovers(&parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        let guard = Guard::start(&Undo {
            remove: Some(path.clone()),
            ..Undo::default()
        })?;
        // What is restored is as secret as the node that it was backed up from.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let lock = try_lock(&path)?;
        Ok((
            Scratch {
                path,
                _lock: lock,
                guard,
            },
            removed,
        ))
    }

    pub fn remove(self) -> Result<(), String> {
        self.guard.release()
    }
}

fn try_lock(dir: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = open(dir.join(LOCK), flags, Mode::from(0o600))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Removes directories of drills that are dead: their process is gone and nobody holds the lock.
fn remove_leftovers(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let is_dead = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let pid = name.and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let is_gone = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        is_gone && path.is_dir() && try_lock(path).is_ok()
    };
    let dead = entries.map(|entry| entry.path()).filter(is_dead);
    // One that cannot be removed is another user's, whose next drill will.
    dead.filter(|path| std::fs::remove_dir_all(path).is_ok())
        .collect()
}

/// Three free ports on the loopback, held until the node is started.
pub struct Ports([TcpListener; 3]);

impl Ports {
    pub fn find() -> std::io::Result<Ports> {
        let free = || TcpListener::bind(("127.0.0.1", 0));
        Ok(Ports([free()?, free()?, free()?]))
    }

    /// `client`, `peer` and `http`.
    pub fn addresses(&self) -> std::io::Result<[HostPort; 3]> {
        let [client, peer, http] = &self.0;
        let address = |listener: &TcpListener| {
            let text = listener.local_addr()?.to_string();
            Ok(HostPort::parse(&text).expect("a socket's address is host:port"))
        };
        let all: std::io::Result<Vec<HostPort>> =
            [client, peer, http].into_iter().map(address).collect();
        Ok(all?.try_into().expect("three of three"))
    }
}

/// A node that serves the restored directory.
pub struct Serving {
    child: Child,
    pub client: String,
    log: PathBuf,
}

impl Serving {
    /// Starts our own program on `config`, whose addresses are those of `ports`.
    pub fn start(scratch: &Path, config: &Config, ports: Ports) -> Result<Serving, Failure> {
        let settings = scratch.join("node.toml");
        let log = scratch.join("log");
        std::fs::write(&settings, config.to_toml())?;
        std::fs::write(&log, "")?;
        let output = || std::fs::OpenOptions::new().append(true).open(&log);
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["serve", "--exit-with-parent", "--config"])
            .arg(&settings);
        for setting in SETTINGS {
            command.env_remove(setting.variable());
        }
        command.process_group(0).stdin(Stdio::null());
        command.stdout(output()?).stderr(output()?);
        drop(ports);
        Ok(Serving {
            child: command.spawn()?,
            client: config.client_listen.to_string(),
            log,
        })
    }

    /// Waits until it is primary of its history and has applied `lsn`.
    pub fn wait_until_it_serves(&mut self, lsn: u64, within: Duration) -> Result<Answer, String> {
        let deadline = Instant::now() + within;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}:{}", self.last_lines()));
            }
            let look = Node::open(&self.client, PATIENCE);
            let seen = look.and_then(|mut node| node.status_within(PATIENCE));
            let why = match seen {
                Ok(answer) if answer.status.is_primary() && answer.status.applied >= lsn => {
                    return Ok(answer);
                }
                Ok(answer) => format!("it is {} {}", answer.status.role, answer.status.reason),
                Err(failure) => failure.message,
            };
            if Instant::now() >= deadline {
                let within = within.as_secs_f64();
                return Err(format!("it does not serve within {within} s: {why}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let lines = lines[from..].iter().map(|line| format!("\n  {line}"));
        lines.collect()
    }

    /// In good order if it can.
    pub fn stop(mut self) -> Result<String, String> {
        if let Some(pid) = raw(self.child.id()) {
            // An error means that it has ended by itself; the wait below tells.
            let _gone = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOPPING;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(format!("the node ended with {status}")),
                Ok(None) => std::thread::sleep(LOOK),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok("the node did not stop and was killed".to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of a node that serves `data_dir` and nobody but the drill.
pub fn settings(
    base: &Config,
    cluster: &str,
    data_dir: PathBuf,
    addresses: [HostPort; 3],
) -> Config {
    let [client_listen, peer_listen, http_listen] = addresses;
    Config {
        node: super::restore::NODE,
        cluster: Value::parse(cluster).unwrap_or_else(|| base.cluster.clone()),
        cluster_id: None,
        data_dir,
        role: crate::config::MemberRole::Data,
        client_listen,
        client_advertised: None,
        peer_listen,
        peer_advertised: None,
        http_listen,
        http_advertised: None,
        peers: Vec::new(),
        // It takes no writes: there is nothing to be saved.
        snapshot_interval: Duration::ZERO,
        snapshot_after: Value::parse("0B").expect("a size"),
        archive: None,
        archive_recipients: Vec::new(),
        drill_interval: Duration::ZERO,
        log_level: LogLevel("warn".to_owned()),
        ..base.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_drills_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a scratch directory");
        // Linux gives no process a number above 4194304.
        let dead = parent.path().join(format!("{PREFIX}4194999"));
        let ours = parent
            .path()
            .join(format!("{PREFIX}{}", std::process::id()));
        let held = parent.path().join(format!("{PREFIX}4194998"));
        let other = parent.path().join("something");
        for dir in [&dead, &ours, &held, &other] {
            std::fs::create_dir(dir).expect("a new directory");
        }
        let _held = try_lock(&held).expect("nobody else is here");
        assert_eq!(remove_leftovers(parent.path()), std::slice::from_ref(&dead));
        assert!(!dead.exists() && ours.exists() && held.exists() && other.exists());
    }

    #[test]
    fn a_drills_node_listens_on_the_loopback_only_and_knows_no_peers_and_no_archive() {
        let ports = Ports::find().expect("free ports");
        let addresses = ports.addresses().expect("bound");
        let base = Config {
            client_advertised: HostPort::parse("10.0.0.1:7600"),
            peers: Value::parse("2@10.0.0.2:7601").expect("a peer"),
            archive: Value::parse("s3://production/books"),
            ..Config::default()
        };
        let config = settings(&base, "books", PathBuf::from("/s/data"), addresses);
        assert_eq!(crate::config::check(&config), Vec::<String>::new());
        assert_eq!(config.cluster.as_str(), "books");
        assert!(config.peers.is_empty());
        assert_eq!(config.archive, None);
        for address in [
            config.client_address(),
            config.peer_address(),
            config.http_address(),
        ] {
            assert!(address.to_string().starts_with("127.0.0.1:"), "{address}");
        }
    }
}
