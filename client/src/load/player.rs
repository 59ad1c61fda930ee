//! What a device of a load does, whatever its messages are: when it speaks, when it goes away and comes back, and when it is
//! through.

use tokio::time::Instant;

use super::pace::Due;
use super::stage::{Part, Post};
use crate::client::ClientError;
use crate::limits::LOAD_TAIL;

/// Why a connection that stands is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    Quit,
    Away,
}

/// A device and how far it is in its part.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) part: Part,
    /// Since when it is there, in nanoseconds since the start.
    there_ns: u64,
    goes_at: Option<Instant>,
    /// When the last answer came, once everything was said.
    answered: Instant,
}

impl Player {
    pub(super) fn new(part: Part) -> Self {
        let goes_at = part.habits.away.map(|away| part.stage.start() + away.first);
        Self { part, there_ns: 0, goes_at, answered: Instant::now() }
    }

    /// What it says now, and where.
    pub(super) fn says(&mut self, now: Instant, in_flight: usize) -> Vec<(Due, Post)> {
        // Who is about to go lets its answers come first.
        if self.is_leaving(now) {
            return Vec::new();
        }
        let Part { says: Some(says), stage, .. } = &mut self.part else { return Vec::new() };
        let due = says.due(now, in_flight, stage);
        due.into_iter().map_while(|due| Some((due, says.next_post()?))).collect()
    }

    /// Whether it leaves the connection now.
    pub(super) fn leaves(&mut self, now: Instant, in_flight: usize) -> Option<Leave> {
        if self.has_said_all(now, in_flight) && !self.part.habits.hears {
            return Some(Leave::Quit);
        }
        let goes = self.is_leaving(now) && in_flight == 0 && self.part.says.is_some();
        goes.then_some(Leave::Away)
    }

    /// Whether nothing more is to be said and every answer has come, or is not waited for any more.
    fn has_said_all(&mut self, now: Instant, in_flight: usize) -> bool {
        let Some(says) = &mut self.part.says else { return true };
        if !says.pace.is_over(now) {
            self.answered = now;
            return false;
        }
        let is_through = in_flight == 0 || now - self.answered >= LOAD_TAIL;
        if is_through {
            self.part.lane.lock().unsent += says.pace.unsent();
            says.is_through();
            self.part.says = None;
        }
        is_through
    }

    fn is_leaving(&self, now: Instant) -> bool {
        self.goes_at.is_some_and(|at| at <= now)
    }

