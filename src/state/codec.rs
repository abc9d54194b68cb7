//! Layout of a logged command: encode, decode, and the list of them that a record carries.
//!
//! A command is its code (u8) and its fields in the order of the type: byte strings as length and
//! bytes, lists as count and items, lengths and counts as LEB128, numbers little-endian, choices as
//! one byte. A record of kind Commands carries `count` times: length u32, command. Codes are never
//! given a second meaning.

mod decode;
mod ledger;

use super::command::{
    Command, ExpireCondition, Expiry, Multi, Scan, Set, SetCondition, SetReply, When,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the command ends before its last field")]
    Short,
    #[error("command code {0} is not known to this program")]
    Code(u8),
    #[error("a field of the command is out of range")]
    Field,
    #[error("bytes are left behind the command")]
    Rest,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $fields:literal;)*) => {
        mod code {
            $(pub const $name: u8 = $code;)*
        }
        /// Every command's code, name and fields; writes are below 64.
        pub const CODES: &[(u8, &str, &str)] = &[$(($code, stringify!($name), $fields)),*];
    };
}

codes! {
    SET = 1, "key, value, expiry, condition, reply";
    MSET = 2, "if none exists, pairs";
    APPEND = 3, "key, value";
    SET_RANGE = 4, "key, value, offset u64";
    INCR_BY = 5, "key, by i64";
    GET_DEL = 6, "key";
    GET_EX = 7, "key, expiry";
    DEL = 8, "keys";
    DEL_IF_EQ = 9, "key, value";
    EXPIRE = 10, "key, expiry, condition bits";
    PERSIST = 11, "key";
    RENAME = 12, "source, target, if absent";
    COPY = 13, "source, target, replace";
    FLUSH_ALL = 14, "";
    MULTI = 15, "watches of key and revision u64, commands";
    ONCE = 16, "token, ttl ms u64, tokens max u64, command";
    CREATE_ACCOUNTS = 17, "128-byte accounts, form";
    CREATE_TRANSFERS = 18, "128-byte transfers, form";
    GET = 64, "key";
    MGET = 65, "keys";
    STR_LEN = 66, "key";
    GET_RANGE = 67, "key, start i64, end i64";
    EXISTS = 68, "keys";
    TYPE = 69, "key";
    TTL = 70, "key, form bits";
    RANDOM_KEY = 71, "seed u64";
    KEYS = 72, "pattern";
    SCAN = 73, "cursor u64, count u64, bits, pattern";
    DB_SIZE = 74, "";
    REVISIONS = 75, "keys";
    LOOKUP_ACCOUNTS = 76, "16-byte ids";
    LOOKUP_TRANSFERS = 77, "16-byte ids";
    ACCOUNT = 78, "id u128, with holds";
    TRANSFER = 79, "id u128";
    ACCOUNT_TRANSFERS = 80, "filter";
    ACCOUNT_BALANCES = 81, "filter";
    QUERY_ACCOUNTS = 82, "filter";
    QUERY_TRANSFERS = 83, "filter";
    LEDGER_TOTALS = 84, "ledger u32";
    LEDGER_AUDIT = 85, "";
}

impl Command {
    /// Appends the command's bytes. Also reads have some: EXEC may hold them.
    pub fn encode(&self, out: &mut BytesMut) {
        if self.is_leaf_write() {
            self.encode_write(out)
        } else {
            self.encode_other(out)
        }
    }

    fn is_leaf_write(&self) -> bool {
        self.is_write() && !matches!(self, Command::Multi(_) | Command::Once(_))
    }

