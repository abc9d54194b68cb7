//! The ledger's commands: batches into the books, questions to them, and what both answer.
//!
//! The ledger (`ledger/`) and the keys know nothing of each other. So EXEC runs its ledger commands
//! first, in their order: if one is refused, the books are rolled back and no key was touched.

use super::command::{Batch, BatchForm, LedgerRead, Multi};
use super::ledger::record::{account_flags, transfer_flags};
use super::ledger::{Account, Filter, FilterError, Page, Row, Status, Sums, Transfer};
use super::ledger::{EventResult, Outcome};
use super::{Command, Reply, State};
use bytes::Bytes;

/// What a batch came to.
struct Done {
    reply: Reply,
    /// The first refusal: which event, and its error text.
    refusal: Option<(usize, String)>,
}

impl State {
    pub(super) fn create_accounts(&mut self, batch: &Batch) -> Reply {
        self.book_accounts(batch).reply
    }

    pub(super) fn create_transfers(&mut self, batch: &Batch) -> Reply {
        self.book_transfers(batch).reply
    }

    /// EXEC, once its watched keys are as they were.
    pub(super) fn multi(&mut self, multi: &Multi) -> Reply {
        let before = self.ledger.mark();
        let mut booked = Vec::new();
        for (at, command) in multi.commands.iter().enumerate() {
            let done = match command {
                Command::CreateAccounts(batch) => self.book_accounts(batch),
                Command::CreateTransfers(batch) => self.book_transfers(batch),
                Command::Ledger(read) => Done {
                    reply: self.read_ledger(read),
                    refusal: None,
                },
                Command::Once(once) if once.command().is_ledger_write() => Done {
                    reply: Reply::Nil,
                    refusal: Some((
                        0,
                        "a command of the ledger stands under a ONCE token of its own; put the \
                         token before EXEC"
                            .into(),
                    )),
                },
                _ => continue,
            };
            if let Some((event, why)) = done.refusal {
                self.ledger.roll_back(before);
                return Reply::error(format!(
                    "EXECABORT {why}; that was event {event} of command {at} of the transaction, \
                     of which nothing was done"
                ));
            }
            booked.push(done.reply);
        }
        let mut booked = booked.into_iter();
        let replies = multi.commands.iter().map(|command| match command {
            Command::CreateAccounts(_) | Command::CreateTransfers(_) | Command::Ledger(_) => {
                booked.next().expect("one reply for each, in order")
            }
            other => self.execute(other),
        });
        Reply::Array(replies.collect())
    }

    fn book_accounts(&mut self, batch: &Batch) -> Done {
        let results = self
            .ledger
            .create_accounts(self.applied.timestamp, &batch.events);
        done(batch.form, &results, || None)
    }

    fn book_transfers(&mut self, batch: &Batch) -> Done {
        let results = self
            .ledger
            .create_transfers(self.applied.timestamp, &batch.events);
        let ledger = &self.ledger;
        done(batch.form, &results, || {
            let id = batch
                .events
                .first_chunk()
                .map(|id| u128::from_le_bytes(*id));
            let stored = id.and_then(|id| ledger.transfer(id));
            let stored = stored.expect("what was created, or exists, is there");
            Some((text("amount"), wide(stored.amount)))
        })
    }

    pub(super) fn read_ledger(&self, read: &LedgerRead) -> Reply {
        let ledger = &self.ledger;
        match read {
            LedgerRead::LookupAccounts { ids } => Reply::Bulk(ledger.lookup_accounts(ids).into()),
            LedgerRead::LookupTransfers { ids } => Reply::Bulk(ledger.lookup_transfers(ids).into()),
            LedgerRead::Account { id, with_holds } => self.account_reply(*id, *with_holds),
            LedgerRead::Transfer { id } => match ledger.transfer(*id) {
                Some(transfer) => self.transfer_reply(&transfer),
                None => Reply::Nil,
            },
            LedgerRead::AccountTransfers(filter) => {
                self.transfers_reply(ledger.account_transfers(filter))
            }
            LedgerRead::QueryTransfers(filter) => {
                self.transfers_reply(ledger.query_transfers(filter))
            }
            LedgerRead::AccountBalances(filter) => self.balances_reply(filter),
            LedgerRead::QueryAccounts(filter) => {
                let shown = |account: &Account| Reply::Map(account_fields(account));
                page_reply(ledger.query_accounts(filter), shown)
            }
            LedgerRead::Totals { ledger: wanted } => {
                let all = ledger.totals();
                let some = all.filter(|(number, _)| *wanted == 0 || number == wanted);
                Reply::Array(
                    some.map(|(number, sums)| sums_reply(number, sums))
                        .collect(),
                )
            }
            LedgerRead::Audit => match ledger.audit() {
                Ok(audit) => Reply::Map(vec![
                    (text("accounts"), long(audit.accounts)),
                    (text("transfers"), long(audit.transfers)),
                    (text("open_holds"), long(audit.open_holds)),
                    (text("ledgers"), long(audit.ledgers)),
                ]),
                Err(story) => Reply::error(format!(
                    "LEDGERBROKEN {story}; stop this node, and restore it from a node or a backup \
                     whose audit is clean"
                )),
            },
        }
    }

    fn account_reply(&self, id: u128, with_holds: bool) -> Reply {
        let Some(account) = self.ledger.account(id) else {
            return Reply::Nil;
        };
        let mut fields = account_fields(account);
        if with_holds {
            let holds = self.ledger.open_holds_of(id);
            let holds = holds.iter().map(|hold| self.transfer_reply(hold));
            fields.push((text("holds"), Reply::Array(holds.collect())));
        }
        Reply::Map(fields)
    }

