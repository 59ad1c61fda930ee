//! One conversation's trouble stays its own, and what is missed is asked for each time.

use ciborium::Value;
use gureum_proto::{Commits, ConversationId, ConversationState, EnvelopeBody, Group, MessageId, SharedEnvelope};

use super::*;

/// Takes the inbox, where the commits that are asked for are gone and the server shows this state to rejoin by.
fn take_without_commits(relay: &Relay, person: &mut Person, state: &Group) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..10 {
        let frames = relay.frames(person);
        let taken = person.vault.take(&frames).unwrap();
        events.extend(taken.events.into_iter().map(|stored| stored.event));
        match taken.need {
            None => return events,
            Some(Need::Commits { conversation, .. } | Need::Rejoin { conversation }) => {
                drop(person.vault.rejoin(conversation, state).unwrap_err());
            }
            Some(need) => panic!("{need:?}"),
        }
    }
    panic!("needs without end");
}

/// The other side goes on to an epoch whose commit never arrives, and says something there.
fn say_past_a_missed_commit(relay: &mut Relay, from: &mut Person, to: &Person, talk: ConversationId, text: &str) {
    from.renew(relay, talk);
    let inbox = &mut relay.accounts.get_mut(&to.account).unwrap().inbox;
    inbox.pop();
    from.say(relay, talk, text);
}

#[test]
fn an_epoch_beyond_all_commits_is_passed_over() {
    let (relay, a, mut b, talk) = Relay::with_a_pair();
    let accounts = vec![a.account, b.account];
    for (conversation, epoch) in [(talk, u64::MAX), (ConversationId::from_bytes([9; 16]), 1 << 63)] {
        let listed = ConversationState { conversation, epoch, accounts: accounts.clone(), kind: DIRECT };
        assert_eq!(b.vault.note_conversation(&listed).unwrap(), None);
    }
    let page = Commits { epoch: u64::MAX, ..relay.commits(talk, 1) };
    assert_eq!(b.vault.apply_commits(talk, &page, None).unwrap(), Applied::Needs(Need::Rejoin { conversation: talk }));
    let state = Group { epoch: u64::MAX, ..relay.conversations[&talk].group.clone() };
    assert!(matches!(b.vault.rejoin(talk, &state), Err(RejoinError::Refused(_))));
    let known = b.vault.conversations().unwrap();
    assert_eq!(known.iter().map(|known| (known.id, known.epoch)).collect::<Vec<_>>(), [(talk, 1)]);
    b.vault.rejoin(talk, &relay.conversations[&talk].group).unwrap();
}

#[test]
fn a_welcome_into_an_epoch_beyond_all_commits_is_refused() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let package = carol.vault.make_last_resort().unwrap();
    let welcome = a.inside(|work| {
        let sql = "SELECT group_data FROM openmls_group_data WHERE data_type = 'context'";
        let context: Vec<u8> = work.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        let Value::Map(mut fields) = ciborium::from_reader(context.as_slice()).unwrap() else { panic!("no map") };
        fields.iter_mut().find(|(name, _)| name.as_text() == Some("epoch")).unwrap().1 = Value::from(1_u64 << 63);
        let mut context = Vec::new();
        ciborium::into_writer(&Value::Map(fields), &mut context).unwrap();
        let sql = "UPDATE openmls_group_data SET group_data = ?1 WHERE data_type = 'context'";
        work.connection.execute(sql, [context]).unwrap();
        let (package, _) = work.mls().read_key_package(&package).unwrap();
        let mut group = work.mls().load(talk).unwrap().unwrap();
        work.mls().add(&mut group, vec![package]).welcome
    });
    let shared = SharedEnvelope {
        message_id: MessageId::new(1, 1),
        conversation: talk,
        sender_account: a.account,
        sender_device: a.device,
        body: EnvelopeBody::Welcome(welcome.into()),
    };
    relay.push_to(carol.account, shared);
    let events = carol.take(&mut relay);
    let [Event::CommitRefused { why, stopped: false, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert!(why.contains("beyond"), "{why}");
    assert_eq!(carol.vault.conversations().unwrap(), []);
}

#[test]
fn a_conversation_that_rejoined_too_often_holds_up_no_other() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, b.account);
    b.take(&mut relay);
    b.inside(|work| (0..3).for_each(|_| work.note_rejoin_attempt(talk).unwrap()));
    say_past_a_missed_commit(&mut relay, &mut a, &b, talk, "lost");
    carol.say(&mut relay, other, "hello");
    let state = relay.conversations[&talk].group.clone();
    let events = take_without_commits(&relay, &mut b, &state);
    assert!(
        events.iter().any(|event| matches!(event, Event::Unreadable { conversation, .. } if *conversation == talk))
    );
    assert_eq!(b.history(), ["<unreadable>", "hello"]);
}

