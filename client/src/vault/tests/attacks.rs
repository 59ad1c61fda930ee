//! What a hostile server, member or stranger tries, and is refused.

use ed25519_dalek::SigningKey;
use gureum_proto::{
    ConversationId, DeliveryFrame, DeviceId, DeviceKeys, DeviceLog, EnvelopeBody, LeafIdentity, MessageId,
    SharedEnvelope, SubmitCommit, sign_add,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::types::SignatureScheme;

use super::*;
use crate::e2ee::Mls;

/// Makes the commit by which a member adds somebody's KeyPackage, as a malicious member would.
pub(super) fn malicious_add(
    relay: &mut Relay,
    from: &mut Person,
    talk: ConversationId,
    package: &[u8],
) -> SubmitCommit {
    let epoch = relay.conversations[&talk].group.epoch;
    let bundle = from.inside(|work| {
        let (package, _) = work.mls().read_key_package(package).unwrap();
        let mut group = work.group(talk).unwrap().unwrap();
        work.mls().add(&mut group, vec![package])
    });
    let (commit, group_info, welcome) = (bundle.commit.into(), bundle.group_info.into(), bundle.welcome.into());
    SubmitCommit { counter: 1, conversation: talk, epoch, commit, group_info, welcome }
}

/// A KeyPackage that says to be of somebody's account.
pub(super) fn ghost_package(person: &Person) -> Vec<u8> {
    let device = DeviceId::from_bytes([7; 16]);
    package_of(LeafIdentity { account: person.account, device, log_entry: 1 }, 42)
}

/// A KeyPackage of whoever says to be somebody, with a key of its own for each number.
pub(super) fn package_of(identity: LeafIdentity, number: u8) -> Vec<u8> {
    let seed = [number; 32];
    let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes().to_vec();
    let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, seed.to_vec(), public);
    let mut connection = Connection::open_in_memory().unwrap();
    crate::e2ee::migrate(&mut connection).unwrap();
    Mls::new(&connection, &RustCrypto::default(), &signer, identity).key_package(false).unwrap()
}

#[track_caller]
fn check_stops(b: &mut Person, events: &[Event], talk: ConversationId, reason: &str) {
    let stopped =
        |event: &Event| matches!(event, Event::CommitRefused { stopped: true, why, .. } if why.contains(reason));
    assert!(events.iter().any(stopped), "{events:?}");
    let conversation = b.vault.conversation(talk).unwrap().unwrap();
    assert_eq!((conversation.state, conversation.epoch), (ConversationStatus::Forked, 1));
    assert!(matches!(b.vault.queue_text(talk, "hi"), Err(QueueError::Stopped)));
}

#[test]
fn a_ghost_device_stops_the_conversation() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let ghost = ghost_package(&a);
    let submit = malicious_add(&mut relay, &mut a, talk, &ghost);
    relay.commit(&a, &submit);
    let events = b.take(&mut relay);
    check_stops(&mut b, &events, talk, "is not in the log of");
}

#[test]
fn a_third_account_stops_the_conversation() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let package = carol.vault.make_last_resort().unwrap();
    let submit = malicious_add(&mut relay, &mut a, talk, &package);
    relay.commit(&a, &submit);
    let events = b.take(&mut relay);
    check_stops(&mut b, &events, talk, "not in the conversation");
}

#[test]
fn a_strangers_external_commit_stops_the_conversation() {
    let (mut relay, _, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let group = relay.conversations[&talk].group.clone();
    let refused = carol.vault.rejoin(talk, &group);
    assert!(matches!(refused, Err(RejoinError::NeedsAccount(_))), "{refused:?}");
    let made = carol.inside(|work| work.mls().rejoin(talk, &group.group_info, &group.tree).unwrap().bundle);
    let shared = SharedEnvelope {
        message_id: MessageId::new(1, 1),
        conversation: talk,
        sender_account: carol.account,
        sender_device: carol.device,
        body: EnvelopeBody::Commit { epoch: 1, commit: made.commit.into() },
    };
    relay.push_to(b.account, shared);
    let events = b.take(&mut relay);
    check_stops(&mut b, &events, talk, "not in the conversation");
}

#[test]
fn a_commit_that_does_not_hold_changes_nothing() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let submit = a.vault.commit_self_update(talk).unwrap().unwrap();
    let mut broken = submit.commit.to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    relay.push(a.account, a.device, talk, EnvelopeBody::Commit { epoch: 1, commit: broken.into() });
    relay.push(a.account, a.device, talk, EnvelopeBody::Commit { epoch: 1, commit: vec![1, 2, 3].into() });
    let events = b.take(&mut relay);
    let refused = |event: &&Event| matches!(event, Event::CommitRefused { stopped: false, .. });
    assert_eq!(events.iter().filter(refused).count(), 2, "{events:?}");
    relay.commit(&a, &submit);
    a.vault.commit_accepted(talk).unwrap();
    a.say(&mut relay, talk, "the true one");
    b.take(&mut relay);
    assert_eq!(b.history(), ["the true one"]);
}

