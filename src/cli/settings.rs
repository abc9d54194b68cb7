//! `--config FILE` and one flag per setting, made from the table of settings; `config …`.

use super::exit::{ExitCode, Failure, Outcome};
use crate::config::{Config, Loaded, SETTINGS, Sources, example};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::path::PathBuf;

/// What the command line says about settings.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub file: Option<PathBuf>,
    /// Names of settings with the text given.
    pub flags: Vec<(String, String)>,
}

impl Settings {
    /// Loads from all sources; warnings go to standard error.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let sources = Sources::with_environment(self.file.clone(), self.flags.clone());
        let loaded = Config::load(&sources)?;
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(loaded)
    }

    fn read(matches: &ArgMatches) -> Settings {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        Settings {
            file: matches.get_one::<PathBuf>("config").cloned(),
            flags: SETTINGS
                .iter()
                .filter_map(|setting| Some((setting.name.to_owned(), text(setting.name)?)))
                .collect(),
        }
    }
}

impl clap::Args for Settings {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("The node's settings file (TOML)");
        let flags = SETTINGS.iter().map(|setting| {
            let about = setting.about.trim_end_matches('.');
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name("VALUE")
                .allow_hyphen_values(true)
                .help(format!("{about}{default}"))
                .help_heading(setting.group)
        });
        command.arg(file).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args(command)
    }
}

impl clap::FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Settings, clap::Error> {
        Ok(Settings::read(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Settings::read(matches);
        Ok(())
    }
}

/// Shows and checks settings
#[derive(clap::Subcommand, Debug)]
pub enum ConfigCommand {
    /// Print a complete settings file with every default
    Example,
    /// Check the settings that `serve` would use, and print what differs from the defaults
    Check {
        #[command(flatten)]
        settings: Settings,
        /// Print every setting with its value and where it comes from, as JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Example => print!("{}", example()),
        ConfigCommand::Check { settings, json } => {
            let loaded = settings.load()?;
            if *json {
                println!("{}", as_json(&loaded));
            } else {
                print!("{}", as_text(&loaded));
            }
        }
    }
    Ok(ExitCode::Done)
}

fn as_text(loaded: &Loaded) -> String {
    let mut out = String::from("the settings are valid\n");
    for setting in SETTINGS {
        if let Some(origin) = loaded.origins.get(setting.name) {
            let value = setting.show(&loaded.config);
            out.push_str(&format!("{:<24} {value:<32} ({origin})\n", setting.name));
        }
    }
    out
}

fn as_json(loaded: &Loaded) -> serde_json::Value {
    let settings = SETTINGS.iter().map(|setting| {
        let origin = loaded.origins.get(setting.name);
        let origin = origin.map_or("default".to_owned(), ToString::to_string);
        let value = setting.show(&loaded.config);
        (
            setting.name.to_owned(),
            serde_json::json!({"value": value, "from": origin}),
        )
    });
    serde_json::json!({
        "settings": settings.collect::<serde_json::Map<_, _>>(),
        "warnings": loaded.warnings,
    })
}
