//! Questions to the books: by id, by account, by what is stored; in pages of bounded work.

use super::history::{Row, RowKind};
use super::holds::HoldStatus;
use super::record::{Account, RECORD_BYTES, Transfer, account_flags};
use super::sums::Sums;
use super::transfers::{Entry, Known};
use super::{BATCH_EVENTS_MAX, Ledger};

/// Bits of a filter's flags.
pub mod filter_flags {
    /// Transfers that debit the account.
    pub const DEBITS: u8 = 1;
    /// Transfers that credit the account.
    pub const CREDITS: u8 = 1 << 1;
    /// The newest first.
    pub const REVERSED: u8 = 1 << 2;
    pub const ALL: u8 = DEBITS | CREDITS | REVERSED;
}

/// Which accounts, transfers or balances; 0 asks for any. All conditions must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Not looked at where accounts, or all transfers, are asked for.
    pub account_id: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub ledger: u32,
    pub code: u16,
    /// Nanoseconds since 1970, both inclusive; a maximum of 0 is none.
    pub timestamp_min: u64,
    pub timestamp_max: u64,
    /// At most so many, 1 to 8189.
    pub limit: u32,
    /// Bits of [`filter_flags`].
    pub flags: u8,
    /// Where the page before ended; 0: from the beginning.
    pub cursor: u64,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter {
            account_id: 0,
            user_data_128: 0,
            user_data_64: 0,
            user_data_32: 0,
            ledger: 0,
            code: 0,
            timestamp_min: 0,
            timestamp_max: 0,
            limit: 100,
            flags: filter_flags::DEBITS | filter_flags::CREDITS,
            cursor: 0,
        }
    }
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    #[error("FILTER the limit is {0}; ask for 1 to {BATCH_EVENTS_MAX}")]
    Limit(u32),
    #[error("FILTER no time lies between the minimum {0} and the maximum {1}; swap them")]
    Times(u64, u64),
    #[error("FILTER neither debits nor credits are asked for; ask for one or both")]
    NoSide,
    #[error("FILTER a flag is set that this server does not know")]
    Flags,
    #[error("ACCOUNT_NOT_FOUND there is no account {0}; check the id")]
    NoAccount(u128),
    #[error(
        "NO_HISTORY account {0} was created without the HISTORY flag, so its balances over time \
         are not kept; ACCOUNT.TRANSFERS lists what it did"
    )]
    NoHistory(u128),
}

/// A part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The cursor to go on from; 0: there is no more.
    pub next: u64,
}

/// Entries that one page looks at: bounds how long everybody else waits for it.
const LOOKS_MAX: usize = 100_000;

impl Filter {
    pub fn check(&self) -> Result<(), FilterError> {
        let limit = self.limit as usize;
        if limit == 0 || limit > BATCH_EVENTS_MAX {
            return Err(FilterError::Limit(self.limit));
        }
        if self.timestamp_max != 0 && self.timestamp_min > self.timestamp_max {
            return Err(FilterError::Times(self.timestamp_min, self.timestamp_max));
        }
        if self.flags & !filter_flags::ALL != 0 {
            return Err(FilterError::Flags);
        }
        if self.flags & (filter_flags::DEBITS | filter_flags::CREDITS) == 0 {
            return Err(FilterError::NoSide);
        }
        Ok(())
    }

    fn is_reversed(&self) -> bool {
        self.flags & filter_flags::REVERSED != 0
    }

    fn latest(&self) -> u64 {
        match self.timestamp_max {
            0 => u64::MAX,
            max => max,
        }
    }

    /// The times that are left where the cursor is one.
    fn times(&self) -> (u64, u64) {
        let (min, max) = (self.timestamp_min, self.latest());
        match (self.cursor, self.is_reversed()) {
            (0, _) => (min, max),
            (cursor, false) => (min.max(cursor), max),
            (cursor, true) => (min, max.min(cursor)),
        }
    }

    fn takes_transfer(&self, transfer: &Transfer) -> bool {
        (self.user_data_128 == 0 || self.user_data_128 == transfer.user_data_128)
            && (self.user_data_64 == 0 || self.user_data_64 == transfer.user_data_64)
            && (self.user_data_32 == 0 || self.user_data_32 == transfer.user_data_32)
            && (self.ledger == 0 || self.ledger == transfer.ledger)
            && (self.code == 0 || self.code == transfer.code)
    }

    fn takes_account(&self, account: &Account) -> bool {
        (self.user_data_128 == 0 || self.user_data_128 == account.user_data_128)
            && (self.user_data_64 == 0 || self.user_data_64 == account.user_data_64)
            && (self.user_data_32 == 0 || self.user_data_32 == account.user_data_32)
            && (self.ledger == 0 || self.ledger == account.ledger)
            && (self.code == 0 || self.code == account.code)
    }

    /// Whether the side of the account in this entry is asked for.
    fn takes_side(&self, entry: &Entry, account: u32) -> bool {
        let side = match entry.debit.account == account {
            true => filter_flags::DEBITS,
            false => filter_flags::CREDITS,
        };
        self.flags & side != 0
    }

