//! What lost commands had made of the books, proved by making the state again in which they ran.
//!
//! A log holds what was ordered; what was refused as it ran stands there too. So the newest
//! snapshot before the fork is loaded, the log replayed to the fork, and then what was cut: that
//! gives the very records that were made. Attestations on the way are held against the digests.

use super::found::{self, Found};
use crate::node::directory::wal_dir;
use crate::node::open::state_limits;
use crate::node::shelf;
use crate::node::statement::{Made, What};
use crate::state::{Attestation, Digest, State};
use bytes::Bytes;
use standfast_wal::kept::Kept;
use standfast_wal::scan::Scan;
use standfast_wal::segment::{self, HEADER_AREA, Header};
use standfast_wal::{ClusterId, Kind, Link, Lsn, Record};
use std::collections::VecDeque;
use std::path::Path;

/// Digests kept for the attestations that follow.
const DIGESTS_KEPT: usize = 64 << 10;

/// What the statement's commands had made; the error says why that cannot be known.
pub fn prove(found: &Found) -> Result<Made, String> {
    let statement = &found.statement;
    if let Some(made) = &statement.made {
        return Ok(made.clone());
    }
    if statement.what != What::Cut {
        return Err("a forced promotion does not know what others had".to_owned());
    }
    let (cluster, _) = found::owner(&found.dir).map_err(|error| error.message)?;
    let kept = found::kept(&found.dir).map_err(|error| error.message)?;
    let mut kept = kept.into_iter().map(|(_, kept)| kept);
    let kept = kept.find(|kept| found::tells_of(statement, kept));
    let kept = kept.ok_or("the log's own divergent/ does not hold the records")?;
    let mut replay = Replay::begin(&found.dir, cluster, kept.after.position.lsn)?;
    replay.follow_log(&found.dir, kept.after)?;
    replay.follow_cut(&kept)?;
    Ok(Made::find(replay.state.ledger(), &statement.commands))
}

struct Replay {
    state: State,
    link: Link,
    digests: VecDeque<(Lsn, Digest)>,
}

impl Replay {
    /// From the newest snapshot that is not behind `fork`, or from nothing.
    fn begin(dir: &Path, cluster: ClusterId, fork: Lsn) -> Result<Replay, String> {
        let snapshots = shelf::snapshots(dir).map_err(|error| error.to_string())?;
        let usable = snapshots.into_iter().find(|(lsn, _)| *lsn <= fork);
        let Some((lsn, path)) = usable else {
            return Ok(Replay {
                state: State::new(state_limits(cluster)),
                link: Link::default(),
                digests: VecDeque::new(),
            });
        };
        let (header, state) = shelf::load_snapshot(&path, cluster)?;
        Ok(Replay {
            state,
            link: header.link,
            digests: VecDeque::from([(lsn, Digest(header.digest))]),
        })
    }

    fn apply(&mut self, record: &Record) -> Result<(), String> {
        record
            .follows(self.link)
            .map_err(|damage| format!("the record at LSN {}: {damage}", record.first_lsn()))?;
        self.state.apply(record, |_, _| ());
        self.link = record.link();
        if self.digests.len() == DIGESTS_KEPT {
            self.digests.pop_front();
        }
        self.digests
            .push_back((record.last_lsn(), self.state.digest()));
        if record.kind() != Kind::Attestation {
            return Ok(());
        }
        let Some(attested) = Attestation::decode(&record.payload()) else {
            return Err(format!("LSN {} attests nothing", record.first_lsn()));
        };
        let at = self.digests.partition_point(|(lsn, _)| *lsn < attested.lsn);
        match self.digests.get(at).filter(|(lsn, _)| *lsn == attested.lsn) {
            Some((lsn, digest)) if *digest != attested.digest => Err(format!(
                "I2: the state made again at LSN {lsn} is not the one that was attested"
            )),
            _ => Ok(()),
        }
    }

    /// Through the node's own log to the fork.
    fn follow_log(&mut self, dir: &Path, fork: Link) -> Result<(), String> {
        let wal = wal_dir(dir);
        let entries = std::fs::read_dir(&wal).map_err(|error| error.to_string())?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<(Lsn, String)> = names
            .filter_map(|name| name.into_string().ok())
            .filter_map(|name| Some((segment::first_lsn_of(&name)?, name)))
            .collect();
        names.sort_unstable();
        for (i, (_, name)) in names.iter().enumerate() {
            let (at, end) = (self.link.position.lsn, fork.position.lsn);
            let is_behind = names.get(i + 1).is_some_and(|(next, _)| *next <= at.next());
            if !is_behind && at < end {
                self.follow_segment(&wal.join(name), end)
                    .map_err(|error| format!("{name}: {error}"))?;
            }
        }
        let here = (self.link.position, self.link.chain);
        match here == (fork.position, fork.chain) {
            true => Ok(()),
            false => Err(format!(
                "this directory no longer has the state at the fork: snapshot and log lead to {}, \
                 not to {}",
                self.link.position, fork.position
            )),
        }
    }

    fn follow_segment(&mut self, path: &Path, through: Lsn) -> Result<(), String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let area = usize::try_from(HEADER_AREA).expect("4 KiB fit");
        let area = bytes.get(..area).unwrap_or(&bytes);
        let (header, _) = Header::decode(area).map_err(|_| "no sound header".to_owned())?;
        let mut scan = Scan::new(&bytes, &header);
        while scan.link.position.lsn < through {
            // Where it ends, the next segment goes on, or the chain tells that it does not.
            let Ok(entry) = scan.step() else { break };
            let slice = bytes.get(entry.record_at()..entry.end());
            let mut slice = Bytes::copy_from_slice(slice.unwrap_or_default());
            let record = Record::split_from(&mut slice).map_err(|damage| damage.to_string())?;
            if record.first_lsn() > self.link.position.lsn {
                self.apply(&record)?;
            }
        }
        Ok(())
    }

    fn follow_cut(&mut self, kept: &Kept) -> Result<(), String> {
        kept.records
            .iter()
            .try_for_each(|record| self.apply(record))
    }
}
