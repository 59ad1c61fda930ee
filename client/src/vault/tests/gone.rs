//! Accounts of which the server says that they do not exist any more.

use gureum_proto::limits::SENT_GONE_MAX;
use gureum_proto::{AccountId, ConversationId};

use super::groups::three;
use super::*;

/// Sends something, and says who is said to be gone.
fn says(person: &mut Person, relay: &mut Relay, talk: ConversationId) -> Vec<String> {
    sends(person, relay, talk).gone
}

fn sends(person: &mut Person, relay: &mut Relay, talk: ConversationId) -> SentMessage {
    person.queue(talk, "who is there?");
    let sends = person.vault.next_sends(0, 64).unwrap();
    let sent = relay.send(person, &sends[0]);
    match person.vault.settle(&sent).unwrap() {
        Settled::Sent(message) => message,
        other => panic!("{other:?}"),
    }
}

/// Who was told to be gone, and whether this account may remove them.
fn told(person: &mut Person) -> Vec<(Vec<String>, bool)> {
    let gone = |stored: StoredEvent| match stored.event {
        Event::AccountsGone { who, is_admin, .. } => Some((who, is_admin)),
        _ => None,
    };
    person.vault.unreported_events(99).unwrap().into_iter().filter_map(gone).collect()
}

#[test]
fn who_does_not_exist_any_more_is_named_with_each_message_and_told_once() {
    let (mut relay, mut a, mut b, c, talk) = three();
    assert_eq!(says(&mut a, &mut relay, talk), [""; 0]);
    // One that is not in it the server may name as it likes.
    relay.gone = vec![AccountId::from_bytes([9; 16]), c.account];
    for _ in 0..2 {
        assert_eq!(says(&mut a, &mut relay, talk), ["carol"]);
        a.reopen();
    }
    assert_eq!(told(&mut a), [(vec!["carol".to_owned()], true)]);
    b.take(&mut relay);
    assert_eq!(says(&mut b, &mut relay, talk), ["carol"]);
    assert_eq!(told(&mut b), [(vec!["carol".to_owned()], false)]);
    a.take(&mut relay);
    a.change(&mut relay, talk, &[Intent::Remove(c.account)]);
    assert_eq!(says(&mut a, &mut relay, talk), [""; 0]);
    assert_eq!(told(&mut a).len(), 1);
}

#[test]
fn of_many_who_do_not_exist_any_more_the_first_are_named_and_the_others_counted() {
    let (mut relay, mut a, b, c, talk) = three();
    let mut gone = vec![b.account, c.account];
    for number in 0..SENT_GONE_MAX - 1 {
        let other = Person::register(&mut relay, &format!("person{number}"));
        a.change(&mut relay, talk, &[Intent::Add(other.account)]);
        gone.push(other.account);
    }
    relay.gone = gone;
    let message = sends(&mut a, &mut relay, talk);
    assert_eq!((message.gone.len(), message.gone_more), (SENT_GONE_MAX, 1));
}

#[test]
fn what_is_written_to_somebody_who_does_not_exist_any_more_is_given_up() {
    let (_, mut a, _b, talk) = Relay::with_a_pair();
    a.queue(talk, "still there?");
    let sends = a.vault.next_sends(0, 64).unwrap();
    let refused = Relay::refuse(&sends[0], gureum_proto::Code::AccountGone);
    let settled = a.vault.settle(&refused).unwrap();
    let says_so = |why: &str| why.contains("does not exist any more");
    assert!(matches!(&settled, Settled::Failed(Event::SendFailed { why, .. }) if says_so(why)), "{settled:?}");
    assert_eq!((a.vault.outbox_len().unwrap(), a.vault.next_sends(0, 64).unwrap()), (0, vec![]));
}
