//! Three devices of one account and two of another, which come and go and send at random, over real QUIC and bad networks:
//! every message is on every device, once, in one order, or in a gap that was told with the right count; and each device has
//! told its person of it as it came.

mod heard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gureum_client::vault::{HistoryItem, KeySource, Message};
use gureum_client::{Client, ClientError, Inbox, SessionCommands, SessionOptions};
use gureum_proto::{Handle, ServerUrl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::heard::{Heard, Listener};
use crate::relay::{Relay, Weather};
use crate::wait::SOON;
use crate::{Person, World};

/// How many devices each of the two has.
const DEVICES: [usize; 2] = [3, 2];
/// Between two happenings, at most.
const PAUSE_MS_MAX: u64 = 200;
/// Messages of one happening, at most.
const BURST_MAX: usize = 8;
/// How long a device is away at most, where messages live for long.
const AWAY_MS_MAX: u64 = 4_000;
/// How long all may take to come into step once nothing is wrong: a client waits up to 30 s before it tries again.
const IN_STEP_IN: Duration = Duration::from_secs(120);
/// Between two looks at that.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Rows of a history.
const HISTORY_MAX: u32 = 100_000;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long they talk.
    pub duration: Duration,
    /// The seed of what happens, and of the weather.
    pub seed: u64,
    /// How long messages live, if that is short enough for gaps; else 3 days.
    pub retention: Option<&'static str>,
    /// Says on standard error how far it is.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Messages in the conversation.
    pub messages: usize,
    /// Of them, those that were acknowledged while somebody waited.
    pub acknowledged: usize,
    /// Messages that devices have of others, all devices together.
    pub received: usize,
    /// Messages that devices were told to have missed.
    pub missed: u64,
    /// How often a device went, in order or in the midst of its work.
    pub departures: u64,
    /// How often the weather changed.
    pub weathers: u64,
    /// How long it took.
    pub seconds: u64,
}

/// A device.
struct Device {
    /// Which of the two has it.
    person: usize,
    name: String,
    home: PathBuf,
    running: Option<Running>,
    heard: Arc<Mutex<Heard>>,
    /// When it comes back.
    back_at: Instant,
}

/// Its client.
struct Running {
    client: Client,
    commands: SessionCommands,
    end: oneshot::Sender<bool>,
    listener: JoinHandle<()>,
}

/// What became of texts.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<String>,
    refused: Vec<String>,
}

/// All of them.
struct Story {
    devices: Vec<Device>,
    handles: [Handle; 2],
    told: Arc<Mutex<Told>>,
    random: StdRng,
    away_ms_max: u64,
    texts: u64,
    departures: u64,
    weathers: u64,
}

