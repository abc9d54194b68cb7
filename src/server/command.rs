//! The command table: every command's name, arity, flags, keys and words for people.
//!
//! A session looks a request up ([`find`]), checks rights by the [`Spec`] and the keys
//! ([`keys_of`]), and then parses it ([`parse()`]): into a [`Command`](crate::state::Command) for
//! the state, or, where the command is the session's own to answer, into its [`Id`].

mod introspect;
mod ledger;
mod parse;
mod refusal;
mod table;
#[cfg(test)]
mod tests;

pub use introspect::{answer, keys_of};
pub use parse::{Context, Parsed, TOKEN_BYTES_MAX, find, once_exec, parse};
pub use refusal::Refusal;
pub use table::{TABLE, lookup};

type Parse<T> = Result<T, Refusal>;

/// Which command. Names of data commands, then of those that a session answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Id {
    // Strings.
    Append,
    Decr,
    DecrBy,
    DelIfEq,
    Get,
    GetDel,
    GetEx,
    GetRange,
    GetSet,
    Incr,
    IncrBy,
    MGet,
    MSet,
    MSetNx,
    PSetEx,
    Set,
    SetEx,
    SetNx,
    SetRange,
    StrLen,
    SubStr,
    // Keys.
    Copy,
    DbSize,
    Del,
    Exists,
    Expire,
    ExpireAt,
    ExpireTime,
    FlushAll,
    FlushDb,
    Keys,
    PExpire,
    PExpireAt,
    PExpireTime,
    Persist,
    PTtl,
    RandomKey,
    Rename,
    RenameNx,
    Scan,
    Touch,
    Ttl,
    Type,
    Unlink,
    // The ledger, in words and in batches.
    AccountBalances,
    AccountCreate,
    AccountGet,
    AccountQuery,
    AccountTransfers,
    LedgerAudit,
    LedgerCreateAccounts,
    LedgerCreateTransfers,
    LedgerLookupAccounts,
    LedgerLookupTransfers,
    LedgerTotals,
    TransferCreate,
    TransferGet,
    TransferPost,
    TransferQuery,
    TransferVoid,
    // Exactly once, transactions: composed of data commands by the session.
    Once,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    // History.
    Digest,
    Outcome,
    Receipt,
    Seen,
    Token,
    WaitLsn,
    // Connection.
    Auth,
    Client,
    Echo,
    Hello,
    Ping,
    Quit,
    ReadOnly,
    ReadWrite,
    Reset,
    Select,
    // Server.
    BgSave,
    Command,
    Config,
    Failover,
    Info,
    LastSave,
    Role,
    Shutdown,
    SlowLog,
    Standfast,
    Time,
    Wait,
    WaitAof,
    // Discovery.
    PSubscribe,
    PUnsubscribe,
    Sentinel,
    Subscribe,
    Unsubscribe,
}

/// What a command may do, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u16);

impl Flags {
    /// May change data: ordered in the log.
    pub const WRITE: Flags = Flags(1);
    /// Looks at data.
    pub const READ: Flags = Flags(2);
    /// May need memory: refused with OOM at `max_memory`.
    pub const GROWS: Flags = Flags(4);
    /// Takes constant or logarithmic time.
    pub const FAST: Flags = Flags(8);
    /// Only for the role admin.
    pub const ADMIN: Flags = Flags(16);
    /// Answered before AUTH.
    pub const BEFORE_AUTH: Flags = Flags(32);
    /// Answered while loading, and on any node whatever its role and staleness.
    pub const ANY_TIME: Flags = Flags(64);
    /// Listens to events.
    pub const PUBSUB: Flags = Flags(128);
    /// Can hold up everybody else.
    pub const DANGEROUS: Flags = Flags(256);

    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which arguments are keys; counted from the name, which is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyRange {
    /// 0: no keys.
    pub first: i8,
    /// Negative counts from the end: -1 is the last argument.
    pub last: i8,
    pub step: i8,
}

impl KeyRange {
    pub const NONE: KeyRange = KeyRange::new(0, 0, 0);

    pub const fn new(first: i8, last: i8, step: i8) -> KeyRange {
        KeyRange { first, last, step }
    }
}

/// Where a command stands in the documents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    String,
    Generic,
    Ledger,
    Transactions,
    History,
    Connection,
    Server,
    Pubsub,
    Discovery,
}

impl Group {
    pub const fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Ledger => "ledger",
            Group::Transactions => "transactions",
            Group::History => "history",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Pubsub => "pubsub",
            Group::Discovery => "discovery",
        }
    }
}

/// One command's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    pub id: Id,
    /// In lower case.
    pub name: &'static str,
    /// Number of words with the name; negative: at least so many.
    pub arity: i8,
    pub flags: Flags,
    pub keys: KeyRange,
    pub group: Group,
    /// The arguments, as Redis's documents write them.
    pub syntax: &'static str,
    /// One sentence for people.
    pub summary: &'static str,
}

impl Spec {
    /// Whether a request of `words` words, the name included, has the right arity.
    pub fn takes(&self, words: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            words >= arity
        } else {
            words == arity
        }
    }
}
