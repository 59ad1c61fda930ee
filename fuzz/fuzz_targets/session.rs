//! Arbitrary sequences of inputs through the server's session, with the promises of its tests.

#![no_main]

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use ed25519_dalek::SigningKey;
use gureum_fuzz::decode;
use gureum_proto::{
    AccountId, Code, CodeSent, ConversationId, DeviceId, Hello, HelloClaim, Life, LifeToken, Link, LinkId, LogHead,
    Notice, Phone, PhoneNotice, Position, PushDigest, Recover, Recovering, Refusal, Register, Registered, Send, Sent,
    put_ack, put_hello, put_link, put_link_reply, put_recover, put_register, put_request_code, put_send,
};
use gureum_server::session::{Action, DeviceFacts, Input, Item, Page, Recovery, Session, SessionConfig};
use gureum_server::store::record::LifeRecord;
use gureum_wire::{Frame, FrameError, FrameKind};
use libfuzzer_sys::fuzz_target;
use watch::{Watched, page};

#[path = "../../server/src/session/tests/watch.rs"]
mod watch;

const START_MS: u64 = 1_800_000_000_000;
const TIMEOUT_MS: u64 = 3_000;
const EXPORTER: [u8; 32] = [6; 32];
/// The device's key, and one that is not its.
static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| [5, 6].map(|seed| SigningKey::from_bytes(&[seed; 32])));
/// Bounds the time of one input: a Hello costs a signature and its check.
const STEPS_MAX: usize = 256;

// A step is two bytes, what happens and how, so that seeds can be written by hand.
fuzz_target!(|input: &[u8]| {
    let config = SessionConfig {
        tls_server_name: None,
        proof_timeout_ms: TIMEOUT_MS,
        retention_ms: 6_000,
        commit_retention_ms: 60_000,
    };
    let mut session = Watched::new(Session::new(config, START_MS));
    let mut now_ms = START_MS;
    let mut rest = input;
    for _ in 0..STEPS_MAX {
        let [what, how, after @ ..] = rest else { break };
        rest = after;
        let input = match what % 31 {
            // The connection's shell leaves frames where they are meanwhile.
            0..=4 | 18..=20 | 28 if !session.session.accepts_frames() => continue,
            number @ (0..=4 | 18..=20 | 28) => Input::Frame(frame(number, *how, &mut rest)),
            number => match other(number, *how, &session, &mut now_ms) {
                Some(input) => input,
                None => continue,
            },
        };
        session.handle(input, now_ms);
    }
});

fn frame(what: u8, how: u8, rest: &mut &[u8]) -> Frame {
    match what {
        0 => one(|out| put_hello(&hello(how), out)),
        1 => {
            let root_entry = Bytes::from_static(b"root");
            let register = Register { token: Bytes::new(), handle: "alice".into(), root_entry, phone: None };
            one(|out| put_register(&register, out))
        }
        2 => {
            let (conversation, ciphertext) = (ConversationId::from_bytes([8; 16]), Bytes::from_static(b"sealed"));
            let (counter, silent) = (u64::from(how) + 1, how & 1 == 1);
            one(|out| put_send(&Send { counter, conversation, epoch: 1, ciphertext, silent }, out))
        }
        3 => one(|out| put_ack(Position { count: u64::from(how >> 5), ..at(how & 31) }, out)),
        18 => {
            let (link, device) = (LinkId::from_bytes([7; 16]), DeviceId::from_bytes([2; 16]));
            one(|out| put_link(&Link { link, device, offer: Bytes::from_static(b"offer") }, out))
        }
        19 => one(|out| put_link_reply(&Bytes::from_static(b"reply"), out)),
        20 => {
            let entry = (how & 1 == 1).then(|| Bytes::from_static(b"entry"));
            one(|out| put_recover(&Recover { recovery_key: [9; 32], entry }, out))
        }
        28 => one(|out| put_request_code(&phone(), out)),
        _ => {
            let kind = FrameKind::ALL[usize::from(how) % FrameKind::ALL.len()];
            let (payload, after) = rest.split_at(usize::from(how >> 4).min(rest.len()));
            *rest = after;
            Frame { kind, payload: Bytes::copy_from_slice(payload) }
        }
    }
}

