//! `restore`: a ready data directory from a backup, at an exact point in time, proved on the way;
//! or, without one, answers from that point.

mod activate;
mod before;
mod directory;
mod kept;
mod query;
mod rebuild;
mod show;
mod target;
#[cfg(test)]
mod tests;

pub use activate::{Activate, activate};
pub use before::Created;
pub use directory::make;
pub use target::Aim;

use super::backup::{Keys, choose_cluster, open_store};
use super::exit::{ExitCode, Failure, Outcome};
use super::random;
use super::settings::Settings;
use crate::node::meta::RestoredNode;
use crate::node::open::state_limits;
use crate::node::run::now;
use crate::replication::config::{Addresses, Member, MemberRole};
use crate::state::{Digest, Limits, SEGMENT_SHIFT, State};
use directory::Building;
use kept::{Kept, Spared};
use rebuild::{Broken, rebuild};
pub use rebuild::{Progress, Rebuilt, Tally};
use standfast_snapshot::catalogue::GivenUp;
use standfast_snapshot::plan::{Plan, Point, Unmet};
use standfast_snapshot::{Catalogue, Error, Identities, Shared, catalogue, plan, search};
use standfast_wal::{Ancestor, ClusterId, History, Incarnation, Link, Lsn, NodeId, Nonce};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use target::{parse_history, unmet};

/// Makes a data directory from a backup, as it was at an exact point.
///
/// The restored node is alone in a new generation of the history: it cannot join or disturb the
/// cluster that the backup is of, and refuses writes until it is activated. What was fetched from
/// an object store is kept until all is there: if it is interrupted, give the same command again.
/// With --query nothing is made: questions are answered as they would have been at that point.
#[derive(clap::Args, Debug)]
pub struct Restore {
    /// The archive: a directory, file:///DIR, s3://BUCKET/PREFIX, gs://… or az://…
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// The data directory to make, which must not hold anything; with --config the setting
    /// `data_dir` by default
    #[arg(long, value_name = "DIR", required_unless_present_any = ["query", "config"])]
    to: Option<PathBuf>,
    /// latest, lsn:N (the state right after LSN N), time:RFC3339 (every command up to then), or
    /// before:TRANSFER_ID (right before the command that created this transfer)
    #[arg(long, value_parser = target::parse, default_value = "latest")]
    target: Aim,
    /// A command that only reads, such as "ACCOUNT.GET 1", to be answered from that point instead;
    /// several times for several
    #[arg(long, value_name = "COMMAND",
          conflicts_with_all = ["to", "config", "node", "activate"])]
    query: Vec<String>,
    /// Which cluster, where the archive has several
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    /// Which history (GENERATION-ID as `backup list` shows it); the newest by default
    #[arg(long, value_name = "HISTORY", value_parser = parse_history)]
    history: Option<History>,
    /// The settings file of the node that will serve the directory: its number and addresses
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The number of that node, where no settings file says it [default: 1]
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    node: Option<u32>,
    /// Let it take writes at once; refused where the cluster that the backup is of seems to live
    #[arg(long)]
    activate: bool,
    /// Activate although that cluster seems to be alive: it is stopped for good, or this copy is
    /// never going to write to its archive
    #[arg(long, requires = "activate")]
    ignore_old_cluster: bool,
    /// Threads that load and compress; as many as there are processors by default
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    keys: Keys,
    #[arg(long)]
    json: bool,
}

/// Which past, of which archive.
pub struct Source {
    pub from: Shared,
    pub target: Aim,
    /// Who opens what is encrypted.
    pub identities: Identities,
    pub cluster: Option<ClusterId>,
    pub history: Option<History>,
    pub threads: usize,
    /// Transfers of a segment, as a power of two, in the directories that the archive is of.
    pub segment_shift: u32,
}

