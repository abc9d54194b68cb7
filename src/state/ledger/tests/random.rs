//! A long history of one account: walks from any point in both directions.

use super::*;

#[test]
fn a_walk_begins_anywhere_and_pages_meet_without_gap_or_overlap() {
    let mut books = Books::new();
    books.open(3, account_flags::HISTORY);
    let mut expected = Vec::new();
    for round in 0..120u128 {
        let batch: Vec<_> = (0..10)
            .map(|i| {
                transfer(
                    round * 10 + i + 1,
                    1 + i % 2,
                    3 - (i % 3) / 2 * (1 - i % 2),
                    1,
                )
            })
            .map(
                |event| match event.debit_account_id == event.credit_account_id {
                    true => Transfer {
                        credit_account_id: 3,
                        ..event
                    },
                    false => event,
                },
            )
            .collect();
        let times = books.transfers(&batch);
        for (event, result) in batch.iter().zip(times) {
            assert_eq!(result.outcome, Outcome::Created);
            if event.debit_account_id == 1 || event.credit_account_id == 1 {
                expected.push(result.timestamp);
            }
        }
    }
    books.ledger.check();
    assert!(
        expected.len() > 4 * 128,
        "several marks: {}",
        expected.len()
    );
    for reversed in [false, true] {
        for (from, to) in [(0, expected.len()), (100, 420), (127, 129), (256, 257)] {
            let range = &expected[from..to];
            let mut filter = Filter {
                account_id: 1,
                timestamp_min: range[0],
                timestamp_max: *range.last().expect("not empty"),
                limit: 37,
                ..Filter::default()
            };
            let mut wanted = range.to_vec();
            if reversed {
                filter.flags |= filter_flags::REVERSED;
                wanted.reverse();
            }
            let mut rows_filter = filter;
            let (mut found, mut rows) = (Vec::new(), Vec::new());
            loop {
                let page = books
                    .ledger
                    .account_transfers(&filter)
                    .expect("a sound filter");
                found.extend(page.items.iter().map(|transfer| transfer.timestamp));
                filter.cursor = page.next;
                if page.next == 0 {
                    break;
                }
            }
            loop {
                let page = books
                    .ledger
                    .account_balances(&rows_filter)
                    .expect("a sound filter");
                rows.extend(page.items.iter().map(|row| row.timestamp));
                rows_filter.cursor = page.next;
                if page.next == 0 {
                    break;
                }
            }
            assert_eq!(found, wanted, "reversed: {reversed}");
            assert_eq!(rows, wanted, "reversed: {reversed}");
        }
    }
}

#[test]
fn a_chain_across_marks_and_segments_is_taken_back() {
    let mut books = Books::new();
    books.open(2, 0);
    let count = 70_000u128;
    for first in (0..count).step_by(7000) {
        let batch: Vec<_> = (first..first + 7000)
            .map(|id| transfer(id + 1, 1, 2, 1))
            .collect();
        books.transfers(&batch);
    }
    let digest = books.ledger.digest;
    let linked = |id| Transfer {
        flags: transfer_flags::LINKED,
        ..transfer(id, 2, 1, 3)
    };
    let mut chain: Vec<_> = (count + 1..count + 8000).map(linked).collect();
    chain.push(transfer(count + 8000, 1, 1, 0));
    let results = books.transfers(&chain);
    assert!(results.iter().all(|result| result.refusal().is_some()));
    assert_eq!(books.ledger.digest, digest);
    books.ledger.check();
    books.done(transfer(count + 1, 2, 1, 3));
    books.ledger.check();
}
