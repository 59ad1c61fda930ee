//! Requests, blocking and muting: what is shown, what the server is told, and that all devices agree.

use gureum_proto::{AccountId, ConversationId, DeviceId, Relation, Request};

use super::in_step::{come_into_step, with_two};
use super::*;
use crate::e2ee::content::record::Record;
use crate::limits::{DECISIONS_AGAIN_MS, NUMBER_MAX};
use crate::vault::in_step::take_records;

impl Vault {
    /// This device seems to have been added to an account that others were in before.
    pub(crate) fn seem_added(&mut self) {
        self.connection.execute("UPDATE profile SET log_entry = 1", []).unwrap();
        self.identity.log_entry = 1;
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, ms: u64) {
        let clock = self.clock.clone();
        self.clock = std::sync::Arc::new(move || clock() + ms);
    }
}

/// Longer than anything is on its way.
const AFTER_A_WHILE_MS: u64 = 11 * 60 * 1000;

impl Person {
    /// What the server has not heard.
    fn owes(&mut self) -> Vec<Request> {
        self.vault.untold(99).unwrap().iter().map(Decision::request).collect()
    }

    /// The server hears it.
    fn tells_the_server(&mut self) {
        for decision in self.vault.untold(99).unwrap() {
            self.vault.told(&decision).unwrap();
        }
    }

    /// With whom requests are, and how many messages came of each.
    fn requests(&mut self) -> Vec<(String, u64)> {
        let requests = self.vault.message_requests().unwrap().into_iter();
        requests.map(|request| (request.with, request.messages)).collect()
    }

    fn blocks(&mut self, account: AccountId) {
        self.vault.set_relation(account, Relation::Blocked).unwrap();
    }
}

fn set_relation(account: AccountId, relation: Relation) -> Request {
    Request::SetRelation { account, relation }
}

fn set_conversation(conversation: ConversationId, accepted: bool, muted_until_ms: u64) -> Request {
    Request::SetConversation { conversation, accepted, muted_until_ms }
}

/// Which messages came, and whether as requests.
fn came(events: &[Event]) -> Vec<(&str, bool)> {
    fn message(event: &Event) -> Option<(&str, bool)> {
        match event {
            Event::Message(message) => Some((&message.text, message.request)),
            _ => None,
        }
    }
    events.iter().filter_map(message).collect()
}

#[test]
fn who_writes_for_the_first_time_comes_as_a_request_until_they_are_written_to() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    assert_eq!((a.requests(), a.owes()), (vec![], vec![set_relation(b.account, Relation::Accepted)]));
    a.say(&mut relay, talk, "hello");
    assert_eq!(came(&b.take(&mut relay)), [("hello", true)]);
    let told: Vec<_> = b.vault.unreported_events(9).unwrap().into_iter().map(|stored| stored.event).collect();
    assert_eq!((came(&told), b.requests()), (vec![("hello", true)], vec![("alice".to_owned(), 1)]));
    assert_eq!(b.owes(), []);
    b.say(&mut relay, talk, "who is it?");
    let accepted = [set_relation(a.account, Relation::Accepted), set_conversation(talk, true, 0)];
    assert_eq!((b.requests(), b.owes()), (vec![], accepted.to_vec()));
    a.say(&mut relay, talk, "alice");
    assert_eq!(came(&b.take(&mut relay)), [("alice", false)]);
    b.say(&mut relay, talk, "hello");
    assert_eq!(b.owes(), accepted, "it is decided once");
}

#[test]
fn what_is_accepted_without_a_connection_is_owed_to_the_server_until_it_has_heard() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "hello");
    b.take(&mut relay);
    b.vault.accept(talk).unwrap();
    b.reopen();
    let accepted = [set_relation(a.account, Relation::Accepted), set_conversation(talk, true, 0)];
    assert_eq!((b.requests(), b.owes()), (vec![], accepted.to_vec()));
    b.tells_the_server();
    b.reopen();
    assert_eq!(b.owes(), []);
    b.vault.tell_all_decisions().unwrap();
    assert_eq!(b.owes(), accepted, "a server that has gone back hears it again");
}

