//! Discovery as Redis Sentinel's clients know it: every node answers for the whole cluster.
//!
//! Words on this wire are Redis's (master, slave); the clients look for exactly them. All other
//! nodes are told as sentinels, at their client addresses, because each of them answers here.

use super::{split_address, text};
use crate::node::view::View;
use crate::replication::config::Member;
use crate::state::Reply;
use bytes::Bytes;
use standfast_wal::NodeId;

/// What SENTINEL is answered: at once, or through the engine.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    /// SENTINEL FAILOVER: a switchover to whoever is best.
    Switchover,
}

/// How long after the last sign of life Sentinel would call an instance down.
const DOWN_AFTER_MS: u64 = 500;

pub fn answer(args: &[Bytes], view: &View) -> Answer {
    let word = args
        .get(1)
        .map(|word| word.to_ascii_lowercase())
        .unwrap_or_default();
    let named = |reply: fn(&View) -> Reply| match args.get(2) {
        _ if args.len() != 3 => wrong_arity(&word),
        Some(name) if **name == *view.cluster_name.as_bytes() => reply(view),
        _ => Reply::error("ERR No such master with that name"),
    };
    Answer::Reply(match &*word {
        b"masters" => Reply::Array(view.config.iter().map(|_| master(view)).collect()),
        b"master" => named(master),
        b"replicas" | b"slaves" => named(replicas),
        b"sentinels" => named(sentinels),
        b"ckquorum" => named(quorum),
        b"get-master-addr-by-name" => match (args.get(2), primary(view)) {
            (Some(name), Some((_, member))) if **name == *view.cluster_name.as_bytes() => {
                let (host, port) = split_address(&member.addresses.client);
                Reply::Array(vec![text(host), text(port)])
            }
            _ => Reply::NilArray,
        },
        b"myid" => text(run_id(view.node, view.member(view.node))),
        b"failover"
            if args
                .get(2)
                .is_some_and(|name| **name == *view.cluster_name.as_bytes()) =>
        {
            return Answer::Switchover;
        }
        b"failover" => Reply::error("ERR No such master with that name"),
        b"pending-scripts" => Reply::Array(Vec::new()),
        b"monitor" | b"remove" | b"set" | b"reset" | b"config" | b"flushconfig" | b"debug" => {
            Reply::error(
                "ERR the cluster's members and settings are not changed through SENTINEL; use \
             `standfast member` and CONFIG SET",
            )
        }
        b"help" => Reply::Array(HELP.iter().copied().map(text).collect()),
        _ => Reply::error("ERR Unknown sentinel subcommand. Try SENTINEL HELP."),
    })
}

const HELP: [&str; 8] = [
    "SENTINEL MASTERS -- the cluster's primary",
    "SENTINEL MASTER <name> -- the same, by the cluster's name",
    "SENTINEL REPLICAS <name> -- the backups",
    "SENTINEL SENTINELS <name> -- every other node",
    "SENTINEL GET-MASTER-ADDR-BY-NAME <name> -- where the primary is",
    "SENTINEL CKQUORUM <name> -- whether enough voters are up to promote a backup",
    "SENTINEL FAILOVER <name> -- a switchover to the best backup",
    "SENTINEL MYID -- this node's id",
];

/// The registered primary: the last one that is known, whether it is alive or not.
fn primary(view: &View) -> Option<(NodeId, &Member)> {
    let id = view
        .primary
        .or(view.config.as_deref().map(|config| config.primary))?;
    Some((id, view.member(id)?))
}

/// Names and values in turn, as text, which is how Sentinel tells everything.
struct Instance(Vec<(Reply, Reply)>);

impl Instance {
    /// What masters, replicas and sentinels have in common.
    fn new(view: &View, id: NodeId, member: &Member, name: String, flags: &str) -> Instance {
        let (host, port) = split_address(&member.addresses.client);
        let is_up = is_up(view, id);
        let heard_ms = view
            .peers
            .get(&id)
            .and_then(|peer| peer.heard_ms)
            .unwrap_or(0);
        let mut all_flags = flags.to_string();
        if !is_up {
            all_flags.push_str(",s_down,disconnected");
        }
        let mut instance = Instance(Vec::with_capacity(32));
        instance
            .with("name", name)
            .with("ip", host)
            .with("port", port)
            .with("runid", run_id(id, Some(member)))
            .with("flags", all_flags)
            .with("link-pending-commands", 0)
            .with("link-refcount", 1)
            .with("last-ping-sent", if is_up { 0 } else { heard_ms })
            .with("last-ok-ping-reply", heard_ms)
            .with("last-ping-reply", heard_ms);
        if !is_up {
            instance.with("s-down-time", heard_ms.saturating_sub(DOWN_AFTER_MS));
        }
        instance.with("down-after-milliseconds", DOWN_AFTER_MS);
        instance
    }

    fn with(&mut self, name: &str, value: impl ToString) -> &mut Instance {
        self.0.push((text(name), text(value)));
        self
    }

    fn reply(self) -> Reply {
        Reply::Map(self.0)
    }
}

/// Of the primary: a node that knows no living primary calls the registered one down.
fn is_up(view: &View, id: NodeId) -> bool {
    let registered = view.config.as_deref().map(|config| config.primary);
    if registered == Some(id) && id != view.node {
        view.primary == Some(id)
    } else {
        view.is_up(id)
    }
}

