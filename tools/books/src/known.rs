//! A transfer whose id is known: the same one again, another one, or one that failed for good.

use crate::transfer_flags::{BALANCING_CREDIT, BALANCING_DEBIT, POST_PENDING_TRANSFER};
use crate::{Books, Transfer, TransferStatus, refuse};
use TransferStatus::*;

impl Books {
    /// Rows 11 to 23.
    pub(crate) fn check_known(&self, t: &Transfer) -> Result<(), TransferStatus> {
        let Some(e) = self.transfers.get(&t.id) else {
            return refuse(self.burned.contains(&t.id), IdAlreadyFailed);
        };
        refuse(t.flags != e.flags, ExistsWithDifferentFlags)?;
        refuse(t.pending_id != e.pending_id, ExistsWithDifferentPendingId)?;
        refuse(t.timeout != e.timeout, ExistsWithDifferentTimeout)?;
        if t.is_resolution() {
            same_resolution(t, e, &self.transfers[&e.pending_id])
        } else {
            same_movement(t, e)
        }
    }
}

/// Rows 14 to 22 for what is neither post nor void.
fn same_movement(t: &Transfer, e: &Transfer) -> Result<(), TransferStatus> {
    let same_amount = match t.has(BALANCING_DEBIT | BALANCING_CREDIT) {
        true => t.amount >= e.amount,
        false => t.amount == e.amount,
    };
    refuse(
        t.debit_account_id != e.debit_account_id,
        ExistsWithDifferentDebitAccountId,
    )?;
    refuse(
        t.credit_account_id != e.credit_account_id,
        ExistsWithDifferentCreditAccountId,
    )?;
    refuse(!same_amount, ExistsWithDifferentAmount)?;
    refuse(
        t.user_data_128 != e.user_data_128,
        ExistsWithDifferentUserData128,
    )?;
    refuse(
        t.user_data_64 != e.user_data_64,
        ExistsWithDifferentUserData64,
    )?;
    refuse(
        t.user_data_32 != e.user_data_32,
        ExistsWithDifferentUserData32,
    )?;
    refuse(t.ledger != e.ledger, ExistsWithDifferentLedger)?;
    refuse(t.code != e.code, ExistsWithDifferentCode)?;
    Err(Exists)
}

/// Rows 14 to 22 for the post or void `e` of `p`: what is 0 was taken over from `p`.
fn same_resolution(t: &Transfer, e: &Transfer, p: &Transfer) -> Result<(), TransferStatus> {
    let same_amount = match t.has(POST_PENDING_TRANSFER) {
        true => t.amount == e.amount || t.amount == u128::MAX && e.amount == p.amount,
        false => t.amount == 0 || t.amount == e.amount,
    };
    let debit = or(t.debit_account_id, e.debit_account_id);
    let credit = or(t.credit_account_id, e.credit_account_id);
    let user_data_128 = or(t.user_data_128, p.user_data_128);
    let user_data_64 = or(t.user_data_64, p.user_data_64);
    let user_data_32 = or(t.user_data_32, p.user_data_32);
    refuse(
        debit != e.debit_account_id,
        ExistsWithDifferentDebitAccountId,
    )?;
    refuse(
        credit != e.credit_account_id,
        ExistsWithDifferentCreditAccountId,
    )?;
    refuse(!same_amount, ExistsWithDifferentAmount)?;
    refuse(
        user_data_128 != e.user_data_128,
        ExistsWithDifferentUserData128,
    )?;
    refuse(
        user_data_64 != e.user_data_64,
        ExistsWithDifferentUserData64,
    )?;
    refuse(
        user_data_32 != e.user_data_32,
        ExistsWithDifferentUserData32,
    )?;
    refuse(
        or(t.ledger, e.ledger) != e.ledger,
        ExistsWithDifferentLedger,
    )?;
    refuse(or(t.code, e.code) != e.code, ExistsWithDifferentCode)?;
    Err(Exists)
}

/// The value that was sent, or the inherited one where that is 0.
pub fn or<N: Default + PartialEq>(sent: N, inherited: N) -> N {
    if sent == N::default() {
        inherited
    } else {
        sent
    }
}
