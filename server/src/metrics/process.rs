//! The metrics of the process, by the names that Prometheus has for them: what the server costs the machine.

use metrics::{Gauge, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::collector::{Metrics as Looked, collect};

/// What a collector reads: all metrics, those of the process as they are at that moment.
#[derive(Clone)]
pub(crate) struct Page {
    handle: PrometheusHandle,
    process: ProcessMetrics,
}

/// Handles to the metrics of the process.
#[derive(Clone)]
struct ProcessMetrics {
    cpu_seconds: Gauge,
    resident_memory_bytes: Gauge,
    virtual_memory_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    start_time_seconds: Gauge,
}

impl Page {
    /// To be called with the recorder of this thread being the one that the handle renders.
    pub(super) fn new(handle: PrometheusHandle) -> Self {
        Self { handle, process: ProcessMetrics::register() }
    }

    /// The page.
    pub(crate) fn render(&self) -> String {
        self.process.show(&collect());
        self.handle.render()
    }

    /// To be called once in [`super::UPKEEP_PERIOD`].
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl ProcessMetrics {
    fn register() -> Self {
        Self {
            // A counter of this library is a whole number, and of a load of ten seconds that would leave nothing to compare.
            cpu_seconds: gauge!("process_cpu_seconds_total"),
            resident_memory_bytes: gauge!("process_resident_memory_bytes"),
            virtual_memory_bytes: gauge!("process_virtual_memory_bytes"),
            open_fds: gauge!("process_open_fds"),
            max_fds: gauge!("process_max_fds"),
            threads: gauge!("process_threads"),
            start_time_seconds: gauge!("process_start_time_seconds"),
        }
    }

    /// What the system does not tell stays as it was.
    fn show(&self, looked: &Looked) {
        if let Some(seconds) = looked.cpu_seconds_total {
            self.cpu_seconds.set(seconds);
        }
        for (gauge, value) in [
            (&self.resident_memory_bytes, looked.resident_memory_bytes),
            (&self.virtual_memory_bytes, looked.virtual_memory_bytes),
            (&self.open_fds, looked.open_fds),
            (&self.max_fds, looked.max_fds),
            (&self.threads, looked.threads),
            (&self.start_time_seconds, looked.start_time_seconds),
        ] {
            if let Some(value) = value {
                gauge.set(whole(value));
            }
        }
    }
}

/// A whole number as a gauge has it, exact up to 2^53.
fn whole(value: u64) -> f64 {
    value as f64
}

pub(super) fn describe() {
    describe_gauge!("process_cpu_seconds_total", "user and system time that the process has taken");
    describe_gauge!("process_resident_memory_bytes", "memory that the process has in use");
    describe_gauge!("process_virtual_memory_bytes", "address space that the process has taken");
    describe_gauge!("process_open_fds", "open file descriptors");
    describe_gauge!("process_max_fds", "file descriptors that the process may open");
    describe_gauge!("process_threads", "threads of the process");
    describe_gauge!("process_start_time_seconds", "when the process started, in seconds since 1970");
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    fn value(page: &str, name: &str) -> f64 {
        let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(of_line).unwrap_or_else(|| panic!("{name} is not in:\n{page}"))
    }

    #[test]
    fn each_page_shows_the_process_as_it_is() {
        let (_metrics, page) = Metrics::new();
        let before = page.render();
        assert!(value(&before, "process_resident_memory_bytes") > 1e6);
        assert!(value(&before, "process_start_time_seconds") > 1.7e9);
        for name in ["process_open_fds", "process_max_fds", "process_threads", "process_virtual_memory_bytes"] {
            assert!(value(&before, name) > 0.0, "{name}");
        }
        let began = value(&before, "process_cpu_seconds_total");
        // Work until the clock of the processor, which moves in steps of 10 ms, has moved.
        let mut sum = 0_u64;
        while value(&page.render(), "process_cpu_seconds_total") <= began {
            sum = sum.wrapping_add(std::hint::black_box(sum) | 1);
        }
    }
}
