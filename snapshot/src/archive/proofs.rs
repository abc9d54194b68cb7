//! Archives in plain, encrypted and both: whatever happens to an object is found, with a key and
//! without one, and what cannot be found is named.

use super::*;
use crate::catalogue::read;
use crate::fixtures::{CLUSTER, Opaque, blocks, card, fine, key, link_at, log, snapshot_with};
use crate::retention::{Expiry, Policy, expire};
use crate::store::Memory;
use crate::verify::{Finding, Report, verify};
use crate::{Header, Options, Reader, Store, Target, Writer, plan};
use crate::{sealed, segment};
use standfast_wal::NodeId;

fn to(keys: &[usize]) -> Recipients {
    let all: Vec<_> = keys.iter().map(|n| key(*n).0).collect();
    Recipients::new(&all, 7)
}

/// Ships what the archive lacks of a log through `last`, and a snapshot at `lsn`.
fn ship_to(memory: &Arc<Memory>, recipients: &Recipients, last: u64, lsn: Option<u64>) {
    let scratch = tempfile::tempdir().unwrap();
    let store: Shared = memory.clone();
    let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), recipients).unwrap();
    let records = log(Link::default(), 2, last);
    for some in 1..=records.len() / 5 {
        shipper.put_log(fine(&records[..some * 5])).unwrap();
    }
    if let Some(lsn) = lsn {
        let segments: [&[u8]; 2] = [&[7; 900], &[lsn as u8; 900]];
        let path = snapshot_with(scratch.path(), link_at(&records, lsn), &segments);
        shipper.put_snapshot(&path).unwrap();
        shipper.note_snapshot(Lsn(lsn)).unwrap();
    }
    shipper.put_manifest().unwrap();
}

fn proved(memory: &Arc<Memory>, identities: &Identities) -> Report {
    let store: Shared = memory.clone();
    verify(&store, CLUSTER, 1, identities, &Opaque).unwrap()
}

fn nobody() -> Identities {
    Identities::default()
}

#[test]
fn whatever_happens_to_an_object_is_found_with_a_key_and_without() {
    for recipients in [to(&[]), to(&[1])] {
        let memory = Arc::new(Memory::default());
        for (last, lsn) in [(40, Some(20)), (60, None), (80, Some(70))] {
            ship_to(&memory, &recipients, last, lsn);
        }
        assert!(proved(&memory, &nobody()).is_sound());
        assert!(proved(&memory, &key(1).1).is_sound());
        let names = memory.names();
        let newest = names
            .iter()
            .rfind(|name| name.contains("/manifest-"))
            .unwrap();
        let oldest = names
            .iter()
            .find(|name| name.contains("/manifest-"))
            .unwrap();
        for name in &names {
            let sound = memory.get(name).unwrap();
            let damages = [0, 9, 20, sound.len() / 2, sound.len() - 1].map(|at| {
                let mut bad = sound.to_vec();
                bad[at] ^= 1;
                (format!("byte {at}"), bad)
            });
            let cuts = [0, 100, sound.len() - 1].map(|at| {
                let cut = sound[..at.min(sound.len() - 1)].to_vec();
                (format!("cut at {at}"), cut)
            });
            for (what, bytes) in damages.into_iter().chain(cuts) {
                memory.replace(name, &bytes.into()).unwrap();
                let found = !proved(&memory, &nobody()).is_sound();
                assert!(found, "{name} {what}, without a key");
                assert!(!proved(&memory, &key(1).1).is_sound(), "{name} {what}");
            }
            memory.delete(name).unwrap();
            let report = proved(&memory, &nobody());
            // Nothing is left that says that it was there, or one that may have expired.
            let is_unknown = name == newest || name == oldest;
            assert_eq!(report.is_sound(), is_unknown, "{name}: {report:?}");
            assert_eq!(proved(&memory, &key(1).1).is_sound(), is_unknown);
            memory.replace(name, &sound).unwrap();
        }
        for pair in names.windows(2) {
            let [a, b] = [&pair[0], &pair[1]].map(|name| memory.get(name).unwrap());
            memory.replace(&pair[0], &b).unwrap();
            memory.replace(&pair[1], &a).unwrap();
            assert!(!proved(&memory, &nobody()).is_sound(), "{pair:?} swapped");
            memory.replace(&pair[0], &a).unwrap();
            memory.replace(&pair[1], &b).unwrap();
        }
        assert!(proved(&memory, &key(1).1).is_sound());
    }
}