    fn encode_write(&self, out: &mut BytesMut) {
        match self {
            Command::Set(set) => encode_set(set, out),
            Command::MSet {
                pairs,
                if_none_exists,
            } => {
                put_code(out, code::MSET);
                out.put_u8((*if_none_exists).into());
                put_len(out, pairs.len());
                for (key, value) in pairs {
                    put_bytes(out, key);
                    put_bytes(out, value);
                }
            }
            Command::Append { key, value } => put_pair(out, code::APPEND, key, value),
            Command::SetRange { key, offset, value } => {
                put_pair(out, code::SET_RANGE, key, value);
                out.put_u64_le(*offset);
            }
            Command::IncrBy { key, by } => {
                put_key(out, code::INCR_BY, key);
                out.put_i64_le(*by);
            }
            Command::GetDel { key } => put_key(out, code::GET_DEL, key),
            Command::GetEx { key, expiry } => {
                put_key(out, code::GET_EX, key);
                put_expiry(out, *expiry);
            }
            Command::Del { keys } => put_keys(out, code::DEL, keys),
            Command::DelIfEq { key, value } => put_pair(out, code::DEL_IF_EQ, key, value),
            Command::Expire {
                key,
                when,
                condition,
            } => {
                put_key(out, code::EXPIRE, key);
                put_expiry(out, Expiry::When(*when));
                put_expire_condition(out, *condition);
            }
            Command::Persist { key } => put_key(out, code::PERSIST, key),
            Command::Rename {
                source,
                target,
                if_absent,
            } => {
                put_pair(out, code::RENAME, source, target);
                out.put_u8((*if_absent).into());
            }
            Command::Copy {
                source,
                target,
                replace,
            } => {
                put_pair(out, code::COPY, source, target);
                out.put_u8((*replace).into());
            }
            Command::FlushAll => put_code(out, code::FLUSH_ALL),
            Command::CreateAccounts(batch) => {
                ledger::encode_batch(code::CREATE_ACCOUNTS, batch, out);
            }
            Command::CreateTransfers(batch) => {
                ledger::encode_batch(code::CREATE_TRANSFERS, batch, out);
            }
            other => unreachable!("not a single write: {other:?}"),
        }
    }

    fn encode_other(&self, out: &mut BytesMut) {
        match self {
            Command::Multi(multi) => encode_multi(multi, out),
            Command::Once(once) => {
                put_key(out, code::ONCE, &once.token);
                out.put_u64_le(once.ttl_ms);
                out.put_u64_le(once.tokens_max);
                once.command.encode(out);
            }
            Command::Get { key } => put_key(out, code::GET, key),
            Command::MGet { keys } => put_keys(out, code::MGET, keys),
            Command::StrLen { key } => put_key(out, code::STR_LEN, key),
            Command::GetRange { key, start, end } => {
                put_key(out, code::GET_RANGE, key);
                out.put_i64_le(*start);
                out.put_i64_le(*end);
            }
            Command::Exists { keys } => put_keys(out, code::EXISTS, keys),
            Command::Type { key } => put_key(out, code::TYPE, key),
            Command::Ttl { key, form } => {
                put_key(out, code::TTL, key);
                out.put_u8(u8::from(form.in_ms) | u8::from(form.absolute) << 1);
            }
            Command::RandomKey { seed } => {
                put_code(out, code::RANDOM_KEY);
                out.put_u64_le(*seed);
            }
            Command::Keys { pattern } => put_key(out, code::KEYS, pattern),
            Command::Scan(scan) => encode_scan(scan, out),
            Command::DbSize => put_code(out, code::DB_SIZE),
            Command::Revisions { keys } => put_keys(out, code::REVISIONS, keys),
            Command::Ledger(read) => ledger::encode_read(read, out),
            write => unreachable!("a single write: {write:?}"),
        }
    }
}

/// Whether an encoded command may need memory (`Command::may_grow`), without decoding the usual
/// ones; what cannot be decoded counts as growing.
pub fn may_grow(encoded: &[u8]) -> bool {
    match encoded.first() {
        Some(
            &(code::SET
            | code::MSET
            | code::APPEND
            | code::SET_RANGE
            | code::INCR_BY
            | code::RENAME
            | code::COPY
            | code::CREATE_ACCOUNTS
            | code::CREATE_TRANSFERS
            | code::ONCE),
        )
        | None => true,
        Some(&code::MULTI) => Command::from_encoded(Bytes::copy_from_slice(encoded))
            .map_or(true, |command| command.may_grow()),
        Some(_) => false,
    }
}

