//! The settings file, and the same settings by environment and flag.
//!
//! An input is text: the file, and behind a zero byte lines of `NAME=text` for the environment and
//! of `name=text` for flags. Asserted: memory stays within a bound; every refusal has a place and
//! a reason; settings that load are written as a file that loads to the same, and as flags that do.

use crate::Target;
use crate::input::{How, join, split};
use crate::marks::hit;
use crate::memory::Bound;
use standfast::config::{Config, Error, Loaded, SETTINGS, Sources, example, find};
use std::cell::RefCell;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use tempfile::NamedTempFile;

pub const TARGET: Target = Target {
    name: "config",
    decodes: "config (file, environment, flags: toml, kinds, limits, check)",
    run,
    marks: &["loaded", "refused"],
    seeds,
};

/// A problem quotes its line and its text; a key or value of one byte is a node of a tree.
const MEMORY: Bound = Bound {
    per_byte: 1024,
    fixed: 256 << 10,
};

thread_local! {
    static FILE: RefCell<NamedTempFile> =
        RefCell::new(NamedTempFile::new().expect("a scratch file"));
}

/// A file with this text, until the next is asked for.
fn file_with(text: &[u8]) -> PathBuf {
    FILE.with_borrow_mut(|file| {
        let handle = file.as_file_mut();
        let written = handle
            .set_len(0)
            .and_then(|()| handle.seek(SeekFrom::Start(0)))
            .and_then(|_| handle.write_all(text));
        written.expect("a scratch file can be written");
        file.path().to_path_buf()
    })
}

fn load(text: &[u8], environment: &[(String, String)], flags: &[(String, String)]) -> Outcome {
    Config::load(&Sources {
        file: Some(file_with(text)),
        environment: environment.to_vec(),
        flags: flags.to_vec(),
    })
}

type Outcome = Result<Loaded, Error>;

fn run(input: &[u8]) {
    let Some((_, bytes)) = split(input) else {
        return;
    };
    let (text, rest) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &bytes[..0]),
    };
    let (mut environment, mut flags) = (Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(rest).lines() {
        if let Some((name, text)) = line.split_once('=') {
            let pair = (name.to_string(), text.to_string());
            match find(name) {
                Some(_) => flags.push(pair),
                None => environment.push(pair),
            }
        }
    }
    match MEMORY.hold(bytes.len(), || load(text, &environment, &flags)) {
        Err(error) => {
            hit("refused");
            assert!(!error.problems.is_empty());
            assert!(error.problems.iter().all(|problem| !problem.is_empty()));
        }
        Ok(loaded) => {
            hit("loaded");
            reads_back(&loaded.config);
        }
    }
}

fn reads_back(config: &Config) {
    let text = config.to_toml();
    let again = load(text.as_bytes(), &[], &[]);
    let again = again.unwrap_or_else(|error| panic!("{text}\n{error}"));
    assert_eq!(&again.config, config, "as a file:\n{text}");
    let flag = |name: &str, text: String| (name.to_string(), text);
    let flags: Vec<_> = SETTINGS
        .iter()
        .map(|s| flag(s.name, s.show(config)))
        .collect();
    let again = load(b"", &[], &flags);
    let again = again.unwrap_or_else(|error| panic!("{flags:?}\n{error}"));
    assert_eq!(&again.config, config, "as flags: {flags:?}");
}

fn seeds() -> Vec<Vec<u8>> {
    let texts: [&str; 9] = [
        &example(),
        "node = 3\ncluster = \"bank\"\npeers = [\"1@a:1\", \"2@[::1]:2/witness\"]\n",
        "data_dir = 'x y'\nmax_memory = \"8GiB\"\nlog_level = \"info,standfast=debug\"\n",
        "failover_timeout = \"1m 2s\"\nheartbeat_interval = \"5ms\"\nwal_keep = \"1.5 GiB\"\n",
        "nod = 1\nnode = 99999\nrole = \"leader\"\nsite = [1, [2]]\n[table]\nx = 1\n",
        "cluster_id = \"0123456789abcdef0123456789abcdef\"\nmax_memory = \"50%\"\n",
        "once_max = 1_000\nclient_listen = \"0.0.0.0:0\"\nclient_advertised = \"db-1:7\"\n",
        "\0STANDFAST_NODE=2\nSTANDFAST_CLUSTR=x\nSTANDFAST_PORT_1=y\nsite=west\nnode=x\n",
        "node = 1\0peers=2@b:2,3@c:3/asynchronous\nmax_clients=7\n",
    ];
    texts
        .iter()
        .map(|text| join(How::of(0, 0), text.as_bytes()))
        .collect()
}
