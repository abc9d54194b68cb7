//! Random walks through the small world: faults of every kind, clients that write and read, and
//! then peace, in which the cluster must serve again by itself.

use super::world::{Dice, Faults, Shape, World};
use crate::replication::config::{Acks, MemberRole, Protection};
use crate::replication::*;
use standfast_wal::{Lsn, NodeId, Record};
use std::collections::BTreeSet;
use std::time::Duration;

const MS: u64 = 1_000_000;

/// What one seed's world looks like.
#[derive(Debug)]
struct Plan {
    shape: Shape,
    faults: Faults,
    /// Per mille per tick of 10 ms.
    crash: u64,
    pause: u64,
    partition: u64,
    wipe: u64,
    damage: u64,
    compact: u64,
    order: u64,
    /// A forced promotion, at most one in a run.
    force: u64,
    write: u64,
    read: u64,
    ticks: u64,
}

fn plan(dice: &mut Dice) -> Plan {
    let shapes = [
        (2, 0, 1),
        (2, 0, 1),
        (2, 1, 1),
        (3, 0, 0),
        (3, 1, 0),
        (3, 0, 2),
        (3, 0, 2),
        (3, 0, 2),
        (5, 0, 0),
        (4, 0, 1),
        (1, 1, 0),
        (1, 0, 0),
    ];
    let (data, asynchronous, witnesses) = shapes[dice.below(shapes.len() as u64) as usize];
    let acks = if dice.chance(500) {
        Acks::All
    } else {
        Acks::Majority
    };
    let protection = match dice.below(6) {
        0 if data > 1 => Protection::MaxProtection,
        1 => Protection::MaxPerformance,
        _ => Protection::MaxAvailability,
    };
    let some = |dice: &mut Dice, most: u64| {
        if dice.chance(600) {
            dice.below(most)
        } else {
            0
        }
    };
    Plan {
        shape: Shape {
            data,
            asynchronous,
            witnesses,
            acks,
            protection,
        },
        faults: Faults {
            lose: some(dice, 100),
            double: some(dice, 100),
            slow: some(dice, 60),
            slow_ms: 1 + dice.below(600),
            delay_us: 50 + dice.below(3000),
            sync_us: 50 + dice.below(8000),
            slow_sync: some(dice, 30),
            spite: some(dice, 80),
        },
        crash: some(dice, 30),
        pause: some(dice, 15),
        partition: some(dice, 15),
        wipe: some(dice, 6),
        damage: some(dice, 6),
        compact: some(dice, 40),
        order: some(dice, 10),
        force: if dice.chance(200) { 3 } else { 0 },
        write: 100 + dice.below(800),
        read: dice.below(500),
        ticks: 200 + dice.below(1200),
    }
}

/// Times as in production, or near to each other, so that their orders differ.
fn settings(dice: &mut Dice) -> Settings {
    let ms =
        |dice: &mut Dice, from: u64, to: u64| Duration::from_millis(from + dice.below(to - from));
    let usual = dice.chance(300);
    let settings = Settings {
        window_bytes: 1200,
        message_bytes: 400,
        tail_bytes: 1500,
        join_bytes: 2000,
        hold_down_max: Duration::from_secs(4),
        ..Settings::default()
    };
    if usual {
        return settings;
    }
    Settings {
        heartbeat_interval: ms(dice, 10, 60),
        failover_timeout: ms(dice, 80, 600),
        sync_timeout: ms(dice, 50, 6000),
        join_timeout: ms(dice, 100, 3000),
        fence_grace: ms(dice, 1, 150),
        stagger: ms(dice, 1, 60),
        attempt_timeout: ms(dice, 200, 1500),
        hold_down: ms(dice, 1, 1000),
        ..settings
    }
}

struct Run {
    world: World,
    plan: Plan,
    /// The one node whose disk was lost or damaged and that is not back to full value yet.
    ailing: Option<NodeId>,
    tickets: u64,
    forced: bool,
}

impl Run {
    fn pick(&mut self) -> NodeId {
        let ids = self.world.ids();
        ids[self.world.dice.below(ids.len() as u64) as usize]
    }