#[test]
fn a_state_that_is_refused_leaves_its_messages_unreadable_and_no_more() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let old = relay.conversations[&talk].group.clone();
    say_past_a_missed_commit(&mut relay, &mut a, &b, talk, "lost");
    let lied = Group { epoch: 2, ..old };
    take_without_commits(&relay, &mut b, &lied);
    assert_eq!(b.history(), ["<unreadable>"]);
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, b.account);
    carol.say(&mut relay, other, "hello");
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>", "hello"]);
}

#[test]
fn the_races_of_one_rejoin_count_once() {
    let (relay, _, mut b, talk) = Relay::with_a_pair();
    let group = relay.conversations[&talk].group.clone();
    for _ in 0..3 {
        b.vault.rejoin(talk, &group).unwrap();
        for _ in 0..3 {
            b.vault.commit_rejected(talk).unwrap();
            b.vault.rejoin_again(talk, &group).unwrap();
        }
        b.vault.commit_rejected(talk).unwrap();
    }
    assert!(matches!(b.vault.rejoin(talk, &group), Err(RejoinError::TooOften { .. })));
}

#[test]
fn a_rejoin_that_lost_every_race_does_not_ask_for_the_commits_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    say_past_a_missed_commit(&mut relay, &mut a, &b, talk, "lost");
    let frames = relay.frames(&mut b);
    assert!(matches!(b.vault.take(&frames).unwrap().need, Some(Need::Commits { .. })));
    for _ in 0..2 {
        assert!(matches!(b.vault.rejoin_raced(talk), RejoinError::Raced));
        assert_eq!(b.vault.take(&frames).unwrap().need, Some(Need::Rejoin { conversation: talk }));
    }
    b.inside(|work| (0..3).for_each(|_| work.note_rejoin_attempt(talk).unwrap()));
    assert_eq!(b.vault.take(&frames).unwrap().need, None);
    assert_eq!(b.history(), ["<unreadable>"]);
}

#[test]
fn commits_missed_a_second_time_in_one_process_are_fetched_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for text in ["first absence", "second absence", "third absence"] {
        say_past_a_missed_commit(&mut relay, &mut a, &b, talk, text);
        b.take(&mut relay);
    }
    assert_eq!(b.history(), ["first absence", "second absence", "third absence"]);
}

#[test]
fn commits_fetched_before_a_message_came_say_nothing_about_it() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.renew(&mut relay, talk);
    relay.accounts.get_mut(&b.account).unwrap().inbox.pop();
    b.meet(&mut relay, Need::Commits { conversation: talk, from_epoch: 1, to_epoch: None });
    assert_eq!(b.vault.conversation(talk).unwrap().unwrap().epoch, 2);
    say_past_a_missed_commit(&mut relay, &mut a, &b, talk, "later");
    b.take(&mut relay);
    assert_eq!(b.history(), ["later"]);
}

#[test]
fn what_waited_for_a_refused_conversation_fails_and_says_so() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    a.learn(&relay, b.account);
    let package = (b.device, b.vault.make_last_resort().unwrap());
    let made = a.vault.begin_conversation(b.account, &[package], &[]).unwrap().conversation;
    let queued = ["one", "two"].map(|text| a.vault.queue_text(made, text).unwrap());
    let failed = a.vault.abandon_conversation(made, "no such account").unwrap();
    let expected = queued.map(|outbox| {
        let (with, why) = (Some("bob".to_owned()), "no such account".to_owned());
        Event::SendFailed { outbox, conversation: made, with, why }
    });
    assert_eq!(failed.iter().map(|stored| stored.event.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(a.vault.unreported_events(9).unwrap(), failed);
    assert_eq!(a.vault.unreported_events_with(b.account, 9).unwrap(), failed);
    assert_eq!(a.vault.outbox_len().unwrap(), 0);
    assert_eq!(a.vault.abandon_conversation(made, "again").unwrap(), []);
}

#[test]
fn news_of_one_conversation_are_found_behind_those_of_another() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, b.account);
    for number in 0..5 {
        carol.say(&mut relay, other, &number.to_string());
    }
    relay.push(carol.account, carol.device, other, EnvelopeBody::Message { number: 6, ciphertext: vec![1].into() });
    a.say(&mut relay, talk, "here");
    b.take(&mut relay);
    let news = b.vault.unreported_events_with(a.account, 2).unwrap();
    let [joined, message] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!(joined.event, Event::Joined { conversation: talk, peer: a.account });
    assert!(matches!(&message.event, Event::Message(message) if message.text == "here"), "{message:?}");
    b.vault.mark_reported(&[joined.id, message.id]).unwrap();
    assert_eq!(b.vault.unreported_events_with(a.account, 9).unwrap(), []);
    let theirs = b.vault.unreported_events_with(carol.account, 9).unwrap();
    assert!(matches!(theirs.last().unwrap().event, Event::Unreadable { conversation, .. } if conversation == other));
    assert_eq!(theirs.len(), 7);
    assert_eq!(b.vault.unreported_events(99).unwrap(), theirs);
}

