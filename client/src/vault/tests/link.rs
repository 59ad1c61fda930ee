//! A device before its account has it, what it is told when it comes in, and what it then believes.

use std::collections::BTreeSet;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::limits::LINK_APPROVALS_PER_OFFER_MAX;
use gureum_proto::{
    CheckChain, DeliveryFrame, DeviceKeys, EnvelopeBody, LinkBundle, LinkCode, LinkConsent, LinkOffer, LinkProposal,
    LogHead, MessageId, SharedEnvelope, countersign,
};
use openmls_rust_crypto::RustCrypto;

use super::groups::{of, three, told};
use super::relay::profile;
use super::*;
use crate::e2ee::seal;

fn draft(home: &Path) -> Draft {
    Draft::begin(system_clock(), home, &KeySource::File, &profile()).unwrap()
}

/// What a device says that shows a code.
fn offered(draft: &Draft) -> LinkOffer {
    open_offer(draft.code(), &draft.link().unwrap().offer).unwrap()
}

impl Person {
    fn answers(&mut self, draft: &Draft) -> Answer {
        assert_eq!(draft.link().unwrap().link, draft.code().id());
        self.vault.answer(draft.code(), &offered(draft)).unwrap()
    }

    /// Has the account's log add a device that has consented.
    fn adds(&mut self, relay: &mut Relay, draft: &mut Draft, answer: &Answer) {
        let consent = draft.consent(&answer.sealed).unwrap();
        let agreed = self.vault.agreed(draft.code(), answer, &consent.sealed).unwrap();
        relay.accounts.get_mut(&self.account).unwrap().log.push(agreed.entry);
        self.learn(relay, self.account);
    }

    fn hands_over(&mut self, draft: &Draft, answer: &Answer) -> LinkBundle {
        let device = draft.link().unwrap().device;
        let sealed = self.vault.bundle(draft.code(), answer, (device, "tablet")).unwrap();
        draft.open_bundle(&sealed).expect("it is for this device")
    }
}

/// A new device of an account, with all that it is handed.
pub(super) fn linked(relay: &mut Relay, first: &mut Person) -> Person {
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let device = draft.link().unwrap().device;
    let answer = first.answers(&draft);
    first.adds(relay, &mut draft, &answer);
    let bundle = first.hands_over(&draft, &answer);
    let vault = draft.finish(Some(&bundle)).unwrap();
    Person { home, vault, account: first.account, device }
}

#[test]
fn a_draft_has_the_same_code_after_a_restart_and_is_no_account_yet() {
    let home = tempfile::tempdir().unwrap();
    let first = draft(home.path());
    let (code, device) = (first.code().clone(), first.link().unwrap().device);
    drop(first);
    assert!(matches!(Vault::open(home.path(), &KeySource::File), Err(OpenError::Unlinked(_))));
    assert!(matches!(Vault::create(home.path(), &KeySource::File, &profile()), Err(OpenError::Unlinked(_))));
    let second = draft(home.path());
    assert!(*second.code() == code);
    assert_eq!(second.link().unwrap().device, device);
    let other = tempfile::tempdir().unwrap();
    assert!(*draft(other.path()).code() != code);
}

/// Where a device that waits says that it is to be found, and what it says that it is called.
fn says(draft: &Draft, person: &Person) -> (String, String) {
    (draft.hello_claim(person.account).server_name, offered(draft).device_name)
}

#[test]
fn a_draft_goes_to_another_server_and_keeps_its_name_once_it_was_seen() {
    let begin = |home: &Path, server: &str, name: &str| {
        let new = NewProfile { server: server.parse().unwrap(), device_name: name.to_owned() };
        Draft::begin(system_clock(), home, &KeySource::File, &new).unwrap()
    };
    let said = |server: &str, name: &str| (server.to_owned(), name.to_owned());
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let first = begin(home.path(), "gureum://one.example:4433", "tablet");
    let code = first.code().clone();
    assert_eq!(says(&first, &a), said("one.example", "tablet"));
    drop(first);
    let mut second = begin(home.path(), "gureum://two.example:4433", "kitchen");
    assert!(*second.code() == code, "it is the same device");
    assert_eq!(says(&second, &a), said("two.example", "kitchen"));
    let answer = a.answers(&second);
    second.consent(&answer.sealed).unwrap();
    drop(second);
    let third = begin(home.path(), "gureum://three.example:4433", "shed");
    assert!(*third.code() == code && third.joining().is_some());
    assert_eq!(says(&third, &a), said("three.example", "kitchen"), "whoever has answered has seen that name");
}

