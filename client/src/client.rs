//! Keeps a device in step with its server: the library's main entry.

mod account;
mod backoff;
mod devices;
mod driver;
mod error;
mod event;
mod life;
mod link;
mod people;
mod phone;
mod push;
mod receiver;
mod recover;
mod register;
mod session;
mod sync;
#[cfg(test)]
mod tests;
mod vault_handle;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gureum_proto::{AccountId, ConversationId, DeviceId, Handle, Ready};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use devices::{AddedDevice, Approval, Device};
pub use driver::{Inbox, SessionOptions};
pub use error::ClientError;
pub use event::ClientEvent;
pub use link::{LinkSession, LinkStep, NewDevice};
pub use phone::{NewPhone, Pin, PinError};
pub use register::{NewAccount, Registration};
pub use session::Revoked;
pub use sync::{GroupAnswer, GroupCommand};

use crate::ground::Ground;
use crate::limits::{CLIENT_EVENTS_MAX, CLOSE_TIMEOUT, COMMANDS_MAX};
use crate::link::{Dialer, Link, LinkEvents, Unproven};
use crate::vault::{
    Contact, Conversation, GroupView, HistoryItem, Identity, KeySource, ReadMark, Resolved, SentMessage, Settings,
    StoredEvent, Target, Vault, VaultError, With,
};
use driver::Driver;
use life::Proven;
use session::Command;
use sync::Sync;
use vault_handle::VaultHandle;

/// A home: an account's device on this machine.
#[derive(Debug, Clone)]
pub struct Client {
    ground: Ground,
    home: PathBuf,
    vault: VaultHandle,
    identity: Arc<Identity>,
    /// Wakes the sessions when a person has decided something for all their devices.
    decided: watch::Sender<()>,
}

impl Client {
    async fn first_connection(&self, unproven: Unproven) -> Result<(), ClientError> {
        let proven = life::prove(unproven, &self.vault, &self.identity, &self.home, false).await?;
        let Proven { link, ready, seen, .. } = proven;
        let sync = self.sync(link);
        let result = sync.begin_session(&ready, seen).await;
        sync.link.close().await;
        result.map(drop)
    }

    /// The first connection of a device that an account has just been given.
    async fn settle_in(&self, dialer: &Dialer) -> Result<(), ClientError> {
        self.first_connection(dialer.connect().await?).await
    }

    /// Begins the conversation with somebody ahead of the first message.
    pub(crate) async fn begin_conversation(&self, dialer: &Dialer, with: &Handle) -> Result<Conversation, ClientError> {
        let (link, _events, _ready) = self.link(dialer, false).await?;
        let sync = self.sync(link);
        let result = sync.conversation(&with.clone().into()).await;
        sync.link.close().await;
        result
    }

    /// A connection that has proven itself, for those who want no session on it.
    pub(crate) async fn link(
        &self,
        dialer: &Dialer,
        subscribe: bool,
    ) -> Result<(Link, LinkEvents, Ready), ClientError> {
        self.refuse_deleted().await?;
        let unproven = dialer.connect().await?;
        let proven = life::prove(unproven, &self.vault, &self.identity, &self.home, subscribe).await?;
        Ok((proven.link, proven.events, proven.ready))
    }

    fn dialer(&self) -> Result<Dialer, ClientError> {
        Ok(Dialer::over(Arc::clone(&self.ground.sockets), self.identity.server.clone())?)
    }

    fn sync(&self, link: Link) -> Sync {
        Sync::new(link, self.vault.clone(), Arc::clone(&self.identity))
    }

    /// Opens a home.
    ///
    /// # Errors
    /// There is none, or the key does not fit.
    pub async fn open(home: &Path, key: KeySource) -> Result<Self, ClientError> {
        Self::open_on(Ground::system(), home, key).await
    }

