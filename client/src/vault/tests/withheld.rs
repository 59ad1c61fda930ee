//! Messages that a server numbers and keeps back, and what accounts for a number that nothing came for.

use gureum_proto::{ConversationId, DeliveryFrame, Gap, GapReason, Position};

use super::groups::three;
use super::*;

/// Longer than anything is on its way.
const AFTER_A_WHILE_MS: u64 = 11 * 60 * 1000;

impl Person {
    /// What it tells of messages that are withheld: from which number to which, and how many.
    fn withheld(&mut self) -> Vec<(u64, u64, u64)> {
        let told = self.vault.tell_withheld().unwrap();
        let span = |stored: StoredEvent| match stored.event {
            Event::Withheld { from_number, to_number, count, .. } => (from_number, to_number, count),
            other => panic!("{other:?}"),
        };
        told.into_iter().map(span).collect()
    }
}

impl Relay {
    /// Leaves entries of an inbox out, by their places, and closes it up so that its positions tell nothing.
    fn withhold(&mut self, from: &Person, places: &[usize]) {
        let inbox = std::mem::take(&mut self.accounts.get_mut(&from.account).unwrap().inbox);
        for (place, (_, shared)) in inbox.into_iter().enumerate() {
            if !places.contains(&place) {
                self.push_to(from.account, shared);
            }
        }
    }
}

fn with_three_messages() -> (Relay, Person, Person, ConversationId) {
    let (mut relay, mut a, b, talk) = Relay::with_a_pair();
    for text in ["one", "two", "three"] {
        a.say(&mut relay, talk, text);
    }
    (relay, a, b, talk)
}

#[test]
fn a_message_that_is_kept_back_after_it_was_numbered_is_told_once() {
    // The Welcome has the first place.
    for (places, told, read) in
        [([2].as_slice(), (2, 2, 1), vec!["one", "three"]), ([1, 2].as_slice(), (1, 2, 2), vec!["three"])]
    {
        let (mut relay, _a, mut b, talk) = with_three_messages();
        relay.withhold(&b, places);
        b.take(&mut relay);
        assert_eq!((b.history(), b.withheld()), (read.iter().map(ToString::to_string).collect(), vec![]), "not yet");
        let due_ms = b.vault.withheld_due_ms().unwrap().unwrap();
        assert!(due_ms > 0 && due_ms <= AFTER_A_WHILE_MS, "{due_ms}");
        b.moves_on(AFTER_A_WHILE_MS);
        assert_eq!((b.withheld(), b.withheld()), (vec![told], vec![]));
        assert_eq!(b.vault.withheld_due_ms().unwrap(), None);
        let events = b.vault.unreported_events(9).unwrap();
        let is_told =
            |stored: &&StoredEvent| matches!(stored.event, Event::Withheld { conversation: at, .. } if at == talk);
        assert_eq!(events.iter().filter(is_told).count(), 1, "{events:?}");
    }
}

#[test]
fn own_messages_account_for_their_numbers_on_both_sides() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "1");
    b.take(&mut relay);
    b.say(&mut relay, talk, "2");
    b.say(&mut relay, talk, "3");
    a.say(&mut relay, talk, "4");
    b.say(&mut relay, talk, "5");
    for person in [&mut a, &mut b] {
        person.take(&mut relay);
        assert_eq!(person.vault.withheld_due_ms().unwrap(), None);
        person.moves_on(AFTER_A_WHILE_MS);
        assert_eq!(person.withheld(), []);
    }
    // Between those, one can be missing all the same.
    a.say(&mut relay, talk, "6");
    b.say(&mut relay, talk, "7");
    a.say(&mut relay, talk, "8");
    let places = [relay.accounts[&b.account].inbox.len() - 2];
    relay.withhold(&b, &places);
    b.take(&mut relay);
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!(b.withheld(), [(6, 6, 1)]);
}

