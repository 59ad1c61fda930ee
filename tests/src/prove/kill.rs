//! SIGKILL under load, at random and at every step: what was acknowledged is there, once.

use super::crash::{CLOCK_STEPS, Crashes, SHORT, START_STEPS, Shown, WRITE_STEPS};

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Ends of a server that keeps messages for 3 days: half at random, half at the steps of writes and starts.
    pub rounds: u32,
    /// Ends of a server that keeps them for seconds: half at random, half at the steps of what is done by the clock.
    pub short_rounds: u32,
    /// Says on standard error how far it is.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// With the usual retention: the inbox was read again at the end.
    pub usual: Shown,
    /// With a retention of seconds: what the listener did not hear in time was reported as expired, to the message.
    pub short: Option<Shown>,
}

/// Runs it.
///
/// # Panics
/// When anything acknowledged is lost, doubled, changed or out of order.
#[must_use]
pub fn run(options: &Options) -> Report {
    let steps: Vec<&str> = WRITE_STEPS.iter().chain(&START_STEPS).copied().collect();
    let usual = Crashes::start(None, None).run(options.rounds, &steps, options.tells);
    let short = (options.short_rounds > 0)
        .then(|| Crashes::start(None, Some(SHORT)).run(options.short_rounds, &CLOCK_STEPS, options.tells));
    Report { usual, short }
}
