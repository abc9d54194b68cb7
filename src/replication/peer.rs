//! What the primary knows of one member: how far it is, what is on its way, when it was heard.
//!
//! A peer that streams is sent records as they are built; one that is behind is fed from memory or
//! from the log on disk, within a window in bytes, so that it never holds up anything but itself.

use crate::replication::config::MemberRole;
use crate::replication::io::Effect;
use crate::replication::message::Body;
use crate::replication::node::Node;
use crate::replication::time::Time;
use standfast_wal::{Epoch, Incarnation, Link, Lsn, Mark, NodeId, Record};
use std::time::Duration;

/// How the primary brings one peer forward.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Progress {
    /// The link is down, or the peer holds no data.
    Idle,
    /// Asked where the logs agree, first in this round.
    /// It had acknowledged `matched` before that.
    Probe { round: u64, matched: Lsn },
    /// Everything up to `sent` was sent, the last of it in `round`.
    Stream {
        sent: Lsn,
        round: u64,
        reading: bool,
    },
    /// The log no longer reaches back: a snapshot is on its way.
    Snapshot,
    /// The last snapshot came to nothing.
    Pause { until: Time },
}

/// What keeps a removed member from coming back too soon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct HoldDown {
    wait: Duration,
    removed_at: Time,
    until: Time,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Peer {
    pub incarnation: Incarnation,
    pub role: MemberRole,
    pub progress: Progress,
    /// Durable there and verified in this epoch.
    pub matched: Lsn,
    /// The highest round it has answered: it obeyed this epoch after that was sent.
    pub confirmed: u64,
    pub heard_at: Time,
    /// The written end at some moment, not matched yet, and that moment.
    mark: Option<(Lsn, Time)>,
    hold: Option<HoldDown>,
    /// Where the last read from disk for it began: the next waits until that is matched.
    read_after: Lsn,
    /// It lacks what it acknowledged: it counts as lost.
    pub disowned: bool,
    /// The stamp of an answer, and the round whose confirmation makes it an echo.
    stamp: Option<(u64, u64)>,
    pub echo: Option<u64>,
}

impl Peer {
    pub fn new(incarnation: Incarnation, role: MemberRole, now: Time) -> Peer {
        Peer {
            incarnation,
            role,
            progress: Progress::Idle,
            matched: Lsn::ZERO,
            confirmed: 0,
            heard_at: now,
            mark: None,
            hold: None,
            read_after: Lsn::ZERO,
            disowned: false,
            stamp: None,
            echo: None,
        }
    }

    // Waiting for it

    /// Something was appended that it has to match.
    pub fn note_appended(&mut self, end: Lsn, now: Time) {
        self.mark.get_or_insert((end, now));
    }

    pub fn note_matched(&mut self, matched: Lsn, end: Lsn, now: Time) {
        self.matched = self.matched.max(matched);
        if self.mark.is_some_and(|(lsn, _)| self.matched >= lsn) {
            self.mark = (self.matched < end).then_some((end, now));
        }
    }

    /// For how long something has been waiting for it; `None`: nothing is.
    pub fn waiting(&self, now: Time) -> Option<Duration> {
        self.mark.map(|(_, since)| now.since(since))
    }

    pub fn silent(&self, now: Time) -> Duration {
        now.since(self.heard_at)
    }

    /// It becomes one that commits wait for: from now on, not from before.
    pub fn restart_waiting(&mut self, end: Lsn, now: Time) {
        self.mark = (self.matched < end).then_some((end, now));
    }

    // Being kept out

    /// It was removed because it kept writes waiting: the wait doubles each time.
    pub fn hold_down(&mut self, node: &Node) {
        let settings = &node.settings;
        let again = self
            .hold
            .filter(|h| node.now.since(h.removed_at) < settings.hold_down_reset);
        let wait = match again {
            Some(hold) => (hold.wait * 2).min(settings.hold_down_max),
            None => settings.hold_down,
        };
        Mark::HeldDown.hit();
        let until = node.now.after(wait);
        self.hold = Some(HoldDown {
            wait,
            removed_at: node.now,
            until,
        });
    }

    pub fn is_held_down(&self, now: Time) -> bool {
        self.hold.is_some_and(|hold| now < hold.until)
    }

    // Stamps, for stale reads

    /// It answered with this stamp; confirmed once a round after `round` is.
    pub fn note_stamp(&mut self, stamp: u64, round: u64) {
        if self.stamp.is_none() {
            self.stamp = Some((stamp, round + 1));
        }
    }

    pub fn note_confirmed(&mut self, round: u64) {
        if let Some((stamp, _)) = self.stamp.filter(|(_, needed)| round >= *needed) {
            self.echo = Some(stamp);
            self.stamp = None;
        }
    }

    // Sending

    /// Asks where the logs agree. Asked again, any answer since the first question will do.
    pub fn probe(&mut self, node: &mut Node, id: NodeId, epoch: Epoch, round: u64) {
        if !matches!(self.progress, Progress::Probe { .. }) {
            let matched = self.matched;
            self.progress = Progress::Probe { round, matched };
        }
        let (tip, epochs) = (node.end(), node.log.epochs.clone());
        node.send(
            id,
            Body::Follow {
                epoch,
                round,
                tip,
                epochs,
            },
        );
    }

