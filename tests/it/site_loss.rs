//! A site is lost for good, or so it seems: the asynchronous site is promoted by force, goes on, and
//! the old site comes back. What was lost is told to the last transfer, and brought back by id.

use crate::ledger::{CREATED, EXISTS, batch, record};
use crate::runbooks::{Runbook, settings_of};
use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Cluster, Conn, Mode, Node, Value, holds_for, until};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An account that may not overdraw and has nothing: whatever debits it is refused.
const POOR: u128 = 11;
const EVENTS: u128 = 20;

/// What one client was told, and what it sent last without being told.
#[derive(Debug, Default)]
struct Notes {
    created: BTreeSet<u128>,
    refused: BTreeSet<u128>,
    in_flight: BTreeSet<u128>,
}

fn transfer(id: u128) -> [u8; 128] {
    let debit = if id.is_multiple_of(EVENTS) {
        POOR
    } else {
        id % 10 + 1
    };
    record(id, &[(16, debit), (32, (id + 1) % 10 + 1), (48, 3)], 0)
}

/// Sends batches of fresh ids to one node until it does not answer or this is to stop.
fn load(node: &Node, first: u128, stop: &AtomicBool) -> Notes {
    let mut notes = Notes::default();
    let mut conn = Conn::open(&node.client, PATIENCE).expect("the primary accepts clients");
    for next in (first..).step_by(EVENTS as usize) {
        let ids: Vec<u128> = (next..next + EVENTS).collect();
        let events: Vec<_> = ids.iter().map(|id| transfer(*id)).collect();
        match batch(&mut conn, "LEDGER.CREATE_TRANSFERS", &events) {
            Some(statuses) => {
                for (id, status) in ids.iter().zip(statuses) {
                    let into = match status {
                        CREATED => &mut notes.created,
                        _ => &mut notes.refused,
                    };
                    into.insert(*id);
                }
            }
            None => {
                notes.in_flight.extend(ids);
                break;
            }
        }
        // Enough to lose, and not more than a test build has time to account for.
        holds_for(Duration::from_millis(10), || ());
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    notes
}

/// Which of these transfers are there.
fn there(cluster: &Cluster, node: &Node, ids: &BTreeSet<u128>) -> BTreeSet<u128> {
    let ids: Vec<u128> = ids.iter().copied().collect();
    let mut found = BTreeSet::new();
    for chunk in ids.chunks(8000) {
        let asked: Vec<u8> = chunk.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut conn = cluster.connect(node);
        conn.push_bytes(&[b"LEDGER.LOOKUP_TRANSFERS", &asked]);
        conn.flush().expect("it is sent");
        let Ok(Value::Bulk(records)) = conn.read() else {
            panic!("no answer to a lookup");
        };
        let id = |record: &[u8]| u128::from_le_bytes(record[..16].try_into().expect("16 bytes"));
        found.extend(records.chunks_exact(128).map(id));
    }
    found
}

fn run(cluster: &Cluster, args: &[&str]) -> Json {
    let said = cluster.cli(args).success();
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"))
}

/// What the documents' names mean in this cluster.
fn site_meanings(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let [home, other, far] = ["0", "1", "2"].map(|id| cluster.node(id));
    let dir = |node: &Node| node.data_dir.display().to_string();
    vec![
        ("FAR:7600", far.client.clone()),
        ("OLD:7600", home.client.clone()),
        ("HOME:7600", home.client.clone()),
        ("far.toml", settings_of(&far)),
        ("/data/n0", dir(&home)),
        ("/data/n1", dir(&other)),
        ("/data/far", dir(&far)),
    ]
}

/// What the data directories of these nodes tell of the loss.
fn shown(cluster: &Cluster, nodes: &[&Node]) -> Json {
    let dirs = nodes.iter().map(|node| node.data_dir.display().to_string());
    let dirs: Vec<String> = dirs.collect();
    let mut args = vec!["loss", "show", "--json"];
    for dir in &dirs {
        args.extend(["--from", dir]);
    }
    run(cluster, &args)
}

/// The lost transfers by id: whether each had been acknowledged.
fn lost(shown: &Json) -> BTreeMap<u128, String> {
    let transfers = shown["transfers"].as_array().expect("a list");
    let of = |one: &Json| {
        let id = one["id"].as_str().and_then(|id| id.parse().ok());
        let told = one["acknowledged"].as_str().expect("a word").to_owned();
        (id.expect("a number"), told)
    };
    let mut lost = BTreeMap::new();
    for one in transfers.iter().filter(|one| one["effect"] == "lost") {
        let (id, told) = of(one);
        assert!(lost.insert(id, told).is_none(), "{id} stands there twice");
    }
    lost
}

/// How a site is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Killed,
    /// It lives, and nobody of the other site can tell.
    PartedFrom,
}

