//! What the engine shows of itself: the view that many read, and the status text.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::node::engine::Engine;
use crate::node::view::{Alarm, Metric, Peer, Role, View};
use crate::replication::RoleView;
use crate::replication::config::{Member, MemberRole};
use serde_json::{Value, json};
use standfast_wal::{Lsn, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    pub(super) fn view(&self) -> View {
        let now = self.time();
        let core = self.replica.view(now);
        let (role, serving) = match core.role {
            RoleView::Primary { serving } => (Role::Primary, serving),
            RoleView::Backup { .. } => (Role::Backup, self.is_fresh()),
            RoleView::Candidate => (Role::Candidate, false),
            RoleView::Witness { .. } => (Role::Witness, true),
            RoleView::Stranger => (Role::Loading, false),
        };
        let config = self.replica.config();
        let mut alarms: Vec<Alarm> = core
            .alarms
            .iter()
            .map(|text| Alarm {
                name: "replication",
                text: text.clone(),
            })
            .collect();
        if let Some(text) = &self.damage {
            alarms.push(Alarm {
                name: "damage",
                text: text.clone(),
            });
        }
        if self.disk_full {
            let text = "the log's disk is full: writes are refused; free space".to_string();
            alarms.push(Alarm {
                name: "disk_full",
                text,
            });
        }
        alarms.append(&mut self.archive_alarms());
        let applied = self.state.applied();
        let backup_age = self.staleness().filter(|_| !self.replica.is_primary());
        View {
            node: self.identity.node,
            cluster: self.identity.cluster,
            cluster_name: self.identity.cluster_name.as_str().into(),
            role,
            serving,
            epoch: core.epoch,
            history: core.history,
            primary: self.replica.primary(),
            config: (!config.members.is_empty()).then(|| Arc::new(config.clone())),
            written: core.tip,
            durable: core.durable,
            committed: core.commit,
            applied: applied.lsn,
            log_time_ns: applied.timestamp,
            staleness_ms: backup_age.map(ms),
            peers: self.peer_views(&core.peers),
            keys: self.state.keys(),
            accounts: self.state.ledger().accounts(),
            transfers: self.state.ledger().transfers(),
            used_bytes: self.state.used_bytes(),
            max_memory_bytes: self.settings.max_memory,
            log_bytes: self.log_bytes,
            disk_free_bytes: self.free_bytes,
            snapshot: self.newest_snapshot(),
            snapshot_running: self.copies.is_running(),
            started_ms: self.settings.started_ms,
            alarms,
            metrics: self.metrics(),
        }
    }

    fn is_fresh(&self) -> bool {
        self.staleness()
            .is_some_and(|age| age <= self.settings.max_staleness)
    }

    fn newest_snapshot(&self) -> Option<(Lsn, u64)> {
        let newest = self.copies.newest.as_ref()?;
        Some((newest.head.link.position.lsn, newest.finished))
    }

    fn peer_views(&self, peers: &[crate::replication::PeerView]) -> BTreeMap<NodeId, Peer> {
        let is_primary = self.replica.is_primary();
        let follows = |peer: &crate::replication::PeerView| is_primary && peer.role.holds_data();
        let view = |peer: &crate::replication::PeerView| Peer {
            connected: peer.connected,
            heard_ms: peer.silent.map(ms),
            matched: peer.matched,
            applied: peer.matched.min(self.replica.commit()),
            lag_bytes: match follows(peer) && self.replica.records_after(peer.matched).is_none() {
                // What memory has no more is estimated by its share of the log.
                true => peer.lag_bytes.max(self.log_bytes_behind(peer.matched)),
                false => peer.lag_bytes,
            },
            lag_ms: match follows(peer) {
                true => ms(self.reached.behind(peer.matched, self.time())),
                false => 0,
            },
        };
        peers.iter().map(|peer| (peer.id, view(peer))).collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.archive_metrics();
        metrics.push(Metric {
            name: "loss_statements_total",
            help: "Cut log tails for which a loss statement was written in this process's life.",
            value: self.desk.losses() as f64,
        });
        metrics
    }

    /// Everything `standfast status` shows: `node::status` reads it, people do.
    pub(super) fn status(&self) -> Value {
        let view = self.view();
        let core = self.replica.view(self.time());
        let config = self.replica.config();
        let events = self.desk.events();
        let events = events.map(|entry| json!({ "ns": entry.wall, "text": entry.text }));
        let alarms = view.alarms.iter();
        let alarms = alarms.map(|alarm| json!({ "name": alarm.name, "text": alarm.text }));
        json!({
            "node": view.node.0,
            "cluster": view.cluster.to_string(),
            "cluster_name": &*view.cluster_name,
            "incarnation": self.identity.incarnation.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "role": view.role.name(),
            "serving": view.serving,
            "reason": self.reason(&view),
            "synchronous": view.is_synchronous(view.node),
            "primary": view.primary.map(|id| id.0),
            "primary_client": view.primary_address(),
            "generation": view.history.generation,
            "history": format!("{:032x}", view.history.id),
            "epoch": view.epoch.0,
            "written": view.written.0,
            "durable": view.durable.0,
            "committed": view.committed.0,
            "applied": view.applied.0,
            "digest": self.state.digest().to_string(),
            "log_time_ns": view.log_time_ns,
            "staleness_ms": view.staleness_ms,
            "keys": view.keys,
            "used_bytes": view.used_bytes,
            "log_bytes": view.log_bytes,
            "log_first_lsn": self.replica.first_lsn().0,
            "snapshot_lsn": view.snapshot.map(|(lsn, _)| lsn.0),
            "suspect": core.suspect,
            "protection": config.protection,
            "acks": config.acks,
            "acks_needed": config.acks_needed,
            "sync_set": config.sync_set.iter().map(|id| id.0).collect::<Vec<_>>(),
            "voters": config.voters.iter().map(|id| id.0).collect::<Vec<_>>(),
            "config_version": config.version,
            "members": self.member_statuses(&view, &core),
            "forecast": {
                "text": core.forecast.text,
                "successor": core.forecast.successor.map(|id| id.0),
                "lost_commands": core.forecast.lost_commands,
                "outage_ms": core.forecast.outage.map(ms),
            },
            "archive": self.archive_status(),
            "alarms": alarms.collect::<Vec<_>>(),
            "events": events.collect::<Vec<_>>(),
            "started_ms": view.started_ms,
            "pid": self.settings.pid,
        })
    }

    fn member_statuses(&self, view: &View, core: &crate::replication::View) -> Vec<Value> {
        let status = |(id, member): (NodeId, &Member)| {
            let peer = view.peers.get(&id);
            let joining = core.peers.iter().any(|peer| peer.id == id && peer.joining);
            json!({
                "id": id.0,
                "incarnation": member.incarnation.to_string(),
                "role": role_name(view, id, member),
                "site": member.site,
                "priority": member.priority,
                "voter": view.config.as_deref().is_some_and(|c| c.voters.contains(&id)),
                "client": member.addresses.client,
                "peer": member.addresses.peer,
                "http": member.addresses.http,
                "up": view.is_up(id),
                "joining": joining,
                "matched": peer.filter(|_| view.is_primary()).map(|peer| peer.matched.0),
                "lag_bytes": peer.filter(|_| view.is_primary()).map(|peer| peer.lag_bytes),
                "lag_ms": peer.filter(|_| view.is_primary()).map(|peer| peer.lag_ms),
                "silent_ms": peer.and_then(|peer| peer.heard_ms),
            })
        };
        view.members().map(status).collect()
    }

    /// Why this node is not what it should be; empty when all is well.
    fn reason(&self, view: &View) -> String {
        match view.role {
            Role::Loading => "this node is not a member yet: it asks to be taken in".to_string(),
            Role::Primary if !view.serving => match self.replica.admit() {
                Err(refusal) => refusal.to_string(),
                Ok(()) => String::new(),
            },
            Role::Candidate => "this node stands for promotion".to_string(),
            _ => String::new(),
        }
    }
}

/// The role of any member, in the words of `cluster.json`: by the register, whoever is up.
fn role_name(view: &View, id: NodeId, member: &Member) -> &'static str {
    let primary = view.config.as_deref().map(|config| config.primary);
    match member.role {
        MemberRole::Witness => "witness",
        _ if primary == Some(id) => "primary",
        _ if view.is_synchronous(id) => "sync-backup",
        _ => "async-backup",
    }
}
