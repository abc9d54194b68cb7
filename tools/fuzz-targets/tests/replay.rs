//! Every target on the kept corpus, on real encodings, and on some thousand seeded mutations.
//!
//! The count of mutations is fixed, so that two runs do the same; `FUZZ_MUTATIONS` sets another.
//! A finding is written below the target directory, and its message names the file.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use fuzz_targets::mutate::mutate;
use fuzz_targets::{Target, marks, target};
use standfast_wal::storage::sim::Random;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("a readable directory").path();
        let bytes = fs::read(&path).expect("a readable file");
        found.push((path.display().to_string(), bytes));
    }
    found.sort();
    found
}

/// Runs one input; a finding is kept as a file and then goes on as the panic that it was.
fn run(target: &Target, what: &str, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    if let Err(panic) = outcome {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("findings");
        fs::create_dir_all(&dir).expect("a directory for findings");
        let kept = dir.join(format!("{}-{:08x}", target.name, crc32fast::hash(input)));
        fs::write(&kept, input).expect("the finding is kept");
        eprintln!("{}: {what}; the input is {}", target.name, kept.display());
        resume_unwind(panic);
    }
}

fn replay(name: &str, mutations: u64) {
    let target = target(name);
    let kept = corpus(target);
    assert!(!kept.is_empty(), "the corpus of {name} is empty");
    for (file, input) in &kept {
        run(target, file, input);
    }
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} makes inputs of its own");
    for (number, input) in seeds.iter().enumerate() {
        run(target, &format!("seed {number}"), input);
    }
    let pool: Vec<Vec<u8>> = kept
        .into_iter()
        .map(|(_, input)| input)
        .chain(seeds)
        .collect();
    let wanted = std::env::var("FUZZ_MUTATIONS").ok();
    let mutations = wanted.map_or(mutations, |count| count.parse().expect("a number"));
    let mut random = Random::new(1);
    marks::take();
    for number in 0..mutations {
        let at = random.below(pool.len() as u64);
        let mut input = pool[usize::try_from(at).expect("an index")].clone();
        mutate(&mut input, &pool, &mut random);
        run(target, &format!("mutation {number}"), &input);
    }
    let reached = marks::take();
    println!("{name}: {reached:?}");
    let known = reached.keys().all(|mark| target.marks.contains(mark));
    assert!(known, "{reached:?} names what {:?} does not", target.marks);
    for mark in target.marks {
        assert!(
            reached.contains_key(mark),
            "no mutation of {name} reached `{mark}`"
        );
    }
}

macro_rules! replays {
    ($($name:ident: $mutations:literal,)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), $mutations);
            }
        )*
        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let all = fuzz_targets::TARGETS.map(|target| target.name);
            assert_eq!(replayed, all);
        }
    };
}

// A few seconds each, unoptimized.
replays! {
    resp: 20_000,
    commands: 2_000,
    peer_frame: 20_000,
    packed_link: 4_000,
    wal_record: 50_000,
    wal_recovery: 1_000,
    state_block: 10_000,
    snapshot_file: 1_000,
    archive: 10_000,
    meta_file: 3_000,
    config: 4_000,
    reply: 20_000,
}
