//! What a server shows that is not so: another account under a handle, devices that nobody has added, and commits that it
//! repeats, drops or forks.

use gureum_proto::{
    AccountFound, AccountId, ConversationId, EnvelopeBody, Group, MemberLog, MessageId, SharedEnvelope,
};

use super::attacks::ghost_package;
use super::groups::three;
use super::link::linked;
use super::*;

impl Relay {
    /// An account of somebody else, which the server shows under another handle.
    fn shown_as(&self, account: AccountId, handle: &str) -> AccountFound {
        AccountFound { handle: handle.parse().unwrap(), ..self.found(account, 0) }
    }
}

impl Person {
    fn numbers_told(&mut self) -> Vec<(AccountId, AccountId)> {
        let events = self.vault.unreported_events(1000).unwrap();
        let change = |stored: StoredEvent| match stored.event {
            Event::SafetyNumber { before, after, .. } => Some((before, after)),
            _ => None,
        };
        events.into_iter().filter_map(change).collect()
    }

    fn refuses(&mut self, found: &AccountFound) {
        let refused = self.vault.learn_account(found, 0);
        assert!(matches!(refused, Err(TrustError::HandleMoved { .. })), "{refused:?}");
    }

    fn history_with(&mut self, with: With) -> Vec<String> {
        texts(self.vault.history(Some(with), 1000).unwrap())
    }

    /// Whom a handle stands for here.
    fn known_as(&mut self, handle: &str) -> Option<AccountId> {
        self.vault.contact_by_handle(&handle.parse().unwrap()).unwrap().map(|contact| contact.account)
    }
}

#[test]
fn another_account_under_a_handle_is_told_once_and_before_anything_goes_to_it() {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "hello");
    let other = Person::register(&mut relay, "mallory");
    let shown = relay.shown_as(other.account, "bob");
    for _ in 0..3 {
        a.refuses(&shown);
    }
    assert_eq!(a.numbers_told(), [(b.account, other.account)]);
    assert_eq!(a.history(), ["hello", "<safety number>"]);
    let history = a.vault.history(Some(b.account.into()), 9).unwrap();
    let Some(HistoryItem::SafetyNumber { with, number_before, number, .. }) = history.last() else {
        panic!("{history:?}")
    };
    let numbers = (a.vault.safety_number(b.account), a.vault.safety_number(other.account));
    assert_eq!((with.as_str(), (number_before.clone(), number.clone())), ("bob", numbers));
    assert_eq!(a.known_as("bob"), Some(b.account), "nobody has asked for it since");

    let refused = a.vault.queue_text(talk, "to whom?");
    assert!(matches!(refused, Err(QueueError::HandleMoved(_))), "{refused:?}");
    assert_eq!((a.vault.outbox_len().unwrap(), a.known_as("bob")), (0, None));
    assert_eq!(a.vault.learn_account(&shown, 0).unwrap().contact.account, other.account);
    assert_eq!(a.known_as("bob"), Some(other.account));
    assert_eq!(texts(a.vault.history(Some(other.account.into()), 9).unwrap()), ["hello", "<safety number>"]);
    assert_eq!(a.numbers_told().len(), 1, "never twice");
    a.queue(talk, "to the first one all the same");
}

#[test]
fn a_handle_that_has_moved_is_told_as_well_where_the_members_of_a_group_are_listed() {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let other = Person::register(&mut relay, "mallory");
    let AccountFound { account, handle, log_entries, .. } = relay.shown_as(other.account, "bob");
    let member = MemberLog { account, handle, log_entries, leave: None };
    for _ in 0..2 {
        let refused = a.vault.learn_member(talk, &member);
        assert!(matches!(refused, Err(TrustError::HandleMoved { .. })), "{refused:?}");
    }
    assert_eq!((a.numbers_told(), a.known_as("bob")), (vec![(b.account, other.account)], Some(b.account)));
}

