//! INFO and ROLE: the node's view in Redis's words, with Redis's fields where they fit.

use super::{BUCKETS_US, Front, REDIS_VERSION, sentinel, split_address, text, wall_clock};
use crate::node::view::{Role, View};
use crate::state::Reply;
use bytes::Bytes;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

/// A section of INFO: its name, what writes its lines, and whether INFO without words shows it.
type Section = (&'static str, fn(&mut Lines, &Front, &View), bool);

const SECTIONS: [Section; 8] = [
    ("Server", server, true),
    ("Clients", clients, true),
    ("Memory", memory, true),
    ("Persistence", persistence, true),
    ("Stats", stats, true),
    ("Replication", replication, true),
    ("Standfast", standfast, true),
    ("Keyspace", keyspace, true),
];

/// The text of INFO.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn field(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

pub fn info(args: &[Bytes], front: &Front, view: &View) -> Reply {
    let words: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
        .collect();
    let all = words
        .iter()
        .any(|word| word == "all" || word == "everything");
    let default = words.is_empty() || words.iter().any(|word| word == "default");
    let mut lines = Lines::default();
    for (name, write, by_default) in SECTIONS {
        let named = words.iter().any(|word| word.eq_ignore_ascii_case(name));
        if all || named || (default && by_default) {
            if !lines.0.is_empty() {
                lines.0.push_str("\r\n");
            }
            let _ = write!(lines.0, "# {name}\r\n");
            write(&mut lines, front, view);
        }
    }
    text(lines.0)
}

fn server(lines: &mut Lines, _: &Front, view: &View) {
    let mode = if view.role == Role::Witness {
        "sentinel"
    } else {
        "standalone"
    };
    let address = view.client_address(view.node).unwrap_or_default();
    let uptime_ms = now_ms().saturating_sub(view.started_ms);
    lines.field("redis_version", REDIS_VERSION);
    lines.field("standfast_version", env!("CARGO_PKG_VERSION"));
    lines.field("redis_mode", mode);
    lines.field("os", std::env::consts::OS);
    lines.field("arch_bits", usize::BITS);
    lines.field("process_id", std::process::id());
    lines.field(
        "run_id",
        sentinel::run_id(view.node, view.member(view.node)),
    );
    lines.field("tcp_port", split_address(address).1);
    lines.field("server_time_usec", wall_clock().as_micros());
    lines.field("uptime_in_seconds", uptime_ms / 1_000);
    lines.field("uptime_in_days", uptime_ms / 86_400_000);
}

fn clients(lines: &mut Lines, front: &Front, _: &View) {
    let all = front.clients.all();
    lines.field("connected_clients", all.len());
    lines.field("maxclients", front.tunable.max_clients.load(Relaxed));
    lines.field(
        "pubsub_clients",
        all.iter().filter(|client| client.is_subscribed()).count(),
    );
}

fn memory(lines: &mut Lines, _: &Front, view: &View) {
    lines.field("used_memory", view.used_bytes);
    lines.field("used_memory_dataset", view.used_bytes);
    lines.field("maxmemory", view.max_memory_bytes);
    lines.field("maxmemory_policy", "noeviction");
}

fn persistence(lines: &mut Lines, _: &Front, view: &View) {
    let (lsn, at_s) = view.snapshot.map_or((0, 0), |(lsn, at_s)| (lsn.0, at_s));
    lines.field("loading", u8::from(view.role == Role::Loading));
    lines.field(
        "rdb_changes_since_last_save",
        view.applied.0.saturating_sub(lsn),
    );
    lines.field("rdb_bgsave_in_progress", u8::from(view.snapshot_running));
    lines.field("rdb_last_save_time", at_s);
    lines.field("aof_enabled", 1);
    lines.field("aof_current_size", view.log_bytes);
}

fn stats(lines: &mut Lines, front: &Front, _: &View) {
    let counters = &front.counters;
    lines.field(
        "total_connections_received",
        counters.connections.load(Relaxed),
    );
    lines.field("total_commands_processed", counters.commands.load(Relaxed));
    lines.field("total_net_input_bytes", counters.bytes_in.load(Relaxed));
    lines.field("total_net_output_bytes", counters.bytes_out.load(Relaxed));
    lines.field(
        "rejected_connections",
        counters.connections_refused.load(Relaxed),
    );
    lines.field("total_error_replies", counters.errors.load(Relaxed));
    lines.field("protocol_errors", counters.protocol_errors.load(Relaxed));
    for (bucket, count) in counters.latency.iter().enumerate() {
        let count = count.load(Relaxed);
        match BUCKETS_US.get(bucket) {
            Some(end) => lines.field(&format!("commands_within_{end}_us"), count),
            None => lines.field("commands_slower", count),
        }
    }
}

fn replication(lines: &mut Lines, _: &Front, view: &View) {
    if view.is_primary() {
        lines.field("role", "master");
        lines.field("connected_slaves", up_backups(view).count());
        for (number, (id, member)) in up_backups(view).enumerate() {
            let (host, port) = split_address(&member.addresses.client);
            let peer = view.peers.get(&id).copied().unwrap_or_default();
            lines.field(
                &format!("slave{number}"),
                format_args!(
                    "ip={host},port={port},state=online,offset={},lag={},sync={}",
                    peer.matched,
                    peer.lag_ms / 1_000,
                    if view.is_synchronous(id) { "yes" } else { "no" }
                ),
            );
        }
    } else {
        let (host, port) = view.primary_address().map_or(("?", 0), split_address);
        let link = if view.primary.is_some() { "up" } else { "down" };
        lines.field("role", "slave");
        lines.field("master_host", host);
        lines.field("master_port", port);
        lines.field("master_link_status", link);
        lines.field("master_last_io_seconds_ago", primary_heard_ms(view) / 1_000);
        lines.field("slave_read_only", 1);
        lines.field("slave_repl_offset", view.applied);
        lines.field("connected_slaves", 0);
    }
    lines.field(
        "master_replid",
        format_args!("{:032x}{:08x}", view.history.id, view.epoch.0),
    );
    lines.field("master_repl_offset", view.committed);
    lines.field("repl_backlog_active", 1);
}

fn standfast(lines: &mut Lines, _: &Front, view: &View) {
    lines.field("node", view.node);
    lines.field("cluster", &view.cluster_name);
    lines.field("cluster_id", view.cluster);
    lines.field("node_role", view.role.name());
    lines.field("serving", u8::from(view.serving));
    lines.field("generation", view.history.generation);
    lines.field("epoch", view.epoch);
    lines.field(
        "primary",
        view.primary.map_or("none".to_string(), |id| id.to_string()),
    );
    if let Some(config) = view.config.as_deref() {
        let sync_set: Vec<String> = config.sync_set.iter().map(ToString::to_string).collect();
        lines.field("sync_set", sync_set.join(","));
        lines.field("acks_needed", config.acks_needed);
        lines.field("protection", word(&config.protection));
    }
    lines.field("written_lsn", view.written);
    lines.field("durable_lsn", view.durable);
    lines.field("committed_lsn", view.committed);
    lines.field("applied_lsn", view.applied);
    lines.field("log_time_ns", view.log_time_ns);
    lines.field("alarms", view.alarms.len());
    for alarm in &view.alarms {
        lines.field(
            &format!("alarm_{}", alarm.name),
            alarm.text.replace(['\r', '\n'], " "),
        );
    }
}

fn keyspace(lines: &mut Lines, _: &Front, view: &View) {
    if view.keys > 0 {
        lines.field(
            "db0",
            format_args!("keys={},expires=0,avg_ttl=0", view.keys),
        );
    }
    lines.field("accounts", view.accounts);
    lines.field("transfers", view.transfers);
}

/// ROLE in Redis's shape; offsets are LSNs. A witness answers as a Sentinel does.
pub fn role(view: &View) -> Reply {
    if view.role == Role::Witness {
        return Reply::Array(vec![
            text("sentinel"),
            Reply::Array(vec![text(&view.cluster_name)]),
        ]);
    }
    if view.is_primary() {
        let backups = up_backups(view).map(|(id, member)| {
            let (host, port) = split_address(&member.addresses.client);
            let matched = view.peers.get(&id).map_or(0, |peer| peer.matched.0);
            Reply::Array(vec![text(host), text(port), text(matched)])
        });
        return Reply::Array(vec![
            text("master"),
            integer(view.committed.0),
            Reply::Array(backups.collect()),
        ]);
    }
    let (host, port) = view.primary_address().map_or(("?", 0), split_address);
    let link = match view.role {
        Role::Loading => "sync",
        _ if view.primary.is_some() => "connected",
        _ => "connect",
    };
    Reply::Array(vec![
        text("slave"),
        text(host),
        Reply::Int(i64::from(port)),
        text(link),
        integer(view.applied.0),
    ])
}

fn up_backups(
    view: &View,
) -> impl Iterator<Item = (standfast_wal::NodeId, &crate::replication::config::Member)> {
    view.backups().filter(|(id, _)| view.is_up(*id))
}

fn primary_heard_ms(view: &View) -> u64 {
    view.primary
        .and_then(|id| view.peers.get(&id)?.heard_ms)
        .unwrap_or(0)
}

/// The word that settings and JSON use for an enum's value.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub fn integer(value: u64) -> Reply {
    Reply::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

pub fn now_ms() -> u64 {
    u64::try_from(wall_clock().as_millis()).unwrap_or(u64::MAX)
}
