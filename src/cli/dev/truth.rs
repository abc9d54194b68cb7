//! `cluster.json`: what is true of each node now, from asking every node and looking at `/proc`.

use crate::cli::connect::Node;
use crate::cli::exit::Failure;
use crate::node::status::{Role, Status};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often each node is asked.
const EVERY: Duration = Duration::from_millis(200);
/// How long a node may take to answer before its last view no longer counts.
const PATIENCE: Duration = Duration::from_millis(300);

/// The file, as scripts and tests read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub nodes: Vec<NodeLine>,
    /// The URL of the off-site store.
    pub offsite: Option<String>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeLine {
    pub id: u32,
    pub role: Role,
    /// `host:port`, as all addresses here.
    pub client: String,
    pub http: String,
    /// `None` for a node that is down.
    pub pid: Option<u32>,
    pub data_dir: String,
    /// The command line that starts it again.
    pub start: String,
}

impl Cluster {
    pub const FILE: &'static str = "cluster.json";

    pub fn read(dir: &Path) -> Option<Cluster> {
        let text = std::fs::read_to_string(dir.join(Cluster::FILE)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Readers see the old file or the new one, never half of either.
    pub fn write(&self, dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).expect("plain fields encode");
        write_whole(dir, Cluster::FILE, &text)
    }

    /// Takes each role from the view that knows most of the register. A node that it does not name
    /// is outside: it holds a copy at best.
    pub fn take_roles(&mut self, views: &[Status]) {
        let knows = |view: &&Status| !view.members.is_empty();
        let Some(best) = views
            .iter()
            .filter(knows)
            .max_by_key(|view| view.freshness())
        else {
            return;
        };
        for node in &mut self.nodes {
            if let Some(member) = best.member(standfast_wal::NodeId(node.id)) {
                node.role = member.role;
            } else if node.role != Role::Witness {
                node.role = Role::AsyncBackup;
            }
        }
    }
}

/// Replaces a file of `dir` at once.
pub fn write_whole(dir: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let temporary = dir.join(format!("{name}.new"));
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, dir.join(name))?;
    Ok(())
}

/// Asks one node again and again, in a thread of its own: a node that is paused keeps nobody
/// waiting but its own.
pub struct Watch {
    seen: Arc<Mutex<Option<Status>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(address: String) -> Watch {
        let watch = Watch {
            seen: Arc::default(),
            stop: Arc::default(),
        };
        let (seen, stop) = (watch.seen.clone(), watch.stop.clone());
        std::thread::spawn(move || {
            let mut node = None;
            while !stop.load(Ordering::Relaxed) {
                let view = ask(&address, &mut node);
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = view;
                std::thread::sleep(EVERY);
            }
        });
        watch
    }

    /// The node's last view; `None` if it did not answer last time.
    pub fn view(&self) -> Option<Status> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(address: &str, node: &mut Option<Node>) -> Option<Status> {
    if node.is_none() {
        *node = Node::open(address, PATIENCE).ok();
    }
    let answer = node.as_mut()?.status_within(PATIENCE);
    if answer.is_err() {
        // After a lost answer the connection is out of step.
        *node = None;
    }
    answer.ok().map(|answer| answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::status::MemberStatus;
    use standfast_wal::NodeId;
    use std::io::{BufRead, BufReader, Write};

    fn sample() -> Cluster {
        let node = |id, role, pid| NodeLine {
            id,
            role,
            client: format!("127.0.0.1:{}", 7600 + 10 * id),
            http: format!("127.0.0.1:{}", 7602 + 10 * id),
            pid,
            data_dir: format!("/d/node-{id}/data"),
            start: format!("standfast serve --config /d/node-{id}/node.toml"),
        };
        Cluster {
            nodes: vec![
                node(0, Role::Primary, Some(7)),
                node(1, Role::SyncBackup, None),
            ],
            offsite: None,
        }
    }

    #[test]
    fn the_file_has_the_promised_shape_and_reads_back() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        sample().write(dir.path()).expect("written");
        assert_eq!(Cluster::read(dir.path()), Some(sample()));
        let text = std::fs::read_to_string(dir.path().join("cluster.json")).expect("there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "nodes": [
                    {"id": 0, "role": "primary", "client": "127.0.0.1:7600",
                     "http": "127.0.0.1:7602", "pid": 7, "data_dir": "/d/node-0/data",
                     "start": "standfast serve --config /d/node-0/node.toml"},
                    {"id": 1, "role": "sync-backup", "client": "127.0.0.1:7610",
                     "http": "127.0.0.1:7612", "pid": null, "data_dir": "/d/node-1/data",
                     "start": "standfast serve --config /d/node-1/node.toml"},
                ],
                "offsite": null,
            })
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    fn view(epoch: u64, version: u64, roles: &[Role]) -> Status {
        let member = |(id, role): (usize, &Role)| MemberStatus {
            id: NodeId(id as u32),
            role: *role,
            ..MemberStatus::default()
        };
        Status {
            generation: 1,
            epoch,
            config_version: version,
            members: roles.iter().enumerate().map(member).collect(),
            ..Status::default()
        }
    }

    #[test]
    fn roles_come_from_the_view_that_knows_most_of_the_register() {
        let mut cluster = sample();
        let paused = view(3, 9, &[Role::Primary, Role::SyncBackup]);
        let newer = view(4, 10, &[Role::AsyncBackup, Role::Primary]);
        let outside = Status {
            epoch: 99,
            ..Status::default()
        };
        cluster.take_roles(&[paused, newer, outside]);
        let roles: Vec<Role> = cluster.nodes.iter().map(|node| node.role).collect();
        assert_eq!(roles, [Role::AsyncBackup, Role::Primary]);
        let forced = Status {
            generation: 2,
            ..view(5, 11, &[Role::Primary])
        };
        cluster.take_roles(&[forced]);
        assert_eq!(
            cluster.nodes[1].role,
            Role::AsyncBackup,
            "outside the new history"
        );
        cluster.nodes[1].role = Role::Primary;
        cluster.take_roles(&[]);
        assert_eq!(
            cluster.nodes[1].role,
            Role::Primary,
            "without a view roles stay"
        );
    }

    /// A node that answers every command with a status, through a real socket.
    fn answering(status: &Status) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let text = serde_json::to_string(status).expect("plain fields encode");
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("one client");
            let mut writer = socket.try_clone().expect("a handle can be doubled");
            let mut words = Vec::new();
            for line in BufReader::new(socket).lines() {
                let Ok(line) = line else { return };
                words.push(line.to_ascii_uppercase());
                let reply = match words.last().map(String::as_str) {
                    Some("STATUS") => format!("${}\r\n{text}\r\n", text.len()),
                    Some("SETINFO") => "+OK\r\n".to_owned(),
                    _ => continue,
                };
                if writer.write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
        });
        address
    }

    #[test]
    fn a_watched_node_is_seen() {
        let status = view(4, 2, &[Role::Primary]);
        let watch = Watch::start(answering(&status).to_string());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while watch.view().is_none() {
            assert!(
                std::time::Instant::now() < deadline,
                "the node was never seen"
            );
            std::thread::yield_now();
        }
        assert_eq!(watch.view(), Some(status));
    }
}
