//! One mutant built and simulated: after how many seeds it is caught, and by which check.

use super::patch::Patch;
use super::switch;
use super::table::Row;
use super::tree::{Ended, Tree, run_for};
use anyhow::ensure;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A profile that is fast to build again: see the workspace's Cargo.toml.
const PROFILE: &str = "mutant";
/// Real time that a seed may take, on average, before the mutant counts as hung.
const SEED_LIMIT: Duration = Duration::from_secs(10);

/// What each mutant is given.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub seeds: u64,
    pub seconds: u64,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Clean,
    /// The first line of the story.
    Caught {
        seed: u64,
        story: String,
    },
    /// Another net than the simulator, which the patch names.
    CaughtBy(String),
    /// The simulator reached less than it must and complained of nothing else.
    Vacuous(String),
    /// It had to be killed: nothing was said.
    Hung,
}

impl Verdict {
    pub fn is_caught(&self) -> bool {
        matches!(self, Verdict::Caught { .. } | Verdict::CaughtBy(_))
    }

    pub fn is_clean(&self) -> bool {
        *self == Verdict::Clean
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Clean => write!(f, "clean"),
            Verdict::Caught { seed, story } => write!(f, "caught by seed {seed}: {story}"),
            Verdict::CaughtBy(net) => write!(f, "caught by `{net}`"),
            Verdict::Vacuous(story) => write!(f, "{story}"),
            Verdict::Hung => write!(f, "hung"),
        }
    }
}

/// A place where mutants are tried, one after the other.
pub struct Trial {
    tree: Tree,
    target: PathBuf,
    budget: Budget,
}

impl Trial {
    pub fn new(root: &Path, scratch: &Path, budget: Budget) -> anyhow::Result<Trial> {
        Ok(Trial {
            tree: Tree::new(root, scratch.join("tree"))?,
            target: scratch.join("build"),
            budget,
        })
    }

    /// Builds the tree with all mutants that can be switched; answers their numbers. None, where
    /// they do not build together.
    pub fn plant(&self, patches: &[Patch]) -> anyhow::Result<BTreeMap<String, u32>> {
        let planted = switch::plant(&self.tree, patches)?;
        let Err(why) = self.build() else {
            return Ok(planted);
        };
        ensure!(
            !planted.is_empty(),
            "the unmutated tree does not build: {why}"
        );
        eprintln!("all in one do not build, so each is built by itself: {why}");
        self.tree.restore()?;
        self.build()?;
        Ok(BTreeMap::new())
    }

    /// A mutant that was planted.
    pub fn switched(&self, patch: Patch, number: u32) -> anyhow::Result<Row> {
        let started = Instant::now();
        let verdict = self.simulate(number)?;
        Ok(Row {
            patch,
            verdict,
            run: started.elapsed(),
        })
    }

    /// A mutant that is built by itself.
    pub fn separate(&self, patch: Patch) -> anyhow::Result<Row> {
        self.tree.restore()?;
        let applied = self.tree.apply(&patch)?;
        applied.map_err(|why| anyhow::anyhow!("{} does not apply: {why}", patch.name))?;
        if patch.net.is_none() {
            self.build()?;
        }
        let started = Instant::now();
        let verdict = match &patch.net {
            Some(net) => self.other_net(net)?,
            None => self.simulate(0)?,
        };
        Ok(Row {
            patch,
            verdict,
            run: started.elapsed(),
        })
    }

    fn build(&self) -> anyhow::Result<()> {
        let arguments = ["build", "--offline", "--profile", PROFILE, "-p", "tools"];
        let ended = self.tree.cargo(&arguments, &self.target)?;
        ensure!(
            ended.success == Some(true),
            "the mutant does not build:\n{}",
            ended.stderr
        );
        Ok(())
    }

    /// A command of cargo that must fail as tests fail.
    fn other_net(&self, net: &str) -> anyhow::Result<Verdict> {
        let words: Vec<&str> = net.split_whitespace().skip(1).collect();
        let ended = self.tree.cargo(&words, &self.target)?;
        ensure!(
            ended.success.is_none() || ended.stdout.contains("test result: "),
            "`{net}` ran no test:\n{}",
            ended.stderr
        );
        Ok(match ended.stdout.contains("test result: FAILED") {
            true => Verdict::CaughtBy(net.to_string()),
            false if ended.success.is_none() => Verdict::Hung,
            false => Verdict::Clean,
        })
    }

