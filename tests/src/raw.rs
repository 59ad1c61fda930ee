//! A client that says whatever a test wants: raw bytes on raw streams, and what the server makes of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gureum_proto::{
    ALPN, AccountId, Code, DeliveryFrame, DeviceId, EXPORTER_BYTES, EXPORTER_LABEL, Envelope, Notice, Request,
    Response, Send, Sent, ServerFrame, ServerUrl, exporter_context, put_send,
};
use gureum_wire::{Decoder, Frame};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportConfig, VarInt,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::wait::SOON;

const READ_BYTES: usize = 64 * 1024;

/// A connection with its session stream.
#[derive(Debug)]
pub struct Raw {
    /// The connection.
    pub connection: Connection,
    endpoint: Endpoint,
    /// The sending half of the session stream.
    pub output: SendStream,
    input: Frames,
}

/// Frames of one stream.
#[derive(Debug)]
pub struct Frames {
    stream: RecvStream,
    decoder: Decoder,
}

/// How the server ended something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its code.
    pub code: Code,
    /// Its sentence.
    pub reason: String,
}

/// Waits for something that a healthy server does soon.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn soon<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(SOON, future).await {
            Ok(output) => output,
            Err(_) => panic!("{what}: not within {SOON:?} ({place})"),
        }
    }
}

impl Raw {
    /// Connects to a server, whatever its certificate.
    pub async fn dial(url: &str) -> Self {
        Self::dial_with(url, TransportConfig::default()).await
    }

    /// Connects and reads at most so much before it is asked for.
    pub async fn dial_with_window(url: &str, bytes: u32) -> Self {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(bytes)).receive_window(VarInt::from_u32(bytes));
        Self::dial_with(url, transport).await
    }

    async fn dial_with(url: &str, transport: TransportConfig) -> Self {
        Self::dial_from(Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap(), url, transport).await
    }

    /// Connects from any socket.
    pub async fn dial_from(endpoint: Endpoint, url: &str, mut transport: TransportConfig) -> Self {
        transport.max_concurrent_uni_streams(VarInt::from_u32(4));
        // So that only the server's patience ends a connection that does nothing.
        transport.keep_alive_interval(Some(Duration::from_secs(5)));
        let mut config = client_config();
        config.transport_config(Arc::new(transport));
        soon("a connection", Self::connect(&endpoint, url, config)).await.unwrap()
    }

    /// Connects from a socket that others use as well, to a server that may refuse.
    ///
    /// # Errors
    /// It does, or does not answer.
    pub async fn dial_on(endpoint: &Endpoint, url: &str) -> Result<Self, ConnectionError> {
        Self::connect(endpoint, url, client_config()).await
    }

    async fn connect(endpoint: &Endpoint, url: &str, config: ClientConfig) -> Result<Self, ConnectionError> {
        let url: ServerUrl = url.parse().unwrap();
        let address = SocketAddr::new(url.host.parse().unwrap(), url.port);
        let connection = endpoint.connect_with(config, address, &url.host).unwrap().await?;
        let (output, stream) = connection.open_bi().await?;
        Ok(Self { connection, endpoint: endpoint.clone(), output, input: Frames::of(stream) })
    }

    /// The secret that a proof on this connection covers.
    #[must_use]
    pub fn exporter(&self, account: AccountId, device: DeviceId) -> [u8; EXPORTER_BYTES] {
        let mut secret = [0; EXPORTER_BYTES];
        let context = exporter_context(account, device);
        self.connection.export_keying_material(&mut secret, EXPORTER_LABEL, &context).unwrap();
        secret
    }

    /// Writes to the session stream. A server that has closed the connection does not make it fail.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("a write", self.output.write_all(bytes)).await;
    }

    /// Ends the sending half of the session stream.
    pub fn finish(&mut self) {
        let _ = self.output.finish();
    }

    /// The next frame of the session stream that is no Notice.
    pub async fn frame(&mut self) -> ServerFrame {
        soon("a frame", self.next_frame()).await.expect("the stream goes on")
    }

    /// The same, however long it takes.
    ///
    /// Cancel safety: nothing is lost but Notices.
    ///
    /// # Errors
    /// The stream or the connection ended.
    pub async fn next_frame(&mut self) -> Result<ServerFrame, ReadError> {
        loop {
            match ServerFrame::decode(self.input.next().await?).unwrap() {
                ServerFrame::Notice(_) => (),
                frame => return Ok(frame),
            }
        }
    }

    /// The next frame of the session stream, which is a Notice.
    pub async fn notice(&mut self) -> Notice {
        let frame = soon("a Notice", self.input.next()).await.expect("the stream goes on");
        match ServerFrame::decode(frame).unwrap() {
            ServerFrame::Notice(notice) => notice,
            other => panic!("{other:?} in place of a Notice"),
        }
    }

    /// Sends messages and waits for all answers.
    pub async fn send(&mut self, sends: &[Send]) -> Vec<Sent> {
        let mut out = BytesMut::new();
        sends.iter().for_each(|send| put_send(send, &mut out));
        self.write(&out).await;
        let mut answers = Vec::new();
        while answers.len() < sends.len() {
            match self.frame().await {
                ServerFrame::Sent(sent) => answers.push(sent),
                other => panic!("{other:?} in place of an answer"),
            }
        }
        answers
    }

    /// The delivery stream.
    pub async fn delivery(&self) -> Frames {
        Frames::of(soon("a delivery stream", self.connection.accept_uni()).await.unwrap())
    }

    /// Asks on a stream of its own.
    pub async fn request(&self, request: &Request) -> Response {
        let mut out = BytesMut::new();
        request.put(&mut out);
        Response::decode(self.request_bytes(&out).await.unwrap()).unwrap()
    }

    /// Puts bytes on a request stream; what comes back.
    ///
    /// # Errors
    /// The server reset the stream with this code.
    pub async fn request_bytes(&self, bytes: &[u8]) -> Result<Frame, Code> {
        let (mut output, input) = soon("a stream", self.connection.open_bi()).await.unwrap();
        let _ = output.write_all(bytes).await;
        let _ = output.finish();
        soon("an answer", Frames::of(input).next()).await.map_err(|error| match error {
            ReadError::Reset(code) => Code::from_number(code.into_inner()).expect("a known code"),
            other => panic!("{other:?} in place of an answer"),
        })
    }

    /// Waits until the server has closed the connection.
    pub async fn ended(&self) -> Ended {
        match soon("the end of the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => Ended {
                code: Code::from_number(close.error_code.into_inner()).expect("a code of the table"),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => panic!("the connection ended without a code: {other:?}"),
        }
    }

    /// Ends the connection from this side.
    pub async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        let _ = tokio::time::timeout(Duration::from_millis(50), self.endpoint.wait_idle()).await;
    }
}

