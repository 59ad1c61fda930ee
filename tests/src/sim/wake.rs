//! Wakes that get lost, come twice and come late: what stands between the writer and the sessions of a simulated server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gureum_proto::{AccountId, Code, DeviceId, Notice};
use gureum_server::wake::{Delivery, Wake};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How late a wake may be, in milliseconds.
const LATE_MS_MAX: u64 = 60_000;

/// How wakes fare, and how they fared.
#[derive(Debug, Clone)]
pub struct WakeFaults(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: StdRng,
    fates: Fates,
    lost: u64,
    doubled: u64,
    late: u64,
}

/// The chances of what may become of a wake.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fates {
    /// It is lost.
    pub loss: f64,
    /// It comes twice.
    pub doubling: f64,
    /// It comes within the next minute, behind others that came after it.
    pub lateness: f64,
}

impl WakeFaults {
    /// Wakes that arrive.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Inner { random, fates: Fates::default(), lost: 0, doubled: 0, late: 0 })))
    }

    /// Sets how wakes fare from now on.
    pub fn set(&self, fates: Fates) {
        self.inner().fates = fates;
    }

    /// How many were lost, how many came twice, and how many came late.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let inner = self.inner();
        (inner.lost, inner.doubled, inner.late)
    }

    /// Puts itself before those who are woken.
    #[must_use]
    pub fn before(&self, to: Arc<dyn Wake>) -> Arc<dyn Wake> {
        Arc::new(FaultyWake { faults: self.clone(), to })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FaultyWake {
    faults: WakeFaults,
    to: Arc<dyn Wake>,
}

impl FaultyWake {
    fn deliver_after(&self, after: Duration, entry: (AccountId, Delivery)) {
        let to = Arc::clone(&self.to);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            to.deliver(&mut vec![entry]);
        });
    }
}

impl Wake for FaultyWake {
    fn deliver(&self, entries: &mut Vec<(AccountId, Delivery)>) {
        let mut again = Vec::new();
        {
            let mut inner = self.faults.inner();
            let Inner { random, fates, lost, doubled, late } = &mut *inner;
            entries.retain(|entry| {
                let is_lost = random.random_bool(fates.loss);
                *lost += u64::from(is_lost);
                if is_lost {
                    return false;
                }
                if random.random_bool(fates.doubling) {
                    *doubled += 1;
                    again.push(entry.clone());
                }
                let is_late = random.random_bool(fates.lateness);
                if is_late {
                    *late += 1;
                    let after = Duration::from_millis(random.random_range(1..LATE_MS_MAX));
                    self.deliver_after(after, entry.clone());
                }
                !is_late
            });
        }
        self.to.deliver(entries);
        self.to.deliver(&mut again);
    }

    fn revoke(&self, account: AccountId, device: DeviceId, why: Code) {
        self.to.revoke(account, device, why);
    }

    fn notice(&self, account: AccountId, device: DeviceId, notice: Notice) {
        self.to.notice(account, device, notice);
    }
}
