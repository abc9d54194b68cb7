//! Faults of every kind on a running cluster, drawn by a seed.
//!
//! Each begins on a whole cluster and is undone after seconds; it never takes a disk, and what it
//! takes away it gives back, so nothing acknowledged may be lost whatever it does. Most leave the
//! majority of the voters and enough of the sync set in touch, so that service goes on; the few
//! that do not say so (`Kind::stops_service`).

use crate::cluster::{Cluster, PATIENCE};
use crate::poll::{until, until_moment};
use crate::proxy::Mode;
use crate::random::Random;
use crate::spec::{Node, Spec};
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// SIGKILL; started again later.
    KillPrimary,
    KillBackup,
    /// A witness or an asynchronous backup.
    KillOther,
    /// The primary, and its successor as soon as it serves.
    KillTwice,
    KillAll,
    /// One node killed and started again several times in a second or two.
    RestartStorm,
    /// SIGSTOP; SIGCONT later.
    PausePrimary,
    PauseBackup,
    PauseOther,
    PauseAll,
    /// The primary is parted from every other node.
    IsolatePrimary,
    /// The primary hears nothing, but is heard.
    DeafPrimary,
    /// The primary is not heard, but hears.
    MutePrimary,
    IsolateBackup,
    /// Only the link between the primary and one backup.
    CutLink,
    /// As `CutLink`, in one direction.
    CutOneWay,
    /// Everything the primary says and hears is late, or passes at a trickle.
    SlowPrimary,
    /// Every link breaks, each at some byte of its stream.
    BreakLinks,
    /// Every direction of every link gets a fault of its own.
    Scramble,
    /// A fault of the links, and in the middle of it one of a process.
    PileUp,
    /// No fault, but it too must lose nothing: the planned change of primary.
    Switchover,
}

use Kind::*;

/// Faults of links that can be undone by healing.
const LINKS: [Kind; 9] = [
    IsolatePrimary,
    DeafPrimary,
    MutePrimary,
    IsolateBackup,
    CutLink,
    CutOneWay,
    SlowPrimary,
    BreakLinks,
    Scramble,
];

/// Faults of one process.
const PROCESSES: [Kind; 6] = [
    KillPrimary,
    KillBackup,
    KillOther,
    PausePrimary,
    PauseBackup,
    PauseOther,
];

/// Everything else.
const OTHERS: [Kind; 6] = [
    KillTwice,
    KillAll,
    RestartStorm,
    PauseAll,
    PileUp,
    Switchover,
];

impl Kind {
    /// Every kind that can be done to such a cluster.
    pub fn all(spec: &Spec) -> Vec<Kind> {
        let all = LINKS.into_iter().chain(PROCESSES).chain(OTHERS);
        all.filter(|kind| kind.applies(spec)).collect()
    }

    fn applies(self, spec: &Spec) -> bool {
        match self {
            KillOther | PauseOther => spec.asynchronous + spec.witness > 0,
            // With two copies nobody is left who may take over the second time.
            KillTwice => spec.sync >= 2,
            _ => spec.sync >= 1,
        }
    }

    /// Whether nobody can serve, by design, until it is undone. `PileUp` may or may not.
    pub fn stops_service(self) -> bool {
        matches!(self, KillAll | PauseAll)
    }

    pub fn name(self) -> &'static str {
        match self {
            KillPrimary => "kill primary",
            KillBackup => "kill backup",
            KillOther => "kill witness/async",
            KillTwice => "kill primary and successor",
            KillAll => "kill all",
            RestartStorm => "restart storm",
            PausePrimary => "pause primary",
            PauseBackup => "pause backup",
            PauseOther => "pause witness/async",
            PauseAll => "pause all",
            IsolatePrimary => "isolate primary",
            DeafPrimary => "deaf primary",
            MutePrimary => "mute primary",
            IsolateBackup => "isolate backup",
            CutLink => "cut primary-backup",
            CutOneWay => "cut primary-backup one way",
            SlowPrimary => "slow primary links",
            BreakLinks => "break links",
            Scramble => "scramble links",
            PileUp => "pile-up",
            Switchover => "switchover",
        }
    }
}

/// One fault that was done.
#[derive(Clone, Debug)]
pub struct Incident {
    pub kind: Kind,
    pub began: Instant,
    /// When everything that was taken was given back.
    pub undone: Instant,
    /// What exactly was done.
    pub story: String,
}

/// What undoes what was begun.
enum Undo {
    Restart(Node),
    Resume(Node),
    Heal,
}

/// Who is who when a fault begins.
struct Scene {
    primary: Node,
    backups: Vec<Node>,
    others: Vec<Node>,
    all: Vec<Node>,
}

