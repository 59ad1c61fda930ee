//! Wakes senders when their messages are due, as exactly as the system can: tokio's timers have a grain of a millisecond, and
//! as latencies count from when a message was due, whatever the load tester is late would be laid to the server.

#[cfg(target_os = "linux")]
mod exact;

#[cfg(target_os = "linux")]
use std::sync::Arc;

use tokio::time::Instant;

/// What all senders of a load are woken by. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Alarm {
    /// `None` where the system gives no timer.
    #[cfg(target_os = "linux")]
    exact: Option<Arc<exact::ExactAlarm>>,
}

impl Alarm {
    /// The most exact one that there is. To be called in a runtime.
    pub(super) fn begin() -> Self {
        #[cfg(target_os = "linux")]
        match exact::ExactAlarm::begin() {
            Ok(exact) => return Self { exact: Some(Arc::new(exact)) },
            Err(error) => tracing::warn!(%error, "no timer of the system: messages leave up to 2 ms late"),
        }
        Self::coarse()
    }

    /// tokio's timers.
    const fn coarse() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            exact: None,
        }
    }

    /// Waits until then, never less.
    ///
    /// Cancel safety: what is dropped is not woken.
    pub(super) async fn until(&self, due: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(exact) = &self.exact {
            return exact.until(due).await;
        }
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::Alarm;

    /// Until the first is due: all wait by then.
    const LEAD: Duration = Duration::from_millis(50);

    /// Those who wait, in the order in which they are woken.
    async fn woken(alarm: &Alarm, step: Duration) -> Vec<u32> {
        let (start, order) = (Instant::now() + LEAD, Arc::new(Mutex::new(Vec::new())));
        let mut tasks = JoinSet::new();
        // Who waits for the shortest time is neither the first nor the last to begin.
        for place in [3, 0, 7, 1, 6, 2, 5, 4_u32] {
            let (alarm, order, due) = (alarm.clone(), Arc::clone(&order), start + step * place);
            tasks.spawn(async move {
                alarm.until(due).await;
                assert!(Instant::now() >= due, "early");
                order.lock().unwrap().push(place);
            });
        }
        tasks.join_all().await;
        let order = order.lock().unwrap();
        order.clone()
    }

    #[tokio::test]
    async fn wakes_nobody_early_and_everybody_in_order() {
        let order = woken(&Alarm::begin(), Duration::from_micros(700)).await;
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_timer_of_the_system_tokios_wake_in_the_same_order() {
        let start = Instant::now();
        let order = woken(&Alarm::coarse(), Duration::from_millis(5)).await;
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(start.elapsed().as_millis() / 5, 17, "{:?}", start.elapsed());
    }
}
