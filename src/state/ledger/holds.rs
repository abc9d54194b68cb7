//! Holds: pending transfers, what became of each, and which of the open ones end when.

use super::list::{Item, List};
use super::segments::Segments;
use super::transfers::Entry;
use super::walk::Sorts;
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

/// A hold as eight bytes: its status in the lowest bits, above them its transfer's position.
#[derive(Clone, Copy, Debug)]
struct Packed(u64);

impl Packed {
    fn new(hold: Hold) -> Packed {
        Packed(hold.transfer << 2 | hold.status as u64)
    }

    fn hold(self) -> Hold {
        let status = match self.0 & 3 {
            0 => HoldStatus::Open,
            1 => HoldStatus::Posted,
            2 => HoldStatus::Voided,
            _ => HoldStatus::Expired,
        };
        Hold {
            transfer: self.0 >> 2,
            status,
        }
    }
}

/// A hold that ended by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Expiry {
    /// Number of the hold.
    pub hold: u64,
    /// When it was released, in ns of log time.
    pub timestamp: u64,
}

impl Item for Expiry {
    type Encoded = [u8; 16];
    const BYTES: usize = 16;
    const SORT: Sorts = Sorts::Expiries;

    fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.hold.to_le_bytes());
        out[8..].copy_from_slice(&self.timestamp.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Expiry {
        let (numbers, _) = bytes.as_chunks::<8>();
        Expiry {
            hold: u64::from_le_bytes(numbers[0]),
            timestamp: u64::from_le_bytes(numbers[1]),
        }
    }
}

/// All holds, numbered from 0 in the order of their creation.
#[derive(Debug)]
pub(super) struct Holds {
    all: Segments<Packed>,
    /// Open ones with a timeout: (when they expire in ns, number).
    ending: BTreeSet<(u64, u64)>,
    /// Open ones: (number of an account, number), twice each.
    open: BTreeSet<(u32, u64)>,
    /// In the order in which they happened.
    expiries: List<Expiry>,
}

impl Holds {
    pub fn new(shift: u32) -> Holds {
        Holds {
            all: Segments::new(),
            ending: BTreeSet::new(),
            open: BTreeSet::new(),
            expiries: List::new(shift),
        }
    }

    pub fn open_len(&self) -> u64 {
        self.open.len() as u64 / 2
    }

    pub fn at(&self, number: u64) -> Hold {
        self.all.at(number).hold()
    }

    /// Adds the hold of a pending transfer that is about to stand at `transfer`.
    pub fn add(&mut self, transfer: u64, entry: &Entry) -> u64 {
        let number = self.load(transfer);
        self.insert(number, entry);
        number
    }

    /// Adds a hold that `list_open` will list, if nothing ends it meanwhile.
    pub fn load(&mut self, transfer: u64) -> u64 {
        let status = HoldStatus::Open;
        self.all.push(Packed::new(Hold { transfer, status }))
    }

    /// As `resolve`, of a hold that is not listed yet; `None`: there is no such open hold.
    pub fn load_end(&mut self, number: u64, status: HoldStatus) -> Option<()> {
        let hold = self.all.get(number)?.hold();
        (hold.status == HoldStatus::Open).then(|| self.set(number, status))
    }

    /// Lists those that are open, once all are loaded.
    pub fn list_open(&mut self, entry_at: impl Fn(u64) -> Entry) {
        for number in 0..self.all.len() {
            let hold = self.at(number);
            if hold.status == HoldStatus::Open {
                self.insert(number, &entry_at(hold.transfer));
            }
        }
    }

    fn set(&mut self, number: u64, status: HoldStatus) {
        let hold = self.all.at_mut(number);
        let transfer = hold.hold().transfer;
        *hold = Packed::new(Hold { transfer, status });
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
        let before = self.at(number).status;
        assert_eq!(before, HoldStatus::Open, "I7: a hold ends once");
        self.set(number, status);
    }

    /// Takes back that a hold has ended.
    pub fn reopen(&mut self, number: u64, entry: &Entry) {
        self.set(number, HoldStatus::Open);
        self.insert(number, entry);
    }

    /// Notes that a resolved hold ended by itself.
    pub fn note_expiry(&mut self, expiry: Expiry) {
        self.expiries.push(expiry);
    }

    pub fn expiries(&self) -> &List<Expiry> {
        &self.expiries
    }

    pub fn expiries_mut(&mut self) -> &mut List<Expiry> {
        &mut self.expiries
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
        self.open.insert((entry.debit.account, number));
        self.open.insert((entry.credit.account, number));
    }

    fn remove(&mut self, number: u64, entry: &Entry) {
        if let Some(at) = entry.record.expires_at() {
            self.ending.remove(&(at, number));
        }
        self.open.remove(&(entry.debit.account, number));
        self.open.remove(&(entry.credit.account, number));
    }
}
