//! Compares what the benches have measured with a baseline, as ratios; or writes the baseline.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gureum_benches::{Baseline, Comparison, Slowness, read_results};

/// Compares what the benches have measured with a baseline, as ratios. Exits with 1 where something is slower or has
/// not run, and with 2 where nothing can be compared.
#[derive(Debug, Parser)]
struct Command {
    /// Where criterion has left its results.
    results: PathBuf,
    /// The baseline: medians by name, as JSON.
    baseline: PathBuf,
    /// Writes the baseline from the results, and compares nothing.
    #[arg(long)]
    write: bool,
    /// The ratio above which a bench counts as slower.
    #[arg(long, default_value_t = 1.3, conflicts_with = "write")]
    threshold: f64,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let done = if command.write { write(&command).map(|()| true) } else { compare(&command) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn write(command: &Command) -> Result<()> {
    let mut median_ns = read_results(&command.results)?;
    // A tenth of a nanosecond is more than is known.
    median_ns.values_mut().for_each(|ns| *ns = (*ns * 10.0).round() / 10.0);
    let baseline = Baseline { machine: machine(), median_ns };
    let path = command.baseline.display();
    fs::write(&command.baseline, baseline.to_text()?).with_context(|| format!("could not write {path}"))?;
    println!("{path}: {} benches on {}", baseline.median_ns.len(), baseline.machine);
    Ok(())
}

/// Says whether nothing is slower.
fn compare(command: &Command) -> Result<bool> {
    ensure!(command.threshold >= 1.0, "a threshold of {} is none: it must be at least 1", command.threshold);
    let path = command.baseline.display();
    let text = fs::read_to_string(&command.baseline)
        .with_context(|| format!("could not read {path}; `make bench-baseline` measures and writes it"))?;
    let baseline = Baseline::parse(&text).with_context(|| format!("{path} is no baseline"))?;
    let comparison = Comparison::new(&baseline, &read_results(&command.results)?)?;
    let Slowness { cpu, fsync } = comparison.slowness;
    println!("baseline: {}", baseline.machine);
    println!("here:     {}; takes {cpu:.2} × as long to compute, {fsync:.2} × for an fsync\n", machine());
    println!("{}", comparison.table(command.threshold));
    let regressions = comparison.regressions(command.threshold);
    if regressions > 0 {
        println!(
            "{regressions} marked <<<: above {} × what the baseline lets expect, or not run. Measure once more on a \
             quiet machine; if it is meant to be so, `make bench-baseline`.",
            command.threshold
        );
    }
    Ok(regressions == 0)
}

/// This machine, for people.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{cores} × {}, Linux {kernel}", model.map_or(std::env::consts::ARCH, str::trim))
}
