//! Accounts of several devices: their logs are known as they are now, while commits come from before.

use gureum_proto::{ConversationId, DeviceId};

use super::*;
use crate::vault::maker::put_pending;

impl Person {
    /// Removes a device's leaf, as the server accepts it.
    fn remove(&mut self, relay: &mut Relay, talk: ConversationId, device: DeviceId) {
        let submit = self.inside(|work| {
            let mut group = work.group(talk).unwrap().unwrap();
            let epoch = group.epoch();
            let bundle = work.mls().remove(&mut group, device);
            work.keep(talk, group);
            let counter = work.next_counter().unwrap().unwrap();
            put_pending(work, talk, counter, epoch, bundle, None).unwrap()
        });
        relay.commit(self, &submit);
        self.vault.commit_accepted(talk).unwrap();
        relay.follow(self, talk);
    }

    /// Adds a device by a KeyPackage of its, as the server accepts it.
    fn add(&mut self, relay: &mut Relay, talk: ConversationId, package: &[u8]) {
        let submit = self.inside(|work| {
            let (package, _) = work.mls().read_key_package(package).unwrap();
            let mut group = work.group(talk).unwrap().unwrap();
            let epoch = group.epoch();
            let bundle = work.mls().add(&mut group, vec![package]);
            work.keep(talk, group);
            let counter = work.next_counter().unwrap().unwrap();
            put_pending(work, talk, counter, epoch, bundle, None).unwrap()
        });
        relay.commit(self, &submit);
        self.vault.commit_accepted(talk).unwrap();
        relay.follow(self, talk);
    }

    #[track_caller]
    fn check(&mut self, talk: ConversationId, status: ConversationStatus, epoch: u64) {
        let known = self.vault.conversation(talk).unwrap().unwrap();
        assert_eq!((known.state, known.epoch), (status, epoch));
    }
}

/// Alice and Bob, and a second device of Alice's which has joined by itself; Bob has not heard of it yet.
fn with_a_second() -> (Relay, Person, Person, Person, ConversationId) {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    second.rejoin(&mut relay, talk);
    a.take(&mut relay);
    (relay, a, second, b, talk)
}

fn is_refusal(event: &Event) -> bool {
    matches!(event, Event::CommitRefused { .. } | Event::Unreadable { .. })
}

#[test]
fn siblings_read_what_the_other_sends_and_so_does_the_peer() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    second.say(&mut relay, talk, "from the second");
    a.take(&mut relay);
    a.say(&mut relay, talk, "from the first");
    second.take(&mut relay);
    b.take(&mut relay);
    for person in [&mut a, &mut second, &mut b] {
        assert_eq!(person.history(), ["from the second", "from the first"]);
        person.check(talk, ConversationStatus::Active, 2);
    }
}

/// Whoever was away learns the whole log first, and then takes commits of the time before the revocation.
#[test]
fn a_revocation_that_is_known_before_older_commits_stops_nothing() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    second.renew(&mut relay, talk);
    second.say(&mut relay, talk, "from the second");
    a.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.remove(&mut relay, talk, second.device);
    a.say(&mut relay, talk, "only us");
    let events = b.take(&mut relay);
    assert!(!events.iter().any(is_refusal), "{events:?}");
    b.check(talk, ConversationStatus::Active, 4);
    assert_eq!(b.history(), ["from the second", "only us"]);
}

#[test]
fn likewise_by_the_commit_log() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    second.renew(&mut relay, talk);
    a.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.remove(&mut relay, talk, second.device);
    b.learn(&relay, a.account);
    let page = relay.commits(talk, 1);
    assert_eq!(b.vault.apply_commits(talk, &page).unwrap(), Applied::UpToDate);
    b.check(talk, ConversationStatus::Active, 4);
}

#[test]
fn a_device_that_was_added_before_it_was_revoked_stops_nothing() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    let package = second.vault.make_last_resort().unwrap();
    a.add(&mut relay, talk, &package);
    a.revoke(&mut relay, second.device);
    let events = b.take(&mut relay);
    assert!(!events.iter().any(is_refusal), "{events:?}");
    b.check(talk, ConversationStatus::Active, 2);
}

