//! Puts and removals that run side by side, call by call in every order, stopped and killed
//! anywhere: no snapshot is ever there without its segments.

use super::marks::Mark;
use super::*;
use crate::catalogue::read;
use crate::fixtures::{CLUSTER, card, link_at, log, snapshot_with};
use crate::read::Reader;
use crate::retention::{Policy, expire};
use crate::segment;
use crate::store::{Listed, Listing, Memory};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};

/// Who may make the next call of the store, and what the others wait for.
#[derive(Default)]
struct Turns {
    /// The one whose turn it is.
    turn: Option<usize>,
    /// Those that wait for their turn.
    waiting: BTreeSet<usize>,
    /// Those that are through.
    ended: BTreeSet<usize>,
    /// The calls of these fail from now on, undone: they have died.
    dead: BTreeSet<usize>,
}

#[derive(Default)]
struct Table(Mutex<Turns>, Condvar);

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl Table {
    /// Waits for the turn of `who`; false where it has died.
    fn wait(&self, who: usize) -> bool {
        let mut turns = self.0.lock().unwrap();
        turns.waiting.insert(who);
        self.1.notify_all();
        let mine = |turns: &mut Turns| turns.turn != Some(who) && !turns.dead.contains(&who);
        let mut turns = self.1.wait_while(turns, mine).unwrap();
        turns.waiting.remove(&who);
        if turns.turn == Some(who) {
            turns.turn = None;
        }
        !turns.dead.contains(&who)
    }

    fn end(&self, who: usize) {
        self.0.lock().unwrap().ended.insert(who);
        self.1.notify_all();
    }

    /// Lets `who` make one call, and waits until it wants the next or is through.
    fn grant(&self, who: usize) {
        let mut turns = self.0.lock().unwrap();
        turns.turn = Some(who);
        self.1.notify_all();
        let busy = |turns: &mut Turns| {
            turns.turn.is_some() || !(turns.waiting.contains(&who) || turns.ended.contains(&who))
        };
        drop(self.1.wait_while(turns, busy).unwrap());
    }

    /// Those that wait, once `count` of them wait or are through.
    fn ready(&self, count: usize) -> Vec<usize> {
        let turns = self.0.lock().unwrap();
        let busy = |turns: &mut Turns| turns.waiting.union(&turns.ended).count() < count;
        let turns = self.1.wait_while(turns, busy).unwrap();
        turns.waiting.iter().copied().collect()
    }

    fn kill(&self, who: usize) {
        self.0.lock().unwrap().dead.insert(who);
        self.1.notify_all();
        let turns = self.0.lock().unwrap();
        drop(
            self.1
                .wait_while(turns, |turns| !turns.ended.contains(&who))
                .unwrap(),
        );
    }
}

/// One's view of the store: each call waits for its turn.
#[derive(Debug)]
struct Seat {
    memory: Arc<Memory>,
    table: Arc<Table>,
    who: usize,
}

impl Seat {
    fn call<T>(&self, call: impl FnOnce(&Memory) -> io::Result<T>) -> io::Result<T> {
        match self.table.wait(self.who) {
            true => call(&self.memory),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "dead")),
        }
    }
}

impl Store for Seat {
    fn place(&self, name: &str) -> String {
        name.to_string()
    }
    fn put_if_absent(&self, name: &str, bytes: &Bytes) -> io::Result<bool> {
        self.call(|memory| memory.put_if_absent(name, bytes))
    }
    fn replace(&self, name: &str, bytes: &Bytes) -> io::Result<()> {
        self.call(|memory| memory.replace(name, bytes))
    }
    fn get(&self, name: &str) -> io::Result<Bytes> {
        self.call(|memory| memory.get(name))
    }
    // What heads are read by tells of one object that never changes: no turn of its own.
    fn get_range(&self, name: &str, offset: u64, len: u64) -> io::Result<Bytes> {
        self.memory.get_range(name, offset, len)
    }
    fn length(&self, name: &str) -> io::Result<u64> {
        self.memory.length(name)
    }
    fn list(&self, name: &str) -> io::Result<Listing> {
        self.call(|memory| memory.list(name))
    }
    fn list_behind(&self, name: &str, behind: &str) -> io::Result<Vec<Listed>> {
        self.call(|memory| memory.list_behind(name, behind))
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.call(|memory| memory.delete(name))
    }
    fn readers(&self) -> usize {
        1
    }
}

