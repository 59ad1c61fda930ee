//! Bad input: each has its code, costs bounded memory, and leaves every other connection untouched.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gureum_proto::limits::SENDS_IN_FLIGHT_MAX;
use gureum_proto::{Code, Position, Request, Response, Send, ServerFrame, put_ack, put_register, put_send};
use gureum_server::limits::{
    SEND_COUNTED_BYTES, SENDS_AT_ONCE_MAX, UNPROVEN_PER_ADDRESS_MAX, UNVALIDATED_HANDSHAKES_MAX,
};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::raw::{Raw, frame, soon};
use gureum_tests::wait::eventually_is;
use quinn::{ConnectionError, Endpoint, TransportErrorCode};
use tokio::task::JoinSet;

use crate::delivery::{Two, next_body};

const START: Position = Position { seq: 0, count: 0 };

/// Bytes on a new session stream, whether it ends after them, and the code that they get.
async fn check(world: &World, bytes: &[u8], ends: bool, expected: Code) {
    let mut raw = Raw::dial(world.url()).await;
    raw.write(bytes).await;
    if ends {
        raw.finish();
    }
    let ended = raw.ended().await;
    assert_eq!(ended.code, expected, "{bytes:02x?}: {ended:?}");
}

#[tokio::test]
async fn broken_frames_are_refused_each_with_its_code() {
    let world = World::start();
    // A varint that is not in its shortest form.
    check(&world, &[0x40, 0x01], false, Code::FrameMalformed).await;
    check(&world, &[0x01, 0x40, 0x05], false, Code::FrameMalformed).await;
    // Types that may not be ignored, below and above the range of those that may.
    check(&world, &frame(0x30, 0, b""), false, Code::FrameUnknown).await;
    check(&world, &frame(0x0fff, 0, b""), false, Code::FrameUnknown).await;
    check(&world, &frame(0x2000, 0, b""), false, Code::FrameUnknown).await;
    check(&world, &frame((1 << 62) - 1, 0, b""), false, Code::FrameUnknown).await;
    // Lengths, before a byte of the payload.
    check(&world, &frame(0x01, 2 * 1024 + 1, b""), false, Code::FrameTooLong).await;
    check(&world, &frame(0x01, (1 << 62) - 1, b""), false, Code::FrameTooLong).await;
    check(&world, &frame(0x06, 32 * 1024 + 1, b""), false, Code::FrameTooLong).await;
    check(&world, &frame(0x1002, 64 * 1024 + 1, b""), false, Code::FrameTooLong).await;
    // Streams that end too early.
    check(&world, &frame(0x01, 100, b"short"), true, Code::FrameTruncated).await;
    check(&world, &[0x01], true, Code::FrameTruncated).await;
    // Payloads.
    check(&world, &frame(0x01, 5, &[0xff; 5]), false, Code::PayloadMalformed).await;
    check(&world, &frame(0x06, 5, &[0xff; 5]), false, Code::PayloadMalformed).await;
    check(&world, &frame(0x01, 0, b""), false, Code::PayloadMalformed).await;
    // Frames of the other direction, of other streams, and of another state.
    check(&world, &frame(0x02, 0, b""), false, Code::FrameUnexpected).await;
    check(&world, &frame(0x10, 0, b""), false, Code::FrameUnexpected).await;
    check(&world, &frame(0x20, 0, b""), false, Code::FrameUnexpected).await;
    check(&world, &frame(0x1000, 0, b""), false, Code::FrameUnexpected).await;
    assert!(world.admin().ready().0);
}

#[tokio::test]
async fn frames_that_may_be_ignored_are() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let mut raw = Raw::dial(world.url()).await;
    let hello = alice.hello(&raw, &alice.claim(false, START));
    raw.write(&frame(0x1002, 5, b"later")).await;
    raw.write(&frame(0x1fff, 64 * 1024, &vec![7; 64 * 1024])).await;
    raw.write(&hello).await;
    assert!(matches!(raw.frame().await, ServerFrame::Ready(_)));
}

#[tokio::test]
async fn frames_out_of_state_after_the_proof_are_refused() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let mut register = BytesMut::new();
    let root_entry = alice.root_entry.clone();
    put_register(
        &gureum_proto::Register { token: Vec::new().into(), handle: "again".into(), root_entry, phone: None },
        &mut register,
    );
    let mut ack = BytesMut::new();
    put_ack(Position { seq: 1, count: 1 }, &mut ack);
    let mut uncounted = BytesMut::new();
    let conversation = gureum_proto::ConversationId::from_bytes([1; 16]);
    put_send(&Send { counter: 0, conversation, epoch: 1, ciphertext: "x".into(), silent: false }, &mut uncounted);
    for (bytes, code) in [
        (register, Code::FrameUnexpected),
        // No subscription has delivered anything.
        (ack, Code::AckInvalid),
        (uncounted, Code::PayloadMalformed),
    ] {
        let (mut raw, _) = alice.connect(world.url(), false, START).await;
        raw.write(&bytes).await;
        assert_eq!(raw.ended().await.code, code);
    }
}

