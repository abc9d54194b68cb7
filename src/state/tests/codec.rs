//! Commands as bytes: back as they were, and never a panic on anything else.

use super::super::command::*;
use super::super::ledger::Filter;
use super::*;
use proptest::prelude::*;

fn samples() -> Vec<Command> {
    let key = || text("key");
    let value = || Bytes::from_static(b"\0value\xff");
    let base = Set {
        key: key(),
        value: value(),
        expiry: Expiry::Never,
        condition: SetCondition::Always,
        reply: SetReply::Ok,
    };
    let all = ExpireCondition {
        if_none: true,
        if_some: false,
        if_later: true,
        if_earlier: true,
    };
    let mut samples = vec![
        Command::Set(base.clone()),
        Command::Set(Set {
            expiry: Expiry::Keep,
            reply: SetReply::Previous,
            ..base.clone()
        }),
        Command::Set(Set {
            expiry: Expiry::When(When::In(RELATIVE_MS_MAX)),
            condition: SetCondition::IfEqual(text("before")),
            reply: SetReply::Flag,
            ..base.clone()
        }),
        Command::Set(Set {
            expiry: Expiry::When(When::At(i64::MIN)),
            condition: SetCondition::IfPresent,
            ..base.clone()
        }),
        Command::Set(Set {
            condition: SetCondition::IfAbsent,
            ..base
        }),
        Command::MSet {
            pairs: vec![(key(), value()), (text(""), text(""))],
            if_none_exists: true,
        },
        Command::Append {
            key: key(),
            value: value(),
        },
        Command::SetRange {
            key: key(),
            offset: u64::MAX,
            value: value(),
        },
        Command::IncrBy {
            key: key(),
            by: i64::MIN,
        },
        Command::GetDel { key: key() },
        Command::GetEx {
            key: key(),
            expiry: Expiry::When(When::In(-1)),
        },
        Command::Del {
            keys: vec![key(), text("x".repeat(200).as_str())],
        },
        Command::DelIfEq {
            key: key(),
            value: value(),
        },
        Command::Expire {
            key: key(),
            when: When::At(77),
            condition: all,
        },
        Command::Persist { key: key() },
        Command::Rename {
            source: key(),
            target: value(),
            if_absent: true,
        },
        Command::Copy {
            source: key(),
            target: value(),
            replace: false,
        },
        Command::FlushAll,
        Command::Get { key: key() },
        Command::MGet { keys: vec![] },
        Command::StrLen { key: key() },
        Command::GetRange {
            key: key(),
            start: -5,
            end: i64::MAX,
        },
        Command::Exists {
            keys: vec![key(); 3],
        },
        Command::Type { key: key() },
        Command::Ttl {
            key: key(),
            form: TtlForm {
                in_ms: true,
                absolute: false,
            },
        },
        Command::RandomKey { seed: u64::MAX },
        Command::Keys { pattern: text("*") },
        Command::Scan(Scan {
            cursor: 9,
            pattern: Some(text("a*")),
            count: 10,
            other_type: true,
        }),
        Command::Scan(Scan {
            cursor: 0,
            pattern: None,
            count: 1,
            other_type: false,
        }),
        Command::DbSize,
        Command::Revisions { keys: vec![key()] },
    ];
    samples.extend(ledger_samples());
    let multi = Multi {
        watches: vec![(key(), Lsn(7))],
        commands: samples.clone(),
    };
    samples.push(Command::Multi(multi.clone()));
    samples.push(Command::Once(Once::new(
        text("token"),
        5,
        6,
        Command::IncrBy { key: key(), by: 1 },
    )));
    samples.push(Command::Once(Once::new(
        text("token"),
        5,
        6,
        Command::Multi(multi),
    )));
    let inner = Command::Once(Once::new(text("t"), 5, 6, Command::FlushAll));
    samples.push(Command::Multi(Multi {
        watches: vec![],
        commands: vec![inner],
    }));
    samples
}

fn ledger_samples() -> Vec<Command> {
    let batch = |records: usize, form| Batch {
        events: Bytes::from(vec![7; records * 128]),
        form,
    };
    let filter = Filter {
        account_id: u128::MAX,
        user_data_32: 5,
        cursor: u64::MAX,
        ..Filter::default()
    };
    let ids = || Bytes::from(vec![9; 32]);
    let reads = [
        LedgerRead::LookupAccounts { ids: ids() },
        LedgerRead::LookupTransfers { ids: ids() },
        LedgerRead::Account {
            id: 7,
            with_holds: true,
        },
        LedgerRead::Transfer { id: u128::MAX },
        LedgerRead::AccountTransfers(filter),
        LedgerRead::AccountBalances(filter),
        LedgerRead::QueryAccounts(filter),
        LedgerRead::QueryTransfers(filter),
        LedgerRead::Totals { ledger: 7 },
        LedgerRead::Audit,
    ];
    let mut samples = vec![
        Command::CreateAccounts(batch(1, BatchForm::Words)),
        Command::CreateTransfers(batch(2, BatchForm::Results)),
    ];
    samples.extend(reads.map(|read| Command::Ledger(Box::new(read))));
    samples
}

