//! Tests of the room as a whole: what holds for any log.

mod books;
mod codec;
mod cost;
mod logs;
mod snapshots;

use super::command::{Command, Expiry, Set, SetCondition, SetReply, push};
use super::{Limits, Reply, State};
use bytes::{Bytes, BytesMut};
use standfast_wal::{Epoch, Kind, Link, Lsn, Record};

const LIMITS: Limits = Limits { seed: 11 };

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(key: Bytes, value: Bytes) -> Command {
    Command::Set(Set {
        key,
        value,
        expiry: Expiry::Never,
        condition: SetCondition::Always,
        reply: SetReply::Ok,
    })
}

fn commands_record(after: Link, timestamp: u64, commands: &[Command]) -> Record {
    let mut payload = BytesMut::new();
    for command in commands {
        let mut encoded = BytesMut::new();
        command.encode(&mut encoded);
        push(&mut payload, &encoded);
    }
    let count = u32::try_from(commands.len()).expect("a short record");
    Record::build(after, Kind::Commands, Epoch(1), timestamp, count, &payload)
}

fn apply_all(state: &mut State, records: &[Record]) -> Vec<(Lsn, Reply)> {
    let mut replies = Vec::new();
    for record in records {
        state.apply(record, |lsn, reply| replies.push((lsn, reply)));
    }
    replies
}
