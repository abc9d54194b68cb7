//! Positions and identities: every number that means something has a type of its own.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Log sequence number: the number of one command, dense from 1. `Lsn(0)` is before the log.
    Lsn, u64);
number!(
    /// The number of one primary's reign. `Epoch(0)` is before the first primary.
    Epoch, u64);
number!(
    /// The running checksum of the log: the CRC of the last record, which covers the one before.
    Chain, u32);
number!(
    /// A node's number in its cluster, chosen by the operator.
    NodeId, u32);

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN after this one. Behind the last number there is none: a position that was read from
    /// somewhere may be that, and no record ever stands there (`Head::read`).
    pub fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// How many LSNs lie after `self` up to and including `end`; 0 if `end` is not above.
    pub fn distance_to(self, end: Lsn) -> u64 {
        end.0.saturating_sub(self.0)
    }
}

impl Epoch {
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
        pub struct $name(pub u128);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map($name)
            }
        }
    };
}

random_id!(
    /// The random identity of one cluster; never changes.
    ClusterId);
random_id!(
    /// The random identity of one data directory's life: a node that lost its disk gets a new one.
    Incarnation);
random_id!(
    /// The random number drawn for one promotion: it tells one's own change of the register from
    /// an identical one, and one epoch of a history from another's of the same number.
    Nonce);

/// Which past a log belongs to: the generation number orders histories, the id tells two of the
/// same number apart. Raised only by a forced promotion or a restore.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct History {
    pub generation: u64,
    pub id: u128,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.generation, self.id)
    }
}

/// A history that another one forked from. What its founder held and did not know to be committed
/// the old history may hold, too, or have replaced: nobody can tell for a founder that is alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ancestor {
    pub history: History,
    /// Everything through this LSN is the same in both.
    pub shared: Lsn,
    /// Nothing behind this LSN is.
    pub end: Lsn,
}

impl Ancestor {
    /// Where all that is kept of it was committed.
    pub fn at(history: History, fork: Lsn) -> Ancestor {
        Ancestor {
            history,
            shared: fork,
            end: fork,
        }
    }

    /// As it is for a history that goes back behind this fork.
    pub fn up_to(self, fork: &Ancestor) -> Ancestor {
        Ancestor {
            shared: self.shared.min(fork.shared),
            end: self.end.min(fork.end),
            ..self
        }
    }
}

/// The end of a log, ordered as promotion weighs logs: by epoch, then by LSN.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Position {
    pub epoch: Epoch,
    pub lsn: Lsn,
}

impl Position {
    pub const ZERO: Position = Position {
        epoch: Epoch(0),
        lsn: Lsn(0),
    };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.lsn, self.epoch)
    }
}

/// Where a record stands in the chain: what the next one must follow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Link {
    pub position: Position,
    pub chain: Chain,
    /// Nanoseconds since 1970 of the last command; the next record's is higher.
    pub timestamp: u64,
}
