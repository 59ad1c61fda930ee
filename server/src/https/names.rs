//! Which names are looked up at a time: a name whose server hangs, and there may be as many as somebody likes to name, must
//! not keep others from being found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Names that are looked up at a time. The system's resolver blocks a thread for up to half a minute for each.
pub(super) const LOOK_UPS_MAX: usize = 32;

/// Of those, look-ups of names that are not known to answer: the others are for those that are.
pub(super) const OF_STRANGERS_MAX: usize = 24;

/// Of those, look-ups of names that have hung lately.
const OF_SLOW_MAX: usize = 8;

/// Of those of strangers, look-ups of names of one site. Where many sites have one suffix, as under `co.uk`, this is too
/// little for all of them only while some of them hang.
pub(super) const OF_A_SITE_MAX: usize = 4;

/// Look-ups of one name.
const OF_A_NAME_MAX: usize = 2;

/// A look-up that takes so long hangs: connecting has no longer.
const SLOW: Duration = Duration::from_secs(5);

/// How long it is remembered that a name has hung, and that it has answered.
const SLOW_KEPT: Duration = Duration::from_secs(10 * 60);
const KNOWN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Names of either kind that are remembered: some 100 KB at most.
const NAMES_KEPT_MAX: usize = 256;

/// No name is longer (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 253;

const _: () = assert!(OF_STRANGERS_MAX < LOOK_UPS_MAX && OF_SLOW_MAX < OF_STRANGERS_MAX);
const _: () = assert!(OF_A_NAME_MAX < OF_A_SITE_MAX && OF_A_SITE_MAX < OF_STRANGERS_MAX);

/// The places of look-ups, and what is remembered of names, which are in lower case.
pub(super) struct Names {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    /// Of what is looked up or waits for it: no more than two for each request that is under way.
    shares: Mutex<HashMap<Share, Weak<Semaphore>>>,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Share {
    Name(String),
    Site(String),
}

struct Remembered {
    known: Recent,
    slow: Recent,
}

impl Names {
    pub(super) fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            all: places(LOOK_UPS_MAX),
            strangers: places(OF_STRANGERS_MAX),
            slow: places(OF_SLOW_MAX),
            shares: Mutex::default(),
            remembered: Mutex::new(Remembered { known: Recent::new(KNOWN_KEPT), slow: Recent::new(SLOW_KEPT) }),
        }
    }

    /// Waits until a name may be looked up, for which it takes what is returned until it is done.
    ///
    /// Cancel safety: a cancelled call takes nothing.
    pub(super) async fn places(&self, name: &str, now: Instant) -> Result<Vec<OwnedSemaphorePermit>, AcquireError> {
        // The narrowest first: who waits for one takes no place from anybody whom it does not concern.
        let mut wanted = vec![self.share(Share::Name(name.to_owned()), OF_A_NAME_MAX)];
        let (is_known, is_slow) = self.standing(name, now);
        if !is_known {
            wanted.push(self.share(Share::Site(site(name).to_owned()), OF_A_SITE_MAX));
            if is_slow {
                wanted.push(Arc::clone(&self.slow));
            }
            wanted.push(Arc::clone(&self.strangers));
        }
        wanted.push(Arc::clone(&self.all));
        let mut places = Vec::with_capacity(wanted.len());
        for semaphore in wanted {
            places.push(semaphore.acquire_owned().await?);
        }
        Ok(places)
    }

    /// A look-up has ended after so long, and has found something or not.
    pub(super) fn ended(&self, name: &str, took: Duration, has_found: bool, now: Instant) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if took >= SLOW {
            remembered.known.forget(name);
            remembered.slow.note(name, now);
        } else if has_found {
            remembered.slow.forget(name);
            remembered.known.note(name, now);
        }
    }

    /// Whether a name is known to answer, and whether it has hung lately.
    fn standing(&self, name: &str, now: Instant) -> (bool, bool) {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        (remembered.known.has(name, now), remembered.slow.has(name, now))
    }

    fn share(&self, share: Share, count: usize) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, places| places.strong_count() > 0);
        let places = shares.entry(share).or_default();
        places.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Semaphore::new(count));
            *places = Arc::downgrade(&fresh);
            fresh
        })
    }
}

/// Names that something was noted of lately.
struct Recent {
    noted: HashMap<String, Instant>,
    kept: Duration,
}

impl Recent {
    fn new(kept: Duration) -> Self {
        Self { noted: HashMap::new(), kept }
    }

    fn has(&self, name: &str, now: Instant) -> bool {
        self.noted.get(name).is_some_and(|noted| now.saturating_duration_since(*noted) < self.kept)
    }

    /// Where there is no room, the one that was noted longest ago goes.
    fn note(&mut self, name: &str, now: Instant) {
        if name.len() > NAME_BYTES_MAX {
            return;
        }
        if self.noted.len() >= NAMES_KEPT_MAX && !self.noted.contains_key(name) {
            let oldest = self.noted.iter().min_by_key(|(_, noted)| **noted).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                self.noted.remove(&oldest);
            }
        }
        self.noted.insert(name.to_owned(), now);
    }

    fn forget(&mut self, name: &str) {
        self.noted.remove(name);
    }
}

