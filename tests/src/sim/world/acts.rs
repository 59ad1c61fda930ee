//! What each happening does.

use gureum_client::vault::Target;
use gureum_proto::Handle;
use gureum_server::store::StoreError;

use super::{
    DAY_MS, Due, Duration, Fates, FaultRates, HOUR_MS, Happening, Leave, MINUTE_MS, PushFates, Rng, SERVER, Weather,
    Who, World,
};
use crate::sim::model::To;

/// The longest text, in bytes.
const TEXT_BYTES_MAX: usize = 3_000;
/// Messages of one burst.
const BURST_MAX: usize = 40;

impl World {
    pub(super) async fn act(&mut self, kind: Happening) {
        match kind {
            Happening::Message => self.talk(1),
            Happening::Exchange => self.exchange().await,
            Happening::Burst => {
                let count = self.random.random_range(5..=BURST_MAX);
                self.talk(count);
            }
            Happening::Commotion => {
                self.commotion();
                self.group_commotion().await;
            }
            Happening::ShortAbsence => {
                let for_ms = self.random.random_range(MINUTE_MS..8 * HOUR_MS);
                self.absence(for_ms).await;
            }
            Happening::LongAbsence => {
                let for_ms = self.long_ms();
                self.absence(for_ms).await;
            }
            Happening::BrinkAbsence => self.brink_absence().await,
            Happening::ClientCrash => self.client_crash().await,
            Happening::ServerCrash => self.server_crash().await,
            Happening::ServerRestart => self.server_restart().await,
            Happening::BadWeather => {
                let foul = self.random.random_bool(0.4);
                let weather = if foul { Weather::foul() } else { Weather::changeable() };
                let for_ms = self.random.random_range(MINUTE_MS..2 * HOUR_MS);
                self.weather(if foul { "foul" } else { "changeable" }, weather, for_ms);
            }
            Happening::Outage => self.outage(),
            Happening::Partition => self.partition(),
            Happening::NewAddress => self.new_address().await,
            Happening::ClockSlip => {
                let by_ms = self.random.random_range(-120_000..=120_000);
                self.jump(by_ms);
            }
            Happening::ClockLeap => {
                let most_ms = i64::try_from(12 * HOUR_MS).unwrap_or(i64::MAX);
                let by_ms = self.random.random_range(-most_ms..=most_ms);
                self.jump(by_ms);
            }
            Happening::ClockMadness => {
                let years = self.random.random_range(2..30);
                let by_ms = years * 365 * i64::try_from(DAY_MS).unwrap_or(i64::MAX);
                let by_ms = if self.random.random_bool(0.5) { by_ms } else { -by_ms };
                self.jump(by_ms);
            }
            Happening::LostWakes => {
                self.journal.note("wakes: get lost");
                let loss = self.random.random_range(0.2..0.9);
                self.server.wakes.set(Fates { loss, doubling: 0.2, lateness: 0.2 });
                let for_ms = self.random.random_range(10 * MINUTE_MS..6 * HOUR_MS);
                self.later(for_ms, Due::Wakes);
            }
            Happening::FullDisk | Happening::BadDisk | Happening::SlowDisk => self.trouble_disk(kind),
            Happening::PushTrouble => {
                self.journal.note("push: services fail");
                self.push.set(PushFates { failure: 0.4, hang: 0.3, lost_answer: 0.1 });
                let for_ms = self.random.random_range(10 * MINUTE_MS..6 * HOUR_MS);
                self.later(for_ms, Due::Push);
            }
            Happening::ReadMarks => self.read(),
            Happening::Link => self.link().await,
            Happening::Revoke => self.revoke().await,
            Happening::Recover => self.recover().await,
            Happening::RestoreCopy => self.copy().await,
            Happening::Settings => self.decide().await,
            Happening::NewGroup => self.make_group().await,
            Happening::GroupTalk => self.talk_in_group().await,
            Happening::GroupChange => self.change_group().await,
        }
    }

    /// Brings about what the run must have had, and has everybody write so that it shows.
    pub(super) async fn bring_about(&mut self, kind: Happening) {
        self.journal.note(format!("must be: {kind:?}"));
        self.happen(kind).await;
        if !kind.changes_devices() {
            self.commotion();
            self.pause(2_000).await;
            self.commotion();
        }
    }

