//! A byte flipped or a file cut short in a stopped backup's data directory: on start the node
//! repairs itself from a peer, or refuses with a message that names the file; it never serves
//! wrong data. Promise 3 through real processes; every byte of small files is tried in process.
//!
//! CI tries few places. The long run: `STANDFAST_DAMAGE_PLACES=500 cargo test --test it damage`.

use crate::turn;
use rig::cluster::{PATIENCE, digest};
use rig::{Cluster, Conn, Node, Random, Spec, until};
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Keys written before the first place is tried.
const KEYS: usize = 400;

/// What is done to one file.
#[derive(Debug, Clone)]
enum Damage {
    /// One bit of the byte at `at`.
    Flip { at: u64, bit: u8 },
    /// Everything from `to` on is gone.
    Cut { to: u64 },
}

/// How one trial ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It runs, has applied what the primary has, and its digest is the primary's.
    Healed,
    /// It ended with a message that names the file.
    Refused,
}

#[test]
fn no_damaged_byte_in_a_backups_directory_is_ever_served() {
    let places = turn::count("STANDFAST_DAMAGE_PLACES", 24);
    let mut random = Random::from_environment();
    let mut cluster = turn::start(&Spec::pair());
    let backup = cluster.backup();
    let mut client = cluster.client();
    for number in 0..KEYS {
        write(&mut client, number, 0);
    }
    // A snapshot, so that there is one to damage.
    cluster
        .connect(&backup)
        .call(&["BGSAVE"])
        .expect("BGSAVE is answered");
    for number in 0..KEYS / 2 {
        write(&mut client, number, 1);
    }
    cluster.wait_equal_digests(&cluster.data_nodes());

    let (mut healed, mut refused) = (0, 0);
    for round in 0..places {
        stop(&mut cluster, &backup);
        // Something it has not seen, so that it also has to catch up.
        write(&mut client, round % KEYS, round + 2);
        let (file, damage) = choose(&mut random, &backup.data_dir);
        let story = format!("round {round}: {damage:?} in {}", file.display());
        let undo = apply(&file, &damage);
        let printed_before = cluster.printed(&backup).len();
        cluster.restart(&backup);
        match verdict(&mut cluster, &backup, &story) {
            Verdict::Healed => {
                compare_sample(&cluster, &backup, &mut random, &story);
                healed += 1;
            }
            Verdict::Refused => {
                let said = cluster.printed(&backup)[printed_before..].to_owned();
                let name = file
                    .file_name()
                    .and_then(|name| name.to_str())
                    .expect("a name");
                assert!(
                    said.contains(name),
                    "{story}: the message names no file: {said}"
                );
                refused += 1;
                // Only the damage stood between the node and its start.
                undo.restore(&file);
                cluster.restart(&backup);
                let after = verdict(&mut cluster, &backup, &story);
                assert_eq!(
                    after,
                    Verdict::Healed,
                    "{story}: undone, but it does not start"
                );
            }
        }
    }
    println!("{places} places: {healed} healed or harmless, {refused} refused by name");
    assert!(healed > 0, "a backup that never comes back proves nothing");
}

/// Alone a node refuses rather than forgets, and its operator has the last word.
#[test]
fn a_damaged_end_of_a_lone_log_is_cut_only_when_asked_for() {
    let mut cluster = turn::start(&Spec::standalone());
    let mut node = cluster.node("0");
    let mut client = cluster.client();
    (0..50).for_each(|n| write(&mut client, n, n));
    cluster.kill(&node);
    let files = files_below(&node.data_dir);
    let newest = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "wal"))
        .max()
        .expect("a log has a segment");
    let bytes = fs::read(&newest).expect("it is readable");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records");
    let flip = Damage::Flip {
        at: used as u64 - 30,
        bit: 3,
    };
    apply(&newest, &flip);
    cluster.restart(&node);
    let code = until("it refuses", PATIENCE, || cluster.exited(&node));
    let printed = cluster.printed(&node);
    assert_ne!(code, 0, "{printed}");
    assert!(printed.contains("--cut-damaged-end"), "{printed}");
    node.start += " --cut-damaged-end";
    cluster.restart(&node);
    until("it serves again", PATIENCE, || {
        let mut client = Conn::open(&node.client, PATIENCE).ok()?;
        let value = client.call(&["GET", "key:48"]).ok()?;
        (value.text() == "value 48 of 48").then_some(())
    });
}

fn write(client: &mut Conn, key: usize, value: usize) {
    let reply = client.call(&[
        "SET",
        &format!("key:{key}"),
        &format!("value {value} of {key}"),
    ]);
    assert_eq!(reply.expect("SET is answered"), rig::Value::ok());
}

fn stop(cluster: &mut Cluster, node: &Node) {
    if cluster.exited(node).is_none() {
        cluster.kill(node);
    }
}

