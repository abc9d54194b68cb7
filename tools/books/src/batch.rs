//! One batch: each event in order at its own time, and chains of linked events that are created
//! together or not at all.

use crate::{Account, AccountStatus, Books, Outcome, Transfer, TransferStatus};
use crate::{account_flags, transfer_flags};

const LINKED_EVENT_FAILED: u32 = 1;
const LINKED_EVENT_CHAIN_OPEN: u32 = 2;

/// What an event is told by its batch.
pub struct Batch {
    /// The record's log time: what is imported must lie before it.
    pub time: u64,
    /// Whether the first event is imported, which all others must then be.
    pub is_imported: bool,
    /// When this event is validated, and its timestamp unless it is imported.
    pub event_time: u64,
}

/// What accounts and transfers have in common.
pub trait Event: Copy {
    fn is_linked(&self) -> bool;
    fn is_imported(&self) -> bool;
    /// Creates it, or says why not.
    fn create(&self, books: &mut Books, batch: &Batch) -> Outcome;
}

impl Event for Account {
    fn is_linked(&self) -> bool {
        self.has(account_flags::LINKED)
    }

    fn is_imported(&self) -> bool {
        self.has(account_flags::IMPORTED)
    }

    fn create(&self, books: &mut Books, batch: &Batch) -> Outcome {
        let status = books.create_account(self, batch).err();
        let status = status.unwrap_or(AccountStatus::Created);
        let timestamp = match status {
            AccountStatus::Created | AccountStatus::Exists => books.accounts[&self.id].timestamp,
            _ => batch.event_time,
        };
        Outcome {
            timestamp,
            status: status.number(),
        }
    }
}

impl Event for Transfer {
    fn is_linked(&self) -> bool {
        self.has(transfer_flags::LINKED)
    }

    fn is_imported(&self) -> bool {
        self.has(transfer_flags::IMPORTED)
    }

    fn create(&self, books: &mut Books, batch: &Batch) -> Outcome {
        let status = books.create_transfer(self, batch).err();
        let status = status.unwrap_or(TransferStatus::Created);
        let timestamp = match status {
            TransferStatus::Created | TransferStatus::Exists => books.transfers[&self.id].timestamp,
            _ => batch.event_time,
        };
        Outcome {
            timestamp,
            status: status.number(),
        }
    }
}

/// A chain that has not ended yet.
struct Chain {
    /// Its first event.
    first: usize,
    /// Everything as it was before the chain; `None` once the chain is broken and undone.
    before: Option<Books>,
}

pub fn create<E: Event>(books: &mut Books, time: u64, events: &[E]) -> Vec<Outcome> {
    let is_imported = events.first().is_some_and(Event::is_imported);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut chain: Option<Chain> = None;
    for (index, event) in events.iter().enumerate() {
        let event_time = time + index as u64;
        let batch = Batch {
            time,
            is_imported,
            event_time,
        };
        if event.is_linked() && chain.is_none() {
            chain = Some(Chain {
                first: index,
                before: Some(books.clone()),
            });
        }
        let is_last = index + 1 == events.len();
        let is_broken = chain.as_ref().is_some_and(|chain| chain.before.is_none());
        let refused = |status| Outcome {
            timestamp: event_time,
            status,
        };
        let outcome = if event.is_linked() && is_last {
            refused(LINKED_EVENT_CHAIN_OPEN)
        } else if is_broken {
            refused(LINKED_EVENT_FAILED)
        } else {
            event.create(books, &batch)
        };
        if outcome.status != TransferStatus::Created.number()
            && let Some(Chain { first, before }) = &mut chain
            && let Some(before) = before.take()
        {
            books.go_back(before);
            for (index, mate) in outcomes.iter_mut().enumerate().skip(*first) {
                let timestamp = time + index as u64;
                *mate = Outcome {
                    timestamp,
                    status: LINKED_EVENT_FAILED,
                };
            }
        }
        outcomes.push(outcome);
        if !event.is_linked() {
            chain = None;
        }
    }
    outcomes
}
