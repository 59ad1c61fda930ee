//! An account whose devices can be woken, and what each of them is owed by the facts.

use gureum_proto::{AccountId, DeviceId};

use super::service::{LaneId, Lanes, Verdict};
use super::{DeviceFacts, First, PushConfig, WakeKind};
use crate::store::record::PushStateRecord;

/// An account with devices that can be woken.
#[derive(Default)]
pub(super) struct Account {
    pub(super) devices: Vec<Device>,
    /// When to look into the inbox.
    pub(super) due_ms: Option<u64>,
    /// When to look whether a device that has connected takes nothing.
    pub(super) silent_ms: Option<u64>,
    /// The timer that stands for it; the earliest of what it waits for.
    pub(super) timer_ms: Option<u64>,
    /// Its place among those to be looked at.
    pub(super) ticket: Option<u64>,
    /// The next look is to say what expires as well.
    pub(super) wants_expiry: bool,
    /// The next look is the one that was due.
    pub(super) is_due: bool,
    /// No message that counts stands above it; 0: not known yet.
    pub(super) grown_seq: u64,
    /// What some device has taken.
    pub(super) taken_seq: u64,
    /// Nothing up to here is worth a wake-up.
    pub(super) looked_to: u64,
}

/// A device that can be woken.
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) lane: LaneId,
    pub(super) visible: bool,
    /// What it was last woken for. What the store has of it follows.
    pub(super) state: PushStateRecord,
    /// Its target was set after the look that is under way had begun.
    pub(super) is_new: bool,
    /// A request for it is under way, for this target or for one before it.
    pub(super) is_flying: bool,
    /// Since when it is owed a wake-up whatever the inbox holds; 0: it is not. What the store has of it follows.
    pub(super) alarm_ms: u64,
    pub(super) job: Option<Box<Job>>,
}

/// A wake-up on its way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: WakeKind,
    pub(super) phase: Phase,
    /// How often it has failed.
    pub(super) attempt: u32,
    pub(super) not_before_ms: u64,
    /// When facts last owed it.
    pub(super) judged_ms: u64,
    /// The head of the inbox then; 0: no facts owe it.
    pub(super) head_seq: u64,
    /// The time of the message that it is for; 0: of none.
    pub(super) since_ms: u64,
    /// It goes whatever the inbox holds.
    pub(super) is_alarm: bool,
    /// The device has connected since it was sent.
    pub(super) has_connected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// For its time.
    Waiting,
    /// In its lane's line, with this ticket.
    Queued(u64),
    /// With a place in its lane, for a look whether it is still owed.
    Looking,
    /// With its service.
    Flying,
}

/// What facts say of an inbox.
pub(super) struct View {
    pub(super) first: Option<First>,
    pub(super) head_seq: u64,
    /// Whether `first` is known: a look may have come to its bound before, or others have taken what it has seen.
    pub(super) knows_messages: bool,
    /// Whether the look was about what expires, too.
    pub(super) knows_expiry: bool,
}

/// What a device is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// A wake-up for messages, not before a time, for one of a time.
    Messages {
        not_before_ms: u64,
        since_ms: u64,
    },
    /// A warning.
    Expiring,
    Nothing,
    /// Another look will say.
    Unknown,
}

impl Account {
    pub(super) fn device(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.id == id)
    }

    /// Whether there may be messages that no device has taken.
    pub(super) const fn may_have_untaken(&self) -> bool {
        self.grown_seq == 0 || self.grown_seq > self.taken_seq
    }

    /// Whether a look is due; it is not any more.
    pub(super) fn take_due(&mut self, now_ms: u64) -> bool {
        let has_come = |at_ms: &mut u64| *at_ms <= now_ms;
        let (due, silent) = (self.due_ms.take_if(has_come), self.silent_ms.take_if(has_come));
        due.or(silent).is_some()
    }

    /// Whether a look is still to come.
    pub(super) const fn awaits_look(&self) -> bool {
        self.due_ms.is_some() || self.silent_ms.is_some()
    }

    /// Sees to it that there is a look at this time or before.
    pub(super) fn look_by(&mut self, at_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(at_ms, |due_ms| due_ms.min(at_ms)));
    }

    /// The earliest of what it waits for.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let jobs = self.devices.iter().filter_map(|device| device.job.as_ref());
        let waiting = jobs.filter(|job| job.phase == Phase::Waiting).map(|job| job.not_before_ms);
        waiting.chain(self.due_ms).chain(self.silent_ms).min()
    }

    /// Puts what has waited long enough into the lines.
    pub(super) fn ripen(&mut self, id: AccountId, lanes: &mut Lanes, now_ms: u64) {
        for device in &mut self.devices {
            if let Some(job) = &mut device.job
                && job.phase == Phase::Waiting
                && job.not_before_ms <= now_ms
            {
                job.phase = Phase::Queued(lanes.enqueue(device.lane, (id, device.id)));
            }
        }
    }
}

