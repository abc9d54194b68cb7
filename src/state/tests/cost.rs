//! What a key costs.

use super::*;

/// Keys of 16 and values of 100 bytes, as benchmarks and budgets count them.
fn fill(state: &mut State, keys: usize) {
    let mut link = Link::default();
    for first in (0..keys).step_by(2000) {
        let one = |i: usize| {
            set(
                text(&format!("account:{i:08}")),
                Bytes::from(vec![b'v'; 100]),
            )
        };
        let commands: Vec<_> = (first..keys.min(first + 2000)).map(one).collect();
        let record = commands_record(link, link.timestamp + 1, &commands);
        link = record.link();
        state.apply(&record, |_, _| {});
    }
}

#[test]
fn a_key_of_16_and_100_bytes_takes_less_than_200_at_any_count() {
    let mut state = State::new(LIMITS);
    fill(&mut state, 1000);
    let empty_tables = State::new(LIMITS).used_bytes();
    let per_key = (state.used_bytes() - empty_tables) / 1000;
    assert!(
        per_key < 400,
        "few keys: each lies alone in its slot: {per_key} B"
    );
    // Tables double: the dearest count is just behind a doubling. One slot stands for all.
    let mut state = State::new(LIMITS);
    let mut link = Link::default();
    let mut dearest = 0;
    for i in 0..4000u64 {
        let command = set(
            text(&format!("{{slot}}:{i:09}")),
            Bytes::from(vec![b'v'; 100]),
        );
        let record = commands_record(link, link.timestamp + 1, &[command]);
        link = record.link();
        state.apply(&record, |_, _| {});
        if i >= 100 {
            dearest = dearest.max(state.used_bytes() / (i + 1));
        }
    }
    assert!(dearest < 200, "{dearest} B a key");
    state.check();
}
