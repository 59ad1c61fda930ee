//! Datagrams that nobody stands by: first packets of handshakes from addresses that will not answer, and noise.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quinn::ClientConfig;
use quinn_proto::EndpointConfig;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::raw::classical_client_config;

/// Datagrams sent for each tick, so that the timer does not bound the rate.
const AT_ONCE: u32 = 10;
/// The longest datagram of noise, in bytes.
const NOISE_BYTES_MAX: usize = 1400;

/// Begins handshakes, each from an address of its own, until the end.
pub(super) async fn handshakes(server: SocketAddr, per_s: u32, over: &AtomicBool, done: &AtomicUsize) {
    let config = classical_client_config();
    let mut rng = StdRng::from_os_rng();
    repeat(per_s, over, done, || {
        let datagram = first_packet(&config, server);
        send_from_anywhere(&mut rng, server, &datagram);
    })
    .await;
}

/// Sends random bytes until the end. Some look like packets of a connection, some like the first of one.
pub(super) async fn noise(server: SocketAddr, per_s: u32, over: &AtomicBool, done: &AtomicUsize) {
    const FIRST_BYTES: [u8; 4] = [0x40, 0x5f, 0xc0, 0xff];
    let mut rng = StdRng::from_os_rng();
    repeat(per_s, over, done, || {
        let mut datagram = vec![0; rng.random_range(1..NOISE_BYTES_MAX)];
        rng.fill_bytes(&mut datagram);
        datagram[0] = FIRST_BYTES[rng.random_range(0..FIRST_BYTES.len())];
        send_from_anywhere(&mut rng, server, &datagram);
    })
    .await;
}

async fn repeat(per_s: u32, over: &AtomicBool, done: &AtomicUsize, mut once: impl FnMut()) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * AT_ONCE / per_s.max(AT_ONCE));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        (0..AT_ONCE).for_each(|_| once());
        done.fetch_add(usize::try_from(AT_ONCE).unwrap(), Ordering::Relaxed);
    }
}

/// Any address of 127.0.0.0/8 is this machine's to send from, which is as good as lying about it.
fn send_from_anywhere(rng: &mut StdRng, server: SocketAddr, datagram: &[u8]) {
    let from = Ipv4Addr::new(127, rng.random_range(1..=254), rng.random(), rng.random_range(1..=254));
    // The address of somebody else's socket, or none that is free: one datagram less.
    if let Ok(socket) = UdpSocket::bind((from, 0)) {
        let _ = socket.send_to(datagram, server);
    }
}

/// Somebody whose address a liar wrote on a datagram: what the server sends there, they never asked for.
#[derive(Debug)]
pub struct Victim {
    socket: UdpSocket,
    /// Bytes of the datagram that bore their address.
    pub sent_bytes: usize,
    /// Bytes of each datagram that came of it.
    pub received: Vec<usize>,
}

impl Victim {
    /// Begins a handshake in somebody's name.
    pub(super) fn of_handshake(last: u8, server: SocketAddr) -> Self {
        Self::of(last, server, &first_packet(&classical_client_config(), server))
    }

    /// Sends the first packet of a connection of a version that nobody knows, which a server answers by those that it
    /// knows.
    pub(super) fn of_unknown_version(last: u8, server: SocketAddr) -> Self {
        let mut datagram = first_packet(&classical_client_config(), server);
        datagram[1..5].copy_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a]);
        Self::of(last, server, &datagram)
    }

    fn of(last: u8, server: SocketAddr, datagram: &[u8]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 2, last), 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.send_to(datagram, server).unwrap();
        Self { socket, sent_bytes: datagram.len(), received: Vec::new() }
    }

    /// Counts what has come since.
    pub(super) fn listen(&mut self) {
        let mut datagram = [0; 65_536];
        while let Ok(bytes) = self.socket.recv(&mut datagram) {
            self.received.push(bytes);
        }
    }

    /// All that came.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.received.iter().sum()
    }
}

/// What a client says first: a valid Initial packet with a whole ClientHello, so that the server has something to answer.
/// Nothing of the client is kept.
fn first_packet(config: &ClientConfig, server: SocketAddr) -> Vec<u8> {
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config.clone(), server, "127.0.0.1").unwrap();
    let mut datagram = Vec::new();
    let transmit = connection.poll_transmit(now, 1, &mut datagram).expect("a client speaks first");
    datagram.truncate(transmit.size);
    datagram
}
