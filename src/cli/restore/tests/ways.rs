//! What is damaged or gone is done without where another way leads to the same state, and is told.

use super::*;

/// Changes an object of the archive whose name begins like this, the last of them; its path.
pub fn spoil(dir: &Path, prefix: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let home = dir.join("archive").join(history_home());
    let names = fs::read_dir(&home).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.starts_with(prefix)).max().unwrap();
    let mut bytes = fs::read(home.join(&name)).unwrap();
    change(&mut bytes);
    fs::write(home.join(&name), bytes).unwrap();
    name
}

fn history_home() -> String {
    catalogue::history_dir(CLUSTER, FIRST)
}

pub fn flip_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

#[test]
fn a_damaged_snapshot_is_passed_over_and_named() {
    for target in [Target::Latest, Target::Lsn(Lsn(32))] {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let primary = build(dir);
        let name = spoil(dir, "snapshot-", |bytes| flip_middle(bytes));
        let restored = restore_to(dir, target).unwrap();
        assert_eq!(restored.tally.snapshot_lsn, None);
        let [reason] = &restored.passed_over[..] else {
            panic!("one object was damaged: {:?}", restored.passed_over)
        };
        assert!(reason.contains(&name), "{reason}");
        let digest = load(dir).1.digest();
        assert_eq!(
            Some(&digest),
            primary.digests.get(&restored.link.position.lsn)
        );
        // It does not matter for what lies before it.
        let restored = restore_to(dir, Target::Lsn(Lsn(11))).unwrap();
        assert_eq!(restored.passed_over, [""; 0]);
    }
}

#[test]
fn a_snapshot_whose_head_is_damaged_is_named_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let name = spoil(dir, "snapshot-", |bytes| bytes[20] ^= 1);
    let restored = restore_to(dir, Target::Latest).unwrap();
    assert_eq!(restored.tally.snapshot_lsn, None);
    assert!(
        restored.passed_over.iter().any(|one| one.contains(&name)),
        "{:?}",
        restored.passed_over
    );
}

#[test]
fn where_no_other_way_leads_there_the_first_damage_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    build(dir);
    let first = spoil(dir, "snapshot-", |bytes| flip_middle(bytes));
    // From nothing no way leads there, either.
    let home = dir.join("archive").join(history_home());
    let logs = fs::read_dir(&home).unwrap();
    let logs = logs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let oldest = logs.filter(|name| name.starts_with("log-")).min().unwrap();
    fs::remove_file(home.join(oldest)).unwrap();
    let failure = restore_to(dir, Target::Latest).unwrap_err();
    assert_eq!(failure.code, ExitCode::Damaged);
    assert!(failure.message.contains(&first), "{failure}");
    assert!(
        failure.hint.contains("nothing else leads there"),
        "{failure}"
    );
    assert_eq!(left_over(dir), [""; 0]);
}
