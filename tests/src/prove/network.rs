//! Bad networks: two people talk through loss, disorder, cuts and moves, and every message arrives, once, in order.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::child::Running;
use crate::netns::{Cable, SERVER};
use crate::person::string;
use crate::relay::{Counts, Relay, Weather};
use crate::wait::eventually;
use crate::{Options as WorldOptions, Person, World};

/// How long the messages of one case may take to arrive once nothing is cut any more: a client that lost its
/// connection waits up to 30 s before it tries again, and then fetches what it missed through the same weather.
const ARRIVES_IN: Duration = Duration::from_secs(120);
/// How soon a client must say that its server is dead, whichever direction has died.
const NOTICED_IN: Duration = Duration::from_secs(30);
/// A wire on which nothing passes for so long is quiet: below the clients' keep-alives.
const QUIET: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Messages typed before it is looked whether they go out.
const TYPED_AT_ONCE: usize = 20;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed of the weather.
    pub seed: u64,
    /// Messages of each of the two in each case.
    pub messages: usize,
    /// The cases, in order; see [`all`] and [`few`].
    pub cases: Vec<Case>,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// One kind of bad network.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// The weather all along.
    pub weather: Weather,
    /// What happens in the middle of the talk.
    pub happens: Happening,
}

/// What happens in the middle of a talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Nothing.
    Nothing,
    /// The clients' addresses change.
    Moves,
    /// Packets longer than this are lost from now on, in bytes.
    Narrows(usize),
    /// Nothing comes back from the server until the clients have noticed.
    AnswersCut,
    /// Nothing reaches the server until the clients have noticed.
    RequestsCut,
    /// Nothing passes for so long.
    Outage(Duration),
    /// Both start anew, through the weather.
    Restarts,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed of the weather.
    pub seed: u64,
    /// Case by case.
    pub cases: Vec<Seen>,
}

/// What was seen in one case.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// The case.
    pub name: &'static str,
    /// Messages that arrived, once and in order.
    pub messages: usize,
    /// From the first one typed to the last one shown, in seconds.
    pub took_s: f64,
    /// From a cut to the last client that has noticed it, in seconds.
    pub noticed_s: Option<f64>,
    /// Handshakes that the server began meanwhile.
    pub handshakes: u64,
    /// Proofs that the server took meanwhile.
    pub proofs: u64,
    /// What the wire did.
    pub datagrams: Counts,
}

/// Every case, the long ones included.
#[must_use]
pub fn all() -> Vec<Case> {
    let fair = Weather::default();
    let ms = Duration::from_millis;
    let mut cases: Vec<_> =
        [("loss 1 %", 0.01), ("loss 5 %", 0.05), ("loss 10 %", 0.1), ("loss 20 %", 0.2), ("loss 30 %", 0.3)]
            .map(|(name, loss)| case(name, Weather { loss, ..fair }, Happening::Nothing))
            .into();
    cases.extend([
        case(
            "reordering 20 %",
            Weather { reordering: 0.2, held_back: ms(20), delay: ms(5), ..fair },
            Happening::Nothing,
        ),
        case("duplication 30 %", Weather { duplication: 0.3, ..fair }, Happening::Nothing),
        case("corruption 5 %", Weather { corruption: 0.05, ..fair }, Happening::Nothing),
        case("delay 150 ms, jitter 100 ms", Weather { delay: ms(150), jitter: ms(100), ..fair }, Happening::Nothing),
    ]);
    cases.extend(few());
    cases.extend([
        case("nothing reaches the server, then it heals", fair, Happening::RequestsCut),
        case("an outage of 90 s", fair, Happening::Outage(Duration::from_secs(90))),
    ]);
    cases
}

/// The cases that together show most, in under a minute.
#[must_use]
pub fn few() -> Vec<Case> {
    let fair = Weather::default();
    vec![
        case("everything at once", storm(), Happening::Nothing),
        case("both begin in 30 % loss", Weather { loss: 0.3, ..fair }, Happening::Restarts),
        case("addresses change", fair, Happening::Moves),
        case("addresses change in a storm", storm(), Happening::Moves),
        case("packets above 1200 bytes vanish", fair, Happening::Narrows(1200)),
        case("nothing comes back, then it heals", fair, Happening::AnswersCut),
    ]
}

fn storm() -> Weather {
    Weather {
        loss: 0.2,
        duplication: 0.1,
        corruption: 0.03,
        reordering: 0.1,
        held_back: Duration::from_millis(30),
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        mtu_bytes: 0,
    }
}

const fn case(name: &'static str, weather: Weather, happens: Happening) -> Case {
    Case { name, weather, happens }
}

