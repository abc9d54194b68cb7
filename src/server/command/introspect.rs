//! What COMMAND answers, and where a request's keys are.

use super::{Flags, Group, Refusal, Spec, TABLE, find, lookup};
use crate::state::{Reply, glob_matches};
use bytes::Bytes;

/// The keys of a request whose arity was checked, in order: for COMMAND GETKEYS and for rights.
/// ONCE has the keys of the command it wraps.
pub fn keys_of<'a>(spec: &Spec, args: &'a [Bytes]) -> Vec<&'a Bytes> {
    if spec.id == super::Id::Once {
        let inner = &args[2..];
        return match find(inner) {
            Ok(spec) if spec.id != super::Id::Once => keys_of(spec, inner),
            _ => Vec::new(),
        };
    }
    let Ok(first) = usize::try_from(spec.keys.first) else {
        return Vec::new();
    };
    if first == 0 {
        return Vec::new();
    }
    let last = match usize::try_from(spec.keys.last) {
        Ok(last) => last,
        Err(_) => args.len() - usize::from(spec.keys.last.unsigned_abs()),
    };
    let step = usize::from(spec.keys.step.unsigned_abs());
    args.get(first..=last)
        .unwrap_or_default()
        .iter()
        .step_by(step)
        .collect()
}

/// Answers COMMAND and its subcommands; `args[0]` is COMMAND itself.
pub fn answer(args: &[Bytes]) -> Reply {
    let Some(sub) = args.get(1) else {
        return Reply::Array(TABLE.iter().map(facts).collect());
    };
    let rest = &args[2..];
    let sub_name = sub.to_ascii_lowercase();
    match (sub_name.as_slice(), rest) {
        (b"count", []) => Reply::Int(TABLE.len().try_into().expect("the table is short")),
        (b"info", []) => Reply::Array(TABLE.iter().map(facts).collect()),
        (b"info", names) => Reply::Array(
            names
                .iter()
                .map(|name| lookup(name).map_or(Reply::NilArray, facts))
                .collect(),
        ),
        (b"docs", []) => Reply::Map(TABLE.iter().map(documented).collect()),
        (b"docs", names) => Reply::Map(
            names
                .iter()
                .filter_map(|name| lookup(name))
                .map(documented)
                .collect(),
        ),
        (b"list", filter) => list(filter),
        (b"getkeys", [_, _, ..]) => get_keys(rest),
        (b"count", _) => Reply::error("ERR wrong number of arguments for 'command|count' command"),
        (b"getkeys", _) => {
            Reply::error("ERR wrong number of arguments for 'command|getkeys' command")
        }
        _ => {
            let sub: String = String::from_utf8_lossy(sub).chars().take(128).collect();
            Reply::error(format!("ERR unknown subcommand '{sub}'. Try COMMAND HELP."))
        }
    }
}

fn text(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

/// The ten facts that COMMAND INFO gives of a command.
fn facts(spec: &Spec) -> Reply {
    Reply::Array(vec![
        text(spec.name),
        Reply::Int(spec.arity.into()),
        Reply::Array(flag_names(spec).into_iter().map(Reply::Simple).collect()),
        Reply::Int(spec.keys.first.into()),
        Reply::Int(spec.keys.last.into()),
        Reply::Int(spec.keys.step.into()),
        Reply::Array(categories(spec).into_iter().map(Reply::Simple).collect()),
        Reply::Array(Vec::new()),
        Reply::Array(key_specs(spec)),
        Reply::Array(Vec::new()),
    ])
}

/// Redis's names for the flags.
fn flag_names(spec: &Spec) -> Vec<&'static str> {
    const NAMES: [(Flags, &[&str]); 8] = [
        (Flags::WRITE, &["write"]),
        (Flags::READ, &["readonly"]),
        (Flags::GROWS, &["denyoom"]),
        (Flags::ADMIN, &["admin", "noscript"]),
        (Flags::PUBSUB, &["pubsub", "noscript"]),
        (Flags::ANY_TIME, &["loading", "stale"]),
        (Flags::FAST, &["fast"]),
        (Flags::BEFORE_AUTH, &["no_auth"]),
    ];
    let set = NAMES.iter().filter(|(flag, _)| spec.flags.has(*flag));
    let mut names: Vec<_> = set.flat_map(|(_, names)| names.iter().copied()).collect();
    if spec.id == super::Id::Once {
        names.push("movablekeys");
    }
    names
}

