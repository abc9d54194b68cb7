//! What the log's disk was given and has not done: how long it has left the oldest record.

use crate::replication::Time;
use standfast_wal::Lsn;
use standfast_wal::scribe::Command;
use std::collections::VecDeque;

/// Appended records that are not durable: last LSN, rising, and since when.
#[derive(Default)]
pub(super) struct Undone(VecDeque<(Lsn, Time)>);

impl Undone {
    /// This goes to the log. What it takes out of the log is waited for no more: a node whose log
    /// ends below would never see that done.
    pub fn given(&mut self, command: &Command, now: Time) {
        match command {
            Command::Append(record) => self.0.push_back((record.last_lsn(), now)),
            Command::Cut(after) => {
                while self.0.back().is_some_and(|(lsn, _)| lsn > after) {
                    self.0.pop_back();
                }
            }
            Command::Reset { .. } => self.0.clear(),
            Command::Roll(_) | Command::Trim(_) | Command::Trust | Command::Repair(..) => {}
        }
    }

    pub fn done(&mut self, durable: Lsn) {
        while self.0.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            self.0.pop_front();
        }
    }

    /// Since when the oldest one waits.
    pub fn since(&self) -> Option<Time> {
        self.0.front().map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::{Epoch, Kind, Link, Record};

    fn three(undone: &mut Undone) {
        let mut link = Link::default();
        for at in 1..=3 {
            let record = Record::build(link, Kind::Commands, Epoch(1), at, 1, b"x");
            link = record.link();
            undone.given(&Command::Append(record), Time(at));
        }
    }

    #[test]
    fn what_is_durable_or_cut_is_waited_for_no_more() {
        let mut undone = Undone::default();
        three(&mut undone);
        assert_eq!(undone.since(), Some(Time(1)));
        undone.done(Lsn(1));
        assert_eq!(undone.since(), Some(Time(2)));
        undone.given(&Command::Cut(Lsn(2)), Time(4));
        assert_eq!(undone.since(), Some(Time(2)));
        undone.done(Lsn(2));
        assert_eq!(undone.since(), None);
        three(&mut undone);
        let (base, history) = (Link::default(), standfast_wal::History::default());
        let verified = Lsn(0);
        let reset = Command::Reset {
            base,
            history,
            verified,
        };
        undone.given(&reset, Time(5));
        assert_eq!(undone.since(), None);
    }
}
