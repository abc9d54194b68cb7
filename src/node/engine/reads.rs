//! Reads: when one may be answered, and from how old a state.

use super::Engine;
use crate::node::pending::Client;
use crate::node::refusal::Refusal;
use standfast_wal::Mark;
use std::time::Duration;

impl Engine {
    pub(super) fn read(&mut self, client: Client, command: crate::state::Command) {
        let ticket = match self.replica.read(self.time()) {
            Ok(ticket) => ticket,
            Err(refusal) => return self.pending.refuse(client, self.refusal(refusal)),
        };
        let mut after = ticket.after;
        // The session's own writes, gathered or ordered, come before its read.
        if let Some(lsn) = self.last_write.get(&client.session) {
            after = after.max(*lsn);
        }
        // So do its own earlier reads, which may wait for a record that was refused meanwhile.
        if let Some(lsn) = self.pending.waits_for(client.session) {
            after = after.max(lsn);
        }
        if self.gathered_by == Some(client.session) {
            after = after.max(self.last_lsn());
        }
        if let Some(due) = self.state.next_expiry()
            && due <= self.log_time()
        {
            if self.replica.tip().timestamp < due {
                self.order_tick();
            }
            after = after.max(self.replica.tip().position.lsn);
        }
        // What was gathered may have been refused for the Tick's sake: its LSN is the next one's.
        after = after.min(self.last_lsn());
        if after <= self.state.applied().lsn {
            let reply = self.state.read(&command);
            let lsn = self.state.applied().lsn;
            let now = self.time();
            self.pending.evaluated(
                now,
                client,
                command,
                lsn,
                ticket.round,
                self.confirmed,
                reply,
            );
        } else {
            self.pending
                .read_at(self.time(), after, client, command, ticket.round);
        }
    }

    /// A read that this node answers by itself, within `max_staleness` on its own clock.
    pub(super) fn read_stale(&mut self, client: Client, command: &crate::state::Command) {
        if self.is_witness {
            let primary = self.primary_address();
            return self.pending.refuse(client, Refusal::Witness { primary });
        }
        let limit = self.settings.max_staleness;
        // A primary that nobody answers may have a successor: what it has ages as on a backup.
        let age = self.staleness();
        if age.is_some_and(|age| age <= limit) {
            let reply = self.state.read(command);
            self.pending.answer(client, self.state.applied().lsn, reply);
            return;
        }
        Mark::TooStale.hit();
        let refusal = Refusal::TooStale {
            age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            primary: self.primary_address(),
        };
        self.pending.refuse(client, refusal);
    }

    /// How old what this node shows may be; `None`: not known.
    pub(in crate::node) fn staleness(&self) -> Option<Duration> {
        let (lsn, at) = self.replica.freshness()?;
        (self.state.applied().lsn >= lsn).then(|| self.time().since(at))
    }
}
