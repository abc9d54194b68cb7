//! How fast transfers are applied, in time of the processor, so that neighbours count little:
//! `cargo test --release -p standfast --lib speed -- --ignored --nocapture`.

use super::*;

/// A number without a pattern, from a counter.
fn mixed(counter: u64) -> u64 {
    let mut mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// What this thread has used of the processor.
fn processor_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::try_from(time).expect("it counts from 0")
}

/// Batches of full size over accounts drawn evenly; ids as clients make them, without order.
fn measure(name: &str, accounts: u64, batches: u64, make: impl Fn(u64, u128, u128) -> Transfer) {
    let mut books = Books::new();
    for first in (0..accounts).step_by(8000) {
        let ids = first + 1..(first + 8001).min(accounts + 1);
        let batch: Vec<_> = ids
            .map(|id| account(u128::from(mixed(id)) << 64 | 1))
            .collect();
        books.accounts(&batch);
    }
    let mut times = Vec::new();
    let mut number = 0;
    for _ in 0..batches {
        let mut bytes = Vec::with_capacity(BATCH_EVENTS_MAX * RECORD_BYTES);
        for _ in 0..BATCH_EVENTS_MAX {
            number += 1;
            let draw = |salt: u64| mixed(number * 2 + salt) % accounts + 1;
            let (debit, mut credit) = (draw(0), draw(1));
            if credit == debit {
                credit = debit % accounts + 1;
            }
            let [debit, credit] = [debit, credit].map(|id| u128::from(mixed(id)) << 64 | 1);
            bytes.extend_from_slice(&make(number, debit, credit).encode());
        }
        books.now += 10_000_000;
        let begin = processor_time();
        let results = books.ledger.create_transfers(books.now, &bytes);
        times.push(processor_time() - begin);
        assert!(results.iter().all(|result| result.refusal().is_none()));
    }
    times.sort();
    let transfers = f64::from(u32::try_from(BATCH_EVENTS_MAX).expect("small"));
    let each = |at: usize| times[at].as_secs_f64() / transfers;
    let (fastest, median) = (each(0), each(times.len() / 2));
    println!(
        "{name}, {accounts} accounts, {number} transfers: median {:.2} M/s ({:.0} ns each), \
         fastest batch {:.2} M/s, slowest {:.1} ms, {} MB",
        1.0 / median / 1e6,
        median * 1e9,
        1.0 / fastest / 1e6,
        times.last().map_or(0.0, |time| time.as_secs_f64() * 1e3),
        books.ledger.used_bytes() >> 20,
    );
    let begin = processor_time();
    books.ledger.audit().expect("the books are in order");
    println!("  audit: {:.2} s", (processor_time() - begin).as_secs_f64());
}

#[test]
#[ignore = "measures; run it in release"]
fn transfers_per_second() {
    let plain = |number: u64, debit, credit| {
        let id = u128::from(mixed(number)) << 64 | u128::from(number);
        transfer(id, debit, credit, 1 + u128::from(number % 1000))
    };
    measure("plain", 10_000, 200, plain);
    measure("plain", 1_000_000, 200, plain);
    measure("two-phase", 10_000, 100, |number, debit, credit| {
        match number % 2 {
            1 => hold(u128::from(number), debit, credit, 5),
            _ => post(u128::from(number), u128::from(number) - 1, u128::MAX),
        }
    });
}

#[test]
fn an_account_takes_less_than_forty_bytes_besides_its_record() {
    let mut books = Books::new();
    let mut dearest = 0;
    for first in (0u128..200_000).step_by(4000) {
        let ids = first + 1..=first + 4000;
        books.accounts(&ids.map(account).collect::<Vec<_>>());
        // The first segment doubles as it grows; after that only the index does.
        if first >= 66_000 {
            let bytes = books.ledger.accounts.allocated_bytes();
            let unused = 65_536 * 144;
            dearest =
                dearest.max((bytes - unused.min(bytes)) / u64::try_from(first).expect("small"));
        }
    }
    assert!(dearest < 128 + 40, "{dearest} bytes");
}
