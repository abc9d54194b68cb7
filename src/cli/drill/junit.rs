//! A report as JUnit XML, for whatever runs drills as tests: a case for each step and each target.

use super::report::Report;
use std::fmt::Write;

pub fn suite(report: &Report) -> String {
    let steps = report.steps.iter().map(|step| Case {
        name: &step.name,
        seconds: step.seconds,
        failure: (!step.ok).then_some(step.detail.as_str()),
    });
    let mut cases: Vec<Case> = steps.collect();
    // What failed and was no step: targets, lost writes, digests.
    let failed_steps: Vec<String> = report
        .steps
        .iter()
        .filter(|step| !step.ok)
        .map(|step| format!("{}: {}", step.name, step.detail))
        .collect();
    let others = report
        .reasons
        .iter()
        .filter(|reason| !failed_steps.contains(reason));
    let others: Vec<&str> = others.map(String::as_str).collect();
    let verdict = others.join("; ");
    cases.push(Case {
        name: "targets and proofs",
        seconds: 0.0,
        failure: (!others.is_empty()).then_some(verdict.as_str()),
    });
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let seconds: f64 = report.steps.iter().map(|step| step.seconds).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites><testsuite name=\"standfast drill {}\" timestamp=\"{}\" tests=\"{}\" \
         failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{seconds:.3}\">",
        escape(&report.kind),
        escape(&report.started),
        cases.len(),
    );
    out.push_str("<properties>\n");
    let what = ("what".to_owned(), report.what.clone());
    for (name, value) in [what].iter().chain(&report.figures()).chain(&report.facts) {
        let (name, value) = (escape(name), escape(value));
        let _ = writeln!(out, "<property name=\"{name}\" value=\"{value}\"/>");
    }
    out.push_str("</properties>\n");
    for case in &cases {
        case.write(&report.kind, &mut out);
    }
    let unchecked: Vec<String> = report.unchecked.iter().map(|text| escape(text)).collect();
    if !unchecked.is_empty() {
        let _ = writeln!(
            out,
            "<system-out>unchecked: {}</system-out>",
            unchecked.join("\nunchecked: ")
        );
    }
    out.push_str("</testsuite></testsuites>\n");
    out
}

struct Case<'a> {
    name: &'a str,
    seconds: f64,
    failure: Option<&'a str>,
}

impl Case<'_> {
    fn write(&self, kind: &str, out: &mut String) {
        let (name, kind, seconds) = (escape(self.name), escape(kind), self.seconds);
        let head = format!(
            "<testcase classname=\"standfast.drill.{kind}\" name=\"{name}\" time=\"{seconds:.3}\""
        );
        let _ = match self.failure {
            None => writeln!(out, "{head}/>"),
            Some(text) => {
                let text = escape(text);
                writeln!(out, "{head}><failure message=\"{text}\"/></testcase>")
            }
        };
    }
}

/// Text that stands in XML or HTML, between tags or in an attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(letter),
            // XML has no way to write these at all.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn every_step_is_a_case_and_what_failed_is_a_failure() {
        let well = suite(&sample());
        assert!(well.contains("tests=\"3\" failures=\"0\""), "{well}");
        assert!(well.contains("value=\"restore of &lt;b&gt;\""), "{well}");
        let mut report = sample();
        report.steps[1].ok = false;
        report.reasons = vec![
            format!("start: {}", report.steps[1].detail),
            "RTO was late".to_owned(),
        ];
        let badly = suite(&report);
        assert!(badly.contains("failures=\"2\""), "{badly}");
        let failure = "<failure message=\"1 &lt; 2 &amp; &quot;so&quot; on\"/>";
        assert!(badly.contains(failure), "{badly}");
        assert!(
            badly.contains("<failure message=\"RTO was late\"/>"),
            "{badly}"
        );
        assert!(badly.contains("unchecked: the moon"), "{badly}");
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(escape("a\u{1}<'"), "a\u{fffd}&lt;&#39;");
    }
}
