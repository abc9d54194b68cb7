//! Tests of the command line as a whole: arguments, exit codes, the documents' tables.
use super::*;

fn parse(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words.split_whitespace())
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn commands_read_as_documented() {
    let lines = [
        "standfast dev --dir d --port 7700 --sync 2 --async 0 --witness 0 --acks majority",
        "standfast serve --config n.toml --failover-timeout 1s --log-format json",
        "standfast init --data-dir d",
        "standfast join --data-dir d --node 3 --at 127.0.0.1:7600",
        "standfast join --config n.toml --at 127.0.0.1:7600 --afresh --give-up-copy",
        "standfast rejoin --node 127.0.0.1:7610 --why repaired",
        "standfast status --json --node 127.0.0.1:7600 --watch",
        "standfast switchover --to 1 --why drill --by me",
        "standfast promote --force --yes standfast --ignore-old-primary --node 127.0.0.1:7620",
        "standfast member add --config n.toml --at 127.0.0.1:7600 --voter --why growth",
        "standfast member remove 3",
        "standfast member list --json",
        "standfast set acks majority",
        "standfast set protection max-protection",
        "standfast backup list --dir b --json",
        "standfast backup verify --dir b",
        "standfast backup verify --quick --from b",
        "standfast backup expire --dir b --keep-full 3 --keep-for 7d --dry-run",
        "standfast restore --from b --to d --target lsn:9 --activate --ignore-old-cluster --json",
        "standfast restore --from b --to d --target lsn:7 --node 2",
        "standfast restore --from b --target before:0xff --config n.toml",
        "standfast restore --from b --target before:7 --query DIGEST --query DBSIZE --json",
        "standfast activate --data-dir d",
        "standfast backup now --to d --node 127.0.0.1:7610",
        "standfast loss list --from d --json",
        "standfast loss show --from d --from e --all --json",
        "standfast loss export --from d --format csv",
        "standfast loss replay --from d --node 127.0.0.1:7610 --dry-run --only-acknowledged",
        "standfast backup list --from d --json",
        "standfast drill restore --from b --node 127.0.0.1:7600 --rto-target 30s --json",
        "standfast drill restore --config n.toml --scratch s --drill-key k --why nightly",
        "standfast drill failover --fault pause --yes standfast --clients 8 --rate 1000",
        "standfast drill report --drill-reports r --json",
        "standfast drill verify-report r.json --public-key 00",
        "standfast drill keygen --key k",
        "standfast config example",
        "standfast config check --config n.toml --json",
    ];
    for line in lines {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    let refused = [
        "standfast promote",
        "standfast set acks some",
        "standfast dev --sync x",
        "standfast dev --protection high",
        "standfast join --data-dir d",
        "standfast join --data-dir d --at 127.0.0.1:7600 --give-up-copy",
        "standfast backup now",
        "standfast loss show",
        "standfast loss replay --from d --format csv",
        "standfast restore --from b --to d --target yesterday",
        "standfast restore --from b --to d --target before:x",
        "standfast restore --from b",
        "standfast restore --from b --to d --query DIGEST",
        "standfast drill restore",
        "standfast drill failover",
        "standfast drill failover --fault fire",
    ];
    for line in refused {
        let error = parse(line).map(|_| ()).expect_err(line);
        assert_eq!(error.exit_code(), ExitCode::Usage as i32, "{line}");
    }
}

#[test]
fn exit_codes_are_one_each_and_stand_in_the_help() {
    let mut codes: Vec<u8> = EXIT_CODES.iter().map(|(code, _)| *code as u8).collect();
    codes.dedup();
    assert_eq!(codes.len(), EXIT_CODES.len());
    for (code, meaning) in EXIT_CODES {
        assert!(exit::table().contains(&format!("{:>3}  {meaning}", *code as u8)));
    }
}

/// What stands between `<!-- name -->` and `<!-- /name -->`.
fn between<'a>(text: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (_, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{begin} is missing"));
    rest.split_once(&end)
        .unwrap_or_else(|| panic!("{end} is missing"))
        .0
}

#[test]
fn the_documents_tables_equal_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).expect("docs/operations.md is there");
    for (name, table) in [
        ("settings", crate::config::reference()),
        ("exit codes", exit::reference()),
    ] {
        let found = between(&text, name);
        assert!(
            found == table,
            "{path}: between the marks of {name} must stand:\n{table}"
        );
    }
}

#[test]
fn every_command_is_in_the_documents() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).expect("docs/operations.md is there");
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            text.contains(&format!("`standfast {name}")),
            "{path} says nothing of {name}"
        );
    }
}