/// A past state, proved, and what is known around it.
pub struct Past {
    cluster: ClusterId,
    listed: Catalogue,
    pub plan: Plan,
    /// The transfer that the target is right before.
    before: Option<Created>,
    pub rebuilt: Rebuilt,
    passed_over: Vec<String>,
}

/// Which data directory to make from what.
pub struct Order {
    pub source: Source,
    pub to: PathBuf,
    /// Who will serve it. Its incarnation is the new directory's.
    pub node: NodeId,
    pub member: Member,
    pub activate: bool,
    /// Keep what is fetched from afar until all is there, for another attempt.
    pub resumable: bool,
    /// Random: the new history's id and the nonce of its first Config.
    pub history_id: u128,
    pub nonce: Nonce,
}

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    pub cluster: ClusterId,
    pub cluster_name: String,
    /// The history that was read.
    pub source: History,
    /// The one that begins here.
    pub history: History,
    pub link: Link,
    /// The transfer that the target was right before.
    pub before: Option<Created>,
    pub digest: Digest,
    pub keys: u64,
    pub tally: Tally,
    /// The newest point that the backup is known to hold.
    pub newest: Point,
    /// What is damaged or gone and would have led there: another way did.
    pub passed_over: Vec<String>,
    pub file_bytes: u64,
    /// What an interrupted attempt had fetched.
    pub spared: Spared,
    pub quarantined: bool,
}

impl Source {
    fn limits(&self, cluster: ClusterId) -> Limits {
        Limits {
            segment_shift: self.segment_shift,
            ..state_limits(cluster)
        }
    }

    /// Reads and proves it; nothing is written. What is damaged is done without, where another way
    /// leads to the same state.
    pub fn read(&self, on_progress: &mut dyn FnMut(Progress)) -> Result<Past, Failure> {
        let cluster = choose_cluster(&self.from, self.cluster)?;
        let unread = |error: Error| Failure::new(ExitCode::Failed, error.to_string());
        let all = || catalogue::read(&self.from, cluster).map_err(unread);
        let (mut listed, mut planned) = match self.target {
            Aim::At(target) => {
                let found = search(&self.from, cluster, self.history, target);
                let (listed, plan) = found.map_err(unread)?;
                (listed, Some(plan))
            }
            Aim::Before(_) => (all()?, None),
        };
        let mut given_up: BTreeMap<String, (GivenUp, Failure)> = BTreeMap::new();
        let mut replaced: BTreeSet<String> = BTreeSet::new();
        loop {
            let broken = match self.attempt(&listed, planned, on_progress) {
                Ok((plan, before, rebuilt)) => {
                    let passed_over = passed_over(&listed, &plan, rebuilt.link.position.lsn);
                    return Ok(Past {
                        cluster,
                        listed,
                        plan,
                        before,
                        rebuilt,
                        passed_over,
                    });
                }
                Err(broken) => broken,
            };
            let failure = broken.failure;
            let Some(path) = broken.object.filter(|path| !given_up.contains_key(path)) else {
                return Err(no_other_way(given_up, failure));
            };
            self.from.forget(&path);
            // What was replaced since it was listed, or since it was kept, is looked at once more.
            if !(broken.is_other && replaced.insert(path.clone())) {
                let one = listed.given_up(&path, &failure.message);
                given_up.insert(path, (one, failure));
            }
            (listed, planned) = (all()?, None);
            given_up.values().for_each(|(one, _)| listed.give_up(one));
        }
    }

