//! From a client's words to a command, with Redis's error texts.

use super::refusal::{Refusal, unknown};
use super::{Id, Parse, Spec, ledger, lookup};
use crate::state::command::{
    ExpireCondition, Expiry, Multi, Once, RELATIVE_MS_MAX, Scan, Set, SetCondition, SetReply,
    TtlForm, When,
};
use crate::state::{Command, parse_integer};
use bytes::Bytes;

/// What commands need that the client does not say.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// How long a ONCE token is remembered.
    pub once_ttl_ms: u64,
    /// How many tokens are remembered before new ones are refused.
    pub once_max: u64,
    /// A random number, for RANDOMKEY.
    pub seed: u64,
}

/// What a client asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// For the state: ordered if it is a write, answered from the state if not.
    Data(Command),
    /// For the session, which finds the arguments where they were.
    Session(Id),
    /// `ONCE token EXEC`: the queued commands under a token; see [`once_exec`].
    OnceExec { token: Bytes },
}

/// The longest ONCE token: an id, not a document.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Finds the command and its arity; `args[0]` is the name. Arguments are not looked at.
pub fn find(args: &[Bytes]) -> Parse<&'static Spec> {
    let name = args.first().expect("a request has at least a name");
    let spec = lookup(name).ok_or_else(|| unknown(args))?;
    if spec.takes(args.len()) {
        Ok(spec)
    } else {
        Err(Refusal::Arity(spec.name))
    }
}

/// Parses a whole request; `spec` is what [`find`] found for it.
pub fn parse(spec: &Spec, args: &[Bytes], context: &Context) -> Parse<Parsed> {
    assert!(
        spec.takes(args.len()),
        "arity of '{}' was checked",
        spec.name
    );
    let command = match spec.id {
        Id::Once => return once(args, context),
        id => match data(id, spec.name, args, context) {
            Some(command) => command?,
            None => return Ok(Parsed::Session(id)),
        },
    };
    Ok(Parsed::Data(command))
}

/// `ONCE token EXEC`: what MULTI queued, as one command that runs at most once.
pub fn once_exec(token: Bytes, multi: Multi, context: &Context) -> Command {
    let command = Command::Multi(multi);
    Command::Once(Once::new(
        token,
        context.once_ttl_ms,
        context.once_max,
        command,
    ))
}

fn once(args: &[Bytes], context: &Context) -> Parse<Parsed> {
    let (token, args) = (&args[1], &args[2..]);
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TokenLength);
    }
    let spec = find(args)?;
    if spec.id == Id::Once {
        return Err(Refusal::OnceOfOnce);
    }
    if spec.id == Id::Exec {
        return Ok(Parsed::OnceExec {
            token: token.clone(),
        });
    }
    match data(spec.id, spec.name, args, context) {
        Some(command) => {
            let command = command?;
            if !command.is_write() {
                return Err(Refusal::OnceOfRead(spec.name));
            }
            let (ttl_ms, tokens_max) = (context.once_ttl_ms, context.once_max);
            let once = Once::new(token.clone(), ttl_ms, tokens_max, command);
            Ok(Parsed::Data(Command::Once(once)))
        }
        None => Err(Refusal::OnceOfRead(spec.name)),
    }
}

