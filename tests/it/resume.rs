//! A restore that is killed in the middle goes on with what it has fetched.

use crate::archive::{python, take_snapshots, wait_archived};
use crate::turn;
use rig::cluster::{PATIENCE, digest};
use rig::random::Random;
use rig::{S3, Spec, until};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The objects that are kept whole.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_none()).collect()
}

#[test]
fn a_restore_that_was_killed_goes_on_and_trusts_nothing_that_was_damaged_meanwhile() {
    let s3 = S3::start(&python());
    let url = s3.url("resumed");
    let mut spec = Spec::standalone().archived(&url);
    for (variable, value) in s3.environment() {
        spec = spec.with(variable, &value);
    }
    let cluster = turn::start(&spec);
    let mut client = cluster.client();
    let mut random = Random::new(7);
    for n in 0..400 {
        // Nothing that is compressed away.
        let value: String = (0..500)
            .map(|_| format!("{:016x}", random.draw()))
            .collect();
        client
            .call(&["SET", &format!("k{n}"), &value])
            .expect("SET");
        if n % 50 == 0 {
            wait_archived(&cluster);
        }
        if n == 50 {
            take_snapshots(&cluster);
        }
    }
    wait_archived(&cluster);
    let (lsn, expected) = digest(&cluster.primary().client).expect("DIGEST is answered");
    let target = format!("lsn:{lsn}");

    let to = cluster.scratch().join("restored");
    let place = to.display().to_string();
    let args = [
        "restore", "--from", &url, "--to", &place, "--target", &target, "--json",
    ];
    let begun = cluster.scratch().join(".restored.restoring");
    let fetched = begun.join("fetched");
    for least in [4, 8] {
        let mut restore = Command::new(turn::binary())
            .args(args)
            .envs(s3.environment())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        until("some objects are fetched", PATIENCE, || {
            (kept(&fetched).len() >= least).then_some(())
        });
        s3.pause();
        assert!(
            restore.try_wait().expect("it is ours").is_none(),
            "it is in the middle"
        );
        restore.kill().expect("it runs");
        restore.wait().expect("it is ours");
        s3.resume();
        assert!(!to.exists(), "nothing half-made has the name");
    }
    let all = kept(&fetched);
    let mut bytes = std::fs::read(&all[0]).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&all[0], bytes).expect("it is writable");

    let said: Json = serde_json::from_str(&cluster.cli(&args).success()).expect("JSON");
    let spared = said["kept_objects"].as_u64().expect("a number");
    assert_eq!(spared, all.len() as u64 - 1, "{said}");
    assert!(said["kept_bytes"].as_u64() > Some(1000), "{said}");
    assert_eq!(said["digest"], Json::from(expected), "{said}");
    assert!(to.is_dir() && !to.join("fetched").exists() && !begun.exists());
}
