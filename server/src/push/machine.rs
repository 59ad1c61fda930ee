//! Who is woken, and when: a pure machine over what inboxes hold and services answer.
//!
//! A wake-up is derived, not queued: whether a device is owed one follows from its inbox and from what it was last woken
//! for, so that no crash loses any:
//!
//! ```text
//! first(A)     = the first message that no device of account A has taken, and that is worth a wake-up
//! awaited(D)   ⇔ device D was woken for more than it has taken, and has not connected since
//! owed(D)      ⇔ first(A) is older than the delay ∧ ¬awaited(D) ∧ D was not woken for messages within its pause
//! alarmed(D)   ⇔ the store says so, since what its person has to know was written; until it was woken or has connected
//! expiring(D)  ⇔ an accepted message that D has not taken has a day left, or a third of its life if that is shorter
//!                ∧ D was not warned of that since it was last connected
//! ```
//!
//! Whether devices are connected decides nothing: half-dead connections look alive. What is taken does.

mod account;
mod interface;
mod looks;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use gureum_proto::AccountId;

use crate::limits::{FACTS_MS_MAX, LOOK_RETRY_MS, PUSH_BACK_OFF_MS_MAX, PUSH_BACK_OFF_MS_MIN, PUSH_RETRY_AFTER_MS_MAX};
use crate::store::record::PushStateRecord;
use account::{Account, Device, Job, Owed, Phase, View};
pub use interface::{
    Action, BusyOf, Counts, Deadline, DeviceFacts, Facts, Failure, First, Input, Outcome, PerService, PushConfig,
    Route, ServiceCounts, WakeKind,
};
use looks::Looks;
use service::{Key, LaneId, Lanes, Verdict};

/// The machine.
///
/// Invariants: a device has at most one wake-up, and at most one request under way; an account has one timer, and one place
/// among those to be looked at. So its size is bounded by the devices that can be woken.
pub struct PushMachine {
    config: PushConfig,
    random: Box<dyn FnMut() -> u64 + Send + Sync>,
    accounts: BTreeMap<AccountId, Account>,
    targets: usize,
    timers: BTreeSet<(u64, AccountId)>,
    lanes: Lanes,
    looks: Looks,
    /// When the next round begins; `None`: nothing has been handed in yet.
    sweep_at_ms: Option<u64>,
    /// Until when everybody may come back after the start.
    quiet_until_ms: Option<u64>,
    /// Requests under way: the lane of each, and when it was sent. What is learned from one goes to the wake-up that it is
    /// of, if that is still the device's.
    flights: BTreeMap<Key, (LaneId, u64)>,
    actions: VecDeque<Action>,
}

impl PushMachine {
    /// A machine that knows nobody yet. `random` spreads what is tried again.
    #[must_use]
    pub fn new(config: PushConfig, random: Box<dyn FnMut() -> u64 + Send + Sync>) -> Self {
        Self {
            config,
            random,
            accounts: BTreeMap::new(),
            targets: 0,
            timers: BTreeSet::new(),
            lanes: Lanes::new(),
            looks: Looks::default(),
            sweep_at_ms: None,
            quiet_until_ms: None,
            flights: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes an input at a time, which never decreases. Actions may follow.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        self.pass_time(now_ms);
        match input {
            Input::Target { account, device, route, visible, state } => {
                self.on_target((account, device), route, visible, state, now_ms);
            }
            Input::NoTarget { account, device } => self.forget((account, device), now_ms),
            Input::Moved { account, grown_seq, taken_seq } => self.on_moved(account, grown_seq, taken_seq, now_ms),
            Input::Connected { account, device } => self.on_connected((account, device), now_ms),
            Input::Closed { account, device } => self.on_closed((account, device), now_ms),
            Input::Alarm { account, device, owed_ms } => self.on_alarm((account, device), owed_ms, now_ms),
            Input::Looked { account, facts } => self.on_looked(account, facts, now_ms),
            Input::Sent { account, device, outcome } => self.on_sent((account, device), outcome, now_ms),
            Input::Unsent { account, device } => self.on_unsent((account, device), now_ms),
            Input::Tick => {}
        }
        self.start_sends(now_ms);
        self.start_looks();
    }

    /// The next action, in the order in which they are to be performed.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to hand in a [`Input::Tick`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(u64, Deadline)> {
        let account = self.timers.first().map(|(at_ms, _)| (*at_ms, Deadline::Account));
        let breaker = self.lanes.next_trial_ms().map(|at_ms| (at_ms, Deadline::Breaker));
        let sweep = self.sweep_at_ms.map(|at_ms| (at_ms, Deadline::Sweep));
        [account, breaker, sweep].into_iter().flatten().min_by_key(|(at_ms, _)| *at_ms)
    }

