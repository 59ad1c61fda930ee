//! What happened in a simulation, in order: the last of it for people, all of it as a digest, and the first rule broken.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Events that are kept for the report of a failure.
const KEPT_MAX: usize = 60;

/// A simulation's journal, shared by everything in it.
#[derive(Debug, Clone)]
pub struct Journal {
    start: Instant,
    verbose: bool,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: VecDeque<String>,
    digest: DefaultHasher,
    events: u64,
    violation: Option<Violation>,
}

/// A rule of the model that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Violation {
    /// Which rule.
    pub rule: String,
    /// What was seen.
    pub what: String,
    /// When, in virtual milliseconds from the start.
    pub at_ms: u64,
}

impl Journal {
    /// A journal that begins now.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { start: Instant::now(), verbose, inner: Arc::default() }
    }

    /// Virtual milliseconds since the start.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes an event down.
    pub fn note(&self, event: impl AsRef<str>) {
        let line = format!("{} {}", clock_text(self.now_ms()), event.as_ref());
        if self.verbose {
            eprintln!("{line}");
        }
        let mut inner = self.inner();
        line.hash(&mut inner.digest);
        inner.events += 1;
        if inner.kept.len() == KEPT_MAX {
            inner.kept.pop_front();
        }
        inner.kept.push_back(line);
    }

    /// Writes down that a rule was broken; the first one counts.
    pub fn violate(&self, rule: &'static str, what: impl Into<String>) {
        let (what, at_ms) = (what.into(), self.now_ms());
        self.note(format!("VIOLATED {rule}: {what}"));
        self.inner().violation.get_or_insert(Violation { rule: rule.to_owned(), what, at_ms });
    }

    /// Checks a rule.
    pub fn check(&self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(rule, what());
        }
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.inner().violation.clone()
    }

    /// A digest of all events: equal for equal runs.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.inner().digest.finish()
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.inner().events
    }

    /// The last events.
    #[must_use]
    pub fn last(&self) -> Vec<String> {
        self.inner().kept.iter().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Virtual time as `day hour:minute:second.millisecond`.
#[must_use]
pub fn clock_text(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (minutes, hours, days) = (seconds / 60 % 60, seconds / 3_600 % 24, seconds / 86_400);
    format!("d{days} {hours:02}:{minutes:02}:{:02}.{ms:03}", seconds % 60)
}
