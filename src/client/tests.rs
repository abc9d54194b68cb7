//! The client against nodes that play a script: they redirect, hang up, fall silent, do not know.

mod ledger;
mod loss;
mod node;
mod plain;

use super::{Client, Options};
use node::{Act, Node, Store};
use std::time::Duration;

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

async fn client(nodes: &[&Node]) -> Client {
    with_timeout(nodes, PATIENCE).await
}

async fn with_timeout(nodes: &[&Node], timeout: Duration) -> Client {
    let addresses = nodes.iter().map(|node| node.address.clone());
    let options = Options {
        timeout,
        ..Options::default()
    };
    Client::connect_with(addresses, options)
        .await
        .expect("one of them is primary")
}

/// A primary with a store behind it, and a backup that knows it.
async fn pair() -> (Node, Node, Store) {
    let store = Store::default();
    let (a, b) = (Node::start().await, Node::start().await);
    for node in [&a, &b] {
        node.know(&[&a, &b]);
        let store = store.clone();
        node.play(move |args| Act::Say(store.apply(args)));
    }
    Node::promote(&a, &[&b], 1);
    (a, b, store)
}
