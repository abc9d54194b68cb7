//! What the engine shows of itself to everybody who only looks: INFO, ROLE, SENTINEL, HTTP, status.
//!
//! A new value is published at once when role, epoch, primary, membership, serving or an alarm
//! changes (before any answer that depends on it), and otherwise a few times a second.

use crate::replication::config::{Config, Member, MemberRole};
use standfast_wal::{ClusterId, Epoch, History, Lsn, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Primary,
    /// Follows a primary, or waits for one.
    Backup,
    /// Stands for promotion.
    Candidate,
    /// Votes and watches, holds no data.
    Witness,
    /// Reads its snapshot and log; answers no data command yet.
    Loading,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
            Role::Candidate => "candidate",
            Role::Witness => "witness",
            Role::Loading => "loading",
        }
    }
}

/// What this node knows of another member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    pub connected: bool,
    /// Milliseconds since it was last heard; `None`: never in this process's life.
    pub heard_ms: Option<u64>,
    /// On the primary: the highest LSN that it holds durably and verified. Zero elsewhere.
    pub matched: Lsn,
    /// The highest LSN it said it has applied.
    pub applied: Lsn,
    /// Bytes of log that it has still to acknowledge.
    pub lag_bytes: u64,
    /// How far behind in time it is; 0 when it has everything.
    pub lag_ms: u64,
}

/// Something an operator should look at, until it is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// One word, stable: the label in metrics.
    pub name: &'static str,
    /// What is wrong and what to do.
    pub text: String,
}

/// One number for /metrics that only the engine knows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Metric {
    /// Without the `standfast_` in front; a counter's ends in `_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub value: f64,
}

/// One moment of the node.
#[derive(Clone, Debug)]
pub struct View {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// The operator's name for the cluster; also what SENTINEL calls the primary.
    pub cluster_name: Arc<str>,
    pub role: Role,
    /// A primary: its EpochStart is committed and it takes writes. A backup: it has applied up to
    /// its commit LSN of a primary it hears, and answers reads within `max_staleness`.
    pub serving: bool,
    pub epoch: Epoch,
    pub history: History,
    /// The primary of `epoch`, if known to be alive; this node itself on a primary.
    pub primary: Option<NodeId>,
    /// The newest Config known; `None` until a joining node has been told one.
    pub config: Option<Arc<Config>>,
    pub written: Lsn,
    pub durable: Lsn,
    pub committed: Lsn,
    pub applied: Lsn,
    /// Nanoseconds since 1970, of the last applied command.
    pub log_time_ns: u64,
    /// On a backup: how old its data may be at most, by its own clock; `None`: not known.
    pub staleness_ms: Option<u64>,
    /// Every other member of `config`.
    pub peers: BTreeMap<NodeId, Peer>,
    pub keys: u64,
    pub accounts: u64,
    pub transfers: u64,
    /// Bytes the state takes in memory.
    pub used_bytes: u64,
    /// Above it writes get OOM; 0: no limit.
    pub max_memory_bytes: u64,
    /// Bytes of log on this disk.
    pub log_bytes: u64,
    /// Bytes free on the log's disk.
    pub disk_free_bytes: u64,
    /// Of the newest snapshot on this disk: its LSN and when it was finished (seconds since 1970).
    pub snapshot: Option<(Lsn, u64)>,
    pub snapshot_running: bool,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    pub alarms: Vec<Alarm>,
    pub metrics: Vec<Metric>,
}

impl View {
    /// What is known before anything has been read.
    pub fn starting(node: NodeId, cluster_name: &str, started_ms: u64) -> View {
        View {
            node,
            cluster: ClusterId::default(),
            cluster_name: cluster_name.into(),
            role: Role::Loading,
            serving: false,
            epoch: Epoch(0),
            history: History::default(),
            primary: None,
            config: None,
            written: Lsn::ZERO,
            durable: Lsn::ZERO,
            committed: Lsn::ZERO,
            applied: Lsn::ZERO,
            log_time_ns: 0,
            staleness_ms: None,
            peers: BTreeMap::new(),
            keys: 0,
            accounts: 0,
            transfers: 0,
            used_bytes: 0,
            max_memory_bytes: 0,
            log_bytes: 0,
            disk_free_bytes: 0,
            snapshot: None,
            snapshot_running: false,
            started_ms,
            alarms: Vec::new(),
            metrics: Vec::new(),
        }
    }

    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.config.as_deref()?.members.get(&id)
    }

    /// The address that clients are told for `id`.
    pub fn client_address(&self, id: NodeId) -> Option<&str> {
        self.member(id)
            .map(|member| member.addresses.client.as_str())
    }

    /// The address that clients are told for the primary.
    pub fn primary_address(&self) -> Option<&str> {
        self.primary.and_then(|id| self.client_address(id))
    }

    pub fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// In the sync set: it may hold acknowledged data, and may be promoted by itself.
    pub fn is_synchronous(&self, id: NodeId) -> bool {
        self.config
            .as_deref()
            .is_some_and(|config| config.sync_set.contains(&id))
    }

    /// Members that hold data, without the primary.
    pub fn backups(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        let primary = self.config.as_deref().map(|config| config.primary);
        self.members()
            .filter(move |(id, member)| member.role != MemberRole::Witness && Some(*id) != primary)
    }

    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.config
            .as_deref()
            .into_iter()
            .flat_map(|config| config.members.iter().map(|(id, member)| (*id, member)))
    }

    /// Whether a member was heard lately enough to be called up; this node itself always is.
    pub fn is_up(&self, id: NodeId) -> bool {
        id == self.node || self.peers.get(&id).is_some_and(|peer| peer.connected)
    }
}
