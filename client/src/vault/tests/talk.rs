//! Talking: both ways, offline, across restarts, from several processes, over many epochs.

use gureum_proto::{Code, DeliveryFrame, Gap, GapReason, Position};

use super::*;

#[test]
fn a_conversation_goes_both_ways_and_reads_alike_on_both_sides() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "hello");
    b.take(&mut relay);
    b.say(&mut relay, talk, "안녕");
    a.take(&mut relay);
    a.say(&mut relay, talk, "how are you?");
    b.take(&mut relay);
    let expected = ["hello", "안녕", "how are you?"];
    assert_eq!(a.history(), expected);
    assert_eq!(b.history(), expected);
    let with = a.vault.history(Some(b.account.into()), 2).unwrap();
    let HistoryItem::Message(first) = &with[0] else { panic!("{with:?}") };
    assert_eq!((first.text.as_str(), first.from_handle.as_str(), first.own), ("안녕", "bob", false));
    assert_eq!((with.len(), first.seq, first.number), (2, Some(1), 2));
    assert_eq!(a.vault.history(Some(a.account.into()), 9).unwrap(), []);
}

#[test]
fn events_wait_until_they_are_reported() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.take(&mut relay);
    b.reopen();
    let waiting = b.vault.unreported_events(10).unwrap();
    let [joined, message] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!(joined.event, Event::Joined { conversation: talk, peer: a.account });
    assert!(matches!(&message.event, Event::Message(message) if message.text == "one"), "{message:?}");
    b.vault.mark_reported(&[joined.id]).unwrap();
    assert_eq!(b.vault.unreported_events(10).unwrap(), std::slice::from_ref(message));
    b.vault.mark_reported(&[message.id, 99]).unwrap();
    assert_eq!(b.vault.unreported_events(10).unwrap(), []);
}

#[test]
fn the_outbox_survives_a_restart_and_sends_the_same_bytes() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.queue(talk, "once");
    let first = a.vault.next_sends(0, 64).unwrap();
    assert_eq!(a.vault.next_sends(first[0].counter, 64).unwrap(), []);
    let lost = relay.send(&a, &first[0]);
    a.reopen();
    let again = a.vault.next_sends(0, 64).unwrap();
    assert_eq!(again, first);
    let answer = relay.send(&a, &again[0]);
    assert!(matches!(a.vault.settle(&answer).unwrap(), Settled::Sent(_)));
    assert_eq!(a.vault.settle(&lost).unwrap(), Settled::Nothing);
    assert_eq!((a.vault.outbox_len().unwrap(), a.history()), (0, vec!["once".to_owned()]));
    b.take(&mut relay);
    assert_eq!(b.history(), ["once"]);
}

#[test]
fn takes_each_entry_once_whether_or_not_the_ack_arrived() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    a.say(&mut relay, talk, "two");
    let frames = relay.frames(&mut b);
    let taken = b.vault.take(&frames).unwrap();
    assert_eq!((taken.frames, taken.ack), (2, Some(Position { seq: 3, count: 2 })));
    b.reopen();
    let again = b.vault.take(&frames).unwrap();
    assert_eq!((again.frames, again.events.len()), (2, 0));
    assert_eq!(again.ack, Some(Position { seq: 3, count: 2 }));
    let part = b.vault.take(&frames[..1]).unwrap();
    assert_eq!(part.ack, Some(Position { seq: 2, count: 1 }), "an ack names no more than was delivered");
    assert_eq!(b.history(), ["one", "two"]);
}

#[test]
fn the_same_message_under_another_position_is_kept_once() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    let copy = relay.accounts[&b.account].inbox.last().unwrap().1.clone();
    relay.push_to(b.account, copy);
    b.take(&mut relay);
    let texts = b.history();
    assert_eq!(texts.iter().filter(|text| *text == "one").count(), 1, "{texts:?}");
}