#[test]
fn a_linked_device_is_one_of_its_accounts_and_its_draft_is_gone() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut tablet = linked(&mut relay, &mut a);
    tablet.learn(&relay, a.account);
    let identity = tablet.vault.identity().clone();
    assert_eq!((identity.account, identity.handle.as_str(), identity.log_entry), (a.account, "alice", 1));
    assert_eq!(identity.device_name, "tablet", "as who added it calls it");
    let names = tablet.vault.device_names().unwrap();
    assert_eq!(names.get(&a.device).map(String::as_str), Some("laptop"));
    tablet.reopen();
    assert_eq!(tablet.vault.identity().device, tablet.device);
    let again = Draft::begin(system_clock(), tablet.home.path(), &KeySource::File, &profile()).map(drop);
    assert!(matches!(again, Err(OpenError::Exists(_))), "{again:?}");
}

#[test]
fn a_log_that_has_grown_meanwhile_is_answered_for_again() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let early = a.answers(&draft);
    draft.consent(&early.sealed).unwrap();
    let before = draft.joining().unwrap().clone();
    let _other = Person::link(&mut relay, &a);
    a.learn(&relay, a.account);
    let anew = a.answers(&draft);
    draft.consent(&anew.sealed).unwrap();
    assert!(!draft.joining().unwrap().continues(&before), "another approval has other digits");
    let answer = a.vault.answer_again(draft.code(), &early).unwrap();
    draft.consent(&answer.sealed).unwrap();
    assert!(draft.joining().unwrap().continues(&before));
    a.adds(&mut relay, &mut draft, &answer);
    let bundle = a.hands_over(&draft, &answer);
    assert_eq!(draft.finish(Some(&bundle)).unwrap().identity().log_entry, 2);
}

#[test]
fn a_device_that_one_account_has_answered_listens_to_no_other() {
    let mut relay = Relay::default();
    let (mut a, mut b) = (Person::register(&mut relay, "alice"), Person::register(&mut relay, "bob"));
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let (first, second) = (a.answers(&draft), b.answers(&draft));
    draft.consent(&first.sealed).unwrap();
    let refused = draft.consent(&second.sealed).map(drop);
    assert!(matches!(refused, Err(DeviceError::OtherAccount)), "{refused:?}");
    drop(draft);
    let mut draft = self::draft(home.path());
    assert!(matches!(draft.consent(&second.sealed), Err(DeviceError::OtherAccount)), "also after a restart");
    draft.consent(&first.sealed).unwrap();
}

#[test]
fn an_answer_that_is_for_another_device_is_refused() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [mut one, other] = [draft(homes[0].path()), draft(homes[1].path())];
    let elsewhere = a.answers(&other);
    assert!(matches!(one.consent(&elsewhere.sealed), Err(DeviceError::Answer(_))), "it is sealed for the other");
    let swapped = a.vault.answer(one.code(), &offered(&other)).unwrap();
    assert!(matches!(one.consent(&swapped.sealed), Err(DeviceError::Answer(_))), "it adds the other's keys");
    assert!(one.joining().is_none());
}

/// Somebody who has seen the code, and sits where all frames pass, puts a device of their own in the place of the new one.
#[test]
fn who_has_seen_the_code_cannot_consent_in_the_place_of_the_device() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [shown, theirs] = [draft(homes[0].path()), draft(homes[1].path())];
    let code = shown.code();
    let answer = a.vault.answer(code, &offered(&theirs)).unwrap();
    // They know the code and can guess the entry, but not the key that only the code's owner can read.
    let consent = LinkConsent { countersignature: [7; 64], opening: [0; 32] };
    let guessed = LinkProposal {
        account: a.account,
        handle: "alice".parse().unwrap(),
        entry: bytes::Bytes::from_static(b"x"),
        bundle_key: Zeroizing::new([0; 32]),
    };
    let forged = seal::seal(&guessed.consent_key(code), code.id(), &consent.encode()).unwrap();
    let refused = a.vault.agreed(code, &answer, &forged).map(drop);
    assert!(matches!(refused, Err(DeviceError::Consent)), "{refused:?}");
}

