//! Tables: which target is met by what, and what is said where none is.

use super::*;
use crate::catalogue::{HistoryEntry, LogEntry};
use crate::fixtures::{CLUSTER, history, link_at, log, time};
use crate::object::encode_log;
use crate::seal::Recipients;
use standfast_wal::{Ancestor, Chain, NodeId, Record};

fn snapshot(link: Link) -> SnapshotEntry {
    SnapshotEntry {
        path: format!("snapshot-{}", link.position.lsn),
        link,
        recipients: None,
        state: Some((1, [0; 4])),
        segments_dir: String::new(),
        blake3: [0; 32],
        node: NodeId(1),
        file_bytes: 10,
        segments: Vec::new(),
    }
}

fn piece(generation: u64, records: &[Record]) -> LogEntry {
    let (head, _) = encode_log(
        CLUSTER,
        history(generation),
        records,
        &Recipients::default(),
    );
    LogEntry {
        path: format!("{generation}/log-{}-{}", head.first_lsn, head.last_lsn()),
        head,
    }
}

/// Pieces of `records` by first and last LSN.
fn pieces(generation: u64, records: &[Record], ranges: &[(u64, u64)]) -> Vec<LogEntry> {
    let piece = |(first, last): &(u64, u64)| {
        let inside = |r: &&Record| r.first_lsn().0 >= *first && r.last_lsn().0 <= *last;
        let inside: Vec<Record> = records.iter().filter(inside).cloned().collect();
        piece(generation, &inside)
    };
    ranges.iter().map(piece).collect()
}

fn entry(generation: u64, snapshots: Vec<SnapshotEntry>, logs: Vec<LogEntry>) -> HistoryEntry {
    HistoryEntry {
        history: history(generation),
        ancestors: Vec::new(),
        snapshots,
        logs,
        unreadable: Vec::new(),
        manifests: Vec::new(),
    }
}

fn catalogue(histories: Vec<HistoryEntry>) -> Catalogue {
    Catalogue {
        cluster: CLUSTER,
        cluster_name: "bank".to_string(),
        histories,
        segments: Vec::new(),
    }
}

/// `from snapshot-20: 1/log-21-40` or the refusal.
fn show(catalogue: &Catalogue, target: Target) -> String {
    match plan(catalogue, None, target) {
        Err(unmet) => unmet.to_string(),
        Ok(plan) => {
            let start = plan.snapshot.map_or("nothing".into(), |s| s.path.clone());
            let steps = plan.steps.iter().map(|step| {
                let cut = match step.through == step.head.last_lsn() {
                    true => String::new(),
                    false => format!(" through {}", step.through),
                };
                format!(" {}{cut}", step.path)
            });
            format!("from {start}:{}", steps.collect::<String>())
        }
    }
}

#[test]
fn a_target_is_met_exactly_or_refused_with_its_neighbours() {
    // Records of two commands at LSN 1, 3, 5 ...: at 10, 30, 50 ... ns, and 1 ns later each.
    let records = log(Link::default(), 2, 100);
    let snapshots = vec![
        snapshot(link_at(&records, 20)),
        snapshot(link_at(&records, 40)),
        snapshot(link_at(&records, 80)),
    ];
    // A hole from 61 to 70; the piece 71-80 is behind it, the snapshot at 80 mends it.
    let logs = pieces(1, &records, &[(21, 40), (41, 60), (71, 80), (81, 100)]);
    let full = catalogue(vec![entry(1, snapshots, logs)]);
    let newest = "; the newest known is lsn:100 (time 991 ns)";
    let nearest = "the target cannot be met exactly; the nearest restorable points are ";
    let hole = format!("{nearest}lsn:60 (time 591 ns) and lsn:80 (time 791 ns){newest}");
    let late = format!("{nearest}lsn:100 (time 991 ns){newest}");
    let early = format!("{nearest}lsn:20 (time 191 ns){newest}");
    let table: &[(Target, &str)] = &[
        (Target::Latest, "from snapshot-80: 1/log-81-100"),
        (Target::Lsn(Lsn(100)), "from snapshot-80: 1/log-81-100"),
        (Target::Lsn(Lsn(101)), &late),
        (Target::Lsn(Lsn(80)), "from snapshot-80:"),
        (Target::Lsn(Lsn(79)), &hole),
        (Target::Lsn(Lsn(61)), &hole),
        (Target::Lsn(Lsn(60)), "from snapshot-40: 1/log-41-60"),
        (Target::Lsn(Lsn(41)), "from snapshot-40: 1/log-41-60"),
        (Target::Lsn(Lsn(40)), "from snapshot-40:"),
        (Target::Lsn(Lsn(39)), "from snapshot-20: 1/log-21-40"),
        (Target::Lsn(Lsn(20)), "from snapshot-20:"),
        (Target::Lsn(Lsn(19)), &early),
        (Target::Lsn(Lsn(0)), &early),
        (Target::Time(992), &late),
        (Target::Time(991), "from snapshot-80: 1/log-81-100"),
        (Target::Time(800), "from snapshot-80:"),
        (Target::Time(790), &hole),
        (Target::Time(592), &hole),
        (Target::Time(591), "from snapshot-40: 1/log-41-60"),
        (Target::Time(400), "from snapshot-40:"),
        (Target::Time(191), "from snapshot-20:"),
        (Target::Time(190), &early),
    ];
    for (target, wanted) in table {
        assert_eq!(show(&full, *target), *wanted, "{target:?}");
    }
}