#[test]
fn a_group_goes_on_with_somebody_whose_handle_stands_for_another_account_and_that_is_told_once() {
    let mut relay = Relay::default();
    let [mut a, b, mut c] = ["alice", "bob", "carol"].map(|handle| Person::register(&mut relay, handle));
    c.learn(&relay, b.account);
    let talk = relay.begin_group(&mut a, "club");
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    c.take(&mut relay);
    // Alice knows but the second Bob, Carol the first.
    let mut other = Person::register(&mut relay, "bob");
    a.change(&mut relay, talk, &[Intent::Add(other.account)]);
    c.take(&mut relay);
    assert_eq!(c.numbers_told(), [(b.account, other.account)]);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
    assert_eq!(c.known_as("bob"), Some(b.account), "nobody has asked for it since");
    other.take(&mut relay);
    other.say(&mut relay, talk, "the other Bob");
    c.take(&mut relay);
    c.say(&mut relay, talk, "hello, all");
    other.take(&mut relay);
    assert_eq!(other.history(), ["the other Bob", "hello, all"]);
    assert_eq!(c.numbers_told().len(), 1, "never twice");

    // Who looks at the group alone sees it as well, and so does who asks for the account; others do not.
    let marked = ["<safety number>", "the other Bob", "hello, all"];
    assert_eq!(c.history(), marked);
    assert_eq!(c.history_with(With::Group(talk)), marked);
    assert_eq!(c.history_with(With::Account(b.account)), ["<safety number>"]);
    let elsewhere = relay.begin_group(&mut c, "elsewhere");
    assert_eq!(c.history_with(With::Group(elsewhere)), Vec::<String>::new());
    for (group, count) in [(talk, 1), (elsewhere, 0)] {
        let events = c.vault.unreported_events_with(With::Group(group), 99).unwrap();
        let told = events.iter().filter(|stored| matches!(stored.event, Event::SafetyNumber { .. })).count();
        assert_eq!(told, count, "{events:?}");
    }

    c.vault.go_on_with_moved(&"bob".parse().unwrap()).unwrap();
    c.learn(&relay, other.account);
    assert_eq!(c.known_as("bob"), Some(other.account));
}

#[test]
fn what_becomes_of_a_members_devices_is_news_in_a_group_and_nowhere_else() {
    let (mut relay, mut a, mut b, _, talk) = three();
    let elsewhere = relay.begin_group(&mut a, "elsewhere");
    let second = Person::link(&mut relay, &b);
    a.learn(&relay, b.account);
    b.revoke(&mut relay, second.device);
    a.learn(&relay, b.account);
    let mut news = |group| {
        let events = a.vault.unreported_events_with(With::Group(group), 99).unwrap();
        let is_of_bob = |event: &Event| match event {
            Event::DeviceAdded { account, .. } | Event::DeviceRevoked { account, .. } => *account == b.account,
            _ => false,
        };
        events.into_iter().filter(|stored| is_of_bob(&stored.event)).count()
    };
    assert_eq!((news(talk), news(elsewhere)), (2, 0));
}

