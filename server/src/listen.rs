//! The endpoint: accepts connections within bounds, one handshake at a time, and hands each to a task of its own.

mod bursts;
mod ids;
mod places;
mod pressure;
mod turns;

use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use gureum_proto::Code;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AsyncUdpSocket, Connecting, Connection, Endpoint, EndpointConfig, Incoming, Runtime, ServerConfig, TransportConfig,
    VarInt,
};
use socket2::SockRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::conn::{self, Accepted, Shared};
use crate::limits::{
    CONNECTIONS_MAX, DATAGRAM_RECEIVE_BYTES, DATAGRAM_SEND_BYTES, IDLE_TIMEOUT_MS, INCOMING_BYTES_MAX, INCOMING_MAX,
    INCOMING_ONE_BYTES_MAX, REQUEST_STREAMS_MAX, SEND_WINDOW_BYTES, SOCKET_BUFFER_BYTES, STREAM_WINDOW_BYTES,
    UNPROVEN_WINDOW_BYTES,
};
use crate::metrics::Metrics;
use crate::tls::Tls;
use bursts::{Bursts, Drivers};
use ids::Ids;
pub(crate) use places::network;
use places::{Admission, Place, Places};
use turns::{Turn, Turns};

/// After a restart each old connection is told once: a hundred thousand in under two minutes. A reset is shorter than
/// what it answers and goes only to who shows an id of ours, so that nobody is flooded by way of this server.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {error}; choose another with --listen")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The certificate's algorithm does not fit QUIC.
    #[error("the TLS configuration cannot serve QUIC: {0}")]
    Tls(String),
}

/// Makes the endpoint on the given socket, or on a UDP socket that it opens.
///
/// # Errors
/// The address is taken or not this machine's, or TLS does not fit.
pub(crate) fn bind(
    address: SocketAddr,
    tls: &Tls,
    socket: Option<Arc<dyn AsyncUdpSocket>>,
) -> Result<Endpoint, ListenError> {
    let crypto =
        QuicServerConfig::try_from(Arc::clone(&tls.config)).map_err(|error| ListenError::Tls(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_ONE_BYTES_MAX)
        .incoming_buffer_size_total(u64::try_from(INCOMING_BYTES_MAX).unwrap_or(u64::MAX));
    let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &tls.reset_key)));
    let ids = Ids::new(&tls.reset_key);
    endpoint.cid_generator(move || Box::new(ids.clone())).min_reset_interval(RESET_INTERVAL_MIN);
    let socket = match socket {
        Some(socket) => Ok(Arc::new(Bursts(socket)) as Arc<dyn AsyncUdpSocket>),
        None => UdpSocket::bind(address).and_then(|socket| {
            enlarge_buffers(&socket);
            Drivers.wrap_udp_socket(socket)
        }),
    };
    socket
        .and_then(|socket| Endpoint::new_with_abstract_socket(endpoint, Some(config), socket, Arc::new(Drivers)))
        .map_err(|error| ListenError::Bind { address, error })
}

/// Gives the one socket of all connections room for bursts: with the system's default of 208 KiB, 60,000 messages a
/// second lost 56,000 packets in 10 s, and their connections stood for up to a second each.
fn enlarge_buffers(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let is_enlarged = |wanted: std::io::Result<()>, has: std::io::Result<usize>| {
        wanted.is_ok() && has.is_ok_and(|bytes| bytes >= SOCKET_BUFFER_BYTES)
    };
    let receives = is_enlarged(socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES), socket.recv_buffer_size());
    let sends = is_enlarged(socket.set_send_buffer_size(SOCKET_BUFFER_BYTES), socket.send_buffer_size());
    if !receives || !sends {
        tracing::warn!(
            wanted_bytes = SOCKET_BUFFER_BYTES,
            "the system limits the socket's buffers, and bursts may be lost and sent again; set net.core.rmem_max and \
             net.core.wmem_max"
        );
    }
}

