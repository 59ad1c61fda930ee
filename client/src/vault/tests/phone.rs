//! Phone numbers: this account's, and those by which others are found.

use gureum_proto::{AccountId, Phone, PhoneNotice};

use super::in_step::{come_into_step, with_two};
use super::*;
use crate::limits::NUMBER_MAX;

fn number(text: &str) -> Phone {
    text.parse().unwrap()
}

const fn moved(moved_ms: u64) -> PhoneNotice {
    PhoneNotice { moved_ms, tried_ms: 0 }
}

impl Person {
    fn phone(&mut self) -> Option<OwnPhone> {
        self.vault.own_phone().unwrap()
    }

    /// What it is told of its number.
    fn told_of_number(&mut self) -> Vec<(PhoneEvent, u64)> {
        let events = self.vault.unreported_events(99).unwrap().into_iter();
        let told = events.filter_map(|stored| match stored.event {
            Event::Phone { change, time_ms } => Some((change, time_ms)),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn that_the_number_has_moved_or_somebody_has_tried_is_told_once() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    assert!(!a.vault.note_phone(PhoneNotice::default()).unwrap());
    let tried = PhoneNotice { moved_ms: 0, tried_ms: 5 };
    assert!(a.vault.note_phone(tried).unwrap());
    let both = PhoneNotice { moved_ms: 7, tried_ms: 5 };
    assert!(a.vault.note_phone(both).unwrap());
    a.reopen();
    for again in [both, tried, PhoneNotice::default()] {
        assert!(!a.vault.note_phone(again).unwrap());
    }
    assert_eq!(a.told_of_number(), [(PhoneEvent::Tried, 5), (PhoneEvent::Moved, 7)]);
    assert!(a.vault.note_phone(moved(8)).unwrap());
    assert_eq!(a.told_of_number().len(), 3);
}

#[test]
fn a_time_beyond_all_numbers_is_told_by_no_server_that_means_it_well() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    assert!(!a.vault.note_phone(moved(u64::MAX)).unwrap());
    assert!(a.vault.note_phone(moved(NUMBER_MAX)).unwrap());
    assert_eq!(a.told_of_number(), [(PhoneEvent::Moved, NUMBER_MAX)]);
}

#[test]
fn a_number_is_the_accounts_until_it_moves_and_another_one_after_that() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    assert_eq!(a.phone(), None);
    let (first, second) = (number("+821012345678"), number("+821087654321"));
    a.vault.set_own_phone(&first, PhoneNotice::default(), true, false).unwrap();
    let own = OwnPhone { phone: first, findable: true, locked: false };
    assert_eq!(a.phone(), Some(own));
    a.vault.note_phone(PhoneNotice { moved_ms: 0, tried_ms: 6 }).unwrap();
    assert!(a.phone().is_some(), "somebody has only tried");
    a.vault.note_phone(moved(7)).unwrap();
    assert_eq!(a.phone(), None);
    a.vault.set_own_phone(&second, moved(7), false, false).unwrap();
    a.vault.note_phone(moved(7)).unwrap();
    assert_eq!(a.phone().map(|own| own.phone), Some(second));
    a.vault.forget_own_phone().unwrap();
    assert_eq!(a.phone(), None);
}

#[test]
fn an_account_that_was_deleted_has_no_number() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    a.vault.set_own_phone(&number("+821012345678"), PhoneNotice::default(), true, true).unwrap();
    assert!(a.phone().is_some());
    a.vault.mark_deleted().unwrap();
    a.reopen();
    assert_eq!(a.phone(), None);
}

#[test]
fn a_lock_is_that_of_one_number() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    let mut set = |text: &str, locks| {
        a.vault.set_own_phone(&number(text), PhoneNotice::default(), false, locks).unwrap();
        a.phone().unwrap().locked
    };
    assert!(!set("+821012345678", false));
    assert!(set("+821012345678", true));
    assert!(set("+821012345678", false), "it keeps its lock");
    assert!(!set("+821087654321", false), "another one has none");
    a.vault.set_own_lock(true).unwrap();
    a.vault.set_own_findable(true).unwrap();
    assert_eq!(a.phone().map(|own| (own.locked, own.findable)), Some((true, true)));
}

#[test]
fn all_devices_of_an_account_know_its_number() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    // The longest that there can be.
    let longest = number("+123456789012345");
    a.vault.set_own_phone(&longest, moved(NUMBER_MAX), true, true).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert_eq!(second.phone(), Some(OwnPhone { phone: longest, findable: true, locked: true }));
    second.vault.forget_own_phone().unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert_eq!((a.phone(), second.phone()), (None, None));
}

#[test]
fn a_number_is_called_as_the_server_has_called_it_when_a_code_was_asked_for() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    let typed = number("+49 (0)30 123-456");
    assert_eq!(a.vault.number_of(&typed).unwrap(), number("+49030123456"));
    a.vault.note_code_asked(&typed, &number("+4930123456")).unwrap();
    a.vault.note_phone(moved(7)).unwrap();
    a.reopen();
    assert_eq!(a.vault.number_of(&typed).unwrap(), number("+4930123456"));
    assert_eq!(a.vault.number_of(&number("+49-030-123456")).unwrap(), number("+4930123456"));
    assert_eq!(a.vault.number_of(&number("+49 30 654321")).unwrap(), number("+4930654321"));
}

#[test]
fn what_the_server_calls_a_number_has_digits_alone() {
    assert!(is_e164(&number("+821012345678")) && is_e164(&number("+123456789012345")));
    assert!(!is_e164(&number("+82 1012345678")) && !is_e164(&number("+1234567890123456")));
}

#[test]
fn somebody_who_was_found_by_a_number_is_meant_by_it_however_it_is_written() {
    let (_, mut a, b, _) = Relay::with_a_pair();
    let resolve = |a: &mut Person, text: &str| a.vault.resolve(&text.parse().unwrap()).unwrap();
    assert_eq!(resolve(&mut a, "+82 10-1234-5678"), Resolved::Unknown);
    a.vault.learn_number(&number("+821012345678"), b.account).unwrap();
    for text in ["+82 10-1234-5678", "+821012345678"] {
        let Resolved::Contact(contact) = resolve(&mut a, text) else { panic!("nobody is found") };
        assert_eq!(contact.account, b.account);
    }
    assert_eq!(resolve(&mut a, "+821087654321"), Resolved::Unknown);
}

#[test]
fn that_a_number_is_anothers_now_is_said_once_with_both_safety_numbers() {
    let (_, mut a, b, _) = Relay::with_a_pair();
    let (phone, other) = (number("+821012345678"), AccountId::from_bytes([9; 16]));
    a.vault.learn_number(&phone, b.account).unwrap();
    a.vault.learn_number(&phone, b.account).unwrap();
    let error = a.vault.learn_number(&phone, other).unwrap_err();
    let said = error.to_string();
    let (before, now) = (a.vault.safety_number(b.account), a.vault.safety_number(other));
    assert!(said.contains("bob") && said.contains(&before) && said.contains(&now), "{said}");
    assert!(matches!(error, TrustError::NumberMoved { .. }));
    a.reopen();
    a.vault.learn_number(&phone, other).unwrap();
}