/// Numbers that look drawn at random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Snapshots that are to be put, and an archive in which one is already, and a segment besides that
/// both need and a put that died has left.
struct Scene {
    names: Vec<(String, Bytes)>,
    paths: Vec<std::path::PathBuf>,
    needs: BTreeMap<u64, Vec<String>>,
    _scratch: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let scratch = tempfile::tempdir().unwrap();
        let records = log(Link::default(), 2, 80);
        let segment = |n: u8| vec![n; 3000];
        let of = |lsn, numbers: &[u8]| {
            let all: Vec<Vec<u8>> = numbers.iter().map(|n| segment(*n)).collect();
            let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
            let path = snapshot_with(scratch.path(), link_at(&records, lsn), &all);
            let named = Reader::open(&path).unwrap().segments().unwrap();
            (path, named)
        };
        let snapshots = [
            (20, of(20, &[1, 2])),
            (40, of(40, &[2, 3])),
            (60, of(60, &[3, 2, 4])),
        ];
        let memory = Arc::new(Memory::default());
        let store: Shared = memory.clone();
        let (_, first) = &snapshots[0];
        ship(
            &store,
            &card(1, &[]),
            Some(&first.0),
            records.iter().cloned().map(Ok),
        )
        .unwrap();
        let (shipper, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
        let left = &snapshots[1].1.1[1];
        let dir = catalogue::segments_beside(&shipper.dir, None);
        let bytes = segment::open_at(scratch.path(), left).unwrap();
        store
            .put_if_absent(&join(&dir, &left.name()), &bytes)
            .unwrap();
        let needs = snapshots.iter().map(|(lsn, (_, named))| {
            let paths = named.iter().map(|one| join(&dir, &one.name()));
            (*lsn, paths.collect())
        });
        Scene {
            needs: needs.collect(),
            names: memory
                .names()
                .into_iter()
                .map(|name| {
                    let bytes = memory.contents(&name).unwrap();
                    (name, bytes)
                })
                .collect(),
            paths: snapshots
                .into_iter()
                .map(|(_, (path, _))| path)
                .skip(1)
                .collect(),
            _scratch: scratch,
        }
    }

    fn memory(&self) -> Arc<Memory> {
        let memory = Memory::default();
        for (name, bytes) in &self.names {
            assert!(memory.put_if_absent(name, bytes).unwrap());
        }
        Arc::new(memory)
    }

    /// Which snapshot is there without which segment.
    fn broken(&self, memory: &Memory) -> Option<String> {
        let names: BTreeSet<String> = memory.names().into_iter().collect();
        let dir = catalogue::history_dir(CLUSTER, card(1, &[]).history);
        let there = self.needs.iter().filter(|(lsn, _)| {
            let name = catalogue::snapshot_name(Lsn(**lsn));
            names.contains(&join(&dir, &name))
        });
        let mut needed = there.flat_map(|(lsn, needs)| needs.iter().map(move |path| (lsn, path)));
        let (lsn, path) = needed.find(|(_, path)| !names.contains(*path))?;
        Some(format!("snapshot {lsn} lacks {path}"))
    }

    /// Two that put (0 and 1) and two that remove (2 and 3) call in an order of `choose`'s, among
    /// those that wait; who is answered as `true` dies. Answers how many puts and removals were
    /// through.
    fn run(&self, story: &str, mut choose: impl FnMut(&[usize]) -> (usize, bool)) -> [usize; 2] {
        let memory = self.memory();
        let table = Arc::new(Table::default());
        let seat = |who| -> Shared {
            let (memory, table) = (memory.clone(), table.clone());
            Arc::new(Seat { memory, table, who })
        };
        let put = |who: usize| {
            let store = seat(who);
            let card = card(1, &[]);
            let (shipper, _) = Shipper::open(&store, &card, &Recipients::default())?;
            shipper.put_snapshot(&self.paths[who]).map(drop)
        };
        let go = |who: usize| {
            let policy = Policy {
                keep_full: 1,
                keep_for_ns: 0,
            };
            let store = seat(who);
            let listed = read(&store, CLUSTER)?;
            let expiry = expire(&listed, policy, u64::MAX);
            remove(&store, &listed, &expiry, who as u128, &|| true).map(drop)
        };
        let through = Mutex::new([0; 2]);
        let mut broken = None;
        std::thread::scope(|scope| {
            for who in 0..4 {
                let (table, through) = (&table, &through);
                scope.spawn(move || {
                    let result: Result<()> = if who < 2 { put(who) } else { go(who) };
                    through.lock().unwrap()[who / 2] += usize::from(result.is_ok());
                    table.end(who);
                });
            }
            loop {
                let waiting = table.ready(4);
                if waiting.is_empty() {
                    break;
                }
                match choose(&waiting) {
                    (who, true) => table.kill(who),
                    (who, false) => table.grant(who),
                }
                if let Some(what) = self.broken(&memory) {
                    broken = Some(what);
                    (0..4).for_each(|who| table.kill(who));
                    break;
                }
            }
        });
        assert_eq!(broken, None, "{story}");
        through.into_inner().unwrap()
    }
}

