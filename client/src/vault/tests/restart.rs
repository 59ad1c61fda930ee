//! A server that has gone back: noticed by everybody whom it concerns, followed by nobody who has not decided so.

use gureum_proto::{AccountId, Code, Commits, ConversationId, ConversationState};

use super::*;

const WEEK_MS: u64 = 8 * 24 * 3600 * 1000;

impl Person {
    /// Holds what the server shows against what is here, as after a connection to one that has gone back.
    fn look(&mut self, relay: &Relay) {
        for held in self.vault.conversations().unwrap() {
            let group = relay.conversations.get(&held.id).map(|held| held.group.clone());
            let shown = group.as_ref().map(|group| group.epoch);
            self.vault.note_server_epoch(held.id, held.epoch_held(), shown).unwrap();
            let Some(group) = group else { continue };
            if let Continuity::Later { from_epoch } = self.vault.check_group(&held, &group).unwrap() {
                self.vault.check_commits(&held, &relay.commits(held.id, from_epoch)).unwrap();
            }
        }
    }

    /// Decides to go on from there, as the server accepts it.
    fn restart(&mut self, relay: &mut Relay, talk: ConversationId) {
        let submit = self.vault.restart(talk, &relay.conversations[&talk].group).unwrap();
        relay.commit(self, &submit);
        self.vault.commit_accepted(talk).unwrap();
        relay.follow(self, talk);
    }

    fn state(&mut self, talk: ConversationId) -> (ConversationStatus, u64) {
        let known = self.vault.conversation(talk).unwrap().unwrap();
        (known.state, known.epoch)
    }

    /// How often each of the two events was told.
    fn told(&mut self) -> (usize, usize) {
        let events = self.vault.unreported_events(1000).unwrap();
        let count = |which: fn(&Event) -> bool| events.iter().filter(|stored| which(&stored.event)).count();
        (
            count(|event| matches!(event, Event::GoneBack { .. })),
            count(|event| matches!(event, Event::Restarted { .. })),
        )
    }
}

/// Two who talked on to epoch 2 after a copy of their server was made; the copy is not restored yet.
fn went_on() -> (Relay, Relay, Person, Person, ConversationId) {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "before");
    b.take(&mut relay);
    let copy = relay.clone();
    b.renew(&mut relay, talk);
    b.say(&mut relay, talk, "after");
    a.take(&mut relay);
    (relay, copy, a, b, talk)
}

/// The same, with the copy restored.
fn gone_back() -> (Relay, Person, Person, ConversationId) {
    let (mut relay, copy, a, b, talk) = went_on();
    relay.go_back(&copy);
    (relay, a, b, talk)
}

#[test]
fn where_the_server_has_gone_back_everything_stands_still_until_a_person_decides() {
    let (mut relay, mut a, b, talk) = gone_back();
    a.look(&relay);
    a.look(&relay);
    a.take(&mut relay);
    assert_eq!(a.told(), (1, 0), "told once");
    let event = Event::GoneBack { conversation: talk, with: "bob".into(), is_group: false, epoch: 1, epoch_seen: 2 };
    assert!(a.vault.unreported_events(9).unwrap().iter().any(|stored| stored.event == event));

    let refused = a.vault.queue_text(talk, "hello");
    assert!(matches!(&refused, Err(QueueError::GoneBack(gone)) if gone.with.as_str() == "bob"), "{refused:?}");
    let group = relay.conversations[&talk].group.clone();
    for refused in [a.vault.rejoin(talk, &group), a.vault.rejoin_again(talk, &group)] {
        assert!(matches!(refused, Err(RejoinError::GoneBack(_))), "{refused:?}");
    }
    let listed = ConversationState { conversation: talk, epoch: 7, accounts: vec![a.account, b.account], kind: DIRECT };
    assert_eq!(a.vault.note_conversation(&listed).unwrap(), None);
    let page = Commits { commits: vec![(2, "a commit".into())], epoch: 7, first_epoch: 2 };
    assert_eq!(a.vault.apply_commits(talk, &page, None).unwrap(), Applied::Stopped);
    a.moves_on(WEEK_MS);
    assert_eq!(a.vault.self_updates_due().unwrap(), []);
    assert_eq!(a.vault.commit_self_update(talk).unwrap(), None);
    assert_eq!(a.vault.behind().unwrap(), []);
    assert_eq!(a.state(talk), (ConversationStatus::Ahead, 2));
}

