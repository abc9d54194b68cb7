//! Runs the scenarios in `src/scripts`: append, damage, crash, recover, with dumps.

use super::{HISTORY, IDENTITY, options};
use crate::inspect::{hex, inspect};
use crate::record::{Epoch, Kind, Link, Lsn, Record};
use crate::storage::sim::SimDisk;
use crate::{End, Error, Log, Options, Recovered};
use goldenscript::{Command, Runner};
use std::fmt::Write as _;

/// The log of one scenario and every record that was ever appended to it.
struct Scene {
    disk: SimDisk,
    log: Option<Log<SimDisk>>,
    damaged: Vec<crate::DamagedRange>,
    appended: Vec<Record>,
}

type Answer = Result<String, Box<dyn std::error::Error>>;

fn line(text: impl std::fmt::Display) -> Answer {
    Ok(format!("{text}\n"))
}

impl Scene {
    fn new() -> Scene {
        Scene {
            disk: SimDisk::new(1),
            log: None,
            damaged: Vec::new(),
            appended: Vec::new(),
        }
    }

    fn log(&mut self) -> &mut Log<SimDisk> {
        self.log.as_mut().expect("the script opened the log")
    }

    /// The newest segment's file.
    fn newest(&self) -> String {
        let mut names = self.disk.files().into_iter().map(|(name, _)| name);
        names
            .rfind(|name| crate::segment::first_lsn_of(name).is_some())
            .expect("a segment")
    }

    fn describe(&mut self, recovered: Recovered) -> Answer {
        let mut out = String::new();
        let end = match &recovered.end {
            End::Torn { kept } => format!("torn, kept in {kept}"),
            End::Suspect { kept } => format!("suspect, kept in {kept}"),
            other => format!("{other:?}").to_lowercase(),
        };
        writeln!(out, "tail {} end {end}", recovered.tail.position)?;
        if recovered.finished_interrupted {
            writeln!(out, "finished what was interrupted")?;
        }
        for range in &recovered.damaged {
            let (first, last) = (range.first_lsn, range.last_lsn);
            writeln!(
                out,
                "damaged {first}..{last} in {} at {}",
                range.file, range.offset
            )?;
        }
        self.damaged = recovered.damaged;
        Ok(out)
    }

    fn open(&mut self, options: Options) -> Answer {
        self.log = None;
        match Log::open(self.disk.clone(), IDENTITY, Link::default(), options) {
            Ok((log, recovered)) => {
                self.log = Some(log);
                self.describe(recovered)
            }
            Err(error) => line(format!("refused: {error}")),
        }
    }

    fn push(&mut self, kind: Kind, text: &str) {
        let link = self.log().written();
        let epoch = Epoch(link.position.epoch.0.max(1));
        let record = Record::build(link, kind, epoch, link.timestamp + 1, 1, text.as_bytes());
        self.appended.push(record.clone());
        self.log().push(record);
    }

    fn inspect(&self, name: &str) -> Answer {
        let bytes = self.disk.contents(name).ok_or("no such file")?;
        let inspection = inspect(&bytes).map_err(|damage| format!("{damage:?}"))?;
        let mut out = format!("{}\n", inspection.header);
        for line in inspection {
            writeln!(out, "{line}")?;
        }
        Ok(out)
    }

    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) -> Answer {
        let name = self.newest();
        let mut bytes = self.disk.contents(&name).ok_or("no such file")?;
        change(&mut bytes);
        self.disk.put(&name, bytes);
        Ok(String::new())
    }
}

