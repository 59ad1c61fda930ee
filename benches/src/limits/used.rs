//! What a process has used: processor time to the nanosecond, and memory.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// Counts the processor time of a process with all its threads, or of one thread.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock(ClockId);

impl CpuClock {
    /// Of a process that runs.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(process: u32) -> Result<Self> {
        let process = Pid::from_raw(i32::try_from(process)?);
        Ok(Self(clock_getcpuclockid(process).with_context(|| format!("there is no process {process}"))?))
    }

    /// Of this process.
    #[must_use]
    pub const fn of_this_process() -> Self {
        Self(ClockId::CLOCK_PROCESS_CPUTIME_ID)
    }

    /// Of whichever thread reads it.
    #[must_use]
    pub const fn of_this_thread() -> Self {
        Self(ClockId::CLOCK_THREAD_CPUTIME_ID)
    }

    /// The time so far.
    ///
    /// # Errors
    /// The process has ended.
    pub fn now(self) -> Result<Duration> {
        Ok(self.0.now().context("reading the processor time of a process")?.into())
    }
}

/// The memory of a process that is in RAM.
///
/// # Errors
/// The process has ended.
pub fn resident_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("reading the memory of the process {process}"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("the system does not say how much memory a process has")?.parse()?;
    Ok(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_on_the_clocks_of_its_thread_and_process() {
        let clocks =
            [CpuClock::of(std::process::id()).unwrap(), CpuClock::of_this_process(), CpuClock::of_this_thread()];
        for clock in clocks {
            let before = clock.now().unwrap();
            let mut sum = 0_u64;
            while clock.now().unwrap() < before + Duration::from_millis(5) {
                sum = std::hint::black_box(sum.wrapping_add(1));
            }
            assert!(sum > 0);
        }
    }

    #[test]
    fn memory_is_that_of_the_process() {
        let before = resident_bytes(std::process::id()).unwrap();
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let with = resident_bytes(std::process::id()).unwrap();
        assert!(with >= before + (32 << 20), "{before} {with}");
        drop(held);
    }

    #[test]
    fn what_does_not_run_has_used_nothing() {
        assert!(CpuClock::of(u32::MAX).is_err());
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
