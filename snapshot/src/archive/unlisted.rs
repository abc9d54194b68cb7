//! What a shipper has put, or found there, that no manifest names yet.

use super::{Put, put};
use crate::Result;
use crate::card::Card;
use crate::catalogue;
use crate::manifest::{ENTRIES_MAX, Manifest, ManifestId, Named};
use crate::object::LogHead;
use crate::store::{Shared, Store, join};
use standfast_wal::{History, Lsn};
use std::collections::BTreeSet;

/// A manifest is put behind so many pieces of log at the latest.
pub const MANIFEST_PIECES: usize = 16;

/// What the next manifest names.
#[derive(Clone, Debug)]
pub(super) struct Unlisted {
    previous: ManifestId,
    named: BTreeSet<Named>,
}

impl Unlisted {
    /// Looks at what lies there behind the newest manifest.
    pub(super) fn find(store: &Shared, dir: &str) -> Result<Unlisted> {
        let previous = catalogue::newest_manifest(&**store, dir)?.unwrap_or_default();
        let mut unlisted = Unlisted {
            previous,
            named: BTreeSet::new(),
        };
        let mut snapshots = catalogue::snapshots_in(&**store, dir)?;
        snapshots.retain(|lsn| *lsn > previous.snapshot_lsn);
        for lsn in snapshots {
            unlisted.note_snapshot(store, dir, lsn)?;
        }
        unlisted.note_if_replaced(store, dir)?;
        let pieces = catalogue::pieces_from(&**store, dir, previous.lsn.next())?;
        // An archive that is older than manifests: the chain speaks for what is far behind.
        let newest = pieces.len().saturating_sub(ENTRIES_MAX / 2);
        for (first, last) in &pieces[newest..] {
            let path = join(dir, &catalogue::log_name(*first, *last));
            match catalogue::read_log_head(&**store, &path) {
                Ok(head) => unlisted.note(&head),
                Err(error) if error.is_unanswered() => return Err(error),
                // `verify` says so.
                Err(_) => {}
            }
        }
        Ok(unlisted)
    }

    /// The snapshot that the newest manifest names may have been put again since, with other bytes.
    fn note_if_replaced(&mut self, store: &Shared, dir: &str) -> Result<()> {
        let path = join(dir, &catalogue::manifest_name(self.previous));
        let named = match catalogue::read_manifest(&**store, &path) {
            Ok(manifest) => manifest.named,
            Err(error) if error.is_unanswered() => return Err(error),
            // There is none, or `verify` says so.
            Err(_) => return Ok(()),
        };
        let lsn = self.previous.snapshot_lsn;
        let is_it = |one: &&Named| one.first == Lsn::ZERO && one.last == lsn;
        if let Some(known) = named.iter().find(is_it).copied() {
            self.note_snapshot(store, dir, lsn)?;
            self.named.remove(&known);
        }
        Ok(())
    }

    pub(super) fn note(&mut self, head: &LogHead) {
        self.named.insert(head.named());
    }

    pub(super) fn note_snapshot(&mut self, store: &Shared, dir: &str, lsn: Lsn) -> Result<()> {
        let path = join(dir, &catalogue::snapshot_name(lsn));
        match catalogue::read_snapshot(store, &path) {
            Ok((entry, _)) => {
                self.named.insert(entry.named());
            }
            Err(error) if error.is_unanswered() => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether enough, or a snapshot, waits to be named.
    pub(super) fn is_due(&self) -> bool {
        let is_new = |one: &Named| one.last > self.previous.snapshot_lsn;
        let is_snapshot = |one: &Named| one.first == Lsn::ZERO && is_new(one);
        self.named.len() >= MANIFEST_PIECES || self.named.iter().any(is_snapshot)
    }

    /// What is gone and lies before a snapshot has expired while this shipper slept: it is named no
    /// more. What else is gone is named, and missed.
    fn forget_expired(&mut self, store: &dyn Store, dir: &str) -> Result<()> {
        let snapshots = catalogue::snapshots_in(store, dir)?;
        let Some(newest) = snapshots.iter().max() else {
            return Ok(());
        };
        if self.named.iter().all(|one| one.last > *newest) {
            return Ok(());
        }
        let firsts = self.named.iter().map(|one| one.first);
        let oldest = firsts.filter(|first| *first > Lsn::ZERO).min();
        let pieces: BTreeSet<(Lsn, Lsn)> = match oldest {
            Some(oldest) => catalogue::pieces_from(store, dir, oldest)?
                .into_iter()
                .collect(),
            None => BTreeSet::new(),
        };
        let is_there = |one: &Named| match one.first {
            Lsn::ZERO => snapshots.contains(&one.last),
            first => pieces.contains(&(first, one.last)),
        };
        self.named.retain(|one| one.last > *newest || is_there(one));
        Ok(())
    }

    /// Puts the next manifest, if there is anything to name. Of a history that others know to have
    /// ended none is put: what it names may have expired by then, and would be missed for good.
    pub(super) fn put(&mut self, store: &dyn Store, dir: &str, card: &Card) -> Result<()> {
        let histories = catalogue::histories(store, card.cluster)?;
        let has_ended = |other: &History| other.generation > card.history.generation;
        if histories.iter().any(has_ended) {
            self.named.clear();
            return Ok(());
        }
        self.forget_expired(store, dir)?;
        let last = |of_snapshots: bool| {
            let all = self.named.iter();
            let some = all.filter(|one| (one.first == Lsn::ZERO) == of_snapshots);
            some.map(|one| one.last).max().unwrap_or(Lsn::ZERO)
        };
        let id = ManifestId {
            lsn: self.previous.lsn.max(last(false)),
            snapshot_lsn: self.previous.snapshot_lsn.max(last(true)),
        };
        // What was put again, repaired, waits for the next one.
        if self.named.is_empty() || id == self.previous {
            return Ok(());
        }
        let manifest = Manifest {
            cluster: card.cluster,
            history: card.history,
            id,
            previous: self.previous,
            named: self.named.iter().rev().copied().take(ENTRIES_MAX).collect(),
        };
        let path = join(dir, &catalogue::manifest_name(id));
        let put = put(store, &path, &manifest.encode().into(), || {
            let there = catalogue::read_manifest(store, &path)?;
            Ok((there.cluster, there.history, there.id) == (card.cluster, card.history, id))
        })?;
        match put {
            // Another shipper's names what that one knew of.
            Put::Present => {
                let theirs = catalogue::read_manifest(store, &path)?.named;
                self.named.retain(|one| !theirs.contains(one));
            }
            Put::New | Put::Repaired => self.named.clear(),
        }
        self.previous = id;
        Ok(())
    }
}
