//! Holds ids, hashes, signatures and payloads to the test vectors of docs/protocol.md, made from fixed keys.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use gureum_proto::{
    Accepted, AccountId, CheckChain, CodeSent, CommitAttachment, ConversationId, DeliveryFrame, DeviceKeys, DeviceLog,
    Envelope, EnvelopeBody, Gap, GapReason, Gone, GroupState, Hello, HelloClaim, LeafIdentity, Leave, Life, LifeToken,
    LinkCode, LinkProposal, MessageId, Phone, PhoneNotice, Position, PushAddress, PushTarget, Send, Sent, ServerFrame,
    ServerUrl, SharedEnvelope, SignedLeave, Typing, epochs_digest, exporter_context, put_ack, put_hello,
    put_request_code, put_send, sign_add, sign_root,
};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const TIME_MS: u64 = 1_700_000_000_000;
const EXPORTER: [u8; 32] = [6; 32];

/// The rows of the first table below a heading, without the marks of code.
#[track_caller]
fn table(heading: &str) -> Vec<Vec<String>> {
    let section = PROTOCOL.lines().skip_while(|line| *line != heading).skip(1);
    let rows: Vec<Vec<String>> = section
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let line = line.trim_start_matches('|').trim_end_matches('|');
            line.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table below {heading}");
    rows
}

/// Compares a table of two columns; a difference shows what the table should be.
#[track_caller]
fn check(heading: &str, expected: &[(&str, Vec<u8>)]) {
    let expected: Vec<_> = expected.iter().map(|(name, bytes)| [(*name).to_owned(), HEXLOWER.encode(bytes)]).collect();
    let should: Vec<_> = expected.iter().map(|[name, bytes]| format!("| {name} | `{bytes}` |")).collect();
    assert!(table(heading) == expected, "below {heading} should stand:\n{}", should.join("\n"));
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> [u8; 32] {
    key(seed).verifying_key().to_bytes()
}

struct Account {
    root: Bytes,
    add: Bytes,
    log: DeviceLog,
    first: DeviceKeys,
    second: DeviceKeys,
}

fn account() -> Account {
    let first = DeviceKeys::new(&public(1), &public(2)).unwrap();
    let second = DeviceKeys::new(&public(4), &public(5)).unwrap();
    let root = sign_root(&key(1), first.mls(), &key(3), TIME_MS).unwrap();
    let mut log = DeviceLog::from_root(&root).unwrap();
    let add = sign_add(&log, (first.device(), &key(1)), &second, &key(4), TIME_MS);
    log.append(&add).unwrap();
    Account { root, add, log, first, second }
}

fn hello() -> (AccountId, Bytes) {
    hello_of(&claim())
}

fn claim() -> HelloClaim {
    let Account { log, first, .. } = account();
    HelloClaim {
        server_name: "127.0.0.1".to_owned(),
        account: log.account(),
        device: first.device(),
        subscribe: true,
        cursor: Position { seq: 9, count: 4 },
        epochs_digest: Some(digest()),
        log_entries: 2,
        life: None,
        push_digest: None,
    }
}

fn hello_of(claim: &HelloClaim) -> (AccountId, Bytes) {
    (claim.account, Hello::sign(claim, &key(1), &EXPORTER))
}

/// One of each service.
fn push_targets() -> [PushTarget; 3] {
    let endpoint = "https://push.example.org/a".to_owned();
    let apns = PushAddress::Apns { token: Bytes::from_static(&[0x70; 32]), sandbox: true };
    let fcm = PushAddress::Fcm { token: "token".to_owned() };
    let web = PushAddress::WebPush { endpoint, p256dh: [4; 65], auth: [5; 16] };
    [(apns, false), (fcm, true), (web, true)].map(|(address, visible)| PushTarget { address, visible })
}

/// What a function writes.
fn frame(put: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out);
    out.to_vec()
}

fn digest() -> [u8; 32] {
    epochs_digest([(ConversationId::from_bytes([0x0a; 16]), 2), (ConversationId::from_bytes([0x0b; 16]), 300)])
}