#[test]
fn a_stale_message_is_encrypted_again_under_its_counter() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.queue(talk, "late");
    let first = a.vault.next_sends(0, 64).unwrap().remove(0);
    b.renew(&mut relay, talk);
    let settled = a.vault.settle(&Relay::refuse(&first, Code::EpochStale)).unwrap();
    assert_eq!(settled, Settled::Again { conversation: talk, epoch: 1 });
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), [], "it waits for the commits");
    a.take(&mut relay);
    let second = a.vault.next_sends(first.counter, 64).unwrap().remove(0);
    assert_eq!((second.counter, second.epoch), (first.counter, 2));
    assert_ne!(second.ciphertext, first.ciphertext);
    let sent = relay.send(&a, &second);
    a.vault.settle(&sent).unwrap();
    b.take(&mut relay);
    assert_eq!(b.history(), ["late"]);
}

#[test]
fn a_refused_message_fails_and_says_so_and_a_busy_server_is_tried_again() {
    let (_, mut a, _, talk) = Relay::with_a_pair();
    a.queue(talk, "no");
    let send = a.vault.next_sends(0, 64).unwrap().remove(0);
    let later = a.vault.settle(&Relay::refuse(&send, Code::Unavailable)).unwrap();
    assert!(matches!(later, Settled::Later { .. }));
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), std::slice::from_ref(&send));
    let failed = a.vault.settle(&Relay::refuse(&send, Code::NotMember)).unwrap();
    let Settled::Failed(event) = failed else { panic!("{failed:?}") };
    assert_eq!(a.vault.unreported_events(9).unwrap().pop().map(|stored| stored.event), Some(event));
    assert_eq!((a.vault.outbox_len().unwrap(), a.vault.next_sends(0, 64).unwrap()), (0, vec![]));
}

#[test]
fn counters_never_spread_past_what_the_server_remembers() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    for number in 0..70 {
        a.queue(talk, &number.to_string());
    }
    let sends = a.vault.next_sends(0, 1000).unwrap();
    assert_eq!(sends.iter().map(|send| send.counter).collect::<Vec<_>>(), (1..=64).collect::<Vec<_>>());
    let answers: Vec<_> = sends.iter().map(|send| relay.send(&a, send)).collect();
    answers[1..].iter().for_each(|sent| drop(a.vault.settle(sent).unwrap()));
    assert_eq!(a.vault.next_sends(64, 64).unwrap(), [], "the first one is without an answer");
    a.vault.settle(&answers[0]).unwrap();
    assert_eq!(a.vault.next_sends(64, 64).unwrap().len(), 6);
}

#[test]
fn away_for_many_epochs_it_catches_up_by_the_commit_log() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for round in 0..4 {
        a.renew(&mut relay, talk);
        a.say(&mut relay, talk, &format!("epoch {}", round + 2));
    }
    // The commits in the inbox have expired; the last two messages have not.
    let inbox = &mut relay.accounts.get_mut(&b.account).unwrap().inbox;
    let gap_to = inbox[5].0;
    let kept = inbox
        .split_off(6)
        .into_iter()
        .filter(|(_, entry)| matches!(entry.body, gureum_proto::EnvelopeBody::Message { .. }));
    let mut position = gap_to;
    let mut frames = vec![DeliveryFrame::Gap(Gap { from_seq: 2, to: gap_to, missed: 2, reason: GapReason::Expired })];
    for (_, shared) in kept {
        position = Position { seq: position.seq + 1, count: position.count + 1 };
        frames.push(DeliveryFrame::Envelope(gureum_proto::Envelope { position, shared }));
    }
    let taken = b.vault.take(&frames).unwrap();
    let to = |from_epoch, to| Some(Need::Commits { conversation: talk, from_epoch, to_epoch: Some(to) });
    assert_eq!((taken.frames, taken.need), (1, to(1, 4)));
    b.meet(&mut relay, taken.need.unwrap());
    let taken = b.vault.take(&frames[1..]).unwrap();
    assert_eq!((taken.frames, taken.need), (1, to(4, 5)));
    b.meet(&mut relay, taken.need.unwrap());
    let taken = b.vault.take(&frames[2..]).unwrap();
    assert_eq!((taken.frames, taken.need), (1, None));
    assert_eq!(b.history().first().map(String::as_str), Some("<2 missing>"));
    assert_eq!(b.history().last().map(String::as_str), Some("epoch 5"));
    b.say(&mut relay, talk, "back");
    a.take(&mut relay);
    assert_eq!(a.history().last().map(String::as_str), Some("back"));
}

