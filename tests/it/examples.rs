//! What `examples/` promises, against a cluster whose primary is killed meanwhile.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Spec, Value, until};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Cargo builds examples with the tests, beside them.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "cargo build --example {name}");
    path
}

#[test]
fn every_payment_is_done_once_while_workers_and_the_primary_die() {
    let mut cluster = turn::start(&Spec::pair());
    let nodes = cluster.addresses().join(",");
    let payments = Command::new(example("payments"))
        .args([&nodes, "300", "3", "150"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let mut conn = cluster.client();
    until("payments are done", PATIENCE, || {
        let page = conn.call(&["SCAN", "0", "MATCH", "done:*", "COUNT", "1000"]);
        match page.ok()? {
            Value::Array(parts) => match parts.get(1)? {
                Value::Array(keys) => (keys.len() > 20).then_some(()),
                _ => None,
            },
            _ => None,
        }
    });
    let primary = cluster.primary();
    cluster.kill(&primary);
    let output = payments.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(
        said.contains("every cent is where the outcomes say"),
        "{said}"
    );
}
