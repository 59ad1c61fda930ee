//! A receiver against requests as servers make them, and as others do.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use gureum_client::vault::{KeySource, NewProfile, Vault};
use gureum_proto::{PushAddress, PushTarget};
use hyper::client::conn::http2;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use web_push_native::Auth;
use web_push_native::p256::PublicKey;

use super::*;

const BASE: &str = "https://push.example.org";
const NOW_MS: u64 = 1_800_000_000_000;

/// A server that knows where a device is woken.
struct Server {
    key: EcdsaKeyPair,
    target: PushTarget,
}

impl Server {
    fn endpoint(&self) -> &str {
        let PushAddress::WebPush { endpoint, .. } = &self.target.address else { panic!("another address") };
        endpoint
    }

    fn path(&self) -> &str {
        self.endpoint().strip_prefix(BASE).unwrap()
    }

    fn sealed(&self, text: &[u8]) -> Vec<u8> {
        let PushAddress::WebPush { p256dh, auth, .. } = &self.target.address else { panic!("another address") };
        let key = PublicKey::from_sec1_bytes(p256dh).unwrap();
        web_push_native::encrypt(text.to_vec(), &key, &Auth::from(*auth)).unwrap()
    }

    fn proof(&self, audience: &str, expires_ms: u64) -> String {
        let claims = format!(r#"{{"aud":"{audience}","exp":{}}}"#, expires_ms / 1_000);
        let signed = [r#"{"alg":"ES256"}"#, claims.as_str()].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
        let signed = signed.join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let signature = BASE64URL_NOPAD.encode(signature.as_ref());
        let key = BASE64URL_NOPAD.encode(self.key.public_key().as_ref());
        format!("vapid t={signed}.{signature}, k={key}")
    }

    /// A wake-up as it should be.
    fn request(&self) -> Request<Full<Bytes>> {
        Request::post(self.path())
            .header("authorization", self.proof(BASE, NOW_MS + 60_000))
            .header("ttl", "86400")
            .header("content-encoding", "aes128gcm")
            .body(Full::from(self.sealed(b"messages")))
            .unwrap()
    }
}

/// A receiver, its server, and what it tells.
fn receiver() -> (Arc<Receiver>, Server, mpsc::Receiver<WakeUp>) {
    let home = tempfile::tempdir().unwrap();
    let profile = NewProfile { server: "gureum://192.0.2.1:4433".parse().unwrap(), device_name: "laptop".to_owned() };
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile).unwrap();
    let keys = vault.push_receiver().unwrap();
    let server = Server {
        key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        target: keys.target(BASE, true),
    };
    let server_key = server.key.public_key().as_ref().try_into().unwrap();
    let (wakes, woken) = mpsc::channel(2);
    let receiver = Receiver::new(keys, server_key, server.endpoint().to_owned(), Arc::new(|| NOW_MS), wakes);
    (Arc::new(receiver), server, woken)
}

#[tokio::test]
async fn a_wake_up_of_the_server_is_answered_and_told() {
    let (receiver, server, mut woken) = receiver();
    let answer = receiver.answer(server.request()).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["ttl"], "0");
    assert_eq!(answer.headers()["location"], format!("{}/0", server.endpoint()));
    assert_eq!(woken.recv().await, Some(WakeUp::Messages));
    let mut expiring = server.request();
    *expiring.body_mut() = Full::from(server.sealed(b"expiring"));
    assert_eq!(receiver.answer(expiring).await.status(), StatusCode::CREATED);
    assert_eq!(woken.recv().await, Some(WakeUp::Expiring));
}

