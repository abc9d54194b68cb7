//! The asker's half: operations, one at a time, each a sequence of rounds until its end is known.
//!
//! Keeps R1: a change is offered only when its expected value is known to be chosen and current at
//! its own ballot. Owns the queue and the round under way.

use super::ballot::Ballot;
use super::round::{Prepare, Vote};
use super::store::{Outcome, Ticket};
use super::value::{Proposal, Value};
use super::{QUEUE_MAX, Refusal, Timing};
use crate::replication::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// One operation, or several reads that began as one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Job {
    Read(Vec<Ticket>),
    Change(Change),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Change {
    pub(super) ticket: Ticket,
    pub(super) expected: Value,
    pub(super) next: Value,
    /// Votes were asked for, so it may be chosen behind our back.
    pub(super) offered: bool,
    /// Since when it only waits for its own voters to promise.
    pub(super) waits_since: Option<Time>,
    /// It is known to be chosen, whatever came after it.
    pub(super) won: bool,
}

impl Change {
    pub(super) fn new(ticket: Ticket, expected: Value, next: Value) -> Change {
        Change {
            ticket,
            expected,
            next,
            offered: false,
            waits_since: None,
            won: false,
        }
    }

    /// Whether to give up: its voters stay silent, and it was never offered.
    pub(super) fn is_hopeless(&self, now: Time, patience: Duration) -> bool {
        let waits = |since: Time| now.since(since) >= patience;
        !self.offered && self.waits_since.is_some_and(waits)
    }

    /// Whether the newest value known to be chosen decides the matter. `settled`: a majority of
    /// that value's voters knows, durably, that it is chosen.
    pub(super) fn end(&self, known: &Value, settled: bool) -> Option<Outcome> {
        if *known == self.next {
            // The old voters may be switched off as soon as this is told: not before the new ones
            // can do without them.
            let changes_voters = self.expected.voters() != self.next.voters();
            return (settled || !changes_voters).then(|| Outcome::Chosen(self.next.clone()));
        }
        if self.won {
            return Some(Outcome::Chosen(self.next.clone()));
        }
        if known.version > self.next.version {
            return Some(Outcome::Overtaken(known.clone()));
        }
        let is_other = known.version == self.next.version
            || (known.version == self.expected.version && *known != self.expected);
        is_other.then(|| Outcome::Lost(known.clone()))
    }
}

/// Where the running operation stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Phase {
    Idle,
    Prepare(Prepare),
    Vote(Vote),
    /// A ballot was refused; the next one begins at the deadline.
    BackOff,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Proposer {
    pub(super) timing: Timing,
    /// This process's random number: the last part of its ballots, and what spreads its waits.
    process: u64,
    /// No ballot seen has a higher round.
    round: u64,
    pub(super) phase: Phase,
    /// When to send again, or to begin again. `None` exactly while idle.
    pub(super) deadline: Option<Time>,
    /// Rounds of the running job that were refused.
    refusals: u32,
    /// The front is the running job, unless idle.
    pub(super) jobs: VecDeque<Job>,
    last_ticket: Ticket,
}

impl Proposer {
    pub(super) fn new(process: u64, round: u64, timing: Timing) -> Proposer {
        Proposer {
            timing,
            process,
            round,
            phase: Phase::Idle,
            deadline: None,
            refusals: 0,
            jobs: VecDeque::new(),
            last_ticket: Ticket(0),
        }
    }

    /// A ballot above every one seen so far.
    pub(super) fn next_ballot(&mut self, node: standfast_wal::NodeId) -> Ballot {
        self.round += 1;
        Ballot {
            round: self.round,
            node,
            process: self.process,
        }
    }

    pub(super) fn saw(&mut self, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
    }

    pub(super) fn ticket(&mut self) -> Result<Ticket, Refusal> {
        let waiting: usize = self.jobs.iter().map(Job::size).sum();
        if waiting > QUEUE_MAX {
            return Err(Refusal::Busy);
        }
        self.last_ticket.0 += 1;
        Ok(self.last_ticket)
    }

    /// Puts a read at the end of the queue, or beside the read that waits there. Never beside the
    /// running one: its promises may be older than this read.
    pub(super) fn enqueue_read(&mut self, ticket: Ticket) {
        let running = !matches!(self.phase, Phase::Idle);
        let waiting = self.jobs.len() - usize::from(running);
        match self.jobs.back_mut() {
            Some(Job::Read(tickets)) if waiting > 0 => tickets.push(ticket),
            _ => self.jobs.push_back(Job::Read(vec![ticket])),
        }
    }

    pub(super) fn vote(&mut self, now: Time, ballot: Ballot, proposal: Proposal) {
        if let Some(Job::Change(change)) = self.jobs.front_mut() {
            change.offered |= change.next == proposal.value;
        }
        self.phase = Phase::Vote(Vote::new(ballot, proposal));
        self.deadline = Some(now.after(self.timing.resend));
    }

    pub(super) fn prepare(&mut self, now: Time, ballot: Ballot, base: Value) {
        self.phase = Phase::Prepare(Prepare::new(ballot, base));
        self.deadline = Some(now.after(self.timing.resend));
    }

    /// Lets others finish first. Two that race part because their waits are spread at random.
    pub(super) fn back_off(&mut self, now: Time) {
        let doubled = self.timing.backoff_min * (1 << self.refusals.min(16));
        let least = doubled.min(self.timing.backoff_max);
        self.refusals = self.refusals.saturating_add(1);
        let window = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
        let spread = scramble(self.process ^ self.round) % window.max(1);
        self.phase = Phase::BackOff;
        self.deadline = Some(now.after(least + Duration::from_nanos(spread)));
    }

    /// The running job is over.
    pub(super) fn become_idle(&mut self) -> Option<Job> {
        self.phase = Phase::Idle;
        self.deadline = None;
        self.refusals = 0;
        self.jobs.pop_front()
    }

    pub(super) fn is_revocable(&self, ticket: Ticket) -> bool {
        self.jobs.iter().any(|job| match job {
            Job::Change(change) => change.ticket == ticket && !change.offered,
            Job::Read(_) => false,
        })
    }

    /// Takes `ticket` out. Says whether the running job is left without any ticket, and whether
    /// it was a change that may still be chosen.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> (bool, bool) {
        let running = !matches!(self.phase, Phase::Idle);
        for at in 0..self.jobs.len() {
            let offered = match &mut self.jobs[at] {
                Job::Change(change) if change.ticket == ticket => Some(change.offered),
                Job::Change(_) => None,
                Job::Read(tickets) => {
                    let before = tickets.len();
                    tickets.retain(|other| *other != ticket);
                    if tickets.len() < before && !tickets.is_empty() {
                        return (false, false);
                    }
                    tickets.is_empty().then_some(false)
                }
            };
            if let Some(offered) = offered {
                if at == 0 && running {
                    return (true, offered);
                }
                self.jobs.remove(at);
                return (false, offered);
            }
        }
        (false, false)
    }
}

impl Job {
    fn size(&self) -> usize {
        match self {
            Job::Read(tickets) => tickets.len(),
            Job::Change(_) => 1,
        }
    }
}

/// Spreads the bits of a number (the finalizer of SplitMix64): equal inputs, equal outputs, but
/// neighbours far apart.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
