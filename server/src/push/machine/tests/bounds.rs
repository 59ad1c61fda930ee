//! What the machine takes and asks for stays within its bounds.

use super::super::*;
use super::world::{ALICE, CONFIG, LAPTOP, PHONE, World, account, machine};
use super::{HOUR_MS, MINUTE_MS};
use crate::limits::{
    LOOKS_IN_FLIGHT_MAX, PUSH_DEVICE_BYTES, PUSH_DEVICES_MAX, PUSH_SENDS_A_SERVICE_MAX, PUSH_SENDS_MAX,
};

#[test]
fn pauses_double_to_their_bound_and_are_spread_by_a_quarter() {
    let spread = |attempt| {
        let randoms = (0..1_000_u64).map(|random| random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8);
        let pauses: Vec<_> = randoms.map(|random| back_off_ms(attempt, random)).collect();
        (pauses.iter().copied().min().unwrap(), pauses.into_iter().max().unwrap())
    };
    for (attempt, pause_ms) in [(0, 5_000), (1, 10_000), (5, 160_000), (7, 640_000), (8, 900_000), (u32::MAX, 900_000)]
    {
        let (least, most) = spread(attempt);
        assert!(least >= pause_ms * 3 / 4 && least < pause_ms * 4 / 5, "{attempt}: {least}");
        assert!(most <= pause_ms * 5 / 4 && most > pause_ms * 6 / 5, "{attempt}: {most}");
    }
}

/// Performs nothing, and counts what is asked for.
#[derive(Default)]
struct Asked {
    looks: Vec<AccountId>,
    sends: Vec<Key>,
}

impl Asked {
    fn of(&mut self, machine: &mut PushMachine) {
        while let Some(action) = machine.poll_action() {
            match action {
                Action::Look { account, .. } => self.looks.push(account),
                Action::Send { account, device, .. } => self.sends.push((account, device)),
                Action::Note { .. } | Action::Rung { .. } | Action::Drop { .. } => {}
            }
        }
    }
}

fn target(account: AccountId) -> Input {
    let state = PushStateRecord::default();
    Input::Target { account, device: PHONE, route: Route::Apns, visible: true, state }
}

fn owed(now_ms: u64) -> Facts {
    let device = DeviceFacts { device: PHONE, cursor_seq: 0, oldest_accepted_ms: None };
    let first = First { seq: 1, time_ms: now_ms - HOUR_MS };
    Facts { head_seq: 1, taken_seq: 0, first: Some(first), looked_to: 0, devices: vec![device] }
}

#[test]
fn as_many_devices_as_a_server_wakes_and_a_service_that_hangs_stay_within_the_bound() {
    let (mut machine, mut asked, mut now_ms) = (machine(CONFIG), Asked::default(), 1_800_000_000_000);
    for at in 0..PUSH_DEVICES_MAX {
        machine.handle(target(account(at)), now_ms);
    }
    now_ms += CONFIG.close_delay_ms;
    machine.handle(Input::Tick, now_ms);
    // Everybody is looked at in turn, and is owed a wake-up.
    asked.of(&mut machine);
    let mut answered = 0;
    while let Some(account) = asked.looks.get(answered).copied() {
        assert!(asked.looks.len() - answered <= LOOKS_IN_FLIGHT_MAX);
        answered += 1;
        machine.handle(Input::Looked { account, facts: Ok(owed(now_ms)) }, now_ms);
        asked.of(&mut machine);
    }
    assert_eq!(answered, PUSH_DEVICES_MAX);
    assert_eq!(asked.sends.len(), PUSH_SENDS_A_SERVICE_MAX);
    let counts = machine.counts();
    assert_eq!((counts.targets, counts.waiting), (PUSH_DEVICES_MAX, PUSH_DEVICES_MAX - PUSH_SENDS_A_SERVICE_MAX));
    assert!(bytes(&machine) <= PUSH_DEVICES_MAX * PUSH_DEVICE_BYTES, "{} bytes", bytes(&machine));
    // Whatever else happens to them.
    for at in 0..PUSH_DEVICES_MAX {
        machine.handle(Input::Closed { account: account(at), device: PHONE }, now_ms);
        machine.handle(Input::Moved { account: account(at), grown_seq: 2, taken_seq: 0 }, now_ms);
    }
    asked.of(&mut machine);
    assert_eq!((machine.timers.len(), machine.actions.len()), (PUSH_DEVICES_MAX, 0));
    assert!(bytes(&machine) <= PUSH_DEVICES_MAX * PUSH_DEVICE_BYTES, "{} bytes", bytes(&machine));
    assert_eq!(asked.sends.len(), PUSH_SENDS_A_SERVICE_MAX);
}

/// What the machine's collections hold, as their elements weigh; nodes of a tree are about three quarters full.
fn bytes(machine: &PushMachine) -> usize {
    let of_accounts = machine.accounts.len() * (size_of::<Account>() + size_of::<AccountId>());
    let of_timers = machine.timers.len() * size_of::<(u64, AccountId)>();
    let of_looks = machine.looks.queue.len() * size_of::<(u64, AccountId)>();
    let of_lines = machine.lanes.waiting * size_of::<(u64, Key)>();
    let devices = machine.accounts.values().flat_map(|account| &account.devices);
    // An allocation has 16 bytes of its own.
    let device = |device: &Device| size_of::<Device>() + 16 + device.job.as_ref().map_or(0, |_| size_of::<Job>() + 16);
    (of_accounts + of_timers + of_looks + of_lines) * 4 / 3 + devices.map(device).sum::<usize>()
}

#[test]
fn a_device_that_comes_and_goes_leaves_nothing_behind() {
    let mut world = World::calm(&[]);
    world.answer = |_| None;
    for _ in 0..100 {
        world.target(ALICE, PHONE, Route::Web(1), true);
        world.target(ALICE, LAPTOP, Route::Web(1), true);
        world.message(ALICE);
        world.alarm(ALICE);
        world.connect(ALICE, PHONE);
        world.untarget(ALICE, LAPTOP);
        world.untarget(ALICE, PHONE);
        world.land(Outcome::Failed(Failure::Timeout));
    }
    let machine = &world.machine;
    assert_eq!(machine.counts(), Counts::default());
    assert_eq!((machine.timers.len(), machine.accounts.len(), machine.flights.len()), (0, 0, 0));
    assert_eq!((machine.looks.queue.len(), machine.looks.asked.len()), (0, 0));
    world.pass(MINUTE_MS);
}

#[test]
fn a_line_does_not_grow_with_those_who_leave_it_again() {
    let mut world = World::calm(&[]);
    world.answer = |_| None;
    for at in 0..PUSH_SENDS_MAX {
        world.target(account(at), PHONE, Route::Apns, true);
        world.alarm(account(at));
    }
    let waiting = world.machine.counts().waiting;
    assert_eq!(waiting, PUSH_SENDS_MAX - PUSH_SENDS_A_SERVICE_MAX);
    let last = account(PUSH_SENDS_MAX - 1);
    for _ in 0..1_000 {
        world.connect(last, PHONE);
        world.alarm(last);
    }
    assert_eq!(world.machine.counts().waiting, waiting);
    assert_eq!(world.machine.lanes.queued(LaneId::Apns), waiting);
}
