//! Tests of the ledger by itself: each rule, each result, and what holds for any history.

mod random;
mod rules;
mod speed;

use super::record::{account_flags, transfer_flags};
use super::*;

/// Log time of the first batch of a test.
const START: u64 = 1_000_000_000_000;

/// A ledger with a clock: batches are a microsecond apart.
struct Books {
    ledger: Ledger,
    now: u64,
}

impl Books {
    fn new() -> Books {
        Books {
            ledger: Ledger::new(3),
            now: START,
        }
    }

    fn accounts(&mut self, batch: &[Account]) -> Vec<EventResult<AccountStatus>> {
        self.now += 1_000_000;
        let bytes: Vec<u8> = batch.iter().flat_map(Account::encode).collect();
        self.ledger.create_accounts(self.now, &bytes)
    }

    fn transfers(&mut self, batch: &[Transfer]) -> Vec<EventResult<TransferStatus>> {
        self.now += 1_000_000;
        let bytes: Vec<u8> = batch.iter().flat_map(Transfer::encode).collect();
        self.ledger.create_transfers(self.now, &bytes)
    }

    /// Creates accounts 1 to `count` of ledger 1 with these flags.
    fn open(&mut self, count: u128, flags: u16) {
        let batch: Vec<_> = (1..=count)
            .map(|id| Account {
                flags,
                ..account(id)
            })
            .collect();
        let results = self.accounts(&batch);
        assert!(
            results
                .iter()
                .all(|result| result.outcome == Outcome::Created)
        );
    }

    /// One transfer that must take place.
    #[track_caller]
    fn done(&mut self, event: Transfer) {
        assert_eq!(self.status(event), None, "{event:?}");
    }

    /// Why one transfer is refused.
    fn status(&mut self, event: Transfer) -> Option<TransferStatus> {
        match self.transfers(&[event])[0].outcome {
            Outcome::Created => None,
            Outcome::Refused(status) => Some(status),
        }
    }

    /// Debits pending and posted, credits pending and posted.
    fn balances(&self, id: u128) -> [u128; 4] {
        let account = self.ledger.account(id).expect("the account is there");
        [
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
        ]
    }
}

fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 10,
        ..Account::default()
    }
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: debit,
        credit_account_id: credit,
        amount,
        ledger: 1,
        code: 7,
        ..Transfer::default()
    }
}

fn hold(id: u128, debit: u128, credit: u128, amount: u128) -> Transfer {
    Transfer {
        flags: transfer_flags::PENDING,
        ..transfer(id, debit, credit, amount)
    }
}

fn post(id: u128, pending_id: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        pending_id,
        amount,
        flags: transfer_flags::POST,
        ..Transfer::default()
    }
}

fn void(id: u128, pending_id: u128) -> Transfer {
    Transfer {
        id,
        pending_id,
        flags: transfer_flags::VOID,
        ..Transfer::default()
    }
}
