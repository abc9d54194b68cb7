//! The records of the data model as plain structs, and their bytes: little-endian, fixed-size, no
//! padding.

/// Bits of [`Account::flags`].
pub mod account_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    pub const HISTORY: u16 = 1 << 3;
    pub const IMPORTED: u16 = 1 << 4;
    pub const CLOSED: u16 = 1 << 5;
    /// Bits that mean nothing and must be 0.
    pub const RESERVED: u16 = !0b11_1111;
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
    /// Bits that mean nothing and must be 0.
    pub const RESERVED: u16 = !0b1_1111_1111;
}

/// Bits of the filters' `flags`.
pub mod filter_flags {
    pub const DEBITS: u32 = 1 << 0;
    pub const CREDITS: u32 = 1 << 1;
    pub const REVERSED: u32 = 1 << 2;
    pub const ACCOUNT_RESERVED: u32 = !0b111;
    pub const QUERY_REVERSED: u32 = 1 << 0;
    pub const QUERY_RESERVED: u32 = !0b1;
}

/// Declares a record with its fields in the order of their bytes.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $size:literal { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name { $(pub $field: $kind,)* }

        impl $name {
            pub const BYTES: usize = $size;

            pub fn to_bytes(&self) -> [u8; $size] {
                let mut bytes = Vec::new();
                $(bytes.extend_from_slice(&self.$field.le_bytes());)*
                bytes.try_into().expect("the fields fill the record")
            }

            pub fn from_bytes(bytes: &[u8; $size]) -> $name {
                let mut rest: &[u8] = bytes;
                $(let $field = <$kind>::take_le(&mut rest);)*
                assert!(rest.is_empty(), "the fields fill the record");
                $name { $($field,)* }
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $name::from_bytes(&[0; $size])
            }
        }
    };
}

/// A field's bytes; `to_le_bytes` of the integers, and of arrays.
trait Field: Sized {
    fn le_bytes(&self) -> Vec<u8>;
    fn take_le(rest: &mut &[u8]) -> Self;
}

macro_rules! integer_field {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn le_bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }

            fn take_le(rest: &mut &[u8]) -> $kind {
                <$kind>::from_le_bytes(Field::take_le(rest))
            }
        }
    )*};
}

integer_field!(u16, u32, u64, u128);

impl<const N: usize> Field for [u8; N] {
    fn le_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn take_le(rest: &mut &[u8]) -> [u8; N] {
        let (field, after) = rest.split_at(N);
        *rest = after;
        field.try_into().expect("split at its size")
    }
}

record! {
    /// An account and its balances.
    Account, 128 {
        id: u128,
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        reserved: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }
}

record! {
    /// A movement between two accounts of one ledger, or what becomes of a pending one.
    Transfer, 128 {
        id: u128,
        debit_account_id: u128,
        credit_account_id: u128,
        amount: u128,
        pending_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        timeout: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }
}

record! {
    /// An account's balances right after a transfer.
    AccountBalance, 128 {
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        timestamp: u64,
        reserved: [u8; 56],
    }
}

record! {
    /// Which transfers or balances of one account; 0 is no condition.
    AccountFilter, 128 {
        account_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        code: u16,
        reserved: [u8; 58],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }
}

record! {
    /// Which accounts or transfers of all; 0 is no condition.
    QueryFilter, 64 {
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        ledger: u32,
        code: u16,
        reserved: [u8; 6],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }
}

/// What became of one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The object's for `created` and `exists`, else when the event was validated.
    pub timestamp: u64,
    /// A number of [`crate::AccountStatus`] or [`crate::TransferStatus`].
    pub status: u32,
}

impl Outcome {
    pub fn to_bytes(self) -> [u8; 16] {
        let bytes = [
            self.timestamp.le_bytes(),
            self.status.le_bytes(),
            0_u32.le_bytes(),
        ];
        let bytes = bytes.concat();
        bytes.try_into().expect("8 + 4 + 4 bytes")
    }
}

impl Account {
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Transfer {
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// A post or a void: a transfer that resolves a pending one.
    pub fn is_resolution(&self) -> bool {
        self.has(transfer_flags::POST_PENDING_TRANSFER | transfer_flags::VOID_PENDING_TRANSFER)
    }

    /// From when on this hold is expired; `None` is never.
    pub(crate) fn due(&self) -> Option<u128> {
        let nanoseconds = u128::from(self.timeout) * 1_000_000_000;
        (self.timeout != 0).then_some(u128::from(self.timestamp) + nanoseconds)
    }
}

impl AccountBalance {
    pub(crate) fn of(account: &Account, timestamp: u64) -> AccountBalance {
        AccountBalance {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
            timestamp,
            reserved: [0; 56],
        }
    }
}
