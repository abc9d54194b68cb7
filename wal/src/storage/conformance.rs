//! What every storage must do; run on the real disk and on the simulated one.

use crate::storage::disk::Disk;
use crate::storage::sim::SimDisk;
use crate::storage::{File, Storage, read_all};
use std::io::{ErrorKind, IoSlice};

/// The suite. `reopen` gives the directory as a new process sees it after a power cut.
fn conforms<S: Storage>(storage: &S, reopen: impl Fn(&S) -> S) {
    files_are_made_written_and_read(storage);
    vectored_writes_keep_their_order(storage);
    zeros_take_space(storage);
    names_are_listed_moved_and_removed(storage);
    one_process_holds_the_lock(storage);
    what_was_synced_is_there_for_the_next_process(storage, reopen);
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

fn files_are_made_written_and_read<S: Storage>(storage: &S) {
    assert_eq!(kind(storage.open("a")), ErrorKind::NotFound);
    let file = storage.create("a").expect("create");
    assert_eq!(kind(storage.create("a")), ErrorKind::AlreadyExists);
    assert_eq!(file.len().expect("len"), 0);
    file.write_at(3, b"hello").expect("write");
    assert_eq!(read_all(storage, "a").expect("read"), b"\0\0\0hello");
    file.write_at(0, b"abcd").expect("overwrite");
    assert_eq!(&file.map(6).expect("map")[..], b"abcdel");
    let mut buffer = [0; 4];
    file.read_at(2, &mut buffer).expect("read");
    assert_eq!(&buffer, b"cdel");
    assert_eq!(kind(file.read_at(5, &mut buffer)), ErrorKind::UnexpectedEof);
    assert_eq!(
        kind(file.read_at(50, &mut buffer)),
        ErrorKind::UnexpectedEof
    );
    assert_eq!(kind(file.map(9)), ErrorKind::UnexpectedEof);
    let again = storage.open("a").expect("open");
    again
        .write_at(0, b"X")
        .expect("a file is opened for writing, too");
    assert_eq!(&file.map(1).expect("map")[..], b"X");
}

fn vectored_writes_keep_their_order<S: Storage>(storage: &S) {
    // More parts than one system call takes, empty ones among them.
    let parts: Vec<Vec<u8>> = (0..2500u32)
        .map(|i| vec![i as u8; (i % 7) as usize])
        .collect();
    let mut slices: Vec<IoSlice> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let file = storage.create("vectored").expect("create");
    file.write_vectored_at(10, &mut slices).expect("write");
    let bytes = read_all(storage, "vectored").expect("read");
    assert_eq!(bytes[..10], [0; 10]);
    assert_eq!(bytes[10..], parts.concat());
    file.write_vectored_at(0, &mut [])
        .expect("nothing to write");
}

fn zeros_take_space<S: Storage>(storage: &S) {
    let file = storage.create("zeros").expect("create");
    file.write_at(0, &[7; 3000]).expect("write");
    file.zero(1000, 5000).expect("zero");
    let reserved = storage.create("reserved").expect("create");
    reserved.reserve(5000).expect("reserve");
    let bytes = read_all(storage, "reserved").expect("read");
    assert_eq!(bytes, [0; 5000]);
    let bytes = read_all(storage, "zeros").expect("read");
    assert_eq!(bytes.len(), 6000);
    assert!(bytes[..1000].iter().all(|byte| *byte == 7));
    assert!(bytes[1000..].iter().all(|byte| *byte == 0));
    assert!(storage.free_space().expect("space") > 0);
}

fn names_are_listed_moved_and_removed<S: Storage>(storage: &S) {
    assert_eq!(storage.list("kept").expect("list"), Vec::<String>::new());
    for name in ["m2", "m1", "kept/x"] {
        storage
            .create(name)
            .expect("create")
            .write_at(0, name.as_bytes())
            .expect("write");
    }
    storage.rename("m2", "kept/y").expect("rename");
    storage.rename("m1", "kept/x").expect("rename over");
    assert_eq!(storage.list("kept").expect("list"), ["x", "y"]);
    assert_eq!(read_all(storage, "kept/x").expect("read"), b"m1");
    let names = storage.list("").expect("list");
    assert!(names.is_sorted() && !names.iter().any(|name| name.starts_with('m')));
    assert!(
        !names.iter().any(|name| name == "kept"),
        "only files are listed"
    );
    assert_eq!(kind(storage.rename("m1", "m3")), ErrorKind::NotFound);
    storage.remove("kept/y").expect("remove");
    assert_eq!(kind(storage.remove("kept/y")), ErrorKind::NotFound);
}

fn one_process_holds_the_lock<S: Storage>(storage: &S) {
    let lock = storage.lock().expect("free");
    assert_eq!(kind(storage.lock()), ErrorKind::WouldBlock);
    drop(lock);
    drop(storage.lock().expect("free again"));
}

fn what_was_synced_is_there_for_the_next_process<S: Storage>(
    storage: &S,
    reopen: impl Fn(&S) -> S,
) {
    let file = storage.create("synced.tmp").expect("create");
    file.zero(0, 9000).expect("zero");
    file.write_at(4000, &[9; 1000]).expect("write");
    file.sync().expect("sync");
    storage.rename("synced.tmp", "deep/synced").expect("rename");
    storage.sync_dir("deep").expect("sync");
    storage.sync_dir("").expect("sync");
    let lock = storage.lock().expect("free");
    drop((file, lock));
    let storage = reopen(storage);
    let bytes = read_all(&storage, "deep/synced").expect("read");
    assert_eq!(bytes.len(), 9000);
    assert!(bytes[4000..5000].iter().all(|byte| *byte == 9));
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 1000);
    assert_eq!(kind(storage.open("synced.tmp")), ErrorKind::NotFound);
    drop(storage.lock().expect("the dead hold no locks"));
}

