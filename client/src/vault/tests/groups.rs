//! Conversations of many: made, changed from several sides at once, and defended against members who may not change them.

use std::collections::BTreeSet;

use bytes::Bytes;
use gureum_proto::{
    AccountId, ConversationId, ConversationWith, EnvelopeBody, Group, GroupState, MessageId, SharedEnvelope,
    SubmitCommit,
};

use super::relay::Held;
use super::*;
use crate::e2ee::{View, Wanted};

impl Relay {
    /// A group of one.
    pub(super) fn begin_group(&mut self, from: &mut Person, name: &str) -> ConversationId {
        let (create, _) = from.vault.begin_group(name, &[]).unwrap();
        assert_eq!((create.with, create.welcome.len()), (ConversationWith::Group(vec![from.account]), 0));
        let id = create.conversation;
        let group = Group { epoch: 1, group_info: create.group_info, tree: create.tree };
        self.conversations.insert(id, Held::of(vec![from.account], group));
        from.vault.conversation_created(id).unwrap();
        id
    }

    /// Accepts what a client submits, whatever it does, and tells everybody; or says that another one came first.
    pub(super) fn submit(&mut self, from: &mut Person, submit: &SubmitCommit) -> bool {
        if self.conversations[&submit.conversation].group.epoch != submit.epoch {
            from.vault.commit_rejected(submit.conversation).unwrap();
            return false;
        }
        self.commit(from, submit);
        from.vault.commit_accepted(submit.conversation).unwrap();
        self.follow(from, submit.conversation);
        let is = from.accounts(submit.conversation);
        let held = self.conversations.get_mut(&submit.conversation).unwrap();
        let was: BTreeSet<_> =
            std::mem::replace(&mut held.accounts, is.iter().copied().collect()).into_iter().collect();
        for added in is.difference(&was) {
            let shared = SharedEnvelope {
                message_id: MessageId::new(1_700_000_000_000, u128::from(submit.counter)),
                conversation: submit.conversation,
                sender_account: from.account,
                sender_device: from.device,
                body: EnvelopeBody::Welcome(submit.welcome.clone()),
            };
            self.push_to(*added, shared);
        }
        true
    }
}

impl Person {
    pub(super) fn view(&mut self, talk: ConversationId) -> View {
        self.inside(|work| {
            let group = work.group(talk).unwrap().unwrap();
            let view = group.view(talk);
            work.keep(talk, group);
            view
        })
    }

    pub(super) fn accounts(&mut self, talk: ConversationId) -> BTreeSet<AccountId> {
        self.view(talk).roster().accounts()
    }

    fn name_of(&mut self, talk: ConversationId) -> String {
        self.view(talk).state.unwrap().name().to_owned()
    }

    /// Claims what is to be claimed, and makes the commit of what is wanted.
    pub(super) fn prepare(&mut self, relay: &mut Relay, talk: ConversationId) -> Option<SubmitCommit> {
        for (intent, account) in self.vault.intents_without_packages(talk).unwrap() {
            self.learn(relay, account);
            let packages = relay.accounts.get_mut(&account).unwrap().packages.pop();
            self.vault.put_packages(&[(intent, packages.into_iter().collect())]).unwrap();
        }
        self.vault.commit_intents(talk).unwrap()
    }

    /// Wants something, and gets it.
    pub(super) fn change(&mut self, relay: &mut Relay, talk: ConversationId, intents: &[Intent]) {
        let ids = self.vault.intend(talk, intents).unwrap();
        let submit = self.prepare(relay, talk).unwrap();
        assert!(relay.submit(self, &submit));
        let outcomes = self.vault.take_outcomes(&ids).unwrap();
        assert!(outcomes.iter().all(|(_, outcome)| *outcome == IntentOutcome::Done), "{outcomes:?}");
    }

