//! Which reads may be answered now: rounds of confirmation that this epoch still reigns.
//!
//! I4: a read is answered only after enough of the sync set, or a majority of the voters, has
//! shown this epoch in answer to something sent after the read came in. No clock is involved.

use crate::replication::register::Ticket;
use crate::replication::time::Time;
use std::time::Duration;

/// Rounds count every broadcast of this primary: a read waits for a later one than it saw.
pub(super) struct Reads {
    /// The last round that was sent.
    pub round: u64,
    /// The highest round that some read waits for.
    wanted: u64,
    /// All reads up to this round may be answered.
    pub confirmed: u64,
    /// Since when the oldest of them waits.
    waiting_since: Option<Time>,
    /// A read of the register is under way; it confirms this round.
    pub register: Option<(Ticket, u64)>,
}

impl Reads {
    pub fn new() -> Reads {
        Reads {
            round: 0,
            wanted: 0,
            confirmed: 0,
            waiting_since: None,
            register: None,
        }
    }

    /// A read comes in: the round that will confirm it.
    pub fn take(&mut self, now: Time) -> u64 {
        self.wanted = self.round + 1;
        self.waiting_since.get_or_insert(now);
        self.wanted
    }

    /// Starts the next round: everything sent from now on carries it.
    pub fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// Whether a round has to be sent for the sake of reads alone: some wait for one that no
    /// append has started, and no earlier one is still on its way.
    pub fn needs_round(&self) -> bool {
        self.wanted > self.round && self.confirmed >= self.round
    }

    /// All rounds up to this are confirmed; true when that is news.
    pub fn confirm(&mut self, round: u64, now: Time) -> bool {
        assert!(
            round <= self.round,
            "I4: round {round} confirmed, but only {} was sent",
            self.round
        );
        if round <= self.confirmed {
            return false;
        }
        self.confirmed = round;
        self.waiting_since = (self.wanted > round).then_some(now);
        true
    }

    /// Whether reads have waited so long that the voters should be asked instead.
    pub fn is_overdue(&self, now: Time, patience: Duration) -> bool {
        self.register.is_none()
            && self
                .waiting_since
                .is_some_and(|since| now.since(since) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_confirmed_only_by_a_round_sent_after_it() {
        let now = Time::ZERO;
        let mut reads = Reads::new();
        reads.next_round();
        let ticket = reads.take(now);
        assert_eq!(ticket, 2, "the round before it does not count");
        assert!(!reads.needs_round(), "round 1 is still on its way");
        assert!(reads.confirm(1, now));
        assert!(reads.confirmed < ticket && reads.needs_round());
        reads.next_round();
        assert!(!reads.needs_round(), "the new round serves all that wait");
        assert!(reads.confirm(2, now) && reads.confirmed >= ticket);
        assert!(!reads.confirm(2, now), "no news");
        assert!(!reads.is_overdue(Time(u64::MAX), Duration::ZERO));
    }
}
