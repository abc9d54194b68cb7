//! Proving all of an archive again and again: when it is due, and what the last proof came to.

use crate::limits;
use crate::node::archiver::{Archiver, Order};
use crate::node::clock::Now;
use serde::{Deserialize, Serialize};
use standfast_snapshot::Shared;
use standfast_snapshot::verify::{Finding, Report};
use standfast_wal::ClusterId;

/// What the last proof of the whole archive came to. The newest is the greatest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Wall clock (ns) when it ended.
    pub at_ns: u64,
    pub objects: u64,
    pub bytes: u64,
    pub findings: u64,
    /// The first finding, for people.
    pub first: Option<String>,
}

impl Verified {
    pub fn new(report: &Report, at_ns: u64) -> Verified {
        let findings = report.histories.iter().flat_map(|one| &one.findings);
        let nothing = report.histories.is_empty().then_some(&Finding::Nothing);
        let mut findings = findings.chain(nothing);
        let first = findings.next().map(Finding::to_string);
        Verified {
            at_ns,
            objects: report.files,
            bytes: report.file_bytes,
            findings: u64::from(first.is_some()) + findings.count() as u64,
            first,
        }
    }

    pub fn text(&self) -> String {
        let read = format!("{} objects, {} bytes", self.objects, self.bytes);
        match &self.first {
            None => format!("all of it was proved: {read}"),
            Some(first) => format!(
                "the proof of {read} found {} things wrong (`standfast backup verify` lists them): \
                 {first}",
                self.findings
            ),
        }
    }
}

/// The archive that is to be proved; on a thread of its own, for it takes long.
pub struct Proof {
    pub store: Shared,
    pub cluster: ClusterId,
}

impl Archiver {
    /// The proof that should begin now, if one is wanted and none is under way.
    pub fn proof(&mut self, order: &Order, now: Now) -> Option<Proof> {
        if !order.is_verify_due || self.is_verifying || now.boot < self.verify_after {
            return None;
        }
        let store = self.store.clone()?;
        let interval = limits::ARCHIVE_VERIFY_RETRY.as_nanos();
        self.verify_after = now.boot + u64::try_from(interval).unwrap_or(u64::MAX);
        self.is_verifying = true;
        Some(Proof {
            store,
            cluster: order.card.cluster,
        })
    }

    /// The proof has ended, or the store did not answer.
    pub fn proved(&mut self, result: Result<Verified, String>) {
        self.is_verifying = false;
        match result {
            Ok(verified) => {
                self.verify_error = None;
                self.standing.verified = Some(verified);
            }
            Err(error) => {
                self.standing.failures += 1;
                self.verify_error = Some(format!("its proof broke off: {error}"));
            }
        }
    }
}
