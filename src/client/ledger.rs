//! Accounts and transfers: 128-byte records with ids of their own, so that creating them is safe to
//! repeat.
//!
//! The records and their bytes stand here by themselves; the calls below are all that knows how
//! they travel. A server's own types can take their place without a change to the calls.

use super::call::{Caller, Frame, Kind};
use super::{Client, Error, tokens};
use bytes::{Buf, BufMut, Bytes};

/// Records of one request.
pub const BATCH_MAX: usize = 8189;

const RECORD_BYTES: usize = 128;
const OUTCOME_BYTES: usize = 16;

/// Bits of [`Account::flags`].
pub mod account_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    pub const HISTORY: u16 = 1 << 3;
    pub const IMPORTED: u16 = 1 << 4;
    pub const CLOSED: u16 = 1 << 5;
}

/// Bits of [`Transfer::flags`].
pub mod transfer_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const PENDING: u16 = 1 << 1;
    pub const POST_PENDING_TRANSFER: u16 = 1 << 2;
    pub const VOID_PENDING_TRANSFER: u16 = 1 << 3;
    pub const BALANCING_DEBIT: u16 = 1 << 4;
    pub const BALANCING_CREDIT: u16 = 1 << 5;
    pub const CLOSING_DEBIT: u16 = 1 << 6;
    pub const CLOSING_CREDIT: u16 = 1 << 7;
    pub const IMPORTED: u16 = 1 << 8;
}

/// An account. Balances and timestamp are the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Chosen by the client; not 0, not 2^128 - 1.
    pub id: u128,
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub reserved: u32,
    /// Only accounts of one ledger can transact.
    pub ledger: u32,
    pub code: u16,
    /// Of [`account_flags`].
    pub flags: u16,
    /// Nanoseconds since 1970.
    pub timestamp: u64,
}

/// A movement between two accounts, or what becomes of a pending one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Transfer {
    /// Chosen by the client: what makes a repeat the same transfer. Not 0, not 2^128 - 1.
    pub id: u128,
    pub debit_account_id: u128,
    pub credit_account_id: u128,
    pub amount: u128,
    /// The transfer that a post or void resolves.
    pub pending_id: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    /// Seconds until a pending transfer ends by itself; 0 is never.
    pub timeout: u32,
    pub ledger: u32,
    pub code: u16,
    /// Of [`transfer_flags`].
    pub flags: u16,
    /// Nanoseconds since 1970.
    pub timestamp: u64,
}

/// What became of one record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The record's for `created` and `exists`, else when it was looked at.
    pub timestamp: u64,
    /// The number of the result; see [`Outcome::is_created`].
    pub status: u32,
}

/// The result of a record that was created.
pub const CREATED: u32 = u32::MAX;
/// The results of a record that had been created before, the same in every field.
pub const ACCOUNT_EXISTS: u32 = 21;
pub const TRANSFER_EXISTS: u32 = 46;

impl Outcome {
    /// Created by this call. A call that was sent again after a lost connection may be told that a
    /// record exists which it has itself created.
    pub fn is_created(&self) -> bool {
        self.status == CREATED
    }

    /// The transfer is there, whoever has created it.
    pub fn is_transfer_there(&self) -> bool {
        self.is_created() || self.status == TRANSFER_EXISTS
    }

    /// The account is there, whoever has created it.
    pub fn is_account_there(&self) -> bool {
        self.is_created() || self.status == ACCOUNT_EXISTS
    }
}

/// A fresh id: random, as good as never drawn again.
pub fn random_id() -> u128 {
    tokens::random().clamp(1, u128::MAX - 1)
}

impl Account {
    pub fn new(id: u128, ledger: u32, code: u16) -> Account {
        Account {
            id,
            ledger,
            code,
            ..Account::default()
        }
    }

