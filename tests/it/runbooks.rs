//! The runbooks of `docs/disaster-recovery.md`: every command, as it stands there.

use crate::ledger::{CREATED, batch, record};
use crate::turn;
use rig::cluster::{PATIENCE, digest};
use rig::{Cluster, Mode, Node, Spec, Value, holds_for, until};
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

/// The transfer that should not have been.
const WRONG: u128 = 4711;

/// The commands of one runbook that are still to be run.
pub struct Runbook {
    name: String,
    commands: VecDeque<Vec<String>>,
    /// What stands in the document, and what it means here.
    meanings: Vec<(&'static str, String)>,
}

impl Runbook {
    pub fn open(name: &str, meanings: &[(&'static str, String)]) -> Runbook {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/disaster-recovery.md");
        let text = fs::read_to_string(path).expect("the document is there");
        let begin = format!("<!-- runbook: {name} -->");
        let (_, text) = text.split_once(&begin).expect("it has the runbook");
        let (text, _) = text.split_once("<!-- end -->").expect("that ends");
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("    standfast "));
        Runbook {
            name: name.to_owned(),
            commands: lines.map(words).collect(),
            meanings: meanings.to_vec(),
        }
    }

    /// The next command's words, as they are meant here.
    pub fn next(&mut self) -> Vec<String> {
        let words = self.commands.pop_front();
        let words = words.unwrap_or_else(|| panic!("{} has no more commands", self.name));
        let meant = |word: &String| {
            let meanings = self.meanings.iter();
            meanings.fold(word.clone(), |word, (here, there)| {
                word.replace(here, there)
            })
        };
        words.iter().map(meant).collect()
    }

    /// Runs the next command, which must succeed, and gives what it prints.
    #[track_caller]
    pub fn run(&mut self, cluster: &Cluster, command: &str) -> String {
        self.run_with(cluster, command, &[])
    }

    /// As `run`, with `--json`.
    #[track_caller]
    pub fn ask(&mut self, cluster: &Cluster, command: &str) -> Json {
        let said = self.run_with(cluster, command, &["--json"]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    #[track_caller]
    pub fn run_with(&mut self, cluster: &Cluster, command: &str, more: &[&str]) -> String {
        let words = self.next();
        let line = words.join(" ");
        assert!(line.starts_with(command), "{line} is not {command}");
        let words: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        println!("$ standfast {line}");
        cluster.cli(&words).success()
    }

    /// The next command is `serve`: it runs in the background.
    #[track_caller]
    pub fn serve(&mut self, cluster: &mut Cluster, node: &Node) {
        let line = self.next().join(" ");
        assert!(node.start.ends_with(&line), "{line} is not {}", node.start);
        println!("$ standfast {line}");
        cluster.restart(node);
    }

    #[track_caller]
    pub fn end(self) {
        assert!(
            self.commands.is_empty(),
            "{}: {:?}",
            self.name,
            self.commands
        );
    }
}

/// A command line's words; double quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.split(" #").next().unwrap_or(line).trim().chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            letter => words.last_mut().expect("there is one").push(letter),
        }
    }
    words
}

pub fn settings_of(node: &Node) -> String {
    let file = node.start.rsplit(' ').next().expect("the settings file");
    file.to_owned()
}

/// What the documents' names mean in this cluster; N0 is its primary.
pub fn meanings(cluster: &Cluster, order: &[Node]) -> Vec<(&'static str, String)> {
    let mut all = vec![(
        "PLACE",
        cluster.scratch().join("archive").display().to_string(),
    )];
    let names = [
        ("N0:7600", "n0.toml"),
        ("N1:7600", "n1.toml"),
        ("N2:7600", "n2.toml"),
    ];
    for ((address, file), node) in names.into_iter().zip(order) {
        all.extend([(address, node.client.clone()), (file, settings_of(node))]);
    }
    all.push(("DIR", order[0].data_dir.display().to_string()));
    all
}

fn transfer(id: u128) -> [u8; 128] {
    record(id, &[(16, 1), (32, 2), (48, id)], 0)
}

fn book(cluster: &Cluster, ids: &[u128]) {
    let events: Vec<_> = ids.iter().copied().map(transfer).collect();
    let told = batch(&mut cluster.client(), "LEDGER.CREATE_TRANSFERS", &events);
    assert_eq!(told, Some(vec![CREATED; ids.len()]));
}

/// By the primary's own word: what `cluster.json` says may be from before its election.
pub fn wait_whole(cluster: &Cluster) {
    until(
        "the other data node is a synchronous backup",
        PATIENCE,
        || {
            let status = cluster.status(&cluster.try_primary()?);
            let mut members = status["members"].as_array()?.iter();
            members
                .any(|one| one["role"] == "sync-backup")
                .then_some(())
        },
    );
    cluster.wait_equal_digests(&cluster.data_nodes());
}

#[test]
fn every_command_of_the_runbooks_does_what_it_says() {
    let mut cluster = turn::start(&Spec::pair().proxied());
    let accounts: Vec<_> = (1..=2).map(|id| record(id, &[], 0)).collect();
    let opened = batch(&mut cluster.client(), "LEDGER.CREATE_ACCOUNTS", &accounts);
    assert_eq!(opened, Some(vec![CREATED; 2]));
    wait_whole(&cluster);
    node_lost(&mut cluster);
    disk_lost(&mut cluster);
    corrupt_node(&mut cluster);
    split(&mut cluster);
    let since = undo(&mut cluster);
    whole_cluster(&mut cluster, &since);
}

/// The primary first, then the other data node, then the witness.
pub fn in_order(cluster: &Cluster) -> Vec<Node> {
    let primary = cluster.primary();
    let mut nodes = cluster.nodes();
    nodes.sort_by_key(|node| (node.id != primary.id, !node.holds_data()));
    nodes
}

fn node_lost(cluster: &mut Cluster) {
    let nodes = in_order(cluster);
    // Not the one that the documents ask: N1 is the primary here.
    let nodes = [nodes[1].clone(), nodes[0].clone(), nodes[2].clone()];
    let mut steps = Runbook::open("node lost", &meanings(cluster, &nodes));
    cluster.kill(&nodes[1]);
    until("another node is primary", PATIENCE, || {
        cluster.try_primary().filter(|node| node.id == nodes[0].id)
    });
    book(cluster, &[1, 2]);
    steps.run(cluster, "status");
    steps.serve(cluster, &nodes[1]);
    wait_whole(cluster);
    steps.end();
}

fn disk_lost(cluster: &mut Cluster) {
    let nodes = in_order(cluster);
    let mut steps = Runbook::open("disk lost", &meanings(cluster, &nodes));
    cluster.kill(&nodes[1]);
    fs::remove_dir_all(&nodes[1].data_dir).expect("the disk is lost");
    book(cluster, &[3, 4]);
    steps.run(cluster, "join");
    steps.serve(cluster, &nodes[1]);
    wait_whole(cluster);
    steps.run(cluster, "status");
    steps.end();
}

fn corrupt_node(cluster: &mut Cluster) {
    let nodes = in_order(cluster);
    let mut steps = Runbook::open("corrupt node", &meanings(cluster, &nodes));
    cluster.kill(&nodes[1]);
    let meta = nodes[1].data_dir.join("meta");
    let length = fs::metadata(&meta).expect("it is there").len();
    fs::write(&meta, vec![7; length as usize]).expect("it can be damaged");
    book(cluster, &[5, 6]);
    let said = steps.run(cluster, "join");
    assert!(said.contains("the old data is kept in"), "{said}");
    steps.serve(cluster, &nodes[1]);
    wait_whole(cluster);
    steps.end();
}

fn split(cluster: &mut Cluster) {
    let nodes = in_order(cluster);
    let mut steps = Runbook::open("split", &meanings(cluster, &nodes));
    let cut_off = nodes[0].number();
    cluster.proxy().isolate(cut_off, Mode::Vanish);
    until("the majority has a primary", PATIENCE, || {
        let other = cluster.try_primary()?;
        (other.id == nodes[1].id).then_some(())
    });
    book(cluster, &[7, 8]);
    // Asked of the majority's side.
    steps.run(cluster, "status");
    holds_for(Duration::from_millis(500), || {
        let mut old = cluster.connect(&nodes[0]);
        let told = old.call(&["SET", "k", "v"]);
        let is_refused = told.as_ref().map_or(true, |told| told.refusal().is_some());
        assert!(is_refused, "{told:?}");
    });
    cluster.proxy().heal();
    wait_whole(cluster);
    steps.end();
}

/// A batch with a wrong transfer in it; gives the timestamp of that one.
fn undo(cluster: &mut Cluster) -> String {
    let nodes = in_order(cluster);
    book(cluster, &(100..150).collect::<Vec<_>>());
    let balance: u128 = (1..9).chain(100..150).sum();
    book(cluster, &[4710, WRONG, 4712]);
    book(cluster, &[5000, 5001]);
    let mut steps = Runbook::open("undo", &meanings(cluster, &nodes));
    steps.run(cluster, "backup now");
    let told = steps.ask(cluster, "restore");
    assert_eq!(told["before"]["transfer"], WRONG.to_string());
    let account = &told["answers"][0]["reply"];
    assert_eq!(account["debits_posted"], balance.to_string(), "{told}");
    assert_eq!(
        told["answers"][1]["reply"],
        Json::Null,
        "it is not there yet"
    );
    let since = told["before"]["timestamp"].to_string();
    steps.meanings.push(("TIME", since.clone()));
    let told = steps.ask(cluster, "restore");
    let later = &told["answers"][0]["reply"][1];
    let ids: Vec<&str> = later
        .as_array()
        .expect("a page")
        .iter()
        .map(|one| one["id"].as_str().expect("a number"))
        .collect();
    assert_eq!(ids, ["4711", "4712", "5000", "5001"]);
    steps.end();
    since
}

/// From nothing but the archive, to right before the wrong transfer.
fn whole_cluster(cluster: &mut Cluster, since: &str) {
    let nodes = in_order(cluster);
    let mut steps = Runbook::open("whole cluster", &meanings(cluster, &nodes));
    cluster.kill_all(&nodes);
    for node in &nodes {
        fs::rename(&node.data_dir, node.data_dir.with_extension("old")).expect("moved away");
    }
    let restored = steps.ask(cluster, "restore");
    assert_eq!(restored["before"]["timestamp"].to_string(), since);
    steps.serve(cluster, &nodes[0]);
    let wanted = &restored["digest"];
    until("the restored node serves reads", PATIENCE, || {
        digest(&nodes[0].client).filter(|(_, digest)| *wanted == digest.as_str())
    });
    for node in &nodes[1..] {
        steps.run(cluster, "join");
        steps.serve(cluster, node);
    }
    // Nobody is taken in, and nothing is written, until it is activated.
    holds_for(Duration::from_secs(3), || {
        let told = cluster.connect(&nodes[0]).call(&["SET", "k", "v"]);
        let told = told.expect("it answers");
        let refusal = told.refusal().expect("it takes no writes");
        assert_eq!(refusal, "READONLY");
        let members = cluster.status(&nodes[0])["members"].clone();
        assert_eq!(members.as_array().map(Vec::len), Some(1), "{members}");
    });
    let file = settings_of(&nodes[1]);
    let said = cluster.cli(&["member", "add", "--config", &file, "--at", &nodes[0].client]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("standfast activate"), "{said:?}");
    cluster.kill(&nodes[0]);
    steps.run(cluster, "activate");
    steps.serve(cluster, &nodes[0]);
    until("all are one cluster", PATIENCE, || {
        let status = steps_status(cluster, &nodes[0])?;
        (status["members"].as_array()?.len() == nodes.len()).then_some(())
    });
    wait_whole(cluster);
    let history = restored["history"].as_str().expect("a history");
    for node in &nodes {
        let status = cluster.status(node);
        let id = status["history"].as_str().unwrap_or_default();
        let of_node = format!("{}-{id}", status["generation"]);
        assert_eq!(of_node, history, "node {}", node.id);
    }
    steps.run(cluster, "status");
    steps.end();
    let mut client = cluster.client();
    let gone = client.call(&["TRANSFER.GET", "4711"]).expect("answered");
    assert_eq!(gone, Value::Nil);
    book(cluster, &[WRONG]);
    cluster.wait_equal_digests(&cluster.data_nodes());
}

fn steps_status(cluster: &Cluster, node: &Node) -> Option<Json> {
    let said = cluster.cli(&["status", "--node", &node.client, "--json"]);
    serde_json::from_str(&said.stdout).ok()
}
