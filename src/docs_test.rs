//! Holds the documents against the code: formats, commands, limits, errors and messages.
//!
//! A table that can be rendered from a constant stands in its document between
//! `<!-- table: name -->` and `<!-- end -->`. Where it differs, the test fails with the text to
//! paste, or, run with `BLESS=1` in the environment, writes it.

use crate::node::refusal::Refusal;
use crate::node::{meta, wire};
use crate::replication::epochs::EPOCH_START;
use crate::server::command::{Flags, Spec, TABLE};
use crate::state;
use standfast_wal::Field;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

/// What stands between a document's markers of that name, and where.
fn marked<'a>(text: &'a str, document: &str, name: &str) -> (usize, &'a str) {
    let begin = format!("<!-- table: {name} -->\n");
    let at = text
        .find(&begin)
        .unwrap_or_else(|| panic!("docs/{document} has no `{}`", begin.trim()));
    let start = at + begin.len();
    let end = text[start..]
        .find("<!-- end -->")
        .unwrap_or_else(|| panic!("docs/{document}: `{}` has no end", begin.trim()));
    (start, &text[start..start + end])
}

/// Every wanted table is there as wanted, and the document has no other.
#[track_caller]
fn assert_tables(name: &str, wanted: &[(String, String)]) {
    let mut text = fs::read_to_string(document(name)).expect("the document is there");
    let mut stories = String::new();
    for (table, rendered) in wanted {
        let (start, found) = marked(&text, name, table);
        if found == rendered {
            continue;
        }
        let end = start + found.len();
        let _ = write!(
            stories,
            "\n<!-- table: {table} -->\n{rendered}<!-- end -->\n"
        );
        text.replace_range(start..end, rendered);
    }
    let tables = text.matches("<!-- table: ").count();
    assert_eq!(tables, wanted.len(), "docs/{name}: marked tables");
    if env::var_os("BLESS").is_some() {
        fs::write(document(name), text).expect("the document is written");
    } else if !stories.is_empty() {
        panic!("docs/{name} is not what the code says; paste:\n{stories}");
    }
}

fn layout(fields: &[Field]) -> String {
    let mut out =
        String::from("| at | bytes | field | what it holds |\n| ---: | ---: | --- | --- |\n");
    for field in fields {
        let (at, len) = (field.at, field.len);
        let _ = writeln!(
            out,
            "| {at} | {len} | `{}` | {} |",
            field.name, field.meaning
        );
    }
    out
}

fn ledger_items() -> String {
    let mut out = String::from("| sort | bytes of an item | what it is |\n| ---: | ---: | --- |\n");
    for (sort, bytes, meaning) in state::ledger::ITEMS {
        let _ = writeln!(out, "| {sort} | {bytes} | {meaning} |");
    }
    out
}

#[test]
fn the_formats_are_as_documented() {
    let mut wanted = Vec::new();
    let mut add = |name: &str, rendered: String| wanted.push((name.to_owned(), rendered));
    for (name, fields) in standfast_wal::layouts() {
        add(name, layout(fields));
    }
    for found in standfast_snapshot::layouts() {
        add(found.name, layout(found.fields));
    }
    add("EpochStart", layout(&EPOCH_START));
    add("Attestation", layout(&state::ATTESTATION));
    add("state block", layout(&state::BLOCK_HEADER));
    add("entry", layout(&state::ENTRY_HEADER));
    add("account", layout(&state::ledger::ACCOUNT));
    add("transfer", layout(&state::ledger::TRANSFER));
    add("ledger items", ledger_items());
    add("transfer entry", layout(&state::ledger::ENTRY));
    add("meta head", layout(&meta::HEAD));
    add("frame", layout(&wire::HEADER));
    let mut codes = String::from("| code | command | fields |\n| ---: | --- | --- |\n");
    for (code, name, fields) in state::command::CODES {
        let _ = writeln!(codes, "| {code} | {name} | {fields} |");
    }
    add("logged commands", codes);
    assert_tables("formats.md", &wanted);
}