#[test]
fn both_devices_make_the_same_digits_and_each_approval_has_its_own() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let (code, sealed_offer) = (draft.code().clone(), draft.link().unwrap().offer);
    let offer = open_offer(&code, &sealed_offer).unwrap();
    let first = a.vault.answer(&code, &offer).unwrap();
    let again = a.vault.answer_again(&code, &first).unwrap();
    let anew = a.vault.answer(&code, &offer).unwrap();
    let [first, again, anew] = [first, again, anew].map(|answer| {
        let consent = draft.consent(&answer.sealed).unwrap();
        let agreed = a.vault.agreed(&code, &answer, &consent.sealed).unwrap();
        let digits = answer.digits(&code, &sealed_offer, &agreed);
        assert_eq!(consent.digits(&code, &sealed_offer), digits);
        digits
    });
    assert_eq!(again, first, "the log may grow while a person compares");
    assert_ne!(anew, first);
}

/// Somebody shows a code of their own in the place of another, reads the answer, and has as many consents as they like.
#[test]
fn who_shows_a_code_is_bound_to_the_digits_before_the_answer_comes() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let crypto = RustCrypto::default();
    let key = seal::SealKey::from_seed(&crypto, &[1; 32]).unwrap();
    let code = LinkCode::new(key.public, [2; 16]);
    let [proof, mls] = [3, 4].map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), mls.verifying_key().as_bytes()).unwrap();
    let chain = CheckChain::from_seed([5; 32]);
    let (device_name, commitment) = ("tablet".to_owned(), chain.commitment(0));
    let answer = a.vault.answer(&code, &LinkOffer { keys, device_name, wants_history: false, commitment }).unwrap();
    let opened = key.open(&crypto, &code.answer_info(), &answer.sealed).unwrap();
    let proposal = LinkProposal::decode(&opened).unwrap();
    let mut consents = |opening: [u8; 32], countersignature: [u8; 64]| {
        let consent = LinkConsent { countersignature, opening };
        let sealed = seal::seal(&proposal.consent_key(&code), code.id(), &consent.encode()).unwrap();
        a.vault.agreed(&code, &answer, &sealed).map(drop)
    };
    let signed = countersign(&proposal.entry, &proof);
    let other = CheckChain::from_seed([6; 32]).opening(1).unwrap();
    for opening in [other, commitment, [0; 32]] {
        let refused = consents(opening, signed);
        assert!(matches!(refused, Err(DeviceError::Consent)), "{refused:?}");
    }
    let refused = consents(chain.opening(1).unwrap(), countersign(&proposal.entry, &mls));
    assert!(matches!(refused, Err(DeviceError::Consent)), "the countersignature counts as well: {refused:?}");
    consents(chain.opening(1).unwrap(), signed).unwrap();
}

#[test]
fn a_device_tells_no_opening_twice_and_few_for_one_offer() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let mut waiting = draft(home.path());
    let mut told = BTreeSet::new();
    let mut answered = |waiting: &mut Draft| {
        let answer = a.answers(waiting);
        let consent = waiting.consent(&answer.sealed)?;
        let agreed = a.vault.agreed(waiting.code(), &answer, &consent.sealed)?;
        assert!(told.insert(agreed.opening), "it was told before");
        Ok::<_, DeviceError>(())
    };
    for _ in 0..LINK_APPROVALS_PER_OFFER_MAX {
        answered(&mut waiting).unwrap();
    }
    let refused = answered(&mut waiting);
    assert!(matches!(refused, Err(DeviceError::TooOften)), "{refused:?}");
    drop(waiting);
    answered(&mut draft(home.path())).unwrap();
}

