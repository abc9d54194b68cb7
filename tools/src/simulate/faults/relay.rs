//! One primary after the other is cut off, each until its successor serves: elections in a row,
//! with old primaries that come back with dead ends of logs, and with mail of earlier reigns.

use super::Kind;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::World;

/// Looks for a successor before it is given up.
const TRIES: u32 = 12;

pub struct Relay {
    random: Random,
    /// Who is cut off, and by what.
    cut: Option<(usize, u64)>,
    left: u64,
    tries: u32,
}

impl World {
    pub(super) fn failover_ns(&self) -> u64 {
        let failover = self.plan.tuning.core.failover_timeout;
        u64::try_from(failover.as_nanos()).expect("a timeout")
    }

    /// True if it begins.
    pub(super) fn relay(&mut self, random: &mut Random) -> bool {
        if self.faults.relay.is_some() || self.primary_place().is_none() {
            return false;
        }
        self.faults.relay = Some(Relay {
            random: Random::new(random.next()),
            cut: None,
            left: random.between(2, 6),
            tries: TRIES,
        });
        self.relay_on();
        true
    }

    /// Once another than the one that is cut off serves, that one is cut off instead.
    pub fn relay_on(&mut self) {
        let Some(mut relay) = self.faults.relay.take() else {
            return;
        };
        let gone = relay.cut.map(|(node, _)| node);
        let serves = |place: &usize| {
            let process = self.nodes[*place].process.as_ref();
            process.is_some_and(|process| process.engine.replica().is_serving())
        };
        let next = (0..self.nodes.len()).find(|place| Some(*place) != gone && serves(place));
        let is_over = self.calm.is_some() || relay.left == 0 || relay.tries == 0;
        match next.filter(|_| !is_over) {
            Some(next) => {
                relay.tries = TRIES;
                relay.left -= 1;
                self.relay_to(&mut relay, next);
            }
            None => relay.tries = relay.tries.saturating_sub(1),
        }
        if is_over {
            if let Some((_, partition)) = relay.cut {
                self.heal(partition);
            }
            return;
        }
        let failover = self.failover_ns();
        let wait = relay.random.between(failover / 3, failover * 2);
        self.faults.relay = Some(relay);
        self.after(wait, Happening::Relay);
    }

    fn relay_to(&mut self, relay: &mut Relay, next: usize) {
        let failover = self.failover_ns();
        if let Some((back, partition)) = relay.cut {
            self.heal(partition);
            // Its log's end reaches the disk while it meets its successor.
            let left = relay.random.below(failover / 2);
            let stalled = &mut self.nodes[back].stalled_until;
            *stalled = (*stalled).min(self.now + left);
        }
        // What it sends is lost, or what it is sent as well.
        let is_heard = relay.random.one_in(2);
        let ways = self.ways(|from, to| from == next || !is_heard && to == next);
        self.say(|| format!("relay: n{next} is cut off, hears: {is_heard}"));
        relay.cut = Some((next, self.net.cut(ways)));
        if relay.random.one_in(2) {
            self.delay_mail(&mut relay.random, next);
        }
        if relay.random.one_in(3) {
            self.nodes[next].stalled_until = self.now + failover * 8;
        }
        if relay.random.one_in(3) {
            // What a successor has taken is not on its disk when it stands.
            let other = relay.random.index(self.nodes.len());
            let stall = relay.random.between(failover, failover * 4);
            self.nodes[other].stalled_until = self.now + stall;
        }
    }

    /// A change of the Config is under way: now and then its primary stands still just then, hears
    /// late of what others do meanwhile, and goes on with it.
    pub fn trouble_in_change(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let is_changing = process.is_some_and(|process| process.engine.replica().is_changing());
        let was_changing = std::mem::replace(&mut self.nodes[node].is_changing, is_changing);
        if !is_changing || was_changing || self.calm.is_some() || !self.faults.may(Kind::Relay) {
            return;
        }
        let mut random = Random::new(self.dice.faults.next());
        if random.one_in(12) {
            let failover = self.failover_ns();
            let wait = random.below(failover / 4);
            self.after(wait, Happening::Stop { node });
            self.delay_mail(&mut random, node);
        }
    }

    /// A node stands still for about as long as it takes to be missed.
    pub fn stop_short(&mut self, node: usize) {
        let failover = self.failover_ns();
        let wait = self.dice.nodes.between(failover, failover * 3);
        self.pause(node, wait);
    }

    /// What others say to this node comes late by an election or two.
    fn delay_mail(&mut self, random: &mut Random, to: usize) {
        let failover = self.failover_ns();
        let extra = random.between(failover, failover * 6);
        for from in (0..self.nodes.len()).filter(|from| *from != to) {
            if random.one_in(3) {
                self.net.slow_down(from, to, extra);
                self.after(extra * 2, Happening::Hasten { from, to });
            }
        }
    }
}
