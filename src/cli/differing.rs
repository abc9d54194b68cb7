//! `inspect differing`: what the state of a node that halted for an attestation differs in.
//!
//! The node keeps that state (`node::evidence`); the archive makes the one that the cluster had at
//! the same LSN. Both are only read.

use super::backup::{Keys, open_store};
use super::exit::{ExitCode, Failure, Outcome};
use super::restore::{Source, past_state};
use crate::node::directory::snapshot_dir;
use crate::node::evidence;
use crate::node::shelf;
use crate::state::{Difference, Differences};
use serde_json::json;
use standfast_snapshot::{Reader, Target};
use standfast_wal::{Disk, Lsn};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the state of a node that differs from its primary differs in, against the archive
#[derive(clap::Args, Debug)]
pub struct Differing {
    /// The node's data directory, or where `join --afresh` has kept it
    path: PathBuf,
    /// An archive that reaches to the LSN at which the node stands: a directory or a URL
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// How many keys, accounts and transfers are named
    #[arg(long, value_name = "N", default_value_t = 100)]
    max: usize,
    #[command(flatten)]
    keys: Keys,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Differing, out: &mut dyn Write) -> Outcome {
    let file = newest(&args.path)?;
    let name = file.display().to_string();
    let damaged = |error: String| Failure::new(ExitCode::Damaged, format!("{name}: {error}"));
    let reader = Reader::open(&file).map_err(|e| Failure::new(ExitCode::Damaged, e.to_string()))?;
    let cluster = reader.header().cluster;
    let (header, kept) = shelf::load_snapshot(&file, cluster).map_err(damaged)?;
    let lsn = header.link.position.lsn;
    let source = Source {
        from: open_store(&args.from)?,
        target: Target::Lsn(lsn).into(),
        identities: args.keys.read()?,
        cluster: Some(cluster),
        history: Some(header.history),
        segment_shift: crate::state::SEGMENT_SHIFT,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let truth = past_state(&source)?;
    let story = evidence::story(&Disk::open(&args.path)?)?;
    let found = Differences::of(&kept, &truth, args.max);
    show(&found, lsn, story.as_deref(), args, out)?;
    Ok(match found.is_empty() {
        true => ExitCode::Done,
        false => ExitCode::Damaged,
    })
}

/// The newest state that was kept.
fn newest(data: &Path) -> Result<PathBuf, Failure> {
    let dir = snapshot_dir(data);
    let disk = Disk::open(&dir)?;
    let kept = shelf::differing(&disk)?;
    let (lsn, _) = kept.first().ok_or_else(|| {
        let text = format!("{}: no state that differs is kept here", dir.display());
        Failure::new(ExitCode::Failed, text)
            .hint("a node keeps one when it halts because its state differs from the primary's")
    })?;
    Ok(dir.join(evidence::name_of(*lsn)))
}

fn show(
    found: &Differences,
    lsn: Lsn,
    story: Option<&str>,
    args: &Differing,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if args.json {
        let all = json!({
            "lsn": lsn, "story": story, "slots": found.slots, "more": found.more,
            "things": found.things,
        });
        return writeln!(out, "{all}");
    }
    if let Some(story) = story {
        writeln!(out, "{story}")?;
    }
    if found.is_empty() {
        return writeln!(
            out,
            "at LSN {lsn} nothing differs from what the archive says"
        );
    }
    let slots: Vec<String> = found.slots.iter().map(u16::to_string).collect();
    writeln!(out, "at LSN {lsn}; slots that differ: {}", slots.join(" "))?;
    for Difference {
        what,
        name,
        slot,
        one,
        other,
    } in &found.things
    {
        let slot = slot.map_or(String::new(), |slot| format!(" (slot {slot})"));
        writeln!(out, "{what} {name}{slot}")?;
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "not there".to_owned());
        writeln!(out, "    here     {}", side(one))?;
        writeln!(out, "    archive  {}", side(other))?;
    }
    match found.more {
        0 => Ok(()),
        more => writeln!(out, "and {more} more (--max)"),
    }
}
