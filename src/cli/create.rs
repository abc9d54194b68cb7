//! `init`, `join`: make a data directory with an identity.

use super::connect::Target;
use super::exit::{ExitCode, Failure, Outcome};
use super::random;
use super::settings::Settings;
use crate::config::{Config, MemberRole};
use crate::node::meta::{self, Identity, NewNode};
use crate::node::status::Status;
use crate::replication::config as register;
use standfast_wal::{ClusterId, Epoch, History, Incarnation, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Makes the first node of a new cluster; it serves alone until others join.
#[derive(clap::Args, Debug)]
pub struct Init {
    #[command(flatten)]
    settings: Settings,
    #[arg(long)]
    json: bool,
}

/// Makes one more node of a running cluster, which asks to be taken in once it is served.
#[derive(clap::Args, Debug)]
pub struct Join {
    #[command(flatten)]
    settings: Settings,
    /// The client address of a node of the cluster that is running
    #[arg(long, value_name = "HOST:PORT", required = true)]
    at: Vec<String>,
    /// Keep what the data directory holds beside, and join anew: for a node that is stopped and
    /// whose files are damaged
    #[arg(long)]
    afresh: bool,
    /// With --afresh: even though the cluster still counts on this node's copy
    #[arg(long, requires = "afresh")]
    give_up_copy: bool,
    #[arg(long)]
    json: bool,
}

pub fn init(args: &Init) -> Outcome {
    let config = args.settings.load()?.config;
    if config.role != MemberRole::Data {
        return Err(Failure::new(
            ExitCode::Settings,
            "the first node of a cluster holds data: `role` must be data",
        ));
    }
    refuse_data(&config.data_dir)?;
    let cluster = ClusterId(random::id()?);
    let incarnation = Incarnation(random::id()?);
    let member = member_of(&config, incarnation);
    let initial = first_config(
        BTreeMap::from([(config.node, member)]),
        register::Acks::All,
        register::Protection::MaxAvailability,
        Draws::new()?,
    );
    let new = NewNode {
        cluster,
        cluster_name: config.cluster.to_string(),
        node: config.node,
        incarnation,
        initial: Some(initial),
    };
    create(&config.data_dir, new)?;
    report(&config, cluster, incarnation, "a new cluster", args.json);
    Ok(ExitCode::Done)
}

pub fn join(args: &Join) -> Outcome {
    let config = args.settings.load()?.config;
    if !args.afresh {
        refuse_data(&config.data_dir)?;
    }
    let (cluster, view) = ask_cluster(&config, &args.at)?;
    if args.afresh {
        if !args.give_up_copy {
            refuse_counted(&config, &view)?;
        }
        let aside = set_aside(&config.data_dir)?;
        if let (Some(aside), false) = (aside, args.json) {
            println!("the old data is kept in {}", aside.display());
        }
    }
    let incarnation = Incarnation(random::id()?);
    create(&config.data_dir, joining(&config, cluster, incarnation))?;
    report(
        &config,
        cluster,
        incarnation,
        "a node that joins",
        args.json,
    );
    Ok(ExitCode::Done)
}

/// Refuses to give up a copy that the cluster counts on.
fn refuse_counted(config: &Config, view: &Status) -> Result<(), Failure> {
    // An identity that cannot be read may be any: then the cluster's word decides alone.
    let own = identity(&config.data_dir).ok().flatten();
    let counted = view.member(config.node).filter(|member| {
        own.as_ref()
            .is_none_or(|own| member.incarnation == own.incarnation.to_string())
    });
    let Some(member) = counted else {
        return Ok(());
    };
    Err(Failure::new(
        ExitCode::Refused,
        format!(
            "the cluster counts on node {} as {}: giving up its copy is losing a disk",
            config.node,
            member.role.as_str()
        ),
    )
    .hint(
        "start it: it repairs itself from its peers. If it refuses to start, and the other \
         copies are well (`standfast status`), add --give-up-copy",
    ))
}

fn joining(config: &Config, cluster: ClusterId, incarnation: Incarnation) -> NewNode {
    NewNode {
        cluster,
        cluster_name: config.cluster.to_string(),
        node: config.node,
        incarnation,
        initial: None,
    }
}

/// Asks a running node which cluster it is of; refuses one of another name.
fn ask_cluster(config: &Config, at: &[String]) -> Result<(ClusterId, Status), Failure> {
    let target = Target {
        node: at.to_vec(),
        config: None,
    };
    let view = match target.primary() {
        Ok((_, answer)) => answer.status,
        // Any node knows who the cluster is.
        Err(_) => target.any()?.1.status,
    };
    if view.cluster_name != config.cluster.as_str() {
        return Err(Failure::new(
            ExitCode::Settings,
            format!(
                "{} is of cluster {:?}, not {:?}",
                at.join(","),
                view.cluster,
                config.cluster
            ),
        )
        .hint("correct `cluster` or the address"));
    }
    let cluster = view.cluster.parse().map_err(|_| {
        Failure::new(
            ExitCode::Failed,
            format!("{:?} is no cluster identity", view.cluster),
        )
    })?;
    Ok((cluster, view))
}

/// Moves everything out of the way, into a directory beside that has never been there.
pub fn set_aside(dir: &Path) -> Result<Option<std::path::PathBuf>, Failure> {
    if !dir.exists() {
        return Ok(None);
    }
    super::dev::processes::refuse_running(dir)?;
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let aside = (1..)
        .map(|n| dir.with_file_name(format!("{name}.divergent-{n}")))
        .find(|path| !path.exists())
        .expect("some number is free");
    std::fs::rename(dir, &aside)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        rustix::fs::fsync(
            &rustix::fs::open(
                parent,
                rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
                rustix::fs::Mode::empty(),
            )
            .map_err(std::io::Error::from)?,
        )
        .map_err(std::io::Error::from)?;
        // Durable here: the old data lies beside, the directory is free.
    }
    Ok(Some(aside))
}

