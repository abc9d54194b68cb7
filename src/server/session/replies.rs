//! Replies in the order of their commands, whatever the order in which answers come.

use crate::node::client::Answer;
use crate::server::resp::{self, Protocol};
use crate::state::Reply;
use bytes::{Bytes, BytesMut};
use standfast_wal::{Epoch, Lsn};
use std::collections::VecDeque;

/// What an answer is for, besides the client.
#[derive(Debug)]
pub enum Purpose {
    Read,
    Write,
    Control,
    /// The keys' revisions are noted for EXEC.
    Watch(Vec<Bytes>),
    /// A revision becomes a fencing token.
    Token,
    /// WAITAOF answers two numbers.
    WaitAof,
}

/// The place of one reply.
#[derive(Debug)]
pub struct Slot {
    pub purpose: Purpose,
    /// CLIENT REPLY OFF or SKIP: nothing is written.
    pub is_silent: bool,
    answer: Option<Answer>,
}

/// An answer whose turn has come.
#[derive(Debug)]
pub struct Settled {
    pub slot: Slot,
    pub answer: Answer,
}

/// Which commands are not replied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Silence {
    #[default]
    None,
    /// The next command only.
    Next,
    All,
}

#[derive(Debug, Default)]
pub struct Replies {
    /// Every command that is not answered yet, or waits for one before it; numbered upwards.
    slots: VecDeque<Slot>,
    first_seq: u64,
    /// What the client is sent next.
    pub out: BytesMut,
    pub protocol: Protocol,
    pub silence: Silence,
}

impl Replies {
    /// Everything so far is answered.
    pub fn is_quiet(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The number of the first command that is not answered.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Makes a place for the next command's reply; its number goes with the request.
    pub fn expect(&mut self, purpose: Purpose) -> u64 {
        let is_silent = self.is_silent();
        self.push(purpose, is_silent, None)
    }

    /// The next command's reply, known at once.
    pub fn put(&mut self, reply: Reply) {
        let is_silent = self.is_silent();
        if self.slots.is_empty() {
            self.first_seq += 1;
            self.write(&reply, is_silent);
            return;
        }
        let answer = Answer {
            seq: 0,
            lsn: Lsn::ZERO,
            epoch: Epoch(0),
            generation: 0,
            reply,
        };
        self.push(Purpose::Control, is_silent, Some(answer));
    }

    /// Notes an answer; gives it back when its turn has come. Then `next_ready` may have more.
    pub fn accept(&mut self, answer: Answer) -> Option<Settled> {
        assert!(
            answer.seq >= self.first_seq,
            "answer {} came a second time, {} is next",
            answer.seq,
            self.first_seq
        );
        if answer.seq == self.first_seq {
            let slot = self
                .slots
                .pop_front()
                .expect("an answer belongs to a request");
            self.first_seq += 1;
            return Some(Settled { slot, answer });
        }
        let at = usize::try_from(answer.seq - self.first_seq).expect("slots are in memory");
        let slot = self
            .slots
            .get_mut(at)
            .expect("an answer belongs to a request");
        slot.answer = Some(answer);
        None
    }

    /// The next reply whose answer is there already.
    pub fn next_ready(&mut self) -> Option<Settled> {
        let answer = self.slots.front_mut()?.answer.take()?;
        let slot = self.slots.pop_front().expect("the slot was just looked at");
        self.first_seq += 1;
        Some(Settled { slot, answer })
    }

    pub fn write(&mut self, reply: &Reply, is_silent: bool) {
        if !is_silent {
            resp::write(reply, self.protocol, &mut self.out);
        }
    }

    fn push(&mut self, purpose: Purpose, is_silent: bool, answer: Option<Answer>) -> u64 {
        let seq = self.first_seq + self.slots.len() as u64;
        self.slots.push_back(Slot {
            purpose,
            is_silent,
            answer,
        });
        seq
    }

    /// Whether the next command's reply is left out; SKIP is used up by it.
    fn is_silent(&mut self) -> bool {
        match self.silence {
            Silence::None => false,
            Silence::All => true,
            Silence::Next => {
                self.silence = Silence::None;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(seq: u64, value: i64) -> Answer {
        Answer {
            seq,
            lsn: Lsn(seq),
            epoch: Epoch(1),
            generation: 1,
            reply: Reply::Int(value),
        }
    }

    fn drain(replies: &mut Replies, first: Option<Settled>) {
        let mut next = first;
        while let Some(Settled { slot, answer }) = next {
            replies.write(&answer.reply, slot.is_silent);
            next = replies.next_ready();
        }
    }

    #[test]
    fn answers_in_any_order_are_written_in_the_order_of_the_commands() {
        let orders = [
            [0, 1, 3],
            [0, 3, 1],
            [1, 0, 3],
            [1, 3, 0],
            [3, 0, 1],
            [3, 1, 0],
        ];
        for order in orders {
            let mut replies = Replies::default();
            let seqs = [
                replies.expect(Purpose::Read),
                replies.expect(Purpose::Write),
            ];
            replies.put(Reply::Int(2));
            let last = replies.expect(Purpose::Read);
            assert_eq!((seqs, last), ([0, 1], 3));
            for seq in order {
                let settled = replies.accept(answer(seq, i64::try_from(seq).expect("small")));
                drain(&mut replies, settled);
            }
            assert!(replies.is_quiet());
            assert_eq!(&replies.out[..], b":0\r\n:1\r\n:2\r\n:3\r\n");
            replies.put(Reply::Int(4));
            assert_eq!(
                replies.expect(Purpose::Read),
                5,
                "a reply known at once has a number too"
            );
        }
    }

    #[test]
    fn a_skipped_reply_keeps_its_place_and_is_not_written() {
        let mut replies = Replies {
            silence: Silence::Next,
            ..Replies::default()
        };
        replies.expect(Purpose::Read);
        replies.expect(Purpose::Read);
        for seq in [1, 0] {
            let settled = replies.accept(answer(seq, i64::try_from(seq).expect("small")));
            drain(&mut replies, settled);
        }
        assert_eq!(&replies.out[..], b":1\r\n");
    }
}
