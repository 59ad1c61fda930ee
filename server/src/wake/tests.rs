//! The hub wakes who subscribes, and its tails are dense or absent.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[derive(Default)]
struct Ear {
    wakes: AtomicU32,
    displaced: AtomicU32,
    revoked: AtomicU32,
    noticed: AtomicU32,
    phoned: AtomicU32,
    copied: AtomicU32,
    signals: AtomicU32,
}

impl Listener for Ear {
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
    fn displace(&self) {
        self.displaced.fetch_add(1, Ordering::Relaxed);
    }
    fn revoke(&self, _: Code) {
        self.revoked.fetch_add(1, Ordering::Relaxed);
    }
    fn notice(&self, notice: Notice) {
        self.noticed.fetch_add(notice.key_packages_left, Ordering::Relaxed);
    }
    fn phone(&self, _: PhoneNotice) {
        self.phoned.fetch_add(1, Ordering::Relaxed);
    }
    fn copied(&self) {
        self.copied.fetch_add(1, Ordering::Relaxed);
    }
    fn signal(&self, _: &Bytes) {
        self.signals.fetch_add(1, Ordering::Relaxed);
    }
}

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);

fn delivery(seq: u64) -> (AccountId, Delivery) {
    let position = Position { seq, count: seq };
    (ACCOUNT, Delivery { position, id: MessageId::new(seq, 0), shared: Bytes::from_static(b"body") })
}

fn seqs(hub: &Hub, after: u64) -> Option<Vec<u64>> {
    hub.read_tail(ACCOUNT, after, 100, 1 << 20).map(|page| page.iter().map(|entry| entry.position.seq).collect())
}

#[test]
fn a_batch_is_one_wake_and_is_read_from_the_tail() {
    let hub = Arc::new(Hub::new());
    let ear = Arc::new(Ear::default());
    let attached = hub.attach(ACCOUNT, DEVICE, true, Arc::<Ear>::clone(&ear));
    hub.deliver(&mut vec![delivery(5), delivery(6)]);
    assert_eq!(ear.wakes.load(Ordering::Relaxed), 1);
    assert_eq!(seqs(&hub, 4), Some(vec![5, 6]));
    assert_eq!(seqs(&hub, 5), Some(vec![6]));
    assert_eq!(seqs(&hub, 6), Some(vec![]));
    assert_eq!(seqs(&hub, 3), None, "position 4 must come from the store");
    drop(attached);
    assert_eq!(seqs(&hub, 4), None);
}

#[test]
fn nothing_is_kept_for_accounts_that_nobody_reads() {
    let hub = Arc::new(Hub::new());
    let _sender = hub.attach(ACCOUNT, DEVICE, false, Arc::new(Ear::default()));
    hub.deliver(&mut vec![delivery(1)]);
    assert_eq!(seqs(&hub, 0), None);
}

#[test]
fn a_hole_empties_the_tail() {
    let hub = Arc::new(Hub::new());
    let _attached = hub.attach(ACCOUNT, DEVICE, true, Arc::new(Ear::default()));
    hub.deliver(&mut vec![delivery(1), delivery(2)]);
    hub.deliver(&mut vec![delivery(4)]);
    assert_eq!(seqs(&hub, 1), None);
    assert_eq!(seqs(&hub, 3), Some(vec![4]));
}

#[test]
fn a_wake_that_comes_twice_or_late_takes_nothing_back() {
    let hub = Arc::new(Hub::new());
    let _attached = hub.attach(ACCOUNT, DEVICE, true, Arc::new(Ear::default()));
    hub.deliver(&mut vec![delivery(5), delivery(6)]);
    hub.deliver(&mut vec![delivery(6), delivery(5), delivery(4)]);
    assert_eq!(seqs(&hub, 5), Some(vec![6]), "a reader at 5 would else be told that nothing follows");
    hub.deliver(&mut vec![delivery(7)]);
    assert_eq!(seqs(&hub, 4), Some(vec![5, 6, 7]));
}

