//! The primary of one epoch: orders nothing itself, but sends, counts, and says what is committed.
//!
//! Keeps I1 (commit.rs counts, here it is done), I3 (one epoch, one primary: the reign was decided
//! by this process's own change of the register), I6 (asynchronous backups get committed log only).

use crate::replication::changes::{Change, Joining};
use crate::replication::commit::{self, Rule};
use crate::replication::config::{Config, MemberRole, Protection};
use crate::replication::epochs::EpochEntry;
use crate::replication::fence::{Fence, Standing};
use crate::replication::io::{Effect, LinkEvent, ReadTicket, StopReason};
use crate::replication::message::{Beat, Body};
use crate::replication::node::Node;
use crate::replication::orders::{HandOver, Orders};
use crate::replication::peer::{Peer, Progress};
use crate::replication::reads::Reads;
use crate::replication::register::{Outcome, Request, Ticket, Value};
use crate::replication::replica::Next;
use crate::replication::time::Time;
use crate::replication::view::Refusal;
use standfast_wal::{Kind, Link, Lsn, NodeId, Record};
use std::collections::BTreeMap;
use std::time::Duration;

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
    /// No majority of the voters is heard.
    pub deaf: bool,
    /// The written end at some moment, not durable here yet, and that moment.
    mark: Option<(Lsn, Time)>,
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
            reads: Reads::new(),
            beat_at: node.now,
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
        let (epoch, limit, round) = (self.reign.epoch, node.log.commit, self.reads.round);
        let counted: Vec<NodeId> = self
            .rules()
            .flat_map(|rule| rule.set.iter().copied())
            .collect();
        for (id, peer) in &mut self.peers {
            if !counted.contains(id) {
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
        let round = self.reads.next_round();
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

    // Answers of peers

    /// The peer behind an answer in this epoch.
    fn peer(&mut self, node: &Node, id: NodeId) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&id)?;
        peer.heard_at = node.now;
        Some(peer)
    }

    pub fn on_acked(&mut self, node: &mut Node, from: NodeId, round: u64, matched: Lsn) {
        let end = node.end();
        if round > self.reads.round || matched > end {
            return node.event(format!("n{from} acknowledged {matched}, beyond {end}"));
        }
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        peer.confirmed = peer.confirmed.max(round);
        peer.note_matched(matched, end, node.now);
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
        self.flush_reads(node);
    }

    pub fn on_heard(&mut self, node: &mut Node, from: NodeId, said: &Body) {
        let Body::Heard {
            round,
            matched,
            verified,
            stamp,
            wall,
            ..
        } = said
        else {
            unreachable!("dispatched by its kind");
        };
        node.on_wall_sample(from, *wall);
        let (end, sent_round) = (node.end(), self.reads.round);
        if *round > sent_round || *matched > end {
            return node.event(format!("n{from} heard {matched}, beyond {end}"));
        }
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        peer.confirmed = peer.confirmed.max(*round);
        peer.note_matched(*matched, end, node.now);
        peer.note_stamp(*stamp, sent_round);
        if peer.notice_loss(*round, *verified) {
            self.probe(node, from);
        }
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
        self.flush_reads(node);
    }

    pub fn on_followed(&mut self, node: &mut Node, from: NodeId, said: &Body) {
        let Body::Followed {
            round,
            agreed,
            suspect,
            rebuild,
            epoch,
        } = *said
        else {
            unreachable!("dispatched by its kind");
        };
        let end = node.end();
        let Some(peer) = self.peer(node, from) else {
            return;
        };
        let Progress::Probe {
            round: first,
            matched,
        } = peer.progress
        else {
            return;
        };
        if round < first || agreed > end {
            return;
        }
        // Compared with what it had acknowledged before it was asked: an acknowledgement may have
        // overtaken this answer.
        if agreed < matched && !suspect {
            // It acknowledged what it no longer has: a disk that was rolled back is a lost one.
            peer.disowned = true;
            peer.progress = Progress::Idle;
            node.event(format!(
                "n{from} acknowledged {matched}, but ends at {agreed}"
            ));
            let (acknowledged, found) = (matched, agreed);
            return node.send(
                from,
                Body::Disown {
                    epoch,
                    acknowledged,
                    found,
                },
            );
        }
        if agreed < matched {
            // It says so itself: it is no candidate and not counted until it is verified.
            peer.matched = agreed;
        }
        peer.note_matched(agreed, end, node.now);
        peer.start_stream(node, from, agreed, rebuild);
        self.advance(node);
        self.pump(node, from);
        self.note_caught_up(node, from);
    }

    /// Another fence stands above this epoch somewhere.
    pub fn on_refused(&mut self, node: &mut Node, from: NodeId, fence: Fence) {
        match self.reign.weigh(fence) {
            Standing::Below | Standing::Equal => {}
            Standing::Above if fence.history == self.reign.history => {
                node.event(format!(
                    "n{from} obeys {fence}: epoch {} is over",
                    self.reign.epoch
                ));
                let patience = node.draw_wait(node.settings.stagger);
                node.next = Some(Next::Backup { patience });
            }
            Standing::Above | Standing::Foreign => {
                if node.newer.map(|(history, _)| history) != Some(fence.history) {
                    node.newer = Some((fence.history, from));
                    let history = fence.history;
                    node.event(format!("n{from} lives in another history, {history}"));
                }
            }
        }
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
        let round = self.reads.next_round();
        if let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.role.holds_data())
        {
            peer.probe(node, id, self.reign.epoch, round);
        }
    }

    pub fn on_log_read(&mut self, node: &mut Node, to: NodeId, previous: Link, read: Vec<Record>) {
        let (limit, round) = (self.limit(node, to), self.reads.round);
        let quiet = self.is_quiet(node);
        if let Some(peer) = self.peers.get_mut(&to).filter(|_| !quiet) {
            peer.on_log_read(node, to, (self.reign.epoch, round), limit, (previous, read));
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

    fn beat(&mut self, node: &mut Node) {
        let quiet = self.is_quiet(node);
        let round = self.reads.next_round();
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

    // Reads

    pub fn read(&mut self, node: &Node) -> Result<ReadTicket, Refusal> {
        if !self.serving {
            return Err(Refusal::Starting);
        }
        let after = node.log.commit;
        // Alone in every rule: its own durable fence is all the confirmation there can be.
        let alone = |rule: &Rule| rule.needed == 1 && rule.set.len() == 1;
        let round = if self.rules().all(alone) {
            self.reads.confirmed
        } else {
            self.reads.take(node.now)
        };
        Ok(ReadTicket { after, round })
    }

    /// Sends a round for the reads that no append of this turn has served.
    pub fn flush_reads(&mut self, node: &mut Node) {
        if self.reads.needs_round() {
            self.beat(node);
            self.advance(node);
        }
    }

    fn maybe_ask_voters(&mut self, node: &mut Node) {
        if !self
            .reads
            .is_overdue(node.now, node.settings.heartbeat_interval)
        {
            return;
        }
        // What is confirmed is every read up to here; later ones take a later round.
        let round = self.reads.next_round();
        if let Some(ticket) = node.submit(Request::Read) {
            self.reads.register = Some((ticket, round));
        }
    }

    pub fn on_outcome(&mut self, node: &mut Node, ticket: Ticket, outcome: Outcome) {
        if let Some((_, round)) = self.reads.register.filter(|(own, _)| *own == ticket) {
            self.reads.register = None;
            if let Outcome::Current(value) = outcome {
                if value.epoch == self.reign.epoch {
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

    /// A newer Config has become known, by whatever way.
    pub fn note_config(&mut self, node: &mut Node) {
        if node.registered() > self.reign {
            let patience = node.settings.failover_timeout;
            node.next = Some(Next::Backup { patience });
        }
    }

    // Members and links

    /// Keeps one `Peer` per other member that the Config names, by incarnation.
    pub fn meet_members(&mut self, node: &mut Node) {
        let config = node.meta.config.clone();
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

    /// The primary does not hear a majority of the voters, or its disk has stalled: it accepts no
    /// writes and must not keep its successors quiet.
    pub fn is_quiet(&self, node: &Node) -> bool {
        self.deaf || self.is_stalled(node)
    }

    pub fn is_stalled(&self, node: &Node) -> bool {
        let waited = |since| node.now.since(since) >= node.settings.degraded_timeout;
        node.disk_stalled || self.mark.is_some_and(|(_, since)| waited(since))
    }

    fn listen(&mut self, node: &mut Node) {
        let timeout = node.settings.failover_timeout;
        let heard = |id: NodeId| {
            let heard = |peer: &Peer| peer.silent(node.now) < timeout;
            id == node.me || self.peers.get(&id).is_some_and(heard)
        };
        let deaf = !node.config().majority(heard);
        if deaf != self.deaf {
            self.deaf = deaf;
            node.event(match deaf {
                true => "no majority of the voters is heard: writes are refused".into(),
                false => "a majority of the voters is heard again".into(),
            });
        }
    }

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

    // Admission

    pub fn admit(&self, node: &Node) -> Result<(), Refusal> {
        if !self.serving {
            return Err(Refusal::Starting);
        }
        if let Some(to) = self.handover.as_ref().and_then(HandOver::draining) {
            return Err(Refusal::HandingOver { to });
        }
        if self.deaf {
            return Err(Refusal::Deaf);
        }
        if self.is_stalled(node) {
            return Err(Refusal::Stalled);
        }
        let config = node.config();
        if config.protection == Protection::MaxProtection && self.lacks_backups(node) {
            return Err(Refusal::NoReplicas);
        }
        if self.is_over_budget(node) {
            return Err(Refusal::LossBudget);
        }
        let waiting = node.log.tail.bytes_between(node.log.commit, node.end());
        if waiting > node.settings.uncommitted_bytes {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn lacks_backups(&self, node: &Node) -> bool {
        let there = |id: &&NodeId| **id == node.me || !self.is_lost(node, **id);
        self.rule.set.iter().filter(there).count() < self.rule.needed as usize
    }

    fn is_over_budget(&self, node: &Node) -> bool {
        if node.config().protection != Protection::MaxPerformance {
            return false;
        }
        let budget = &node.settings.loss_budget;
        let peers = || self.peers.values().filter(|peer| peer.role.holds_data());
        let Some(best) = peers().map(|peer| peer.matched).max() else {
            return false;
        };
        let end = node.end();
        let age = peers()
            .map(|peer| peer.waiting(node.now).unwrap_or_default())
            .min();
        budget
            .commands
            .is_some_and(|most| best.distance_to(end) > most)
            || budget
                .bytes
                .is_some_and(|most| node.log.tail.bytes_between(best, end) > most)
            || budget
                .age
                .is_some_and(|most| age.is_some_and(|age| age > most))
    }

    /// Through here every data member holds the log durably.
    pub fn held_by_all(&self, node: &Node) -> Lsn {
        let data = self
            .peers
            .values()
            .filter(|peer| peer.role != MemberRole::Witness);
        data.map(|peer| peer.matched)
            .chain([node.log.durable])
            .min()
            .unwrap_or_default()
    }

    /// How many data nodes hold this LSN durably.
    pub fn copies(&self, node: &Node, lsn: Lsn) -> u32 {
        let own = u32::from(node.log.durable >= lsn);
        let has = |peer: &&Peer| peer.role != MemberRole::Witness && peer.matched >= lsn;
        let others = self.peers.values().filter(has).count();
        own + u32::try_from(others).expect("members are few")
    }
}
