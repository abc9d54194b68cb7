//! A piece of log and a card come back as they were put, or are refused.

use super::*;
use crate::card::Card;
use crate::fixtures::{CLUSTER, card, history, log, record};
use crate::seal::{Identities, Recipients};
use std::collections::BTreeSet;

fn sample() -> Vec<Record> {
    let mut records = log(Link::default(), 3, 9);
    records.push(record(records[2].link(), 1, Kind::Attestation));
    records.push(record(records[3].link(), 2, Kind::Commands));
    records
}

#[test]
fn a_piece_of_log_reads_back_as_it_was_put() {
    let records = sample();
    let (head, bytes) = encode_log(CLUSTER, history(1), &records[1..], &Recipients::default());
    assert_eq!((head.first_lsn, head.last_lsn()), (Lsn(4), Lsn(12)));
    assert_eq!(head.attested_lsn, Lsn(10));
    assert_eq!(head.before, records[0].chain());
    assert_eq!(head.end, records[4].link());
    assert_eq!(LogHead::decode("memory", &bytes).unwrap(), head);
    assert_eq!(
        decode_log("memory", &bytes, &Identities::default()).unwrap(),
        (head, records[1..].to_vec())
    );
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_piece_is_refused() {
    let (_, bytes) = encode_log(CLUSTER, history(1), &sample(), &Recipients::default());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(
                decode_log("memory", &bad, &Identities::default()).is_err(),
                "byte {at} bit {bit}"
            );
        }
        assert!(
            decode_log("memory", &bytes[..at], &Identities::default()).is_err(),
            "cut at {at}"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(
        decode_log("memory", &longer, &Identities::default()).is_err(),
        "one byte more"
    );
}

/// A header with correct checksums that lies about its records is refused as well.
#[test]
fn a_header_that_lies_is_refused() {
    let (head, bytes) = encode_log(CLUSTER, history(1), &sample(), &Recipients::default());
    let forge = |lie: &dyn Fn(&mut LogHead)| {
        let mut forged = head;
        lie(&mut forged);
        let bytes = [&forged.encode()[..], &bytes[LOG_BYTES..]].concat();
        decode_log("memory", &bytes, &Identities::default()).map(|(head, _)| head)
    };
    assert_eq!(forge(&|_| ()).unwrap(), head);
    assert!(forge(&|h| h.first_lsn = Lsn(2)).is_err());
    // A length that no file has is compared, not added to.
    assert!(forge(&|h| h.stored_bytes = u64::MAX).is_err());
    assert!(forge(&|h| h.first_epoch = Epoch(9)).is_err());
    assert!(forge(&|h| h.first_timestamp += 1).is_err());
    assert!(forge(&|h| h.before = Chain(5)).is_err());
    assert!(forge(&|h| h.end.chain = Chain(5)).is_err());
    assert!(forge(&|h| h.end.position.lsn = Lsn(13)).is_err());
    assert!(forge(&|h| h.end.timestamp += 1).is_err());
    assert!(forge(&|h| h.attested_lsn = Lsn(11)).is_err());
    assert!(forge(&|h| h.records += 1).is_err());
    assert!(forge(&|h| h.raw_bytes -= 8).is_err());
    assert!(forge(&|h| h.raw_bytes = u64::MAX).is_err());
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_card_is_refused() {
    let card = card(3, &[(1, 100), (2, 250)]);
    let bytes = card.encode();
    assert_eq!(Card::decode("memory", &bytes).unwrap(), card);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(Card::decode("memory", &bad).is_err(), "byte {at} bit {bit}");
        }
        assert!(Card::decode("memory", &bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_fork_inside_a_record_has_a_chain_of_its_own() {
    let record = record(Link::default(), 4, Kind::Commands);
    assert_eq!(link_inside(&record, Lsn(4)), record.link());
    let links: Vec<Link> = (1..=4).map(|lsn| link_inside(&record, Lsn(lsn))).collect();
    let chains: BTreeSet<Chain> = links.iter().map(|link| link.chain).collect();
    assert_eq!(chains.len(), 4);
    assert_eq!(links[1].timestamp, record.timestamp() + 1);
    assert_eq!(links[1].position.lsn, Lsn(2));
}
