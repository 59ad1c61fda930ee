//! A simulated person: a device with the real client library, which comes, goes, talks and crashes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gureum_client::vault::{HistoryItem, KeySource, StoredEvent};
use gureum_client::{
    Client, ClientError, ClientEvent, ClientSession, Ground, Inbox, NewAccount, SessionCommands, SessionOptions,
    Sockets, Work,
};
use gureum_proto::{Handle, ServerUrl};
use gureum_server::time::WallClock;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::clock::SimClock;
use super::journal::Journal;
use super::model::Model;
use super::net::SimNet;
use super::sabotage::Sabotage;

/// Rows of a history that are compared; runs stay far below.
const HISTORY_MAX: u32 = 100_000;
/// Events taken at once.
const EVENTS_MAX: usize = 500;

/// A person with one device.
#[derive(Debug)]
pub struct Person {
    index: usize,
    handle: Handle,
    home: PathBuf,
    address: IpAddr,
    parts: Parts,
    online: Option<Online>,
    is_registered: bool,
    texts: u64,
}

/// What everybody shares.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Where events go.
    pub journal: Journal,
    /// The network.
    pub net: SimNet,
    /// The time of day on clients.
    pub clock: SimClock,
    /// What must hold.
    pub model: Model,
    /// A bug that clients have.
    pub sabotage: Option<Sabotage>,
}

/// A running client.
#[derive(Debug)]
struct Online {
    client: Client,
    commands: SessionCommands,
    end: oneshot::Sender<Leave>,
    listener: JoinHandle<()>,
    is_in_step: Arc<AtomicBool>,
}

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// In order.
    Closed,
    /// Where it stands.
    Crashed,
}

impl Person {
    /// A person without an account.
    #[must_use]
    pub fn new(index: usize, homes: &Path, parts: Parts) -> Self {
        let name = format!("person{index}");
        let last = u8::try_from(index + 10).expect("few people");
        Self {
            index,
            handle: name.parse().expect("a handle"),
            home: homes.join(name),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 1, last)),
            parts,
            online: None,
            is_registered: false,
            texts: 0,
        }
    }

    /// Under which name the others reach this one.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where the person is.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether there is an account.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.is_registered
    }

    /// Whether the client runs.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        self.online.is_some()
    }

    /// Whether the client has said that it is in step, on the connection that it has.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.online.as_ref().is_some_and(|online| online.is_in_step.load(Ordering::Relaxed))
    }

    fn ground(&self) -> Ground {
        let clock = self.parts.clock.clone();
        Ground {
            sockets: Arc::new(SimSockets { net: self.parts.net.clone(), address: self.address }),
            work: Work::Inline,
            clock: Arc::new(move || clock.wall_ms()),
        }
    }

    /// Tries once to make an account.
    pub async fn register(&mut self, invite: ServerUrl) {
        let account = NewAccount { invite, handle: self.handle(), device_name: "phone".to_owned() };
        match Client::register_on(self.ground(), &self.home, KeySource::File, account).await {
            Ok(registration) => self.is_registered_as(&registration.client),
            // It was registered, and the answer got lost with the process.
            Err(ClientError::Open(_)) if self.home.exists() => {
                match Client::open_on(self.ground(), &self.home, KeySource::File).await {
                    Ok(client) => self.is_registered_as(&client),
                    Err(error) => self.parts.journal.violate("a home stays usable", error.to_string()),
                }
            }
            Err(error) => self.note(&format!("is not registered: {error}")),
        }
        self.parts.net.unplug(self.address);
    }

    fn is_registered_as(&mut self, client: &Client) {
        self.is_registered = true;
        self.parts.model.registered(self.index, client.identity().account);
        self.note("is registered");
    }

    /// Starts the client, if it does not run.
    pub async fn come(&mut self) {
        if self.is_online() || !self.is_registered {
            return;
        }
        if let Some(bug) = self.parts.sabotage {
            bug.before_start(&self.home);
        }
        let opened = Client::open_on(self.ground(), &self.home, KeySource::File).await;
        let session = opened.and_then(|client| {
            let session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: true })?;
            Ok((client, session))
        });
        let (client, session) = match session {
            Ok(opened) => opened,
            Err(error) => return self.parts.journal.violate("a home stays usable", error.to_string()),
        };
        self.note("comes");
        self.parts.model.comes(self.index);
        let (end, ended) = oneshot::channel();
        let is_in_step = Arc::new(AtomicBool::new(false));
        let commands = session.commands();
        let listener = Listener {
            index: self.index,
            parts: self.parts.clone(),
            client: client.clone(),
            is_in_step: Arc::clone(&is_in_step),
        };
        let listener = tokio::spawn(listener.run(session, ended));
        self.online = Some(Online { client, commands, end, listener, is_in_step });
    }

    /// Ends the client, if it runs.
    pub async fn leave(&mut self, how: Leave) {
        let Some(Online { client, commands, end, listener, .. }) = self.online.take() else { return };
        self.note(&format!("leaves: {how:?}"));
        drop(commands);
        if how == Leave::Crashed {
            self.parts.net.unplug(self.address);
        }
        let _ = end.send(how);
        if let Err(error) = listener.await {
            self.parts.journal.violate("nothing panics", error.to_string());
        }
        drop(client);
        self.parts.net.unplug(self.address);
        if let Some(bug) = self.parts.sabotage.filter(|_| how == Leave::Crashed) {
            bug.after_crash(&self.home);
        }
    }

    /// Hands a text to the client; what becomes of it goes to the model.
    pub fn say(&mut self, to: (usize, Handle), bytes: usize) {
        let Some(online) = &self.online else { return };
        self.texts += 1;
        let text = format!("{}-{} {}", self.index, self.texts, "x".repeat(bytes));
        let (model, commands) = (self.parts.model.clone(), online.commands.clone());
        let sabotage = self.parts.sabotage;
        model.hands_over(&text, self.index, to.0);
        // A weak hold would be better: the session lasts as long as its commands, so this one is dropped at once.
        tokio::spawn(async move {
            let pending = commands.hand_over(to.1, text.clone()).await;
            drop(commands);
            let result = match pending {
                Ok(pending) => pending.result().await,
                Err(error) => Err(error),
            };
            let result = match sabotage {
                Some(bug) => bug.answered(result),
                None => result,
            };
            match result {
                Ok(sent) => model.acked(&text, &sent),
                Err(ClientError::Kept(_)) => model.kept(&text),
                // The client is gone, and what it has done with the text shows when it comes again.
                Err(ClientError::Ended) => {}
                Err(error) => model.refused(&text, error.to_string()),
            }
        });
    }

    /// The whole history, while the client runs.
    pub async fn history(&self) -> Option<Vec<HistoryItem>> {
        let client = &self.online.as_ref()?.client;
        match client.history(None, HISTORY_MAX).await {
            Ok(history) => Some(history),
            Err(error) => {
                self.parts.journal.violate("a history can be read", error.to_string());
                None
            }
        }
    }

    fn note(&self, what: &str) {
        self.parts.journal.note(format!("{}: {what}", self.handle));
    }
}

