//! The steps of a promotion: ask, fence, choose, decide. (Serving is the primary's first act.)
//!
//! I5: only a member of the newest Config's sync set gets beyond step 1. The Config is read from
//! the register before step 2, and the change of step 4 expects exactly that version.

use crate::replication::commit::Rule;
use crate::replication::config::{Config, MemberRole};
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::register::{Outcome, Request, Ticket, Value};
use crate::replication::replica::Next;
use crate::replication::time::Time;
use standfast_wal::{Epoch, Link, Lsn, Mark, NodeId, Nonce, Position, Record};
use std::collections::{BTreeMap, BTreeSet};

/// What a member of the sync set said of its log, fenced.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Answer {
    last: Position,
    commit: Lsn,
    suspect: bool,
    epochs: EpochTable,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Step 1, while the register is read.
    Asking,
    /// Step 2.
    Fencing,
    /// Step 3, where another's log is the best.
    Copying { source: NodeId },
    /// Step 4.
    Deciding,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Candidate {
    pub attempt: Nonce,
    started: Time,
    /// Step 1 is needed.
    ask: bool,
    stage: Stage,
    /// The registered epoch when it began: whose primary is lost.
    lost: Epoch,
    /// Voters that have lost the primary, too.
    agreeing: BTreeSet<NodeId>,
    /// What the register held before step 2.
    base: Option<Value>,
    answers: BTreeMap<NodeId, Answer>,
    /// Since when there are as many answers as are needed.
    enough_at: Option<Time>,
    ticket: Option<Ticket>,
    resend_at: Time,
}

impl Candidate {
    /// `None` when there is no randomness yet: it will be tried again.
    pub fn new(node: &mut Node, ask: bool) -> Option<Candidate> {
        let attempt = node.draw()?;
        let ticket = node.submit(Request::Read);
        let mut candidate = Candidate {
            attempt,
            started: node.now,
            ask,
            stage: Stage::Asking,
            lost: node.config().epoch,
            agreeing: BTreeSet::from([node.me]),
            base: None,
            answers: BTreeMap::new(),
            enough_at: None,
            ticket,
            resend_at: node.now,
        };
        candidate.resend(node);
        Some(candidate)
    }

    /// Leaves the role; whatever it has begun may still take effect.
    pub fn give_up(&mut self, node: &mut Node) {
        if let Some(ticket) = self.ticket.take() {
            node.cancel(ticket);
        }
    }

    fn base(&self) -> &Value {
        self.base.as_ref().expect("read before step 2")
    }

    /// The reign that is striven for.
    fn target(&self) -> Fence {
        let base = self.base();
        Fence {
            history: base.history,
            epoch: base.epoch.next(),
        }
    }

    /// Back to waiting; a random time apart from others that try the same.
    fn withdraw(&self, node: &mut Node) {
        let patience = node.settings.stagger + node.draw_wait(node.settings.stagger * 4);
        node.next = Some(Next::Backup { patience });
    }

    // Step 1: ask, and read the register

    pub fn on_asked(&mut self, node: &mut Node, from: NodeId, attempt: Nonce, lost: bool) {
        if attempt != self.attempt {
            return;
        }
        if lost {
            self.agreeing.insert(from);
        } else {
            self.agreeing.remove(&from);
        }
        self.maybe_fence(node);
    }

    pub fn on_outcome(&mut self, node: &mut Node, ticket: Ticket, outcome: Outcome) {
        if self.ticket != Some(ticket) {
            return;
        }
        self.ticket = None;
        match outcome {
            Outcome::Current(value) => self.on_read(node, value),
            Outcome::Chosen(value) => {
                node.learn(value.clone());
                // Whoever saw it chosen may have gone on to the next epoch already.
                if node.meta.fence == self.target() {
                    node.next = Some(Next::Primary { config: value });
                } else {
                    self.withdraw(node);
                }
            }
            Outcome::Lost(value) | Outcome::Overtaken(value) | Outcome::Unready(value) => {
                Mark::RaceLost.hit();
                node.event(format!("lost the race for epoch {}", self.target().epoch));
                node.learn(value);
                self.withdraw(node);
            }
        }
    }

    fn on_read(&mut self, node: &mut Node, value: Value) {
        node.learn(value.clone());
        let member = node.is_member() && node.role() != MemberRole::Witness;
        if !member || !value.sync_set.contains(&node.me) || node.is_outdated() {
            return self.withdraw(node);
        }
        if value.primary == node.me {
            Mark::PromotedWithoutAsking.hit();
            self.ask = false;
        }
        let reign = Fence {
            history: value.history,
            epoch: value.epoch,
        };
        if value.epoch > self.lost && value.primary != node.me {
            // Another has been promoted meanwhile: it gets its time to be heard.
            Mark::RaceOvertaken.hit();
            node.sign_of_life();
            return self.withdraw(node);
        }
        if reign.next() < node.meta.fence {
            return self.withdraw(node);
        }
        self.base = Some(value);
        self.maybe_fence(node);
    }

    // Step 2: fence

