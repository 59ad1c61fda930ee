//! A session does what its diagram says, whatever comes in whatever order.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod arbitrary;
mod unproven;
mod watch;

use bytes::BytesMut;
use ed25519_dalek::SigningKey;
use gureum_proto::{
    Accepted, AccountId, ConversationId, DeviceId, Gap, GapReason, Gone, HelloClaim, LifeToken, PushDigest, put_ack,
    put_hello, put_register, put_send,
};
use gureum_wire::{Decoder, FrameKind};

use super::*;
use crate::store::record::LifeRecord;
use watch::{Watched, page};

const START_MS: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 3_000;
const EXPORTER: [u8; EXPORTER_BYTES] = [6; EXPORTER_BYTES];
const HEAD: Position = Position { seq: 9, count: 5 };
const PHONE: PhoneNotice = PhoneNotice { moved_ms: 0, tried_ms: START_MS - 9 };
/// What a client says on its session stream.
const CLIENTS: [FrameKind; 8] = {
    use FrameKind::{Ack, Hello, Link, LinkReply, Recover, Register, RequestCode, Send};
    [Hello, Send, Ack, Register, Link, LinkReply, Recover, RequestCode]
};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn claim() -> HelloClaim {
    HelloClaim {
        server_name: "127.0.0.1".into(),
        account: AccountId::from_bytes([1; 16]),
        device: DeviceId::from_bytes([2; 16]),
        subscribe: true,
        cursor: Position { seq: 4, count: 2 },
        epochs_digest: Some([3; 32]),
        log_entries: 1,
        life: None,
        push_digest: None,
    }
}

/// The same, of a device that says where in its life it is.
fn alive(generation: u64, token: u8, next: u8) -> HelloClaim {
    let [token, next] = [token, next].map(|byte| LifeToken::from_bytes([byte; 16]));
    HelloClaim { life: Some(Life { generation, token, next }), ..claim() }
}

fn facts() -> DeviceFacts {
    DeviceFacts {
        proof_key: key().verifying_key(),
        is_revoked: false,
        is_gone: false,
        log_entries: 2,
        head: HEAD,
        cursor: Position { seq: 4, count: 2 },
        accepted_counter: 7,
        life: LifeRecord {
            generation: 5,
            token: LifeToken::from_bytes([5; 16]),
            lost: vec![LifeToken::from_bytes([4; 16])],
        },
        key_packages_left: 3,
        last_resort_used: true,
        epochs_digest: [3; 32],
        push_digest: None,
        phone: PHONE,
    }
}

fn config() -> SessionConfig {
    SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: TIMEOUT_MS,
        retention_ms: 6_000,
        commit_retention_ms: 60_000,
    }
}

fn session() -> Watched {
    Watched::new(Session::new(config(), START_MS))
}

/// The frame that a client's function writes.
fn frame(put: impl FnOnce(&mut BytesMut)) -> Input {
    let mut out = BytesMut::new();
    put(&mut out);
    let mut decoder = Decoder::new();
    decoder.push(out.freeze());
    Input::Frame(decoder.next().unwrap().unwrap())
}

fn hello(claim: &HelloClaim, key: &SigningKey, exporter: &[u8; EXPORTER_BYTES]) -> Input {
    frame(|out| put_hello(&Hello::sign(claim, key, exporter), out))
}

fn send(counter: u64) -> Input {
    let conversation = ConversationId::from_bytes([8; 16]);
    let send = Send { counter, conversation, epoch: 1, ciphertext: Bytes::from_static(b"sealed"), silent: false };
    frame(|out| put_send(&send, out))
}

fn ack(seq: u64, count: u64) -> Input {
    frame(|out| put_ack(Position { seq, count }, out))
}

fn register() -> Input {
    let register = Register {
        token: Bytes::from_static(b"token"),
        handle: "alice".into(),
        root_entry: Bytes::from_static(b"root"),
        phone: None,
    };
    frame(|out| put_register(&register, out))
}

fn found(facts: DeviceFacts) -> Input {
    Input::Facts { facts: Some(Box::new(facts)), exporter: EXPORTER }
}

fn envelope(seq: u64, count: u64) -> Item {
    Item::Envelope { position: Position { seq, count }, shared: Bytes::from_static(b"body") }
}

