//! Which reads may be answered now: rounds of confirmation that this epoch still reigns.
//!
//! I4: a read is answered only after enough of the sync set, or a majority of the voters, has
//! shown this epoch in answer to something sent after the read came in. No clock is involved.

use crate::replication::register::Ticket;
use crate::replication::time::Time;
use std::time::Duration;

/// Rounds count every broadcast of this primary: a read waits for a later one than it saw.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reads {
    /// The last round that was sent to anybody.
    pub round: u64,
    /// The last round that was sent to everybody who counts.
    broadcast: u64,
    /// The highest round that some read waits for.
    wanted: u64,
    /// All reads up to this round may be answered.
    pub confirmed: u64,
    /// Since when the oldest of them waits.
    waiting_since: Option<Time>,
    /// A read of the register is under way; it confirms this round.
    pub register: Option<(Ticket, u64)>,
    /// A round that is not confirmed yet, and when it was sent.
    sent: Option<(u64, Time)>,
    /// When the newest round was sent of those that were timed and are confirmed: then, at least,
    /// this epoch still reigned.
    pub shown: Option<Time>,
}

impl Reads {
    /// Rounds go on from `round`, the last of this process's earlier reigns: a ticket is confirmed
    /// by
    /// no round of another reign, whoever compares them.
    pub fn new(round: u64) -> Reads {
        Reads {
            round,
            broadcast: round,
            wanted: round,
            confirmed: round,
            waiting_since: None,
            register: None,
            sent: None,
            shown: None,
        }
    }

    /// A read comes in: the round that will confirm it.
    pub fn take(&mut self, now: Time) -> u64 {
        self.wanted = self.round + 1;
        self.waiting_since.get_or_insert(now);
        self.wanted
    }

    /// Starts a round for one peer: everything sent from now on carries it.
    pub fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// Starts a round that goes to all.
    pub fn next_broadcast(&mut self, now: Time) -> u64 {
        self.broadcast = self.next_round();
        self.sent.get_or_insert((self.broadcast, now));
        self.broadcast
    }

    /// Whether a round has to be sent for the sake of reads alone: some wait for one that no
    /// append has started, and no earlier one is still on its way.
    pub fn needs_round(&self) -> bool {
        self.wanted > self.broadcast && self.confirmed >= self.broadcast
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
        if let Some((_, sent)) = self.sent.take_if(|(sent, _)| *sent <= round) {
            self.shown = Some(sent);
        }
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
        let mut reads = Reads::new(7);
        reads.next_broadcast(now);
        let ticket = reads.take(now);
        assert_eq!(ticket, 9, "the round before it does not count");
        assert!(!reads.needs_round(), "round 8 is still on its way");
        assert!(reads.confirm(8, now));
        assert!(reads.confirmed < ticket && reads.needs_round());
        reads.next_round();
        assert!(reads.needs_round(), "one peer alone does not confirm");
        reads.next_broadcast(now);
        assert!(!reads.needs_round(), "the new round serves all that wait");
        assert!(reads.confirm(10, now) && reads.confirmed >= ticket);
        assert!(!reads.confirm(10, now), "no news");
        assert!(!reads.is_overdue(Time(u64::MAX), Duration::ZERO));
    }
    #[test]
    fn the_reign_is_shown_up_to_when_a_confirmed_round_was_sent_and_no_longer() {
        let mut reads = Reads::new(7);
        assert_eq!(reads.shown, None);
        reads.next_broadcast(Time(10));
        reads.next_broadcast(Time(20));
        assert!(reads.confirm(9, Time(90)));
        assert_eq!(reads.shown, Some(Time(10)), "not when it was confirmed");
        reads.next_broadcast(Time(100));
        reads.next_broadcast(Time(500));
        assert_eq!(reads.shown, Some(Time(10)), "nobody has answered since");
        assert!(reads.confirm(10, Time(600)));
        assert_eq!(reads.shown, Some(Time(100)));
    }
}
