//! A child that serves until it is stopped.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::used::{CpuClock, resident_bytes};

/// A server opens its database and makes its certificate in well under a second.
const START_MAX: Duration = Duration::from_secs(60);

/// A child that has said that it is ready. It ends when this is dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    process: u32,
    clock: CpuClock,
    ready: Value,
    // What it waits for the end of, and what it would be ended for if it wrote to nobody.
    _input: Option<ChildStdin>,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Served {
    /// Starts a command and waits for its first line, which is JSON.
    ///
    /// # Errors
    /// It cannot be started, ends, or says something else.
    pub async fn start(mut command: Command) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let output = child.stdout.take().context("a child with a pipe has it")?;
        let mut output = BufReader::new(output).lines();
        let said = tokio::time::timeout(START_MAX, output.next_line()).await;
        let line = said.with_context(|| format!("{name} was not ready in time"))??;
        let line = line.with_context(|| format!("{name} ended before it was ready"))?;
        let ready = serde_json::from_str(&line).with_context(|| format!("{name} said {line:?}"))?;
        let process = child.id().with_context(|| format!("{name} has ended"))?;
        let clock = CpuClock::of(process)?;
        let input = child.stdin.take();
        Ok(Self { child, process, clock, ready, _input: input, _output: output })
    }

    /// A text of what it said when it was ready.
    ///
    /// # Errors
    /// It did not say that.
    pub fn said(&self, name: &str) -> Result<&str> {
        self.ready.get(name).and_then(Value::as_str).with_context(|| format!("no {name} in {}", self.ready))
    }

    /// The processor time that it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> Result<Duration> {
        self.clock.now()
    }

    /// Its memory.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        resident_bytes(self.process)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The system does not let it be ended.
    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("ending a server")
    }
}
