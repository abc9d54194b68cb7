//! Wall clocks that jump by hours and days: nothing expires early, nothing lives for ever. A small
//! preloaded library (`wall_clock.c`) moves a node's wall clock while it runs; the clock that
//! counts from boot is left alone, as it is by whoever sets a machine's time.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::poll::eventually;
use rig::{Cluster, Node, Spec, Value, holds_for, until};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const HOUR: i64 = 3600;
const TTL: Duration = Duration::from_secs(90);

/// What log time may gain on real time: the slew of a thousandth, and what a new primary is
/// believed (max_clock_step, 1 s) at each of three changes of primary.
const GAIN: Duration = Duration::from_millis(3500);

/// The wall clocks of all nodes.
struct Clocks {
    library: PathBuf,
    dir: PathBuf,
}

impl Clocks {
    fn build(cluster: &Cluster) -> Clocks {
        let dir = cluster.scratch().to_path_buf();
        let library = dir.join("wall_clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/wall_clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(
            built.is_ok_and(|status| status.success()),
            "cc is there: ./test.sh installs it"
        );
        Clocks { library, dir }
    }

    fn file(&self, node: &Node) -> PathBuf {
        self.dir.join(format!("offset-{}", node.id))
    }

    fn set(&self, node: &Node, seconds: i64) {
        let file = OpenOptions::new().write(true).open(self.file(node));
        let file = file.expect("made when the node was started");
        file.write_all_at(&seconds.to_le_bytes(), 0)
            .expect("eight bytes");
    }

    /// Starts a node whose clock is off by so much.
    fn start(&self, cluster: &mut Cluster, node: &Node, seconds: i64) {
        let path = self.file(node);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("the scratch directory is writable");
        file.set_len(8).expect("room for a number");
        self.set(node, seconds);
        let (library, path) = (
            self.library.display().to_string(),
            path.display().to_string(),
        );
        cluster.restart_with(
            node,
            &[("LD_PRELOAD", &library), ("WALL_CLOCK_OFFSET", &path)],
        );
    }

    /// Moves a node's clock and waits until it shows.
    fn jump(&self, cluster: &Cluster, node: &Node, seconds: i64) {
        self.set(node, seconds);
        let parts = cluster
            .connect(node)
            .call(&["TIME"])
            .expect("TIME is answered")
            .array();
        let real = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("past 1970")
            .as_secs();
        let off = parts[0].number() - real as i64;
        assert!(
            (off - seconds).abs() <= 2,
            "the clock is off by {off} s, not {seconds}"
        );
    }
}

/// A key with a life of `TTL`, and a ONCE token, that must outlast everything.
struct Kept(Instant);

impl Kept {
    fn set(cluster: &Cluster) -> Kept {
        let mut client = cluster.client();
        let begun = Instant::now();
        let life = TTL.as_millis().to_string();
        let reply = client
            .call(&["SET", "kept", "v", "PX", &life])
            .expect("answered");
        assert_eq!(reply, Value::ok());
        assert_eq!(
            client.call(&["ONCE", "t", "INCR", "n"]).expect("answered"),
            Value::Int(1)
        );
        Kept(begun)
    }

    /// It has as much left as really passed, and the token still stands for its reply.
    fn check(&self, cluster: &Cluster, when: &str) {
        let left = self.left(cluster, when);
        println!(
            "{when}: {left} ms of {TTL:?} left, {:?} passed",
            self.0.elapsed()
        );
    }

    fn left(&self, cluster: &Cluster, when: &str) -> i64 {
        let mut client = cluster.client();
        let left = client.call(&["PTTL", "kept"]).expect("answered").number();
        let passed = self.0.elapsed();
        let least = TTL.saturating_sub(passed + GAIN).as_millis() as i64;
        assert!(least > 0, "{when}: the machine is too slow for this test");
        assert!(
            left >= least && left <= TTL.as_millis() as i64,
            "{when}: {left} ms left, at least {least}"
        );
        let again = client.call(&["ONCE", "t", "INCR", "n"]).expect("answered");
        assert_eq!(again, Value::Int(1), "{when}: the token was forgotten");
        left
    }
}

fn switch_to(cluster: &Cluster, node: &Node) {
    until("the other node is primary", PATIENCE, || {
        let primary = cluster.try_primary()?;
        if primary.id != node.id {
            // Refused until the other is in the sync set.
            cluster.cli(&["switchover", "--node", &primary.client]);
            return None;
        }
        Some(())
    });
}

#[test]
fn one_clock_that_jumps_by_hours_expires_nothing_early_and_keeps_nothing_for_ever() {
    let mut cluster = turn::start(&Spec::pair());
    let clocks = Clocks::build(&cluster);
    let nodes = cluster.nodes();
    cluster.kill_all(&nodes);
    nodes
        .iter()
        .for_each(|node| clocks.start(&mut cluster, node, 0));
    let first = cluster.primary();
    let second = nodes
        .iter()
        .find(|node| node.holds_data() && node.id != first.id)
        .expect("a pair has two");
    let kept = Kept::set(&cluster);

    clocks.jump(&cluster, &first, 3 * HOUR);
    holds_for(Duration::from_millis(1500), || {
        kept.left(&cluster, "primary 3 h ahead");
    });
    kept.check(&cluster, "primary 3 h ahead");
    // One bad clock at a time: for a second its own core still believes what it was told last.
    clocks.jump(&cluster, &first, 0);
    holds_for(Duration::from_millis(2500), || {
        kept.left(&cluster, "primary's clock right again");
    });

    // Its clock is wrong before it becomes primary: it must not start from it.
    clocks.jump(&cluster, second, 5 * HOUR);
    switch_to(&cluster, second);
    kept.check(&cluster, "new primary 5 h ahead");

    // Back in time: log time does not stand still.
    clocks.jump(&cluster, second, -5 * HOUR);
    let mut client = cluster.client();
    let begun = Instant::now();
    assert_eq!(
        client
            .call(&["SET", "brief", "v", "PX", "1000"])
            .expect("answered"),
        Value::ok()
    );
    let gone = eventually(Duration::from_secs(10), || {
        (client.call(&["EXISTS", "brief"]).expect("answered") == Value::Int(0)).then(Instant::now)
    });
    let lived = gone.expect("a key of one second ends within ten") - begun;
    assert!(lived >= Duration::from_millis(990), "it lived {lived:?}");
    kept.check(&cluster, "primary 5 h behind");

    // A failover to a node with a right clock, from one in the past.
    cluster.kill(second);
    kept.check(&cluster, "after the failover");

    // Everybody starts anew, one of them a month in the future.
    clocks.start(&mut cluster, second, 0);
    cluster.backup();
    cluster.wait_equal_digests(&cluster.data_nodes());
    cluster.kill_all(&nodes);
    for node in &nodes {
        let off = if node.id == first.id {
            30 * 24 * HOUR
        } else {
            0
        };
        clocks.start(&mut cluster, node, off);
    }
    kept.check(&cluster, "started with one node a month ahead");
    cluster.wait_sync_backups(1);
    cluster.wait_equal_digests(&cluster.data_nodes());
}
