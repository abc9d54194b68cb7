//! Holds: pending transfers, what became of each, and which of the open ones end when.

use super::segments::Segments;
use super::transfers::Entry;
use std::collections::BTreeSet;
use std::ops::Bound;

/// What became of a hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldStatus {
    Open,
    Posted,
    Voided,
    Expired,
}

impl HoldStatus {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            HoldStatus::Open => "PENDING",
            HoldStatus::Posted => "POSTED",
            HoldStatus::Voided => "VOIDED",
            HoldStatus::Expired => "EXPIRED",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hold {
    /// Position of the pending transfer.
    pub transfer: u64,
    pub status: HoldStatus,
}

/// A hold that ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expiry {
    /// Number of the hold.
    pub hold: u64,
    /// When it was released, in ns of log time.
    pub timestamp: u64,
}

/// All holds, numbered from 0 in the order of their creation.
#[derive(Debug)]
pub(super) struct Holds {
    all: Segments<Hold>,
    /// Open ones with a timeout: (when they expire in ns, number).
    ending: BTreeSet<(u64, u64)>,
    /// Open ones: (number of an account, number), twice each.
    open: BTreeSet<(u32, u64)>,
    /// In the order in which they happened.
    expiries: Segments<Expiry>,
}

impl Holds {
    pub fn new() -> Holds {
        Holds {
            all: Segments::new(),
            ending: BTreeSet::new(),
            open: BTreeSet::new(),
            expiries: Segments::new(),
        }
    }

    pub fn len(&self) -> u64 {
        self.all.len()
    }

    pub fn open_len(&self) -> u64 {
        self.open.len() as u64 / 2
    }

    pub fn at(&self, number: u64) -> &Hold {
        self.all.at(number)
    }

    /// Adds the hold of a pending transfer that is about to stand at `transfer`.
    pub fn add(&mut self, transfer: u64, entry: &Entry) -> u64 {
        let status = HoldStatus::Open;
        let number = self.all.push(Hold { transfer, status });
        self.insert(number, entry);
        number
    }

    /// Takes back the newest hold, which is open; `entry` is its pending transfer.
    pub fn pop(&mut self, entry: &Entry) {
        let number = self.all.len() - 1;
        self.remove(number, entry);
        self.all.pop();
    }

    /// An open hold ends; `entry` is its pending transfer.
    pub fn resolve(&mut self, number: u64, entry: &Entry, status: HoldStatus) {
        self.remove(number, entry);
        let hold = self.all.at_mut(number);
        assert_eq!(hold.status, HoldStatus::Open, "I7: a hold ends once");
        hold.status = status;
    }

    /// Takes back that a hold has ended.
    pub fn reopen(&mut self, number: u64, entry: &Entry) {
        self.all.at_mut(number).status = HoldStatus::Open;
        self.insert(number, entry);
    }

    /// Notes that a resolved hold ended by itself.
    pub fn note_expiry(&mut self, expiry: Expiry) {
        self.expiries.push(expiry);
    }

    pub fn expiries(&self) -> &Segments<Expiry> {
        &self.expiries
    }

    /// The first open hold to expire: when, and its number.
    pub fn first_ending(&self) -> Option<(u64, u64)> {
        self.ending.first().copied()
    }

    /// The earliest expiry above `now`.
    pub fn next_after(&self, now: u64) -> Option<u64> {
        let after = (Bound::Excluded((now, u64::MAX)), Bound::Unbounded);
        self.ending.range(after).next().map(|(at, _)| *at)
    }

    /// Numbers of an account's open holds, oldest first.
    pub fn open_of(&self, account: u32) -> impl Iterator<Item = u64> {
        let range = self.open.range((account, 0)..=(account, u64::MAX));
        range.map(|(_, number)| *number)
    }

    pub fn allocated_bytes(&self) -> u64 {
        // A node of a tree is about two thirds full.
        const ENDING_BYTES: u64 = 24;
        const OPEN_BYTES: u64 = 24;
        self.all.allocated_bytes()
            + self.expiries.allocated_bytes()
            + self.ending.len() as u64 * ENDING_BYTES
            + self.open.len() as u64 * OPEN_BYTES
    }

    fn insert(&mut self, number: u64, entry: &Entry) {
        if let Some(at) = entry.record.expires_at() {
            self.ending.insert((at, number));
        }
        self.open.insert((entry.debit, number));
        self.open.insert((entry.credit, number));
    }

    fn remove(&mut self, number: u64, entry: &Entry) {
        if let Some(at) = entry.record.expires_at() {
            self.ending.remove(&(at, number));
        }
        self.open.remove(&(entry.debit, number));
        self.open.remove(&(entry.credit, number));
    }
}
