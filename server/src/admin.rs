//! The admin listener: is the process up, is it ready, and what does it count.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::limits::{ADMIN_CONNECTION_MS_MAX, ADMIN_CONNECTIONS_MAX};
use crate::metrics::{Page, UPKEEP_PERIOD};

/// How long to wait when the system has no descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What must hold for the server to be ready, by name: each condition is in order or says why not.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    failing: Mutex<BTreeMap<Condition, String>>,
}

/// A condition of readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// The store can write.
    Store,
    /// The system clock is believed.
    Clock,
    /// The server has started, and is not about to stop.
    Serving,
}

impl Condition {
    const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Clock => "clock",
            Self::Serving => "serving",
        }
    }
}

impl Readiness {
    /// A condition fails, for this reason.
    pub(crate) fn fail(&self, condition: Condition, reason: impl Into<String>) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, reason.into());
    }

    /// A condition is in order.
    pub(crate) fn pass(&self, condition: Condition) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(&condition);
    }

    fn report(&self) -> (bool, serde_json::Value) {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons: BTreeMap<_, _> = failing.iter().map(|(condition, why)| (condition.name(), why)).collect();
        (failing.is_empty(), serde_json::json!({ "ready": failing.is_empty(), "reasons": reasons }))
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<Readiness>,
    metrics: Page,
}

/// Serves `/healthz`, `/readyz` and `/metrics` until `stop`, and keeps the metrics' samples from piling up.
///
/// Cancel safety: dropping it closes the listener and lets the answers under way go.
pub(crate) async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    metrics: Page,
    stop: CancellationToken,
) -> io::Result<()> {
    let life = Duration::from_millis(ADMIN_CONNECTION_MS_MAX);
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    serve_limited(Limited { listener, permits, life }, readiness, metrics, stop).await
}

async fn serve_limited(
    listener: Limited,
    readiness: Arc<Readiness>,
    metrics: Page,
    stop: CancellationToken,
) -> io::Result<()> {
    let upkeep = metrics.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Shared { readiness, metrics });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
    let upkeep = async {
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    };
    tokio::select! {
        result = serving => result,
        () = upkeep => Ok(()),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let (is_ready, report) = shared.readiness.report();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{report}\n")).into_response()
}

async fn render(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render()).into_response()
}

/// A listener that holds few connections, none of them for long.
struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    life: Duration,
}

impl Listener for Limited {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    /// Cancel safety: a connection that was accepted is in the value returned; a permit alone is given back.
    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let end = Instant::now() + self.life;
                    return (LimitedStream { stream, end: Box::pin(sleep_until(end)), _permit: permit }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its time is over.
struct LimitedStream {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl LimitedStream {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::metrics::Metrics;

    struct Server {
        address: SocketAddr,
        readiness: Arc<Readiness>,
        metrics: Metrics,
    }

    impl Server {
        async fn start(connections: usize, life: Duration) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let readiness = Arc::new(Readiness::default());
            let (metrics, handle) = Metrics::new();
            let limited = Limited { listener, permits: Arc::new(Semaphore::new(connections)), life };
            tokio::spawn(serve_limited(limited, Arc::clone(&readiness), handle, CancellationToken::new()));
            Self { address, readiness, metrics }
        }

        async fn get(&self, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_served() {
        let server = Server::start(4, Duration::from_secs(60)).await;
        assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(server.get("/other").await.starts_with("HTTP/1.1 404"));
        server.metrics.acks.increment(2);
        let metrics = server.get("/metrics").await;
        assert!(metrics.contains("\ngureum_acks_total 2\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_ready_says_why_and_turns_ready_again() {
        let server = Server::start(4, Duration::from_secs(60)).await;
        server.readiness.fail(Condition::Store, "disk full");
        server.readiness.fail(Condition::Clock, "held");
        let answer = server.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(r#"{"ready":false,"reasons":{"clock":"held","store":"disk full"}}"#), "{answer}");
        server.readiness.pass(Condition::Store);
        server.readiness.pass(Condition::Clock);
        let answer = server.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"{"ready":true,"reasons":{}}"#), "{answer}");
    }

    #[tokio::test]
    async fn who_says_nothing_makes_room_for_others() {
        let server = Server::start(1, Duration::from_millis(50)).await;
        let _silent = TcpStream::connect(server.address).await.unwrap();
        assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }
}
