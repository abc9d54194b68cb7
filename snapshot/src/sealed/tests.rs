//! A sealed object says what it is in clear, and nothing else until it is opened.

use super::*;
use crate::archive::Shipper;
use crate::fixtures::{CLUSTER, card, fine, history, key, link_at, log, snapshot_with};
use crate::seal::Recipients;
use crate::segment;
use crate::store::{Memory, Shared};
use standfast_wal::{Link, Lsn};
use std::sync::Arc;

/// A sealed archive of a snapshot with a segment, and log; the names of snapshot and segment.
fn sealed(memory: &Arc<Memory>) -> (String, String) {
    let scratch = tempfile::tempdir().unwrap();
    let store: Shared = memory.clone();
    let recipients = Recipients::new(&[key(1).0], 7);
    let records = log(Link::default(), 2, 60);
    let path = snapshot_with(scratch.path(), link_at(&records, 20), &[&[7; 9000]]);
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &recipients).unwrap();
    shipper.put_log(fine(&records)).unwrap();
    shipper.put_snapshot(&path).unwrap();
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "the snapshot and its segment: {left:?}");
    let find = |what: &str| memory.names().into_iter().find(|name| name.contains(what));
    (find("/snapshot-").unwrap(), find("/segment-").unwrap())
}

#[test]
fn a_snapshot_and_its_segment_open_to_what_was_sealed() {
    let memory = Arc::new(Memory::default());
    let (snapshot, _) = sealed(&memory);
    let store: &dyn Store = &*memory;
    let (clear, sealed_to) = check_snapshot(store, &snapshot).unwrap();
    assert_eq!((clear.cluster, clear.history), (CLUSTER, history(1)));
    assert_eq!(clear.link.position.lsn, Lsn(20));
    assert_eq!((clear.digest, clear.counts), (0, [0; 4]));
    let reader = fetch_snapshot(store, &snapshot, &key(1).1).unwrap();
    reader.check_whole().unwrap();
    assert_ne!(reader.header().digest, 0);
    let segments = reader.segments().unwrap();
    let dir =
        crate::catalogue::segments_beside("c/h", sealed_to).replace("c/", &format!("{CLUSTER}/"));
    let bytes = segment::fetch(store, &dir, &segments[0], &key(1).1).unwrap();
    assert_eq!(bytes, vec![7; 9000]);
    for (identities, missing) in [
        (Identities::default(), "no identity"),
        (key(2).1, "none of"),
    ] {
        let error = fetch_snapshot(store, &snapshot, &identities).unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
        assert_eq!(error.locked_to(), sealed_to);
        assert!(!error.is_damage() && !error.is_unanswered());
        let error = segment::fetch(store, &dir, &segments[0], &identities).unwrap_err();
        assert_eq!(error.locked_to(), sealed_to);
    }
}

#[test]
fn every_changed_byte_is_found_without_a_key() {
    let memory = Arc::new(Memory::default());
    let (snapshot, segment) = sealed(&memory);
    for name in [&snapshot, &segment] {
        let bytes = memory.get(name).unwrap();
        check("memory", &bytes).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            // What is no sealed object any more is held against the plain layout.
            assert!(check("memory", &bad.into()).is_err(), "{name} byte {at}");
            assert!(
                check("memory", &bytes.slice(..at)).is_err(),
                "{name} cut at {at}"
            );
        }
        let longer = Bytes::from([&bytes[..], b"x"].concat());
        assert!(check("memory", &longer).is_err());
    }
}

#[test]
fn heads_encode_to_their_own_bytes() {
    let memory = Arc::new(Memory::default());
    let (snapshot, segment) = sealed(&memory);
    for name in [&snapshot, &segment] {
        let bytes = memory.get(name).unwrap();
        let (head, at) = SealedHead::read("memory", &bytes).unwrap();
        assert_eq!(head.encode(), bytes[..at as usize]);
    }
}

#[test]
fn a_head_that_lies_is_refused_by_whoever_opens_it() {
    let memory = Arc::new(Memory::default());
    let (snapshot, _) = sealed(&memory);
    let bytes = memory.get(&snapshot).unwrap();
    let (mut head, stored) = check("memory", &bytes).unwrap();
    let Clear::Snapshot(header, _) = &mut head.clear else {
        panic!("a snapshot");
    };
    header.link.position.lsn = Lsn(21);
    let lie: Bytes = [head.encode(), stored.to_vec()].concat().into();
    memory.replace(&snapshot, &lie).unwrap();
    check_snapshot(&*memory, &snapshot).expect("it proves itself");
    let error = fetch_snapshot(&*memory, &snapshot, &key(1).1).unwrap_err();
    assert!(error.to_string().contains("in clear"), "{error}");
}
