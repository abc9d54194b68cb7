//! The acknowledgement rule and the change rule: pure functions, and the tables of their cases.
//!
//! I1: what a rule says is committed is held by enough of the sync set that every later fence
//! quorum of that set has it; a change of the set keeps that true for all up to the floor.

use std::collections::BTreeSet;

use standfast_wal::{Lsn, NodeId};

/// Whose acknowledgements count, and how many are needed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    pub set: BTreeSet<NodeId>,
    pub needed: u32,
}

impl Rule {
    /// The highest value that at least `needed` members have reached; `None` when more are needed
    /// than there are.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> T) -> Option<T> {
        let count = |least: T| self.set.iter().filter(|id| value(**id) >= least).count();
        let covered = |least: &T| count(*least) >= self.needed as usize;
        self.set.iter().map(|id| value(*id)).filter(covered).max()
    }
}

/// What all rules in force have reached, the current one and that of a change or a joining member.
pub fn reached<'a, T: Ord + Copy>(
    rules: impl Iterator<Item = &'a Rule>,
    value: impl Fn(NodeId) -> T,
) -> Option<T> {
    let mut lowest = None;
    for rule in rules {
        let reached = rule.reached(&value)?;
        lowest = Some(lowest.map_or(reached, |low: T| low.min(reached)));
    }
    lowest
}

/// The commit LSN: what all rules have matched, provided the record there is of the current epoch,
/// which began at `epoch_start`. `None`: nothing of this epoch is committed.
pub fn commit_lsn<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    matched: impl Fn(NodeId) -> Lsn,
    epoch_start: Lsn,
) -> Option<Lsn> {
    reached(rules, matched).filter(|lsn| *lsn >= epoch_start)
}

