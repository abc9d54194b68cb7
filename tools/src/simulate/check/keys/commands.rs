//! What each command on keys does and answers, as Redis 7 has it: written for the reader.
//!
//! Of what is not there a write makes something new; what a write leaves as it was keeps its
//! revision. Values near the largest are left to other tests.

use super::slate::{Line, Slate};
use bytes::Bytes;
use standfast::state::command::When;
use standfast::state::command::{ExpireCondition, Expiry, Set, SetCondition, SetReply, TtlForm};
use standfast::state::{Command, Reply};

fn int(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).expect("counts and times are below 2^63"))
}

fn flag(is_so: bool) -> Reply {
    Reply::Int(i64::from(is_so))
}

fn refusal(words: &'static str) -> Reply {
    Reply::Error(Bytes::from_static(words.as_bytes()))
}

/// An integer, written as INCR would print it.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Slate {
    fn has(&self, key: &Bytes) -> bool {
        self.lines.contains_key(key)
    }

    fn value(&self, key: &Bytes) -> Option<Bytes> {
        self.lines.get(key).map(|line| line.value.clone())
    }

    fn bulk(&self, key: &Bytes) -> Reply {
        self.value(key).map_or(Reply::Nil, Reply::Bulk)
    }

    fn ends(&self, key: &Bytes) -> Option<u64> {
        self.lines.get(key)?.ends
    }

    /// What ends at once is never there.
    fn put(&mut self, key: &Bytes, value: Bytes, ends: Option<u64>) {
        if ends.is_some_and(|ends| ends <= self.now_ms()) {
            self.lines.remove(key);
            return;
        }
        let line = Line {
            value,
            ends,
            revision: self.lsn,
        };
        self.lines.insert(key.clone(), line);
    }

    /// What a read answers; `None`: it is not for the slate to say.
    pub(super) fn look(&self, command: &Command) -> Option<Reply> {
        Some(match command {
            Command::Get { key } => self.bulk(key),
            Command::MGet { keys } => Reply::Array(keys.iter().map(|key| self.bulk(key)).collect()),
            Command::StrLen { key } => int(self.value(key).unwrap_or_default().len() as u64),
            Command::GetRange { key, start, end } => {
                Reply::Bulk(range(&self.value(key).unwrap_or_default(), *start, *end))
            }
            Command::Exists { keys } => int(keys.iter().filter(|key| self.has(key)).count() as u64),
            Command::Type { key } => Reply::Simple(if self.has(key) { "string" } else { "none" }),
            Command::Ttl { key, form } => self.ttl(key, *form),
            Command::DbSize => int(self.lines.len() as u64),
            Command::Revisions { keys } => {
                let revisions = keys.iter().map(|key| int(self.revision(key).0));
                Reply::Array(revisions.collect())
            }
            // In the keys' own order: whoever compares it sorts the other.
            Command::Keys { pattern } => {
                let prefix = pattern
                    .strip_suffix(b"*")
                    .expect("clients ask for prefixes");
                let keys = self.lines.keys().filter(|key| key.starts_with(prefix));
                Reply::Array(keys.cloned().map(Reply::Bulk).collect())
            }
            _ => return None,
        })
    }

    fn ttl(&self, key: &Bytes, form: TtlForm) -> Reply {
        if !self.has(key) {
            return Reply::Int(-2);
        }
        let Some(ends) = self.ends(key) else {
            return Reply::Int(-1);
        };
        let ms = match form.absolute {
            true => ends,
            // Of a millisecond that has begun nothing is left.
            false => ends - self.now_ns.div_ceil(1_000_000),
        };
        match form.in_ms {
            true => int(ms),
            false => int((ms + 500) / 1000),
        }
    }

    /// Does what a single command says.
    pub(super) fn write(&mut self, command: &Command) -> Reply {
        match command {
            Command::Set(set) => self.set(set),
            Command::MSet {
                pairs,
                if_none_exists,
            } => self.set_many(pairs, *if_none_exists),
            Command::Append { key, value } => {
                let whole = [self.value(key).unwrap_or_default(), value.clone()].concat();
                let length = whole.len() as u64;
                self.put(key, whole.into(), self.ends(key));
                int(length)
            }
            Command::SetRange { key, offset, value } => self.set_range(key, *offset, value),
            Command::IncrBy { key, by } => self.add(key, *by),
            Command::GetDel { key } => {
                let reply = self.bulk(key);
                self.lines.remove(key);
                reply
            }
            Command::GetEx { key, expiry } => self.get_and_end(key, *expiry),
            Command::Del { keys } => {
                let gone = keys.iter().filter(|key| self.lines.remove(*key).is_some());
                int(gone.count() as u64)
            }
            Command::DelIfEq { key, value } => {
                let is_it = self.value(key).as_ref() == Some(value);
                flag(is_it && self.lines.remove(key).is_some())
            }
            Command::Expire {
                key,
                when,
                condition,
            } => self.expire(key, *when, *condition),
            Command::Persist { key } => {
                let does_end = self.ends(key).is_some();
                if let (true, Some(value)) = (does_end, self.value(key)) {
                    self.put(key, value, None);
                }
                flag(does_end)
            }
            Command::Rename {
                source,
                target,
                if_absent,
            } => self.rename(source, target, *if_absent),
            Command::Copy {
                source,
                target,
                replace,
            } => self.copy(source, target, *replace),
            other => unreachable!("the slate has no {other:?}"),
        }
    }

    fn new_end(&self, expiry: Expiry, before: Option<u64>) -> Option<u64> {
        match expiry {
            Expiry::Never => None,
            Expiry::Keep => before,
            Expiry::When(when) => Some(self.deadline(when)),
        }
    }

    fn set(&mut self, set: &Set) -> Reply {
        let before = self.bulk(&set.key);
        let holds = match &set.condition {
            SetCondition::Always => true,
            SetCondition::IfAbsent => before == Reply::Nil,
            SetCondition::IfPresent => before != Reply::Nil,
            SetCondition::IfEqual(expected) => before == Reply::Bulk(expected.clone()),
        };
        if holds {
            let ends = self.new_end(set.expiry, self.ends(&set.key));
            self.put(&set.key, set.value.clone(), ends);
        }
        match (set.reply, holds) {
            (SetReply::Previous, _) => before,
            (SetReply::Flag, _) => flag(holds),
            (SetReply::Ok, true) => Reply::Ok,
            (SetReply::Ok, false) => Reply::Nil,
        }
    }

    fn set_many(&mut self, pairs: &[(Bytes, Bytes)], if_none_exists: bool) -> Reply {
        if if_none_exists && pairs.iter().any(|(key, _)| self.has(key)) {
            return Reply::Int(0);
        }
        for (key, value) in pairs {
            self.put(key, value.clone(), None);
        }
        match if_none_exists {
            true => Reply::Int(1),
            false => Reply::Ok,
        }
    }

    fn set_range(&mut self, key: &Bytes, offset: u64, value: &Bytes) -> Reply {
        let mut whole = self.value(key).unwrap_or_default().to_vec();
        if !value.is_empty() {
            let start = usize::try_from(offset).expect("clients write near the beginning");
            let end = start + value.len();
            whole.resize(whole.len().max(end), 0);
            whole[start..end].copy_from_slice(value);
            self.put(key, whole.clone().into(), self.ends(key));
        }
        int(whole.len() as u64)
    }

    fn add(&mut self, key: &Bytes, by: i64) -> Reply {
        let before = match self.value(key) {
            None => Some(0),
            Some(value) => number(&value),
        };
        let Some(before) = before else {
            return refusal("ERR value is not an integer or out of range");
        };
        let Some(sum) = before.checked_add(by) else {
            return refusal("ERR increment or decrement would overflow");
        };
        self.put(key, sum.to_string().into(), self.ends(key));
        Reply::Int(sum)
    }

    /// Where the end stays the same nothing has changed.
    fn get_and_end(&mut self, key: &Bytes, expiry: Expiry) -> Reply {
        let Some(value) = self.value(key) else {
            return Reply::Nil;
        };
        let before = self.ends(key);
        let after = self.new_end(expiry, before);
        if after != before {
            self.put(key, value.clone(), after);
        }
        Reply::Bulk(value)
    }

    fn expire(&mut self, key: &Bytes, when: When, condition: ExpireCondition) -> Reply {
        let Some(value) = self.value(key) else {
            return Reply::Int(0);
        };
        let (before, after) = (self.ends(key), self.deadline(when));
        // What does not end ends later than anything.
        let (is_later, is_earlier) = match before {
            Some(before) => (after > before, after < before),
            None => (false, true),
        };
        let holds = (!condition.if_none || before.is_none())
            && (!condition.if_some || before.is_some())
            && (!condition.if_later || is_later)
            && (!condition.if_earlier || is_earlier);
        if holds {
            self.put(key, value, Some(after));
        }
        flag(holds)
    }

    fn rename(&mut self, source: &Bytes, target: &Bytes, if_absent: bool) -> Reply {
        let Some(line) = self.lines.get(source).cloned() else {
            return refusal("ERR no such key");
        };
        if if_absent && self.has(target) {
            return Reply::Int(0);
        }
        if source != target {
            self.lines.remove(source);
            self.put(target, line.value, line.ends);
        }
        match if_absent {
            true => Reply::Int(1),
            false => Reply::Ok,
        }
    }

    fn copy(&mut self, source: &Bytes, target: &Bytes, replace: bool) -> Reply {
        let Some(line) = self.lines.get(source).cloned() else {
            return Reply::Int(0);
        };
        if self.has(target) && !replace {
            return Reply::Int(0);
        }
        self.put(target, line.value, line.ends);
        Reply::Int(1)
    }
}

/// GETRANGE: both ends count; negative ones from the end of the value.
fn range(value: &Bytes, start: i64, end: i64) -> Bytes {
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let length = value.len() as i128;
    let from_start = |at: i64| match i128::from(at) {
        at if at < 0 => (at + length).max(0),
        at => at,
    };
    let (first, last) = (from_start(start), from_start(end).min(length - 1));
    let places = (0..length).zip(value.iter());
    let wanted = places.filter(|(place, _)| (first..=last).contains(place));
    wanted.map(|(_, byte)| *byte).collect()
}
