//! The task of push: hands the machine what has happened, and performs what it wants. Looks and requests run beside it, as
//! many as the machine allows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gureum_proto::{AccountId, DeviceId, PushService, PushTarget};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::{FeedMail, Presence};
use super::look::look;
use super::{
    Action, Facts, Failure, Input, Outcome, PerService, Push, PushConfig, PushFeed, PushMachine, Targeted, WakeKind,
    route,
};
use crate::fault::step;
use crate::inbox::Open;
use crate::limits::{FEED_PACE_MS, PUSH_END_MS_MAX, PUSH_SEND_MS_MAX, SCAN_ENTRIES_MAX};
use crate::metrics::PushMetrics;
use crate::router::{Change, Router, Submission};
use crate::seal::TokenSeal;
use crate::store::key::{self, Key, PushTag};
use crate::store::record::PushTargetRecord;
use crate::store::{Family, Record, Store, StoreError, decode, read};
use crate::time::{Clock, WallClock};
use crate::work::Work;

/// What push works with.
pub(crate) struct PushParts {
    /// What happens.
    pub(crate) feed: Arc<PushFeed>,
    /// The inboxes.
    pub(crate) store: Arc<dyn Store>,
    /// Opens messages.
    pub(crate) seal: Arc<dyn Open>,
    /// Opens targets.
    pub(crate) tokens: Arc<TokenSeal>,
    /// Writes down who was woken.
    pub(crate) router: Router,
    /// Decides when.
    pub(crate) clock: Arc<Clock>,
    /// What services judge by.
    pub(crate) wall: Arc<dyn WallClock>,
    /// The services.
    pub(crate) push: Arc<dyn Push>,
    /// Where looks run.
    pub(crate) work: Work,
    /// What is counted.
    pub(crate) metrics: PushMetrics,
    /// When devices are woken.
    pub(crate) config: PushConfig,
}

/// Tells the feed who can be woken, before anything else happens. Those whose service is not used at present stay as they
/// are. Blocks for the disk.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn load(store: &dyn Store, feed: &PushFeed, push: &dyn Push) -> Result<(), StoreError> {
    let mut from = Vec::new();
    loop {
        let entries = store.scan(Family::Push, from.as_slice()..&[u8::MAX; 34], SCAN_ENTRIES_MAX)?;
        for (entry_key, value) in &entries {
            let Some((account, device, PushTag::Target)) = key::parse_push(entry_key) else { continue };
            // One that does not read is dropped when its device sets another; the others are not to wait for that.
            let Ok(target) = decode::<PushTargetRecord>(Family::Push, value) else { continue };
            if push.offers(target.service) {
                let state = readable(store, &key::push_state(&account, &device))?.unwrap_or_default();
                let targeted = Targeted { route: route(&target), visible: target.visible, state };
                feed.targeted(account, device, Some(targeted));
                if let Some(owed_ms) = readable(store, &key::push_alarm(&account, &device))? {
                    feed.alarmed(&[(account, device, owed_ms)]);
                }
            }
        }
        let Some((last, _)) = entries.last().filter(|_| entries.len() == SCAN_ENTRIES_MAX) else { return Ok(()) };
        from = [last.as_ref(), &[0]].concat();
    }
}

/// A record, unless it does not read: the device is only woken once more, or once less.
fn readable<T: Record>(store: &dyn Store, record_key: &Key) -> Result<Option<T>, StoreError> {
    match read(store, Family::Push, record_key.as_ref()) {
        Err(StoreError::Corrupt { .. }) => Ok(None),
        found => found,
    }
}

/// Wakes devices until `stop`.
pub(crate) async fn run(parts: PushParts, stop: CancellationToken) {
    Shell::new(parts).run(stop).await;
}

struct Shell {
    parts: PushParts,
    machine: PushMachine,
    looks: JoinSet<(AccountId, Result<Facts, ()>)>,
    sends: JoinSet<Sending>,
    /// Of which device each request under way is.
    of: HashMap<Id, (AccountId, DeviceId)>,
    /// Services that are known not to let this server in.
    misconfigured: PerService<bool>,
    /// Nothing new is begun.
    is_ending: bool,
}

/// A request that is over, or was not made.
struct Sending {
    kind: WakeKind,
    since_ms: Option<u64>,
    end: SendEnd,
}

