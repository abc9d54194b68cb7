//! Tests of precedence, refusals and what is generated from the table.
use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).expect("a scratch file");
    (dir, path)
}

fn load(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Error> {
    let own = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    let (_dir, path) = file(text);
    Config::load(&Sources {
        file: Some(path),
        environment: own(environment),
        flags: own(flags),
    })
}

fn problem(text: &str) -> String {
    load(text, &[], &[])
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let text = "priority = 1\nsite = \"a\"\ncluster = \"x\"";
    let environment = [
        ("STANDFAST_PRIORITY", "2"),
        ("STANDFAST_SITE", "b"),
        ("OTHER", "9"),
    ];
    let loaded = load(text, &environment, &[("priority", "3")]).expect("valid");
    let config = loaded.config;
    assert_eq!(config.priority, 3);
    assert_eq!(config.site.as_str(), "b");
    assert_eq!(config.cluster.as_str(), "x");
    assert_eq!(config.failover_timeout, Duration::from_millis(500));
    let origins: Vec<_> = loaded.origins.into_iter().collect();
    assert_eq!(
        origins,
        [
            ("cluster", Origin::File),
            ("priority", Origin::Flag),
            ("site", Origin::Environment)
        ]
    );
}

#[test]
fn the_example_is_complete_and_loads_to_the_defaults() {
    let example = example();
    assert_eq!(
        load(&example, &[], &[]).expect("valid").config,
        Config::default()
    );
    let uncommented: String = example
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            SETTINGS
                .iter()
                .any(|s| line.starts_with(&format!("{} = ", s.name)))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let loaded = load(&uncommented, &[], &[]).expect("valid");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.origins.len(), SETTINGS.len());
}

#[test]
fn a_file_that_was_written_loads_to_the_same() {
    let text = "node = 7\npeers = [\"1@a:7611\", \"2@b:7611/witness\"]\ndata_dir = 'a\"b\\c'\n\
                max_memory = \"1GiB\"\nfailover_timeout = \"2s\"\nclient_advertised = \"c:1\"\n\
                archive = \"d\\\"e\\\\f\\u007F\"";
    let config = load(text, &[], &[]).expect("valid").config;
    assert_eq!(config.data_dir, PathBuf::from("a\"b\\c"));
    assert_eq!(config.peers.len(), 2);
    let archive = config.archive.as_ref().map(value::Place::as_str);
    assert_eq!(archive, Some("d\"e\\f\u{7f}"));
    assert_eq!(
        load(&config.to_toml(), &[], &[]).expect("valid").config,
        config
    );
    assert_eq!(Config::default().to_toml(), "");
}

#[test]
fn an_unknown_setting_is_refused_with_the_place_and_a_suggestion() {
    let text = problem("node = 1\nhartbeat_interval = \"50ms\"\n");
    let expected = [
        "node.toml:2:1: unknown setting `hartbeat_interval`",
        " 2 | hartbeat_interval = \"50ms\"",
        "   | ^^^^^^^^^^^^^^^^^ did you mean `heartbeat_interval`?",
    ];
    assert!(text.ends_with(&expected.join("\n")), "{text}");
    assert!(problem("frobnicate = 1").contains("config example"));
    assert!(problem("[wal]\nkeep = 1").contains("unknown setting `wal`"));
}

#[test]
fn a_wrong_value_is_refused_with_the_place_and_what_was_expected() {
    let text = problem("priority = 1\nfailover_timeout = 500\n");
    assert!(
        text.contains("node.toml:2:20: `failover_timeout`: expected duration"),
        "{text}"
    );
    assert!(text.contains("^^^ the default is 500ms"), "{text}");
    assert!(problem("failover_timeout = \"2h\"").contains("must be 50ms to 60s"));
    assert!(problem("peers = [\"1@a:1,2@b:2\"]").contains("holds a comma"));
    assert!(problem("node = 1.5").contains("a float makes no sense here"));
    assert!(
        problem("node = \n").contains("node.toml:1:"),
        "{}",
        problem("node = \n")
    );
}

