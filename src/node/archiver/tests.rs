//! An archiver's rounds against a store that fails: nothing is lost, doubled, or said too early.

mod proofs;

use super::*;
use crate::node::shelf::Contents;
use standfast_snapshot::store::Memory;
use standfast_snapshot::{Card, Store, Target, catalogue, plan};
use standfast_wal::{Ancestor, ClusterId, Epoch};
use std::sync::Arc;

const CLUSTER: ClusterId = ClusterId(7);
const SECOND: u64 = 1_000_000_000;

/// A log of one record a tenth of a second, every tenth of them an Attestation; LSN n is ordered at
/// n tenths. `first` is the oldest that is still there.
struct Log {
    records: Vec<Record>,
    first: Lsn,
}

impl Log {
    fn new(count: u64) -> Log {
        let mut log = Log {
            records: Vec::new(),
            first: Lsn(1),
        };
        log.grow(count);
        log
    }

    fn grow(&mut self, count: u64) {
        for _ in 0..count {
            let link = self.records.last().map_or(Link::default(), Record::link);
            let lsn = link.position.lsn.next().0;
            let kind = if lsn.is_multiple_of(10) {
                Kind::Attestation
            } else {
                Kind::Commands
            };
            let at = lsn * SECOND / 10;
            self.records
                .push(Record::build(link, kind, Epoch(1), at, 1, &[7; 100]));
        }
    }

    fn last(&self) -> Lsn {
        self.records.last().map_or(Lsn::ZERO, Record::last_lsn)
    }

    /// The wall clock when the newest record was ordered.
    fn now(&self) -> u64 {
        self.records.last().map_or(0, Record::timestamp)
    }
}

impl Committed for Log {
    fn first_lsn(&self) -> Lsn {
        self.first
    }

    fn behind(&self, after: Lsn) -> io::Result<Vec<Record>> {
        assert!(
            after.next() >= self.first,
            "what was trimmed is not asked for"
        );
        let behind = self
            .records
            .iter()
            .filter(|record| record.last_lsn() > after);
        Ok(behind.take(7).cloned().collect())
    }
}

fn history(generation: u64) -> History {
    History {
        generation,
        id: u128::from(generation) + 40,
    }
}

fn order(log: &Log) -> Order {
    Order {
        card: Card {
            cluster: CLUSTER,
            cluster_name: "bank".to_string(),
            history: history(1),
            ancestors: Vec::new(),
        },
        through: log.last(),
        as_of_ns: u64::MAX,
        snapshot_lsn: None,
        is_verify_due: false,
        unsound: None,
        is_drill_due: false,
    }
}

/// Both clocks say so.
fn at(ns: u64) -> Now {
    Now { boot: ns, wall: ns }
}

fn archiver(memory: &Arc<Memory>) -> Archiver {
    let recipients = Recipients::default();
    Archiver::with_store(memory.clone(), Duration::from_secs(1), recipients)
}

/// First and last LSN of each piece of log in the store.
fn pieces(memory: &Arc<Memory>) -> Vec<(u64, u64)> {
    let store: Shared = memory.clone();
    let catalogue = catalogue::read(&store, CLUSTER).unwrap();
    let logs = catalogue.histories.iter().flat_map(|entry| &entry.logs);
    logs.map(|log| (log.head.first_lsn.0, log.head.last_lsn().0))
        .collect()
}

#[test]
fn pieces_end_with_an_attestation_and_the_age_is_what_was_read_back() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(5);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [], "no attestation yet, and not for long");
    assert_eq!(archiver.standing().restorable_ns, 0);
    log.grow(8);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 10)]);
    assert_eq!(
        archiver.standing().restorable_ns,
        SECOND,
        "that of the attestation"
    );
    assert_eq!(archiver.standing().through, Lsn(10));
    log.grow(7);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 10), (11, 20)]);
    assert_eq!(
        archiver.standing().restorable_ns,
        log.now(),
        "all that is committed is there"
    );
    // Nothing is written any more: what is there stays as good as now.
    assert!(archiver.round(&order(&log), &log, at(9 * SECOND)));
    assert_eq!(archiver.standing().restorable_ns, 9 * SECOND);
    // Who does not know whether anything is written elsewhere says no more than it knows.
    let unsure = |as_of_ns| Order {
        as_of_ns,
        ..order(&log)
    };
    assert!(archiver.round(&unsure(0), &log, at(12 * SECOND)));
    assert_eq!(archiver.standing().restorable_ns, 9 * SECOND);
    assert!(archiver.round(&unsure(10 * SECOND), &log, at(12 * SECOND)));
    assert_eq!(archiver.standing().restorable_ns, 10 * SECOND);
    // An unattested end does not wait for ever.
    log.grow(3);
    assert!(archiver.round(&order(&log), &log, at(13 * SECOND)));
    assert_eq!(pieces(&memory).last(), Some(&(11, 20)));
    assert!(archiver.round(&order(&log), &log, at(15 * SECOND)));
    assert_eq!(pieces(&memory).last(), Some(&(21, 23)));
}

