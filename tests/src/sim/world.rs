//! A simulated world: people, a server, a network, and a director who decides by the seed what happens next.

mod acts;
mod calm;
mod devices;
mod groups;
mod histories;
mod homes;
mod woken;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::path::Path;
use std::time::Duration;

use gureum_client::vault::HistoryItem;
use gureum_server::config::Flags;
use gureum_server::store::disk::{DiskCounts, FaultRates, SimDisk};
use gureum_server::time::WallClock;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::clock::SimClock;
use super::faults::{DAY_MS, HOUR_MS, Happening, MINUTE_MS, Profile, Story};
use super::installation::{Installation, Leave, Parts, Who};
use super::journal::{Journal, Violation};
use super::model::{Counts, Model};
use super::net::{SimNet, Traffic, Weather};
use super::person::Person;
use super::push::{PushFates, SimPush};
use super::sabotage::Sabotage;
use super::server::{SERVER, Server};
use super::wake::{Fates, WakeFaults};

/// What is to end later, and when.
const DUE_MAX: usize = 1_000;
/// How often a run brings about what it must: once may be while nobody is there whom it would hit.
const MUST_TIMES: u64 = 3;
/// How often the world is looked at while nothing happens, in milliseconds.
const LOOK_EVERY_MS: u64 = 10 * MINUTE_MS;

/// What a run is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The seed: equal seeds, equal runs.
    pub seed: u64,
    /// How many days pass.
    pub days: u64,
    /// Whether all events are printed.
    pub verbose: bool,
    /// A deliberate bug, which comes with the life in which it shows.
    pub sabotage: Option<Sabotage>,
    /// What it is about, if not about whatever its seed says.
    pub story: Option<Story>,
}

/// What a run was.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Days that passed in it.
    pub days: u64,
    /// People in it.
    pub people: usize,
    /// Devices that they have had.
    pub devices: usize,
    /// The retention, in milliseconds.
    pub retention_ms: u64,
    /// Groups that were made.
    pub groups: usize,
    /// What happened, and how often.
    pub happenings: BTreeMap<Happening, u64>,
    /// Messages.
    pub messages: Counts,
    /// Datagrams.
    pub traffic: Traffic,
    /// Wakes that were lost, that came twice, and that came late.
    pub wakes: (u64, u64, u64),
    /// Wake-ups of devices that were away: for messages, for messages about to expire, and of those the unanswered ones.
    pub woken: (u64, u64, u64),
    /// Writes, faults and crashes of the server's disk.
    pub disk: BTreeMap<String, u64>,
    /// Events in the journal.
    pub events: u64,
    /// Their digest: equal for equal runs.
    pub digest: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
}

/// A world under way.
#[derive(Debug)]
pub struct World {
    options: Options,
    random: StdRng,
    profile: Profile,
    journal: Journal,
    net: SimNet,
    model: Model,
    server: Server,
    push: SimPush,
    people: Vec<Person>,
    /// Somebody of whom the others do not know.
    stranger: Option<Person>,
    /// Devices that somebody is about to revoke.
    revoking: BTreeSet<Who>,
    /// What devices hold that are gone.
    left_behind: BTreeMap<Who, Vec<HistoryItem>>,
    due: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    order: u64,
    /// Faults have ended, and everybody has written to everybody since.
    has_begun_everything: bool,
    /// Failed syncs that have ended a server.
    poisonings: u64,
    happened: BTreeMap<Happening, u64>,
}

/// Something that ends, or comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Come(Who),
    Register(usize),
    Link(Who),
    Revoke(Who),
    Recover(Who),
    PutBack(Who),
    BringAbout(Happening),
    StartServer,
    FineWeather,
    Reach(Who),
    Wakes,
    Push,
    Clock,
    Disk,
}

impl World {
    /// A world before its first moment.
    #[must_use]
    pub fn new(options: Options, journal: &Journal, directory: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(options.seed);
        let mut profile = Profile::draw(options.seed, &mut random);
        if let Some(story) = options.story {
            profile.tell(story);
        }
        if let Some(bug) = options.sabotage {
            bug.case().set_scene(&mut profile);
        }
        let clock = SimClock::new();
        let server_clock = clock.of_another_machine();
        let net = SimNet::new(random.random());
        let model = Model::new(journal.clone(), clock.clone(), &profile);
        let served_ms = options.sabotage.map_or(profile.retention_ms, |bug| bug.served_ms(profile.retention_ms));
        let flags = Flags {
            retention: Some(format!("{}s", served_ms / 1_000)),
            inbox_entries_max: profile.inbox_entries_max.map(|entries| entries.to_string()),
            ..Flags::default()
        };
        let parts = (journal.clone(), net.clone(), server_clock);
        let wakes = WakeFaults::new(random.random());
        let mut of_disk = StdRng::seed_from_u64(random.random());
        let disk = SimDisk::new(move || of_disk.random());
        let server = Server::new(parts, disk, wakes, &directory.join("server"), flags);
        let push = SimPush::new(random.random(), options.sabotage);
        let server = server.with(options.sabotage).writing(model.ledger()).waking(push.clone());
        let sabotage = options.sabotage;
        let parts = Parts { journal: journal.clone(), net: net.clone(), clock, model: model.clone(), sabotage };
        let count = profile.devices.len();
        let people = (0..count).map(|index| Person::new(index, directory, parts.clone())).collect();
        let has_stranger = sabotage == Some(Sabotage::ConnectionKept);
        let stranger = has_stranger.then(|| Person::new(count, directory, parts.clone()));
        journal.note(format!("profile: {profile:?}"));
        Self {
            options,
            random,
            profile,
            journal: journal.clone(),
            net,
            model,
            server,
            push,
            people,
            stranger,
            revoking: BTreeSet::new(),
            left_behind: BTreeMap::new(),
            due: BinaryHeap::new(),
            order: 0,
            has_begun_everything: false,
            poisonings: 0,
            happened: BTreeMap::new(),
        }
    }