fn master(view: &View) -> Reply {
    let Some((id, member)) = primary(view) else {
        return Reply::error("ERR No such master with that name");
    };
    // A primary that nobody hears is down for all, not only for one: clients look for this word.
    let flags = if view.primary.is_none() {
        "master,o_down"
    } else {
        "master"
    };
    let voters = view
        .config
        .as_deref()
        .map_or(0, |config| config.voters.len());
    let mut instance = Instance::new(view, id, member, view.cluster_name.to_string(), flags);
    instance
        .with("info-refresh", 0)
        .with("role-reported", "master")
        .with("role-reported-time", 0)
        .with("config-epoch", view.epoch)
        .with("num-slaves", view.backups().count())
        .with(
            "num-other-sentinels",
            view.members().count().saturating_sub(1),
        )
        .with("quorum", voters / 2 + 1)
        .with("failover-timeout", DOWN_AFTER_MS)
        .with("parallel-syncs", 1);
    instance.reply()
}

fn replicas(view: &View) -> Reply {
    let (host, port) = primary(view).map_or(("?", 0), |(_, member)| {
        split_address(&member.addresses.client)
    });
    let rows = view.backups().map(|(id, member)| {
        let (own_host, own_port) = split_address(&member.addresses.client);
        let name = format!("{own_host}:{own_port}");
        let linked = view.primary.is_some() && view.is_up(id);
        let offset = match view.peers.get(&id) {
            Some(peer) => peer.matched.max(peer.applied),
            None => view.applied,
        };
        let mut instance = Instance::new(view, id, member, name, "slave");
        instance
            .with("info-refresh", 0)
            .with("role-reported", "slave")
            .with("role-reported-time", 0)
            .with("master-link-down-time", 0)
            .with("master-link-status", if linked { "ok" } else { "err" })
            .with("master-host", host)
            .with("master-port", port)
            .with("slave-priority", member.priority)
            .with("slave-repl-offset", offset)
            .with("replica-announced", 1);
        instance.reply()
    });
    Reply::Array(rows.collect())
}

fn sentinels(view: &View) -> Reply {
    let others = view.members().filter(|(id, _)| *id != view.node);
    let rows = others.map(|(id, member)| {
        let mut instance = Instance::new(view, id, member, run_id(id, Some(member)), "sentinel");
        instance
            .with("last-hello-message", 0)
            .with("voted-leader", "?")
            .with("voted-leader-epoch", 0);
        instance.reply()
    });
    Reply::Array(rows.collect())
}

/// Whether a majority of the voters is up, as far as this node hears.
fn quorum(view: &View) -> Reply {
    let Some(config) = view.config.as_deref() else {
        return Reply::error("NOQUORUM no configuration is known here yet");
    };
    let usable = config.voters.iter().filter(|id| view.is_up(**id)).count();
    if usable > config.voters.len() / 2 {
        return text(format!(
            "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
        ));
    }
    Reply::error(format!(
        "NOQUORUM {usable} usable Sentinels. Not enough available Sentinels to reach the majority \
         and authorize a failover"
    ))
}

/// Forty hex digits, as Redis's run ids: the incarnation, then the node's number.
pub fn run_id(id: NodeId, member: Option<&Member>) -> String {
    let incarnation = member.map(|member| member.incarnation).unwrap_or_default();
    format!("{incarnation}{:08x}", id.0)
}

/// Events between two moments, as (channel, message): what Sentinel clients subscribe to.
///
/// `told` is the primary's address that clients were told last; it outlives the time in which no
/// primary is known, so that a switch is told once, with the right old address.
pub fn events(told: &mut Option<String>, before: &View, after: &View) -> Vec<(Bytes, Bytes)> {
    let mut events = Vec::new();
    let name = &after.cluster_name;
    let mut emit = |channel: &'static str, message: String| {
        events.push((Bytes::from_static(channel.as_bytes()), message.into()));
    };
    if let Some(now) = after.primary_address() {
        match told {
            Some(old) if old != now => {
                let (old_host, old_port) = split_address(old);
                let (host, port) = split_address(now);
                emit(
                    "+switch-master",
                    format!("{name} {old_host} {old_port} {host} {port}"),
                );
            }
            _ => {}
        }
        *told = Some(now.to_string());
    }
    if let Some(told) = told {
        let (host, port) = split_address(told);
        let master = format!("master {name} {host} {port}");
        match (before.primary.is_some(), after.primary.is_some()) {
            (true, false) => {
                emit("+sdown", master.clone());
                emit("+odown", master);
            }
            (false, true) => {
                emit("-sdown", master.clone());
                emit("-odown", master);
            }
            _ => {}
        }
        for (id, member) in after.backups() {
            let channel = match (before.is_up(id), after.is_up(id)) {
                (true, false) => "+sdown",
                (false, true) => "-sdown",
                _ => continue,
            };
            let (own_host, own_port) = split_address(&member.addresses.client);
            emit(
                channel,
                format!("slave {own_host}:{own_port} {own_host} {own_port} @ {name} {host} {port}"),
            );
        }
    }
    events
}

fn wrong_arity(word: &[u8]) -> Reply {
    let word = String::from_utf8_lossy(word);
    Reply::error(format!(
        "ERR wrong number of arguments for 'sentinel|{word}' command"
    ))
}

#[cfg(test)]
mod tests;
