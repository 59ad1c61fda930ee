//! Push services of a simulated world, which fail, hang and lose their answers by a seed; and what devices were woken by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gureum_proto::{PushAddress, PushDigest, PushService, PushTarget};
use gureum_server::push::{BusyOf, Failure, Outcome, Push, PushFuture, WakeKind};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;

use super::installation::Who;
use super::sabotage::Sabotage;

/// How long an answer takes at most, in milliseconds.
const ANSWER_MS_MAX: u64 = 400;
/// Hosts of Web Push.
const HOSTS: usize = 2;

/// The services of one simulation, which outlive its server.
#[derive(Clone)]
pub struct SimPush(Arc<Mutex<Inner>>);

struct Inner {
    random: StdRng,
    fates: PushFates,
    bug: Option<Sabotage>,
    woken: BTreeMap<PushDigest, Woken>,
}

/// The chances of what may become of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PushFates {
    /// The service says that it is out of order.
    pub failure: f64,
    /// It takes nothing, and never answers.
    pub hang: f64,
    /// It wakes the device, and the answer is lost.
    pub lost_answer: f64,
}

/// What a device was woken by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// Because of messages.
    pub messages: u64,
    /// Because messages were about to expire.
    pub expiring: u64,
    /// Of all these, those of which the server had no answer.
    pub unanswered: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Accepts,
    Fails(Outcome),
    Hangs,
    LosesAnswer,
}

impl SimPush {
    /// Services that are well, unless they have this bug.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Sabotage>) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Inner { random, fates: PushFates::default(), bug, woken: BTreeMap::new() })))
    }

    /// Sets how requests fare from now on.
    pub fn set(&self, fates: PushFates) {
        self.inner().fates = fates;
    }

    /// What a device was woken by so far.
    #[must_use]
    pub fn woken(&self, who: Who) -> Woken {
        self.inner().woken.get(&target_of(who).digest()).copied().unwrap_or_default()
    }

    /// What all devices were woken by.
    #[must_use]
    pub fn total(&self) -> Woken {
        self.inner().woken.values().fold(Woken::default(), |sum, woken| Woken {
            messages: sum.messages + woken.messages,
            expiring: sum.expiring + woken.expiring,
            unanswered: sum.unanswered + woken.unanswered,
        })
    }

    /// What becomes of a request, and how long that takes.
    fn draw(&self) -> (Fate, Duration) {
        let mut inner = self.inner();
        let Inner { random, fates, .. } = &mut *inner;
        let after = Duration::from_millis(random.random_range(1..ANSWER_MS_MAX));
        let (drawn, failure) = (random.random_range(0.0..1.0), random.random_range(0..4));
        let fate = if drawn < fates.failure {
            Fate::Fails(match failure {
                0 => Outcome::Failed(Failure::Connect),
                1 => Outcome::Failed(Failure::Reset),
                2 => Outcome::Busy { retry_after_ms: Some(30_000), of: BusyOf::Service },
                _ => Outcome::Busy { retry_after_ms: None, of: BusyOf::Device },
            })
        } else if drawn < fates.failure + fates.hang {
            Fate::Hangs
        } else if drawn < fates.failure + fates.hang + fates.lost_answer {
            Fate::LosesAnswer
        } else {
            Fate::Accepts
        };
        (fate, after)
    }

    /// The device is woken.
    fn wake(&self, digest: PushDigest, kind: WakeKind, is_answered: bool) {
        let mut inner = self.inner();
        let times = match inner.bug {
            Some(Sabotage::WokenTwice) => 2,
            Some(Sabotage::NotWoken) => 0,
            _ => 1,
        };
        let woken = inner.woken.entry(digest).or_default();
        match kind {
            WakeKind::Messages => woken.messages += times,
            WakeKind::Expiring => woken.expiring += times,
        }
        woken.unanswered += u64::from(!is_answered);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPush").field("fates", &self.inner().fates).finish_non_exhaustive()
    }
}

impl Push for SimPush {
    fn send<'a>(&'a self, target: &'a PushTarget, kind: WakeKind, _now_ms: u64) -> PushFuture<'a> {
        let (fate, after) = self.draw();
        Box::pin(async move {
            tokio::time::sleep(after).await;
            match fate {
                Fate::Accepts => {
                    self.wake(target.digest(), kind, true);
                    Outcome::Accepted
                }
                Fate::Fails(outcome) => outcome,
                Fate::Hangs => std::future::pending().await,
                Fate::LosesAnswer => {
                    self.wake(target.digest(), kind, false);
                    std::future::pending().await
                }
            }
        })
    }

    fn offers(&self, _service: PushService) -> bool {
        true
    }
}

/// Where a device is woken: the devices of a person at different services.
#[must_use]
pub fn target_of(who: Who) -> PushTarget {
    let name = format!("target-of-person{}-{}", who.person, who.device);
    let address = match (who.person + who.device) % 3 {
        0 => PushAddress::Apns { token: name.into_bytes().into(), sandbox: false },
        1 => PushAddress::Fcm { token: name },
        _ => {
            let endpoint = format!("https://push{}.example.org/{name}", who.person % HOSTS);
            let secret = SecretKey::from_slice(&[7; 32]).expect("a key");
            let point = secret.public_key().to_encoded_point(false);
            let p256dh = point.as_bytes().try_into().expect("an uncompressed point has 65 bytes");
            PushAddress::WebPush { endpoint, p256dh, auth: [7; 16] }
        }
    };
    PushTarget { address, visible: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob(device: usize) -> Who {
        Who { person: 1, device }
    }

    async fn ask(push: &SimPush, who: Who) -> Option<Outcome> {
        let target = target_of(who);
        let asked = push.send(&target, WakeKind::Messages, 0);
        tokio::time::timeout(Duration::from_secs(10), asked).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_well_wakes_whom_it_is_asked_to() {
        let push = SimPush::new(1, None);
        assert_eq!(ask(&push, bob(0)).await, Some(Outcome::Accepted));
        assert_eq!(push.woken(bob(0)), Woken { messages: 1, ..Woken::default() });
        assert_eq!(push.woken(bob(1)), Woken::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_or_hangs_wakes_nobody_and_a_lost_answer_has_woken() {
        let push = SimPush::new(1, None);
        push.set(PushFates { failure: 1.0, ..PushFates::default() });
        assert!(ask(&push, bob(0)).await.is_some_and(|outcome| outcome != Outcome::Accepted));
        push.set(PushFates { hang: 1.0, ..PushFates::default() });
        assert_eq!(ask(&push, bob(0)).await, None);
        assert_eq!(push.total(), Woken::default());
        push.set(PushFates { lost_answer: 1.0, ..PushFates::default() });
        assert_eq!(ask(&push, bob(0)).await, None);
        assert_eq!(push.total(), Woken { messages: 1, expiring: 0, unanswered: 1 });
    }

    #[test]
    fn every_target_is_one_that_a_service_can_have_given_and_no_other_devices() {
        let everybody = (0..5).flat_map(|person| (0..12).map(move |device| Who { person, device }));
        let targets: Vec<_> = everybody.map(target_of).collect();
        for (index, target) in targets.iter().enumerate() {
            assert_eq!(target.check(), Ok(()));
            assert!(targets[..index].iter().all(|other| other.digest() != target.digest()));
        }
    }
}
