//! A loss is told, proved and planned from what a data directory holds, and from nothing else.

use super::books::{Books, Fate, Lost, Origin, Sort, add_up};
use super::plan::{Allowed, Held, plan};
use super::*;
use crate::node::directory::wal_dir;
use crate::node::meta::{self, NewNode};
use crate::node::statement::{DIRECTORY, Statement};
use crate::replication::{Fence, Loss as Missing};
use crate::state::command::{Batch, BatchForm, push};
use crate::state::ledger::record::{account_flags, transfer_flags};
use crate::state::ledger::{Account, Transfer};
use crate::state::{Attestation, Command, State};
use bytes::{Bytes, BytesMut};
use standfast_wal::{
    ClusterId, Disk, Epoch, History, Identity, Incarnation, Kind, Link, Log, Lsn, NodeId, Options,
    Record,
};
use std::path::Path;

const CLUSTER: ClusterId = ClusterId(77);
const HISTORY: History = History {
    generation: 1,
    id: 5,
};
const SECOND: u64 = 1_000_000_000;

/// A primary's log, and the state that it had.
struct Site {
    log: Log<Disk>,
    state: State,
    link: Link,
}

impl Site {
    fn new(dir: &Path) -> Site {
        let (node, incarnation) = (NodeId(0), Incarnation(9));
        let new = NewNode {
            cluster: CLUSTER,
            cluster_name: "bank".to_owned(),
            node,
            incarnation,
            initial: None,
        };
        meta::create(dir, new).unwrap();
        let identity = Identity {
            cluster: CLUSTER,
            node,
            incarnation,
        };
        let options = Options {
            segment_bytes: 1 << 20,
            ..Options::default()
        };
        let disk = Disk::open(wal_dir(dir)).unwrap();
        Site {
            log: Log::create(disk, identity, HISTORY, Link::default(), options).unwrap(),
            state: State::new(crate::node::open::state_limits(CLUSTER)),
            link: Link::default(),
        }
    }

    fn order(&mut self, kind: Kind, count: usize, payload: &[u8]) {
        let timestamp = self.link.position.lsn.next().0 * SECOND;
        let count = u32::try_from(count).unwrap();
        let record = Record::build(self.link, kind, Epoch(1), timestamp, count, payload);
        self.state.apply(&record, |_, _| ());
        self.link = record.link();
        self.log.push(record);
        self.log.flush().unwrap();
    }

    fn run(&mut self, commands: &[Command]) {
        let mut payload = BytesMut::new();
        for command in commands {
            let mut encoded = BytesMut::new();
            command.encode(&mut encoded);
            push(&mut payload, &encoded);
        }
        self.order(Kind::Commands, commands.len(), &payload);
    }

    fn attest(&mut self) {
        let (lsn, digest) = (self.link.position.lsn, self.state.digest());
        let payload = Attestation { lsn, digest }.encode();
        self.order(Kind::Attestation, 1, &payload);
    }
}

fn batch(events: impl IntoIterator<Item = [u8; 128]>) -> Batch {
    let events: Vec<u8> = events.into_iter().flatten().collect();
    Batch {
        events: events.into(),
        form: BatchForm::Results,
    }
}

fn transfers(list: &[Transfer]) -> Command {
    Command::CreateTransfers(batch(list.iter().map(Transfer::encode)))
}

