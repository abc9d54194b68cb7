//! Whether a total is final: only what was read can say so, and silence says nothing.

use super::found::Found;
use crate::node::statement::{Acknowledged, Statement, What};

/// Why there may be more than was read; `None`: it is all there is.
///
/// It is all where the promotions that ended the histories have told who had been in the sync set,
/// and each of those has told what it gave up, or that it had nothing to give up.
pub fn doubt(found: &[Found]) -> Option<String> {
    let statements: Vec<&Statement> = found.iter().map(|one| &one.statement).collect();
    let of_what = |what: What| {
        statements
            .iter()
            .copied()
            .filter(move |one| one.what == what)
    };
    let promotions: Vec<&Statement> = of_what(What::ForcedPromotion).collect();
    let returned: Vec<&Statement> = of_what(What::Cut)
        .filter(|cut| is_across_histories(cut) && was_written(cut))
        .chain(of_what(What::NothingMore))
        .collect();
    if promotions.is_empty() && returned.is_empty() {
        return Some("the directories that were read tell of no forced promotion".to_owned());
    }
    let is_told = |one: &&&Statement| promotions.iter().any(|by| by.history == one.history);
    if let Some(one) = returned.iter().find(|one| !is_told(one)) {
        return Some(format!(
            "who else had commands of history {} only the node that was promoted by force knows, \
             and its statement is not in the directories that were read",
            one.history
        ));
    }
    let absent = promotions.iter().find_map(|by| absent(by, &returned));
    absent.or_else(|| returned.iter().find_map(|one| incomplete(one)))
}

/// Within one history nothing that was committed is cut: such a cut says nothing of what a
/// promotion has lost.
fn is_across_histories(cut: &Statement) -> bool {
    cut.rest_acknowledged != Acknowledged::No
}

/// By the node that cut. What was made again of records that a crash left says nothing of the rest
/// that the node had.
fn was_written(cut: &Statement) -> bool {
    !cut.replaced_by.is_empty()
}

/// The members of the lost sync set that have not told what they had.
fn absent(promotion: &Statement, returned: &[&Statement]) -> Option<String> {
    let has_told = |node: u32| {
        let mut of_node = returned.iter().filter(|one| one.node == node);
        // What the promoted node had is what was kept.
        node == promotion.node || of_node.any(|one| one.history == promotion.history)
    };
    let set = promotion.sync_set.iter();
    let absent: Vec<String> = set
        .filter(|node| !has_told(**node))
        .map(|node| format!("node {node}"))
        .collect();
    let text = format!(
        "no statement of {} about history {} is in the directories that were read",
        absent.join(" and "),
        promotion.history
    );
    (!absent.is_empty()).then_some(text)
}

fn incomplete(one: &Statement) -> Option<String> {
    let node = one.node;
    let trimmed = one.unlisted_through.map(|through| {
        let first = one.first_lsn;
        format!("node {node} did not have LSN {first} to {through} any more, or could not read it")
    });
    let unread = one
        .unread_from
        .map(|from| format!("node {node} could not read its log from LSN {from} on"));
    let damaged = || format!("the end of node {node}'s log had been damaged before");
    trimmed
        .or(unread)
        .or_else(|| one.end_was_damaged.then(damaged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Fence, Loss};
    use standfast_wal::{Epoch, History, Lsn, NodeId};

    const FAR: u32 = 2;

    fn history(generation: u64) -> History {
        let id = u128::from(generation);
        History { generation, id }
    }

    /// Of history 1 up to LSN 9, of which 5 are in history 2.
    fn loss(first: u64) -> Loss {
        Loss {
            history: history(1),
            by: Fence {
                history: history(2),
                epoch: Epoch(2),
            },
            first_lsn: Lsn(first),
            last_lsn: Lsn(9),
            committed: Lsn(9),
            possibly_acknowledged: true,
        }
    }

    fn promoted(set: &[u32]) -> Statement {
        let set = set.iter().copied().map(NodeId).collect();
        Statement::of_force(1, NodeId(FAR), loss(6), &set)
    }

    fn cut(node: u32) -> Statement {
        Statement::of_cut(2, NodeId(node), Lsn(5), loss(6))
    }

    fn nothing(node: u32) -> Statement {
        Statement::of_nothing(2, NodeId(node), loss(10))
    }

    fn why(statements: &[Statement]) -> String {
        let found = |statement: &Statement| Found {
            dir: Default::default(),
            file: Default::default(),
            statement: statement.clone(),
        };
        let found: Vec<Found> = statements.iter().map(found).collect();
        doubt(&found).unwrap_or_default()
    }

    #[test]
    fn it_is_final_when_everybody_of_the_lost_set_has_told() {
        assert_eq!(why(&[promoted(&[0, 1]), cut(0), cut(1)]), "");
        assert_eq!(why(&[promoted(&[0, 1]), cut(0), nothing(1)]), "");
        // A synchronous backup that was promoted has kept what it had.
        assert_eq!(why(&[promoted(&[0, FAR]), nothing(0)]), "");
    }

    #[test]
    fn it_is_not_without_the_statement_of_the_promotion() {
        for statements in [vec![], vec![cut(0), cut(1)], vec![nothing(0)]] {
            assert_ne!(why(&statements), "", "{statements:?}");
        }
        // That of another promotion says nothing of this one's sync set.
        let other = Statement {
            history: history(7).to_string(),
            ..promoted(&[])
        };
        let why = why(&[other, cut(0)]);
        assert!(why.contains("history 1-"), "{why}");
    }

    #[test]
    fn it_names_whoever_has_not_told() {
        let why = why(&[promoted(&[0, 1, 3]), cut(1)]);
        assert!(why.contains("node 0 and node 3 about history 1-"), "{why}");
    }

    #[test]
    fn a_cut_within_one_history_tells_nothing_of_a_promotion() {
        let within = Statement {
            rest_acknowledged: Acknowledged::No,
            ..cut(0)
        };
        assert!(why(&[promoted(&[0]), within]).contains("node 0"));
    }

    #[test]
    fn what_a_crash_left_is_no_word_of_the_node() {
        let made_again = Statement {
            replaced_by: String::new(),
            ..cut(0)
        };
        assert!(why(&[promoted(&[0]), made_again]).contains("node 0"));
    }

    #[test]
    fn a_log_that_was_not_whole_leaves_a_doubt() {
        let trimmed = Statement {
            unlisted_through: Some(7),
            ..cut(0)
        };
        let told = why(&[promoted(&[0]), trimmed]);
        assert!(told.contains("LSN 6 to 7"), "{told}");
        let unread = Statement {
            unread_from: Some(8),
            ..cut(0)
        };
        assert!(why(&[promoted(&[0]), unread]).contains("from LSN 8 on"));
        let damaged = Statement {
            end_was_damaged: true,
            ..cut(0)
        };
        assert!(why(&[promoted(&[0]), damaged]).contains("damaged"));
    }
}
