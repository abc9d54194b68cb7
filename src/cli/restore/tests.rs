//! A restore gives the state that was, at every point there is, or says why not and leaves nothing.

mod past;
mod ways;

use super::*;
use crate::cli::backup::rfc3339;
use crate::node::meta;
use crate::node::open::state_limits;
use crate::node::shelf::{Contents, load_snapshot};
use crate::replication::EpochEntry;
use crate::state::{self, Attestation, Block, Command, State};
use bytes::{Bytes, BytesMut};
use standfast_snapshot::store::{Scratch, open};
use standfast_snapshot::verify::{Report, glance, verify};
use standfast_snapshot::{
    Card, Header, Identities, Options, Recipients, Shipper, Target, Writer, archive,
};
use standfast_wal::{Ancestor, Epoch, Kind, Record};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn stored(dir: &Path) -> Shared {
    open(dir.to_str().unwrap(), &Scratch::of_command()).unwrap()
}

const CLUSTER: ClusterId = ClusterId(0x1111_2222_3333_4444_5555_6666_7777_8888);
const FIRST: History = History {
    generation: 1,
    id: 10,
};

/// A primary that writes a log, and remembers the digest after every LSN.
struct Primary {
    history: History,
    state: State,
    link: Link,
    epochs: Vec<EpochEntry>,
    records: Vec<Record>,
    digests: BTreeMap<Lsn, Digest>,
}

impl Primary {
    fn new() -> Primary {
        let mut primary = Primary {
            history: FIRST,
            state: State::new(state_limits(CLUSTER)),
            link: Link::default(),
            epochs: Vec::new(),
            records: Vec::new(),
            digests: BTreeMap::new(),
        };
        primary.reign(1);
        primary
    }

    fn push(&mut self, epoch: u64, kind: Kind, count: u32, payload: &[u8]) {
        // The k-th LSN is ordered at k milliseconds.
        let timestamp = self.link.position.lsn.next().0 * 1_000_000;
        let record = Record::build(self.link, kind, Epoch(epoch), timestamp, count, payload);
        let mut lsns: Vec<Lsn> = Vec::new();
        self.state.apply(&record, |lsn, _| lsns.push(lsn));
        self.link = record.link();
        self.digests.insert(record.last_lsn(), self.state.digest());
        self.records.push(record);
    }

    fn reign(&mut self, epoch: u64) {
        let entry = EpochEntry {
            history: self.history,
            epoch: Epoch(epoch),
            nonce: Nonce(u128::from(epoch) + 100),
            primary: NodeId(1),
            first_lsn: self.link.position.lsn.next(),
        };
        let payload = entry.encode(self.link.position.epoch);
        self.epochs.push(entry);
        self.push(epoch, Kind::EpochStart, 1, &payload);
    }

    /// One record of `count` INCRBYs over a few keys.
    fn write(&mut self, count: u32) {
        let mut payload = BytesMut::new();
        for i in 0..count {
            let lsn = self.link.position.lsn.0 + u64::from(i);
            let command = Command::IncrBy {
                key: Bytes::from(format!("balance:{}", lsn % 7)),
                by: i64::try_from(lsn).unwrap(),
            };
            let mut encoded = BytesMut::new();
            command.encode(&mut encoded);
            state::command::push(&mut payload, &encoded);
        }
        let epoch = self.link.position.epoch.0;
        self.push(epoch, Kind::Commands, count, &payload);
    }

    fn attest(&mut self, digest: Digest) {
        let lsn = self.link.position.lsn;
        let payload = Attestation { lsn, digest }.encode();
        let epoch = self.link.position.epoch.0;
        self.push(epoch, Kind::Attestation, 1, &payload);
    }

    fn attest_truth(&mut self) {
        self.attest(self.state.digest());
    }

    /// Writes the state as the node does, and answers the file.
    fn snapshot(&mut self, dir: &Path) -> PathBuf {
        self.snapshot_of(dir, |_, _| ())
    }

