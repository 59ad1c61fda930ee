//! Between the writer and connections on one side and push on the other: what has happened, merged by whom it concerns. It
//! never waits and never overflows, for it holds the newest word of each device that can be woken, and no more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use gureum_proto::{AccountId, DeviceId};
use tokio::sync::Notify;

use super::Route;
use crate::store::record::PushStateRecord;

/// Tells push what happens.
#[derive(Default)]
pub(crate) struct PushFeed {
    targets: RwLock<Targets>,
    mail: Mutex<FeedMail>,
    notify: Notify,
}

/// Who can be woken.
#[derive(Default)]
struct Targets {
    accounts: HashMap<AccountId, Vec<DeviceId>>,
    devices: usize,
}

/// Everything since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FeedMail {
    /// Targets that were set, or (`None`) are gone.
    pub(crate) targets: HashMap<(AccountId, DeviceId), Option<Targeted>>,
    /// Subscriptions that have begun or ended.
    pub(crate) presence: HashMap<(AccountId, DeviceId), Presence>,
    /// Inboxes that have grown or were taken.
    pub(crate) moves: HashMap<AccountId, Moves>,
    /// Devices whose people have to know something at once, and since when.
    pub(crate) alarms: HashMap<(AccountId, DeviceId), u64>,
}

/// How a device is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Targeted {
    /// Through what.
    pub(crate) route: Route,
    /// Whether it shows something to a person.
    pub(crate) visible: bool,
    /// What it was last woken for.
    pub(crate) state: PushStateRecord,
}

/// How far an inbox has come. 0: not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moves {
    /// The last message that counts.
    pub(crate) grown_seq: u64,
    /// The furthest that a device has taken.
    pub(crate) taken_seq: u64,
}

/// What a device's subscriptions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has come.
    Connected,
    /// It has gone.
    Closed,
    /// It has come, and gone again.
    Visited,
}

impl PushFeed {
    /// Inboxes have grown by messages that count, and devices have taken some. Called by the writer: costs a lock a batch,
    /// and nothing where nobody can be woken.
    pub(crate) fn moved(&self, grown: &[(AccountId, u64)], taken: &[(AccountId, u64)]) {
        let targets = self.targets();
        if targets.devices == 0 {
            return;
        }
        let is_told = |(account, _): &&(AccountId, u64)| targets.accounts.contains_key(account);
        let mut mail = None;
        for (account, seq) in grown.iter().filter(is_told) {
            let moves = mail.get_or_insert_with(|| self.lock()).moves.entry(*account).or_default();
            moves.grown_seq = moves.grown_seq.max(*seq);
        }
        for (account, seq) in taken.iter().filter(is_told) {
            let moves = mail.get_or_insert_with(|| self.lock()).moves.entry(*account).or_default();
            moves.taken_seq = moves.taken_seq.max(*seq);
        }
        if mail.take().is_some() {
            self.notify.notify_one();
        }
    }

    /// A device has subscribed.
    pub(crate) fn connected(&self, account: AccountId, device: DeviceId) {
        // That it had gone before it came is of no interest any more.
        self.present(account, device, |_| Presence::Connected);
    }

    /// A device's subscription has ended.
    pub(crate) fn closed(&self, account: AccountId, device: DeviceId) {
        self.present(account, device, |before| match before {
            None | Some(Presence::Closed) => Presence::Closed,
            Some(Presence::Connected | Presence::Visited) => Presence::Visited,
        });
    }

    fn present(&self, account: AccountId, device: DeviceId, merge: impl FnOnce(Option<Presence>) -> Presence) {
        if self.has(account, device) {
            let mut mail = self.lock();
            let before = mail.presence.get(&(account, device)).copied();
            mail.presence.insert((account, device), merge(before));
            drop(mail);
            self.notify.notify_one();
        }
    }

    /// A device can be woken in a new way, or (`None`) not any more.
    pub(crate) fn targeted(&self, account: AccountId, device: DeviceId, target: Option<Targeted>) {
        // Both under the one lock, so that two words about a device reach the mail in the order in which they count.
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let is_news = match target {
            Some(_) => targets.add(account, device),
            None => targets.remove(account, device),
        };
        if is_news || target.is_some() {
            let mut mail = self.lock();
            mail.targets.insert((account, device), target);
            // Whoever sets another has heard of it.
            mail.alarms.remove(&(account, device));
            if target.is_none() {
                mail.presence.remove(&(account, device));
            }
            drop(mail);
            self.notify.notify_one();
        }
    }

    /// These devices cannot be woken any more.
    pub(crate) fn untargeted(&self, devices: &[(AccountId, DeviceId)]) {
        for (account, device) in devices {
            self.targeted(*account, *device, None);
        }
    }

    /// The people of these devices have to know something at once; since when that is owed to each.
    pub(crate) fn alarmed(&self, devices: &[(AccountId, DeviceId, u64)]) {
        for (account, device, owed_ms) in devices {
            if self.has(*account, *device) {
                self.lock().alarms.insert((*account, *device), *owed_ms);
                self.notify.notify_one();
            }
        }
    }

    /// Waits until something has happened.
    ///
    /// Cancel safety: a notification that is not taken stays.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// What has happened since this was last asked.
    pub(crate) fn take(&self) -> FeedMail {
        std::mem::take(&mut *self.lock())
    }

    /// How many devices can be woken.
    pub(crate) fn devices(&self) -> usize {
        self.targets().devices
    }

    /// Whether a device can be woken.
    pub(crate) fn has(&self, account: AccountId, device: DeviceId) -> bool {
        self.targets().accounts.get(&account).is_some_and(|devices| devices.contains(&device))
    }

