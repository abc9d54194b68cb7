//! What the engine shows of itself: the view that many read, and the status text.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::node::engine::Engine;
use crate::node::status::{MemberStatus, Role as StatusRole, Status};
use crate::node::view::{Alarm, Metric, Peer, Role, View};
use crate::replication::RoleView;
use crate::replication::config::{Member, MemberRole};
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
            .map(|text| Alarm {
                name: "replication",
                text: text.clone(),
            })
            .collect();
        if self.disk_full {
            let text = "the log's disk is full: writes are refused; free space".to_string();
            alarms.push(Alarm {
                name: "disk_full",
                text,
            });
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
        self.staleness()
            .is_some_and(|age| age <= self.settings.max_staleness)
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

    /// Everything `standfast status` shows: the fields of `Status`, and what only people read.
    pub(super) fn status(&self) -> Value {
        let view = self.view();
        let core = self.replica.view(self.time());
        let mut status = serde_json::to_value(self.status_of(&view, &core))
            .expect("plain data can be written as JSON");
        let more = json!({
            "digest": self.state.digest().to_string(),
            "primary_client": view.primary_address(),
            "synchronous": view.is_synchronous(view.node),
            "log_time_ns": view.log_time_ns,
            "staleness_ms": view.staleness_ms,
            "keys": view.keys,
            "used_bytes": view.used_bytes,
            "log_bytes": view.log_bytes,
            "log_first_lsn": self.replica.first_lsn().0,
            "snapshot_lsn": view.snapshot.map(|(lsn, _)| lsn.0),
            "suspect": core.suspect,
            "sync_set": self.replica.config().sync_set.iter().map(|id| id.0).collect::<Vec<_>>(),
            "successor": core.forecast.successor.map(|id| id.0),
            "lost_commands_if_primary_died": core.forecast.lost_commands,
            "outage_ms_if_primary_died": core.forecast.outage.map(ms),
            "events": self.desk.events()
                .map(|entry| json!({ "ns": entry.wall, "text": entry.text }))
                .collect::<Vec<_>>(),
            "started_ms": view.started_ms,
            "pid": self.settings.pid,
        });
        if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
            status.extend(more);
        }
        status
    }

    fn status_of(&self, view: &View, core: &crate::replication::View) -> Status {
        let config = self.replica.config();
        let mine = view.member(view.node);
        Status {
            node: view.node,
            cluster: view.cluster_name.to_string(),
            cluster_id: view.cluster.to_string(),
            incarnation: self.identity.incarnation.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            member_role: mine.map(|member| member.role),
            addresses: self.settings.introduction.addresses.clone(),
            site: self.settings.introduction.site.clone(),
            priority: self.settings.introduction.priority,
            role: match view.role {
                Role::Primary => StatusRole::Primary,
                Role::Witness => StatusRole::Witness,
                _ if view.is_synchronous(view.node) => StatusRole::SyncBackup,
                _ => StatusRole::AsyncBackup,
            },
            serving: view.is_primary() && view.serving,
            reason: self.reason(view),
            history: view.history.to_string(),
            generation: view.history.generation,
            epoch: view.epoch.0,
            config_version: config.version,
            primary: view.config.as_ref().map(|config| config.primary),
            protection: Some(config.protection),
            acks: Some(config.acks),
            acks_needed: config.acks_needed,
            written_lsn: view.written.0,
            durable_lsn: view.durable.0,
            committed_lsn: view.committed.0,
            applied_lsn: view.applied.0,
            members: self.member_statuses(view, core),
            forecast: core.forecast.text.clone(),
            alarms: view.alarms.iter().map(|alarm| alarm.text.clone()).collect(),
        }
    }

    /// Why this node is not what it should be; empty when all is well.
    fn reason(&self, view: &View) -> String {
        match view.role {
            Role::Loading => "this node is not a member yet: it asks to be taken in".to_string(),
            Role::Primary if !view.serving => match self.replica.admit(self.time()) {
                Err(refusal) => refusal.to_string(),
                Ok(()) => String::new(),
            },
            Role::Candidate => "this node stands for promotion".to_string(),
            _ => String::new(),
        }
    }

    fn member_statuses(&self, view: &View, core: &crate::replication::View) -> Vec<MemberStatus> {
        let config = self.replica.config();
        let status = |(id, member): (standfast_wal::NodeId, &Member)| {
            let peer = core.peers.iter().find(|peer| peer.id == id);
            let matched = peer.map(|peer| peer.matched).filter(|_| view.is_primary());
            MemberStatus {
                id,
                incarnation: member.incarnation.to_string(),
                role: match member.role {
                    MemberRole::Witness => StatusRole::Witness,
                    _ if config.primary == id => StatusRole::Primary,
                    _ if config.sync_set.contains(&id) => StatusRole::SyncBackup,
                    _ => StatusRole::AsyncBackup,
                },
                voter: config.voters.contains(&id),
                site: member.site.clone(),
                priority: member.priority,
                client: member.addresses.client.clone(),
                peer: member.addresses.peer.clone(),
                http: member.addresses.http.clone(),
                reachable: view.is_up(id),
                matched_lsn: matched.map(|lsn| lsn.0),
                progress: match peer {
                    Some(peer) if peer.joining => "joining".to_string(),
                    Some(peer) if view.is_primary() && peer.connected => "streaming".to_string(),
                    _ => String::new(),
                },
            }
        };
        view.members().map(status).collect()
    }
}