#[test]
fn where_the_commit_log_ends_it_rejoins_and_goes_on() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for _ in 0..3 {
        a.renew(&mut relay, talk);
    }
    a.say(&mut relay, talk, "lost");
    relay.conversations.get_mut(&talk).unwrap().commits.drain(..2);
    let message = relay.accounts[&b.account].inbox.last().unwrap().1.clone();
    relay.accounts.get_mut(&b.account).unwrap().inbox.truncate(1);
    relay.push_to(b.account, message);
    let events = b.take(&mut relay);
    assert!(events.iter().any(|event| matches!(event, Event::Unreadable { number: 1, .. })), "{events:?}");
    assert_eq!(b.history(), ["<unreadable>"]);
    b.reopen();
    let waiting = b.vault.unreported_events(10).unwrap();
    let rejoined = Event::Rejoined { conversation: talk, with: Some("alice".to_owned()) };
    assert!(waiting.iter().any(|stored| stored.event == rejoined), "{waiting:?}");
    a.take(&mut relay);
    a.say(&mut relay, talk, "found");
    b.take(&mut relay);
    b.say(&mut relay, talk, "again");
    a.take(&mut relay);
    assert_eq!((a.history().len(), b.history().last().map(String::as_str)), (3, Some("again")));
}

#[test]
fn a_lost_welcome_is_made_good_by_rejoining() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    let talk = relay.begin(&mut a, b.account);
    relay.accounts.get_mut(&b.account).unwrap().inbox.clear();
    a.say(&mut relay, talk, "before");
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>"]);
    a.take(&mut relay);
    a.say(&mut relay, talk, "after");
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>", "after"]);
    let listed = gureum_proto::ConversationState {
        conversation: talk,
        epoch: 2,
        accounts: vec![a.account, b.account],
        kind: DIRECT,
    };
    assert_eq!(b.vault.note_conversation(&listed).unwrap(), None);
    let ahead = gureum_proto::ConversationState { epoch: 3, ..listed };
    let need = Need::Commits { conversation: talk, from_epoch: 2, to_epoch: None };
    assert_eq!(b.vault.note_conversation(&ahead).unwrap(), Some(need));
}

/// What somebody reads who comes back after more epochs than keys are kept of, where the inbox holds no more than this.
fn read_after_many_epochs(is_left: fn(u64, &gureum_proto::EnvelopeBody) -> bool) -> Vec<String> {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for epoch in 2..=13 {
        a.renew(&mut relay, talk);
        a.say(&mut relay, talk, &epoch.to_string());
    }
    let inbox = &mut relay.accounts.get_mut(&b.account).unwrap().inbox;
    inbox.retain(|(position, entry)| is_left(position.seq, &entry.body));
    b.take(&mut relay);
    assert_eq!(b.vault.conversation(talk).unwrap().unwrap().epoch, 13);
    let mut history = b.history();
    history.retain(|text| text != "<0 missing>");
    history
}

#[test]
fn the_commit_log_leads_no_further_than_what_comes_next_in_the_inbox() {
    let epochs = |first: u64| (first..=13).map(|epoch| epoch.to_string()).collect::<Vec<_>>();
    // The Welcome, and two commits with a message each, have expired.
    assert_eq!(read_after_many_epochs(|seq, _| seq > 5), epochs(4));
    assert_eq!(read_after_many_epochs(|_, body| matches!(body, gureum_proto::EnvelopeBody::Message { .. })), epochs(2));
}

