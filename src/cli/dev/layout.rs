//! Which nodes `dev` runs: the defaulting rules, ports, settings files and the plan on disk.

use crate::cli::create::{Draws, first_config, member_of};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::random;
use crate::config::{
    Config, HostPort, MaxMemory, MemberRole, Name, Peer, Place, Value, voters_problem,
};
use crate::limits;
use crate::node::status::Role;
use crate::replication::config::{Acks, Member, Protection};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use standfast_wal::{ClusterId, Incarnation, NodeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the command line asks for; `None` where it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub sync: Option<u32>,
    pub asynchronous: Option<u32>,
    pub witness: Option<u32>,
    pub port: Option<u16>,
    pub protection: Option<Protection>,
    pub acks: Option<Acks>,
    pub peer_proxies: bool,
}

/// How many nodes of each kind, and what they promise. Node i has client port `port` + 10 i, peer
/// port one above and HTTP port two above; first the data nodes, then the asynchronous ones,
/// then the witnesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Synchronous backups beside the first primary.
    pub sync: u32,
    pub asynchronous: u32,
    pub witness: u32,
    pub port: u16,
    pub protection: Protection,
    pub acks: Acks,
    /// Whether nodes tell each other a peer port two above the one they listen at, where somebody
    /// puts a proxy.
    #[serde(default)]
    pub peer_proxies: bool,
}

/// Ports of one node lie so far from those of the next.
const PORTS_PER_NODE: u32 = 10;

impl Layout {
    /// Fills in what was not asked for, and refuses what cannot work.
    pub fn resolve(asked: &Asked) -> Result<Layout, Failure> {
        let sized = asked
            .sync
            .or(asked.asynchronous)
            .or(asked.witness)
            .is_some();
        let sync = asked.sync.unwrap_or(1);
        let odd = u32::from(sync % 2 == 1);
        let data = sync.saturating_add(1);
        let layout = Layout {
            sync,
            asynchronous: asked.asynchronous.unwrap_or(u32::from(!sized)),
            witness: asked.witness.unwrap_or(odd),
            port: asked.port.unwrap_or(7600),
            protection: asked.protection.unwrap_or(Protection::MaxAvailability),
            acks: asked
                .acks
                .unwrap_or(if data > 2 { Acks::Majority } else { Acks::All }),
            peer_proxies: asked.peer_proxies,
        };
        layout.check()?;
        Ok(layout)
    }

    fn check(&self) -> Result<(), Failure> {
        let usage = |message: String| Err(Failure::new(ExitCode::Usage, message));
        let sizes = [self.sync, self.asynchronous, self.witness];
        if sizes
            .iter()
            .any(|size| *size as usize >= limits::MEMBERS_MAX)
            || self.nodes() as usize > limits::MEMBERS_MAX
        {
            return usage(format!(
                "a cluster has at most {} nodes",
                limits::MEMBERS_MAX
            ));
        }
        if let Some(problem) = voters_problem((1 + self.sync + self.witness) as usize) {
            return usage(problem);
        }
        if self.protection == Protection::MaxProtection && self.sync == 0 {
            return usage(
                "max-protection acknowledges on two copies at least: --sync must be 1 or more"
                    .to_owned(),
            );
        }
        let last = u32::from(self.port) + PORTS_PER_NODE * (self.nodes() - 1) + 2;
        if self.port == 0 || last > u32::from(u16::MAX) {
            return usage(format!(
                "--port {}: {} nodes need the ports from there to {last}",
                self.port,
                self.nodes()
            ));
        }
        Ok(())
    }

