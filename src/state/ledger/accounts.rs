//! All accounts, in the order of their creation, found by id; and the rules by which one is made.

use super::batch::Event;
use super::index::Index;
use super::record::{Account, Bytes128, RECORD_BYTES, account_flags};
use super::segments::Segments;
use super::status::{AccountStatus, EventResult, Outcome, Status};
use super::{Ledger, hash_of};

/// Shards of the index, as a power of two.
const SHARD_BITS: u32 = 8;

/// An account and what leads to its transfers: 144 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub record: Account,
    /// Position plus one of the newest transfer that debits or credits it; 0: none.
    pub last: u64,
    /// The snapshot that has its record already; see `walk.rs`.
    pub saved: u32,
    /// Transfers since its newest mark; see `transfers.rs`.
    pub unmarked: u32,
}

const _: () = assert!(size_of::<Slot>() == 144);

/// Bytes of an account in a snapshot.
pub(super) const SAVED_BYTES: usize = 8 + RECORD_BYTES + 8 + 4;

impl Slot {
    /// The account with this number, for a snapshot.
    pub fn encode(&self, number: u64) -> [u8; SAVED_BYTES] {
        let mut out = [0; SAVED_BYTES];
        out[..8].copy_from_slice(&number.to_le_bytes());
        out[8..136].copy_from_slice(&self.record.encode());
        out[136..144].copy_from_slice(&self.last.to_le_bytes());
        out[144..].copy_from_slice(&self.unmarked.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; SAVED_BYTES]) -> (u64, Slot) {
        let (number, rest) = bytes.split_first_chunk().expect("148 bytes");
        let (record, rest) = rest.split_first_chunk().expect("the other 140");
        let (last, rest) = rest.split_first_chunk().expect("the last 12");
        let slot = Slot {
            record: Account::decode(record),
            last: u64::from_le_bytes(*last),
            saved: 0,
            unmarked: u32::from_le_bytes(rest.try_into().expect("the last 4")),
        };
        (u64::from_le_bytes(*number), slot)
    }
}

/// Accounts are named by their number, counted from 0.
#[derive(Debug)]
pub(super) struct Accounts {
    slots: Segments<Slot>,
    index: Index,
    seed: u64,
}

impl Accounts {
    pub fn new(seed: u64) -> Accounts {
        Accounts {
            slots: Segments::new(),
            index: Index::new(SHARD_BITS),
            seed,
        }
    }

    pub fn len(&self) -> u64 {
        self.slots.len()
    }

    /// The number of the account with this id.
    pub fn find(&self, id: u128) -> Option<u32> {
        self.find_hashed(hash_of(id, self.seed), id)
    }

    /// As `find`; `hash` is that of the id.
    pub fn find_hashed(&self, hash: u64, id: u128) -> Option<u32> {
        let at = self
            .index
            .find(hash, |at| self.slots.at(at).record.id == id)?;
        Some(u32::try_from(at).expect("bounded when it was added"))
    }

    pub fn slot(&self, number: u32) -> &Slot {
        self.slots.at(number.into())
    }

    pub fn slot_mut(&mut self, number: u32) -> &mut Slot {
        self.slots.at_mut(number.into())
    }

    pub fn record(&self, number: u32) -> &Account {
        &self.slot(number).record
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// All slots, in order, to be changed.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// The first account that is not before `timestamp`.
    pub fn first_from(&self, timestamp: u64) -> u64 {
        self.slots
            .partition_point(|slot| slot.record.timestamp < timestamp)
    }

    /// Whether an account was created at exactly this time.
    pub fn is_at(&self, timestamp: u64) -> bool {
        let found = self.slots.get(self.first_from(timestamp));
        found.is_some_and(|slot| slot.record.timestamp == timestamp)
    }

    pub fn newest(&self) -> Option<&Account> {
        self.slots.last().map(|slot| &slot.record)
    }

    pub fn push(&mut self, record: Account) -> u32 {
        self.load(Slot {
            record,
            last: 0,
            saved: 0,
            unmarked: 0,
        })
    }

    /// Adds an account that may have transfers already.
    pub fn load(&mut self, slot: Slot) -> u32 {
        let record = slot.record;
        let at = self.slots.push(slot);
        self.index.insert(hash_of(record.id, self.seed), at);
        u32::try_from(at).expect("fewer than 2^32 accounts fit any memory so far")
    }

    /// Takes back the newest account.
    pub fn pop(&mut self) -> Option<Account> {
        let slot = self.slots.pop()?;
        let hash = hash_of(slot.record.id, self.seed);
        self.index.remove(hash, self.slots.len());
        Some(slot.record)
    }

    /// See `Ledger::look_up`: the bucket where the account's number probably lies, then its slot.
    pub fn touch(&self, hash: u64) -> Option<u64> {
        self.index.guess(hash)
    }

    pub fn touch_slot(&self, guess: Option<u64>) -> u64 {
        // One word of each cache line that a slot can lie in.
        guess.map_or(0, |at| {
            let slot = self.slots.at(at);
            slot.record.timestamp
                ^ slot.last
                ^ slot.record.id as u64
                ^ slot.record.credits_posted as u64
        })
    }

    /// Makes room in the index for so many accounts.
    pub fn reserve(&mut self, accounts: u64) {
        self.index.reserve(accounts);
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.slots.allocated_bytes() + self.index.allocated_bytes()
    }
}

impl Event for Account {
    type Status = AccountStatus;
    type Found = ();
    const LINKED: u16 = account_flags::LINKED;
    const IMPORTED: u16 = account_flags::IMPORTED;

