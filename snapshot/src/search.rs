//! Finds the plan of a restore in an archive, having read no more of it than that takes.
//!
//! What is looked at first: every snapshot's head, and the log from the newest start that can lead
//! to the target to the next one behind it. Where no plan comes of that, all of the archive is
//! read, and what cannot be met is refused with what there is; so it is where a manifest tells of
//! something that was not found there. The plan is the one that all of it gives.

use crate::Result;
use crate::catalogue::{self, Catalogue, Window};
use crate::plan::{Lineage, Plan, Point, Target, Unmet, newest_history, plan};
use crate::store::Shared;
use standfast_wal::{ClusterId, History, Lsn};

/// What was read, and the plan or why there is none; `history`: the newest if `None`.
pub fn search(
    store: &Shared,
    cluster: ClusterId,
    history: Option<History>,
    target: Target,
) -> Result<(Catalogue, std::result::Result<Plan, Unmet>)> {
    let mut some = catalogue::read_starts(store, cluster)?;
    if let Some(parts) = parts(&some, history, target) {
        let mut is_known = true;
        for (history, window) in parts {
            let mut entries = some.histories.iter_mut();
            let entry = entries.find(|entry| entry.history == history);
            let entry = entry.expect("a part is of a history that is there");
            is_known &= catalogue::read_window(store, cluster, entry, window)?;
        }
        if is_known && let Ok(plan) = plan(&some, history, target) {
            return Ok((some, Ok(plan)));
        }
    }
    let all = catalogue::read(store, cluster)?;
    let plan = plan(&all, history, target);
    Ok((all, plan))
}

/// Of which histories which log is wanted.
fn parts(
    starts: &Catalogue,
    history: Option<History>,
    target: Target,
) -> Option<Vec<(History, Window)>> {
    let tip = history.map_or_else(|| newest_history(starts), Ok).ok()?;
    let lineage = Lineage::of(starts, tip)?;
    let reaches = lineage.reaches();
    let points: Vec<Point> = reaches.iter().map(|reach| reach.from).collect();
    let is_behind = |point: &&Point| match target {
        Target::Latest => false,
        Target::Lsn(lsn) => point.lsn > lsn,
        Target::Time(ns) => point.timestamp.is_some_and(|at| at > ns),
    };
    let before = points.iter().filter(|point| !is_behind(point));
    let window = Window {
        above: before.map(|point| point.lsn).max().unwrap_or(Lsn::ZERO),
        through: points
            .iter()
            .filter(is_behind)
            .map(|point| point.lsn)
            .min()
            .unwrap_or(Lsn(u64::MAX)),
    };
    let ancestors = lineage.ancestors.iter();
    // What was forked from before the window has none of its log.
    let older = ancestors.filter(|past| past.shared > window.above);
    let known = |history: &History| starts.histories.iter().any(|e| e.history == *history);
    let older = older.map(|past| past.history).filter(known);
    Some(older.chain([tip]).map(|one| (one, window)).collect())
}

#[cfg(test)]
mod tests;
