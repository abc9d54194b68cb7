//! Snapshots and their segments on disks that tear, forget and rot, and between two nodes.

use super::*;
use crate::node::directory::sim::SimDir;
use crate::node::parcel::{Arriving, Outgoing};
use crate::state::Command;
use crate::state::command::{Batch, BatchForm, push};
use crate::state::ledger::{Account, Transfer};
use bytes::BytesMut;
use standfast_wal::{Epoch, History, Kind, Link, NodeId, Record};

const CLUSTER: ClusterId = ClusterId(77);
const OPTIONS: Options = Options {
    threads: 0,
    level: 1,
    in_flight_max: 4,
};

/// A node's state on its way through a log of transfers.
struct Books {
    state: State,
    link: Link,
    accounts: u128,
    transfers: u128,
}

impl Books {
    fn new<D: Directory>(dir: &D) -> Books {
        Books::with_accounts(dir, 2)
    }

    fn with_accounts<D: Directory>(dir: &D, accounts: u128) -> Books {
        let mut books = Books {
            state: State::new(limits_of(dir, CLUSTER)),
            link: Link::default(),
            accounts,
            transfers: 0,
        };
        let account = |id| Account {
            id,
            ledger: 1,
            code: 1,
            ..Account::default()
        };
        for first in (1..=accounts).step_by(8000) {
            let ids = first..=accounts.min(first + 7999);
            let events: Vec<[u8; 128]> = ids.map(|id| account(id).encode()).collect();
            books.apply(&Command::CreateAccounts(batch(events.concat())));
        }
        books
    }

    fn apply(&mut self, command: &Command) {
        let (mut encoded, mut payload) = (BytesMut::new(), BytesMut::new());
        command.encode(&mut encoded);
        push(&mut payload, &encoded);
        let timestamp = self.link.timestamp + 1_000_000;
        let record = Record::build(self.link, Kind::Commands, Epoch(1), timestamp, 1, &payload);
        self.state.apply(&record, |_, _| {});
        self.link = record.link();
    }

    fn transfer(&mut self, count: u128) {
        let events = (self.transfers + 1..=self.transfers + count).map(|id| {
            let debit = id * 7919 % self.accounts + 1;
            let transfer = Transfer {
                id,
                debit_account_id: debit,
                credit_account_id: debit % self.accounts + 1,
                amount: id,
                ledger: 1,
                code: 1,
                ..Transfer::default()
            };
            transfer.encode()
        });
        let events: Vec<[u8; 128]> = events.collect();
        self.apply(&Command::CreateTransfers(batch(events.concat())));
        self.transfers += count;
    }

    /// Takes a snapshot as the node does; where it comes to nothing, why.
    fn snapshot<D: Directory>(&mut self, dir: &D) -> Result<Lsn, String> {
        self.snapshot_claimed(dir, Some(()))
    }

    fn snapshot_claimed<D: Directory>(
        &mut self,
        dir: &D,
        claim: Option<()>,
    ) -> Result<Lsn, String> {
        let head = self.state.begin_snapshot();
        let segments = self.state.segments();
        let mut blocks = Vec::new();
        while !self.state.snapshot_step(1 << 20, &mut blocks) {}
        let header = Header {
            cluster: CLUSTER,
            cluster_name: "books".to_string(),
            node: NodeId(1),
            history: History {
                generation: 1,
                id: 1,
            },
            ancestors: Vec::new(),
            link: self.link,
            digest: head.digest.0,
            counts: [head.keys, head.tokens, 0, 0],
            epoch_table: Bytes::new(),
            state_head: Bytes::new(),
        };
        let mut writer = begin(dir, &header, OPTIONS)?;
        for block in blocks {
            writer
                .push_now(file_block(block))
                .map_err(|e| e.to_string())?;
        }
        let kept = |kept: Kept| {
            self.state
                .keep_segment(&kept.segment, kept.mapped, kept.blake3);
        };
        finish(dir, writer, (head.lsn, &[]), segments, kept, || claim)?;
        Ok(head.lsn)
    }
}

fn batch(events: Vec<u8>) -> Batch {
    Batch {
        events: events.into(),
        form: BatchForm::Results,
    }
}

fn load_at<D: Directory>(dir: &D, lsn: Lsn) -> standfast_snapshot::Result<State> {
    let storage = dir.snapshots().expect("it is in memory");
    let reader = Reader::open_in(&storage, &name_of(lsn))?;
    load_in(dir, &reader, CLUSTER).map(|(_, state)| state)
}

