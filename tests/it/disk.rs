//! A disk that is full: nothing is acknowledged that is not on it, reads go on, and writes do so
//! by themselves once there is room. The small disk is a tmpfs of its own; to mount one takes root,
//! and without it the test says so and does nothing.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Node, Spec, Value, until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs, gone with its holder. What runs on it then sees no more of it by name.
struct Small(PathBuf);

impl Small {
    /// `None`, and a line that says so, where mounting is not permitted.
    fn mount(at: &Path, size: &str) -> Option<Small> {
        fs::create_dir_all(at).expect("the scratch directory is writable");
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "standfast-rig",
            ])
            .arg(at)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Small(at.into())),
            other => {
                println!("SKIPPED: a small disk cannot be mounted (root can): {other:?}");
                None
            }
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Starts a node on the small disk; what it had elsewhere is lost to it, so it joins anew.
fn move_to(cluster: &mut Cluster, node: &Node, small: &Small) {
    let data = small.0.join("data").display().to_string();
    cluster.restart_with(
        node,
        &[
            ("STANDFAST_DATA_DIR", &data),
            ("STANDFAST_WAL_SEGMENT", "12MiB"),
            ("STANDFAST_MAX_REQUEST", "1MiB"),
            ("STANDFAST_MAX_BULK", "512KiB"),
        ],
    );
}

/// Writes numbered values until the primary says that its disk is full; how many were taken.
fn fill(conn: &mut Conn, from: usize) -> usize {
    let value = "x".repeat(64 << 10);
    for number in from..from + 10_000 {
        let reply = conn
            .call(&["SET", &format!("fill:{number}"), &value])
            .expect("SET is answered");
        if reply.refusal() == Some("MISCONF") {
            println!("{reply:?} after {number} values");
            return number;
        }
        assert_eq!(reply, Value::ok());
    }
    panic!("a small disk took {from} + 10000 values of 64 KiB");
}

fn assert_holds(conn: &mut Conn, count: usize) {
    for number in 0..count {
        let length = conn.call(&["STRLEN", &format!("fill:{number}")]);
        assert_eq!(
            length.expect("STRLEN is answered"),
            Value::Int(64 << 10),
            "fill:{number}"
        );
    }
}

fn write(cluster: &Cluster, key: &str) {
    until("writes go on", PATIENCE, || {
        let mut conn = Conn::open(&cluster.try_primary()?.client, PATIENCE).ok()?;
        (conn.call(&["SET", key, "1"]).ok()? == Value::ok()).then_some(())
    });
}

#[test]
fn a_full_disk_refuses_in_words_loses_nothing_and_goes_on_when_there_is_room() {
    let mut cluster = turn::start(&Spec::pair());
    let Some(small) = Small::mount(&cluster.scratch().join("small"), "64m") else {
        return;
    };
    fs::write(small.ballast(), vec![1; 24 << 20]).expect("the small disk has room yet");
    let node = cluster.backup();
    cluster.kill(&node);
    move_to(&mut cluster, &node, &small);
    until("the node on the small disk is primary", PATIENCE, || {
        let primary = cluster.try_primary()?;
        if primary.id != node.id {
            // Refused until it has joined.
            cluster.cli(&["switchover", "--node", &primary.client]);
            return None;
        }
        Some(())
    });
    cluster.backup();

    // As primary: full, then roomy.
    let mut conn = cluster.client();
    let taken = fill(&mut conn, 0);
    assert!(taken > 0, "it was full from the beginning");
    assert_holds(&mut conn, taken);
    fs::remove_file(small.ballast()).expect("the ballast is there");
    write(&cluster, "room again");
    assert_eq!(cluster.primary().id, node.id, "nobody had to take over");

    // Full again, and killed in it: the other has everything and serves.
    let taken = fill(&mut conn, taken);
    cluster.kill(&node);
    let mut conn = cluster.client();
    assert_holds(&mut conn, taken);
    write(&cluster, "without the full one");

    // It comes back to a full disk; the other goes on whatever becomes of it.
    move_to(&mut cluster, &node, &small);
    assert!(
        rig::cluster::answers(&node.client, PATIENCE),
        "a node starts on a full disk"
    );
    write(&cluster, "beside the full one");
    let grow = Command::new("mount")
        .args(["-o", "remount,size=256m"])
        .arg(&small.0)
        .status();
    assert!(
        grow.is_ok_and(|status| status.success()),
        "a tmpfs can grow"
    );
    cluster.wait_sync_backups(1);
    cluster.wait_equal_digests(&cluster.data_nodes());
    assert_holds(&mut cluster.client(), taken);
}
