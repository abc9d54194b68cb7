//! What can be asked of the books: by id, by account, by any field, and in sum.

use crate::filter_flags::{
    ACCOUNT_RESERVED, CREDITS, DEBITS, QUERY_RESERVED, QUERY_REVERSED, REVERSED,
};
use crate::{
    Account, AccountBalance, AccountFilter, Books, Hold, QueryFilter, TIMESTAMP_MAX, Transfer,
};
use std::collections::BTreeMap;

/// Rows of one answer, whatever limit was asked for.
pub const ROWS_MAX: usize = 8189;

/// A filter that says nothing sensible; the published model would answer nothing at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFilter;

/// A sum of balances, each of which may be 2^128 - 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// How often `low` has overflowed.
    pub high: u64,
    pub low: u128,
}

impl Sum {
    fn add(&mut self, amount: u128) {
        let (low, carry) = self.low.overflowing_add(amount);
        self.low = low;
        self.high += u64::from(carry);
    }
}

/// One ledger's accounts and the sums of their balances.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub accounts: u64,
    pub debits_pending: Sum,
    pub debits_posted: Sum,
    pub credits_pending: Sum,
    pub credits_posted: Sum,
}

impl Books {
    /// The accounts that exist of these, in the order asked.
    pub fn lookup_accounts(&self, ids: &[u128]) -> Vec<Account> {
        ids.iter()
            .filter_map(|id| self.accounts.get(id))
            .copied()
            .collect()
    }

    /// The transfers that exist of these, in the order asked.
    pub fn lookup_transfers(&self, ids: &[u128]) -> Vec<Transfer> {
        ids.iter()
            .filter_map(|id| self.transfers.get(id))
            .copied()
            .collect()
    }

    /// What became of a pending transfer; `None` where there is no such.
    pub fn hold(&self, id: u128) -> Option<Hold> {
        self.holds.get(&id).copied()
    }

    /// Every account, in the order of ids.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// Every transfer, in the order of ids.
    pub fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.transfers.values()
    }

    /// The ids of transfers that failed for good, in order.
    pub fn burned(&self) -> impl Iterator<Item = u128> {
        self.burned.iter().copied()
    }

    /// Transfers that touch an account, in the order of time.
    pub fn account_transfers(&self, filter: &AccountFilter) -> Result<Vec<Transfer>, BadFilter> {
        check_account_filter(filter)?;
        let matching = self.transfers.values().filter(|t| touches(t, filter));
        let rows = matching.copied().collect();
        Ok(in_order(
            rows,
            |t| t.timestamp,
            filter.flags & REVERSED != 0,
            filter.limit,
        ))
    }

    /// Balances of an account with `history` right after the transfer of this time.
    pub fn balance_after(&self, account: u128, timestamp: u64) -> Option<AccountBalance> {
        self.history.get(&(account, timestamp)).copied()
    }

    /// Balances of an account with `history` after each of these transfers, in the order of time.
    pub fn account_balances(
        &self,
        filter: &AccountFilter,
    ) -> Result<Vec<AccountBalance>, BadFilter> {
        check_account_filter(filter)?;
        let matching = self.transfers.values().filter(|t| touches(t, filter));
        let row = |t: &Transfer| self.history.get(&(filter.account_id, t.timestamp)).copied();
        let rows = matching.filter_map(row).collect();
        Ok(in_order(
            rows,
            |b| b.timestamp,
            filter.flags & REVERSED != 0,
            filter.limit,
        ))
    }

    /// Accounts by any of their fields, in the order of time.
    pub fn query_accounts(&self, filter: &QueryFilter) -> Result<Vec<Account>, BadFilter> {
        check_query_filter(filter)?;
        let matching = self.accounts.values().filter(|a| {
            is_or_any(filter.user_data_128, a.user_data_128)
                && is_or_any(filter.user_data_64, a.user_data_64)
                && is_or_any(filter.user_data_32, a.user_data_32)
                && is_or_any(filter.ledger, a.ledger)
                && is_or_any(filter.code, a.code)
                && is_between(a.timestamp, filter.timestamp_min, filter.timestamp_max)
        });
        let rows = matching.copied().collect();
        Ok(in_order(
            rows,
            |a| a.timestamp,
            filter.flags & QUERY_REVERSED != 0,
            filter.limit,
        ))
    }

    /// Transfers by any of their fields, in the order of time.
    pub fn query_transfers(&self, filter: &QueryFilter) -> Result<Vec<Transfer>, BadFilter> {
        check_query_filter(filter)?;
        let matching = self.transfers.values().filter(|t| {
            is_or_any(filter.user_data_128, t.user_data_128)
                && is_or_any(filter.user_data_64, t.user_data_64)
                && is_or_any(filter.user_data_32, t.user_data_32)
                && is_or_any(filter.ledger, t.ledger)
                && is_or_any(filter.code, t.code)
                && is_between(t.timestamp, filter.timestamp_min, filter.timestamp_max)
        });
        let rows = matching.copied().collect();
        Ok(in_order(
            rows,
            |t| t.timestamp,
            filter.flags & QUERY_REVERSED != 0,
            filter.limit,
        ))
    }

    /// Sums of all balances by ledger. In each, debits equal credits, pending and posted.
    pub fn totals(&self) -> BTreeMap<u32, Totals> {
        let mut totals: BTreeMap<u32, Totals> = BTreeMap::new();
        for account in self.accounts.values() {
            let ledger = totals.entry(account.ledger).or_default();
            ledger.accounts += 1;
            ledger.debits_pending.add(account.debits_pending);
            ledger.debits_posted.add(account.debits_posted);
            ledger.credits_pending.add(account.credits_pending);
            ledger.credits_posted.add(account.credits_posted);
        }
        totals
    }
}

