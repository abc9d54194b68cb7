//! Ledger commands in a client's words.

use super::super::command::{Batch, BatchForm, Command, LedgerRead};
use super::super::ledger::record::{account_flags, transfer_flags};
use super::super::ledger::{Account, Filter, Transfer, filter_flags};
use super::{number, word};
use bytes::Bytes;
use std::fmt::Display;

/// The words of a ledger command; `None` for others.
pub(super) fn words(command: &Command) -> Option<Vec<Bytes>> {
    Some(match command {
        Command::CreateAccounts(batch) => {
            accounts(batch).unwrap_or_else(|| bulk("LEDGER.CREATE_ACCOUNTS", &batch.events))
        }
        Command::CreateTransfers(batch) => {
            transfers(batch).unwrap_or_else(|| bulk("LEDGER.CREATE_TRANSFERS", &batch.events))
        }
        Command::Ledger(read) => read_words(read),
        _ => return None,
    })
}

fn bulk(name: &'static str, bytes: &Bytes) -> Vec<Bytes> {
    vec![word(name), bytes.clone()]
}

/// The option and its value, unless that is 0.
fn option<T: Display + Default + PartialEq>(words: &mut Vec<Bytes>, name: &'static str, value: T) {
    if value != T::default() {
        words.extend([word(name), number(&value)]);
    }
}

fn flags(words: &mut Vec<Bytes>, flags: u16, names: &[&str]) {
    let set = names.iter().enumerate();
    let set = set.filter(|(bit, _)| flags & (1 << bit) != 0);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if !set.is_empty() {
        words.extend([word("FLAGS"), Bytes::from(set.join(","))]);
    }
}

fn accounts(batch: &Batch) -> Option<Vec<Bytes>> {
    let record = batch
        .events
        .first_chunk()
        .filter(|_| batch.form == BatchForm::Words)?;
    let account = Account::decode(record);
    let mut words = vec![word("ACCOUNT.CREATE"), number(&account.id)];
    words.extend([word("LEDGER"), number(&account.ledger)]);
    words.extend([word("CODE"), number(&account.code)]);
    flags(&mut words, account.flags, &account_flags::NAMES);
    option(&mut words, "USERDATA128", account.user_data_128);
    option(&mut words, "USERDATA64", account.user_data_64);
    option(&mut words, "USERDATA32", account.user_data_32);
    option(&mut words, "TIMESTAMP", account.timestamp);
    Some(words)
}

fn transfers(batch: &Batch) -> Option<Vec<Bytes>> {
    let record = batch
        .events
        .first_chunk()
        .filter(|_| batch.form == BatchForm::Words)?;
    let transfer = Transfer::decode(record);
    let resolves = transfer.has_any(transfer_flags::TWO_PHASE_END);
    let mut words = if resolves {
        let name = match transfer.has(transfer_flags::POST) {
            true => word("TRANSFER.POST"),
            false => word("TRANSFER.VOID"),
        };
        vec![name, number(&transfer.id), number(&transfer.pending_id)]
    } else {
        vec![
            word("TRANSFER.CREATE"),
            number(&transfer.id),
            number(&transfer.debit_account_id),
            number(&transfer.credit_account_id),
            number(&transfer.amount),
        ]
    };
    if resolves {
        words.extend([word("AMOUNT"), number(&transfer.amount)]);
        option(&mut words, "LEDGER", transfer.ledger);
        option(&mut words, "CODE", transfer.code);
    } else {
        words.extend([word("LEDGER"), number(&transfer.ledger)]);
        words.extend([word("CODE"), number(&transfer.code)]);
    }
    let told = if resolves {
        transfer_flags::TWO_PHASE_END
    } else {
        0
    };
    flags(&mut words, transfer.flags & !told, &transfer_flags::NAMES);
    option(&mut words, "TIMEOUT", transfer.timeout);
    option(&mut words, "USERDATA128", transfer.user_data_128);
    option(&mut words, "USERDATA64", transfer.user_data_64);
    option(&mut words, "USERDATA32", transfer.user_data_32);
    option(&mut words, "TIMESTAMP", transfer.timestamp);
    Some(words)
}

fn read_words(read: &LedgerRead) -> Vec<Bytes> {
    match read {
        LedgerRead::LookupAccounts { ids } => bulk("LEDGER.LOOKUP_ACCOUNTS", ids),
        LedgerRead::LookupTransfers { ids } => bulk("LEDGER.LOOKUP_TRANSFERS", ids),
        LedgerRead::Account { id, with_holds } => {
            let mut words = vec![word("ACCOUNT.GET"), number(id)];
            if *with_holds {
                words.extend([word("WITH"), word("HOLDS")]);
            }
            words
        }
        LedgerRead::Transfer { id } => vec![word("TRANSFER.GET"), number(id)],
        LedgerRead::AccountTransfers(filter) => of_account("ACCOUNT.TRANSFERS", filter),
        LedgerRead::AccountBalances(filter) => of_account("ACCOUNT.BALANCES", filter),
        LedgerRead::QueryAccounts(filter) => filtered(vec![word("ACCOUNT.QUERY")], filter),
        LedgerRead::QueryTransfers(filter) => filtered(vec![word("TRANSFER.QUERY")], filter),
        LedgerRead::Totals { ledger: 0 } => vec![word("LEDGER.TOTALS")],
        LedgerRead::Totals { ledger } => vec![word("LEDGER.TOTALS"), number(ledger)],
        LedgerRead::Audit => vec![word("LEDGER.AUDIT")],
    }
}

fn of_account(name: &'static str, filter: &Filter) -> Vec<Bytes> {
    filtered(vec![word(name), number(&filter.account_id)], filter)
}

fn filtered(mut words: Vec<Bytes>, filter: &Filter) -> Vec<Bytes> {
    const BOTH: u8 = filter_flags::DEBITS | filter_flags::CREDITS;
    match filter.flags & BOTH {
        filter_flags::DEBITS => words.push(word("DEBITS")),
        filter_flags::CREDITS => words.push(word("CREDITS")),
        _ => {}
    }
    option(&mut words, "LEDGER", filter.ledger);
    option(&mut words, "CODE", filter.code);
    option(&mut words, "USERDATA128", filter.user_data_128);
    option(&mut words, "USERDATA64", filter.user_data_64);
    option(&mut words, "USERDATA32", filter.user_data_32);
    option(&mut words, "FROM", filter.timestamp_min);
    option(&mut words, "TO", filter.timestamp_max);
    if filter.flags & filter_flags::REVERSED != 0 {
        words.push(word("REVERSED"));
    }
    words.extend([word("LIMIT"), number(&filter.limit)]);
    option(&mut words, "CURSOR", filter.cursor);
    words
}
