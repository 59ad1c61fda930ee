//! The devices of an account are in step, whatever is lost, doubled or late, and whoever else has something to say.

use std::cell::RefCell;

use bytes::Bytes;
use gureum_proto::limits::LOG_ENTRIES_MAX;
use gureum_proto::{
    AccountFound, AccountId, Code, ConversationId, ConversationKind, ConversationState, ConversationWith,
    DeliveryFrame, DeviceId, EnvelopeBody, Gap, GapReason, Group, LogHead, Position, Relation,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::attacks::{ghost_package, malicious_add};
use super::relay::Held;
use super::*;
use crate::e2ee::content::record::Record;
use crate::e2ee::content::{Body, Content};
use crate::limits::{DEVICE_NAMES_MAX, NUMBER_MAX, RECORDS_MAX, TOLD_MAX, WISHES_MAX};
use crate::vault::in_step::take_records;
use crate::vault::receipts::read_number;

impl Person {
    /// Sends what the other devices are to be told; in how many messages.
    pub(super) fn tell(&mut self, relay: &mut Relay) -> usize {
        self.vault.queue_records().unwrap();
        let sends = self.vault.next_sends(0, 64).unwrap();
        for send in &sends {
            assert!(send.silent, "it is for programs alone");
            let sent = relay.send(self, send);
            assert_eq!(self.vault.settle(&sent).unwrap(), Settled::Silent);
        }
        sends.len()
    }

    fn own(&mut self) -> Conversation {
        self.vault.own_conversation().unwrap().expect("there is one")
    }

    fn receipts_are_on(&mut self) -> bool {
        self.vault.settings().unwrap().receipts
    }
}

/// Begins the conversation of a person's devices, with those whose KeyPackages these are.
fn begin_own(relay: &mut Relay, from: &mut Person, packages: &[(DeviceId, Bytes)]) -> ConversationId {
    let create = from.vault.begin_own_conversation(packages).unwrap();
    assert_eq!(create.with, ConversationWith::Own);
    let id = create.conversation;
    let group = Group { epoch: 1, group_info: create.group_info, tree: create.tree };
    relay.conversations.insert(id, Held::of(vec![from.account], group));
    from.vault.conversation_created(id).unwrap();
    if !create.welcome.is_empty() {
        relay.push(from.account, from.device, id, EnvelopeBody::Welcome(create.welcome));
    }
    id
}

/// Everybody tells and takes, until nobody has anything to tell.
pub(super) fn come_into_step(relay: &mut Relay, devices: &mut [&mut Person]) {
    for _ in 0..10 {
        let mut told = 0;
        for device in devices.iter_mut() {
            told += device.tell(relay);
        }
        for device in devices.iter_mut() {
            device.take(relay);
        }
        if told == 0 {
            return;
        }
    }
    panic!("they tell one another something without end");
}

/// Alice with two devices that are in step, and Bob.
pub(super) fn with_two() -> (Relay, Person, Person, Person, ConversationId) {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.rejoin(&mut relay, talk);
    let own = begin_own(&mut relay, &mut a, &[]);
    second.rejoin(&mut relay, own);
    second.vault.hear_decisions().unwrap();
    b.take(&mut relay);
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    (relay, a, second, b, talk)
}

fn reads(events: &[Event]) -> Vec<(u64, u64, String)> {
    let read = |event: &Event| match event {
        Event::Read { number, unread, by_device, .. } => Some((*number, *unread, by_device.clone())),
        _ => None,
    };
    events.iter().filter_map(read).collect()
}

#[test]
fn what_one_device_has_read_is_read_on_the_others() {
    let (mut relay, mut a, mut second, mut b, talk) = with_two();
    b.say(&mut relay, talk, "one");
    b.say(&mut relay, talk, "two");
    for device in [&mut a, &mut second] {
        device.take(&mut relay);
        assert_eq!(device.vault.unread(talk).unwrap(), 2);
    }
    a.vault.mark_read(talk).unwrap();
    assert_eq!((a.vault.unread(talk).unwrap(), a.tell(&mut relay)), (0, 1));
    assert_eq!(reads(&second.take(&mut relay)), [(2, 0, "laptop".to_owned())]);
    assert_eq!(second.vault.unread(talk).unwrap(), 0);
    b.say(&mut relay, talk, "three");
    second.take(&mut relay);
    assert_eq!(second.vault.unread(talk).unwrap(), 1);
    assert_eq!((a.tell(&mut relay), second.tell(&mut relay)), (0, 0), "told once, and not told back");
}

#[test]
fn what_one_device_has_sent_is_no_unread_message_on_the_others() {
    let (mut relay, mut a, mut second, _, talk) = with_two();
    a.say(&mut relay, talk, "mine");
    let came = second.take(&mut relay);
    let is_own = |event: &Event| matches!(event, Event::Message(message) if message.own && message.text == "mine");
    assert!(came.iter().any(is_own), "{came:?}");
    assert_eq!(second.vault.unread(talk).unwrap(), 0);
}

#[test]
fn what_is_decided_last_is_so_everywhere() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    a.vault.set_receipts(false).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(!second.receipts_are_on());
    second.vault.set_receipts(true).unwrap();
    second.vault.set_typing(false).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(a.receipts_are_on() && second.receipts_are_on());
    assert!(!a.vault.settings().unwrap().typing);
    // Both at once: whatever counts, it is the same on both.
    a.vault.set_receipts(false).unwrap();
    second.vault.set_receipts(true).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert_eq!(a.receipts_are_on(), second.receipts_are_on());
}

