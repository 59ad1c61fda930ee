//! Who is woken and when: a test for each rule, over a model of inboxes and of services.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod bounds;
mod random;
mod services;
mod world;

use super::*;
use world::{ALICE, BOB, CONFIG, INTERVAL_MS, LAPTOP, PHONE, SILENT_MS, World};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const MESSAGES: WakeKind = WakeKind::Messages;
const EXPIRING: WakeKind = WakeKind::Expiring;

// ---- when a message is not taken ----

#[test]
fn a_message_that_nobody_takes_wakes_after_the_delay() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(4_999);
    world.check(&[]);
    world.pass(1);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn each_device_of_the_account_is_woken_and_nobody_else() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    world.target(BOB, PHONE, Route::Apns, true);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES), (LAPTOP, MESSAGES)]);
    assert!(world.sent.iter().all(|sent| sent.key.0 == ALICE));
}

#[test]
fn whoever_takes_it_in_time_is_not_woken_and_costs_no_look() {
    let mut world = World::calm(&[PHONE]);
    let looks = world.looks;
    for _ in 0..100 {
        world.message(ALICE);
        world.pass(4_000);
        world.take(ALICE, PHONE);
        world.pass(100);
    }
    world.check(&[]);
    assert_eq!(world.looks, looks);
}

#[test]
fn a_session_that_is_open_and_takes_nothing_is_woken() {
    let mut world = World::calm(&[PHONE]);
    world.connect(ALICE, PHONE);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn what_is_worth_no_wake_up_wakes_nobody_and_what_follows_it_does() {
    let mut world = World::calm(&[PHONE]);
    world.unworthy(ALICE);
    world.pass(HOUR_MS);
    world.check(&[]);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_flood_of_messages_does_not_put_the_wake_up_off() {
    let mut world = World::calm(&[PHONE]);
    // The machine hears of another message between each look and its answer.
    world.message_before_facts = true;
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
}

// ---- one until it connects ----

#[test]
fn a_device_is_woken_once_until_it_connects() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(MINUTE_MS);
    world.message(ALICE);
    world.pass(HOUR_MS);
    world.check(&[(PHONE, MESSAGES)]);
    world.connect(ALICE, PHONE);
    world.take(ALICE, PHONE);
    world.close(ALICE, PHONE);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_connection_alone_makes_it_owed_again_even_if_nothing_was_taken() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(HOUR_MS);
    world.check(&[(PHONE, MESSAGES)]);
    world.connect(ALICE, PHONE);
    world.pass(59_999);
    world.check(&[]);
    // It has had a minute and takes nothing: half-dead.
    world.pass(1);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_wake_up_that_was_on_its_way_when_the_device_connected_awaits_nobody() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.connect(ALICE, PHONE);
    world.land(Outcome::Accepted);
    assert_eq!(world.state(ALICE, PHONE).woken_seq, 0);
    world.check(&[(PHONE, MESSAGES)]);
    world.answer = |_| Some(Outcome::Accepted);
    world.close(ALICE, PHONE);
    world.pass(MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_wake_up_that_fails_after_its_device_has_connected_is_not_tried_again() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.connect(ALICE, PHONE);
    world.land(Outcome::Failed(Failure::Reset));
    world.check(&[(PHONE, MESSAGES)]);
    world.take(ALICE, PHONE);
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn nothing_is_noted_of_a_connection_that_changes_nothing() {
    let mut world = World::calm(&[PHONE]);
    world.connect(ALICE, PHONE);
    assert_eq!(world.notes, 0);
    world.message(ALICE);
    world.pass(5_000);
    assert_eq!(world.notes, 1);
    assert_eq!(world.state(ALICE, PHONE).woken_seq, 1);
    world.connect(ALICE, PHONE);
    assert_eq!((world.notes, world.state(ALICE, PHONE).woken_seq), (2, 0));
    world.connect(ALICE, PHONE);
    assert_eq!(world.notes, 2);
}

#[test]
fn what_comes_while_a_request_is_under_way_is_not_forgotten() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    // Its session was slow, and takes it after all.
    world.take(ALICE, PHONE);
    world.message(ALICE);
    world.pass(6_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.land(Outcome::Accepted);
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(INTERVAL_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

// ---- not more often than ----

#[track_caller]
fn pause(visible: bool, pause_ms: u64) {
    let mut world = World::calm(&[]);
    world.target(ALICE, PHONE, Route::Apns, visible);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.connect(ALICE, PHONE);
    world.take(ALICE, PHONE);
    world.message(ALICE);
    world.pass(pause_ms - 1);
    world.check(&[]);
    world.pass(1);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_device_that_shows_something_is_woken_each_interval_at_most() {
    pause(true, INTERVAL_MS);
}

#[test]
fn a_silent_device_is_woken_at_the_rate_that_platforms_allow() {
    pause(false, SILENT_MS);
}

#[test]
fn what_is_taken_during_the_pause_wakes_nobody_after_it() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.connect(ALICE, PHONE);
    world.take(ALICE, PHONE);
    world.message(ALICE);
    world.pass(20_000);
    world.take(ALICE, PHONE);
    world.pass(HOUR_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

// ---- siblings ----

#[test]
fn a_device_whose_sibling_has_read_it_is_not_woken() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(4_000);
    // A device that cannot be woken counts as well.
    world.take(ALICE, LAPTOP);
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn a_sibling_that_reads_while_a_wake_up_waits_ends_it() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.machine.counts().waiting, 1);
    world.take(ALICE, LAPTOP);
    assert_eq!(world.machine.counts().waiting, 0);
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn the_inbox_is_looked_at_again_before_a_wake_up_that_has_waited() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    let looks = world.looks;
    // Nobody says so.
    world.take_in_silence(ALICE, LAPTOP);
    world.pass(HOUR_MS / 2);
    world.check(&[]);
    assert_eq!(world.looks, looks + 1);
}

#[test]
fn a_sibling_that_has_read_a_part_leaves_the_rest_owed() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(1_000);
    world.take(ALICE, LAPTOP);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.state(ALICE, PHONE).woken_seq, 2);
}

// ---- who goes ----

#[test]
fn a_device_that_goes_with_messages_untaken_is_woken_a_minute_later() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.connect(ALICE, PHONE);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(50_000);
    world.close(ALICE, PHONE);
    world.pass(59_999);
    world.check(&[]);
    world.pass(1);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_device_that_comes_back_within_the_minute_is_not_woken() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.connect(ALICE, PHONE);
    world.close(ALICE, PHONE);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(30_000);
    world.connect(ALICE, PHONE);
    world.take(ALICE, PHONE);
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn a_device_that_goes_with_everything_taken_costs_no_look() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(1_000);
    world.take(ALICE, PHONE);
    let looks = world.looks;
    for _ in 0..10 {
        world.connect(ALICE, PHONE);
        world.close(ALICE, PHONE);
    }
    world.pass(2 * MINUTE_MS);
    world.check(&[]);
    assert_eq!(world.looks, looks);
}

#[test]
fn a_device_that_comes_and_goes_all_the_time_and_takes_nothing_is_woken() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    for _ in 0..4 {
        world.connect(ALICE, PHONE);
        world.pass(20_000);
        world.close(ALICE, PHONE);
        world.pass(10_000);
    }
    assert!(!world.sent.is_empty(), "it is not put off each time");
}

#[test]
fn a_round_does_not_hurry_whoever_has_just_gone() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    let (round_ms, _) = world.machine.poll_timeout().unwrap();
    world.pass(round_ms - world.now_ms - 10_000);
    world.connect(ALICE, PHONE);
    world.close(ALICE, PHONE);
    world.pass(30_000);
    world.check(&[]);
    world.pass(30_000);
    world.check(&[(PHONE, MESSAGES)]);
}

