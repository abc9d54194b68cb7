//! The register: one Config, agreed by a majority of the voters and changed by compare-and-set.
//!
//! Paxos over a single value, in the manner of CASPaxos (Rystsov, 2018), both phases always: it is
//! cold. A `Register` is a node's acceptor and its proposer in one; a node that does not vote, or
//! proposes nothing, uses the half it needs. It has no clock, socket or disk: see `Input`,
//! `Effect`.
//!
//! Why a value once chosen is never lost, although the voters change:
//!
//! - R1 A value is proposed only against a parent that is known to be chosen. So whoever sees the
//!   proposal knows its parent to be chosen, and chosen values form one chain of versions.
//! - R2 A value is chosen by a majority of its parent's voters *and* of its own. So all proposals
//!   for one version compete for the same majority, and the successors' majority holds it too.
//! - R3 A value is proposed at a ballot only after a majority of its parent's voters *and* of its
//!   own promised; if it is known to be chosen, its own suffice. Of all that the promises tell, the
//!   highest ballot is taken.
//! - R4 An acceptor answers only what is durable, never goes back on a promise, and is counted by
//!   incarnation: one that lost its memory is another voter, and empty.
//!
//! With these, by induction over ballots: after a value is chosen at ballot b, every vote at a
//! ballot above b is for it or for a descendant of it. (Take a vote for u at a ballot above b. If u
//! is older than the value, a majority of u's own voters promised that ballot; they share a voter
//! with those who chose u's successor, at a ballot no higher than b, so the promises told of it,
//! and
//! by induction of nothing but it and its descendants from there up: u was not the highest. If u is
//! as new as the value and another, the same holds for the voters of their common parent. If u is
//! newer, its parent is chosen and as new as the value, hence it or its descendant.)
//!
//! Two rules serve not safety but going on: a change of voters is offered only when its new voters
//! have promised, since once it has votes nothing else can be chosen without them; and it is told
//! done only when its own voters know durably that they alone decide, so that the old may leave.
//!
//! To embed it: route `Effect::Send` and `Input::Message` with the sender's proved identity, keep
//! the newest `Effect::Persist` in the node's meta file and report it durable, call with
//! `Input::Timeout` at `deadline()`, and tell it by `Input::Learned` of Configs that peers know to
//! be
//! *chosen*, never of proposed ones.

mod acceptor;
mod ballot;
mod message;
mod proposer;
mod round;
mod rounds;
mod store;
mod value;
mod voters;

pub use ballot::{Ballot, ROUND_MAX};
pub use message::{AcceptorState, Body, Message};
pub use store::{ConfigStore, Outcome, Refusal, Request, Ticket};
pub use value::{Accepted, Misfit, Proposal, Value, succession};
pub use voters::{VOTERS_MAX, Voter, Voters};

use crate::replication::Time;
use acceptor::Acceptor;
use proposer::{Change, Job, Phase, Proposer};
use standfast_wal::{History, NodeId};
use std::collections::VecDeque;
use std::time::Duration;

/// Operations that may wait behind the one that runs.
pub const QUEUE_MAX: usize = 16;

/// What happens to a register. Everything else comes by `ConfigStore::submit` and `cancel`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    /// From another node; `from` is what the connection's greeting proved.
    Message { from: Voter, message: Message },
    /// The state of `Effect::Persist` with this serial, hence all before it, is durable.
    Persisted(u64),
    /// A value known to be chosen from elsewhere: a heartbeat, this node's own meta file.
    Learned(Value),
    /// `deadline()` has passed. Too early is harmless.
    Timeout,
}

/// What must be done for a register; to one target in order, to different targets in any order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// May be lost. Never to the node itself.
    Send { to: NodeId, message: Message },
    /// Make this the acceptor's durable state, then give `Input::Persisted(serial)`. A newer one
    /// replaces those before it.
    Persist { serial: u64, state: AcceptorState },
    /// An operation ended.
    Done { ticket: Ticket, outcome: Outcome },
    /// A newer value is known to be chosen. Worth remembering, not needed for safety.
    Known(Value),
    /// An input made no sense, or none any more. To be counted; logged where `is_suspicious`.
    Ignored { from: Option<Voter>, reason: Reason },
}