    /// With what a memory that does not keep its bits makes of the blocks.
    fn snapshot_of(&mut self, dir: &Path, rot: impl FnOnce(&mut Header, &mut [Block])) -> PathBuf {
        let head = self.state.begin_snapshot();
        let epochs = crate::replication::EpochTable::new(self.epochs.clone());
        let mut header = Header {
            cluster: CLUSTER,
            cluster_name: "bank".to_owned(),
            node: NodeId(2),
            history: self.history,
            ancestors: Vec::new(),
            link: self.link,
            digest: head.digest.0,
            counts: [head.keys, head.tokens, 0, 0],
            epoch_table: postcard::to_stdvec(&epochs).unwrap().into(),
            state_head: Bytes::new(),
        };
        let path = dir.join(crate::node::shelf::name_of(head.lsn));
        let mut blocks = Vec::new();
        while !self.state.snapshot_step(64, &mut blocks) {}
        rot(&mut header, &mut blocks);
        let mut writer = Writer::create(&path, &header, Options::default()).unwrap();
        for block in blocks {
            writer.push(crate::node::shelf::file_block(block)).unwrap();
        }
        writer.publish().unwrap();
        path
    }
}

/// What a proof of all of the archive there finds.
fn proved(dir: &Path) -> Report {
    let (store, contents) = (stored(dir), Contents::of(CLUSTER));
    verify(&store, CLUSTER, 2, &Identities::default(), &contents).unwrap()
}

fn card(history: History, ancestors: &[(History, u64)]) -> Card {
    Card {
        cluster: CLUSTER,
        cluster_name: "bank".to_owned(),
        history,
        ancestors: ancestors
            .iter()
            .map(|(past, fork)| Ancestor::at(*past, Lsn(*fork)))
            .collect(),
    }
}

fn ship(dir: &Path, card: &Card, snapshot: Option<&Path>, records: &[Record]) {
    let records = records.iter().cloned().map(Ok);
    archive::ship(&stored(dir), card, snapshot, records).unwrap();
}

/// Two epochs, 43 LSNs, attestations at 13, 24 and 41, a snapshot at 24, in several pieces.
fn build(dir: &Path) -> Primary {
    build_with(dir, |_, _| ())
}

fn build_with(dir: &Path, rot: impl FnOnce(&mut Header, &mut [Block])) -> Primary {
    let mut primary = Primary::new();
    primary.write(5);
    primary.write(6);
    primary.attest_truth();
    primary.write(9);
    primary.reign(2);
    primary.attest_truth();
    let archive = dir.join("archive");
    ship(&archive, &card(FIRST, &[]), None, &primary.records[..4]);
    let snapshot = primary.snapshot_of(dir, rot);
    ship(
        &archive,
        &card(FIRST, &[]),
        Some(&snapshot),
        &primary.records,
    );
    for count in [1, 7, 8] {
        primary.write(count);
    }
    primary.attest_truth();
    primary.write(2);
    ship(&archive, &card(FIRST, &[]), None, &primary.records);
    primary
}

fn order(dir: &Path, target: impl Into<Aim>) -> Order {
    Order {
        source: Source {
            from: stored(&dir.join("archive")),
            identities: Identities::default(),
            target: target.into(),
            cluster: None,
            history: None,
            threads: 2,
            segment_shift: crate::state::SEGMENT_SHIFT,
        },
        to: dir.join("restored"),
        node: NodeId(4),
        member: Member {
            incarnation: Incarnation(77),
            role: MemberRole::Data,
            site: String::new(),
            priority: 100,
            addresses: Addresses::default(),
        },
        activate: false,
        resumable: false,
        history_id: 999,
        nonce: Nonce(5),
    }
}

fn restore_to(dir: &Path, target: impl Into<Aim>) -> Result<Restored, Failure> {
    let _ = fs::remove_dir_all(dir.join("restored"));
    restore(order(dir, target), &mut |_| ())
}

/// The state that a node would start from.
fn load(dir: &Path) -> (Header, State) {
    let snapshots = crate::node::shelf::snapshots(&dir.join("restored")).unwrap();
    assert_eq!(snapshots.len(), 1);
    load_snapshot(&snapshots[0].1, CLUSTER).unwrap()
}