// ---- what expires ----

#[test]
fn a_device_is_warned_once_when_a_third_of_a_messages_life_is_left() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(2 * DAY_MS - 1);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(HOUR_MS + 1);
    world.check(&[(PHONE, EXPIRING)]);
    world.pass(DAY_MS);
    world.check(&[]);
}

#[test]
fn messages_that_live_for_weeks_are_warned_of_a_day_before_they_expire() {
    let mut world = World::with(PushConfig { retention_ms: 30 * DAY_MS, ..CONFIG });
    world.target(ALICE, PHONE, Route::Apns, true);
    world.pass(2 * CONFIG.close_delay_ms);
    world.muted(ALICE);
    world.pass(29 * DAY_MS - 1);
    world.check(&[]);
    world.pass(HOUR_MS + 1);
    world.check(&[(PHONE, EXPIRING)]);
    world.pass(DAY_MS);
    world.check(&[]);
}

#[test]
fn what_was_taken_expires_unnoticed() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(1_000);
    world.take(ALICE, PHONE);
    world.pass(4 * DAY_MS);
    world.check(&[]);
}

#[test]
fn who_has_not_taken_it_is_warned_though_a_sibling_has() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    world.message(ALICE);
    world.pass(1_000);
    world.take(ALICE, LAPTOP);
    world.pass(2 * DAY_MS + HOUR_MS);
    world.check(&[(PHONE, EXPIRING)]);
}

#[test]
fn a_mute_keeps_nobody_from_being_warned_and_a_request_warns_nobody() {
    let mut world = World::calm(&[PHONE]);
    world.muted(ALICE);
    world.pass(2 * DAY_MS + HOUR_MS);
    world.check(&[(PHONE, EXPIRING)]);
    let mut world = World::calm(&[PHONE]);
    world.unworthy(ALICE);
    world.pass(4 * DAY_MS);
    world.check(&[]);
}

