//! The server removes from its archive what need not be kept, and what is left restores.

use crate::archive::{archive_status, take_snapshots, wait_archived};
use crate::turn;
use rig::cluster::{PATIENCE, digest};
use rig::{Spec, until};
use std::path::{Path, PathBuf};

/// The objects below `dir` whose names begin with `what`; what a killed node was writing is none.
fn count(dir: &Path, what: &str) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let is_one = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_file() && name.is_some_and(|name| name.starts_with(what) && !name.ends_with(".tmp"))
    };
    let below = paths.iter().filter(|path| path.is_dir());
    paths.iter().filter(is_one).count() + below.map(|dir| count(dir, what)).sum::<usize>()
}

#[test]
fn what_need_not_be_kept_is_removed_behind_a_sound_proof_and_the_rest_restores() {
    let scratch = tempfile::tempdir().expect("a scratch directory can be made");
    let place = scratch.path().join("archive");
    let from = place.display().to_string();
    let mut cluster = turn::start(&Spec::triple().archived(&from));
    let mut client = cluster.client();
    for snapshots in 1..=3 {
        for n in 0..50 {
            let key = format!("k{snapshots}-{n}");
            client.call(&["SET", &key, "v"]).expect("SET");
        }
        take_snapshots(&cluster);
        // The archiver puts them ten seconds apart at least.
        until("the snapshot is archived", PATIENCE * 3, || {
            (count(&place, "snapshot-") >= snapshots).then_some(())
        });
    }
    wait_archived(&cluster);
    let pieces = count(&place, "log-");
    assert_eq!(
        archive_status(&cluster)["verified"]["expired"],
        serde_json::Value::Null
    );
    for node in cluster.data_nodes() {
        cluster.kill(&node);
        cluster.restart_with(
            &node,
            &[
                ("STANDFAST_VERIFY_INTERVAL", "1s"),
                ("STANDFAST_ARCHIVE_KEEP_FOR", "1s"),
                ("STANDFAST_ARCHIVE_KEEP_FULL", "1"),
            ],
        );
        cluster.wait_sync_backups(2);
    }
    // How many go behind the first proof depends on how long ago the last write was by then; the
    // marks go last.
    let expired = until("all but one are expired", PATIENCE * 3, || {
        let status = cluster.try_primary().map(|one| cluster.status(&one))?;
        let expired = status["archive"]["verified"]["expired"].clone();
        let is_told = expired["snapshots"].is_u64() && expired["error"].is_null();
        let marks = count(&place, "removal-") + count(&place, "put-");
        (is_told && count(&place, "snapshot-") == 1 && marks == 0).then_some(expired)
    });
    assert!(count(&place, "log-") < pieces, "{expired}");
    wait_archived(&cluster);
    let said = archive_status(&cluster)["verified"].clone();
    assert_eq!(said["findings"], 0, "{said}");
    for depth in [&["--quick"][..], &[]] {
        let verify = ["backup", "verify", "--from", &from];
        cluster.cli(&[&verify, depth].concat()).success();
    }
    let (lsn, at) = digest(&cluster.primary().client).expect("DIGEST is answered");
    let target = format!("lsn:{lsn}");
    let answer = cluster.cli(&[
        "restore", "--from", &from, "--target", &target, "--query", "DIGEST",
    ]);
    let answer = answer.success();
    assert!(answer.contains(&at), "{answer} {at}");
}
