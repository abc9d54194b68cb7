//! Commands that another node passes on, and those that this one passes on to the primary.

use super::{FORWARDED_SESSION, Passed};
use crate::node::client::SessionId;
use crate::node::engine::Engine;
use crate::node::pending::Client;
use crate::node::refusal::Refusal;
use crate::node::wire::{ForwardReply, Forwarded, Head};
use crate::state::{Command, Reply};
use bytes::{Bytes, BytesMut};
use standfast_wal::{Epoch, Mark, NodeId};

impl Engine {
    /// Passes on a command that never got an LSN, once.
    pub(in crate::node) fn forward_write(&mut self, to: NodeId, client: Client, command: Bytes) {
        self.forward(to, client, true, command);
    }

    pub(in crate::node) fn forward_read(&mut self, to: NodeId, client: Client, command: &Command) {
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        self.forward(to, client, false, encoded.freeze());
    }

    /// Passes on what was asked here and neither ordered nor answered, each session's commands in
    /// the order in which it asked them.
    pub(in crate::node) fn pass_on(
        &mut self,
        to: NodeId,
        writes: Vec<(Client, Bytes)>,
        refusal: &Refusal,
    ) {
        let last_write = |session| self.last_write.get(&session).copied();
        let reads = self.pending.take_reads(last_write, refusal).into_iter();
        let reads = reads.map(|(client, command)| {
            let mut encoded = BytesMut::new();
            command.encode(&mut encoded);
            (client, false, encoded.freeze())
        });
        let writes = writes.into_iter();
        let writes = writes.map(|(client, command)| (client, true, command));
        let mut all: Vec<_> = reads.chain(writes).collect();
        all.sort_by_key(|(client, ..)| (client.session, client.seq));
        for (client, is_write, command) in all {
            self.forward(to, client, is_write, command);
        }
    }

    fn forward(&mut self, to: NodeId, client: Client, write: bool, command: Bytes) {
        if client.session.0 & FORWARDED_SESSION != 0 {
            // It was passed on to us already: once is enough, the client asks anew.
            return self.pending.refuse(client, self.not_primary());
        }
        Mark::WriteForwarded.hit();
        self.desk.next_ticket += 1;
        let ticket = self.desk.next_ticket;
        let passed = Passed {
            to,
            client,
            since: self.time(),
            epoch: self.replica.config().epoch,
        };
        self.desk.forwarded.insert(ticket, passed);
        let commands = vec![Forwarded {
            ticket,
            write,
            command,
        }];
        self.send(to, Head::Forward { commands });
    }

    pub(in crate::node) fn on_forward(&mut self, from: NodeId, commands: Vec<Forwarded>) {
        use crate::node::client::{Op, Request};
        let session = SessionId(FORWARDED_SESSION | u64::from(from.0));
        let mut requests = Vec::with_capacity(commands.len());
        for Forwarded {
            ticket,
            write,
            command,
        } in commands
        {
            // Nothing that does not decode is ever ordered: it would halt every node.
            let Ok(decoded) = Command::from_encoded(command.clone()) else {
                continue;
            };
            let op = match write {
                true => Op::Write(command),
                false => Op::Read {
                    command: decoded,
                    stale: false,
                },
            };
            requests.push(Request { seq: ticket, op });
        }
        let now = self.now;
        self.handle(
            now,
            crate::node::engine::Event::Submit { session, requests },
        );
    }

    /// Gives up what will not be answered, and passes nothing more to one that was succeeded.
    pub(in crate::node) fn mind_forwarded(&mut self) {
        let (now, timeout) = (self.time(), self.settings.write_timeout);
        let config = self.replica.config();
        self.desk
            .mind_forwarded(&mut self.pending, config, now, timeout);
        // Until the successor is registered this node still is.
        let (me, primary) = (self.identity.node, config.primary);
        self.forward_to
            .take_if(|(to, _)| primary != *to && primary != me);
    }

    pub(in crate::node) fn on_replied(&mut self, from: NodeId, replies: Vec<ForwardReply>) {
        for ForwardReply {
            ticket,
            lsn,
            epoch,
            generation,
            reply,
        } in replies
        {
            // Late: it was given up, and its client told that the outcome is unknown.
            let Some(Passed { to, client, .. }) = self.desk.forwarded.remove(&ticket) else {
                continue;
            };
            assert_eq!(to, from, "a reply comes from where the command went");
            match Reply::decode(reply) {
                Some(reply) => {
                    self.pending
                        .answer_of(client, generation, Epoch(epoch), lsn, reply);
                }
                None => {
                    let text = "the successor's reply is not readable".to_string();
                    self.pending.refuse(client, Refusal::Operator(text));
                }
            }
        }
    }
}
