//! Each bound of a payload: the longest that is taken, and the next that is not.

mod people;

use super::*;
use crate::convert::schema;
use crate::limits::{
    CIPHERTEXT_BYTES_MAX, CLAIM_ACCOUNTS_MAX, CONVERSATION_ACCOUNTS_MAX, CONVERSATIONS_PAGE, DATAGRAM_BYTES_MAX,
    DEVICES_MAX, ERROR_DETAIL_BYTES_MAX, HANDLE_BYTES_MAX, HANDSHAKE_BYTES_MAX, HELLO_CLAIM_BYTES_MAX,
    KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX, LINK_ANSWER_BYTES_MAX, LINK_BUNDLE_BYTES_MAX, LINK_OFFER_BYTES_MAX,
    LINK_REPLY_BYTES_MAX, LOG_ENTRY_BYTES_MAX, SENT_DETAIL_BYTES_MAX, SENT_GONE_MAX, SERVER_NAME_BYTES_MAX,
    TOKEN_BYTES_MAX, TYPING_SEALED_BYTES_MAX,
};
use crate::{
    ClientFrame, Code, DeliveryFrame, FrameContentError, Hello, PayloadError, Refusal, Request, Response, Sent,
    ServerFrame, Typing,
};
use prost::Message;

fn id() -> Bytes {
    Bytes::from_static(&[1; 16])
}

fn long(bytes: usize) -> Bytes {
    vec![7; bytes].into()
}

fn fault<T>(read: Result<T, FrameContentError>) -> Result<(), PayloadError> {
    match read {
        Ok(_) => Ok(()),
        Err(FrameContentError::Payload(error)) => Err(error),
        Err(FrameContentError::Unexpected(kind)) => panic!("{kind:?} was not expected"),
    }
}

fn client(kind: FrameKind, message: &impl Message) -> Result<(), PayloadError> {
    fault(ClientFrame::decode(raw_frame(kind, message.encode_to_vec())))
}

fn server(kind: FrameKind, message: &impl Message) -> Result<(), PayloadError> {
    fault(ServerFrame::decode(raw_frame(kind, message.encode_to_vec())))
}

fn delivery(kind: FrameKind, message: &impl Message) -> Result<(), PayloadError> {
    fault(DeliveryFrame::decode(raw_frame(kind, message.encode_to_vec())))
}

fn request(kind: schema::request::Kind) -> Result<(), PayloadError> {
    let payload = schema::Request { kind: Some(kind) }.encode_to_vec();
    fault(Request::decode(raw_frame(FrameKind::Request, payload)))
}

fn response(kind: schema::response::Kind) -> Result<(), PayloadError> {
    let payload = schema::Response { kind: Some(kind) }.encode_to_vec();
    fault(Response::decode(raw_frame(FrameKind::Response, payload)))
}

/// A field of bytes that must be there: 1 to `max` are taken.
#[track_caller]
fn filled(max: usize, what: &'static str, read: impl Fn(Bytes) -> Result<(), PayloadError>) {
    assert_eq!(read(Bytes::new()), Err(PayloadError::Missing(what)));
    assert_eq!(read(long(1)), Ok(()));
    at_most(max, what, read);
}

#[track_caller]
fn at_most(max: usize, what: &'static str, read: impl Fn(Bytes) -> Result<(), PayloadError>) {
    assert_eq!(read(long(max)), Ok(()));
    assert_eq!(read(long(max + 1)), Err(PayloadError::TooLong(what)));
}

#[track_caller]
fn an_id(what: &'static str, read: impl Fn(Bytes) -> Result<(), PayloadError>) {
    assert_eq!(read(id()), Ok(()));
    for bytes in [0, 15, 17] {
        assert_eq!(read(long(bytes)), Err(PayloadError::Invalid(what)), "{bytes} bytes");
    }
}

fn claim() -> schema::HelloClaim {
    schema::HelloClaim { role: 1, account: id(), device: id(), ..Default::default() }
}

fn read_hello(claim: &schema::HelloClaim) -> Result<(), PayloadError> {
    client(FrameKind::Hello, &schema::Hello { claim: claim.encode_to_vec().into(), signature: long(64) })
}

