//! A network of datagrams in virtual time, seeded: delays, loses, doubles, reorders, cuts and spoils them, and can be
//! taken apart. Sockets are quinn's, so that everything above them is the real thing.

mod socket;
mod weather;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use socket::Arrived;
pub use socket::SimSocket;
pub use weather::Weather;

/// Datagrams under way; a network that is fuller drops what comes, as a router does.
const UNDER_WAY_MAX: usize = 20_000;
/// The first port that is given out.
const PORT_FIRST: u16 = 20_000;
/// An address translation gives a socket another port this far above.
const PORTS_PER_BINDING: u16 = 500;

/// The network of one simulation.
#[derive(Debug, Clone)]
pub struct SimNet {
    inner: Arc<Mutex<Inner>>,
    more: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    random: StdRng,
    weather: Weather,
    /// Hosts whose datagrams go nowhere.
    mute: BTreeSet<IpAddr>,
    /// Hosts that nothing reaches.
    deaf: BTreeSet<IpAddr>,
    /// Sockets by the address at which the others see them.
    sockets: BTreeMap<SocketAddr, Arc<SimSocket>>,
    under_way: BinaryHeap<UnderWay>,
    order: u64,
    next_port: u16,
    traffic: Traffic,
    start: Instant,
    digest: DefaultHasher,
}

/// What the network has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lost on the way, or to hosts that could not be reached.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Cut short.
    pub cut: u64,
    /// With a byte changed.
    pub spoiled: u64,
    /// Sockets whose address changed under them.
    pub moved: u64,
    /// Of all datagrams sent: when, from where, to where, and how long.
    pub digest: u64,
}

#[derive(Debug)]
struct UnderWay {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    /// The heap gives the greatest first: that is the one that arrives first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl SimNet {
    /// A network with fine weather, and the task that carries its datagrams.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            random: StdRng::seed_from_u64(seed),
            weather: Weather::fine(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            sockets: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            order: 0,
            next_port: PORT_FIRST,
            traffic: Traffic::default(),
            start: Instant::now(),
            digest: DefaultHasher::new(),
        };
        let net = Self { inner: Arc::new(Mutex::new(inner)), more: Arc::default() };
        tokio::spawn(net.clone().carry());
        net
    }

    /// A socket of a host; port 0 stands for any. One that had the address before is cut off.
    #[must_use]
    pub fn bind(&self, address: SocketAddr) -> Arc<SimSocket> {
        let mut inner = self.inner();
        let port = if address.port() == 0 { inner.any_port() } else { address.port() };
        let address = SocketAddr::new(address.ip(), port);
        let socket = Arc::new(SimSocket::new(self.clone(), address));
        if let Some(before) = inner.sockets.insert(address, Arc::clone(&socket)) {
            before.cut_off();
        }
        socket
    }

    /// Takes a host's sockets away, as its end would: what is under way to them arrives nowhere.
    pub fn unplug(&self, host: IpAddr) {
        let mut inner = self.inner();
        inner.sockets.retain(|address, socket| {
            let stays = address.ip() != host;
            if !stays {
                socket.cut_off();
            }
            stays
        });
    }

    /// Gives a host's sockets other addresses, as a translator does that has forgotten them.
    pub fn rebind(&self, host: IpAddr) {
        let mut inner = self.inner();
        let moved: Vec<_> = inner.sockets.keys().filter(|address| address.ip() == host).copied().collect();
        for before in moved {
            let port = before.port().checked_add(PORTS_PER_BINDING).unwrap_or(PORT_FIRST);
            let now = SocketAddr::new(host, port);
            if inner.sockets.contains_key(&now) {
                continue;
            }
            if let Some(socket) = inner.sockets.remove(&before) {
                socket.move_to(now);
                inner.sockets.insert(now, socket);
                inner.traffic.moved += 1;
            }
        }
    }

    /// Sets how datagrams fare from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// Whether what a host sends arrives, and whether anything arrives there.
    pub fn set_reach(&self, host: IpAddr, sends: bool, receives: bool) {
        let mut inner = self.inner();
        let Inner { mute, deaf, .. } = &mut *inner;
        for (set, is_well) in [(mute, sends), (deaf, receives)] {
            if is_well {
                set.remove(&host);
            } else {
                set.insert(host);
            }
        }
    }

    /// What the network has done so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let inner = self.inner();
        Traffic { digest: inner.digest.finish(), ..inner.traffic }
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.inner().send(from, to, bytes);
        self.more.notify_one();
    }

    async fn carry(self) {
        loop {
            let next = self.inner().under_way.peek().map(|datagram| datagram.at);
            let more = self.more.notified();
            match next {
                None => more.await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep_until(at) => self.inner().deliver(Instant::now()),
                        () = more => (),
                    }
                }
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn any_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_FIRST);
        self.next_port
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.traffic.sent += 1;
        self.traffic.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        (self.start.elapsed(), from, to, bytes.len()).hash(&mut self.digest);
        let is_cut_off = self.mute.contains(&from.ip()) || self.deaf.contains(&to.ip());
        if is_cut_off || self.random.random_bool(self.weather.loss) {
            self.traffic.lost += 1;
            return;
        }
        let copies = if self.random.random_bool(self.weather.doubling) { 2 } else { 1 };
        self.traffic.doubled += copies - 1;
        for _ in 0..copies {
            let bytes = self.spoil(bytes);
            let delay = self.delay();
            self.put_under_way(from, to, bytes, delay);
        }
    }

    fn put_under_way(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, delay: Duration) {
        if self.under_way.len() >= UNDER_WAY_MAX {
            self.traffic.lost += 1;
            return;
        }
        self.order += 1;
        self.under_way.push(UnderWay { at: Instant::now() + delay, order: self.order, from, to, bytes });
    }

    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if bytes.len() > 1 && self.random.random_bool(self.weather.cutting) {
            bytes.truncate(self.random.random_range(1..bytes.len()));
            self.traffic.cut += 1;
        }
        if self.random.random_bool(self.weather.spoiling) {
            let index = self.random.random_range(0..bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(index) {
                *byte ^= 1 << self.random.random_range(0..8);
            }
            self.traffic.spoiled += 1;
        }
        bytes
    }

    fn delay(&mut self) -> Duration {
        let (least_ms, most_ms) = self.weather.delay_ms;
        let mut ms = self.random.random_range(least_ms..=most_ms);
        if self.random.random_bool(self.weather.straggling) {
            ms += self.random.random_range(0..=self.weather.straggler_ms);
        }
        Duration::from_millis(ms)
    }

    fn deliver(&mut self, now: Instant) {
        while let Some(datagram) = self.under_way.peek()
            && datagram.at <= now
        {
            let Some(UnderWay { from, to, bytes, .. }) = self.under_way.pop() else { return };
            let is_taken = self.sockets.get(&to).is_some_and(|socket| socket.arrive(Arrived { from, bytes }));
            self.traffic.lost += u64::from(!is_taken);
        }
    }
}
