//! What must hold when a Config is offered and when it is chosen, seen from above: who is fenced,
//! who holds what is committed, who has voted.
//!
//! A candidate knows only what it was answered; here every disk is looked at. So a rule that was
//! left out shows in the moment in which it matters, not only where the loss comes to light.

use super::Observer;
use super::positions::meta_on_disk;
use crate::simulate::nodes::Node;
use standfast::node::wire::{Frame, Head};
use standfast::replication::register::{Body as Vote, Proposal};
use standfast::replication::{Body, Config, Fence, Message};
use standfast_wal::{History, Incarnation, Lsn, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};

/// By disk: the newest version that it had voted for when its process died.
pub type Votes = BTreeMap<(NodeId, Incarnation), (History, u64)>;

/// By attempt: the newest version that the candidate knew of when it began to fence, and in which
/// of its lives that was.
pub type Attempts = BTreeMap<Nonce, (u64, u64)>;

fn node_of(nodes: &[Node], id: NodeId) -> &Node {
    &nodes[id.0 as usize]
}

/// The disk that the Config names is not there any more, or not to be relied on.
fn is_lost(nodes: &[Node], config: &Config, id: NodeId) -> bool {
    let (node, named) = (node_of(nodes, id), config.members[&id].incarnation);
    node.incarnation != named || node.harmed == Some(named)
}

/// An operator has let this node go on to a newer history: it obeys that one's fence, is of no
/// quorum of the older one any more, and cuts of its log what is not of the newer one.
pub(super) fn has_gone_on(node: &Node, history: History) -> bool {
    let follows = node
        .process
        .as_ref()
        .map(|process| process.engine.replica().history());
    let follows = follows.or_else(|| meta_on_disk(node).map(|meta| meta.config.history));
    follows.is_some_and(|follows| follows.generation > history.generation)
}

impl Observer {
    /// Somebody asks for votes for a Config.
    pub fn offered(&mut self, from: usize, nodes: &[Node], frame: &Frame) -> Result<(), String> {
        let Head::Core { message } = &frame.head else {
            return Ok(());
        };
        let Body::Register(register) = &message.body else {
            return Ok(());
        };
        let Vote::Accept { proposal, .. } = &register.body else {
            return Ok(());
        };
        let Some(parent) = &proposal.parent else {
            return Ok(());
        };
        if proposal.value.epoch == parent.epoch {
            self.may_change(&nodes[from], nodes, &proposal.value, parent)?;
            return self.may_decide(&nodes[from], &proposal.value, parent);
        }
        self.is_read_before(proposal, parent)?;
        self.is_fenced(nodes, proposal, parent)?;
        match nodes[from].id == proposal.value.primary {
            true => self.is_chosen_log(&nodes[from], &proposal.value, parent),
            false => Ok(()),
        }
    }

    /// A candidate fences: from now on it decides against what it has read so far.
    pub(super) fn note_attempt(&mut self, from: usize, nodes: &[Node], message: &Message) {
        let Body::Fence { attempt, .. } = &message.body else {
            return;
        };
        let node = &nodes[from];
        if let Some(process) = &node.process {
            let version = process.engine.replica().config().version;
            self.attempts
                .entry(*attempt)
                .or_insert((version, node.life));
        }
    }

    /// Step 4: what changed since the fences were asked for, whom they were asked of for one, was
    /// not weighed.
    fn is_read_before(&self, proposal: &Proposal, parent: &Config) -> Result<(), String> {
        let value = &proposal.value;
        match self.attempts.get(&value.nonce) {
            Some((known, _)) if parent.version > *known => Err(format!(
                "I1: epoch {} is offered to follow version {}, which was not known when its \
                 candidate fenced, by version {known}",
                value.epoch, parent.version
            )),
            _ => Ok(()),
        }
    }

