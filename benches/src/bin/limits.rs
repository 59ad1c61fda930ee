//! Shows what Gureum costs beside the bare parts below it: a table of medians, or JSON with every round.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use gureum_benches::limits::clients::Pace;
use gureum_benches::limits::gureum::Load;
use gureum_benches::limits::report::{Idle, Messages, Report};
use gureum_benches::limits::rounds::Place;
use gureum_benches::limits::shape::Shape;
use gureum_benches::limits::{bare_store, echo};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What Gureum costs beside the bare transport and the bare database, with the server's own settings, on the same machine in
/// the same run.
#[derive(Debug, Parser)]
#[command(name = "limits", after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    whole: Whole,
}

const EXAMPLES: &str = "Examples:
  limits
  limits --only busy --pairs 50 --window 64 --duration 30s
  limits --only idle --idle 2000 --rounds 3 --json";

/// What runs in a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// The bare transport
    #[command(name = gureum_benches::limits::rounds::ECHO, hide = true)]
    Echo {
        /// Where its certificate goes
        data_dir: PathBuf,
    },
    /// The bare database
    #[command(name = gureum_benches::limits::rounds::STORE, hide = true)]
    Store {
        /// Where it goes
        directory: PathBuf,
        /// What is written, as JSON
        #[arg(value_parser = shape)]
        shape: Shape,
    },
}

#[derive(Debug, clap::Args)]
struct Whole {
    /// Where gureumd and gureum are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where data goes: on the disk that is to be measured [default: beside this program]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Rounds of each
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// These alone, instead of all
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<What>,
    /// busy: pairs of devices, one sending to the other
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pairs: usize,
    /// busy: messages of each pair without an answer, at most 64
    #[arg(long, value_name = "W", default_value_t = 32, value_parser = window)]
    window: usize,
    /// chat: devices that send a message a second each
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one)]
    devices: usize,
    /// idle: connections
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = at_least_one)]
    idle: usize,
    /// Bytes of a message's ciphertext
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = at_least_one)]
    sealed_size: usize,
    /// How long each load lasts
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Print JSON with every round instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// As much as goes through
    Busy,
    /// Many devices, each a message a second, nothing sent together
    Chat,
    /// Connections that say nothing: their memory, and the handshakes by which they begin
    Idle,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Echo { data_dir }) => echo::serve(&data_dir),
        Some(Part::Store { directory, shape }) => {
            let stored = bare_store::run(&directory, &shape)?;
            Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&stored)?)?)
        }
        None => {
            // The clients of the bare transport have one thread, as `gureum load` has.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let report = runtime.block_on(Box::pin(cli.whole.measure()))?;
            let text = if cli.whole.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
            Ok(std::io::stdout().write_all(text.as_bytes())?)
        }
    }
}

impl Whole {
    async fn measure(&self) -> Result<Report> {
        let limits = std::env::current_exe().context("finding this program")?;
        let beside = limits.parent().unwrap_or(Path::new(".")).to_owned();
        let place = Place {
            bin_dir: self.bin_dir.clone().unwrap_or_else(|| beside.clone()),
            directory: self.directory.clone().unwrap_or(beside),
            limits,
        };
        let mut report = Report::default();
        for (what, name, load) in self.loads() {
            if !self.is_wanted(what) {
                continue;
            }
            let mut rounds = Vec::new();
            for round in 1..=self.rounds {
                eprintln!("{name}: round {round} of {}", self.rounds);
                rounds.push(Box::pin(place.round(&load)).await?);
            }
            report.messages.push(Messages::of(name, rounds));
        }
        if self.is_wanted(What::Idle) {
            let mut rounds = Vec::new();
            for round in 1..=self.rounds {
                eprintln!("{} idle connections: round {round} of {}", self.idle, self.rounds);
                rounds.push(Box::pin(place.idle_round(self.idle)).await?);
            }
            report.idle = Some(Idle::of(self.idle, rounds));
        }
        Ok(report)
    }

    fn is_wanted(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }

    fn loads(&self) -> [(What, String, Load); 2] {
        let load = |pairs, pace| Load { pairs, pace, sealed_bytes: self.sealed_size, duration: self.duration };
        let second = Duration::from_secs(1);
        [
            (
                What::Busy,
                format!("{} pairs, window {}", self.pairs, self.window),
                load(self.pairs, Pace::Window(self.window)),
            ),
            (
                What::Chat,
                format!("{} devices, a message a second each", self.devices),
                load(self.devices, Pace::Every(second)),
            ),
        ]
    }
}

fn shape(text: &str) -> Result<Shape, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn window(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(window @ 1..=64) => Ok(window),
        _ => Err("from 1 to 64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"limits").chain(arguments))
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_all_is_measured_at_the_size_of_the_targets() {
        let whole = parse(&[]).unwrap().whole;
        assert!([What::Busy, What::Chat, What::Idle].into_iter().all(|what| whole.is_wanted(what)));
        assert_eq!((whole.rounds, whole.idle, whole.json), (5, 5_000, false));
        let [(_, busy, _), (_, chat, load)] = whole.loads();
        assert_eq!(busy, "100 pairs, window 32");
        assert_eq!(chat, "1000 devices, a message a second each");
        assert_eq!(load.arguments().join(" "), "--pairs 1000 --rate 1000 --duration 10s --sealed-size 256");
    }

    #[test]
    fn some_can_be_left_out() {
        let whole = parse(&["--only", "idle,busy", "--idle", "10", "--json"]).unwrap().whole;
        assert!(whole.is_wanted(What::Idle) && whole.is_wanted(What::Busy) && !whole.is_wanted(What::Chat));
        assert_eq!((whole.idle, whole.json), (10, true));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for wrong in [["--window", "0"], ["--window", "65"], ["--pairs", "0"], ["--rounds", "0"], ["--only", "more"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_part_takes_what_it_is_handed() {
        let shape = Shape { pairs: 2, sealed_bytes: 256, messages: 9, batches: 3, senders: 4, cursors: 5 };
        let cli = parse(&["bare-store", "/tmp", &serde_json::to_string(&shape).unwrap()]).unwrap();
        match cli.part {
            Some(Part::Store { shape: parsed, .. }) => assert_eq!(parsed, shape),
            other => panic!("{other:?}"),
        }
        assert!(parse(&["bare-store", "/tmp", "{}"]).is_err());
    }
}