/// Any file, and in it any byte of what is used: zeros that were laid out ahead of time are tried
/// now and then, not nearly always as their share would have it.
fn choose(random: &mut Random, dir: &Path) -> (PathBuf, Damage) {
    let files = files_below(dir);
    assert!(!files.is_empty(), "nothing to damage in {}", dir.display());
    let file = files[random.below(files.len() as u64) as usize].clone();
    let len = fs::metadata(&file).expect("a file that was listed").len();
    let reach = if random.below(8) == 0 {
        len
    } else {
        used(&file, len)
    };
    let at = random.below(reach.max(1));
    let damage = if random.below(4) == 0 {
        Damage::Cut { to: at }
    } else {
        Damage::Flip {
            at,
            bit: random.below(8) as u8,
        }
    };
    (file, damage)
}

/// Every file with something in it. node.toml is the operator's text, not the node's data.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)
            .expect("a directory of the node")
            .flatten()
        {
            let (path, meta) = (
                entry.path(),
                entry.metadata().expect("metadata of an entry"),
            );
            if meta.is_dir() {
                open.push(path);
            } else if meta.len() > 0 && path.extension().is_none_or(|kind| kind != "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Where the zeros at the end of a file begin.
fn used(path: &Path, len: u64) -> u64 {
    const STEP: u64 = 1 << 20;
    let file = OpenOptions::new()
        .read(true)
        .open(path)
        .expect("a file that was listed");
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut chunk = vec![0; (end - start) as usize];
        file.read_exact_at(&mut chunk, start)
            .expect("a file that nobody else writes");
        if let Some(last) = chunk.iter().rposition(|&byte| byte != 0) {
            return start + last as u64 + 1;
        }
        end = start;
    }
    0
}

/// What `apply` overwrote.
struct Undo {
    at: u64,
    bytes: Vec<u8>,
}

impl Undo {
    fn restore(self, path: &Path) {
        let file = OpenOptions::new().write(true).open(path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.write_all_at(&self.bytes, self.at)
            .expect("what was read can be written");
    }
}

fn apply(path: &Path, damage: &Damage) -> Undo {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a listed file");
    match *damage {
        Damage::Flip { at, bit } => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)
                .expect("a byte within the file");
            file.write_all_at(&[byte[0] ^ (1 << bit)], at)
                .expect("one byte");
            Undo {
                at,
                bytes: byte.to_vec(),
            }
        }
        Damage::Cut { to } => {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(to))
                .expect("a place within the file");
            file.read_to_end(&mut bytes).expect("the rest of the file");
            file.set_len(to).expect("a file can be cut");
            file.flush().expect("nothing is buffered");
            Undo { at: to, bytes }
        }
    }
}

/// Waits until the node is equal to the primary or has ended. Whatever it says of itself while it
/// catches up, at an LSN that the primary has too its digest must be the primary's.
fn verdict(cluster: &mut Cluster, backup: &Node, story: &str) -> Verdict {
    let primary = cluster.primary();
    until(&format!("{story}: it heals or refuses"), PATIENCE, || {
        if let Some(code) = cluster.exited(backup) {
            assert_ne!(code, 0, "{story}: it ended as if all were well");
            return Some(Verdict::Refused);
        }
        let (theirs, ours) = (digest(&primary.client)?, digest_of(backup)?);
        if theirs.0 != ours.0 {
            return None;
        }
        assert_eq!(
            theirs.1, ours.1,
            "{story}: I2: another digest at LSN {}",
            ours.0
        );
        Some(Verdict::Healed)
    })
}

/// As `rig::cluster::digest`, of a node that may end at any time.
fn digest_of(node: &Node) -> Option<(i64, String)> {
    let brief = std::time::Duration::from_millis(500);
    let mut conn = Conn::open(&node.client, brief).ok()?;
    match conn.call(&["DIGEST"]).ok()? {
        rig::Value::Array(parts) => Some((parts.first()?.number(), parts.get(1)?.text())),
        _ => None,
    }
}

/// The digest is kept up to date as keys change; reading keys back does not rely on it.
fn compare_sample(cluster: &Cluster, backup: &Node, random: &mut Random, story: &str) {
    let mut ours = cluster.connect(backup);
    ours.call(&["READONLY"]).expect("READONLY is answered");
    let mut theirs = cluster.client();
    for _ in 0..20 {
        let key = format!("key:{}", random.below(KEYS as u64));
        let truth = theirs.call(&["GET", &key]).expect("GET is answered");
        let read = until(
            &format!("{story}: the backup answers reads"),
            PATIENCE,
            || {
                let read = ours.call(&["GET", &key]).expect("GET is answered");
                read.refusal().is_none().then_some(read)
            },
        );
        assert_eq!(read, truth, "{story}: {key} differs");
    }
}
