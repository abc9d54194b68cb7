//! One suite for every store: what an archive relies on.

use super::*;
use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// What holds for any store that is empty at first; `far` objects are longer than one request takes.
fn conforms(store: &dyn Store, far: usize) {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    assert_eq!(store.list("").unwrap(), Listing::default());
    assert_eq!(store.list("a/b").unwrap(), Listing::default());
    for missing in [store.get("a/x"), store.get_range("a/x", 0, 1)] {
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(store.length("a/x").unwrap_err().kind(), ErrorKind::NotFound);

    assert!(store.put_if_absent("a/x", &bytes("first")).unwrap());
    assert!(!store.put_if_absent("a/x", &bytes("second")).unwrap());
    assert_eq!(store.get("a/x").unwrap(), "first");
    store.replace("a/x", &bytes("third")).unwrap();
    assert_eq!(store.get("a/x").unwrap(), "third");
    assert_eq!(store.length("a/x").unwrap(), 5);
    assert_eq!(store.get_range("a/x", 1, 3).unwrap(), "hir");
    assert_eq!(store.get_range("a/x", 3, 30).unwrap(), "rd");

    for name in ["a/log-2", "a/log-1", "a/b/y", "a/log-10", "c"] {
        assert!(store.put_if_absent(name, &bytes("1234")).unwrap());
    }
    let top = store.list("").unwrap();
    assert_eq!(
        (&top.below[..], top.objects.len()),
        (&["a".to_string()][..], 1)
    );
    let names =
        |found: Vec<Listed>| -> Vec<String> { found.into_iter().map(|one| one.name).collect() };
    let a = store.list("a").unwrap();
    assert_eq!(a.below, ["b"]);
    assert_eq!(a.objects[0].bytes, 4);
    assert_eq!(names(a.objects), ["log-1", "log-10", "log-2", "x"]);
    store.delete("a/b/y").unwrap();
    let behind = |name| names(store.list_behind("a", name).unwrap());
    assert_eq!(behind("log-"), ["log-1", "log-10", "log-2", "x"]);
    assert_eq!(behind("log-1"), ["log-10", "log-2", "x"]);
    assert_eq!(store.get("a/b/y").unwrap_err().kind(), ErrorKind::NotFound);

    assert!(store.put_if_absent("empty", &Bytes::new()).unwrap());
    assert_eq!(store.get("empty").unwrap(), "");
    assert_eq!(store.get_range("empty", 0, 200).unwrap(), "");
    assert_eq!(store.get_range("c", 9, 1).unwrap(), "");

    let long: Bytes = (0..far).map(|n| (n / 7) as u8).collect();
    assert!(store.put_if_absent("far", &long).unwrap());
    assert!(!store.put_if_absent("far", &bytes("short")).unwrap());
    assert!(store.get("far").unwrap() == long);
    assert!(store.get_range("far", 1_000_000, 99).unwrap() == long[1_000_000..1_000_099]);
    store.replace("far", &long.slice(1..)).unwrap();
    assert_eq!(store.length("far").unwrap(), far as u64 - 1);

    let wins = race(store);
    assert_eq!(wins, 1, "of those that put one name, one has it");
}

fn race(store: &dyn Store) -> usize {
    let put = |n: usize| {
        store
            .put_if_absent("race", &vec![n as u8; 9000].into())
            .unwrap()
    };
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|n| scope.spawn(move || put(n))).collect();
        let won = racers.into_iter().map(|racer| racer.join().unwrap());
        won.filter(|won| *won).count()
    })
}

#[test]
fn a_directory_is_a_store() {
    let scratch = tempfile::tempdir().unwrap();
    conforms(&Directory::new(&scratch.path().join("to/be/made")), 3 << 20);
}

#[test]
fn what_a_put_that_died_has_left_in_a_directory_goes_a_day_later() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Directory::new(scratch.path());
    store.sweep("not/there").unwrap();
    let day = Duration::from_secs(24 * 3600);
    let write = |name: &str, age| {
        let file = File::create_new(scratch.path().join("a").join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    assert!(
        store
            .put_if_absent("a/x", &Bytes::from_static(b"1"))
            .unwrap()
    );
    write("old", day * 2);
    write("x.7-0.tmp", day / 2);
    write("x.8-0.tmp", day * 2);
    // Two at once do no harm.
    std::thread::scope(|scope| {
        scope.spawn(|| store.sweep("a").unwrap());
        store.sweep("a").unwrap();
    });
    let left = std::fs::read_dir(scratch.path().join("a")).unwrap();
    let left: BTreeSet<_> = left.map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left, ["old", "x", "x.7-0.tmp"].map(Into::into).into());
}

#[test]
fn memory_is_a_store() {
    conforms(&Memory::default(), 3 << 20);
}

/// Runs where the environment names a place that is empty: `tests/it` gives it an S3.
#[test]
#[ignore = "needs an empty place in an object store: STANDFAST_TEST_STORE"]
fn an_object_store_is_a_store() {
    let url = std::env::var("STANDFAST_TEST_STORE").expect("STANDFAST_TEST_STORE names it");
    conforms(&*open(&url, &Scratch::of_command()).unwrap(), 40 << 20);
}

#[test]
fn a_place_is_a_directory_or_a_known_url() {
    let open = |place| open(place, &Scratch::of_command());
    assert_eq!(open("some/dir").unwrap().place("a"), "some/dir/a");
    assert_eq!(open("file:///some/dir").unwrap().place("a"), "/some/dir/a");
    for refused in ["", "file://some/dir", "ftp://host/dir", "s3://"] {
        assert!(open(refused).is_err(), "{refused}");
    }
}