    /// A commit that no rule is asked about.
    fn force(
        &mut self,
        relay: &Relay,
        talk: ConversationId,
        wanted: impl FnOnce(&mut Work<'_>) -> Wanted,
    ) -> SubmitCommit {
        let epoch = relay.conversations[&talk].group.epoch;
        let bundle = self.inside(|work| {
            let wanted = wanted(work);
            let mut group = work.group(talk).unwrap().unwrap();
            work.mls().commit(&mut group, wanted).unwrap()
        });
        let (commit, group_info, welcome) = (bundle.commit.into(), bundle.group_info.into(), bundle.welcome.into());
        SubmitCommit { counter: 1, conversation: talk, epoch, commit, group_info, welcome }
    }
}

/// What events tell of groups.
pub(super) fn told(events: &[Event]) -> Vec<(GroupChange, Vec<String>)> {
    let group = |event: &Event| match event {
        Event::Group { change, who, .. } => Some((*change, who.clone())),
        _ => None,
    };
    events.iter().filter_map(group).collect()
}

pub(super) fn of(change: GroupChange, who: &[&str]) -> (GroupChange, Vec<String>) {
    (change, who.iter().map(|handle| (*handle).to_owned()).collect())
}

/// Alice, who is the admin, Bob and Carol in a group, which all are in.
pub(super) fn three() -> (Relay, Person, Person, Person, ConversationId) {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    let mut c = Person::register(&mut relay, "carol");
    let talk = relay.begin_group(&mut a, "club");
    a.change(&mut relay, talk, &[Intent::Add(b.account), Intent::Add(c.account)]);
    for person in [&mut b, &mut c] {
        let handle = person.vault.identity().handle.to_string();
        let events = person.take(&mut relay);
        assert_eq!(told(&events), [of(GroupChange::Joined, &[&handle])]);
    }
    (relay, a, b, c, talk)
}

#[test]
fn a_group_talks_and_everybody_knows_who_is_in_it() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    b.say(&mut relay, talk, "hello, all");
    for person in [&mut a, &mut c] {
        person.take(&mut relay);
        assert_eq!(person.history(), ["hello, all"]);
    }
    for person in [&mut a, &mut b, &mut c] {
        let group = person.vault.group(talk).unwrap();
        let people: Vec<_> = group.people.iter().map(|it| (it.handle.as_str(), it.is_admin, it.devices)).collect();
        assert_eq!((group.name.as_str(), group.state), ("club", ConversationStatus::Active));
        assert_eq!(people, [("alice", true, 1), ("bob", false, 1), ("carol", false, 1)]);
    }
    let with = With::Group(talk);
    assert_eq!(texts(c.vault.history(Some(with), 9).unwrap()), ["hello, all"]);
    assert_eq!(c.vault.history(Some(b.account.into()), 9).unwrap(), [], "that is no conversation of two");
    assert!(c.vault.unreported_events_with(with, 9).unwrap().len() == 2, "it was added, and Bob said something");
}

#[test]
fn whoever_is_added_reads_nothing_of_before_and_whoever_is_removed_nothing_after() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut d = Person::register(&mut relay, "dave");
    a.say(&mut relay, talk, "without dave");
    a.change(&mut relay, talk, &[Intent::Add(d.account), Intent::Remove(c.account)]);
    a.say(&mut relay, talk, "without carol");
    let events = b.take(&mut relay);
    assert_eq!(told(&events), [of(GroupChange::Removed, &["carol"]), of(GroupChange::Added, &["dave"])]);
    d.take(&mut relay);
    let events = c.take(&mut relay);
    assert_eq!(told(&events).first(), Some(&of(GroupChange::Removed, &["carol"])));
    assert_eq!((b.history().len(), d.history()), (2, vec!["without carol".to_owned()]));
    assert_eq!(c.history(), ["without dave"]);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    assert!(matches!(c.vault.queue_text(talk, "still there?"), Err(QueueError::Left(name)) if name == "club"));
    assert!(matches!(c.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    a.say(&mut relay, talk, "welcome back");
    c.take(&mut relay);
    assert_eq!(c.history(), ["without dave", "welcome back"]);
}

#[test]
fn of_two_changes_at_once_the_one_that_lost_is_made_again() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    a.change(&mut relay, talk, &[Intent::Promote(b.account)]);
    b.take(&mut relay);
    let mut d = Person::register(&mut relay, "dave");
    let renames = b.vault.intend(talk, &[Intent::Rename("the club".into())]).unwrap();
    let adds = a.vault.intend(talk, &[Intent::Add(d.account)]).unwrap();
    let slower = a.prepare(&mut relay, talk).unwrap();
    let faster = b.prepare(&mut relay, talk).unwrap();
    assert!(relay.submit(&mut b, &faster));
    assert!(!relay.submit(&mut a, &slower));
    assert_eq!(a.vault.take_outcomes(&adds).unwrap(), [(adds[0], IntentOutcome::Open)]);
    a.take(&mut relay);
    assert_eq!(relay.accounts[&d.account].packages.len(), 4);
    let again = a.prepare(&mut relay, talk).unwrap();
    assert_eq!(relay.accounts[&d.account].packages.len(), 4, "the KeyPackage that was claimed serves again");
    assert!(relay.submit(&mut a, &again));
    for person in [&mut b, &mut c, &mut d] {
        person.take(&mut relay);
    }
    for person in [&mut a, &mut b, &mut c, &mut d] {
        assert_eq!((person.name_of(talk).as_str(), person.accounts(talk).len()), ("the club", 4));
    }
    assert_eq!(b.vault.take_outcomes(&renames).unwrap(), [(renames[0], IntentOutcome::Done)]);
    d.say(&mut relay, talk, "all here");
    a.take(&mut relay);
    assert_eq!(a.history(), ["all here"]);
}