#[tokio::test]
async fn more_sends_in_flight_than_allowed_end_the_connection() {
    let mut two = Two::start().await;
    let mut out = BytesMut::new();
    for _ in 0..600 {
        put_send(&two.alice.opaque(&two.talk, "x".as_bytes()), &mut out);
    }
    two.raw.write(&out).await;
    assert_eq!(two.raw.ended().await.code, Code::LimitReached);
}

#[tokio::test]
async fn a_broken_request_costs_its_stream_and_not_the_connection() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (raw, _) = alice.connect(world.url(), false, START).await;
    for (bytes, code) in [
        (frame(0x20, 4, &[0xff; 4]), Code::PayloadMalformed),
        (frame(0x20, 0, b""), Code::PayloadMalformed),
        (frame(0x20, 9_999_999, b""), Code::FrameTooLong),
        (frame(0x01, 0, b""), Code::FrameUnexpected),
        (frame(0x33, 0, b""), Code::FrameUnknown),
        (frame(0x20, 50, b"not all of it"), Code::FrameTruncated),
        (vec![0x40, 0x20].into(), Code::FrameMalformed),
    ] {
        assert_eq!(raw.request_bytes(&bytes).await.unwrap_err(), code, "{bytes:02x?}");
    }
    let answer = raw.request(&Request::ListConversations { after: None }).await;
    assert!(matches!(answer, Response::Conversations { .. }), "{answer:?}");
}

/// A generator of bytes that are the same in each run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut byte = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0.to_be_bytes()[0]
        };
        (0..count).map(|_| byte()).collect()
    }
}

#[tokio::test]
async fn garbage_gets_a_code_and_others_do_not_notice() {
    let mut two = Two::in_world(World::start_with(gureum_tests::Options {
        flags: vec!["--unproven-timeout", "1s"],
        ..Default::default()
    }))
    .await;
    let (_bob, mut frames) = two.subscribe(START).await;
    let mut noise = Noise(1);
    let mut connections = Vec::new();
    for length in 0..60 {
        let mut raw = Raw::dial(two.world.url()).await;
        raw.write(&noise.bytes(1 + length * 7)).await;
        connections.push(raw);
    }
    two.send(&[b"between the noise"]).await;
    assert_eq!(next_body(&mut frames).await.1, b"between the noise");
    for raw in &connections {
        let code = raw.ended().await.code;
        let known = [
            Code::FrameMalformed,
            Code::FrameUnknown,
            Code::FrameTooLong,
            Code::PayloadMalformed,
            Code::FrameUnexpected,
            Code::ProofTimeout,
        ];
        assert!(known.contains(&code), "{code:?}");
    }
    assert_eq!(two.world.log().matches("panicked").count(), 0);
}

#[tokio::test]
async fn streams_that_stay_silent_are_dropped_and_others_do_not_notice() {
    let mut two = Two::start().await;
    let stranger = Raw::dial(two.world.url()).await;
    let (mallory_device, (_bob, mut frames)) =
        (Device::registered(&two.world, "mallory").await, two.subscribe(START).await);
    let (mallory, _) = mallory_device.connect(two.world.url(), false, START).await;
    let (mut silent, mut opened_by) = (Vec::new(), Vec::new());
    for raw in [&stranger, &mallory] {
        loop {
            // As many as the server allows, each with the beginning of a request.
            let opened = tokio::time::timeout(Duration::from_millis(200), raw.connection.open_bi()).await;
            let Ok(Ok((mut output, input))) = opened else { break };
            output.write_all(&[0x20]).await.unwrap();
            silent.push((output, input));
        }
        opened_by.push(silent.len());
    }
    assert!((8..=20).contains(&silent.len()), "{} streams", silent.len());
    two.send(&[b"meanwhile"]).await;
    assert_eq!(next_body(&mut frames).await.1, b"meanwhile");
    assert_eq!(stranger.ended().await.code, Code::ProofTimeout);
    // The proven one keeps its connection; its streams are reset, which makes room for a request that says something.
    for (_, input) in silent.iter_mut().skip(opened_by[0]) {
        let reset = soon("a reset", input.read_to_end(16)).await.unwrap_err();
        assert!(format!("{reset:?}").contains(&Code::TooSlow.number().to_string()), "{reset:?}");
    }
    drop(silent);
    let answer = mallory.request(&Request::ListConversations { after: None }).await;
    assert!(matches!(answer, Response::Conversations { .. }), "{answer:?}");
}