/// Two people talk through every case, one after the other, in one conversation.
#[must_use]
pub fn run(options: &Options) -> Report {
    let world = World::start();
    let relay = Relay::with_seed(world.listen(), options.seed);
    let [alice, bob] = ["alice", "bob"].map(|name| world.person_with(name, &world.invite_via(relay.address())));
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    bob.send(&alice, "second");
    let mut talk = Talk::begin(&world, alice, bob);
    let mut moved = 1;
    let cases = options.cases.iter().map(|case| {
        let seen = talk.play(case, options.messages, &relay, &mut moved);
        if options.tells {
            eprintln!(
                "{}: {} messages in {:.1} s, {} handshakes",
                seen.name, seen.messages, seen.took_s, seen.handshakes
            );
        }
        seen
    });
    let cases = cases.collect();
    talk.end();
    Report { seed: options.seed, cases }
}

/// The same talk over a cable between two namespaces of the kernel, whose clients really move, whose packets really do
/// not fit, and which is really pulled. `None` where this process may not make a network.
#[must_use]
pub fn run_on_a_cable(messages: usize, pulled_for: Duration) -> Option<Vec<Seen>> {
    let cable = Cable::lay()?;
    cable.enter();
    let world = World::start_with(WorldOptions { listen: Some(IpAddr::V4(SERVER)), ..WorldOptions::default() });
    let [alice, bob] = ["alice", "bob"].map(|name| {
        let mut person = world.stranger(name);
        person.within = cable.at_clients();
        person.ok(&["register", &world.invite(1), "--handle", name]);
        person
    });
    alice.send(&bob, "first");
    assert_eq!(bob.receive_texts(), ["first"]);
    bob.send(&alice, "second");
    let mut talk = Talk::begin(&world, alice, bob);
    let mut seen = Vec::new();
    seen.push(talk.step("the clients' address is replaced", messages, messages / 2, || cable.move_clients()));
    seen.push(talk.step("the path's MTU drops to 1280", messages, messages / 2, || cable.narrow(1280)));
    seen.push(talk.step("the cable is pulled", messages, messages / 2, || {
        cable.pull();
        // Longer than the cable is out nothing can arrive, and nothing is to be seen: only the clock tells.
        std::thread::park_timeout(pulled_for);
        cable.plug();
    }));
    talk.end();
    Some(seen)
}

/// Two people who talk, and what each has typed so far.
struct Talk<'a> {
    world: &'a World,
    people: [Person; 2],
    chats: [Running; 2],
    typed: [Vec<String>; 2],
    /// Texts of the other one that were shown, and how many lines were read for that.
    shown: [(HashSet<String>, usize); 2],
}

impl<'a> Talk<'a> {
    fn begin(world: &'a World, alice: Person, bob: Person) -> Self {
        let chats = [alice.chat(&bob), bob.chat(&alice)];
        let people = [alice, bob];
        let mut talk = Self { world, people, chats, typed: Default::default(), shown: Default::default() };
        // Both say something, so that whatever they begin with is behind them.
        talk.type_texts("hello", 1);
        talk.wait_for_all("hello");
        talk
    }

    fn play(&mut self, case: &Case, messages: usize, relay: &Relay, moved: &mut u8) -> Seen {
        relay.set_weather(case.weather);
        let before = relay.counts();
        let mut noticed_s = None;
        let mut seen = match case.happens {
            Happening::Restarts => {
                self.restart();
                self.step(case.name, messages, messages, || ())
            }
            Happening::AnswersCut | Happening::RequestsCut => self.cut(case, messages, relay, &mut noticed_s),
            happening => self.step(case.name, messages, messages / 2, || happen(happening, relay, moved)),
        };
        relay.mend();
        seen.noticed_s = noticed_s;
        seen.datagrams = since(relay.counts(), before);
        seen
    }

    /// Both type while something happens, and everything arrives.
    fn step(&mut self, name: &'static str, messages: usize, before: usize, happen: impl FnOnce()) -> Seen {
        let started = Instant::now();
        let (handshakes, proofs) = self.counts();
        self.type_texts(&format!("{name}, before"), before);
        happen();
        self.type_texts(&format!("{name}, after"), messages - before);
        self.wait_for_all(name);
        let took_s = started.elapsed().as_secs_f64();
        let (handshakes_now, proofs_now) = self.counts();
        Seen {
            name,
            messages: 2 * messages,
            took_s,
            noticed_s: None,
            handshakes: handshakes_now - handshakes,
            proofs: proofs_now - proofs,
            datagrams: Counts::default(),
        }
    }

    /// A peer that is half dead, mended when both have noticed. Requests are cut while messages are on their way;
    /// answers while nobody says anything, when only a keep-alive can show it.
    fn cut(&mut self, case: &Case, messages: usize, relay: &Relay, noticed_s: &mut Option<f64>) -> Seen {
        let noticed_before = self.chats.each_ref().map(noticed);
        let is_answers = case.happens == Happening::AnswersCut;
        let chats = self.chats.each_ref().map(|chat| Arc::clone(&chat.out));
        if is_answers {
            quiet(relay);
        }
        let before = if is_answers { 0 } else { messages / 2 };
        self.step(case.name, messages, before, move || {
            if is_answers {
                relay.cut_answers()
            } else {
                relay.cut_requests()
            }
            let cut_at = Instant::now();
            for (lines, before) in chats.iter().zip(noticed_before) {
                eventually("the client notices", NOTICED_IN, || (noticed_in(&lines.all()) > before).then_some(()));
            }
            *noticed_s = Some(cut_at.elapsed().as_secs_f64());
            relay.mend();
        })
    }