enum SendEnd {
    /// The service, or nobody, has answered.
    Answered(Outcome, Addressed),
    /// The target does not open.
    Void(Addressed),
    /// There was no target, or it could not be read.
    Unread,
}

/// What a request was sent to.
#[derive(Clone, Copy)]
struct Addressed {
    service: PushService,
    set_ms: u64,
    generation: u64,
}

impl Shell {
    fn new(parts: PushParts) -> Self {
        let random = || {
            let mut bytes = [0; 8];
            // Without randomness everybody is tried again at one time, which is bad but no reason to fail.
            let _ = getrandom::fill(&mut bytes);
            u64::from_be_bytes(bytes)
        };
        Self {
            machine: PushMachine::new(parts.config, Box::new(random)),
            parts,
            looks: JoinSet::new(),
            sends: JoinSet::new(),
            of: HashMap::new(),
            misconfigured: PerService::default(),
            is_ending: false,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        self.handle(Input::Tick).await;
        // When the feed is heard again: what happens meanwhile is merged, so that a busy server is asked a few times a
        // second and not with each batch.
        let mut heard_at = None;
        loop {
            let now_ms = self.parts.clock.now_ms();
            let wait =
                self.machine.poll_timeout().map(|(at_ms, _)| Duration::from_millis(at_ms.saturating_sub(now_ms)));
            tokio::select! {
                // In the order of what is bounded by time to what comes as fast as it is done.
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(heard_at.unwrap_or_else(Instant::now)), if heard_at.is_some() => heard_at = None,
                () = self.parts.feed.changed(), if heard_at.is_none() => {
                    heard_at = Some(Instant::now() + Duration::from_millis(FEED_PACE_MS));
                    let mail = self.parts.feed.take();
                    self.hear(mail).await;
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => self.handle(Input::Tick).await,
                Some(sent) = self.sends.join_next_with_id(), if !self.sends.is_empty() => self.on_sent(sent).await,
                Some(looked) = self.looks.join_next(), if !self.looks.is_empty() => self.on_looked(looked).await,
            }
        }
        self.end().await;
    }

    /// Waits for the answers to what was sent, so that nobody is woken twice for a stop.
    async fn end(&mut self) {
        self.is_ending = true;
        let answers = async {
            while let Some(sent) = self.sends.join_next_with_id().await {
                self.on_sent(sent).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(PUSH_END_MS_MAX), answers).await.is_err() {
            tracing::info!(
                "push services have not answered in time; some devices may be woken once more after the start"
            );
        }
    }

    async fn hear(&mut self, mail: FeedMail) {
        for (at, input) in inputs(mail).enumerate() {
            self.machine.handle(input, self.parts.clock.now_ms());
            // After a start it may be all targets, and others run on this thread as well.
            if at % 1_024 == 1_023 {
                tokio::task::yield_now().await;
            }
        }
        self.perform(None).await;
    }

    async fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.parts.clock.now_ms());
        self.perform(None).await;
    }

    async fn on_looked(&mut self, looked: Result<(AccountId, Result<Facts, ()>), JoinError>) {
        match looked {
            Ok((account, facts)) => self.handle(Input::Looked { account, facts }).await,
            Err(error) => tracing::error!(%error, "a look into an inbox has ended without a word"),
        }
    }

    async fn on_sent(&mut self, sent: Result<(Id, Sending), JoinError>) {
        let (task, sending) = match sent {
            Ok((task, sending)) => (task, Some(sending)),
            Err(error) => {
                tracing::error!(%error, "a request to a push service has panicked");
                (error.id(), None)
            }
        };
        let Some((account, device)) = self.of.remove(&task) else { return };
        let Some(Sending { kind, since_ms, end }) = sending else {
            let outcome = Outcome::Failed(Failure::Protocol);
            return self.handle(Input::Sent { account, device, outcome }).await;
        };
        match end {
            SendEnd::Answered(outcome, addressed) => {
                let now_ms = self.parts.clock.now_ms();
                self.count(kind, since_ms, &outcome, addressed.service, now_ms);
                self.machine.handle(Input::Sent { account, device, outcome }, now_ms);
                self.perform(Some(addressed)).await;
            }
            SendEnd::Void(addressed) => {
                tracing::warn!("a push target does not open and is dropped; its device sets it again when it connects");
                self.drop_target(account, device, addressed).await;
                self.handle(Input::Unsent { account, device }).await;
            }
            SendEnd::Unread => self.handle(Input::Unsent { account, device }).await,
        }
    }

    fn count(&self, kind: WakeKind, since_ms: Option<u64>, outcome: &Outcome, service: PushService, now_ms: u64) {
        let metrics = &self.parts.metrics;
        if *outcome != Outcome::Accepted {
            metrics.failed(service, outcome);
            // A host of Web Push may answer what it likes: whoever has named it shows no bug by that.
            if *outcome == Outcome::Refused && service != PushService::WebPush {
                tracing::error!(service = service.name(), "a push service finds a request wrong; this is a bug");
            }
            return;
        }
        metrics.sent(service, kind);
        if let Some(since_ms) = since_ms {
            metrics.delay_seconds.record(Duration::from_millis(now_ms.saturating_sub(since_ms)).as_secs_f64());
        }
    }

    /// Performs what the machine wants. `addressed` is what the request was sent to that has just been answered.
    async fn perform(&mut self, addressed: Option<Addressed>) {
        let (mut notes, mut rung) = (Vec::new(), Vec::new());
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Note { account, device, state } => notes.push((account, device, state)),
                Action::Rung { account, device, owed_ms } => rung.push((account, device, owed_ms)),
                Action::Drop { account, device, refused_ms } => {
                    // What was set since is another token, or the same one brought back to life.
                    if let Some(addressed) = addressed.filter(|addressed| refused_ms > addressed.set_ms) {
                        self.drop_target(account, device, addressed).await;
                    }
                }
                Action::Look { .. } | Action::Send { .. } if self.is_ending => {}
                Action::Look { account, after_seq, expiry } => self.start_look(account, after_seq, expiry),
                Action::Send { account, device, kind, attempt, since_ms } => {
                    self.start_send(account, device, kind, attempt, since_ms);
                }
            }
        }
        if !notes.is_empty() {
            self.note(Submission::Pushed(notes), "push::noted").await;
        }
        if !rung.is_empty() {
            self.note(Submission::Rung(rung), "push::rung").await;
        }
        self.show();
    }

    /// Writes down who was woken. Without a sync: what a power cut takes back is a wake-up more, never one less.
    async fn note(&self, woken: Submission, passed: &'static str) {
        // A writer that has stopped ends the server as well.
        if self.parts.router.submit(woken).await.is_ok() {
            step(passed);
        }
    }

    async fn drop_target(&self, account: AccountId, device: DeviceId, addressed: Addressed) {
        let change = Change::DropPushTarget { account, device, generation: Some(addressed.generation) };
        match self.parts.router.change(change).await {
            Ok(_) => {
                self.parts.metrics.dropped(addressed.service);
                step("push::dropped");
            }
            // It is refused again the next time.
            Err(refusal) => tracing::warn!(%refusal, "a push target that is void could not be dropped"),
        }
    }

    fn start_look(&mut self, account: AccountId, after_seq: u64, expiry: bool) {
        self.parts.metrics.looks.increment(1);
        let (store, seal) = (Arc::clone(&self.parts.store), Arc::clone(&self.parts.seal));
        let (config, now_ms, work) = (self.parts.config, self.parts.clock.now_ms(), self.parts.work.clone());
        self.looks.spawn(async move {
            let look = move || look(store.as_ref(), seal.as_ref(), account, after_seq, expiry, &config, now_ms);
            let facts = match work.run(look).await {
                Some(Ok(facts)) => Ok(facts),
                Some(Err(error)) => {
                    tracing::warn!(%error, "an inbox could not be looked into for push; it is tried again");
                    Err(())
                }
                None => {
                    tracing::error!("a look into an inbox has panicked");
                    Err(())
                }
            };
            step("push::looked");
            (account, facts)
        });
    }

    fn start_send(
        &mut self,
        account: AccountId,
        device: DeviceId,
        kind: WakeKind,
        attempt: u32,
        since_ms: Option<u64>,
    ) {
        let sender = Sender {
            store: Arc::clone(&self.parts.store),
            tokens: Arc::clone(&self.parts.tokens),
            push: Arc::clone(&self.parts.push),
            wall: Arc::clone(&self.parts.wall),
            work: self.parts.work.clone(),
            metrics: self.parts.metrics.clone(),
        };
        let send =
            async move { Sending { kind, since_ms, end: sender.send(account, device, kind, attempt > 0).await } };
        let task = self.sends.spawn(send).id();
        self.of.insert(task, (account, device));
    }

    /// Shows how the services stand, and says once when one does not let this server in.
    fn show(&mut self) {
        let counts = self.machine.counts();
        self.parts.metrics.show(&counts);
        // Whom a host of Web Push does not let in is the matter of whoever has named it.
        for service in [PushService::Apns, PushService::Fcm] {
            let is_misconfigured = counts.services.of(service).misconfigured > 0;
            let was = std::mem::replace(self.misconfigured.of_mut(service), is_misconfigured);
            if is_misconfigured && !was {
                tracing::error!(
                    service = service.name(),
                    "the push service does not let this server in, or knows none of its tokens: check its settings"
                );
            }
        }
    }
}