/// The site of the primary is lost under load, while the other one is behind.
fn lose_the_site(cluster: &mut Cluster, site: &[Node], how: How) -> Notes {
    let (primary, stop) = (cluster.primary(), Arc::new(AtomicBool::new(false)));
    let loads: Vec<_> = (1..=3u128)
        .map(|part| {
            let (primary, stop) = (primary.clone(), stop.clone());
            std::thread::spawn(move || load(&primary, part * 10_000_000, &stop))
        })
        .collect();
    holds_for(Duration::from_secs(1), || ());
    // Between the sites the line is slow, and then there is none.
    cluster.proxy().isolate(2, Mode::Vanish);
    let cut = std::time::Instant::now();
    holds_for(Duration::from_secs(2), || ());
    let members = cluster.status(&primary)["members"].clone();
    let far = members
        .as_array()
        .expect("an array")
        .iter()
        .find(|m| m["id"] == 2);
    let far = far.expect("the far member");
    let lag = Duration::from_millis(far["lag_ms"].as_u64().expect("the primary knows"));
    assert!(far["lag_bytes"].as_u64() > Some(0), "{far}");
    // It was in step, but for what was on its way.
    assert!(lag >= Duration::from_secs(1), "{lag:?}");
    assert!(lag <= cut.elapsed() + Duration::from_secs(1), "{lag:?}");
    if how == How::Killed {
        cluster.kill_all(site);
    }
    stop.store(true, Ordering::Relaxed);
    let mut notes = Notes::default();
    for load in loads {
        let one = load.join().expect("a client ends");
        notes.created.extend(one.created);
        notes.refused.extend(one.refused);
        notes.in_flight.extend(one.in_flight);
    }
    notes
}

fn promote(cluster: &Cluster, steps: &mut Runbook, far: &Node) {
    let confirmed = ["--yes", "standfast"];
    let said = steps.run_with(cluster, "promote --force", &confirmed);
    println!("{said}");
    // Before it asks: from when on, by a clock that people read, and how many at least.
    let (_, warned) = said
        .split_once("loses every command after LSN ")
        .expect("a warning");
    assert!(
        warned.contains("Z, ") && warned.contains("s ago"),
        "{warned}"
    );
    assert!(warned.contains(": at least "), "{warned}");
    until("the other site serves", PATIENCE, || {
        let status = cluster.status(far);
        (status["role"] == "primary" && status["serving"] == true).then_some(())
    });
}

/// The promoted node alone knows that something is missing, and not what.
fn suspect(cluster: &Cluster, far: &Node, notes: &Notes) {
    let missing = notes.created.len() - there(cluster, far, &notes.created).len();
    assert!(missing > 0, "the exercise loses something");
    let shown = shown(cluster, &[far]);
    assert_eq!(shown["final"], false, "{shown}");
    assert!(lost(&shown).is_empty(), "which ones is not known yet");
    let statement = &shown["statements"][0];
    assert_eq!(statement["what"], "forced_promotion");
    let at_least = statement["at_least"].as_u64().expect("a number");
    println!("{missing} transfers are missing; at least {at_least} commands, it was said");
    assert!(at_least <= missing as u64 + 100, "{at_least}: {missing}");
}

