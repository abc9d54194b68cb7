//! What operators want of the primary: switchover, membership, acks, protection; and what nodes
//! want that ask to be taken in. Each order becomes one change of the register after another,
//! until the Config shows what was wanted.

use crate::replication::config::{Config, Member, MemberRole, Protection};
use crate::replication::io::{Effect, Order, StopReason};
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::primary::Primary;
use crate::replication::register::VOTERS_MAX;
use crate::replication::time::Time;
use crate::replication::view::Refusal;
use standfast_wal::{Incarnation, Mark, NodeId};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Orders that may wait behind the one that is carried out.
const ORDERS_MAX: usize = 16;
/// An order that got nowhere for so long is given up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Wish {
    Operator {
        ticket: u64,
        order: Order,
    },
    /// A node that asked by itself.
    TakeIn {
        id: NodeId,
        member: Member,
        voter: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Orders {
    waiting: VecDeque<(Time, Wish)>,
    /// Who was turned away last, and why: it goes on asking, and is told of once.
    turned_away: Option<(NodeId, String)>,
}

/// What is to be done next for an order.
enum Step {
    Done(String),
    Refuse(String),
    /// Take this member out of the sync set first.
    Evict(NodeId),
    Propose(Box<Config>),
}

/// A switchover under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct HandOver {
    ticket: u64,
    to: NodeId,
    since: Time,
    /// Writes are no longer admitted.
    draining: bool,
    resend_at: Time,
}

impl HandOver {
    pub fn draining(&self) -> Option<NodeId> {
        self.draining.then_some(self.to)
    }
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::Invalid(text.into())
}

impl Primary {
    pub fn on_order(&mut self, node: &mut Node, ticket: u64, order: Order) {
        if let Order::Switchover { to } = order {
            return self.begin_handover(node, ticket, to);
        }
        if matches!(order, Order::ForcePromote { .. } | Order::Rejoin) {
            let why = invalid("this node is primary; it needs no force");
            return node.out.push(Effect::Answer(ticket, Err(why)));
        }
        if self.orders.waiting.len() >= ORDERS_MAX {
            let why = invalid("too many orders are waiting; try again");
            return node.out.push(Effect::Answer(ticket, Err(why)));
        }
        self.orders
            .waiting
            .push_back((node.now, Wish::Operator { ticket, order }));
        self.plan(node);
    }

    /// A node whose incarnation is not named asks to be taken in.
    pub fn on_join(&mut self, node: &mut Node, id: NodeId, life: Incarnation, said: Body) {
        let Body::Join {
            role,
            voter,
            site,
            priority,
            addresses,
            asked,
        } = said
        else {
            unreachable!("dispatched by its kind");
        };
        let config = node.meta.config.clone();
        if config.names(id, life) {
            return node.send(id, Body::Configured { config });
        }
        let known = config.members.get(&id);
        if known.is_none() && !asked {
            return; // Removed, or never added: an operator decides.
        }
        let alive = |member: &Member| {
            let peer = self.peers.get(&id);
            peer.is_some_and(|peer| {
                peer.incarnation == member.incarnation
                    && peer.silent(node.now) < node.settings.heartbeat_interval * 2
            })
        };
        if id == node.me || known.is_some_and(alive) {
            return node.event(format!("a second n{id} asks to be taken in: refused"));
        }
        // A known id keeps its role and its seat: only the disk is new.
        let role = known.map_or(role, |member| member.role);
        // After a forced promotion of a node that did not vote before there may be no seat for all:
        // a copy without a vote is better than none.
        let free = config.voters.len() < VOTERS_MAX || role == MemberRole::Witness;
        let voter = known.map_or(voter && free, |_| config.voters.contains(&id));
        let member = Member {
            incarnation: life,
            role,
            site,
            priority,
            addresses,
        };
        let wish = Wish::TakeIn { id, member, voter };
        // Of a disk that was lost again before it was taken in nothing is wanted any more.
        self.orders.waiting.retain(|(_, other)| {
            *other == wish || !matches!(other, Wish::TakeIn { id: same, .. } if *same == id)
        });
        let queued = self.orders.waiting.iter().any(|(_, other)| *other == wish);
        if !queued && self.orders.waiting.len() < ORDERS_MAX {
            self.orders.waiting.push_back((node.now, wish));
            self.plan(node);
        }
    }