#[test]
fn an_outage_makes_the_archive_lag_and_nothing_else() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(20);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    memory.set_down(true);
    log.grow(600);
    assert!(!archiver.round(&order(&log), &log, at(log.now())));
    let standing = archiver.standing().clone();
    assert_eq!((standing.through, standing.failures), (Lsn(20), 1));
    assert!(standing.error.is_some());
    assert_eq!(
        standing.restorable_ns,
        2 * SECOND,
        "what was proved stays proved"
    );
    memory.set_down(false);
    memory.lose_answers(true);
    assert!(!archiver.round(&order(&log), &log, at(log.now())));
    memory.lose_answers(false);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 20), (21, 620)]);
    assert_eq!(archiver.standing().error, None);
}

#[test]
fn two_that_archive_at_once_leave_one_log() {
    let memory = Arc::new(Memory::default());
    let (mut one, mut two) = (archiver(&memory), archiver(&memory));
    let mut log = Log::new(20);
    assert!(one.round(&order(&log), &log, at(log.now())));
    assert!(two.round(&order(&log), &log, at(log.now())));
    for turn in 0..40 {
        log.grow(7);
        let some = if turn % 5 < 2 { &mut one } else { &mut two };
        assert!(some.round(&order(&log), &log, at(log.now())));
        // The other one may not have heard of the end of its duty.
        if turn % 3 == 0 {
            assert!(one.round(&order(&log), &log, at(log.now())));
            assert!(two.round(&order(&log), &log, at(log.now())));
        }
    }
    let store: Shared = memory.clone();
    let catalogue = catalogue::read(&store, CLUSTER).unwrap();
    let newest = catalogue.histories[0].logs.last().unwrap().head.last_lsn();
    for lsn in 1..=newest.0 {
        plan(&catalogue, None, standfast_snapshot::Target::Lsn(Lsn(lsn))).unwrap();
    }
    // Whoever has slept looks first: no piece of its overlaps another's.
    log.grow(100);
    assert!(one.round(&order(&log), &log, at(log.now())));
    let before = pieces(&memory).len();
    assert!(two.round(&order(&log), &log, at(log.now() + 10 * SECOND)));
    assert_eq!(pieces(&memory).len(), before);
}

/// The store does not answer until log is dropped that it should have had.
fn outlast(memory: &Memory, archiver: &mut Archiver, log: &mut Log) {
    memory.set_down(true);
    log.grow(100);
    assert!(!archiver.round(&order(log), log, at(log.now())));
    log.first = Lsn(90);
    memory.set_down(false);
    assert!(archiver.round(&order(log), log, at(log.now())));
}

#[test]
fn log_that_was_dropped_is_a_gap_until_a_snapshot_is_there() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(20);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    outlast(&memory, &mut archiver, &mut log);
    let standing = archiver.standing().clone();
    assert_eq!(standing.gap, Some((Lsn(20), Lsn(90))));
    assert!(standing.wants_snapshot);
    assert_eq!(
        standing.restorable_ns,
        2 * SECOND,
        "nothing behind the gap counts"
    );
    let with_snapshot = Order {
        snapshot_lsn: Some(Lsn(110)),
        ..order(&log)
    };
    assert!(archiver.round(&with_snapshot, &log, at(log.now())));
    assert!(
        !archiver.standing().wants_snapshot,
        "one is there to be put"
    );
    assert_eq!(
        archiver.upload(&with_snapshot, at(log.now())).unwrap().lsn,
        Lsn(110)
    );
    assert!(
        archiver.upload(&with_snapshot, at(log.now())).is_none(),
        "one at a time"
    );
}

