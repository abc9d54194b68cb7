//! `switchover`, `promote`, `rejoin`, `member`, `set`: what an operator asks of a running cluster.

use super::connect::{Node, Target};
use super::create;
use super::exit::{ExitCode, Failure, Outcome};
use super::settings::Settings;
use crate::config::{Config, Value};
use crate::limits;
use crate::replication::config::MemberRole;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

/// Who does it and why: it stands in the log for ever.
#[derive(clap::Args, Clone, Debug)]
pub struct Reason {
    /// Who asks; the name of the user by default
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

impl Reason {
    fn who(&self) -> String {
        let user = || {
            std::env::var("USER")
                .or_else(|_| std::env::var("LOGNAME"))
                .ok()
        };
        self.by
            .clone()
            .or_else(user)
            .unwrap_or_else(|| "operator".to_owned())
    }

    /// `WHO who WHY why`, as the end of a `STANDFAST` command.
    pub fn words(&self) -> Result<[String; 4], Failure> {
        let who = self.who();
        if who.len() > limits::NAME_BYTES_MAX || self.why.len() > limits::REASON_BYTES_MAX {
            return Err(Failure::new(
                ExitCode::Usage,
                format!(
                    "--by takes at most {} bytes, --why {}",
                    limits::NAME_BYTES_MAX,
                    limits::REASON_BYTES_MAX
                ),
            ));
        }
        Ok(["WHO".to_owned(), who, "WHY".to_owned(), self.why.clone()])
    }
}

/// Makes another node primary, without losing anything and without an error at clients that wait.
#[derive(clap::Args, Debug)]
pub struct Switchover {
    #[command(flatten)]
    target: Target,
    /// The node to make primary; the best one by default
    #[arg(long, value_name = "ID")]
    to: Option<u32>,
    #[command(flatten)]
    reason: Reason,
    /// How long to wait for it
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
    #[arg(long)]
    json: bool,
}

/// Makes a node primary of a new history when the primary's site is gone for good; may lose data.
#[derive(clap::Args, Debug)]
pub struct Promote {
    #[command(flatten)]
    target: Target,
    /// Required: this is not a switchover
    #[arg(long, required = true)]
    force: bool,
    /// Confirm with the cluster's name instead of being asked
    #[arg(long, value_name = "CLUSTER")]
    yes: Option<String>,
    /// Go on even if a node of the old history still answers as primary
    #[arg(long)]
    ignore_old_primary: bool,
    #[command(flatten)]
    reason: Reason,
    #[arg(long)]
    json: bool,
}

/// Takes a running node of an older history into the newer one; what differs is kept beside.
#[derive(clap::Args, Debug)]
pub struct Rejoin {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    reason: Reason,
    #[arg(long)]
    json: bool,
}

/// Adds, removes and lists the nodes of a cluster
#[derive(clap::Subcommand, Debug)]
pub enum Member {
    /// Take a node into the cluster that does not join by itself; run where its data directory is
    Add {
        #[command(flatten)]
        settings: Box<Settings>,
        /// The client address of a node of the cluster that is running
        #[arg(long, value_name = "HOST:PORT", required = true)]
        at: Vec<String>,
        /// Let it vote; asynchronous nodes never do
        #[arg(long)]
        voter: bool,
        #[command(flatten)]
        reason: Reason,
        #[arg(long)]
        json: bool,
    },
    /// Remove a node from the cluster, running or not
    Remove {
        #[arg(value_name = "ID")]
        id: u32,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        reason: Reason,
        #[arg(long)]
        json: bool,
    },
    /// List the nodes of the cluster
    List {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        json: bool,
    },
}

/// Changes what an acknowledgement promises
#[derive(clap::Subcommand, Debug)]
pub enum Set {
    /// How many of the sync set must hold a write before it is acknowledged
    Acks {
        #[arg(value_parser = ["all", "majority"])]
        value: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        reason: Reason,
        #[arg(long)]
        json: bool,
    },
    /// What happens when a synchronous backup is lost
    Protection {
        #[arg(value_parser = ["max-protection", "max-availability", "max-performance"])]
        value: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        reason: Reason,
        #[arg(long)]
        json: bool,
    },
}

/// How long a change of the register may take.
const CHANGE: Duration = Duration::from_secs(30);

pub fn switchover(args: &Switchover) -> Outcome {
    let (mut node, _) = args.target.primary()?;
    let mut words = vec!["SWITCHOVER".to_owned()];
    if let Some(to) = args.to {
        words.extend(["TO".to_owned(), to.to_string()]);
    }
    words.extend(args.reason.words()?);
    tell(&mut node, &words, args.timeout, args.json, "switched over")
}

pub fn rejoin(args: &Rejoin) -> Outcome {
    // Asked of the very node that is to rejoin: nobody is followed.
    let (mut node, _) = args.target.any()?;
    let mut words = vec!["REJOIN".to_owned()];
    words.extend(args.reason.words()?);
    tell(&mut node, &words, CHANGE, args.json, "rejoins")
}

pub fn promote(args: &Promote) -> Outcome {
    assert!(args.force, "clap requires --force");
    // Asked of the very node that is to be primary: nobody is followed.
    let (mut node, answer) = args.target.any()?;
    let status = &answer.status;
    if status.takes_writes() {
        return Err(Failure::new(
            ExitCode::Refused,
            format!(
                "node {} at {} is primary and serves",
                status.node, node.address
            ),
        ));
    }
    let cluster = status.cluster_name.clone();
    // Without the cluster's name the node refuses and says what would be lost.
    let loss = match node.ask_plainly(&borrowed(&promotion(args, None)?), CHANGE)? {
        Ok(text) | Err(text) => text,
    };
    if !args.json {
        println!(
            "node {} at {}: {}",
            status.node,
            node.address,
            readable(loss.strip_prefix("ERR ").unwrap_or(&loss))
        );
    }
    confirm(&cluster, args.yes.as_deref(), "a forced promotion")?;
    let done = ask(&mut node, &promotion(args, Some(&cluster))?, CHANGE)?;
    print_answer(&done, args.json, "promoted by force");
    Ok(ExitCode::Done)
}

/// `PROMOTE [CONFIRM <name>] [IGNORE-OLD-PRIMARY] WHO … WHY …`
fn promotion(args: &Promote, confirm: Option<&str>) -> Result<Vec<String>, Failure> {
    let mut words = vec!["PROMOTE".to_owned()];
    if let Some(name) = confirm {
        words.extend(["CONFIRM".to_owned(), name.to_owned()]);
    }
    if args.ignore_old_primary {
        words.push("IGNORE-OLD-PRIMARY".to_owned());
    }
    words.extend(args.reason.words()?);
    Ok(words)
}

/// Goes on only if the cluster's name was given or is typed now.
pub fn confirm(cluster: &str, given: Option<&str>, what: &str) -> Result<(), Failure> {
    let typed = match given {
        Some(name) => name.to_owned(),
        None => ask_name(cluster, what)?,
    };
    if typed != cluster {
        return Err(Failure::new(
            ExitCode::Refused,
            format!("{typed:?} is not the cluster's name, {cluster:?}: nothing was changed"),
        ));
    }
    Ok(())
}

fn ask_name(cluster: &str, what: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            ExitCode::Refused,
            format!("{what} must be confirmed: nothing was changed"),
        )
        .hint(format!("add `--yes {cluster}`")));
    }
    print!("type the cluster's name ({cluster}) to go on: ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

pub fn member(command: &Member) -> Outcome {
    match command {
        Member::Add {
            settings,
            at,
            voter,
            reason,
            json,
        } => {
            let mut words = newcomer(&settings.load()?.config, *voter)?;
            words.extend(reason.words()?);
            let target = Target {
                node: at.clone(),
                config: None,
            };
            let (mut node, _) = target.primary()?;
            tell(&mut node, &words, CHANGE, *json, "member added")
        }
        Member::Remove {
            id,
            target,
            reason,
            json,
        } => {
            let (mut node, _) = target.primary()?;
            let mut words = vec!["MEMBER".to_owned(), "REMOVE".to_owned(), id.to_string()];
            words.extend(reason.words()?);
            tell(&mut node, &words, CHANGE, *json, "member removed")
        }
        Member::List { target, json } => super::status::list(target, *json),
    }
}

/// `MEMBER ADD id role incarnation client peer http SITE site PRIORITY n [VOTER]`
fn newcomer(config: &Config, voter: bool) -> Result<Vec<String>, Failure> {
    let dir = config.data_dir.display();
    let Some(own) = create::identity(&config.data_dir)? else {
        return Err(
            Failure::new(ExitCode::Settings, format!("{dir} holds no node"))
                .hint("`standfast join` makes it"),
        );
    };
    if voter && config.role == MemberRole::Asynchronous {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("node {} is asynchronous: it cannot vote", config.node),
        ));
    }
    let mut words = vec![
        "MEMBER".to_owned(),
        "ADD".to_owned(),
        own.node.to_string(),
        config.role.show(),
        own.incarnation.to_string(),
        config.client_address().to_string(),
        config.peer_address().to_string(),
        config.http_address().to_string(),
        "SITE".to_owned(),
        config.site.to_string(),
        "PRIORITY".to_owned(),
        config.priority.to_string(),
    ];
    words.extend(voter.then(|| "VOTER".to_owned()));
    Ok(words)
}

