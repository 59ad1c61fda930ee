//! KeyPackages over time: renewed while they are good, forgotten when they cannot be used any more.

use bytes::Bytes;

use super::*;
use crate::limits::{KEY_PACKAGE_KEPT_MS, KEY_PACKAGE_RENEW_MS};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn kept(person: &Person) -> usize {
    crate::e2ee::key_packages(&person.vault.connection).unwrap().len()
}

#[test]
fn are_due_at_first_and_again_after_four_weeks() {
    let home = tempfile::tempdir().unwrap();
    let (mut vault, _) = Vault::create(home.path(), &KeySource::File, &relay::profile()).unwrap();
    assert!(vault.key_packages_due().unwrap() && vault.last_resort_due().unwrap());
    vault.make_last_resort().unwrap();
    assert!(vault.key_packages_due().unwrap() && !vault.last_resort_due().unwrap(), "each by itself");
    vault.make_key_packages(1).unwrap();
    assert!(!vault.key_packages_due().unwrap());
    let mut person = Person::register(&mut Relay::default(), "alice");
    person.moves_on(KEY_PACKAGE_RENEW_MS - DAY_MS);
    assert!(!person.vault.key_packages_due().unwrap());
    person.moves_on(2 * DAY_MS);
    assert!(person.vault.key_packages_due().unwrap());
    person.vault.make_key_packages(1).unwrap();
    assert!(!person.vault.key_packages_due().unwrap());
}

#[test]
fn a_last_resort_is_due_by_its_own_age() {
    let (_, _, mut b, _) = Relay::with_a_pair();
    b.vault.make_last_resort().unwrap();
    b.moves_on(KEY_PACKAGE_RENEW_MS / 2);
    b.vault.make_key_packages(1).unwrap();
    assert!(!b.vault.last_resort_due().unwrap());
    b.moves_on(KEY_PACKAGE_RENEW_MS / 2 + DAY_MS);
    assert!(b.vault.last_resort_due().unwrap() && !b.vault.key_packages_due().unwrap());
    b.vault.make_last_resort().unwrap();
    assert!(!b.vault.last_resort_due().unwrap());
}

#[test]
fn their_secrets_are_forgotten_when_no_welcome_can_use_them_any_more() {
    let mut person = Person::register(&mut Relay::default(), "alice");
    assert_eq!(kept(&person), 5);
    person.moves_on(KEY_PACKAGE_KEPT_MS - DAY_MS);
    person.vault.make_key_packages(2).unwrap();
    let now_ms = (person.vault.clock)();
    person.vault.forget_key_packages(now_ms).unwrap();
    assert_eq!(kept(&person), 7, "a Welcome may be under way");
    person.vault.forget_key_packages(u64::MAX).unwrap();
    assert_eq!(kept(&person), 7, "a server alone cannot make it forget");
    person.moves_on(2 * DAY_MS);
    person.vault.forget_key_packages(now_ms).unwrap();
    assert_eq!(kept(&person), 7, "nor can a wrong clock");
    person.vault.forget_key_packages(now_ms + 2 * DAY_MS).unwrap();
    assert_eq!(kept(&person), 2);
}

#[test]
fn of_somebody_else_one_whose_time_is_over_begins_nothing_and_adds_nobody() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    a.learn(&relay, b.account);
    let over: Bytes = b.inside(|work| work.mls().expired_key_package().1).into();
    let refused = a.vault.begin_conversation(b.account, &[(b.device, over.clone())], &[]);
    let is_over = |why: &str| why.contains("in the past");
    assert!(matches!(&refused, Err(BeginError::KeyPackage { why, .. }) if is_over(why)), "{refused:?}");

    let talk = relay.begin_group(&mut a, "club");
    let ids = a.vault.intend(talk, &[Intent::Add(b.account)]).unwrap();
    a.vault.put_packages(&[(ids[0], vec![(b.device, over)])]).unwrap();
    assert_eq!(a.vault.commit_intents(talk).unwrap(), None);
    let outcomes = a.vault.take_outcomes(&ids).unwrap();
    assert!(matches!(&outcomes[..], [(_, IntentOutcome::Refused(why))] if is_over(why)), "{outcomes:?}");
}

#[test]
fn one_that_was_used_is_not_counted_as_new_again() {
    let (_, _, mut b, _) = Relay::with_a_pair();
    assert_eq!(kept(&b), 4);
    b.moves_on(KEY_PACKAGE_RENEW_MS + DAY_MS);
    assert!(b.vault.key_packages_due().unwrap());
}

#[test]
fn a_clock_that_is_put_right_again_leaves_nothing_dated_ahead() {
    let (_, mut a, _, talk) = Relay::with_a_pair();
    let right = a.vault.clock.clone();
    a.moves_on(10 * 365 * DAY_MS);
    a.vault.make_key_packages(1).unwrap();
    a.inside(|work| {
        work.note_renewed(talk).unwrap();
        (0..3).for_each(|_| work.note_rejoin_attempt(talk).unwrap());
    });
    assert!(a.inside(|work| work.rejoin_waits_ms(talk)).unwrap().is_some());
    a.vault.clock = right;
    assert_eq!(a.inside(|work| work.rejoin_waits_ms(talk)).unwrap(), None);
    assert_eq!(a.vault.self_updates_due().unwrap(), [talk]);
    assert!(!a.vault.key_packages_due().unwrap());
    a.moves_on(KEY_PACKAGE_RENEW_MS);
    assert!(a.vault.key_packages_due().unwrap());
}
