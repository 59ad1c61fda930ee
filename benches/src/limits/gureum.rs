//! Gureum itself: a server of its own for each run, loaded by `gureum load`, and what it has counted meanwhile.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use super::Measured;
use super::clients::Pace;
use super::metrics::{self, Counts};
use super::process::Served;

/// Thousands of accounts are registered first, each with its keys.
const SET_UP_MAX: Duration = Duration::from_secs(15 * 60);

/// Between two looks at a server that is being set up for.
const LOOK: Duration = Duration::from_millis(100);

/// After what has just happened to many connections, until memory says what they hold and no more.
pub const SETTLE: Duration = Duration::from_secs(3);

/// A server is at rest that has used less than this part of a processor, this many times in a row for this long: one that
/// nobody talks to looks around every five seconds, for some milliseconds.
const QUIET_PART: u32 = 25;
const QUIET_LOOKS: u32 = 4;
const QUIET_LOOK: Duration = Duration::from_millis(500);

/// A load, for the bare echo as for Gureum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Pairs of devices, one sending to the other.
    pub pairs: usize,
    /// How the messages of a pair follow one another.
    pub pace: Pace,
    /// Bytes of a message's ciphertext.
    pub sealed_bytes: usize,
    /// How long.
    pub duration: Duration,
}

impl Load {
    /// The arguments of `gureum load` for it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--pairs".to_owned(), self.pairs.to_string()];
        arguments.extend(match self.pace {
            Pace::Window(window) => ["--window".to_owned(), window.to_string()],
            Pace::Every(period) => ["--rate".to_owned(), (self.pairs as f64 / period.as_secs_f64()).to_string()],
        });
        arguments.extend(["--duration".to_owned(), humantime::format_duration(self.duration).to_string()]);
        arguments.extend(["--sealed-size".to_owned(), self.sealed_bytes.to_string()]);
        arguments
    }
}

/// What Gureum did under a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Messages delivered, and the server's processor time.
    pub measured: Measured,
    /// What it counted meanwhile.
    pub counts: Counts,
    /// The median time from when a message was due or sent until it was delivered, in microseconds; over the whole run.
    pub delivery_us_p50: Option<u64>,
    /// The 99th percentile of these.
    pub delivery_us_p99: Option<u64>,
}

/// A running server with a data directory of its own.
#[derive(Debug)]
pub struct Gureum {
    served: Served,
    client: PathBuf,
    url: String,
    admin: String,
    _data: TempDir,
}

/// What was read of a server at one moment.
struct Sample {
    at: Instant,
    cpu: Duration,
    counts: Counts,
}

