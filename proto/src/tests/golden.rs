//! The bytes of each frame: what another implementation must write, and what this one must go on reading.

mod phone;
mod push;

use super::*;
use crate::{
    Accepted, AccountFound, AccountId, ClientFrame, Code, Commits, ConversationId, ConversationKind, ConversationState,
    ConversationWith, CreateConversation, DeliveryFrame, DeviceId, DeviceKeyPackage, DeviceState, Envelope,
    EnvelopeBody, FindBy, Gap, GapReason, Gone, Group, Hello, HelloClaim, KeyPackages, Leave, Life, LifeToken, Link,
    LinkId, LogHead, MemberLog, MessageId, Notice, PhoneNotice, Position, Ready, Recover, Recovering, Refusal,
    Register, Registered, Request, Response, Send, Sent, ServerFrame, SharedEnvelope, SignedLeave, SubmitCommit,
    Typing, put_ack, put_hello, put_link, put_link_reply, put_recover, put_register, put_send,
};

const ACCOUNT: AccountId = AccountId::from_bytes([0xa1; 16]);
const OTHER: AccountId = AccountId::from_bytes([0xb1; 16]);
const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
const CONVERSATION: ConversationId = ConversationId::from_bytes([0xc1; 16]);
const LINK: LinkId = LinkId::from_bytes([0xb1; 16]);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn message_id() -> MessageId {
    MessageId::new(0x0123_4567_89ab, 5)
}

fn leave() -> SignedLeave {
    let leaf_key = Bytes::from_static(&[0xe1; 32]);
    let leave = Leave { conversation: CONVERSATION, account: ACCOUNT, device: DEVICE, leaf_key };
    SignedLeave::sign(leave, &ed25519_dalek::SigningKey::from_bytes(&[5; 32]))
}

fn refusal() -> Refusal {
    Refusal::with_detail(Code::RateLimited, "slow").retry_after_ms(300)
}

#[track_caller]
fn written(out: &BytesMut, expected: &str) {
    assert_eq!(data_encoding::HEXLOWER.encode(out), expected);
}

#[track_caller]
fn check<T: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    value: T,
    put: impl Fn(&T, &mut BytesMut),
    read: impl Fn(Frame) -> Result<T, E>,
    expected: &str,
) {
    let mut out = BytesMut::new();
    put(&value, &mut out);
    written(&out, expected);
    assert_eq!(read(frame(|out| put(&value, out))), Ok(value));
}

#[track_caller]
fn server(value: ServerFrame, expected: &str) {
    check(value, ServerFrame::put, ServerFrame::decode, expected);
}

#[track_caller]
fn delivery(value: DeliveryFrame, expected: &str) {
    check(value, DeliveryFrame::put, DeliveryFrame::decode, expected);
}

#[track_caller]
fn request(value: Request, expected: &str) {
    check(value, Request::put, Request::decode, expected);
}

#[track_caller]
fn response(value: Response, expected: &str) {
    check(value, Response::put, Response::decode, expected);
}

#[track_caller]
fn client(put: impl Fn(&mut BytesMut), expected: &str) -> ClientFrame {
    let mut out = BytesMut::new();
    put(&mut out);
    written(&out, expected);
    ClientFrame::decode(frame(put)).unwrap()
}

fn claim() -> HelloClaim {
    HelloClaim {
        server_name: "a.b".into(),
        account: ACCOUNT,
        device: DEVICE,
        subscribe: true,
        cursor: Position { seq: 300, count: 2 },
        epochs_digest: Some([0xe1; 32]),
        log_entries: 3,
        life: None,
        push_digest: None,
    }
}