#[test]
fn a_new_device_has_what_the_others_have_and_knows_whom_they_have_met() {
    let (mut relay, mut a, mut second, mut b, talk) = with_two();
    b.say(&mut relay, talk, "hello");
    a.take(&mut relay);
    a.vault.mark_read(talk).unwrap();
    a.vault.set_typing(false).unwrap();
    let mut third = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.learn(&relay, a.account);
    let own = a.own().id;
    third.rejoin(&mut relay, own);
    come_into_step(&mut relay, &mut [&mut a, &mut second, &mut third]);
    assert!(!third.vault.settings().unwrap().typing);
    let (account, at) = (b.account, relay.log(b.account).at());
    assert_eq!(third.inside(|work| work.pin(account).unwrap()), Some(at), "it knows how far the log goes");
    assert_eq!(third.vault.device_names().unwrap().len(), 3);

    // The server cannot give it another Bob.
    let impostor = Person::register(&mut relay, "mallory");
    let found = AccountFound { handle: "bob".parse().unwrap(), ..relay.found(impostor.account, 0) };
    let refused = third.vault.learn_account(&found, 0).map(drop);
    assert!(matches!(refused, Err(TrustError::HandleMoved { .. })), "{refused:?}");
    third.learn(&relay, account);
    assert_eq!(third.vault.contact_by_handle(&"bob".parse().unwrap()).unwrap().unwrap().account, account);
}

#[test]
fn a_device_with_a_key_package_comes_in_by_the_welcome() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    let package = second.vault.make_key_packages(1).unwrap().remove(0);
    let itself = a.device;
    let own = begin_own(&mut relay, &mut a, &[(second.device, package), (itself, Bytes::new())]);
    assert_eq!(second.take(&mut relay), [], "nobody is told of it");
    assert_eq!((second.own().id, second.own().state), (own, ConversationStatus::Active));
    a.vault.set_typing(false).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(!second.vault.settings().unwrap().typing);
}

#[test]
fn a_key_package_that_does_not_hold_keeps_nobody_else_out() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    begin_own(&mut relay, &mut a, &[(second.device, Bytes::from_static(b"none"))]);
    assert_eq!(a.own().state, ConversationStatus::Active);
    let again = a.vault.begin_own_conversation(&[]).map(drop);
    assert!(matches!(again, Err(BeginError::Exists(_))), "{again:?}");
}

#[test]
fn who_may_have_missed_something_asks_for_all_of_it() {
    let (mut relay, mut a, mut second, mut b, talk) = with_two();
    b.say(&mut relay, talk, "hello");
    a.take(&mut relay);
    second.take(&mut relay);
    a.vault.mark_read(talk).unwrap();
    let before = second.vault.hello_claim(false).unwrap().cursor;
    assert_eq!(a.tell(&mut relay), 1);
    let to = Position { seq: before.seq + 1, count: before.count };
    let gap = Gap { from_seq: to.seq, to, missed: 0, reason: GapReason::Expired };
    let taken = second.vault.take(&[DeliveryFrame::Gap(gap)]).unwrap();
    assert!(taken.events.is_empty() && taken.owes_records, "{taken:?}");
    assert_eq!(second.vault.unread(talk).unwrap(), 1);
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert_eq!(second.vault.unread(talk).unwrap(), 0);
}

