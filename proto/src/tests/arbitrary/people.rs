//! Arbitrary push targets, phone numbers and relations.

use super::*;
use crate::{
    CodeSent, LockSecret, Phone, PhoneChange, PhoneNotice, PhoneProof, Preference, PushAddress, PushDigest, PushOffer,
    PushService, PushTarget, Relation, put_request_code,
};

pub(super) fn phone() -> impl Strategy<Value = Phone> {
    let marks = b"0123456789 ()./-";
    vec(0..marks.len(), 4..32).prop_map(move |rest| {
        let rest: String = rest.into_iter().map(|at| char::from(marks[at])).collect();
        format!("+{rest}").parse().unwrap()
    })
}

fn lock() -> impl Strategy<Value = Option<LockSecret>> {
    option::of(any::<[u8; 32]>().prop_map(LockSecret::from_bytes))
}

pub(super) fn proof() -> impl Strategy<Value = PhoneProof> {
    (phone(), 0..1_000_000_u32, lock(), any::<bool>()).prop_map(|(phone, code, lock, findable)| {
        let code = format!("{code:06}").parse().unwrap();
        PhoneProof { phone, code, lock, findable }
    })
}

pub(super) fn phone_notice() -> impl Strategy<Value = PhoneNotice> {
    any::<(u64, u64)>().prop_map(|(moved_ms, tried_ms)| PhoneNotice { moved_ms, tried_ms })
}

pub(super) fn code_sent() -> impl Strategy<Value = CodeSent> {
    (any::<(u64, u64)>(), phone()).prop_map(|((expires_ms, again_after_ms), phone)| CodeSent {
        expires_ms,
        again_after_ms,
        phone,
    })
}

pub(super) fn push_digest() -> impl Strategy<Value = PushDigest> {
    any::<[u8; 16]>().prop_map(PushDigest::from_bytes)
}

/// So many characters that leave ink on paper.
fn graphic(count: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    vec(0x21..=0x7e_u8, count).prop_map(|text| text.into_iter().map(char::from).collect())
}

fn push_target() -> impl Strategy<Value = PushTarget> {
    let apns = (vec(any::<u8>(), 8..=100), any::<bool>())
        .prop_map(|(token, sandbox)| PushAddress::Apns { token: token.into(), sandbox });
    let fcm = graphic(1..300).prop_map(|token| PushAddress::Fcm { token });
    let web = (graphic(0..300), any::<u8>(), any::<[u8; 16]>()).prop_map(|(path, key, auth)| {
        let endpoint = format!("https://push.example.org/{}", path.replace('#', ""));
        PushAddress::WebPush { endpoint, p256dh: [key; 65], auth }
    });
    (prop_oneof![apns, fcm, web], any::<bool>()).prop_map(|(address, visible)| PushTarget { address, visible })
}

fn relation() -> impl Strategy<Value = Relation> {
    prop_oneof![Just(Relation::None), Just(Relation::Accepted), Just(Relation::Blocked)]
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let change = prop_oneof![
        proof().prop_map(PhoneChange::Set),
        any::<bool>().prop_map(PhoneChange::Findable),
        Just(PhoneChange::Remove),
    ];
    prop_oneof![
        push_target().prop_map(Request::SetPushTarget),
        Just(Request::RemovePushTarget),
        Just(Request::ReadPush),
        (conversation(), any::<bool>(), any::<u64>()).prop_map(|(conversation, accepted, muted_until_ms)| {
            Request::SetConversation { conversation, accepted, muted_until_ms }
        }),
        (account(), relation()).prop_map(|(account, relation)| Request::SetRelation { account, relation }),
        prop_oneof![
            option::of(account()).prop_map(|after| Request::ReadRelations { after }),
            option::of(conversation()).prop_map(|after| Request::ReadPreferences { after }),
        ],
        phone().prop_map(Request::RequestCode),
        change.prop_map(Request::SetPhone),
        lock().prop_map(Request::SetLock),
        handle().prop_map(|handle| Request::DeleteAccount { handle }),
    ]
}

pub(super) fn response() -> impl Strategy<Value = Response> {
    let services = any::<[bool; 3]>().prop_map(|offered| {
        let all = PushService::ALL.into_iter().zip(offered);
        all.filter_map(|(service, is_offered)| is_offered.then_some(service)).collect::<Vec<_>>()
    });
    let key = option::of(any::<u8>().prop_map(|byte| [byte; 65]));
    let offer = (services, key, option::of(push_digest())).prop_map(|(services, vapid_key, target)| PushOffer {
        services,
        vapid_key,
        target,
    });
    let relations = (accounts(0..9), any::<bool>(), any::<bool>()).prop_map(|(accounts, is_first_blocked, more)| {
        let relation = |at: usize| match at.is_multiple_of(2) == is_first_blocked {
            true => Relation::Blocked,
            false => Relation::Accepted,
        };
        let relations = accounts.into_iter().enumerate().map(|(at, account)| (account, relation(at))).collect();
        Response::Relations { relations, more }
    });
    prop_oneof![
        offer.prop_map(Response::Push),
        Just(Response::Done),
        code_sent().prop_map(Response::CodeSent),
        relations,
        preferences(),
    ]
}

fn preferences() -> impl Strategy<Value = Response> {
    let preference = (any::<bool>(), any::<u64>());
    let preference = preference.prop_map(|(accepted, muted_until_ms)| Preference { accepted, muted_until_ms });
    let preferences = proptest::collection::btree_map(conversation(), preference, 0..9);
    (preferences, any::<bool>()).prop_map(|(preferences, more)| {
        let preferences = preferences.into_iter().collect();
        Response::Preferences { preferences, more }
    })
}

proptest! {
    #[test]
    fn a_request_for_a_code_comes_back(phone in phone()) {
        let read = ClientFrame::decode(frame(|out| put_request_code(&phone, out)));
        prop_assert!(matches!(&read, Ok(ClientFrame::RequestCode(again)) if *again == phone), "{:?}", read);
    }

    #[test]
    fn a_push_target_comes_back_with_the_same_digest(target in push_target()) {
        let again = PushTarget::decode(&target.encode());
        prop_assert_eq!(again.as_ref().map(PushTarget::digest), Ok(target.digest()));
        prop_assert_eq!(again, Ok(target));
    }

    #[test]
    fn arbitrary_bytes_are_no_push_target_that_breaks_a_reader(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(target) = PushTarget::decode(&bytes) {
            prop_assert_eq!(target.check(), Ok(()));
        }
    }

    #[test]
    fn arbitrary_text_is_no_endpoint_number_or_code_that_breaks_a_reader(text in vec(any::<char>(), 0..40)) {
        let text = text.into_iter().collect::<String>();
        for endpoint in [format!("https://{text}"), format!("http://[{text}]/"), text.clone()] {
            let address = PushAddress::WebPush { endpoint, p256dh: [4; 65], auth: [5; 16] };
            let _ = PushTarget { address, visible: true }.check();
        }
        let _ = (text.parse::<Phone>(), format!("+{text}").parse::<Phone>(), text.parse::<crate::Otp>());
    }
}
