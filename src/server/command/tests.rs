//! The table's own rules, and the scripts that show what each command does to the state.

use super::*;
use crate::state::command::{Multi, push};
use crate::state::{Command, Limits, Reply, State};
use bytes::{Bytes, BytesMut};
use standfast_wal::{Epoch, Kind, Link, Lsn, Record};
use std::error::Error;

const CONTEXT: Context = Context {
    once_ttl_ms: 60_000,
    once_max: 3,
    seed: 0,
};

fn words(request: &str) -> Vec<Bytes> {
    request
        .split(' ')
        .map(|word| Bytes::copy_from_slice(word.as_bytes()))
        .collect()
}

/// One client on one state: what a session does with MULTI, WATCH and EXEC, and no more.
struct Client {
    state: State,
    log: Link,
    /// Log time of the next record, in ns.
    now_ns: u64,
    queued: Option<Vec<Command>>,
    watches: Vec<(Bytes, Lsn)>,
}

impl Client {
    fn new() -> Client {
        Client {
            state: State::new(Limits::new(1)),
            log: Link::default(),
            now_ns: 1_000_000,
            queued: None,
            watches: Vec::new(),
        }
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) -> Option<Reply> {
        let timestamp = self.now_ns.max(self.log.timestamp + 1);
        let record = Record::build(self.log, kind, Epoch(1), timestamp, 1, payload);
        self.log = record.link();
        let mut replies = Vec::new();
        self.state.apply(&record, |_, reply| replies.push(reply));
        self.state.check();
        replies.pop()
    }

    fn order(&mut self, command: &Command) -> Reply {
        if !command.is_write() {
            return self.state.read(command);
        }
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        let mut payload = BytesMut::new();
        push(&mut payload, &encoded);
        self.append(Kind::Commands, &payload)
            .expect("a command has a reply")
    }

    fn multi(&mut self) -> Multi {
        Multi {
            watches: std::mem::take(&mut self.watches),
            commands: self.queued.take().unwrap_or_default(),
        }
    }

    fn request(&mut self, args: &[Bytes]) -> Result<Reply, Refusal> {
        Ok(match parse(find(args)?, args, &CONTEXT)? {
            Parsed::Data(command) => match &mut self.queued {
                Some(queue) => {
                    queue.push(command);
                    Reply::Simple("QUEUED")
                }
                None => self.order(&command),
            },
            Parsed::OnceExec { token } => {
                let command = once_exec(token, self.multi(), &CONTEXT);
                self.order(&command)
            }
            Parsed::Session(Id::Exec) => {
                let command = Command::Multi(self.multi());
                self.order(&command)
            }
            Parsed::Session(Id::Multi) => {
                self.queued = Some(Vec::new());
                Reply::Ok
            }
            Parsed::Session(Id::Watch) => {
                let seen = args[1..]
                    .iter()
                    .map(|key| (key.clone(), self.state.revision(key)));
                self.watches = seen.collect();
                Reply::Ok
            }
            Parsed::Session(Id::Command) => answer(args),
            Parsed::Session(id) => panic!("{id:?} is not for this client"),
        })
    }
}