/// A session that has proven itself and reads after its cursor.
fn ready() -> Watched {
    let mut session = session();
    session.handle(hello(&claim(), &key(), &EXPORTER), START_MS);
    session.handle(found(facts()), START_MS);
    session
}

/// One that has caught up and waits for nothing.
fn idle() -> Watched {
    let mut session = ready();
    session.handle(Input::Page(Page { items: vec![envelope(9, 5)], more: false }), START_MS);
    session.handle(Input::Written, START_MS);
    session
}

#[track_caller]
fn closes(session: &mut Watched, input: Input, expected: Code) {
    closes_at(session, input, START_MS, expected);
}

#[track_caller]
fn closes_at(session: &mut Watched, input: Input, now_ms: u64, expected: Code) {
    match session.handle(input, now_ms).as_slice() {
        [Action::Close { code, .. }] => assert_eq!(*code, expected),
        other => panic!("expected to be closed with {expected:?}, got {other:?}"),
    }
}

#[track_caller]
fn asks(session: &mut Watched, input: Input, expected: &[Action]) {
    assert_eq!(session.handle(input, START_MS), expected);
}

#[test]
fn a_hello_is_looked_up_proven_answered_and_read_for() {
    let mut session = session();
    let look_up = Action::LookUp { claim: Box::new(claim()) };
    asks(&mut session, hello(&claim(), &key(), &EXPORTER), &[look_up]);
    let authority = Authenticated::for_test(claim().account, claim().device);
    let ready = Ready {
        server_time_ms: START_MS,
        retention_ms: 6_000,
        commit_retention_ms: 60_000,
        head: HEAD,
        accepted_counter: 7,
        sends_in_flight_max: 64,
        epochs_differ: false,
        epochs_digest: Some([3; 32]),
        log_entries: 2,
        key_packages_left: 3,
        last_resort_used: true,
        stale: false,
        push_differs: false,
        phone: PHONE,
    };
    asks(
        &mut session,
        found(facts()),
        &[
            Action::Attach { authority, subscribes: true, life: None },
            Action::Say(ServerFrame::Ready(ready)),
            Action::Read { after: claim().cursor },
        ],
    );
    assert_eq!(session.session.authority(), Some(authority));
}

#[test]
fn every_frame_that_begins_nothing_is_unexpected_before_the_proof() {
    for input in [send(1), ack(1, 1), unproven::reply()] {
        closes(&mut session(), input, Code::FrameUnexpected);
    }
    for kind in FrameKind::ALL {
        if !CLIENTS.contains(kind) {
            let frame = Input::Frame(Frame { kind: *kind, payload: Bytes::new() });
            closes(&mut session(), frame, Code::FrameUnexpected);
        }
    }
}

#[test]
fn a_payload_that_is_no_message_closes() {
    let garbage = Bytes::from_static(&[0xff; 8]);
    for kind in CLIENTS {
        let frame = Frame { kind, payload: garbage.clone() };
        closes(&mut session(), Input::Frame(frame), Code::PayloadMalformed);
    }
}

#[test]
fn a_broken_stream_closes_with_the_code_of_the_break() {
    let kind = FrameKind::Hello;
    for (error, code) in [
        (FrameError::NonMinimalVarint, Code::FrameMalformed),
        (FrameError::UnknownType(22), Code::FrameUnknown),
        (FrameError::TooLong { kind, length: 5_000, limit: 2_048 }, Code::FrameTooLong),
        (FrameError::IgnorableTooLong { number: 0x1002, length: 1 << 20, limit: 65_536 }, Code::FrameTooLong),
        (FrameError::Truncated, Code::FrameTruncated),
    ] {
        closes(&mut session(), Input::Broken(error), code);
        closes(&mut ready(), Input::Broken(error), code);
    }
}

#[track_caller]
fn refuses_proof(claim: &HelloClaim, key: &SigningKey, exporter: &[u8; EXPORTER_BYTES], answer: Input, code: Code) {
    let mut session = session();
    session.handle(hello(claim, key, exporter), START_MS);
    closes(&mut session, answer, code);
    assert_eq!(session.session.authority(), None);
}

#[test]
fn a_proof_by_another_key_is_invalid() {
    let other = SigningKey::from_bytes(&[9; 32]);
    refuses_proof(&claim(), &other, &EXPORTER, found(facts()), Code::ProofInvalid);
}

#[test]
fn a_proof_of_another_connection_is_invalid() {
    refuses_proof(&claim(), &key(), &[7; EXPORTER_BYTES], found(facts()), Code::ProofInvalid);
}