    fn transfer_reply(&self, transfer: &Transfer) -> Reply {
        let mut fields = vec![
            (text("id"), wide(transfer.id)),
            (text("debit_account_id"), wide(transfer.debit_account_id)),
            (text("credit_account_id"), wide(transfer.credit_account_id)),
            (text("amount"), wide(transfer.amount)),
            (text("pending_id"), wide(transfer.pending_id)),
            (text("user_data_128"), wide(transfer.user_data_128)),
            (text("user_data_64"), wide(transfer.user_data_64.into())),
            (
                text("user_data_32"),
                Reply::Int(transfer.user_data_32.into()),
            ),
            (text("timeout"), Reply::Int(transfer.timeout.into())),
            (text("ledger"), Reply::Int(transfer.ledger.into())),
            (text("code"), Reply::Int(transfer.code.into())),
            (text("flags"), names(transfer.flags, &transfer_flags::NAMES)),
            (text("timestamp"), long(transfer.timestamp)),
        ];
        if let Some(status) = self.ledger.hold_status(transfer.id) {
            fields.push((text("status"), text(status.name())));
        }
        Reply::Map(fields)
    }

    fn transfers_reply(&self, page: Result<Page<Transfer>, FilterError>) -> Reply {
        page_reply(page, |transfer| self.transfer_reply(transfer))
    }

    fn balances_reply(&self, filter: &Filter) -> Reply {
        page_reply(self.ledger.account_balances(filter), |row: &Row| {
            let transfer = self.ledger.transfer_of(row);
            Reply::Map(vec![
                (text("kind"), text(row.kind.name())),
                (text("timestamp"), long(row.timestamp)),
                (
                    text("transfer_id"),
                    wide(transfer.map_or(0, |transfer| transfer.id)),
                ),
                (text("debits_pending"), wide(row.debits_pending)),
                (text("debits_posted"), wide(row.debits_posted)),
                (text("credits_pending"), wide(row.credits_pending)),
                (text("credits_posted"), wide(row.credits_posted)),
            ])
        })
    }
}

/// What a batch answers in its form; `more` tells more of one that took place.
fn done<S: Status>(
    form: BatchForm,
    results: &[EventResult<S>],
    more: impl Fn() -> Option<(Reply, Reply)>,
) -> Done {
    let refusals = results.iter().map(EventResult::refusal).enumerate();
    let refusals: Vec<_> = refusals
        .filter_map(|(at, refusal)| Some((at, refusal?)))
        .collect();
    // The event that broke a chain says more than the others of the chain.
    let cause = refusals
        .iter()
        .find(|(_, status)| *status != S::LINKED_EVENT_FAILED)
        .or(refusals.first());
    let refusal = cause.map(|(at, status)| (*at, status.text()));
    let reply = match (form, &refusal) {
        (BatchForm::Results, _) => {
            let bytes: Vec<u8> = results.iter().flat_map(EventResult::encode).collect();
            Reply::Bulk(bytes.into())
        }
        (BatchForm::Words, Some((_, why))) => Reply::error(why.clone()),
        (BatchForm::Words, None) => {
            let result = results.first().expect("words are of one event");
            let word = match result.outcome {
                Outcome::Created => "CREATED",
                Outcome::Refused(_) => "EXISTS",
            };
            let mut fields = Vec::with_capacity(3);
            fields.push((text("result"), text(word)));
            fields.push((text("timestamp"), long(result.timestamp)));
            fields.extend(more());
            Reply::Map(fields)
        }
    };
    Done { reply, refusal }
}

fn text(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

/// 128 bits as decimal text: no client's integers hold them.
fn wide(number: u128) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(
        itoa::Buffer::new().format(number).as_bytes(),
    ))
}

/// Counts and timestamps: none passes 2^63 - 1.
fn long(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The names of the bits that are set.
fn names(flags: u16, names: &[&'static str]) -> Reply {
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0);
    Reply::Array(set.map(|(_, name)| text(name)).collect())
}

fn account_fields(account: &Account) -> Vec<(Reply, Reply)> {
    vec![
        (text("id"), wide(account.id)),
        (text("debits_pending"), wide(account.debits_pending)),
        (text("debits_posted"), wide(account.debits_posted)),
        (text("credits_pending"), wide(account.credits_pending)),
        (text("credits_posted"), wide(account.credits_posted)),
        (text("user_data_128"), wide(account.user_data_128)),
        (text("user_data_64"), wide(account.user_data_64.into())),
        (
            text("user_data_32"),
            Reply::Int(account.user_data_32.into()),
        ),
        (text("ledger"), Reply::Int(account.ledger.into())),
        (text("code"), Reply::Int(account.code.into())),
        (text("flags"), names(account.flags, &account_flags::NAMES)),
        (text("timestamp"), long(account.timestamp)),
    ]
}

fn sums_reply(ledger: u32, sums: &Sums) -> Reply {
    Reply::Map(vec![
        (text("ledger"), Reply::Int(ledger.into())),
        (text("accounts"), long(sums.accounts)),
        (text("debits_pending"), wide(sums.debits_pending)),
        (text("debits_posted"), wide(sums.debits_posted)),
        (text("credits_pending"), wide(sums.credits_pending)),
        (text("credits_posted"), wide(sums.credits_posted)),
    ])
}

/// A cursor and what was found, as SCAN answers.
fn page_reply<T>(page: Result<Page<T>, FilterError>, shown: impl Fn(&T) -> Reply) -> Reply {
    match page {
        Ok(page) => Reply::Array(vec![
            wide(page.next.into()),
            Reply::Array(page.items.iter().map(shown).collect()),
        ]),
        Err(why) => Reply::error(why.to_string()),
    }
}
