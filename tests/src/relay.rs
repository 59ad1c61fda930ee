//! A wire between clients and a server that can be listened to, cut, and spoiled.
//!
//! It is a program of its own on loopback rather than a rule of the kernel, so that it works on every machine, without
//! rights, and does the same with the same seed.

mod post;
mod weather;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use post::Post;
use weather::Wire;
pub use weather::{Counts, Weather};

/// Clients that one relay serves at a time: of more, as in a router at home, the one that has said nothing for longest is
/// forgotten. Each connection of a client comes from an address of its own.
const CLIENTS_MAX: usize = 256;
/// Bytes that are kept of what passed.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Passes datagrams on until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    answers_cut: AtomicBool,
    requests_cut: AtomicBool,
    over: AtomicBool,
    passed: Mutex<Vec<u8>>,
    /// Of requests and of answers, so that one direction does not change what happens to the other.
    wires: [Mutex<Wire>; 2],
    post: Post,
    clients: Mutex<Clients>,
}

/// Where the datagrams of each client go out.
#[derive(Debug)]
struct Clients {
    upstream: HashMap<SocketAddr, Upstream>,
    /// From where the server sees them come.
    seen_from: IpAddr,
}

#[derive(Debug, Clone)]
struct Upstream {
    socket: Arc<UdpSocket>,
    gone: Arc<AtomicBool>,
    heard_at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Request,
    Answer,
}

impl Relay {
    /// Starts one in front of a server.
    #[must_use]
    pub fn start(server: SocketAddr) -> Self {
        Self::with_seed(server, 1)
    }

    /// Starts one whose weather comes from a seed.
    #[must_use]
    pub fn with_seed(server: SocketAddr, seed: u64) -> Self {
        let socket = Arc::new(listening(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            answers_cut: AtomicBool::default(),
            requests_cut: AtomicBool::default(),
            over: AtomicBool::default(),
            passed: Mutex::default(),
            wires: [seed, !seed].map(|seed| Mutex::new(Wire::new(seed))),
            post: Post::default(),
            clients: Mutex::new(Clients { upstream: HashMap::new(), seen_from: IpAddr::V4(Ipv4Addr::LOCALHOST) }),
        });
        let (there, post) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || there.forward(&socket));
        std::thread::spawn(move || post.post.run());
        Self { address, shared }
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing comes back from the server.
    pub fn cut_answers(&self) {
        self.shared.answers_cut.store(true, Ordering::SeqCst);
    }

    /// From now on nothing of what clients say arrives.
    pub fn cut_requests(&self) {
        self.shared.requests_cut.store(true, Ordering::SeqCst);
    }

    /// Everything passes again, in fair weather.
    pub fn mend(&self) {
        self.set_weather(Weather::default());
        self.shared.requests_cut.store(false, Ordering::SeqCst);
        self.shared.answers_cut.store(false, Ordering::SeqCst);
    }

    /// From now on this happens to what passes.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.wires.iter().for_each(|wire| wire.lock().unwrap().weather = weather);
    }

    /// What has happened so far, both ways together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let [requests, answers] = self.shared.wires.each_ref().map(|wire| wire.lock().unwrap().counts);
        Counts {
            came: requests.came + answers.came,
            lost: requests.lost + answers.lost,
            too_long: requests.too_long + answers.too_long,
            cut: requests.cut + answers.cut,
            doubled: requests.doubled + answers.doubled,
            altered: requests.altered + answers.altered,
            held_back: requests.held_back + answers.held_back,
        }
    }

    /// From now on the server sees every client come from this address, and from another port: what happens to a phone
    /// that leaves the house. What is sent to the old addresses is lost.
    pub fn change_address(&self, seen_from: IpAddr) {
        let mut clients = self.shared.clients.lock().unwrap();
        clients.seen_from = seen_from;
        clients.upstream.drain().for_each(|(_, upstream)| upstream.gone.store(true, Ordering::SeqCst));
    }

    /// Everything that passed so far.
    #[must_use]
    pub fn passed(&self) -> Vec<u8> {
        self.shared.passed.lock().unwrap().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.post.end();
    }
}

