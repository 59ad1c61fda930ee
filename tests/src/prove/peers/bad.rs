//! Bad peers: each kind does its worst on one thread, and so with at most one processor that nobody else wants, until it is told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gureum_proto::{FindBy, Handle, Position, Request};
use quinn::{Endpoint, VarInt};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::Serialize;
use tokio::task::JoinSet;

use super::spoof;
use crate::device::{Device, Talk};
use crate::raw::{Raw, frame};

/// Addresses from which they connect: enough that no bound for one address protects the server.
const SOURCES: u8 = 16;
/// The first of a type's numbers that a server must skip, and the longest that it may be.
const IGNORABLE: u64 = 0x1001;
const IGNORABLE_BYTES: usize = 64 * 1024;

/// What a bad peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Says random bytes.
    Garbage,
    /// Says half a frame and waits.
    HalfFrame,
    /// Says a byte a second.
    Drip,
    /// Proves itself and sends messages as fast as it is answered, 64 at a time.
    Sends,
    /// Proves itself and asks as fast as it is answered, on 8 streams.
    Requests,
    /// Proves itself and writes frames that may be ignored, without end, and begins requests that never end.
    Endless,
    /// Begins handshakes from addresses that it does not have.
    Spoofed,
    /// Sends datagrams of random bytes.
    Noise,
}

/// Every kind.
pub const KINDS: [Kind; 9] = [
    Kind::Silent,
    Kind::Garbage,
    Kind::HalfFrame,
    Kind::Drip,
    Kind::Sends,
    Kind::Requests,
    Kind::Endless,
    Kind::Spoofed,
    Kind::Noise,
];

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Force {
    /// Connections without a proof at one time.
    pub connections: usize,
    /// New ones a second.
    pub connections_per_s: u32,
    /// Devices that prove themselves.
    pub devices: usize,
    /// Spoofed handshakes, and datagrams of noise, a second.
    pub datagrams_per_s: u32,
}

/// Bad peers with accounts: invited once, and now this.
pub(super) struct Members {
    pub(super) devices: Vec<(Device, Talk)>,
    pub(super) url: String,
    pub(super) server: SocketAddr,
}

/// What they share with whoever started them.
#[derive(Debug, Default)]
pub(super) struct Leash {
    pub(super) over: AtomicBool,
    /// Things that they managed to do: connections, messages, requests, datagrams.
    pub(super) done: AtomicUsize,
}

impl Leash {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(&self, things: usize) {
        self.done.fetch_add(things, Ordering::Relaxed);
    }
}

/// Does it until the leash is pulled.
pub(super) async fn run(kind: Kind, members: &mut Members, force: Force, leash: Arc<Leash>) {
    match kind {
        Kind::Silent | Kind::Garbage | Kind::HalfFrame | Kind::Drip => unproven(kind, members, force, leash).await,
        Kind::Sends | Kind::Requests | Kind::Endless => proven(kind, members, leash).await,
        Kind::Spoofed => spoof::handshakes(members.server, force.datagrams_per_s, &leash.over, &leash.done).await,
        Kind::Noise => spoof::noise(members.server, force.datagrams_per_s, &leash.over, &leash.done).await,
    }
}

async fn unproven(kind: Kind, members: &Members, force: Force, leash: Arc<Leash>) {
    let endpoints: Vec<_> = (1..=SOURCES)
        .map(|last| Endpoint::client(SocketAddr::from((Ipv4Addr::new(127, 0, 1, last), 0))).unwrap())
        .collect();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / force.connections_per_s);
    let mut open = JoinSet::new();
    let mut next = 0_usize;
    while !leash.is_over() {
        ticks.tick().await;
        while open.try_join_next().is_some() {}
        if open.len() < force.connections {
            let endpoint = endpoints[next % endpoints.len()].clone();
            next += 1;
            open.spawn(one(kind, endpoint, members.url.clone(), Arc::clone(&leash)));
        }
    }
    open.shutdown().await;
    for endpoint in endpoints {
        endpoint.close(VarInt::from_u32(0), b"");
        let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
    }
}

