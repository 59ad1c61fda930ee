//! What a session does with who has proven nothing: a device that waits to be linked, an account to be brought back,
//! a phone number that is to get a code.

use gureum_proto::{LinkId, LogHead, put_link, put_link_reply, put_recover, put_request_code};

use super::*;

const ANSWER: Bytes = Bytes::from_static(b"answer");
const REPLY: Bytes = Bytes::from_static(b"reply");
const BUNDLE: Bytes = Bytes::from_static(b"bundle");

pub(super) fn the_link() -> Link {
    Link { link: LinkId::from_bytes([7; 16]), device: claim().device, offer: Bytes::from_static(b"offer") }
}

pub(super) fn link() -> Input {
    frame(|out| put_link(&the_link(), out))
}

pub(super) fn reply() -> Input {
    frame(|out| put_link_reply(&REPLY, out))
}

fn the_recovery(entry: Option<&'static [u8]>) -> Recover {
    Recover { recovery_key: [9; 32], entry: entry.map(Bytes::from_static) }
}

pub(super) fn recover(entry: Option<&'static [u8]>) -> Input {
    frame(|out| put_recover(&the_recovery(entry), out))
}

pub(super) fn recovering() -> Recovering {
    let head = LogHead { length: 3, hash: [4; 32] };
    Recovering { account: claim().account, handle: "alice".parse().unwrap(), head }
}

fn the_phone() -> Phone {
    "+82 10-1234-5678".parse().unwrap()
}

pub(super) fn request_code() -> Input {
    frame(|out| put_request_code(&the_phone(), out))
}

pub(super) fn code_sent() -> CodeSent {
    CodeSent { expires_ms: 300_000, again_after_ms: 60_000, phone: "+821012345678".parse().unwrap() }
}

/// A session whose device waits.
fn waiting() -> Watched {
    let mut session = session();
    asks(&mut session, link(), &[Action::OfferLink(the_link())]);
    session
}

#[track_caller]
fn says(session: &mut Watched, input: Input, expected: ServerFrame) {
    asks(session, input, &[Action::Say(expected)]);
}

#[test]
fn a_device_waits_is_answered_replies_is_linked_and_proves_itself() {
    let mut session = waiting();
    says(&mut session, Input::LinkAnswered(ANSWER), ServerFrame::LinkAnswer(ANSWER));
    asks(&mut session, reply(), &[Action::ReplyLink(REPLY)]);
    asks(&mut session, Input::LinkLogged, &[]);
    says(&mut session, Input::LinkFinished(BUNDLE), ServerFrame::Linked(BUNDLE));
    let look_up = Action::LookUp { claim: Box::new(claim()) };
    asks(&mut session, hello(&claim(), &key(), &EXPORTER), &[look_up]);
}

#[test]
fn a_device_replies_once_to_each_answer() {
    let mut session = waiting();
    session.handle(Input::LinkAnswered(ANSWER), START_MS);
    session.handle(reply(), START_MS);
    says(&mut session, Input::LinkAnswered(BUNDLE), ServerFrame::LinkAnswer(BUNDLE));
    asks(&mut session, reply(), &[Action::ReplyLink(REPLY)]);
    closes(&mut session, reply(), Code::FrameUnexpected);
    closes(&mut waiting(), reply(), Code::FrameUnexpected);
}

#[test]
fn a_device_that_waits_says_nothing_else() {
    let hello = || hello(&claim(), &key(), &EXPORTER);
    for input in [link(), recover(None), request_code(), register(), hello(), send(1), ack(1, 1)] {
        closes(&mut waiting(), input, Code::FrameUnexpected);
    }
}

#[test]
fn a_device_waits_for_minutes_and_then_for_seconds() {
    let end_ms = START_MS + LINK_MS_MAX;
    let mut session = waiting();
    assert_eq!(session.session.poll_timeout(), Some((end_ms, Deadline::Link)));
    assert_eq!(session.handle(Input::Tick, end_ms - 1), []);
    closes_at(&mut session, Input::Tick, end_ms, Code::LinkGone);

    let mut session = waiting();
    let logged_ms = START_MS + 60_000;
    session.handle(Input::LinkLogged, logged_ms);
    session.handle(Input::LinkLogged, logged_ms + 1);
    let end_ms = logged_ms + LINK_BUNDLE_MS_MAX;
    assert_eq!(session.session.poll_timeout(), Some((end_ms, Deadline::Bundle)), "told twice, it waits no longer");
    assert_eq!(session.handle(Input::Tick, end_ms - 1), []);
    assert_eq!(session.handle(Input::Tick, end_ms), [Action::Say(ServerFrame::Linked(Bytes::new()))]);
    assert_eq!(session.session.poll_timeout(), Some((end_ms + TIMEOUT_MS, Deadline::Proof)), "a proof is due");
    assert_eq!(session.handle(Input::LinkFinished(BUNDLE), end_ms), [], "that comes too late");
}