/// Names and lengths of the segments of a directory.
fn segments_of(dir: &SimDir) -> Vec<(String, u64)> {
    let files = dir.snapshots.files().into_iter();
    files
        .filter(|(name, _)| name.starts_with("segment-"))
        .collect()
}

/// What a ledger of tens of millions of transfers costs, on a real disk, with `ROUNDS=5` and
/// `ACCOUNTS=1000000` in the environment:
/// `cargo test --release -p standfast --lib -- --ignored --nocapture tens_of_millions`.
#[test]
#[ignore = "measures, and takes gigabytes of disk; run it in release"]
fn tens_of_millions_of_transfers() {
    use crate::node::directory::DataDir;
    let asked = |name: &str, usual: u128| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (rounds, accounts) = (asked("ROUNDS", 1), asked("ACCOUNTS", 1_000_000));
    let scratch = tempfile::tempdir().expect("a directory");
    let dir = DataDir(scratch.path().to_path_buf());
    let mut books = Books::with_accounts(&dir, accounts);
    for round in 1..=rounds {
        let spent = Spent::begin();
        for _ in 0..1250 {
            books.transfer(8000);
        }
        let heap = books.state.used_bytes() >> 20;
        println!("{round}0 M transfers, 10 M in {spent}, heap {heap} MB");
        let spent = Spent::begin();
        let lsn = books.snapshot(&dir).expect("a sound disk");
        let file = open(&dir, lsn).expect("a sound disk").file_bytes() >> 20;
        let heap = books.state.used_bytes() >> 20;
        println!("  snapshot of {file} MB in {spent}, heap {heap} MB after it");
        let spent = Spent::begin();
        let loaded = load_at(&dir, lsn).expect("it was written just now");
        println!("  loaded in {spent}");
        assert_eq!(loaded.digest(), books.state.digest());
        let spent = Spent::begin();
        drop(loaded);
        println!("  dropped in {spent}");
    }
}

/// Time that passed, and that of all processors that this process had.
struct Spent([std::time::Duration; 2]);

impl Spent {
    fn begin() -> Spent {
        Spent(Spent::clocks())
    }

    fn clocks() -> [std::time::Duration; 2] {
        use rustix::time::{ClockId, clock_gettime};
        [ClockId::Monotonic, ClockId::ProcessCPUTime].map(|clock| {
            let time = clock_gettime(clock);
            std::time::Duration::try_from(time).expect("it counts from 0")
        })
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now = Spent::clocks();
        let [wall, processors] = [0, 1].map(|at| (now[at] - self.0[at]).as_secs_f64());
        write!(f, "{wall:.2} s ({processors:.2} s of processors)")
    }
}

#[test]
fn a_segment_is_written_once_and_every_snapshot_is_whole() {
    let dir = SimDir::new(1);
    let mut books = Books::new(&dir);
    let mut before: Vec<(String, u64)> = Vec::new();
    for round in 0..6 {
        books.transfer(40);
        let operations = dir.snapshots.operations();
        let lsn = books.snapshot(&dir).expect("a sound disk");
        let now = segments_of(&dir);
        assert!(before.iter().all(|old| now.contains(old)), "none has gone");
        assert_eq!(now.len() as u128, books.transfers / 16);
        // What a snapshot costs is what came since the one before.
        let cost = dir.snapshots.operations() - operations;
        assert!(cost < 60, "round {round}: {cost} operations");
        before = now;
        let loaded = load_at(&dir, lsn).expect("it was written just now");
        loaded.check();
        assert_eq!(loaded.digest(), books.state.digest());
        if round == 3 {
            // As after a start: the state goes on from what the files hold.
            books.state = loaded;
        }
    }
}

