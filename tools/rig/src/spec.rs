//! What cluster to start, and what `cluster.json` says of it.

use serde_json::Value as Json;
use std::path::PathBuf;

/// What cluster to start.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub sync: u32,
    pub asynchronous: u32,
    pub witness: u32,
    /// The `--protection` argument; `None` leaves the default.
    pub protection: Option<&'static str>,
    /// The `--acks` argument; `None` leaves the default.
    pub acks: Option<&'static str>,
    /// Whether a fault proxy stands between the nodes.
    pub proxied: bool,
    /// The `--archive` argument.
    pub archive: Option<String>,
    /// The `--archive-recipient` argument.
    pub archive_recipient: Option<String>,
    /// What nodes and commands have in their environment besides ours.
    pub environment: Vec<(String, String)>,
}

impl Spec {
    /// A primary, one synchronous backup and a witness.
    pub fn pair() -> Spec {
        Spec {
            sync: 1,
            witness: 1,
            ..Spec::default()
        }
    }

    /// Three full copies, acknowledged by a majority.
    pub fn triple() -> Spec {
        Spec {
            sync: 2,
            ..Spec::default()
        }
    }

    /// The same cluster with a fault proxy between its nodes.
    pub fn proxied(self) -> Spec {
        Spec {
            proxied: true,
            ..self
        }
    }

    /// The same cluster, with an archive at this place.
    pub fn archived(self, place: &str) -> Spec {
        Spec {
            archive: Some(place.into()),
            ..self
        }
    }

    /// The same cluster, with its archive encrypted to this recipient.
    pub fn sealed_to(self, recipient: &str) -> Spec {
        Spec {
            archive_recipient: Some(recipient.into()),
            ..self
        }
    }

    /// The same cluster with this variable in its environment.
    pub fn with(mut self, variable: &str, value: &str) -> Spec {
        self.environment.push((variable.into(), value.into()));
        self
    }

    /// One node.
    pub fn standalone() -> Spec {
        Spec::default()
    }

    /// How many nodes it makes.
    pub fn nodes(&self) -> u32 {
        1 + self.sync + self.asynchronous + self.witness
    }

    /// How many of them hold data.
    pub fn data_nodes(&self) -> u32 {
        1 + self.sync + self.asynchronous
    }
}

/// One line of `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    /// `primary`, `sync-backup`, `async-backup` or `witness`.
    pub role: String,
    pub client: String,
    pub http: String,
    /// `None` for a node that is down.
    pub pid: Option<u32>,
    pub data_dir: PathBuf,
    /// The command line that starts the node again.
    pub start: String,
}

impl Node {
    /// Reads one entry of `nodes`; `None` when a field is missing.
    pub fn from_json(json: &Json) -> Option<Node> {
        let text = |key: &str| json.get(key)?.as_str().map(str::to_owned);
        Some(Node {
            id: match json.get("id")? {
                Json::String(id) => id.clone(),
                other => other.to_string(),
            },
            role: text("role")?,
            client: text("client")?,
            http: text("http")?,
            pid: json
                .get("pid")?
                .as_u64()
                .and_then(|pid| pid.try_into().ok()),
            data_dir: text("data_dir")?.into(),
            start: text("start")?,
        })
    }

    /// Its id as a number.
    pub fn number(&self) -> u32 {
        self.id.parse().expect("node ids are numbers")
    }

    /// Whether it may hold data.
    pub fn holds_data(&self) -> bool {
        self.role != "witness"
    }
}
