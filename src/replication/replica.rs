//! The replication core: struct Replica, `step` and `deadline`; dispatch on (role, input) only.
//!
//! `step` cannot fail, blocks on nothing and reads no clock; `deadline` says when it wants to be
//! woken. Durability is an input, so no effect has a precondition: effects to one target (the log,
//! the meta file, one peer) are done in order, those to different targets in any order.

use crate::replication::backup::Backup;
use crate::replication::candidate::Candidate;
use crate::replication::force::Forcing;
use crate::replication::io::{Effect, Input, Introduction, LinkEvent, LogFacts, Order, StopReason};
use crate::replication::message::Body;
use crate::replication::meta::Meta;
use crate::replication::node::Node;
use crate::replication::primary::Primary;
use crate::replication::register::Value;
use crate::replication::settings::Settings;
use crate::replication::time::Time;
use crate::replication::view::Refusal;
use standfast_wal::{Link, Mark, NodeId, Record};
use std::time::Duration;

/// What this node is at the moment. Role-only data lives here only.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Role {
    /// Also witnesses and nodes that are not named.
    Backup(Backup),
    Candidate(Box<Candidate>),
    Primary(Box<Primary>),
    /// On its way to found a new history.
    Forcing(Box<Forcing>),
}

/// A change of role that a handler has decided; done before the step ends.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
        if let Role::Primary(primary) = &mut self.role {
            // What comes in may be the vote for which a change waited that is not to be made now.
            primary.revoke_if_forbidden(&mut self.node);
        }
        match input {
            Input::Timeout => {}
            Input::Propose(record) => self.on_propose(record),
            Input::Durable(lsn) => {
                self.node.log.on_durable(lsn);
                self.on_durable();
            }
            Input::CutDone { end, durable } => match self.node.log.on_cut_done(end, durable) {
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

    /// Timers, register, changes of role: until nothing more follows from this input.
    fn finish(&mut self, effects: &mut Vec<Effect>) {
        self.node.register_timeout();
        self.note_successor();
        if self
            .deadline()
            .is_some_and(|deadline| self.node.now >= deadline)
        {
            self.on_tick();
        }
        self.note_successor();
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
            self.note_successor();
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

    /// Nothing more is proposed in an epoch that is known to be over, whatever else this input
    /// brought.
    fn note_successor(&mut self) {
        if let Role::Primary(primary) = &self.role {
            primary.note_successor(&mut self.node);
        }
    }

    fn change_role(&mut self, next: Next) {
        match next {
            Next::Backup { patience } => self.become_backup(patience),
            Next::Candidate { asked } => {
                if let Role::Backup(_) = self.role
                    && let Some(candidate) = Candidate::new(&mut self.node, asked)
                {
                    self.leave_role(Role::Candidate(Box::new(candidate)));
                }
            }
            Next::Primary { config } => {
                let primary = Primary::new(&mut self.node, &config);
                self.leave_role(Role::Primary(Box::new(primary)));
            }
            Next::Forcing { ticket, ignore } => {
                match Forcing::new(&mut self.node, ticket, ignore) {
                    Some(forcing) => self.leave_role(Role::Forcing(Box::new(forcing))),
                    None => self.refuse_order(ticket, "not ready yet; try again"),
                }
            }
        }
    }

    fn leave_role(&mut self, role: Role) {
        match &mut self.role {
            Role::Candidate(role) => role.give_up(&mut self.node),
            Role::Forcing(role) => role.give_up(&mut self.node),
            Role::Backup(_) | Role::Primary(_) => {}
        }
        self.role = role;
        self.node.fetches.clear();
    }

    /// Whatever it was: from now on it waits for a primary.
    pub(super) fn become_backup(&mut self, patience: Duration) {
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
            // What was sent before is lost to a peer that comes up.
            Role::Candidate(role) if matches!(event, LinkEvent::Up(_)) => {
                role.resend(&mut self.node);
            }
            Role::Candidate(role) => role.on_tick(&mut self.node),
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
        Mark::LogGone.hit();
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
            (_, Order::Rejoin) if self.node.is_outdated() || !self.node.is_member() => {
                self.node.rejoining = true;
                let history = self.node.meta.fence.history;
                let text = format!("asking to be taken into history {history}");
                self.node.out.push(Effect::Answer(ticket, Ok(text)));
            }
            (_, Order::Rejoin) => self.refuse_order(ticket, "no newer history was seen"),
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
}
