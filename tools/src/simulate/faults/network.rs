//! Ways that are cut, in one direction or both, for some nodes or all; and ways that are slow.

use crate::simulate::net::sides;
use crate::simulate::queue::Happening;
use crate::simulate::random::Random;
use crate::simulate::world::{MS, SECOND, World};

impl World {
    fn cut_ways(&mut self, ways: Vec<(usize, usize)>, random: &mut Random, what: &str) {
        self.say(|| format!("{what}: {ways:?} are cut"));
        let partition = self.net.cut(ways);
        let wait = random.scaled(20 * MS, 8 * SECOND);
        self.after(wait, Happening::Heal { partition });
    }

    pub(super) fn ways(&self, is_cut: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let nodes = self.nodes.len();
        let all = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to && is_cut(*from, *to))
            .collect()
    }

    pub(super) fn two_sides(&mut self, random: &mut Random) {
        let side = sides(random, self.nodes.len());
        let ways = self.ways(|from, to| side[from] != side[to]);
        self.cut_ways(ways, random, "two sides");
    }

    /// One side hears the other and is not heard.
    pub(super) fn one_way(&mut self, random: &mut Random) {
        let side = sides(random, self.nodes.len());
        let ways = self.ways(|from, to| side[from] && !side[to]);
        self.cut_ways(ways, random, "one way");
    }

    pub(super) fn isolate(&mut self, node: usize, random: &mut Random) {
        // The primary as often as all others together.
        let node = match self.primary_place() {
            Some(primary) if random.one_in(2) => primary,
            _ => node,
        };
        if self.primary_place() == Some(node) && random.one_in(3) {
            return self.send_away(node, random);
        }
        let ways = self.ways(|from, to| from == node || to == node);
        self.cut_ways(ways, random, "isolated");
    }

    /// Two sides that hear each other through one node only.
    pub(super) fn bridge(&mut self, node: usize, random: &mut Random) {
        let side = sides(random, self.nodes.len());
        let ways = self.ways(|from, to| from != node && to != node && side[from] != side[to]);
        self.cut_ways(ways, random, "bridge");
    }

    /// One node's connections break and come back, again and again.
    pub(super) fn flap(&mut self, node: usize, random: &mut Random) {
        for i in 0..random.between(2, 10) {
            let ways = self.ways(|from, to| from == node || to == node);
            if i == 0 {
                self.break_all(node);
            }
            let partition = self.net.cut(ways);
            let wait = random.between(0, 100 * MS) * (i + 1);
            self.after(wait, Happening::Heal { partition });
        }
    }

    /// One connection: the primary's to another as often as all others together.
    pub(super) fn break_one(&mut self, node: usize, random: &mut Random) {
        let other = random.index(self.nodes.len());
        let node = match self.primary_place() {
            Some(primary) if random.one_in(2) => primary,
            _ => node,
        };
        self.break_way(node, other);
    }

    pub(super) fn slow_way(&mut self, node: usize, random: &mut Random) {
        let extra = random.scaled(MS, 2 * SECOND);
        let until = random.scaled(100 * MS, 10 * SECOND);
        let whole = random.one_in(2);
        for other in 0..self.nodes.len() {
            if other != node && (whole || random.one_in(3)) {
                for (from, to) in [(node, other), (other, node)] {
                    if random.one_in(2) {
                        self.net.slow_down(from, to, extra);
                        self.after(until, Happening::Hasten { from, to });
                    }
                }
            }
        }
    }
}
