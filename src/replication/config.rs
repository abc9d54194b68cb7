//! The register's one value: who is a member, who is primary, which acknowledgements count.

use serde::{Deserialize, Serialize};
use standfast_wal::{Ancestor, Epoch, History, Incarnation, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};

/// How many members of the sync set must hold a write before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acks {
    All,
    Majority,
}

/// What the cluster does when a synchronous backup is lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    MaxProtection,
    MaxAvailability,
    MaxPerformance,
}

/// What a member is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
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
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub client: String,
    pub peer: String,
    pub http: String,
}

/// One member. A node whose incarnation is not the one named here counts for nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    pub incarnation: Incarnation,
    pub role: MemberRole,
    pub site: String,
    /// Lower is preferred as a successor.
    pub priority: u32,
    pub addresses: Addresses,
}

/// The value of the register; changed only by compare-and-set against its exact version.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Config {
    pub history: History,
    /// Histories this one forked from, oldest first.
    pub ancestors: Vec<Ancestor>,
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

impl Acks {
    /// How many of a sync set of `size` must hold a write. In max-protection never fewer than 2,
    /// so that a set of one commits nothing; in max-performance the set is the primary alone,
    /// but for the length of a switchover, when its target counts too.
    pub fn needed(self, protection: Protection, size: usize) -> u32 {
        let size = u32::try_from(size).expect("a sync set is small");
        let by_acks = match self {
            Acks::All => size,
            Acks::Majority => size / 2 + 1,
        };
        match protection {
            Protection::MaxProtection => by_acks.max(2),
            Protection::MaxAvailability => by_acks.max(1),
            Protection::MaxPerformance => size.max(1),
        }
    }
}

impl MemberRole {
    pub fn holds_data(self) -> bool {
        self != MemberRole::Witness
    }
}

impl Config {
    /// How many of the sync set come back into it by themselves, if this one goes: an asynchronous
    /// member is there for a switchover.
    pub fn lasting(&self, gone: Option<NodeId>) -> usize {
        let others = self.sync_set.iter().filter(|id| Some(**id) != gone);
        let roles = others.filter_map(|id| self.members.get(id));
        roles.filter(|one| one.role == MemberRole::Data).count()
    }

    /// What snapshots name: each history with the last LSN surely shared with it.
    pub fn forks(&self) -> Vec<(History, u64)> {
        let forks = self.ancestors.iter();
        forks.map(|one| (one.history, one.shared.0)).collect()
    }

    /// The first Config of a new cluster, which counts as chosen: the lowest data node is
    /// registered as primary and becomes it by the ordinary steps.
    pub fn first(
        history: History,
        nonce: Nonce,
        acks: Acks,
        protection: Protection,
        members: BTreeMap<NodeId, Member>,
        voters: BTreeSet<NodeId>,
    ) -> Config {
        let data = || {
            members
                .iter()
                .filter(|(_, member)| member.role == MemberRole::Data)
        };
        let primary = *data().next().expect("a cluster has a data node").0;
        let sync_set: BTreeSet<NodeId> = match protection {
            Protection::MaxPerformance => BTreeSet::from([primary]),
            _ => data().map(|(id, _)| *id).collect(),
        };
        Config {
            history,
            ancestors: Vec::new(),
            epoch: Epoch(0),
            version: 1,
            nonce,
            primary,
            acks_needed: acks.needed(protection, sync_set.len()),
            sync_set,
            acks,
            protection,
            members,
            voters,
        }
    }

    /// Whether this very process counts as a member.
    pub fn names(&self, id: NodeId, incarnation: Incarnation) -> bool {
        self.members
            .get(&id)
            .is_some_and(|member| member.incarnation == incarnation)
    }

    /// The members of the sync set whose answers represent every set that could have acknowledged
    /// anything: so many that fewer than `acks_needed` are missing, and always one.
    pub fn fence_quorum(&self) -> usize {
        let size = self.sync_set.len();
        (size + 1).saturating_sub(self.acks_needed as usize).max(1)
    }

    /// Whether more than half of the voters are among those that `counts` takes.
    pub fn majority(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().filter(|id| counts(**id)).count() * 2 > self.voters.len()
    }
}
