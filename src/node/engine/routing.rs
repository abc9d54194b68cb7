//! The way out of the core and in from the links: steps, their effects, and what peers say.

use super::{Engine, LogFault, Output};
use crate::limits;
use crate::node::link::LinkEvent;
use crate::node::refusal::Refusal;
use crate::node::statement::Statement;
use crate::node::wire::{Frame, Head};
use crate::replication::{Effect, Input, Loss, Meta, StopReason, Time};
use bytes::Bytes;
use standfast_wal::scribe::Command;
use standfast_wal::{Link, Lsn, NodeId, Record};

impl Engine {
    /// Steps the core and routes what it wants done.
    pub(in crate::node) fn step(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.replica.step(Time(self.now.boot), input, &mut effects);
        for effect in effects.drain(..) {
            self.route(effect);
        }
        self.effects = effects;
    }

    fn route(&mut self, effect: Effect) {
        match effect {
            Effect::Append(record) => self.give_log(Command::Append(record)),
            Effect::Cut { after, loss } => {
                self.on_cut(after, loss);
                self.give_log(Command::Cut(after));
            }
            Effect::Forced { loss, sync_set } => {
                let (wall, node) = (self.now.wall, self.identity.node);
                let statement = Statement::of_force(wall, node, loss, &sync_set);
                self.desk.state_loss(&statement, &mut self.out);
            }
            Effect::NothingLost(loss) => {
                let (wall, node) = (self.now.wall, self.identity.node);
                let statement = Statement::of_nothing(wall, node, loss);
                self.out.push(Output::LossStatement {
                    name: statement.file_name(),
                    text: statement.to_json(),
                });
            }
            Effect::Roll(history) => self.give_log(Command::Roll(history)),
            Effect::Send(to, message) => self.send_core(to, message),
            Effect::Persist(meta, serial) => self.store_meta(meta, serial),
            Effect::ReadLog {
                to,
                after,
                max_bytes,
            } => self.read_log(to, after, max_bytes),
            Effect::SendSnapshot { to, at_least } => self.offer_snapshot(to, at_least),
            Effect::AcceptSnapshot { from } => self.accept_snapshot(from),
            Effect::RefuseSnapshot { from, why } => self.refuse_snapshot(from, &why),
            Effect::InstallSnapshot { head, loss } => self.install_snapshot(&head, loss),
            // What may be applied is read from the core at the end of the turn.
            Effect::Committed(_) => {}
            Effect::Confirmed(round) => {
                self.confirmed = round;
                self.pending.confirmed(round);
            }
            Effect::Serving { epoch } => self.on_serving(epoch),
            Effect::StopServing(reason) => self.on_stop_serving(reason),
            Effect::NewConfig => {
                self.tell_peers();
                self.show_now = true;
            }
            Effect::Answer(ticket, result) => self.on_order_done(ticket, result),
            Effect::Event(text) => self.note(text),
            Effect::DrawRandom => self.out.push(Output::Random),
            Effect::Halt(story) => self.halt(story),
        }
    }

    pub(in crate::node) fn give_log(&mut self, command: Command) {
        self.undone.given(&command, self.time());
        self.out.push(Output::ToLog(command));
    }

    /// A node stays suspect until neither its meta file nor its log says so: a crash between the
    /// two leaves it suspect, which is safe.
    fn store_meta(&mut self, meta: Box<Meta>, serial: u64) {
        if !meta.suspect && std::mem::take(&mut self.is_log_suspect) {
            self.give_log(Command::Trust);
        }
        self.out.push(Output::StoreMeta { meta, serial });
    }

    pub(in crate::node) fn halt(&mut self, story: String) {
        self.out.push(Output::Halt(story));
    }

    /// Puts a line into the event list and the log.
    pub(in crate::node) fn note(&mut self, text: String) {
        self.desk.note(self.now.wall, &text);
        self.show_now = true;
        self.out.push(Output::Log(text));
    }

    pub(in crate::node) fn emit(&mut self, output: Output) {
        self.out.push(output);
    }

    fn send_core(&mut self, to: NodeId, mut message: crate::replication::Message) {
        let records = message.take_records();
        let head = Head::Core { message };
        self.send_frame(to, Frame { head, records });
    }

    pub(in crate::node) fn send(&mut self, to: NodeId, head: Head) {
        self.send_frame(to, Frame::plain(head));
    }

    fn send_frame(&mut self, to: NodeId, frame: Frame) {
        if !self.settings.quarantined {
            self.out.push(Output::Send { to, frame });
        }
    }

    pub(super) fn on_link(&mut self, event: LinkEvent) {
        use crate::replication::LinkEvent as Core;
        // A restored copy hears and says nothing until it is activated. Its history is a newer one:
        // a cluster that lives on, at the addresses in its settings or come to its own, would take
        // it for its future, and end. A newcomer asks again.
        if self.settings.quarantined {
            return;
        }
        match event {
            LinkEvent::Up { peer, hello } => {
                self.found_link(peer);
                self.step(Input::Link(peer, Core::Up(hello.incarnation)));
            }
            LinkEvent::Down { peer } => {
                self.lost_link(peer);
                self.step(Input::Link(peer, Core::Down));
            }
            LinkEvent::Refused { peer } => self.step(Input::Link(peer, Core::Refused)),
            LinkEvent::Frame {
                from,
                incarnation,
                frame,
            } => match frame.head {
                Head::Core { mut message } => {
                    self.learn_address(from, &message.body);
                    message.set_records(frame.records);
                    self.step(Input::Message {
                        from,
                        incarnation,
                        message,
                    });
                }
                Head::Forward { commands } => self.on_forward(from, commands),
                Head::Replied { replies } => self.on_replied(from, replies),
                Head::Copy(piece) => self.on_piece(from, piece),
                Head::Archive(note) => self.on_archive_note(from, note),
                // The link itself has dealt with these.
                Head::Hello(_) | Head::Refused(_) => {}
            },
        }
    }