pub fn set(command: &Set) -> Outcome {
    let (name, value, target, reason, json) = match command {
        Set::Acks {
            value,
            target,
            reason,
            json,
        } => ("ACKS", value, target, reason, *json),
        Set::Protection {
            value,
            target,
            reason,
            json,
        } => ("PROTECTION", value, target, reason, *json),
    };
    let (mut node, _) = target.primary()?;
    let mut words = vec![name.to_owned(), value.clone()];
    words.extend(reason.words()?);
    tell(&mut node, &words, CHANGE, json, "set")
}

fn tell(node: &mut Node, words: &[String], timeout: Duration, json: bool, done: &str) -> Outcome {
    let answer = ask(node, words, timeout)?;
    print_answer(&answer, json, done);
    Ok(ExitCode::Done)
}

fn ask(node: &mut Node, words: &[String], timeout: Duration) -> Result<String, Failure> {
    node.ask(&borrowed(words), timeout)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn print_answer(answer: &str, json: bool, done: &str) {
    if json {
        println!("{answer}");
    } else {
        println!("{done}: {}", readable(answer));
    }
}

/// What was done, or a flat JSON object as `name value, name value`; anything else as it is.
pub fn readable(answer: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(answer) else {
        return answer.to_owned();
    };
    if let (Some(serde_json::Value::String(done)), 1) = (fields.get("done"), fields.len()) {
        return done.clone();
    }
    let plain = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let parts = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value)));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_node_cannot_be_added() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let refused = newcomer(&config, true).expect_err("no node");
        assert_eq!(refused.code, ExitCode::Settings);
    }

    #[test]
    fn an_answer_reads_as_a_sentence() {
        assert_eq!(readable("OK"), "OK");
        assert_eq!(
            readable(r#"{"done":"node 1 is primary"}"#),
            "node 1 is primary"
        );
        assert_eq!(
            readable(r#"{"primary":1,"pause_ms":12,"why":"drill"}"#),
            "pause ms 12, primary 1, why drill"
        );
    }

    #[test]
    fn a_reason_that_is_too_long_is_refused() {
        let reason = Reason {
            by: Some("me".to_owned()),
            why: "x".repeat(limits::REASON_BYTES_MAX + 1),
        };
        assert_eq!(reason.words().expect_err("too long").code, ExitCode::Usage);
        let reason = Reason {
            why: "drill".to_owned(),
            ..reason
        };
        assert_eq!(reason.words().expect("fits"), ["WHO", "me", "WHY", "drill"]);
    }
}