#[test]
fn a_warning_is_not_repeated_until_the_device_has_connected() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(2 * DAY_MS + HOUR_MS);
    world.check(&[(PHONE, MESSAGES), (PHONE, EXPIRING)]);
    assert_ne!(world.state(ALICE, PHONE).warned_ms, 0);
    world.message(ALICE);
    world.pass(4 * HOUR_MS);
    world.check(&[]);
    world.connect(ALICE, PHONE);
    world.close(ALICE, PHONE);
    world.pass(4 * HOUR_MS);
    world.check(&[(PHONE, MESSAGES), (PHONE, EXPIRING)]);
}

#[test]
fn messages_that_live_for_seconds_are_warned_of_right_after_a_start_too() {
    let mut world = World::with(PushConfig { retention_ms: 9_000, sweep_ms: 126, ..CONFIG });
    world.target(ALICE, PHONE, Route::Apns, true);
    world.quietly(ALICE);
    world.pass(5_999);
    world.check(&[]);
    world.pass(200);
    world.check(&[(PHONE, EXPIRING)]);
    world.pass(2 * MINUTE_MS);
    world.check(&[]);
}

#[test]
fn what_has_expired_wakes_nobody_any_more() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.message(ALICE);
    world.pass(3 * DAY_MS);
    world.sent.clear();
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(DAY_MS);
    world.check(&[]);
    assert_eq!(world.machine.counts().waiting, 0);
}

// ---- starts ----

#[test]
fn after_a_start_everybody_has_a_minute_to_come_back() {
    let mut world = World::new();
    world.target(ALICE, PHONE, Route::Apns, true);
    world.target(BOB, PHONE, Route::Apns, true);
    world.quietly(ALICE);
    world.quietly(BOB);
    world.pass(30_000);
    world.connect(BOB, PHONE);
    world.take(BOB, PHONE);
    world.pass(29_999);
    world.check(&[]);
    world.pass(1);
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.machine.counts().waiting, 0);
}

#[test]
fn what_comes_after_a_start_is_not_held_up_by_it() {
    let mut world = World::new();
    world.target(ALICE, PHONE, Route::Apns, true);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn part_of_an_inbox_taken_right_after_a_start_leaves_the_rest_owed() {
    let mut world = World::new();
    world.target(ALICE, PHONE, Route::Apns, true);
    world.quietly(ALICE);
    world.quietly(ALICE);
    world.take_to(ALICE, PHONE, 1);
    world.pass(MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_restart_decides_as_if_it_had_not_been() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES), (LAPTOP, MESSAGES)]);
    world.connect(ALICE, LAPTOP);
    world.close(ALICE, LAPTOP);
    world.restart();
    world.pass(HOUR_MS);
    // The phone is awaited as it was before; the laptop has been here, and has taken nothing.
    world.check(&[(LAPTOP, MESSAGES)]);
}

#[test]
fn a_wake_up_that_a_crash_has_cut_off_goes_after_the_start() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.restart();
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
    world.restart();
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn rounds_find_what_nobody_has_told() {
    let mut world = World::calm(&[PHONE]);
    world.quietly(ALICE);
    world.pass(HOUR_MS + MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

// ---- targets ----

#[test]
fn a_device_without_a_target_is_forgotten_with_all_that_waits() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.untarget(ALICE, PHONE);
    assert_eq!(world.machine.counts(), Counts::default());
    world.message(ALICE);
    world.pass(HOUR_MS);
    world.check(&[]);
}

#[test]
fn a_target_that_went_without_a_word_is_found_missing() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    world.targets.remove(&(ALICE, PHONE));
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(LAPTOP, MESSAGES)]);
    assert_eq!(world.machine.counts().targets, 1);
}

#[test]
fn a_target_that_is_set_during_a_look_is_not_found_missing() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.now_ms += 5_000;
    world.machine.handle(Input::Tick, world.now_ms);
    let looked = world.machine.poll_action();
    assert!(matches!(looked, Some(Action::Look { account: ALICE, .. })), "{looked:?}");
    let facts = world.facts(ALICE, 0, false);
    world.target(ALICE, LAPTOP, Route::Fcm, true);
    world.tell(Input::Looked { account: ALICE, facts: Ok(facts) });
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.machine.counts().targets, 2);
    // And what nobody has taken is worth a wake-up by it, a minute later.
    world.pass(MINUTE_MS);
    world.check(&[(LAPTOP, MESSAGES)]);
}

