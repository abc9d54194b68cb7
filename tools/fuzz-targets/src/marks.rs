//! What a target reached, counted per thread: so that the test notices inputs that all stop early.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static HITS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts that this place was reached.
pub(crate) fn hit(mark: &'static str) {
    HITS.with_borrow_mut(|hits| *hits.entry(mark).or_default() += 1);
}

/// The counts since they were last taken.
pub fn take() -> BTreeMap<&'static str, u64> {
    HITS.take()
}
