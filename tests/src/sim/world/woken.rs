//! Who was woken while away: everybody once, and nobody who was there.

use super::calm::HEALTHY_MS_MAX;
use super::{Duration, Leave, MINUTE_MS, Who, World};

/// How long whoever has gone may still be expected back, in milliseconds, and a little.
const GONE_MS: u64 = 2 * MINUTE_MS;
/// How long a wake-up may take when all is well, in milliseconds: the delay, and 30 s after the one before.
const WOKEN_MS_MAX: u64 = 2 * MINUTE_MS;
/// Who stays and writes.
const WRITER: usize = 0;

impl World {
    /// A device is woken once until it connects. What it may be more often: once for each answer that was lost, once for each
    /// start of the server, which may have died before it could note that, and once for each fault of a disk in the way of
    /// that.
    pub(super) fn check_wakes(&self) {
        for who in self.all() {
            let Some(device) = self.at(who).device() else { continue };
            let (woken, faults) = (self.push.woken(who), self.server.disk.counts().faults);
            let most = 1 + self.model.ledger().rested(device) + woken.unanswered + self.server.starts() + faults;
            self.journal.check(woken.messages <= most, "a device is woken once until it connects", || {
                format!("{who} was woken {} times, and {most} at most are right", woken.messages)
            });
        }
    }

    /// All but one go away, and are written to: each of their devices is woken once, and none of who is there. Then they come
    /// back.
    pub(super) async fn wake_the_absent(&mut self) -> bool {
        self.journal.note("calm: all but one go away");
        let absent: Vec<_> = self.all().into_iter().filter(|who| who.person != WRITER).collect();
        let before = self.woken();
        for who in &absent {
            self.at_mut(*who).leave(Leave::Closed).await;
        }
        tokio::time::sleep(Duration::from_millis(GONE_MS)).await;
        self.commotion();
        tokio::time::sleep(Duration::from_millis(WOKEN_MS_MAX)).await;
        for ((who, now), (_, then)) in self.woken().into_iter().zip(before) {
            let is_away = who.person != WRITER && self.at(who).is_in_use();
            let (times, expected) = (now - then, u64::from(is_away));
            self.journal.check(times == expected, "whoever is away is woken once", || {
                format!("{who} was woken by {times} and is to be by {expected}")
            });
        }
        for who in absent {
            self.at_mut(who).come().await;
        }
        self.settle(HEALTHY_MS_MAX, "a healthy system delivers").await
    }

    /// How often each device was woken for messages.
    fn woken(&self) -> Vec<(Who, u64)> {
        self.all().into_iter().map(|who| (who, self.push.woken(who).messages)).collect()
    }
}