#[test]
fn one_device_answers_where_several_could() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let mut third = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.learn(&relay, a.account);
    let own = a.own().id;
    third.rejoin(&mut relay, own);
    come_into_step(&mut relay, &mut [&mut a, &mut second, &mut third]);
    third.inside(|work| work.wish_for_all().unwrap());
    assert_eq!(third.tell(&mut relay), 1);
    a.take(&mut relay);
    second.take(&mut relay);
    assert_eq!(a.tell(&mut relay), 1);
    second.take(&mut relay);
    assert_eq!(second.tell(&mut relay), 0);
}

#[test]
fn what_does_not_go_into_one_message_goes_into_several() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    a.inside(|work| {
        for index in 0..=u32::try_from(RECORDS_MAX).unwrap() {
            let mut id = [9; 16];
            id[..4].copy_from_slice(&index.to_be_bytes());
            let record = Record::Mark { conversation: ConversationId::from_bytes(id), number: 5 };
            take_records(work, work.identity.device, vec![record]).unwrap();
            work.owe_record(crate::e2ee::content::record::MARK, &id).unwrap();
        }
    });
    assert_eq!(a.tell(&mut relay), 2);
    second.take(&mut relay);
    let sql = "SELECT count(*) FROM mark WHERE read_number = 5";
    let known: u64 = second.inside(|work| work.connection.query_row(sql, [], |row| row.get(0)).unwrap());
    assert_eq!(known, RECORDS_MAX as u64 + 1);
}

#[test]
fn nobody_else_has_a_say_in_it() {
    let (mut relay, mut a, _, mut b, talk) = with_two();
    let value = "off".to_owned();
    let record = Record::Setting { key: "receipts".to_owned(), value, stamp: 9, device: b.device };
    let content = Content { id: [9; 16], body: Body::Records(vec![record]) };
    b.whisper(&mut relay, talk, &content.to_bytes());
    assert_eq!(a.take(&mut relay), []);
    assert!(a.receipts_are_on());
}

#[test]
fn it_is_no_conversation_to_people() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let own = a.own().id;
    let said = a.vault.queue_text(own, "to myself").map(drop);
    assert!(matches!(&said, Err(QueueError::Vault(VaultError::NoConversation(id))) if *id == own), "{said:?}");
    let resolved = a.vault.resolve(&own.to_string().parse().unwrap()).unwrap();
    assert_eq!(resolved, Resolved::Unknown);
    assert!(matches!(a.vault.mark_read(own), Err(VaultError::NoConversation(_))));
    // Who has lost its keys comes back unheard.
    let before = second.vault.unreported_events(100).unwrap();
    second.rejoin(&mut relay, own);
    assert_eq!(a.take(&mut relay), []);
    assert_eq!(second.vault.unreported_events(100).unwrap(), before);
}

#[test]
fn a_revoked_device_is_put_out_before_anything_is_said() {
    let (mut relay, mut a, second, _, _) = with_two();
    let own = a.own().id;
    a.vault.set_typing(false).unwrap();
    a.revoke(&mut relay, second.device);
    assert!(a.vault.removals_due().unwrap().contains(&own));
    a.vault.queue_records().unwrap();
    let due: Vec<_> = a.vault.next_sends(0, 64).unwrap().into_iter().map(|send| send.conversation).collect();
    assert!(!due.contains(&own), "{due:?}");
    a.remove_revoked(&mut relay, own);
    a.vault.set_receipts(false).unwrap();
    a.vault.queue_records().unwrap();
    assert!(!a.vault.next_sends(0, 64).unwrap().is_empty(), "what was put into the outbox before goes out");
    assert!(!a.inside(|work| work.owes_records().unwrap()), "nobody else is there to be told");
}

