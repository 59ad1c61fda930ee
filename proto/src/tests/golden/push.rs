//! The bytes of what is said about push targets, and about whom an account wants to hear of.

use super::*;
use crate::{Preference, PushAddress, PushDigest, PushOffer, PushService, PushTarget, Relation};

#[test]
fn a_hello_that_wants_a_push_target_has_these_bytes() {
    let claim = HelloClaim { push_digest: Some(PushDigest::from_bytes([0x73; 16])), ..claim() };
    let hello = Hello::sign(&claim, &ed25519_dalek::SigningKey::from_bytes(&[5; 32]), &[6; 32]);
    let read = client(
        |out| put_hello(&hello, out),
        "0140b80a74080110011a0867757265756d2f312203612e622a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a13210d1d1d1d1\
         d1d1d1d1d1d1d1d1d1d1d1d1380140ac0248025220e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1\
         e1e1e1e1e158037a1073737373737373737373737373737373124058343753f67a2e11efa9415b46490ca53be4f8a965\
         a287401ec3a241d8684fb47eb87fe7199ec8ca84ee1c48278dd12c65eb6f67e24cfa7ed6db2b9a1847680e",
    );
    assert!(matches!(read, ClientFrame::Hello(hello) if *hello.claim() == claim));
}

#[test]
fn requests_about_push_have_these_bytes() {
    let set = |address, visible| Request::SetPushTarget(PushTarget { address, visible });
    let token = Bytes::from_static(&[0x70; 32]);
    request(
        set(PushAddress::Apns { token: token.clone(), sandbox: false }, true),
        "202b8201280a260a220a2070707070707070707070707070707070707070707070707070707070707070702001",
    );
    request(
        set(PushAddress::Apns { token, sandbox: true }, false),
        "202b8201280a260a240a2070707070707070707070707070707070707070707070707070707070707070701001",
    );
    request(set(PushAddress::Fcm { token: "token".into() }, true), "201082010d0a0b12070a05746f6b656e2001");
    let endpoint = "https://push.example.org/a".to_owned();
    request(
        set(PushAddress::WebPush { endpoint, p256dh: [4; 65], auth: [5; 16] }, true),
        "20407a8201770a751a710a1a68747470733a2f2f707573682e6578616d706c652e6f72672f6112410404040404040404\
         040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404040404\
         0404040404040404041a10050505050505050505050505050505052001",
    );
    request(Request::RemovePushTarget, "20038a0100");
    request(Request::ReadPush, "2003920100");
}

#[test]
fn requests_about_people_and_conversations_have_these_bytes() {
    request(
        Request::SetConversation { conversation: CONVERSATION, accepted: true, muted_until_ms: 0 },
        "20179a01140a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c11001",
    );
    request(
        Request::SetConversation { conversation: CONVERSATION, accepted: false, muted_until_ms: u64::MAX },
        "20209a011d0a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c118ffffffffffffffffff01",
    );
    request(
        Request::SetRelation { account: ACCOUNT, relation: Relation::None },
        "2017aa01140a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11001",
    );
    request(
        Request::SetRelation { account: ACCOUNT, relation: Relation::Accepted },
        "2017aa01140a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11002",
    );
    request(
        Request::SetRelation { account: ACCOUNT, relation: Relation::Blocked },
        "2017aa01140a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a11003",
    );
    request(Request::ReadRelations { after: None }, "2003d20100");
    request(Request::ReadRelations { after: Some(ACCOUNT) }, "2015d201120a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1");
    request(Request::ReadPreferences { after: None }, "2003da0100");
    request(Request::ReadPreferences { after: Some(CONVERSATION) }, "2015da01120a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1");
}

#[test]
fn responses_about_push_and_people_have_these_bytes() {
    response(Response::Done, "2103920100");
    response(Response::Push(PushOffer::default()), "21038a0100");
    let target = Some(PushDigest::from_bytes([0x73; 16]));
    response(
        Response::Push(PushOffer { services: PushService::ALL.to_vec(), vapid_key: Some([4; 65]), target }),
        "21405d8a015a0a0301020312410404040404040404040404040404040404040404040404040404040404040404040404\
         0404040404040404040404040404040404040404040404040404040404041a1073737373737373737373737373737373",
    );
    let relations = vec![(ACCOUNT, Relation::Accepted), (OTHER, Relation::Blocked)];
    response(
        Response::Relations { relations, more: true },
        "2131a2012e0a140a10a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a110020a140a10b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b110\
         031001",
    );
    response(Response::Relations { relations: vec![], more: false }, "2103a20100");
    let muted = Preference { accepted: false, muted_until_ms: 300 };
    let accepted = Preference { accepted: true, muted_until_ms: 0 };
    let preferences = vec![(CONVERSATION, accepted), (ConversationId::from_bytes([0xc2; 16]), muted)];
    response(
        Response::Preferences { preferences, more: true },
        "2132b2012f0a140a10c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c110010a150a10c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c218\
         ac021001",
    );
    response(Response::Preferences { preferences: vec![], more: false }, "2103b20100");
}
