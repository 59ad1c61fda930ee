//! Datagrams under way: each is sent when its time has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Datagrams under way at one time; what comes beyond is lost, as in any queue of a network.
const UNDER_WAY_MAX: usize = 8_192;

/// The datagrams under way.
#[derive(Debug, Default)]
pub(super) struct Post {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: BinaryHeap<Reverse<Item>>,
    next: u64,
    is_over: bool,
}

/// One of them, in the order of arrival.
#[derive(Debug)]
struct Item {
    due: (Instant, u64),
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Post {
    /// Sends after a delay, or at once if there is none.
    pub(super) fn send(&self, socket: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8], delay: Duration) {
        if delay.is_zero() {
            // A wire loses what cannot be sent.
            let _ = socket.send_to(bytes, to);
            return;
        }
        let mut state = self.state.lock().unwrap();
        if state.under_way.len() >= UNDER_WAY_MAX {
            return;
        }
        state.next += 1;
        let due = (Instant::now() + delay, state.next);
        state.under_way.push(Reverse(Item { due, socket: Arc::clone(socket), to, bytes: bytes.to_vec() }));
        self.changed.notify_one();
    }

    /// Delivers until the end.
    pub(super) fn run(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.is_over {
            let now = Instant::now();
            let wait = state.under_way.peek().map(|Reverse(item)| item.due.0.saturating_duration_since(now));
            match wait {
                Some(Duration::ZERO) => {
                    let Some(Reverse(item)) = state.under_way.pop() else { continue };
                    drop(state);
                    let _ = item.socket.send_to(&item.bytes, item.to);
                    state = self.state.lock().unwrap();
                }
                Some(wait) => state = self.changed.wait_timeout(state, wait).unwrap().0,
                None => state = self.changed.wait(state).unwrap(),
            }
        }
    }

    /// Ends [`Post::run`].
    pub(super) fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_one();
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}
