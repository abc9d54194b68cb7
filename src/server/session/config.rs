//! CONFIG: what clients ask for by Redis's names, and what can change while the node runs.

use super::Session;
use crate::node::client::Control;
use crate::server::command::Spec;
use crate::server::{Front, text};
use crate::state::{Reply, glob_matches};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a setting that can change is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Number,
    /// Bytes, with Redis's suffixes.
    Bytes,
    /// Microseconds; a negative number is "never".
    MicrosOrNever,
    /// `yes` or `no`.
    Flag,
}

struct Row {
    name: &'static str,
    unit: Unit,
    field: fn(&Front) -> &AtomicU64,
}

/// What CONFIG SET changes on this node, until its process ends.
const TUNABLE: [Row; 6] = [
    Row {
        name: "maxclients",
        unit: Unit::Number,
        field: |front| &front.tunable.max_clients,
    },
    Row {
        name: "timeout",
        unit: Unit::Number,
        field: |front| &front.tunable.idle_timeout_s,
    },
    Row {
        name: "output-buffer",
        unit: Unit::Bytes,
        field: |front| &front.tunable.output_bytes_max,
    },
    Row {
        name: "protected-mode",
        unit: Unit::Flag,
        field: |front| &front.tunable.protected,
    },
    Row {
        name: "slowlog-log-slower-than",
        unit: Unit::MicrosOrNever,
        field: |front| &front.tunable.slowlog_us,
    },
    Row {
        name: "slowlog-max-len",
        unit: Unit::Number,
        field: |front| &front.tunable.slowlog_entries_max,
    },
];

/// Settings of Redis that tools look for, with what holds here.
const FIXED: [(&str, &str); 6] = [
    ("appendfsync", "always"),
    ("appendonly", "yes"),
    ("databases", "1"),
    ("maxmemory-policy", "noeviction"),
    ("save", ""),
    ("lua-time-limit", "0"),
];

impl Session {
    pub(super) fn config_command(&mut self, spec: &Spec, args: &[Bytes]) {
        let word = args
            .get(1)
            .map(|word| word.to_ascii_lowercase())
            .unwrap_or_default();
        match (&*word, args.get(2..).unwrap_or_default()) {
            (b"get", patterns @ [_, ..]) => {
                let reply = self.shown(patterns);
                self.reply(reply);
            }
            (b"set", pairs @ [_, _, ..]) if pairs.len() % 2 == 0 => self.set(pairs),
            (b"resetstat", []) => {
                self.front.counters.reset();
                self.reply(Reply::Ok);
            }
            (b"rewrite", []) => self.reply(Reply::error(
                "ERR The server is running without a config file it may write; change node.toml",
            )),
            (b"help", []) => self.reply(Reply::Array(vec![text(spec.summary)])),
            _ => self.wrong_subcommand(spec, args),
        }
    }

    fn shown(&self, patterns: &[Bytes]) -> Reply {
        let view = self.front.handle.view();
        let mut all: Vec<(&str, String)> = FIXED
            .iter()
            .map(|(name, value)| (*name, (*value).to_string()))
            .collect();
        all.extend(TUNABLE.iter().map(|row| {
            let value = (row.field)(&self.front).load(Relaxed);
            let is_never = matches!(row.unit, Unit::MicrosOrNever) && value == u64::MAX;
            (
                row.name,
                if is_never {
                    "-1".to_string()
                } else {
                    value.to_string()
                },
            )
        }));
        let bulk_bytes_max = self.front.settings.resp.bulk_bytes_max;
        all.push(("maxmemory", view.max_memory_bytes.to_string()));
        all.push(("proto-max-bulk-len", bulk_bytes_max.to_string()));
        all.sort_unstable();
        let patterns: Vec<Vec<u8>> = patterns
            .iter()
            .map(|pattern| pattern.to_ascii_lowercase())
            .collect();
        let is_asked = |name: &str| {
            patterns
                .iter()
                .any(|pattern| glob_matches(pattern, name.as_bytes()))
        };
        let pairs = all.into_iter().filter(|(name, _)| is_asked(name));
        Reply::Map(
            pairs
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        )
    }

    /// All pairs are checked before the first one takes effect.
    fn set(&mut self, pairs: &[Bytes]) {
        let mut changes = Vec::new();
        let mut max_memory = None;
        for pair in pairs.chunks_exact(2) {
            let name = String::from_utf8_lossy(&pair[0]).to_ascii_lowercase();
            let row = TUNABLE.iter().find(|row| row.name == name);
            let unit = match row {
                Some(row) => row.unit,
                None if name == "maxmemory" => Unit::Bytes,
                None => {
                    return self.reply(Reply::error(format!(
                        "ERR Unknown option or number of arguments for CONFIG SET - '{name}'; \
                         what cannot change at run time stands in node.toml"
                    )));
                }
            };
            let Some(value) = read(unit, &pair[1]) else {
                return self.reply(Reply::error(format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - argument \
                     couldn't be parsed"
                )));
            };
            match row {
                Some(row) => changes.push((row, value)),
                None => max_memory = Some(value),
            }
        }
        for (row, value) in changes {
            (row.field)(&self.front).store(value, Relaxed);
        }
        match max_memory {
            Some(bytes) => {
                let who = self.who();
                self.control(Control::SetMaxMemory { bytes, who });
            }
            None => self.reply(Reply::Ok),
        }
    }
}

fn read(unit: Unit, value: &[u8]) -> Option<u64> {
    let value = std::str::from_utf8(value).ok()?.to_ascii_lowercase();
    match unit {
        Unit::Number => value.parse().ok(),
        Unit::MicrosOrNever if value.starts_with('-') => {
            value.parse::<i64>().ok().map(|_| u64::MAX)
        }
        Unit::MicrosOrNever => value.parse().ok(),
        Unit::Flag => match value.as_str() {
            "yes" => Some(1),
            "no" => Some(0),
            _ => None,
        },
        Unit::Bytes => {
            let digits = value.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
            let factor = match &value[digits.len()..] {
                "" | "b" => 1,
                "k" => 1_000,
                "kb" => 1 << 10,
                "m" => 1_000_000,
                "mb" => 1 << 20,
                "g" => 1_000_000_000,
                "gb" => 1 << 30,
                _ => return None,
            };
            digits.parse::<u64>().ok()?.checked_mul(factor)
        }
    }
}
