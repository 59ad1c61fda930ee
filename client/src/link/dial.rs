//! From a server's address to a connection: resolve, dial, register, prove.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use gureum_proto::{
    Code, CodeSent, EXPORTER_BYTES, EXPORTER_LABEL, Hello, HelloClaim, Link as Offered, Phone, Ready, Recover,
    Recovering, Register, Registered, ServerFrame, ServerUrl, exporter_context, put_hello, put_link, put_link_reply,
    put_recover, put_register, put_request_code,
};
use gureum_wire::Decoder;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig,
    VarInt,
};

use super::error::LinkError;
use super::sockets::{Sockets, SystemSockets};
use super::{Link, LinkEvents, bounds, read_frame, session, tls};
use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_RECEIVE_BYTES, CONNECTION_SEND_BYTES, DATAGRAM_RECEIVE_BYTES, DATAGRAM_SEND_BYTES,
    DELIVERY_STREAMS_MAX, HELLO_TIMEOUT, STREAM_RECEIVE_BYTES, UNCONFIRMED_PACKETS_MAX,
};

/// Dials one server, again and again; keeps its sockets and the TLS sessions that shorten the next handshake.
#[derive(Debug)]
pub struct Dialer {
    server: ServerUrl,
    sockets: Arc<dyn Sockets>,
    config: ClientConfig,
    pin_failed: Arc<AtomicBool>,
    v4: OnceLock<Endpoint>,
    v6: OnceLock<Endpoint>,
}

/// A connection to the right server by nobody in particular.
#[derive(Debug)]
pub struct Unproven {
    connection: Connection,
    endpoint: Endpoint,
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
    server_name: String,
}

/// What comes to a device that waits to be linked; all of it sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linking {
    /// A device of an account answers.
    Answer(Bytes),
    /// The account's log has the device; with what it is handed, or nothing.
    Linked(Bytes),
}

impl Dialer {
    /// Prepares to dial over the machine's network; touches nothing yet.
    ///
    /// # Errors
    /// The TLS library refuses its configuration.
    pub fn new(server: ServerUrl) -> Result<Self, LinkError> {
        Self::over(Arc::new(SystemSockets), server)
    }

    /// As [`Self::new`], over any network.
    ///
    /// # Errors
    /// The TLS library refuses its configuration.
    pub fn over(sockets: Arc<dyn Sockets>, server: ServerUrl) -> Result<Self, LinkError> {
        let tls_failed = |reason: String| LinkError::Tls { address: address_text(&server), reason };
        let tls = tls::tls(server.pin).map_err(|error| tls_failed(error.to_string()))?;
        let crypto = QuicClientConfig::try_from(tls.config).map_err(|error| tls_failed(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(sockets.patience())));
        Ok(Self { sockets, config, pin_failed: tls.pin_failed, server, v4: OnceLock::new(), v6: OnceLock::new() })
    }

