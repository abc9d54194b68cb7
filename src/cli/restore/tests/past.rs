//! Targets before a transfer, and questions to the past, against a history kept beside.

use super::*;
use crate::state::Reply;
use crate::state::command::{Batch, BatchForm, Multi, Once};
use crate::state::ledger::record::transfer_flags::{IMPORTED, LINKED, PENDING, POST};
use crate::state::ledger::{Account, Transfer};

/// What the test knows of each transfer: the LSN of the command that created it.
type Kept = BTreeMap<u128, Lsn>;

fn accounts() -> Command {
    let account = |id| Account {
        id,
        ledger: 1,
        code: 7,
        ..Account::default()
    };
    let events: Vec<u8> = (1..=3u128).flat_map(|id| account(id).encode()).collect();
    Command::CreateAccounts(batch(&events))
}

fn batch(events: &[u8]) -> Batch {
    Batch {
        events: Bytes::copy_from_slice(events),
        form: BatchForm::Results,
    }
}

fn transfer(id: u128, flags: u16) -> Transfer {
    Transfer {
        id,
        debit_account_id: 1,
        credit_account_id: 2,
        amount: id,
        ledger: 1,
        code: 7,
        flags,
        ..Transfer::default()
    }
}

fn transfers(all: &[Transfer]) -> Command {
    let events: Vec<u8> = all.iter().flat_map(Transfer::encode).collect();
    Command::CreateTransfers(batch(&events))
}

impl Primary {
    /// One record of these commands.
    fn order(&mut self, commands: &[Command]) {
        let mut payload = BytesMut::new();
        for command in commands {
            let mut encoded = BytesMut::new();
            command.encode(&mut encoded);
            state::command::push(&mut payload, &encoded);
        }
        let epoch = self.link.position.epoch.0;
        self.push(
            epoch,
            Kind::Commands,
            u32::try_from(commands.len()).unwrap(),
            &payload,
        );
    }

    /// The state after an LSN, from the records that this primary kept.
    fn state_at(&self, lsn: Lsn) -> State {
        let mut state = State::new(state_limits(CLUSTER));
        for record in self.records.iter().filter(|r| r.first_lsn() <= lsn) {
            state.apply_prefix(record, record.last_lsn().min(lsn), |_, _| ());
        }
        state
    }
}

/// Batches, chains, holds, EXEC, ONCE, repeats and refusals, with snapshots between them.
fn book(dir: &Path) -> (Primary, Kept) {
    let archive = dir.join("archive");
    let (mut primary, mut kept) = (Primary::new(), Kept::new());
    primary.order(&[accounts()]);
    for round in 0..6u128 {
        let first = round * 100 + 1;
        let lsn = primary.link.position.lsn.0;
        let hold = transfer(first + 4, PENDING);
        let post = Transfer {
            pending_id: hold.id,
            amount: u128::MAX,
            ..transfer(first + 5, POST)
        };
        // Refused for its account, and tried again under another one.
        let lost = Transfer {
            credit_account_id: 99,
            ..transfer(first + 90, 0)
        };
        let exec = Command::Multi(Multi {
            watches: Vec::new(),
            commands: vec![
                Command::IncrBy {
                    key: Bytes::from_static(b"k"),
                    by: 1,
                },
                transfers(&[transfer(first + 7, 0)]),
            ],
        });
        let token = Bytes::from(format!("token {round}"));
        let once = transfers(&[transfer(first + 8, 0)]);
        let commands = [
            transfers(&[transfer(first, 0)]),
            transfers(&[transfer(first + 1, LINKED), transfer(first + 2, 0), lost]),
            // A chain that breaks leaves nothing of itself.
            transfers(&[transfer(first + 3, LINKED), lost]),
            transfers(&[transfer(first, 0), hold]),
            transfers(&[post, transfer(first + 6, 0)]),
            exec,
            Command::Once(Once::new(token, 1000, 10, once)),
        ];
        primary.order(&commands);
        for (id, at) in [
            (0, 1),
            (1, 2),
            (2, 2),
            (4, 4),
            (5, 5),
            (6, 5),
            (7, 6),
            (8, 7),
        ] {
            kept.insert(first + id, Lsn(lsn + at));
        }
        primary.attest_truth();
        primary.write(3);
        ship(&archive, &card(FIRST, &[]), None, &primary.records);
        if round % 2 == 1 {
            let snapshot = primary.snapshot(dir);
            let records = &primary.records;
            ship(&archive, &card(FIRST, &[]), Some(&snapshot), records);
        }
    }
    (primary, kept)
}

fn read(dir: &Path, target: impl Into<Aim>) -> Result<Past, Failure> {
    order(dir, target).source.read(&mut |_| ())
}

