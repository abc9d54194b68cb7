//! The house rules that a machine can check, as an ordinary test: each test is one rule, and says
//! all places that break it at once.
//!
//! Limits are ratchets: an exception names its file, its size and its reason, and must be lowered
//! when the file shrinks.

mod source;

use source::{Piece, Source, all_sources, root};
use std::collections::BTreeMap;
use std::fs;

/// Non-test lines of a file, beyond which a reason is owed.
const FILE_LINES: usize = 500;

/// Lines of tests inside a source file, beyond which they move to a file of their own.
const INLINE_TEST_LINES: usize = 300;

/// Code lines of a function, beyond which a reason is owed.
const FUNCTION_LINES: usize = 70;

/// What a file may exceed, to how much, and why: (path, rule, size, reason).
const EXCEPTIONS: &[(&str, &str, usize, &str)] = &[
    (
        "tools/fuzz-targets/src/targets/peer_frame.rs",
        "function",
        72,
        "one list: a message of each shape to begin with",
    ),
    (
        "src/node/refusal.rs",
        "function",
        109,
        "one match: each refusal beside the sentence that a client reads",
    ),
    (
        "src/replication/dispatch.rs",
        "function",
        87,
        "the dispatch table of messages: one row each",
    ),
    (
        "src/replication/message.rs",
        "function",
        89,
        "one match: the notation of each message",
    ),
    (
        "src/server/session/client.rs",
        "function",
        78,
        "HELLO: its options in the order in which Redis reads them",
    ),
    (
        "src/server/session.rs",
        "file",
        512,
        "one client's life, the first file of the walk",
    ),
];

/// How far below its recorded size an exception may fall before it must be lowered.
const SLACK: usize = 40;

#[track_caller]
fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

/// Holds one measured size against its limit or its exception.
fn check_size(rule: &str, path: &str, size: usize, limit: usize, broken: &mut Vec<String>) {
    let exception = EXCEPTIONS
        .iter()
        .find(|(file, kind, ..)| *file == path && *kind == rule);
    match exception {
        None if size > limit => broken.push(format!("{path}: {size}, the limit is {limit}")),
        Some((_, _, recorded, reason)) if size > *recorded => {
            broken.push(format!(
                "{path}: {size}, its exception is {recorded} ({reason})"
            ));
        }
        Some((_, _, recorded, _)) if size + SLACK < *recorded => {
            broken.push(format!("{path}: {size}; lower its exception of {recorded}"));
        }
        _ => {}
    }
}

#[test]
fn every_rust_file_begins_with_what_it_is_for() {
    let sources = all_sources();
    let without = sources
        .iter()
        .filter(|source| !source.text.starts_with("//! "));
    let broken = without.map(|source| source.path.clone()).collect();
    assert_none("the first line is `//! <one sentence>`", broken);
}

#[test]
fn files_and_their_inline_tests_are_short() {
    let mut broken = Vec::new();
    for source in all_sources().iter().filter(|source| !source.is_test_file()) {
        let (lines, tests) = source.line_counts();
        check_size("file", &source.path, lines, FILE_LINES, &mut broken);
        check_size(
            "inline tests",
            &source.path,
            tests,
            INLINE_TEST_LINES,
            &mut broken,
        );
    }
    assert_none(
        "non-test lines per file and inline test lines are bounded",
        broken,
    );
}

#[test]
fn functions_are_short() {
    let mut broken = Vec::new();
    for source in all_sources().iter().filter(|source| !source.is_test_file()) {
        let longest = source
            .functions()
            .into_iter()
            .max_by_key(|(_, lines)| *lines);
        if let Some((name, lines)) = longest {
            let before = broken.len();
            check_size("function", &source.path, lines, FUNCTION_LINES, &mut broken);
            if let Some(story) = broken.get_mut(before) {
                story.push_str(&format!(" (fn {name})"));
            }
        }
    }
    assert_none("code lines per function are bounded", broken);
}

/// Columns of a line; tables of test cases may take more.
const COLUMNS: usize = 100;
const TEST_COLUMNS: usize = 120;

