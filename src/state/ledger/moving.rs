//! Transfers that move money or hold it: every test in the model's order, then the deed.

use super::Ledger;
use super::accounts::first;
use super::batch::{Event, GROUP_EVENTS, TIMESTAMP_MAX};
use super::record::{Account, Bytes128, Transfer, timeout_ns, transfer_flags as flag};
use super::status::{EventResult, Outcome, Status, TransferStatus};
use super::transfers::Known;
use TransferStatus as S;

impl Event for Transfer {
    type Status = TransferStatus;
    type Found = Found;
    const LINKED: u16 = flag::LINKED;
    const IMPORTED: u16 = flag::IMPORTED;

    fn decode(bytes: &Bytes128) -> Transfer {
        Transfer::decode(bytes)
    }

    fn flags(&self) -> u16 {
        self.flags
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn look_up(ledger: &Ledger, events: &[Bytes128], found: &mut [Found; GROUP_EVENTS]) {
        ledger.look_up(events.iter(), found);
    }

    fn create(&self, ledger: &mut Ledger, found: &Found, time: u64) -> EventResult<TransferStatus> {
        let created = ledger.create_transfer(self, found, time);
        match created {
            Ok(timestamp) => EventResult {
                timestamp,
                outcome: Outcome::Created,
            },
            Err((S::Exists, timestamp)) => EventResult {
                timestamp,
                outcome: Outcome::Refused(S::Exists),
            },
            Err((status, _)) => EventResult {
                timestamp: time,
                outcome: Outcome::Refused(status),
            },
        }
    }

    fn burn(&self, ledger: &mut Ledger, status: TransferStatus) {
        if status.is_transient() {
            ledger.burn(self.id);
        }
    }
}

/// The timestamp of what was created; else why not, and the timestamp of what exists already.
type Created = Result<u64, (TransferStatus, u64)>;

/// What is known of a transfer before its turn: a batch of transfers makes no accounts.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    /// Hash of the transfer's id.
    pub hash: u64,
    /// Numbers of the accounts that it names.
    pub debit: Option<u32>,
    pub credit: Option<u32>,
}

/// Numbers of the two accounts of a transfer.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    pub debit: u32,
    pub credit: u32,
}

impl Ledger {
    fn create_transfer(&mut self, event: &Transfer, found: &Found, time: u64) -> Created {
        let refuse = |status| Err((status, 0));
        if event.flags & !flag::ALL != 0 {
            return refuse(S::ReservedFlag);
        }
        if event.id == 0 {
            return refuse(S::IdMustNotBeZero);
        }
        if event.id == u128::MAX {
            return refuse(S::IdMustNotBeIntMax);
        }
        match self.transfers.find_hashed(found.hash, event.id) {
            Some(Known::Transfer(position)) => {
                let known = self.transfers.at(position);
                return Err((self.compare(event, &known), known.record.timestamp));
            }
            Some(Known::Burned) => return refuse(S::IdAlreadyFailed),
            None => {}
        }
        let resolves = event.has_any(flag::TWO_PHASE_END);
        let accepted = if resolves {
            self.accept_resolution(event, time)
        } else {
            self.accept_movement(event, found, time)
        };
        match accepted {
            Ok((record, sides, hold)) => {
                self.enter(found.hash, record, sides, hold, time);
                Ok(record.timestamp)
            }
            Err(status) => refuse(status),
        }
    }

    /// Tests a transfer that moves money or holds it; answers the record as it is to be stored.
    fn accept_movement(
        &self,
        event: &Transfer,
        found: &Found,
        time: u64,
    ) -> Result<(Transfer, Sides, Option<u64>), TransferStatus> {
        if let Some(status) = malformed(event) {
            return Err(status);
        }
        let debit = found.debit.ok_or(S::DebitAccountNotFound)?;
        let credit = found.credit.ok_or(S::CreditAccountNotFound)?;
        let (from, to) = (self.accounts.record(debit), self.accounts.record(credit));
        if from.ledger != to.ledger {
            return Err(S::AccountsMustHaveTheSameLedger);
        }
        if event.ledger != from.ledger {
            return Err(S::TransferMustHaveTheSameLedgerAsAccounts);
        }
        let mut record = *event;
        if event.has(flag::IMPORTED) {
            self.accept_import(event, from, to)?;
        } else {
            record.timestamp = time;
        }
        if from.has(super::record::account_flags::CLOSED) {
            return Err(S::DebitAccountAlreadyClosed);
        }
        if to.has(super::record::account_flags::CLOSED) {
            return Err(S::CreditAccountAlreadyClosed);
        }
        record.amount = balanced_amount(event, from, to);
        if let Some(status) = overflows(&record, from, to) {
            return Err(status);
        }
        if from.debits_exceed_credits(record.amount) {
            return Err(S::ExceedsCredits);
        }
        if to.credits_exceed_debits(record.amount) {
            return Err(S::ExceedsDebits);
        }
        Ok((record, Sides { debit, credit }, None))
    }