#[test]
fn a_site_that_was_killed_is_accounted_for_to_the_last_transfer_and_taken_back() {
    exercise(How::Killed);
}

/// Its nodes know what they had committed, so they give way to a snapshot, not to a longer log.
#[test]
fn a_site_that_was_parted_is_accounted_for_to_the_last_transfer_and_taken_back() {
    exercise(How::PartedFrom);
}

/// Whoever has nothing to give up says so: else the total would be "at least" for ever.
#[test]
fn a_site_that_loses_nothing_is_known_to_have_lost_nothing() {
    let mut cluster = open_sites();
    let far = cluster.node("2");
    let site: Vec<Node> = cluster
        .nodes()
        .into_iter()
        .filter(|node| node.id != far.id)
        .collect();
    cluster.kill_all(&site);
    let mut steps = Runbook::open("site lost", &site_meanings(&cluster));
    promote(&cluster, &mut steps, &far);
    come_back(&mut cluster, &mut steps, &site, &far, How::Killed);
    // Each says so when it is taken in.
    let all: Vec<Node> = cluster.data_nodes();
    let all: Vec<&Node> = all.iter().collect();
    until("all have said what they give up", PATIENCE, || {
        (shown(&cluster, &all)["final"] == true).then_some(())
    });
    let shown = steps.ask(&cluster, "loss show");
    assert_eq!(shown["final"], true, "{shown}");
    assert_eq!(shown["transfers"], serde_json::json!([]));
    // The start of an epoch that the old site may have ordered when it came back is no command.
    let statements = shown["statements"].as_array().expect("a list");
    for id in 0..=2 {
        let of_node = statements.iter().filter(|one| one["node"] == id);
        assert!(of_node.count() > 0, "node {id}: {shown}");
    }
    assert!(statements.iter().all(|one| one["commands"] == 0), "{shown}");
}

fn exercise(how: How) {
    let mut cluster = open_sites();
    let far = cluster.node("2");
    let nodes = cluster.nodes();
    let site: Vec<Node> = nodes.into_iter().filter(|one| one.id != far.id).collect();
    let mut notes = lose_the_site(&mut cluster, &site, how);
    assert!(!notes.refused.is_empty());
    let mut steps = Runbook::open("site lost", &site_meanings(&cluster));
    promote(&cluster, &mut steps, &far);
    suspect(&cluster, &far, &notes);

    // Work goes on.
    let events: Vec<_> = (1..=400).map(transfer).collect();
    let told = batch(
        &mut cluster.connect(&far),
        "LEDGER.CREATE_TRANSFERS",
        &events,
    );
    for (id, status) in (1..=400).zip(told.expect("the new primary answers")) {
        let into = match status {
            CREATED => &mut notes.created,
            _ => &mut notes.refused,
        };
        into.insert(id);
    }

    come_back(&mut cluster, &mut steps, &site, &far, how);
    let lost = account_for(&cluster, &mut steps, &notes, how);
    bring_back(&cluster, &mut steps, &notes, &lost);
    switch_back(&mut cluster, &mut steps, &far);
    steps.end();
}

/// Two sites with a slow line between them, and accounts.
fn open_sites() -> turn::Turn {
    let spec = rig::Spec {
        sync: 1,
        asynchronous: 1,
        witness: 1,
        ..rig::Spec::default()
    };
    let cluster = turn::start(&spec.proxied());
    let mut accounts: Vec<_> = (1..=10).map(|id| record(id, &[], 0)).collect();
    accounts.push(record(POOR, &[], 2));
    let opened = batch(&mut cluster.client(), "LEDGER.CREATE_ACCOUNTS", &accounts);
    assert_eq!(opened, Some(vec![CREATED; 11]));
    cluster.wait_equal_digests(&cluster.data_nodes());
    cluster.proxy().isolate(2, Mode::Throttle(200 << 10));
    cluster
}

