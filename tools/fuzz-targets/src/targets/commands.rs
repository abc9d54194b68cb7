//! What the log's payloads hold: commands, the replies that ONCE keeps, attestations.
//!
//! Asserted: what decodes encodes to the very same bytes (equal commands have equal bytes); memory
//! stays within a bound; what decodes can be applied, whatever it is, and leaves a state whose
//! counts and digests are true, which a snapshot gives back.

use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, samples};
use bytes::{Bytes, BytesMut};
use standfast::limits;
use standfast::state::command::{iter, may_grow, push};
use standfast::state::{
    Attestation, Command, Digest, Limits, LoadError, Reply, SnapshotHead, State, load_block,
    load_segment,
};
use standfast_wal::{Epoch, Kind, Link, Lsn, Record};

pub const TARGET: Target = Target {
    name: "commands",
    decodes: "state/codec (records' payloads), Reply::decode, Attestation::decode, State::apply",
    run,
    marks: &[
        "decoded",
        "refused",
        "applied",
        "snapshot",
        "reply",
        "attestation",
    ],
    seeds,
};

/// A command of one byte in EXEC, or a key of none in a list, is up to 120 bytes in memory, and
/// what grows doubles.
const MEMORY: Bound = Bound {
    per_byte: 384,
    fixed: 160 << 10,
};

/// Small segments, so that short inputs fill some.
const LIMITS: Limits = Limits {
    seed: 5,
    segment_shift: 1,
};

/// The choices of the first byte.
const COMMANDS: u8 = 0;
const APPLIED: u8 = 1;
const REPLY: u8 = 2;
const ATTESTATION: u8 = 3;
const ONE: u8 = 4;

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    match how.choice() % 5 {
        REPLY => reply(bytes),
        ATTESTATION => attestation(bytes),
        ONE => {
            let whole = Bytes::copy_from_slice(bytes);
            let decoded = MEMORY.hold(bytes.len(), || Command::from_encoded(whole.clone()));
            let _ = may_grow(&whole);
            if let Ok(command) = decoded {
                same_bytes(&command, &whole);
            }
        }
        choice => {
            let commands = commands(bytes);
            if choice == APPLIED {
                // A snapshot takes as long as all the rest: where bit 0 asks for it.
                apply(&commands, how.has(How::REPAIRED));
            }
        }
    }
}

/// The commands of a payload up to the first that is refused.
fn commands(payload: &[u8]) -> Vec<Command> {
    let payload = Bytes::copy_from_slice(payload);
    let mut commands = Vec::new();
    let mut again = BytesMut::new();
    for encoded in iter(payload.clone()) {
        let Ok(encoded) = encoded else {
            break;
        };
        let decode = || Command::from_encoded(encoded.clone());
        let Ok(command) = MEMORY.hold(encoded.len(), decode) else {
            hit("refused");
            break;
        };
        hit("decoded");
        same_bytes(&command, &encoded);
        push(&mut again, &encoded);
        commands.push(command);
    }
    assert_eq!(payload.get(..again.len()), Some(&again[..]));
    commands
}

fn same_bytes(command: &Command, encoded: &Bytes) {
    let mut again = BytesMut::with_capacity(encoded.len());
    command.encode(&mut again);
    assert_eq!(again, encoded, "{command:?}");
    assert_eq!(may_grow(encoded), command.may_grow(), "{command:?}");
    let mut longer = Bytes::from([encoded, &b"rest"[..]].concat());
    assert_eq!(Command::decode(&mut longer).as_ref(), Ok(command));
    assert_eq!(longer, b"rest"[..]);
}

/// Whether applying it takes memory that has nothing to do with the input's length.
fn is_modest(command: &Command) -> bool {
    match command {
        Command::SetRange { offset, .. } => *offset <= 4096,
        Command::Multi(multi) => multi.commands.iter().all(is_modest),
        Command::Once(once) => is_modest(once.command()),
        _ => true,
    }
}

