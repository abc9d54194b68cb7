//! Signatures only: the node's meta file. The integrator's file takes this one's place.

use crate::replication::config::Config;
use standfast_wal::{ClusterId, Incarnation, NodeId};
use std::path::Path;

/// A node that does not exist yet.
pub struct NewNode {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// `None`: it asks the cluster to take it in.
    pub initial: Option<Config>,
}

/// Who a data directory belongs to.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// Creates a data directory that holds an identity and nothing else; refuses one that exists.
pub fn create(dir: &Path, _new: NewNode) -> std::io::Result<()> {
    Err(not_here(dir))
}

/// Reads who the directory belongs to; `None` if there is no meta file.
pub fn identity(dir: &Path) -> std::io::Result<Option<Identity>> {
    if dir.join("meta").exists() {
        Err(not_here(dir))
    } else {
        Ok(None)
    }
}

fn not_here(dir: &Path) -> std::io::Error {
    std::io::Error::other(format!("{}: the meta file is not built yet", dir.display()))
}
