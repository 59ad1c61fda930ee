//! The bounds of what is said about push targets, phone numbers and relations.

use super::*;
use crate::convert::schema::push_target::Address;
use crate::convert::schema::request::Kind;
use crate::convert::schema::response::Kind as Answer;
use crate::limits::{
    APNS_TOKEN_BYTES_MAX, APNS_TOKEN_BYTES_MIN, PHONE_BYTES_MAX, PHONE_REST_BYTES_MIN, PREFERENCES_PAGE,
    PUSH_ENDPOINT_BYTES_MAX, PUSH_TOKEN_BYTES_MAX, RELATIONS_PAGE,
};

const PHONE: &str = "+821012345678";

/// A field of a fixed length that may be left out.
#[track_caller]
fn exactly_or_empty(exact: usize, what: &'static str, read: impl Fn(Bytes) -> Result<(), PayloadError>) {
    for bytes in [0, exact] {
        assert_eq!(read(long(bytes)), Ok(()), "{bytes} bytes");
    }
    for bytes in [1, exact - 1, exact + 1] {
        assert_eq!(read(long(bytes)), Err(PayloadError::Invalid(what)), "{bytes} bytes");
    }
}

/// A phone number, wherever it stands.
#[track_caller]
fn a_phone(read: impl Fn(String) -> Result<(), PayloadError>) {
    let number = |digits| format!("+{}", "1".repeat(digits));
    for text in [PHONE.to_owned(), number(PHONE_REST_BYTES_MIN), number(PHONE_BYTES_MAX - 1)] {
        assert_eq!(read(text.clone()), Ok(()), "{text}");
    }
    for text in ["821012345678".to_owned(), number(PHONE_REST_BYTES_MIN - 1), number(PHONE_BYTES_MAX)] {
        assert_eq!(read(text.clone()), Err(PayloadError::Invalid("phone number")), "{text}");
    }
}

/// Number, code and lock, wherever they stand together.
#[track_caller]
fn a_proof(read: impl Fn(String, String, Bytes) -> Result<(), PayloadError>) {
    let code = || "123456".to_owned();
    a_phone(|phone| read(phone, code(), Bytes::new()));
    for wrong in ["", "12345", "1234567", "12345a"] {
        let expected = Err(PayloadError::Invalid("code"));
        assert_eq!(read(PHONE.to_owned(), wrong.to_owned(), Bytes::new()), expected, "{wrong}");
    }
    exactly_or_empty(32, "lock", |lock| read(PHONE.to_owned(), code(), lock));
}

fn set_target(address: Option<Address>) -> Result<(), PayloadError> {
    let target = Some(schema::PushTarget { address, visible: true });
    request(Kind::SetPushTarget(schema::SetPushTarget { target }))
}