#[test]
fn client_frames_have_these_bytes() {
    let claim = claim();
    let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let hello = Hello::sign(&claim, &key, &[6; 32]);
    let read = client(
        |out| put_hello(&hello, out),
        "0140a60a62080110011a0867757265756d2f312203612e622a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1\
         d1d1d1d1d1d1d1d1d1d1d1d1380140ac0248025220e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1\
         e1e1e1e1e1580312409a2e2db06fcef9aaa04190967fd47b4a6b4e438837971872d76fe9a0930d930101e8148048c89e\
         bdea42c68fd20003cb9828e481700a4f0b310135a87d174f02",
    );
    assert!(matches!(read, ClientFrame::Hello(hello) if *hello.claim() == claim));
    let (token, next) = (LifeToken::from_bytes([0x71; 16]), LifeToken::from_bytes([0x72; 16]));
    let claim = HelloClaim { life: Some(Life { generation: 7, token, next }), ..claim };
    let hello = Hello::sign(&claim, &key, &[6; 32]);
    let read = client(
        |out| put_hello(&hello, out),
        "0140cd0a8801080110011a0867757265756d2f312203612e622a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1\
         d1d1d1d1d1d1d1d1d1d1d1d1d1380140ac0248025220e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1\
         e1e1e1e1e1e1580360076a1071717171717171717171717171717171721072727272727272727272727272727272\
         124039cb04b3867f11b4b88428b8a5d0edea0a13b4ed9db7a53332da66fd552530a291a509c305cd2e5f0b5b9d619c56\
         e06bc4f072f6faf7b4e255f60efa6e912505",
    );
    assert!(matches!(read, ClientFrame::Hello(hello) if *hello.claim() == claim));

    let root_entry = bytes("root");
    let register = Register { token: bytes("tok"), handle: "alice".into(), root_entry, phone: None };
    let read = client(|out| put_register(&register, out), "06120a03746f6b1205616c6963651a04726f6f74");
    assert!(matches!(read, ClientFrame::Register(again) if again == register));

    let send = Send { counter: 7, conversation: CONVERSATION, epoch: 2, ciphertext: bytes("sealed"), silent: false };
    let read = client(|out| put_send(&send, out), "031e08071210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1180222067365616c6564");
    assert!(matches!(read, ClientFrame::Send(again) if again == send));
    let silent = Send { silent: true, ..send };
    let read =
        client(|out| put_send(&silent, out), "032008071210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1180222067365616c65642801");
    assert!(matches!(read, ClientFrame::Send(again) if again == silent));

    let ack = Position { seq: 300, count: 2 };
    let read = client(|out| put_ack(ack, out), "050508ac021002");
    assert!(matches!(read, ClientFrame::Ack(again) if again == ack));
}

#[test]
fn client_frames_of_linking_and_recovery_have_these_bytes() {
    let link = Link { link: LINK, device: DEVICE, offer: bytes("offer") };
    let read = client(
        |out| put_link(&link, out),
        "0a2b0a10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b11210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d11a056f66666572",
    );
    assert!(matches!(read, ClientFrame::Link(again) if again == link));

    let read = client(|out| put_link_reply(&bytes("reply"), out), "0c070a057265706c79");
    assert!(matches!(read, ClientFrame::LinkReply(again) if again == bytes("reply")));

    let recover = Recover { recovery_key: [0xe1; 32], entry: None };
    let read = client(
        |out| put_recover(&recover, out),
        "0e220a20e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1",
    );
    assert!(matches!(read, ClientFrame::Recover(again) if again == recover));
    let recover = Recover { entry: Some(bytes("entry")), ..recover };
    let read = client(
        |out| put_recover(&recover, out),
        "0e290a20e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e11205656e747279",
    );
    assert!(matches!(read, ClientFrame::Recover(again) if again == recover));
}

#[test]
fn a_datagram_has_these_bytes() {
    let (conversation, account, device) = (CONVERSATION, ACCOUNT, DEVICE);
    let typing = Typing { conversation, epoch: 2, account, device, sealed: bytes("sealed") };
    written(
        &typing.encode().as_ref().into(),
        "0a400a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c110021a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a12210d1d1d1d1d1d1\
         d1d1d1d1d1d1d1d1d1d12a067365616c6564",
    );
    assert_eq!(Typing::decode(typing.encode()), Ok(typing));
}

