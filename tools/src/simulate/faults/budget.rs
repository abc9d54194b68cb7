//! How much damage disks may take: right up to what the promises allow for, and never more.
//!
//! A disk counts as lost from the moment it was damaged until the register names another
//! incarnation in its place, or a restart has proved every byte of it. Then, in the newest Config
//! that is chosen, in every one that some voter may still help to be chosen, and in that of an
//! older history that goes on where nobody has heard that it was ended:
//! - of the sync set fewer than acks_needed disks are lost (I1); where operators act, fewer than a
//!   majority of it needs, which is the least that they may order meanwhile;
//! - of the voters a majority keep theirs (2-replication, "The register"), and where a change of
//!   voters is chosen, of those before it as well, until a majority of the new ones knows on its
//!   disks that they alone decide;
//! - while a disk of the sync set is lost, the machines of the others do not lose power and their
//!   writes do not fail half-way, only their processes die: a torn end counts as absent until the
//!   whole sync set answers, and then only force would help ("Suspect log").

use crate::simulate::node::Process;
use crate::simulate::nodes::Node;
use crate::simulate::world::World;
use standfast::node::shelf;
use standfast::replication::Config;
use standfast::replication::config::Acks;
use standfast_wal::{History, Incarnation, NodeId};
use std::collections::BTreeMap;

impl Node {
    /// Nothing that this incarnation had promised or acknowledged can be counted on.
    fn has_lost(&self, named: Incarnation) -> bool {
        self.incarnation != named || self.harmed == Some(named)
    }
}

/// How many disks of the sync set hold what is committed at least: of one that is smaller than its
/// rule demands, all.
fn copies_of(config: &Config, needed: u32) -> usize {
    config.sync_set.len().min(needed as usize)
}

impl Process {
    /// Reads sealed segments again: the first damage.
    fn scrub(&self) -> Option<String> {
        shelf::scrub_log(&self.log_reader()?, &mut || ()).map(|(story, _)| story)
    }
}

impl World {
    fn is_lost(&self, config: &Config, id: NodeId) -> bool {
        let named = config.members.get(&id).map(|member| member.incarnation);
        named.is_none_or(|named| self.nodes[id.0 as usize].has_lost(named))
    }

    /// Every Config that counts: the newest chosen one of the newest history, and what a voter has
    /// accepted beyond it.
    fn configs_in_force(&self) -> Vec<Config> {
        let Some(newest) = self.observer.newest_config(&self.nodes) else {
            return Vec::new();
        };
        let newest = newest.clone();
        let mut all = vec![];
        for node in &self.nodes {
            let meta = node.meta_now();
            let accepted = meta.and_then(|meta| meta.acceptor.accepted);
            let beyond = accepted
                .map(|accepted| Config::clone(&accepted.proposal.value))
                .filter(|c| c.history == newest.history && c.version > newest.version);
            all.extend(beyond);
        }
        all.push(newest);
        all
    }

    /// The Configs whose disks are spared: those in force, and the newest of each history that was
    /// ended by force and goes on where nobody has heard of that, unless too much is lost there
    /// already.
    fn configs_to_spare(&self) -> Vec<Config> {
        let in_force = self.configs_in_force();
        let newest = in_force.last().map(|config| config.history);
        let mut all: BTreeMap<History, Config> = BTreeMap::new();
        let metas = self.nodes.iter().filter_map(Node::meta_now);
        let known = metas.map(|meta| Config::clone(&meta.config));
        for config in known.filter(|c| c.version > 0 && Some(c.history) < newest) {
            let before = all.get(&config.history).map_or(0, |c| c.version);
            if config.version > before {
                all.insert(config.history, config);
            }
        }
        let stands = |config: &Config| {
            let lost = |id: &&NodeId| self.is_lost(config, **id);
            let lost = config.sync_set.iter().filter(lost).count();
            lost < copies_of(config, config.acks_needed)
        };
        let older = all.into_values().filter(stands);
        in_force.into_iter().chain(older).collect()
    }

    /// The Config before the newest one, while its voters are needed to find the newest one.
    fn voters_before(&self) -> Option<Config> {
        let newest = self.observer.newest_config(&self.nodes)?;
        let voters = newest
            .voters
            .iter()
            .filter(|id| !self.is_lost(newest, **id));
        let votes = voters.filter_map(|id| self.nodes[id.0 as usize].meta_now()?.acceptor.accepted);
        let votes = votes.map(|vote| vote.proposal).filter(|proposal| {
            proposal.value.history == newest.history && proposal.value.version >= newest.version
        });
        let (open, settled): (Vec<_>, Vec<_>) = votes.partition(|proposal| {
            proposal.value.version == newest.version && proposal.changes_voters()
        });
        let parent = open.into_iter().find_map(|proposal| proposal.parent)?;
        (settled.len() * 2 <= newest.voters.len()).then(|| Config::clone(&parent))
    }