/// The final statement is exactly what is missing; its ids.
fn account_for(cluster: &Cluster, steps: &mut Runbook, notes: &Notes, how: How) -> BTreeSet<u128> {
    let [home, other, far] = ["0", "1", "2"].map(|id| cluster.node(id));
    let missing: BTreeSet<u128> = &notes.created - &there(cluster, &far, &notes.created);
    let maybe: BTreeSet<u128> = &notes.in_flight - &there(cluster, &far, &notes.in_flight);
    for (some, lacks) in [
        (vec![&home, &other], "the node that was promoted by force"),
        (vec![&far, &other], "node 0"),
        (vec![&home, &far], "node 1"),
    ] {
        let shown = shown(cluster, &some);
        assert_eq!(shown["final"], false, "{}", shown["statements"]);
        let doubt = shown["doubt"].as_str().expect("a reason");
        assert!(doubt.contains(lacks), "{doubt}");
    }
    let shown = steps.ask(cluster, "loss show");
    assert_eq!(shown["final"], true, "{}", shown["doubt"]);
    let lost = lost(&shown);
    let listed = steps.run(cluster, "loss list");
    assert!(listed.contains("promoted by force"), "{listed}");
    assert!(listed.contains("node 0 gave up"), "{listed}");
    let exported = steps.run(cluster, "loss export");
    let made = exported.lines().filter(|line| line.contains(",lost,"));
    assert_eq!(made.count(), lost.len(), "{exported}");
    assert_eq!(shown["unproved"], serde_json::json!([]));
    let ids: BTreeSet<u128> = lost.keys().copied().collect();
    // Exactly what is missing: all that was acknowledged, and of what was not only what was sent.
    assert_eq!(&missing - &ids, BTreeSet::new(), "missing, and not listed");
    assert_eq!(
        &(&ids - &missing) - &maybe,
        BTreeSet::new(),
        "listed, and not missing"
    );
    assert!(
        missing.iter().all(|id| lost[id] != "no"),
        "acknowledged, and denied"
    );
    if how == How::PartedFrom {
        assert!(
            missing.iter().all(|id| lost[id] == "yes"),
            "known committed"
        );
    }
    let certain = lost.values().filter(|told| *told == "yes").count();
    println!(
        "{} listed, {certain} of them acknowledged for certain; {} missing, {} of {} in flight",
        lost.len(),
        missing.len(),
        (&ids - &missing).len(),
        notes.in_flight.len(),
    );
    assert_eq!(
        &notes.refused & &ids,
        BTreeSet::new(),
        "a refused transfer is not lost"
    );
    ids
}

/// The old site's nodes are there again: refused, until they are told to rejoin.
fn come_back(cluster: &mut Cluster, steps: &mut Runbook, site: &[Node], far: &Node, how: How) {
    cluster.proxy().heal();
    if how == How::Killed {
        for node in site {
            cluster.restart(node);
        }
    }
    let data = site.iter().filter(|node| node.holds_data());
    for node in data.clone() {
        until(
            &format!("node {} has heard that its history has ended", node.id),
            PATIENCE,
            || {
                let alarms = cluster.status(node)["alarms"].to_string();
                alarms.contains("ended by force").then_some(())
            },
        );
        let reply = cluster.connect(node).call(&["SET", "k", "old"]);
        let reply = reply.expect("an answer");
        assert!(reply.refusal().is_some(), "{reply:?}");
    }
    let words = steps.next();
    let home = &cluster.node("0").client;
    for node in data {
        let words = words.iter().map(|word| match word {
            word if word == home => &node.client,
            word => word,
        });
        let words: Vec<&str> = words.map(String::as_str).collect();
        assert_eq!(words[0], "rejoin");
        println!("node {}: {}", node.id, cluster.cli(&words).success());
    }
    cluster.wait_equal_digests(&cluster.data_nodes());
    assert_eq!(cluster.primary().id, far.id);
}