/// Why an input was ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum Reason {
    #[error("it belongs to another history's register")]
    OtherHistory,
    #[error("its ballot is not the sender's, or out of range")]
    NotItsBallot,
    #[error("no correct node can have made this value")]
    Unsound,
    #[error("it asks for the vote of a node that is no voter of that value")]
    NotAVoter,
    #[error("it votes otherwise at a ballot that has a vote already")]
    TwoValuesAtOneBallot,
    #[error("it answers what is not asked any more")]
    Late,
    #[error("it comes from an incarnation that does not count")]
    DoesNotCount,
    #[error("more answers wait for the disk than are kept")]
    DiskIsBehind,
    #[error("a majority of the voters has forgotten a value that was chosen")]
    VotersForgot,
}

impl Reason {
    /// Whether an operator should hear of it. Lateness and races are ordinary, and so are requests
    /// meant for the incarnation that lived at this address before.
    pub fn is_suspicious(self) -> bool {
        use Reason::{DiskIsBehind, DoesNotCount, Late, NotAVoter};
        !matches!(self, Late | DoesNotCount | NotAVoter | DiskIsBehind)
    }
}

/// How patient a proposer is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// After which an unanswered message is sent again.
    pub resend: Duration,
    /// The least wait after a ballot was refused; doubles with every refusal, up to `backoff_max`,
    /// and is spread at random up to twice that.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long a change of voters waits for those voters before it is given up.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            resend: Duration::from_millis(100),
            backoff_min: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
            patience: Duration::from_secs(2),
        }
    }
}

/// A node's part in the register of one history.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Register {
    me: Voter,
    history: History,
    /// The newest value known to be chosen. Versions below it are past.
    known: Option<Value>,
    acceptor: Acceptor,
    proposer: Proposer,
    /// Messages of this node's proposer to its acceptor and back.
    inbox: VecDeque<Message>,
}

impl Register {
    /// Of node `me`, after a start. `process` is drawn at random for each process; `state` is what
    /// was last reported durable, or anything persisted after it; `known` is any value that was
    /// once known to be chosen, for a node that has it from elsewhere than its own votes.
    pub fn open(
        me: Voter,
        process: u64,
        state: AcceptorState,
        known: Option<Value>,
        timing: Timing,
    ) -> Register {
        let history = state.history;
        let voted = state.accepted.as_ref().map(|vote| &vote.proposal);
        assert!(
            voted.is_none_or(|proposal| proposal.is_sound(history))
                && known.as_ref().is_none_or(|value| value.is_sound(history)),
            "R4: {me} kept what it cannot have voted for: {state:?}, {known:?}"
        );
        let proved = voted.map(|proposal| proposal.known_chosen().clone());
        let proposer = Proposer::new(process, state.promised.round, timing);
        let mut register = Register {
            me,
            history,
            known: proved,
            acceptor: Acceptor::new(me, state),
            proposer,
            inbox: VecDeque::new(),
        };
        if let Some(value) = &known {
            register.raise_known(value, &mut Vec::new());
        }
        register
    }

    /// What the acceptor keeps, edits that are not durable yet included.
    pub fn state(&self) -> &AcceptorState {
        self.acceptor.state()
    }

    pub fn history(&self) -> History {
        self.history
    }
}

impl ConfigStore for Register {
    type Input = Input;
    type Effect = Effect;

    fn submit(
        &mut self,
        now: Time,
        request: Request,
        effects: &mut Vec<Effect>,
    ) -> Result<Ticket, Refusal> {
        if self.known.is_none() {
            return Err(Refusal::NoVoters);
        }
        if let Request::CompareAndSet { expected, next } = &request {
            succession(expected, next)?;
            if next.history != self.history {
                return Err(Misfit::History.into());
            }
        }
        let ticket = self.proposer.ticket()?;
        match request {
            Request::Read => self.proposer.enqueue_read(ticket),
            Request::CompareAndSet { expected, next } => {
                self.proposer
                    .jobs
                    .push_back(Job::Change(Change::new(ticket, expected, next)));
            }
        }
        self.drain(now, effects);
        Ok(ticket)
    }

    fn cancel(&mut self, now: Time, ticket: Ticket, effects: &mut Vec<Effect>) -> bool {
        let (running, offered) = self.proposer.cancel(ticket);
        if running {
            self.proposer.become_idle();
        }
        self.drain(now, effects);
        offered
    }

    fn is_revocable(&self, ticket: Ticket) -> bool {
        self.proposer.is_revocable(ticket)
    }

    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Message { from, message } => self.on_message(now, from, message, effects),
            Input::Persisted(serial) => self.acceptor.on_persisted(serial),
            Input::Learned(value) => {
                if let Err(reason) = self.on_chosen(now, &value, effects) {
                    effects.push(Effect::Ignored { from: None, reason });
                }
            }
            Input::Timeout => self.on_timeout(now, effects),
        }
        self.drain(now, effects);
    }

    fn deadline(&self) -> Option<Time> {
        self.proposer.deadline
    }

    fn known(&self) -> Option<&Value> {
        self.known.as_ref()
    }
}

