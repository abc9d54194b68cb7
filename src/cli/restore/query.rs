//! `--query`: questions to a past state, which is made in memory and nowhere else.

use super::target::CONTEXT;
use super::{Past, show};
use crate::cli::backup::rfc3339;
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::server::command::{Id, Parsed, find, parse as parse_words};
use crate::state::{Command, Reply};
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt::Write;

/// What is asked.
pub struct Question {
    /// As the operator wrote it.
    text: String,
    /// `None`: DIGEST, which a state answers together with its place in the log.
    command: Option<Command>,
}

/// Reads the questions; refuses whatever is none, before anything is read.
pub fn parse(texts: &[String]) -> Result<Vec<Question>, Failure> {
    texts.iter().map(|text| question(text)).collect()
}

fn question(text: &str) -> Result<Question, Failure> {
    let refuse = |why: String| Failure::new(ExitCode::Usage, format!("--query {text:?}: {why}"));
    let words = split(text).map_err(|why| refuse(why.to_owned()))?;
    if words.is_empty() {
        return Err(refuse("there is no command in it".to_owned()));
    }
    let spec = find(&words).map_err(|refusal| refuse(refusal.to_string()))?;
    let parsed = parse_words(spec, &words, &CONTEXT);
    let command = match parsed.map_err(|refusal| refuse(refusal.to_string()))? {
        Parsed::Data(command) if !command.is_write() => Some(command),
        Parsed::Session(Id::Digest) if words.len() == 1 => None,
        Parsed::Data(_) | Parsed::OnceExec { .. } => {
            let why = format!(
                "{} writes, and the past is only read",
                spec.name.to_uppercase()
            );
            return Err(refuse(why)
                .hint("to write from there on, restore a data directory (--to) and activate it"));
        }
        Parsed::Session(_) => {
            let why = format!(
                "{} is about a running node or a connection, not about data",
                spec.name.to_uppercase()
            );
            return Err(refuse(why));
        }
    };
    Ok(Question {
        text: text.to_owned(),
        command,
    })
}

/// What the past says, question by question.
pub fn replies(past: &Past, questions: &[Question]) -> Vec<Reply> {
    let state = &past.rebuilt.state;
    let reply = |question: &Question| match &question.command {
        Some(command) => state.read(command),
        None => digest(past),
    };
    questions.iter().map(reply).collect()
}

/// Prints it.
pub fn answer(past: &Past, questions: &[Question], as_json: bool) -> Outcome {
    let replies = replies(past, questions);
    let told = questions.iter().zip(&replies);
    if as_json {
        let answers = told
            .map(|(question, reply)| json!({"command": question.text, "reply": reply_json(reply)}));
        println!("{}", with_point(past, answers.collect()));
    } else {
        let (link, history) = (past.rebuilt.link, past.plan.history);
        let (lsn, time) = (link.position.lsn, rfc3339(link.timestamp));
        let before = past
            .before
            .map(|created| format!(": right before {created}"));
        let before = before.unwrap_or_default();
        print!("{}", show::passed_over(&past.passed_over));
        println!("point  LSN {lsn}, {time}, history {history}{before}");
        for (question, reply) in told {
            println!("> {}\n{}", question.text, reply_text(reply, 0));
        }
    }
    let is_refused = |reply: &Reply| matches!(reply, Reply::Error(_));
    Ok(match replies.iter().any(is_refused) {
        true => ExitCode::Failed,
        false => ExitCode::Done,
    })
}

fn digest(past: &Past) -> Reply {
    let lsn = past.rebuilt.link.position.lsn.0;
    let digest = past.rebuilt.state.digest().to_string();
    Reply::Array(vec![
        Reply::Int(i64::try_from(lsn).unwrap_or(i64::MAX)),
        Reply::Bulk(digest.into()),
    ])
}

fn with_point(past: &Past, answers: Vec<Value>) -> Value {
    let link = past.rebuilt.link;
    json!({
        "cluster": past.cluster.to_string(),
        "cluster_name": past.listed.cluster_name,
        "history": past.plan.history.to_string(),
        "lsn": link.position.lsn,
        "time": rfc3339(link.timestamp),
        "time_ns": link.timestamp,
        "before": past.before.map(|created| created.as_json()),
        "digest": past.rebuilt.state.digest().to_string(),
        "passed_over": past.passed_over,
        "answers": answers,
    })
}

/// Maps by name, lists by number, indented.
fn reply_text(reply: &Reply, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    match reply {
        Reply::Ok => format!("{indent}OK"),
        Reply::Nil | Reply::NilArray => format!("{indent}(nil)"),
        Reply::Int(number) => format!("{indent}{number}"),
        Reply::Simple(text) => format!("{indent}{text}"),
        Reply::Bulk(bytes) => format!("{indent}{}", bytes_text(bytes)),
        Reply::Error(text) => format!("{indent}(error) {}", String::from_utf8_lossy(text)),
        Reply::Array(items) if items.is_empty() => format!("{indent}(none)"),
        Reply::Array(items) => {
            let named = (1..)
                .zip(items)
                .map(|(number, item)| (format!("{number})"), item));
            lines(named, depth)
        }
        Reply::Map(pairs) => {
            let named = pairs
                .iter()
                .map(|(name, value)| (format!("{}:", reply_text(name, 0)), value));
            lines(named, depth)
        }
    }
}

