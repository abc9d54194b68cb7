//! What a client makes of an answer: notes it in the history, and what it does next.

use super::{CONNECTION_BITS, Claim, Script, What};
use crate::simulate::world::World;
use standfast::node::client::{Answer, SessionId};
use standfast::state::Reply;
use standfast_wal::{Epoch, Lsn};

/// Before a client settles for not knowing.
const OUTCOME_TRIES: u32 = 8;
const TOKEN_TRIES: u32 = 30;

impl World {
    pub fn answered(
        &mut self,
        node: usize,
        session: SessionId,
        answer: Answer,
    ) -> Result<(), String> {
        let number = (session.0 >> CONNECTION_BITS) as usize;
        let connection = session.0 & ((1 << CONNECTION_BITS) - 1);
        let Some(client) = self.clients.list.get_mut(number) else {
            return self.operator_answered(node, session, answer);
        };
        self.digest.add(answer.lsn.0 ^ answer.seq << 40);
        // The connection was given up: nobody reads what comes on it.
        if client.connection != connection || client.at != node {
            return Ok(());
        }
        let is_it = |asked: &super::Asked| asked.seq == answer.seq;
        let Some(place) = client.asked.iter().position(is_it) else {
            return Err(format!("{session:?} has two answers to {}", answer.seq));
        };
        let asked = client.asked.swap_remove(place);
        let satisfied = self.take_answer(number, asked.what, answer)?;
        if !satisfied {
            self.summary.refused += 1;
        }
        if self.clients.list[number].asked.is_empty() {
            if !satisfied || self.dice.clients.one_in(200) {
                self.move_on(number);
            }
            self.next_step(number);
        }
        Ok(())
    }

    /// False when the client should rather go elsewhere.
    fn take_answer(&mut self, number: usize, what: What, answer: Answer) -> Result<bool, String> {
        match what {
            What::Data(id) | What::Once(id, _) | What::Watch(id) | What::Accounts(id) => {
                if let Reply::Error(said) = &answer.reply {
                    let said = String::from_utf8_lossy(said).into_owned();
                    if said.starts_with("UNKNOWN") {
                        let claim = claim_of(&said);
                        self.observer.history.unknown(id, claim);
                        self.summary.unknown += 1;
                        self.ask_again_later(number, claim);
                        return Ok(false);
                    }
                    if answer.lsn == Lsn::ZERO {
                        self.observer.history.refused(id);
                        return Ok(false);
                    }
                }
                self.take_data(number, &what, id, answer)?;
                Ok(true)
            }
            What::Outcome(claim) => {
                self.take_outcome(number, claim, &answer);
                Ok(true)
            }
            What::Receipt(_) | What::Copies(_) | What::Seen(_) | What::WaitLsn(_) => {
                self.take_word(number, &what, &answer)?;
                Ok(true)
            }
        }
    }

    /// What a node says of what was written.
    fn take_word(&mut self, number: usize, what: &What, answer: &Answer) -> Result<(), String> {
        let client = &mut self.clients.list[number];
        let (at, reply, nodes) = (client.at, &answer.reply, &self.nodes);
        match what {
            What::Receipt(write) => {
                client.script = Script::Nothing;
                self.summary.receipts += 1;
                let place = (write.reign, write.lsn);
                self.observer.receipt(at, nodes, place, reply)
            }
            What::Copies(write) => {
                client.script = Script::Nothing;
                let place = (write.reign, write.lsn);
                self.observer.waited_for_copies(at, nodes, place, reply)
            }
            What::Seen(write) => self.observer.seen(at, nodes, write, reply),
            What::WaitLsn(lsn) => self
                .observer
                .waited_for(at, nodes, (*lsn, answer.lsn), reply),
            _ => unreachable!("the caller has looked"),
        }
    }