#[tokio::test]
async fn what_is_no_wake_up_of_the_server_is_refused_and_told_to_nobody() {
    let (receiver, server, mut woken) = receiver();
    let (_, other, _) = self::receiver();
    let changed = |change: &dyn Fn(&mut Request<Full<Bytes>>)| {
        let mut request = server.request();
        change(&mut request);
        request
    };
    let header = |name: &'static str, value: &str| {
        changed(&|request| {
            request.headers_mut().insert(name, value.parse().unwrap());
        })
    };
    let without = |name: &'static str| {
        changed(&|request| {
            request.headers_mut().remove(name);
        })
    };
    let body = |body: Vec<u8>| changed(&|request| *request.body_mut() = Full::from(body.clone()));
    for (what, request, status) in [
        ("another path", changed(&|request| *request.uri_mut() = "/a".parse().unwrap()), StatusCode::NOT_FOUND),
        ("another method", changed(&|request| *request.method_mut() = Method::GET), StatusCode::METHOD_NOT_ALLOWED),
        ("no proof", without("authorization"), StatusCode::UNAUTHORIZED),
        ("another server", header("authorization", &other.proof(BASE, NOW_MS + 60_000)), StatusCode::FORBIDDEN),
        ("another origin", header("authorization", &server.proof("https://a", NOW_MS + 60_000)), StatusCode::FORBIDDEN),
        ("a proof that is over", header("authorization", &server.proof(BASE, NOW_MS - 1_000)), StatusCode::FORBIDDEN),
        ("no TTL", without("ttl"), StatusCode::BAD_REQUEST),
        ("a TTL that is none", header("ttl", "soon"), StatusCode::BAD_REQUEST),
        ("no encryption", without("content-encoding"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("an old encryption", header("content-encoding", "aesgcm"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("another receiver's", body(other.sealed(b"messages")), StatusCode::BAD_REQUEST),
        ("something else", body(server.sealed(b"hello")), StatusCode::BAD_REQUEST),
        ("nothing", body(Vec::new()), StatusCode::BAD_REQUEST),
        ("too much", body(vec![0; BODY_BYTES_MAX + 1]), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(receiver.answer(request).await.status(), status, "{what}");
    }
    assert!(woken.try_recv().is_err());
}

#[tokio::test]
async fn wake_ups_that_nobody_takes_have_a_bound() {
    let (receiver, server, _woken) = receiver();
    for _ in 0..2 {
        assert_eq!(receiver.answer(server.request()).await.status(), StatusCode::CREATED);
    }
    let answer = receiver.answer(server.request()).await;
    assert_eq!(
        (answer.status(), &answer.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
}

/// Where it listens, and what makes it end.
async fn listening(receiver: Arc<Receiver>, tls: Option<TlsAcceptor>) -> (std::net::SocketAddr, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Serving { receiver, tls, tasks: TaskTracker::new(), quit: CancellationToken::new() };
    serving.tasks.spawn(serving.clone().serve(listener));
    (address, serving)
}

/// A request in HTTP/1.1, as bytes.
async fn bytes(request: Request<Full<Bytes>>) -> Vec<u8> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut text =
        format!("{} {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", head.method, head.uri, body.len());
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    [text.as_bytes(), b"\r\n", &body].concat()
}

#[tokio::test]
async fn speaks_http_1_and_ends_its_connections_when_it_is_told_to() {
    let (receiver, server, mut woken) = receiver();
    let (address, serving) = listening(receiver, None).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes(server.request()).await).await.unwrap();
    assert_eq!(woken.recv().await, Some(WakeUp::Messages));
    serving.quit.cancel();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    serving.tasks.close();
    tokio::time::timeout(Duration::from_secs(20), serving.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn speaks_http_2_over_tls() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    trusting.alpn_protocols = vec![b"h2".to_vec()];
    let (receiver, server, mut woken) = receiver();
    let (address, serving) = listening(receiver, Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(trusting)).connect(name, stream).await.unwrap();
    let executor = Tracked(serving.tasks.clone());
    let (mut sender, connection) = http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    serving.tasks.spawn(async move {
        // It ends when the receiver does.
        let _ = connection.await;
    });
    let mut request = server.request();
    *request.uri_mut() = format!("https://localhost{}", server.path()).parse().unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(woken.recv().await, Some(WakeUp::Messages));
    serving.quit.cancel();
    serving.tasks.close();
    tokio::time::timeout(Duration::from_secs(20), serving.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn so_many_connections_that_say_nothing_are_taken_and_the_next_one_waits_for_room() {
    let (receiver, server, mut woken) = receiver();
    let (address, serving) = listening(receiver, None).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // The one that accepts is a task as well.
    turns_until(|| serving.tasks.len() == CONNECTIONS_MAX + 1).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes(server.request()).await).await.unwrap();
    turns_until(|| false).await;
    assert_eq!((serving.tasks.len(), woken.try_recv().is_err()), (CONNECTIONS_MAX + 1, true));
    silent.clear();
    assert_eq!(woken.recv().await, Some(WakeUp::Messages));
    serving.quit.cancel();
}

/// Lets the others do what they can, for so many turns that everything that has come is seen.
async fn turns_until(done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
