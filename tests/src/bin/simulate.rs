//! Runs simulations: one seed in this process, or many of them in processes of their own, side by side.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use gureum_tests::sim::faults::{HOUR_MS, Happening, Story};
use gureum_tests::sim::journal::clock_text;
use gureum_tests::sim::{Journal, Options, Sabotage, Summary, World};

/// A run that takes longer than this hangs.
const RUN_MAX: Duration = Duration::from_secs(600);
/// Where `entropy.c` reads what to answer the system's calls for randomness from: keys of hash maps, choices between
/// branches that are ready, connection ids, jitter.
const SEED: &str = "GUREUM_SIMULATION_SEED";
/// In so many runs of so many days everything that can happen does: each brings about what its seed says.
const ALL_HAPPENS_IN: usize = 12;
const ALL_HAPPENS_DAYS: u64 = 5;
/// The stack of a run: everything is on one thread.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Simulates the whole system under faults, in virtual time, checked against a model.
#[derive(Debug, Parser)]
struct Arguments {
    /// One seed, in this process: replays it exactly
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// How many seeds, or which: `40` or `100..140`
    #[arg(long, default_value = "20")]
    seeds: String,
    /// Simulated days of each run
    #[arg(long, default_value_t = 5)]
    days: u64,
    /// Begin no further run after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// How many runs at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// A deliberate bug, in the life in which it shows: the run must break a rule
    #[arg(long)]
    sabotage: Option<Sabotage>,
    /// What all runs are about, in place of whatever their seeds say
    #[arg(long, conflicts_with = "sabotage")]
    story: Option<Story>,
    /// Print every event
    #[arg(long)]
    verbose: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) if std::env::var_os(SEED).is_some() => one(seed, &arguments),
        Some(seed) => {
            let flags = [(arguments.verbose, "--verbose"), (arguments.json, "--json")];
            let flags = flags.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag));
            let status = command(seed, &arguments)?.args(flags).status()?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        None => many(&arguments),
    }
}

/// This program for one seed, in a process whose randomness comes from that seed.
fn command(seed: u64, arguments: &Arguments) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(SEED, seed.to_string()).stdin(Stdio::null());
    command.args(["--seed", &seed.to_string(), "--days", &arguments.days.to_string()]);
    if let Some(bug) = arguments.sabotage {
        command.args(["--sabotage", &bug.name()]);
    }
    if let Some(story) = arguments.story {
        command.args(["--story", &name_of(story)]);
    }
    Ok(command)
}

/// A story's name on the command line.
fn name_of(story: Story) -> String {
    story.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Runs one seed here.
fn one(seed: u64, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { days, verbose, sabotage, story, .. } = *arguments;
    let options = Options { seed, days, verbose, sabotage, story };
    // In memory where there is such a place. By its name it is this process's alone: another one of the same seed draws
    // the same random numbers.
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let prefix = format!("gureum-simulation-{}-", std::process::id());
    let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
    let path = directory.path().to_owned();
    let run = std::thread::Builder::new().name("simulation".to_owned()).stack_size(STACK_BYTES);
    let (summary, journal) = run
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            runtime.block_on(async {
                let journal = Journal::new(options.verbose);
                watch(&journal, seed);
                let summary = World::new(options, &journal, &path).run().await;
                Ok::<_, anyhow::Error>((summary, journal))
            })
        })?
        .join()
        .map_err(|_| anyhow::anyhow!("the simulation of seed {seed} panicked"))??;
    if arguments.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!("{summary:#?}");
    }
    match journal.violation() {
        None => Ok(ExitCode::SUCCESS),
        Some(violation) => {
            let last = journal.last();
            eprintln!("the last {} events:\n  {}", last.len(), last.join("\n  "));
            eprintln!("seed {seed} broke a rule at {}: {}", clock_text(violation.at_ms), violation.rule);
            eprintln!("  {}", violation.what);
            let with = match (sabotage, story) {
                (Some(bug), _) => format!(" --sabotage {}", bug.name()),
                (None, Some(story)) => format!(" --story {}", name_of(story)),
                (None, None) => String::new(),
            };
            eprintln!("replay it: target/debug/simulate --seed {seed} --days {days}{with}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Makes a panic of any task a violation, and ends a run that hangs.
fn watch(journal: &Journal, seed: u64) {
    let panicked = journal.clone();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        // The clock of the simulation is there on its own thread alone.
        if tokio::runtime::Handle::try_current().is_ok() {
            panicked.violate("nothing panics", info.to_string());
        }
    }));
    let hangs = journal.clone();
    std::thread::spawn(move || {
        std::thread::sleep(RUN_MAX);
        eprintln!("the last events:\n  {}", hangs.last().join("\n  "));
        eprintln!("seed {seed} hangs: it takes more than {} s", RUN_MAX.as_secs());
        std::process::exit(1);
    });
}

