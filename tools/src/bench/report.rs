//! What every report says: on which machine, when, and medians.

use std::path::Path;

/// Where and when, in words.
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub disk: String,
    pub date: String,
}

impl Machine {
    /// This one, now; `dir` is on the disk that is measured.
    pub fn here(dir: &Path) -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split(':').nth(1))
                .unwrap_or("?")
                .trim()
                .to_owned()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = kib
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            disk: file_system(dir),
            date: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M").to_string(),
        }
    }

    pub fn line(&self) -> String {
        format!(
            "{}; {} cores, {} GiB, {}; Linux {}; {}",
            self.processor, self.cores, self.memory_gib, self.disk, self.kernel, self.date
        )
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "processor": self.processor, "cores": self.cores, "memory_gib": self.memory_gib,
            "kernel": self.kernel, "disk": self.disk, "date": self.date,
        })
    }
}

/// The kind of file system that holds `dir`: the mount with the longest matching path.
fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    let holding = fields.filter(|(_, at, _)| dir.starts_with(at));
    match holding.max_by_key(|(_, at, _)| at.len()) {
        Some((device, _, kind)) => format!("{kind} on {device}"),
        None => "an unknown file system".into(),
    }
}

/// The middle one, or the mean of the middle two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "a median of nothing");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// Thousands with one digit after the point, or whole numbers where they are small.
pub fn rate(per_second: f64) -> String {
    if per_second >= 10_000.0 {
        format!("{:.1} k/s", per_second / 1000.0)
    } else {
        format!("{per_second:.0} /s")
    }
}

/// Microseconds, or milliseconds from ten thousand on.
pub fn micros(us: f64) -> String {
    if us >= 10_000.0 {
        format!("{:.1} ms", us / 1000.0)
    } else {
        format!("{us:.0} us")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