#[test]
fn what_is_wanted_survives_a_restart_and_ends_as_done_where_somebody_else_has_done_it() {
    let (mut relay, mut a, mut b, _, talk) = three();
    a.change(&mut relay, talk, &[Intent::Promote(b.account)]);
    b.take(&mut relay);
    let d = Person::register(&mut relay, "dave");
    let wanted = [Intent::Add(d.account), Intent::Rename("the club".into())];
    let ids = a.vault.intend(talk, &wanted).unwrap();
    let pending = a.prepare(&mut relay, talk).unwrap();
    a.reopen();
    assert_eq!(a.vault.intents_due().unwrap(), [talk]);
    assert_eq!(a.vault.commit_intents(talk).unwrap(), Some(pending.clone()), "as the same bytes");
    b.change(&mut relay, talk, &wanted);
    assert!(!relay.submit(&mut a, &pending));
    a.take(&mut relay);
    assert_eq!(a.prepare(&mut relay, talk), None, "there is nothing left to be done");
    assert!(a.vault.take_outcomes(&ids).unwrap().iter().all(|(_, outcome)| *outcome == IntentOutcome::Done));
    assert_eq!(a.vault.intents_due().unwrap(), []);
}

#[test]
fn a_commit_that_adds_somebody_brings_the_tree_in_its_welcome_alone() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut d = Person::register(&mut relay, "dave");
    a.vault.intend(talk, &[Intent::Add(d.account)]).unwrap();
    let submit = a.prepare(&mut relay, talk).unwrap();
    let tree = relay.conversations[&talk].group.tree.len();
    assert!(submit.welcome.len() > tree && submit.group_info.len() < tree, "{tree}");
    a.reopen();
    assert!(relay.submit(&mut a, &submit), "the epoch of the GroupInfo is not this device's yet");
    d.take(&mut relay);
    // The GroupInfo is that of the epoch in which all are.
    c.take(&mut relay);
    c.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b, &mut d] {
        person.take(&mut relay);
    }
    c.say(&mut relay, talk, "in again");
    d.take(&mut relay);
    assert_eq!(d.history(), ["in again"]);
}

#[test]
fn who_is_added_is_not_told_of_what_was_encrypted_before_and_neither_is_who_is_added_again() {
    let (mut relay, mut a, mut b, _, talk) = three();
    let mut d = Person::register(&mut relay, "dave");
    a.change(&mut relay, talk, &[Intent::Add(d.account)]);
    // Bob has not heard of it, and the server gives what he says to all who are in the group.
    b.say(&mut relay, talk, "to those of before");
    a.say(&mut relay, talk, "to all");
    d.take(&mut relay);
    assert_eq!(d.history(), ["to all"]);
    a.change(&mut relay, talk, &[Intent::Remove(d.account)]);
    b.take(&mut relay);
    b.say(&mut relay, talk, "without dave");
    a.change(&mut relay, talk, &[Intent::Add(d.account)]);
    b.say(&mut relay, talk, "still without");
    a.say(&mut relay, talk, "to all again");
    d.take(&mut relay);
    assert_eq!(d.history(), ["to all", "to all again"]);
    assert_eq!(a.vault.epoch_authenticator(talk).unwrap(), d.vault.epoch_authenticator(talk).unwrap());
}