#[test]
fn every_lsn_can_be_restored_and_is_what_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let primary = build(dir);
    let newest = primary.link.position.lsn;
    for lsn in 1..=newest.0 {
        let restored = restore_to(dir, Target::Lsn(Lsn(lsn))).unwrap();
        let (header, state) = load(dir);
        assert_eq!(restored.link.position.lsn, Lsn(lsn));
        assert_eq!(header.link, restored.link);
        assert_eq!(state.digest(), restored.digest);
        if let Some(digest) = primary.digests.get(&Lsn(lsn)) {
            assert_eq!(state.digest(), *digest, "LSN {lsn}");
        }
        // Inside a record the truth is another state's that stops there.
        let mut other = State::new(state_limits(CLUSTER));
        for record in &primary.records {
            if record.first_lsn() <= Lsn(lsn) {
                other.apply_prefix(record, record.last_lsn().min(Lsn(lsn)), |_, _| ());
            }
        }
        assert_eq!(state.digest(), other.digest(), "LSN {lsn}");
        let from_snapshot = (lsn >= 24).then_some(Lsn(24));
        assert_eq!(restored.tally.snapshot_lsn, from_snapshot);
    }
}

#[test]
fn a_time_is_every_command_up_to_then_and_none_later() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let primary = build(dir);
    // The record of seven at LSN 26: its commands are a nanosecond apart.
    let record = primary.records.iter().find(|r| r.count() == 7).unwrap();
    assert_eq!(
        (record.first_lsn(), record.timestamp()),
        (Lsn(26), 26_000_000)
    );
    for (ns, lsn) in [
        (25_999_999, 25),
        (26_000_000, 26),
        (26_000_003, 29),
        (26_000_006, 32),
        (26_000_007, 32),
        (32_999_999, 32),
        (33_000_000, 33),
    ] {
        let restored = restore_to(dir, Target::Time(ns)).unwrap();
        assert_eq!(restored.link.position.lsn, Lsn(lsn), "{ns} ns");
    }
    let late = primary.link.timestamp + 1;
    let failure = restore_to(dir, Target::Time(late)).unwrap_err();
    assert_eq!(failure.code, ExitCode::NotExact);
    assert!(failure.hint.contains("--target lsn:43"), "{failure}");
    let latest = restore_to(dir, Target::Time(late - 1)).unwrap();
    assert_eq!(latest.link, primary.link);
}

#[test]
fn a_restored_directory_is_a_new_history_in_quarantine() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let primary = build(dir);
    let restored = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(restored.link, primary.link);
    assert_eq!(restored.digest, primary.state.digest());
    assert_eq!(
        (restored.tally.attestations, restored.tally.attested_lsn),
        (1, Lsn(40))
    );
    let history = History {
        generation: 2,
        id: 999,
    };
    let mode = std::fs::metadata(dir.join("restored")).unwrap().mode();
    assert_eq!(mode & 0o077, 0, "the books are nobody else's business");
    let found = meta::load(&dir.join("restored")).unwrap().unwrap();
    assert!(found.quarantined);
    assert_eq!(found.cluster_name, "bank");
    assert_eq!(found.core.config.history, history);
    assert_eq!(found.core.config.forks(), [(FIRST, 43)]);
    assert_eq!(found.core.incarnation, Incarnation(77));
    let (header, _) = load(dir);
    assert_eq!(
        (header.history, &header.ancestors[..]),
        (history, &[(FIRST, 43)][..])
    );
    let epochs: crate::replication::EpochTable = postcard::from_bytes(&header.epoch_table).unwrap();
    assert_eq!(epochs.entries(), primary.epochs);

    fs::remove_dir_all(dir.join("restored")).unwrap();
    let active = Order {
        activate: true,
        ..order(dir, Target::Lsn(Lsn(10)))
    };
    restore(active, &mut |_| ()).unwrap();
    assert!(
        !meta::load(&dir.join("restored"))
            .unwrap()
            .unwrap()
            .quarantined
    );
    let (header, _) = load(dir);
    let epochs: crate::replication::EpochTable = postcard::from_bytes(&header.epoch_table).unwrap();
    assert_eq!(
        epochs.entries(),
        &primary.epochs[..1],
        "reigns behind the point are forgotten"
    );
}

