//! Questions to one node, by its client address.

use crate::cluster::PROMPT;
use crate::poll::eventually;
use crate::resp::{Conn, Value};
use std::time::Duration;

/// The name under which SENTINEL discovery knows the cluster.
pub const SERVICE: &str = "standfast";

/// Which address a node's SENTINEL discovery names as primary; `None` when it names none in time.
pub fn discover(node: &str, limit: Duration) -> Option<String> {
    let mut conn = Conn::open(node, limit).ok()?;
    ask_discovery(&mut conn)
}

/// As `discover`, over a connection that is kept.
pub fn ask_discovery(conn: &mut Conn) -> Option<String> {
    match conn
        .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE])
        .ok()?
    {
        Value::Array(parts) if parts.len() == 2 => {
            Some(format!("{}:{}", parts[0].text(), parts[1].text()))
        }
        _ => None,
    }
}

/// Applied LSN and state digest of the node at this client address.
pub fn digest(address: &str) -> Option<(i64, String)> {
    let mut conn = Conn::open(address, PROMPT).ok()?;
    match conn.call(&["DIGEST"]).ok()? {
        Value::Array(parts) if parts.len() >= 2 => Some((parts[0].number(), parts[1].text())),
        _ => None,
    }
}

/// Whether the binary answers something on this address within `limit`.
pub fn answers(address: &str, limit: Duration) -> bool {
    eventually(limit, || {
        Conn::open(address, PROMPT).ok()?.call(&["PING"]).ok()
    })
    .is_some()
}
