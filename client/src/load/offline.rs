//! Messages for devices that are not there: stored first, then drained when they come back.

use super::cost::{Cost, look};
use super::meter::Meter;
use super::play::{self, Play, Role};
use super::report::per_second;
use super::setup::SetUp;
use super::stage::{Stage, Tasks};
use super::{LoadError, LoadOptions, LoadReport, OfflineReport, Progress, Tell, teams};

/// Stores so many messages for each of so many devices, then lets these come back all at once.
pub(super) async fn offline(
    options: &LoadOptions,
    (devices, messages): (usize, u64),
    tell: Tell<'_>,
) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, devices * 2).await?;
    let pairs = Box::pin(teams::paired(&set_up, options, devices, tell)).await?;
    let (mut senders, absent): (Vec<Role>, Vec<Role>) = pairs.into_iter().unzip();
    // Nobody is there to hear them yet.
    senders.iter_mut().flat_map(|role| &mut role.posts).for_each(|post| post.hearers = 0);
    let entered = Box::pin(play::enter(&senders, tell)).await?;

    let first = look(options.metrics.as_ref()).await?;
    let (meter, stage, mut tasks) = (Meter::new(devices), Stage::begin(), Tasks::new());
    let play = Play { options, meter: &meter, stage: &stage, messages: Some(messages) };
    play.begin(senders, entered, &mut tasks);
    stage.run(&mut tasks, &meter, tell).await;
    let stored = meter.part();
    let second = look(options.metrics.as_ref()).await?;

    tell(&Progress::Say(format!("{} messages are stored; {devices} devices come back", stored.accepted)));
    let (stage, mut tasks) = (stage.again(), Tasks::new());
    stage.expect(stored.accepted);
    let began = stage.elapsed();
    Play { options, meter: &meter, stage: &stage, messages: None }.come_in(absent, &mut tasks);
    stage.run(&mut tasks, &meter, tell).await;
    let drained = meter.part();
    let third = look(options.metrics.as_ref()).await?;

    let (stored_s, drained_s) = (stored.last.as_secs_f64(), drained.last.saturating_sub(began).as_secs_f64());
    let mut report = LoadReport::of(options, &meter, stage.due(), stage.elapsed());
    report.cost = Cost::between(first, third, report.delivered);
    report.offline = Some(OfflineReport {
        stored_s,
        stored_per_s: per_second(stored.accepted, stored_s),
        store: Cost::between(first, second, stored.accepted),
        drained_s,
        drained_per_s: per_second(drained.delivered, drained_s),
        drain: Cost::between(second, third, drained.delivered),
    });
    Ok(report)
}
