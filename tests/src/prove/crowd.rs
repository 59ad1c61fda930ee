//! Many people with real homes, of whom some are connected: what each of these hears is noted, with its moment.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gureum_client::vault::{Event, GroupChange, HistoryItem, KeySource, Message, Vault, With};
use gureum_client::{
    Client, ClientError, ClientEvent, ClientSession, GroupAnswer, GroupCommand, Inbox, NewAccount, SessionCommands,
    SessionOptions,
};
use gureum_proto::{Code, ConversationId, Handle, ServerUrl};
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::good::quantile;
use crate::World;

/// Accounts that register at once: more would wait for each other on two processors.
const REGISTER_AT_ONCE: usize = 8;
/// Attempts to register, on a machine that has other things to do.
const REGISTER_TRIES: usize = 10;
/// The pause between two of them, and between two looks at a group.
const AGAIN: Duration = Duration::from_millis(200);
/// How long somebody who comes may take until everything that waited is taken.
pub(crate) const COMES_IN: Duration = Duration::from_secs(300);
/// How long what everybody is to hear may take.
pub(crate) const HEARD_IN: Duration = Duration::from_secs(120);
/// How long a change may take that the server's quotas hold up.
const CHANGED_IN: Duration = Duration::from_secs(1_800);
/// Unreported events read at once.
const EVENTS_AT_ONCE: usize = 256;
/// Rows of a history.
const HISTORY_MAX: u32 = 100_000;
/// Ends the part of a text by which it is known; padding follows.
const BAR: char = '|';

/// Everybody, connected or not.
pub(crate) struct Crowd {
    homes: TempDir,
    handles: Vec<Handle>,
    ears: Arc<Ears>,
}

/// Somebody who is connected.
pub(crate) struct Member {
    /// Their place in the crowd.
    pub(crate) index: usize,
    pub(crate) handle: Handle,
    pub(crate) client: Client,
    pub(crate) commands: SessionCommands,
    end: oneshot::Sender<()>,
    listener: JoinHandle<()>,
}

/// Something that somebody hears.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// A message, by the name that its text begins with.
    Text(String),
    /// A change of a group by somebody else.
    Change { conversation: ConversationId, change: GroupChange, by: Option<String>, who: Vec<String> },
    /// Everything that had waited was taken.
    CaughtUp,
    /// What nobody is to hear in a healthy group.
    Amiss(String),
}

/// What everybody has heard.
#[derive(Default)]
struct Notes {
    /// In whose order.
    of: BTreeMap<usize, Vec<Heard>>,
    /// When who heard it for the first time.
    at: HashMap<Heard, BTreeMap<usize, Instant>>,
}

/// The ears of all who are connected.
pub(crate) struct Ears {
    notes: Mutex<Notes>,
    changed: watch::Sender<u64>,
}

/// How long something took, so often.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Times {
    /// How often it was done.
    pub count: usize,
    /// Half of them took at most this, in milliseconds.
    pub median_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

/// A change of a group that the server has accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Changed {
    pub(crate) conversation: ConversationId,
    /// All in all.
    pub(crate) took: Duration,
    /// Of it, for as long the server's quotas let it wait.
    pub(crate) waited: Duration,
}

impl Times {
    /// Of durations, of which there may be none.
    pub(crate) fn of(took: &[Duration]) -> Self {
        let ms = |share| if took.is_empty() { 0.0 } else { quantile(took, share) as f64 / 1_000.0 };
        Self { count: took.len(), median_ms: ms(0.5), max_ms: ms(1.0) }
    }
}

impl Crowd {
    /// Registers so many people. Their homes are in memory where that can be: the disk is the server's.
    pub(crate) async fn gather(world: &World, count: usize) -> Self {
        let new = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix("gureum-prove-");
            builder
        };
        let homes = new().tempdir_in("/dev/shm").or_else(|_| new().tempdir()).unwrap();
        let handles: Vec<Handle> = (0..count).map(|index| format!("p{index:04}").parse().unwrap()).collect();
        let invite: ServerUrl = world.invite(u32::try_from(count).unwrap()).parse().unwrap();
        let crowd = Self { homes, handles, ears: Arc::new(Ears::default()) };
        let mut pending = JoinSet::new();
        for index in 0..count {
            if pending.len() >= REGISTER_AT_ONCE {
                pending.join_next().await.expect("there are some").unwrap();
            }
            pending.spawn(register(crowd.home(index), invite.clone(), crowd.handles[index].clone()));
        }
        while let Some(registered) = pending.join_next().await {
            registered.unwrap();
        }
        crowd
    }

    pub(crate) fn ears(&self) -> &Ears {
        &self.ears
    }

    pub(crate) fn handle(&self, index: usize) -> Handle {
        self.handles[index].clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// The handles of some.
    pub(crate) fn those(&self, who: &[usize]) -> Vec<Handle> {
        who.iter().map(|index| self.handle(*index)).collect()
    }

    fn home(&self, index: usize) -> PathBuf {
        self.homes.path().join(self.handles[index].as_str())
    }

    /// Connects somebody and returns when everything that waited for them is taken, and how long that took.
    pub(crate) async fn come(&self, index: usize) -> (Member, Duration) {
        let started = Instant::now();
        self.ears.forget(index, &Heard::CaughtUp);
        let client = Client::open(&self.home(index), KeySource::File).await.unwrap();
        let session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: true }).unwrap();
        let (commands, (end, ended)) = (session.commands(), oneshot::channel());
        let handle = self.handle(index);
        let listener = tokio::spawn(listen(session, ended, client.clone(), index, Arc::clone(&self.ears)));
        self.ears.until_heard(&Heard::CaughtUp, &[index], COMES_IN).await;
        (Member { index, handle, client, commands, end, listener }, started.elapsed())
    }

    /// The epoch that somebody is in, and what all who are in it have in common; `None` for who is not in the group.
    pub(crate) fn epoch_of(&self, index: usize, conversation: ConversationId) -> Option<(u64, Vec<u8>)> {
        let mut vault = Vault::open(&self.home(index), &KeySource::File).unwrap();
        vault.epoch_authenticator(conversation).unwrap()
    }
}