    /// Connects: the first of the server's addresses that answers.
    ///
    /// # Errors
    /// Nothing answers in time, or what answers is not the server.
    pub async fn connect(&self) -> Result<Unproven, LinkError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_any()).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    async fn connect_any(&self) -> Result<Unproven, LinkError> {
        let resolved = self.sockets.resolve(&self.server.host, self.server.port).await;
        let addresses = resolved.map_err(|error| self.unreachable(error.to_string()))?;
        let mut last = self.unreachable("the name has no address".to_owned());
        for address in addresses {
            match self.connect_to(address).await {
                Ok(unproven) => return Ok(unproven),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Unproven, LinkError> {
        let endpoint = self.endpoint(address)?;
        let connecting = endpoint
            .connect_with(self.config.clone(), address, &self.server.host)
            .map_err(|error| self.unreachable(error.to_string()))?;
        self.pin_failed.store(false, Ordering::Relaxed);
        let connection = tokio::select! {
            biased;
            connected = connecting => connected.map_err(|error| self.not_connected(error))?,
            () = self.sockets.refused(address) => return Err(self.unreachable("nothing listens on that port".to_owned())),
        };
        let (send, recv) = connection.open_bi().await?;
        let server_name = self.server.host.clone();
        Ok(Unproven { connection, endpoint, send, recv, decoder: Decoder::new(), server_name })
    }

    fn endpoint(&self, address: SocketAddr) -> Result<Endpoint, LinkError> {
        let slot = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(endpoint) = slot.get() {
            return Ok(endpoint.clone());
        }
        let endpoint = self.sockets.endpoint(address).map_err(|error| LinkError::Socket(error.to_string()))?;
        Ok(slot.get_or_init(|| endpoint).clone())
    }

    fn not_connected(&self, error: quinn::ConnectionError) -> LinkError {
        let address = address_text(&self.server);
        if self.pin_failed.load(Ordering::Relaxed) {
            return LinkError::WrongPin { address };
        }
        LinkError::of_handshake(error, address)
    }

    fn unreachable(&self, reason: String) -> LinkError {
        LinkError::Unreachable { address: address_text(&self.server), reason }
    }
}

impl Unproven {
    /// Makes an account.
    ///
    /// # Errors
    /// [`LinkError::Refused`] leaves the connection as it was: another try may follow.
    pub async fn register(&mut self, register: &Register) -> Result<Registered, LinkError> {
        let mut out = BytesMut::new();
        put_register(register, &mut out);
        match self.ask(out).await? {
            ServerFrame::Registered(registered) => Ok(registered),
            ServerFrame::Refused(refusal) => Err(LinkError::Refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits to be linked, from here on: what comes of it, [`Self::next`] gives.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn offer(&mut self, offered: &Offered) -> Result<(), LinkError> {
        let mut out = BytesMut::new();
        put_link(offered, &mut out);
        Ok(self.send.write_chunk(out.freeze()).await?)
    }

    /// Answers what [`Self::next`] gave, with a sealed consent.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn reply(&mut self, consent: &Bytes) -> Result<(), LinkError> {
        let mut out = BytesMut::new();
        put_link_reply(consent, &mut out);
        Ok(self.send.write_chunk(out.freeze()).await?)
    }

    /// What the server says next to a device that waits to be linked, however long that takes.
    ///
    /// Cancel safety: bytes that have come are kept for the next call.
    ///
    /// # Errors
    /// [`LinkError::Refused`], or the end of the connection.
    pub async fn next(&mut self) -> Result<Linking, LinkError> {
        match ServerFrame::decode(read_frame(&mut self.recv, &mut self.decoder).await?)? {
            ServerFrame::LinkAnswer(answer) => Ok(Linking::Answer(answer)),
            ServerFrame::Linked(bundle) => Ok(Linking::Linked(bundle)),
            ServerFrame::Refused(refusal) => Err(LinkError::Refused(refusal)),
            ServerFrame::Drain { .. } => Err(LinkError::Closed { code: Code::Stopping, reason: String::new() }),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for the account of a recovery key.
    ///
    /// # Errors
    /// [`LinkError::Refused`] leaves the connection as it was.
    pub async fn recovering(&mut self, recovery_key: [u8; 32]) -> Result<Recovering, LinkError> {
        match self.recovery(Recover { recovery_key, entry: None }).await? {
            ServerFrame::Recovering(recovering) => Ok(recovering),
            other => Err(unexpected(&other)),
        }
    }

    /// Brings an account back by the entry that its recovery key has signed.
    ///
    /// # Errors
    /// [`LinkError::Refused`] leaves the connection as it was.
    pub async fn recover(&mut self, recovery_key: [u8; 32], entry: Bytes) -> Result<Registered, LinkError> {
        match self.recovery(Recover { recovery_key, entry: Some(entry) }).await? {
            ServerFrame::Registered(registered) => Ok(registered),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for a code to be sent to a phone number.
    ///
    /// # Errors
    /// [`LinkError::Refused`] leaves the connection as it was.
    pub async fn request_code(&mut self, phone: &Phone) -> Result<CodeSent, LinkError> {
        let mut out = BytesMut::new();
        put_request_code(phone, &mut out);
        match self.ask(out).await? {
            ServerFrame::CodeSent(sent) => Ok(sent),
            ServerFrame::Refused(refusal) => Err(LinkError::Refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    async fn recovery(&mut self, recover: Recover) -> Result<ServerFrame, LinkError> {
        let mut out = BytesMut::new();
        put_recover(&recover, &mut out);
        match self.ask(out).await? {
            ServerFrame::Refused(refusal) => Err(LinkError::Refused(refusal)),
            frame => Ok(frame),
        }
    }

    /// Proves to be a device. `claim.server_name` is set to what was dialled.
    ///
    /// # Errors
    /// The server closes the connection with its reason.
    pub async fn prove(
        mut self,
        mut claim: HelloClaim,
        key: &SigningKey,
    ) -> Result<(Link, LinkEvents, Ready), LinkError> {
        claim.server_name.clone_from(&self.server_name);
        let mut exporter = [0; EXPORTER_BYTES];
        self.connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &exporter_context(claim.account, claim.device))
            .map_err(|_| LinkError::Malformed("TLS has no exporter".to_owned()))?;
        let mut out = BytesMut::new();
        put_hello(&Hello::sign(&claim, key, &exporter), &mut out);
        match self.ask(out).await? {
            ServerFrame::Ready(ready) => {
                bounds::phone(ready.phone)?;
                let Self { connection, endpoint, send, recv, decoder, .. } = self;
                let (link, events) = session::start(connection, endpoint, send, (recv, decoder), claim.subscribe);
                Ok((link, events, ready))
            }
            ServerFrame::Refused(refusal) => Err(LinkError::Refused(refusal)),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, frames: BytesMut) -> Result<ServerFrame, LinkError> {
        let exchange = async {
            // A server that closes says why to the reader; the writer only sees that it did.
            let written = self.send.write_chunk(frames.freeze()).await;
            let frame = read_frame(&mut self.recv, &mut self.decoder).await?;
            written?;
            Ok(ServerFrame::decode(frame)?)
        };
        let answer = tokio::time::timeout(HELLO_TIMEOUT, exchange).await;
        answer.unwrap_or(Err(LinkError::Timeout("its first answer")))
    }
}

fn unexpected(frame: &ServerFrame) -> LinkError {
    let name = match frame {
        ServerFrame::Ready(_) => "Ready",
        ServerFrame::Registered(_) => "Registered",
        ServerFrame::Sent(_) => "Sent",
        ServerFrame::LinkAnswer(_) => "LinkAnswer",
        ServerFrame::Linked(_) => "Linked",
        ServerFrame::Recovering(_) => "Recovering",
        ServerFrame::CodeSent(_) => "CodeSent",
        ServerFrame::Refused(_) => "Refused",
        ServerFrame::Drain { .. } => "Drain",
        ServerFrame::Notice(_) => "Notice",
        ServerFrame::PhoneNotice(_) => "PhoneNotice",
    };
    LinkError::Malformed(format!("{name} out of turn"))
}

fn address_text(server: &ServerUrl) -> String {
    if server.host.contains(':') {
        format!("[{}]:{}", server.host, server.port)
    } else {
        format!("{}:{}", server.host, server.port)
    }
}

fn transport((keep_alive, idle_timeout): (Duration, Duration)) -> TransportConfig {
    let mut confirmations = AckFrequencyConfig::default();
    confirmations.ack_eliciting_threshold(VarInt::from_u32(UNCONFIRMED_PACKETS_MAX));
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(keep_alive))
        .ack_frequency_config(Some(confirmations))
        .max_idle_timeout(Some(IdleTimeout::try_from(idle_timeout).expect("a minute fits a varint")))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_RECEIVE_BYTES))
        .send_window(CONNECTION_SEND_BYTES)
        .max_concurrent_uni_streams(VarInt::from_u32(DELIVERY_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BYTES);
    config
}