fn hello(how: u8) -> Bytes {
    let claim = HelloClaim {
        server_name: if how & 4 == 0 { "127.0.0.1".into() } else { "elsewhere".into() },
        account: AccountId::from_bytes([1; 16]),
        device: DeviceId::from_bytes([2; 16]),
        subscribe: how & 2 == 0,
        cursor: at(how >> 3),
        epochs_digest: None,
        log_entries: 1,
        life: (how & 0x18 != 0).then(|| {
            let [token, next] = [how >> 3, (how >> 3) + 1].map(|byte| LifeToken::from_bytes([byte; 16]));
            Life { generation: u64::from(how >> 5), token, next }
        }),
        push_digest: (how & 0x20 != 0).then(|| PushDigest::from_bytes([how; 16])),
    };
    Hello::sign(&claim, &KEYS[usize::from(how & 1)], &EXPORTER)
}

/// What is no frame; `None` for what the shell would not say now.
fn other(what: u8, how: u8, session: &Watched, now_ms: &mut u64) -> Option<Input> {
    Some(match what {
        5 => Input::Broken(FrameError::Truncated),
        6 => {
            let facts = DeviceFacts {
                proof_key: KEYS[0].verifying_key(),
                is_revoked: how & 2 != 0,
                is_gone: how & 0x82 == 0x82,
                log_entries: 1,
                head: at(how >> 3),
                cursor: at(how >> 4),
                accepted_counter: 0,
                life: LifeRecord::default(),
                key_packages_left: 0,
                last_resort_used: false,
                epochs_digest: [0; 32],
                push_digest: (how & 0x20 != 0).then(|| PushDigest::from_bytes([how; 16])),
                phone: PhoneNotice::default(),
            };
            let exporter = if how & 4 == 0 { EXPORTER } else { [7; 32] };
            Input::Facts { facts: (how & 1 == 0).then(|| Box::new(facts)), exporter }
        }
        7 => Input::LookUpFailed,
        8 => Input::Registered(if how & 1 == 0 { Ok(registered()) } else { Err(Refusal::new(Code::HandleTaken)) }),
        9 => {
            let answers = session.in_flight.min(u32::from(how % 4));
            let sent = |_| Sent { counter: 1, result: Err(Refusal::new(Code::NotFound)) };
            Input::Answered((0..answers).map(sent).collect())
        }
        10 => Input::Woken,
        11 => Input::Page(page(session.reading.unwrap_or_default(), u64::from(how % 6), how & 8 != 0)),
        12 => Input::ReadFailed,
        13 if session.writing => Input::Written,
        13 => return None,
        14 => Input::Displaced,
        15 => Input::CutOff(if how & 1 == 0 { Code::DeviceRevoked } else { Code::AccountGone }),
        16 => Input::Drain { come_back_ms: u64::from(how) },
        21 => Input::LinkRefused(Refusal::new(Code::LinkGone)),
        22 => Input::LinkAnswered(Bytes::from_static(b"answer")),
        23 => Input::LinkLogged,
        24 => Input::LinkFinished(Bytes::from_static(b"bundle")),
        25 => Input::Recovered(recovered(how)),
        26 => Input::Noticed(Notice { key_packages_left: u32::from(how), last_resort_used: how & 1 != 0 }),
        27 => Input::Copied,
        29 => Input::CodeSent(match how & 1 {
            0 => Ok(CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: phone() }),
            _ => Err(Refusal::new(Code::PhoneInvalid)),
        }),
        30 => Input::Phone(PhoneNotice { moved_ms: u64::from(how), tried_ms: u64::from(how >> 1) }),
        _ => {
            // Up to seconds, or minutes: a device waits for long to be linked.
            *now_ms += if how < 192 { u64::from(how) * 20 } else { u64::from(how) * 3_000 };
            Input::Tick
        }
    })
}

fn phone() -> Phone {
    "+82 10-1234-5678".parse().expect("it is a phone number")
}

fn registered() -> Registered {
    Registered { account: AccountId::from_bytes([1; 16]), device: DeviceId::from_bytes([2; 16]) }
}

fn recovered(how: u8) -> Result<Recovery, Refusal> {
    let head = LogHead { length: u64::from(how), hash: [4; 32] };
    match how % 3 {
        0 => Ok(Recovery::Done(registered())),
        1 => {
            let handle = "alice".parse().expect("it is a handle");
            Ok(Recovery::Known(Recovering { account: registered().account, handle, head }))
        }
        _ => Err(Refusal::new(Code::RecoveryUnknown)),
    }
}

fn at(seq: u8) -> Position {
    Position { seq: u64::from(seq), count: u64::from(seq / 2) }
}

fn one(write: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    write(&mut out);
    let (mut frames, end) = decode([out.freeze()]);
    assert_eq!((frames.len(), end), (1, Ok(())));
    frames.remove(0)
}
