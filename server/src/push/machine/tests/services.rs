//! What services answer, and what becomes of wake-ups then.

use gureum_proto::PushService;

use super::super::*;
use super::world::{ALICE, BOB, LAPTOP, PHONE, World, account};
use super::{HOUR_MS, MESSAGES, MINUTE_MS};

const FAILED: Outcome = Outcome::Failed(Failure::Timeout);

/// A world in which so many accounts are owed a wake-up at this moment, through a route each.
fn owed(routes: &[Route]) -> World {
    let mut world = World::calm(&[]);
    for (at, route) in routes.iter().enumerate() {
        world.target(account(at), PHONE, *route, true);
    }
    world.pass(2 * MINUTE_MS);
    for at in 0..routes.len() {
        world.message(account(at));
    }
    world
}

fn services(world: &World) -> PerService<ServiceCounts> {
    world.machine.counts().services
}

// ---- one wake-up ----

#[test]
fn a_request_that_fails_is_tried_again_after_a_pause_that_is_spread() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |sent| Some(if sent.attempt == 0 { FAILED } else { Outcome::Accepted });
    world.message(ALICE);
    world.pass(MINUTE_MS);
    let [first, second] = world.sent.as_slice() else { panic!("{:?}", world.sent) };
    assert_eq!((first.attempt, second.attempt), (0, 1));
    assert!((3_750..=6_250).contains(&(second.at_ms - first.at_ms)), "{:?}", world.sent);
}

#[test]
fn a_service_that_says_when_to_come_back_is_not_asked_before() {
    for of in [BusyOf::Device, BusyOf::Service] {
        let mut world = World::calm(&[PHONE]);
        world.answer = match of {
            BusyOf::Device => {
                |sent| Some(if sent.attempt == 0 { busy(BusyOf::Device, 100_000) } else { Outcome::Accepted })
            }
            BusyOf::Service => {
                |sent| Some(if sent.attempt == 0 { busy(BusyOf::Service, 100_000) } else { Outcome::Accepted })
            }
        };
        world.message(ALICE);
        world.pass(5_000);
        world.check(&[(PHONE, MESSAGES)]);
        world.pass(99_999);
        world.check(&[]);
        world.pass(1);
        world.check(&[(PHONE, MESSAGES)]);
    }
}

const fn busy(of: BusyOf, retry_after_ms: u64) -> Outcome {
    Outcome::Busy { retry_after_ms: Some(retry_after_ms), of }
}

#[test]
fn no_service_is_believed_for_longer_than_an_hour() {
    for of in [BusyOf::Device, BusyOf::Service] {
        let mut world = World::calm(&[PHONE]);
        world.answer = |_| None;
        world.message(ALICE);
        world.pass(5_000);
        world.land(busy(of, u64::MAX));
        world.check(&[(PHONE, MESSAGES)]);
        world.answer = |_| Some(Outcome::Accepted);
        world.pass(HOUR_MS - 1);
        world.check(&[]);
        world.pass(1);
        world.check(&[(PHONE, MESSAGES)]);
    }
}

#[test]
fn what_one_device_has_too_much_of_holds_up_nobody_else() {
    let mut world = owed(&[Route::Apns; 20]);
    world.answer = |sent| Some(if sent.attempt == 0 { busy(BusyOf::Device, 60_000) } else { Outcome::Accepted });
    world.pass(5_000);
    assert_eq!(world.sent.len(), 20);
    assert_eq!(services(&world).apns.breakers_open, 0);
}

#[test]
fn a_request_that_a_service_finds_wrong_is_tried_again_more_and_more_seldom() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Refused);
    world.message(ALICE);
    world.pass(3 * HOUR_MS);
    let pauses: Vec<_> = world.sent.windows(2).map(|two| two[1].at_ms - two[0].at_ms).collect();
    assert!((12..=30).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause_ms| *pause_ms <= 19 * MINUTE_MS), "{pauses:?}");
    assert_eq!(services(&world).apns.breakers_open, 0, "it answers");
    assert!(world.dropped.is_empty());
}

// ---- targets that are void ----

#[test]
fn a_target_that_the_service_says_is_void_is_dropped_as_of_then() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| Some(Outcome::Gone { since_ms: Some(77) });
    world.message(ALICE);
    world.pass(5_000);
    assert_eq!(world.dropped, [((ALICE, PHONE), 77)]);
    // Where it stays, since it was set after that, it is tried again, but not soon.
    world.check(&[(PHONE, MESSAGES)]);
    world.pass(10 * MINUTE_MS);
    world.check(&[]);
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.dropped.len(), 2);
}