/// Registers somebody, and once more while the machine is too busy for it.
async fn register(home: PathBuf, invite: ServerUrl, handle: Handle) {
    let account = NewAccount { invite, handle, device_name: "prove".to_owned() };
    for _ in 0..REGISTER_TRIES {
        match Box::pin(Client::register(&home, KeySource::File, account.clone())).await {
            Ok(registration) => {
                // What is measured are the messages that are asked for, and no others.
                registration.client.set_receipts(false).await.unwrap();
                return;
            }
            Err(error) => assert!(error.is_temporary(), "{}: {error}", account.handle),
        }
        tokio::time::sleep(AGAIN).await;
    }
    panic!("{} cannot register", account.handle);
}

impl Member {
    /// Changes a group as a person does who waits when the server asks for it.
    pub(crate) async fn change(&self, command: GroupCommand) -> Changed {
        let (started, mut waited) = (Instant::now(), Duration::ZERO);
        let conversation = loop {
            let asked = Instant::now();
            match self.commands.group(command.clone()).await {
                Ok(GroupAnswer { conversation, failed, refused, .. }) => {
                    assert!(failed.is_empty() && refused.is_none(), "{command:?}: {failed:?} {refused:?}");
                    break conversation;
                }
                // Nothing was begun.
                Err(error) if error.code() == Some(Code::RateLimited) => {
                    tokio::time::sleep(error.retry_after().max(AGAIN)).await;
                    waited += asked.elapsed();
                }
                Err(ClientError::ChangeKept(why)) => {
                    let conversation = self.until_made(&command, &why).await;
                    waited += asked.elapsed();
                    break conversation;
                }
                Err(error) => panic!("{} {command:?}: {error}", self.handle),
            }
            assert!(started.elapsed() < CHANGED_IN, "{command:?} is not made");
        };
        Changed { conversation, took: started.elapsed(), waited }
    }