#[test]
fn a_hello_keeps_its_bounds() {
    assert_eq!(read_hello(&claim()), Ok(()));
    assert_eq!(read_hello(&schema::HelloClaim { role: 0, ..claim() }), Err(PayloadError::Invalid("role")));
    assert_eq!(read_hello(&schema::HelloClaim { role: 9, ..claim() }), Err(PayloadError::Invalid("role")));
    an_id("account", |account| read_hello(&schema::HelloClaim { account, ..claim() }));
    an_id("device", |device| read_hello(&schema::HelloClaim { device, ..claim() }));
    let named = |bytes| read_hello(&schema::HelloClaim { server_name: "a".repeat(bytes), ..claim() });
    assert_eq!(named(SERVER_NAME_BYTES_MAX), Ok(()));
    assert_eq!(named(SERVER_NAME_BYTES_MAX + 1), Err(PayloadError::TooLong("server name")));
    for (bytes, read) in [(0, Ok(())), (32, Ok(())), (31, Err(PayloadError::Invalid("epochs digest")))] {
        assert_eq!(read_hello(&schema::HelloClaim { epochs_digest: long(bytes), ..claim() }), read);
    }
    let life = |life_token, life_next| read_hello(&schema::HelloClaim { life_token, life_next, ..claim() });
    an_id("life token", |token| life(token, id()));
    for (bytes, read) in [(0, Ok(())), (16, Ok(())), (15, Err(PayloadError::Invalid("next life token")))] {
        assert_eq!(life(id(), long(bytes)), read);
    }
    for bytes in [0, 63, 65] {
        let signed = schema::Hello { claim: claim().encode_to_vec().into(), signature: long(bytes) };
        assert_eq!(client(FrameKind::Hello, &signed), Err(PayloadError::Invalid("hello signature")));
    }
    let long_claim = schema::Hello { claim: long(HELLO_CLAIM_BYTES_MAX + 1), signature: long(64) };
    assert_eq!(Hello::parse(long_claim.encode_to_vec().into()).err(), Some(PayloadError::TooLong("hello claim")));
}

#[test]
fn a_ready_keeps_its_bounds() {
    let invalid = || Err(PayloadError::Invalid("epochs digest"));
    for (bytes, read) in [(0, Ok(())), (32, Ok(())), (31, invalid()), (33, invalid())] {
        let ready = schema::Ready { epochs_digest: long(bytes), ..Default::default() };
        assert_eq!(server(FrameKind::Ready, &ready), read, "{bytes} bytes");
    }
}

#[test]
fn a_register_keeps_its_bounds() {
    let full = || schema::Register { handle: "alice".into(), root_entry: long(1), ..Default::default() };
    let read = |message: schema::Register| client(FrameKind::Register, &message);
    at_most(TOKEN_BYTES_MAX, "token", |token| read(schema::Register { token, ..full() }));
    filled(LOG_ENTRY_BYTES_MAX, "root entry", |root_entry| read(schema::Register { root_entry, ..full() }));
    assert_eq!(read(schema::Register { handle: "a".repeat(HANDLE_BYTES_MAX), ..full() }), Ok(()));
    let handle = "a".repeat(HANDLE_BYTES_MAX + 1);
    assert_eq!(read(schema::Register { handle, ..full() }), Err(PayloadError::TooLong("handle")));
}

