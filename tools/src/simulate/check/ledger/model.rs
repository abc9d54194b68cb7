//! The ledger as it has to be after each command of a log: the plain books, and what the log adds
//! to them. Shares no line with the production ledger; commands are read, never asked what they do.
//!
//! What the log adds: an event keeps its own time (the command's log time or, where that is taken,
//! the next free nanosecond, plus its place), EXEC is all or nothing, a token runs once, a Tick
//! ends the holds that are due by log time, and statements have rows for openings and expiries.

use super::expected::Expected;
use super::rare::{Counts, Rare};
use books::{Account, Books, Outcome, Transfer, account_flags, transfer_flags};
use books::{AccountStatus, TransferStatus};
use bytes::Bytes;
use standfast::limits::LEDGER_EVENTS_MAX;
use standfast::state::command::{Batch, BatchForm, Multi, Once, Set};
use standfast::state::{Command, Reply};
use standfast_wal::{Epoch, Kind, Lsn, Record};
use std::collections::BTreeMap;

/// Keys that clients write together with the ledger only, in one EXEC.
pub const KEYS: &[u8] = b"l";

/// One line of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub account: u128,
    pub kind: &'static str,
    pub timestamp: u64,
    /// Log time at which it happened.
    pub happened: u64,
    /// 0: an account's opening.
    pub transfer: u128,
    /// Debits pending and posted, credits pending and posted.
    pub balances: [u128; 4],
}

/// Where a command stands in the log.
#[derive(Clone, Copy)]
pub struct Place {
    time: u64,
    epoch: Epoch,
}

/// What a batch came to.
struct Booked {
    expected: Expected,
    /// The refusal that its EXEC names: which event, and the name.
    refusal: Option<(usize, String)>,
}

#[derive(Default)]
pub struct Model {
    pub books: Books,
    pub rows: Vec<Row>,
    pub counts: Counts,
    last_event: u64,
    keys: BTreeMap<Bytes, Bytes>,
    tokens: BTreeMap<Bytes, Expected>,
    /// The epoch in which each hold was made.
    held_in: BTreeMap<u128, Epoch>,
}

/// Whether a command is the ledger's, or among others of it, or on keys that go with it.
pub fn concerns(command: &Command) -> bool {
    match command {
        Command::CreateAccounts(_) | Command::CreateTransfers(_) | Command::Ledger(_) => true,
        Command::Once(once) => concerns(once.command()),
        Command::Multi(multi) => multi.commands.iter().any(concerns),
        Command::Set(Set { key, .. }) | Command::Get { key } => key.starts_with(KEYS),
        Command::FlushAll => true,
        _ => false,
    }
}

/// What of a record can change the ledger, or asks it.
pub enum Change {
    Command(Command),
    Tick,
}

/// The changes that a record makes, with where each stands.
pub fn changes(record: &Record) -> Vec<(Lsn, Place, Change)> {
    let place = |at: u64| Place {
        time: record.timestamp() + at,
        epoch: record.epoch(),
    };
    match record.kind() {
        Kind::Tick => {
            let last = record.first_lsn().distance_to(record.last_lsn());
            vec![(record.last_lsn(), place(last), Change::Tick)]
        }
        Kind::Commands => {
            let encoded = standfast::state::command::iter(record.payload()).flatten();
            let commands = encoded.map(Command::from_encoded);
            let ours = (0..).zip(commands).filter_map(|(at, command)| {
                let command = command.ok().filter(concerns)?;
                let lsn = Lsn(record.first_lsn().0 + at);
                Some((lsn, place(at), Change::Command(command)))
            });
            ours.collect()
        }
        _ => Vec::new(),
    }
}

impl Model {
    pub fn apply(&mut self, place: Place, change: &Change) -> Expected {
        match change {
            Change::Command(command) => self.execute(command, place),
            Change::Tick => {
                self.tick(place);
                Expected::Anything
            }
        }
    }

    /// I7: in every ledger debits equal credits.
    pub fn is_balanced(&self) -> bool {
        let totals = self.books.totals();
        let mut totals = totals.values();
        totals.all(|sums| {
            sums.debits_pending == sums.credits_pending && sums.debits_posted == sums.credits_posted
        })
    }

