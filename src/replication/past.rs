//! What a log shares with the histories that its own one forked from.
//!
//! A history and an LSN do not name a record: whoever founds a history may hold a tail that the old
//! one replaced in an epoch which the founder never heard of. With the epoch they do, because of
//! one history one primary writes in it (I3), and the forks tell whose reigns two logs share.

use crate::replication::config::Config;
use crate::replication::epochs::EpochTable;
use crate::replication::fence::Fence;
use standfast_wal::{Ancestor, Lsn};

/// Whether a point that somebody has seen is in the history here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contained {
    Yes,
    No,
    /// This node follows that history, and its log is another one's still.
    NotYet,
}

/// Whether what was committed at `lsn` in a history, written in the epoch of `seen`, is in the
/// history of `config`, by the reigns of this node's log.
pub(super) fn contained(config: &Config, log: &EpochTable, seen: Fence, lsn: Lsn) -> Contained {
    let same = seen.history == config.history;
    let mut ancestors = config.ancestors.iter();
    let may_share = ancestors.any(|past| past.history == seen.history && lsn <= past.end);
    if !same && !may_share {
        return Contained::No;
    }
    match log.last() {
        // A witness has no log, a new member has none yet.
        None if same => Contained::Yes,
        Some(last) if last.history == config.history => {
            let own = log.at(lsn).map(|entry| entry.epoch);
            match same || own == Some(seen.epoch) {
                true => Contained::Yes,
                false => Contained::No,
            }
        }
        _ => Contained::NotYet,
    }
}

/// Up to where this log is the one of the history that is followed: all of it, or what the two
/// may share while it is an ended one's still.
pub(super) fn shared_through(config: &Config, log: &EpochTable) -> Lsn {
    fork_of(config, log).map_or(Lsn(u64::MAX), |fork| fork.end)
}

/// Where the history that is followed left this log's; `None`: it is its own.
fn fork_of(config: &Config, log: &EpochTable) -> Option<Ancestor> {
    let last = log.last().map(|last| last.history);
    let last = last.filter(|last| *last != config.history)?;
    let mut ancestors = config.ancestors.iter().copied();
    let fork = ancestors.find(|past| past.history == last);
    Some(fork.unwrap_or(Ancestor::at(last, Lsn::ZERO)))
}

