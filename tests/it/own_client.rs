//! Standfast's own client through failovers: many tasks share one connection, and what each is told
//! is held against what was done.

use crate::turn;
use rig::cluster::PATIENCE;
use rig::{Cluster, Node, Spec, until};
use standfast::client::{Client, Error, Options};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

const TASKS: usize = 64;

/// What the tasks were told, and whether they should go on.
#[derive(Default)]
struct Counting {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
    /// The longest that a call has taken.
    longest_ms: AtomicU64,
}

/// Every task adds one until it is told to stop; what each was answered.
async fn count(nodes: Vec<String>, counting: Arc<Counting>) -> Result<Vec<i64>, Error> {
    // What is told is tested here, not how soon: the machine may have other work.
    let options = Options {
        timeout: PATIENCE,
        ..Options::default()
    };
    let client = Client::connect_with(nodes, options).await?;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (client, counting) = (client.clone(), counting.clone());
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !counting.is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    told.push(client.incr("counted").await?);
                    let ms = begun.elapsed().as_millis() as u64;
                    counting.longest_ms.fetch_max(ms, Ordering::Relaxed);
                    counting.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Error>(told)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let told = task.await.expect("no task panics")?;
        assert!(told.is_sorted(), "a task saw the counter fall");
        all.extend(told);
    }
    let value = client.get("counted").await?.expect("it was counted");
    assert_eq!(
        value,
        all.len().to_string().as_bytes(),
        "what is there, and what was told"
    );
    Ok(all)
}

fn counts_through(fault: impl FnOnce(&mut Cluster, &Node)) {
    let mut cluster = turn::start(&Spec::pair());
    // A node without data is enough to find the others by.
    let witness = cluster.of_role("witness").remove(0).client;
    let counting = Arc::new(Counting::default());
    let shared = counting.clone();
    let counter = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime")
            .block_on(count(vec![witness], shared))
    });
    let reached = |count: u64| {
        until("the tasks count on", PATIENCE, || {
            let is_there = counting.acknowledged.load(Ordering::Relaxed) >= count;
            (is_there || counter.is_finished()).then_some(())
        });
    };
    reached(1_000);
    let old = cluster.primary();
    // Else nobody may take over, and a call ends as it must: with its deadline.
    until("the backup is in the sync set", PATIENCE, || {
        let status = cluster.status(&old);
        (status["sync_set"].as_array()?.len() == 2).then_some(())
    });
    fault(&mut cluster, &old);
    reached(counting.acknowledged.load(Ordering::Relaxed) + 5_000);
    counting.is_over.store(true, Ordering::Relaxed);

    let counted = counter.join().expect("no assertion failed");
    let mut all = counted.expect("no call fails");
    let longest_ms = counting.longest_ms.load(Ordering::Relaxed);
    println!("{} calls, the longest took {longest_ms} ms", all.len());
    all.sort_unstable();
    let wanted: Vec<i64> = (1..=all.len() as i64).collect();
    assert!(
        all == wanted,
        "every number was told once: {} calls",
        all.len()
    );
    assert_ne!(cluster.primary().id, old.id, "it was a failover");
}

#[test]
fn nothing_is_lost_or_doubled_when_the_primary_is_killed() {
    counts_through(|cluster, old| cluster.kill(old));
}

#[test]
fn nothing_is_lost_or_doubled_when_the_primary_falls_silent() {
    counts_through(|cluster, old| cluster.pause(old));
}

#[test]
fn nothing_is_lost_or_doubled_by_a_switchover() {
    counts_through(|cluster, old| {
        let said = cluster.cli(&["switchover", "--node", &old.client]);
        said.success();
    });
}
