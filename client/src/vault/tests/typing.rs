//! Typing indicators: the members of the same epoch read them, and nobody else; nothing of them stays.

use gureum_proto::limits::{DATAGRAM_BYTES_MAX, TYPING_SEALED_BYTES_MAX};
use gureum_proto::{DeviceId, Typing};

use super::groups::three;
use super::*;

impl Person {
    fn types(&mut self, talk: gureum_proto::ConversationId, types: bool) -> Typing {
        self.vault.seal_typing(talk, types).unwrap().expect("it is said")
    }

    /// What this person is shown.
    fn sees(&mut self, typing: &Typing) -> Option<(String, bool)> {
        let shown = self.vault.open_typing(typing).unwrap();
        shown.map(|(handle, types)| (handle.to_string(), types))
    }
}

fn said(who: &str, types: bool) -> Option<(String, bool)> {
    Some((who.to_owned(), types))
}

#[test]
fn who_types_and_who_has_stopped_is_seen_on_the_other_side_and_kept_nowhere() {
    let (_, mut a, mut b, talk) = Relay::with_a_pair();
    let events = b.vault.unreported_events(9).unwrap();
    let typing = a.types(talk, true);
    assert!(typing.sealed.len() <= TYPING_SEALED_BYTES_MAX && typing.encode().len() <= DATAGRAM_BYTES_MAX);
    assert_eq!((typing.account, typing.device, typing.epoch), (a.account, a.device, 1));
    assert_eq!(b.sees(&typing), said("alice", true));
    assert_eq!(b.sees(&typing), said("alice", true), "one that comes twice does no harm");
    assert_ne!(a.types(talk, true).sealed, typing.sealed, "no nonce serves twice");
    let stopped = a.types(talk, false);
    assert_eq!(b.sees(&stopped), said("alice", false));
    assert_eq!(a.sees(&stopped), None, "nobody is told of themselves");
    let answer = b.types(talk, true);
    assert_eq!(a.sees(&answer), said("bob", true));
    assert_eq!((b.vault.unreported_events(9).unwrap(), b.history()), (events, vec![]));
}

#[test]
fn of_another_epoch_it_is_not_seen() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let before = a.types(talk, true);
    b.renew(&mut relay, talk);
    assert_eq!(b.sees(&before), None, "it comes late");
    let ahead = b.types(talk, true);
    assert_eq!(a.sees(&ahead), None, "the commit has not come yet");
    a.take(&mut relay);
    assert_eq!(a.sees(&ahead), said("bob", true));
    let again = a.types(talk, true);
    assert_eq!((again.epoch, b.sees(&again)), (2, said("alice", true)));
    let relabelled = Typing { epoch: 2, ..before };
    assert_eq!(b.sees(&relabelled), None);
}

#[test]
fn what_was_changed_on_the_way_is_not_seen() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut c = Person::register(&mut relay, "carol");
    let typing = a.types(talk, true);
    let mut cut = typing.clone();
    cut.sealed.truncate(11);
    let changed = [
        Typing { account: c.account, ..typing.clone() },
        Typing { device: DeviceId::from_bytes([7; 16]), ..typing.clone() },
        // Bob's device is in the group, and has a key of its own.
        Typing { account: b.account, device: b.device, ..typing.clone() },
        Typing { conversation: gureum_proto::ConversationId::from_bytes([7; 16]), ..typing.clone() },
        cut,
    ];
    for typing in changed {
        assert_eq!(b.sees(&typing), None, "{typing:?}");
    }
    for place in 0..typing.sealed.len() {
        let mut sealed = typing.sealed.to_vec();
        sealed[place] ^= 1;
        assert_eq!(b.sees(&Typing { sealed: sealed.into(), ..typing.clone() }), None, "byte {place}");
    }
    assert_eq!(c.sees(&typing), None, "she is not in it");
    assert_eq!(c.vault.seal_typing(talk, true).unwrap(), None);
    assert_eq!(b.sees(&typing), said("alice", true));
}

#[test]
fn what_is_turned_off_is_neither_said_nor_seen() {
    let (_, mut a, mut b, talk) = Relay::with_a_pair();
    let typing = a.types(talk, true);
    b.vault.set_typing(false).unwrap();
    assert_eq!((b.sees(&typing), b.vault.seal_typing(talk, true).unwrap()), (None, None));
    assert_eq!(b.vault.settings().unwrap(), Settings { receipts: true, typing: false });
    b.reopen();
    assert_eq!(b.sees(&typing), None);
    b.vault.set_typing(true).unwrap();
    assert_eq!(b.sees(&typing), said("alice", true));
}

#[test]
fn in_a_group_all_see_it_and_nothing_is_said_while_somebody_leaves() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let typing = b.types(talk, true);
    assert_eq!((a.sees(&typing), c.sees(&typing)), (said("bob", true), said("bob", true)));
    let hers = c.types(talk, true);
    assert_eq!(b.sees(&hers), said("carol", true));
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    c.vault.left(&signed).unwrap();
    assert_eq!((c.vault.seal_typing(talk, true).unwrap(), c.sees(&typing)), (None, None));
    b.take(&mut relay);
    assert_eq!(b.vault.seal_typing(talk, true).unwrap(), None);
    assert_eq!(b.sees(&hers), None, "who has left is not shown");
}

#[test]
fn nothing_is_said_while_a_revoked_device_is_in() {
    let (_, mut a, mut b, talk) = Relay::with_a_pair();
    let typing = b.types(talk, true);
    assert_eq!(a.sees(&typing), said("bob", true));
    a.inside(|work| {
        let sql = "INSERT INTO removal (conversation, device) VALUES (?1, zeroblob(16))";
        work.connection.execute(sql, [talk.as_bytes().as_slice()]).unwrap();
    });
    assert_eq!((a.vault.seal_typing(talk, true).unwrap(), a.sees(&typing)), (None, None));
}