#[test]
fn a_link_and_a_recovery_keep_their_bounds() {
    let full = || schema::Link { link: id(), device: id(), offer: long(1) };
    let link = |message: schema::Link| client(FrameKind::Link, &message);
    an_id("link", |bytes| link(schema::Link { link: bytes, ..full() }));
    an_id("device", |device| link(schema::Link { device, ..full() }));
    filled(LINK_OFFER_BYTES_MAX, "offer", |offer| link(schema::Link { offer, ..full() }));
    let reply = |payload| client(FrameKind::LinkReply, &schema::LinkReply { payload });
    filled(LINK_REPLY_BYTES_MAX, "reply", reply);
    let answer = |payload| server(FrameKind::LinkAnswer, &schema::LinkAnswer { payload });
    filled(LINK_ANSWER_BYTES_MAX, "answer", answer);
    let linked = |payload| server(FrameKind::Linked, &schema::Linked { payload });
    assert_eq!(linked(Bytes::new()), Ok(()), "nothing may be handed over");
    at_most(LINK_BUNDLE_BYTES_MAX, "bundle", linked);

    let recover = |recovery_key, entry| client(FrameKind::Recover, &schema::Recover { recovery_key, entry });
    for bytes in [0, 31, 33] {
        assert_eq!(recover(long(bytes), long(1)), Err(PayloadError::Invalid("recovery key")));
    }
    assert_eq!(recover(long(32), Bytes::new()), Ok(()), "the first time there is none");
    at_most(LOG_ENTRY_BYTES_MAX, "log entry", |entry| recover(long(32), entry));
    let recovering = |account, handle: &str, previous| {
        let handle = handle.to_owned();
        server(FrameKind::Recovering, &schema::Recovering { account, handle, index: 1, previous })
    };
    an_id("account", |account| recovering(account, "alice", long(32)));
    assert_eq!(recovering(id(), "a", long(32)), Err(PayloadError::Invalid("handle")));
    assert_eq!(recovering(id(), "alice", long(31)), Err(PayloadError::Invalid("hash")));
}

#[test]
fn requests_and_answers_on_links_and_devices_keep_their_bounds() {
    use schema::request::Kind;
    use schema::response::Kind as Answer;
    an_id("link", |link| request(Kind::FindLink(schema::FindLink { link })));
    let answer = |link, payload| request(Kind::AnswerLink(schema::AnswerLink { link, payload }));
    an_id("link", |link| answer(link, long(1)));
    filled(LINK_ANSWER_BYTES_MAX, "answer", |payload| answer(id(), payload));
    let finish = |link, payload| request(Kind::FinishLink(schema::FinishLink { link, payload }));
    an_id("link", |link| finish(link, long(1)));
    assert_eq!(finish(id(), Bytes::new()), Ok(()), "nothing may be handed over");
    at_most(LINK_BUNDLE_BYTES_MAX, "bundle", |payload| finish(id(), payload));

    filled(LINK_OFFER_BYTES_MAX, "offer", |offer| response(Answer::LinkFound(schema::LinkFound { offer })));
    filled(LINK_REPLY_BYTES_MAX, "reply", |payload| {
        response(Answer::LinkCountersigned(schema::LinkCountersigned { payload }))
    });
    let state = |device| schema::DeviceState { device, last_seen_ms: 1, key_packages_left: 1 };
    let devices = |devices| response(Answer::Devices(schema::Devices { devices }));
    an_id("device", |device| devices(vec![state(device)]));
    assert_eq!(devices(vec![state(id()); DEVICES_MAX]), Ok(()));
    assert_eq!(devices(vec![state(id()); DEVICES_MAX + 1]), Err(PayloadError::TooLong("list of devices")));
}

#[test]
fn a_send_keeps_its_bounds() {
    let full = || schema::Send { counter: 1, conversation: id(), epoch: 1, ciphertext: long(1), silent: false };
    let read = |message: schema::Send| client(FrameKind::Send, &message);
    assert_eq!(read(schema::Send { counter: 0, ..full() }), Err(PayloadError::Invalid("counter")));
    an_id("conversation", |conversation| read(schema::Send { conversation, ..full() }));
    filled(CIPHERTEXT_BYTES_MAX, "ciphertext", |ciphertext| read(schema::Send { ciphertext, ..full() }));
}

