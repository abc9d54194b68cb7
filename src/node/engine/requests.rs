//! Clients' writes: admitted, held or refused, gathered into one record a turn, proposed.

use super::{Batch, Engine, Gate, Held};
use crate::limits;
use crate::node::client::{Request, SessionId};
use crate::node::pending::Client;
use crate::node::refusal::Refusal;
use crate::replication::Input;
use bytes::Bytes;
use standfast_wal::{Kind, Lsn, Mark, Record};

impl Engine {
    pub(super) fn submit(&mut self, session: SessionId, requests: Vec<Request>) {
        let since = self.time();
        let mut requests = requests.into_iter();
        if self.held.is_empty() {
            let mut gate = self.gate();
            for request in requests.by_ref() {
                if let Some(kept) = self.take(session, request, &mut gate) {
                    self.held.push_back(Held {
                        session,
                        request: kept,
                        since,
                    });
                    break;
                }
            }
        }
        // Behind something held, everything keeps its place in the order.
        self.held.extend(requests.map(|request| Held {
            session,
            request,
            since,
        }));
        self.note_writes();
    }

    pub(super) fn drain_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let mut gate = self.gate();
        while let Some(Held {
            session,
            request,
            since,
        }) = self.held.pop_front()
        {
            let overdue = since.after(self.settings.write_timeout) <= self.time();
            if overdue && matches!(gate, Gate::Hold) {
                Mark::HeldExpired.hit();
                gate = Gate::Closed(self.overdue());
            }
            let kept = self.take(session, request, &mut gate);
            self.note_writes();
            if let Some(request) = kept {
                self.held.push_front(Held {
                    session,
                    request,
                    since,
                });
                break;
            }
        }
    }

    /// Remembers how far the session's own writes go, for its reads to come.
    fn note_writes(&mut self) {
        let Some(session) = self.gathered_by.take() else {
            return;
        };
        self.last_write.insert(session, self.last_lsn());
        if self.last_write.len() > limits::SESSIONS_REMEMBERED {
            let applied = self.state.applied().lsn;
            let needed = self.pending.oldest_read().unwrap_or(applied).min(applied);
            self.last_write.retain(|_, lsn| *lsn > needed);
        }
    }

    fn overdue(&self) -> Refusal {
        match self.replica.admit() {
            Err(refusal) => self.refusal(refusal),
            Ok(()) => Refusal::Busy { what: "ordering" },
        }
    }

    /// Whether linearizable work may be taken now, and what to do with it if not.
    fn gate(&self) -> Gate {
        if self.stopping.is_some() && !self.replica.is_primary() {
            return Gate::Closed(Refusal::Stopping);
        }
        use crate::replication::Refusal as Core;
        match self.replica.admit() {
            Ok(()) => Gate::Open,
            Err(Core::Starting | Core::Busy | Core::HandingOver { .. }) => Gate::Hold,
            Err(refusal @ Core::NotPrimary { .. }) => match self.forward_to {
                Some((to, until)) if self.time() < until => Gate::Forward(to),
                _ => Gate::Closed(self.refusal(refusal)),
            },
            Err(refusal) => Gate::Closed(self.refusal(refusal)),
        }
    }

    /// Takes one request; gives it back when it must wait.
    pub(super) fn take(
        &mut self,
        session: SessionId,
        request: Request,
        gate: &mut Gate,
    ) -> Option<Request> {
        use crate::node::client::Op;
        let client = Client {
            session,
            seq: request.seq,
        };
        match request.op {
            Op::Write(command) => match gate {
                Gate::Open => {
                    self.gather(client, &command);
                    // A full batch is closed, and the core may then say Busy.
                    if self.batch.clients.is_empty() {
                        *gate = self.gate();
                    }
                }
                Gate::Hold => {
                    return Some(Request {
                        seq: request.seq,
                        op: Op::Write(command),
                    });
                }
                Gate::Forward(to) => self.forward_write(*to, client, command),
                Gate::Closed(refusal) => self.pending.refuse(client, refusal.clone()),
            },
            Op::Read {
                command,
                stale: true,
            } => self.read_stale(client, &command),
            Op::Read {
                command,
                stale: false,
            } => match gate {
                Gate::Hold if !self.replica.is_primary() || self.replica_is_starting() => {
                    let op = Op::Read {
                        command,
                        stale: false,
                    };
                    return Some(Request {
                        seq: request.seq,
                        op,
                    });
                }
                Gate::Forward(to) => self.forward_read(*to, client, &command),
                // A primary that takes no writes may still answer reads, if it is confirmed.
                _ => self.read(client, command),
            },
            Op::Control(control) => self.on_control(client, *control),
        }
        None
    }

    fn replica_is_starting(&self) -> bool {
        matches!(
            self.replica.admit(),
            Err(crate::replication::Refusal::Starting)
        )
    }

    fn gather(&mut self, client: Client, command: &Bytes) {
        if self.settings.quarantined {
            return self.pending.refuse(client, Refusal::Quarantined);
        }
        if self.disk_full {
            return self.pending.refuse(client, Refusal::DiskFull);
        }
        if self.archive_holds_writes() {
            return self.pending.refuse(client, Refusal::Unarchived);
        }
        if self.settings.max_memory > 0
            && self.state.used_bytes() > self.settings.max_memory
            && crate::state::command::may_grow(command)
        {
            let (used_bytes, limit_bytes) = (self.state.used_bytes(), self.settings.max_memory);
            return self.pending.refuse(
                client,
                Refusal::OutOfMemory {
                    used_bytes,
                    limit_bytes,
                },
            );
        }
        if command.len() > limits::COMMAND_BYTES_MAX {
            let (bytes, limit_bytes) = (command.len(), limits::COMMAND_BYTES_MAX);
            return self
                .pending
                .refuse(client, Refusal::TooLarge { bytes, limit_bytes });
        }
        crate::state::command::push(&mut self.batch.payload, command);
        self.gathered_by = Some(client.session);
        self.batch.clients.push(client);
        if self.batch.payload.len() >= limits::BATCH_BYTES
            || self.batch.clients.len() >= limits::BATCH_COMMANDS_MAX
        {
            self.close_batch();
        }
    }

    /// The LSN that the newest gathered or ordered command has or will have.
    pub(super) fn last_lsn(&self) -> Lsn {
        Lsn(self.replica.tip().position.lsn.0 + self.batch.clients.len() as u64)
    }

    /// Orders what was gathered as one record.
    pub(in crate::node) fn close_batch(&mut self) {
        if self.batch.clients.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let Batch { payload, clients } = batch;
        let count = u32::try_from(clients.len()).expect("at most BATCH_COMMANDS_MAX");
        if let Some(record) = self.propose(Kind::Commands, count, &payload) {
            let generation = self.replica.history().generation;
            self.pending
                .ordered(self.time(), generation, &record, clients);
        } else {
            // Only a role change inside this turn gets here, and `on_stop_serving` has taken the
            // batch then; a primary that merely says Busy or NoReplicas now never ordered these.
            let refusal = self.overdue();
            for client in clients {
                self.pending.refuse(client, refusal.clone());
            }
            let end = self.replica.tip().position.lsn;
            self.pending.refused_behind(end);
            for lsn in self.last_write.values_mut() {
                *lsn = end.min(*lsn);
            }
        }
    }

    /// Builds the next record and proposes it; `None` if the core admits nothing now.
    pub(in crate::node) fn propose(
        &mut self,
        kind: Kind,
        count: u32,
        payload: &[u8],
    ) -> Option<Record> {
        let admitted = match self.replica.admit() {
            Ok(()) => true,
            // Commands were admitted when they were gathered; more may have been ordered since.
            Err(crate::replication::Refusal::Busy) => kind != Kind::Attestation,
            Err(_) => false,
        };
        if !admitted {
            return None;
        }
        let tip = self.replica.tip();
        // Events of a batch are a nanosecond apart, and each takes its record's bytes at least. The
        // state keeps them in order whatever the log says (after a promotion, say); this keeps the
        // log's own times true.
        let timestamp = self.log_time().max(tip.timestamp + 1 + self.events_ns);
        self.events_ns = (payload.len() / crate::state::ledger::RECORD_BYTES) as u64;
        let record = Record::build(tip, kind, self.replica.epoch(), timestamp, count, payload);
        self.step(Input::Propose(record.clone()));
        Some(record)
    }
}
