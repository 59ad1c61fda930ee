//! The times at which a connection's task has something to do by itself, and the one timer for all of them: each timer more
//! is 130 bytes of every connection.

use std::pin::Pin;
use std::time::Duration;

use gureum_proto::Code;
use tokio::time::{Instant, Sleep};

use super::streams::Outgoing;
use super::{Closing, REREAD, Shell};
use crate::limits::WRITE_STALL_MS;
use crate::session::Input;

/// What is due when. `None`: it is not waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dues {
    /// The client must have taken something of what is there for it.
    pub(super) stall_ends_at: Option<Instant>,
    /// The session's own deadline.
    pub(super) tick_at: Option<Instant>,
    /// The store is looked into, whether or not there was a wake.
    pub(super) reread_at: Option<Instant>,
    /// Requests are taken again.
    pub(super) requests_open_at: Option<Instant>,
    /// The device, which said more than its pace allows, is heard again.
    pub(super) heard_again_at: Option<Instant>,
}

impl Dues {
    /// The first of them.
    pub(super) fn first(&self) -> Option<Instant> {
        let all = [self.stall_ends_at, self.tick_at, self.reread_at, self.requests_open_at, self.heard_again_at];
        all.into_iter().flatten().min()
    }

    /// Sets the timer to the first of them. What is due moves away with each message; the timer is left where it is, and set
    /// anew when it has ended too early: all connections share the wheel of timers and its lock.
    pub(super) fn set(&self, mut timer: Pin<&mut Sleep>) {
        if let Some(at) = self.first().filter(|at| *at < timer.deadline() || timer.is_elapsed()) {
            timer.as_mut().reset(at);
        }
    }
}

impl Shell {
    /// What is due when, as things stand.
    pub(super) fn dues(&self, now: Instant) -> Dues {
        let outgoing = [Some(&self.answers), self.delivery.as_ref()];
        let stalled_at = outgoing.into_iter().flatten().filter_map(Outgoing::waiting_since).min();
        let left = |at_ms: u64| Duration::from_millis(at_ms.saturating_sub(self.shared.clock.now_ms()));
        Dues {
            stall_ends_at: stalled_at.map(|since| since + Duration::from_millis(WRITE_STALL_MS)),
            tick_at: self.session.poll_timeout().map(|(at_ms, _)| now + left(at_ms)),
            reread_at: self.delivery.as_ref().map(|_| self.reread_at),
            requests_open_at: self.requests.opens_at(now).filter(|_| self.attached.is_some()),
            heard_again_at: self.heard_again_at,
        }
    }

    /// The timer has ended: does what is due by now.
    pub(super) fn on_time(&mut self, dues: &Dues) -> Result<(), Closing> {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(dues.stall_ends_at) {
            return Err(Closing(Code::TooSlow, String::new()));
        }
        if is_due(dues.heard_again_at) {
            self.heard_again_at = None;
        }
        if is_due(dues.reread_at) {
            self.skips_tail = true;
            self.reread_at = now + REREAD;
            self.handle(Input::Woken);
        }
        if is_due(dues.tick_at) {
            self.handle(Input::Tick);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_timer_ends_when_the_first_thing_is_due_and_never_later() {
        let start = Instant::now();
        let mut timer = pin!(tokio::time::sleep(100 * SECOND));
        let mut dues = Dues {
            stall_ends_at: Some(start + 30 * SECOND),
            tick_at: None,
            reread_at: Some(start + 300 * SECOND),
            requests_open_at: Some(start + SECOND),
            heard_again_at: Some(start + 2 * SECOND),
        };
        dues.set(timer.as_mut());
        timer.as_mut().await;
        assert_eq!(start.elapsed(), SECOND);
        dues.requests_open_at = None;
        dues.set(timer.as_mut());
        timer.as_mut().await;
        assert_eq!(start.elapsed(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_is_left_where_it_is_when_what_is_due_moves_away() {
        let start = Instant::now();
        let mut timer = pin!(tokio::time::sleep(SECOND));
        let later = Some(start + 5 * SECOND);
        let dues =
            Dues { stall_ends_at: None, tick_at: None, reread_at: later, requests_open_at: None, heard_again_at: None };
        dues.set(timer.as_mut());
        assert_eq!(timer.deadline(), start + SECOND);
        timer.as_mut().await;
        dues.set(timer.as_mut());
        timer.as_mut().await;
        assert_eq!(start.elapsed(), 5 * SECOND);
        assert_eq!(Dues { reread_at: None, ..dues }.first(), None);
    }
}
