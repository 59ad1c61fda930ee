//! The rounds: in each the same load at every size, one after the other, so that whatever else the machine does meets all
//! sizes. Each run has a server of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gureum_server::limits::SENT_RESULTS_KEPT;
use serde::Serialize;
use tempfile::TempDir;

use super::files;
use super::fill::fill;
use super::report::Series;
use crate::limits::Measured;
use crate::limits::clients::Pace;
use crate::limits::gureum::{Gureum, Load, Run};
use crate::limits::rounds::Place;

/// A load that is the same in all, whatever the number of those who share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flow {
    /// An open loop: so many messages a second, evenly spread.
    Rate(f64),
    /// A closed loop: about so many messages without an answer, as far as a device may have them.
    UnderWay(usize),
}

/// What all runs have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Rounds.
    pub rounds: u32,
    /// How long each run loads.
    pub duration: Duration,
    /// Bytes of a message's ciphertext.
    pub sealed_bytes: usize,
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Connections, or messages that were stored before.
    pub size: u64,
    /// Messages of each sender without an answer; `None`: they were due at given times.
    pub window: Option<usize>,
    /// What Gureum did.
    pub run: Run,
    /// Its memory at the end, in bytes.
    pub resident_bytes: u64,
    /// The bare transport with as many connections and the same load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<Measured>,
    /// Bytes of the data directory before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

impl Flow {
    /// The load of so many pairs.
    #[must_use]
    pub fn load(self, pairs: usize, setting: &Setting) -> Load {
        let pairs = pairs.max(1);
        let pace = match self {
            Self::Rate(rate) => Pace::Every(Duration::from_secs_f64(pairs as f64 / rate)),
            Self::UnderWay(messages) => Pace::Window((messages / pairs).clamp(1, SENT_RESULTS_KEPT)),
        };
        Load { pairs, pace, sealed_bytes: setting.sealed_bytes, duration: setting.duration }
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rate(rate) => format!("{rate} messages a second in all"),
            Self::UnderWay(messages) => format!("{messages} messages under way in all"),
        }
    }
}

/// The same load on few connections and on many, two for each pair, beside that on as many of the bare transport.
///
/// # Errors
/// A run fails.
pub async fn connections(
    place: &Place,
    setting: &Setting,
    counts: &[usize],
    flow: Flow,
    tell: impl Fn(&str),
) -> Result<Series> {
    let mut rounds = Vec::new();
    for round in 1..=setting.rounds {
        let mut steps = Vec::new();
        for count in counts {
            tell(&format!("{}, {count} connections: round {round} of {}", flow.name(), setting.rounds));
            let load = flow.load(count / 2, setting);
            let echo = place.echo(&load).await.context("the bare transport")?;
            let gureum = Gureum::start(&place.bin_dir, &place.directory).await?;
            let step = run(&gureum, &load, u64::try_from(*count)?).await?;
            gureum.stop().await?;
            steps.push(Step { echo: Some(echo), ..step });
        }
        rounds.push(steps);
    }
    Series::of("connections", flow.name(), rounds)
}

/// The same loads, one after the other, on a store that is empty and on those that hold more and more messages of devices
/// that are away.
///
/// # Errors
/// A run fails, or a store cannot be filled.
pub async fn stored(
    place: &Place,
    setting: &Setting,
    sizes: &[u64],
    pairs: usize,
    flows: &[Flow],
    tell: impl Fn(&str),
) -> Result<Vec<Series>> {
    // It blocks, while nothing else is to be done.
    let stores = filled(&place.directory, sizes, setting.sealed_bytes, &tell)?;
    let mut rounds: Vec<Vec<Vec<Step>>> = flows.iter().map(|_| Vec::new()).collect();
    for round in 1..=setting.rounds {
        rounds.iter_mut().for_each(|of_flow| of_flow.push(Vec::new()));
        for store in &stores {
            tell(&format!("{} stored: round {round} of {}", store.messages, setting.rounds));
            let data = data(&place.directory)?;
            files::copy(store.data.path(), data.path())?;
            let gureum = Gureum::start_on(&place.bin_dir, data).await?;
            gureum.settle().await?;
            for (flow, of_flow) in flows.iter().zip(&mut rounds) {
                let step = run(&gureum, &flow.load(pairs, setting), store.messages).await?;
                let steps = of_flow.last_mut().context("there is no round")?;
                steps.push(Step { disk_bytes: Some(store.disk_bytes), ..step });
            }
            gureum.stop().await?;
        }
    }
    flows.iter().zip(rounds).map(|(flow, rounds)| Series::of("stored", flow.name(), rounds)).collect()
}

