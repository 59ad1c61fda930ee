//! A history of which one side has missed what the other has said, without a word of that.

use gureum_proto::EnvelopeBody;

use super::handed_over::{World, few};
use super::*;
use crate::limits::{HISTORY_ASK_MAX_MS, HISTORY_ASK_MS};

impl Person {
    /// Cannot read what waits for it, and passes that.
    fn misses_all(&mut self, relay: &mut Relay) {
        let taken = self.vault.hello_claim(true).unwrap().cursor.seq;
        let inbox = &mut relay.accounts.get_mut(&self.account).unwrap().inbox;
        for (_, entry) in inbox.iter_mut().filter(|(position, _)| position.seq > taken) {
            entry.body = EnvelopeBody::Silent(vec![1].into());
        }
        self.take(relay);
    }
}

#[test]
fn a_device_that_has_missed_all_of_a_history_hears_of_it_again_after_a_while() {
    let mut world = World::begin(few);
    world.first.hand_on(&mut world.relay);
    world.third.misses_all(&mut world.relay);
    assert_eq!(world.third.vault.history_coming().unwrap(), []);
    assert_eq!(world.hand_over(), [], "neither knows better");
    world.first.moves_on(HISTORY_ASK_MS);
    world.hand_over();
    world.check_whole();
}

#[test]
fn a_device_that_has_missed_the_last_word_of_a_history_is_told_again_after_a_while() {
    let mut world = World::begin(few);
    world.first.hand_on(&mut world.relay);
    world.third.take(&mut world.relay);
    world.third.hand_on(&mut world.relay);
    world.first.misses_all(&mut world.relay);
    assert_eq!(world.hand_over(), [], "neither knows better");
    assert!(world.first.vault.history_waits().unwrap());
    world.first.moves_on(HISTORY_ASK_MS);
    assert_eq!(world.hand_over(), [], "nothing of it is new");
    world.check_whole();
}

#[test]
fn who_never_answers_is_told_less_and_less_often() {
    let mut world = World::begin(few);
    world.first.hand_on(&mut world.relay);
    let mut wait = HISTORY_ASK_MS;
    for _ in 0..12 {
        world.first.moves_on(wait - 60_000);
        assert_eq!(world.first.hand_on(&mut world.relay), 0, "it waits for {wait} ms");
        world.first.moves_on(60_000);
        assert_eq!(world.first.hand_on(&mut world.relay), 1);
        wait = (2 * wait).min(HISTORY_ASK_MAX_MS);
    }
    assert_eq!(wait, HISTORY_ASK_MAX_MS);
}
