//! Nasty batches: few accounts, few ids, every flag, chains, holds known and unknown, amounts at
//! the edges, imports, and retries with one field changed.
//!
//! Most events begin healthy and are spoiled in one place, because an event that is wrong in every
//! place never comes past the first row of the table.

use crate::account_flags as account;
use crate::filter_flags as filter;
use crate::transfer_flags as transfer;
use crate::{Account, AccountFilter, QueryFilter, TIMESTAMP_MAX, Transfer};

/// Accounts are drawn from 1 to this.
const ACCOUNTS: u64 = 12;

/// From here on amounts are huge, so that the other accounts are not all full soon.
const RICH: u128 = 9;

/// What was sent before, which is what makes a retry or a post of a known hold.
#[derive(Clone, Debug, Default)]
pub struct Draw {
    accounts: Vec<Account>,
    transfers: Vec<Transfer>,
    /// Each account in good order, which is how the first batch creates most of them; the others
    /// come later, so that there are accounts younger than transfers.
    healthy: Vec<Account>,
    /// The newest batch's time, and the ids used so far.
    last_time: u64,
    last_id: u128,
}

/// A source of random numbers below a bound, which is never 0.
struct Dice<'a>(&'a mut dyn FnMut(u64) -> u64);

impl Dice<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        (self.0)(bound)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Mostly 0.
    fn data(&mut self) -> u64 {
        if self.one_in(4) { self.below(3) } else { 0 }
    }

    fn account_id(&mut self) -> u128 {
        u128::from(1 + self.below(ACCOUNTS))
    }

    fn amount(&mut self, is_rich: bool) -> u128 {
        let small = u128::from(self.below(100));
        let huge = [
            u128::MAX,
            u128::MAX - small,
            u128::MAX / 2,
            u128::MAX / 2 + 1,
            u128::MAX / 3,
        ];
        match self.below(if is_rich { 2 } else { 16 }) {
            0 => self.pick(&huge),
            1 => self.pick(&[0, 1]),
            _ => small,
        }
    }
}

impl Draw {
    pub fn new() -> Draw {
        Draw::default()
    }

    /// A batch for `create_accounts` at `now`; the first is in good order.
    pub fn accounts(&mut self, random: &mut dyn FnMut(u64) -> u64, now: u64) -> Vec<Account> {
        let dice = &mut Dice(random);
        if self.healthy.is_empty() {
            self.healthy = (1..=ACCOUNTS).map(|id| healthy_account(dice, id)).collect();
            let first = self.healthy.iter().filter(|a| !a.id.is_multiple_of(3));
            let first: Vec<Account> = first.copied().collect();
            self.accounts.extend(&first);
            self.last_time = now;
            return first;
        }
        let length = length(dice);
        let mut events: Vec<Account> = (0..length).map(|_| self.account(dice)).collect();
        for (index, is_linked) in links(dice, length).into_iter().enumerate() {
            set(&mut events[index].flags, account::LINKED, is_linked);
        }
        let imported = self.imported(dice, length, now);
        for (event, time) in events.iter_mut().zip(imported) {
            (event.timestamp, event.flags) = (time, event.flags | account::IMPORTED);
        }
        self.accounts.extend(&events);
        self.last_time = now;
        events
    }

    /// A batch for `create_transfers` at `now`.
    pub fn transfers(&mut self, random: &mut dyn FnMut(u64) -> u64, now: u64) -> Vec<Transfer> {
        let dice = &mut Dice(random);
        let length = length(dice);
        let mut events: Vec<Transfer> = Vec::new();
        for _ in 0..length {
            let event = self.transfer(dice);
            events.push(event);
            self.transfers.push(event);
        }
        for (index, is_linked) in links(dice, length).into_iter().enumerate() {
            set(&mut events[index].flags, transfer::LINKED, is_linked);
        }
        let imported = self.imported(dice, length, now);
        for (event, time) in events.iter_mut().zip(imported) {
            (event.timestamp, event.flags) = (time, event.flags | transfer::IMPORTED);
        }
        let before = self.transfers.len() - events.len();
        self.transfers[before..].copy_from_slice(&events);
        self.last_time = now;
        events
    }