#[test]
fn a_crash_at_any_point_leaves_a_whole_snapshot_or_the_one_before() {
    for halt in 0..80 {
        let mut dir = SimDir::new(halt);
        let mut books = Books::new(&dir);
        books.transfer(40);
        let first = books.snapshot(&dir).expect("a sound disk");
        let (digest, link) = (books.state.digest(), books.link);
        books.transfer(60);
        dir.snapshots.halt_after(halt);
        let second = books.snapshot(&dir);
        dir.crash();
        let found = candidates(&dir.snapshots).expect("a sound disk");
        let (newest, _) = found[0];
        let loaded = load_at(&dir, newest).expect("what has a name is whole");
        loaded.check();
        match second {
            Ok(lsn) => assert_eq!((newest, loaded.digest()), (lsn, books.state.digest())),
            Err(_) if newest == first => assert_eq!(loaded.digest(), digest),
            // It had its name already.
            Err(_) => assert_eq!(loaded.digest(), books.state.digest()),
        }
        // The next one goes on from whatever the crash left.
        let is_first = newest == first;
        books = Books {
            state: loaded,
            link: if is_first { link } else { books.link },
            accounts: 2,
            transfers: if is_first { 40 } else { 100 },
        };
        books.transfer(20);
        let lsn = books.snapshot(&dir).expect("a sound disk");
        let again = load_at(&dir, lsn).expect("it was written just now");
        assert_eq!(again.digest(), books.state.digest());
    }
}

#[test]
fn a_damaged_or_lost_segment_is_found_and_named() {
    let dir = SimDir::new(3);
    let mut books = Books::new(&dir);
    books.transfer(100);
    let lsn = books.snapshot(&dir).expect("a sound disk");
    assert_eq!(scrub(&dir, &mut || ()), None);
    for (name, len) in segments_of(&dir) {
        for offset in [0, len / 2, len - 1] {
            dir.snapshots.flip(&name, offset, 1);
            let error = load_at(&dir, lsn).expect_err("a bit has flipped");
            assert!(
                error.is_damage() && error.to_string().contains(&name),
                "{error}"
            );
            let story = scrub(&dir, &mut || ()).expect("a bit has flipped");
            assert!(story.contains(&name), "{story}");
            dir.snapshots.flip(&name, offset, 1);
        }
    }
    assert!(load_at(&dir, lsn).is_ok());
    let (name, _) = segments_of(&dir).remove(2);
    dir.snapshots.lose(&name);
    let error = load_at(&dir, lsn).expect_err("a segment is not there");
    assert!(
        error.is_damage() && error.to_string().contains(&name),
        "{error}"
    );
    assert!(scrub(&dir, &mut || ()).is_some());
}

/// Sends the snapshot at `lsn` from one node to another; gives the bytes that went.
fn send(from: &SimDir, to: &SimDir, lsn: Lsn, stop: Option<usize>) -> Result<u64, String> {
    let sent = deliver(from, to, lsn, stop)?;
    adopt(to, lsn).map_err(|error| error.to_string())?;
    Ok(sent)
}

/// The snapshot waits for the receiver's log then.
fn deliver(from: &SimDir, to: &SimDir, lsn: Lsn, stop: Option<usize>) -> Result<u64, String> {
    let total = open(from, lsn)?.file_bytes();
    let (mut arriving, have) = Arriving::begin(to.clone(), CLUSTER, lsn, total)?;
    let mut outgoing = Outgoing::open(from, lsn, &have)?;
    let (mut sent, mut pieces) = (0, 0);
    let mut is_whole = false;
    while let Some((offset, bytes)) = outgoing.next_piece(700)? {
        assert!(!is_whole, "nothing comes behind the end");
        if stop == Some(pieces) {
            return Err("the connection broke".to_string());
        }
        is_whole = arriving.push(offset, &bytes)?;
        sent += bytes.len() as u64;
        pieces += 1;
    }
    assert!(is_whole, "what was sent is all");
    let (_, state) = arriving.finish()?;
    state.check();
    Ok(sent)
}

#[test]
fn a_receiver_is_sent_only_the_segments_that_it_lacks() {
    let (from, to) = (SimDir::new(4), SimDir::new(5));
    let mut books = Books::new(&from);
    books.transfer(200);
    let lsn = books.snapshot(&from).expect("a sound disk");
    let whole = send(&from, &to, lsn, None).expect("a sound link");
    assert!(whole > 12 * 16 * 160, "{whole} bytes");
    books.transfer(20);
    let lsn = books.snapshot(&from).expect("a sound disk");
    let more = send(&from, &to, lsn, None).expect("a sound link");
    assert!(more < whole / 4, "{more} of {whole} bytes");
    assert_eq!(segments_of(&from), segments_of(&to));
    let received = load_at(&to, lsn).expect("it was adopted");
    assert_eq!(received.digest(), books.state.digest());
}

