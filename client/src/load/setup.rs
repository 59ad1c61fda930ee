//! Accounts, conversations and connections, before the clock starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{Code, ConversationId, Handle, ServerUrl};
use rand::Rng;
use tempfile::TempDir;
use tokio::runtime::Handle as RuntimeHandle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::device::Device;
use super::sockets::LoadSockets;
use super::{LoadError, Progress, Tell, patience};
use crate::client::{Client, ClientError, GroupCommand, Inbox, NewAccount, SessionCommands, SessionOptions};
use crate::ground::{Ground, Work, system_clock};
use crate::limits::{
    LOAD_ADDS_AT_ONCE, LOAD_CONNECTIONS_PER_SOCKET, LOAD_LOOK_EVERY, LOAD_PATIENCE, LOAD_SET_UP_AT_ONCE,
};
use crate::link::{Dialer, Sockets};
use crate::vault::{Conversation, KeySource};

/// What every account of one load is made with.
#[derive(Debug)]
pub(super) struct SetUp {
    server: ServerUrl,
    ground: Ground,
    dialers: Vec<Arc<Dialer>>,
    /// In memory where there is one, since the disk is the server's.
    homes: TempDir,
    /// Begins the handles of this load: no other has taken them.
    run: String,
    accounts: usize,
}

/// A person of a load: a home, and a way to the server for whoever does without it.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) client: Client,
    pub(super) dialer: Arc<Dialer>,
}

impl Person {
    pub(super) fn handle(&self) -> Handle {
        self.client.identity().handle.clone()
    }
}

impl SetUp {
    /// Finds the server.
    pub(super) async fn begin(server: &ServerUrl, accounts: usize) -> Result<Self, LoadError> {
        let (sockets, dialers) = dialers(server, accounts)?;
        let ground = Ground { sockets, work: Work::Threads, clock: system_clock() };
        let homes = directory()?;
        let number: u32 = rand::rng().random();
        let run = format!("load-{number:08x}");
        let set_up = Self { server: server.clone(), ground, dialers, homes, run, accounts };
        patience::reach(set_up.dialer(0)).await?;
        Ok(set_up)
    }

    /// The dialer of a device: some share one, as those behind one address share a socket.
    pub(super) fn dialer(&self, index: usize) -> &Arc<Dialer> {
        self.dialers.get(index % self.dialers.len()).expect("a remainder is below its divisor")
    }

    /// Ways to the server for so many connections, by sockets of their own that nobody has used yet: whoever does first, has
    /// them in its runtime.
    pub(super) fn dialers_apart(&self, connections: usize) -> Result<Vec<Arc<Dialer>>, LoadError> {
        Ok(dialers(&self.server, connections)?.1)
    }

    /// Registers so many people with homes.
    pub(super) async fn people(&self, count: usize, receipts: bool, tell: Tell<'_>) -> Result<Vec<Person>, LoadError> {
        let person = |index: usize| {
            let (server, ground) = (self.server.clone(), self.ground.clone());
            let (name, homes) = (format!("{}-{index}", self.run), self.homes.path().to_owned());
            let dialer = Arc::clone(self.dialer(index));
            async move {
                let client = Box::pin(register(ground, &server, &name, &homes)).await?;
                if !receipts {
                    // What is measured are the messages that are asked for, and no others.
                    client.set_receipts(false).await?;
                }
                Ok(Person { client, dialer })
            }
        };
        let people = each(count, person, |done| tell(&Progress::SetUp { what: "accounts", done, of: count })).await;
        people.map_err(|error| self.failed(error))
    }

    /// Registers so many devices without homes.
    pub(super) async fn devices(&self, count: usize, tell: Tell<'_>) -> Result<Vec<Device>, LoadError> {
        let token = self.server.token.clone().map_or_else(Bytes::new, Bytes::from);
        let device = |index: usize| {
            let (dialer, token) = (Arc::clone(self.dialer(index)), token.clone());
            let handle = format!("{}-d{index}", self.run);
            async move { Box::pin(Device::register(dialer, token, handle)).await }
        };
        let devices = each(count, device, |done| tell(&Progress::SetUp { what: "devices", done, of: count })).await;
        devices.map_err(|error| self.failed(error))
    }

    /// Begins a conversation of two for each of these.
    pub(super) async fn conversations(
        &self,
        pairs: Vec<(Person, Handle)>,
        tell: Tell<'_>,
    ) -> Result<Vec<Conversation>, LoadError> {
        let count = pairs.len();
        let begin = |index: usize| {
            let pair = pairs.get(index).cloned();
            async move {
                let (person, with) = pair.ok_or(ClientError::Ended)?;
                patience::in_time(|| person.client.begin_conversation(&person.dialer, &with)).await
            }
        };
        let made = each(count, begin, |done| tell(&Progress::SetUp { what: "conversations", done, of: count })).await;
        Ok(made?)
    }

    /// Makes a group for each of these: who founds it, and who else is in it.
    pub(super) async fn groups(
        &self,
        groups: Vec<(Person, Vec<Handle>)>,
        tell: Tell<'_>,
    ) -> Result<Vec<Conversation>, LoadError> {
        let count = groups.len();
        let make = |index: usize| {
            let (cast, name) = (groups.get(index).cloned(), format!("{}-g{index}", self.run));
            async move {
                let (founder, members) = cast.ok_or(ClientError::Ended)?;
                Box::pin(group(&founder.client, name, members)).await
            }
        };
        let made = each(count, make, |done| tell(&Progress::SetUp { what: "groups", done, of: count })).await;
        Ok(made?)
    }