    /// Ids to look up, known and unknown.
    pub fn ids(&self, random: &mut dyn FnMut(u64) -> u64) -> Vec<u128> {
        let dice = &mut Dice(random);
        let length = length(dice);
        (0..length)
            .map(|_| u128::from(dice.below(self.last_id as u64 + 3)))
            .collect()
    }

    /// Mostly a good filter.
    pub fn account_filter(&self, random: &mut dyn FnMut(u64) -> u64) -> AccountFilter {
        let dice = &mut Dice(random);
        let (timestamp_min, timestamp_max) = self.times(dice);
        let mut asked = AccountFilter {
            account_id: dice.account_id(),
            user_data_128: dice.data().into(),
            user_data_64: dice.data(),
            user_data_32: dice.data() as u32,
            code: dice.data() as u16,
            timestamp_min,
            timestamp_max,
            limit: dice.pick(&[1, 3, 10_000]),
            flags: 1 + dice.below(7) as u32,
            ..AccountFilter::default()
        };
        match dice.below(20) {
            0 => asked.account_id = dice.pick(&[0, u128::MAX]),
            1 => asked.limit = 0,
            2 => asked.flags = dice.pick(&[0, filter::REVERSED, 1 << 3 | filter::DEBITS]),
            3 => asked.reserved[57] = 1,
            4 => asked.timestamp_max = TIMESTAMP_MAX + 1,
            _ => {}
        }
        asked
    }

    /// Mostly a good filter.
    pub fn query_filter(&self, random: &mut dyn FnMut(u64) -> u64) -> QueryFilter {
        let dice = &mut Dice(random);
        let (timestamp_min, timestamp_max) = self.times(dice);
        let mut asked = QueryFilter {
            user_data_128: dice.data().into(),
            user_data_64: dice.data(),
            user_data_32: dice.data() as u32,
            ledger: dice.data() as u32,
            code: dice.data() as u16,
            timestamp_min,
            timestamp_max,
            limit: dice.pick(&[1, 3, 10_000]),
            flags: dice.below(2) as u32,
            ..QueryFilter::default()
        };
        match dice.below(20) {
            0 => asked.limit = 0,
            1 => asked.flags = 1 << 1,
            2 => asked.reserved[5] = 1,
            3 => asked.timestamp_min = u64::MAX,
            _ => {}
        }
        asked
    }

    fn times(&self, dice: &mut Dice) -> (u64, u64) {
        let around = |dice: &mut Dice| self.last_time.saturating_sub(dice.below(2_000_000_000));
        let min = if dice.one_in(3) { around(dice) } else { 0 };
        let max = if dice.one_in(3) { around(dice) } else { 0 };
        (min, max)
    }

    fn account(&mut self, dice: &mut Dice) -> Account {
        let known = self.accounts.len() as u64;
        if known > 0 && dice.one_in(4) {
            let mut again = self.accounts[dice.below(known) as usize];
            if dice.one_in(2) {
                spoil_account(dice, &mut again);
            }
            return again;
        }
        let mut fresh = self.healthy[dice.account_id() as usize - 1];
        if dice.one_in(4) {
            spoil_account(dice, &mut fresh);
        }
        fresh
    }

    fn transfer(&mut self, dice: &mut Dice) -> Transfer {
        let known = self.transfers.len() as u64;
        if known > 0 && dice.one_in(5) {
            let mut again = self.transfers[dice.below(known) as usize];
            if dice.one_in(2) {
                self.spoil_transfer(dice, &mut again);
            }
            return again;
        }
        let mut fresh = if known > 0 && dice.one_in(3) {
            self.resolution(dice)
        } else {
            movement(dice)
        };
        fresh.id = self.id(dice);
        if dice.one_in(5) {
            self.spoil_transfer(dice, &mut fresh);
        }
        fresh
    }

