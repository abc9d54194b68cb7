//! What was lost, for people and for programs.

use super::Format;
use super::books::{Books, Fate, Lost, Net, Sort, Sum, add_up};
use super::doubt::doubt;
use super::found::Found;
use crate::cli::backup::rfc3339;
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::node::statement::{Statement, What};
use crate::state::ledger::record::{account_flags, transfer_flags};
use crate::state::ledger::{Account, Transfer};
use bytes::Bytes;
use serde_json::{Value, json};
use std::io::Write;

pub fn list(found: &[Found], json: bool) -> Outcome {
    let mut out = std::io::stdout().lock();
    for one in found {
        match json {
            true => writeln!(out, "{}", summary(one))?,
            false => writeln!(
                out,
                "{}\n  {}",
                one.file.display(),
                sentence(&one.statement)
            )?,
        }
    }
    if found.is_empty() && !json {
        writeln!(out, "nothing was lost, as far as these directories tell")?;
    }
    Ok(ExitCode::Done)
}

fn summary(found: &Found) -> Value {
    let statement = &found.statement;
    json!({
        "file": found.file.display().to_string(),
        "what": statement.what,
        "node": statement.node,
        "when": rfc3339(statement.when_ns),
        "history": statement.history,
        "replaced_by": statement.replaced_by,
        "first_lsn": statement.first_lsn,
        "last_lsn": statement.last_lsn,
        "acknowledged_through": statement.acknowledged_through,
        "at_least": statement.at_least,
        "commands": statement.commands.len(),
    })
}

fn sentence(statement: &Statement) -> String {
    let (when, node) = (rfc3339(statement.when_ns), statement.node);
    let (first, last) = (statement.first_lsn, statement.last_lsn);
    match statement.what {
        What::ForcedPromotion => format!(
            "{when}, node {node} was promoted by force: at least {} acknowledged commands of \
             history {} from LSN {first} on are missing; the nodes that have them will tell which \
             once they are back",
            statement.at_least.unwrap_or(0),
            statement.history,
        ),
        What::Cut => format!(
            "{when}, node {node} gave up LSN {first} to {last} of history {}: {} commands, \
             committed through LSN {}",
            statement.history,
            statement.commands.len(),
            statement.acknowledged_through,
        ),
        What::NothingMore => format!(
            "{when}, node {node} came back with LSN {last} of history {}, and had nothing more",
            statement.history,
        ),
    }
}

pub fn show(found: &[Found], books: &Books, json: bool) -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match json {
        true => writeln!(out, "{}", all_json(found, books))?,
        false => all_text(found, books, &mut out)?,
    }
    out.flush()?;
    Ok(ExitCode::Done)
}

fn all_json(found: &[Found], books: &Books) -> Value {
    let (sums, nets) = add_up(books);
    let of = |sort: Sort| {
        let events = books.events.iter().filter(move |lost| lost.sort == sort);
        events
            .map(|lost| event_json(books, lost))
            .collect::<Vec<_>>()
    };
    let ledgers = sums.iter().map(|(ledger, sum)| {
        json!({
            "ledger": ledger, "transfers": sum.transfers, "acknowledged": sum.acknowledged,
            "moved": sum.moved.to_string(), "held": sum.held.to_string(),
        })
    });
    let accounts = nets.iter().map(|(id, net)| {
        json!({
            "id": id.to_string(), "ledger": net.ledger,
            "debits_posted": net.debits_posted.to_string(),
            "credits_posted": net.credits_posted.to_string(),
            "debits_pending": net.debits_held.to_string(),
            "credits_pending": net.credits_held.to_string(),
        })
    });
    let keys = books.with_keys.iter().map(|at| command_json(books, *at));
    let doubt = doubt(found);
    json!({
        "final": doubt.is_none(),
        "doubt": doubt,
        "statements": found.iter().map(summary).collect::<Vec<_>>(),
        "transfers": of(Sort::Transfer),
        "accounts": of(Sort::Account),
        "ledgers": ledgers.collect::<Vec<_>>(),
        "net": accounts.collect::<Vec<_>>(),
        "key_commands": keys.collect::<Vec<_>>(),
        "unproved": books.unproved,
        "unreadable": books.unreadable,
    })
}

fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Made(_) => "lost",
        Fate::Nothing => "nothing",
        Fate::Unknown => "unknown",
    }
}

/// What was made, or else what was asked for.
fn event_json(books: &Books, lost: &Lost) -> Value {
    let origin = books.origin(lost);
    let record = match lost.fate {
        Fate::Made(record) => record,
        Fate::Nothing | Fate::Unknown => lost.event,
    };
    let mut fields = match lost.sort {
        Sort::Account => account_json(&Account::decode(&record)),
        Sort::Transfer => transfer_json(&Transfer::decode(&record)),
    };
    fields["effect"] = fate_word(lost.fate).into();
    fields["acknowledged"] = origin.acknowledged.word().into();
    fields["held_by"] = json!(origin.held_by);
    fields["history"] = origin.place.0.clone().into();
    fields["epoch"] = origin.place.1.into();
    fields["lsn"] = origin.place.2.into();
    fields["time"] = rfc3339(origin.timestamp_ns).into();
    fields
}

fn account_json(account: &Account) -> Value {
    json!({
        "kind": "account",
        "id": account.id.to_string(),
        "ledger": account.ledger,
        "code": account.code,
        "flags": names(account.flags, &account_flags::NAMES),
        "user_data_128": account.user_data_128.to_string(),
        "user_data_64": account.user_data_64,
        "user_data_32": account.user_data_32,
    })
}

pub fn transfer_json(transfer: &Transfer) -> Value {
    json!({
        "kind": "transfer",
        "id": transfer.id.to_string(),
        "debit_account_id": transfer.debit_account_id.to_string(),
        "credit_account_id": transfer.credit_account_id.to_string(),
        "amount": transfer.amount.to_string(),
        "pending_id": transfer.pending_id.to_string(),
        "timeout": transfer.timeout,
        "ledger": transfer.ledger,
        "code": transfer.code,
        "flags": names(transfer.flags, &transfer_flags::NAMES),
        "user_data_128": transfer.user_data_128.to_string(),
        "user_data_64": transfer.user_data_64,
        "user_data_32": transfer.user_data_32,
        "timestamp_ns": transfer.timestamp,
    })
}

fn names<'a>(flags: u16, names: &[&'a str]) -> Vec<&'a str> {
    let set = names.iter().enumerate();
    set.filter(|(bit, _)| flags & (1 << bit) != 0)
        .map(|(_, name)| *name)
        .collect()
}

fn command_json(books: &Books, at: usize) -> Value {
    let origin = &books.commands[at];
    let requests = books.requests(at);
    json!({
        "kind": "command",
        "requests": requests.iter().map(|one| words(one)).collect::<Vec<_>>(),
        "acknowledged": origin.acknowledged.word(),
        "held_by": origin.held_by,
        "history": origin.place.0,
        "epoch": origin.place.1,
        "lsn": origin.place.2,
        "time": rfc3339(origin.timestamp_ns),
    })
}

/// Words of a request; bytes that are no text as `\x` and hex.
fn words(request: &[Bytes]) -> Vec<String> {
    let word = |word: &Bytes| match std::str::from_utf8(word) {
        Ok(text) => text.replace('\\', "\\\\"),
        Err(_) => word.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
    };
    request.iter().map(word).collect()
}