/// `|` would end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn command_row(spec: &Spec) -> String {
    let name = spec.name.to_uppercase();
    let usage = format!("{name} {}", spec.syntax);
    let facts = [
        (Flags::WRITE, "write"),
        (Flags::READ, "read"),
        (Flags::ADMIN, "admin"),
        (Flags::ANY_TIME, "any node"),
    ];
    let facts = facts.iter().filter(|(flag, _)| spec.flags.has(*flag));
    let facts: Vec<&str> = facts.map(|(_, word)| *word).collect();
    let (usage, facts) = (cell(usage.trim_end()), facts.join(", "));
    format!("| `{usage}` | {facts} | {} |\n", cell(spec.summary))
}

fn limits() -> String {
    let mut out = String::from("| limit | value | what it bounds |\n| --- | --- | --- |\n");
    let mut words: Vec<&str> = Vec::new();
    let mut statement = String::new();
    for line in include_str!("limits.rs").lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            words.push(text);
            continue;
        }
        if line.starts_with("pub const ") || !statement.is_empty() {
            statement.push_str(line.trim_start_matches("pub const "));
        }
        if !statement.ends_with(';') {
            continue;
        }
        let (name, value) = statement.split_once(" = ").unwrap_or_else(|| {
            let (name, value) = statement.split_once('=').expect("a constant has a value");
            (name, value)
        });
        let name = name.split(':').next().unwrap_or_default();
        let value = value.trim().trim_end_matches(';');
        let meaning = if words.is_empty() {
            "as above".into()
        } else {
            words.join(" ")
        };
        let _ = writeln!(out, "| `{name}` | `{value}` | {} |", cell(&meaning));
        words.clear();
        statement.clear();
    }
    out
}

#[test]
fn commands_errors_and_limits_are_as_documented() {
    let mut wanted: Vec<(String, String)> = Vec::new();
    let head = "| command | | what it does |\n| --- | --- | --- |\n";
    for spec in TABLE {
        let group = spec.group.name();
        let known = wanted.iter_mut().find(|(name, _)| name == group);
        match known {
            Some((_, rows)) => rows.push_str(&command_row(spec)),
            None => wanted.push((group.to_owned(), format!("{head}{}", command_row(spec)))),
        }
    }
    let mut errors = String::from("| begins with | an example |\n| --- | --- |\n");
    for refusal in Refusal::all_examples() {
        let text = refusal.to_string();
        let prefix = text.split(' ').next().unwrap_or_default();
        let _ = writeln!(errors, "| {prefix} | {} |", cell(&text));
    }
    wanted.push(("errors".to_owned(), errors));
    wanted.push(("limits".to_owned(), limits()));
    assert_tables("commands.md", &wanted);
}

/// The names of an enum's variants, in order, from its source.
fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("pub enum {name} {{\n");
    let at = source.find(&begin).expect("the enum is there") + begin.len();
    let body = &source[at..at + source[at..].find("\n}").expect("it ends")];
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let starts = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    starts
        .map(|line| line.split([' ', ',', '(']).next().unwrap_or(line))
        .collect()
}

#[test]
fn every_message_stands_in_the_protocol() {
    let text = fs::read_to_string(document("protocol.md")).expect("the document is there");
    let message = include_str!("replication/message.rs");
    let register = include_str!("replication/register/message.rs");
    let frames = include_str!("node/wire.rs");
    let tables = [
        ("messages", variants(message, "Body")),
        ("register messages", variants(register, "Body")),
        ("frames", variants(frames, "Head")),
        ("snapshot pieces", variants(frames, "Piece")),
    ];
    for (table, wanted) in tables {
        assert!(wanted.len() > 3, "{table}: {wanted:?}");
        let (_, rows) = marked(&text, "protocol.md", table);
        let names = rows.lines().filter_map(|row| row.strip_prefix("| `"));
        let found: Vec<&str> = names.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(
            found, wanted,
            "docs/protocol.md, table of {table}: a row for each, in order"
        );
    }
}
