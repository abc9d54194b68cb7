//! What `status` shows, made on demand: the view, the peers, the forecast, the alarms.

use crate::replication::config::{MemberRole, Protection};
use crate::replication::node::Node;
use crate::replication::primary::Primary;
use crate::replication::replica::{Replica, Role};
use crate::replication::time::Time;
use crate::replication::view::{Forecast, PeerView, RoleView, View};
use standfast_wal::{Lsn, NodeId};
use std::fmt;

impl Replica {
    /// Everything `status` shows of replication.
    pub fn view(&self, now: Time) -> View {
        let node = &self.node;
        View {
            role: self.role_view(),
            fence: node.meta.fence,
            history: node.history(),
            epoch: node.epoch(),
            tip: node.end(),
            durable: node.log.durable,
            commit: node.log.commit,
            heard_commit: node.heard_commit.max(node.log.commit),
            suspect: node.meta.suspect,
            config_version: node.config().version,
            peers: self.peers(now),
            forecast: self.forecast(),
            alarms: self.alarms(),
        }
    }

    fn role_view(&self) -> RoleView {
        let node = &self.node;
        let primary = self.primary();
        match &self.role {
            Role::Primary(primary) => RoleView::Primary {
                serving: primary.serving,
            },
            Role::Candidate(_) | Role::Forcing(_) => RoleView::Candidate,
            Role::Backup(_) if !node.is_member() => RoleView::Stranger,
            Role::Backup(_) if node.role() == MemberRole::Witness => RoleView::Witness { primary },
            Role::Backup(_) => RoleView::Backup {
                primary,
                synchronous: node.config().sync_set.contains(&node.me),
            },
        }
    }

    /// Every other member, with what this node knows of it.
    pub fn peers(&self, now: Time) -> Vec<PeerView> {
        let node = &self.node;
        let primary = match &self.role {
            Role::Primary(primary) => Some(primary),
            _ => None,
        };
        let others = node.config().members.iter();
        let others = others.filter(|(id, _)| **id != node.me);
        others
            .map(|(id, member)| {
                let peer = primary.and_then(|primary| primary.peers.get(id));
                let matched = peer.map_or(Lsn::ZERO, |peer| peer.matched);
                let joining = primary.and_then(|primary| primary.joining.as_ref());
                let known = peer.is_some() && member.role.holds_data();
                PeerView {
                    id: *id,
                    role: member.role,
                    connected: node.up(*id),
                    synchronous: node.config().sync_set.contains(id),
                    joining: joining.is_some_and(|joining| joining.id == *id),
                    matched,
                    lag: if known {
                        matched.distance_to(node.end())
                    } else {
                        0
                    },
                    lag_bytes: if known {
                        node.log.tail.bytes_between(matched, node.end())
                    } else {
                        0
                    },
                    clock_offset: node.clocks.get(id).copied(),
                    silent: peer.map(|peer| peer.silent(now)),
                }
            })
            .collect()
    }

    /// What would happen if the primary died now, as far as this node can tell.
    pub fn forecast(&self) -> Forecast {
        match &self.role {
            Role::Primary(primary) => primary.forecast(&self.node),
            _ => Forecast {
                text: "ask the primary: only it knows who holds what".to_string(),
                ..Forecast::default()
            },
        }
    }

    /// What an operator should do something about, as sentences.
    fn alarms(&self) -> Vec<String> {
        let node = &self.node;
        let mut alarms = Vec::new();
        if node.meta.suspect {
            alarms.push("the log's end was damaged; it counts as absent until verified".into());
        }
        if node.is_outdated() {
            let history = node.meta.fence.history;
            alarms.push(format!(
                "this history was ended by force; the data is kept, `rejoin` follows {history}"
            ));
        }
        if let Role::Primary(primary) = &self.role {
            alarms.extend(primary.alarms(node));
        }
        alarms
    }
}