#[test]
fn a_log_that_has_grown_is_learned_before_the_next_entry_and_asked_for_once() {
    let (mut relay, a, mut b, talk) = Relay::with_a_pair();
    relay.push(a.account, a.device, talk, gureum_proto::EnvelopeBody::LogChange { log_entries: 2 });
    let frames = relay.frames(&mut b);
    let need = Need::Account { account: a.account, log_from: 1 };
    assert_eq!(b.vault.take(&frames).unwrap().need, Some(need));
    b.meet(&mut relay, need);
    let taken = b.vault.take(&frames).unwrap();
    assert_eq!((taken.frames, taken.need), (1, None), "the server shows no more: the entry is passed");
    relay.push(a.account, a.device, talk, gureum_proto::EnvelopeBody::LogChange { log_entries: 2 });
    let frames = relay.frames(&mut b);
    assert_eq!(b.vault.take(&frames).unwrap().need, Some(need));
}

#[test]
fn a_rejoin_survives_a_restart_and_one_that_lost_leaves_the_group_as_it_was() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let group = relay.conversations[&talk].group.clone();
    let submit = b.vault.rejoin(talk, &group).unwrap();
    b.reopen();
    assert_eq!(b.vault.pending_commits().unwrap(), std::slice::from_ref(&submit));
    assert_eq!(b.vault.rejoin(talk, &group).unwrap(), submit);
    b.vault.commit_rejected(talk).unwrap();
    a.say(&mut relay, talk, "still there?");
    b.take(&mut relay);
    assert_eq!(b.history(), ["still there?"]);
    assert_eq!(b.vault.pending_commits().unwrap(), []);
}

#[test]
fn an_own_commit_survives_a_restart_and_may_come_back_by_the_log() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let submit = b.vault.commit_self_update(talk).unwrap().unwrap();
    b.reopen();
    assert_eq!(b.vault.commit_self_update(talk).unwrap().as_ref(), Some(&submit));
    relay.commit(&b, &submit);
    // The answer is lost; the commit log has it.
    let page = relay.commits(talk, 1);
    assert_eq!(b.vault.apply_commits(talk, &page, None).unwrap(), Applied::UpToDate);
    assert_eq!(b.vault.pending_commits().unwrap(), []);
    assert_eq!(b.vault.commit_accepted(talk).unwrap(), [], "the answer may still come");
    b.say(&mut relay, talk, "renewed");
    a.take(&mut relay);
    assert_eq!(a.history(), ["renewed"]);
}

#[test]
fn the_loser_of_an_epoch_takes_the_winner() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.vault.commit_self_update(talk).unwrap().unwrap();
    a.renew(&mut relay, talk);
    b.vault.commit_rejected(talk).unwrap();
    b.take(&mut relay);
    b.renew(&mut relay, talk);
    a.take(&mut relay);
    a.say(&mut relay, talk, "in step");
    b.take(&mut relay);
    assert_eq!(b.history(), ["in step"]);
    let epochs = [&mut a, &mut b].map(|person| person.vault.conversation(talk).unwrap().unwrap().epoch);
    assert_eq!(epochs, [3, 3]);
}

#[test]
fn keys_are_renewed_after_joining_and_then_weekly() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    assert_eq!(a.vault.self_updates_due().unwrap(), []);
    assert_eq!(b.vault.self_updates_due().unwrap(), [talk]);
    b.renew(&mut relay, talk);
    assert_eq!(b.vault.self_updates_due().unwrap(), []);
    a.moves_on(8 * 24 * 3600 * 1000);
    assert_eq!(a.vault.self_updates_due().unwrap(), [talk]);
}

