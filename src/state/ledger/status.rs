//! What becomes of an event: the result codes of TigerBeetle's published data model, by number and
//! name, each with a sentence for people.
//!
//! The order in which they are tested is that of the functions in `accounts.rs`, `moving.rs` and
//! `two_phase.rs`, not that of the numbers.

/// The status of an event that took place.
pub const CREATED: u32 = u32::MAX;

/// Bytes of one result of a batch: timestamp u64, status u32, reserved u32 (0); little-endian.
pub const RESULT_BYTES: usize = 16;

/// What a batch's event came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventResult<S> {
    /// Of what was created or existed already; else of the test. Nanoseconds since 1970.
    pub timestamp: u64,
    pub outcome: Outcome<S>,
}

/// Whether an event took place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<S> {
    Created,
    Refused(S),
}

/// What both lists of results have.
pub trait Status: Copy + PartialEq + std::fmt::Debug {
    const LINKED_EVENT_FAILED: Self;
    const LINKED_EVENT_CHAIN_OPEN: Self;
    const EXISTS: Self;
    const IMPORTED_EVENT_EXPECTED: Self;
    const IMPORTED_EVENT_NOT_EXPECTED: Self;
    const TIMESTAMP_MUST_BE_ZERO: Self;
    const IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE: Self;
    const IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE: Self;

    /// The model's number.
    fn code(self) -> u32;
    /// The model's name in small letters.
    fn name(self) -> &'static str;
    /// What it means and what to do.
    fn advice(self) -> &'static str;
    /// Whether the id is used up by this refusal: every retry of it is `id_already_failed`.
    fn is_transient(self) -> bool;

    /// As an error's text: the name in capitals, then the sentence.
    fn text(self) -> String {
        format!("{} {}", self.name().to_uppercase(), self.advice())
    }
}

impl<S: Status> EventResult<S> {
    /// The 16 bytes of a batch's answer.
    pub fn encode(&self) -> [u8; RESULT_BYTES] {
        let status = match self.outcome {
            Outcome::Created => CREATED,
            Outcome::Refused(status) => status.code(),
        };
        let mut out = [0; RESULT_BYTES];
        out[..8].copy_from_slice(&self.timestamp.to_le_bytes());
        out[8..12].copy_from_slice(&status.to_le_bytes());
        out
    }

    /// Why it is no success; an identical event that exists already is one.
    pub fn refusal(&self) -> Option<S> {
        match self.outcome {
            Outcome::Refused(status) if status != S::EXISTS => Some(status),
            _ => None,
        }
    }
}

macro_rules! statuses {
    ($name:ident, $all:ident, transient [$($transient:ident)*],
        $($variant:ident = $code:literal, $text:literal, $advice:literal;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $name {
            $($variant = $code),*
        }

        /// All of them, by number.
        pub const $all: &[$name] = &[$($name::$variant),*];

        impl Status for $name {
            const LINKED_EVENT_FAILED: Self = $name::LinkedEventFailed;
            const LINKED_EVENT_CHAIN_OPEN: Self = $name::LinkedEventChainOpen;
            const EXISTS: Self = $name::Exists;
            const IMPORTED_EVENT_EXPECTED: Self = $name::ImportedEventExpected;
            const IMPORTED_EVENT_NOT_EXPECTED: Self = $name::ImportedEventNotExpected;
            const TIMESTAMP_MUST_BE_ZERO: Self = $name::TimestampMustBeZero;
            const IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE: Self =
                $name::ImportedEventTimestampOutOfRange;
            const IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE: Self =
                $name::ImportedEventTimestampMustNotAdvance;

            fn code(self) -> u32 {
                self as u32
            }

            fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text),*
                }
            }

            fn advice(self) -> &'static str {
                match self {
                    $($name::$variant => $advice),*
                }
            }

            fn is_transient(self) -> bool {
                const TRANSIENT: &[$name] = &[$($name::$transient),*];
                TRANSIENT.contains(&self)
            }
        }
    };
}