#[test]
fn a_device_is_added_once_and_does_not_come_back() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let offer = offered(&draft);
    let answer = a.answers(&draft);
    a.adds(&mut relay, &mut draft, &answer);
    assert!(matches!(a.vault.answer(draft.code(), &offer), Err(DeviceError::Added)));
    a.revoke(&mut relay, offer.keys.device());
    assert!(matches!(a.vault.answer(draft.code(), &offer), Err(DeviceError::Revoked)));
    assert!(matches!(a.vault.revocation(offer.keys.device()), Ok(None)), "it is revoked");
    assert!(matches!(a.vault.revocation(a.device), Err(DeviceError::Last)));
}

#[test]
fn an_account_has_ten_devices_at_most() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    for _ in 1..gureum_proto::limits::DEVICES_MAX {
        Person::link(&mut relay, &a);
    }
    a.learn(&relay, a.account);
    let home = tempfile::tempdir().unwrap();
    let draft = draft(home.path());
    assert!(matches!(a.vault.answer(draft.code(), &offered(&draft)), Err(DeviceError::Full)));
}

#[test]
fn a_linked_device_believes_no_other_past_than_the_first_has_seen() {
    let (mut relay, mut a, b, _) = Relay::with_a_pair();
    let second = Person::link(&mut relay, &b);
    a.learn(&relay, b.account);
    let mut tablet = linked(&mut relay, &mut a);
    let mut shorter = relay.found(b.account, 0);
    shorter.log_entries.pop();
    shorter.log_length = 1;
    let refused = tablet.vault.learn_account(&shorter, 0);
    assert!(matches!(refused, Err(TrustError::Shorter { seen: 2, shown: 1, .. })), "{refused:?}");

    let mut forked = relay.clone();
    forked.accounts.get_mut(&b.account).unwrap().log.pop();
    let _third = Person::link(&mut forked, &b);
    let refused = tablet.vault.learn_account(&forked.found(b.account, 0), 0);
    assert!(matches!(refused, Err(TrustError::Forked { .. })), "{refused:?}");

    let mut half = relay.found(b.account, 0);
    half.log_entries.pop();
    assert!(tablet.vault.learn_account(&half, 0).unwrap().more);
    assert!(tablet.vault.contact(b.account).unwrap().is_none(), "the rest may be who was revoked");
    let learned = tablet.vault.learn_account(&relay.found(b.account, 0), 0).unwrap();
    assert!(tablet.vault.contact(b.account).unwrap().is_some());
    assert!(learned.contact.log.is_active(second.device));
    let impostor = Person::register(&mut relay, "mallory");
    let mut moved = relay.found(impostor.account, 0);
    moved.handle = "bob".parse().unwrap();
    let refused = tablet.vault.learn_account(&moved, 0);
    assert!(matches!(refused, Err(TrustError::HandleMoved { .. })), "{refused:?}");
}

#[test]
fn a_linked_device_joins_no_epoch_before_the_one_that_the_first_has_seen() {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    let old = relay.conversations[&talk].group.clone();
    a.renew(&mut relay, talk);
    let mut tablet = linked(&mut relay, &mut a);
    for account in [a.account, b.account] {
        tablet.learn(&relay, account);
    }
    let refused = tablet.vault.rejoin(talk, &old);
    assert!(matches!(refused, Err(RejoinError::Older { shown: 1, seen: 2 })), "{refused:?}");
    tablet.rejoin(&mut relay, talk);
    assert_eq!(tablet.vault.conversation(talk).unwrap().unwrap().epoch, 3);
    assert!(tablet.vault.unreported_events(9).unwrap().is_empty(), "to come in is no news");
}

