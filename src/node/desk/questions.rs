//! Answers out of what was ordered and applied: outcomes, receipts, what was seen, digests.

use crate::node::client::Place;
use crate::node::clock::utc;
use crate::node::engine::Engine;
use crate::node::outcomes::Known;
use crate::node::refusal::Refusal;
use crate::replication::{Contained, EpochEntry, Fence};
use crate::state::Reply;
use standfast_wal::{Epoch, Lsn, Mark};

impl Engine {
    pub(super) fn force_warning(&self) -> String {
        let applied = self.state.applied();
        let known = self.replica.known_commit();
        let kept = applied.lsn.min(self.replica.shared_through());
        // Of what is kept of an ended history's log the time is not known.
        let time = match kept == applied.lsn {
            true => {
                let age = self.now.wall.saturating_sub(applied.timestamp) / 1_000_000_000;
                format!(
                    " ({}, {age} s ago by this node's clock)",
                    utc(applied.timestamp)
                )
            }
            false => String::new(),
        };
        let missing = known.0.saturating_sub(kept.0);
        format!(
            "a forced promotion here loses every command after LSN {kept}{time}: at least {missing} \
             that are known to have been committed (the last commit heard of is LSN {known}), and \
             whatever the old primary has committed since. Repeat with the cluster's name {:?} to \
             confirm",
            self.identity.cluster_name
        )
    }

    pub(super) fn outcome(&self, generation: u64, epoch: Epoch, lsn: Lsn) -> Reply {
        let word = |text: &'static str| Reply::Array(vec![Reply::Bulk(text.into())]);
        let applied = self.state.applied().lsn;
        let epochs = self.replica.epochs();
        let Some(reign) = epochs.at(lsn.min(applied)) else {
            return word("pending");
        };
        // Of a newer history nothing is known here, and what goes says nothing.
        let newest = epochs.last().map_or(0, |last| last.history.generation);
        if generation > newest || !self.replica.has_own_log() {
            return word("pending");
        }
        if lsn > applied {
            // A later reign has begun at or below what is applied: that LSN is or will be its.
            let passed = (reign.history.generation, reign.epoch) > (generation, epoch);
            return word(if passed { "never" } else { "pending" });
        }
        if (reign.history.generation, reign.epoch) != (generation, epoch) {
            return word("never");
        }
        match self.outcomes.get(lsn) {
            Known::Reply(reply) => Reply::Array(vec![Reply::Bulk("done".into()), reply]),
            Known::NotKept | Known::Gone => word("done"),
        }
    }

    /// The reign at this place, if it is the one in which the write was ordered; of what goes when
    /// the history that is followed comes, nothing is said.
    fn reign_of(&self, write: Place) -> Option<EpochEntry> {
        let reign = self.replica.epochs().at(write.lsn)?;
        let own = (reign.history.generation, reign.epoch);
        let stays = write.lsn <= self.replica.shared_through();
        (stays && own == (write.generation, write.epoch)).then_some(*reign)
    }

    /// Members besides this node that hold the write durably: where it was cut, none does.
    pub(super) fn other_copies(&self, write: Option<Place>) -> u32 {
        let held = match write {
            None => self.replica.copies(Lsn::ZERO),
            Some(write) => match self.reign_of(write) {
                Some(_) => self.replica.copies(write.lsn),
                None => 0,
            },
        };
        held.saturating_sub(1)
    }

    pub(super) fn receipt(&self, write: Place) -> Reply {
        let Place { epoch, lsn, .. } = write;
        let newest = self.replica.epochs().last();
        let newest = newest.map(|last| (last.history.generation, last.epoch));
        if newest < Some((write.generation, epoch)) {
            // It was forwarded, and its reign has not come here yet.
            return Refusal::Loading.into();
        }
        let Some(reign) = self.reign_of(write) else {
            // What this connection wrote is not in this history.
            return self.time_travel();
        };
        let history = reign.history;
        let config = self.replica.config();
        let protection = serde_json::to_value(config.protection).unwrap_or_default();
        let text = |text: String| Reply::Bulk(text.into());
        let int = |number: u64| Reply::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let pairs = [
            ("generation", int(history.generation)),
            ("history", text(format!("{:032x}", history.id))),
            ("epoch", int(epoch.0)),
            ("lsn", int(lsn.0)),
            ("copies", int(u64::from(self.replica.copies(lsn)))),
            (
                "protection",
                text(protection.as_str().unwrap_or_default().to_string()),
            ),
        ];
        Reply::Map(
            pairs
                .map(|(name, value)| (Reply::Bulk(name.into()), value))
                .into(),
        )
    }

    pub(super) fn seen(&self, seen: Fence, lsn: Lsn) -> Reply {
        match self.replica.contains(seen, lsn) {
            Contained::Yes => Reply::Ok,
            Contained::NotYet => Refusal::Loading.into(),
            Contained::No => self.time_travel(),
        }
    }

    fn time_travel(&self) -> Reply {
        Mark::TimeTravel.hit();
        let mine = self.replica.history();
        let (generation, history_id) = (mine.generation, mine.id);
        Refusal::TimeTravel {
            generation,
            history_id,
        }
        .into()
    }

    pub(super) fn digest_reply(&self, slots: bool) -> Reply {
        let applied = self.state.applied().lsn;
        let mut reply = vec![
            Reply::Int(i64::try_from(applied.0).unwrap_or(i64::MAX)),
            Reply::Bulk(self.state.digest().to_string().into()),
        ];
        if slots {
            let digests = self.state.slot_digests();
            let texts = digests
                .iter()
                .map(|digest| Reply::Bulk(digest.to_string().into()));
            reply.push(Reply::Array(texts.collect()));
        }
        Reply::Array(reply)
    }
}
