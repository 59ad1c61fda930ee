//! An HTTPS server on this machine: it speaks one protocol, or fails as a test tells it to, request by request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::tls::Authority;
use crate::wait::{SOON, eventually};

/// What a service does with a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// What its protocol says.
    Accept,
    /// Answers this, whatever the request.
    Reply(Reply),
    /// Takes the request and never answers.
    Hang,
    /// Takes the request and closes the TCP connection.
    Reset,
    /// Shows, to the next connection, a certificate of an authority that nobody trusts. A request on a connection that
    /// stands already is reset, so that the next one is a connection of its own.
    WrongCertificate,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// An answer without headers of its own.
    #[must_use]
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Reply> for Act {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// A request that a service has taken.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The version of HTTP that it came by.
    pub version: Version,
    /// Its method.
    pub method: Method,
    /// Its path, without a query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The status of the answer; `None`: there was none.
    pub status: Option<u16>,
}

impl Seen {
    /// A header's value; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What a request is answered by a service that is well.
pub(super) type Protocol = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A running service. It ends when this is dropped.
pub struct Service {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    protocol: Protocol,
    right: Arc<ServerConfig>,
    wrong: Arc<ServerConfig>,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

struct Script {
    next: VecDeque<Act>,
    then: Act,
}

impl Service {
    /// Serves on a port of its own, to clients that trust the authority and speak one of these protocols (ALPN).
    pub(super) fn start(authority: &Authority, protocols: &[&str], protocol: Protocol) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            protocol,
            right: authority.server(protocols),
            wrong: Authority::new().server(protocols),
            script: Mutex::new(Script { next: VecDeque::new(), then: Act::Accept }),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, shared) => {}
                }
            });
        });
        Self { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it does with the next requests, one each, after what it has been told before.
    pub fn next<A: Into<Act>>(&self, acts: impl IntoIterator<Item = A>) {
        self.state.script.lock().unwrap().next.extend(acts.into_iter().map(Into::into));
    }

    /// What it does with every request for which it has been told nothing: at first it accepts them.
    pub fn always(&self, act: impl Into<Act>) {
        self.state.script.lock().unwrap().then = act.into();
    }

    /// Every request so far, in order of time.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The statuses that it has answered, in order of time; `None` where there was no answer.
    #[must_use]
    pub fn statuses(&self) -> Vec<Option<u16>> {
        self.state.seen.lock().unwrap().iter().map(|seen| seen.status).collect()
    }

    /// How many requests it has answered with success.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.statuses().iter().filter(|status| status.is_some_and(|status| (200..300).contains(&status))).count()
    }

    /// Waits until it has taken so many requests.
    ///
    /// # Panics
    /// If that takes too long.
    #[track_caller]
    #[must_use]
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually("requests", SOON, || Some(self.seen()).filter(|seen| seen.len() >= count))
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }

    /// How many connections it was asked for.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// Whether the connection that comes now is shown the wrong certificate.
    fn takes_wrong_certificate(&self) -> bool {
        let mut script = self.script.lock().unwrap();
        match script.next.front() {
            Some(Act::WrongCertificate) => script.next.pop_front().is_some(),
            Some(_) => false,
            None => matches!(script.then, Act::WrongCertificate),
        }
    }

    fn act(&self) -> Act {
        let mut script = self.script.lock().unwrap();
        match script.next.front() {
            Some(Act::WrongCertificate) => Act::Reset,
            Some(_) => script.next.pop_front().unwrap(),
            None => script.then.clone(),
        }
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let tls = if state.takes_wrong_certificate() { &state.wrong } else { &state.right };
    let Ok(stream) = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await else { return };
    let reset = Arc::new(Notify::new());
    let service = service_fn({
        let reset = Arc::clone(&reset);
        move |request| answer(request, Arc::clone(&state), Arc::clone(&reset))
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = reset.notified() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    reset: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let mut seen = Seen { version: head.version, method: head.method, path, headers: head.headers, body, status: None };
    let act = state.act();
    let reply = match act {
        Act::Accept => (state.protocol)(&seen),
        Act::Reply(reply) => reply,
        Act::Hang => {
            state.note(seen);
            return std::future::pending().await;
        }
        Act::Reset | Act::WrongCertificate => {
            state.note(seen);
            reset.notify_one();
            return std::future::pending().await;
        }
    };
    seen.status = Some(reply.status);
    state.note(seen);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Ok(response)
}
