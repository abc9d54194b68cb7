//! How an operation runs: rounds of promises and votes, and what is drawn from each answer.
//!
//! Owns nothing: these are the steps of `Register` as a proposer. Keeps R1, R2 and R3; the rules
//! about single ballots are in `round`, those about single operations in `proposer`.

use super::ballot::{Ballot, ROUND_MAX};
use super::message::Body;
use super::proposer::{Job, Phase};
use super::round::{Found, Readiness};
use super::store::Outcome;
use super::value::{Accepted, Proposal, Value};
use super::voters::Voter;
use super::{Effect, Reason, Register};
use crate::replication::Time;
use standfast_wal::NodeId;
use std::collections::BTreeSet;

impl Register {
    pub(super) fn on_promised(
        &mut self,
        now: Time,
        from: Voter,
        ballot: Ballot,
        accepted: Option<Accepted>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        match &self.proposer.phase {
            Phase::Prepare(round) if round.ballot == ballot && round.asks(from) => {}
            Phase::Prepare(round) if round.ballot == ballot => return Err(Reason::DoesNotCount),
            _ => return Err(Reason::Late),
        }
        if let Some(vote) = &accepted {
            if !vote.proposal.is_sound(self.history) {
                return Err(Reason::Unsound);
            }
            self.learn(now, vote.proposal.known_chosen(), effects);
        }
        // What was learned may have begun another round, or ended the operation.
        match &mut self.proposer.phase {
            Phase::Prepare(round) if round.ballot == ballot => round.admit(from, accepted)?,
            _ => return Ok(()),
        }
        self.consider(now, effects)
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: Voter,
        ballot: Ballot,
        settled: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        let proposal = match &mut self.proposer.phase {
            Phase::Vote(round)
                if round.ballot == ballot && round.proposal.parent.is_none() == settled =>
            {
                if !round.admit(from)? {
                    return Ok(());
                }
                round.proposal.clone()
            }
            _ => return Err(Reason::Late),
        };
        if let Some(Job::Change(change)) = self.proposer.jobs.front_mut()
            && proposal.parent.is_none()
            && proposal.value == change.expected
        {
            // Every later majority meets a vote for the base above every vote for the change.
            change.offered = false;
        }
        // R2: a majority of its own voters and of its parent's have it on their disks. It is
        // chosen.
        self.raise_known(&proposal.value, effects);
        if proposal.parent.is_some() {
            self.announce(&proposal, effects);
        }
        if proposal.changes_voters() {
            // Before the operation ends, the new voters learn durably that they alone decide now:
            // the same value at the same ballot, without its parent.
            let proposal = Proposal::settled(proposal.value);
            self.ask_votes(now, ballot, proposal, effects);
        } else {
            self.end_round(now, effects);
        }
        Ok(())
    }

    pub(super) fn on_refused(
        &mut self,
        now: Time,
        from: Voter,
        ballot: Ballot,
        promised: Ballot,
    ) -> Result<(), Reason> {
        let asked = match &self.proposer.phase {
            Phase::Prepare(round) if round.ballot == ballot => round.asks(from),
            Phase::Vote(round) if round.ballot == ballot => round.asks(from),
            _ => return Err(Reason::Late),
        };
        if !asked {
            return Err(Reason::DoesNotCount);
        }
        if promised <= ballot || promised.round >= ROUND_MAX {
            return Err(Reason::Unsound);
        }
        self.proposer.saw(promised);
        self.proposer.back_off(now);
        Ok(())
    }

    /// Takes the next operation, which may be decided already.
    pub(super) fn begin(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let known = self
            .known
            .clone()
            .expect("submit refuses while nothing is known");
        match self.proposer.jobs.front() {
            Some(Job::Change(change)) => match change.end(&known, false) {
                Some(outcome) => self.finish(outcome, effects),
                None => self.start_round(now, effects),
            },
            Some(Job::Read(_)) => self.start_round(now, effects),
            None => unreachable!("begin is called for a job"),
        }
    }

    pub(super) fn start_round(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let ballot = self.proposer.next_ballot(self.me.node);
        let base = self
            .known
            .clone()
            .expect("submit refuses while nothing is known");
        self.proposer.prepare(now, ballot, base);
        self.ask(now, effects);
    }

    pub(super) fn ask_votes(
        &mut self,
        now: Time,
        ballot: Ballot,
        proposal: Proposal,
        effects: &mut Vec<Effect>,
    ) {
        assert!(
            proposal.is_sound(self.history),
            "R1: {} would propose {proposal:?}",
            self.me
        );
        self.proposer.vote(now, ballot, proposal);
        self.ask(now, effects);
    }

    /// Sends the round's request to all who have not answered it yet.
    pub(super) fn ask(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (voters, body): (Vec<Voter>, Body) = match &self.proposer.phase {
            Phase::Prepare(round) => {
                let known = round.base.version;
                let ballot = round.ballot;
                (
                    round.unanswered().collect(),
                    Body::Prepare { ballot, known },
                )
            }
            Phase::Vote(round) => {
                let proposal = round.proposal.clone();
                let ballot = round.ballot;
                (
                    round.unanswered().collect(),
                    Body::Accept { ballot, proposal },
                )
            }
            Phase::Idle | Phase::BackOff => return,
        };
        // A node whose old and new incarnation are both asked gets one copy: it has one ear.
        let nodes: BTreeSet<NodeId> = voters.iter().map(|voter| voter.node).collect();
        for node in nodes {
            self.send(node, body.clone(), effects);
        }
        self.proposer.deadline = Some(now.after(self.proposer.timing.resend));
    }

