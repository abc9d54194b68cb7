//! The observer: sees every node, every message and every client, and knows what must never be.
//!
//! One file per promise: `log` and `commits` (I1, I3), `digests` and `copies` (I2), `replay` and
//! `search` (I4), `register` (one Config per version, I5), `hidden` (I6), `fences` (what was
//! promised stays promised), `kept` (what is said is durable), `cuts` (a cut is all or nothing),
//! `positions` (acknowledgements are true), `promotion` (who must be fenced, hold and have voted),
//! `reads` (what confirms a read), `reigns` (what a primary knows and does), `starts` (what a start
//! believes), `time` (log time), `stale` (how old READONLY reads are), `told` (outcomes and what
//! was seen), `keys` and `ledger` (I4, I7: what is stored, by models of their own), `receipts`,
//! `losses` (what is lost is told), `offsite` and `restored` (the archive).

mod commits;
mod copies;
mod cuts;
mod digests;
mod fences;
mod hidden;
pub mod history;
pub mod kept;
pub mod keys;
pub mod ledger;
mod log;
mod losses;
pub mod offsite;
mod positions;
mod promotion;
mod rare;
mod reads;
mod receipts;
mod register;
mod reigns;
mod replay;
pub mod restored;
mod search;
mod stale;
mod starts;
mod time;
mod told;

use super::clients::Written;
use super::node::{Process, Wants};
use super::nodes::Node;
use super::plan::Plan;
use super::summary::Summary;
pub use hidden::Trusted;
use log::Place;
pub use positions::meta_on_disk;
use standfast::node::client::Answer;
use standfast::node::engine::Engine;
use standfast::node::wire::{Frame, Head};
use standfast::replication::{Config, EpochTable, Fence, Meta, Replica};
use standfast_wal::{History, Incarnation, Lsn, Nonce};
use std::collections::{BTreeMap, BTreeSet};

/// Whose disk held a log durably up to where, and who had written it.
type Held = (Incarnation, Lsn, EpochTable);

/// What was last seen of one node.
#[derive(Default)]
struct Seen {
    applied: Lsn,
    commit: Lsn,
    config: (History, u64),
    /// The reign it acts as primary of.
    reign: Option<Fence>,
    is_serving: bool,
    /// By what Config it was primary at the end of its last turn.
    reigned_by: Option<Config>,
    /// The highest place that was committed and durable here: its log never loses that.
    held: Option<Place>,
    /// Of the last process here.
    incarnation: Option<Incarnation>,
    /// Of a node that is down: what its log held durably.
    down: Option<Held>,
    /// What was durable on the disks that were lost: it may have been acknowledged. A node may lose
    /// another disk before the register names it again, and its first one still counts.
    lost: Vec<Held>,
    /// What was durable when the last process here ended.
    left: Option<Held>,
    /// Timestamps of the reign under way.
    time: time::Times,
    /// The history that it followed at the end of its last turn, before the present one.
    followed: Option<History>,
    follows: Option<History>,
    had: losses::Had,
}

/// Everything ever seen.
pub struct Observer {
    pub history: history::Histories,
    log: log::Logs,
    digests: digests::Digests,
    register: register::Configs,
    said: fences::Said,
    hidden: hidden::Hidden,
    positions: positions::Positions,
    votes: promotion::Votes,
    attempts: promotion::Attempts,
    /// When a primary first asked for votes for a change of its own.
    offers: BTreeMap<Nonce, u64>,
    rounds: reads::Rounds,
    told: told::Told,
    losses: losses::Losses,
    /// Somebody may be forced.
    may_force: bool,
    archived: offsite::Archived,
    /// Of restored copies: no cluster takes one in.
    pub strangers: BTreeSet<Incarnation>,
    nodes: Vec<Seen>,
    /// By how much clocks may be off, parts per million.
    drift_ppm: u64,
    /// Nanoseconds.
    failover_timeout: u64,
    max_staleness: u64,
}

/// The history that a node's log belongs to: that of the last reign in it.
fn history_of(replica: &Replica) -> Option<History> {
    replica.epochs().last().map(|entry| entry.history)
}

fn process_of(nodes: &[Node], node: usize) -> Result<&Process, String> {
    let process = nodes[node].process.as_ref();
    process.ok_or_else(|| format!("n{node} answers and is not there"))
}