#[test]
fn conversations_are_joined_newest_first() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut talks = Vec::new();
    for name in ["bob", "carol", "dave"] {
        let mut other = Person::register(&mut relay, name);
        talks.push(relay.begin(&mut a, other.account));
        other.take(&mut relay);
    }
    for talk in [talks[1], talks[2], talks[0]] {
        a.say(&mut relay, talk, "hello");
    }
    let mut tablet = linked(&mut relay, &mut a);
    for talk in &talks {
        let accounts = relay.conversations[talk].accounts.to_vec();
        let state = gureum_proto::ConversationState { conversation: *talk, epoch: 1, accounts, kind: DIRECT };
        assert_eq!(tablet.vault.note_conversation(&state).unwrap(), Some(Need::Rejoin { conversation: *talk }));
    }
    assert_eq!(tablet.vault.absent().unwrap(), [talks[0], talks[2], talks[1]]);
}

#[test]
fn the_inbox_of_a_linked_device_begins_where_its_account_stood() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut tablet = linked(&mut relay, &mut a);
    b.say(&mut relay, talk, "to nobody's loss");
    let frames = relay.frames(&mut a);
    let Some(DeliveryFrame::Envelope(envelope)) = frames.last() else { panic!("{frames:?}") };
    let far = gureum_proto::Position { seq: 50, count: 40 };
    let first = DeliveryFrame::Envelope(gureum_proto::Envelope { position: far, ..envelope.clone() });
    for account in [a.account, b.account] {
        tablet.learn(&relay, account);
    }
    tablet.rejoin(&mut relay, talk);
    let taken = tablet.vault.take(std::slice::from_ref(&first)).unwrap();
    assert_eq!((taken.frames, taken.ack), (1, Some(far)));
    let hole = gureum_proto::Position { seq: 52, count: 41 };
    let next = DeliveryFrame::Envelope(gureum_proto::Envelope { position: hole, ..envelope.clone() });
    assert!(matches!(tablet.vault.take(&[next]), Err(VaultError::Hole { expected: 51, got: 52 })));
}

#[test]
fn what_is_handed_over_without_the_draft_of_its_account_is_none() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let answer = a.answers(&draft);
    let device = draft.link().unwrap().device;
    let sealed = a.vault.bundle(draft.code(), &answer, (device, "tablet")).unwrap();
    assert_eq!(draft.open_bundle(&sealed), None, "nobody has been answered");
    a.adds(&mut relay, &mut draft, &answer);
    assert_eq!(draft.open_bundle(b""), None);
    let bundle = a.hands_over(&draft, &answer);
    let LogHead { length, .. } = bundle.log;
    assert_eq!(length, 2);
    let vault = draft.finish(None).unwrap();
    assert_eq!(vault.identity().account, a.account, "without it all the same");
}

