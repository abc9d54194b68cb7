//! I4: a read is answered only after enough of the sync set, or of the voters, has shown its reign
//! in answer to something that was sent after the read came in.
//!
//! That a read is really stale takes a successor, and a late answer of a node that obeys it by
//! then; that it was answered too early shows with each read.

use super::Observer;
use super::history::Id;
use super::positions::meta_on_disk;
use crate::simulate::nodes::Node;
use standfast::replication::register::Body as Vote;
use standfast::replication::{Body, Config, Fence, Message, Replica};
use standfast_wal::{History, Lsn, NodeId};
use std::collections::BTreeMap;

/// A read that waits at a primary, and what was known when it came in.
struct Waiting {
    node: NodeId,
    /// Its node has passed commands on to a successor since, perhaps this one.
    is_passed_on: bool,
    reign: Fence,
    history: History,
    commit: Lsn,
    /// The newest Config of the reign that was chosen then, known to anybody or not.
    chosen: Config,
    /// The last round that this reign had sent.
    round: u64,
    /// How many answers of voters had been seen.
    votes: u64,
}

#[derive(Default)]
pub struct Rounds {
    /// The highest round that each reign has sent to anybody.
    sent: BTreeMap<Fence, u64>,
    /// The highest round that a node has shown each reign to have reached it.
    shown: BTreeMap<(Fence, NodeId), u64>,
    /// By who asked and who answered: the number of the newest answer of a voter.
    voted: BTreeMap<(usize, usize), u64>,
    votes: u64,
    waiting: BTreeMap<Id, Waiting>,
}

impl Rounds {
    pub fn sent(&mut self, from: usize, to: usize, message: &Message) {
        let reign = |epoch| Fence {
            history: message.history,
            epoch,
        };
        match &message.body {
            Body::Heartbeat(beat) => self.begun(reign(beat.epoch), beat.round),
            Body::Append { epoch, round, .. } | Body::Follow { epoch, round, .. } => {
                self.begun(reign(*epoch), *round);
            }
            Body::Acked { epoch, round, .. } | Body::Heard { epoch, round, .. } => {
                let id = super::super::plan::id(from);
                let highest = self.shown.entry((reign(*epoch), id)).or_default();
                *highest = (*round).max(*highest);
            }
            Body::Register(vote) => {
                if let Vote::Promised { .. } | Vote::Accepted { .. } = vote.body {
                    self.votes += 1;
                    self.voted.insert((to, from), self.votes);
                }
            }
            _ => {}
        }
    }

    /// A former primary passes on what it has not answered.
    pub fn passed_on(&mut self, from: NodeId) {
        for read in self.waiting.values_mut() {
            read.is_passed_on |= read.node == from;
        }
    }

    fn begun(&mut self, reign: Fence, round: u64) {
        let highest = self.sent.entry(reign).or_default();
        *highest = round.max(*highest);
    }

    /// Whether enough have shown the reign since by this Config.
    fn is_shown(&self, read: &Waiting, own: NodeId, config: &Config) -> bool {
        let shows = |id: &&NodeId| {
            let shown = self.shown.get(&(read.reign, **id)).copied();
            **id == own || shown.is_some_and(|round| round > read.round)
        };
        let votes = |id: &&NodeId| {
            let voted = self.voted.get(&(own.0 as usize, id.0 as usize)).copied();
            **id == own || voted.is_some_and(|vote| vote > read.votes)
        };
        let shown = config.sync_set.iter().filter(shows).count();
        let voted = config.voters.iter().filter(votes).count();
        shown >= config.acks_needed as usize || voted * 2 > config.voters.len()
    }
}

/// A majority of the voters of `by` has voted for this Config with one ballot, each on its disk.
fn is_voted_for(nodes: &[Node], by: &Config, next: &Config) -> bool {
    let ballot_of = |id: &NodeId| {
        let meta = meta_on_disk(nodes.get(id.0 as usize)?)?;
        let named = by.members.get(id).map(|member| member.incarnation);
        let vote = meta.acceptor.accepted?;
        let is_it = *vote.proposal.value == *next && Some(meta.incarnation) == named;
        is_it.then_some(vote.ballot)
    };
    let ballots: Vec<_> = by.voters.iter().filter_map(ballot_of).collect();
    let votes = |ballot| ballots.iter().filter(|one| *one == ballot).count();
    ballots
        .iter()
        .any(|ballot| votes(ballot) * 2 > by.voters.len())
}

