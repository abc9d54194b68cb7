//! A logged command in a client's words: for people who read a log or a loss statement, and for
//! sending again what was cut.

mod ledger;

use super::command::{
    Command, ExpireCondition, Expiry, Scan, Set, SetCondition, SetReply, TtlForm, When,
};
use bytes::Bytes;
use std::fmt::{self, Display};

impl Command {
    /// The requests that would have this effect, in order; more than one for EXEC. Watches are
    /// left out: they were about a moment that has passed.
    pub fn requests(&self) -> Vec<Vec<Bytes>> {
        match self {
            Command::Multi(multi) => {
                let commands = multi.commands.iter().flat_map(Command::requests);
                let multi = std::iter::once(vec![word("MULTI")]);
                multi.chain(commands).chain([vec![word("EXEC")]]).collect()
            }
            Command::Once(once) => {
                let mut requests = once.command.requests();
                // Of several, EXEC is the one that counts.
                let last = requests
                    .last_mut()
                    .expect("a command is at least one request");
                last.splice(0..0, [word("ONCE"), once.token.clone()]);
                requests
            }
            Command::Revisions { keys } => keys
                .iter()
                .map(|key| vec![word("TOKEN"), key.clone()])
                .collect(),
            single => vec![single.words()],
        }
    }

    fn words(&self) -> Vec<Bytes> {
        let with_keys = |name, keys: &[Bytes]| [&[word(name)], keys].concat();
        let of_key = |name, key: &Bytes| vec![word(name), key.clone()];
        let of_two = |name, one: &Bytes, two: &Bytes| vec![word(name), one.clone(), two.clone()];
        match self {
            Command::Set(set) => set_words(set),
            Command::MSet {
                pairs,
                if_none_exists,
            } => {
                let name = word(if *if_none_exists { "MSETNX" } else { "MSET" });
                let pairs = pairs
                    .iter()
                    .flat_map(|(key, value)| [key.clone(), value.clone()]);
                std::iter::once(name).chain(pairs).collect()
            }
            Command::Append { key, value } => of_two("APPEND", key, value),
            Command::SetRange { key, offset, value } => {
                vec![word("SETRANGE"), key.clone(), number(offset), value.clone()]
            }
            Command::IncrBy { key, by } => of_two("INCRBY", key, &number(by)),
            Command::GetDel { key } => of_key("GETDEL", key),
            Command::GetEx { key, expiry } => {
                let mut words = of_key("GETEX", key);
                match expiry {
                    Expiry::Never => words.push(word("PERSIST")),
                    other => push_expiry(&mut words, *other),
                }
                words
            }
            Command::Del { keys } => with_keys("DEL", keys),
            Command::DelIfEq { key, value } => of_two("DELIFEQ", key, value),
            Command::Expire {
                key,
                when,
                condition,
            } => expire_words(key, *when, *condition),
            Command::Persist { key } => of_key("PERSIST", key),
            Command::Rename {
                source,
                target,
                if_absent,
            } => of_two(
                if *if_absent { "RENAMENX" } else { "RENAME" },
                source,
                target,
            ),
            Command::Copy {
                source,
                target,
                replace,
            } => {
                let mut words = of_two("COPY", source, target);
                words.extend(replace.then(|| word("REPLACE")));
                words
            }
            Command::FlushAll => vec![word("FLUSHALL")],
            read => read.read_words(),
        }
    }

    fn read_words(&self) -> Vec<Bytes> {
        let with_keys = |name, keys: &[Bytes]| [&[word(name)], keys].concat();
        let of_key = |name, key: &Bytes| vec![word(name), key.clone()];
        match self {
            Command::Get { key } => of_key("GET", key),
            Command::MGet { keys } => with_keys("MGET", keys),
            Command::StrLen { key } => of_key("STRLEN", key),
            Command::GetRange { key, start, end } => {
                vec![word("GETRANGE"), key.clone(), number(start), number(end)]
            }
            Command::Exists { keys } => with_keys("EXISTS", keys),
            Command::Type { key } => of_key("TYPE", key),
            Command::Ttl { key, form } => of_key(ttl_name(*form), key),
            Command::RandomKey { .. } => vec![word("RANDOMKEY")],
            Command::Keys { pattern } => of_key("KEYS", pattern),
            Command::Scan(scan) => scan_words(scan),
            Command::DbSize => vec![word("DBSIZE")],
            other => ledger::words(other).expect("what is composed is handled by requests"),
        }
    }
}

