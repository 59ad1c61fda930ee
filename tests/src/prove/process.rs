//! What the kernel says of a process: memory, descriptors, time on a processor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

/// Ticks of a processor's clock in a second, which Linux has fixed for programs.
const TICKS_PER_S: f64 = 100.0;

/// One look at a process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Look {
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Time on processors since its start, in seconds.
    pub cpu_s: f64,
}

/// Looks at a process.
#[must_use]
pub fn look(id: u32) -> Look {
    let folder = format!("/proc/{id}");
    let status = fs::read_to_string(format!("{folder}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    let resident_kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    let descriptors = u64::try_from(fs::read_dir(format!("{folder}/fd")).unwrap().count()).unwrap();
    Look { resident_kib, descriptors, cpu_s: cpu_s(&fs::read_to_string(format!("{folder}/stat")).unwrap()) }
}

/// A thread of this process.
#[derive(Debug, Clone)]
pub struct Thread(PathBuf);

impl Thread {
    /// The one that asks.
    #[must_use]
    pub fn this() -> Self {
        Self(Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap()))
    }

    /// Its time on a processor since its start, in seconds.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        cpu_s(&fs::read_to_string(self.0.join("stat")).unwrap())
    }

    /// From now on it has what of the processors nobody else wants.
    pub fn gives_way(&self) {
        let id = self.0.file_name().expect("a thread has an id");
        let changed = Command::new("renice").args(["-n", "19", "-p"]).arg(id).output().unwrap();
        assert!(changed.status.success(), "{changed:?}");
    }
}

/// User and system time of a line of `/proc/*/stat`. The name before it may hold anything, so that it is read from the
/// last parenthesis on.
fn cpu_s(stat: &str) -> f64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// Bytes of the files below a directory.
#[must_use]
pub fn disk_bytes(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().map_while(Result::ok) {
        // A file that goes away meanwhile is left out.
        match entry.metadata() {
            Ok(found) if found.is_dir() => sum += disk_bytes(&entry.path()),
            Ok(found) => sum += found.len(),
            Err(_) => (),
        }
    }
    sum
}