    /// The layout that is there, unless something else was asked for by name.
    pub fn reconcile(self, asked: &Asked) -> Result<Layout, Failure> {
        let sized = asked
            .sync
            .or(asked.asynchronous)
            .or(asked.witness)
            .is_some();
        let wanted = Layout::resolve(asked)?;
        let sizes = |layout: &Layout| (layout.sync, layout.asynchronous, layout.witness);
        let text = |layout: &Layout| {
            format!(
                "--sync {} --async {} --witness {}",
                layout.sync, layout.asynchronous, layout.witness
            )
        };
        let other = |what: String, hint: &str| {
            Err(Failure::new(ExitCode::Exists, format!("the cluster there has {what}")).hint(hint))
        };
        let elsewhere = "leave it out to run what is there, or give another --dir";
        if sized && sizes(&wanted) != sizes(&self) {
            return other(format!("{}, not {}", text(&self), text(&wanted)), elsewhere);
        }
        if asked.port.is_some_and(|port| port != self.port) {
            return other(
                format!("--port {}, not {}", self.port, wanted.port),
                elsewhere,
            );
        }
        let change = "leave it out, and change it with `standfast set` while the cluster runs";
        if asked
            .protection
            .is_some_and(|protection| protection != self.protection)
        {
            return other("been made with another --protection".to_owned(), change);
        }
        if asked.acks.is_some_and(|acks| acks != self.acks) {
            return other("been made with another --acks".to_owned(), change);
        }
        Ok(self)
    }

    pub fn nodes(&self) -> u32 {
        1 + self.sync + self.asynchronous + self.witness
    }

    pub fn member_role(&self, node: u32) -> MemberRole {
        match node {
            node if node <= self.sync => MemberRole::Data,
            node if node <= self.sync + self.asynchronous => MemberRole::Asynchronous,
            _ => MemberRole::Witness,
        }
    }

    /// The role a node has in a cluster that was just made.
    pub fn first_role(&self, node: u32) -> Role {
        match self.member_role(node) {
            MemberRole::Data if node == 0 => Role::Primary,
            MemberRole::Data if self.protection == Protection::MaxPerformance => Role::AsyncBackup,
            MemberRole::Data => Role::SyncBackup,
            MemberRole::Asynchronous => Role::AsyncBackup,
            MemberRole::Witness => Role::Witness,
        }
    }

    /// Nobody waits for asynchronous members: they may be far away.
    fn site(&self, node: u32) -> Name {
        let site = match self.member_role(node) {
            MemberRole::Asynchronous => "far",
            MemberRole::Data | MemberRole::Witness => "main",
        };
        Name::parse(site).expect("it is a name")
    }

    fn address(&self, node: u32, offset: u32) -> HostPort {
        let port = u32::from(self.port) + PORTS_PER_NODE * node + offset;
        HostPort::parse(&format!("127.0.0.1:{port}")).expect("ports were checked")
    }

    /// Where other nodes reach this one.
    fn peer_address(&self, node: u32) -> HostPort {
        self.address(node, if self.peer_proxies { 3 } else { 1 })
    }

    /// The settings of one node, whose files lie in `dir`.
    pub fn settings(&self, dir: &Path, node: u32, cluster: ClusterId) -> Config {
        let data_nodes = 1 + self.sync + self.asynchronous;
        let share = u8::try_from((80 / data_nodes).max(1)).expect("at most 80");
        let peers = (0..self.nodes())
            .filter(|peer| *peer != node)
            .map(|peer| Peer {
                id: NodeId(peer),
                peer: self.peer_address(peer),
                role: self.member_role(peer),
            });
        Config {
            node: NodeId(node),
            cluster_id: Some(cluster),
            data_dir: node_dir(dir, node).join("data"),
            role: self.member_role(node),
            site: self.site(node),
            client_listen: self.address(node, 0),
            peer_listen: self.address(node, 1),
            peer_advertised: self.peer_proxies.then(|| self.peer_address(node)),
            http_listen: self.address(node, 2),
            peers: peers.collect(),
            // All nodes share this machine's memory and disk.
            max_memory: MaxMemory::Share(share),
            wal_keep: ByteSize::gib(1),
            ..Config::default()
        }
    }
}

/// A directory is the same one for every node.
pub fn place(text: &str) -> Result<Place, String> {
    let absolute = match text.contains("://") {
        true => text.to_owned(),
        false => std::path::absolute(text)
            .map_err(|error| error.to_string())?
            .display()
            .to_string(),
    };
    Place::parse(&absolute).ok_or_else(|| format!("expected {}", Place::KIND))
}