statuses! { AccountStatus, ACCOUNT_STATUSES, transient [],
    LinkedEventFailed = 1, "linked_event_failed",
        "another event of its chain failed; mend that one and send the whole chain again";
    LinkedEventChainOpen = 2, "linked_event_chain_open",
        "the last event of a batch cannot be linked; end the chain with an event without the flag";
    TimestampMustBeZero = 3, "timestamp_must_be_zero",
        "the server sets timestamps; send 0, or the imported flag";
    ReservedField = 4, "reserved_field", "the reserved field must be 0";
    ReservedFlag = 5, "reserved_flag", "a flag is set that this server does not know";
    IdMustNotBeZero = 6, "id_must_not_be_zero", "choose another id";
    IdMustNotBeIntMax = 7, "id_must_not_be_int_max", "choose another id";
    FlagsAreMutuallyExclusive = 8, "flags_are_mutually_exclusive",
        "an account has at most one of the two balance limits; leave one out";
    DebitsPendingMustBeZero = 9, "debits_pending_must_be_zero",
        "an account begins with balances of 0; move money in with a transfer";
    DebitsPostedMustBeZero = 10, "debits_posted_must_be_zero",
        "an account begins with balances of 0; move money in with a transfer";
    CreditsPendingMustBeZero = 11, "credits_pending_must_be_zero",
        "an account begins with balances of 0; move money in with a transfer";
    CreditsPostedMustBeZero = 12, "credits_posted_must_be_zero",
        "an account begins with balances of 0; move money in with a transfer";
    LedgerMustNotBeZero = 13, "ledger_must_not_be_zero", "name the ledger by a number from 1 on";
    CodeMustNotBeZero = 14, "code_must_not_be_zero", "name the kind by a number from 1 on";
    ExistsWithDifferentFlags = 15, "exists_with_different_flags",
        "the id is taken by an account with other flags; look at it with ACCOUNT.GET";
    ExistsWithDifferentUserData128 = 16, "exists_with_different_user_data_128",
        "the id is taken by an account with other user data; look at it with ACCOUNT.GET";
    ExistsWithDifferentUserData64 = 17, "exists_with_different_user_data_64",
        "the id is taken by an account with other user data; look at it with ACCOUNT.GET";
    ExistsWithDifferentUserData32 = 18, "exists_with_different_user_data_32",
        "the id is taken by an account with other user data; look at it with ACCOUNT.GET";
    ExistsWithDifferentLedger = 19, "exists_with_different_ledger",
        "the id is taken by an account of another ledger; look at it with ACCOUNT.GET";
    ExistsWithDifferentCode = 20, "exists_with_different_code",
        "the id is taken by an account with another code; look at it with ACCOUNT.GET";
    Exists = 21, "exists", "the same account exists already; nothing is to be done";
    ImportedEventExpected = 22, "imported_event_expected",
        "all events of a batch are imported or none; send this one in another batch";
    ImportedEventNotExpected = 23, "imported_event_not_expected",
        "all events of a batch are imported or none; send this one in another batch";
    ImportedEventTimestampOutOfRange = 24, "imported_event_timestamp_out_of_range",
        "an imported timestamp lies between 1 and 2^63 - 1 nanoseconds since 1970";
    ImportedEventTimestampMustNotAdvance = 25, "imported_event_timestamp_must_not_advance",
        "an imported timestamp lies in the past of this cluster's log time";
    ImportedEventTimestampMustNotRegress = 26, "imported_event_timestamp_must_not_regress",
        "import in the order of timestamps, each used once";
}