fn report(config: &Config, cluster: ClusterId, incarnation: Incarnation, what: &str, json: bool) {
    let dir = config.data_dir.display();
    if json {
        let made = serde_json::json!({
            "node": config.node, "cluster": config.cluster.as_str(),
            "cluster_id": cluster.to_string(), "incarnation": incarnation.to_string(),
            "data_dir": dir.to_string(),
        });
        println!("{made}");
        return;
    }
    println!(
        "{dir}: node {} of cluster {:?}, {what}",
        config.node,
        config.cluster.as_str()
    );
    println!("cluster_id = \"{cluster}\"");
    println!("next: `standfast serve` with the same settings");
}

/// The identity in a data directory, if there is a node in it.
pub fn identity(dir: &Path) -> Result<Option<Identity>, Failure> {
    meta::identity(dir).map_err(|error| {
        Failure::new(ExitCode::Damaged, error.to_string()).hint(
            "where other nodes hold the data, `standfast join --afresh` keeps this directory \
             beside and joins anew; else restore it from a backup",
        )
    })
}

/// Creates a data directory with an identity.
pub fn create(dir: &Path, new: NewNode) -> Result<(), Failure> {
    meta::create(dir, new)
        .map_err(|error| Failure::new(ExitCode::Failed, format!("{}: {error}", dir.display())))
}

/// Refuses a directory that holds anything: nothing is ever overwritten.
pub fn refuse_data(dir: &Path) -> Result<(), Failure> {
    let found = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().transpose()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        None => Ok(()),
        Some(entry) => Err(Failure::new(
            ExitCode::Exists,
            format!(
                "{} is not empty: it holds {:?}",
                dir.display(),
                entry.file_name()
            ),
        )
        .hint("`standfast serve` starts the node that is there; else name an empty `data_dir`")),
    }
}

/// What this node tells about itself in the register.
pub fn member_of(config: &Config, incarnation: Incarnation) -> register::Member {
    register::Member {
        incarnation,
        role: config.role,
        site: config.site.to_string(),
        priority: config.priority,
        addresses: config.addresses(),
    }
}

/// The random numbers of a cluster's first Config.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    pub history: u128,
    pub nonce: u128,
}

impl Draws {
    pub fn new() -> Result<Draws, Failure> {
        Ok(Draws {
            history: random::id()?,
            nonce: random::id()?,
        })
    }
}

