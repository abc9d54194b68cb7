//! What clients asked and were told: one entry per request, in the order in which they were asked.

use crate::simulate::clients::Claim;
use bytes::Bytes;
use standfast::node::client::{Answer, SessionId};
use standfast::state::{Command, Reply};
use standfast_wal::{Epoch, History, Lsn};
use std::collections::BTreeMap;

/// The place of an operation in the history.
pub type Id = usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    Write,
    /// Linearizable.
    Read,
    /// Of the node's own state, within `max_staleness`.
    Stale,
}

/// How a request ended for its client.
#[derive(Clone, Debug)]
pub enum End {
    Open,
    Answered {
        returned: u64,
        /// The history that the answering node lived in.
        history: History,
        lsn: Lsn,
        epoch: Epoch,
        reply: Reply,
    },
    /// A definite no: it must never take effect.
    Refused,
    /// Nobody said; where UNKNOWN came, what it named.
    Unknown(Option<Claim>),
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub session: SessionId,
    /// The node that was asked; for the story.
    #[expect(dead_code, reason = "printed with a failure")]
    pub at: usize,
    pub invoked: u64,
    pub asks: Asks,
    pub command: Command,
    pub encoded: Bytes,
    pub end: End,
}

/// Whether these bytes are ordered once in a run: they hold a value of one client's own, as
/// `c3-14;`.
pub fn is_unique(encoded: &[u8]) -> bool {
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut starts = (0..encoded.len()).filter(|at| encoded[*at] == b'c');
    starts.any(|at| {
        let rest = &encoded[at + 1..];
        let client = digits(rest);
        let Some((b'-', rest)) = rest[client..].split_first() else {
            return false;
        };
        let number = digits(rest);
        client > 0 && number > 0 && rest.get(number) == Some(&b';')
    })
}

#[derive(Default)]
pub struct Histories {
    pub operations: Vec<Operation>,
    /// What each token was answered in each history: always the same.
    tokens: BTreeMap<(History, usize, u64), Reply>,
}

impl Histories {
    pub fn invoke(
        &mut self,
        invoked: u64,
        session: SessionId,
        at: usize,
        asks: Asks,
        command: Command,
        encoded: Bytes,
    ) -> Id {
        self.operations.push(Operation {
            session,
            at,
            invoked,
            asks,
            command,
            encoded,
            end: End::Open,
        });
        self.operations.len() - 1
    }

    pub fn get(&self, id: Id) -> &Operation {
        &self.operations[id]
    }

    pub fn is_write(&self, id: Id) -> bool {
        self.operations[id].asks == Asks::Write
    }

    pub fn is_stale(&self, id: Id) -> bool {
        self.operations[id].asks == Asks::Stale
    }

    pub fn answered(&mut self, id: Id, returned: u64, history: History, answer: &Answer) {
        self.operations[id].end = End::Answered {
            returned,
            history,
            lsn: answer.lsn,
            epoch: answer.epoch,
            reply: answer.reply.clone(),
        };
    }

    pub fn refused(&mut self, id: Id) {
        self.operations[id].end = End::Refused;
    }

    pub fn unknown(&mut self, id: Id, claim: Option<Claim>) {
        self.operations[id].end = End::Unknown(claim);
    }

    /// The same token is answered the same, always: but a newer history may have lost the first
    /// run.
    pub fn once(
        &mut self,
        history: History,
        (client, token): (usize, u64),
        reply: &Reply,
    ) -> Result<(), String> {
        let known = self
            .tokens
            .entry((history, client, token))
            .or_insert_with(|| reply.clone());
        if known != reply {
            return Err(format!(
                "ONCE: token t{client}-{token} was answered {known:?} and then {reply:?}"
            ));
        }
        Ok(())
    }

    /// Operations of one session take effect in the order in which they were asked.
    pub fn session_order(&self) -> Result<(), String> {
        let mut last: BTreeMap<SessionId, &Operation> = BTreeMap::new();
        for operation in &self.operations {
            let End::Answered { lsn, history, .. } = operation.end else {
                continue;
            };
            if operation.asks == Asks::Stale {
                continue;
            }
            if let Some(before) = last.insert(operation.session, operation)
                && let End::Answered {
                    lsn: earlier,
                    history: same,
                    ..
                } = before.end
                && same == history
            {
                let in_order = match operation.asks {
                    Asks::Write => earlier < lsn,
                    _ => earlier <= lsn,
                };
                if !in_order {
                    return Err(format!(
                        "I4: one session asked {before:?} and then {operation:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
