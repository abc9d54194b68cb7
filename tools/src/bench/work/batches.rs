//! Batches of accounts and transfers through the ledger's binary face. A request is encoded once;
//! then only ids and account numbers are patched.

use super::super::load::{Answer, Work};
use super::skew::Skew;
use anyhow::{bail, ensure};
use rig::resp::encode;
use standfast::client::ledger::{Account, CREATED, TRANSFER_EXISTS, Transfer};

/// Ids of accounts count from here, so that all have the same number of digits.
pub const FIRST_ACCOUNT: u64 = 1_000_000_000;

pub const LEDGER: u32 = 1;
pub const CODE: u16 = 1;

const RECORD_BYTES: usize = 128;
const RESULT_BYTES: usize = 16;

/// What the transfers of a batch are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Mix {
    /// Each moves money at once.
    Single,
    /// A third moves money at once, a third holds it, and a third posts (nine of ten) or voids what
    /// the batch before held.
    TwoPhase,
}

/// Transfers, as many as are asked for.
pub struct Transfers {
    skew: Skew,
    mix: Mix,
    batch: usize,
    head: usize,
    blank: Vec<u8>,
    /// The ids are `run << 64 | number`.
    run: u64,
    next: u64,
    /// `None` is without end.
    left: Option<u64>,
    /// By connection: the first id of its batch before.
    before: Vec<Option<u64>>,
}

impl Transfers {
    /// `run` keeps the ids of two loads on one ledger apart.
    pub fn new(skew: Skew, mix: Mix, batch: usize, run: u64) -> Transfers {
        let transfer = Transfer::new(1, 1, 2, 1).in_ledger(LEDGER, CODE);
        let (blank, head) = request("LEDGER.CREATE_TRANSFERS", &transfer.to_bytes(), batch);
        Transfers {
            skew,
            mix,
            batch,
            head,
            blank,
            run,
            next: 1,
            left: None,
            before: Vec::new(),
        }
    }

    /// Ends after so many, rounded up to whole batches.
    pub fn up_to(self, transfers: u64) -> Transfers {
        Transfers {
            left: Some(transfers),
            ..self
        }
    }

    fn two_phase(&mut self, line: usize, records: &mut [u8]) {
        if self.before.len() <= line {
            self.before.resize(line + 1, None);
        }
        let before = self.before[line].replace(self.next);
        let first = self.next;
        for (number, record) in records.chunks_exact_mut(RECORD_BYTES).enumerate() {
            let id = first + number as u64;
            let transfer = match (number % 3, before) {
                (1, _) => self.draw(id).pending(0),
                (2, Some(before)) => {
                    let (id, held) = (self.wide(id), self.wide(before + number as u64 - 1));
                    let resolved = match number % 10 {
                        0 => Transfer::void(id, held),
                        _ => Transfer::post(id, held, u128::MAX),
                    };
                    resolved.in_ledger(LEDGER, CODE)
                }
                _ => self.draw(id),
            };
            record.copy_from_slice(&transfer.to_bytes());
        }
    }

    fn draw(&mut self, id: u64) -> Transfer {
        let (debit, credit) = self.skew.pair();
        let account = |number| u128::from(FIRST_ACCOUNT + number);
        Transfer::new(self.wide(id), account(debit), account(credit), 1).in_ledger(LEDGER, CODE)
    }

    fn wide(&self, id: u64) -> u128 {
        u128::from(self.run) << 64 | u128::from(id)
    }
}

impl Work for Transfers {
    fn blank(&self) -> Vec<u8> {
        self.blank.clone()
    }

    fn next(&mut self, line: usize, request: &mut Vec<u8>) -> Option<u64> {
        let count = self.batch as u64;
        if let Some(left) = &mut self.left {
            if *left == 0 {
                return None;
            }
            *left = left.saturating_sub(count);
        }
        let records = &mut request[self.head..self.head + self.batch * RECORD_BYTES];
        match self.mix {
            Mix::Single => {
                let records = records.chunks_exact_mut(RECORD_BYTES);
                for (id, record) in (self.next..).zip(records) {
                    let (debit, credit) = self.skew.pair();
                    record[..8].copy_from_slice(&id.to_le_bytes());
                    record[8..16].copy_from_slice(&self.run.to_le_bytes());
                    record[16..24].copy_from_slice(&(FIRST_ACCOUNT + debit).to_le_bytes());
                    record[32..40].copy_from_slice(&(FIRST_ACCOUNT + credit).to_le_bytes());
                }
            }
            Mix::TwoPhase => self.two_phase(line, records),
        }
        self.next += count;
        Some(count)
    }

    fn answer(&mut self, _: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        results(input, self.batch, |status| {
            status == CREATED || status == TRANSFER_EXISTS
        })
    }
}

/// Opens accounts, each once.
pub struct Accounts {
    count: u64,
    next: u64,
    batch: usize,
    head: usize,
    blank: Vec<u8>,
}

impl Accounts {
    /// `count` accounts, from the first id on; the last batch may go beyond.
    pub fn new(count: u64, batch: usize) -> Accounts {
        let batch = batch.min(count as usize);
        let account = Account::new(1, LEDGER, CODE);
        let (blank, head) = request("LEDGER.CREATE_ACCOUNTS", &account.to_bytes(), batch);
        Accounts {
            count,
            next: 0,
            batch,
            head,
            blank,
        }
    }
}

