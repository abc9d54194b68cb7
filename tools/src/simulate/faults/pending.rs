//! Trouble while a change of the Config waits for its voters: what it counts on goes, and who it
//! takes out as lost comes back. Chance alone hardly ever does both in so short a time.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::World;
use standfast::replication::Config;
use standfast_wal::{Incarnation, NodeId};
use std::collections::BTreeSet;

fn places<'a>(ids: impl Iterator<Item = &'a NodeId>) -> Vec<usize> {
    ids.map(|id| id.0 as usize).collect()
}

/// Voters, each with the disk that it votes on.
fn voters(config: &Config) -> BTreeSet<(NodeId, Incarnation)> {
    let disk = |id: &NodeId| (*id, config.members[id].incarnation);
    config.voters.iter().map(disk).collect()
}

impl World {
    /// A primary has proposed a change, in this turn or before.
    pub(super) fn trouble_in_proposal(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let replica = process.engine.replica();
        let Some(next) = replica.proposed() else {
            return;
        };
        let nonce = next.nonce;
        let may = self.faults.may(Kind::LostDisk) && self.faults.may(Kind::Relay);
        if !may || self.faults.moments.proposals.contains(&nonce) {
            return;
        }
        let now = replica.config();
        let gone = places(now.sync_set.difference(&next.sync_set));
        let counted = places(next.sync_set.iter().filter(|id| id.0 as usize != node));
        let (before, after) = (voters(now), voters(next));
        let new = places(after.difference(&before).map(|(id, _)| id));
        let staying = places(before.intersection(&after).map(|(id, _)| id));
        self.faults.moments.proposals.insert(nonce);
        let mut random = Random::new(self.dice.faults.next());
        if !gone.is_empty() && counted.len() > 1 {
            self.lose_who_is_counted_on(node, &counted, &gone, &mut random);
        } else if !new.is_empty() {
            self.lose_who_promised(node, &staying, &new, &mut random);
        }
    }

    /// The primary is cut off before anybody has voted. Meanwhile the members that its change
    /// counts on lose their disks, as many as may, and those that it takes out are back.
    fn lose_who_is_counted_on(
        &mut self,
        node: usize,
        counted: &[usize],
        gone: &[usize],
        random: &mut Random,
    ) {
        self.say(|| {
            format!("n{node} is cut off with a change; {counted:?} are to lose their disks")
        });
        let failover = self.failover_ns();
        for back in gone {
            for partition in self.net.partitions_at(*back) {
                self.heal(partition);
            }
            let wait = random.below(failover * 2);
            self.after(0, Happening::Resume { node: *back });
            self.after(wait, Happening::Restart { node: *back });
        }
        let ways = self.ways(|from, to| from == node || to == node);
        let of_counted =
            |(from, to): &(usize, usize)| counted.contains(from) || counted.contains(to);
        let (near, far): (Vec<_>, Vec<_>) = ways.into_iter().partition(of_counted);
        let (near, far) = (self.net.cut(near), self.net.cut(far));
        self.break_all(node);
        for place in counted {
            let struck = self.lose_disk(*place, random);
            self.faults.count(Kind::LostDisk, struck);
        }
        // Their new disks are heard of together with the others' votes, or later; the votes perhaps
        // so soon that nobody counts as silent.
        let soonest = random.pick(&[0, failover]);
        let wait = random.between(soonest, failover * 6);
        let later = random.pick(&[0, failover, failover * 3]);
        self.after(wait, Happening::Heal { partition: far });
        self.after(wait + later, Happening::Heal { partition: near });
    }

    /// There are to be new voters: of those that stay one has promised, and then all fall silent,
    /// or lose their disks, as many as may; what the new ones promise comes late.
    fn lose_who_promised(
        &mut self,
        node: usize,
        staying: &[usize],
        new: &[usize],
        random: &mut Random,
    ) {
        self.say(|| format!("n{node} waits for {new:?}; {staying:?} fall silent"));
        let late = self.failover_ns() * random.between(2, 6);
        for from in new.iter().filter(|from| **from != node) {
            let (from, to) = (*from, node);
            self.net.slow_down(from, to, late);
            self.after(late * 2, Happening::Hasten { from, to });
        }
        let promise = self.plan.latency[1] * 2 + self.plan.meta_sync[1] + self.plan.turn_gap;
        let mut wait = 0;
        let others = staying.iter().filter(|place| **place != node);
        for node in others.copied() {
            let span = late * 2;
            self.after(wait, Happening::Silence { node, span });
            wait = random.between(promise / 2, promise * 2);
        }
    }

    /// A node loses its disk, if that much damage may be; else it stands still for this long.
    pub fn silence(&mut self, node: usize, span: u64) {
        if self.calm.is_some() {
            return;
        }
        let mut random = Random::new(self.dice.faults.next());
        let struck = random.one_in(2) && self.lose_disk(node, &mut random);
        self.faults.count(Kind::LostDisk, struck);
        if !struck {
            self.pause(node, span);
        }
    }
}
