//! What clients wait for: ordered writes, reads at an LSN, reads to be confirmed; pure.
//!
//! Owns every unanswered operation of this node. A write is answered when its (epoch, LSN) is
//! applied, on whatever role the node has by then, and gets UNKNOWN after `write_timeout`: never a
//! definite failure (2-replication, "Outcome of a write"). A read is evaluated exactly when its
//! LSN is applied, so that a session sees its own earlier writes and none of its later ones, and
//! is answered once primacy has been confirmed after it came in.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::node::client::{Answer, SessionId};
use crate::node::refusal::Refusal;
use crate::replication::Time;
use crate::state::{Command, Reply};
use standfast_wal::{Epoch, Lsn, Mark, Record};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Who waits for one operation. A session of `FORWARDED` is another node's client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    pub session: SessionId,
    pub seq: u64,
}

/// The commands of one record, in order, and who waits for each. Emptied once told UNKNOWN.
#[derive(Debug)]
struct Ordered {
    first_lsn: Lsn,
    last_lsn: Lsn,
    generation: u64,
    epoch: Epoch,
    since: Time,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Read {
    client: Client,
    command: Command,
    round: u64,
    since: Time,
}

#[derive(Debug)]
struct Unconfirmed {
    client: Client,
    command: Command,
    round: u64,
    since: Time,
    lsn: Lsn,
    generation: u64,
    reply: Reply,
}

/// Everything unanswered, and the answers of this turn.
#[derive(Debug, Default)]
pub struct Pending {
    ordered: VecDeque<Ordered>,
    /// How many at the front of `ordered` have been told UNKNOWN.
    told: usize,
    /// Reads by the LSN that must be applied, exactly, when they are evaluated.
    reads: BTreeMap<Lsn, Vec<Read>>,
    /// The highest of these LSNs by session: its later reads must see as much.
    waits: BTreeMap<SessionId, Lsn>,
    unconfirmed: VecDeque<Unconfirmed>,
    /// Of the history that the state is of.
    generation: u64,
    answers: Vec<(SessionId, Answer)>,
}

impl Pending {
    /// The state is one of this generation's history from now on.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// Notes who waits for the commands of a record that was just ordered.
    pub fn ordered(&mut self, now: Time, generation: u64, record: &Record, clients: Vec<Client>) {
        assert_eq!(
            clients.len(),
            record.count() as usize,
            "one client per command"
        );
        // What this node had ordered at these LSNs in an earlier reign was cut: it never happened.
        let is_cut = |last: &Ordered| last.last_lsn >= record.first_lsn();
        while self.ordered.back().is_some_and(is_cut) {
            let last = self.ordered.pop_back().expect("it was looked at");
            assert!(
                (generation, record.epoch()) > (last.generation, last.epoch),
                "an LSN is ordered once per epoch: {record:?} after {last:?}"
            );
            Mark::UnknownReplaced.hit();
            self.tell_unknown(&last);
        }
        self.told = self.told.min(self.ordered.len());
        self.ordered.push_back(Ordered {
            first_lsn: record.first_lsn(),
            last_lsn: record.last_lsn(),
            generation,
            epoch: record.epoch(),
            since: now,
            clients,
        });
    }

    /// Answers the clients of an applied record. `replies` are those of its commands, in order.
    /// An epoch is one of a generation only: a founder may not have heard of the newest.
    pub fn applied(&mut self, generation: u64, record: &Record, replies: &[Reply]) {
        let reign = (generation, record.epoch());
        while let Some(front) = self.ordered.front() {
            let own = (front.generation, front.epoch);
            let is_here = front.first_lsn == record.first_lsn();
            if front.first_lsn > record.first_lsn() || (is_here && own > reign) {
                break;
            }
            let ours = is_here && own == reign;
            let Some(front) = self.ordered.pop_front() else {
                break;
            };
            self.told = self.told.saturating_sub(1);
            if !ours {
                // Another epoch's record stands at this LSN: ours was cut and never happened. The
                // client learns that by OUTCOME, which looks at the log itself.
                Mark::UnknownReplaced.hit();
                self.tell_unknown(&front);
                continue;
            }
            let clients = front.clients.into_iter().zip(replies);
            for (i, (client, reply)) in clients.enumerate() {
                let lsn = Lsn(front.first_lsn.0 + i as u64);
                self.answer_of(client, generation, front.epoch, lsn, reply.clone());
            }
        }
    }