impl Shared {
    fn forward(self: Arc<Self>, socket: &Arc<UdpSocket>) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !self.over.load(Ordering::SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
            let upstream = self.upstream(from, socket);
            self.pass(Way::Request, &upstream.socket, self.server, &mut datagram[..length]);
        }
    }

    fn upstream(self: &Arc<Self>, client: SocketAddr, front: &Arc<UdpSocket>) -> Upstream {
        let mut clients = self.clients.lock().unwrap();
        if let Some(upstream) = clients.upstream.get_mut(&client) {
            upstream.heard_at = Instant::now();
            return upstream.clone();
        }
        clients.make_room();
        let socket = Arc::new(listening(clients.seen_from));
        let upstream = Upstream { socket, gone: Arc::default(), heard_at: Instant::now() };
        let (shared, back, front) = (Arc::clone(self), upstream.clone(), Arc::clone(front));
        std::thread::spawn(move || shared.backward(&back, &front, client));
        clients.upstream.insert(client, upstream.clone());
        upstream
    }

    fn backward(&self, back: &Upstream, front: &Arc<UdpSocket>, client: SocketAddr) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !self.over.load(Ordering::SeqCst) && !back.gone.load(Ordering::SeqCst) {
            let Ok((length, _)) = back.socket.recv_from(&mut datagram) else { continue };
            self.pass(Way::Answer, front, client, &mut datagram[..length]);
        }
    }

    fn pass(&self, way: Way, socket: &Arc<UdpSocket>, to: SocketAddr, datagram: &mut [u8]) {
        self.keep(datagram);
        let (wire, cut) = match way {
            Way::Request => (&self.wires[0], &self.requests_cut),
            Way::Answer => (&self.wires[1], &self.answers_cut),
        };
        if cut.load(Ordering::SeqCst) {
            wire.lock().unwrap().counts.cut += 1;
            return;
        }
        let arrivals = wire.lock().unwrap().pass(datagram);
        arrivals.into_iter().for_each(|delay| self.post.send(socket, to, datagram, delay));
    }

    fn keep(&self, datagram: &[u8]) {
        let mut passed = self.passed.lock().unwrap();
        if passed.len() < KEPT_BYTES_MAX {
            passed.extend_from_slice(datagram);
        }
    }
}

impl Clients {
    /// Forgets the client that has said nothing for longest, where another would be one too many.
    fn make_room(&mut self) {
        let silent = self.upstream.iter().min_by_key(|(_, upstream)| upstream.heard_at).map(|(client, _)| *client);
        if self.upstream.len() >= CLIENTS_MAX
            && let Some(gone) = silent.and_then(|client| self.upstream.remove(&client))
        {
            gone.gone.store(true, Ordering::SeqCst);
        }
    }
}

fn listening(address: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    // So that a thread sees the end of its relay.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::SOON;

    fn socket() -> UdpSocket {
        let socket = listening(IpAddr::V4(Ipv4Addr::LOCALHOST));
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    /// A datagram there and one back; from where the server sees the client come.
    #[track_caller]
    fn exchange(server: &UdpSocket, client: &UdpSocket, relay: &Relay) -> SocketAddr {
        let mut byte = [7_u8];
        client.send_to(&byte, relay.address()).unwrap();
        let (_, seen_from) = server.recv_from(&mut byte).unwrap();
        server.send_to(&byte, seen_from).unwrap();
        assert_eq!(client.recv_from(&mut byte).unwrap(), (1, relay.address()));
        seen_from
    }

    #[test]
    fn newcomers_are_served_however_many_came_before_and_who_goes_on_talking_keeps_its_place() {
        let (server, lasting) = (socket(), socket());
        let relay = Relay::start(server.local_addr().unwrap());
        let place = exchange(&server, &lasting, &relay);
        for _ in 0..2 * CLIENTS_MAX {
            exchange(&server, &socket(), &relay);
            assert_eq!(exchange(&server, &lasting, &relay), place);
        }
        assert!(relay.shared.clients.lock().unwrap().upstream.len() <= CLIENTS_MAX);
    }
}
