//! One mutant: a patch file with a head for people, of which the runner reads a few lines.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// Changed lines that a mutant may have: a slip, not a rewrite. Counted as lines that are added or
/// taken away.
const CHANGED_LINES_MAX: usize = 8;

/// What catches a mutant unless it says otherwise.
const SIMULATE: &str = "simulate";

#[derive(Clone, Debug)]
pub struct Patch {
    /// The file's name without `.patch`.
    pub name: String,
    pub path: PathBuf,
    /// What it changes, as paths in the workspace.
    pub files: Vec<String>,
    pub title: String,
    /// The rule that it breaks.
    pub breaks: String,
    /// `None`: the simulator; else the command that must fail.
    pub net: Option<String>,
}

impl Patch {
    /// All patches of a directory, in the order of their names.
    pub fn all(dir: &Path) -> anyhow::Result<Vec<Patch>> {
        let mut patches = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "patch")
            {
                let text = std::fs::read_to_string(&path)?;
                let patch = Patch::parse(&path, &text);
                patches.push(patch.with_context(|| path.display().to_string())?);
            }
        }
        patches.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(patches)
    }

    fn parse(path: &Path, text: &str) -> anyhow::Result<Patch> {
        let (head, diff) = text.split_at(text.find("diff --git").context("no diff in it")?);
        let net = field(head, "Net").context("no `Net:`")?;
        let mark = |line: &&str| line.starts_with(['+', '-']);
        let files = |line: &&str| line.starts_with("+++ ") || line.starts_with("--- ");
        let changed = diff
            .lines()
            .filter(|line| mark(line) && !files(line))
            .count();
        ensure!(
            (1..=CHANGED_LINES_MAX).contains(&changed),
            "{changed} changed lines: a mutant is a slip"
        );
        let target = |line: &str| line.strip_prefix("+++ b/").map(str::to_string);
        let name = path.file_stem().context("a file has a name")?;
        Ok(Patch {
            name: name.to_string_lossy().into_owned(),
            path: path.to_path_buf(),
            files: diff.lines().filter_map(target).collect(),
            title: field(head, "Title").context("no `Title:`")?,
            breaks: field(head, "Breaks").context("no `Breaks:`")?,
            net: Some(net).filter(|net| net != SIMULATE),
        })
    }
}

/// A line `Name: text` and the indented lines behind it.
fn field(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines();
    let prefix = format!("{name}: ");
    let first = lines.find_map(|line| line.strip_prefix(&prefix))?;
    let more = lines
        .take_while(|line| line.starts_with("  "))
        .map(str::trim);
    let words: Vec<&str> = std::iter::once(first).chain(more).collect();
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Title: it slips\nBreaks: a rule\n  of two lines\nNet: simulate\n\n";
    const DIFF: &str = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n";

    #[test]
    fn a_patch_says_what_it_breaks_and_is_short() {
        let path = Path::new("01-slip.patch");
        let patch = Patch::parse(path, &format!("{HEAD}{DIFF}")).expect("well formed");
        assert_eq!((&*patch.name, &*patch.title), ("01-slip", "it slips"));
        assert_eq!(patch.breaks, "a rule of two lines");
        assert_eq!((patch.net, &*patch.files), (None, &["x".to_string()][..]));
        let long = format!("{HEAD}{DIFF}{}", "+more\n".repeat(CHANGED_LINES_MAX));
        assert!(Patch::parse(path, &long).is_err(), "too many changed lines");
        assert!(Patch::parse(path, DIFF).is_err(), "no head");
        assert!(Patch::parse(path, HEAD).is_err(), "no diff");
    }

    #[test]
    fn every_mutant_of_the_list_is_well_formed_and_none_is_switched_off() {
        let patches = Patch::all(&super::super::root().join("tools/mutants")).expect("readable");
        assert!(patches.len() >= 25, "the list is shorter than promised");
        let simulated = patches.iter().filter(|patch| patch.net.is_none()).count();
        let others = patches.len() - simulated;
        assert!(
            others <= patches.len() / 10,
            "the simulator catches nearly all"
        );
    }
}