#[test]
fn a_refusal_without_a_time_is_of_when_the_request_was_sent() {
    let mut world = World::calm(&[]);
    world.target(ALICE, PHONE, Route::Web(1), true);
    world.answer = |_| None;
    world.message(ALICE);
    world.pass(5_000);
    let sent_ms = world.now_ms;
    world.pass(8_000);
    world.land(Outcome::Gone { since_ms: None });
    assert_eq!(world.dropped, [((ALICE, PHONE), sent_ms)]);
}

#[track_caller]
fn all_are_called_void(route: Route, are_dropped: bool) {
    let mut world = owed(&[route; 10]);
    world.answer = |_| Some(Outcome::Gone { since_ms: None });
    world.pass(5_000);
    assert_eq!(!world.dropped.is_empty(), are_dropped, "{route:?}");
    assert_eq!(services(&world).of(route.service()).misconfigured, usize::from(!are_dropped));
}

#[test]
fn an_environment_that_knows_no_token_wipes_none_out() {
    all_are_called_void(Route::Apns, false);
    all_are_called_void(Route::Fcm, false);
    // A host of Web Push has no other environment.
    all_are_called_void(Route::Web(1), true);
}

#[test]
fn tokens_that_are_called_bad_make_way_for_those_that_are_not() {
    let mut world = owed(&[Route::Apns; 100]);
    world.answer =
        |sent| Some(if sent.key.0 == account(99) { Outcome::Accepted } else { Outcome::Gone { since_ms: None } });
    world.pass(5_000);
    // One is tried each minute, and nobody for the second time before everybody was.
    world.pass(100 * MINUTE_MS);
    assert_eq!(world.state(account(99), PHONE).woken_seq, 1);
    let before: Vec<_> = world.sent.iter().map(|sent| sent.key).take_while(|key| key.0 != account(99)).collect();
    assert_eq!(before.iter().collect::<std::collections::HashSet<_>>().len(), before.len());
}

#[test]
fn once_a_service_has_taken_a_wake_up_a_bad_token_is_a_bad_token() {
    let mut world = World::calm(&[PHONE]);
    world.target(BOB, PHONE, Route::Apns, true);
    world.message(ALICE);
    world.pass(5_000);
    world.answer = |_| Some(Outcome::Gone { since_ms: None });
    world.message(BOB);
    world.pass(5_000);
    assert_eq!(world.dropped, [((BOB, PHONE), world.now_ms)]);
}

#[test]
fn of_tokens_that_are_called_bad_those_that_are_not_go_on() {
    let mut world = owed(&[Route::Apns; 2]);
    world.answer =
        |sent| Some(if sent.key.0 == account(0) { Outcome::Gone { since_ms: None } } else { Outcome::Accepted });
    world.pass(5_000);
    // The second was under way with the first, and shows that nothing is wrong but a token.
    assert_eq!(services(&world).apns, ServiceCounts::default());
    assert_eq!(world.state(account(1), PHONE).woken_seq, 1);
    world.pass(MINUTE_MS);
    assert!(world.dropped.is_empty(), "it has stepped aside");
    world.pass(15 * MINUTE_MS);
    assert_eq!(world.dropped.len(), 1);
}

#[test]
fn a_service_that_does_not_let_this_server_in_is_left_alone_and_tokens_are_kept() {
    let mut world = owed(&[Route::Apns; 10]);
    world.answer = |_| Some(Outcome::Misconfigured);
    world.pass(5_000);
    assert_eq!(services(&world).apns.misconfigured, 1);
    let asked = world.sent.len();
    world.pass(5 * MINUTE_MS - 1);
    assert_eq!(world.sent.len(), asked);
    world.pass(1);
    assert_eq!(world.sent.len(), asked + 1, "one is tried");
    world.answer = |_| Some(Outcome::Accepted);
    world.sent.clear();
    world.pass(5 * MINUTE_MS);
    assert_eq!(world.sent.len(), 10, "all go when it is set right");
    assert!(world.dropped.is_empty());
    assert_eq!(services(&world).apns, ServiceCounts::default());
}

#[test]
fn a_target_of_another_servers_key_holds_up_nobody_else_of_its_host() {
    let mut world = owed(&[Route::Web(1); 12]);
    world.answer = |sent| Some(if sent.key.0 == account(11) { Outcome::Accepted } else { Outcome::Misconfigured });
    world.pass(5_000);
    assert_eq!(world.sent.len(), 12);
    assert_eq!(services(&world).web_push, ServiceCounts::default());
    assert!(world.dropped.is_empty());
}

