//! Trouble in moments that are short and seldom, and in which one thing more may be too much:
//! chance alone would hardly ever meet them.

use super::Kind;
use crate::simulate::node::{Process, Wants};
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, World};
use standfast::node::wire::Head;
use standfast::replication::{Body, Fence, Replica};
use standfast_wal::{History, Lsn, Nonce};
use std::collections::{BTreeMap, BTreeSet};

/// In each run.
const STOPS: u32 = 3;
/// To each node in each history.
const QUESTIONS: u32 = 8;

pub struct Moments {
    away: Option<Away>,
    /// Whose voters were being told last that they alone decide, and in which version.
    settling: Option<(usize, u64)>,
    /// Who was about to begin an epoch last, and which.
    beginning: Option<(usize, Fence)>,
    /// So often yet a primary stands still in that.
    stops_left: u32,
    /// Who was asked last for a snapshot while one that it gave up was being finished, and when
    /// that is done.
    in_vain: Option<(usize, u64)>,
    /// Changes of the Config that were proposed.
    pub(super) proposals: BTreeSet<Nonce>,
    /// When who is asked next between which history and its own, and how often yet.
    between: BTreeMap<(usize, History), (u64, u32)>,
}

impl Default for Moments {
    fn default() -> Moments {
        Moments {
            away: None,
            settling: None,
            beginning: None,
            stops_left: STOPS,
            in_vain: None,
            proposals: BTreeSet::new(),
            between: BTreeMap::new(),
        }
    }
}

/// A primary that is cut off until its successor is about to be voted for.
struct Away {
    node: usize,
    reign: Fence,
    partition: u64,
    /// From the first fence of its successor's to its return.
    wait: u64,
}

impl World {
    /// A node has had a turn.
    pub fn trouble_in_moment(&mut self, node: usize, wants: &Wants) {
        self.questions_between_histories(node);
        self.snapshot_in_vain(node);
        if self.calm.is_some() {
            return;
        }
        self.come_back(node);
        self.trouble_in_lag(node);
        self.trouble_in_proposal(node);
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let replica = process.engine.replica();
        if !replica.is_primary() {
            return;
        }
        if !replica.is_serving() {
            return self.trouble_in_beginning(node);
        }
        if replica.is_changing() && is_settling(process) {
            self.trouble_in_settling(node);
        } else if self.faults.moments.stops_left > 0 && feeds_from_disk(replica, wants) {
            self.trouble_in_feeding(node);
        }
    }

    /// A node has given up its snapshot, for it took a peer's, and somebody finishes it all the
    /// same: it takes another one meanwhile. No fault either.
    fn snapshot_in_vain(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let Some(due) = process.and_then(Process::finishes_in_vain) else {
            return;
        };
        if self.faults.moments.in_vain.replace((node, due)) != Some((node, due)) {
            self.after(0, Happening::Save { node });
        }
    }

    /// The primary is cut off; it comes back while its successor is being voted for. Nothing that
    /// was said to it before reaches it.
    pub(super) fn send_away(&mut self, node: usize, random: &mut Random) {
        let Some(process) = &self.nodes[node].process else {
            return;
        };
        let reign = process.engine.replica().fence();
        let ways = self.ways(|from, to| from == node || to == node);
        self.say(|| format!("n{node} is cut off until its successor is voted for"));
        let partition = self.net.cut(ways);
        self.break_all(node);
        // Fences, promises, votes: each is said, written down and answered.
        let step = self.plan.latency[1] * 2 + self.plan.meta_sync[1];
        let wait = random.below(step * 3);
        self.faults.moments.away = Some(Away {
            node,
            reign,
            partition,
            wait,
        });
        let longest = self.failover_ns() * random.between(4, 10);
        self.after(longest, Happening::Heal { partition });
    }

    /// No fault, so it goes on after they have ended: that is when most nodes move.
    fn questions_between_histories(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let Some(replica) = process.map(|process| process.engine.replica()) else {
            return;
        };
        if replica.has_own_log() {
            return;
        }
        let place = (node, replica.history());
        let asked = self.faults.moments.between.entry(place);
        let (due, left) = asked.or_insert((0, QUESTIONS));
        if *left > 0 && *due <= self.now {
            // Something may have been heard of the newer history by then.
            let beat = self.plan.tuning.core.heartbeat_interval;
            *due = self.now + u64::try_from(beat.as_nanos()).expect("a timeout");
            *left -= 1;
            self.after(0, Happening::Between { node });
        }
    }

