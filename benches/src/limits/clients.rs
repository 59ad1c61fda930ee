//! Clients of the bare echo: as many connections as Gureum has, with the frames that Gureum is sent.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use gureum_proto::{ALPN, ConversationId, Send, put_send};
use gureum_server::limits::SOCKET_BUFFER_BYTES;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime,
    TransportConfig, VarInt,
};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use socket2::SockRef;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Measured;
use super::process::Served;

/// Connections of one socket, as `gureum load` has it.
const CONNECTIONS_PER_SOCKET: usize = 16;

/// Handshakes at one time, as `gureum load` has it.
const HANDSHAKES_AT_ONCE: usize = 16;

/// Packets that the server may take without a confirmation at once, as Gureum's client has it.
const UNCONFIRMED_PACKETS_MAX: u32 = 9;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The frame of a message, many times in a row.
#[derive(Debug, Clone)]
pub struct Frames {
    all: Bytes,
    bytes: usize,
}

impl Frames {
    /// So many frames of a message whose ciphertext has so many bytes.
    #[must_use]
    pub fn new(sealed_bytes: usize, count: usize) -> Self {
        let mut all = BytesMut::new();
        let mut bytes = 0;
        for counter in (1_000_000..).take(count) {
            let ciphertext = Bytes::from(vec![0x5a; sealed_bytes]);
            let conversation = ConversationId::from_bytes([0x5a; 16]);
            put_send(&Send { counter, conversation, epoch: 1, ciphertext, silent: false }, &mut all);
            if bytes == 0 {
                bytes = all.len();
            }
        }
        Self { all: all.freeze(), bytes }
    }

    /// The bytes of one.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many of them, or all.
    fn take(&self, count: usize) -> Bytes {
        self.all.slice(..self.all.len().min(count.saturating_mul(self.bytes)))
    }
}

/// How messages follow one another on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Always so many that have not come back.
    Window(usize),
    /// One in this time, those of all connections evenly spread over it.
    Every(Duration),
}

/// Sockets, and whom to trust.
#[derive(Debug)]
pub struct Clients {
    sockets: Vec<Endpoint>,
    config: ClientConfig,
    server: SocketAddr,
}

impl Clients {
    /// For so many connections to the server that has made its certificate in a data directory. Must be called within a
    /// runtime.
    ///
    /// # Errors
    /// The certificate cannot be read, or there are no sockets.
    pub fn new(data_dir: &Path, server: SocketAddr, connections: usize) -> Result<Self> {
        let sockets = (0..connections.div_ceil(CONNECTIONS_PER_SOCKET).max(1))
            .map(|_| socket())
            .collect::<std::io::Result<Vec<_>>>()
            .context("opening sockets (`ulimit -n` bounds them)")?;
        Ok(Self { sockets, config: config(data_dir)?, server })
    }

    /// Makes so many connections, some at a time, each with a whole handshake.
    ///
    /// # Errors
    /// One could not be made.
    pub async fn connect(&self, connections: usize) -> Result<Vec<Connection>> {
        let mut pending = JoinSet::new();
        let mut made = Vec::with_capacity(connections);
        for socket in self.sockets.iter().cycle().take(connections) {
            if pending.len() >= HANDSHAKES_AT_ONCE {
                made.extend(next(&mut pending).await?);
            }
            let connecting = socket.connect_with(self.config.clone(), self.server, "localhost")?;
            pending.spawn(async move { Ok::<_, anyhow::Error>(connecting.await?) });
        }
        while !pending.is_empty() {
            made.extend(next(&mut pending).await?);
        }
        Ok(made)
    }
}

/// A socket that loses no more than the server's does.
fn socket() -> std::io::Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // What the system does not give is not there.
    let _ = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER_BYTES);
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

async fn next<T: 'static>(pending: &mut JoinSet<Result<T>>) -> Result<Option<T>> {
    pending.join_next().await.transpose()?.transpose()
}

