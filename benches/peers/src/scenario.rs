//! What is measured: the same work on each peer, started empty for it.

mod drain;
mod gureum;
mod idle;
mod pairs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio::task::JoinSet;

use crate::limits::DIALS_MAX;
use crate::line::Dial;
use crate::peer::{Peer, Programs, Protocol};
use crate::server::Server;
use crate::wire::{Link, Role};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Pairs that send as fast as their windows allow.
    Pairs,
    /// The same pairs at a fixed rate of all together.
    Latency,
    /// Messages stored for an absent receiver, then taken by it.
    Drain,
    /// Receivers that wait.
    Idle,
}

/// How much of it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) pairs: usize,
    pub(crate) window: u64,
    pub(crate) bytes: usize,
    pub(crate) duration: Duration,
    pub(crate) rate: u32,
    pub(crate) messages: u64,
    pub(crate) connections: usize,
    pub(crate) programs: Programs,
    /// Where servers have their directories.
    pub(crate) directory: PathBuf,
}

/// Figures by their names, which end in their units.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// Starts the peer, lets it work, and stops it.
pub(crate) async fn run(scenario: Scenario, peer: Peer, work: &Work) -> anyhow::Result<Figures> {
    let server = Server::start(peer, &work.programs, &work.directory).await?;
    let result = match (peer.protocol(), scenario) {
        (None, scenario) => gureum::run(&server, scenario, work).await,
        (Some(protocol), Scenario::Pairs | Scenario::Latency) => {
            Box::pin(pairs::run(&server, protocol, scenario, work)).await
        }
        (Some(protocol), Scenario::Drain) => Box::pin(drain::run(&server, protocol, work)).await,
        (Some(protocol), Scenario::Idle) => Box::pin(idle::run(&server, protocol, work)).await,
    };
    let stopped = server.stop().await;
    let figures = result?;
    stopped?;
    Ok(figures)
}

/// Opens so many connections of one role, a few at the same time, in the order of their pairs.
async fn open(dial: &Dial, protocol: Protocol, role: Role, links: usize) -> anyhow::Result<Vec<Link>> {
    let mut opened: BTreeMap<usize, Link> = BTreeMap::new();
    let mut dials = JoinSet::new();
    let mut next = 0..links;
    loop {
        while dials.len() < DIALS_MAX
            && let Some(pair) = next.next()
        {
            let dial = dial.clone();
            dials.spawn(async move { anyhow::Ok((pair, Link::open(&dial, protocol, role, pair).await?)) });
        }
        let Some(result) = dials.join_next().await else { break };
        let (pair, link) = result??;
        opened.insert(pair, link);
    }
    Ok(opened.into_values().collect())
}

/// As figures are given; what does not fit into 52 bits is not measured here.
#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn figure(count: u64) -> f64 {
    count as f64
}

/// Microseconds of processor for each of so many.
fn us_each(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / figure(count.max(1))
}