    /// A device at which somebody sits, and somebody else with an account.
    pub(super) fn pair(&mut self) -> Option<(Who, usize)> {
        let online = self.online();
        let from = self.choose(&online)?;
        let others: Vec<_> = (0..self.people.len())
            .filter(|person| *person != from.person && self.people[*person].is_registered())
            .collect();
        let to = self.choose(&others)?;
        Some((from, to))
    }

    fn someone_online(&mut self) -> Option<Who> {
        self.pair().map(|(from, _)| from)
    }

    /// A device at which somebody sits.
    fn device_of(&mut self, person: usize) -> Option<Who> {
        let online: Vec<_> = self.online().into_iter().filter(|who| who.person == person).collect();
        self.choose(&online)
    }

    fn talk(&mut self, count: usize) {
        let Some((from, to)) = self.pair() else { return };
        self.say(from, to, count);
    }

    fn say(&mut self, from: Who, to: usize, count: usize) {
        self.journal.note(format!("{from} writes {count} to person{to}"));
        let handle: Handle = self.people[to].handle();
        self.speak(from, (To::Person(to), handle.into()), count);
    }

    /// Hands texts to a device.
    pub(super) fn speak(&mut self, from: Who, (to, target): (To, Target), count: usize) {
        for _ in 0..count {
            // Mostly short, sometimes long.
            let most = if self.random.random_bool(0.9) { 100 } else { TEXT_BYTES_MAX };
            let bytes = self.random.random_range(0..most);
            let text = self.people[from.person].next_text(bytes);
            self.at(from).say((to, target.clone()), text);
        }
    }

    fn read(&mut self) {
        let Some((who, with)) = self.pair() else { return };
        self.journal.note(format!("{who} reads what person{with} has written"));
        let with = self.people[with].handle();
        self.at_mut(who).read(with);
    }

    /// Somebody decides something for all devices, while the client is closed.
    async fn decide(&mut self) {
        let Some(who) = self.someone_online() else { return };
        let shows_typing = self.random.random_bool(0.5);
        self.at_mut(who).decide(shows_typing).await;
    }

    async fn exchange(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        for _ in 0..self.random.random_range(2..6) {
            self.say(from, to, 1);
            self.pause(3_000).await;
            if let Some(answers) = self.device_of(to) {
                self.say(answers, from.person, 1);
                self.pause(3_000).await;
            }
        }
    }

    /// Everybody writes to everybody, on each device.
    pub(super) fn commotion(&mut self) {
        for from in self.online() {
            for to in 0..self.people.len() {
                if from.person != to && self.people[to].is_registered() {
                    let count = self.random.random_range(1..8);
                    self.say(from, to, count);
                }
            }
        }
    }

    /// Waits up to so long, and then for some other tasks, so that what follows comes at any step of theirs.
    pub(super) async fn pause(&mut self, most_ms: u64) {
        let pause = Duration::from_millis(self.random.random_range(0..=most_ms));
        tokio::time::sleep(pause).await;
        for _ in 0..self.random.random_range(0..30) {
            tokio::task::yield_now().await;
        }
    }

    async fn absence(&mut self, for_ms: u64) {
        let Some(who) = self.someone_online() else { return };
        self.go_away(who, for_ms).await;
    }

    /// A device is closed, in order or not, and comes back.
    pub(super) async fn go_away(&mut self, who: Who, for_ms: u64) {
        let how = if self.random.random_bool(0.5) { Leave::Closed } else { Leave::Crashed };
        self.at_mut(who).leave(how).await;
        self.later(for_ms, Due::Come(who));
    }

    /// About as long as a message is kept.
    pub(super) fn long_ms(&mut self) -> u64 {
        let retention_ms = self.profile.retention_ms;
        self.random.random_range(retention_ms / 2..retention_ms * 2)
    }

    async fn brink_absence(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        let Some(away) = self.device_of(to) else { return };
        self.at_mut(away).leave(Leave::Closed).await;
        for _ in 0..self.random.random_range(1..5) {
            self.say(from, to, 2);
            self.pause(4 * MINUTE_MS).await;
        }
        let for_ms = self.profile.retention_ms - 5 * MINUTE_MS + self.random.random_range(0..15 * MINUTE_MS);
        self.later(for_ms, Due::Come(away));
    }

