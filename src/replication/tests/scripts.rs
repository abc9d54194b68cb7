//! Goldenscripts: one scenario per file, title = the property. Time is exact: a message takes one
//! millisecond, a sync half of one.
//!
//! Commands: `world data= async= witness= acks= protection=`, `start`, `crash`, `lose-power`,
//! `pause`, `resume`, `wipe`, `damage ID RECORDS`, `drop-log` (each with ids), `isolate ID…` (from
//! all others), `mute FROM TO`, `heal`, `run TIME [register]`, `propose ID [COUNT]`, `read ID`,
//! `order ID what [args]`, `answers`, `status`. `UPDATE_GOLDENFILES=1` rewrites the outputs: commit
//! a changed script only if you can say why.

use super::world::{Faults, Shape, World};
use crate::replication::config::{Acks, Addresses, Member, MemberRole, Protection};
use crate::replication::*;
use goldenscript::{Argument, Command, Runner};
use standfast_wal::{Incarnation, NodeId};
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

#[derive(Default)]
struct Stage {
    world: Option<World>,
    orders: u64,
    answered: usize,
    reads: Vec<(NodeId, ReadTicket)>,
}

type Said = Result<String, Box<dyn Error>>;

impl Stage {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("begin with `world`")
    }

    fn set_up(&mut self, command: &Command) -> Said {
        let mut args = command.consume_args();
        let acks = match args.lookup_parse::<String>("acks")?.as_deref() {
            Some("majority") => Acks::Majority,
            _ => Acks::All,
        };
        let protection = match args.lookup_parse::<String>("protection")?.as_deref() {
            Some("max-protection") => Protection::MaxProtection,
            Some("max-performance") => Protection::MaxPerformance,
            _ => Protection::MaxAvailability,
        };
        let shape = Shape {
            data: args.lookup_parse("data")?.unwrap_or(2),
            asynchronous: args.lookup_parse("async")?.unwrap_or(0),
            witnesses: args.lookup_parse("witness")?.unwrap_or(0),
            acks,
            protection,
        };
        args.reject_rest()?;
        let mut world = World::new(1, shape, Settings::default(), Faults::NONE);
        world.trace = Some(Vec::new());
        self.answered = 0;
        self.reads.clear();
        self.world = Some(world);
        Ok(String::new())
    }

    /// Runs, and tells what happened; the register's messages only when asked for.
    fn run_for(&mut self, text: &str, register: bool) -> Said {
        let wait = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
            (Some(ms), _) => Duration::from_millis(ms.parse()?),
            (_, Some(s)) => Duration::from_secs(s.parse()?),
            _ => return Err(format!("{text} is no time").into()),
        };
        self.world().run(wait);
        Ok(self.take_trace(register))
    }

    fn take_trace(&mut self, register: bool) -> String {
        let lines = self.world().trace.replace(Vec::new()).unwrap_or_default();
        let shown = lines
            .iter()
            .filter(|line| register || !line.contains(" Register "));
        let quiet = |line: &&String| !line.contains("AskConfig") && !line.contains("Configured");
        let mut out = String::new();
        for line in shown.filter(|line| register || quiet(line)) {
            writeln!(out, "{line}").expect("a string takes it");
        }
        out
    }

    fn order(&mut self, args: &[&Argument]) -> Said {
        let word = |i: usize| args.get(i).map(|arg| arg.value.as_str());
        let id = NodeId(args[0].parse()?);
        let other = || -> Result<NodeId, Box<dyn Error>> {
            Ok(NodeId(args.get(2).ok_or("an id is missing")?.parse()?))
        };
        let order = match word(1).ok_or("an order is missing")? {
            "switchover" => Order::Switchover {
                to: word(2).map(|id| id.parse().map(NodeId)).transpose()?,
            },
            "force" => Order::ForcePromote {
                ignore_old_primary: word(2) == Some("ignore"),
            },
            "rejoin" => Order::Rejoin,
            "remove" => Order::RemoveMember { id: other()? },
            "add" => {
                let member = Member {
                    incarnation: Incarnation(u128::from(other()?.0) << 64),
                    role: MemberRole::Data,
                    site: String::new(),
                    priority: 0,
                    addresses: Addresses::default(),
                };
                let voter = word(3) == Some("voter");
                Order::AddMember {
                    id: other()?,
                    member,
                    voter,
                }
            }
            "acks" if word(2) == Some("majority") => Order::SetAcks(Acks::Majority),
            "acks" => Order::SetAcks(Acks::All),
            "protection" => Order::SetProtection(match word(2) {
                Some("max-protection") => Protection::MaxProtection,
                Some("max-performance") => Protection::MaxPerformance,
                _ => Protection::MaxAvailability,
            }),
            what => return Err(format!("{what} is no order").into()),
        };
        self.orders += 1;
        let ticket = self.orders;
        self.world().input(id, Input::Operator { ticket, order });
        Ok(self.take_trace(false))
    }

    fn answers(&mut self) -> String {
        let from = self.answered;
        let answers = self.world().answers[from..].to_vec();
        self.answered += answers.len();
        let mut out = String::new();
        for (ticket, result) in answers {
            let text = result.unwrap_or_else(|why| why.to_string());
            writeln!(out, "order {ticket}: {text}").expect("a string takes it");
        }
        out
    }

    fn status(&mut self) -> String {
        let mut out = String::new();
        let world = self.world();
        for id in world.ids() {
            match world.replica(id) {
                Some(replica) => writeln!(out, "{replica}"),
                None => writeln!(out, "n{id} is down"),
            }
            .expect("a string takes it");
        }
        out
    }

    fn confirmed(&mut self) -> String {
        let mut out = String::new();
        for (id, ticket) in std::mem::take(&mut self.reads) {
            let replica = self.world().replica(id);
            let done = replica.is_some_and(|r| r.is_primary() && r.confirmed() >= ticket.round);
            let word = if done {
                "may be answered"
            } else {
                "waits, or is void"
            };
            writeln!(out, "n{id} read at {}: {word}", ticket.after).expect("a string takes it");
            if !done {
                self.reads.push((id, ticket));
            }
        }
        out
    }
}

