//! What the books make a command answer: exactly, or where words are for people, how they begin.

use super::model::{Model, Row};
use books::{
    Account, AccountFilter, Hold, Outcome, QueryFilter, ROWS_MAX, TIMESTAMP_MAX, Transfer,
};
use books::{account_flags, filter_flags as books_flags, transfer_flags};
use bytes::Bytes;
use standfast::state::Reply;
use standfast::state::command::LedgerRead;
use standfast::state::ledger::{Filter, filter_flags};

/// The answer that a command must have had.
#[derive(Clone, Debug)]
pub enum Expected {
    /// It is not the ledger's: the replay of the whole state knows.
    Anything,
    Reply(Reply),
    /// An error that begins so and says this, too.
    Error {
        begins: String,
        says: String,
    },
    Array(Vec<Expected>),
}

impl Expected {
    pub fn fits(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Expected::Anything, _) => true,
            (Expected::Reply(expected), _) => expected == reply,
            (Expected::Error { begins, says }, Reply::Error(text)) => {
                let text = String::from_utf8_lossy(text);
                text.starts_with(begins) && text.contains(says)
            }
            (Expected::Array(expected), Reply::Array(items)) => {
                let mut each = expected.iter().zip(items);
                expected.len() == items.len() && each.all(|(expected, item)| expected.fits(item))
            }
            _ => false,
        }
    }

    /// EXEC did nothing, for an event of the ledger was refused.
    pub fn is_abort(&self) -> bool {
        matches!(self, Expected::Error { begins, .. } if begins.starts_with("EXECABORT"))
    }

    /// How a reply differs that does not fit, in few words.
    pub fn unlike(&self, reply: &Reply) -> String {
        match (self, reply) {
            (Expected::Reply(expected), _) => unlike(expected, reply),
            (Expected::Array(expected), Reply::Array(items)) if expected.len() == items.len() => {
                let mut each = expected.iter().zip(items).enumerate();
                let other = each.find(|(_, (expected, item))| !expected.fits(item));
                let (at, (expected, item)) = other.expect("one of them does not fit");
                format!("reply {at}: {}", expected.unlike(item))
            }
            _ => format!("{self:?} by the books, was {reply:?}"),
        }
    }

    pub fn error(begins: &str) -> Expected {
        Expected::Error {
            begins: begins.into(),
            says: String::new(),
        }
    }

    /// What a batch in words answers when its only event took place, or exists.
    pub fn created(outcome: &Outcome, name: &str, amount: Option<u128>) -> Expected {
        let mut fields = vec![
            ("result", text(name.to_uppercase())),
            ("timestamp", long(outcome.timestamp)),
        ];
        fields.extend(amount.map(|amount| ("amount", wide(amount))));
        Expected::Reply(map(fields))
    }
}

/// The first difference.
fn unlike(expected: &Reply, reply: &Reply) -> String {
    match (expected, reply) {
        (Reply::Array(ours), Reply::Array(items)) if ours.len() == items.len() => {
            let mut each = ours.iter().zip(items).enumerate();
            let other = each.find(|(_, (ours, item))| ours != item);
            other.map_or_else(String::new, |(at, (ours, item))| {
                format!("item {at}: {}", unlike(ours, item))
            })
        }
        (Reply::Map(ours), Reply::Map(fields)) if ours.len() == fields.len() => {
            let mut each = ours.iter().zip(fields);
            let other = each.find(|(ours, field)| ours != field);
            other.map_or_else(String::new, |(ours, field)| {
                format!("{ours:?} by the books, was {field:?}")
            })
        }
        (Reply::Bulk(ours), Reply::Bulk(bytes))
            if ours.len() == bytes.len() && ours.len().is_multiple_of(16) =>
        {
            // A batch's results or records: of a result the first word is its time.
            let (ours, _) = ours.as_chunks::<8>();
            let (bytes, _) = bytes.as_chunks::<8>();
            let at = ours.iter().zip(bytes).position(|(ours, here)| ours != here);
            let at = at.unwrap_or_default();
            let number = |words: &[[u8; 8]]| u64::from_le_bytes(words[at]);
            let (ours, here) = (number(ours), number(bytes));
            format!("word {at} is {ours} by the books, was {here}")
        }
        _ => format!("{expected:?} by the books, was {reply:?}"),
    }
}

fn text(words: impl Into<String>) -> Reply {
    Reply::Bulk(Bytes::from(words.into()))
}

fn wide(number: u128) -> Reply {
    text(number.to_string())
}

fn long(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).expect("times and counts are below 2^63"))
}

