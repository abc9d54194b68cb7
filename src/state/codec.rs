//! Layout of a logged command: encode, decode, and the list of them that a record carries.
//!
//! A command is its code (u8) and its fields in the order of the type: byte strings as length and
//! bytes, lists as count and items, lengths and counts as LEB128, numbers little-endian, choices as
//! one byte. A record of kind Commands carries `count` times: length u32, command. Codes are never
//! given a second meaning.

use super::command::{
    Command, ExpireCondition, Expiry, Multi, Once, RELATIVE_MS_MAX, Scan, Set, SetCondition,
    SetReply, TtlForm, When, fingerprint,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use standfast_wal::Lsn;

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

/// Codes by command; writes below 64.
mod code {
    pub const SET: u8 = 1;
    pub const MSET: u8 = 2;
    pub const APPEND: u8 = 3;
    pub const SET_RANGE: u8 = 4;
    pub const INCR_BY: u8 = 5;
    pub const GET_DEL: u8 = 6;
    pub const GET_EX: u8 = 7;
    pub const DEL: u8 = 8;
    pub const DEL_IF_EQ: u8 = 9;
    pub const EXPIRE: u8 = 10;
    pub const PERSIST: u8 = 11;
    pub const RENAME: u8 = 12;
    pub const COPY: u8 = 13;
    pub const FLUSH_ALL: u8 = 14;
    pub const MULTI: u8 = 15;
    pub const ONCE: u8 = 16;
    pub const GET: u8 = 64;
    pub const MGET: u8 = 65;
    pub const STR_LEN: u8 = 66;
    pub const GET_RANGE: u8 = 67;
    pub const EXISTS: u8 = 68;
    pub const TYPE: u8 = 69;
    pub const TTL: u8 = 70;
    pub const RANDOM_KEY: u8 = 71;
    pub const KEYS: u8 = 72;
    pub const SCAN: u8 = 73;
    pub const DB_SIZE: u8 = 74;
    pub const REVISIONS: u8 = 75;
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
            write => unreachable!("a single write: {write:?}"),
        }
    }

    /// Cuts one command off the front. On failure `bytes` is left as it was.
    pub fn decode(bytes: &mut Bytes) -> Result<Command, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        let command = decode_command(&mut reader, Inside::default())?;
        let read = reader.at;
        bytes.advance(read);
        Ok(command)
    }

    /// A command that is all of `bytes`.
    pub fn from_encoded(mut bytes: Bytes) -> Result<Command, Malformed> {
        let command = Command::decode(&mut bytes)?;
        if bytes.is_empty() {
            Ok(command)
        } else {
            Err(Malformed::Rest)
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
    while left >= 0x80 {
        out.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
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

/// What a command is part of: neither EXEC nor ONCE lies within its like, so nesting is bounded.
#[derive(Clone, Copy, Default)]
struct Inside {
    multi: bool,
    once: bool,
}

fn decode_command(reader: &mut Reader<'_>, inside: Inside) -> Result<Command, Malformed> {
    Ok(match reader.byte()? {
        code::SET => Command::Set(decode_set(reader)?),
        code::MSET => Command::MSet {
            if_none_exists: reader.flag()?,
            pairs: reader.list(2, |reader| Ok((reader.bytes()?, reader.bytes()?)))?,
        },
        code::APPEND => Command::Append {
            key: reader.bytes()?,
            value: reader.bytes()?,
        },
        code::SET_RANGE => {
            let (key, value) = (reader.bytes()?, reader.bytes()?);
            Command::SetRange {
                key,
                value,
                offset: reader.u64()?,
            }
        }
        code::INCR_BY => Command::IncrBy {
            key: reader.bytes()?,
            by: reader.i64()?,
        },
        code::GET_DEL => Command::GetDel {
            key: reader.bytes()?,
        },
        code::GET_EX => Command::GetEx {
            key: reader.bytes()?,
            expiry: decode_expiry(reader)?,
        },
        code::DEL => Command::Del {
            keys: reader.keys()?,
        },
        code::DEL_IF_EQ => Command::DelIfEq {
            key: reader.bytes()?,
            value: reader.bytes()?,
        },
        code::EXPIRE => decode_expire(reader)?,
        code::PERSIST => Command::Persist {
            key: reader.bytes()?,
        },
        code::RENAME => Command::Rename {
            source: reader.bytes()?,
            target: reader.bytes()?,
            if_absent: reader.flag()?,
        },
        code::COPY => Command::Copy {
            source: reader.bytes()?,
            target: reader.bytes()?,
            replace: reader.flag()?,
        },
        code::FLUSH_ALL => Command::FlushAll,
        code::MULTI if !inside.multi => decode_multi(
            reader,
            Inside {
                multi: true,
                ..inside
            },
        )?,
        code::ONCE if !inside.once => decode_once(
            reader,
            Inside {
                once: true,
                ..inside
            },
        )?,
        code::MULTI | code::ONCE => return Err(Malformed::Field),
        read => return decode_read(read, reader),
    })
}

fn decode_read(read: u8, reader: &mut Reader<'_>) -> Result<Command, Malformed> {
    Ok(match read {
        code::GET => Command::Get {
            key: reader.bytes()?,
        },
        code::MGET => Command::MGet {
            keys: reader.keys()?,
        },
        code::STR_LEN => Command::StrLen {
            key: reader.bytes()?,
        },
        code::GET_RANGE => Command::GetRange {
            key: reader.bytes()?,
            start: reader.i64()?,
            end: reader.i64()?,
        },
        code::EXISTS => Command::Exists {
            keys: reader.keys()?,
        },
        code::TYPE => Command::Type {
            key: reader.bytes()?,
        },
        code::TTL => {
            let key = reader.bytes()?;
            let bits = reader.bits(2)?;
            Command::Ttl {
                key,
                form: TtlForm {
                    in_ms: bits & 1 > 0,
                    absolute: bits & 2 > 0,
                },
            }
        }
        code::RANDOM_KEY => Command::RandomKey {
            seed: reader.u64()?,
        },
        code::KEYS => Command::Keys {
            pattern: reader.bytes()?,
        },
        code::SCAN => {
            let (cursor, count, bits) = (reader.u64()?, reader.u64()?, reader.bits(2)?);
            let pattern = if bits & 1 > 0 {
                Some(reader.bytes()?)
            } else {
                None
            };
            Command::Scan(Scan {
                cursor,
                pattern,
                count,
                other_type: bits & 2 > 0,
            })
        }
        code::DB_SIZE => Command::DbSize,
        code::REVISIONS => Command::Revisions {
            keys: reader.keys()?,
        },
        unknown => return Err(Malformed::Code(unknown)),
    })
}

fn decode_set(reader: &mut Reader<'_>) -> Result<Set, Malformed> {
    Ok(Set {
        key: reader.bytes()?,
        value: reader.bytes()?,
        expiry: decode_expiry(reader)?,
        condition: match reader.byte()? {
            0 => SetCondition::Always,
            1 => SetCondition::IfAbsent,
            2 => SetCondition::IfPresent,
            3 => SetCondition::IfEqual(reader.bytes()?),
            _ => return Err(Malformed::Field),
        },
        reply: match reader.byte()? {
            0 => SetReply::Ok,
            1 => SetReply::Previous,
            2 => SetReply::Flag,
            _ => return Err(Malformed::Field),
        },
    })
}

fn decode_expiry(reader: &mut Reader<'_>) -> Result<Expiry, Malformed> {
    Ok(match reader.byte()? {
        0 => Expiry::Never,
        1 => Expiry::Keep,
        2 => match reader.i64()? {
            ms if ms <= RELATIVE_MS_MAX => Expiry::When(When::In(ms)),
            _ => return Err(Malformed::Field),
        },
        3 => Expiry::When(When::At(reader.i64()?)),
        _ => return Err(Malformed::Field),
    })
}

fn decode_expire(reader: &mut Reader<'_>) -> Result<Command, Malformed> {
    let key = reader.bytes()?;
    let Expiry::When(when) = decode_expiry(reader)? else {
        return Err(Malformed::Field);
    };
    let bits = reader.bits(4)?;
    let condition = ExpireCondition {
        if_none: bits & 1 > 0,
        if_some: bits & 2 > 0,
        if_later: bits & 4 > 0,
        if_earlier: bits & 8 > 0,
    };
    Ok(Command::Expire {
        key,
        when,
        condition,
    })
}

fn decode_multi(reader: &mut Reader<'_>, inside: Inside) -> Result<Command, Malformed> {
    Ok(Command::Multi(Multi {
        watches: reader.list(9, |reader| Ok((reader.bytes()?, Lsn(reader.u64()?))))?,
        commands: reader.list(1, |reader| decode_command(reader, inside))?,
    }))
}

fn decode_once(reader: &mut Reader<'_>, inside: Inside) -> Result<Command, Malformed> {
    let token = reader.bytes()?;
    let (ttl_ms, tokens_max) = (reader.u64()?, reader.u64()?);
    if i64::try_from(ttl_ms).map_or(true, |ms| ms > RELATIVE_MS_MAX) {
        return Err(Malformed::Field);
    }
    let start = reader.at;
    let command = Box::new(decode_command(reader, inside)?);
    let fingerprint = fingerprint(&command, &reader.bytes[start..reader.at]);
    Ok(Command::Once(Once {
        token,
        ttl_ms,
        tokens_max,
        fingerprint,
        command,
    }))
}

/// A longer list grows as its items are read.
const RESERVED_ITEMS_MAX: usize = 1024;

/// Reads fields from the front; hands out shared slices, copies nothing.
struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.rest().first().copied().ok_or(Malformed::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        Ok(self.bits(1)? == 1)
    }

    /// A byte of which only the lowest `used` bits may be set.
    fn bits(&mut self, used: u32) -> Result<u8, Malformed> {
        let bits = self.byte()?;
        if bits >> used == 0 {
            Ok(bits)
        } else {
            Err(Malformed::Field)
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, _) = self.rest().split_first_chunk().ok_or(Malformed::Short)?;
        let array = *array;
        self.at += N;
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A length or count: at most what a u32 holds, in its shortest form, so that equal commands
    /// have equal bytes.
    fn len(&mut self) -> Result<usize, Malformed> {
        let mut len = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            len |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let shortest = byte > 0 || shift == 0;
                let len = u32::try_from(len).ok().filter(|_| shortest);
                return len.map(|len| len as usize).ok_or(Malformed::Field);
            }
        }
        Err(Malformed::Field)
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.len()?;
        if len > self.rest().len() {
            return Err(Malformed::Short);
        }
        let bytes = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    /// A counted list whose items take at least `item_bytes_min` each: little memory is taken
    /// before the items are seen.
    fn list<T>(
        &mut self,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.len()?;
        if count > self.rest().len() / item_bytes_min {
            return Err(Malformed::Short);
        }
        let mut items = Vec::with_capacity(count.min(RESERVED_ITEMS_MAX));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn keys(&mut self) -> Result<Vec<Bytes>, Malformed> {
        self.list(1, Reader::bytes)
    }
}
