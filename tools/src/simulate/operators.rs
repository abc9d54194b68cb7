//! The operators of a world, who do what operators do at bad moments.
//!
//! Budget: one node of a run may be told to found a history of its own by force, since two that do
//! so at once leave it to people which of them is right; afterwards the others are told to rejoin.

use super::clients::{Claim, Written};
use super::plan;
use super::queue::Happening;
use super::random::Random;
use super::world::{CLUSTER_NAME, MS, World};
use standfast::node::client::{Answer, Control, Op, Request, SessionId};
use standfast::node::engine::Event;
use standfast::replication::config::{Acks, Protection};
use standfast::state::Reply;
use standfast_wal::{Lsn, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// Sessions of operators begin here; a client's are far below.
const SESSION: u64 = 1 << 62;

#[derive(Default)]
pub struct Operators {
    orders: u64,
    /// Who may be forced in this run, once that was drawn.
    founder: Option<usize>,
    /// What was asked, by the order's number.
    asked: BTreeMap<u64, Asked>,
    /// Nodes that were to be taken out, whatever came of that.
    pub removed: BTreeSet<usize>,
}

/// Questions whose answers are looked at.
#[derive(Clone, Copy)]
enum Asked {
    Outcome(Claim),
    Receipt(Written),
    WaitLsn(Lsn),
    Force,
}

impl World {
    pub fn operate(&mut self) -> Result<(), String> {
        let Some([low, high]) = self.plan.operator_pause else {
            return Ok(());
        };
        let wait = self.dice.nodes.between(low, high);
        self.after(wait.max(50 * MS), Happening::Operator);
        if self.calm.is_some() {
            return self.tell_to_rejoin();
        }
        let primary = self.primary_place();
        let anybody = self.dice.nodes.index(self.nodes.len());
        // Mostly where it is carried out; sometimes where it cannot be.
        let at = match primary {
            Some(primary) if !self.dice.nodes.one_in(6) => primary,
            _ => anybody,
        };
        match self.dice.nodes.below(16) {
            0..=3 => self.switch_over(at),
            4 | 5 => self.add(at),
            6 => self.remove(at),
            7 | 8 => {
                let acks = self.dice.nodes.pick(&[Acks::All, Acks::Majority]);
                let who = who();
                self.order(at, Control::SetAcks { acks, who })
            }
            9 | 10 => {
                let protection = self.dice.nodes.pick(&[
                    Protection::MaxProtection,
                    Protection::MaxAvailability,
                    Protection::MaxAvailability,
                    Protection::MaxPerformance,
                ]);
                let who = who();
                self.order(at, Control::SetProtection { protection, who })
            }
            11 | 12 => self.order(anybody, Control::Snapshot),
            13 => self.order(anybody, Control::Status),
            14 => self.force(anybody),
            _ => self.tell_to_rejoin(),
        }
    }

    /// A node has been taken into a newer history and has nothing of that yet: what it still has of
    /// the old one is not to pass for it.
    pub fn ask_between(&mut self, node: usize) -> Result<(), String> {
        self.order(node, Control::Snapshot)?;
        for claim in self.clients.last_writes() {
            let Claim {
                generation,
                epoch,
                lsn,
            } = claim;
            self.question(
                node,
                Asked::Outcome(claim),
                Control::Outcome {
                    generation,
                    epoch,
                    lsn,
                },
            )?;
            let timeout_ms = 1;
            let wait = Control::WaitLsn { lsn, timeout_ms };
            self.question(node, Asked::WaitLsn(lsn), wait)?;
        }
        self.ask_for_receipts(node)?;
        let mut random = Random::new(self.now);
        self.look_at(node, &mut random)
    }

    /// The register gets another version, if this node still has a say.
    pub fn change_something(&mut self, at: usize) -> Result<(), String> {
        let process = self.nodes[at].process.as_ref();
        let acks = process.map(|process| process.engine.replica().config().acks);
        let acks = match acks {
            Some(Acks::All) => Acks::Majority,
            _ => Acks::All,
        };
        let who = who();
        self.order(at, Control::SetAcks { acks, who })
    }

    /// Receipts of what the clients wrote last; of older histories, too.
    pub fn ask_for_receipts(&mut self, node: usize) -> Result<(), String> {
        for write in self.clients.last_places() {
            let receipt = Control::Receipt {
                write: write.place(),
            };
            self.question(node, Asked::Receipt(write), receipt)?;
        }
        Ok(())
    }

    fn question(&mut self, at: usize, asked: Asked, control: Control) -> Result<(), String> {
        let number = self.operators.orders + 1;
        self.operators.asked.insert(number, asked);
        self.order(at, control)
    }

    pub fn order(&mut self, at: usize, control: Control) -> Result<(), String> {
        self.operators.orders += 1;
        self.summary.orders += 1;
        self.say(|| format!("an operator at n{at}: {control:?}"));
        let session = SessionId(SESSION | self.operators.orders);
        let op = Op::Control(Box::new(control));
        let requests = vec![Request { seq: 1, op }];
        self.turn(at, vec![Event::Submit { session, requests }])
    }

    pub fn operator_answered(
        &mut self,
        node: usize,
        session: SessionId,
        answer: Answer,
    ) -> Result<(), String> {
        let number = session.0 & !SESSION;
        self.say(|| {
            let mut text = format!("{:?}", answer.reply);
            text.truncate(300);
            format!("n{node} answers order {number}: {text}")
        });
        self.digest.add(number);
        match self.operators.asked.remove(&number) {
            Some(asked) => self.take_word_at(node, asked, &answer),
            None => Ok(()),
        }
    }

    fn take_word_at(&mut self, node: usize, asked: Asked, answer: &Answer) -> Result<(), String> {
        let (nodes, reply) = (&self.nodes, &answer.reply);
        match asked {
            Asked::Outcome(claim) => {
                let told = self.observer.outcome(node, nodes, claim, reply);
                self.summary.outcomes += u64::from(told);
                Ok(())
            }
            Asked::Receipt(write) => {
                let place = (write.reign, write.lsn);
                self.observer.receipt(node, nodes, place, reply)
            }
            Asked::WaitLsn(lsn) => {
                let place = (lsn, answer.lsn);
                self.observer.waited_for(node, nodes, place, reply)
            }
            Asked::Force => {
                if let Reply::Bulk(text) = reply
                    && let Some(least) = lost_at_least(&String::from_utf8_lossy(text))
                {
                    self.observer.force_said(node, nodes, least)?;
                    let wait = self.dice.check.below(100 * MS);
                    self.after(wait, Happening::Founded { node });
                    self.trouble_in_founding(node);
                }
                self.observer.force_ended(node);
                Ok(())
            }
        }
    }

    fn switch_over(&mut self, at: usize) -> Result<(), String> {
        let to = match self.dice.nodes.one_in(3) {
            true => None,
            false => Some(self.dice.nodes.index(self.nodes.len())),
        };
        self.observer.may_join(to);
        let to = to.map(plan::id);
        let (who, why) = (who(), "a drill".to_string());
        self.order(at, Control::Switchover { to, who, why })
    }

    /// Takes in a node that is no member, by the operator's hand or by its own asking.
    fn add(&mut self, at: usize) -> Result<(), String> {
        let spares = self.plan.members..self.nodes.len();
        let mut outside: Vec<usize> = self.operators.removed.iter().copied().collect();
        outside.extend(spares);
        if outside.is_empty() {
            return Ok(());
        }
        let node = self.dice.nodes.pick(&outside);
        if !self.nodes[node].is_up() {
            self.nodes[node].introduction.asked = self.dice.nodes.one_in(2);
            self.queue.push(self.now, Happening::Restart { node });
        }
        let introduction = &self.nodes[node].introduction;
        let voter = introduction.voter;
        let member = plan::member(introduction, self.nodes[node].incarnation);
        let (id, who) = (plan::id(node), who());
        self.order(
            at,
            Control::AddMember {
                id,
                member,
                voter,
                who,
            },
        )
    }

    fn remove(&mut self, at: usize) -> Result<(), String> {
        let node = self.dice.nodes.index(self.nodes.len());
        // One at a time, and never so many that the rest is no cluster.
        if self.operators.removed.len() >= self.plan.members / 3 || node >= self.plan.members {
            return Ok(());
        }
        self.operators.removed.insert(node);
        let (id, who) = (NodeId(node as u32), who());
        self.order(at, Control::RemoveMember { id, who })
    }

    /// Nobody was told yet.
    pub fn may_found(&self) -> bool {
        self.plan.may_force
            && self.plan.operator_pause.is_some()
            && self.operators.founder.is_none()
    }

    /// It is this node and no other that will be told.
    pub fn will_found(&mut self, node: usize) {
        self.operators.founder = Some(node);
    }

    /// Somebody loses patience, rightly or not.
    pub fn force(&mut self, node: usize) -> Result<(), String> {
        if !self.plan.may_force || self.calm.is_some() {
            return Ok(());
        }
        let founder = *self.operators.founder.get_or_insert(node);
        if !self.nodes[founder].is_up() {
            return Ok(());
        }
        self.observer.forced(founder);
        let ignore_old_primary = self.dice.nodes.one_in(2);
        let confirm = match self.dice.nodes.one_in(5) {
            true => String::new(),
            false => CLUSTER_NAME.to_string(),
        };
        let (who, why) = (who(), "the primary's site is gone".to_string());
        self.question(
            founder,
            Asked::Force,
            Control::ForcePromote {
                confirm,
                ignore_old_primary,
                who,
                why,
            },
        )
    }

    /// Whoever lives in a history that was ended follows the newer one.
    pub fn tell_to_rejoin(&mut self) -> Result<(), String> {
        let generation_of = |world: &World, node: usize| {
            let process = world.nodes[node].process.as_ref()?;
            Some(process.engine.replica().history().generation)
        };
        let all = (0..self.nodes.len()).filter_map(|node| generation_of(self, node));
        let Some(newest) = all.max().filter(|newest| *newest > 1) else {
            return Ok(());
        };
        for node in 0..self.nodes.len() {
            let Some(process) = &self.nodes[node].process else {
                continue;
            };
            // A node without data follows any history by itself, but nobody takes it in unasked.
            let is_known = node < self.plan.members && !self.operators.removed.contains(&node);
            let is_stranger = is_known && process.engine.replica().is_stranger();
            if generation_of(self, node) < Some(newest) || is_stranger {
                let (who, why) = (who(), "one history".to_string());
                self.order(node, Control::Rejoin { who, why })?;
            }
        }
        Ok(())
    }
}

fn who() -> String {
    "sim".to_string()
}

/// What a forced promotion says of what it lost: "at least so many acknowledged commands".
fn lost_at_least(text: &str) -> Option<u64> {
    // A status repeats what was said of an earlier one.
    let (_, rest) = text
        .strip_prefix("{\"done\":\"primary of ")?
        .split_once("so at least ")?;
    rest.split(' ').next()?.parse().ok()
}
