//! What clients ask of the ledger: transfers enough to fill segments, holds, statements.

use super::What;
use crate::simulate::world::World;
use bytes::Bytes;
use standfast::node::client::Op;
use standfast::state::Command;
use standfast::state::command::{Batch, BatchForm, LedgerRead};
use standfast::state::ledger::record::{account_flags, transfer_flags};
use standfast::state::ledger::{Account, Filter, Transfer};

/// So many accounts; the first keeps a history.
const BOOKED: u64 = 5;
/// The ids before are those of `ledger.rs`, whose accounts have limits and are closed.
const BEFORE: u64 = 100;
const EVENTS_MAX: u64 = 24;

impl World {
    /// A batch for the books, or a question to them.
    pub(super) fn books(&mut self, number: usize) -> (What, Op) {
        let command = match self.dice.clients.below(10) {
            0 => open_accounts(),
            1 | 2 => self.book_question(),
            _ => self.book_transfers(number),
        };
        let stale = !command.is_write() && self.dice.clients.one_in(3);
        let (id, op) = self.ask(number, command, stale);
        (What::Data(id), op)
    }

    fn book_question(&mut self) -> Command {
        let account_id = u128::from(BEFORE + self.dice.clients.between(1, BOOKED));
        let filter = Filter {
            account_id,
            ..Filter::default()
        };
        Command::Ledger(Box::new(match self.dice.clients.below(4) {
            0 => LedgerRead::Totals { ledger: 0 },
            1 => LedgerRead::AccountBalances(filter),
            2 => LedgerRead::Account {
                id: account_id,
                with_holds: true,
            },
            _ => LedgerRead::AccountTransfers(filter),
        }))
    }

    fn book_transfers(&mut self, number: usize) -> Command {
        let count = self.dice.clients.between(1, EVENTS_MAX);
        let events = (0..count).map(|_| self.book_transfer(number).encode());
        create(events.collect(), Command::CreateTransfers)
    }

    fn book_transfer(&mut self, number: usize) -> Transfer {
        let client = &mut self.clients.list[number];
        client.written += 1;
        let written = client.written;
        let id_of = |written: u64| (number as u128 + 1) << 64 | u128::from(written);
        // What makes the whole command one of its kind: see `is_unique`.
        let mut mark = [0; 16];
        let text = format!("c{number}-{written};");
        mark[..text.len()].copy_from_slice(text.as_bytes());
        let random = &mut self.dice.clients;
        let debit = random.between(1, BOOKED);
        let movement = Transfer {
            id: id_of(written),
            debit_account_id: (BEFORE + debit).into(),
            credit_account_id: (BEFORE + debit % BOOKED + 1).into(),
            amount: random.between(1, 9).into(),
            user_data_128: u128::from_le_bytes(mark),
            ledger: 1,
            code: 1,
            ..Transfer::default()
        };
        match random.below(8) {
            0 | 1 => Transfer {
                flags: transfer_flags::PENDING,
                timeout: random.below(3) as u32,
                ..movement
            },
            kind @ (2 | 3) => Transfer {
                debit_account_id: 0,
                credit_account_id: 0,
                amount: if kind == 2 { u128::MAX } else { 0 },
                pending_id: id_of(written.saturating_sub(random.between(1, 40))),
                flags: match kind {
                    2 => transfer_flags::POST,
                    _ => transfer_flags::VOID,
                },
                ..movement
            },
            // An account that is not there uses the id up.
            4 if random.one_in(4) => Transfer {
                debit_account_id: 99,
                ..movement
            },
            _ => movement,
        }
    }
}

fn open_accounts() -> Command {
    let accounts = (1..=BOOKED).map(|id| Account {
        id: (BEFORE + id).into(),
        ledger: 1,
        code: 1,
        flags: if id == 1 { account_flags::HISTORY } else { 0 },
        ..Account::default()
    });
    let events = accounts.map(|account| account.encode());
    create(events.collect(), Command::CreateAccounts)
}

fn create(events: Vec<[u8; 128]>, command: fn(Batch) -> Command) -> Command {
    command(Batch {
        events: Bytes::from(events.concat()),
        form: BatchForm::Results,
    })
}
