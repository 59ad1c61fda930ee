//! Who is connected, and the newest entries of their inboxes: a wake says "this inbox has grown", the tail lets the
//! reader find the entry without a disk.

mod tail;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, MessageId, Notice, PhoneNotice, Position};

use crate::limits::{DEVICE_SESSIONS_MAX, TAIL_BYTES_MAX, WAKE_SHARDS};
use tail::Tail;

/// Tells the sessions of accounts that their inboxes have grown. A wake may be lost, doubled or late: the reader
/// goes by its own position.
pub trait Wake: Send + Sync + 'static {
    /// Hands over the new entries, which are on the disk, and wakes whoever waits for them.
    fn deliver(&self, entries: &mut Vec<(AccountId, Delivery)>);

    /// Ends the sessions of a device that may no longer act, with the code that says why.
    fn revoke(&self, account: AccountId, device: DeviceId, why: Code);

    /// Tells a device, if it is connected, what is left of its KeyPackages.
    fn notice(&self, account: AccountId, device: DeviceId, notice: Notice);
}

/// A new entry of an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stands.
    pub position: Position,
    /// Its id, which holds its time.
    pub id: MessageId,
    /// The shared part of its envelope.
    pub shared: Bytes,
}

/// What can be said to a session from outside.
pub trait Listener: Send + Sync {
    /// The inbox has grown.
    fn wake(&self);
    /// A newer subscription of the same device has taken over.
    fn displace(&self);
    /// The device may no longer act: it was revoked, or its account deleted, as the code says.
    fn revoke(&self, why: Code);
    /// Another copy of the device's state has taken over.
    fn copied(&self);
    /// Others have claimed KeyPackages of the device.
    fn notice(&self, notice: Notice);
    /// The account's phone number has moved, or somebody has tried.
    fn phone(&self, notice: PhoneNotice) {
        let _ = notice;
    }
    /// A datagram for the client, which may be lost.
    fn signal(&self, datagram: &Bytes);
}

/// The wakes and tails of one process.
#[derive(Default)]
pub struct Hub {
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    accounts: HashMap<AccountId, Presence>,
    tail_bytes: usize,
}

#[derive(Default)]
struct Presence {
    sessions: Vec<Session>,
    tail: Tail,
}

struct Session {
    device: DeviceId,
    listener: Arc<dyn Listener>,
    subscribes: bool,
}

