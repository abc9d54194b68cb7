//! What a node says of one record is true: RECEIPT, WAIT, WAITLSN, and that a point is not there.
//!
//! A record is named by the reign that wrote it and its LSN: epoch numbers alone come again in a
//! history that was founded by force.

use super::log::Place;
use super::{Observer, history_of, process_of};
use crate::simulate::nodes::Node;
use standfast::replication::{EpochTable, Fence, Replica};
use standfast::state::Reply;
use standfast_wal::{Epoch, History, Lsn};

/// How a node refuses to answer.
fn refusal(reply: &Reply) -> Option<&str> {
    let Reply::Error(text) = reply else {
        return None;
    };
    std::str::from_utf8(text).ok()?.split(' ').next()
}

fn field<'a>(pairs: &'a [(Reply, Reply)], name: &'static str) -> Option<&'a Reply> {
    let named = |pair: &&(Reply, Reply)| pair.0 == Reply::Bulk(name.into());
    pairs.iter().find(named).map(|(_, value)| value)
}

fn int(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn is_at(table: &EpochTable, reign: Fence, lsn: Lsn) -> bool {
    table.at(lsn).is_some_and(|entry| entry.fence() == reign)
}

impl Observer {
    /// The reign of what was acknowledged by this node at this LSN.
    pub(super) fn reign_of(
        &self,
        replica: &Replica,
        history: History,
        epoch: Epoch,
        lsn: Lsn,
    ) -> Fence {
        let entry = replica.epochs().at(lsn);
        let entry = entry.filter(|entry| entry.epoch == epoch);
        Fence {
            history: entry.map_or(history, |entry| entry.history),
            epoch,
        }
    }

    fn holders(&self, nodes: &[Node], reign: Fence, lsn: Lsn) -> impl Iterator<Item = usize> {
        let place = Place {
            history: reign.history,
            epoch: reign.epoch,
            lsn,
            log: reign.history,
        };
        (0..nodes.len()).filter(move |node| self.holds(nodes, *node, place))
    }

    /// RECEIPT was answered, of a write that is committed at this place.
    pub fn receipt(
        &self,
        node: usize,
        nodes: &[Node],
        (reign, lsn): (Fence, Lsn),
        reply: &Reply,
    ) -> Result<(), String> {
        let replica = process_of(nodes, node)?.engine.replica();
        let (table, end) = (replica.epochs(), replica.tip().position.lsn);
        let stays = lsn <= replica.shared_through();
        let is_here = is_at(table, reign, lsn) && lsn <= end && stays;
        let wrong = |what: &str| {
            let here = table.at(lsn);
            format!("n{node}: a receipt of {lsn} of {reign} {what}: {reply:?}; there is {here:?}")
        };
        let pairs = match (reply, refusal(reply)) {
            (Reply::Map(pairs), _) => pairs,
            (_, Some("TIMETRAVEL")) if is_here => {
                return Err(wrong("is refused, and the write is in this history"));
            }
            // Its reign has yet to come here: not when this one or a later one has.
            (_, Some("LOADING")) if self.has_begun(node, reign) => {
                return Err(wrong("is put off, and a later reign is here"));
            }
            _ => return Ok(()),
        };
        if !is_here && !self.had(node, reign, lsn) {
            return Err(wrong("is given, and the write is not in this history"));
        }
        let history = format!("{:032x}", reign.history.id);
        let expected = [
            ("generation", int(reign.history.generation)),
            ("history", Reply::Bulk(history.into())),
            ("epoch", int(reign.epoch.0)),
            ("lsn", int(lsn.0)),
        ];
        let mut expected = expected.iter();
        if let Some((name, value)) =
            expected.find(|(name, value)| field(pairs, name) != Some(value))
        {
            return Err(wrong(&format!("has no {name} {value:?}")));
        }
        let copies = match field(pairs, "copies") {
            Some(Reply::Int(copies)) => usize::try_from(*copies).unwrap_or(usize::MAX),
            _ => return Err(wrong("has no copies")),
        };
        let holders = self.holders(nodes, reign, lsn).count();
        if copies > holders {
            return Err(wrong(&format!("counts more copies than {holders}")));
        }
        match self.is_in_force(replica, field(pairs, "protection")) {
            true => Ok(()),
            false => Err(wrong("names a protection that is not in force")),
        }
    }

    /// Two tables back: within the turn that it was asked in, its newest one may have come.
    fn has_begun(&self, node: usize, reign: Fence) -> bool {
        let mut tables = self.nodes[node].had.newest(2);
        tables.all(|table| table.last().is_some_and(|last| last.fence() >= reign))
    }

    /// It is there, or was before what may have happened in this turn.
    fn had(&self, node: usize, reign: Fence, lsn: Lsn) -> bool {
        let mut tables = self.nodes[node].had.newest(2);
        tables.any(|table| is_at(table, reign, lsn))
    }

    /// Within the turn that the node was asked in, its Config may have become a newer one.
    fn is_in_force(&self, replica: &Replica, protection: Option<&Reply>) -> bool {
        let config = replica.config();
        let before = config.version.saturating_sub(1);
        let before = self.register.at(config.history, before);
        let mut known = std::iter::once(config).chain(before);
        known.any(|config| {
            let word = serde_json::to_value(config.protection).unwrap_or_default();
            let word = word.as_str().unwrap_or_default().to_string();
            protection == Some(&Reply::Bulk(word.into()))
        })
    }

    /// WAIT was answered: so many others hold this record, at least.
    pub fn waited_for_copies(
        &self,
        node: usize,
        nodes: &[Node],
        (reign, lsn): (Fence, Lsn),
        reply: &Reply,
    ) -> Result<(), String> {
        let Reply::Int(counted) = reply else {
            return Ok(());
        };
        let others = self.holders(nodes, reign, lsn);
        let others = others.filter(|other| *other != node).count();
        if usize::try_from(*counted).unwrap_or(usize::MAX) > others {
            return Err(format!(
                "n{node}: WAIT counts {counted} others that hold {lsn} of {reign}, {others} do"
            ));
        }
        Ok(())
    }

    /// WAITLSN was answered, at this LSN: how far the history that is followed has come here.
    pub fn waited_for(
        &self,
        node: usize,
        nodes: &[Node],
        (lsn, at): (Lsn, Lsn),
        reply: &Reply,
    ) -> Result<(), String> {
        let Reply::Int(done) = reply else {
            return Ok(());
        };
        let replica = process_of(nodes, node)?.engine.replica();
        let (log, followed) = (history_of(replica), replica.history());
        let is_own = log.is_none_or(|log| log == followed);
        // A node that follows another history since it answered says nothing of this one.
        let is_wrong = match done {
            0 => is_own && at >= lsn,
            _ => !is_own || at < lsn,
        };
        match is_wrong && self.nodes[node].followed == Some(followed) {
            true => Err(format!(
                "n{node}: WAITLSN {lsn} was answered {done} at {at}; its log is of {log:?}, it \
                 follows {followed}"
            )),
            false => Ok(()),
        }
    }

    /// SEEN was denied: what stands at this place of this node's log is something else, or nothing.
    pub(super) fn is_not_contained(
        &self,
        replica: &Replica,
        (history, reign): (History, Fence),
        lsn: Lsn,
        reply: &Reply,
    ) -> Result<(), String> {
        // Of what another reign had written its history says too little.
        let is_own = history == reign.history && history_of(replica) == Some(replica.history());
        let applied = self.log.branch(replica.history());
        let applied = applied.is_some_and(|branch| branch.through() >= lsn);
        if refusal(reply) == Some("TIMETRAVEL")
            && is_own
            && applied
            && is_at(replica.epochs(), reign, lsn)
        {
            return Err(format!(
                "SEEN {lsn} of {reign} was denied: {reply:?}, and stands there: {:?}",
                replica.epochs().at(lsn)
            ));
        }
        Ok(())
    }
}