    fn tick(&mut self, place: Place) {
        let (now, epoch) = (place.time, place.epoch);
        for id in self.books.due(now, LEDGER_EVENTS_MAX) {
            let happened = now.max(self.last_event + 1);
            self.last_event = happened;
            let hold = self.books.lookup_transfers(&[id])[0];
            self.books.expire(id);
            for account in [hold.debit_account_id, hold.credit_account_id] {
                let account = self.books.lookup_accounts(&[account])[0];
                if account.has(account_flags::HISTORY) {
                    self.rows.push(Row {
                        account: account.id,
                        kind: "EXPIRY",
                        timestamp: happened,
                        happened,
                        transfer: id,
                        balances: balances(&account),
                    });
                }
            }
            self.counts.note(Rare::Expired);
            if self.held_in.get(&id) != Some(&epoch) {
                self.counts.note(Rare::ExpiredLater);
            }
            if hold.has(transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT) {
                self.counts.note(Rare::Reopened);
            }
        }
    }

    fn execute(&mut self, command: &Command, place: Place) -> Expected {
        match command {
            Command::CreateAccounts(batch) => self.accounts(batch, place).expected,
            Command::CreateTransfers(batch) => self.transfers(batch, place).expected,
            Command::Multi(multi) if concerns(command) => self.multi(multi, place),
            Command::Once(once) => self.once(once, place),
            Command::Set(set) if set.key.starts_with(KEYS) => {
                self.keys.insert(set.key.clone(), set.value.clone());
                Expected::Reply(Reply::Ok)
            }
            // Keys only: the books stay, and so do tokens.
            Command::FlushAll => {
                self.keys.clear();
                Expected::Reply(Reply::Ok)
            }
            other => self.read(other),
        }
    }

    /// What a command that changes nothing answers.
    pub fn read(&self, command: &Command) -> Expected {
        match command {
            Command::Get { key } if key.starts_with(KEYS) => {
                let value = self.keys.get(key).cloned();
                Expected::Reply(value.map_or(Reply::Nil, Reply::Bulk))
            }
            Command::Ledger(question) => self.answer(question),
            Command::Multi(multi) => {
                let replies = multi.commands.iter().map(|command| self.read(command));
                Expected::Array(replies.collect())
            }
            _ => Expected::Anything,
        }
    }

    fn once(&mut self, once: &Once, place: Place) -> Expected {
        if let Some(known) = self.tokens.get(once.token()) {
            self.counts.note(Rare::OnceAgain);
            return known.clone();
        }
        let expected = self.execute(once.command(), place);
        self.tokens.insert(once.token().clone(), expected.clone());
        expected
    }

    fn multi(&mut self, multi: &Multi, place: Place) -> Expected {
        assert!(
            multi.watches.is_empty(),
            "no client watches keys of the ledger's transactions"
        );
        let before = (self.books.clone(), self.rows.len(), self.keys.clone());
        let mut replies = Vec::new();
        for (at, command) in multi.commands.iter().enumerate() {
            let booked = match command {
                Command::CreateAccounts(batch) => self.accounts(batch, place),
                Command::CreateTransfers(batch) => self.transfers(batch, place),
                Command::Once(once) if once.command().is_ledger_write() => Booked {
                    expected: Expected::Anything,
                    refusal: Some((
                        0,
                        "a command of the ledger stands under a ONCE token".into(),
                    )),
                },
                other => Booked {
                    expected: self.execute(other, place),
                    refusal: None,
                },
            };
            if let Some((event, why)) = booked.refusal {
                self.books.go_back(before.0);
                self.rows.truncate(before.1);
                self.keys = before.2;
                self.counts.note(Rare::ExecAborted);
                if replies.len() > 1 {
                    self.counts.note(Rare::ExecUndone);
                }
                return Expected::Error {
                    begins: format!("EXECABORT {why}"),
                    says: format!("that was event {event} of command {at} of"),
                };
            }
            replies.push(booked.expected);
        }
        Expected::Array(replies)
    }

    /// The time of the first of so many events.
    fn begin(&mut self, place: Place, events: usize) -> u64 {
        let begin = place.time.max(self.last_event + 1);
        self.last_event = begin + events as u64 - 1;
        begin
    }

    fn accounts(&mut self, batch: &Batch, place: Place) -> Booked {
        let (records, _) = batch.events.as_chunks::<{ Account::BYTES }>();
        let events: Vec<Account> = records.iter().map(Account::from_bytes).collect();
        let begin = self.begin(place, events.len());
        let outcomes = self.books.create_accounts(begin, &events);
        for ((event, outcome), happened) in events.iter().zip(&outcomes).zip(begin..) {
            let is_created = outcome.status == AccountStatus::Created.number();
            if is_created && event.has(account_flags::HISTORY) {
                self.rows.push(Row {
                    account: event.id,
                    kind: "OPENING",
                    timestamp: outcome.timestamp,
                    happened,
                    transfer: 0,
                    balances: [0; 4],
                });
            }
        }
        let name = |outcome: &Outcome| {
            let status = AccountStatus::from_number(outcome.status);
            status.expect("a known status").name()
        };
        booked(batch.form, &outcomes, name, None)
    }