    /// How it stands.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts { targets: self.targets, waiting: self.lanes.waiting, services: *self.lanes.counts() }
    }

    fn pass_time(&mut self, now_ms: u64) {
        self.sweep(now_ms);
        self.lanes.pass_time(now_ms);
        while let Some((_, id)) = self.timers.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.timers.pop_first();
            let Some(account) = self.accounts.get_mut(&id) else { continue };
            account.timer_ms = None;
            if account.take_due(now_ms) {
                account.is_due = true;
                self.want_look(id, false);
            }
            self.settle(id, now_ms);
        }
    }

    /// Begins a round when it is time. There is one at the moment when everybody has had the time to come back after the
    /// start; before it, rounds are about what expires alone.
    fn sweep(&mut self, now_ms: u64) {
        let quiet_until_ms = *self.quiet_until_ms.get_or_insert(now_ms.saturating_add(self.config.close_delay_ms));
        let next_ms = now_ms.saturating_add(self.config.sweep_ms);
        if *self.sweep_at_ms.get_or_insert(next_ms.min(quiet_until_ms)) > now_ms {
            return;
        }
        if !self.looks.has_swept && now_ms >= quiet_until_ms {
            self.looks.has_swept = true;
            self.looks.sweep = Some(Bound::Unbounded);
        } else {
            // One that has not come to its end goes on.
            self.looks.sweep.get_or_insert(Bound::Unbounded);
        }
        self.sweep_at_ms = Some(if self.looks.has_swept { next_ms } else { next_ms.min(quiet_until_ms) });
    }

    fn on_target(&mut self, key: Key, route: Route, visible: bool, state: PushStateRecord, now_ms: u64) {
        let (id, device) = key;
        // Before it leaves its old lane, which may be the same one.
        let lane = self.lanes.join(route);
        let is_flying = self.flights.contains_key(&key);
        let account = self.accounts.entry(id).or_default();
        if let Some(known) = account.device(device) {
            known.end_job(id, &mut self.lanes, now_ms);
            self.lanes.leave(known.lane);
            if known.state != state {
                // What was noted for the target before may reach the store behind the new one.
                self.actions.push_back(Action::Note { account: id, device, state });
            }
            (known.lane, known.visible, known.state, known.is_new) = (lane, visible, state, true);
            known.alarm_ms = 0;
        } else {
            account.devices.reserve_exact(1);
            account.devices.push(Device {
                id: device,
                lane,
                visible,
                state,
                is_new: true,
                is_flying,
                alarm_ms: 0,
                job: None,
            });
            self.targets += 1;
        }
        // What it has not taken is worth a wake-up by the new target; a round that is still to come finds that.
        if self.looks.has_swept && account.may_have_untaken() {
            account.look_by(now_ms.saturating_add(self.config.close_delay_ms));
        }
        self.settle(id, now_ms);
    }

    /// A device cannot be woken any more.
    fn forget(&mut self, key: Key, now_ms: u64) {
        let (id, device) = key;
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let Some(at) = account.devices.iter().position(|known| known.id == device) else { return };
        let mut known = account.devices.remove(at);
        known.end_job(id, &mut self.lanes, now_ms);
        self.lanes.leave(known.lane);
        self.targets -= 1;
        if account.devices.is_empty() {
            let timer = account.timer_ms.map(|at_ms| (at_ms, id));
            let ticket = account.ticket;
            self.accounts.remove(&id);
            if let Some(timer) = timer {
                self.timers.remove(&timer);
            }
            if let Some(ticket) = ticket {
                self.looks.queue.remove(&ticket);
            }
        } else {
            self.settle(id, now_ms);
        }
    }

    fn on_moved(&mut self, id: AccountId, grown_seq: u64, taken_seq: u64, now_ms: u64) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let (has_grown, has_taken) = (grown_seq > account.grown_seq, taken_seq > account.taken_seq);
        account.grown_seq = account.grown_seq.max(grown_seq);
        account.taken_seq = account.taken_seq.max(taken_seq);
        if account.may_have_untaken() {
            if has_grown {
                account.look_by(now_ms.saturating_add(self.config.delay_ms));
            }
            if has_taken {
                // What is owed may be among what was taken.
                account.devices.iter_mut().filter_map(|device| device.job.as_mut()).for_each(|job| job.judged_ms = 0);
            }
        } else {
            (account.due_ms, account.silent_ms) = (None, None);
            for device in &mut account.devices {
                let Some(job) = device.job.as_mut().filter(|job| job.kind == WakeKind::Messages) else { continue };
                match job.phase {
                    Phase::Flying => {}
                    _ if job.is_alarm => job.owe(Owed::Nothing, 0, now_ms),
                    _ => device.end_job(id, &mut self.lanes, now_ms),
                }
            }
        }
        self.settle(id, now_ms);
    }

    fn on_connected(&mut self, key: Key, now_ms: u64) {
        let (id, device) = key;
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let may_have_untaken = account.may_have_untaken();
        let Some(known) = account.device(device) else { return };
        match known.job.as_mut().filter(|job| job.phase == Phase::Flying) {
            Some(job) => job.has_connected = true,
            None => known.end_job(id, &mut self.lanes, now_ms),
        }
        // What there is to know it is told.
        ended_alarm(id, known, &mut self.actions);
        // The time of the last wake-up stays: a device that comes and goes is not woken more often for it.
        let state = PushStateRecord { woken_seq: 0, warned_ms: 0, ..known.state };
        if state != known.state {
            known.state = state;
            self.actions.push_back(Action::Note { account: id, device, state });
        }
        if may_have_untaken {
            // It may be half-dead: if it takes nothing, it is owed what it was owed before.
            account.looked_to = 0;
            account.silent_ms.get_or_insert(now_ms.saturating_add(self.config.close_delay_ms));
        }
        self.settle(id, now_ms);
    }

    fn on_closed(&mut self, key: Key, now_ms: u64) {
        let Some(account) = self.accounts.get_mut(&key.0) else { return };
        if account.device(key.1).is_some() && account.may_have_untaken() {
            account.looked_to = 0;
            account.silent_ms = None;
            account.look_by(now_ms.saturating_add(self.config.close_delay_ms));
        }
        self.settle(key.0, now_ms);
    }

    fn on_alarm(&mut self, key: Key, owed_ms: u64, now_ms: u64) {
        let Some(device) = self.accounts.get_mut(&key.0).and_then(|account| account.device(key.1)) else { return };
        device.alarm_ms = device.alarm_ms.max(owed_ms);
        device.ring(now_ms, &mut self.lanes);
        self.settle(key.0, now_ms);
    }

    /// What was to be known while a request was under way that has not brought the device here goes now.
    fn ring_on(&mut self, key: Key, now_ms: u64) {
        let device = self.accounts.get_mut(&key.0).and_then(|account| account.device(key.1));
        if let Some(device) = device.filter(|device| device.alarm_ms > 0) {
            device.ring(now_ms, &mut self.lanes);
        }
        self.settle(key.0, now_ms);
    }

    fn on_looked(&mut self, id: AccountId, facts: Result<Facts, ()>, now_ms: u64) {
        let Some(asked) = self.looks.asked.remove(&id) else { return };
        let Ok(facts) = facts else { return self.on_look_failed(id, now_ms) };
        self.forget_missing(id, &facts, now_ms);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.grown_seq = account.grown_seq.max(facts.head_seq);
        account.taken_seq = account.taken_seq.max(facts.taken_seq);
        account.looked_to = facts.looked_to;
        let first = facts.first.filter(|first| first.seq > account.taken_seq);
        // It came to its bound; or somebody has taken meanwhile what it has found, and not everything.
        let goes_on = match facts.first {
            None => facts.looked_to < facts.head_seq,
            Some(_) => first.is_none() && account.may_have_untaken(),
        };
        let view = View { first, head_seq: facts.head_seq, knows_messages: !goes_on, knows_expiry: asked.expiry };
        account.is_due |= goes_on && asked.is_due;
        // While a later look is to come, whoever has just gone has time until then to come back; and after a start
        // everybody has.
        let may_begin = asked.is_due || (self.looks.has_swept && !account.awaits_look());
        let more = self.judge(id, &facts, &view, may_begin, now_ms);
        if goes_on {
            self.want_look(id, false);
        }
        if let Some(expiry) = more {
            self.want_look(id, expiry);
        }
        self.settle(id, now_ms);
    }

    /// Gives each device of an account what facts owe it, and ends what they do not. Says whether another look is needed,
    /// and whether that has to be about what expires.
    fn judge(&mut self, id: AccountId, facts: &Facts, view: &View, may_begin: bool, now_ms: u64) -> Option<bool> {
        let Self { accounts, lanes, flights, actions, config, .. } = self;
        let account = accounts.get_mut(&id)?;
        let mut more = None;
        for device in account.devices.iter_mut().filter(|device| !device.is_flying) {
            let Some(of_device) = facts.devices.iter().find(|of| of.device == device.id) else { continue };
            let owed = device.owed(of_device, view, config, may_begin, now_ms);
            match (&mut device.job, owed) {
                (Some(job), Owed::Nothing) if !job.is_alarm => device.end_job(id, lanes, now_ms),
                (Some(job), _) => job.owe(owed, view.head_seq, now_ms),
                (None, Owed::Messages { not_before_ms, .. }) => {
                    device.begin(WakeKind::Messages, not_before_ms, lanes).owe(owed, view.head_seq, now_ms);
                }
                (None, Owed::Expiring) => {
                    device.begin(WakeKind::Expiring, now_ms, lanes).owe(owed, view.head_seq, now_ms);
                }
                (None, _) => {}
            }
            let Some(job) = device.job.take_if(|job| job.phase == Phase::Looking) else { continue };
            if owed == Owed::Unknown && !job.is_alarm {
                more = Some(more == Some(true) || job.kind == WakeKind::Expiring);
                device.job = Some(job);
            } else if job.not_before_ms > now_ms && !job.is_alarm {
                lanes.finish(device.lane, (id, device.id), Verdict::Nothing, now_ms);
                let not_before_ms = job.not_before_ms;
                lanes.waiting -= 1;
                device.wait(job, not_before_ms, lanes);
            } else {
                fly(id, device, job, lanes, flights, actions, now_ms);
            }
        }
        more
    }

    /// Forgets devices whose targets went while nobody said so.
    fn forget_missing(&mut self, id: AccountId, facts: &Facts, now_ms: u64) {
        let Some(account) = self.accounts.get(&id) else { return };
        let is_missing = |known: &&Device| !known.is_new && facts.devices.iter().all(|of| of.device != known.id);
        let missing: Vec<_> = account.devices.iter().filter(is_missing).map(|known| known.id).collect();
        for device in missing {
            self.forget((id, device), now_ms);
        }
    }

    /// The store could not be read: later.
    fn on_look_failed(&mut self, id: AccountId, now_ms: u64) {
        let again_ms = now_ms.saturating_add(LOOK_RETRY_MS);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        for device in &mut account.devices {
            if let Some(job) = device.job.take_if(|job| job.phase == Phase::Looking) {
                self.lanes.finish(device.lane, (id, device.id), Verdict::Nothing, now_ms);
                self.lanes.waiting -= 1;
                device.wait(job, again_ms, &mut self.lanes);
            }
        }
        account.look_by(again_ms);
        self.settle(id, now_ms);
    }

    fn on_sent(&mut self, key: Key, outcome: Outcome, now_ms: u64) {
        let Some((lane, sent_ms)) = self.flights.remove(&key) else { return };
        let verdict = self.lanes.verdict(lane, &outcome);
        self.lanes.finish(lane, key, verdict, now_ms);
        let (id, device_id) = key;
        let Self { accounts, lanes, actions, random, .. } = self;
        let Some((mut job, device)) = landed(accounts, key) else {
            // It was for a target that is not this device's any more.
            self.want_look(id, false);
            return self.ring_on(key, now_ms);
        };
        let head_seq = job.head_seq;
        match outcome {
            Outcome::Accepted => {
                let state = accepted(&job, device.state, now_ms);
                if state != device.state {
                    device.state = state;
                    actions.push_back(Action::Note { account: id, device: device_id, state });
                }
                // It brings the device here for what came meanwhile as well, unless that had been here already.
                if !job.has_connected {
                    ended_alarm(id, device, actions);
                }
            }
            Outcome::Gone { since_ms } if verdict != Verdict::Doubtful => {
                let refused_ms = since_ms.unwrap_or(sent_ms);
                actions.push_back(Action::Drop { account: id, device: device_id, refused_ms });
                // Where the target is newer than the refusal it stays, and is tried again some time.
                device.wait(job, now_ms.saturating_add(PUSH_BACK_OFF_MS_MAX), lanes);
            }
            // The look that follows a connection says what it is still owed.
            _ if job.has_connected => {}
            // It steps aside, so that the token of somebody else may show that nothing is wrong but this one.
            _ if verdict == Verdict::Doubtful => {
                device.wait(job, now_ms.saturating_add(PUSH_BACK_OFF_MS_MAX), lanes);
            }
            // It goes on behind the others, when the service lets this server in: the token is no worse for it.
            _ if verdict == Verdict::Misconfigured => device.wait(job, now_ms, lanes),
            outcome => {
                let pause_ms = back_off_ms(job.attempt, (*random)()).max(retry_after_ms(&outcome));
                job.attempt = job.attempt.saturating_add(1);
                device.wait(job, now_ms.saturating_add(pause_ms), lanes);
            }
        }
        // Looks pass over a device while its request is under way: what has come since may be owed to it.
        if accounts.get(&id).is_some_and(|account| account.grown_seq > head_seq) {
            self.want_look(id, false);
        }
        self.ring_on(key, now_ms);
    }

    fn on_unsent(&mut self, key: Key, now_ms: u64) {
        let Some((lane, _)) = self.flights.remove(&key) else { return };
        self.lanes.finish(lane, key, Verdict::Nothing, now_ms);
        let Self { accounts, lanes, .. } = self;
        match landed(accounts, key) {
            Some((job, device)) => device.wait(job, now_ms.saturating_add(LOOK_RETRY_MS), lanes),
            None => self.want_look(key.0, false),
        }
        self.ring_on(key, now_ms);
    }

    /// Lets those go for whom there is a place, and who were looked at just now.
    fn start_sends(&mut self, now_ms: u64) {
        while let Some((lane, key)) = self.lanes.take_next() {
            let (id, device_id) = key;
            let Self { accounts, lanes, flights, actions, .. } = self;
            let device = accounts.get_mut(&id).and_then(|account| account.device(device_id));
            let Some((mut job, device)) = device.and_then(|device| Some((device.job.take()?, device))) else {
                lanes.finish(lane, key, Verdict::Nothing, now_ms);
                continue;
            };
            let is_fresh = job.judged_ms.saturating_add(FACTS_MS_MAX) >= now_ms;
            if job.is_alarm || (is_fresh && job.not_before_ms <= now_ms) {
                fly(id, device, job, lanes, flights, actions, now_ms);
            } else if job.not_before_ms > now_ms {
                // What it is for has changed since it stood in line.
                let not_before_ms = job.not_before_ms;
                lanes.finish(lane, key, Verdict::Nothing, now_ms);
                lanes.waiting -= 1;
                device.wait(job, not_before_ms, lanes);
                self.settle(id, now_ms);
            } else {
                let expiry = job.kind == WakeKind::Expiring;
                job.phase = Phase::Looking;
                device.job = Some(job);
                self.want_look(id, expiry);
            }
        }
    }

    /// Puts what has waited long enough into the lines, and sets the account's timer by what is left.
    fn settle(&mut self, id: AccountId, now_ms: u64) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.ripen(id, &mut self.lanes, now_ms);
        let next_ms = account.next_ms();
        if next_ms != account.timer_ms {
            if let Some(at_ms) = account.timer_ms {
                self.timers.remove(&(at_ms, id));
            }
            if let Some(at_ms) = next_ms {
                self.timers.insert((at_ms, id));
            }
            account.timer_ms = next_ms;
        }
    }
}

