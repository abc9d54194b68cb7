//! The judge: sees every vote that reached a disk, knows what is chosen, and holds the votes
//! against R1, R2 and the theorem. Knows nothing of how registers work.

use super::*;

#[derive(Clone, Default, Debug)]
pub(super) struct Ledger {
    ballots: BTreeMap<Ballot, Count>,
    /// Chosen values and the lowest ballot that is known to have chosen each, by version.
    pub(super) chosen: BTreeMap<u64, (Value, Ballot)>,
    parents: BTreeMap<(u64, u128), Value>,
}

#[derive(Clone, Debug)]
struct Count {
    value: Value,
    voters: BTreeSet<Voter>,
}

impl Ledger {
    /// The value that a register is founded with is chosen by decree.
    pub(super) fn found(&mut self, value: &Value) {
        let entry = (value.clone(), Ballot::GENESIS);
        self.chosen.insert(value.version, entry);
    }

    /// A vote is on a disk.
    pub(super) fn cast(&mut self, from: Voter, vote: &Accepted) -> Result<(), String> {
        let Accepted { ballot, proposal } = vote;
        let value = &proposal.value;
        if let Err(story) = self.is_chosen(proposal.known_chosen()) {
            return Err(format!(
                "R1: {from} votes for {proposal:?} at {ballot}: {story}"
            ));
        }
        if let Some(parent) = &proposal.parent {
            self.parents
                .insert((value.version, value.nonce.0), parent.clone());
        }
        let count = self.ballots.entry(*ballot).or_insert_with(|| Count {
            value: value.clone(),
            voters: BTreeSet::new(),
        });
        if count.value != *value {
            return Err(format!("two values at {ballot}"));
        }
        if !count.voters.insert(from) {
            return Ok(());
        }
        for (chosen, lowest) in self.chosen.values() {
            self.hold(chosen, *lowest, value, *ballot)?;
        }
        self.count(*ballot)
    }

    /// Whether the votes at `ballot` choose its value, and what that forbids.
    fn count(&mut self, ballot: Ballot) -> Result<(), String> {
        let Count { value, voters } = &self.ballots[&ballot];
        // A founding value has no parent; nothing else lacks one.
        let Some(parent) = self.parents.get(&(value.version, value.nonce.0)) else {
            return Ok(());
        };
        let voted = |voter| voters.contains(&voter);
        if !(value.voters().majority(voted) && parent.voters().majority(voted)) {
            return Ok(());
        }
        match self.chosen.get(&value.version) {
            Some((other, at)) if other != value => {
                return Err(format!(
                    "{other:?} was chosen at {at}, {value:?} at {ballot}"
                ));
            }
            Some((_, lowest)) if *lowest <= ballot => return Ok(()),
            _ => {}
        }
        for (later, count) in self.ballots.range(ballot..).skip(1) {
            self.hold(value, ballot, &count.value, *later)?;
        }
        let value = value.clone();
        self.chosen.insert(value.version, (value, ballot));
        Ok(())
    }

    /// The theorem: above a ballot that chose a value there are votes only for it and for its
    /// descendants.
    fn hold(
        &self,
        chosen: &Value,
        lowest: Ballot,
        value: &Value,
        ballot: Ballot,
    ) -> Result<(), String> {
        if lowest < ballot && !self.descends(value, chosen) {
            return Err(format!(
                "{chosen:?} was chosen at {lowest}, and {value:?} has votes at {ballot}"
            ));
        }
        Ok(())
    }

    fn descends(&self, value: &Value, ancestor: &Value) -> bool {
        let mut value = value;
        while value.version > ancestor.version {
            match self.parents.get(&(value.version, value.nonce.0)) {
                Some(parent) => value = parent,
                None => return false,
            }
        }
        value == ancestor
    }

    pub(super) fn is_chosen(&self, value: &Value) -> Result<(), String> {
        match self.chosen.get(&value.version) {
            Some((chosen, _)) if chosen == value => Ok(()),
            _ => Err(format!("{value:?} is taken for chosen and is not")),
        }
    }

    pub(super) fn newest(&self) -> &Value {
        let (value, _) = self.chosen.values().next_back().expect("founded");
        value
    }

    /// Holds the end of an operation against what is chosen. `floor` is the newest version that
    /// was chosen when the operation began.
    pub(super) fn judge(
        &self,
        request: &Request,
        outcome: &Outcome,
        floor: u64,
    ) -> Result<&'static str, String> {
        let (Outcome::Current(told)
        | Outcome::Chosen(told)
        | Outcome::Lost(told)
        | Outcome::Unready(told)
        | Outcome::Overtaken(told)) = outcome;
        self.is_chosen(told)?;
        match (request, outcome) {
            (Request::Read, Outcome::Current(value)) if value.version < floor => Err(format!(
                "read {value:?}, but version {floor} had been chosen before"
            )),
            (Request::Read, Outcome::Current(_)) => Ok("current"),
            (Request::CompareAndSet { next, .. }, Outcome::Chosen(value)) if value == next => {
                Ok("chosen")
            }
            (Request::CompareAndSet { next, .. }, Outcome::Lost(_)) => match self.is_chosen(next) {
                Ok(()) => Err(format!("{next:?} is chosen and reported lost")),
                Err(_) => Ok("lost"),
            },
            (Request::CompareAndSet { expected, .. }, Outcome::Unready(value))
                if value == expected =>
            {
                Ok("unready")
            }
            (Request::CompareAndSet { next, .. }, Outcome::Overtaken(value))
                if value.version > next.version =>
            {
                Ok("overtaken")
            }
            _ => Err(format!("{outcome:?} is no end of {request:?}")),
        }
    }
}

/// Whether an acceptor with this state knows by itself that `value` is chosen.
pub(super) fn knows(state: &AcceptorState, value: &Value) -> bool {
    state.accepted.as_ref().is_some_and(|vote| {
        vote.proposal.known_chosen().version >= value.version
            || (vote.proposal.value == *value && !vote.proposal.changes_voters())
    })
}
