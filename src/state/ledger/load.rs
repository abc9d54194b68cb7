//! The ledger out of the blocks of a snapshot, which may come in any order.
//!
//! What follows from the transfers is not in the blocks: links, marks, indexes, what became of
//! each hold. It is made again here, and the digest proves the rest.

use super::super::LoadError;
use super::super::digest::Digest;
use super::accounts::first;
use super::history::{ROW_BYTES, Row};
use super::holds::{Expiry, HoldStatus};
use super::record::{Account, RECORD_BYTES, Transfer, transfer_flags};
use super::transfers::{Entry, Known, MARK_EVERY};
use super::walk::{Ends, Sorts};
use super::{Ledger, hash_of, sums};

/// What each kind of a ledger's block holds: number in the header, bytes of an item, what it is.
pub const ITEMS: [(u8, usize, &str); 6] = [
    (
        2,
        Ends::BYTES,
        "the newest event's timestamp, and how many there are of each of the others",
    ),
    (
        3,
        8 + RECORD_BYTES,
        "an account: its number, counted from 0, and its record",
    ),
    (4, RECORD_BYTES, "a transfer"),
    (5, 16, "a used-up id"),
    (
        6,
        16,
        "an expiry: the hold's number, counted from 0, and its timestamp",
    ),
    (
        7,
        ROW_BYTES,
        "a row of a history: balances, times, transfer, account, kind",
    ),
];

/// A loaded block of the ledger, ready to be assembled.
#[derive(Debug)]
pub(in super::super) struct Loading {
    /// Position of the first item in its list.
    first: u64,
    items: Items,
    digest: Digest,
}

#[derive(Debug)]
enum Items {
    Head(Ends),
    Accounts(Vec<(u64, Account)>),
    Transfers(Vec<Transfer>),
    Burned(Vec<u128>),
    Expiries(Vec<Expiry>),
    Rows(Vec<Row>),
}

impl Loading {
    /// Reads what follows the header; `None` if it is not `count` items of this sort.
    pub fn parse(sort: Sorts, count: u32, body: &[u8]) -> Option<Loading> {
        let (first, body) = body.split_first_chunk::<8>()?;
        let (_, item_bytes, _) = ITEMS.iter().find(|(number, ..)| *number == sort as u8)?;
        if body.len() != item_bytes.checked_mul(count as usize)? || count == 0 {
            return None;
        }
        let names_itself = matches!(sort, Sorts::Head | Sorts::Accounts);
        if names_itself && *first != [0; 8] {
            return None;
        }
        let mut digest = Digest::default();
        let items = match sort {
            Sorts::Head => Items::Head(Ends::decode(body.try_into().ok()?)),
            Sorts::Accounts => {
                let items = body.as_chunks::<136>().0.iter().map(|item| {
                    let (number, record) = item.split_first_chunk().expect("136 bytes");
                    let record = record.try_into().expect("the other 128");
                    let record = Account::decode(record);
                    digest.add(sums::of_account(&record));
                    (u64::from_le_bytes(*number), record)
                });
                Items::Accounts(items.collect())
            }
            Sorts::Transfers => {
                let items = body.as_chunks().0.iter().map(Transfer::decode);
                let items: Vec<Transfer> = items.collect();
                items
                    .iter()
                    .for_each(|item| digest.add(sums::of_transfer(item)));
                Items::Transfers(items)
            }
            Sorts::Burned => {
                let items = body.as_chunks().0.iter().map(|id| u128::from_le_bytes(*id));
                let items: Vec<u128> = items.collect();
                items.iter().for_each(|id| digest.add(sums::of_burned(*id)));
                Items::Burned(items)
            }
            Sorts::Expiries => {
                let halves = body.as_chunks::<16>().0.iter().map(|item| {
                    let (numbers, _) = item.as_chunks::<8>();
                    Expiry {
                        hold: u64::from_le_bytes(numbers[0]),
                        timestamp: u64::from_le_bytes(numbers[1]),
                    }
                });
                Items::Expiries(halves.collect())
            }
            Sorts::Rows => {
                let rows = body.as_chunks().0.iter().map(Row::decode);
                let rows: Vec<Row> = rows.collect::<Option<_>>()?;
                rows.iter().for_each(|row| digest.add(sums::of_row(row)));
                Items::Rows(rows)
            }
        };
        Some(Loading {
            first: u64::from_le_bytes(*first),
            items,
            digest,
        })
    }
}

/// The blocks of one kind, in the order of their positions.
#[derive(Default)]
struct Sorted {
    ends: Option<Ends>,
    accounts: Vec<(u64, Account)>,
    transfers: Vec<(u64, Vec<Transfer>)>,
    burned: Vec<(u64, Vec<u128>)>,
    expiries: Vec<(u64, Vec<Expiry>)>,
    rows: Vec<(u64, Vec<Row>)>,
    digest: Digest,
}

impl Sorted {
    fn take(&mut self, part: Loading) -> Result<(), LoadError> {
        self.digest.add(part.digest);
        let first = part.first;
        match part.items {
            Items::Head(_) if self.ends.is_some() => return Err(broken("a second ledger head")),
            Items::Head(ends) => self.ends = Some(ends),
            Items::Accounts(items) => self.accounts.extend(items),
            Items::Transfers(items) => self.transfers.push((first, items)),
            Items::Burned(items) => self.burned.push((first, items)),
            Items::Expiries(items) => self.expiries.push((first, items)),
            Items::Rows(items) => self.rows.push((first, items)),
        }
        Ok(())
    }
}