#[test]
fn log_that_was_dropped_before_the_first_piece_was_put_is_a_gap() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(5);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert!(pieces(&memory).is_empty(), "no piece can be closed yet");
    outlast(&memory, &mut archiver, &mut log);
    let standing = archiver.standing();
    assert_eq!(standing.gap, Some((Lsn::ZERO, Lsn(90))));
    assert!(standing.wants_snapshot);
    assert_eq!(standing.restorable_ns, 0, "nothing can be restored");
}

#[test]
fn an_archive_of_others_is_refused() {
    let memory = Arc::new(Memory::default());
    let log = Log::new(20);
    assert!(archiver(&memory).round(&order(&log), &log, at(log.now())));
    let mine = order(&log);
    let refused = |card: Card| {
        let mut archiver = archiver(&memory);
        let theirs = Order {
            card,
            ..mine.clone()
        };
        assert!(!archiver.round(&theirs, &log, at(log.now())));
        archiver.standing().error.clone().unwrap()
    };
    let stranger = refused(Card {
        cluster: ClusterId(8),
        ..mine.card.clone()
    });
    assert!(stranger.contains("is the archive of cluster"), "{stranger}");
    let twin = refused(Card {
        history: History {
            id: 99,
            ..history(1)
        },
        ..mine.card.clone()
    });
    assert!(twin.contains("is not a later one of"), "{twin}");
    let later = Card {
        history: history(2),
        ancestors: vec![Ancestor::at(history(1), Lsn(20))],
        ..mine.card.clone()
    };
    assert!(archiver(&memory).round(
        &Order {
            card: later,
            ..mine.clone()
        },
        &log,
        at(log.now())
    ));
    let earlier = refused(mine.card.clone());
    assert!(earlier.contains("is not a later one of"), "{earlier}");
}

/// The founder knew that 23 was committed, and its log ended at 25.
#[test]
fn what_an_ancestor_had_not_archived_its_successor_puts() {
    let memory = Arc::new(Memory::default());
    let mut log = Log::new(25);
    assert!(archiver(&memory).round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 20)]);
    log.grow(15);
    let mut order = order(&log);
    order.card.history = history(2);
    order.card.ancestors = vec![Ancestor {
        history: history(1),
        shared: Lsn(23),
        end: Lsn(25),
    }];
    assert!(archiver(&memory).round(&order, &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 20), (21, 40)]);
    let shared: Shared = memory;
    let all = catalogue::read(&shared, CLUSTER).unwrap();
    let plan = plan(&all, Some(history(2)), Target::Latest).unwrap();
    assert_eq!(plan.newest.lsn, Lsn(40));
}

#[test]
fn what_the_store_lost_is_put_again_or_told() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(20);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let mut names = memory.names().into_iter();
    let newest = names.find(|name| name.contains("/log-")).unwrap();
    memory.tamper(&newest, |bytes| bytes[300] ^= 1);
    assert!(archiver.round(&order(&log), &log, at(5 * SECOND)));
    assert_eq!(archiver.standing().restorable_ns, 5 * SECOND);
    memory.delete(&newest).unwrap();
    assert!(archiver.round(&order(&log), &log, at(6 * SECOND)));
    assert_eq!(pieces(&memory), [(1, 20)]);
    memory.delete(&newest).unwrap();
    log.first = Lsn(15);
    assert!(!archiver.round(&order(&log), &log, at(7 * SECOND)));
    assert_eq!(archiver.standing().restorable_ns, 6 * SECOND);
    assert!(archiver.standing().error.is_some());
}

