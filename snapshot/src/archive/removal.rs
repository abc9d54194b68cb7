//! Removes what may go, beside others that put and remove, and however long it is stopped.

use super::marks::{self, Mark};
use crate::Result;
use crate::catalogue::{self, Catalogue};
use crate::error::{Error, Reason};
use crate::retention::Expiry;
use crate::store::{Shared, join};
use standfast_wal::ClusterId;
use std::collections::BTreeSet;
use std::time::Duration;

/// Whoever removes does so no longer: after that it looks again at what may go. Far below
/// [`marks::MARK_FOR`].
pub const REMOVAL_FOR: Duration = Duration::from_secs(3600);

/// Removes what `retention` said of `catalogue` may go; manifests first, so that none names what is
/// gone, then snapshots, so that none is ever without its log or its segments. Segments stay that
/// somebody needs by now. Answers what is gone. `nonce` is nobody else's; `may_go_on` is asked
/// before each object: false once this removal began [`REMOVAL_FOR`] ago.
///
/// Others may remove at the same time: what is gone already is as good. An error leaves the mark
/// where it is, for a request may still be under way.
pub fn remove(
    store: &Shared,
    catalogue: &Catalogue,
    expiry: &Expiry,
    nonce: u128,
    may_go_on: &dyn Fn() -> bool,
) -> Result<Expiry> {
    let cluster = catalogue.cluster;
    let candidates: BTreeSet<String> = expiry.segments.iter().cloned().collect();
    let mut going = expiry.clone();
    let mut mark = None;
    if !candidates.is_empty() {
        let own = Mark::removal(store, cluster, nonce, &candidates)?;
        let mut needed = own.needed()?;
        // Only now: a put that is through has taken its mark away, and its snapshot is there.
        needed.extend(needed_since(store, catalogue)?);
        going.segments.retain(|path| !needed.contains(path));
        mark = Some(own);
    }
    for path in going.all() {
        if !may_go_on() {
            let place = store.place(path);
            return Err(Error::new(&place, None, Reason::Late));
        }
        marks::delete(&**store, path)?;
    }
    if let Some(mark) = mark {
        mark.sweep()?;
        mark.release()?;
    }
    Ok(going)
}

/// The segments of the snapshots that `before` does not know.
fn needed_since(store: &Shared, before: &Catalogue) -> Result<BTreeSet<String>> {
    let cluster: ClusterId = before.cluster;
    let known = before.histories.iter().flat_map(|entry| &entry.snapshots);
    let known: BTreeSet<&str> = known.map(|one| one.path.as_str()).collect();
    let mut needed = BTreeSet::new();
    for history in catalogue::histories(&**store, cluster)? {
        let dir = catalogue::history_dir(cluster, history);
        for lsn in catalogue::snapshots_in(&**store, &dir)? {
            let path = join(&dir, &catalogue::snapshot_name(lsn));
            if known.contains(path.as_str()) {
                continue;
            }
            match catalogue::read_snapshot(store, &path) {
                Ok((entry, _)) => needed.extend(entry.segment_paths()),
                // Another one has removed it meanwhile.
                Err(error) if error.is_absent() => {}
                // It may need any of them.
                Err(error) => return Err(error),
            }
        }
    }
    Ok(needed)
}
