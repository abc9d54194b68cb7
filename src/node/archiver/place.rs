//! Whether the place in which a node archives is the right one, and what was put there still is.

use super::Archiver;
use super::Order;
use crate::limits;
use crate::node::clock::Now;
use standfast_snapshot::survey::{self, Missing};
use standfast_snapshot::{Shared, catalogue, store};
use standfast_wal::{ClusterId, History};
use std::time::Duration;

impl Archiver {
    /// Before anything is shipped: whether this node could. That the store does not answer now says
    /// nothing.
    pub fn look_around(&mut self, cluster: ClusterId, history: History) -> Result<(), String> {
        let opened = match &self.store {
            Some(store) => Ok(store.clone()),
            None => store::open(&self.place, &self.scratch),
        };
        let Ok(store) = opened else {
            return Ok(());
        };
        self.store = Some(store.clone());
        let Ok(is_there) = has_archive(&store, cluster) else {
            return Ok(());
        };
        self.is_founded |= is_there;
        check_belongs(&store, &self.place, cluster, history, self.is_founded)
    }

    /// Whether what was shipped is still there: the newest piece says nothing of those before it.
    pub(super) fn look(&mut self, order: &Order, now: Now) -> Result<(), String> {
        let (Some(course), Some(store)) = (&mut self.course, &self.store) else {
            return Ok(());
        };
        let slept = Duration::from_nanos(now.boot.saturating_sub(course.looked));
        let Some(end) = course.shipper.end() else {
            return Ok(());
        };
        if !course.survey.is_whole || slept < limits::ARCHIVE_LOOK_INTERVAL {
            return Ok(());
        }
        let missing = survey::missing(store, &order.card, end.position.lsn);
        let missing = missing.map_err(|error| error.to_string())?;
        course.looked = now.boot;
        let Some(missing) = missing else {
            return Ok(());
        };
        // What was said to be restorable is not; what is there is looked at from the beginning.
        self.course = None;
        self.standing.restorable_ns = 0;
        self.standing.is_lost = true;
        let Missing::Between(before, behind) = missing else {
            return Err(gone(&self.place));
        };
        self.standing.gap = Some((before, behind));
        Err(format!(
            "log between LSN {before} and {behind} that had been shipped, or a snapshot behind it, \
             is not in the archive any more"
        ))
    }
}

/// The archive is this cluster's, and nobody's newer past is in it.
pub(super) fn check_belongs(
    store: &Shared,
    place: &str,
    cluster: ClusterId,
    history: History,
    is_founded: bool,
) -> Result<(), String> {
    let text = |error: standfast_snapshot::Error| error.to_string();
    let clusters = catalogue::clusters(&**store).map_err(text)?;
    if let Some(other) = clusters.first().filter(|_| !clusters.contains(&cluster)) {
        return Err(format!(
            "{place} is the archive of cluster {other}, not of {cluster}: give each cluster a \
             place of its own"
        ));
    }
    let histories = catalogue::histories(&**store, cluster).map_err(text)?;
    if is_founded && !has_archive(store, cluster).map_err(text)? {
        return Err(gone(place));
    }
    let newer = histories
        .iter()
        .find(|other| other.generation >= history.generation && **other != history);
    match newer {
        None => Ok(()),
        Some(other) => Err(format!(
            "{place} holds history {other} of this cluster, which this node's {history} is not a \
             later one of: set `archive` to another place for one of the two"
        )),
    }
}

/// Whether the card of any history of this cluster is there.
fn has_archive(store: &Shared, cluster: ClusterId) -> standfast_snapshot::Result<bool> {
    let histories = catalogue::histories(&**store, cluster)?;
    let mut all = histories.iter();
    all.try_fold(false, |any, one| {
        Ok(any || catalogue::has_card(&**store, cluster, *one)?)
    })
}

fn gone(place: &str) -> String {
    format!(
        "what this node has seen in {place} of this cluster's archive is not there any more: is \
         its file system mounted, is it the right bucket? To begin another archive there, stop the \
         nodes and remove archive.place in their data directories"
    )
}