impl Observer {
    pub fn new(plan: &Plan) -> Observer {
        let nodes = plan.nodes.len();
        Observer {
            history: history::Histories::default(),
            log: log::Logs::default(),
            digests: digests::Digests::default(),
            register: register::Configs::new(&plan.config),
            said: fences::Said::new(nodes),
            hidden: hidden::Hidden::new(nodes),
            positions: positions::Positions::default(),
            votes: promotion::Votes::new(),
            attempts: promotion::Attempts::new(),
            offers: BTreeMap::new(),
            rounds: reads::Rounds::default(),
            told: told::Told::default(),
            losses: losses::Losses::default(),
            may_force: plan.may_force,
            archived: offsite::Archived::new(plan),
            strangers: BTreeSet::new(),
            nodes: (0..nodes).map(|_| Seen::default()).collect(),
            drift_ppm: plan.drift_ppm.max(1000),
            failover_timeout: u64::try_from(plan.tuning.core.failover_timeout.as_nanos())
                .expect("a timeout"),
            max_staleness: u64::try_from(plan.tuning.engine.max_staleness.as_nanos())
                .expect("a timeout"),
        }
    }

    /// A node has had a turn.
    pub fn turned(
        &mut self,
        now: u64,
        node: usize,
        nodes: &[Node],
        wants: &Wants,
    ) -> Result<(), String> {
        let process = process_of(nodes, node)?;
        let replica = process.engine.replica();
        for record in &wants.built {
            self.log
                .appended(nodes[node].id, record, replica.epochs())?;
        }
        let config = replica.config();
        if self.nodes[node].config != (config.history, config.version) {
            self.nodes[node].config = (config.history, config.version);
            self.knows_no_stranger(config)?;
            self.chosen(nodes, config)?;
            self.register.learned(config)?;
        }
        self.watch_reign(node, nodes[node].id, replica)?;
        self.watch_time(now, node, nodes, wants)?;
        match replica.is_primary() {
            true => self.positions.counts(replica)?,
            false if nodes[node].harmed.is_none() => self.positions.stays(node, replica)?,
            false => {}
        }
        let commits = self.watch_commit(node, nodes, replica);
        self.note_reign_config(node, replica);
        commits?;
        let (lsn, digest) = process.engine.applied();
        if lsn != self.nodes[node].applied {
            self.nodes[node].applied = lsn;
            if let Some(history) = self.history_at(replica, lsn) {
                self.log.applied(now, history, lsn, replica.epochs())?;
                self.digests.applied(lsn, digest, replica.epochs())?;
            }
        }
        self.claims_no_other_past(replica, lsn)?;
        if let Some(id) = replica.leaves_out_in_vain() {
            return Err(format!("n{id} is back, and is still to be left out"));
        }
        if wants.installed > 0 {
            let kept = process.engine.past_digests();
            self.digests.kept(lsn, kept, replica.epochs())?;
        }
        let seen = &mut self.nodes[node];
        seen.followed = seen.follows.replace(replica.history());
        seen.had.look_at(replica);
        seen.had.cuts(wants.cuts);
        // Of a history that it learned of in this turn it may have heard before that, and in vain.
        let is_same = seen.followed == seen.follows;
        let beats = wants.beats.iter().filter(|_| is_same);
        seen.had.heard(replica, beats);
        reigns::serves_whom_it_reads_for(replica, wants)?;
        self.watch_held(node, replica)
    }

    fn knows_no_stranger(&self, config: &Config) -> Result<(), String> {
        let mut members = config.members.values();
        match members.find(|one| self.strangers.contains(&one.incarnation)) {
            Some(member) => Err(format!("a restored copy was taken in: {member:?}")),
            None => Ok(()),
        }
    }

    fn known(&self, history: History) -> Lsn {
        self.log.true_commit(history)
    }

    /// The history in which this LSN of a node's log is committed: that of the log, or, where the
    /// log is still that of an ended one, the newer one that the node follows. What stands there
    /// tells which, since both may have gone on from below it.
    fn history_at(&self, replica: &Replica, lsn: Lsn) -> Option<History> {
        let own = history_of(replica)?;
        let followed = replica.history();
        let is_other = lsn > self.log.true_commit(own)
            || self.log.differs(own, replica.epochs(), lsn) == Some(true);
        Some(match is_other && followed != own {
            true => followed,
            false => own,
        })
    }