/// What the machine is told of what has happened: who can be woken first, since the rest is about them.
fn inputs(mail: FeedMail) -> impl Iterator<Item = Input> {
    let targets = mail.targets.into_iter().map(|((account, device), target)| match target {
        Some(Targeted { route, visible, state }) => Input::Target { account, device, route, visible, state },
        None => Input::NoTarget { account, device },
    });
    let presence = mail.presence.into_iter().flat_map(|((account, device), presence)| {
        let connected = (presence != Presence::Closed).then_some(Input::Connected { account, device });
        let closed = (presence != Presence::Connected).then_some(Input::Closed { account, device });
        connected.into_iter().chain(closed)
    });
    let moves = mail.moves.into_iter().map(|(account, moves)| {
        let (grown_seq, taken_seq) = (moves.grown_seq, moves.taken_seq);
        Input::Moved { account, grown_seq, taken_seq }
    });
    let alarms = mail.alarms.into_iter().map(|((account, device), owed_ms)| Input::Alarm { account, device, owed_ms });
    targets.chain(presence).chain(moves).chain(alarms)
}

/// What one request needs. The target is nowhere in memory for longer than that.
struct Sender {
    store: Arc<dyn Store>,
    tokens: Arc<TokenSeal>,
    push: Arc<dyn Push>,
    wall: Arc<dyn WallClock>,
    work: Work,
    metrics: PushMetrics,
}