async fn run(gureum: &Gureum, load: &Load, size: u64) -> Result<Step> {
    let run = gureum.pairs(load).await.with_context(|| format!("Gureum with {size}"))?;
    let window = match load.pace {
        Pace::Window(window) => Some(window),
        Pace::Every(_) => None,
    };
    let resident_bytes = gureum.resident_bytes()?;
    Ok(Step { size, window, run, resident_bytes, echo: None, disk_bytes: None })
}

/// A data directory with messages in it, which nobody has open.
#[derive(Debug)]
struct Filled {
    messages: u64,
    disk_bytes: u64,
    data: TempDir,
}

/// One for each size, in ascending order: each is the one before and some more.
fn filled(directory: &Path, sizes: &[u64], sealed_bytes: usize, tell: &impl Fn(&str)) -> Result<Vec<Filled>> {
    ensure!(sizes.is_sorted(), "sizes are to ascend");
    let mut stores: Vec<Filled> = Vec::new();
    for (seed, messages) in (0..).zip(sizes) {
        let data = data(directory)?;
        let before = stores.last();
        if let Some(before) = before {
            files::copy(before.data.path(), data.path())?;
        }
        let more = messages.saturating_sub(before.map_or(0, |before| before.messages));
        tell(&format!("filling a store with {messages} messages"));
        fill(data.path(), more, sealed_bytes, seed, |sent| tell(&format!("{sent} of {more} more messages")))?;
        stores.push(Filled { messages: *messages, disk_bytes: files::size_bytes(data.path())?, data });
    }
    Ok(stores)
}

fn data(directory: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("growth-").tempdir_in(directory);
    made.with_context(|| format!("making a directory in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { rounds: 1, duration: Duration::from_secs(10), sealed_bytes: 256 };

    #[track_caller]
    fn check(flow: Flow, pairs: usize, expected: &str) {
        let arguments = flow.load(pairs, &SETTING).arguments().join(" ");
        assert_eq!(arguments, format!("--pairs {pairs} {expected} --duration 10s --sealed-size 256"));
    }

    #[test]
    fn a_rate_is_that_of_all_pairs_together() {
        for pairs in [5, 50, 250, 1_000] {
            check(Flow::Rate(1_000.0), pairs, "--rate 1000");
        }
    }

    #[test]
    fn what_is_under_way_is_shared_as_far_as_a_device_may_have_it() {
        for (pairs, window) in [(5, 64), (50, 6), (250, 1), (1_000, 1)] {
            check(Flow::UnderWay(320), pairs, &format!("--window {window}"));
        }
        check(Flow::UnderWay(3_200), 100, "--window 32");
        check(Flow::UnderWay(1_000), 5, "--window 64");
    }

    #[test]
    fn stores_hold_what_the_one_before_held_and_more() {
        let directory = tempfile::tempdir().unwrap();
        let stores = filled(directory.path(), &[0, 120, 300], 256, &|_: &str| ()).unwrap();
        assert_eq!(stores.iter().map(|store| store.messages).collect::<Vec<_>>(), [0, 120, 300]);
        let bytes: Vec<_> = stores.iter().map(|store| store.disk_bytes).collect();
        assert!(bytes.windows(2).all(|pair| pair[1] > pair[0] + 120 * 256), "{bytes:?}");
        assert!(filled(directory.path(), &[2, 1], 256, &|_: &str| ()).is_err());
    }
}