/// Does faults to one cluster.
pub struct Chaos<'a> {
    pub cluster: &'a mut Cluster,
    spec: Spec,
    random: Random,
    kinds: Vec<Kind>,
    /// Kinds still to come before any comes again.
    deck: Vec<Kind>,
}

impl Chaos<'_> {
    pub fn new(cluster: &mut Cluster, kinds: Vec<Kind>, seed: u64) -> Chaos<'_> {
        assert!(!kinds.is_empty(), "no kind of fault to do");
        Chaos {
            spec: cluster.spec().clone(),
            kinds,
            cluster,
            random: Random::new(seed),
            deck: Vec::new(),
        }
    }

    /// The next kind: each comes once before any comes again.
    pub fn draw(&mut self) -> Kind {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
        }
        let at = self.random.below(self.deck.len() as u64) as usize;
        self.deck.swap_remove(at)
    }

    /// Does it, lets it last, and gives back what it took.
    pub fn hurt(&mut self, kind: Kind) -> Incident {
        let scene = self.scene();
        let mut story = format!("node {} is primary", scene.primary.id);
        let began = Instant::now();
        match kind {
            KillTwice => self.kill_twice(&scene),
            KillAll => self.kill_all(&scene),
            RestartStorm => self.restart_storm(&scene, &mut story),
            Switchover => self.switch_over(&scene, &mut story),
            PauseAll => {
                scene.all.iter().for_each(|node| self.cluster.pause(node));
                self.last(300, 3000);
                scene.all.iter().for_each(|node| self.cluster.resume(node));
            }
            PileUp => self.pile_up(&scene, &mut story),
            one => {
                let undo = self.begin(one, &scene, &mut story);
                self.last(200, 5000);
                self.undo(undo);
            }
        }
        Incident {
            kind,
            began,
            undone: Instant::now(),
            story,
        }
    }

    /// Waits until every node runs and every synchronous backup is in the sync set again; panics
    /// when that does not come about by itself.
    pub fn settle(&mut self) {
        let wanted = self.spec.sync as usize + 1;
        let what = "all nodes run and all synchronous backups are back";
        until(what, 2 * PATIENCE, || {
            for node in self.cluster.nodes() {
                let ended = self.cluster.exited(&node);
                assert!(
                    ended.is_none(),
                    "node {} ended by itself: {ended:?}",
                    node.id
                );
            }
            // What the primary says: cluster.json is a moment behind.
            let primary = self.cluster.try_primary()?;
            let status = self.cluster.status(&primary);
            let all_up = status["members"]
                .as_array()?
                .iter()
                .all(|member| member["up"] == true);
            let in_set = status["sync_set"].as_array()?.len();
            (all_up && in_set == wanted && status["serving"] == true).then_some(())
        });
    }

    /// Lets the cluster be for a while.
    pub fn calm(&mut self, least_ms: u64, most_ms: u64) {
        self.last(least_ms, most_ms);
    }

    fn scene(&mut self) -> Scene {
        let primary = self.cluster.primary();
        let all = self.cluster.nodes();
        let of = |sync: bool| -> Vec<Node> {
            let rest = all.iter().filter(|node| node.id != primary.id);
            rest.filter(|node| (node.number() <= self.spec.sync) == sync)
                .cloned()
                .collect()
        };
        Scene {
            backups: of(true),
            others: of(false),
            primary,
            all,
        }
    }

    fn last(&mut self, least_ms: u64, most_ms: u64) {
        let time = least_ms + self.random.below(most_ms - least_ms);
        until_moment(Instant::now() + Duration::from_millis(time));
    }

    fn pick(&mut self, nodes: &[Node]) -> Node {
        nodes[self.random.below(nodes.len() as u64) as usize].clone()
    }

    fn begin(&mut self, kind: Kind, scene: &Scene, story: &mut String) -> Undo {
        let victim = match kind {
            KillBackup | PauseBackup | IsolateBackup | CutLink | CutOneWay => {
                self.pick(&scene.backups)
            }
            KillOther | PauseOther => self.pick(&scene.others),
            _ => scene.primary.clone(),
        };
        story.push_str(&format!("; {} at node {}", kind.name(), victim.id));
        match kind {
            KillPrimary | KillBackup | KillOther => {
                self.cluster.kill(&victim);
                Undo::Restart(victim)
            }
            PausePrimary | PauseBackup | PauseOther => {
                self.cluster.pause(&victim);
                Undo::Resume(victim)
            }
            _ => {
                self.hurt_links(kind, scene, &victim, story);
                Undo::Heal
            }
        }
    }

    fn hurt_links(&mut self, kind: Kind, scene: &Scene, victim: &Node, story: &mut String) {
        let cut = [Mode::Hold, Mode::Vanish, Mode::Break][self.random.below(3) as usize];
        let (primary, at) = (scene.primary.number(), victim.number());
        let there = self.random.below(2) == 0;
        let slow = if there {
            Mode::Delay(Duration::from_millis(10 + self.random.below(140)))
        } else {
            Mode::Throttle(20_000 + self.random.below(400_000))
        };
        let ways = scene.all.iter().flat_map(|from| {
            let others = scene.all.iter().filter(|to| to.id != from.id);
            others.map(|to| (from.number(), to.number()))
        });
        let ways: Vec<(u32, u32)> = ways.collect();
        let proxy = self.cluster.proxy();
        match kind {
            IsolatePrimary | IsolateBackup => proxy.isolate(at, cut),
            DeafPrimary => proxy.to_node(at, cut),
            MutePrimary => proxy.from_node(at, cut),
            CutLink => proxy.between(primary, at, cut),
            CutOneWay if there => proxy.set(primary, at, cut),
            CutOneWay => proxy.set(at, primary, cut),
            SlowPrimary => proxy.isolate(at, slow),
            BreakLinks => {
                for (from, to) in ways {
                    let bytes = self.random.below(20_000);
                    proxy.set(from, to, Mode::BreakAfter(bytes));
                }
            }
            Scramble => {
                for (from, to) in ways {
                    let mode = any_mode(&mut self.random);
                    proxy.set(from, to, mode);
                }
            }
            other => unreachable!("{other:?} is no fault of links"),
        }
        match kind {
            SlowPrimary => story.push_str(&format!(": {slow:?}")),
            BreakLinks | Scramble => {}
            CutOneWay if there => story.push_str(&format!(": what it hears, {cut:?}")),
            CutOneWay => story.push_str(&format!(": what it says, {cut:?}")),
            _ => story.push_str(&format!(": {cut:?}")),
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Restart(node) => self.cluster.restart(&node),
            Undo::Resume(node) => self.cluster.resume(&node),
            Undo::Heal => self.cluster.proxy().heal(),
        }
    }

    fn kill_twice(&mut self, scene: &Scene) {
        let first = &scene.primary;
        self.cluster.kill(first);
        let second = until("a successor serves", PATIENCE, || {
            self.cluster
                .try_primary()
                .filter(|node| node.id != first.id)
        });
        self.cluster.restart(first);
        self.cluster.kill(&second);
        self.last(200, 4000);
        self.cluster.restart(&second);
    }

    fn kill_all(&mut self, scene: &Scene) {
        self.cluster.kill_all(&scene.all);
        let mut down = scene.all.clone();
        while !down.is_empty() {
            let at = self.random.below(down.len() as u64) as usize;
            let node = down.swap_remove(at);
            self.cluster.restart(&node);
            self.last(1, 300);
        }
    }

    fn restart_storm(&mut self, scene: &Scene, story: &mut String) {
        let victim = self.pick(&scene.all);
        story.push_str(&format!("; node {} again and again", victim.id));
        for _ in 0..5 {
            self.cluster.kill(&victim);
            self.last(1, 200);
            self.cluster.restart(&victim);
            self.last(1, 600);
        }
    }

    fn pile_up(&mut self, scene: &Scene, story: &mut String) {
        let link = LINKS[self.random.below(LINKS.len() as u64) as usize];
        let fitting: Vec<Kind> = PROCESSES
            .into_iter()
            .filter(|kind| kind.applies(&self.spec))
            .collect();
        let process = fitting[self.random.below(fitting.len() as u64) as usize];
        let heal = self.begin(link, scene, story);
        self.last(1, 1500);
        let back = self.begin(process, scene, story);
        self.last(1, 2500);
        if self.random.below(2) == 0 {
            self.undo(heal);
            self.last(1, 1500);
            self.undo(back);
        } else {
            self.undo(back);
            self.last(1, 1500);
            self.undo(heal);
        }
    }

    fn switch_over(&mut self, scene: &Scene, story: &mut String) {
        let reply = self.cluster.connect(&scene.primary).call(&["FAILOVER"]);
        match reply {
            Ok(reply) if reply.refusal().is_none() => {}
            other => story.push_str(&format!("; {other:?}")),
        }
    }
}

fn any_mode(random: &mut Random) -> Mode {
    match random.below(8) {
        0 => Mode::Hold,
        1 => Mode::Vanish,
        2 => Mode::BreakAfter(random.below(5000)),
        3 => Mode::Delay(Duration::from_millis(random.below(300))),
        4 => Mode::Throttle(10_000 + random.below(200_000)),
        _ => Mode::Pass,
    }
}