    fn attempt(
        &self,
        listed: &Catalogue,
        planned: Option<Result<Plan, Unmet>>,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<(Plan, Option<Created>, Rebuilt), Broken> {
        let before = match self.target {
            Aim::At(_) => None,
            Aim::Before(id) => Some(before::find(self, listed, id, on_progress)?),
        };
        let plan = planned.unwrap_or_else(|| plan(listed, self.history, self.target.at(before)));
        let plan = plan.map_err(unmet)?;
        let rebuilt = rebuild(self, listed.cluster, &plan, on_progress)?;
        Ok((plan, before, rebuilt))
    }
}

impl Past {
    /// A node of a new history that goes on from here, which gets these random numbers.
    pub fn node(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        id: u128,
        nonce: Nonce,
    ) -> RestoredNode {
        let listed = &self.listed;
        let generations = listed.histories.iter().map(|e| e.history.generation);
        let generation = generations.max().unwrap_or(0) + 1;
        RestoredNode {
            cluster: self.cluster,
            cluster_name: listed.cluster_name.clone(),
            node,
            incarnation,
            history: History { generation, id },
            ancestors: ancestors(&self.plan, self.rebuilt.link.position.lsn),
            link: self.rebuilt.link,
            epochs: self.rebuilt.epochs.clone(),
            nonce,
            quarantined: true,
        }
    }
}

/// What was damaged says more than that nothing is left without it; but where another way could not
/// be tried, that is what has to be mended.
fn no_other_way(given_up: BTreeMap<String, (GivenUp, Failure)>, last: Failure) -> Failure {
    let Some((_, first)) = given_up.into_values().next() else {
        return last;
    };
    if last.code == ExitCode::Failed {
        let hint = format!(
            "it was on another way around damage: {}. {}",
            first.message, last.hint
        );
        return last.hint(hint);
    }
    let hint = format!("nothing else leads there: {}. {}", last.message, last.hint);
    first.hint(hint)
}

/// What would have led there, and is damaged or gone: the newest snapshot, perhaps.
fn passed_over(listed: &Catalogue, plan: &Plan, reached: Lsn) -> Vec<String> {
    let start = plan.snapshot.as_ref().map(|one| one.link.position.lsn);
    let start = start.unwrap_or(Lsn::ZERO);
    let is_of_it =
        |history| plan.history == history || plan.ancestors.iter().any(|a| a.history == history);
    let entries = listed.histories.iter().filter(|e| is_of_it(e.history));
    let unreadable = entries.flat_map(|entry| &entry.unreadable);
    let on_the_way = unreadable.filter(|one| {
        one.lsns
            .is_some_and(|(first, last)| last > start && first <= reached)
    });
    let mut reasons: Vec<String> = on_the_way.map(|one| one.reason.clone()).collect();
    reasons.dedup();
    reasons
}

/// A past state, proved, in memory and nowhere else.
pub fn past_state(source: &Source) -> Result<State, Failure> {
    let past = source.read(&mut |_| ())?;
    Ok(past.rebuilt.state)
}

/// Restores. Nothing is left at the target unless all of it is whole and durable; and beside it
/// only what was fetched, for another attempt.
pub fn restore(
    mut order: Order,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Restored, Failure> {
    let keeps = order.resumable && order.source.from.is_far();
    let mut building = Building::begin(&order.to, keeps)?;
    let kept = keeps.then(|| Kept::new(order.source.from.clone(), building.fetched()));
    if let Some(kept) = &kept {
        order.source.from = kept.clone();
    }
    let past = order.source.read(on_progress);
    let past = past.map_err(|failure| building.failed(failure))?;
    let new = RestoredNode {
        quarantined: !order.activate,
        ..past.node(
            order.node,
            order.member.incarnation,
            order.history_id,
            order.nonce,
        )
    };
    let history = new.history;
    let Past {
        cluster,
        listed,
        plan,
        before,
        mut rebuilt,
        passed_over,
    } = past;
    let raw_bytes = rebuilt.state.used_bytes();
    on_progress(Progress::Writing { raw_bytes });
    let file_bytes = building.fill(&mut rebuilt, new, order.member, order.source.threads)?;
    building.publish()?;
    Ok(Restored {
        cluster,
        cluster_name: listed.cluster_name,
        source: plan.history,
        history,
        link: rebuilt.link,
        before,
        digest: rebuilt.state.digest(),
        keys: rebuilt.state.keys(),
        tally: rebuilt.tally,
        newest: plan.newest,
        passed_over,
        file_bytes,
        spared: kept.map_or(Spared::default(), |kept| kept.spared()),
        quarantined: !order.activate,
    })
}

/// That nothing is encrypted which no key was given for, before anything is made.
fn check_keys(plan: &Plan, source: &Source) -> Result<(), Failure> {
    let snapshot = plan.snapshot.iter().map(|s| (&s.path, s.recipients));
    let log = plan.steps.iter().map(|s| (&s.path, s.head.recipients));
    let sealed = snapshot.chain(log).find_map(|(path, id)| Some((path, id?)));
    match sealed {
        Some((path, id)) if source.identities.is_empty() => {
            Err(refused(&Error::sealed(&source.from.place(path), id)))
        }
        _ => Ok(()),
    }
}

/// What is wrong with an object, and what to do.
fn refused(error: &Error) -> Failure {
    let text = error.to_string();
    match error.locked_to() {
        // Nothing was learnt of the archive; what was fetched is good for another attempt.
        None if error.is_unanswered() => Failure::new(ExitCode::Failed, text),
        None => Failure::new(ExitCode::Damaged, text),
        Some(_) => Failure::new(ExitCode::Failed, text).hint(
            "name the age identity file of one of its recipients with --identity FILE; after a \
             change of keys, one that holds the old ones and the new",
        ),
    }
}

/// What the new history forked from: the one that was read, and its own ancestors, none of them
/// beyond the point restored.
fn ancestors(plan: &Plan, lsn: Lsn) -> Vec<Ancestor> {
    let own = Ancestor::at(plan.history, lsn);
    let older = plan.ancestors.iter().map(|past| past.up_to(&own));
    older.chain([own]).collect()
}

pub fn run(args: &Restore) -> Outcome {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let source = || -> Result<Source, Failure> {
        Ok(Source {
            from: open_store(&args.from)?,
            identities: args.keys.read()?,
            target: args.target,
            cluster: args.cluster,
            history: args.history,
            threads: args.threads.unwrap_or_else(processors).max(1),
            segment_shift: SEGMENT_SHIFT,
        })
    };
    let mut line = show::Line::new(std::io::stderr().is_terminal() && !args.json);
    if !args.query.is_empty() {
        let questions = query::parse(&args.query)?;
        let past = source()?.read(&mut |progress| line.show(progress));
        line.end();
        return query::answer(&past?, &questions, args.json);
    }
    let order = order(args, source()?)?;
    if args.activate && !args.ignore_old_cluster {
        activate::refuse_beside_a_living_cluster(&order.source, now().wall)?;
    }
    let to = order.to.clone();
    let restored = restore(order, &mut |progress| line.show(progress));
    let seconds = line.end();
    let restored = restored?;
    if args.json {
        println!("{}", show::as_json(&restored, &to, seconds));
    } else {
        print!("{}", show::as_text(&restored, &to, seconds));
    }
    Ok(ExitCode::Done)
}

fn order(args: &Restore, source: Source) -> Result<Order, Failure> {
    let incarnation = Incarnation(random::id()?);
    let (node, member, data_dir) = match &args.config {
        Some(file) => {
            let settings = Settings {
                file: Some(file.clone()),
                flags: Vec::new(),
            };
            let config = settings.load()?.config;
            let member = super::create::member_of(&config, incarnation);
            (config.node, member, Some(config.data_dir))
        }
        None => (
            NodeId(args.node.unwrap_or(1)),
            Member {
                incarnation,
                role: MemberRole::Data,
                site: String::new(),
                priority: 100,
                addresses: Addresses::default(),
            },
            None,
        ),
    };
    let to = args.to.clone().or(data_dir);
    Ok(Order {
        source,
        to: to.expect("clap asks for one of the two"),
        node,
        member,
        activate: args.activate,
        resumable: true,
        history_id: random::id()?,
        nonce: Nonce(random::id()?),
    })
}