/// Every limit of the transport: quinn's defaults would let one peer pin 250 MB.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1 + REQUEST_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        // Raised by the proof.
        .receive_window(VarInt::from_u32(UNPROVEN_WINDOW_BYTES))
        .send_window(u64::from(SEND_WINDOW_BYTES))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BYTES)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT_MS).into()));
    transport
}

/// Between two looks at whether the pressure has gone.
const TICK: Duration = Duration::from_secs(1);

/// Whoever may begin a handshake.
type Guest = (Incoming, Place);

/// Accepts connections until `stop`.
pub(crate) async fn accept(endpoint: Endpoint, shared: Arc<Shared>, stop: CancellationToken) {
    take_turns(endpoint, &shared.metrics, stop, |guest| begin(guest, &shared)).await;
}

/// Lets handshakes begin one at a time. Between two of them everything else that is ready runs, and the network is looked at:
/// [`tokio::task::yield_now`] comes back after that, or after 61 other tasks where there is always one.
///
/// Those who still wait at the end are told that they are refused, as quinn does with an [`Incoming`] that is dropped.
async fn take_turns(
    endpoint: Endpoint,
    metrics: &Metrics,
    stop: CancellationToken,
    mut begin: impl FnMut(Guest) + Send,
) {
    let (places, mut turns) = (Arc::<Places>::default(), Turns::<Guest>::default());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            // First packets before handshakes: what answers them costs little, and quinn drops them unanswered where too
            // many wait.
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                report(places.tick(), metrics);
                metrics.handshakes_unvalidated.set(gauge(places.unvalidated()));
                metrics.handshakes_waiting.set(gauge(turns.waiting()));
            }
            incoming = endpoint.accept(), if turns.may_look() => {
                let Some(incoming) = incoming else { return };
                turns.looked();
                let connections = endpoint.open_connections() + turns.waiting();
                if let Some(guest) = admit(incoming, connections, &places, metrics) {
                    turns.wait(guest, Instant::now());
                }
            }
            () = std::future::ready(()), if turns.is_due() => {
                match turns.take(Instant::now()) {
                    Some(Turn::Begin(guest)) => begin(guest),
                    Some(Turn::TooLate((incoming, _place))) => {
                        metrics.closes.increment(Code::Unavailable);
                        incoming.refuse();
                    }
                    None => (),
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

fn gauge(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Does the server's first part of a handshake, which is most of it, and leaves the rest to a task.
fn begin((incoming, place): Guest, shared: &Arc<Shared>) {
    shared.metrics.connections_accepted.increment(1);
    let limit = Duration::from_millis(shared.session.proof_timeout_ms);
    let accepted = Accepted { at_ms: shared.clock.now_ms(), proof_by: Instant::now() + limit };
    match incoming.accept() {
        Ok(connecting) => {
            let handshake = Box::pin(shake_hands(connecting, accepted.proof_by));
            shared.tasks.spawn(serve(handshake, accepted, Arc::clone(shared), place));
        }
        Err(error) => tracing::debug!(%error, "a handshake failed"),
    }
}

/// Whoever may begin a handshake; the others are answered here.
fn admit(incoming: Incoming, connections: usize, places: &Arc<Places>, metrics: &Metrics) -> Option<Guest> {
    if connections >= CONNECTIONS_MAX {
        metrics.closes.increment(Code::Unavailable);
        incoming.refuse();
        return None;
    }
    let (admission, turn) = places.enter(incoming.remote_address().ip(), incoming.remote_address_validated());
    report(turn, metrics);
    match admission {
        Admission::Enter(place) => Some((incoming, place)),
        Admission::Validate => {
            metrics.retries.increment(1);
            // It fails only for an address that is proven, and such a one is never asked.
            let _ = incoming.retry();
            None
        }
        Admission::Full => {
            metrics.closes.increment(Code::RateLimited);
            incoming.refuse();
            None
        }
    }
}

fn report(turn: Option<pressure::Turn>, metrics: &Metrics) {
    match turn {
        None => (),
        Some(pressure::Turn::On) => {
            metrics.address_validation.set(1.0);
            tracing::warn!(
                "too many handshakes are begun and not finished: who connects must prove its address first (QUIC Retry)"
            );
        }
        Some(pressure::Turn::Off) => {
            metrics.address_validation.set(0.0);
            tracing::info!("handshakes are finished again: addresses are no longer asked for");
        }
    }
}

/// A handshake under way. Boxed, so that its memory goes when it is done: a task is as large as the largest of what it does,
/// to its end.
type Handshake = Pin<Box<dyn Future<Output = Option<Connection>> + Send>>;

async fn serve(handshake: Handshake, accepted: Accepted, shared: Arc<Shared>, mut place: Place) {
    if let Some(connection) = handshake.await {
        place.validated();
        conn::serve(connection, shared, accepted, place).await;
    }
}

async fn shake_hands(connecting: Connecting, by: Instant) -> Option<Connection> {
    match tokio::time::timeout_at(by, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;
    use crate::conn::tests::future_bytes;

    /// A server whose handshakes are only counted, and a client that trusts it.
    fn ends() -> (Endpoint, Endpoint) {
        let dir = tempfile::tempdir().unwrap();
        let (any, tls) = (SocketAddr::from(([127, 0, 0, 1], 0)), Tls::load(dir.path(), None, "localhost").unwrap());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.path().join("tls/cert.pem")).unwrap()).unwrap();
        let mut client = Endpoint::client(any).unwrap();
        client.set_default_client_config(quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap());
        (bind(any, &tls, None).unwrap(), client)
    }

    /// Two tasks of which one can always run; how often they have.
    fn always_at_work() -> Arc<AtomicUsize> {
        let (runs, [one, other]) = (Arc::<AtomicUsize>::default(), [(); 2].map(|()| Arc::new(Notify::new())));
        for (mine, next) in [(&one, &other), (&other, &one)] {
            let (runs, mine, next) = (Arc::clone(&runs), Arc::clone(mine), Arc::clone(next));
            tokio::spawn(async move {
                loop {
                    mine.notified().await;
                    runs.fetch_add(1, Ordering::Relaxed);
                    next.notify_one();
                }
            });
        }
        one.notify_one();
        runs
    }

    #[tokio::test]
    async fn handshakes_begin_one_at_a_time_and_between_them_whatever_is_ready_runs() {
        const GUESTS: usize = 20;
        let ((server, client), runs) = (ends(), always_at_work());
        let address = server.local_addr().unwrap();
        let (stop, begun) = (CancellationToken::new(), Arc::<Mutex<Vec<usize>>>::default());
        let accepting = {
            let (stop, begun) = (stop.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                let (metrics, _) = Metrics::new();
                // Whoever is let go is refused.
                take_turns(server, &metrics, stop, |_guest| begun.lock().unwrap().push(runs.load(Ordering::Relaxed)))
                    .await;
            })
        };
        let mut coming = JoinSet::new();
        for _ in 0..GUESTS {
            let connecting = client.connect(address, "localhost").unwrap();
            coming.spawn(async move { connecting.await.map(drop) });
        }
        let came = coming.join_all().await;
        stop.cancel();
        accepting.await.unwrap();
        assert!(came.iter().all(|come| matches!(come, Err(quinn::ConnectionError::ConnectionClosed(_)))), "{came:?}");
        let begun = begun.lock().unwrap();
        assert!(begun.len() >= GUESTS, "{begun:?}");
        assert!(begun.windows(2).all(|two| two[0] < two[1]), "{begun:?}");
    }

    #[test]
    fn the_task_of_a_connection_keeps_no_room_for_what_is_done_once() {
        let bytes = future_bytes(|(handshake, accepted, shared, place)| serve(handshake, accepted, shared, place));
        assert!(bytes <= 512, "{bytes} bytes for as long as the connection lasts");
    }
}