// ---- breakers ----

#[test]
fn a_service_that_fails_five_times_in_a_row_is_left_alone() {
    let mut world = owed(&[Route::Fcm; 200]);
    world.answer = |_| None;
    world.pass(5_000);
    assert_eq!((world.sent.len(), services(&world).fcm.in_flight), (64, 64));
    world.answer = |_| Some(FAILED);
    world.land(FAILED);
    assert_eq!(services(&world).fcm, ServiceCounts { in_flight: 0, breakers_open: 1, misconfigured: 0 });
    // What was under way at that moment may fail; what waits in line is spared.
    assert!(world.sent.len() < 64 + 10, "{}", world.sent.len());
    assert_eq!(world.machine.counts().waiting, 200);
}

#[test]
fn four_failures_and_an_answer_are_no_failure_of_the_service() {
    let mut world = owed(&[Route::Fcm; 100]);
    world.answer = |_| None;
    world.pass(5_000);
    for (at, sent) in std::mem::take(&mut world.flying).into_iter().enumerate() {
        let outcome = if at % 5 == 4 { busy(BusyOf::Device, 60_000) } else { FAILED };
        world.tell(Input::Sent { account: sent.key.0, device: sent.key.1, outcome });
    }
    assert_eq!(services(&world).fcm.breakers_open, 0);
}

/// When one is tried again of a service that has stopped to answer, in seconds after it has.
fn trials(seconds: u64) -> Vec<u64> {
    let mut world = owed(&[Route::Fcm; 500]);
    world.answer = |_| Some(FAILED);
    world.pass(5_000);
    let down_ms = world.now_ms;
    world.sent.clear();
    world.pass(seconds * 1_000);
    world.sent.iter().map(|sent| (sent.at_ms - down_ms) / 1_000).collect()
}

#[test]
fn a_service_that_fails_is_tried_with_one_request_and_twice_as_late_each_time() {
    // 1, 2, 4, … and then a minute each.
    assert_eq!(trials(300), [1, 3, 7, 15, 31, 63, 123, 183, 243]);
}

#[test]
fn when_a_service_comes_back_everything_goes_once_and_within_minutes() {
    let mut world = owed(&[Route::Fcm; 1_000]);
    world.answer = |_| Some(FAILED);
    world.pass(HOUR_MS);
    world.sent.clear();
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(MINUTE_MS);
    assert!(world.sent.len() > 900, "those that have spent no attempt wait for nothing: {}", world.sent.len());
    world.pass(20 * MINUTE_MS);
    assert_eq!(world.sent.len(), 1_000);
    assert_eq!(services(&world).fcm, ServiceCounts::default());
    assert_eq!(world.machine.counts().waiting, 0);
}

#[test]
fn a_service_that_is_busy_and_says_until_when_is_left_alone_at_once() {
    let mut world = owed(&[Route::Apns; 200]);
    world.answer = |_| None;
    world.pass(5_000);
    let first = world.flying.remove(0);
    world.tell(Input::Sent { account: first.key.0, device: first.key.1, outcome: busy(BusyOf::Service, 120_000) });
    assert_eq!(services(&world).apns.breakers_open, 1);
    world.land(Outcome::Accepted);
    world.sent.clear();
    world.answer = |_| Some(Outcome::Accepted);
    world.pass(2 * MINUTE_MS - 1);
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    world.pass(1);
    assert_eq!(world.sent.len(), 200 - 63);
}

// ---- who holds up whom ----

#[test]
fn a_host_that_hangs_holds_up_itself_alone() {
    let mut routes = vec![Route::Web(1); 50];
    routes.extend([Route::Web(2); 50]);
    let mut world = owed(&routes);
    world.answer = |sent| if sent.route == Route::Web(1) { None } else { Some(Outcome::Accepted) };
    world.pass(5_000);
    let of = |world: &World, host| world.sent.iter().filter(|sent| sent.route == Route::Web(host)).count();
    assert_eq!((of(&world, 1), of(&world, 2)), (4, 50));
}

