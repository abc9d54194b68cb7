//! The primary of one epoch: orders nothing itself, but sends, counts, and says what is committed.
//!
//! Keeps I1 (commit.rs counts, here it is done), I3 (one epoch, one primary: the reign was decided
//! by this process's own change of the register), I6 (asynchronous backups get committed log only).

use crate::replication::changes::{Change, Joining};
use crate::replication::commit::{self, Rule};
use crate::replication::config::Config;
use crate::replication::epochs::EpochEntry;
use crate::replication::fence::Fence;
use crate::replication::io::{Effect, LinkEvent, StopReason};
use crate::replication::message::{Beat, Body};
use crate::replication::node::Node;
use crate::replication::orders::{HandOver, Orders};
use crate::replication::peer::{Peer, Progress};
use crate::replication::reads::Reads;
use crate::replication::register::{Outcome, Ticket, Value};
use crate::replication::replica::Next;
use crate::replication::time::Time;
use standfast_wal::{Kind, Link, Lsn, Mark, NodeId, Record};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Primary {
    pub reign: Fence,
    /// The LSN of this epoch's EpochStart.
    pub start: Lsn,
    /// The end of the log that this epoch was chosen with.
    chosen: Lsn,
    /// The EpochStart is committed.
    pub serving: bool,
    pub peers: BTreeMap<NodeId, Peer>,
    pub rule: Rule,
    /// Proposed to the register, outcome unknown.
    pub change: Option<Change>,
    pub joining: Option<Joining>,
    pub orders: Orders,
    pub handover: Option<HandOver>,
    pub reads: Reads,
    beat_at: Time,
    /// The version of the Config whose members are in `peers`.
    met: u64,
    /// No majority of the voters is heard.
    pub deaf: bool,
    /// The written end at some moment, not durable here yet, and that moment.
    pub mark: Option<(Lsn, Time)>,
}

/// Whose votes count in this Config.
pub(super) fn rule_of(config: &Config) -> Rule {
    Rule {
        set: config.sync_set.clone(),
        needed: config.acks_needed,
    }
}

impl Primary {
    /// Begins the epoch that `config`, proposed by this process and chosen, gives it.
    pub fn new(node: &mut Node, config: &Value) -> Primary {
        let reign = Fence {
            history: config.history,
            epoch: config.epoch,
        };
        // I3: decided for this node, promised durably, and nothing above it promised since.
        assert!(
            config.primary == node.me && node.durable_fence == reign && node.meta.fence == reign,
            "I3: primary of {reign} with fence {} ({} durable), registered is n{}",
            node.meta.fence,
            node.durable_fence,
            config.primary
        );
        // I1: the chosen log is all here, durably, before anything is added to it.
        assert!(
            node.log.is_all_durable() && node.log.commit <= node.log.durable,
            "I1: primary of {reign} with {} of {} durable, commit {}",
            node.log.durable,
            node.end(),
            node.log.commit
        );
        let link = node.log.tip();
        let entry = EpochEntry {
            history: reign.history,
            epoch: reign.epoch,
            nonce: config.nonce,
            primary: node.me,
            first_lsn: link.position.lsn.next(),
        };
        let payload = entry.encode(link.position.epoch);
        let timestamp = node.start_timestamp();
        let record = Record::build(link, Kind::EpochStart, reign.epoch, timestamp, 1, &payload);
        let appended = node.log.append(record, &mut node.out);
        appended.expect("I3: an epoch that the register has just decided is above all others");
        let mut primary = Primary {
            reign,
            start: entry.first_lsn,
            chosen: link.position.lsn,
            serving: false,
            peers: BTreeMap::new(),
            rule: rule_of(config),
            change: None,
            joining: None,
            orders: Orders::default(),
            handover: None,
            reads: Reads::new(node.rounds),
            beat_at: node.now,
            met: 0,
            deaf: false,
            mark: Some((entry.first_lsn, node.now)),
        };
        node.event(format!(
            "primary of epoch {} from {}",
            reign.epoch, entry.first_lsn
        ));
        primary.meet_members(node);
        primary.beat_at = node.now.after(node.settings.heartbeat_interval);
        primary.beat(node);
        primary.plan(node);
        primary
    }

