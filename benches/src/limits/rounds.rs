//! The rounds: in each the bare transport, Gureum, and the bare database with the batches that Gureum has just made, one
//! after the other, so that whatever else the machine does meets all of them.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::Measured;
use super::bare_store::Stored;
use super::clients::{Clients, Frames, Pace, exchange, measure};
use super::gureum::{Gureum, Load, Run, SETTLE};
use super::process::Served;
use super::shape::Shape;
use super::writes::Writes;

/// The subcommand of the program of [`Place::limits`] that is [`super::echo::serve`].
pub const ECHO: &str = "bare-echo";

/// The one that is [`super::bare_store::run`].
pub const STORE: &str = "bare-store";

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The program of this crate, which is started again for each bare part.
    pub limits: PathBuf,
    /// The directory of `gureumd` and `gureum`.
    pub bin_dir: PathBuf,
    /// Where data goes.
    pub directory: PathBuf,
}

/// One round of messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// The bare transport.
    pub echo: Measured,
    /// Gureum.
    pub gureum: Run,
    /// The bare database.
    pub store: Stored,
    /// Processor time of a message on Gureum, by that of both parts.
    pub ratio: f64,
}

/// One round of silence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IdleRound {
    /// The bare transport.
    pub bare: BareIdle,
    /// Memory of Gureum for each subscribed device, in bytes.
    pub gureum_bytes: u64,
    /// That by the memory of a bare connection that has said nothing.
    pub ratio: f64,
}

/// What connections cost the bare transport.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BareIdle {
    /// Memory of the server for each connection, in bytes.
    pub bytes: u64,
    /// The same when each has a stream on which a message came and went.
    pub bytes_with_stream: u64,
    /// Handshakes a second.
    pub handshakes_per_s: f64,
    /// Processor time of the server for one, in microseconds.
    pub handshake_cpu_us: f64,
}

impl Place {
    /// Plays one round of messages.
    ///
    /// # Errors
    /// A part of it fails.
    pub async fn round(&self, load: &Load) -> Result<Round> {
        let echo = self.echo(load).await.context("the bare transport")?;
        let gureum = self.gureum(load).await.context("Gureum")?;
        let shape = Shape::of(&gureum.counts, Writes::unit()?, load.pairs, load.sealed_bytes);
        let store = self.store(&shape).await.context("the bare database")?;
        let ratio = gureum.measured.cpu_us() / (echo.cpu_us() + store.measured.cpu_us());
        Ok(Round { echo, gureum, store, ratio })
    }

    /// As many connections as Gureum has for the load; of two, one talks, so that as many messages are under way.
    ///
    /// # Errors
    /// It cannot be started, or a connection ends.
    pub async fn echo(&self, load: &Load) -> Result<Measured> {
        let (server, data) = self.start_echo().await?;
        let clients = Clients::new(data.path(), server.said("listen")?.parse()?, load.pairs * 2)?;
        let connections = clients.connect(load.pairs * 2).await?;
        let talking = connections.get(..load.pairs).context("there are fewer connections")?;
        let window = match load.pace {
            Pace::Window(window) => window,
            Pace::Every(_) => 1,
        };
        let frames = Frames::new(load.sealed_bytes, window);
        let measured = measure(&server, talking, &frames, load.pace, load.duration).await?;
        server.stop().await?;
        Ok(measured)
    }

    async fn gureum(&self, load: &Load) -> Result<Run> {
        let gureum = Gureum::start(&self.bin_dir, &self.directory).await?;
        let run = gureum.pairs(load).await?;
        gureum.stop().await?;
        Ok(run)
    }

    /// Writes the batches of a run in a process of its own.
    ///
    /// # Errors
    /// It fails.
    pub async fn store(&self, shape: &Shape) -> Result<Stored> {
        let data = self.data()?;
        let mut command = Command::new(&self.limits);
        command.arg(STORE).arg(data.path()).arg(serde_json::to_string(shape)?);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{STORE} failed: {}\n{}", output.status, stderr.trim_end());
        serde_json::from_slice(&output.stdout).context("reading what was written")
    }

    /// Plays one round of silence.
    ///
    /// # Errors
    /// A part of it fails.
    pub async fn idle_round(&self, connections: usize) -> Result<IdleRound> {
        let bare = self.bare_idle(connections).await.context("the bare transport")?;
        let gureum = Gureum::start(&self.bin_dir, &self.directory).await.context("Gureum")?;
        let gureum_bytes = gureum.idle(connections).await.context("Gureum")?;
        gureum.stop().await?;
        Ok(IdleRound { bare, gureum_bytes, ratio: gureum_bytes as f64 / bare.bytes.max(1) as f64 })
    }

    /// Makes bare connections, leaves them alone, and then exchanges a message on each.
    ///
    /// # Errors
    /// One cannot be made.
    pub async fn bare_idle(&self, connections: usize) -> Result<BareIdle> {
        let (server, data) = self.start_echo().await?;
        let clients = Clients::new(data.path(), server.said("listen")?.parse()?, connections)?;
        let count = u64::try_from(connections)?.max(1);
        tokio::time::sleep(SETTLE).await;
        let (before, cpu_before, started) = (server.resident_bytes()?, server.cpu()?, Instant::now());
        let held = clients.connect(connections).await?;
        let (took, cpu) = (started.elapsed(), server.cpu()?.saturating_sub(cpu_before));
        tokio::time::sleep(SETTLE).await;
        let silent = server.resident_bytes()?;
        let streams = exchange(&held, &Frames::new(256, 1)).await?;
        tokio::time::sleep(SETTLE).await;
        let with_streams = server.resident_bytes()?;
        drop(streams);
        server.stop().await?;
        Ok(BareIdle {
            bytes: silent.saturating_sub(before) / count,
            bytes_with_stream: with_streams.saturating_sub(before) / count,
            handshakes_per_s: count as f64 / took.as_secs_f64(),
            handshake_cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        })
    }

    async fn start_echo(&self) -> Result<(Served, TempDir)> {
        let data = self.data()?;
        let mut command = Command::new(&self.limits);
        command.arg(ECHO).arg(data.path());
        Ok((Served::start(command).await?, data))
    }

    fn data(&self) -> Result<TempDir> {
        let made = tempfile::Builder::new().prefix("limits-").tempdir_in(&self.directory);
        made.with_context(|| format!("making a directory in {}", self.directory.display()))
    }
}