fn map(fields: Vec<(&'static str, Reply)>) -> Reply {
    let fields = fields.into_iter();
    Reply::Map(fields.map(|(name, value)| (text(name), value)).collect())
}

fn names(flags: u16, names: &[(u16, &str)]) -> Reply {
    let set = names.iter().filter(|(flag, _)| flags & flag != 0);
    Reply::Array(set.map(|(_, name)| text(*name)).collect())
}

fn account_fields(account: &Account) -> Vec<(&'static str, Reply)> {
    use account_flags::*;
    let flags = [
        (LINKED, "LINKED"),
        (
            DEBITS_MUST_NOT_EXCEED_CREDITS,
            "DEBITS_MUST_NOT_EXCEED_CREDITS",
        ),
        (
            CREDITS_MUST_NOT_EXCEED_DEBITS,
            "CREDITS_MUST_NOT_EXCEED_DEBITS",
        ),
        (HISTORY, "HISTORY"),
        (IMPORTED, "IMPORTED"),
        (CLOSED, "CLOSED"),
    ];
    vec![
        ("id", wide(account.id)),
        ("debits_pending", wide(account.debits_pending)),
        ("debits_posted", wide(account.debits_posted)),
        ("credits_pending", wide(account.credits_pending)),
        ("credits_posted", wide(account.credits_posted)),
        ("user_data_128", wide(account.user_data_128)),
        ("user_data_64", wide(account.user_data_64.into())),
        ("user_data_32", long(account.user_data_32.into())),
        ("ledger", long(account.ledger.into())),
        ("code", long(account.code.into())),
        ("flags", names(account.flags, &flags)),
        ("timestamp", long(account.timestamp)),
    ]
}

impl Model {
    /// What a question to the ledger is answered now.
    pub fn answer(&self, question: &LedgerRead) -> Expected {
        let bytes = |records: Vec<u8>| Expected::Reply(Reply::Bulk(records.into()));
        match question {
            LedgerRead::LookupAccounts { ids } => {
                let found = self.books.lookup_accounts(&split(ids));
                bytes(found.iter().flat_map(Account::to_bytes).collect())
            }
            LedgerRead::LookupTransfers { ids } => {
                let found = self.books.lookup_transfers(&split(ids));
                bytes(found.iter().flat_map(Transfer::to_bytes).collect())
            }
            LedgerRead::Account { id, with_holds } => {
                let found = self.books.lookup_accounts(&[*id]);
                let found = found.first().map(|account| {
                    let mut fields = account_fields(account);
                    if *with_holds {
                        fields.push(("holds", self.open_holds(*id)));
                    }
                    map(fields)
                });
                Expected::Reply(found.unwrap_or(Reply::Nil))
            }
            LedgerRead::Transfer { id } => {
                let found = self.books.lookup_transfers(&[*id]);
                let found = found.first().map(|transfer| self.transfer(transfer));
                Expected::Reply(found.unwrap_or(Reply::Nil))
            }
            LedgerRead::AccountTransfers(filter) => self.account_transfers(filter),
            LedgerRead::AccountBalances(filter) => self.account_balances(filter),
            LedgerRead::QueryAccounts(filter) => match query(filter) {
                Ok(asked) => {
                    let found = asked.map(|asked| self.books.query_accounts(&asked));
                    let found = found.map_or(Ok(Vec::new()), |found| found);
                    let found = found.expect("a good filter");
                    let show = |account: &Account| map(account_fields(account));
                    page(found, filter, |account| account.timestamp, show)
                }
                Err(refused) => refused,
            },
            LedgerRead::QueryTransfers(filter) => match query(filter) {
                Ok(asked) => {
                    let found = asked.map(|asked| self.books.query_transfers(&asked));
                    let found = found.map_or(Ok(Vec::new()), |found| found);
                    self.transfers_page(found.expect("a good filter"), filter)
                }
                Err(refused) => refused,
            },
            LedgerRead::Totals { ledger } => self.totals(*ledger),
            LedgerRead::Audit => Expected::Reply(map(vec![
                ("accounts", long(self.books.accounts().count() as u64)),
                ("transfers", long(self.books.transfers().count() as u64)),
                ("open_holds", long(self.open_hold_count())),
                ("ledgers", long(self.books.totals().len() as u64)),
            ])),
        }
    }

    pub fn open_hold_count(&self) -> u64 {
        let transfers = self.books.transfers();
        let open = transfers.filter(|t| self.books.hold(t.id) == Some(Hold::Pending));
        open.count() as u64
    }

    fn open_holds(&self, account: u128) -> Reply {
        let mut open: Vec<&Transfer> = self
            .books
            .transfers()
            .filter(|t| self.books.hold(t.id) == Some(Hold::Pending))
            .filter(|t| t.debit_account_id == account || t.credit_account_id == account)
            .collect();
        open.sort_by_key(|t| t.timestamp);
        Reply::Array(open.into_iter().map(|t| self.transfer(t)).collect())
    }

    fn transfer(&self, transfer: &Transfer) -> Reply {
        use transfer_flags::*;
        let flags = [
            (LINKED, "LINKED"),
            (PENDING, "PENDING"),
            (POST_PENDING_TRANSFER, "POST_PENDING_TRANSFER"),
            (VOID_PENDING_TRANSFER, "VOID_PENDING_TRANSFER"),
            (BALANCING_DEBIT, "BALANCING_DEBIT"),
            (BALANCING_CREDIT, "BALANCING_CREDIT"),
            (CLOSING_DEBIT, "CLOSING_DEBIT"),
            (CLOSING_CREDIT, "CLOSING_CREDIT"),
            (IMPORTED, "IMPORTED"),
        ];
        let mut fields = vec![
            ("id", wide(transfer.id)),
            ("debit_account_id", wide(transfer.debit_account_id)),
            ("credit_account_id", wide(transfer.credit_account_id)),
            ("amount", wide(transfer.amount)),
            ("pending_id", wide(transfer.pending_id)),
            ("user_data_128", wide(transfer.user_data_128)),
            ("user_data_64", wide(transfer.user_data_64.into())),
            ("user_data_32", long(transfer.user_data_32.into())),
            ("timeout", long(transfer.timeout.into())),
            ("ledger", long(transfer.ledger.into())),
            ("code", long(transfer.code.into())),
            ("flags", names(transfer.flags, &flags)),
            ("timestamp", long(transfer.timestamp)),
        ];
        let status = self.books.hold(transfer.id).map(|hold| match hold {
            Hold::Pending => "PENDING",
            Hold::Posted => "POSTED",
            Hold::Voided => "VOIDED",
            Hold::Expired => "EXPIRED",
        });
        fields.extend(status.map(|status| ("status", text(status))));
        map(fields)
    }

    fn transfers_page(&self, found: Vec<Transfer>, filter: &Filter) -> Expected {
        page(found, filter, |t| t.timestamp, |t| self.transfer(t))
    }

    fn account_transfers(&self, filter: &Filter) -> Expected {
        if is_bad(filter) {
            return Expected::error("FILTER ");
        }
        if self.books.lookup_accounts(&[filter.account_id]).is_empty() {
            return Expected::error("ACCOUNT_NOT_FOUND ");
        }
        let found = times(filter).map(|(timestamp_min, timestamp_max)| {
            let asked = AccountFilter {
                account_id: filter.account_id,
                user_data_128: filter.user_data_128,
                user_data_64: filter.user_data_64,
                user_data_32: filter.user_data_32,
                code: filter.code,
                timestamp_min,
                timestamp_max,
                limit: u32::MAX,
                flags: filter.flags.into(),
                ..AccountFilter::default()
            };
            let found = self.books.account_transfers(&asked);
            found.expect("a good filter")
        });
        let mut found = found.unwrap_or_default();
        found.retain(|t| filter.ledger == 0 || t.ledger == filter.ledger);
        self.transfers_page(found, filter)
    }

    fn account_balances(&self, filter: &Filter) -> Expected {
        if is_bad(filter) {
            return Expected::error("FILTER ");
        }
        let Some(account) = self
            .books
            .lookup_accounts(&[filter.account_id])
            .first()
            .copied()
        else {
            return Expected::error("ACCOUNT_NOT_FOUND ");
        };
        if !account.has(account_flags::HISTORY) {
            return Expected::error("NO_HISTORY ");
        }
        let rows = self.rows.iter().filter(|row| row.account == account.id);
        let wanted = rows.filter(|row| self.is_wanted(filter, row));
        let mut found: Vec<Row> = wanted.copied().collect();
        if filter.flags & filter_flags::REVERSED != 0 {
            found.reverse();
        }
        page(found, filter, |row| row.happened, line)
    }

    /// Whether a line of a statement is asked for.
    fn is_wanted(&self, filter: &Filter, row: &Row) -> bool {
        let is_in_time = row.timestamp >= filter.timestamp_min
            && (filter.timestamp_max == 0 || row.timestamp <= filter.timestamp_max);
        let is_on_page = match (filter.cursor, filter.flags & filter_flags::REVERSED != 0) {
            (0, _) => true,
            (cursor, false) => row.happened >= cursor,
            (cursor, true) => row.happened <= cursor,
        };
        let of_transfer = self.books.lookup_transfers(&[row.transfer]);
        let fits = match of_transfer.first() {
            Some(t) => {
                let side = match t.debit_account_id == row.account {
                    true => filter_flags::DEBITS,
                    false => filter_flags::CREDITS,
                };
                filter.flags & side != 0
                    && (filter.user_data_128 == 0 || filter.user_data_128 == t.user_data_128)
                    && (filter.user_data_64 == 0 || filter.user_data_64 == t.user_data_64)
                    && (filter.user_data_32 == 0 || filter.user_data_32 == t.user_data_32)
                    && (filter.ledger == 0 || filter.ledger == t.ledger)
                    && (filter.code == 0 || filter.code == t.code)
            }
            // No transfer stands behind an opening: any condition leaves it out.
            None => {
                filter.user_data_128 == 0
                    && filter.user_data_64 == 0
                    && filter.user_data_32 == 0
                    && filter.ledger == 0
                    && filter.code == 0
            }
        };
        is_in_time && is_on_page && fits
    }

    fn totals(&self, wanted: u32) -> Expected {
        let all = self.books.totals().into_iter();
        let some = all.filter(|(ledger, _)| wanted == 0 || *ledger == wanted);
        // Sums are told modulo 2^128.
        let rows = some.map(|(ledger, sums)| {
            map(vec![
                ("ledger", long(ledger.into())),
                ("accounts", long(sums.accounts)),
                ("debits_pending", wide(sums.debits_pending.low)),
                ("debits_posted", wide(sums.debits_posted.low)),
                ("credits_pending", wide(sums.credits_pending.low)),
                ("credits_posted", wide(sums.credits_posted.low)),
            ])
        });
        Expected::Reply(Reply::Array(rows.collect()))
    }
}

fn line(row: &Row) -> Reply {
    let [
        debits_pending,
        debits_posted,
        credits_pending,
        credits_posted,
    ] = row.balances;
    map(vec![
        ("kind", text(row.kind)),
        ("timestamp", long(row.timestamp)),
        ("transfer_id", wide(row.transfer)),
        ("debits_pending", wide(debits_pending)),
        ("debits_posted", wide(debits_posted)),
        ("credits_pending", wide(credits_pending)),
        ("credits_posted", wide(credits_posted)),
    ])
}

fn split(ids: &[u8]) -> Vec<u128> {
    let (ids, _) = ids.as_chunks::<16>();
    ids.iter().map(|id| u128::from_le_bytes(*id)).collect()
}

/// A cursor and as many as were asked for.
fn page<R>(
    mut rows: Vec<R>,
    filter: &Filter,
    time: impl Fn(&R) -> u64,
    show: impl Fn(&R) -> Reply,
) -> Expected {
    let limit = filter.limit as usize;
    let next = rows.get(limit).map_or(0, time);
    rows.truncate(limit);
    let rows = Reply::Array(rows.iter().map(show).collect());
    Expected::Reply(Reply::Array(vec![wide(next.into()), rows]))
}

fn is_bad(filter: &Filter) -> bool {
    filter.limit == 0
        || filter.limit as usize > ROWS_MAX
        || filter.timestamp_max != 0 && filter.timestamp_min > filter.timestamp_max
        || filter.flags & !filter_flags::ALL != 0
        || filter.flags & (filter_flags::DEBITS | filter_flags::CREDITS) == 0
}

/// Times from where the page before ended on, as the books want them; `None`: there are none.
fn times(filter: &Filter) -> Option<(u64, u64)> {
    let (mut min, mut max) = (filter.timestamp_min, filter.timestamp_max);
    match (filter.cursor, filter.flags & filter_flags::REVERSED != 0) {
        (0, _) => {}
        (cursor, false) => min = min.max(cursor),
        (cursor, true) if max == 0 => max = cursor,
        (cursor, true) => max = max.min(cursor),
    }
    if max > TIMESTAMP_MAX {
        max = 0;
    }
    let is_some = min <= TIMESTAMP_MAX && (max == 0 || min <= max);
    is_some.then_some((min, max))
}

/// The books' question about all accounts or transfers; `None`: no time is left for an answer.
fn query(filter: &Filter) -> Result<Option<QueryFilter>, Expected> {
    if is_bad(filter) {
        return Err(Expected::error("FILTER "));
    }
    let is_reversed = filter.flags & filter_flags::REVERSED != 0;
    Ok(
        times(filter).map(|(timestamp_min, timestamp_max)| QueryFilter {
            user_data_128: filter.user_data_128,
            user_data_64: filter.user_data_64,
            user_data_32: filter.user_data_32,
            ledger: filter.ledger,
            code: filter.code,
            timestamp_min,
            timestamp_max,
            limit: u32::MAX,
            flags: if is_reversed {
                books_flags::QUERY_REVERSED
            } else {
                0
            },
            ..QueryFilter::default()
        }),
    )
}