#[test]
fn only_admins_change_a_group_and_the_last_one_stays() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let refused = b.vault.intend(talk, &[Intent::Remove(c.account)]);
    assert!(matches!(&refused, Err(GroupError::NotAdmin { admins, .. }) if admins == &["alice"]), "{refused:?}");
    let ids = a.vault.intend(talk, &[Intent::Demote(a.account), Intent::Promote(AccountId::from_bytes([9; 16]))]);
    assert_eq!(a.prepare(&mut relay, talk), None);
    let outcomes = a.vault.take_outcomes(&ids.unwrap()).unwrap();
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, IntentOutcome::Refused(_))), "{outcomes:?}");
    assert_eq!(a.vault.unreported_events(9).unwrap(), [], "whoever asked has been told");
    a.change(&mut relay, talk, &[Intent::Promote(c.account), Intent::Demote(a.account)]);
    let events = b.take(&mut relay);
    assert_eq!(told(&events), [of(GroupChange::Admins, &["carol"])]);
    c.take(&mut relay);
    c.change(&mut relay, talk, &[Intent::Rename("carol's".into())]);
}

#[test]
fn a_change_that_the_server_refuses_for_good_is_told_once() {
    let (mut relay, mut a, _, _, talk) = three();
    let ids = a.vault.intend(talk, &[Intent::Rename("refused".into())]).unwrap();
    let submit = a.prepare(&mut relay, talk).unwrap();
    let answer = CommitAnswer::Refused("the server does not like it".to_owned());
    a.vault.settle_commit(talk, submit.counter + 1, &answer).unwrap();
    assert_eq!(a.vault.pending_commits().unwrap(), std::slice::from_ref(&submit), "that was about another one");
    a.vault.settle_commit(talk, submit.counter, &answer).unwrap();
    let events = a.vault.unreported_events(9).unwrap();
    assert!(matches!(&events[..], [StoredEvent { event: Event::IntentRefused { .. }, .. }]), "{events:?}");
    let outcomes = a.vault.take_outcomes(&ids).unwrap();
    assert!(matches!(&outcomes[..], [(_, IntentOutcome::Refused(why))] if why.contains("like it")), "{outcomes:?}");
    assert_eq!(a.vault.unreported_events(9).unwrap(), []);
    assert_eq!(a.prepare(&mut relay, talk), None);
    a.say(&mut relay, talk, "and on");
}

#[test]
fn who_was_added_renews_the_keys_of_its_key_package_before_it_says_anything_and_once() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    assert_eq!(a.vault.first_renewals().unwrap(), (vec![], false), "she has made it");
    assert_eq!(c.vault.first_renewals().unwrap(), (vec![], true));
    c.queue(talk, "hello");
    assert_eq!(c.vault.first_renewals().unwrap(), (vec![talk], false));
    // A statement to leave would name the leaf of the KeyPackage, which may come again.
    let named = c.statement(talk).leave().leaf_key.clone();
    let submit = c.vault.commit_first_renewal(talk).unwrap().unwrap();
    assert_eq!(c.vault.commit_first_renewal(talk).unwrap().as_ref(), Some(&submit), "the pending one");
    assert!(relay.submit(&mut c, &submit));
    assert_eq!(c.vault.first_renewals().unwrap(), (vec![], false));
    assert_eq!(c.vault.commit_first_renewal(talk).unwrap(), None);
    assert_ne!(c.statement(talk).leave().leaf_key, named);
    c.flush(&mut relay);
    b.take(&mut relay);
    assert_eq!(b.history(), ["hello"]);
}

