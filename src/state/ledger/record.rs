//! The two records of the books, Account and Transfer: 128 bytes each, little-endian, without gaps.
//!
//! The layout is that of TigerBeetle's published data model, so that a client's bytes are what the
//! log, the backups and a snapshot hold. In memory a record is a struct of its fields.

use standfast_wal::Field;
use standfast_wal::record::{field, is_gapless};

/// Bytes of an Account or a Transfer.
pub const RECORD_BYTES: usize = 128;

/// An encoded Account or Transfer.
pub type Bytes128 = [u8; RECORD_BYTES];

/// An Account's fields.
pub const ACCOUNT: [Field; 13] = [
    field(
        0,
        16,
        "id",
        "chosen by the client; neither 0 nor the largest",
    ),
    field(
        16,
        16,
        "debits_pending",
        "kept by the server; 0 at creation",
    ),
    field(32, 16, "debits_posted", "kept by the server; 0 at creation"),
    field(
        48,
        16,
        "credits_pending",
        "kept by the server; 0 at creation",
    ),
    field(
        64,
        16,
        "credits_posted",
        "kept by the server; 0 at creation",
    ),
    field(80, 16, "user_data_128", "the client's; 0: none"),
    field(96, 8, "user_data_64", "the client's; 0: none"),
    field(104, 4, "user_data_32", "the client's; 0: none"),
    field(108, 4, "reserved", "0"),
    field(
        112,
        4,
        "ledger",
        "only accounts of one ledger can transact; not 0",
    ),
    field(116, 2, "code", "the client's kind of account; not 0"),
    field(118, 2, "flags", "bits, see docs/ledger.md"),
    field(
        120,
        8,
        "timestamp",
        "ns since 1970; set by the server, 0 unless imported",
    ),
];

/// A Transfer's fields.
pub const TRANSFER: [Field; 13] = [
    field(
        0,
        16,
        "id",
        "chosen by the client; neither 0 nor the largest",
    ),
    field(16, 16, "debit_account_id", "post and void: 0 inherits"),
    field(32, 16, "credit_account_id", "post and void: 0 inherits"),
    field(48, 16, "amount", "in the ledger's smallest unit"),
    field(
        64,
        16,
        "pending_id",
        "the hold that a post or void resolves, else 0",
    ),
    field(
        80,
        16,
        "user_data_128",
        "the client's; post and void: 0 inherits",
    ),
    field(
        96,
        8,
        "user_data_64",
        "the client's; post and void: 0 inherits",
    ),
    field(
        104,
        4,
        "user_data_32",
        "the client's; post and void: 0 inherits",
    ),
    field(
        108,
        4,
        "timeout",
        "of a hold, in seconds; 0: it never expires",
    ),
    field(
        112,
        4,
        "ledger",
        "that of both accounts; post and void: 0 inherits",
    ),
    field(
        116,
        2,
        "code",
        "the client's kind of transfer; post and void: 0 inherits",
    ),
    field(118, 2, "flags", "bits, see docs/ledger.md"),
    field(
        120,
        8,
        "timestamp",
        "ns since 1970; set by the server, 0 unless imported",
    ),
];

const _: () = assert!(is_gapless(&ACCOUNT, RECORD_BYTES));
const _: () = assert!(is_gapless(&TRANSFER, RECORD_BYTES));

/// Bits of an account's flags.
pub mod account_flags {
    /// Tied to the next event of its batch: both happen or neither.
    pub const LINKED: u16 = 1;
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    /// Its balances after every event are kept.
    pub const HISTORY: u16 = 1 << 3;
    pub const IMPORTED: u16 = 1 << 4;
    pub const CLOSED: u16 = 1 << 5;
    pub const ALL: u16 = (1 << 6) - 1;
    /// Names as people write them, by bit.
    pub const NAMES: [&str; 6] = [
        "LINKED",
        "DEBITS_MUST_NOT_EXCEED_CREDITS",
        "CREDITS_MUST_NOT_EXCEED_DEBITS",
        "HISTORY",
        "IMPORTED",
        "CLOSED",
    ];
}

