//! `drill report`: the reports that are kept, oldest first, as a trend.

use super::html::{document, verdict};
use super::junit::escape;
use super::report::Report;
use super::rules::{RuleFlags, write_new};
use super::sign;
use crate::cli::backup::{Keys, choose_cluster, open_store};
use crate::cli::exit::{ExitCode, Failure, Outcome};
use standfast_snapshot::drills;
use standfast_wal::ClusterId;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Lists the drills of the past, and writes them as a page (index.html) beside their reports.
#[derive(clap::Args, Debug)]
pub struct List {
    /// The settings file that says where the reports are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// List those that are kept in this archive instead; writes no page
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Which cluster, where the archive has several
    #[arg(long, value_name = "ID", requires = "from")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    rules: RuleFlags,
}

/// Proves who wrote a report, and that not a byte of it was changed since.
#[derive(clap::Args, Debug)]
pub struct Verify {
    /// The report's JSON file
    file: PathBuf,
    /// The key that must have signed it; without it only the report itself vouches for its key
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    #[arg(long)]
    json: bool,
}

/// One kept report.
struct Past {
    name: String,
    report: Report,
    /// The key that signed it; the reason why none did.
    signed: Result<String, String>,
}

/// Reads what is there; a file that is none of ours is named, not skipped in silence.
fn read(dir: &Path) -> Result<(Vec<Past>, Vec<String>), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::Failed, format!("{}: {error}", dir.display()))
    };
    let (mut past, mut unreadable) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned());
        let (Some(name), Some("json")) = (name, path.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match text.and_then(|text| Past::new(name, &text)) {
            Ok(one) => past.push(one),
            Err(error) => unreadable.push(format!("{}: {error}", path.display())),
        }
    }
    Ok(in_order(past, unreadable))
}

/// The same of an archive.
fn read_archive(place: &str, args: &List) -> Result<(Vec<Past>, Vec<String>), Failure> {
    let store = open_store(place)?;
    let cluster = choose_cluster(&store, args.cluster)?;
    let identities = args.keys.read()?;
    let failed =
        |error: standfast_snapshot::Error| Failure::new(ExitCode::Failed, error.to_string());
    let (mut past, mut unreadable) = (Vec::new(), Vec::new());
    for one in drills::list(&*store, cluster).map_err(failed)? {
        let name = one.to_string();
        let text = match drills::read(&*store, cluster, &one, &identities) {
            Err(error) if error.is_unanswered() => return Err(failed(error)),
            read => read.map_err(|error| error.to_string()),
        };
        match text.and_then(|text| Past::new(name.clone(), &text)) {
            Ok(one) => past.push(one),
            Err(error) => unreadable.push(format!("{name}: {error}")),
        }
    }
    Ok(in_order(past, unreadable))
}

fn in_order(mut past: Vec<Past>, mut unreadable: Vec<String>) -> (Vec<Past>, Vec<String>) {
    past.sort_by(|a, b| (&a.report.started, &a.name).cmp(&(&b.report.started, &b.name)));
    unreadable.sort();
    (past, unreadable)
}

pub fn list(args: &List) -> Outcome {
    let (rules, _) = args.rules.resolve(args.config.as_ref())?;
    let (past, unreadable) = match &args.from {
        Some(place) => read_archive(place, args)?,
        None => read(&rules.reports)?,
    };
    if rules.json {
        println!("{}", as_json(&past, &unreadable));
    } else {
        print!("{}", as_text(&past, &unreadable));
    }
    if args.from.is_none() {
        write_index(&rules.reports)?;
        let page = rules.reports.join("index.html");
        if !rules.json {
            println!("\npage  {}", page.display());
        }
    }
    Ok(ExitCode::Done)
}

pub fn verify(args: &Verify) -> Outcome {
    let file = args.file.display();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::new(ExitCode::Failed, format!("{file}: {error}")))?;
    let (report, key) = sign::verify(&text, args.public_key.as_deref())
        .map_err(|why| Failure::new(ExitCode::Damaged, format!("{file}: {why}")))?;
    if args.json {
        let expected = args.public_key.is_some();
        println!(
            "{}",
            serde_json::json!({"proved": true, "public_key": key, "key_was_expected": expected,
                "kind": report.kind, "started": report.started, "passed": report.passed})
        );
        return Ok(ExitCode::Done);
    }
    println!("proved     unchanged since it was signed by {key}");
    if args.public_key.is_none() {
        println!("           (hold that against the key you know, or give --public-key)");
    }
    print!("{}", report.as_text());
    Ok(ExitCode::Done)
}