#[test]
fn a_welcome_into_a_group_with_a_device_that_was_revoked_since_is_taken() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    let mut second = Person::link(&mut relay, &a);
    for account in [a.account, b.account] {
        a.learn(&relay, account);
    }
    let packages = [&mut b, &mut second].map(|person| (person.device, person.vault.make_last_resort().unwrap()));
    let create = a.vault.begin_conversation(b.account, &packages[..1], &packages[1..]).unwrap();
    let talk = relay.create(&mut a, b.account, create);
    a.revoke(&mut relay, second.device);
    b.learn(&relay, a.account);
    let events = b.take(&mut relay);
    assert!(!events.iter().any(is_refusal), "{events:?}");
    b.check(talk, ConversationStatus::Active, 1);
}

#[test]
fn a_group_with_a_device_that_was_revoked_since_is_rejoined() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    a.revoke(&mut relay, second.device);
    b.learn(&relay, a.account);
    b.rejoin(&mut relay, talk);
    b.check(talk, ConversationStatus::Active, 3);
}

#[test]
fn nobody_begins_with_a_device_that_was_revoked() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    let mut second = Person::link(&mut relay, &b);
    b.revoke(&mut relay, second.device);
    a.learn(&relay, b.account);
    let package = (second.device, second.vault.make_last_resort().unwrap());
    let refused = a.vault.begin_conversation(b.account, &[package], &[]);
    assert!(matches!(&refused, Err(BeginError::KeyPackage { why, .. }) if why.contains("was revoked")), "{refused:?}");
}

#[test]
fn a_welcome_for_siblings_alone_tells_of_a_conversation_that_is_not_known() {
    let (mut relay, a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &b);
    let taken = |person: &mut Person, relay: &Relay| person.vault.take(&relay.frames(person)).unwrap().unlisted;
    assert!(!taken(&mut second, &relay), "nothing came since it was linked");
    let welcome = relay.accounts[&b.account].inbox[0].1.clone();
    relay.push_to(b.account, welcome);
    assert!(taken(&mut second, &relay));
    assert!(!taken(&mut b, &relay), "it is in the conversation");
    second.learn(&relay, a.account);
    second.rejoin(&mut relay, talk);
    let welcome = relay.accounts[&b.account].inbox[0].1.clone();
    relay.push_to(b.account, welcome);
    assert!(!taken(&mut second, &relay), "it has joined");
}

/// A server that lets a revoked device in again, against its own rule.
#[test]
fn who_was_seen_removed_for_a_revocation_does_not_come_back() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.remove(&mut relay, talk, second.device);
    b.take(&mut relay);
    second.rejoin(&mut relay, talk);
    second.check(talk, ConversationStatus::Active, 4);
    let group = relay.conversations[&talk].group.clone();
    for person in [&mut a, &mut b] {
        let refused = person.vault.rejoin(talk, &group);
        assert!(matches!(&refused, Err(RejoinError::Refused(why)) if why.contains("was revoked")), "{refused:?}");
        let events = person.take(&mut relay);
        let [Event::CommitRefused { stopped: true, why, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert!(why.contains("was revoked"), "{why}");
        person.check(talk, ConversationStatus::Forked, 3);
    }
}

#[test]
fn a_person_may_go_on_from_where_a_removed_device_was_still_in_and_it_is_removed_again() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    let copy = relay.clone();
    a.revoke(&mut relay, second.device);
    a.remove(&mut relay, talk, second.device);
    b.take(&mut relay);
    relay.go_back(&copy);
    let group = relay.conversations[&talk].group.clone();
    b.vault.note_server_epoch(talk, 3, Some(2)).unwrap();
    let submit = b.vault.restart(talk, &group).unwrap();
    relay.commit(&b, &submit);
    b.vault.commit_accepted(talk).unwrap();
    relay.follow(&mut b, talk);
    b.check(talk, ConversationStatus::Active, 3);
    b.remove(&mut relay, talk, second.device);
    b.check(talk, ConversationStatus::Active, 4);
}