    /// Does the next step of the first order. True when a change is under way.
    pub fn follow_orders(&mut self, node: &mut Node) -> bool {
        while let Some((since, wish)) = self.orders.waiting.front().cloned() {
            let step = step_of(node, &wish);
            let late = node.now.since(since) >= ORDER_TIMEOUT;
            let under_way = match step {
                Step::Done(text) => {
                    self.answer_first(node, Ok(text));
                    continue;
                }
                Step::Refuse(why) => {
                    self.note_turned_away(node, &wish, &why);
                    self.answer_first(node, Err(invalid(why)));
                    continue;
                }
                Step::Evict(id) => self.evict_by_order(node, id),
                Step::Propose(config) => self.propose(node, *config, BTreeSet::new()),
            };
            if under_way || !late {
                return under_way;
            }
            let why = "not possible now: too few members have caught up, or too few voters answer";
            self.answer_first(node, Err(invalid(why)));
        }
        false
    }

    /// A change was given up because voters that it needs are silent: an order that is late by now
    /// would only be tried again for ever, and hold up all behind it.
    pub fn on_change_unready(&mut self, node: &mut Node) {
        let first = self.orders.waiting.front();
        if first.is_some_and(|(since, _)| node.now.since(*since) >= ORDER_TIMEOUT) {
            let why = "not possible now: the voters that it needs do not answer";
            self.answer_first(node, Err(invalid(why)));
        }
    }

    fn note_turned_away(&mut self, node: &mut Node, wish: &Wish, why: &str) {
        let Wish::TakeIn { id, .. } = wish else {
            return;
        };
        let told = Some((*id, why.to_string()));
        if self.orders.turned_away != told {
            node.event(format!("n{id} asks to be taken in and is not: {why}"));
            self.orders.turned_away = told;
        }
    }

    fn answer_first(&mut self, node: &mut Node, result: Result<String, Refusal>) {
        if let Some((_, Wish::Operator { ticket, .. })) = self.orders.waiting.pop_front() {
            node.out.push(Effect::Answer(ticket, result));
        }
    }

    /// Whether an order is about to take this member out: it must not come back in between.
    pub fn is_leaving(&self, id: NodeId) -> bool {
        self.orders.waiting.iter().any(|(_, wish)| match wish {
            Wish::Operator {
                order: Order::RemoveMember { id: leaving },
                ..
            }
            | Wish::TakeIn { id: leaving, .. } => *leaving == id,
            Wish::Operator { .. } => false,
        })
    }

    /// Members whose nodes have come back with another disk.
    pub fn replaced(&self, node: &Node) -> BTreeSet<NodeId> {
        let members = &node.config().members;
        let other = |wish: &Wish| match wish {
            Wish::TakeIn { id, member, .. } => members
                .get(id)
                .is_some_and(|known| known.incarnation != member.incarnation)
                .then_some(*id),
            Wish::Operator { .. } => None,
        };
        let waiting = self.orders.waiting.iter();
        waiting.filter_map(|(_, wish)| other(wish)).collect()
    }

    /// The role ends: what was ordered and not answered is answered now.
    pub fn end_orders(&mut self, node: &mut Node, reason: StopReason) {
        for (_, wish) in std::mem::take(&mut self.orders.waiting) {
            if let Wish::Operator { ticket, .. } = wish {
                let why = invalid("this node is primary no longer; look at the new one's status");
                node.out.push(Effect::Answer(ticket, Err(why)));
            }
        }
        if let Some(handover) = self.handover.take() {
            let result = match reason {
                StopReason::HandedOver { to } => {
                    Mark::SwitchoverDone.hit();
                    Ok(format!("node {to} takes over"))
                }
                _ => Err(invalid(
                    "another node took over than the one that was chosen",
                )),
            };
            node.out.push(Effect::Answer(handover.ticket, result));
        }
    }