#[tokio::test]
async fn who_never_reads_is_dropped_costs_little_and_loses_nothing() {
    const BODY_BYTES: usize = 32 * 1024;
    const BODIES: usize = 256;
    let mut two = Two::start().await;
    let carol = Device::registered(&two.world, "carol").await;
    let (publisher, _) = carol.connect(two.world.url(), true, START).await;
    carol.publish(&publisher, 1).await;
    let mut frames = publisher.delivery().await;
    let talk = two.alice.begin(&two.raw, &carol).await;
    frames.envelope().await;

    let mut deaf = Raw::dial_with_window(two.world.url(), 4 * 1024).await;
    two.bob.prove(&mut deaf, true, START).await;
    let before_kib = two.world.resident_kib();
    let body = vec![9; BODY_BYTES];
    for _ in 0..BODIES / 32 {
        two.send(&[body.as_slice(); 32]).await;
    }
    let started = Instant::now();
    let grown_kib = two.world.resident_kib().saturating_sub(before_kib);
    // 8 MiB once in the memtable, once in the tail, and what the connection holds.
    println!("a client that never reads: {grown_kib} KiB for {} KiB", BODY_BYTES * BODIES / 1024);
    assert!(grown_kib < 96 * 1024, "{grown_kib} KiB");

    // Somebody else's messages flow.
    let send = two.alice.opaque(&talk, "for carol".as_bytes());
    two.raw.send(&[send]).await[0].result.clone().unwrap();
    assert_eq!(next_body(&mut frames).await.1, b"for carol");

    let closed = tokio::time::timeout(Duration::from_secs(60), deaf.connection.closed()).await.unwrap();
    let text = format!("{closed:?}");
    assert!(text.contains(&Code::TooSlow.number().to_string()), "{text}");
    println!("dropped after {:?}", started.elapsed());
    let (_raw, mut frames) = two.subscribe(START).await;
    for index in 0..BODIES {
        assert_eq!(next_body(&mut frames).await.0.count, u64::try_from(index).unwrap() + 1);
    }
}

#[tokio::test]
async fn a_device_that_sends_too_fast_is_held_to_its_pace_and_others_are_not() {
    const FULL: usize = SENDS_IN_FLIGHT_MAX as usize;
    let flags = vec!["--sends-per-second", "20"];
    let mut two = Two::in_world(World::start_with(gureum_tests::Options { flags, ..Default::default() })).await;
    let (mut bob, mut frames) = two.subscribe(START).await;
    let admin = two.world.admin();
    let slowed = || admin.count("gureum_sends_slowed_total");
    let mut at_once = 0;
    while slowed() == 0 {
        two.send(&[b"at once".as_slice(); FULL]).await;
        at_once += FULL;
    }
    let burst = SENDS_AT_ONCE_MAX as usize;
    assert!((burst..4 * burst).contains(&at_once), "{at_once} passed before it was slowed down");
    // Now it owes all of what it sends next.
    two.send(&[b"at once".as_slice(); FULL]).await;
    at_once += FULL;

    // Another connection of the same device is no way around it.
    let (mut another, _) = two.alice.connect(two.world.url(), false, START).await;
    let late: Vec<_> = (0..FULL).map(|_| two.alice.opaque(&two.talk, b"late".as_slice())).collect();
    let from_bob = [two.bob.opaque(&two.talk, b"of another device".as_slice())];
    let started = Instant::now();
    let late = async {
        let sent = another.send(&late).await;
        assert!(sent.iter().all(|sent| sent.result.is_ok()), "it waits, and nothing is refused");
        Instant::now()
    };
    let other = async {
        bob.send(&from_bob).await[0].result.clone().unwrap();
        Instant::now()
    };
    let (late_at, other_at) = tokio::join!(late, other);
    assert!(late_at - started >= Duration::from_secs(1), "64 at 20 a second: {:?}", late_at - started);
    assert!(other_at < late_at);
    for _ in 0..at_once {
        assert_eq!(next_body(&mut frames).await.1, b"at once");
    }
    for _ in 0..FULL {
        assert_eq!(next_body(&mut frames).await.1, b"late");
    }
}

#[tokio::test]
async fn what_is_skipped_counts_by_its_length() {
    const SKIPPED_BYTES: usize = 64 * 1024;
    let flags = vec!["--sends-per-second", "20"];
    let mut two = Two::in_world(World::start_with(gureum_tests::Options { flags, ..Default::default() })).await;
    let admin = two.world.admin();
    let skipped = frame(0x1002, SKIPPED_BYTES as u64, &vec![7; SKIPPED_BYTES]);
    let mut at_once = 0;
    while admin.count("gureum_sends_slowed_total") == 0 {
        two.raw.write(&skipped).await;
        at_once += SKIPPED_BYTES;
    }
    let burst = SENDS_AT_ONCE_MAX as usize * SEND_COUNTED_BYTES;
    assert!((burst - SKIPPED_BYTES..2 * burst).contains(&at_once), "{at_once} bytes passed before it was slowed down");
}

