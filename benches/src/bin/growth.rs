//! Shows what a message costs as everything grows: tables of medians, or JSON with every round.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use gureum_benches::growth::amplification::{self, Amplification};
use gureum_benches::growth::model::Model;
use gureum_benches::growth::report::Report;
use gureum_benches::growth::rounds::{Flow, Setting, connections, stored};
use gureum_benches::limits::rounds::Place;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a message costs as everything grows: connections, what is stored, days.
#[derive(Debug, Parser)]
#[command(name = "growth", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "Examples:
  growth connections
  growth stored --stored 0,1000000 --rounds 3 --check
  growth amplification --messages-a-day 4000000 --json
  growth model --devices 1000000 --message-us 45";

#[derive(Debug, Subcommand)]
enum What {
    /// The same load on few connections and on many, a server of its own for each run
    Connections(ConnectionsArgs),
    /// The same load on an empty store and on those that hold messages of devices that are away
    Stored(StoredArgs),
    /// What the store writes for a byte that it is handed, over simulated days in which as much expires as comes
    Amplification(AmplificationArgs),
    /// What so many devices need, by the capacity model of docs/performance.md; nothing is measured
    Model(ModelArgs),
}

#[derive(Debug, Args)]
struct ConnectionsArgs {
    /// Connections, two for each pair of devices
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [10_usize, 100, 500, 2_000], value_parser = even)]
    connections: Vec<usize>,
    /// Open loop: messages a second of all pairs together
    #[arg(long, value_name = "R", default_value_t = 1_000.0, value_parser = positive)]
    rate: f64,
    /// Closed loop: messages of all pairs together without an answer, at most 64 of each, at least one
    #[arg(long, value_name = "M", default_value_t = 320, value_parser = at_least_one)]
    under_way: usize,
    #[command(flatten)]
    loads: LoadsArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct StoredArgs {
    /// Messages that are stored before, ascending; 20,000,000 of 256 bytes take 10 GB and some minutes to write
    #[arg(
        long,
        value_name = "M,M,…",
        value_delimiter = ',',
        default_values_t = [0_u64, 1_000_000, 5_000_000, 20_000_000]
    )]
    stored: Vec<u64>,
    /// Pairs of devices, one sending to the other
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pairs: usize,
    /// Open loop: messages a second of all pairs together
    #[arg(long, value_name = "R", default_value_t = 5_000.0, value_parser = positive)]
    rate: f64,
    /// Closed loop: messages of all pairs together without an answer, at most 64 of each
    #[arg(long, value_name = "M", default_value_t = 3_200, value_parser = at_least_one)]
    under_way: usize,
    #[command(flatten)]
    loads: LoadsArgs,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct AmplificationArgs {
    /// Messages of a simulated day
    #[arg(long, value_name = "M", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages_a_day: u64,
    /// Simulated days that are measured, after 3.25 in which the store fills
    #[arg(long, value_name = "D", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=365))]
    days: u64,
    /// Conversations, in each of which one account sends to the other
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = at_least_one)]
    conversations: usize,
    /// Of a hundred receivers, those that never come
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = percent)]
    absent_percent: usize,
    /// Messages of one batch, with an fsync
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ModelArgs {
    #[command(flatten)]
    model: Model,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LoadsArgs {
    /// Where gureumd and gureum are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Rounds of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load lasts
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// This load alone, instead of both
    #[arg(long, value_enum)]
    only: Option<Loop>,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Where data goes: on the disk that is to be measured [default: beside this program]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Bytes of a message's ciphertext
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = at_least_one)]
    sealed_size: usize,
    /// Print JSON with every round instead of tables
    #[arg(long)]
    json: bool,
    /// Fail where a message costs over 20 % more or less than at the first size, or over 6 bytes are written for each
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Loop {
    /// Messages are due at given times
    Open,
    /// An answer makes room for the next
    Closed,
}

fn main() -> Result<()> {
    // The clients of the bare transport have one thread, as `gureum load` has.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match Cli::parse().what {
        What::Connections(args) => conclude(&args.common, &runtime.block_on(Box::pin(args.measure()))?),
        What::Stored(args) => conclude(&args.common, &runtime.block_on(Box::pin(args.measure()))?),
        What::Amplification(args) => {
            let amplification = Some(args.measure()?);
            conclude(&args.common, &Report { series: Vec::new(), amplification })
        }
        What::Model(args) => print(args.json, &args.model.need()),
    }
}

