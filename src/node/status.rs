//! What `STANDFAST STATUS` and `/v1/status` answer: one node's view of itself and its cluster.
//!
//! The node fills it, the command line and the status page read it. A reader takes a field that
//! is missing as its default, so that old and new nodes understand each other.

use crate::replication::config::{Acks, MemberRole, Protection};
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

/// One node's view.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's random identity, 32 hex digits.
    pub cluster_id: String,
    /// This data directory's random identity, 32 hex digits.
    pub incarnation: String,
    /// The program's version.
    pub version: String,
    /// What this node is for, by its settings or, once it is a member, by the register.
    pub member_role: Option<MemberRole>,
    /// This node's own addresses as it advertises them.
    pub addresses: crate::replication::config::Addresses,
    pub site: String,
    pub priority: u32,
    /// What this node is now. `Primary` only while it acts as one.
    pub role: Role,
    /// Whether this node, as primary, admits reads and writes.
    pub serving: bool,
    /// Why it is not what it should be: one sentence for people; empty when all is well.
    pub reason: String,
    /// The history this node is in, `<generation>-<32 hex digits>`.
    pub history: String,
    pub generation: u64,
    /// The register's epoch, as the version below.
    pub epoch: u64,
    /// The register's version this view was made from; higher is newer within a generation.
    pub config_version: u64,
    /// The primary that the register names.
    pub primary: Option<NodeId>,
    pub protection: Option<Protection>,
    pub acks: Option<Acks>,
    pub acks_needed: u32,
    /// The positions of this node's own log: nothing for a witness.
    pub written_lsn: u64,
    pub durable_lsn: u64,
    pub committed_lsn: u64,
    pub applied_lsn: u64,
    pub members: Vec<MemberStatus>,
    /// What would happen if the primary died now: one sentence.
    pub forecast: String,
    /// Standing alarms, one sentence each.
    pub alarms: Vec<String>,
}

/// One member as this node sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberStatus {
    pub id: NodeId,
    pub incarnation: String,
    /// By the register: the primary it names, the sync set, the rest.
    pub role: Role,
    pub voter: bool,
    pub site: String,
    pub priority: u32,
    pub client: String,
    pub peer: String,
    pub http: String,
    /// Whether this node has heard from it within the failover timeout; true for itself.
    pub reachable: bool,
    /// On the primary: the highest durable LSN verified in this epoch. `None` where not known.
    pub matched_lsn: Option<u64>,
    /// On the primary: what the member is doing, such as `streaming`, `joining`, `snapshot`.
    pub progress: String,
}

impl Status {
    /// Orders views: a higher one knows more of the register.
    pub fn freshness(&self) -> (u64, u64, u64) {
        (self.generation, self.epoch, self.config_version)
    }

    pub fn member(&self, id: NodeId) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id == id)
    }
}