/// Where a node's settings, log lines and data lie.
pub fn node_dir(dir: &Path, node: u32) -> PathBuf {
    dir.join(format!("node-{node}"))
}

/// What `dev` made in a directory, so that a second start finds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub layout: Layout,
    /// 32 hex digits, like all random numbers here.
    pub cluster_id: String,
    /// Whether every node's data directory was made. Until then nothing has run, and all are made
    /// from the beginning; from then on a missing one is a lost disk, and never made again from
    /// the first Config: its acknowledgements and votes are forgotten.
    pub made: bool,
}

impl Plan {
    pub const FILE: &'static str = "dev.json";

    /// Reads the plan of a directory; `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<Plan>, Failure> {
        let file = dir.join(Plan::FILE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::new(ExitCode::Damaged, format!("{}: {error}", file.display())).hint(
                "the nodes' own data is not in this file: start them by hand with `standfast \
                 serve --config <dir>/node-0/node.toml`, and so on",
            )
        })
    }

    pub fn new(layout: Layout) -> Result<Plan, Failure> {
        Ok(Plan {
            layout,
            cluster_id: ClusterId(random::id()?).to_string(),
            made: false,
        })
    }

    pub fn cluster(&self) -> Result<ClusterId, Failure> {
        self.cluster_id.parse().map_err(|_| {
            Failure::new(
                ExitCode::Damaged,
                format!("{}: cluster_id is no identity", Plan::FILE),
            )
        })
    }

    /// The same register value and one new incarnation for every node of a cluster to be made.
    pub fn first_members(
        &self,
        dir: &Path,
    ) -> Result<
        (
            crate::replication::config::Config,
            BTreeMap<NodeId, Incarnation>,
        ),
        Failure,
    > {
        let mut members: BTreeMap<NodeId, Member> = BTreeMap::new();
        for node in 0..self.layout.nodes() {
            let settings = self.layout.settings(dir, node, self.cluster()?);
            members.insert(
                settings.node,
                member_of(&settings, Incarnation(random::id()?)),
            );
        }
        let incarnations = members
            .iter()
            .map(|(id, member)| (*id, member.incarnation))
            .collect();
        let Layout {
            acks, protection, ..
        } = self.layout;
        Ok((
            first_config(members, acks, protection, Draws::new()?),
            incarnations,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(sync: Option<u32>, asynchronous: Option<u32>, witness: Option<u32>) -> Layout {
        Layout::resolve(&Asked {
            sync,
            asynchronous,
            witness,
            ..Asked::default()
        })
        .unwrap_or_else(|failure| panic!("{sync:?} {asynchronous:?} {witness:?}: {failure}"))
    }

    #[test]
    fn what_is_not_asked_for_follows_the_rules() {
        let table = [
            (None, None, None, (1, 1, 1, Acks::All)),
            (Some(1), None, None, (1, 0, 1, Acks::All)),
            (Some(2), None, None, (2, 0, 0, Acks::Majority)),
            (Some(0), None, None, (0, 0, 0, Acks::All)),
            (Some(3), None, None, (3, 0, 1, Acks::Majority)),
            (Some(4), None, None, (4, 0, 0, Acks::Majority)),
            (None, Some(2), None, (1, 2, 1, Acks::All)),
            (None, None, Some(1), (1, 0, 1, Acks::All)),
            (Some(0), Some(1), None, (0, 1, 0, Acks::All)),
            (Some(2), Some(1), Some(2), (2, 1, 2, Acks::Majority)),
        ];
        for (sync, asynchronous, witness, expected) in table {
            let Layout {
                sync: s,
                asynchronous: a,
                witness: w,
                acks,
                ..
            } = resolve(sync, asynchronous, witness);
            assert_eq!(
                (s, a, w, acks),
                expected,
                "{sync:?} {asynchronous:?} {witness:?}"
            );
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let asked = |sync, witness| Asked {
            sync: Some(sync),
            witness: Some(witness),
            ..Asked::default()
        };
        let protected = Asked {
            protection: Some(Protection::MaxProtection),
            ..asked(0, 0)
        };
        let high = Asked {
            port: Some(65_530),
            ..Asked::default()
        };
        let table = [
            (asked(1, 0), "2 voters can neither fail over nor remove"),
            (asked(2, 1), "4 voters"),
            (asked(5, 1), "7 voters"),
            (asked(u32::MAX, 0), "at most 32 nodes"),
            (protected, "two copies at least"),
            (high, "need the ports"),
        ];
        for (asked, expected) in table {
            let failure = Layout::resolve(&asked).expect_err(expected);
            assert_eq!(failure.code, ExitCode::Usage);
            assert!(failure.message.contains(expected), "{failure}");
        }
    }

    #[test]
    fn a_second_start_takes_what_is_there_and_refuses_something_else() {
        let stored = resolve(Some(2), None, None);
        assert_eq!(
            stored.reconcile(&Asked::default()).expect("nothing asked"),
            stored
        );
        let same = Asked {
            sync: Some(2),
            port: Some(7600),
            ..Asked::default()
        };
        assert_eq!(stored.reconcile(&same).expect("the same"), stored);
        let others = [
            Asked {
                sync: Some(1),
                ..Asked::default()
            },
            Asked {
                asynchronous: Some(1),
                ..same
            },
            Asked {
                port: Some(7700),
                ..Asked::default()
            },
            Asked {
                acks: Some(Acks::All),
                ..Asked::default()
            },
            Asked {
                protection: Some(Protection::MaxPerformance),
                ..Asked::default()
            },
        ];
        for other in others {
            let failure = stored.reconcile(&other).expect_err("something else");
            assert_eq!(failure.code, ExitCode::Exists, "{failure}");
        }
    }

    #[test]
    fn nodes_stand_in_order_at_their_ports_and_their_settings_are_valid() {
        let layout = resolve(None, None, None);
        let dir = Path::new("/d");
        let roles: Vec<_> = (0..4)
            .map(|node| layout.first_role(node).as_str())
            .collect();
        assert_eq!(roles, ["primary", "sync-backup", "async-backup", "witness"]);
        for node in 0..4 {
            let settings = layout.settings(dir, node, ClusterId(7));
            assert_eq!(crate::config::check(&settings), Vec::<String>::new());
            let port = 7600 + 10 * node as u16;
            assert_eq!(settings.client_listen.port(), port);
            assert_eq!(settings.peer_listen.port(), port + 1);
            assert_eq!(settings.http_listen.port(), port + 2);
            assert_eq!(settings.peers.len(), 3);
        }
    }

    #[test]
    fn with_proxies_nobody_is_told_where_a_node_listens() {
        let asked = Asked {
            peer_proxies: true,
            ..Asked::default()
        };
        let plan = Plan::new(Layout::resolve(&asked).expect("valid")).expect("random numbers");
        let settings = plan.layout.settings(Path::new("/d"), 1, ClusterId(7));
        assert_eq!(settings.peer_listen.port(), 7611);
        let told: Vec<u16> = settings.peers.iter().map(|peer| peer.peer.port()).collect();
        assert_eq!(told, [7603, 7623, 7633]);
        let (config, _) = plan.first_members(Path::new("/d")).expect("random numbers");
        assert_eq!(config.members[&NodeId(1)].addresses.peer, "127.0.0.1:7613");
    }

    #[test]
    fn all_nodes_get_one_config_that_names_their_incarnations() {
        let plan = Plan::new(resolve(None, None, None)).expect("random numbers");
        let (config, incarnations) = plan.first_members(Path::new("/d")).expect("random numbers");
        assert_eq!(config.members.len(), 4);
        assert_eq!(config.sync_set.len(), 2);
        assert_eq!(config.voters.len(), 3);
        assert_eq!(config.members[&NodeId(2)].role, MemberRole::Asynchronous);
        assert_eq!(config.members[&NodeId(3)].addresses.peer, "127.0.0.1:7631");
        for (id, member) in &config.members {
            assert_eq!(member.incarnation, incarnations[id]);
        }
    }
}