/// The new history forks inside a record; its own log and backups go on from there.
#[test]
fn what_was_restored_can_be_backed_up_and_restored_again() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let primary = build(dir);
    let restored = restore_to(dir, Target::Lsn(Lsn(29))).unwrap();
    let (header, state) = load(dir);
    let mut second = Primary {
        history: restored.history,
        state,
        link: header.link,
        epochs: primary.epochs.clone(),
        records: Vec::new(),
        digests: BTreeMap::new(),
    };
    second.reign(3);
    second.write(4);
    second.attest_truth();
    let card = card(restored.history, &header.ancestors);
    ship(&dir.join("archive"), &card, None, &second.records);
    let again = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(again.source, restored.history);
    assert_eq!(again.history.generation, 3);
    assert_eq!(again.link, second.link);
    assert_eq!(again.digest, second.state.digest());
    assert_eq!(
        again.tally.snapshot_lsn,
        Some(Lsn(24)),
        "the first history's"
    );
    assert_eq!(again.tally.attested_lsn, Lsn(34));
    let (header, _) = load(dir);
    assert_eq!(header.ancestors, [(FIRST, 29), (restored.history, 35)]);
    // The first history is still whole.
    let mut old = order(dir, Target::Latest);
    old.source.history = Some(FIRST);
    old.to = dir.join("old");
    assert_eq!(restore(old, &mut |_| ()).unwrap().link, primary.link);
}

/// Everything in the scratch directory but the archive and the node's own snapshot.
fn left_over(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "archive" && !name.ends_with(".sfs"))
        .collect()
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let mut primary = build(dir);
    // A digest that no state had: the primary and the restored state have parted.
    primary.attest(Digest(12345));
    ship(
        &dir.join("archive"),
        &card(FIRST, &[]),
        None,
        &primary.records,
    );
    let failure = restore_to(dir, Target::Latest).unwrap_err();
    assert_eq!(failure.code, ExitCode::Damaged);
    assert!(
        failure
            .message
            .contains("differs from the primary's at LSN 43"),
        "{failure}"
    );
    assert_eq!(left_over(dir), [""; 0]);
    // Before the lie everything can be had.
    restore_to(dir, Target::Lsn(Lsn(43))).unwrap();
    assert_eq!(left_over(dir), ["restored"]);
}

#[test]
fn a_damaged_piece_is_refused_with_its_name() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let listed = catalogue::read(&stored(&dir.join("archive")), CLUSTER).unwrap();
    let last = &listed.histories[0].logs.last().unwrap().path;
    let file = dir.join("archive").join(last);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file, bytes).unwrap();
    let failure = restore_to(dir, Target::Latest).unwrap_err();
    assert_eq!(failure.code, ExitCode::Damaged);
    assert!(failure.message.contains(last), "{failure}");
    assert_eq!(left_over(dir), [""; 0]);
    restore_to(dir, Target::Lsn(Lsn(24))).unwrap();
}

#[test]
fn a_directory_that_holds_something_is_never_written_to() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    fs::create_dir(dir.join("restored")).unwrap();
    restore(order(dir, Target::Latest), &mut |_| ()).expect("an empty directory is fine");
    let failure = restore(order(dir, Target::Latest), &mut |_| ()).unwrap_err();
    assert_eq!(failure.code, ExitCode::Exists);
    load(dir);
    fs::remove_dir_all(dir.join("restored")).unwrap();
    fs::create_dir(dir.join("restored")).unwrap();
    fs::write(dir.join("restored/mine"), b"mine").unwrap();
    let failure = restore(order(dir, Target::Latest), &mut |_| ()).unwrap_err();
    assert_eq!(failure.code, ExitCode::Exists);
    assert_eq!(fs::read(dir.join("restored/mine")).unwrap(), b"mine");
}

#[test]
fn what_an_interrupted_restore_left_is_cleared_and_a_running_one_is_not() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let half = dir.join(".restored.restoring");
    fs::create_dir_all(half.join("snapshots")).unwrap();
    fs::write(half.join("snapshots/half.tmp"), b"half").unwrap();
    fs::write(half.join("meta"), b"half").unwrap();
    {
        let running = Building::begin(&dir.join("restored"), false).unwrap();
        let failure = restore(order(dir, Target::Latest), &mut |_| ()).unwrap_err();
        assert_eq!(failure.code, ExitCode::InUse, "{failure}");
        drop(running);
    }
    fs::create_dir_all(half.join("snapshots")).unwrap();
    fs::write(half.join("snapshots/half.tmp"), b"half").unwrap();
    restore_to(dir, Target::Latest).unwrap();
    load(dir);
    assert_eq!(left_over(dir), ["restored"]);
}

