//! Copies of a home and broken state: what a newer copy may have used is not used again, and what does not open any more
//! is joined again.

use gureum_proto::{ConversationId, EnvelopeBody};

use super::groups::three;
use super::*;
use crate::e2ee;

impl Person {
    /// A copy of its home, as it is now.
    fn copy(&self) -> tempfile::TempDir {
        self.vault.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let copy = tempfile::tempdir().unwrap();
        for file in [DATABASE, "key"] {
            std::fs::copy(self.home.path().join(file), copy.path().join(file)).unwrap();
        }
        copy
    }

    /// The same device in a copy of its home.
    fn within(&self, home: tempfile::TempDir) -> Self {
        let vault = Vault::open(home.path(), &KeySource::File).unwrap();
        Self { home, vault, account: self.account, device: self.device }
    }

    fn claimed(&mut self) -> gureum_proto::Life {
        self.vault.hello_claim(true).unwrap().life.unwrap()
    }

    /// Goes on in the place of a newer copy, as the server lets it.
    pub(super) fn take_over(&mut self, relay: &Relay) -> Option<Event> {
        let life = self.claimed();
        assert!(self.vault.begin_restore(&life).unwrap());
        let head = relay.accounts[&self.account].inbox.last().map_or(0, |(position, _)| position.seq);
        let counter = relay.accepted_counter(self);
        self.vault.taken_over(&life, 9, counter, head).unwrap().map(|stored| stored.event)
    }

    fn copies_told(&mut self) -> usize {
        self.events_told(|event| matches!(event, Event::Copied { .. }))
    }

    /// How often its person was told that it has joined the conversation with somebody again.
    fn rejoins_told(&mut self, talk: ConversationId, with: &str) -> usize {
        let told = Event::Rejoined { conversation: talk, with: Some(with.to_owned()) };
        self.events_told(|event| *event == told)
    }

    fn events_told(&mut self, is_meant: impl Fn(&Event) -> bool) -> usize {
        self.vault.unreported_events(1000).unwrap().iter().filter(|stored| is_meant(&stored.event)).count()
    }

    /// How many of these events tell another person that it has joined again.
    fn rejoins_seen(&self, talk: ConversationId, events: &[Event]) -> usize {
        let by = self.vault.identity().handle.clone();
        let seen = Event::MemberRejoined { conversation: talk, by, device: self.device };
        events.iter().filter(|event| **event == seen).count()
    }
}

/// Changes a message on its way to somebody, so that no key opens it.
fn spoil(relay: &mut Relay, to: &Person, at: usize) {
    let inbox = &mut relay.accounts.get_mut(&to.account).unwrap().inbox;
    let EnvelopeBody::Message { ciphertext, .. } = &mut inbox[at].1.body else { panic!("no message") };
    let mut spoiled = ciphertext.to_vec();
    *spoiled.last_mut().unwrap() ^= 1;
    *ciphertext = spoiled.into();
}

#[test]
fn a_claim_is_the_same_until_it_is_confirmed_and_then_leads_to_the_next() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let first = a.claimed();
    assert_eq!((first.generation, first.token.to_bytes()), (0, [0; 16]));
    a.reopen();
    assert_eq!(a.claimed(), first);
    assert!(a.vault.life_confirmed(&first).unwrap());
    let second = a.claimed();
    assert_eq!((second.generation, second.token), (1, first.next));
    assert_ne!(second.next, first.next);
    assert!(a.vault.life_confirmed(&first).unwrap(), "late or twice");
    assert_eq!(a.claimed(), second);
}

#[test]
fn what_another_process_of_the_home_has_gone_on_from_is_no_older_copy() {
    let (relay, mut a, _, talk) = Relay::with_a_pair();
    a.queue(talk, "handed over");
    let sends = a.vault.next_sends(0, 64).unwrap();
    let claimed = a.claimed();
    a.vault.life_confirmed(&claimed).unwrap();
    assert!(!a.vault.begin_restore(&claimed).unwrap());
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), sends, "nothing has changed");
    assert_eq!(a.vault.rejoins_due().unwrap(), []);
    drop(relay);
}

