//! Receipts: sent together, once for an account, and believed of whoever sends them alone.

use std::ops::RangeInclusive;

use gureum_proto::{AccountId, Code, ConversationId, DeviceId, EnvelopeBody, LeafIdentity};

use super::attacks::package_of;
use super::groups::three;
use super::*;
use crate::e2ee::Wanted;
use crate::e2ee::content::{Body, Content, ContentId, Receipt};
use crate::limits::{RECEIPT_ACCOUNTS_MAX, RECEIPT_IDS_MAX};

const DELIVERED: ReceiptKind = ReceiptKind::Delivered;
const READ: ReceiptKind = ReceiptKind::Read;

impl Person {
    /// Sends the receipts that are owed; how many that were.
    fn confirm(&mut self, relay: &mut Relay) -> usize {
        self.vault.queue_receipts().unwrap();
        let sends = self.vault.next_sends(0, 64).unwrap();
        for send in &sends {
            assert!(send.silent, "receipts are for programs alone");
            let sent = relay.send(self, send);
            assert_eq!(self.vault.settle(&sent).unwrap(), Settled::Silent);
        }
        sends.len()
    }

    /// Takes what is in the inbox, and says which receipts that told of, and whose.
    fn hear(&mut self, relay: &mut Relay) -> Vec<(ReceiptKind, String)> {
        confirmed(&self.take(relay))
    }

    /// What this account has written: by how many that has come, and was read.
    fn marks(&mut self) -> Vec<(String, usize, usize)> {
        let history = self.vault.history(None, 1000).unwrap();
        let mark = |item| match item {
            HistoryItem::Message(Message { text, receipts: Some(receipts), .. }) => {
                Some((text, receipts.delivered_to.len(), receipts.read_by.len()))
            }
            _ => None,
        };
        history.into_iter().filter_map(mark).collect()
    }

    /// Adds accounts to a group in its own state alone, of which nobody hears.
    fn add_alone(&mut self, talk: ConversationId, numbers: RangeInclusive<u8>) {
        self.inside(|work| {
            let package = |number| {
                let (account, device) = (AccountId::from_bytes([number; 16]), DeviceId::from_bytes([number; 16]));
                let package = package_of(LeafIdentity { account, device, log_entry: 0 }, number);
                work.mls().read_key_package(&package).unwrap().0
            };
            let added = numbers.map(package).collect();
            let mut group = work.group(talk).unwrap().unwrap();
            work.mls().commit(&mut group, Wanted { added, ..Wanted::default() }).unwrap();
            work.mls().merge_pending(&mut group).unwrap();
            work.keep(talk, group);
        });
    }

    fn seal(&mut self, talk: ConversationId, content: &[u8]) -> bytes::Bytes {
        self.inside(|work| {
            let mut group = work.group(talk).unwrap().unwrap();
            let ciphertext = work.mls().encrypt(&mut group, content).unwrap();
            work.keep(talk, group);
            ciphertext.into()
        })
    }

    /// Sends anything silently.
    pub(super) fn whisper(&mut self, relay: &mut Relay, talk: ConversationId, content: &[u8]) {
        let sealed = self.seal(talk, content);
        relay.push(self.account, self.device, talk, EnvelopeBody::Silent(sealed));
    }

    /// The name of a message in this history.
    fn content_id(&mut self, text: &str) -> ContentId {
        self.inside(|work| {
            let sql = "SELECT content_id FROM message WHERE text = ?1";
            work.connection.query_row(sql, [text], |row| row.get(0)).unwrap()
        })
    }
}

fn confirmed(events: &[Event]) -> Vec<(ReceiptKind, String)> {
    let receipt = |event: &Event| match event {
        Event::Receipt { kind, by, .. } => Some((*kind, by.to_string())),
        _ => None,
    };
    events.iter().filter_map(receipt).collect()
}

fn by_bob(kind: ReceiptKind, times: usize) -> Vec<(ReceiptKind, String)> {
    vec![(kind, "bob".to_owned()); times]
}

fn mark(text: &str, delivered: usize, read: usize) -> (String, usize, usize) {
    (text.to_owned(), delivered, read)
}

fn receipt(kind: ReceiptKind, ids: Vec<ContentId>) -> Vec<u8> {
    Content { id: [9; 16], body: Body::Receipt(Receipt { kind, ids }) }.to_bytes()
}