impl Hub {
    /// A hub without sessions.
    #[must_use]
    pub fn new() -> Self {
        Self { shards: (0..WAKE_SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Registers a proven session until the returned guard is dropped. One that subscribes displaces an older
    /// subscription of the same device; one too many of a device displaces the oldest that does not
    /// subscribe.
    #[must_use]
    pub fn attach(
        self: &Arc<Self>,
        account: AccountId,
        device: DeviceId,
        subscribes: bool,
        listener: Arc<dyn Listener>,
    ) -> Attached {
        let mut shard = self.shard(account);
        let presence = shard.accounts.entry(account).or_default();
        if subscribes {
            presence.sessions.retain(|session| {
                let is_older = session.device == device && session.subscribes;
                if is_older {
                    session.listener.displace();
                }
                !is_older
            });
        }
        let of_device = presence.sessions.iter().filter(|session| session.device == device).count();
        let may_go = |session: &Session| session.device == device && !session.subscribes;
        if of_device >= DEVICE_SESSIONS_MAX
            && let Some(oldest) = presence.sessions.iter().position(may_go)
        {
            presence.sessions.remove(oldest).listener.displace();
        }
        // Most accounts have one device here, or two.
        presence.sessions.reserve_exact(1);
        presence.sessions.push(Session { device, listener: Arc::clone(&listener), subscribes });
        drop(shard);
        Attached { hub: Arc::clone(self), account, listener }
    }

    /// Ends all sessions of a device but this one: those of another copy of its state.
    pub fn end_copies(&self, account: AccountId, device: DeviceId, but: &Arc<dyn Listener>) {
        if let Some(presence) = self.shard(account).accounts.get(&account) {
            let of_device = presence.sessions.iter().filter(|session| session.device == device);
            of_device.filter(|it| !Arc::ptr_eq(&it.listener, but)).for_each(|it| it.listener.copied());
        }
    }

    /// Whether a device of an account is connected.
    #[must_use]
    pub fn is_present(&self, account: AccountId) -> bool {
        self.shard(account).accounts.contains_key(&account)
    }

    /// Tells all sessions of an account, since it is a person who has to know: whichever device is at hand shows it.
    pub fn phone(&self, account: AccountId, notice: PhoneNotice) {
        if let Some(presence) = self.shard(account).accounts.get(&account) {
            presence.sessions.iter().for_each(|session| session.listener.phone(notice));
        }
    }

    /// Hands a datagram to the sessions of an account that subscribe. Nothing of it stays.
    pub fn signal(&self, account: AccountId, datagram: &Bytes) {
        if let Some(presence) = self.shard(account).accounts.get(&account) {
            let subscribed = presence.sessions.iter().filter(|session| session.subscribes);
            subscribed.for_each(|session| session.listener.signal(datagram));
        }
    }

    /// Entries after a position, if the tail reaches back to it: ascending, dense, at most `entries_max` and about
    /// `bytes_max` bytes. `None`: the store must be read.
    #[must_use]
    pub fn read_tail(
        &self,
        account: AccountId,
        after_seq: u64,
        entries_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<Delivery>> {
        self.shard(account).accounts.get(&account)?.tail.after(after_seq, entries_max, bytes_max)
    }

    /// Bytes that the tails of all accounts take.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        let bytes = |shard: &Mutex<Shard>| shard.lock().expect("no code panics while it holds a shard").tail_bytes;
        self.shards.iter().map(bytes).sum()
    }

    fn detach(&self, account: AccountId, listener: &Arc<dyn Listener>) {
        let mut shard = self.shard(account);
        let Some(presence) = shard.accounts.get_mut(&account) else { return };
        presence.sessions.retain(|session| !Arc::ptr_eq(&session.listener, listener));
        let is_read = presence.sessions.iter().any(|session| session.subscribes);
        let freed = if is_read { 0 } else { presence.tail.clear() };
        if presence.sessions.is_empty() {
            shard.accounts.remove(&account);
        }
        shard.tail_bytes -= freed;
    }

    fn shard(&self, account: AccountId) -> MutexGuard<'_, Shard> {
        let index = usize::from(*account.as_bytes().first().expect("an id has bytes")) % self.shards.len();
        let shard = self.shards.get(index).expect("a remainder is below the length");
        shard.lock().expect("no code panics while it holds a shard")
    }
}

impl Shard {
    fn push(&mut self, account: AccountId, delivery: Delivery) {
        let Some(presence) = self.accounts.get_mut(&account) else { return };
        if !presence.sessions.iter().any(|session| session.subscribes) {
            return;
        }
        if presence.tail.holds_past(&delivery) {
            // A wake that comes twice, or late: the tail goes on from its newest entry.
            return;
        }
        if !presence.tail.continues_with(&delivery) {
            self.tail_bytes -= presence.tail.clear();
        }
        self.tail_bytes += presence.tail.push(delivery);
        self.tail_bytes -= presence.tail.trim();
        if self.tail_bytes > TAIL_BYTES_MAX / WAKE_SHARDS {
            // Rare, and harmless: readers go to the store until their tails have grown again.
            let freed: usize = self.accounts.values_mut().map(|presence| presence.tail.clear()).sum();
            self.tail_bytes -= freed;
        }
    }
}

impl Wake for Hub {
    fn deliver(&self, entries: &mut Vec<(AccountId, Delivery)>) {
        // One lock and one wake for all entries of an account; the sort keeps their order.
        entries.sort_by_key(|(account, _)| *account);
        let mut entries = entries.drain(..).peekable();
        while let Some((account, delivery)) = entries.next() {
            let mut shard = self.shard(account);
            shard.push(account, delivery);
            while let Some((_, delivery)) = entries.next_if(|(next, _)| *next == account) {
                shard.push(account, delivery);
            }
            if let Some(presence) = shard.accounts.get(&account) {
                presence
                    .sessions
                    .iter()
                    .filter(|session| session.subscribes)
                    .for_each(|session| session.listener.wake());
            }
        }
    }

    fn revoke(&self, account: AccountId, device: DeviceId, why: Code) {
        if let Some(presence) = self.shard(account).accounts.get(&account) {
            let of_device = presence.sessions.iter().filter(|session| session.device == device);
            of_device.for_each(|session| session.listener.revoke(why));
        }
    }

    /// One session is told, since two would both put new ones: the one that subscribes lasts longest, else the newest.
    fn notice(&self, account: AccountId, device: DeviceId, notice: Notice) {
        if let Some(presence) = self.shard(account).accounts.get(&account) {
            let of_device = presence.sessions.iter().filter(|session| session.device == device);
            if let Some(session) = of_device.max_by_key(|session| session.subscribes) {
                session.listener.notice(notice);
            }
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

/// A session's place in the hub; leaves it when dropped.
pub struct Attached {
    hub: Arc<Hub>,
    account: AccountId,
    listener: Arc<dyn Listener>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.detach(self.account, &self.listener);
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("account", &self.account).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
