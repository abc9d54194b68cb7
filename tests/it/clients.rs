//! Clients nobody here wrote: redis-cli, redis-benchmark, redis-py, the redis crate; and two that
//! know Sentinel and follow a failover unchanged. `./test.sh` installs what is not Rust.

use crate::turn;
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{Client, Commands, Connection};
use rig::cluster::{PATIENCE, SERVICE};
use rig::{Cluster, Spec, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn host_and_port(address: &str) -> (&str, &str) {
    address.split_once(':').expect("host:port")
}

fn finished(mut command: Command) -> Output {
    let name = format!("{command:?}");
    command
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}; ./test.sh installs it"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn redis_cli_speaks_both_protocols_and_pipes() {
    let cluster = turn::start(&Spec::standalone());
    let primary = cluster.primary();
    let (host, port) = host_and_port(&primary.client);
    for protocol in ["-2", "-3"] {
        let session = "SET k v\nGET k\nMULTI\nINCR n\nINCR n\nEXEC\nTYPE k\nDEL k n\nGET k\n";
        let mut child = Command::new("redis-cli")
            .args(["-h", host, "-p", port, protocol])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli is there: ./test.sh installs it");
        feed(&mut child, session.as_bytes());
        let output = child.wait_with_output().expect("redis-cli ends");
        assert!(output.status.success(), "{output:?}");
        let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        let expected = [
            "OK", "v", "OK", "QUEUED", "QUEUED", "1", "2", "string", "2", "",
        ];
        assert_eq!(lines, expected, "redis-cli {protocol}");
    }

    // Mass insertion, as Redis's documentation teaches it.
    let mut protocol = Vec::new();
    for number in 0..1000 {
        let key = format!("pipe:{number}");
        let args: [&[u8]; 3] = [b"SET", key.as_bytes(), b"x"];
        rig::resp::encode(&mut protocol, args.into_iter());
    }
    let mut child = Command::new("redis-cli")
        .args(["-h", host, "-p", port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli is there: ./test.sh installs it");
    feed(&mut child, &protocol);
    let output = child.wait_with_output().expect("redis-cli ends");
    let said = text(&output.stdout);
    assert!(said.contains("errors: 0, replies: 1000"), "{said}");
}

fn feed(child: &mut Child, bytes: &[u8]) {
    use std::io::Write;
    let mut input = child.stdin.take().expect("a piped input");
    input.write_all(bytes).expect("the child reads its input");
}

#[test]
fn redis_benchmark_runs_its_pipelined_tests_without_an_error() {
    let cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    let (host, port) = host_and_port(&primary.client);
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-h",
        host,
        "-p",
        port,
        "-t",
        "set,get,incr,mset",
        "-P",
        "16",
    ]);
    command.args(["-n", "20000", "-r", "10000", "-q"]);
    let output = finished(command);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr)).replace('\r', "\n");
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("rror"), "{said}");
    for test in ["SET", "GET", "INCR", "MSET (10 keys)"] {
        let line = said
            .lines()
            .rev()
            .find(|line| line.starts_with(&format!("{test}: ")));
        let line = line.unwrap_or_else(|| panic!("no result for {test}: {said}"));
        assert!(line.contains("requests per second"), "{line}");
        println!("{line}");
    }
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// The interpreter that `./test.sh` prepares with redis-py.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(path.is_file(), "no {}: ./test.sh makes it", path.display());
    path
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

#[test]
fn redis_py_finds_what_it_knows_from_redis() {
    let cluster = turn::start(&Spec::pair());
    let primary = cluster.primary();
    let (host, port) = host_and_port(&primary.client);
    let mut command = Command::new(python());
    command.arg(script("tour.py")).args([host, port]);
    let output = finished(command);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    cluster.wait_equal_digests(&cluster.data_nodes());
}