    /// No log is cut at or below what was committed and durable in it, within one history.
    fn watch_held(&mut self, node: usize, replica: &Replica) -> Result<(), String> {
        let table = replica.epochs();
        let seen = &mut self.nodes[node];
        if let Some(held) = seen.held {
            let is_there = Place::of(table, held.lsn) == Some(held);
            let is_long = replica.tip().position.lsn >= held.lsn;
            // Whoever moves to a newer history cuts by that one's log, of which the first part may
            // be of the ended one.
            let follows = replica.history() != held.log;
            let rebuilt = follows || history_of(replica).is_some_and(|own| own != held.log);
            if rebuilt {
                seen.held = None;
            } else if !(is_there && is_long) {
                return Err(format!("I1: {held:?} was committed here and is gone"));
            }
        }
        let lsn = replica.commit().min(replica.durable());
        if seen.held.is_none_or(|held| held.lsn < lsn) {
            seen.held = Place::of(table, lsn);
        }
        Ok(())
    }

    /// A process has started on what its disk kept.
    pub fn started(
        &mut self,
        node: usize,
        process: &Process,
        is_harmed: bool,
    ) -> Result<(), String> {
        let replica = process.engine.replica();
        let incarnation = replica.meta().incarnation;
        self.believes_what_is_whole(node, replica, is_harmed)?;
        if self.nodes[node]
            .incarnation
            .is_some_and(|last| last != incarnation)
        {
            self.said.reborn(node);
            self.lost_disk(node);
        }
        self.said
            .started(node, replica.meta())
            .map_err(|story| format!("n{node}: {story}"))?;
        let seen = &mut self.nodes[node];
        *seen = Seen {
            held: seen.held,
            incarnation: Some(incarnation),
            lost: std::mem::take(&mut seen.lost),
            ..Seen::default()
        };
        seen.had.look_at(replica);
        self.watch_held(node, replica)
            .map_err(|story| format!("n{node} starts: {story}"))
    }

    /// This node's disk is about to be damaged. Votes that it gave were given.
    pub fn harmed(&mut self, node: usize, disk: &Node) {
        if let Some(meta) = meta_on_disk(disk) {
            self.note_vote(&meta);
        }
        self.losses.harmed(node);
        self.lost_disk(node);
    }

    /// This node's disk counts as lost from now on: of what it held nothing is asked any more.
    fn lost_disk(&mut self, node: usize) {
        let seen = &mut self.nodes[node];
        seen.held = None;
        seen.lost.extend(seen.down.take());
    }

    /// The newest Config that any node knows to be chosen, of the newest history that anybody still
    /// lives in: one whose founder died before it was durable has never been.
    pub fn newest_config(&self, nodes: &[Node]) -> Option<&Config> {
        let is_up_in = |node: &Node, history| {
            let process = node.process.as_ref();
            process.is_some_and(|process| process.engine.replica().history() == history)
        };
        let is_kept_in = |node: &Node, history| {
            let meta = node.meta_now();
            meta.is_some_and(|meta| meta.config.history == history)
        };
        let mut histories = self.register.histories().into_iter();
        let newest = histories.find(|history| {
            let mut all = nodes.iter();
            nodes.iter().any(|node| is_up_in(node, *history))
                || all.any(|node| is_kept_in(node, *history))
        })?;
        self.register.newest(newest)
    }

    pub fn crashed(&mut self, node: usize, process: &Process, is_harmed: bool) {
        let replica = process.engine.replica();
        let (meta, durable) = (replica.meta(), replica.durable());
        let held = (meta.incarnation, durable, replica.epochs().clone());
        self.losses.dies(node, &self.nodes[node].had);
        self.nodes[node].left = Some(held.clone());
        self.nodes[node].down = Some(held);
        self.note_vote(meta);
        if is_harmed {
            self.lost_disk(node);
        }
    }

    fn note_vote(&mut self, meta: &Meta) {
        if let Some(vote) = &meta.acceptor.accepted {
            let vote = (meta.acceptor.history, vote.proposal.value.version);
            self.votes.insert((meta.node, meta.incarnation), vote);
        }
    }

