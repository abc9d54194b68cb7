//! One cluster of real processes: started by `standfast dev`, restarted node by node with the
//! command lines that `cluster.json` prints, and gone without a trace when dropped.
//!
//! Clean-up has two keepers: `Drop` kills every process whose command line names the cluster's
//! directory, and a small shell that waits on a pipe does the same when the test process itself
//! is killed. Both work by pid, and the directory's random name makes the match exact.

use crate::launch::{peer_ports, start_dev};
use crate::poll::until;
use crate::ports::{self, Range};
use crate::process::{Reaper, is_gone, signal};
use crate::proxy::Proxy;
use crate::resp::{Conn, Value};
use crate::spec::{Node, Spec};
use rustix::process::Signal;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use crate::ask::{SERVICE, answers, ask_discovery, digest, discover};

/// The longest any state of a healthy cluster on a loaded machine may take to come about.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One request that a healthy node answers at once.
pub const PROMPT: Duration = Duration::from_secs(10);

/// What a command of the command line said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Its standard output; panics with everything it said unless it exited with 0.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }
}

/// The processes of one cluster.
pub struct Cluster {
    binary: PathBuf,
    /// Holds the logs, and in `d` what the cluster itself writes.
    scratch: PathBuf,
    spec: Spec,
    range: Range,
    /// Where the spec asks for one.
    proxy: Option<Proxy>,
    dev: Child,
    /// Nodes this rig has restarted itself, by id; the newest process of each.
    restarted: BTreeMap<String, Child>,
    /// Its directory stays for whoever wants to know what happened.
    keep: bool,
    /// `None` only while the cluster is being dropped.
    reaper: Option<Reaper>,
}

impl Cluster {
    /// Starts a cluster and waits until it has a primary that answers a write.
    pub fn start(binary: &Path, spec: &Spec) -> Cluster {
        Cluster::start_in(binary, spec, &std::env::temp_dir())
    }

    /// As `start`, with the data directories below `parent`.
    pub fn start_in(binary: &Path, spec: &Spec, parent: &Path) -> Cluster {
        assert!(binary.is_file(), "no binary at {}", binary.display());
        let scratch = tempfile::Builder::new()
            .prefix("standfast-rig-")
            .tempdir_in(parent)
            .expect("a scratch directory can be made")
            .keep();
        let range = ports::claim();
        let reaper = Some(Reaper::start(&scratch));
        let proxy = spec
            .proxied
            .then(|| Proxy::start(&peer_ports(range.base, spec)));
        let dev = start_dev(binary, &scratch, range.base, spec);
        let mut cluster = Cluster {
            binary: binary.into(),
            scratch,
            spec: spec.clone(),
            range,
            proxy,
            dev,
            restarted: BTreeMap::new(),
            keep: false,
            reaper,
        };
        cluster.wait_started();
        cluster
    }

    fn wait_started(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        until(
            "cluster.json names every node and a primary serves",
            PATIENCE,
            || {
                if let Ok(Some(status)) = self.dev.try_wait() {
                    panic!(
                        "dev ended with {status} instead of starting; see {}",
                        self.scratch.display()
                    );
                }
                let nodes = self.try_nodes()?;
                (nodes.len() as u32 == self.spec.nodes()).then_some(())?;
                self.try_primary()
            },
        );
        if self.spec.protection != Some("max-performance") {
            let left = deadline.saturating_duration_since(Instant::now());
            self.wait_sync_backups_within(self.spec.sync as usize, left);
        }
    }

    /// The data directory of the whole cluster, `D`.
    pub fn dir(&self) -> PathBuf {
        self.scratch.join("d")
    }

