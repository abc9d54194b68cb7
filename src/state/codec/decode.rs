//! From bytes to a command. The bytes were checked against damage long before; still nothing here
//! trusts a length or a choice, takes memory for what is not there, or panics.

use super::super::command::{
    Command, ExpireCondition, Expiry, Multi, Once, RELATIVE_MS_MAX, Scan, Set, SetCondition,
    SetReply, TtlForm, When, fingerprint,
};
use super::{Malformed, code, ledger};
use bytes::{Buf, Bytes};
use standfast_wal::Lsn;

impl Command {
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
        other => return ledger::decode(other, reader),
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
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = self.rest().first().copied().ok_or(Malformed::Short)?;
        self.at += 1;
        Ok(byte)
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
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

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
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

    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
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