    /// The newest Config that anybody knows to be chosen.
    fn newest(&self) -> Config {
        let metas = self
            .world
            .sites
            .values()
            .map(|site| site.disk.meta.config.clone());
        let running = self.world.ids().into_iter().filter_map(|id| {
            self.world
                .replica(id)
                .map(|replica| replica.meta().config.clone())
        });
        let newest = metas
            .chain(running)
            .max_by_key(|config| (config.history, config.version));
        Config::clone(&newest.expect("every node knows one"))
    }

    /// Whether the disk that was lost counts as a whole one again, or for nothing.
    fn recovered(&self, id: NodeId) -> bool {
        let config = self.newest();
        let site = &self.world.sites[&id];
        let Some(replica) = self.world.replica(id) else {
            return false;
        };
        let whole = !replica.meta().suspect && !site.disk.suspect;
        whole && config.names(id, site.disk.meta.incarnation) && replica.primary().is_some()
    }

    /// Nobody was taken out by an order.
    fn is_complete(&self) -> bool {
        self.newest().members.len() == self.world.ids().len()
    }

    fn tick(&mut self) {
        let plan = &self.plan;
        let (crash, pause, partition) = (plan.crash, plan.pause, plan.partition);
        let (wipe, damage, compact, order) = (plan.wipe, plan.damage, plan.compact, plan.order);
        let (write, read, force) = (plan.write, plan.read, plan.force);
        for id in self.world.ids() {
            if self.world.sites[&id].process.is_none() && self.world.dice.chance(40) {
                self.world.start(id);
            }
        }
        if self.world.dice.chance(crash) {
            let id = self.pick();
            if self.world.dice.chance(500) {
                self.world.crash(id)
            } else {
                self.world.lose_unsynced(id)
            }
            if self.world.dice.chance(300) {
                self.world.start(id); // At once.
            }
        }
        if self.world.dice.chance(pause) {
            let id = self.pick();
            let wait = self.world.dice.below(2500) * MS;
            self.world.pause(id, wait);
        }
        if self.world.dice.chance(partition) {
            let side: BTreeSet<NodeId> = self
                .world
                .ids()
                .into_iter()
                .filter(|_| self.world.dice.chance(400))
                .collect();
            self.world.partition(&side);
        }
        if self.world.dice.chance(partition * 2) {
            self.world.heal();
        }
        if self.ailing.is_some_and(|id| self.recovered(id)) {
            self.ailing = None;
        }
        if self.ailing.is_none()
            && !self.forced
            && self.is_complete()
            && self.world.dice.chance(wipe)
        {
            self.lose_a_disk();
        }
        if self.ailing.is_none()
            && !self.forced
            && self.is_complete()
            && self.world.dice.chance(damage)
        {
            self.damage_a_log();
        }
        if self.world.dice.chance(compact) {
            let id = self.pick();
            self.world.compact(id);
        }
        if self.world.dice.chance(order) {
            self.give_order();
        }
        if !self.forced && self.world.dice.chance(force) {
            self.force();
        }
        if self.forced && self.world.dice.chance(30) {
            self.rejoin();
        }
        for id in self.world.ids() {
            if self.world.dice.chance(write) {
                let count = 1 + self.world.dice.below(3) as u32;
                let _ = self.world.propose(id, count);
            }
            if self.world.dice.chance(read) {
                let _ = self.world.read(id);
            }
        }
        let wait = self.world.dice.below(20 * MS);
        self.world.run(Duration::from_nanos(wait));
    }

    /// No change of the Config is under way anywhere: what is not chosen yet may be, and may make a
    /// disk count for more than it does now.
    fn is_calm(&self, config: &Config) -> bool {
        let newest = |meta: &Meta| {
            let voted = meta.acceptor.accepted.as_ref();
            let voted = voted.map_or(0, |vote| vote.proposal.value.version);
            meta.config.version == config.version && voted <= config.version
        };
        let disks = self
            .world
            .sites
            .values()
            .all(|site| newest(&site.disk.meta));
        let processes = self.world.ids().iter().all(|id| {
            let replica = self.world.replica(*id);
            replica.is_some_and(|replica| newest(replica.meta()) && !replica.is_changing())
        });
        disks && processes && self.world.serving().len() == 1
    }