#[test]
fn a_recorded_hello_does_not_hold_on_the_next_connection() {
    let recorded = || hello(&claim(), &key(), &EXPORTER);
    let mut first = session();
    first.handle(recorded(), START_MS);
    first.handle(found(facts()), START_MS);
    assert!(first.is_attached);
    let mut second = session();
    second.handle(recorded(), START_MS);
    let facts = Input::Facts { facts: Some(Box::new(facts())), exporter: [7; EXPORTER_BYTES] };
    closes(&mut second, facts, Code::ProofInvalid);
}

#[test]
fn a_claim_changed_after_signing_is_invalid() {
    let mut out = BytesMut::new();
    put_hello(&Hello::sign(&claim(), &key(), &EXPORTER), &mut out);
    // The device id stands in the claim as sixteen equal bytes.
    let at = out.windows(16).position(|window| window == [2; 16]).unwrap();
    out[at] = 0x77;
    let mut session = session();
    session.handle(frame(|changed| changed.extend_from_slice(&out)), START_MS);
    closes(&mut session, found(facts()), Code::ProofInvalid);
}

#[test]
fn a_revoked_device_is_refused_only_after_its_proof() {
    let revoked = || found(DeviceFacts { is_revoked: true, ..facts() });
    refuses_proof(&claim(), &key(), &EXPORTER, revoked(), Code::DeviceRevoked);
    refuses_proof(&claim(), &key(), &[0; EXPORTER_BYTES], revoked(), Code::ProofInvalid);
}

#[test]
fn a_device_of_an_account_that_was_deleted_is_told_so_after_its_proof() {
    let gone = || found(DeviceFacts { is_gone: true, ..facts() });
    refuses_proof(&claim(), &key(), &EXPORTER, gone(), Code::AccountGone);
    refuses_proof(&claim(), &key(), &[0; EXPORTER_BYTES], gone(), Code::ProofInvalid);
}

#[test]
fn an_unknown_device_is_told_so() {
    let unknown = Input::Facts { facts: None, exporter: EXPORTER };
    refuses_proof(&claim(), &key(), &EXPORTER, unknown, Code::DeviceUnknown);
}

#[test]
fn a_directory_that_fails_closes_with_try_again() {
    refuses_proof(&claim(), &key(), &EXPORTER, Input::LookUpFailed, Code::Unavailable);
}

#[test]
fn another_protocol_version_is_refused_before_anything_is_looked_up() {
    let mut payload = Hello::sign(&claim(), &key(), &EXPORTER).to_vec();
    // The version is the claim's first field.
    let at = payload.windows(2).position(|window| window == [8, 1]).unwrap();
    payload[at + 1] = 2;
    let frame = Input::Frame(Frame { kind: FrameKind::Hello, payload: payload.into() });
    closes(&mut session(), frame, Code::VersionUnsupported);
}

