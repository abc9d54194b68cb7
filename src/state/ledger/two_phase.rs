//! Posting and voiding of holds, and what a repeated event must have in common with the first.

use super::Ledger;
use super::accounts::first;
use super::holds::HoldStatus;
use super::moving::Sides;
use super::record::{Transfer, account_flags, transfer_flags as flag};
use super::status::TransferStatus;
use super::transfers::{Entry, Known};
use TransferStatus as S;

impl Ledger {
    /// Tests a post or a void; answers the record as it is to be stored, and the hold's number.
    pub(super) fn accept_resolution(
        &self,
        event: &Transfer,
        time: u64,
    ) -> Result<(Transfer, Sides, Option<u64>), TransferStatus> {
        if let Some(status) = malformed(event) {
            return Err(status);
        }
        let Some(Known::Transfer(position)) = self.transfers.find(event.pending_id) else {
            return Err(S::PendingTransferNotFound);
        };
        let entry = self.transfers.at(position);
        let held = &entry.record;
        if !held.has(flag::PENDING) {
            return Err(S::PendingTransferNotPending);
        }
        let amount = amount(event, held);
        if let Some(status) = differs(event, held, amount) {
            return Err(status);
        }
        let hold = entry.hold - 1;
        match self.holds.at(hold).status {
            HoldStatus::Open => {}
            HoldStatus::Posted => return Err(S::PendingTransferAlreadyPosted),
            HoldStatus::Voided => return Err(S::PendingTransferAlreadyVoided),
            HoldStatus::Expired => return Err(S::PendingTransferExpired),
        }
        // Due is expired, whether a Tick has swept it or not.
        if held.expires_at().is_some_and(|at| at <= time) {
            return Err(S::PendingTransferExpired);
        }
        let from = self.accounts.record(entry.debit.account);
        let to = self.accounts.record(entry.credit.account);
        if event.has(flag::IMPORTED) {
            self.accept_import(event, from, to)?;
        }
        if !event.has(flag::VOID) {
            if from.has(account_flags::CLOSED) {
                return Err(S::DebitAccountAlreadyClosed);
            }
            if to.has(account_flags::CLOSED) {
                return Err(S::CreditAccountAlreadyClosed);
            }
        }
        let sides = Sides {
            debit: entry.debit.account,
            credit: entry.credit.account,
        };
        Ok((inherit(event, held, amount, time), sides, Some(hold)))
    }

    /// How an event differs from the transfer that has its id.
    pub(super) fn compare(&self, event: &Transfer, entry: &Entry) -> TransferStatus {
        let known = &entry.record;
        let held = entry.hold.checked_sub(1).map(|hold| {
            let position = self.holds.at(hold).transfer;
            self.transfers.at(position).record
        });
        // Where the event inherits, 0 is the hold's value.
        let resolved = held.filter(|_| known.has_any(flag::TWO_PHASE_END));
        let inherits = event.has_any(flag::TWO_PHASE_END);
        let other = |sent: u128, stored: u128| sent != stored && !(inherits && sent == 0);
        let other_data = |sent: u128, stored: u128, held: Option<u128>| match held {
            Some(held) if sent == 0 => stored != held,
            _ => sent != stored,
        };
        let data_128 = resolved.map(|held| held.user_data_128);
        let data_64 = resolved.map(|held| held.user_data_64.into());
        let data_32 = resolved.map(|held| held.user_data_32.into());
        let tests = [
            (event.flags != known.flags, S::ExistsWithDifferentFlags),
            (
                event.pending_id != known.pending_id,
                S::ExistsWithDifferentPendingId,
            ),
            (
                event.timeout != known.timeout,
                S::ExistsWithDifferentTimeout,
            ),
            (
                other(event.debit_account_id, known.debit_account_id),
                S::ExistsWithDifferentDebitAccountId,
            ),
            (
                other(event.credit_account_id, known.credit_account_id),
                S::ExistsWithDifferentCreditAccountId,
            ),
            (
                other_amount(event, known, resolved.as_ref()),
                S::ExistsWithDifferentAmount,
            ),
            (
                other_data(event.user_data_128, known.user_data_128, data_128),
                S::ExistsWithDifferentUserData128,
            ),
            (
                other_data(
                    event.user_data_64.into(),
                    known.user_data_64.into(),
                    data_64,
                ),
                S::ExistsWithDifferentUserData64,
            ),
            (
                other_data(
                    event.user_data_32.into(),
                    known.user_data_32.into(),
                    data_32,
                ),
                S::ExistsWithDifferentUserData32,
            ),
            (
                other(event.ledger.into(), known.ledger.into()),
                S::ExistsWithDifferentLedger,
            ),
            (
                other(event.code.into(), known.code.into()),
                S::ExistsWithDifferentCode,
            ),
        ];
        first(&tests).unwrap_or(S::Exists)
    }
}

