//! The table itself: one line of facts and one of words per command.

use super::{Flags, Group, Id, KeyRange, Spec};

const W: Flags = Flags::WRITE;
const R: Flags = Flags::READ;
const OOM: Flags = Flags::GROWS;
const FAST: Flags = Flags::FAST;
const ADMIN: Flags = Flags::ADMIN;
const OPEN: Flags = Flags::BEFORE_AUTH;
const FREE: Flags = Flags::ANY_TIME;
const PUBSUB: Flags = Flags::PUBSUB;

const NONE: KeyRange = KeyRange::NONE;
const ONE: KeyRange = KeyRange::new(1, 1, 1);
const TWO: KeyRange = KeyRange::new(1, 2, 1);
const ALL: KeyRange = KeyRange::new(1, -1, 1);
const PAIRS: KeyRange = KeyRange::new(1, -1, 2);

/// Every command, strictly ascending by name.
#[rustfmt::skip]
pub static TABLE: &[Spec] = &{
    use Group::{
        Connection, Discovery, Generic, History, Ledger, Pubsub, Server, String, Transactions,
    };
    [
        row(Id::AccountBalances, "account.balances", -2, R, NONE, Ledger,
            "id [FROM ns] [TO ns] [DEBITS] [CREDITS] [LEDGER ledger] [CODE code] [USERDATA128 \
             data] [USERDATA64 data] [USERDATA32 data] [REVERSED] [LIMIT count] [CURSOR cursor]",
            "Answers a cursor and an account's balances after each of its events."),
        row(Id::AccountCreate, "account.create", -6, W.and(OOM), NONE, Ledger,
            "id LEDGER ledger CODE code [FLAGS flag,...] [USERDATA128 data] [USERDATA64 data] \
             [USERDATA32 data] [TIMESTAMP ns]",
            "Opens an account; the same one again is answered EXISTS."),
        row(Id::AccountGet, "account.get", -2, R.and(FAST), NONE, Ledger, "id [WITH HOLDS]",
            "Answers an account, and with it its open holds, both at one LSN."),
        row(Id::AccountQuery, "account.query", -1, R, NONE, Ledger,
            "[LEDGER ledger] [CODE code] [USERDATA128 data] [USERDATA64 data] [USERDATA32 data] \
             [FROM ns] [TO ns] [REVERSED] [LIMIT count] [CURSOR cursor]",
            "Answers a cursor and the accounts that match, in the order of their creation."),
        row(Id::AccountTransfers, "account.transfers", -2, R, NONE, Ledger,
            "id [FROM ns] [TO ns] [DEBITS] [CREDITS] [LEDGER ledger] [CODE code] [USERDATA128 \
             data] [USERDATA64 data] [USERDATA32 data] [REVERSED] [LIMIT count] [CURSOR cursor]",
            "Answers a cursor and an account's transfers, the oldest first unless REVERSED."),
        row(Id::Append, "append", 3, W.and(OOM).and(FAST), ONE, String, "key value",
            "Appends to a value; a missing key counts as empty."),
        row(Id::Auth, "auth", -2, FAST.and(OPEN).and(FREE), NONE, Connection, "[username] password",
            "Says who this connection is."),
        row(Id::BgSave, "bgsave", -1, ADMIN, NONE, Server, "[SCHEDULE]",
            "Takes a snapshot of this node's state in the background."),
        row(Id::Client, "client", -2, FREE, NONE, Connection, "subcommand [argument ...]",
            "Connections: ID, SETNAME, GETNAME, SETINFO, INFO, LIST, KILL, NO-EVICT, NO-TOUCH, \
             REPLY."),
        row(Id::Command, "command", -1, FREE, NONE, Server, "[subcommand [argument ...]]",
            "This table: COUNT, DOCS, INFO, LIST, GETKEYS."),
        row(Id::Config, "config", -2, ADMIN.and(FREE), NONE, Server, "subcommand [argument ...]",
            "Settings: GET, SET of what can change at run time."),
        row(Id::Copy, "copy", -3, W.and(OOM), TWO, Generic,
            "source destination [DB destination-db] [REPLACE]",
            "Copies a value and its expiry to another key."),
        row(Id::DbSize, "dbsize", 1, R.and(FAST), NONE, Server, "",
            "Counts the keys."),
        row(Id::Decr, "decr", 2, W.and(OOM).and(FAST), ONE, String, "key",
            "Takes one from an integer; a missing key counts as 0."),
        row(Id::DecrBy, "decrby", 3, W.and(OOM).and(FAST), ONE, String, "key decrement",
            "Takes a number from an integer; a missing key counts as 0."),
        row(Id::Del, "del", -2, W, ALL, Generic, "key [key ...]",
            "Deletes keys; answers how many there were."),
        row(Id::DelIfEq, "delifeq", 3, W.and(FAST), ONE, String, "key value",
            "Deletes a key if it holds exactly this value: releases one's own lock."),
        row(Id::Digest, "digest", -1, R, NONE, History, "[SLOTS]",
            "Answers the applied LSN and the digest of the state there."),
        row(Id::Discard, "discard", 1, FAST.and(FREE), NONE, Transactions, "",
            "Forgets the commands queued since MULTI, and the watched keys."),
        row(Id::Echo, "echo", 2, FAST.and(FREE), NONE, Connection, "message",
            "Answers its argument."),
        row(Id::Exec, "exec", 1, FREE, NONE, Transactions, "",
            "Runs the commands queued since MULTI as one command of the log."),
        row(Id::Exists, "exists", -2, R.and(FAST), ALL, Generic, "key [key ...]",
            "Counts which of the keys there are."),
        row(Id::Expire, "expire", -3, W.and(FAST), ONE, Generic, "key seconds [NX | XX | GT | LT]",
            "Lets a key end after some seconds of log time."),
        row(Id::ExpireAt, "expireat", -3, W.and(FAST), ONE, Generic,
            "key unix-time-seconds [NX | XX | GT | LT]",
            "Lets a key end at a time in seconds since 1970."),
        row(Id::ExpireTime, "expiretime", 2, R.and(FAST), ONE, Generic, "key",
            "Answers when a key ends, in seconds since 1970."),
        row(Id::Failover, "failover", -1, ADMIN, NONE, Server, "[TO host port]",
            "Hands the primary's part to a synchronous backup, by switchover."),
        row(Id::FlushAll, "flushall", -1, W, NONE, Server, "[ASYNC | SYNC]",
            "Deletes every key; never ONCE tokens or the ledger."),
        row(Id::FlushDb, "flushdb", -1, W, NONE, Server, "[ASYNC | SYNC]",
            "The same as FLUSHALL: there is one database."),
        row(Id::Get, "get", 2, R.and(FAST), ONE, String, "key",
            "Answers a value."),
        row(Id::GetDel, "getdel", 2, W.and(FAST), ONE, String, "key",
            "Answers a value and deletes the key."),
        row(Id::GetEx, "getex", -2, W.and(FAST), ONE, String,
            "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT \
             unix-time-milliseconds | PERSIST]",
            "Answers a value and changes its expiry."),
        row(Id::GetRange, "getrange", 4, R, ONE, String, "key start end",
            "Answers a part of a value; negative offsets count from the end."),
        row(Id::GetSet, "getset", 3, W.and(OOM).and(FAST), ONE, String, "key value",
            "Sets a value and answers the one before."),
        row(Id::Hello, "hello", -1, FAST.and(OPEN).and(FREE), NONE, Connection,
            "[protover [AUTH username password] [SETNAME clientname]]",
            "Chooses RESP2 or RESP3 and says who this is."),
        row(Id::Incr, "incr", 2, W.and(OOM).and(FAST), ONE, String, "key",
            "Adds one to an integer; a missing key counts as 0."),
        row(Id::IncrBy, "incrby", 3, W.and(OOM).and(FAST), ONE, String, "key increment",
            "Adds a number to an integer; a missing key counts as 0."),
        row(Id::Info, "info", -1, FREE, NONE, Server, "[section [section ...]]",
            "Facts about this node, in Redis's sections where they fit."),
        row(Id::Keys, "keys", 2, R.and(Flags::DANGEROUS), NONE, Generic, "pattern",
            "Lists the keys that match a glob; looks at all of them, so prefer SCAN."),
        row(Id::LastSave, "lastsave", 1, FAST.and(FREE), NONE, Server, "",
            "Answers when the newest snapshot was taken."),
        row(Id::LedgerAudit, "ledger.audit", 1, R.and(Flags::DANGEROUS), NONE, Ledger, "",
            "Makes every balance again from the transfers; takes as long as reading all."),
        row(Id::LedgerCreateAccounts, "ledger.create_accounts", 2, W.and(OOM), NONE, Ledger,
            "batch",
            "Opens accounts: n times 128 bytes in, n times 16 bytes of results out."),
        row(Id::LedgerCreateTransfers, "ledger.create_transfers", 2, W.and(OOM), NONE, Ledger,
            "batch",
            "Creates transfers: n times 128 bytes in, n times 16 bytes of results out."),
        row(Id::LedgerLookupAccounts, "ledger.lookup_accounts", 2, R, NONE, Ledger, "ids",
            "Answers accounts of 128 bytes for ids of 16; unknown ids are left out."),
        row(Id::LedgerLookupTransfers, "ledger.lookup_transfers", 2, R, NONE, Ledger, "ids",
            "Answers transfers of 128 bytes for ids of 16; unknown ids are left out."),
        row(Id::LedgerTotals, "ledger.totals", -1, R, NONE, Ledger, "[ledger]",
            "Answers the sums of all debits and credits, ledger by ledger."),
        row(Id::MGet, "mget", -2, R.and(FAST), ALL, String, "key [key ...]",
            "Answers several values, all at one LSN."),
        row(Id::MSet, "mset", -3, W.and(OOM), PAIRS, String, "key value [key value ...]",
            "Sets several values as one."),
        row(Id::MSetNx, "msetnx", -3, W.and(OOM), PAIRS, String, "key value [key value ...]",
            "Sets several values as one, if none of the keys is there."),
        row(Id::Multi, "multi", 1, FAST.and(FREE), NONE, Transactions, "",
            "Begins to queue commands for EXEC."),
        row(Id::Once, "once", -3, W.and(OOM), NONE, Transactions, "token command [argument ...]",
            "Runs a command at most once; a repeat is answered the stored reply."),
        row(Id::Outcome, "outcome", 4, R.and(FREE), NONE, History, "generation epoch lsn",
            "Says what became of an ordered command: its reply, never, or pending."),
        row(Id::Persist, "persist", 2, W.and(FAST), ONE, Generic, "key",
            "Lets a key live until it is deleted."),
        row(Id::PExpire, "pexpire", -3, W.and(FAST), ONE, Generic,
            "key milliseconds [NX | XX | GT | LT]",
            "Lets a key end after some milliseconds of log time."),
        row(Id::PExpireAt, "pexpireat", -3, W.and(FAST), ONE, Generic,
            "key unix-time-milliseconds [NX | XX | GT | LT]",
            "Lets a key end at a time in milliseconds since 1970."),
        row(Id::PExpireTime, "pexpiretime", 2, R.and(FAST), ONE, Generic, "key",
            "Answers when a key ends, in milliseconds since 1970."),
        row(Id::Ping, "ping", -1, FAST.and(FREE), NONE, Connection, "[message]",
            "Answers PONG, or its argument."),
        row(Id::PSetEx, "psetex", 4, W.and(OOM), ONE, String, "key milliseconds value",
            "Sets a value that ends after some milliseconds."),
        row(Id::PSubscribe, "psubscribe", -2, PUBSUB.and(FREE), NONE, Pubsub,
            "pattern [pattern ...]",
            "Listens to Sentinel events by glob."),
        row(Id::PTtl, "pttl", 2, R.and(FAST), ONE, Generic, "key",
            "Answers how many milliseconds a key has left."),
        row(Id::PUnsubscribe, "punsubscribe", -1, PUBSUB.and(FREE), NONE, Pubsub,
            "[pattern [pattern ...]]",
            "Stops listening by glob."),
        row(Id::Quit, "quit", -1, FAST.and(OPEN).and(FREE), NONE, Connection, "",
            "Closes the connection."),
        row(Id::RandomKey, "randomkey", 1, R, NONE, Generic, "",
            "Answers some key."),
        row(Id::ReadOnly, "readonly", 1, FAST.and(FREE), NONE, Connection, "",
            "Lets a backup answer this connection's reads, within max_staleness."),
        row(Id::ReadWrite, "readwrite", 1, FAST.and(FREE), NONE, Connection, "",
            "Ends READONLY: reads are linearizable again."),
        row(Id::Receipt, "receipt", 1, FAST.and(FREE), NONE, History, "",
            "Proof of this connection's last write: generation, epoch, LSN, copies, protection."),
        row(Id::Rename, "rename", 3, W, TWO, Generic, "key newkey",
            "Moves a value and its expiry to another key, over what was there."),
        row(Id::RenameNx, "renamenx", 3, W.and(FAST), TWO, Generic, "key newkey",
            "Moves a value and its expiry to another key, if that is free."),
        row(Id::Reset, "reset", 1, FAST.and(OPEN).and(FREE), NONE, Connection, "",
            "Makes the connection as if it were new."),
        row(Id::Role, "role", 1, FAST.and(FREE), NONE, Server, "",
            "Answers this node's part in replication."),
        row(Id::Scan, "scan", -2, R, NONE, Generic,
            "cursor [MATCH pattern] [COUNT count] [TYPE type]",
            "Walks over all keys, step by step; misses none that is there throughout."),
        row(Id::Seen, "seen", 4, FAST.and(FREE), NONE, History, "history epoch lsn",
            "Refuses to be served from a past that does not contain this point."),
        row(Id::Select, "select", 2, FAST.and(FREE), NONE, Connection, "index",
            "Chooses database 0, the only one."),
        row(Id::Sentinel, "sentinel", -2, ADMIN.and(FREE), NONE, Discovery,
            "subcommand [argument ...]",
            "Discovery: MASTERS, MASTER, REPLICAS, SENTINELS, GET-MASTER-ADDR-BY-NAME, CKQUORUM."),
        row(Id::Set, "set", -3, W.and(OOM), ONE, String,
            "key value [NX | XX | IFEQ expected] [GET] [EX seconds | PX milliseconds | EXAT \
             unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
            "Sets a value."),
        row(Id::SetEx, "setex", 4, W.and(OOM), ONE, String, "key seconds value",
            "Sets a value that ends after some seconds."),
        row(Id::SetNx, "setnx", 3, W.and(OOM).and(FAST), ONE, String, "key value",
            "Sets a value if the key is not there."),
        row(Id::SetRange, "setrange", 4, W.and(OOM), ONE, String, "key offset value",
            "Writes over a part of a value, filling with zero bytes up to it."),
        row(Id::Shutdown, "shutdown", -1, ADMIN.and(FREE), NONE, Server,
            "[NOSAVE | SAVE] [NOW] [FORCE]",
            "Hands over, then stops this node."),
        row(Id::SlowLog, "slowlog", -2, ADMIN.and(FREE), NONE, Server, "subcommand [argument]",
            "The slowest commands: GET, LEN, RESET."),
        row(Id::Standfast, "standfast", -2, ADMIN.and(FREE), NONE, Server,
            "subcommand [argument ...]",
            "What the operator's own tool asks of a node."),
        row(Id::StrLen, "strlen", 2, R.and(FAST), ONE, String, "key",
            "Answers how many bytes a value has."),
        row(Id::Subscribe, "subscribe", -2, PUBSUB.and(FREE), NONE, Pubsub, "channel [channel ...]",
            "Listens to Sentinel events."),
        row(Id::SubStr, "substr", 4, R, ONE, String, "key start end",
            "The old name of GETRANGE."),
        row(Id::Time, "time", 1, FAST.and(FREE), NONE, Server, "",
            "Answers this node's clock: seconds and microseconds since 1970."),
        row(Id::Token, "token", 2, R.and(FAST), ONE, History, "key",
            "Answers the fencing token of a key's last change: generation and LSN as one ordered \
             value."),
        row(Id::Touch, "touch", -2, R.and(FAST), ALL, Generic, "key [key ...]",
            "Counts which of the keys there are."),
        row(Id::TransferCreate, "transfer.create", -9, W.and(OOM), NONE, Ledger,
            "id debit-account credit-account amount LEDGER ledger CODE code [PENDING] [TIMEOUT \
             seconds] [FLAGS flag,...] [USERDATA128 data] [USERDATA64 data] [USERDATA32 data] \
             [TIMESTAMP ns]",
            "Moves money, or holds it with PENDING; an amount of ALL is as much as there is."),
        row(Id::TransferGet, "transfer.get", 2, R.and(FAST), NONE, Ledger, "id",
            "Answers a transfer, and what became of it if it is a hold."),
        row(Id::TransferPost, "transfer.post", -3, W.and(OOM), NONE, Ledger,
            "id pending-id [AMOUNT amount] [LEDGER ledger] [CODE code] [USERDATA128 data] \
             [USERDATA64 data] [USERDATA32 data]",
            "Posts what is held, or a part of it; the rest is released."),
        row(Id::TransferQuery, "transfer.query", -1, R, NONE, Ledger,
            "[LEDGER ledger] [CODE code] [USERDATA128 data] [USERDATA64 data] [USERDATA32 data] \
             [FROM ns] [TO ns] [REVERSED] [LIMIT count] [CURSOR cursor]",
            "Answers a cursor and the transfers that match, in the order of their creation."),
        row(Id::TransferVoid, "transfer.void", -3, W.and(OOM), NONE, Ledger,
            "id pending-id [LEDGER ledger] [CODE code] [USERDATA128 data] [USERDATA64 data] \
             [USERDATA32 data]",
            "Releases what is held."),
        row(Id::Ttl, "ttl", 2, R.and(FAST), ONE, Generic, "key",
            "Answers how many seconds a key has left."),
        row(Id::Type, "type", 2, R.and(FAST), ONE, Generic, "key",
            "Answers string, or none."),
        row(Id::Unlink, "unlink", -2, W.and(FAST), ALL, Generic, "key [key ...]",
            "The same as DEL."),
        row(Id::Unsubscribe, "unsubscribe", -1, PUBSUB.and(FREE), NONE, Pubsub,
            "[channel [channel ...]]",
            "Stops listening."),
        row(Id::Unwatch, "unwatch", 1, FAST.and(FREE), NONE, Transactions, "",
            "Forgets the watched keys."),
        row(Id::Wait, "wait", 3, FREE, NONE, Generic, "numreplicas timeout",
            "Waits until this connection's last write is durable on so many other nodes."),
        row(Id::WaitAof, "waitaof", 4, FREE, NONE, Generic, "numlocal numreplicas timeout",
            "Waits until this connection's last write is durable here and on so many other nodes."),
        row(Id::WaitLsn, "waitlsn", 3, FREE, NONE, History, "lsn milliseconds",
            "Waits until this node has applied an LSN."),
        row(Id::Watch, "watch", -2, FAST.and(FREE), ALL, Transactions, "key [key ...]",
            "Lets EXEC run only if these keys have not changed by then."),
    ]
};