impl Frames {
    /// Frames of a stream.
    #[must_use]
    pub fn of(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::new() }
    }

    /// The next frame.
    ///
    /// # Errors
    /// The stream or the connection ended.
    pub async fn next(&mut self) -> Result<Frame, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Ok(frame);
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => self.decoder.push(chunk.bytes),
                None => return Err(ReadError::ClosedStream),
            }
        }
    }

    /// The next frame of a delivery stream.
    pub async fn delivery(&mut self) -> DeliveryFrame {
        DeliveryFrame::decode(soon("a delivery", self.next()).await.unwrap()).unwrap()
    }

    /// The next envelope of a delivery stream.
    pub async fn envelope(&mut self) -> Envelope {
        loop {
            match self.delivery().await {
                DeliveryFrame::Envelope(envelope) => return envelope,
                DeliveryFrame::CaughtUp { .. } => {}
                DeliveryFrame::Gap(gap) => panic!("{gap:?} in place of an envelope"),
            }
        }
    }
}

/// The bytes of a frame with any type number, length and payload: also of one that no encoder would write.
#[must_use]
pub fn frame(kind: u64, length: u64, payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    varint(kind, &mut out);
    varint(length, &mut out);
    out.extend_from_slice(payload);
    out.into()
}

/// A QUIC varint in its shortest form.
fn varint(value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let (width, mark) = match value {
        0..64 => (1, 0x00),
        64..16_384 => (2, 0x40),
        16_384..1_073_741_824 => (4, 0x80),
        _ => (8, 0xc0),
    };
    let start = out.len();
    out.extend_from_slice(&bytes[8 - width..]);
    out[start] |= mark;
}

/// What a client needs to connect to any server of Gureum, whatever its certificate.
#[must_use]
pub fn client_config() -> ClientConfig {
    config_by(rustls::crypto::aws_lc_rs::default_provider())
}

/// The same without post-quantum key exchange, so that all of a client's first words fit into one packet.
#[must_use]
pub fn classical_client_config() -> ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    config_by(CryptoProvider { kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::X25519], ..provider })
}

fn config_by(provider: CryptoProvider) -> ClientConfig {
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls(Arc::new(provider))).unwrap()))
}

fn tls(provider: Arc<CryptoProvider>) -> rustls::ClientConfig {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = builder(provider)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    config
}

fn builder(provider: Arc<CryptoProvider>) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap()
}

/// Takes any certificate: the server is what these tests look at.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
