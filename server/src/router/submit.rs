//! The writer: takes whatever is queued, plans it as one batch, writes it with one fsync, and then
//! answers and wakes. Batches grow with the load; a lone message waits for nobody.

use std::sync::Arc;
use std::time::Instant;

use gureum_proto::{AccountId, Code, DeviceId, Refusal, Send as SendFrame, Sent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::plan::{Change, Changed, Op, Plan, PlanConfig, Planner, Seal};
use crate::fault::step;
use crate::limits::{BATCH_OPS_MAX, SUBMIT_BYTES_MAX, SUBMIT_QUEUE_MAX, UNSYNCED_FLOORS_MAX};
use crate::metrics::Metrics;
use crate::phone_hash::PhoneHasher;
use crate::push::{PushFeed, Targeted, route};
use crate::session::Authenticated;
use crate::store::record::PushStateRecord;
use crate::store::{Durability, Store, StoreError, TakenFloors};
use crate::time::Clock;
use crate::wake::Wake;
use crate::work::{Latency, Work, pause};

/// Where the answers to a connection's sends go. Called from the writer.
pub(crate) trait Answers: Send + Sync {
    /// Hands over answers, in the order of the sends.
    fn answer(&self, sent: Vec<Sent>);
}

/// What the writer works with.
pub(crate) struct RouterParts {
    /// The disk.
    pub store: Arc<dyn Store>,
    /// Seals bodies.
    pub seal: Arc<dyn Seal>,
    /// Gives messages their time.
    pub clock: Arc<Clock>,
    /// Who is to be woken.
    pub wake: Arc<dyn Wake>,
    /// Told what inboxes have got and what was taken, so that the absent are woken.
    pub push: Arc<PushFeed>,
    /// Hashes numbers, codes and locks; `None`: no phone numbers here.
    pub hasher: Option<Arc<PhoneHasher>>,
    /// Told what every device has taken.
    pub floors: Arc<TakenFloors>,
    /// The operator's bounds.
    pub config: PlanConfig,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// One thing for the writer.
pub(crate) enum Submission {
    /// Sends of one connection, and where to answer them.
    Sends {
        /// Who sends.
        from: Authenticated,
        /// What, in order.
        sends: Vec<SendFrame>,
        /// Where the answers go.
        answers: Arc<dyn Answers>,
        /// Their share of the queue's bytes.
        permit: OwnedSemaphorePermit,
    },
    /// A cursor.
    Ack {
        /// Whose.
        from: Authenticated,
        /// To where.
        position: gureum_proto::Position,
    },
    /// A device's life goes on.
    Live {
        /// Whose.
        from: Authenticated,
        /// What it has claimed.
        life: gureum_proto::Life,
    },
    /// A proof.
    Seen {
        /// Whose.
        from: Authenticated,
    },
    /// What devices were woken for.
    Pushed(Vec<(AccountId, DeviceId, PushStateRecord)>),
    /// Devices that were woken for what was owed to them since a time, or have come by themselves.
    Rung(Vec<(AccountId, DeviceId, u64)>),
    /// A change of an account or a conversation.
    Change {
        /// Which.
        change: Box<Change>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Changed, Refusal>>,
    },
}

/// Why the router takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer has stopped")]
pub(crate) struct RouterError;

/// The way to the writer.
#[derive(Clone)]
pub(crate) struct Router {
    queue: mpsc::Sender<Submission>,
    bytes: Arc<Semaphore>,
}

impl Router {
    /// Starts the writer. It ends when the last [`Router`] is dropped and the queue is empty;
    /// [`WriterEnd`] then says whether it ended well.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(parts: RouterParts, work: &Work) -> std::io::Result<(Self, WriterEnd)> {
        let (queue, submissions) = mpsc::channel(SUBMIT_QUEUE_MAX);
        let (done, ended) = oneshot::channel();
        // Whoever waits learns of an end by panic too: the sender is dropped unused.
        let task = match work {
            Work::Threads => {
                let run = move || drop(done.send(Writer::new(parts).run(submissions)));
                std::thread::Builder::new().name("gureum-writer".to_owned()).spawn(run)?;
                None
            }
            Work::Inline(latency) => {
                let latency = Arc::clone(latency);
                let run = async move { drop(done.send(Writer::new(parts).run_inline(submissions, &latency).await)) };
                Some(AbortOnDropHandle::new(tokio::spawn(run)))
            }
        };
        Ok((
            Self { queue, bytes: Arc::new(Semaphore::new(SUBMIT_BYTES_MAX)) },
            WriterEnd { ended: Some(ended), _task: task },
        ))
    }

    /// Bytes of messages that wait for the writer.
    pub(crate) fn queued_bytes(&self) -> usize {
        SUBMIT_BYTES_MAX - self.bytes.available_permits()
    }

    /// Submissions that wait for the writer.
    pub(crate) fn queued(&self) -> usize {
        SUBMIT_QUEUE_MAX - self.queue.capacity()
    }

    /// Waits for room in the queue for so many bytes.
    ///
    /// Cancel safety: nothing is lost; the place in the line is.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RouterError> {
        let bytes = u32::try_from(bytes.min(SUBMIT_BYTES_MAX)).map_err(|_| RouterError)?;
        Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| RouterError)
    }

    /// Puts a submission into the queue, waiting for a place.
    ///
    /// Cancel safety: a cancelled call has submitted nothing.
    ///
    /// # Errors
    /// When the writer has stopped.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<(), RouterError> {
        self.queue.send(submission).await.map_err(|_| RouterError)
    }

    /// Puts a submission into the queue if there is a place just now: for what nobody waits for and nobody misses.
    pub(crate) fn note(&self, submission: Submission) {
        let _ = self.queue.try_send(submission);
    }

    /// Makes a change and waits for it to be durable.
    ///
    /// # Errors
    /// The change is refused, or cannot be stored.
    pub(crate) async fn change(&self, change: Change) -> Result<Changed, Refusal> {
        let (answer, answered) = oneshot::channel();
        let submission = Submission::Change { change: Box::new(change), answer };
        self.submit(submission).await.map_err(|_| Refusal::new(Code::Unavailable))?;
        answered.await.map_err(|_| Refusal::new(Code::Unavailable))?
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

/// How the writer ended. A writer that runs as a task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct WriterEnd {
    /// `None` once its end was told.
    ended: Option<oneshot::Receiver<Result<(), StoreError>>>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl WriterEnd {
    /// Waits for the end; `None` when the writer panicked, or its end was told before.
    ///
    /// Cancel safety: nothing is lost before it has returned.
    pub(crate) async fn wait(&mut self) -> Option<Result<(), StoreError>> {
        let ended = self.ended.as_mut()?.await.ok();
        self.ended = None;
        ended
    }
}

struct Writer {
    parts: RouterParts,
    planner: Planner,
    plan: Plan,
    waiting: Vec<Waiting>,
    /// Floors that rest on cursors which a crash of the machine could still take back.
    unsynced_floors: Vec<(AccountId, u64)>,
}

/// Who waits for the batch.
enum Waiting {
    Sends {
        answers: Arc<dyn Answers>,
        counters: Vec<u64>,
        _permit: OwnedSemaphorePermit,
    },
    Change {
        answer: oneshot::Sender<Result<Changed, Refusal>>,
        result: Result<Changed, Refusal>,
        /// Who can be woken in a new way by it.
        targeted: Option<(AccountId, DeviceId, Targeted)>,
    },
}

impl Writer {
    fn new(parts: RouterParts) -> Self {
        let entropy = || {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).expect("the system has randomness");
            u128::from_be_bytes(bytes)
        };
        let planner = Planner::new(Arc::clone(&parts.store), Arc::clone(&parts.seal), parts.config, Box::new(entropy));
        let planner = match &parts.hasher {
            Some(hasher) => planner.with_hasher(Arc::clone(hasher)),
            None => planner,
        };
        Self { parts, planner, plan: Plan::default(), waiting: Vec::new(), unsynced_floors: Vec::new() }
    }

    fn run(mut self, mut submissions: mpsc::Receiver<Submission>) -> Result<(), StoreError> {
        let mut queued = Vec::new();
        while submissions.blocking_recv_many(&mut queued, BATCH_OPS_MAX) > 0 {
            let mut rest = queued.drain(..).peekable();
            while rest.peek().is_some() {
                self.plan_batch(&mut rest);
                let written = self.write();
                self.finish(written)?;
            }
        }
        Ok(())
    }

    /// As [`Self::run`], in a task: others run before and after each write, so that a crash may come between a write and
    /// its answers.
    async fn run_inline(
        mut self,
        mut submissions: mpsc::Receiver<Submission>,
        latency: &Latency,
    ) -> Result<(), StoreError> {
        let mut queued = Vec::new();
        while submissions.recv_many(&mut queued, BATCH_OPS_MAX).await > 0 {
            let mut rest = queued.drain(..).peekable();
            while rest.peek().is_some() {
                self.plan_batch(&mut rest);
                pause(latency).await;
                let written = self.write();
                tokio::task::yield_now().await;
                self.finish(written)?;
            }
        }
        Ok(())
    }

    /// Plans until a change or the end: a change reads what the batch before it wrote.
    fn plan_batch(&mut self, rest: &mut impl Iterator<Item = Submission>) {
        step("writer::queued");
        let now_ms = self.parts.clock.now_ms();
        let mut last = false;
        while !last && let Some(submission) = rest.next() {
            last = matches!(submission, Submission::Change { .. });
            self.plan_one(submission, now_ms);
        }
        self.planner.finish(&mut self.plan);
        step("writer::planned");
    }

    /// Adds one submission. What cannot be read refuses those of its operations that need it, and nobody else's.
    fn plan_one(&mut self, submission: Submission, now_ms: u64) {
        let (planner, plan) = (&mut self.planner, &mut self.plan);
        match submission {
            Submission::Sends { from, sends, answers, permit } => {
                let counters = sends.iter().map(|send| send.counter).collect();
                // What follows in a conversation waits with what could not be planned, so that it stays in order.
                let mut held = Vec::new();
                for send in sends {
                    let (counter, conversation) = (send.counter, send.conversation);
                    if held.contains(&conversation) {
                        plan.sent.push(Sent { counter, result: Err(unavailable()) });
                    } else if let Err(error) = planner.add(Op::Send { from, send }, now_ms, plan) {
                        held.push(conversation);
                        plan.sent.push(Sent { counter, result: Err(unplanned(&error, &self.parts.metrics)) });
                    }
                }
                self.waiting.push(Waiting::Sends { answers, counters, _permit: permit });
            }
            Submission::Ack { from, position } => {
                if let Err(error) = planner.add(Op::Ack { from, position }, now_ms, plan) {
                    // Nobody waits for an answer: the device acks again.
                    unplanned(&error, &self.parts.metrics);
                }
            }
            Submission::Live { from, life } => {
                if let Err(error) = planner.add(Op::Live { from, life }, now_ms, plan) {
                    // Nobody waits for an answer: what the device claims next is ahead of what is known then.
                    unplanned(&error, &self.parts.metrics);
                }
            }
            Submission::Seen { from } => {
                if let Err(error) = planner.add(Op::Seen { from }, now_ms, plan) {
                    // Nobody waits for an answer: the next proof is noted again.
                    unplanned(&error, &self.parts.metrics);
                }
            }
            Submission::Pushed(devices) => {
                for (account, device, state) in devices {
                    if let Err(error) = planner.add(Op::Pushed { account, device, state }, now_ms, plan) {
                        // Nobody waits for an answer: the device may be woken once more.
                        unplanned(&error, &self.parts.metrics);
                    }
                }
            }
            Submission::Rung(devices) => {
                for (account, device, owed_ms) in devices {
                    if let Err(error) = planner.add(Op::Rung { account, device, owed_ms }, now_ms, plan) {
                        // As above.
                        unplanned(&error, &self.parts.metrics);
                    }
                }
            }
            Submission::Change { change, answer } => {
                let targeted = targeted(&change);
                let planned = planner.add_change(*change, now_ms, plan);
                let result = planned.unwrap_or_else(|error| Err(unplanned(&error, &self.parts.metrics)));
                self.waiting.push(Waiting::Change { answer, result, targeted });
            }
        }
    }

    /// Writes the batch.
    fn write(&mut self) -> Result<(), StoreError> {
        let wants_sync = self.plan.must_sync || self.unsynced_floors.len() >= UNSYNCED_FLOORS_MAX;
        // A batch that changes nothing is not written, and brings nothing of those before it to the disk.
        self.plan.must_sync = wants_sync && !self.plan.batch.is_empty();
        let durability = if self.plan.must_sync { Durability::Synced } else { Durability::Lazy };
        let started = Instant::now();
        if !self.plan.batch.is_empty() {
            self.parts.store.write(&self.plan.batch, durability)?;
        }
        self.count_batch(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Answers what was written, then wakes. What was not written is answered with an error and forgotten.
    fn finish(&mut self, written: Result<(), StoreError>) -> Result<(), StoreError> {
        let result = match written {
            Ok(()) => {
                self.succeed();
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a batch was not written; its senders are told to try again");
                self.parts.metrics.store.healthy.set(0.0);
                self.fail();
                // What may pass leaves the writer running: the next batch tries the disk again.
                if error.may_pass() { Ok(()) } else { Err(error) }
            }
        };
        self.plan.clear();
        result
    }

    fn succeed(&mut self) {
        step("writer::written");
        let mut sent = self.plan.sent.drain(..);
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Sends { answers, counters, .. } => {
                    answers.answer(sent.by_ref().take(counters.len()).collect())
                }
                Waiting::Change { answer, result, targeted } => {
                    if let (Ok(_), Some((account, device, target))) = (&result, targeted) {
                        self.parts.push.targeted(account, device, Some(target));
                    }
                    drop(answer.send(result));
                }
            }
            step("writer::some_answered");
        }
        step("writer::answered");
        self.unsynced_floors.append(&mut self.plan.floors);
        if self.plan.must_sync {
            for (account, seq) in self.unsynced_floors.drain(..) {
                self.parts.floors.raise(&account, seq);
            }
        }
        self.parts.wake.deliver(&mut self.plan.deliveries);
        for (account, device, why) in self.plan.revoked.drain(..) {
            self.parts.wake.revoke(account, device, why);
        }
        for (account, device, notice) in self.plan.notices.drain(..) {
            self.parts.wake.notice(account, device, notice);
        }
        self.parts.push.moved(&self.plan.grown, &self.plan.taken);
        self.parts.push.untargeted(&self.plan.untargeted);
        self.parts.push.alarmed(&self.plan.alarmed);
        step("writer::woken");
    }

    fn count_batch(&self, write_seconds: f64) {
        let metrics = &self.parts.metrics;
        if self.plan.must_sync {
            metrics.fsync_seconds.record(write_seconds);
            metrics.batch_size.record(f64::from(u32::try_from(self.plan.batch.len()).unwrap_or(u32::MAX)));
        }
        let mut accepted = 0;
        for sent in &self.plan.sent {
            match &sent.result {
                Ok(result) if result.repeated => metrics.sends_repeated.increment(1),
                Ok(_) => accepted += 1,
                Err(refusal) => metrics.sends_refused.increment(refusal.code),
            }
        }
        metrics.sends_accepted.increment(accepted);
    }

    fn fail(&mut self) {
        self.unsynced_floors.clear();
        self.planner.forget();
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Sends { answers, counters, .. } => {
                    let sent = |counter| Sent { counter, result: Err(unavailable()) };
                    answers.answer(counters.into_iter().map(sent).collect());
                }
                Waiting::Change { answer, .. } => drop(answer.send(Err(unavailable()))),
            }
        }
    }
}

/// Who can be woken in a new way when this change is made.
fn targeted(change: &Change) -> Option<(AccountId, DeviceId, Targeted)> {
    let Change::SetPushTarget(plan) = change else { return None };
    let targeted =
        Targeted { route: route(&plan.record), visible: plan.record.visible, state: PushStateRecord::default() };
    Some((plan.from.account(), plan.from.device(), targeted))
}

/// Counts and tells that something could not be planned; the answer to whoever asked for it.
fn unplanned(error: &StoreError, metrics: &Metrics) -> Refusal {
    tracing::warn!(%error, "what a device asked for could not be planned, and is refused; others are served");
    metrics.unplanned.increment(1);
    unavailable()
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable).retry_after_ms(RETRY_AFTER_MS)
}

/// When a sender whose message could not be stored may try again: long enough for an operator's script to make
/// room, short enough to go unnoticed.
const RETRY_AFTER_MS: u64 = 1_000;

#[cfg(test)]
mod tests;
