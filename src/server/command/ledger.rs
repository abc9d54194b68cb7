//! The ledger's commands in words, for people and ordinary clients, and its batch face.

use super::refusal::Refusal;
use super::{Id, Parse};
use crate::limits;
use crate::state::Command;
use crate::state::command::{Batch, BatchForm, LedgerRead};
use crate::state::ledger::record::{account_flags, transfer_flags};
use crate::state::ledger::{Account, Filter, RECORD_BYTES, Transfer, filter_flags};
use bytes::Bytes;

/// Bytes of an id in the batch face.
const ID_BYTES: usize = 16;

/// The command, or `None` if it is none of the ledger's. Arity was checked.
pub(super) fn parse(id: Id, args: &[Bytes]) -> Option<Parse<Command>> {
    let read = match id {
        Id::AccountCreate => return Some(account_create(args)),
        Id::TransferCreate => return Some(transfer_create(args)),
        Id::TransferPost => return Some(resolution(args, transfer_flags::POST)),
        Id::TransferVoid => return Some(resolution(args, transfer_flags::VOID)),
        Id::LedgerCreateAccounts => return Some(batch(args).map(Command::CreateAccounts)),
        Id::LedgerCreateTransfers => return Some(batch(args).map(Command::CreateTransfers)),
        Id::LedgerLookupAccounts => ids(args).map(|ids| LedgerRead::LookupAccounts { ids }),
        Id::LedgerLookupTransfers => ids(args).map(|ids| LedgerRead::LookupTransfers { ids }),
        Id::AccountGet => account_get(args),
        Id::TransferGet => number(&args[1]).map(|id| LedgerRead::Transfer { id }),
        Id::AccountTransfers => of_account(args).map(LedgerRead::AccountTransfers),
        Id::AccountBalances => of_account(args).map(LedgerRead::AccountBalances),
        Id::AccountQuery => filter(&args[1..], Filter::default()).map(LedgerRead::QueryAccounts),
        Id::TransferQuery => filter(&args[1..], Filter::default()).map(LedgerRead::QueryTransfers),
        Id::LedgerTotals => totals(args),
        Id::LedgerAudit => Ok(LedgerRead::Audit),
        _ => return None,
    };
    Some(read.map(|read| Command::Ledger(Box::new(read))))
}

/// An id, amount or other number: decimal, `0x` and hex digits, or a UUID, whose digits are read
/// as one number.
fn number(word: &[u8]) -> Parse<u128> {
    let text = std::str::from_utf8(word).map_err(|_| Refusal::NotNumber)?;
    let hex = |digits: &str| {
        let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = u128::from_str_radix(digits, 16).ok();
        value.filter(|_| is_hex)
    };
    let value = if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        hex(digits)
    } else if is_uuid(text) {
        hex(&text.replace('-', ""))
    } else if text.bytes().all(|digit| digit.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    };
    value.ok_or(Refusal::NotNumber)
}

fn is_uuid(text: &str) -> bool {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| (byte == b'-') == DASHES.contains(&at))
}

fn narrow<T: TryFrom<u128>>(word: &[u8]) -> Parse<T> {
    T::try_from(number(word)?).map_err(|_| Refusal::NotNumber)
}

/// An amount: a number, or ALL for as much as there is.
fn amount(word: &[u8]) -> Parse<u128> {
    if is(word, "all") {
        Ok(u128::MAX)
    } else {
        number(word)
    }
}

fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// Flags by their names, with commas between.
fn flags(word: &[u8], names: &[&str]) -> Parse<u16> {
    let mut bits = 0;
    for name in word.split(|byte| *byte == b',') {
        let bit = names.iter().position(|known| is(name, known));
        let bit = bit.ok_or_else(|| Refusal::Flag(String::from_utf8_lossy(name).into_owned()))?;
        bits |= 1 << bit;
    }
    Ok(bits)
}

/// The value behind an option.
fn value<'a>(words: &mut std::slice::Iter<'a, Bytes>) -> Parse<&'a Bytes> {
    words.next().ok_or(Refusal::Syntax)
}

fn in_words(record: [u8; RECORD_BYTES]) -> Batch {
    Batch {
        events: Bytes::copy_from_slice(&record),
        form: BatchForm::Words,
    }
}

fn account_create(args: &[Bytes]) -> Parse<Command> {
    let mut account = Account {
        id: number(&args[1])?,
        ..Account::default()
    };
    let mut words = args[2..].iter();
    while let Some(word) = words.next() {
        let value = value(&mut words)?;
        match word.to_ascii_lowercase().as_slice() {
            b"ledger" => account.ledger = narrow(value)?,
            b"code" => account.code = narrow(value)?,
            b"flags" => account.flags |= flags(value, &account_flags::NAMES)?,
            b"userdata128" => account.user_data_128 = number(value)?,
            b"userdata64" => account.user_data_64 = narrow(value)?,
            b"userdata32" => account.user_data_32 = narrow(value)?,
            b"timestamp" => account.timestamp = narrow(value)?,
            _ => return Err(Refusal::Syntax),
        }
    }
    Ok(Command::CreateAccounts(in_words(account.encode())))
}

