//! The register's one value: who is a member, who is primary, which acknowledgements count.

use serde::{Deserialize, Serialize};
use standfast_wal::{Epoch, History, Incarnation, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};

/// How many members of the sync set must hold a write before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acks {
    All,
    Majority,
}

/// What the cluster does when a synchronous backup is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    MaxProtection,
    MaxAvailability,
    MaxPerformance,
}

/// What a member is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberRole {
    /// Holds data and may be in the sync set.
    Data,
    /// Holds data, receives committed log only, never votes, never in the sync set by itself.
    Asynchronous,
    /// Votes and watches, holds no data.
    Witness,
}

/// Where a node can be reached, as told to others: `host:port`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Addresses {
    pub client: String,
    pub peer: String,
    pub http: String,
}

/// One member. A node whose incarnation is not the one named here counts for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    pub incarnation: Incarnation,
    pub role: MemberRole,
    pub site: String,
    /// Lower is preferred as a successor.
    pub priority: u32,
    pub addresses: Addresses,
}

/// The value of the register; changed only by compare-and-set against its exact version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    pub history: History,
    /// Histories this one forked from, oldest first, each with the last LSN shared with it.
    pub ancestors: Vec<(History, u64)>,
    pub epoch: Epoch,
    /// Raised by one with every change.
    pub version: u64,
    /// Drawn by the proposer for this very change.
    pub nonce: Nonce,
    pub primary: NodeId,
    /// The only members that may hold acknowledged data that others lack.
    pub sync_set: BTreeSet<NodeId>,
    /// The effective number, derived from `acks`, `protection` and the set's size.
    pub acks_needed: u32,
    pub acks: Acks,
    pub protection: Protection,
    pub members: BTreeMap<NodeId, Member>,
    pub voters: BTreeSet<NodeId>,
}
