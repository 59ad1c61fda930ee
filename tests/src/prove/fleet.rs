//! Devices that send and one that listens, through every end of their server, and the books that are kept of it.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gureum_proto::{
    Code, DeliveryFrame, EnvelopeBody, GapReason, MessageId, Position, Send as SendFrame, Sent, ServerFrame, put_send,
};
use quinn::{Endpoint, VarInt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::books::{Books, Heard};
use crate::World;
use crate::device::{Device, Talk};
use crate::raw::{Frames, Raw};

const START: Position = Position { seq: 0, count: 0 };

/// Sends of one device without an answer.
const WINDOW: usize = 32;

/// How often a sender adds to its window, and by how much at most: so that an inbox holds all of the longest run.
const PACE: Duration = Duration::from_millis(20);
const BURST: u64 = 4;

/// Bytes of an opaque body.
const BODY_BYTES: usize = 200;

/// How long one try to connect may take; a server that dies meanwhile never answers.
const CONNECT: Duration = Duration::from_secs(3);

/// The pause before another try.
const AGAIN: Duration = Duration::from_millis(30);

/// How long what is in flight may take to be answered when the server runs.
const SETTLE: Duration = Duration::from_secs(60);

/// What the devices are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server runs: send.
    Send,
    /// It does not: let go of every connection.
    Rest,
    /// It runs: let everything be answered, send nothing new.
    Settle,
    /// It is over.
    End,
}

/// Devices under load.
#[derive(Debug)]
pub struct Fleet {
    phase: watch::Sender<Phase>,
    books: Arc<Books>,
    listener: Arc<Device>,
    senders: Vec<JoinHandle<()>>,
    hearing: JoinHandle<()>,
    url: String,
    body_bytes: Arc<AtomicUsize>,
}

impl Fleet {
    /// Registers so many senders and a listener. The first sender encrypts, the others' bodies are opaque.
    pub async fn start(world: &World, senders: usize) -> Self {
        let listener = Arc::new(Device::registered(world, "listener").await);
        let (publisher, _) = listener.connect(world.url(), false, START).await;
        listener.publish(&publisher, senders).await;
        publisher.close().await;
        let (phase, phases) = watch::channel(Phase::Rest);
        let mut ready = Vec::new();
        for index in 0..senders {
            let device = Device::registered(world, &format!("sender{index}")).await;
            let (raw, _) = device.connect(world.url(), false, START).await;
            let talk = device.begin(&raw, &listener).await;
            raw.close().await;
            ready.push((device, talk));
        }
        let books = Arc::new(Books::new(ready.iter().map(|(_, talk)| talk.id).collect()));
        let url = world.url().to_owned();
        let body_bytes = Arc::new(AtomicUsize::new(BODY_BYTES));
        let senders = ready
            .into_iter()
            .enumerate()
            .map(|(index, (device, talk))| {
                let endpoint = endpoint();
                let (books, phases, url) = (Arc::clone(&books), phases.clone(), url.clone());
                let (body_bytes, unanswered) = (Arc::clone(&body_bytes), VecDeque::new());
                let sender = Sender { index, device, talk, endpoint, books, phases, url, unanswered, body_bytes };
                tokio::spawn(sender.run())
            })
            .collect();
        let hearing = Listener {
            device: Arc::clone(&listener),
            endpoint: endpoint(),
            books: Arc::clone(&books),
            phases,
            url: url.clone(),
            talks: Mutex::new(None),
        };
        Self { phase, books, listener, senders, hearing: tokio::spawn(hearing.run()), url, body_bytes }
    }

    /// What was sent, answered and heard.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// How long opaque bodies are from now on.
    pub fn send_bodies_of(&self, bytes: usize) {
        self.body_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The server runs: send.
    pub fn send(&self) {
        self.phase.send_replace(Phase::Send);
    }

    /// The server does not run.
    pub fn rest(&self) {
        self.phase.send_replace(Phase::Rest);
    }

    /// Waits until everything sent is answered, and the listener has heard it or was told of a gap.
    pub async fn settle(&self) {
        self.phase.send_replace(Phase::Settle);
        let settled = async {
            while !self.books.is_settled() {
                assert!(!self.has_failed(), "a device has panicked; what it saw stands above");
                tokio::time::sleep(AGAIN).await;
            }
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            panic!("not everything was answered and heard within {SETTLE:?}: {:?}", self.books.tally());
        }
    }

    /// Whether a device has panicked.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.hearing.is_finished() || self.senders.iter().any(JoinHandle::is_finished)
    }

    /// Ends all devices.
    pub async fn end(&mut self) {
        self.phase.send_replace(Phase::End);
        for task in self.senders.drain(..).chain(std::iter::once(std::mem::replace(&mut self.hearing, idle()))) {
            task.await.expect("a device has panicked; what it saw stands above");
        }
    }

