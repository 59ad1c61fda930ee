//! A link brings one device that waits together with one that answers, and is over in time.

use std::net::Ipv4Addr;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const OFFER: Bytes = Bytes::from_static(b"offer");
const ANSWER: Bytes = Bytes::from_static(b"answer");
const REPLY: Bytes = Bytes::from_static(b"reply");
const BUNDLE: Bytes = Bytes::from_static(b"bundle");
const NEW: DeviceId = DeviceId::from_bytes([2; 16]);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Answered(Bytes),
    Logged,
    Finished(Bytes),
    Displaced,
}

/// A connection that notes what it is told.
#[derive(Default)]
struct Ear(Mutex<Vec<Told>>);

impl Ear {
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn note(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }
}

impl LinkListener for Ear {
    fn answered(&self, payload: Bytes) {
        self.note(Told::Answered(payload));
    }

    fn logged(&self) {
        self.note(Told::Logged);
    }

    fn finished(&self, payload: Bytes) {
        self.note(Told::Finished(payload));
    }

    fn displaced(&self) {
        self.note(Told::Displaced);
    }
}

fn link(number: u16) -> LinkId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    LinkId::from_bytes(bytes)
}

fn address(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(192, 0, high, low).into()
}

fn of(account: u8, device: u8) -> Authenticated {
    Authenticated::for_test(AccountId::from_bytes([account; 16]), DeviceId::from_bytes([device; 16]))
}

/// The device that answers.
fn old() -> Authenticated {
    of(1, 1)
}

fn offers(linking: &Arc<Linking>, number: u16, offer: Bytes, now_ms: u64) -> (Result<Offered, Refusal>, Arc<Ear>) {
    let ear = Arc::<Ear>::default();
    let listener: Arc<dyn LinkListener> = Arc::<Ear>::clone(&ear);
    let link = Link { link: link(number), device: NEW, offer };
    (linking.offer(link, address(1), listener, now_ms), ear)
}

fn code<T>(result: Result<T, Refusal>) -> Option<Code> {
    result.err().map(|refusal| refusal.code)
}

/// One device waits under the link 1.
fn one() -> (Arc<Linking>, Offered, Arc<Ear>) {
    let linking = Arc::<Linking>::default();
    let (offered, ear) = offers(&linking, 1, OFFER, NOW_MS);
    (linking, offered.ok().unwrap(), ear)
}

#[test]
fn a_device_is_found_answered_heard_logged_and_handed_what_it_needs() {
    let (linking, offered, ear) = one();
    assert_eq!(linking.find(link(1), NOW_MS), Ok(OFFER));
    let mut reply = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    assert_eq!(ear.told(), [Told::Answered(ANSWER)]);
    offered.reply(REPLY);
    assert_eq!(reply.try_recv(), Ok(REPLY));
    assert_eq!(code(linking.finish(link(1), old(), BUNDLE, NOW_MS)), Some(Code::LogInvalid), "not before it is added");
    linking.logged(old().account(), NEW, NOW_MS);
    linking.logged(old().account(), NEW, NOW_MS);
    assert_eq!(ear.told(), [Told::Logged]);
    assert_eq!(linking.finish(link(1), old(), BUNDLE, NOW_MS), Ok(()));
    assert_eq!(linking.finish(link(1), old(), BUNDLE, NOW_MS), Ok(()), "a repetition");
    assert_eq!(ear.told(), [Told::Finished(BUNDLE)]);
    linking.proven(NEW);
    assert_eq!(code(linking.find(link(1), NOW_MS)), Some(Code::LinkGone));
}

#[test]
fn one_device_answers_and_may_answer_again() {
    let (linking, offered, ear) = one();
    let mut first = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    for other in [of(1, 9), of(9, 1)] {
        assert_eq!(code(linking.answer(link(1), other, ANSWER, NOW_MS)), Some(Code::LinkGone));
        assert_eq!(code(linking.finish(link(1), other, BUNDLE, NOW_MS)), Some(Code::LinkGone));
    }
    let mut second = linking.answer(link(1), old(), Bytes::from_static(b"again"), NOW_MS).unwrap();
    assert_eq!(ear.told(), [Told::Answered(ANSWER), Told::Answered(Bytes::from_static(b"again"))]);
    assert!(first.try_recv().is_err(), "nobody replies to what was replaced");
    offered.reply(REPLY);
    offered.reply(Bytes::from_static(b"twice"));
    assert_eq!(second.try_recv(), Ok(REPLY));
    linking.logged(old().account(), NEW, NOW_MS);
    assert_eq!(code(linking.answer(link(1), old(), ANSWER, NOW_MS)), Some(Code::LinkGone), "it is added");
}

