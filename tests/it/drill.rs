//! Drills on a real cluster: a restore that is proved, one that is sabotaged, and a failover.

use crate::archive::wait_archived;
use crate::runbooks::{settings_of, wait_whole};
use crate::turn;
use age::secrecy::ExposeSecret;
use rig::cluster::{PATIENCE, digest};
use rig::{Cluster, Conn, Node, Spec, until};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// What a drill with `--json` printed, and the file that it kept.
struct Drilled {
    code: Option<i32>,
    report: Json,
    file: PathBuf,
}

fn drill(cluster: &Cluster, args: &[&str]) -> Drilled {
    let reports = cluster.scratch().join("reports");
    let place = reports.display().to_string();
    let before = reports_in(&reports);
    let mut words = vec!["drill"];
    words.extend(args);
    words.extend(["--drill-reports", &place, "--json"]);
    let said = cluster.cli(&words);
    let report = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    let mut new = reports_in(&reports);
    new.retain(|path| !before.contains(path));
    assert_eq!(new.len(), 1, "one report more: {said:?}");
    Drilled {
        code: said.code,
        report,
        file: new.remove(0),
    }
}

fn reports_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

impl Drilled {
    #[track_caller]
    fn assert_passed(&self) {
        assert_eq!(self.report["passed"], true, "{:#}", self.report);
        assert_eq!(self.code, Some(0), "{:#}", self.report);
        assert_eq!(self.report["measured"]["digests_equal"], true);
    }

    #[track_caller]
    fn assert_failed(&self, reason: &str) {
        assert_eq!(self.code, Some(13), "{:#}", self.report);
        assert_eq!(self.report["passed"], false);
        let reasons = self.report["reasons"].to_string();
        assert!(reasons.contains(reason), "{reasons}");
    }

    fn step(&self, name: &str) -> &Json {
        let steps = self.report["steps"].as_array().expect("a list");
        let found = steps.iter().find(|step| step["name"] == name);
        found.unwrap_or_else(|| panic!("no step {name}: {:#}", self.report))
    }
}

/// A cluster with keys, accounts and a transfer, and its backup.
fn with_backup() -> (turn::Turn, String) {
    let cluster = turn::start(&Spec::pair());
    let place = cluster.scratch().join("backup").display().to_string();
    let mut client = cluster.client();
    for number in 0..50 {
        let key = format!("k{number}");
        client.call(&["SET", &key, "v"]).expect("SET");
    }
    for words in [
        "ACCOUNT.CREATE 1 LEDGER 978 CODE 1",
        "ACCOUNT.CREATE 2 LEDGER 978 CODE 1",
        "TRANSFER.CREATE 10 1 2 500 LEDGER 978 CODE 1",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let reply = client.call(&words).expect("the ledger answers");
        assert!(reply.refusal().is_none(), "{reply:?}");
    }
    let primary = cluster.primary().client;
    cluster
        .cli(&["backup", "now", "--node", &primary, "--to", &place])
        .success();
    (cluster, place)
}

fn leftovers(scratch: &Path) -> usize {
    let entries = std::fs::read_dir(scratch).into_iter().flatten().flatten();
    entries.count()
}

#[test]
fn a_restore_drill_proves_the_backup_and_fails_on_a_sabotaged_one() {
    let (cluster, place) = with_backup();
    let node = cluster.primary().client;
    let (key, scratch) = (
        cluster.scratch().join("key"),
        cluster.scratch().join("drills"),
    );
    let (key_text, scratch_text) = (key.display().to_string(), scratch.display().to_string());
    let public = cluster
        .cli(&["drill", "keygen", "--key", &key_text])
        .success();
    let before = digest(&node).expect("DIGEST is answered");
    let restore = |from: &str, more: &[&str]| {
        let mut args = vec!["restore", "--from", from, "--node", &node];
        args.extend(["--scratch", &scratch_text, "--drill-key", &key_text]);
        args.extend(more);
        drill(&cluster, &args)
    };

    let well = restore(
        &place,
        &["--rto-target", "5m", "--rpo-target", "1h", "--why", "test"],
    );
    well.assert_passed();
    let measured = &well.report["measured"];
    assert!(measured["rto_seconds"].as_f64() > Some(0.0), "{measured}");
    assert!(measured["rpo_commands"].as_u64().is_some(), "{measured}");
    assert_eq!(measured["lost"], 0, "{measured}");
    assert!(
        well.step("audit of the ledger")["detail"]
            .to_string()
            .contains("transfers 1")
    );
    assert_eq!(well.step("sample of accounts")["detail"], "2 accounts read");
    well.step("point in the cluster's history");
    assert_eq!(leftovers(&scratch), 0, "nothing is left of the drill");
    assert_eq!(
        digest(&node).expect("it serves").1,
        before.1,
        "nothing was changed"
    );
    assert!(well.file.with_extension("xml").is_file());
    assert!(well.file.with_extension("html").is_file());

    let late = restore(&place, &["--rto-target", "1ms"]);
    late.assert_failed("RTO was");
    prove(&cluster, &well, public.trim());
    sabotage(Path::new(&place));
    let sabotaged = restore(&place, &[]);
    sabotaged.assert_failed("the newest way: ");
    assert_eq!(
        leftovers(&scratch),
        0,
        "nothing is left of a failed drill either"
    );
}

