//! What proves the books: running sums per ledger (I7), and each part's share of the digest.
//!
//! Everything is counted modulo 2^128, so that taking back is as exact as adding. An account's
//! balances count in the digest by a weight that depends on its id and on which balance it is:
//! a transfer changes the digest by two multiplications, not by hashing two accounts.

use super::super::digest::Digest;
use super::record::{Account, account_flags};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// A change of one side of an account, modulo 2^128.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Change {
    pub pending: u128,
    pub posted: u128,
}

impl Change {
    /// What takes it back.
    pub fn reversed(self) -> Change {
        Change {
            pending: self.pending.wrapping_neg(),
            posted: self.posted.wrapping_neg(),
        }
    }
}

/// Sums over all accounts of one ledger, modulo 2^128.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sums {
    pub accounts: u64,
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
}

impl Sums {
    pub fn debit(&mut self, pending: u128, posted: u128) {
        self.debits_pending = self.debits_pending.wrapping_add(pending);
        self.debits_posted = self.debits_posted.wrapping_add(posted);
    }

    pub fn credit(&mut self, pending: u128, posted: u128) {
        self.credits_pending = self.credits_pending.wrapping_add(pending);
        self.credits_posted = self.credits_posted.wrapping_add(posted);
    }

    /// I7: what was debited was credited.
    pub fn is_balanced(&self) -> bool {
        self.debits_pending == self.credits_pending && self.debits_posted == self.credits_posted
    }
}

/// The sums of every ledger.
#[derive(Debug, Default)]
pub(super) struct Totals {
    sums: Vec<(u32, Sums)>,
    places: BTreeMap<u32, usize>,
    /// The place looked at last: most batches stay in one ledger.
    hot: usize,
    /// Places changed since they were asserted last, each once in a row.
    unproved: Vec<usize>,
}

impl Totals {
    /// The sums of a ledger, to be changed.
    pub fn of(&mut self, ledger: u32) -> &mut Sums {
        if self
            .sums
            .get(self.hot)
            .is_none_or(|(number, _)| *number != ledger)
        {
            self.hot = *self.places.entry(ledger).or_insert_with(|| {
                self.sums.push((ledger, Sums::default()));
                self.sums.len() - 1
            });
        }
        if self.unproved.last() != Some(&self.hot) {
            self.unproved.push(self.hot);
        }
        &mut self.sums[self.hot].1
    }

    /// I7 for every ledger that was changed since the last call.
    pub fn assert_balanced(&mut self) {
        for place in self.unproved.drain(..) {
            let (ledger, sums) = &self.sums[place];
            assert!(
                sums.is_balanced(),
                "I7: money was made or lost in ledger {ledger}: {sums:?}"
            );
        }
    }

    /// Every ledger that has an account, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Sums)> {
        let all = self.places.iter();
        all.map(|(ledger, place)| (*ledger, &self.sums[*place].1))
            .filter(|(_, sums)| sums.accounts > 0)
    }
}

// What makes the same bytes count differently by what they are. Lists: see `list.rs`.
const CLOCK_SEED: u64 = 2;
const ACCOUNT_SEED: u64 = 3;

// Odd numbers without a pattern: the weights of balances, and of being closed.
const DEBITS_PENDING: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const DEBITS_POSTED: u128 = 0xbf58_476d_1ce4_e5b9_94d0_49bb_1331_11eb;
const CREDITS_PENDING: u128 = 0xd6e8_feb8_6659_fd93_a076_1d64_78bd_642f;
const CREDITS_POSTED: u128 = 0xe703_7ed1_a0b4_28db_8ebc_6af0_9c88_c6e3;
const CLOSED: u128 = 0x5899_65cc_7537_4cc3_1d8e_4e27_c47d_124f;

/// The weight of an account's balances: odd, and without a pattern.
fn weight(id: u128) -> u128 {
    const LOW: u64 = 0xff51_afd7_ed55_8ccd;
    const HIGH: u64 = 0xc4ce_b9fe_1a85_ec53;
    let [low, high] = [id, id >> 64].map(|half| half & u128::from(u64::MAX));
    let product = (low ^ u128::from(LOW)) * (high ^ u128::from(HIGH));
    (product ^ id.rotate_left(41)) | 1
}

/// What a change of an account's debits does to the digest.
pub(super) fn of_debit(id: u128, change: Change) -> Digest {
    let sum = change
        .pending
        .wrapping_mul(DEBITS_PENDING)
        .wrapping_add(change.posted.wrapping_mul(DEBITS_POSTED));
    Digest(weight(id).wrapping_mul(sum))
}

/// What a change of an account's credits does to the digest.
pub(super) fn of_credit(id: u128, change: Change) -> Digest {
    let sum = change
        .pending
        .wrapping_mul(CREDITS_PENDING)
        .wrapping_add(change.posted.wrapping_mul(CREDITS_POSTED));
    Digest(weight(id).wrapping_mul(sum))
}

/// What a closed account counts more than an open one.
pub(super) fn of_closed(id: u128) -> Digest {
    Digest(weight(id).wrapping_mul(CLOSED))
}

/// An account as it is.
pub(super) fn of_account(account: &Account) -> Digest {
    let fixed = Account {
        debits_pending: 0,
        debits_posted: 0,
        credits_pending: 0,
        credits_posted: 0,
        flags: account.flags & !account_flags::CLOSED,
        ..*account
    };
    let mut digest = Digest(xxh3_128_with_seed(&fixed.encode(), ACCOUNT_SEED));
    let (pending, posted) = (account.debits_pending, account.debits_posted);
    digest.add(of_debit(account.id, Change { pending, posted }));
    let (pending, posted) = (account.credits_pending, account.credits_posted);
    digest.add(of_credit(account.id, Change { pending, posted }));
    if account.has(account_flags::CLOSED) {
        digest.add(of_closed(account.id));
    }
    digest
}

/// The time of the newest event; 0: there was none.
pub(super) fn of_clock(last_event: u64) -> Digest {
    if last_event == 0 {
        return Digest::default();
    }
    Digest(xxh3_128_with_seed(&last_event.to_le_bytes(), CLOCK_SEED))
}