fn apply(commands: &[Command], and_snapshot: bool) {
    let fits = commands.len() <= limits::BATCH_COMMANDS_MAX;
    if commands.is_empty() || !fits || !commands.iter().all(is_modest) {
        return;
    }
    hit("applied");
    let mut state = State::new(LIMITS);
    let link = Link {
        timestamp: 1_000_000_000,
        ..Link::default()
    };
    let count = u32::try_from(commands.len()).expect("bounded above");
    let payload = samples::payload(commands);
    let (epoch, time) = (Epoch(1), 2_000_000_000);
    let record = Record::build(link, Kind::Commands, epoch, time, count, &payload);
    let mut replies = 0;
    state.apply(&record, |lsn, reply| {
        replies += 1;
        assert_eq!(lsn, Lsn(replies));
        let mut encoded = Vec::new();
        reply.encode(&mut encoded);
        assert_eq!(Reply::decode(encoded.into()), Some(reply));
    });
    assert_eq!(replies, u64::from(count), "each command is answered");
    state.check();
    for read in commands.iter().filter(|command| !command.is_write()) {
        state.read(read);
    }
    let tick = Record::build(record.link(), Kind::Tick, epoch, u64::MAX >> 1, 1, b"");
    state.apply(&tick, |_, _| panic!("a Tick has no reply"));
    state.check();
    if and_snapshot {
        hit("snapshot");
        snapshot(&mut state);
    }
}

/// What the state gives out is the same state when it is loaded.
fn snapshot(state: &mut State) {
    let head = state.begin_snapshot();
    let segments = state.segments();
    let mut blocks = Vec::new();
    while !state.snapshot_step(4096, &mut blocks) {}
    let loaded: Result<Vec<_>, LoadError> = blocks
        .iter()
        .map(|block| load_block(&LIMITS, &block.bytes))
        .chain(segments.into_iter().map(load_segment))
        .collect();
    let loaded = loaded.expect("its own blocks");
    let back = State::assemble(LIMITS, &head, loaded).expect("its own snapshot");
    back.check();
    assert_eq!(back.slot_digests(), state.slot_digests());
    assert_eq!(back.next_deadline(), state.next_deadline());
}

fn reply(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    if let Some(reply) = MEMORY.hold(bytes.len(), || Reply::decode(whole)) {
        hit("reply");
        let mut again = Vec::new();
        reply.encode(&mut again);
        assert_eq!(again, bytes, "{reply:?}");
    }
}

fn attestation(bytes: &[u8]) {
    if let Some(attestation) = Attestation::decode(bytes) {
        hit("attestation");
        assert_eq!(attestation.encode(), bytes);
    }
}

/// Blocks of a state that some commands have made, for other targets; and its head.
pub(super) fn blocks() -> (SnapshotHead, Vec<Vec<u8>>) {
    let mut state = State::new(LIMITS);
    let mut commands = samples::writes();
    commands.retain(|command| !matches!(command, Command::FlushAll | Command::Del { .. }));
    commands.extend(samples::composed().split_off(2).drain(..1));
    let count = u32::try_from(commands.len()).expect("a few");
    let payload = samples::payload(&commands);
    let link = Link::default();
    let record = Record::build(
        link,
        Kind::Commands,
        Epoch(1),
        2_000_000_000,
        count,
        &payload,
    );
    state.apply(&record, |_, _| {});
    let head = state.begin_snapshot();
    let mut blocks = Vec::new();
    while !state.snapshot_step(4096, &mut blocks) {}
    (head, blocks.into_iter().map(|block| block.bytes).collect())
}

fn seeds() -> Vec<Vec<u8>> {
    let all = [samples::writes(), samples::reads(), samples::composed()].concat();
    let mut seeds = Vec::new();
    for command in &all {
        let encoded = samples::payload(std::slice::from_ref(command));
        seeds.push(join(How::of(0, ONE), &encoded[4..]));
        seeds.push(join(How::of(0, APPLIED), &encoded));
        seeds.push(join(How::of(How::REPAIRED, APPLIED), &encoded));
    }
    let all = samples::payload(&all);
    seeds.push(join(How::of(0, COMMANDS), &all));
    seeds.push(join(How::of(How::REPAIRED, APPLIED), &all));
    let replies = Reply::Array(vec![
        Reply::Nil,
        Reply::NilArray,
        Reply::Int(-1),
        Reply::Simple("none"),
        Reply::error("ERR no"),
        Reply::Array(vec![Reply::Bulk(Bytes::from_static(b"x"))]),
    ]);
    let bulk = Reply::Bulk(Bytes::from_static(b"value"));
    for reply in [
        replies,
        bulk,
        Reply::Ok,
        Reply::Int(7),
        Reply::error("ERR no"),
    ] {
        let mut encoded = Vec::new();
        reply.encode(&mut encoded);
        seeds.push(join(How::of(0, REPLY), &encoded));
    }
    let attestation = Attestation {
        lsn: Lsn(7),
        digest: Digest(8),
    };
    seeds.push(join(How::of(0, ATTESTATION), &attestation.encode()));
    seeds
}
