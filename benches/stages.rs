//! What each stage of the walk costs by itself: `cargo bench --bench stages`.
//!
//! A regression shows here before it drowns in sockets and disks. What the figures mean, and the
//! budget they belong to, is in `docs/performance.md`.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has nothing to report"
)]

use bytes::{BufMut, Bytes, BytesMut};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use standfast::client::ledger::{Account, Transfer};
use standfast::node::wire::{self, Frame, Head};
use standfast::server::resp::{self, Decoder, Protocol};
use standfast::state::command::{self, Expiry, Set, SetCondition, SetReply};
use standfast::state::ledger::{BATCH_EVENTS_MAX, Ledger};
use standfast::state::{Command, Limits, Reply, State};
use standfast_wal::{Epoch, Kind, Link, Record};

fn main() {
    divan::main();
}

/// A number without a pattern.
fn mixed(counter: u64) -> u64 {
    let mut mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

fn account_id(number: u64) -> u128 {
    u128::from(mixed(number)) << 64 | 1
}

/// The next batch of transfers between accounts drawn evenly.
struct Batches {
    accounts: u64,
    number: u64,
}

impl Batches {
    fn next(&mut self) -> Vec<u8> {
        let mut batch = Vec::with_capacity(BATCH_EVENTS_MAX * 128);
        for _ in 0..BATCH_EVENTS_MAX {
            self.number += 1;
            let debit = mixed(2 * self.number) % self.accounts;
            let credit =
                (debit + 1 + mixed(2 * self.number + 1) % (self.accounts - 1)) % self.accounts;
            let (debit, credit) = (account_id(debit), account_id(credit));
            let id = u128::from(mixed(self.number)) << 64 | u128::from(self.number);
            let transfer = Transfer::new(id, debit, credit, 1).in_ledger(1, 1);
            batch.extend_from_slice(&transfer.to_bytes());
        }
        batch
    }
}

fn books(accounts: u64) -> Ledger {
    let mut ledger = Ledger::new(7);
    let numbers: Vec<u64> = (0..accounts).collect();
    for (at, part) in numbers.chunks(BATCH_EVENTS_MAX).enumerate() {
        let records = part
            .iter()
            .map(|number| Account::new(account_id(*number), 1, 1));
        let batch: Vec<u8> = records.flat_map(|account| account.to_bytes()).collect();
        ledger.create_accounts((at as u64 + 1) * 10_000, &batch);
    }
    ledger
}

/// Applying a full batch, ids without order; the books grow as it goes on.
#[divan::bench(args = [10_000, 1_000_000], sample_count = 100, sample_size = 1)]
fn apply_transfers(bencher: Bencher, accounts: u64) {
    let mut ledger = books(accounts);
    let mut batches = Batches {
        accounts,
        number: 0,
    };
    let mut now = 1 << 40;
    bencher
        .counter(ItemsCount::new(BATCH_EVENTS_MAX))
        .with_inputs(|| batches.next())
        .bench_local_refs(|batch| {
            now += 10_000_000;
            ledger.create_transfers(now, batch)
        });
}

fn set(key: &str) -> Command {
    Command::Set(Set {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from_static(&[b'x'; 100]),
        expiry: Expiry::Never,
        condition: SetCondition::Always,
        reply: SetReply::Ok,
    })
}

const SETS: usize = 800;

/// A record of SETs as a turn of 50 connections with 16 commands each makes it.
fn sets(after: Link, time: u64) -> Record {
    let mut payload = BytesMut::new();
    for i in 0..SETS as u64 {
        let mut encoded = BytesMut::new();
        set(&format!("key:{:012}", mixed(time * 1000 + i) % 100_000)).encode(&mut encoded);
        command::push(&mut payload, &encoded);
    }
    Record::build(after, Kind::Commands, Epoch(1), time, SETS as u32, &payload)
}

/// Decoding and applying a record of SETs over 100,000 keys, replies included.
#[divan::bench(sample_count = 500, sample_size = 1)]
fn apply_sets(bencher: Bencher) {
    let mut state = State::new(Limits::new(7));
    let (mut link, mut time) = (Link::default(), 1);
    bencher
        .counter(ItemsCount::new(SETS))
        .with_inputs(|| {
            time += 1;
            let record = sets(link, time);
            link = record.link();
            record
        })
        .bench_local_refs(|record| state.apply(record, |_, reply| drop(black_box(reply))));
}

/// One batch of transfers into the record that the log, the wire and every peer get.
#[divan::bench]
fn build_record(bencher: Bencher) {
    let batch = Batches {
        accounts: 10_000,
        number: 0,
    }
    .next();
    bencher
        .counter(ItemsCount::new(BATCH_EVENTS_MAX))
        .bench_local(|| Record::build(Link::default(), Kind::Commands, Epoch(1), 1, 1, &batch));
}

/// A batch's frame as a backup takes it off the wire, every checksum proved.
#[divan::bench]
fn take_off_the_wire(bencher: Bencher) {
    let batch = Batches {
        accounts: 10_000,
        number: 0,
    }
    .next();
    let record = Record::build(Link::default(), Kind::Commands, Epoch(1), 1, 1, &batch);
    let frame = Frame {
        head: Head::Forward {
            commands: Vec::new(),
        },
        records: vec![record],
    };
    let mut buffers = Vec::new();
    wire::encode(&frame, &mut buffers);
    let bytes = buffers.concat();
    bencher
        .counter(ItemsCount::new(BATCH_EVENTS_MAX))
        .with_inputs(|| BytesMut::from(&bytes[..]))
        .bench_local_refs(|bytes| wire::decode(bytes).unwrap());
}

/// Cutting what one read of a socket holds into commands: 16 SETs.
#[divan::bench]
fn parse_sets(bencher: Bencher) {
    let mut bytes = BytesMut::new();
    for i in 0..16 {
        bytes.put_slice(format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{i:012}\r\n$100\r\n").as_bytes());
        bytes.put_bytes(b'x', 100);
        bytes.put_slice(b"\r\n");
    }
    let mut decoder = Decoder::new(resp::Limits {
        args_max: 1024,
        bulk_bytes_max: 1 << 20,
        inline_bytes_max: 1 << 16,
        command_bytes_max: 1 << 21,
    });
    let mut args = Vec::new();
    bencher
        .counter(ItemsCount::new(16_usize))
        .with_inputs(|| bytes.clone())
        .bench_local_refs(|bytes| {
            decoder.feed(bytes);
            while decoder.next(&mut args).unwrap() {
                black_box(&args);
            }
        });
}

/// The replies to 16 SETs.
#[divan::bench]
fn write_replies(bencher: Bencher) {
    let mut out = BytesMut::with_capacity(1024);
    bencher.counter(ItemsCount::new(16_usize)).bench_local(|| {
        out.clear();
        for _ in 0..16 {
            resp::write(&Reply::Ok, Protocol::Resp2, &mut out);
        }
    });
}
