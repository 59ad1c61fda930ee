//! Wakes that get lost and come twice: what stands between the writer and the sessions of a simulated server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gureum_proto::{AccountId, DeviceId};
use gureum_server::wake::{Delivery, Wake};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How wakes fare, and how they fared.
#[derive(Debug, Clone)]
pub struct WakeFaults(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: StdRng,
    loss: f64,
    doubling: f64,
    lost: u64,
    doubled: u64,
}

impl WakeFaults {
    /// Wakes that arrive.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Inner { random, loss: 0.0, doubling: 0.0, lost: 0, doubled: 0 })))
    }

    /// Sets the chances that a wake is lost and that it comes twice.
    pub fn set(&self, loss: f64, doubling: f64) {
        let mut inner = self.inner();
        (inner.loss, inner.doubling) = (loss, doubling);
    }

    /// How many were lost and how many came twice.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.lost, inner.doubled)
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

impl Wake for FaultyWake {
    fn deliver(&self, entries: &mut Vec<(AccountId, Delivery)>) {
        let mut again = Vec::new();
        {
            let mut inner = self.faults.inner();
            let Inner { random, loss, doubling, lost, doubled } = &mut *inner;
            entries.retain(|entry| {
                let is_lost = random.random_bool(*loss);
                *lost += u64::from(is_lost);
                if !is_lost && random.random_bool(*doubling) {
                    *doubled += 1;
                    again.push(entry.clone());
                }
                !is_lost
            });
        }
        self.to.deliver(entries);
        self.to.deliver(&mut again);
    }

    fn revoke(&self, account: AccountId, device: DeviceId) {
        self.to.revoke(account, device);
    }
}