#[test]
fn the_real_disk_conforms() {
    let directory = tempfile::tempdir().expect("scratch");
    let root = directory.path().join("made/below");
    let disk = Disk::open(&root).expect("open");
    conforms(&disk, |disk| Disk::open(disk.root()).expect("open"));
}

#[test]
fn the_simulated_disk_conforms() {
    for seed in 0..20 {
        conforms(&SimDisk::new(seed), SimDisk::crash);
    }
}

/// A failed write or sync leaves nobody knowing what is on disk: nothing may be written after it.
#[test]
fn after_a_failed_write_nothing_is_written_any_more() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").expect("create");
    disk.set_faults(crate::storage::sim::Faults {
        sync_error_ppm: 1_000_000,
        ..Default::default()
    });
    assert!(file.sync().is_err());
    disk.set_faults(Default::default());
    assert!(file.sync().is_err() && file.write_at(0, b"x").is_err());
    assert!(disk.create("b").is_err());
    assert!(
        disk.crash().create("b").is_ok(),
        "the next life starts afresh"
    );
}

/// The real disk's latch, tripped by a write into a file system that has no room: /dev/full takes
/// nothing. (Skipped where that device is missing.)
#[test]
fn the_real_disk_latches_its_first_write_error() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let directory = tempfile::tempdir().expect("scratch");
    std::os::unix::fs::symlink("/dev/full", directory.path().join("full")).expect("link");
    let disk = Disk::open(directory.path()).expect("open");
    let other = disk.create("other").expect("create");
    let full = disk.open("full").expect("open");
    assert!(full.write_at(0, b"x").is_err());
    assert!(other.write_at(0, b"x").is_err() && other.sync().is_err());
    assert!(disk.create("more").is_err());
    assert!(
        read_all(&disk, "other")
            .expect("reading goes on")
            .is_empty()
    );
}

#[test]
fn a_crash_loses_only_what_was_not_synced_and_tears_by_sectors() {
    let (mut torn, mut lost, mut kept) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = disk.create("a").expect("create");
        file.write_at(0, &[1; 4096]).expect("write");
        file.sync().expect("sync");
        disk.sync_dir("").expect("sync");
        file.write_at(100, &[2; 3000]).expect("write");
        let bytes = disk.crash().contents("a").expect("there");
        assert_eq!(bytes.len(), 4096);
        let mut sectors = bytes.chunks(512).enumerate().map(|(at, sector)| {
            let expected: Vec<u8> = (at * 512..at * 512 + 512)
                .map(|place| if (100..3100).contains(&place) { 2 } else { 1 })
                .collect();
            let old = sector.iter().all(|byte| *byte == 1);
            assert!(old || sector == expected, "a sector is old or new");
            if at < 6 { Some(!old) } else { None }
        });
        let new: Vec<bool> = sectors.by_ref().flatten().collect();
        match (new.iter().all(|new| *new), new.iter().any(|new| *new)) {
            (true, _) => kept += 1,
            (_, false) => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(torn > 20 && lost > 20 && kept > 20, "{torn} {lost} {kept}");
}
