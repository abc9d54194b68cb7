//! What a run of the list found, as the table that docs/mutants.md shows.

use super::patch::Patch;
use super::trial::{Budget, Verdict};
use std::fmt;
use std::fmt::Write;
use std::time::Duration;

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