#[test]
fn server_frames_have_these_bytes() {
    server(ServerFrame::Ready(Ready::default()), "0200");
    let ready = Ready {
        server_time_ms: 1_800_000_000_000,
        retention_ms: 259_200_000,
        commit_retention_ms: 2_592_000_000,
        head: Position { seq: 300, count: 2 },
        accepted_counter: 7,
        sends_in_flight_max: 64,
        epochs_differ: true,
        epochs_digest: None,
        log_entries: 3,
        key_packages_left: 50,
        last_resort_used: true,
        stale: true,
        push_differs: false,
        phone: PhoneNotice::default(),
    };
    server(ServerFrame::Ready(ready), "02250880a0f1c2b1341080a8cc7b18ac02200228073040380140034832508090fbd30958016001");
    let digested = Ready { epochs_digest: Some([0xe1; 32]), ..ready };
    server(
        ServerFrame::Ready(digested),
        "0240470880a0f1c2b1341080a8cc7b18ac02200228073040380140034832508090fbd30958016001\
         6a20e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1",
    );
    server(
        ServerFrame::Registered(Registered { account: ACCOUNT, device: DEVICE }),
        "07240a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
    );
    let accepted = Accepted { message_id: Some(message_id()), number: 9, repeated: false, gone: Gone::default() };
    server(
        ServerFrame::Sent(Sent { counter: 7, result: Ok(accepted) }),
        "041a080712160a100123456789ab7000800000000000000510091801",
    );
    let some_gone = Accepted { gone: Gone::new(&[ACCOUNT], 2), ..accepted };
    server(
        ServerFrame::Sent(Sent { counter: 7, result: Ok(some_gone) }),
        "042e0807122a0a100123456789ab70008000000000000005100918012a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a13002",
    );
    let long_ago = Accepted { message_id: None, number: 0, repeated: true, gone: Gone::default() };
    server(ServerFrame::Sent(Sent { counter: 7, result: Ok(long_ago) }), "04080807120418012001");
    server(ServerFrame::Sent(Sent { counter: 7, result: Err(refusal()) }), "040f08071a0b080410ac021a04736c6f77");
    server(ServerFrame::Refused(refusal()), "080d0a0b080410ac021a04736c6f77");
    server(ServerFrame::Drain { come_back_ms: 1_500 }, "090308dc0b");
    server(ServerFrame::LinkAnswer(bytes("answer")), "0b080a06616e73776572");
    server(ServerFrame::Linked(bytes("bundle")), "0d080a0662756e646c65");
    server(ServerFrame::Linked(Bytes::new()), "0d00");
    let head = LogHead { length: 2, hash: [0xe1; 32] };
    server(
        ServerFrame::Recovering(Recovering { account: ACCOUNT, handle: "alice".parse().unwrap(), head }),
        "0f3d0a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11205616c69636518022220e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1\
         e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1",
    );
    server(ServerFrame::Notice(Notice { key_packages_left: 7, last_resort_used: true }), "50000408071001");
    server(ServerFrame::Notice(Notice::default()), "500000");
}

#[test]
fn delivery_frames_have_these_bytes() {
    let envelope = |body| {
        let shared = SharedEnvelope {
            message_id: message_id(),
            conversation: CONVERSATION,
            sender_account: ACCOUNT,
            sender_device: DEVICE,
            body,
        };
        DeliveryFrame::Envelope(Envelope { position: Position { seq: 300, count: 2 }, shared })
    };
    delivery(
        envelope(EnvelopeBody::Message { number: 9, ciphertext: bytes("sealed") }),
        "10405908ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d13a0a080912067365616c6564",
    );
    delivery(
        envelope(EnvelopeBody::Silent(bytes("sealed"))),
        "10405908ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d13a0a12067365616c65641801",
    );
    delivery(
        envelope(EnvelopeBody::Commit { epoch: 2, commit: bytes("commit") }),
        "10405908ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1420a08021206636f6d6d6974",
    );
    delivery(
        envelope(EnvelopeBody::Welcome(bytes("welcome"))),
        "10405608ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d14a0777656c636f6d65",
    );
    delivery(
        envelope(EnvelopeBody::LogChange { log_entries: 3 }),
        "10405108ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d152020803",
    );
    delivery(
        envelope(EnvelopeBody::Leave(leave())),
        "1040ee08ac0210021a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d15a9e010a5a08011210c1c1c1c1c1c1c1\
         c1c1c1c1c1c1c1c1c11a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a12210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d12a20e1\
         e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e112407239ecff0add20dc2f4e049e720e59\
         9abf84add852707bc1b841913128a5f19dbfa0d616a1df0bc94d58c4c8746433854ef8347ae4c80742ee076ad46460a300",
    );
    // Before any message, as for any proto3 writer: the count of 0 takes no byte.
    let DeliveryFrame::Envelope(first) = envelope(EnvelopeBody::LogChange { log_entries: 3 }) else { unreachable!() };
    delivery(
        DeliveryFrame::Envelope(Envelope { position: Position { seq: 1, count: 0 }, ..first }),
        "10404e08011a100123456789ab700080000000000000052210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c12a10a1a1\
         a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d152020803",
    );
    let to = Position { seq: 302, count: 4 };
    let gap = |reason| DeliveryFrame::Gap(Gap { from_seq: 301, to, missed: 2, reason });
    delivery(gap(GapReason::Expired), "110c08ad0210ae02180220042801");
    delivery(gap(GapReason::Overflow), "110c08ad0210ae02180220042802");
    delivery(gap(GapReason::Lost), "110c08ad0210ae02180220042803");
    delivery(DeliveryFrame::CaughtUp { seq: 302 }, "120308ae02");
}

