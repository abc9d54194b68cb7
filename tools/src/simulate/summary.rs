//! What a run or a batch of runs reached, and the digest that tells two runs apart.

use super::check::{keys, ledger};
use super::faults;
use super::node::Process;
use serde::Serialize;
use standfast_wal::mark::Mark;

/// What was reached.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Summary {
    pub events: u64,
    pub virtual_ns: u64,
    pub promotions: u64,
    pub cuts: u64,
    pub crashes: u64,
    pub starts_crashed: u64,
    pub snapshots_installed: u64,
    pub histories: u64,
    pub writes: u64,
    pub reads: u64,
    pub refused: u64,
    pub unknown: u64,
    pub outcomes: u64,
    pub receipts: u64,
    pub orders: u64,
    /// Rounds of archivers, and the objects that they put.
    pub archive_rounds: u64,
    pub archive_objects: u64,
    /// Messages of the core that came once more.
    pub doubled: u64,
    /// Objects that expired, and restores that came to an end.
    pub archive_expired: u64,
    pub restores: u64,
    /// Restored copies that were opened beside their cluster.
    pub copies_opened: u64,
    /// Runs that ended early, because a primary that lost its disk had just shrunk the sync set.
    pub beyond_promises: u64,
    /// Keys whose search for an order was given up.
    pub searches_given_up: u64,
    /// The longest that a cluster needed after the faults to serve and be whole again.
    pub slowest_heal_ns: u64,
    /// By place in `faults::ALL`.
    pub faults: Vec<u64>,
    /// By place in `Mark::ALL`.
    pub marks: Vec<u64>,
    /// By place in `check::ledger::RARE`.
    pub ledger: ledger::Counts,
    /// By place in `check::keys::RARE`.
    pub keys: keys::Counts,
}

fn add_each(to: &mut Vec<u64>, other: &[u64]) {
    to.resize(to.len().max(other.len()), 0);
    for (sum, more) in to.iter_mut().zip(other) {
        *sum += more;
    }
}

/// Counts that a batch need not reach.
const ALLOWED_NONE: [&str; 2] = ["keys not searched", "runs beyond the promises"];

impl Summary {
    /// So many snapshots replaced this process's state.
    pub fn installed(&mut self, count: u64, process: Option<&Process>) {
        self.snapshots_installed += count;
        if count > 0 {
            self.ledger.note_installed(process);
        }
    }

    pub fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.virtual_ns += other.virtual_ns;
        self.promotions += other.promotions;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.starts_crashed += other.starts_crashed;
        self.snapshots_installed += other.snapshots_installed;
        self.histories += other.histories;
        self.writes += other.writes;
        self.reads += other.reads;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.outcomes += other.outcomes;
        self.receipts += other.receipts;
        self.orders += other.orders;
        self.archive_rounds += other.archive_rounds;
        self.archive_objects += other.archive_objects;
        self.doubled += other.doubled;
        self.archive_expired += other.archive_expired;
        self.restores += other.restores;
        self.copies_opened += other.copies_opened;
        self.beyond_promises += other.beyond_promises;
        self.searches_given_up += other.searches_given_up;
        self.slowest_heal_ns = self.slowest_heal_ns.max(other.slowest_heal_ns);
        add_each(&mut self.faults, &other.faults);
        add_each(&mut self.marks, &other.marks);
        self.ledger.add(&other.ledger);
        self.keys.add(&other.keys);
    }

    /// The counts that people look at, by name.
    fn counts(&self) -> [(&'static str, u64); 21] {
        [
            ("promotions", self.promotions),
            ("crashes", self.crashes),
            ("crashes while starting", self.starts_crashed),
            ("cuts", self.cuts),
            ("snapshots installed", self.snapshots_installed),
            ("histories", self.histories),
            ("writes acknowledged", self.writes),
            ("reads answered", self.reads),
            ("requests refused", self.refused),
            ("outcomes unknown", self.unknown),
            ("outcomes told", self.outcomes),
            ("receipts", self.receipts),
            ("operators' orders", self.orders),
            ("messages doubled", self.doubled),
            ("archivers' rounds", self.archive_rounds),
            ("objects in archives", self.archive_objects),
            ("objects expired", self.archive_expired),
            ("restores", self.restores),
            ("restored copies opened", self.copies_opened),
            ("runs beyond the promises", self.beyond_promises),
            ("keys not searched", self.searches_given_up),
        ]
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, count: u64| text += &format!("  {count:>12} {name}\n");
        for (name, count) in self.counts() {
            row(name, count);
        }
        row("ms, the slowest healing", self.slowest_heal_ns / 1_000_000);
        for ((_, name), count) in faults::ALL.iter().zip(&self.faults) {
            row(&format!("fault: {name}"), *count);
        }
        for (mark, count) in Mark::ALL.iter().zip(&self.marks) {
            row(&format!("mark: {}", mark.name()), *count);
        }
        for (name, count) in ledger::RARE.iter().zip(&self.ledger.0) {
            row(&format!("ledger: {name}"), *count);
        }
        for (name, count) in keys::RARE.iter().zip(&self.keys.0) {
            row(&format!("keys: {name}"), *count);
        }
        text
    }

    /// What a batch that proves anything must have reached, and has not.
    pub fn missing(&self) -> Vec<String> {
        let counts = self.counts().into_iter();
        let counts = counts.filter(|(name, count)| *count == 0 && !ALLOWED_NONE.contains(name));
        let faults = faults::ALL.iter().zip(&self.faults);
        let faults = faults.filter(|(_, count)| **count == 0);
        let marks = Mark::ALL.iter().zip(&self.marks);
        let marks = marks.filter(|(_, count)| **count == 0);
        let ledger = ledger::RARE.iter().zip(&self.ledger.0);
        let ledger = ledger.filter(|(_, count)| **count == 0);
        let keys = keys::RARE.iter().zip(&self.keys.0);
        let keys = keys.filter(|(_, count)| **count == 0);
        counts
            .map(|(name, _)| name.to_string())
            .chain(faults.map(|((_, name), _)| format!("fault {name}")))
            .chain(marks.map(|(mark, _)| format!("mark {}", mark.name())))
            .chain(ledger.map(|(name, _)| format!("ledger {name}")))
            .chain(keys.map(|(name, _)| format!("keys {name}")))
            .collect()
    }
}

/// A running hash over numbers (FNV-1a, a word at a time).
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    pub fn value(self) -> u64 {
        self.0
    }
}