/// Hears what a session tells.
struct Listener {
    index: usize,
    parts: Parts,
    client: Client,
    is_in_step: Arc<AtomicBool>,
}

impl Listener {
    async fn run(self, mut session: ClientSession, mut ended: oneshot::Receiver<Leave>) {
        loop {
            let event = tokio::select! {
                biased;
                how = &mut ended => {
                    return match how {
                        Ok(Leave::Closed) => session.close().await,
                        _ => session.abort().await,
                    };
                }
                event = session.next() => event,
            };
            match event {
                Some(ClientEvent::News) => self.take_news().await,
                Some(ClientEvent::Connected) => self.is_in_step.store(false, Ordering::Relaxed),
                Some(ClientEvent::CaughtUp) => {
                    self.is_in_step.store(true, Ordering::Relaxed);
                    self.take_news().await;
                }
                Some(ClientEvent::Sent(_) | ClientEvent::Typing { .. }) => {}
                Some(ClientEvent::Disconnected { error, .. }) => {
                    self.is_in_step.store(false, Ordering::Relaxed);
                    self.note(&format!("lost its connection: {error}"));
                }
                Some(ClientEvent::Stopped(error)) => {
                    self.parts.journal.violate("a session goes on", format!("person {}: {error}", self.index));
                }
                None => {
                    // Nothing more comes; the end is told by whoever started this.
                    let _ = ended.await;
                    return;
                }
            }
        }
    }

    async fn take_news(&self) {
        loop {
            let stored = match self.client.unreported_events(EVENTS_MAX).await {
                Ok(stored) => stored,
                Err(error) => return self.parts.journal.violate("events can be read", error.to_string()),
            };
            if stored.is_empty() {
                return;
            }
            self.note(&format!("hears {} events", stored.len()));
            stored.iter().for_each(|event| self.tell(event));
            let ids = stored.iter().map(|event| event.id).collect();
            if let Err(error) = self.client.mark_reported(ids).await {
                return self.parts.journal.violate("events can be marked", error.to_string());
            }
        }
    }

    fn tell(&self, event: &StoredEvent) {
        match self.parts.sabotage {
            Some(bug) => bug.told(event).iter().for_each(|told| self.parts.model.told(self.index, told)),
            None => self.parts.model.told(self.index, event),
        }
    }

    fn note(&self, what: &str) {
        self.parts.journal.note(format!("person{}: {what}", self.index));
    }
}

/// The simulated network, as a client reaches it.
#[derive(Debug)]
struct SimSockets {
    net: SimNet,
    address: IpAddr,
}

impl Sockets for SimSockets {
    fn endpoint(&self, _remote: SocketAddr) -> io::Result<Endpoint> {
        let socket = self.net.bind(SocketAddr::new(self.address, 0));
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
    }
}
