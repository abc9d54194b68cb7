//! What a node has heard of others, and when: a voter or a copy that is silent may be lost.

use super::queue::Happening;
use super::world::{MS, World};
use standfast::node::engine::Event;
use standfast::node::link::LinkEvent;
use standfast::node::wire::{Frame, Head};
use standfast::replication::Replica;
use standfast_wal::{Incarnation, NodeId};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Heard {
    /// When the last turn was.
    pub turned_at: u64,
    /// When something last came from which disk, or that was first known of.
    disks: BTreeMap<(NodeId, Incarnation), u64>,
    primary_since: Option<u64>,
}

impl Heard {
    pub fn take(&mut self, now: u64, events: &[Event]) {
        self.turned_at = now;
        for event in events {
            if let Event::Link(LinkEvent::Frame {
                from, incarnation, ..
            }) = event
            {
                self.disks.insert((*from, *incarnation), now);
            }
        }
    }

    pub fn turned(&mut self, replica: &Replica) {
        let since = self.primary_since.unwrap_or(self.turned_at);
        self.primary_since = replica.is_primary().then_some(since);
        for (id, member) in &replica.config().members {
            let disk = (*id, member.incarnation);
            self.disks.entry(disk).or_insert(self.turned_at);
        }
    }

    /// When something last came from this disk; 0: never.
    pub fn last(&self, id: NodeId, disk: Incarnation) -> u64 {
        self.disks.get(&(id, disk)).copied().unwrap_or(0)
    }

    /// As `last`; whoever becomes primary begins to listen then.
    pub fn last_in_reign(&self, id: NodeId, disk: Incarnation) -> u64 {
        self.last(id, disk).max(self.primary_since.unwrap_or(0))
    }
}

impl World {
    /// Now and then a message of the core comes out of its connection once more, late. TCP does not
    /// do that, but the protocol counts on no message to come only once.
    pub fn double(&mut self, pipe: usize, from: NodeId, disk: Incarnation, frame: &Frame) {
        let is_core = matches!(frame.head, Head::Core { .. });
        let one_in = self.plan.double_one_in.filter(|_| is_core);
        if self.calm.is_none() && one_in.is_some_and(|one_in| self.dice.net.one_in(one_in)) {
            let wait = self.dice.net.scaled(MS / 10, 4000 * MS);
            let event = Box::new(Event::Link(LinkEvent::Frame {
                from,
                incarnation: disk,
                frame: frame.clone(),
            }));
            self.after(wait, Happening::Again { pipe, event });
        }
    }

    /// Only while the connection stands and the way is open: what is heard is heard of a process
    /// that is there.
    pub fn arrives_again(&mut self, pipe: usize, event: Event) -> Result<(), String> {
        let Some((from, to)) = self.stands(pipe).filter(|_| self.calm.is_none()) else {
            return Ok(());
        };
        self.summary.doubled += 1;
        self.say(|| format!("n{from} -> n{to} once more: {event:?}"));
        self.turn(to, vec![event])
    }
}