#[test]
fn a_refused_offer_leaves_the_time_for_the_proof_as_it_was() {
    let mut session = waiting();
    let refusal = Refusal::new(Code::RateLimited);
    says(&mut session, Input::LinkRefused(refusal.clone()), ServerFrame::Refused(refusal));
    assert_eq!(session.session.poll_timeout(), Some((START_MS + TIMEOUT_MS, Deadline::Proof)));
    asks(&mut session, link(), &[Action::OfferLink(the_link())]);
}

#[test]
fn who_does_not_wait_hears_nothing_of_links() {
    for mut session in [session(), idle()] {
        for input in [
            Input::LinkAnswered(ANSWER),
            Input::LinkLogged,
            Input::LinkFinished(BUNDLE),
            Input::LinkRefused(Refusal::new(Code::LinkGone)),
            Input::Recovered(Ok(Recovery::Known(recovering()))),
            Input::CodeSent(Ok(code_sent())),
        ] {
            assert_eq!(session.handle(input, START_MS), []);
        }
    }
}

#[test]
fn an_account_is_known_first_and_then_brought_back() {
    let mut session = session();
    asks(&mut session, recover(None), &[Action::Recover(the_recovery(None))]);
    assert!(!session.session.accepts_frames(), "one at a time");
    says(&mut session, Input::Recovered(Ok(Recovery::Known(recovering()))), ServerFrame::Recovering(recovering()));
    asks(&mut session, recover(Some(b"entry")), &[Action::Recover(the_recovery(Some(b"entry")))]);
    says(&mut session, Input::Recovered(Ok(Recovery::Done(registered()))), ServerFrame::Registered(registered()));
    assert_eq!(session.session.authority(), None, "the entry is no proof of this connection");
}

#[test]
fn a_recovery_is_refused_and_has_the_time_of_a_proof() {
    let mut session = session();
    session.handle(recover(None), START_MS);
    assert_eq!(session.session.poll_timeout(), Some((START_MS + TIMEOUT_MS, Deadline::Proof)));
    let refusal = Refusal::new(Code::RecoveryUnknown);
    says(&mut session, Input::Recovered(Err(refusal.clone())), ServerFrame::Refused(refusal));
    closes_at(&mut session, Input::Tick, START_MS + TIMEOUT_MS, Code::ProofTimeout);
}

#[test]
fn a_code_is_sent_and_then_one_registers() {
    let mut session = session();
    asks(&mut session, request_code(), &[Action::RequestCode(the_phone())]);
    assert!(!session.session.accepts_frames(), "one at a time");
    says(&mut session, Input::CodeSent(Ok(code_sent())), ServerFrame::CodeSent(code_sent()));
    assert_eq!(session.handle(register(), START_MS).len(), 1);
    asks(&mut session, Input::CodeSent(Ok(code_sent())), &[]);
}

#[test]
fn a_code_may_be_asked_for_again_and_be_refused() {
    let mut session = session();
    let refusal = Refusal::new(Code::RateLimited).retry_after_ms(60_000);
    for _ in 0..2 {
        asks(&mut session, request_code(), &[Action::RequestCode(the_phone())]);
        says(&mut session, Input::CodeSent(Err(refusal.clone())), ServerFrame::Refused(refusal.clone()));
    }
    asks(&mut session, request_code(), &[Action::RequestCode(the_phone())]);
    says(&mut session, Input::CodeSent(Ok(code_sent())), ServerFrame::CodeSent(code_sent()));
}

#[test]
fn a_code_has_the_time_of_a_proof() {
    let mut session = session();
    session.handle(request_code(), START_MS);
    assert_eq!(session.session.poll_timeout(), Some((START_MS + TIMEOUT_MS, Deadline::Proof)));
    closes_at(&mut session, Input::Tick, START_MS + TIMEOUT_MS, Code::ProofTimeout);
}

#[test]
fn nothing_of_this_is_for_who_has_proven_itself() {
    for input in [link(), reply(), recover(None), request_code()] {
        closes(&mut idle(), input, Code::FrameUnexpected);
    }
}
