//! Pipelines of RESP commands: as many as the depth says leave in one write, and the next follow
//! when all are answered.

use super::super::load::{Answer, Work};
use super::batches::{CODE, FIRST_ACCOUNT, LEDGER, refusal};
use super::skew::Skew;
use anyhow::{bail, ensure};
use rig::resp::encode;

/// Bytes of a value; of a key as many as its pattern has.
pub const VALUE_BYTES: usize = 100;

/// Ids of transfers count from here, so that all have the same number of digits.
const FIRST_TRANSFER: u64 = 1_000_000_000_000_000_000;

/// And so many lie between those of one run and the next.
const TRANSFERS_OF_RUN: u64 = 1_000_000_000_000;

/// How long `WAIT` may take, in milliseconds.
const WAIT_LIMIT: &[u8] = b"5000";

/// What stands at a place of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Key,
    Debit,
    Credit,
    Transfer,
}

/// Which bytes of a command's pattern are replaced, in decimal digits.
const PATTERNS: [(What, &[u8]); 4] = [
    (What::Key, b"kkkkkkkkkkkkkkkk"),
    (What::Debit, b"dddddddddd"),
    (What::Credit, b"cccccccccc"),
    (What::Transfer, b"ttttttttttttttttttt"),
];

/// What each command must be answered.
enum Right {
    /// Exactly this.
    Same(Vec<u8>),
    /// An array that begins like this.
    Begins(&'static [u8]),
}

pub enum Draw {
    /// By this skew, without end; a pair of accounts where the command names two.
    Among(Skew),
    /// Each key from the first up to the second, once.
    Each(u64, u64),
}

pub struct Pipeline {
    /// One command, and where what stands in it.
    one: Vec<u8>,
    places: Vec<(What, usize, usize)>,
    depth: usize,
    /// Behind the last command.
    wait: Vec<u8>,
    right: Right,
    draw: Draw,
    next: u64,
}

impl Pipeline {
    fn new(args: &[&[u8]], right: Right, draw: Draw, depth: usize) -> Pipeline {
        let mut one = Vec::new();
        encode(&mut one, args.iter().copied());
        let mut places = Vec::new();
        for (what, pattern) in PATTERNS {
            let mut windows = one.windows(pattern.len());
            if let Some(at) = windows.position(|window| window == pattern) {
                places.push((what, at, at + pattern.len()));
            }
        }
        Pipeline {
            one,
            places,
            depth,
            wait: Vec::new(),
            right,
            draw,
            next: FIRST_TRANSFER,
        }
    }

    pub fn set(draw: Draw, depth: usize) -> Pipeline {
        let args = [b"SET", PATTERNS[0].1, &[b'v'; VALUE_BYTES]];
        Pipeline::new(&args, Right::Same(b"+OK\r\n".to_vec()), draw, depth)
    }

    /// Of keys that `set` has set, all of them.
    pub fn get(draw: Draw, depth: usize) -> Pipeline {
        let mut right = format!("${VALUE_BYTES}\r\n").into_bytes();
        right.extend_from_slice(&[b'v'; VALUE_BYTES]);
        right.extend_from_slice(b"\r\n");
        let args = [b"GET", PATTERNS[0].1];
        Pipeline::new(&args, Right::Same(right), draw, depth)
    }

    /// `TRANSFER.CREATE`, in words. `run` keeps the ids of two loads on one ledger apart.
    pub fn transfer(skew: Skew, depth: usize, run: u64) -> Pipeline {
        let (ledger, code) = (LEDGER.to_string(), CODE.to_string());
        let [_, (_, debit), (_, credit), (_, transfer)] = PATTERNS;
        let args = [
            b"TRANSFER.CREATE",
            transfer,
            debit,
            credit,
            b"1",
            b"LEDGER",
            ledger.as_bytes(),
            b"CODE",
            code.as_bytes(),
        ];
        let right = Right::Begins(b"*6\r\n$6\r\nresult\r\n$7\r\nCREATED\r\n");
        Pipeline::new(&args, right, Draw::Among(skew), depth).in_run(run)
    }