impl Gureum {
    /// Starts the `gureumd` of a directory of programs, with its data below another directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(bin_dir: &Path, directory: &Path) -> Result<Self> {
        Self::start_on(bin_dir, tempfile::Builder::new().prefix("gureum-").tempdir_in(directory)?).await
    }

    /// Starts it on a data directory, which may have something in it, and goes with it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_on(bin_dir: &Path, data: TempDir) -> Result<Self> {
        let mut command = Command::new(program(bin_dir, "gureumd")?);
        command.arg("serve").arg("--data-dir").arg(data.path());
        command.args(["--registration", "open", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--sends-per-second", "1000000", "--log-filter", "error"]);
        let served = Served::start(command).await?;
        let (url, admin) = (served.said("url")?.to_owned(), served.said("admin")?.to_owned());
        Ok(Self { served, client: program(bin_dir, "gureum")?, url, admin, _data: data })
    }

    /// Loads it with pairs, and measures between the first tenth and the last.
    ///
    /// # Errors
    /// The load fails, or messages do not arrive.
    pub async fn pairs(&self, load: &Load) -> Result<Run> {
        // An earlier load has left its counts.
        let accepted_before = Counts::read(&metrics::fetch(&self.admin).await?)?.accepted;
        let mut command = self.load("pairs");
        command.args(load.arguments());
        let mut ended = pin!(command.spawn().context("starting gureum")?.wait_with_output());
        let (before, after) = tokio::select! {
            samples = self.samples(load.duration, accepted_before) => samples?,
            output = &mut ended => bail!("gureum load ended early{}", said(&output?)),
        };
        let output = ended.await?;
        ensure!(output.status.success(), "gureum load failed{}", said(&output));
        let report = last_json(&output.stdout)?;
        let number = |path| report.pointer(path).and_then(Value::as_u64);
        let missing = number("/missing").unwrap_or(0);
        ensure!(missing == 0, "{missing} messages did not arrive");
        let unsent = number("/unsent").unwrap_or(0);
        ensure!(unsent == 0, "{unsent} messages were due and not sent: that is more than goes through");
        let counts = after.counts.since(&before.counts);
        ensure!(counts.delivered > 0 && counts.batches > 0, "the server counted nothing: {counts:?}");
        Ok(Run {
            measured: Measured {
                messages: counts.delivered,
                cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
                wall_s: after.at.duration_since(before.at).as_secs_f64(),
            },
            counts,
            delivery_us_p50: number("/delivery_us/p50"),
            delivery_us_p99: number("/delivery_us/p99"),
        })
    }

    /// Memory for each of so many devices that are subscribed and silent.
    ///
    /// # Errors
    /// They cannot all be connected.
    pub async fn idle(&self, devices: usize) -> Result<u64> {
        tokio::time::sleep(SETTLE).await;
        let before = self.served.resident_bytes()?;
        let mut command = self.load("idle");
        command.args(["--devices", &devices.to_string(), "--duration", "1h"]);
        let mut ended = pin!(command.spawn().context("starting gureum")?.wait_with_output());
        let wanted = u64::try_from(devices)?;
        let connected = self.until(|metrics| Ok(metrics::subscriptions(metrics)? >= wanted));
        tokio::select! {
            connected = connected => connected?,
            output = &mut ended => bail!("gureum load ended early{}", said(&output?)),
        };
        tokio::time::sleep(SETTLE).await;
        Ok(self.served.resident_bytes()?.saturating_sub(before) / wanted.max(1))
    }

    /// Waits until it does nothing by itself: what a start finds to rewrite is done.
    ///
    /// # Errors
    /// It ends, or does not come to rest.
    pub async fn settle(&self) -> Result<()> {
        let give_up = Instant::now() + SET_UP_MAX;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            ensure!(Instant::now() < give_up, "the server does not come to rest");
            let before = self.served.cpu()?;
            tokio::time::sleep(QUIET_LOOK).await;
            let used = self.served.cpu()?.saturating_sub(before);
            quiet = if used < QUIET_LOOK / QUIET_PART { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// Its memory.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.served.resident_bytes()
    }

    /// Ends it.
    ///
    /// # Errors
    /// The system does not let it be ended.
    pub async fn stop(self) -> Result<()> {
        self.served.stop().await
    }

    fn load(&self, scenario: &str) -> Command {
        let mut command = Command::new(&self.client);
        command.args(["load", scenario, "--server", &self.url, "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Early and late in the time in which messages are accepted, beyond those that were before.
    async fn samples(&self, duration: Duration, accepted_before: u64) -> Result<(Sample, Sample)> {
        self.until(|metrics| Ok(Counts::read(metrics)?.accepted > accepted_before)).await?;
        let begun = Instant::now();
        tokio::time::sleep_until(begun + duration / 10).await;
        let before = self.sample().await?;
        tokio::time::sleep_until(begun + duration * 9 / 10).await;
        Ok((before, self.sample().await?))
    }

    async fn sample(&self) -> Result<Sample> {
        let metrics = metrics::fetch(&self.admin).await?;
        Ok(Sample { at: Instant::now(), cpu: self.served.cpu()?, counts: Counts::read(&metrics)? })
    }

    /// Waits until its metrics say something.
    async fn until(&self, is_so: impl Fn(&str) -> Result<bool>) -> Result<()> {
        let give_up = Instant::now() + SET_UP_MAX;
        while !is_so(&metrics::fetch(&self.admin).await?)? {
            ensure!(Instant::now() < give_up, "gureum load was not ready in time");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// A program of a directory.
fn program(bin_dir: &Path, name: &str) -> Result<PathBuf> {
    let path = bin_dir.join(name);
    ensure!(path.exists(), "{} is missing: build it, or name its directory with --bin-dir", path.display());
    Ok(path)
}

/// What a program has told people, as the end of a message.
fn said(output: &Output) -> String {
    format!(": {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end())
}

/// The last line of what a program has written.
fn last_json(output: &[u8]) -> Result<Value> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.is_empty()).context("gureum load reported nothing")?;
    serde_json::from_str(line).with_context(|| format!("gureum load reported {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pace: Pace, expected: &str) {
        let load = Load { pairs: 100, pace, sealed_bytes: 256, duration: Duration::from_millis(2_500) };
        assert_eq!(load.arguments().join(" "), expected);
    }

    #[test]
    fn a_load_is_the_same_for_gureum() {
        check(Pace::Window(32), "--pairs 100 --window 32 --duration 2s 500ms --sealed-size 256");
        check(Pace::Every(Duration::from_secs(1)), "--pairs 100 --rate 100 --duration 2s 500ms --sealed-size 256");
    }

    #[test]
    fn a_report_is_the_last_line() {
        let report = last_json(b"{\"event\":\"progress\"}\n{\"event\":\"load\",\"missing\":2}\n\n").unwrap();
        assert_eq!(report.pointer("/missing").and_then(Value::as_u64), Some(2));
        assert!(last_json(b"\n").is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = program(directory.path(), "gureumd").unwrap_err().to_string();
        assert!(error.contains("gureumd is missing") && error.contains("--bin-dir"), "{error}");
    }
}