#[test]
fn what_came_before_a_break_is_not_sent_again() {
    let (from, to) = (SimDir::new(6), SimDir::new(7));
    let mut books = Books::new(&from);
    books.transfer(200);
    let lsn = books.snapshot(&from).expect("a sound disk");
    let broken = send(&from, &to, lsn, Some(30));
    assert_eq!(broken, Err("the connection broke".to_string()));
    assert!(segments_of(&to).len() > 3);
    let rest = send(&from, &to, lsn, None).expect("a sound link");
    assert!(rest < 12 * 16 * 160 - 3 * 16 * 160, "{rest} bytes");
}

#[test]
fn a_receivers_segment_that_is_damaged_or_cannot_be_read_is_sent_again() {
    let (from, to) = (SimDir::new(8), SimDir::new(9));
    let mut books = Books::new(&from);
    books.transfer(100);
    let lsn = books.snapshot(&from).expect("a sound disk");
    send(&from, &to, lsn, None).expect("a sound link");
    let (damaged, _) = segments_of(&to).remove(1);
    to.snapshots.flip(&damaged, 100, 2);
    let (unreadable, _) = segments_of(&to).remove(2);
    to.snapshots.make_unreadable(&unreadable, 100..101);
    books.transfer(100);
    let lsn = books.snapshot(&from).expect("a sound disk");
    send(&from, &to, lsn, None).expect("both are replaced");
    assert_eq!(scrub(&to, &mut || ()), None);
}

#[test]
fn a_senders_damaged_segment_is_not_sent_and_the_next_snapshot_writes_it_again() {
    let (from, to) = (SimDir::new(12), SimDir::new(13));
    let mut books = Books::new(&from);
    books.transfer(100);
    let lsn = books.snapshot(&from).expect("a sound disk");
    let (name, _) = segments_of(&from).remove(1);
    from.snapshots.flip(&name, 100, 2);
    let refused = send(&from, &to, lsn, None).expect_err("a segment is damaged");
    assert!(refused.contains(&name), "{refused}");
    let lsn = books.snapshot(&from).expect("a sound disk");
    send(&from, &to, lsn, None).expect("it has a new file");
    assert_eq!(scrub(&from, &mut || ()), None);
}

#[test]
fn a_snapshot_that_was_given_up_gets_no_name_and_takes_nothing_away() {
    let dir = SimDir::new(14);
    let mut books = Books::new(&dir);
    books.transfer(100);
    // The next one's, which has no name yet.
    let storage = dir.snapshots().expect("it is in memory");
    let next = SegmentRef::of(0, 7, b"of the next one");
    segment::write(&storage, &next, b"of the next one").expect("a sound disk");
    let given_up = books.snapshot_claimed(&dir, None);
    assert_eq!(given_up, Err("it was given up".to_string()));
    assert_eq!(list(&storage).expect("a sound disk"), []);
    segment::open(&storage, &next).expect("it is still there");
    books.snapshot(&dir).expect("a sound disk");
    segment::open(&storage, &next).expect_err("no snapshot names it");
}

#[test]
fn an_own_snapshot_leaves_the_segments_of_one_that_waits() {
    let (from, to) = (SimDir::new(12), SimDir::new(13));
    let mut theirs = Books::new(&from);
    theirs.transfer(100);
    theirs.transfer(100);
    let lsn = theirs.snapshot(&from).expect("a sound disk");
    deliver(&from, &to, lsn, None).expect("a sound link");
    let mut own = Books::with_accounts(&to, 3);
    own.transfer(100);
    own.snapshot(&to).expect("a sound disk");
    adopt(&to, lsn).expect("a sound disk");
    let adopted = load_at(&to, lsn).expect("none of its segments has gone");
    assert_eq!(adopted.digest(), theirs.state.digest());
}

#[test]
fn segments_that_no_snapshot_names_go() {
    let (dir, other) = (SimDir::new(10), SimDir::new(11));
    let mut books = Books::new(&dir);
    books.transfer(100);
    books.snapshot(&dir).expect("a sound disk");
    // Another history of the same length replaces it: segments of other bytes.
    let mut theirs = Books::new(&other);
    theirs.transfer(7);
    theirs.transfer(200);
    theirs.transfer(1);
    let lsn = theirs.snapshot(&other).expect("a sound disk");
    send(&other, &dir, lsn, None).expect("a sound link");
    theirs.transfer(1);
    let lsn = theirs.snapshot(&other).expect("a sound disk");
    send(&other, &dir, lsn, None).expect("a sound link");
    assert_eq!(
        segments_of(&dir),
        segments_of(&other),
        "both snapshots are theirs"
    );
}
