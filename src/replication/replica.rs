//! The replication core: struct Replica, `step` and `deadline`; dispatch on (role, input) only.
//!
//! `step` cannot fail, blocks on nothing and reads no clock; `deadline` says when it wants to be
//! woken. Durability is an input, so no effect has a precondition: effects to one target (the log,
//! the meta file, one peer) are done in order, those to different targets in any order.

use crate::replication::backup::Backup;
use crate::replication::candidate::Candidate;
use crate::replication::config::Config;
use crate::replication::epochs::EpochTable;
use crate::replication::fence::{Fence, Standing};
use crate::replication::force::Forcing;
use crate::replication::io::{
    Effect, Input, Introduction, LinkEvent, LogFacts, Order, ReadTicket, StopReason,
};
use crate::replication::message::{Body, Message};
use crate::replication::meta::Meta;
use crate::replication::node::Node;
use crate::replication::primary::Primary;
use crate::replication::register::{Value, Voter};
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use crate::replication::view::Refusal;
use standfast_wal::{Epoch, History, Incarnation, Link, Lsn, NodeId, Nonce, Record};
use std::time::Duration;

/// What this node is at the moment. Role-only data lives here only.
pub(super) enum Role {
    /// Also witnesses and nodes that are not named.
    Backup(Backup),
    Candidate(Candidate),
    Primary(Primary),
    /// On its way to found a new history.
    Forcing(Forcing),
}

/// A change of role that a handler has decided; done before the step ends.
pub(super) enum Next {
    /// Wait for a primary; do not stand as candidate before this has passed.
    Backup {
        patience: Duration,
    },
    /// Stand as candidate; `asked`: the voters must agree that the primary is lost.
    Candidate {
        asked: bool,
    },
    /// The register has decided for this node.
    Primary {
        config: Value,
    },
    Forcing {
        ticket: u64,
        ignore: bool,
    },
}

/// One node's part in replication.
pub struct Replica {
    pub(super) node: Node,
    pub(super) role: Role,
}