#[track_caller]
fn checks_name(tls: Option<&str>, claimed: &str, is_ours: bool) {
    let config = SessionConfig { tls_server_name: tls.map(str::to_owned), ..config() };
    let mut session = Watched::new(Session::new(config, START_MS));
    let claim = HelloClaim { server_name: claimed.into(), ..claim() };
    match session.handle(hello(&claim, &key(), &EXPORTER), START_MS).as_slice() {
        [Action::LookUp { .. }] => assert!(is_ours, "{claimed} was taken"),
        [Action::Close { code: Code::ProofInvalid, .. }] => assert!(!is_ours, "{claimed} was refused"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_for_another_server_name_is_invalid() {
    checks_name(Some("chat.example.org"), "chat.example.org", true);
    checks_name(Some("chat.example.org"), "Chat.Example.ORG", true);
    checks_name(Some("chat.example.org"), "evil.example.org", false);
    checks_name(Some("chat.example.org"), "", false);
    checks_name(Some("chat.example.org"), "127.0.0.1", false);
}

#[test]
fn without_a_server_name_in_the_handshake_the_client_dialled_an_address() {
    checks_name(None, "127.0.0.1", true);
    checks_name(None, "::1", true);
    checks_name(None, "chat.example.org", false);
    checks_name(None, "", false);
}

#[test]
fn a_second_hello_or_a_register_after_the_proof_is_unexpected() {
    closes(&mut ready(), hello(&claim(), &key(), &EXPORTER), Code::FrameUnexpected);
    closes(&mut ready(), register(), Code::FrameUnexpected);
}

#[test]
fn a_connection_without_proof_ends_at_its_deadline_and_not_before() {
    let deadline = START_MS + TIMEOUT_MS;
    let proving = || {
        let mut session = session();
        session.handle(hello(&claim(), &key(), &EXPORTER), START_MS);
        session
    };
    let registering = || {
        let mut session = session();
        session.handle(register(), START_MS);
        session
    };
    for mut session in [session(), proving(), registering()] {
        assert_eq!(session.session.poll_timeout(), Some((deadline, Deadline::Proof)));
        assert_eq!(session.handle(Input::Tick, deadline - 1), []);
        closes_at(&mut session, Input::Tick, deadline, Code::ProofTimeout);
    }
    let mut proven = ready();
    assert_eq!(proven.handle(Input::Tick, deadline * 2), []);
}

fn registered() -> Registered {
    Registered { account: claim().account, device: claim().device }
}

#[test]
fn one_may_register_and_then_say_hello() {
    let mut session = session();
    let Input::Frame(asked) = register() else { unreachable!("a frame") };
    let Ok(ClientFrame::Register(asked)) = ClientFrame::decode(asked) else { unreachable!("a register") };
    asks(&mut session, register(), &[Action::Register(asked)]);
    assert!(!session.session.accepts_frames(), "the next frame waits for the answer");
    let answer = Action::Say(ServerFrame::Registered(registered()));
    asks(&mut session, Input::Registered(Ok(registered())), &[answer]);
    assert!(session.session.accepts_frames());
    session.handle(hello(&claim(), &key(), &EXPORTER), START_MS);
    session.handle(found(facts()), START_MS);
    assert!(session.is_attached);
}

#[test]
fn a_refused_register_may_be_tried_again() {
    let mut session = session();
    for _ in 0..3 {
        session.handle(register(), START_MS);
        let refusal = Refusal::new(Code::HandleTaken);
        let answer = Action::Say(ServerFrame::Refused(refusal.clone()));
        asks(&mut session, Input::Registered(Err(refusal)), &[answer]);
    }
    session.handle(register(), START_MS);
    asks(&mut session, Input::Registered(Ok(registered())), &[Action::Say(ServerFrame::Registered(registered()))]);
}

#[test]
fn an_answer_that_nobody_waits_for_is_ignored() {
    let mut session = session();
    asks(&mut session, Input::Registered(Ok(registered())), &[]);
    asks(&mut session, found(facts()), &[]);
    asks(&mut session, Input::Answered(vec![]), &[]);
    asks(&mut session, Input::Woken, &[]);
    asks(&mut session, Input::Written, &[]);
    asks(&mut session, Input::Page(Page::default()), &[]);
    assert!(session.session.accepts_frames());
}

#[test]
fn frames_wait_while_the_proof_is_looked_at() {
    let mut session = session();
    assert!(session.session.accepts_frames());
    session.handle(hello(&claim(), &key(), &EXPORTER), START_MS);
    assert!(!session.session.accepts_frames());
    session.handle(found(facts()), START_MS);
    assert!(session.session.accepts_frames());
}

#[test]
fn sends_are_submitted_and_answered_up_to_the_bound() {
    let mut session = ready();
    for counter in 1..=64 {
        let actions = session.handle(send(counter), START_MS);
        assert!(matches!(actions.as_slice(), [Action::Send(send)] if send.counter == counter), "{actions:?}");
    }
    let accepted = Accepted { message_id: None, number: 1, repeated: false, gone: Gone::default() };
    let sent = Sent { counter: 1, result: Ok(accepted) };
    asks(&mut session, Input::Answered(vec![sent.clone()]), &[Action::Answer(vec![sent])]);
    asks(&mut session, Input::Answered(vec![]), &[]);
    assert_eq!(session.handle(send(65), START_MS).len(), 1);
    closes(&mut session, send(66), Code::LimitReached);
}

#[test]
fn acks_hold_up_to_what_was_delivered() {
    let mut session = idle();
    let acked = |seq, count| [Action::Ack(Position { seq, count })];
    asks(&mut session, ack(9, 5), &acked(9, 5));
    asks(&mut session, ack(9, 5), &acked(9, 5));
    asks(&mut session, ack(5, 3), &acked(5, 3));
    closes(&mut session, ack(10, 5), Code::AckInvalid);
    closes(&mut idle(), ack(9, 6), Code::AckInvalid);
}

#[test]
fn what_is_handed_over_may_be_acked_while_it_is_written() {
    let mut session = ready();
    session.handle(Input::Page(Page { items: vec![envelope(5, 3)], more: true }), START_MS);
    asks(&mut session, ack(5, 3), &[Action::Ack(Position { seq: 5, count: 3 })]);
    closes(&mut session, ack(6, 3), Code::AckInvalid);
}

#[test]
fn an_ack_without_a_subscription_is_invalid() {
    let claim = HelloClaim { subscribe: false, ..claim() };
    let mut session = session();
    session.handle(hello(&claim, &key(), &EXPORTER), START_MS);
    let actions = session.handle(found(facts()), START_MS);
    assert!(matches!(actions[0], Action::Attach { subscribes: false, .. }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Read { .. })));
    asks(&mut session, Input::Woken, &[]);
    closes(&mut session, ack(4, 2), Code::AckInvalid);
}

/// What a device with this cursor is read from, and whether its cursor is stored.
#[track_caller]
fn resumes(cursor: Position, stored: Position, read_after: Position, ack: Option<Position>) {
    let claim = HelloClaim { cursor, ..claim() };
    let mut session = session();
    session.handle(hello(&claim, &key(), &EXPORTER), START_MS);
    let actions = session.handle(found(DeviceFacts { cursor: stored, ..facts() }), START_MS);
    let acks: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Ack(position) => Some(*position),
            _ => None,
        })
        .collect();
    assert_eq!(acks, ack.into_iter().collect::<Vec<_>>());
    assert_eq!(actions.last(), Some(&Action::Read { after: read_after }));
}