#[test]
fn apns_for_apps_under_development_fails_and_hangs_for_itself_alone() {
    let mut routes = vec![Route::ApnsSandbox; 50];
    routes.extend([Route::Apns; 100]);
    let of = |world: &World, route| world.sent.iter().filter(|sent| sent.route == route).count();
    let mut world = owed(&routes);
    world.answer = |sent| if sent.route == Route::ApnsSandbox { None } else { Some(Outcome::Accepted) };
    world.pass(5_000);
    assert_eq!((of(&world, Route::ApnsSandbox), of(&world, Route::Apns)), (4, 100));

    let mut world = owed(&routes);
    world.answer = |sent| Some(if sent.route == Route::ApnsSandbox { FAILED } else { Outcome::Accepted });
    world.pass(5_000);
    assert_eq!(of(&world, Route::Apns), 100);
    assert_eq!(services(&world).apns, ServiceCounts { in_flight: 0, breakers_open: 1, misconfigured: 0 });
    assert!(of(&world, Route::ApnsSandbox) < 10, "it is spared");
}

#[test]
fn hosts_that_hang_leave_room_to_the_services_and_the_services_to_hosts() {
    let mut world =
        owed(&(0..200).map(Route::Web).chain([Route::Apns; 200]).chain([Route::Fcm; 200]).collect::<Vec<_>>());
    world.answer = |_| None;
    world.pass(5_000);
    let counts = services(&world);
    let in_flight = PushService::ALL.map(|service| counts.of(service).in_flight);
    assert!(in_flight.iter().all(|count| (16..=64).contains(count)), "{in_flight:?}");
    assert!((64..=128).contains(&in_flight.iter().sum::<usize>()), "{in_flight:?}");
    assert_eq!(world.flying.len(), in_flight.iter().sum::<usize>());
}

#[test]
fn hosts_take_turns() {
    let routes: Vec<_> = (0..100).map(|at| Route::Web(if at < 90 { 1 } else { at })).collect();
    let mut world = owed(&routes);
    world.answer = |_| None;
    world.pass(5_000);
    let hosts: std::collections::HashSet<_> = world.sent.iter().map(|sent| sent.route).collect();
    assert_eq!(hosts.len(), 11, "the host with many devices is not the only one that is served");
}

#[test]
fn a_host_beyond_the_bound_shares_its_place_and_is_served() {
    let hosts = u64::try_from(crate::limits::PUSH_HOSTS_MAX).unwrap() + 300;
    let mut world = owed(&(0..hosts).map(Route::Web).collect::<Vec<_>>());
    world.pass(5_000);
    assert_eq!(u64::try_from(world.sent.len()).unwrap(), hosts);
    // Hosts that nobody is woken through any more make room.
    for at in 0..usize::try_from(hosts).unwrap() {
        world.untarget(account(at), PHONE);
    }
    assert_eq!(world.machine.counts(), Counts::default());
    world.target(ALICE, LAPTOP, Route::Web(hosts), true);
    world.message(ALICE);
    world.sent.clear();
    world.pass(5_000);
    world.check(&[(LAPTOP, MESSAGES)]);
}

#[test]
fn a_host_that_shares_its_place_closes_it_for_nobody_else() {
    let mut world = World::calm(&[]);
    let (hosts, shares) = (crate::limits::PUSH_HOSTS_MAX, crate::limits::PUSH_SHARED_HOSTS);
    for at in 0..hosts {
        world.target(account(at), PHONE, Route::Web(u64::try_from(at).unwrap()), true);
    }
    let host = shares * 1_000;
    world.target(ALICE, PHONE, Route::Web(host), true);
    world.target(BOB, PHONE, Route::Web(host + shares), true);
    world.pass(2 * MINUTE_MS);
    world.answer = |sent| Some(if sent.key.0 == ALICE { busy(BusyOf::Service, HOUR_MS) } else { Outcome::Accepted });
    world.message(ALICE);
    world.pass(5_000);
    world.message(BOB);
    world.pass(5_000);
    assert_eq!(world.state(BOB, PHONE).woken_seq, 1);
}

#[test]
fn a_wake_up_stands_in_the_line_of_the_target_that_is_set_now() {
    let mut world = World::calm(&[PHONE]);
    world.answer = |_| None;
    world.target(ALICE, PHONE, Route::Web(9), true);
    world.message(ALICE);
    world.pass(5_000);
    assert_eq!((services(&world).apns.in_flight, services(&world).web_push.in_flight), (0, 1));
    // The request goes on; what is owed waits for its end, and goes through the line of the day.
    world.target(ALICE, PHONE, Route::Fcm, true);
    world.pass(9_000);
    assert_eq!((services(&world).web_push.in_flight, services(&world).fcm.in_flight), (1, 0));
    world.land(FAILED);
    world.pass(MINUTE_MS);
    assert_eq!((services(&world).web_push.in_flight, services(&world).fcm.in_flight), (0, 1));
}
