//! What `STANDFAST STATUS` and `/v1/status` answer, as those read it who did not write it.
//!
//! `show.rs` fills the text; the command line reads it. A reader takes a field that is missing as
//! its default and skips one it does not know, so that old and new nodes understand each other.

use crate::replication::config::{Acks, Protection};
use serde::{Deserialize, Serialize};
use standfast_wal::NodeId;

/// What a node is at this moment, in the words of `cluster.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Primary,
    SyncBackup,
    #[default]
    AsyncBackup,
    Witness,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::SyncBackup => "sync-backup",
            Role::AsyncBackup => "async-backup",
            Role::Witness => "witness",
        }
    }
}

/// One node's view of itself and its cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub node: NodeId,
    /// The cluster's random identity, 32 hex digits.
    pub cluster: String,
    pub cluster_name: String,
    /// This data directory's random identity, 32 hex digits.
    pub incarnation: String,
    /// The program's version.
    pub version: String,
    /// What it does: `primary`, `backup`, `candidate`, `witness` or `loading`.
    pub role: String,
    /// A primary: it takes reads and writes. A backup: it answers reads within `max_staleness`.
    pub serving: bool,
    /// Why it is not what it should be: one sentence; empty when all is well.
    pub reason: String,
    /// The primary, if it is known to be alive.
    pub primary: Option<NodeId>,
    pub primary_client: Option<String>,
    pub generation: u64,
    pub epoch: u64,
    /// The register's version this view was made from; higher is newer within a generation.
    pub config_version: u64,
    /// The positions of this node's own log; 0 on a witness.
    pub written: u64,
    pub durable: u64,
    pub committed: u64,
    pub applied: u64,
    pub protection: Option<Protection>,
    pub acks: Option<Acks>,
    pub acks_needed: u32,
    /// Whether recovery found an end of the log that must be proved first.
    pub suspect: bool,
    pub members: Vec<MemberStatus>,
    pub forecast: Forecast,
    /// Standing alarms.
    pub alarms: Vec<Alarm>,
}

/// What would happen if the primary died now.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Forecast {
    /// The whole answer as a sentence.
    pub text: String,
}

/// Something an operator should look at, until it is over.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    pub name: String,
    pub text: String,
}

/// One member as this node sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberStatus {
    pub id: NodeId,
    pub incarnation: String,
    pub role: Role,
    pub voter: bool,
    pub site: String,
    pub client: String,
    pub peer: String,
    pub http: String,
    /// Whether this node hears it; true for itself.
    pub up: bool,
    /// It is being taken into the sync set.
    pub joining: bool,
    /// On the primary: the highest LSN that it holds durably and verified.
    pub matched: Option<u64>,
    pub lag_bytes: Option<u64>,
    /// For how long it has lacked what it lacks first.
    pub lag_ms: Option<u64>,
}

impl Status {
    /// Orders views: a higher one knows more of the register, and of equal ones the one that
    /// hears a primary.
    pub fn freshness(&self) -> (u64, u64, bool, u64) {
        (
            self.generation,
            self.config_version,
            self.primary.is_some(),
            self.epoch,
        )
    }

    pub fn member(&self, id: NodeId) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether this node itself acts as primary.
    pub fn is_primary(&self) -> bool {
        self.role == "primary"
    }

    /// Whether this node is a primary that takes writes.
    pub fn takes_writes(&self) -> bool {
        self.is_primary() && self.serving
    }
}
