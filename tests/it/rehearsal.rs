//! Restore drills that the cluster does by itself, of an encrypted archive.

use crate::archive::{archive_status, archiver, wait_archived};
use crate::turn;
use age::secrecy::ExposeSecret;
use rig::cluster::PATIENCE;
use rig::{Cluster, Spec, until};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// Starts each data node again with these variables, one after the other.
fn restart_all(cluster: &mut Cluster, variables: &[(&str, &str)]) {
    for node in cluster.data_nodes() {
        cluster.kill(&node);
        cluster.restart_with(&node, variables);
        cluster.wait_sync_backups(1);
    }
}

/// The word of the primary's alarm of this name.
fn alarm(cluster: &Cluster, name: &str) -> Option<String> {
    let status = cluster.status(&cluster.try_primary()?);
    let alarms = status["alarms"].as_array()?.clone();
    let found = alarms.iter().find(|alarm| alarm["name"] == name)?;
    Some(found["text"].as_str()?.to_string())
}

/// The directories of drills that are there.
fn scratch_dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

#[test]
fn the_node_that_archives_drills_by_itself_and_a_drill_dies_with_its_node() {
    let scratch = tempfile::tempdir().expect("a scratch directory can be made");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (from, dir, reports) = (path("archive"), path("drills"), path("reports"));
    let key = age::x25519::Identity::generate();
    let identity = path("identity");
    std::fs::write(&identity, key.to_string().expose_secret()).expect("it is writable");
    let spec = Spec::pair().archived(&from);
    let mut cluster = turn::start(&spec.sealed_to(&key.to_public().to_string()));
    let mut client = cluster.client();
    for n in 0..50 {
        client.call(&["SET", &format!("k{n}"), "v"]).expect("SET");
    }
    wait_archived(&cluster);

    let keyless = [
        ("STANDFAST_DRILL_INTERVAL", "1s"),
        ("STANDFAST_DRILL_DIR", &*dir),
        ("STANDFAST_DRILL_REPORTS", &*reports),
    ];
    restart_all(&mut cluster, &keyless);
    until("that it cannot is told", PATIENCE, || {
        alarm(&cluster, "drill_overdue").filter(|said| said.contains("drill_identity"))
    });

    let with_key = [&keyless[..], &[("STANDFAST_DRILL_IDENTITY", &*identity)]].concat();
    let failing = [&with_key[..], &[("STANDFAST_RTO_TARGET", "1ms")]].concat();
    restart_all(&mut cluster, &failing);
    until("the drill misses its target", PATIENCE * 2, || {
        alarm(&cluster, "drill_failed").filter(|said| said.contains("RTO was"))
    });
    until("the metric says so", PATIENCE, || {
        let is_told = metrics(&cluster).contains("\nstandfast_drill_passed 0");
        is_told.then_some(())
    });

    restart_all(&mut cluster, &with_key);
    let drill = until("the drill passes", PATIENCE * 2, || {
        let drill = archive_status(&cluster)["drill"].clone();
        // Who has not done it knows it by the name of its report only.
        let is_measured = drill["rto_ms"].as_u64() > Some(0);
        (drill["passed"] == true && is_measured).then_some(drill)
    });
    assert_eq!(drill["reason"], Json::Null, "{drill}");
    // Another may be under way by now, of a node that was named in between.
    until("nothing is left of it", PATIENCE, || {
        scratch_dirs(Path::new(&dir)).is_empty().then_some(())
    });

    // Whoever does the next is killed while it does.
    restart_all(&mut cluster, &with_key);
    let left = until("a drill is under way", PATIENCE * 2, || {
        scratch_dirs(Path::new(&dir)).into_iter().next()
    });
    let node = archiver(&cluster);
    cluster.kill(&node);
    until("nothing is left of it", PATIENCE, || {
        (!left.exists()).then_some(())
    });
    cluster.restart(&node);
    cluster.wait_sync_backups(1);

    let list = [
        "drill",
        "report",
        "--from",
        &from,
        "--identity",
        &identity,
        "--json",
    ];
    let list: Json = serde_json::from_str(&cluster.cli(&list).success()).expect("JSON");
    let all = list["reports"].as_array().expect("a list").clone();
    let passed: Vec<&Json> = all.iter().map(|one| &one["passed"]).collect();
    assert!(
        passed.contains(&&Json::from(true)) && passed.contains(&&Json::from(false)),
        "{list}"
    );
    assert_eq!(list["unreadable"], Json::Array(Vec::new()), "{list}");
    // Nothing else takes them for something of its own.
    let listed = cluster.cli(&["backup", "list", "--from", &from]).success();
    assert!(listed.contains("reports of drills"), "{listed}");
    cluster
        .cli(&["backup", "verify", "--from", &from])
        .success();
    cluster
        .cli(&["backup", "expire", "--from", &from, "--keep-for", "0s"])
        .success();
    let left = scratch.path().join("archive");
    let count = walk(&left)
        .iter()
        .filter(|path| path.contains("/drills/"))
        .count();
    assert!(count >= all.len(), "{count} of {}", all.len());
}

fn metrics(cluster: &Cluster) -> String {
    use std::io::{Read, Write};
    let http = cluster.primary().http;
    let mut stream = std::net::TcpStream::connect(&http).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn walk(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => walk(&path),
            false => vec![path.display().to_string()],
        })
        .collect()
}