    /// Leaves the role. Nothing is dropped: what is written stays until a successor's log differs.
    pub fn leave(&mut self, node: &mut Node, reason: StopReason) {
        let change = self.change.take().map(|change| change.ticket);
        let read = self.reads.register.take().map(|(ticket, _)| ticket);
        for ticket in change.into_iter().chain(read) {
            node.cancel(ticket);
        }
        node.rounds = self.reads.round;
        self.end_orders(node, reason);
        node.out.push(Effect::StopServing(reason));
        node.event(format!("no longer primary of epoch {}", self.reign.epoch));
    }

    // Counting

    /// The rules that everything must satisfy now.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let change = self.change.as_ref().map(|change| &change.rule);
        let joining = self.joining.as_ref().map(|joining| &joining.rule);
        [Some(&self.rule), change, joining].into_iter().flatten()
    }

    pub fn matched_of(&self, node: &Node, id: NodeId) -> Lsn {
        if id == node.me {
            return node.log.durable;
        }
        let peer = self.peers.get(&id).filter(|peer| !peer.disowned);
        peer.map_or(Lsn::ZERO, |peer| peer.matched)
    }

    /// Up to here nothing may be lost by a change of the sync set.
    pub fn floor(&self, node: &Node) -> Lsn {
        if self.serving {
            node.log.commit
        } else {
            node.log.commit.max(self.chosen)
        }
    }

    /// Whether commits wait, or will wait, for this member.
    pub fn is_counted(&self, id: NodeId) -> bool {
        self.rules().any(|rule| rule.set.contains(&id))
    }

    /// Positions have moved: commit, serve, confirm what follows.
    pub fn advance(&mut self, node: &mut Node) {
        let commit = commit::commit_lsn(self.rules(), |id| self.matched_of(node, id), self.start);
        if let Some(commit) = commit.filter(|lsn| *lsn > node.log.commit) {
            node.log.set_commit(commit, &mut node.out);
            if !self.serving {
                self.start_serving(node);
            }
            self.pump_asynchronous(node);
        }
        let round = self.reads.round;
        let heard = |id| {
            if id == node.me {
                round
            } else {
                self.confirmed_of(id)
            }
        };
        if let Some(confirmed) = commit::reached(self.rules(), heard) {
            self.confirm(node, confirmed);
        }
        if self.is_handing_over() {
            self.mind_handover(node);
        }
    }

    fn confirmed_of(&self, id: NodeId) -> u64 {
        self.peers.get(&id).map_or(0, |peer| peer.confirmed)
    }

    fn confirm(&mut self, node: &mut Node, round: u64) {
        // Until the EpochStart is committed the commit LSN says nothing about this moment.
        if self.reads.confirm(round, node.now) && self.serving {
            node.out.push(Effect::Confirmed(round));
            let peers = self.peers.values_mut();
            peers.for_each(|peer| peer.note_confirmed(round));
        }
    }

    fn start_serving(&mut self, node: &mut Node) {
        self.serving = true;
        if node.meta.suspect {
            node.edit(|meta| meta.suspect = false);
        }
        node.out.push(Effect::Serving {
            epoch: self.reign.epoch,
        });
    }

    fn pump_asynchronous(&mut self, node: &mut Node) {
        if self.is_quiet(node) {
            return;
        }
        let (epoch, limit, round) = (self.reign.epoch, node.log.commit, self.reads.round);
        let Primary {
            peers,
            rule,
            change,
            joining,
            ..
        } = self;
        for (id, peer) in peers {
            let counted = rule.set.contains(id)
                || change.as_ref().is_some_and(|c| c.rule.set.contains(id))
                || joining.as_ref().is_some_and(|j| j.rule.set.contains(id));
            if !counted {
                peer.pump(node, *id, epoch, round, limit);
            }
        }
    }

    // Ordering

    pub fn on_propose(&mut self, node: &mut Node, record: Record) {
        assert!(
            self.serving && record.epoch() == self.reign.epoch,
            "I3: {record:?} proposed to the primary of {}, serving: {}",
            self.reign,
            self.serving
        );
        let previous = node.log.tip();
        let appended = node.log.append(record.clone(), &mut node.out);
        appended.expect("the engine builds each record behind the tip");
        let end = record.last_lsn();
        self.mark.get_or_insert((end, node.now));
        let round = self.reads.next_broadcast(node.now);
        let mut refused = false;
        let Primary {
            peers,
            rule,
            change,
            joining,
            reign,
            ..
        } = self;
        for (id, peer) in peers.iter_mut().filter(|(_, peer)| peer.role.holds_data()) {
            peer.note_appended(end, node.now);
            let counted = rule.set.contains(id)
                || change
                    .as_ref()
                    .is_some_and(|change| change.rule.set.contains(id))
                || joining
                    .as_ref()
                    .is_some_and(|joining| joining.rule.set.contains(id));
            refused |= counted && node.refused(*id);
            let Progress::Stream {
                sent,
                reading: false,
                ..
            } = peer.progress
            else {
                continue;
            };
            let on_the_way = node.log.tail.bytes_between(peer.matched, sent);
            if counted && sent == previous.position.lsn && on_the_way < node.settings.window_bytes {
                let records = vec![record.clone()];
                peer.send_append(node, *id, reign.epoch, round, previous, records);
            }
        }
        if refused {
            self.plan(node);
        }
    }

    pub fn on_durable(&mut self, node: &mut Node) {
        let (durable, end) = (node.log.durable, node.end());
        if self.mark.is_some_and(|(lsn, _)| durable >= lsn) {
            self.mark = (durable < end).then_some((end, node.now));
        }
        self.advance(node);
    }

    // Sending

    fn limit(&self, node: &Node, id: NodeId) -> Lsn {
        if self.is_counted(id) {
            node.end()
        } else {
            node.log.commit
        }
    }

    pub fn pump(&mut self, node: &mut Node, id: NodeId) {
        if self.is_quiet(node) {
            return;
        }
        let (limit, round) = (self.limit(node, id), self.reads.round);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.pump(node, id, self.reign.epoch, round, limit);
        }
    }

    pub fn probe(&mut self, node: &mut Node, id: NodeId) {
        if self.is_quiet(node) || !node.up(id) {
            return;
        }
        let peer = self.peers.get_mut(&id);
        if let Some(peer) = peer.filter(|peer| peer.role.holds_data()) {
            let round = self.reads.next_round();
            peer.probe(node, id, self.reign.epoch, round);
        }
    }

    pub fn on_log_read(&mut self, node: &mut Node, to: NodeId, previous: Link, read: Vec<Record>) {
        let (limit, round) = (self.limit(node, to), self.reads.round);
        let quiet = self.is_quiet(node);
        match self.peers.get_mut(&to) {
            // It fell silent since it asked: once it speaks again it asks again.
            Some(peer) if quiet => peer.forget_read(),
            Some(peer) => {
                peer.on_log_read(node, to, (self.reign.epoch, round), limit, (previous, read));
            }
            None => {}
        }
    }

    /// That part of the log is gone, or the snapshot came to an end, well or not: ask again.
    pub fn restart(&mut self, node: &mut Node, to: NodeId, pause: Duration) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        peer.progress = Progress::Pause {
            until: node.now.after(pause),
        };
        if pause.is_zero() {
            self.probe(node, to);
        }
    }

    pub fn beat(&mut self, node: &mut Node) {
        let quiet = self.is_quiet(node);
        let round = self.reads.next_broadcast(node.now);
        let (version, wall) = (node.config().version, node.wall_now().unwrap_or(0));
        for (id, peer) in &self.peers {
            if node.up(*id) {
                let beat = Beat {
                    epoch: self.reign.epoch,
                    round,
                    commit: node.log.commit,
                    version,
                    quiet,
                    echo: peer.echo,
                    wall,
                };
                node.send(*id, Body::Heartbeat(beat));
            }
        }
    }

    // The register

    pub fn on_outcome(&mut self, node: &mut Node, ticket: Ticket, outcome: Outcome) {
        if let Some((_, round)) = self.reads.register.filter(|(own, _)| *own == ticket) {
            self.reads.register = None;
            if let Outcome::Current(value) = outcome {
                if value.epoch == self.reign.epoch {
                    Mark::ReadByVoters.hit();
                    self.confirm(node, round);
                    self.flush_reads(node);
                }
                node.learn(value);
            }
        } else if self
            .change
            .as_ref()
            .is_some_and(|change| change.ticket == ticket)
        {
            self.on_change_ended(node, outcome);
        }
    }

    /// Another reign is known to have begun.
    pub fn note_successor(&self, node: &mut Node) {
        if node.registered() > self.reign && node.next.is_none() {
            Mark::ReignOver.hit();
            node.event(format!(
                "epoch {} is over, v{}",
                self.reign.epoch,
                node.config().version
            ));
            let patience = node.settings.failover_timeout;
            node.next = Some(Next::Backup { patience });
        }
    }

    /// A newer Config has become known, by whatever way.
    pub fn note_config(&mut self, node: &mut Node) {
        self.note_successor(node);
        if node.next.is_none() && node.config().version != self.met {
            // At once, before the change that brought it has settled: an incarnation that is not
            // named any more must not lend its positions to its successor.
            self.meet_members(node);
        }
    }

    // Members and links

    /// Keeps one `Peer` per other member that the Config names, by incarnation.
    pub fn meet_members(&mut self, node: &mut Node) {
        let config = node.meta.config.clone();
        self.met = config.version;
        self.peers
            .retain(|id, peer| config.names(*id, peer.incarnation));
        let me = node.me;
        for (id, member) in config.members.iter().filter(|(id, _)| **id != me) {
            let now = node.now;
            let peer = self
                .peers
                .entry(*id)
                .or_insert_with(|| Peer::new(member.incarnation, member.role, now));
            peer.role = member.role;
            if self.rule.set.contains(id) && peer.waiting(now).is_none() {
                peer.restart_waiting(node.end(), now);
            }
            if matches!(peer.progress, Progress::Idle) {
                self.probe(node, *id);
            }
        }
    }

    pub fn on_link(&mut self, node: &mut Node, id: NodeId, event: LinkEvent) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.progress = Progress::Idle;
        if matches!(event, LinkEvent::Up(_)) {
            self.probe(node, id);
        }
        self.plan(node);
    }

    // Time

    pub fn on_tick(&mut self, node: &mut Node) {
        if node.now < self.beat_at {
            return;
        }
        self.beat_at = node.now.after(node.settings.heartbeat_interval);
        self.listen(node);
        self.beat(node);
        let now = node.now;
        let again = |peer: &Peer| match peer.progress {
            Progress::Idle | Progress::Probe { .. } => !peer.disowned,
            Progress::Pause { until } => now >= until,
            Progress::Stream { .. } | Progress::Snapshot => false,
        };
        let ids = self
            .peers
            .iter()
            .filter(|(_, peer)| again(peer))
            .map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.probe(node, id);
        }
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            self.pump(node, id);
        }
        self.maybe_ask_voters(node);
        self.advance(node);
        self.plan(node);
    }

    pub fn deadline(&self) -> Time {
        self.beat_at
    }
}