#[test]
fn where_the_server_has_gone_back_it_is_joined_as_it_is_there_or_begun_anew() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let (own, held) = (a.own().id, a.own().epoch);
    let events = a.vault.unreported_events(100).unwrap();
    assert_eq!(a.vault.note_server_epoch(own, held, Some(1)).unwrap(), None);
    assert_eq!(a.vault.own_conversation().unwrap(), None);
    let accounts = vec![a.account];
    let listed = ConversationState { conversation: own, epoch: 1, accounts, kind: ConversationKind::Own };
    let need = a.vault.note_conversation(&listed).unwrap();
    assert_eq!(need, Some(Need::Rejoin { conversation: own }));
    a.rejoin(&mut relay, own);
    a.vault.set_typing(false).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(!second.vault.settings().unwrap().typing);

    let held = a.own().epoch;
    assert_eq!(a.vault.note_server_epoch(own, held, None).unwrap(), None);
    assert_ne!(begin_own(&mut relay, &mut a, &[]), own);
    let told = a.vault.unreported_events(100).unwrap();
    assert_eq!(told.len(), events.len(), "it is nothing that people are told: {told:?}");
}

#[test]
fn of_two_that_are_begun_at_once_the_servers_counts() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    let theirs = begin_own(&mut relay, &mut a, &[]);
    let ours = second.vault.begin_own_conversation(&[]).unwrap().conversation;
    assert_eq!(second.vault.pending_creations().unwrap()[0].with, ConversationWith::Own, "asked for again as it was");
    second.vault.conversation_existed(ours, theirs).unwrap();
    assert_eq!((second.own().id, second.own().state), (theirs, ConversationStatus::Absent));
    assert_eq!(second.vault.conversation(ours).unwrap(), None);
    second.rejoin(&mut relay, theirs);
    assert_eq!(second.own().state, ConversationStatus::Active);
}

#[test]
fn a_message_of_a_conversation_that_was_made_without_this_device_makes_it_look() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut second = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    let own = begin_own(&mut relay, &mut a, &[]);
    relay.push(a.account, a.device, own, EnvelopeBody::Silent(Bytes::from_static(b"sealed")));
    let frames = relay.frames(&mut second);
    assert!(second.vault.take(&frames).unwrap().unlisted);
}

#[test]
fn two_pasts_of_one_log_are_told_once() {
    let (relay, mut a, second, b, _) = with_two();
    let (account, at) = (b.account, relay.log(b.account).at());
    let mut told = |log: LogHead| {
        let record = Record::Contact { account, handle: "bob".parse().unwrap(), log };
        let told = a.inside(|work| take_records(work, second.device, vec![record]).unwrap());
        told.into_iter().map(|stored| stored.event).collect::<Vec<_>>()
    };
    let other = LogHead { hash: [0; 32], ..at };
    assert_eq!(told(at), []);
    assert_eq!(told(other), [Event::LogForked { account, handle: "bob".to_owned() }]);
    assert_eq!(told(other), []);
    let longer = LogHead { length: at.length + 1, hash: [1; 32] };
    assert_eq!(told(longer), [], "this device has yet to learn it");
}

#[test]
fn what_a_device_tells_of_a_log_is_said_to_be_its_word_and_counts_until_it_is_revoked() {
    let (mut relay, mut a, second, b, _) = with_two();
    let (account, device) = (b.account, second.device);
    let tell = |a: &mut Person, log: LogHead| {
        let record = Record::Contact { account, handle: "bob".parse().unwrap(), log };
        a.inside(|work| take_records(work, device, vec![record]).unwrap().len())
    };
    let none = LogHead { length: LOG_ENTRIES_MAX, hash: [7; 32] };
    assert_eq!(tell(&mut a, none), 0);
    let refused = a.vault.learn_account(&relay.found(account, 1), 1).map(drop).unwrap_err();
    assert!(matches!(&refused, TrustError::Shorter { told_by: Some(by), .. } if by == "laptop"), "{refused:?}");
    assert!(refused.to_string().contains("your device laptop"), "{refused}");
    a.revoke(&mut relay, device);
    a.learn(&relay, account);
    assert_eq!((tell(&mut a, none), a.inside(|work| work.pin(account).unwrap())), (0, None));
    // Whom it had met by then is known, as it is to those that heard so before.
    let (met, handle) = (AccountId::from_bytes([8; 16]), "carol".parse().unwrap());
    a.inside(|work| {
        take_records(work, device, vec![Record::Contact { account: met, handle, log: none }]).unwrap();
        assert!(work.knows(met).unwrap() && work.pin(met).unwrap().is_none());
    });
}

