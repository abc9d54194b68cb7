//! Why a request is refused before it is ordered, in Redis's words where it has some.

use super::TOKEN_BYTES_MAX;
use crate::limits::LEDGER_EVENTS_MAX;
use crate::state::Reply;
use crate::state::ledger::FilterError;
use bytes::Bytes;

/// Why a command is refused before it is ordered; the text is Redis's where it has one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("ERR unknown command '{0}', with args beginning with: {1}")]
    Unknown(String, String),
    #[error(
        "ERR unknown command '{0}': this server holds strings and accounts, no other types, \
         floats or scripts; COMMAND LIST shows what there is"
    )]
    OutOfScope(String),
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    #[error("ERR offset is out of range")]
    Offset,
    #[error("ERR decrement would overflow")]
    Decrement,
    #[error("ERR DB index is out of range")]
    Database,
    #[error("ERR source and destination objects are the same")]
    SameObject,
    #[error("ERR invalid cursor")]
    Cursor,
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    NxWithOthers,
    #[error("ERR GT and LT options at the same time are not compatible")]
    GtWithLt,
    #[error("ERR Unsupported option {0}")]
    Option(String),
    #[error(
        "ERR ONCE is for commands that change data; send '{0}' without a token, repeating it is \
         harmless"
    )]
    OnceOfRead(&'static str),
    #[error("ERR a ONCE token stands for one command, not for another ONCE")]
    OnceOfOnce,
    #[error("ERR a ONCE token must have 1 to {TOKEN_BYTES_MAX} bytes")]
    TokenLength,
    #[error(
        "ERR an id or number is wanted: decimal, 0x and hex digits, or a UUID, within its range"
    )]
    NotNumber,
    #[error("ERR there is no flag '{0}'; COMMAND DOCS names the flags")]
    Flag(String),
    #[error("{0}")]
    Filter(FilterError),
    #[error(
        "ERR {bytes} bytes are no batch: send 1 to {LEDGER_EVENTS_MAX} items of {item_bytes} \
         bytes each"
    )]
    Batch { bytes: usize, item_bytes: usize },
}

impl Refusal {
    pub fn reply(&self) -> Reply {
        Reply::error(self.to_string())
    }
}

/// Redis's commands on other types, by prefix or name: worth a clearer error than "unknown".
fn is_out_of_scope(name: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "geo", "pf", "xadd", "xread", "xgroup", "json.", "ft.", "ts.",
    ];
    const NAMES: &str = " incrbyfloat setbit getbit bitcount bitop bitpos bitfield bitfield_ro lcs \
        lpush rpush lpushx rpushx lpop rpop lrange llen lindex lset linsert lrem ltrim lmove \
        rpoplpush blpop brpop blmove brpoplpush lmpop blmpop lpos hset hget hmset hmget hgetall \
        hdel hexists hincrby hincrbyfloat hkeys hvals hlen hscan hsetnx hstrlen hrandfield sadd \
        srem smembers sismember smismember scard spop srandmember smove sinter sinterstore \
        sintercard sunion sunionstore sdiff sdiffstore sscan zadd zrem zscore zmscore zrange \
        zrangestore zrangebyscore zrevrange zrevrangebyscore zrangebylex zrevrangebylex zrank \
        zrevrank zcard zcount zlexcount zincrby zpopmin zpopmax bzpopmin bzpopmax zmpop bzmpop \
        zinter zinterstore zintercard zunion zunionstore zdiff zdiffstore zscan zrandmember \
        zremrangebyrank zremrangebyscore zremrangebylex xlen xrange xrevrange xdel xtrim xack \
        xclaim xautoclaim xpending xinfo xsetid sort sort_ro eval evalsha eval_ro evalsha_ro \
        script function fcall fcall_ro move swapdb dump restore migrate object publish ";
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.split_ascii_whitespace().any(|known| known == name)
}

/// Redis's text for a name it does not know: the name and some arguments, each cut at 128 bytes.
pub(super) fn unknown(args: &[Bytes]) -> Refusal {
    const SHOWN_MAX: usize = 128;
    let shown = |word: &Bytes| {
        let text = String::from_utf8_lossy(&word[..word.len().min(SHOWN_MAX)]).into_owned();
        text.replace(['\r', '\n'], " ")
    };
    let name = shown(&args[0]);
    if is_out_of_scope(&name.to_ascii_lowercase()) {
        return Refusal::OutOfScope(name);
    }
    let mut beginning = String::new();
    for word in &args[1..] {
        if beginning.len() >= SHOWN_MAX {
            break;
        }
        beginning.push_str(&format!("'{}' ", shown(word)));
    }
    Refusal::Unknown(name, beginning)
}
