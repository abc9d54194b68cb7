//! The key that opens the archive is lost: a new one, by the commands of the document.

use crate::archive::wait_archived;
use crate::runbooks::{Runbook, in_order, meanings, settings_of, wait_whole};
use crate::turn;
use age::secrecy::ExposeSecret;
use rig::Spec;
use rig::cluster::digest;
use std::fs;

#[test]
fn a_lost_key_is_replaced_and_the_new_one_alone_restores() {
    let (lost, new) = (
        age::x25519::Identity::generate(),
        age::x25519::Identity::generate(),
    );
    let (old_name, new_name) = (lost.to_public().to_string(), new.to_public().to_string());
    let scratch = tempfile::tempdir().expect("a scratch directory can be made");
    let place = scratch.path().join("archive").display().to_string();
    let mut cluster = turn::start(&Spec::pair().archived(&place).sealed_to(&old_name));
    let write = |name: &str, identity: &age::x25519::Identity| {
        let file = scratch.path().join(name);
        fs::write(&file, identity.to_string().expose_secret()).expect("it is writable");
        file.display().to_string()
    };
    let (lost, new) = (write("lost", &lost), write("new", &new));
    cluster.client().call(&["SET", "k", "v"]).expect("SET");
    wait_whole(&cluster);
    wait_archived(&cluster);

    let nodes = in_order(&cluster);
    let mut meanings = meanings(&cluster, &nodes);
    meanings.retain(|(here, _)| *here != "PLACE");
    meanings.extend([("PLACE", place), ("new.key", new.clone())]);
    let mut steps = Runbook::open("lost key", &meanings);
    for node in [&nodes[1], &nodes[0]] {
        let file = settings_of(node);
        let settings = fs::read_to_string(&file).expect("the node's settings");
        let changed = settings.replace(&old_name, &new_name);
        assert_ne!(changed, settings);
        fs::write(&file, changed).expect("they can be changed");
        cluster.kill(node);
        steps.serve(&mut cluster, node);
        wait_whole(&cluster);
    }
    steps.run(&cluster, "backup now");
    let said = steps.run(&cluster, "backup verify");
    assert!(said.contains("were not opened"), "{said}");
    let words = steps.next();
    let with =
        |key: &str| -> Vec<String> { words.iter().map(|word| word.replace(&*new, key)).collect() };
    let run = |key: &str| {
        let words = with(key);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cluster.cli(&words)
    };
    // What there is now, the lost key does not open.
    let said = run(&lost);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("--identity FILE"), "{said:?}");
    let (_, state) = digest(&cluster.primary().client).expect("DIGEST is answered");
    let said = run(&new).success();
    assert!(said.contains(&state), "{said} lacks {state}");
    steps.end();
}