/// The command, or `None` if it is the session's own. Arity was checked.
fn data(id: Id, name: &'static str, args: &[Bytes], context: &Context) -> Option<Parse<Command>> {
    let key = || args[1].clone();
    let keys = || args[1..].to_vec();
    Some(Ok(match id {
        Id::Get => Command::Get { key: key() },
        Id::Set => return Some(set(args)),
        Id::SetNx => plain_set(args, SetCondition::IfAbsent, SetReply::Flag),
        Id::GetSet => plain_set(args, SetCondition::Always, SetReply::Previous),
        Id::SetEx => return Some(set_with_ttl(args, name, Unit::Seconds)),
        Id::PSetEx => return Some(set_with_ttl(args, name, Unit::Millis)),
        Id::MGet => Command::MGet { keys: keys() },
        Id::MSet | Id::MSetNx => return Some(mset(id, name, args)),
        Id::Append => Command::Append {
            key: key(),
            value: args[2].clone(),
        },
        Id::StrLen => Command::StrLen { key: key() },
        Id::GetRange | Id::SubStr => return Some(get_range(args)),
        Id::SetRange => return Some(set_range(args)),
        Id::Incr => Command::IncrBy { key: key(), by: 1 },
        Id::Decr => Command::IncrBy { key: key(), by: -1 },
        Id::IncrBy | Id::DecrBy => return Some(incr_by(id, args)),
        Id::GetDel => Command::GetDel { key: key() },
        Id::GetEx => return Some(get_ex(args)),
        Id::DelIfEq => Command::DelIfEq {
            key: key(),
            value: args[2].clone(),
        },
        Id::Del | Id::Unlink => Command::Del { keys: keys() },
        Id::Exists | Id::Touch => Command::Exists { keys: keys() },
        Id::Type => Command::Type { key: key() },
        Id::Expire | Id::PExpire | Id::ExpireAt | Id::PExpireAt => {
            return Some(expire(id, name, args));
        }
        Id::Ttl => ttl(args, false, false),
        Id::PTtl => ttl(args, true, false),
        Id::ExpireTime => ttl(args, false, true),
        Id::PExpireTime => ttl(args, true, true),
        Id::Persist => Command::Persist { key: key() },
        Id::Rename | Id::RenameNx => Command::Rename {
            source: key(),
            target: args[2].clone(),
            if_absent: id == Id::RenameNx,
        },
        Id::Copy => return Some(copy(args)),
        Id::RandomKey => Command::RandomKey { seed: context.seed },
        Id::Keys => Command::Keys { pattern: key() },
        Id::Scan => return Some(scan(args)),
        Id::DbSize => Command::DbSize,
        Id::FlushAll | Id::FlushDb => return Some(flush(args)),
        _ => return ledger::parse(id, args),
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Millis,
}

fn integer(word: &[u8]) -> Parse<i64> {
    parse_integer(word).ok_or(Refusal::NotInteger)
}

fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// A positive time for SET and its kin; `absolute` counts from 1970.
fn expire_time(word: &[u8], unit: Unit, absolute: bool, name: &'static str) -> Parse<When> {
    let number = integer(word)?;
    if number <= 0 {
        return Err(Refusal::ExpireTime(name));
    }
    when(number, unit, absolute).ok_or(Refusal::ExpireTime(name))
}

/// `None` where the time leaves the range in which milliseconds can be counted.
fn when(number: i64, unit: Unit, absolute: bool) -> Option<When> {
    let ms = match unit {
        Unit::Seconds => number.checked_mul(1000)?,
        Unit::Millis => number,
    };
    if absolute {
        Some(When::At(ms))
    } else {
        (ms <= RELATIVE_MS_MAX).then_some(When::In(ms))
    }
}

/// EX, PX, EXAT, PXAT: the unit, and whether the time is absolute.
fn expiry_option(word: &[u8]) -> Option<(Unit, bool)> {
    Some(match word {
        word if is(word, "ex") => (Unit::Seconds, false),
        word if is(word, "px") => (Unit::Millis, false),
        word if is(word, "exat") => (Unit::Seconds, true),
        word if is(word, "pxat") => (Unit::Millis, true),
        _ => return None,
    })
}

fn plain_set(args: &[Bytes], condition: SetCondition, reply: SetReply) -> Command {
    Command::Set(Set {
        key: args[1].clone(),
        value: args[2].clone(),
        expiry: Expiry::Never,
        condition,
        reply,
    })
}

fn set(args: &[Bytes]) -> Parse<Command> {
    let mut condition = SetCondition::Always;
    let mut reply = SetReply::Ok;
    let mut expiry = None;
    let mut words = args[3..].iter();
    while let Some(word) = words.next() {
        let unconditional = condition == SetCondition::Always;
        if is(word, "nx") && matches!(condition, SetCondition::Always | SetCondition::IfAbsent) {
            condition = SetCondition::IfAbsent;
        } else if is(word, "xx")
            && matches!(condition, SetCondition::Always | SetCondition::IfPresent)
        {
            condition = SetCondition::IfPresent;
        } else if is(word, "ifeq") && unconditional {
            let expected = words.next().ok_or(Refusal::Syntax)?;
            condition = SetCondition::IfEqual(expected.clone());
        } else if is(word, "get") {
            reply = SetReply::Previous;
        } else if expiry.is_some() {
            return Err(Refusal::Syntax);
        } else if is(word, "keepttl") {
            expiry = Some(None);
        } else if let Some((unit, absolute)) = expiry_option(word) {
            let number = words.next().ok_or(Refusal::Syntax)?;
            expiry = Some(Some((number, unit, absolute)));
        } else {
            return Err(Refusal::Syntax);
        }
    }
    // Redis looks at the number only once all options are known to be good.
    let expiry = match expiry {
        None => Expiry::Never,
        Some(None) => Expiry::Keep,
        Some(Some((number, unit, absolute))) => {
            Expiry::When(expire_time(number, unit, absolute, "set")?)
        }
    };
    Ok(Command::Set(Set {
        key: args[1].clone(),
        value: args[2].clone(),
        expiry,
        condition,
        reply,
    }))
}

fn set_with_ttl(args: &[Bytes], name: &'static str, unit: Unit) -> Parse<Command> {
    Ok(Command::Set(Set {
        key: args[1].clone(),
        value: args[3].clone(),
        expiry: Expiry::When(expire_time(&args[2], unit, false, name)?),
        condition: SetCondition::Always,
        reply: SetReply::Ok,
    }))
}

fn mset(id: Id, name: &'static str, args: &[Bytes]) -> Parse<Command> {
    let words = &args[1..];
    if !words.len().is_multiple_of(2) {
        return Err(Refusal::Arity(name));
    }
    Ok(Command::MSet {
        pairs: words
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect(),
        if_none_exists: id == Id::MSetNx,
    })
}

fn get_range(args: &[Bytes]) -> Parse<Command> {
    Ok(Command::GetRange {
        key: args[1].clone(),
        start: integer(&args[2])?,
        end: integer(&args[3])?,
    })
}

fn set_range(args: &[Bytes]) -> Parse<Command> {
    Ok(Command::SetRange {
        key: args[1].clone(),
        offset: u64::try_from(integer(&args[2])?).map_err(|_| Refusal::Offset)?,
        value: args[3].clone(),
    })
}

fn incr_by(id: Id, args: &[Bytes]) -> Parse<Command> {
    let mut by = integer(&args[2])?;
    if id == Id::DecrBy {
        by = by.checked_neg().ok_or(Refusal::Decrement)?;
    }
    Ok(Command::IncrBy {
        key: args[1].clone(),
        by,
    })
}

fn get_ex(args: &[Bytes]) -> Parse<Command> {
    let key = args[1].clone();
    let expiry = match &args[2..] {
        [] => return Ok(Command::Get { key }),
        [word] if is(word, "persist") => Expiry::Never,
        [word, number] => match expiry_option(word) {
            Some((unit, absolute)) => Expiry::When(expire_time(number, unit, absolute, "getex")?),
            None => return Err(Refusal::Syntax),
        },
        _ => return Err(Refusal::Syntax),
    };
    Ok(Command::GetEx { key, expiry })
}

fn expire(id: Id, name: &'static str, args: &[Bytes]) -> Parse<Command> {
    let condition = expire_condition(&args[3..])?;
    let unit = match id {
        Id::Expire | Id::ExpireAt => Unit::Seconds,
        _ => Unit::Millis,
    };
    let absolute = matches!(id, Id::ExpireAt | Id::PExpireAt);
    let number = integer(&args[2])?;
    Ok(Command::Expire {
        key: args[1].clone(),
        when: when(number, unit, absolute).ok_or(Refusal::ExpireTime(name))?,
        condition,
    })
}

fn expire_condition(words: &[Bytes]) -> Parse<ExpireCondition> {
    let mut condition = ExpireCondition::default();
    for word in words {
        if is(word, "nx") {
            condition.if_none = true;
        } else if is(word, "xx") {
            condition.if_some = true;
        } else if is(word, "gt") {
            condition.if_later = true;
        } else if is(word, "lt") {
            condition.if_earlier = true;
        } else {
            return Err(Refusal::Option(String::from_utf8_lossy(word).into_owned()));
        }
    }
    let others = condition.if_some || condition.if_later || condition.if_earlier;
    if condition.if_none && others {
        return Err(Refusal::NxWithOthers);
    }
    if condition.if_later && condition.if_earlier {
        return Err(Refusal::GtWithLt);
    }
    Ok(condition)
}

fn ttl(args: &[Bytes], in_ms: bool, absolute: bool) -> Command {
    Command::Ttl {
        key: args[1].clone(),
        form: TtlForm { in_ms, absolute },
    }
}

fn copy(args: &[Bytes]) -> Parse<Command> {
    let mut replace = false;
    let mut words = args[3..].iter();
    while let Some(word) = words.next() {
        if is(word, "replace") {
            replace = true;
        } else if is(word, "db") {
            let index = words.next().ok_or(Refusal::Syntax)?;
            if integer(index)? != 0 {
                return Err(Refusal::Database);
            }
        } else {
            return Err(Refusal::Syntax);
        }
    }
    let (source, target) = (args[1].clone(), args[2].clone());
    if source == target {
        return Err(Refusal::SameObject);
    }
    Ok(Command::Copy {
        source,
        target,
        replace,
    })
}

fn scan(args: &[Bytes]) -> Parse<Command> {
    // Not `parse_integer`: a cursor is a whole u64.
    let cursor = std::str::from_utf8(&args[1])
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or(Refusal::Cursor)?;
    let mut scan = Scan {
        cursor,
        pattern: None,
        count: 10,
        other_type: false,
    };
    let mut words = args[2..].iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(Refusal::Syntax)?;
        if is(word, "match") {
            scan.pattern = (value != "*").then(|| value.clone());
        } else if is(word, "count") {
            let count = u64::try_from(integer(value)?).map_err(|_| Refusal::Syntax)?;
            scan.count = if count > 0 {
                count
            } else {
                return Err(Refusal::Syntax);
            };
        } else if is(word, "type") {
            scan.other_type = !is(value, "string");
        } else {
            return Err(Refusal::Syntax);
        }
    }
    Ok(Command::Scan(scan))
}

fn flush(args: &[Bytes]) -> Parse<Command> {
    match &args[1..] {
        [] => Ok(Command::FlushAll),
        [word] if is(word, "async") || is(word, "sync") => Ok(Command::FlushAll),
        _ => Err(Refusal::Syntax),
    }
}