#[test]
fn push_targets_keep_their_bounds() {
    assert_eq!(
        request(Kind::SetPushTarget(schema::SetPushTarget { target: None })),
        Err(PayloadError::Missing("push target"))
    );
    assert_eq!(set_target(None), Err(PayloadError::Missing("push address")));
    let apns = |bytes| set_target(Some(Address::Apns(schema::ApnsAddress { token: long(bytes), sandbox: true })));
    for (bytes, is_taken) in [
        (APNS_TOKEN_BYTES_MIN - 1, false),
        (APNS_TOKEN_BYTES_MIN, true),
        (APNS_TOKEN_BYTES_MAX, true),
        (APNS_TOKEN_BYTES_MAX + 1, false),
    ] {
        let expected = if is_taken { Ok(()) } else { Err(PayloadError::Invalid("APNs token")) };
        assert_eq!(apns(bytes), expected, "{bytes} bytes");
    }
    let fcm = |token: String| set_target(Some(Address::Fcm(schema::FcmAddress { token })));
    assert_eq!(fcm("a".repeat(PUSH_TOKEN_BYTES_MAX)), Ok(()));
    for token in [String::new(), "a b".to_owned(), "a".repeat(PUSH_TOKEN_BYTES_MAX + 1)] {
        assert_eq!(fcm(token), Err(PayloadError::Invalid("FCM token")));
    }
    let full = || schema::WebPushAddress { endpoint: "https://a/b".into(), p256dh: long(65), auth: long(16) };
    let web = |address| set_target(Some(Address::WebPush(address)));
    assert_eq!(web(full()), Ok(()));
    for bytes in [0, 64, 66] {
        let p256dh = web(schema::WebPushAddress { p256dh: long(bytes), ..full() });
        assert_eq!(p256dh, Err(PayloadError::Invalid("p256dh key")), "{bytes} bytes");
    }
    for bytes in [0, 15, 17] {
        let auth = web(schema::WebPushAddress { auth: long(bytes), ..full() });
        assert_eq!(auth, Err(PayloadError::Invalid("auth secret")), "{bytes} bytes");
    }
    let endpoint = |bytes: usize| format!("https://a/{}", "b".repeat(bytes - 10));
    let at = |endpoint: String| web(schema::WebPushAddress { endpoint, ..full() });
    assert_eq!(at(endpoint(PUSH_ENDPOINT_BYTES_MAX)), Ok(()));
    for endpoint in [endpoint(PUSH_ENDPOINT_BYTES_MAX + 1), String::new(), "http://a/b".to_owned()] {
        assert_eq!(at(endpoint), Err(PayloadError::Invalid("push endpoint")));
    }
}

#[test]
fn what_names_a_push_target_by_its_digest_keeps_its_bounds() {
    exactly_or_empty(16, "push digest", |push_digest| read_hello(&schema::HelloClaim { push_digest, ..claim() }));
    let offer = |offer| response(Answer::Push(offer));
    exactly_or_empty(16, "push digest", |target_digest| {
        offer(schema::PushOffer { target_digest, ..Default::default() })
    });
    exactly_or_empty(65, "VAPID key", |vapid_key| offer(schema::PushOffer { vapid_key, ..Default::default() }));
    let of = |services: &[i32]| offer(schema::PushOffer { services: services.to_vec(), ..Default::default() });
    assert_eq!(of(&[]), Ok(()));
    assert_eq!(of(&[1, 2, 3]), Ok(()));
    assert_eq!(of(&[1, 3, 9]), Ok(()), "one of a later version is passed over");
    assert_eq!(of(&[0]), Err(PayloadError::Invalid("push service")));
    for services in [[2, 1], [2, 2]] {
        assert_eq!(of(&services), Err(PayloadError::Invalid("order of push services")));
    }
}

#[test]
fn what_is_said_of_phone_numbers_keeps_its_bounds() {
    a_phone(|phone| client(FrameKind::RequestCode, &schema::RequestCode { phone }));
    a_phone(|phone| request(Kind::RequestCode(schema::RequestCode { phone })));
    let by = |phone| Some(schema::find_account::By::Phone(phone));
    a_phone(|phone| request(Kind::FindAccount(schema::FindAccount { by: by(phone), log_from: 0 })));
    let sent = |phone| schema::CodeSent { expires_ms: u64::MAX, again_after_ms: u64::MAX, phone };
    a_phone(|phone| server(FrameKind::CodeSent, &sent(phone)));
    a_phone(|phone| response(Answer::CodeSent(sent(phone))));
    let notice = schema::PhoneNotice { moved_ms: u64::MAX, tried_ms: u64::MAX };
    assert_eq!(server(FrameKind::PhoneNotice, &notice), Ok(()));

    exactly_or_empty(32, "lock", |lock| request(Kind::SetLock(schema::SetLock { lock })));
    let delete = |handle: &str| request(Kind::DeleteAccount(schema::DeleteAccount { handle: handle.to_owned() }));
    assert_eq!(delete("alice"), Ok(()));
    assert_eq!(delete(""), Err(PayloadError::Invalid("handle")));
}

