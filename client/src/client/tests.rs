//! A client on one thread and a clock of the test's making: what a simulation stands on.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod behind;
mod confined;
mod leaving;
mod looked_up;
mod moved;
mod noticed;
mod people;
mod phone;
mod push;
mod refused;
mod unlisted;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use gureum_proto::Registered;
use tokio::time::Instant;

use super::*;
use crate::ground::Work;
use crate::link::Sockets;
use crate::vault::NewProfile;

/// A network that does not work.
#[derive(Debug)]
struct NoNetwork;

impl Sockets for NoNetwork {
    fn endpoint(&self, remote: SocketAddr) -> io::Result<quinn::Endpoint> {
        Err(io::Error::new(io::ErrorKind::NetworkDown, format!("no way to {remote}")))
    }
}

/// Where a day takes no time: the clock follows tokio's, which stands still while there is something to do.
fn ground() -> Ground {
    let start = Instant::now();
    let now_ms = move || 1_700_000_000_000 + u64::try_from(start.elapsed().as_millis()).unwrap();
    Ground { sockets: Arc::new(NoNetwork), work: Work::Inline, clock: Arc::new(now_ms) }
}

/// A home with an account that some server is said to have made.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let server = "gureum://192.0.2.1:4433".parse().unwrap();
    let profile = NewProfile { server, device_name: "laptop".to_owned() };
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &profile).unwrap();
    let registered = Registered { account: vault.identity().account, device: vault.identity().device };
    vault.registered(&"alice".parse().unwrap(), registered).unwrap();
    home
}

const TAKE: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: true };

#[tokio::test(start_paused = true)]
async fn a_day_without_a_network_passes_at_once_and_is_all_attempts_to_connect() {
    let (home, started, began) = (home(), Instant::now(), std::time::Instant::now());
    let client = Client::open_on(ground(), home.path(), KeySource::File).await.unwrap();
    let mut session = client.session(TAKE).unwrap();
    let mut attempts = 0;
    while started.elapsed() < Duration::from_secs(24 * 3600) {
        let Some(ClientEvent::Disconnected { error, retry_in }) = session.next().await else { panic!("no attempt") };
        assert!(error.to_string().contains("no way to 192.0.2.1:4433"), "{error}");
        assert!(retry_in <= Duration::from_secs(30), "{retry_in:?}");
        attempts += 1;
    }
    assert!(attempts >= 24 * 3600 / 30, "{attempts} attempts");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_aborted_anywhere_leaves_its_home_free_at_once() {
    let home = home();
    for after_ms in (0..1_000).step_by(50) {
        let client = Client::open_on(ground(), home.path(), KeySource::File).await.unwrap();
        let session = client.session(TAKE).unwrap();
        assert!(matches!(client.session(TAKE), Err(ClientError::Receiving(_))));
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        session.abort().await;
        client.session(TAKE).unwrap().abort().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_has_had_its_work_done_wholly_or_not_at_all() {
    let home = home();
    let client = Client::open_on(ground(), home.path(), KeySource::File).await.unwrap();
    let mut done = Vec::new();
    for polls in 0..4 {
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        let mut call = std::pin::pin!(client.vault.run(move |_| counted.fetch_add(1, Ordering::Relaxed)));
        let mut is_heard = false;
        for _ in 0..polls {
            is_heard = is_heard || is_ready(&mut call).await;
        }
        done.push((times.load(Ordering::Relaxed), is_heard));
    }
    assert_eq!(done, [(0, false), (0, false), (1, false), (1, true)]);
}

/// Polls once, and says whether that was the end.
async fn is_ready<F: Future>(future: &mut Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
