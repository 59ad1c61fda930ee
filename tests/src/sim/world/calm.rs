//! The end of a run: faults end, everybody comes, and all must be in step again within a bound.

use gureum_client::vault::HistoryItem;

use super::{Duration, Fates, Instant, MINUTE_MS, World};

/// How long everybody has to come into step once all is well, in milliseconds. What a client was refused again and again
/// is tried every quarter of an hour.
const IN_STEP_MS_MAX: u64 = 40 * MINUTE_MS;
/// How long what no wake told of may take, in milliseconds: reminders go round.
const REMINDED_MS_MAX: u64 = 15 * MINUTE_MS;
/// How long what is sent then may take, in milliseconds.
const HEALTHY_MS_MAX: u64 = MINUTE_MS;
/// How often everybody writes to everybody before that.
const COMMOTIONS: usize = 5;
/// How often it is looked at, in milliseconds.
const LOOK_MS: u64 = 5_000;
/// How often somebody without an account tries to get one.
const REGISTRATIONS_MAX: usize = 10;

impl World {
    /// Ends the faults and waits until everybody is in step; what is not, is a violation.
    pub(super) async fn calm(&mut self) {
        self.journal.note("calm: all faults end");
        self.look();
        self.end_faults();
        self.start_server().await;
        for person in 0..self.people.len() {
            for _ in 0..REGISTRATIONS_MAX {
                if !self.people[person].is_registered() {
                    let url = self.server.url();
                    self.people[person].register(url).await;
                }
            }
            self.people[person].come().await;
        }
        if !self.settle(IN_STEP_MS_MAX, "all come into step when faults end").await {
            return;
        }
        self.journal.note("calm: all are in step; the last wakes get lost");
        self.model.all_well();
        self.server.wakes.set(Fates { loss: 1.0, ..Fates::default() });
        self.commotion();
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        self.server.wakes.set(Fates::default());
        if !self.settle(REMINDED_MS_MAX, "a lost wake delays for a while only").await {
            return;
        }
        // A disk that takes its time, so that much comes while something is read or written.
        self.server.disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(20));
        for _ in 0..COMMOTIONS {
            self.commotion();
            self.pause(100).await;
        }
        if !self.settle(HEALTHY_MS_MAX, "a healthy system delivers").await {
            return;
        }
        self.check_leaks().await;
        for person in &mut self.people {
            person.leave(super::Leave::Closed).await;
        }
        if let Err(error) = self.server.stop().await {
            self.journal.violate("the server stops in order", format!("{error:#}"));
        }
    }

    async fn settle(&mut self, within_ms: u64, rule: &'static str) -> bool {
        let until = Instant::now() + Duration::from_millis(within_ms);
        loop {
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
            self.look();
            if self.journal.violation().is_some() {
                return false;
            }
            let open = self.open_questions().await;
            if open.is_empty() {
                return true;
            }
            if Instant::now() > until {
                self.journal.violate(rule, open.join("; "));
                return false;
            }
        }
    }

    async fn open_questions(&self) -> Vec<String> {
        let mut histories: Vec<Vec<HistoryItem>> = Vec::new();
        for person in &self.people {
            histories.push(person.history().await.unwrap_or_default());
        }
        let late = self.people.iter().enumerate().filter(|(_, person)| !person.is_in_step());
        let mut open: Vec<_> = late.map(|(index, _)| format!("person {index} is not in step")).collect();
        open.extend(self.model.open_questions(&histories));
        open
    }

    /// Connections of clients that are gone must be gone as well after a while of silence.
    async fn check_leaks(&mut self) {
        tokio::time::sleep(Duration::from_millis(2 * MINUTE_MS)).await;
        let Some(node) = self.server.node() else { return };
        let memory = node.memory();
        let people = self.people.len();
        let holds = memory.connections == people && memory.queued == 0 && memory.queued_bytes == 0;
        self.journal.check(holds, "nothing is held for who is gone", || format!("{people} people, {memory:?}"));
    }
}
