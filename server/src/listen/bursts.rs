//! How many datagrams one system call takes from a connection: one, until it is seen to send many together.
//!
//! quinn keeps the buffer of a connection's largest call until the connection ends, and takes one for ten datagrams as soon
//! as two of them leave together, as those of every handshake do: 13 KiB, about as much as all else that the transport
//! holds for an idle device. So a connection's first datagrams leave one by one, and whoever has sent a certain number in
//! bursts gets the large buffer and the fewer calls.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// Datagrams of bursts that leave one by one, at a system call for each. The certificate and the key exchange of a handshake
/// take two to five; a backlog of 200 messages of 250 bytes takes more than these.
const ALONE_MAX: usize = 32;

thread_local! {
    /// The connection whose driver runs on this thread.
    static DRIVEN: Cell<Driven> = const { Cell::new(Driven::UNBOUNDED) };
}

#[derive(Debug, Clone, Copy)]
struct Driven {
    /// Datagrams that a call may take.
    segments_max: usize,
    /// Datagrams that have left since it runs.
    sent: usize,
}

impl Driven {
    const UNBOUNDED: Self = Self { segments_max: usize::MAX, sent: 0 };
    const ALONE: Self = Self { segments_max: 1, sent: 0 };
}

/// The drivers of an endpoint's connections, on tokio.
#[derive(Debug)]
pub(super) struct Drivers;

impl Runtime for Drivers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Driver { future, together: 0 }));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Bursts(TokioRuntime.wrap_udp_socket(socket)?)))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// What drives one connection.
struct Driver {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Datagrams that had company in one turn of it.
    together: usize,
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        if driver.together >= ALONE_MAX {
            return driver.future.as_mut().poll(context);
        }
        DRIVEN.set(Driven::ALONE);
        let polled = driver.future.as_mut().poll(context);
        let sent = DRIVEN.replace(Driven::UNBOUNDED).sent;
        if sent > 1 {
            driver.together = driver.together.saturating_add(sent);
        }
        polled
    }
}

/// The socket of all connections.
#[derive(Debug)]
pub(super) struct Bursts(pub(super) Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Bursts {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)?;
        let datagrams = transmit.segment_size.map_or(1, |bytes| transmit.contents.len().div_ceil(bytes.max(1)));
        let driven = DRIVEN.get();
        DRIVEN.set(Driven { sent: driven.sent.saturating_add(datagrams), ..driven });
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments().min(DRIVEN.get().segments_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[cfg(test)]
mod tests;
