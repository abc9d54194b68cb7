//! Finds a node that answers, follows it to the primary, and asks `STANDFAST …` of it.

use super::exit::{ExitCode, Failure};
use crate::config::{Config, HostPort, Sources, Value};
use crate::node::status::Status;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one node may take to tell its status.
const STATUS: Duration = Duration::from_secs(3);
/// Where the first node of `standfast dev` listens.
const DEFAULT: &str = "127.0.0.1:7600";
/// Where `standfast dev` writes what it runs.
const DEV_CLUSTER: &str = "standfast-dev/cluster.json";

/// Which node to ask.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Target {
    /// A node's client address; may be given several times, the first that answers is asked
    #[arg(long, value_name = "HOST:PORT")]
    pub node: Vec<String>,
    /// Ask the node that this settings file is for
    #[arg(long, value_name = "FILE", conflicts_with = "node")]
    pub config: Option<PathBuf>,
}

impl Target {
    /// Where to ask, in order.
    pub fn addresses(&self) -> Result<Vec<String>, Failure> {
        if let Some(file) = &self.config {
            let sources = Sources::with_environment(Some(file.clone()), Vec::new());
            let config = Config::load(&sources)?.config;
            return Ok(vec![config.client_address().to_string()]);
        }
        for node in &self.node {
            if HostPort::parse(node).is_none() {
                return Err(Failure::new(
                    ExitCode::Usage,
                    format!("--node {node}: expected {}", HostPort::KIND),
                ));
            }
        }
        if !self.node.is_empty() {
            return Ok(self.node.clone());
        }
        Ok(dev_addresses(Path::new(DEV_CLUSTER)).unwrap_or_else(|| vec![DEFAULT.to_owned()]))
    }

    /// The first node that answers, with its view of the cluster.
    pub fn any(&self) -> Result<(Node, Answer), Failure> {
        let addresses = self.addresses()?;
        let mut reasons = Vec::new();
        for address in &addresses {
            match Node::open(address, CONNECT).and_then(|mut node| {
                let answer = node.status()?;
                Ok((node, answer))
            }) {
                Ok(found) => return Ok(found),
                Err(failure) => reasons.push(failure.message),
            }
        }
        Err(
            Failure::new(ExitCode::Unreachable, reasons.join("\n       ")).hint(
                "is the cluster running? `--node HOST:PORT` names a node; `standfast dev` starts a \
             cluster here",
            ),
        )
    }

    /// The primary, found through any node that answers.
    pub fn primary(&self) -> Result<(Node, Answer), Failure> {
        let (node, answer) = self.any()?;
        if answer.status.is_primary() {
            return Ok((node, answer));
        }
        let view = &answer.status;
        let named = view.primary.and_then(|id| view.member(id));
        let asked = [Some(view.node), view.primary];
        let others = view
            .members
            .iter()
            .filter(|member| !asked.contains(&Some(member.id)));
        let mut reasons = Vec::new();
        // The node may not know of the newest primary yet, or not be told: any member may.
        for member in named.into_iter().chain(others) {
            match Node::open(&member.client, CONNECT).and_then(|mut node| {
                let answer = node.status()?;
                Ok((node, answer))
            }) {
                Ok((node, answer)) if answer.status.is_primary() => return Ok((node, answer)),
                Ok(_) => {}
                Err(failure) => reasons.push(format!("\n       {}", failure.message)),
            }
        }
        Err(Failure::new(
            ExitCode::Unreachable,
            format!(
                "no node known to node {} at {} is primary now{}",
                view.node,
                node.address,
                reasons.concat()
            ),
        )
        .hint("a failover may be under way: try again, or look at `standfast status`"))
    }
}

/// The client addresses of a cluster that `standfast dev` runs, the running nodes first.
fn dev_addresses(file: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    let json: serde_json::Value = serde_json::from_str(&text).ok()?;
    let mut nodes: Vec<&serde_json::Value> = json["nodes"].as_array()?.iter().collect();
    nodes.sort_by_key(|node| node["pid"].is_null());
    nodes
        .iter()
        .map(|node| node["client"].as_str().map(str::to_owned))
        .collect()
}

/// One node's status, as it was sent and as it was understood.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: Status,
    pub json: serde_json::Value,
}

/// A connection to one node.
pub struct Node {
    pub address: String,
    connection: redis::Connection,
}

