//! A report as one page that needs nothing else: for a screen, and for A4 paper.

use super::junit::escape;
use super::report::Report;
use std::fmt::Write;

/// What all pages look like. Print keeps colours legible in grey: verdicts are words as well.
const STYLE: &str = "
:root { color-scheme: light; --ink: #1b2430; --soft: #5b6675; --line: #d6dbe2; --paper: #fff;
  --good: #17663a; --bad: #a3231f; --bar: #3b6ea5; }
* { box-sizing: border-box }
body { margin: 2.5rem auto; max-width: 60rem; padding: 0 1.5rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
p { margin: .25rem 0 } .soft { color: var(--soft) }
.verdict { display: inline-block; padding: .1rem .7rem; border: 2px solid; border-radius: .3rem;
  font-weight: 700; letter-spacing: .04em } .good { color: var(--good) } .bad { color: var(--bad) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 }
.figures div { border: 1px solid var(--line); border-radius: .3rem; padding: .6rem .8rem }
.figures b { display: block; font-size: .8rem; color: var(--soft); font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { font-size: .8rem; color: var(--soft); white-space: nowrap } td.n { text-align: right;
  white-space: nowrap } code { font: .85em/1.4 ui-monospace, monospace; overflow-wrap: anywhere }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif;
  fill: var(--ink) } a { color: inherit }
@page { size: A4; margin: 16mm }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 10.5pt }
  h2 { break-after: avoid } tr, svg, .figures div { break-inside: avoid }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
";

/// A whole page around `body`.
pub fn document(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

/// The page of one report; `text` is its signed file.
pub fn page(report: &Report, text: &str) -> String {
    let mut body = String::new();
    head(report, &mut body);
    list("Why it failed", &report.reasons, &mut body);
    let _ = write!(body, "<h2>Timeline</h2>\n{}", timeline(report));
    steps(report, &mut body);
    list("What could not be checked", &report.unchecked, &mut body);
    body.push_str("<h2>What was seen</h2>\n<table>\n");
    for (name, value) in &report.facts {
        let (name, value) = (escape(name), escape(value));
        let _ = writeln!(body, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    body.push_str("</table>\n");
    nodes(report, &mut body);
    signature(text, &mut body);
    let title = format!("Drill {} {}", report.kind, report.started);
    document(&title, &body)
}

pub fn verdict(passed: bool) -> &'static str {
    if passed {
        "<span class=\"verdict good\">PASSED</span>"
    } else {
        "<span class=\"verdict bad\">FAILED</span>"
    }
}

fn head(report: &Report, body: &mut String) {
    let Report {
        kind,
        what,
        cluster,
        cluster_name,
        program,
        who,
        why,
        started,
        ended,
        ..
    } = report;
    let text = [kind, what, cluster_name, cluster, who, why, started, ended].map(|t| escape(t));
    let [kind, what, cluster_name, cluster, who, why, started, ended] = text;
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(", because: {why}")
    };
    let verdict = verdict(report.passed);
    let _ = writeln!(
        body,
        "<h1>Drill: {kind} {verdict}</h1>\n<p>{what}</p>\n\
         <p class=\"soft\">Cluster {cluster_name} <code>{cluster}</code>. {started} to {ended}, by \
         {who}{why}. Standfast {program}.</p>\n<div class=\"figures\">",
    );
    for (name, value) in report.figures() {
        let (name, value) = (escape(&name), escape(&value));
        let _ = writeln!(body, "<div><b>{name}</b>{value}</div>");
    }
    body.push_str("</div>\n");
}

fn list(title: &str, items: &[String], body: &mut String) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(body, "<h2>{title}</h2>\n<ul>");
    for item in items {
        let _ = writeln!(body, "<li>{}</li>", escape(item));
    }
    body.push_str("</ul>\n");
}

const LABELS: f64 = 150.0;
const WIDTH: f64 = 900.0;
const ROW: f64 = 22.0;

/// One bar for each step, over the time that the drill took.
fn timeline(report: &Report) -> String {
    let end = |step: &super::report::Step| step.start_seconds + step.seconds;
    let total = report.steps.iter().map(end).fold(0.001, f64::max);
    let at = |seconds: f64| LABELS + (WIDTH - LABELS - 60.0) * seconds / total;
    let height = ROW * report.steps.len() as f64 + 24.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Steps over time\">\n"
    );
    for quarter in 0..=4 {
        let seconds = total * f64::from(quarter) / 4.0;
        let (x, y) = (at(seconds), height - 20.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{y}\" stroke=\"#d6dbe2\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{seconds:.2} s</text>",
            height - 6.0
        );
    }
    for (row, step) in report.steps.iter().enumerate() {
        let y = ROW * row as f64;
        let (from, to) = (at(step.start_seconds), at(end(step)));
        let colour = if step.ok { "#3b6ea5" } else { "#a3231f" };
        let mark = if step.ok { "" } else { "failed, " };
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{:.1}\">{}</text>\
             <rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"2\" \
             fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\">{mark}{:.3}</text>",
            y + 15.0,
            escape(&step.name),
            y + 4.0,
            (to - from).max(2.0),
            to.max(from + 2.0) + 5.0,
            y + 15.0,
            step.seconds,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn steps(report: &Report, body: &mut String) {
    body.push_str(
        "<h2>Steps</h2>\n<table><tr><th>at</th><th>took</th><th>step</th><th></th><th></th></tr>\n",
    );
    for step in &report.steps {
        let outcome = if step.ok {
            "<span class=\"good\">ok</span>"
        } else {
            "<span class=\"bad\">FAILED</span>"
        };
        let _ = writeln!(
            body,
            "<tr><td class=\"n\">{:.3} s</td><td class=\"n\">{:.3} s</td><td>{}</td>\
             <td>{outcome}</td><td>{}</td></tr>",
            step.start_seconds,
            step.seconds,
            escape(&step.name),
            escape(&step.detail),
        );
    }
    body.push_str("</table>\n");
}

fn nodes(report: &Report, body: &mut String) {
    if report.nodes.is_empty() {
        return;
    }
    body.push_str(
        "<h2>Nodes</h2>\n<table><tr><th>node</th><th>role</th><th>clients</th><th>version</th></tr>\n",
    );
    for node in &report.nodes {
        let version = match node.version.as_str() {
            "" => "did not answer",
            version => version,
        };
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            node.node,
            escape(&node.role),
            escape(&node.client),
            escape(version),
        );
    }
    body.push_str("</table>\n");
}

/// The signature belongs to the JSON file; the page only says how to hold it against that.
fn signature(text: &str, body: &mut String) {
    let fields: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    body.push_str("<h2>Signature</h2>\n");
    let (key, signature) = (&fields["public_key"], &fields["signature"]);
    if let (Some(key), Some(signature)) = (key.as_str(), signature.as_str()) {
        let (key, signature) = (escape(key), escape(signature));
        let _ = writeln!(
            body,
            "<p>The JSON file of the same name is signed (ed25519): \
             <code>standfast drill verify-report FILE --public-key {key}</code></p>\n\
             <p class=\"soft\">Signature <code>{signature}</code></p>"
        );
    } else {
        body.push_str("<p>This report is not signed.</p>\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::super::sign;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_everything() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let mut report = sample();
        report.steps[1].ok = false;
        report.reasons = vec!["it was <late>".to_owned()];
        let page = page(&report, &sign::file_text(&report, Some(&key)));
        for outside in [
            "http:", "https:", "src=", "<link", "<script", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside} leads out of the page");
        }
        for shown in [
            "restore of &lt;b&gt;",
            "it was &lt;late&gt;",
            "the moon",
            "2.017 s (target 30.000 s)",
            "@media print",
            "size: A4",
            "verify-report FILE --public-key ",
            "failed, 0.700",
            "<td>h:1</td>",
        ] {
            assert!(page.contains(shown), "{shown}: {page}");
        }
        for tag in ["table", "svg", "div", "ul", "tr", "p", "code", "body"] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            let close = page.matches(&format!("</{tag}>")).count();
            assert_eq!(open, close, "{tag}");
        }
    }
}
