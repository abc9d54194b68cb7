//! What a run of the list found, as the table that docs/mutants.md shows.

use super::patch::Patch;
use super::trial::{Budget, Verdict};
use anyhow::Context;
use std::fmt;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

const BEGIN: &str = "<!-- table: mutants -->\n";
const END: &str = "<!-- end -->";
/// As much of a story as fits a table.
const STORY_CHARS: usize = 72;

pub struct Row {
    pub patch: Patch,
    pub verdict: Verdict,
    pub run: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = if self.verdict.is_caught() {
            ""
        } else {
            "SURVIVED: "
        };
        write!(
            f,
            "{} {fate}{} ({:.1} s)",
            self.patch.name,
            self.verdict,
            self.run.as_secs_f64()
        )
    }
}

pub fn render(rows: &[Row], budget: Budget, clean: &Verdict) -> String {
    let caught = rows.iter().filter(|row| row.verdict.is_caught()).count();
    let Budget { seeds, seconds } = budget;
    let mut out = format!(
        "{caught} of {} mutants caught; at most {seeds} seeds of {seconds} virtual seconds of faults \
         each; the unmutated tree with the same seeds: {clean}.\n\n",
        rows.len()
    );
    out += "| mutant | what it does | rule | seed | what caught it | seconds |\n";
    out += "| --- | --- | --- | --- | --- | --- |\n";
    for row in rows {
        let (seed, story) = match &row.verdict {
            Verdict::Caught { seed, story } => (seed.to_string(), shorten(story)),
            Verdict::CaughtBy(net) => ("–".to_string(), format!("`{net}`")),
            other => (
                "–".to_string(),
                format!("**survived**: {}", shorten(&other.to_string())),
            ),
        };
        let Patch {
            name,
            title,
            breaks,
            ..
        } = &row.patch;
        let seconds = row.run.as_secs_f64();
        writeln!(
            out,
            "| `{name}` | {} | {} | {seed} | {} | {seconds:.1} |",
            cell(title),
            cell(breaks),
            cell(&story)
        )
        .expect("a string takes all");
    }
    out
}

/// Puts the table between its markers in a document.
pub fn write(document: &Path, table: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(document)?;
    let (before, rest) = text.split_once(BEGIN).context("no marker of the table")?;
    let (_, after) = rest.split_once(END).context("the table has no end")?;
    std::fs::write(document, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}

/// The first clause of a story: a table has no room for the records in it.
fn shorten(story: &str) -> String {
    let mut short: String = story.chars().take(STORY_CHARS).collect();
    if short.len() < story.len() {
        short.push('…');
    }
    short
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