fn lines<'a>(named: impl Iterator<Item = (String, &'a Reply)>, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut out = String::new();
    for (name, value) in named {
        let is_deep = match value {
            Reply::Array(items) => !items.is_empty(),
            other => matches!(other, Reply::Map(_)),
        };
        let text = match is_deep {
            true => format!("\n{}", reply_text(value, depth + 1)),
            false => format!(" {}", reply_text(value, 0)),
        };
        let _ = writeln!(out, "{indent}{name}{text}");
    }
    out.trim_end_matches('\n').to_owned()
}

/// Text as it is; what is none, with its odd bytes as `\xHH`.
fn bytes_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => text.to_owned(),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

fn reply_json(reply: &Reply) -> Value {
    let name = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => reply_text(other, 0),
    };
    match reply {
        Reply::Ok => json!("OK"),
        Reply::Nil | Reply::NilArray => Value::Null,
        Reply::Int(number) => json!(number),
        Reply::Simple(text) => json!(text),
        Reply::Bulk(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({"hex": hex})
            }
        },
        Reply::Error(text) => json!({"error": String::from_utf8_lossy(text)}),
        Reply::Array(items) => items.iter().map(reply_json).collect(),
        Reply::Map(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| (name(key), reply_json(value)));
            Value::Object(pairs.collect())
        }
    }
}

/// A command line's words. Quotes keep blanks together; inside double ones `\n`, `\r`, `\t`,
/// `\xHH`, `\"` and `\\` stand for bytes.
fn split(text: &str) -> Result<Vec<Bytes>, &'static str> {
    let mut words = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(words);
        }
        let mut word = Vec::new();
        rest = match rest[0] {
            b'"' => quoted(&rest[1..], &mut word)?,
            b'\'' => {
                let end = memchr::memchr(b'\'', &rest[1..]).ok_or("a quote is not closed")?;
                word.extend(&rest[1..=end]);
                &rest[end + 2..]
            }
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace);
                let (here, behind) = rest.split_at(end.unwrap_or(rest.len()));
                word.extend(here);
                behind
            }
        };
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err("behind a closing quote stands a blank");
        }
        words.push(word.into());
    }
}

/// Behind a double quote, to behind the next one.
fn quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    loop {
        let (byte, behind) = rest.split_first().ok_or("a quote is not closed")?;
        rest = behind;
        if *byte == b'"' {
            return Ok(rest);
        }
        if *byte != b'\\' {
            word.push(*byte);
            continue;
        }
        let (escape, behind) = rest.split_first().ok_or("a quote is not closed")?;
        rest = behind;
        word.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                rest = &rest[2.min(rest.len())..];
                byte.ok_or("behind \\x stand two hex digits")?
            }
            other => *other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let split = |text| {
            let lossy = |word: &Bytes| String::from_utf8_lossy(word).into_owned();
            split(text).map(|words| words.iter().map(lossy).collect::<Vec<_>>())
        };
        assert_eq!(split("  GET   k "), Ok(vec!["GET".into(), "k".into()]));
        assert_eq!(split(""), Ok(vec![]));
        let quoted = r#"MGET "a b" 'c "d' "\x41\n\"" "" "#;
        let words = ["MGET", "a b", "c \"d", "A\n\"", ""];
        assert_eq!(split(quoted), Ok(words.map(str::to_owned).to_vec()));
        for bad in [
            r#"GET "k"#,
            "GET 'k",
            r#"GET "k"x"#,
            r#"GET "\xZZ""#,
            r#"GET "\x"#,
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_questions_about_data_are_taken() {
        for text in [
            "GET k",
            "account.get 1 with holds",
            "DIGEST",
            "LEDGER.AUDIT",
            "SCAN 0",
        ] {
            question(text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        }
        for (text, why) in [
            ("SET k v", "SET writes"),
            (
                "TRANSFER.CREATE 1 2 3 4 LEDGER 1 CODE 1",
                "TRANSFER.CREATE writes",
            ),
            ("GETDEL k", "GETDEL writes"),
            ("ONCE t INCR k", "ONCE writes"),
            ("PING", "PING is about a running node"),
            ("SHUTDOWN", "SHUTDOWN is about a running node"),
            ("DIGEST SLOTS", "DIGEST is about"),
            ("ACCOUNT.GET x", "ACCOUNT.GET"),
            ("GETT k", "unknown command"),
            ("GET", "wrong number of arguments"),
            ("", "no command"),
        ] {
            let failure = question(text).map(|_| ()).expect_err(text);
            assert_eq!(failure.code, ExitCode::Usage);
            assert!(failure.message.contains(why), "{text}: {failure}");
        }
    }

    #[test]
    fn replies_read_well() {
        let bulk = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let reply = Reply::Map(vec![
            (bulk("id"), bulk("7")),
            (bulk("flags"), Reply::Array(Vec::new())),
            (
                bulk("holds"),
                Reply::Array(vec![
                    Reply::Map(vec![(bulk("id"), Reply::Int(9))]),
                    Reply::Nil,
                ]),
            ),
        ]);
        let text = "id: 7\nflags: (none)\nholds:\n  1)\n    id: 9\n  2) (nil)";
        assert_eq!(reply_text(&reply, 0), text);
        let json = json!({"id": "7", "flags": [], "holds": [{"id": 9}, null]});
        assert_eq!(reply_json(&reply), json);
        let odd = Reply::Bulk(Bytes::from_static(b"a\xff"));
        assert_eq!(reply_text(&odd, 0), "\"a\\xff\"");
        assert_eq!(reply_json(&odd), json!({"hex": "61ff"}));
    }
}
