//! What a server shows people that is not what they knew, by the real programs, and what one keeps from them that lies: it
//! is told, once, and nobody is followed without having been asked.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gureum_client::vault::{BeginError, Event, HistoryItem, KeySource, Target, TrustError};
use gureum_client::{Client, ClientError, ClientEvent, Ground, Inbox, NewAccount, SessionOptions};
use gureum_server::node::Node;
use gureum_tests::World;
use gureum_tests::liar::{self, Lie};
use gureum_tests::person::{Person, named, string, texts};
use serde_json::Value;

use crate::backup::{backup, go_back};
use crate::copies::copy;

fn changed(events: &[Value]) -> Vec<(String, String)> {
    let number = |event: &&Value| (string(&event["number_before"]), string(&event["number"]));
    named(events, "safety_number_changed").iter().map(number).collect()
}

fn number(person: &Person, with: &str) -> String {
    string(&person.ok(&["safety-number", with])[0]["number"])
}

/// Alice has talked with a Bob; then the server goes back to before that one registered, and somebody else does, as Bob.
fn with_another_bob() -> (World, Person, Person, String) {
    let mut world = World::start();
    let alice = world.person("alice");
    let to = world.directory("backup");
    let _ = backup(world.data_dir(), &to).ok();
    let first = world.person("bob");
    alice.send(&first, "to the first");
    assert_eq!(first.receive_texts(), ["to the first"]);
    let before = number(&alice, "bob");
    assert_eq!(number(&first, "alice"), before);
    go_back(&mut world, &to);
    let second = Person::new("bob", world.directory("second"));
    second.ok(&["register", &world.invite(1), "--handle", "bob"]);
    (world, alice, second, before)
}

#[test]
fn another_account_under_a_handle_is_told_once_and_nothing_goes_to_it_before() {
    let (_world, alice, second, before) = with_another_bob();
    // The server has gone back, which is told first, and what there is to be done about it shows the other account.
    assert_eq!(alice.run(&["send", "bob", "to whom?"]).code, Some(3));
    let decided = alice.run(&["restart", "bob"]);
    assert_eq!(decided.code, Some(1), "{}", decided.said);
    for part in ["another account", "gureum safety-number bob"] {
        assert!(decided.said.contains(part), "{:?} does not say {part:?}", decided.said);
    }
    let after = number(&second, "alice");
    assert_eq!(changed(&decided.events), [(before.clone(), after.clone())]);
    assert_ne!(before, after);
    assert!(second.receive().is_empty(), "nothing has come to the other one");

    assert_eq!(number(&alice, "bob"), after, "which can be compared");
    alice.send(&second, "to the second");
    assert_eq!(second.receive_texts(), ["to the second"]);
    second.send(&alice, "from the second");
    let came = alice.receive();
    assert_eq!((texts(&came), changed(&came)), (vec!["from the second".to_owned()], vec![]), "never twice");
    let history = alice.ok(&["history", "bob"]);
    assert_eq!(texts(&history), ["to the first", "to the second", "from the second"]);
    assert_eq!(changed(&history), [(before, after)], "the history has a mark");
}

#[test]
fn who_is_written_to_by_another_account_under_a_known_handle_is_told_and_shown_nothing() {
    let (_world, alice, second, before) = with_another_bob();
    second.send(&alice, "it is me");
    let came = alice.receive();
    assert_eq!((texts(&came), changed(&came)), (vec![], vec![(before, number(&second, "alice"))]));
    let again = alice.receive();
    assert_eq!((texts(&again), changed(&again)), (vec![], vec![]), "{again:#?}");
    // Who goes on all the same has been told by the command that they give.
    assert_eq!(alice.run(&["restart", "bob"]).code, Some(1));
    alice.send(&second, "is it?");
    assert_eq!(second.receive_texts(), ["is it?"]);
}

const ONCE: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: false };

/// A device of somebody's, by a clock that can be put ahead.
struct Device {
    client: Client,
    ahead_ms: Arc<AtomicU64>,
}

impl Device {
    async fn register(node: &Node, home: &Path, handle: &str) -> Self {
        let ahead_ms = Arc::default();
        let (invite, handle) = (node.url().parse().unwrap(), handle.parse().unwrap());
        let account = NewAccount { invite, handle, device_name: "desk".to_owned() };
        let registering = Client::register_on(Self::ground(&ahead_ms), home, KeySource::File, account);
        Self { client: Box::pin(registering).await.unwrap().client, ahead_ms }
    }

