//! One ballot of a proposer: whom it asked, who answered, and what follows from the answers.
//!
//! Keeps R2 and R3. Pure bookkeeping: nothing here sends, waits or remembers beyond its ballot.

use super::Reason;
use super::ballot::Ballot;
use super::value::{Accepted, Proposal, Value};
use super::voters::{Voter, Voters};
use std::collections::{BTreeMap, BTreeSet};

/// Phase one. It begins with the voters of `base` alone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Prepare {
    pub(super) ballot: Ballot,
    /// The newest value known to be chosen, before the first request of this ballot was sent.
    pub(super) base: Value,
    asked: BTreeSet<Voter>,
    promises: BTreeMap<Voter, Option<Accepted>>,
}

/// What the promises tell so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    NotYet,
    /// A value with other voters may be chosen: a majority of those must promise as well.
    Ask(Voters),
    /// A successor of the base may be chosen, or not: it must be voted for again.
    Unchosen(Proposal),
    /// The base is current. `spread`: a majority of its voters holds it at one ballot, and none of
    /// them needs its parent's voters to know that it is chosen.
    Current {
        spread: bool,
    },
    /// A majority of the base's voters holds nothing as new as the base. They lost their memory.
    Forgot,
}

/// Whether the voters of a change have promised, so that its choice cannot hang on a dead one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readiness {
    Ready,
    Waiting,
    Unasked,
}

impl Prepare {
    pub(super) fn new(ballot: Ballot, base: Value) -> Prepare {
        let asked = base.voters().iter().collect();
        Prepare {
            ballot,
            base,
            asked,
            promises: BTreeMap::new(),
        }
    }

    /// Takes an answer. The proposal in it has been checked, and what it proves chosen is not
    /// newer than the base: else the round would have begun again.
    pub(super) fn admit(&mut self, from: Voter, accepted: Option<Accepted>) -> Result<(), Reason> {
        if !self.asked.contains(&from) {
            return Err(Reason::DoesNotCount);
        }
        if let Some(vote) = &accepted {
            assert!(
                vote.proposal.known_chosen().version <= self.base.version,
                "R1: {:?} proves more chosen than {:?}",
                vote.proposal,
                self.base
            );
            if vote.ballot >= self.ballot {
                return Err(Reason::Unsound);
            }
        }
        self.promises.entry(from).or_insert(accepted);
        Ok(())
    }

    pub(super) fn found(&self) -> Found {
        let promised = |voter| self.promises.contains_key(&voter);
        // The base's voters come first, whatever single voters may tell of others: only when a
        // full majority has spoken are others asked, and then as well, not instead.
        if !self.base.voters().majority(promised) {
            return Found::NotYet;
        }
        let votes = self.promises.values().flatten();
        let Some(highest) = votes.max_by_key(|vote| vote.ballot) else {
            return Found::Forgot;
        };
        let value = &highest.proposal.value;
        if *value == self.base {
            let spread = value.voters().majority(|voter| {
                self.promises.get(&voter).is_some_and(|vote| {
                    vote.as_ref().is_some_and(|vote| {
                        vote.ballot == highest.ballot && !vote.proposal.changes_voters()
                    })
                })
            });
            return Found::Current { spread };
        }
        if highest.proposal.parent.as_ref() != Some(&self.base) {
            return Found::Forgot;
        }
        if value.voters().majority(promised) {
            Found::Unchosen(highest.proposal.clone())
        } else if value
            .voters()
            .iter()
            .all(|voter| self.asked.contains(&voter))
        {
            Found::NotYet
        } else {
            Found::Ask(value.voters())
        }
    }

    /// A majority of its own voters must have promised, and whoever is new among them.
    pub(super) fn readiness(&self, proposal: &Proposal) -> Readiness {
        let voters = proposal.value.voters();
        let old = self.base.voters();
        let promised = |voter| self.promises.contains_key(&voter);
        let new_ones_promised = voters
            .iter()
            .all(|voter| old.contains(voter) || promised(voter));
        if new_ones_promised && voters.majority(promised) {
            Readiness::Ready
        } else if voters.iter().all(|voter| self.asked.contains(&voter)) {
            Readiness::Waiting
        } else {
            Readiness::Unasked
        }
    }

    pub(super) fn ask(&mut self, voters: &Voters) {
        self.asked.extend(voters.iter());
    }

    pub(super) fn unanswered(&self) -> impl Iterator<Item = Voter> + '_ {
        let asked = self.asked.iter().copied();
        asked.filter(|voter| !self.promises.contains_key(voter))
    }

    pub(super) fn asks(&self, voter: Voter) -> bool {
        self.asked.contains(&voter)
    }
}

/// Phase two.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Vote {
    pub(super) ballot: Ballot,
    pub(super) proposal: Proposal,
    votes: BTreeSet<Voter>,
}

impl Vote {
    pub(super) fn new(ballot: Ballot, proposal: Proposal) -> Vote {
        Vote {
            ballot,
            proposal,
            votes: BTreeSet::new(),
        }
    }

    /// Takes a vote; true once the votes choose the proposal.
    pub(super) fn admit(&mut self, from: Voter) -> Result<bool, Reason> {
        if !self.asks(from) {
            return Err(Reason::DoesNotCount);
        }
        self.votes.insert(from);
        Ok(self
            .proposal
            .is_chosen_by(|voter| self.votes.contains(&voter)))
    }

    pub(super) fn unanswered(&self) -> impl Iterator<Item = Voter> + '_ {
        let mut asked: BTreeSet<Voter> = self.proposal.value.voters().iter().collect();
        if let Some(parent) = &self.proposal.parent {
            asked.extend(parent.voters().iter());
        }
        asked
            .into_iter()
            .filter(|voter| !self.votes.contains(voter))
    }

    pub(super) fn asks(&self, voter: Voter) -> bool {
        let parent = self.proposal.parent.as_ref();
        self.proposal.value.voters().contains(voter)
            || parent.is_some_and(|parent| parent.voters().contains(voter))
    }
}
