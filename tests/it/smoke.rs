//! The README's tour: `dev`, a client, a killed primary, a node that comes back.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Node, Spec, Value, until};
use std::process::Command;

/// Runs redis-cli against a node; panics unless it exits with 0.
fn redis_cli(node: &Node, input: &[&str]) -> String {
    let (host, port) = node.client.split_once(':').expect("host:port");
    let output = Command::new("redis-cli")
        .args(["-h", host, "-p", port])
        .args(input)
        .output()
        .expect("redis-cli is there: ./test.sh installs it");
    assert!(output.status.success(), "{input:?}: {output:?}");
    String::from_utf8(output.stdout)
        .expect("redis-cli prints text")
        .trim_end()
        .to_owned()
}

#[test]
fn a_new_user_meets_a_cluster_that_survives_its_primary() {
    // What `dev` starts by default: primary, synchronous and asynchronous backup, witness.
    let mut cluster = turn::start(&Spec {
        sync: 1,
        asynchronous: 1,
        witness: 1,
        ..Spec::default()
    });
    let old = cluster.primary();
    assert_eq!(redis_cli(&old, &["SET", "greeting", "hello"]), "OK");
    assert_eq!(redis_cli(&old, &["GET", "greeting"]), "hello");
    assert_eq!(redis_cli(&old, &["INCR", "visits"]), "1");
    let transaction = redis_cli(&old, &["EVAL", "return 1", "0"]);
    assert!(
        transaction.starts_with("ERR"),
        "scripts are refused in words: {transaction}"
    );

    let mut client = cluster.client();
    for (command, reply) in [
        (vec!["MULTI"], Value::ok()),
        (vec!["INCR", "visits"], Value::Simple("QUEUED".into())),
        (
            vec!["SET", "greeting", "hello again"],
            Value::Simple("QUEUED".into()),
        ),
        (vec!["EXEC"], Value::Array(vec![Value::Int(2), Value::ok()])),
    ] {
        assert_eq!(client.call(&command).unwrap(), reply, "{command:?}");
    }

    // The same client, found through discovery, goes on at the next primary.
    cluster.kill(&old);
    let new = until("another node serves as primary", PATIENCE, || {
        cluster.try_primary().filter(|node| node.id != old.id)
    });
    assert_eq!(redis_cli(&new, &["GET", "greeting"]), "hello again");
    assert_eq!(redis_cli(&new, &["INCR", "visits"]), "3");

    // cluster.json says who is down; the printed command brings it back as a backup.
    until(
        "cluster.json shows the killed node as down",
        PATIENCE,
        || cluster.node(&old.id).pid.is_none().then_some(()),
    );
    cluster.restart(&old);
    until(
        "cluster.json shows the killed node back in the sync set, with its new pid",
        PATIENCE,
        || {
            let back = cluster.node(&old.id);
            (back.role == "sync-backup" && back.pid.is_some()).then_some(())
        },
    );
    cluster.wait_equal_digests(&cluster.data_nodes());
    assert_eq!(
        cluster.primary().id,
        new.id,
        "a returning node takes nothing over"
    );
}

#[test]
fn status_names_every_node_on_the_command_line_and_over_resp() {
    let cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    let said = cluster
        .cli(&["status", "--node", &primary.client, "--json"])
        .success();
    let json: serde_json::Value = serde_json::from_str(&said).expect("--json prints JSON");
    let printed = json.to_string();
    for node in cluster.nodes() {
        assert!(
            printed.contains(&node.client),
            "{} is missing in {printed}",
            node.client
        );
    }
    let words = cluster
        .cli(&["status", "--node", &primary.client])
        .success();
    assert!(
        words.contains("primary") && words.contains("witness"),
        "{words}"
    );
    assert!(
        cluster.status(&primary).is_object(),
        "STANDFAST STATUS is a JSON object"
    );
}

#[test]
fn every_node_answers_discovery_and_refuses_writes_unless_it_is_primary() {
    let cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    for node in cluster.nodes() {
        let named = until("discovery names the primary", PATIENCE, || {
            rig::cluster::discover(&node.client, rig::cluster::PROMPT)
        });
        assert_eq!(named, primary.client, "as node {} says", node.id);
        if node.id != primary.id {
            let reply = cluster.connect(&node).call(&["SET", "k", "v"]).unwrap();
            assert_eq!(
                reply.refusal(),
                Some("READONLY"),
                "node {}: {reply:?}",
                node.id
            );
        }
    }
}

#[test]
fn a_second_start_of_dev_finds_the_data_of_the_first() {
    let mut cluster = turn::start(&Spec::pair());
    assert_eq!(
        cluster.client().call(&["SET", "kept", "yes"]).unwrap(),
        Value::ok()
    );
    cluster.kill_everything();
    cluster.start_dev_again();
    assert_eq!(
        cluster.client().call(&["GET", "kept"]).unwrap(),
        Value::bulk("yes")
    );
}
