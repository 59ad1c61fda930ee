//! Power cuts under the homes of people who send and receive: what they were told is there, once, and both sides have
//! one history.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gureum_client::vault::{KeySource, Vault};
use serde_json::Value;

use crate::child::Running;
use crate::disk::{FileSystem, LoopDisk};
use crate::person::texts;
use crate::wait::{SOON, eventually};
use crate::{Person, World};

/// Room of the disk with the homes; its file is sparse.
const MEGABYTES: u64 = 512;
/// Messages that are sent one by one before a cut, at most.
const SENT_MAX: u32 = 3;
/// Lines typed at once into a chat that the cut comes upon.
const TYPED: u32 = 12;
/// The longest time from the typing to the cut: some of what was typed is stored, sent, answered by then, and some not.
const CUT_WITHIN_MS: u64 = 150;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cuts while they talk, besides one after each registration.
    pub cuts: u32,
    /// The file system.
    pub on: FileSystem,
    /// Says on standard error how far it is.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The file system.
    pub on: FileSystem,
    /// Cuts while they talked.
    pub cuts: u32,
    /// Messages in the one history that both sides have.
    pub messages: usize,
    /// Of them, those that a `send` had said were sent.
    pub told_sent: usize,
    /// Of them, those that had been printed for their reader before a cut.
    pub told_received: usize,
    /// How long it took.
    pub seconds: u64,
}

/// Two people whose homes lie on a disk that loses its power; the server's does not.
struct Homes {
    disk: LoopDisk,
    alice: Person,
    bob: Person,
    /// What a `send` has said was sent, by either.
    told_sent: BTreeSet<String>,
    /// What was printed for its reader.
    printed: BTreeSet<String>,
    _world: World,
}

/// Runs it; `None` where no disk can be mounted.
///
/// # Panics
/// When a home does not open, anything that was told is lost or doubled, or the two histories differ.
#[must_use]
pub fn run(options: &Options) -> Option<Report> {
    let started = Instant::now();
    let mut homes = Homes::make(LoopDisk::make(options.on, MEGABYTES)?);
    for cut in 0..options.cuts {
        homes.cut_while_talking(cut);
        if options.tells {
            eprintln!("{} cuts on {:?}, {} messages told", cut + 1, options.on, homes.told_sent.len());
        }
    }
    let (told_sent, told_received) = (homes.told_sent.len(), homes.printed.len());
    let messages = homes.compare();
    let seconds = started.elapsed().as_secs();
    Some(Report { on: options.on, cuts: options.cuts, messages, told_sent, told_received, seconds })
}

impl Homes {
    /// Registers two people, whose power is cut as soon as they are told that they are.
    fn make(disk: LoopDisk) -> Self {
        let world = World::start();
        let [alice, bob] = ["alice", "bob"].map(|name| {
            let person = Person::new(name, disk.path().join(name));
            person.ok(&["register", &world.invite(1), "--handle", name]);
            disk.cut();
            disk.come_back();
            person
        });
        let mut homes = Self { disk, alice, bob, told_sent: BTreeSet::new(), printed: BTreeSet::new(), _world: world };
        homes.send("first", true);
        homes.printed.extend(homes.bob.receive_texts());
        homes.send("second", false);
        homes.printed.extend(homes.alice.receive_texts());
        homes
    }

    fn send(&mut self, text: &str, is_alices: bool) {
        let (from, to) = if is_alices { (&self.alice, &self.bob) } else { (&self.bob, &self.alice) };
        from.send(to, text);
        self.told_sent.insert(text.to_owned());
    }

    /// Bob follows; Alice sends, then types many lines at once; in the midst of it the power fails.
    fn cut_while_talking(&mut self, cut: u32) {
        let mut follower = self.bob.follow_from_now();
        let sent = rand::random_range(0..=SENT_MAX);
        for index in 0..sent {
            self.send(&format!("cut {cut}: alice {index}"), true);
        }
        // Beside the follower of the same home.
        self.send(&format!("cut {cut}: bob"), false);
        if sent > 0 && rand::random() {
            follower.wait_for_text(&format!("cut {cut}: alice {}", sent - 1));
        }
        let mut chat = self.alice.chat(&self.bob);
        for index in 0..TYPED {
            chat.type_line(&format!("cut {cut}: typed {index}"));
        }
        if rand::random() {
            follower.wait_for_text(&format!("cut {cut}: typed {}", rand::random_range(0..TYPED)));
        } else {
            std::thread::park_timeout(Duration::from_millis(rand::random_range(0..CUT_WITHIN_MS)));
        }
        // The processes go first, as of a machine that is gone: no call of theirs may say anything afterwards.
        for process in [&mut chat, &mut follower.running] {
            process.kill();
            process.has_ended().expect("it was killed, and all that it wrote is read");
        }
        self.disk.cut();
        self.disk.come_back();
        let (for_alice, for_bob) = (read(&chat, &self.alice), read(&follower.running, &self.bob));
        let (alices, bobs) = (texts(&self.alice.history()), texts(&self.bob.history()));
        assert_holds(&alices, &for_alice);
        assert_holds(&bobs, &for_bob);
        assert_holds(&[alices, bobs].concat(), &self.told_sent);
        self.printed.extend(for_alice.into_iter().chain(for_bob));
    }

    /// Lets both catch up: then there is one history, with everything that was told, once. How many messages that are.
    fn compare(&mut self) -> usize {
        eventually("both outboxes are empty", SOON, || {
            self.printed.extend(self.alice.receive_texts());
            self.printed.extend(self.bob.receive_texts());
            (outbox(&self.alice) + outbox(&self.bob) == 0).then_some(())
        });
        self.printed.extend(self.alice.receive_texts());
        let (alices, bobs) = (history(&self.alice), history(&self.bob));
        assert_eq!(alices, bobs, "both have one history");
        let all: BTreeSet<String> = texts(&alices).into_iter().collect();
        assert_eq!(all.len(), alices.len(), "nothing is there twice, and no gap: {alices:#?}");
        assert_holds(&texts(&alices), &self.told_sent);
        assert_eq!(self.printed, all, "each message was shown to its reader");
        all.len()
    }
}

/// What a home has to hold, whatever else is in it.
#[track_caller]
fn assert_holds(home: &[String], told: &BTreeSet<String>) {
    for text in told {
        assert!(home.contains(text), "{text:?} was told, and is gone: {home:#?}");
    }
}

/// The texts of others that a process has printed for somebody.
fn read(process: &Running, reader: &Person) -> BTreeSet<String> {
    let mut events: Vec<Value> = process.out.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    events.retain(|event| event["from"] != reader.name.as_str());
    texts(&events).into_iter().collect()
}

/// A whole history, but for whose a message is, its place in the inbox and who has read it: the sides differ in these.
fn history(person: &Person) -> Vec<Value> {
    let mut events = person.ok(&["history", "--limit", "100000"]);
    for event in &mut events {
        let event = event.as_object_mut().expect("an event");
        for field in ["own", "seq", "delivered_to", "read_by"] {
            event.remove(field);
        }
    }
    events
}

/// Messages that wait to be sent.
fn outbox(person: &Person) -> u64 {
    Vault::open(&person.home, &KeySource::File).unwrap().outbox_len().unwrap()
}