/// One connection that never proves itself, until the server has had enough.
async fn one(kind: Kind, endpoint: Endpoint, url: String, leash: Arc<Leash>) {
    let Ok(mut raw) = Raw::dial_on(&endpoint, &url).await else { return };
    leash.count(1);
    match kind {
        Kind::Garbage => {
            let mut rng = StdRng::from_os_rng();
            let mut bytes = vec![0; rng.random_range(1..4096)];
            rng.fill_bytes(&mut bytes);
            let _ = raw.output.write_all(&bytes).await;
        }
        Kind::HalfFrame => drop(raw.output.write_all(&frame(0x01, 2000, &[1; 1000])).await),
        Kind::Drip => {
            for byte in frame(0x01, 200, &[7; 200]) {
                let written = raw.output.write_all(&[byte]).await;
                if written.is_err() || raw.connection.close_reason().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        _ => (),
    }
    raw.connection.closed().await;
}

async fn proven(kind: Kind, members: &mut Members, leash: Arc<Leash>) {
    let mut tasks = JoinSet::new();
    let url = members.url.clone();
    for (device, talk) in members.devices.drain(..) {
        tasks.spawn(member(kind, device, talk, url.clone(), Arc::clone(&leash)));
    }
    while let Some(ended) = tasks.join_next().await {
        members.devices.push(ended.unwrap());
    }
}

/// One device until the leash is pulled; a server that ends its connection is connected to again.
async fn member(kind: Kind, mut device: Device, talk: Talk, url: String, leash: Arc<Leash>) -> (Device, Talk) {
    while !leash.is_over() {
        let (mut raw, _) = device.connect(&url, false, Position { seq: 0, count: 0 }).await;
        match kind {
            Kind::Sends => sends(&mut raw, &mut device, &talk, &leash).await,
            Kind::Requests => requests(&raw, &leash).await,
            _ => endless(&mut raw, &leash).await,
        }
        raw.close().await;
    }
    (device, talk)
}

async fn sends(raw: &mut Raw, device: &mut Device, talk: &Talk, leash: &Leash) {
    let body = Bytes::from(vec![3; 256]);
    while !leash.is_over() {
        let sends: Vec<_> = (0..64).map(|_| device.opaque(talk, body.clone())).collect();
        leash.count(raw.send(&sends).await.len());
    }
}

async fn requests(raw: &Raw, leash: &Leash) {
    let by_handle: Handle = "newcomer".parse().unwrap();
    let ask = async |index: usize| {
        while !leash.is_over() {
            let request = if index.is_multiple_of(2) {
                Request::ListConversations { after: None }
            } else {
                Request::FindAccount { by: FindBy::Handle(by_handle.clone()), log_from: 0 }
            };
            raw.request(&request).await;
            leash.count(1);
        }
    };
    let ask = |index| Box::pin(ask(index));
    tokio::join!(ask(0), ask(1), ask(2), ask(3), ask(4), ask(5), ask(6), ask(7));
}

async fn endless(raw: &mut Raw, leash: &Leash) {
    let ignorable = frame(IGNORABLE, u64::try_from(IGNORABLE_BYTES).unwrap(), &vec![0; IGNORABLE_BYTES]);
    let mut begun = Vec::new();
    while !leash.is_over() {
        if let Ok(Ok((mut output, input))) =
            tokio::time::timeout(Duration::from_millis(1), raw.connection.open_bi()).await
        {
            let _ = output.write_all(&frame(0x20, 200, b"more follows")).await;
            begun.push((output, input));
        }
        if begun.len() > 64 {
            begun.clear();
        }
        let written = tokio::time::timeout(Duration::from_millis(500), raw.output.write_all(&ignorable)).await;
        match written {
            Ok(Ok(())) => leash.count(1),
            Ok(Err(_)) => return,
            Err(_) => {
                // The stream stands in the middle of a frame now.
                return;
            }
        }
    }
}