#[test]
fn a_group_is_foretold_until_the_device_that_links_has_heard_that_it_is_out_of_it() {
    let (mut relay, mut a, _, mut c, talk) = three();
    a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
    let home = tempfile::tempdir().unwrap();
    let mut draft = draft(home.path());
    let answer = c.answers(&draft);
    c.adds(&mut relay, &mut draft, &answer);
    let foretold = |c: &mut Person| {
        let bundle = c.hands_over(&draft, &answer);
        bundle.conversations.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(foretold(&mut c), [talk], "a server that leaves it out of its list may hide it");
    c.take(&mut relay);
    assert_eq!(foretold(&mut c), []);
}

#[test]
fn a_new_device_is_not_brought_into_a_group_that_its_account_has_left() {
    let (mut relay, mut a, _, mut c, talk) = three();
    let signed = c.statement(talk);
    c.vault.left(&signed).unwrap();
    // The server keeps the statement from the others, whose group goes on with the leaf in it.
    a.change(&mut relay, talk, &[Intent::Rename("ours".into())]);
    let mut tablet = linked(&mut relay, &mut c);
    tablet.learn(&relay, c.account);
    assert_eq!(tablet.vault.note_conversation(&relay.listed(talk)).unwrap(), Some(Need::Rejoin { conversation: talk }));
    assert!(matches!(tablet.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
    assert_eq!(tablet.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Left);
    // What it was handed it hands over.
    let mut third = linked(&mut relay, &mut tablet);
    assert!(third.inside(|work| work.has_left_by_one_of(talk, &a.view(talk).leaves)).unwrap());
}

#[test]
fn a_group_that_its_account_leaves_before_a_new_device_has_come_in_is_not_hidden_from_it() {
    let (mut relay, _, _, mut c, talk) = three();
    let mut tablet = linked(&mut relay, &mut c);
    tablet.learn(&relay, c.account);
    assert!(tablet.vault.awaits_conversations().unwrap());
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    assert_eq!(told(&tablet.take(&mut relay)), [of(GroupChange::Left, &["carol"])]);
    assert_eq!(tablet.vault.note_listing(&BTreeSet::new()).unwrap(), []);
    // And a server that lists it all the same brings nobody back.
    let mut listed = relay.listed(talk);
    listed.accounts.push(c.account);
    assert_eq!(tablet.vault.note_conversation(&listed).unwrap(), Some(Need::Rejoin { conversation: talk }));
    assert!(matches!(tablet.vault.rejoin(talk, &relay.conversations[&talk].group), Err(RejoinError::Left)));
}

/// An account that was brought back: its new device comes in, and only then can the lost one be removed.
#[test]
fn nobody_leaves_an_account_without_a_device() {
    let (mut relay, a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    second.revoke(&mut relay, a.device);
    b.take(&mut relay);
    assert_eq!(b.vault.removals_due().unwrap(), [talk]);
    assert_eq!(b.vault.commit_removals(talk).unwrap(), None);
    second.learn(&relay, b.account);
    second.rejoin(&mut relay, talk);
    assert_eq!(second.vault.removals_due().unwrap(), [talk]);
    b.take(&mut relay);
    b.remove_revoked(&mut relay, talk);
    second.take(&mut relay);
    second.say(&mut relay, talk, "only the new one");
    b.take(&mut relay);
    assert_eq!(b.history(), ["only the new one"]);
}

#[test]
fn not_even_an_admin_leaves_an_account_without_a_device_unasked() {
    let (mut relay, mut a, b, _, talk) = three();
    let mut second = Person::link(&mut relay, &b);
    second.revoke(&mut relay, b.device);
    a.take(&mut relay);
    assert_eq!((a.vault.removals_due().unwrap(), a.vault.commit_removals(talk).unwrap()), (vec![talk], None));
    second.rejoin(&mut relay, talk);
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    assert_eq!((a.accounts(talk).len(), a.view(talk).leaves.len()), (3, 3));
}

/// The account's other device has not come in by itself: whoever has something to say brings it in.
#[test]
fn whoever_removes_an_accounts_last_device_for_its_revocation_brings_another_one_in() {
    let (mut relay, mut a, b, mut c, talk) = three();
    let mut second = Person::link(&mut relay, &b);
    second.revoke(&mut relay, b.device);
    for person in [&mut a, &mut c] {
        person.take(&mut relay);
        assert_eq!(person.vault.stranded(talk).unwrap(), [b.account]);
    }
    assert_eq!(c.vault.commit_removals(talk).unwrap(), None);
    c.queue(talk, "nobody is held up");
    let key_package = second.vault.make_key_packages(1).unwrap().remove(0);
    let good = Brought { account: b.account, device: second.device, key_package };
    let bad = Brought { key_package: Bytes::from_static(b"no KeyPackage"), ..good.clone() };
    assert_eq!(c.vault.commit_removals_with(talk, &[bad]).unwrap(), None);
    let submit = c.vault.commit_removals_with(talk, &[good]).unwrap().unwrap();
    assert!(relay.submit(&mut c, &submit), "she is no admin, and needs not be one for this");
    let welcome = SharedEnvelope {
        message_id: MessageId::new(1_700_000_000_000, 7),
        conversation: talk,
        sender_account: c.account,
        sender_device: c.device,
        body: EnvelopeBody::Welcome(submit.welcome),
    };
    relay.push_to(b.account, welcome);
    c.flush(&mut relay);
    for person in [&mut a, &mut second] {
        person.take(&mut relay);
        assert_eq!(person.history(), ["nobody is held up"]);
    }
    assert_eq!((a.accounts(talk).len(), a.view(talk).leaves.len()), (3, 3));
    assert_eq!((a.vault.removals_due().unwrap(), a.vault.stranded(talk).unwrap()), (vec![], vec![]));
}
