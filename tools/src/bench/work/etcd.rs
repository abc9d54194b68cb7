//! What etcd is asked, over HTTP as its gateway takes it: one request at a time on a connection.
//!
//! Keys and values travel in base64. Digits are letters of it, so a number is written as it is,
//! and nothing is encoded: what etcd stores is then just other bytes.

use super::super::load::{Answer, Work};
use super::pipeline::{VALUE_BYTES, write_number};
use super::skew::Skew;
use anyhow::{Context, bail, ensure};
use std::fmt::Write;

/// Letters of base64 that make 16 bytes: 20 digits, and an end that names no more than 16 bytes.
const KEY_DIGITS: usize = 20;
const KEY_END: &str = "AA==";

/// Numbers of keys: of accounts from here, of transfers from there.
const FIRST_ACCOUNT: u64 = 1_000_000_000;
const FIRST_TRANSFER: u64 = 1_000_000_000_000_000_000;
const TRANSFERS_OF_RUN: u64 = 1_000_000_000_000;

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}").into()
}

fn key(number: u64) -> String {
    let mut digits = [0; KEY_DIGITS];
    write_number(&mut digits, number);
    let digits = String::from_utf8_lossy(&digits);
    format!("{digits}{KEY_END}")
}

/// One key set to a value of the usual size.
pub struct Puts {
    blank: Vec<u8>,
    key_at: usize,
    skew: Skew,
}

impl Puts {
    pub fn new(skew: Skew) -> anyhow::Result<Puts> {
        // Of a third more letters than bytes; 100 bytes take 133.3, and two of padding.
        let letters = VALUE_BYTES.div_ceil(3) * 4;
        let value = format!("{}==", "A".repeat(letters - 2));
        let mark = key(0);
        let body = format!(r#"{{"key":"{mark}","value":"{value}"}}"#);
        let blank = post("/v3/kv/put", &body);
        let mut windows = blank.windows(mark.len());
        let key_at = windows.position(|window| window == mark.as_bytes());
        Ok(Puts {
            key_at: key_at.context("the key stands in the request")?,
            blank,
            skew,
        })
    }
}

impl Work for Puts {
    fn blank(&self) -> Vec<u8> {
        self.blank.clone()
    }

    fn next(&mut self, _: usize, request: &mut Vec<u8>) -> Option<u64> {
        let (number, _) = self.skew.pair();
        write_number(&mut request[self.key_at..self.key_at + KEY_DIGITS], number);
        Some(1)
    }

    fn answer(&mut self, _: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        Ok(response(input)?.map_or(Answer::Incomplete, |(_, end)| Answer::Done(end)))
    }
}

/// A transfer as etcd's users write it: both balances are read, then written with the record of
/// the transfer, if neither has changed meanwhile; else all of it again.
pub struct Transfers {
    skew: Skew,
    next: u64,
    /// Transfers that were begun again.
    pub conflicts: u64,
}

impl Transfers {
    /// `run` keeps the ids of two loads apart.
    pub fn new(skew: Skew, run: u64) -> Transfers {
        Transfers {
            skew,
            next: FIRST_TRANSFER + run * TRANSFERS_OF_RUN,
            conflicts: 0,
        }
    }

