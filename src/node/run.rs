//! Signatures only: the running node. The integrator's file takes this one's place.

use crate::config::Config;

/// Why a node stopped or did not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another process has the data directory.
    #[error("{0}")]
    InUse(String),
    /// An address cannot be listened on.
    #[error("{0}")]
    Address(String),
    /// There is no node in the data directory, or it is another node's or another cluster's.
    #[error("{0}")]
    Identity(String),
    /// Bytes on disk are damaged and no peer can repair them.
    #[error("{0}")]
    Damaged(String),
    /// The node halted: the disk failed or an invariant broke.
    #[error("{0}")]
    Halted(String),
}

/// Runs one node until it is told to stop.
pub fn serve(_config: Config) -> Result<(), ServeError> {
    Err(ServeError::Halted("the node is not built yet".to_owned()))
}