    /// Reads again whatever the inbox holds, as a device would that comes back.
    pub async fn read_again(&self) -> Vec<Heard> {
        let endpoint = endpoint();
        let raw = loop {
            if let Some(raw) = connect(&endpoint, &self.url, &self.listener, Some(START)).await {
                break raw;
            }
        };
        let mut frames = raw.delivery().await;
        let mut heard = Vec::new();
        loop {
            match frames.delivery().await {
                DeliveryFrame::Envelope(envelope) => heard.push(Heard::of(&envelope)),
                DeliveryFrame::CaughtUp { .. } => break,
                DeliveryFrame::Gap(gap) => heard.push(Heard::gap(&gap)),
            }
        }
        raw.close().await;
        heard
    }
}

fn idle() -> JoinHandle<()> {
    tokio::spawn(async {})
}

fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

/// Connects and proves itself, if the server lets it.
async fn connect(endpoint: &Endpoint, url: &str, device: &Device, cursor: Option<Position>) -> Option<Raw> {
    let connecting = async {
        let mut raw = Raw::dial_on(endpoint, url).await.ok()?;
        let hello = device.hello(&raw, &device.claim(cursor.is_some(), cursor.unwrap_or_default()));
        raw.output.write_all(&hello).await.ok()?;
        match raw.next_frame().await.ok()? {
            ServerFrame::Ready(_) => Some(raw),
            ServerFrame::Drain { .. } => None,
            other => panic!("{other:?} in place of Ready"),
        }
    };
    let raw = tokio::time::timeout(CONNECT, connecting).await.ok().flatten();
    if raw.is_none() {
        tokio::time::sleep(AGAIN).await;
    }
    raw
}

struct Sender {
    index: usize,
    device: Device,
    talk: Talk,
    endpoint: Endpoint,
    books: Arc<Books>,
    phases: watch::Receiver<Phase>,
    url: String,
    unanswered: VecDeque<SendFrame>,
    body_bytes: Arc<AtomicUsize>,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let phase = *self.phases.borrow_and_update();
            match phase {
                Phase::End => return,
                Phase::Rest => self.phases.changed().await.unwrap(),
                Phase::Send | Phase::Settle => {
                    if let Some(mut raw) = connect(&self.endpoint, &self.url, &self.device, None).await {
                        self.talk(&mut raw).await;
                        raw.connection.close(VarInt::from_u32(0), b"");
                    }
                }
            }
        }
    }

    /// Repeats what has no answer, then sends on, until the connection or the phase ends.
    async fn talk(&mut self, raw: &mut Raw) {
        let repeated: Vec<_> = self.unanswered.iter().cloned().collect();
        if put(raw, &repeated).await.is_none() {
            return;
        }
        let mut pace = tokio::time::interval(PACE);
        loop {
            tokio::select! {
                frame = raw.next_frame() => match frame {
                    Ok(ServerFrame::Sent(sent)) => {
                        if self.answered(sent).is_none() {
                            tokio::time::sleep(AGAIN).await;
                            return;
                        }
                    }
                    Ok(ServerFrame::Drain { .. }) | Err(_) => return,
                    Ok(other) => panic!("{other:?} in place of an answer"),
                },
                _ = pace.tick() => {
                    let sends = self.next_sends();
                    if put(raw, &sends).await.is_none() {
                        return;
                    }
                }
                _ = self.phases.changed() => {
                    let phase = *self.phases.borrow();
                    if matches!(phase, Phase::Rest | Phase::End) {
                        return;
                    }
                }
            }
        }
    }

    /// `None`: refused for now, to be repeated with all that came after it.
    fn answered(&mut self, sent: Sent) -> Option<()> {
        match sent.result {
            Ok(accepted) => {
                let place = self.unanswered.iter().position(|send| send.counter == sent.counter);
                self.unanswered.remove(place.expect("an answer belongs to a send"));
                self.books.answered(self.index, sent.counter, &accepted);
                Some(())
            }
            Err(refusal) => {
                assert_eq!(refusal.code, Code::Unavailable, "{refusal:?}");
                assert!(refusal.retry_after_ms > 0, "it may be tried again");
                self.books.refused();
                None
            }
        }
    }

    /// What to send on; nothing once the devices are to send nothing new.
    fn next_sends(&mut self) -> Vec<SendFrame> {
        // Held meanwhile: when the phase has changed, whatever was made before it stands in the books.
        let phases = self.phases.clone();
        let phase = phases.borrow();
        if *phase != Phase::Send {
            return Vec::new();
        }
        let room = WINDOW - self.unanswered.len();
        let count = usize::try_from(rand::random_range(1..=BURST)).unwrap().min(room);
        let sends: Vec<_> = (0..count).map(|_| self.next_send()).collect();
        self.unanswered.extend(sends.iter().cloned());
        sends
    }

    fn next_send(&mut self) -> SendFrame {
        let number = self.books.sent(self.index);
        let send = if self.index == 0 {
            self.device.encrypt(&mut self.talk, text(number).as_bytes())
        } else {
            let mut body = vec![0; self.body_bytes.load(Ordering::Relaxed)];
            rand::fill(body.as_mut_slice());
            self.device.opaque(&self.talk, body)
        };
        self.books.send(self.index, send.counter, send.ciphertext.clone());
        send
    }
}