    /// A frame leaves a node.
    pub fn sent(
        &mut self,
        (from, to): (usize, usize),
        nodes: &[Node],
        frame: &Frame,
        trusted: &Trusted,
    ) -> Result<(), String> {
        self.offered(from, nodes, frame)?;
        match &frame.head {
            Head::Core { message } => {
                self.said.sent(from, message)?;
                self.positions.sent(from, nodes, message)?;
                self.rounds.sent(from, to, message);
                self.note_attempt(from, nodes, message);
                self.hidden.records(
                    &self.log,
                    &self.register,
                    trusted,
                    to,
                    message,
                    &frame.records,
                )
            }
            Head::Copy(piece) => self.hidden.piece(&self.log, piece),
            Head::Forward { .. } => {
                self.rounds.passed_on(nodes[from].id);
                Ok(())
            }
            _ => Ok(()),
        }
        .map_err(|story| format!("n{from} to n{to}: {story}"))
    }

    /// A switchover to this node was ordered: it may be sent what is not committed yet.
    pub fn may_join(&mut self, node: Option<usize>) {
        self.hidden.may_join(node);
    }

    /// A client's command on data was answered by this node; says in which history, and by which
    /// reign it was written there.
    pub fn answered(
        &mut self,
        now: u64,
        node: usize,
        nodes: &[Node],
        id: history::Id,
        answer: &Answer,
    ) -> Result<Written, String> {
        let replica = process_of(nodes, node)?.engine.replica();
        let own = history_of(replica).unwrap_or_else(|| replica.history());
        // A former primary passes on what its successor answers, who may have founded a history.
        let history = match answer.lsn > self.log.true_commit_of(replica.epochs()) {
            true => self.log.newest_that_reached(answer.lsn).unwrap_or(own),
            false => own,
        };
        let is_write = self.history.is_write(id);
        self.history.answered(id, now, history, answer);
        if answer.lsn
            > self
                .log
                .true_commit(history)
                .max(self.log.true_commit_of(replica.epochs()))
        {
            return Err(format!(
                "I6: {} is answered and not committed: {:?}",
                answer.lsn,
                self.history.get(id)
            ));
        }
        self.read_answered(id, &nodes[node], history, answer.lsn)?;
        let lsn = answer.lsn;
        let reign = self.reign_of(replica, history, answer.epoch, lsn);
        if is_write {
            if answer.generation != reign.history.generation {
                return Err(format!(
                    "{answer:?} is of {reign}: {:?}",
                    self.history.get(id)
                ));
            }
            let at = (reign.history, reign.epoch);
            self.log.acknowledged(now, history, at, lsn);
            self.note_holders(nodes, reign, lsn);
        } else if self.history.is_stale(id) {
            self.stale_answered(now, history, replica, id, answer.lsn)?;
        }
        Ok(Written {
            history,
            reign,
            lsn,
        })
    }

    pub fn committed_through(&self) -> Vec<(History, Lsn)> {
        self.log.committed_through()
    }

    /// The run is over: every history is held against what was committed.
    pub fn end(&self, nodes: &[Node], summary: &mut Summary) -> Result<(), String> {
        summary.histories = self.log.committed_through().len() as u64;
        for branch in self.log.branches() {
            replay::check(branch, &self.history, &self.told)?;
            let counts = &mut summary.ledger;
            let books = ledger::check(branch, &self.history, &self.told, counts)?;
            let mut aborted = BTreeSet::new();
            if let Some(books) = books {
                books.compare_nodes(branch.history, nodes, counts)?;
                aborted = books.aborted;
            }
            let counts = &mut summary.keys;
            let slate = keys::check(branch, &self.history, &self.told, aborted, counts)?;
            slate.compare_nodes(branch.history, nodes, counts)?;
        }
        self.history.session_order()?;
        self.told.end(&self.log)?;
        self.losses.deny_nothing(&self.log, &self.history)?;
        if summary.beyond_promises == 0 {
            self.nothing_is_lost_silently(nodes)?;
        }
        if summary.histories == 1 {
            let gave_up = search::check(&self.log, &self.history)?;
            summary.searches_given_up += gave_up;
        }
        Ok(())
    }
}

/// The nodes that have applied all of this history.
fn whole(history: History, through: Lsn, nodes: &[Node]) -> impl Iterator<Item = (&Node, &Engine)> {
    let up = nodes.iter().filter_map(|node| {
        let process = node.process.as_ref()?;
        Some((node, &process.engine))
    });
    up.filter(move |(_, engine)| {
        engine.replica().history() == history && engine.applied().0 == through
    })
}