#[test]
fn two_who_begin_at_once_end_up_in_one_conversation() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    b.learn(&relay, a.account);
    let package = (a.device, a.vault.make_last_resort().unwrap());
    let ours = b.vault.begin_conversation(a.account, &[package], &[]).unwrap();
    assert_eq!(b.vault.pending_creations().unwrap(), std::slice::from_ref(&ours));
    b.queue(ours.conversation, "me too");
    let theirs = relay.begin(&mut a, b.account);
    b.vault.conversation_existed(ours.conversation, theirs).unwrap();
    assert_eq!(b.vault.next_sends(0, 64).unwrap(), []);
    b.take(&mut relay);
    b.flush(&mut relay);
    a.take(&mut relay);
    assert_eq!(a.history(), ["me too"]);
    assert_eq!(b.vault.conversations().unwrap().len(), 1);
}

#[test]
fn an_abandoned_conversation_leaves_nothing() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    a.learn(&relay, b.account);
    let package = || (b.device, b.vault.make_last_resort().unwrap());
    let mut package = package;
    let made = a.vault.begin_conversation(b.account, &[package()], &[]).unwrap();
    let again = a.vault.begin_conversation(b.account, &[package()], &[]);
    assert!(matches!(again, Err(BeginError::Exists(id)) if id == made.conversation));
    assert_eq!(a.vault.abandon_conversation(made.conversation, "no").unwrap(), []);
    assert_eq!(a.vault.conversations().unwrap(), []);
    a.vault.begin_conversation(b.account, &[package()], &[]).unwrap();
}

#[test]
fn two_processes_on_one_home_send_and_take_without_loss_or_doubles() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut second = Vault::open(b.home.path(), &KeySource::File).unwrap();
    for round in 0..6 {
        a.say(&mut relay, talk, &format!("a{round}"));
        second.queue_text(talk, &format!("b{round}")).unwrap();
        let frames = relay.frames(&mut b);
        let (mine, other) = if round % 2 == 0 { (&mut b.vault, &mut second) } else { (&mut second, &mut b.vault) };
        mine.take(&frames).unwrap();
        other.take(&frames).unwrap();
        let sends = mine.next_sends(0, 64).unwrap();
        assert_eq!(other.next_sends(0, 64).unwrap(), sends);
        for send in sends {
            let sent = relay.send(&b, &send);
            assert!(matches!(second.settle(&sent).unwrap(), Settled::Sent(_)));
            assert_eq!(b.vault.settle(&sent).unwrap(), Settled::Nothing);
        }
        a.take(&mut relay);
    }
    assert_eq!(a.history().len(), 12);
    assert_eq!(a.history(), b.history());
    assert_eq!(texts(second.history(None, 100).unwrap()), a.history());
}

#[test]
fn a_gap_without_messages_is_silent_and_a_hole_is_an_error() {
    let (_, _, mut b, _) = Relay::with_a_pair();
    let to = Position { seq: 4, count: 0 };
    let gap = Gap { from_seq: 2, to, missed: 0, reason: GapReason::Overflow };
    let taken = b.vault.take(&[DeliveryFrame::Gap(gap), DeliveryFrame::CaughtUp { seq: 4 }]).unwrap();
    assert_eq!((taken.ack, taken.events.len(), taken.caught_up, taken.frames), (Some(to), 0, true, 2));
    let to = Position { seq: 5, count: 0 };
    let lost = Gap { from_seq: 5, to, missed: 0, reason: GapReason::Lost };
    assert_eq!(b.vault.take(&[DeliveryFrame::Gap(lost)]).unwrap().events.len(), 1, "nobody knows how many are lost");
    let far = Gap { from_seq: 7, to: Position { seq: 7, count: 1 }, missed: 1, reason: GapReason::Expired };
    let hole = b.vault.take(&[DeliveryFrame::Gap(far)]);
    assert!(matches!(hole, Err(VaultError::Hole { expected: 6, got: 7 })), "{hole:?}");
}
