//! One timer of the system's for all who wait. The runtime waits for it as for a socket, and so as exactly as the system wakes
//! anybody; there is one of them because thousands of devices would need as many descriptors.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// The timer, those who wait for it, and the task that wakes them. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct ExactAlarm {
    shared: Arc<Shared>,
    _ringing: AbortOnDropHandle<()>,
}

impl ExactAlarm {
    /// Sets it up in the runtime in which this is called.
    pub(super) fn begin() -> io::Result<Self> {
        let shared = Arc::new(Shared { timer: Timer::new()?, sleepers: Mutex::default(), waits: AtomicU64::new(0) });
        let ringing = tokio::spawn(ring(Arc::clone(&shared)));
        Ok(Self { shared, _ringing: AbortOnDropHandle::new(ringing) })
    }

    pub(super) fn until(&self, due: Instant) -> Until<'_> {
        Until { shared: &self.shared, key: (due, self.shared.waits.fetch_add(1, Ordering::Relaxed)) }
    }
}

#[derive(Debug)]
struct Shared {
    timer: Timer,
    sleepers: Mutex<Sleepers>,
    /// How often somebody has waited.
    waits: AtomicU64,
}

impl Shared {
    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timer is set under the lock, so that it stands at what was decided last.
    fn set(&self, sleepers: &mut Sleepers) {
        if let Some(at) = sleepers.next_setting() {
            self.timer.set(at);
        }
    }

    fn wait(&self, key: Key, waker: &Waker) {
        let mut sleepers = self.sleepers();
        sleepers.wait(key, waker);
        self.set(&mut sleepers);
    }

    fn wake_due(&self) {
        let due = {
            let mut sleepers = self.sleepers();
            let due = sleepers.rung(Instant::now());
            self.set(&mut sleepers);
            due
        };
        due.into_iter().for_each(Waker::wake);
    }
}

/// Wakes whoever is due, each time that the timer rings.
async fn ring(shared: Arc<Shared>) {
    while let Ok(mut ready) = shared.timer.descriptor.readable().await {
        // That it has nothing more to say shows at the next reading, which would block.
        if ready.try_io(|descriptor| descriptor.get_ref().0.wait().map_err(io::Error::from)).is_ok() {
            shared.wake_due();
        }
    }
}

/// Waits until a time has come.
#[derive(Debug)]
pub(super) struct Until<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Future for Until<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (due, _) = self.key;
        if Instant::now() >= due {
            return Poll::Ready(());
        }
        self.shared.wait(self.key, context.waker());
        Poll::Pending
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.shared.sleepers().leave(&self.key);
    }
}

/// A timer that rings once when it was set.
#[derive(Debug)]
struct Timer {
    descriptor: AsyncFd<Descriptor>,
}

#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let descriptor = Descriptor(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        #[expect(
            deprecated,
            reason = "what takes its place is unsafe; the descriptor is owned, and the same all along"
        )]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Self { descriptor })
    }

    /// In the time that is left, which the system counts from a later moment than this one: it never rings early.
    fn set(&self, at: Instant) {
        // Nothing would unset it.
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let set = self.descriptor.get_ref().0.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty());
        set.expect("a timer that is open takes any time after now");
    }
}

/// When somebody wants to be woken; who began to wait first comes first among equals.
type Key = (Instant, u64);

/// Those who wait. Each has one entry as long as it waits, so that there are no more than devices.
#[derive(Debug, Default)]
struct Sleepers {
    wakers: BTreeMap<Key, Waker>,
    /// When the timer rings next; nothing once it has rung.
    rings: Option<Instant>,
}