#[test]
fn an_older_copy_reads_what_its_keys_open_and_joins_again_before_it_says_anything() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "before the copy");
    b.take(&mut relay);
    a.queue(talk, "in both copies");
    a.vault.next_sends(0, 64).unwrap();
    let copy = a.copy();
    a.flush(&mut relay);
    a.say(&mut relay, talk, "by the newer copy");
    b.say(&mut relay, talk, "for the old keys");
    a.renew(&mut relay, talk);
    b.take(&mut relay);
    b.say(&mut relay, talk, "for newer keys");
    a.take(&mut relay);

    let mut old = a.within(copy);
    assert_eq!(old.take_over(&relay), Some(Event::Restored { conversations: 1 }));
    assert_eq!(old.vault.next_sends(0, 64).unwrap(), []);
    assert_eq!(old.vault.commit_self_update(talk).unwrap(), None);
    assert_eq!(old.vault.rejoins_due().unwrap(), [talk]);
    assert_eq!(old.vault.behind().unwrap(), [Need::Rejoin { conversation: talk }]);
    old.take(&mut relay);
    assert_eq!(old.history(), ["before the copy", "for the old keys", "<unreadable>"]);
    assert_eq!((old.vault.rejoins_due().unwrap(), old.copies_told()), (vec![], 0));

    old.flush(&mut relay);
    old.say(&mut relay, talk, "by the older copy");
    let events = b.take(&mut relay);
    assert_eq!(old.rejoins_seen(talk, &events), 1, "{events:?}");
    let said = ["in both copies", "by the newer copy", "for the old keys", "for newer keys", "by the older copy"];
    assert_eq!(b.history(), [["before the copy"].as_slice(), &said].concat(), "nothing twice");
    b.say(&mut relay, talk, "welcome back");
    old.take(&mut relay);
    assert_eq!(old.history().last().map(String::as_str), Some("welcome back"));
}

#[test]
fn an_older_copy_that_lacks_nothing_joins_again_all_the_same() {
    let (mut relay, a, mut b, talk) = Relay::with_a_pair();
    let mut old = a.within(a.copy());
    old.take_over(&relay);
    old.take(&mut relay);
    assert_eq!(old.vault.rejoins_due().unwrap(), [talk]);
    old.rejoin(&mut relay, talk);
    assert_eq!(old.vault.rejoins_due().unwrap(), []);
    old.say(&mut relay, talk, "under fresh keys");
    b.take(&mut relay);
    assert_eq!(b.history(), ["under fresh keys"]);
}

#[test]
fn what_is_wanted_of_a_group_waits_until_an_older_copy_has_joined_again() {
    let (mut relay, a, mut b, _, talk) = three();
    let mut old = a.within(a.copy());
    old.vault.intend(talk, &[Intent::Rename("ours".into())]).unwrap();
    assert_eq!(old.take_over(&relay), Some(Event::Restored { conversations: 1 }));
    assert_eq!((old.vault.intents_due().unwrap(), old.vault.commit_intents(talk).unwrap()), (vec![], None));
    old.rejoin(&mut relay, talk);
    assert_eq!(old.vault.intents_due().unwrap(), [talk]);
    let submit = old.prepare(&mut relay, talk).unwrap();
    assert!(relay.submit(&mut old, &submit));
    b.take(&mut relay);
    assert_eq!(b.vault.group(talk).unwrap().name, "ours");
}

#[test]
fn counters_and_commits_of_the_newer_copy_are_not_used_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    let submit = a.vault.commit_self_update(talk).unwrap().unwrap();
    a.queue(talk, "waits");
    let copy = a.copy();
    relay.commit(&a, &submit);
    a.vault.commit_accepted(talk).unwrap();
    relay.follow(&mut a, talk);
    b.take(&mut relay);
    (0..200).for_each(|number| a.say(&mut relay, talk, &number.to_string()));

    let mut old = a.within(copy);
    let accepted = relay.accepted_counter(&a);
    old.take_over(&relay);
    assert_eq!(old.vault.pending_commits().unwrap(), []);
    old.rejoin(&mut relay, talk);
    let sends = old.vault.next_sends(0, 64).unwrap();
    assert_eq!(sends.len(), 1);
    assert!(sends[0].counter > accepted + 1000, "the newer copy may still be sending");
    old.flush(&mut relay);
    old.say(&mut relay, talk, "goes on");
    b.take(&mut relay);
    let heard = b.history();
    assert_eq!(heard.iter().filter(|text| *text == "waits").count(), 1, "the newer copy has sent it before");
    assert_eq!((heard.len(), heard.last().map(String::as_str)), (202, Some("goes on")));
}

