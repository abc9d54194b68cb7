//! What a drill is held against and where its report goes: settings, and flags that override them.

use super::report::Report;
use super::{html, junit, sign, trend};
use crate::cli::exit::{ExitCode, Failure, Outcome};
use crate::cli::settings::Settings;
use crate::config::Config;
use ed25519_dalek::SigningKey;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The flags that every drill takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct RuleFlags {
    /// Fail if it takes longer until it is served again; 0 is no target
    #[arg(long, value_name = "DURATION")]
    rto_target: Option<String>,
    /// Fail if the backup lacks more than so much time of commits; 0 is no target
    #[arg(long, value_name = "DURATION")]
    rpo_target: Option<String>,
    /// The key that signs the report
    #[arg(long, value_name = "FILE")]
    drill_key: Option<String>,
    /// The directory that keeps the reports
    #[arg(long, value_name = "DIR")]
    drill_reports: Option<String>,
    #[arg(long)]
    json: bool,
}

/// The same, resolved.
pub struct Rules {
    pub rto_target: Duration,
    pub rpo_target: Duration,
    pub key: Option<SigningKey>,
    pub reports: PathBuf,
    pub json: bool,
}

impl RuleFlags {
    /// With the settings of `file`, if one is given, and of the environment.
    pub fn resolve(&self, file: Option<&PathBuf>) -> Result<(Rules, Config), Failure> {
        let given = [
            ("rto_target", &self.rto_target),
            ("rpo_target", &self.rpo_target),
            ("drill_key", &self.drill_key),
            ("drill_reports", &self.drill_reports),
        ];
        let flags = given
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), text.clone()?)));
        let settings = Settings {
            file: file.cloned(),
            flags: flags.collect(),
        };
        let config = settings.load()?.config;
        let rules = Rules {
            rto_target: config.rto_target,
            rpo_target: config.rpo_target,
            // Read before anything is touched: a drill that cannot sign must not begin.
            key: config.drill_key.as_deref().map(sign::load).transpose()?,
            reports: config.drill_reports.clone(),
            json: self.json,
        };
        std::fs::create_dir_all(&rules.reports).map_err(|error| {
            let text = format!("{}: {error}", rules.reports.display());
            Failure::new(ExitCode::Settings, text)
        })?;
        Ok((rules, config))
    }
}

impl Rules {
    /// Keeps the report in all its forms, shows it, and ends with its verdict.
    /// `keep` is given its text, signed, to keep it elsewhere as well.
    pub fn conclude(
        &self,
        report: &Report,
        keep: impl FnOnce(&str) -> Result<(), Failure>,
    ) -> Outcome {
        let text = sign::file_text(report, self.key.as_ref());
        let kept = self.keep(report, &text)?;
        if self.json {
            print!("{text}");
        } else {
            print!("{}", report.as_text());
            println!("report     {}", kept.display());
        }
        keep(&text)?;
        Ok(if report.passed {
            ExitCode::Done
        } else {
            ExitCode::DrillFailed
        })
    }

    /// Writes the report as JSON, JUnit and a page; answers the path of the first.
    fn keep(&self, report: &Report, text: &str) -> Result<PathBuf, Failure> {
        let name = format!("{}-{}.json", report.compact_time(), report.kind);
        let json = self.reports.join(name);
        write_new(&json, text)?;
        write_new(&json.with_extension("xml"), &junit::suite(report))?;
        write_new(&json.with_extension("html"), &html::page(report, text))?;
        trend::write_index(&self.reports)?;
        Ok(json)
    }
}

/// Writes a file whole or not at all, over an older one of that name.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::Failed, format!("{}: {error}", path.display()))
    };
    let own = format!(".{}.new", std::process::id());
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(own);
    std::fs::write(&temporary, text).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_a_report_is_kept_in_all_forms() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "rto_target = \"30s\"\nrpo_target = \"5s\"\n").expect("a new file");
        let reports = dir.path().join("reports");
        let flags = RuleFlags {
            rto_target: Some("1s".to_owned()),
            drill_reports: Some(reports.display().to_string()),
            ..RuleFlags::default()
        };
        let (rules, _) = flags.resolve(Some(&file)).expect("valid");
        assert_eq!(rules.rto_target, Duration::from_secs(1));
        assert_eq!(rules.rpo_target, Duration::from_secs(5));
        let kept = rules.keep(&sample(), &sign::file_text(&sample(), None));
        let kept = kept.expect("the directory is writable");
        let name = kept.file_name().and_then(|name| name.to_str());
        assert_eq!(name, Some("20260131T120000.000Z-restore.json"));
        for extension in ["json", "xml", "html"] {
            assert!(kept.with_extension(extension).is_file(), "{extension}");
        }
        assert!(reports.join("index.html").is_file());
        assert_eq!(std::fs::read_dir(&reports).expect("there").count(), 4);
        let wrong = RuleFlags {
            rpo_target: Some("soon".to_owned()),
            ..RuleFlags::default()
        };
        let refused = wrong.resolve(None).map(|_| ()).expect_err("no duration");
        assert_eq!(refused.code, ExitCode::Settings);
    }
}
