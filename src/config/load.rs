//! Where settings come from: flag over environment over file over default; errors with the place.

use super::{Config, SETTINGS, Setting, find};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What to load from. The environment is handed in so that tests need not change it.
#[derive(Default)]
pub struct Sources {
    /// A file that was named must exist.
    pub file: Option<PathBuf>,
    /// All variables; those that do not begin with `STANDFAST_` are skipped.
    pub environment: Vec<(String, String)>,
    /// Setting names with the text given as flag.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The file and flags given, and this process's environment.
    pub fn with_environment(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Sources {
            file,
            environment: environment.collect(),
            flags,
        }
    }
}

/// Where a value was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    File,
    Environment,
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Settings that do not stand at their default by omission.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What looks like a mistake but may be somebody else's.
    pub warnings: Vec<String>,
}

/// Everything that is wrong, each with its place: one look is enough to repair it all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    pub problems: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for Error {}

impl Config {
    /// Loads, and checks how the settings go together.
    pub fn load(sources: &Sources) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            config: Config::default(),
            origins: BTreeMap::new(),
            warnings: Vec::new(),
        };
        let mut problems = Vec::new();
        if let Some(file) = &sources.file {
            match std::fs::read_to_string(file) {
                Ok(text) => read_file(&mut loaded, &mut problems, file, &text),
                Err(error) => problems.push(format!(
                    "{}: {error}\nhint: `standfast config example` prints a file to begin with",
                    file.display()
                )),
            }
        }
        read_environment(&mut loaded, &mut problems, &sources.environment);
        for (name, text) in &sources.flags {
            let setting = find(name).expect("flags are made from the table");
            let place = format!("--{}", setting.flag());
            assign(
                &mut loaded,
                &mut problems,
                setting,
                text,
                Origin::Flag,
                &place,
            );
        }
        if problems.is_empty() {
            problems = super::check(&loaded.config);
        }
        if problems.is_empty() {
            Ok(loaded)
        } else {
            Err(Error { problems })
        }
    }
}

fn assign(
    loaded: &mut Loaded,
    problems: &mut Vec<String>,
    setting: &'static Setting,
    text: &str,
    origin: Origin,
    place: &str,
) {
    match (setting.set)(&mut loaded.config, text) {
        Ok(()) => {
            loaded.origins.insert(setting.name, origin);
        }
        Err(why) => problems.push(format!("{place}: {text:?} for `{}`: {why}", setting.name)),
    }
}

fn read_environment(
    loaded: &mut Loaded,
    problems: &mut Vec<String>,
    environment: &[(String, String)],
) {
    for (variable, text) in environment {
        let Some(name) = variable.strip_prefix("STANDFAST_") else {
            continue;
        };
        match find(&name.to_ascii_lowercase()) {
            Some(setting) => assign(
                loaded,
                problems,
                setting,
                text,
                Origin::Environment,
                variable,
            ),
            // Not refused: Kubernetes sets STANDFAST_SERVICE_HOST and STANDFAST_PORT… by itself
            // for a service of this name.
            None if is_service_link(name) => {}
            None => loaded.warnings.push(format!(
                "environment variable {variable} is no setting{}",
                suggest(&name.to_ascii_lowercase())
                    .map(|near| format!("; did you mean {}?", near.variable()))
                    .unwrap_or_default()
            )),
        }
    }
}

fn is_service_link(name: &str) -> bool {
    name.starts_with("SERVICE_") || name == "PORT" || name.starts_with("PORT_")
}

fn read_file(loaded: &mut Loaded, problems: &mut Vec<String>, file: &Path, text: &str) {
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            problems.push(point(file, text, &span, error.message(), ""));
            return;
        }
    };
    for (key, value) in &table {
        let name = key.get_ref().as_ref();
        let Some(setting) = find(name) else {
            let near = suggest(name).map(|near| format!("did you mean `{}`?", near.name));
            let hint = near.unwrap_or_else(|| "`standfast config example` lists all".to_owned());
            let what = format!("unknown setting `{name}`");
            problems.push(point(file, text, &key.span(), &what, &hint));
            continue;
        };
        let outcome = text_of(value)
            .and_then(|value| (setting.set)(&mut loaded.config, &value))
            .map(|()| loaded.origins.insert(setting.name, Origin::File));
        if let Err(why) = outcome {
            let what = format!("`{name}`: {why}");
            let hint = format!("the default is {}", quoted(setting.default));
            problems.push(point(file, text, &value.span(), &what, &hint));
        }
    }
}

fn quoted(default: &str) -> String {
    if default.is_empty() {
        "empty".to_owned()
    } else {
        default.to_owned()
    }
}

/// A value of the file as the text that a flag would give.
fn text_of(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Array(parts) => {
            let mut texts = Vec::new();
            for part in parts.iter() {
                let text = text_of(part)?;
                if text.contains(',') {
                    return Err(format!("{text:?} holds a comma: give each entry by itself"));
                }
                texts.push(text);
            }
            Ok(texts.join(","))
        }
        other => Err(format!("a {} makes no sense here", other.type_str())),
    }
}

/// `file:line:column: what`, the line, and a caret under the place with the hint.
fn point(file: &Path, text: &str, span: &Range<usize>, what: &str, hint: &str) -> String {
    let at = span.start.min(text.len());
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline);
    let line = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..at].chars().count() + 1;
    let marked = text[at..span.end.clamp(at, line_end)]
        .chars()
        .count()
        .max(1);
    let gutter = " ".repeat(line.to_string().len());
    let caret = format!("{}{}", " ".repeat(column - 1), "^".repeat(marked));
    format!(
        "{}:{line}:{column}: {what}\n {line} | {}\n {gutter} | {caret} {hint}",
        file.display(),
        &text[line_start..line_end],
    )
    .trim_end()
    .to_owned()
}

/// The setting whose name is nearest to what was written, if near enough to be meant.
pub(super) fn suggest(name: &str) -> Option<&'static Setting> {
    let name = name.replace('-', "_").to_ascii_lowercase();
    SETTINGS
        .iter()
        .map(|setting| (distance(&name, setting.name), setting))
        .filter(|(distance, setting)| *distance * 3 <= setting.name.len().max(name.len()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, setting)| setting)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
