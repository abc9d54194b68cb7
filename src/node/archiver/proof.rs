//! Proving all of an archive again and again: when it is due, and what the last proof came to.
//!
//! Behind a proof that found nothing wrong goes what need not be kept: what was not proved, or is
//! not sound, loses nothing more.

use crate::limits;
use crate::node::archiver::{Archiver, Order};
use crate::node::clock::Now;
use crate::node::shelf::Contents;
use serde::{Deserialize, Serialize};
use standfast_snapshot::archive::{REMOVAL_FOR, remove};
use standfast_snapshot::retention::{Policy, expire};
use standfast_snapshot::verify::{Finding, Report, verify};
use standfast_snapshot::{Error, Identities, Shared, catalogue};
use standfast_wal::ClusterId;
use std::time::Duration;

/// What the last proof of the whole archive came to. The newest is the greatest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Wall clock (ns) when it ended.
    pub at_ns: u64,
    pub objects: u64,
    pub bytes: u64,
    pub findings: u64,
    /// Another snapshot mends some of that (`Report::wants_snapshot`).
    pub wants_snapshot: bool,
    /// The first finding, for people.
    pub first: Option<String>,
    /// Encrypted objects, of which no more was proved than that they are as they were put.
    pub unopened: u64,
    /// What was removed behind it; `None`: nothing is to be removed, or may be.
    pub expired: Option<Expired>,
}

/// What went because it need not be kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Expired {
    pub snapshots: u64,
    pub logs: u64,
    pub segments: u64,
    /// Why not all that may go has gone.
    pub error: Option<String>,
}

impl Expired {
    /// For people; `None` where nothing has happened.
    pub fn text(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("what need not be kept was not removed: {error}"));
        }
        let Expired {
            snapshots,
            logs,
            segments,
            ..
        } = self;
        (snapshots + logs + segments > 0).then(|| {
            format!(
                "{snapshots} snapshots, {logs} pieces of log and {segments} segments need not be \
                 kept and were removed"
            )
        })
    }
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
            wants_snapshot: report.wants_snapshot(),
            first,
            unopened: report.unopened.values().sum(),
            expired: None,
        }
    }

    pub fn text(&self) -> String {
        let read = format!("{} objects, {} bytes", self.objects, self.bytes);
        match &self.first {
            None if self.unopened == 0 => format!("all of it was proved: {read}"),
            None => format!(
                "all of it is there as it was put: {read}; {} objects are encrypted, and what is in \
                 them takes a key to prove: `standfast drill restore --identity FILE`",
                self.unopened
            ),
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
    /// How much is to be kept; `None`: everything.
    pub keep: Option<Policy>,
}

impl Proof {
    /// Reads all of it, on one thread, and then removes what may go. `nonce` is random.
    pub fn run(&self, now: &dyn Fn() -> Now, nonce: u128) -> Result<Verified, String> {
        let prove = || {
            let contents = Contents::of(self.cluster);
            let nobody = Identities::default();
            let report = verify(&self.store, self.cluster, 1, &nobody, &contents)?;
            Ok(Verified::new(&report, now().wall))
        };
        // `backup expire` may remove what was listed before it is read: what is found twice is
        // told.
        let proved = prove().and_then(|first| match first.findings {
            0 => Ok(first),
            _ => prove(),
        });
        let mut verified = proved.map_err(|error: Error| error.to_string())?;
        if let Some(policy) = self.keep.filter(|_| verified.findings == 0) {
            verified.expired = Some(self.expire(policy, now, nonce));
        }
        Ok(verified)
    }

    fn expire(&self, policy: Policy, now: &dyn Fn() -> Now, nonce: u128) -> Expired {
        let start = now();
        let may_go_on =
            || Duration::from_nanos(now().boot.saturating_sub(start.boot)) < REMOVAL_FOR;
        let gone = catalogue::read(&self.store, self.cluster).and_then(|listed| {
            let expiry = expire(&listed, policy, listed.now_by(start.wall));
            remove(&self.store, &listed, &expiry, nonce, &may_go_on)
        });
        match gone {
            Ok(gone) => Expired {
                snapshots: gone.snapshots.len() as u64,
                logs: gone.logs.len() as u64,
                segments: gone.segments.len() as u64,
                error: None,
            },
            Err(error) => Expired {
                error: Some(error.to_string()),
                ..Expired::default()
            },
        }
    }
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
            keep: self.keep,
        })
    }

    /// The proof has ended, or the store did not answer.
    pub fn proved(&mut self, result: Result<Verified, String>) {
        self.is_verifying = false;
        match result {
            Ok(verified) => {
                self.verify_error = None;
                let expired = verified.expired.clone().unwrap_or_default();
                self.standing.removed += expired.snapshots + expired.logs + expired.segments;
                self.standing.verified = Some(verified);
            }
            Err(error) => {
                self.standing.failures += 1;
                self.verify_error = Some(format!("its proof broke off: {error}"));
            }
        }
    }
}
