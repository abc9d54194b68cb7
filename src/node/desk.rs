//! The rare operations of clients and operators: questions, orders, waits, forwarding, losses.
//!
//! Owns who waits for which of them, the event list and the loss statements to be written. All of
//! it is bounded: events by count, waits by their own timeouts, forwarded commands by the
//! sessions'.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod forward;
mod questions;

use crate::limits;
use crate::node::client::{Answer, Control, Place, SessionId};
use crate::node::engine::{Engine, Output};
use crate::node::pending::{Client, Pending};
use crate::node::refusal::Refusal;
use crate::node::statement::Statement;
use crate::node::wire::{ForwardReply, Head};
use crate::replication::config::Config;
use crate::replication::{Fence, Input, Order, Time};
use crate::state::Reply;
use serde_json::json;
use standfast_wal::{Epoch, History, Kind, Lsn, Mark, NodeId, Record};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

#[derive(Debug)]
enum Wait {
    /// WAITLSN: until applied.
    Applied { lsn: Lsn },
    /// WAIT: until so many other members hold it.
    Copies { write: Option<Place>, copies: u32 },
}

#[derive(Debug)]
struct Waiting {
    client: Client,
    until: Time,
    wait: Wait,
}

/// One line of the event list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub wall: u64,
    pub text: String,
}

#[derive(Debug, Default)]
pub struct Desk {
    events: VecDeque<Entry>,
    orders: BTreeMap<u64, Option<Client>>,
    next_ticket: u64,
    silent: Option<u64>,
    silent_failed: bool,
    waits: Vec<Waiting>,
    /// Cuts whose removed records have not come yet, in order.
    cuts: VecDeque<Statement>,
    /// Commands of this node's clients that were passed on, by ticket.
    forwarded: BTreeMap<u64, Passed>,
    /// Tickets of other nodes' clients: the session number says the node, the ticket the rest.
    losses: u64,
}

/// A command that was passed on and is not answered yet.
#[derive(Debug)]
struct Passed {
    to: NodeId,
    client: Client,
    since: Time,
    /// The registered epoch then.
    epoch: Epoch,
}

/// Sessions that stand for another node's clients have this bit set; the node is below it.
const FORWARDED_SESSION: u64 = 1 << 63;

impl Desk {
    pub fn note(&mut self, wall: u64, text: &str) {
        self.events.push_back(Entry {
            wall,
            text: text.to_string(),
        });
        if self.events.len() > limits::EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    pub fn events(&self) -> impl Iterator<Item = &Entry> {
        self.events.iter()
    }

    /// How many loss statements this process has written.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    fn ticket(&mut self, client: Option<Client>) -> u64 {
        self.next_ticket += 1;
        self.orders.insert(self.next_ticket, client);
        self.next_ticket
    }

    /// For the switchover of a process that stops: nobody waits for its answer.
    pub fn silent_ticket(&mut self) -> u64 {
        let ticket = self.ticket(None);
        self.silent = Some(ticket);
        ticket
    }

    pub fn silent_order_failed(&self) -> bool {
        self.silent_failed
    }

    pub fn deadline(&self) -> Option<Time> {
        self.waits.iter().map(|waiting| waiting.until).min()
    }

    /// A cut begins: what is known of it before the records are at hand.
    pub fn cutting(&mut self, statement: Statement) {
        self.cuts.push_back(statement);
    }

    /// The records of the oldest cut: its loss statement can be written.
    pub fn removed(&mut self, removed: &[Record], out: &mut Vec<Output>) {
        if let Some(mut statement) = self.cuts.pop_front() {
            statement.list(removed);
            self.state_loss(&statement, out);
        }
    }

    /// A loss statement is written, or again with more in it.
    pub fn state_loss(&mut self, statement: &Statement, out: &mut Vec<Output>) {
        self.losses += 1;
        out.push(Output::LossStatement {
            name: statement.file_name(),
            text: statement.to_json(),
        });
    }

    pub fn operator_record(&mut self, record: &Record) {
        let text = String::from_utf8_lossy(&record.payload()).into_owned();
        self.note(record.timestamp(), &format!("operator: {text}"));
    }

    /// The link to `peer` broke: what was passed on to it has an unknown outcome.
    pub fn lost_link(&mut self, peer: NodeId, pending: &mut Pending) {
        self.give_up(pending, |passed| passed.to == peer);
    }