#[test]
fn answers_on_the_session_stream_keep_their_bounds() {
    let both = |account, device| server(FrameKind::Registered, &schema::Registered { account, device });
    an_id("account", |account| both(account, id()));
    an_id("device", |device| both(id(), device));
    let sent = |result| server(FrameKind::Sent, &schema::Sent { counter: 1, result });
    assert_eq!(sent(None), Err(PayloadError::Missing("result")));
    let accepted = |message_id, durability| {
        let accepted = schema::Accepted { message_id, number: 1, durability, ..Default::default() };
        sent(Some(schema::sent::Result::Accepted(accepted)))
    };
    let gone = |gone: Vec<Bytes>| {
        let accepted = schema::Accepted { number: 1, durability: 1, gone, ..Default::default() };
        sent(Some(schema::sent::Result::Accepted(accepted)))
    };
    assert_eq!(gone(vec![id(); SENT_GONE_MAX]), Ok(()));
    assert_eq!(gone(vec![id(); SENT_GONE_MAX + 1]), Err(PayloadError::TooLong("gone")));
    an_id("gone", |account| gone(vec![account]));
    assert_eq!(accepted(id(), 1), Ok(()));
    assert_eq!(accepted(Bytes::new(), 1), Ok(()), "one that was accepted long ago has no id any more");
    assert_eq!(accepted(long(15), 1), Err(PayloadError::Invalid("message id")));
    assert_eq!(accepted(id(), 0), Err(PayloadError::Invalid("durability")));
    assert_eq!(accepted(id(), 7), Err(PayloadError::Invalid("durability")));
    assert_eq!(server(FrameKind::Refused, &schema::Refused { error: None }), Err(PayloadError::Missing("error")));
}

#[test]
fn a_detail_is_cut_to_what_its_frame_holds() {
    let refusal = Refusal { code: Code::NotFound, retry_after_ms: u64::MAX, detail: "é".repeat(10_000) };
    let sent = ServerFrame::Sent(Sent { counter: u64::MAX, result: Err(refusal.clone()) });
    let Ok(ServerFrame::Sent(Sent { result: Err(read), .. })) = ServerFrame::decode(frame(|out| sent.put(out))) else {
        panic!("a refused send")
    };
    assert_eq!((read.detail.len(), read.retry_after_ms), (SENT_DETAIL_BYTES_MAX, u64::MAX));
    let refused = ServerFrame::Refused(refusal.clone());
    let Ok(ServerFrame::Refused(read)) = ServerFrame::decode(frame(|out| refused.put(out))) else { panic!("refused") };
    assert_eq!(read.detail.len(), ERROR_DETAIL_BYTES_MAX);
    assert_eq!(Refusal::with_detail(Code::NotFound, refusal.detail).detail.len(), ERROR_DETAIL_BYTES_MAX);
}

#[test]
fn an_unknown_code_is_a_bug_of_the_server() {
    let error = schema::Error { code: 9_999, retry_after_ms: 3, detail: "later".into() };
    let payload = schema::Refused { error: Some(error) }.encode_to_vec();
    let read = ServerFrame::decode(raw_frame(FrameKind::Refused, payload));
    let expected = Refusal::with_detail(Code::Internal, "later").retry_after_ms(3);
    assert_eq!(read, Ok(ServerFrame::Refused(expected)));
}

#[test]
fn an_envelope_keeps_its_bounds() {
    use schema::envelope::Body;
    let full = |body| schema::Envelope {
        seq: 1,
        count: 1,
        message_id: id(),
        conversation: id(),
        sender_account: id(),
        sender_device: id(),
        body,
    };
    let read = |message: schema::Envelope| delivery(FrameKind::Envelope, &message);
    let plain = || full(Some(Body::LogChange(schema::LogChange { log_entries: 1 })));
    assert_eq!(read(plain()), Ok(()));
    assert_eq!(read(full(None)), Err(PayloadError::Missing("body")));
    assert_eq!(read(schema::Envelope { seq: 0, ..plain() }), Err(PayloadError::Invalid("seq")));
    an_id("message id", |message_id| read(schema::Envelope { message_id, ..plain() }));
    an_id("conversation", |conversation| read(schema::Envelope { conversation, ..plain() }));
    an_id("sender account", |sender_account| read(schema::Envelope { sender_account, ..plain() }));
    an_id("sender device", |sender_device| read(schema::Envelope { sender_device, ..plain() }));
    for silent in [false, true] {
        filled(CIPHERTEXT_BYTES_MAX, "ciphertext", |ciphertext| {
            let number = u64::from(!silent);
            read(full(Some(Body::Message(schema::ApplicationMessage { number, ciphertext, silent }))))
        });
    }
    let numbered = schema::ApplicationMessage { number: 1, ciphertext: long(1), silent: true };
    assert_eq!(read(full(Some(Body::Message(numbered)))), Err(PayloadError::Invalid("number")));
    filled(HANDSHAKE_BYTES_MAX, "commit", |commit| read(full(Some(Body::Commit(schema::Commit { epoch: 1, commit })))));
    filled(HANDSHAKE_BYTES_MAX, "welcome", |welcome| read(full(Some(Body::Welcome(welcome)))));
    assert_eq!(read(full(Some(Body::Leave(leave(64))))), Ok(()));
    assert_eq!(read(full(Some(Body::Leave(leave(63))))), Err(PayloadError::Invalid("signature")));
}

