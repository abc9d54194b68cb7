//! What clients ask of the ledger: batches that are sent again until they are answered, and now and
//! then once more; single commands in a pipeline; EXEC over ledger and keys; ONCE; questions.
//!
//! All clients of a run share the accounts, and the ids that were ever sent: what one has created,
//! another posts, voids, or sends again with a field changed (`books::Draw`).

use super::draw::{ONCE_TTL_MS, TOKENS_MAX, parse};
use super::{Script, What, text};
use crate::simulate::check::ledger::KEYS;
use crate::simulate::random::Random;
use crate::simulate::world::World;
use books::{Account, Draw, Transfer, account_flags, filter_flags, transfer_flags};
use bytes::Bytes;
use standfast::node::client::Op;
use standfast::state::Command;
use standfast::state::command::{Batch, BatchForm, LedgerRead, Multi, Once};
use standfast::state::ledger::Filter;

/// Commands for the ledger in one run: the books are slow.
const COMMANDS_MAX: u64 = 250;
/// A large batch is drawn up to about so many events.
const EVENTS_MAX: u64 = 100;
/// A share is of so many steps.
const SHARES: u64 = 8;

/// How much of a run is about the ledger, and what was sent so far.
pub struct Workload {
    share: u64,
    left: u64,
    draw: Draw,
    is_opened: bool,
    /// Counts what EXEC writes to the keys that go with the ledger.
    written: u64,
}

impl Workload {
    /// Two of three runs know no ledger.
    pub fn draw(random: &mut Random) -> Workload {
        Workload {
            share: random.pick(&[0, 0, 0, 0, 0, 0, 1, 3, 7]),
            left: COMMANDS_MAX,
            draw: Draw::new(),
            is_opened: false,
            written: 0,
        }
    }
}

fn batch(events: Vec<u8>, form: BatchForm) -> Batch {
    Batch {
        events: events.into(),
        form,
    }
}

impl World {
    /// What this client asks of the ledger, if that is what it does next.
    pub(super) fn ledger_step(&mut self, number: usize) -> Option<Vec<(What, Op)>> {
        let workload = &mut self.clients.ledger;
        let is_next = workload.share > 0
            && workload.left > 0
            && self.dice.ledger.below(SHARES) < workload.share;
        if !is_next {
            return None;
        }
        workload.left -= 1;
        if !workload.is_opened {
            workload.is_opened = true;
            let command = self.draw_accounts();
            return Some(vec![self.until_answered(number, command)]);
        }
        Some(match self.dice.ledger.below(20) {
            0 => {
                let command = self.draw_accounts();
                vec![self.until_answered(number, command)]
            }
            1..=6 => {
                let command = self.draw_transfers();
                vec![self.until_answered(number, command)]
            }
            7 | 8 => self.singles(number),
            9 | 10 => {
                let command = self.draw_exec();
                vec![self.until_answered(number, command)]
            }
            11 | 12 => vec![self.ledger_once(number)],
            _ => {
                let question = Command::Ledger(Box::new(self.draw_question()));
                let stale = self.dice.ledger.one_in(4);
                let (id, op) = self.ask(number, question, stale);
                vec![(What::Data(id), op)]
            }
        })
    }

    /// Without a token: the ids make it safe to send again.
    fn until_answered(&mut self, number: usize, command: Command) -> (What, Op) {
        let (id, op) = self.ask(number, command.clone(), false);
        self.clients.list[number].script = Script::Retry {
            token: None,
            command,
            tries: 0,
        };
        (What::Data(id), op)
    }

    /// Behind the newest record of any log: an imported time that is drawn around it may hold.
    fn newest_time(&self) -> u64 {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        let tips = processes.map(|process| process.engine.replica().tip().timestamp);
        tips.max().unwrap_or_default() + 500
    }