    /// As [`Self::open`], on any ground.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_on(ground: Ground, home: &Path, key: KeySource) -> Result<Self, ClientError> {
        let (clock, directory) = (Arc::clone(&ground.clock), home.to_owned());
        let vault = ground.work.run(move || Vault::open_by(clock, &directory, &key)).await??;
        let identity = vault.identity().clone();
        Self::new(ground, home, vault, identity)
    }

    fn new(ground: Ground, home: &Path, vault: Vault, identity: Identity) -> Result<Self, ClientError> {
        let vault = VaultHandle::start(vault, ground.work)?;
        let decided = watch::Sender::new(());
        Ok(Self { ground, home: home.to_owned(), vault, identity: Arc::new(identity), decided })
    }

    /// Forgets the recovery words, which a person has seen now. Until then [`Self::register`] shows them again: a
    /// process that ended too early must not cost an account its last resort.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recovery_words_shown(&self) -> Result<(), ClientError> {
        self.vault.call(Vault::recovery_words_shown).await
    }

    /// Who this device is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Starts a session. It ends when it and its commands are dropped, or with [`ClientEvent::Stopped`].
    ///
    /// # Errors
    /// Another process takes the inbox.
    pub fn session(&self, options: SessionOptions) -> Result<ClientSession, ClientError> {
        let lock = Driver::lock(&self.home, options.inbox)?;
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let (out, events) = mpsc::channel(CLIENT_EVENTS_MAX);
        let quit = CancellationToken::new();
        let driver = Driver {
            home: self.home.clone(),
            vault: self.vault.clone(),
            identity: Arc::clone(&self.identity),
            dialer: self.dialer()?,
            reconnect: options.reconnect,
            lock,
            out,
            decided: self.decided.subscribe(),
            quit: quit.clone(),
        };
        let task = TaskTracker::new();
        let abort = task.spawn(driver.run(queue)).abort_handle();
        task.close();
        Ok(ClientSession { commands: SessionCommands { commands }, events, task, abort, quit: quit.drop_guard() })
    }

    /// Events that nobody was told of yet, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unreported_events(&self, limit: usize) -> Result<Vec<StoredEvent>, ClientError> {
        self.vault.call(move |vault| vault.unreported_events(limit)).await
    }

    /// Those of [`Self::unreported_events`] that concern the conversation with an account, or a group, or all
    /// conversations.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unreported_events_with(
        &self,
        with: impl Into<With>,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, ClientError> {
        let with = with.into();
        self.vault.call(move |vault| vault.unreported_events_with(with, limit)).await
    }

    /// Events that somebody was told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn mark_reported(&self, ids: Vec<i64>) -> Result<(), ClientError> {
        self.vault.call(move |vault| vault.mark_reported(&ids)).await
    }

    /// The newest entries of the history, oldest first; with one account, of one group, or all.
    ///
    /// # Errors
    /// The database failed.
    pub async fn history(&self, with: Option<With>, limit: u32) -> Result<Vec<HistoryItem>, ClientError> {
        self.vault.call(move |vault| vault.history(with, limit)).await
    }

    /// An account known here.
    ///
    /// # Errors
    /// The database failed.
    pub async fn contact(&self, handle: &Handle) -> Result<Option<Contact>, ClientError> {
        let handle = handle.clone();
        self.vault.call(move |vault| vault.contact_by_handle(&handle)).await
    }

    /// What somebody's words stand for, as far as it is known here.
    ///
    /// # Errors
    /// Several groups are called that.
    pub async fn resolve(&self, target: &Target) -> Result<Resolved, ClientError> {
        let target = target.clone();
        self.vault.call(move |vault| vault.resolve(&target)).await
    }

    /// The group that somebody's words stand for where nothing but a group can be meant; an id may be that of a conversation
    /// of two.
    ///
    /// # Errors
    /// Several groups are called that.
    pub async fn resolve_group(&self, target: &Target) -> Result<Option<Conversation>, ClientError> {
        let target = target.clone();
        self.vault.call(move |vault| vault.resolve_group(&target)).await
    }

    /// What somebody's words stand for in the history alone: what another device has handed over may be of conversations
    /// that this one is not in.
    ///
    /// # Errors
    /// The database failed.
    pub async fn resolve_past(&self, target: &Target) -> Result<Option<With>, ClientError> {
        let target = target.clone();
        self.vault.call(move |vault| vault.resolve_past(&target)).await
    }

    /// The groups that are known here, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn groups(&self) -> Result<Vec<GroupView>, ClientError> {
        self.vault.call(Vault::groups).await
    }

    /// Whether a conversation with somebody is known here.
    ///
    /// # Errors
    /// The database failed.
    pub async fn has_conversation_with(&self, handle: &Handle) -> Result<bool, ClientError> {
        let handle = handle.clone();
        let known = move |vault: &mut Vault| match vault.contact_by_handle(&handle)? {
            Some(contact) => vault.conversation_with(contact.account),
            None => Ok(None),
        };
        Ok(self.vault.call(known).await?.is_some())
    }

    /// How many messages of others in a conversation the person has not read, on any device as far as this one knows.
    ///
    /// # Errors
    /// The database failed.
    pub async fn unread(&self, conversation: ConversationId) -> Result<u64, ClientError> {
        self.vault.call(move |vault| vault.unread(conversation)).await
    }

    /// What the person has decided, for all their devices.
    ///
    /// # Errors
    /// The database failed.
    pub async fn settings(&self) -> Result<Settings, ClientError> {
        self.vault.call(Vault::settings).await
    }

    /// Turns receipts on or off: both whether others are told what has come and what was read here, and whether their
    /// receipts are shown.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_receipts(&self, on: bool) -> Result<(), ClientError> {
        self.decide(move |vault| vault.set_receipts(on)).await
    }

    /// Turns typing indicators on or off: both whether others are told that this person types, and whether their typing
    /// is shown.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_typing(&self, on: bool) -> Result<(), ClientError> {
        self.decide(move |vault| vault.set_typing(on)).await
    }

    /// The sessions that run tell the other devices at once; without any, the next one does.
    async fn decide(
        &self,
        decision: impl FnOnce(&mut Vault) -> Result<(), VaultError> + Send + 'static,
    ) -> Result<(), ClientError> {
        self.vault.call(decision).await?;
        self.decided.send_replace(());
        Ok(())
    }

    /// The digits to compare with another person's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn safety_number(&self, account: AccountId) -> Result<String, ClientError> {
        self.vault.run(move |vault| vault.safety_number(account)).await
    }
}