    async fn client_crash(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        if self.random.random_bool(0.8) {
            let count = self.random.random_range(1..20);
            self.say(from, to, count);
        }
        self.pause(400).await;
        let is_reader = self.random.random_bool(0.5);
        let who = self.device_of(to).filter(|_| is_reader).unwrap_or(from);
        self.crash(who).await;
    }

    /// A client ends where it stands, and comes back.
    pub(super) async fn crash(&mut self, who: Who) {
        self.at_mut(who).leave(Leave::Crashed).await;
        let for_ms = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(1..HOUR_MS) };
        self.later(for_ms, Due::Come(who));
    }

    pub(super) async fn server_crash(&mut self) {
        if !self.server.runs() {
            return;
        }
        if self.random.random_bool(0.8) {
            self.commotion();
            self.group_commotion().await;
        }
        self.pause(400).await;
        self.look();
        self.crash_server();
        let for_ms = if self.random.random_bool(0.6) { 1 } else { self.random.random_range(1..HOUR_MS) };
        self.later(for_ms, Due::StartServer);
    }

    async fn server_restart(&mut self) {
        if !self.server.runs() {
            return;
        }
        if self.random.random_bool(0.5) {
            self.commotion();
            self.pause(400).await;
        }
        self.look();
        if let Err(error) = self.server.stop().await {
            self.journal.violate("the server stops in order", format!("{error:#}"));
        }
        let for_ms = self.random.random_range(1..10 * MINUTE_MS);
        self.later(for_ms, Due::StartServer);
    }

    fn weather(&mut self, name: &str, weather: Weather, for_ms: u64) {
        self.journal.note(format!("network: {name} for {} s", for_ms / 1_000));
        self.net.set_weather(weather);
        self.disturbs(true);
        self.later(for_ms, Due::FineWeather);
    }

    pub(super) fn outage(&mut self) {
        let for_ms = self.random.random_range(5_000..30 * MINUTE_MS);
        self.weather("out", Weather::out(), for_ms);
    }

    fn partition(&mut self) {
        let all = self.all();
        if let Some(who) = self.choose(&all) {
            self.cut_off(who);
        }
    }

    /// A device reaches nobody, or nobody reaches it, or both, for a while.
    pub(super) fn cut_off(&mut self, who: Who) {
        let (sends, receives) = match self.random.random_range(0..3) {
            0 => (false, true),
            1 => (true, false),
            _ => (false, false),
        };
        self.journal.note(format!("network: {who} sends {sends} receives {receives}"));
        self.net.set_reach(self.at(who).address(), sends, receives);
        self.disturbs(true);
        let for_ms = self.random.random_range(1_000..20 * MINUTE_MS);
        self.later(for_ms, Due::Reach(who));
    }

    async fn new_address(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        for _ in 0..self.random.random_range(1..4) {
            self.say(from, to, 3);
            self.pause(500).await;
            self.journal.note(format!("network: {from} has another address"));
            self.net.rebind(self.at(from).address());
            self.disturbs(false);
            self.pause(500).await;
        }
    }

    fn jump(&mut self, by_ms: i64) {
        self.journal.note(format!("clock: jumps by {} s", by_ms / 1_000));
        self.look();
        self.server.clock.jump(by_ms);
        let for_ms = self.random.random_range(MINUTE_MS..DAY_MS);
        self.later(for_ms, Due::Clock);
    }

    fn trouble_disk(&mut self, kind: Happening) {
        self.journal.note(format!("disk: {kind:?}"));
        let disk = &self.server.disk;
        match kind {
            Happening::FullDisk => disk.fail_writes(Some(StoreError::Full("a simulated disk is full".to_owned()))),
            Happening::BadDisk => disk.set_rates(FaultRates { writes: 100, syncs: 100, reads: 50 }),
            _ => disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(300)),
        }
        self.model.server_forgets();
        self.disturbs(true);
        let for_ms = self.random.random_range(5_000..HOUR_MS);
        self.later(for_ms, Due::Disk);
    }

    /// Everything is as it should be from now on.
    pub(super) fn end_faults(&mut self) {
        self.due.clear();
        self.net.set_weather(Weather::fine());
        for who in self.all() {
            self.net.set_reach(self.at(who).address(), true, true);
        }
        self.net.set_reach(SERVER.ip(), true, true);
        self.server.wakes.set(Fates::default());
        self.push.set(PushFates::default());
        self.server.clock.mend();
        self.mend_disk();
    }
}
