//! A backup whose state differs from the primary's: it stops by itself, stays stopped, keeps what it
//! had, says what differs, and is a member again with a new copy.

use crate::runbooks::{Runbook, meanings};
use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Node, Spec, Value, until};
use standfast_snapshot::{Block, Header, Options, Reader, Writer};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// What a block of the state begins with, before its entries.
const BLOCK_HEADER: usize = 8;
const TRUE: &[u8] = b"true-balance-0001";
const WRONG: &[u8] = b"fake-balance-9999";

#[test]
fn a_backup_that_differs_stops_says_what_differs_and_takes_a_new_copy() {
    let scratch = tempfile::tempdir().expect("a directory");
    let place = scratch.path().join("archive");
    let place = place.to_str().expect("text");
    let mut cluster = turn::start(&Spec::pair().archived(place));
    let backup = cluster.backup();
    let mut client = cluster.client();
    let set = |client: &mut rig::Conn, key: &str, value: &str| {
        assert_eq!(
            client.call(&["SET", key, value]).expect("answered"),
            Value::ok()
        );
    };
    set(&mut client, "other", "same everywhere");
    set(
        &mut client,
        "books",
        std::str::from_utf8(TRUE).expect("text"),
    );
    cluster.wait_equal_digests(&cluster.data_nodes());
    cluster
        .connect(&backup)
        .call(&["BGSAVE"])
        .expect("BGSAVE is answered");
    let snapshot = until("the backup has a snapshot with both", PATIENCE, || {
        newest_snapshot(&backup).filter(|path| holds(path, TRUE))
    });
    cluster.kill(&backup);
    // Nobody could tell this from an apply that went wrong before the snapshot was taken.
    falsify(&snapshot);
    set(&mut client, "another", "so that something is attested");
    cluster.restart(&backup);
    let marker = backup.data_dir.join("differs");
    until("the backup finds that it differs", PATIENCE, || {
        marker.exists().then_some(())
    });
    let pid = cluster.pid(&backup);
    until("it has stopped", PATIENCE, || {
        rig::process::is_gone(pid).then_some(())
    });

    let config = backup.data_dir.with_file_name("node.toml");
    let config = config.to_str().expect("text");
    let again = cluster.cli(&["serve", "--config", config]);
    assert_eq!(again.code, Some(7), "{again:?}");
    for word in [
        "differs from the primary's",
        "inspect differing",
        "--afresh",
    ] {
        assert!(again.stderr.contains(word), "{word}: {again:?}");
    }

    let primary = cluster.primary();
    let mut meanings = meanings(&cluster, &[primary, backup.clone()]);
    meanings.retain(|(word, _)| !["DIR", "PLACE"].contains(word));
    meanings.push(("DIR", backup.data_dir.display().to_string()));
    meanings.push(("PLACE", place.to_owned()));
    let mut runbook = Runbook::open("differing node", &meanings);
    let ask = [runbook.next(), vec!["--json".to_owned()]].concat();
    let ask: Vec<&str> = ask.iter().map(String::as_str).collect();
    let said = until("the archive reaches where it stands", PATIENCE, || {
        let said = cluster.cli(&ask);
        (said.code == Some(7) && said.stdout.contains("slots")).then_some(said)
    });
    let found: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(found["slots"].as_array().map(Vec::len), Some(1), "{found}");
    let things = found["things"].as_array().expect("an array");
    assert_eq!(things.len(), 1, "{found}");
    assert_eq!(things[0]["name"], "books");
    let side = |side: &str| things[0][side].as_str().unwrap_or_default().to_owned();
    assert!(side("one").contains("fake-balance-9999"), "{found}");
    assert!(side("other").contains("true-balance-0001"), "{found}");

    runbook.run(&cluster, "status");
    runbook.run(&cluster, "join");
    runbook.serve(&mut cluster, &backup);
    runbook.end();
    cluster.wait_sync_backups(1);
    cluster.wait_equal_digests(&cluster.data_nodes());
    assert!(!marker.exists());
}

fn newest_snapshot(node: &Node) -> Option<PathBuf> {
    let entries = fs::read_dir(node.data_dir.join("snapshots")).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_snapshot = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("snapshot-") && name.ends_with(".sfs")
    };
    paths.filter(is_snapshot).max()
}

fn blocks(path: &Path) -> Option<(Header, Vec<Block>)> {
    let reader = Reader::open(path).ok()?;
    let block = |head: &standfast_snapshot::BlockHead, bytes: &[u8]| {
        Ok(Block {
            section: head.section,
            first: head.first,
            last: head.last,
            bytes: bytes.to_vec(),
        })
    };
    let blocks = reader.load(1, block).ok()?;
    Some((reader.header().clone(), blocks))
}

fn holds(path: &Path, value: &[u8]) -> bool {
    let found = blocks(path).map(|(_, blocks)| blocks);
    let mut found = found.into_iter().flatten();
    found.any(|block| block.bytes.windows(value.len()).any(|bytes| bytes == value))
}

/// Changes one value in a snapshot, and all that proves the file.
fn falsify(path: &Path) {
    let (mut header, mut blocks) = blocks(path).expect("a snapshot");
    for block in &mut blocks {
        let mut at = BLOCK_HEADER;
        while at < block.bytes.len() {
            let length = block.bytes[at..at + 4].try_into().expect("four bytes");
            let end = at + 4 + u32::from_le_bytes(length) as usize;
            let entry = &mut block.bytes[at + 4..end];
            if entry.ends_with(TRUE) {
                let before = xxh3_128(entry);
                let value = entry.len() - TRUE.len();
                entry[value..].copy_from_slice(WRONG);
                let after = xxh3_128(entry);
                header.digest = header.digest.wrapping_sub(before).wrapping_add(after);
            }
            at = end;
        }
    }
    let mut writer = Writer::create(path, &header, Options::default()).expect("a writer");
    for block in blocks {
        writer.push(block).expect("written");
    }
    writer.publish().expect("published");
}
