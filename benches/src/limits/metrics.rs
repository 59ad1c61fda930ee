//! What a running Gureum server counts, read from its `/metrics`.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No metrics are longer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The counters that a run is judged by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Messages accepted.
    pub accepted: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Batches written with an fsync.
    pub batches: u64,
    /// Changes in these.
    pub changes: u64,
    /// Acks.
    pub acks: u64,
}

impl Counts {
    /// Finds them in a server's metrics. What has not begun counts as zero.
    ///
    /// # Errors
    /// A value is no number.
    pub fn read(metrics: &str) -> Result<Self> {
        Ok(Self {
            accepted: sum(metrics, "gureum_sends_total", "result=\"accepted\"")?,
            delivered: sum(metrics, "gureum_deliveries_total", "")?,
            batches: sum(metrics, "gureum_batch_size_count", "")?,
            changes: sum(metrics, "gureum_batch_size_sum", "")?,
            acks: sum(metrics, "gureum_acks_total", "")?,
        })
    }

    /// What came after an earlier reading.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            accepted: self.accepted.saturating_sub(before.accepted),
            delivered: self.delivered.saturating_sub(before.delivered),
            batches: self.batches.saturating_sub(before.batches),
            changes: self.changes.saturating_sub(before.changes),
            acks: self.acks.saturating_sub(before.acks),
        }
    }
}

/// Devices that are subscribed.
///
/// # Errors
/// The value is no number.
pub fn subscriptions(metrics: &str) -> Result<u64> {
    sum(metrics, "gureum_subscriptions", "")
}

/// The sum of all series of a name whose labels hold a text, without fractions.
fn sum(metrics: &str, name: &str, label: &str) -> Result<u64> {
    let mut sum = 0_u64;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let Some((labels, value)) = rest.rsplit_once(' ') else { continue };
        if (labels.is_empty() || labels.starts_with('{')) && labels.contains(label) {
            let whole = value.split('.').next().unwrap_or_default();
            let value: u64 = whole.parse().with_context(|| format!("reading the metric {line:?}"))?;
            sum = sum.saturating_add(value);
        }
    }
    Ok(sum)
}

/// Asks a server for its metrics.
///
/// # Errors
/// It does not answer, or with something else.
pub async fn fetch(admin: &str) -> Result<String> {
    let mut stream = TcpStream::connect(admin).await.with_context(|| format!("connecting to {admin}"))?;
    // 1.0: the answer comes in one piece and ends with the connection.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await.context("reading the metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the metrics are no answer of HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200"), "the server refuses its metrics: {status}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE gureum_sends_total counter
gureum_sends_total{result=\"accepted\"} 120
gureum_sends_total{result=\"repeated\"} 3
gureum_sends_refused_total{code=\"NotFound\"} 7
gureum_deliveries_total{source=\"tail\"} 100
gureum_deliveries_total{source=\"store\"} 19
gureum_batch_size_bucket{le=\"1\"} 4
gureum_batch_size_sum 360.0
gureum_batch_size_count 12
gureum_acks_total 60
gureum_subscriptions 2.5
";

    #[test]
    fn counters_are_found_by_their_whole_name_and_labels() {
        let counts = Counts::read(METRICS).unwrap();
        let expected = Counts { accepted: 120, delivered: 119, batches: 12, changes: 360, acks: 60 };
        assert_eq!(counts, expected);
        assert_eq!(counts.since(&expected), Counts::default());
        assert_eq!(subscriptions(METRICS).unwrap(), 2);
    }

    #[test]
    fn what_has_not_begun_is_zero_and_what_is_no_number_is_refused() {
        assert_eq!(Counts::read("").unwrap(), Counts::default());
        let error = Counts::read("gureum_acks_total many").unwrap_err();
        assert!(error.to_string().contains("gureum_acks_total many"), "{error}");
    }
}