    /// A history has just been founded: now and then the others are told at once to follow it,
    /// while they have more than it has, and its snapshots are slow to come: what they hold of the
    /// old one stays for a while.
    pub fn trouble_in_founding(&mut self, founder: usize) {
        if self.calm.is_some() || !self.dice.nodes.one_in(2) {
            return;
        }
        for partition in self.net.partitions_at(founder) {
            self.heal(partition);
        }
        let failover = self.failover_ns();
        for other in (0..self.nodes.len()).filter(|other| *other != founder) {
            let extra = self.dice.nodes.between(failover / 4, failover * 2);
            let (from, to) = (founder, other);
            self.net.slow_down(from, to, extra);
            self.after(failover * 8, Happening::Hasten { from, to });
        }
        let wait = self.dice.nodes.below(failover / 4);
        self.after(wait, Happening::Gather);
    }

    /// A node has heard of more than it holds: an operator may found a history on that, while
    /// nobody who holds it can be heard.
    fn trouble_in_lag(&mut self, node: usize) {
        if !self.may_found() || !self.observer.lags(node, &self.nodes) {
            return;
        }
        if self.dice.nodes.one_in(20) {
            let ways = self.ways(|from, to| from == node || to == node);
            let partition = self.net.cut(ways);
            let wait = self.failover_ns() * self.dice.nodes.between(3, 8);
            self.after(wait, Happening::Heal { partition });
            // At once, or when the others have gone on for a while.
            self.will_found(node);
            let wait = self.dice.nodes.pick(&[0, wait / 2]);
            self.after(wait, Happening::Founds { node });
        }
    }

    fn come_back(&mut self, seen: usize) {
        let fence = |process: &Process| process.engine.replica().fence();
        let seen = self.nodes[seen].process.as_ref().map(fence);
        let returns = |away: &mut Away| seen.is_some_and(|fence| fence > away.reign);
        let Some(away) = self.faults.moments.away.take_if(returns) else {
            return;
        };
        let (node, partition) = (away.node, away.partition);
        self.after(away.wait, Happening::Heal { partition });
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            for (from, to) in [(node, other), (other, node)] {
                let wait = away.wait + self.dice.net.between(1, self.plan.latency[1]);
                self.dial_after(wait, from, to);
            }
        }
    }

    /// A change of voters is chosen, and they are being told that they alone decide now.
    fn trouble_in_settling(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let version = process.map(|process| process.engine.replica().config().version);
        let change = version.map(|version| (node, version));
        let seen = std::mem::replace(&mut self.faults.moments.settling, change);
        if seen == change || !self.faults.may(Kind::Relay) {
            return;
        }
        let mut random = Random::new(self.dice.faults.next());
        if random.one_in(2) {
            self.send_away(node, &mut random);
        }
    }

    /// A member lags so far behind that it is fed from the log on disk: now and then the primary
    /// stands still just then, and hears late of all others.
    fn trouble_in_feeding(&mut self, node: usize) {
        if self.faults.may(Kind::LongPause) && self.dice.faults.one_in(3) {
            self.faults.moments.stops_left -= 1;
            self.after(0, Happening::Stop { node });
        }
    }

    /// A new primary waits for its EpochStart to be committed: now and then it is busy just then,
    /// and takes all that comes meanwhile in one turn, with what clients ask who look for it.
    fn trouble_in_beginning(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        let reign = process.map(|process| (node, process.engine.replica().fence()));
        let seen = std::mem::replace(&mut self.faults.moments.beginning, reign);
        if seen == reign || !self.faults.may(Kind::Pause) {
            return;
        }
        let mut random = Random::new(self.dice.faults.next());
        if random.one_in(3) {
            let most = (self.failover_ns() / 2).max(MS);
            self.nodes[node].is_busy_until(self.now + random.below(most));
            self.look_for_primary(node, &mut random);
        }
    }
}

/// Somebody is sent what memory holds no more, or asked where to begin with that.
fn feeds_from_disk(replica: &Replica, wants: &Wants) -> bool {
    wants.frames.iter().any(|(to, frame)| {
        let Head::Core { message } = &frame.head else {
            return false;
        };
        let mut positions = replica.positions();
        let after = match &message.body {
            Body::Append { .. } => frame.records.first().map(|record| record.first_lsn().0 - 1),
            Body::Follow { .. } => positions
                .find(|(id, ..)| id == to)
                .map(|(_, _, matched)| matched.0),
            _ => None,
        };
        after.is_some_and(|lsn| replica.records_after(Lsn(lsn)).is_none())
    })
}

/// Its own vote is for the Config that it knows to be chosen, and leans on other voters.
fn is_settling(process: &Process) -> bool {
    let replica = process.engine.replica();
    let vote = replica.meta().acceptor.accepted.as_ref();
    vote.is_some_and(|vote| {
        let proposal = &vote.proposal;
        proposal.value.version == replica.config().version && proposal.changes_voters()
    })
}
