//! Posts and voids: the transfers that resolve a pending one.

use crate::account_flags::CLOSED;
use crate::batch::Batch;
use crate::known::or;
use crate::transfer_flags::{IMPORTED, PENDING, POST_PENDING_TRANSFER, VOID_PENDING_TRANSFER};
use crate::{Books, Hold, Transfer, TransferStatus, refuse};
use TransferStatus::*;

impl Books {
    /// Rows 42 to 58, then the amount moves from pending to posted, or is released.
    pub(crate) fn resolve(&mut self, t: &Transfer, batch: &Batch) -> Result<(), TransferStatus> {
        let p = *self
            .transfers
            .get(&t.pending_id)
            .ok_or(PendingTransferNotFound)?;
        refuse(!p.has(PENDING), PendingTransferNotPending)?;
        check_against(t, &p)?;
        let post = t.has(POST_PENDING_TRANSFER);
        let (debit, credit) = (p.debit_account_id, p.credit_account_id);
        let amount = if is_whole(t) { p.amount } else { t.amount };
        let hold = self.holds[&p.id];
        let is_due = p
            .due()
            .is_some_and(|due| due <= u128::from(batch.event_time));
        refuse(amount > p.amount, ExceedsPendingTransferAmount)?;
        refuse(
            !post && amount < p.amount,
            PendingTransferHasDifferentAmount,
        )?;
        refuse(hold == Hold::Posted, PendingTransferAlreadyPosted)?;
        refuse(hold == Hold::Voided, PendingTransferAlreadyVoided)?;
        refuse(hold == Hold::Expired || is_due, PendingTransferExpired)?;
        self.check_imported(t, &self.accounts[&debit], &self.accounts[&credit])?;
        refuse(
            post && self.accounts[&debit].has(CLOSED),
            DebitAccountAlreadyClosed,
        )?;
        refuse(
            post && self.accounts[&credit].has(CLOSED),
            CreditAccountAlreadyClosed,
        )?;

        self.release(&p);
        if post {
            self.account_mut(debit).debits_posted += amount;
            self.account_mut(credit).credits_posted += amount;
        }
        self.holds
            .insert(p.id, if post { Hold::Posted } else { Hold::Voided });
        self.record(Transfer {
            debit_account_id: debit,
            credit_account_id: credit,
            amount,
            user_data_128: or(t.user_data_128, p.user_data_128),
            user_data_64: or(t.user_data_64, p.user_data_64),
            user_data_32: or(t.user_data_32, p.user_data_32),
            ledger: p.ledger,
            code: p.code,
            timestamp: if t.has(IMPORTED) {
                t.timestamp
            } else {
                batch.event_time
            },
            ..*t
        });
        Ok(())
    }
}

/// Rows 44 to 47: what is not inherited must be the same.
fn check_against(t: &Transfer, p: &Transfer) -> Result<(), TransferStatus> {
    let debit = or(t.debit_account_id, p.debit_account_id);
    let credit = or(t.credit_account_id, p.credit_account_id);
    refuse(
        debit != p.debit_account_id,
        PendingTransferHasDifferentDebitAccountId,
    )?;
    refuse(
        credit != p.credit_account_id,
        PendingTransferHasDifferentCreditAccountId,
    )?;
    refuse(
        or(t.ledger, p.ledger) != p.ledger,
        PendingTransferHasDifferentLedger,
    )?;
    refuse(
        or(t.code, p.code) != p.code,
        PendingTransferHasDifferentCode,
    )
}

/// Whether the amount stands for all of the pending one.
fn is_whole(t: &Transfer) -> bool {
    match t.has(VOID_PENDING_TRANSFER) {
        true => t.amount == 0,
        false => t.amount == u128::MAX,
    }
}