#[test]
fn that_it_takes_over_survives_a_lost_answer() {
    let (relay, mut a, _, talk) = Relay::with_a_pair();
    a.queue(talk, "waits");
    let life = a.claimed();
    assert!(a.vault.begin_restore(&life).unwrap());
    a.reopen();
    assert_eq!(a.claimed(), life, "by which the server knows it again");
    assert!(!a.vault.life_confirmed(&life).unwrap(), "it is to ask once more");
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), []);
    assert!(a.vault.begin_restore(&life).unwrap());
    let told = a.vault.taken_over(&life, 9, 0, 0).unwrap();
    assert_eq!(told.map(|stored| stored.event), Some(Event::Restored { conversations: 1 }));
    assert_eq!(a.vault.taken_over(&life, 9, 0, 0).unwrap(), None, "told once");
    let next = a.claimed();
    assert_eq!((next.generation, next.token), (9, life.next));
    drop(relay);
}

#[test]
fn an_older_copy_makes_new_key_packages_and_keeps_the_secrets_of_the_old_ones() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    assert!(!a.vault.key_packages_due().unwrap());
    let kept = e2ee::key_packages(&a.vault.connection).unwrap().len();
    a.take_over(&relay);
    assert!(a.vault.key_packages_due().unwrap());
    a.vault.forget_key_packages(u64::MAX >> 1).unwrap();
    assert_eq!(e2ee::key_packages(&a.vault.connection).unwrap().len(), kept);
}

#[test]
fn a_welcome_brings_fresh_keys_as_well() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let b = Person::register(&mut relay, "bob");
    let mut old = b.within(b.copy());
    let talk = relay.begin(&mut a, b.account);
    assert_eq!(old.take_over(&relay), Some(Event::Restored { conversations: 0 }));
    old.take(&mut relay);
    assert_eq!(old.vault.rejoins_due().unwrap(), []);
    old.say(&mut relay, talk, "here");
    a.take(&mut relay);
    assert_eq!(a.history(), ["here"]);
}

#[test]
fn what_the_newer_copy_has_taken_is_a_gap_for_one_that_has_taken_nothing() {
    let mut relay = Relay::default();
    let mut a = Person::register(&mut relay, "alice");
    let mut b = Person::register(&mut relay, "bob");
    let mut old = b.within(b.copy());
    let talk = relay.begin(&mut a, b.account);
    a.say(&mut relay, talk, "one");
    a.say(&mut relay, talk, "two");
    b.take(&mut relay);
    old.take_over(&relay);
    a.say(&mut relay, talk, "three");
    // The server delivers from the last ack of the device, where it says that it has taken nothing.
    let frames = relay.frames(&mut b);
    assert_eq!(old.vault.take(&frames).unwrap().need, Some(Need::Rejoin { conversation: talk }));
    old.rejoin(&mut relay, talk);
    assert_eq!(old.vault.take(&frames).unwrap().need, None);
    assert_eq!(old.history(), ["<2 missing>", "<unreadable>"]);
    a.take(&mut relay);
    a.say(&mut relay, talk, "four");
    old.take(&mut relay);
    assert_eq!(old.history().last().map(String::as_str), Some("four"));
}

#[test]
fn a_linked_device_that_goes_on_from_before_it_first_came_in_is_told_what_was_said_to_it_since() {
    let (mut relay, a, mut b, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    let copy = second.copy();
    second.rejoin(&mut relay, talk);
    b.take(&mut relay);
    b.say(&mut relay, talk, "to both of Alice's");
    second.take(&mut relay);
    assert_eq!(second.history(), ["to both of Alice's"]);

    let mut old = second.within(copy);
    old.take_over(&relay);
    old.take(&mut relay);
    assert_eq!((old.history(), old.rejoins_told(talk, "bob")), (vec!["<unreadable>".to_owned()], 1));
}

#[test]
fn what_a_copy_in_use_sends_is_noticed_and_told_once() {
    let (mut relay, mut a, _, talk) = Relay::with_a_pair();
    let mut second = Person::link(&mut relay, &a);
    second.rejoin(&mut relay, talk);
    a.take(&mut relay);
    let mut copy = a.within(a.copy());
    a.say(&mut relay, talk, "by the one");
    a.renew(&mut relay, talk);
    a.take(&mut relay);
    assert_eq!(a.copies_told(), 0, "all of it is its own");
    // The first is answered as what the other has sent under the same counter.
    (0..3).for_each(|number| copy.say(&mut relay, talk, &number.to_string()));
    a.take(&mut relay);
    copy.say(&mut relay, talk, "and more");
    a.take(&mut relay);
    assert_eq!(a.copies_told(), 1);
}

#[test]
fn a_group_whose_records_are_damaged_is_joined_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.inside(|work| {
        let sql = "UPDATE openmls_group_data SET group_data = x'00' WHERE data_type = 'message_secrets'";
        work.connection.execute(sql, []).unwrap();
    });
    b.reopen();
    a.say(&mut relay, talk, "lost");
    b.take(&mut relay);
    assert_eq!((b.history(), b.rejoins_told(talk, "alice")), (vec!["<unreadable>".to_owned()], 1));
    let events = a.take(&mut relay);
    assert_eq!(b.rejoins_seen(talk, &events), 1, "{events:?}");
    a.say(&mut relay, talk, "found");
    b.take(&mut relay);
    b.say(&mut relay, talk, "again");
    a.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>", "found", "again"]);
}

