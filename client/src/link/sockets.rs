//! How the network is reached: names to addresses, and endpoints to connect from.

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use quinn::Endpoint;
use tokio::net::UdpSocket;

use crate::limits::{ADDRESSES_MAX, IDLE_TIMEOUT, KEEP_ALIVE};

/// What a network takes its time for.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A network: the machine's, or a simulated one, for which an endpoint suffices.
pub trait Sockets: fmt::Debug + Send + Sync {
    /// An endpoint from which an address can be reached. A dialer keeps it.
    ///
    /// # Errors
    /// The network does not work.
    fn endpoint(&self, remote: SocketAddr) -> Result<Endpoint>;

    /// The addresses of a host, a few at most. A network without names knows those that are addresses themselves.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> NetworkFuture<'a, Result<Vec<SocketAddr>>> {
        let address = host.parse::<IpAddr>().map(|address| vec![SocketAddr::new(address, port)]);
        Box::pin(std::future::ready(address.map_err(|error| Error::new(ErrorKind::InvalidInput, error))))
    }

    /// Returns when the host says that nothing listens at an address; never, where hosts do not say so.
    fn refused(&self, _address: SocketAddr) -> NetworkFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// After how much silence a connection is kept alive, and after how much more it counts as lost. A network in which no
    /// translator forgets an address may have more patience.
    fn patience(&self) -> (Duration, Duration) {
        (KEEP_ALIVE, IDLE_TIMEOUT)
    }
}

/// The machine's network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemSockets;

impl Sockets for SystemSockets {
    fn endpoint(&self, remote: SocketAddr) -> Result<Endpoint> {
        Endpoint::client(any_port(remote))
    }

    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> NetworkFuture<'a, Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect()) })
    }

    fn refused(&self, address: SocketAddr) -> NetworkFuture<'_, ()> {
        Box::pin(refused(address))
    }
}

/// Any free port of the kind from which an address can be reached.
pub(crate) fn any_port(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// QUIC ignores the ICMP messages that say so, since anybody can forge one, and would try until its time is up; here
/// they only end the attempt sooner.
async fn refused(address: SocketAddr) {
    let probe = async {
        let socket = UdpSocket::bind(any_port(address)).await?;
        socket.connect(address).await?;
        // Without QUIC's fixed bit: every server drops it unanswered.
        socket.send(&[0]).await?;
        socket.recv(&mut [0; 1]).await
    };
    match probe.await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => (),
        _ => std::future::pending().await,
    }
}
