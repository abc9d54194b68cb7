//! What operators and the command line ask of a node, from words to [`Control`].
//!
//! `STANDFAST` subcommands; options stand last, in any order; WHO defaults to the connection:
//!
//! | words | asks for |
//! | --- | --- |
//! | `STATUS` | the node's status, one JSON text |
//! | `SWITCHOVER [TO node] [WHO text] [WHY text]` | another primary, planned |
//! | `PROMOTE [CONFIRM cluster] [IGNORE-OLD-PRIMARY] [WHO text] [WHY text]` | a forced promotion; without CONFIRM what it would lose |
//! | `REJOIN [WHO text] [WHY text]` | give up this node's history for a newer one |
//! | `MEMBER ADD node role incarnation client peer http [SITE text] [PRIORITY n] [VOTER] [WHO text]` | a new member |
//! | `MEMBER REMOVE node [WHO text]` | one member less |
//! | `ACKS all\|majority [WHO text]` | another acknowledgement rule |
//! | `PROTECTION mode [WHO text]` | another protection mode |
//! | `BACKUP directory [WHO text]` | snapshot and log into a directory of this node |
//! | `SNAPSHOT` | a local snapshot |
//! | `SHUTDOWN` | hand over, then stop |

use crate::node::client::Control;
use crate::node::view::View;
use crate::replication::config::{Addresses, Member};
use crate::state::{Reply, parse_integer};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use standfast_wal::{Epoch, Lsn, NodeId};

type Parse<T> = Result<T, Reply>;

/// Words that are still to be read, and the options behind them.
struct Words<'a> {
    rest: &'a [Bytes],
    who: String,
    why: String,
}

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Parse<&'a str> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| Reply::error(format!("ERR {what} is missing")))?;
        self.rest = rest;
        std::str::from_utf8(first).map_err(|_| Reply::error(format!("ERR {what} is not UTF-8")))
    }

    fn node(&mut self) -> Parse<NodeId> {
        let word = self.next("a node's number")?;
        word.parse()
            .map(NodeId)
            .map_err(|_| Reply::error(format!("ERR '{word}' is not a node's number")))
    }

    /// One of the words that settings use for `T`.
    fn word<T: DeserializeOwned>(&mut self, what: &str) -> Parse<T> {
        let word = self.next(what)?;
        serde_json::from_value(serde_json::Value::String(word.to_ascii_lowercase()))
            .map_err(|error| Reply::error(format!("ERR {what}: {error}")))
    }

    /// Reads all that is left as options. WHO and WHY are always taken; others by `take`, which
    /// says whether it knows the option.
    fn options(&mut self, mut take: impl FnMut(&str, &mut Words<'a>) -> Parse<bool>) -> Parse<()> {
        while !self.rest.is_empty() {
            let word = self.next("an option")?.to_ascii_uppercase();
            match word.as_str() {
                "WHO" => self.who = self.next("WHO's text")?.to_string(),
                "WHY" => self.why = self.next("WHY's text")?.to_string(),
                _ if take(&word, self)? => {}
                _ => return Err(Reply::error(format!("ERR unknown option '{word}'"))),
            }
        }
        for text in [&self.who, &self.why] {
            if text.len() > crate::limits::REASON_BYTES_MAX {
                return Err(Reply::error("ERR WHO and WHY take at most 1024 bytes"));
            }
        }
        Ok(())
    }

    fn no_more_options(&mut self) -> Parse<()> {
        self.options(|_, _| Ok(false))
    }
}

/// `STANDFAST …`; `who` is how the connection is called.
pub fn standfast(args: &[Bytes], who: String) -> Parse<Control> {
    let mut words = Words {
        rest: args.get(1..).unwrap_or_default(),
        who,
        why: String::new(),
    };
    let subcommand = words.next("a subcommand")?.to_ascii_uppercase();
    let control = match subcommand.as_str() {
        "STATUS" => Control::Status,
        "SNAPSHOT" => Control::Snapshot,
        "SHUTDOWN" => Control::Shutdown,
        "SWITCHOVER" => return switchover(words),
        "PROMOTE" => return promote(words),
        "REJOIN" => {
            words.no_more_options()?;
            Control::Rejoin {
                who: std::mem::take(&mut words.who),
                why: std::mem::take(&mut words.why),
            }
        }
        "MEMBER" => return member(words),
        "ACKS" => {
            let acks = words.word("all or majority")?;
            words.no_more_options()?;
            Control::SetAcks {
                acks,
                who: std::mem::take(&mut words.who),
            }
        }
        "PROTECTION" => {
            let protection = words.word("a protection mode")?;
            words.no_more_options()?;
            Control::SetProtection {
                protection,
                who: std::mem::take(&mut words.who),
            }
        }
        "BACKUP" => {
            let dir = words.next("a directory")?.into();
            words.no_more_options()?;
            Control::BackupNow {
                dir,
                who: std::mem::take(&mut words.who),
            }
        }
        _ => {
            return Err(Reply::error(format!(
                "ERR unknown subcommand '{subcommand}': STATUS, SWITCHOVER, PROMOTE, REJOIN, \
                 MEMBER, ACKS, PROTECTION, BACKUP, SNAPSHOT, SHUTDOWN"
            )));
        }
    };
    words.no_more_options()?;
    Ok(control)
}