fn accounts(flags: &[(u128, u16)]) -> Command {
    Command::CreateAccounts(batch(flags.iter().map(|(id, flags)| {
        let (id, flags) = (*id, *flags);
        let account = Account {
            id,
            flags,
            ledger: 1,
            code: 1,
            ..Account::default()
        };
        account.encode()
    })))
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128) -> Transfer {
    Transfer {
        id,
        debit_account_id: debit,
        credit_account_id: credit,
        amount,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

fn set(key: &'static str, value: &'static str) -> Command {
    Command::Append {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
    }
}

/// A directory whose node has given up what it had ordered behind the fork; no statement was
/// written.
fn cut_site(dir: &Path) -> Lsn {
    let mut site = Site::new(dir);
    let poor = account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS;
    site.run(&[accounts(&[(1, 0), (2, 0), (3, poor)])]);
    site.run(&[transfers(&[transfer(100, 1, 2, 5)])]);
    let fork = site.link.position.lsn;
    site.run(&[
        transfers(&[
            transfer(100, 1, 2, 5),
            transfer(101, 1, 2, 7),
            transfer(102, 3, 1, 1),
            transfer(103, 9, 1, 1),
        ]),
        set("order", "paid"),
    ]);
    site.attest();
    let hold = Transfer {
        flags: transfer_flags::PENDING,
        ..transfer(104, 2, 1, 4)
    };
    site.run(&[
        accounts(&[(4, 0)]),
        transfers(&[hold, transfer(101, 1, 2, 7)]),
    ]);
    site.log.cut(fork).unwrap();
    fork
}

fn fates(books: &Books) -> Vec<(u128, &'static str, Acknowledged)> {
    let fate = |lost: &Lost| match lost.fate {
        Fate::Made(_) => "made",
        Fate::Nothing => "nothing",
        Fate::Unknown => "unknown",
    };
    let events = books.events.iter();
    events
        .map(|lost| (lost.id(), fate(lost), books.origin(lost).acknowledged))
        .collect()
}

#[test]
fn a_statement_that_a_crash_kept_from_being_written_is_made_again_and_proved() {
    let dir = tempfile::tempdir().unwrap();
    let fork = cut_site(dir.path());
    let found = found::read(&[dir.path().to_owned()]).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].statement.log_kept_through, fork.0);
    let books = books::open(&found);
    assert_eq!(books.unproved.len(), 0, "{:?}", books.unproved);
    // What was there before, refused or sent twice is not lost; what was attested was committed.
    let (yes, possibly) = (Acknowledged::Yes, Acknowledged::Possibly);
    let expected = [
        (100, "nothing", yes),
        (101, "made", yes),
        (102, "nothing", yes),
        (103, "nothing", yes),
        (4, "made", possibly),
        (104, "made", possibly),
        (101, "nothing", possibly),
    ];
    assert_eq!(fates(&books), expected);
    assert_eq!(books.with_keys.len(), 1);
    assert_eq!(books.requests(books.with_keys[0])[0][0], "APPEND");
    let (sums, nets) = add_up(&books);
    let sum = sums[&1];
    assert_eq!(
        (sum.transfers, sum.acknowledged, sum.moved, sum.held),
        (2, 1, 7, 4)
    );
    assert_eq!((nets[&2].credits_posted, nets[&2].debits_held), (7, 4));
}

#[test]
fn the_statement_that_was_written_is_not_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let fork = cut_site(dir.path());
    let kept = found::kept(dir.path()).unwrap().remove(0).1;
    let by = Fence {
        history: History {
            generation: 2,
            id: 6,
        },
        epoch: Epoch(2),
    };
    let loss = Missing {
        history: HISTORY,
        by,
        first_lsn: fork.next(),
        last_lsn: kept.records.last().unwrap().last_lsn(),
        committed: Lsn::ZERO,
        possibly_acknowledged: true,
    };
    let mut statement = Statement::of_cut(1, NodeId(0), fork, loss);
    statement.list(&kept.records);
    let home = dir.path().join(DIRECTORY);
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join(statement.file_name()), statement.to_json()).unwrap();
    let found = found::read(&[dir.path().to_owned()]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].statement, statement, "it reads back as it was");
    assert_eq!(fates(&books::open(&found)).len(), 7);
    // Another node's copy of it says nothing new.
    let mut twice = found::read(&[dir.path().to_owned()]).unwrap();
    twice.extend(found);
    let books = books::open(&twice);
    assert_eq!(fates(&books).len(), 7);
    assert_eq!(books.commands[0].held_by.len(), 1);
}

#[test]
fn without_the_state_at_the_fork_nothing_is_taken_for_made() {
    let dir = tempfile::tempdir().unwrap();
    cut_site(dir.path());
    let first = standfast_wal::segment::name(Lsn(1));
    std::fs::remove_file(wal_dir(dir.path()).join(first)).unwrap();
    let books = books::open(&found::read(&[dir.path().to_owned()]).unwrap());
    assert_eq!(books.unproved.len(), 1);
    assert!(fates(&books).iter().all(|(_, fate, _)| *fate == "unknown"));
    let plan = plan(&books, Allowed::default(), 0);
    assert!(plan.parcels.is_empty());
    assert!(plan.held.iter().all(|(_, why)| *why == Held::Unproved));
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = found::read(&[dir.path().to_owned()]).expect_err("nothing there");
    assert_eq!(refused.code, ExitCode::Usage);
}

