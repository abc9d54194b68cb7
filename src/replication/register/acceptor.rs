//! The voter's half: promises and votes, each answered only once it is durable.
//!
//! Keeps R4: `promised` never falls, one ballot has one value, and no answer leaves before the
//! state it speaks of is on the disk. A crash in between loses an answer, never a promise.

use super::ballot::Ballot;
use super::message::{AcceptorState, Body};
use super::value::{Accepted, Proposal};
use super::{Reason, Voter};
use standfast_wal::{Mark, NodeId};
use std::collections::VecDeque;

/// Answers that may wait for the disk. Beyond it requests are dropped; their senders repeat them.
pub(super) const WAITING_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiting {
    /// The answer may go once this state is durable.
    serial: u64,
    to: NodeId,
    body: Body,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Acceptor {
    me: Voter,
    /// The newest edit. What is on the disk may be older, down to serial `durable`.
    state: AcceptorState,
    edited: u64,
    /// Up to here the caller was asked to persist.
    handed: u64,
    durable: u64,
    waiting: VecDeque<Waiting>,
}

impl Acceptor {
    pub(super) fn new(me: Voter, state: AcceptorState) -> Acceptor {
        Acceptor {
            me,
            state,
            edited: 0,
            handed: 0,
            durable: 0,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn state(&self) -> &AcceptorState {
        &self.state
    }

    /// Phase one: promise to vote for nothing below `ballot`.
    pub(super) fn on_prepare(&mut self, from: Voter, ballot: Ballot) -> Result<(), Reason> {
        self.admit()?;
        if ballot < self.state.promised {
            self.refuse(from, ballot);
            return Ok(());
        }
        if ballot > self.state.promised {
            self.edit(|state| state.promised = ballot);
        }
        let accepted = self.state.accepted.clone();
        self.answer(from, Body::Promised { ballot, accepted });
        Ok(())
    }

    /// Phase two: vote for `proposal`, which is sound.
    pub(super) fn on_accept(
        &mut self,
        from: Voter,
        ballot: Ballot,
        proposal: Proposal,
    ) -> Result<(), Reason> {
        self.admit()?;
        let is_voter = proposal.value.voters().contains(self.me)
            || proposal
                .parent
                .as_ref()
                .is_some_and(|parent| parent.voters().contains(self.me));
        if !is_voter {
            return Err(Reason::NotAVoter);
        }
        if ballot < self.state.promised {
            self.refuse(from, ballot);
            return Ok(());
        }
        let settled = proposal.parent.is_none();
        match &self.state.accepted {
            Some(vote) if vote.ballot == ballot => {
                if vote.proposal.value != proposal.value {
                    return Err(Reason::TwoValuesAtOneBallot);
                }
                // The vote stands. Only the knowledge that it was chosen may be added; a delayed
                // request from before that must not take it away again.
                if settled && vote.proposal.parent.is_some() {
                    self.vote(ballot, proposal);
                }
            }
            _ => self.vote(ballot, proposal),
        }
        self.answer(from, Body::Accepted { ballot, settled });
        Ok(())
    }

    /// The caller's word that the state with this serial is on the disk.
    pub(super) fn on_persisted(&mut self, serial: u64) {
        assert!(
            serial <= self.handed,
            "R4: {} reports state {serial} durable, but the last it was given is {}",
            self.me,
            self.handed
        );
        self.durable = self.durable.max(serial);
    }

    /// The state to persist, if it changed since this was last asked.
    pub(super) fn take_edit(&mut self) -> Option<(u64, AcceptorState)> {
        if self.handed == self.edited {
            return None;
        }
        self.handed = self.edited;
        Some((self.edited, self.state.clone()))
    }

    /// The next answer whose state is durable.
    pub(super) fn take_answer(&mut self) -> Option<(NodeId, Body)> {
        let front = self.waiting.front()?;
        if front.serial > self.durable {
            return None;
        }
        self.waiting
            .pop_front()
            .map(|waiting| (waiting.to, waiting.body))
    }

    fn admit(&self) -> Result<(), Reason> {
        if self.waiting.len() < WAITING_MAX {
            Ok(())
        } else {
            Err(Reason::DiskIsBehind)
        }
    }

    fn refuse(&mut self, from: Voter, ballot: Ballot) {
        Mark::BallotRefused.hit();
        let promised = self.state.promised;
        self.answer(from, Body::Refused { ballot, promised });
    }

    fn answer(&mut self, to: Voter, body: Body) {
        self.waiting.push_back(Waiting {
            serial: self.edited,
            to: to.node,
            body,
        });
    }

    fn vote(&mut self, ballot: Ballot, proposal: Proposal) {
        self.edit(|state| {
            state.promised = ballot;
            state.accepted = Some(Accepted { ballot, proposal });
        });
    }

    fn edit(&mut self, change: impl FnOnce(&mut AcceptorState)) {
        let before = (
            self.state.promised,
            self.state.accepted.as_ref().map(|vote| vote.ballot),
        );
        change(&mut self.state);
        let after = (
            self.state.promised,
            self.state.accepted.as_ref().map(|vote| vote.ballot),
        );
        assert!(
            after.0 >= before.0 && after.1 >= before.1 && after.1 <= Some(after.0),
            "R4: {} went back on its word, from {before:?} to {after:?}",
            self.me
        );
        self.edited += 1;
    }
}