/// Runs it.
///
/// # Panics
/// When a message is missing without a word, doubled, or in another place on one of the devices.
#[must_use]
pub fn run(options: &Options) -> Report {
    let started = Instant::now();
    let world = options.retention.map_or_else(World::start, World::with_retention);
    let relay = Relay::with_seed(world.listen(), options.seed);
    let people = ["alice", "bob"].map(|name| world.person_with(name, &world.invite_via(relay.address())));
    let url: ServerUrl = world.url().parse().unwrap();
    let url = ServerUrl { port: relay.address().port(), ..url }.to_string();
    let mut devices = Vec::new();
    for (person, (first, count)) in people.iter().zip(DEVICES).enumerate() {
        devices.push(Device::new(person, first, 0));
        for number in 1..count {
            let home = world.directory(&format!("{} {number}", first.name));
            devices.push(Device::new(person, &first.link(&url, home, &format!("device {number}")), number));
        }
    }
    let life_ms = options.retention.map(|text| humantime::parse_duration(text).unwrap());
    let life_ms = life_ms.map_or(0, |life| u64::try_from(life.as_millis()).unwrap());
    let mut story = Story {
        devices,
        handles: ["alice", "bob"].map(|name| name.parse().unwrap()),
        told: Arc::default(),
        random: StdRng::seed_from_u64(options.seed),
        away_ms_max: AWAY_MS_MAX.max(2 * life_ms),
        texts: 0,
        departures: 0,
        weathers: 0,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let books = runtime.block_on(async {
        story.begin().await;
        story.play(options, &relay).await;
        story.end(&relay).await
    });
    let told = story.told.lock().unwrap();
    Report {
        seed: options.seed,
        messages: books.messages.len(),
        acknowledged: told.acknowledged.len(),
        received: books.received,
        missed: books.missed,
        departures: story.departures,
        weathers: story.weathers,
        seconds: started.elapsed().as_secs(),
    }
}

impl Device {
    fn new(person: usize, of: &Person, number: usize) -> Self {
        let name = format!("{}/{number}", of.name);
        Self { person, name, home: of.home.clone(), running: None, heard: Arc::default(), back_at: Instant::now() }
    }

    async fn come(&mut self) {
        if self.running.is_some() {
            return;
        }
        let client = Client::open(&self.home, KeySource::File).await.unwrap();
        let session = client.session(SessionOptions { inbox: Inbox::Take, reconnect: true }).unwrap();
        let (end, ended) = oneshot::channel();
        let commands = session.commands();
        let hearing = Listener { name: self.name.clone(), client: client.clone(), heard: Arc::clone(&self.heard) };
        let listener = tokio::spawn(hearing.run(session, ended));
        self.running = Some(Running { client, commands, end, listener });
    }

    /// Ends the client, in order or where it stands.
    async fn leave(&mut self, in_order: bool) {
        let Some(Running { client, commands, end, listener }) = self.running.take() else { return };
        drop(commands);
        end.send(in_order).expect("the listener waits for it");
        listener.await.unwrap();
        drop(client);
    }

    fn say(&self, to: Handle, text: String, told: &Arc<Mutex<Told>>) {
        let Some(running) = &self.running else { return };
        let (commands, told) = (running.commands.clone(), Arc::clone(told));
        tokio::spawn(async move {
            let pending = commands.hand_over(to, text.clone()).await;
            drop(commands);
            let result = match pending {
                Ok(pending) => pending.result().await,
                Err(error) => Err(error),
            };
            let mut told = told.lock().unwrap();
            match result {
                Ok(_) => {
                    told.acknowledged.insert(text);
                }
                // It goes out later, or the client ended before it was written down.
                Err(ClientError::Kept(_) | ClientError::Ended) => {}
                // Nothing was written down.
                Err(error) if error.is_temporary() => {}
                Err(error) => told.refused.push(format!("{text}: {error}")),
            }
        });
    }

    /// Whether everything in its history that others have sent was told, once, in order, and nothing else.
    fn has_told(&self, history: &[HistoryItem]) -> Result<(), String> {
        let heard = self.heard.lock().unwrap();
        assert!(heard.amiss().is_empty(), "{} told {:#?}", self.name, heard.amiss());
        heard.agrees_with(history).map_err(|apart| format!("{} {apart}", self.name))
    }

    async fn history(&self) -> Vec<HistoryItem> {
        let running = self.running.as_ref().expect("all devices are there");
        assert!(!running.listener.is_finished(), "{}'s session has ended by itself: see above why", self.name);
        running.client.history(None, HISTORY_MAX).await.unwrap()
    }
}

impl Story {
    /// All are there, and one begins; the others join.
    async fn begin(&mut self) {
        for device in &mut self.devices {
            device.come().await;
        }
        self.say(0);
        let first = |books: &Books| if books.messages.is_empty() { Err("nothing came".to_owned()) } else { Ok(()) };
        self.wait_for(first).await;
    }

    fn say(&mut self, device: usize) {
        self.texts += 1;
        let device = &self.devices[device];
        let text = format!("{} {}", device.name, self.texts);
        device.say(self.handles[1 - device.person].clone(), text, &self.told);
    }

    async fn play(&mut self, options: &Options, relay: &Relay) {
        let until = Instant::now() + options.duration;
        let mut told_at = Instant::now();
        while Instant::now() < until {
            let device = self.random.random_range(0..self.devices.len());
            if self.devices[device].running.is_none() {
                if Instant::now() >= self.devices[device].back_at {
                    self.devices[device].come().await;
                }
            } else {
                match self.random.random_range(0..20) {
                    0..4 => self.depart(device).await,
                    4 => self.change_weather(relay),
                    _ => (0..self.random.random_range(1..=BURST_MAX)).for_each(|_| self.say(device)),
                }
            }
            let pause = self.random.random_range(0..=PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if options.tells && told_at.elapsed() > SOON {
                told_at = Instant::now();
                eprintln!("{} texts, {} departures, {} weathers", self.texts, self.departures, self.weathers);
            }
        }
    }

    async fn depart(&mut self, device: usize) {
        self.departures += 1;
        let in_order = self.random.random_bool(0.5);
        let away = Duration::from_millis(self.random.random_range(0..=self.away_ms_max));
        let device = &mut self.devices[device];
        device.leave(in_order).await;
        device.back_at = Instant::now() + away;
    }

    fn change_weather(&mut self, relay: &Relay) {
        self.weathers += 1;
        let fair = Weather { delay: Duration::from_millis(5), ..Weather::default() };
        relay.set_weather(match self.random.random_range(0..4) {
            0 => Weather { loss: 0.1, duplication: 0.1, jitter: Duration::from_millis(30), ..fair },
            1 => Weather { reordering: 0.3, held_back: Duration::from_millis(40), corruption: 0.02, ..fair },
            _ => fair,
        });
    }

    /// Nothing is wrong any more, and all come: soon everybody has everything.
    async fn end(&mut self, relay: &Relay) -> Books {
        relay.mend();
        for device in &mut self.devices {
            device.come().await;
        }
        let acknowledged = self.told.lock().unwrap().acknowledged.clone();
        let books = self.wait_for(|books| books.hold(&acknowledged)).await;
        let refused = std::mem::take(&mut self.told.lock().unwrap().refused);
        assert!(refused.is_empty(), "{refused:#?}");
        for device in &mut self.devices {
            device.leave(true).await;
        }
        books
    }

    /// Waits until all histories hold together, everything in them was told, and something holds of them.
    async fn wait_for(&self, holds: impl Fn(&Books) -> Result<(), String>) -> Books {
        let until = Instant::now() + IN_STEP_IN;
        loop {
            let mut histories = Vec::new();
            for device in &self.devices {
                histories.push(device.history().await);
            }
            let found = Books::of(&self.devices, &histories).and_then(|books| holds(&books).map(|()| books));
            let told = self.devices.iter().zip(&histories).try_for_each(|(device, history)| device.has_told(history));
            match found.and_then(|books| told.map(|()| books)) {
                Ok(books) => return books,
                Err(open) => assert!(Instant::now() < until, "{open}; {:#?}", self.links()),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// How each device is connected.
    fn links(&self) -> Vec<String> {
        let link = |device: &Device| format!("{} is {}", device.name, device.heard.lock().unwrap().link());
        self.devices.iter().map(link).collect()
    }
}

/// What all histories say together.
struct Books {
    /// The text of each number, by whichever device has it.
    messages: BTreeMap<u64, String>,
    received: usize,
    missed: u64,
}

impl Books {
    /// Compares histories; what does not hold, in words.
    fn of(devices: &[Device], histories: &[Vec<HistoryItem>]) -> Result<Self, String> {
        let mut books = Self { messages: BTreeMap::new(), received: 0, missed: 0 };
        for (device, history) in devices.iter().zip(histories) {
            books.add(device, history)?;
        }
        for (expected, number) in (1..).zip(books.messages.keys()) {
            if expected != *number {
                return Err(format!("nobody has sent number {expected}"));
            }
        }
        for (device, history) in devices.iter().zip(histories) {
            let siblings = devices.iter().zip(histories).filter(|(other, _)| other.person == device.person);
            let places = siblings.flat_map(|(_, history)| messages(history));
            let places: BTreeMap<u64, u64> =
                places.filter_map(|message| Some((message.number, message.seq?))).collect();
            books.missed += books.missed_by(device, history, &places)?;
        }
        Ok(books)
    }

    /// One number is one text everywhere, and stands once on each device, in order.
    fn add(&mut self, device: &Device, history: &[HistoryItem]) -> Result<(), String> {
        let (mut last, mut texts) = (0, BTreeSet::new());
        for message in messages(history) {
            let known = self.messages.entry(message.number).or_insert_with(|| message.text.clone());
            if *known != message.text {
                return Err(format!("number {} is {known:?} and {:?}", message.number, message.text));
            }
            if message.number <= last || !texts.insert(&message.text) {
                return Err(format!("{} has {:?} behind number {last}", device.name, message.text));
            }
            last = message.number;
            self.received += usize::from(message.seq.is_some());
        }
        let is_unreadable = |item: &&HistoryItem| matches!(item, HistoryItem::Unreadable { .. });
        history.iter().find(is_unreadable).map_or(Ok(()), |item| Err(format!("{} cannot read {item:?}", device.name)))
    }

    /// What a device has not, it was told to have missed: with the right count, among which is what it has sent itself.
    /// `places`: where messages stand in the account's inbox, by their numbers.
    fn missed_by(&self, device: &Device, history: &[HistoryItem], places: &BTreeMap<u64, u64>) -> Result<u64, String> {
        let has: BTreeSet<u64> = messages(history).map(|message| message.number).collect();
        let own: Vec<u64> =
            messages(history).filter(|message| message.seq.is_none()).map(|message| message.number).collect();
        let gaps: Vec<(u64, u64, u64)> = history
            .iter()
            .filter_map(|item| match *item {
                HistoryItem::Gap { from_seq, to_seq, count, .. } => Some((from_seq, to_seq, count)),
                _ => None,
            })
            .collect();
        let is_in = |number: &&u64| {
            let seq = places.get(*number);
            seq.is_some_and(|seq| gaps.iter().any(|(from, to, _)| (from..=to).contains(&seq)))
        };
        let missing: Vec<u64> = self.messages.keys().filter(|number| !has.contains(number)).copied().collect();
        let told: u64 = gaps.iter().map(|(.., count)| count).sum();
        let least = missing.len() + own.iter().filter(is_in).count();
        let most = least + own.iter().filter(|number| !places.contains_key(number)).count();
        let bounds = u64::try_from(least).unwrap()..=u64::try_from(most).unwrap();
        let is_silent = |number: &&u64| places.contains_key(number) && !is_in(number);
        match missing.iter().find(is_silent) {
            Some(number) => {
                let (silent, last) = (missing.iter().filter(is_silent).count(), has.last());
                let (name, seq) = (&device.name, places.get(number));
                Err(format!(
                    "{name} lacks number {number} (seq {seq:?}) without a word, and {silent} such in all; its last is \
                     {last:?}, its gaps are {gaps:?}"
                ))
            }
            None if !bounds.contains(&told) => {
                Err(format!("{} lacks {missing:?}, and was told of {told}, which is not in {bounds:?}", device.name))
            }
            None => Ok(told),
        }
    }

    /// Everything that was acknowledged is there.
    fn hold(&self, acknowledged: &BTreeSet<String>) -> Result<(), String> {
        let known: BTreeSet<&String> = self.messages.values().collect();
        let lost = acknowledged.iter().find(|text| !known.contains(text));
        lost.map_or(Ok(()), |text| Err(format!("{text:?} was acknowledged and is lost")))
    }
}

/// The messages of a history.
fn messages(history: &[HistoryItem]) -> impl Iterator<Item = &Message> {
    history.iter().filter_map(|item| match item {
        HistoryItem::Message(message) => Some(message),
        _ => None,
    })
}