/// A session: a connection that is kept, or not, as its options say.
#[derive(Debug)]
pub struct ClientSession {
    commands: SessionCommands,
    events: mpsc::Receiver<ClientEvent>,
    task: TaskTracker,
    abort: AbortHandle,
    quit: DropGuard,
}

/// What can be asked of a session, from anywhere.
#[derive(Debug, Clone)]
pub struct SessionCommands {
    commands: mpsc::Sender<Command>,
}

/// A message that was handed over.
#[derive(Debug)]
pub struct PendingSend {
    result: oneshot::Receiver<Result<SentMessage, ClientError>>,
}

impl PendingSend {
    /// Waits until the server has it on disk.
    ///
    /// # Errors
    /// As [`SessionCommands::send`].
    pub async fn result(self) -> Result<SentMessage, ClientError> {
        self.result.await.unwrap_or(Err(ClientError::Ended))
    }
}

impl ClientSession {
    /// The next event; `None` after [`ClientEvent::Stopped`].
    ///
    /// Cancel safety: an event is either returned or still queued.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        self.events.recv().await
    }

    /// A handle for commands. The session lasts as long as any of them.
    #[must_use]
    pub fn commands(&self) -> SessionCommands {
        self.commands.clone()
    }

    /// Runs a command to its end, and gives the error that stopped the session where that is why it failed.
    /// Events that come meanwhile are dropped.
    ///
    /// # Errors
    /// As the command's.
    pub async fn finish<T>(&mut self, command: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        tokio::pin!(command);
        let mut stopped = None;
        loop {
            tokio::select! {
                biased;
                result = &mut command => return match (result, stopped) {
                    (Err(ClientError::Ended), Some(error)) => Err(error),
                    (Err(ClientError::Ended), None) => Err(self.why_stopped()),
                    (result, _) => result,
                },
                event = self.events.recv(), if stopped.is_none() => {
                    stopped = Some(match event {
                        Some(ClientEvent::Stopped(error)) => error,
                        Some(_) => continue,
                        None => ClientError::Ended,
                    });
                }
            }
        }
    }

    fn why_stopped(&mut self) -> ClientError {
        while let Ok(event) = self.events.try_recv() {
            if let ClientEvent::Stopped(error) = event {
                return error;
            }
        }
        ClientError::Ended
    }

    /// Ends the session: what is written arrives, the rest is kept.
    pub async fn close(self) {
        let Self { commands, mut events, task, quit, .. } = self;
        drop((commands, quit));
        let drained = async { while events.recv().await.is_some() {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT * 4, async { tokio::join!(drained, task.wait()) }).await;
    }

    /// Ends the session where it stands, as a crash would, and returns when nothing is left of it: neither the inbox's
    /// lock nor a hold on the database.
    pub async fn abort(self) {
        self.abort.abort();
        self.task.wait().await;
    }
}