fn leave(signature_bytes: usize) -> schema::SignedLeave {
    let body = schema::Leave { version: 1, conversation: id(), account: id(), device: id(), leaf_key: long(32) };
    schema::SignedLeave { body: body.encode_to_vec().into(), signature: long(signature_bytes) }
}

#[test]
fn a_gap_is_a_span() {
    let full = || schema::Gap { from_seq: 3, to_seq: 4, missed: 2, count: 2, reason: 1 };
    let read = |gap: schema::Gap| delivery(FrameKind::Gap, &gap);
    assert_eq!(read(full()), Ok(()));
    for reason in [0, 4] {
        assert_eq!(read(schema::Gap { reason, ..full() }), Err(PayloadError::Invalid("reason")));
    }
    for gap in [
        schema::Gap { from_seq: 0, ..full() },
        schema::Gap { to_seq: 2, ..full() },
        schema::Gap { missed: 3, ..full() },
    ] {
        assert_eq!(read(gap), Err(PayloadError::Invalid("span")));
    }
}

#[test]
fn requests_that_read_keep_their_bounds() {
    use schema::find_account::By;
    use schema::request::Kind;
    assert_eq!(fault(Request::decode(raw_frame(FrameKind::Request, Bytes::new()))), Err(PayloadError::Missing("kind")));
    let find = |by| request(Kind::FindAccount(schema::FindAccount { by, log_from: 0 }));
    assert_eq!(find(None), Err(PayloadError::Missing("account")));
    assert_eq!(find(Some(By::Handle("Alice".into()))), Err(PayloadError::Invalid("handle")));
    an_id("account", |account| find(Some(By::Account(account))));
    let claim = |account, accounts| request(Kind::ClaimKeyPackages(schema::ClaimKeyPackages { account, accounts }));
    let none = Bytes::new;
    assert_eq!(claim(none(), vec![]), Err(PayloadError::Missing("account")));
    assert_eq!(claim(id(), vec![]), Ok(()));
    assert_eq!(claim(long(15), vec![]), Err(PayloadError::Invalid("account")));
    an_id("account", |account| claim(none(), vec![account]));
    let others = |count: usize| (0..count).map(|other| vec![u8::try_from(other).unwrap() + 2; 16].into()).collect();
    assert_eq!(claim(none(), others(CLAIM_ACCOUNTS_MAX)), Ok(()));
    assert_eq!(claim(id(), others(CLAIM_ACCOUNTS_MAX - 1)), Ok(()));
    assert_eq!(claim(id(), others(CLAIM_ACCOUNTS_MAX)), Err(PayloadError::TooLong("list of accounts")));
    assert_eq!(claim(id(), vec![id()]), Err(PayloadError::Invalid("list of accounts")), "one account twice");
    an_id("conversation", |conversation| {
        request(Kind::ReadCommits(schema::ReadCommits { conversation, from_epoch: 0 }))
    });
    an_id("conversation", |conversation| request(Kind::ReadGroup(schema::ReadGroup { conversation })));
    let list = |after| request(Kind::ListConversations(schema::ListConversations { after }));
    assert_eq!(list(Bytes::new()), Ok(()));
    assert_eq!(list(long(15)), Err(PayloadError::Invalid("conversation")));

    let logs = |conversation, after| {
        request(Kind::ReadMemberLogs(schema::ReadMemberLogs { conversation, after, pending_only: true }))
    };
    an_id("conversation", |conversation| logs(conversation, id()));
    assert_eq!(logs(id(), Bytes::new()), Ok(()));
    assert_eq!(logs(id(), long(15)), Err(PayloadError::Invalid("account")));
}