    /// A directory beside the cluster's that goes when the cluster goes.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Leaves its directory behind and shows the end of every log when it is dropped, as if this
    /// thread had panicked.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// What was asked for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The binary it runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// What stands between its nodes; panics where the spec asked for nothing.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the spec says proxied")
    }

    /// Every node as `cluster.json` has it now.
    pub fn nodes(&self) -> Vec<Node> {
        until("cluster.json can be read", PROMPT, || self.try_nodes())
    }

    fn try_nodes(&self) -> Option<Vec<Node>> {
        let text = fs::read_to_string(self.dir().join("cluster.json")).ok()?;
        let json: Json = serde_json::from_str(&text).ok()?;
        json.get("nodes")?
            .as_array()?
            .iter()
            .map(Node::from_json)
            .collect()
    }

    /// The node of this id as it is now.
    pub fn node(&self, id: &str) -> Node {
        let found = self.nodes().into_iter().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("cluster.json has no node {id}"))
    }

    /// The nodes of this role as `cluster.json` has it now.
    pub fn of_role(&self, role: &str) -> Vec<Node> {
        self.nodes()
            .into_iter()
            .filter(|node| node.role == role)
            .collect()
    }

    /// Every client address.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes().into_iter().map(|node| node.client).collect()
    }

    /// The primary: the node that discovery names and that says itself that it is one and serves.
    pub fn primary(&self) -> Node {
        until("a node serves as primary", PATIENCE, || self.try_primary())
    }

    /// As `primary`, without waiting.
    pub fn try_primary(&self) -> Option<Node> {
        let nodes = self.try_nodes()?;
        let brief = Duration::from_millis(200);
        nodes.iter().find_map(|asked| {
            let address = discover(&asked.client, brief)?;
            let mut conn = Conn::open(&address, brief).ok()?;
            let role = conn.call(&["ROLE"]).ok()?;
            let serves = matches!(&role, Value::Array(parts)
                if parts.first().is_some_and(|name| name.text() == "master"));
            // A linearizable read proves that it is primary now and may say so to clients.
            let answers = conn.call(&["EXISTS", "rig:probe"]).ok()?;
            if !serves || answers.refusal().is_some() {
                return None;
            }
            nodes.iter().find(|node| node.client == address).cloned()
        })
    }

    /// A synchronous backup of this moment, once there is one.
    pub fn backup(&self) -> Node {
        until("there is a synchronous backup", PATIENCE, || {
            let primary = self.try_primary()?;
            let mut backups = self.of_role("sync-backup").into_iter();
            backups.find(|node| node.id != primary.id)
        })
    }

    /// A connection to the primary of this moment.
    pub fn client(&self) -> Conn {
        self.connect(&self.primary())
    }

    /// A connection to this node.
    pub fn connect(&self, node: &Node) -> Conn {
        until(&format!("node {} accepts clients", node.id), PROMPT, || {
            Conn::open(&node.client, PROMPT).ok()
        })
    }

    /// `STANDFAST STATUS` of this node.
    pub fn status(&self, node: &Node) -> Json {
        let reply = self
            .connect(node)
            .call(&["STANDFAST", "STATUS"])
            .expect("STATUS is answered");
        serde_json::from_str(&reply.text()).unwrap_or_else(|_| panic!("no JSON: {reply:?}"))
    }

    /// Waits until `cluster.json` shows this many synchronous backups.
    pub fn wait_sync_backups(&self, count: usize) {
        self.wait_sync_backups_within(count, PATIENCE);
    }

    fn wait_sync_backups_within(&self, count: usize, limit: Duration) {
        until(
            &format!("cluster.json shows {count} synchronous backups"),
            limit,
            || {
                let nodes = self.try_nodes()?;
                let live = nodes.iter().filter(|node| node.role == "sync-backup");
                (live.filter(|node| node.pid.is_some()).count() == count).then_some(())
            },
        );
    }

    /// The pid of a node's running process.
    pub fn pid(&self, node: &Node) -> u32 {
        match self.restarted.get(&node.id) {
            Some(child) => child.id(),
            None => until(&format!("node {} has a pid", node.id), PROMPT, || {
                self.node(&node.id).pid
            }),
        }
    }

    /// SIGKILL; back once the process is gone.
    pub fn kill(&mut self, node: &Node) {
        let pid = self.pid(node);
        signal(pid, Signal::KILL);
        self.wait_gone(node, pid);
    }

    /// SIGKILL to several nodes in one breath; back once all are gone.
    pub fn kill_all(&mut self, nodes: &[Node]) {
        let pids: Vec<u32> = nodes.iter().map(|node| self.pid(node)).collect();
        for &pid in &pids {
            signal(pid, Signal::KILL);
        }
        for (node, pid) in nodes.iter().zip(pids) {
            self.wait_gone(node, pid);
        }
    }

    fn wait_gone(&mut self, node: &Node, pid: u32) {
        if let Some(mut child) = self.restarted.remove(&node.id) {
            child
                .wait()
                .expect("a child of this process can be waited for");
        }
        until(
            &format!("process {pid} of node {} is gone", node.id),
            PROMPT,
            || is_gone(pid).then_some(()),
        );
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn pause(&self, node: &Node) {
        signal(self.pid(node), Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self, node: &Node) {
        signal(self.pid(node), Signal::CONT);
    }

    /// Starts a node again with the command line that `cluster.json` prints for it.
    pub fn restart(&mut self, node: &Node) {
        self.restart_with(node, &[]);
    }

    /// As `restart`, with these variables in its environment.
    pub fn restart_with(&mut self, node: &Node, variables: &[(&str, &str)]) {
        // `exec`, so that the pid we hold is the node's own.
        let log = self.log_file(&format!("node-{}-restarted.log", node.id));
        let child = Command::new("sh")
            .args(["-c", &format!("exec {}", node.start)])
            .envs(self.spec.environment.iter().cloned())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("sh can be started");
        self.restarted.insert(node.id.clone(), child);
    }

    /// The exit code of a node that this rig restarted; `None` while it runs.
    pub fn exited(&mut self, node: &Node) -> Option<i32> {
        let child = self.restarted.get_mut(&node.id)?;
        let status = child
            .try_wait()
            .expect("a child of this process can be asked")?;
        self.restarted.remove(&node.id);
        Some(status.code().unwrap_or(-1))
    }

    /// What a restarted node has printed, over all its restarts.
    pub fn printed(&self, node: &Node) -> String {
        let path = self.scratch.join(format!("node-{}-restarted.log", node.id));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Kills all nodes and `dev` itself, as a power cut would.
    pub fn kill_everything(&mut self) {
        let live: Vec<Node> = self
            .nodes()
            .into_iter()
            .filter(|node| node.pid.is_some())
            .collect();
        self.kill_all(&live);
        signal(self.dev.id(), Signal::KILL);
        self.dev
            .wait()
            .expect("a child of this process can be waited for");
    }

    /// Runs `dev` again on the same directory and ports.
    pub fn start_dev_again(&mut self) {
        self.dev = start_dev(&self.binary, &self.scratch, self.range.base, &self.spec);
        self.wait_started();
    }

    /// Runs `standfast` with these arguments to its end.
    pub fn cli(&self, args: &[&str]) -> Said {
        let output = Command::new(&self.binary)
            .args(args)
            .envs(self.spec.environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .expect("the binary can be started");
        Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Waits until every one of these nodes has applied the same LSN and holds the same digest.
    /// Equal LSNs with different digests are a broken I2: that panics at once.
    pub fn wait_equal_digests(&self, nodes: &[Node]) -> (i64, String) {
        until("all nodes have applied the same LSN", PATIENCE, || {
            let digests: Option<Vec<_>> = nodes.iter().map(|node| digest(&node.client)).collect();
            let digests = digests?;
            let (first, rest) = digests.split_first()?;
            rest.iter().all(|other| other.0 == first.0).then_some(())?;
            for (node, other) in nodes[1..].iter().zip(rest) {
                assert_eq!(
                    first.1, other.1,
                    "I2: nodes {} and {} differ at LSN {}",
                    nodes[0].id, node.id, first.0
                );
            }
            Some(first.clone())
        })
    }

    /// The nodes that hold data, as they are now.
    pub fn data_nodes(&self) -> Vec<Node> {
        self.nodes().into_iter().filter(Node::holds_data).collect()
    }

    fn log_file(&self, name: &str) -> File {
        let path = self.scratch.join(name);
        let open = fs::OpenOptions::new().create(true).append(true).open(&path);
        open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The reaper kills what is left; only then can the children be waited for.
        self.reaper = None;
        let _ = self.dev.wait();
        for child in self.restarted.values_mut() {
            let _ = child.wait();
        }
        if std::thread::panicking() || self.keep {
            self.show_logs();
        } else {
            let _ = fs::remove_dir_all(&self.scratch);
        }
    }
}

impl Cluster {
    /// The end of every log, for whoever reads why a test failed.
    fn show_logs(&self) {
        eprintln!(
            "--- the cluster's directory is kept: {}",
            self.scratch.display()
        );
        let own = [PathBuf::from("dev.log")];
        let nodes = 0..self.spec.nodes();
        let logs = nodes.flat_map(|id| {
            let restarted = PathBuf::from(format!("node-{id}-restarted.log"));
            [PathBuf::from(format!("d/node-{id}/log")), restarted]
        });
        for path in own
            .into_iter()
            .chain(logs)
            .map(|path| self.scratch.join(path))
        {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", path.display());
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}