#[test]
fn a_conversation_cannot_be_restarted_while_the_server_is_where_it_was() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    let old = relay.conversations[&talk].group.clone();
    a.renew(&mut relay, talk);
    a.look(&relay);
    let refused = a.vault.restart(talk, &old);
    assert!(matches!(refused, Err(RejoinError::Refused(_))), "{refused:?}");
    let refused = a.vault.begin_anew(talk, &[], &[]);
    assert!(matches!(refused, Err(BeginError::Vault(VaultError::NoConversation(_)))), "{refused:?}");
    assert_eq!((a.state(talk), a.told()), ((ConversationStatus::Active, 2), (0, 0)));
}

#[test]
fn after_both_have_decided_they_talk_again_with_fresh_leaves_and_marks_in_both_histories() {
    let (mut relay, copy, mut a, mut b, talk) = went_on();
    (0..2).for_each(|_| a.renew(&mut relay, talk));
    b.take(&mut relay);
    relay.go_back(&copy);
    let leaves = |person: &mut Person| person.inside(|work| work.group(talk).unwrap().unwrap().encryption_keys());
    let old = [leaves(&mut a), leaves(&mut b)].concat();
    for person in [&mut a, &mut b] {
        person.look(&relay);
        person.take(&mut relay);
        person.restart(&mut relay, talk);
        assert_eq!(person.told(), (1, 1));
    }
    a.take(&mut relay);
    assert_eq!((a.state(talk), b.state(talk)), ((ConversationStatus::Active, 3), (ConversationStatus::Active, 3)));
    let seen = [&mut a, &mut b].map(|person| person.vault.conversation(talk).unwrap().unwrap().epoch_seen);
    assert_eq!(seen, [3, 3], "it was 4 before");
    let fresh = leaves(&mut a);
    assert_eq!((fresh.len(), fresh == leaves(&mut b)), (2, true));
    assert!(fresh.iter().all(|leaf| !old.contains(leaf)), "no key of before is left");

    a.say(&mut relay, talk, "again");
    b.take(&mut relay);
    b.say(&mut relay, talk, "and again");
    a.take(&mut relay);
    assert_eq!(a.history(), ["before", "after", "<0 missing>", "<restarted>", "again", "and again"]);
    // A gap stands where the inbox broke off, and Bob's own words are not in his.
    assert_eq!(b.history(), ["before", "<0 missing>", "after", "<restarted>", "again", "and again"]);
    a.look(&relay);
    b.look(&relay);
    assert_eq!((a.told(), b.told()), ((1, 1), (1, 1)), "all is in order now");
}

#[test]
fn what_arrived_before_and_is_sent_again_afterwards_is_kept_once() {
    let (mut relay, copy, mut a, mut b, talk) = went_on();
    a.queue(talk, "answered by nobody");
    let send = a.vault.next_sends(0, 64).unwrap().remove(0);
    relay.send(&a, &send);
    b.take(&mut relay);
    relay.go_back(&copy);
    for person in [&mut a, &mut b] {
        person.look(&relay);
        person.take(&mut relay);
    }
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), [], "it waits for the decision");
    a.restart(&mut relay, talk);
    b.restart(&mut relay, talk);
    a.take(&mut relay);
    let again = a.vault.next_sends(0, 64).unwrap();
    assert_eq!(again.len(), 1);
    assert!(again[0].counter > send.counter, "the server has no answer to the old counter");
    a.flush(&mut relay);
    b.take(&mut relay);
    for history in [a.history(), b.history()] {
        assert_eq!(history.iter().filter(|text| *text == "answered by nobody").count(), 1, "{history:?}");
    }
}

#[test]
fn a_commit_and_sends_without_an_answer_hold_up_no_others_and_are_not_taken_for_answered() {
    let (mut relay, copy, mut a, mut b, talk) = went_on();
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, a.account);
    a.take(&mut relay);
    a.queue(talk, "waits");
    a.vault.next_sends(0, 64).unwrap();
    let commit = a.vault.commit_self_update(talk).unwrap().unwrap();
    let carols = relay.conversations[&other].clone();
    let entry = (carol.account, relay.accounts[&carol.account].clone());
    relay.go_back(&copy);
    relay.accounts.extend([entry]);
    relay.conversations.insert(other, carols);
    a.look(&relay);
    assert_eq!(a.vault.pending_commits().unwrap(), [], "the server has no such epoch");
    for number in 0..100 {
        a.say(&mut relay, other, &number.to_string());
    }
    assert_eq!(a.vault.commit_accepted(talk).unwrap(), [], "whatever is answered to it now");
    assert_eq!(a.state(talk), (ConversationStatus::Ahead, 2));
    a.restart(&mut relay, talk);
    assert_ne!(relay.conversations[&talk].commits.last().unwrap().1, commit.commit);
    b.look(&relay);
    b.restart(&mut relay, talk);
    a.take(&mut relay);
    a.flush(&mut relay);
    b.take(&mut relay);
    assert_eq!(b.history().last().map(String::as_str), Some("waits"));
}