#[test]
fn a_message_without_an_answer_accounts_for_a_number_until_the_answer_is_there() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    b.queue(talk, "first");
    let send = b.vault.next_sends(0, 64).unwrap().remove(0);
    let sent = relay.send(&b, &send);
    a.say(&mut relay, talk, "second");
    b.take(&mut relay);
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!((b.withheld(), b.vault.withheld_due_ms().unwrap()), (vec![], Some(0)));
    assert!(matches!(b.vault.settle(&sent).unwrap(), Settled::Sent(_)));
    assert_eq!((b.withheld(), b.vault.withheld_due_ms().unwrap()), (vec![], None));
}

#[test]
fn a_gap_accounts_for_what_it_says_is_gone_and_for_nothing_after_it() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.take(&mut relay);
    a.say(&mut relay, talk, "two");
    a.say(&mut relay, talk, "three");
    let mut frames = relay.frames(&mut b);
    let DeliveryFrame::Envelope(gone) = &frames[0] else { panic!("{frames:?}") };
    let to = gone.position;
    let gap = Gap { from_seq: to.seq, to, missed: 1, reason: GapReason::Expired };
    frames[0] = DeliveryFrame::Gap(gap);
    assert_eq!(b.vault.take(&frames).unwrap().frames, 2);
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!((b.withheld(), b.history()), (vec![], ["one", "<1 missing>", "three"].map(str::to_owned).into()));

    a.say(&mut relay, talk, "four");
    a.say(&mut relay, talk, "five");
    let mut frames = relay.frames(&mut b);
    frames.remove(0);
    let DeliveryFrame::Envelope(last) = &mut frames[0] else { panic!("{frames:?}") };
    last.position = Position { seq: last.position.seq - 1, count: last.position.count - 1 };
    let taken = b.vault.take(&frames).unwrap();
    assert!(taken.holes, "{taken:?}");
    b.moves_on(AFTER_A_WHILE_MS);
    assert_eq!(b.withheld(), [(4, 4, 1)]);
}

#[test]
fn a_device_that_was_linked_misses_nothing_of_what_was_said_before() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "before");
    b.take(&mut relay);
    let mut second = Person::link(&mut relay, &b);
    a.say(&mut relay, talk, "while it is not in");
    b.say(&mut relay, talk, "which this account alone knows");
    second.rejoin(&mut relay, talk);
    a.take(&mut relay);
    a.say(&mut relay, talk, "since");
    second.take(&mut relay);
    second.moves_on(AFTER_A_WHILE_MS);
    assert_eq!((second.withheld(), second.vault.withheld_due_ms().unwrap()), (vec![], None));
}

#[test]
fn who_comes_into_a_group_or_back_misses_nothing_of_what_was_said_without_them() {
    let (mut relay, mut a, mut b, mut c, talk) = three();
    let mut d = Person::register(&mut relay, "dave");
    a.say(&mut relay, talk, "without dave");
    a.change(&mut relay, talk, &[Intent::Add(d.account), Intent::Remove(c.account)]);
    a.say(&mut relay, talk, "without carol");
    c.take(&mut relay);
    a.change(&mut relay, talk, &[Intent::Add(c.account)]);
    a.say(&mut relay, talk, "all");
    for person in [&mut a, &mut b, &mut c, &mut d] {
        person.take(&mut relay);
        person.moves_on(AFTER_A_WHILE_MS);
        assert_eq!((person.withheld(), person.vault.withheld_due_ms().unwrap()), (vec![], None));
    }
    b.say(&mut relay, talk, "kept back");
    a.say(&mut relay, talk, "and after");
    for person in [&mut c, &mut d] {
        let place = relay.accounts[&person.account].inbox.len() - 2;
        relay.withhold(person, &[place]);
        person.take(&mut relay);
        person.moves_on(AFTER_A_WHILE_MS);
        assert_eq!(person.withheld(), [(4, 4, 1)]);
    }
}

#[test]
fn a_server_that_makes_holes_without_end_fills_no_database() {
    let (mut relay, mut a, mut b, talk) = Relay::with_a_pair();
    a.say(&mut relay, talk, "one");
    b.take(&mut relay);
    b.inside(|work| {
        for number in 2..3_000 {
            work.note_number(talk, 2 * number, true).unwrap();
        }
        let holes: u64 = work.connection.query_row("SELECT count(*) FROM hole", [], |row| row.get(0)).unwrap();
        assert_eq!(holes, 1_000);
    });
}