#[test]
fn a_forked_or_shorter_log_is_not_believed() {
    let (relay, mut a, b, _) = Relay::with_a_pair();
    let other = tempfile::tempdir().unwrap();
    let (_, stranger) = Vault::create(other.path(), &KeySource::File, &relay::profile()).unwrap();
    let mut swapped = relay.found(b.account, 0);
    swapped.log_entries = vec![stranger.root_entry];
    let refused = a.vault.learn_account(&swapped, 0).unwrap_err();
    assert!(matches!(&refused, TrustError::Forked { handle, .. } if handle == "bob"), "{refused:?}");
    assert!(refused.to_string().contains("device log for bob"), "{refused}");
    let mut shorter = relay.found(b.account, 1);
    shorter.log_length = 0;
    assert!(matches!(a.vault.learn_account(&shorter, 1), Err(TrustError::Shorter { seen: 1, shown: 0, .. })));
    let mut hidden = relay.found(b.account, 1);
    hidden.log_length = 5;
    assert!(matches!(a.vault.learn_account(&hidden, 1), Err(TrustError::Incomplete(_))));
    let mut renamed = relay.found(a.account, 0);
    renamed.handle = "bob".parse().unwrap();
    assert!(matches!(a.vault.learn_account(&renamed, 0), Err(TrustError::HandleMoved { .. })));
    assert_eq!(a.vault.contact(b.account).unwrap().unwrap().log.length(), 1);
}

#[test]
fn a_device_that_the_log_has_is_told_and_may_join() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let (proof, mls) = ([1; 32], [2; 32]);
    let second = SigningKey::from_bytes(&proof);
    let mls_key = SigningKey::from_bytes(&mls).verifying_key().to_bytes();
    let keys = DeviceKeys::new(second.verifying_key().as_bytes(), &mls_key).unwrap();
    let log = DeviceLog::from_root(&relay.accounts[&a.account].log[0]).unwrap();
    let entry = sign_add(&log, (a.device, &a.vault.identity().proof), &keys, &second, 9);
    relay.accounts.get_mut(&a.account).unwrap().log.push(entry);
    let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, mls.to_vec(), mls_key.to_vec());
    let identity = LeafIdentity { account: a.account, device: keys.device(), log_entry: 1 };
    let mut connection = Connection::open_in_memory().unwrap();
    crate::e2ee::migrate(&mut connection).unwrap();
    let package = Mls::new(&connection, &RustCrypto::default(), &signer, identity).key_package(false).unwrap();
    let submit = malicious_add(&mut relay, &mut a, talk, &package);
    relay.commit(&a, &submit);
    b.take(&mut relay);
    assert_eq!(b.vault.conversation(talk).unwrap().unwrap().epoch, 2);
    let told = b.vault.unreported_events(9).unwrap();
    let (account, handle, device) = (a.account, "alice".to_owned(), keys.device());
    let added = Event::DeviceAdded { account, handle, device, name: None };
    assert!(told.iter().any(|stored| stored.event == added), "{told:?}");
}

#[test]
fn a_group_state_older_than_one_seen_is_not_joined_and_attempts_are_bounded() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let old = relay.conversations[&talk].group.clone();
    a.renew(&mut relay, talk);
    b.take(&mut relay);
    let refused = b.vault.rejoin(talk, &old);
    assert!(matches!(refused, Err(RejoinError::Older { shown: 1, seen: 2 })), "{refused:?}");
    let mut lied = old;
    lied.epoch = 2;
    for _ in 0..2 {
        assert!(matches!(b.vault.rejoin(talk, &lied), Err(RejoinError::Refused(_))));
    }
    let good = relay.conversations[&talk].group.clone();
    assert!(matches!(b.vault.rejoin(talk, &good), Err(RejoinError::TooOften { .. })));
    b.moves_on(2 * 3600 * 1000);
    b.vault.rejoin(talk, &good).unwrap();
}