    /// With these flags besides.
    pub fn with_flags(self, flags: u16) -> Account {
        Account {
            flags: self.flags | flags,
            ..self
        }
    }

    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u128_le(self.id);
        rest.put_u128_le(self.debits_pending);
        rest.put_u128_le(self.debits_posted);
        rest.put_u128_le(self.credits_pending);
        rest.put_u128_le(self.credits_posted);
        rest.put_u128_le(self.user_data_128);
        rest.put_u64_le(self.user_data_64);
        rest.put_u32_le(self.user_data_32);
        rest.put_u32_le(self.reserved);
        rest.put_u32_le(self.ledger);
        rest.put_u16_le(self.code);
        rest.put_u16_le(self.flags);
        rest.put_u64_le(self.timestamp);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Account {
        let mut rest = &bytes[..];
        Account {
            id: rest.get_u128_le(),
            debits_pending: rest.get_u128_le(),
            debits_posted: rest.get_u128_le(),
            credits_pending: rest.get_u128_le(),
            credits_posted: rest.get_u128_le(),
            user_data_128: rest.get_u128_le(),
            user_data_64: rest.get_u64_le(),
            user_data_32: rest.get_u32_le(),
            reserved: rest.get_u32_le(),
            ledger: rest.get_u32_le(),
            code: rest.get_u16_le(),
            flags: rest.get_u16_le(),
            timestamp: rest.get_u64_le(),
        }
    }
}

impl Transfer {
    /// A movement of an amount from one account to another; ledger and code are still to be said.
    pub fn new(
        id: u128,
        debit_account_id: u128,
        credit_account_id: u128,
        amount: u128,
    ) -> Transfer {
        Transfer {
            id,
            debit_account_id,
            credit_account_id,
            amount,
            ..Transfer::default()
        }
    }

    /// Posts an amount of a pending transfer and releases the rest; `u128::MAX` is all of it.
    pub fn post(id: u128, pending_id: u128, amount: u128) -> Transfer {
        let flags = transfer_flags::POST_PENDING_TRANSFER;
        Transfer {
            id,
            pending_id,
            amount,
            flags,
            ..Transfer::default()
        }
    }

    /// Releases a pending transfer.
    pub fn void(id: u128, pending_id: u128) -> Transfer {
        let flags = transfer_flags::VOID_PENDING_TRANSFER;
        Transfer {
            id,
            pending_id,
            flags,
            ..Transfer::default()
        }
    }

    pub fn in_ledger(self, ledger: u32, code: u16) -> Transfer {
        Transfer {
            ledger,
            code,
            ..self
        }
    }

    /// Reserves the amount only, for so many seconds; 0 is until it is posted or voided.
    pub fn pending(self, timeout: u32) -> Transfer {
        Transfer { timeout, ..self }.with_flags(transfer_flags::PENDING)
    }

    /// With these flags besides.
    pub fn with_flags(self, flags: u16) -> Transfer {
        Transfer {
            flags: self.flags | flags,
            ..self
        }
    }

    /// Tied to the next one of its batch: created together or not at all.
    pub fn linked(self) -> Transfer {
        self.with_flags(transfer_flags::LINKED)
    }

    pub fn is_linked(&self) -> bool {
        self.flags & transfer_flags::LINKED != 0
    }

    pub fn is_imported(&self) -> bool {
        self.flags & transfer_flags::IMPORTED != 0
    }

    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut rest = &mut bytes[..];
        rest.put_u128_le(self.id);
        rest.put_u128_le(self.debit_account_id);
        rest.put_u128_le(self.credit_account_id);
        rest.put_u128_le(self.amount);
        rest.put_u128_le(self.pending_id);
        rest.put_u128_le(self.user_data_128);
        rest.put_u64_le(self.user_data_64);
        rest.put_u32_le(self.user_data_32);
        rest.put_u32_le(self.timeout);
        rest.put_u32_le(self.ledger);
        rest.put_u16_le(self.code);
        rest.put_u16_le(self.flags);
        rest.put_u64_le(self.timestamp);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Transfer {
        let mut rest = &bytes[..];
        Transfer {
            id: rest.get_u128_le(),
            debit_account_id: rest.get_u128_le(),
            credit_account_id: rest.get_u128_le(),
            amount: rest.get_u128_le(),
            pending_id: rest.get_u128_le(),
            user_data_128: rest.get_u128_le(),
            user_data_64: rest.get_u64_le(),
            user_data_32: rest.get_u32_le(),
            timeout: rest.get_u32_le(),
            ledger: rest.get_u32_le(),
            code: rest.get_u16_le(),
            flags: rest.get_u16_le(),
            timestamp: rest.get_u64_le(),
        }
    }
}