    /// A script that was loaded: three keys, two accounts and the transfer, and an amount.
    pub fn script(sha: &str, skew: Skew, depth: usize, run: u64) -> Pipeline {
        let [_, (_, debit), (_, credit), (_, transfer)] = PATTERNS;
        let args = [
            b"EVALSHA",
            sha.as_bytes(),
            b"3",
            debit,
            credit,
            transfer,
            b"1",
        ];
        let right = Right::Same(b":1\r\n".to_vec());
        Pipeline::new(&args, right, Draw::Among(skew), depth).in_run(run)
    }

    fn in_run(self, run: u64) -> Pipeline {
        Pipeline {
            next: FIRST_TRANSFER + run * TRANSFERS_OF_RUN,
            ..self
        }
    }

    /// Ends each pipeline with `WAIT`, which must name at least so many copies.
    pub fn wait(mut self, copies: u8) -> Pipeline {
        let copies = copies.to_string();
        self.wait.clear();
        let args = [b"WAIT", copies.as_bytes(), WAIT_LIMIT];
        encode(&mut self.wait, args.into_iter());
        self
    }

    fn patch(&mut self, command: &mut [u8], each: u64) {
        let (first, second) = match &mut self.draw {
            Draw::Among(skew) => skew.pair(),
            Draw::Each(..) => (each, each),
        };
        for &(what, from, to) in &self.places {
            let number = match what {
                What::Key => first,
                What::Debit => FIRST_ACCOUNT + first,
                What::Credit => FIRST_ACCOUNT + second,
                What::Transfer => self.next,
            };
            write_number(&mut command[from..to], number);
        }
        self.next += 1;
    }
}

impl Work for Pipeline {
    fn blank(&self) -> Vec<u8> {
        let mut bytes = self.one.repeat(self.depth);
        bytes.extend_from_slice(&self.wait);
        bytes
    }

    fn next(&mut self, _: usize, request: &mut Vec<u8>) -> Option<u64> {
        let (mut each, mut count) = (0, self.depth);
        if let Draw::Each(first, end) = &mut self.draw {
            each = *first;
            count = count.min((*end - *first) as usize);
            *first += count as u64;
        }
        if count == 0 {
            return None;
        }
        let stride = self.one.len();
        if count < self.depth {
            request.truncate(count * stride);
            request.extend_from_slice(&self.wait);
        }
        for command in request[..count * stride].chunks_exact_mut(stride) {
            self.patch(command, each);
            each += 1;
        }
        Some(count as u64)
    }

    fn answer(&mut self, request: &mut Vec<u8>, input: &[u8]) -> anyhow::Result<Answer> {
        let count = (request.len() - self.wait.len()) / self.one.len();
        let mut at = 0;
        for _ in 0..count {
            let rest = &input[at..];
            if rest.first() == Some(&b'-') {
                return refusal(rest);
            }
            match self.right.length(rest)? {
                Some(length) => at += length,
                None => return Ok(Answer::Incomplete),
            }
        }
        if !self.wait.is_empty() {
            // `:2`, and few copies have one digit.
            let Some(reply) = input.get(at..at + 4) else {
                return Ok(Answer::Incomplete);
            };
            let asked = self.wait[self.wait.len() - WAIT_LIMIT.len() - 9];
            let text = String::from_utf8_lossy(reply);
            ensure!(
                reply[0] == b':' && reply[1] >= asked,
                "WAIT is answered {text:?}"
            );
            at += 4;
        }
        Ok(Answer::Done(at))
    }
}

impl Right {
    /// How long the answer is; `None` while it is incomplete.
    fn length(&self, input: &[u8]) -> anyhow::Result<Option<usize>> {
        let (start, is_whole) = match self {
            Right::Same(bytes) => (bytes.as_slice(), true),
            Right::Begins(bytes) => (*bytes, false),
        };
        let Some(begun) = input.get(..start.len()) else {
            return Ok(None);
        };
        if begun != start {
            let text = String::from_utf8_lossy(&input[..input.len().min(80)]);
            bail!("an unexpected answer: {text:?}");
        }
        if is_whole {
            Ok(Some(start.len()))
        } else {
            skip(input)
        }
    }
}

/// The length of the value that begins here.
fn skip(input: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let number =
        || -> anyhow::Result<usize> { Ok(std::str::from_utf8(&input[1..end - 1])?.parse()?) };
    let mut at = end + 1;
    match input[0] {
        b'$' => at += number()? + 2,
        b'*' => {
            for _ in 0..number()? {
                match skip(&input[at.min(input.len())..])? {
                    Some(length) => at += length,
                    None => return Ok(None),
                }
            }
        }
        b':' | b'+' => {}
        other => bail!("an answer that begins with {other:#x}"),
    }
    Ok((at <= input.len()).then_some(at))
}

/// Decimal digits, padded with zeros.
pub fn write_number(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &[u8]) -> String {
        String::from_utf8(request.to_vec())
            .unwrap()
            .replace("\r\n", " ")
    }

