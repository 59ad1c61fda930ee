//! Good users: pairs that talk at a steady pace, and newcomers who connect, all along; each latency is kept with its
//! moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{EnvelopeBody, Position, ServerFrame, put_send};

use crate::World;
use crate::device::{Device, Talk};
use crate::raw::{Frames, Raw};

/// Between two connections of newcomers.
const NEWCOMER_EVERY: Duration = Duration::from_millis(200);
/// Bytes of a message.
const BODY_BYTES: usize = 256;
/// Where a pair's inbox begins.
const START: Position = Position { seq: 0, count: 0 };

/// Something that took a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it was due.
    pub(crate) due: Instant,
    /// Until it was done.
    pub(crate) took: Duration,
}

/// The good users, who run until they are ended.
pub(crate) struct Good {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    origin: Instant,
    over: AtomicBool,
    messages: Mutex<Vec<Sample>>,
    connections: Mutex<Vec<Sample>>,
}

impl Good {
    /// Sets up so many pairs, each of which sends a message every so often. Returns when they talk.
    pub(crate) fn start(world: &World, pairs: usize, every: Duration) -> Self {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            over: AtomicBool::new(false),
            messages: Mutex::default(),
            connections: Mutex::default(),
        });
        let users = Users { url: world.url().to_owned(), invites: (0..=2 * pairs).map(|_| world.invite(1)).collect() };
        let (ready, wait) = mpsc::channel();
        let there = Arc::clone(&shared);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(users.talk(&there, pairs, every, &ready));
        };
        let thread = std::thread::Builder::new().name("good-users".to_owned()).spawn(run).unwrap();
        wait.recv().expect("the good users are set up");
        Self { shared, thread }
    }

    /// How long messages took that arrived in a span: each is in one span, however long it took.
    pub(crate) fn arrived(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let messages = self.shared.messages.lock().unwrap();
        let arrived = messages.iter().filter(|sample| (from..to).contains(&(sample.due + sample.took)));
        arrived.map(|sample| sample.took).collect()
    }

    /// How long messages took that were due in a span.
    pub(crate) fn messages(&self, from: Instant, to: Instant) -> Vec<Duration> {
        within(&self.shared.messages.lock().unwrap(), from, to)
    }

    /// How long newcomers took to be let in.
    pub(crate) fn connections(&self, from: Instant, to: Instant) -> Vec<Duration> {
        within(&self.shared.connections.lock().unwrap(), from, to)
    }

    /// Ends them. Each message has arrived once and in order, and no connection was lost, or this panics.
    pub(crate) fn end(self) -> usize {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        self.shared.messages.lock().unwrap().len()
    }
}

fn within(samples: &[Sample], from: Instant, to: Instant) -> Vec<Duration> {
    samples.iter().filter(|sample| (from..to).contains(&sample.due)).map(|sample| sample.took).collect()
}

/// The duration that a share of them does not exceed, in microseconds.
pub(crate) fn quantile(durations: &[Duration], share: f64) -> u64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
    u64::try_from(sorted[index].as_micros()).unwrap()
}

struct Users {
    url: String,
    invites: Vec<String>,
}

impl Users {
    async fn talk(mut self, shared: &Arc<Shared>, pairs: usize, every: Duration, ready: &mpsc::Sender<()>) {
        let mut set_up = Vec::new();
        for index in 0..pairs {
            set_up.push(self.pair(index).await);
        }
        let newcomer = self.register("newcomer").await;
        let mut tasks = tokio::task::JoinSet::new();
        for (index, (alice, talk, raw, frames)) in set_up.into_iter().enumerate() {
            let spread =
                every.mul_f64(f64::from(u32::try_from(index).unwrap()) / f64::from(u32::try_from(pairs).unwrap()));
            tasks.spawn(send(alice, talk, raw, Arc::clone(shared), every, spread));
            tasks.spawn(receive(frames, Arc::clone(shared)));
        }
        tasks.spawn(come_again(newcomer, self.url.clone(), Arc::clone(shared)));
        ready.send(()).unwrap();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    async fn register(&mut self, handle: &str) -> Device {
        let device = Device::new();
        let mut raw = Raw::dial(&self.url).await;
        device.register(&mut raw, &self.invites.pop().expect("an invite each"), handle).await.unwrap();
        raw.close().await;
        device
    }

    async fn pair(&mut self, index: usize) -> (Device, Talk, Raw, (Raw, Frames)) {
        let alice = self.register(&format!("alice{index}")).await;
        let bob = self.register(&format!("bob{index}")).await;
        let (listener, _) = bob.connect(&self.url, true, START).await;
        bob.publish(&listener, 1).await;
        let frames = listener.delivery().await;
        let (raw, _) = alice.connect(&self.url, false, START).await;
        let talk = alice.begin(&raw, &bob).await;
        (alice, talk, raw, (listener, frames))
    }
}

/// Sends at fixed times, whether the one before was answered or not, as long as the protocol allows; the last message is
/// empty but for its number.
async fn send(mut alice: Device, talk: Talk, mut raw: Raw, shared: Arc<Shared>, every: Duration, spread: Duration) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + spread, every);
    let (mut number, mut unanswered, mut is_last) = (0_u64, 0, false);
    while !is_last || unanswered > 0 {
        tokio::select! {
            biased;
            frame = raw.next_frame(), if unanswered > 0 => {
                let ServerFrame::Sent(sent) = frame.unwrap() else { panic!("it answers sends") };
                sent.result.unwrap();
                unanswered -= 1;
            }
            due = ticks.tick(), if !is_last && unanswered < SENDS_IN_FLIGHT_MAX => {
                let due = due.into_std();
                is_last = shared.over.load(Ordering::SeqCst);
                let since_ns = if is_last { 0 } else { u64::try_from((due - shared.origin).as_nanos()).unwrap() };
                let mut body = vec![0; BODY_BYTES];
                body[..8].copy_from_slice(&since_ns.to_be_bytes());
                body[8..16].copy_from_slice(&number.to_be_bytes());
                let mut out = BytesMut::new();
                put_send(&alice.opaque(&talk, body), &mut out);
                raw.write(&out).await;
                number += 1;
                unanswered += 1;
            }
        }
    }
}

async fn receive((_raw, mut frames): (Raw, Frames), shared: Arc<Shared>) {
    let mut wanted = 0_u64;
    loop {
        let EnvelopeBody::Message { ciphertext, .. } = frames.envelope().await.shared.body else { continue };
        let word = |at: usize| u64::from_be_bytes(ciphertext[at..at + 8].try_into().unwrap());
        let (since_ns, number) = (word(0), word(8));
        assert_eq!(number, wanted, "once, and in order");
        wanted += 1;
        if since_ns == 0 {
            return;
        }
        let due = shared.origin + Duration::from_nanos(since_ns);
        shared.messages.lock().unwrap().push(Sample { due, took: due.elapsed() });
    }
}

async fn come_again(newcomer: Device, url: String, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(NEWCOMER_EVERY);
    while !shared.over.load(Ordering::SeqCst) {
        let due = ticks.tick().await.into_std();
        let (raw, _) = newcomer.connect(&url, false, START).await;
        shared.connections.lock().unwrap().push(Sample { due, took: due.elapsed() });
        raw.close().await;
    }
}
