//! The replies of the newest applied commands, kept on every data node for OUTCOME; pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use crate::state::Reply;
use standfast_wal::{Lsn, Record};
use std::collections::VecDeque;

/// Replies by LSN, dense, of the newest `limits::OUTCOMES_MAX` commands.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The LSN of the last reply; meaningless while empty.
    last: Lsn,
    /// `None`: too large to keep, or a record that answers nobody.
    replies: VecDeque<Option<Reply>>,
}

/// What is known of an applied command's reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    Reply(Reply),
    /// Too large to be kept, or not a client's command.
    NotKept,
    /// Older than what is kept.
    Gone,
}

impl Outcomes {
    /// Takes what a record's commands answered; nothing of records that answer nobody.
    pub fn push(&mut self, record: &Record, replies: &mut Vec<Reply>) {
        if self.last.next() != record.first_lsn() {
            self.replies.clear();
        }
        let mut replies = replies.drain(..);
        for _ in 0..record.count() {
            self.replies.push_back(replies.next().filter(is_small));
        }
        while self.replies.len() > limits::OUTCOMES_MAX {
            self.replies.pop_front();
        }
        self.last = record.last_lsn();
    }

    /// The state has become another one: nothing is known of how that came about.
    pub fn clear(&mut self) {
        self.replies.clear();
    }

    pub fn get(&self, lsn: Lsn) -> Known {
        let age = lsn.distance_to(self.last) as usize;
        match self
            .replies
            .len()
            .checked_sub(age + 1)
            .and_then(|at| self.replies.get(at))
        {
            Some(Some(reply)) => Known::Reply(reply.clone()),
            Some(None) => Known::NotKept,
            None => Known::Gone,
        }
    }
}

fn is_small(reply: &Reply) -> bool {
    match reply {
        Reply::Bulk(bytes) | Reply::Error(bytes) => bytes.len() <= limits::OUTCOME_BYTES_MAX,
        Reply::Array(items) => items.len() <= 16 && items.iter().all(is_small),
        Reply::Map(pairs) => pairs.len() <= 8,
        _ => true,
    }
}