/// Runs many seeds, each in a process of its own.
fn many(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let seeds = seeds(&arguments.seeds)?;
    let (next, end, failed) = (AtomicU64::new(seeds.start), seeds.end, AtomicBool::new(false));
    let started = Instant::now();
    let limit = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let summaries = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while limit.is_none_or(|limit| started.elapsed() < limit) && !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match child(seed, arguments) {
                        Ok(summary) => summaries.lock().unwrap_or_else(PoisonError::into_inner).push(summary),
                        Err(error) => {
                            failed.store(true, Ordering::Relaxed);
                            eprintln!("{error:#}");
                        }
                    }
                }
            });
        }
    });
    let summaries = summaries.lock().unwrap_or_else(PoisonError::into_inner);
    report(&summaries, started.elapsed());
    let is_long = arguments.days >= ALL_HAPPENS_DAYS;
    let is_due = is_long && summaries.len() >= ALL_HAPPENS_IN;
    let idle = match (arguments.sabotage, arguments.story) {
        (None, None) if is_due => never(&summaries),
        (None, Some(Story::Groups)) if is_long && !summaries.is_empty() => never_in_groups(&summaries),
        _ => Vec::new(),
    };
    if !idle.is_empty() {
        eprintln!("in {} runs this never happened, so they show nothing of it: {}", summaries.len(), idle.join(", "));
        failed.store(true, Ordering::Relaxed);
    }
    Ok(if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn seeds(text: &str) -> anyhow::Result<std::ops::Range<u64>> {
    match text.split_once("..") {
        Some((first, end)) => Ok(first.parse()?..end.parse()?),
        None => Ok(1..text.parse::<u64>()?.saturating_add(1)),
    }
}

fn child(seed: u64, arguments: &Arguments) -> anyhow::Result<Summary> {
    let started = Instant::now();
    let output = command(seed, arguments)?.arg("--json").output()?;
    if !output.status.success() {
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let summary: Summary = serde_json::from_slice(&output.stdout)?;
    println!(
        "seed {seed}: {} people, {} devices, retention {} h, {} messages, {} received, {} missed, {} datagrams, {} ms",
        summary.people,
        summary.devices,
        summary.retention_ms / HOUR_MS,
        summary.messages.handed,
        summary.messages.received,
        summary.messages.missed,
        summary.traffic.sent,
        started.elapsed().as_millis(),
    );
    Ok(summary)
}

/// Something of a run that is counted.
type Count = fn(&Summary) -> u64;

/// What none of the runs had, of all that may happen and that must be survived.
fn never(summaries: &[Summary]) -> Vec<String> {
    let mut idle: Vec<_> = Happening::ALL
        .iter()
        .filter(|(kind, _)| {
            !kind.is_of_groups() && !summaries.iter().any(|summary| summary.happenings.contains_key(kind))
        })
        .map(|(kind, _)| format!("{kind:?}"))
        .collect();
    let counted: [(&str, Count); 17] = [
        ("a missed message", |summary| summary.messages.missed),
        ("a message from another device of the reader", |summary| summary.messages.of_siblings),
        ("a linked device", |summary| summary.messages.linked),
        ("a revoked device", |summary| summary.messages.revoked),
        ("an older copy of a home", |summary| summary.messages.restored),
        ("a history that was handed over", |summary| summary.messages.histories),
        ("a lost datagram", |summary| summary.traffic.lost),
        ("a doubled datagram", |summary| summary.traffic.doubled),
        ("a cut datagram", |summary| summary.traffic.cut),
        ("a spoiled datagram", |summary| summary.traffic.spoiled),
        ("a changed address", |summary| summary.traffic.moved),
        ("a lost wake", |summary| summary.wakes.0),
        ("a doubled wake", |summary| summary.wakes.1),
        ("a late wake", |summary| summary.wakes.2),
        ("a wake-up for messages", |summary| summary.woken.0),
        ("a warning that messages expire", |summary| summary.woken.1),
        ("a wake-up without an answer", |summary| summary.woken.2),
    ];
    idle.extend(uncounted(summaries, &counted));
    for name in summaries.first().into_iter().flat_map(|summary| summary.disk.keys()) {
        if !summaries.iter().any(|summary| summary.disk.get(name).is_some_and(|count| *count > 0)) {
            idle.push(format!("of the disk: {name}"));
        }
    }
    idle
}

/// What none of the runs about groups had, of all that they are about.
fn never_in_groups(summaries: &[Summary]) -> Vec<String> {
    let has = |kind: &Happening| summaries.iter().any(|summary| summary.happenings.contains_key(kind));
    let mut idle: Vec<_> =
        Happening::IN_GROUPS.iter().filter(|kind| !has(kind)).map(|kind| format!("{kind:?}")).collect();
    let counted: [(&str, Count); 4] = [
        ("a group", |summary| u64::try_from(summary.groups).unwrap_or(u64::MAX)),
        ("a message from another device of the reader", |summary| summary.messages.of_siblings),
        ("a linked device", |summary| summary.messages.linked),
        ("a revoked device", |summary| summary.messages.revoked),
    ];
    idle.extend(uncounted(summaries, &counted));
    idle
}

fn uncounted(summaries: &[Summary], counted: &[(&str, Count)]) -> Vec<String> {
    let is_idle = |(_, count): &&(&str, Count)| !summaries.iter().any(|summary| count(summary) > 0);
    counted.iter().filter(is_idle).map(|(name, _)| (*name).to_owned()).collect()
}

fn report(summaries: &[Summary], took: Duration) {
    let sum = |count: fn(&Summary) -> u64| summaries.iter().map(count).sum::<u64>();
    let mut happenings = BTreeMap::new();
    for (kind, count) in summaries.iter().flat_map(|summary| &summary.happenings) {
        *happenings.entry(format!("{kind:?}")).or_insert(0) += count;
    }
    let mut disk = BTreeMap::new();
    for (name, count) in summaries.iter().flat_map(|summary| &summary.disk) {
        *disk.entry(name.clone()).or_insert(0) += count;
    }
    let days = sum(|summary| summary.days);
    let report = serde_json::json!({
        "seeds": summaries.len(),
        "simulated_days": days,
        "seconds": took.as_secs(),
        "simulated_days_per_minute": Duration::from_secs(60 * days).as_secs_f64() / took.as_secs_f64().max(0.001),
        "groups": summaries.iter().map(|summary| summary.groups).sum::<usize>(),
        "messages": sum(|summary| summary.messages.handed),
        "acknowledged_at_once": sum(|summary| summary.messages.acked),
        "received": sum(|summary| summary.messages.received),
        "received_from_own_devices": sum(|summary| summary.messages.of_siblings),
        "devices_linked": sum(|summary| summary.messages.linked),
        "devices_revoked": sum(|summary| summary.messages.revoked),
        "older_copies_told": sum(|summary| summary.messages.restored),
        "histories_handed_over": sum(|summary| summary.messages.histories),
        "histories_whose_sender_was_revoked": sum(|summary| summary.messages.histories_over),
        "missed_and_told": sum(|summary| summary.messages.missed),
        "unreadable_and_told": sum(|summary| summary.messages.unreadable),
        "datagrams": sum(|summary| summary.traffic.sent),
        "datagrams_lost": sum(|summary| summary.traffic.lost),
        "datagrams_doubled": sum(|summary| summary.traffic.doubled),
        "datagrams_cut_or_spoiled": sum(|summary| summary.traffic.cut + summary.traffic.spoiled),
        "addresses_changed": sum(|summary| summary.traffic.moved),
        "wakes_lost": sum(|summary| summary.wakes.0),
        "wakes_doubled": sum(|summary| summary.wakes.1),
        "wakes_late": sum(|summary| summary.wakes.2),
        "wake_ups": sum(|summary| summary.woken.0),
        "warnings": sum(|summary| summary.woken.1),
        "wake_ups_unanswered": sum(|summary| summary.woken.2),
        "disk": disk,
        "happenings": happenings,
    });
    println!("{report:#}");
}