#[test]
fn what_was_decided_while_the_server_was_told_something_else_is_owed_on() {
    let (_, mut a, b, talk) = Relay::with_a_pair();
    a.tells_the_server();
    a.vault.mute(talk, Some(5)).unwrap();
    let told = a.vault.untold(9).unwrap();
    a.vault.mute(talk, None).unwrap();
    a.vault.told(&told[0]).unwrap();
    assert_eq!(a.owes(), [set_conversation(talk, true, u64::MAX)]);
    a.tells_the_server();
    a.vault.mute(talk, None).unwrap();
    a.vault.set_relation(b.account, Relation::Accepted).unwrap();
    assert_eq!(a.owes(), [], "that is so already");
}

#[test]
fn a_conversation_is_muted_for_a_while_or_until_it_is_not() {
    let (_, mut a, _b, talk) = Relay::with_a_pair();
    let muted = |a: &mut Person| a.vault.muted().unwrap().into_iter().map(|muted| muted.until_ms).collect::<Vec<_>>();
    let now_ms = (a.vault.clock)();
    a.vault.mute(talk, Some(now_ms + 60_000)).unwrap();
    assert_eq!(muted(&mut a), [Some(now_ms + 60_000)]);
    a.moves_on(120_000);
    assert_eq!(muted(&mut a), []);
    a.vault.mute(talk, None).unwrap();
    assert_eq!(muted(&mut a), [None]);
    a.vault.mute(talk, Some(0)).unwrap();
    assert_eq!(muted(&mut a), []);
    let nowhere = ConversationId::from_bytes([9; 16]);
    assert!(matches!(a.vault.mute(nowhere, None), Err(VaultError::NoConversation(_))));
}

#[test]
fn of_a_blocked_account_nothing_is_shown_and_nothing_seems_to_be_missing() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.take(&mut relay);
    b.blocks(a.account);
    assert_eq!((b.requests(), b.owes()), (vec![], vec![set_relation(a.account, Relation::Blocked)]));
    b.vault.mark_read(talk).unwrap();
    for text in ["two", "three"] {
        a.say(&mut relay, talk, text);
    }
    assert_eq!(b.take(&mut relay), []);
    b.reopen();
    assert_eq!((b.history(), b.vault.unread(talk).unwrap()), (vec!["one".to_owned()], 0));
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!(b.vault.tell_withheld().unwrap(), []);
    b.vault.set_relation(a.account, Relation::None).unwrap();
    a.say(&mut relay, talk, "four");
    assert_eq!(came(&b.take(&mut relay)), [("four", true)]);
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!(b.vault.tell_withheld().unwrap(), []);
}

#[test]
fn a_blocked_account_is_told_nothing() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.say(&mut relay, talk, "mine");
    b.take(&mut relay);
    a.take(&mut relay);
    let typing = a.vault.seal_typing(talk, true).unwrap().expect("it is said");
    assert!(b.vault.open_typing(&typing).unwrap().is_some());
    b.blocks(a.account);
    assert!(b.vault.open_typing(&typing).unwrap().is_none());
    assert!(b.vault.seal_typing(talk, true).unwrap().is_none());
    assert!(!b.vault.queue_receipts().unwrap(), "what was owed is owed no more");
    b.vault.mark_read(talk).unwrap();
    assert!(!b.vault.queue_receipts().unwrap());
    // What alice has read of bob, he is not shown either.
    a.vault.mark_read(talk).unwrap();
    a.vault.queue_receipts().unwrap();
    for send in a.vault.next_sends(0, 64).unwrap() {
        let sent = relay.send(&a, &send);
        a.vault.settle(&sent).unwrap();
    }
    assert_eq!(b.take(&mut relay), []);
    let refused = b.vault.queue_text(talk, "hello");
    assert!(matches!(&refused, Err(QueueError::Blocked(handle)) if handle.as_str() == "alice"), "{refused:?}");
    b.vault.accept(talk).unwrap();
    b.say(&mut relay, talk, "hello");
}