/// Alice with a third device, which all know.
fn with_three() -> (Relay, Person, Person, Person) {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let mut third = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.learn(&relay, a.account);
    let own = a.own().id;
    third.rejoin(&mut relay, own);
    come_into_step(&mut relay, &mut [&mut a, &mut second, &mut third]);
    (relay, a, second, third)
}

fn receipts(on: bool, stamp: u64, device: DeviceId) -> Record {
    let value = if on { "on" } else { "off" }.to_owned();
    Record::Setting { key: "receipts".to_owned(), value, stamp, device }
}

#[test]
fn what_a_revoked_device_has_decided_gives_way_whenever_the_others_learn_of_it() {
    let (mut relay, mut a, mut second, third) = with_three();
    let hear = |to: &mut Person, from: DeviceId, record: Record| {
        to.inside(|work| take_records(work, from, vec![record]).map(drop).unwrap());
    };
    for device in [&mut a, &mut second] {
        hear(device, third.device, receipts(false, NUMBER_MAX, third.device));
        assert!(!device.receipts_are_on());
    }
    a.revoke(&mut relay, third.device);
    let own = a.own().id;
    a.remove_revoked(&mut relay, own);
    a.vault.set_receipts(true).unwrap();
    assert!(a.receipts_are_on());
    // The other one hears of it before it knows, and once only.
    hear(&mut second, a.device, receipts(true, 1, a.device));
    assert!(!second.receipts_are_on());
    a.inside(|work| work.connection.execute("DELETE FROM owed_record", []).unwrap());
    second.take(&mut relay);
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(a.receipts_are_on() && second.receipts_are_on());
    second.vault.set_receipts(false).unwrap();
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(!a.receipts_are_on() && !second.receipts_are_on());
}

#[test]
fn what_is_decided_on_active_and_revoked_devices_merges_to_the_same_in_any_order() {
    let (mut relay, mut a, second, third) = with_three();
    a.revoke(&mut relay, third.device);
    let records = [receipts(false, 3, third.device), receipts(true, 1, a.device), receipts(false, 2, second.device)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let told: Vec<_> = order.iter().chain(&order).map(|index: &usize| records[*index].clone()).collect();
        let kept = a.inside(|work| {
            work.step(|work| {
                take_records(work, second.device, told)?;
                Ok::<_, VaultError>((work.all_records()?, false))
            })
            .unwrap()
        });
        assert!(kept.contains(&records[2]), "{order:?}: {kept:?}");
    }
}

#[test]
fn where_a_commit_breaks_the_rule_it_is_forgotten_and_joined_as_it_is_there() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let (own, before) = (a.own().id, relay.conversations[&a.own().id].clone());
    let ghost = ghost_package(&a);
    let submit = malicious_add(&mut relay, &mut second, own, &ghost);
    relay.commit(&second, &submit);
    let events = a.take(&mut relay);
    let is_refused = |event: &Event| matches!(event, Event::CommitRefused { stopped: false, with: None, .. });
    assert!(events.iter().any(is_refused), "{events:?}");
    assert_eq!(a.vault.own_conversation().unwrap(), None);
    relay.conversations.insert(own, before);
    let epoch = relay.conversations[&own].group.epoch;
    let listed = ConversationState { conversation: own, epoch, accounts: vec![a.account], kind: ConversationKind::Own };
    assert_eq!(a.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: own }));
    a.rejoin(&mut relay, own);
    assert_eq!((a.own().id, a.own().state), (own, ConversationStatus::Active));
}

#[test]
fn what_was_said_for_an_epoch_before_a_device_came_in_makes_it_ask_again() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    let mut third = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    second.learn(&relay, a.account);
    second.vault.set_typing(false).unwrap();
    second.vault.queue_records().unwrap();
    let late = second.vault.next_sends(0, 64).unwrap();
    let own = a.own().id;
    third.rejoin(&mut relay, own);
    come_into_step(&mut relay, &mut [&mut a, &mut third]);
    assert!(third.vault.settings().unwrap().typing);
    for send in &late {
        relay.send(&second, send);
    }
    third.take(&mut relay);
    assert!(third.inside(|work| work.owes_records().unwrap()), "it asks");
}

