//! Arbitrary values come back as they were, and arbitrary bytes never panic.

mod people;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::limits::{CLAIM_ACCOUNTS_MAX, DEVICES_MAX, SENT_DETAIL_BYTES_MAX};
use crate::{
    Accepted, AccountFound, AccountId, AddDraft, ClientFrame, Code, CommitAttachment, Commits, ConversationId,
    ConversationKind, ConversationState, ConversationWith, CreateConversation, DeliveryFrame, DeviceId,
    DeviceKeyPackage, DeviceLog, DeviceState, Envelope, EnvelopeBody, FindBy, Gap, GapReason, Gone, Group, GroupState,
    Handle, Hello, HelloClaim, KeyPackages, LeafIdentity, Leave, Life, LifeToken, Link, LinkBundle, LinkCode,
    LinkConsent, LinkId, LinkOffer, LinkProposal, LogHead, MemberLog, MessageId, Notice, Position, Ready, Recover,
    Recovering, Refusal, Register, Registered, Request, Response, Send, Sent, ServerFrame, ServerUrl, SharedEnvelope,
    SignedLeave, SubmitCommit, Typing, put_ack, put_hello, put_link, put_link_reply, put_recover, put_register,
    put_send,
};

fn account() -> impl Strategy<Value = AccountId> {
    any::<[u8; 16]>().prop_map(AccountId::from_bytes)
}

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 16]>().prop_map(DeviceId::from_bytes)
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<[u8; 16]>().prop_map(ConversationId::from_bytes)
}

fn link() -> impl Strategy<Value = LinkId> {
    any::<[u8; 16]>().prop_map(LinkId::from_bytes)
}

fn message_id() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::from_bytes)
}

fn life_token() -> impl Strategy<Value = LifeToken> {
    any::<[u8; 16]>().prop_map(LifeToken::from_bytes)
}

fn life() -> impl Strategy<Value = Life> {
    (any::<u64>(), life_token(), life_token()).prop_map(|(generation, token, next)| Life { generation, token, next })
}

fn position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(seq, count)| Position { seq, count })
}

fn some_bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..max).prop_map(Bytes::from)
}

fn handle() -> impl Strategy<Value = Handle> {
    // No regular expressions: proptest is built without them.
    let letters = b"abcxyz019._-";
    (0..6_usize, vec(0..letters.len(), 1..32)).prop_map(move |(first, rest)| {
        let text = std::iter::once(first).chain(rest).map(|at| char::from(letters[at])).collect::<String>();
        text.parse().unwrap()
    })
}

fn refusal(detail_chars_max: usize) -> impl Strategy<Value = Refusal> {
    let code = (0..Code::ALL.len()).prop_map(|at| Code::ALL[at]);
    (code, any::<u64>(), vec(any::<char>(), 0..detail_chars_max)).prop_map(|(code, after, detail)| {
        Refusal::with_detail(code, detail.into_iter().collect::<String>()).retry_after_ms(after)
    })
}

fn accepted() -> impl Strategy<Value = Accepted> {
    let gone = (vec(any::<[u8; 16]>(), 0..12), any::<u16>()).prop_map(|(accounts, more)| {
        let accounts: Vec<_> = accounts.into_iter().map(AccountId::from_bytes).collect();
        Gone::new(&accounts, u32::from(more))
    });
    (option::of(message_id()), any::<u64>(), any::<bool>(), gone)
        .prop_map(|(message_id, number, repeated, gone)| Accepted { message_id, number, repeated, gone })
}