/// Whether `next` may be proposed: every LSN up to `floor` is matched in this epoch by at least
/// its `needed` members. Where it needs more than it has members, so that it commits nothing
/// (max-protection alone), all its members must have matched: then its one candidate has it all.
pub fn may_change(floor: Lsn, matched: impl Fn(NodeId) -> Lsn, next: &Rule) -> bool {
    let holders = next.set.iter().filter(|id| matched(**id) >= floor).count();
    !next.set.is_empty() && holders >= (next.needed as usize).min(next.set.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(set: &[u32], needed: u32) -> Rule {
        Rule {
            set: set.iter().map(|id| NodeId(*id)).collect(),
            needed,
        }
    }

    /// Node i has matched `at[i - 1]`.
    fn matched(at: &[u64]) -> impl Fn(NodeId) -> Lsn {
        move |id| Lsn(at[id.0 as usize - 1])
    }

    #[test]
    fn the_commit_lsn_is_what_enough_of_every_rule_in_force_hold() {
        // (what, rules, matched, epoch start, commit LSN)
        type Case<'a> = (&'a str, Vec<Rule>, &'a [u64], u64, Option<u64>);
        let cases: Vec<Case> = vec![
            ("alone: its own disk", vec![rule(&[1], 1)], &[7], 1, Some(7)),
            (
                "all of two: the slower",
                vec![rule(&[1, 2], 2)],
                &[7, 5],
                1,
                Some(5),
            ),
            (
                "all of two: the primary's own disk is slower",
                vec![rule(&[1, 2], 2)],
                &[4, 5],
                1,
                Some(4),
            ),
            (
                "one of two: the faster",
                vec![rule(&[1, 2], 1)],
                &[7, 5],
                1,
                Some(7),
            ),
            (
                "majority of three: the middle",
                vec![rule(&[1, 2, 3], 2)],
                &[9, 3, 6],
                1,
                Some(6),
            ),
            (
                "majority of three without the primary",
                vec![rule(&[1, 2, 3], 2)],
                &[3, 8, 9],
                1,
                Some(8),
            ),
            (
                "majority of five",
                vec![rule(&[1, 2, 3, 4, 5], 3)],
                &[9, 1, 5, 4, 2],
                1,
                Some(4),
            ),
            (
                "all of three",
                vec![rule(&[1, 2, 3], 3)],
                &[9, 3, 6],
                1,
                Some(3),
            ),
            (
                "members outside the set do not count",
                vec![rule(&[1, 2], 2)],
                &[9, 3, 8],
                1,
                Some(3),
            ),
            (
                "Figure 8: only this epoch's records commit by counting",
                vec![rule(&[1, 2, 3], 2)],
                &[5, 5, 2],
                6,
                None,
            ),
            (
                "... and with them all before",
                vec![rule(&[1, 2, 3], 2)],
                &[6, 6, 2],
                6,
                Some(6),
            ),
            (
                "max-protection alone commits nothing",
                vec![rule(&[1], 2)],
                &[9],
                1,
                None,
            ),
            (
                "a change: the old and the new rule",
                vec![rule(&[1, 2], 2), rule(&[1], 1)],
                &[9, 4],
                1,
                Some(4),
            ),
            (
                "joining: the new member counts already",
                vec![rule(&[1], 1), rule(&[1, 2], 2)],
                &[9, 4],
                1,
                Some(4),
            ),
            (
                "three rules",
                vec![rule(&[1, 2], 2), rule(&[1], 1), rule(&[1, 3], 2)],
                &[9, 8, 7],
                1,
                Some(7),
            ),
            (
                "a rule that cannot be met stops all",
                vec![rule(&[1, 2], 2), rule(&[1], 2)],
                &[9, 9],
                1,
                None,
            ),
        ];
        for (what, rules, at, start, commit) in cases {
            let got = commit_lsn(rules.iter(), matched(at), Lsn(start));
            assert_eq!(got, commit.map(Lsn), "{what}");
        }
    }

    #[test]
    fn a_change_needs_all_up_to_the_floor_on_enough_of_the_new_set() {
        // (what, floor, matched, next, may)
        let cases: Vec<(&str, u64, &[u64], Rule, bool)> = vec![
            ("the lost backup goes", 7, &[9, 0], rule(&[1], 1), true),
            (
                "but not while the primary's own disk lags",
                7,
                &[6, 7],
                rule(&[1], 1),
                false,
            ),
            (
                "a member comes when it has the floor",
                7,
                &[9, 7],
                rule(&[1, 2], 2),
                true,
            ),
            ("and not before", 7, &[9, 6], rule(&[1, 2], 2), false),
            (
                "a majority of the new set is enough",
                7,
                &[9, 7, 0],
                rule(&[1, 2, 3], 2),
                true,
            ),
            (
                "fewer acks: one holder does",
                7,
                &[9, 0],
                rule(&[1, 2], 1),
                true,
            ),
            (
                "more acks: all of them",
                7,
                &[9, 7, 6],
                rule(&[1, 2, 3], 3),
                false,
            ),
            (
                "one goes, another comes",
                7,
                &[9, 0, 8],
                rule(&[1, 3], 2),
                true,
            ),
            (
                "max-protection: alone with everything, it commits nothing",
                7,
                &[9, 0],
                rule(&[1], 2),
                true,
            ),
            (
                "max-protection: alone without everything",
                7,
                &[6, 9],
                rule(&[1], 2),
                false,
            ),
            ("a set of nobody", 0, &[], rule(&[], 1), false),
        ];
        for (what, floor, at, next, may) in cases {
            assert_eq!(may_change(Lsn(floor), matched(at), &next), may, "{what}");
        }
    }

    /// Exhaustive over sets of up to four: whatever a rule commits, every fence quorum of that
    /// rule holds (I1), and whatever `may_change` lets pass, every fence quorum of the new rule
    /// holds up to the floor.
    #[test]
    fn every_fence_quorum_meets_every_acknowledging_set() {
        for size in 1..=4u32 {
            let set: Vec<u32> = (1..=size).collect();
            for needed in 1..=size + 1 {
                let rule = rule(&set, needed);
                let quorum = (size + 1).saturating_sub(needed).max(1);
                for code in 0..3u64.pow(size) {
                    let at: Vec<u64> = (0..size).map(|i| code / 3u64.pow(i) % 3).collect();
                    let committed = commit_lsn([&rule].into_iter(), matched(&at), Lsn(0));
                    let floor = Lsn(1);
                    let may = may_change(floor, matched(&at), &rule);
                    for chosen in 0..1u32 << size {
                        let members = (0..size).filter(|i| chosen & 1 << i != 0);
                        if chosen.count_ones() < quorum {
                            continue;
                        }
                        let best = Lsn(members.map(|i| at[i as usize]).max().unwrap_or(0));
                        assert!(committed.is_none_or(|lsn| best >= lsn), "{rule:?} {at:?}");
                        assert!(!may || best >= floor, "{rule:?} {at:?}");
                    }
                }
            }
        }
    }
}
