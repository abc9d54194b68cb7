//! What a node has promised to refuse: everything below one (history, epoch).
//!
//! I3: a fence only rises, and nothing is answered on the strength of one that is not durable.

use serde::{Deserialize, Serialize};
use standfast_wal::{Epoch, History};
use std::fmt;

/// A reign, ordered by generation and then by epoch. As a fence: all below it is refused.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Fence {
    pub history: History,
    pub epoch: Epoch,
}

/// How another's reign stands to what this node has promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Below the fence: refused.
    Below,
    /// Exactly what the fence allows.
    Equal,
    /// Above: the fence is raised durably before anything is answered.
    Above,
    /// Another history of the same generation: the nodes refuse each other.
    Foreign,
}

impl Fence {
    /// Where `other` stands to this fence.
    pub fn weigh(self, other: Fence) -> Standing {
        if self.history.generation == other.history.generation
            && self.history.id != other.history.id
        {
            return Standing::Foreign;
        }
        match other.cmp(&self) {
            std::cmp::Ordering::Less => Standing::Below,
            std::cmp::Ordering::Equal => Standing::Equal,
            std::cmp::Ordering::Greater => Standing::Above,
        }
    }

    /// The reign after this one in the same history.
    pub fn next(self) -> Fence {
        Fence {
            history: self.history,
            epoch: self.epoch.next(),
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.history.generation, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(generation: u64, id: u128, epoch: u64) -> Fence {
        Fence {
            history: History { generation, id },
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn reigns_compare_by_generation_then_epoch_and_strangers_are_foreign() {
        let own = fence(2, 7, 5);
        for (other, standing) in [
            (fence(2, 7, 4), Standing::Below),
            (fence(2, 7, 5), Standing::Equal),
            (fence(2, 7, 6), Standing::Above),
            (fence(1, 9, 9), Standing::Below),
            (fence(3, 1, 1), Standing::Above),
            (fence(2, 8, 5), Standing::Foreign),
            (fence(2, 6, 9), Standing::Foreign),
        ] {
            assert_eq!(own.weigh(other), standing, "{other}");
        }
    }
}
