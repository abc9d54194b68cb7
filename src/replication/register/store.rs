//! The door to the register, whatever engine is behind it: submit an operation, be told its end.

use super::value::{Misfit, Value};
use crate::replication::Time;

/// Names one submitted operation; counts up from 1 in each process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticket(pub u64);

/// What is wanted of the register.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// The current value: at least as new as any that was chosen when this was submitted.
    Read,
    /// Make `next` the value if the current one is exactly `expected`. Proposing the identical
    /// `next` again is harmless: it is chosen at most once.
    CompareAndSet { expected: Value, next: Value },
}

/// How an operation ended. Until it ends, or after it was cancelled, its outcome is unknown.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Of a read.
    Current(Value),
    /// The change was chosen. Another may have followed already.
    Chosen(Value),
    /// The change was not chosen and never will be; this value, which is chosen, is why.
    Lost(Value),
    /// The voters that the change would make needed have not answered in time, and this operation
    /// offered nothing: this, which is chosen, goes on being the value. (Unless the identical
    /// change
    /// was submitted before and cancelled, or by an earlier process: that one may still be chosen.)
    Unready(Value),
    /// The register is past the change, at this value or later. Whether the change was chosen in
    /// between cannot be told: it is not the current value, in any case.
    Overtaken(Value),
}

/// Why an operation was not begun. Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no value of the register is known yet, so no voter either")]
    NoVoters,
    #[error("{} operations are waiting already", super::QUEUE_MAX)]
    Busy,
    #[error("the new value does not follow the expected one: {0}")]
    Misfit(#[from] Misfit),
}

/// An engine that keeps the one value. Sans-IO: `Input` is what happened to it, `Effect` what is
/// to be done for it; the ends of operations are among the effects.
pub trait ConfigStore {
    type Input;
    type Effect;

    /// Begins an operation. It goes on by itself, for ever if need be, until its end is told.
    /// Operations run one at a time, in this order; reads that wait side by side share one.
    fn submit(
        &mut self,
        now: Time,
        request: Request,
        effects: &mut Vec<Self::Effect>,
    ) -> Result<Ticket, Refusal>;

    /// Forgets an operation; its end will not be told. True if it was a change that may still be
    /// chosen, even after a later read has shown its predecessor.
    fn cancel(&mut self, now: Time, ticket: Ticket, effects: &mut Vec<Self::Effect>) -> bool;

    /// True for a change that has not ended and that nobody could choose if it were cancelled now.
    fn is_revocable(&self, ticket: Ticket) -> bool;

    fn step(&mut self, now: Time, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// When it wants a timeout as its next input, if nothing else comes before.
    fn deadline(&self) -> Option<Time>;

    /// The newest value known to be chosen.
    fn known(&self) -> Option<&Value>;
}