#[test]
fn what_cannot_be_read_is_told_and_never_blocks() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let garbage = |number| EnvelopeBody::Message { number, ciphertext: vec![0, 1, 0, 2, 9].into() };
    relay.push(a.account, a.device, talk, garbage(1));
    // A member that claims an epoch which does not exist.
    a.vault.commit_self_update(talk).unwrap().unwrap();
    a.vault.commit_accepted(talk).unwrap();
    a.say(&mut relay, talk, "from nowhere");
    let unknown = ConversationId::from_bytes([9; 16]);
    relay.push_to(
        b.account,
        SharedEnvelope {
            message_id: MessageId::new(1, 1),
            conversation: unknown,
            sender_account: a.account,
            sender_device: a.device,
            body: EnvelopeBody::Commit { epoch: 4, commit: vec![1].into() },
        },
    );
    let events = b.take(&mut relay);
    let unreadable = |event: &&Event| matches!(event, Event::Unreadable { .. });
    assert_eq!(events.iter().filter(unreadable).count(), 2, "{events:?}");
    assert_eq!(relay.frames(&mut b), Vec::<DeliveryFrame>::new());
}

#[test]
fn a_welcome_into_a_group_of_others_is_refused() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let package = carol.vault.make_last_resort().unwrap();
    let submit = malicious_add(&mut relay, &mut a, talk, &package);
    let shared = SharedEnvelope {
        message_id: MessageId::new(1, 1),
        conversation: talk,
        sender_account: a.account,
        sender_device: a.device,
        body: EnvelopeBody::Welcome(submit.welcome),
    };
    relay.push_to(carol.account, shared.clone());
    let events = carol.take(&mut relay);
    assert!(matches!(events.as_slice(), [Event::CommitRefused { stopped: false, .. }]), "{events:?}");
    assert_eq!(carol.vault.conversations().unwrap(), []);
    relay.push_to(b.account, shared);
    assert_eq!(b.take(&mut relay), [], "it is for somebody else");
}

#[test]
fn a_message_that_was_altered_or_put_elsewhere_is_told_and_never_shown() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut carol = Person::register(&mut relay, "carol");
    let other = relay.begin(&mut carol, b.account);
    b.take(&mut relay);
    for text in ["one", "two", "three"] {
        a.say(&mut relay, talk, text);
    }
    let held = &mut relay.accounts.get_mut(&b.account).unwrap().inbox;
    let EnvelopeBody::Message { ciphertext, .. } = &mut held[2].1.body else { panic!("no message") };
    let mut altered = ciphertext.to_vec();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    *ciphertext = altered.into();
    held[3].1.conversation = other;
    held[4].1.sender_account = carol.account;
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>", "<unreadable>", "three"]);
    let last = b.vault.history(Some(a.account.into()), 1).unwrap();
    let HistoryItem::Message(message) = &last[0] else { panic!("{last:?}") };
    assert_eq!(message.from, a.account, "who wrote it is not the server's to say");
}

/// What a client does not notice yet, as SECURITY.md says: nothing that a sender has signed counts or orders messages.
#[test]
fn what_a_server_leaves_out_or_turns_around_before_it_numbers_it_is_not_noticed() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for text in ["one", "two", "three"] {
        a.say(&mut relay, talk, text);
    }
    // After the Welcome, which is taken.
    let said: Vec<_> = relay.accounts.get_mut(&b.account).unwrap().inbox.drain(1..).map(|(_, shared)| shared).collect();
    for (number, shared) in [(1, &said[2]), (2, &said[0])] {
        let EnvelopeBody::Message { ciphertext, .. } = &shared.body else { panic!("no message") };
        let body = EnvelopeBody::Message { number, ciphertext: ciphertext.clone() };
        let message_id = MessageId::new(1_700_000_000_000 + number, 1);
        relay.push_to(b.account, SharedEnvelope { message_id, body, ..shared.clone() });
    }
    let events = b.take(&mut relay);
    assert!(events.iter().all(|event| matches!(event, Event::Message(_))), "{events:?}");
    assert_eq!(b.history(), ["three", "one"]);
}
