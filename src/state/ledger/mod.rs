//! Double-entry books: accounts, transfers between them, holds; deterministic, pure.
//!
//! The data model is TigerBeetle's published one; `docs/ledger.md` tells it, and where this ledger
//! differs. Read in this order: `record.rs` (what an account and a transfer are), `batch.rs` (how
//! a batch runs), `accounts.rs`, `moving.rs` and `two_phase.rs` (what is refused, in which order),
//! this file (what an accepted event does), `query.rs`, `audit.rs`.
//!
//! A chain that breaks is taken back event by event from the newest on: whatever an event did
//! follows from its entry, so nothing is noted for it while all goes well.
//!
//! I7: in every ledger the sum of all debits equals the sum of all credits, posted and pending.

mod accounts;
mod audit;
mod batch;
mod differing;
mod history;
mod holds;
mod index;
mod list;
mod load;
mod moving;
mod query;
pub mod record;
mod segments;
pub mod status;
mod sums;
#[cfg(test)]
mod tests;
mod transfers;
mod two_phase;
mod walk;

pub use audit::Audit;
pub use history::{Row, RowKind};
pub use holds::HoldStatus;
pub use list::{BLAKE3_BYTES, SEGMENT_SHIFT, Segment};
pub use load::ITEMS;
pub(super) use load::Loading;
pub use query::{Filter, FilterError, Page, filter_flags};
pub use record::{ACCOUNT, Account, RECORD_BYTES, TRANSFER, Transfer};
pub use status::{ACCOUNT_STATUSES, TRANSFER_STATUSES, TransferStatus};
pub use status::{AccountStatus, CREATED, EventResult, Outcome, RESULT_BYTES, Status};
pub use sums::Sums;
pub use transfers::ENTRY;
pub(super) use walk::Sorts;

use super::digest::Digest;
use accounts::Accounts;
use batch::GROUP_EVENTS;
use history::{History, Row as HistoryRow};
use holds::{Expiry, HoldStatus as Ended, Holds};
use moving::{Found, Sides};
use record::{Bytes128, account_flags, transfer_flags};
use sums::{Change, Totals};
use transfers::{Entry, MARK_EVERY, Side, Transfers};
use walk::Walk;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Events of one batch: what a client of the model expects.
pub const BATCH_EVENTS_MAX: usize = crate::limits::LEDGER_EVENTS_MAX;

/// The books. Changed by batches and by the expiry of holds alone.
#[derive(Debug)]
pub struct Ledger {
    /// Seeds the hash of ids, which nobody sees: the same on every node of a cluster.
    seed: u64,
    /// Timestamp of the newest event, refused ones included; 0: there was none.
    last_event: u64,
    accounts: Accounts,
    transfers: Transfers,
    holds: Holds,
    history: History,
    totals: Totals,
    /// Over accounts: lists keep their own.
    digest: Digest,
    /// While a snapshot is taken.
    walk: Option<Walk>,
    /// Number of the newest snapshot: accounts that carry it are saved.
    walks: u32,
}

/// How far the books went at some point, to take back what came after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    accounts: u64,
    transfers: u64,
    rows: u64,
}

/// The hash of an account's or a transfer's id.
fn hash_of(id: u128, seed: u64) -> u64 {
    xxh3_64_with_seed(&id.to_le_bytes(), seed)
}

impl Ledger {
    pub fn new(seed: u64) -> Ledger {
        Ledger::with_segments(seed, SEGMENT_SHIFT)
    }

    /// A ledger whose segments have 2^`shift` items.
    pub fn with_segments(seed: u64, shift: u32) -> Ledger {
        Ledger {
            seed,
            last_event: 0,
            accounts: Accounts::new(seed),
            transfers: Transfers::new(seed, shift),
            holds: Holds::new(shift),
            history: History::new(shift),
            totals: Totals::default(),
            digest: Digest::default(),
            walk: None,
            walks: 0,
        }
    }

    /// Creates the accounts of a batch of whole records; `now` is the log time in ns. One result
    /// per event, in order.
    pub fn create_accounts(&mut self, now: u64, batch: &[u8]) -> Vec<EventResult<AccountStatus>> {
        self.run::<Account>(now, batch)
    }