fn ready() -> impl Strategy<Value = Ready> {
    (
        any::<[u64; 5]>(),
        position(),
        any::<(u32, u32)>(),
        any::<[bool; 4]>(),
        any::<Option<[u8; 32]>>(),
        people::phone_notice(),
    )
        .prop_map(|(numbers, head, small, flags, epochs_digest, phone)| {
            let [server_time_ms, retention_ms, commit_retention_ms, accepted_counter, log_entries] = numbers;
            let [epochs_differ, last_resort_used, stale, push_differs] = flags;
            Ready {
                server_time_ms,
                retention_ms,
                commit_retention_ms,
                head,
                accepted_counter,
                sends_in_flight_max: small.0,
                epochs_differ,
                epochs_digest,
                log_entries,
                key_packages_left: small.1,
                last_resort_used,
                stale,
                push_differs,
                phone,
            }
        })
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let sent = (any::<u64>(), prop_oneof![accepted().prop_map(Ok), refusal(SENT_DETAIL_BYTES_MAX / 4).prop_map(Err),]);
    prop_oneof![
        ready().prop_map(ServerFrame::Ready),
        (account(), device()).prop_map(|(account, device)| ServerFrame::Registered(Registered { account, device })),
        sent.prop_map(|(counter, result)| ServerFrame::Sent(Sent { counter, result })),
        refusal(600).prop_map(ServerFrame::Refused),
        any::<u64>().prop_map(|come_back_ms| ServerFrame::Drain { come_back_ms }),
        some_bytes(99).prop_map(ServerFrame::LinkAnswer),
        vec(any::<u8>(), 0..99).prop_map(|bundle| ServerFrame::Linked(bundle.into())),
        (account(), handle(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(account, handle, length, hash)| {
            ServerFrame::Recovering(Recovering { account, handle, head: LogHead { length, hash } })
        }),
        any::<(u32, bool)>().prop_map(|(key_packages_left, last_resort_used)| {
            ServerFrame::Notice(Notice { key_packages_left, last_resort_used })
        }),
        people::code_sent().prop_map(ServerFrame::CodeSent),
        people::phone_notice().prop_map(ServerFrame::PhoneNotice),
    ]
}

fn leave() -> impl Strategy<Value = SignedLeave> {
    (conversation(), account(), device(), some_bytes(99), any::<[u8; 32]>()).prop_map(
        |(conversation, account, device, leaf_key, seed)| {
            let key = ed25519_dalek::SigningKey::from_bytes(&seed);
            SignedLeave::sign(Leave { conversation, account, device, leaf_key }, &key)
        },
    )
}

fn accounts(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<AccountId>> {
    proptest::collection::btree_set(account(), count).prop_map(|accounts| accounts.into_iter().collect())
}

fn body() -> impl Strategy<Value = EnvelopeBody> {
    prop_oneof![
        (any::<u64>(), some_bytes(300)).prop_map(|(number, ciphertext)| EnvelopeBody::Message { number, ciphertext }),
        some_bytes(300).prop_map(EnvelopeBody::Silent),
        (any::<u64>(), some_bytes(300)).prop_map(|(epoch, commit)| EnvelopeBody::Commit { epoch, commit }),
        some_bytes(300).prop_map(EnvelopeBody::Welcome),
        any::<u64>().prop_map(|log_entries| EnvelopeBody::LogChange { log_entries }),
        leave().prop_map(EnvelopeBody::Leave),
    ]
}

fn delivery_frame() -> impl Strategy<Value = DeliveryFrame> {
    let envelope = (1..=u64::MAX, any::<u64>(), message_id(), conversation(), account(), device(), body()).prop_map(
        |(seq, count, message_id, conversation, sender_account, sender_device, body)| Envelope {
            position: Position { seq, count },
            shared: SharedEnvelope { message_id, conversation, sender_account, sender_device, body },
        },
    );
    let gap = (1..=u64::MAX, any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
        |(from_seq, more, missed, before, is_overflow)| Gap {
            from_seq,
            to: Position { seq: from_seq.saturating_add(more), count: missed.saturating_add(before) },
            missed,
            reason: if is_overflow { GapReason::Overflow } else { GapReason::Expired },
        },
    );
    prop_oneof![
        envelope.prop_map(DeliveryFrame::Envelope),
        gap.prop_map(DeliveryFrame::Gap),
        any::<u64>().prop_map(|seq| DeliveryFrame::CaughtUp { seq }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let by = prop_oneof![
        handle().prop_map(FindBy::Handle),
        account().prop_map(FindBy::Account),
        people::phone().prop_map(FindBy::Phone),
    ];
    let with = prop_oneof![
        account().prop_map(ConversationWith::Peer),
        accounts(1..5).prop_map(ConversationWith::Group),
        Just(ConversationWith::Own),
    ];
    let create = (conversation(), with, some_bytes(99), some_bytes(99), some_bytes(99)).prop_map(
        |(conversation, with, group_info, tree, welcome)| CreateConversation {
            conversation,
            with,
            group_info,
            tree,
            welcome,
        },
    );
    let commit = (1..=u64::MAX, conversation(), any::<u64>(), some_bytes(99), some_bytes(99), vec(any::<u8>(), 0..99))
        .prop_map(|(counter, conversation, epoch, commit, group_info, welcome)| SubmitCommit {
            counter,
            conversation,
            epoch,
            commit,
            group_info,
            welcome: welcome.into(),
        });
    prop_oneof![
        (by, any::<u64>()).prop_map(|(by, log_from)| Request::FindAccount { by, log_from }),
        (vec(some_bytes(99), 0..5), option::of(some_bytes(99)), any::<bool>()).prop_map(
            |(key_packages, last_resort, replace)| Request::PutKeyPackages { key_packages, last_resort, replace }
        ),
        btree_set(account(), 1..=CLAIM_ACCOUNTS_MAX)
            .prop_map(|accounts| Request::ClaimKeyPackages { accounts: accounts.into_iter().collect() }),
        create.prop_map(Request::CreateConversation),
        commit.prop_map(Request::SubmitCommit),
        (conversation(), any::<u64>())
            .prop_map(|(conversation, from_epoch)| Request::ReadCommits { conversation, from_epoch }),
        conversation().prop_map(|conversation| Request::ReadGroup { conversation }),
        option::of(conversation()).prop_map(|after| Request::ListConversations { after }),
        some_bytes(300).prop_map(|entry| Request::AppendDeviceLog { entry }),
        Just(Request::ListDevices),
        link().prop_map(|link| Request::FindLink { link }),
        (link(), some_bytes(99)).prop_map(|(link, payload)| Request::AnswerLink { link, payload }),
        (link(), vec(any::<u8>(), 0..99))
            .prop_map(|(link, payload)| Request::FinishLink { link, payload: payload.into() }),
        life_token().prop_map(|next| Request::TakeOver { next }),
        (conversation(), option::of(account()), any::<bool>()).prop_map(|(conversation, after, pending_only)| {
            Request::ReadMemberLogs { conversation, after, pending_only }
        }),
        (conversation(), leave()).prop_map(|(conversation, leave)| Request::LeaveConversation { conversation, leave }),
        people::request(),
    ]
}

fn claimed() -> impl Strategy<Value = KeyPackages> {
    let package = (account(), device(), some_bytes(99)).prop_map(|(account, device, key_package)| DeviceKeyPackage {
        account,
        device,
        key_package,
    });
    (vec(package, 0..=DEVICES_MAX), vec(account(), 0..4))
        .prop_map(|(packages, missing)| KeyPackages { packages, missing })
}

fn device_state() -> impl Strategy<Value = DeviceState> {
    (device(), any::<u64>(), any::<u32>()).prop_map(|(device, last_seen_ms, key_packages_left)| DeviceState {
        device,
        last_seen_ms,
        key_packages_left,
    })
}

fn response() -> impl Strategy<Value = Response> {
    let found = (account(), handle(), vec(some_bytes(99), 0..4), any::<u64>()).prop_map(
        |(account, handle, log_entries, log_length)| AccountFound { account, handle, log_entries, log_length },
    );
    let commits = (0..u64::MAX / 2, vec(some_bytes(99), 0..5), any::<(u64, u64)>()).prop_map(
        |(first, commits, (epoch, first_epoch))| Commits {
            commits: (first..).zip(commits).collect(),
            epoch,
            first_epoch,
        },
    );
    let kind = prop_oneof![Just(ConversationKind::Direct), Just(ConversationKind::Group), Just(ConversationKind::Own)];
    let state = (conversation(), any::<u64>(), vec(account(), 0..4), kind)
        .prop_map(|(conversation, epoch, accounts, kind)| ConversationState { conversation, epoch, accounts, kind });
    let member_logs = (accounts(0..4), handle(), vec(some_bytes(99), 0..4), option::of(leave()), any::<bool>())
        .prop_map(|(accounts, handle, log_entries, leave, more)| {
            let (handle, log_entries, leave) = (&handle, &log_entries, &leave);
            let log = |account| MemberLog {
                account,
                handle: handle.clone(),
                log_entries: log_entries.clone(),
                leave: leave.clone(),
            };
            Response::MemberLogs { logs: accounts.into_iter().map(log).collect(), more }
        });
    prop_oneof![
        refusal(600).prop_map(Response::Refused),
        found.prop_map(Response::Account),
        any::<u32>().prop_map(|left| Response::KeyPackagesStored { left }),
        claimed().prop_map(Response::KeyPackages),
        (conversation(), any::<bool>(), any::<u64>()).prop_map(|(conversation, existed, epoch)| {
            Response::ConversationCreated { conversation, existed, epoch }
        }),
        any::<u64>().prop_map(|epoch| Response::CommitAccepted { epoch }),
        commits.prop_map(Response::Commits),
        (any::<u64>(), some_bytes(99), some_bytes(99)).prop_map(|(epoch, group_info, tree)| Response::Group(Group {
            epoch,
            group_info,
            tree
        })),
        (vec(state, 0..4), any::<bool>())
            .prop_map(|(conversations, more)| Response::Conversations { conversations, more }),
        any::<u64>().prop_map(|log_length| Response::DeviceLogAppended { log_length }),
        vec(device_state(), 0..=DEVICES_MAX).prop_map(Response::Devices),
        some_bytes(99).prop_map(|offer| Response::LinkFound { offer }),
        some_bytes(99).prop_map(|payload| Response::LinkCountersigned { payload }),
        Just(Response::LinkFinished),
        any::<(u64, u64)>()
            .prop_map(|(generation, accepted_counter)| Response::TakenOver { generation, accepted_counter }),
        member_logs,
        Just(Response::ConversationLeft),
        people::response(),
    ]
}

proptest! {
    #[test]
    fn what_the_server_says_comes_back(value in server_frame()) {
        prop_assert_eq!(ServerFrame::decode(frame(|out| value.put(out))), Ok(value));
    }

    #[test]
    fn what_is_delivered_comes_back(value in delivery_frame()) {
        if let DeliveryFrame::Envelope(envelope) = &value {
            prop_assert_eq!(SharedEnvelope::decode(envelope.shared.encode()), Ok(envelope.shared.clone()));
        }
        prop_assert_eq!(DeliveryFrame::decode(frame(|out| value.put(out))), Ok(value));
    }

    #[test]
    fn requests_come_back(value in request()) {
        prop_assert_eq!(Request::decode(frame(|out| value.put(out))), Ok(value));
    }

    #[test]
    fn responses_come_back(value in response()) {
        prop_assert_eq!(Response::decode(frame(|out| value.put(out))), Ok(value));
    }

    #[test]
    fn sends_registers_and_acks_come_back(
        counter in 1..=u64::MAX, conversation in conversation(), epoch: u64, ciphertext in some_bytes(300), silent: bool,
        token in vec(any::<u8>(), 0..99), handle in handle(), root_entry in some_bytes(300), at in position(),
        phone in option::of(people::proof()),
    ) {
        let send = Send { counter, conversation, epoch, ciphertext, silent };
        let read = ClientFrame::decode(frame(|out| put_send(&send, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::Send(again)) if *again == send), "{:?}", read);
        let register = Register { token: token.into(), handle: handle.to_string(), root_entry, phone };
        let read = ClientFrame::decode(frame(|out| put_register(&register, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::Register(again)) if *again == register), "{:?}", read);
        let read = ClientFrame::decode(frame(|out| put_ack(at, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::Ack(again)) if *again == at), "{:?}", read);
    }

    #[test]
    fn a_typing_indicator_comes_back(
        conversation in conversation(), epoch: u64, account in account(), device in device(), sealed in some_bytes(65),
    ) {
        let typing = Typing { conversation, epoch, account, device, sealed };
        let datagram = typing.encode();
        prop_assert!(datagram.len() <= crate::limits::DATAGRAM_BYTES_MAX);
        prop_assert_eq!(Typing::decode(datagram), Ok(typing));
    }

    #[test]
    fn what_is_said_before_the_proof_comes_back(
        link in link(), device in device(), offer in some_bytes(300), reply in some_bytes(300),
        recovery_key: [u8; 32], entry in option::of(some_bytes(300)),
    ) {
        let link = Link { link, device, offer };
        let read = ClientFrame::decode(frame(|out| put_link(&link, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::Link(again)) if *again == link), "{:?}", read);
        let read = ClientFrame::decode(frame(|out| put_link_reply(&reply, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::LinkReply(again)) if *again == reply), "{:?}", read);
        let recover = Recover { recovery_key, entry };
        let read = ClientFrame::decode(frame(|out| put_recover(&recover, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::Recover(again)) if *again == recover), "{:?}", read);
    }

    #[test]
    fn a_code_comes_back(public: [u8; 32], secret: [u8; 16]) {
        let code = LinkCode::new(public, secret);
        prop_assert_eq!(code.to_text().parse(), Ok(code));
    }

    #[test]
    fn arbitrary_bytes_are_no_part_of_a_link_that_breaks_a_reader(bytes in vec(any::<u8>(), 0..200)) {
        let _ = (LinkOffer::decode(&bytes), LinkProposal::decode(&bytes), LinkConsent::decode(&bytes));
        let _ = (LinkBundle::decode(&bytes), AddDraft::read(&bytes), String::from_utf8_lossy(&bytes).parse::<LinkCode>());
    }

    #[test]
    fn arbitrary_bytes_are_no_datagram_that_breaks_a_reader(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Typing::decode(bytes.into());
    }

    #[test]
    fn a_hello_comes_back_and_holds(
        account in account(), device in device(), subscribe: bool, cursor in position(),
        epochs_digest: Option<[u8; 32]>, log_entries: u64, life in option::of(life()), seed: [u8; 32],
        exporter: [u8; 32], push_digest in option::of(people::push_digest()),
    ) {
        let server_name = "chat.example.org".to_owned();
        let claim = HelloClaim {
            server_name, account, device, subscribe, cursor, epochs_digest, log_entries, life, push_digest
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let read = ClientFrame::decode(frame(|out| put_hello(&Hello::sign(&claim, &key, &exporter), out)));
        let Ok(ClientFrame::Hello(hello)) = read else { panic!("{read:?}") };
        prop_assert_eq!(hello.claim(), &claim);
        prop_assert_eq!(hello.verify(&key.verifying_key(), &exporter), Ok(&claim));
    }

    #[test]
    fn arbitrary_payloads_never_panic(kind in 0..FrameKind::ALL.len(), payload in vec(any::<u8>(), 0..200)) {
        let frame = raw_frame(FrameKind::ALL[kind], payload);
        let known = [
            ClientFrame::decode(frame.clone()).map(drop),
            ServerFrame::decode(frame.clone()).map(drop),
            DeliveryFrame::decode(frame.clone()).map(drop),
            Request::decode(frame.clone()).map(drop),
            Response::decode(frame).map(drop),
        ];
        let knows = known.iter().filter(|read| !matches!(read, Err(crate::FrameContentError::Unexpected(_)))).count();
        prop_assert_eq!(knows, 1, "each frame has one stream and one direction");
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_goes_unnoticed_in_a_hello(at: prop::sample::Index, bit in 0..8_u8) {
        let claim = HelloClaim {
            server_name: "127.0.0.1".into(),
            account: AccountId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([2; 16]),
            subscribe: true,
            cursor: Position { seq: 9, count: 4 },
            epochs_digest: Some([3; 32]),
            log_entries: 1,
            life: None,
            push_digest: None,
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let mut payload = Hello::sign(&claim, &key, &[6; 32]).to_vec();
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        if let Ok(hello) = Hello::parse(payload.into()) {
            prop_assert!(hello.verify(&key.verifying_key(), &[6; 32]).is_err());
        }
    }

    #[test]
    fn what_travels_in_groups_comes_back(
        name in vec(any::<char>(), 1..30), admins in accounts(0..9), leaves in vec(leave(), 0..4),
    ) {
        let name = name.into_iter().collect::<String>();
        if let Ok(state) = GroupState::new(name, admins) {
            prop_assert_eq!(GroupState::decode(&state.encode()), Ok(state));
        }
        let attachment = CommitAttachment { leaves };
        prop_assert_eq!(CommitAttachment::decode(&attachment.encode()), Ok(attachment));
    }

    #[test]
    fn arbitrary_bytes_are_no_log_and_no_identity(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(DeviceLog::from_root(&bytes).is_err());
        if let Ok(identity) = LeafIdentity::parse(&bytes) {
            prop_assert_eq!(identity.to_bytes(), bytes.clone());
        }
        let _ = (GroupState::decode(&bytes), CommitAttachment::decode(&bytes), SignedLeave::decode(bytes.into()));
    }

    #[test]
    fn an_address_that_is_read_is_written_and_read_again(text in vec(any::<char>(), 0..40), port: u16, end in 0..4_usize) {
        let text = text.into_iter().collect::<String>();
        let end = ["", "/invite/AQID", "#BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc", "/"][end];
        for text in [format!("gureum://{text}:{port}{end}"), format!("[{text}]{end}"), format!("{text}{end}")] {
            if let Ok(url) = text.parse::<ServerUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
