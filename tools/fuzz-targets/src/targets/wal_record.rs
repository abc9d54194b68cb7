//! Records, what some of them carry, and the files in which cut records are kept.
//!
//! Asserted: what is let in proves itself again, measures what it takes, and is the very record
//! that building it anew gives; the payloads of EpochStart and Attestation read back; a kept file
//! is a chain.

use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, repair, samples};
use bytes::Bytes;
use standfast::replication::EpochEntry;
use standfast::state::Attestation;
use standfast_wal::kept::{KEPT_HEADER, Kept};
use standfast_wal::record::HEADER_BYTES;
use standfast_wal::{
    Chain, Epoch, Head, Kind, Link, Log, Lsn, Options, Position, Record, SimDisk, Storage,
};

pub const TARGET: Target = Target {
    name: "wal_record",
    decodes: "wal/record, wal/kept, replication/epochs (EpochStart), state/attestation",
    run,
    marks: &[
        "record",
        "refused",
        "epoch start",
        "kept file",
        "kept file refused",
    ],
    seeds,
};

/// Records share the buffer they came in; only the list of them grows.
const MEMORY: Bound = Bound {
    per_byte: 8,
    fixed: 4 << 10,
};

const RECORDS: u8 = 0;
const KEPT: u8 = 1;
const KEPT_NAME: &str = "divergent/cut";

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let mut bytes = bytes.to_vec();
    match how.choice() % 2 {
        RECORDS => {
            if how.has(How::REPAIRED) {
                repair::records(&mut bytes, how.has(How::ALIGNED).then(Link::default));
            }
            let bytes = Bytes::from(bytes);
            MEMORY.hold(bytes.len(), || records(bytes.clone()));
        }
        _ => {
            if how.has(How::REPAIRED) {
                make_kept_good(&mut bytes, how.has(How::ALIGNED));
            }
            kept(bytes);
        }
    }
}

fn records(mut bytes: Bytes) {
    loop {
        let (head, whole) = (Head::read(&bytes), Record::check(&bytes));
        assert_eq!(Record::measure(&bytes), head.map(|head| head.size));
        let before = bytes.clone();
        let record = match Record::split_from(&mut bytes) {
            Ok(record) => record,
            Err(damage) => {
                hit("refused");
                assert_eq!(whole, Err(damage));
                return assert_eq!(bytes, before, "a refused record takes nothing");
            }
        };
        assert_eq!(whole, Ok(record.head()));
        assert_eq!(
            head,
            Ok(record.head()),
            "a header that does not fit its record"
        );
        assert_eq!(bytes.len() + record.bytes().len(), before.len());
        one(&record);
    }
}

fn one(record: &Record) {
    hit("record");
    assert_eq!(record.link(), record.head().link());
    assert!(record.last_lsn() >= record.first_lsn());
    if let Some(after) = before(record) {
        assert_eq!(record.follows(after), Ok(()));
        let (kind, epoch, time) = (record.kind(), record.epoch(), record.timestamp());
        let payload = record.payload();
        let again = Record::build(after, kind, epoch, time, record.count(), &payload);
        assert_eq!(again.bytes(), record.bytes(), "{record:?}");
    }
    match record.kind() {
        Kind::EpochStart => {
            if let Some(entry) = EpochEntry::decode(record) {
                hit("epoch start");
                let payload = record.payload();
                let fork = u64::from_le_bytes(payload[56..64].try_into().expect("eight bytes"));
                assert_eq!(entry.encode(Epoch(fork)), payload[..]);
            }
        }
        Kind::Attestation => drop(Attestation::decode(&record.payload())),
        Kind::Commands | Kind::Tick | Kind::Operator => {}
    }
}

/// A place that the record may stand behind; time zero can follow nothing.
fn before(record: &Record) -> Option<Link> {
    Some(Link {
        position: Position {
            epoch: record.epoch(),
            lsn: Lsn(record.first_lsn().0 - 1),
        },
        chain: record.previous_chain(),
        timestamp: record.timestamp().checked_sub(1)?,
    })
}

fn kept(bytes: Vec<u8>) {
    let disk = SimDisk::new(1);
    disk.put(KEPT_NAME, bytes);
    let Ok(kept) = Kept::read(&disk, KEPT_NAME) else {
        return hit("kept file refused");
    };
    hit("kept file");
    let mut link = kept.after;
    for record in &kept.records {
        assert_eq!(record.follows(link), Ok(()));
        link = record.link();
        one(record);
    }
}

fn make_kept_good(bytes: &mut [u8], aligned: bool) {
    let header = KEPT_HEADER.iter().map(|field| field.len).sum();
    let Some((header, records)) = bytes.split_at_mut_checked(header) else {
        return;
    };
    let after = Link {
        position: Position {
            epoch: Epoch(repair::number(header, &KEPT_HEADER, "epoch")),
            lsn: Lsn(repair::number(header, &KEPT_HEADER, "lsn")),
        },
        chain: Chain(u32::try_from(repair::number(header, &KEPT_HEADER, "chain")).unwrap_or(0)),
        timestamp: repair::number(header, &KEPT_HEADER, "timestamp"),
    };
    repair::records(records, aligned.then_some(after));
    let from = repair::field(&KEPT_HEADER, "cluster").at;
    let crc = crc32fast::hash(&header[from..]);
    repair::put_u32(header, &KEPT_HEADER, "crc", crc);
}

/// The bytes of a kept file, as a real cut writes it.
fn kept_file() -> Vec<u8> {
    let disk = SimDisk::new(1);
    let options = Options {
        segment_bytes: 16 << 10,
        reserve_bytes: 1 << 10,
        ..Options::default()
    };
    let identity = super::wal_recovery::IDENTITY;
    let created = Log::create(
        disk.clone(),
        identity,
        samples::HISTORY,
        Link::default(),
        options,
    );
    let mut log = created.expect("an empty disk");
    for record in samples::records() {
        log.push(record);
    }
    log.flush().expect("there is room");
    let cut = log.cut(Lsn(1)).expect("a record ends there");
    let name = cut.file.expect("records were cut");
    assert_eq!(disk.list("divergent").expect("a listing").len(), 1);
    disk.contents(&name).expect("it was kept")
}

fn seeds() -> Vec<Vec<u8>> {
    let records = samples::records();
    let all = samples::bytes_of(&records);
    let kept = kept_file();
    let mut seeds = vec![
        join(How::of(0, RECORDS), &all),
        join(How::of(How::REPAIRED, RECORDS), &all),
        join(How::of(How::REPAIRED | How::ALIGNED, RECORDS), &all),
        join(How::of(0, KEPT), &kept),
        join(How::of(How::REPAIRED, KEPT), &kept),
        join(How::of(How::REPAIRED | How::ALIGNED, KEPT), &kept),
        join(How::of(How::REPAIRED, RECORDS), &[0xff; HEADER_BYTES]),
    ];
    for record in &records {
        seeds.push(join(How::of(How::REPAIRED, RECORDS), record.bytes()));
    }
    seeds
}