/// Appends one encoded command to a record's payload.
pub fn push(payload: &mut BytesMut, encoded: &[u8]) {
    payload.put_u32_le(u32::try_from(encoded.len()).expect("a command fits a record"));
    payload.put_slice(encoded);
}

/// The encoded commands of a record's payload, in order; ends after the first error.
pub fn iter(mut payload: Bytes) -> impl Iterator<Item = Result<Bytes, Malformed>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let len = payload.try_get_u32_le().unwrap_or(u32::MAX) as usize;
        if len > payload.len() {
            payload.clear();
            return Some(Err(Malformed::Short));
        }
        Some(Ok(payload.split_to(len)))
    })
}

fn put_code(out: &mut BytesMut, code: u8) {
    out.put_u8(code);
}

fn put_len(out: &mut BytesMut, len: usize) {
    let mut left = len;
    loop {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        if left == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.put_slice(bytes);
}

fn put_key(out: &mut BytesMut, code: u8, key: &[u8]) {
    put_code(out, code);
    put_bytes(out, key);
}

fn put_pair(out: &mut BytesMut, code: u8, first: &[u8], second: &[u8]) {
    put_key(out, code, first);
    put_bytes(out, second);
}

fn put_keys(out: &mut BytesMut, code: u8, keys: &[Bytes]) {
    put_code(out, code);
    put_len(out, keys.len());
    keys.iter().for_each(|key| put_bytes(out, key));
}

fn encode_set(set: &Set, out: &mut BytesMut) {
    out.reserve(set.key.len() + set.value.len() + 32);
    put_pair(out, code::SET, &set.key, &set.value);
    put_expiry(out, set.expiry);
    match &set.condition {
        SetCondition::Always => out.put_u8(0),
        SetCondition::IfAbsent => out.put_u8(1),
        SetCondition::IfPresent => out.put_u8(2),
        SetCondition::IfEqual(expected) => {
            out.put_u8(3);
            put_bytes(out, expected);
        }
    }
    out.put_u8(match set.reply {
        SetReply::Ok => 0,
        SetReply::Previous => 1,
        SetReply::Flag => 2,
    });
}

fn put_expiry(out: &mut BytesMut, expiry: Expiry) {
    match expiry {
        Expiry::Never => out.put_u8(0),
        Expiry::Keep => out.put_u8(1),
        Expiry::When(When::In(ms)) => {
            out.put_u8(2);
            out.put_i64_le(ms);
        }
        Expiry::When(When::At(ms)) => {
            out.put_u8(3);
            out.put_i64_le(ms);
        }
    }
}

fn put_expire_condition(out: &mut BytesMut, condition: ExpireCondition) {
    let ExpireCondition {
        if_none,
        if_some,
        if_later,
        if_earlier,
    } = condition;
    let bits = [if_none, if_some, if_later, if_earlier];
    out.put_u8(
        bits.iter()
            .rev()
            .fold(0, |byte, bit| byte << 1 | u8::from(*bit)),
    );
}

fn encode_multi(multi: &Multi, out: &mut BytesMut) {
    put_code(out, code::MULTI);
    put_len(out, multi.watches.len());
    for (key, revision) in &multi.watches {
        put_bytes(out, key);
        out.put_u64_le(revision.0);
    }
    put_len(out, multi.commands.len());
    multi
        .commands
        .iter()
        .for_each(|command| command.encode(out));
}

fn encode_scan(scan: &Scan, out: &mut BytesMut) {
    put_code(out, code::SCAN);
    out.put_u64_le(scan.cursor);
    out.put_u64_le(scan.count);
    out.put_u8(u8::from(scan.pattern.is_some()) | u8::from(scan.other_type) << 1);
    if let Some(pattern) = &scan.pattern {
        put_bytes(out, pattern);
    }
}