    fn take_data(
        &mut self,
        number: usize,
        what: &What,
        id: usize,
        answer: Answer,
    ) -> Result<(), String> {
        let at = self.clients.list[number].at;
        let (lsn, epoch) = (answer.lsn, answer.epoch);
        let written = self
            .observer
            .answered(self.now, at, &self.nodes, id, &answer)?;
        let is_write = self.observer.history.is_write(id);
        if is_write {
            let asked = self.observer.history.operations[id].invoked;
            self.clients.wrote = self.clients.wrote.max(Some(asked));
        }
        self.summary.writes += u64::from(is_write);
        self.summary.reads += u64::from(!is_write);
        let client = &mut self.clients.list[number];
        // A read names no epoch, and no point therefore.
        if epoch != Epoch(0) {
            client.seen = Some(written);
        }
        match (what, &mut client.script) {
            // A definite no: nothing was done, and nothing is remembered.
            (What::Once(..), script) if is_full(&answer.reply) => *script = Script::Nothing,
            (What::Once(_, token), script) => {
                // Now and then once more, as if the answer had been lost.
                if !self.dice.clients.one_in(8) {
                    *script = Script::Nothing;
                }
                let (history, token) = (written.history, (number, *token));
                self.observer.history.once(history, token, &answer.reply)?;
            }
            (
                What::Watch(_),
                Script::Transfer { revisions, .. } | Script::Lock { revisions, .. },
            ) => {
                *revisions = integers(&answer.reply)
                    .map(|all| all.into_iter().map(|one| Lsn(one as u64)).collect());
            }
            (What::Data(_), Script::Transfer { balances, .. }) => {
                *balances = integers(&answer.reply);
            }
            (What::Accounts(_), _) => {
                let balances = integers(&answer.reply).ok_or("an account is no number")?;
                let sum: i64 = balances.iter().sum();
                if sum != 0 {
                    return Err(format!(
                        "I4: money was made: {balances:?} at {lsn}, sum {sum}"
                    ));
                }
            }
            // Now and then once more, as if the answer had been lost.
            (What::Data(_), script @ Script::Retry { token: None, .. })
                if is_write && !self.dice.ledger.one_in(6) =>
            {
                *script = Script::Nothing;
            }
            (What::Data(_), script @ Script::Nothing)
                if is_write && self.dice.clients.one_in(30) =>
            {
                *script = match self.dice.clients.one_in(3) {
                    true => Script::Copies(written),
                    false => Script::Receipt(written),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// A token is tried again; of anything else OUTCOME knows more.
    fn ask_again_later(&mut self, number: usize, claim: Option<Claim>) {
        let client = &mut self.clients.list[number];
        match &mut client.script {
            Script::Retry { tries, .. } => {
                *tries += 1;
                if *tries > TOKEN_TRIES {
                    client.script = Script::Nothing;
                }
            }
            script => {
                *script = match claim {
                    Some(claim) => Script::Outcome { claim, tries: 0 },
                    None => Script::Nothing,
                };
            }
        }
    }

    fn take_outcome(&mut self, number: usize, claim: Claim, answer: &Answer) {
        let at = self.clients.list[number].at;
        let told = self.observer.outcome(at, &self.nodes, claim, &answer.reply);
        self.summary.outcomes += u64::from(told);
        let Script::Outcome { tries, .. } = &mut self.clients.list[number].script else {
            return;
        };
        *tries += 1;
        if told || *tries > OUTCOME_TRIES {
            self.clients.list[number].script = Script::Nothing;
        } else if self.dice.clients.one_in(2) {
            self.move_on(number);
        }
    }
}

/// What `UNKNOWN <generation> <epoch> <lsn>` names; `None` for zeros: it never came back.
fn claim_of(said: &str) -> Option<Claim> {
    let mut numbers = said.split(' ').skip(1).map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (generation, epoch, lsn) = (next()?, next()?, next()?);
    (lsn > 0).then_some(Claim {
        generation,
        epoch: Epoch(epoch),
        lsn: Lsn(lsn),
    })
}

fn is_full(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(said) if said.starts_with(b"ONCEFULL"))
}

/// An array of numbers; what is not there counts as 0.
fn integers(reply: &Reply) -> Option<Vec<i64>> {
    let Reply::Array(items) = reply else {
        return None;
    };
    let number = |item: &Reply| match item {
        Reply::Int(number) => Some(*number),
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        Reply::Nil => Some(0),
        _ => None,
    };
    items.iter().map(number).collect()
}