impl std::fmt::Debug for PushMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushMachine").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// Hands a wake-up to its service. A place in the lane is taken for it.
fn fly(
    account: AccountId,
    device: &mut Device,
    mut job: Box<Job>,
    lanes: &mut Lanes,
    flights: &mut BTreeMap<Key, (LaneId, u64)>,
    actions: &mut VecDeque<Action>,
    now_ms: u64,
) {
    job.phase = Phase::Flying;
    job.has_connected = false;
    lanes.waiting -= 1;
    flights.insert((account, device.id), (device.lane, now_ms));
    let since_ms = (job.since_ms > 0).then_some(job.since_ms);
    actions.push_back(Action::Send { account, device: device.id, kind: job.kind, attempt: job.attempt, since_ms });
    device.is_flying = true;
    device.job = Some(job);
}

/// A device has got the wake-up of an alarm, or needs it no more.
fn ended_alarm(account: AccountId, device: &mut Device, actions: &mut VecDeque<Action>) {
    let owed_ms = std::mem::take(&mut device.alarm_ms);
    if owed_ms > 0 {
        actions.push_back(Action::Rung { account, device: device.id, owed_ms });
    }
}

/// The wake-up whose request is over, and its device; `None` when the request was for another target.
fn landed(accounts: &mut BTreeMap<AccountId, Account>, key: Key) -> Option<(Box<Job>, &mut Device)> {
    let device = accounts.get_mut(&key.0)?.device(key.1)?;
    device.is_flying = false;
    let job = device.job.take_if(|job| job.phase == Phase::Flying)?;
    Some((job, device))
}

