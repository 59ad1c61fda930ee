//! Nobody connects as a device without its key, and every way to try has its code.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use gureum_proto::{Code, Position, ServerFrame, put_ack};
use gureum_tests::World;
use gureum_tests::device::Device;
use gureum_tests::raw::Raw;
use gureum_tests::world::Options;

#[tokio::test]
async fn a_device_with_its_key_is_ready_at_once() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (_raw, ready) = alice.connect(world.url(), false, Position::default()).await;
    assert_eq!((ready.retention_ms, ready.head, ready.log_entries), (3 * 86_400_000, Position::default(), 1));
    assert_eq!(world.admin().count("gureum_proofs_ok_total"), 1);
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused() {
    let world = World::start();
    let (alice, mallory) = (Device::registered(&world, "alice").await, Device::new());
    let mut raw = Raw::dial(world.url()).await;
    let hello = Device::hello_by(&raw, &alice.claim(true, Position::default()), &mallory.proof);
    raw.write(&hello).await;
    assert_eq!(raw.ended().await.code, Code::ProofInvalid);
    assert_eq!(world.admin().count("gureum_proofs_refused_total{code=\"ProofInvalid\"}"), 1);
    assert_eq!(world.admin().count("gureum_proofs_ok_total"), 0);
}

#[tokio::test]
async fn a_hello_that_was_good_on_another_connection_is_refused() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let mut first = Raw::dial(world.url()).await;
    let captured = alice.hello(&first, &alice.claim(true, Position::default()));
    first.write(&captured).await;
    assert!(matches!(first.frame().await, ServerFrame::Ready(_)));
    let mut second = Raw::dial(world.url()).await;
    second.write(&captured).await;
    assert_eq!(second.ended().await.code, Code::ProofInvalid);
}

#[tokio::test]
async fn a_hello_made_for_another_server_is_refused() {
    let (theirs, ours) = (World::start(), World::start());
    // The same account on both: what the one server is told, it relays to the other.
    let alice = Device::registered(&ours, "alice").await;
    let mut raw = Raw::dial(theirs.url()).await;
    alice.register(&mut raw, &theirs.invite(1), "alice").await.unwrap();
    let captured = alice.hello(&raw, &alice.claim(true, Position::default()));
    let mut relayed = Raw::dial(ours.url()).await;
    relayed.write(&captured).await;
    assert_eq!(relayed.ended().await.code, Code::ProofInvalid);
}

#[tokio::test]
async fn a_claim_that_names_another_server_is_refused() {
    let world = World::start();
    let mut alice = Device::registered(&world, "alice").await;
    alice.server_name = "chat.example.org".to_owned();
    let mut raw = Raw::dial(world.url()).await;
    let hello = alice.hello(&raw, &alice.claim(true, Position::default()));
    raw.write(&hello).await;
    assert_eq!(raw.ended().await.code, Code::ProofInvalid);
}

#[tokio::test]
async fn an_unknown_device_is_told_so() {
    let world = World::start();
    let nobody = Device::new();
    let mut raw = Raw::dial(world.url()).await;
    let hello = nobody.hello(&raw, &nobody.claim(true, Position::default()));
    raw.write(&hello).await;
    assert_eq!(raw.ended().await.code, Code::DeviceUnknown);
}

#[tokio::test]
async fn a_frame_before_hello_ends_the_connection() {
    let world = World::start();
    let mut raw = Raw::dial(world.url()).await;
    let mut out = BytesMut::new();
    put_ack(Position { seq: 1, count: 1 }, &mut out);
    raw.write(&out).await;
    assert_eq!(raw.ended().await.code, Code::FrameUnexpected);
}

#[tokio::test]
async fn a_second_hello_ends_the_connection() {
    let world = World::start();
    let alice = Device::registered(&world, "alice").await;
    let (mut raw, _) = alice.connect(world.url(), false, Position::default()).await;
    let again = alice.hello(&raw, &alice.claim(false, Position::default()));
    raw.write(&again).await;
    assert_eq!(raw.ended().await.code, Code::FrameUnexpected);
}

#[tokio::test]
async fn who_proves_nothing_in_time_is_closed() {
    let world = World::start_with(Options { flags: vec!["--unproven-timeout", "300ms"], ..Options::default() });
    let started = Instant::now();
    let silent = Raw::dial(world.url()).await;
    let mut half = Raw::dial(world.url()).await;
    half.write(&[0x01, 0x40]).await;
    assert_eq!(silent.ended().await.code, Code::ProofTimeout);
    assert_eq!(half.ended().await.code, Code::ProofTimeout);
    assert!(started.elapsed() >= Duration::from_millis(300), "not before its time: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_request_before_the_proof_is_not_answered() {
    let world = World::start_with(Options { flags: vec!["--unproven-timeout", "300ms"], ..Options::default() });
    let raw = Raw::dial(world.url()).await;
    let (mut output, mut input) = raw.connection.open_bi().await.unwrap();
    let mut out = BytesMut::new();
    gureum_proto::Request::ListConversations { after: None }.put(&mut out);
    output.write_all(&out).await.unwrap();
    let answer = gureum_tests::raw::soon("an end", input.read_to_end(1024)).await;
    assert!(answer.is_err(), "{answer:?}");
}

#[tokio::test]
async fn an_invite_registers_once_and_the_same_root_again_is_no_other_account() {
    let world = World::start();
    let (alice, bob) = (Device::new(), Device::new());
    let invite = world.invite(1);
    let mut raw = Raw::dial(world.url()).await;
    let registered = alice.register(&mut raw, &invite, "alice").await.unwrap();
    assert_eq!((registered.account, registered.device), (alice.account, alice.device));
    // As after an answer that was lost.
    assert_eq!(alice.register(&mut raw, &invite, "alice").await, Ok(registered));
    assert_eq!(bob.register(&mut raw, &invite, "bob").await.unwrap_err().code, Code::InviteUsed);
    let another = world.invite(1);
    assert_eq!(bob.register(&mut raw, &another, "alice").await.unwrap_err().code, Code::HandleTaken);
    assert_eq!(bob.register(&mut raw, &another, "Bob").await.unwrap_err().code, Code::HandleInvalid);
    assert_eq!(bob.register(&mut raw, world.url(), "bob").await.unwrap_err().code, Code::InviteInvalid);
    bob.register(&mut raw, &another, "bob").await.unwrap();
}
