//! What was said before is handed over to a new device: all of it, once, whatever is cut off, lost, doubled or late.

use std::cell::RefCell;

use gureum_proto::{ConversationId, DeliveryFrame, DeviceId, Gap, GapReason, MessageId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::in_step::with_two;
use super::*;
use crate::e2ee::content::history::Part;
use crate::e2ee::content::record::{Progress, Record};
use crate::e2ee::content::{Body, Content};
use crate::limits::{HISTORY_ASK_MAX_MS, HISTORY_ASK_MS, HISTORY_PATIENCE_MS, HISTORY_WINDOW, NUMBER_MAX};
use crate::vault::handed_over::take_part;
use crate::vault::outbox::KIND_HISTORY;

/// So long that a part has room for one.
const LONG: usize = 40 * 1024;

impl Person {
    /// Sends what waits, all of it for programs alone; in how many messages.
    pub(super) fn send_silently(&mut self, relay: &mut Relay) -> usize {
        let sends = self.vault.next_sends(0, 64).unwrap();
        for send in &sends {
            assert!(send.silent, "it is for programs alone");
            let sent = relay.send(self, send);
            assert_eq!(self.vault.settle(&sent).unwrap(), Settled::Silent);
        }
        sends.len()
    }

    /// Says something to the other devices that no honest one would.
    fn insist(&mut self, relay: &mut Relay, body: Body) {
        let content = Content { id: [9; 16], body };
        self.inside(|work| {
            let own = work.own_row().unwrap().expect("there is one").id;
            let sql = format!(
                "INSERT INTO outbox (conversation, content_id, text, created_ms, kind, payload)
                 VALUES (?1, ?2, '', 1, {KIND_HISTORY}, ?3)"
            );
            let row = rusqlite::params![own.as_bytes(), content.id, content.to_bytes()];
            work.connection.execute(&sql, row).unwrap();
        });
        self.send_silently(relay);
    }

    /// Sends what is due of histories; in how many messages.
    pub(super) fn hand_on(&mut self, relay: &mut Relay) -> usize {
        self.vault.queue_history().unwrap();
        self.send_silently(relay)
    }

    fn says_much(&mut self, relay: &mut Relay, talk: ConversationId, times: usize) {
        for index in 0..times {
            self.queue(talk, &format!("{index:02} {}", "x".repeat(LONG)));
        }
        self.flush(relay);
    }
}

/// Alice with two devices that are in step and a third one that the first has added and owes the history, and Bob, who has
/// talked with her before that.
pub(super) struct World {
    pub(super) relay: Relay,
    pub(super) first: Person,
    second: Person,
    pub(super) third: Person,
    bob: Person,
    talk: ConversationId,
}

impl World {
    pub(super) fn begin(say: impl FnOnce(&mut Relay, &mut Person, &mut Person, ConversationId)) -> Self {
        let mut world = Self::before_joining(say);
        world.join(world.talk);
        world
    }

    /// The third device is in the conversation of the own devices, and in no other one yet.
    fn before_joining(say: impl FnOnce(&mut Relay, &mut Person, &mut Person, ConversationId)) -> Self {
        let (mut relay, mut first, mut second, mut bob, talk) = with_two();
        say(&mut relay, &mut first, &mut bob, talk);
        first.take(&mut relay);
        second.take(&mut relay);
        let third = Person::link(&mut relay, &first);
        first.learn(&relay, first.account);
        second.learn(&relay, first.account);
        first.vault.owe_history(third.device).unwrap();
        let own = first.vault.own_conversation().unwrap().expect("there is one").id;
        let mut world = Self { relay, first, second, third, bob, talk };
        world.join(own);
        world
    }

    fn join(&mut self, conversation: ConversationId) {
        self.third.rejoin(&mut self.relay, conversation);
        for person in [&mut self.first, &mut self.second, &mut self.bob, &mut self.third] {
            person.take(&mut self.relay);
        }
    }

    /// Goes on until neither has anything to say; what the third device is told.
    pub(super) fn hand_over(&mut self) -> Vec<Event> {
        let mut told = self.third.take(&mut self.relay);
        for _ in 0..50 {
            let sent = self.first.hand_on(&mut self.relay) + self.third.hand_on(&mut self.relay);
            self.first.take(&mut self.relay);
            told.extend(self.third.take(&mut self.relay));
            if sent == 0 {
                return told;
            }
        }
        panic!("they go on without end");
    }

    #[track_caller]
    pub(super) fn check_whole(&mut self) {
        assert_eq!(self.third.history(), self.first.history());
        let owed = self.first.vault.history_owed().unwrap();
        assert!(matches!(owed.as_slice(), [one] if one.is_done && one.messages == one.total), "{owed:?}");
        let coming = self.third.vault.history_coming().unwrap();
        assert!(matches!(coming.as_slice(), [one] if one.is_done && one.messages == one.total), "{coming:?}");
        assert!(!self.first.vault.history_waits().unwrap() && !self.third.vault.history_waits().unwrap());
    }

    /// The parts that wait in the first device's outbox.
    fn parts(&mut self) -> Vec<Part> {
        self.first.vault.queue_history().unwrap();
        let payloads: Vec<Vec<u8>> = self.first.inside(|work| {
            let sql = format!("SELECT payload FROM outbox WHERE kind = {KIND_HISTORY} ORDER BY id");
            let mut statement = work.connection.prepare(&sql).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.map(|row| row.unwrap()).collect()
        });
        let part = |payload: &Vec<u8>| match Content::parse(payload) {
            Ok(Content { body: Body::History(part), .. }) => part,
            other => panic!("{other:?}"),
        };
        payloads.iter().map(part).collect()
    }
}

pub(super) fn few(relay: &mut Relay, first: &mut Person, bob: &mut Person, talk: ConversationId) {
    first.say(relay, talk, "one");
    bob.take(relay);
    bob.say(relay, talk, "two");
    first.take(relay);
    first.say(relay, talk, "three");
    bob.take(relay);
}

fn much(relay: &mut Relay, first: &mut Person, _bob: &mut Person, talk: ConversationId) {
    first.says_much(relay, talk, usize::try_from(HISTORY_WINDOW).unwrap() + 4);
}

fn completions(events: &[Event]) -> Vec<(u64, u64)> {
    let completion = |event: &Event| match event {
        Event::History { messages, of, done: true, .. } => Some((*messages, *of)),
        _ => None,
    };
    events.iter().filter_map(completion).collect()
}

#[test]
fn a_new_device_has_all_that_was_said_before_and_none_of_it_is_news() {
    let mut world = World::begin(few);
    assert_eq!(world.third.history(), Vec::<String>::new());
    let told = world.hand_over();
    world.check_whole();
    assert_eq!(world.third.history(), ["one", "two", "three"]);
    assert_eq!(completions(&told), [(3, 3)]);
    let [Event::History { from, .. }] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(*from, world.first.device.to_string(), "it has not heard yet what that is called");
    assert_eq!(world.third.vault.unread(world.talk).unwrap(), 0);
    world.third.vault.mark_read(world.talk).unwrap();
    assert!(!world.third.vault.queue_receipts().unwrap(), "nobody is owed a receipt for it");
    world.second.take(&mut world.relay);
    assert_eq!(world.second.vault.history_coming().unwrap(), [], "it is for one device alone");
    // What comes then is news as ever.
    world.bob.say(&mut world.relay, world.talk, "four");
    world.third.take(&mut world.relay);
    assert_eq!(world.third.vault.unread(world.talk).unwrap(), 1);
}

#[test]
fn a_history_of_nothing_comes_to_its_end_as_well() {
    let mut world = World::begin(|_, _, _, _| ());
    assert_eq!(completions(&world.hand_over()), [(0, 0)]);
    world.check_whole();
}

#[test]
fn who_wrote_what_when_and_who_has_it_is_handed_over() {
    let mut world = World::begin(|relay, first, bob, talk| {
        few(relay, first, bob, talk);
        bob.vault.queue_receipts().unwrap();
        bob.send_silently(relay);
        first.take(relay);
    });
    world.hand_over();
    let all = |person: &mut Person| {
        let history = person.vault.history(None, 1000).unwrap();
        let message = |item| match item {
            // Whether it was accepted, records tell.
            HistoryItem::Message(message) => Some(Message { seq: None, request: false, ..message }),
            _ => None,
        };
        history.into_iter().filter_map(message).collect::<Vec<_>>()
    };
    let (at_first, at_third) = (all(&mut world.first), all(&mut world.third));
    assert_eq!(at_third, at_first);
    let marked = at_third[0].receipts.as_ref().unwrap();
    assert_eq!(marked.delivered_to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bob"]);
}

#[test]
fn no_more_is_on_its_way_than_the_window_holds() {
    let mut world = World::begin(much);
    let window = usize::try_from(HISTORY_WINDOW).unwrap();
    assert_eq!((world.first.hand_on(&mut world.relay), world.first.hand_on(&mut world.relay)), (window, 0));
    world.third.take(&mut world.relay);
    assert_eq!(world.third.hand_on(&mut world.relay), 1, "one word for all of them");
    world.first.take(&mut world.relay);
    let owed = world.first.vault.history_owed().unwrap();
    assert_eq!((owed[0].messages, owed[0].total), (HISTORY_WINDOW, HISTORY_WINDOW + 4));
    assert_eq!(completions(&world.hand_over()), [(HISTORY_WINDOW + 4, HISTORY_WINDOW + 4)]);
    world.check_whole();
}

#[test]
fn it_goes_on_after_a_crash_of_either() {
    let mut world = World::begin(much);
    world.first.vault.queue_history().unwrap();
    world.first.reopen();
    world.first.hand_on(&mut world.relay);
    world.first.reopen();
    world.third.take(&mut world.relay);
    world.third.reopen();
    world.third.vault.queue_history().unwrap();
    world.third.reopen();
    assert_eq!(completions(&world.hand_over()).len(), 1);
    world.check_whole();
}

#[test]
fn what_was_dropped_on_its_way_is_asked_for_again() {
    let mut world = World::begin(much);
    world.first.hand_on(&mut world.relay);
    let mut frames = world.relay.frames(&mut world.third);
    let DeliveryFrame::Envelope(first) = frames.remove(0) else { panic!("the first part comes first") };
    let (from_seq, to) = (first.position.seq, first.position);
    let gap = Gap { from_seq, to, missed: 0, reason: GapReason::Expired };
    frames.insert(0, DeliveryFrame::Gap(gap));
    let taken = world.third.vault.take(&frames).unwrap();
    assert!(taken.owes_history && taken.events.is_empty(), "{taken:?}");
    assert_eq!(completions(&world.hand_over()).len(), 1);
    world.check_whole();
}

#[test]
fn a_last_part_that_is_lost_without_a_word_is_asked_for_after_a_while() {
    let mut world = World::begin(few);
    let part = world.parts().remove(0);
    world.first.inside(|work| work.connection.execute("DELETE FROM outbox", []).map(drop).unwrap());
    // It knows of the transfer, by a part that is late.
    let early = Part { after: part.until + 1, until: part.until + 1, entries: vec![], is_last: false, ..part };
    let from = world.first.device;
    world.third.inside(|work| take_part(work, from, &early).unwrap());
    world
        .third
        .inside(|work| work.connection.execute("UPDATE handed_over SET asks = 0, is_owed = 0", []).map(drop).unwrap());
    assert_eq!(world.hand_over(), []);
    world.third.moves_on(HISTORY_ASK_MS + 1);
    assert_eq!(completions(&world.hand_over()), [(3, 3)]);
    world.check_whole();
}

#[test]
fn what_was_asked_in_vain_is_asked_again_when_the_sender_may_have_missed_it() {
    let mut world = World::begin(much);
    world.first.hand_on(&mut world.relay);
    let mut frames = world.relay.frames(&mut world.third);
    let DeliveryFrame::Envelope(first) = frames.remove(0) else { panic!("the first part comes first") };
    let (from_seq, to) = (first.position.seq, first.position);
    frames.insert(0, DeliveryFrame::Gap(Gap { from_seq, to, missed: 0, reason: GapReason::Expired }));
    world.third.vault.take(&frames).unwrap();
    assert!(world.third.vault.queue_history().unwrap(), "it asks");
    world.third.inside(|work| work.connection.execute("DELETE FROM outbox", []).map(drop).unwrap());
    assert_eq!(world.hand_over(), [], "neither knows better");
    let sender = world.first.device;
    world.third.inside(|work| work.tell_again(sender).unwrap());
    assert_eq!(completions(&world.hand_over()).len(), 1);
    world.check_whole();
}

#[test]
fn of_a_history_of_which_nothing_has_come_a_device_hears_when_it_says_that_it_may_have_missed_something() {
    let mut world = World::begin(much);
    world.first.vault.queue_history().unwrap();
    world.first.inside(|work| work.connection.execute("DELETE FROM outbox", []).map(drop).unwrap());
    assert_eq!(world.hand_over(), [], "neither knows better");
    world.third.inside(|work| work.wish_for_all().unwrap());
    world.third.tell(&mut world.relay);
    world.first.take(&mut world.relay);
    world.first.tell(&mut world.relay);
    assert_eq!(completions(&world.hand_over()).len(), 1);
    world.check_whole();
}

#[test]
fn an_offer_of_what_is_there_already_brings_no_part_again() {
    let mut world = World::begin(few);
    world.first.hand_on(&mut world.relay);
    let (from, to) = (world.first.device, world.third.device);
    let offer = world.first.inside(|work| work.offer_to(to).unwrap()).expect("it was not taken yet");
    world.third.take(&mut world.relay);
    world.third.inside(|work| work.take_offer(from, &offer).unwrap());
    assert_eq!(world.third.hand_on(&mut world.relay), 1, "it says how far it has come");
    world.first.take(&mut world.relay);
    assert_eq!(world.first.hand_on(&mut world.relay), 0, "nothing is to be repeated");
    world.check_whole();
    world.first.inside(|work| assert_eq!(work.offer_to(to).unwrap(), None));
}

#[test]
fn an_offer_to_another_device_is_that_ones() {
    let mut world = World::begin(few);
    world.first.hand_on(&mut world.relay);
    let (from, to) = (world.first.device, world.third.device);
    let offer = world.first.inside(|work| work.offer_to(to).unwrap()).expect("it was not taken yet");
    world.second.inside(|work| work.take_offer(from, &offer).unwrap());
    assert_eq!(world.second.vault.history_coming().unwrap(), []);
}

#[test]
fn an_older_copy_of_who_has_handed_it_over_comes_to_its_end_as_well() {
    let mut world = World::begin(few);
    world.hand_over();
    world.check_whole();
    // The newer one has cut it into more parts.
    world.third.inside(|work| work.connection.execute("UPDATE handed_over SET number = 3", []).map(drop).unwrap());
    world.first.inside(|work| {
        let sql = "UPDATE hand_over SET number = 0, place = 0, messages = 0, taken_number = 0, taken_place = 0,
                   taken_messages = 0, is_cut = 0, is_done = 0";
        work.connection.execute(sql, []).map(drop).unwrap();
    });
    assert_eq!(completions(&world.hand_over()), [], "it was told already");
    world.check_whole();
}

#[test]
fn what_comes_meanwhile_is_there_once_on_both_ways() {
    let mut world = World::begin(much);
    world.first.hand_on(&mut world.relay);
    world.bob.say(&mut world.relay, world.talk, "meanwhile");
    world.first.take(&mut world.relay);
    let told = world.hand_over();
    world.check_whole();
    assert_eq!(world.third.history().iter().filter(|text| *text == "meanwhile").count(), 1);
    let is_news = |event: &Event| matches!(event, Event::Message(message) if message.text == "meanwhile");
    assert!(told.iter().any(is_news), "it came by itself");
}

#[test]
fn it_begins_when_the_device_is_in_all_conversations_or_after_a_while() {
    let mut world = World::before_joining(few);
    assert_eq!(world.first.hand_on(&mut world.relay), 0);
    world.first.moves_on(HISTORY_PATIENCE_MS + 1);
    world.hand_over();
    world.check_whole();
    // It shows with whom that was, though the device is in no conversation with them.
    assert_eq!(world.third.vault.conversation(world.talk).unwrap(), None);
    let with = world.third.vault.resolve_past(&"bob".parse().unwrap()).unwrap();
    assert_eq!(with, Some(With::Account(world.bob.account)));
    assert_eq!(texts(world.third.vault.history(with, 10).unwrap()), ["one", "two", "three"]);
    assert_eq!(world.third.vault.resolve_past(&"carol".parse().unwrap()).unwrap(), None);
}

#[test]
fn numbers_beyond_all_bounds_stop_neither_who_takes_a_history_nor_who_hands_it_over() {
    let mut world = World::begin(few);
    let part = world.parts().remove(0);
    world.first.inside(|work| work.connection.execute("DELETE FROM outbox", []).map(drop).unwrap());
    let transfer = part.transfer;
    for high in [i64::MAX.unsigned_abs(), NUMBER_MAX] {
        let (messages, total) = (high, high);
        let whole = Part { transfer: [8; 16], number: high, messages, total, entries: vec![], ..part.clone() };
        world.first.insist(&mut world.relay, Body::History(whole));
        world.third.take(&mut world.relay);
        world.third.vault.queue_history().unwrap();
        for asks in [false, true] {
            let word = Progress { transfer, number: high, after: high, messages: high, asks };
            world.third.insist(&mut world.relay, Body::Records(vec![Record::Taken(word)]));
            world.first.take(&mut world.relay);
            world.first.vault.queue_history().unwrap();
        }
    }
    // With what an honest one says it is as ever.
    let word = Progress { transfer, number: 0, after: 0, messages: 0, asks: true };
    world.third.insist(&mut world.relay, Body::Records(vec![Record::Taken(word)]));
    world.first.take(&mut world.relay);
    world.hand_over();
    assert_eq!(world.third.history(), ["one", "two", "three"]);
}

#[test]
fn a_device_that_is_revoked_gets_nothing() {
    let mut world = World::begin(few);
    world.first.vault.queue_history().unwrap();
    world.first.revoke(&mut world.relay, world.third.device);
    assert!(!world.first.vault.queue_history().unwrap());
    assert_eq!(world.first.vault.history_owed().unwrap(), []);
    let waiting = world.first.inside(|work| {
        let sql = format!("SELECT count(*) FROM outbox WHERE kind = {KIND_HISTORY}");
        work.connection.query_row(&sql, [], |row| row.get::<_, u64>(0)).unwrap()
    });
    assert_eq!(waiting, 0);
}

#[test]
fn the_rest_of_a_history_whose_device_is_revoked_is_not_waited_for() {
    let mut world = World::begin(much);
    world.first.hand_on(&mut world.relay);
    world.third.take(&mut world.relay);
    world.second.revoke(&mut world.relay, world.first.device);
    let told = world.third.take(&mut world.relay);
    assert_eq!(completions(&told), []);
    let told = world.third.vault.unreported_events(1000).unwrap();
    let ends: Vec<_> = told
        .iter()
        .filter_map(|stored| match &stored.event {
            Event::History { messages, of, done, .. } => Some((*messages, *of, *done)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(HISTORY_WINDOW, HISTORY_WINDOW + 4, false)]);
    let coming = world.third.vault.history_coming().unwrap();
    assert!(matches!(coming.as_slice(), [one] if one.is_over && !one.is_done), "{coming:?}");
    assert!(!world.third.vault.history_waits().unwrap());
    world.third.moves_on(HISTORY_ASK_MAX_MS + 1);
    assert!(!world.third.inside(|work| work.queue_words().unwrap()), "nobody is there to be asked");
}

#[test]
fn no_device_keeps_the_histories_of_others_out() {
    let mut world = World::begin(few);
    let part = world.parts().remove(0);
    let (first, second) = (world.first.device, world.second.device);
    for number in 0..20 {
        let begun = Part { transfer: [number; 16], is_last: false, entries: vec![], ..part.clone() };
        world.third.inside(|work| take_part(work, second, &begun).unwrap());
    }
    assert_eq!(world.third.vault.history_coming().unwrap().len(), 1);
    world.third.inside(|work| take_part(work, first, &part).unwrap()).expect("all of it is here");
    // Those of devices that are gone give way as well.
    world.third.inside(|work| {
        let sql = "INSERT INTO handed_over (transfer, device, is_done, heard_ms, wait_ms) VALUES (?1, ?1, 2, 1, 1)";
        for number in 100..120_u8 {
            work.connection.execute(sql, [[number; 16]]).unwrap();
        }
    });
    let begun = Part { transfer: [200; 16], ..part };
    world.third.inside(|work| take_part(work, first, &begun).unwrap()).expect("all of it is here");
}

#[test]
fn a_device_that_stays_silent_is_asked_less_and_less_often() {
    let mut world = World::begin(much);
    world.first.hand_on(&mut world.relay);
    world.third.take(&mut world.relay);
    assert!(world.third.vault.queue_history().unwrap(), "it says how far it has come");
    let mut wait = HISTORY_ASK_MS;
    for _ in 0..12 {
        world.third.moves_on(wait - 60_000);
        assert!(!world.third.vault.queue_history().unwrap(), "it waits for {wait} ms");
        world.third.moves_on(60_000);
        assert!(world.third.vault.queue_history().unwrap());
        wait = (2 * wait).min(HISTORY_ASK_MAX_MS);
    }
    assert_eq!(wait, HISTORY_ASK_MAX_MS);
}

#[test]
fn what_is_here_stays_as_it_is_and_what_is_for_others_stays_out() {
    let mut world = World::begin(few);
    let part = world.parts().remove(0);
    let (first, second) = (world.first.device, world.second.device);
    let mut take = |from: DeviceId, part: &Part| world.third.inside(|work| take_part(work, from, part).unwrap());
    take(first, &Part { to: second, ..part.clone() });
    assert_eq!(take(first, &part).into_iter().count(), 1);
    let mut other = part.clone();
    for entry in &mut other.entries {
        entry.text = "never said".to_owned();
    }
    assert_eq!(take(first, &other), None);
    // Under another name as well: the server's id tells.
    for entry in &mut other.entries {
        entry.id = [9; 16];
        entry.number = entry.number.max(1);
    }
    take(first, &other);
    // A transfer is of the device that has begun it.
    other.entries.iter_mut().for_each(|entry| entry.message_id = None);
    take(second, &other);
    assert_eq!(world.third.history(), ["one", "two", "three"]);
}

#[test]
fn what_a_member_says_itself_counts_more_than_what_a_device_hands_over_for_it() {
    let mut world = World::begin(few);
    let mut part = world.parts().remove(0);
    world.bob.say(&mut world.relay, world.talk, "truly said");
    world.first.take(&mut world.relay);
    world.first.inside(|work| {
        let sql = "UPDATE hand_over SET number = 0, place = 0, messages = 0, is_cut = 0";
        work.connection.execute(sql, []).unwrap();
        work.connection.execute("DELETE FROM outbox", []).unwrap();
    });
    let mut true_one = world.parts().remove(0).entries.pop().unwrap();
    assert_eq!(true_one.text, "truly said");
    true_one.text = "never said".to_owned();
    part.entries.push(true_one);
    let first = world.first.device;
    world.third.inside(|work| take_part(work, first, &part).unwrap());
    assert_eq!(world.third.history(), ["one", "two", "three", "never said"]);
    let told = world.third.take(&mut world.relay);
    assert!(told.iter().any(|event| matches!(event, Event::Message(message) if message.text == "truly said")));
    assert_eq!(world.third.history(), ["one", "two", "three", "truly said"]);
    assert_eq!(world.third.vault.unread(world.talk).unwrap(), 1);
    world.third.inside(|work| take_part(work, first, &part).unwrap());
    assert_eq!(world.third.history(), ["one", "two", "three", "truly said"]);
}

#[test]
fn parts_that_wait_are_not_sent_beside_those_that_take_their_place() {
    let mut world = World::begin(much);
    let window = usize::try_from(HISTORY_WINDOW).unwrap();
    assert_eq!(world.parts().len(), window);
    world.first.inside(|work| work.rewind_history().unwrap());
    assert_eq!(world.parts().len(), window);
    let transfer = world.parts()[0].transfer;
    let word = Progress { transfer, number: 0, after: 0, messages: 0, asks: true };
    let third = world.third.device;
    world.first.inside(|work| work.take_word(third, &word).unwrap());
    assert_eq!(world.parts().len(), window);
    world.hand_over();
    world.check_whole();
}

#[test]
fn what_the_device_could_not_read_is_replaced_by_what_was_said() {
    let mut world = World::begin(few);
    let part = world.parts().remove(0);
    let (entry, talk) = (part.entries[1].clone(), world.talk);
    world.third.inside(|work| {
        let sql = "INSERT INTO message (kind, conversation, message_id, sender_account, sender_device, time_ms, number,
                   seq, text) VALUES (2, ?1, ?2, x'01', x'02', ?3, ?4, 1, 'why')";
        let id: MessageId = entry.message_id.unwrap();
        let row = rusqlite::params![talk.as_bytes(), id.as_bytes(), entry.time_ms, entry.number];
        work.connection.execute(sql, row).unwrap();
    });
    let from = world.first.device;
    world.third.inside(|work| take_part(work, from, &part).unwrap());
    assert_eq!(world.third.history(), ["one", "two", "three"]);
}

#[test]
fn parts_merge_to_the_same_in_any_order_however_often_they_come() {
    let mut world = World::begin(|relay, first, bob, talk| {
        few(relay, first, bob, talk);
        few(relay, first, bob, talk);
    });
    let whole = world.parts().remove(0);
    let last = whole.entries.len() - 1;
    let parts: Vec<_> = (0_u64..)
        .zip(&whole.entries)
        .map(|(at, entry)| Part {
            number: at,
            after: at,
            until: at + 1,
            messages: at + 1,
            is_last: usize::try_from(at).unwrap() == last,
            entries: vec![entry.clone()],
            ..whole.clone()
        })
        .collect();
    let (from, third) = (world.first.device, RefCell::new(world.third));
    let merged = |order: &[usize]| {
        third.borrow_mut().inside(|work| {
            work.step(|work| {
                for at in order {
                    take_part(work, from, &parts[*at])?;
                }
                let sql = "SELECT hex(content_id) FROM message WHERE kind = 0 ORDER BY time_ms, number, id";
                let mut statement = work.connection.prepare(sql)?;
                let rows = statement.query_map([], |row| row.get(0))?;
                Ok::<_, VaultError>((rows.collect::<Result<Vec<String>, _>>()?, false))
            })
            .unwrap()
        })
    };
    let named = |at: usize| data_encoding::HEXUPPER.encode(&parts[at].entries[0].id);
    let orders = proptest::collection::vec(0..parts.len(), 0..16);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) });
    let outcome = runner.run(&orders, |order| {
        let kept: std::collections::BTreeSet<_> = order.iter().copied().collect();
        prop_assert_eq!(merged(&order), kept.into_iter().map(named).collect::<Vec<_>>());
        Ok(())
    });
    outcome.unwrap();
}