impl SessionCommands {
    /// Sends a text and waits until the server has it on disk.
    ///
    /// # Errors
    /// [`ClientError::Kept`] when the answer is missing: the message is in the outbox and goes out by itself. After any
    /// other error it was not sent and will not be; [`ClientError::is_gone_back`] then tells that a person must decide.
    pub async fn send(&self, to: impl Into<Target>, text: String) -> Result<SentMessage, ClientError> {
        self.hand_over(to, text).await?.result().await
    }

    /// Hands a text over; messages go out in the order in which they were handed over.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn hand_over(&self, to: impl Into<Target>, text: String) -> Result<PendingSend, ClientError> {
        let (reply, result) = oneshot::channel();
        let command = Command::Send { to: to.into(), text, reply };
        self.commands.send(command).await.map_err(|_| ClientError::Ended)?;
        Ok(PendingSend { result })
    }

    /// Goes on from where the server has gone back to in the conversation with somebody (see
    /// [`crate::vault::Event::GoneBack`]): **only when a person has decided so**, because it gives up the protection that
    /// newer keys gave. What the inbox holds is taken first, since nothing older is readable afterwards. Returns whether
    /// there was anything to do.
    ///
    /// # Errors
    /// There is no such conversation, the session takes no inbox, or the server's state does not hold.
    pub async fn restart(&self, with: impl Into<Target>) -> Result<bool, ClientError> {
        let (with, (reply, result)) = (with.into(), oneshot::channel());
        self.commands.send(Command::Restart { with, reply }).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }

    /// Revokes a device of this account: from that moment on it is cut off and can read nothing new, and this device
    /// removes it from the conversations. Of itself it can do the first alone.
    ///
    /// # Errors
    /// The account has no such device, or no other one.
    pub async fn revoke(&self, device: DeviceId) -> Result<Revoked, ClientError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(Command::Revoke { device, reply }).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }

    /// Notes that a person has read everything that has come of somebody, or in a group, and tells who wrote it. Returns
    /// when the server has that on disk; what cannot be sent goes out by itself on the next connection.
    ///
    /// # Errors
    /// There is no conversation with them here, or the session has ended before it was noted.
    pub async fn read(&self, with: impl Into<Target>) -> Result<ReadMark, ClientError> {
        let (with, (reply, result)) = (with.into(), oneshot::channel());
        let command = Command::Read { with, reply: Some(reply) };
        self.commands.send(command).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }

    /// As [`Self::read`], for whoever reads on: waits for nothing, and what is read soon after is told together. Returns
    /// whether it was taken, which a session does not do that has too much to do or has ended: the next one makes up for it.
    #[must_use]
    pub fn note_read(&self, with: impl Into<Target>) -> bool {
        self.commands.try_send(Command::Read { with: with.into(), reply: None }).is_ok()
    }

    /// Makes a group or changes one, and waits until the server has accepted it. What cannot be done for one person is
    /// said in the answer, and holds up nothing else.
    ///
    /// # Errors
    /// [`ClientError::ChangeKept`] when it is not done yet: it is kept, and done on the next connection. After any other
    /// error nothing was changed and nothing will be.
    pub async fn group(&self, command: GroupCommand) -> Result<GroupAnswer, ClientError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(Command::Group { command, reply }).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }

    /// What somebody's words stand for, here or on the server.
    ///
    /// # Errors
    /// Several things are called that, nobody has the handle, or its log does not hold.
    pub async fn resolve(&self, target: impl Into<Target>) -> Result<Resolved, ClientError> {
        let (target, (reply, result)) = (target.into(), oneshot::channel());
        self.commands.send(Command::Resolve { target, reply }).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }

    /// Says to somebody, or in a group, that this person types, or has stopped. To be called at each key: it is said once in a while, only
    /// where there is a conversation already, and it may be lost.
    pub fn typing(&self, with: impl Into<Target>, types: bool) {
        // A session that has too much to do says nothing.
        let _ = self.commands.try_send(Command::Typing { with: with.into(), types });
    }

    /// Looks an account up, here or on the server.
    ///
    /// # Errors
    /// Nobody has the handle, or its log does not hold.
    pub async fn find(&self, handle: Handle) -> Result<Contact, ClientError> {
        let (reply, result) = oneshot::channel();
        self.commands.send(Command::Find { handle, reply }).await.map_err(|_| ClientError::Ended)?;
        result.await.unwrap_or(Err(ClientError::Ended))
    }
}