#[test]
fn a_batch_is_whole_records_and_not_too_many() {
    let bytes = |records: usize, more: usize, form| {
        encoded(&Command::CreateTransfers(Batch {
            events: Bytes::from(vec![7; records * 128 + more]),
            form,
        }))
    };
    let max = crate::limits::LEDGER_EVENTS_MAX;
    for (records, more, form, is_legal) in [
        (1, 0, BatchForm::Words, true),
        (max, 0, BatchForm::Results, true),
        (0, 0, BatchForm::Results, false),
        (1, 1, BatchForm::Results, false),
        (2, 0, BatchForm::Words, false),
        (max + 1, 0, BatchForm::Results, false),
    ] {
        let decoded = Command::from_encoded(bytes(records, more, form));
        assert_eq!(
            decoded.is_ok(),
            is_legal,
            "{records} records, {more} bytes more"
        );
    }
}

fn encoded(command: &Command) -> Bytes {
    let mut bytes = BytesMut::new();
    command.encode(&mut bytes);
    bytes.freeze()
}

#[test]
fn every_command_comes_back_as_it_was() {
    for command in samples() {
        let bytes = encoded(&command);
        assert_eq!(Command::from_encoded(bytes.clone()), Ok(command.clone()));
        let mut two = BytesMut::from(&bytes[..]);
        Command::DbSize.encode(&mut two);
        let mut two = two.freeze();
        assert_eq!(Command::decode(&mut two), Ok(command));
        assert_eq!(
            Command::from_encoded(two),
            Ok(Command::DbSize),
            "only the first was taken"
        );
    }
}

#[test]
fn every_truncation_is_refused_and_no_flipped_bit_does_harm() {
    for command in samples() {
        let bytes = encoded(&command);
        for len in 0..bytes.len() {
            assert!(
                Command::from_encoded(bytes.slice(..len)).is_err(),
                "{command:?} cut at {len}"
            );
        }
        let mut longer = BytesMut::from(&bytes[..]);
        longer.extend_from_slice(&[0]);
        assert_eq!(Command::from_encoded(longer.freeze()), Err(Malformed::Rest));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = BytesMut::from(&bytes[..]);
            flipped[bit / 8] ^= 1 << (bit % 8);
            let flipped = flipped.freeze();
            // One encoding per command: what is still readable reads back to the same bytes.
            if let Ok(other) = Command::from_encoded(flipped.clone()) {
                assert_eq!(encoded(&other), flipped, "{other:?}");
            }
        }
    }
}

#[test]
fn every_code_is_listed_once_and_used() {
    assert!(CODES.is_sorted_by(|a, b| a.0 < b.0), "codes ascend");
    let used: std::collections::BTreeSet<u8> = samples()
        .iter()
        .map(|command| encoded(command)[0])
        .collect();
    assert!(
        used.iter().eq(CODES.iter().map(|(code, ..)| code)),
        "a sample for each code"
    );
    for command in samples()
        .iter()
        .filter(|command| !matches!(command, Command::Multi(_)))
    {
        assert_eq!(encoded(command)[0] < 64, command.is_write(), "{command:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let once = |inner| Command::Once(Once::new(text("t"), 1, 1, inner));
    let multi = |inner| {
        Command::Multi(Multi {
            watches: vec![],
            commands: vec![inner],
        })
    };
    let too_deep = [
        multi(multi(Command::DbSize)),
        multi(once(multi(Command::DbSize))),
        once(multi(once(Command::DbSize))),
    ];
    for command in too_deep {
        assert_eq!(
            Command::from_encoded(encoded(&command)),
            Err(Malformed::Field)
        );
    }
}

#[test]
fn a_payload_gives_back_its_commands_and_ends_at_the_first_damage() {
    let mut payload = BytesMut::new();
    for command in samples() {
        push(&mut payload, &encoded(&command));
    }
    let payload = payload.freeze();
    let back: Result<Vec<_>, _> = iter(payload.clone()).collect();
    assert_eq!(back.map(|all| all.len()), Ok(samples().len()));
    for len in 1..payload.len() {
        let all: Vec<_> = iter(payload.slice(..len)).collect();
        let whole = all.iter().take_while(|one| one.is_ok()).count();
        assert!(all.len() - whole <= 1, "nothing follows an error");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = Command::from_encoded(bytes.clone());
        iter(bytes).for_each(drop);
    }
}
