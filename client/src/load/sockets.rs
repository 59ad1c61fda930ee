//! The sockets of a load: a few that many connections share, each with room for what comes while the load tester is at
//! something else.

use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use socket2::SockRef;

use crate::limits::LOAD_SOCKET_BYTES;
use crate::link::{NetworkFuture, Sockets, SystemSockets, any_port};

/// What everything but the sockets is left to.
const SYSTEM: &SystemSockets = &SystemSockets;

/// The machine's network by so many sockets of each family.
#[derive(Debug)]
pub(super) struct LoadSockets {
    most: usize,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    v4: Vec<Endpoint>,
    v6: Vec<Endpoint>,
    next: usize,
}

impl LoadSockets {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), made: Mutex::default() }
    }
}

impl Sockets for LoadSockets {
    /// A new one while there may be more of them, then each in its turn.
    fn endpoint(&self, remote: SocketAddr) -> Result<Endpoint> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.next = made.next.wrapping_add(1);
        let turn = made.next % self.most;
        let family = if remote.is_ipv4() { &mut made.v4 } else { &mut made.v6 };
        match family.get(turn) {
            Some(shared) if family.len() >= self.most => Ok(shared.clone()),
            _ => {
                let endpoint = roomy(remote)?;
                family.push(endpoint.clone());
                Ok(endpoint)
            }
        }
    }

    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> NetworkFuture<'a, Result<Vec<SocketAddr>>> {
        SYSTEM.resolve(host, port)
    }

    fn refused(&self, address: SocketAddr) -> NetworkFuture<'_, ()> {
        SYSTEM.refused(address)
    }

    fn patience(&self) -> (Duration, Duration) {
        SYSTEM.patience()
    }
}

/// An endpoint whose socket holds as much as the system lets it (`net.core.rmem_max`): the kernel doubles what is asked for.
fn roomy(remote: SocketAddr) -> Result<Endpoint> {
    let socket = UdpSocket::bind(any_port(remote))?;
    let options = SockRef::from(&socket);
    let asked = [options.set_recv_buffer_size(LOAD_SOCKET_BYTES), options.set_send_buffer_size(LOAD_SOCKET_BYTES)];
    if let Some(error) = asked.into_iter().find_map(Result::err) {
        tracing::warn!(%error, "a socket has no more room than the system gives by itself");
    }
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_connections_share_a_few_sockets() {
        let sockets = LoadSockets::new(3);
        let remote = "127.0.0.1:1".parse().unwrap();
        let ports: Vec<_> = (0..9).map(|_| sockets.endpoint(remote).unwrap().local_addr().unwrap().port()).collect();
        let mut told_apart = ports.clone();
        told_apart.sort_unstable();
        let counts: Vec<_> = told_apart.chunk_by(PartialEq::eq).map(<[u16]>::len).collect();
        assert_eq!(counts, [3, 3, 3], "{ports:?}");
    }

    #[tokio::test]
    async fn a_socket_has_more_room_than_the_system_gives_by_itself() {
        let usual = UdpSocket::bind("127.0.0.1:0").unwrap();
        let usual = SockRef::from(&usual).recv_buffer_size().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        SockRef::from(&socket).set_recv_buffer_size(LOAD_SOCKET_BYTES).unwrap();
        assert!(SockRef::from(&socket).recv_buffer_size().unwrap() > usual);
    }
}
