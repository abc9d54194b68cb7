//! Commands as the state knows them: what may change it, what may be asked of it.
//!
//! A session parses a client's words into a [`Command`]; one that may change anything is encoded
//! once (`codec.rs`) and those bytes are what the log, the peers and the archive hold. Nothing in a
//! command depends on a clock: relative times are resolved by log time when it is applied.

use super::ledger::Filter;
use super::ledger::RECORD_BYTES;
use bytes::{Bytes, BytesMut};
use standfast_wal::Lsn;
use xxhash_rust::xxh3::xxh3_128;

pub use super::codec::{CODES, Malformed, iter, may_grow, push};

/// One command or query, fully parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    // Strings: writes.
    Set(Set),
    /// MSET; with `if_none_exists` MSETNX. A key named twice gets its last value.
    MSet {
        pairs: Vec<(Bytes, Bytes)>,
        if_none_exists: bool,
    },
    Append {
        key: Bytes,
        value: Bytes,
    },
    SetRange {
        key: Bytes,
        offset: u64,
        value: Bytes,
    },
    /// INCR, DECR, INCRBY, DECRBY.
    IncrBy {
        key: Bytes,
        by: i64,
    },
    GetDel {
        key: Bytes,
    },
    /// GETEX with an option; without one it is a `Get`.
    GetEx {
        key: Bytes,
        expiry: Expiry,
    },
    // Keys: writes.
    /// DEL and UNLINK.
    Del {
        keys: Vec<Bytes>,
    },
    /// Deletes the key if its value is exactly `value`.
    DelIfEq {
        key: Bytes,
        value: Bytes,
    },
    /// EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT. A time that is not in the future deletes the key.
    Expire {
        key: Bytes,
        when: When,
        condition: ExpireCondition,
    },
    Persist {
        key: Bytes,
    },
    /// RENAME; with `if_absent` RENAMENX.
    Rename {
        source: Bytes,
        target: Bytes,
        if_absent: bool,
    },
    Copy {
        source: Bytes,
        target: Bytes,
        replace: bool,
    },
    /// FLUSHALL and FLUSHDB: every key; neither ONCE tokens nor the ledger.
    FlushAll,
    // The ledger: writes. Neither is ever undone by FLUSHALL.
    CreateAccounts(Batch),
    CreateTransfers(Batch),
    // Composed.
    /// EXEC: all commands at one LSN, or none if a watched key has another revision by then, or if
    /// an event of the ledger is refused.
    Multi(Multi),
    /// Runs the command at most once within a time.
    Once(Once),
    // Strings: reads.
    Get {
        key: Bytes,
    },
    MGet {
        keys: Vec<Bytes>,
    },
    StrLen {
        key: Bytes,
    },
    GetRange {
        key: Bytes,
        start: i64,
        end: i64,
    },
    // Keys: reads.
    /// EXISTS and TOUCH: how many of them are there, counting a key as often as it is named.
    Exists {
        keys: Vec<Bytes>,
    },
    Type {
        key: Bytes,
    },
    /// TTL, PTTL, EXPIRETIME, PEXPIRETIME.
    Ttl {
        key: Bytes,
        form: TtlForm,
    },
    /// `seed` decides which key: a session draws it, so that the answer is a function of the state.
    RandomKey {
        seed: u64,
    },
    Keys {
        pattern: Bytes,
    },
    Scan(Scan),
    DbSize,
    /// The revision of each key, 0 where there is none: what WATCH notes, and a fencing token.
    Revisions {
        keys: Vec<Bytes>,
    },
    // The ledger: reads.
    Ledger(Box<LedgerRead>),
}

/// Events for the ledger: 128-byte records, whole, at least one and at most
/// [`BATCH_EVENTS_MAX`](super::ledger::BATCH_EVENTS_MAX).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    pub events: Bytes,
    pub form: BatchForm,
}

/// What a batch answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchForm {
    /// 16 bytes per event: timestamp u64, status u32, 0 u32; little-endian.
    Results,
    /// Of its only event: a map if it took place or exists, else an error.
    Words,
}

