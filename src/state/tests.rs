//! Tests of the room as a whole: what holds for any log.

mod books;
mod codec;
mod cost;
mod differences;
mod logs;
mod snapshots;

use super::command::{Command, Expiry, Set, SetCondition, SetReply, push};
use super::{Block, LoadError, Segment, SnapshotHead, load_block, load_segment};
use super::{Limits, Reply, State};
use bytes::{Bytes, BytesMut};
use standfast_wal::{Epoch, Kind, Link, Lsn, Record};

/// Small segments: random logs fill several.
const LIMITS: Limits = Limits {
    seed: 11,
    segment_shift: 2,
};

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

/// All of a snapshot.
#[derive(Clone)]
struct Taken {
    head: SnapshotHead,
    segments: Vec<Segment>,
    blocks: Vec<Block>,
}

impl Taken {
    fn begin(state: &mut State) -> Taken {
        Taken {
            head: state.begin_snapshot(),
            segments: state.segments(),
            blocks: Vec::new(),
        }
    }

    fn of(state: &mut State) -> Taken {
        let mut taken = Taken::begin(state);
        while !state.snapshot_step(1 << 20, &mut taken.blocks) {}
        taken
    }

    fn load(&self) -> Result<State, LoadError> {
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|block| load_block(&LIMITS, &block.bytes));
        let segments = self.segments.iter().cloned().map(load_segment);
        let parts: Result<Vec<_>, _> = blocks.chain(segments).collect();
        State::assemble(LIMITS, &self.head, parts?)
    }
}

fn apply_all(state: &mut State, records: &[Record]) -> Vec<(Lsn, Reply)> {
    let mut replies = Vec::new();
    for record in records {
        state.apply(record, |lsn, reply| replies.push((lsn, reply)));
    }
    replies
}
