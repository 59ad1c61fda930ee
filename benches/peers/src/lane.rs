//! A pair of connections at work: one sends at a pace, the other receives, and both measure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::body::{Body, read};
use crate::limits::{LAG_MAX, LAG_PAUSE, TAIL};
use crate::wire::{Link, Seen};

/// How messages come due.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as fewer than so many are unanswered, until the time is over.
    Window { window: u64, until: Instant },
    /// One every interval, whether answers come or not, until the time is over.
    Rate { first: Instant, every: Duration, until: Instant },
    /// So many in all, as fast as the window allows, whether anybody receives or not.
    Count { window: u64, messages: u64 },
}

/// What both sides of a pair share.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Sent in all; known once the sender has ended.
    sent: AtomicU64,
    is_sent: std::sync::atomic::AtomicBool,
    pub(crate) received: AtomicU64,
}

impl Counts {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Lets the receiver end once it has so many.
    pub(crate) fn expect(&self, messages: u64) {
        self.sent.store(messages, Ordering::Release);
        self.is_sent.store(true, Ordering::Release);
    }

    fn is_complete(&self) -> bool {
        self.is_sent.load(Ordering::Acquire) && self.received.load(Ordering::Acquire) >= self.sent()
    }
}

/// What one side has measured, in microseconds.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) messages: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// When the last one came.
    pub(crate) last: Instant,
}

impl Measured {
    pub(crate) fn new(start: Instant) -> anyhow::Result<Self> {
        Ok(Self { messages: 0, latency_us: Histogram::new_with_bounds(1, 3_600_000_000, 3)?, last: start })
    }

    fn count(&mut self, latency: Duration) {
        self.messages += 1;
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.messages += other.messages;
        self.latency_us.add(&other.latency_us)?;
        self.last = self.last.max(other.last);
        Ok(())
    }
}

/// Sends until the pace ends, then takes the last answers. Measures from due to accepted.
pub(crate) async fn send(
    mut link: Link,
    pace: Pace,
    bytes: usize,
    start: Instant,
    counts: Arc<Counts>,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::new(start)?;
    let (mut body, mut seen) = (Body::new(bytes), Seen::default());
    let mut unanswered: VecDeque<Instant> = VecDeque::new();
    let mut sent = 0_u64;
    let deadline = pace.end().map(|end| end + TAIL);
    loop {
        let before = sent;
        while let Some(due) = pace.due(sent, unanswered.len(), &counts) {
            let due_ns = u64::try_from(due.saturating_duration_since(start).as_nanos())?;
            link.wire.send(body.write(sent, due_ns), &mut link.line.output)?;
            unanswered.push_back(due);
            sent += 1;
        }
        if sent > before {
            link.wire.sent(&mut link.line.output);
        }
        link.line.flush().await?;
        if unanswered.is_empty() && pace.is_over(sent) {
            break;
        }
        let more = async {
            tokio::select! {
                biased;
                read = link.line.fill(), if !unanswered.is_empty() => read,
                () = pace.next(sent, unanswered.len()) => Ok(()),
            }
        };
        match deadline {
            Some(deadline) => ensure!(matches!(timeout_at(deadline, more).await, Ok(Ok(()))), "answers are missing"),
            None => more.await?,
        }
        link.wire.take(&mut link.line.input, &mut link.line.output, &mut seen)?;
        let now = Instant::now();
        for due in unanswered.drain(..usize::try_from(seen.accepted)?.min(unanswered.len())) {
            measured.count(now.saturating_duration_since(due));
            measured.last = now;
        }
        seen.accepted = 0;
    }
    counts.expect(sent);
    Ok(measured)
}

impl Pace {
    /// When sending ends.
    fn end(&self) -> Option<Instant> {
        match *self {
            Self::Window { until, .. } | Self::Rate { until, .. } => Some(until),
            Self::Count { .. } => None,
        }
    }

    fn is_over(&self, sent: u64) -> bool {
        match *self {
            Self::Window { until, .. } => Instant::now() >= until,
            Self::Rate { until, .. } => self.due_at(sent).is_none_or(|due| due >= until),
            Self::Count { messages, .. } => sent >= messages,
        }
    }

    fn due_at(&self, sent: u64) -> Option<Instant> {
        match *self {
            Self::Rate { first, every, .. } => Some(first + every * u32::try_from(sent).unwrap_or(u32::MAX)),
            Self::Window { .. } | Self::Count { .. } => None,
        }
    }

    /// When the next message was due, if it is.
    fn due(&self, sent: u64, unanswered: usize, counts: &Counts) -> Option<Instant> {
        let now = Instant::now();
        let unanswered = u64::try_from(unanswered).unwrap_or(u64::MAX);
        let is_due = match *self {
            Self::Window { window, until } => {
                let lag = sent.saturating_sub(counts.received.load(Ordering::Acquire));
                unanswered < window && now < until && lag < LAG_MAX
            }
            Self::Rate { until, .. } => return self.due_at(sent).filter(|due| *due <= now && *due < until),
            Self::Count { window, messages } => unanswered < window && sent < messages,
        };
        is_due.then_some(now)
    }

    /// Until something may be due without an answer having come.
    ///
    /// Cancel safety: nothing is lost.
    async fn next(&self, sent: u64, unanswered: usize) {
        match self.due_at(sent) {
            Some(due) if self.end().is_some_and(|end| due < end) => sleep_until(due).await,
            // The window is not full: it is the receiver that is waited for.
            _ if unanswered == 0 => sleep(LAG_PAUSE).await,
            _ => std::future::pending().await,
        }
    }
}

/// Receives until all has come that the sender has sent. Measures from due to received; a message that comes again
/// or out of order is an error.
pub(crate) async fn receive(mut link: Link, start: Instant, counts: Arc<Counts>) -> anyhow::Result<Measured> {
    let mut measured = Measured::new(start)?;
    let mut seen = Seen::default();
    loop {
        link.wire.take(&mut link.line.input, &mut link.line.output, &mut seen)?;
        if !seen.bodies.is_empty() {
            let now = Instant::now();
            for body in seen.bodies.drain(..) {
                let (number, due_ns) = read(&body)?;
                ensure!(number == measured.messages, "message {number} came, {} is due", measured.messages);
                measured.count(now.saturating_duration_since(start + Duration::from_nanos(due_ns)));
            }
            measured.last = now;
            counts.received.store(measured.messages, Ordering::Release);
        }
        link.line.flush().await?;
        if counts.is_complete() {
            return Ok(measured);
        }
        tokio::select! {
            biased;
            read = link.line.fill() => read?,
            // The sender may end after the last message has come.
            () = sleep(Duration::from_millis(100)) => {}
        }
    }
}