#[test]
fn before_a_transfer_is_right_before_the_whole_command_that_created_it() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (primary, kept) = book(dir);
    for (id, lsn) in &kept {
        let past = read(dir, Aim::Before(*id)).unwrap_or_else(|why| panic!("{id}: {why}"));
        let created = past.before.expect("it was found");
        assert_eq!((created.id, created.lsn), (*id, *lsn));
        assert_eq!(past.rebuilt.link.position.lsn, Lsn(lsn.0 - 1), "{id}");
        let (before, after) = (primary.state_at(Lsn(lsn.0 - 1)), primary.state_at(*lsn));
        assert_eq!(past.rebuilt.state.digest(), before.digest(), "{id}");
        assert_eq!(before.ledger().transfer(*id), None);
        let there = after.ledger().transfer(*id).expect("created there");
        assert_eq!(created.timestamp, there.timestamp);
    }
    let restored = restore_to(dir, Aim::Before(401)).unwrap();
    assert_eq!(restored.link.position.lsn, Lsn(kept[&401].0 - 1));
    assert_eq!(load(dir).1.digest(), restored.digest);
    let shown = show::as_json(&restored, dir, 1.0);
    assert_eq!(shown["before"]["created_lsn"], kept[&401].0);
    let text = show::as_text(&restored, dir, 1.0);
    let told = format!(": right before the command at LSN {} that", kept[&401]);
    assert!(text.contains(&told), "{text}");
    // Damage on the way changes nothing but the way.
    let name = ways::spoil(dir, "snapshot-", |bytes| ways::flip_middle(bytes));
    for id in [1, 305, 508] {
        let past = read(dir, Aim::Before(id)).unwrap();
        assert_eq!(past.rebuilt.link.position.lsn, Lsn(kept[&id].0 - 1));
        // The search begins there; what is restored then need not.
        assert!(past.passed_over.iter().all(|one| one.contains(&name)));
    }
}

#[track_caller]
fn assert_refused(dir: &Path, id: u128, words: &[&str]) {
    let failure = restore_to(dir, Aim::Before(id)).unwrap_err();
    assert_eq!(failure.code, ExitCode::NotExact, "{failure}");
    for word in words {
        assert!(failure.to_string().contains(word), "{word}: {failure}");
    }
    assert!(!dir.join("restored").exists());
}

#[test]
fn a_transfer_that_no_point_lies_before_is_refused_by_name() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (primary, kept) = book(dir);
    let newest = primary.link.position.lsn;
    // Never seen, refused, or broken with its chain.
    for id in [0, 99, 91, 4, 7777] {
        let up_to = format!("no transfer {id} was created up to LSN {newest}, ");
        assert_refused(dir, id, &[&up_to]);
    }
    // A hole between the second snapshot and the third.
    let listed = catalogue::read(&stored(&dir.join("archive")), CLUSTER).unwrap();
    let entry = &listed.histories[0];
    let [one, two, three] = [0, 1, 2].map(|at| entry.snapshots[at].link.position.lsn);
    let is_between =
        |head: &standfast_snapshot::LogHead| two < head.first_lsn && head.first_lsn < three;
    for log in entry.logs.iter().filter(|log| is_between(&log.head)) {
        fs::remove_file(dir.join("archive").join(&log.path)).unwrap();
    }
    let hole = [
        format!("transfer 405 was created behind LSN {two}, "),
        format!(" and not behind LSN {three}, "),
        format!("--target lsn:{two}"),
    ];
    assert_refused(dir, 405, &hole.each_ref().map(String::as_str));
    let past = read(dir, Aim::Before(305)).expect("on this side of the hole");
    assert_eq!(past.rebuilt.link.position.lsn, Lsn(kept[&305].0 - 1));
    // What the oldest snapshot has already, once the log before it is gone.
    for log in &entry.logs {
        if log.head.first_lsn <= one {
            fs::remove_file(dir.join("archive").join(&log.path)).unwrap();
        }
    }
    let oldest = format!("is there in the oldest state that can be restored, LSN {one}, ");
    assert_refused(dir, 5, &["transfer 5 ", &oldest]);
}

