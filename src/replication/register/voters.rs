//! Who counts: sets of voters by identity, their majorities, and which change of them is allowed.
//!
//! A voter is a node *and* the incarnation that the Config names. A node that lost its disk comes
//! back as another voter, with an empty acceptor, and counts for nothing until a value names it.

use crate::replication::config::{Config, MemberRole};
use serde::{Deserialize, Serialize};
use standfast_wal::{Incarnation, NodeId};
use std::collections::BTreeMap;
use std::fmt;

/// The most voters a Config may name.
pub const VOTERS_MAX: usize = 5;

/// One node during the life of one data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Voter {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}/{:x}", self.node, self.incarnation.0)
    }
}

/// The voters of one Config. Never empty.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Voters(BTreeMap<NodeId, Incarnation>);

impl Voters {
    /// The voters of `config`, or `None` where it names none, too many, or one that is no member
    /// or may not vote.
    pub fn of(config: &Config) -> Option<Voters> {
        if config.voters.is_empty() || config.voters.len() > VOTERS_MAX {
            return None;
        }
        let mut voters = BTreeMap::new();
        for node in &config.voters {
            let member = config.members.get(node)?;
            if member.role == MemberRole::Asynchronous {
                return None;
            }
            voters.insert(*node, member.incarnation);
        }
        Some(Voters(voters))
    }

    pub fn contains(&self, voter: Voter) -> bool {
        self.0.get(&voter.node) == Some(&voter.incarnation)
    }

    pub fn iter(&self) -> impl Iterator<Item = Voter> + '_ {
        self.0.iter().map(|(node, incarnation)| Voter {
            node: *node,
            incarnation: *incarnation,
        })
    }

    /// Whether more than half of these voters, by identity, are among those that `counts` takes.
    pub fn majority(&self, counts: impl Fn(Voter) -> bool) -> bool {
        self.iter().filter(|voter| counts(*voter)).count() * 2 > self.0.len()
    }

    /// Whether `next` differs by at most one voter added, removed or replaced.
    pub fn differ_by_at_most_one(&self, next: &Voters) -> bool {
        let added = next.iter().filter(|voter| !self.contains(*voter)).count();
        let removed = self.iter().filter(|voter| !next.contains(*voter)).count();
        added <= 1 && removed <= 1
    }
}