    fn tell_unknown(&mut self, ordered: &Ordered) {
        for (i, client) in ordered.clients.iter().enumerate() {
            let lsn = Lsn(ordered.first_lsn.0 + i as u64);
            let refusal = Refusal::Unknown {
                generation: ordered.generation,
                epoch: ordered.epoch,
                lsn,
            };
            let (generation, epoch) = (ordered.generation, ordered.epoch);
            self.answer_of(*client, generation, epoch, lsn, refusal.into());
        }
    }

    /// A linearizable read that must see exactly everything up to `lsn`, which is not applied yet.
    pub fn read_at(&mut self, now: Time, lsn: Lsn, client: Client, command: Command, round: u64) {
        let read = Read {
            client,
            command,
            round,
            since: now,
        };
        let wait = self.waits.entry(client.session).or_default();
        *wait = lsn.max(*wait);
        self.reads.entry(lsn).or_default().push(read);
    }

    /// The log ends at `end`, and what was gathered behind it was refused: reads that were to see
    /// it see the end. Left where they are they would see what is ordered there after them.
    pub fn refused_behind(&mut self, end: Lsn) {
        let beyond = self.reads.split_off(&end.next());
        for read in beyond.into_values().flatten() {
            self.reads.entry(end).or_default().push(read);
        }
        for wait in self.waits.values_mut() {
            *wait = end.min(*wait);
        }
    }

    /// What the session's last read waits for, if any does.
    pub fn waits_for(&self, session: SessionId) -> Option<Lsn> {
        self.waits.get(&session).copied()
    }

    /// The first LSN at which reads wait to be evaluated.
    pub fn next_read(&self) -> Option<Lsn> {
        self.reads.first_key_value().map(|(lsn, _)| *lsn)
    }

    /// Evaluates the reads whose LSN is applied now.
    pub fn evaluate(
        &mut self,
        applied: Lsn,
        confirmed: u64,
        mut read: impl FnMut(&Command) -> Reply,
    ) {
        while let Some(entry) = self.reads.first_entry() {
            if *entry.key() > applied {
                break;
            }
            for waiting in entry.remove() {
                let reply = read(&waiting.command);
                let Read {
                    client,
                    command,
                    round,
                    since,
                } = waiting;
                self.evaluated(since, client, command, applied, round, confirmed, reply);
                if self.waits_for(client.session) <= Some(applied) {
                    self.waits.remove(&client.session);
                }
            }
        }
    }