fn transfer_create(args: &[Bytes]) -> Parse<Command> {
    let mut transfer = Transfer {
        id: number(&args[1])?,
        debit_account_id: number(&args[2])?,
        credit_account_id: number(&args[3])?,
        amount: amount(&args[4])?,
        ..Transfer::default()
    };
    transfer_options(&args[5..], &mut transfer)?;
    Ok(Command::CreateTransfers(in_words(transfer.encode())))
}

/// TRANSFER.POST and TRANSFER.VOID: by themselves they post or void all that is held.
fn resolution(args: &[Bytes], flag: u16) -> Parse<Command> {
    let mut transfer = Transfer {
        id: number(&args[1])?,
        pending_id: number(&args[2])?,
        flags: flag,
        amount: match flag {
            transfer_flags::POST => u128::MAX,
            _ => 0,
        },
        ..Transfer::default()
    };
    transfer_options(&args[3..], &mut transfer)?;
    Ok(Command::CreateTransfers(in_words(transfer.encode())))
}

fn transfer_options(words: &[Bytes], transfer: &mut Transfer) -> Parse<()> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if is(word, "pending") {
            transfer.flags |= transfer_flags::PENDING;
            continue;
        }
        let value = value(&mut words)?;
        match word.to_ascii_lowercase().as_slice() {
            b"ledger" => transfer.ledger = narrow(value)?,
            b"code" => transfer.code = narrow(value)?,
            b"flags" => transfer.flags |= flags(value, &transfer_flags::NAMES)?,
            b"timeout" => transfer.timeout = narrow(value)?,
            b"amount" => transfer.amount = amount(value)?,
            b"userdata128" => transfer.user_data_128 = number(value)?,
            b"userdata64" => transfer.user_data_64 = narrow(value)?,
            b"userdata32" => transfer.user_data_32 = narrow(value)?,
            b"timestamp" => transfer.timestamp = narrow(value)?,
            _ => return Err(Refusal::Syntax),
        }
    }
    Ok(())
}

fn account_get(args: &[Bytes]) -> Parse<LedgerRead> {
    let with_holds = match &args[2..] {
        [] => false,
        [with, holds] if is(with, "with") && is(holds, "holds") => true,
        _ => return Err(Refusal::Syntax),
    };
    Ok(LedgerRead::Account {
        id: number(&args[1])?,
        with_holds,
    })
}

fn of_account(args: &[Bytes]) -> Parse<Filter> {
    let account_id = number(&args[1])?;
    filter(
        &args[2..],
        Filter {
            account_id,
            ..Filter::default()
        },
    )
}

fn filter(words: &[Bytes], mut filter: Filter) -> Parse<Filter> {
    let mut sides = 0;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"debits" => sides |= filter_flags::DEBITS,
            b"credits" => sides |= filter_flags::CREDITS,
            b"reversed" => filter.flags |= filter_flags::REVERSED,
            b"ledger" => filter.ledger = narrow(value(&mut words)?)?,
            b"code" => filter.code = narrow(value(&mut words)?)?,
            b"userdata128" => filter.user_data_128 = number(value(&mut words)?)?,
            b"userdata64" => filter.user_data_64 = narrow(value(&mut words)?)?,
            b"userdata32" => filter.user_data_32 = narrow(value(&mut words)?)?,
            b"from" => filter.timestamp_min = narrow(value(&mut words)?)?,
            b"to" => filter.timestamp_max = narrow(value(&mut words)?)?,
            b"limit" => filter.limit = narrow(value(&mut words)?)?,
            b"cursor" => filter.cursor = narrow(value(&mut words)?)?,
            _ => return Err(Refusal::Syntax),
        }
    }
    if sides != 0 {
        filter.flags = filter.flags & filter_flags::REVERSED | sides;
    }
    filter.check().map_err(Refusal::Filter)?;
    Ok(filter)
}

fn totals(args: &[Bytes]) -> Parse<LedgerRead> {
    let ledger = match &args[1..] {
        [] => 0,
        [ledger] => narrow(ledger)?,
        _ => return Err(Refusal::Syntax),
    };
    Ok(LedgerRead::Totals { ledger })
}

fn batch(args: &[Bytes]) -> Parse<Batch> {
    let events = whole(&args[1], RECORD_BYTES)?;
    let form = BatchForm::Results;
    Ok(Batch { events, form })
}

fn ids(args: &[Bytes]) -> Parse<Bytes> {
    whole(&args[1], ID_BYTES)
}

/// A bulk string of whole items, at least one and not too many.
fn whole(bytes: &Bytes, item_bytes: usize) -> Parse<Bytes> {
    let count = bytes.len() / item_bytes;
    let is_whole = bytes.len().is_multiple_of(item_bytes);
    if is_whole && (1..=limits::LEDGER_EVENTS_MAX).contains(&count) {
        Ok(bytes.clone())
    } else {
        Err(Refusal::Batch {
            bytes: bytes.len(),
            item_bytes,
        })
    }
}