/// A question to the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LedgerRead {
    /// `ids` are 16 bytes each.
    LookupAccounts {
        ids: Bytes,
    },
    LookupTransfers {
        ids: Bytes,
    },
    /// One account, and its open holds if asked for: both at one LSN.
    Account {
        id: u128,
        with_holds: bool,
    },
    Transfer {
        id: u128,
    },
    AccountTransfers(Filter),
    AccountBalances(Filter),
    QueryAccounts(Filter),
    QueryTransfers(Filter),
    /// Sums of one ledger; 0: of all.
    Totals {
        ledger: u32,
    },
    /// Makes every balance again and compares.
    Audit,
}

/// SET, SETNX, SETEX, PSETEX, GETSET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Set {
    pub key: Bytes,
    pub value: Bytes,
    pub expiry: Expiry,
    pub condition: SetCondition,
    pub reply: SetReply,
}

/// When a SET takes place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetCondition {
    Always,
    /// NX
    IfAbsent,
    /// XX
    IfPresent,
    /// IFEQ: only over exactly this value.
    IfEqual(Bytes),
}

/// What a SET answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetReply {
    /// OK, or nil where the condition did not hold.
    Ok,
    /// The value before (GET, GETSET), or nil.
    Previous,
    /// 1 or 0 (SETNX).
    Flag,
}

/// What a write does to the key's expiry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// The key lives until it is deleted.
    Never,
    /// KEEPTTL
    Keep,
    /// From this time on the key is gone.
    When(When),
}

/// A point in time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// After the log time at which the command is applied. At most [`RELATIVE_MS_MAX`].
    In(i64),
    /// Since 1970.
    At(i64),
}

/// The largest relative time: no log time, which is u64 nanoseconds, can carry it past an i64.
#[expect(
    clippy::cast_possible_wrap,
    reason = "u64::MAX nanoseconds are 18 million million milliseconds"
)]
pub const RELATIVE_MS_MAX: i64 = i64::MAX - (u64::MAX / 1_000_000) as i64 - 1;

/// NX, XX, GT, LT of EXPIRE. All that are set must hold; a key without expiry counts as infinite.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ExpireCondition {
    pub if_none: bool,
    pub if_some: bool,
    pub if_later: bool,
    pub if_earlier: bool,
}

/// Which of the four TTL questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TtlForm {
    /// Milliseconds, not seconds.
    pub in_ms: bool,
    /// The point in time, not what is left.
    pub absolute: bool,
}

/// What EXEC orders as one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Multi {
    /// Keys and the revisions that WATCH saw; `Lsn(0)` for a key that was not there.
    pub watches: Vec<(Bytes, Lsn)>,
    /// Anything but another `Multi`. A ledger write under a token aborts the whole, for a stored
    /// reply could not be taken back: `ONCE token EXEC` has both.
    pub commands: Vec<Command>,
}

/// A command under a token. Made by [`Once::new`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Once {
    pub(super) token: Bytes,
    /// How long the token is remembered after the first run.
    pub(super) ttl_ms: u64,
    /// With this many tokens remembered, new ones are refused.
    pub(super) tokens_max: u64,
    /// Digest of the inner command's bytes: tells a repeat from another command.
    pub(super) fingerprint: u128,
    pub(super) command: Box<Command>,
}

impl Once {
    /// `ttl_ms` and `tokens_max` travel with the command, so that applying it is deterministic.
    /// The inner command must not be a `Once`.
    pub fn new(token: Bytes, ttl_ms: u64, tokens_max: u64, command: Command) -> Once {
        assert!(
            !matches!(command, Command::Once(_)),
            "a token stands for one command, not for another token"
        );
        assert!(
            i64::try_from(ttl_ms).is_ok_and(|ms| ms <= RELATIVE_MS_MAX),
            "settings bound once_ttl: {ttl_ms} ms"
        );
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        Once {
            token,
            ttl_ms,
            tokens_max,
            fingerprint: fingerprint(&command, &encoded),
            command: Box::new(command),
        }
    }

    pub fn token(&self) -> &Bytes {
        &self.token
    }

    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    pub fn tokens_max(&self) -> u64 {
        self.tokens_max
    }

    pub fn command(&self) -> &Command {
        &self.command
    }
}

