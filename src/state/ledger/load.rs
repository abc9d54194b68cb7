//! The ledger out of a snapshot: blocks, which may come in any order, and full segments.
//!
//! What follows from the items is not in the snapshot: indexes, marks by account, what became of
//! each hold. It is listed again here; the digests of the items are summed up by whoever reads
//! them, on several threads, and prove the whole.

use super::super::LoadError;
use super::super::digest::Digest;
use super::accounts::{SAVED_BYTES, Slot, first};
use super::batch::GROUP_EVENTS;
use super::history::{ROW_BYTES, Row, kind_of};
use super::holds::{Expiry, HoldStatus};
use super::list::{Item, List, digest_of};
use super::record::transfer_flags;
use super::transfers::{Entry, MARK_EVERY};
use super::walk::{Ends, Sorts};
use super::{Ledger, Segment, hash_of, sums};
use bytes::Bytes;

/// What each kind of a ledger's block holds: number in the header, bytes of an item, what it is.
pub const ITEMS: [(u8, usize, &str); 6] = [
    (
        2,
        Ends::BYTES,
        "the newest event's timestamp, and how many there are of each of the others",
    ),
    (
        3,
        SAVED_BYTES,
        "an account: its number, counted from 0, its record, the position of its newest transfer \
         plus 1 (u64), its transfers since the last mark (u32)",
    ),
    (4, Entry::BYTES, "a transfer and where it hangs"),
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

/// A loaded block or segment of the ledger, ready to be assembled.
#[derive(Debug)]
pub(in super::super) struct Loading {
    items: Items,
    digest: Digest,
}

#[derive(Debug)]
enum Items {
    Head(Ends),
    Accounts(Vec<(u64, Slot)>),
    /// Items of a list that no full segment has, from this position on.
    Run {
        sort: Sorts,
        first: u64,
        items: Bytes,
    },
    Full(Segment),
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
                let slots = body.as_chunks().0.iter().map(Slot::decode);
                let slots: Vec<_> = slots.collect();
                let records = slots.iter().map(|(_, slot)| &slot.record);
                records.for_each(|record| digest.add(sums::of_account(record)));
                Items::Accounts(slots)
            }
            list => {
                digest = sum(list, body)?;
                Items::Run {
                    sort: list,
                    first: u64::from_le_bytes(*first),
                    items: Bytes::copy_from_slice(body),
                }
            }
        };
        Some(Loading { items, digest })
    }

    /// What it counts in the digest of the whole.
    pub fn share(&self) -> Digest {
        match &self.items {
            Items::Head(ends) => sums::of_clock(ends.last_event),
            _ => self.digest,
        }
    }

    /// Reads a full segment; `None` if it is not of whole items of a list.
    pub fn of_segment(segment: Segment) -> Option<Loading> {
        let sort = Sorts::from_number(segment.sort)?;
        let digest = sum(sort, &segment.bytes)?;
        Some(Loading {
            items: Items::Full(segment),
            digest,
        })
    }
}

/// What the items of a list count in the digest; `None` if they are not whole or not known.
fn sum(sort: Sorts, items: &[u8]) -> Option<Digest> {
    fn sum_of<T: Item>(items: &[u8]) -> Option<Digest> {
        let (whole, []) = items.split_at(items.len() - items.len() % T::BYTES) else {
            return None;
        };
        let mut digest = Digest::default();
        let each = whole.chunks_exact(T::BYTES).map(digest_of::<T>);
        each.for_each(|one| digest.add(one));
        Some(digest)
    }
    match sort {
        Sorts::Head | Sorts::Accounts => None,
        Sorts::Transfers => sum_of::<Entry>(items),
        Sorts::Burned => sum_of::<u128>(items),
        Sorts::Expiries => sum_of::<Expiry>(items),
        Sorts::Rows => {
            let mut rows = items.chunks_exact(ROW_BYTES);
            rows.all(|row| kind_of(row).is_some())
                .then(|| sum_of::<Row>(items))?
        }
    }
}

/// What was loaded, by kind.
#[derive(Default)]
struct Sorted {
    ends: Option<Ends>,
    /// As they came: moved once only, for there may be gigabytes of them.
    accounts: Vec<Vec<(u64, Slot)>>,
    /// By list and number.
    full: Vec<(Segment, Digest)>,
    /// By list and first position.
    runs: Vec<(Sorts, u64, Bytes)>,
    digest_of_accounts: Digest,
}

impl Sorted {
    fn of(parts: Vec<Loading>) -> Result<Sorted, LoadError> {
        let mut sorted = Sorted::default();
        for Loading { items, digest } in parts {
            match items {
                Items::Head(_) if sorted.ends.is_some() => {
                    return Err(broken("a second ledger head"));
                }
                Items::Head(ends) => sorted.ends = Some(ends),
                Items::Accounts(items) => {
                    sorted.accounts.push(items);
                    sorted.digest_of_accounts.add(digest);
                }
                Items::Run { sort, first, items } => {
                    sorted.runs.push((sort, first, items));
                }
                Items::Full(segment) => sorted.full.push((segment, digest)),
            }
        }
        sorted
            .runs
            .sort_unstable_by_key(|(sort, first, _)| (*sort, *first));
        let place = |(one, _): &(Segment, Digest)| (one.sort, one.number);
        sorted.full.sort_unstable_by_key(place);
        Ok(sorted)
    }

    /// Puts the parts of one list behind each other; refuses gaps and overlaps.
    fn fill<T: Item>(&self, list: &mut List<T>) -> Result<(), LoadError> {
        for (segment, digest) in &self.full {
            if segment.sort == T::SORT as u8 {
                list.load(segment, *digest)
                    .ok_or(broken("segments with a gap, or of another size"))?;
            }
        }
        for (sort, first, items) in &self.runs {
            if *sort == T::SORT {
                list.load_items(*first, items)
                    .ok_or(broken("a list with a gap or an overlap"))?;
            }
        }
        Ok(())
    }
}

