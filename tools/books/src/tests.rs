//! Every status once, and the rules that the statuses do not show.

mod codes;
mod properties;
mod rules;

use crate::{Account, Books, Outcome, Transfer, account_flags, transfer_flags};

/// A time that leaves room before it for imports and behind it for everything else.
const START: u64 = 1_000_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn account(id: u128) -> Account {
    Account {
        id,
        ledger: 1,
        code: 7,
        ..Account::default()
    }
}

fn transfer(id: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount,
        ledger: 1,
        code: 3,
        ..Transfer::default()
    }
}

fn pending(id: u128, amount: u128) -> Transfer {
    Transfer {
        flags: transfer_flags::PENDING,
        ..transfer(id, amount)
    }
}

fn post(id: u128, pending_id: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        pending_id,
        amount,
        flags: transfer_flags::POST_PENDING_TRANSFER,
        ..Transfer::default()
    }
}

fn void(id: u128, pending_id: u128) -> Transfer {
    Transfer {
        id,
        pending_id,
        flags: transfer_flags::VOID_PENDING_TRANSFER,
        ..Transfer::default()
    }
}

/// Books at a time that goes on by a second with each batch.
struct World {
    books: Books,
    now: u64,
}

impl World {
    /// Accounts 1 and 2 of ledger 1 without limits, 3 and 4 with one each, 5 of ledger 2, 6 closed
    /// from the start, 7 with history.
    fn new() -> World {
        let mut world = World {
            books: Books::new(),
            now: START,
        };
        let mut accounts: Vec<Account> = (1..=7).map(account).collect();
        accounts[2].flags = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
        accounts[3].flags = account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
        accounts[4].ledger = 2;
        accounts[5].flags = account_flags::CLOSED;
        accounts[6].flags = account_flags::HISTORY;
        let outcomes = world.accounts(&accounts);
        assert!(outcomes.iter().all(|outcome| outcome.status == u32::MAX));
        world
    }

    fn accounts(&mut self, events: &[Account]) -> Vec<Outcome> {
        self.now += SECOND;
        self.books.create_accounts(self.now, events)
    }

    fn transfers(&mut self, events: &[Transfer]) -> Vec<Outcome> {
        self.now += SECOND;
        self.books.create_transfers(self.now, events)
    }

    /// The names of the outcomes.
    fn told(&mut self, events: &[Transfer]) -> Vec<&'static str> {
        let outcomes = self.transfers(events);
        let names = outcomes
            .iter()
            .map(|outcome| crate::TransferStatus::from_number(outcome.status));
        names
            .map(|status| status.expect("a known status").name())
            .collect()
    }

    fn account(&self, id: u128) -> Account {
        self.books.lookup_accounts(&[id])[0]
    }

    /// Debits pending and posted, credits pending and posted.
    fn balances(&self, id: u128) -> [u128; 4] {
        let account = self.account(id);
        [
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted,
        ]
    }
}
