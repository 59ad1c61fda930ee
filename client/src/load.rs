//! The load tester: many pairs of devices over real QUIC with real identities, measured without coordinated omission.

mod body;
mod encrypted;
mod idle;
mod meter;
mod pace;
mod patience;
mod plot;
mod sealed;
mod setup;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{Code, ServerUrl};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use idle::{IdleOptions, IdleReport, run_idle};
pub use meter::{Latency, Progress};
pub use plot::{Over, PlotError, PlotFile, Point};
pub use sweep::{Rates, RatesError};

use crate::client::ClientError;
use crate::limits::LOAD_TAIL;
pub use crate::limits::{LOAD_IDLE_MAX, LOAD_PAIRS_MAX, TEXT_BYTES_MAX};
pub use body::{SEALED_BYTES_MIN, TEXT_BYTES_MIN};
pub use gureum_proto::limits::CIPHERTEXT_BYTES_MAX as SEALED_BYTES_MAX;
use meter::Meter;
use pace::Pace;

/// What to send, how fast and for how long.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The server, with an invite of two uses a pair where registration is not open.
    pub server: ServerUrl,
    /// Pairs of devices.
    pub pairs: usize,
    /// How fast.
    pub pace: LoadPace,
    /// How long to send.
    pub duration: Duration,
    /// What.
    pub body: LoadBody,
}

/// How fast to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadPace {
    /// Closed loop: so many messages of each pair without an answer.
    Window(u32),
    /// Open loop: so many messages a second of all pairs together.
    Rate(f64),
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadBody {
    /// So many bytes of text, encrypted, stored and read as by any client.
    Text(usize),
    /// So many opaque bytes; the client's own cost is as small as it can be.
    Sealed(usize),
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// Pairs of devices.
    pub pairs: usize,
    /// The window, in a closed loop.
    pub window: Option<u32>,
    /// The rate asked for, in an open loop.
    pub rate: Option<f64>,
    /// Bytes of a message: of the text, or of the ciphertext where `sealed`.
    pub body_bytes: usize,
    /// Whether bodies were opaque.
    pub sealed: bool,
    /// How long was sent, in seconds.
    pub send_s: f64,
    /// Until the last message had arrived, in seconds.
    pub total_s: f64,
    /// Messages handed to the network.
    pub sent: u64,
    /// Messages that the server said to have on disk.
    pub accepted: u64,
    /// Messages that arrived.
    pub delivered: u64,
    /// Messages refused, by code.
    pub refused: std::collections::BTreeMap<&'static str, u64>,
    /// Messages without an answer.
    pub unanswered: u64,
    /// Accepted messages that did not arrive in time.
    pub missing: u64,
    /// What ended a pair early.
    pub errors: Vec<String>,
    /// Bytes of bodies accepted.
    pub body_bytes_accepted: u64,
    /// Messages accepted a second of `total_s`.
    pub accepted_per_s: f64,
    /// Messages delivered a second of `total_s`.
    pub delivered_per_s: f64,
    /// From due (open loop) or sent (closed loop) to the durable answer.
    pub accept_us: Latency,
    /// From due (open loop) or sent (closed loop) to received.
    pub delivery_us: Latency,
}

/// Why a load cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// More pairs than one process can hold.
    #[error("from 1 to {LOAD_PAIRS_MAX} pairs (or connections) fit into one load tester")]
    Pairs,
    /// The invite is used up.
    #[error(
        "the invite does not suffice for {accounts} accounts; make one that does: gureumd invite --data-dir DIR \
         --uses {accounts}"
    )]
    Invite {
        /// Accounts needed.
        accounts: usize,
    },
    /// A body is too small or too large.
    #[error("a message may have from {least} to {most} bytes here")]
    Size {
        /// The smallest.
        least: usize,
        /// The largest.
        most: usize,
    },
    /// The directory for keys.
    #[error("cannot make a temporary directory: {0}")]
    Directory(#[from] std::io::Error),
    /// Everything else.
    #[error(transparent)]
    Client(ClientError),
}

/// Sets up the pairs, sends, and measures. `progress` is called once a second.
///
/// # Errors
/// The set-up failed. What fails later is in the report.
pub async fn run(options: LoadOptions, progress: impl FnMut(&Progress)) -> Result<LoadReport, LoadError> {
    check(&options)?;
    let homes = setup::directory()?;
    let pairs = Box::pin(setup::pairs(&options, homes.path())).await?;
    let meter = Arc::new(Meter::new(options.pairs));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for (index, pair) in pairs.into_iter().enumerate() {
        let pace = Pace::new(options.pace, options.pairs, index, start, options.duration);
        let lane = meter.lane(index);
        match options.body {
            LoadBody::Sealed(bytes) => lanes.spawn(sealed::run(pair, pace, lane, bytes)),
            LoadBody::Text(bytes) => lanes.spawn(encrypted::run(pair, pace, lane, bytes)),
        };
    }
    watch(&mut lanes, &meter, start, options.duration + LOAD_TAIL * 2, progress).await;
    Ok(report(&options, &meter, start.elapsed()))
}