impl Device {
    /// What facts owe it: what its messages are worth first, then a warning. Where nothing may begin for messages yet, the
    /// warning does not wait for them.
    pub(super) fn owed(
        &self,
        facts: &DeviceFacts,
        view: &View,
        config: &PushConfig,
        may_begin: bool,
        now_ms: u64,
    ) -> Owed {
        let kind = self.job.as_ref().map(|job| job.kind);
        let is_awaited = self.state.woken_seq > facts.cursor_seq;
        if view.knows_messages
            && !is_awaited
            && (may_begin || kind.is_some())
            && let Some(first) = view.first
        {
            let not_before_ms = self.rested_ms(config).max(first.time_ms.saturating_add(config.delay_ms));
            return Owed::Messages { not_before_ms, since_ms: first.time_ms };
        }
        let may_judge_expiry = view.knows_expiry && (view.knows_messages || kind != Some(WakeKind::Messages));
        let is_expiring = facts.oldest_accepted_ms.is_some_and(|oldest_ms| !config.has_time(oldest_ms, now_ms));
        if may_judge_expiry && is_expiring && self.state.warned_ms == 0 {
            return Owed::Expiring;
        }
        match kind {
            Some(WakeKind::Messages) if !view.knows_messages => Owed::Unknown,
            Some(WakeKind::Expiring) if !view.knows_expiry => Owed::Unknown,
            _ => Owed::Nothing,
        }
    }

    /// When it may be woken for messages again.
    const fn rested_ms(&self, config: &PushConfig) -> u64 {
        let pause_ms = if self.visible { config.interval_ms } else { config.silent_interval_ms };
        if self.state.woken_ms == 0 { 0 } else { self.state.woken_ms.saturating_add(pause_ms) }
    }

    /// Sees to it that a wake-up goes whatever the inbox holds. While a request is under way none can: its end says.
    pub(super) fn ring(&mut self, now_ms: u64, lanes: &mut Lanes) {
        if self.is_flying {
            return;
        }
        match &mut self.job {
            Some(job) => job.is_alarm = true,
            None => self.begin(WakeKind::Messages, now_ms, lanes).is_alarm = true,
        }
    }

    /// Begins a wake-up, to go at its time.
    pub(super) fn begin(&mut self, kind: WakeKind, not_before_ms: u64, lanes: &mut Lanes) -> &mut Job {
        lanes.waiting += usize::from(self.job.is_none());
        self.job.insert(Box::new(Job {
            kind,
            phase: Phase::Waiting,
            attempt: 0,
            not_before_ms,
            judged_ms: 0,
            head_seq: 0,
            since_ms: 0,
            is_alarm: false,
            has_connected: false,
        }))
    }

    /// Puts a wake-up that has failed, or was held up, back to wait.
    pub(super) fn wait(&mut self, mut job: Box<Job>, not_before_ms: u64, lanes: &mut Lanes) {
        lanes.waiting += 1;
        job.phase = Phase::Waiting;
        job.not_before_ms = not_before_ms;
        self.job = Some(job);
    }

    /// Ends its wake-up. A request that is under way goes on, and nothing is learned from it.
    pub(super) fn end_job(&mut self, account: AccountId, lanes: &mut Lanes, now_ms: u64) {
        let Some(job) = self.job.take() else { return };
        match job.phase {
            Phase::Waiting => {}
            Phase::Queued(ticket) => lanes.dequeue(self.lane, ticket),
            Phase::Looking => lanes.finish(self.lane, (account, self.id), Verdict::Nothing, now_ms),
            Phase::Flying => return,
        }
        lanes.waiting -= 1;
    }
}

impl Job {
    /// Takes over what facts say.
    pub(super) fn owe(&mut self, owed: Owed, head_seq: u64, now_ms: u64) {
        match owed {
            Owed::Messages { not_before_ms, since_ms } => {
                self.kind = WakeKind::Messages;
                // An alarm does not wait for messages' sake.
                self.not_before_ms = self.not_before_ms.max(if self.is_alarm { 0 } else { not_before_ms });
                (self.head_seq, self.since_ms, self.judged_ms) = (head_seq, since_ms, now_ms);
            }
            Owed::Expiring => {
                self.kind = WakeKind::Expiring;
                (self.head_seq, self.since_ms, self.judged_ms) = (0, 0, now_ms);
            }
            // Only an alarm goes on without facts that owe it.
            Owed::Nothing => {
                self.kind = WakeKind::Messages;
                (self.head_seq, self.since_ms) = (0, 0);
            }
            Owed::Unknown => {}
        }
    }
}