    /// Creates the transfers of a batch of whole records; `now` is the log time in ns. One result
    /// per event, in order.
    pub fn create_transfers(&mut self, now: u64, batch: &[u8]) -> Vec<EventResult<TransferStatus>> {
        self.run::<Transfer>(now, batch)
    }

    /// Releases up to `max` holds that are due by log time `now` in ns: the longest due first, of
    /// those the oldest. Answers how many.
    pub fn expire_due(&mut self, now: u64, max: usize) -> usize {
        for done in 0..max {
            match self.holds.first_ending() {
                Some((at, hold)) if at <= now => {
                    let time = now.max(self.last_event + 1);
                    self.last_event = time;
                    self.expire(hold, time);
                }
                _ => {
                    self.totals.assert_balanced();
                    return done;
                }
            }
        }
        self.totals.assert_balanced();
        max
    }

    /// When the first open hold expires, in ns, swept or not.
    pub fn next_deadline(&self) -> Option<u64> {
        self.holds.first_ending().map(|(at, _)| at)
    }

    /// The earliest expiry of a hold above `now`, in ns.
    pub fn next_expiry(&self, now: u64) -> Option<u64> {
        self.holds.next_after(now)
    }

    /// Covers everything: records, balances, holds, used-up ids, history, the newest timestamp.
    pub fn digest(&self) -> Digest {
        let mut digest = self.digest;
        digest.add(self.transfers.log().digest());
        digest.add(self.transfers.burned().digest());
        digest.add(self.holds.expiries().digest());
        digest.add(self.history.rows().digest());
        digest.add(sums::of_clock(self.last_event));
        digest
    }

    /// Number of accounts.
    pub fn accounts(&self) -> u64 {
        self.accounts.len()
    }

    /// Number of transfers.
    pub fn transfers(&self) -> u64 {
        self.transfers.len()
    }

    /// Number of holds that are neither posted, voided nor expired.
    pub fn open_holds(&self) -> u64 {
        self.holds.open_len()
    }