    /// Runs it to its end, or to the first violation, which is in the journal then.
    pub async fn run(mut self) -> Summary {
        self.begin().await;
        let end = Instant::now() + Duration::from_millis(self.options.days * DAY_MS);
        let mut next = self.next_happening();
        let mut look = Instant::now();
        while Instant::now() < end && self.journal.violation().is_none() {
            let due = self.due.peek().map_or(end, |Reverse((at, ..))| *at);
            tokio::time::sleep_until(next.min(due).min(look).min(end)).await;
            let now = Instant::now();
            if now >= due {
                if let Some(Reverse((_, _, due))) = self.due.pop() {
                    self.end_of(due).await;
                }
            } else if now >= next {
                let kind = self.profile.next(&mut self.random);
                self.happen(kind).await;
                next = self.next_happening();
            }
            self.look();
            look = Instant::now() + Duration::from_millis(LOOK_EVERY_MS);
        }
        if self.journal.violation().is_none() {
            self.calm().await;
        }
        self.summary()
    }

    async fn begin(&mut self) {
        if let Err(error) = self.server.start().await {
            return self.journal.violate("the server starts", format!("{error:#}"));
        }
        self.look();
        if let Some(stranger) = &mut self.stranger {
            stranger.register(self.server.url()).await;
            stranger.device_mut(0).come().await;
        }
        for person in 0..self.people.len() {
            // The first two are there from the start; the others come in the middle of everything.
            if person < 2 {
                self.register(person).await;
            } else {
                let within_ms = self.options.days * DAY_MS / 2;
                let after_ms = self.random.random_range(0..within_ms.max(1));
                self.later(after_ms, Due::Register(person));
            }
        }
        self.plan_musts();
    }

    /// What this run must bring about is spread over its first two thirds, beginning early.
    fn plan_musts(&mut self) {
        let part_ms = (self.options.days * DAY_MS * 2 / 3 / MUST_TIMES).max(1);
        for kind in self.profile.musts.clone() {
            for time in 0..MUST_TIMES {
                let after_ms = time * part_ms + self.random.random_range(0..part_ms);
                self.later(after_ms, Due::BringAbout(kind));
            }
        }
    }

    async fn happen(&mut self, kind: Happening) {
        *self.happened.entry(kind).or_default() += 1;
        self.act(kind).await;
    }

    async fn register(&mut self, person: usize) {
        let url = self.server.url();
        self.people[person].register(url).await;
        if !self.people[person].is_registered() {
            return self.later(MINUTE_MS, Due::Register(person));
        }
        self.people[person].device_mut(0).come().await;
        for _ in 1..self.profile.devices[person] {
            let new = self.people[person].install();
            if self.profile.links_late {
                self.draw_past(new);
                let within_ms = self.options.days * DAY_MS / 2;
                let after_ms = self.random.random_range(0..within_ms.max(1));
                self.later(after_ms, Due::Link(new));
            } else {
                self.try_link(new).await;
            }
        }
    }

    fn next_happening(&mut self) -> Instant {
        let pause_ms = self.profile.pause_ms(&mut self.random, self.journal.now_ms());
        Instant::now() + Duration::from_millis(pause_ms)
    }

    fn later(&mut self, after_ms: u64, due: Due) {
        assert!(self.due.len() < DUE_MAX, "everything that begins also ends");
        self.order += 1;
        self.due.push(Reverse((Instant::now() + Duration::from_millis(after_ms), self.order, due)));
    }