impl Observer {
    /// A read comes in at a primary: it will be answered from what is committed there, or later.
    pub fn read_came_in(&mut self, id: Id, node: &Node, nodes: &[Node]) {
        let process = node.process.as_ref();
        let replica = process.map(|process| process.engine.replica());
        let Some(replica) = replica.filter(|replica| replica.is_serving()) else {
            return;
        };
        let chosen = self.chosen_by_now(replica, nodes);
        let (rounds, reign) = (&mut self.rounds, replica.fence());
        let waiting = Waiting {
            node: node.id,
            is_passed_on: false,
            reign,
            history: replica.history(),
            commit: replica.commit(),
            chosen,
            round: rounds.sent.get(&reign).copied().unwrap_or_default(),
            votes: rounds.votes,
        };
        rounds.waiting.insert(id, waiting);
    }

    /// The newest Config of this primary's reign: what it has proposed, if that is chosen already.
    fn chosen_by_now(&self, replica: &Replica, nodes: &[Node]) -> Config {
        let own = replica.config();
        let proposed = replica.proposed().filter(|next| next.version > own.version);
        let is_chosen = |next: &&Config| {
            let learned = self.register.at(next.history, next.version);
            learned == Some(*next)
                || is_voted_for(nodes, own, next) && is_voted_for(nodes, next, next)
        };
        proposed.filter(is_chosen).unwrap_or(own).clone()
    }

    /// What came in at a primary is answered, in this history, at this LSN.
    pub(super) fn read_answered(
        &mut self,
        id: Id,
        node: &Node,
        history: History,
        lsn: Lsn,
    ) -> Result<(), String> {
        let Some(read) = self.rounds.waiting.remove(&id) else {
            return Ok(());
        };
        if read.history == history && lsn < read.commit {
            let (noted, asked) = (read.commit, self.history.get(id));
            return Err(format!(
                "I4: a read came in at {noted} and was answered at {lsn}: {asked:?}"
            ));
        }
        let process = node.process.as_ref();
        let replica = process.map(|process| process.engine.replica());
        let Some(replica) = replica.filter(|replica| replica.is_serving()) else {
            return Ok(());
        };
        if replica.fence() != read.reign {
            return self.outlived_its_reign(id, &read, replica, lsn);
        }
        // Since it was confirmed the Config may have changed: any of those that held will do. One
        // that held before it came in does not: by a newer one, which its primary may not know to
        // be chosen, a successor may have been voted for whom the older set does not meet.
        let newer = read.chosen.version + 1..=replica.config().version;
        let newer = newer.filter_map(|version| self.register.at(read.reign.history, version));
        let mut held = std::iter::once(&read.chosen).chain(newer);
        if held.any(|config| self.rounds.is_shown(&read, node.id, config)) {
            return Ok(());
        }
        let (reign, round, asked) = (read.reign, read.round, self.history.get(id));
        Err(format!(
            "I4: a read came in after round {round} of {reign} and is answered, and too few have \
             shown a later one: {asked:?}"
        ))
    }

    /// A read that came in under an earlier reign of this primary: it is answered by a successor to
    /// whom it was passed on, or anew, from what this reign has. What the earlier one saw may be
    /// old.
    fn outlived_its_reign(
        &self,
        id: Id,
        read: &Waiting,
        replica: &Replica,
        lsn: Lsn,
    ) -> Result<(), String> {
        let start = replica.epochs().last().map(|entry| entry.first_lsn);
        if read.is_passed_on || Some(lsn) >= start {
            return Ok(());
        }
        let (earlier, now, asked) = (read.reign, replica.fence(), self.history.get(id));
        Err(format!(
            "I4: a read of {earlier} is answered in {now} as of {lsn}, before that began: {asked:?}"
        ))
    }
}