/// Alice and Bob, and a second device of Bob's that is in as well.
fn with_bobs_second() -> (Relay, Person, Person, Person, ConversationId) {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &b);
    second.rejoin(&mut relay, talk);
    a.take(&mut relay);
    b.take(&mut relay);
    second.take(&mut relay);
    (relay, a, b, second, talk)
}

#[test]
fn what_came_together_is_confirmed_together_and_once() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for text in ["one", "two"] {
        a.say(&mut relay, talk, text);
    }
    b.take(&mut relay);
    assert_eq!((b.confirm(&mut relay), b.confirm(&mut relay)), (1, 0));
    assert_eq!(a.hear(&mut relay), by_bob(DELIVERED, 2));
    assert_eq!(a.marks(), [mark("one", 1, 0), mark("two", 1, 0)]);
    assert_eq!((a.confirm(&mut relay), b.hear(&mut relay)), (0, vec![]), "nobody confirms a receipt");
}

#[test]
fn a_receipt_names_no_more_messages_than_it_may() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for index in 0..=RECEIPT_IDS_MAX {
        a.queue(talk, &index.to_string());
    }
    while a.vault.outbox_len().unwrap() > 0 {
        a.flush(&mut relay);
    }
    b.take(&mut relay);
    assert_eq!(b.confirm(&mut relay), 2);
    assert_eq!(a.hear(&mut relay), by_bob(DELIVERED, RECEIPT_IDS_MAX + 1));
}

#[test]
fn who_has_read_has_got_and_says_so_once() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "got, then read");
    b.take(&mut relay);
    b.confirm(&mut relay);
    let read = ReadMark { conversation: talk, number: 1 };
    assert_eq!(b.vault.mark_read(talk).unwrap(), read);
    assert_eq!(b.confirm(&mut relay), 1);
    assert_eq!(b.vault.mark_read(talk).unwrap(), read);
    assert_eq!(b.confirm(&mut relay), 0);
    a.say(&mut relay, talk, "read at once");
    b.take(&mut relay);
    b.vault.mark_read(talk).unwrap();
    assert_eq!(b.confirm(&mut relay), 1, "one says both");
    assert_eq!(a.hear(&mut relay), [by_bob(DELIVERED, 1), by_bob(READ, 2)].concat());
    assert_eq!(a.marks(), [mark("got, then read", 1, 1), mark("read at once", 1, 1)]);
}

#[test]
fn a_conversation_in_which_nothing_came_is_read_up_to_nowhere() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    assert_eq!(b.vault.mark_read(talk).unwrap().number, 0);
    b.say(&mut relay, talk, "own");
    assert_eq!(b.vault.mark_read(talk).unwrap().number, 1);
    assert_eq!((b.confirm(&mut relay), a.hear(&mut relay)), (0, vec![]), "what one has written oneself");
    let nowhere = ConversationId::from_bytes([0; 16]);
    assert!(matches!(b.vault.mark_read(nowhere), Err(VaultError::NoConversation(_))));
}

#[test]
fn one_device_of_an_account_confirms_for_all() {
    let (mut relay, mut a, mut b, mut second, talk) = with_bobs_second();
    a.say(&mut relay, talk, "to both");
    b.take(&mut relay);
    b.vault.mark_read(talk).unwrap();
    assert_eq!(b.confirm(&mut relay), 1);
    second.take(&mut relay);
    assert_eq!(second.confirm(&mut relay), 0);
    second.vault.mark_read(talk).unwrap();
    assert_eq!(second.confirm(&mut relay), 0);
    assert_eq!(a.hear(&mut relay), by_bob(READ, 1));
}

#[test]
fn the_first_receipt_of_an_account_counts() {
    let (mut relay, mut a, mut b, mut second, talk) = with_bobs_second();
    a.say(&mut relay, talk, "to both");
    b.take(&mut relay);
    second.take(&mut relay);
    assert_eq!((b.confirm(&mut relay), second.confirm(&mut relay)), (1, 1), "at the same time");
    assert_eq!(a.hear(&mut relay), by_bob(DELIVERED, 1));
    assert_eq!(a.marks(), [mark("to both", 1, 0)]);
}

