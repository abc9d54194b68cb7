//! What the log's owner tells its readers: the list of segments and the durable end.

use crate::record::Lsn;
use crate::segment::{HEADER_AREA, Header};
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// How far apart remembered places are: what a read may have to skip through.
const PLACE_STEP_BYTES: u64 = 64 << 10;
/// One segment, as readers see it.
pub(crate) struct Part {
    pub(crate) header: Header,
    /// Filled at the first read after the segment was sealed.
    pub(crate) map: OnceLock<Bytes>,
    /// Places to start from: (last LSN before, offset of the stamp), both rising.
    places: Mutex<Vec<(Lsn, u64)>>,
}

impl Part {
    pub(crate) fn new(header: Header) -> Arc<Part> {
        Arc::new(Part {
            header,
            map: OnceLock::new(),
            places: Mutex::new(vec![(header.base.position.lsn, HEADER_AREA)]),
        })
    }

    /// The last remembered place at or below `after`.
    pub(crate) fn place(&self, after: Lsn) -> (Lsn, u64) {
        let places = lock(&self.places);
        let above = places.partition_point(|(lsn, _)| *lsn <= after);
        places[above
            .checked_sub(1)
            .expect("a part is asked only for what is above its base")]
    }

    pub(crate) fn remember(&self, lsn: Lsn, offset: u64) {
        let mut places = lock(&self.places);
        let at = places.partition_point(|(_, known)| *known <= offset);
        let far = |known: Option<&(Lsn, u64)>| {
            known.is_none_or(|(_, known)| known.abs_diff(offset) >= PLACE_STEP_BYTES)
        };
        if far(places.get(at.wrapping_sub(1))) && far(places.get(at)) {
            places.insert(at, (lsn, offset));
        }
    }

    /// Remembers a place however near another one is.
    pub(crate) fn insert(&self, lsn: Lsn, offset: u64) {
        let mut places = lock(&self.places);
        let at = places.partition_point(|(_, known)| *known < offset);
        if places.get(at) != Some(&(lsn, offset)) {
            places.insert(at, (lsn, offset));
        }
    }
}

/// What the log's owner tells its readers.
pub(crate) struct Shared<S: Storage> {
    pub(crate) storage: S,
    pub(crate) view: Mutex<View<S>>,
}

pub(crate) struct View<S: Storage> {
    /// All segments, oldest first; never empty.
    pub(crate) parts: VecDeque<Arc<Part>>,
    /// The newest segment's file.
    pub(crate) file: Arc<S::File>,
    pub(crate) durable: Lsn,
    /// Behind the last durable record in `file`.
    pub(crate) end: u64,
    /// Counts the changes that take records away: a read that failed across one is repeated.
    pub(crate) changes: u64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another reader leaves nothing half-changed behind these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Storage> Shared<S> {
    pub(crate) fn new(
        storage: S,
        headers: impl IntoIterator<Item = Header>,
        file: Arc<S::File>,
        durable: Lsn,
        end: u64,
    ) -> Arc<Shared<S>> {
        let parts = headers.into_iter().map(Part::new).collect();
        Arc::new(Shared {
            storage,
            view: Mutex::new(View {
                parts,
                file,
                durable,
                end,
                changes: 0,
            }),
        })
    }

    /// More is durable in the newest segment.
    pub(crate) fn extend(&self, durable: Lsn, end: u64) {
        let mut view = lock(&self.view);
        assert!(
            view.end < end && view.durable < durable,
            "appending moves forward"
        );
        (view.durable, view.end) = (durable, end);
        view.parts
            .back()
            .expect("never empty")
            .remember(durable, end);
    }

    /// A new segment became the newest one, in place of an empty one or behind it.
    pub(crate) fn begin(&self, header: Header, file: Arc<S::File>, replaces: bool) {
        let mut view = lock(&self.view);
        if replaces {
            view.parts.pop_back();
        }
        view.parts.push_back(Part::new(header));
        (view.file, view.end) = (file, HEADER_AREA);
    }

    pub(crate) fn trim(&self, first_lsn: Lsn) {
        let mut view = lock(&self.view);
        view.parts
            .retain(|part| part.header.first_lsn() >= first_lsn);
    }

    /// Nothing above `durable` may be read any more: a cut is about to be made.
    pub(crate) fn retreat(&self, durable: Lsn) {
        let mut view = lock(&self.view);
        view.durable = view.durable.min(durable);
        view.changes += 1;
    }

    /// The segments were changed other than by appending.
    pub(crate) fn replace(
        &self,
        headers: &VecDeque<Header>,
        file: Arc<S::File>,
        durable: Lsn,
        end: u64,
    ) {
        let mut view = lock(&self.view);
        view.parts = headers.iter().copied().map(Part::new).collect();
        (view.file, view.durable, view.end) = (file, durable, end);
        view.changes += 1;
    }

    /// One sealed segment has a new file with the same records.
    pub(crate) fn refresh(&self, first_lsn: Lsn) {
        let mut view = lock(&self.view);
        for part in &mut view.parts {
            if part.header.first_lsn() == first_lsn {
                *part = Part::new(part.header);
            }
        }
        view.changes += 1;
    }
}
