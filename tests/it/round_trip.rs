//! A device that comes back after hours is in step after one round trip and its inbox: the real client and server on a
//! network where each way takes the same time, by a clock that stands still while there is something to do. So what is
//! measured is round trips, and a machine that is busy does not change it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gureum_client::vault::{HistoryItem, KeySource, Resolved, Target};
use gureum_client::{
    Client, ClientError, ClientEvent, ClientSession, Ground, GroupCommand, Inbox, NewAccount, NewDevice,
    SessionOptions, Sockets, Work,
};
use gureum_proto::Code;
use gureum_server::config::{Config, Flags};
use gureum_server::node::{Ground as ServerGround, Node};
use gureum_server::store::memory::MemoryStore;
use gureum_server::time::WallClock;
use gureum_tests::linking;
use gureum_tests::sim::clock::SimClock;
use gureum_tests::sim::net::{SimNet, Weather};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::time::Instant;

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4433);
/// How long a datagram is under way.
const WAY: Duration = Duration::from_millis(200);
const ROUND_TRIP: Duration = Duration::from_millis(400);
/// Client and server share one thread, and so one stack.
const STACK_BYTES: usize = 64 * 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a story in virtual time.
fn in_virtual_time(story: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(story());
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// The network, as one host reaches it.
#[derive(Debug)]
struct Host {
    net: SimNet,
    address: IpAddr,
}

impl Sockets for Host {
    fn endpoint(&self, _remote: SocketAddr) -> io::Result<Endpoint> {
        let socket = self.net.bind(SocketAddr::new(self.address, 0));
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
    }
}

/// What everybody stands on.
struct Place {
    net: SimNet,
    clock: SimClock,
    homes: tempfile::TempDir,
    node: Node,
}

impl Place {
    async fn start() -> Self {
        Box::pin(Self::start_with(None)).await
    }

    async fn start_with(retention: Option<&str>) -> Self {
        // In memory where there is such a place: a server writes down every few seconds what time it is.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let (net, clock, homes) = (SimNet::new(1), SimClock::new(), tempfile::tempdir_in(parent).unwrap());
        let way_ms = u64::try_from(WAY.as_millis()).unwrap();
        net.set_weather(Weather { delay_ms: (way_ms, way_ms), ..Weather::fine() });
        let flags = Flags {
            data_dir: Some(homes.path().join("server").to_str().unwrap().to_owned()),
            listen: Some(SERVER.to_string()),
            registration: Some("open".to_owned()),
            retention: retention.map(str::to_owned),
            ..Flags::default()
        };
        let config = Config::load(&flags, |_| None, |_| Err(io::ErrorKind::NotFound.into())).unwrap();
        let ground = ServerGround {
            wall: Arc::new(clock.clone()),
            work: gureum_server::work::Work::inline(),
            socket: Some(net.bind(SERVER)),
            store: Some(Box::new(|expiry| Ok(Arc::new(MemoryStore::new(expiry))))),
            wake: None,
            push: None,
            serves_admin: false,
        };
        let node = Box::pin(Node::start(config, ground)).await.unwrap();
        Self { net, clock, homes, node }
    }

    fn ground(&self, host: u8) -> Ground {
        let clock = self.clock.clone();
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 1, host));
        Ground {
            sockets: Arc::new(Host { net: self.net.clone(), address }),
            work: Work::Inline,
            clock: Arc::new(move || clock.wall_ms()),
        }
    }

    fn home(&self, host: u8) -> PathBuf {
        self.homes.path().join(host.to_string())
    }

    async fn register(&self, host: u8, handle: &str) -> Client {
        let (invite, handle) = (self.node.url().parse().unwrap(), handle.parse().unwrap());
        let account = NewAccount { invite, handle, device_name: "desk".to_owned() };
        let (ground, home) = (self.ground(host), self.home(host));
        Box::pin(Client::register_on(ground, &home, KeySource::File, account)).await.unwrap().client
    }

    async fn link(&self, host: u8, yes: &Client) -> Client {
        let new =
            NewDevice { server: self.node.url().parse().unwrap(), device_name: "tablet".to_owned(), history: false };
        let (ground, home) = (self.ground(host), self.home(host));
        let mut session = Box::pin(Client::link_device_on(ground, &home, KeySource::File, new)).await.unwrap();
        let (approved, linked) = Box::pin(linking::link(&mut session, yes, false)).await;
        approved.unwrap();
        linked.unwrap()
    }
}

