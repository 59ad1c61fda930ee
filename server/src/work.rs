//! Where work runs that may wait for a disk or compute for milliseconds: on threads, or inline in the task that asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

/// How long the next piece of inline work takes.
pub type Latency = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Where blocking work and the writer run.
#[derive(Clone, Default)]
pub enum Work {
    /// On threads of their own, as a server does.
    #[default]
    Threads,
    /// In tasks of the runtime, so that a whole server runs on one thread and in virtual time. Each piece of work
    /// first lets other tasks run, and lasts as long as this says.
    Inline(Latency),
}

impl Work {
    /// Inline work that takes no time.
    #[must_use]
    pub fn inline() -> Self {
        Self::Inline(Arc::new(|| Duration::ZERO))
    }

    /// Does a piece of work and waits for it; `None` when it panicked.
    ///
    /// Cancel safety: work that has begun is finished, its result is lost.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.ok(),
            Self::Inline(latency) => {
                pause(latency).await;
                Some(work())
            }
        }
    }

    /// Begins a piece of work, to be joined later.
    pub(crate) fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work),
            Self::Inline(latency) => {
                let latency = Arc::clone(latency);
                tokio::spawn(async move {
                    pause(&latency).await;
                    work()
                })
            }
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Inline(_) => "Inline",
        })
    }
}

/// Lets the others run, for as long as a piece of inline work takes.
pub(crate) async fn pause(latency: &Latency) {
    tokio::task::yield_now().await;
    let lasts = latency();
    if !lasts.is_zero() {
        tokio::time::sleep(lasts).await;
    }
}
