//! The benchmarks run: a short one of each kind that needs no other system.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The binary beside this test's. A run of the whole workspace has built it; where this package is
/// tested alone it is built once.
fn standfast() -> PathBuf {
    let tools = Path::new(env!("CARGO_BIN_EXE_tools"));
    let binary = tools.with_file_name("standfast");
    if !binary.is_file() {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "standfast",
            "--bin",
            "standfast",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().expect("cargo can be started");
        assert!(built.success(), "standfast cannot be built");
    }
    binary
}

fn bench(args: &[&str], dir: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tools"))
        .arg("bench")
        .args(args)
        .args(["--runs", "1", "--json", "--binary"])
        .arg(standfast())
        .arg("--dir")
        .arg(dir)
        .output()
        .expect("tools can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn assert_measured(row: &Value) {
    for figure in [
        "per_second",
        "p50_us",
        "p99_us",
        "max_us",
        "cpu_us_per_operation",
    ] {
        let median = row[figure]["median"].as_f64();
        assert!(median > Some(0.0), "{figure}: {row}");
    }
    assert_eq!(row["unanswered"], 0, "{row}");
}

#[test]
fn a_second_of_batches_on_three_copies_is_measured_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.html");
    let args = [
        "ledger",
        "--accounts",
        "100",
        "--batch",
        "100",
        "--mix",
        "two-phase",
        "--seconds",
        "1",
        "--warm-up",
        "0.2",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let json = bench(&args, dir.path());
    assert_measured(&json["rows"][0]);
    let page = std::fs::read_to_string(plot).unwrap();
    assert!(page.contains("<polyline"), "{page}");
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "kv",
        "--command",
        "set,get,transfer",
        "--shape",
        "4x2",
        "--keys",
        "1000",
        "--accounts",
        "100",
        "--rate",
        "200",
        "--copies",
        "1",
        "--seconds",
        "1",
        "--warm-up",
        "0.2",
    ];
    let json = bench(&args, dir.path());
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert_measured(row);
        let rate = row["per_second"]["median"].as_f64().unwrap();
        assert!((150.0..250.0).contains(&rate), "{row}");
    }
}