impl Node {
    pub fn open(address: &str, timeout: Duration) -> Result<Node, Failure> {
        let unreachable = |error: redis::RedisError| {
            let why = reason(&error);
            Failure::new(
                ExitCode::Unreachable,
                format!("{address} does not answer: {why}"),
            )
        };
        let client = redis::Client::open(format!("redis://{address}")).map_err(unreachable)?;
        let connection = client
            .get_connection_with_timeout(timeout)
            .map_err(unreachable)?;
        Ok(Node {
            address: address.to_owned(),
            connection,
        })
    }

    /// This node's view of itself and its cluster.
    pub fn status(&mut self) -> Result<Answer, Failure> {
        self.status_within(STATUS)
    }

    pub fn status_within(&mut self, timeout: Duration) -> Result<Answer, Failure> {
        let text = self.ask(&["STATUS"], timeout).map_err(|failure| Failure {
            // Nothing was asked for that could have happened.
            code: ExitCode::Unreachable,
            ..failure
        })?;
        let understood = serde_json::from_str(&text).and_then(|json: serde_json::Value| {
            Ok(Answer {
                status: serde_json::from_value(json.clone())?,
                json,
            })
        });
        understood.map_err(|error| {
            Failure::new(
                ExitCode::Failed,
                format!(
                    "{} answers a status this program cannot read: {error}",
                    self.address
                ),
            )
        })
    }

    /// Sends `STANDFAST <args>` and waits for its text; a refusal is a failure.
    pub fn ask(&mut self, args: &[&str], timeout: Duration) -> Result<String, Failure> {
        self.ask_plainly(args, timeout)?.map_err(|refusal| {
            let code = if refusal.starts_with("UNKNOWN ") {
                ExitCode::Unknown
            } else {
                ExitCode::Refused
            };
            let plain = refusal.strip_prefix("ERR ").unwrap_or(&refusal);
            Failure::new(code, format!("{} refuses: {plain}", self.address))
        })
    }

    /// As `ask`; the inner error is the text of a refusal.
    pub fn ask_plainly(
        &mut self,
        args: &[&str],
        timeout: Duration,
    ) -> Result<Result<String, String>, Failure> {
        let words: Vec<&str> = ["STANDFAST"].iter().chain(args).copied().collect();
        let told = self.command(&words, timeout)?;
        Ok(told.and_then(|reply| {
            redis::from_redis_value(reply).map_err(|error| format!("ERR no text: {error}"))
        }))
    }

    /// Sends any command; the inner error is the text of a refusal.
    pub fn command(
        &mut self,
        words: &[&str],
        timeout: Duration,
    ) -> Result<Result<redis::Value, String>, Failure> {
        let set = self
            .connection
            .set_read_timeout(Some(timeout))
            .and_then(|()| self.connection.set_write_timeout(Some(timeout)));
        set.map_err(|error| Failure::new(ExitCode::Failed, error.to_string()))?;
        let (name, args) = words.split_first().expect("a command has a name");
        match redis::cmd(name)
            .arg(args)
            .query::<redis::Value>(&mut self.connection)
        {
            Ok(reply) => Ok(Ok(reply)),
            Err(error) => match (error.code(), error.detail()) {
                (Some(code), Some(detail)) => Ok(Err(format!("{code} {detail}"))),
                (Some(code), None) => Ok(Err(code.to_owned())),
                (None, _) => Err(self.lost(words, &error)),
            },
        }
    }

    fn lost(&self, args: &[&str], error: &redis::RedisError) -> Failure {
        let asked = args.iter().find(|word| **word != "STANDFAST");
        let what = asked.copied().unwrap_or_default().to_ascii_lowercase();
        let why = reason(error);
        Failure::new(
            ExitCode::Unknown,
            format!(
                "{} was asked for {what} and its answer was lost: {why}",
                self.address
            ),
        )
        .hint("`standfast status` shows whether it was done")
    }
}

fn reason(error: &redis::RedisError) -> String {
    if error.is_timeout() {
        "it takes too long".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_nodes_of_a_dev_cluster_are_asked_first() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = dir.path().join("cluster.json");
        let text = r#"{"nodes":[{"client":"a:1","pid":null},{"client":"b:1","pid":7}]}"#;
        std::fs::write(&file, text).expect("a scratch file");
        let found = dev_addresses(&file).expect("two nodes");
        assert_eq!(found, ["b:1", "a:1"]);
        assert_eq!(dev_addresses(&dir.path().join("none")), None);
    }

    #[test]
    fn a_named_node_wins_and_must_be_an_address() {
        let target = |node: &str| Target {
            node: vec![node.to_owned()],
            config: None,
        };
        assert_eq!(target("h:1").addresses().expect("valid"), ["h:1"]);
        let refused = target("h").addresses().expect_err("no port");
        assert_eq!(refused.code, ExitCode::Usage);
    }
}
