//! What a process and all below it have used, from `/proc`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use nix::unistd::{SysconfVar, sysconf};

/// Of a whole tree of processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, that of children which have ended included.
    pub(crate) cpu: Duration,
    /// Resident memory.
    pub(crate) resident_bytes: u64,
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// Of `root` and everything below it.
pub(crate) fn usage(root: u32) -> anyhow::Result<Usage> {
    let mut stats = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended in the meantime.
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{id}/stat")) {
            stats.insert(id, stat(&text).context("/proc has another format")?);
        }
    }
    let mut tree = vec![root];
    let mut ticks = 0;
    let mut resident_kib = 0;
    while let Some(id) = tree.pop() {
        tree.extend(stats.iter().filter(|(_, stat)| stat.parent == id).map(|(child, _)| *child));
        ticks += stats.get(&id).map_or(0, |stat| stat.ticks);
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        resident_kib += resident(&status).unwrap_or(0);
    }
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    Ok(Usage { cpu: Duration::from_millis(ticks * 1_000 / per_second), resident_bytes: resident_kib * 1_024 })
}

/// What this process has used.
pub(crate) fn own() -> anyhow::Result<Usage> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(100);
    // Of its own alone: its children are the servers.
    let ticks = fields(&text).context("/proc has another format")?.skip(11).take(2).map(|field| field.parse::<u64>());
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    Ok(Usage { cpu: Duration::from_millis(ticks * 1_000 / per_second), resident_bytes: 0 })
}

/// The fields after the name of the program, which may hold blanks: state, parent, …, and from the twelfth on the
/// times in user and in system mode, and those of children that have ended.
fn fields(text: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    text.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace())
}

fn stat(text: &str) -> Option<Stat> {
    let mut fields = fields(text)?;
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks = fields.skip(9).take(4).map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Stat { parent, ticks })
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_program_with_blanks_in_its_name() {
        let text = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6";
        let stat = stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 124));
        assert_eq!(resident("Name:\tx\nVmRSS:\t  1234 kB\n"), Some(1_234));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).unwrap().resident_bytes > 100_000);
    }
}