    /// I1 holds while fewer than acks_needed disks of the sync set are lost, and fewer than half
    /// of the voters have lost their memory.
    fn lose_a_disk(&mut self) {
        let id = self.pick();
        let config = self.newest();
        let holders = config.sync_set.len().min(config.acks_needed as usize);
        let tolerable = !config.sync_set.contains(&id) || holders >= 2;
        let voter = config.voters.contains(&id) && config.voters.len() < 3;
        let calm = self.is_calm(&config);
        if tolerable && !voter && calm && !config.members[&id].role.eq(&MemberRole::Witness) {
            self.world.wipe(id);
            self.ailing = Some(id);
        }
    }

    fn damage_a_log(&mut self) {
        let id = self.pick();
        let config = self.newest();
        let calm = self.is_calm(&config);
        if config.members[&id].role.holds_data()
            && calm
            && config.acks_needed >= 2
            && config.sync_set.len() >= 2
        {
            let lost = self.world.dice.below(4) as usize;
            self.world.damage(id, lost);
            self.ailing = Some(id);
        }
    }

    fn give_order(&mut self) {
        let Some(id) = self.world.serving().first().copied() else {
            return;
        };
        self.tickets += 1;
        let members = self.newest().members;
        let others: Vec<NodeId> = members.keys().copied().collect();
        let other = others[self.world.dice.below(others.len() as u64) as usize];
        let missing = self
            .world
            .ids()
            .into_iter()
            .find(|id| !members.contains_key(id));
        let order = match self.world.dice.below(10) {
            0 => Order::SetAcks(Acks::All),
            1 => Order::SetAcks(Acks::Majority),
            2 => Order::Switchover { to: None },
            3 => Order::SetProtection(self.plan.shape.protection),
            4 => Order::SetProtection(Protection::MaxAvailability),
            5 if members[&other].role.holds_data() && members.len() > 3 => {
                Order::RemoveMember { id: other }
            }
            5..=7 => match missing {
                Some(id) => self.add_back(id),
                None => Order::SetAcks(self.plan.shape.acks),
            },
            _ => Order::Switchover { to: Some(other) },
        };
        let ticket = self.tickets;
        self.world.input(id, Input::Operator { ticket, order });
    }

    /// An operator makes some backup the primary of a new history.
    fn force(&mut self) {
        let id = self.pick();
        let Some(replica) = self.world.replica(id) else {
            return;
        };
        if replica.is_primary() || !self.is_complete() {
            return;
        }
        self.forced = true;
        self.tickets += 1;
        let ignore_old_primary = self.world.dice.chance(500);
        let order = Order::ForcePromote { ignore_old_primary };
        let ticket = self.tickets;
        self.world.input(id, Input::Operator { ticket, order });
    }

    /// An operator gives up the old history at all nodes that know that it has ended.
    fn rejoin(&mut self) {
        for id in self.world.ids() {
            let Some(replica) = self.world.replica(id) else {
                continue;
            };
            if replica.fence().history != replica.history() || replica.is_stranger() {
                self.tickets += 1;
                let (ticket, order) = (self.tickets, Order::Rejoin);
                self.world.input(id, Input::Operator { ticket, order });
            }
        }
    }

    fn add_back(&self, id: NodeId) -> Order {
        let mut member = self.world.first.members[&id].clone();
        member.incarnation = self.world.sites[&id].disk.meta.incarnation;
        let voter = self.world.first.voters.contains(&id);
        Order::AddMember { id, member, voter }
    }

    /// After the faults end the cluster serves again by itself.
    fn converge(&mut self) {
        self.world.faults.lose = 0;
        self.world.faults.double = 0;
        self.world.faults.slow = 0;
        self.world.faults.slow_sync = 0;
        self.world.faults.spite = 0;
        // What was on its way to happen happens yet.
        self.world.run(Duration::from_secs(4));
        self.world.heal();
        for id in self.world.ids() {
            self.world.resume(id);
            self.world.start(id);
        }
        let mut last = Lsn::ZERO;
        for round in 0..4000 {
            self.world.run(Duration::from_millis(25));
            if round % 40 == 0 && !self.is_complete() {
                self.rejoin();
                self.bring_back();
            }
            if last == Lsn::ZERO {
                let primary = self.world.serving().first().copied();
                if let Some(Ok(lsn)) = primary.map(|id| self.world.propose(id, 1)) {
                    last = lsn;
                }
            } else if self.is_whole(last) {
                return;
            } else if round % 400 == 0 {
                last = Lsn::ZERO;
            }
        }
        let nodes: Vec<String> = self
            .world
            .ids()
            .iter()
            .filter_map(|id| self.world.replica(*id))
            .map(|replica| {
                format!(
                    "{replica} {:?} {:?}",
                    replica.admit(),
                    replica.peers(Time(
                        self.world.now + self.world.offset_of(replica.meta().node)
                    ))
                )
            })
            .collect();
        panic!("no convergence:\n{}", nodes.join("\n"));
    }

