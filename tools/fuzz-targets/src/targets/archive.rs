//! What the archive holds beside plain snapshots: pieces of log, cards of histories, heads of what
//! is encrypted, manifests.
//!
//! Asserted: memory stays within a bound; a piece that decodes is one chain of records that each
//! prove themselves, says the truth about them, and made anew says the same; a card, a head and a
//! manifest encode to their own bytes.

use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use crate::{Target, repair, samples};
use bytes::Bytes;
use standfast_snapshot::card::{CARD, CARD_BYTES};
use standfast_snapshot::manifest::{MANIFEST, MANIFEST_BYTES, Manifest, ManifestId, Named};
use standfast_snapshot::object::{
    LOG, LOG_BYTES, LOG_RAW_MAX, check_log, decode_log, encode_log, link_inside,
};
use standfast_snapshot::sealed::{Clear, SEALED, SEALED_BYTES, SealedHead};
use standfast_snapshot::{Card, Identities, LogHead, Recipients, RecipientsId, SegmentRef};
use standfast_wal::{Ancestor, Field, Link, Lsn, Record};

pub const TARGET: Target = Target {
    name: "archive",
    decodes: "snapshot/object, card, sealed, manifest",
    run,
    marks: &[
        "piece",
        "piece refused",
        "card",
        "card refused",
        "head",
        "head refused",
        "manifest",
        "manifest refused",
    ],
    seeds,
};

/// A piece takes what its header says its records are, up to the limit.
const MEMORY: Bound = Bound {
    per_byte: 64,
    fixed: LOG_RAW_MAX + (1 << 20),
};

const CARD_MEMORY: Bound = Bound {
    per_byte: 8,
    fixed: 4 << 10,
};

/// Bytes that are not there take no memory.
const HEAD_MEMORY: Bound = Bound {
    per_byte: 8,
    fixed: 16 << 10,
};

const PIECE: u8 = 0;
const A_CARD: u8 = 1;
const A_HEAD: u8 = 2;
const A_MANIFEST: u8 = 3;

fn run(input: &[u8]) {
    let Some((how, bytes)) = split(input) else {
        return;
    };
    let repaired = |layout: &[Field], size: usize, crc: &str, from: &str| {
        let mut file = bytes.to_vec();
        if how.has(How::REPAIRED) && file.len() >= size {
            let from = repair::field(layout, from).at;
            let sum = crc32fast::hash(&file[from..]);
            repair::put_u32(&mut file, layout, crc, sum);
        }
        file
    };
    match how.choice() % 4 {
        PIECE => {
            let mut file = match how.has(How::INSIDE) {
                true => packed(bytes, how.has(How::ALIGNED)),
                false => bytes.to_vec(),
            };
            if how.has(How::REPAIRED) {
                make_good(&mut file);
            }
            piece(&file);
        }
        A_CARD => card(&repaired(&CARD, CARD_BYTES, "crc", "cluster")),
        A_HEAD => head(repaired(&SEALED, SEALED_BYTES, "crc", "kind")),
        _ => manifest(&repaired(&MANIFEST, MANIFEST_BYTES, "crc", "cluster")),
    }
}

fn piece(file: &[u8]) {
    let front = LogHead::decode("input", file);
    let decoded = MEMORY.hold(file.len(), || {
        decode_log("input", file, &Identities::default())
    });
    let (head, records) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            hit("piece refused");
            let is_sound = check_log("input", file).is_ok();
            assert_eq!(is_sound, error.locked_to().is_some());
            return assert!(!error.to_string().is_empty());
        }
    };
    hit("piece");
    assert_eq!(front.expect("its own header"), head);
    for (before, record) in records.iter().zip(&records[1..]) {
        assert_eq!(record.follows(before.link()), Ok(()));
    }
    for record in &records {
        assert_eq!(Record::check(record.bytes()), Ok(record.head()));
        for lsn in [record.first_lsn(), record.last_lsn()] {
            assert_eq!(link_inside(record, lsn).position.lsn, lsn);
        }
    }
    let (again, bytes) = encode_log(head.cluster, head.history, &records, &plain());
    assert!(again.is_same_log(&head));
    let facts = |head: &LogHead| {
        let places = (
            head.first_lsn,
            head.first_epoch,
            head.first_timestamp,
            head.before,
        );
        (
            places,
            head.end,
            head.attested_lsn,
            head.records,
            head.raw_bytes,
            head.blake3,
        )
    };
    assert_eq!(facts(&again), facts(&head));
    let (third, back) =
        decode_log("again", &bytes, &Identities::default()).expect("what was encoded");
    assert_eq!((third, back), (again, records));
}