/// Alice's group, and what she wants: to add Mallory, Dave and Erin, of whom `package` of Mallory's is claimed.
fn three_to_add(
    relay: &mut Relay,
    a: &mut Person,
    talk: ConversationId,
    package: impl FnOnce(&mut Person) -> Bytes,
) -> Vec<IntentId> {
    let mut people = ["mallory", "dave", "erin"].map(|handle| Person::register(relay, handle));
    let wanted: Vec<_> = people.iter().map(|person| Intent::Add(person.account)).collect();
    let ids = a.vault.intend(talk, &wanted).unwrap();
    people.iter().for_each(|person| a.learn(relay, person.account));
    let mallory = &mut people[0];
    let claimed = (mallory.device, package(mallory));
    a.vault.put_packages(&[(ids[0], vec![claimed])]).unwrap();
    ids
}

/// How many are in it after all commits that there are to make.
fn all_made(relay: &mut Relay, a: &mut Person, talk: ConversationId) -> usize {
    for _ in 0..9 {
        let Some(submit) = a.prepare(relay, talk) else { break };
        assert!(relay.submit(a, &submit));
    }
    a.accounts(talk).len()
}

#[test]
fn who_has_copied_somebodys_key_is_not_added_and_keeps_nobody_out() {
    let (mut relay, mut a, _, _, talk) = three();
    let copied = a.view(talk).leaves[1].leaf_key.clone();
    let ids = three_to_add(&mut relay, &mut a, talk, |mallory| {
        let package = mallory.vault.make_key_packages(1).unwrap().remove(0);
        mallory.inside(|work| work.mls().with_leaf_key(&package, &copied)).into()
    });
    assert_eq!(all_made(&mut relay, &mut a, talk), 5);
    let outcomes = a.vault.take_outcomes(&ids).unwrap();
    let [(_, IntentOutcome::Refused(why)), (_, IntentOutcome::Done), (_, IntentOutcome::Done)] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(why.contains("encryption key"), "{why}");
}

#[test]
fn of_several_whom_the_server_refuses_together_those_are_added_who_can_be() {
    let (mut relay, mut a, _, _, talk) = three();
    let ids = three_to_add(&mut relay, &mut a, talk, |mallory| mallory.vault.make_key_packages(1).unwrap().remove(0));
    let invalid = CommitAnswer::Invalid("the device was revoked meanwhile".to_owned());
    let all = a.prepare(&mut relay, talk).unwrap();
    assert!(a.vault.settle_commit(talk, all.counter, &invalid).unwrap(), "each may be the reason");
    let first = a.prepare(&mut relay, talk).unwrap();
    assert!(a.vault.settle_commit(talk, first.counter, &invalid).unwrap(), "Mallory was, and others are left");
    assert_eq!(all_made(&mut relay, &mut a, talk), 5);
    let outcomes: Vec<_> = a.vault.take_outcomes(&ids).unwrap().into_iter().map(|(_, outcome)| outcome).collect();
    let [IntentOutcome::Refused(why), IntentOutcome::Done, IntentOutcome::Done] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert!(why.contains("revoked meanwhile"), "{why}");
    let renames = a.vault.intend(talk, &[Intent::Rename("refused".into())]).unwrap();
    let alone = a.prepare(&mut relay, talk).unwrap();
    assert!(!a.vault.settle_commit(talk, alone.counter, &invalid).unwrap(), "nothing is left of it");
    assert!(matches!(a.vault.take_outcomes(&renames).unwrap()[..], [(_, IntentOutcome::Refused(_))]));
}

#[test]
fn key_packages_of_one_claim_are_judged_each_by_itself() {
    let (mut relay, mut a, _, _, talk) = three();
    let (dora, erin) = (Person::register(&mut relay, "dora"), Person::register(&mut relay, "erin"));
    for account in [dora.account, erin.account] {
        a.learn(&relay, account);
    }
    let ids = a.vault.intend(talk, &[Intent::Add(dora.account), Intent::Add(erin.account)]).unwrap();
    let mut claim = |account: AccountId| relay.accounts.get_mut(&account).unwrap().packages.pop().unwrap();
    let (good, (device, bytes)) = (claim(dora.account), claim(erin.account));
    // Bytes that were found good say nothing of others.
    assert!(a.inside(|work| work.check_group_package(erin.account, device, &bytes)).unwrap().is_ok());
    let mut bad = bytes.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    a.vault.put_packages(&[(ids[0], vec![good]), (ids[1], vec![(device, bad.into())])]).unwrap();
    let submit = a.vault.commit_intents(talk).unwrap().unwrap();
    assert!(relay.submit(&mut a, &submit));
    let outcomes = a.vault.take_outcomes(&ids).unwrap();
    assert_eq!(outcomes[0], (ids[0], IntentOutcome::Done));
    assert!(matches!(&outcomes[1].1, IntentOutcome::Refused(_)), "{outcomes:?}");
    assert!(a.accounts(talk).contains(&dora.account) && !a.accounts(talk).contains(&erin.account));
}