    #[test]
    fn each_key_is_written_once_and_the_last_pipeline_is_short() {
        let mut work = Pipeline::get(Draw::Each(1_234_567, 1_234_570), 2).wait(1);
        let mut request = work.blank();
        assert_eq!(work.next(0, &mut request), Some(2));
        let first = "*2 $3 GET $16 0000000001234567 *2 $3 GET $16 0000000001234568 ";
        let wait = "*3 $4 WAIT $1 1 $4 5000 ";
        assert_eq!(text(&request), format!("{first}{wait}"));
        assert_eq!(work.next(0, &mut request), Some(1));
        assert_eq!(
            text(&request),
            format!("*2 $3 GET $16 0000000001234569 {wait}")
        );
        assert_eq!(work.next(0, &mut request), None);
    }

    #[test]
    fn an_answer_is_whole_when_every_command_and_the_wait_is_answered() {
        let draw = || Draw::Among(Skew::uniform(10));
        let mut work = Pipeline::set(draw(), 2).wait(2);
        let mut request = work.blank();
        for incomplete in ["+O", "+OK\r\n", "+OK\r\n+OK\r\n", "+OK\r\n+OK\r\n:2\r"] {
            let answer = work.answer(&mut request, incomplete.as_bytes()).unwrap();
            assert_eq!(answer, Answer::Incomplete, "{incomplete:?}");
        }
        let answer = work.answer(&mut request, b"+OK\r\n+OK\r\n:2\r\n+").unwrap();
        assert_eq!(answer, Answer::Done(14));
        assert!(work.answer(&mut request, b"+OK\r\n+OK\r\n:1\r\n").is_err());
        assert!(
            work.answer(&mut request, b"+OK\r\n-ERR no\r\n:2\r\n")
                .is_err()
        );
    }

    #[test]
    fn a_transfer_in_words_is_answered_a_map() {
        let mut work = Pipeline::transfer(Skew::uniform(2), 1, 7);
        let mut request = work.blank();
        work.next(0, &mut request).unwrap();
        let sent = text(&request);
        assert!(
            sent.contains("TRANSFER.CREATE $19 1000007000000000000 $10 100000000"),
            "{sent}"
        );
        let reply = "*6\r\n$6\r\nresult\r\n$7\r\nCREATED\r\n$9\r\ntimestamp\r\n:7\r\n$6\r\namount\r\n\
                     $1\r\n1\r\n";
        for end in 1..reply.len() {
            let answer = work.answer(&mut request, &reply.as_bytes()[..end]).unwrap();
            assert_eq!(answer, Answer::Incomplete, "{end}");
        }
        let answer = work.answer(&mut request, reply.as_bytes()).unwrap();
        assert_eq!(answer, Answer::Done(reply.len()));
    }
}