#[test]
fn who_comes_in_again_tells_again_what_was_refused() {
    let (mut relay, mut a, mut second, _, _) = with_two();
    a.vault.set_typing(false).unwrap();
    a.vault.queue_records().unwrap();
    for send in a.vault.next_sends(0, 64).unwrap() {
        assert_eq!(a.vault.settle(&Relay::refuse(&send, Code::NotMember)).unwrap(), Settled::Silent);
    }
    let own = a.own().id;
    a.rejoin(&mut relay, own);
    come_into_step(&mut relay, &mut [&mut a, &mut second]);
    assert!(!second.vault.settings().unwrap().typing);
}

#[test]
fn what_a_device_tells_of_what_nobody_knows_has_an_end() {
    let (_, mut a, second, _, talk) = with_two();
    let from = second.device;
    let id = |number: u64| u128::from(number).to_be_bytes();
    let tell_all = |a: &mut Person, records: Vec<Record>| {
        a.inside(|work| take_records(work, from, records).unwrap());
    };
    let tell = |a: &mut Person, record: Record| tell_all(a, vec![record]);
    let count = |a: &mut Person, table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        a.inside(|work| work.connection.query_row(&sql, [], |row| row.get::<_, u64>(0)).unwrap())
    };
    tell_all(&mut a, (0..WISHES_MAX + 9).map(|number| Record::Please(id(number))).collect());
    assert_eq!(count(&mut a, "owed_record WHERE kind = 6"), WISHES_MAX);
    let name = |number| {
        let device = DeviceId::from_bytes(id(number));
        Record::DeviceName { device, name: "phone".to_owned(), stamp: 0 }
    };
    tell_all(&mut a, (0..DEVICE_NAMES_MAX + 9).map(name).collect());
    assert_eq!(count(&mut a, "device_name"), DEVICE_NAMES_MAX);
    a.inside(|work| {
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                   INSERT INTO mark SELECT CAST(printf('%016d', i) AS BLOB), 1 FROM n";
        work.connection.execute(sql, [TOLD_MAX]).unwrap();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                   INSERT INTO contact (account, handle) SELECT CAST(printf('%016d', i) AS BLOB), 'x' || i FROM n";
        work.connection.execute(sql, [TOLD_MAX]).unwrap();
    });
    let (marks, contacts) = (count(&mut a, "mark"), count(&mut a, "contact"));
    tell(&mut a, Record::Mark { conversation: ConversationId::from_bytes([9; 16]), number: 7 });
    let (handle, log) = ("carol".parse().unwrap(), LogHead { length: 1, hash: [4; 32] });
    tell(&mut a, Record::Contact { account: AccountId::from_bytes([9; 16]), handle, log });
    assert_eq!((count(&mut a, "mark"), count(&mut a, "contact"), count(&mut a, "log_pin")), (marks, contacts, 0));
    // Of what this device knows otherwise, it is told as ever.
    tell(&mut a, Record::Mark { conversation: talk, number: 7 });
    let read = a.inside(|work| read_number(work, talk).unwrap());
    assert_eq!(read, 7);
}

/// Few of each kind, so that they meet.
fn record() -> impl Strategy<Value = Record> {
    let device = || (1_u8..4).prop_map(|byte| DeviceId::from_bytes([byte; 16]));
    prop_oneof![
        (1_u8..4, 0_u64..6).prop_map(|(byte, number)| {
            Record::Mark { conversation: ConversationId::from_bytes([byte; 16]), number }
        }),
        (prop_oneof!["receipts", "typing", "later"], prop_oneof!["on", "off"], 0_u64..4, device())
            .prop_map(|(key, value, stamp, device)| Record::Setting { key, value, stamp, device }),
        (1_u8..4, 1_u8..5).prop_map(|(byte, length)| {
            let handle = format!("friend{byte}").parse().unwrap();
            let log = LogHead { length: u64::from(length), hash: [length; 32] };
            Record::Contact { account: AccountId::from_bytes([byte; 16]), handle, log }
        }),
        (device(), "[ab]", 0_u64..2).prop_map(|(device, name, stamp)| Record::DeviceName { device, name, stamp }),
        (1_u8..4, prop_oneof![Just(Relation::Accepted), Just(Relation::Blocked)], 0_u64..4, device()).prop_map(
            |(byte, relation, stamp, device)| {
                Record::Relation { account: AccountId::from_bytes([byte; 16]), relation, stamp, device }
            }
        ),
        (1_u8..4, any::<bool>(), 0_u64..3, 0_u64..4, device()).prop_map(
            |(byte, accepted, muted_until_ms, stamp, device)| {
                let conversation = ConversationId::from_bytes([byte; 16]);
                Record::Preference { conversation, accepted, muted_until_ms, stamp, device }
            }
        ),
    ]
}