    fn transfers(&mut self, batch: &Batch, place: Place) -> Booked {
        let (records, _) = batch.events.as_chunks::<{ Transfer::BYTES }>();
        let events: Vec<Transfer> = records.iter().map(Transfer::from_bytes).collect();
        let begin = self.begin(place, events.len());
        let outcomes = self.books.create_transfers(begin, &events);
        for ((event, outcome), happened) in events.iter().zip(&outcomes).zip(begin..) {
            if outcome.status == TransferStatus::Created.number() {
                let stored = self.books.lookup_transfers(&[event.id])[0];
                self.note_rows(&stored, happened);
                self.note_transfer(event, &stored, place.epoch);
            }
        }
        self.counts.note_outcomes(&events, &outcomes);
        let name = |outcome: &Outcome| {
            let status = TransferStatus::from_number(outcome.status);
            status.expect("a known status").name()
        };
        let amount = |id| Some(self.books.lookup_transfers(&[id]).first()?.amount);
        let amount = events.first().and_then(|event| amount(event.id));
        booked(batch.form, &outcomes, name, amount)
    }

    /// The lines that a transfer has made: its balances stand under its timestamp.
    fn note_rows(&mut self, stored: &Transfer, happened: u64) {
        for account in [stored.debit_account_id, stored.credit_account_id] {
            let line = self.books.balance_after(account, stored.timestamp);
            if let Some(line) = line {
                self.rows.push(Row {
                    account,
                    kind: "TRANSFER",
                    timestamp: stored.timestamp,
                    happened,
                    transfer: stored.id,
                    balances: [
                        line.debits_pending,
                        line.debits_posted,
                        line.credits_pending,
                        line.credits_posted,
                    ],
                });
            }
        }
    }

    fn note_transfer(&mut self, sent: &Transfer, stored: &Transfer, epoch: Epoch) {
        if stored.has(transfer_flags::PENDING) {
            self.held_in.insert(stored.id, epoch);
        }
        let held_in = self.held_in.get(&stored.pending_id);
        if stored.is_resolution() && held_in != Some(&epoch) {
            self.counts.note(Rare::ResolvedLater);
        }
        if stored.has(transfer_flags::CLOSING_DEBIT | transfer_flags::CLOSING_CREDIT) {
            self.counts.note(Rare::Closed);
        }
        if stored.has(transfer_flags::IMPORTED) {
            self.counts.note(Rare::Imported);
        }
        let balancing = transfer_flags::BALANCING_DEBIT | transfer_flags::BALANCING_CREDIT;
        if stored.has(balancing) && sent.amount != stored.amount {
            self.counts.note(Rare::Balanced);
        }
    }
}

fn balances(account: &Account) -> [u128; 4] {
    [
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
    ]
}

/// What a batch answers in its form. `amount` is what the only event of a batch in words moved.
fn booked(
    form: BatchForm,
    outcomes: &[Outcome],
    name: impl Fn(&Outcome) -> &'static str,
    amount: Option<u128>,
) -> Booked {
    let is_refused = |outcome: &Outcome| !matches!(name(outcome), "created" | "exists");
    let refused = || {
        let all = outcomes.iter().enumerate();
        all.filter(|(_, outcome)| is_refused(outcome))
    };
    // Of a broken chain the event that broke it, if it says so itself.
    let cause = refused().find(|(_, outcome)| name(outcome) != "linked_event_failed");
    let refusal = cause.or(refused().next());
    let refusal = refusal.map(|(at, outcome)| (at, format!("{} ", name(outcome).to_uppercase())));
    let expected = match (form, &refusal) {
        (BatchForm::Results, _) => {
            let bytes: Vec<u8> = outcomes.iter().flat_map(|one| one.to_bytes()).collect();
            Expected::Reply(Reply::Bulk(bytes.into()))
        }
        (BatchForm::Words, Some((_, name))) => Expected::Error {
            begins: name.clone(),
            says: String::new(),
        },
        (BatchForm::Words, None) => Expected::created(&outcomes[0], name(&outcomes[0]), amount),
    };
    Booked { expected, refusal }
}
