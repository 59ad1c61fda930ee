//! Many devices that are subscribed and silent: what one costs the server in memory.

use std::time::Duration;

use tokio::time::Instant;

use super::cost::{Cost, look};
use super::device::Device;
use super::meter::Meter;
use super::setup::{self, SetUp};
use super::{IdleReport, LoadError, LoadOptions, LoadReport, Progress, Tell, patience};
use crate::client::ClientError;
use crate::link::{Link, LinkError, LinkEvent, LinkEvents};

/// A device that is subscribed.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) device: Device,
    pub(super) link: Link,
    pub(super) events: LinkEvents,
}

/// Connects so many devices and holds them.
pub(super) async fn idle(options: &LoadOptions, devices: usize, tell: Tell<'_>) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, devices).await?;
    let before = look(options.metrics.as_ref()).await?;
    let start = Instant::now();
    let devices = set_up.devices(devices, tell).await?;
    let mut held = subscribe_all(devices, tell).await?;
    let set_up_s = start.elapsed().as_secs_f64();
    hold(options.duration, tell).await;
    let after = look(options.metrics.as_ref()).await?;
    let alive = held.iter_mut().filter_map(|device| is_there(&mut device.events).then_some(())).count();

    let meter = Meter::new(1);
    let mut report = LoadReport::of(options, &meter, 0, start.elapsed());
    report.cost = Cost::between(before, after, 0);
    report.missing = u64::try_from(held.len().saturating_sub(alive)).unwrap_or(u64::MAX);
    let bytes_per_device = report.cost.and_then(|cost| cost.bytes_per(u64::try_from(held.len()).unwrap_or(0)));
    report.idle = Some(IdleReport { held: alive, set_up_s, held_s: options.duration.as_secs_f64(), bytes_per_device });
    Ok(report)
}

/// Connects them, some at a time.
pub(super) async fn subscribe_all(devices: Vec<Device>, tell: Tell<'_>) -> Result<Vec<Subscribed>, LoadError> {
    let count = devices.len();
    let connect = |index: usize| {
        let device = devices.get(index).cloned();
        async move {
            let device = device.ok_or(ClientError::Ended)?;
            patience::in_time(|| async { Ok(Box::pin(subscribe(device.clone())).await?) }).await
        }
    };
    let told = |done| tell(&Progress::SetUp { what: "subscriptions", done, of: count });
    Ok(setup::each(count, connect, told).await?)
}

/// Connects one and waits until it has been told that nothing waits for it.
pub(super) async fn subscribe(device: Device) -> Result<Subscribed, LinkError> {
    let (link, mut events, _) = device.connect(true).await?;
    loop {
        match events.next().await {
            LinkEvent::Delivery(_) => return Ok(Subscribed { device, link, events }),
            LinkEvent::Closed(error) => return Err(error),
            LinkEvent::Sent(_)
            | LinkEvent::Drain { .. }
            | LinkEvent::Notice(_)
            | LinkEvent::Phone(_)
            | LinkEvent::Typing(_) => (),
        }
    }
}

async fn hold(duration: Duration, tell: Tell<'_>) {
    let end = Instant::now() + duration;
    let every = Duration::from_secs(10);
    while Instant::now() < end {
        tokio::time::sleep_until(end.min(Instant::now() + every)).await;
        let left = end.saturating_duration_since(Instant::now());
        tell(&Progress::Say(format!("all are held; {} s to go", left.as_secs())));
    }
}

fn is_there(events: &mut LinkEvents) -> bool {
    while let Some(event) = events.ready() {
        if matches!(event, LinkEvent::Closed(_)) {
            return false;
        }
    }
    true
}
