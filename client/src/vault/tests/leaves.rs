//! Leaving a group: a signed word is enough, whoever carries it out.

use gureum_proto::{ConversationId, EnvelopeBody, Leave, MessageId, SharedEnvelope, SignedLeave};

use super::groups::{of, three, told};
use super::*;
use crate::limits::REJOINS_MAX;

impl Person {
    pub(super) fn statement(&mut self, talk: ConversationId) -> SignedLeave {
        match self.vault.leave(talk).unwrap() {
            Leaving::By(signed) => signed,
            Leaving::After(commit) => panic!("{commit:?} is pending"),
        }
    }
}

impl Relay {
    /// Tells everybody that somebody leaves, and gives that account nothing more.
    pub(super) fn leave(&mut self, from: &Person, talk: ConversationId, signed: &SignedLeave) {
        let shared = SharedEnvelope {
            message_id: MessageId::new(1_700_000_000_000, 7),
            conversation: talk,
            sender_account: from.account,
            sender_device: from.device,
            body: EnvelopeBody::Leave(signed.clone()),
        };
        let accounts = std::mem::take(&mut self.conversations.get_mut(&talk).unwrap().accounts);
        let has_others = self.accounts[&from.account].log.len() > 1;
        for account in accounts.iter().filter(|account| **account != from.account || has_others) {
            self.push_to(*account, shared.clone());
        }
        let stay = accounts.into_iter().filter(|account| *account != from.account).collect();
        self.conversations.get_mut(&talk).unwrap().accounts = stay;
    }
}

#[test]
fn who_leaves_is_removed_by_another_while_away_and_nothing_is_said_before() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    c.vault.left(&signed).unwrap();
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    let events = b.take(&mut relay);
    assert_eq!(told(&events), [of(GroupChange::Left, &["carol"])]);
    b.queue(talk, "without carol");
    assert_eq!(b.vault.next_sends(0, 9).unwrap(), []);
    assert!(b.vault.removals_hold_up_messages().unwrap());
    let submit = b.vault.commit_removals(talk).unwrap().unwrap();
    assert!(relay.submit(&mut b, &submit), "Bob is no admin, and needs not be one for this");
    b.flush(&mut relay);
    let events = a.take(&mut relay);
    assert_eq!(told(&events), [of(GroupChange::Left, &["carol"])], "once");
    assert_eq!((a.accounts(talk).len(), a.history()), (2, vec!["without carol".to_owned()]));
    assert_eq!((a.vault.removals_due().unwrap(), b.vault.removals_due().unwrap()), (vec![], vec![]));
}

#[test]
fn the_statement_comes_with_the_commit_for_who_has_not_seen_it() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    relay.accounts.get_mut(&a.account).unwrap().inbox.pop();
    b.take(&mut relay);
    let submit = b.vault.commit_removals(talk).unwrap().unwrap();
    assert!(relay.submit(&mut b, &submit));
    let events = a.take(&mut relay);
    assert_eq!((told(&events), a.accounts(talk).len()), (vec![of(GroupChange::Left, &["carol"])], 2));
}

#[test]
fn whoever_did_not_get_it_gets_it_with_the_members_logs() {
    let (mut relay, mut a, _, mut c, talk) = three();
    let signed = c.statement(talk);
    let mut member = relay.member_logs(talk).into_iter().find(|member| member.account == c.account).unwrap();
    member.leave = Some(signed);
    a.vault.learn_member(talk, &member).unwrap();
    assert_eq!(a.vault.removals_due().unwrap(), [talk]);
    a.remove_revoked(&mut relay, talk);
    assert_eq!(a.accounts(talk).len(), 2);
}

#[test]
fn the_last_admin_may_leave_and_then_everybody_is_one() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let signed = a.statement(talk);
    relay.leave(&a, talk, &signed);
    b.take(&mut relay);
    let submit = b.vault.commit_removals(talk).unwrap().unwrap();
    assert!(relay.submit(&mut b, &submit));
    c.take(&mut relay);
    c.change(&mut relay, talk, &[Intent::Rename("ours".into())]);
    b.take(&mut relay);
    assert_eq!(b.vault.group(talk).unwrap().name, "ours");
}