    fn has_conditions(&self) -> bool {
        self.user_data_128 != 0
            || self.user_data_64 != 0
            || self.user_data_32 != 0
            || self.ledger != 0
            || self.code != 0
    }
}

impl Ledger {
    pub fn account(&self, id: u128) -> Option<&Account> {
        self.accounts
            .find(id)
            .map(|number| self.accounts.record(number))
    }

    pub fn transfer(&self, id: u128) -> Option<Transfer> {
        match self.transfers.find(id)? {
            Known::Transfer(position) => Some(self.transfers.at(position).record),
            Known::Burned => None,
        }
    }

    /// What became of a pending transfer; `None`: it is none.
    pub fn hold_status(&self, id: u128) -> Option<HoldStatus> {
        let Some(Known::Transfer(position)) = self.transfers.find(id) else {
            return None;
        };
        let entry = self.transfers.at(position);
        let is_hold = entry.record.has(super::record::transfer_flags::PENDING);
        is_hold.then(|| self.holds.at(entry.hold - 1).status)
    }

    /// An account's open holds, oldest first.
    pub fn open_holds_of(&self, id: u128) -> Vec<Transfer> {
        let Some(number) = self.accounts.find(id) else {
            return Vec::new();
        };
        let holds = self.holds.open_of(number);
        holds
            .map(|hold| self.transfers.at(self.holds.at(hold).transfer).record)
            .collect()
    }

    /// The accounts with these ids (16 bytes each), in order; unknown ids are left out.
    pub fn lookup_accounts(&self, ids: &[u8]) -> Vec<u8> {
        let (ids, _) = ids.as_chunks::<16>();
        let mut out = Vec::with_capacity(ids.len() * RECORD_BYTES);
        let found = ids
            .iter()
            .filter_map(|id| self.account(u128::from_le_bytes(*id)));
        found.for_each(|account| out.extend_from_slice(&account.encode()));
        out
    }

    /// The transfers with these ids (16 bytes each), in order; unknown ids are left out.
    pub fn lookup_transfers(&self, ids: &[u8]) -> Vec<u8> {
        let (ids, _) = ids.as_chunks::<16>();
        let mut out = Vec::with_capacity(ids.len() * RECORD_BYTES);
        let found = ids
            .iter()
            .filter_map(|id| self.transfer(u128::from_le_bytes(*id)));
        found.for_each(|transfer| out.extend_from_slice(&transfer.encode()));
        out
    }

    /// Sums of every ledger that has accounts, by number.
    pub fn totals(&self) -> impl Iterator<Item = (u32, &Sums)> {
        self.totals.iter()
    }

    /// The transfers of one account.
    pub fn account_transfers(&self, filter: &Filter) -> Result<Page<Transfer>, FilterError> {
        filter.check()?;
        let account = self.number(filter.account_id)?;
        let (min, max) = filter.times();
        let positions: Box<dyn Iterator<Item = u64>> = match filter.is_reversed() {
            true => Box::new(self.backward(account, max)),
            false => Box::new(self.forward(account, min)),
        };
        let reversed = filter.is_reversed();
        let entries = positions.map(|position| self.transfers.at(position));
        let in_time = entries
            .skip_while(move |entry| match reversed {
                true => entry.record.timestamp > max,
                false => entry.record.timestamp < min,
            })
            .take_while(move |entry| (min..=max).contains(&entry.record.timestamp));
        Ok(page(
            in_time,
            filter.limit,
            |entry| entry.record.timestamp,
            |entry| {
                let wanted =
                    filter.takes_side(&entry, account) && filter.takes_transfer(&entry.record);
                wanted.then_some(entry.record)
            },
        ))
    }

    /// An account's balances after each of its events.
    pub fn account_balances(&self, filter: &Filter) -> Result<Page<Row>, FilterError> {
        filter.check()?;
        let account = self.number(filter.account_id)?;
        if !self.accounts.record(account).has(account_flags::HISTORY) {
            return Err(FilterError::NoHistory(filter.account_id));
        }
        let rows = self.history.rows();
        let all = self.history.of(account);
        let (min, max) = (filter.timestamp_min, filter.latest());
        // What happened is never before its timestamp, so no row of the range is left out.
        let from = min.max(if filter.is_reversed() {
            0
        } else {
            filter.cursor
        });
        let first = all.partition_point(|at| rows.at(*at).happened < from);
        let end = match (filter.cursor, filter.is_reversed()) {
            (0, _) | (_, false) => all.len(),
            (cursor, true) => all.partition_point(|at| rows.at(*at).happened <= cursor),
        };
        let listed = all.get(first..end).unwrap_or_default().iter();
        let positions: Box<dyn Iterator<Item = &u64>> = match filter.is_reversed() {
            true => Box::new(listed.rev()),
            false => Box::new(listed),
        };
        Ok(page(
            positions.map(|at| rows.at(*at)),
            filter.limit,
            |row| row.happened,
            |row| {
                let in_time = (min..=max).contains(&row.timestamp);
                (in_time && self.takes_row(filter, &row)).then_some(row)
            },
        ))
    }