/// The report is proved as it is, and not with one digit changed.
fn prove(cluster: &Cluster, drilled: &Drilled, public: &str) {
    let file = drilled.file.display().to_string();
    let verify = ["drill", "verify-report", &file, "--public-key", public];
    cluster.cli(&verify).success();
    let text = std::fs::read_to_string(&drilled.file).expect("a report that was kept");
    let changed = text.replace("\"lost\": 0", "\"lost\": 1");
    assert_ne!(changed, text);
    std::fs::write(&drilled.file, changed).expect("the file can be changed");
    assert_eq!(cluster.cli(&verify).code, Some(7));
    std::fs::write(&drilled.file, text).expect("the file can be changed back");
    let reports = drilled.file.parent().expect("it is in a directory");
    let reports = reports.display().to_string();
    let list = ["drill", "report", "--drill-reports", &reports, "--json"];
    let list: Json = serde_json::from_str(&cluster.cli(&list).success()).expect("JSON");
    assert_eq!(list["reports"].as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!(list["reports"][0]["public_key"], public, "{list}");
}

/// Flips a bit in the middle of every snapshot.
fn sabotage(store: &Path) {
    let mut open = vec![store.to_path_buf()];
    let mut hurt = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a directory").flatten();
            open.extend(entries.map(|entry| entry.path()));
        } else if path.to_string_lossy().contains("snapshot") {
            let mut bytes = std::fs::read(&path).expect("a file that was listed");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).expect("the file can be changed");
            hurt += 1;
        }
    }
    assert!(hurt > 0, "no snapshot in {}", store.display());
}

/// As the document has it in a crontab: nothing but the settings names the key.
#[test]
fn the_nightly_drill_of_an_encrypted_archive_takes_its_key_from_the_settings() {
    let scratch = tempfile::tempdir().expect("a scratch directory can be made");
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let key = age::x25519::Identity::generate();
    std::fs::write(path("key"), key.to_string().expose_secret()).expect("it is writable");
    let spec = Spec::pair().archived(&path("archive"));
    let cluster = turn::start(&spec.sealed_to(&key.to_public().to_string()));
    cluster.client().call(&["SET", "k", "v"]).expect("SET");
    wait_archived(&cluster);
    let settings = std::fs::read_to_string(settings_of(&cluster.primary())).expect("a file");
    let nightly = |more: &str| {
        std::fs::write(path("node.toml"), format!("{more}{settings}")).expect("it is writable");
        let file = path("node.toml");
        let words = ["restore", "--config", &file];
        let told = ["--by", "cron", "--why", "nightly"];
        drill(&cluster, &[&words[..], &told].concat())
    };
    nightly("").assert_failed("--identity FILE");
    nightly(&format!("drill_identity = {:?}\n", path("key"))).assert_passed();
}