/// Bits of a transfer's flags.
pub mod transfer_flags {
    /// Tied to the next event of its batch: both happen or neither.
    pub const LINKED: u16 = 1;
    /// A hold: reserves the amount until it is posted, voided or expires.
    pub const PENDING: u16 = 1 << 1;
    pub const POST: u16 = 1 << 2;
    pub const VOID: u16 = 1 << 3;
    pub const BALANCING_DEBIT: u16 = 1 << 4;
    pub const BALANCING_CREDIT: u16 = 1 << 5;
    pub const CLOSING_DEBIT: u16 = 1 << 6;
    pub const CLOSING_CREDIT: u16 = 1 << 7;
    pub const IMPORTED: u16 = 1 << 8;
    pub const ALL: u16 = (1 << 9) - 1;
    pub const BALANCING: u16 = BALANCING_DEBIT | BALANCING_CREDIT;
    pub const CLOSING: u16 = CLOSING_DEBIT | CLOSING_CREDIT;
    pub const TWO_PHASE_END: u16 = POST | VOID;
    /// Names as people write them, by bit.
    pub const NAMES: [&str; 9] = [
        "LINKED",
        "PENDING",
        "POST_PENDING_TRANSFER",
        "VOID_PENDING_TRANSFER",
        "BALANCING_DEBIT",
        "BALANCING_CREDIT",
        "CLOSING_DEBIT",
        "CLOSING_CREDIT",
        "IMPORTED",
    ];
}

/// An account with its balances. Amounts are in the ledger's smallest unit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Account {
    pub id: u128,
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub reserved: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: u16,
    /// Nanoseconds since 1970.
    pub timestamp: u64,
}

/// A transfer: money moved, held, or a hold resolved. Never changes once it is created.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Transfer {
    pub id: u128,
    pub debit_account_id: u128,
    pub credit_account_id: u128,
    pub amount: u128,
    pub pending_id: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    /// Seconds.
    pub timeout: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: u16,
    /// Nanoseconds since 1970.
    pub timestamp: u64,
}