    // Switchover

    fn begin_handover(&mut self, node: &mut Node, ticket: u64, to: Option<NodeId>) {
        let result = self.successor(node, to);
        match result {
            _ if self.handover.is_some() || !self.serving => {
                let why = invalid("a switchover or a takeover is under way already");
                node.out.push(Effect::Answer(ticket, Err(why)));
            }
            Err(why) => node.out.push(Effect::Answer(ticket, Err(invalid(why)))),
            Ok(to) => {
                let (since, resend_at) = (node.now, node.now);
                self.handover = Some(HandOver {
                    ticket,
                    to,
                    since,
                    draining: false,
                    resend_at,
                });
                self.plan(node);
            }
        }
    }

    fn successor(&self, node: &Node, to: Option<NodeId>) -> Result<NodeId, String> {
        let able = |id: NodeId| {
            let peer = self.peers.get(&id);
            peer.is_some_and(|peer| peer.role.holds_data() && node.up(id) && !peer.disowned)
        };
        let Some(id) = to else {
            return self
                .best_successor(node)
                .ok_or_else(|| "no synchronous backup is connected".to_string());
        };
        if id == node.me {
            Err(format!("node {id} is primary already"))
        } else if !able(id) {
            Err(format!("node {id} is no connected data node"))
        } else {
            Ok(id)
        }
    }

    /// Who would be promoted if this node died now.
    pub fn best_successor(&self, node: &Node) -> Option<NodeId> {
        let there = |id: &NodeId| *id != node.me && node.up(*id) && !self.is_lost(node, *id);
        let members = &node.config().members;
        let preference = |id: &NodeId| (members.get(id).map(|member| member.priority), *id);
        self.rule
            .set
            .iter()
            .copied()
            .filter(there)
            .min_by_key(preference)
    }

    pub fn handover_target(&self) -> Option<NodeId> {
        self.handover.as_ref().map(|handover| handover.to)
    }

    /// A target that has yet to come into the sync set.
    pub fn handover_candidate(&self) -> Option<NodeId> {
        self.handover_target()
            .filter(|to| !self.rule.set.contains(to))
    }

    /// From here on the sync set is left alone.
    pub fn is_handing_over(&self) -> bool {
        self.handover
            .as_ref()
            .is_some_and(|handover| handover.draining)
    }

    /// Drives the switchover: into the set, drain, hand over; or back to work when it takes long.
    pub fn mind_handover(&mut self, node: &mut Node) {
        let ready = self.handover_candidate().is_none() && self.change.is_none();
        let Some(handover) = &mut self.handover else {
            return;
        };
        let gone = handover.draining && !node.up(handover.to);
        if gone || node.now.since(handover.since) >= node.settings.switchover_timeout {
            Mark::SwitchoverAborted.hit();
            let (ticket, to) = (handover.ticket, handover.to);
            self.handover = None;
            let why = invalid(format!(
                "node {to} did not take over in time; nothing has changed"
            ));
            return node.out.push(Effect::Answer(ticket, Err(why)));
        }
        if !ready {
            return;
        }
        handover.draining = true;
        let (to, end) = (handover.to, node.end());
        if node.now < handover.resend_at {
            return;
        }
        // Everything that got an LSN is committed, and the successor holds it.
        if node.log.commit == end && self.matched_of(node, to) == end {
            let epoch = self.reign.epoch;
            node.send(to, Body::HandOver { epoch, tip: end });
            let resend_at = node.now.after(node.settings.heartbeat_interval);
            if let Some(handover) = &mut self.handover {
                handover.resend_at = resend_at;
            }
        }
    }
}