/// Books in which each list of transfers was one command, all of it made.
fn made(commands: &[(Acknowledged, bool, &[Transfer])]) -> Books {
    let mut books = Books::default();
    let mut group = 0;
    for (i, (acknowledged, is_composed, list)) in commands.iter().enumerate() {
        books.commands.push(Origin {
            place: (String::new(), 1, i as u64),
            timestamp_ns: SECOND,
            acknowledged: *acknowledged,
            held_by: [0].into(),
            command: transfers(list),
            is_composed: *is_composed,
        });
        for one in *list {
            let timestamp = SECOND;
            books.events.push(Lost {
                command: i,
                group,
                sort: Sort::Transfer,
                event: one.encode(),
                fate: Fate::Made(Transfer { timestamp, ..*one }.encode()),
            });
            let is_linked = one.has(transfer_flags::LINKED);
            group += usize::from(!is_linked && !is_composed);
        }
        group += 1;
    }
    books
}

fn with(flags: u16, transfer: Transfer) -> Transfer {
    Transfer { flags, ..transfer }
}

#[test]
fn chains_stay_whole_and_order_is_kept() {
    let yes = Acknowledged::Yes;
    let chain: Vec<_> = (0..5000)
        .map(|i| match i {
            4999 => transfer(10_000 + i, 1, 2, 1),
            _ => with(transfer_flags::LINKED, transfer(10_000 + i, 1, 2, 1)),
        })
        .collect();
    let singles: Vec<_> = (0..5000).map(|i| transfer(1 + i, 1, 2, 1)).collect();
    let exec = [transfer(90_001, 1, 2, 1), transfer(90_002, 1, 2, 1)];
    let books = made(&[
        (yes, false, &singles),
        (yes, false, &chain),
        (yes, true, &exec),
    ]);
    let plan = plan(&books, Allowed::default(), 0);
    let sizes = plan.parcels.iter().map(|parcel| {
        let events: usize = parcel.groups.iter().map(Vec::len).sum();
        (events, parcel.groups.len(), parcel.is_exec)
    });
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(sizes, [(5000, 5000, false), (5000, 1, false), (2, 1, true)]);
    let order = plan
        .parcels
        .iter()
        .flat_map(|parcel| parcel.groups.concat());
    assert!(order.eq(0..10_002));
}

#[test]
fn what_cannot_be_right_is_held_back() {
    let (yes, possibly, no) = (Acknowledged::Yes, Acknowledged::Possibly, Acknowledged::No);
    let balancing = with(transfer_flags::BALANCING_DEBIT, transfer(1, 1, 2, 5));
    let hold = |id| Transfer {
        timeout: 10,
        ..with(transfer_flags::PENDING, transfer(id, 1, 2, 5))
    };
    let post = Transfer {
        pending_id: 3,
        ..with(transfer_flags::POST, transfer(4, 0, 0, 5))
    };
    let books = made(&[
        (yes, false, &[balancing]),
        (yes, false, &[hold(2)]),
        (yes, false, &[hold(3), post]),
        (possibly, false, &[transfer(5, 1, 2, 1)]),
        (no, false, &[transfer(6, 1, 2, 1)]),
    ]);
    let reasons = |allowed, now| -> Vec<(usize, Held)> { plan(&books, allowed, now).held };
    let all = Allowed::default();
    let never = (5, Held::NeverAcknowledged);
    assert_eq!(reasons(all, 0), [(0, Held::Balancing), never]);
    // A hold that has had its time stays gone; one that was posted is held again to be posted.
    let late = 12 * SECOND;
    assert_eq!(
        reasons(all, late),
        [(0, Held::Balancing), (1, Held::Expired), never]
    );
    let certain = Allowed {
        only_acknowledged: true,
        ..all
    };
    let unsure = (4, Held::PossiblyAcknowledged);
    assert_eq!(reasons(certain, 0), [(0, Held::Balancing), unsure, never]);
}
