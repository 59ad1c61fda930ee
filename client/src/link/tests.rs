//! A link against a small server of its own: the same frames, no store.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use ed25519_dalek::{SigningKey, VerifyingKey};
use gureum_proto::{
    Accepted, AccountId, ClientFrame, Code, CodeSent, ConversationId, DeliveryFrame, DeviceId, EXPORTER_BYTES,
    EXPORTER_LABEL, Envelope, EnvelopeBody, Gone, HelloClaim, Link as Offered, LinkId, MessageId, PhoneNotice,
    Position, Ready, Refusal, Register, Registered, Request, Response, Send, Sent, ServerFrame, ServerUrl,
    SharedEnvelope, Typing, exporter_context,
};
use gureum_wire::Decoder;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Dialer, LinkError, LinkEvent, Linking, read_frame};

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([2; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([3; 16]);

fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A server that does to its first connection what `serve` says.
pub(crate) fn server<F>(serve: impl FnOnce(Peer) -> F + std::marker::Send + 'static) -> ServerUrl
where
    F: Future<Output = ()> + std::marker::Send,
{
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(["gureum".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pin = digest(&SHA256, &key.subject_public_key_info());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    tls.alpn_protocols = vec![gureum_proto::ALPN.as_bytes().to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    tokio::spawn(async move {
        let Some(incoming) = endpoint.accept().await else { return };
        let Ok(connection) = incoming.await else { return };
        let Ok((send, recv)) = connection.accept_bi().await else { return };
        serve(Peer { connection, send, recv, decoder: Decoder::new() }).await;
        endpoint.wait_idle().await;
    });
    ServerUrl { host: "127.0.0.1".to_owned(), port, pin: Some(pin.as_ref().try_into().unwrap()), token: None }
}

pub(crate) struct Peer {
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Peer {
    async fn next(&mut self) -> ClientFrame {
        ClientFrame::decode(read_frame(&mut self.recv, &mut self.decoder).await.unwrap()).unwrap()
    }

    /// The next frame, unless the connection has ended.
    pub(crate) async fn next_unless_closed(&mut self) -> Option<ClientFrame> {
        let frame = read_frame(&mut self.recv, &mut self.decoder).await.ok()?;
        Some(ClientFrame::decode(frame).unwrap())
    }

    pub(crate) async fn say(&mut self, frames: &[ServerFrame]) {
        let mut out = BytesMut::new();
        for frame in frames {
            frame.put(&mut out);
        }
        self.send.write_all(&out).await.unwrap();
    }

    /// Verifies the proof and says Ready.
    async fn welcome(&mut self) -> HelloClaim {
        self.welcome_by(&device_key().verifying_key()).await
    }

    /// The same for a device with another key.
    pub(crate) async fn welcome_by(&mut self, key: &VerifyingKey) -> HelloClaim {
        self.welcome_with(key, Ready { key_packages_left: 9, ..Ready::default() }).await
    }

    /// The same, with what else Ready says.
    pub(crate) async fn welcome_with(&mut self, key: &VerifyingKey, ready: Ready) -> HelloClaim {
        let ClientFrame::Hello(hello) = self.next().await else { panic!("no hello") };
        let mut exporter = [0; EXPORTER_BYTES];
        let context = exporter_context(hello.claim().account, hello.claim().device);
        self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &context).unwrap();
        let claim = hello.verify(key, &exporter).unwrap().clone();
        self.say(&[ServerFrame::Ready(ready)]).await;
        claim
    }
}

/// What is asked on a stream of its own.
pub(crate) async fn request(stream: &mut RecvStream) -> Request {
    Request::decode(read_frame(stream, &mut Decoder::new()).await.unwrap()).unwrap()
}

fn claim(subscribe: bool) -> HelloClaim {
    HelloClaim {
        server_name: String::new(),
        account: ACCOUNT,
        device: DEVICE,
        subscribe,
        cursor: Position::default(),
        epochs_digest: None,
        log_entries: 1,
        life: None,
        push_digest: None,
    }
}

fn send(counter: u64) -> Send {
    Send { counter, conversation: CONVERSATION, epoch: 1, ciphertext: Bytes::from_static(b"sealed"), silent: false }
}

fn envelope(seq: u64) -> DeliveryFrame {
    DeliveryFrame::Envelope(Envelope {
        position: Position { seq, count: seq },
        shared: SharedEnvelope {
            message_id: MessageId::new(seq, 0),
            conversation: CONVERSATION,
            sender_account: ACCOUNT,
            sender_device: DEVICE,
            body: EnvelopeBody::Message { number: seq, ciphertext: vec![9; 3000].into() },
        },
    })
}

async fn connect(server: ServerUrl) -> Result<super::Unproven, LinkError> {
    Dialer::new(server).unwrap().connect().await
}

#[tokio::test]
async fn registers_after_a_refusal_and_proves_itself_on_the_same_connection() {
    let server = server(|mut peer| async move {
        assert!(matches!(peer.next().await, ClientFrame::Register(_)));
        peer.say(&[ServerFrame::Refused(Refusal::new(Code::HandleTaken))]).await;
        assert!(matches!(peer.next().await, ClientFrame::Register(_)));
        peer.say(&[ServerFrame::Registered(Registered { account: ACCOUNT, device: DEVICE })]).await;
        assert_eq!(peer.welcome().await.server_name, "127.0.0.1");
        peer.connection.closed().await;
    });
    let mut unproven = connect(server).await.unwrap();
    let register =
        Register { token: Bytes::new(), handle: "al".into(), root_entry: Bytes::from_static(b"root"), phone: None };
    let refused = unproven.register(&register).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::HandleTaken));
    assert_eq!(unproven.register(&register).await.unwrap().account, ACCOUNT);
    let (link, _events, ready) = unproven.prove(claim(false), &device_key()).await.unwrap();
    assert_eq!(ready.key_packages_left, 9);
    link.close().await;
}

#[tokio::test]
async fn a_code_is_asked_for_again_after_a_refusal_on_the_same_connection() {
    let sent = CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: "+821012345678".parse().unwrap() };
    let answers = [ServerFrame::Refused(Refusal::new(Code::RateLimited)), ServerFrame::CodeSent(sent.clone())];
    let server = server(|mut peer| async move {
        for answer in answers {
            let ClientFrame::RequestCode(asked) = peer.next().await else { panic!("no number") };
            assert_eq!(asked.as_str(), "+82 10-1234-5678");
            peer.say(&[answer]).await;
        }
        peer.connection.closed().await;
    });
    let (mut unproven, typed) = (connect(server).await.unwrap(), "+82 10-1234-5678".parse().unwrap());
    let refused = unproven.request_code(&typed).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::RateLimited));
    assert_eq!(unproven.request_code(&typed).await, Ok(sent));
}

#[tokio::test]
async fn a_device_that_waits_hears_the_answer_and_replies_on_the_same_connection() {
    let server = server(|mut peer| async move {
        let ClientFrame::Link(offered) = peer.next().await else { panic!("no offer") };
        peer.say(&[ServerFrame::LinkAnswer(offered.offer)]).await;
        let ClientFrame::LinkReply(consent) = peer.next().await else { panic!("no reply") };
        peer.say(&[ServerFrame::Linked(consent)]).await;
        peer.connection.closed().await;
    });
    let mut unproven = connect(server).await.unwrap();
    let (link, offer) = (LinkId::from_bytes([5; 16]), Bytes::from_static(b"offer"));
    unproven.offer(&Offered { link, device: DEVICE, offer: offer.clone() }).await.unwrap();
    assert_eq!(unproven.next().await, Ok(Linking::Answer(offer)));
    let consent = Bytes::from_static(b"consent");
    unproven.reply(&consent).await.unwrap();
    assert_eq!(unproven.next().await, Ok(Linking::Linked(consent)));
}

#[tokio::test]
async fn sends_acks_and_deliveries_pass_in_order() {
    let (done, acked) = tokio::sync::oneshot::channel();
    let server = server(|mut peer| async move {
        assert!(peer.welcome().await.subscribe);
        let mut results = Vec::new();
        for counter in 1..=3 {
            let ClientFrame::Send(sent) = peer.next().await else { panic!("no send") };
            assert_eq!(sent.counter, counter);
            let accepted = Accepted { message_id: None, number: counter, repeated: false, gone: Gone::default() };
            results.push(ServerFrame::Sent(Sent { counter, result: Ok(accepted) }));
        }
        peer.say(&results).await;
        let mut delivery = peer.connection.open_uni().await.unwrap();
        let mut out = BytesMut::new();
        (1..=200).for_each(|seq| envelope(seq).put(&mut out));
        DeliveryFrame::CaughtUp { seq: 200 }.put(&mut out);
        delivery.write_all(&out).await.unwrap();
        let ClientFrame::Ack(ack) = peer.next().await else { panic!("no ack") };
        done.send(ack.seq).unwrap();
        peer.connection.closed().await;
    });
    let (link, mut events, _) = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap();
    link.send(&[send(1), send(2), send(3)]).unwrap();
    let (mut answered, mut frames) = (Vec::new(), Vec::new());
    while frames.len() < 201 {
        match events.next().await {
            LinkEvent::Sent(results) => answered.extend(results.iter().map(|sent| sent.counter)),
            LinkEvent::Delivery(more) => frames.extend(more),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answered, [1, 2, 3]);
    let expected: Vec<_> = (1..=200).map(envelope).chain([DeliveryFrame::CaughtUp { seq: 200 }]).collect();
    assert!(frames == expected, "deliveries differ");
    link.ack(Position { seq: 200, count: 200 });
    link.close().await;
    assert_eq!(acked.await.unwrap(), 200, "what was acked before the close has arrived");
}

#[tokio::test]
async fn typing_indicators_pass_both_ways_and_other_datagrams_are_passed_over() {
    let typing = |state: &'static [u8]| Typing {
        conversation: CONVERSATION,
        epoch: 1,
        account: ACCOUNT,
        device: DEVICE,
        sealed: Bytes::from_static(state),
    };
    let server = server(move |mut peer| async move {
        peer.welcome().await;
        let heard = peer.connection.read_datagram().await.unwrap();
        assert_eq!(Typing::decode(heard), Ok(typing(b"mine")));
        for datagram in [Bytes::new(), Bytes::from_static(&[0xff; 9]), typing(b"theirs").encode()] {
            peer.connection.send_datagram(datagram).unwrap();
        }
        peer.connection.closed().await;
    });
    let (link, mut events, _) = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap();
    link.typing(&typing(b"mine"));
    let LinkEvent::Typing(heard) = events.next().await else { panic!("nothing was heard") };
    assert_eq!(heard, typing(b"theirs"));
    link.close().await;
}

#[tokio::test]
async fn what_happens_to_the_phone_number_is_told_in_its_place_among_answers() {
    let notice = PhoneNotice { moved_ms: 5, tried_ms: 3 };
    let sent = Sent { counter: 1, result: Err(Refusal::new(Code::NotFound)) };
    let server = server(move |mut peer| async move {
        peer.welcome().await;
        peer.say(&[ServerFrame::Sent(sent), ServerFrame::PhoneNotice(notice)]).await;
        peer.connection.closed().await;
    });
    let (link, mut events, _) = connect(server).await.unwrap().prove(claim(false), &device_key()).await.unwrap();
    let LinkEvent::Sent(results) = events.next().await else { panic!("no answer") };
    assert_eq!(results.len(), 1);
    let LinkEvent::Phone(told) = events.next().await else { panic!("nothing was told") };
    assert_eq!(told, notice);
    link.close().await;
}

#[tokio::test]
async fn a_request_gets_its_answer_or_its_refusal() {
    let server = server(|mut peer| async move {
        peer.welcome().await;
        for answer in [
            Response::KeyPackagesStored { left: 4 },
            Response::Refused(Refusal::with_detail(Code::RateLimited, "slower").retry_after_ms(70)),
        ] {
            let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
            assert!(matches!(request(&mut recv).await, Request::PutKeyPackages { .. }));
            let mut out = BytesMut::new();
            answer.put(&mut out);
            send.write_all(&out).await.unwrap();
            send.finish().unwrap();
        }
        peer.connection.closed().await;
    });
    let (link, _events, _) = connect(server).await.unwrap().prove(claim(false), &device_key()).await.unwrap();
    let put = Request::PutKeyPackages { key_packages: Vec::new(), last_resort: None, replace: false };
    assert_eq!(link.request(&put).await, Ok(Response::KeyPackagesStored { left: 4 }));
    let refused = link.request(&put).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry_after_ms(), refused.is_temporary()), (Some(Code::RateLimited), 70, true));
    link.close().await;
}