#[test]
fn that_others_went_on_from_there_as_far_or_farther_is_noticed_as_well() {
    for renewals in [0, 1, 3] {
        let (mut relay, mut a, mut b, talk) = gone_back();
        a.look(&relay);
        a.restart(&mut relay, talk);
        (0..renewals).for_each(|_| a.renew(&mut relay, talk));
        assert_eq!(relay.conversations[&talk].group.epoch, 2 + renewals, "no lower than Bob's");
        b.look(&relay);
        assert_eq!((b.told(), b.state(talk)), ((1, 0), (ConversationStatus::Ahead, 2)));
        a.say(&mut relay, talk, "too early");
        b.take(&mut relay);
        assert_eq!(b.state(talk), (ConversationStatus::Ahead, 2), "what comes changes nothing");
        b.restart(&mut relay, talk);
        a.take(&mut relay);
        b.say(&mut relay, talk, "there");
        a.take(&mut relay);
        assert_eq!(a.history().last().map(String::as_str), Some("there"));
        assert!(b.history().contains(&"<unreadable>".to_owned()), "what came too early is told of");
    }
}

#[test]
fn who_is_not_ahead_of_the_server_follows_by_itself() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let copy = relay.clone();
    a.renew(&mut relay, talk);
    relay.go_back(&copy);
    b.look(&relay);
    a.look(&relay);
    assert_eq!((a.told(), b.told()), ((1, 0), (0, 0)));
    a.restart(&mut relay, talk);
    a.say(&mut relay, talk, "from the restored server");
    b.take(&mut relay);
    assert_eq!(b.history().last().map(String::as_str), Some("from the restored server"));
    assert_eq!(b.state(talk), (ConversationStatus::Active, 2));
}

#[test]
fn a_server_that_is_where_it_was_again_needs_no_decision() {
    let (mut relay, copy, mut a, mut b, talk) = went_on();
    let newest = relay.clone();
    relay.go_back(&copy);
    a.look(&relay);
    assert_eq!(a.state(talk).0, ConversationStatus::Ahead);
    relay.go_back(&newest);
    a.look(&relay);
    assert_eq!(a.state(talk), (ConversationStatus::Active, 2));
    b.look(&relay);
    b.renew(&mut relay, talk);
    a.take(&mut relay);
    a.say(&mut relay, talk, "as before");
    b.take(&mut relay);
    assert_eq!((b.history().last().map(String::as_str), b.told()), (Some("as before"), (0, 0)));
    assert_eq!(a.told(), (1, 0));
}

#[test]
fn an_answer_that_another_process_has_overtaken_is_no_sign_of_going_back() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    let before = a.vault.conversation(talk).unwrap().unwrap();
    let shown = relay.conversations[&talk].group.clone();
    a.renew(&mut relay, talk);
    assert_eq!(a.vault.note_server_epoch(talk, before.epoch_held(), Some(shown.epoch)).unwrap(), None);
    assert_eq!(a.vault.check_group(&before, &shown).unwrap(), Continuity::Known);
    assert_eq!((a.state(talk), a.told()), ((ConversationStatus::Active, 2), (0, 0)));
}

#[test]
fn an_own_commit_that_is_in_the_backup_though_its_answer_never_came_is_no_sign_either() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    let submit = a.vault.commit_self_update(talk).unwrap().unwrap();
    relay.commit(&a, &submit);
    let copy = relay.clone();
    relay.go_back(&copy);
    a.look(&relay);
    assert_eq!((a.state(talk), a.told()), ((ConversationStatus::Active, 1), (0, 0)));
    assert_eq!(a.vault.pending_commits().unwrap(), [submit]);
}

#[test]
fn a_decision_survives_a_crash_and_one_that_lost_leaves_everything_as_it_was() {
    let (mut relay, mut a, _, talk) = gone_back();
    a.look(&relay);
    let group = relay.conversations[&talk].group.clone();
    let mut lose = || {
        let submit = a.vault.restart(talk, &group).unwrap();
        a.vault.commit_rejected(talk).unwrap();
        submit
    };
    // As often as it takes: what a person has decided is bounded by nothing but the person.
    let submit = (0..10).map(|_| lose()).last().unwrap();
    assert_eq!(a.state(talk), (ConversationStatus::Ahead, 2));
    let again = a.vault.restart(talk, &group).unwrap();
    assert!(again.counter > submit.counter);
    a.reopen();
    assert_eq!(a.vault.pending_commits().unwrap(), std::slice::from_ref(&again));
    relay.commit(&a, &again);
    a.vault.commit_accepted(talk).unwrap();
    assert_eq!((a.state(talk), a.told()), ((ConversationStatus::Active, 2), (1, 1)));
}