impl Runner for Scene {
    fn run(&mut self, command: &Command) -> Answer {
        let mut args = command.consume_args();
        let mut words = args.rest_pos().into_iter().map(|arg| arg.value.as_str());
        let number = |words: &mut dyn Iterator<Item = &str>| -> Result<u64, String> {
            let word = words.next().ok_or("a number is missing")?;
            word.parse().map_err(|error| format!("{word}: {error}"))
        };
        let failed = |error: Error| error.to_string();
        match command.name.as_str() {
            "create" => {
                let base = Link::default();
                let log = Log::create(self.disk.clone(), IDENTITY, HISTORY, base, options());
                self.log = Some(log.map_err(failed)?);
                Ok(String::new())
            }
            "open" => {
                let words: Vec<_> = words.collect();
                self.open(Options {
                    alone: words.contains(&"alone"),
                    cut_damaged_end: words.contains(&"permitted"),
                    ..options()
                })
            }
            "push" => {
                words.for_each(|text| self.push(Kind::Commands, text));
                Ok(String::new())
            }
            "tick" => {
                self.push(Kind::Tick, "");
                Ok(String::new())
            }
            "flush" => line(self.log().flush().map_err(failed)?),
            "settle" => self
                .log()
                .settle()
                .map(|()| String::new())
                .map_err(|e| failed(e).into()),
            "trust" => self
                .log()
                .trust()
                .map(|()| String::new())
                .map_err(|e| failed(e).into()),
            "cut" => {
                let after = Lsn(number(&mut words)?);
                let cut = self.log().cut(after).map_err(failed)?;
                line(format!(
                    "tail {}, removed {:?}, kept in {:?}",
                    cut.tail.position, cut.records, cut.file
                ))
            }
            "reset" => {
                let base = Link {
                    position: crate::Position {
                        epoch: Epoch(2),
                        lsn: Lsn(number(&mut words)?),
                    },
                    chain: crate::Chain(7),
                    timestamp: 1000,
                };
                self.log().reset(base, HISTORY, Lsn::ZERO).map_err(failed)?;
                line(format!("begins at {}", self.log().first_lsn()))
            }
            "repair" => {
                let range = self.damaged.first().cloned().ok_or("nothing is damaged")?;
                let mut records = self.appended.clone();
                records.retain(|record| {
                    record.first_lsn() >= range.first_lsn && record.last_lsn() <= range.last_lsn
                });
                let recovered = self.log().repair(&range, &records).map_err(failed)?;
                self.describe(recovered)
            }
            "restart" => {
                self.log = None;
                self.disk = self.disk.restart();
                Ok(String::new())
            }
            "halt-after" => {
                self.disk.halt_after(number(&mut words)?);
                Ok(String::new())
            }
            "flip" => {
                let at = number(&mut words)? as usize;
                self.damage(|bytes| bytes[at] ^= 1)
            }
            "zero" => {
                let from = number(&mut words)? as usize;
                let to = number(&mut words)? as usize;
                self.damage(|bytes| bytes[from..to].fill(0))
            }
            "shorten" => {
                let len = number(&mut words)? as usize;
                self.damage(|bytes| bytes.truncate(len))
            }
            "inspect" => self.inspect(&self.newest()),
            "hex" => {
                let (from, to) = (number(&mut words)?, number(&mut words)?);
                let bytes = self.disk.contents(&self.newest()).ok_or("no such file")?;
                Ok(hex(&bytes[from as usize..to as usize], from))
            }
            "files" => {
                let files = self.disk.files().into_iter();
                Ok(files.map(|(name, len)| format!("{name} {len}\n")).collect())
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

fn play(name: &str) {
    let path = format!("{}/src/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Scene::new(), path).expect("the script reads as written");
}

#[test]
fn a_segment_byte_by_byte() {
    play("a_segment_byte_by_byte");
}

#[test]
fn a_torn_write_makes_the_log_suspect() {
    play("a_torn_write_makes_the_log_suspect");
}

#[test]
fn alone_a_torn_write_is_cut_and_rot_is_refused() {
    play("alone_a_torn_write_is_cut_and_rot_is_refused");
}

#[test]
fn rot_in_acknowledged_records_is_repaired() {
    play("rot_in_acknowledged_records_is_repaired");
}

#[test]
fn an_interrupted_cut_is_finished() {
    play("an_interrupted_cut_is_finished");
}

/// Every script in the directory is played by a test above.
#[test]
fn no_script_is_forgotten() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scripts");
    let source = include_str!("scripts.rs");
    for entry in std::fs::read_dir(directory).expect("scripts") {
        let name = entry
            .expect("entry")
            .file_name()
            .into_string()
            .expect("a name");
        assert!(source.contains(&format!("play(\"{name}\")")), "{name}");
    }
}