const ONCE: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: false };
const STAYS: SessionOptions = SessionOptions { inbox: Inbox::Take, reconnect: true };

async fn send(client: &Client, to: &str, text: &str) {
    let mut session = client.session(ONCE).unwrap();
    let commands = session.commands();
    Box::pin(session.finish(commands.send(to.parse::<Target>().unwrap(), text.to_owned()))).await.unwrap();
    drop(commands);
    Box::pin(session.close()).await;
}

async fn read(client: &Client, with: &str) {
    let mut session = client.session(ONCE).unwrap();
    let commands = session.commands();
    Box::pin(session.finish(commands.read(with.parse::<Target>().unwrap()))).await.unwrap();
    drop(commands);
    Box::pin(session.close()).await;
}

async fn change(client: &Client, command: GroupCommand) {
    let mut session = client.session(ONCE).unwrap();
    let commands = session.commands();
    let answer = Box::pin(session.finish(commands.group(command))).await.unwrap();
    assert_eq!((answer.failed, answer.refused), (Vec::new(), None));
    drop(commands);
    Box::pin(session.close()).await;
}

/// Makes a group with Alice.
async fn group_with_alice(client: &Client, name: &str) {
    let (name, who) = (name.to_owned(), vec!["alice".parse().unwrap()]);
    change(client, GroupCommand::Create { name, who }).await;
}

async fn rename(client: &Client, from: &str, to: &str) {
    change(client, GroupCommand::Rename { group: from.parse().unwrap(), name: to.to_owned() }).await;
}

async fn groups(client: &Client) -> Vec<String> {
    client.groups().await.unwrap().into_iter().map(|group| group.name).collect()
}

async fn caught_up(session: &mut ClientSession) {
    loop {
        match session.next().await {
            Some(ClientEvent::CaughtUp) => return,
            Some(ClientEvent::Disconnected { error, .. } | ClientEvent::Stopped(error)) => panic!("{error}"),
            Some(_) => (),
            None => panic!("it has ended"),
        }
    }
}

/// Waits until the newest message of the history is this one.
async fn heard(client: &Client, session: &mut ClientSession, text: &str) {
    while texts(client).await.last().map(String::as_str) != Some(text) {
        match session.next().await {
            Some(ClientEvent::Disconnected { error, .. } | ClientEvent::Stopped(error)) => panic!("{error}"),
            Some(_) => (),
            None => panic!("it has ended"),
        }
    }
}

/// Waits until the session has ended for good.
async fn stopped(session: &mut ClientSession) -> ClientError {
    loop {
        match session.next().await {
            Some(ClientEvent::Stopped(error)) => return error,
            Some(ClientEvent::Disconnected { error, .. }) => panic!("it comes back after {error}"),
            Some(_) => (),
            None => panic!("it has ended without a word"),
        }
    }
}

/// Connects, and returns how long it was, from the first packet on, until all that had waited was taken.
async fn come_back(client: &Client, options: SessionOptions) -> Duration {
    let began = Instant::now();
    let mut session = client.session(options).unwrap();
    caught_up(&mut session).await;
    let took = began.elapsed();
    Box::pin(session.close()).await;
    took
}

async fn texts(client: &Client) -> Vec<String> {
    let text = |item| match item {
        HistoryItem::Message(message) => message.text,
        other => panic!("{other:?}"),
    };
    client.history(None, 100).await.unwrap().into_iter().map(text).collect()
}