    /// Mostly a fresh one.
    fn id(&mut self, dice: &mut Dice) -> u128 {
        if self.last_id > 0 && dice.one_in(8) {
            return u128::from(1 + dice.below(self.last_id as u64));
        }
        self.last_id += 1;
        self.last_id
    }

    /// A post or void, mostly of a hold, with a part of it or all of it.
    fn resolution(&mut self, dice: &mut Dice) -> Transfer {
        let holds = self.transfers.iter().filter(|t| t.has(transfer::PENDING));
        let holds: Vec<Transfer> = holds.copied().collect();
        let known = if holds.is_empty() || dice.one_in(8) {
            &self.transfers
        } else {
            &holds
        };
        // The newest are the ones that are likely still pending.
        let newest = &known[known.len().saturating_sub(12)..];
        let p = dice.pick(newest);
        let (post, void) = (
            transfer::POST_PENDING_TRANSFER,
            transfer::VOID_PENDING_TRANSFER,
        );
        let less = p.amount.saturating_sub(1);
        let parts = [
            0,
            0,
            u128::MAX,
            p.amount,
            less,
            p.amount / 2,
            p.amount.saturating_add(1),
        ];
        let is_told = dice.one_in(3);
        Transfer {
            debit_account_id: if is_told { p.debit_account_id } else { 0 },
            credit_account_id: if is_told { p.credit_account_id } else { 0 },
            amount: dice.pick(&parts),
            pending_id: p.id,
            user_data_128: dice.data().into(),
            user_data_64: dice.data(),
            user_data_32: dice.data() as u32,
            ledger: if is_told { p.ledger } else { 0 },
            code: if is_told { p.code } else { 0 },
            flags: dice.pick(&[post, void]),
            ..Transfer::default()
        }
    }

    fn spoil_transfer(&mut self, dice: &mut Dice, t: &mut Transfer) {
        match dice.below(16) {
            0 => t.id = dice.pick(&[0, u128::MAX]),
            1 => t.debit_account_id = dice.pick(&[0, u128::MAX, t.credit_account_id, 1, 4, 99]),
            2 => t.credit_account_id = dice.pick(&[0, u128::MAX, t.debit_account_id, 2, 8, 99]),
            3 => t.amount = dice.amount(true),
            4 => t.pending_id = dice.pick(&[0, u128::MAX, t.id, t.id.saturating_add(1), 1 << 90]),
            5 => t.user_data_128 ^= 1 << 100,
            6 => t.user_data_64 ^= 1 << 50,
            7 => t.user_data_32 ^= 1 << 25,
            8 => t.timeout = dice.pick(&[0, 1, u32::MAX]),
            9 => t.ledger = dice.pick(&[0, 1, 2, 3]),
            10 => t.code = dice.pick(&[0, 1, 2, 3]),
            11 => t.timestamp = dice.pick(&[1, self.last_time, u64::MAX]),
            // A known refusal under its own id: whether it is burned shows only so.
            12 if !self.transfers.is_empty() => *t = dice.pick(&self.transfers),
            _ => t.flags ^= 1 << dice.below(10),
        }
    }

    /// Timestamps for a batch of imports, now and then; mostly none.
    fn imported(&self, dice: &mut Dice, length: usize, now: u64) -> Vec<u64> {
        let mut times = Vec::new();
        if !dice.one_in(8) {
            return times;
        }
        // Begins among the timestamps of the batch before, or behind them.
        let mut time = match dice.one_in(2) {
            true => self.last_time,
            false => now.saturating_sub(200).max(self.last_time),
        };
        for _ in 0..length {
            time += dice.pick(&[0, 1, 2, 50]);
            times.push(match dice.below(12) {
                0 => dice.pick(&[0, 1, u64::MAX, now, now + 1, TIMESTAMP_MAX]),
                1 => self.last_time.saturating_sub(dice.below(20)),
                _ => time,
            });
        }
        // One event that is not imported in a batch that is.
        if dice.one_in(4) {
            times.pop();
        }
        times
    }
}

