//! What Sentinel's clients look for in each answer.

use super::*;
use crate::server::tests::view;

fn ask(words: &str, view: &View) -> Reply {
    let args: Vec<Bytes> = format!("SENTINEL {words}")
        .split(' ')
        .map(|word| word.to_string().into())
        .collect();
    match answer(&args, view) {
        Answer::Reply(reply) => reply,
        Answer::Switchover => panic!("a switchover"),
    }
}

/// A field of an instance, as text.
fn field(instance: &Reply, name: &str) -> String {
    let Reply::Map(pairs) = instance else {
        panic!("{instance:?} is no map");
    };
    let found = pairs.iter().find(|(key, _)| *key == text(name));
    match found {
        Some((_, Reply::Bulk(value))) => String::from_utf8_lossy(value).to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

fn list(reply: Reply) -> Vec<Reply> {
    match reply {
        Reply::Array(items) => items,
        other => panic!("{other:?} is no array"),
    }
}

#[test]
fn every_node_names_the_primary_its_backups_and_the_other_nodes() {
    for node in 1..=3 {
        let view = view(node, 1, 3);
        let address = ask("GET-MASTER-ADDR-BY-NAME standfast", &view);
        assert_eq!(address, Reply::Array(vec![text("10.0.0.1"), text("7001")]));
        let masters = list(ask("masters", &view));
        assert_eq!(masters, [ask("MASTER standfast", &view)]);
        let fields = [
            "name",
            "ip",
            "port",
            "flags",
            "num-slaves",
            "num-other-sentinels",
            "quorum",
        ];
        let values = fields.map(|name| field(&masters[0], name));
        assert_eq!(
            values,
            ["standfast", "10.0.0.1", "7001", "master", "1", "2", "2"]
        );
        for word in ["replicas", "SLAVES"] {
            let replicas = list(ask(&format!("{word} standfast"), &view));
            assert_eq!(replicas.len(), 1, "a witness is no replica");
            let fields = [
                "name",
                "flags",
                "master-link-status",
                "master-host",
                "master-port",
            ];
            let values = fields.map(|name| field(&replicas[0], name));
            assert_eq!(values, ["10.0.0.2:7002", "slave", "ok", "10.0.0.1", "7001"]);
        }
        let sentinels = list(ask("sentinels standfast", &view));
        let ports: Vec<String> = sentinels.iter().map(|other| field(other, "port")).collect();
        let others = (1..=3).filter(|other| *other != node);
        assert_eq!(
            ports,
            others
                .map(|other| format!("700{other}"))
                .collect::<Vec<_>>()
        );
        let id = ask("myid", &view);
        assert_eq!(id, text(format!("{node:032x}{node:08x}")));
    }
}

#[test]
fn a_primary_that_nobody_hears_is_down() {
    let mut view = view(2, 1, 3);
    view.primary = None;
    assert_eq!(
        field(&ask("MASTER standfast", &view), "flags"),
        "master,o_down,s_down,disconnected"
    );
    let replicas = list(ask("REPLICAS standfast", &view));
    assert_eq!(field(&replicas[0], "master-link-status"), "err");
    assert_eq!(
        field(&replicas[0], "flags"),
        "slave",
        "this node itself is up"
    );
}

#[test]
fn a_quorum_needs_a_majority_of_the_voters() {
    let mut view = view(1, 1, 3);
    let mut usable = Vec::new();
    for lost in [None, Some(2), Some(3)] {
        if let Some(peer) = lost.and_then(|id| view.peers.get_mut(&NodeId(id))) {
            peer.connected = false;
        }
        usable.push(matches!(ask("ckquorum standfast", &view), Reply::Bulk(_)));
    }
    assert_eq!(usable, [true, true, false]);
}

#[test]
fn unknown_names_and_words_are_refused() {
    let view = view(1, 1, 3);
    let table = [
        ("MASTER other", "ERR No such master with that name"),
        (
            "MASTER",
            "ERR wrong number of arguments for 'sentinel|master' command",
        ),
        (
            "NOPE",
            "ERR Unknown sentinel subcommand. Try SENTINEL HELP.",
        ),
    ];
    for (words, error) in table {
        assert_eq!(ask(words, &view), Reply::error(error));
    }
    assert_eq!(ask("GET-MASTER-ADDR-BY-NAME other", &view), Reply::NilArray);
}

#[test]
fn a_switch_is_told_once_across_the_time_without_a_primary() {
    let mut lost = view(1, 1, 3);
    lost.primary = None;
    let steps = [
        view(1, 1, 3),
        lost.clone(),
        lost,
        view(1, 2, 4),
        view(1, 2, 4),
    ];
    let mut told = Some("10.0.0.1:7001".to_string());
    let mut all = Vec::new();
    for pair in steps.windows(2) {
        for (channel, message) in events(&mut told, &pair[0], &pair[1]) {
            let words = [channel, message].map(|part| String::from_utf8_lossy(&part).to_string());
            all.push(words.join(" "));
        }
    }
    let expected = [
        "+sdown master standfast 10.0.0.1 7001",
        "+odown master standfast 10.0.0.1 7001",
        "+switch-master standfast 10.0.0.1 7001 10.0.0.2 7002",
        "-sdown master standfast 10.0.0.2 7002",
        "-odown master standfast 10.0.0.2 7002",
    ];
    assert_eq!(all, expected);
}

#[test]
fn addresses_are_split_into_host_and_port() {
    let table = [
        ("10.0.0.1:7001", ("10.0.0.1", 7001)),
        ("db.example:1", ("db.example", 1)),
        ("[::1]:6379", ("::1", 6379)),
        ("nowhere", ("nowhere", 0)),
    ];
    for (address, parts) in table {
        assert_eq!(split_address(address), parts);
    }
}