#[test]
fn nobody_whose_handle_stands_for_another_account_begins_a_conversation_of_two_unasked() {
    let mut relay = Relay::default();
    let [mut a, b] = ["alice", "bob"].map(|handle| Person::register(&mut relay, handle));
    a.learn(&relay, b.account);
    let mut other = Person::register(&mut relay, "bob");
    let talk = relay.begin(&mut other, a.account);
    let events = a.take(&mut relay);
    let refused = |event: &Event| matches!(event, Event::CommitRefused { why, .. } if why.contains("another account"));
    assert!(events.iter().any(refused), "{events:?}");
    let group = relay.conversations[&talk].group.clone();
    for _ in 0..5 {
        let refused = a.vault.rejoin(talk, &group).map(drop);
        assert!(matches!(refused, Err(RejoinError::HandleMoved(_))), "{refused:?}");
    }
    assert_eq!((a.numbers_told(), a.vault.conversations().unwrap()), (vec![(b.account, other.account)], vec![]));
    // Who goes on with that account is in at once.
    a.vault.go_on_with_moved(&"bob".parse().unwrap()).unwrap();
    a.learn(&relay, other.account);
    a.rejoin(&mut relay, talk);
    assert_eq!(a.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
}

#[test]
fn who_asks_for_a_handle_that_has_moved_goes_on_when_they_ask_again() {
    let (mut relay, mut a, b, _) = Relay::with_a_pair();
    let other = Person::register(&mut relay, "mallory");
    let shown = relay.shown_as(other.account, "bob");
    a.refuses(&shown);
    a.vault.go_on_with_moved(&"bob".parse().unwrap()).unwrap();
    a.vault.learn_account(&shown, 0).unwrap();
    // A third one is told as the second was; so is the first, when the second has taken its place.
    let third = Person::register(&mut relay, "trudy");
    let expected = [(b.account, other.account), (other.account, third.account)];
    a.refuses(&relay.shown_as(third.account, "bob"));
    assert_eq!(a.numbers_told(), expected);
    a.refuses(&relay.shown_as(b.account, "bob"));
    assert_eq!(a.numbers_told().last(), Some(&(other.account, b.account)));
    assert_eq!(a.known_as("bob"), Some(other.account));
}

#[test]
fn what_a_server_shows_after_a_person_agreed_to_another_is_told_and_the_first_may_come_back() {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let (second, third) = (Person::register(&mut relay, "mallory"), Person::register(&mut relay, "trudy"));
    let handle = "bob".parse().unwrap();
    a.refuses(&relay.shown_as(second.account, "bob"));
    a.vault.go_on_with_moved(&handle).unwrap();
    a.refuses(&relay.shown_as(third.account, "bob"));
    assert_eq!(a.numbers_told(), [(b.account, second.account), (b.account, third.account)]);
    a.vault.go_on_with_moved(&handle).unwrap();
    assert_eq!(a.known_as("bob"), None);
    a.vault.learn_account(&relay.found(b.account, 0), 0).unwrap();
    assert_eq!(a.known_as("bob"), Some(b.account));
    a.queue(talk, "as before");
}

#[test]
fn a_handle_is_not_given_to_an_account_that_there_is_not_nor_to_oneself() {
    let (mut relay, mut a, b, _) = Relay::with_a_pair();
    let other = Person::register(&mut relay, "mallory");
    let mut made_up = relay.shown_as(other.account, "bob");
    made_up.account = AccountId::from_bytes([9; 16]);
    let refused = a.vault.learn_account(&made_up, 0);
    assert!(matches!(refused, Err(TrustError::Incomplete(_))), "{refused:?}");
    a.refuses(&relay.shown_as(a.account, "bob"));
    a.refuses(&relay.shown_as(other.account, "alice"));
    assert_eq!((a.numbers_told(), a.known_as("bob")), (vec![], Some(b.account)));
}

#[test]
fn a_ghost_device_in_the_directory_is_not_invited() {
    let mut relay = Relay::default();
    let (mut a, b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    a.learn(&relay, b.account);
    let ghost = ghost_package(&b).into();
    let device = gureum_proto::DeviceId::from_bytes([7; 16]);
    let refused = a.vault.begin_conversation(b.account, &[(device, ghost)], &[]);
    assert!(matches!(refused, Err(BeginError::KeyPackage { .. })), "{refused:?}");
    assert_eq!(a.vault.conversations().unwrap(), []);
}

#[test]
fn a_device_whose_key_package_is_refused_does_not_keep_the_others_out() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    a.learn(&relay, b.account);
    let (ghost, own_ghost) = (ghost_package(&b).into(), ghost_package(&a).into());
    let device = gureum_proto::DeviceId::from_bytes([7; 16]);
    let package = relay.accounts.get_mut(&b.account).unwrap().packages.pop().unwrap();
    let create = a.vault.begin_conversation(b.account, &[(device, ghost), package], &[(device, own_ghost)]).unwrap();
    let talk = relay.create(&mut a, b.account, create);
    b.take(&mut relay);
    a.say(&mut relay, talk, "hello");
    b.take(&mut relay);
    assert_eq!(b.history(), ["hello"]);
    assert_eq!(a.view(talk).leaves.len(), 2, "the ghosts are not in it");
}

/// A conversation of Alice's with Bob in which a device is that neither has added.
fn with_a_ghost(a: &mut Person, b: &mut Person) -> (ConversationId, Group, Vec<u8>) {
    let talk = ConversationId::from_bytes([5; 16]);
    let (package, ghost) = (b.vault.make_last_resort().unwrap(), ghost_package(a));
    let created = a.inside(|work| {
        let packages = [&package[..], ghost.as_slice()];
        let packages = packages.map(|package| work.mls().read_key_package(package).unwrap().0);
        work.mls().create(talk, packages.into(), None).unwrap()
    });
    let group = Group { epoch: 1, group_info: created.group_info.into(), tree: created.tree.into() };
    (talk, group, created.welcome)
}

#[test]
fn a_welcome_into_a_group_with_a_ghost_device_is_refused() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    let (conversation, _, welcome) = with_a_ghost(&mut a, &mut b);
    let shared = SharedEnvelope {
        message_id: MessageId::new(1, 1),
        conversation,
        sender_account: a.account,
        sender_device: a.device,
        body: EnvelopeBody::Welcome(welcome.into()),
    };
    relay.push_to(b.account, shared);
    let events = b.take(&mut relay);
    let refused =
        |event: &Event| matches!(event, Event::CommitRefused { why, .. } if why.contains("is not in the log of"));
    assert!(events.iter().any(refused), "{events:?}");
    assert_eq!(b.vault.conversations().unwrap(), []);
}