fn healthy_account(dice: &mut Dice, id: u64) -> Account {
    let limited = [
        account::DEBITS_MUST_NOT_EXCEED_CREDITS,
        account::CREDITS_MUST_NOT_EXCEED_DEBITS,
    ];
    let limit = if dice.one_in(3) {
        dice.pick(&limited)
    } else {
        0
    };
    Account {
        id: id.into(),
        user_data_128: dice.data().into(),
        user_data_64: dice.data(),
        user_data_32: dice.data() as u32,
        ledger: if id.is_multiple_of(4) { 2 } else { 1 },
        code: 1 + dice.below(2) as u16,
        flags: limit | dice.pick(&[0, account::HISTORY]),
        ..Account::default()
    }
}

fn movement(dice: &mut Dice) -> Transfer {
    let (debit, credit) = (dice.account_id(), dice.account_id());
    let credit = if credit == debit {
        credit % 3 + 1
    } else {
        credit
    };
    // Mostly two accounts of ledger 1.
    let (debit, credit) = match dice.one_in(3) {
        true => (debit, credit),
        false => (debit - u128::from(debit.is_multiple_of(4)), credit | 1),
    };
    let is_pending = dice.one_in(2);
    let mut flags = if is_pending { transfer::PENDING } else { 0 };
    let balancing = [transfer::BALANCING_DEBIT, transfer::BALANCING_CREDIT];
    let closing = [transfer::CLOSING_DEBIT, transfer::CLOSING_CREDIT];
    if dice.one_in(6) {
        flags |= dice.pick(&balancing) | dice.pick(&balancing);
    }
    if is_pending && dice.one_in(10) {
        flags |= dice.pick(&closing) | dice.pick(&closing);
    }
    let is_balancing = flags & (balancing[0] | balancing[1]) != 0;
    Transfer {
        debit_account_id: debit,
        credit_account_id: credit,
        amount: dice.amount(is_balancing || debit >= RICH && credit >= RICH),
        user_data_128: dice.data().into(),
        user_data_64: dice.data(),
        user_data_32: dice.data() as u32,
        timeout: if is_pending {
            dice.pick(&[0, 0, 1, 2, 5, u32::MAX])
        } else {
            0
        },
        ledger: if debit.is_multiple_of(4) { 2 } else { 1 },
        code: 1 + dice.below(2) as u16,
        flags,
        ..Transfer::default()
    }
}

fn spoil_account(dice: &mut Dice, a: &mut Account) {
    match dice.below(16) {
        0 => a.id = dice.pick(&[0, u128::MAX]),
        1 => a.debits_pending = 1,
        2 => a.debits_posted = 1,
        3 => a.credits_pending = 1,
        4 => a.credits_posted = 1,
        5 => a.user_data_128 ^= 1 << 100,
        6 => a.user_data_64 ^= 1 << 50,
        7 => a.user_data_32 ^= 1 << 25,
        8 => a.reserved = 1,
        9 => a.ledger = dice.pick(&[0, 1, 2, 3]),
        10 => a.code = dice.pick(&[0, 1, 2, 3]),
        11 => a.timestamp = dice.pick(&[1, u64::MAX]),
        12 => a.flags ^= account::CLOSED,
        13 => a.flags |= 0b110,
        _ => a.flags ^= 1 << dice.below(7),
    }
}

fn length(dice: &mut Dice) -> usize {
    let most = dice.pick(&[2, 4, 4, 9, 30]);
    dice.below(most) as usize
}

/// Which events are linked: none, a few or most; an open chain now and then.
fn links(dice: &mut Dice, length: usize) -> Vec<bool> {
    let share = dice.pick(&[0, 0, 0, 0, 2, 5]);
    let mut links: Vec<bool> = (0..length).map(|_| dice.below(10) < share).collect();
    if let Some(last) = links.last_mut()
        && !dice.one_in(6)
    {
        *last = false;
    }
    links
}

fn set(flags: &mut u16, flag: u16, is_set: bool) {
    *flags = if is_set {
        *flags | flag
    } else {
        *flags & !flag
    };
}
