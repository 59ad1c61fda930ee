//! When handshakes begin: one at a time, each after whatever else was ready, and none that has waited for so long that nobody
//! may be there any more. Pure: the time is told to it.
//!
//! A handshake takes a quarter of a millisecond of a processor at once, and quinn holds the lock of the endpoint meanwhile. If
//! all that are wanted after a restart began as they come, whoever talks would wait behind all of them, at each of the four
//! or five tasks that a message goes through.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{FIRST_PACKETS_AT_ONCE_MAX, HANDSHAKE_WAIT_MS_MAX};

/// Room for so many stays when nobody waits.
const ROOM_KEPT: usize = 64;

/// Those who may begin a handshake and wait for their turn, in the order in which they came. Each holds a place, which bounds
/// them.
#[derive(Debug)]
pub(super) struct Turns<G> {
    waiting: VecDeque<(G, Instant)>,
    /// First packets that were looked at since the last turn.
    looked: usize,
}

/// What to do with whoever's turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<G> {
    /// Begin the handshake.
    Begin(G),
    /// Say that there was no room in time: it may come again, and finds the line shorter.
    TooLate(G),
}

impl<G> Default for Turns<G> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), looked: 0 }
    }
}

impl<G> Turns<G> {
    /// Whether another first packet may be looked at before somebody's turn comes.
    pub(super) const fn may_look(&self) -> bool {
        self.looked < FIRST_PACKETS_AT_ONCE_MAX
    }

    /// A first packet was looked at.
    pub(super) const fn looked(&mut self) {
        self.looked = self.looked.saturating_add(1);
    }

    /// Somebody waits from now on.
    pub(super) fn wait(&mut self, guest: G, now: Instant) {
        self.waiting.push_back((guest, now));
    }

    /// Whether a turn is to be taken: somebody waits, or so many were looked at that others are to run.
    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty() || !self.may_look()
    }

    /// Whose turn it is.
    pub(super) fn take(&mut self, now: Instant) -> Option<Turn<G>> {
        self.looked = 0;
        let (guest, came) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(ROOM_KEPT);
        }
        let is_late = now.saturating_duration_since(came) > Duration::from_millis(HANDSHAKE_WAIT_MS_MAX);
        Some(if is_late { Turn::TooLate(guest) } else { Turn::Begin(guest) })
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNPROVEN_MAX;

    const WAIT_MAX: Duration = Duration::from_millis(HANDSHAKE_WAIT_MS_MAX);

    #[test]
    fn who_came_first_begins_first_and_one_at_a_time() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        assert!(!turns.is_due(), "nobody is there");
        for guest in 1..=3 {
            turns.looked();
            turns.wait(guest, now);
        }
        for (guest, left) in [(1, 2), (2, 1), (3, 0)] {
            assert!(turns.is_due());
            assert_eq!((turns.take(now), turns.waiting()), (Some(Turn::Begin(guest)), left));
        }
        assert!(!turns.is_due());
        assert_eq!(turns.take(now), None);
    }

    #[test]
    fn who_has_waited_for_too_long_is_told_so_and_holds_up_nobody() {
        let (mut turns, came) = (Turns::default(), Instant::now());
        turns.wait("early", came);
        turns.wait("late", came + WAIT_MAX);
        let now = came + WAIT_MAX + Duration::from_millis(1);
        assert_eq!(turns.take(now), Some(Turn::TooLate("early")));
        assert_eq!(turns.take(now), Some(Turn::Begin("late")));
    }

    #[test]
    fn a_flood_of_first_packets_holds_up_no_turn() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        turns.wait(1, now);
        for _ in 0..FIRST_PACKETS_AT_ONCE_MAX {
            assert!(turns.may_look());
            turns.looked();
        }
        assert!(!turns.may_look() && turns.is_due());
        assert_eq!(turns.take(now), Some(Turn::Begin(1)));
        assert!(turns.may_look());
        (0..FIRST_PACKETS_AT_ONCE_MAX).for_each(|_| turns.looked());
        assert!(turns.is_due(), "others run though nobody waits");
        assert_eq!(turns.take(now), None);
        assert!(turns.may_look() && !turns.is_due());
    }

    #[test]
    fn the_room_of_a_storm_is_given_back() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        (0..UNPROVEN_MAX).for_each(|guest| turns.wait(guest, now));
        while turns.take(now).is_some() {}
        assert!(turns.waiting.capacity() <= 2 * ROOM_KEPT, "{}", turns.waiting.capacity());
    }
}