statuses! { TransferStatus, TRANSFER_STATUSES, transient [
        DebitAccountNotFound CreditAccountNotFound PendingTransferNotFound ExceedsCredits
        ExceedsDebits DebitAccountAlreadyClosed CreditAccountAlreadyClosed],
    LinkedEventFailed = 1, "linked_event_failed",
        "another event of its chain failed; mend that one and send the whole chain again";
    LinkedEventChainOpen = 2, "linked_event_chain_open",
        "the last event of a batch cannot be linked; end the chain with an event without the flag";
    TimestampMustBeZero = 3, "timestamp_must_be_zero",
        "the server sets timestamps; send 0, or the imported flag";
    ReservedFlag = 4, "reserved_flag", "a flag is set that this server does not know";
    IdMustNotBeZero = 5, "id_must_not_be_zero", "choose another id";
    IdMustNotBeIntMax = 6, "id_must_not_be_int_max", "choose another id";
    FlagsAreMutuallyExclusive = 7, "flags_are_mutually_exclusive",
        "post and void go with no other two-phase, balancing or closing flag; leave one out";
    DebitAccountIdMustNotBeZero = 8, "debit_account_id_must_not_be_zero",
        "name the account to be debited";
    DebitAccountIdMustNotBeIntMax = 9, "debit_account_id_must_not_be_int_max",
        "name the account to be debited";
    CreditAccountIdMustNotBeZero = 10, "credit_account_id_must_not_be_zero",
        "name the account to be credited";
    CreditAccountIdMustNotBeIntMax = 11, "credit_account_id_must_not_be_int_max",
        "name the account to be credited";
    AccountsMustBeDifferent = 12, "accounts_must_be_different",
        "a transfer goes from one account to another";
    PendingIdMustBeZero = 13, "pending_id_must_be_zero",
        "only a post or a void names a pending transfer";
    PendingIdMustNotBeZero = 14, "pending_id_must_not_be_zero",
        "name the pending transfer that is to be posted or voided";
    PendingIdMustNotBeIntMax = 15, "pending_id_must_not_be_int_max",
        "name the pending transfer that is to be posted or voided";
    PendingIdMustBeDifferent = 16, "pending_id_must_be_different",
        "a post or void has an id of its own";
    TimeoutReservedForPendingTransfer = 17, "timeout_reserved_for_pending_transfer",
        "only a pending transfer has a timeout; send 0 or the pending flag";
    AmountMustNotBeZero = 18, "amount_must_not_be_zero", "not in use: an amount of 0 is legal";
    LedgerMustNotBeZero = 19, "ledger_must_not_be_zero", "name the accounts' ledger";
    CodeMustNotBeZero = 20, "code_must_not_be_zero", "name the kind by a number from 1 on";
    DebitAccountNotFound = 21, "debit_account_not_found",
        "create the account first, then send the transfer under a new id";
    CreditAccountNotFound = 22, "credit_account_not_found",
        "create the account first, then send the transfer under a new id";
    AccountsMustHaveTheSameLedger = 23, "accounts_must_have_the_same_ledger",
        "between ledgers use two linked transfers over accounts of an exchange";
    TransferMustHaveTheSameLedgerAsAccounts = 24, "transfer_must_have_the_same_ledger_as_accounts",
        "send the ledger of the accounts";
    PendingTransferNotFound = 25, "pending_transfer_not_found",
        "no transfer has this pending id; check it, then send under a new id";
    PendingTransferNotPending = 26, "pending_transfer_not_pending",
        "the transfer that it names was no hold; undo it by a transfer the other way";
    PendingTransferHasDifferentDebitAccountId = 27,
        "pending_transfer_has_different_debit_account_id",
        "send the hold's debit account, or 0";
    PendingTransferHasDifferentCreditAccountId = 28,
        "pending_transfer_has_different_credit_account_id",
        "send the hold's credit account, or 0";
    PendingTransferHasDifferentLedger = 29, "pending_transfer_has_different_ledger",
        "send the hold's ledger, or 0";
    PendingTransferHasDifferentCode = 30, "pending_transfer_has_different_code",
        "send the hold's code, or 0";
    ExceedsPendingTransferAmount = 31, "exceeds_pending_transfer_amount",
        "post or void at most what is held";
    PendingTransferHasDifferentAmount = 32, "pending_transfer_has_different_amount",
        "a void releases all: send amount 0; to release a part, post the rest";
    PendingTransferAlreadyPosted = 33, "pending_transfer_already_posted",
        "the hold was posted before; nothing is held any more";
    PendingTransferAlreadyVoided = 34, "pending_transfer_already_voided",
        "the hold was voided before; nothing is held any more";
    PendingTransferExpired = 35, "pending_transfer_expired",
        "the hold has timed out; nothing is held any more";
    ExistsWithDifferentFlags = 36, "exists_with_different_flags",
        "the id is taken by a transfer with other flags; look at it with TRANSFER.GET";
    ExistsWithDifferentDebitAccountId = 37, "exists_with_different_debit_account_id",
        "the id is taken by a transfer with another account; look at it with TRANSFER.GET";
    ExistsWithDifferentCreditAccountId = 38, "exists_with_different_credit_account_id",
        "the id is taken by a transfer with another account; look at it with TRANSFER.GET";
    ExistsWithDifferentAmount = 39, "exists_with_different_amount",
        "the id is taken by a transfer of another amount; look at it with TRANSFER.GET";
    ExistsWithDifferentPendingId = 40, "exists_with_different_pending_id",
        "the id is taken by a transfer with another pending id; look at it with TRANSFER.GET";
    ExistsWithDifferentUserData128 = 41, "exists_with_different_user_data_128",
        "the id is taken by a transfer with other user data; look at it with TRANSFER.GET";
    ExistsWithDifferentUserData64 = 42, "exists_with_different_user_data_64",
        "the id is taken by a transfer with other user data; look at it with TRANSFER.GET";
    ExistsWithDifferentUserData32 = 43, "exists_with_different_user_data_32",
        "the id is taken by a transfer with other user data; look at it with TRANSFER.GET";
    ExistsWithDifferentTimeout = 44, "exists_with_different_timeout",
        "the id is taken by a transfer with another timeout; look at it with TRANSFER.GET";
    ExistsWithDifferentCode = 45, "exists_with_different_code",
        "the id is taken by a transfer with another code; look at it with TRANSFER.GET";
    Exists = 46, "exists", "the same transfer exists already; nothing is to be done";
    OverflowsDebitsPending = 47, "overflows_debits_pending",
        "the account's pending debits would pass 2^128 - 1";
    OverflowsCreditsPending = 48, "overflows_credits_pending",
        "the account's pending credits would pass 2^128 - 1";
    OverflowsDebitsPosted = 49, "overflows_debits_posted",
        "the account's debits would pass 2^128 - 1";
    OverflowsCreditsPosted = 50, "overflows_credits_posted",
        "the account's credits would pass 2^128 - 1";
    OverflowsDebits = 51, "overflows_debits",
        "the account's pending and posted debits together would pass 2^128 - 1";
    OverflowsCredits = 52, "overflows_credits",
        "the account's pending and posted credits together would pass 2^128 - 1";
    OverflowsTimeout = 53, "overflows_timeout",
        "the hold would expire after 2^63 - 1 nanoseconds since 1970; send a shorter timeout";
    ExceedsCredits = 54, "exceeds_credits",
        "the debit account does not have so much; send a smaller amount under a new id";
    ExceedsDebits = 55, "exceeds_debits",
        "the credit account does not owe so much; send a smaller amount under a new id";
    ImportedEventExpected = 56, "imported_event_expected",
        "all events of a batch are imported or none; send this one in another batch";
    ImportedEventNotExpected = 57, "imported_event_not_expected",
        "all events of a batch are imported or none; send this one in another batch";
    ImportedEventTimestampOutOfRange = 58, "imported_event_timestamp_out_of_range",
        "an imported timestamp lies between 1 and 2^63 - 1 nanoseconds since 1970";
    ImportedEventTimestampMustNotAdvance = 59, "imported_event_timestamp_must_not_advance",
        "an imported timestamp lies in the past of this cluster's log time";
    ImportedEventTimestampMustNotRegress = 60, "imported_event_timestamp_must_not_regress",
        "import in the order of timestamps, each used once";
    ImportedEventTimestampMustPostdateDebitAccount = 61,
        "imported_event_timestamp_must_postdate_debit_account",
        "a transfer is later than the account that it debits";
    ImportedEventTimestampMustPostdateCreditAccount = 62,
        "imported_event_timestamp_must_postdate_credit_account",
        "a transfer is later than the account that it credits";
    ImportedEventTimeoutMustBeZero = 63, "imported_event_timeout_must_be_zero",
        "an imported hold has no timeout";
    ClosingTransferMustBePending = 64, "closing_transfer_must_be_pending",
        "close an account with a pending transfer, so that a void can open it again";
    DebitAccountAlreadyClosed = 65, "debit_account_already_closed",
        "the account takes nothing; void the transfer that closed it, then send under a new id";
    CreditAccountAlreadyClosed = 66, "credit_account_already_closed",
        "the account takes nothing; void the transfer that closed it, then send under a new id";
    ExistsWithDifferentLedger = 67, "exists_with_different_ledger",
        "the id is taken by a transfer of another ledger; look at it with TRANSFER.GET";
    IdAlreadyFailed = 68, "id_already_failed",
        "a transfer under this id was refused before and stays refused; send under a new id";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_dense<S: Status>(all: &[S]) {
        for (at, status) in (1..).zip(all) {
            assert_eq!(status.code(), at, "numbers have no gap: {status:?}");
            let variant: String = format!("{status:?}").to_lowercase();
            assert_eq!(status.name().replace('_', ""), variant);
        }
    }

    #[test]
    fn numbers_are_the_models_and_names_match() {
        assert_dense(ACCOUNT_STATUSES);
        assert_dense(TRANSFER_STATUSES);
        assert_eq!((ACCOUNT_STATUSES.len(), TRANSFER_STATUSES.len()), (26, 68));
        let transient = TRANSFER_STATUSES
            .iter()
            .filter(|status| status.is_transient());
        let codes: Vec<u32> = transient.map(|status| status.code()).collect();
        assert_eq!(codes, [21, 22, 25, 54, 55, 65, 66]);
    }

    #[test]
    fn a_result_is_sixteen_bytes() {
        let result = EventResult {
            timestamp: 0x0102,
            outcome: Outcome::Refused(TransferStatus::ExceedsCredits),
        };
        assert_eq!(
            result.encode(),
            [2, 1, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 0, 0, 0, 0]
        );
        let created = EventResult {
            outcome: Outcome::<AccountStatus>::Created,
            ..EventResult {
                timestamp: 1,
                outcome: Outcome::Created,
            }
        };
        assert_eq!(created.encode()[8..12], [0xff; 4]);
    }
}
