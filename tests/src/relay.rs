//! A wire between clients and a server that can be listened to and cut.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Clients that one relay serves at most.
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

#[derive(Debug, Default)]
struct Shared {
    answers_cut: AtomicBool,
    requests_cut: AtomicBool,
    over: AtomicBool,
    passed: Mutex<Vec<u8>>,
}

impl Relay {
    /// Starts one in front of a server.
    #[must_use]
    pub fn start(server: SocketAddr) -> Self {
        let socket = listening();
        let address = socket.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let there = Arc::clone(&shared);
        std::thread::spawn(move || there.forward(&socket, server));
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

    /// Everything passes again.
    pub fn mend(&self) {
        self.shared.requests_cut.store(false, Ordering::SeqCst);
        self.shared.answers_cut.store(false, Ordering::SeqCst);
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
    }
}

impl Shared {
    fn forward(self: Arc<Self>, socket: &UdpSocket, server: SocketAddr) {
        let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !self.over.load(Ordering::SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
            if !clients.contains_key(&from) && clients.len() < CLIENTS_MAX {
                let upstream = listening();
                upstream.connect(server).unwrap();
                let (back, shared) = (upstream.try_clone().unwrap(), Arc::clone(&self));
                let front = socket.try_clone().unwrap();
                std::thread::spawn(move || shared.backward(&back, &front, from));
                clients.insert(from, upstream);
            }
            self.keep(&datagram[..length]);
            if let Some(upstream) = clients.get(&from).filter(|_| !self.requests_cut.load(Ordering::SeqCst)) {
                let _ = upstream.send(&datagram[..length]);
            }
        }
    }

    fn backward(&self, back: &UdpSocket, front: &UdpSocket, client: SocketAddr) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !self.over.load(Ordering::SeqCst) {
            let Ok(length) = back.recv(&mut datagram) else { continue };
            self.keep(&datagram[..length]);
            if !self.answers_cut.load(Ordering::SeqCst) {
                let _ = front.send_to(&datagram[..length], client);
            }
        }
    }

    fn keep(&self, datagram: &[u8]) {
        let mut passed = self.passed.lock().unwrap();
        if passed.len() < KEPT_BYTES_MAX {
            passed.extend_from_slice(datagram);
        }
    }
}

fn listening() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // So that a thread sees the end of its relay.
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}