/// What is kept, and how far logs were seen.
fn kept(work: &mut Work<'_>) -> (Vec<Record>, Vec<Option<LogHead>>) {
    let pins = (1_u8..4).map(|byte| work.pin(AccountId::from_bytes([byte; 16])).unwrap()).collect();
    (work.all_records().unwrap(), pins)
}

fn greatest<T: Ord>(records: &[Record], of: impl Fn(&Record) -> Option<T>) -> Option<T> {
    records.iter().filter_map(of).max()
}

/// Each record of a device that has taken all of these is the greatest there is.
fn check_greatest(kept: &[Record], records: &[Record]) -> Result<(), TestCaseError> {
    for one in kept {
        match one {
            Record::Mark { conversation, number } => {
                let of = |record: &Record| match record {
                    Record::Mark { conversation: at, number } if at == conversation => Some(*number),
                    _ => None,
                };
                prop_assert_eq!(greatest(records, of), Some(*number));
            }
            Record::Setting { key, value, stamp, device } => {
                let of = |record: &Record| match record {
                    Record::Setting { key: of, value, stamp, device } if of == key => {
                        Some((*stamp, *device, value.clone()))
                    }
                    _ => None,
                };
                prop_assert_eq!(greatest(records, of), Some((*stamp, *device, value.clone())));
            }
            Record::DeviceName { device, name, stamp } => {
                let of = |record: &Record| match record {
                    Record::DeviceName { device: of, name, stamp } if of == device => Some((*stamp, name.clone())),
                    _ => None,
                };
                // Of itself a device knows best.
                let told = greatest(records, of);
                prop_assert!(told.is_none() || told == Some((*stamp, name.clone())));
            }
            Record::Relation { account, stamp, device, .. } => {
                let of = |record: &Record| match record {
                    Record::Relation { account: of, stamp, device, .. } if of == account => Some((*stamp, *device)),
                    _ => None,
                };
                prop_assert_eq!(greatest(records, of), Some((*stamp, *device)));
            }
            Record::Preference { conversation, stamp, device, .. } => {
                let of = |record: &Record| match record {
                    Record::Preference { conversation: of, stamp, device, .. } if of == conversation => {
                        Some((*stamp, *device))
                    }
                    _ => None,
                };
                prop_assert_eq!(greatest(records, of), Some((*stamp, *device)));
            }
            Record::Contact { .. }
            | Record::Please(_)
            | Record::Answered(_)
            | Record::Taken(_)
            | Record::Offered(_) => {}
        }
    }
    Ok(())
}

#[test]
fn records_merge_to_the_same_in_any_order_however_often_they_come() {
    let mut relay = Relay::default();
    let person = RefCell::new(Person::register(&mut relay, "alice"));
    let from = DeviceId::from_bytes([1; 16]);
    let merged = |records: &[Record]| {
        person.borrow_mut().inside(|work| {
            work.step(|work| {
                let unlike = take_records(work, from, records.to_vec())?;
                let first = kept(work);
                let again = take_records(work, from, records.to_vec())?;
                let told = (unlike.len(), again.len());
                Ok::<_, VaultError>(((first.clone(), first == kept(work), told), false))
            })
            .unwrap()
        })
    };
    let twice = |records: Vec<Record>| {
        let both = [records.clone(), records.clone()].concat();
        (Just(records), Just(both).prop_shuffle())
    };
    let records = proptest::collection::vec(record(), 1..24).prop_flat_map(twice);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) });
    let outcome = runner.run(&records, |(records, shuffled)| {
        let (first, is_idempotent, told) = merged(&records);
        prop_assert!(is_idempotent);
        prop_assert_eq!(told, (0, 0), "nothing is told of conversations that are not here");
        check_greatest(&first.0, &records)?;
        prop_assert_eq!(merged(&shuffled).0, first);
        Ok(())
    });
    outcome.unwrap();
}
