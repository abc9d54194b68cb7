//! ONCE: a command under a token runs once, and its reply is kept for whoever repeats it.
//!
//! A token is an entry (`entry.rs`) of its own store: its value is the fingerprint of the command
//! (16 bytes, little-endian) and the encoded reply; its expiry the end of its life. How long and
//! how many is said by each command, so that every node does the same (I2).

use super::command::Once;
use super::entry::{Content, Entry};
use super::expiry::deadline_ms;
use super::{Reply, State, command::When};
use bytes::{Buf, Bytes};

/// How many tokens that have ended are removed when there is no room for a new one.
const SWEEP_FOR_ROOM_MAX: usize = 64;
const FINGERPRINT_BYTES: usize = 16;

impl State {
    pub(super) fn once(&mut self, once: &Once) -> Reply {
        let place = self.tokens.place(&once.token);
        let now_ms = self.now_ms();
        if let Some(entry) = self.tokens.find_live(place, &once.token, now_ms) {
            let (fingerprint, reply) = remembered(entry)
                .expect("stored below, or proved readable when the snapshot was loaded");
            if fingerprint != once.fingerprint {
                return Reply::error(
                    "ONCEREUSED this token was used for another command; a token stands for one \
                     command",
                );
            }
            return reply;
        }
        if self.tokens.len() >= once.tokens_max {
            self.tokens.sweep(now_ms, SWEEP_FOR_ROOM_MAX);
        }
        if self.tokens.len() >= once.tokens_max {
            return Reply::error(format!(
                "ONCEFULL {} tokens are remembered and none is forgotten before its time; nothing \
                 was done, try again later or raise once_max",
                once.tokens_max
            ));
        }
        let reply = self.execute(&once.command);
        let mut value = once.fingerprint.to_le_bytes().to_vec();
        encode(&reply, &mut value);
        let ttl_ms = i64::try_from(once.ttl_ms).expect("decoded within RELATIVE_MS_MAX");
        let expiry_ms = deadline_ms(When::In(ttl_ms), self.applied.timestamp);
        let revision = self.applied.lsn;
        let content = Content {
            revision,
            expiry_ms,
            key: &once.token,
            value: &value,
        };
        self.tokens.put(place, content);
        reply
    }
}

/// What a token's entry holds; `None` if it is not readable.
pub(super) fn remembered(entry: &Entry) -> Option<(u128, Reply)> {
    let (fingerprint, reply) = entry.value().split_first_chunk::<FINGERPRINT_BYTES>()?;
    let mut reply = Bytes::copy_from_slice(reply);
    let decoded = decode(&mut reply, NESTING_MAX)?;
    reply
        .is_empty()
        .then_some((u128::from_le_bytes(*fingerprint), decoded))
}

impl Reply {
    /// Appends the reply's bytes, as ONCE stores them and as a successor sends them back.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Reads what `encode` wrote; `None` when the bytes are not that.
    pub fn decode(mut bytes: Bytes) -> Option<Reply> {
        let reply = decode(&mut bytes, NESTING_MAX)?;
        bytes.is_empty().then_some(reply)
    }
}

/// Replies nest as commands do: EXEC holds replies of commands, of which some hold lists.
const NESTING_MAX: u32 = 5;

const OK: u8 = 0;
const NIL: u8 = 1;
const NIL_ARRAY: u8 = 2;
const INT: u8 = 3;
const SIMPLE: u8 = 4;
const BULK: u8 = 5;
const ARRAY: u8 = 6;
const ERROR: u8 = 7;
const MAP: u8 = 8;

/// The simple strings that the state answers, numbered by their position for good.
const SIMPLES: [&str; 2] = ["none", "string"];