#[test]
fn a_conversation_that_is_being_made_and_a_strangers_have_nothing_to_go_back_from() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    a.learn(&relay, b.account);
    let package = (b.device, b.vault.make_last_resort().unwrap());
    let made = a.vault.begin_conversation(b.account, &[package], &[]).unwrap().conversation;
    assert_eq!(a.vault.note_server_epoch(made, 1, None).unwrap(), None);
    assert_eq!(a.state(made), (ConversationStatus::Creating, 1));
    let (strangers, stranger) = (ConversationId::from_bytes([7; 16]), AccountId::from_bytes([8; 16]));
    let listed =
        ConversationState { conversation: strangers, epoch: 5, accounts: vec![a.account, stranger], kind: DIRECT };
    a.vault.note_conversation(&listed).unwrap();
    assert_eq!(a.vault.note_server_epoch(strangers, 5, Some(1)).unwrap(), None);
    assert_eq!((a.state(strangers), a.told()), ((ConversationStatus::Absent, 0), (0, 0)));
}

#[test]
fn a_welcome_brings_nobody_back_to_an_epoch_that_the_server_has_gone_back_to() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    let talk = relay.begin(&mut a, b.account);
    // Bob has not taken his inbox, and has seen that others have gone on.
    b.learn(&relay, a.account);
    let listed = ConversationState { conversation: talk, epoch: 5, accounts: vec![a.account, b.account], kind: DIRECT };
    b.vault.note_conversation(&listed).unwrap();
    assert!(b.vault.note_server_epoch(talk, 5, Some(1)).unwrap().is_some());
    b.take(&mut relay);
    assert_eq!((b.state(talk), b.told()), ((ConversationStatus::Ahead, 0), (1, 0)));
    b.restart(&mut relay, talk);
    assert_eq!((b.state(talk), b.told()), ((ConversationStatus::Active, 2), (1, 1)));
}

#[test]
fn a_conversation_that_the_server_does_not_know_is_begun_anew_by_one_and_joined_by_the_other() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    let copy = relay.clone();
    let lost = relay.begin(&mut a, b.account);
    b.take(&mut relay);
    a.say(&mut relay, lost, "before");
    b.take(&mut relay);
    b.queue(lost, "handed over");
    b.vault.next_sends(0, 64).unwrap();
    b.queue(lost, "not handed over");
    relay.go_back(&copy);
    a.look(&relay);
    b.look(&relay);
    assert_eq!((a.told(), b.told()), ((1, 0), (1, 0)));
    let failed = |stored: &StoredEvent| matches!(stored.event, Event::SendFailed { .. });
    assert_eq!(b.vault.unreported_events(99).unwrap().iter().filter(|stored| failed(stored)).count(), 1);

    let package = (b.device, b.vault.make_last_resort().unwrap());
    let create = a.vault.begin_anew(lost, &[package], &[]).unwrap();
    relay.create(&mut a, b.account, create);
    b.take(&mut relay);
    b.flush(&mut relay);
    a.take(&mut relay);
    let now = a.vault.conversation_with(b.account).unwrap().unwrap();
    assert_ne!(now.id, lost);
    assert_eq!(b.vault.conversation_with(a.account).unwrap().unwrap().id, now.id);
    a.say(&mut relay, now.id, "anew");
    b.take(&mut relay);
    assert_eq!(a.history(), ["<0 missing>", "before", "<restarted>", "not handed over", "anew"]);
    assert_eq!(b.history(), ["before", "<0 missing>", "not handed over", "anew"]);
    a.look(&relay);
    b.look(&relay);
    assert_eq!((a.told(), b.told()), ((1, 1), (1, 0)), "the old one is left alone");
}

#[test]
fn a_refused_send_is_taken_back_where_its_sender_is_told_so() {
    let (relay, mut a, _, talk) = Relay::with_a_pair();
    let id = a.vault.queue_text(talk, "told to be lost").unwrap();
    let send = a.vault.next_sends(0, 64).unwrap().remove(0);
    let settled = a.vault.settle(&Relay::refuse(&send, Code::EpochStale)).unwrap();
    assert_eq!(settled, Settled::Again { conversation: talk, epoch: 1 });
    let gone = a.vault.note_server_epoch(talk, 1, Some(0)).unwrap();
    assert_eq!(gone.map(|gone| gone.with.to_string()).as_deref(), Some("bob"));
    a.vault.take_back(id).unwrap();
    assert_eq!(a.vault.outbox_len().unwrap(), 0);
    drop(relay);
}
