//! Accounts of several devices: their logs are known as they are now, while commits come from before.

use bytes::Bytes;
use gureum_proto::membership::Leaf;
use gureum_proto::{Code, ConversationId, DeliveryFrame, EnvelopeBody};

use super::*;
use crate::vault::maker::put_pending;

impl Person {
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

#[test]
fn what_was_said_before_a_device_was_linked_is_on_its_siblings_and_no_loss() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    b.say(&mut relay, talk, "before it joined");
    second.learn(&relay, b.account);
    let events = second.take(&mut relay);
    assert!(!events.iter().any(is_refusal), "{events:?}");
    second.check(talk, ConversationStatus::Active, 2);
    b.take(&mut relay);
    b.say(&mut relay, talk, "after it joined");
    a.take(&mut relay);
    second.take(&mut relay);
    assert_eq!(second.history(), ["after it joined"]);
    assert_eq!(a.history(), ["before it joined", "after it joined"]);
}

/// Whoever was away learns the whole log first, and then takes commits of the time before the revocation.
#[test]
fn a_revocation_that_is_known_before_older_commits_stops_nothing() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    second.renew(&mut relay, talk);
    second.say(&mut relay, talk, "from the second");
    a.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.remove_revoked(&mut relay, talk);
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
    a.remove_revoked(&mut relay, talk);
    b.learn(&relay, a.account);
    let page = relay.commits(talk, 1);
    assert_eq!(b.vault.apply_commits(talk, &page, None).unwrap(), Applied::UpToDate);
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
    let taken = |person: &mut Person, relay: &Relay| {
        let frames = relay.frames(person);
        person.vault.take(&frames).unwrap().unlisted
    };
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
/// As whoever hears late of all of it sees it: an account goes, comes back, and has revoked a device only after that.
#[test]
fn who_goes_with_the_whole_account_is_not_held_to_go_for_its_revocation() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    a.revoke(&mut relay, second.device);
    b.learn(&relay, a.account);
    let (account, device) = (a.account, second.device);
    let expelled = b.inside(|work| {
        let leaves = work.group(talk).unwrap().unwrap().leaves();
        let of = |leaf: &Leaf| leaf.identity.unwrap();
        let without_account: Vec<_> = leaves.iter().filter(|leaf| of(leaf).account != account).cloned().collect();
        let without_device: Vec<_> = leaves.iter().filter(|leaf| of(leaf).device != device).cloned().collect();
        [without_account, without_device].map(|after| {
            work.note_leaves(talk, &leaves, &after).unwrap();
            let sql = "SELECT count(*) FROM expelled";
            work.connection.query_row(sql, [], |row| row.get::<_, u64>(0)).unwrap()
        })
    });
    assert_eq!(expelled, [0, 1]);
}

#[test]
fn who_was_seen_removed_for_a_revocation_does_not_come_back() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.remove_revoked(&mut relay, talk);
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
    a.remove_revoked(&mut relay, talk);
    b.take(&mut relay);
    relay.go_back(&copy);
    let group = relay.conversations[&talk].group.clone();
    b.vault.note_server_epoch(talk, 3, Some(2)).unwrap();
    let submit = b.vault.restart(talk, &group).unwrap();
    relay.commit(&b, &submit);
    b.vault.commit_accepted(talk).unwrap();
    relay.follow(&mut b, talk);
    b.check(talk, ConversationStatus::Active, 3);
    b.remove_revoked(&mut relay, talk);
    b.check(talk, ConversationStatus::Active, 4);
}