/// Prints what was measured, and fails if that was asked for and there is a reason.
fn conclude(common: &CommonArgs, report: &Report) -> Result<()> {
    print(common.json, report)?;
    let faults = report.faults();
    ensure!(!common.check || faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

fn print(json: bool, value: &(impl Display + Serialize)) -> Result<()> {
    let text = if json { serde_json::to_string(value)? + "\n" } else { value.to_string() };
    let mut output = std::io::stdout();
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

impl ConnectionsArgs {
    async fn measure(&self) -> Result<Report> {
        let (place, setting) = (self.loads.place(&self.common)?, self.loads.setting(&self.common));
        let mut report = Report::default();
        for flow in self.loads.flows(self.rate, self.under_way) {
            let series = Box::pin(connections(&place, &setting, &self.connections, flow, tell)).await?;
            report.series.push(series);
        }
        Ok(report)
    }
}

impl StoredArgs {
    async fn measure(&self) -> Result<Report> {
        let (place, setting) = (self.loads.place(&self.common)?, self.loads.setting(&self.common));
        let flows = self.loads.flows(self.rate, self.under_way);
        let series = Box::pin(stored(&place, &setting, &self.stored, self.pairs, &flows, tell)).await?;
        Ok(Report { series, amplification: None })
    }
}

impl AmplificationArgs {
    fn measure(&self) -> Result<Amplification> {
        let parent = self.common.directory()?;
        let data = tempfile::Builder::new().prefix("growth-").tempdir_in(&parent);
        let data = data.with_context(|| format!("making a directory in {}", parent.display()))?;
        amplification::run(data.path(), &self.options(), |day| tell(&format!("day {day}")))
    }

    const fn options(&self) -> amplification::Options {
        amplification::Options {
            messages_a_day: self.messages_a_day,
            days: self.days,
            talks: self.conversations,
            absent_percent: self.absent_percent,
            sealed_bytes: self.common.sealed_size,
            batch_messages: self.batch,
        }
    }
}

impl LoadsArgs {
    fn place(&self, common: &CommonArgs) -> Result<Place> {
        let beside = beside()?;
        let limits = beside.join("limits");
        ensure!(limits.exists(), "{} is missing: it is the bare transport", limits.display());
        let bin_dir = self.bin_dir.clone().unwrap_or(beside);
        Ok(Place { limits, bin_dir, directory: common.directory()? })
    }

    const fn setting(&self, common: &CommonArgs) -> Setting {
        Setting { rounds: self.rounds, duration: self.duration, sealed_bytes: common.sealed_size }
    }

    /// The open loop first, which leaves less behind.
    fn flows(&self, rate: f64, under_way: usize) -> Vec<Flow> {
        let all = [(Loop::Open, Flow::Rate(rate)), (Loop::Closed, Flow::UnderWay(under_way))];
        let wanted = all.into_iter().filter(|(kind, _)| self.only.is_none_or(|only| only == *kind));
        wanted.map(|(_, flow)| flow).collect()
    }
}

impl CommonArgs {
    fn directory(&self) -> Result<PathBuf> {
        self.directory.clone().map_or_else(beside, Ok)
    }
}

/// The directory of this program.
fn beside() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    Ok(program.parent().unwrap_or(Path::new(".")).to_owned())
}

fn tell(text: &str) {
    eprintln!("{text}");
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn even(text: &str) -> Result<usize, String> {
    at_least_one(text).ok().filter(|number| number.is_multiple_of(2)).ok_or_else(|| "an even number above 0".to_owned())
}

fn percent(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err("from 0 to 100".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<What, clap::Error> {
        Ok(Cli::try_parse_from(std::iter::once(&"growth").chain(arguments))?.what)
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_the_sizes_are_those_of_the_targets() {
        match parse(&["connections"]).unwrap() {
            What::Connections(args) => {
                assert_eq!(args.connections, [10, 100, 500, 2_000]);
                let flows = args.loads.flows(args.rate, args.under_way);
                assert_eq!(flows, [Flow::Rate(1_000.0), Flow::UnderWay(320)]);
                assert_eq!((args.loads.rounds, args.common.check), (5, false));
            }
            other => panic!("{other:?}"),
        }
        match parse(&["stored"]).unwrap() {
            What::Stored(args) => assert_eq!(args.stored, [0, 1_000_000, 5_000_000, 20_000_000]),
            other => panic!("{other:?}"),
        }
        match parse(&["amplification"]).unwrap() {
            What::Amplification(args) => assert_eq!((args.options().days, args.options().absent_percent), (3, 10)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_papers_say_what_the_model_says() {
        let What::Model(args) = parse(&["model"]).unwrap() else { panic!("another command") };
        let papers = include_str!("../../../docs/performance.md");
        for line in args.model.need().to_string().lines() {
            assert!(papers.lines().any(|said| said == line), "docs/performance.md does not say {line}");
        }
    }

    #[test]
    fn sizes_and_loads_can_be_chosen() {
        match parse(&["stored", "--stored", "0,500", "--only", "closed", "--pairs", "2", "--check", "--json"]).unwrap()
        {
            What::Stored(args) => {
                assert_eq!((args.stored, args.pairs), (vec![0, 500], 2));
                assert_eq!(args.loads.flows(1.0, 8), [Flow::UnderWay(8)]);
                assert!(args.common.check && args.common.json);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            ["connections", "--connections", "10,11"],
            ["connections", "--connections", "0"],
            ["connections", "--rate", "0"],
            ["connections", "--rate", "inf"],
            ["stored", "--under-way", "0"],
            ["stored", "--stored", "many"],
            ["amplification", "--messages-a-day", "0"],
            ["amplification", "--absent-percent", "101"],
            ["amplification", "--days", "0"],
            ["model", "--connected", "2"],
        ] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&[]).is_err(), "nothing grows by itself");
    }
}