fn check(options: &LoadOptions) -> Result<(), LoadError> {
    if options.pairs == 0 || options.pairs > LOAD_PAIRS_MAX {
        return Err(LoadError::Pairs);
    }
    let (bytes, least, most) = match options.body {
        LoadBody::Text(bytes) => (bytes, TEXT_BYTES_MIN, TEXT_BYTES_MAX),
        LoadBody::Sealed(bytes) => (bytes, SEALED_BYTES_MIN, SEALED_BYTES_MAX),
    };
    if (least..=most).contains(&bytes) { Ok(()) } else { Err(LoadError::Size { least, most }) }
}

/// Waits for all lanes, and reports once a second.
async fn watch(
    lanes: &mut JoinSet<Result<(), ClientError>>,
    meter: &Meter,
    start: Instant,
    at_most: Duration,
    mut progress: impl FnMut(&Progress),
) {
    let mut second = tokio::time::interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    let mut before = meter.progress(start.elapsed(), None);
    while !lanes.is_empty() {
        tokio::select! {
            biased;
            _ = second.tick() => {
                let now = meter.progress(start.elapsed(), Some(&before));
                progress(&now);
                before = now;
            }
            Some(ended) = lanes.join_next() => match ended {
                Ok(Ok(())) => (),
                Ok(Err(error)) => meter.failed(error.to_string()),
                Err(error) => meter.failed(error.to_string()),
            },
            () = tokio::time::sleep_until(start + at_most) => {
                meter.failed("some pairs did not end in time".to_owned());
                lanes.abort_all();
                return;
            }
        }
    }
}

fn report(options: &LoadOptions, meter: &Meter, total: Duration) -> LoadReport {
    let sum = meter.sum();
    let (window, rate) = match options.pace {
        LoadPace::Window(window) => (Some(window), None),
        LoadPace::Rate(rate) => (None, Some(rate)),
    };
    let (body_bytes, sealed) = match options.body {
        LoadBody::Text(bytes) => (bytes, false),
        LoadBody::Sealed(bytes) => (bytes, true),
    };
    let refused = sum.refused.iter().map(|(code, count)| (Code::name(*code), *count)).collect();
    let refusals: u64 = sum.refused.values().sum();
    let total_s = sum.last.max(options.duration.min(total)).as_secs_f64();
    LoadReport {
        pairs: options.pairs,
        window,
        rate,
        body_bytes,
        sealed,
        send_s: options.duration.as_secs_f64(),
        total_s,
        sent: sum.sent,
        accepted: sum.accepted,
        delivered: sum.delivered,
        refused,
        unanswered: sum.sent.saturating_sub(sum.accepted).saturating_sub(refusals),
        missing: sum.accepted.saturating_sub(sum.delivered),
        errors: meter.errors(),
        body_bytes_accepted: sum.accepted.saturating_mul(u64::try_from(body_bytes).unwrap_or(0)),
        accepted_per_s: per_second(sum.accepted, total_s),
        delivered_per_s: per_second(sum.delivered, total_s),
        accept_us: Latency::of(&sum.accept),
        delivery_us: Latency::of(&sum.delivery),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate has no more than three digits that mean anything")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_where_no_server_answers_is_known_within_15_s() {
        // It hears everything and says nothing.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server: ServerUrl = format!("gureum://{}", silent.local_addr().unwrap()).parse().unwrap();
        let options = LoadOptions {
            server: server.clone(),
            pairs: 2,
            pace: LoadPace::Window(1),
            duration: Duration::from_secs(1),
            body: LoadBody::Sealed(256),
        };
        let started = Instant::now();
        let error = Box::pin(run(options, |_| ())).await.unwrap_err();
        assert!(error.to_string().contains("cannot reach"), "{error}");
        assert!(started.elapsed() <= Duration::from_secs(15), "{:?}", started.elapsed());
        let options = IdleOptions { server, connections: 2, duration: Duration::from_secs(1) };
        let error = Box::pin(run_idle(options, |_| ())).await.unwrap_err();
        assert!(error.to_string().contains("cannot reach"), "{error}");
        assert!(started.elapsed() <= Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