#[expect(
    clippy::too_many_arguments,
    reason = "one row of a table, read as a row"
)]
const fn row(
    id: Id,
    name: &'static str,
    arity: i8,
    flags: Flags,
    keys: KeyRange,
    group: Group,
    syntax: &'static str,
    summary: &'static str,
) -> Spec {
    Spec {
        id,
        name,
        arity,
        flags,
        keys,
        group,
        syntax,
        summary,
    }
}

const BUCKETS: usize = 512;
const EMPTY: u8 = u8::MAX;
const _: () = assert!(TABLE.len() * 4 < BUCKETS && TABLE.len() < EMPTY as usize);

/// From a name's hash to its row, by open addressing; made by the compiler.
static INDEX: [u8; BUCKETS] = {
    let mut index = [EMPTY; BUCKETS];
    let mut row = 0;
    while row < TABLE.len() {
        let mut at = hash(TABLE[row].name.as_bytes());
        while index[at] != EMPTY {
            at = (at + 1) % BUCKETS;
        }
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        {
            index[at] = row as u8;
        }
        row += 1;
    }
    index
};

/// FNV-1a over the lower-case name: a few bytes, so simple beats clever.
const fn hash(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ name[i].to_ascii_lowercase() as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % BUCKETS
}

/// The row of a command's name, whatever its case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > 24 {
        return None;
    }
    let mut at = hash(name);
    loop {
        let row = INDEX[at];
        if row == EMPTY {
            return None;
        }
        let spec = &TABLE[row as usize];
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        at = (at + 1) % BUCKETS;
    }
}
