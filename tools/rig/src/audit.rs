//! The bank's audit: replays every transfer in the order that the answers themselves give, and
//! compares each answer, each look at the accounts and the final state with what the order makes
//! of them. Strict serializability in linear time: the count in a transfer's answer is its place.

use crate::bank::{Id, Look, Notes, OPENING, Transfer, final_look, marker, print_of};
use crate::resp::Conn;
use std::collections::BTreeMap;
use std::time::Instant;

/// How many stories of one kind are told; the numbers count all of them.
const STORIES: usize = 20;

/// Everything that was seen of a bank.
pub struct History {
    accounts: usize,
    /// In the order of their counts.
    pub transfers: Vec<Transfer>,
    refused: Vec<Id>,
    open: Vec<Id>,
    /// In the order of their counts.
    looks: Vec<Look>,
    wrong: Vec<String>,
    pub refusals: BTreeMap<String, u64>,
    pub reconnects: u64,
}

/// What the audit found.
#[derive(Debug, Default, Clone)]
pub struct Audit {
    pub acknowledged: u64,
    /// Acknowledged transfers that are not in the history.
    pub lost: u64,
    /// Places in the history that no acknowledged transfer holds: something ran twice, or ran
    /// although it was refused.
    pub doubled: u64,
    /// Transfers that were refused for good, and how many of them ran all the same.
    pub refused: u64,
    pub refused_ran: u64,
    /// Transfers that never had a definite answer.
    pub open: u64,
    /// Linearizable looks at all accounts, and looks at backups.
    pub looks: u64,
    pub stale_looks: u64,
    /// Transfers whose LSN a receipt told.
    pub receipts: u64,
    pub conserved: bool,
    /// Answers that the order of the transfers does not give; the first few in words.
    pub contradictions: u64,
    pub stories: Vec<String>,
}

impl Audit {
    /// Whether every transfer happened exactly once and everybody saw it so.
    pub fn is_clean(&self) -> bool {
        self.conserved
            && self.lost + self.doubled + self.refused_ran + self.open + self.contradictions == 0
    }

    /// Panics unless it is.
    pub fn assert_clean(&self) {
        assert!(
            self.is_clean(),
            "every transfer exactly once, as told: {self:#?}"
        );
    }

    fn contradict(&mut self, story: String) {
        self.contradictions += 1;
        if self.stories.len() < STORIES {
            self.stories.push(story);
        }
    }
}

impl History {
    pub(crate) fn gather(accounts: usize, notes: impl Iterator<Item = Notes>) -> History {
        let mut history = History {
            accounts,
            transfers: Vec::new(),
            refused: Vec::new(),
            open: Vec::new(),
            looks: Vec::new(),
            wrong: Vec::new(),
            refusals: BTreeMap::new(),
            reconnects: 0,
        };
        for note in notes {
            history.transfers.extend(note.transfers);
            history.refused.extend(note.refused);
            history.open.extend(note.open);
            history.looks.extend(note.looks);
            history.wrong.extend(note.wrong);
            history.reconnects += note.reconnects;
            for (word, count) in note.refusals {
                *history.refusals.entry(word).or_default() += count;
            }
        }
        history
            .transfers
            .sort_by_key(|transfer| transfer.reply.count);
        history.looks.sort_by_key(|look| look.count);
        history
    }

    /// Holds everything against the final state as this connection, to the primary, shows it.
    pub fn audit(&self, conn: &mut Conn) -> Audit {
        let (count, balances) = final_look(conn, self.accounts);
        let mut audit = self.replay(count, &balances);
        audit.lost += self.missing_markers(conn);
        audit.refused_ran = self.refused_markers(conn);
        audit
    }

    /// All but the markers, which only a cluster has.
    fn replay(&self, count: i64, balances: &[i64]) -> Audit {
        let stale = self.looks.iter().filter(|look| look.stale).count() as u64;
        let mut audit = Audit {
            acknowledged: self.transfers.len() as u64,
            refused: self.refused.len() as u64,
            open: self.open.len() as u64,
            looks: self.looks.len() as u64 - stale,
            stale_looks: stale,
            conserved: balances.iter().sum::<i64>() == OPENING * self.accounts as i64,
            contradictions: self.wrong.len() as u64,
            stories: self.wrong.iter().take(STORIES).cloned().collect(),
            ..Audit::default()
        };
        let mut bank = vec![OPENING; self.accounts];
        let mut looks = self.looks.as_slice();
        let mut at = 0;
        check_looks(&mut looks, at, &bank, &mut audit);
        for transfer in &self.transfers {
            let place = transfer.reply.count;
            if place <= at {
                audit.lost += 1;
                audit.contradict(format!("two transfers at place {place}, one: {transfer:?}"));
                continue;
            }
            audit.doubled += (place - at - 1).unsigned_abs();
            at = place;
            bank[transfer.from] -= transfer.amount;
            bank[transfer.to] += transfer.amount;
            let expected = (bank[transfer.from], bank[transfer.to]);
            if expected != (transfer.reply.from, transfer.reply.to) {
                audit.contradict(format!("{expected:?} was to be the answer of {transfer:?}"));
            }
            check_looks(&mut looks, at, &bank, &mut audit);
        }
        for look in looks {
            audit.contradict(format!("a look behind the last transfer {at}: {look:?}"));
        }
        audit.lost += (at - count).max(0).unsigned_abs();
        audit.doubled += (count - at).max(0).unsigned_abs();
        if bank != balances {
            audit.contradict(format!("the balances are {balances:?}, not {bank:?}"));
        }
        self.check_order(&mut audit);
        audit
    }