    /// The error of a registration, in terms of the load.
    fn failed(&self, error: ClientError) -> LoadError {
        match error.code() {
            Some(Code::InviteUsed | Code::InviteInvalid) => LoadError::Invite { accounts: self.accounts },
            _ => LoadError::Client(error),
        }
    }
}

/// Sockets, and a dialer for each.
type Dialers = (Arc<dyn Sockets>, Vec<Arc<Dialer>>);

/// Sockets for so many connections, some of which share one.
fn dialers(server: &ServerUrl, connections: usize) -> Result<Dialers, ClientError> {
    let count = connections.div_ceil(LOAD_CONNECTIONS_PER_SOCKET).max(1);
    let sockets: Arc<dyn Sockets> = Arc::new(LoadSockets::new(count));
    let address = ServerUrl { token: None, ..server.clone() };
    let dial = |_| Dialer::over(Arc::clone(&sockets), address.clone()).map(Arc::new);
    let dialers = (0..count).map(dial).collect::<Result<_, _>>()?;
    Ok((sockets, dialers))
}

fn directory() -> std::io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gureum-load-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir())
}

/// Makes so many things, some at a time; in order.
pub(super) async fn each<T, F>(
    count: usize,
    make: impl Fn(usize) -> F,
    told: impl FnMut(usize),
) -> Result<Vec<T>, ClientError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    each_on(&RuntimeHandle::current(), count, make, told).await
}

/// The same in another runtime.
pub(super) async fn each_on<T, F>(
    runtime: &RuntimeHandle,
    count: usize,
    make: impl Fn(usize) -> F,
    mut told: impl FnMut(usize),
) -> Result<Vec<T>, ClientError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let (mut pending, mut made, mut next) = (JoinSet::new(), BTreeMap::new(), 0);
    while made.len() < count {
        while next < count && pending.len() < LOAD_SET_UP_AT_ONCE {
            let making = make(next);
            let index = next;
            pending.spawn_on(async move { (index, making.await) }, runtime);
            next += 1;
        }
        match pending.join_next().await {
            Some(Ok((index, thing))) => {
                made.insert(index, thing?);
                told(made.len());
            }
            Some(Err(error)) => return Err(ClientError::Thread(error.to_string())),
            None => break,
        }
    }
    Ok(made.into_values().collect())
}

async fn register(ground: Ground, server: &ServerUrl, name: &str, homes: &Path) -> Result<Client, ClientError> {
    let handle: Handle = name.parse()?;
    let home = homes.join(name);
    let account = NewAccount { invite: server.clone(), handle, device_name: "load".to_owned() };
    let register = || Client::register_on(ground.clone(), &home, KeySource::File, account.clone());
    Ok(patience::in_time(|| Box::pin(register())).await?.client)
}

/// A group with all its members, and the state in which its founder is then.
async fn group(founder: &Client, name: String, members: Vec<Handle>) -> Result<Conversation, ClientError> {
    let mut session = patience::session(founder, SessionOptions { inbox: Inbox::Take, reconnect: false }).await?;
    let commands = session.commands();
    let id = Box::pin(session.finish(assemble(founder, &commands, name, members))).await;
    drop(commands);
    Box::pin(session.close()).await;
    let id = id?;
    let made = founder.resolve_group(&id.into()).await?;
    made.ok_or_else(|| ClientError::Stuck("a group that was made is not there".to_owned()))
}

async fn assemble(
    founder: &Client,
    commands: &SessionCommands,
    name: String,
    members: Vec<Handle>,
) -> Result<ConversationId, ClientError> {
    let mut parts = members.chunks(LOAD_ADDS_AT_ONCE);
    let first = parts.next().unwrap_or_default().to_vec();
    let create = GroupCommand::Create { name: name.clone(), who: first.clone() };
    let id = match commands.group(create).await {
        Ok(answer) => answer.conversation,
        Err(ClientError::ChangeKept(_)) => named(founder, &name).await?,
        Err(error) => return Err(error),
    };
    let mut wanted = 1 + first.len();
    until_in(founder, id, wanted).await?;
    for part in parts {
        let add = || commands.group(GroupCommand::Add { group: id.into(), who: part.to_vec() });
        match patience::in_time(add).await {
            Ok(_) | Err(ClientError::ChangeKept(_)) => (),
            Err(error) => return Err(error),
        }
        wanted += part.len();
        until_in(founder, id, wanted).await?;
    }
    Ok(id)
}

async fn named(founder: &Client, name: &str) -> Result<ConversationId, ClientError> {
    let groups = founder.groups().await?;
    let made = groups.into_iter().find(|group| group.name == name).map(|group| group.conversation);
    made.ok_or_else(|| ClientError::Stuck("a group that is kept is not there".to_owned()))
}

/// Waits until so many accounts are in a group: the session goes on by itself with those whom a quota holds up.
async fn until_in(founder: &Client, id: ConversationId, accounts: usize) -> Result<(), ClientError> {
    let give_up = Instant::now() + LOAD_PATIENCE;
    loop {
        let groups = founder.groups().await?;
        let people = groups.iter().find(|group| group.conversation == id).map_or(0, |group| group.people.len());
        if people >= accounts {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let why = format!("of {accounts} accounts only {people} came into a group; make smaller ones, or fewer");
            return Err(ClientError::Stuck(why));
        }
        tokio::time::sleep(LOAD_LOOK_EVERY).await;
    }
}