#[test]
fn a_device_resumes_where_it_says_and_the_server_learns_it() {
    let at = |seq, count| Position { seq, count };
    resumes(at(4, 2), at(4, 2), at(4, 2), None);
    resumes(at(6, 3), at(4, 2), at(6, 3), Some(at(6, 3)));
    resumes(at(2, 1), at(4, 2), at(2, 1), None);
    resumes(at(0, 0), at(4, 2), at(4, 2), None);
}

#[test]
fn a_cursor_past_the_head_is_not_believed() {
    let at = |seq, count| Position { seq, count };
    resumes(at(100, 50), at(4, 2), HEAD, None);
}

/// What a device that claims this is told, if its proof holds.
#[track_caller]
fn told(claim: &HelloClaim, facts: DeviceFacts) -> Ready {
    let mut session = session();
    session.handle(hello(claim, &key(), &EXPORTER), START_MS);
    let actions = session.handle(found(facts), START_MS);
    let ready = actions.iter().find_map(|action| match action {
        Action::Say(ServerFrame::Ready(ready)) => Some(*ready),
        _ => None,
    });
    ready.expect("a proof that holds is answered")
}

#[test]
fn another_push_target_than_the_device_wants_is_told() {
    let digest = |byte| Some(PushDigest::from_bytes([byte; 16]));
    let differs = |wanted, held| {
        let claim = HelloClaim { push_digest: wanted, ..claim() };
        told(&claim, DeviceFacts { push_digest: held, ..facts() }).push_differs
    };
    assert!(!differs(None, None));
    assert!(!differs(digest(1), digest(1)));
    assert!(differs(digest(1), digest(2)));
    assert!(differs(digest(1), None), "the server has lost or dropped it");
    assert!(differs(None, digest(1)), "the device wants to be left alone");
}

#[test]
fn a_differing_digest_of_epochs_is_told_with_the_servers_own() {
    let answer = |epochs_digest| {
        let ready = told(&HelloClaim { epochs_digest, ..claim() }, facts());
        (ready.epochs_differ, ready.epochs_digest)
    };
    assert_eq!(answer(Some([4; 32])), (true, Some([3; 32])));
    assert_eq!(answer(Some([3; 32])), (false, Some([3; 32])));
    assert_eq!(answer(None), (false, Some([3; 32])));
}