/// The page of all reports, beside them.
pub fn write_index(dir: &Path) -> Result<(), Failure> {
    let (past, unreadable) = read(dir)?;
    write_new(&dir.join("index.html"), &index(&past, &unreadable))
}

fn short_seconds(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |seconds| format!("{seconds:.3}"))
}

fn short(value: Option<u64>) -> String {
    value.map_or("-".to_owned(), |count| count.to_string())
}

impl Past {
    fn new(name: String, text: &str) -> Result<Past, String> {
        let report: Report = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let signed = sign::verify(text, None).map(|(_, key)| key);
        Ok(Past {
            name,
            report,
            signed,
        })
    }

    /// The columns of a line: started, kind, verdict, RTO, RPO, lost, doubled, digests, signed.
    fn columns(&self) -> [String; 9] {
        let Report {
            started,
            kind,
            measured,
            ..
        } = &self.report;
        let digests = match measured.digests_equal {
            Some(true) => "equal",
            Some(false) => "DIFFER",
            None => "-",
        };
        let signed = match &self.signed {
            Ok(key) => key.get(..8).unwrap_or(key).to_owned(),
            Err(why) if why == "it is not signed" => "no".to_owned(),
            Err(_) => "CHANGED".to_owned(),
        };
        [
            started.clone(),
            kind.clone(),
            self.report.verdict().to_owned(),
            short_seconds(measured.rto_seconds),
            short_seconds(measured.rpo_seconds),
            short(measured.lost),
            short(measured.doubled),
            digests.to_owned(),
            signed,
        ]
    }
}

const COLUMNS: [&str; 9] = [
    "started", "kind", "verdict", "RTO s", "RPO s", "lost", "doubled", "digests", "signed",
];

fn as_text(past: &[Past], unreadable: &[String]) -> String {
    let mut out = String::new();
    let mut line = |columns: [&str; 9]| {
        let [
            started,
            kind,
            verdict,
            rto,
            rpo,
            lost,
            doubled,
            digests,
            signed,
        ] = columns;
        let _ = writeln!(
            out,
            "{started:<24}  {kind:<8}  {verdict:<7}  {rto:>9}  {rpo:>9}  {lost:>5}  \
             {doubled:>7}  {digests:<7}  {signed}"
        );
    };
    line(COLUMNS);
    for one in past {
        line(one.columns().each_ref().map(String::as_str));
    }
    for text in unreadable {
        let _ = writeln!(out, "unreadable: {text}");
    }
    out
}

fn as_json(past: &[Past], unreadable: &[String]) -> serde_json::Value {
    let reports = past.iter().map(|one| {
        serde_json::json!({
            "name": one.name,
            "kind": one.report.kind,
            "started": one.report.started,
            "passed": one.report.passed,
            "reasons": one.report.reasons,
            "measured": one.report.measured,
            "targets": one.report.targets,
            "public_key": one.signed.as_ref().ok(),
            "not_proved_because": one.signed.as_ref().err(),
        })
    });
    serde_json::json!({"reports": reports.collect::<Vec<_>>(), "unreadable": unreadable})
}