impl Work for Accounts {
    fn blank(&self) -> Vec<u8> {
        self.blank.clone()
    }

    fn next(&mut self, _: usize, request: &mut Vec<u8>) -> Option<u64> {
        if self.next >= self.count {
            return None;
        }
        let records = &mut request[self.head..self.head + self.batch * RECORD_BYTES];
        for record in records.chunks_exact_mut(RECORD_BYTES) {
            record[..8].copy_from_slice(&(FIRST_ACCOUNT + self.next).to_le_bytes());
            self.next += 1;
        }
        Some(self.batch as u64)
    }

    fn answer(&mut self, _: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        results(input, self.batch, |status| status == CREATED)
    }
}

/// A command with so many records like this one, and where the first stands.
fn request(command: &str, record: &[u8; RECORD_BYTES], batch: usize) -> (Vec<u8>, usize) {
    let records = record.repeat(batch);
    let mut bytes = Vec::new();
    encode(&mut bytes, [command.as_bytes(), &records].into_iter());
    // The records and a line's end stand last.
    let head = bytes.len() - records.len() - 2;
    (bytes, head)
}

/// An answer with so many results, each of which must be right.
fn results(input: &[u8], count: usize, is_right: fn(u32) -> bool) -> anyhow::Result<Answer> {
    if input[0] == b'-' {
        return refusal(input);
    }
    ensure!(input[0] == b'$', "an answer that is no bulk string");
    let Some(line) = input.iter().position(|byte| *byte == b'\n') else {
        return Ok(Answer::Incomplete);
    };
    let end = line + 1 + count * RESULT_BYTES + 2;
    if input.len() < end {
        return Ok(Answer::Incomplete);
    }
    let length = std::str::from_utf8(&input[1..line - 1])?;
    ensure!(
        length.parse() == Ok(count * RESULT_BYTES),
        "{length} bytes for {count} events"
    );
    for result in input[line + 1..end - 2].as_chunks::<RESULT_BYTES>().0 {
        let status = u32::from_le_bytes([result[8], result[9], result[10], result[11]]);
        ensure!(
            is_right(status),
            "an event was refused with status {status}"
        );
    }
    Ok(Answer::Done(end))
}

/// What an error says of where to ask; any other is the end.
pub fn refusal(input: &[u8]) -> anyhow::Result<Answer> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return Ok(Answer::Incomplete);
    };
    let text = String::from_utf8_lossy(&input[1..end]);
    let word = text.split_whitespace().next().unwrap_or_default();
    match word {
        "READONLY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "UNKNOWN" => Ok(Answer::Elsewhere),
        _ => bail!("refused: {}", text.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patched_records_are_the_transfers_they_should_be() {
        let skew = Skew::uniform(10);
        let mut work = Transfers::new(skew, Mix::Single, 3, 7).up_to(4);
        let mut request = work.blank();
        assert_eq!(work.next(0, &mut request), Some(3));
        assert_eq!(work.next(0, &mut request), Some(3));
        assert_eq!(work.next(0, &mut request), None);
        let records = request[work.head..request.len() - 2]
            .as_chunks::<RECORD_BYTES>()
            .0;
        for (number, record) in records.iter().enumerate() {
            let transfer = Transfer::from_bytes(record);
            assert_eq!(transfer.id, (7 << 64) + 4 + number as u128);
            assert_ne!(transfer.debit_account_id, transfer.credit_account_id);
            let accounts = u128::from(FIRST_ACCOUNT)..u128::from(FIRST_ACCOUNT) + 10;
            assert!(accounts.contains(&transfer.debit_account_id));
            assert!(accounts.contains(&transfer.credit_account_id));
            assert_eq!(
                (transfer.amount, transfer.ledger, transfer.code),
                (1, LEDGER, CODE)
            );
        }
    }

    #[test]
    fn an_answer_is_taken_whole_and_each_result_is_looked_at() {
        let mut input = b"$32\r\n".to_vec();
        for status in [CREATED, TRANSFER_EXISTS] {
            input.extend_from_slice(&9_u64.to_le_bytes());
            input.extend_from_slice(&status.to_le_bytes());
            input.extend_from_slice(&[0; 4]);
        }
        input.extend_from_slice(b"\r\n");
        let whole = input.len();
        input.extend_from_slice(b"$32");
        let mut work = Transfers::new(Skew::uniform(2), Mix::Single, 2, 0);
        for end in 1..whole {
            let answer = work.answer(&mut Vec::new(), &input[..end]).unwrap();
            assert_eq!(answer, Answer::Incomplete, "{end}");
        }
        let answer = work.answer(&mut Vec::new(), &input).unwrap();
        assert_eq!(answer, Answer::Done(whole));
        input[13] = 3;
        assert!(work.answer(&mut Vec::new(), &input).is_err());
        let away = work
            .answer(&mut Vec::new(), b"-READONLY not I\r\n")
            .unwrap();
        assert_eq!(away, Answer::Elsewhere);
        assert!(work.answer(&mut Vec::new(), b"-ERR no\r\n").is_err());
    }
}