#[test]
fn nothing_is_encrypted_while_a_revoked_device_is_in() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    a.revoke(&mut relay, second.device);
    for person in [&mut a, &mut b] {
        person.take(&mut relay);
        person.queue(talk, "a secret");
        assert_eq!(person.vault.next_sends(0, 64).unwrap(), []);
        assert!(person.vault.removals_hold_up_messages().unwrap());
        assert_eq!(person.vault.removals_due().unwrap(), [talk]);
        assert_eq!(person.vault.behind().unwrap(), [Need::Removal { conversation: talk }]);
    }
    b.remove_revoked(&mut relay, talk);
    a.take(&mut relay);
    for person in [&mut a, &mut b] {
        assert_eq!(person.vault.removals_due().unwrap(), []);
        assert_eq!(person.vault.behind().unwrap(), []);
        let sends = person.vault.next_sends(0, 64).unwrap();
        assert_eq!(sends.iter().map(|send| send.epoch).collect::<Vec<_>>(), [3]);
    }
}

#[test]
fn a_message_that_is_refused_over_a_removal_waits_for_it_and_goes_out_under_the_same_counter() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    b.queue(talk, "before I knew");
    let send = b.vault.next_sends(0, 64).unwrap().remove(0);
    a.revoke(&mut relay, second.device);
    let refused = b.vault.settle(&Relay::refuse(&send, Code::RemovalPending)).unwrap();
    assert_eq!(refused, Settled::Removal { conversation: talk });
    assert_eq!(b.vault.next_sends(0, 64).unwrap(), []);
    assert_eq!(b.vault.behind().unwrap(), [Need::Removal { conversation: talk }]);
    assert_eq!(b.vault.commit_removals(talk).unwrap(), None, "whose, is not known yet");
    b.reopen();
    b.learn(&relay, a.account);
    b.remove_revoked(&mut relay, talk);
    b.flush(&mut relay);
    a.take(&mut relay);
    assert_eq!((a.history(), b.history()), (vec!["before I knew".to_owned()], vec!["before I knew".to_owned()]));
    assert_eq!((b.vault.outbox_len().unwrap(), b.vault.removals_due().unwrap()), (0, vec![]));
}

#[test]
fn a_removal_by_somebody_faster_is_one_as_well() {
    let (mut relay, mut a, second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    a.revoke(&mut relay, second.device);
    b.take(&mut relay);
    let lost = b.vault.commit_removals(talk).unwrap().unwrap();
    a.remove_revoked(&mut relay, talk);
    b.vault.commit_rejected(talk).unwrap();
    assert_eq!(lost.epoch, 2);
    b.take(&mut relay);
    assert_eq!(b.vault.commit_removals(talk).unwrap(), None);
    b.check(talk, ConversationStatus::Active, 3);
    b.say(&mut relay, talk, "only us");
}

#[test]
fn who_is_revoked_does_not_remove_itself() {
    let (mut relay, mut a, mut second, _, talk) = with_a_second();
    a.revoke(&mut relay, second.device);
    second.learn(&relay, a.account);
    assert_eq!(second.vault.commit_removals(talk).unwrap(), None);
    second.queue(talk, "still there?");
    assert_eq!(second.vault.next_sends(0, 64).unwrap(), []);
}

/// What a revoked device still has of a conversation opens nothing that is said after the revocation.
#[test]
fn a_revoked_device_reads_what_was_said_before_and_nothing_after() {
    let (mut relay, mut a, mut second, mut b, talk) = with_a_second();
    b.take(&mut relay);
    b.say(&mut relay, talk, "to all");
    a.take(&mut relay);
    a.revoke(&mut relay, second.device);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    a.say(&mut relay, talk, "without it");
    b.take(&mut relay);
    b.say(&mut relay, talk, "nor I");
    let said: Vec<_> = relay.frames(&mut second).into_iter().filter_map(ciphertext).collect();
    let opens = |ciphertext: &Bytes| {
        second.inside(|work| {
            let mut group = work.group(talk).unwrap().unwrap();
            work.mls().open(&mut group, ciphertext).is_ok()
        })
    };
    assert_eq!(said.iter().map(opens).collect::<Vec<_>>(), [true, false, false]);
}

fn ciphertext(frame: DeliveryFrame) -> Option<Bytes> {
    let DeliveryFrame::Envelope(envelope) = frame else { return None };
    let EnvelopeBody::Message { ciphertext, .. } = envelope.shared.body else { return None };
    Some(ciphertext)
}