/// Tells one command from another; `encoded` is the command's bytes. Watched revisions do not
/// count: whoever repeats an EXEC under its token has watched anew.
pub(super) fn fingerprint(command: &Command, encoded: &[u8]) -> u128 {
    match command {
        Command::Multi(multi) if !multi.watches.is_empty() => {
            let commands = multi.commands.clone();
            let mut bare = BytesMut::new();
            Command::Multi(Multi {
                watches: Vec::new(),
                commands,
            })
            .encode(&mut bare);
            xxh3_128(&bare)
        }
        _ => xxh3_128(encoded),
    }
}

/// One step of a walk over all keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// 0 to begin; else what the last step answered.
    pub cursor: u64,
    /// Only keys that match this glob.
    pub pattern: Option<Bytes>,
    /// About how many keys to look at, at least 1.
    pub count: u64,
    /// TYPE named another type than string: nothing matches.
    pub other_type: bool,
}

impl Command {
    /// Whether it can change the state, and hence must be ordered in the log.
    pub fn is_write(&self) -> bool {
        match self {
            Command::Set(_)
            | Command::MSet { .. }
            | Command::Append { .. }
            | Command::SetRange { .. }
            | Command::IncrBy { .. }
            | Command::GetDel { .. }
            | Command::GetEx { .. }
            | Command::Del { .. }
            | Command::DelIfEq { .. }
            | Command::Expire { .. }
            | Command::Persist { .. }
            | Command::Rename { .. }
            | Command::Copy { .. }
            | Command::FlushAll
            | Command::CreateAccounts(_)
            | Command::CreateTransfers(_)
            | Command::Once(_) => true,
            Command::Multi(multi) => multi.commands.iter().any(Command::is_write),
            Command::Get { .. }
            | Command::MGet { .. }
            | Command::StrLen { .. }
            | Command::GetRange { .. }
            | Command::Exists { .. }
            | Command::Type { .. }
            | Command::Ttl { .. }
            | Command::RandomKey { .. }
            | Command::Keys { .. }
            | Command::Scan(_)
            | Command::DbSize
            | Command::Revisions { .. }
            | Command::Ledger(_) => false,
        }
    }

    /// Whether it writes into the ledger, alone or among others.
    pub fn is_ledger_write(&self) -> bool {
        match self {
            Command::CreateAccounts(_) | Command::CreateTransfers(_) => true,
            Command::Once(once) => once.command.is_ledger_write(),
            Command::Multi(multi) => multi.commands.iter().any(Command::is_ledger_write),
            _ => false,
        }
    }

    /// The commands that it consists of, in order: itself, unless it is composed.
    pub fn parts(&self) -> Vec<&Command> {
        match self {
            Command::Once(once) => once.command.parts(),
            Command::Multi(multi) => multi.commands.iter().flat_map(Command::parts).collect(),
            single => vec![single],
        }
    }

    /// The key of a command on one key; `None` for others.
    pub(super) fn single_key(&self) -> Option<&[u8]> {
        match self {
            Command::Set(set) => Some(&set.key),
            Command::Append { key, .. }
            | Command::SetRange { key, .. }
            | Command::IncrBy { key, .. }
            | Command::GetDel { key }
            | Command::GetEx { key, .. }
            | Command::DelIfEq { key, .. }
            | Command::Expire { key, .. }
            | Command::Persist { key }
            | Command::Get { key }
            | Command::StrLen { key }
            | Command::GetRange { key, .. }
            | Command::Type { key }
            | Command::Ttl { key, .. } => Some(key),
            Command::Once(once) => once.command.single_key(),
            _ => None,
        }
    }

    /// The event of a batch of one transfer; `None` for others.
    pub(super) fn single_transfer(&self) -> Option<&[u8; RECORD_BYTES]> {
        match self {
            Command::CreateTransfers(batch) => batch.events[..].try_into().ok(),
            Command::Once(once) => once.command.single_transfer(),
            _ => None,
        }
    }

    /// Whether it may need memory: refused with OOM once `max_memory` is reached.
    pub fn may_grow(&self) -> bool {
        match self {
            Command::Set(_)
            | Command::MSet { .. }
            | Command::Append { .. }
            | Command::SetRange { .. }
            | Command::IncrBy { .. }
            | Command::Rename { .. }
            | Command::Copy { .. }
            | Command::CreateAccounts(_)
            | Command::CreateTransfers(_)
            | Command::Once(_) => true,
            Command::Multi(multi) => multi.commands.iter().any(Command::may_grow),
            _ => false,
        }
    }
}
