//! `backup now`: asks a running node for a snapshot and the committed log in an archive.

use super::connect::{Node, Target};
use super::exit::{ExitCode, Failure, Outcome};
use super::operate::{Reason, readable};
use crate::config::{Config, Sources};
use crate::node::status::{MemberStatus, Role, Status};
use std::path::PathBuf;
use std::time::Duration;

/// How long a backup may take.
const BACKUP: Duration = Duration::from_secs(6 * 3600);
/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// Puts a snapshot and the committed log into an archive.
#[derive(clap::Args, Debug)]
pub struct Now {
    #[command(flatten)]
    target: Target,
    /// A directory on the node's machine, or a URL as for `backup list`; with --config the setting
    /// `backup_dir` by default
    #[arg(long, value_name = "PLACE", required_unless_present = "config")]
    to: Option<String>,
    #[command(flatten)]
    reason: Reason,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Now) -> Outcome {
    let to = place(args)?;
    let (mut node, answer) = args.target.any()?;
    // A node that was named is asked itself; else a backup, so that the primary does not pay.
    let named = !args.target.node.is_empty() || args.target.config.is_some();
    if let (false, Some(member)) = (named, choose(&answer.status)) {
        node = Node::open(&member.client, CONNECT)?;
    }
    let [_, who, ..] = args.reason.words()?;
    let done = node.ask(&["BACKUP", &to, "WHO", &who], BACKUP)?;
    if args.json {
        println!("{done}");
    } else {
        println!("backed up to {to} by {}: {}", node.address, readable(&done));
    }
    Ok(ExitCode::Done)
}

/// Where to, in words that the node reads as we do: it may run in another directory.
fn place(args: &Now) -> Result<String, Failure> {
    let dir = match (&args.to, &args.target.config) {
        (Some(url), _) if url.contains("://") => return Ok(url.clone()),
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(file)) => {
            let sources = Sources::with_environment(Some(file.clone()), Vec::new());
            Config::load(&sources)?.config.backup_dir()
        }
        (None, None) => unreachable!("--to is required unless --config is given"),
    };
    Ok(std::path::absolute(dir)?.display().to_string())
}

/// The node that pays least for a backup: a synchronous backup, an asynchronous one, the primary.
fn choose(status: &Status) -> Option<&MemberStatus> {
    let cost = |member: &&MemberStatus| match member.role {
        Role::SyncBackup => 0,
        Role::AsyncBackup => 1,
        Role::Primary | Role::Witness => 2,
    };
    let up = status
        .members
        .iter()
        .filter(|member| member.up && member.role != Role::Witness);
    up.min_by_key(cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_up_pays_before_the_primary() {
        let member = |role, up| MemberStatus {
            role,
            up,
            ..MemberStatus::default()
        };
        let choose_from = |members: Vec<MemberStatus>| {
            let status = Status {
                members,
                ..Status::default()
            };
            choose(&status).map(|member| member.role)
        };
        let (primary, witness) = (member(Role::Primary, true), member(Role::Witness, true));
        let lost = member(Role::SyncBackup, false);
        let far = member(Role::AsyncBackup, true);
        let near = member(Role::SyncBackup, true);
        assert_eq!(
            choose_from(vec![primary.clone(), far.clone(), near]),
            Some(Role::SyncBackup)
        );
        assert_eq!(
            choose_from(vec![primary.clone(), lost.clone(), far]),
            Some(Role::AsyncBackup)
        );
        assert_eq!(
            choose_from(vec![witness.clone(), primary, lost]),
            Some(Role::Primary)
        );
        assert_eq!(choose_from(vec![witness]), None);
    }
}