fn card(file: &[u8]) {
    match CARD_MEMORY.hold(file.len(), || Card::decode("input", file)) {
        Ok(card) => {
            hit("card");
            assert_eq!(card.encode(), file);
        }
        Err(error) => {
            hit("card refused");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn head(file: Vec<u8>) {
    let file = Bytes::from(file);
    match HEAD_MEMORY.hold(file.len(), || SealedHead::read("input", &file)) {
        Ok((head, length)) => {
            hit("head");
            let length = usize::try_from(length).expect("it lies in memory");
            assert_eq!(head.encode(), file[..length]);
        }
        Err(error) => {
            hit("head refused");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn manifest(file: &[u8]) {
    match CARD_MEMORY.hold(file.len(), || Manifest::decode("input", file)) {
        Ok(manifest) => {
            hit("manifest");
            let again = Manifest::decode("again", &manifest.encode());
            assert_eq!(again.expect("what was encoded"), manifest);
        }
        Err(error) => {
            hit("manifest refused");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn plain() -> Recipients {
    Recipients::default()
}

/// `bytes` as header and records: the records are packed, and the header says how long they are.
/// `aligned`: the records follow one another, and the header tells the truth about them.
fn packed(bytes: &[u8], aligned: bool) -> Vec<u8> {
    let Some((header, records)) = bytes.split_at_checked(LOG_BYTES) else {
        return bytes.to_vec();
    };
    let mut raw = records.to_vec();
    repair::records(&mut raw, aligned.then(Link::default));
    let frame = zstd::bulk::compress(&raw, 1).expect("memory");
    let mut file = [header, &frame[..]].concat();
    repair::put(&mut file, &LOG, "raw_bytes", raw.len() as u64);
    repair::put(&mut file, &LOG, "stored_bytes", frame.len() as u64);
    let at = repair::field(&LOG, "blake3").at;
    file[at..at + 32].copy_from_slice(blake3::hash(&raw).as_bytes());
    let mut rest = bytes::Bytes::from(raw);
    let mut list = Vec::new();
    while let Ok(record) = Record::split_from(&mut rest) {
        list.push(record);
    }
    if aligned && !list.is_empty() && rest.is_empty() && is_chain(&list) {
        let (_, honest) = encode_log(samples::CLUSTER, samples::HISTORY, &list, &plain());
        return honest;
    }
    file
}

fn is_chain(records: &[Record]) -> bool {
    let mut pairs = records.iter().zip(&records[1..]);
    pairs.all(|(before, record)| record.follows(before.link()).is_ok())
}

fn make_good(file: &mut [u8]) {
    if file.len() < LOG_BYTES {
        return;
    }
    let crc = crc32fast::hash(&file[LOG_BYTES..]);
    repair::put_u32(file, &LOG, "stored_crc", crc);
    let from = repair::field(&LOG, "cluster").at;
    let crc = crc32fast::hash(&file[from..LOG_BYTES]);
    repair::put_u32(file, &LOG, "header_crc", crc);
}

fn seeds() -> Vec<Vec<u8>> {
    let records = samples::records();
    let (_, piece) = encode_log(samples::CLUSTER, samples::HISTORY, &records, &plain());
    let inside = [&piece[..LOG_BYTES], &samples::bytes_of(&records)].concat();
    let later = samples::records_after(records[3].link());
    let (_, second) = encode_log(samples::CLUSTER, samples::HISTORY, &later, &plain());
    let card = |ancestors| Card {
        cluster: samples::CLUSTER,
        cluster_name: "books".to_string(),
        history: samples::HISTORY,
        ancestors,
    };
    let none = card(Vec::new()).encode();
    let two = card(vec![
        Ancestor::at(samples::HISTORY, Lsn(5)),
        Ancestor::at(samples::HISTORY, Lsn(9)),
    ])
    .encode();
    vec![
        join(How::of(0, PIECE), &piece),
        join(How::of(How::REPAIRED, PIECE), &piece),
        join(How::of(How::REPAIRED, PIECE), &second),
        join(How::of(How::REPAIRED | How::INSIDE, PIECE), &inside),
        join(
            How::of(How::REPAIRED | How::INSIDE | How::ALIGNED, PIECE),
            &inside,
        ),
        join(How::of(0, A_HEAD), &sealed(true)),
        join(How::of(How::REPAIRED, A_HEAD), &sealed(false)),
        join(How::of(0, A_MANIFEST), &named()),
        join(How::of(How::REPAIRED, A_MANIFEST), &named()),
        join(How::of(0, A_CARD), &none),
        join(How::of(How::REPAIRED, A_CARD), &two),
    ]
}

fn sealed(is_segment: bool) -> Vec<u8> {
    let reference = SegmentRef::of(4, 7, b"entries");
    let header = Box::new(super::snapshot_file::header());
    let head = SealedHead {
        clear: match is_segment {
            true => Clear::Segment(reference),
            false => Clear::Snapshot(header, vec![reference; 2]),
        },
        recipients: RecipientsId(5),
        stored_bytes: 3,
        blake3: *blake3::hash(b"age").as_bytes(),
    };
    [&head.encode()[..], b"age"].concat()
}

fn named() -> Vec<u8> {
    let one = |first, last| Named {
        first: Lsn(first),
        last: Lsn(last),
        bytes: 300,
        blake3: [7; 32],
    };
    let id = |lsn, snapshot_lsn| ManifestId {
        lsn: Lsn(lsn),
        snapshot_lsn: Lsn(snapshot_lsn),
    };
    let manifest = Manifest {
        cluster: samples::CLUSTER,
        history: samples::HISTORY,
        id: id(9, 4),
        previous: id(3, 0),
        named: vec![one(4, 9), one(0, 4)],
    };
    manifest.encode()
}
