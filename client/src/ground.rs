//! What a client stands on: sockets, threads and a clock; those of the machine, or those of a simulation.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::ClientError;
use crate::link::{Sockets, SystemSockets};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where a client gets its connections, its threads and the time of day from. Everything else that waits or measures
/// does so by tokio's clock.
#[derive(Clone)]
pub struct Ground {
    /// How the network is reached.
    pub sockets: Arc<dyn Sockets>,
    /// Where what blocks is done.
    pub work: Work,
    /// The time of day.
    pub clock: Clock,
}

/// Where work is done that waits for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// On threads of its own, as everywhere but in a simulation.
    Threads,
    /// In the task that asks for it: one thread does everything, in an order that can be repeated.
    Inline,
}

impl Ground {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        Self { sockets: Arc::new(SystemSockets), work: Work::Threads, clock: system_clock() }
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("sockets", &self.sockets).field("work", &self.work).finish_non_exhaustive()
    }
}

impl Work {
    /// Does something that may wait for a disk.
    ///
    /// Cancel safety: on a thread, what was begun runs to its end. Inline, a caller that is dropped has had it done
    /// either wholly or not at all.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClientError> {
        match self {
            Self::Threads => {
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|error| ClientError::Thread(error.to_string()))
            }
            Self::Inline => {
                tokio::task::yield_now().await;
                let value = work();
                tokio::task::yield_now().await;
                Ok(value)
            }
        }
    }
}

/// The machine's clock.
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
