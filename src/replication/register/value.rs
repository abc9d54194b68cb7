//! What is voted on: a Config shared by pointer, and the proposal that says why it may be chosen.

use super::ballot::Ballot;
use super::voters::Voters;
use crate::replication::config::Config;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use standfast_wal::History;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// One value of the register. Cloning copies a pointer; the Config behind it never changes.
#[derive(Clone)]
pub struct Value(Arc<Config>);

impl Value {
    pub fn new(config: Config) -> Value {
        Value(Arc::new(config))
    }

    /// Its voters. Only for values that `is_sound` passed, as every one that is stored has.
    pub fn voters(&self) -> Voters {
        Voters::of(&self.0).expect("a value is checked before it is stored")
    }

    /// Whether this can be a value of the register of `history` at all.
    pub fn is_sound(&self, history: History) -> bool {
        self.history == history && self.version > 0 && Voters::of(&self.0).is_some()
    }
}

impl Deref for Value {
    type Target = Config;
    fn deref(&self) -> &Config {
        &self.0
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Value {}

impl Hash for Value {
    /// Version and nonce tell values apart in practice; equality looks at everything.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.version.hash(state);
        self.nonce.hash(state);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}#{:x}", self.version, self.nonce.0)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        Config::deserialize(deserializer).map(Value::new)
    }
}

/// A value on its way. Whoever holds a proposal holds a fact with it: `known_chosen`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Proposal {
    pub value: Value,
    /// The value it was proposed against, known to be chosen before this was first proposed.
    /// `None`: `value` itself is known to be chosen, and only spread among its own voters.
    pub parent: Option<Value>,
}

impl Proposal {
    /// A value that is known to be chosen: its own voters alone decide about its successor.
    pub fn settled(value: Value) -> Proposal {
        Proposal {
            value,
            parent: None,
        }
    }

    /// The newest value that the existence of this proposal proves chosen.
    pub fn known_chosen(&self) -> &Value {
        self.parent.as_ref().unwrap_or(&self.value)
    }

    /// Whether the votes of `counts` choose it: a majority of its voters, and, until it is known
    /// to be chosen, of its parent's.
    pub fn is_chosen_by(&self, counts: impl Fn(super::Voter) -> bool) -> bool {
        self.value.voters().majority(&counts)
            && self
                .parent
                .as_ref()
                .is_none_or(|parent| parent.voters().majority(&counts))
    }

    /// Whether it gives the voting to others than its parent did.
    pub fn changes_voters(&self) -> bool {
        self.parent
            .as_ref()
            .is_some_and(|parent| parent.voters() != self.value.voters())
    }

    /// Whether a correct proposer of `history` can have made it.
    pub fn is_sound(&self, history: History) -> bool {
        self.value.is_sound(history)
            && self.parent.as_ref().is_none_or(|parent| {
                parent.is_sound(history) && succession(parent, &self.value).is_ok()
            })
    }
}

/// What an acceptor holds: the proposal of the highest ballot that it voted for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub ballot: Ballot,
    pub proposal: Proposal,
}

/// Why a value cannot be the successor of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Misfit {
    #[error("it belongs to another history")]
    History,
    #[error("its version is not one above")]
    Version,
    #[error("its nonce is not fresh")]
    Nonce,
    #[error("its epoch is lower")]
    Epoch,
    #[error("it names no voters, too many, or some that may not vote")]
    Voters,
    #[error("it adds, removes or replaces more than one voter")]
    TooManyVoters,
}

/// Whether `next` may be proposed against `current`.
pub fn succession(current: &Value, next: &Value) -> Result<(), Misfit> {
    if next.history != current.history {
        return Err(Misfit::History);
    }
    if Some(next.version) != current.version.checked_add(1) {
        return Err(Misfit::Version);
    }
    if next.nonce == current.nonce {
        return Err(Misfit::Nonce);
    }
    if next.epoch < current.epoch {
        return Err(Misfit::Epoch);
    }
    let (Some(before), Some(after)) = (Voters::of(current), Voters::of(next)) else {
        return Err(Misfit::Voters);
    };
    if before.differ_by_at_most_one(&after) {
        Ok(())
    } else {
        Err(Misfit::TooManyVoters)
    }
}
