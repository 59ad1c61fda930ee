//! A receiver of Web Push (RFC 8030): answers requests, and tells of those that are wake-ups by this device's server.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gureum_client::{Clock, PushReceiver, VapidError, WakeUp, check_vapid};
use http::header::{ALLOW, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time: a server needs one.
const CONNECTIONS_MAX: usize = 16;
/// How long a handshake may take, and how long a connection is open before it is asked to end.
const CONNECTION_OPEN: Duration = Duration::from_secs(10);
/// How long one that was asked to end may take over it.
const CONNECTION_END: Duration = Duration::from_secs(2);
/// After a connection that could not be accepted: there may be no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Requests of one connection at a time, in HTTP/2.
const STREAMS_MAX: u32 = 4;
/// Headers of one request.
const HEADER_BYTES_MAX: u16 = 16 * 1024;
/// The body of one request: what RFC 8030 §7.2 wants to be taken.
const BODY_BYTES_MAX: usize = 4 * 1024;

/// What answers requests.
pub(super) struct Receiver {
    keys: PushReceiver,
    server_key: [u8; 65],
    endpoint: String,
    clock: Clock,
    wakes: mpsc::Sender<WakeUp>,
    answered: AtomicU64,
}

/// A request that is no wake-up.
type Refusal = (StatusCode, String);
type BoxError = Box<dyn Error + Send + Sync>;

impl Receiver {
    pub(super) fn new(
        keys: PushReceiver,
        server_key: [u8; 65],
        endpoint: String,
        clock: Clock,
        wakes: mpsc::Sender<WakeUp>,
    ) -> Self {
        Self { keys, server_key, endpoint, clock, wakes, answered: AtomicU64::new(0) }
    }

    async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let refusal = match self.take(request).await {
            Ok(()) => return self.created(),
            Err(refusal) => refusal,
        };
        let (status, why) = refusal;
        // Anybody may knock: who does not know the path is not worth a line.
        if status == StatusCode::NOT_FOUND {
            tracing::debug!(%status, "a request was refused");
        } else {
            tracing::warn!(%status, %why, "a request was refused");
        }
        let mut response = Response::new(Full::from(format!("{why}\n")));
        *response.status_mut() = status;
        let told = match status {
            StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "vapid")),
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
            _ => None,
        };
        response.headers_mut().extend(told.map(|(name, value)| (name, HeaderValue::from_static(value))));
        response
    }

    /// It was handed over at once, so that nothing of it is kept for any time (RFC 8030 §5.2).
    fn created(&self) -> Response<Full<Bytes>> {
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert("ttl", HeaderValue::from_static("0"));
        if let Ok(location) = HeaderValue::try_from(format!("{}/{number}", self.endpoint)) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    /// Tells of the wake-up that a request is.
    async fn take<B>(&self, request: Request<B>) -> Result<(), Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        if head.uri.path().rsplit('/').next() != Some(self.keys.path()) {
            return Err((StatusCode::NOT_FOUND, "nobody receives here".to_owned()));
        }
        if head.method != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "wake-ups come by POST".to_owned()));
        }
        self.check_headers(&head.headers)?;
        let sealed = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
            let is_long = error.is::<LengthLimitError>();
            let status = if is_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            (status, format!("its body cannot be taken: {error}"))
        })?;
        let wake_up =
            self.keys.open(&sealed.to_bytes()).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        let told = self.wakes.try_send(wake_up);
        told.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many wake-ups at once".to_owned()))
    }

    fn check_headers(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let checked = check_vapid(text("authorization"), &self.server_key, &self.endpoint, (self.clock)());
        checked.map_err(|error| {
            let is_missing = error == VapidError::Missing;
            let status = if is_missing { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            (status, error.to_string())
        })?;
        if text("ttl").is_none_or(|ttl| ttl.parse::<u32>().is_err()) {
            return Err((StatusCode::BAD_REQUEST, "it has no TTL, or one that is no number of seconds".to_owned()));
        }
        if text("content-encoding") != Some("aes128gcm") {
            let why = "it is not encrypted by aes128gcm (RFC 8188)".to_owned();
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        Ok(())
    }
}

/// A receiver with its connections.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) receiver: Arc<Receiver>,
    pub(super) tls: Option<TlsAcceptor>,
    /// Where connections run.
    pub(super) tasks: TaskTracker,
    /// No more are taken, and those that are open end after the answers that they owe.
    pub(super) quit: CancellationToken,
}

impl Serving {
    pub(super) async fn serve(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some((stream, place)) = self.quit.run_until_cancelled(accept(&listener, &room)).await {
            let serving = self.clone();
            self.tasks.spawn(async move {
                if let Err(error) = serving.connection(stream).await {
                    tracing::debug!(%error, "a connection has broken");
                }
                drop(place);
            });
        }
    }

    async fn connection(&self, stream: TcpStream) -> Result<(), BoxError> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return self.speak(stream).await };
        let stream = tokio::time::timeout(CONNECTION_OPEN, tls.accept(stream)).await??;
        self.speak(stream).await
    }

    /// Answers in HTTP/1.1 or HTTP/2, whichever the other side speaks.
    async fn speak<S>(&self, stream: S) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(Tracked(self.tasks.clone()));
        builder.http1().timer(TokioTimer::new()).max_buf_size(usize::from(HEADER_BYTES_MAX));
        builder.http2().timer(TokioTimer::new()).max_header_list_size(u32::from(HEADER_BYTES_MAX));
        builder.http2().max_concurrent_streams(STREAMS_MAX);
        let receiver = Arc::clone(&self.receiver);
        let answer = service_fn(move |request: Request<Incoming>| {
            let receiver = Arc::clone(&receiver);
            async move { Ok::<_, Infallible>(receiver.answer(request).await) }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), answer));
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            _ = tokio::time::timeout(CONNECTION_OPEN, self.quit.cancelled()) => connection.as_mut().graceful_shutdown(),
        }
        tokio::time::timeout(CONNECTION_END, connection).await?
    }
}

/// The next connection, once there is room for it.
///
/// Cancel safety: a connection is returned or still waits to be accepted.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let place = Arc::clone(room).acquire_owned().await.expect("nobody closes the semaphore");
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Runs what a connection in HTTP/2 starts for each request.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests;