#[test]
fn ids_hashes_and_signatures_are_those_published() {
    let Account { root, add, log, first, second } = account();
    let before = DeviceLog::from_root(&root).unwrap();
    let leaf = LeafIdentity { account: log.account(), device: second.device(), log_entry: 1 };
    check(
        "### Identity vectors",
        &[
            ("first device's proof key, public", public(1).to_vec()),
            ("first device's MLS key, public", public(2).to_vec()),
            ("recovery key, public", public(3).to_vec()),
            ("second device's proof key, public", public(4).to_vec()),
            ("second device's MLS key, public", public(5).to_vec()),
            ("first device's id", first.device().as_bytes().to_vec()),
            ("second device's id", second.device().as_bytes().to_vec()),
            ("entry 0, a SignedLogEntry", root.to_vec()),
            ("account id", log.account().as_bytes().to_vec()),
            ("hash of entry 0", before.head().to_vec()),
            ("entry 1, which adds the second device", add.to_vec()),
            ("hash of entry 1", log.head().to_vec()),
            ("credential of the second device", leaf.to_bytes()),
            ("exporter context of the first device", exporter_context(log.account(), first.device()).to_vec()),
            ("epochs digest of 0a × 16 at 2, 0b × 16 at 300", digest().to_vec()),
            ("epochs digest of nothing", epochs_digest([]).to_vec()),
            ("message id of time 1700000000000 and tail 5", MessageId::new(TIME_MS, 5).as_bytes().to_vec()),
        ],
    );
}

#[test]
fn a_code_and_what_follows_from_it_are_those_published() {
    let code = LinkCode::new([0x11; 32], [0x22; 16]);
    let bytes = [&[1][..], &[0x11; 32], &[0x22; 16]].concat();
    let proposal = LinkProposal {
        account: account().log.account(),
        handle: "alice".parse().unwrap(),
        entry: Bytes::from_static(b"entry"),
        bundle_key: [0x33; 32].into(),
    };
    let chain = CheckChain::from_seed([0x44; 32]);
    let opening = chain.opening(1).unwrap();
    check(
        "### Link vectors",
        &[
            ("code", bytes),
            ("link id", code.id().as_bytes().to_vec()),
            ("key of the offer", code.offer_key().to_vec()),
            ("key of the reply", code.reply_key().to_vec()),
            ("key of the consent, with the bundle key 33 × 32", proposal.consent_key(&code).to_vec()),
            ("info of the answer", code.answer_info().to_vec()),
            ("commitment of the chain that begins with 44 × 32", chain.commitment(0).to_vec()),
            ("its opening of the first approval", opening.to_vec()),
        ],
    );
    let text = format!("whose text is `{}`", *code.to_text());
    assert!(PROTOCOL.contains(&text), "{text}");
    let digits = format!("are `{}`", proposal.check_digits(&code, &[0xc0, 0xff, 0xee], &opening));
    assert!(PROTOCOL.contains(&digits), "{digits}");
}

#[test]
fn frames_are_those_published() {
    let conversation = ConversationId::from_bytes([0x0a; 16]);
    let message_id = MessageId::new(TIME_MS, 5);
    let ciphertext = Bytes::from_static(&[0xc0, 0xff, 0xee]);
    let Account { log, first, .. } = account();
    let (token, next) = (LifeToken::from_bytes([0x0d; 16]), LifeToken::from_bytes([0x0e; 16]));
    let (_, alive) = hello_of(&HelloClaim { life: Some(Life { generation: 3, token, next }), ..claim() });
    let [.., target] = push_targets();
    let (_, pushed) = hello_of(&HelloClaim { push_digest: Some(target.digest()), ..claim() });
    let send = Send { counter: 7, conversation, epoch: 2, ciphertext: ciphertext.clone(), silent: false };
    let silent = Send { silent: true, ..send.clone() };
    let accepted = Accepted { message_id: Some(message_id), number: 3, repeated: false, gone: Gone::default() };
    let envelope = |body| {
        DeliveryFrame::Envelope(Envelope {
            position: Position { seq: 9, count: 4 },
            shared: SharedEnvelope {
                message_id,
                conversation,
                sender_account: log.account(),
                sender_device: first.device(),
                body,
            },
        })
    };
    let silent_envelope = envelope(EnvelopeBody::Silent(ciphertext.clone()));
    let envelope = envelope(EnvelopeBody::Message { number: 3, ciphertext });
    let to = Position { seq: 12, count: 6 };
    let gap = DeliveryFrame::Gap(Gap { from_seq: 10, to, missed: 2, reason: GapReason::Expired });
    check(
        "### Message vectors",
        &[
            ("Hello", frame(|out| put_hello(&hello().1, out))),
            ("Hello, with its life", frame(|out| put_hello(&alive, out))),
            ("Hello, with a push target", frame(|out| put_hello(&pushed, out))),
            ("Send", frame(|out| put_send(&send, out))),
            ("Send, silent", frame(|out| put_send(&silent, out))),
            ("Sent, accepted", frame(|out| ServerFrame::Sent(Sent { counter: 7, result: Ok(accepted) }).put(out))),
            ("Ack", frame(|out| put_ack(Position { seq: 9, count: 4 }, out))),
            ("Envelope", frame(|out| envelope.put(out))),
            ("Envelope, silent", frame(|out| silent_envelope.put(out))),
            ("Gap", frame(|out| gap.put(out))),
            ("CaughtUp", frame(|out| DeliveryFrame::CaughtUp { seq: 12 }.put(out))),
        ],
    );
}