#[test]
fn all_problems_are_told_at_once_each_with_its_source() {
    let error = load(
        "nod = 1\nsite = \"\"",
        &[("STANDFAST_PRIORITY", "x")],
        &[("log_format", "xml")],
    );
    let problems = error.expect_err("must be refused").problems;
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(
        problems[2].starts_with("STANDFAST_PRIORITY: \"x\""),
        "{problems:?}"
    );
    assert!(
        problems[3].starts_with("--log-format: \"xml\""),
        "{problems:?}"
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_a_service_link_is_nothing() {
    let environment = [
        ("STANDFAST_PRIORTY", "1"),
        ("STANDFAST_SERVICE_HOST", "10.0.0.1"),
        ("STANDFAST_PORT_7600_TCP", "tcp://10.0.0.1:7600"),
    ];
    let warnings = load("", &environment, &[]).expect("valid").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("did you mean STANDFAST_PRIORITY?"),
        "{warnings:?}"
    );
}

#[test]
fn a_missing_file_is_refused() {
    let sources = Sources {
        file: Some(PathBuf::from("/nowhere/node.toml")),
        ..Sources::default()
    };
    let error = Config::load(&sources).expect_err("must be refused");
    assert!(error.to_string().contains("/nowhere/node.toml"), "{error}");
}

#[test]
fn combinations_that_cannot_work_are_refused_with_the_reason() {
    let cases = [
        (
            "peers = [\"1@a:1\"]",
            "2 voters can neither fail over nor remove",
        ),
        (
            "peers = [\"1@a:1\", \"2@b:1\", \"3@c:1\"]",
            "4 voters bear the loss of one",
        ),
        ("role = \"witness\"", "no node has the role data"),
        ("peers = [\"0@a:1\", \"1@b:1\"]", "this node's own id"),
        ("peers = [\"1@a:1\", \"1@b:1\"]", "names node 1 twice"),
        (
            "heartbeat_interval = \"200ms\"",
            "less than three heartbeat_intervals",
        ),
        (
            "write_timeout = \"500ms\"",
            "write_timeout 500ms is too short beside sync_timeout",
        ),
        (
            "wal_segment = \"8MiB\"",
            "cannot hold a record of max_request",
        ),
        (
            "max_request = \"1MiB\"",
            "max_bulk 16.0 MiB is above max_request",
        ),
        ("client_listen = \"0.0.0.0:7600\"", "set client_advertised"),
        ("http_listen = \"127.0.0.1:7600\"", "both at port 7600"),
    ];
    for (text, expected) in cases {
        let found = problem(text);
        assert!(found.contains(expected), "{text} gave: {found}");
    }
    let good = [
        "peers = [\"1@a:1\", \"2@b:1/witness\", \"3@c:1/asynchronous\"]",
        "peers = [\"1@a:1/asynchronous\"]",
        "client_listen = \"0.0.0.0:7600\"\nclient_advertised = \"a:7600\"",
        "client_listen = \"127.0.0.1:0\"\npeer_listen = \"127.0.0.1:0\"",
    ];
    for text in good {
        load(text, &[], &[]).unwrap_or_else(|error| panic!("{text} gave: {error}"));
    }
}

#[test]
fn names_are_unique_and_sentences_are_sentences() {
    for (i, setting) in SETTINGS.iter().enumerate() {
        assert!(
            SETTINGS[..i].iter().all(|other| other.name != setting.name),
            "{}",
            setting.name
        );
        assert!(setting.about.ends_with('.'), "{}", setting.name);
        assert_eq!(
            setting.show(&Config::default()).is_empty(),
            setting.default.is_empty()
        );
    }
}

#[test]
fn memory_is_a_share_or_a_size() {
    assert_eq!(MaxMemory::Share(80).bytes(1000), 800);
    assert_eq!(MaxMemory::Bytes(ByteSize(7)).bytes(1000), 7);
    assert!(Config::default().max_memory_bytes() > 0);
}