    /// Waits until a change that was kept is made: the session tries it again by itself.
    async fn until_made(&self, command: &GroupCommand, why: &ClientError) -> ConversationId {
        let (GroupCommand::Create { who, .. } | GroupCommand::Add { who, .. }) = command else {
            panic!("{} {command:?} waits for {why}", self.handle);
        };
        let is_it = |conversation: ConversationId, name: &str| match command {
            GroupCommand::Create { name: wanted, .. } => name == wanted,
            GroupCommand::Add { group, .. } => group.as_str() == name || group.as_str() == conversation.to_string(),
            _ => false,
        };
        let until = Instant::now() + CHANGED_IN;
        loop {
            let groups = self.client.groups().await.unwrap();
            let group = groups.into_iter().find(|group| is_it(group.conversation, &group.name));
            if let Some(group) = group
                && who.iter().all(|handle| group.people.iter().any(|person| person.handle == handle.as_str()))
            {
                return group.conversation;
            }
            assert!(Instant::now() < until, "{command:?} was kept ({why}) and is not made");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Says something in a group; how long it took until the server had it on disk.
    pub(crate) async fn say(&self, conversation: ConversationId, text: &str) -> Duration {
        let started = Instant::now();
        let sent = self.commands.send(conversation, text.to_owned()).await;
        assert!(sent.is_ok(), "{} {text}: {sent:?}", self.handle);
        started.elapsed()
    }

    /// What their history has of a group: names of texts, and how many messages they could not read.
    pub(crate) async fn history(&self, conversation: ConversationId) -> (Vec<String>, usize) {
        let items = self.client.history(Some(With::Group(conversation)), HISTORY_MAX).await.unwrap();
        let (mut names, mut unreadable) = (Vec::new(), 0);
        for item in items {
            match item {
                HistoryItem::Message(Message { text, .. }) => names.push(name_of(&text)),
                HistoryItem::Unreadable { .. } => unreadable += 1,
                other => panic!("{} has {other:?}", self.handle),
            }
        }
        (names, unreadable)
    }

    /// Ends their client in order.
    pub(crate) async fn leave(self) {
        let Self { commands, end, listener, client, .. } = self;
        drop(commands);
        // A listener that has panicked is told of by its own end.
        let _ = end.send(());
        listener.await.unwrap();
        drop(client);
    }
}

/// A text of so many bytes at least, known by its name.
pub(crate) fn text(name: &str, bytes: usize) -> String {
    let mut text = format!("{name}{BAR}");
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
    text
}

fn name_of(text: &str) -> String {
    text.split(BAR).next().unwrap_or_default().to_owned()
}

/// Hears a session to its end.
async fn listen(
    mut session: ClientSession,
    mut ended: oneshot::Receiver<()>,
    client: Client,
    index: usize,
    ears: Arc<Ears>,
) {
    loop {
        let event = tokio::select! {
            biased;
            _ = &mut ended => break,
            event = session.next() => event,
        };
        match event {
            Some(ClientEvent::News) => ears.take(&client, index).await,
            Some(ClientEvent::CaughtUp) => {
                ears.take(&client, index).await;
                ears.note(index, [Heard::CaughtUp]);
            }
            Some(ClientEvent::Stopped(error)) => panic!("number {index} stops: {error}"),
            Some(_) => {}
            None => panic!("number {index} ends without a word"),
        }
    }
    session.close().await;
    ears.take(&client, index).await;
}

/// Tells everything that a client has not told yet, as a program does that shows it to a person.
pub(crate) async fn tell_unreported(client: &Client, mut tell: impl FnMut(Vec<Event>)) {
    loop {
        let events = client.unreported_events(EVENTS_AT_ONCE).await.unwrap();
        if events.is_empty() {
            return;
        }
        let (ids, events): (Vec<_>, Vec<_>) = events.into_iter().map(|stored| (stored.id, stored.event)).unzip();
        tell(events);
        client.mark_reported(ids).await.unwrap();
    }
}

impl Default for Ears {
    fn default() -> Self {
        Self { notes: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Ears {
    /// Notes what somebody was not told of yet.
    async fn take(&self, client: &Client, index: usize) {
        tell_unreported(client, |events| self.note(index, events.into_iter().filter_map(heard_of))).await;
    }

    fn note(&self, index: usize, heard: impl IntoIterator<Item = Heard>) {
        let now = Instant::now();
        let mut notes = self.notes.lock().unwrap();
        for heard in heard {
            notes.at.entry(heard.clone()).or_default().entry(index).or_insert(now);
            notes.of.entry(index).or_default().push(heard);
        }
        drop(notes);
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Somebody may hear it anew.
    fn forget(&self, index: usize, what: &Heard) {
        if let Some(at) = self.notes.lock().unwrap().at.get_mut(what) {
            at.remove(&index);
        }
    }

    /// Waits until all of these have heard something; when the last of them had. Now where there are none.
    pub(crate) async fn until_heard(&self, what: &Heard, who: &[usize], within: Duration) -> Instant {
        let mut changes = self.changed.subscribe();
        let until = tokio::time::Instant::now() + within;
        loop {
            drop(changes.borrow_and_update());
            let missing = match self.last_of(what, who) {
                Ok(last) => return last.unwrap_or_else(Instant::now),
                Err(missing) => missing,
            };
            let changed = tokio::time::timeout_at(until, changes.changed()).await;
            assert!(changed.is_ok(), "{missing:?} have not heard {what:?} within {within:?}; {:#?}", self.amiss());
        }
    }

    /// When the last of them heard it, or who has not.
    fn last_of(&self, what: &Heard, who: &[usize]) -> Result<Option<Instant>, Vec<usize>> {
        let notes = self.notes.lock().unwrap();
        let at = notes.at.get(what);
        let heard = |index: &usize| at.and_then(|at| at.get(index)).copied();
        let missing: Vec<_> = who.iter().copied().filter(|index| heard(index).is_none()).collect();
        if missing.is_empty() { Ok(who.iter().filter_map(heard).max()) } else { Err(missing) }
    }

    /// Everything that somebody has heard, in order.
    pub(crate) fn of(&self, index: usize) -> Vec<Heard> {
        self.notes.lock().unwrap().of.get(&index).cloned().unwrap_or_default()
    }

    /// What nobody should have heard, and who has.
    pub(crate) fn amiss(&self) -> Vec<(usize, String)> {
        let notes = self.notes.lock().unwrap();
        let of = notes.of.iter().flat_map(|(index, heard)| heard.iter().map(move |heard| (*index, heard)));
        of.filter_map(|(index, heard)| match heard {
            Heard::Amiss(what) => Some((index, what.clone())),
            Heard::Text(_) | Heard::Change { .. } | Heard::CaughtUp => None,
        })
        .collect()
    }
}

fn heard_of(event: Event) -> Option<Heard> {
    match event {
        Event::Message(message) => Some(Heard::Text(name_of(&message.text))),
        Event::Group { conversation, change, by, who, .. } => Some(Heard::Change { conversation, change, by, who }),
        Event::Joined { .. } | Event::Receipt { .. } | Event::Read { .. } => None,
        other => Some(Heard::Amiss(format!("{other:?}"))),
    }
}