/// The register's value before the first epoch: all data members are in the sync set (in
/// max-performance the primary alone), all but the asynchronous vote, and the data node with the
/// lowest id is named primary.
pub fn first_config(
    members: BTreeMap<NodeId, register::Member>,
    acks: register::Acks,
    protection: register::Protection,
    draws: Draws,
) -> register::Config {
    let with = |wanted: fn(MemberRole) -> bool| -> BTreeSet<NodeId> {
        members
            .iter()
            .filter(|(_, member)| wanted(member.role))
            .map(|(id, _)| *id)
            .collect()
    };
    let data = with(|role| role == MemberRole::Data);
    let voters = with(|role| role != MemberRole::Asynchronous);
    let primary = *data.first().expect("a cluster has a data node");
    let sync_set = match protection {
        register::Protection::MaxPerformance => BTreeSet::from([primary]),
        _ => data,
    };
    register::Config {
        history: History {
            generation: 1,
            id: draws.history,
        },
        ancestors: Vec::new(),
        epoch: Epoch(0),
        version: 1,
        nonce: Nonce(draws.nonce),
        primary,
        acks_needed: acks_needed(acks, protection, sync_set.len()),
        sync_set,
        acks,
        protection,
        members,
        voters,
    }
}

/// The effective number of acknowledgements for a sync set of `size`.
pub fn acks_needed(acks: register::Acks, protection: register::Protection, size: usize) -> u32 {
    let wanted = match acks {
        register::Acks::All => size,
        register::Acks::Majority => size / 2 + 1,
    };
    let least = match protection {
        register::Protection::MaxProtection => 2,
        _ => 1,
    };
    u32::try_from(wanted.max(least)).expect("a cluster has few members")
}

#[cfg(test)]
mod tests {
    use super::*;
    use register::{Acks, Protection};

    fn members(roles: &[MemberRole]) -> BTreeMap<NodeId, register::Member> {
        let member = |(id, role): (usize, &MemberRole)| {
            let config = Config {
                node: NodeId(id as u32),
                role: *role,
                ..Config::default()
            };
            (config.node, member_of(&config, Incarnation(id as u128 + 1)))
        };
        roles.iter().enumerate().map(member).collect()
    }

    #[test]
    fn a_first_config_has_the_sync_set_and_voters_that_roles_and_protection_ask_for() {
        let roles = [
            MemberRole::Data,
            MemberRole::Data,
            MemberRole::Asynchronous,
            MemberRole::Witness,
        ];
        let draws = Draws {
            history: 1,
            nonce: 2,
        };
        let make = |protection| first_config(members(&roles), Acks::All, protection, draws);
        let config = make(Protection::MaxAvailability);
        assert_eq!(config.sync_set, BTreeSet::from([NodeId(0), NodeId(1)]));
        assert_eq!(
            config.voters,
            BTreeSet::from([NodeId(0), NodeId(1), NodeId(3)])
        );
        assert_eq!((config.primary, config.acks_needed), (NodeId(0), 2));
        let alone = make(Protection::MaxPerformance);
        assert_eq!((alone.sync_set.len(), alone.acks_needed), (1, 1));
    }

    #[test]
    fn acknowledgements_needed_follow_policy_and_protection() {
        let table = [
            (Acks::All, Protection::MaxAvailability, 1, 1),
            (Acks::All, Protection::MaxAvailability, 2, 2),
            (Acks::All, Protection::MaxProtection, 1, 2),
            (Acks::Majority, Protection::MaxAvailability, 3, 2),
            (Acks::Majority, Protection::MaxAvailability, 5, 3),
            (Acks::Majority, Protection::MaxProtection, 1, 2),
        ];
        for (acks, protection, size, needed) in table {
            assert_eq!(
                acks_needed(acks, protection, size),
                needed,
                "{acks:?} {protection:?} {size}"
            );
        }
    }

    #[test]
    fn a_directory_that_holds_anything_is_refused() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        refuse_data(dir.path()).expect("empty");
        refuse_data(&dir.path().join("none")).expect("missing");
        std::fs::write(dir.path().join("x"), "").expect("a scratch file");
        assert_eq!(
            refuse_data(dir.path()).expect_err("not empty").code,
            ExitCode::Exists
        );
    }

    #[test]
    fn old_data_is_kept_beside_under_a_free_name() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let data = dir.path().join("data");
        for n in 1..3 {
            std::fs::create_dir(&data).expect("free");
            std::fs::write(data.join("x"), n.to_string()).expect("a scratch file");
            let aside = set_aside(&data)
                .expect("moved")
                .expect("there was something");
            assert_eq!(aside, dir.path().join(format!("data.divergent-{n}")));
            assert!(!data.exists());
        }
        assert_eq!(set_aside(&data).expect("nothing there"), None);
    }
}