    fn bring_back(&mut self) {
        let members = self.newest().members;
        let missing = self
            .world
            .ids()
            .into_iter()
            .find(|id| !members.contains_key(id));
        let (Some(id), Some(primary)) = (missing, self.world.serving().first().copied()) else {
            return;
        };
        self.tickets += 1;
        let (ticket, order) = (self.tickets, self.add_back(id));
        self.world.input(primary, Input::Operator { ticket, order });
    }

    /// One primary; all data nodes have committed `last`; the sync set is what it should be.
    fn is_whole(&self, last: Lsn) -> bool {
        let serving = self.world.serving();
        let config = self.newest();
        let data = |id: &NodeId| config.members[id].role.holds_data();
        let set = match config.protection {
            Protection::MaxPerformance => 1,
            _ => config
                .members
                .values()
                .filter(|m| m.role == MemberRole::Data)
                .count(),
        };
        serving.len() == 1
            && self.is_complete()
            && config.sync_set.len() >= set
            && self.world.ids().iter().filter(|id| data(id)).all(|id| {
                let replica = self.world.replica(*id);
                replica.is_some_and(|replica| replica.commit() >= last)
            })
    }
}

/// What a run has reached, for the judge of vacuity.
#[derive(Default, Debug)]
pub struct Reached {
    seeds: u64,
    promotions: u64,
    cuts: u64,
    installs: u64,
    reads: u64,
    committed: u64,
}

fn run_seed(seed: u64, reached: &mut Reached, trace: bool) {
    let mut dice = Dice(seed);
    let plan = plan(&mut dice);
    let settings = settings(&mut dice);
    let mut world = World::new(dice.roll(), plan.shape, settings, plan.faults);
    if trace {
        println!("{plan:?}");
        world.print = true;
    }
    for id in world.ids() {
        world.start(id);
    }
    let ticks = plan.ticks;
    let mut run = Run {
        world,
        plan,
        ailing: None,
        tickets: 0,
        forced: false,
    };
    for _ in 0..ticks {
        run.tick();
    }
    run.converge();
    reached.seeds += 1;
    reached.promotions += run.world.promotions;
    reached.cuts += run.world.cuts;
    reached.installs += run.world.installs;
    reached.reads += run.world.reads_done;
    let truths = run.world.pasts.values().map(|past| past.truth.last());
    let committed = truths.flatten().map(|record: &Record| record.last_lsn().0);
    reached.committed += committed.sum::<u64>();
}

/// `STANDFAST_SEEDS=from..to` runs more; `STANDFAST_SEED=n` runs one and prints what happened.
#[test]
fn random_walks_keep_every_invariant_and_end_in_peace() {
    let number = |text: &str| text.trim().parse::<u64>().expect("a number");
    let seeds = match std::env::var("STANDFAST_SEEDS") {
        Ok(range) => {
            let (from, to) = range.split_once("..").expect("from..to");
            number(from)..number(to)
        }
        Err(_) => 0..25,
    };
    let mut reached = Reached::default();
    if let Ok(seed) = std::env::var("STANDFAST_SEED") {
        return run_seed(number(&seed), &mut reached, true);
    }
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_seed(seed, &mut reached, false);
        }));
        assert!(result.is_ok(), "seed {seed} failed");
    }
    println!("{reached:?}");
    let Reached {
        seeds,
        promotions,
        cuts,
        installs,
        reads,
        committed,
    } = reached;
    assert!(
        promotions > seeds && cuts > 0 && installs > 0 && reads > seeds && committed > seeds,
        "vacuous: {promotions} promotions, {cuts} cuts, {installs} installs, {reads} reads"
    );
}