#[test]
fn no_line_is_wider_than_a_hundred() {
    let mut broken = Vec::new();
    for source in all_sources() {
        let first_test_line = source.first_test_line();
        for (number, line) in source.text.lines().enumerate() {
            let is_test = source.is_test_file() || number >= first_test_line;
            // A row of a table in a comment cannot be broken.
            let is_row = line.trim_start().starts_with("//! |");
            // Nor can a sentence that rustfmt leaves whole.
            let is_text = (line.contains('"') || line.trim_end().ends_with("\\n\\"))
                && !line.trim_start().starts_with("//");
            let columns = if is_test { TEST_COLUMNS } else { COLUMNS };
            if line.chars().count() > columns && !is_row && !is_text {
                broken.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert_none("lines are at most 100 wide, tables in tests 120", broken);
}

/// Who may use whom: `main -> cli -> server -> node -> {replication, state, snapshot, wal}`; rooms
/// that stand beside each other do not know each other. `client` is a program's, not a node's: it
/// knows nothing of all that, and of ours only drills use it.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "server",
            "node",
            "client",
            "replication",
            "state",
            "config",
            "limits",
        ],
    ),
    (
        "server",
        &["node", "replication", "state", "config", "limits"],
    ),
    ("node", &["replication", "state", "config", "limits"]),
    ("config", &["replication", "limits"]),
    ("replication", &["limits"]),
    ("state", &["limits"]),
    ("client", &["limits"]),
    ("limits", &[]),
    ("docs_test", &["server", "node", "replication", "state"]),
    ("lib", &[]),
    ("main", &[]),
];

#[test]
fn dependencies_between_rooms_run_one_way() {
    let mut broken = Vec::new();
    for source in all_sources() {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            broken.push(format!(
                "{}: the room `{room}` stands in no table",
                source.path
            ));
            continue;
        };
        for used in source.paths_into("crate") {
            if used != room && !allowed.contains(&used.as_str()) && is_room(&used) {
                broken.push(format!("{}: {room} uses {used}", source.path));
            }
        }
    }
    assert_none("`use crate::` follows the table of layers", broken);
}

fn is_room(name: &str) -> bool {
    MAY_USE.iter().any(|(room, _)| *room == name)
}

/// The pure rooms know records and numbers, not logs and disks; the snapshot crate knows storages
/// and how their files become durable besides.
#[test]
fn pure_rooms_use_the_record_only() {
    let mut broken = Vec::new();
    for source in all_sources() {
        let pure = ["src/replication/", "src/state/"];
        let is_pure = pure.iter().any(|room| source.path.starts_with(room));
        if is_pure && !source.paths_into("standfast_snapshot").is_empty() {
            broken.push(format!("{}: uses snapshot", source.path));
        }
        let is_snapshot = source.path.starts_with("snapshot/src/");
        if is_pure || is_snapshot {
            for used in source.paths_into("standfast_wal") {
                let is_module = used.starts_with(|first: char| first.is_ascii_lowercase());
                let may = used == "record" || is_snapshot && used == "durable";
                if is_module && !may {
                    broken.push(format!("{}: uses wal::{used}", source.path));
                }
            }
        }
    }
    assert_none(
        "replication, state and snapshot use only wal's record",
        broken,
    );
}

/// Other systems' words for what the glossary names.
const BANNED: &[&str] = &[
    "leader",
    "leaders",
    "follower",
    "followers",
    "master",
    "masters",
    "slave",
    "slaves",
    "replicas",
];

/// Where clients' words, which are Redis's, stand in strings.
const SPEAKS_TO_CLIENTS: &[&str] = &[
    "src/server/",
    "src/client/",
    "src/node/refusal.rs",
    "tests/",
    "tools/",
];

/// Where others chose the words: (path, line contains).
const FOREIGN_NAMES: &[(&str, &str)] = &[
    // A library's function.
    ("tests/it/clients.rs", "master_for"),
    // Answers as Redis Sentinel does, subcommand by subcommand.
    ("src/server/sentinel.rs", ""),
    ("src/server/sentinel/tests.rs", ""),
    // Named after Redis's error word for it.
    ("src/node/engine", "NoReplicas"),
    ("src/replication/admission.rs", "NoReplicas"),
    ("src/replication/view.rs", "NoReplicas"),
    // Kafka's term for what is a sync set here.
    ("src/replication/mod.rs", "in-sync replicas"),
];

#[test]
fn the_glossarys_words_are_used() {
    let mut broken = Vec::new();
    for source in all_sources()
        .iter()
        .filter(|source| !source.path.starts_with("tools/tests/"))
    {
        let speaks = SPEAKS_TO_CLIENTS
            .iter()
            .any(|start| source.path.starts_with(start));
        for (piece, number, line) in source.piece_lines() {
            let foreign = FOREIGN_NAMES
                .iter()
                .any(|(path, part)| source.path.starts_with(path) && line.contains(part));
            if foreign || (speaks && piece == Piece::Text) {
                continue;
            }
            // Names of Redis's commands in comments stand in backticks.
            let prose = if piece == Piece::Comment {
                without_code(line)
            } else {
                line.to_owned()
            };
            for word in words(&prose) {
                if BANNED.contains(&word.to_lowercase().as_str()) && !is_shouted(&word) {
                    broken.push(format!("{}:{number}: `{word}`", source.path));
                }
            }
        }
    }
    assert_none("banned synonyms; the glossary has the word", broken);
}

/// `MASTER` in capitals is a word of Redis's protocol.
fn is_shouted(word: &str) -> bool {
    word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase())
}

