//! Reads records up to the durable end while the writer appends; sealed segments through maps.

use crate::error::Error;
use crate::log::DamagedRange;
use crate::record::{Lsn, Record};
use crate::storage::Storage;
use std::marker::PhantomData;

/// Why records cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The log begins above: a snapshot is needed.
    Gone {
        first_lsn: Lsn,
    },
    /// The record after `after` is damaged on disk: repair it from a peer.
    Damaged(Box<DamagedRange>),
    Failed(Error),
}

/// A handle for reading; clones share the log's list of segments.
#[derive(Clone)]
pub struct Reader<S: Storage> {
    storage: PhantomData<S>,
}

impl<S: Storage> Reader<S> {
    /// The durable records whose last LSN is above `after`, in order: at least one if there is
    /// any, as many as fit `max_bytes`. Empty at the durable end.
    pub fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let _ = (after, max_bytes);
        todo!()
    }

    /// The last LSN that may be read.
    pub fn durable(&self) -> Lsn {
        todo!()
    }

    pub fn first_lsn(&self) -> Lsn {
        todo!()
    }
}