    /// A newcomer says where it is reached: it is in nobody's settings and in no Config yet.
    fn learn_address(&mut self, from: NodeId, body: &crate::replication::Body) {
        let crate::replication::Body::Join { addresses, .. } = body else {
            return;
        };
        let known = self.settings.seeds.get(&from) == Some(&addresses.peer);
        let bounded = self.settings.seeds.len() < limits::MEMBERS_MAX;
        if !known && bounded && !addresses.peer.is_empty() {
            self.settings.seeds.insert(from, addresses.peer.clone());
            self.tell_peers();
        }
    }

    /// Serves a peer from the log's files.
    fn read_log(&mut self, to: NodeId, after: Lsn, max_bytes: u64) {
        let max = usize::try_from(max_bytes).unwrap_or(limits::APPEND_BYTES);
        let read = self.link_at(after).and_then(|previous| {
            let records = self.log.read(after, max)?;
            Ok(previous.zip(records))
        });
        let input = match read {
            Ok(Some((previous, records))) if !records.is_empty() => Input::LogRead {
                to,
                previous,
                records,
            },
            Ok(_) => Input::LogGone { to },
            // A peer is served by a snapshot instead, as where the log is gone.
            Err(LogFault::Damaged { story, through }) => {
                self.on_damage(story, Some(through));
                Input::LogGone { to }
            }
            Err(LogFault::Failed(story)) => return self.halt(story),
        };
        self.step(input);
    }

    /// What the record behind `lsn` follows; `None` when the log no longer says.
    fn link_at(&self, lsn: Lsn) -> Result<Option<Link>, LogFault> {
        if lsn == Lsn::ZERO {
            return Ok(Some(Link::default()));
        }
        let newest = self.copies.newest.as_ref().map(|newest| newest.head.link);
        if let Some(link) = newest.filter(|link| link.position.lsn == lsn) {
            return Ok(Some(link));
        }
        if let Some(link) = self.log.base_at(lsn) {
            return Ok(Some(link));
        }
        let before = self.log.read(Lsn(lsn.0 - 1), 1)?;
        Ok(before.and_then(|records| records.first().map(Record::link)))
    }

    /// Everything that this node's log holds from `first` on, for a loss statement.
    pub(in crate::node) fn records_from(&self, first: Lsn) -> Vec<Record> {
        let mut records = Vec::new();
        // What a snapshot covers may have been dropped: what is left is listed all the same.
        let there = self.log.first_lsn().unwrap_or_default();
        let mut after = Lsn(first.max(there).0.saturating_sub(1));
        while after < self.replica.tip().position.lsn {
            let more = match self.replica.records_after(after) {
                Some(more) => more.cloned().collect(),
                None => self
                    .log
                    .read(after, limits::APPEND_BYTES)
                    .ok()
                    .flatten()
                    .unwrap_or_default(),
            };
            let Some(last) = more.last() else { break };
            after = last.last_lsn();
            records.extend(more);
        }
        records
    }

    fn on_cut(&mut self, after: Lsn, loss: Loss) {
        let (wall, node) = (self.now.wall, self.identity.node);
        let mut statement = Statement::of_cut(wall, node, after, loss);
        statement.end_was_damaged = self.replica.meta().suspect;
        self.desk.cutting(statement);
        self.note(format!(
            "cutting the log after {after}: {}..{} never became part of the history",
            loss.first_lsn, loss.last_lsn
        ));
    }

    fn on_serving(&mut self, epoch: standfast_wal::Epoch) {
        self.forward_to = None;
        self.tick = Lsn::ZERO;
        self.attested.stale = true;
        self.note(format!("serving as primary of epoch {epoch}"));
    }

    fn on_stop_serving(&mut self, reason: StopReason) {
        self.clock = None;
        self.tick = Lsn::ZERO;
        let batch = std::mem::take(&mut self.batch);
        let next = match reason {
            StopReason::HandedOver { to } => {
                self.forward_to = Some((to, self.time().after(limits::FORWARD_FOR)));
                Some(to)
            }
            StopReason::Fenced { .. } | StopReason::NewHistory => {
                self.forward_to = None;
                None
            }
        };
        // Not yet a record: never ordered, so it may be passed on or refused for good.
        let commands: Vec<Bytes> = crate::state::command::iter(batch.payload.freeze())
            .flatten()
            .collect();
        let writes = batch.clients.into_iter().zip(commands);
        let refusal = match reason {
            StopReason::HandedOver { to } => Refusal::HandingOver {
                to: self.address_of(to),
            },
            _ => self.not_primary(),
        };
        match next {
            Some(to) => self.pass_on(to, writes.collect(), &refusal),
            None => {
                for (client, _) in writes {
                    self.pending.refuse(client, refusal.clone());
                }
                self.pending.refuse_reads(&refusal);
            }
        }
        self.note(format!("no longer serving as primary: {reason:?}"));
    }
}