#[test]
fn another_device_of_the_account_answers_once_the_first_is_revoked() {
    let (linking, offered, ear) = one();
    let mut first = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    for (account, device) in [(9, 1), (1, 9)] {
        linking.revoked(of(account, device).account(), of(account, device).device(), NOW_MS);
    }
    assert_eq!(code(linking.answer(link(1), of(1, 9), ANSWER, NOW_MS)), Some(Code::LinkGone), "others were revoked");
    linking.revoked(old().account(), old().device(), NOW_MS);
    assert!(matches!(first.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "who was revoked waits no more");
    ear.told();
    let (_again, newer) = offers(&linking, 1, OFFER, NOW_MS);
    assert_eq!(newer.told(), [], "what a revoked device says is not said again");
    for other in [old(), of(9, 9)] {
        assert_eq!(code(linking.answer(link(1), other, ANSWER, NOW_MS)), Some(Code::LinkGone), "{other:?}");
    }
    let _reply = linking.answer(link(1), of(1, 9), Bytes::from_static(b"another"), NOW_MS).unwrap();
    assert_eq!(newer.told(), [Told::Answered(Bytes::from_static(b"another"))]);
    linking.logged(old().account(), NEW, NOW_MS);
    assert_eq!(linking.finish(link(1), of(1, 9), BUNDLE, NOW_MS), Ok(()));
    drop(offered);
}

#[test]
fn a_revocation_takes_nothing_from_a_device_that_is_added() {
    let (linking, _offered, ear) = one();
    let _reply = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    linking.logged(old().account(), NEW, NOW_MS);
    linking.revoked(old().account(), old().device(), NOW_MS);
    assert_eq!(linking.finish(link(1), old(), BUNDLE, NOW_MS), Ok(()), "what was on its way still comes");
    assert_eq!(ear.told(), [Told::Answered(ANSWER), Told::Logged, Told::Finished(BUNDLE)]);
}

#[test]
fn another_device_of_the_account_answers_where_the_first_has_said_nothing_more_for_long() {
    let (linking, _offered, _) = one();
    let until_ms = NOW_MS + LINK_ANSWER_MS_MAX;
    let _first = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    let other = of(1, 9);
    assert_eq!(code(linking.answer(link(1), other, ANSWER, until_ms - 1)), Some(Code::LinkGone));
    assert_eq!(code(linking.answer(link(1), of(9, 9), ANSWER, until_ms)), Some(Code::LinkGone), "another account");
    let _second = linking.answer(link(1), other, ANSWER, until_ms).unwrap();
    assert_eq!(code(linking.answer(link(1), old(), ANSWER, until_ms)), Some(Code::LinkGone), "it is the other's now");
    assert_eq!(code(linking.finish(link(1), old(), BUNDLE, until_ms)), Some(Code::LinkGone));
}

#[test]
fn a_device_that_comes_back_is_told_how_far_it_has_come() {
    let (linking, offered, ear) = one();
    let _reply = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    let (again, newer) = offers(&linking, 1, OFFER, NOW_MS);
    assert_eq!(ear.told(), [Told::Answered(ANSWER), Told::Displaced]);
    assert_eq!(newer.told(), [Told::Answered(ANSWER)]);
    drop(offered);
    linking.logged(old().account(), NEW, NOW_MS);
    assert_eq!(newer.told(), [Told::Logged], "the older connection has taken nothing with it");
    drop(again);
    linking.finish(link(1), old(), BUNDLE, NOW_MS).unwrap();
    assert_eq!(newer.told(), []);
    let (_again, newest) = offers(&linking, 1, Bytes::from_static(b"another"), NOW_MS);
    assert_eq!(newest.told(), [Told::Finished(BUNDLE)]);
}

#[test]
fn an_offer_that_changes_takes_the_answer_to_the_older_one_with_it() {
    let (linking, _offered, _) = one();
    let mut reply = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    let another = Bytes::from_static(b"another");
    let (_again, newer) = offers(&linking, 1, another.clone(), NOW_MS);
    assert_eq!(newer.told(), []);
    assert_eq!(linking.find(link(1), NOW_MS), Ok(another));
    assert!(matches!(reply.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    assert!(linking.answer(link(1), of(9, 9), ANSWER, NOW_MS).is_ok(), "it is free again");
}

#[test]
fn another_device_does_not_wait_under_the_same_code() {
    let (linking, _offered, ear) = one();
    let intruder = Link { link: link(1), device: DeviceId::from_bytes([3; 16]), offer: OFFER };
    let listener: Arc<dyn LinkListener> = Arc::<Ear>::default();
    assert_eq!(code(linking.offer(intruder, address(2), listener, NOW_MS)), Some(Code::LinkGone));
    assert_eq!(ear.told(), []);
}

#[test]
fn a_link_is_over_in_time_unless_its_device_comes_back() {
    let (linking, _offered, _) = one();
    let end_ms = NOW_MS + LINK_MS_MAX;
    assert_eq!(linking.find(link(1), end_ms - 1), Ok(OFFER));
    let (_again, _ear) = offers(&linking, 1, OFFER, end_ms - 1);
    assert_eq!(linking.find(link(1), end_ms), Ok(OFFER));
    let mut reply = linking.answer(link(1), old(), ANSWER, end_ms).unwrap();
    assert_eq!(code(linking.find(link(1), end_ms + LINK_MS_MAX)), Some(Code::LinkGone));
    assert!(matches!(reply.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "who waits learns of the end");
}

#[test]
fn a_server_that_stops_keeps_nobody_waiting_for_a_reply() {
    let (linking, offered, _) = one();
    let mut reply = linking.answer(link(1), old(), ANSWER, NOW_MS).unwrap();
    linking.end();
    assert!(matches!(reply.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    offered.reply(REPLY);
}

#[test]
fn so_many_wait_in_all_and_of_each_address() {
    let linking = Arc::<Linking>::default();
    let mut waiting = Vec::new();
    let full = u16::try_from(LINKS_MAX).unwrap();
    let per_address = u16::try_from(LINKS_PER_ADDRESS_MAX).unwrap();
    let offer = |number: u16, from: u16| {
        let link = Link { link: link(number), device: NEW, offer: OFFER };
        linking.offer(link, address(from), Arc::<Ear>::default(), NOW_MS)
    };
    for number in 0..full {
        waiting.push(offer(number, number / per_address).ok().unwrap());
        if number == per_address - 1 {
            assert_eq!(code(offer(full, 0)), Some(Code::RateLimited), "enough of this address");
        }
    }
    assert_eq!(code(offer(full, full)), Some(Code::RateLimited));
    assert!(offer(7, 0).is_ok(), "one that waits may come back");
}

#[test]
fn one_account_answers_so_many() {
    let linking = Arc::<Linking>::default();
    let last = u16::try_from(LINKS_PER_ACCOUNT_MAX).unwrap();
    let waiting: Vec<_> = (0..=last).map(|number| offers(&linking, number, OFFER, NOW_MS)).collect();
    let replies: Vec<_> =
        (0..last).map(|number| linking.answer(link(number), old(), ANSWER, NOW_MS).unwrap()).collect();
    assert_eq!(code(linking.answer(link(last), of(1, 7), ANSWER, NOW_MS)), Some(Code::RateLimited));
    assert!(linking.answer(link(0), old(), ANSWER, NOW_MS).is_ok(), "again");
    assert!(linking.answer(link(last), of(9, 9), ANSWER, NOW_MS).is_ok(), "another account");
    drop((waiting, replies));
}

#[test]
fn what_is_handed_over_has_a_bound_in_all() {
    let linking = Arc::<Linking>::default();
    let largest = Bytes::from(vec![7; gureum_proto::limits::LINK_BUNDLE_BYTES_MAX]);
    let fit = u16::try_from(LINK_BUNDLES_BYTES_MAX / largest.len()).unwrap();
    let mut waiting = Vec::new();
    for number in 0..=fit {
        let by = of(u8::try_from(number).unwrap(), 1);
        let link = Link { link: link(number), device: NEW, offer: OFFER };
        let listener: Arc<dyn LinkListener> = Arc::<Ear>::default();
        waiting.push(linking.offer(link.clone(), address(number), listener, NOW_MS).ok().unwrap());
        drop(linking.answer(link.link, by, ANSWER, NOW_MS).unwrap());
        linking.logged(by.account(), NEW, NOW_MS);
        let expected = (number == fit).then_some(Code::RateLimited);
        assert_eq!(code(linking.finish(link.link, by, largest.clone(), NOW_MS)), expected, "{number}");
    }
}