impl Primary {
    fn forecast(&self, node: &Node) -> Forecast {
        let config = node.config();
        let successor = self
            .best_successor(node)
            .filter(|id| self.would_win(node, *id));
        if let Some(id) = successor {
            let outage = node.settings.failover_timeout + node.settings.fence_grace * 2;
            let text = format!(
                "node {id} would take over and lose nothing: at once if this process dies, within \
                 about {} ms if it falls silent",
                outage.as_millis()
            );
            return Forecast {
                successor,
                lost_commands: 0,
                outage: Some(outage),
                text,
            };
        }
        let data = self.peers.iter().filter(|(_, peer)| peer.role.holds_data());
        let best = data.max_by_key(|(_, peer)| peer.matched);
        let Some((id, peer)) = best else {
            let text = "nobody would take over: this is the only data node".to_string();
            return Forecast {
                text,
                ..Forecast::default()
            };
        };
        let lost_commands = peer.matched.distance_to(node.log.commit);
        let why = match config.protection {
            Protection::MaxPerformance => "max-performance has no synchronous backup",
            _ => "no synchronous backup is there",
        };
        let text = format!(
            "nobody would take over by itself: {why}; `promote --force` on node {id} would lose \
             {lost_commands} acknowledged commands"
        );
        Forecast {
            successor: None,
            lost_commands,
            outage: None,
            text,
        }
    }

    /// Whether the voters and fence answers that a candidate needs are there without this node.
    fn would_win(&self, node: &Node, id: NodeId) -> bool {
        let config = node.config();
        let there = |other: NodeId| {
            other == id || (other != node.me && node.up(other) && self.is_heard(node, other))
        };
        let fenced = config
            .sync_set
            .iter()
            .filter(|other| there(**other))
            .count();
        config.majority(there) && fenced >= config.fence_quorum()
    }

    fn is_heard(&self, node: &Node, id: NodeId) -> bool {
        let silent = self.peers.get(&id).map(|peer| peer.silent(node.now));
        silent.is_some_and(|silent| silent < node.settings.failover_timeout)
    }

    fn alarms(&self, node: &Node) -> Vec<String> {
        let mut alarms = Vec::new();
        let config = node.config();
        let data = config
            .members
            .values()
            .filter(|member| member.role == MemberRole::Data);
        let could_be_more = data.count() > 1;
        if config.sync_set.len() == 1
            && config.protection != Protection::MaxPerformance
            && could_be_more
        {
            alarms.push("the sync set is this node alone: one lost disk loses data".into());
        }
        if self.deaf {
            alarms.push("no majority of the voters is heard: writes are refused".into());
        }
        if self.is_stalled(node) {
            alarms.push("the disk has stalled: writes are refused".into());
        }
        alarms
    }
}

impl fmt::Display for Replica {
    /// One line in the house notation: `n1@3 primary last=7 durable=7 commit=6 sync={1,2}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.node;
        let role = match self.role_view() {
            RoleView::Primary { serving: true } => "primary",
            RoleView::Primary { serving: false } => "primary (starting)",
            RoleView::Candidate => "candidate",
            RoleView::Stranger => "stranger",
            RoleView::Witness { .. } => "witness",
            RoleView::Backup { synchronous, .. } => {
                if synchronous {
                    "backup"
                } else {
                    "backup (async)"
                }
            }
        };
        let (me, epoch, end) = (node.me, node.epoch(), node.log.tip().position);
        write!(
            f,
            "n{me}@{epoch} {role} last={end} durable={}",
            node.log.durable
        )?;
        let set: Vec<String> = node
            .config()
            .sync_set
            .iter()
            .map(NodeId::to_string)
            .collect();
        let (version, set) = (node.config().version, set.join(","));
        write!(f, " commit={} sync={{{set}}} v{version}", node.log.commit)?;
        if let Role::Primary(primary) = &self.role {
            for (id, peer) in primary
                .peers
                .iter()
                .filter(|(_, peer)| peer.role.holds_data())
            {
                write!(f, " n{id}={}", peer.matched)?;
            }
            if let Some(joining) = &primary.joining {
                write!(f, " joining=n{}", joining.id)?;
            }
            if let Some(to) = primary.handover_target() {
                write!(f, " to=n{to}")?;
            }
        }
        if node.meta.suspect {
            write!(f, " suspect")?;
        }
        if node.has_lost_primary() && !self.is_primary() {
            write!(f, " lost")?;
        }
        Ok(())
    }
}