/// By id: nothing is missing then, and nothing doubled.
fn bring_back(cluster: &Cluster, steps: &mut Runbook, notes: &Notes, lost: &BTreeSet<u128>) {
    let far = cluster.primary();
    let count = lost.len() as u64;
    // One that a client has sent again by itself.
    let again = *lost.iter().next().expect("something was lost");
    let told = batch(
        &mut cluster.client(),
        "LEDGER.CREATE_TRANSFERS",
        &[transfer(again)],
    );
    assert_eq!(told, Some(vec![CREATED]));
    let dry = steps.ask(cluster, "loss replay")["transfers"].clone();
    assert_eq!(
        (&dry["missing"], &dry["exists"]),
        (&(count - 1).into(), &1.into()),
        "{dry}"
    );
    let mut words = steps.next();
    words.push("--json".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let replay = || run(cluster, &words)["transfers"].clone();
    let done = replay();
    assert_eq!(
        (&done["created"], &done["exists"]),
        (&(count - 1).into(), &1.into()),
        "{done}"
    );
    let twice = replay();
    assert_eq!(
        (&twice["created"], &twice["exists"]),
        (&Json::Null, &count.into()),
        "{twice}"
    );
    let all = &notes.created | lost;
    assert_eq!(there(cluster, &far, &all), all, "none is missing");
    let audit = cluster
        .client()
        .call(&["LEDGER.AUDIT"])
        .expect("clean books");
    let Value::Array(audit) = audit else {
        panic!("{audit:?}");
    };
    assert_eq!(audit[3], Value::Int(all.len() as i64), "none is doubled");
}

/// The site takes over again, without loss; the far one is what it was.
fn switch_back(cluster: &mut Cluster, steps: &mut Runbook, far: &Node) {
    cluster.wait_sync_backups(2);
    let first = 90_000_000u128;
    let (stop, home) = (Arc::new(AtomicBool::new(false)), cluster.node("0"));
    let addresses = cluster.addresses();
    let clerk = std::thread::spawn({
        let stop = stop.clone();
        move || keep_working(&addresses, first, &stop)
    });
    println!("{}", steps.run(cluster, "switchover"));
    until("the site's node is primary", PATIENCE, || {
        cluster
            .try_primary()
            .filter(|primary| primary.id == home.id)
    });
    holds_for(Duration::from_secs(1), || ());
    stop.store(true, Ordering::Relaxed);
    let created = clerk.join().expect("the clerk ends");
    assert!(!created.is_empty());
    assert_eq!(
        there(cluster, far, &created),
        created,
        "nothing is lost on the way home"
    );
    println!("{}", steps.run(cluster, "member remove"));
    println!("{}", steps.run(cluster, "member add"));
    until("the far node is asynchronous again", PATIENCE, || {
        let roles = cluster.status(&home)["members"].as_array()?.clone();
        let far = roles.into_iter().find(|one| one["id"] == 2)?;
        println!("{far}");
        (far["role"] == "async-backup").then_some(())
    });
    cluster.wait_equal_digests(&cluster.data_nodes());
    let audit = cluster.client().call(&["LEDGER.AUDIT"]);
    assert!(audit.is_ok_and(|audit| audit.refusal().is_none()));
}

/// One transfer after another, each until it is answered by whoever is primary.
pub fn keep_working(nodes: &[String], first: u128, stop: &AtomicBool) -> BTreeSet<u128> {
    let mut created = BTreeSet::new();
    for id in (first..).filter(|id| !id.is_multiple_of(EVENTS)) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let told = until("a primary answers", PATIENCE, || {
            let prompt = Duration::from_millis(500);
            nodes.iter().find_map(|node| {
                let mut conn = Conn::open(node, prompt).ok()?;
                batch(&mut conn, "LEDGER.CREATE_TRANSFERS", &[transfer(id)])
            })
        });
        assert!([CREATED, EXISTS].contains(&told[0]), "{told:?}");
        created.insert(id);
    }
    created
}