#[tokio::test]
async fn the_servers_close_code_reaches_the_caller() {
    let server = server(|mut peer| async move {
        peer.welcome().await;
        // A close overtakes what was said before it: until the client has spoken, it may not know that it is welcome.
        peer.next().await;
        peer.connection.close(VarInt::from_u32(Code::Displaced.number()), b"");
    });
    let (link, mut events, _) = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap();
    link.ack(Position { seq: 1, count: 1 });
    let LinkEvent::Closed(error) = events.next().await else { panic!("not closed") };
    assert_eq!((error.code(), error.is_temporary()), (Some(Code::Displaced), false));
}

#[tokio::test]
async fn streams_that_a_server_lets_go_of_are_a_lost_connection_and_no_broken_protocol() {
    let server = server(|mut peer| async move {
        peer.welcome().await;
        let (mut send, mut recv) = peer.connection.accept_bi().await.unwrap();
        request(&mut recv).await;
        let mut out = BytesMut::new();
        Response::KeyPackagesStored { left: 4 }.put(&mut out);
        send.write_all(&out[..out.len() - 1]).await.unwrap();
        send.finish().unwrap();
        let mut delivery = peer.connection.open_uni().await.unwrap();
        let mut out = BytesMut::new();
        envelope(1).put(&mut out);
        delivery.write_all(&out[..out.len() - 1]).await.unwrap();
        delivery.finish().unwrap();
        peer.connection.closed().await;
    });
    let (link, mut events, _) = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap();
    let put = Request::PutKeyPackages { key_packages: Vec::new(), last_resort: None, replace: false };
    let cut_off = link.request(&put).await.unwrap_err();
    assert!(matches!(cut_off, LinkError::Lost(_)), "{cut_off}");
    let LinkEvent::Closed(error) = events.next().await else { panic!("not closed") };
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_link_that_is_dropped_leaves_no_task_behind() {
    let server = server(|mut peer| async move {
        peer.welcome().await;
        peer.connection.closed().await;
    });
    let (link, events, _) = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap();
    let tasks = link.tasks.clone();
    tasks.close();
    assert_eq!(tasks.len(), 4);
    drop((link, events));
    tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn a_refused_proof_shows_its_code() {
    let server = server(|mut peer| async move {
        peer.next().await;
        peer.connection.close(VarInt::from_u32(Code::ProofInvalid.number()), b"");
    });
    let error = connect(server).await.unwrap().prove(claim(true), &device_key()).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ProofInvalid));
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused() {
    let mut server = server(|_| async {});
    server.pin = Some([0; 32]);
    let error = connect(server).await.unwrap_err();
    assert!(matches!(error, LinkError::WrongPin { .. }), "{error}");
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_known_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    drop(socket);
    let server = ServerUrl { host: "127.0.0.1".to_owned(), port, pin: Some([0; 32]), token: None };
    let error = tokio::time::timeout(Duration::from_secs(2), connect(server)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("nothing listens") && error.is_temporary(), "{error}");
}