#[test]
fn without_a_snapshot_the_log_from_its_beginning_is_enough() {
    let records = log(Link::default(), 2, 40);
    let whole = catalogue(vec![entry(
        1,
        vec![],
        pieces(1, &records, &[(1, 20), (21, 40)]),
    )]);
    assert_eq!(
        show(&whole, Target::Lsn(Lsn(1))),
        "from nothing: 1/log-1-20"
    );
    assert_eq!(
        show(&whole, Target::Latest),
        "from nothing: 1/log-1-20 1/log-21-40"
    );
    assert_eq!(
        show(&whole, Target::Time(time(Lsn(1)))),
        "from nothing: 1/log-1-20"
    );
    let text = show(&whole, Target::Time(9));
    assert!(text.contains("points are lsn:1 (time 10 ns);"), "{text}");
    let beheaded = catalogue(vec![entry(1, vec![], pieces(1, &records, &[(21, 40)]))]);
    let text = show(&beheaded, Target::Latest);
    assert!(
        text.contains("points are none; the newest known is lsn:40"),
        "{text}"
    );
    assert_eq!(
        plan(&catalogue(vec![]), None, Target::Latest),
        Err(Unmet::Nothing)
    );
    let bare = catalogue(vec![entry(1, vec![], vec![])]);
    assert_eq!(plan(&bare, None, Target::Latest), Err(Unmet::Nothing));
}

#[test]
fn latest_is_never_quietly_less_than_what_is_known() {
    let records = log(Link::default(), 2, 60);
    let mut broken = entry(1, vec![], pieces(1, &records, &[(1, 20), (41, 60)]));
    let text = show(&catalogue(vec![broken.clone()]), Target::Latest);
    assert!(
        text.contains("points are lsn:20 (time 191 ns); the newest known is lsn:60"),
        "{text}"
    );
    // A piece that cannot be read is known as well, by its name.
    broken.logs.truncate(1);
    assert_eq!(
        show(&catalogue(vec![broken.clone()]), Target::Latest),
        "from nothing: 1/log-1-20"
    );
    broken.unreadable.push(crate::catalogue::Unreadable {
        path: "log".into(),
        lsns: Some((Lsn(21), Lsn(30))),
        reason: "damaged".to_string(),
    });
    let text = show(&catalogue(vec![broken]), Target::Latest);
    assert!(text.contains("the newest known is lsn:30"), "{text}");
}

#[test]
fn pieces_may_overlap_and_the_longer_one_is_taken() {
    let records = log(Link::default(), 2, 60);
    let ranges = [(1, 40), (1, 20), (21, 30), (31, 60)];
    let logs = pieces(1, &records, &ranges);
    let text = show(&catalogue(vec![entry(1, vec![], logs)]), Target::Latest);
    assert_eq!(text, "from nothing: 1/log-1-40 1/log-31-60");
}