fn broken(what: &'static str) -> LoadError {
    LoadError::Ledger { what }
}

/// Puts the parts of one list behind each other; refuses gaps and overlaps.
fn list<T>(mut parts: Vec<(u64, Vec<T>)>) -> Result<impl Iterator<Item = T>, LoadError> {
    parts.sort_by_key(|(first, _)| *first);
    let mut next = 0;
    for (first, items) in &parts {
        if *first != next {
            return Err(broken("a list with a gap or an overlap"));
        }
        next += items.len() as u64;
    }
    Ok(parts.into_iter().flat_map(|(_, items)| items))
}

impl Ledger {
    /// Puts loaded blocks together, in any order.
    pub(in super::super) fn assemble(seed: u64, parts: Vec<Loading>) -> Result<Ledger, LoadError> {
        let mut sorted = Sorted::default();
        for part in parts {
            sorted.take(part)?;
        }
        let mut ledger = Ledger::new(seed);
        let ends = sorted.ends.unwrap_or_default();
        ledger.last_event = ends.last_event;
        ledger.digest = sorted.digest;
        sorted.accounts.sort_unstable_by_key(|(number, _)| *number);
        for ((number, record), expected) in sorted.accounts.into_iter().zip(0..) {
            if number != expected {
                return Err(broken("accounts with a gap or an overlap"));
            }
            ledger.load_account(record);
        }
        for record in list(sorted.transfers)? {
            ledger
                .load_transfer(record)
                .ok_or_else(|| broken("a transfer without its accounts or its hold"))?;
        }
        for id in list(sorted.burned)? {
            ledger.transfers.burn(id);
        }
        for expiry in list(sorted.expiries)? {
            ledger
                .load_expiry(expiry)
                .ok_or_else(|| broken("an expiry of what is no open hold"))?;
        }
        for row in list(sorted.rows)? {
            let is_known = u64::from(row.account) < ends.accounts;
            if !is_known || row.transfer >= ends.transfers.max(1) {
                return Err(broken("a row of a history without its account or transfer"));
            }
            ledger.history.push(row);
        }
        let counts = [
            (
                ledger.accounts.len() != ends.accounts,
                "another number of accounts",
            ),
            (
                ledger.transfers.len() != ends.transfers,
                "another number of transfers",
            ),
            (
                ledger.transfers.burned().len() != ends.burned,
                "another number of used-up ids",
            ),
            (
                ledger.holds.expiries().len() != ends.expiries,
                "another number of expiries",
            ),
            (
                ledger.history.rows().len() != ends.rows,
                "another number of rows",
            ),
        ];
        match first(&counts) {
            Some(what) => Err(broken(what)),
            None => Ok(ledger),
        }
    }

    fn load_account(&mut self, record: Account) {
        self.accounts.push(record);
        let sums = self.totals.of(record.ledger);
        sums.accounts += 1;
        sums.debit(record.debits_pending, record.debits_posted);
        sums.credit(record.credits_pending, record.credits_posted);
    }

    /// Hangs a transfer into the lists and indexes; balances are loaded, not made again.
    fn load_transfer(&mut self, record: Transfer) -> Option<()> {
        let debit = self.accounts.find(record.debit_account_id)?;
        let credit = self.accounts.find(record.credit_account_id)?;
        if debit == credit {
            return None;
        }
        let position = self.transfers.len();
        let mut entry = Entry {
            record,
            debit_before: self.accounts.slot(debit).last,
            credit_before: self.accounts.slot(credit).last,
            debit,
            credit,
            hold: 0,
        };
        if record.has(transfer_flags::PENDING) {
            entry.hold = self.holds.add(position, &entry) + 1;
        } else if record.has_any(transfer_flags::TWO_PHASE_END) {
            let status = match record.has(transfer_flags::VOID) {
                true => HoldStatus::Voided,
                false => HoldStatus::Posted,
            };
            entry.hold = self.end_hold(record.pending_id, status)? + 1;
        }
        self.transfers.push(hash_of(record.id, self.seed), entry);
        for number in [debit, credit] {
            let slot = self.accounts.slot_mut(number);
            slot.last = position + 1;
            slot.unmarked += 1;
            if slot.unmarked == MARK_EVERY {
                slot.unmarked = 0;
                self.transfers.mark(number, position);
            }
        }
        Some(())
    }

    fn end_hold(&mut self, pending_id: u128, status: HoldStatus) -> Option<u64> {
        let Some(Known::Transfer(position)) = self.transfers.find(pending_id) else {
            return None;
        };
        let held = *self.transfers.at(position);
        let hold = held.hold.checked_sub(1)?;
        let is_open = self.holds.at(hold).status == HoldStatus::Open;
        let is_hold = held.record.has(transfer_flags::PENDING);
        (is_open && is_hold).then(|| {
            self.holds.resolve(hold, &held, status);
            hold
        })
    }

    fn load_expiry(&mut self, expiry: Expiry) -> Option<()> {
        if expiry.hold >= self.holds.len() {
            return None;
        }
        let held = *self.transfers.at(self.holds.at(expiry.hold).transfer);
        self.end_hold(held.record.id, HoldStatus::Expired)?;
        self.holds.note_expiry(expiry);
        self.digest
            .add(sums::of_expiry(held.record.id, expiry.timestamp));
        Some(())
    }
}
