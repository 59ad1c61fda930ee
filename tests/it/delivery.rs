//! The delivery path as the wire shows it: live, caught up, repeated, acked, displaced.

use gureum_proto::{Code, DeliveryFrame, EnvelopeBody, GapReason, Position, Response, ServerFrame, put_ack, put_send};
use gureum_tests::World;
use gureum_tests::device::{Device, Talk};
use gureum_tests::raw::{Frames, Raw};
use gureum_tests::wait::until_ms;

const START: Position = Position { seq: 0, count: 0 };

/// Two devices that talk: Alice's connection, Bob's without a subscription.
pub(crate) struct Two {
    pub(crate) world: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) talk: Talk,
    pub(crate) raw: Raw,
}

impl Two {
    pub(crate) async fn in_world(world: World) -> Self {
        let (alice, bob) = (Device::registered(&world, "alice").await, Device::registered(&world, "bob").await);
        let (publisher, _) = bob.connect(world.url(), false, START).await;
        bob.publish(&publisher, 2).await;
        publisher.close().await;
        let (raw, _) = alice.connect(world.url(), false, START).await;
        let talk = alice.begin(&raw, &bob).await;
        Self { world, alice, bob, talk, raw }
    }

    pub(crate) async fn start() -> Self {
        Self::in_world(World::start()).await
    }

    /// Sends opaque bodies in Alice's name, which must be taken.
    pub(crate) async fn send(&mut self, bodies: &[&[u8]]) {
        let sends: Vec<_> = bodies.iter().map(|body| self.alice.opaque(&self.talk, body.to_vec())).collect();
        for sent in self.raw.send(&sends).await {
            sent.result.unwrap();
        }
    }

    /// Connects Alice again, after the server was started anew.
    pub(crate) async fn reconnect(&mut self) {
        self.raw = self.alice.connect(self.world.url(), false, START).await.0;
    }

    /// Bob's inbox from a position on.
    pub(crate) async fn subscribe(&self, from: Position) -> (Raw, Frames) {
        let (raw, _) = self.bob.connect(self.world.url(), true, from).await;
        let frames = raw.delivery().await;
        (raw, frames)
    }
}

/// The body of the next application message.
pub(crate) async fn next_body(frames: &mut Frames) -> (Position, Vec<u8>) {
    loop {
        let envelope = frames.envelope().await;
        if let EnvelopeBody::Message { ciphertext, .. } = envelope.shared.body {
            return (envelope.position, ciphertext.to_vec());
        }
    }
}

#[tokio::test]
async fn what_one_encrypts_the_other_reads_live_from_memory() {
    let mut two = Two::start().await;
    let (raw, mut frames) = two.subscribe(START).await;
    let welcome = frames.envelope().await;
    let EnvelopeBody::Welcome(bytes) = welcome.shared.body else { panic!("no Welcome") };
    let mut bobs = two.bob.join(&raw, two.talk.id, &bytes).await;
    assert!(matches!(frames.delivery().await, DeliveryFrame::CaughtUp { seq: 1 }));

    let from = |source: &str| two.world.admin().count(&format!("gureum_deliveries_total{{source=\"{source}\"}}"));
    let before = (from("tail"), from("store"));
    let send = two.alice.encrypt(&mut two.talk, b"hello");
    let sent = two.raw.send(std::slice::from_ref(&send)).await;
    let envelope = frames.envelope().await;
    let EnvelopeBody::Message { number, ciphertext } = envelope.shared.body else { panic!("no message") };
    assert_eq!(two.bob.decrypt(&mut bobs, &ciphertext), b"hello");
    assert_eq!((number, envelope.position), (1, Position { seq: 2, count: 1 }));
    assert_eq!(sent[0].result.as_ref().unwrap().message_id, Some(envelope.shared.message_id));
    let from = |source: &str| two.world.admin().count(&format!("gureum_deliveries_total{{source=\"{source}\"}}"));
    assert_eq!((from("tail"), from("store")), (before.0 + 1, before.1), "a live relay reads no store");
}

