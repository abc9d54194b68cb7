//! `create_accounts`: the table of statuses, row by row.

use crate::account_flags::{
    CREDITS_MUST_NOT_EXCEED_DEBITS, DEBITS_MUST_NOT_EXCEED_CREDITS, IMPORTED, RESERVED,
};
use crate::batch::Batch;
use crate::{Account, AccountStatus, Books, TIMESTAMP_MAX, refuse};

impl Books {
    pub(crate) fn create_account(
        &mut self,
        a: &Account,
        batch: &Batch,
    ) -> Result<(), AccountStatus> {
        check_timestamp(a, batch)?;
        self.check_identity(a)?;
        self.check_content(a)?;
        let timestamp = if a.has(IMPORTED) {
            a.timestamp
        } else {
            batch.event_time
        };
        self.accounts.insert(a.id, Account { timestamp, ..*a });
        self.first_flags.insert(a.id, a.flags);
        Ok(())
    }

    /// Rows 8 to 18.
    fn check_identity(&self, a: &Account) -> Result<(), AccountStatus> {
        use AccountStatus::*;
        refuse(a.reserved != 0, ReservedField)?;
        refuse(a.flags & RESERVED != 0, ReservedFlag)?;
        refuse(a.id == 0, IdMustNotBeZero)?;
        refuse(a.id == u128::MAX, IdMustNotBeIntMax)?;
        let Some(e) = self.accounts.get(&a.id) else {
            return Ok(());
        };
        refuse(a.flags != self.first_flags[&a.id], ExistsWithDifferentFlags)?;
        refuse(
            a.user_data_128 != e.user_data_128,
            ExistsWithDifferentUserData128,
        )?;
        refuse(
            a.user_data_64 != e.user_data_64,
            ExistsWithDifferentUserData64,
        )?;
        refuse(
            a.user_data_32 != e.user_data_32,
            ExistsWithDifferentUserData32,
        )?;
        refuse(a.ledger != e.ledger, ExistsWithDifferentLedger)?;
        refuse(a.code != e.code, ExistsWithDifferentCode)?;
        Err(Exists)
    }

    /// Rows 19 to 26.
    fn check_content(&self, a: &Account) -> Result<(), AccountStatus> {
        use AccountStatus::*;
        let both = a.has(DEBITS_MUST_NOT_EXCEED_CREDITS) && a.has(CREDITS_MUST_NOT_EXCEED_DEBITS);
        refuse(both, FlagsAreMutuallyExclusive)?;
        refuse(a.debits_pending != 0, DebitsPendingMustBeZero)?;
        refuse(a.debits_posted != 0, DebitsPostedMustBeZero)?;
        refuse(a.credits_pending != 0, CreditsPendingMustBeZero)?;
        refuse(a.credits_posted != 0, CreditsPostedMustBeZero)?;
        refuse(a.ledger == 0, LedgerMustNotBeZero)?;
        refuse(a.code == 0, CodeMustNotBeZero)?;
        let mut accounts = self.accounts.values();
        let regresses = accounts.any(|other| a.timestamp <= other.timestamp)
            || self
                .transfers
                .values()
                .any(|transfer| a.timestamp == transfer.timestamp);
        refuse(
            a.has(IMPORTED) && regresses,
            ImportedEventTimestampMustNotRegress,
        )
    }
}

/// Rows 3 to 7.
fn check_timestamp(a: &Account, batch: &Batch) -> Result<(), AccountStatus> {
    use AccountStatus::*;
    let in_range = (1..=TIMESTAMP_MAX).contains(&a.timestamp);
    let advances = a.timestamp >= batch.time;
    refuse(batch.is_imported && !a.has(IMPORTED), ImportedEventExpected)?;
    refuse(
        !batch.is_imported && a.has(IMPORTED),
        ImportedEventNotExpected,
    )?;
    refuse(!a.has(IMPORTED) && a.timestamp != 0, TimestampMustBeZero)?;
    refuse(
        a.has(IMPORTED) && !in_range,
        ImportedEventTimestampOutOfRange,
    )?;
    refuse(
        a.has(IMPORTED) && advances,
        ImportedEventTimestampMustNotAdvance,
    )
}
