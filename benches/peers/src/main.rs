//! `peers`: the same work on what a user would pick instead of Gureum, each durable in the way it can be, with TLS, on
//! loopback, in turns.

mod body;
mod certificate;
mod lane;
mod limits;
mod line;
mod peer;
mod report;
mod scenario;
mod server;
mod usage;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::body::BODY_BYTES_MIN;
use crate::peer::{Peer, Programs};
use crate::report::Report;
use crate::scenario::{Scenario, Work};

/// Files that are open beside the connections.
const FILES: usize = 100;

/// The same work on Gureum and on its peers: scripts/peers.sh installs them.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Args {
    /// What to measure; all if none is named.
    #[arg(long = "scenario", value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Whom to measure; all if none is named.
    #[arg(long = "peer", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Rounds: in each, every peer has its turn, with an empty server.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Pairs of connections.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Messages of a pair that may be unanswered.
    #[arg(long, default_value_t = 32)]
    window: u64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How long each turn of pairs and latency sends.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Messages a second of all pairs together, for latency.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Messages that wait for the absent receiver.
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Idle connections.
    #[arg(long, default_value_t = 5_000)]
    connections: usize,
    /// The directory with gureumd and gureum.
    #[arg(long, default_value = "target/prove/release")]
    gureum_bin: PathBuf,
    /// The program of NATS.
    #[arg(long, default_value = "target/peers/nats/bin/nats-server")]
    nats_bin: PathBuf,
    /// Where the servers keep their files, each in a directory of its own that is removed again. On a disk, or an
    /// fsync costs nothing.
    #[arg(long, default_value = "target/peers/run")]
    dir: PathBuf,
    /// Threads of the clients.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A line of JSON for each peer in each scenario, instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = runtime(args.threads).and_then(|runtime| runtime.block_on(run(args)));
    result.unwrap_or_else(|error| {
        eprintln!("peers: {error:#}");
        ExitCode::FAILURE
    })
}

fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = if threads <= 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}

/// An interrupt drops what runs: servers and their files go with it.
async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        result = Box::pin(measure(args)) => return result,
    }
    eprintln!("peers: interrupted; nothing is reported");
    Ok(ExitCode::from(130))
}

async fn measure(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(args.size >= BODY_BYTES_MIN, "a message has at least {BODY_BYTES_MIN} bytes");
    ensure!(args.pairs > 0 && args.window > 0 && args.messages > 0 && args.connections > 0, "nothing to do");
    let scenarios = some_or(args.scenarios, &[Scenario::Pairs, Scenario::Latency, Scenario::Drain, Scenario::Idle]);
    let peers = some_or(args.peers, <Peer as clap::ValueEnum>::value_variants());
    raise_files((2 * args.pairs).max(args.connections) + FILES)?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("make {}", args.dir.display()))?;
    // Servers have directories of their own, from where a relative path leads elsewhere.
    let absolute = |path: PathBuf| std::path::absolute(&path).with_context(|| path.display().to_string());
    let work = Work {
        pairs: args.pairs,
        window: args.window,
        bytes: args.size,
        duration: args.duration,
        rate: args.rate,
        messages: args.messages,
        connections: args.connections,
        programs: Programs { gureum: absolute(args.gureum_bin)?, nats: absolute(args.nats_bin)? },
        directory: absolute(args.dir)?,
    };
    let versions: BTreeMap<Peer, String> =
        peers.iter().map(|peer| anyhow::Ok((*peer, peer.version(&work.programs)?))).collect::<anyhow::Result<_>>()?;
    let mut report = Report::default();
    for round in 1..=args.rounds {
        for (scenario, peer) in scenarios.iter().flat_map(|scenario| peers.iter().map(move |peer| (scenario, peer))) {
            let result = Box::pin(scenario::run(*scenario, *peer, &work)).await;
            match &result {
                Ok(figures) => eprintln!("peers: round {round}, {scenario:?}, {peer}: {figures:.1?}"),
                Err(error) => eprintln!("peers: round {round}, {scenario:?}, {peer} FAILED: {error:#}"),
            }
            report.add(*scenario, *peer, result);
        }
    }
    print!("{}", if args.json { report.json(&versions)? } else { report.tables(&versions) });
    Ok(if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn some_or<T: Clone>(named: Vec<T>, all: &[T]) -> Vec<T> {
    if named.is_empty() { all.to_vec() } else { named }
}

/// Servers inherit the limit: each needs as many as its clients.
fn raise_files(needed: usize) -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        u64::try_from(needed)? <= most,
        "{needed} open files are needed and {most} allowed: ulimit -Hn, or fewer --connections"
    );
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}