#[test]
fn requests_have_these_bytes() {
    let by = FindBy::Handle("alice".parse().unwrap());
    request(Request::FindAccount { by, log_from: 1 }, "200b0a090a05616c6963651801");
    request(
        Request::FindAccount { by: FindBy::Account(ACCOUNT), log_from: 0 },
        "20140a121210a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
    );
    let key_packages = vec![bytes("one"), bytes("two")];
    request(
        Request::PutKeyPackages { key_packages, last_resort: Some(bytes("last")), replace: false },
        "201212100a036f6e650a0374776f12046c617374",
    );
    request(
        Request::PutKeyPackages { key_packages: vec![bytes("one")], last_resort: None, replace: true },
        "200912070a036f6e651801",
    );
    request(Request::ClaimKeyPackages { accounts: vec![ACCOUNT] }, "20141a120a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1");
    request(
        Request::ClaimKeyPackages { accounts: vec![ACCOUNT, OTHER] },
        "20261a241210a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11210b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1",
    );
    let create = |with, welcome| {
        let (group_info, tree) = (bytes("info"), bytes("tree"));
        Request::CreateConversation(CreateConversation {
            conversation: CONVERSATION,
            with,
            group_info,
            tree,
            welcome: bytes(welcome),
        })
    };
    request(
        create(ConversationWith::Peer(ACCOUNT), "welcome"),
        "203b22390a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11210a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11a04696e666f2204\
         747265652a0777656c636f6d65",
    );
    request(
        create(ConversationWith::Group(vec![ACCOUNT, AccountId::from_bytes([0xa2; 16])]), ""),
        "20404622440a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11a04696e666f22047472656530023a10a1a1a1a1a1a1a1a1a1\
         a1a1a1a1a1a1a13a10a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2",
    );
    request(
        create(ConversationWith::Own, "welcome"),
        "202b22290a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11a04696e666f2204747265652a0777656c636f6d653003",
    );
    let commit = SubmitCommit {
        counter: 7,
        conversation: CONVERSATION,
        epoch: 2,
        commit: bytes("commit"),
        group_info: bytes("info"),
        welcome: Bytes::new(),
    };
    request(
        Request::SubmitCommit(commit),
        "20262a2408071210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c118022206636f6d6d69742a04696e666f",
    );
    request(
        Request::ReadCommits { conversation: CONVERSATION, from_epoch: 2 },
        "201632140a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11002",
    );
    request(Request::ReadGroup { conversation: CONVERSATION }, "20143a120a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1");
    request(Request::ListConversations { after: None }, "20024200");
    request(Request::ListConversations { after: Some(CONVERSATION) }, "201442120a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1");
    request(Request::AppendDeviceLog { entry: bytes("entry") }, "20094a070a05656e747279");
    request(Request::ListDevices, "20025a00");
    request(Request::FindLink { link: LINK }, "201462120a10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1");
    request(
        Request::AnswerLink { link: LINK, payload: bytes("answer") },
        "201c6a1a0a10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b11206616e73776572",
    );
    request(
        Request::FinishLink { link: LINK, payload: bytes("bundle") },
        "201c721a0a10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1120662756e646c65",
    );
    let next = LifeToken::from_bytes([0x72; 16]);
    request(Request::TakeOver { next }, "2015a201120a1072727272727272727272727272727272");
    request(
        Request::ReadMemberLogs { conversation: CONVERSATION, after: None, pending_only: false },
        "201452120a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
    );
    request(
        Request::ReadMemberLogs { conversation: CONVERSATION, after: Some(ACCOUNT), pending_only: true },
        "202852260a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11210a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11801",
    );
    request(
        Request::LeaveConversation { conversation: CONVERSATION, leave: leave() },
        "2040b67ab3010a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1129e010a5a08011210c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\
         c11a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a12210d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d12a20e1e1e1e1e1e1e1e1e1\
         e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e112407239ecff0add20dc2f4e049e720e599abf84add852707b\
         c1b841913128a5f19dbfa0d616a1df0bc94d58c4c8746433854ef8347ae4c80742ee076ad46460a300",
    );
}