async fn unread(client: &Client, with: &str) -> u64 {
    let Resolved::Contact(contact) = client.resolve(&with.parse().unwrap()).await.unwrap() else {
        panic!("{with} is somebody")
    };
    let history = client.history(Some(contact.account.into()), 1).await.unwrap();
    let Some(HistoryItem::Message(message)) = history.first() else { panic!("{history:?}") };
    client.unread(message.conversation).await.unwrap()
}

/// Alice's desk and tablet, and Bob; all have heard everything of one another.
async fn settled(place: &Place) -> [Client; 3] {
    let alice = place.register(1, "alice").await;
    let bob = place.register(2, "bob").await;
    send(&bob, "alice", "before the tablet").await;
    come_back(&alice, ONCE).await;
    let tablet = place.link(3, &alice).await;
    settle(&[&tablet, &alice, &bob]).await;
    [alice, tablet, bob]
}

async fn settle(clients: &[&Client]) {
    for _ in 0..4 {
        for client in clients {
            come_back(client, ONCE).await;
        }
    }
}

/// The same, in a group that Bob has made.
async fn settled_in_a_group(place: &Place) -> [Client; 3] {
    let [alice, tablet, bob] = Box::pin(settled(place)).await;
    group_with_alice(&bob, "trip").await;
    settle(&[&tablet, &alice, &bob]).await;
    assert_eq!(groups(&tablet).await, ["trip"]);
    [alice, tablet, bob]
}

#[test]
fn a_device_that_comes_back_after_hours_is_in_step_after_one_round_trip_and_its_inbox() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [alice, tablet, bob] = Box::pin(settled(&place)).await;
        for text in ["one", "two", "three"] {
            tokio::time::sleep(HOUR).await;
            send(&bob, "alice", text).await;
        }
        read(&alice, "bob").await;
        send(&alice, "bob", "four").await;
        tokio::time::sleep(HOUR).await;

        let took = Box::pin(come_back(&tablet, STAYS)).await;
        // One round trip is the handshake; Hello and Ready are the other, and the inbox comes right behind Ready. A
        // request in between would be a third.
        assert!(took >= 2 * ROUND_TRIP && took < 3 * ROUND_TRIP, "{took:?}");
        assert_eq!(texts(&tablet).await, ["one", "two", "three", "four"]);
        assert_eq!(unread(&tablet, "bob").await, 0, "what was read elsewhere is read");
        place.node.stop().await.unwrap();
    });
}

#[test]
fn commits_and_a_welcome_that_wait_in_the_inbox_cost_no_round_trip_more() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [_, tablet, bob] = Box::pin(settled_in_a_group(&place)).await;
        tokio::time::sleep(HOUR).await;
        rename(&bob, "trip", "voyage").await;
        send(&bob, "voyage", "of the next epoch").await;
        group_with_alice(&bob, "walk").await;
        tokio::time::sleep(HOUR).await;

        let took = Box::pin(come_back(&tablet, STAYS)).await;
        assert!(took >= 2 * ROUND_TRIP && took < 3 * ROUND_TRIP, "{took:?}");
        assert_eq!(groups(&tablet).await, ["voyage", "walk"]);
        let history = tablet.history(None, 100).await.unwrap();
        let is_said = |item: &HistoryItem| matches!(item, HistoryItem::Message(it) if it.text == "of the next epoch");
        assert!(history.iter().any(is_said), "{history:?}");
        place.node.stop().await.unwrap();
    });
}

#[test]
fn commits_that_the_inbox_has_lost_are_looked_for() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start_with(Some("2h"))).await;
        let [_, tablet, bob] = Box::pin(settled_in_a_group(&place)).await;
        rename(&bob, "trip", "voyage").await;
        tokio::time::sleep(3 * HOUR).await;

        let took = Box::pin(come_back(&tablet, STAYS)).await;
        // The list, and the commits of the conversation that it shows to be ahead.
        assert!(took >= 4 * ROUND_TRIP, "{took:?}");
        assert_eq!(groups(&tablet).await, ["voyage"]);
        place.node.stop().await.unwrap();
    });
}

