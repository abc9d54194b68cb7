//! Real things to encode: what the seeds of several targets are made of.

use bytes::{Bytes, BytesMut};
use standfast::replication::config::{Acks, Addresses, Member, MemberRole, Protection};
use standfast::replication::{Config, EpochEntry, EpochTable};
use standfast::state::command::{
    Batch, BatchForm, ExpireCondition, Expiry, Multi, Once, Scan, Set, SetCondition, SetReply,
    TtlForm, When, push,
};
use standfast::state::ledger::record::{account_flags, transfer_flags};
use standfast::state::ledger::{Account, Transfer};
use standfast::state::{Attestation, Command, Digest};
use standfast_wal::{
    Ancestor, ClusterId, Epoch, History, Incarnation, Kind, Link, Lsn, NodeId, Nonce, Record,
};
use std::collections::{BTreeMap, BTreeSet};

pub const CLUSTER: ClusterId = ClusterId(0xc1);
pub const INCARNATION: Incarnation = Incarnation(0x1c);
pub const HISTORY: History = History {
    generation: 2,
    id: 0x77,
};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Two accounts with a history, then a movement, a hold and its post between them.
fn bookings() -> [Command; 2] {
    let account = |id| Account {
        id,
        ledger: 1,
        code: 1,
        flags: account_flags::HISTORY,
        ..Account::default()
    };
    let transfer = |id, flags, pending_id| Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 9,
        pending_id,
        ledger: 1,
        code: 1,
        flags,
        ..Transfer::default()
    };
    let events = [
        transfer(1, 0, 0),
        transfer(2, transfer_flags::PENDING, 0),
        transfer(3, transfer_flags::POST, 2),
    ];
    let accounts = [account(1), account(2)].map(|account| account.encode());
    let transfers = events.map(|transfer| transfer.encode());
    let batch = |events: &[[u8; 128]]| Batch {
        events: Bytes::copy_from_slice(events.as_flattened()),
        form: BatchForm::Results,
    };
    [
        Command::CreateAccounts(batch(&accounts)),
        Command::CreateTransfers(batch(&transfers)),
    ]
}

/// One of each sort of write.
pub fn writes() -> Vec<Command> {
    let mut writes = writes_of_keys();
    writes.extend(bookings());
    writes
}

fn writes_of_keys() -> Vec<Command> {
    let key = || text("key");
    let set = |expiry, condition, reply| {
        Command::Set(Set {
            key: key(),
            value: text("value"),
            expiry,
            condition,
            reply,
        })
    };
    vec![
        set(Expiry::Never, SetCondition::Always, SetReply::Ok),
        set(Expiry::Keep, SetCondition::IfAbsent, SetReply::Flag),
        set(
            Expiry::When(When::In(5)),
            SetCondition::IfEqual(text("value")),
            SetReply::Previous,
        ),
        Command::MSet {
            pairs: vec![(text("a"), text("1")), (text("b"), text("2"))],
            if_none_exists: true,
        },
        Command::Append {
            key: key(),
            value: text("!"),
        },
        Command::SetRange {
            key: key(),
            offset: 9,
            value: text("x"),
        },
        Command::IncrBy {
            key: text("a"),
            by: -3,
        },
        Command::GetDel { key: text("b") },
        Command::GetEx {
            key: key(),
            expiry: Expiry::When(When::At(90)),
        },
        Command::DelIfEq {
            key: key(),
            value: text("value"),
        },
        Command::Expire {
            key: text("a"),
            when: When::In(1),
            condition: ExpireCondition {
                if_none: true,
                ..ExpireCondition::default()
            },
        },
        Command::Persist { key: text("a") },
        Command::Rename {
            source: text("a"),
            target: text("c"),
            if_absent: false,
        },
        Command::Copy {
            source: text("c"),
            target: text("d"),
            replace: true,
        },
        Command::Del {
            keys: vec![key(), text("d")],
        },
        Command::FlushAll,
    ]
}

