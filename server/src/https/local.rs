//! A plain HTTP server on this machine that answers as a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Writes this.
    Say(String),
    /// Nothing, until the other side gives up.
    Hang,
    /// Closes the connection.
    Reset,
}

/// An answer with its length.
pub(crate) fn say(status: u16, headers: &[(&str, &str)], body: &str) -> Act {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Act::Say(format!("HTTP/1.1 {status} As told\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    /// The value of a header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let values = self.head.lines().filter_map(|line| line.split_once(": "));
        values.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    acts: Mutex<VecDeque<Act>>,
    heard: Mutex<Vec<Heard>>,
    connections: AtomicUsize,
    given_up: Notify,
}

/// The server. It ends when this is dropped.
pub(crate) struct Local {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Local {
    /// Does these, one for each request, and answers 200 to all others.
    pub(crate) async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State { acts: Mutex::new(acts.into_iter().collect()), ..State::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/sms", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.state.heard.lock().expect("no panic").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until the other side has closed a connection on which nothing was said.
    pub(crate) async fn given_up(&self) {
        self.state.given_up.notified().await;
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    while let Some(heard) = read(&mut stream).await {
        state.heard.lock().expect("no panic").push(heard);
        let act = state.acts.lock().expect("no panic").pop_front();
        match act.unwrap_or_else(|| say(200, &[], "")) {
            Act::Say(text) => {
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Hang => {
                while stream.read_u8().await.is_ok() {}
                state.given_up.notify_one();
                return;
            }
            Act::Reset => return,
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Heard> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut heard = Heard { head: String::from_utf8(head).ok()?, body: Vec::new() };
    heard.body = vec![0; heard.header("content-length").parse().unwrap_or_default()];
    stream.read_exact(&mut heard.body).await.ok()?;
    Some(heard)
}
