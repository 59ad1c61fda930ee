//! What each happening does.

use gureum_proto::Handle;
use gureum_server::store::StoreError;

use super::{
    DAY_MS, Due, Duration, Fates, FaultRates, HOUR_MS, Happening, Leave, MINUTE_MS, Rng, SERVER, Weather, World,
};

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
            Happening::Commotion => self.commotion(),
            Happening::ShortAbsence => {
                let for_ms = self.random.random_range(MINUTE_MS..8 * HOUR_MS);
                self.absence(for_ms).await;
            }
            Happening::LongAbsence => {
                let retention_ms = self.profile.retention_ms;
                let for_ms = self.random.random_range(retention_ms / 2..retention_ms * 2);
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
            Happening::Outage => {
                let for_ms = self.random.random_range(5_000..30 * MINUTE_MS);
                self.weather("out", Weather::out(), for_ms);
            }
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
        }
    }

    /// Somebody who is there, and somebody with an account.
    fn pair(&mut self) -> Option<(usize, usize)> {
        let online: Vec<_> = (0..self.people.len()).filter(|person| self.people[*person].is_online()).collect();
        let from = *online.get(self.random.random_range(0..online.len().max(1)))?;
        let others: Vec<_> =
            (0..self.people.len()).filter(|person| *person != from && self.people[*person].is_registered()).collect();
        let to = *others.get(self.random.random_range(0..others.len().max(1)))?;
        Some((from, to))
    }

    fn someone_online(&mut self) -> Option<usize> {
        self.pair().map(|(from, _)| from)
    }

    fn talk(&mut self, count: usize) {
        let Some((from, to)) = self.pair() else { return };
        self.say(from, to, count);
    }

    fn say(&mut self, from: usize, to: usize, count: usize) {
        self.journal.note(format!("person{from} writes {count} to person{to}"));
        let handle: Handle = self.people[to].handle();
        for _ in 0..count {
            // Mostly short, sometimes long.
            let most = if self.random.random_bool(0.9) { 100 } else { TEXT_BYTES_MAX };
            let bytes = self.random.random_range(0..most);
            self.people[from].say((to, handle.clone()), bytes);
        }
    }

    async fn exchange(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        for _ in 0..self.random.random_range(2..6) {
            self.say(from, to, 1);
            self.pause(3_000).await;
            if self.people[to].is_online() {
                self.say(to, from, 1);
                self.pause(3_000).await;
            }
        }
    }

    /// Everybody writes to everybody.
    pub(super) fn commotion(&mut self) {
        for from in 0..self.people.len() {
            for to in 0..self.people.len() {
                let can = from != to && self.people[from].is_online() && self.people[to].is_registered();
                if can {
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
        let Some(person) = self.someone_online() else { return };
        let how = if self.random.random_bool(0.5) { Leave::Closed } else { Leave::Crashed };
        self.people[person].leave(how).await;
        self.later(for_ms, Due::Come(person));
    }

    async fn brink_absence(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        if !self.people[to].is_online() {
            return;
        }
        self.people[to].leave(Leave::Closed).await;
        for _ in 0..self.random.random_range(1..5) {
            self.say(from, to, 2);
            self.pause(4 * MINUTE_MS).await;
        }
        let for_ms = self.profile.retention_ms - 5 * MINUTE_MS + self.random.random_range(0..15 * MINUTE_MS);
        self.later(for_ms, Due::Come(to));
    }

    async fn client_crash(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        if self.random.random_bool(0.8) {
            let count = self.random.random_range(1..20);
            self.say(from, to, count);
        }
        self.pause(400).await;
        let who = if self.random.random_bool(0.5) && self.people[to].is_online() { to } else { from };
        self.people[who].leave(Leave::Crashed).await;
        let for_ms = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(1..HOUR_MS) };
        self.later(for_ms, Due::Come(who));
    }

    async fn server_crash(&mut self) {
        if !self.server.runs() {
            return;
        }
        if self.random.random_bool(0.8) {
            self.commotion();
        }
        self.pause(400).await;
        self.look();
        self.server.crash();
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

    fn partition(&mut self) {
        let person = self.random.random_range(0..self.people.len());
        let (sends, receives) = match self.random.random_range(0..3) {
            0 => (false, true),
            1 => (true, false),
            _ => (false, false),
        };
        self.journal.note(format!("network: person{person} sends {sends} receives {receives}"));
        self.net.set_reach(self.people[person].address(), sends, receives);
        self.disturbs(true);
        let for_ms = self.random.random_range(1_000..20 * MINUTE_MS);
        self.later(for_ms, Due::Reach(person));
    }

    async fn new_address(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        for _ in 0..self.random.random_range(1..4) {
            self.say(from, to, 3);
            self.pause(500).await;
            self.journal.note(format!("network: person{from} has another address"));
            self.net.rebind(self.people[from].address());
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
            Happening::BadDisk => disk.set_rates(FaultRates { writes: 100, syncs: 20, reads: 50 }),
            _ => disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(300)),
        }
        self.disturbs(true);
        let for_ms = self.random.random_range(5_000..HOUR_MS);
        self.later(for_ms, Due::Disk);
    }

    /// Everything is as it should be from now on.
    pub(super) fn end_faults(&mut self) {
        self.due.clear();
        self.net.set_weather(Weather::fine());
        for person in &self.people {
            self.net.set_reach(person.address(), true, true);
        }
        self.net.set_reach(SERVER.ip(), true, true);
        self.server.wakes.set(Fates::default());
        self.server.clock.mend();
        self.mend_disk();
    }
}
