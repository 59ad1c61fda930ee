//! The end of a run: faults end, everybody comes, and all must be in step again within a bound.

use gureum_client::vault::HistoryItem;

use super::{Duration, Fates, Instant, MINUTE_MS, Who, World};

/// How long everybody has to come into step once all is well, in milliseconds. What a client was refused again and again
/// is tried every quarter of an hour.
const IN_STEP_MS_MAX: u64 = 40 * MINUTE_MS;
/// How long what no wake told of may take, in milliseconds: reminders go round.
const REMINDED_MS_MAX: u64 = 15 * MINUTE_MS;
/// How long what is sent then may take, in milliseconds.
pub(super) const HEALTHY_MS_MAX: u64 = MINUTE_MS;
/// How long it takes at most until everybody has heard of who is in a conversation, in milliseconds: a session that hears
/// nothing looks for itself every 5 minutes.
const HEARD_MS_MAX: u64 = 6 * MINUTE_MS;
/// How often everybody writes to everybody before that.
const COMMOTIONS: usize = 5;
/// How soon it is looked at, in milliseconds.
const LOOK_MS: u64 = 5_000;
/// How often it is looked at later on, in milliseconds: a look compares all histories.
const LOOK_MS_MAX: u64 = 30_000;
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
        }
        for who in self.all() {
            self.at_mut(who).come().await;
        }
        self.finish_devices().await;
        // Those that were revoked as well: they are to be told so.
        for who in self.all() {
            self.at_mut(who).come().await;
        }
        if !self.begin_everything().await || !self.settle(IN_STEP_MS_MAX, "all come into step when faults end").await {
            return;
        }
        self.journal.note("calm: all are in step; the last wakes get lost");
        self.model.all_well();
        self.server.wakes.set(Fates { loss: 1.0, ..Fates::default() });
        self.commotion();
        self.group_commotion().await;
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        self.server.wakes.set(Fates::default());
        if !self.settle(REMINDED_MS_MAX, "a lost wake delays for a while only").await {
            return;
        }
        // A disk that takes its time, so that much comes while something is read or written.
        self.server.disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(20));
        for _ in 0..COMMOTIONS {
            self.commotion();
            self.group_commotion().await;
            self.pause(100).await;
        }
        if !self.settle(HEALTHY_MS_MAX, "a healthy system delivers").await {
            return;
        }
        self.read_everything();
        self.read_groups().await;
        if !self.settle(HEALTHY_MS_MAX, "who wrote it learns that it was read").await {
            return;
        }
        if !self.wake_the_absent().await {
            return;
        }
        self.check_leaks().await;
        for who in self.all() {
            self.at_mut(who).leave(super::Leave::Closed).await;
        }
        if let Err(error) = self.server.stop().await {
            self.journal.violate("the server stops in order", format!("{error:#}"));
        }
    }

    pub(super) async fn settle(&mut self, within_ms: u64, rule: &'static str) -> bool {
        let until = Instant::now() + Duration::from_millis(within_ms);
        let mut pause_ms = LOOK_MS;
        loop {
            let next = Instant::now() + Duration::from_millis(pause_ms);
            tokio::time::sleep_until(next.min(until + Duration::from_millis(1))).await;
            pause_ms = (pause_ms * 5 / 4).min(LOOK_MS_MAX);
            self.look();
            if self.journal.violation().is_some() {
                return false;
            }
            let is_over = Instant::now() > until;
            let open = self.open_questions(is_over).await;
            if open.is_empty() {
                return true;
            }
            if is_over {
                self.journal.violate(rule, open.join("; "));
                return false;
            }
        }
    }

    /// Everybody begins every conversation, and hears of whoever has come into one: what is sent later is for all.
    async fn begin_everything(&mut self) -> bool {
        if !self.settle(IN_STEP_MS_MAX, "all come into step when faults end").await {
            return false;
        }
        self.commotion();
        self.group_commotion().await;
        tokio::time::sleep(Duration::from_millis(HEARD_MS_MAX)).await;
        self.has_begun_everything = true;
        true
    }

    /// Everybody reads everything.
    fn read_everything(&mut self) {
        for who in self.online() {
            for with in (0..self.people.len()).filter(|with| *with != who.person) {
                let with = self.people[with].handle();
                self.at_mut(who).read(with);
            }
        }
    }

    /// What is not as it must be. What is asked cheaply is asked first; of the rest only where `all` is to be known.
    async fn open_questions(&mut self, all: bool) -> Vec<String> {
        let mut open = self.open_devices();
        open.extend(self.open_groups());
        if !open.is_empty() && !all {
            return open;
        }
        let mut histories: Vec<(Who, Vec<HistoryItem>)> = Vec::new();
        for who in self.all() {
            histories.extend(self.history(who).await.map(|history| (who, history)));
        }
        open.extend(self.model.open_questions(&histories));
        if open.is_empty() {
            open.extend(self.open_homes());
        }
        open
    }

    /// What is on a device that is or was one of its account's. What is on one that is gone changes no more.
    async fn history(&mut self, who: Who) -> Option<Vec<HistoryItem>> {
        if let Some(history) = self.left_behind.get(&who) {
            return Some(history.clone());
        }
        let device = self.at(who);
        device.device()?;
        let is_over = device.is_revoked() && (device.has_stopped() || !device.runs());
        let history = device.history().await.unwrap_or_default();
        if is_over {
            self.left_behind.insert(who, history.clone());
        }
        Some(history)
    }

    /// All devices are in step, and those that were revoked are told so.
    fn open_devices(&self) -> Vec<String> {
        let mut open = Vec::new();
        for who in self.all() {
            let device = self.at(who);
            if device.is_in_use() && !device.is_in_step() {
                open.push(format!("{who} is not in step"));
            }
            if device.is_revoked() && device.runs() && !device.has_stopped() {
                open.push(format!("{who} is revoked and still connected"));
            }
        }
        open
    }

    /// In each group are all devices of its accounts, and no revoked one. One that all have left at the same time stays as it
    /// is: nobody is there to remove anybody.
    fn open_groups(&self) -> Vec<String> {
        let groups = match self.server.groups() {
            Ok(groups) => groups,
            Err(error) => return vec![format!("the conversations cannot be read: {error:#}")],
        };
        let mut open = Vec::new();
        for group in groups.iter().filter(|group| !group.accounts.is_empty()) {
            let id = group.conversation;
            for who in self.all() {
                let device = self.at(who);
                let has_leaf = device.device().is_some_and(|device| group.members.contains(&device));
                let is_of = |who: &Who| self.at(*who).device().is_some_and(|device| group.members.contains(&device));
                let is_in = self.all().iter().any(|other| other.person == who.person && is_of(other));
                if device.is_revoked() && has_leaf {
                    open.push(format!("{who} is revoked and has a leaf in {id}"));
                }
                if device.is_in_use() && is_in && !has_leaf {
                    open.push(format!("{who} has no leaf in {id}, in which its account is"));
                }
            }
            if !group.removals.is_empty() {
                open.push(format!("a removal from {id} is still pending"));
            }
        }
        open
    }

    /// Connections of clients that are gone must be gone as well after a while of silence.
    async fn check_leaks(&mut self) {
        tokio::time::sleep(Duration::from_millis(2 * MINUTE_MS)).await;
        let Some(node) = self.server.node() else { return };
        let memory = node.memory();
        let online = self.online().len();
        let holds = memory.connections == online && memory.queued == 0 && memory.queued_bytes == 0;
        self.journal.check(holds, "nothing is held for who is gone", || format!("{online} devices, {memory:?}"));
    }
}
