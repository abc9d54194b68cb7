//! Dispatch of peer messages: who may say what, and which role's handler takes it.
//!
//! What counts, counts only from an incarnation that the Config names; what speaks for a reign goes
//! through the fence first. Ignoring is a row, too, with its reason.

use crate::replication::config::Config;
use crate::replication::fence::{Fence, Standing};
use crate::replication::io::Effect;
use crate::replication::message::{Body, Message};
use crate::replication::register::{Value, Voter};
use crate::replication::replica::{Replica, Role};
use standfast_wal::{Epoch, Incarnation, Lsn, Mark, NodeId, Nonce, Record};
use std::time::Duration;

impl Replica {
    pub(super) fn on_message(&mut self, from: NodeId, incarnation: Incarnation, message: Message) {
        let Message { history, body } = message;
        if from == self.node.me {
            return self.node.event(format!(
                "a second n{from} is there: its messages are refused"
            ));
        }
        let named = self.node.config().names(from, incarnation);
        let past = history.generation < self.node.history().generation;
        match body {
            // It lives in a past that was ended by force, and acts in it.
            Body::Register(_)
            | Body::Ask { .. }
            | Body::Follow { .. }
            | Body::Append { .. }
            | Body::Heartbeat(_)
            | Body::HandOver { .. }
            | Body::Fetch { .. }
                if past =>
            {
                self.node.refuse(from);
            }
            Body::Register(_) if history != self.node.history() => {
                // Its sender lives in a newer history, or in another of the same number.
                let reign = Fence {
                    history,
                    epoch: Epoch(0),
                };
                if named {
                    self.node.meet_history(from, reign);
                }
            }
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
            // The old history's members, which the new one does not name, say that they have ended.
            Body::Fenced { fence, attempt, .. } if matches!(self.role, Role::Forcing(_)) => {
                if let Role::Forcing(forcing) = &mut self.role {
                    forcing.on_fenced(&mut self.node, from, fence, attempt);
                }
            }
            // Everything else counts only from a member; perhaps the Config here is old.
            _ if !named => {
                Mark::StrangerIgnored.hit();
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
        if self.node.meet_history(from, fence) {
            return;
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
        let wall = node.wall_now().unwrap_or(0);
        node.send(
            from,
            Body::Asked {
                attempt,
                lost,
                wall,
            },
        );
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
            Mark::FetchFromDisk.hit();
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
            (
                Role::Candidate(role),
                Body::Asked {
                    attempt,
                    lost,
                    wall,
                },
            ) => {
                node.on_wall_sample(from, wall);
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
        let generation = history.generation;
        // Once its history was ended elsewhere, what it knows is not of the one that it names.
        let commit = match history == node.history() {
            true => node.known_commit(),
            false => Lsn::ZERO,
        };
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
        let reign = Fence {
            history: config.history,
            epoch: config.epoch,
        };
        if node.meta.fence.weigh(reign) == Standing::Foreign {
            return; // Two forced promotions of one number: an operator has to choose.
        }
        // An empty node follows anybody; one with a past, only when its operator says so.
        let empty = node.end() == Lsn::ZERO;
        let idle = matches!(self.role, Role::Backup(_)) && node.log.settled();
        if idle && (empty || node.rejoining) {
            if !empty {
                Mark::Rejoined.hit();
                node.left = node.log.epochs.last().map(|last| last.history);
            }
            node.enter_history(Config::clone(&config), false);
            node.event(format!("follows history {} from now on", config.history));
            self.become_backup(Duration::ZERO);
        } else if !empty {
            // The only word of it that reaches a node which the new history's founder has no reason
            // to speak to: its own history has ended, and `rejoin` is what helps.
            node.meet_history(from, reign);
        }
    }
}
