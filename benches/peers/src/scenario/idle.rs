//! Receivers that are connected and ready, and what each of them costs the server in memory.

use anyhow::Context;
use tokio::time::{Duration, Instant, sleep};

use super::{Figures, Work, figure, open, us_each};
use crate::peer::Protocol;
use crate::server::Server;
use crate::wire::Role;

/// A first few fill what a process has once.
const FIRST: usize = 100;

/// Until what the handshakes needed for a moment is given back.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn run(server: &Server, protocol: Protocol, work: &Work) -> anyhow::Result<Figures> {
    let first = open(&server.dial, protocol, Role::Receiver, FIRST.min(work.connections)).await?;
    for link in first {
        link.close().await.context("leave")?;
    }
    sleep(SETTLE).await;
    let (before, start) = (server.usage()?, Instant::now());
    let links = open(&server.dial, protocol, Role::Receiver, work.connections).await.context("connect")?;
    let (made, set_up) = (server.usage()?, start.elapsed());
    sleep(SETTLE).await;
    let after = server.usage()?;
    let each =
        figure(after.resident_bytes.saturating_sub(before.resident_bytes)) / figure(work.connections.try_into()?);
    drop(links);
    Ok(Figures::from([
        ("kb_each", each / 1e3),
        ("set_up_s", set_up.as_secs_f64()),
        ("set_up_server_us", us_each(made.cpu.saturating_sub(before.cpu), work.connections.try_into()?)),
    ]))
}