/// The next step of an order, from what the Config shows: done when it shows what was wanted.
fn step_of(node: &Node, wish: &Wish) -> Step {
    let config = node.config();
    match wish {
        Wish::TakeIn { id, member, voter } => take_in(config, *id, member, *voter),
        Wish::Operator { order, .. } => match order {
            Order::AddMember { id, member, voter } => take_in(config, *id, member, *voter),
            Order::RemoveMember { id } => remove(config, node.me, *id),
            Order::SetAcks(acks) if config.acks == *acks => Step::Done("done".into()),
            Order::SetAcks(acks) => {
                let mut next = Config::clone(config);
                next.acks = *acks;
                next.acks_needed = acks.needed(next.protection, next.sync_set.len());
                Step::Propose(Box::new(next))
            }
            Order::SetProtection(protection) => protect(config, node.me, *protection),
            Order::Switchover { .. } | Order::ForcePromote { .. } | Order::Rejoin => {
                Step::Refuse("not an order for the register".into())
            }
        },
    }
}

fn take_in(config: &Config, id: NodeId, member: &Member, voter: bool) -> Step {
    let seated = config.voters.contains(&id);
    match config.members.get(&id) {
        Some(known) if known.incarnation == member.incarnation && seated == voter => {
            return Step::Done(format!("node {id} is a member"));
        }
        // The predecessor may be the only holder of something: not while it counts.
        Some(known) if known.incarnation != member.incarnation && config.sync_set.contains(&id) => {
            return Step::Evict(id);
        }
        _ => {}
    }
    match member.role {
        MemberRole::Witness if !voter => return Step::Refuse("a witness has to be a voter".into()),
        MemberRole::Asynchronous if voter => {
            return Step::Refuse("an asynchronous backup does not vote".into());
        }
        _ if voter && !seated && config.voters.len() >= VOTERS_MAX => {
            return Step::Refuse(format!(
                "there are {VOTERS_MAX} voters already; remove one first"
            ));
        }
        _ => {}
    }
    Mark::TookIn.hit();
    let mut next = Config::clone(config);
    next.members.insert(id, member.clone());
    if voter {
        next.voters.insert(id);
    } else {
        next.voters.remove(&id);
    }
    with_voters(next, id)
}

/// The register takes no Config that nobody could decide after.
fn with_voters(next: Config, without: NodeId) -> Step {
    if next.voters.is_empty() {
        return Step::Refuse(format!(
            "node {without} is the only voter: give another one a vote first"
        ));
    }
    Step::Propose(Box::new(next))
}

fn remove(config: &Config, me: NodeId, id: NodeId) -> Step {
    if id == me {
        return Step::Refuse("this node is primary: switch over first".into());
    }
    if !config.members.contains_key(&id) {
        return Step::Done(format!("node {id} is no member"));
    }
    if config.sync_set.contains(&id) {
        let left = config.lasting(Some(id));
        let lasts = left < config.lasting(None);
        let is_needed = config.sync_set.len() <= 2 || (lasts && left < 2);
        if config.protection == Protection::MaxProtection && is_needed {
            return Step::Refuse("max-protection needs two data nodes in the sync set".into());
        }
        return Step::Evict(id);
    }
    let mut next = Config::clone(config);
    next.members.remove(&id);
    next.voters.remove(&id);
    with_voters(next, id)
}

fn protect(config: &Config, me: NodeId, protection: Protection) -> Step {
    if config.protection == protection {
        return Step::Done("done".into());
    }
    let mut next = Config::clone(config);
    next.protection = protection;
    match protection {
        Protection::MaxPerformance => next.sync_set = BTreeSet::from([me]),
        Protection::MaxProtection if config.lasting(None) < 2 => {
            return Step::Refuse(
                "max-protection needs two data nodes in the sync set (an asynchronous member is \
                 there for a switchover only): bring one back first"
                    .into(),
            );
        }
        Protection::MaxProtection | Protection::MaxAvailability => {}
    }
    next.acks_needed = next.acks.needed(protection, next.sync_set.len());
    Step::Propose(Box::new(next))
}
