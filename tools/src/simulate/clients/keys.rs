//! What clients ask of keys that end: every command there is for keys, locks that several EXEC
//! watch around the time at which they end, tokens with a short life, FLUSHALL.
//!
//! No check but the replays looks at these keys: any command may do anything to any of them.

use super::draw::{TOKENS_MAX, parse};
use super::{Script, What, text};
use crate::simulate::world::{MS, World};
use bytes::Bytes;
use standfast::node::client::Op;
use standfast::state::Command;
use standfast::state::command::{Multi, Once};

const KEYS: u64 = 8;
/// Values that come again and again: for IFEQ, DELIFEQ and INCR.
const COMMON: [&str; 5] = ["one", "two", "7", "-1", "9223372036854775807"];

impl World {
    /// Mostly while a node takes a snapshot.
    pub(super) fn is_time_to_flush(&mut self) -> bool {
        if !self.clients.mix.flushes {
            return false;
        }
        let mut processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let one_in = match processes.any(|process| process.engine.is_taking_snapshot()) {
            true => 25,
            false => 250,
        };
        self.dice.clients.one_in(one_in)
    }

    fn ending_key(&mut self) -> Bytes {
        text(format!("e{}", self.dice.clients.below(KEYS)))
    }

    fn common(&mut self) -> Bytes {
        text(self.dice.clients.pick(&COMMON))
    }

    fn any_value(&mut self, number: usize) -> Bytes {
        match self.dice.clients.one_in(2) {
            true => self.common(),
            false => self.value(number),
        }
    }

    /// Around the time of the newest record of any log, in ms.
    fn about_now(&mut self) -> i64 {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let tips = processes.map(|process| process.engine.replica().tip().timestamp);
        let newest = tips.max().unwrap_or_default() / 1_000_000;
        let ahead = self.dice.clients.scaled(1, 3000);
        let behind = self.dice.clients.below(100);
        i64::try_from(newest + ahead).unwrap_or(i64::MAX) - behind as i64
    }

    /// An option that says when a key ends, as SET and GETEX have it.
    fn until(&mut self) -> Vec<Bytes> {
        let ms = self.dice.clients.scaled(5, 3000);
        let (word, time) = match self.dice.clients.below(6) {
            0 => ("EX", self.dice.clients.between(1, 3).to_string()),
            1 => ("EXAT", (self.about_now() / 1000 + 1).max(1).to_string()),
            2 | 3 => ("PXAT", self.about_now().max(1).to_string()),
            _ => ("PX", ms.to_string()),
        };
        vec![text(word), text(time)]
    }

    pub(super) fn any_key_command(&mut self, number: usize) -> (What, Op) {
        let words = match self.dice.clients.below(5) {
            0 => self.ending_set(number),
            1 => self.change_of_end(),
            2 => self.change_of_value(number),
            3 => self.move_of_keys(number),
            _ => {
                let words = self.look_at_keys();
                let stale = self.dice.clients.one_in(3);
                return self.data(number, words, stale);
            }
        };
        self.data(number, words, false)
    }

    fn ending_set(&mut self, number: usize) -> Vec<Bytes> {
        let mut words = vec![text("SET"), self.ending_key(), self.any_value(number)];
        match self.dice.clients.below(6) {
            0 => words.push(text("NX")),
            1 => words.push(text("XX")),
            2 => words.extend([text("IFEQ"), self.common()]),
            _ => {}
        }
        if self.dice.clients.one_in(4) {
            words.push(text("GET"));
        }
        match self.dice.clients.below(5) {
            0 => {}
            1 => words.push(text("KEEPTTL")),
            _ => words.extend(self.until()),
        }
        words
    }

    fn change_of_end(&mut self) -> Vec<Bytes> {
        let key = self.ending_key();
        match self.dice.clients.below(8) {
            0 => return vec![text("PERSIST"), key],
            1 => return vec![text("GETEX"), key, text("PERSIST")],
            2 | 3 => {
                let mut words = vec![text("GETEX"), key];
                words.extend(self.until());
                return words;
            }
            _ => {}
        }
        let ms = self.dice.clients.scaled(1, 3000) as i64;
        // What is past takes the key at once.
        let ms = match self.dice.clients.one_in(12) {
            true => -ms,
            false => ms,
        };
        let (word, time) = match self.dice.clients.below(4) {
            0 => ("EXPIRE", ms / 1000 + 1),
            1 => ("EXPIREAT", self.about_now() / 1000 + 1),
            2 => ("PEXPIREAT", self.about_now()),
            _ => ("PEXPIRE", ms),
        };
        let mut words = vec![text(word), key, text(time.to_string())];
        if self.dice.clients.one_in(2) {
            words.push(text(self.dice.clients.pick(&["NX", "XX", "GT", "LT"])));
        }
        words
    }

    fn change_of_value(&mut self, number: usize) -> Vec<Bytes> {
        let key = self.ending_key();
        let value = self.any_value(number);
        let below = |world: &mut World, bound| text(world.dice.clients.below(bound).to_string());
        match self.dice.clients.below(10) {
            0 => vec![text("APPEND"), key, value],
            1 | 2 => vec![text("SETRANGE"), key, below(self, 30), value],
            3 => vec![text("SETRANGE"), key, below(self, 30), Bytes::new()],
            4 => vec![text("INCRBY"), key, below(self, 5)],
            5 => vec![text("DECR"), key],
            6 => vec![text("GETDEL"), key],
            7 => vec![text("DELIFEQ"), key, self.common()],
            8 => vec![text("SETNX"), key, value],
            _ => vec![text("GETSET"), key, value],
        }
    }

