//! How long others take until they serve the same keys: Redis from its log and from an RDB file,
//! PostgreSQL from a base copy and the log behind it. None of them proves what it loads, and their
//! files lie ready in the node's own directory.

use super::super::Setting;
use super::super::contents::{Contents, warm};
use super::super::peers::postgres::Postgres;
use super::super::peers::redis::Redis;
use super::super::report::Spread;
use super::super::work::pipeline::VALUE_BYTES;
use serde_json::{Value, json};

pub struct Other {
    pub name: String,
    pub seconds: Spread,
    /// The most memory it had; `None` where it is many processes.
    pub peak: Option<u64>,
    pub bytes: u64,
}

impl Other {
    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "seconds": self.seconds.json(), "peak_bytes": self.peak,
            "file_bytes": self.bytes,
        })
    }
}

/// One after the other; what is not installed is named and left out.
pub fn measure(setting: &Setting, contents: &Contents, runs: usize) -> anyhow::Result<Vec<Other>> {
    let mut found = Vec::new();
    match redis(setting, contents, runs) {
        Ok(both) => found.extend(both),
        Err(error) => eprintln!("Redis is missing: {error:#} (tools/peers.sh installs it)"),
    }
    match postgres(setting, contents, runs) {
        Ok(one) => found.push(one),
        Err(error) => eprintln!("PostgreSQL is missing: {error:#} (tools/peers.sh installs it)"),
    }
    Ok(found)
}

/// The log has the first keys as its base, and the commands behind it, as ours has.
fn redis(setting: &Setting, contents: &Contents, runs: usize) -> anyhow::Result<[Other; 2]> {
    let mut redis = Redis::start(&setting.dir, 0)?;
    redis.hurry()?;
    let [keys, commands] = contents.key_ranges();
    redis.set_keys(keys.0, keys.1)?;
    redis.rewrite()?;
    redis.set_keys(commands.0, commands.1)?;
    redis.save()?;
    let mut load = |from_log: bool| {
        let dir = redis.files();
        let file = match from_log {
            true => dir.join("appendonlydir"),
            false => dir.join("dump.rdb"),
        };
        let bytes = match from_log {
            true => warm(&file)?,
            false => std::fs::read(&file)?.len() as u64,
        };
        let mut seconds = Vec::new();
        for _ in 0..runs {
            seconds.push(redis.load(from_log, &contents.last_key())?.as_secs_f64());
        }
        let what = match from_log {
            true => "AOF: its base and the commands behind it",
            false => "RDB: all in one file",
        };
        let other = Other {
            name: format!("Redis {}, {what}", redis.version()),
            seconds: Spread::of(seconds),
            peak: Some(redis.peak()),
            bytes,
        };
        eprintln!("{}: {:.2} s", other.name, other.seconds.median);
        anyhow::Ok(other)
    };
    Ok([load(true)?, load(false)?])
}

/// Rows as our keys are; those behind the base copy each in a transaction of its own.
fn postgres(setting: &Setting, contents: &Contents, runs: usize) -> anyhow::Result<Other> {
    let mut postgres = Postgres::archiving(&setting.dir)?;
    postgres.ask("CREATE TABLE kv (k bigint PRIMARY KEY, v text NOT NULL)")?;
    let [keys, commands] = contents.key_ranges();
    let value = format!("repeat('v', {VALUE_BYTES})");
    let last = keys.1 - 1;
    postgres.ask(&format!(
        "INSERT INTO kv SELECT k, {value} FROM generate_series({}, {last}) AS k",
        keys.0
    ))?;
    postgres.ask("VACUUM ANALYZE kv")?;
    postgres.back_up()?;
    let last = commands.1 - 1;
    postgres.ask(&format!(
        "DO $$ BEGIN FOR n IN 0..{} LOOP \
         INSERT INTO kv VALUES ({} + n, {value}); COMMIT; END LOOP; END $$",
        last - commands.0,
        commands.0
    ))?;
    postgres.finish()?;
    let bytes = postgres.warm()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let took = postgres.restore(&format!("SELECT v FROM kv WHERE k = {last}"))?;
        eprintln!("{}: {took:.2?}", postgres.version());
        seconds.push(took.as_secs_f64());
    }
    Ok(Other {
        name: format!(
            "{}, a copy by pg_basebackup and replay of the log",
            postgres.version()
        ),
        seconds: Spread::of(seconds),
        peak: None,
        bytes,
    })
}
