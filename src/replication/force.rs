//! Forced promotion: an operator makes this node the primary of a new history, alone.
//!
//! The one way to serve when the sync set is gone (I5: never without force). It sounds out the
//! others first and refuses while one of them acts as primary, then founds the new history durably
//! (a register of its own whose only voter is this node), then fences whom it can reach with it,
//! and serves. A crash in between leaves a founder, never nodes that wait for a history that nobody
//! leads.

use crate::replication::config::{Config, Protection};
use crate::replication::fence::Fence;
use crate::replication::io::Effect;
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::past::{ancestors, shared_through};
use crate::replication::register::Value;
use crate::replication::replica::Next;
use crate::replication::time::Time;
use crate::replication::view::{Loss, Refusal};
use standfast_wal::{Epoch, History, Lsn, Mark, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Sounding,
    /// The new history is being made durable.
    Founding {
        config: Value,
    },
    /// The others are told, as far as they can be reached.
    Fencing {
        config: Value,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Forcing {
    /// The order, until it is answered.
    ticket: Option<u64>,
    attempt: Nonce,
    /// Go on although another acts as primary.
    ignore: bool,
    /// Id of the history to be.
    id: u128,
    /// The other members of the old history.
    others: BTreeSet<NodeId>,
    since: Time,
    stage: Stage,
    /// Who answered, with the highest (generation, epoch) and commit LSN among them below.
    answered: BTreeMap<NodeId, bool>,
    fenced: BTreeSet<NodeId>,
    generation: u64,
    epoch: Epoch,
    commit: Lsn,
    /// What is kept of the old history.
    kept: Lsn,
    resend_at: Time,
}

/// Where a log is that of an ended history still, what it shares with the one that is left is all
/// that it keeps of that.
fn kept(node: &Node) -> Lsn {
    let shared = shared_through(node.config(), &node.log.epochs);
    node.end().min(shared)
}

impl Forcing {
    /// `None`: no randomness yet.
    pub fn new(node: &mut Node, ticket: u64, ignore: bool) -> Option<Forcing> {
        let (attempt, id) = (node.draw()?, node.draw()?);
        let mut forcing = Forcing {
            ticket: Some(ticket),
            attempt,
            ignore,
            id: id.0,
            others: node.config().members.keys().copied().collect(),
            since: node.now,
            stage: Stage::Sounding,
            answered: BTreeMap::new(),
            fenced: BTreeSet::new(),
            generation: node.meta.fence.history.generation,
            epoch: node.meta.fence.epoch.max(node.config().epoch),
            commit: node.known_commit(),
            kept: Lsn::ZERO,
            resend_at: node.now,
        };
        forcing.others.remove(&node.me);
        forcing.on_tick(node);
        Some(forcing)
    }

    fn answer(&mut self, node: &mut Node, result: Result<String, Refusal>) {
        if let Some(ticket) = self.ticket.take() {
            node.out.push(Effect::Answer(ticket, result));
        }
    }

    /// Leaves the role.
    pub fn give_up(&mut self, node: &mut Node) {
        let why = "another node's history is newer; look at its status";
        self.answer(node, Err(Refusal::Invalid(why.to_string())));
    }

    /// The reign that will be founded.
    fn target(&self) -> Fence {
        let history = History {
            generation: self.generation + 1,
            id: self.id,
        };
        Fence {
            history,
            epoch: self.epoch.next(),
        }
    }

    pub fn on_sounded(&mut self, node: &mut Node, from: NodeId, said: &Body) {
        let Body::Sounded {
            attempt,
            serving,
            generation,
            epoch,
            commit,
        } = *said
        else {
            unreachable!("dispatched by its kind");
        };
        if attempt != self.attempt || !matches!(self.stage, Stage::Sounding) {
            return;
        }
        self.answered.insert(from, serving);
        self.generation = self.generation.max(generation);
        self.epoch = self.epoch.max(epoch);
        // Another history's LSNs are others: nothing of this one is lost by them.
        if generation == node.history().generation {
            self.commit = self.commit.max(commit);
        }
        self.go_on(node);
    }

    pub fn on_fenced(&mut self, node: &mut Node, from: NodeId, fence: Fence, attempt: Nonce) {
        if attempt == self.attempt && fence == self.target() {
            self.fenced.insert(from);
            self.go_on(node);
        }
    }

    /// Fence or log are more durable than before.
    pub fn note_durable(&mut self, node: &mut Node) {
        self.go_on(node);
    }

    fn go_on(&mut self, node: &mut Node) {
        match &self.stage {
            Stage::Sounding => self.end_sounding(node),
            Stage::Founding { config } => {
                let (config, reign) = (config.clone(), self.target());
                if node.fence_is_durable(reign) && node.log.is_all_durable() {
                    self.stage = Stage::Fencing { config };
                    self.since = node.now;
                    self.resend(node);
                    self.end_fencing(node);
                }
            }
            Stage::Fencing { .. } => self.end_fencing(node),
        }
    }

    fn end_sounding(&mut self, node: &mut Node) {
        let settled = |id: &NodeId| self.answered.contains_key(id) || node.refused(*id);
        let waited = node.now.since(self.since) >= node.settings.failover_timeout;
        if (!waited && !self.others.iter().all(settled)) || !node.log.is_all_durable() {
            return;
        }
        let serving = self.answered.iter().find(|(_, serving)| **serving);
        let serving = serving.map(|(id, _)| *id);
        let acts = serving
            .filter(|_| !self.ignore)
            .map(|id| format!("node {id} acts as primary: switch over instead, or insist"));
        // It may have been taken out, or its disk replaced, while the others were asked.
        let outside = (!node.is_member()).then(|| "this node is no member any more".to_string());
        if let Some(why) = acts.or(outside) {
            self.answer(node, Err(Refusal::Invalid(why)));
            let patience = node.settings.failover_timeout;
            node.next = Some(Next::Backup { patience });
            return;
        }
        Mark::Forced.hit();
        let sync_set = node.config().sync_set.clone();
        self.kept = kept(node);
        let loss = self.loss(node);
        node.out.push(Effect::Forced { loss, sync_set });
        let config = self.founding_config(node);
        node.enter_history(config, true);
        let config = node.meta.config.clone();
        self.stage = Stage::Founding { config };
    }

    fn end_fencing(&mut self, node: &mut Node) {
        let Stage::Fencing { config } = &self.stage else {
            return;
        };
        let all = self.answered.keys().all(|id| self.fenced.contains(id));
        let waited = node.now.since(self.since) >= node.settings.failover_timeout;
        if all || waited {
            let config = config.clone();
            let report = self.report(node);
            self.answer(node, Ok(report));
            node.next = Some(Next::Primary { config });
        }
    }

    fn founding_config(&self, node: &Node) -> Config {
        let target = self.target();
        let mut config = Config::clone(node.config());
        config.ancestors = ancestors(&config, &node.log.epochs, node.log.commit, node.end());
        config.history = target.history;
        config.epoch = target.epoch;
        config.version = 1;
        config.nonce = self.attempt;
        config.primary = node.me;
        config.sync_set = BTreeSet::from([node.me]);
        config.voters = BTreeSet::from([node.me]);
        config.members.retain(|id, _| *id == node.me);
        for member in config.members.values_mut() {
            // It votes now, which an asynchronous member does not.
            member.role = crate::replication::config::MemberRole::Data;
            member.incarnation = node.meta.incarnation;
        }
        if config.protection == Protection::MaxProtection {
            // Alone it would serve nothing, and to serve is what was asked for.
            config.protection = Protection::MaxAvailability;
        }
        config.acks_needed = config.acks.needed(config.protection, 1);
        config
    }

    /// At least what somebody is known to have committed, and this node does not hold.
    fn loss(&self, node: &Node) -> Loss {
        Loss {
            history: node.history(),
            by: self.target(),
            first_lsn: self.kept.next(),
            last_lsn: self.commit.max(self.kept),
            committed: self.commit,
            possibly_acknowledged: true,
        }
    }

    /// What is known to be lost, for whoever has to answer for it.
    fn report(&self, node: &Node) -> String {
        let (end, history) = (node.end(), node.history());
        let lost = self.kept.distance_to(self.commit);
        let fenced: Vec<String> = self.fenced.iter().map(|id| format!("n{id}")).collect();
        format!(
            "primary of history {history} from {end} on; the last commit known of the old history \
             is {}, so at least {lost} acknowledged commands are not here; fenced: {}",
            self.commit,
            if fenced.is_empty() {
                "nobody".to_string()
            } else {
                fenced.join(", ")
            },
        )
    }

    fn resend(&mut self, node: &mut Node) {
        self.resend_at = node.now.after(node.settings.heartbeat_interval);
        let attempt = self.attempt;
        let fence = self.target();
        for id in &self.others {
            match self.stage {
                Stage::Sounding => node.send(*id, Body::Sound { attempt }),
                Stage::Fencing { .. } => node.send(*id, Body::Fence { fence, attempt }),
                Stage::Founding { .. } => {}
            }
        }
    }

    pub fn on_tick(&mut self, node: &mut Node) {
        if node.now >= self.resend_at {
            self.resend(node);
        }
        self.go_on(node);
    }

    pub fn deadline(&self) -> Time {
        self.resend_at
    }
}