impl Sender {
    async fn send(self, account: AccountId, device: DeviceId, kind: WakeKind, is_retry: bool) -> SendEnd {
        let (addressed, target) = match self.target(account, device).await {
            Ok(found) => found,
            Err(end) => return end,
        };
        step("push::sending");
        if is_retry {
            self.metrics.retried(addressed.service);
        }
        let request = self.push.send(&target, kind, self.wall.wall_ms());
        let answer = tokio::time::timeout(Duration::from_millis(PUSH_SEND_MS_MAX), request).await;
        let outcome = answer.unwrap_or(Outcome::Failed(Failure::Timeout));
        if outcome == Outcome::Accepted {
            step("push::accepted");
        }
        SendEnd::Answered(outcome, addressed)
    }

    async fn target(&self, account: AccountId, device: DeviceId) -> Result<(Addressed, PushTarget), SendEnd> {
        let (store, tokens) = (Arc::clone(&self.store), Arc::clone(&self.tokens));
        let open = move || -> Result<Option<(Addressed, Option<PushTarget>)>, StoreError> {
            let key = key::push_target(&account, &device);
            let Some(record) = read::<PushTargetRecord>(store.as_ref(), Family::Push, key.as_ref())? else {
                return Ok(None);
            };
            let (service, set_ms, generation) = (record.service, record.set_ms, record.generation);
            Ok(Some((Addressed { service, set_ms, generation }, tokens.open(account, device, &record))))
        };
        match self.work.run(open).await {
            Some(Ok(Some((addressed, Some(target))))) => Ok((addressed, target)),
            Some(Ok(Some((addressed, None)))) => Err(SendEnd::Void(addressed)),
            // The writer tells of that, and may have told of another since: it must not be taken for gone.
            Some(Ok(None)) => Err(SendEnd::Unread),
            Some(Err(error)) => {
                tracing::warn!(%error, "a push target could not be read; it is tried again");
                Err(SendEnd::Unread)
            }
            None => Err(SendEnd::Unread),
        }
    }
}

#[cfg(test)]
mod tests;