/// Its timestamp lies before a snapshot that lacks it.
#[test]
fn an_imported_transfer_is_found_where_it_was_imported() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (mut primary, kept) = book(dir);
    let newest = kept
        .keys()
        .filter_map(|id| primary.state.ledger().transfer(*id));
    let imported = Transfer {
        timestamp: newest.map(|one| one.timestamp).max().unwrap() + 1,
        ..transfer(5000, IMPORTED)
    };
    assert!(imported.timestamp < primary.link.timestamp);
    primary.order(&[transfers(&[imported])]);
    let lsn = primary.link.position.lsn;
    let snapshot = primary.snapshot(dir);
    let (card, records) = (card(FIRST, &[]), &primary.records);
    ship(&dir.join("archive"), &card, Some(&snapshot), records);
    let past = read(dir, Aim::Before(5000)).unwrap();
    assert_eq!(past.before.unwrap().lsn, lsn);
    assert_eq!(past.rebuilt.link.position.lsn, Lsn(lsn.0 - 1));
}

#[test]
fn a_transfer_of_a_history_that_was_left_is_found_in_that_one() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (_, kept) = book(dir);
    let restored = restore_to(dir, Aim::Before(401)).unwrap();
    let (header, state) = load(dir);
    let mut second = Primary {
        history: restored.history,
        state,
        link: header.link,
        epochs: Vec::new(),
        records: Vec::new(),
        digests: BTreeMap::new(),
    };
    second.reign(3);
    second.order(&[transfers(&[transfer(9001, 0)])]);
    let card = card(restored.history, &header.ancestors);
    ship(&dir.join("archive"), &card, None, &second.records);
    let lsn = second.link.position.lsn;
    assert_eq!(
        read(dir, Aim::Before(9001)).unwrap().before.unwrap().lsn,
        lsn
    );
    // In its own past, in the share of the first history.
    let past = read(dir, Aim::Before(305)).unwrap();
    assert_eq!(past.before.unwrap().lsn, kept[&305]);
    fs::remove_dir_all(dir.join("restored")).unwrap();
    assert_refused(dir, 401, &["no transfer 401 was created up to LSN "]);
    let mut old = order(dir, Aim::Before(401)).source;
    old.history = Some(FIRST);
    let past = old.read(&mut |_| ()).unwrap();
    assert_eq!(past.before.unwrap().lsn, kept[&401]);
}

/// 200 points drawn at random, each by LSN, by time or before a transfer.
#[test]
fn random_points_of_every_kind_are_what_they_were() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (primary, kept) = book(dir);
    let ids: Vec<u128> = kept.keys().copied().collect();
    let newest = primary.link.position.lsn.0;
    let mut random = 7u64;
    let mut below = |bound: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % bound
    };
    for case in 0..200 {
        let lsn = 1 + below(usize::try_from(newest).unwrap()) as u64;
        let (aim, wanted) = match case % 3 {
            0 => (Aim::At(Target::Lsn(Lsn(lsn))), Lsn(lsn)),
            1 => {
                let record = primary.records.iter().rfind(|r| r.first_lsn().0 <= lsn);
                let record = record.expect("LSN 1 is in the first one");
                let ns = record.timestamp() + record.first_lsn().distance_to(Lsn(lsn));
                (Aim::At(Target::Time(ns)), Lsn(lsn))
            }
            _ => {
                let id = ids[below(ids.len())];
                (Aim::Before(id), Lsn(kept[&id].0 - 1))
            }
        };
        let past = read(dir, aim).unwrap_or_else(|why| panic!("{aim:?}: {why}"));
        let state = &past.rebuilt.state;
        assert_eq!(past.rebuilt.link.position.lsn, wanted, "{aim:?}");
        assert_eq!(state.digest(), primary.state_at(wanted).digest(), "{aim:?}");
    }
}

#[test]
fn questions_are_answered_as_they_would_have_been() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (primary, kept) = book(dir);
    let texts = ["ACCOUNT.GET 2", "TRANSFER.GET 205", "GET k", "DIGEST"].map(str::to_owned);
    let questions = query::parse(&texts).unwrap();
    let past = read(dir, Aim::Before(205)).unwrap();
    let replies = query::replies(&past, &questions);
    let lsn = Lsn(kept[&205].0 - 1);
    let truth = primary.state_at(lsn);
    let Reply::Map(fields) = &replies[0] else {
        panic!("{:?}", replies[0]);
    };
    let credits = truth.ledger().account(2).unwrap().credits_posted;
    let credits = Reply::Bulk(credits.to_string().into());
    assert!(
        fields.iter().any(|(_, value)| *value == credits),
        "{fields:?}"
    );
    assert_eq!(replies[1], Reply::Nil);
    assert_eq!(replies[2], Reply::Bulk("2".into()));
    let digest = Reply::Bulk(truth.digest().to_string().into());
    assert_eq!(
        replies[3],
        Reply::Array(vec![Reply::Int(lsn.0 as i64), digest])
    );
    let left = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_str().unwrap().contains("restor"))
        .collect();
    assert!(left.is_empty(), "nothing is made: {left:?}");
}