    fn restart(&mut self) {
        for index in 0..2 {
            self.look(index);
            self.chats[index].kill();
            self.shown[index].1 = 0;
        }
        let [alice, bob] = &self.people;
        self.chats = [alice.chat(bob), bob.chat(alice)];
    }

    fn type_texts(&mut self, what: &str, messages: usize) {
        let texts: Vec<_> = (0..messages).map(|index| format!("{what} {index}")).collect();
        for part in texts.chunks(TYPED_AT_ONCE) {
            for (chat, typed) in self.chats.iter_mut().zip(&mut self.typed) {
                for text in part {
                    chat.type_line(text);
                    typed.push(text.clone());
                }
            }
        }
    }

    fn wait_for_all(&mut self, what: &str) {
        for (index, other) in [(0, 1), (1, 0)] {
            let started = Instant::now();
            while self.look(index) < self.typed[other].len() {
                assert!(
                    started.elapsed() < ARRIVES_IN,
                    "{what}: {} of {} messages arrived at {}\n{:#?}\n{}",
                    self.look(index),
                    self.typed[other].len(),
                    self.people[index].name,
                    self.chats[index].err.all(),
                    self.world.log()
                );
                std::thread::park_timeout(LOOK_AGAIN);
            }
        }
    }

    /// Reads what a chat has shown since the last look; how many of the other one's messages it has shown in all.
    fn look(&mut self, index: usize) -> usize {
        let (shown, read) = &mut self.shown[index];
        let lines = self.chats[index].out.all();
        for line in &lines[*read..] {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if event["event"] == "message" && event["from"] == self.people[1 - index].name.as_str() {
                shown.extend(event["text"].as_str().map(str::to_owned));
            }
        }
        *read = lines.len();
        self.typed[1 - index].iter().filter(|text| shown.contains(*text)).count()
    }

    fn counts(&self) -> (u64, u64) {
        let admin = self.world.admin();
        (admin.count("gureum_connections_accepted_total"), admin.count("gureum_proofs_ok_total"))
    }

    /// Both histories hold every message once, in the order of typing, and are the same.
    fn end(self) {
        drop(self.chats);
        let [alice, bob] = &self.people;
        let histories = [alice, bob].map(|person| {
            let _ = person.receive();
            let events = person.ok(&["history", "--limit", "100000"]);
            let messages = events.iter().filter(|event| event["event"] == "message");
            messages.map(|event| (string(&event["from"]), string(&event["text"]))).collect::<Vec<_>>()
        });
        for (person, typed) in self.people.iter().zip(&self.typed) {
            for history in &histories {
                let theirs: Vec<_> =
                    history.iter().filter(|(from, _)| *from == person.name).map(|(_, text)| text).collect();
                let wanted: Vec<_> = theirs.iter().take(1).copied().chain(typed).collect();
                assert_eq!(theirs, wanted, "what {} wrote", person.name);
            }
        }
        assert_eq!(histories[0], histories[1], "one order for both");
    }
}

fn happen(happening: Happening, relay: &Relay, moved: &mut u8) {
    match happening {
        Happening::Moves => {
            *moved += 1;
            relay.change_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, *moved)));
        }
        Happening::Narrows(mtu_bytes) => relay.set_weather(Weather { mtu_bytes, ..Weather::default() }),
        Happening::Outage(duration) => {
            relay.cut_answers();
            relay.cut_requests();
            std::thread::park_timeout(duration);
            relay.mend();
        }
        Happening::Nothing | Happening::AnswersCut | Happening::RequestsCut | Happening::Restarts => (),
    }
}

/// Waits until nothing has passed for a while.
fn quiet(relay: &Relay) {
    let mut last = (relay.counts().came, Instant::now());
    eventually("a quiet wire", ARRIVES_IN, || {
        let came = relay.counts().came;
        if came != last.0 {
            last = (came, Instant::now());
        }
        (last.1.elapsed() > QUIET).then_some(())
    });
}

fn noticed(chat: &Running) -> usize {
    noticed_in(&chat.out.all())
}

fn noticed_in(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains("trying again")).count()
}

const fn since(now: Counts, before: Counts) -> Counts {
    Counts {
        came: now.came - before.came,
        lost: now.lost - before.lost,
        too_long: now.too_long - before.too_long,
        cut: now.cut - before.cut,
        doubled: now.doubled - before.doubled,
        altered: now.altered - before.altered,
        held_back: now.held_back - before.held_back,
    }
}