#[test]
fn datagrams_keep_their_bounds() {
    use schema::datagram::Kind;
    let full = || schema::Typing { conversation: id(), epoch: u64::MAX, account: id(), device: id(), sealed: long(1) };
    let read = |typing| {
        let datagram = schema::Datagram { kind: Some(Kind::Typing(typing)) }.encode_to_vec();
        Typing::decode(datagram.into()).map(drop)
    };
    an_id("conversation", |conversation| read(schema::Typing { conversation, ..full() }));
    an_id("account", |account| read(schema::Typing { account, ..full() }));
    an_id("device", |device| read(schema::Typing { device, ..full() }));
    filled(TYPING_SEALED_BYTES_MAX, "sealed state", |sealed| read(schema::Typing { sealed, ..full() }));
    // Field 15, which nobody knows yet.
    let unknown = Bytes::from_static(&[0x7a, 3, 1, 1, 1]);
    assert_eq!(Typing::decode(unknown), Err(PayloadError::Missing("kind")));
    assert_eq!(Typing::decode(long(DATAGRAM_BYTES_MAX + 1)), Err(PayloadError::TooLong("datagram")));
}

#[test]
fn requests_that_change_keep_their_bounds() {
    use schema::request::Kind;
    let put = |key_packages, last_resort| {
        request(Kind::PutKeyPackages(schema::PutKeyPackages { key_packages, last_resort, replace: false }))
    };
    assert_eq!(put(vec![long(1); KEY_PACKAGES_MAX], Bytes::new()), Ok(()));
    let too_many = PayloadError::TooLong("list of KeyPackages");
    assert_eq!(put(vec![long(1); KEY_PACKAGES_MAX + 1], Bytes::new()), Err(too_many));
    filled(KEY_PACKAGE_BYTES_MAX, "KeyPackage", |package| put(vec![package], Bytes::new()));
    at_most(KEY_PACKAGE_BYTES_MAX, "last resort", |last| put(vec![], last));
    filled(LOG_ENTRY_BYTES_MAX, "log entry", |entry| request(Kind::AppendDeviceLog(schema::AppendDeviceLog { entry })));
    an_id("next life token", |life_next| request(Kind::TakeOver(schema::TakeOver { life_next })));

    let full = || schema::CreateConversation {
        conversation: id(),
        peer: id(),
        group_info: long(1),
        tree: long(1),
        welcome: long(1),
        kind: 0,
        members: vec![],
    };
    let create = |message| request(Kind::CreateConversation(message));
    an_id("conversation", |conversation| create(schema::CreateConversation { conversation, ..full() }));
    an_id("peer", |peer| create(schema::CreateConversation { peer, ..full() }));
    let max = HANDSHAKE_BYTES_MAX;
    filled(max, "GroupInfo", |group_info| create(schema::CreateConversation { group_info, ..full() }));
    filled(max, "tree", |tree| create(schema::CreateConversation { tree, ..full() }));
    filled(max, "Welcome", |welcome| create(schema::CreateConversation { welcome, ..full() }));
    let unknown = create(schema::CreateConversation { kind: 4, ..full() });
    assert_eq!(unknown, Err(PayloadError::Invalid("kind of conversation")));
    assert_eq!(create(schema::CreateConversation { kind: 1, ..full() }), Ok(()), "direct, said or left out");

    let accounts = |first: u128, count: u128| -> Vec<Bytes> {
        (first..first + count).map(|number| Bytes::copy_from_slice(&number.to_be_bytes())).collect()
    };
    let of = |kind, members, peer| {
        let welcome = Bytes::new();
        create(schema::CreateConversation { kind, members, peer, welcome, ..full() })
    };
    let most = u128::try_from(CONVERSATION_ACCOUNTS_MAX).unwrap();
    assert_eq!(of(2, accounts(0, most), Bytes::new()), Ok(()));
    assert_eq!(of(2, accounts(0, most + 1), Bytes::new()), Err(PayloadError::TooLong("list of accounts")));
    let no_list = Err(PayloadError::Invalid("list of accounts"));
    assert_eq!(of(2, vec![], Bytes::new()), no_list);
    assert_eq!(of(2, [accounts(2, 1), accounts(1, 1)].concat(), Bytes::new()), no_list);
    assert_eq!(of(3, accounts(1, 1), Bytes::new()), no_list);
    assert_eq!(of(0, accounts(1, 1), id()), no_list);
    assert_eq!(of(2, accounts(1, 1), id()), Err(PayloadError::Invalid("peer")));
    assert_eq!(of(3, vec![], Bytes::new()), Ok(()));
    an_id("account", |account| of(2, vec![account], Bytes::new()));

    let full = || schema::SubmitCommit {
        counter: 1,
        conversation: id(),
        epoch: 0,
        commit: long(1),
        group_info: long(1),
        welcome: Bytes::new(),
    };
    let submit = |message| request(Kind::SubmitCommit(message));
    let uncounted = submit(schema::SubmitCommit { counter: 0, ..full() });
    assert_eq!(uncounted, Err(PayloadError::Invalid("counter")));
    an_id("conversation", |conversation| submit(schema::SubmitCommit { conversation, ..full() }));
    filled(max, "commit", |commit| submit(schema::SubmitCommit { commit, ..full() }));
    filled(max, "GroupInfo", |group_info| submit(schema::SubmitCommit { group_info, ..full() }));
    at_most(max, "Welcome", |welcome| submit(schema::SubmitCommit { welcome, ..full() }));

    let leaves =
        |conversation, leave| request(Kind::LeaveConversation(schema::LeaveConversation { conversation, leave }));
    an_id("conversation", |conversation| leaves(conversation, Some(leave(64))));
    assert_eq!(leaves(id(), None), Err(PayloadError::Missing("leave")));
    assert_eq!(leaves(id(), Some(leave(63))), Err(PayloadError::Invalid("signature")));
}