#[test]
fn a_sibling_shows_who_has_got_what_the_other_device_has_sent() {
    let (mut relay, mut a, mut b, mut second, talk) = with_bobs_second();
    b.say(&mut relay, talk, "from the first");
    a.take(&mut relay);
    assert_eq!(a.confirm(&mut relay), 1);
    for person in [&mut b, &mut second] {
        assert_eq!(person.hear(&mut relay), [(DELIVERED, "alice".to_owned())]);
        assert_eq!(person.marks(), [mark("from the first", 1, 0)]);
    }
}

#[test]
fn a_receipt_says_something_of_who_sends_it_and_of_what_this_account_has_written_alone() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "of alice");
    b.say(&mut relay, talk, "of bob");
    b.take(&mut relay);
    a.take(&mut relay);
    let (hers, his) = (b.content_id("of alice"), b.content_id("of bob"));
    b.whisper(&mut relay, talk, &receipt(READ, vec![his, [7; 16], hers, hers]));
    b.whisper(&mut relay, talk, &receipt(READ, vec![hers]));
    b.whisper(&mut relay, talk, &receipt(DELIVERED, vec![hers]));
    assert_eq!(a.hear(&mut relay), by_bob(READ, 1));
    assert_eq!(a.marks(), [mark("of alice", 1, 1)]);
    let kept = a.inside(|work| {
        work.connection.query_row("SELECT count(*) FROM receipt", [], |row| row.get::<_, i64>(0)).unwrap()
    });
    assert_eq!(kept, 1, "what concerns no message is not kept");
}

#[test]
fn what_came_silently_and_is_no_receipt_is_passed_and_a_receipt_with_a_number_is_no_message() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let text = Content { id: [1; 16], body: Body::Text("unseen".to_owned()) };
    b.whisper(&mut relay, talk, &text.to_bytes());
    b.whisper(&mut relay, talk, b"of a later program");
    relay.push(b.account, b.device, talk, EnvelopeBody::Silent(vec![1, 2, 3].into()));
    assert_eq!((a.take(&mut relay), a.history()), (vec![], vec![]));
    let ciphertext = b.seal(talk, &receipt(READ, vec![[1; 16]]));
    relay.push(b.account, b.device, talk, EnvelopeBody::Message { number: 1, ciphertext });
    assert!(matches!(a.take(&mut relay).as_slice(), [Event::Unreadable { number: 1, .. }]));
    b.say(&mut relay, talk, "seen");
    a.take(&mut relay);
    assert_eq!(a.history(), ["<unreadable>", "seen"]);
}

#[test]
fn who_turns_receipts_off_sends_none_and_sees_none() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.vault.set_receipts(false).unwrap();
    a.say(&mut relay, talk, "while off");
    b.take(&mut relay);
    b.vault.mark_read(talk).unwrap();
    assert_eq!((b.confirm(&mut relay), b.vault.settings().unwrap()), (0, Settings { receipts: false, typing: true }));
    b.vault.set_receipts(true).unwrap();
    assert_eq!(b.confirm(&mut relay), 0, "what was read then stays unsaid");
    a.say(&mut relay, talk, "while on");
    b.take(&mut relay);
    b.vault.queue_receipts().unwrap();
    b.vault.set_receipts(false).unwrap();
    assert_eq!(b.confirm(&mut relay), 0, "what has not gone out does not");
    b.vault.set_receipts(true).unwrap();
    b.vault.mark_read(talk).unwrap();
    assert_eq!(b.confirm(&mut relay), 1);
    a.vault.set_receipts(false).unwrap();
    assert_eq!((a.hear(&mut relay), a.marks()), (vec![], vec![]));
    a.vault.set_receipts(true).unwrap();
    assert_eq!(a.marks(), [mark("while off", 0, 0), mark("while on", 0, 0)]);
}

#[test]
fn a_receipt_that_is_faster_than_the_answer_to_its_message_is_told_with_that() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.queue(talk, "answered late");
    let send = a.vault.next_sends(0, 64).unwrap().remove(0);
    let answer = relay.send(&a, &send);
    b.take(&mut relay);
    b.confirm(&mut relay);
    assert_eq!(a.hear(&mut relay), []);
    assert!(matches!(a.vault.settle(&answer).unwrap(), Settled::Sent(_)));
    let told: Vec<_> = a.vault.unreported_events(9).unwrap().into_iter().map(|stored| stored.event).collect();
    assert_eq!(confirmed(&told), by_bob(DELIVERED, 1));
    assert_eq!(a.marks(), [mark("answered late", 1, 0)]);
}