/// What a device has been woken for when a service has taken its wake-up. One that has connected meanwhile is not awaited:
/// it was there, and may have gone again.
fn accepted(job: &Job, state: PushStateRecord, now_ms: u64) -> PushStateRecord {
    match job.kind {
        WakeKind::Messages if job.head_seq == 0 => state,
        WakeKind::Messages if job.has_connected => PushStateRecord { woken_ms: now_ms, ..state },
        WakeKind::Messages => PushStateRecord { woken_seq: job.head_seq, woken_ms: now_ms, ..state },
        WakeKind::Expiring if job.has_connected => state,
        WakeKind::Expiring => PushStateRecord { warned_ms: now_ms, ..state },
    }
}

/// How long to wait after so many failures. What is spread is what has its bound already: else everybody who has come to
/// it would go at one time.
fn back_off_ms(attempt: u32, random: u64) -> u64 {
    let pause_ms = PUSH_BACK_OFF_MS_MIN.saturating_mul(1 << attempt.min(16)).min(PUSH_BACK_OFF_MS_MAX);
    pause_ms - pause_ms / 4 + random % (pause_ms / 2 + 1)
}

/// How long a service wants not to be asked for this device again.
fn retry_after_ms(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Busy { retry_after_ms: Some(after_ms), .. } => (*after_ms).min(PUSH_RETRY_AFTER_MS_MAX),
        _ => 0,
    }
}