#[test]
fn responses_keep_their_bounds() {
    use schema::response::Kind;
    assert_eq!(
        fault(Response::decode(raw_frame(FrameKind::Response, Bytes::new()))),
        Err(PayloadError::Missing("kind"))
    );
    let account = |account, handle: &str, log_entries| {
        let handle = handle.to_owned();
        response(Kind::Account(schema::AccountFound { account, handle, log_entries, log_length: 1 }))
    };
    an_id("account", |id| account(id, "alice", vec![]));
    assert_eq!(account(id(), "a", vec![]), Err(PayloadError::Invalid("handle")));
    filled(LOG_ENTRY_BYTES_MAX, "log entry", |entry| account(id(), "alice", vec![entry]));

    let package = |device, key_package| schema::DeviceKeyPackage { device, key_package, account: id() };
    let claimed = |packages, missing| response(Kind::KeyPackages(schema::KeyPackages { packages, missing }));
    let packages = |packages| claimed(packages, vec![]);
    let max = CLAIM_ACCOUNTS_MAX * DEVICES_MAX;
    assert_eq!(packages(vec![package(id(), long(1)); max]), Ok(()));
    let too_many = PayloadError::TooLong("list of KeyPackages");
    assert_eq!(packages(vec![package(id(), long(1)); max + 1]), Err(too_many));
    an_id("device", |device| packages(vec![package(device, long(1))]));
    an_id("account", |account| packages(vec![schema::DeviceKeyPackage { account, ..package(id(), long(1)) }]));
    filled(KEY_PACKAGE_BYTES_MAX, "KeyPackage", |bytes| packages(vec![package(id(), bytes)]));
    an_id("account", |account| claimed(vec![], vec![account]));
    assert_eq!(claimed(vec![], vec![id(); CLAIM_ACCOUNTS_MAX]), Ok(()));
    let too_many = PayloadError::TooLong("list of accounts");
    assert_eq!(claimed(vec![], vec![id(); CLAIM_ACCOUNTS_MAX + 1]), Err(too_many));

    an_id("conversation", |conversation| {
        response(Kind::ConversationCreated(schema::ConversationCreated { conversation, existed: false, epoch: 1 }))
    });
    let group = |group_info, tree| response(Kind::Group(schema::Group { epoch: 1, group_info, tree }));
    filled(HANDSHAKE_BYTES_MAX, "GroupInfo", |info| group(info, long(1)));
    filled(HANDSHAKE_BYTES_MAX, "tree", |tree| group(long(1), tree));
}