    fn maybe_fence(&mut self, node: &mut Node) {
        let (Stage::Asking, Some(base)) = (&self.stage, &self.base) else {
            return;
        };
        if self.ask && !base.majority(|id| self.agreeing.contains(&id)) {
            return;
        }
        self.stage = Stage::Fencing;
        node.raise_fence(self.target());
        self.resend(node);
        self.note_own(node);
    }

    /// Fence or log have become more durable: the own answer may be ready.
    pub fn note_own(&mut self, node: &mut Node) {
        let fencing = matches!(self.stage, Stage::Fencing | Stage::Copying { .. });
        if !fencing || !node.fence_is_durable(self.target()) || !node.log.is_all_durable() {
            return;
        }
        let own = Answer {
            last: node.log.tip().position,
            commit: node.log.commit,
            suspect: node.meta.suspect,
            epochs: node.log.epochs.clone(),
        };
        self.answers.insert(node.me, own);
        self.maybe_choose(node);
    }

    pub fn on_fenced(&mut self, node: &mut Node, from: NodeId, said: Body) {
        let Body::Fenced {
            fence,
            attempt,
            last,
            commit,
            suspect,
            wall,
            epochs,
        } = said
        else {
            unreachable!("dispatched by its kind");
        };
        node.on_wall_sample(from, wall);
        let expected = attempt == self.attempt && self.base.is_some() && fence == self.target();
        if !expected || !self.base().sync_set.contains(&from) {
            return;
        }
        let answer = Answer {
            last,
            commit,
            suspect,
            epochs,
        };
        self.answers.insert(from, answer);
        self.maybe_choose(node);
    }

    /// The answers that count: suspect logs are absent unless all of the sync set has answered.
    fn counted(&self) -> BTreeMap<NodeId, &Answer> {
        let all = self.answers.len() == self.base().sync_set.len();
        let counts = |answer: &&Answer| all || !answer.suspect;
        let counted = self.answers.iter().map(|(id, answer)| (*id, answer));
        counted.filter(|(_, answer)| counts(answer)).collect()
    }

    // Step 3: choose, and copy what is missing

    fn maybe_choose(&mut self, node: &mut Node) {
        if matches!(self.stage, Stage::Asking | Stage::Deciding) {
            return;
        }
        let enough = self.counted().len() >= self.base().fence_quorum();
        if !enough || !self.counted().contains_key(&node.me) {
            return;
        }
        self.enough_at.get_or_insert(node.now);
        let counted = self.counted();
        let own = counted[&node.me];
        let best = counted
            .iter()
            .max_by_key(|(id, answer)| (answer.last, **id == node.me));
        let (source, best) = best
            .map(|(id, answer)| (*id, *answer))
            .expect("the own is among them");
        if own.last == best.last {
            self.stage = Stage::Fencing;
            return self.maybe_decide(node);
        }
        if !matches!(self.stage, Stage::Copying { source: old } if old == source) {
            self.stage = Stage::Copying { source };
            self.fetch(node);
        }
    }

    fn fetch(&mut self, node: &mut Node) {
        let Stage::Copying { source } = self.stage else {
            return;
        };
        let answer = &self.answers[&source];
        let own = &node.log.epochs;
        let after = own.agreed(node.end(), &answer.epochs, answer.last.lsn);
        let attempt = self.attempt;
        node.send(source, Body::Fetch { attempt, after });
    }

    pub fn on_fetched(
        &mut self,
        node: &mut Node,
        from: NodeId,
        attempt: Nonce,
        previous: Link,
        records: Vec<Record>,
    ) {
        let expected = attempt == self.attempt
            && matches!(self.stage, Stage::Copying { source } if source == from);
        if !expected || !node.log.settled() {
            return;
        }
        let answer = self.answers[&from].clone();
        if let Err(story) = copy(node, &answer, previous, records, self.target()) {
            return node.halt(story);
        }
        self.started = node.now;
        Mark::SuffixFetched.hit();
        if node.end() < answer.last.lsn {
            self.fetch(node);
        }
    }

    // Step 4: decide

    fn maybe_decide(&mut self, node: &mut Node) {
        let Some(config) = self.proposal(node) else {
            return;
        };
        self.stage = Stage::Deciding;
        let suspects = self.counted();
        let suspects = suspects.iter().filter(|(_, answer)| answer.suspect);
        let suspects: Vec<String> = suspects.map(|(id, _)| format!("n{id}")).collect();
        if !suspects.is_empty() {
            // Said, not hidden: with damage on all that could know better, something may be gone.
            Mark::SuspectsWeighed.hit();
            let names = suspects.join(", ");
            node.event(format!(
                "all of the sync set has answered, damaged: {names}"
            ));
        }
        let committed = self.counted().values().map(|answer| answer.commit).max();
        let committed = committed.unwrap_or_default().min(node.log.durable);
        // Committed is committed, whoever knew it: the chosen log has it.
        node.log.set_commit(committed, &mut node.out);
        let expected = self.base().clone();
        let next = Value::new(config);
        self.ticket = node.submit(Request::CompareAndSet { expected, next });
        if self.ticket.is_none() {
            self.withdraw(node);
        }
    }

