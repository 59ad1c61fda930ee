//! A server that dies at each step of a wake-up: whoever has not taken what came is woken all the same, and nobody more
//! than once again.

use std::os::unix::process::ExitStatusExt;

use gureum_tests::push::Act;
use gureum_tests::wait::{SOON, eventually};

use crate::push::{Away, QUICK, Sleeper};

/// The steps of a wake-up, each with how often it is passed before the server dies there.
const STEPS: [(&str, u32); 7] = [
    ("push::looked", 0),
    ("push::sending", 0),
    ("push::sending", 2),
    ("push::accepted", 0),
    ("push::accepted", 2),
    ("push::noted", 0),
    ("push::noted", 2),
];

/// People who are away at the same time.
const SLEEPERS: usize = 5;

/// The signal of `abort`, which a step ends the process with.
pub(crate) const SIGABRT: i32 = 6;

async fn with_sleepers(count: usize) -> (Away, Vec<Sleeper>) {
    let mut away = Away::start(&QUICK).await;
    eventually("gureumd says that it has failpoints: `cargo build --workspace --bins` builds it so", SOON, || {
        away.world.log().contains("failpoints").then_some(())
    });
    let mut sleepers = Vec::new();
    for _ in 0..count {
        sleepers.push(away.sleeper().await);
    }
    (away, sleepers)
}

/// Starts the server anew, which dies at a step of the wake-ups that are owed, and once more, which lives.
#[track_caller]
fn die_at(away: &mut Away, step: &str, passes: u32) {
    away.world.kill();
    away.outside.web.service.always(Act::Accept);
    away.world.fail_at(Some(format!("{step}={passes}*off->return")));
    away.world.restart();
    let status = eventually(step, SOON, || away.world.has_ended());
    assert_eq!(status.signal(), Some(SIGABRT), "{step}: {}", away.world.log());
    away.world.fail_at(None);
    away.world.restart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_while_it_wakes_has_woken_everybody_and_nobody_more_than_twice() {
    let (mut away, sleepers) = with_sleepers(SLEEPERS).await;
    let woken = |away: &Away| sleepers.iter().map(|sleeper| away.wakes(sleeper).len()).collect::<Vec<_>>();
    let (mut before, mut doubled) = (woken(&away), 0);
    for (step, passes) in STEPS {
        // Nobody is woken before the death is prepared.
        away.outside.web.service.always(Act::Hang);
        for sleeper in &sleepers {
            away.write(sleeper).await;
        }
        die_at(&mut away, step, passes);
        away.reconnect().await;
        let times = |away: &Away| woken(away).iter().zip(&before).map(|(now, then)| now - then).collect::<Vec<_>>();
        eventually("everybody is woken", SOON, || times(&away).iter().all(|times| *times >= 1).then_some(()));
        away.settle().await;
        let times = times(&away);
        let again: usize = times.iter().map(|times| times - 1).sum();
        // What the service has taken, and nobody has written down when the server dies, is sent once more.
        assert!(times.iter().all(|times| *times <= 2), "{step} after {passes}: {times:?}");
        doubled += again;
        for sleeper in &sleepers {
            away.come_and_take(sleeper).await;
        }
        before = woken(&away);
    }
    assert!(doubled > 0, "between the service's answer and the note of it a crash costs one wake-up more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_while_the_service_hangs_is_sent_after_a_crash_once() {
    let (mut away, sleepers) = with_sleepers(SLEEPERS).await;
    away.outside.web.service.always(Act::Hang);
    for sleeper in &sleepers {
        away.write(sleeper).await;
    }
    let _ = away.outside.web.service.wait_for(1);
    away.world.kill();
    away.outside.web.service.always(Act::Accept);
    away.world.restart();
    away.reconnect().await;
    for sleeper in &sleepers {
        away.woken(sleeper, 1);
    }
    away.settle().await;
    for sleeper in &sleepers {
        away.woken(sleeper, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_while_it_drops_a_target_has_dropped_it() {
    let (mut away, sleepers) = with_sleepers(2).await;
    let [gone, other] = sleepers.as_slice() else { panic!("two people") };
    away.outside.web.service.always(Act::Hang);
    away.write(gone).await;
    away.outside.web.unsubscribe(&gone.subscription);
    die_at(&mut away, "push::dropped", 0);
    away.reconnect().await;
    away.targets(1);
    away.write(other).await;
    away.woken(other, 1);
}
