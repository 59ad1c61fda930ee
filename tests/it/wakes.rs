//! A wake that is lost, and nothing else: what the session then does by itself. Server and network in this process, in
//! virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{DeliveryFrame, EnvelopeBody, Position};
use gureum_server::config::Flags;
use gureum_server::limits::REREAD_MS;
use gureum_server::store::disk::SimDisk;
use gureum_tests::device::{Device, Talk};
use gureum_tests::raw::{Frames, Raw};
use gureum_tests::sim::Journal;
use gureum_tests::sim::clock::SimClock;
use gureum_tests::sim::net::SimNet;
use gureum_tests::sim::server::{SERVER, Server};
use gureum_tests::sim::wake::{Fates, WakeFaults};
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig};
use tokio::time::Instant;

const START: Position = Position { seq: 0, count: 0 };
/// What a delivery takes when nothing is lost, with all that is between.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A server that runs, on a network that loses nothing.
async fn server(net: &SimNet, wakes: &WakeFaults, directory: &Path) -> Server {
    let parts = (Journal::new(false), net.clone(), SimClock::new());
    let mut server = Server::new(parts, SimDisk::new(|| 0), wakes.clone(), directory, Flags::default());
    server.start().await.unwrap();
    server
}

async fn dial(net: &SimNet, host: u8, url: &str) -> Raw {
    let socket = net.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, host)), 0));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime).unwrap();
    Raw::dial_from(endpoint, url, TransportConfig::default()).await
}

/// A device with an account, and a connection that is not proven.
async fn device(net: &SimNet, host: u8, url: &str) -> (Device, Raw) {
    let mut device = Device::new();
    device.server_name = SERVER.ip().to_string();
    let mut raw = dial(net, host, url).await;
    device.register(&mut raw, url, &format!("person{host}")).await.unwrap();
    (device, raw)
}

/// How long it takes from a send to its delivery, in virtual time.
async fn delivered_after(alice: &mut Device, talk: &Talk, raw: &mut Raw, frames: &mut Frames) -> Duration {
    let sent = Instant::now();
    let send = alice.opaque(talk, "a message".as_bytes());
    raw.send(&[send]).await.remove(0).result.unwrap();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(3_600), frames.next()).await;
        let frame = next.expect("it comes within an hour").expect("the stream goes on");
        if let DeliveryFrame::Envelope(envelope) = DeliveryFrame::decode(frame).unwrap()
            && matches!(envelope.shared.body, EnvelopeBody::Message { .. })
        {
            return sent.elapsed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_wake_is_lost_is_delivered_when_the_session_looks_for_itself() {
    let (directory, net, wakes) = (tempfile::tempdir().unwrap(), SimNet::new(1), WakeFaults::new(1));
    let server = server(&net, &wakes, directory.path()).await;
    let url = server.url().to_string();
    let (bob, mut bobs) = device(&net, 2, &url).await;
    bob.prove(&mut bobs, true, START).await;
    let mut frames = bobs.delivery().await;
    bob.publish(&bobs, 1).await;
    let (mut alice, mut raw) = device(&net, 1, &url).await;
    alice.prove(&mut raw, false, START).await;
    let talk = alice.begin(&raw, &bob).await;

    let woken = delivered_after(&mut alice, &talk, &mut raw, &mut frames).await;
    assert!(woken < AT_ONCE, "{woken:?} with a wake");
    wakes.set(Fates { loss: 1.0, ..Fates::default() });
    let unwoken = delivered_after(&mut alice, &talk, &mut raw, &mut frames).await;
    assert_eq!(wakes.counts(), (1, 0, 0), "one wake was lost");
    let most = Duration::from_millis(REREAD_MS) + AT_ONCE;
    assert!(unwoken > 10 * AT_ONCE && unwoken < most, "{unwoken:?} without one");
    // And again, after a look that found something.
    let unwoken = delivered_after(&mut alice, &talk, &mut raw, &mut frames).await;
    assert!(unwoken > 10 * AT_ONCE && unwoken < most, "{unwoken:?} without one, the second time");
}
