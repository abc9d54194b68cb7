//! The balances of accounts with the history flag after every event: a statement's rows.
//!
//! Other than in TigerBeetle a history begins with a row of zeros at the account's creation, and a
//! hold that expires has a row of its own: a statement misses nothing.

use super::list::{Item, List};
use super::record::Account;
use super::walk::Sorts;
use std::collections::BTreeMap;

/// What a row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowKind {
    /// The account was created.
    Opening,
    /// A transfer debited or credited it.
    Transfer,
    /// One of its holds expired.
    Expiry,
}

impl RowKind {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            RowKind::Opening => "OPENING",
            RowKind::Transfer => "TRANSFER",
            RowKind::Expiry => "EXPIRY",
        }
    }

    pub(super) fn number(self) -> u32 {
        match self {
            RowKind::Opening => 0,
            RowKind::Transfer => 1,
            RowKind::Expiry => 2,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<RowKind> {
        [RowKind::Opening, RowKind::Transfer, RowKind::Expiry]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// An account's balances right after an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
    /// That of the account, the transfer or the expiry.
    pub timestamp: u64,
    /// Log time at which it happened: rises from row to row, also where timestamps are imported.
    pub happened: u64,
    /// Position of the transfer or of the hold that expired; of an opening 0.
    pub(super) transfer: u64,
    /// Number of the account.
    pub(super) account: u32,
    pub kind: RowKind,
}

/// Bytes of a row in a snapshot and under its digest.
pub(super) const ROW_BYTES: usize = 96;

impl Item for Row {
    type Encoded = [u8; ROW_BYTES];
    const BYTES: usize = ROW_BYTES;
    const SORT: Sorts = Sorts::Rows;

    fn encode(&self) -> [u8; ROW_BYTES] {
        let mut out = [0; ROW_BYTES];
        out[..16].copy_from_slice(&self.debits_pending.to_le_bytes());
        out[16..32].copy_from_slice(&self.debits_posted.to_le_bytes());
        out[32..48].copy_from_slice(&self.credits_pending.to_le_bytes());
        out[48..64].copy_from_slice(&self.credits_posted.to_le_bytes());
        out[64..72].copy_from_slice(&self.timestamp.to_le_bytes());
        out[72..80].copy_from_slice(&self.happened.to_le_bytes());
        out[80..88].copy_from_slice(&self.transfer.to_le_bytes());
        out[88..92].copy_from_slice(&self.account.to_le_bytes());
        out[92..].copy_from_slice(&self.kind.number().to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Row {
        let (wide, _) = bytes.as_chunks::<16>();
        let [
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
        ] = std::array::from_fn(|at| u128::from_le_bytes(wide[at]));
        let (times, _) = bytes[64..].as_chunks::<8>();
        let (numbers, _) = bytes[88..].as_chunks::<4>();
        Row {
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            timestamp: u64::from_le_bytes(times[0]),
            happened: u64::from_le_bytes(times[1]),
            transfer: u64::from_le_bytes(times[2]),
            account: u32::from_le_bytes(numbers[0]),
            kind: kind_of(bytes).expect("an unknown kind is not loaded"),
        }
    }
}

/// The kind of an encoded row; `None`: this program does not know it.
pub(super) fn kind_of(row: &[u8]) -> Option<RowKind> {
    RowKind::from_number(u32::from_le_bytes(*row.last_chunk()?))
}

impl Row {
    /// The balances that `account` has now.
    pub(super) fn of(account: &Account, number: u32) -> Row {
        Row {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
            timestamp: account.timestamp,
            happened: account.timestamp,
            transfer: 0,
            account: number,
            kind: RowKind::Opening,
        }
    }
}

/// All rows in the order in which they happened.
#[derive(Debug)]
pub(super) struct History {
    rows: List<Row>,
    /// Positions of an account's rows, ascending.
    by_account: BTreeMap<u32, Vec<u64>>,
}

impl History {
    pub fn new(shift: u32) -> History {
        History {
            rows: List::new(shift),
            by_account: BTreeMap::new(),
        }
    }

    pub fn rows(&self) -> &List<Row> {
        &self.rows
    }

    pub fn rows_mut(&mut self) -> &mut List<Row> {
        &mut self.rows
    }

    pub fn push(&mut self, row: Row) {
        let at = self.rows.push(row);
        self.enlist(at, &row);
    }

    /// Lists a row that stands among the rows.
    pub fn enlist(&mut self, at: u64, row: &Row) {
        self.by_account.entry(row.account).or_default().push(at);
    }

    /// Takes back the newest row.
    pub fn pop(&mut self) -> Row {
        let row = self.rows.pop().expect("only what was pushed is taken back");
        let positions = self.by_account.get_mut(&row.account);
        let positions = positions.expect("every row is listed by its account");
        positions.pop();
        if positions.is_empty() {
            self.by_account.remove(&row.account);
        }
        row
    }

    /// Positions of an account's rows, ascending.
    pub fn of(&self, account: u32) -> &[u64] {
        self.by_account.get(&account).map_or(&[], Vec::as_slice)
    }

    pub fn allocated_bytes(&self) -> u64 {
        // Positions are 8 bytes, in lists that double.
        const LISTED_BYTES: u64 = 12;
        self.rows.allocated_bytes() + self.rows.len() * LISTED_BYTES
    }
}
