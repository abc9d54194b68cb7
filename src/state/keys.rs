//! The commands on keys, whatever their values.

use super::command::{ExpireCondition, TtlForm, When};
use super::entry::Entry;
use super::expiry::deadline_ms;
use super::{Reply, State, integer_reply};
use bytes::Bytes;
use standfast_wal::Lsn;

const NO_SUCH_KEY: &[u8] = b"ERR no such key";

impl State {
    /// The key's entry, if log time has not passed its deadline.
    pub(super) fn live(&self, key: &[u8]) -> Option<&Entry> {
        self.keys
            .find_live(self.keys.place(key), key, self.now_ms())
    }

    /// LSN of the key's last change; 0 if there is no such key.
    pub fn revision(&self, key: &[u8]) -> Lsn {
        self.live(key).map_or(Lsn::ZERO, Entry::revision)
    }

    /// Removes the key; whether it was there for clients.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let place = self.keys.place(key);
        let now_ms = self.now_ms();
        let removed = self.keys.remove(place, key);
        removed.is_some_and(|entry| super::store::is_live(&entry, now_ms))
    }

    pub(super) fn exists(&self, keys: &[Bytes]) -> Reply {
        integer_reply(keys.iter().filter(|key| self.live(key).is_some()).count() as u64)
    }

    pub(super) fn type_of(&self, key: &[u8]) -> Reply {
        Reply::Simple(if self.live(key).is_some() {
            "string"
        } else {
            "none"
        })
    }

    pub(super) fn ttl(&self, key: &[u8], form: TtlForm) -> Reply {
        let Some(entry) = self.live(key) else {
            return Reply::Int(-2);
        };
        let Some(expiry_ms) = entry.expiry_ms() else {
            return Reply::Int(-1);
        };
        let ms = if form.absolute {
            expiry_ms
        } else {
            expiry_ms - self.applied.timestamp.div_ceil(1_000_000)
        };
        // Seconds are rounded to the nearest, as Redis does it.
        integer_reply(if form.in_ms {
            ms
        } else {
            ms.saturating_add(500) / 1000
        })
    }

    pub(super) fn del(&mut self, keys: &[Bytes]) -> Reply {
        let mut removed = 0;
        for key in keys {
            removed += i64::from(self.remove(key));
        }
        Reply::Int(removed)
    }

    pub(super) fn del_if_eq(&mut self, key: &[u8], value: &[u8]) -> Reply {
        let equal = self.live(key).is_some_and(|entry| entry.value() == value);
        Reply::Int((equal && self.remove(key)).into())
    }

    pub(super) fn expire(&mut self, key: &[u8], when: When, condition: ExpireCondition) -> Reply {
        let Some(entry) = self.live(key) else {
            return Reply::Int(0);
        };
        let before = entry.expiry_ms();
        let deadline = deadline_ms(when, self.applied.timestamp);
        // Without a deadline a key ends later than with any.
        let is_later = before.is_some_and(|before| deadline.is_some_and(|ms| ms > before));
        let is_earlier = before.is_none_or(|before| deadline.is_none_or(|ms| ms < before));
        let refused = (condition.if_none && before.is_some())
            || (condition.if_some && before.is_none())
            || (condition.if_later && !is_later)
            || (condition.if_earlier && !is_earlier);
        if refused {
            return Reply::Int(0);
        }
        let entry = entry.clone();
        let place = self.keys.place(key);
        self.put(place, key, entry.value(), Some(deadline.unwrap_or(0)));
        Reply::Int(1)
    }

    pub(super) fn persist(&mut self, key: &[u8]) -> Reply {
        let Some(entry) = self.live(key).filter(|entry| entry.expiry_ms().is_some()) else {
            return Reply::Int(0);
        };
        let entry = entry.clone();
        let place = self.keys.place(key);
        self.put(place, key, entry.value(), None);
        Reply::Int(1)
    }

    pub(super) fn rename(&mut self, source: &[u8], target: &[u8], if_absent: bool) -> Reply {
        let Some(entry) = self.live(source).cloned() else {
            return Reply::Error(Bytes::from_static(NO_SUCH_KEY));
        };
        let done = if if_absent { Reply::Int(1) } else { Reply::Ok };
        if if_absent && self.live(target).is_some() {
            return Reply::Int(0);
        }
        if source != target {
            self.remove(source);
            let place = self.keys.place(target);
            self.put(place, target, entry.value(), entry.expiry_ms());
        }
        done
    }

    pub(super) fn copy(&mut self, source: &[u8], target: &[u8], replace: bool) -> Reply {
        let Some(entry) = self.live(source).cloned() else {
            return Reply::Int(0);
        };
        if !replace && self.live(target).is_some() {
            return Reply::Int(0);
        }
        let place = self.keys.place(target);
        self.put(place, target, entry.value(), entry.expiry_ms());
        Reply::Int(1)
    }
}