    fn draw_accounts(&mut self) -> Command {
        let now = self.newest_time();
        let (random, draw) = (&mut self.dice.ledger, &mut self.clients.ledger.draw);
        let mut events = Vec::new();
        while events.is_empty() {
            events = draw.accounts(&mut |bound| random.below(bound), now);
        }
        let events = events.iter().flat_map(Account::to_bytes).collect();
        Command::CreateAccounts(batch(events, BatchForm::Results))
    }

    fn draw_events(&mut self) -> Vec<Transfer> {
        let now = self.newest_time();
        let (random, draw) = (&mut self.dice.ledger, &mut self.clients.ledger.draw);
        let mut events = Vec::new();
        while events.is_empty() {
            events = draw.transfers(&mut |bound| random.below(bound), now);
        }
        events
    }

    fn draw_transfers(&mut self) -> Command {
        let mut events = self.draw_events();
        // The ledger takes a batch in groups: now and then there are several.
        if self.dice.ledger.one_in(8) {
            let most = self.dice.ledger.between(30, EVENTS_MAX);
            while (events.len() as u64) < most {
                // The end of a chain may have been cut off.
                if let Some(last) = events.last_mut() {
                    last.flags &= !transfer_flags::LINKED;
                }
                events.extend(self.draw_events());
            }
        }
        let events = events.iter().flat_map(Transfer::to_bytes).collect();
        Command::CreateTransfers(batch(events, BatchForm::Results))
    }

    /// TRANSFER.CREATE, POST and VOID, or ACCOUNT.CREATE: one event each, one behind the other.
    fn singles(&mut self, number: usize) -> Vec<(What, Op)> {
        let words = |bytes: &[u8]| batch(bytes.to_vec(), BatchForm::Words);
        let commands: Vec<Command> = if self.dice.ledger.one_in(6) {
            let Command::CreateAccounts(drawn) = self.draw_accounts() else {
                unreachable!("drawn so");
            };
            let (events, _) = drawn.events.as_chunks::<{ Account::BYTES }>();
            let loose = events.iter().map(|event| Account {
                flags: Account::from_bytes(event).flags & !account_flags::LINKED,
                ..Account::from_bytes(event)
            });
            loose
                .map(|event| Command::CreateAccounts(words(&event.to_bytes())))
                .collect()
        } else {
            let events = self.draw_events().into_iter();
            let loose = events.map(|event| Transfer {
                flags: event.flags & !transfer_flags::LINKED,
                ..event
            });
            loose
                .map(|event| Command::CreateTransfers(words(&event.to_bytes())))
                .collect()
        };
        let commands = commands.into_iter().take(4);
        commands
            .map(|command| {
                let (id, op) = self.ask(number, command, false);
                (What::Data(id), op)
            })
            .collect()
    }

    /// Keys and ledger in one step: all of it or nothing.
    fn draw_exec(&mut self) -> Command {
        let key = format!(
            "{}{}",
            String::from_utf8_lossy(KEYS),
            self.dice.ledger.below(3)
        );
        let key = text(key);
        self.clients.ledger.written += 1;
        let value = text(format!("v{}", self.clients.ledger.written));
        let mut commands = vec![parse(&[text("SET"), key.clone(), value])];
        for _ in 0..self.dice.ledger.between(1, 3) {
            let mut events = self.draw_events();
            events.truncate(self.dice.ledger.between(1, 2) as usize);
            // The end of a chain may have been cut off.
            if let Some(last) = events.last_mut() {
                last.flags &= !transfer_flags::LINKED;
            }
            let form = match events.len() == 1 && self.dice.ledger.one_in(2) {
                true => BatchForm::Words,
                false => BatchForm::Results,
            };
            let events = events.iter().flat_map(Transfer::to_bytes).collect();
            commands.push(Command::CreateTransfers(batch(events, form)));
        }
        match self.dice.ledger.below(6) {
            0 => commands.push(self.draw_accounts()),
            1 | 2 => commands.push(Command::Ledger(Box::new(self.draw_question()))),
            3 => {
                let transfers = self.draw_transfers();
                commands.push(Command::Once(Once::new(
                    text("inside"),
                    ONCE_TTL_MS,
                    TOKENS_MAX,
                    transfers,
                )));
            }
            _ => {}
        }
        commands.push(parse(&[text("GET"), key]));
        // Whatever comes first, the refusal undoes what stands before it and keeps off the rest.
        let first = self.dice.ledger.index(commands.len());
        commands.rotate_left(first);
        Command::Multi(Multi {
            watches: Vec::new(),
            commands,
        })
    }