fn touches(t: &Transfer, filter: &AccountFilter) -> bool {
    let as_debit = filter.flags & DEBITS != 0 && t.debit_account_id == filter.account_id;
    let as_credit = filter.flags & CREDITS != 0 && t.credit_account_id == filter.account_id;
    (as_debit || as_credit)
        && is_or_any(filter.user_data_128, t.user_data_128)
        && is_or_any(filter.user_data_64, t.user_data_64)
        && is_or_any(filter.user_data_32, t.user_data_32)
        && is_or_any(filter.code, t.code)
        && is_between(t.timestamp, filter.timestamp_min, filter.timestamp_max)
}

fn check_account_filter(filter: &AccountFilter) -> Result<(), BadFilter> {
    let is_bad = filter.account_id == 0
        || filter.account_id == u128::MAX
        || filter.limit == 0
        || filter.flags & (DEBITS | CREDITS) == 0
        || filter.flags & ACCOUNT_RESERVED != 0
        || filter.reserved != [0; 58]
        || is_bad_time(filter.timestamp_min, filter.timestamp_max);
    if is_bad { Err(BadFilter) } else { Ok(()) }
}

fn check_query_filter(filter: &QueryFilter) -> Result<(), BadFilter> {
    let is_bad = filter.limit == 0
        || filter.flags & QUERY_RESERVED != 0
        || filter.reserved != [0; 6]
        || is_bad_time(filter.timestamp_min, filter.timestamp_max);
    if is_bad { Err(BadFilter) } else { Ok(()) }
}

fn is_bad_time(min: u64, max: u64) -> bool {
    min > TIMESTAMP_MAX || max > TIMESTAMP_MAX || (max != 0 && min > max)
}

fn is_or_any<N: Default + PartialEq>(asked: N, value: N) -> bool {
    asked == N::default() || asked == value
}

fn is_between(timestamp: u64, min: u64, max: u64) -> bool {
    timestamp >= min && (max == 0 || timestamp <= max)
}

fn in_order<R>(mut rows: Vec<R>, time: fn(&R) -> u64, reversed: bool, limit: u32) -> Vec<R> {
    rows.sort_by_key(time);
    if reversed {
        rows.reverse();
    }
    rows.truncate(ROWS_MAX.min(limit as usize));
    rows
}
