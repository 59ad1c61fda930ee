//! What this process has cost so far: processor time and bytes written.

use std::fs;

/// The kernel counts processor time for programs in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Costs since the start of the process.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cost {
    /// Processor time of all threads.
    pub cpu_seconds: f64,
    /// Of it, that of the database's own threads: flushes and compactions.
    pub background_seconds: f64,
    /// Bytes that were handed to the disk.
    pub written_bytes: u64,
}

impl Cost {
    /// As of now.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    #[must_use]
    pub fn now() -> Self {
        let own = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
        let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted");
        let stats = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        let background_seconds = stats.filter(|stat| stat.contains("(rocksdb")).map(|stat| cpu_seconds(&stat)).sum();
        let io = fs::read_to_string("/proc/self/io").expect("/proc is mounted");
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a line of the kernel");
        Self {
            cpu_seconds: cpu_seconds(&own),
            background_seconds,
            written_bytes: written.trim().parse().expect("a number of the kernel"),
        }
    }

    /// The cost since an earlier moment.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            background_seconds: self.background_seconds - before.background_seconds,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// User and system time of a `stat` line: the 14th and 15th of its fields, which begin after the name.
fn cpu_seconds(stat: &str) -> f64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}
