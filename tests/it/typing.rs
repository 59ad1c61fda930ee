//! Typing indicators: between real clients, and as datagrams that the server passes on and forgets.

use std::time::Duration;

use bytes::Bytes;
use gureum_client::vault::KeySource;
use gureum_client::{Client, Inbox, SessionOptions};
use gureum_proto::{Handle, Position, ServerFrame, Typing};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::disk::files_with;
use gureum_tests::person::{Person, event};
use gureum_tests::raw::{Raw, soon};
use gureum_tests::wait::{SOON, eventually};
use gureum_tests::world::Options;
use tokio::task::JoinHandle;

use crate::delivery::Two;

const START: Position = Position { seq: 0, count: 0 };

/// Somebody types on and on, until this is dropped. Any of it may be lost, or be of an epoch that is over.
struct Typist(JoinHandle<()>);

impl Typist {
    async fn start(who: &Person, with: &Person) -> Self {
        let client = Client::open(&who.home, KeySource::File).await.unwrap();
        let mut session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: true }).unwrap();
        let (commands, with) = (session.commands(), with.name.parse::<Handle>().unwrap());
        let mut keys = tokio::time::interval(Duration::from_millis(50));
        Self(tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = session.next() => if event.is_none() { return },
                    _ = keys.tick() => commands.typing(with.clone(), true),
                }
            }
        }))
    }

    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

fn counted(world: &World, result: &str) -> u64 {
    world.admin().count(&format!("gureum_typing_total{{result=\"{result}\"}}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_types_is_seen_by_the_other_who_is_there_and_in_no_history() {
    let world = World::start();
    let (alice, bob) = world.pair();
    let sent = alice.send(&bob, "hello");
    let mut at_bob = bob.follow_from_now();
    at_bob.wait_for_text("hello");
    let typist = Typist::start(&alice, &bob).await;
    let typing = event(&mut at_bob.running, "typing");
    assert_eq!((&typing["from"], &typing["conversation"]), (&"alice".into(), &sent["conversation"]));
    assert!(typing["ends_in_ms"].as_u64().unwrap() >= 3_000, "{typing}");
    let _ = at_bob.interrupt();
    let mut chat = bob.chat(&alice);
    event(&mut chat, "typing");
    chat.end_input();
    assert!(chat.wait(SOON).success());
    typist.stop().await;
    assert!(bob.history().iter().all(|event| event["event"] == "message"), "{:#?}", bob.history());
    assert!(bob.ok(&["receive"]).iter().all(|event| event["event"] != "typing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_types_on_a_terminal_is_seen_at_each_key_and_sees_there_that_the_other_types() {
    const CLEAR_LINE: &str = "\u{15}";
    const END: &str = "\u{4}";
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello");
    assert_eq!(bob.receive_texts(), ["hello"]);
    let mut terminal = alice.chat_on_terminal(&bob);
    // When it shows what comes, it is connected.
    bob.send(&alice, "are you there?");
    terminal.wait_for("what comes", |line| line.contains("are you there?").then_some(()));
    let mut at_bob = bob.follow_from_now();
    let typing = eventually("it is seen that she types", SOON, || {
        terminal.type_keys("x");
        at_bob.events().into_iter().find(|event| event["event"] == "typing")
    });
    assert_eq!(typing["from"], "alice");
    terminal.type_keys(&format!("{CLEAR_LINE}I am\r"));
    at_bob.wait_for_text("I am");
    let _ = at_bob.interrupt();

    let typist = Typist::start(&bob, &alice).await;
    terminal.wait_for("that he types", |line| line.contains("bob is typing").then_some(()));
    typist.stop().await;
    terminal.type_keys(END);
    assert!(terminal.wait(SOON).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_turned_it_off_sees_nothing_of_it() {
    let world = World::start();
    let (alice, bob) = world.pair();
    alice.send(&bob, "hello");
    bob.ok(&["settings", "typing", "off"]);
    assert_eq!(bob.ok(&["settings"])[0]["typing"], false);
    let mut at_bob = bob.follow_from_now();
    let typist = Typist::start(&alice, &bob).await;
    eventually("it has been passed on", SOON, || (counted(&world, "relayed") >= 1).then_some(()));
    typist.stop().await;
    alice.send(&bob, "done");
    at_bob.wait_for_text("done");
    assert!(at_bob.interrupt().iter().all(|event| event["event"] != "typing"));
}

/// What says falsely that it is somebody else's.
fn claimed(two: &Two, who: &Device, sealed: &'static [u8]) -> Typing {
    let (conversation, epoch) = (two.talk.id, two.talk.epoch());
    Typing { conversation, epoch, account: who.account, device: who.device, sealed: Bytes::from_static(sealed) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_members_goes_out_under_its_own_name_and_a_strangers_nowhere() {
    let two = Two::start().await;
    let carol = Device::registered(&two.world, "carol").await;
    let (bobs, _frames) = two.subscribe(START).await;
    let (carols, _) = carol.connect(two.world.url(), true, START).await;
    carols.connection.send_datagram(claimed(&two, &two.alice, b"forged").encode()).unwrap();
    eventually("a stranger's is dropped", SOON, || (counted(&two.world, "dropped") == 1).then_some(()));
    let past = Typing { epoch: two.talk.epoch() - 1, ..claimed(&two, &two.alice, b"late") };
    two.raw.connection.send_datagram(past.encode()).unwrap();
    eventually("so is one of another epoch", SOON, || (counted(&two.world, "dropped") == 2).then_some(()));

    let sent = claimed(&two, &carol, b"sealed");
    two.raw.connection.send_datagram(sent.encode()).unwrap();
    let heard = soon("a datagram", bobs.connection.read_datagram()).await.unwrap();
    let expected = Typing { account: two.alice.account, device: two.alice.device, ..sent };
    assert_eq!(Typing::decode(heard), Ok(expected));
    assert_eq!(counted(&two.world, "relayed"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_of_it_reaches_the_disk_or_the_log() {
    const MARKER: &[u8] = b"marker-8c1f0a77-typing";
    let options = Options { flags: vec!["--log-filter", "trace"], ..Options::default() };
    let mut two = Two::in_world(World::start_with(options)).await;
    let (bobs, _frames) = two.subscribe(START).await;
    two.raw.connection.send_datagram(claimed(&two, &two.alice, MARKER).encode()).unwrap();
    let heard = soon("a datagram", bobs.connection.read_datagram()).await.unwrap();
    assert_eq!(Typing::decode(heard).unwrap().sealed.as_ref(), MARKER);
    assert!(two.world.stop().success());
    assert!(files_with(two.world.data_dir(), MARKER).is_empty());
    assert!(!two.world.log().contains(std::str::from_utf8(MARKER).unwrap()));
}

#[tokio::test]
async fn datagrams_without_meaning_do_a_connection_no_harm() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let mut raw = Raw::dial(world.url()).await;
    let flood = |raw: &Raw| {
        for bytes in (0..200).map(|number| number % 100) {
            raw.connection.send_datagram(vec![0xff; bytes].into()).unwrap();
        }
    };
    flood(&raw);
    let hello = alice.hello(&raw, &alice.claim(false, START));
    raw.write(&hello).await;
    assert!(matches!(raw.frame().await, ServerFrame::Ready(_)));
    flood(&raw);
    alice.publish(&raw, 1).await;
}