    async fn open(home: &Path) -> Self {
        let ahead_ms = Arc::default();
        Self { client: Client::open_on(Self::ground(&ahead_ms), home, KeySource::File).await.unwrap(), ahead_ms }
    }

    fn ground(ahead_ms: &Arc<AtomicU64>) -> Ground {
        let (ahead, truth) = (Arc::clone(ahead_ms), Ground::system().clock);
        Ground { clock: Arc::new(move || truth() + ahead.load(Ordering::Relaxed)), ..Ground::system() }
    }

    async fn send(&self, to: &str, text: &str) {
        Box::pin(self.try_send(to, text)).await.unwrap();
    }

    async fn try_send(&self, to: &str, text: &str) -> Result<(), ClientError> {
        let mut session = self.client.session(ONCE).unwrap();
        let commands = session.commands();
        let sent = Box::pin(session.finish(commands.send(to.parse::<Target>().unwrap(), text.to_owned()))).await;
        drop(commands);
        Box::pin(session.close()).await;
        sent.map(drop)
    }

    /// Asks the server for somebody.
    async fn find(&self, handle: &str) -> Result<(), ClientError> {
        let mut session = self.client.session(ONCE).unwrap();
        let commands = session.commands();
        let found = Box::pin(session.finish(commands.find(handle.parse().unwrap()))).await;
        drop(commands);
        Box::pin(session.close()).await;
        found.map(drop)
    }

    /// Takes the inbox, and returns what there is to tell.
    async fn take(&self) -> Vec<Event> {
        let mut session = self.client.session(ONCE).unwrap();
        loop {
            match session.next().await {
                Some(ClientEvent::CaughtUp) => break,
                Some(ClientEvent::Stopped(error)) => panic!("{error}"),
                Some(_) => (),
                None => panic!("it has ended"),
            }
        }
        Box::pin(session.close()).await;
        let told = self.client.unreported_events(100).await.unwrap();
        self.client.mark_reported(told.iter().map(|stored| stored.id).collect()).await.unwrap();
        told.into_iter().map(|stored| stored.event).collect()
    }

    async fn texts(&self) -> Vec<String> {
        let text = |item| match item {
            HistoryItem::Message(message) => message.text,
            other => panic!("{other:?}"),
        };
        self.client.history(None, 100).await.unwrap().into_iter().map(text).collect()
    }
}

/// Alice and Bob on a server that may lie.
async fn with_a_liar(homes: &Path) -> (Node, liar::Lies, Device, Device) {
    let (node, lies) = Box::pin(liar::start(&homes.join("server"))).await;
    let alice = Box::pin(Device::register(&node, &homes.join("alice"), "alice")).await;
    let bob = Box::pin(Device::register(&node, &homes.join("bob"), "bob")).await;
    (node, lies, alice, bob)
}