    /// Heap bytes held.
    pub fn used_bytes(&self) -> u64 {
        self.accounts.allocated_bytes()
            + self.transfers.allocated_bytes()
            + self.holds.allocated_bytes()
            + self.history.allocated_bytes()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            accounts: self.accounts.len(),
            transfers: self.transfers.len(),
            rows: self.history.rows().len(),
        }
    }

    /// Takes back every event since `to`, the newest first. Ids that refusals have used up stay
    /// used up.
    pub(super) fn roll_back(&mut self, to: Mark) {
        while self.history.rows().len() > to.rows {
            self.history.pop();
        }
        while self.transfers.len() > to.transfers {
            self.withdraw();
        }
        while self.accounts.len() > to.accounts {
            let account = self.accounts.pop().expect("counted above");
            self.digest.subtract(sums::of_account(&account));
            self.totals.of(account.ledger).accounts -= 1;
        }
    }

    /// Brings what transfers of one command each will look up into the processor's caches; of more
    /// than `GROUP_EVENTS` only the first count.
    pub fn warm<'a>(&self, events: impl Iterator<Item = &'a Bytes128>) {
        self.look_up(events, &mut [Found::default(); GROUP_EVENTS]);
    }

    /// Looks up the accounts of a group of transfers, and touches where their ids will stand: with
    /// many accounts and transfers each look-up waits for memory. Loops of few instructions let
    /// the processor wait for many at once.
    fn look_up<'a>(
        &self,
        events: impl Iterator<Item = &'a Bytes128>,
        found: &mut [Found; GROUP_EVENTS],
    ) {
        let hash = |id| hash_of(id, self.seed);
        let mut sides = [(0, 0); GROUP_EVENTS];
        let mut hashes = [(0, 0); GROUP_EVENTS];
        let mut count = 0;
        for (at, bytes) in events.take(GROUP_EVENTS).enumerate() {
            let event = Transfer::decode(bytes);
            sides[at] = (event.debit_account_id, event.credit_account_id);
            hashes[at] = (hash(sides[at].0), hash(sides[at].1));
            found[at].hash = hash(event.id);
            count = at + 1;
        }
        let mut seen = 0;
        for found in &found[..count] {
            seen ^= self.transfers.touch(found.hash);
        }
        let mut guesses = [(None, None); GROUP_EVENTS];
        for (guess, hash) in guesses.iter_mut().zip(&hashes[..count]) {
            *guess = (self.accounts.touch(hash.0), self.accounts.touch(hash.1));
        }
        for (debit, credit) in &guesses[..count] {
            seen ^= self.accounts.touch_slot(*debit) ^ self.accounts.touch_slot(*credit);
        }
        for at in 0..count {
            found[at].debit = self.accounts.find_hashed(hashes[at].0, sides[at].0);
            found[at].credit = self.accounts.find_hashed(hashes[at].1, sides[at].1);
        }
        std::hint::black_box(seen);
    }

    /// Whether an imported timestamp is not above the newest of its kind, or is taken.
    fn regresses(&self, timestamp: u64, newest: Option<u64>) -> bool {
        newest.is_some_and(|newest| timestamp <= newest)
            || self.accounts.is_at(timestamp)
            || self.transfers.is_at(timestamp)
    }

    /// The flags that an account was created with: one that a transfer has closed was open then.
    fn flags_at_creation(&self, number: u32) -> u16 {
        let flags = self.accounts.record(number).flags;
        let closed_by_hold = self.holds.open_of(number).any(|hold| {
            let entry = self.transfers.at(self.holds.at(hold).transfer);
            closes(&entry).contains(&Some(number))
        });
        if closed_by_hold {
            flags & !account_flags::CLOSED
        } else {
            flags
        }
    }

    fn open_account(&mut self, record: Account, time: u64) {
        let number = self.accounts.push(record);
        self.digest.add(sums::of_account(&record));
        self.totals.of(record.ledger).accounts += 1;
        if record.has(account_flags::HISTORY) {
            let mut row = HistoryRow::of(&record, number);
            row.happened = time;
            self.history.push(row);
        }
    }

    fn burn(&mut self, id: u128) {
        self.transfers.burn(id);
    }

    /// Stores an accepted transfer and does what it says. `resolves` is the hold that it ends.
    fn enter(
        &mut self,
        hash: u64,
        record: Transfer,
        sides: Sides,
        resolves: Option<u64>,
        time: u64,
    ) {
        let position = self.transfers.len();
        let mut entry = Entry {
            record,
            debit: self.side_of(sides.debit),
            credit: self.side_of(sides.credit),
            hold: resolves.map_or(0, |hold| hold + 1),
        };
        if record.has(transfer_flags::PENDING) {
            entry.hold = self.holds.add(position, &entry) + 1;
        }
        if let Some(hold) = resolves {
            let held = self.transfers.at(self.holds.at(hold).transfer);
            let status = match record.has(transfer_flags::VOID) {
                true => Ended::Voided,
                false => Ended::Posted,
            };
            self.holds.resolve(hold, &held, status);
        }
        self.change(&entry, self.change_of(&entry));
        self.close_or_reopen(&entry, true);
        self.transfers.push(hash, entry);
        for side in entry.sides() {
            let slot = self.accounts.slot_mut(side.account);
            slot.last = position + 1;
            slot.unmarked = if side.is_mark { 0 } else { slot.unmarked + 1 };
        }
        self.note_balances(&entry, position, record.timestamp, time, RowKind::Transfer);
    }

    /// How the next transfer hangs at an account.
    fn side_of(&self, account: u32) -> Side {
        let slot = self.accounts.slot(account);
        Side {
            account,
            before: slot.last,
            is_mark: slot.unmarked + 1 == MARK_EVERY,
        }
    }

    /// Takes the newest transfer back.
    fn withdraw(&mut self) {
        let entry = self.transfers.pop();
        for side in entry.sides() {
            let slot = self.accounts.slot_mut(side.account);
            slot.last = side.before;
            slot.unmarked = match side.is_mark {
                true => MARK_EVERY - 1,
                false => slot.unmarked - 1,
            };
        }
        self.close_or_reopen(&entry, false);
        self.change(&entry, self.change_of(&entry).reversed());
        if entry.record.has(transfer_flags::PENDING) {
            self.holds.pop(&entry);
        } else if let Some(hold) = entry.hold.checked_sub(1) {
            let held = self.transfers.at(self.holds.at(hold).transfer);
            self.holds.reopen(hold, &held);
        }
    }

    /// Releases a hold that is due.
    fn expire(&mut self, hold: u64, time: u64) {
        let position = self.holds.at(hold).transfer;
        let held = self.transfers.at(position);
        self.holds.resolve(hold, &held, Ended::Expired);
        self.holds.note_expiry(Expiry {
            hold,
            timestamp: time,
        });
        let pending = held.record.amount.wrapping_neg();
        self.change(&held, Change { pending, posted: 0 });
        for number in closes(&held).into_iter().flatten() {
            self.set_closed(number, false);
        }
        self.note_balances(&held, position, time, time, RowKind::Expiry);
    }

    /// What an entry does to the debits of one account and to the credits of the other.
    fn change_of(&self, entry: &Entry) -> Change {
        let record = &entry.record;
        if record.has(transfer_flags::PENDING) {
            return Change {
                pending: record.amount,
                posted: 0,
            };
        }
        let Some(hold) = entry.hold.checked_sub(1) else {
            return Change {
                pending: 0,
                posted: record.amount,
            };
        };
        let held = self.transfers.at(self.holds.at(hold).transfer);
        let is_void = record.has(transfer_flags::VOID);
        Change {
            pending: held.record.amount.wrapping_neg(),
            posted: if is_void { 0 } else { record.amount },
        }
    }

    fn change(&mut self, entry: &Entry, change: Change) {
        let Change { pending, posted } = change;
        for side in entry.sides() {
            self.save(side.account);
        }
        let debit = &mut self.accounts.slot_mut(entry.debit.account).record;
        debit.debits_pending = debit.debits_pending.wrapping_add(pending);
        debit.debits_posted = debit.debits_posted.wrapping_add(posted);
        self.digest.add(sums::of_debit(debit.id, change));
        self.totals.of(debit.ledger).debit(pending, posted);
        let credit = &mut self.accounts.slot_mut(entry.credit.account).record;
        credit.credits_pending = credit.credits_pending.wrapping_add(pending);
        credit.credits_posted = credit.credits_posted.wrapping_add(posted);
        self.digest.add(sums::of_credit(credit.id, change));
        self.totals.of(credit.ledger).credit(pending, posted);
    }

    /// Closes what a closing hold closes, and opens it when that is voided; or takes it back.
    fn close_or_reopen(&mut self, entry: &Entry, forward: bool) {
        let record = &entry.record;
        if record.has(transfer_flags::PENDING) {
            for number in closes(entry).into_iter().flatten() {
                self.set_closed(number, forward);
            }
        } else if record.has(transfer_flags::VOID) {
            let hold = entry.hold - 1;
            let held = self.transfers.at(self.holds.at(hold).transfer);
            for number in closes(&held).into_iter().flatten() {
                self.set_closed(number, !forward);
            }
        }
    }

    fn set_closed(&mut self, number: u32, closed: bool) {
        self.save(number);
        let account = &mut self.accounts.slot_mut(number).record;
        assert_ne!(
            account.has(account_flags::CLOSED),
            closed,
            "only an open account is closed, only a closed one opened"
        );
        account.flags ^= account_flags::CLOSED;
        let digest = sums::of_closed(account.id);
        if closed {
            self.digest.add(digest);
        } else {
            self.digest.subtract(digest);
        }
    }

    /// Notes the balances of those accounts of an entry that keep a history.
    fn note_balances(
        &mut self,
        entry: &Entry,
        position: u64,
        timestamp: u64,
        happened: u64,
        kind: RowKind,
    ) {
        for Side {
            account: number, ..
        } in entry.sides()
        {
            let account = self.accounts.record(number);
            if account.has(account_flags::HISTORY) {
                self.history.push(HistoryRow {
                    timestamp,
                    happened,
                    transfer: position,
                    kind,
                    ..HistoryRow::of(account, number)
                });
            }
        }
    }

    /// Called before an account's record changes: a snapshot under way gets it as it is.
    fn save(&mut self, number: u32) {
        if let Some(walk) = &mut self.walk {
            walk.save(number, self.accounts.slot_mut(number));
        }
    }
}

/// The accounts that a hold closes.
fn closes(entry: &Entry) -> [Option<u32>; 2] {
    let by = |flag, number| entry.record.has(flag).then_some(number);
    [
        by(transfer_flags::CLOSING_DEBIT, entry.debit.account),
        by(transfer_flags::CLOSING_CREDIT, entry.credit.account),
    ]
}