#[tokio::test]
async fn acks_that_come_together_count_once() {
    const FULL: usize = SENDS_IN_FLIGHT_MAX as usize;
    let burst = SENDS_AT_ONCE_MAX as usize;
    let flags = vec!["--sends-per-second", "1"];
    let mut two = Two::in_world(World::start_with(gureum_tests::Options { flags, ..Default::default() })).await;
    let (mut bob, mut frames) = two.subscribe(START).await;
    let batches = burst / FULL - 2;
    for _ in 0..batches {
        two.send(&[b"of alice".as_slice(); FULL]).await;
        let sends: Vec<_> = (0..FULL / 8).map(|_| two.bob.opaque(&two.talk, b"of bob".as_slice())).collect();
        bob.send(&sends).await;
    }
    assert!(batches * (FULL + FULL / 8) > burst, "with each ack counted he would say more than he may at once");
    let mut acks = BytesMut::new();
    for _ in 0..batches * FULL {
        put_ack(next_body(&mut frames).await.0, &mut acks);
    }
    bob.write(&acks).await;
    bob.send(&[two.bob.opaque(&two.talk, b"after the acks".as_slice())]).await;
    let admin = two.world.admin();
    assert_eq!(admin.count("gureum_sends_slowed_total"), 0);
    assert!((1..200).contains(&admin.count("gureum_acks_total")));
}

#[tokio::test]
async fn connections_that_prove_nothing_are_bounded_by_address_and_leave_room_for_others() {
    const TOO_MANY: u64 = 20;
    // So long that none of them goes while the others come.
    let flags = vec!["--unproven-timeout", "60s"];
    let world = World::start_with(gureum_tests::Options { flags, ..Default::default() });
    let alice = Device::registered(&world, "alice").await;
    let connections = || world.admin().count("gureum_connections");
    eventually_is("nobody is there", &0, connections);

    let [greedy, elsewhere] = [1, 2].map(|last| Endpoint::client(SocketAddr::from(([127, 0, 0, last], 0))).unwrap());
    let mut open = Vec::new();
    for _ in 0..UNPROVEN_PER_ADDRESS_MAX {
        open.push(soon("a connection", Raw::dial_on(&greedy, world.url())).await.unwrap());
    }
    for _ in 0..TOO_MANY {
        let refused = soon("a refusal", Raw::dial_on(&greedy, world.url())).await.unwrap_err();
        let ConnectionError::ConnectionClosed(close) = refused else { panic!("{refused:?}") };
        assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
    }
    assert_eq!(connections(), u64::try_from(UNPROVEN_PER_ADDRESS_MAX).unwrap());
    assert_eq!(world.admin().count("gureum_closes_total{code=\"RateLimited\"}"), TOO_MANY);

    let mut raw = soon("another address is let in", Raw::dial_on(&elsewhere, world.url())).await.unwrap();
    alice.prove(&mut raw, false, START).await;
    // Who goes, or proves itself, makes room.
    open.pop().unwrap().close().await;
    eventually_is("one is gone", &u64::try_from(UNPROVEN_PER_ADDRESS_MAX).unwrap(), connections);
    let mut raw = soon("its place is free", Raw::dial_on(&greedy, world.url())).await.unwrap();
    alice.prove(&mut raw, false, START).await;
    soon("and so is that of who has proven itself", Raw::dial_on(&greedy, world.url())).await.unwrap();
}

/// Connects, again where the server has said that there was no room: only a connection that it leaves without an answer fails.
async fn come_in(endpoint: Endpoint, url: String) -> Result<Raw, ConnectionError> {
    loop {
        match Raw::dial_on(&endpoint, &url).await {
            Err(ConnectionError::ConnectionClosed(close))
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                tokio::task::yield_now().await;
            }
            answered => return answered,
        }
    }
}

#[tokio::test]
async fn of_a_crowd_that_comes_at_once_each_is_answered_and_gets_in() {
    // More than are let in without a proof of their address, and fewer than one address may have.
    const CROWD: usize = UNVALIDATED_HANDSHAKES_MAX + (UNPROVEN_PER_ADDRESS_MAX - UNVALIDATED_HANDSHAKES_MAX) / 2;
    let flags = vec!["--unproven-timeout", "60s"];
    let world = World::start_with(gureum_tests::Options { flags, ..Default::default() });
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut coming = JoinSet::new();
    for _ in 0..CROWD {
        coming.spawn(come_in(endpoint.clone(), world.url().to_owned()));
    }
    let crowd = soon("everybody", coming.join_all()).await;
    let left_out: Vec<_> = crowd.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
    assert!(world.admin().count("gureum_retries_total") > 0, "so many are asked for their address");
    eventually_is("nobody waits", &0, || world.admin().count("gureum_handshakes_waiting"));
}