#[test]
fn a_newer_subscription_displaces_the_older_of_the_same_device_only() {
    let hub = Arc::new(Hub::new());
    let (first, other, sender) = (Arc::new(Ear::default()), Arc::new(Ear::default()), Arc::new(Ear::default()));
    let _first = hub.attach(ACCOUNT, DEVICE, true, Arc::<Ear>::clone(&first));
    let _other = hub.attach(ACCOUNT, DeviceId::from_bytes([3; 16]), true, Arc::<Ear>::clone(&other));
    let _sender = hub.attach(ACCOUNT, DEVICE, false, Arc::<Ear>::clone(&sender));
    assert_eq!(first.displaced.load(Ordering::Relaxed), 0, "a session that only sends displaces nobody");
    let _second = hub.attach(ACCOUNT, DEVICE, true, Arc::new(Ear::default()));
    assert_eq!(first.displaced.load(Ordering::Relaxed), 1);
    assert_eq!(other.displaced.load(Ordering::Relaxed), 0);
    hub.revoke(ACCOUNT, DEVICE, Code::DeviceRevoked);
    assert_eq!(sender.revoked.load(Ordering::Relaxed), 1);
    assert_eq!(other.revoked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_notice_is_for_the_devices_subscription_or_else_for_its_newest_session() {
    let hub = Arc::new(Hub::new());
    let [older, subscription, newer, sibling] = [(); 4].map(|()| Arc::new(Ear::default()));
    let attach = |device, subscribes, ear: &Arc<Ear>| hub.attach(ACCOUNT, device, subscribes, Arc::<Ear>::clone(ear));
    let noticed = || [&older, &subscription, &newer, &sibling].map(|ear| ear.noticed.load(Ordering::Relaxed));
    let notice = |key_packages_left| {
        hub.notice(ACCOUNT, DEVICE, Notice { key_packages_left, last_resort_used: false });
    };
    let _sibling = attach(DeviceId::from_bytes([3; 16]), true, &sibling);
    notice(1);
    assert_eq!(noticed(), [0; 4], "nobody is there");
    let _older = attach(DEVICE, false, &older);
    let subscribed = attach(DEVICE, true, &subscription);
    let _newer = attach(DEVICE, false, &newer);
    notice(2);
    assert_eq!(noticed(), [0, 2, 0, 0]);
    drop(subscribed);
    notice(3);
    assert_eq!(noticed(), [0, 2, 3, 0]);
}

#[test]
fn what_happens_to_a_phone_number_is_told_to_each_session_of_its_account_alone() {
    let hub = Arc::new(Hub::new());
    let [subscription, sender, sibling, other] = [(); 4].map(|()| Arc::new(Ear::default()));
    let attach = |account, device, subscribes, ear: &Arc<Ear>| {
        hub.attach(account, DeviceId::from_bytes([device; 16]), subscribes, Arc::<Ear>::clone(ear))
    };
    hub.phone(ACCOUNT, PhoneNotice::default());
    let _attached = [
        attach(ACCOUNT, 2, true, &subscription),
        attach(ACCOUNT, 2, false, &sender),
        attach(ACCOUNT, 3, true, &sibling),
        attach(AccountId::from_bytes([9; 16]), 2, true, &other),
    ];
    hub.phone(ACCOUNT, PhoneNotice { moved_ms: 1, tried_ms: 0 });
    let phoned = [&subscription, &sender, &sibling, &other].map(|ear| ear.phoned.load(Ordering::Relaxed));
    assert_eq!(phoned, [1, 1, 1, 0]);
}

#[test]
fn a_copy_that_takes_over_ends_all_other_sessions_of_its_device_alone() {
    let hub = Arc::new(Hub::new());
    let ears: Vec<_> = (0..4).map(|_| Arc::new(Ear::default())).collect();
    let sibling = DeviceId::from_bytes([3; 16]);
    let of = [(DEVICE, true), (DEVICE, false), (DEVICE, false), (sibling, true)];
    let _attached: Vec<_> = ears
        .iter()
        .zip(of)
        .map(|(ear, (device, subscribes))| hub.attach(ACCOUNT, device, subscribes, Arc::<Ear>::clone(ear)))
        .collect();
    let copy: Arc<dyn Listener> = Arc::<Ear>::clone(&ears[2]);
    hub.end_copies(ACCOUNT, DEVICE, &copy);
    let told: Vec<_> = ears.iter().map(|ear| ear.copied.load(Ordering::Relaxed)).collect();
    assert_eq!(told, [1, 1, 0, 0]);
}

#[test]
fn a_datagram_is_for_all_subscriptions_of_an_account_and_leaves_nothing_behind() {
    let hub = Arc::new(Hub::new());
    let [phone, tablet, sender, stranger] = [(); 4].map(|()| Arc::new(Ear::default()));
    let (sibling, other) = (DeviceId::from_bytes([3; 16]), AccountId::from_bytes([4; 16]));
    let _phone = hub.attach(ACCOUNT, DEVICE, true, Arc::<Ear>::clone(&phone));
    let _tablet = hub.attach(ACCOUNT, sibling, true, Arc::<Ear>::clone(&tablet));
    let _sender = hub.attach(ACCOUNT, DEVICE, false, Arc::<Ear>::clone(&sender));
    let _stranger = hub.attach(other, DEVICE, true, Arc::<Ear>::clone(&stranger));
    hub.signal(ACCOUNT, &Bytes::from_static(b"types"));
    let heard = [&phone, &tablet, &sender, &stranger].map(|ear| ear.signals.load(Ordering::Relaxed));
    assert_eq!(heard, [1, 1, 0, 0]);
    assert_eq!((hub.tail_bytes(), phone.wakes.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn tails_stay_under_their_bounds() {
    let hub = Arc::new(Hub::new());
    let _attached = hub.attach(ACCOUNT, DEVICE, true, Arc::new(Ear::default()));
    let many = u64::try_from(crate::limits::TAIL_ENTRIES_MAX).unwrap() + 10;
    hub.deliver(&mut (1..=many).map(delivery).collect());
    assert_eq!(seqs(&hub, 9), None);
    assert!(seqs(&hub, 10).is_some());
    let bytes = hub.shard(ACCOUNT).tail_bytes;
    let held: usize = hub.shard(ACCOUNT).accounts[&ACCOUNT].tail.entries_weight();
    assert_eq!(bytes, held);
}

#[test]
fn a_device_has_so_many_sessions_and_a_newer_one_displaces_the_oldest_that_does_not_subscribe() {
    let hub = Arc::new(Hub::new());
    let ears: Vec<_> = (0..DEVICE_SESSIONS_MAX + 2).map(|_| Arc::new(Ear::default())).collect();
    let sibling = Arc::new(Ear::default());
    let _sibling = hub.attach(ACCOUNT, DeviceId::from_bytes([3; 16]), false, Arc::<Ear>::clone(&sibling));
    let _attached: Vec<_> = ears
        .iter()
        .enumerate()
        .map(|(index, ear)| hub.attach(ACCOUNT, DEVICE, index == 0, Arc::<Ear>::clone(ear)))
        .collect();
    let displaced: Vec<_> = ears.iter().map(|ear| ear.displaced.load(Ordering::Relaxed)).collect();
    assert_eq!(displaced[..4], [0, 1, 1, 0]);
    assert_eq!(displaced.iter().sum::<u32>(), 2);
    assert_eq!(sibling.displaced.load(Ordering::Relaxed), 0);
}