fn withheld(events: &[Event]) -> Vec<(u64, u64, u64)> {
    let span = |event: &Event| match event {
        Event::Withheld { from_number, to_number, count, .. } => Some((*from_number, *to_number, *count)),
        _ => None,
    };
    events.iter().filter_map(span).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_server_passes_over_without_a_word_is_told_after_a_while() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    for text in ["one", "two", "three"] {
        Box::pin(alice.send("bob", text)).await;
    }
    lies.tell(Lie::Message(2));
    let came = Box::pin(bob.take()).await;
    assert!(lies.times() > 0);
    assert_eq!((bob.texts().await, withheld(&came)), (vec!["one".to_owned(), "three".to_owned()], vec![]));
    bob.ahead_ms.store(11 * 60 * 1000, Ordering::Relaxed);
    let came = Box::pin(bob.take()).await;
    assert_eq!(withheld(&came), [(2, 2, 1)], "{came:?}");
    let came = Box::pin(bob.take()).await;
    assert_eq!(withheld(&came), [], "once");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_server_passes_over_is_fetched_when_the_next_message_shows_it() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    Box::pin(alice.send("bob", "one")).await;
    // Bob joins, and renews his keys, which is a commit.
    Box::pin(bob.take()).await;
    Box::pin(bob.send("alice", "two")).await;
    lies.tell(Lie::Commits);
    Box::pin(alice.take()).await;
    assert!(lies.times() > 0);
    assert_eq!(alice.texts().await, ["one", "two"]);
    Box::pin(alice.send("bob", "three")).await;
    Box::pin(bob.take()).await;
    assert_eq!(bob.texts().await, ["one", "two", "three"]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_server_repeats_changes_nothing() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    Box::pin(alice.send("bob", "one")).await;
    // Bob joins, and renews his keys, which is a commit. Alice takes it before she sends.
    Box::pin(bob.take()).await;
    Box::pin(alice.send("bob", "two")).await;
    // For which he sends a receipt.
    Box::pin(bob.take()).await;
    lies.tell(Lie::CommitAgain);
    let came = Box::pin(alice.take()).await;
    assert!(lies.times() > 0);
    let strange: Vec<_> = came.iter().filter(|event| !matches!(event, Event::Receipt { .. })).collect();
    assert!(strange.is_empty(), "{strange:?}");
    Box::pin(bob.send("alice", "three")).await;
    Box::pin(alice.take()).await;
    Box::pin(alice.send("bob", "four")).await;
    Box::pin(bob.take()).await;
    for person in [&alice, &bob] {
        assert_eq!(person.texts().await, ["one", "two", "three", "four"]);
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_to_a_ghost_in_the_answer_to_a_claim() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    for lie in [Lie::GhostPackages, Lie::ForgedPackages] {
        lies.tell(lie);
        let before = lies.times();
        let refused = Box::pin(alice.try_send("bob", "to whom?")).await.unwrap_err();
        assert!(matches!(refused, ClientError::Begin(BeginError::KeyPackage { .. })), "{lie:?}: {refused:?}");
        assert!(lies.times() > before);
    }
    lies.stop();
    assert_eq!(alice.texts().await, Vec::<String>::new());
    Box::pin(alice.send("bob", "to bob alone")).await;
    Box::pin(bob.take()).await;
    assert_eq!(bob.texts().await, ["to bob alone"]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_believes_in_a_ghost_in_a_device_log() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    let is_invalid = |error: &ClientError| matches!(error, ClientError::Trust(TrustError::Invalid { .. }));
    lies.tell(Lie::GhostEntry);
    let refused = Box::pin(alice.try_send("bob", "to whom?")).await.unwrap_err();
    assert!(is_invalid(&refused) && lies.times() > 0, "{refused:?}");
    lies.stop();
    Box::pin(alice.send("bob", "to bob alone")).await;
    Box::pin(bob.take()).await;

    // Nor of somebody whom they know.
    lies.tell(Lie::GhostEntry);
    let refused = Box::pin(alice.find("bob")).await.unwrap_err();
    assert!(is_invalid(&refused), "{refused:?}");
    Box::pin(alice.send("bob", "as before")).await;
    lies.stop();
    let known = alice.client.contact(&"bob".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(known.log.length(), 1);
    Box::pin(bob.take()).await;
    assert_eq!(bob.texts().await, ["to bob alone", "as before"]);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_into_a_group_in_which_there_is_a_ghost() {
    let homes = tempfile::tempdir().unwrap();
    let (node, lies, alice, bob) = Box::pin(with_a_liar(homes.path())).await;
    Box::pin(alice.send("bob", "one")).await;
    Box::pin(bob.take()).await;
    // An older copy of a home has to come in again, by what the server says of the group.
    let older = homes.path().join("older");
    copy(&homes.path().join("bob"), &older);
    Box::pin(bob.take()).await;
    let bob = Device::open(&older).await;

    lies.tell(Lie::GhostGroup);
    let refused = Box::pin(bob.try_send("alice", "among us?")).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Kept(why) if why.to_string().contains("is not in the log of")),
        "{refused:?}"
    );
    assert!(lies.times() > 0);
    lies.stop();
    let is_rejoined = |event: &Event| matches!(event, Event::Rejoined { .. });
    assert_eq!(Box::pin(bob.take()).await.iter().filter(|event| is_rejoined(event)).count(), 1);
    Box::pin(alice.take()).await;
    for person in [&alice, &bob] {
        assert_eq!(person.texts().await, ["one", "among us?"]);
    }
    node.stop().await.unwrap();
}