#[test]
fn a_restore_of_the_latest_knows_of_newest_log_that_is_gone() {
    let memory = Arc::new(Memory::default());
    let store: Shared = memory.clone();
    ship_to(&memory, &to(&[1]), 60, Some(20));
    let latest = || plan(&read(&store, CLUSTER).unwrap(), None, Target::Latest);
    assert!(latest().is_ok());
    let names = memory.names();
    let newest = names.iter().rfind(|name| name.contains("/log-")).unwrap();
    memory.delete(newest).unwrap();
    let told = latest().unwrap_err().to_string();
    assert!(told.contains("60"), "{told}");
    let before = plan(&read(&store, CLUSTER).unwrap(), None, Target::Lsn(Lsn(50)));
    assert!(before.is_ok(), "{before:?}");
}

#[test]
fn two_that_encrypt_at_once_leave_one_sound_archive() {
    let memory = Arc::new(Memory::default());
    let store: Shared = memory.clone();
    let records = log(Link::default(), 2, 80);
    let open = |keys: &[usize]| Shipper::open(&store, &card(1, &[]), &to(keys)).unwrap().0;
    // One of them has the new setting already.
    let (mut one, mut two) = (open(&[1]), open(&[1, 2]));
    for last in (5..=40).step_by(5) {
        let piece = &records[last - 5..last];
        let (first, second) = match last % 2 {
            0 => (&mut one, &mut two),
            _ => (&mut two, &mut one),
        };
        let (head, put) = first.put_piece(piece).unwrap();
        assert_eq!(put, Put::New);
        let (there, put) = second.put_piece(piece).unwrap();
        assert_eq!((there, put), (head, Put::Present), "what is there is told");
        assert_eq!(second.read_back(&there).unwrap(), head);
        first.put_manifest().unwrap();
        second.put_manifest().unwrap();
    }
    assert!(proved(&memory, &nobody()).is_sound());
    assert!(proved(&memory, &key(1).1).is_sound());
    let report = proved(&memory, &key(2).1);
    let locked = |one: &Finding| matches!(one, Finding::Locked { objects: 4, .. });
    assert!(
        report.histories[0].findings.iter().any(locked),
        "{report:?}"
    );
}

#[test]
fn what_was_damaged_is_put_again_and_that_is_no_finding() {
    for recipients in [to(&[]), to(&[1])] {
        let memory = Arc::new(Memory::default());
        let store: Shared = memory.clone();
        let records = log(Link::default(), 2, 60);
        let (mut shipper, _) = Shipper::open(&store, &card(1, &[]), &recipients).unwrap();
        let (head, _) = shipper.put_piece(&records[..5]).unwrap();
        shipper.put_manifest().unwrap();
        let mut names = memory.names().into_iter();
        let name = names.find(|name| name.contains("/log-")).unwrap();
        memory.tamper(&name, |bytes| bytes[300] ^= 1);
        assert!(shipper.read_back(&head).unwrap_err().is_damage());
        let (again, put) = shipper.put_piece(&records[..5]).unwrap();
        assert_eq!(put, Put::Repaired);
        let is_plain = recipients.id().is_none();
        assert_eq!(again.blake3 == head.blake3, is_plain);
        shipper.read_back(&head).expect("the same log");
        assert!(proved(&memory, &key(1).1).is_sound());
        shipper.put_piece(&records[5..10]).unwrap();
        shipper.put_manifest().unwrap();
        assert!(proved(&memory, &key(1).1).is_sound());
    }
}