#[test]
fn a_group_whose_records_are_damaged_is_one_to_join_before_anything_is_sent() {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    a.inside(|work| work.connection.execute("UPDATE openmls_group_data SET group_data = x'00'", []).unwrap());
    a.queue(talk, "waits");
    assert_eq!(a.vault.next_sends(0, 64).unwrap(), []);
    assert_eq!(a.vault.conversation(talk).unwrap().unwrap().state, ConversationStatus::Absent);
    assert_eq!(a.vault.behind().unwrap(), [Need::Rejoin { conversation: talk }]);
    a.rejoin(&mut relay, talk);
    a.flush(&mut relay);
    assert_eq!(a.history(), ["waits"]);
    drop(b);
}

#[test]
fn keys_that_open_nothing_any_more_are_replaced_by_joining_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for at in 1..=3 {
        a.say(&mut relay, talk, &at.to_string());
        spoil(&mut relay, &b, at);
    }
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>"; 3]);
    assert_eq!((b.vault.conversation(talk).unwrap().unwrap().epoch, b.rejoins_told(talk, "alice")), (2, 1));
    let events = a.take(&mut relay);
    assert_eq!(b.rejoins_seen(talk, &events), 1, "{events:?}");
    a.say(&mut relay, talk, "readable");
    b.take(&mut relay);
    assert_eq!(b.history().last().map(String::as_str), Some("readable"));
}

#[test]
fn a_few_messages_that_do_not_open_are_told_and_no_reason_to_join_again() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    for at in 1..=5 {
        a.say(&mut relay, talk, &at.to_string());
        if at != 3 {
            spoil(&mut relay, &b, at);
        }
    }
    b.take(&mut relay);
    assert_eq!(b.history(), ["<unreadable>", "<unreadable>", "3", "<unreadable>", "<unreadable>"]);
    assert_eq!(b.vault.conversation(talk).unwrap().unwrap().epoch, 1);
}

#[test]
fn joining_again_over_broken_keys_is_bounded() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.inside(|work| (0..3).for_each(|_| work.note_rejoin_attempt(talk).unwrap()));
    for at in 1..=9 {
        a.say(&mut relay, talk, &at.to_string());
        spoil(&mut relay, &b, at);
    }
    b.take(&mut relay);
    assert_eq!((b.history().len(), b.vault.conversation(talk).unwrap().unwrap().epoch), (9, 1));
}

#[test]
fn an_older_copy_that_has_left_a_group_comes_back_into_it_where_the_newer_one_had() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let signed = c.statement(talk);
    relay.leave(&c, talk, &signed);
    c.vault.left(&signed).unwrap();
    a.take(&mut relay);
    a.remove_revoked(&mut relay, talk);
    let older = c.copy();
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    a.say(&mut relay, talk, "welcome back");
    c.take(&mut relay);
    assert_eq!(c.history(), ["welcome back"]);
    let mut c = c.within(older);
    c.take_over(&relay).unwrap();
    // What every device has taken is gone.
    relay.accounts.get_mut(&c.account).unwrap().inbox.clear();
    let need = c.vault.note_conversation(&relay.listed(talk)).unwrap();
    assert_eq!(need, Some(Need::Rejoin { conversation: talk }));
    c.rejoin(&mut relay, talk);
    for person in [&mut a, &mut b] {
        person.take(&mut relay);
    }
    c.say(&mut relay, talk, "from the older copy");
    b.take(&mut relay);
    assert_eq!(b.history(), ["welcome back", "from the older copy"]);
}
