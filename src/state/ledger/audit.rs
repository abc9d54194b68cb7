//! The whole books made again from the transfers and held against what is kept.

use super::super::digest::Digest;
use super::holds::HoldStatus;
use super::list::{Item, List, digest_of};
use super::record::{Transfer, account_flags, transfer_flags};
use super::sums::{self, Sums};
use super::transfers::{Entry, Known};
use super::{Ledger, closes};
use std::collections::BTreeMap;

/// What an audit has gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Audit {
    pub accounts: u64,
    pub transfers: u64,
    pub open_holds: u64,
    pub ledgers: u64,
}

/// Balances of one account, as the transfers make them.
#[derive(Clone, Copy, Default)]
struct Balances {
    sums: Sums,
    closed_by_hold: bool,
}

impl Ledger {
    /// Makes every balance again from the transfers, and compares: balances, limits, open holds,
    /// sums per ledger, indexes, digest. Takes as long as reading everything; changes nothing.
    /// The error names what differs.
    pub fn audit(&self) -> Result<Audit, String> {
        let balances = self.balances_made_again()?;
        let mut ledgers: BTreeMap<u32, Sums> = BTreeMap::new();
        for (slot, made) in self.accounts.iter().zip(&balances) {
            let account = &slot.record;
            let kept = (
                account.debits_pending,
                account.debits_posted,
                account.credits_pending,
                account.credits_posted,
            );
            let sums = &made.sums;
            let again = (
                sums.debits_pending,
                sums.debits_posted,
                sums.credits_pending,
                sums.credits_posted,
            );
            if kept != again {
                return Err(format!(
                    "account {}: balances {kept:?}, its transfers make {again:?}",
                    account.id
                ));
            }
            if account.debits_exceed_credits(0) || account.credits_exceed_debits(0) {
                return Err(format!("account {}: its limit is broken", account.id));
            }
            if made.closed_by_hold && !account.has(account_flags::CLOSED) {
                return Err(format!(
                    "account {}: a hold closes it, it is open",
                    account.id
                ));
            }
            let of_ledger = ledgers.entry(account.ledger).or_default();
            of_ledger.accounts += 1;
            of_ledger.debit(sums.debits_pending, sums.debits_posted);
            of_ledger.credit(sums.credits_pending, sums.credits_posted);
        }
        for (ledger, sums) in &ledgers {
            if !sums.is_balanced() {
                return Err(format!("I7: ledger {ledger} is not balanced: {sums:?}"));
            }
        }
        if !ledgers
            .iter()
            .map(|(ledger, sums)| (*ledger, sums))
            .eq(self.totals())
        {
            return Err("the running sums differ from the accounts".into());
        }
        if self.digest_made_again() != self.digest() {
            return Err("the running digest differs from what is stored".into());
        }
        Ok(Audit {
            accounts: self.accounts(),
            transfers: self.transfers(),
            open_holds: self.open_holds(),
            ledgers: ledgers.len() as u64,
        })
    }

    fn balances_made_again(&self) -> Result<Vec<Balances>, String> {
        let count = usize::try_from(self.accounts()).map_err(|error| error.to_string())?;
        let mut balances = vec![Balances::default(); count];
        let (mut open_holds, mut before) = (0, 0);
        for position in 0..self.transfers.len() {
            let entry = self.transfers.at(position);
            let record = &entry.record;
            if record.timestamp <= before {
                return Err(format!("transfer {}: it is not in order", record.id));
            }
            before = record.timestamp;
            self.check_entry(position, &entry)?;
            let change = self.change_of(&entry);
            let [debit, credit] = entry.sides().map(|side| side.account as usize);
            balances[debit].sums.debit(change.pending, change.posted);
            balances[credit].sums.credit(change.pending, change.posted);
            if !record.has(transfer_flags::PENDING) {
                continue;
            }
            match self.holds.at(entry.hold - 1).status {
                HoldStatus::Open => {
                    open_holds += 1;
                    for number in closes(&entry).into_iter().flatten() {
                        balances[number as usize].closed_by_hold = true;
                    }
                }
                HoldStatus::Expired => {
                    let released = record.amount.wrapping_neg();
                    balances[debit].sums.debit(released, 0);
                    balances[credit].sums.credit(released, 0);
                }
                HoldStatus::Posted | HoldStatus::Voided => {}
            }
        }
        if open_holds != self.open_holds() {
            let listed = self.open_holds();
            return Err(format!("{open_holds} holds are open, {listed} are listed"));
        }
        Ok(balances)
    }

    /// Whether an entry is found by its id and hangs in the lists of its own accounts.
    fn check_entry(&self, position: u64, entry: &Entry) -> Result<(), String> {
        let Transfer {
            id,
            debit_account_id,
            credit_account_id,
            ..
        } = entry.record;
        let accounts = [debit_account_id, credit_account_id];
        for (side, account_id) in entry.sides().into_iter().zip(accounts) {
            let is_it = self.accounts.record(side.account).id == account_id;
            if !is_it || side.before > position {
                return Err(format!(
                    "transfer {id}: it does not hang at account {account_id}"
                ));
            }
        }
        if self.transfers.find(id) != Some(Known::Transfer(position)) {
            return Err(format!("transfer {id}: it is not found by its id"));
        }
        Ok(())
    }

    /// As `digest`, made again from what is stored.
    pub(in crate::state) fn digest_made_again(&self) -> Digest {
        let mut digest = sums::of_clock(self.last_event);
        for slot in self.accounts.iter() {
            digest.add(sums::of_account(&slot.record));
        }
        let mut count = |counted| digest.add(counted);
        count_items(self.transfers.log(), &mut count);
        count_items(self.transfers.burned(), &mut count);
        count_items(self.holds.expiries(), &mut count);
        count_items(self.history.rows(), &mut count);
        digest
    }

    /// Everything that an audit looks at, and the lists of every account; halts on any difference:
    /// for tests and the simulator.
    pub fn check(&self) {
        if let Err(story) = self.audit() {
            panic!("I7: {story}");
        }
        assert_eq!(
            self.transfers.ids(),
            self.transfers.len() + self.transfers.burned().len(),
            "every id stands once in the index"
        );
        let hung: u64 = (0u32..)
            .zip(self.accounts.iter())
            .map(|(number, slot)| {
                let found = self.accounts.find(slot.record.id);
                assert_eq!(found, Some(number), "an account is found by its id");
                self.check_list(number)
            })
            .sum();
        assert_eq!(
            hung,
            self.transfers.len() * 2,
            "a transfer hangs at two accounts"
        );
    }

    /// Walks an account's list; answers its length.
    fn check_list(&self, number: u32) -> u64 {
        let slot = self.accounts.slot(number);
        let marks = self.transfers.marks(number);
        let (mut length, mut next) = (0, slot.last);
        while let Some(position) = next.checked_sub(1) {
            let after_marks = length + u64::from(slot_marks(self, number));
            assert_eq!(
                marks.contains(&position),
                after_marks % u64::from(super::MARK_EVERY) == 0,
                "every so many entries are marked"
            );
            length += 1;
            next = self.transfers.at(position).before(number);
        }
        length
    }
}

fn count_items<T: Item>(list: &List<T>, count: &mut impl FnMut(Digest)) {
    list.bytes().map(digest_of::<T>).for_each(count);
}

/// Entries that an account lacks to its next mark.
fn slot_marks(ledger: &Ledger, number: u32) -> u32 {
    super::MARK_EVERY - ledger.accounts.slot(number).unmarked
}
