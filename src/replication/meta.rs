//! The small durable state beside the log: what a node must not forget, in one value.
//!
//! Changed by safekeeper's protocol: edit a copy, persist it whole, and answer on the strength of
//! it only when it is durable.

use crate::replication::config::Config;
use crate::replication::fence::Fence;
use crate::replication::register::{AcceptorState, Value};
use serde::{Deserialize, Serialize};
use standfast_wal::{ClusterId, Incarnation, NodeId};

/// What a node must not forget. A node whose Meta is missing or unreadable has lost its disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Meta {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Everything below it is refused. Its history is the Config's, unless a forced promotion
    /// elsewhere has ended that.
    pub fence: Fence,
    /// The newest Config known to be chosen.
    pub config: Value,
    /// This node's vote in the register.
    pub acceptor: AcceptorState,
    /// The log had a damaged end that may have been acknowledged; it counts as absent until it
    /// was verified against a primary.
    pub suspect: bool,
}

impl Meta {
    /// The first Meta of a member of a new cluster: every member starts with the same Config,
    /// which counts as chosen. Also of a node that is to join a cluster with this Config: one that
    /// it does not name, with this incarnation, has no vote in it.
    pub fn first(
        cluster: ClusterId,
        node: NodeId,
        incarnation: Incarnation,
        config: Config,
    ) -> Meta {
        let votes = config.voters.contains(&node) && config.names(node, incarnation);
        // A vote by decree is only for the first value: later ones are voted for.
        let acceptor = if votes && config.version == 1 {
            AcceptorState::genesis(Value::new(config.clone()))
        } else {
            AcceptorState::empty(config.history)
        };
        Meta {
            cluster,
            node,
            incarnation,
            fence: Fence {
                history: config.history,
                epoch: config.epoch,
            },
            config: Value::new(config),
            acceptor,
            suspect: false,
        }
    }
}