/// Redis's ACL categories.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let group = match spec.group {
        Group::String => "@string",
        Group::Generic => "@keyspace",
        Group::Ledger => "@ledger",
        Group::Transactions => "@transaction",
        Group::Connection => "@connection",
        Group::Pubsub => "@pubsub",
        Group::History | Group::Server | Group::Discovery => "@server",
    };
    let by_flag = [
        (Flags::WRITE, "@write"),
        (Flags::READ, "@read"),
        (Flags::ADMIN, "@admin"),
        (Flags::ADMIN, "@dangerous"),
        (Flags::DANGEROUS, "@dangerous"),
    ];
    let set = by_flag.iter().filter(|(flag, _)| spec.flags.has(*flag));
    let pace = if spec.flags.has(Flags::FAST) {
        "@fast"
    } else {
        "@slow"
    };
    let mut names = vec![group];
    names.extend(set.map(|(_, name)| *name));
    names.push(pace);
    names
}

/// Where the keys are, in the form of Redis 7.
fn key_specs(spec: &Spec) -> Vec<Reply> {
    if spec.keys.first == 0 {
        return Vec::new();
    }
    let access = if spec.flags.has(Flags::WRITE) {
        "RW"
    } else {
        "RO"
    };
    // Redis counts `lastkey` from the first key, or from the end if it is negative.
    let last = match spec.keys.last {
        last if last < 0 => last,
        last => last - spec.keys.first,
    };
    let number = |number: i8| Reply::Int(number.into());
    let search = vec![
        (text("type"), text("index")),
        (
            text("spec"),
            Reply::Map(vec![(text("index"), number(spec.keys.first))]),
        ),
    ];
    let range = vec![
        (text("lastkey"), number(last)),
        (text("keystep"), number(spec.keys.step)),
        (text("limit"), Reply::Int(0)),
    ];
    let find = vec![
        (text("type"), text("range")),
        (text("spec"), Reply::Map(range)),
    ];
    vec![Reply::Map(vec![
        (text("flags"), Reply::Array(vec![Reply::Simple(access)])),
        (text("begin_search"), Reply::Map(search)),
        (text("find_keys"), Reply::Map(find)),
    ])]
}

/// One entry of COMMAND DOCS.
fn documented(spec: &Spec) -> (Reply, Reply) {
    let mut fields = vec![
        (text("summary"), text(spec.summary)),
        (text("since"), text(FIRST_RELEASE)),
        (text("group"), text(spec.group.name())),
    ];
    if !spec.syntax.is_empty() {
        fields.push((text("syntax"), text(spec.syntax)));
    }
    (text(spec.name), Reply::Map(fields))
}

/// Every command of the table was there in the first release.
const FIRST_RELEASE: &str = "0.1.0";

fn list(filter: &[Bytes]) -> Reply {
    let names = |chosen: &dyn Fn(&Spec) -> bool| {
        let chosen = TABLE.iter().filter(|spec| chosen(spec));
        Reply::Array(chosen.map(|spec| text(spec.name)).collect())
    };
    match filter {
        [] => names(&|_| true),
        [word, kind, value] if word.eq_ignore_ascii_case(b"filterby") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"module" => Reply::Array(Vec::new()),
                b"aclcat" => names(&|spec| {
                    let known = categories(spec);
                    known
                        .iter()
                        .any(|name| name.as_bytes()[1..].eq_ignore_ascii_case(value))
                }),
                b"pattern" => {
                    let pattern = value.to_ascii_lowercase();
                    names(&|spec| glob_matches(&pattern, spec.name.as_bytes()))
                }
                _ => Refusal::Syntax.reply(),
            }
        }
        _ => Refusal::Syntax.reply(),
    }
}

fn get_keys(request: &[Bytes]) -> Reply {
    match find(request) {
        Err(Refusal::Arity(_)) => {
            Reply::error("ERR Invalid number of arguments specified for command")
        }
        Err(_) => Reply::error("ERR Invalid command specified"),
        Ok(spec) => {
            let keys = keys_of(spec, request);
            if keys.is_empty() {
                return Reply::error("ERR The command has no key arguments");
            }
            Reply::Array(keys.into_iter().cloned().map(Reply::Bulk).collect())
        }
    }
}