    /// Whether this node's disk may be lost now.
    pub(super) fn may_lose(&self, place: usize) -> bool {
        let id = self.nodes[place].id;
        let configs = self.configs_to_spare();
        let keeps_majority = |config: &Config| {
            let lost = |other: &&NodeId| **other == id || self.is_lost(config, **other);
            config.voters.iter().filter(lost).count() <= (config.voters.len() - 1) / 2
        };
        !configs.is_empty()
            && self
                .voters_before()
                .is_none_or(|config| keeps_majority(&config))
            && configs.iter().all(|config| {
                let lost = |other: &&NodeId| **other == id || self.is_lost(config, **other);
                let copies = config.sync_set.iter().filter(lost).count();
                let in_set = config.sync_set.contains(&id);
                (!in_set || copies < self.copies_needed(config) && self.others_stand(config, id))
                    && keeps_majority(config)
            })
    }

    /// An operator may ask for fewer acknowledgements at any time, and damage that nobody has met
    /// yet cannot keep him from it.
    fn copies_needed(&self, config: &Config) -> usize {
        let fewer = Acks::Majority.needed(config.protection, config.sync_set.len());
        let needed = match self.plan.operator_pause {
            Some(_) => config.acks_needed.min(fewer),
            None => config.acks_needed,
        };
        copies_of(config, needed)
    }

    /// The other members of the sync set are up, and their logs are believed.
    fn others_stand(&self, config: &Config, id: NodeId) -> bool {
        let stands = |other: &NodeId| {
            let node = &self.nodes[other.0 as usize];
            let process = node.process.as_ref();
            self.is_lost(config, *other)
                || process.is_some_and(|p| {
                    !p.engine.replica().meta().suspect && !node.dying && !node.failing
                })
        };
        config
            .sync_set
            .iter()
            .all(|other| *other == id || stands(other))
    }

    /// Some disk of a sync set counts as lost: no other member may lose power.
    pub fn power_is_safe(&self) -> bool {
        let configs = self.configs_to_spare();
        let mut members = configs
            .iter()
            .flat_map(|config| config.sync_set.iter().map(move |id| (config, id)));
        members.any(|(config, id)| self.is_lost(config, *id))
    }

    /// Looks at each Config that is newly known to be chosen.
    pub fn watch_budget(&mut self) -> Result<(), String> {
        let newest = self.observer.newest_config(&self.nodes);
        let key = newest.map(|config| (config.history, config.version));
        if key != self.faults.judged {
            self.faults.judged = key;
            for place in 0..self.nodes.len() {
                self.forgive(place);
            }
            self.beyond_promises |= self.is_beyond_promises()?;
        }
        Ok(())
    }

    /// A Config was chosen in which too many disks are lost. It can only be the last word of a
    /// primary that lost its own disk while it proposed it, or count copies that are damaged where
    /// nobody has read since: who takes a sound member out cannot know that it was one of the last.
    /// Then nothing more is promised. A disk that is known to be another counts in no case, nor one
    /// that had been silent for too long when the change was offered.
    fn is_beyond_promises(&self) -> Result<bool, String> {
        let Some(config) = self.observer.newest_config(&self.nodes) else {
            return Ok(false);
        };
        let lost = |id: &&NodeId| self.is_lost(config, **id);
        let copies = config.sync_set.iter().filter(lost).count();
        if copies < copies_of(config, config.acks_needed) {
            return Ok(false);
        }
        let renamed = |id: &&NodeId| {
            let named = config.members.get(*id).map(|member| member.incarnation);
            named != Some(self.nodes[id.0 as usize].incarnation)
                && self.observer.could_know(&self.nodes, config, **id)
        };
        let known = config.sync_set.iter().filter(renamed).count();
        if self.is_lost(config, config.primary) || known < copies_of(config, config.acks_needed) {
            return Ok(true);
        }
        Err(format!(
            "I1: {copies} disks of the sync set were lost when this was chosen: {config:?}"
        ))
    }

    /// Whether a Config that was offered, and is not known to be chosen, needs the vote of a disk
    /// that was lost right before: it was promised on by then. Force alone helps there.
    pub fn hangs_on_lost_voters(&self) -> bool {
        self.configs_in_force().iter().any(|config| {
            let lost = |id: &&NodeId| self.is_lost(config, **id);
            config.voters.iter().filter(lost).count() * 2 >= config.voters.len()
        })
    }

    /// A disk that was damaged and has since been proved whole counts again.
    pub(super) fn forgive(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(process) = node.process.as_ref().filter(|_| node.harmed.is_some()) else {
            return;
        };
        let replica = process.engine.replica();
        let is_other = node.harmed != Some(replica.meta().incarnation);
        let was_opened_since = node.life > node.harmed_in;
        let is_sound = was_opened_since
            && !replica.meta().suspect
            && process.scrub().is_none()
            && shelf::scrub(&node.disks, &mut || ()).is_none()
            && node.has_sound_meta();
        if is_other || is_sound {
            node.harmed = None;
        }
    }
}