#[test]
fn a_piece_of_another_chain_is_no_continuation() {
    let records = log(Link::default(), 2, 40);
    let strange = Link {
        chain: Chain(1234),
        ..link_at(&records, 20)
    };
    let mut logs = pieces(1, &records, &[(1, 20)]);
    logs.push(piece(1, &log(strange, 2, 40)));
    let broken = catalogue(vec![entry(1, vec![], logs)]);
    let text = show(&broken, Target::Latest);
    assert!(text.contains("points are lsn:20"), "{text}");
    let lineage = Lineage::of(&broken, history(1)).unwrap();
    let gaps: Vec<String> = lineage.gaps().iter().map(Gap::to_string).collect();
    assert_eq!(
        gaps,
        ["the chain breaks between lsn:20 (time 191 ns) and lsn:21 (time 210 ns)"]
    );
}

/// History 2 was founded at 30, on a log of which 26 was known to be committed, and 20 archived.
#[test]
fn what_an_ancestors_archive_lacks_its_successor_has_put_again() {
    let first = log(Link::default(), 2, 30);
    let second = log(link_at(&first, 30), 2, 50);
    let held = [first.clone(), second].concat();
    let replaced = log(link_at(&first, 24), 3, 40);
    let mut two = entry(2, vec![], pieces(2, &held, &[(21, 24), (25, 34), (35, 50)]));
    two.ancestors = vec![Ancestor {
        history: history(1),
        shared: Lsn(24),
        end: Lsn(30),
    }];
    let mut logs = pieces(1, &first, &[(1, 20)]);
    for more in [vec![], pieces(1, &replaced, &[(25, 40)])] {
        logs.extend(more);
        let all = catalogue(vec![entry(1, vec![], logs.clone()), two.clone()]);
        let way = "from nothing: 1/log-1-20 2/log-21-24 2/log-25-34 2/log-35-50";
        assert_eq!(show(&all, Target::Latest), way);
        assert_eq!(
            show(&all, Target::Lsn(Lsn(23))),
            "from nothing: 1/log-1-20 2/log-21-24"
        );
        let lineage = Lineage::of(&all, history(2)).unwrap();
        assert_eq!(lineage.gaps(), []);
        let kept: Vec<&str> = lineage.logs_behind(Lsn(20)).collect();
        assert_eq!(kept, ["2/log-21-24", "2/log-25-34", "2/log-35-50"]);
    }
}

/// Its founder held more than it knew to be committed, and has put nothing of that yet.
#[test]
fn a_history_that_was_only_founded_is_not_all_there() {
    let first = log(Link::default(), 2, 40);
    let one = entry(1, vec![], pieces(1, &first, &[(1, 40)]));
    let mut two = entry(2, vec![], vec![]);
    two.ancestors = vec![Ancestor {
        history: history(1),
        shared: Lsn(20),
        end: Lsn(30),
    }];
    let all = catalogue(vec![one, two]);
    let refused = show(&all, Target::Latest);
    assert!(
        refused.contains("points are lsn:20") && refused.ends_with("the newest known is lsn:30"),
        "{refused}"
    );
    assert_eq!(
        show(&all, Target::Lsn(Lsn(20))),
        "from nothing: 1/log-1-40 through 20"
    );
    let lineage = Lineage::of(&all, history(2)).unwrap();
    assert_eq!(lineage.gaps().len(), 1);
    assert_eq!(lineage.newest().unwrap().lsn, Lsn(20));
    // Another one was founded at what could be restored: the second will put nothing any more.
    let mut three = entry(3, vec![], vec![]);
    three.ancestors = [1, 2]
        .map(|past| Ancestor::at(history(past), Lsn(20)))
        .to_vec();
    let all = catalogue([all.histories, vec![three]].concat());
    for generation in 1..=3 {
        let lineage = Lineage::of(&all, history(generation)).unwrap();
        assert_eq!(lineage.gaps(), [], "{generation}");
    }
    let ended = plan(&all, Some(history(2)), Target::Latest).unwrap_err();
    let held = lineage_of(&all, 2).newest().unwrap();
    assert_eq!(ended, Unmet::Expired { newest: held });
}

fn lineage_of(all: &Catalogue, generation: u64) -> Lineage<'_> {
    Lineage::of(all, history(generation)).unwrap()
}