#[test]
fn no_snapshot_is_ever_without_its_segments_in_whatever_order_calls_are_made() {
    let scene = Scene::new();
    let (mut through, runs) = ([0, 0], 300);
    for seed in 1..=runs {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let dies = seed % 3 == 0;
        let mut favourite = 0;
        let ended = scene.run(&format!("seed {seed}"), |waiting| {
            // Long stretches of one, as where others are stopped.
            if dice.below(6) == 0 {
                favourite = dice.below(4);
            }
            let is_there = waiting.contains(&favourite);
            let who = if is_there {
                favourite
            } else {
                waiting[dice.below(waiting.len())]
            };
            (who, dies && dice.below(60) == 0)
        });
        through = [through[0] + ended[0], through[1] + ended[1]];
    }
    assert!(
        through[0] > 200 && through[1] > 400,
        "{through:?} of {runs}"
    );
}

#[test]
fn whoever_is_stopped_before_any_of_its_calls_finds_nothing_broken_when_it_goes_on() {
    let scene = Scene::new();
    // One is stopped before its n-th call; the others are through before it goes on.
    for stopped in 0..4 {
        for n in 0.. {
            let mut calls = 0;
            let mut has_stopped = false;
            scene.run(&format!("{stopped} stopped at its call {n}"), |waiting| {
                let others: Vec<usize> = waiting
                    .iter()
                    .copied()
                    .filter(|who| *who != stopped)
                    .collect();
                let is_waiting = others.len() < waiting.len();
                if is_waiting && (calls < n || others.is_empty()) {
                    calls += 1;
                    return (stopped, false);
                }
                has_stopped |= is_waiting;
                (others[0], false)
            });
            if !has_stopped || calls <= n {
                break;
            }
        }
    }
}

#[test]
fn a_put_waits_for_an_expiry_and_not_for_one_that_has_died() {
    let scene = Scene::new();
    let memory = scene.memory();
    let store: Shared = memory.clone();
    let (shipper, _) = Shipper::open(&store, &card(1, &[]), &Recipients::default()).unwrap();
    let dir = catalogue::segments_beside(&shipper.dir, None);
    let left = scene.needs[&40]
        .iter()
        .find(|path| path.starts_with(&dir))
        .unwrap();
    memory.set_time(1_000);
    let going = BTreeSet::from([left.clone()]);
    Mark::removal(&store, CLUSTER, 7, &going).unwrap();
    for _ in 0..2 {
        let error = shipper.put_snapshot(&scene.paths[0]).unwrap_err();
        assert!(matches!(error.reason, Reason::Going), "{error}");
    }
    let day = u64::try_from(MARK_FOR.as_nanos()).unwrap();
    memory.set_time(day + 2_000);
    shipper.put_snapshot(&scene.paths[0]).unwrap();
    let dir = catalogue::marks_dir(CLUSTER);
    assert_eq!(store.list(&dir).unwrap().objects.len(), 1);
    // The next expiry but one sweeps it.
    memory.set_time(day * 3);
    let policy = Policy {
        keep_full: 1,
        keep_for_ns: 0,
    };
    let listed = read(&store, CLUSTER).unwrap();
    let expiry = expire(&listed, policy, u64::MAX);
    assert!(!expiry.segments.is_empty());
    let late = remove(&store, &listed, &expiry, 8, &|| false).unwrap_err();
    assert!(matches!(late.reason, Reason::Late), "{late}");
    assert_eq!(
        remove(&store, &listed, &expiry, 9, &|| true).unwrap(),
        expiry
    );
    let left = store.list(&dir).unwrap().objects;
    assert!(left.is_empty(), "{left:?}");
}
