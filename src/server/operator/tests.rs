//! Words in, what the engine is asked out.

use super::*;
use crate::server::tests::view;

fn words(text: &str) -> Vec<Bytes> {
    text.split(' ')
        .map(|word| word.to_string().into())
        .collect()
}

/// What the words ask for, or the error's text.
fn asked(text: &str) -> String {
    match standfast(&words(&format!("STANDFAST {text}")), "me".to_string()) {
        Ok(control) => format!("{control:?}"),
        Err(Reply::Error(text)) => String::from_utf8_lossy(&text).to_string(),
        Err(other) => panic!("{other:?} is no error"),
    }
}

#[test]
fn operators_words_become_controls() {
    let table = [
        ("status", "Status"),
        ("SHUTDOWN", "Shutdown"),
        (
            "SWITCHOVER",
            "Switchover { to: None, who: \"me\", why: \"\" }",
        ),
        (
            "switchover WHY disks to 2 WHO ann",
            "Switchover { to: Some(NodeId(2)), who: \"ann\", why: \"disks\" }",
        ),
        (
            "PROMOTE",
            "ForcePromote { confirm: \"\", ignore_old_primary: false, who: \"me\", why: \"\" }",
        ),
        (
            "PROMOTE CONFIRM bank IGNORE-OLD-PRIMARY",
            "ForcePromote { confirm: \"bank\", ignore_old_primary: true, who: \"me\", why: \"\" }",
        ),
        (
            "MEMBER REMOVE 3",
            "RemoveMember { id: NodeId(3), who: \"me\" }",
        ),
        ("ACKS Majority", "SetAcks { acks: Majority, who: \"me\" }"),
        (
            "PROTECTION max-performance WHO ann",
            "SetProtection { protection: MaxPerformance, who: \"ann\" }",
        ),
        ("BACKUP /b", "BackupNow { to: \"/b\", who: \"me\" }"),
    ];
    for (text, control) in table {
        assert_eq!(asked(text), control, "{text}");
    }
}

#[test]
fn a_member_is_added_with_all_that_the_register_holds() {
    let added = asked("MEMBER ADD 4 asynchronous ff dr:1 dr:2 [::1]:3 SITE dr PRIORITY 7 VOTER");
    let parts = [
        "id: NodeId(4)",
        "Incarnation(255)",
        "role: Asynchronous",
        "site: \"dr\"",
        "priority: 7",
        "client: \"dr:1\"",
        "http: \"[::1]:3\"",
        "voter: true",
    ];
    for part in parts {
        assert!(added.contains(part), "{part} in {added}");
    }
}

#[test]
fn wrong_words_are_refused_with_what_is_wrong() {
    let table = [
        ("SWITCHOVER TO", "ERR a node's number is missing"),
        ("SWITCHOVER TO x", "ERR 'x' is not a node's number"),
        ("SWITCHOVER 2", "ERR unknown option '2'"),
        (
            "MEMBER ADD 4 data ff nowhere b:1 c:1",
            "ERR the client address 'nowhere' is not host:port",
        ),
        (
            "MEMBER ADD 4 data zz a:1 b:1 c:1",
            "ERR an incarnation is up to 32 hex digits",
        ),
        ("MEMBER", "ERR ADD or REMOVE is missing"),
        ("STATUS now", "ERR unknown option 'NOW'"),
    ];
    for (text, error) in table {
        assert_eq!(asked(text), error, "{text}");
    }
    assert!(asked("ACKS some").starts_with("ERR all or majority: unknown variant `some`"));
    assert!(asked("NOPE").starts_with("ERR unknown subcommand 'NOPE'"));
}

#[test]
fn failover_finds_the_backup_by_its_address() {
    let view = view(1, 1, 3);
    let to = |text: &str| match failover(&words(text), &view, String::new()) {
        Ok(Control::Switchover { to, .. }) => Ok(to),
        other => Err(format!("{other:?}")),
    };
    assert_eq!(to("FAILOVER"), Ok(None));
    assert_eq!(to("FAILOVER TO 10.0.0.2 7002"), Ok(Some(NodeId(2))));
    for wrong in [
        "FAILOVER TO 10.0.0.3 7003",
        "FAILOVER TO 10.0.0.2 7001",
        "FAILOVER ABORT",
    ] {
        assert!(to(wrong).is_err(), "{wrong}");
    }
}
