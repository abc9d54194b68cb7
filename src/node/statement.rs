//! Loss statements: what was cut from this node's log, or is known to be missing from its history.
//!
//! A file for people and programs in `divergent/`. Whoever reads one knows each command that was
//! lost, whether it had been acknowledged, and, where the state was at hand, what it had made. The
//! records themselves lie in the log's own `divergent/`, durable before they are removed: a
//! statement that a crash kept from being written is made again from them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::replication::Loss;
use crate::state::ledger::{Account, Ledger, RECORD_BYTES, Transfer};
use crate::state::{Attestation, Command};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use standfast_wal::kept::Kept;
use standfast_wal::{History, Kind, Lsn, NodeId, Record};
use std::collections::BTreeSet;

/// Where a data directory has its statements.
pub const DIRECTORY: &str = "divergent";

/// What a statement is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Records that were removed from this node's log: all there is to say of them.
    #[default]
    Cut,
    /// A new history was founded here by force: what is known to be missing, at least.
    ForcedPromotion,
    /// This node came back and gave up nothing: its log was a first part of the new history's.
    NothingMore,
}

/// Whether a client may have been told that a command was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledged {
    No,
    #[default]
    Possibly,
    /// It was committed: acknowledged, or certain to be.
    Yes,
}

impl Acknowledged {
    pub fn word(self) -> &'static str {
        match self {
            Acknowledged::No => "no",
            Acknowledged::Possibly => "possibly",
            Acknowledged::Yes => "yes",
        }
    }
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub lsn: u64,
    pub epoch: u64,
    pub timestamp_ns: u64,
    pub acknowledged: Acknowledged,
    /// For people.
    pub command: String,
    /// As it stood in the log, in hex.
    pub bytes: String,
}