#[test]
fn nobody_is_told_of_a_conversation_that_a_blocked_account_begins() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    b.blocks(a.account);
    let talk = relay.begin(&mut a, b.account);
    a.say(&mut relay, talk, "hello");
    assert_eq!(came(&b.take(&mut relay)), []);
    assert_eq!((b.vault.unreported_events(9).unwrap(), b.requests()), (vec![], vec![]));
    assert_eq!(b.vault.blocked().unwrap(), [(a.account, "alice".to_owned())]);
}

#[test]
fn whom_an_account_has_accepted_it_hears_of_at_once() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    b.vault.set_relation(a.account, Relation::Accepted).unwrap();
    let talk = relay.begin(&mut a, b.account);
    a.say(&mut relay, talk, "hello");
    assert_eq!(came(&b.take(&mut relay)), [("hello", false)]);
    let owed = [set_relation(a.account, Relation::Accepted), set_conversation(talk, true, 0)];
    assert_eq!((b.requests(), b.owes()), (vec![], owed.to_vec()));
}

#[test]
fn an_account_decides_nothing_about_itself() {
    let mut a = Person::register(&mut Relay::default(), "alice");
    let refused = a.vault.set_relation(a.account, Relation::Blocked);
    assert!(matches!(refused, Err(VaultError::Oneself)), "{refused:?}");
}

#[test]
fn a_conversation_that_existed_is_accepted_by_whoever_wanted_one() {
    let mut relay = Relay::default();
    let (mut a, b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    a.learn(&relay, b.account);
    let package = relay.accounts.get_mut(&b.account).unwrap().packages.pop().unwrap();
    let create = a.vault.begin_conversation(b.account, &[package], &[]).unwrap();
    let theirs = ConversationId::from_bytes([7; 16]);
    a.queue(create.conversation, "hello");
    a.vault.conversation_existed(create.conversation, theirs).unwrap();
    assert_eq!(a.owes(), [set_relation(b.account, Relation::Accepted), set_conversation(theirs, true, 0)]);
}

#[test]
fn what_one_device_decides_holds_on_the_others_which_tell_it_as_well() {
    let (mut relay, mut a, mut second, b, talk) = with_two();
    for device in [&mut a, &mut second] {
        device.tells_the_server();
        assert_eq!(device.vault.relation(b.account).unwrap(), Relation::Accepted);
    }
    a.blocks(b.account);
    a.vault.mute(talk, None).unwrap();
    assert_eq!(a.tell(&mut relay), 1);
    second.take(&mut relay);
    assert_eq!(second.vault.relation(b.account).unwrap(), Relation::Blocked);
    let decided = [set_relation(b.account, Relation::Blocked), set_conversation(talk, true, u64::MAX)];
    assert_eq!((a.owes(), second.owes()), (decided.to_vec(), decided.to_vec()));
    assert_eq!((a.tell(&mut relay), second.tell(&mut relay)), (0, 0), "told once, and not told back");
    // At the same time, without having heard of each other.
    a.vault.mute(talk, Some(0)).unwrap();
    second.vault.mute(talk, Some(5)).unwrap();
    second.vault.set_relation(b.account, Relation::None).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert_eq!(a.vault.relation(b.account).unwrap(), Relation::None);
    assert_eq!(a.owes(), second.owes());
}

#[test]
fn what_a_revoked_device_has_decided_gives_way() {
    let (mut relay, mut a, second, b, _) = with_two();
    let from = second.device;
    let blocked =
        || Record::Relation { account: b.account, relation: Relation::Blocked, stamp: NUMBER_MAX, device: from };
    let hear =
        |a: &mut Person, from: DeviceId| a.inside(|work| take_records(work, from, vec![blocked()]).map(drop).unwrap());
    hear(&mut a, from);
    assert_eq!(a.vault.relation(b.account).unwrap(), Relation::Blocked);
    a.revoke(&mut relay, from);
    a.vault.set_relation(b.account, Relation::Accepted).unwrap();
    assert_eq!(a.vault.relation(b.account).unwrap(), Relation::Accepted);
    hear(&mut a, from);
    assert_eq!(a.vault.relation(b.account).unwrap(), Relation::Accepted);
}

#[test]
fn a_device_that_knows_nothing_takes_the_servers_word_and_no_other_does() {
    let mut relay = Relay::default();
    let (mut a, other) = (Person::register(&mut relay, "alice"), AccountId::from_bytes([9; 16]));
    assert!(!a.vault.lacks_decisions().unwrap(), "the first device has decided everything itself");
    let mut second = Person::link(&mut relay, &a);
    assert!(second.vault.lacks_decisions().unwrap());
    let own = (a.account, Relation::Blocked);
    second.vault.learn_relations(&[(other, Relation::Blocked), own]).unwrap();
    assert!(second.vault.lacks_decisions().unwrap(), "there may be more");
    second.vault.hear_decisions().unwrap();
    second.reopen();
    assert!(!second.vault.lacks_decisions().unwrap());
    assert_eq!(second.vault.relation(other).unwrap(), Relation::Blocked);
    assert_eq!((second.vault.relation(a.account).unwrap(), second.owes()), (Relation::None, vec![]));
    second.vault.set_relation(other, Relation::None).unwrap();
    second.vault.learn_relations(&[(other, Relation::Blocked)]).unwrap();
    assert_eq!(second.vault.relation(other).unwrap(), Relation::None);
}

/// What the server has of a conversation.
fn said(accepted: bool, muted_until_ms: u64) -> gureum_proto::Preference {
    gureum_proto::Preference { accepted, muted_until_ms }
}

/// Alice's second device, which is in her conversation with Bob and has heard of nothing else.
fn ignorant() -> (Relay, Person, Person, ConversationId) {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.rejoin(&mut relay, talk);
    (relay, second, b, talk)
}

#[test]
fn what_the_server_knows_of_a_conversation_stays_when_a_device_that_did_not_mutes_it() {
    let (_relay, mut second, _b, talk) = ignorant();
    assert_eq!(second.requests().len(), 1);
    second.vault.learn_preferences(&[(talk, said(true, 0))]).unwrap();
    second.vault.hear_decisions().unwrap();
    assert_eq!((second.requests(), second.owes()), (vec![], vec![]));
    second.vault.mute(talk, None).unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, u64::MAX)]);
    second.vault.mute(talk, Some(0)).unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, 0)]);
}