/// One of each sort of read.
pub fn reads() -> Vec<Command> {
    let key = || text("key");
    vec![
        Command::Get { key: key() },
        Command::MGet { keys: vec![key()] },
        Command::StrLen { key: key() },
        Command::GetRange {
            key: key(),
            start: -3,
            end: -1,
        },
        Command::Exists { keys: vec![key()] },
        Command::Type { key: key() },
        Command::Ttl {
            key: key(),
            form: TtlForm {
                in_ms: true,
                absolute: false,
            },
        },
        Command::RandomKey { seed: 4 },
        Command::Keys {
            pattern: text("[a-z]*"),
        },
        Command::Scan(Scan {
            cursor: 0,
            pattern: Some(text("k?y")),
            count: 10,
            other_type: false,
        }),
        Command::DbSize,
        Command::Revisions { keys: vec![key()] },
    ]
}

/// Commands made of others.
pub fn composed() -> Vec<Command> {
    let multi = |watches| {
        let commands = [writes(), reads()].concat();
        Command::Multi(Multi { watches, commands })
    };
    vec![
        multi(Vec::new()),
        multi(vec![(text("key"), Lsn(0))]),
        Command::Once(Once::new(text("t-1"), 1000, 10, writes().remove(0))),
        Command::Once(Once::new(text("t-2"), 1000, 10, multi(Vec::new()))),
    ]
}

/// The payload of a record of kind Commands.
pub fn payload(commands: &[Command]) -> Bytes {
    let mut payload = BytesMut::new();
    for command in commands {
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        push(&mut payload, &encoded);
    }
    payload.freeze()
}

pub fn epoch_entry(epoch: u64, first: u64) -> EpochEntry {
    EpochEntry {
        history: HISTORY,
        epoch: Epoch(epoch),
        nonce: Nonce(9),
        primary: NodeId(1),
        first_lsn: Lsn(first),
    }
}

pub fn epochs() -> EpochTable {
    EpochTable::new(vec![epoch_entry(1, 1), epoch_entry(3, 20)])
}

/// A log of every kind of record, the first behind `after`.
pub fn records_after(after: Link) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut link = after;
    let epoch = Epoch(after.position.epoch.0.max(1));
    let first = link.position.lsn.next();
    let start = epoch_entry(epoch.0, first.0).encode(after.position.epoch);
    let attestation = Attestation {
        lsn: Lsn(1),
        digest: Digest(5),
    };
    let commands = writes();
    let parts: [(Kind, u32, &[u8]); 5] = [
        (Kind::EpochStart, 1, &start),
        (Kind::Commands, 2, &payload(&commands[..2])),
        (Kind::Attestation, 1, &attestation.encode()),
        (Kind::Tick, 1, b""),
        (Kind::Operator, 1, b"who and why"),
    ];
    for (kind, count, payload) in parts {
        let record = Record::build(link, kind, epoch, link.timestamp + 10, count, payload);
        link = record.link();
        records.push(record);
    }
    records
}

pub fn records() -> Vec<Record> {
    records_after(Link::default())
}

/// The bytes of records, back to back.
pub fn bytes_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(record.bytes());
    }
    bytes
}

pub fn addresses() -> Addresses {
    Addresses {
        client: "a:1".to_string(),
        peer: "a:2".to_string(),
        http: "a:3".to_string(),
    }
}

/// The Config of three nodes.
pub fn cluster() -> Config {
    let member = |role| Member {
        incarnation: INCARNATION,
        role,
        site: "main".to_string(),
        priority: 100,
        addresses: addresses(),
    };
    let roles = [MemberRole::Data, MemberRole::Data, MemberRole::Witness];
    let members: BTreeMap<NodeId, Member> = (1u32..).map(NodeId).zip(roles.map(member)).collect();
    let voters: BTreeSet<NodeId> = members.keys().copied().collect();
    let mut config = Config::first(
        HISTORY,
        Nonce(8),
        Acks::All,
        Protection::MaxAvailability,
        members,
        voters,
    );
    config
        .ancestors
        .push(Ancestor::at(History::default(), Lsn(4)));
    config
}
