//! One HTTPS client for whatever the server calls, push services and SMS gateways: bounded, and without redirects.

#[cfg(test)]
pub(crate) mod local;
mod names;
mod reach;
mod roots;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::limits::PUSH_CONNECTIONS_BYTES_MAX;
use crate::push::Failure;
pub(crate) use reach::Reach;
use reach::Resolver;
pub(crate) use roots::Roots;

/// The longest body of an answer. Those that anybody sends have some hundred bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest head of an answer.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// What the other side may have on the way to us in one stream of HTTP/2: an answer that is too long is noticed.
const STREAM_WINDOW_BYTES: u32 = 32 * 1024;

/// The same of a whole connection: the least that HTTP/2 begins with (RFC 9113 §6.9.2).
const CONNECTION_WINDOW_BYTES: u32 = 65_535;

/// What waits to be written in one stream; a request's body has at most 8 KiB.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Tasks of connections at which no more are kept for later requests. A connection has one or two. With those of the
/// requests that are under way this bounds both memory and descriptors, whatever number of hosts devices name.
const KEPT_TASKS_MAX: usize = 128;

/// What a connection takes that is kept: the buffers of TLS and HTTP, and their state.
const KEPT_BYTES: usize = 64 * 1024;

const _: () = assert!(KEPT_TASKS_MAX * KEPT_BYTES <= PUSH_CONNECTIONS_BYTES_MAX);

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// The same where nothing but HTTP/2 is spoken: Apple takes frequent connecting for an attack.
const IDLE_HTTP2: Duration = Duration::from_secs(60 * 60);

/// How long connecting to all addresses of a host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting may take in all, TLS included. Nobody else may set an end: a connection that was begun goes on for
/// itself when another one has served its request meanwhile.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// A connection of HTTP/2 that has been silent for this long is asked for a sign of life as soon as a request waits for
/// it, and given up after the same time: a connection that died in silence costs one attempt, not all to come.
const PING: Duration = Duration::from_secs(4);

type Unbounded = HttpsConnector<HttpConnector<Resolver>>;

/// Connects in bounded time.
#[derive(Clone)]
struct Connector(Unbounded);

impl Service<Uri> for Connector {
    type Response = <Unbounded as Service<Uri>>::Response;
    type Error = <Unbounded as Service<Uri>>::Error;
    type Future = <Unbounded as Service<Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(elapsed) => Err(elapsed.into()),
            }
        })
    }
}

/// An HTTPS client with roots of its own.
pub(crate) struct Https {
    /// Keeps its connections for later requests.
    keeping: Client<Connector, Full<Bytes>>,
    /// Closes each connection after its answer: for the time when enough are kept.
    single: Client<Connector, Full<Bytes>>,
    reach: Reach,
    connections: TaskTracker,
}

/// What the other side has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// How long it wants not to be asked again.
    pub(crate) retry_after_ms: Option<u64>,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Https {
    /// A client that trusts these roots and calls no one out of reach. With `http2_only` it speaks nothing else.
    ///
    /// The connections are tasks of `tasks`. Those that are kept end only with this value, so it has to be a tracker
    /// that nobody waits for while this value is held.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(
        roots: &Roots,
        reach: Reach,
        http2_only: bool,
        tasks: TaskTracker,
    ) -> Result<Self, rustls::Error> {
        let connections = TaskTracker::new();
        let connector = connector(roots, reach, http2_only)?;
        let mut builder = Client::builder(Executor { tasks, connections: connections.clone() });
        builder
            .http2_only(http2_only)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(if http2_only { IDLE_HTTP2 } else { IDLE })
            .pool_max_idle_per_host(1)
            // It would try again as often as it takes; once is enough, and is done below.
            .retry_canceled_requests(false)
            .http1_max_buf_size(HEAD_BYTES_MAX as usize)
            .http2_max_header_list_size(HEAD_BYTES_MAX)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_send_buf_size(SEND_BUFFER_BYTES)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING);
        let keeping = builder.build(connector.clone());
        let single = builder.pool_max_idle_per_host(0).build(connector);
        Ok(Self { keeping, single, reach, connections })
    }

    /// Whether this may be called at all, as far as its text says.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        self.reach.allows(uri)
    }

    /// Sends a request and takes its answer whole. It has no time limit of its own.
    ///
    /// Cancel safety: a request whose future is dropped is given up; whether the other side has heard it is not known.
    ///
    /// # Errors
    /// There is no answer, or one that is too long.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        if !self.allows(request.uri()) {
            return Err(Failure::Connect);
        }
        let client = if self.connections.len() < KEPT_TASKS_MAX { &self.keeping } else { &self.single };
        let mut response = client.request(request.clone()).await;
        if response.as_ref().is_err_and(|error| was_never_begun(error)) {
            response = client.request(request).await;
        }
        let response = response.map_err(|error| failure(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| failure(&*error))?;
        let retry_after_ms = retry_after_ms(&head.headers);
        Ok(Answer { status: head.status.as_u16(), retry_after_ms, body: body.to_bytes() })
    }
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Https").field("reach", &self.reach).finish_non_exhaustive()
    }
}

fn connector(roots: &Roots, reach: Reach, http2_only: bool) -> Result<Connector, rustls::Error> {
    // The protocols that are offered are set below: the builder takes a configuration without any.
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    let mut http = HttpConnector::new_with_resolver(Resolver::new(reach));
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = match reach {
        Reach::Public => builder.https_only(),
        Reach::Anywhere => builder.https_or_http(),
    };
    let builder = if http2_only { builder.enable_http2() } else { builder.enable_all_versions() };
    Ok(Connector(builder.wrap_connector(http)))
}

/// Runs the connections of one client, and counts them.
#[derive(Clone)]
struct Executor {
    tasks: TaskTracker,
    connections: TaskTracker,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        self.tasks.spawn(self.connections.track_future(connection));
    }
}

/// Whether the connection ended before a request on it was begun, as one does that has been idle: then nobody has heard
/// of the request.
fn was_never_begun(error: &(dyn Error + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>()).any(hyper::Error::is_canceled)
}

/// What has gone wrong, as far as the causes tell.
fn failure(error: &(dyn Error + 'static)) -> Failure {
    let mut found = Failure::Reset;
    for cause in causes(error) {
        if cause.is::<rustls::Error>() {
            return Failure::Tls;
        }
        if cause.is::<LengthLimitError>() {
            return Failure::Protocol;
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_timeout() {
                return Failure::Timeout;
            }
            if error.is_parse() {
                return Failure::Protocol;
            }
        }
        if cause.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
            found = Failure::Connect;
        }
    }
    found
}

/// An error and its causes, the innermost last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error = *error;
        // What an `io::Error` was made of is not among its sources.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

/// The wait that an answer asks for: in seconds, or until a date, which counts from the date of the answer, so that
/// nobody's clock need be right.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse::<u64>() {
        return Some(seconds.saturating_mul(1_000));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = httpdate::parse_http_date(text(DATE)?).ok()?;
    u64::try_from(until.duration_since(now).unwrap_or_default().as_millis()).ok()
}