#[test]
fn targets_and_histories_read_as_documented() {
    let at = |target| Ok(Aim::At(target));
    assert_eq!(target::parse("latest"), at(Target::Latest));
    assert_eq!(target::parse("lsn:42"), at(Target::Lsn(Lsn(42))));
    let ns = 1_769_860_800_000_000_001;
    assert_eq!(
        target::parse("time:2026-01-31T12:00:00.000000001Z"),
        at(Target::Time(ns))
    );
    assert_eq!(
        target::parse("time:2026-01-31T13:00:00.000000001+01:00"),
        at(Target::Time(ns))
    );
    assert_eq!(rfc3339(ns), "2026-01-31T12:00:00.000000001Z");
    assert_eq!(target::parse("before:42"), Ok(Aim::Before(42)));
    assert_eq!(target::parse("before:0xfF"), Ok(Aim::Before(255)));
    assert_eq!(
        target::parse("before:00000000-0000-0000-0000-0000000000ff"),
        Ok(Aim::Before(255))
    );
    for bad in [
        "",
        "lsn:",
        "lsn:-1",
        "lsn:x",
        "time:",
        "time:yesterday",
        "time:1960-01-01T00:00:00Z",
        "before:",
        "before:-1",
        "before:ff",
        "before:340282366920938463463374607431768211456",
        "7",
    ] {
        assert!(target::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(parse_history(&FIRST.to_string()), Ok(FIRST));
    assert!(parse_history("1").is_err());
}

#[test]
fn a_list_of_what_has_a_hole_or_cannot_be_read_is_no_success() {
    use crate::cli::backup::{is_whole, list_json};
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    build(scratch.path());
    let read = || catalogue::read(&stored(&dir), CLUSTER).unwrap();
    let whole = read();
    assert!(is_whole(&whole));
    let piece = dir.join(&whole.histories[0].logs[0].path);
    let bytes = fs::read(&piece).unwrap();
    fs::write(&piece, &bytes[..20]).unwrap();
    let cut_short = list_json(&read());
    assert_eq!(cut_short["whole"], false, "{cut_short}");
    assert_eq!(
        cut_short["histories"][0]["unreadable"][0]["path"],
        whole.histories[0].logs[0].path
    );
    fs::write(&piece, bytes).unwrap();
    fs::remove_file(dir.join(&whole.histories[0].logs[1].path)).unwrap();
    let holed = list_json(&read());
    assert_eq!(holed["whole"], false, "{holed}");
    assert_eq!(
        holed["histories"][0]["holes"].as_array().map(Vec::len),
        Some(1),
        "{holed}"
    );
}

#[test]
fn a_backup_directory_is_listed_and_proved() {
    use crate::cli::backup::{is_whole, list_json, list_text};
    use crate::cli::backup_verify::{Depth, report_json, report_text};
    let all = Depth::All(Identities::default());
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("archive");
    let failure = choose_cluster(&stored(scratch.path()), None).unwrap_err();
    assert!(failure.message.ends_with("holds no backup"), "{failure}");
    build(scratch.path());
    assert_eq!(choose_cluster(&stored(&dir), None).unwrap(), CLUSTER);
    assert!(choose_cluster(&stored(&dir), Some(ClusterId(5))).is_err());

    let catalogue = catalogue::read(&stored(&dir), CLUSTER).unwrap();
    let listed = list_json(&catalogue);
    assert_eq!(listed["whole"], true, "{listed}");
    let history = &listed["histories"][0];
    assert_eq!(listed["cluster_name"], "bank");
    assert_eq!(history["generation"], 1);
    assert_eq!(history["snapshots"][0]["lsn"], 24);
    assert_eq!(history["snapshots"][0]["time"], "1970-01-01T00:00:00.024Z");
    assert_eq!(history["newest"]["lsn"], 43);
    assert_eq!(history["restorable"][0]["from"]["lsn"], 1);
    assert_eq!(history["restorable"][1]["snapshot_lsn"], 24);
    let text = list_text(&catalogue);
    let line = "restorable LSN 24, 1970-01-01T00:00:00.024Z  to  LSN 43, \
                1970-01-01T00:00:00.042000001Z";
    assert!(text.contains(line), "{text}");

    let report = proved(&dir);
    let json = report_json(&report, &all);
    assert_eq!((&json["sound"], &json["files"]), (&true.into(), &5.into()));
    assert_eq!(json["histories"][0]["attested_lsn"], 41);
    assert!(
        report_text(&report, &all)
            .ends_with("sound: every restore point reaches the newest record\n")
    );
    let seen = glance(&stored(&dir), CLUSTER).unwrap();
    assert_eq!(report_json(&seen, &Depth::Heads)["quick"], true);
    let told = report_text(&seen, &Depth::Heads);
    assert!(
        told.contains("there      LSN 24") && told.ends_with("without --quick it is proved\n"),
        "{told}"
    );
    fs::remove_file(dir.join(&catalogue.histories[0].logs[2].path)).unwrap();
    fs::remove_file(dir.join(&catalogue.histories[0].snapshots[0].path)).unwrap();
    let report = proved(&dir);
    let told = report_text(&report, &all);
    assert_eq!(
        told.matches("it is not there, and manifest-").count(),
        2,
        "{told}"
    );
    let home = catalogue::history_dir(CLUSTER, FIRST);
    for manifest in &catalogue.histories[0].manifests {
        let name = catalogue::manifest_name(manifest.id);
        fs::remove_file(dir.join(&home).join(name)).unwrap();
    }
    let report = proved(&dir);
    assert!(report.is_sound(), "what is left is a shorter log, whole");
    fs::remove_file(dir.join(&catalogue.histories[0].logs[0].path)).unwrap();
    let report = proved(&dir);
    assert_eq!(report_json(&report, &all)["sound"], false);
    assert!(report_text(&report, &all).contains("FINDING    no snapshot, and no log from LSN 1"));
    let left = catalogue::read(&stored(&dir), CLUSTER).unwrap();
    assert!(!is_whole(&left), "nothing can be restored from it");
    assert!(list_text(&left).contains("HOLE       there is no snapshot"));
}

/// The newest command of the archive is 42 ms old at 42 ms.
#[test]
fn a_cluster_whose_archive_is_young_is_not_activated_beside() {
    let scratch = tempfile::tempdir().unwrap();
    build(scratch.path());
    let source = order(scratch.path(), Target::Latest).source;
    let refuse = |wall| activate::refuse_beside_a_living_cluster(&source, wall);
    let second = 1_000_000_000;
    for wall in [0, second, 599 * second] {
        let failure = refuse(wall).expect_err("it may be alive");
        assert_eq!(failure.code, ExitCode::Refused);
        assert!(failure.hint.contains("--ignore-old-cluster"), "{failure}");
    }
    refuse(601 * second).unwrap();
}

#[test]
fn activation_ends_the_quarantine_once() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    restore_to(dir, Target::Latest).unwrap();
    let args = Activate {
        data_dir: dir.join("restored"),
        json: false,
    };
    assert!(meta::load(&args.data_dir).unwrap().unwrap().quarantined);
    activate(&args).unwrap();
    assert!(!meta::load(&args.data_dir).unwrap().unwrap().quarantined);
    assert_eq!(activate(&args).unwrap_err().code, ExitCode::Refused);
    let nothing = Activate {
        data_dir: dir.join("archive"),
        json: false,
    };
    assert_eq!(activate(&nothing).unwrap_err().code, ExitCode::Failed);
}

/// A new age key: who is sealed to, and what opens it.
fn key() -> (Recipients, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string().parse().unwrap();
    let secret = identity.to_string().expose_secret().to_string();
    (Recipients::new(&[recipient], 7), secret)
}

fn ship_sealed(dir: &Path, to: &Recipients, snapshot: Option<&Path>, records: &[Record]) {
    let (mut shipper, _) = Shipper::open(&stored(dir), &card(FIRST, &[]), to).unwrap();
    shipper.put_log(records.iter().cloned().map(Ok)).unwrap();
    if let Some(path) = snapshot {
        let (lsn, _) = shipper.put_snapshot(path).unwrap();
        shipper.note_snapshot(lsn).unwrap();
    }
    shipper.put_manifest().unwrap();
}

#[test]
fn an_encrypted_archive_restores_with_its_keys_and_says_which_are_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let archive = dir.join("archive");
    let ((old, old_key), (new, new_key)) = (key(), key());
    let mut primary = Primary::new();
    primary.write(5);
    primary.attest_truth();
    // In plain at first, then for one key, then for another, from a snapshot on.
    ship(&archive, &card(FIRST, &[]), None, &primary.records);
    let plain = primary.link.position.lsn;
    primary.write(7);
    primary.attest_truth();
    ship_sealed(&archive, &old, None, &primary.records);
    let sealed = primary.link.position.lsn;
    let snapshot = primary.snapshot(dir);
    ship_sealed(&archive, &new, Some(&snapshot), &primary.records);
    primary.write(4);
    primary.attest_truth();
    ship_sealed(&archive, &new, None, &primary.records);
    let newest = primary.link.position.lsn;
    let restore_with = |keys: &[&str], lsn: Lsn| {
        let _ = fs::remove_dir_all(dir.join("restored"));
        let mut order = order(dir, Target::Lsn(lsn));
        if !keys.is_empty() {
            order.source.identities = Identities::parse(&keys.join("\n")).unwrap();
        }
        restore(order, &mut |_| ()).map(|restored| restored.digest)
    };
    let refused = |keys: &[&str], lsn: Lsn| {
        let failure = restore_with(keys, lsn).unwrap_err();
        assert_eq!(failure.code, ExitCode::Failed);
        assert!(failure.hint.contains("--identity FILE"), "{failure:?}");
        assert!(!dir.join("restored").exists(), "nothing is left");
        failure.message
    };
    let (old_key, new_key) = (old_key.as_str(), new_key.as_str());
    let digest = |lsn: Lsn| primary.digests[&lsn];
    let before = Lsn(sealed.0 - 1);
    assert_eq!(restore_with(&[], plain).unwrap(), digest(plain));
    assert_eq!(restore_with(&[new_key], newest).unwrap(), digest(newest));
    assert_eq!(restore_with(&[old_key], before).unwrap(), digest(before));
    for lsn in [before, sealed, newest] {
        assert_eq!(restore_with(&[old_key, new_key], lsn).unwrap(), digest(lsn));
        assert!(refused(&[], lsn).contains("no identity was given"));
    }
    for (keys, lsn) in [([old_key], newest), ([new_key], before)] {
        assert!(refused(&keys, lsn).contains("none of the identities given opens it"));
    }
}