#[test]
fn a_key_package_that_was_good_is_refused_when_its_device_is_revoked() {
    let (mut relay, mut a, _, _, _) = three();
    let mut dora = Person::register(&mut relay, "dora");
    let mut second = Person::link(&mut relay, &dora);
    a.learn(&relay, dora.account);
    let package = second.vault.make_last_resort().unwrap();
    let (account, device) = (second.account, second.device);
    let check = |a: &mut Person| a.inside(|work| work.check_group_package(account, device, &package)).unwrap();
    assert!(check(&mut a).is_ok());
    assert_eq!(a.vault.unlisted(&[(account, device)]).unwrap(), BTreeSet::new());
    dora.revoke(&mut relay, device);
    a.learn(&relay, account);
    assert!(check(&mut a).is_err());
    assert_eq!(a.vault.unlisted(&[(account, dora.device), (account, device)]).unwrap(), BTreeSet::from([account]));
}

#[track_caller]
fn check_stops(mut person: Person, relay: &mut Relay, talk: ConversationId, reason: &str) {
    let events = person.take(relay);
    let stops =
        |event: &Event| matches!(event, Event::CommitRefused { stopped: true, why, .. } if why.contains(reason));
    assert!(events.iter().any(stops), "{events:?}");
    assert_eq!(person.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Forked);
}

#[test]
fn a_member_who_is_no_admin_adds_nobody() {
    let (mut relay, _, mut b, c, talk) = three();
    let mut mallory = Person::register(&mut relay, "mallory");
    let package = mallory.vault.make_last_resort().unwrap();
    let submit = b.force(&relay, talk, |work| {
        let (package, _) = work.mls().read_group_key_package(&package).unwrap();
        Wanted { added: vec![package], ..Wanted::default() }
    });
    relay.commit(&b, &submit);
    check_stops(c, &mut relay, talk, "only an admin may");
}

#[test]
fn a_member_who_is_no_admin_removes_nobody() {
    let (mut relay, a, mut b, c, talk) = three();
    let device = a.device;
    let submit = b.force(&relay, talk, |_| Wanted { removed: vec![device], ..Wanted::default() });
    relay.commit(&b, &submit);
    check_stops(c, &mut relay, talk, "only an admin may");
}

#[test]
fn a_member_who_is_no_admin_makes_itself_no_admin() {
    let (mut relay, _, mut b, c, talk) = three();
    let state = GroupState::new("bob's", [b.account]).unwrap();
    let submit = b.force(&relay, talk, |_| Wanted { state: Some(state), ..Wanted::default() });
    relay.commit(&b, &submit);
    check_stops(c, &mut relay, talk, "only an admin may");
}

#[test]
fn nobody_makes_a_group_of_a_conversation_of_two() {
    // Its leaves list the extension as any do.
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let state = GroupState::new("a trap", [a.account]).unwrap();
    let submit = a.force(&relay, talk, |_| Wanted { state: Some(state), ..Wanted::default() });
    relay.commit(&a, &submit);
    check_stops(b, &mut relay, talk, "makes a group of");
}