    /// The second step, from the answer to the first.
    fn write(&mut self, body: &str) -> anyhow::Result<Vec<u8>> {
        let mut accounts = Vec::new();
        for found in body.split(r#""kvs":"#).skip(1) {
            let text = |name| field(found, name).context("a balance");
            let balance: u64 = text("value")?.trim_end_matches('A').parse()?;
            accounts.push((text("key")?, text("mod_revision")?, balance));
        }
        let [(debit, ..), (credit, ..)] = accounts[..] else {
            bail!("two balances were asked for, not {}", accounts.len());
        };
        let (mut compares, mut puts) = (String::new(), String::new());
        for (key, revision, balance) in &accounts {
            write!(
                compares,
                r#"{{"key":"{key}","target":"MOD","mod_revision":"{revision}"}},"#
            )?;
            write!(
                puts,
                r#"{{"request_put":{{"key":"{key}","value":"{}"}}}},"#,
                value(balance + 1)
            )?;
        }
        let transfer = key(self.next);
        self.next += 1;
        // Who paid whom; the ends of the keys would end the value.
        let record = format!("{}{}", debit.trim_end_matches('='), credit);
        let record = format!("{}AA==", &record[..44]);
        write!(
            puts,
            r#"{{"request_put":{{"key":"{transfer}","value":"{record}"}}}}"#
        )?;
        let compares = compares.trim_end_matches(',');
        let body = format!(r#"{{"compare":[{compares}],"success":[{puts}]}}"#);
        Ok(post("/v3/kv/txn", &body))
    }

    fn read(&mut self) -> Vec<u8> {
        let (debit, credit) = self.skew.pair();
        let range = |number| {
            let key = key(FIRST_ACCOUNT + number);
            format!(r#"{{"request_range":{{"key":"{key}"}}}}"#)
        };
        let body = format!(r#"{{"success":[{},{}]}}"#, range(debit), range(credit));
        post("/v3/kv/txn", &body)
    }
}

impl Work for Transfers {
    fn blank(&self) -> Vec<u8> {
        Vec::new()
    }

    fn next(&mut self, _: usize, request: &mut Vec<u8>) -> Option<u64> {
        *request = self.read();
        Some(1)
    }

    fn answer(&mut self, request: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        let Some((body, end)) = response(input)? else {
            return Ok(Answer::Incomplete);
        };
        let is_write = request.windows(9).any(|window| window == b"\"compare\"");
        if is_write && body.contains(r#""succeeded":true"#) {
            return Ok(Answer::Done(end));
        }
        *request = if is_write {
            self.conflicts += 1;
            self.read()
        } else {
            self.write(body)?
        };
        Ok(Answer::Again(end))
    }
}

/// A balance, in letters that are its digits.
fn value(balance: u64) -> String {
    let mut digits = [0; KEY_DIGITS];
    write_number(&mut digits, balance);
    String::from_utf8_lossy(&digits).into_owned()
}

/// Opens accounts, with nothing on them.
pub struct Accounts {
    next: u64,
    end: u64,
}

impl Accounts {
    pub fn new(count: u64) -> Accounts {
        Accounts {
            next: FIRST_ACCOUNT,
            end: FIRST_ACCOUNT + count,
        }
    }
}

impl Work for Accounts {
    fn blank(&self) -> Vec<u8> {
        Vec::new()
    }

    fn next(&mut self, _: usize, request: &mut Vec<u8>) -> Option<u64> {
        if self.next == self.end {
            return None;
        }
        let (key, value) = (key(self.next), value(0));
        self.next += 1;
        let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        *request = post("/v3/kv/put", &body);
        Some(1)
    }

    fn answer(&mut self, _: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        Ok(response(input)?.map_or(Answer::Incomplete, |(_, end)| Answer::Done(end)))
    }
}

/// The first string of this name.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    rest.split('"').next()
}

/// The body of a whole response, and where it ends.
pub fn response(input: &[u8]) -> anyhow::Result<Option<(&str, usize)>> {
    let Some(head) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&input[..head])?;
    let mut lines = text.lines();
    let lengths = lines.find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = lengths.context("a response without its length")?.parse()?;
    let end = head + 4 + length;
    if input.len() < end {
        return Ok(None);
    }
    let body = std::str::from_utf8(&input[head + 4..end])?;
    ensure!(text.starts_with("HTTP/1.1 200"), "etcd says {body}");
    Ok(Some((body, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into()
    }

    #[test]
    fn a_put_has_a_key_of_sixteen_and_a_value_of_a_hundred_bytes() {
        let mut work = Puts::new(Skew::uniform(2)).unwrap();
        let mut request = work.blank();
        work.next(0, &mut request).unwrap();
        let text = String::from_utf8(request).unwrap();
        let (key, value) = (field(&text, "key").unwrap(), field(&text, "value").unwrap());
        let bytes = |letters: &str| letters.trim_end_matches('=').len() * 3 / 4;
        assert_eq!((bytes(key), bytes(value)), (16, VALUE_BYTES));
        assert!(key.starts_with("0000000000000000000"), "{key}");
    }

    #[test]
    fn a_transfer_reads_then_writes_and_begins_again_after_a_conflict() {
        let mut work = Transfers::new(Skew::uniform(2), 0);
        let mut request = work.blank();
        work.next(0, &mut request).unwrap();
        let kvs = |number: u64, revision| {
            let key = key(FIRST_ACCOUNT + number);
            let value = value(7);
            format!(
                r#"{{"response_range":{{"kvs":[{{"key":"{key}","create_revision":"2","mod_revision":"{revision}","version":"1","value":"{value}"}}]}}}}"#
            )
        };
        let body = format!(r#"{{"responses":[{},{}]}}"#, kvs(0, 11), kvs(1, 12));
        let read = answer(&body);
        let cut = work.answer(&mut request, &read[..read.len() - 1]).unwrap();
        assert_eq!(cut, Answer::Incomplete);
        let read_answer = work.answer(&mut request, &read).unwrap();
        assert_eq!(read_answer, Answer::Again(read.len()));
        let written = String::from_utf8(request.clone()).unwrap();
        for part in [
            r#""mod_revision":"12""#,
            r#""value":"00000000000000000008""#,
        ] {
            assert!(written.contains(part), "{written}");
        }
        let conflict = answer(r#"{"header":{}}"#);
        let again = work.answer(&mut request, &conflict).unwrap();
        assert_eq!((again, work.conflicts), (Answer::Again(conflict.len()), 1));
        work.answer(&mut request, &read).unwrap();
        let success = answer(r#"{"header":{},"succeeded":true}"#);
        let done = work.answer(&mut request, &success).unwrap();
        assert_eq!(done, Answer::Done(success.len()));
    }
}
