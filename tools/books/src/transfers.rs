//! `create_transfers`: the table of statuses, row by row, and what a single-phase or pending
//! transfer moves. Posts and voids are in `resolution`.

use crate::account_flags::{
    CLOSED, CREDITS_MUST_NOT_EXCEED_DEBITS, DEBITS_MUST_NOT_EXCEED_CREDITS,
};
use crate::batch::Batch;
use crate::transfer_flags::{
    BALANCING_CREDIT, BALANCING_DEBIT, CLOSING_CREDIT, CLOSING_DEBIT, IMPORTED, PENDING,
    POST_PENDING_TRANSFER, RESERVED, VOID_PENDING_TRANSFER,
};
use crate::{Account, Books, Hold, TIMESTAMP_MAX, Transfer, TransferStatus, refuse};
use TransferStatus::*;

impl Books {
    pub(crate) fn create_transfer(
        &mut self,
        t: &Transfer,
        batch: &Batch,
    ) -> Result<(), TransferStatus> {
        check_timestamp(t, batch)?;
        refuse(t.flags & RESERVED != 0, ReservedFlag)?;
        refuse(t.id == 0, IdMustNotBeZero)?;
        refuse(t.id == u128::MAX, IdMustNotBeIntMax)?;
        self.check_known(t)?;
        check_fields(t)?;
        let moved = if t.is_resolution() {
            self.resolve(t, batch)
        } else {
            self.check_movement(t, batch)
                .map(|real| self.move_amount(real))
        };
        if let Err(status) = moved
            && status.is_transient()
        {
            self.burned.insert(t.id);
        }
        moved
    }

    /// Rows 38 to 67; answers the transfer as it is to be stored, with the real amount.
    fn check_movement(&self, t: &Transfer, batch: &Batch) -> Result<Transfer, TransferStatus> {
        let debit = self
            .accounts
            .get(&t.debit_account_id)
            .ok_or(DebitAccountNotFound)?;
        let credit = self
            .accounts
            .get(&t.credit_account_id)
            .ok_or(CreditAccountNotFound)?;
        refuse(debit.ledger != credit.ledger, AccountsMustHaveTheSameLedger)?;
        refuse(
            t.ledger != debit.ledger,
            TransferMustHaveTheSameLedgerAsAccounts,
        )?;
        self.check_imported(t, debit, credit)?;
        refuse(debit.has(CLOSED), DebitAccountAlreadyClosed)?;
        refuse(credit.has(CLOSED), CreditAccountAlreadyClosed)?;
        let timestamp = if t.has(IMPORTED) {
            t.timestamp
        } else {
            batch.event_time
        };
        let real = Transfer {
            amount: real_amount(t, debit, credit),
            timestamp,
            ..*t
        };
        check_overflow(&real, debit, credit)?;
        check_limits(&real, debit, credit)?;
        Ok(real)
    }

    /// Rows 53 to 56.
    pub(crate) fn check_imported(
        &self,
        t: &Transfer,
        debit: &Account,
        credit: &Account,
    ) -> Result<(), TransferStatus> {
        if !t.has(IMPORTED) {
            return Ok(());
        }
        let mut transfers = self.transfers.values();
        let regresses = transfers.any(|other| t.timestamp <= other.timestamp)
            || self
                .accounts
                .values()
                .any(|account| t.timestamp == account.timestamp);
        refuse(regresses, ImportedEventTimestampMustNotRegress)?;
        refuse(
            t.timestamp <= debit.timestamp,
            ImportedEventTimestampMustPostdateDebitAccount,
        )?;
        refuse(
            t.timestamp <= credit.timestamp,
            ImportedEventTimestampMustPostdateCreditAccount,
        )?;
        refuse(t.timeout != 0, ImportedEventTimeoutMustBeZero)
    }

    fn move_amount(&mut self, t: Transfer) {
        let debit = self.account_mut(t.debit_account_id);
        match t.has(PENDING) {
            true => debit.debits_pending += t.amount,
            false => debit.debits_posted += t.amount,
        }
        if t.has(CLOSING_DEBIT) {
            debit.flags |= CLOSED;
        }
        let credit = self.account_mut(t.credit_account_id);
        match t.has(PENDING) {
            true => credit.credits_pending += t.amount,
            false => credit.credits_posted += t.amount,
        }
        if t.has(CLOSING_CREDIT) {
            credit.flags |= CLOSED;
        }
        if t.has(PENDING) {
            self.holds.insert(t.id, Hold::Pending);
        }
        self.record(t);
    }
}