fn u128_at(bytes: &Bytes128, at: usize) -> u128 {
    u128::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &Bytes128, at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &Bytes128, at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u16_at(bytes: &Bytes128, at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &Bytes128, at: usize) -> [u8; N] {
    let part = bytes[at..].first_chunk();
    *part.expect("the layout's offsets lie inside the record")
}

impl Account {
    pub fn decode(bytes: &Bytes128) -> Account {
        Account {
            id: u128_at(bytes, 0),
            debits_pending: u128_at(bytes, 16),
            debits_posted: u128_at(bytes, 32),
            credits_pending: u128_at(bytes, 48),
            credits_posted: u128_at(bytes, 64),
            user_data_128: u128_at(bytes, 80),
            user_data_64: u64_at(bytes, 96),
            user_data_32: u32_at(bytes, 104),
            reserved: u32_at(bytes, 108),
            ledger: u32_at(bytes, 112),
            code: u16_at(bytes, 116),
            flags: u16_at(bytes, 118),
            timestamp: u64_at(bytes, 120),
        }
    }

    pub fn encode(&self) -> Bytes128 {
        let mut out = [0; RECORD_BYTES];
        out[0..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..32].copy_from_slice(&self.debits_pending.to_le_bytes());
        out[32..48].copy_from_slice(&self.debits_posted.to_le_bytes());
        out[48..64].copy_from_slice(&self.credits_pending.to_le_bytes());
        out[64..80].copy_from_slice(&self.credits_posted.to_le_bytes());
        out[80..96].copy_from_slice(&self.user_data_128.to_le_bytes());
        out[96..104].copy_from_slice(&self.user_data_64.to_le_bytes());
        out[104..108].copy_from_slice(&self.user_data_32.to_le_bytes());
        out[108..112].copy_from_slice(&self.reserved.to_le_bytes());
        out[112..116].copy_from_slice(&self.ledger.to_le_bytes());
        out[116..118].copy_from_slice(&self.code.to_le_bytes());
        out[118..120].copy_from_slice(&self.flags.to_le_bytes());
        out[120..128].copy_from_slice(&self.timestamp.to_le_bytes());
        out
    }

    /// Whether all of these bits are set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Whether `amount` more debits would break the account's own limit.
    pub(super) fn debits_exceed_credits(&self, amount: u128) -> bool {
        self.has(account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS)
            && self.debits_pending + self.debits_posted + amount > self.credits_posted
    }

    /// Whether `amount` more credits would break the account's own limit.
    pub(super) fn credits_exceed_debits(&self, amount: u128) -> bool {
        self.has(account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS)
            && self.credits_pending + self.credits_posted + amount > self.debits_posted
    }
}

impl Transfer {
    pub fn decode(bytes: &Bytes128) -> Transfer {
        Transfer {
            id: u128_at(bytes, 0),
            debit_account_id: u128_at(bytes, 16),
            credit_account_id: u128_at(bytes, 32),
            amount: u128_at(bytes, 48),
            pending_id: u128_at(bytes, 64),
            user_data_128: u128_at(bytes, 80),
            user_data_64: u64_at(bytes, 96),
            user_data_32: u32_at(bytes, 104),
            timeout: u32_at(bytes, 108),
            ledger: u32_at(bytes, 112),
            code: u16_at(bytes, 116),
            flags: u16_at(bytes, 118),
            timestamp: u64_at(bytes, 120),
        }
    }

    pub fn encode(&self) -> Bytes128 {
        let mut out = [0; RECORD_BYTES];
        out[0..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..32].copy_from_slice(&self.debit_account_id.to_le_bytes());
        out[32..48].copy_from_slice(&self.credit_account_id.to_le_bytes());
        out[48..64].copy_from_slice(&self.amount.to_le_bytes());
        out[64..80].copy_from_slice(&self.pending_id.to_le_bytes());
        out[80..96].copy_from_slice(&self.user_data_128.to_le_bytes());
        out[96..104].copy_from_slice(&self.user_data_64.to_le_bytes());
        out[104..108].copy_from_slice(&self.user_data_32.to_le_bytes());
        out[108..112].copy_from_slice(&self.timeout.to_le_bytes());
        out[112..116].copy_from_slice(&self.ledger.to_le_bytes());
        out[116..118].copy_from_slice(&self.code.to_le_bytes());
        out[118..120].copy_from_slice(&self.flags.to_le_bytes());
        out[120..128].copy_from_slice(&self.timestamp.to_le_bytes());
        out
    }

    /// Whether all of these bits are set.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Whether any of these bits is set.
    pub fn has_any(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// When a hold expires, in ns since 1970; `None`: never, or it is no hold.
    pub fn expires_at(&self) -> Option<u64> {
        (self.timeout > 0).then(|| self.timestamp.saturating_add(timeout_ns(self.timeout)))
    }
}

/// Seconds as nanoseconds: at most 2^62.
pub(super) fn timeout_ns(timeout_s: u32) -> u64 {
    u64::from(timeout_s) * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_every_field_stands_where_the_table_says() {
        let bytes: Bytes128 = std::array::from_fn(|i| u8::try_from(i).expect("below 128"));
        assert_eq!(Account::decode(&bytes).encode(), bytes);
        assert_eq!(Transfer::decode(&bytes).encode(), bytes);
        let account = Account::decode(&bytes);
        assert_eq!(account.flags.to_le_bytes(), bytes[118..120]);
        let transfer = Transfer::decode(&bytes);
        assert_eq!(transfer.amount.to_le_bytes(), bytes[48..64]);
        assert_eq!(transfer.timeout.to_le_bytes(), bytes[108..112]);
    }
}