/// Three histories: 1 up to 30 is 2's past; 3 went back to 25, behind that fork and inside a
/// record.
#[test]
fn a_history_owns_the_log_of_its_ancestors_up_to_the_forks() {
    let first = log(Link::default(), 2, 40);
    let second = log(link_at(&first, 30), 2, 50);
    let fork = first.iter().find(|r| r.last_lsn() == Lsn(26)).unwrap();
    let third = log(crate::object::link_inside(fork, Lsn(25)), 2, 45);
    let mut two = entry(2, vec![], pieces(2, &second, &[(31, 50)]));
    two.ancestors = vec![Ancestor::at(history(1), Lsn(30))];
    let mut three = entry(3, vec![], pieces(3, &third, &[(26, 45)]));
    let forks = [(1, 30), (2, 25)];
    three.ancestors = forks
        .map(|(g, lsn)| Ancestor::at(history(g), Lsn(lsn)))
        .to_vec();
    let snapshots = vec![snapshot(link_at(&first, 20)), snapshot(link_at(&first, 28))];
    let one = entry(1, snapshots, pieces(1, &first, &[(1, 40)]));
    let all = catalogue(vec![one, two, three]);
    // They have ended, and nothing says where.
    for generation in [1, 2] {
        let plan = plan(&all, Some(history(generation)), Target::Latest);
        assert!(matches!(plan, Err(Unmet::Expired { .. })), "{plan:?}");
    }
    let of = |generation, target| {
        let plan = plan(&all, Some(history(generation)), target).unwrap();
        let start = plan.snapshot.map(|s| s.link.position.lsn.0);
        let steps = plan.steps.iter().map(|s| (s.path.clone(), s.through.0));
        (start, steps.collect::<Vec<_>>())
    };
    let step = |path: &str, through| (path.to_string(), through);
    assert_eq!(
        of(1, Target::Lsn(Lsn(40))),
        (Some(28), vec![step("1/log-1-40", 40)])
    );
    assert_eq!(
        of(2, Target::Lsn(Lsn(50))),
        (
            Some(28),
            vec![step("1/log-1-40", 30), step("2/log-31-50", 50)]
        )
    );
    assert_eq!(
        of(3, Target::Latest),
        (
            Some(20),
            vec![step("1/log-1-40", 25), step("3/log-26-45", 45)]
        )
    );
    assert_eq!(
        of(3, Target::Lsn(Lsn(25))),
        (Some(20), vec![step("1/log-1-40", 25)])
    );
    assert_eq!(newest_history(&all), Ok(history(3)));
    let lineage = Lineage::of(&all, history(3)).unwrap();
    assert_eq!(lineage.newest().unwrap().lsn, Lsn(45));
    assert_eq!(lineage.gaps(), []);
}

#[test]
fn two_histories_of_one_generation_have_to_be_chosen_from() {
    let twin = HistoryEntry {
        history: History {
            generation: 2,
            id: 5,
        },
        ..entry(2, vec![], vec![])
    };
    let both = catalogue(vec![
        entry(1, vec![], vec![]),
        twin.clone(),
        entry(2, vec![], vec![]),
    ]);
    assert_eq!(
        plan(&both, None, Target::Latest),
        Err(Unmet::Ambiguous(vec![twin.history, history(2)]))
    );
}

/// A snapshot every quarter of an hour, a piece of log a second: what was kept of the ways of a month
/// would else be a thousand times the log's own list.
#[test]
fn snapshots_on_one_way_share_it() {
    let all = log(Link::default(), 2, 400);
    let ranges: Vec<(u64, u64)> = (0..40).map(|n| (n * 10 + 1, n * 10 + 10)).collect();
    // Some stand between two pieces, some inside of one.
    let at: Vec<u64> = (1..40).map(|n| n * 10 + n % 2 * 4).collect();
    let snapshots = at.iter().map(|lsn| snapshot(link_at(&all, *lsn)));
    let one = entry(1, snapshots.collect(), pieces(1, &all, &ranges));
    let all = catalogue(vec![one]);
    let lineage = Lineage::of(&all, history(1)).unwrap();
    let reaches = lineage.reaches();
    assert_eq!(reaches.len(), 40);
    for reach in &reaches {
        assert!(Rc::ptr_eq(&reach.way, &reaches[0].way));
        let (first, from) = (&reach.steps()[0].head, reach.from.lsn);
        let begins = first.first_lsn <= from.next() && first.last_lsn() > from;
        assert!(begins || reach.snapshot.is_none(), "{from}: {first:?}");
        assert_eq!(reach.to.lsn, Lsn(400));
    }
}