    fn decode(bytes: &Bytes128) -> Account {
        Account::decode(bytes)
    }

    fn flags(&self) -> u16 {
        self.flags
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn create(&self, ledger: &mut Ledger, _: &(), time: u64) -> EventResult<AccountStatus> {
        let refused = |timestamp, status| EventResult {
            timestamp,
            outcome: Outcome::Refused(status),
        };
        if let Some(status) = malformed(self) {
            return refused(time, status);
        }
        if let Some(number) = ledger.accounts.find(self.id) {
            let known = ledger.accounts.record(number);
            let status = compare(self, known, ledger.flags_at_creation(number));
            let is_same = status == AccountStatus::Exists;
            return refused(if is_same { known.timestamp } else { time }, status);
        }
        if let Some(status) = unacceptable(self) {
            return refused(time, status);
        }
        let mut record = *self;
        if !self.has(account_flags::IMPORTED) {
            record.timestamp = time;
        } else if ledger.regresses(
            self.timestamp,
            ledger.accounts.newest().map(|a| a.timestamp),
        ) {
            let status = AccountStatus::ImportedEventTimestampMustNotRegress;
            return refused(time, status);
        }
        ledger.open_account(record, time);
        EventResult {
            timestamp: record.timestamp,
            outcome: Outcome::Created,
        }
    }

    fn burn(&self, _: &mut Ledger, status: AccountStatus) {
        assert!(!status.is_transient(), "no account's id is ever used up");
    }
}

/// What is wrong with the event whatever the books say.
fn malformed(event: &Account) -> Option<AccountStatus> {
    use AccountStatus as S;
    let tests = [
        (event.reserved != 0, S::ReservedField),
        (event.flags & !account_flags::ALL != 0, S::ReservedFlag),
        (event.id == 0, S::IdMustNotBeZero),
        (event.id == u128::MAX, S::IdMustNotBeIntMax),
    ];
    first(&tests)
}

/// What is wrong with a new account.
fn unacceptable(event: &Account) -> Option<AccountStatus> {
    use AccountStatus as S;
    let both_limits = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS
        | account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
    let tests = [
        (event.has(both_limits), S::FlagsAreMutuallyExclusive),
        (event.debits_pending != 0, S::DebitsPendingMustBeZero),
        (event.debits_posted != 0, S::DebitsPostedMustBeZero),
        (event.credits_pending != 0, S::CreditsPendingMustBeZero),
        (event.credits_posted != 0, S::CreditsPostedMustBeZero),
        (event.ledger == 0, S::LedgerMustNotBeZero),
        (event.code == 0, S::CodeMustNotBeZero),
    ];
    first(&tests)
}

/// How an event differs from the account that has its id; `flags` are those it was created with.
fn compare(event: &Account, known: &Account, flags: u16) -> AccountStatus {
    use AccountStatus as S;
    let tests = [
        (event.flags != flags, S::ExistsWithDifferentFlags),
        (
            event.user_data_128 != known.user_data_128,
            S::ExistsWithDifferentUserData128,
        ),
        (
            event.user_data_64 != known.user_data_64,
            S::ExistsWithDifferentUserData64,
        ),
        (
            event.user_data_32 != known.user_data_32,
            S::ExistsWithDifferentUserData32,
        ),
        (event.ledger != known.ledger, S::ExistsWithDifferentLedger),
        (event.code != known.code, S::ExistsWithDifferentCode),
    ];
    first(&tests).unwrap_or(S::Exists)
}

/// The first status of a list of tests that applies.
pub(super) fn first<S: Copy>(tests: &[(bool, S)]) -> Option<S> {
    tests
        .iter()
        .find(|(applies, _)| *applies)
        .map(|(_, status)| *status)
}
