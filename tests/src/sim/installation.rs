//! A device of a simulated person: a home with the real client library, which comes, goes, talks and crashes.

mod listener;
mod moves;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gureum_client::vault::{HistoryItem, KeySource, Target, Vault};
use gureum_client::{Client, ClientError, Ground, GroupCommand, Inbox, SessionCommands, SessionOptions, Sockets, Work};
use gureum_proto::DeviceId;
use gureum_server::time::WallClock;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};

use super::clock::SimClock;
use super::journal::Journal;
use super::model::{Model, To};
use super::net::SimNet;
use super::push::target_of;
use super::sabotage::Sabotage;
use listener::Listener;
pub(crate) use moves::copy_home;

/// Rows of a history that are compared; runs stay far below.
const HISTORY_MAX: u32 = 100_000;
/// Where homes keep their keys.
pub const KEY: KeySource = KeySource::File;

/// No translator forgets an address here, and at the pace of real networks most of a run would be keep-alives: 17,000
/// datagrams a day for each device that is connected.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a connection may be silent before it counts as lost.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Which device of which person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// The person's number, from 0.
    pub person: usize,
    /// The number of the device among the person's, from 0.
    pub device: usize,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "person{}/{}", self.person, self.device)
    }
}

impl Who {
    /// What the device is called by the others of its person.
    #[must_use]
    pub fn device_name(self) -> String {
        if self.device == 0 { "phone".to_owned() } else { format!("device {}", self.device) }
    }
}

/// How a device that comes in gets what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Not at all.
    Unknown,
    /// It asks for it.
    AskedFor,
    /// Whoever approves of it hands it over unasked.
    HandedOver,
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

/// How far a device has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No account has it yet.
    New,
    /// It is one of its account's.
    Linked,
    /// It was lost, and its account is about to come back without it.
    Lost,
    /// Its account has revoked it.
    Revoked,
    /// It will not be one of its account's.
    GivenUp,
}

/// A device.
#[derive(Debug)]
pub struct Installation {
    who: Who,
    home: PathBuf,
    address: IpAddr,
    parts: Parts,
    state: State,
    past: Past,
    device: Option<DeviceId>,
    /// Its home says where it is woken.
    has_target: bool,
    online: Option<Online>,
}

/// A running client.
#[derive(Debug)]
struct Online {
    client: Client,
    commands: SessionCommands,
    end: oneshot::Sender<Leave>,
    listener: JoinHandle<()>,
    flags: Arc<Flags>,
    /// Who reads holds the session's commands until the receipts for it are sent, and who changes a group until that is
    /// done.
    waiting: Vec<AbortHandle>,
}

/// What a session has said of itself.
#[derive(Debug, Default)]
struct Flags {
    is_in_step: AtomicBool,
    has_stopped: AtomicBool,
}

impl Online {
    fn wait_for(&mut self, task: AbortHandle) {
        self.waiting.retain(|waiting| !waiting.is_finished());
        self.waiting.push(task);
    }
}

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// In order.
    Closed,
    /// Where it stands.
    Crashed,
}