#[test]
fn names_are_found_and_handles_come_first() {
    let (mut relay, mut a, b, _, talk) = three();
    let found = |person: &mut Person, text: &str| person.vault.resolve(&text.parse().unwrap());
    assert!(matches!(found(&mut a, "club"), Ok(Resolved::Group(group)) if group.id == talk));
    assert!(matches!(found(&mut a, "CLUB"), Ok(Resolved::Group(group)) if group.id == talk));
    assert!(matches!(found(&mut a, &talk.to_string()), Ok(Resolved::Id(group)) if group.id == talk));
    assert!(matches!(found(&mut a, "nobody"), Ok(Resolved::Unknown)));
    let second = relay.begin_group(&mut a, "Club");
    assert!(matches!(found(&mut a, "Club"), Ok(Resolved::Group(group)) if group.id == second), "exactly");
    assert!(matches!(found(&mut a, "CLUB"), Err(TargetError::Ambiguous { ids, .. }) if ids.len() == 2));
    relay.begin_group(&mut a, "bob");
    assert!(matches!(found(&mut a, "bob"), Ok(Resolved::Contact(contact)) if contact.account == b.account));
}

#[test]
fn a_group_called_as_somebody_but_for_the_case_is_not_taken_for_them() {
    let (mut relay, mut a, ..) = three();
    let trap = relay.begin_group(&mut a, "Bob");
    let found = |person: &mut Person, text: &str| person.vault.resolve(&text.parse().unwrap());
    for text in ["Bob", "BOB"] {
        let refused = found(&mut a, text);
        let Err(TargetError::LikeHandle { id, handle, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!((*id, handle.as_str()), (trap, "bob"));
    }
    assert!(matches!(found(&mut a, &trap.to_string()), Ok(Resolved::Id(group)) if group.id == trap));
    relay.begin_group(&mut a, "Bobbie");
    assert!(matches!(found(&mut a, "bobbie"), Ok(Resolved::Group(_))), "nobody is known who is called that");
}

#[test]
fn without_the_server_a_groups_name_that_may_be_a_handle_stands_for_the_group_if_that_was_asked_before() {
    let (mut relay, mut a, ..) = three();
    let book = relay.begin_group(&mut a, "Book");
    let alone = |person: &mut Person, text: &str| person.vault.resolve_alone(&text.parse().unwrap());
    let refused = alone(&mut a, "Book");
    assert!(matches!(&refused, Err(TargetError::Unasked { id, .. }) if *id == book), "{refused:?}");
    a.vault.note_name_asked(book, &"book".parse().unwrap(), false).unwrap();
    a.reopen();
    for text in ["Book", "book"] {
        assert!(matches!(alone(&mut a, text), Ok(Resolved::Group(group)) if group.id == book), "{text}");
    }
    // It has another name since, or somebody else has the handle.
    a.change(&mut relay, book, &[Intent::Rename("Books".to_owned())]);
    assert!(matches!(alone(&mut a, "Books"), Err(TargetError::Unasked { .. })));
    a.vault.note_name_asked(book, &"books".parse().unwrap(), false).unwrap();
    a.vault.note_name_asked(book, &"books".parse().unwrap(), true).unwrap();
    assert!(matches!(alone(&mut a, "Books"), Err(TargetError::Unasked { .. })));
    relay.begin_group(&mut a, "Book club");
    assert!(matches!(alone(&mut a, "Book club"), Ok(Resolved::Group(_))), "which can be nobody's handle");
}

#[test]
fn of_a_group_that_is_listed_the_device_joins_by_itself_and_one_that_is_not_is_left() {
    let (mut relay, mut a, mut b, _, talk) = three();
    let mut second = Person::link(&mut relay, &b);
    let accounts = relay.conversations[&talk].accounts.clone();
    let kind = gureum_proto::ConversationKind::Group;
    let listed = gureum_proto::ConversationState { conversation: talk, epoch: 2, accounts, kind };
    assert_eq!(second.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
    second.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b] {
        person.take(&mut relay);
    }
    a.say(&mut relay, talk, "to both of bob's");
    second.take(&mut relay);
    assert_eq!((second.history(), second.name_of(talk).as_str()), (vec!["to both of bob's".to_owned()], "club"));
    let held = second.vault.conversation(talk).unwrap().unwrap();
    assert_eq!(second.vault.note_server_epoch(talk, held.epoch_held(), None).unwrap(), None);
    assert_eq!(second.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    let events: Vec<_> = second.vault.unreported_events(9).unwrap().into_iter().map(|stored| stored.event).collect();
    assert!(told(&events).contains(&of(GroupChange::Removed, &["bob"])), "{events:?}");
}