/// As redis-cli prints it, on one line.
fn shown(reply: &Reply) -> String {
    let list = |replies: &[Reply]| replies.iter().map(shown).collect::<Vec<_>>().join(", ");
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Nil | Reply::NilArray => "(nil)".into(),
        Reply::Int(number) => format!("(integer) {number}"),
        Reply::Simple(text) => (*text).into(),
        Reply::Bulk(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Reply::Error(text) => format!("(error) {}", String::from_utf8_lossy(text)),
        Reply::Array(replies) => format!("[{}]", list(replies)),
        Reply::Map(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| format!("{}: {}", shown(key), shown(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

impl goldenscript::Runner for Client {
    fn run(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn Error>> {
        let mut args = vec![command.name.clone()];
        args.extend(command.args.iter().map(|arg| match &arg.key {
            Some(key) => format!("{key}={}", arg.value),
            None => arg.value.clone(),
        }));
        match args[0].as_str() {
            // at MILLISECONDS: the log time of the next command; a Tick moves it at once.
            "at" => {
                self.now_ns = args[1].parse::<u64>()? * 1_000_000;
                self.append(Kind::Tick, b"");
                Ok(String::new())
            }
            // later MILLISECONDS: the same without a Tick.
            "later" => {
                self.now_ns = args[1].parse::<u64>()? * 1_000_000;
                Ok(String::new())
            }
            // held: what memory is taken for, whether clients can see it or not.
            "held" => Ok(format!(
                "{} keys, {} tokens",
                self.state.keys(),
                self.state.tokens()
            )),
            // revision KEY
            "revision" => Ok(self.state.revision(args[1].as_bytes()).to_string()),
            _ => {
                let args: Vec<Bytes> = args.into_iter().map(Bytes::from).collect();
                let reply = self
                    .request(&args)
                    .unwrap_or_else(|refusal| refusal.reply());
                Ok(shown(&reply))
            }
        }
    }
}

#[test]
fn scripts() {
    let mut count = 0;
    for file in std::fs::read_dir("src/state/scripts").expect("tests run in the package") {
        let path = file.expect("readable").path();
        goldenscript::run(&mut Client::new(), &path)
            .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        count += 1;
    }
    assert!(count >= 5, "only {count} scripts found");
}

/// A reply in the words of the cookbook: maps and lists without their frames.
fn told(reply: &Reply) -> String {
    let list = |replies: &[Reply], frame: bool| {
        let told = replies.iter().map(|reply| match reply {
            Reply::Array(_) => format!("[{}]", told(reply)),
            Reply::Map(_) if frame => format!("[{}]", told(reply)),
            other => told(other),
        });
        told.collect::<Vec<_>>().join(" ")
    };
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Error(text) => format!("error {}", String::from_utf8_lossy(text)),
        Reply::Array(replies) => list(replies, true),
        Reply::Map(pairs) => {
            let words = pairs
                .iter()
                .flat_map(|(key, value)| [key.clone(), value.clone()]);
            list(&words.collect::<Vec<_>>(), true)
        }
        other => shown(other),
    }
}

#[test]
fn the_cookbook_of_the_ledger_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ledger.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let start = text.find("<!-- cookbook -->").expect("it has a cookbook");
    let end = start + text[start..].find("<!-- end -->").expect("that ends");
    let mut client = Client::new();
    let (mut out, mut requests) = (text[..start].to_owned(), 0);
    let mut is_reply = false;
    for line in text[start..end].lines() {
        match line.strip_prefix("    > ") {
            Some(request) => {
                let reply = client.request(&words(request));
                let reply = reply.unwrap_or_else(|refusal| refusal.reply());
                out.push_str(&format!("{line}\n    {}\n", told(&reply)));
                is_reply = true;
                requests += 1;
            }
            None if is_reply => is_reply = false,
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out.push_str(&text[end..]);
    assert!(requests > 30, "{requests} requests");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, out).expect("the document is written");
    } else {
        assert!(
            out == text,
            "docs/ledger.md is not what the code answers; run with BLESS=1"
        );
    }
}

#[test]
fn the_table_is_ordered_and_every_name_is_found_in_any_case() {
    assert!(TABLE.is_sorted_by(|a, b| a.name < b.name), "names ascend");
    for spec in TABLE {
        assert_eq!(lookup(spec.name.as_bytes()), Some(spec));
        assert_eq!(lookup(spec.name.to_uppercase().as_bytes()), Some(spec));
        assert_eq!(spec.name, spec.name.to_lowercase());
    }
    for name in [
        "",
        "ge",
        "gett",
        "set ",
        "incrbyfloat",
        "a name much longer than any of them",
    ] {
        assert_eq!(lookup(name.as_bytes()), None, "{name:?}");
    }
}

#[test]
fn flags_agree_with_what_the_parser_makes_of_a_command() {
    let samples = [
        "append k v",
        "copy a b",
        "dbsize",
        "decr k",
        "decrby k 1",
        "del k",
        "delifeq k v",
        "exists k",
        "expire k 1",
        "expireat k 1",
        "expiretime k",
        "flushall",
        "flushdb",
        "get k",
        "getdel k",
        "getex k px 5",
        "getrange k 0 1",
        "getset k v",
        "incr k",
        "incrby k 1",
        "keys *",
        "mget k",
        "mset k v",
        "msetnx k v",
        "once t del k",
        "persist k",
        "pexpire k 1",
        "pexpireat k 1",
        "pexpiretime k",
        "psetex k 1 v",
        "pttl k",
        "randomkey",
        "rename a b",
        "renamenx a b",
        "scan 0",
        "set k v",
        "setex k 1 v",
        "setnx k v",
        "setrange k 0 v",
        "strlen k",
        "substr k 0 1",
        "touch k",
        "ttl k",
        "type k",
        "unlink k",
    ];
    let batch = "x".repeat(128);
    let ledger = [
        "account.balances 1".to_owned(),
        "account.create 1 ledger 1 code 1".to_owned(),
        "account.get 1".to_owned(),
        "account.query".to_owned(),
        "account.transfers 1".to_owned(),
        "ledger.audit".to_owned(),
        format!("ledger.create_accounts {batch}"),
        format!("ledger.create_transfers {batch}"),
        format!("ledger.lookup_accounts {batch}"),
        format!("ledger.lookup_transfers {batch}"),
        "ledger.totals".to_owned(),
        "transfer.create 1 2 3 4 ledger 1 code 1".to_owned(),
        "transfer.get 1".to_owned(),
        "transfer.post 1 2".to_owned(),
        "transfer.query".to_owned(),
        "transfer.void 1 2".to_owned(),
    ];
    let mut data = 0;
    for sample in samples.into_iter().chain(ledger.iter().map(String::as_str)) {
        let args = words(sample);
        let spec = find(&args).expect(sample);
        let Ok(Parsed::Data(command)) = parse(spec, &args, &CONTEXT) else {
            panic!("{sample} is a data command");
        };
        assert_eq!(command.is_write(), spec.flags.has(Flags::WRITE), "{sample}");
        assert_eq!(!command.is_write(), spec.flags.has(Flags::READ), "{sample}");
        // RENAME only moves memory about, but a longer name takes more.
        let renames = spec.name.starts_with("rename");
        assert_eq!(
            command.may_grow(),
            spec.flags.has(Flags::GROWS) || renames,
            "{sample}"
        );
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        assert_eq!(
            crate::state::command::may_grow(&encoded),
            command.may_grow(),
            "{sample}"
        );
        data += 1;
    }
    let answered_by_state = |spec: &&Spec| {
        let count = usize::from(spec.arity.unsigned_abs());
        let mut args = words(spec.name);
        args.resize(count, Bytes::from_static(b"1"));
        !matches!(parse(spec, &args, &CONTEXT), Ok(Parsed::Session(_)))
    };
    assert_eq!(
        TABLE.iter().filter(answered_by_state).count(),
        data,
        "a sample for each"
    );
}

#[test]
fn a_command_in_words_parses_to_itself() {
    let requests = [
        "set k v",
        "set k v nx px 5",
        "set k v xx get keepttl",
        "set k v ifeq w pxat 77",
        "setnx k v",
        "getset k v",
        "mset a 1 b 2",
        "msetnx a 1",
        "append k v",
        "setrange k 7 v",
        "incrby k -5",
        "getdel k",
        "getex k persist",
        "getex k px 5",
        "getex k pxat 5",
        "del a b",
        "delifeq k v",
        "pexpire k -5 nx",
        "pexpireat k 5 xx gt",
        "pexpire k 5 lt",
        "persist k",
        "rename a b",
        "renamenx a b",
        "copy a b",
        "copy a b replace",
        "flushall",
        "get k",
        "mget a b",
        "strlen k",
        "getrange k 0 -1",
        "exists a a",
        "type k",
        "ttl k",
        "pttl k",
        "expiretime k",
        "pexpiretime k",
        "randomkey",
        "keys a*",
        "scan 5 match a* count 7",
        "scan 0 count 10 type hash",
        "dbsize",
        "once token incrby k 1",
        "account.create 0xff ledger 1 code 2 flags history,closed userdata32 7",
        "account.create 1 ledger 1 code 2 flags imported timestamp 5 userdata64 1 userdata128 2",
        "account.get 5 with holds",
        "account.transfers 5 debits from 3 to 9 reversed limit 7 cursor 4",
        "account.balances 5 credits code 3 ledger 2",
        "account.query ledger 3 userdata64 4",
        "transfer.create 1 2 3 all ledger 1 code 2 pending timeout 60 flags balancing_debit",
        "transfer.post 1 2",
        "transfer.post 1 2 amount 7 code 3 userdata128 4",
        "transfer.void 1 2 ledger 3",
        "transfer.get 123e4567-e89b-12d3-a456-426614174000",
        "transfer.query userdata128 0x10",
        "ledger.totals 5",
        "ledger.totals",
        "ledger.audit",
        "ledger.lookup_accounts 0123456789abcdef",
    ];
    for request in requests {
        let parsed = |args: &[Bytes]| parse(find(args).expect(request), args, &CONTEXT);
        let Ok(Parsed::Data(command)) = parsed(&words(request)) else {
            panic!("{request} is a data command");
        };
        let [again] = &command.requests()[..] else {
            panic!("{request} is one request")
        };
        assert_eq!(
            parsed(again),
            Ok(Parsed::Data(command.clone())),
            "{command}"
        );
    }
    let incr = Command::IncrBy {
        key: Bytes::from("two words"),
        by: 1,
    };
    let set_long = Command::Append {
        key: Bytes::from("k"),
        value: Bytes::from("v".repeat(100)),
    };
    let multi = Multi {
        watches: vec![],
        commands: vec![incr, set_long],
    };
    let shown = once_exec(Bytes::from("t"), multi, &CONTEXT).to_string();
    let long = "v".repeat(64);
    let expected =
        format!("MULTI; INCRBY \"two words\" 1; APPEND k {long}…(100 bytes); ONCE t EXEC");
    assert_eq!(shown, expected);
}

#[test]
fn keys_are_where_the_table_says() {
    let keys = |request: &str| {
        let args = words(request);
        let keys = keys_of(find(&args).expect(request), &args);
        keys.iter()
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("get a"), ["a"]);
    assert_eq!(keys("mset a 1 b 2"), ["a", "b"]);
    assert_eq!(keys("del a b c"), ["a", "b", "c"]);
    assert_eq!(keys("copy a b replace"), ["a", "b"]);
    assert_eq!(keys("once token mset a 1 b 2"), ["a", "b"]);
    assert_eq!(keys("once token once token2 del a"), [""; 0]);
    assert_eq!(keys("ping"), [""; 0]);
}