    /// Tests of an imported transfer's own timestamp, once its accounts are known.
    pub(super) fn accept_import(
        &self,
        event: &Transfer,
        from: &Account,
        to: &Account,
    ) -> Result<(), TransferStatus> {
        let newest = self.transfers.newest();
        let newest = newest.map(|entry| entry.record.timestamp);
        if self.regresses(event.timestamp, newest) {
            return Err(S::ImportedEventTimestampMustNotRegress);
        }
        if event.timestamp <= from.timestamp {
            return Err(S::ImportedEventTimestampMustPostdateDebitAccount);
        }
        if event.timestamp <= to.timestamp {
            return Err(S::ImportedEventTimestampMustPostdateCreditAccount);
        }
        if event.timeout != 0 {
            return Err(S::ImportedEventTimeoutMustBeZero);
        }
        Ok(())
    }
}

/// What is wrong with a movement whatever the books say.
fn malformed(event: &Transfer) -> Option<TransferStatus> {
    let is_hold = event.has(flag::PENDING);
    let tests = [
        (event.debit_account_id == 0, S::DebitAccountIdMustNotBeZero),
        (
            event.debit_account_id == u128::MAX,
            S::DebitAccountIdMustNotBeIntMax,
        ),
        (
            event.credit_account_id == 0,
            S::CreditAccountIdMustNotBeZero,
        ),
        (
            event.credit_account_id == u128::MAX,
            S::CreditAccountIdMustNotBeIntMax,
        ),
        (
            event.debit_account_id == event.credit_account_id,
            S::AccountsMustBeDifferent,
        ),
        (event.pending_id != 0, S::PendingIdMustBeZero),
        (
            !is_hold && event.timeout != 0,
            S::TimeoutReservedForPendingTransfer,
        ),
        (
            !is_hold && event.has_any(flag::CLOSING),
            S::ClosingTransferMustBePending,
        ),
        (event.ledger == 0, S::LedgerMustNotBeZero),
        (event.code == 0, S::CodeMustNotBeZero),
    ];
    first(&tests)
}

/// The amount that a transfer really moves: less than asked for where it is to balance.
fn balanced_amount(event: &Transfer, from: &Account, to: &Account) -> u128 {
    let mut amount = event.amount;
    if event.has(flag::BALANCING_DEBIT) {
        let spent = from.debits_posted + from.debits_pending;
        amount = amount.min(from.credits_posted.saturating_sub(spent));
    }
    if event.has(flag::BALANCING_CREDIT) {
        let received = to.credits_posted + to.credits_pending;
        amount = amount.min(to.debits_posted.saturating_sub(received));
    }
    amount
}

/// Whether a balance, or the time at which a hold ends, would leave its range.
fn overflows(record: &Transfer, from: &Account, to: &Account) -> Option<TransferStatus> {
    let amount = record.amount;
    let over = |balance: u128| balance.checked_add(amount).is_none();
    let is_hold = record.has(flag::PENDING);
    let ends = record.timestamp.saturating_add(timeout_ns(record.timeout));
    let debits = from.debits_pending | from.debits_posted;
    let credits = to.credits_pending | to.credits_posted;
    // Three numbers below 2^126 add up to less than 2^128: that is nearly every transfer.
    if (amount | debits | credits) >> 126 == 0 && ends <= TIMESTAMP_MAX {
        return None;
    }
    let tests = [
        (
            is_hold && over(from.debits_pending),
            S::OverflowsDebitsPending,
        ),
        (
            is_hold && over(to.credits_pending),
            S::OverflowsCreditsPending,
        ),
        (over(from.debits_posted), S::OverflowsDebitsPosted),
        (over(to.credits_posted), S::OverflowsCreditsPosted),
        // The sums of pending and posted never overflow: that is what these two tests keep.
        (
            over(from.debits_pending + from.debits_posted),
            S::OverflowsDebits,
        ),
        (
            over(to.credits_pending + to.credits_posted),
            S::OverflowsCredits,
        ),
        (ends > TIMESTAMP_MAX, S::OverflowsTimeout),
    ];
    first(&tests)
}