/// Words of a line: at everything but letters, and where small letters meet a capital.
fn words(line: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_ascii_alphabetic() || (before.is_lowercase() && letter.is_uppercase()) {
            found.push(String::new());
        }
        if letter.is_ascii_alphabetic() {
            found.last_mut().expect("it starts with one").push(letter);
        }
        before = letter;
    }
    found.retain(|word| !word.is_empty());
    found
}

/// A line of prose without what stands in backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    let mut broken = Vec::new();
    for source in all_sources()
        .iter()
        .filter(|source| !source.path.starts_with("tools/tests/"))
    {
        for (piece, number, line) in source.piece_lines() {
            let marks = ["TODO", "FIXME", "XXX"];
            let is_mark = piece == Piece::Comment && marks.iter().any(|mark| line.contains(mark));
            let has_issue = line
                .split('#')
                .skip(1)
                .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
            if is_mark && !has_issue {
                broken.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
            let gaps = ["todo!(", "unimplemented!("];
            if piece == Piece::Code && gaps.iter().any(|gap| line.contains(gap)) {
                broken.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none("a TODO names its issue, and no stub is shipped", broken);
}

#[test]
fn exceptions_to_lints_give_a_reason() {
    let mut broken = Vec::new();
    for source in all_sources() {
        for (piece, number, line) in source.piece_lines() {
            if piece == Piece::Code && line.trim_start().starts_with("#[allow(") {
                broken.push(format!("{}:{number}", source.path));
            }
        }
    }
    assert_none("`#[expect(lint, reason = \"…\")]`, not `#[allow]`", broken);
}

/// The one file in which tests may sleep, between two questions of a poll.
const SLEEPER: &str = "tools/rig/src/poll.rs";

#[test]
fn no_test_sleeps_to_wait_for_a_state() {
    let mut broken = Vec::new();
    let mut licensed = 0;
    for source in all_sources() {
        let first_test_line = source.first_test_line();
        let is_test = source.is_test_file() || source.path.starts_with("tools/rig/");
        for (piece, number, line) in source.piece_lines() {
            let sleeps = piece == Piece::Code && line.contains("sleep(");
            if sleeps && source.path == SLEEPER {
                licensed += 1;
            } else if sleeps && (is_test || number >= first_test_line) {
                broken.push(format!("{}:{number}", source.path));
            }
        }
    }
    for (path, text) in source::files("tests/clients", "py") {
        if text.contains("sleep(") {
            broken.push(path);
        }
    }
    assert!(licensed > 0, "{SLEEPER} is no longer where tests sleep");
    assert_none("poll with a deadline (rig::until), do not sleep", broken);
}

/// Documents that every clone has.
const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

#[test]
fn every_path_and_symbol_that_a_document_names_exists() {
    let mut documents: BTreeMap<String, String> = source::files("docs", "md").into_iter().collect();
    let mut broken = Vec::new();
    for name in DOCUMENTS {
        match fs::read_to_string(root().join(name)) {
            Ok(text) => {
                documents.insert((*name).to_owned(), text);
            }
            Err(error) => broken.push(format!("{name}: {error}")),
        }
    }
    for (document, text) in &documents {
        for span in text.split('`').skip(1).step_by(2) {
            if let Some(story) = missing(span) {
                broken.push(format!("{document}: `{span}`: {story}"));
            }
        }
    }
    assert_none("documents name what exists", broken);
}

/// What is wrong with a span that looks like a path of this repository, if it is one.
fn missing(span: &str) -> Option<String> {
    const TOP: &[&str] = &["src", "wal", "snapshot", "tools", "tests", "docs", ".ci"];
    const ROOMS: &[&str] = &["server", "client", "node", "replication", "state", "cli"];
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:".contains(letter);
    if !span.chars().all(plain) || span.contains("://") {
        return None;
    }
    let (path, symbol) = match span.split_once("::") {
        Some((path, symbol)) => (path, Some(symbol)),
        None => (span, None),
    };
    let first = path.split('/').next().unwrap_or_default();
    let is_page = !path.contains('/') && (path.ends_with(".md") || path.ends_with(".sh"));
    let is_file = path.contains('/') && (TOP.contains(&first) || ROOMS.contains(&first));
    if !is_page && !is_file {
        return None;
    }
    let below_src = path
        .split_once('/')
        .map(|(crate_name, rest)| format!("{crate_name}/src/{rest}"));
    let mut places = vec![
        path.to_owned(),
        format!("src/{path}"),
        format!("docs/{path}"),
    ];
    places.extend(below_src);
    let Some(place) = places
        .iter()
        .map(|place| root().join(place))
        .find(|place| place.exists())
    else {
        return Some("no such file".into());
    };
    let name = symbol?.rsplit("::").next().unwrap_or_default();
    let text = fs::read_to_string(&place).unwrap_or_default();
    let kinds = ["fn", "struct", "enum", "trait", "const", "mod", "type"];
    let is_there = kinds.iter().any(|kind| {
        text.match_indices(&format!("{kind} {name}"))
            .any(|(at, found)| {
                !text[at + found.len()..]
                    .starts_with(|next: char| next.is_alphanumeric() || next == '_')
            })
    });
    (!is_there).then(|| format!("no `{name}` in {}", place.display()))
}

/// I7 is the ledger's, which is not built yet.
const INVARIANTS: std::ops::RangeInclusive<u32> = 1..=6;

#[test]
fn every_invariant_is_described_and_kept_somewhere() {
    let described = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let sources = all_sources();
    let mut broken = Vec::new();
    for number in INVARIANTS {
        let name = format!("I{number}");
        if !words_and_numbers(&described).any(|word| word == name) {
            broken.push(format!("{name} is not described in ARCHITECTURE.md"));
        }
        let mark = format!("{name}:");
        let is_kept = sources.iter().any(|source| {
            let keepers = ["src/", "wal/src/", "snapshot/src/", "tools/src/simulate/"];
            keepers.iter().any(|start| source.path.starts_with(start))
                && source.text.contains(&mark)
        });
        if !is_kept {
            broken.push(format!(
                "no `{mark}` beside a branch or in an assertion of the code"
            ));
        }
    }
    assert_none("invariants are in ARCHITECTURE.md and in the code", broken);
}

fn words_and_numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric())
}

/// A mark that nothing hits would fail every batch of the simulator; one that is no row says nothing.
#[test]
fn every_coverage_mark_is_hit_somewhere() {
    let sources = all_sources();
    let rows = |source: &Source| -> Vec<String> {
        let lines = source.text.lines().skip_while(|line| *line != "marks! {");
        let lines = lines.skip(1).take_while(|line| *line != "}");
        let name = |line: &str| line.trim().split(' ').next().unwrap_or_default().to_owned();
        lines.map(name).filter(|name| !name.is_empty()).collect()
    };
    let marks = sources
        .iter()
        .find(|source| source.path == "wal/src/mark.rs");
    let marks = rows(marks.expect("the table of marks"));
    assert!(marks.len() >= 40, "the table of marks was not found");
    let is_product = |source: &&Source| {
        let starts = ["src/", "wal/src/", "snapshot/src/"];
        source.path != "wal/src/mark.rs"
            && starts.iter().any(|start| source.path.starts_with(start))
    };
    let is_hit = |mark: &String| {
        let call = format!("Mark::{mark}.hit()");
        sources
            .iter()
            .filter(is_product)
            .any(|source| source.text.contains(&call))
    };
    let broken = marks.into_iter().filter(|mark| !is_hit(mark)).collect();
    assert_none("each row of wal/src/mark.rs is hit in the code", broken);
}

/// Threads, sockets and files on the write path, which no simulator runs.
const SHELL: &[&str] = &[
    "src/node/run.rs",
    "src/node/link.rs",
    "src/server/listener.rs",
    "src/server/session.rs",
    "wal/src/writer.rs",
    "wal/src/storage/disk.rs",
];

/// Not a rule: what people hold the aims against. `cargo test -p tools figures -- --nocapture`
#[test]
fn figures() {
    let sources = all_sources();
    let product = |source: &&Source| {
        let starts = ["src/", "wal/src/", "snapshot/src/"];
        starts.iter().any(|start| source.path.starts_with(start)) && !source.is_test_file()
    };
    let mut lines: Vec<usize> = sources
        .iter()
        .filter(product)
        .map(|source| source.line_counts().0)
        .collect();
    let mut functions: Vec<usize> = sources
        .iter()
        .filter(product)
        .flat_map(Source::functions)
        .map(|(_, lines)| lines)
        .collect();
    lines.sort_unstable();
    functions.sort_unstable();
    let at = |sorted: &[usize], part: usize| sorted.get(sorted.len() * part / 100).copied();
    let shell: usize = sources
        .iter()
        .filter(|source| SHELL.contains(&source.path.as_str()))
        .map(|source| source.line_counts().0)
        .sum();
    println!(
        "product: {} files, {} non-test lines",
        lines.len(),
        lines.iter().sum::<usize>()
    );
    println!(
        "lines per file: median {:?}, longest {:?}",
        at(&lines, 50),
        lines.last()
    );
    println!(
        "code lines per function: median {:?}, p90 {:?}, longest {:?}",
        at(&functions, 50),
        at(&functions, 90),
        functions.last()
    );
    println!("un-simulated shell on the write path: {shell} lines (aim: at most 900)");
    assert!(!lines.is_empty(), "the sources were not found");
}
