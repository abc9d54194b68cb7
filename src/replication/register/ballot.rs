//! The number of one attempt to choose: unique over all nodes and all their restarts, and ordered.

use serde::{Deserialize, Serialize};
use standfast_wal::NodeId;
use std::fmt;

/// Rounds at or above this are nonsense: a peer that sends one would leave no room above it.
pub const ROUND_MAX: u64 = 1 << 62;

/// Ordered by round, then node, then process. One ballot carries at most one value, ever.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Ballot {
    pub round: u64,
    pub node: NodeId,
    /// Drawn at random by each process at its start: a process that has forgotten its rounds
    /// cannot speak with the ballot of its predecessor.
    pub process: u64,
}

impl Ballot {
    /// Below every ballot that is ever prepared: nothing promised.
    pub const ZERO: Ballot = Ballot {
        round: 0,
        node: NodeId(0),
        process: 0,
    };

    /// The ballot of a register's first value, which is chosen by decree. No round starts at it.
    pub const GENESIS: Ballot = Ballot {
        round: 1,
        node: NodeId(0),
        process: 0,
    };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.n{}.{:08x}", self.round, self.node, self.process)
    }
}