/// Rows 3 to 7.
fn check_timestamp(t: &Transfer, batch: &Batch) -> Result<(), TransferStatus> {
    let in_range = (1..=TIMESTAMP_MAX).contains(&t.timestamp);
    let advances = t.timestamp >= batch.time;
    refuse(batch.is_imported && !t.has(IMPORTED), ImportedEventExpected)?;
    refuse(
        !batch.is_imported && t.has(IMPORTED),
        ImportedEventNotExpected,
    )?;
    refuse(!t.has(IMPORTED) && t.timestamp != 0, TimestampMustBeZero)?;
    refuse(
        t.has(IMPORTED) && !in_range,
        ImportedEventTimestampOutOfRange,
    )?;
    refuse(
        t.has(IMPORTED) && advances,
        ImportedEventTimestampMustNotAdvance,
    )
}

/// Rows 24 to 37.
fn check_fields(t: &Transfer) -> Result<(), TransferStatus> {
    let movement = !t.is_resolution();
    let closing = t.has(CLOSING_DEBIT | CLOSING_CREDIT);
    let (debit, credit) = (t.debit_account_id, t.credit_account_id);
    refuse(excludes_itself(t), FlagsAreMutuallyExclusive)?;
    refuse(movement && debit == 0, DebitAccountIdMustNotBeZero)?;
    refuse(
        movement && debit == u128::MAX,
        DebitAccountIdMustNotBeIntMax,
    )?;
    refuse(movement && credit == 0, CreditAccountIdMustNotBeZero)?;
    refuse(
        movement && credit == u128::MAX,
        CreditAccountIdMustNotBeIntMax,
    )?;
    refuse(movement && debit == credit, AccountsMustBeDifferent)?;
    refuse(movement && t.pending_id != 0, PendingIdMustBeZero)?;
    refuse(!movement && t.pending_id == 0, PendingIdMustNotBeZero)?;
    refuse(
        !movement && t.pending_id == u128::MAX,
        PendingIdMustNotBeIntMax,
    )?;
    refuse(!movement && t.pending_id == t.id, PendingIdMustBeDifferent)?;
    refuse(
        t.timeout != 0 && !t.has(PENDING),
        TimeoutReservedForPendingTransfer,
    )?;
    refuse(
        movement && closing && !t.has(PENDING),
        ClosingTransferMustBePending,
    )?;
    refuse(movement && t.ledger == 0, LedgerMustNotBeZero)?;
    refuse(movement && t.code == 0, CodeMustNotBeZero)
}

fn excludes_itself(t: &Transfer) -> bool {
    let (post, void) = (t.has(POST_PENDING_TRANSFER), t.has(VOID_PENDING_TRANSFER));
    let balancing = t.has(BALANCING_DEBIT | BALANCING_CREDIT);
    let closing = t.has(CLOSING_DEBIT | CLOSING_CREDIT);
    post && void || (post || void) && (t.has(PENDING) || balancing || closing)
}

/// The amount of a balancing transfer is cut to what the account's other side leaves.
fn real_amount(t: &Transfer, debit: &Account, credit: &Account) -> u128 {
    let debits = debit.debits_posted + debit.debits_pending;
    let credits = credit.credits_posted + credit.credits_pending;
    let mut amount = t.amount;
    if t.has(BALANCING_DEBIT) {
        amount = amount.min(debit.credits_posted.saturating_sub(debits));
    }
    if t.has(BALANCING_CREDIT) {
        amount = amount.min(credit.debits_posted.saturating_sub(credits));
    }
    amount
}

/// Rows 59 to 65.
fn check_overflow(t: &Transfer, debit: &Account, credit: &Account) -> Result<(), TransferStatus> {
    let over = |balance: u128| balance.checked_add(t.amount).is_none();
    let pending = t.has(PENDING);
    let debits = debit.debits_pending + debit.debits_posted;
    let credits = credit.credits_pending + credit.credits_posted;
    let too_late = t.due().is_some_and(|due| due > u128::from(TIMESTAMP_MAX));
    refuse(
        pending && over(debit.debits_pending),
        OverflowsDebitsPending,
    )?;
    refuse(
        pending && over(credit.credits_pending),
        OverflowsCreditsPending,
    )?;
    refuse(over(debit.debits_posted), OverflowsDebitsPosted)?;
    refuse(over(credit.credits_posted), OverflowsCreditsPosted)?;
    refuse(over(debits), OverflowsDebits)?;
    refuse(over(credits), OverflowsCredits)?;
    refuse(too_late, OverflowsTimeout)
}

/// Rows 66 and 67; the sums have been found not to overflow.
fn check_limits(t: &Transfer, debit: &Account, credit: &Account) -> Result<(), TransferStatus> {
    let debits = debit.debits_pending + debit.debits_posted + t.amount;
    let credits = credit.credits_pending + credit.credits_posted + t.amount;
    let debit_is_limited = debit.has(DEBITS_MUST_NOT_EXCEED_CREDITS);
    let credit_is_limited = credit.has(CREDITS_MUST_NOT_EXCEED_DEBITS);
    refuse(
        debit_is_limited && debits > debit.credits_posted,
        ExceedsCredits,
    )?;
    refuse(
        credit_is_limited && credits > credit.debits_posted,
        ExceedsDebits,
    )
}