#[test]
fn what_becomes_of_a_request_to_a_target_before_says_nothing_of_the_new_one() {
    for outcome in [Outcome::Accepted, Outcome::Gone { since_ms: Some(u64::MAX) }, Outcome::Failed(Failure::Reset)] {
        let mut world = World::calm(&[PHONE]);
        world.answer = |_| None;
        world.message(ALICE);
        world.pass(5_000);
        world.target(ALICE, PHONE, Route::Fcm, true);
        world.pass(9_000);
        world.check(&[(PHONE, MESSAGES)]);
        world.land(outcome);
        assert_eq!((world.state(ALICE, PHONE), world.dropped.len()), (PushStateRecord::default(), 0));
        world.answer = |_| Some(Outcome::Accepted);
        world.pass(MINUTE_MS);
        world.check(&[(PHONE, MESSAGES)]);
    }
}

#[test]
fn what_was_noted_for_a_target_before_is_taken_back_for_the_new_one() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    assert_eq!(world.state(ALICE, PHONE).woken_seq, 1);
    world.target(ALICE, PHONE, Route::Fcm, true);
    assert_eq!((world.notes, world.state(ALICE, PHONE)), (2, PushStateRecord::default()));
}

// ---- looks ----

#[test]
fn a_look_that_comes_to_its_bound_goes_on_from_there() {
    let mut world = World::calm(&[PHONE]);
    world.look_entries_max = 3;
    for _ in 0..10 {
        world.unworthy(ALICE);
    }
    world.message(ALICE);
    let looks = world.looks;
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.looks, looks + 4);
    // What is not worth a wake-up is not read again.
    world.message(ALICE);
    world.pass(HOUR_MS / 2);
    assert_eq!(world.looks, looks + 5);
}

#[test]
fn an_inbox_that_cannot_be_read_is_looked_at_later() {
    let mut world = World::calm(&[PHONE]);
    world.fails_to_look = true;
    world.message(ALICE);
    world.pass(LOOK_RETRY_MS);
    world.check(&[]);
    world.fails_to_look = false;
    world.pass(2 * LOOK_RETRY_MS);
    world.check(&[(PHONE, MESSAGES)]);
}

#[test]
fn a_request_that_was_not_made_is_tried_again_and_blames_no_service() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    for _ in 0..10 {
        world.flying.clear();
        world.tell(Input::Unsent { account: ALICE, device: PHONE });
        world.pass(LOOK_RETRY_MS);
    }
    assert_eq!(world.sent.len(), 10);
    assert_eq!(world.machine.counts().services.apns.breakers_open, 0);
}

// ---- alarms ----

#[test]
fn an_alarm_wakes_each_device_once_whatever_its_inbox_holds() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    let looks = world.looks;
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES), (LAPTOP, MESSAGES)]);
    assert_eq!((world.looks, world.notes), (looks, 0));
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn an_alarm_wakes_a_device_that_is_awaited_and_one_that_rests() {
    let mut world = World::calm(&[PHONE]);
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES)]);
    assert_eq!(world.state(ALICE, PHONE).woken_seq, 1);
}

#[test]
fn an_alarm_that_fails_is_tried_again_though_everything_is_taken() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.message(ALICE);
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES)]);
    world.take(ALICE, LAPTOP);
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn a_device_that_connects_has_heard_the_alarm() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Failed(Failure::Connect));
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES)]);
    world.connect(ALICE, PHONE);
    assert_eq!(world.machine.counts().waiting, 0);
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn after_a_crash_an_alarm_goes_to_whom_it_has_not_reached() {
    let mut world = World::calm(&[PHONE, LAPTOP]);
    world.answer = |sent| (sent.key.1 == PHONE).then_some(Outcome::Accepted);
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES), (LAPTOP, MESSAGES)]);
    world.answer = |_| Some(Outcome::Accepted);
    world.restart();
    world.check(&[(LAPTOP, MESSAGES)]);
    world.restart();
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn a_request_that_is_under_way_stands_for_an_alarm_if_it_arrives() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.check(&[(PHONE, MESSAGES)]);
    world.alarm(ALICE);
    world.check(&[]);
    world.land(Outcome::Accepted);
    assert!(world.alarms.is_empty());
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn a_request_that_is_under_way_and_fails_is_followed_by_the_alarm_though_everything_is_taken() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    world.alarm(ALICE);
    world.take(ALICE, LAPTOP);
    world.check(&[(PHONE, MESSAGES)]);
    world.answer = |_| Some(Outcome::Accepted);
    world.land(Outcome::Failed(Failure::Connect));
    world.pass(MINUTE_MS);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}

#[test]
fn an_alarm_that_comes_after_the_device_has_come_and_gone_is_not_in_the_request_before() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.alarm(ALICE);
    world.connect(ALICE, PHONE);
    assert!(world.alarms.is_empty());
    world.alarm(ALICE);
    world.check(&[(PHONE, MESSAGES)]);
    world.answer = |_| Some(Outcome::Accepted);
    world.land(Outcome::Accepted);
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(HOUR_MS / 2);
    world.check(&[]);
}