    /// A read has its reply; it goes out once `round` is confirmed.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them are what one read is"
    )]
    pub fn evaluated(
        &mut self,
        since: Time,
        client: Client,
        command: Command,
        lsn: Lsn,
        round: u64,
        confirmed: u64,
        reply: Reply,
    ) {
        if round <= confirmed {
            self.answer(client, lsn, reply);
        } else {
            let waiting = Unconfirmed {
                client,
                command,
                round,
                since,
                lsn,
                generation: self.generation,
                reply,
            };
            self.unconfirmed.push_back(waiting);
        }
    }

    /// Primacy was confirmed for every read of `round` and before.
    pub fn confirmed(&mut self, round: u64) {
        // Rounds nearly always rise along the queue; a read that waited for its LSN may stand
        // behind later ones and is let out by the next call at the latest.
        let mut i = 0;
        while i < self.unconfirmed.len() {
            if self.unconfirmed[i].round > round {
                i += 1;
                continue;
            }
            let Some(read) = self.unconfirmed.remove(i) else {
                break;
            };
            let (generation, lsn) = (read.generation, read.lsn);
            self.answer_of(read.client, generation, Epoch(0), lsn, read.reply);
        }
    }

    /// Reads that wait for an LSN or for confirmation, to be asked again elsewhere. One that its
    /// own session's later writes have overtaken, as `last_write` tells, would see them there: it
    /// is refused.
    pub fn take_reads(
        &mut self,
        last_write: impl Fn(SessionId) -> Option<Lsn>,
        refusal: &Refusal,
    ) -> Vec<(Client, Command)> {
        self.waits.clear();
        let waiting = std::mem::take(&mut self.reads).into_iter();
        let waiting = waiting.flat_map(|(lsn, reads)| {
            let reads = reads.into_iter();
            reads.map(move |read| (lsn, read.client, read.command))
        });
        let unconfirmed = std::mem::take(&mut self.unconfirmed).into_iter();
        let unconfirmed = unconfirmed.map(|read| (read.lsn, read.client, read.command));
        let mut taken = Vec::new();
        for (lsn, client, command) in waiting.chain(unconfirmed) {
            match last_write(client.session).is_some_and(|written| written > lsn) {
                true => self.answer(client, Lsn::ZERO, refusal.clone().into()),
                false => taken.push((client, command)),
            }
        }
        taken
    }

    /// The lowest LSN at which any read that waits is or was evaluated.
    pub fn oldest_read(&self) -> Option<Lsn> {
        let unconfirmed = self.unconfirmed.iter().map(|read| read.lsn);
        unconfirmed.chain(self.next_read()).min()
    }

    /// A snapshot has taken the state past everything up to `lsn`: the replies are not known here.
    pub fn skipped(&mut self, lsn: Lsn) {
        while self
            .ordered
            .front()
            .is_some_and(|ordered| ordered.first_lsn <= lsn)
        {
            let Some(front) = self.ordered.pop_front() else {
                break;
            };
            self.told = self.told.saturating_sub(1);
            self.tell_unknown(&front);
        }
        self.refuse_reads(&Refusal::Loading);
    }

    /// The node may no longer answer reads: all that wait are refused, none was ordered.
    pub fn refuse_reads(&mut self, refusal: &Refusal) {
        self.waits.clear();
        for (_, reads) in std::mem::take(&mut self.reads) {
            for read in reads {
                self.answer(read.client, Lsn::ZERO, refusal.clone().into());
            }
        }
        for read in std::mem::take(&mut self.unconfirmed) {
            self.answer(read.client, Lsn::ZERO, refusal.clone().into());
        }
    }

    /// Tells UNKNOWN to writes, and refuses reads, that have waited for `timeout`.
    pub fn expire(&mut self, now: Time, timeout: Duration) {
        while let Some(ordered) = self.ordered.get_mut(self.told) {
            if ordered.since.after(timeout) > now {
                break;
            }
            let silent = Ordered {
                clients: Vec::new(),
                ..*ordered
            };
            Mark::UnknownTold.hit();
            let told = std::mem::replace(ordered, silent);
            self.tell_unknown(&told);
            self.told += 1;
        }
        if self
            .next_read_timeout(timeout)
            .is_some_and(|due| due <= now)
        {
            self.refuse_reads(&Refusal::Isolated);
        }
    }

    /// When `expire` has something to do at the earliest.
    pub fn deadline(&self, timeout: Duration) -> Option<Time> {
        let write = self
            .ordered
            .get(self.told)
            .map(|ordered| ordered.since.after(timeout));
        let read = self.next_read_timeout(timeout);
        [write, read].into_iter().flatten().min()
    }

    fn next_read_timeout(&self, timeout: Duration) -> Option<Time> {
        let waiting = self
            .reads
            .first_key_value()
            .and_then(|(_, reads)| reads.first());
        let waiting = waiting.map(|read| read.since);
        let unconfirmed = self.unconfirmed.front().map(|read| read.since);
        [waiting, unconfirmed]
            .into_iter()
            .flatten()
            .min()
            .map(|since| since.after(timeout))
    }

    /// Of what is no write: as of `lsn` of the history that the state is of.
    pub fn answer(&mut self, client: Client, lsn: Lsn, reply: Reply) {
        self.answer_of(client, self.generation, Epoch(0), lsn, reply);
    }

    pub fn answer_of(
        &mut self,
        client: Client,
        generation: u64,
        epoch: Epoch,
        lsn: Lsn,
        reply: Reply,
    ) {
        let answer = Answer {
            seq: client.seq,
            lsn,
            epoch,
            generation,
            reply,
        };
        self.answers.push((client.session, answer));
    }

    pub fn refuse(&mut self, client: Client, refusal: Refusal) {
        self.answer(client, Lsn::ZERO, refusal.into());
    }

    /// The answers of this turn, in the order in which they came to be.
    pub fn take_answers(&mut self) -> Vec<(SessionId, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether anything ordered by this node has not been applied.
    pub fn has_ordered(&self) -> bool {
        !self.ordered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_wal::{Kind, Link, Position};

    #[test]
    fn who_is_primary_again_answers_above_what_of_its_first_reign_was_cut() {
        let mut pending = Pending::default();
        let client = |seq| Client {
            session: SessionId(1),
            seq,
        };
        let record = |first, epoch| {
            let before = Position {
                epoch: Epoch(epoch),
                lsn: Lsn(first - 1),
            };
            let before = Link {
                position: before,
                ..Link::default()
            };
            Record::build(before, Kind::Commands, Epoch(epoch), 9, 1, &[7; 10])
        };
        for lsn in 101..=140 {
            pending.ordered(Time::ZERO, 1, &record(lsn, 5), vec![client(lsn)]);
        }
        let second = record(105, 7);
        pending.ordered(Time::ZERO, 1, &second, vec![client(200)]);
        pending.applied(1, &second, &[Reply::Ok]);
        let answers = pending.take_answers();
        let of = |seq| answers.iter().filter(move |(_, answer)| answer.seq == seq);
        assert!(of(200).map(|(_, answer)| &answer.reply).eq([&Reply::Ok]));
        for seq in 101..=140 {
            assert_eq!(of(seq).count(), 1, "{seq}");
            assert!(of(seq).all(|(_, answer)| matches!(answer.reply, Reply::Error(_))));
        }
        assert!(!pending.has_ordered());
    }

    /// An old primary has written in epoch 7 of generation 1; who has founded generation 2 had
    /// not heard of it, and counts its epochs from 7 on, too.
    #[test]
    fn a_record_of_another_history_answers_nobody_whatever_its_epoch() {
        let record = |lsn: u64, epoch| {
            let position = Position {
                epoch: Epoch(epoch),
                lsn: Lsn(lsn - 1),
            };
            let before = Link {
                position,
                ..Link::default()
            };
            Record::build(before, Kind::Commands, Epoch(epoch), 9, 1, &[7; 10])
        };
        for (generation, epoch) in [(2, 7), (2, 6), (2, 8)] {
            let mut pending = Pending::default();
            let session = SessionId(1);
            let old = Client { session, seq: 1 };
            pending.ordered(Time::ZERO, 1, &record(100, 7), vec![old]);
            // Nor does it keep a new primary from ordering there.
            let new = Client { session, seq: 2 };
            pending.ordered(Time::ZERO, generation, &record(100, epoch), vec![new]);
            pending.applied(generation, &record(100, epoch), &[Reply::Ok]);
            let answers = pending.take_answers();
            let told: Vec<_> = answers.iter().map(|(_, a)| (a.seq, &a.reply)).collect();
            let [(1, unknown), (2, Reply::Ok)] = told[..] else {
                panic!("{told:?}")
            };
            let unknown = format!("{unknown:?}");
            assert!(unknown.contains("UNKNOWN 1 7 100"), "{unknown}");
        }
    }

    #[test]
    fn a_read_behind_what_was_refused_sees_nothing_that_is_ordered_after_it() {
        let mut pending = Pending::default();
        let session = SessionId(1);
        let client = Client { session, seq: 1 };
        let key = bytes::Bytes::from_static(b"k");
        pending.read_at(Time::ZERO, Lsn(7), client, Command::Get { key }, 0);
        pending.refused_behind(Lsn(5));
        assert_eq!(pending.waits_for(session), Some(Lsn(5)));
        pending.evaluate(Lsn(5), 0, |_| Reply::Ok);
        let lsns: Vec<_> = pending.take_answers().iter().map(|(_, a)| a.lsn).collect();
        assert_eq!((lsns, pending.waits_for(session)), (vec![Lsn(5)], None));
    }
}