#[test]
fn responses_have_these_bytes() {
    response(Response::Refused(refusal()), "210d0a0b080410ac021a04736c6f77");
    let handle = "alice".parse().unwrap();
    let log_entries = vec![bytes("root"), bytes("next")];
    response(
        Response::Account(AccountFound { account: ACCOUNT, handle, log_entries, log_length: 2 }),
        "212912270a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11205616c6963651a04726f6f741a046e6578742002",
    );
    response(Response::KeyPackagesStored { left: 50 }, "21041a020832");
    let package = DeviceKeyPackage { account: ACCOUNT, device: DEVICE, key_package: bytes("one") };
    response(
        Response::KeyPackages(KeyPackages { packages: vec![package], missing: vec![OTHER] }),
        "213f223d0a290a10d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d112036f6e651a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a112\
         10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1",
    );
    let (conversation, epoch) = (CONVERSATION, 2);
    response(
        Response::ConversationCreated { conversation, existed: true, epoch },
        "21182a160a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c110011802",
    );
    response(Response::CommitAccepted { epoch: 3 }, "210432020803");
    let commits = vec![(1, bytes("first")), (2, bytes("second"))];
    response(
        Response::Commits(Commits { commits, epoch: 3, first_epoch: 1 }),
        "211d3a1b0a090801120566697273740a0a080212067365636f6e6410031801",
    );
    let group = Group { epoch: 3, group_info: bytes("info"), tree: bytes("tree") };
    response(Response::Group(group), "2110420e08031204696e666f1a0474726565");
    let page = |kind| {
        let conversations = vec![ConversationState { conversation, epoch, accounts: vec![ACCOUNT], kind }];
        Response::Conversations { conversations, more: true }
    };
    response(
        page(ConversationKind::Direct),
        "212c4a2a0a260a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c110021a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11001",
    );
    response(
        page(ConversationKind::Group),
        "212e4a2c0a280a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c110021a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a120021001",
    );
    response(Response::DeviceLogAppended { log_length: 3 }, "210452020803");
    let state = DeviceState { device: DEVICE, last_seen_ms: 1_800_000_000_000, key_packages_left: 20 };
    response(Response::Devices(vec![state]), "211f621d0a1b0a10d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d11080a0f1c2b1341814");
    response(Response::LinkFound { offer: bytes("offer") }, "21096a070a056f66666572");
    response(Response::LinkCountersigned { payload: bytes("reply") }, "210972070a057265706c79");
    response(Response::LinkFinished, "21027a00");
    response(Response::TakenOver { generation: 8, accepted_counter: 7 }, "2107aa010408081007");
    let logs = vec![MemberLog {
        account: ACCOUNT,
        handle: "alice".parse().unwrap(),
        log_entries: vec![bytes("root"), bytes("next")],
        leave: None,
    }];
    response(
        Response::MemberLogs { logs, more: true },
        "212b5a290a250a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11205616c6963651a04726f6f741a046e6578741001",
    );
    response(Response::ConversationLeft, "2103820100");
}