    /// The Config to propose; `None` while more answers are worth waiting for.
    fn proposal(&self, node: &Node) -> Option<Config> {
        let base = self.base();
        let answered: BTreeSet<NodeId> = self.answers.keys().copied().collect();
        let mut next = Config::clone(base);
        next.epoch = self.target().epoch;
        next.version += 1;
        next.nonce = self.attempt;
        next.primary = node.me;
        // The set is kept where it can go on as it is; the change rule shrinks it later.
        if answered.len() >= base.acks_needed as usize {
            Mark::SetKept.hit();
            return Some(next);
        }
        let missing = base.sync_set.difference(&answered);
        let hopeless = |id: &NodeId| node.refused(*id) || (self.ask && *id == base.primary);
        let waited = self
            .enough_at
            .is_some_and(|at| node.now.since(at) >= node.settings.fence_grace);
        if !waited && !missing.clone().all(hopeless) {
            return None;
        }
        let counted = self.counted();
        let chosen = counted[&node.me].last;
        let holders = counted.iter().filter(|(_, answer)| answer.last == chosen);
        let set: BTreeSet<NodeId> = counted.keys().copied().collect();
        let rule = Rule {
            needed: base.acks.needed(base.protection, set.len()),
            set,
        };
        if holders.count() >= rule.needed as usize {
            Mark::SetShrunk.hit();
            next.sync_set = rule.set;
            next.acks_needed = rule.needed;
        }
        Some(next)
    }

    // Time

    pub fn on_tick(&mut self, node: &mut Node) {
        if node.now.since(self.started) >= node.settings.attempt_timeout
            && !matches!(self.stage, Stage::Deciding)
        {
            return self.withdraw(node);
        }
        if node.now.since(self.started) >= node.settings.attempt_timeout * 2 {
            return self.withdraw(node);
        }
        if node.now >= self.resend_at {
            self.resend(node);
        }
        if matches!(self.stage, Stage::Fencing) {
            self.maybe_choose_again(node);
        }
    }

    fn maybe_choose_again(&mut self, node: &mut Node) {
        if self.answers.contains_key(&node.me) {
            self.maybe_choose(node);
        }
    }

    /// A link has come up: those behind it may not have heard what was sent before.
    pub fn resend(&mut self, node: &mut Node) {
        self.resend_at = node.now.after(node.settings.heartbeat_interval / 2);
        let attempt = self.attempt;
        match self.stage {
            // One that has just started asks even where the answer decides nothing: it tells the
            // voter's clock, and comes before what the voter answers as the register.
            Stage::Asking if self.ask || node.knows_only_its_own_clock() => {
                let epoch = node.config().epoch;
                let mut voters = node.config().voters.clone();
                voters.remove(&node.me);
                for id in voters {
                    node.send(id, Body::Ask { epoch, attempt });
                }
            }
            Stage::Asking | Stage::Deciding => {}
            Stage::Fencing => {
                let fence = self.target();
                let silent = |id: &NodeId| *id != node.me && !self.answers.contains_key(id);
                let ids = self.base().sync_set.iter().copied().filter(silent);
                for id in ids.collect::<Vec<_>>() {
                    node.send(id, Body::Fence { fence, attempt });
                }
            }
            Stage::Copying { .. } => self.fetch(node),
        }
    }

    pub fn deadline(&self, node: &Node) -> Option<Time> {
        let patience = match self.stage {
            Stage::Deciding => node.settings.attempt_timeout * 2,
            _ => node.settings.attempt_timeout,
        };
        let end = self.started.after(patience);
        let grace = self.enough_at.map(|at| at.after(node.settings.fence_grace));
        let grace = grace.filter(|at| matches!(self.stage, Stage::Fencing) && *at > node.now);
        Some(grace.unwrap_or(end).min(self.resend_at).min(end))
    }
}

/// Takes over the chosen log's records. What is cut was never committed: every committed record
/// is in the chosen log.
fn copy(
    node: &mut Node,
    answer: &Answer,
    mut previous: Link,
    records: Vec<Record>,
    target: Fence,
) -> Result<(), String> {
    for record in records {
        if record.follows(previous).is_err() {
            return Err(format!(
                "{record:?} was sent as if it followed {previous:?}"
            ));
        }
        let link = record.link();
        let shared = shared_end(node, answer);
        if record.last_lsn() <= shared {
            previous = link;
            continue;
        }
        if previous.position.lsn != shared || record.last_lsn() > answer.last.lsn {
            break; // A gap, or more than was chosen.
        }
        if shared < node.end() {
            if shared < node.log.commit {
                let (first, commit) = (record.first_lsn(), node.log.commit);
                return Err(format!(
                    "I1: the chosen log differs at {first}, but {commit} is committed here"
                ));
            }
            Mark::CandidateCut.hit();
            node.log.cut(previous, target, &mut node.out);
        }
        node.log.append(record, &mut node.out)?;
        previous = link;
    }
    Ok(())
}

/// Up to here this node's log equals the chosen one, counting what was copied already.
fn shared_end(node: &Node, answer: &Answer) -> Lsn {
    node.log
        .epochs
        .agreed(node.end(), &answer.epochs, answer.last.lsn)
}
