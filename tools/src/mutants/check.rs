//! `mutants --check`: every patch applies to the tree as it is, and what comes out builds.
//!
//! One build for each would take minutes. As many patches as do not touch each other's lines are
//! applied together and built once; only where that fails each is built by itself, to name it.

use super::Patch;
use super::tree::Tree;
use std::path::Path;
use std::time::Instant;

pub fn run(root: &Path, scratch: &Path, patches: &[Patch]) -> anyhow::Result<bool> {
    let started = Instant::now();
    let tree = Tree::new(root, scratch.join("tree"))?;
    let mut bad = Vec::new();
    let mut good: Vec<&Patch> = Vec::new();
    for patch in patches {
        match tree.apply(patch)? {
            Ok(()) => good.push(patch),
            Err(why) => bad.push(format!("{} does not apply: {why}", patch.name)),
        }
        tree.restore()?;
    }
    // What was built of the workspace's dependencies serves here, too.
    let target = root.join("target");
    let mut builds = 0;
    while !good.is_empty() {
        let (together, rest) = apply_together(&tree, good)?;
        good = rest;
        builds += 1;
        if build(&tree, &target)?.is_some() {
            for patch in together {
                tree.restore()?;
                let applied = tree.apply(patch)?;
                applied.map_err(anyhow::Error::msg)?;
                builds += 1;
                if let Some(why) = build(&tree, &target)? {
                    bad.push(format!("{} does not build: {why}", patch.name));
                }
            }
        }
        tree.restore()?;
    }
    bad.iter().for_each(|line| println!("{line}"));
    println!(
        "{} of {} mutants apply and build ({builds} builds, {:.0} s)",
        patches.len() - bad.len(),
        patches.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(bad.is_empty())
}

type Split<'a> = (Vec<&'a Patch>, Vec<&'a Patch>);

/// Applies what goes together; the rest is left for another time.
fn apply_together<'a>(tree: &Tree, patches: Vec<&'a Patch>) -> anyhow::Result<Split<'a>> {
    let (mut together, mut rest) = (Vec::new(), Vec::new());
    for patch in patches {
        match tree.apply(patch)? {
            Ok(()) => together.push(patch),
            Err(_) => rest.push(patch),
        }
    }
    Ok((together, rest))
}

/// The first error of the compiler, if there is one.
fn build(tree: &Tree, target: &Path) -> anyhow::Result<Option<String>> {
    let output = tree.cargo(&["check", "--workspace", "--offline"], target)?;
    if output.success == Some(true) {
        return Ok(None);
    }
    let error = output
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("error"));
    Ok(Some(error.take(6).collect::<Vec<_>>().join("\n  ")))
}
