//! A socket of the simulated network, as quinn wants one.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::SimNet;

/// Datagrams that wait to be read; more are lost, as by a full buffer of a real socket.
const WAITING_MAX: usize = 2_000;

/// One socket.
pub struct SimSocket {
    net: SimNet,
    state: Mutex<State>,
}

struct State {
    /// What it was bound to.
    address: SocketAddr,
    /// Where the others see it.
    seen_at: SocketAddr,
    is_cut_off: bool,
    waiting: VecDeque<Arrived>,
    reader: Option<Waker>,
}

/// A datagram that has arrived.
pub(super) struct Arrived {
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl SimSocket {
    pub(super) fn new(net: SimNet, address: SocketAddr) -> Self {
        let state = State { address, seen_at: address, is_cut_off: false, waiting: VecDeque::new(), reader: None };
        Self { net, state: Mutex::new(state) }
    }

    /// Nothing leaves and nothing arrives any more; who uses it does not learn of it.
    pub(super) fn cut_off(&self) {
        let mut state = self.state();
        state.is_cut_off = true;
        state.waiting.clear();
    }

    pub(super) fn move_to(&self, address: SocketAddr) {
        self.state().seen_at = address;
    }

    /// Takes a datagram in, if there is room.
    pub(super) fn arrive(&self, datagram: Arrived) -> bool {
        let reader = {
            let mut state = self.state();
            if state.is_cut_off || state.waiting.len() >= WAITING_MAX {
                return false;
            }
            state.waiting.push_back(datagram);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (from, is_cut_off) = {
            let state = self.state();
            (state.seen_at, state.is_cut_off)
        };
        if !is_cut_off {
            self.net.send(from, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some(Arrived { from, bytes }) = state.waiting.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            *meta = RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.state().address)
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSocket").field("address", &self.state().address).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