#[test]
fn a_statement_that_nobody_has_signed_or_that_is_void_removes_nobody() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let genuine = c.statement(talk);
    let forged = SignedLeave::sign(genuine.leave().clone(), &b.vault.identity().proof);
    let void = Leave { leaf_key: vec![7; 32].into(), ..genuine.leave().clone() };
    let void = SignedLeave::sign(void, &c.vault.identity().proof);
    for signed in [&forged, &void] {
        relay.push(c.account, c.device, talk, EnvelopeBody::Leave(signed.clone()));
    }
    let events = a.take(&mut relay);
    let refused = |event: &Event| matches!(event, Event::CommitRefused { stopped: false, .. });
    assert!(events.len() == 1 && events.iter().all(refused), "{events:?}");
    assert_eq!(a.vault.removals_due().unwrap(), []);
    // A statement of before says nothing about who has come back.
    relay.leave(&c, talk, &genuine);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    c.vault.left(&genuine).unwrap();
    relay.conversations.get_mut(&talk).unwrap().accounts.retain(|account| *account != c.account);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    relay.push(c.account, c.device, talk, EnvelopeBody::Leave(genuine));
    b.take(&mut relay);
    assert_eq!((b.accounts(talk).len(), b.vault.removals_due().unwrap()), (3, vec![]));
}

#[test]
fn what_one_device_leaves_its_siblings_have_left() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut second = Person::link(&mut relay, &c);
    second.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b, &mut c] {
        person.take(&mut relay);
    }
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    let events = second.take(&mut relay);
    assert_eq!(told(&events), [of(GroupChange::Left, &["carol"])]);
    assert_eq!(second.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    assert_eq!(a.view(talk).leaves.len(), 2, "both of Carol's are gone");
}

