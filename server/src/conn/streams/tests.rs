//! What a session stream brings in one read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gureum_proto::{ALPN, ConversationId, Send, put_send};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::listen;
use crate::tls::Tls;

/// Both ends of a connection over this machine's network, the client's first, and what they live by.
async fn connected() -> (Connection, Connection, [Endpoint; 2]) {
    let directory = tempfile::tempdir().unwrap();
    let tls = Tls::load(directory.path(), None, "localhost").unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = listen::bind(any, &tls, None).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.path().join("tls/cert.pem")).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let client = Endpoint::client(any).unwrap();
    let connecting = client.connect_with(config, server.local_addr().unwrap(), "localhost").unwrap();
    let accepting = async { server.accept().await.unwrap().await.unwrap() };
    let (connected, accepted) = tokio::join!(connecting, accepting);
    (connected.unwrap(), accepted, [client, server])
}

/// So many frames of a message.
fn frames(count: u64) -> Bytes {
    let mut out = BytesMut::new();
    for counter in 1..=count {
        let (conversation, ciphertext) = (ConversationId::from_bytes([1; 16]), Bytes::from_static(&[7; 256]));
        put_send(&Send { counter, conversation, epoch: 1, ciphertext, silent: false }, &mut out);
    }
    out.freeze()
}

#[tokio::test]
async fn what_has_come_in_many_packets_is_read_at_once_and_then_the_end() {
    let (client, server, _endpoints) = connected().await;
    let (mut output, _) = client.open_bi().await.unwrap();
    let sent = frames(32);
    output.write_all(&sent).await.unwrap();
    output.finish().unwrap();
    assert_eq!(output.stopped().await.unwrap(), None, "all of it has come");

    let (_, mut input) = server.accept_bi().await.unwrap();
    let mut decoder = Decoder::new();
    assert_eq!(read(&mut input, &mut decoder).await.unwrap(), Some(sent.len()));
    let count = std::iter::from_fn(|| decoder.next().unwrap()).count();
    assert_eq!(count, 32);
    assert_eq!(read(&mut input, &mut decoder).await.unwrap(), None);
    assert_eq!(decoder.finish(), Ok(()));
}