#[test]
fn a_receipt_is_encrypted_again_like_a_text_and_given_up_in_silence() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.take(&mut relay);
    assert!(b.vault.queue_receipts().unwrap());
    b.queue(talk, "a text goes first");
    let sends = b.vault.next_sends(0, 64).unwrap();
    assert_eq!(sends.iter().map(|send| send.silent).collect::<Vec<_>>(), [false, true]);
    assert_eq!(b.vault.outbox_len().unwrap(), 1, "texts are counted");
    let refused = b.vault.settle(&Relay::refuse(&sends[1], Code::EpochStale)).unwrap();
    assert_eq!(refused, Settled::Again { conversation: talk, epoch: 1 });
    b.reopen();
    a.renew(&mut relay, talk);
    b.take(&mut relay);
    let again = b.vault.next_sends(sends[0].counter, 64).unwrap();
    assert_eq!(again.iter().map(|send| (send.counter, send.epoch)).collect::<Vec<_>>(), [(sends[1].counter, 2)]);
    let given_up = b.vault.settle(&Relay::refuse(&again[0], Code::NotMember)).unwrap();
    assert_eq!(given_up, Settled::Silent);
    let told = b.vault.unreported_events(9).unwrap();
    assert!(!told.iter().any(|stored| matches!(stored.event, Event::SendFailed { .. })), "{told:?}");
    assert!(b.vault.next_sends(sends[0].counter, 64).unwrap().is_empty());
}

#[test]
fn in_a_group_of_many_the_history_does_not_say_that_nobody_has_got_a_message() {
    let (mut relay, mut a, mut b, _, talk) = three();
    a.say(&mut relay, talk, "among few");
    b.take(&mut relay);
    b.confirm(&mut relay);
    a.take(&mut relay);
    a.inside(|work| {
        for number in 3..=u8::try_from(RECEIPT_ACCOUNTS_MAX).unwrap() {
            let sql = "INSERT INTO roster (conversation, account, device) VALUES (?1, ?2, ?2)";
            work.connection.execute(sql, rusqlite::params![talk.as_bytes(), [number; 16]]).unwrap();
        }
    });
    a.say(&mut relay, talk, "among many");
    let history = a.vault.history(Some(With::Group(talk)), 9).unwrap();
    let has_receipts = history.iter().map(|item| match item {
        HistoryItem::Message(message) => message.receipts.is_some(),
        other => panic!("{other:?}"),
    });
    assert_eq!(has_receipts.collect::<Vec<_>>(), [true, false], "what is known is shown");
}

#[test]
fn in_a_group_of_more_accounts_than_may_confirm_nobody_does() {
    let (mut relay, mut a, mut b, _, talk) = three();
    let most = u8::try_from(RECEIPT_ACCOUNTS_MAX).unwrap();
    for (joined, confirmed) in [(4..=most, 1), (most + 1..=most + 1, 0)] {
        a.add_alone(talk, joined);
        b.say(&mut relay, talk, "to all");
        a.take(&mut relay);
        assert_eq!(a.confirm(&mut relay), confirmed);
    }
    let waiting = a.inside(|work| {
        work.connection.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0)).unwrap()
    });
    assert_eq!(waiting, 0, "it is given up");
}

#[test]
fn in_a_group_each_account_confirms_for_itself() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    a.say(&mut relay, talk, "to all");
    for person in [&mut b, &mut c] {
        person.take(&mut relay);
        assert_eq!(person.confirm(&mut relay), 1);
    }
    b.vault.mark_read(talk).unwrap();
    assert_eq!((b.confirm(&mut relay), c.hear(&mut relay)), (1, vec![]), "which concerns Alice alone");
    let heard = [(DELIVERED, "bob"), (DELIVERED, "carol"), (READ, "bob")];
    assert_eq!(a.hear(&mut relay), heard.map(|(kind, by)| (kind, by.to_owned())));
    assert_eq!(a.marks(), [mark("to all", 2, 1)]);
}