fn index(past: &[Past], unreadable: &[String]) -> String {
    let failed = past.iter().filter(|one| !one.report.passed).count();
    let mut body = format!(
        "<h1>Drills</h1>\n<p class=\"soft\">{} kept, {failed} failed.</p>\n",
        past.len()
    );
    for kind in ["restore", "failover"] {
        let of_kind: Vec<&Past> = past.iter().filter(|one| one.report.kind == kind).collect();
        if !of_kind.is_empty() {
            let _ = write!(body, "<h2>RTO: {kind}</h2>\n{}", curve(&of_kind));
        }
    }
    body.push_str("<h2>All</h2>\n<table><tr>");
    for name in COLUMNS {
        let _ = write!(body, "<th>{name}</th>");
    }
    body.push_str("</tr>\n");
    for one in past.iter().rev() {
        let [started, kind, _, rest @ ..] = one.columns().map(|text| escape(&text));
        let (name, verdict) = (escape(&one.name), verdict(one.report.passed));
        let rest: String = rest.map(|text| format!("<td>{text}</td>")).concat();
        let _ = writeln!(
            body,
            "<tr><td><a href=\"{name}.html\">{started}</a></td><td>{kind}</td><td>{verdict}</td>\
             {rest}</tr>"
        );
    }
    body.push_str("</table>\n");
    for text in unreadable {
        let _ = writeln!(body, "<p class=\"bad\">Unreadable: {}</p>", escape(text));
    }
    document("Drills", &body)
}

/// RTO from drill to drill: a bar for each, and the target as a line.
fn curve(past: &[&Past]) -> String {
    const HEIGHT: f64 = 140.0;
    const FLOOR: f64 = 120.0;
    let rto = |one: &&Past| one.report.measured.rto_seconds;
    let target = past.last().and_then(|one| one.report.targets.rto_seconds);
    let most = past
        .iter()
        .filter_map(rto)
        .chain(target)
        .fold(0.001, f64::max);
    let y = |seconds: f64| FLOOR - 100.0 * seconds / most;
    let step = 840.0 / past.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 900 {HEIGHT}\" role=\"img\" aria-label=\"RTO\">\n");
    for (at, one) in past.iter().enumerate() {
        let x = 50.0 + step * at as f64;
        let top = y(rto(one).unwrap_or(0.0));
        let colour = if one.report.passed {
            "#3b6ea5"
        } else {
            "#a3231f"
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\">\
             <title>{}: {} s, {}</title></rect>",
            (step * 0.7).min(40.0),
            (FLOOR - top).max(1.0),
            escape(&one.report.started),
            short_seconds(rto(one)),
            one.report.verdict(),
        );
    }
    if let Some(target) = target {
        let y = y(target);
        let _ = writeln!(
            svg,
            "<line x1=\"50\" y1=\"{y:.1}\" x2=\"890\" y2=\"{y:.1}\" stroke=\"#a3231f\" \
             stroke-dasharray=\"5 4\"/><text x=\"890\" y=\"{:.1}\" text-anchor=\"end\">target \
             {target:.3} s</text>",
            y - 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"50\" y1=\"{FLOOR}\" x2=\"890\" y2=\"{FLOOR}\" stroke=\"#5b6675\"/>\
         <text x=\"0\" y=\"{FLOOR}\">0 s</text><text x=\"0\" y=\"24\">{most:.2} s</text></svg>"
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn past_reports_are_told_in_order_with_who_signed_them() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut late = sample();
        late.started = "2026-02-01T12:00:00.000Z".to_owned();
        late.passed = false;
        late.reasons = vec!["slow".to_owned()];
        let signed = sign::file_text(&sample(), Some(&key));
        let files = [
            ("b.json", sign::file_text(&late, None)),
            ("a.json", signed.clone()),
            ("c.json", signed.replace("LSN 7", "LSN 8")),
            ("d.json", "{}".to_owned()),
            ("index.html", String::new()),
        ];
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("a new file");
        }
        let (past, unreadable) = read(dir.path()).expect("readable");
        let names: Vec<&str> = past.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "c", "b"]);
        assert_eq!(unreadable.len(), 1);
        let text = as_text(&past, &unreadable);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].ends_with("CHANGED"), "{text}");
        assert!(
            lines[3].contains("FAILED") && lines[3].ends_with("no"),
            "{text}"
        );
        let json = as_json(&past, &unreadable);
        assert_eq!(json["reports"][0]["measured"]["lost"], 0, "{json}");
        write_index(dir.path()).expect("written");
        let page = std::fs::read_to_string(dir.path().join("index.html")).expect("there");
        assert!(page.contains("<a href=\"b.html\">2026-02-01"), "{page}");
        assert!(page.contains("target 30.000 s"), "{page}");
    }
}
