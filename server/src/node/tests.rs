//! A server on one thread, in virtual time and without a network: what a simulation stands on.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Duration, Instant};

use super::*;
use crate::config::Flags;
use crate::store::memory::MemoryStore;
use crate::time::load_last_known_ms;

/// Of virtual time; each round of maintenance in it writes a real file.
const HOUR: Duration = Duration::from_secs(3_600);

/// A socket to which nobody sends.
#[derive(Debug)]
struct Quiet;

#[derive(Debug)]
struct Writable;

impl AsyncUdpSocket for Quiet {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
        Ok(())
    }

    fn poll_recv(
        &self,
        _cx: &mut TaskContext<'_>,
        _bufs: &mut [io::IoSliceMut<'_>],
        _meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([10, 0, 0, 1], 4433)))
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The runtime's time, from a start.
struct Virtual(Instant);

impl WallClock for Virtual {
    fn wall_ms(&self) -> u64 {
        1_800_000_000_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        millis(self.0.elapsed())
    }
}

fn ground() -> Ground {
    Ground {
        wall: Arc::new(Virtual(Instant::now())),
        work: Work::inline(),
        socket: Some(Arc::new(Quiet)),
        store: Some(Box::new(|expiry| Ok(Arc::new(MemoryStore::new(expiry))))),
        wake: None,
        push: None,
        serves_admin: false,
    }
}

fn config(dir: &Path) -> Config {
    let env = |name: &str| (name == "GUREUM_DATA_DIR").then(|| dir.to_str().unwrap().to_owned());
    Config::load(&Flags::default(), env, |_| Err(io::Error::other("no file"))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_an_inline_server_passes_at_once_and_its_time_goes_with_it() {
    let (dir, began) = (tempfile::tempdir().unwrap(), std::time::Instant::now());
    let node = Node::start(config(dir.path()), ground()).await.unwrap();
    let start_ms = node.time().0;
    assert!(node.url().contains("10.0.0.1:4433"), "{}", node.url());
    assert_eq!(node.admin(), None);
    tokio::time::sleep(HOUR).await;
    assert_eq!(node.time().0, start_ms + millis(HOUR));
    let remembered_ms = load_last_known_ms(dir.path()).unwrap().unwrap();
    assert!(remembered_ms + 10_000 > start_ms + millis(HOUR), "the rounds of maintenance go by virtual time");
    assert_eq!(node.memory(), MemoryUse::default());
    assert!(node.metrics().contains("gureum_store_healthy 1"));
    let stop_ms = node.time().0;
    node.stop().await.unwrap();
    assert!(load_last_known_ms(dir.path()).unwrap().unwrap() >= stop_ms);
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// The store that a server opened, as long as anything holds it.
type Seen = Arc<std::sync::Mutex<Option<std::sync::Weak<dyn Store>>>>;

/// A store in memory, and whether anything holds it.
fn watched() -> (OpenStore, Seen) {
    let store = Seen::default();
    let seen = Arc::clone(&store);
    let open: OpenStore = Box::new(move |expiry| {
        let opened: Arc<dyn Store> = Arc::new(MemoryStore::new(expiry));
        *seen.lock().unwrap() = Some(Arc::downgrade(&opened));
        Ok(opened)
    });
    (open, store)
}

#[tokio::test]
async fn a_start_that_cannot_write_its_small_files_ends_before_anything_holds_the_store() {
    for (name, is_written_to) in
        [("clock", "clock.new"), ("server.json", "server.json.new"), ("invite.key", "invite.key")]
    {
        let dir = tempfile::tempdir().unwrap();
        // No file can be put where a directory is.
        std::fs::create_dir(dir.path().join(is_written_to)).unwrap();
        let (open, store) = watched();
        let ground = Ground { store: Some(open), work: Work::default(), ..ground() };
        let error = Node::start(config(dir.path()), ground).await.unwrap_err();
        let is_held = store.lock().unwrap().take().expect("it was opened").upgrade().is_some();
        assert!(!is_held, "{name}: the writer has begun: {error:#}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_dropped_writes_nothing_more_and_lets_go_of_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let (open, store) = watched();
    let node = Node::start(config(dir.path()), Ground { store: Some(open), ..ground() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let remembered_ms = load_last_known_ms(dir.path()).unwrap();
    drop(node);
    tokio::time::sleep(HOUR).await;
    assert_eq!(load_last_known_ms(dir.path()).unwrap(), remembered_ms);
    assert!(store.lock().unwrap().take().unwrap().upgrade().is_none(), "some task still holds the store");
}
