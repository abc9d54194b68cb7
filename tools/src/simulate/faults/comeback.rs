//! What goes wrong just while power passes from one node to another, which is seldom and short:
//! the old primary is back while its successor fences, and votes are on their way to a disk.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::World;
use standfast::node::wire::{Frame, Head};
use standfast::replication::Body;
use standfast_wal::{NodeId, Nonce};

/// One vote in so many is the last for a process; alone, where nobody else remembers it, more.
const LAST_VOTE_ONE_IN: u64 = 24;
const LAST_LONE_VOTE_ONE_IN: u64 = 3;
/// More operations of a disk than it takes to keep a promise, a vote and what is chosen.
const OPERATIONS_MAX: u64 = 20;

fn attempt_of((_, frame): &(NodeId, Frame)) -> Option<Nonce> {
    let Head::Core { message } = &frame.head else {
        return None;
    };
    match message.body {
        Body::Fence { attempt, .. } => Some(attempt),
        _ => None,
    }
}

impl World {
    /// A candidate has read the register and asks for fences. Now and then the primary that it
    /// replaces goes on just then, hears late of it, and is told to change something.
    pub fn trouble_in_fencing(
        &mut self,
        node: usize,
        frames: &[(NodeId, Frame)],
    ) -> Result<(), String> {
        let attempt = frames.iter().find_map(attempt_of);
        if attempt.is_none() || attempt == self.faults.attempt {
            return Ok(());
        }
        self.faults.attempt = attempt;
        let process = self.nodes[node].process.as_ref();
        let old = process.map(|process| process.engine.replica().config().primary.0 as usize);
        let may = self.calm.is_none() && self.faults.may(Kind::Relay);
        let Some(old) = old.filter(|old| *old != node && may) else {
            return Ok(());
        };
        let mut random = Random::new(self.dice.faults.next());
        if !random.one_in(3) {
            return Ok(());
        }
        self.say(|| format!("n{old} comes back while n{node} fences"));
        for partition in self.net.partitions_at(old) {
            self.heal(partition);
        }
        self.after(0, Happening::Resume { node: old });
        let failover = self.failover_ns();
        // What the candidate says comes late to all, or its own fence is as slow as a change.
        let late = random.between(failover / 8, failover);
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let extra = if to == old { late * 2 } else { late };
            self.net.slow_down(node, to, extra);
            self.after(late, Happening::Hasten { from: node, to });
        }
        if random.one_in(2) {
            self.nodes[node].meta_wait = late;
            self.after(late, Happening::Mend { node });
        }
        match self.plan.operator_pause {
            Some(_) if random.one_in(2) => self.change_something(old),
            _ => Ok(()),
        }
    }

    /// A node has a promise or a vote to keep: now and then its process dies within that write or
    /// one of the next.
    pub fn trouble_in_vote(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let process = this.process.as_ref();
        let voters = process.map(|process| process.engine.replica().config().voters.len());
        let one_in = match voters {
            Some(1) => LAST_LONE_VOTE_ONE_IN,
            _ => LAST_VOTE_ONE_IN,
        };
        let may = self.calm.is_none() && self.faults.may(Kind::CrashInDiskWork);
        if may && !this.dying && self.dice.disk.one_in(one_in) {
            let operations = self.dice.disk.below(OPERATIONS_MAX);
            this.disks.root.halt_after(operations);
            this.dying = true;
        }
    }
}
