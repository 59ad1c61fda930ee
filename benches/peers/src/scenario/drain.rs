//! Messages that are stored for a receiver that was there once and is away, and how fast it takes them.

use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::time::{Instant, timeout};

use super::{Figures, Work, figure, us_each};
use crate::lane::{Counts, Pace, receive, send};
use crate::limits::{DRAIN, STORE_WINDOW, XMPP_ABSENT_MAX};
use crate::peer::Protocol;
use crate::server::Server;
use crate::wire::{Link, Role};

pub(super) async fn run(server: &Server, protocol: Protocol, work: &Work) -> anyhow::Result<Figures> {
    // It makes itself known, and leaves.
    Link::open(&server.dial, protocol, Role::Receiver, 0).await?.close().await.context("leave")?;
    let mut sender = Link::open(&server.dial, protocol, Role::Sender, 0).await?;
    let messages = if protocol == Protocol::Xmpp { work.messages.min(XMPP_ABSENT_MAX) } else { work.messages };
    sender.wire.keep(messages);
    let counts = Arc::new(Counts::default());
    let pace = Pace::Count { window: STORE_WINDOW, messages };
    let (before, start) = (server.usage()?, Instant::now());
    let stored = timeout(DRAIN, send(sender, pace, work.bytes, start, Arc::clone(&counts))).await;
    let stored = stored.context("store: it takes too long")?.context("store")?;
    ensure!(stored.messages == messages, "{} of {} were stored", stored.messages, messages);
    let (between, back) = (server.usage()?, Instant::now());
    // The time of the log-in is in it, as it is for a person.
    let drained = async {
        let receiver = Link::open(&server.dial, protocol, Role::Receiver, 0).await?;
        receive(receiver, start, counts).await
    };
    let drained = timeout(DRAIN, drained).await.context("drain: it takes too long")?.context("drain")?;
    let after = server.usage()?;
    let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
    Ok(Figures::from([
        ("messages", figure(messages)),
        ("stored_per_s", figure(stored.messages) / seconds(start, stored.last)),
        ("store_server_us", us_each(between.cpu.saturating_sub(before.cpu), stored.messages)),
        ("drained_per_s", figure(drained.messages) / seconds(back, drained.last)),
        ("drain_server_us", us_each(after.cpu.saturating_sub(between.cpu), drained.messages)),
    ]))
}