    async fn end_of(&mut self, due: Due) {
        match due {
            Due::Come(who) => self.at_mut(who).come().await,
            Due::Register(person) => {
                if !self.people[person].is_registered() {
                    self.register(person).await;
                }
            }
            Due::Link(new) => Box::pin(self.link_amid_faults(new)).await,
            Due::Revoke(who) => self.try_revoke(who).await,
            Due::Recover(new) => self.try_recover(new).await,
            Due::PutBack(who) => self.put_back(who).await,
            Due::BringAbout(kind) => Box::pin(self.bring_about(kind)).await,
            Due::StartServer => self.start_server().await,
            Due::FineWeather => {
                self.journal.note("network: fine");
                self.net.set_weather(Weather::fine());
                self.disturbs(false);
            }
            Due::Reach(who) => {
                self.journal.note(format!("network: {who} can be reached"));
                self.net.set_reach(self.at(who).address(), true, true);
                self.disturbs(false);
            }
            Due::Wakes => self.server.wakes.set(Fates::default()),
            Due::Push => self.push.set(PushFates::default()),
            Due::Disk => self.mend_disk(),
            Due::Clock => {
                self.journal.note("clock: put right");
                self.server.clock.mend();
            }
        }
    }

    fn mend_disk(&self) {
        self.journal.note("disk: well");
        self.server.disk.set_rates(FaultRates::default());
        self.server.disk.fail_writes(None);
        self.server.disk.fail_reads(None);
        self.server.disk.set_latency(Duration::ZERO..=Duration::ZERO);
        self.model.server_forgets();
        self.disturbs(false);
    }

    /// Something begins or ends that may hold up what is under way. When one thing ends another may still last: then what
    /// counts is that it has begun.
    fn disturbs(&self, begins: bool) {
        let lasts =
            self.due.iter().any(|Reverse((.., due))| matches!(due, Due::FineWeather | Due::Reach(_) | Due::Disk));
        self.model.disturbed(begins || lasts);
    }

    async fn start_server(&mut self) {
        let Err(error) = self.start_on_its_disk().await else { return };
        // A clock that is years off is for the operator to look at.
        let said = format!("{error:#}");
        let is_mad = said.contains("of the last time") || said.contains("behind the last time");
        let is_mad = is_mad && self.server.clock.off_ms() != 0;
        self.journal.check(is_mad, "the server starts", || format!("{error:#}"));
        self.journal.note("server: refused to start by its clock; put right");
        self.server.clock.mend();
        if let Err(error) = self.start_on_its_disk().await {
            self.journal.violate("the server starts", format!("{error:#}"));
        }
    }

    /// Starts the server, now, or later if a bad disk keeps it from that; the error is of something else.
    async fn start_on_its_disk(&mut self) -> anyhow::Result<()> {
        let faults = self.server.disk.counts().faults;
        let Err(error) = self.server.start().await else { return Ok(()) };
        if self.server.disk.counts().faults == faults {
            return Err(error);
        }
        self.journal.note("server: its disk keeps it from starting");
        self.later(MINUTE_MS, Due::StartServer);
        Ok(())
    }

    /// Looks at what must hold at any moment.
    fn look(&mut self) {
        self.supervise();
        if let Some((now_ms, status)) = self.server.time() {
            self.model.server_time(now_ms);
            let wall_ms = self.server.clock.wall_ms();
            let held = status.held_jump_ms > 0 || wall_ms <= now_ms;
            self.journal.check(held, "a clock that is not obeyed is said to be held", || format!("{status:?}"));
        }
        self.check_wakes();
        for broken in self.server.disk.take_violations() {
            self.journal.violate("the store holds together", format!("{broken:?}"));
        }
        if let Some(node) = self.server.node() {
            let memory = node.memory();
            self.journal.check(memory.is_within_limits(), "memory stays under its bound", || format!("{memory:?}"));
        }
    }

    /// Starts a server anew that has ended by itself, as a supervisor does. Only a failed sync may end one.
    fn supervise(&mut self) {
        let Some(why) = self.server.failure() else { return };
        let poisonings = self.server.disk.counts().poisoned;
        let is_planned = poisonings > self.poisonings;
        self.journal.check(is_planned, "a server ends by itself over a failed sync alone", || why.clone());
        self.poisonings = poisonings;
        self.journal.note(format!("server: has ended: {why}"));
        self.crash_server();
        let after_ms = self.random.random_range(1..MINUTE_MS);
        self.later(after_ms, Due::StartServer);
    }

    fn crash_server(&mut self) {
        self.server.crash();
        self.model.server_forgets();
    }

    fn summary(&self) -> Summary {
        let disk: DiskCounts = self.server.disk.counts();
        let woken = self.push.total();
        Summary {
            seed: self.options.seed,
            days: self.options.days,
            people: self.people.len(),
            devices: self.people.iter().map(|person| person.devices().len()).sum(),
            retention_ms: self.profile.retention_ms,
            groups: self.model.ledger().groups(),
            happenings: self.happened.clone(),
            messages: self.model.counts(),
            traffic: self.net.traffic(),
            wakes: self.server.wakes.counts(),
            woken: (woken.messages, woken.expiring, woken.unanswered),
            disk: [
                ("writes", disk.writes),
                ("faults", disk.faults),
                ("poisoned", disk.poisoned),
                ("crashes", disk.crashes),
                ("batches_lost", disk.lost),
                ("batches_reappeared", disk.reappeared),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
            events: self.journal.events(),
            digest: self.journal.digest(),
            violation: self.journal.violation(),
        }
    }
}
