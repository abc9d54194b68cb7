//! The register and I5: one Config per version is ever chosen; no promotion outside the sync set.

use standfast::replication::Config;
use standfast_wal::{Epoch, History, NodeId};
use std::collections::{BTreeMap, BTreeSet};

pub struct Configs {
    chosen: BTreeMap<(History, u64), Config>,
    /// Nodes that were told to found a history of their own.
    forced: BTreeSet<NodeId>,
}

impl Configs {
    pub fn new(first: &Config) -> Configs {
        Configs {
            chosen: BTreeMap::from([((first.history, first.version), first.clone())]),
            forced: BTreeSet::new(),
        }
    }

    pub fn forced(&mut self, node: usize) {
        self.forced.insert(super::super::plan::id(node));
    }

    /// A node knows this Config to be chosen.
    pub fn learned(&mut self, config: &Config) -> Result<(), String> {
        if config.version == 0 {
            return Ok(()); // It knows of none yet.
        }
        let key = (config.history, config.version);
        if let Some(other) = self.chosen.get(&key) {
            if other != config {
                return Err(format!(
                    "R2: two Configs were chosen: {other:?}, {config:?}"
                ));
            }
            return Ok(());
        }
        let is_new_history = !self
            .chosen
            .keys()
            .any(|(history, _)| *history == config.history);
        if is_new_history && !self.forced.contains(&config.primary) {
            return Err(format!(
                "I5: nobody was told to found this history: {config:?}"
            ));
        }
        let near = |version| self.chosen.get(&(config.history, version));
        if let Some(before) = near(config.version - 1)
            && (before.epoch > config.epoch || before.epoch.next() < config.epoch)
        {
            return Err(format!("R1: {config:?} does not follow {before:?}"));
        }
        if let Some(before) = near(config.version - 1) {
            keeps_its_disks(before, config)?;
        }
        self.chosen.insert(key, config.clone());
        Ok(())
    }

    pub fn at(&self, history: History, version: u64) -> Option<&Config> {
        self.chosen.get(&(history, version))
    }

    /// A node acts as primary, by this Config.
    pub fn promoted(&mut self, node: NodeId, config: &Config) -> Result<(), String> {
        if config.primary != node {
            return Err(format!("I3: n{node} acts as primary, chosen is {config:?}"));
        }
        let start = self.start_of(config.history, config.epoch);
        let Some(start) = start else { return Ok(()) };
        if start.version == 1 {
            return Ok(());
        }
        // What held before the epoch, where it was seen: the newest Config of an epoch below.
        let Some(before) = self.chosen.get(&(config.history, start.version - 1)) else {
            return Ok(());
        };
        if before.epoch < start.epoch && !before.sync_set.contains(&node) {
            return Err(format!(
                "I5: n{node} was promoted by {start:?}, but the sync set was {:?}",
                before.sync_set
            ));
        }
        Ok(())
    }

    fn start_of(&self, history: History, epoch: Epoch) -> Option<&Config> {
        let all = self.chosen.range((history, 0)..=(history, u64::MAX));
        all.map(|(_, config)| config)
            .find(|config| config.epoch == epoch)
    }

    /// Newest first.
    pub fn histories(&self) -> Vec<History> {
        let mut all: Vec<_> = self.chosen.keys().map(|(history, _)| *history).collect();
        all.dedup();
        all.reverse();
        all
    }

    /// The newest Config that is known to be chosen.
    pub fn newest(&self, history: History) -> Option<&Config> {
        let all = self.chosen.range((history, 0)..=(history, u64::MAX));
        all.map(|(_, config)| config).next_back()
    }

    /// The last one of this reign.
    pub fn newest_of(&self, history: History, epoch: Epoch) -> Option<&Config> {
        let all = self.chosen.range((history, 0)..=(history, u64::MAX));
        let all = all.map(|(_, config)| config);
        all.rev().find(|config| config.epoch == epoch)
    }

    /// What a commit in this reign must satisfy: the primary's Config, and a newer one that is
    /// chosen already and that it may not know yet.
    pub fn rules(&self, own: &Config) -> Vec<(BTreeSet<NodeId>, usize)> {
        let newest = self.newest_of(own.history, own.epoch);
        let both = [Some(own), newest];
        let rules = both.into_iter().flatten();
        rules
            .map(|config| (config.sync_set.clone(), config.acks_needed as usize))
            .collect()
    }
}

/// I1: a disk that is new holds nothing, so it takes no place in the sync set over from another.
fn keeps_its_disks(before: &Config, after: &Config) -> Result<(), String> {
    let mut both = before.sync_set.intersection(&after.sync_set);
    match both.find(|id| before.members[id].incarnation != after.members[id].incarnation) {
        Some(id) => Err(format!(
            "I1: n{id} has another disk and its old place: {after:?} after {before:?}"
        )),
        None => Ok(()),
    }
}