#[test]
fn a_device_tells_nothing_of_a_conversation_before_it_has_heard_and_then_both() {
    let (_relay, mut second, _b, talk) = ignorant();
    second.vault.mute(talk, None).unwrap();
    assert_eq!(second.owes(), []);
    second.reopen();
    second.vault.learn_preferences(&[(talk, said(true, 7))]).unwrap();
    assert_eq!(second.owes(), [], "there may be more");
    second.vault.hear_decisions().unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, u64::MAX)]);
}

#[test]
fn who_accepts_a_conversation_before_the_server_was_heard_does_not_unmute_it() {
    let (_relay, mut second, b, talk) = ignorant();
    second.vault.accept(talk).unwrap();
    second.vault.learn_preferences(&[(talk, said(false, u64::MAX))]).unwrap();
    second.vault.hear_decisions().unwrap();
    let owed = [set_relation(b.account, Relation::Accepted), set_conversation(talk, true, u64::MAX)];
    assert_eq!(second.owes(), owed);
    assert_eq!(second.vault.muted().unwrap().len(), 1);
}

#[test]
fn who_unmutes_a_conversation_before_the_server_was_heard_has_it_unmuted() {
    let (_relay, mut second, _b, talk) = ignorant();
    second.vault.mute(talk, Some(0)).unwrap();
    second.vault.learn_preferences(&[(talk, said(true, u64::MAX))]).unwrap();
    second.vault.hear_decisions().unwrap();
    assert_eq!((second.vault.muted().unwrap().len(), second.requests()), (0, vec![]));
    // An end that was over long ago.
    assert_eq!(second.owes(), [set_conversation(talk, true, 1)]);
    second.tells_the_server();
    second.vault.mute(talk, None).unwrap();
    second.vault.mute(talk, Some(0)).unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, 0)]);
}