impl Sleepers {
    fn wait(&mut self, key: Key, waker: &Waker) {
        self.wakers.entry(key).and_modify(|known| known.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    /// The timer keeps its time: it rings for nobody, once.
    fn leave(&mut self, key: &Key) {
        self.wakers.remove(key);
    }

    /// What the timer is to be set to, unless it rings early enough.
    fn next_setting(&mut self) -> Option<Instant> {
        let (&(first, _), _) = self.wakers.first_key_value()?;
        if self.rings.is_some_and(|rings| rings <= first) {
            return None;
        }
        self.rings = Some(first);
        self.rings
    }

    /// The timer has rung: whoever is due, the earliest first.
    fn rung(&mut self, now: Instant) -> Vec<Waker> {
        self.rings = None;
        let mut due = Vec::new();
        while let Some(first) = self.wakers.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::task::Wake;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// Waits so short that a timer with a grain of a millisecond is late for nearly all of them.
    const SHORT: Duration = Duration::from_micros(300);
    /// By how much less than such a grain the alarm is late.
    const EXACT: Duration = Duration::from_micros(200);

    #[tokio::test]
    async fn is_more_exact_than_a_millisecond() {
        let alarm = ExactAlarm::begin().unwrap();
        let mut exact = 0;
        for _ in 0..200 {
            let due = Instant::now() + SHORT;
            alarm.until(due).await;
            exact += usize::from(due.elapsed() < EXACT);
        }
        // Whatever else the machine is doing; alone it is nearly all of them.
        assert!(exact >= 20, "{exact} of 200");
    }

    #[tokio::test]
    async fn whoever_does_not_wait_any_more_leaves_nothing_behind() {
        let alarm = ExactAlarm::begin().unwrap();
        let far = Instant::now() + Duration::from_secs(3_600);
        let near = Instant::now() + SHORT;
        tokio::select! {
            () = alarm.until(far) => panic!("an hour is not over"),
            () = alarm.until(near) => (),
        }
        assert!(alarm.shared.sleepers().wakers.is_empty());
    }

    /// Writes down who was woken.
    struct Name {
        key: Key,
        woken: Arc<Mutex<Vec<Key>>>,
    }

    impl Wake for Name {
        fn wake(self: Arc<Self>) {
            self.woken.lock().unwrap().push(self.key);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(u64, u64),
        Leave(u64, u64),
        Ring(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u64..20, 0_u64..4).prop_map(|(due, id)| Step::Wait(due, id)),
            1 => (0_u64..20, 0_u64..4).prop_map(|(due, id)| Step::Leave(due, id)),
            1 => (0_u64..20).prop_map(Step::Ring),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn check(steps: &[Step]) -> Result<(), TestCaseError> {
        let start = Instant::now();
        let key = |due: u64, id: u64| -> Key { (start + Duration::from_millis(due), id) };
        let (mut sleepers, mut model) = (Sleepers::default(), BTreeSet::<Key>::new());
        let woken = Arc::new(Mutex::new(Vec::<Key>::new()));
        for step in steps {
            match *step {
                Step::Wait(due, id) => {
                    let name = Arc::new(Name { key: key(due, id), woken: Arc::clone(&woken) });
                    sleepers.wait(key(due, id), &Waker::from(name));
                    model.insert(key(due, id));
                }
                Step::Leave(due, id) => {
                    sleepers.leave(&key(due, id));
                    model.remove(&key(due, id));
                }
                Step::Ring(now) => {
                    let (now, _) = key(now, 0);
                    let (due, later): (Vec<Key>, Vec<Key>) = model.iter().partition(|(at, _)| *at <= now);
                    model = later.into_iter().collect();
                    sleepers.rung(now).into_iter().for_each(Waker::wake);
                    prop_assert_eq!(std::mem::take(&mut *woken.lock().unwrap()), due);
                }
            }
            let set = sleepers.next_setting();
            prop_assert!(set.is_none() || set == sleepers.rings);
            prop_assert_eq!(sleepers.next_setting(), None, "it is set once");
            if let Some((first, _)) = model.first() {
                prop_assert!(sleepers.rings.is_some_and(|rings| rings <= *first), "somebody sleeps on");
            }
        }
        Ok(())
    }

    #[test]
    fn wakes_who_is_due_in_order_and_rings_in_time_for_the_next() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        TestRunner::new(config).run(&steps(), |steps| check(&steps)).unwrap();
    }
}
