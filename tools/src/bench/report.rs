//! What every report says: on which machine, when, medians and their spread.

use super::load::measure::Run;
use serde_json::{Value, json};
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

/// Runs of the same kind.
pub struct Row {
    pub name: String,
    pub runs: Vec<Run>,
}

/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Row {
    pub fn new(name: &str) -> Row {
        Row {
            name: name.to_owned(),
            runs: Vec::new(),
        }
    }

    fn of(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure))
    }

    pub fn rate(&self) -> Spread {
        self.of(Run::per_second)
    }

    pub fn latency_us(&self, quantile: f64) -> Spread {
        self.of(|run| run.latency_us(quantile))
    }

    pub fn cpu_us(&self) -> Spread {
        self.of(Run::cpu_us)
    }

    pub fn json(&self) -> Value {
        let mut json = json!({
            "name": self.name,
            "per_second": self.rate().json(),
            "cpu_us_per_operation": self.cpu_us().json(),
            "bytes_written_per_operation": self.of(Run::written).json(),
            "generator_cores": self.of(Run::own_share).json(),
            "unanswered": self.runs.iter().map(|run| run.unanswered).sum::<u64>(),
        });
        for (name, quantile) in QUANTILES {
            json[format!("{name}_us")] = self.latency_us(quantile).json();
        }
        json
    }
}

/// A median and its company.
#[derive(Clone, PartialEq, Debug)]
pub struct Spread {
    pub median: f64,
    pub all: Vec<f64>,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let all: Vec<f64> = values.into_iter().collect();
        Spread {
            median: median(all.iter().copied()),
            all,
        }
    }

    pub fn min(&self) -> f64 {
        self.all.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn max(&self) -> f64 {
        self.all.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    pub fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min(), "max": self.max(), "runs": self.all })
    }
}

/// One run in a line.
pub fn line(run: &Run) -> String {
    format!(
        "{}, p50 {}, p99 {}, max {}, {:.2} us of servers' processor and {:.0} bytes written per \
         operation; the load took {:.0} % of a core",
        rate(run.per_second()),
        micros(run.latency_us(0.5)),
        micros(run.latency_us(0.99)),
        micros(run.latency_us(1.0)),
        run.cpu_us(),
        run.written(),
        run.own_share() * 100.0,
    )
}

/// A table that is Markdown, too.
pub fn print_rows(rows: &[Row]) {
    let head = [
        "",
        "throughput",
        "(min..max)",
        "p50",
        "p99",
        "p99.9",
        "max",
        "CPU/op",
        "written/op",
        "load",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        let spread = row.rate();
        let mut cells = vec![
            row.name.clone(),
            rate(spread.median),
            format!("{}..{}", rate(spread.min()), rate(spread.max())),
        ];
        cells.extend(QUANTILES.map(|(_, quantile)| micros(row.latency_us(quantile).median)));
        cells.push(format!("{:.2} us", row.cpu_us().median));
        cells.push(format!("{:.0} B", row.of(Run::written).median));
        cells.push(format!("{:.0} %", row.of(Run::own_share).median * 100.0));
        lines.push(cells);
    }
    print!("{}", table(&lines));
    println!(
        "\nCPU/op: of all servers together; written/op: to the disk, by all on this machine; load: of \
         one core, for making it."
    );
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        })
        .collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = line.get(column).map_or("", String::as_str);
            let cell = match column {
                0 => format!("| {cell:<width$} |"),
                _ => format!(" {cell:>width$} |"),
            };
            text.push_str(&cell);
        }
        text.push('\n');
        if number == 0 {
            text.push('|');
            for width in &widths {
                text.push_str(&format!(" {} |", "-".repeat(*width)));
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_keeps_every_value() {
        let spread = Spread::of([3.0, 9.0, 1.0]);
        assert_eq!((spread.median, spread.min(), spread.max()), (3.0, 1.0, 9.0));
        assert_eq!(spread.json()["runs"], json!([3.0, 9.0, 1.0]));
    }

    #[test]
    fn a_table_is_aligned_and_is_markdown() {
        let line = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[line(["", "rate"]), line(["a row", "1 /s"])]);
        let expected = "|       | rate |\n| ----- | ---- |\n| a row | 1 /s |\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
