//! Pairs that send and receive at the same time, as fast as they can or at a rate.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Figures, Scenario, Work, figure, open, us_each};
use crate::lane::{Counts, Measured, Pace, receive, send};
use crate::limits::TAIL;
use crate::peer::Protocol;
use crate::server::Server;
use crate::usage::own;
use crate::wire::Role;

pub(super) async fn run(
    server: &Server,
    protocol: Protocol,
    scenario: Scenario,
    work: &Work,
) -> anyhow::Result<Figures> {
    let receivers = open(&server.dial, protocol, Role::Receiver, work.pairs).await.context("receivers")?;
    let senders = open(&server.dial, protocol, Role::Sender, work.pairs).await.context("senders")?;
    let (server_before, own_before, start) = (server.usage()?, own()?, Instant::now());
    let end = start + work.duration;
    let (mut sending, mut receiving) = (JoinSet::new(), JoinSet::new());
    let mut all_counts = Vec::new();
    for (pair, (sender, receiver)) in senders.into_iter().zip(receivers).enumerate() {
        let counts = Arc::new(Counts::default());
        all_counts.push(Arc::clone(&counts));
        sending.spawn(send(sender, pace(scenario, work, pair, start), work.bytes, start, Arc::clone(&counts)));
        receiving.spawn(receive(receiver, start, counts));
    }
    let joined = async {
        let mut sides = (Measured::new(start)?, Measured::new(start)?);
        while let Some(measured) = sending.join_next().await {
            sides.0.add(&measured?.context("a sender")?)?;
        }
        while let Some(measured) = receiving.join_next().await {
            sides.1.add(&measured?.context("a receiver")?)?;
        }
        anyhow::Ok(sides)
    };
    let joined = timeout_at(end + 2 * TAIL, joined).await;
    let sent: u64 = all_counts.iter().map(|counts| counts.sent()).sum();
    let received: u64 = all_counts.iter().map(|counts| counts.received.load(Ordering::Acquire)).sum();
    let (accepted, delivered) = joined.with_context(|| format!("{received} of {sent} messages came"))??;
    ensure!(delivered.messages == accepted.messages, "{} of {} came", delivered.messages, accepted.messages);
    let (server_after, own_after) = (server.usage()?, own()?);
    let total = delivered.last.max(accepted.last).saturating_duration_since(start);
    let quantile = |measured: &Measured, quantile| figure(measured.latency_us.value_at_quantile(quantile));
    Ok(Figures::from([
        ("messages_per_s", figure(delivered.messages) / total.as_secs_f64()),
        ("server_us", us_each(server_after.cpu.saturating_sub(server_before.cpu), delivered.messages)),
        ("client_us", us_each(own_after.cpu.saturating_sub(own_before.cpu), delivered.messages)),
        ("server_mb", figure(server_after.resident_bytes) / 1e6),
        ("accept_p50_us", quantile(&accepted, 0.5)),
        ("accept_p99_us", quantile(&accepted, 0.99)),
        ("delivery_p50_us", quantile(&delivered, 0.5)),
        ("delivery_p99_us", quantile(&delivered, 0.99)),
    ]))
}

/// In the open loop, the pairs take turns.
fn pace(scenario: Scenario, work: &Work, pair: usize, start: Instant) -> Pace {
    let until = start + work.duration;
    if scenario == Scenario::Pairs {
        return Pace::Window { window: work.window, until };
    }
    let between = Duration::from_secs(1) / work.rate.max(1);
    let in_u32 = |count| u32::try_from(count).unwrap_or(u32::MAX);
    Pace::Rate { first: start + between * in_u32(pair), every: between * in_u32(work.pairs), until }
}