    fn targets(&self) -> RwLockReadGuard<'_, Targets> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, FeedMail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Targets {
    /// Says whether it was not there.
    fn add(&mut self, account: AccountId, device: DeviceId) -> bool {
        let devices = self.accounts.entry(account).or_default();
        let is_new = !devices.contains(&device);
        if is_new {
            // Most accounts have one device, or two.
            devices.reserve_exact(1);
            devices.push(device);
            self.devices += 1;
        }
        is_new
    }

    /// Says whether it was there.
    fn remove(&mut self, account: AccountId, device: DeviceId) -> bool {
        let Some(devices) = self.accounts.get_mut(&account) else { return false };
        let Some(at) = devices.iter().position(|known| *known == device) else { return false };
        devices.swap_remove(at);
        if devices.is_empty() {
            self.accounts.remove(&account);
        }
        self.devices -= 1;
        true
    }
}

impl std::fmt::Debug for PushFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushFeed").field("devices", &self.devices()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALICE: AccountId = AccountId::from_bytes([0xa1; 16]);
    const BOB: AccountId = AccountId::from_bytes([0xb0; 16]);
    const PHONE: DeviceId = DeviceId::from_bytes([1; 16]);
    const LAPTOP: DeviceId = DeviceId::from_bytes([2; 16]);
    const TARGET: Targeted = Targeted {
        route: Route::Apns,
        visible: true,
        state: PushStateRecord { woken_seq: 0, woken_ms: 0, warned_ms: 0 },
    };

    fn feed() -> PushFeed {
        let feed = PushFeed::default();
        feed.targeted(ALICE, PHONE, Some(TARGET));
        drop(feed.take());
        feed
    }

    #[test]
    fn what_happens_to_an_inbox_is_merged_to_its_newest_word() {
        let feed = feed();
        feed.moved(&[(ALICE, 1), (ALICE, 3)], &[(ALICE, 1)]);
        feed.moved(&[(ALICE, 2)], &[]);
        let mail = feed.take();
        assert_eq!(mail.moves, HashMap::from([(ALICE, Moves { grown_seq: 3, taken_seq: 1 })]));
        assert_eq!(feed.take(), FeedMail::default());
    }

    #[test]
    fn nothing_is_noted_of_who_cannot_be_woken() {
        let feed = feed();
        feed.moved(&[(BOB, 1)], &[(BOB, 1)]);
        feed.connected(BOB, PHONE);
        feed.connected(ALICE, LAPTOP);
        feed.closed(ALICE, LAPTOP);
        feed.alarmed(&[(BOB, PHONE, 1), (ALICE, LAPTOP, 1)]);
        feed.untargeted(&[(BOB, PHONE), (ALICE, LAPTOP)]);
        assert_eq!(feed.take(), FeedMail::default());
    }

    #[track_caller]
    fn presence(happens: &[bool], expected: Presence) {
        let feed = feed();
        for connects in happens {
            if *connects { feed.connected(ALICE, PHONE) } else { feed.closed(ALICE, PHONE) }
        }
        assert_eq!(feed.take().presence, HashMap::from([((ALICE, PHONE), expected)]));
    }

    #[test]
    fn a_visit_is_not_lost_however_short() {
        presence(&[true], Presence::Connected);
        presence(&[false], Presence::Closed);
        presence(&[false, true], Presence::Connected);
        presence(&[true, false], Presence::Visited);
        presence(&[true, false, false], Presence::Visited);
        presence(&[true, false, true], Presence::Connected);
        presence(&[false, true, false], Presence::Visited);
    }

    #[test]
    fn devices_are_counted_once_and_the_newest_word_about_a_target_counts() {
        let feed = feed();
        feed.targeted(ALICE, PHONE, Some(TARGET));
        feed.targeted(ALICE, LAPTOP, Some(TARGET));
        feed.targeted(BOB, PHONE, Some(TARGET));
        assert_eq!(feed.devices(), 3);
        feed.connected(BOB, PHONE);
        feed.untargeted(&[(BOB, PHONE), (BOB, PHONE)]);
        assert_eq!((feed.devices(), feed.has(BOB, PHONE), feed.has(ALICE, PHONE)), (2, false, true));
        let mail = feed.take();
        assert_eq!(mail.targets.get(&(BOB, PHONE)), Some(&None));
        assert_eq!(mail.targets.get(&(ALICE, LAPTOP)), Some(&Some(TARGET)));
        assert!(mail.presence.is_empty(), "it is not waited for any more");
        feed.moved(&[(BOB, 1)], &[]);
        assert!(feed.take().moves.is_empty());
    }

    #[test]
    fn a_person_has_to_know_once() {
        let feed = feed();
        feed.alarmed(&[(ALICE, PHONE, 1)]);
        feed.alarmed(&[(ALICE, PHONE, 2)]);
        assert_eq!(feed.take().alarms, HashMap::from([((ALICE, PHONE), 2)]));
    }

    #[test]
    fn whoever_sets_another_target_has_heard_what_there_is() {
        let feed = feed();
        feed.alarmed(&[(ALICE, PHONE, 1)]);
        feed.targeted(ALICE, PHONE, Some(TARGET));
        assert_eq!(feed.take().alarms, HashMap::new());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_hears_of_what_happened_before_and_since() {
        let feed = feed();
        feed.changed().await;
        feed.moved(&[(ALICE, 1)], &[]);
        feed.changed().await;
        let nothing = tokio::time::timeout(Duration::from_millis(1), feed.changed()).await;
        assert!(nothing.is_err(), "one word is heard once");
    }
}