#[test]
fn a_register_has_all_of_a_phones_proof_or_none() {
    let plain = || schema::Register { handle: "alice".into(), root_entry: long(1), ..Default::default() };
    let read = |message: schema::Register| client(FrameKind::Register, &message);
    a_proof(|phone, code, lock| read(schema::Register { phone, code, lock, ..plain() }));
    assert_eq!(read(plain()), Ok(()));
    for part in [
        schema::Register { code: "123456".into(), ..plain() },
        schema::Register { lock: long(32), ..plain() },
        schema::Register { findable: true, ..plain() },
    ] {
        assert_eq!(read(part), Err(PayloadError::Invalid("phone number")));
    }
}

#[test]
fn a_phone_changes_in_one_of_three_ways() {
    let set = |set: schema::SetPhone| request(Kind::SetPhone(set));
    let change = |change| schema::SetPhone { change, ..schema::SetPhone::default() };
    a_proof(|phone, code, lock| set(schema::SetPhone { phone, code, lock, ..change(1) }));
    for bare in [change(2), schema::SetPhone { findable: true, ..change(2) }, change(3)] {
        assert_eq!(set(bare), Ok(()));
    }
    for more in [
        change(0),
        change(4),
        schema::SetPhone { phone: PHONE.into(), ..change(2) },
        schema::SetPhone { code: "123456".into(), ..change(2) },
        schema::SetPhone { lock: long(32), ..change(3) },
        schema::SetPhone { findable: true, ..change(3) },
    ] {
        assert_eq!(set(more), Err(PayloadError::Invalid("phone change")));
    }
}

#[test]
fn what_is_said_of_people_and_conversations_keeps_its_bounds() {
    let muted_until_ms = u64::MAX;
    an_id("conversation", |conversation| {
        request(Kind::SetConversation(schema::SetConversation { conversation, accepted: true, muted_until_ms }))
    });
    let set = |account, relation| request(Kind::SetRelation(schema::SetRelation { account, relation }));
    an_id("account", |account| set(account, 1));
    for relation in [0, 4] {
        assert_eq!(set(id(), relation), Err(PayloadError::Invalid("relation")));
    }
    let read = |after| request(Kind::ReadRelations(schema::ReadRelations { after }));
    exactly_or_empty(16, "account", read);

    let state = |account: Bytes, relation| schema::RelationState { account, relation };
    let page = |relations| response(Answer::Relations(schema::Relations { relations, more: true }));
    an_id("account", |account| page(vec![state(account, 2)]));
    for relation in [0, 1, 4] {
        assert_eq!(page(vec![state(id(), relation)]), Err(PayloadError::Invalid("relation")));
    }
    let twice = page(vec![state(id(), 2), state(id(), 3)]);
    assert_eq!(twice, Err(PayloadError::Invalid("order of accounts")));
    let many = |count: usize| {
        let account = |number: usize| Bytes::from(u128::try_from(number).unwrap().to_be_bytes().to_vec());
        page((0..count).map(|number| state(account(number), 3)).collect())
    };
    assert_eq!(many(RELATIONS_PAGE), Ok(()));
    assert_eq!(many(RELATIONS_PAGE + 1), Err(PayloadError::TooLong("page of relations")));
}

#[test]
fn pages_of_preferences() {
    exactly_or_empty(16, "conversation", |after| request(Kind::ReadPreferences(schema::ReadPreferences { after })));
    let state =
        |conversation: Bytes| schema::PreferenceState { conversation, accepted: true, muted_until_ms: u64::MAX };
    let page = |preferences| response(Answer::Preferences(schema::Preferences { preferences, more: true }));
    an_id("conversation", |conversation| page(vec![state(conversation)]));
    assert_eq!(page(vec![state(id()), state(id())]), Err(PayloadError::Invalid("order of conversations")));
    let many = |count: usize| {
        let conversation = |number: usize| Bytes::from(u128::try_from(number).unwrap().to_be_bytes().to_vec());
        page((0..count).map(|number| state(conversation(number))).collect())
    };
    assert_eq!(many(PREFERENCES_PAGE), Ok(()));
    assert_eq!(many(PREFERENCES_PAGE + 1), Err(PayloadError::TooLong("page of preferences")));
}