#[test]
fn a_failover_drill_by_kill_loses_and_doubles_nothing() {
    let cluster = turn::start(&Spec::pair());
    wait_whole(&cluster);
    let old = cluster.primary();
    let before = cluster.client().call(&["DBSIZE"]).expect("DBSIZE");
    let failover = ["failover", "--fault", "kill", "--node", &old.client];
    let unconfirmed = cluster.cli(&[
        "drill",
        "failover",
        "--fault",
        "kill",
        "--node",
        &old.client,
    ]);
    assert_eq!(unconfirmed.code, Some(5), "{unconfirmed:?}");
    assert_eq!(cluster.primary().pid, old.pid, "nothing was changed");

    let mut args = failover.to_vec();
    args.extend(["--yes", "standfast"]);
    let drilled = drill(&cluster, &args);
    drilled.assert_passed();
    let measured = &drilled.report["measured"];
    println!("{measured}");
    assert_eq!(measured["lost"], 0, "{measured}");
    assert_eq!(measured["doubled"], 0, "{measured}");
    assert!(measured["rto_seconds"].as_f64() > Some(0.0), "{measured}");
    // Not who is primary now: a busy machine may have had another failover since.
    let steps = drilled.report["steps"].as_array().expect("steps");
    let took_over = steps.iter().find(|step| step["name"] == "another primary");
    let said = took_over.expect("the step").to_string();
    assert!(said.contains("takes writes"), "{said}");
    assert!(!said.contains(&format!("node {} takes", old.id)), "{said}");
    cluster.wait_sync_backups(1);
    let after = cluster.client().call(&["DBSIZE"]).expect("DBSIZE");
    assert_eq!(after, before, "the drill's keys are gone");
}

#[test]
fn a_failover_drill_by_switchover_is_seen_by_no_client() {
    let cluster = turn::start(&Spec::pair());
    wait_whole(&cluster);
    let old = cluster.primary();
    let words = ["failover", "--fault", "switchover", "--node", &old.client];
    let drilled = drill(&cluster, &[&words[..], &["--yes", "standfast"]].concat());
    drilled.assert_passed();
    let measured = &drilled.report["measured"];
    assert_eq!(measured["lost"], 0, "{measured}");
    assert_eq!(measured["doubled"], 0, "{measured}");
    let took_over = drilled.step("another primary").to_string();
    assert!(
        !took_over.contains(&format!("node {} takes", old.id)),
        "{took_over}"
    );
    assert_eq!(cluster.pid(&old), old.pid.expect("it runs"), "nobody died");
}

/// The letter that the kernel has for what a process does; `None`: there is none of this number.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Begins a failover drill and kills it as soon as the primary is `hurt`; gives what it was.
fn kill_a_drill(cluster: &Cluster, fault: &str, hurt: fn(Option<char>) -> bool) -> (Node, u32) {
    let old = cluster.primary();
    let pid = cluster.status(&old)["pid"].as_u64().expect("it tells");
    let pid = u32::try_from(pid).expect("a pid");
    let mut drill = std::process::Command::new(cluster.binary())
        .args(["drill", "failover", "--fault", fault, "--yes", "standfast"])
        .args(["--node", &old.client, "--drill-reports"])
        .arg(cluster.scratch().join("reports"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the binary can be started");
    until("the primary is hurt", PATIENCE, || {
        assert_eq!(drill.try_wait().expect("a child"), None, "it goes on");
        hurt(state_of(pid)).then_some(())
    });
    drill.kill().expect("it is there");
    let ended = drill.wait().expect("a child");
    assert_eq!(ended.code(), None, "it was killed in the middle: {ended}");
    (old, pid)
}

#[test]
fn what_a_drill_has_done_is_undone_when_it_is_killed_itself() {
    let cluster = turn::start(&Spec::pair());
    wait_whole(&cluster);
    let (_, pid) = kill_a_drill(&cluster, "pause", |state| state == Some('T'));
    until("the paused process goes on", PATIENCE, || {
        state_of(pid).filter(|state| *state != 'T')
    });
    wait_whole(&cluster);

    let is_dead = |state: Option<char>| state.is_none_or(|state| "ZX".contains(state));
    let (old, pid) = kill_a_drill(&cluster, "kill", is_dead);
    let again = until("the killed node is started again", PATIENCE, || {
        let mut conn = Conn::open(&old.client, PATIENCE).ok()?;
        let said = conn.call(&["STANDFAST", "STATUS"]).ok()?;
        let status: Json = serde_json::from_str(&said.text()).ok()?;
        status["pid"].as_u64()
    });
    assert_ne!(again, u64::from(pid), "another process");
    wait_whole(&cluster);
}