    fn move_of_keys(&mut self, number: usize) -> Vec<Bytes> {
        let (source, target) = (self.ending_key(), self.ending_key());
        let is_one = source == target;
        match self.dice.clients.below(7) {
            0 | 1 => vec![text("RENAME"), source, target],
            2 => vec![text("RENAMENX"), source, target],
            3 if !is_one => vec![text("COPY"), source, target],
            4 if !is_one => vec![text("COPY"), source, target, text("REPLACE")],
            5 => vec![text("DEL"), source, target],
            _ => {
                let (one, other) = (self.any_value(number), self.any_value(number));
                vec![text("MSETNX"), source, one, target, other]
            }
        }
    }

    fn look_at_keys(&mut self) -> Vec<Bytes> {
        let key = self.ending_key();
        let random = &mut self.dice.clients;
        let mut offset = || text((random.between(0, 40) as i64 - 20).to_string());
        let (start, end) = (offset(), offset());
        let word = random.pick(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "TYPE", "STRLEN"]);
        match random.below(10) {
            0 | 1 => vec![text("GETRANGE"), key, start, end],
            2 => vec![text("EXISTS"), key.clone(), self.ending_key(), key],
            3 => vec![text("DBSIZE")],
            4 => vec![text("KEYS"), text(self.dice.clients.pick(&["e*", "*"]))],
            5 => vec![text("MGET"), key, self.ending_key()],
            _ => vec![text(word), key],
        }
    }

    /// Takes keys that all end at one time, and WATCHes them.
    pub(super) fn lock(&mut self, number: usize) -> Vec<(What, Op)> {
        let first = self.dice.clients.below(KEYS);
        let count = self.dice.clients.between(2, KEYS);
        let keys: Vec<Bytes> = (0..count)
            .map(|place| text(format!("e{}", (first + place) % KEYS)))
            .collect();
        let ms = self.dice.clients.scaled(5, 400);
        let value = self.value(number);
        let set = |key: &Bytes| {
            let (word, ms) = (text("PX"), text(ms.to_string()));
            parse(&[text("SET"), key.clone(), value.clone(), word, ms])
        };
        let multi = Multi {
            watches: Vec::new(),
            commands: keys.iter().map(set).collect(),
        };
        // A little before the keys end, or right behind that, before anybody has swept them.
        let around = match self.dice.clients.one_in(4) {
            true => self.dice.clients.below(ms * MS),
            false => ms * MS + self.dice.clients.below(2 * MS),
        };
        let revisions = Command::Revisions { keys: keys.clone() };
        self.clients.list[number].script = Script::Lock {
            keys,
            revisions: None,
            until: self.now + around,
        };
        let (take, first) = self.ask(number, Command::Multi(multi), false);
        let (watch, second) = self.ask(number, revisions, false);
        vec![(What::Data(take), first), (What::Watch(watch), second)]
    }

    /// EXEC: takes effect only if all the keys are still there, and nobody has changed one.
    pub(super) fn under_a_lock(&mut self, number: usize) -> (What, Op) {
        let script = std::mem::replace(&mut self.clients.list[number].script, Script::Nothing);
        let Script::Lock {
            keys,
            revisions: Some(revisions),
            ..
        } = script
        else {
            unreachable!("the caller has looked");
        };
        let value = self.value(number);
        let key = self.ending_key();
        let look = parse(&[text("PTTL"), keys[0].clone()]);
        let set = parse(&[text("SET"), key, value, text("PX"), text("700")]);
        let multi = Multi {
            watches: keys.into_iter().zip(revisions).collect(),
            commands: vec![set, look],
        };
        let (id, op) = self.ask(number, Command::Multi(multi), false);
        (What::Data(id), op)
    }

    /// Some under tokens that end at one time, and are not asked for again where no answer comes;
    /// at that time comes the next.
    pub(super) fn short_onces(&mut self, number: usize, command: &Command) -> Vec<(What, Op)> {
        let ttl_ms = self.dice.clients.scaled(5, 3000);
        let around = ttl_ms * MS + self.dice.clients.below(2 * MS);
        let count = self.dice.clients.pick(&[1, 3, 8]);
        let asked = (0..count).map(|_| {
            self.clients.list[number].written += 1;
            let token = text(format!("s{number}-{}", self.clients.list[number].written));
            self.once_under(number, token, ttl_ms, command.clone())
        });
        let asked = asked.collect();
        if count > 1 {
            self.clients.list[number].script = Script::Room {
                until: self.now + around,
            };
        }
        asked
    }

    /// The last token once more, for another command: it stands for one only.
    pub(super) fn reused_token(&mut self, number: usize, token: Bytes) -> (What, Op) {
        let set = parse(&[text("SET"), self.ending_key(), self.common()]);
        let ttl_ms = self.dice.clients.scaled(5, 3000);
        self.once_under(number, token, ttl_ms, set)
    }

    fn once_under(
        &mut self,
        number: usize,
        token: Bytes,
        ttl_ms: u64,
        command: Command,
    ) -> (What, Op) {
        self.clients.list[number].token = Some(token.clone());
        // Not the same everywhere: else the two that a command sweeps are room enough for its own.
        let few = self.clients.mix.few_tokens;
        let few = few.map(|most| self.dice.clients.between(3, most));
        let tokens_max = few.unwrap_or(TOKENS_MAX);
        let once = Command::Once(Once::new(token, ttl_ms, tokens_max, command));
        let (id, op) = self.ask(number, once, false);
        (What::Data(id), op)
    }
}
