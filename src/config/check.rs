//! How settings must go together: each refusal says why, and what would be right.

use super::{Config, limits};
use crate::replication::config::MemberRole;
use std::collections::BTreeSet;

/// Everything that is wrong with the combination; empty when it can be served.
pub fn check(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    addresses(config, &mut problems);
    peers(config, &mut problems);
    times(config, &mut problems);
    sizes(config, &mut problems);
    archive(config, &mut problems);
    problems
}

fn archive(config: &Config, problems: &mut Vec<String>) {
    if !config.archive_keep_for.is_zero() && config.verify_interval.is_zero() {
        problems.push(
            "archive_keep_for removes nothing of an archive that is never proved: set \
             verify_interval"
                .to_owned(),
        );
    }
}

fn addresses(config: &Config, problems: &mut Vec<String>) {
    let all = [
        ("client", &config.client_listen, config.client_address()),
        ("peer", &config.peer_listen, config.peer_address()),
        ("http", &config.http_listen, config.http_address()),
    ];
    for (name, _, told) in &all {
        if told.is_wildcard() {
            problems.push(format!(
                "{name}_listen is {told}, an address nobody can dial: set {name}_advertised to the \
                 address that others should be told"
            ));
        }
    }
    for (i, (name, listen, _)) in all.iter().enumerate() {
        for (other, taken, _) in &all[..i] {
            // Port 0 lets the system choose: never the same one twice.
            let same_host =
                listen.host() == taken.host() || listen.is_wildcard() || taken.is_wildcard();
            if listen.port() == taken.port() && listen.port() != 0 && same_host {
                problems.push(format!(
                    "{name}_listen and {other}_listen are both at port {}: each needs its own",
                    listen.port()
                ));
            }
        }
    }
}

fn peers(config: &Config, problems: &mut Vec<String>) {
    let mut ids = BTreeSet::from([config.node]);
    for peer in &config.peers {
        if peer.id == config.node {
            problems.push(format!(
                "peers names node {} at {}, which is this node's own id: list the others only, or \
                 correct `node`",
                peer.id, peer.peer
            ));
        } else if !ids.insert(peer.id) {
            problems.push(format!("peers names node {} twice", peer.id));
        }
    }
    if ids.len() > limits::MEMBERS_MAX {
        problems.push(format!(
            "{} nodes: a cluster has at most {}",
            ids.len(),
            limits::MEMBERS_MAX
        ));
    }
    let roles = config
        .peers
        .iter()
        .map(|peer| peer.role)
        .chain([config.role]);
    let roles: Vec<_> = roles.collect();
    let voters = roles
        .iter()
        .filter(|role| **role != MemberRole::Asynchronous)
        .count();
    problems.extend(voters_problem(voters));
    if !roles.contains(&MemberRole::Data) {
        problems.push(
            "no node has the role data: nobody could be primary. Give at least one that role"
                .to_owned(),
        );
    }
}

/// Why so many voters are refused, if they are.
pub fn voters_problem(voters: usize) -> Option<String> {
    match voters {
        1 | 3 | 5 => None,
        0 => Some("no voters: at least one data node or witness is needed".to_owned()),
        2 => Some(
            "2 voters can neither fail over nor remove the lost one: the majority of 2 is 2. Add a \
             witness (it holds no data), or make the second node asynchronous"
                .to_owned(),
        ),
        4 => Some(
            "4 voters bear the loss of one, as 3 do, and need three answers instead of two: add a \
             witness, or make one node asynchronous"
                .to_owned(),
        ),
        more => Some(format!(
            "{more} voters: there are at most {}; make the others asynchronous",
            limits::VOTERS_MAX
        )),
    }
}

fn times(config: &Config, problems: &mut Vec<String>) {
    // Of three heartbeats in a row two may be late or lost without a suspicion.
    if config.heartbeat_interval * 3 > config.failover_timeout {
        problems.push(format!(
            "failover_timeout {} is less than three heartbeat_intervals of {}: a single lost \
             heartbeat would start a failover. Raise the first or lower the second",
            humantime::format_duration(config.failover_timeout),
            humantime::format_duration(config.heartbeat_interval)
        ));
    }
    let pairs = [
        (
            "heartbeat_interval",
            config.heartbeat_interval * 2,
            "sync_timeout",
            config.sync_timeout,
            "twice the heartbeat interval is what a healthy backup may take",
        ),
        (
            "sync_timeout",
            config.sync_timeout,
            "write_timeout",
            config.write_timeout,
            "else writes are answered UNKNOWN before a lost backup is taken out",
        ),
        (
            "failover_timeout",
            config.failover_timeout,
            "max_staleness",
            config.max_staleness,
            "else backups refuse reads before anybody suspects the primary",
        ),
        (
            "hold_down",
            config.hold_down,
            "hold_down_max",
            config.hold_down_max,
            "the doubling begins at the first and ends at the second",
        ),
    ];
    for (low_name, low, high_name, high, why) in pairs {
        if low > high {
            problems.push(format!(
                "{high_name} {} is too short beside {low_name}: at least {} is \
                 needed, because {why}",
                humantime::format_duration(high),
                humantime::format_duration(low)
            ));
        }
    }
}

fn sizes(config: &Config, problems: &mut Vec<String>) {
    let spare = (limits::COMMAND_BYTES_MAX - limits::REQUEST_BYTES_MAX
        + limits::BATCH_BYTES
        + limits::WAL_RESERVE_BYTES) as u64;
    let needed = config.max_request.as_u64() + spare;
    if config.wal_segment.as_u64() < needed {
        problems.push(format!(
            "wal_segment {} cannot hold a record of max_request {}: at least {} is needed",
            config.wal_segment.display().iec(),
            config.max_request.display().iec(),
            bytesize::ByteSize(needed).display().iec()
        ));
    }
    if config.max_bulk > config.max_request {
        problems.push(format!(
            "max_bulk {} is above max_request {}: no request could carry such an argument",
            config.max_bulk.display().iec(),
            config.max_request.display().iec()
        ));
    }
}