fn switchover(mut words: Words<'_>) -> Parse<Control> {
    let mut to = None;
    words.options(|word, words| {
        if word == "TO" {
            to = Some(words.node()?);
        }
        Ok(word == "TO")
    })?;
    Ok(Control::Switchover {
        to,
        who: words.who,
        why: words.why,
    })
}

fn promote(mut words: Words<'_>) -> Parse<Control> {
    let (mut confirm, mut ignore_old_primary) = (String::new(), false);
    words.options(|word, words| {
        match word {
            "CONFIRM" => confirm = words.next("the cluster's name")?.to_string(),
            "IGNORE-OLD-PRIMARY" => ignore_old_primary = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Control::ForcePromote {
        confirm,
        ignore_old_primary,
        who: words.who,
        why: words.why,
    })
}

fn member(mut words: Words<'_>) -> Parse<Control> {
    match words.next("ADD or REMOVE")?.to_ascii_uppercase().as_str() {
        "ADD" => {}
        "REMOVE" => {
            let id = words.node()?;
            words.no_more_options()?;
            return Ok(Control::RemoveMember { id, who: words.who });
        }
        _ => return Err(Reply::error("ERR MEMBER takes ADD or REMOVE")),
    }
    let id = words.node()?;
    let role = words.word("data, asynchronous or witness")?;
    let incarnation = words
        .next("an incarnation")?
        .parse()
        .map_err(|_| Reply::error("ERR an incarnation is up to 32 hex digits"))?;
    let mut address = |what| -> Parse<String> {
        let address = words.next(what)?;
        let (host, port) = super::split_address(address);
        if host.is_empty() || port == 0 || address.len() > crate::limits::ADDRESS_BYTES_MAX {
            return Err(Reply::error(format!(
                "ERR {what} '{address}' is not host:port"
            )));
        }
        Ok(address.to_string())
    };
    let addresses = Addresses {
        client: address("the client address")?,
        peer: address("the peer address")?,
        http: address("the HTTP address")?,
    };
    let (mut site, mut priority, mut voter) = (String::new(), 100, false);
    words.options(|word, words| {
        match word {
            "SITE" => site = words.next("a site's name")?.to_string(),
            "PRIORITY" => {
                priority = words
                    .next("a priority")?
                    .parse()
                    .map_err(|_| Reply::error("ERR PRIORITY takes a number"))?;
            }
            "VOTER" => voter = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let member = Member {
        incarnation,
        role,
        site,
        priority,
        addresses,
    };
    Ok(Control::AddMember {
        id,
        member,
        voter,
        who: words.who,
    })
}

/// FAILOVER [TO host port]: a switchover to the member with that client address.
pub fn failover(args: &[Bytes], view: &View, who: String) -> Parse<Control> {
    let to = match args {
        [_] => None,
        [_, word, host, port, ..] if word.eq_ignore_ascii_case(b"to") => {
            let (host, port) = (String::from_utf8_lossy(host), positive(port)?);
            let found = view.backups().find(|(_, member)| {
                let (own_host, own_port) = super::split_address(&member.addresses.client);
                own_host == host && u64::from(own_port) == port
            });
            let (id, _) = found.ok_or_else(|| {
                Reply::error(format!(
                    "ERR FAILOVER target {host}:{port} is no backup's advertised address; \
                     SENTINEL REPLICAS lists them"
                ))
            })?;
            Some(id)
        }
        _ => return Err(Reply::error("ERR syntax error")),
    };
    Ok(Control::Switchover {
        to,
        who,
        why: "FAILOVER".to_string(),
    })
}

/// OUTCOME generation epoch lsn.
pub fn outcome(args: &[Bytes]) -> Parse<Control> {
    let [_, generation, epoch, lsn] = args else {
        return Err(Reply::error("ERR syntax error"));
    };
    Ok(Control::Outcome {
        generation: positive(generation)?,
        epoch: Epoch(positive(epoch)?),
        lsn: Lsn(positive(lsn)?),
    })
}

/// SEEN history epoch lsn, as RECEIPT gives them; the history is `generation-id`.
pub fn seen(args: &[Bytes]) -> Parse<Control> {
    let [_, history, epoch, lsn] = args else {
        return Err(Reply::error("ERR syntax error"));
    };
    let history = String::from_utf8_lossy(history);
    let parts = history.split_once('-').and_then(|(generation, id)| {
        Some((generation.parse().ok()?, u128::from_str_radix(id, 16).ok()?))
    });
    let (generation, history_id) = parts.ok_or_else(|| {
        Reply::error("ERR a history is its generation, '-' and 32 hex digits, as in RECEIPT")
    })?;
    Ok(Control::Seen {
        generation,
        history_id,
        epoch: Epoch(positive(epoch)?),
        lsn: Lsn(positive(lsn)?),
    })
}

/// WAITLSN lsn ms.
pub fn wait_lsn(args: &[Bytes]) -> Parse<Control> {
    let [_, lsn, timeout_ms] = args else {
        return Err(Reply::error("ERR syntax error"));
    };
    Ok(Control::WaitLsn {
        lsn: Lsn(positive(lsn)?),
        timeout_ms: positive(timeout_ms)?,
    })
}

/// A number from 0 up.
pub fn positive(word: &[u8]) -> Parse<u64> {
    parse_integer(word)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
}

#[cfg(test)]
mod tests;