    /// It said up to where it agrees: stream from there, if the log reaches back that far.
    pub fn start_stream(&mut self, node: &mut Node, id: NodeId, agreed: Lsn, rebuild: bool) {
        if rebuild || agreed.next() < node.log.first_lsn {
            Mark::SnapshotOffered.hit();
            self.progress = Progress::Snapshot;
            let at_least = Lsn(node.log.first_lsn.0 - 1)
                .max(agreed.next())
                .min(node.log.commit);
            return node.out.push(Effect::SendSnapshot { to: id, at_least });
        }
        self.read_after = Lsn::ZERO;
        self.progress = Progress::Stream {
            sent: agreed,
            round: 0,
            reading: false,
        };
    }

    /// Sends what is next, as far as the window and `limit` allow. Nothing beyond `limit` is sent:
    /// for an asynchronous backup that is the commit LSN (I6).
    pub fn pump(&mut self, node: &mut Node, id: NodeId, epoch: Epoch, round: u64, limit: Lsn) {
        while let Progress::Stream {
            sent,
            reading: false,
            ..
        } = self.progress
        {
            let on_the_way = node.log.tail.bytes_between(self.matched, sent);
            if sent >= limit || on_the_way >= node.settings.window_bytes {
                return;
            }
            let Some(previous) = node.log.tail.link_at(sent) else {
                return self.read_behind(node, id, sent);
            };
            let mut bytes = 0;
            let mut records = Vec::new();
            let rest = node
                .log
                .tail
                .after(sent)
                .expect("its link is kept, so it is");
            for record in rest.take_while(|record| record.last_lsn() <= limit) {
                if bytes > 0 && bytes + record.bytes().len() as u64 > node.settings.message_bytes {
                    break;
                }
                bytes += record.bytes().len() as u64;
                records.push(record.clone());
            }
            if records.is_empty() {
                return; // The next record ends beyond the limit.
            }
            self.send_append(node, id, epoch, round, previous, records);
        }
    }

    /// Feeds it from the log on disk, two messages ahead of what it has matched at most.
    fn read_behind(&mut self, node: &mut Node, to: NodeId, after: Lsn) {
        if self.matched < self.read_after {
            return;
        }
        self.read_after = after;
        if let Progress::Stream { reading, .. } = &mut self.progress {
            *reading = true;
        }
        Mark::ReadFromDisk.hit();
        let max_bytes = node.settings.message_bytes;
        node.out.push(Effect::ReadLog {
            to,
            after,
            max_bytes,
        });
    }

    pub fn is_read_for(&self) -> bool {
        matches!(self.progress, Progress::Stream { reading: true, .. })
    }

    /// What was read for it is not sent now: it is read again when it is wanted.
    pub fn forget_read(&mut self) {
        if let Progress::Stream { reading, .. } = &mut self.progress {
            *reading = false;
            self.read_after = Lsn::ZERO;
        }
    }

    /// What was read from the log on disk for it.
    pub fn on_log_read(
        &mut self,
        node: &mut Node,
        id: NodeId,
        (epoch, round): (Epoch, u64),
        limit: Lsn,
        (previous, mut records): (Link, Vec<Record>),
    ) {
        let Progress::Stream { sent, reading, .. } = &mut self.progress else {
            return;
        };
        *reading = false;
        // A rewind may have happened meanwhile; then it is read again.
        records.retain(|record| record.last_lsn() <= limit);
        if previous.position.lsn == *sent && !records.is_empty() {
            self.send_append(node, id, epoch, round, previous, records);
        }
        self.pump(node, id, epoch, round, limit);
    }

    pub fn send_append(
        &mut self,
        node: &mut Node,
        id: NodeId,
        epoch: Epoch,
        round: u64,
        previous: Link,
        records: Vec<Record>,
    ) {
        let last = records
            .last()
            .expect("an append carries records")
            .last_lsn();
        self.progress = Progress::Stream {
            sent: last,
            round,
            reading: false,
        };
        let commit = node.log.commit;
        node.send(
            id,
            Body::Append {
                epoch,
                round,
                commit,
                previous,
                records,
            },
        );
    }

    /// It has seen round `seen` and verified only up to `verified`: what it lacks of what was sent
    /// up to that round was lost on the way. True when it must be probed again.
    pub fn notice_loss(&mut self, seen: u64, verified: Option<Lsn>) -> bool {
        let Progress::Stream {
            sent,
            round,
            reading,
        } = &mut self.progress
        else {
            return false;
        };
        // Only what was sent before that very round was: `round` itself may have begun earlier.
        if seen <= *round {
            return false;
        }
        let Some(verified) = verified.filter(|lsn| *lsn >= self.matched) else {
            return true;
        };
        if !*reading && verified < *sent {
            *sent = verified;
            *round = seen;
            self.read_after = Lsn::ZERO;
        }
        false
    }
}