impl Replica {
    /// A node that starts. `random` are at least 8 numbers drawn by the shell.
    pub fn new(
        settings: Settings,
        now: Time,
        meta: Meta,
        log: LogFacts,
        introduction: Introduction,
        random: Vec<u128>,
    ) -> Replica {
        let node = Node::new(settings, now, meta, log, introduction, random);
        let role = Role::Backup(Backup::new(&node, Duration::ZERO));
        Replica { node, role }
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        self.node.now = self.node.now.max(now);
        match input {
            Input::Timeout => {}
            Input::Propose(record) => self.on_propose(record),
            Input::Durable(lsn) => {
                self.node.log.on_durable(lsn);
                self.on_durable();
            }
            Input::CutDone(link) => match self.node.log.on_cut_done(link) {
                Ok(()) => self.on_durable(),
                Err(story) => self.node.halt(story),
            },
            Input::Persisted(serial) => {
                self.node.on_persisted(serial);
                self.note_durable();
            }
            Input::Message {
                from,
                incarnation,
                message,
            } => {
                self.on_message(from, incarnation, message);
            }
            Input::Link(id, event) => self.on_link(id, event),
            Input::LogRead {
                to,
                previous,
                records,
            } => self.on_log_read(to, previous, records),
            Input::LogGone { to } => self.on_log_gone(to),
            Input::SnapshotOffered { .. }
            | Input::SnapshotReceived { .. }
            | Input::SnapshotInstalled(_)
            | Input::SnapshotAborted { .. }
            | Input::SnapshotSent { .. }
            | Input::SnapshotFailed { .. } => self.on_snapshot(input),
            Input::LogTrimmed { first_lsn } => {
                self.node.log.first_lsn = self.node.log.first_lsn.max(first_lsn);
            }
            Input::Applied(lsn) => self.node.log.on_applied(lsn),
            Input::Operator { ticket, order } => self.on_order(ticket, order),
            Input::DiskStalled(stalled) => self.node.disk_stalled = stalled,
            Input::WallClock(wall) => self.node.set_wall(wall),
            Input::Random(number) => self.node.on_random(number),
            Input::TurnEnd => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.flush_reads(&mut self.node);
                }
            }
        }
        self.finish(effects);
    }

    /// Timers, register, changes of role: until nothing more follows from this input.
    fn finish(&mut self, effects: &mut Vec<Effect>) {
        self.node.register_timeout();
        if self
            .deadline()
            .is_some_and(|deadline| self.node.now >= deadline)
        {
            self.on_tick();
        }
        loop {
            if let Some(next) = self.node.next.take() {
                self.change_role(next);
            } else if let Some((ticket, outcome)) = self.node.outcomes.pop_front() {
                match &mut self.role {
                    Role::Candidate(role) => role.on_outcome(&mut self.node, ticket, outcome),
                    Role::Primary(role) => role.on_outcome(&mut self.node, ticket, outcome),
                    // Whoever asked has left the role; what was chosen is known all the same.
                    Role::Backup(_) | Role::Forcing(_) => {}
                }
            } else {
                break;
            }
            self.assert_invariants();
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.note_config(&mut self.node);
            if let Some(next) = self.node.next.take() {
                self.change_role(next);
            }
        }
        self.node.persist_edits();
        effects.append(&mut self.node.out);
    }

    fn change_role(&mut self, next: Next) {
        match next {
            Next::Backup { patience } => self.become_backup(patience),
            Next::Candidate { asked } => {
                if let Role::Backup(_) = self.role
                    && let Some(candidate) = Candidate::new(&mut self.node, asked)
                {
                    self.leave_role(Role::Candidate(candidate));
                }
            }
            Next::Primary { config } => {
                let primary = Primary::new(&mut self.node, &config);
                self.leave_role(Role::Primary(primary));
            }
            Next::Forcing { ticket, ignore } => {
                match Forcing::new(&mut self.node, ticket, ignore) {
                    Some(forcing) => self.leave_role(Role::Forcing(forcing)),
                    None => self.refuse_order(ticket, "not ready yet; try again"),
                }
            }
        }
    }

    fn leave_role(&mut self, role: Role) {
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.give_up(&mut self.node);
        }
        self.role = role;
        self.node.fetches.clear();
    }

    /// Whatever it was: from now on it waits for a primary.
    fn become_backup(&mut self, patience: Duration) {
        if let Role::Primary(primary) = &mut self.role {
            let by = self.node.meta.fence.max(self.node.registered());
            let reason = match primary.handover_target() {
                _ if by.history != primary.reign.history => StopReason::NewHistory,
                Some(to) if primary.is_handing_over() => StopReason::HandedOver { to },
                _ => StopReason::Fenced { by },
            };
            primary.leave(&mut self.node, reason);
        }
        let backup = Backup::new(&self.node, patience);
        self.leave_role(Role::Backup(backup));
    }

    /// What holds between any two steps, whatever the role.
    fn assert_invariants(&self) {
        let log = &self.node.log;
        assert!(
            log.commit <= log.end() && log.durable <= log.end(),
            "I1: commit {} and durable {} of {}",
            log.commit,
            log.durable,
            log.end()
        );
        assert!(
            self.node.durable_fence <= self.node.meta.fence,
            "I3: durable fence {} above {}",
            self.node.durable_fence,
            self.node.meta.fence
        );
        if let Role::Primary(primary) = &self.role {
            // I3: what is primary has promised nothing above its reign, and writes the last epoch.
            assert_eq!(primary.reign, self.node.meta.fence, "I3: a fenced primary");
            let last = log.epochs.last().map(|entry| entry.fence());
            assert_eq!(
                last,
                Some(primary.reign),
                "I3: another's records in its epoch"
            );
        }
    }

    // Dispatch: log and links

    fn on_propose(&mut self, record: Record) {
        let Role::Primary(primary) = &mut self.role else {
            panic!("I3: {record:?} proposed to a node that is no primary");
        };
        primary.on_propose(&mut self.node, record);
    }

    fn on_durable(&mut self) {
        if let Role::Primary(primary) = &mut self.role {
            primary.on_durable(&mut self.node);
        } else if let Role::Backup(backup) = &mut self.role {
            backup.on_durable(&mut self.node);
        }
        self.node.answer_fences();
        self.note_durable();
    }

    fn note_durable(&mut self) {
        match &mut self.role {
            Role::Candidate(candidate) => candidate.note_own(&mut self.node),
            Role::Forcing(forcing) => forcing.note_durable(&mut self.node),
            Role::Backup(_) | Role::Primary(_) => {}
        }
    }

    fn on_link(&mut self, id: NodeId, event: LinkEvent) {
        self.node.on_link(id, event);
        match &mut self.role {
            Role::Primary(primary) => primary.on_link(&mut self.node, id, event),
            Role::Candidate(candidate) => candidate.resend(&mut self.node),
            Role::Backup(backup) => backup.on_tick(&mut self.node),
            Role::Forcing(forcing) => forcing.on_tick(&mut self.node),
        }
    }

    fn on_log_read(&mut self, to: NodeId, previous: Link, records: Vec<Record>) {
        if let Role::Primary(primary) = &mut self.role {
            primary.on_log_read(&mut self.node, to, previous, records);
        } else if let Some(attempt) = self.node.fetches.remove(&to) {
            self.node.send(
                to,
                Body::Fetched {
                    attempt,
                    previous,
                    records,
                },
            );
        }
    }

    fn on_log_gone(&mut self, to: NodeId) {
        self.node.fetches.remove(&to);
        if let Role::Primary(primary) = &mut self.role {
            primary.restart(&mut self.node, to, Duration::ZERO);
        }
    }

    fn on_snapshot(&mut self, input: Input) {
        let pause = self.node.settings.failover_timeout;
        match (&mut self.role, input) {
            (Role::Backup(role), Input::SnapshotOffered { from, head }) => {
                role.on_snapshot_offered(&mut self.node, from, &head);
            }
            (Role::Backup(role), Input::SnapshotReceived { from, head }) => {
                role.on_snapshot_received(&mut self.node, from, head);
            }
            (Role::Backup(role), Input::SnapshotAborted { from }) => role.on_snapshot_aborted(from),
            (_, Input::SnapshotInstalled(head)) => {
                self.node.log.on_installed(head, &mut self.node.out);
                self.on_durable();
            }
            (Role::Primary(role), Input::SnapshotSent { to }) => {
                role.restart(&mut self.node, to, Duration::ZERO);
            }
            (Role::Primary(role), Input::SnapshotFailed { to }) => {
                role.restart(&mut self.node, to, pause);
            }
            // A node that strives for more than being a backup takes no snapshot.
            (_, Input::SnapshotOffered { from, .. } | Input::SnapshotReceived { from, .. }) => {
                let why = "this node is no backup now".to_string();
                self.node.out.push(Effect::RefuseSnapshot { from, why });
            }
            // The news is for a role that has ended.
            _ => {}
        }
    }

    fn on_order(&mut self, ticket: u64, order: Order) {
        match (&mut self.role, order) {
            (Role::Primary(role), order) => role.on_order(&mut self.node, ticket, order),
            (Role::Forcing(_), _) => self.refuse_order(ticket, "a forced promotion is under way"),
            (_, Order::ForcePromote { ignore_old_primary }) => {
                if self.node.role().holds_data() && self.node.is_member() {
                    let ignore = ignore_old_primary;
                    self.node.next = Some(Next::Forcing { ticket, ignore });
                } else {
                    self.refuse_order(ticket, "this node is no data node of the cluster");
                }
            }
            (_, Order::Rejoin) => match self.node.newer {
                Some((history, _)) => {
                    self.node.rejoining = true;
                    let text = format!("asking to be taken into history {history}");
                    self.node.out.push(Effect::Answer(ticket, Ok(text)));
                }
                None => self.refuse_order(ticket, "no newer history was seen at any peer"),
            },
            _ => {
                let why = Refusal::NotPrimary {
                    primary: self.primary(),
                };
                self.node.out.push(Effect::Answer(ticket, Err(why)));
            }
        }
    }

    fn refuse_order(&mut self, ticket: u64, why: &str) {
        let why = Refusal::Invalid(why.to_string());
        self.node.out.push(Effect::Answer(ticket, Err(why)));
    }

    fn on_tick(&mut self) {
        match &mut self.role {
            Role::Backup(role) => role.on_tick(&mut self.node),
            Role::Candidate(role) => role.on_tick(&mut self.node),
            Role::Primary(role) => role.on_tick(&mut self.node),
            Role::Forcing(role) => role.on_tick(&mut self.node),
        }
    }

    // Dispatch: messages

    fn on_message(&mut self, from: NodeId, incarnation: Incarnation, message: Message) {
        let Message { history, body } = message;
        if from == self.node.me {
            return self.node.event(format!(
                "a second n{from} is there: its messages are refused"
            ));
        }
        let named = self.node.config().names(from, incarnation);
        match body {
            // What even a stranger may say: it changes no count.
            Body::Register(message) => {
                self.node.on_register_message(
                    Voter {
                        node: from,
                        incarnation,
                    },
                    message,
                );
            }
            Body::AskConfig { version } => self.on_ask_config(from, version),
            Body::Configured { config } => self.on_configured(from, config),
            Body::Join { .. } => {
                if let Role::Primary(primary) = &mut self.role {
                    primary.on_join(&mut self.node, from, incarnation, body);
                }
            }
            Body::Sound { attempt } => self.on_sound(from, attempt),
            // Everything else counts only from a member; perhaps the Config here is old.
            _ if !named => {
                let version = self.node.config().version;
                self.node.send(from, Body::AskConfig { version });
            }
            Body::Follow { epoch, .. }
            | Body::Append { epoch, .. }
            | Body::HandOver { epoch, .. }
            | Body::Disown { epoch, .. } => {
                self.on_primary_message(from, Fence { history, epoch }, body);
            }
            Body::Heartbeat(beat) => {
                let reign = Fence {
                    history,
                    epoch: beat.epoch,
                };
                self.on_primary_message(from, reign, body);
            }
            Body::Acked { epoch, .. }
            | Body::Heard { epoch, .. }
            | Body::Followed { epoch, .. } => self.on_answer(from, Fence { history, epoch }, body),
            Body::Refused { fence, version } => self.on_refused(from, fence, version),
            Body::Ask { attempt, epoch } => self.on_ask(from, attempt, Fence { history, epoch }),
            Body::Fence { fence, attempt } => self.on_fence(from, fence, attempt),
            Body::Fetch { attempt, after } => self.on_fetch(from, attempt, after),
            Body::Asked { .. } | Body::Fenced { .. } | Body::Fetched { .. } => {
                self.on_candidate_answer(from, body);
            }
            Body::Sounded { .. } => {
                if let Role::Forcing(forcing) = &mut self.role {
                    forcing.on_sounded(&mut self.node, from, &body);
                }
            }
        }
    }

    /// Somebody speaks as the primary of `reign`.
    fn on_primary_message(&mut self, from: NodeId, reign: Fence, body: Body) {
        if !self.node.obeys(from, reign) {
            return;
        }
        if matches!(&self.role, Role::Primary(primary) if primary.reign == reign) {
            return self
                .node
                .halt(format!("I3: n{from} claims to be primary of {reign}, too"));
        }
        if !matches!(self.role, Role::Backup(_)) {
            // A forced promotion is an operator's will, and its fence is above this soon.
            if matches!(self.role, Role::Forcing(_)) {
                return;
            }
            self.node.raise_fence(reign);
            self.become_backup(Duration::ZERO);
        }
        let Role::Backup(backup) = &mut self.role else {
            return;
        };
        let node = &mut self.node;
        match body {
            Body::Follow {
                round, tip, epochs, ..
            } => {
                backup.on_follow(node, from, reign, round, tip, epochs);
            }
            Body::Append {
                round,
                commit,
                previous,
                records,
                ..
            } => {
                backup.on_append(node, from, reign, (round, commit), previous, records);
            }
            Body::Heartbeat(beat) => backup.on_heartbeat(node, from, reign, beat),
            Body::HandOver { tip, .. } => backup.on_hand_over(node, from, reign, tip),
            Body::Disown { acknowledged, .. } => backup.on_disown(node, from, acknowledged),
            _ => unreachable!("dispatched by its kind"),
        }
    }

    fn on_answer(&mut self, from: NodeId, reign: Fence, body: Body) {
        // An answer to an epoch that is over, or to another process of this node, says nothing.
        let Role::Primary(primary) = &mut self.role else {
            return;
        };
        if primary.reign != reign {
            return;
        }
        match body {
            Body::Acked { round, matched, .. } => {
                primary.on_acked(&mut self.node, from, round, matched);
            }
            Body::Heard { .. } => primary.on_heard(&mut self.node, from, &body),
            Body::Followed { .. } => primary.on_followed(&mut self.node, from, &body),
            _ => unreachable!("dispatched by its kind"),
        }
    }

    fn on_refused(&mut self, from: NodeId, fence: Fence, version: u64) {
        let own = self.node.config().version;
        if version > own && fence.history == self.node.history() {
            self.node.send(from, Body::AskConfig { version: own });
        }
        if fence.history.generation > self.node.history().generation {
            self.node.newer.get_or_insert((fence.history, from));
        }
        if let Role::Primary(primary) = &mut self.role {
            primary.on_refused(&mut self.node, from, fence);
        }
    }

    /// Step 1 at a voter: it says "lost" only of its own knowledge, and not before it has been up
    /// long enough to have any.
    fn on_ask(&mut self, from: NodeId, attempt: Nonce, reign: Fence) {
        let node = &mut self.node;
        if reign < node.registered() {
            let config = node.meta.config.clone();
            node.send(from, Body::Configured { config });
        }
        let acting = match &self.role {
            Role::Primary(_) => true,
            Role::Candidate(_) => node.config().primary == node.me,
            Role::Backup(_) | Role::Forcing(_) => false,
        };
        let up = node.now.since(node.started) >= node.settings.failover_timeout;
        let lost = !acting && up && node.is_voter() && node.has_lost_primary();
        node.send(from, Body::Asked { attempt, lost });
    }

    /// Step 2 at a member of the sync set; or the end of this history, by force.
    fn on_fence(&mut self, from: NodeId, fence: Fence, attempt: Nonce) {
        let node = &mut self.node;
        if !node.is_member() || !node.role().holds_data() || matches!(self.role, Role::Forcing(_)) {
            return;
        }
        let same = fence.history == node.history();
        let forced = fence.history.generation > node.history().generation;
        let standing = node.meta.fence.weigh(fence);
        let acting = matches!(&self.role, Role::Primary(primary) if primary.reign == fence);
        if !(same || forced) || acting || matches!(standing, Standing::Below | Standing::Foreign) {
            return node.refuse(from);
        }
        if standing == Standing::Above {
            node.raise_fence(fence);
            if forced {
                node.newer = Some((fence.history, from));
                node.event(format!(
                    "n{from} has ended this history by force: {}",
                    fence.history
                ));
            }
            // The candidate gets its time before this node tries again by itself.
            let patience = node.settings.failover_timeout;
            self.become_backup(patience);
        }
        self.node.owe_fenced(from, attempt, fence);
    }

    fn on_fetch(&mut self, from: NodeId, attempt: Nonce, after: Lsn) {
        if matches!(self.role, Role::Primary(_)) || after >= self.node.end() {
            return;
        }
        let node = &mut self.node;
        let max_bytes = node.settings.message_bytes;
        let Some(previous) = node.log.tail.link_at(after) else {
            node.fetches.insert(from, attempt);
            return node.out.push(Effect::ReadLog {
                to: from,
                after,
                max_bytes,
            });
        };
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let first = bytes == 0;
            bytes += record.bytes().len() as u64;
            first || bytes <= max_bytes
        };
        let rest = node.log.tail.after(after);
        let rest = rest.expect("its link is kept, so it is");
        let records = rest.take_while(fits).cloned().collect();
        node.send(
            from,
            Body::Fetched {
                attempt,
                previous,
                records,
            },
        );
    }

    fn on_candidate_answer(&mut self, from: NodeId, body: Body) {
        let node = &mut self.node;
        match (&mut self.role, body) {
            (Role::Candidate(role), Body::Asked { attempt, lost }) => {
                role.on_asked(node, from, attempt, lost);
            }
            (Role::Candidate(role), said @ Body::Fenced { .. }) => {
                role.on_fenced(node, from, said);
            }
            (
                Role::Candidate(role),
                Body::Fetched {
                    attempt,
                    previous,
                    records,
                },
            ) => {
                role.on_fetched(node, from, attempt, previous, records);
            }
            (Role::Forcing(role), Body::Fenced { fence, attempt, .. }) => {
                role.on_fenced(node, from, fence, attempt);
            }
            // Answers to an attempt that is over.
            _ => {}
        }
    }

    fn on_sound(&mut self, from: NodeId, attempt: Nonce) {
        let node = &mut self.node;
        let serving = match &self.role {
            Role::Primary(primary) => primary.serving && !primary.is_quiet(node),
            _ => false,
        };
        let Fence { history, epoch } = node.meta.fence;
        let (generation, commit) = (history.generation, node.log.commit.max(node.heard_commit));
        node.send(
            from,
            Body::Sounded {
                attempt,
                serving,
                generation,
                epoch,
                commit,
            },
        );
    }

    fn on_ask_config(&mut self, from: NodeId, version: u64) {
        let config = self.node.meta.config.clone();
        // Whoever lives in another history asks because of that.
        self.node
            .newer
            .take_if(|(history, _)| *history == config.history);
        if config.version > version || matches!(self.role, Role::Primary(_)) {
            self.node.send(from, Body::Configured { config });
        }
    }

    fn on_configured(&mut self, from: NodeId, config: Value) {
        let node = &mut self.node;
        if config.history == node.history() {
            return node.learn(config);
        }
        if config.history.generation <= node.history().generation {
            return;
        }
        node.newer = Some((config.history, from));
        // An empty node follows anybody; one with a past, only when its operator says so.
        let named = config.names(node.me, node.meta.incarnation);
        let empty = node.end() == Lsn::ZERO;
        let idle = matches!(self.role, Role::Backup(_)) && node.log.settled();
        if idle && (empty || node.rejoining && named) {
            node.enter_history(Config::clone(&config), false);
            node.event(format!("follows history {} from now on", config.history));
            self.become_backup(Duration::ZERO);
        }
    }

    // What the engine asks

    /// When `step` wants `Input::Timeout`, if nothing comes before.
    pub fn deadline(&self) -> Option<Time> {
        let role = match &self.role {
            Role::Backup(role) => role.deadline(&self.node),
            Role::Candidate(role) => role.deadline(&self.node),
            Role::Primary(role) => Some(role.deadline()),
            Role::Forcing(role) => Some(role.deadline()),
        };
        [role, self.node.register_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// May a command be ordered now? O(members). Of commands that got an LSN nothing definite is
    /// ever said by this.
    pub fn admit(&self) -> Result<(), Refusal> {
        match &self.role {
            Role::Primary(primary) => primary.admit(&self.node),
            _ => Err(self.not_primary()),
        }
    }

    /// A linearizable read comes in. Follow up with `Input::TurnEnd` in the same turn.
    pub fn read(&mut self, now: Time) -> Result<ReadTicket, Refusal> {
        self.node.now = self.node.now.max(now);
        match &mut self.role {
            Role::Primary(primary) => primary.read(&self.node),
            _ => Err(self.not_primary()),
        }
    }

    fn not_primary(&self) -> Refusal {
        match &self.role {
            Role::Candidate(_) | Role::Forcing(_) => Refusal::Starting,
            _ => Refusal::NotPrimary {
                primary: self.primary().filter(|id| *id != self.node.me),
            },
        }
    }

    /// Rounds up to this are confirmed: read tickets up to it may be answered.
    pub fn confirmed(&self) -> u64 {
        match &self.role {
            Role::Primary(primary) => primary.reads.confirmed,
            _ => 0,
        }
    }

    /// A stale read on a backup: everything acknowledged before the returned moment of this node's
    /// clock is in the log up to the returned LSN. `None`: nothing is known.
    pub fn freshness(&self) -> Option<(Lsn, Time)> {
        match &self.role {
            Role::Backup(backup) => backup.following.as_ref()?.fresh,
            _ => None,
        }
    }

    /// What the next proposed record must follow.
    pub fn tip(&self) -> Link {
        self.node.log.tip()
    }

    /// The epoch to build records with, on the primary; the fence's elsewhere.
    pub fn epoch(&self) -> Epoch {
        self.node.epoch()
    }

    /// The fence: everything below is refused here.
    pub fn fence(&self) -> Fence {
        self.node.meta.fence
    }

    pub fn history(&self) -> History {
        self.node.history()
    }

    pub fn commit(&self) -> Lsn {
        self.node.log.commit
    }

    pub fn durable(&self) -> Lsn {
        self.node.log.durable
    }

    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Primary, and its EpochStart is committed.
    pub fn is_serving(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.serving)
    }

    /// A change of the Config is under way, or a member is joining.
    pub fn is_changing(&self) -> bool {
        matches!(&self.role, Role::Primary(primary)
            if primary.change.is_some() || primary.joining.is_some())
    }

    /// The newest Config known to be chosen.
    pub fn config(&self) -> &Config {
        self.node.config()
    }

    /// Newest edit of the durable state; what is on disk may be older.
    pub fn meta(&self) -> &Meta {
        &self.node.meta
    }

    pub fn epochs(&self) -> &EpochTable {
        &self.node.log.epochs
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.node.settings
    }

    /// Who is primary, as far as this node knows; itself only while it acts as one.
    pub fn primary(&self) -> Option<NodeId> {
        let node = &self.node;
        match &self.role {
            Role::Primary(_) => Some(node.me),
            Role::Backup(backup) => match &backup.following {
                Some(following) if !node.has_lost_primary() => Some(following.primary),
                None if !node.has_lost_primary() => {
                    Some(node.config().primary).filter(|id| *id != node.me)
                }
                _ => None,
            },
            Role::Candidate(_) | Role::Forcing(_) => None,
        }
    }

    /// The records that end after `after`, from memory; `None`: read them from the log.
    pub fn records_after(&self, after: Lsn) -> Option<impl Iterator<Item = &Record>> {
        self.node.log.tail.after(after)
    }

    /// How many data nodes hold `lsn` durably, as far as the primary knows, itself included.
    pub fn copies(&self, lsn: Lsn) -> u32 {
        match &self.role {
            Role::Primary(primary) => primary.copies(&self.node, lsn),
            _ => u32::from(self.node.log.durable >= lsn),
        }
    }

    /// The first LSN that this node's log still has.
    pub fn first_lsn(&self) -> Lsn {
        self.node.log.first_lsn
    }

    /// Through here every data member holds the log durably, as far as the primary knows; `None`
    /// on any other node, which does not know.
    pub fn held_by_all(&self) -> Option<Lsn> {
        match &self.role {
            Role::Primary(primary) => Some(primary.held_by_all(&self.node)),
            _ => None,
        }
    }

    /// The median of the wall clocks of this node and its peers; `None` before `WallClock`.
    pub fn clock_median(&self) -> Option<u64> {
        self.node.clock_median()
    }
}
