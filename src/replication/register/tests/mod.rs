//! How the register is attacked: by hand, over every order of a small world, and by seeds.

mod cluster;
mod conformance;
mod explore;
mod ledger;
mod simulate;
mod unit;
mod worlds;

use super::*;
use crate::replication::config::{Acks, Addresses, Config, Member, MemberRole, Protection};
use standfast_wal::{Epoch, Incarnation, Nonce};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const HISTORY: History = History {
    generation: 1,
    id: 77,
};

/// Node `node` in its `life`th data directory.
pub(super) fn voter(node: u32, life: u128) -> Voter {
    Voter {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node) * 100 + life),
    }
}

/// A value that names these voters, which are all its members.
pub(super) fn value(version: u64, nonce: u128, voters: &[Voter]) -> Value {
    value_with(version, nonce, voters, voters)
}

pub(super) fn value_with(version: u64, nonce: u128, voters: &[Voter], members: &[Voter]) -> Value {
    let member = |voter: &Voter| Member {
        incarnation: voter.incarnation,
        role: MemberRole::Data,
        site: String::new(),
        priority: 0,
        addresses: Addresses::default(),
    };
    Value::new(Config {
        history: HISTORY,
        ancestors: Vec::new(),
        epoch: Epoch(1),
        version,
        nonce: Nonce(nonce),
        primary: members[0].node,
        sync_set: BTreeSet::from([members[0].node]),
        acks_needed: 1,
        acks: Acks::All,
        protection: Protection::MaxAvailability,
        members: members
            .iter()
            .map(|voter| (voter.node, member(voter)))
            .collect::<BTreeMap<_, _>>(),
        voters: voters.iter().map(|voter| voter.node).collect(),
    })
}
