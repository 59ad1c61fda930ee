//! A server that runs: started with a directory of its own, stopped and removed with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep, timeout};

use crate::certificate::Certificate;
use crate::limits::{START, STOP};
use crate::line::Dial;
use crate::peer::{Peer, Programs};
use crate::usage::{Usage, usage};
use crate::wire::nats;

/// A peer that takes connections.
pub(crate) struct Server {
    child: Child,
    /// Of the first process: its children are counted with it.
    id: u32,
    pub(crate) dial: Dial,
    /// What Gureum has said of itself.
    pub(crate) ready: Option<Ready>,
    directory: TempDir,
}

/// Gureum's first line.
#[derive(Deserialize)]
pub(crate) struct Ready {
    /// What its clients are given.
    pub(crate) url: String,
    /// Where its metrics are.
    pub(crate) admin: SocketAddr,
}

impl Server {
    /// Starts the peer empty, in a directory below `parent`.
    pub(crate) async fn start(peer: Peer, programs: &Programs, parent: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix(&format!("{peer}-")).tempdir_in(parent)?;
        let certificate = Certificate::make(directory.path())?;
        let port = free_port()?;
        let config = peer.configure(directory.path(), port, &certificate)?;
        let log = std::fs::File::create(directory.path().join("stderr.log"))?;
        let mut command = Command::from(peer.command(programs, &config, directory.path(), port)?);
        // In a group of its own: an interrupt at the terminal is for the driver, which stops it.
        command.stdin(Stdio::null()).stderr(log).kill_on_drop(true).process_group(0);
        command.stdout(if peer == Peer::Gureum { Stdio::piped() } else { Stdio::null() });
        let child = command.spawn().with_context(|| format!("{peer} is not installed: scripts/peers.sh"))?;
        let id = child.id().context("the server ended at once")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dial = Dial::new(address, &certificate)?;
        let mut server = Self { child, id, dial, ready: None, directory };
        let ready = timeout(START, server.wait(peer)).await.unwrap_or_else(|_| bail!("it is not ready yet"));
        ready.with_context(|| format!("start {peer}: {}", server.log()))?;
        Ok(server)
    }

    async fn wait(&mut self, peer: Peer) -> anyhow::Result<()> {
        if let Some(output) = self.child.stdout.take() {
            let line = BufReader::new(output).lines().next_line().await?.context("it said nothing")?;
            self.ready = Some(serde_json::from_str(&line)?);
            return Ok(());
        }
        // A port may be open before there is somebody who can answer on it.
        while self.dial.connect().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            sleep(Duration::from_millis(20)).await;
        }
        match peer {
            Peer::NatsAlways | Peer::NatsDefault => nats::prepare(&self.dial).await,
            _ => Ok(()),
        }
    }

    /// The end of what it said.
    fn log(&self) -> String {
        let names = ["stderr.log", "ejabberd.log"].map(|name| self.directory.path().join(name));
        let texts = names.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    /// What it has used until now.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.id)
    }

    /// Ends it and removes its files.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
            if timeout(STOP, self.child.wait()).await.is_err() {
                self.child.kill().await?;
            }
        }
        self.directory.close().context("remove the server's files")
    }
}

/// One that nobody listens on, for TCP and most likely for UDP as well.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