fn word(word: &'static str) -> Bytes {
    Bytes::from_static(word.as_bytes())
}

fn number(number: &impl Display) -> Bytes {
    Bytes::from(number.to_string())
}

fn push_expiry(words: &mut Vec<Bytes>, expiry: Expiry) {
    match expiry {
        Expiry::Never => {}
        Expiry::Keep => words.push(word("KEEPTTL")),
        Expiry::When(When::In(ms)) => words.extend([word("PX"), number(&ms)]),
        Expiry::When(When::At(ms)) => words.extend([word("PXAT"), number(&ms)]),
    }
}

fn set_words(set: &Set) -> Vec<Bytes> {
    if set.reply == SetReply::Flag {
        return vec![word("SETNX"), set.key.clone(), set.value.clone()];
    }
    let mut words = vec![word("SET"), set.key.clone(), set.value.clone()];
    match &set.condition {
        SetCondition::Always => {}
        SetCondition::IfAbsent => words.push(word("NX")),
        SetCondition::IfPresent => words.push(word("XX")),
        SetCondition::IfEqual(expected) => words.extend([word("IFEQ"), expected.clone()]),
    }
    words.extend((set.reply == SetReply::Previous).then(|| word("GET")));
    push_expiry(&mut words, set.expiry);
    words
}

fn expire_words(key: &Bytes, when: When, condition: ExpireCondition) -> Vec<Bytes> {
    let (name, ms) = match when {
        When::In(ms) => ("PEXPIRE", ms),
        When::At(ms) => ("PEXPIREAT", ms),
    };
    let ExpireCondition {
        if_none,
        if_some,
        if_later,
        if_earlier,
    } = condition;
    let options = [
        (if_none, "NX"),
        (if_some, "XX"),
        (if_later, "GT"),
        (if_earlier, "LT"),
    ];
    let chosen = options
        .into_iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, option)| word(option));
    [word(name), key.clone(), number(&ms)]
        .into_iter()
        .chain(chosen)
        .collect()
}

fn ttl_name(form: TtlForm) -> &'static str {
    match (form.in_ms, form.absolute) {
        (false, false) => "TTL",
        (true, false) => "PTTL",
        (false, true) => "EXPIRETIME",
        (true, true) => "PEXPIRETIME",
    }
}

fn scan_words(scan: &Scan) -> Vec<Bytes> {
    let mut words = vec![word("SCAN"), number(&scan.cursor)];
    words.extend(
        scan.pattern
            .iter()
            .flat_map(|pattern| [word("MATCH"), pattern.clone()]),
    );
    words.extend([word("COUNT"), number(&scan.count)]);
    words.extend(
        scan.other_type
            .then(|| [word("TYPE"), word("other")])
            .into_iter()
            .flatten(),
    );
    words
}

/// One line: requests separated by `;`, words that are not plain in quotes, long ones cut.
impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 64;
        for (at, request) in self.requests().iter().enumerate() {
            f.write_str(if at > 0 { "; " } else { "" })?;
            for (at, word) in request.iter().enumerate() {
                f.write_str(if at > 0 { " " } else { "" })?;
                let shown = &word[..word.len().min(SHOWN_MAX)];
                let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\;".contains(byte);
                if !shown.is_empty() && shown.iter().all(is_plain) {
                    f.write_str(&String::from_utf8_lossy(shown))?;
                } else {
                    write!(f, "\"{}\"", shown.escape_ascii())?;
                }
                if shown.len() < word.len() {
                    write!(f, "…({} bytes)", word.len())?;
                }
            }
        }
        Ok(())
    }
}
