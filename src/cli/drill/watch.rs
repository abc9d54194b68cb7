//! The members of a cluster as a drill finds them, and whether they are as they were.

use crate::cli::connect::{Answer, Node};
use crate::node::status::{MemberStatus, Role};
use standfast_wal::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long one member may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two looks at all of them.
const LOOK: Duration = Duration::from_millis(5);

/// Who was there when the drill began.
pub struct Members {
    all: Vec<MemberStatus>,
    /// Those that the primary heard.
    up: Vec<NodeId>,
    sync_set: usize,
}

/// What a node holds: its digest by history and applied LSN.
type Seen = BTreeMap<(u64, u64), String>;

impl Members {
    pub fn of(answer: &Answer) -> Members {
        let all = answer.status.members.clone();
        let up = all.iter().filter(|member| member.up);
        Members {
            up: up.map(|member| member.id).collect(),
            sync_set: sync_set(answer),
            all,
        }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|member| member.client.clone())
            .collect()
    }

    pub fn describe(&self) -> String {
        let (up, sync_set) = (self.up.len(), self.sync_set);
        format!("{up} members up, {sync_set} in the sync set, as before")
    }

    /// Those that answer, each with its version.
    pub fn versions(&self) -> Vec<(u32, String)> {
        let version = |member: &MemberStatus| {
            let answer = look(&member.client)?;
            Some((member.id.0, answer.status.version))
        };
        self.all.iter().filter_map(version).collect()
    }

    /// Another node that takes writes. The one that was lost is not asked: a paused one would
    /// keep us waiting.
    pub fn primary_besides(&self, lost: NodeId) -> Option<NodeId> {
        let others = self.all.iter().filter(|member| member.id != lost);
        let mut views = others.filter_map(|member| look(&member.client));
        let found = views.find(|view| view.status.takes_writes());
        found.map(|view| view.status.node)
    }

    /// Whether the primary hears everybody that was up, and the sync set is as large as it was.
    pub fn are_whole(&self) -> bool {
        let views = self.all.iter().filter_map(|member| look(&member.client));
        let mut primaries = views.filter(|view| view.status.takes_writes());
        primaries.next().is_some_and(|view| {
            let is_up = |id: &NodeId| view.status.member(*id).is_some_and(|member| member.up);
            self.up.iter().all(is_up) && sync_set(&view) >= self.sync_set
        })
    }

    /// Waits until every data node was seen at one LSN with the others; an error if two differ.
    /// `None`: that was not seen in time.
    pub fn compare_digests(&self, patience: Duration) -> Result<Option<String>, String> {
        let holds_data =
            |member: &&MemberStatus| member.role != Role::Witness && self.up.contains(&member.id);
        let nodes: Vec<&MemberStatus> = self.all.iter().filter(holds_data).collect();
        let mut seen: Vec<Seen> = vec![Seen::new(); nodes.len()];
        let deadline = Instant::now() + patience;
        loop {
            for (member, seen) in nodes.iter().zip(&mut seen) {
                if let Some(view) = look(&member.client) {
                    let digest = view.json["digest"].as_str().unwrap_or_default();
                    let at = (view.status.generation, view.status.applied);
                    seen.insert(at, digest.to_owned());
                }
            }
            if let Some(found) = agreement(&seen)? {
                return Ok(Some(format!("{found}, on {} data nodes", nodes.len())));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn sync_set(answer: &Answer) -> usize {
    answer.json["sync_set"].as_array().map_or(0, Vec::len)
}

fn look(address: &str) -> Option<Answer> {
    let node = Node::open(address, PATIENCE);
    node.and_then(|mut node| node.status_within(PATIENCE)).ok()
}

/// A point at which all were seen with one digest; an error where two differ at one point.
fn agreement(seen: &[Seen]) -> Result<Option<String>, String> {
    let Some((first, others)) = seen.split_first() else {
        return Ok(None);
    };
    let mut common = None;
    for (at, digest) in first {
        let theirs: Vec<&String> = others.iter().filter_map(|other| other.get(at)).collect();
        let (_, lsn) = at;
        if let Some(other) = theirs.iter().find(|other| **other != digest) {
            return Err(format!(
                "at LSN {lsn} one node has {digest}, another {other}"
            ));
        }
        if theirs.len() == others.len() {
            common = Some(format!("{digest} at LSN {lsn}"));
        }
    }
    Ok(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_agree_where_all_were_seen_at_one_point() {
        let seen = |points: &[(u64, &str)]| -> Seen {
            let points = points.iter();
            points
                .map(|(lsn, digest)| ((1, *lsn), (*digest).to_owned()))
                .collect()
        };
        let one = seen(&[(7, "a"), (8, "b")]);
        assert_eq!(agreement(&[]), Ok(None));
        assert_eq!(agreement(&[one.clone(), seen(&[(9, "c")])]), Ok(None));
        let agreed = agreement(&[one.clone(), seen(&[(8, "b")]), seen(&[(8, "b")])]);
        assert_eq!(agreed, Ok(Some("b at LSN 8".to_owned())));
        let partly = agreement(&[one.clone(), seen(&[(8, "b")]), seen(&[(7, "a")])]);
        assert_eq!(partly, Ok(None));
        agreement(&[one, seen(&[(8, "x")])]).expect_err("they differ");
    }
}