    /// What was passed on to one that has been succeeded, or that has not answered for too long,
    /// has an unknown outcome: the link to a node that hangs may stand for ever.
    pub fn mind_forwarded(
        &mut self,
        pending: &mut Pending,
        config: &Config,
        now: Time,
        timeout: Duration,
    ) {
        self.give_up(pending, |passed| {
            let succeeded = config.epoch > passed.epoch && config.primary != passed.to;
            succeeded || now.since(passed.since) >= timeout
        });
    }

    fn give_up(&mut self, pending: &mut Pending, hopeless: impl Fn(&Passed) -> bool) {
        if self.forwarded.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.forwarded);
        let (lost, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(_, passed)| hopeless(passed));
        self.forwarded = kept;
        for passed in lost.into_values() {
            Mark::ForwardLost.hit();
            let (generation, epoch, lsn) = (0, Epoch(0), Lsn::ZERO);
            pending.refuse(
                passed.client,
                Refusal::Unknown {
                    generation,
                    epoch,
                    lsn,
                },
            );
        }
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Engine {
    pub(super) fn on_control(&mut self, client: Client, control: Control) {
        match control {
            Control::Outcome {
                generation,
                epoch,
                lsn,
            } => {
                let reply = self.outcome(generation, epoch, lsn);
                self.tell(client, reply);
            }
            Control::WaitLsn { lsn, timeout_ms } => {
                self.wait(client, timeout_ms, Wait::Applied { lsn });
            }
            Control::Wait {
                write,
                copies,
                timeout_ms,
            } => {
                self.wait(client, timeout_ms, Wait::Copies { write, copies });
            }
            Control::Receipt { write } => {
                let reply = self.receipt(write);
                self.tell(client, reply);
            }
            Control::Seen {
                generation,
                history_id: id,
                epoch,
                lsn,
            } => {
                let history = History { generation, id };
                let reply = self.seen(Fence { history, epoch }, lsn);
                self.tell(client, reply);
            }
            Control::Digest { slots } => {
                let reply = self.digest_reply(slots);
                self.tell(client, reply);
            }
            Control::Status => {
                let text = self.status().to_string();
                self.tell(client, Reply::Bulk(text.into()));
            }
            Control::SetMaxMemory { bytes, who } => {
                self.settings.max_memory = bytes;
                self.note(format!("max_memory is {bytes} bytes now, by {who}"));
                self.tell(client, Reply::Ok);
            }
            Control::BackupNow { to, who } => self.back_up(client, to, who),
            Control::Snapshot => {
                let refusal = if self.is_witness {
                    Refusal::Operator("a witness has no data; ask a data node".to_string())
                } else if self.copies.is_running() {
                    Refusal::Busy { what: "a snapshot" }
                } else {
                    return self.copies.want(Some(client));
                };
                self.pending.refuse(client, refusal);
            }
            Control::Shutdown => self.handle_shutdown(client),
            order => self.order(client, order),
        }
    }

    fn handle_shutdown(&mut self, client: Client) {
        let now = self.now;
        let event = crate::node::engine::Event::Shutdown {
            client: Some(client),
        };
        self.handle(now, event);
    }

    fn tell(&mut self, client: Client, reply: Reply) {
        let lsn = self.state.applied().lsn;
        self.pending.answer(client, lsn, reply);
    }

    fn back_up(&mut self, client: Client, to: String, who: String) {
        let why = if self.is_witness {
            "a witness has no data to back up; ask a data node"
        } else if self.settings.quarantined {
            "this is a restored copy that is not activated: its backup would be taken for the \
             newest history of its cluster; `standfast activate`"
        } else {
            return self.copies.want_backup(client, to, who);
        };
        let refusal = Refusal::Operator(why.to_string());
        self.pending.refuse(client, refusal);
    }

    /// An operator's order: a record in the log with who and why, then the deed.
    fn order(&mut self, client: Client, control: Control) {
        let (what, who, why, order) = match control {
            Control::Switchover { to, who, why } => {
                ("switchover", who, why, Order::Switchover { to })
            }
            Control::ForcePromote {
                confirm,
                ignore_old_primary,
                who,
                why,
            } => {
                if confirm != self.identity.cluster_name {
                    let text = self.force_warning();
                    return self.pending.refuse(client, Refusal::Operator(text));
                }
                (
                    "promote --force",
                    who,
                    why,
                    Order::ForcePromote { ignore_old_primary },
                )
            }
            Control::Rejoin { who, why } => ("rejoin", who, why, Order::Rejoin),
            Control::AddMember { .. } if self.settings.quarantined => {
                return self.pending.refuse(client, Refusal::Quarantined);
            }
            Control::AddMember {
                id,
                member,
                voter,
                who,
            } => (
                "member add",
                who,
                String::new(),
                Order::AddMember { id, member, voter },
            ),
            Control::RemoveMember { id, who } => (
                "member remove",
                who,
                String::new(),
                Order::RemoveMember { id },
            ),
            Control::SetAcks { acks, who } => {
                ("set acks", who, String::new(), Order::SetAcks(acks))
            }
            Control::SetProtection { protection, who } => (
                "set protection",
                who,
                String::new(),
                Order::SetProtection(protection),
            ),
            other => unreachable!("{other:?} is no order"),
        };
        let payload =
            json!({ "what": what, "order": format!("{order:?}"), "who": who, "why": why });
        self.close_batch();
        if self.replica.is_primary() {
            // Where nothing can be ordered now, the order itself is still tried and noted.
            let _ = self.propose(Kind::Operator, 1, payload.to_string().as_bytes());
        }
        self.note(format!("{what} asked for by {who}"));
        let ticket = self.desk.ticket(Some(client));
        self.step(Input::Operator { ticket, order });
    }

    pub(super) fn on_order_done(
        &mut self,
        ticket: u64,
        result: Result<String, crate::replication::Refusal>,
    ) {
        if self.desk.silent == Some(ticket) {
            self.desk.silent_failed = result.is_err();
        }
        let Some(client) = self.desk.orders.remove(&ticket) else {
            return;
        };
        match result {
            Ok(text) => {
                self.note(text.clone());
                let Some(client) = client else { return };
                let reply = json!({ "done": text }).to_string();
                self.tell(client, Reply::Bulk(reply.into()));
            }
            Err(refusal) => {
                let refusal = self.refusal(refusal);
                self.note(format!("an order was not carried out: {refusal}"));
                if let Some(client) = client {
                    self.pending.refuse(client, refusal);
                }
            }
        }
    }

    fn wait(&mut self, client: Client, timeout_ms: u64, wait: Wait) {
        // Redis: 0 waits for ever. Here for as long as any write may wait, at least.
        let timeout = match timeout_ms {
            0 => limits::WAIT_MAX,
            ms => millis(ms).min(limits::WAIT_MAX),
        };
        let until = self.time().after(timeout);
        self.desk.waits.push(Waiting {
            client,
            until,
            wait,
        });
    }

    pub(super) fn desk_turn(&mut self) {
        if self.desk.waits.is_empty() {
            return;
        }
        let now = self.time();
        let waits = std::mem::take(&mut self.desk.waits);
        for waiting in waits {
            let (done, answer) = match waiting.wait {
                Wait::Applied { lsn } => {
                    let is_own = self.replica.has_own_log();
                    let done = is_own && self.state.applied().lsn >= lsn;
                    (done, i64::from(done))
                }
                Wait::Copies { write, copies } => {
                    let others = self.other_copies(write);
                    (others >= copies, i64::from(others))
                }
            };
            if done || waiting.until <= now {
                self.tell(waiting.client, Reply::Int(answer));
            } else {
                self.desk.waits.push(waiting);
            }
        }
    }

    /// This turn's answers to this node's own sessions; those of others go back as frames.
    pub(super) fn take_answers(&mut self) -> Vec<(SessionId, Answer)> {
        let mut answers = self.pending.take_answers();
        if answers
            .iter()
            .all(|(session, _)| session.0 & FORWARDED_SESSION == 0)
        {
            return answers;
        }
        let mut back: BTreeMap<NodeId, Vec<ForwardReply>> = BTreeMap::new();
        answers.retain(|(session, answer)| {
            if session.0 & FORWARDED_SESSION == 0 {
                return true;
            }
            let to = NodeId(u32::try_from(session.0 & !FORWARDED_SESSION).unwrap_or(u32::MAX));
            let mut reply = Vec::new();
            answer.reply.encode(&mut reply);
            back.entry(to).or_default().push(ForwardReply {
                ticket: answer.seq,
                lsn: answer.lsn,
                epoch: answer.epoch.0,
                generation: answer.generation,
                reply: reply.into(),
            });
            false
        });
        for (to, replies) in back {
            self.send(to, Head::Replied { replies });
        }
        answers
    }
}
