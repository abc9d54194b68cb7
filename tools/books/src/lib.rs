//! The ledger as it is described, not as it is built: slow, plain, and easy to hold against the
//! published data model line by line. It is the oracle for the ledger that is built to be fast.
//!
//! It was written from the description alone and shares no line with the production ledger; where
//! the two differ, one of them has misread it. Nothing here is clever: maps in order, one line for
//! each check in the order of precedence, a chain is undone by going back to a copy of everything.
//!
//! Where the description leaves a choice, or is improved upon, this is what holds here:
//!
//! - Event i of a batch is validated at the record's log time + i ns. A refused event is answered
//!   that time, whatever its own timestamp says; `created` and `exists` are answered the object's.
//! - An open last event of a chain that is broken already is told `linked_event_chain_open`.
//! - A create of a known account is compared with the flags that the account was *created* with, so
//!   that the original create is answered `exists` also after the account was closed or reopened.
//! - Flags are stored and compared as they were sent, `linked` and `imported` included.
//! - An imported timestamp must be below the record's log time. Whether a hold is due is decided
//!   by the validation time also where the event is imported.
//! - A bad filter is an error, not an empty answer.
//! - Balance history has a row for each transfer that touches an account with `history`, with its
//!   balances right after. Rows at the opening of an account or at an expiry are not modelled.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod accounts;
mod batch;
mod draw;
mod known;
mod reading;
mod record;
mod resolution;
mod status;
mod transfers;

pub use draw::Draw;
pub use reading::{BadFilter, ROWS_MAX, Sum, Totals};
pub use record::{
    Account, AccountBalance, AccountFilter, Outcome, QueryFilter, Transfer, account_flags,
    filter_flags, transfer_flags,
};
pub use status::{AccountStatus, TransferStatus};

use std::collections::{BTreeMap, BTreeSet};

/// The last timestamp there is: 2^63 - 1 ns since 1970.
pub const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

/// What became of a pending transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    Pending,
    Posted,
    Voided,
    Expired,
}

/// Every account, transfer and id that failed for good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Books {
    accounts: BTreeMap<u128, Account>,
    /// What each account was created with: `closed` comes and goes afterwards.
    first_flags: BTreeMap<u128, u16>,
    transfers: BTreeMap<u128, Transfer>,
    /// Of each transfer with the flag `pending`, by its id.
    holds: BTreeMap<u128, Hold>,
    /// Ids of transfers that were refused for a reason that may pass: they stay refused.
    burned: BTreeSet<u128>,
    /// By account and time of the transfer.
    history: BTreeMap<(u128, u64), AccountBalance>,
}

impl Books {
    pub fn new() -> Books {
        Books::default()
    }

    /// One batch at the record's log time; one outcome for each event, in order.
    pub fn create_accounts(&mut self, time: u64, events: &[Account]) -> Vec<Outcome> {
        batch::create(self, time, events)
    }

    /// One batch at the record's log time; one outcome for each event, in order.
    pub fn create_transfers(&mut self, time: u64, events: &[Transfer]) -> Vec<Outcome> {
        batch::create(self, time, events)
    }

    /// Expires every hold that is due; answers how many there were.
    pub fn pulse(&mut self, now: u64) -> usize {
        self.pulse_up_to(now, usize::MAX)
    }

    /// Expires the holds that are due first, and of equals the oldest, but no more than `max`.
    pub fn pulse_up_to(&mut self, now: u64, max: usize) -> usize {
        let due = self.due(now, max);
        for id in &due {
            self.expire(*id);
        }
        due.len()
    }

    /// The pending holds that are due first, and of equals the oldest, but no more than `max`.
    pub fn due(&self, now: u64, max: usize) -> Vec<u128> {
        let pending = self
            .holds
            .iter()
            .filter(|(_, hold)| **hold == Hold::Pending);
        let holds = pending.map(|(id, _)| &self.transfers[id]);
        let mut due: Vec<(u128, u64, u128)> = holds
            .filter_map(|hold| Some((hold.due()?, hold.timestamp, hold.id)))
            .filter(|(due, ..)| *due <= u128::from(now))
            .collect();
        due.sort_unstable();
        due.truncate(max);
        due.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Ends a pending hold by itself.
    pub fn expire(&mut self, id: u128) {
        let hold = self.transfers[&id];
        self.release(&hold);
        self.holds.insert(id, Hold::Expired);
    }

    /// Goes back to how the books were, but ids that were burned since stay so: their senders are
    /// told that they failed.
    pub fn go_back(&mut self, before: Books) {
        let burned = std::mem::take(&mut self.burned);
        *self = before;
        self.burned = burned;
    }

    /// Takes a hold's amount out of the pending balances, and reopens what it has closed.
    fn release(&mut self, hold: &Transfer) {
        let debit = self.account_mut(hold.debit_account_id);
        debit.debits_pending -= hold.amount;
        if hold.has(transfer_flags::CLOSING_DEBIT) {
            debit.flags &= !account_flags::CLOSED;
        }
        let credit = self.account_mut(hold.credit_account_id);
        credit.credits_pending -= hold.amount;
        if hold.has(transfer_flags::CLOSING_CREDIT) {
            credit.flags &= !account_flags::CLOSED;
        }
    }

    fn account_mut(&mut self, id: u128) -> &mut Account {
        self.accounts
            .get_mut(&id)
            .expect("a stored transfer's accounts exist, accounts are never deleted")
    }

    /// Stores a transfer whose balances have moved, with the history it makes.
    fn record(&mut self, transfer: Transfer) {
        for id in [transfer.debit_account_id, transfer.credit_account_id] {
            let account = &self.accounts[&id];
            if account.has(account_flags::HISTORY) {
                let balance = AccountBalance::of(account, transfer.timestamp);
                self.history.insert((id, transfer.timestamp), balance);
            }
        }
        self.transfers.insert(transfer.id, transfer);
    }
}

/// One check of the tables: the status, when it applies.
fn refuse<S>(applies: bool, status: S) -> Result<(), S> {
    if applies { Err(status) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