/// What the sender that encrypts says.
fn text(number: usize) -> String {
    format!("word {number}")
}

async fn put(raw: &mut Raw, sends: &[SendFrame]) -> Option<()> {
    let mut out = BytesMut::new();
    sends.iter().for_each(|send| put_send(send, &mut out));
    raw.output.write_all(&out).await.ok()
}

struct Listener {
    device: Arc<Device>,
    endpoint: Endpoint,
    books: Arc<Books>,
    phases: watch::Receiver<Phase>,
    url: String,
    /// The conversation with the sender that encrypts, once it is joined, and how many words of it were read.
    talks: Mutex<Option<(Talk, usize)>>,
}

impl Listener {
    async fn run(mut self) {
        loop {
            let phase = *self.phases.borrow_and_update();
            match phase {
                Phase::End => return,
                Phase::Rest => self.phases.changed().await.unwrap(),
                Phase::Send | Phase::Settle => {
                    let cursor = self.books.take();
                    if let Some(raw) = connect(&self.endpoint, &self.url, &self.device, Some(cursor)).await {
                        self.hear(&raw).await;
                        raw.connection.close(VarInt::from_u32(0), b"");
                    }
                }
            }
        }
    }

    /// Takes what is delivered until the connection or the phase ends.
    async fn hear(&mut self, raw: &Raw) {
        let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, raw.connection.accept_uni()).await else { return };
        let mut frames = Frames::of(stream);
        loop {
            tokio::select! {
                frame = frames.next() => {
                    let Ok(frame) = frame else { return };
                    match DeliveryFrame::decode(frame).unwrap() {
                        DeliveryFrame::Envelope(envelope) => {
                            if envelope.shared.conversation == self.books.conversation(0) {
                                self.read(raw, &envelope.shared.body).await;
                            }
                            self.books.heard(Heard::of(&envelope));
                        }
                        DeliveryFrame::Gap(gap) => {
                            assert_eq!(gap.reason, GapReason::Expired, "{gap:?}");
                            self.books.heard(Heard::gap(&gap));
                        }
                        DeliveryFrame::CaughtUp { .. } => {}
                    }
                }
                _ = self.phases.changed() => {
                    let phase = *self.phases.borrow();
                    if matches!(phase, Phase::Rest | Phase::End) {
                        return;
                    }
                }
            }
        }
    }

    /// Joins by a Welcome; decrypts a word, which must be the next one.
    async fn read(&self, raw: &Raw, body: &EnvelopeBody) {
        match body {
            EnvelopeBody::Welcome(welcome) => {
                let talk = self.device.join(raw, self.books.conversation(0), welcome).await;
                *self.talks.lock().unwrap() = Some((talk, 0));
            }
            EnvelopeBody::Message { ciphertext, .. } => {
                let mut talks = self.talks.lock().unwrap();
                let (talk, read) = talks.as_mut().expect("a Welcome comes before the first message");
                let words = self.device.decrypt(talk, ciphertext);
                if !self.books.has_gaps() {
                    assert_eq!(String::from_utf8_lossy(&words), text(*read), "each word once, in order");
                }
                *read += 1;
            }
            EnvelopeBody::Silent(_)
            | EnvelopeBody::Commit { .. }
            | EnvelopeBody::LogChange { .. }
            | EnvelopeBody::Leave(_) => {}
        }
    }
}

/// The id of a message that an answer names.
pub(super) fn id_of(accepted: &gureum_proto::Accepted) -> MessageId {
    accepted.message_id.expect("a window is remembered, and no sender repeats more")
}

/// What a body is known by.
pub(super) fn ciphertext(body: &EnvelopeBody) -> Option<(u64, Bytes)> {
    match body {
        EnvelopeBody::Message { number, ciphertext } => Some((*number, ciphertext.clone())),
        EnvelopeBody::Silent(_)
        | EnvelopeBody::Welcome(_)
        | EnvelopeBody::Commit { .. }
        | EnvelopeBody::LogChange { .. }
        | EnvelopeBody::Leave(_) => None,
    }
}
