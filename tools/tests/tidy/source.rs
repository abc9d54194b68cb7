//! The repository's files as tidy sees them: Rust taken apart into code, comments and strings.

use std::fs;
use std::path::{Path, PathBuf};

/// What a part of a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    Code,
    Comment,
    /// Inside a string literal.
    Text,
}

/// One Rust file.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    pub text: String,
    /// Each piece of each line: its kind, the line's number from 1, its text.
    pieces: Vec<(Piece, usize, String)>,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tools lies in it")
        .to_path_buf()
}

/// Every Rust file of the repository.
pub fn all_sources() -> Vec<Source> {
    let found = files("", "rs").into_iter().map(|(path, text)| Source {
        pieces: take_apart(&text),
        path,
        text,
    });
    let sources: Vec<Source> = found.collect();
    assert!(sources.len() > 10, "the sources were not found");
    sources
}

/// Every file with this extension below a directory of the repository.
pub fn files(below: &str, extension: &str) -> Vec<(String, String)> {
    const NOT_OURS: &[&str] = &["target", ".git", ".venv", "standfast-dev", "fuzz"];
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if !NOT_OURS.iter().any(|other| name == *other) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                let relative = path.strip_prefix(root()).expect("it is below the root");
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((relative.display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

impl Source {
    pub fn piece_lines(&self) -> impl Iterator<Item = (Piece, usize, &str)> {
        self.pieces
            .iter()
            .map(|(piece, number, text)| (*piece, *number, text.as_str()))
    }

    /// Whether the whole file is tests.
    pub fn is_test_file(&self) -> bool {
        let path = &self.path;
        path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs")
    }

    /// The line at which inline tests begin; beyond the end when there are none.
    pub fn first_test_line(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins = lines.windows(2).position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        });
        begins.map_or(usize::MAX, |at| at + 1)
    }

    /// Lines before the inline tests, and lines of inline tests.
    pub fn line_counts(&self) -> (usize, usize) {
        let all = self.text.lines().count();
        let code = all.min(self.first_test_line().saturating_sub(1));
        (code, all - code)
    }

    /// The room of `src/` that the file belongs to.
    pub fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        Some(rest.split('/').next()?.trim_end_matches(".rs"))
    }

    /// The first name of every path into `name`: of `name::a::b` and of `name::{a::b, c}`.
    pub fn paths_into(&self, name: &str) -> Vec<String> {
        let code: Vec<&str> = self
            .piece_lines()
            .filter(|(piece, ..)| *piece == Piece::Code)
            .map(|(.., text)| text)
            .collect();
        let code = code.join("\n");
        let start = format!("{name}::");
        let mut found = Vec::new();
        for (at, _) in code.match_indices(&start) {
            let is_longer_name =
                code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            if !is_longer_name {
                found.extend(first_names(&code[at + start.len()..]));
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// Name and code lines (neither blank nor comment) of every function outside inline tests.
    /// Relies on rustfmt: a function ends at the brace that stands as far in as it does.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let end = self.first_test_line();
        let lines: Vec<&str> = self.text.lines().take(end).collect();
        let mut found = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let close = format!("{}}}", " ".repeat(indent));
            let body = lines[at..].iter().take_while(|line| **line != close);
            let is_code = |line: &&&str| {
                let line = line.trim();
                !line.is_empty() && !line.starts_with("//")
            };
            // A declaration without a body ends on its own line.
            let declared_only = line.ends_with(';') || line.ends_with('}');
            found.push((
                name,
                if declared_only {
                    1
                } else {
                    body.filter(is_code).count() + 1
                },
            ));
        }
        found
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.peek() {
        let is_before = ["pub", "const", "async", "unsafe", "extern"].contains(word);
        if !is_before && !word.starts_with("pub(") {
            break;
        }
        words.next();
    }
    (words.next() == Some("fn")).then_some(())?;
    let name = words.next()?;
    Some(name.split(['(', '<']).next()?.to_owned())
}

/// The first names at the start of `rest`, which follows `name::`.
fn first_names(rest: &str) -> Vec<String> {
    let name_at = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        return vec![name_at(rest)];
    };
    let (mut depth, mut found, mut begin) = (0, vec![name_at(list)], 0);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                begin = at + 1;
                found.push(name_at(&list[begin..]));
            }
            _ => {}
        }
    }
    debug_assert!(begin <= list.len(), "within the list");
    found.retain(|name| !name.is_empty() && name != "self");
    found
}