fn broken(what: &'static str) -> LoadError {
    LoadError::Ledger { what }
}

impl Ledger {
    /// Puts loaded parts together, in any order.
    pub(in super::super) fn assemble(
        seed: u64,
        shift: u32,
        parts: Vec<Loading>,
    ) -> Result<Ledger, LoadError> {
        let mut sorted = Sorted::of(parts)?;
        let mut ledger = Ledger::with_segments(seed, shift);
        let ends = sorted.ends.unwrap_or_default();
        ledger.last_event = ends.last_event;
        ledger.digest = sorted.digest_of_accounts;
        sorted.fill(ledger.transfers.log_mut())?;
        sorted.fill(ledger.transfers.burned_mut())?;
        sorted.fill(ledger.holds.expiries_mut())?;
        sorted.fill(ledger.history.rows_mut())?;
        let accounts = std::mem::take(&mut sorted.accounts);
        drop(sorted);
        let counts = [
            (
                accounts.iter().map(Vec::len).sum::<usize>() as u64 != ends.accounts,
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
        if let Some(what) = first(&counts) {
            return Err(broken(what));
        }
        ledger.load_accounts(accounts)?;
        ledger.list_transfers()?;
        ledger.list_expiries()?;
        ledger.list_rows()?;
        Ok(ledger)
    }

    fn load_accounts(&mut self, parts: Vec<Vec<(u64, Slot)>>) -> Result<(), LoadError> {
        let mut order = Vec::with_capacity(parts.iter().map(Vec::len).sum());
        for (part, accounts) in parts.iter().enumerate() {
            let numbers = accounts.iter().map(|(number, _)| *number);
            order.extend(numbers.zip(0u32..).map(|(number, at)| (number, part, at)));
        }
        // Nearly all come in long runs, which a stable sort only merges.
        order.sort();
        self.accounts.reserve(order.len() as u64);
        let transfers = self.transfers.len();
        for ((number, part, at), expected) in order.into_iter().zip(0..) {
            let slot = parts[part][at as usize].1;
            if number != expected {
                return Err(broken("accounts with a gap or an overlap"));
            }
            if slot.last > transfers || slot.unmarked >= MARK_EVERY {
                return Err(broken("an account whose newest transfer is not there"));
            }
            let record = &slot.record;
            let sums = self.totals.of(record.ledger);
            sums.accounts += 1;
            sums.debit(record.debits_pending, record.debits_posted);
            sums.credit(record.credits_pending, record.credits_posted);
            self.accounts.load(slot);
        }
        Ok(())
    }

    /// Lists every transfer by its id, marks and holds.
    fn list_transfers(&mut self) -> Result<(), LoadError> {
        let burned = self.transfers.burned().len();
        self.transfers.reserve(self.transfers.len() + burned);
        let end = self.transfers.len();
        let mut hashes = [0; GROUP_EVENTS];
        for first in (0..end).step_by(GROUP_EVENTS) {
            let group = first..end.min(first + GROUP_EVENTS as u64);
            // As in `Ledger::look_up`: the waits for memory overlap.
            let mut seen = 0;
            for (hash, position) in hashes.iter_mut().zip(group.clone()) {
                *hash = hash_of(self.transfers.id_at(position), self.seed);
                seen ^= self.transfers.touch(*hash);
            }
            std::hint::black_box(seen);
            for (hash, position) in hashes.iter().zip(group) {
                let entry = self.transfers.at(position);
                self.load_hold(position, &entry)
                    .ok_or(broken("a transfer without its accounts or its hold"))?;
                self.transfers.enlist(*hash, position, &entry);
            }
        }
        for at in 0..burned {
            let id = self.transfers.burned().at(at);
            self.transfers.enlist_burned(id, at);
        }
        Ok(())
    }

    fn load_hold(&mut self, position: u64, entry: &Entry) -> Option<()> {
        let accounts = self.accounts.len();
        let hangs = |side: super::Side| side.before <= position && accounts > side.account.into();
        let [debit, credit] = entry.sides();
        if !hangs(debit) || !hangs(credit) || debit.account == credit.account {
            return None;
        }
        let record = &entry.record;
        if record.has(transfer_flags::PENDING) {
            let number = self.holds.load(position);
            return (entry.hold == number + 1).then_some(());
        }
        if !record.has_any(transfer_flags::TWO_PHASE_END) {
            return (entry.hold == 0).then_some(());
        }
        let status = match record.has(transfer_flags::VOID) {
            true => HoldStatus::Voided,
            false => HoldStatus::Posted,
        };
        self.holds.load_end(entry.hold.checked_sub(1)?, status)
    }

    fn list_expiries(&mut self) -> Result<(), LoadError> {
        for at in 0..self.holds.expiries().len() {
            let hold = self.holds.expiries().at(at).hold;
            self.holds
                .load_end(hold, HoldStatus::Expired)
                .ok_or(broken("an expiry of what is no open hold"))?;
        }
        let transfers = &self.transfers;
        self.holds.list_open(|position| transfers.at(position));
        Ok(())
    }

    fn list_rows(&mut self) -> Result<(), LoadError> {
        let (accounts, transfers) = (self.accounts.len(), self.transfers.len());
        for at in 0..self.history.rows().len() {
            let row = self.history.rows().at(at);
            if accounts <= row.account.into() || row.transfer >= transfers.max(1) {
                return Err(broken("a row of a history without its account or transfer"));
            }
            self.history.enlist(at, &row);
        }
        Ok(())
    }
}