#[test]
fn a_server_that_still_lists_a_group_that_was_left_brings_nobody_back_into_it() {
    for is_copy in [false, true] {
        let (mut relay, mut a, _, mut c, talk) = three();
        let signed = c.statement(talk);
        c.vault.left(&signed).unwrap();
        // It keeps the statement from the others, whose group goes on with the leaf in it.
        a.change(&mut relay, talk, &[Intent::Rename("ours".into())]);
        let listed = relay.listed(talk);
        if is_copy {
            c.take_over(&relay);
        }
        for _ in 0..REJOINS_MAX {
            assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
            assert!(matches!(c.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
            assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
        }
        assert_eq!(c.vault.note_conversation(&listed).unwrap(), None, "it is not asked again and again");
        assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    }
}

#[test]
fn a_server_that_lists_whom_a_group_has_no_leaf_of_brings_nobody_back_into_it() {
    for (has_left, is_copy) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut relay, mut a, _, mut c, talk) = three();
        if has_left {
            let signed = c.statement(talk);
            relay.leave(&c, talk, &signed);
            c.vault.left(&signed).unwrap();
            a.take(&mut relay);
            a.remove_revoked(&mut relay, talk);
        } else {
            a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
            c.take(&mut relay);
        }
        a.change(&mut relay, talk, &[Intent::Rename("ours".into())]);
        let mut listed = relay.listed(talk);
        listed.accounts.push(c.account);
        if is_copy {
            c.take_over(&relay);
        }
        assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
        assert!(matches!(c.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
        assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    }
}

/// Another device of the account has left, and is gone from the group since: its statement names a leaf that is not there.
/// The leaf of this one is another than when it heard that, by a commit of its own that was kept back.
#[test]
fn a_server_that_carries_out_late_what_a_device_has_committed_brings_nobody_back() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut second = Person::link(&mut relay, &c);
    second.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b, &mut c] {
        person.take(&mut relay);
    }
    let kept_back = c.vault.commit_self_update(talk).unwrap().unwrap();
    let signed = second.statement(talk);
    relay.push(second.account, second.device, talk, EnvelopeBody::Leave(signed));
    for other in [&a, &b] {
        relay.accounts.get_mut(&other.account).unwrap().inbox.pop();
    }
    c.take(&mut relay);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    relay.commit(&c, &kept_back);
    a.take(&mut relay);
    c.revoke(&mut relay, second.device);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    assert!(a.accounts(talk).contains(&c.account));
    let listed = relay.listed(talk);
    assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
    assert!(matches!(c.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
}

#[test]
fn who_was_added_again_by_a_welcome_that_has_expired_comes_back_by_itself() {
    for has_left in [true, false] {
        let (mut relay, mut a, mut b, mut c, talk) = three();
        if has_left {
            let signed = c.statement(talk);
            relay.leave(&c, talk, &signed);
            c.vault.left(&signed).unwrap();
            assert_eq!(c.vault.note_conversation(&relay.listed(talk)).unwrap(), None);
            a.take(&mut relay);
            a.remove_revoked(&mut relay, talk);
        } else {
            a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
            c.take(&mut relay);
        }
        a.change(&mut relay, talk, &[Intent::Add(c.account)]);
        relay.accounts.get_mut(&c.account).unwrap().inbox.pop();
        let need = c.vault.note_conversation(&relay.listed(talk)).unwrap();
        assert_eq!(need, Some(Need::Rejoin { conversation: talk }));
        c.rejoin(&mut relay, talk);
        assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
        b.take(&mut relay);
        b.say(&mut relay, talk, "back again");
        c.take(&mut relay);
        assert_eq!(c.history(), ["back again"]);
        // It may leave once more, and stays out by that.
        let again = c.statement(talk);
        c.vault.left(&again).unwrap();
        b.renew(&mut relay, talk);
        let listed = relay.listed(talk);
        assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
        assert!(matches!(c.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
    }
}

#[test]
fn who_was_removed_and_added_again_while_away_hears_of_both_from_the_server_and_comes_back() {
    let (mut relay, mut a, _, mut c, talk) = three();
    let came = relay.accounts[&c.account].inbox.len();
    a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    relay.accounts.get_mut(&c.account).unwrap().inbox.truncate(came);
    let listed = relay.listed(talk);
    let need = c.vault.note_conversation(&listed).unwrap().unwrap();
    assert!(matches!(need, Need::Commits { .. }), "{need:?}");
    c.meet(&mut relay, need);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
    c.rejoin(&mut relay, talk);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
    a.take(&mut relay);
    a.say(&mut relay, talk, "back again");
    c.take(&mut relay);
    assert_eq!(c.history(), ["back again"]);
}

#[test]
fn a_welcome_from_before_a_group_was_left_brings_nobody_back_into_it() {
    let mut relay = Relay::default();
    let [mut a, mut c] = ["alice", "carol"].map(|handle| Person::register(&mut relay, handle));
    let talk = relay.begin_group(&mut a, "trip");
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    let (_, withheld) = relay.accounts.get_mut(&c.account).unwrap().inbox.pop().unwrap();
    assert_eq!(c.vault.note_conversation(&relay.listed(talk)).unwrap(), Some(Need::Rejoin { conversation: talk }));
    c.rejoin(&mut relay, talk);
    a.take(&mut relay);
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    c.vault.left(&signed).unwrap();
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    let mut listed = relay.listed(talk);
    listed.accounts.push(c.account);
    assert_eq!(c.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
    relay.push_to(c.account, withheld);
    assert_eq!(c.take(&mut relay), []);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Absent);
    // Whatever was listed, one from after that does.
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    assert_eq!(told(&c.take(&mut relay)), [of(GroupChange::Joined, &["carol"])]);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
}

#[test]
fn a_server_that_has_shown_later_epochs_keeps_nobody_out_whom_a_sibling_took_out() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut second = Person::link(&mut relay, &c);
    second.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b, &mut c] {
        person.take(&mut relay);
    }
    let beyond = gureum_proto::ConversationState { epoch: 1_000, ..relay.listed(talk) };
    assert!(matches!(c.vault.note_conversation(&beyond).unwrap(), Some(Need::Commits { .. })));
    let signed = second.statement(talk);
    relay.leave(&second, talk, &signed);
    assert_eq!(told(&c.take(&mut relay)), [of(GroupChange::Left, &["carol"])]);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    assert_eq!(told(&c.take(&mut relay)), [of(GroupChange::Joined, &["carol"])]);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
}

#[test]
fn what_a_sibling_has_said_of_an_earlier_leaf_takes_the_place_of_no_statement_that_is_held() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut second = Person::link(&mut relay, &c);
    second.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b, &mut c] {
        person.take(&mut relay);
    }
    let earlier = second.statement(talk);
    second.renew(&mut relay, talk);
    c.take(&mut relay);
    let signed = c.statement(talk);
    c.vault.left(&signed).unwrap();
    relay.push(second.account, second.device, talk, EnvelopeBody::Leave(earlier));
    c.take(&mut relay);
    assert_eq!(c.vault.left_by_itself(&[talk].into()).unwrap(), [signed], "it is what a server that lost it is told");
}