/// The last two labels of a name, which somebody has registered, mostly.
fn site(name: &str) -> &str {
    let second = name.rmatch_indices('.').nth(1);
    second.and_then(|(at, _)| name.get(at + 1..)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

    use super::*;

    /// Whether a look-up has to wait.
    async fn waits(names: &Names, name: &str, now: Instant) -> bool {
        tokio::select! {
            biased;
            _ = names.places(name, now) => false,
            () = std::future::ready(()) => true,
        }
    }

    fn of_many_sites(count: usize) -> Vec<String> {
        (0..count).map(|site| format!("push.site{site}.example")).collect()
    }

    async fn take(names: &Names, taken: &[String], now: Instant) -> Vec<OwnedSemaphorePermit> {
        let mut places = Vec::new();
        for name in taken {
            places.extend(names.places(name, now).await.unwrap());
        }
        places
    }

    #[test]
    fn a_site_is_what_somebody_has_registered() {
        for (name, expected) in
            [("a.b.example.org", "example.org"), ("example.org", "example.org"), ("localhost", "localhost")]
        {
            assert_eq!(site(name), expected);
        }
    }

    #[tokio::test]
    async fn strangers_leave_places_to_names_that_are_known_to_answer() {
        let (names, now) = (Names::new(), Instant::now());
        names.ended("known.example.org", Duration::ZERO, true, now);
        let taken = take(&names, &of_many_sites(OF_STRANGERS_MAX), now).await;
        assert!(waits(&names, "stranger.example.org", now).await);
        assert!(!waits(&names, "known.example.org", now).await);
        assert!(waits(&names, "known.example.org", now + KNOWN_KEPT).await, "that is long ago");
        drop(taken);
        assert!(!waits(&names, "stranger.example.org", now).await);
    }

    #[tokio::test]
    async fn a_name_that_hangs_is_known_to_answer_no_more() {
        let (names, now) = (Names::new(), Instant::now());
        names.ended("known.example.org", Duration::ZERO, true, now);
        // That it is not there it says in time.
        names.ended("known.example.org", Duration::ZERO, false, now);
        let _taken = take(&names, &of_many_sites(OF_STRANGERS_MAX), now).await;
        assert!(!waits(&names, "known.example.org", now).await);
        names.ended("known.example.org", SLOW, true, now);
        assert!(waits(&names, "known.example.org", now).await);
    }

    #[tokio::test]
    async fn names_that_have_hung_get_a_few_places_until_that_is_long_ago_or_they_answer() {
        let (names, now) = (Names::new(), Instant::now());
        let hung = of_many_sites(OF_SLOW_MAX + 1);
        hung.iter().for_each(|name| names.ended(name, SLOW, false, now));
        let _taken = take(&names, &hung[..OF_SLOW_MAX], now).await;
        let last = &hung[OF_SLOW_MAX];
        assert!(waits(&names, last, now).await);
        assert!(!waits(&names, "stranger.example.org", now).await);
        assert!(!waits(&names, last, now + SLOW_KEPT).await);
        names.ended(last, Duration::ZERO, true, now);
        assert!(!waits(&names, last, now).await);
    }

    #[tokio::test]
    async fn names_of_one_site_get_its_share_and_one_name_has_less() {
        let (names, now) = (Names::new(), Instant::now());
        let name = || "push.example.org".to_owned();
        let of_name: Vec<_> = std::iter::repeat_with(name).take(OF_A_NAME_MAX).collect();
        let _of_name = take(&names, &of_name, now).await;
        assert!(waits(&names, &name(), now).await);
        let others: Vec<_> = (OF_A_NAME_MAX..OF_A_SITE_MAX).map(|other| format!("push{other}.example.org")).collect();
        let _of_site = take(&names, &others, now).await;
        assert!(waits(&names, "another.example.org", now).await);
        assert!(!waits(&names, "another.example.net", now).await);
        assert_eq!(names.all.available_permits(), LOOK_UPS_MAX - OF_A_SITE_MAX, "who waits takes no place");
    }

    #[tokio::test]
    async fn what_is_remembered_has_a_bound_and_what_nobody_looks_up_has_no_share() {
        let (names, now) = (Names::new(), Instant::now());
        for second in 0..=NAMES_KEPT_MAX {
            let now = now + Duration::from_secs(u64::try_from(second).unwrap());
            names.ended(&format!("push{second}.example.org"), Duration::ZERO, true, now);
        }
        names.ended(&"x".repeat(NAME_BYTES_MAX + 1), Duration::ZERO, true, now);
        assert_eq!(names.remembered.lock().unwrap().known.noted.len(), NAMES_KEPT_MAX);
        assert_eq!(names.standing("push0.example.org", now), (false, false), "the oldest goes");
        assert_eq!(names.standing("push1.example.org", now), (true, false));
        drop(names.places("stranger.example.org", now).await);
        drop(names.places("other.example.net", now).await);
        assert_eq!(names.shares.lock().unwrap().len(), 2);
    }
}