/// What is wrong with a post or void whatever the books say.
fn malformed(event: &Transfer) -> Option<TransferStatus> {
    let excluded = flag::PENDING | flag::BALANCING | flag::CLOSING;
    let is_exclusive = event.has(flag::TWO_PHASE_END) || event.has_any(excluded);
    let tests = [
        (is_exclusive, S::FlagsAreMutuallyExclusive),
        (event.pending_id == 0, S::PendingIdMustNotBeZero),
        (event.pending_id == u128::MAX, S::PendingIdMustNotBeIntMax),
        (event.pending_id == event.id, S::PendingIdMustBeDifferent),
        (event.timeout != 0, S::TimeoutReservedForPendingTransfer),
    ];
    first(&tests)
}

/// What a post or void moves out of what is held.
fn amount(event: &Transfer, held: &Transfer) -> u128 {
    let means_all = match event.has(flag::VOID) {
        true => event.amount == 0,
        false => event.amount == u128::MAX,
    };
    if means_all { held.amount } else { event.amount }
}

/// How a post or void contradicts its hold.
fn differs(event: &Transfer, held: &Transfer, amount: u128) -> Option<TransferStatus> {
    let other = |sent: u128, stored: u128| sent != 0 && sent != stored;
    let tests = [
        (
            other(event.debit_account_id, held.debit_account_id),
            S::PendingTransferHasDifferentDebitAccountId,
        ),
        (
            other(event.credit_account_id, held.credit_account_id),
            S::PendingTransferHasDifferentCreditAccountId,
        ),
        (
            other(event.ledger.into(), held.ledger.into()),
            S::PendingTransferHasDifferentLedger,
        ),
        (
            other(event.code.into(), held.code.into()),
            S::PendingTransferHasDifferentCode,
        ),
        (amount > held.amount, S::ExceedsPendingTransferAmount),
        (
            event.has(flag::VOID) && amount < held.amount,
            S::PendingTransferHasDifferentAmount,
        ),
    ];
    first(&tests)
}

/// A post or void with what it takes over from its hold.
fn inherit(event: &Transfer, held: &Transfer, amount: u128, time: u64) -> Transfer {
    let or = |sent: u128, stored: u128| if sent == 0 { stored } else { sent };
    let is_imported = event.has(flag::IMPORTED);
    Transfer {
        debit_account_id: held.debit_account_id,
        credit_account_id: held.credit_account_id,
        amount,
        user_data_128: or(event.user_data_128, held.user_data_128),
        user_data_64: if event.user_data_64 == 0 {
            held.user_data_64
        } else {
            event.user_data_64
        },
        user_data_32: if event.user_data_32 == 0 {
            held.user_data_32
        } else {
            event.user_data_32
        },
        ledger: held.ledger,
        code: held.code,
        timestamp: if is_imported { event.timestamp } else { time },
        ..*event
    }
}

/// Whether the amount of a repeated event is not the first one's.
fn other_amount(event: &Transfer, known: &Transfer, resolved: Option<&Transfer>) -> bool {
    let Some(held) = resolved else {
        return match event.has_any(flag::BALANCING) {
            // What was stored is what it came to.
            true => event.amount < known.amount,
            false => event.amount != known.amount,
        };
    };
    let means_all = amount(event, held) == held.amount && event.amount != held.amount;
    if means_all {
        known.amount != held.amount
    } else {
        event.amount != known.amount
    }
}