/// Takes Rust apart, line by line. Knows line and block comments, strings with escapes, raw
/// strings, and characters as against lifetimes.
fn take_apart(text: &str) -> Vec<(Piece, usize, String)> {
    let mut cutter = Cutter {
        rest: text,
        line: 1,
        pieces: Vec::new(),
    };
    while !cutter.rest.is_empty() {
        cutter.step();
    }
    cutter.pieces
}

struct Cutter<'a> {
    rest: &'a str,
    line: usize,
    pieces: Vec<(Piece, usize, String)>,
}

impl Cutter<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let bytes = rest.as_bytes();
        if rest.starts_with("//") {
            self.take(Piece::Comment, rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.take(
                Piece::Comment,
                rest.find("*/").map_or(rest.len(), |at| at + 2),
            );
        } else if bytes[0] == b'"' {
            self.take(Piece::Text, string_end(bytes));
        } else if let Some(end) = raw_string_end(rest) {
            self.take(Piece::Text, end);
        } else if let Some(end) = character_end(rest) {
            self.take(Piece::Text, end);
        } else if bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_' {
            // A whole word, so that the r of `for` never begins a raw string.
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            self.take(Piece::Code, end);
        } else {
            self.take(Piece::Code, rest.chars().next().map_or(1, char::len_utf8));
        }
    }

    /// Takes `len` bytes as one kind; joins what follows the same kind on the same line.
    fn take(&mut self, piece: Piece, len: usize) {
        let (taken, rest) = self.rest.split_at(len);
        for (number, part) in taken.split('\n').enumerate() {
            self.line += usize::from(number > 0);
            match self.pieces.last_mut() {
                Some((kind, line, text)) if *kind == piece && *line == self.line => {
                    text.push_str(part);
                }
                _ => self.pieces.push((piece, self.line, part.to_owned())),
            }
        }
        self.rest = rest;
    }
}

/// Where the string that starts at the first byte ends.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(())?;
    let begin = rest.len() - after.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(
        rest[begin..]
            .find(&close)
            .map_or(rest.len(), |at| begin + at + close.len()),
    )
}

/// Where a character literal ends; `None` for a lifetime.
fn character_end(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escaped) = inner.strip_prefix('\\') {
        // The escaped letter may itself be a quote.
        let skip = escaped.chars().next()?.len_utf8();
        return Some(2 + skip + escaped[skip..].find('\'')? + 1);
    }
    let letter = inner.chars().next()?;
    inner[letter.len_utf8()..]
        .starts_with('\'')
        .then_some(1 + letter.len_utf8() + 1)
}

#[test]
fn code_comments_and_strings_are_told_apart() {
    let text =
        "let a = \"x // no\"; // yes \"no\"\nfor 'a in r#\"raw \"str\"\"#.b('\"', '\\'') {}\n";
    let of = |kind| -> Vec<String> {
        let pieces = take_apart(text)
            .into_iter()
            .filter(|(piece, ..)| *piece == kind);
        pieces.map(|(.., text)| text).collect()
    };
    assert_eq!(of(Piece::Comment), ["// yes \"no\""]);
    assert_eq!(
        of(Piece::Text),
        ["\"x // no\"", "r#\"raw \"str\"\"#", "'\"'", "'\\''"]
    );
    assert_eq!(of(Piece::Code).concat(), "let a = ; for 'a in .b(, ) {}");
}

#[test]
fn paths_are_read_out_of_lists() {
    assert_eq!(first_names("node::view::View;"), ["node"]);
    assert_eq!(
        first_names("{node::{a, b}, state, self};"),
        ["node", "state"]
    );
}