#[tokio::test]
async fn what_was_answered_survives_sigkill_and_comes_once_in_order() {
    let mut two = Two::start().await;
    let bodies: Vec<Vec<u8>> = (0..200_u32).map(|index| format!("body {index}").into_bytes()).collect();
    for bodies in bodies.chunks(50) {
        two.send(&bodies.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    }
    two.world.kill_and_restart();
    let (_raw, mut frames) = two.subscribe(START).await;
    for (index, body) in bodies.iter().enumerate() {
        let (position, came) = next_body(&mut frames).await;
        assert_eq!(came, *body);
        assert_eq!(position.count, u64::try_from(index).unwrap() + 1);
    }
    assert!(matches!(frames.delivery().await, DeliveryFrame::CaughtUp { .. }));
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_is_answered_again_and_stored_once() {
    let mut two = Two::start().await;
    let send = two.alice.opaque(&two.talk, "once".as_bytes());
    let first = two.raw.send(std::slice::from_ref(&send)).await;
    let (mut again, ready) = two.alice.connect(two.world.url(), false, START).await;
    assert_eq!(ready.accepted_counter, send.counter);
    let second = again.send(std::slice::from_ref(&send)).await;
    two.world.kill_and_restart();
    let (mut later, _) = two.alice.connect(two.world.url(), false, START).await;
    let third = later.send(&[send]).await;
    let result = |sent: &[gureum_proto::Sent]| *sent[0].result.as_ref().unwrap();
    assert!(!result(&first).repeated && result(&second).repeated && result(&third).repeated);
    assert_eq!(result(&first).message_id, result(&second).message_id);
    assert_eq!(result(&first).message_id, result(&third).message_id);
    let (_raw, mut frames) = two.subscribe(START).await;
    assert_eq!(next_body(&mut frames).await.1, b"once");
    assert!(matches!(frames.delivery().await, DeliveryFrame::CaughtUp { .. }), "it came a second time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_ack_moves_the_cursor_and_what_was_not_delivered_cannot_be_acked() {
    let mut two = Two::start().await;
    two.send(&[b"one", b"two"]).await;
    let (mut raw, mut frames) = two.subscribe(START).await;
    let (first, _) = next_body(&mut frames).await;
    let (second, _) = next_body(&mut frames).await;
    let mut out = bytes::BytesMut::new();
    put_ack(first, &mut out);
    raw.write(&out).await;
    // The cursor is on the server: a device that has forgotten its own goes on from there.
    gureum_tests::wait::eventually("the ack", gureum_tests::wait::SOON, || {
        (two.world.admin().count("gureum_acks_total") >= 1).then_some(())
    });
    let (_again, mut frames) = two.subscribe(START).await;
    assert_eq!(raw.ended().await.code, Code::Displaced, "one subscription a device");
    assert_eq!(next_body(&mut frames).await, (second, b"two".to_vec()));

    let (mut raw, _frames) = two.subscribe(START).await;
    let mut out = bytes::BytesMut::new();
    put_ack(Position { seq: second.seq + 1, count: second.count }, &mut out);
    raw.write(&out).await;
    assert_eq!(raw.ended().await.code, Code::AckInvalid);
}

#[tokio::test]
async fn what_expired_untaken_is_one_gap_with_the_exact_count_and_later_messages_follow() {
    let mut two = Two::in_world(World::with_retention("2s")).await;
    two.send(&[b"gone".as_slice(); 7]).await;
    until_ms(gureum_tests::wait::now_ms() + 2_100);
    two.send(&[b"here"]).await;
    let (_raw, mut frames) = two.subscribe(START).await;
    // The Welcome stays for longer.
    let DeliveryFrame::Envelope(welcome) = frames.delivery().await else { panic!("no Welcome") };
    assert_eq!(welcome.position, Position { seq: 1, count: 0 });
    let DeliveryFrame::Gap(gap) = frames.delivery().await else { panic!("no gap") };
    assert_eq!((gap.from_seq, gap.to, gap.missed), (2, Position { seq: 8, count: 7 }, 7));
    assert_eq!(gap.reason, GapReason::Expired);
    assert_eq!(next_body(&mut frames).await, (Position { seq: 9, count: 8 }, b"here".to_vec()));
}

#[tokio::test]
async fn an_inbox_over_its_bound_loses_its_oldest_and_says_so() {
    let options = gureum_tests::Options { flags: vec!["--inbox-entries-max", "16"], ..Default::default() };
    let mut two = Two::in_world(World::start_with(options)).await;
    two.send(&[b"body".as_slice(); 40]).await;
    let (_raw, mut frames) = two.subscribe(START).await;
    let DeliveryFrame::Gap(gap) = frames.delivery().await else { panic!("no gap") };
    assert_eq!((gap.reason, gap.missed), (GapReason::Overflow, gap.to.count));
    let (next, _) = next_body(&mut frames).await;
    assert_eq!((next.seq, next.count), (gap.to.seq + 1, gap.missed + 1));
    assert!((16..=41).contains(&(41 - gap.to.seq)), "{gap:?} leaves the newest");
}

#[tokio::test]
async fn a_message_far_behind_the_epoch_is_to_be_encrypted_again() {
    let mut two = Two::start().await;
    let stale = two.alice.encrypt(&mut two.talk, b"old");
    for _ in 0..4 {
        let commit = two.alice.commit(&mut two.talk);
        let answer = two.raw.request(&gureum_proto::Request::SubmitCommit(commit)).await;
        assert!(matches!(answer, Response::CommitAccepted { .. }), "{answer:?}");
        two.alice.merge_own(&mut two.talk);
    }
    let mut out = bytes::BytesMut::new();
    put_send(&stale, &mut out);
    two.raw.write(&out).await;
    let ServerFrame::Sent(sent) = two.raw.frame().await else { panic!("no answer") };
    assert_eq!(sent.result.unwrap_err().code, Code::EpochStale);
    // Under the same counter, since nothing was stored under it.
    let again = gureum_proto::Send { counter: stale.counter, ..two.alice.encrypt(&mut two.talk, b"new") };
    assert!(!two.raw.send(&[again]).await[0].result.as_ref().unwrap().repeated);
}