#[test]
fn pages_keep_their_bounds_and_their_order() {
    use schema::response::Kind;
    let commits = |epochs: &[u64], commit: Bytes| {
        let commits = epochs.iter().map(|epoch| schema::Commit { epoch: *epoch, commit: commit.clone() }).collect();
        response(Kind::Commits(schema::Commits { commits, epoch: 9, first_epoch: 1 }))
    };
    assert_eq!(commits(&[], long(1)), Ok(()));
    assert_eq!(commits(&[4, 5, 6], long(1)), Ok(()));
    for epochs in [[4, 6], [5, 4], [4, 4], [u64::MAX, 0]] {
        assert_eq!(commits(&epochs, long(1)), Err(PayloadError::Invalid("order of commits")));
    }
    filled(HANDSHAKE_BYTES_MAX, "commit", |commit| commits(&[1], commit));

    let state = |conversation, accounts| schema::ConversationState { conversation, epoch: 1, accounts, kind: 0 };
    let page = |conversations| response(Kind::Conversations(schema::Conversations { conversations, more: false }));
    assert_eq!(page(vec![state(id(), vec![]); CONVERSATIONS_PAGE]), Ok(()));
    let too_many = Err(PayloadError::TooLong("page of conversations"));
    assert_eq!(page(vec![state(id(), vec![]); CONVERSATIONS_PAGE + 1]), too_many);
    an_id("conversation", |conversation| page(vec![state(conversation, vec![])]));
    an_id("account", |account| page(vec![state(id(), vec![account])]));
    assert_eq!(page(vec![state(id(), vec![id(); CONVERSATION_ACCOUNTS_MAX])]), Ok(()));
    let too_many = Err(PayloadError::TooLong("list of accounts"));
    assert_eq!(page(vec![state(id(), vec![id(); CONVERSATION_ACCOUNTS_MAX + 1])]), too_many);
    let unknown = page(vec![schema::ConversationState { kind: 4, ..state(id(), vec![]) }]);
    assert_eq!(unknown, Err(PayloadError::Invalid("kind of conversation")));

    let log = |account: Bytes, handle: &str, entry| {
        let handle = handle.to_owned();
        schema::MemberLog { account, handle, log_entries: vec![entry], leave: None }
    };
    let page = |logs| response(Kind::MemberLogs(schema::MemberLogs { logs, more: false }));
    an_id("account", |account| page(vec![log(account, "alice", long(1))]));
    assert_eq!(page(vec![log(id(), "a", long(1))]), Err(PayloadError::Invalid("handle")));
    filled(LOG_ENTRY_BYTES_MAX, "log entry", |entry| page(vec![log(id(), "alice", entry)]));
    let left = |signature_bytes| {
        page(vec![schema::MemberLog { leave: Some(leave(signature_bytes)), ..log(id(), "alice", long(1)) }])
    };
    assert_eq!(left(64), Ok(()));
    assert_eq!(left(63), Err(PayloadError::Invalid("signature")));
    let twice = page(vec![log(id(), "alice", long(1)), log(id(), "alice", long(1))]);
    assert_eq!(twice, Err(PayloadError::Invalid("order of accounts")));
    let too_many = page(vec![log(id(), "alice", long(1)); CONVERSATION_ACCOUNTS_MAX + 1]);
    assert_eq!(too_many, Err(PayloadError::TooLong("page of device logs")));
}