impl Register {
    /// Does what the last input made possible, until nothing is left to do here.
    fn drain(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            if let Some((serial, state)) = self.acceptor.take_edit() {
                effects.push(Effect::Persist { serial, state });
            } else if let Some((to, body)) = self.acceptor.take_answer() {
                self.send(to, body, effects);
            } else if let Some(message) = self.inbox.pop_front() {
                self.on_message(now, self.me, message, effects);
            } else if matches!(self.proposer.phase, Phase::Idle) && !self.proposer.jobs.is_empty() {
                self.begin(now, effects);
            } else {
                break;
            }
        }
        assert_eq!(
            matches!(self.proposer.phase, Phase::Idle),
            self.proposer.deadline.is_none(),
            "a proposer that is not idle wakes up by itself"
        );
    }

    fn send(&mut self, to: NodeId, body: Body, effects: &mut Vec<Effect>) {
        let message = Message {
            history: self.history,
            body,
        };
        if to == self.me.node {
            self.inbox.push_back(message);
        } else {
            effects.push(Effect::Send { to, message });
        }
    }

    fn on_message(&mut self, now: Time, from: Voter, message: Message, effects: &mut Vec<Effect>) {
        let result = if message.history == self.history {
            match message.body {
                Body::Prepare { ballot, known } => self.on_prepare(from, ballot, known, effects),
                Body::Promised { ballot, accepted } => {
                    self.on_promised(now, from, ballot, accepted, effects)
                }
                Body::Accept { ballot, proposal } => {
                    self.on_accept(now, from, ballot, proposal, effects)
                }
                Body::Accepted { ballot, settled } => {
                    self.on_accepted(now, from, ballot, settled, effects)
                }
                Body::Refused { ballot, promised } => self.on_refused(now, from, ballot, promised),
                Body::Chosen { value } => self.on_chosen(now, &value, effects),
            }
        } else {
            Err(Reason::OtherHistory)
        };
        if let Err(reason) = result {
            let from = Some(from);
            effects.push(Effect::Ignored { from, reason });
        }
    }

    fn on_prepare(
        &mut self,
        from: Voter,
        ballot: Ballot,
        known: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        check_ballot(from, ballot)?;
        self.proposer.saw(ballot);
        if let Some(value) = self.known.clone().filter(|value| value.version > known) {
            self.send(from.node, Body::Chosen { value }, effects);
        }
        self.acceptor.on_prepare(from, ballot)
    }

    fn on_accept(
        &mut self,
        now: Time,
        from: Voter,
        ballot: Ballot,
        proposal: Proposal,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        check_ballot(from, ballot)?;
        if !proposal.is_sound(self.history) {
            return Err(Reason::Unsound);
        }
        self.proposer.saw(ballot);
        // Before the vote: what it stands on is chosen, whether the vote is given or not.
        self.learn(now, proposal.known_chosen(), effects);
        self.acceptor.on_accept(from, ballot, proposal)
    }

    fn on_chosen(
        &mut self,
        now: Time,
        value: &Value,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Reason> {
        if value.history != self.history {
            return Err(Reason::OtherHistory);
        }
        if !value.is_sound(self.history) {
            return Err(Reason::Unsound);
        }
        self.learn(now, value, effects);
        Ok(())
    }

    fn on_timeout(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.proposer.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.proposer.phase {
            Phase::Idle => unreachable!("an idle proposer has no deadline"),
            Phase::BackOff => self.start_round(now, effects),
            Phase::Prepare(round) => match self.proposer.jobs.front() {
                // Only while its expected value stands: else its end is known, or about to be.
                Some(Job::Change(change))
                    if change.expected == round.base
                        && change.is_hopeless(now, self.proposer.timing.patience) =>
                {
                    let base = round.base.clone();
                    self.finish(Outcome::Unready(base), effects);
                }
                _ => self.ask(now, effects),
            },
            Phase::Vote(_) => self.ask(now, effects),
        }
    }
}

fn check_ballot(from: Voter, ballot: Ballot) -> Result<(), Reason> {
    let in_range = ballot > Ballot::GENESIS && ballot.round < ROUND_MAX;
    if in_range && ballot.node == from.node {
        Ok(())
    } else {
        Err(Reason::NotItsBallot)
    }
}

#[cfg(test)]
mod tests;