    fn ledger_once(&mut self, number: usize) -> (What, Op) {
        let mut command = match self.dice.ledger.below(3) {
            0 => self.draw_exec(),
            _ => self.draw_transfers(),
        };
        // A token within a token is no command.
        if let Command::Multi(multi) = &mut command {
            multi
                .commands
                .retain(|inner| !matches!(inner, Command::Once(_)));
        }
        self.under_a_token(number, command)
    }

    fn draw_question(&mut self) -> LedgerRead {
        let kind = self.dice.ledger.below(10);
        let now = self.newest_time();
        let random = &mut self.dice.ledger;
        let draw = &self.clients.ledger.draw;
        let account = u128::from(1 + random.below(13));
        let cursor = match random.one_in(4) {
            true => now.saturating_sub(random.scaled(1, 10_000_000_000)),
            false => 0,
        };
        let mut below = |bound| random.below(bound);
        let ids = |ids: Vec<u128>| {
            Bytes::from(
                ids.iter()
                    .flat_map(|id| id.to_le_bytes())
                    .collect::<Vec<u8>>(),
            )
        };
        match kind {
            0 => LedgerRead::LookupAccounts {
                ids: ids((1..=account).collect()),
            },
            1 => LedgerRead::LookupTransfers {
                ids: ids(draw.ids(&mut below)),
            },
            2 => LedgerRead::Account {
                id: account,
                with_holds: below(2) == 0,
            },
            3 => LedgerRead::Transfer {
                id: draw.ids(&mut below).first().copied().unwrap_or(1),
            },
            4 => LedgerRead::AccountTransfers(of_account(&draw.account_filter(&mut below), cursor)),
            5 | 6 => {
                LedgerRead::AccountBalances(of_account(&draw.account_filter(&mut below), cursor))
            }
            7 => {
                let filter = of_all(&draw.query_filter(&mut below), cursor);
                match below(2) {
                    0 => LedgerRead::QueryAccounts(filter),
                    _ => LedgerRead::QueryTransfers(filter),
                }
            }
            8 => LedgerRead::Totals {
                ledger: below(3) as u32,
            },
            _ => LedgerRead::Audit,
        }
    }
}

/// The books answer no more than some thousand rows, and so could not tell the cursor behind more.
fn limited(limit: u32) -> u32 {
    limit.min(1000)
}

fn of_account(asked: &books::AccountFilter, cursor: u64) -> Filter {
    Filter {
        account_id: asked.account_id,
        user_data_128: asked.user_data_128,
        user_data_64: asked.user_data_64,
        user_data_32: asked.user_data_32,
        ledger: 0,
        code: asked.code,
        timestamp_min: asked.timestamp_min,
        timestamp_max: asked.timestamp_max,
        limit: limited(asked.limit),
        flags: u8::try_from(asked.flags).expect("drawn so"),
        cursor,
    }
}

fn of_all(asked: &books::QueryFilter, cursor: u64) -> Filter {
    use standfast::state::ledger::filter_flags as flag;
    let is_reversed = asked.flags & filter_flags::QUERY_REVERSED != 0;
    Filter {
        account_id: 0,
        user_data_128: asked.user_data_128,
        user_data_64: asked.user_data_64,
        user_data_32: asked.user_data_32,
        ledger: asked.ledger,
        code: asked.code,
        timestamp_min: asked.timestamp_min,
        timestamp_max: asked.timestamp_max,
        limit: limited(asked.limit),
        flags: flag::DEBITS | flag::CREDITS | if is_reversed { flag::REVERSED } else { 0 },
        cursor,
    }
}