/// Whether a device with this claim goes on, and what it is told.
#[track_caller]
fn lives(claim: &HelloClaim, goes_on: bool, stale: bool) {
    let mut session = session();
    session.handle(hello(claim, &key(), &EXPORTER), START_MS);
    let actions = session.handle(found(facts()), START_MS);
    let said = actions.iter().find_map(|action| match action {
        Action::Say(ServerFrame::Ready(ready)) => Some(ready.stale),
        _ => None,
    });
    assert_eq!(said, Some(stale));
    let submitted: Vec<_> = actions.iter().filter(|action| matches!(action, Action::Live(_))).collect();
    assert_eq!(submitted, claim.life.filter(|_| goes_on).map(Action::Live).iter().collect::<Vec<_>>());
    assert!(actions.iter().any(|action| matches!(action, Action::Attach { life, .. } if *life == claim.life)));
}

#[test]
fn a_device_that_goes_on_from_an_older_state_is_told_and_moves_nothing() {
    lives(&claim(), false, false);
    lives(&alive(5, 5, 6), true, false);
    lives(&alive(9, 8, 9), true, false);
    lives(&alive(4, 3, 5), false, false);
    lives(&alive(2, 2, 30), false, true);
}

#[test]
fn an_older_copy_that_has_taken_nothing_reads_from_the_beginning() {
    let mut session = session();
    let claim = HelloClaim { cursor: Position::default(), ..alive(2, 2, 30) };
    session.handle(hello(&claim, &key(), &EXPORTER), START_MS);
    let actions = session.handle(found(facts()), START_MS);
    assert_eq!(actions.last(), Some(&Action::Read { after: Position::default() }));
}

#[test]
fn a_device_whose_copy_has_taken_over_is_refused_after_its_proof() {
    refuses_proof(&alive(5, 4, 6), &key(), &EXPORTER, found(facts()), Code::DeviceCopied);
    refuses_proof(&alive(5, 4, 6), &key(), &[0; EXPORTER_BYTES], found(facts()), Code::ProofInvalid);
}

#[test]
fn pages_are_delivered_in_order_and_read_on_until_there_is_no_more() {
    let mut session = ready();
    let first = vec![envelope(5, 2), envelope(6, 3)];
    asks(&mut session, Input::Page(Page { items: first.clone(), more: true }), &[Action::Deliver(first)]);
    asks(&mut session, Input::Written, &[Action::Read { after: Position { seq: 6, count: 3 } }]);
    let gap = Gap { from_seq: 7, to: Position { seq: 8, count: 4 }, missed: 1, reason: GapReason::Expired };
    let last = vec![Item::Gap(gap), envelope(9, 5)];
    let mut delivered = last.clone();
    delivered.push(Item::CaughtUp { seq: 9 });
    asks(&mut session, Input::Page(Page { items: last, more: false }), &[Action::Deliver(delivered)]);
    asks(&mut session, Input::Written, &[]);
    asks(&mut session, Input::Woken, &[Action::Read { after: HEAD }]);
    let live = vec![envelope(10, 6)];
    asks(&mut session, Input::Page(Page { items: live.clone(), more: false }), &[Action::Deliver(live)]);
    asks(&mut session, Input::Written, &[]);
}

#[test]
fn an_empty_inbox_is_caught_up_at_once_and_once() {
    let mut session = session();
    let claim = HelloClaim { cursor: Position::default(), ..claim() };
    session.handle(hello(&claim, &key(), &EXPORTER), START_MS);
    let none = Position::default();
    session.handle(found(DeviceFacts { head: none, cursor: none, ..facts() }), START_MS);
    let caught_up = vec![Item::CaughtUp { seq: 0 }];
    asks(&mut session, Input::Page(Page::default()), &[Action::Deliver(caught_up)]);
    asks(&mut session, Input::Written, &[]);
    asks(&mut session, Input::Woken, &[Action::Read { after: none }]);
    asks(&mut session, Input::Page(Page::default()), &[]);
}

#[test]
fn one_that_was_caught_up_before_is_told_so() {
    let mut session = session();
    let claim = HelloClaim { cursor: HEAD, ..claim() };
    session.handle(hello(&claim, &key(), &EXPORTER), START_MS);
    session.handle(found(DeviceFacts { cursor: HEAD, ..facts() }), START_MS);
    asks(&mut session, Input::Page(Page::default()), &[Action::Deliver(vec![Item::CaughtUp { seq: 9 }])]);
}

