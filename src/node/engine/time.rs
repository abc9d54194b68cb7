//! Log time, ticks and attestations, and the watch over the disk and the wall clock.

use super::Engine;
use crate::limits;
use crate::node::clock::LogClock;
use crate::replication::{Input, Time};
use standfast_wal::{Kind, Lsn, Mark, Record};

/// When the next attestation is due, and how far this node's own state was held against one.
#[derive(Debug)]
pub(super) struct Attested {
    pub(super) at: Time,
    /// Commands were applied since; or nobody has attested yet what this process began with.
    pub(super) stale: bool,
    /// The highest LSN whose digest was compared.
    compared: Lsn,
    /// The last LSN that changed the digest.
    pub(super) changed: Lsn,
}

impl Attested {
    pub(super) fn since(applied: Lsn) -> Attested {
        Attested {
            at: Time::default(),
            stale: true,
            compared: Lsn::ZERO,
            changed: applied,
        }
    }

    /// Whether the state at `lsn` is what the primary attested.
    pub(super) fn covers(&self, lsn: Lsn) -> bool {
        self.compared >= lsn || self.compared >= self.changed
    }
}

impl Engine {
    /// What most clocks say, where they are known: to judge what others have dated.
    pub(in crate::node) fn fair_wall(&self) -> u64 {
        self.replica.clock_median().unwrap_or(self.now.wall)
    }

    /// Log time now, on a primary. Starts the epoch's clock at the first call.
    pub(super) fn log_time(&mut self) -> u64 {
        let last = self.replica.tip().timestamp;
        let median = self.replica.clock_median();
        let max_step = u64::try_from(self.settings.max_clock_step.as_nanos()).unwrap_or(u64::MAX);
        let now = self.now;
        let clock = self
            .clock
            .get_or_insert_with(|| LogClock::start(now, last, median, max_step));
        clock.read(now).max(last)
    }

    /// Commits a Tick where the clock has passed a deadline that log time has not: what expires is
    /// decided by log time only, and an idle store still forgets what is due.
    pub(super) fn keep_time(&mut self) {
        if !self.replica.is_primary() || self.tick > self.state.applied().lsn {
            return;
        }
        let Some(deadline) = self.state.next_deadline() else {
            return;
        };
        if deadline <= self.log_time() {
            self.order_tick();
        }
    }

    pub(super) fn order_tick(&mut self) {
        self.close_batch();
        if let Some(record) = self.propose(Kind::Tick, 1, &[]) {
            Mark::TickCommitted.hit();
            self.tick = record.last_lsn();
        }
    }

    pub(super) fn next_tick(&self) -> Option<Time> {
        if !self.replica.is_primary() || self.tick > self.state.applied().lsn {
            return None;
        }
        let clock = self.clock?;
        let deadline = self.state.next_deadline()?;
        let wait = deadline
            .saturating_sub({ clock }.read(self.now))
            .max(limits::TICK_MIN_NS);
        Some(Time(self.now.boot.saturating_add(wait)))
    }

    /// Names an applied LSN and the digest there, so that every copy can prove itself equal.
    pub(super) fn attest(&mut self) {
        if !self.attested.stale
            || !self.replica.is_primary()
            || self.attested.at.after(self.settings.attest_interval) > self.time()
        {
            return;
        }
        let attestation = crate::state::Attestation {
            lsn: self.state.applied().lsn,
            digest: self.state.digest(),
        };
        if attestation.lsn == Lsn::ZERO {
            self.attested.at = self.time();
            return;
        }
        self.close_batch();
        let proposed = self.propose(Kind::Attestation, 1, &attestation.encode());
        // Where nothing is taken now it is tried again an interval later, not in every turn: a
        // deadline that stays in the past would keep the engine's thread spinning.
        self.attested.at = self.time();
        self.attested.stale = proposed.is_none();
    }

    /// Tells the core when the disk leaves a record undone for too long, and when it is back.
    pub(super) fn watch_disk(&mut self) {
        self.undone.done(self.replica.durable());
        let limit = self.settings.degraded_timeout;
        let oldest = self.undone.since();
        let stalled = oldest.is_some_and(|since| since.after(limit) <= self.time());
        if stalled != self.disk_stalled {
            self.disk_stalled = stalled;
            self.step(Input::DiskStalled(stalled));
        }
    }

    pub(super) fn tell_wall_clock(&mut self) {
        if self
            .wall_told
            .is_none_or(|at| at.after(limits::WALL_CLOCK_INTERVAL) <= self.time())
        {
            self.wall_told = Some(self.time());
            self.step(Input::WallClock(self.now.wall));
        }
    }

    /// I2: two nodes that have applied LSN n of one history have equal digests at n.
    pub(super) fn check_attestation(&mut self, record: &Record) {
        let Some(attested) = crate::state::Attestation::decode(&record.payload()) else {
            return self.halt(format!("I3: the attestation {record:?} does not decode"));
        };
        let mine = self
            .digests
            .iter()
            .rev()
            .find(|(lsn, _)| *lsn == attested.lsn);
        if mine.is_some() {
            Mark::AttestationCompared.hit();
            self.attested.compared = attested.lsn;
        }
        if let Some((lsn, digest)) = mine
            && *digest != attested.digest
        {
            let story = format!(
                "I2: the state differs from the primary's at LSN {lsn}: digest {digest} here, {} \
                 attested",
                attested.digest
            );
            self.differs = Some(story.clone());
            self.halt(format!(
                "{story}. This node stops, so that it serves nothing wrong"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_attested_once_a_digest_was_compared_that_its_state_leads_to() {
        let mut attested = Attested::since(Lsn(40));
        assert!(!attested.covers(Lsn(40)), "what was loaded is not yet");
        attested.compared = Lsn(30);
        assert!(!attested.covers(Lsn(40)));
        attested.changed = Lsn(52);
        attested.compared = Lsn(50);
        assert!(attested.covers(Lsn(40)) && attested.covers(Lsn(50)));
        assert!(!attested.covers(Lsn(51)));
        attested.compared = Lsn(52);
        assert!(attested.covers(Lsn(60)), "nothing has changed since");
    }
}