impl Runner for Stage {
    fn run(&mut self, command: &Command) -> Said {
        if command.name == "world" {
            return self.set_up(command);
        }
        let mut args = command.consume_args();
        let words = args.rest_pos();
        let ids = || -> Result<Vec<NodeId>, Box<dyn Error>> {
            words.iter().map(|arg| Ok(NodeId(arg.parse()?))).collect()
        };
        let first =
            || -> Result<NodeId, Box<dyn Error>> { Ok(*ids()?.first().ok_or("an id is missing")?) };
        match command.name.as_str() {
            "start" => ids()?.into_iter().for_each(|id| self.world().start(id)),
            "crash" => ids()?.into_iter().for_each(|id| self.world().crash(id)),
            "lose-power" => ids()?
                .into_iter()
                .for_each(|id| self.world().lose_unsynced(id)),
            "pause" => ids()?
                .into_iter()
                .for_each(|id| self.world().pause(id, 1 << 50)),
            "resume" => ids()?.into_iter().for_each(|id| self.world().resume(id)),
            "wipe" => ids()?.into_iter().for_each(|id| self.world().wipe(id)),
            "drop-log" => ids()?.into_iter().for_each(|id| self.world().compact(id)),
            "damage" => {
                let lost = words[1].parse()?;
                self.world().damage(NodeId(words[0].parse()?), lost);
            }
            "isolate" => {
                let side: BTreeSet<NodeId> = ids()?.into_iter().collect();
                self.world().partition(&side);
            }
            "mute" => {
                let (from, to) = (ids()?[0], ids()?[1]);
                self.world().cut_links.insert((from, to));
                self.world().all_link_news();
            }
            "heal" => self.world().heal(),
            "run" => {
                let register = words.len() > 1;
                return self.run_for(&words[0].value, register);
            }
            "propose" => {
                let count = words.get(1).map_or(Ok(1), |arg| arg.parse())?;
                let id = NodeId(words[0].parse()?);
                let result = self.world().propose(id, count);
                let trace = self.take_trace(false);
                return Ok(match result {
                    Ok(lsn) => format!("n{id} orders {lsn}\n{trace}"),
                    Err(why) => format!("n{id} refuses: {why}\n{trace}"),
                });
            }
            "read" => {
                let id = first()?;
                match self.world().read(id) {
                    Ok(ticket) => self.reads.push((id, ticket)),
                    Err(why) => return Ok(format!("n{id} refuses: {why}\n")),
                }
            }
            "reads" => return Ok(self.confirmed()),
            "order" => return self.order(&words),
            "answers" => return Ok(self.answers()),
            "status" => return Ok(self.status()),
            "forecast" => {
                let id = first()?;
                let text = self
                    .world()
                    .replica(id)
                    .map(|replica| replica.forecast().text);
                return Ok(text.unwrap_or_default() + "\n");
            }
            name => return Err(format!("{name} is no command").into()),
        }
        Ok(String::new())
    }
}

fn run(name: &str) {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/replication/scripts/");
    let path = format!("{dir}{name}");
    goldenscript::run(&mut Stage::default(), path).expect("the script can be read and run");
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/replication/scripts");
            let known = BTreeSet::from([$(stringify!($name).to_string()),*]);
            let there = std::fs::read_dir(dir).expect("the scripts are there").map(|entry| {
                entry.expect("readable").file_name().to_string_lossy().into_owned()
            });
            assert_eq!(there.collect::<BTreeSet<_>>(), known);
        }
    };
}

scripts! {
    a_write_is_committed_when_enough_of_the_sync_set_hold_it
    a_backup_takes_over_when_the_primary_dies
    a_paused_primary_is_replaced_and_serves_nothing_afterwards
    a_returning_primary_cuts_what_was_never_committed
    a_candidate_copies_what_the_better_log_has
    a_candidate_shrinks_the_set_only_to_holders_of_its_log
    a_change_counts_on_nobody_who_is_silent
    a_change_is_not_made_for_copies_that_are_lost
    a_change_is_not_made_when_the_lost_are_back
    a_joining_member_that_loses_its_disk_is_not_taken_in
    a_change_of_voters_is_not_made_on_promises_of_the_lost
    a_suspect_log_counts_as_absent_until_it_is_verified
    two_candidates_race_and_one_wins
    until_a_change_is_known_both_rules_hold
    a_member_joins_only_with_the_floor
    in_max_protection_nothing_commits_alone
    a_switchover_loses_nothing_and_needs_no_timeout
    a_forced_promotion_founds_a_new_history
    a_node_that_hears_of_a_new_history_by_its_config_alone_can_rejoin
    a_backup_behind_the_log_gets_a_snapshot
    a_fenced_primary_confirms_no_read
    a_copy_is_added_before_the_epoch_is_committed
    figure_8
    a_deaf_primary_keeps_nobody_quiet
    a_node_alone_serves_at_once
    an_empty_disk_is_taken_in_as_a_new_member
    all_other_disks_of_a_set_may_be_lost_at_once
    members_come_and_go_by_order
    the_only_voter_keeps_its_vote
}
