//! What objects of an archive are called.

use crate::manifest::{ManifestId, Named};
use crate::seal::RecipientsId;
use crate::store::{self, join};
use standfast_wal::{ClusterId, History, Lsn};

/// The name of a history's card.
pub const CARD_NAME: &str = "history";
/// The name above a cluster's plain segments, and what the names above encrypted ones begin with.
pub(super) const SEGMENTS_NAME: &str = "segments";
pub(super) const SNAPSHOT_PREFIX: &str = "snapshot-";
pub(super) const LOG_PREFIX: &str = "log-";
pub(super) const MANIFEST_PREFIX: &str = "manifest-";

/// `<cluster>/<generation>-<id>`; the generation is padded, so that names sort as numbers.
pub fn history_dir(cluster: ClusterId, history: History) -> String {
    format!("{cluster}/{:020}-{:032x}", history.generation, history.id)
}

/// Where the segments lie that a history's snapshots, and those of all others of its cluster, need:
/// beside the histories' directories, and of each set of recipients by themselves. Whoever opens a
/// snapshot opens its segments, whatever keys there were before.
pub fn segments_beside(history_dir: &str, recipients: Option<RecipientsId>) -> String {
    let name = match recipients {
        None => SEGMENTS_NAME.to_string(),
        Some(id) => format!("{SEGMENTS_NAME}-{id}"),
    };
    join(store::parent(history_dir), &name)
}

/// Where those who put segments, and those who remove some, tell each other (`archive/marks.rs`).
pub fn marks_dir(cluster: ClusterId) -> String {
    format!("{cluster}/marks")
}

/// The archive's name of a snapshot.
pub fn snapshot_name(lsn: Lsn) -> String {
    format!("{SNAPSHOT_PREFIX}{:020}", lsn.0)
}

/// The archive's name of a piece of log.
pub fn log_name(first: Lsn, last: Lsn) -> String {
    format!("{LOG_PREFIX}{:020}-{:020}", first.0, last.0)
}

/// The archive's name of a manifest.
pub fn manifest_name(id: ManifestId) -> String {
    format!(
        "{MANIFEST_PREFIX}{:020}-{:020}",
        id.lsn.0, id.snapshot_lsn.0
    )
}

/// The archive's name of what a manifest names.
pub fn named_name(named: &Named) -> String {
    match named.first {
        Lsn::ZERO => snapshot_name(named.last),
        first => log_name(first, named.last),
    }
}

fn parse_lsn(digits: &str) -> Option<Lsn> {
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok().map(Lsn)).flatten()
}

pub(super) fn parse_snapshot_name(name: &str) -> Option<Lsn> {
    parse_lsn(name.strip_prefix(SNAPSHOT_PREFIX)?)
}

/// Whether this is the path of a snapshot.
pub fn is_snapshot(path: &str) -> bool {
    parse_snapshot_name(store::last_part(path)).is_some()
}

pub(super) fn parse_log_name(name: &str) -> Option<(Lsn, Lsn)> {
    let (first, last) = name.strip_prefix(LOG_PREFIX)?.split_once('-')?;
    Some((parse_lsn(first)?, parse_lsn(last)?))
}

pub(super) fn parse_manifest_name(name: &str) -> Option<ManifestId> {
    let (lsn, snapshot) = name.strip_prefix(MANIFEST_PREFIX)?.split_once('-')?;
    Some(ManifestId {
        lsn: parse_lsn(lsn)?,
        snapshot_lsn: parse_lsn(snapshot)?,
    })
}

pub(super) fn parse_history(name: &str) -> Option<History> {
    let (generation, id) = name.split_once('-')?;
    Some(History {
        generation: parse_lsn(generation)?.0,
        id: u128::from_str_radix(id, 16)
            .ok()
            .filter(|_| id.len() == 32)?,
    })
}