    /// Waits until its next message is due; for ever, if that is not what it waits for.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn next_due(&self, now: Instant, in_flight: usize) {
        let says = self.part.says.as_ref().filter(|_| !self.is_leaving(now));
        match says.and_then(|says| says.pace.next_due(now, in_flight)) {
            Some(due) => self.part.stage.alarm.until(due).await,
            None => std::future::pending().await,
        }
    }

    /// When to look again if nothing comes and nothing is due; there may be something else to do at a time.
    pub(super) fn wake(&self, now: Instant, at: Option<Instant>) -> Instant {
        let late = now + LOAD_TAIL;
        if self.is_leaving(now) {
            return late;
        }
        let end = self.part.says.as_ref().map(|says| says.pace.end());
        let times = [self.goes_at, end, at].into_iter().flatten();
        times.filter(|time| *time > now).fold(late, Instant::min)
    }

    /// An answer has come.
    pub(super) fn is_answered(&mut self) {
        self.answered = Instant::now();
    }

    /// Counts what has come: when each message was due.
    pub(super) fn heard(&self, due: &[u64]) {
        self.part.heard(due, self.there_ns);
    }

    /// It has left the connection, and stays away for a while; whether it comes back then.
    pub(super) async fn stays_away(&self, leave: Leave) -> bool {
        let (Leave::Away, Some(away)) = (leave, self.part.habits.away) else { return false };
        tokio::time::sleep(away.lasts).await;
        true
    }

    /// Comes back, unless everything is over meanwhile.
    pub(super) async fn comes_back<C>(
        &self,
        connecting: impl Future<Output = Result<C, ClientError>>,
    ) -> Result<Option<C>, ClientError> {
        tokio::select! {
            biased;
            () = self.part.stage.quit.cancelled() => Ok(None),
            again = connecting => again.map(Some),
        }
    }

    /// A new connection stands; what was due meanwhile is left out.
    pub(super) fn is_back(&mut self) {
        self.there_ns = self.part.stage.now_ns();
        self.goes_at = self.part.habits.away.map(|away| Instant::now() + away.every);
        self.part.lane.lock().reconnects += 1;
        if let Some(says) = &mut self.part.says {
            says.pace.skip(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gureum_proto::ConversationId;

    use super::*;
    use crate::load::LoadPace;
    use crate::load::meter::{Meter, SharedLane};
    use crate::load::pace::Pace;
    use crate::load::stage::{Away, Habits, Says, Stage};

    const SECOND: Duration = Duration::from_secs(1);

    /// One who says ten messages a second for three seconds.
    fn player(habits: Habits) -> (Player, Instant, SharedLane) {
        let (stage, lane) = (Stage::begin(), Meter::new(1).lane(0));
        let pace = Pace::new(LoadPace::Rate(10.0), 1, 0, stage.start(), 3 * SECOND);
        let post = Post { conversation: ConversationId::from_bytes([1; 16]), epoch: 1, hearers: 1 };
        let says = Some(Says::new(vec![post], pace, &stage));
        let start = stage.start();
        let part = Part { says, habits, lane: lane.clone(), stage, bytes: 64, counts_from_ns: 0 };
        (Player::new(part), start, lane)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_through_and_hears_nothing_quits_once_the_answers_have_come() {
        let (mut player, start, lane) = player(Habits::default());
        assert_eq!(player.says(start, 0).len(), 1);
        assert_eq!((player.leaves(start, 0), player.wake(start, None)), (None, start + 3 * SECOND));
        let end = start + 3 * SECOND;
        assert_eq!((player.leaves(end, 1), player.wake(end, None)), (None, end + LOAD_TAIL), "an answer is to come");
        assert_eq!(player.leaves(end, 0), Some(Leave::Quit));
        assert_eq!(lane.lock().unsent, 29, "nobody let it say the others");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
        let (mut player, start, _) = player(Habits::default());
        let end = start + 3 * SECOND;
        assert_eq!(player.leaves(end - SECOND / 10, 1), None);
        assert_eq!(player.leaves(end, 1), None);
        assert_eq!(player.leaves(end + LOAD_TAIL, 1), Some(Leave::Quit));
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_says_nothing_more_lets_the_answers_come_and_leaves_out_what_was_due_meanwhile() {
        let away = Away { first: SECOND / 2, every: SECOND, lasts: SECOND };
        let (mut player, start, lane) = player(Habits { hears: true, away: Some(away), ..Habits::default() });
        let goes = start + SECOND / 2;
        assert_eq!(player.wake(start, None), goes);
        assert!(player.says(goes, 0).is_empty());
        assert_eq!((player.leaves(goes, 1), player.leaves(goes, 0)), (None, Some(Leave::Away)));
        assert!(!player.stays_away(Leave::Quit).await, "it is through");
        assert!(player.stays_away(Leave::Away).await);
        assert!(start.elapsed() >= SECOND);
        player.is_back();
        assert_eq!((player.leaves(Instant::now(), 0), lane.lock().reconnects), (None, 1));
        let back_ns = u64::try_from(start.elapsed().as_nanos()).unwrap();
        let said = player.says(Instant::now() + SECOND / 5, 0);
        assert!(said.len() >= 2 && said.iter().all(|(due, _)| due.at_ns >= back_ns), "{said:?} {back_ns}");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_again_for_whatever_is_to_be_done_first() {
        let (mut player, start, _) = player(Habits::default());
        assert_eq!(player.wake(start, Some(start + SECOND)), start + SECOND);
        assert_eq!(player.wake(start + 2 * SECOND, Some(start + SECOND)), start + 3 * SECOND, "that is past");
        player.part.says = None;
        assert_eq!(player.wake(start, None), start + LOAD_TAIL);
    }

    #[tokio::test]
    async fn a_message_is_waited_for_until_it_is_due_and_not_where_there_is_no_room() {
        let (mut player, start, _) = player(Habits::default());
        assert_eq!(player.says(start, 0).len(), 1);
        player.next_due(start, 1).await;
        assert!(start.elapsed() >= SECOND / 10);
        let full = tokio::time::timeout(Duration::ZERO, player.next_due(Instant::now(), 64)).await;
        assert!(full.is_err(), "an answer is to make room");
    }
}