impl Client {
    /// Creates accounts, at most [`BATCH_MAX`] of them; one outcome for each, in order.
    pub async fn create_accounts(&self, accounts: &[Account]) -> Result<Vec<Outcome>, Error> {
        let is_linked = |account: &Account| account.flags & account_flags::LINKED != 0;
        let token = self.token_for(accounts.iter().any(is_linked));
        let records = accounts.iter().flat_map(Account::to_bytes).collect();
        create(&self.caller, "LEDGER.CREATE_ACCOUNTS", records, token).await
    }

    /// Creates transfers, at most [`BATCH_MAX`] of them; one outcome for each, in order. After an
    /// error repeat them with the same ids: each is created once.
    pub async fn create_transfers(&self, transfers: &[Transfer]) -> Result<Vec<Outcome>, Error> {
        let token = self.token_for(transfers.iter().any(Transfer::is_linked));
        create_transfers(&self.caller, transfers, token).await
    }

    /// The accounts that are there of these, in the order asked.
    pub async fn lookup_accounts(&self, ids: &[u128]) -> Result<Vec<Account>, Error> {
        let records = lookup(&self.caller, "LEDGER.LOOKUP_ACCOUNTS", ids).await?;
        Ok(records.iter().map(Account::from_bytes).collect())
    }

    /// The transfers that are there of these, in the order asked.
    pub async fn lookup_transfers(&self, ids: &[u128]) -> Result<Vec<Transfer>, Error> {
        let records = lookup(&self.caller, "LEDGER.LOOKUP_TRANSFERS", ids).await?;
        Ok(records.iter().map(Transfer::from_bytes).collect())
    }

    /// A chain that is sent again would be told that its first record exists and its others
    /// failed; under a token it is told what it was told first.
    fn token_for(&self, is_chained: bool) -> Option<String> {
        let tokens = self.tokens.as_ref().filter(|_| is_chained);
        tokens.map(|tokens| tokens.draw())
    }
}

pub(super) async fn create_transfers(
    caller: &Caller,
    transfers: &[Transfer],
    token: Option<String>,
) -> Result<Vec<Outcome>, Error> {
    let records = transfers.iter().flat_map(Transfer::to_bytes).collect();
    create(caller, "LEDGER.CREATE_TRANSFERS", records, token).await
}

async fn create(
    caller: &Caller,
    command: &str,
    records: Vec<u8>,
    token: Option<String>,
) -> Result<Vec<Outcome>, Error> {
    let count = checked(records.len() / RECORD_BYTES)?;
    let mut frame = Frame::default();
    match &token {
        Some(token) => frame.push(&[b"ONCE", token.as_bytes(), command.as_bytes()], &[records]),
        None => frame.push(&[command.as_bytes()], &[records]),
    }
    let mut bytes = caller.call(frame, Kind::Once).await?.into_bytes()?;
    if bytes.len() != count * OUTCOME_BYTES {
        return Err(unexpected(&bytes, count));
    }
    let mut outcomes = Vec::new();
    while bytes.has_remaining() {
        let (timestamp, status) = (bytes.get_u64_le(), bytes.get_u32_le());
        bytes.advance(4);
        outcomes.push(Outcome { timestamp, status });
    }
    Ok(outcomes)
}

async fn lookup(
    caller: &Caller,
    command: &str,
    ids: &[u128],
) -> Result<Vec<[u8; RECORD_BYTES]>, Error> {
    let count = checked(ids.len())?;
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut frame = Frame::default();
    frame.push(&[command.as_bytes()], &[ids]);
    let bytes = caller.call(frame, Kind::Read).await?.into_bytes()?;
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() || records.len() > count {
        return Err(unexpected(&bytes, count));
    }
    Ok(records.to_vec())
}

fn checked(count: usize) -> Result<usize, Error> {
    match count {
        0..=BATCH_MAX => Ok(count),
        _ => Err(Error::Invalid(format!(
            "{count} records, a node takes {BATCH_MAX} at once"
        ))),
    }
}

fn unexpected(bytes: &Bytes, count: usize) -> Error {
    Error::Unexpected(format!("{} bytes for {count} records", bytes.len()))
}