fn encode(reply: &Reply, out: &mut Vec<u8>) {
    let put_len = |out: &mut Vec<u8>, len: usize| {
        let len = u32::try_from(len).expect("a reply fits memory many times");
        out.extend_from_slice(&len.to_le_bytes());
    };
    match reply {
        Reply::Ok => out.push(OK),
        Reply::Nil => out.push(NIL),
        Reply::NilArray => out.push(NIL_ARRAY),
        Reply::Int(number) => {
            out.push(INT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Reply::Simple(text) => {
            let number = SIMPLES.iter().position(|known| known == text);
            let number = number.and_then(|number| u8::try_from(number).ok());
            out.extend_from_slice(&[SIMPLE, number.expect("the state answers only SIMPLES")]);
        }
        Reply::Bulk(bytes) | Reply::Error(bytes) => {
            out.push(if matches!(reply, Reply::Bulk(_)) {
                BULK
            } else {
                ERROR
            });
            put_len(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        Reply::Array(replies) => {
            out.push(ARRAY);
            put_len(out, replies.len());
            replies.iter().for_each(|reply| encode(reply, out));
        }
        Reply::Map(pairs) => {
            out.push(MAP);
            put_len(out, pairs.len());
            for (key, value) in pairs {
                encode(key, out);
                encode(value, out);
            }
        }
    }
}

fn decode(bytes: &mut Bytes, nesting: u32) -> Option<Reply> {
    Some(match bytes.try_get_u8().ok()? {
        OK => Reply::Ok,
        NIL => Reply::Nil,
        NIL_ARRAY => Reply::NilArray,
        INT => Reply::Int(bytes.try_get_i64_le().ok()?),
        SIMPLE => Reply::Simple(SIMPLES.get(usize::from(bytes.try_get_u8().ok()?))?),
        BULK => Reply::Bulk(split(bytes)?),
        ERROR => Reply::Error(split(bytes)?),
        ARRAY => {
            let nesting = nesting.checked_sub(1)?;
            let count = bytes.try_get_u32_le().ok()? as usize;
            // Each takes at least a byte: no memory is taken for what cannot be there.
            if count > bytes.len() {
                return None;
            }
            let replies: Option<Vec<_>> = (0..count).map(|_| decode(bytes, nesting)).collect();
            Reply::Array(replies?)
        }
        MAP => {
            let nesting = nesting.checked_sub(1)?;
            let count = bytes.try_get_u32_le().ok()? as usize;
            if count > bytes.len() / 2 {
                return None;
            }
            let pair = |_| Some((decode(bytes, nesting)?, decode(bytes, nesting)?));
            let pairs: Option<Vec<_>> = (0..count).map(pair).collect();
            Reply::Map(pairs?)
        }
        _ => return None,
    })
}

fn split(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Reply {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        Reply::Array(vec![
            Reply::Ok,
            Reply::Nil,
            Reply::NilArray,
            Reply::Int(i64::MIN),
            Reply::Simple("string"),
            Reply::Simple("none"),
            Reply::Bulk(text("")),
            Reply::Bulk(text("bytes\0")),
            Reply::Error(text("ERR no")),
            Reply::Array(vec![Reply::Array(Vec::new()), Reply::Int(1)]),
            Reply::Map(vec![(Reply::Int(1), Reply::Map(Vec::new()))]),
        ])
    }

    #[test]
    fn a_stored_reply_comes_back_and_broken_ones_are_refused() {
        let mut encoded = Vec::new();
        encode(&sample(), &mut encoded);
        let mut bytes = Bytes::from(encoded.clone());
        assert_eq!(decode(&mut bytes, NESTING_MAX), Some(sample()));
        assert!(bytes.is_empty());
        for len in 0..encoded.len() {
            assert_eq!(
                decode(&mut Bytes::copy_from_slice(&encoded[..len]), NESTING_MAX),
                None
            );
        }
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // It may be another reply; it must not be a panic or a huge allocation.
            let _ = decode(&mut flipped.into(), NESTING_MAX);
        }
        let deep = [ARRAY, 1, 0, 0, 0].repeat(6);
        assert_eq!(decode(&mut deep.into(), NESTING_MAX), None);
    }
}