fn all_text(found: &[Found], books: &Books, out: &mut impl Write) -> Result<(), Failure> {
    for one in found {
        writeln!(out, "{}", sentence(&one.statement))?;
    }
    match doubt(found) {
        Some(doubt) => writeln!(out, "at least, for {doubt}:")?,
        None => writeln!(out, "exactly, of the logs of these nodes:")?,
    }
    for why in &books.unproved {
        writeln!(out, "what was refused as it ran is not known. {why}")?;
    }
    for lost in &books.events {
        writeln!(out, "{}", event_text(books, lost))?;
    }
    for at in &books.with_keys {
        let origin = &books.commands[*at];
        for request in books.requests(*at) {
            let (lsn, acknowledged) = (origin.place.2, origin.acknowledged.word());
            let text = words(&request).join(" ");
            writeln!(out, "LSN {lsn}  acknowledged {acknowledged}  {text}")?;
        }
    }
    let (sums, nets) = add_up(books);
    for (id, net) in &nets {
        let Net {
            ledger,
            debits_posted,
            credits_posted,
            debits_held,
            credits_held,
        } = net;
        writeln!(
            out,
            "account {id} of ledger {ledger} lacks debits {debits_posted}, credits \
             {credits_posted}; held: debits {debits_held}, credits {credits_held}"
        )?;
    }
    for (ledger, sum) in &sums {
        let Sum {
            transfers,
            acknowledged,
            moved,
            held,
        } = sum;
        writeln!(
            out,
            "ledger {ledger}: {transfers} transfers are lost, {acknowledged} of them acknowledged \
             for certain; {moved} moved, {held} held"
        )?;
    }
    Ok(())
}

fn event_text(books: &Books, lost: &Lost) -> String {
    let origin = books.origin(lost);
    let (lsn, acknowledged) = (origin.place.2, origin.acknowledged.word());
    let effect = match lost.fate {
        Fate::Made(_) => "",
        Fate::Nothing => "  (refused or repeated: nothing is lost)",
        Fate::Unknown => "  (not known whether it was refused)",
    };
    let what = match lost.sort {
        Sort::Account => {
            let account = Account::decode(&lost.event);
            let flags = names(account.flags, &account_flags::NAMES).join(",");
            let (id, ledger, code) = (account.id, account.ledger, account.code);
            format!("account {id} ledger {ledger} code {code} {flags}")
        }
        Sort::Transfer => {
            let sent = Transfer::decode(&lost.event);
            let transfer = lost.made().unwrap_or(sent);
            let flags = names(transfer.flags, &transfer_flags::NAMES).join(",");
            format!(
                "transfer {} debit {} credit {} amount {} ledger {} code {} {flags}",
                transfer.id,
                transfer.debit_account_id,
                transfer.credit_account_id,
                transfer.amount,
                transfer.ledger,
                transfer.code,
            )
        }
    };
    format!(
        "LSN {lsn}  acknowledged {acknowledged}  {}{effect}",
        what.trim_end()
    )
}

/// Columns of the CSV, by the names that the JSON lines have.
const COLUMNS: [&str; 21] = [
    "kind",
    "lsn",
    "epoch",
    "history",
    "time",
    "acknowledged",
    "effect",
    "id",
    "debit_account_id",
    "credit_account_id",
    "amount",
    "ledger",
    "code",
    "flags",
    "pending_id",
    "timeout",
    "user_data_128",
    "user_data_64",
    "user_data_32",
    "timestamp_ns",
    "requests",
];

pub fn export(books: &Books, format: Format) -> Outcome {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if format == Format::Csv {
        writeln!(out, "{}", COLUMNS.join(","))?;
    }
    let events = books.events.iter().map(|lost| event_json(books, lost));
    let keys = books.with_keys.iter().map(|at| command_json(books, *at));
    for line in events.chain(keys) {
        match format {
            Format::Jsonl => writeln!(out, "{line}")?,
            Format::Csv => {
                let cells = COLUMNS.iter().map(|column| cell(&line[*column]));
                writeln!(out, "{}", cells.collect::<Vec<_>>().join(","))?;
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::Done)
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) if parts.iter().all(Value::is_string) => {
            let parts = parts.iter().filter_map(Value::as_str);
            parts.collect::<Vec<_>>().join("|")
        }
        other => other.to_string(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}
