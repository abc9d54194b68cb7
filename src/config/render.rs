//! The table as text: the example file, a node's own file, the reference for the documents.

use super::{Config, SETTINGS, Setting};
use std::fmt::Write;

/// A complete file with every setting at its default, commented out, so that it loads to the
/// defaults and shows what can be changed.
pub fn example() -> String {
    let mut out = String::from(
        "# Standfast: one node's settings.\n\
         # Every setting may also be given as a flag (--failover-timeout 1s) or in the \
         environment\n\
         # (STANDFAST_FAILOVER_TIMEOUT=1s). Flags win over the environment, the environment wins\n\
         # over this file. Lines that begin with # show the defaults.\n",
    );
    let defaults = Config::default();
    sections(&mut out, |setting| {
        let limit = setting.limit_text();
        let limit = if limit.is_empty() {
            limit
        } else {
            format!("; {limit}")
        };
        format!(
            "# {}\n# ({}{limit})\n# {} = {}\n",
            setting.about,
            setting.kind,
            setting.name,
            (setting.toml)(&defaults)
        )
    });
    out
}

/// A file with what differs from the defaults.
pub(super) fn file(config: &Config) -> String {
    let defaults = Config::default();
    let mut out = String::new();
    for setting in SETTINGS {
        let value = (setting.toml)(config);
        if value != (setting.toml)(&defaults) {
            writeln!(out, "{} = {value}", setting.name).expect("a String takes all text");
        }
    }
    out
}

fn sections(out: &mut String, mut line: impl FnMut(&Setting) -> String) {
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            write!(out, "\n# --- {group} ---\n").expect("a String takes all text");
        }
        out.push('\n');
        out.push_str(&line(setting));
    }
}

/// The table for `docs/operations.md`, in Markdown.
pub fn reference() -> String {
    let mut out = String::new();
    let mut group = "";
    for setting in SETTINGS {
        if setting.group != group {
            group = setting.group;
            let head = "| setting | default | kind and limit | what it is for |";
            write!(out, "\n**{group}**\n\n{head}\n| --- | --- | --- | --- |\n")
                .expect("a String takes all text");
        }
        let default = match setting.default {
            "" => "(empty)".to_owned(),
            default => format!("`{default}`"),
        };
        let limit = setting.limit_text();
        let comma = if limit.is_empty() { "" } else { ", " };
        let kind = setting.kind.split(" such as").next().unwrap_or_default();
        writeln!(
            out,
            "| `{}` | {default} | {kind}{comma}{limit} | {} |",
            setting.name, setting.about
        )
        .expect("a String takes all text");
    }
    out
}
