//! Whatever happens in whatever order: nobody is woken against the rules, and in the end nobody is owed anything.

use gureum_proto::PushService;
use proptest::prelude::*;

use super::super::*;
use super::HOUR_MS;
use super::world::{ALICE, BOB, Key, LAPTOP, PHONE, Rules, Sent, World};

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    Message(AccountId),
    Unworthy(AccountId),
    /// A device takes so many sixteenths of what it has not taken.
    Take(Key, u8),
    Connect(Key),
    Close(Key),
    Untarget(Key),
    Target(Key, bool),
    /// Services answer like this from now on.
    Answer(usize),
    /// What hangs ends like this.
    Land(usize),
    Pass(u64),
    Restart,
}

/// Targets are never called void here: then nobody would be woken at the end.
const ANSWERS: [fn(&Sent) -> Option<Outcome>; 6] = [
    |_| Some(Outcome::Accepted),
    |_| None,
    |_| Some(Outcome::Failed(Failure::Timeout)),
    |_| Some(Outcome::Busy { retry_after_ms: Some(30_000), of: BusyOf::Service }),
    |_| Some(Outcome::Busy { retry_after_ms: None, of: BusyOf::Device }),
    |_| Some(Outcome::Refused),
];

const ENDS: [Outcome; 3] =
    [Outcome::Accepted, Outcome::Failed(Failure::Reset), Outcome::Busy { retry_after_ms: None, of: BusyOf::Service }];

fn account() -> impl Strategy<Value = AccountId> {
    prop_oneof![Just(ALICE), Just(BOB)]
}

fn key() -> impl Strategy<Value = Key> {
    (account(), prop_oneof![Just(PHONE), Just(LAPTOP)])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => account().prop_map(Step::Message),
        1 => account().prop_map(Step::Unworthy),
        3 => (key(), 0..=16_u8).prop_map(|(key, part)| Step::Take(key, part)),
        2 => key().prop_map(Step::Connect),
        2 => key().prop_map(Step::Close),
        1 => key().prop_map(Step::Untarget),
        1 => (key(), any::<bool>()).prop_map(|(key, visible)| Step::Target(key, visible)),
        2 => (0..ANSWERS.len()).prop_map(Step::Answer),
        1 => (0..ENDS.len()).prop_map(Step::Land),
        6 => prop_oneof![0..10_000_u64, 0..100_000_u64, 0..2_000_000_u64].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

fn perform(world: &mut World, step: Step) {
    match step {
        Step::Message(account) => world.message(account),
        Step::Unworthy(account) => world.unworthy(account),
        Step::Take((account, device), part) => {
            let inbox = world.inboxes.entry(account).or_default();
            let head = u64::try_from(inbox.messages.len()).unwrap();
            let cursor = inbox.cursors.get(&device).copied().unwrap_or_default();
            let seq = cursor + (head - cursor) * u64::from(part) / 16;
            if seq > cursor {
                world.take_to(account, device, seq);
            }
        }
        Step::Connect((account, device)) => world.connect(account, device),
        Step::Close((account, device)) => world.close(account, device),
        Step::Untarget((account, device)) => world.untarget(account, device),
        Step::Target((account, device), visible) => world.target(account, device, Route::Apns, visible),
        Step::Answer(at) => world.answer = ANSWERS[at],
        Step::Land(at) => world.land(ENDS[at]),
        Step::Pass(ms) => world.pass(ms),
        Step::Restart => world.restart(),
    }
}

proptest! {
    #[test]
    fn nobody_is_woken_against_the_rules_and_nobody_is_owed_anything_in_the_end(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::calm(&[PHONE, LAPTOP]);
        world.rules = Some(Rules::default());
        world.target(BOB, PHONE, Route::Fcm, false);
        world.target(BOB, LAPTOP, Route::Web(1), true);
        steps.into_iter().for_each(|step| perform(&mut world, step));

        world.answer = |_| Some(Outcome::Accepted);
        world.land(Outcome::Failed(Failure::Timeout));
        world.pass(2 * HOUR_MS);
        for key in world.targets.keys() {
            let facts = world.facts(key.0, 0, false);
            let cursor_seq = facts.devices.iter().find(|of| of.device == key.1).unwrap().cursor_seq;
            let awaited = world.rules.as_ref().unwrap().awaited.get(key);
            let is_awaited = awaited.is_some_and(|seq| *seq > cursor_seq);
            prop_assert!(facts.first.is_none() || is_awaited, "{key:?} is owed {:?}", facts.first);
        }
        prop_assert_eq!(world.machine.counts().waiting, 0);
        for service in PushService::ALL {
            prop_assert_eq!(world.machine.counts().services.of(service).in_flight, 0);
        }
    }
}