#[test]
fn a_group_with_a_ghost_device_is_not_joined() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    let (conversation, group, _) = with_a_ghost(&mut a, &mut b);
    b.learn(&relay, a.account);
    // The log is asked for once more: it may have grown.
    let refused = loop {
        match b.vault.rejoin(conversation, &group) {
            Err(RejoinError::NeedsAccount(account)) => b.learn(&relay, account),
            refused => break refused,
        }
    };
    assert!(matches!(&refused, Err(RejoinError::Refused(why)) if why.contains("is not in the log of")), "{refused:?}");
}

#[test]
fn a_commit_that_is_repeated_changes_nothing() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.renew(&mut relay, talk);
    b.take(&mut relay);
    let commit = relay.conversations[&talk].commits[0].1.clone();
    relay.push(a.account, a.device, talk, EnvelopeBody::Commit { epoch: 1, commit: commit.clone() });
    // Or as one of the next epoch.
    relay.push(a.account, a.device, talk, EnvelopeBody::Commit { epoch: 2, commit });
    let events = b.take(&mut relay);
    assert!(matches!(events.as_slice(), [Event::CommitRefused { stopped: false, .. }]), "{events:?}");
    assert_eq!(b.vault.conversation(talk).unwrap().unwrap().epoch, 2);
    a.say(&mut relay, talk, "goes on");
    b.take(&mut relay);
    assert_eq!(b.history(), ["goes on"]);
}

#[test]
fn a_commit_that_is_dropped_is_fetched_or_joined_after() {
    for is_in_the_log in [true, false] {
        let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
        a.renew(&mut relay, talk);
        relay.accounts.get_mut(&b.account).unwrap().inbox.pop();
        if !is_in_the_log {
            relay.conversations.get_mut(&talk).unwrap().commits.clear();
        }
        a.say(&mut relay, talk, "for the next epoch");
        b.take(&mut relay);
        let read = if is_in_the_log { "for the next epoch" } else { "<unreadable>" };
        assert_eq!(b.history(), [read]);
        let told = b.vault.unreported_events(9).unwrap();
        let has_rejoined = told.iter().any(|stored| matches!(stored.event, Event::Rejoined { .. }));
        assert_eq!(has_rejoined, !is_in_the_log, "{told:?}");
        a.take(&mut relay);
        a.say(&mut relay, talk, "goes on");
        b.take(&mut relay);
        assert_eq!(b.history(), [read, "goes on"]);
    }
}

/// The server lets two devices each believe that their commit has ended the same epoch.
#[test]
fn a_forked_epoch_shows_nobody_what_was_not_said_to_them_and_is_told() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let by_b = b.vault.commit_self_update(talk).unwrap().unwrap();
    a.renew(&mut relay, talk);
    b.vault.commit_accepted(talk).unwrap();
    assert_eq!(by_b.epoch, 1);
    assert_eq!(b.take(&mut relay), [], "a commit of an epoch that has ended");
    for _ in 0..4 {
        a.say(&mut relay, talk, "in the other branch");
    }
    b.take(&mut relay);
    assert!(b.history().iter().all(|text| text == "<unreadable>"), "{:?}", b.history());
    let told = b.vault.unreported_events(99).unwrap();
    assert!(told.iter().any(|stored| matches!(stored.event, Event::Unreadable { .. })), "{told:?}");
    assert!(told.iter().any(|stored| matches!(stored.event, Event::Rejoined { .. })), "{told:?}");
    a.take(&mut relay);
    a.say(&mut relay, talk, "together again");
    b.take(&mut relay);
    assert_eq!(b.history().last().map(String::as_str), Some("together again"));
}

#[test]
fn a_conversation_that_a_server_hides_from_a_linked_device_is_told_once() {
    let (mut relay, mut a, _b, talk) = Relay::with_a_pair();
    let mut tablet = linked(&mut relay, &mut a);
    assert!(tablet.vault.awaits_conversations().unwrap());
    assert_eq!(tablet.vault.note_listing(&[talk].into()).unwrap(), []);
    let none = std::collections::BTreeSet::new();
    let told = tablet.vault.note_listing(&none).unwrap();
    assert_eq!(told.iter().map(|stored| &stored.event).collect::<Vec<_>>(), [&Event::Hidden { conversation: talk }]);
    assert_eq!(tablet.vault.note_listing(&none).unwrap(), []);
    assert!(!tablet.vault.awaits_conversations().unwrap());
}