/// Its newest piece is there, and what lies before it is not.
#[test]
fn what_goes_behind_the_archivers_back_no_longer_counts() {
    let memory = Arc::new(Memory::default());
    let mut archiver = archiver(&memory);
    let mut log = Log::new(20);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    log.grow(20);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    assert_eq!(pieces(&memory), [(1, 20), (21, 40)]);
    let mut names = memory.names().into_iter();
    let oldest = names.find(|name| name.contains("/log-")).unwrap();
    memory.delete(&oldest).unwrap();
    log.grow(160);
    assert!(!archiver.round(&order(&log), &log, at(log.now())), "told");
    assert!(archiver.standing().is_lost);
    assert!(archiver.round(&order(&log), &log, at(log.now())));
    let standing = archiver.standing().clone();
    assert_eq!(standing.gap, Some((Lsn::ZERO, Lsn(21))));
    assert_eq!(standing.restorable_ns, 0, "from nothing to nowhere");
    assert!(standing.wants_snapshot);
    let with_snapshot = Order {
        snapshot_lsn: Some(Lsn(200)),
        ..order(&log)
    };
    let upload = archiver.upload(&with_snapshot, at(log.now()));
    assert_eq!(upload.unwrap().lsn, Lsn(200), "its own newest will do");
}

/// A file system that is not mounted, or another's: no archive is begun in place of the one that
/// was.
#[test]
fn an_archive_that_is_not_there_any_more_is_not_begun_anew() {
    let memory = Arc::new(Memory::default());
    let mut first = archiver(&memory);
    let mut log = Log::new(20);
    assert!(!first.is_founded());
    assert!(first.round(&order(&log), &log, at(log.now())));
    assert!(first.is_founded());
    for name in memory.names() {
        memory.delete(&name).unwrap();
    }
    log.grow(10);
    assert!(
        first.round(&order(&log), &log, at(log.now())),
        "not seen yet"
    );
    log.grow(160);
    for seconds in [0, 1, 20] {
        let now = at(log.now() + seconds * SECOND);
        assert!(!first.round(&order(&log), &log, now));
        let error = first.standing().error.clone().unwrap();
        assert!(error.contains("is not there any more"), "{error}");
        assert_eq!(first.standing().restorable_ns, 0);
    }
    let mut second = archiver(&memory).founded(true);
    assert!(!second.round(&order(&log), &log, at(log.now())));
    let mut looks = archiver(&memory);
    assert_eq!(looks.look_around(CLUSTER, history(1)), Ok(()));
    assert!(!looks.is_founded());
    let mut anew = archiver(&memory);
    assert!(anew.round(&order(&log), &log, at(log.now())), "by command");
    assert_eq!(looks.look_around(CLUSTER, history(1)), Ok(()));
    assert!(looks.is_founded(), "although it was never on duty");
}

#[test]
fn an_encrypted_archive_is_read_back_put_again_and_taken_over_without_a_key() {
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let recipients = Recipients::new(&[recipient.parse().unwrap()], 7);
    let memory = Arc::new(Memory::default());
    let open = || {
        let second = Duration::from_secs(1);
        Archiver::with_store(memory.clone(), second, recipients.clone())
    };
    let (mut one, mut two) = (open(), open());
    let mut log = Log::new(20);
    for turn in 0..40 {
        let some = if turn % 5 < 2 { &mut one } else { &mut two };
        assert!(
            some.round(&order(&log), &log, at(log.now())),
            "{:?}",
            some.standing()
        );
        assert_eq!(some.standing().through, log.last());
        assert_eq!(some.standing().restorable_ns, log.now(), "read back");
        if turn % 3 == 0 {
            assert!(one.round(&order(&log), &log, at(log.now())));
            assert!(two.round(&order(&log), &log, at(log.now())));
        }
        log.grow(10);
    }
    assert!(two.round(&order(&log), &log, at(log.now())));
    let mut names = memory.names().into_iter();
    let newest = names.rfind(|name| name.contains("/log-")).unwrap();
    memory.tamper(&newest, |bytes| bytes[300] ^= 1);
    assert!(two.round(&order(&log), &log, at(60 * SECOND)));
    assert_eq!(two.standing().restorable_ns, 60 * SECOND);
    let manifests = memory
        .names()
        .into_iter()
        .filter(|name| name.contains("/manifest-"));
    assert!(manifests.count() >= 2);
    let store: Shared = memory.clone();
    let nobody = standfast_snapshot::Identities::default();
    let report =
        standfast_snapshot::verify::verify(&store, CLUSTER, 1, &nobody, &Contents::of(CLUSTER))
            .unwrap();
    assert!(report.is_sound(), "{report:?}");
}
