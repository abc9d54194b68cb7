//! Reports of drills, kept in the archive that they are of: `<cluster>/drills/`.
//!
//! A report's name says when its drill began, of which kind it was and whether it passed, so that
//! the newest is found without reading any. In an archive that is encrypted they are, too: a report
//! has a digest of the state. What a report holds is its writer's business.

use crate::Result;
use crate::error::{Error, Reason};
use crate::seal::{Identities, Recipients, RecipientsId};
use crate::store::{Store, join};
use bytes::Bytes;
use standfast_wal::ClusterId;
use std::fmt;

const PLAIN: &str = ".json";
const SEALED: &str = ".age";
/// Reports of one kind that may have begun within one millisecond.
const SAME_TIME_MAX: u32 = 16;

/// A report in an archive, by its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Drilled {
    /// When the drill began: `20260131T120000.000Z`.
    pub began: String,
    /// Not 0 where several of the kind have begun at that time.
    pub n: u32,
    pub kind: String,
    pub passed: bool,
    /// Whom it is encrypted to.
    pub recipients: Option<RecipientsId>,
}

impl fmt::Display for Drilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "passed" } else { "failed" };
        write!(f, "{}-{}-{}-{verdict}", self.began, self.n, self.kind)?;
        match self.recipients {
            None => f.write_str(PLAIN),
            Some(id) => write!(f, "-{id}{SEALED}"),
        }
    }
}

/// `None`: it is no report's name.
fn parse(name: &str) -> Option<Drilled> {
    let (name, is_sealed) = match name.strip_suffix(SEALED) {
        Some(name) => (name, true),
        None => (name.strip_suffix(PLAIN)?, false),
    };
    let mut parts = name.split('-');
    let mut next = || parts.next().map(str::to_string);
    let (began, n, kind) = (next()?, next()?.parse().ok()?, next()?);
    let passed = match next()?.as_str() {
        "passed" => true,
        "failed" => false,
        _ => return None,
    };
    let recipients = match is_sealed {
        true => Some(RecipientsId(u128::from_str_radix(&next()?, 16).ok()?)),
        false => None,
    };
    let is_whole = next().is_none();
    is_whole.then_some(Drilled {
        began,
        n,
        kind,
        passed,
        recipients,
    })
}

fn dir(cluster: ClusterId) -> String {
    format!("{cluster}/drills")
}

/// Puts a report, encrypted to `recipients` if there are any; answers its place.
pub fn put(
    store: &dyn Store,
    cluster: ClusterId,
    drilled: &Drilled,
    text: &str,
    recipients: &Recipients,
) -> Result<String> {
    let bytes = match recipients.id() {
        None => Bytes::copy_from_slice(text.as_bytes()),
        Some(_) => recipients.seal(text.as_bytes()).into(),
    };
    let mut place = String::new();
    for n in 0..SAME_TIME_MAX {
        let name = Drilled {
            n,
            recipients: recipients.id(),
            ..drilled.clone()
        };
        let path = join(&dir(cluster), &name.to_string());
        place = store.place(&path);
        let put = store.put_if_absent(&path, &bytes);
        if put.map_err(|e| Error::io(&place, e))? {
            return Ok(place);
        }
    }
    Err(Error::new(&place, None, Reason::Taken))
}

/// All reports of a cluster, oldest first.
pub fn list(store: &dyn Store, cluster: ClusterId) -> Result<Vec<Drilled>> {
    let dir = dir(cluster);
    let listing = store
        .list(&dir)
        .map_err(|e| Error::io(store.place(&dir), e))?;
    let mut found: Vec<Drilled> = listing
        .objects
        .iter()
        .filter_map(|one| parse(&one.name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The text of a report.
pub fn read(
    store: &dyn Store,
    cluster: ClusterId,
    drilled: &Drilled,
    identities: &Identities,
) -> Result<String> {
    let path = join(&dir(cluster), &drilled.to_string());
    let place = store.place(&path);
    let bytes = store.get(&path).map_err(|e| Error::io(&place, e))?;
    let plain = match drilled.recipients {
        None => bytes.to_vec(),
        Some(id) => identities
            .open(id, &bytes)
            .map_err(|reason| Error::new(&place, None, reason))?,
    };
    String::from_utf8(plain).map_err(|_| Error::new(&place, None, Reason::Field("a report's text")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CLUSTER, key};
    use crate::store::Memory;

    #[test]
    fn reports_are_kept_beside_each_other_and_read_by_whoever_may() {
        let store = Memory::default();
        let drilled = |began: &str, passed| Drilled {
            began: began.to_string(),
            n: 0,
            kind: "restore".to_string(),
            passed,
            recipients: None,
        };
        let (recipient, identities) = key(0);
        let (nobody, sealed) = (Recipients::default(), Recipients::new(&[recipient], 7));
        let (old, new) = (
            drilled("20260131T120000.000Z", true),
            drilled("20260201T120000.000Z", false),
        );
        put(&store, CLUSTER, &new, "{\"b\"}", &nobody).unwrap();
        put(&store, CLUSTER, &new, "{\"c\"}", &nobody).unwrap();
        put(&store, CLUSTER, &old, "{\"a\"}", &sealed).unwrap();
        store
            .put_if_absent(&format!("{}/other", dir(CLUSTER)), &Bytes::new())
            .unwrap();
        let found = list(&store, CLUSTER).unwrap();
        let facts: Vec<_> = found
            .iter()
            .map(|one| (&one.began, one.n, one.passed))
            .collect();
        assert_eq!(
            facts,
            [
                (&old.began, 0, true),
                (&new.began, 0, false),
                (&new.began, 1, false)
            ]
        );
        let texts = found
            .iter()
            .map(|one| read(&store, CLUSTER, one, &identities).unwrap());
        assert_eq!(texts.collect::<Vec<_>>(), ["{\"a\"}", "{\"b\"}", "{\"c\"}"]);
        let locked = read(&store, CLUSTER, &found[0], &Identities::default()).unwrap_err();
        assert!(locked.locked_to().is_some(), "{locked}");
        for other in [
            "index.html",
            "a-0-restore-maybe.json",
            "a-0-restore-passed-9.json",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
