//! The string commands.

use super::command::{Expiry, Set, SetCondition, SetReply};
use super::entry::Content;
use super::expiry::{deadline_ms, now_ms};
use super::place::Place;
use super::{Reply, State, VALUE_BYTES_MAX, integer_reply, parse_integer};
use bytes::Bytes;

const NOT_INTEGER: &[u8] = b"ERR value is not an integer or out of range";
const OVERFLOW: &[u8] = b"ERR increment or decrement would overflow";
const TOO_LONG: &[u8] = b"ERR string exceeds maximum allowed size (proto-max-bulk-len)";

fn refuse(text: &'static [u8]) -> Reply {
    Reply::Error(Bytes::from_static(text))
}

/// A value as a reply, or nil.
fn bulk(value: Option<&[u8]>) -> Reply {
    value.map_or(Reply::Nil, |value| {
        Reply::Bulk(Bytes::copy_from_slice(value))
    })
}

impl State {
    /// Stores a value at the LSN being applied. An expiry that log time has passed removes the
    /// key instead: it would never be seen.
    pub(super) fn put(&mut self, place: Place, key: &[u8], value: &[u8], expiry_ms: Option<u64>) {
        if expiry_ms.is_some_and(|expiry_ms| expiry_ms <= self.now_ms()) {
            self.keys.remove(place, key);
            return;
        }
        let revision = self.applied.lsn;
        self.keys.put(
            place,
            Content {
                revision,
                expiry_ms,
                key,
                value,
            },
        );
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.live(key).map(|entry| entry.value())
    }

    /// The deadline that a write gives to a key that has `before` now.
    fn new_expiry(&self, expiry: Expiry, before: Option<u64>) -> Option<u64> {
        match expiry {
            Expiry::Never => None,
            Expiry::Keep => before,
            // Before 1970 is as much the past as 1970 is.
            Expiry::When(when) => Some(deadline_ms(when, self.applied.timestamp).unwrap_or(0)),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Reply {
        bulk(self.value(key))
    }

    pub(super) fn str_len(&self, key: &[u8]) -> Reply {
        integer_reply(self.value(key).map_or(0, <[u8]>::len) as u64)
    }

    pub(super) fn get_range(&self, key: &[u8], start: i64, end: i64) -> Reply {
        let value = self.value(key).unwrap_or_default();
        let len = i64::try_from(value.len()).expect("a value is much shorter");
        let from_end = |at: i64| if at < 0 { at.saturating_add(len) } else { at };
        let both_negative_and_crossed = start < 0 && end < 0 && start > end;
        let (start, end) = (from_end(start).max(0), from_end(end).max(0).min(len - 1));
        if both_negative_and_crossed || start > end {
            return Reply::Bulk(Bytes::new());
        }
        let range = usize::try_from(start).expect("at least 0")
            ..=usize::try_from(end).expect("at least start");
        bulk(value.get(range))
    }

    pub(super) fn set(&mut self, set: &Set) -> Reply {
        if set.value.len() > VALUE_BYTES_MAX {
            return refuse(TOO_LONG);
        }
        let place = self.keys.place(&set.key);
        let plain = set.condition == SetCondition::Always
            && set.reply == SetReply::Ok
            && set.expiry == Expiry::Never;
        if plain {
            self.put(place, &set.key, &set.value, None);
            return Reply::Ok;
        }
        let before = self
            .keys
            .find_live(place, &set.key, now_ms(self.applied.timestamp));
        let holds = match &set.condition {
            SetCondition::Always => true,
            SetCondition::IfAbsent => before.is_none(),
            SetCondition::IfPresent => before.is_some(),
            SetCondition::IfEqual(expected) => {
                before.is_some_and(|entry| entry.value() == expected)
            }
        };
        let reply = match set.reply {
            SetReply::Previous => bulk(before.map(|entry| entry.value())),
            SetReply::Flag => Reply::Int(holds.into()),
            SetReply::Ok if holds => Reply::Ok,
            SetReply::Ok => Reply::Nil,
        };
        if holds {
            let expiry_ms = self.new_expiry(set.expiry, before.and_then(|entry| entry.expiry_ms()));
            self.put(place, &set.key, &set.value, expiry_ms);
        }
        reply
    }

    pub(super) fn mset(&mut self, pairs: &[(Bytes, Bytes)], if_none_exists: bool) -> Reply {
        if pairs.iter().any(|(_, value)| value.len() > VALUE_BYTES_MAX) {
            return refuse(TOO_LONG);
        }
        if if_none_exists && pairs.iter().any(|(key, _)| self.live(key).is_some()) {
            return Reply::Int(0);
        }
        for (key, value) in pairs {
            let place = self.keys.place(key);
            self.put(place, key, value, None);
        }
        if if_none_exists {
            Reply::Int(1)
        } else {
            Reply::Ok
        }
    }

    pub(super) fn append(&mut self, key: &[u8], value: &[u8]) -> Reply {
        let before = self.live(key);
        let expiry_ms = before.and_then(|entry| entry.expiry_ms());
        let before = before.map_or(&[][..], |entry| entry.value());
        if before.len() + value.len() > VALUE_BYTES_MAX {
            return refuse(TOO_LONG);
        }
        let joined = [before, value].concat();
        let place = self.keys.place(key);
        self.put(place, key, &joined, expiry_ms);
        integer_reply(joined.len() as u64)
    }

    pub(super) fn set_range(&mut self, key: &[u8], offset: u64, value: &[u8]) -> Reply {
        let before = self.live(key);
        let expiry_ms = before.and_then(|entry| entry.expiry_ms());
        let before = before.map_or(&[][..], |entry| entry.value());
        if value.is_empty() {
            return integer_reply(before.len() as u64);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(value.len());
        if end > VALUE_BYTES_MAX {
            return refuse(TOO_LONG);
        }
        let mut after = before.to_vec();
        after.resize(before.len().max(end), 0);
        after[start..end].copy_from_slice(value);
        let place = self.keys.place(key);
        self.put(place, key, &after, expiry_ms);
        integer_reply(after.len() as u64)
    }

    pub(super) fn incr_by(&mut self, key: &[u8], by: i64) -> Reply {
        let place = self.keys.place(key);
        let before = self.keys.find_live(place, key, self.now_ms());
        let expiry_ms = before.and_then(|entry| entry.expiry_ms());
        let Some(number) = before.map_or(Some(0), |entry| parse_integer(entry.value())) else {
            return refuse(NOT_INTEGER);
        };
        let Some(sum) = number.checked_add(by) else {
            return refuse(OVERFLOW);
        };
        let mut digits = itoa::Buffer::new();
        self.put(place, key, digits.format(sum).as_bytes(), expiry_ms);
        Reply::Int(sum)
    }

    pub(super) fn get_del(&mut self, key: &[u8]) -> Reply {
        let reply = self.get(key);
        if reply != Reply::Nil {
            self.remove(key);
        }
        reply
    }

    pub(super) fn get_ex(&mut self, key: &[u8], expiry: Expiry) -> Reply {
        let Some(entry) = self.live(key) else {
            return Reply::Nil;
        };
        let before = entry.expiry_ms();
        let value = Bytes::copy_from_slice(entry.value());
        let expiry_ms = self.new_expiry(expiry, before);
        // PERSIST on a key without expiry changes nothing, not even the revision.
        if expiry_ms != before {
            let place = self.keys.place(key);
            self.put(place, key, &value, expiry_ms);
        }
        Reply::Bulk(value)
    }
}