#[test]
fn new_recipients_need_no_old_key_from_the_next_snapshot_on() {
    let memory = Arc::new(Memory::default());
    let store: Shared = memory.clone();
    // Plain, then for one key, then for another.
    ship_to(&memory, &to(&[]), 20, Some(20));
    ship_to(&memory, &to(&[1]), 40, Some(40));
    ship_to(&memory, &to(&[2]), 60, Some(60));
    ship_to(&memory, &to(&[2]), 80, None);
    let report = proved(&memory, &nobody());
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.unopened.len(), 2);
    let both = [1, 2].map(crate::fixtures::secret).join("\n");
    let report = proved(&memory, &Identities::parse(&both).unwrap());
    assert!(
        report.is_sound() && report.unopened.is_empty(),
        "{report:?}"
    );
    assert!(
        !proved(&memory, &key(2).1).is_sound(),
        "not all of it opens"
    );
    let catalogue = read(&store, CLUSTER).unwrap();
    let found = plan(&catalogue, None, Target::Latest).unwrap();
    let snapshot = found.snapshot.as_ref().unwrap();
    let new = key(2).1;
    let reader = sealed::fetch_snapshot(&*store, &snapshot.path, &new).unwrap();
    for reference in reader.segments().unwrap() {
        segment::fetch(&*store, &snapshot.segments_dir, &reference, &new).unwrap();
    }
    for step in &found.steps {
        read_log(&*store, &step.path, &new).unwrap();
    }
    assert_eq!(found.steps.len(), 2);
}

#[test]
fn what_expires_takes_its_manifests_along() {
    let memory = Arc::new(Memory::default());
    let store: Shared = memory.clone();
    // The second snapshot takes its time: log that stays has a manifest before it.
    for (last, lsn) in [
        (20, Some(10)),
        (40, None),
        (50, None),
        (60, Some(20)),
        (80, Some(30)),
    ] {
        ship_to(&memory, &to(&[1]), last, lsn);
    }
    let policy = Policy {
        keep_full: 2,
        keep_for_ns: 0,
    };
    let expiry = expire(&read(&store, CLUSTER).unwrap(), policy, u64::MAX);
    assert_eq!((expiry.snapshots.len(), expiry.segments.len()), (1, 1));
    assert_eq!(expiry.logs.len(), 2);
    assert_eq!(expiry.manifests.len(), 1);
    go(&memory, &expiry);
    let last = Policy {
        keep_full: 1,
        ..policy
    };
    let expiry = expire(&read(&store, CLUSTER).unwrap(), last, u64::MAX);
    assert_eq!((expiry.snapshots.len(), expiry.logs.len()), (1, 1));
    assert_eq!(
        expiry.manifests.len(),
        3,
        "those before the one that names it, too"
    );
    go(&memory, &expiry);
}

/// Removes one by one; however far that comes, nothing is missed.
fn go(memory: &Arc<Memory>, expiry: &Expiry) {
    for path in expiry.all() {
        memory.delete(path).unwrap();
        let report = proved(memory, &key(1).1);
        let missing = |one: &Finding| matches!(one, Finding::Damaged { .. });
        let findings = &report.histories[0].findings;
        assert!(!findings.iter().any(missing), "{path}: {findings:?}");
    }
    assert!(proved(memory, &key(1).1).is_sound());
}

/// A snapshot that lacked something was put again while nothing else was written, by a process that
/// has ended: the next one names it.
#[test]
fn a_snapshot_that_was_put_again_is_named_again() {
    let memory = Arc::new(Memory::default());
    let store: Shared = memory.clone();
    ship_to(&memory, &to(&[]), 40, Some(20));
    let found = read(&store, CLUSTER).unwrap();
    let path = &found.histories[0].snapshots[0].path;
    let link = found.histories[0].snapshots[0].link;
    // The same state from another node.
    let scratch = tempfile::tempdir().unwrap();
    let file = snapshot_with(scratch.path(), link, &[&[7; 900], &[20; 900]]);
    let reader = Reader::open(&file).unwrap();
    let header = Header {
        node: NodeId(99),
        ..reader.header().clone()
    };
    let theirs = scratch.path().join("theirs.sfs");
    let mut writer = Writer::create(&theirs, &header, Options::default()).unwrap();
    let references = reader.segments().unwrap();
    let named = segment::blocks(&references);
    for block in blocks(1, 100).into_iter().chain(named) {
        writer.push(block).unwrap();
    }
    writer.publish().unwrap();
    let other = Arc::new(Memory::default());
    let (shipper, _) = Shipper::open(&(other.clone() as Shared), &card(1, &[]), &to(&[])).unwrap();
    shipper.put_snapshot(&theirs).unwrap();
    memory.replace(path, &other.get(path).unwrap()).unwrap();
    let told = &proved(&memory, &nobody()).histories[0].findings;
    assert!(matches!(told[..], [Finding::Replaced { .. }]), "{told:?}");
    ship_to(&memory, &to(&[]), 60, None);
    let told = &proved(&memory, &nobody()).histories[0].findings;
    assert_eq!(told[..], []);
}