impl Installation {
    /// A device without an account, which has a home of its own below `homes`.
    pub(super) fn new(who: Who, homes: &Path, parts: Parts) -> Self {
        let [subnet, host] = [who.device + 1, who.person + 10].map(|part| u8::try_from(part).expect("few devices"));
        Self {
            who,
            home: homes.join(format!("person{}-{}", who.person, who.device)),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, subnet, host)),
            parts,
            state: State::New,
            past: Past::Unknown,
            device: None,
            has_target: false,
            online: None,
        }
    }

    /// Which device of which person it is.
    #[must_use]
    pub const fn who(&self) -> Who {
        self.who
    }

    /// Where the device is.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The directory with what the device keeps.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Whether another device of its person calls it so: by its name, or by its id as long as that one knows no name.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.who.device_name() == name || self.device.is_some_and(|device| device.to_string() == name)
    }

    /// Its id, once its account has it.
    #[must_use]
    pub const fn device(&self) -> Option<DeviceId> {
        self.device
    }

    /// Whether no account has it yet, and one may.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state == State::New
    }

    /// How it gets what was said before it comes in.
    #[must_use]
    pub const fn past(&self) -> Past {
        self.past
    }

    /// Decides that, before it is linked.
    pub const fn is_to_have(&mut self, past: Past) {
        self.past = past;
    }

    /// Whether it is one of its account's, and its person has it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.state == State::Linked
    }

    /// Whether its account has had it and has it no more.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.state == State::Revoked
    }

    /// Whether its person can write on it now.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.is_in_use() && self.online.is_some()
    }

    /// Whether its client runs, whoever may use it.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.online.is_some()
    }

    /// Whether the client has said that it is in step, on the connection that it has.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.online.as_ref().is_some_and(|online| online.flags.is_in_step.load(Ordering::Relaxed))
    }

    /// Whether the client has said that it will not connect again.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.online.as_ref().is_some_and(|online| online.flags.has_stopped.load(Ordering::Relaxed))
    }

    /// Its client, while it runs.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.online.as_ref().map(|online| online.client.clone())
    }

    pub(super) fn ground(&self) -> Ground {
        let clock = self.parts.clock.clone();
        Ground {
            sockets: Arc::new(SimSockets { net: self.parts.net.clone(), address: self.address }),
            work: Work::Inline,
            clock: Arc::new(move || clock.wall_ms()),
        }
    }

    /// Takes its place in the network away.
    pub(super) fn unplug(&self) {
        self.parts.net.unplug(self.address);
    }

    /// The account has it.
    pub(super) fn is_linked_as(&mut self, client: &Client) {
        let identity = client.identity();
        self.state = State::Linked;
        self.device = Some(identity.device);
        self.parts.model.linked(self.who, identity.account, identity.device);
        self.note("is one of its account's");
    }

    /// The account may have it, and the word of it got lost: the home knows.
    pub(super) async fn open_linked(&mut self) -> bool {
        match Client::open_on(self.ground(), &self.home, KEY).await {
            Ok(client) => self.is_linked_as(&client),
            Err(error) => self.parts.journal.violate("a home stays usable", error.to_string()),
        }
        self.is_in_use()
    }

    /// Starts the client, if it does not run and there is an account for it; that of a revoked device as well, which is
    /// to be refused.
    pub async fn come(&mut self) {
        if self.runs() || !matches!(self.state, State::Linked | State::Revoked) {
            return;
        }
        if let Some(bug) = self.parts.sabotage {
            bug.before_start(&self.home);
        }
        self.want_wakes();
        let opened = Client::open_on(self.ground(), &self.home, KEY).await;
        let session = opened.and_then(|client| {
            let session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: true })?;
            Ok((client, session))
        });
        let (client, session) = match session {
            Ok(opened) => opened,
            Err(error) => return self.parts.journal.violate("a home stays usable", error.to_string()),
        };
        self.note("comes");
        self.parts.model.comes(self.who);
        let (end, ended) = oneshot::channel();
        let flags = Arc::new(Flags::default());
        let commands = session.commands();
        let listener =
            Listener { who: self.who, parts: self.parts.clone(), client: client.clone(), flags: Arc::clone(&flags) };
        let listener = tokio::spawn(listener.run(session, ended));
        self.online = Some(Online { client, commands, end, listener, flags, waiting: Vec::new() });
    }

    /// Has its home say where it is woken, once; its sessions tell the server.
    fn want_wakes(&mut self) {
        if self.has_target {
            return;
        }
        let set = || -> Result<(), String> {
            let mut vault = Vault::open(&self.home, &KEY).map_err(|error| error.to_string())?;
            vault.set_push_target(Some(&target_of(self.who))).map_err(|error| error.to_string())
        };
        match set() {
            Ok(()) => self.has_target = true,
            Err(error) => self.parts.journal.violate("a home stays usable", error),
        }
    }

    /// Ends the client, if it runs.
    pub async fn leave(&mut self, how: Leave) {
        let Some(Online { client, commands, end, listener, waiting, .. }) = self.online.take() else { return };
        self.note(&format!("leaves: {how:?}"));
        waiting.iter().for_each(AbortHandle::abort);
        drop(commands);
        if how == Leave::Crashed {
            self.unplug();
        }
        let _ = end.send(how);
        if let Err(error) = listener.await {
            self.parts.journal.violate("nothing panics", error.to_string());
        }
        drop(client);
        self.unplug();
        if let Some(bug) = self.parts.sabotage.filter(|_| how == Leave::Crashed) {
            bug.after_crash(&self.home);
        }
    }

    /// Hands a text to the client; what becomes of it goes to the model.
    pub fn say(&self, to: (To, Target), text: String) {
        let Some(online) = &self.online else { return };
        let (model, commands) = (self.parts.model.clone(), online.commands.clone());
        let sabotage = self.parts.sabotage;
        model.hands_over(&text, self.who, to.0);
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

    /// Reads everything that has come of somebody, or in a group; how far that was goes to the model.
    pub fn read(&mut self, with: impl Into<Target>) {
        let with = with.into();
        let Some(online) = &mut self.online else { return };
        let (model, commands) = (self.parts.model.clone(), online.commands.clone());
        let (who, life, sabotage) = (self.who, model.life(self.who), self.parts.sabotage);
        let reading = tokio::spawn(async move {
            let marked = commands.read(with).await;
            drop(commands);
            if let Ok(mark) = marked {
                model.read(who, life, sabotage.map_or(mark, |bug| bug.marked(mark)));
            }
        });
        online.wait_for(reading.abort_handle());
    }

    /// Has the client change a group.
    pub fn change(&mut self, command: GroupCommand) {
        let Some(online) = &mut self.online else { return };
        let (commands, journal, who) = (online.commands.clone(), self.parts.journal.clone(), self.who);
        let changing = tokio::spawn(async move {
            let changed = commands.group(command).await;
            drop(commands);
            let what = match changed {
                Ok(answer) if answer.refused.is_none() && answer.failed.is_empty() => "has changed a group",
                Ok(_) => "has not changed all that it wanted of a group",
                Err(ClientError::ChangeKept(_)) => "keeps a change of a group",
                Err(_) => "does not change a group",
            };
            journal.note(format!("{who} {what}"));
        });
        online.wait_for(changing.abort_handle());
    }

    /// The whole history: of the running client, or else of the home.
    pub async fn history(&self) -> Option<Vec<HistoryItem>> {
        let history = match &self.online {
            Some(online) => online.client.history(None, HISTORY_MAX).await,
            None => match Client::open_on(self.ground(), &self.home, KEY).await {
                Ok(client) => client.history(None, HISTORY_MAX).await,
                Err(error) => Err(error),
            },
        };
        match history {
            Ok(history) => Some(match self.parts.sabotage {
                Some(bug) => bug.remembered(self.who, history),
                None => history,
            }),
            Err(error) => {
                self.parts.journal.violate("a history can be read", error.to_string());
                None
            }
        }
    }

    pub(super) fn note(&self, what: &str) {
        self.parts.journal.note(format!("{}: {what}", self.who));
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

    fn patience(&self) -> (Duration, Duration) {
        (KEEP_ALIVE, IDLE_TIMEOUT)
    }
}