/// The ancestors of a history that is founded on this log, which is committed through `commit` and
/// ends at `end`.
pub(super) fn ancestors(config: &Config, log: &EpochTable, commit: Lsn, end: Lsn) -> Vec<Ancestor> {
    let held = Ancestor {
        history: config.history,
        shared: commit,
        end,
    };
    // What both share is all that it has of the history that is left.
    let own = match fork_of(config, log) {
        Some(fork) => held.up_to(&fork),
        None => held,
    };
    let older = config.ancestors.iter().map(|past| past.up_to(&own));
    older.chain([own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::config::{Acks, Member, MemberRole, Protection};
    use crate::replication::epochs::EpochEntry;
    use standfast_wal::{Epoch, History, Incarnation, NodeId, Nonce};
    use std::collections::{BTreeMap, BTreeSet};

    fn history(generation: u64) -> History {
        History {
            generation,
            id: u128::from(generation),
        }
    }

    fn config(generation: u64, ancestors: &[(u64, u64)]) -> Config {
        let member = Member {
            incarnation: Incarnation(1),
            role: MemberRole::Data,
            site: String::new(),
            priority: 0,
            addresses: Default::default(),
        };
        let members = BTreeMap::from([(NodeId(1), member)]);
        let voters = BTreeSet::from([NodeId(1)]);
        let (acks, mode) = (Acks::All, Protection::MaxAvailability);
        let mut config = Config::first(history(generation), Nonce(1), acks, mode, members, voters);
        let ancestors = ancestors.iter();
        config.ancestors = ancestors
            .map(|(past, fork)| Ancestor::at(history(*past), Lsn(*fork)))
            .collect();
        config
    }

    fn log(reigns: &[(u64, u64, u64)]) -> EpochTable {
        let entry = |(generation, epoch, first): &(u64, u64, u64)| EpochEntry {
            history: history(*generation),
            epoch: Epoch(*epoch),
            nonce: Nonce(1),
            primary: NodeId(1),
            first_lsn: Lsn(*first),
        };
        EpochTable::new(reigns.iter().map(entry).collect())
    }

    /// History 2 was founded by a node that held epoch 1 up to 20, where epoch 2, of which it had
    /// not heard, had taken over from 10 on.
    #[test]
    fn a_point_is_contained_where_its_own_epoch_wrote_it() {
        let (mut two, founder) = (config(2, &[(1, 20)]), log(&[(1, 1, 1), (2, 3, 21)]));
        two.ancestors[0].shared = Lsn(5);
        let behind = log(&[(1, 1, 1), (1, 2, 10)]);
        let none = log(&[]);
        for (what, log, generation, epoch, lsn, expected) in [
            ("below what was replaced", &founder, 1, 1, 9, Contained::Yes),
            (
                "replaced there, not here",
                &founder,
                1,
                2,
                15,
                Contained::No,
            ),
            ("the end", &founder, 1, 1, 20, Contained::Yes),
            ("behind the fork", &founder, 1, 1, 21, Contained::No),
            ("its own", &founder, 2, 3, 21, Contained::Yes),
            ("its own, not here yet", &founder, 2, 3, 99, Contained::Yes),
            ("of an unknown history", &founder, 3, 1, 5, Contained::No),
            ("a log to be replaced", &behind, 1, 2, 15, Contained::NotYet),
            ("the same, its own", &behind, 2, 3, 21, Contained::NotYet),
            ("behind the fork at once", &behind, 1, 2, 21, Contained::No),
            ("no log, its own", &none, 2, 3, 21, Contained::Yes),
            ("no log", &none, 1, 1, 5, Contained::NotYet),
        ] {
            let seen = Fence {
                history: history(generation),
                epoch: Epoch(epoch),
            };
            assert_eq!(contained(&two, log, seen, Lsn(lsn)), expected, "{what}");
        }
        assert_eq!(shared_through(&two, &behind), Lsn(20), "at most");
    }

    #[test]
    fn a_founder_shares_no_more_than_its_own_log_has() {
        type Reigns<'a> = &'a [(u64, u64, u64)];
        type Forks<'a> = &'a [(u64, u64, u64)];
        type Case<'a> = (&'a str, Reigns<'a>, (u64, u64), Forks<'a>);
        let cases: [Case; 6] = [
            (
                "its log is its history's",
                &[(1, 1, 1), (2, 3, 31)],
                (40, 40),
                &[(1, 30, 30), (2, 40, 40)],
            ),
            (
                "not all of it is known to be committed",
                &[(1, 1, 1), (2, 3, 31)],
                (20, 40),
                &[(1, 20, 30), (2, 20, 40)],
            ),
            (
                "it was left with history 1's",
                &[(1, 1, 1), (1, 2, 20)],
                (40, 50),
                &[(1, 30, 30), (2, 30, 30)],
            ),
            (
                "it has less of it than the fork",
                &[(1, 1, 1)],
                (15, 25),
                &[(1, 15, 25), (2, 15, 25)],
            ),
            (
                "of neither",
                &[(9, 1, 1)],
                (25, 25),
                &[(1, 0, 0), (2, 0, 0)],
            ),
            ("nothing", &[], (0, 0), &[(1, 0, 0), (2, 0, 0)]),
        ];
        for (what, reigns, (commit, end), expected) in cases {
            let ancestor = |(past, shared, end): &(u64, u64, u64)| Ancestor {
                history: history(*past),
                shared: Lsn(*shared),
                end: Lsn(*end),
            };
            let expected: Vec<_> = expected.iter().map(ancestor).collect();
            let config = config(2, &[(1, 30)]);
            assert_eq!(
                ancestors(&config, &log(reigns), Lsn(commit), Lsn(end)),
                expected,
                "{what}"
            );
        }
    }
}