#[test]
fn who_mutes_and_unmutes_before_the_server_was_heard_has_the_last_word() {
    for (first, last, expected) in [(None, Some(0), 1), (Some(0), None, u64::MAX), (None, Some(5), 5)] {
        let (_relay, mut second, _b, talk) = ignorant();
        second.vault.mute(talk, first).unwrap();
        second.reopen();
        second.vault.mute(talk, last).unwrap();
        second.vault.learn_preferences(&[(talk, said(false, 7))]).unwrap();
        second.vault.hear_decisions().unwrap();
        assert_eq!(second.owes(), [set_conversation(talk, false, expected)]);
    }
}

#[test]
fn who_unblocks_somebody_before_the_server_was_heard_has_them_unblocked() {
    let (_relay, mut second, b, _talk) = ignorant();
    second.vault.set_relation(b.account, Relation::None).unwrap();
    second.vault.learn_relations(&[(b.account, Relation::Blocked)]).unwrap();
    second.vault.hear_decisions().unwrap();
    assert_eq!(second.vault.relation(b.account).unwrap(), Relation::None);
    assert_eq!(second.owes(), [set_relation(b.account, Relation::None)]);
    let nobody = AccountId::from_bytes([9; 16]);
    second.vault.set_relation(nobody, Relation::None).unwrap();
    assert_eq!(second.owes().len(), 1, "of whom the server says nothing either, nothing is new");
}

#[test]
fn a_server_that_is_older_than_what_it_is_asked_is_told_on_and_asked_again_after_a_while() {
    let (_relay, mut second, _b, talk) = ignorant();
    second.vault.mute(talk, None).unwrap();
    assert!(second.vault.asks_for_decisions().unwrap());
    second.vault.ask_for_decisions_later().unwrap();
    second.reopen();
    assert!(!second.vault.asks_for_decisions().unwrap(), "the connection is over each time");
    assert_eq!(second.owes(), [set_conversation(talk, false, u64::MAX)], "there is nothing to wait for");
    second.moves_on(DECISIONS_AGAIN_MS);
    assert!(second.vault.asks_for_decisions().unwrap());
    // What is decided until then is a person's word as well.
    second.vault.mute(talk, Some(0)).unwrap();
    second.vault.learn_preferences(&[(talk, said(true, u64::MAX))]).unwrap();
    second.vault.hear_decisions().unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, 1)]);
    second.moves_on(DECISIONS_AGAIN_MS);
    assert!(!second.vault.asks_for_decisions().unwrap());
}

#[test]
fn what_a_revoked_device_says_that_another_has_decided_is_its_own_word() {
    let (mut relay, mut a, second, b, talk) = with_two();
    let (from, device) = (second.device, a.device);
    a.vault.mute(talk, Some(5)).unwrap();
    a.vault.set_receipts(true).unwrap();
    a.revoke(&mut relay, from);
    let (key, value, stamp) = ("receipts".to_owned(), "off".to_owned(), NUMBER_MAX);
    let records = vec![
        Record::Relation { account: b.account, relation: Relation::Blocked, stamp, device },
        Record::Preference { conversation: talk, accepted: false, muted_until_ms: NUMBER_MAX, stamp, device },
        Record::Setting { key, value, stamp, device },
    ];
    a.inside(|work| take_records(work, from, records).map(drop).unwrap());
    assert_eq!(a.vault.relation(b.account).unwrap(), Relation::Accepted);
    assert!(a.vault.settings().unwrap().receipts);
    let set = a.owes().into_iter().filter(|request| matches!(request, Request::SetConversation { .. }));
    assert_eq!(set.collect::<Vec<_>>(), [set_conversation(talk, true, 5)]);
}

#[test]
fn what_the_server_says_late_changes_nothing_that_another_device_has_decided() {
    let (mut relay, mut a, mut second, _b, talk) = with_two();
    a.vault.mute(talk, Some(5)).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    second.tells_the_server();
    second.vault.learn_preferences(&[(talk, said(true, 0))]).unwrap();
    assert_eq!(second.owes(), []);
    a.vault.mute(talk, Some(0)).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    second.vault.learn_preferences(&[(talk, said(true, 5))]).unwrap();
    assert_eq!(second.owes(), [set_conversation(talk, true, 0)]);
}