#[test]
fn what_travels_in_groups_is_as_published() {
    let Account { log, first, .. } = account();
    let state = GroupState::new("구름", [log.account()]).unwrap();
    let leave = Leave {
        conversation: ConversationId::from_bytes([0x0a; 16]),
        account: log.account(),
        device: first.device(),
        leaf_key: Bytes::from_static(&[0xe1; 32]),
    };
    let signed = SignedLeave::sign(leave, &key(1));
    check(
        "### Group vectors",
        &[
            ("GroupState of 구름, whose admin is the account", state.encode().to_vec()),
            ("SignedLeave of the first device", signed.encode().to_vec()),
            ("CommitAttachment with it", CommitAttachment { leaves: vec![signed] }.encode()),
        ],
    );
}

#[test]
fn datagrams_are_those_published() {
    let Account { log, first, .. } = account();
    let typing = Typing {
        conversation: ConversationId::from_bytes([0x0a; 16]),
        epoch: 2,
        account: log.account(),
        device: first.device(),
        sealed: Bytes::from_static(&[0xc0, 0xff, 0xee]),
    };
    check("### Datagram vectors", &[("Typing", typing.encode().to_vec())]);
}

#[test]
fn push_targets_and_their_digests_are_those_published() {
    let [apns, fcm, web] = push_targets();
    check(
        "### Push vectors",
        &[
            ("target of APNs", apns.encode()),
            ("its digest", apns.digest().as_bytes().to_vec()),
            ("target of FCM", fcm.encode()),
            ("its digest", fcm.digest().as_bytes().to_vec()),
            ("target of Web Push", web.encode()),
            ("its digest", web.digest().as_bytes().to_vec()),
        ],
    );
}

#[test]
fn what_is_said_of_phone_numbers_is_as_published() {
    let phone: Phone = "+82 10-1234-5678".parse().unwrap();
    let sent = CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: "+821012345678".parse().unwrap() };
    let notice = PhoneNotice { moved_ms: TIME_MS, tried_ms: 7 };
    check(
        "### Phone vectors",
        &[
            ("RequestCode", frame(|out| put_request_code(&phone, out))),
            ("CodeSent", frame(|out| ServerFrame::CodeSent(sent).put(out))),
            ("PhoneNotice", frame(|out| ServerFrame::PhoneNotice(notice).put(out))),
        ],
    );
}

#[test]
fn the_published_hello_holds_for_its_exporter_alone() {
    let (account, payload) = hello();
    let hello = Hello::parse(payload).unwrap();
    assert_eq!(hello.verify(&key(1).verifying_key(), &EXPORTER).unwrap().account, account);
    assert!(hello.verify(&key(1).verifying_key(), &[7; 32]).is_err());
}

#[test]
fn addresses_are_read_and_written_as_published() {
    for row in table("### Address vectors") {
        let [address, host, port, token, pin] = <[String; 5]>::try_from(row).unwrap();
        let bytes = |hex: &str| (!hex.is_empty()).then(|| HEXLOWER.decode(hex.as_bytes()).unwrap());
        let url = ServerUrl {
            host,
            port: port.parse().unwrap(),
            pin: bytes(&pin).map(|pin| pin.try_into().unwrap()),
            token: bytes(&token),
        };
        assert_eq!(address.parse(), Ok(url.clone()), "{address}");
        assert_eq!(url.to_string(), address);
    }
}