fn config(data_dir: &Path) -> Result<ClientConfig> {
    let path = data_dir.join("tls/cert.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&path).with_context(|| format!("reading {}", path.display()))?)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    // Each handshake is a whole one, as after a restart of the server.
    tls.resumption = Resumption::disabled();
    let mut confirmations = AckFrequencyConfig::default();
    confirmations.ack_eliciting_threshold(VarInt::from_u32(UNCONFIRMED_PACKETS_MAX));
    let mut transport = TransportConfig::default();
    transport.ack_frequency_config(Some(confirmations));
    // The server's limit holds, which is longer than quinn's default.
    transport.max_idle_timeout(None);
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Sends on all connections at a pace for `duration`, and counts what comes back, and the server's processor time for it,
/// between the first tenth and the last.
///
/// # Errors
/// A connection ends, or nothing comes back.
pub async fn measure(
    server: &Served,
    connections: &[Connection],
    frames: &Frames,
    pace: Pace,
    duration: Duration,
) -> Result<Measured> {
    let back = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut talking = JoinSet::new();
    let count = u32::try_from(connections.len())?;
    for (index, connection) in (0_u32..).zip(connections) {
        let (connection, frames, back) = (connection.clone(), frames.clone(), Arc::clone(&back));
        talking.spawn(async move {
            match pace {
                Pace::Window(window) => pipelined(&connection, &frames, window, &back).await,
                Pace::Every(period) => {
                    let first = start + period * index / count.max(1);
                    paced(&connection, &frames, first, period, &back).await
                }
            }
        });
    }
    let sample = || Ok::<_, anyhow::Error>((server.cpu()?, back.load(Ordering::Relaxed), Instant::now()));
    let measured = async {
        tokio::time::sleep_until(start + duration / 10).await;
        let before = sample()?;
        tokio::time::sleep_until(start + duration * 9 / 10).await;
        let after = sample()?;
        Ok::<_, anyhow::Error>(Measured {
            messages: after.1.saturating_sub(before.1),
            cpu_s: after.0.saturating_sub(before.0).as_secs_f64(),
            wall_s: after.2.duration_since(before.2).as_secs_f64(),
        })
    };
    let measured = tokio::select! {
        measured = measured => measured?,
        Some(ended) = talking.join_next() => {
            ended??;
            bail!("a connection to the bare echo ended early");
        }
    };
    ensure!(measured.messages > 0, "nothing came back from the bare echo");
    Ok(measured)
}

/// Sends one message for each that comes back, those of one read in one write.
async fn pipelined(connection: &Connection, frames: &Frames, window: usize, back: &AtomicU64) -> Result<()> {
    let (mut output, mut input) = connection.open_bi().await?;
    output.write_chunk(frames.take(window)).await?;
    let mut partial = 0;
    loop {
        let whole = read(&mut input, frames, &mut partial, back).await?;
        if whole > 0 {
            output.write_chunk(frames.take(whole)).await?;
        }
    }
}

/// Sends a message whenever one is due.
async fn paced(
    connection: &Connection,
    frames: &Frames,
    first: Instant,
    period: Duration,
    back: &AtomicU64,
) -> Result<()> {
    let (mut output, mut input) = connection.open_bi().await?;
    let mut due = tokio::time::interval_at(first, period);
    let mut partial = 0;
    loop {
        tokio::select! {
            _ = due.tick() => output.write_chunk(frames.take(1)).await?,
            whole = read(&mut input, frames, &mut partial, back) => {
                whole?;
            }
        }
    }
}

/// Takes what has come, and says how many messages that completed.
///
/// Cancel safety: a cancelled call has taken nothing.
async fn read(input: &mut RecvStream, frames: &Frames, partial: &mut usize, back: &AtomicU64) -> Result<usize> {
    let chunk = input.read_chunk(usize::MAX, true).await?.context("the bare echo ended a stream")?;
    let bytes = *partial + chunk.bytes.len();
    *partial = bytes % frames.bytes;
    let whole = bytes / frames.bytes;
    back.fetch_add(u64::try_from(whole)?, Ordering::Relaxed);
    Ok(whole)
}

/// Opens a stream on each connection and exchanges one message; the streams stay open as long as what is returned.
///
/// # Errors
/// A message does not come back.
pub async fn exchange(connections: &[Connection], frames: &Frames) -> Result<Vec<(SendStream, RecvStream)>> {
    let mut streams = Vec::with_capacity(connections.len());
    let message = frames.take(1);
    let mut came = vec![0; message.len()];
    for connection in connections {
        let exchanged = async {
            let (mut output, mut input) = connection.open_bi().await?;
            output.write_chunk(message.clone()).await?;
            input.read_exact(&mut came).await?;
            Ok::<_, anyhow::Error>((output, input))
        };
        streams.push(tokio::time::timeout(PATIENCE, exchanged).await.context("a message did not come back")??);
        ensure!(came == message, "another message came back");
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_a_message() {
        let frames = Frames::new(256, 3);
        assert_eq!(frames.take(1).len(), frames.bytes());
        assert_eq!(frames.take(3).len(), 3 * frames.bytes());
        assert_eq!(frames.take(9).len(), 3 * frames.bytes(), "no more than there are");
        assert!((256 + 16..256 + 48).contains(&frames.bytes()), "{}", frames.bytes());
    }
}