    /// All accounts, in the order of their creation or back.
    pub fn query_accounts(&self, filter: &Filter) -> Result<Page<Account>, FilterError> {
        filter.check()?;
        let (min, max) = filter.times();
        let first = self.accounts.first_from(min);
        let end = match max.checked_add(1) {
            None => self.accounts.len(),
            Some(after) => self.accounts.first_from(after),
        };
        let numbers = range(first, end, filter.is_reversed());
        let records = numbers.map(|at| {
            self.accounts
                .record(u32::try_from(at).expect("an account's number"))
        });
        Ok(page(
            records,
            filter.limit,
            |account| account.timestamp,
            |account| filter.takes_account(account).then_some(*account),
        ))
    }

    /// All transfers, in the order of their creation or back.
    pub fn query_transfers(&self, filter: &Filter) -> Result<Page<Transfer>, FilterError> {
        filter.check()?;
        let (min, max) = filter.times();
        let first = self.transfers.first_from(min);
        let end = match max.checked_add(1) {
            None => self.transfers.len(),
            Some(after) => self.transfers.first_from(after),
        };
        let positions = range(first, end, filter.is_reversed());
        Ok(page(
            positions.map(|position| self.transfers.at(position).record),
            filter.limit,
            |transfer| transfer.timestamp,
            |transfer| filter.takes_transfer(&transfer).then_some(transfer),
        ))
    }

    /// The transfer of a history's row; `None`: the account's opening.
    pub fn transfer_of(&self, row: &Row) -> Option<Transfer> {
        let has_one = row.kind != RowKind::Opening;
        has_one.then(|| self.transfers.at(row.transfer).record)
    }

    fn number(&self, id: u128) -> Result<u32, FilterError> {
        self.accounts.find(id).ok_or(FilterError::NoAccount(id))
    }

    fn takes_row(&self, filter: &Filter, row: &Row) -> bool {
        if row.kind == RowKind::Opening {
            return !filter.has_conditions();
        }
        let entry = self.transfers.at(row.transfer);
        filter.takes_side(&entry, row.account) && filter.takes_transfer(&entry.record)
    }

    /// Positions of an account's entries from `max` on towards the oldest; the first few may be
    /// later.
    fn backward(&self, account: u32, max: u64) -> impl Iterator<Item = u64> {
        let marks = self.transfers.marks(account);
        let later = |position: &u64| self.transfers.at(*position).record.timestamp > max;
        let beyond = marks.partition_point(|position| !later(position));
        let newest = self.accounts.slot(account).last;
        let start = marks.get(beyond).map_or(newest, |position| position + 1);
        self.walk_back(account, start)
    }

    /// Positions of an account's entries from `min` on towards the newest; the first few may be
    /// earlier.
    fn forward(&self, account: u32, min: u64) -> impl Iterator<Item = u64> {
        let marks = self.transfers.marks(account);
        let earlier = |position: &u64| self.transfers.at(*position).record.timestamp < min;
        let begin = marks.partition_point(earlier);
        let newest = self.accounts.slot(account).last.checked_sub(1);
        let unmarked = newest.filter(|newest| marks.last() != Some(newest));
        // Each stretch ends with a mark, the last one with the newest entry.
        (begin..marks.len() + usize::from(unmarked.is_some())).flat_map(move |at| {
            let end = marks.get(at).copied().or(unmarked).unwrap_or_default();
            let before = at.checked_sub(1).map(|at| marks[at]);
            let mut stretch: Vec<u64> = self
                .walk_back(account, end + 1)
                .take_while(|position| Some(*position) != before)
                .collect();
            stretch.reverse();
            stretch
        })
    }

    /// Positions of an account's entries from one (position plus one) to the oldest.
    fn walk_back(&self, account: u32, start: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(start.checked_sub(1), move |position| {
            self.transfers.at(*position).before(account).checked_sub(1)
        })
    }
}

fn range(first: u64, end: u64, is_reversed: bool) -> Box<dyn Iterator<Item = u64>> {
    match is_reversed {
        true => Box::new((first..end).rev()),
        false => Box::new(first..end),
    }
}

/// Takes from `all` what is wanted, until the page is full or has looked at enough.
fn page<I: Copy, T>(
    all: impl Iterator<Item = I>,
    limit: u32,
    time: impl Fn(I) -> u64,
    wanted: impl Fn(I) -> Option<T>,
) -> Page<T> {
    let limit = limit as usize;
    let mut items = Vec::new();
    for (looks, one) in all.enumerate() {
        let found = wanted(one);
        if looks >= LOOKS_MAX || (found.is_some() && items.len() == limit) {
            return Page {
                items,
                next: time(one),
            };
        }
        items.extend(found);
    }
    Page { items, next: 0 }
}