    /// Places follow real time, and the LSNs follow the places.
    fn check_order(&self, audit: &mut Audit) {
        let mut earliest: Option<Instant> = None;
        for transfer in self.transfers.iter().rev() {
            if earliest.is_some_and(|told| told < transfer.invoked) {
                audit.contradict(format!(
                    "one at a later place was acknowledged before it began: {transfer:?}"
                ));
            }
            let told = transfer.acknowledged;
            earliest = Some(earliest.map_or(told, |earliest| earliest.min(told)));
        }
        let mut highest = 0;
        for transfer in &self.transfers {
            let Some(lsn) = transfer.lsn else { continue };
            audit.receipts += 1;
            if lsn <= highest {
                audit.contradict(format!("an LSN not above {highest}: {transfer:?}"));
            }
            highest = highest.max(lsn);
        }
    }

    fn missing_markers(&self, conn: &mut Conn) -> u64 {
        let mut missing = 0;
        for transfers in self.transfers.chunks(500) {
            let values = read_markers(conn, transfers.iter().map(|transfer| transfer.id));
            let pairs = transfers.iter().zip(values);
            missing += pairs
                .filter(|(transfer, value)| *value != transfer.amount.to_string())
                .count() as u64;
        }
        missing
    }

    fn refused_markers(&self, conn: &mut Conn) -> u64 {
        let mut ran = 0;
        for ids in self.refused.chunks(500) {
            let values = read_markers(conn, ids.iter().copied());
            ran += values.iter().filter(|value| !value.is_empty()).count() as u64;
        }
        ran
    }
}

fn read_markers(conn: &mut Conn, ids: impl Iterator<Item = Id>) -> Vec<String> {
    let mut command = vec!["MGET".to_owned()];
    command.extend(ids.map(marker));
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let values = conn.call(&words).expect("MGET is answered").array();
    assert_eq!(values.len(), words.len() - 1, "MGET answers every key");
    values.iter().map(crate::resp::Value::text).collect()
}

/// Takes the looks at this place off the front: they must show these balances.
fn check_looks(looks: &mut &[Look], at: i64, bank: &[i64], audit: &mut Audit) {
    let Some(first) = looks.first() else { return };
    if first.count > at {
        return;
    }
    let print = print_of(bank);
    while let Some((look, rest)) = looks.split_first() {
        if look.count > at {
            return;
        }
        if look.count != at || look.print != print {
            audit.contradict(format!("a look at {at} shows other balances: {look:?}"));
        }
        *looks = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Reply;
    use std::time::Duration;

    /// Two accounts; one transfer of 10 from the first to the second for each count.
    fn history(counts: &[i64]) -> History {
        let begin = Instant::now();
        let transfers = counts.iter().enumerate().map(|(number, &count)| Transfer {
            id: (0, number as u64),
            from: 0,
            to: 1,
            amount: 10,
            invoked: begin + Duration::from_millis(2 * number as u64),
            acknowledged: begin + Duration::from_millis(2 * number as u64 + 1),
            reply: Reply {
                from: OPENING - 10 * count,
                to: OPENING + 10 * count,
                count,
            },
            lsn: Some(100 + count),
        });
        let notes = Notes {
            transfers: transfers.collect(),
            looks: vec![look(2, 2)],
            ..Notes::default()
        };
        History::gather(2, [notes].into_iter())
    }

    fn look(count: i64, shows: i64) -> Look {
        Look {
            count,
            print: print_of(&balances(shows)),
            stale: false,
        }
    }

    fn balances(count: i64) -> [i64; 2] {
        [OPENING - 10 * count, OPENING + 10 * count]
    }

    #[test]
    fn a_history_without_fault_is_clean() {
        let audit = history(&[1, 2, 3]).replay(3, &balances(3));
        audit.assert_clean();
        assert_eq!((audit.acknowledged, audit.looks, audit.receipts), (3, 1, 3));
    }

    #[test]
    fn what_is_wrong_is_found() {
        // A place given twice: what held it first was lost.
        assert_eq!(history(&[1, 2, 2]).replay(2, &balances(2)).lost, 1);
        // The end is missing.
        assert_eq!(history(&[1, 2, 3]).replay(2, &balances(2)).lost, 1);
        // Something ran that nobody was told of, in the middle and at the end.
        assert_eq!(history(&[1, 3]).replay(3, &balances(3)).doubled, 1);
        assert_eq!(history(&[1, 2]).replay(3, &balances(3)).doubled, 1);
        // Money came out of nothing.
        let made = history(&[1, 2]).replay(2, &[OPENING, OPENING + 20]);
        assert!(!made.conserved && made.contradictions == 1);
        // A look that shows what never was, and one from beyond the end.
        for wrong in [look(1, 2), look(7, 7)] {
            let mut seen = history(&[1, 2, 3]);
            seen.looks.push(wrong);
            seen.looks.sort_by_key(|look| look.count);
            assert_eq!(seen.replay(3, &balances(3)).contradictions, 1, "{wrong:?}");
        }
        // Places against real time, and LSNs against places.
        let mut turned = history(&[2, 1]);
        let audit = turned.replay(2, &balances(2));
        assert_eq!(audit.contradictions, 1, "{audit:?}");
        turned.transfers[0].invoked = turned.transfers[1].invoked;
        turned.transfers[1].lsn = Some(1);
        let audit = turned.replay(2, &balances(2));
        assert_eq!(audit.contradictions, 1, "{audit:?}");
    }
}