#[test]
fn a_page_of_nothing_but_a_gap_is_caught_up_too() {
    let mut session = ready();
    let gap = Item::Gap(Gap { from_seq: 5, to: HEAD, missed: 3, reason: GapReason::Overflow });
    let page = Page { items: vec![gap.clone()], more: false };
    asks(&mut session, Input::Page(page), &[Action::Deliver(vec![gap, Item::CaughtUp { seq: 9 }])]);
}

#[test]
fn it_is_caught_up_where_the_head_was_even_when_more_has_come() {
    let mut session = ready();
    let items = vec![envelope(9, 5), envelope(10, 6)];
    let mut delivered = items.clone();
    delivered.push(Item::CaughtUp { seq: 9 });
    asks(&mut session, Input::Page(Page { items, more: true }), &[Action::Deliver(delivered)]);
    asks(&mut session, Input::Written, &[Action::Read { after: Position { seq: 10, count: 6 } }]);
}

#[test]
fn wakes_while_it_reads_or_writes_lead_to_one_more_read() {
    let mut session = ready();
    asks(&mut session, Input::Woken, &[]);
    asks(&mut session, Input::Woken, &[]);
    session.handle(Input::Page(Page { items: vec![envelope(9, 5)], more: false }), START_MS);
    asks(&mut session, Input::Woken, &[]);
    asks(&mut session, Input::Written, &[Action::Read { after: HEAD }]);
    asks(&mut session, Input::Page(Page::default()), &[]);
    asks(&mut session, Input::Woken, &[Action::Read { after: HEAD }]);
    asks(&mut session, Input::Woken, &[]);
    asks(&mut session, Input::Page(Page::default()), &[Action::Read { after: HEAD }]);
    asks(&mut session, Input::Page(Page::default()), &[]);
}

#[test]
fn late_and_doubled_answers_of_the_shell_are_ignored() {
    let mut session = idle();
    asks(&mut session, Input::Written, &[]);
    asks(&mut session, Input::Page(page(HEAD, 3, true)), &[]);
    asks(&mut session, Input::Woken, &[Action::Read { after: HEAD }]);
    asks(&mut session, Input::Written, &[]);
}

#[test]
fn what_happens_outside_closes_with_its_code_and_nothing_follows() {
    for (input, code) in [
        (Input::Displaced, Code::Displaced),
        (Input::CutOff(Code::DeviceRevoked), Code::DeviceRevoked),
        (Input::CutOff(Code::AccountGone), Code::AccountGone),
        (Input::Copied, Code::DeviceCopied),
        (Input::ReadFailed, Code::Unavailable),
    ] {
        let mut session = ready();
        closes(&mut session, input, code);
        for late in [send(1), ack(4, 2), Input::Woken, Input::Written, Input::Page(page(HEAD, 3, true)), Input::Tick] {
            asks(&mut session, late, &[]);
        }
        asks(&mut session, Input::Drain { come_back_ms: 1 }, &[]);
        asks(&mut session, Input::Noticed(Notice::default()), &[]);
        asks(&mut session, Input::Phone(PHONE), &[]);
        asks(&mut session, hello(&claim(), &key(), &EXPORTER), &[]);
        asks(&mut session, found(facts()), &[]);
        assert!(!session.session.accepts_frames());
    }
}

#[test]
fn a_notice_is_told_once_the_proof_holds_and_work_goes_on() {
    let notice = Notice { key_packages_left: 4, last_resort_used: true };
    asks(&mut session(), Input::Noticed(notice), &[]);
    let mut session = idle();
    asks(&mut session, Input::Noticed(notice), &[Action::Say(ServerFrame::Notice(notice))]);
    assert_eq!(session.handle(send(1), START_MS).len(), 1);
}

#[test]
fn what_happens_to_the_phone_number_is_told_once_the_proof_holds_and_work_goes_on() {
    asks(&mut session(), Input::Phone(PHONE), &[]);
    let mut session = idle();
    asks(&mut session, Input::Phone(PHONE), &[Action::Say(ServerFrame::PhoneNotice(PHONE))]);
    assert_eq!(session.handle(send(1), START_MS).len(), 1);
}

#[test]
fn a_drain_is_told_and_work_goes_on() {
    let mut session = idle();
    let drain = Action::Say(ServerFrame::Drain { come_back_ms: 700 });
    asks(&mut session, Input::Drain { come_back_ms: 700 }, &[drain]);
    assert_eq!(session.handle(send(1), START_MS).len(), 1);
    asks(&mut session, Input::Woken, &[Action::Read { after: HEAD }]);
}