#[test]
fn what_one_device_decides_while_its_session_runs_the_others_hear_at_once() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [alice, tablet, _] = Box::pin(settled(&place)).await;
        let mut sessions = Vec::new();
        for client in [&alice, &tablet] {
            let mut session = client.session(STAYS).unwrap();
            caught_up(&mut session).await;
            sessions.push(session);
        }
        // Whatever was owed from before has gone out.
        tokio::time::sleep(HOUR).await;
        alice.set_typing(false).await.unwrap();
        // To the server and on to the tablet is one; nothing is said together with what may come later.
        tokio::time::sleep(2 * ROUND_TRIP).await;
        assert!(!tablet.settings().await.unwrap().typing);
        for session in sessions {
            Box::pin(session.close()).await;
        }
        place.node.stop().await.unwrap();
    });
}

#[test]
fn connected_at_the_same_time_all_devices_have_a_message_when_its_sender_has_the_answer() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [alice, tablet, bob] = Box::pin(settled(&place)).await;
        let mut sessions = Vec::new();
        for client in [&alice, &tablet, &bob] {
            let mut session = client.session(STAYS).unwrap();
            caught_up(&mut session).await;
            sessions.push(session);
        }
        tokio::time::sleep(HOUR).await;
        let began = Instant::now();
        let commands = sessions[2].commands();
        commands.send("alice".parse::<Target>().unwrap(), "to both".to_owned()).await.unwrap();
        drop(commands);
        for (client, session) in [&alice, &tablet].into_iter().zip(&mut sessions) {
            heard(client, session, "to both").await;
        }
        // One way is that to the server; the other is the answer's, and that of the message to each device.
        let took = began.elapsed();
        assert!(took >= ROUND_TRIP && took < ROUND_TRIP + WAY, "{took:?}");
        for session in sessions {
            Box::pin(session.close()).await;
        }
        place.node.stop().await.unwrap();
    });
}

#[test]
fn a_device_that_is_revoked_is_cut_off_as_soon_as_the_word_of_it_can_travel() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [alice, tablet, _] = Box::pin(settled(&place)).await;
        let (mut at_desk, mut at_tablet) = (alice.session(STAYS).unwrap(), tablet.session(STAYS).unwrap());
        for session in [&mut at_desk, &mut at_tablet] {
            caught_up(session).await;
        }
        tokio::time::sleep(HOUR).await;
        let (began, commands) = (Instant::now(), at_desk.commands());
        let revoke = at_desk.finish(commands.revoke(tablet.identity().device));
        let (revoked, (error, took)) =
            Box::pin(async { tokio::join!(revoke, async { (stopped(&mut at_tablet).await, began.elapsed()) }) }).await;
        revoked.unwrap();
        assert_eq!(error.code(), Some(Code::DeviceRevoked), "{error}");
        // In the first round trip it is looked whether the log has grown. Of the second, one way is the revocation's to
        // the server, and the other that of the end to the device.
        assert!(took >= 2 * ROUND_TRIP && took < 2 * ROUND_TRIP + WAY, "{took:?}");
        drop(commands);
        for session in [at_desk, at_tablet] {
            Box::pin(session.close()).await;
        }
        place.node.stop().await.unwrap();
    });
}

#[test]
fn a_request_is_a_round_trip_more() {
    in_virtual_time(async || {
        let place = Box::pin(Place::start()).await;
        let [_, tablet, _] = Box::pin(settled(&place)).await;
        let began = Instant::now();
        let mut session = tablet.session(ONCE).unwrap();
        let commands = session.commands();
        let found = Box::pin(session.finish(commands.find("bob".parse().unwrap()))).await;
        assert_eq!(found.unwrap().handle.as_str(), "bob");
        assert!(began.elapsed() >= 3 * ROUND_TRIP, "{:?}", began.elapsed());
        drop(commands);
        Box::pin(session.close()).await;
        place.node.stop().await.unwrap();
    });
}