/// What the listed commands had made of the books: records of 128 bytes, in hex.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Made {
    pub accounts: Vec<String>,
    pub transfers: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statement {
    #[serde(default)]
    pub what: What,
    pub node: u32,
    /// When it was written, ns since 1970.
    pub when_ns: u64,
    /// In which it was ordered, as `generation-id`.
    #[serde(default)]
    pub history: String,
    /// The reign whose log is there instead, as `generation@epoch`.
    pub replaced_by: String,
    pub log_kept_through: u64,
    pub first_lsn: u64,
    pub last_lsn: u64,
    /// Up to here they were committed.
    pub acknowledged_through: u64,
    /// And behind it.
    pub rest_acknowledged: Acknowledged,
    /// So many are missing at least; absent where the list below is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u64>,
    /// Of a forced promotion: the sync set that was lost, as far as it was known here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sync_set: Vec<u32>,
    /// From the first LSN up to here the records were gone before: the list lacks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted_through: Option<u64>,
    /// From here on the records could not be read: the list lacks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_from: Option<u64>,
    /// The log's end had been damaged before: what stood there the list lacks, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_was_damaged: bool,
    pub commands: Vec<Listed>,
    /// Absent where it was not known when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Statement {
    /// Of a cut that begins; `list` completes it.
    pub fn of_cut(wall: u64, node: NodeId, after: Lsn, loss: Loss) -> Statement {
        Statement {
            what: What::Cut,
            node: node.0,
            when_ns: wall,
            history: loss.history.to_string(),
            replaced_by: loss.by.to_string(),
            log_kept_through: after.0,
            first_lsn: loss.first_lsn.0,
            last_lsn: loss.last_lsn.0,
            acknowledged_through: loss.committed.0,
            rest_acknowledged: match loss.possibly_acknowledged {
                true => Acknowledged::Possibly,
                false => Acknowledged::No,
            },
            at_least: None,
            sync_set: Vec::new(),
            unlisted_through: None,
            unread_from: None,
            end_was_damaged: false,
            commands: Vec::new(),
            made: None,
        }
    }

    /// Of a history that begins by force: what others have is not known here.
    pub fn of_force(wall: u64, node: NodeId, loss: Loss, sync_set: &BTreeSet<NodeId>) -> Statement {
        let end = Lsn(loss.first_lsn.0 - 1);
        Statement {
            what: What::ForcedPromotion,
            sync_set: sync_set.iter().map(|node| node.0).collect(),
            at_least: Some(end.distance_to(loss.last_lsn)),
            ..Statement::of_cut(wall, node, end, loss)
        }
    }

    /// Of a log that the new history has all of. Without it nobody could tell this node from one
    /// that has not come back.
    pub fn of_nothing(wall: u64, node: NodeId, loss: Loss) -> Statement {
        let end = Lsn(loss.first_lsn.0 - 1);
        Statement {
            what: What::NothingMore,
            ..Statement::of_cut(wall, node, end, loss)
        }
    }

    /// Of records that a cut kept aside, of which no statement tells. `current` is the history that
    /// the node is in now: within one history nothing that was committed is cut (I1).
    pub fn of_kept(wall: u64, kept: &Kept, current: Option<History>) -> Statement {
        let after = kept.after.position.lsn;
        let last = kept.records.last().map_or(after, Record::last_lsn);
        let mut statement = Statement {
            what: What::Cut,
            node: kept.node.0,
            when_ns: wall,
            history: kept.history.to_string(),
            replaced_by: String::new(),
            log_kept_through: after.0,
            first_lsn: after.0 + 1,
            last_lsn: last.0,
            acknowledged_through: 0,
            rest_acknowledged: match current == Some(kept.history) {
                true => Acknowledged::No,
                false => Acknowledged::Possibly,
            },
            at_least: None,
            sync_set: Vec::new(),
            unlisted_through: None,
            unread_from: None,
            end_was_damaged: false,
            commands: Vec::new(),
            made: None,
        };
        statement.list(&kept.records);
        statement
    }

    /// Lists what was removed.
    pub fn list(&mut self, removed: &[Record]) {
        let begin = removed
            .first()
            .map_or(self.last_lsn + 1, |first| first.first_lsn().0);
        self.unlisted_through = (begin > self.first_lsn).then(|| begin - 1);
        let end = removed.last().map(|last| last.last_lsn().0);
        self.unread_from = end.filter(|end| *end < self.last_lsn).map(|end| end + 1);
        // The state is attested as it was applied, and only what is committed is.
        let attested = removed
            .iter()
            .filter(|record| record.kind() == Kind::Attestation)
            .filter_map(|record| Attestation::decode(&record.payload()))
            .map(|attestation| attestation.lsn.0);
        self.acknowledged_through = attested.fold(self.acknowledged_through, u64::max);
        for record in removed {
            if record.kind() != Kind::Commands {
                continue;
            }
            let commands = crate::state::command::iter(record.payload()).flatten();
            for (i, command) in commands.enumerate() {
                let lsn = record.first_lsn().0 + i as u64;
                self.commands.push(Listed {
                    lsn,
                    epoch: record.epoch().0,
                    timestamp_ns: record.timestamp() + i as u64,
                    acknowledged: match lsn <= self.acknowledged_through {
                        true => Acknowledged::Yes,
                        false => self.rest_acknowledged,
                    },
                    command: describe(&command),
                    bytes: hex(&command),
                });
            }
        }
    }

    /// Unique among a node's statements; the same for the same cut.
    pub fn file_name(&self) -> String {
        let (first, wall) = (self.first_lsn, self.when_ns);
        match self.what {
            What::Cut => format!("loss-{first}-{}-{wall}.json", self.last_lsn),
            What::ForcedPromotion => format!("forced-{first}-{wall}.json"),
            What::NothingMore => format!("nothing-{first}-{wall}.json"),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain JSON")
    }
}

impl Made {
    /// What these commands have made in books that have applied all of them. An event that was
    /// refused has made nothing, and one that found its record there neither.
    pub fn find(ledger: &Ledger, commands: &[Listed]) -> Made {
        let mut made = Made::default();
        let since = commands.first().map_or(0, |first| first.timestamp_ns);
        let (mut accounts, mut transfers) = (Vec::new(), Vec::new());
        for command in commands.iter().filter_map(Listed::decode) {
            for part in command.parts() {
                match part {
                    Command::CreateAccounts(batch) => accounts.extend(records(&batch.events)),
                    Command::CreateTransfers(batch) => transfers.extend(records(&batch.events)),
                    _ => {}
                }
            }
        }
        let mut seen = BTreeSet::new();
        for event in accounts.iter().map(Account::decode) {
            let new = |there: &&Account| event.timestamp != 0 || there.timestamp >= since;
            if let Some(there) = ledger.account(event.id).filter(new)
                && seen.insert(event.id)
            {
                // Its balances are of many transfers: what it was opened with is what it is.
                let opened = Account {
                    debits_pending: 0,
                    debits_posted: 0,
                    credits_pending: 0,
                    credits_posted: 0,
                    ..*there
                };
                made.accounts.push(hex(&opened.encode()));
            }
        }
        seen.clear();
        for event in transfers.iter().map(Transfer::decode) {
            let new = |there: &Transfer| event.timestamp != 0 || there.timestamp >= since;
            if let Some(there) = ledger.transfer(event.id).filter(new)
                && seen.insert(event.id)
            {
                made.transfers.push(hex(&there.encode()));
            }
        }
        made
    }
}

impl Listed {
    /// The command; `None` where it cannot be read.
    pub fn decode(&self) -> Option<Command> {
        Command::from_encoded(unhex(&self.bytes)?.into()).ok()
    }
}

/// The events of a batch.
pub fn records(events: &[u8]) -> &[[u8; RECORD_BYTES]] {
    events.as_chunks().0
}

/// A logged command for people.
fn describe(command: &Bytes) -> String {
    let command = match Command::from_encoded(command.clone()) {
        Ok(command) => command,
        Err(error) => return format!("not readable: {error}"),
    };
    let requests = command.requests();
    let requests = requests.iter().map(|request| {
        let words = request.iter().map(|word| match std::str::from_utf8(word) {
            Ok(text) if !text.contains(char::is_control) => text.to_string(),
            _ => format!("({} bytes)", word.len()),
        });
        words.collect::<Vec<_>>().join(" ")
    });
    requests.collect::<Vec<_>>().join("; ")
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}
