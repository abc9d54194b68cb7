//! What servers have used so far, as the kernel counts it: their processor time, and the bytes
//! written to the disk that holds their data.
//!
//! What a process is charged as written in `/proc/PID/io` is no use: where the page cache keeps a
//! file in large folios, one byte that changes counts as the whole folio, up to a megabyte, though
//! one block is written. The disk's own count has what the file system adds, and what anybody else
//! writes to it meanwhile.

use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::ops::Sub;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of several processes together.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes written to the disk, by whomever; 0 where the disk does not say.
    pub written: u64,
}

impl Sub for Usage {
    type Output = Usage;

    /// What a process that was killed meanwhile had used is missing, hence never below nothing.
    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// The servers under test.
#[derive(Clone, Debug)]
pub struct Servers {
    /// These processes and all their descendants.
    pids: Vec<u32>,
    /// The disk's counters.
    disk: Option<PathBuf>,
}

/// What disks count in.
const SECTOR_BYTES: u64 = 512;

/// A line of `/proc/PID/stat`.
#[derive(PartialEq, Debug)]
struct Stat {
    parent: u32,
    /// Of the process and of those of its children that have ended, in clock ticks.
    ticks: u64,
}

impl Servers {
    /// These, with their data in this directory.
    pub fn new(pids: Vec<u32>, dir: &Path) -> Servers {
        let device = std::fs::metadata(dir).map(|metadata| metadata.dev());
        let disk = device.map(|device| {
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        Servers {
            pids,
            disk: disk.ok().filter(|path| path.exists()),
        }
    }

    /// What they have used since they began; those that are gone count nothing.
    pub fn usage(&self) -> Usage {
        let mut stats = BTreeMap::new();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Some(stat) = stat(pid) {
                stats.insert(pid, stat);
            }
        }
        let mut sum = Usage {
            written: self.disk.as_deref().and_then(written).unwrap_or(0),
            ..Usage::default()
        };
        let mut open = self.pids.clone();
        while let Some(pid) = open.pop() {
            let Some(stat) = stats.remove(&pid) else {
                continue;
            };
            let ticks = rustix::param::clock_ticks_per_second();
            sum.cpu += Duration::from_secs_f64(stat.ticks as f64 / ticks as f64);
            let children = stats.iter().filter(|(_, other)| other.parent == pid);
            open.extend(children.map(|(child, _)| child));
        }
        sum
    }
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The command's name stands in parentheses and may hold anything, also a parenthesis.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = (11..15).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent, ticks })
}

/// Bytes written to a disk so far.
fn written(disk: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(disk).ok()?;
    let sectors: u64 = text.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// The most that was in physical memory so far.
pub fn peak(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The processor time of the calling thread.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor time of this process's children that have ended.
pub fn children_cpu() -> Duration {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = line.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields = fields.split_whitespace().skip(13).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_any_name() {
        let line = "71 (a ) b) S 70 71 71 0 -1 4194560 9 8 0 0 5 4 30 20 20 0 1 0 99";
        let expected = Stat {
            parent: 70,
            ticks: 59,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("71 (cut"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let servers = Servers::new(vec![std::process::id()], &std::env::temp_dir());
        assert!(resident(std::process::id()) > Some(100_000));
        let later = servers.usage() - Usage::default();
        assert_eq!(later - later, Usage::default());
        assert!(own_cpu() > Duration::ZERO);
    }
}
