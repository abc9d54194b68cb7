//! Tests of the log as a whole, on the simulated disk: what they share.

mod append;
mod crash;
mod damage;
mod repair;
mod scripts;
mod writer;

use crate::record::{ClusterId, Epoch, History, Incarnation, Kind, Link, Lsn, NodeId, Record};
use crate::storage::Storage;
use crate::storage::sim::{Random, SimDisk};
use crate::{Error, Identity, Log, Options, Recovered};

pub const IDENTITY: Identity = Identity {
    cluster: ClusterId(11),
    node: NodeId(1),
    incarnation: Incarnation(22),
};

pub const HISTORY: History = History {
    generation: 1,
    id: 33,
};

/// Small segments, peers at hand.
pub fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        keep_bytes: 1 << 30,
        reserve_bytes: 1 << 10,
        alone: false,
        cut_damaged_end: false,
    }
}

pub fn create(disk: &SimDisk, options: Options) -> Log<SimDisk> {
    Log::create(disk.clone(), IDENTITY, HISTORY, Link::default(), options).expect("create")
}

pub fn open<S: Storage>(disk: &S, options: Options) -> Result<(Log<S>, Recovered), Error> {
    Log::open(disk.clone(), IDENTITY, Link::default(), options)
}

/// The record behind `link` with `count` commands; its bytes follow from `seed`.
pub fn record(link: Link, count: u32, payload_bytes: usize, seed: u64) -> Record {
    let mut random = Random::new(seed);
    let payload: Vec<u8> = (0..payload_bytes).map(|_| random.draw() as u8).collect();
    let epoch = Epoch(link.position.epoch.0.max(1));
    Record::build(
        link,
        Kind::Commands,
        epoch,
        link.timestamp + 1,
        count,
        &payload,
    )
}

/// Pushes a record of this size; returns it.
pub fn push<S: Storage>(log: &mut Log<S>, payload_bytes: usize) -> Record {
    let link = log.written();
    let record = record(
        link,
        1 + (payload_bytes % 3) as u32,
        payload_bytes,
        link.position.lsn.0,
    );
    log.push(record.clone());
    record
}

/// All durable records above `after`.
pub fn read_all<S: Storage>(log: &Log<S>, after: Lsn) -> Vec<Record> {
    let reader = log.reader();
    let mut records: Vec<Record> = Vec::new();
    loop {
        let at = records.last().map_or(after, Record::last_lsn);
        let more = reader.read(at, 4096).expect("the log can be read");
        if more.is_empty() {
            return records;
        }
        records.extend(more);
    }
}