/// What the founder of an earlier history held and did not know to be committed stays as far as the
/// point restored has it.
#[test]
fn a_restored_history_shares_with_its_ancestors_what_its_source_did() {
    let scratch = tempfile::tempdir().unwrap();
    build(scratch.path());
    let catalogue = catalogue::read(&stored(&scratch.path().join("archive")), CLUSTER).unwrap();
    let mut plan = plan(&catalogue, None, Target::Latest).unwrap();
    let past = |generation, shared, end| Ancestor {
        history: History { generation, id: 5 },
        shared: Lsn(shared),
        end: Lsn(end),
    };
    plan.ancestors = vec![past(0, 10, 20)];
    let own = |lsn| Ancestor::at(plan.history, Lsn(lsn));
    for (lsn, older) in [
        (30, past(0, 10, 20)),
        (15, past(0, 10, 15)),
        (5, past(0, 5, 5)),
    ] {
        assert_eq!(ancestors(&plan, Lsn(lsn)), [older, own(lsn)]);
    }
}

/// What was unpacked is counted, also where the archive has it in parts.
#[test]
fn a_restore_counts_the_bytes_of_the_state_that_it_loaded() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let restored = restore_to(dir, Target::Lsn(Lsn(24))).unwrap();
    assert_eq!(restored.tally.snapshot_lsn, Some(Lsn(24)));
    let made = crate::node::shelf::snapshots(&dir.join("restored")).unwrap();
    let made = standfast_snapshot::Reader::open(&made[0].1).unwrap();
    assert_eq!(restored.tally.raw_bytes, made.raw_bytes());
}