#[test]
fn a_device_says_nothing_about_the_leaf_of_another_one() {
    let (mut relay, mut a, _, mut c, talk) = three();
    let second = Person::link(&mut relay, &c);
    a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
    c.take(&mut relay);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    let (_, welcome) = relay.accounts.get_mut(&c.account).unwrap().inbox.pop().unwrap();
    let leaves = a.view(talk).leaves;
    let leaf = leaves.iter().find(|leaf| leaf.identity.is_some_and(|it| it.device == c.device)).unwrap();
    let leaf_key = bytes::Bytes::copy_from_slice(&leaf.leaf_key);
    let leave = Leave { conversation: talk, account: c.account, device: second.device, leaf_key };
    let signed = SignedLeave::sign(leave, &second.vault.identity().proof);
    relay.push_to(c.account, SharedEnvelope { body: EnvelopeBody::Leave(signed), ..welcome.clone() });
    relay.push_to(c.account, welcome);
    assert_eq!(told(&c.take(&mut relay)), [of(GroupChange::Joined, &["carol"])]);
}

#[test]
fn a_welcome_that_is_refused_leaves_what_shows_that_somebody_has_added_this_device() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let dora = Person::register(&mut relay, "dora");
    a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
    c.take(&mut relay);
    a.change(&mut relay, talk, &[Intent::Add(dora.account)]);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    // The server shows nothing of who has come meanwhile.
    let mut refused = Vec::new();
    loop {
        let frames = relay.frames(&mut c);
        let taken = c.vault.take(&frames).unwrap();
        refused.extend(taken.events.into_iter().map(|stored| stored.event));
        let Some(need) = taken.need else { break };
        c.vault.give_up(need);
    }
    assert!(matches!(&refused[..], [Event::CommitRefused { .. }]), "{refused:?}");
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    assert_eq!(c.vault.note_conversation(&relay.listed(talk)).unwrap(), Some(Need::Rejoin { conversation: talk }));
    c.rejoin(&mut relay, talk);
    assert_eq!(c.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Active);
    b.take(&mut relay);
    b.say(&mut relay, talk, "back again");
    c.take(&mut relay);
    assert_eq!(c.history(), ["back again"]);
}

#[test]
fn who_has_left_plans_no_removal_of_itself() {
    let (_, _, _, mut c, talk) = three();
    let signed = c.statement(talk);
    c.vault.left(&signed).unwrap();
    let taken = c.vault.take(&[gureum_proto::DeliveryFrame::CaughtUp { seq: 0 }]).unwrap();
    assert_eq!(taken.removals, Removals::Nothing);
}