    /// Looks at what the promises tell.
    pub(super) fn consider(&mut self, now: Time, effects: &mut Vec<Effect>) -> Result<(), Reason> {
        let Phase::Prepare(round) = &mut self.proposer.phase else {
            unreachable!("only a prepare is considered");
        };
        assert_eq!(
            Some(&round.base),
            self.known.as_ref(),
            "R3: a round stands on what is known to be chosen, and begins again when that moves"
        );
        let (ballot, base) = (round.ballot, round.base.clone());
        match round.found() {
            Found::NotYet => {}
            Found::Ask(voters) => {
                round.ask(&voters);
                self.ask(now, effects);
            }
            Found::Unchosen(proposal) => self.ask_votes(now, ballot, proposal, effects),
            Found::Current { spread } => self.on_current(now, ballot, base, spread, effects),
            Found::Forgot => {
                // Nothing may be proposed on what they say. An operator must be told; asking
                // again later is all that is safe.
                self.proposer.back_off(now);
                return Err(Reason::VotersForgot);
            }
        }
        Ok(())
    }

    /// The base is current at this ballot.
    pub(super) fn on_current(
        &mut self,
        now: Time,
        ballot: Ballot,
        base: Value,
        spread: bool,
        effects: &mut Vec<Effect>,
    ) {
        let job = self.proposer.jobs.front().expect("a round has a job");
        match job {
            Job::Change(change) if change.expected == base => {
                let proposal = Proposal {
                    value: change.next.clone(),
                    parent: Some(base),
                };
                self.offer(now, ballot, proposal, effects);
            }
            Job::Change(change) if base.version < change.expected.version => {
                self.finish(Outcome::Lost(base), effects);
            }
            _ if spread => self.end_round(now, effects),
            _ => self.ask_votes(now, ballot, Proposal::settled(base), effects),
        }
    }

    /// Asks for votes for a change, once its voters have shown that they can give them: votes of
    /// the old ones alone would choose nothing, and yet nothing else could be chosen any more.
    fn offer(&mut self, now: Time, ballot: Ballot, proposal: Proposal, effects: &mut Vec<Effect>) {
        let Phase::Prepare(round) = &mut self.proposer.phase else {
            unreachable!("a change is offered at the ballot that was promised");
        };
        let readiness = round.readiness(&proposal);
        if let (Some(Job::Change(change)), true) = (
            self.proposer.jobs.front_mut(),
            readiness != Readiness::Ready,
        ) {
            change.waits_since.get_or_insert(now);
            if change.offered {
                // A vote of a lower ballot may be left with one that has not promised, and be found
                // and chosen later. The base's own voters vote for the base again: then it is not.
                let base = change.expected.clone();
                return self.ask_votes(now, ballot, Proposal::settled(base), effects);
            }
        }
        match readiness {
            Readiness::Ready => self.ask_votes(now, ballot, proposal, effects),
            Readiness::Waiting => {}
            Readiness::Unasked => {
                round.ask(&proposal.value.voters());
                self.ask(now, effects);
            }
        }
    }

    /// The known value was current during this round, and its voters know it.
    pub(super) fn end_round(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let known = self.known.clone().expect("a round stands on a known value");
        match self.proposer.jobs.front().expect("a round has a job") {
            Job::Read(_) => self.finish(Outcome::Current(known), effects),
            Job::Change(change) => match change.end(&known, true) {
                Some(outcome) => self.finish(outcome, effects),
                None => self.start_round(now, effects),
            },
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        match self.proposer.become_idle().expect("an operation ends once") {
            Job::Read(tickets) => effects.extend(tickets.into_iter().map(|ticket| Effect::Done {
                ticket,
                outcome: outcome.clone(),
            })),
            Job::Change(change) => effects.push(Effect::Done {
                ticket: change.ticket,
                outcome,
            }),
        }
    }

    /// Takes a value that is chosen, and lets the running operation draw its conclusions.
    pub(super) fn learn(&mut self, now: Time, value: &Value, effects: &mut Vec<Effect>) {
        if !self.raise_known(value, effects) {
            return;
        }
        if matches!(self.proposer.phase, Phase::Idle) {
            return;
        }
        let ended = match self.proposer.jobs.front().expect("a round has a job") {
            Job::Read(_) => None,
            Job::Change(change) => change.end(value, false),
        };
        match ended {
            Some(outcome) => self.finish(outcome, effects),
            None if matches!(self.proposer.phase, Phase::BackOff) => {}
            // The round under way stands on an older value, so its majority may be the wrong one.
            None => self.start_round(now, effects),
        }
    }

    /// True if `value` is newer than what was known.
    pub(super) fn raise_known(&mut self, value: &Value, effects: &mut Vec<Effect>) -> bool {
        if let Some(known) = &self.known {
            assert!(
                known.version != value.version || known == value,
                "R2: two values were chosen for one version: {known:?} and {value:?}"
            );
            if value.version <= known.version {
                return false;
            }
        }
        for job in &mut self.proposer.jobs {
            if let Job::Change(change) = job {
                change.won |= change.next == *value;
            }
        }
        self.known = Some(value.clone());
        effects.push(Effect::Known(value.clone()));
        true
    }

    /// Tells every member, the leaving ones too, what was chosen. Nothing depends on its arrival.
    pub(super) fn announce(&mut self, proposal: &Proposal, effects: &mut Vec<Effect>) {
        let old = proposal
            .parent
            .iter()
            .flat_map(|parent| parent.members.keys());
        let nodes: BTreeSet<NodeId> = proposal.value.members.keys().chain(old).copied().collect();
        for node in nodes {
            if node == self.me.node {
                continue;
            }
            let value = proposal.value.clone();
            self.send(node, Body::Chosen { value }, effects);
        }
    }
}
