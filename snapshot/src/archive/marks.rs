//! Marks: who puts a snapshot that needs segments, and who removes segments, tell each other.
//!
//! No store removes an object only if nobody needs it. So whoever is about to rely on segments
//! first puts a mark that names them, and then looks for marks of removals; whoever is about to
//! remove some first puts a mark that names those, and then looks for marks of puts, and for
//! snapshots that came meanwhile. Of two that act at once at least one sees the other's mark:
//! whoever removes leaves what a put has marked, whoever puts gives up for now where a removal has
//! marked what it needs. A mark goes when its owner is through: with the snapshot there, or with
//! nothing under way any more. So neither clock nor speed matters, and no snapshot is ever there
//! without its segments, whoever is stopped wherever. Only a mark whose owner seems to be dead is
//! judged by time, that of the store's own clock: [`MARK_FOR`].

use crate::error::{Error, Reason};
use crate::store::{Listed, Shared, Store, join};
use crate::{Result, catalogue};
use bytes::Bytes;
use standfast_wal::{ClusterId, Lsn};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// A mark that is older is that of somebody who has died; whoever removes gives up long before.
pub const MARK_FOR: Duration = Duration::from_secs(24 * 3600);
const PUT: &str = "put-";
const REMOVAL: &str = "removal-";

/// A mark of one's own, as long as it stands.
#[derive(Debug)]
pub(super) struct Mark {
    store: Shared,
    dir: String,
    name: String,
}

impl Mark {
    /// Marks `segments`, by path, as needed by the snapshot at `lsn`, which is about to be put.
    pub(super) fn put(
        store: &Shared,
        cluster: ClusterId,
        lsn: Lsn,
        segments: &BTreeSet<String>,
    ) -> Result<Mark> {
        // Whoever has a name already, dead or alive, keeps it.
        let mut n = 0;
        loop {
            let name = format!("{PUT}{:020}-{n}", lsn.0);
            match Mark::make(store, cluster, name, segments)? {
                Some(mark) => return Ok(mark),
                None => n += 1,
            }
        }
    }

    /// Marks `segments` as about to be removed. `nonce` is nobody else's.
    pub(super) fn removal(
        store: &Shared,
        cluster: ClusterId,
        nonce: u128,
        segments: &BTreeSet<String>,
    ) -> Result<Mark> {
        let name = format!("{REMOVAL}{nonce:032x}");
        let made = Mark::make(store, cluster, name.clone(), segments)?;
        made.ok_or_else(|| {
            let place = store.place(&join(&catalogue::marks_dir(cluster), &name));
            Error::new(&place, None, Reason::Taken)
        })
    }

    /// `None`: the name is somebody else's.
    fn make(
        store: &Shared,
        cluster: ClusterId,
        name: String,
        segments: &BTreeSet<String>,
    ) -> Result<Option<Mark>> {
        let dir = catalogue::marks_dir(cluster);
        let path = join(&dir, &name);
        let put = store.put_if_absent(&path, &encode(segments));
        let is_ours = put.map_err(|e| Error::io(store.place(&path), e))?;
        let store = Arc::clone(store);
        Ok(is_ours.then_some(Mark { store, dir, name }))
    }

    /// The segments that removals have marked.
    pub(super) fn going(&self) -> Result<BTreeSet<String>> {
        self.others(REMOVAL)
    }

    /// The segments that puts have marked.
    pub(super) fn needed(&self) -> Result<BTreeSet<String>> {
        self.others(PUT)
    }

    fn others(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let fail = |name: &str, e| Error::io(self.store.place(name), e);
        // One's own was put last of all that matter: its time is the store's now.
        let (listed, now_ns) = self.list()?;
        let mut found = BTreeSet::new();
        for one in listed {
            let age = Duration::from_nanos(now_ns.saturating_sub(one.modified_ns));
            if !one.name.starts_with(prefix) || one.name == self.name || age > MARK_FOR {
                continue;
            }
            let path = join(&self.dir, &one.name);
            match self.store.get(&path) {
                // Its owner is through: what it has put is there, what it has removed is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                got => found.extend(decode(
                    &self.store.place(&path),
                    &got.map_err(|e| fail(&path, e))?,
                )?),
            }
        }
        Ok(found)
    }

    /// All marks, and when this one was put by the store's clock; 0: it is not there any more.
    fn list(&self) -> Result<(Vec<Listed>, u64)> {
        let listing = self.store.list(&self.dir);
        let listed = listing.map_err(|e| Error::io(self.store.place(&self.dir), e))?;
        let own = listed.objects.iter().find(|one| one.name == self.name);
        let now_ns = own.map_or(0, |own| own.modified_ns);
        Ok((listed.objects, now_ns))
    }

    /// Removes the marks of those who have died.
    pub(super) fn sweep(&self) -> Result<()> {
        let (listed, now_ns) = self.list()?;
        for one in listed {
            // Nobody takes such a one for a mark that stands, not even if clocks differ.
            let age = Duration::from_nanos(now_ns.saturating_sub(one.modified_ns));
            if age > MARK_FOR * 2 {
                delete(&*self.store, &join(&self.dir, &one.name))?;
            }
        }
        Ok(())
    }

    /// The owner is through.
    pub(super) fn release(self) -> Result<()> {
        delete(&*self.store, &join(&self.dir, &self.name)).map(drop)
    }
}

/// Deletes an object that somebody else may have deleted.
pub(super) fn delete(store: &dyn Store, path: &str) -> Result<bool> {
    match store.delete(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        deleted => deleted
            .map(|()| true)
            .map_err(|e| Error::io(store.place(path), e)),
    }
}

/// The paths, one a line, and their BLAKE3 in hex digits as the last line.
fn encode(segments: &BTreeSet<String>) -> Bytes {
    let mut text: String = segments.iter().map(|one| format!("{one}\n")).collect();
    let digest = blake3::hash(text.as_bytes()).to_hex();
    text.push_str(&digest);
    text.into()
}

fn decode(place: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let refuse = || Error::new(place, None, Reason::Checksum("mark"));
    let text = std::str::from_utf8(bytes).map_err(|_| refuse())?;
    let at = text.rfind('\n').map_or(0, |at| at + 1);
    let (lines, digest) = text.split_at(at);
    if blake3::hash(lines.as_bytes()).to_hex().as_str() != digest {
        return Err(refuse());
    }
    Ok(lines.lines().map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_its_bytes_and_nothing_else_is_taken_for_one() {
        let all = [
            BTreeSet::new(),
            BTreeSet::from(["a/b".into(), "a/c".into()]),
        ];
        for segments in all {
            let bytes = encode(&segments);
            let back = decode("memory", &bytes).unwrap();
            assert!(back.iter().eq(&segments));
            for at in 0..bytes.len() {
                let mut bad = bytes.to_vec();
                bad[at] ^= 1;
                assert!(decode("memory", &bad).is_err(), "byte {at}");
                assert!(decode("memory", &bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }
}