#[test]
fn what_is_given_up_holds_up_nothing_and_is_tried_again_later() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, b.account);
    b.take(&mut relay);
    say_past_a_missed_commit(&mut relay, &mut a, &b, talk, "not now");
    a.say(&mut relay, talk, "nor this");
    carol.say(&mut relay, other, "hello");
    let frames = relay.frames(&mut b);
    let need = Need::Commits { conversation: talk, from_epoch: 1, to_epoch: Some(2) };
    assert_eq!(b.vault.take(&frames).unwrap().need, Some(need));
    assert_eq!(b.vault.behind().unwrap(), []);
    b.vault.give_up(need);
    assert_eq!(b.take(&mut relay).len(), 3);
    assert_eq!(b.history(), ["<unreadable>", "<unreadable>", "hello"]);
    let need = Need::Commits { conversation: talk, from_epoch: 1, to_epoch: None };
    assert_eq!(b.vault.behind().unwrap(), [need]);
    b.meet(&mut relay, need);
    a.say(&mut relay, talk, "again");
    b.take(&mut relay);
    assert_eq!(b.history().last().unwrap(), "again");
    assert_eq!(b.vault.behind().unwrap(), []);
}

#[test]
fn what_waits_for_a_later_epoch_says_so_until_it_is_there() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.renew(&mut relay, talk);
    a.queue(talk, "late");
    let sends = a.vault.next_sends(0, 64).unwrap();
    assert_eq!(a.vault.behind().unwrap(), []);
    a.vault.settle(&Relay::refuse(&sends[0], gureum_proto::Code::EpochStale)).unwrap();
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), [], "of the same epoch it would be refused again");
    a.reopen();
    let need = Need::Commits { conversation: talk, from_epoch: 1, to_epoch: None };
    assert_eq!(a.vault.behind().unwrap(), [need]);
    a.meet(&mut relay, need);
    assert_eq!(a.vault.behind().unwrap(), []);
    a.flush(&mut relay);
    b.take(&mut relay);
    assert_eq!(b.history(), ["late"]);
}

#[test]
fn a_conversation_given_up_without_a_group_is_one_to_join_later() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.inside(|work| {
        let group = work.group(talk).unwrap().unwrap();
        work.mls().delete(group).unwrap();
        let row = work.row(talk).unwrap().unwrap();
        work.put_row(&work::Row { state: ConversationStatus::Absent, epoch: 0, ..row }).unwrap();
    });
    a.say(&mut relay, talk, "unheard");
    let frames = relay.frames(&mut b);
    let need = Need::Rejoin { conversation: talk };
    assert_eq!(b.vault.take(&frames).unwrap().need, Some(need));
    b.vault.give_up(need);
    assert_eq!(b.vault.take(&frames).unwrap().need, None);
    assert_eq!(b.history(), ["<unreadable>"]);
    assert_eq!(b.vault.behind().unwrap(), [need]);
    b.rejoin(&mut relay, talk);
    assert_eq!(b.vault.behind().unwrap(), []);
}

#[test]
fn messages_that_wait_for_one_conversation_keep_no_counters_from_the_others() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut a, carol.account);
    b.renew(&mut relay, talk);
    (0..70).for_each(|number| a.queue(talk, &number.to_string()));
    for send in a.vault.next_sends(0, 64).unwrap() {
        a.vault.settle(&Relay::refuse(&send, gureum_proto::Code::EpochStale)).unwrap();
    }
    a.vault.release_counters(talk).unwrap();
    (0..70).for_each(|number| a.queue(other, &number.to_string()));
    let mut sent = 0;
    loop {
        let sends = a.vault.next_sends(0, 64).unwrap();
        if sends.iter().all(|send| send.conversation == talk) {
            break;
        }
        for send in sends {
            if send.conversation == other {
                let answer = relay.send(&a, &send);
                assert!(matches!(a.vault.settle(&answer).unwrap(), Settled::Sent(_)));
                sent += 1;
            } else {
                a.vault.settle(&Relay::refuse(&send, gureum_proto::Code::EpochStale)).unwrap();
                a.vault.release_counters(talk).unwrap();
            }
        }
    }
    assert_eq!(sent, 70);
    a.meet(&mut relay, Need::Commits { conversation: talk, from_epoch: 1, to_epoch: None });
    while a.vault.outbox_len().unwrap() > 0 {
        a.flush(&mut relay);
    }
    b.take(&mut relay);
    assert_eq!(b.history(), (0..70).map(|number| number.to_string()).collect::<Vec<_>>());
}
