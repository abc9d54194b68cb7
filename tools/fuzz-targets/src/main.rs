//! Names the targets, writes their own inputs, or runs one on files: what `tools/fuzz.sh` calls.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use fuzz_targets::{TARGETS, target};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: fuzz-targets names | seeds DIRECTORY | run TARGET FILE...";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["names"] => TARGETS
            .iter()
            .for_each(|target| println!("{}", target.name)),
        ["seeds", directory] => write_seeds(Path::new(directory)),
        ["run", name, ref files @ ..] => {
            for file in files {
                let input = fs::read(file).expect("a file with an input");
                println!("{name}: {file}, {} bytes", input.len());
                (target(name).run)(&input);
            }
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// One directory for each target, one file for each seed.
fn write_seeds(directory: &Path) {
    for target in TARGETS {
        let dir = directory.join(target.name);
        fs::create_dir_all(&dir).expect("a directory for seeds");
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(dir.join(format!("seed-{number:03}")), seed).expect("a seed is written");
        }
    }
}
