//! What a backup acknowledges is true, stays true, and is all that its primary counts.
//!
//! Two logs are equal at an LSN when the same reign wrote it in both. So an acknowledgement is held
//! against the log that its primary began with; what a primary counts, against what was said to
//! this very reign by the disk that it counts.

use super::log::Place;
use super::{Observer, process_of};
use crate::simulate::nodes::Node;
use standfast::node::meta::{self, MetaFile};
use standfast::replication::{Body, EpochTable, Fence, Message, Replica};
use standfast_wal::{Incarnation, Lsn, NodeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Positions {
    /// The reigns in the log that each reign began with, its own the last.
    logs: BTreeMap<Fence, EpochTable>,
    /// The highest LSN that a disk acknowledged in a reign.
    said: BTreeMap<(NodeId, Incarnation, Fence), Lsn>,
    /// By node: what it acknowledged last.
    newest: BTreeMap<usize, (Fence, Incarnation, Lsn)>,
}

/// What a message says is durable at its sender and equal to the log of this reign's primary.
fn acknowledgement(message: &Message) -> Option<(Fence, Lsn)> {
    let (epoch, lsn) = match &message.body {
        Body::Acked { epoch, matched, .. } | Body::Heard { epoch, matched, .. } => (epoch, matched),
        Body::Followed { epoch, agreed, .. } => (epoch, agreed),
        _ => return None,
    };
    let (history, epoch) = (message.history, *epoch);
    Some((Fence { history, epoch }, *lsn)).filter(|_| *lsn > Lsn::ZERO)
}

impl Positions {
    pub fn begun(&mut self, reign: Fence, replica: &Replica) {
        self.logs.insert(reign, replica.epochs().clone());
    }

    pub fn sent(&mut self, from: usize, nodes: &[Node], message: &Message) -> Result<(), String> {
        let Some((reign, lsn)) = acknowledgement(message) else {
            return Ok(());
        };
        let replica = process_of(nodes, from)?.engine.replica();
        let incarnation = replica.meta().incarnation;
        let said = self.said.entry((nodes[from].id, incarnation, reign));
        let said = said.or_default();
        *said = lsn.max(*said);
        // A node may have met the next reign later in the same turn.
        if replica.fence() != reign {
            return Ok(());
        }
        self.newest.insert(from, (reign, incarnation, *said));
        let Some(log) = self.logs.get(&reign) else {
            return Ok(());
        };
        let (own, theirs) = (replica.epochs().at(lsn), log.at(lsn));
        if own != theirs {
            return Err(format!(
                "I1: {lsn} is acknowledged to {reign}: here {own:?} wrote it, there {theirs:?}"
            ));
        }
        Ok(())
    }

    /// What was acknowledged is not cut while that reign is obeyed.
    pub fn stays(&self, node: usize, replica: &Replica) -> Result<(), String> {
        let Some((reign, incarnation, lsn)) = self.newest.get(&node) else {
            return Ok(());
        };
        let is_other = replica.fence() != *reign || replica.meta().incarnation != *incarnation;
        if is_other || replica.durable() >= *lsn {
            return Ok(());
        }
        Err(format!(
            "I1: {lsn} was acknowledged to {reign}, and the log is durable up to {} only",
            replica.durable()
        ))
    }

    /// A primary counts nothing but what was said to its reign.
    pub fn counts(&self, replica: &Replica) -> Result<(), String> {
        let reign = replica.fence();
        for (id, incarnation, counted) in replica.positions() {
            let said = self.said.get(&(id, incarnation, reign));
            if counted > said.copied().unwrap_or_default() {
                return Err(format!(
                    "I1: {reign} counts n{id} as holding {counted}, which said {said:?} to it"
                ));
            }
        }
        Ok(())
    }
}

impl Observer {
    /// Whether this place of a log is durable on that node's disk, or was on one that is lost. A
    /// log that has gone on in a history that was founded since is the same copy.
    pub(super) fn holds(&self, nodes: &[Node], node: usize, place: Place) -> bool {
        let is_there = |durable: Lsn, table: &EpochTable| {
            let there = Place::of(table, place.lsn);
            durable >= place.lsn && there.is_some_and(|there| there.reign() == place.reign())
        };
        let mut lost = self.nodes[node].lost.iter();
        if lost.any(|(_, durable, table)| is_there(*durable, table)) {
            return true;
        }
        match (&nodes[node].process, &self.nodes[node].down) {
            (Some(process), _) => {
                let replica = process.engine.replica();
                is_there(replica.durable(), replica.epochs())
            }
            (None, Some((_, durable, table))) => is_there(*durable, table),
            (None, None) => false,
        }
    }

    /// Whether the disk with this name holds this LSN of this reign, or held it when it was lost.
    pub fn keeps(&self, nodes: &[Node], disk: (NodeId, Incarnation), at: (Fence, Lsn)) -> bool {
        let (reign, lsn) = at;
        let is_there = |durable: Lsn, table: &EpochTable| {
            durable >= lsn && table.at(lsn).map(|entry| entry.fence()) == Some(reign)
        };
        let node = disk.0.0 as usize;
        let seen = &self.nodes[node];
        let mut lost = seen.lost.iter().filter(|lost| lost.0 == disk.1);
        if lost.any(|(_, durable, table)| is_there(*durable, table)) {
            return true;
        }
        if seen.incarnation != Some(disk.1) {
            return false;
        }
        match (&nodes[node].process, &seen.down) {
            (Some(process), _) => {
                let replica = process.engine.replica();
                is_there(replica.durable(), replica.epochs())
            }
            (None, Some((_, durable, table))) => is_there(*durable, table),
            (None, None) => false,
        }
    }
}

/// What this node's disk holds of its meta file now.
pub fn meta_on_disk(node: &Node) -> Option<standfast::replication::Meta> {
    let bytes = node.disks.root.contents(meta::FILE)?;
    MetaFile::decode(&bytes).ok().map(|meta| meta.core)
}

impl Node {
    /// What the meta file says now.
    pub fn story_of_meta(&self) -> String {
        let bytes = self.disks.root.contents(meta::FILE).unwrap_or_default();
        let Ok(MetaFile { core, .. }) = MetaFile::decode(&bytes) else {
            return "no meta file".to_string();
        };
        let (fence, config) = (core.fence, core.config);
        let voted = core.acceptor.accepted.map(|vote| vote.proposal.value);
        format!(
            "fence {fence}, v{} of {}, vote v{:?}",
            config.version,
            config.epoch,
            voted.map(|value| value.version)
        )
    }
}