    /// What is committed of this Config's epoch and of those before. A primary or candidate whose
    /// time is over may still offer what nobody votes for any more.
    fn committed_before(&self, value: &Config) -> impl Iterator<Item = (Fence, Lsn)> + '_ {
        let epoch = value.epoch;
        let all = self.log.committed(value.history);
        all.filter(move |(reign, _)| reign.epoch <= epoch)
    }

    /// The change rule: who is to hold everything up to the floor does, before it is offered.
    fn may_change(
        &self,
        node: &Node,
        nodes: &[Node],
        value: &Config,
        parent: &Config,
    ) -> Result<(), String> {
        if value.primary != parent.primary {
            return Err(format!(
                "I3: {value:?} gives the epoch of {parent:?} another primary"
            ));
        }
        let Some(process) = node.process.as_ref().filter(|_| node.id == value.primary) else {
            return Ok(());
        };
        let replica = process.engine.replica();
        let reign = Fence {
            history: value.history,
            epoch: value.epoch,
        };
        if !replica.is_primary() || replica.fence() != reign {
            return Ok(());
        }
        for (reign, lsn) in self.committed_before(value) {
            self.is_kept(nodes, value, reign, lsn)?;
        }
        let table = replica.epochs();
        let start = table.last().filter(|_| !replica.is_serving());
        let chosen = start.map_or(Lsn::ZERO, |start| Lsn(start.first_lsn.0 - 1));
        match table.at(chosen) {
            Some(entry) => self.is_kept(nodes, value, entry.fence(), chosen),
            None => Ok(()),
        }
    }

    /// Whoever is not heard for so many nanoseconds is silent, by every clock.
    fn silence(&self) -> u64 {
        self.failover_timeout + self.failover_timeout * self.drift_ppm / 500_000
    }

    /// Whether the primary that offered this must have known by then that the disk is another one,
    /// or may be.
    pub fn could_know(&self, nodes: &[Node], config: &Config, id: NodeId) -> bool {
        let primary = node_of(nodes, config.primary);
        let heard = primary.heard.last(id, config.members[&id].incarnation);
        let offered = self.offers.get(&config.nonce).copied();
        offered.is_none_or(|offered| heard + self.silence() < offered)
    }

    /// Once other voters are offered nothing else can be chosen without a majority of them: of
    /// those who voted before few may be silent, for they may have lost the disks with a promise.
    fn may_decide(&mut self, node: &Node, value: &Config, parent: &Config) -> Result<(), String> {
        let process = node.process.as_ref();
        let proposed = process.and_then(|process| process.engine.replica().proposed());
        let is_own = proposed.is_some_and(|config| config.nonce == value.nonce);
        let disk = |config: &Config, id| config.members.get(&id).map(|member| member.incarnation);
        let votes = |config: &Config, id, named| {
            config.voters.contains(&id) && disk(config, id) == Some(named)
        };
        let all = || {
            value
                .voters
                .iter()
                .map(|id| (*id, value.members[id].incarnation))
        };
        let is_other = parent.voters.len() != value.voters.len()
            || all().any(|(id, named)| !votes(parent, id, named));
        if !is_own || self.offers.contains_key(&value.nonce) {
            return Ok(());
        }
        self.offers.insert(value.nonce, node.heard.turned_at);
        if !is_other {
            return Ok(());
        }
        let since = node.heard.turned_at.saturating_sub(self.silence());
        let is_there = |(id, named): &(NodeId, Incarnation)| {
            *id == node.id
                || !votes(parent, *id, *named)
                || node.heard.last_in_reign(*id, *named) >= since
        };
        let there: Vec<_> = all().filter(is_there).map(|(id, _)| id).collect();
        match there.len() * 2 > value.voters.len() {
            true => Ok(()),
            false => Err(format!(
                "R2: {:?} are to decide alone, and of them only {there:?} are heard",
                value.voters
            )),
        }
    }

    /// Step 2: of the sync set so many are fenced that no set that could acknowledge is left.
    fn is_fenced(
        &self,
        nodes: &[Node],
        proposal: &Proposal,
        parent: &Config,
    ) -> Result<(), String> {
        let value = &proposal.value;
        let set = &parent.sync_set;
        if !set.contains(&value.primary) || !value.sync_set.is_subset(set) {
            return Err(format!("I5: {:?} is offered after {parent:?}", **value));
        }
        let target = Fence {
            history: value.history,
            epoch: value.epoch,
        };
        let fence_of = |id: NodeId| meta_on_disk(node_of(nodes, id)).map(|meta| meta.fence);
        let fenced = |id: &&NodeId| is_lost(nodes, parent, **id) || fence_of(**id) >= Some(target);
        let fenced: BTreeSet<_> = set.iter().filter(fenced).collect();
        let needed = (set.len() + 1).saturating_sub(parent.acks_needed as usize);
        if fenced.len() < needed.max(1) {
            return Err(format!(
                "I1: {target} is offered, and only {fenced:?} of {set:?} are fenced, where {} must \
                 acknowledge",
                parent.acks_needed
            ));
        }
        Ok(())
    }

    /// Step 3: the candidate's log is on its disk and has all that is committed.
    fn is_chosen_log(&self, node: &Node, value: &Config, parent: &Config) -> Result<(), String> {
        let Some(process) = &node.process else {
            return Ok(());
        };
        // What it finds of a former life in the register it offers as anybody would, whatever its
        // disk has lost since: it will not lead that epoch.
        let replica = process.engine.replica();
        let attempt = self.attempts.get(&value.nonce);
        let is_former = attempt.is_some_and(|(_, life)| *life != node.life);
        if is_former && node.harmed.is_some() {
            return match replica.is_primary() && replica.fence().epoch == value.epoch {
                true => Err(format!("n{} leads what a former life offered", node.id)),
                false => Ok(()),
            };
        }
        let (durable, tip) = (replica.durable(), replica.tip().position.lsn);
        // In the turn in which it was chosen the EpochStart is there already, and the reign that
        // it begins may be over again.
        let reigns = replica.epochs().last();
        let has_begun = reigns.is_some_and(|entry| entry.epoch >= value.epoch);
        if durable < tip && !has_begun {
            return Err(format!(
                "n{} offers itself for epoch {} with a log that ends at {tip} and is durable up to \
                 {durable}",
                node.id, value.epoch
            ));
        }
        // Where another Config is known to be chosen in its place, the offer expects a version that
        // the register has left, and is sent again in vain: by that Config a smaller set, without
        // anybody who was fenced, may have committed what the candidate lacks.
        let newest = self.register.newest(value.history);
        if newest.is_some_and(|newest| newest.version > parent.version && newest != value) {
            return Ok(());
        }
        // An offer that is too late is sent again, and not chosen: of its own epoch it has nothing.
        let committed = self.log.committed(value.history);
        for (reign, lsn) in committed.filter(|(reign, _)| reign.epoch < value.epoch) {
            let own = replica.epochs().at(lsn).map(|entry| entry.fence());
            if durable < lsn || own != Some(reign) {
                return Err(format!(
                    "I1: n{} offers itself for epoch {}: {lsn} of {reign} is committed, its log \
                     ends at {durable} and has {own:?} there",
                    node.id, value.epoch
                ));
            }
        }
        Ok(())
    }

    /// A Config is seen that is newer than any before of its history.
    pub fn chosen(&self, nodes: &[Node], config: &Config) -> Result<(), String> {
        let newest = self.register.newest(config.history);
        if newest.is_none_or(|newest| newest.version >= config.version) {
            return Ok(());
        }
        for (reign, lsn) in self.log.committed(config.history) {
            self.is_kept(nodes, config, reign, lsn)?;
        }
        self.is_voted(nodes, config)
    }

    /// I1: every fence quorum of this Config would meet a holder of what is committed.
    pub fn is_kept(
        &self,
        nodes: &[Node],
        config: &Config,
        reign: Fence,
        lsn: Lsn,
    ) -> Result<(), String> {
        let holds = |id: &&NodeId| {
            let disk = (**id, config.members[*id].incarnation);
            has_gone_on(node_of(nodes, **id), config.history)
                || self.keeps(nodes, disk, (reign, lsn))
        };
        let holders: BTreeSet<_> = config.sync_set.iter().filter(holds).collect();
        let needed = (config.acks_needed as usize).min(config.sync_set.len());
        // Of its own reign a primary may have written what others have synced already.
        let is_older = reign.epoch < config.epoch;
        if holders.len() < needed || is_older && !holders.contains(&config.primary) {
            return Err(format!(
                "I1: {lsn} of {reign} is committed and held by {holders:?}; chosen is {config:?}"
            ));
        }
        Ok(())
    }

    /// R2: of the voters before and of those after a majority has voted, each by its own disk.
    fn is_voted(&self, nodes: &[Node], config: &Config) -> Result<(), String> {
        let voted = |id: NodeId, named: Incarnation| {
            let meta = meta_on_disk(node_of(nodes, id)).filter(|meta| meta.incarnation == named);
            let vote = match meta {
                // It has gone on to a newer history, and tells nothing of the older one.
                Some(meta) if meta.acceptor.history != config.history => return true,
                Some(meta) => meta.acceptor.accepted.map(|vote| {
                    let version = vote.proposal.value.version;
                    (meta.acceptor.history, version)
                }),
                None => self.votes.get(&(id, named)).copied(),
            };
            // One that has gone on to a newer history tells nothing of the older one.
            vote.is_some_and(|(history, version)| {
                history != config.history || version >= config.version
            })
        };
        let before = self.register.at(config.history, config.version - 1);
        for voters in [Some(config), before].into_iter().flatten() {
            let all = voters.voters.iter();
            let count = all.filter(|id| voted(**id, voters.members[id].incarnation));
            let count = count.count();
            if count * 2 <= voters.voters.len() {
                return Err(format!(
                    "R2: {config:?} is taken for chosen by {count} votes of {:?} in version {}",
                    voters.voters, voters.version
                ));
            }
        }
        Ok(())
    }
}