/// Starts the Sentinel-aware redis-py client, hurts the primary in the middle, and lets it finish.
#[test]
fn a_sentinel_aware_redis_py_client_follows_a_failover_unchanged() {
    let mut cluster = turn::start(&Spec::pair());
    let progress = cluster.scratch().join("progress");
    let child = Command::new(python())
        .arg(script("follow.py"))
        .arg(SERVICE)
        .arg(&progress)
        .args(cluster.addresses())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python was found");
    let written = || -> u64 {
        let text = std::fs::read_to_string(&progress).unwrap_or_default();
        text.lines()
            .last()
            .and_then(|line| line.parse().ok())
            .unwrap_or(0)
    };
    until("the client writes", PATIENCE, || {
        (written() > 200).then_some(())
    });
    let old = cluster.primary();
    cluster.kill(&old);
    let before = written();
    until("the client writes on after the failover", PATIENCE, || {
        (written() > before + 200).then_some(())
    });
    std::fs::write(progress.with_extension("stop"), "").expect("the scratch directory");
    let output = child.wait_with_output().expect("the client ends");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

fn open(cluster: &Cluster) -> Connection {
    let client = Client::open(format!("redis://{}/", cluster.primary().client)).unwrap();
    let connection = client
        .get_connection_with_timeout(Duration::from_secs(5))
        .unwrap();
    // Its default of 500 ms is shorter than a failover.
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}

#[test]
fn the_redis_crate_reads_writes_and_runs_transactions() {
    let cluster = turn::start(&Spec::pair());
    let mut connection = open(&cluster);
    let () = connection.set("k", b"\0\r\nbinary\xff".as_slice()).unwrap();
    let value: Vec<u8> = connection.get("k").unwrap();
    assert_eq!(value, b"\0\r\nbinary\xff");
    let missing: Option<String> = connection.get("missing").unwrap();
    assert_eq!(missing, None);
    let count: i64 = connection.incr("n", 41).unwrap();
    assert_eq!(count, 41);
    let (one, two): (i64, String) = redis::pipe()
        .atomic()
        .incr("n", 1)
        .get("n")
        .query(&mut connection)
        .unwrap();
    assert_eq!((one, two.as_str()), (42, "42"));
    let error = connection.lpush::<_, _, i64>("list", 1).unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("err"),
        "lists are refused: {error}"
    );

    // WATCH: another client changes the key between the read and the EXEC; the first try fails.
    let mut other = open(&cluster);
    let mut tries = 0;
    let (result,): (i64,) = redis::transaction(&mut connection, &["n"], |connection, pipe| {
        tries += 1;
        let value: i64 = connection.get("n")?;
        if tries == 1 {
            let () = other.set("n", 100)?;
        }
        pipe.incr("n", value).query(connection)
    })
    .unwrap();
    assert_eq!(
        (tries, result),
        (2, 200),
        "the transaction saw that its key had changed"
    );
}

#[test]
fn the_redis_crates_sentinel_client_follows_a_failover() {
    let mut cluster = turn::start(&Spec::pair());
    let nodes = cluster
        .addresses()
        .iter()
        .map(|node| format!("redis://{node}/"))
        .collect();
    let mut sentinel = Sentinel::build(nodes).unwrap();
    let info = SentinelNodeConnectionInfo::default();
    let mut connect = || -> Option<Connection> {
        let client = sentinel.master_for(SERVICE, Some(&info)).ok()?;
        client
            .get_connection_with_timeout(Duration::from_secs(1))
            .ok()
    };
    let mut connection = connect().expect("Sentinel discovery names the primary");
    let () = connection.set("k", "before").unwrap();
    let old = cluster.primary();
    cluster.kill(&old);
    until(
        "the same Sentinel client writes at the next primary",
        PATIENCE,
        || {
            let mut connection = connect()?;
            connection.append::<_, _, i64>("k", " and after").ok()
        },
    );
    let value: String = connect().expect("a primary").get("k").unwrap();
    // The first APPEND may have been answered by nobody and run all the same: plain commands have
    // no token. What was acknowledged before must be there.
    assert!(value.starts_with("before and after"), "{value}");
}
