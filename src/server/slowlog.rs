//! The slowest commands of late, without their arguments: those may be somebody's data.

use crate::state::Reply;
use std::collections::VecDeque;
use std::sync::Mutex;

#[derive(Clone, Debug)]
struct Entry {
    id: i64,
    /// Seconds since 1970.
    at_s: i64,
    took_us: i64,
    command: &'static str,
    address: String,
    name: String,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: i64,
    newest_first: VecDeque<Entry>,
}

#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Entries>);

impl SlowLog {
    pub fn record(
        &self,
        command: &'static str,
        took_us: u64,
        address: String,
        name: String,
        entries_max: usize,
    ) {
        let mut entries = self.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.newest_first.push_front(Entry {
            id,
            at_s: signed(super::wall_clock().as_secs()),
            took_us: signed(took_us),
            command,
            address,
            name,
        });
        entries.newest_first.truncate(entries_max);
    }

    pub fn len(&self) -> usize {
        self.lock().newest_first.len()
    }

    pub fn clear(&self) {
        self.lock().newest_first.clear();
    }

    /// The newest `count` entries in Redis's shape.
    pub fn reply(&self, count: usize) -> Reply {
        let text = |text: &str| Reply::Bulk(text.to_string().into());
        let entries = self.lock();
        let rows = entries.newest_first.iter().take(count).map(|entry| {
            Reply::Array(vec![
                Reply::Int(entry.id),
                Reply::Int(entry.at_s),
                Reply::Int(entry.took_us),
                Reply::Array(vec![text(entry.command)]),
                text(&entry.address),
                text(&entry.name),
            ])
        });
        Reply::Array(rows.collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0
            .lock()
            .expect("nothing panics while it holds the slow log")
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