    fn run_seeds(&self, number: u32, first: u64, seeds: u64) -> anyhow::Result<Ended> {
        let mut command = Command::new(self.target.join(PROFILE).join("tools"));
        let numbers = [first, seeds, self.budget.seconds].map(|number| number.to_string());
        command.args(["simulate", "--seed", &numbers[0], "--seeds", &numbers[1]]);
        command.args(["--seconds", &numbers[2]]);
        command.current_dir(&self.tree.dir);
        command.env(switch::VARIABLE, number.to_string());
        let limit = SEED_LIMIT * u32::try_from(seeds).unwrap_or(u32::MAX);
        run_for(&mut command, limit.max(Duration::from_secs(120)))
    }

    /// Simulates what was built, with this mutant switched on; 0 is none.
    pub fn simulate(&self, number: u32) -> anyhow::Result<Verdict> {
        let verdict = judge(&self.run_seeds(number, 1, self.budget.seeds)?);
        match verdict {
            // It died without a word about the seed: the halves tell.
            Verdict::Caught { seed: 0, story } => self.find_seed(number, story),
            verdict => Ok(verdict),
        }
    }

    /// Narrows down which seed makes the process die.
    fn find_seed(&self, number: u32, story: String) -> anyhow::Result<Verdict> {
        let (mut first, mut seeds) = (1, self.budget.seeds);
        while seeds > 1 {
            let half = seeds / 2;
            match judge(&self.run_seeds(number, first, half)?) {
                Verdict::Caught { .. } => seeds = half,
                _ => (first, seeds) = (first + half, seeds - half),
            }
        }
        Ok(Verdict::Caught { seed: first, story })
    }
}

/// What a run of the simulator said. Seed 0: it died before it could name one.
fn judge(ended: &Ended) -> Verdict {
    let Some(success) = ended.success else {
        return Verdict::Hung;
    };
    if success {
        return Verdict::Clean;
    }
    let failed = |line: &str| {
        let (seed, story) = line.strip_prefix("seed ")?.split_once(" FAILED: ")?;
        Some((seed.parse().ok()?, story.trim().to_string()))
    };
    if let Some((seed, story)) = ended.stdout.lines().find_map(failed) {
        return Verdict::Caught { seed, story };
    }
    let mut lines = ended.stderr.lines();
    if lines.any(|line| line.contains(" panicked at ")) {
        let story = lines.next().unwrap_or("a panic").trim().to_string();
        return Verdict::Caught { seed: 0, story };
    }
    let vacuous = |line: &&str| line.contains("vacuous") || line.contains("never reached");
    match ended.stdout.lines().find(vacuous) {
        Some(line) => Verdict::Vacuous(line.to_string()),
        None => Verdict::Vacuous("it failed without a story".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(stdout: &str, stderr: &str) -> Ended {
        Ended {
            success: Some(false),
            stdout: stdout.to_string(),
            stderr: stderr.to_string(),
        }
    }

    #[test]
    fn a_failed_run_is_read_by_its_first_story_and_a_death_without_one_has_no_seed() {
        let run = ended(
            "seed 1 ok\nseed 7 FAILED: I1: lost\nseed 9 FAILED: I2: differs\n",
            "",
        );
        let story = "I1: lost".to_string();
        assert_eq!(judge(&run), Verdict::Caught { seed: 7, story });
        let run = ended(
            "",
            "thread 'main' panicked at src/x.rs:1:2:\nI3: two\nnote: run with\n",
        );
        let story = "I3: two".to_string();
        assert_eq!(judge(&run), Verdict::Caught { seed: 0, story });
    }

    #[test]
    fn what_is_only_vacuous_or_late_is_not_caught() {
        let run = ended("50 seeds\nvacuous: never reached a tail cut\n", "");
        assert!(!judge(&run).is_caught());
        assert!(!judge(&ended("", "")).is_caught());
        let late = Ended {
            success: None,
            ..ended("seed 7 FAILED: I1: lost\n", "")
        };
        assert_eq!(judge(&late), Verdict::Hung);
    }
}
