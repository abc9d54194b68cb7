//! What the engine shows of itself: the view that many read, and the status text.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::node::engine::Engine;
use crate::node::view::{Alarm, Metric, Peer, Role, View};
use crate::replication::RoleView;
use serde_json::{Value, json};
use standfast_wal::Lsn;
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
            .map(|text| Alarm { name: "replication", text: text.clone() })
            .collect();
        if self.disk_full {
            let text = "the log's disk is full: writes are refused; free space".to_string();
            alarms.push(Alarm { name: "disk_full", text });
        }
        let applied = self.state.applied();
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
            staleness_ms: self.staleness().map(ms),
            peers: self.peer_views(&core.peers),
            keys: self.state.keys(),
            accounts: 0,
            transfers: 0,
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
        self.staleness().is_some_and(|age| age <= self.settings.max_staleness)
    }

    fn newest_snapshot(&self) -> Option<(Lsn, u64)> {
        let newest = self.copies.newest.as_ref()?;
        Some((newest.head.link.position.lsn, newest.finished))
    }

    fn peer_views(
        &self,
        peers: &[crate::replication::PeerView],
    ) -> BTreeMap<standfast_wal::NodeId, Peer> {
        let view = |peer: &crate::replication::PeerView| Peer {
            connected: peer.connected,
            heard_ms: Some(ms(peer.silent)),
            matched: peer.matched,
            applied: peer.matched.min(self.replica.commit()),
            lag_bytes: peer.lag_bytes,
            lag_ms: 0,
        };
        peers.iter().map(|peer| (peer.id, view(peer))).collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric {
            name: "loss_statements_total",
            help: "Cut log tails for which a loss statement was written in this process's life.",
            value: self.desk.losses() as f64,
        }]
    }

    /// Everything `standfast status` shows.
    pub(super) fn status(&self) -> Value {
        let view = self.view();
        let core = self.replica.view(self.time());
        let members: Vec<Value> = view
            .members()
            .map(|(id, member)| {
                let peer = view.peers.get(&id);
                let is_primary = view.primary == Some(id);
                json!({
                    "id": id.0,
                    "role": role_name(&view, id, is_primary),
                    "site": member.site,
                    "voter": view.config.as_deref().is_some_and(|c| c.voters.contains(&id)),
                    "client": member.addresses.client,
                    "peer": member.addresses.peer,
                    "http": member.addresses.http,
                    "up": view.is_up(id),
                    "self": id == view.node,
                    "matched": peer.map(|peer| peer.matched.0),
                    "lag_bytes": peer.map(|peer| peer.lag_bytes),
                    "silent_ms": peer.and_then(|peer| peer.heard_ms),
                })
            })
            .collect();
        let config = self.replica.config();
        json!({
            "node": view.node.0,
            "cluster": view.cluster.to_string(),
            "cluster_name": &*view.cluster_name,
            "incarnation": self.identity.incarnation.to_string(),
            "role": view.role.name(),
            "serving": view.serving,
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
            "members": members,
            "forecast": {
                "text": core.forecast.text,
                "successor": core.forecast.successor.map(|id| id.0),
                "lost_commands": core.forecast.lost_commands,
                "outage_ms": core.forecast.outage.map(ms),
            },
            "alarms": view.alarms.iter()
                .map(|alarm| json!({ "name": alarm.name, "text": alarm.text }))
                .collect::<Vec<_>>(),
            "events": self.desk.events()
                .map(|entry| json!({ "ns": entry.wall, "text": entry.text }))
                .collect::<Vec<_>>(),
            "started_ms": view.started_ms,
            "pid": self.settings.pid,
        })
    }
}

/// The role of any member as `dev` and `status` name it.
fn role_name(view: &View, id: standfast_wal::NodeId, is_primary: bool) -> &'static str {
    use crate::replication::config::MemberRole;
    match view.member(id).map(|member| member.role) {
        Some(MemberRole::Witness) => "witness",
        _ if is_primary => "primary",
        _ if view.is_synchronous(id) => "sync-backup",
        _ => "async-backup",
    }
}
