//! A restart under many: all devices come back at once, while others go on talking.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::aside::Aside;
use super::cost::{Cost, Look, look, thousandths};
use super::idle::{Subscribed, subscribe, subscribe_all};
use super::meter::{Lane, Latency, Meter, histogram, latency_us};
use super::play::{self, Play, Role};
use super::setup::SetUp;
use super::stage::{Stage, Tasks};
use super::{LoadError, LoadOptions, LoadReport, Progress, StormReport, Tell, teams};
use crate::client::ClientError;
use crate::limits::{LOAD_DURATION_S_MAX, LOAD_ERRORS_MAX, LOAD_LOOK, LOAD_PATIENCE, LOAD_PROBE, LOAD_RESTART};
use crate::link::{Dialer, LinkEvent, LinkEvents};

/// The longest that the others go on talking once all are back: what comes late is to be seen.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// So many devices, the pairs that talk beside them, and how the server is started again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storm<'a> {
    pub(super) devices: usize,
    pub(super) pairs: usize,
    pub(super) at_once: usize,
    pub(super) restart: Option<&'a str>,
}

/// What the devices that come back share.
#[derive(Debug)]
struct Crowd {
    /// Those who have noticed that the server is gone.
    noticed: AtomicUsize,
    /// The server is there again.
    back: CancellationToken,
    /// So many begin to connect at a time.
    places: Semaphore,
}

/// How a device came back.
struct Back {
    /// From the moment at which the server was there again.
    took_ns: u64,
    /// What went wrong before.
    errors: Vec<String>,
    /// Held until the storm is over.
    _subscribed: Subscribed,
}

/// What the storm was.
struct Course {
    before: Lane,
    during: Lane,
    noticed: usize,
    down_s: f64,
    looks: [Option<Look>; 2],
    back: Vec<Back>,
}

/// Connects everybody, has the server started again, and sees how they come back.
pub(super) async fn storm(options: &LoadOptions, storm: Storm<'_>, tell: Tell<'_>) -> Result<LoadReport, LoadError> {
    let set_up = SetUp::begin(&options.server, storm.devices + storm.pairs * 2).await?;
    let pairs = Box::pin(teams::paired(&set_up, options, storm.pairs, tell)).await?;
    let roles = talkers(&set_up, pairs)?;
    let devices = set_up.devices(storm.devices, tell).await?;
    let devices = subscribe_all(devices, tell).await?;
    let aside = Aside::begin().map_err(|error| ClientError::Thread(error.to_string()))?;
    let entered = Box::pin(play::enter_on(aside.handle(), &roles, tell)).await?;

    let (meter, mut tasks) = (Meter::new(roles.len()), Tasks::new());
    let stage = {
        // The alarm that wakes those who talk is theirs.
        let _aside = aside.handle().enter();
        Stage::begin()
    };
    // They talk until they are told to stop.
    let talk = LoadOptions { duration: Duration::from_secs(2 * LOAD_DURATION_S_MAX), ..options.clone() };
    let play = Play { options: &talk, meter: &meter, stage: &stage, messages: None };
    play.begin_on(aside.handle(), roles, entered, &mut tasks);
    // Both tell, in one task.
    let tell = RefCell::new(tell);
    let told = |progress: &Progress| (*tell.borrow_mut())(progress);
    let (mut of_stage, mut of_storm) = (told, told);
    let talking = stage.talks();
    let coming = async {
        let course = Box::pin(blow(options, storm, (devices, &set_up), &meter, &mut of_storm)).await;
        // Whatever came of it, the others stop talking.
        stage.hush();
        drop(talking);
        course
    };
    let (course, ()) = tokio::join!(coming, stage.run(&mut tasks, &meter, &mut of_stage));
    let course = course?;
    let mut report = LoadReport::of(options, &meter, stage.due(), stage.elapsed());
    report.cost = Cost::between(course.looks[0], course.looks[1], 0);
    let lost = storm.devices.saturating_sub(course.back.len());
    report.missing = report.missing.saturating_add(u64::try_from(lost).unwrap_or(u64::MAX));
    report.storm = Some(told_of(&course, report.cost));
    Ok(report)
}

/// Those who talk all along, and come back by themselves. They have sockets of their own, which are on their own thread.
fn talkers(set_up: &SetUp, pairs: Vec<(Role, Role)>) -> Result<Vec<Role>, LoadError> {
    let mut roles: Vec<_> = pairs.into_iter().flat_map(|(sender, receiver)| [sender, receiver]).collect();
    let dialers = set_up.dialers_apart(roles.len())?;
    for (role, dialer) in roles.iter_mut().zip(dialers.iter().cycle()) {
        role.habits.returns = true;
        role.dials_by(dialer);
    }
    Ok(roles)
}

/// From the first restart of the server to the last device that is back.
async fn blow(
    options: &LoadOptions,
    storm: Storm<'_>,
    (devices, set_up): (Vec<Subscribed>, &SetUp),
    meter: &Meter,
    tell: Tell<'_>,
) -> Result<Course, LoadError> {
    let count = devices.len();
    let crowd = Arc::new(Crowd {
        noticed: AtomicUsize::new(0),
        back: CancellationToken::new(),
        places: Semaphore::new(storm.at_once),
    });
    let mut coming = JoinSet::new();
    for device in devices {
        coming.spawn(Box::pin(come_back(device, Arc::clone(&crowd))));
    }
    tokio::time::sleep(options.duration).await;
    let before = meter.part();
    let mut restarting = match storm.restart {
        Some(command) => Some(restart(command, tell)?),
        None => {
            tell(&Progress::Say("restart the server now; the devices come back when it is there again".to_owned()));
            None
        }
    };
    lost(&crowd, count, &mut restarting).await?;
    let gone = Instant::now();
    let noticed = crowd.noticed.load(Ordering::SeqCst);
    tell(&Progress::Say(format!("the server is gone: {noticed} of {count} devices have noticed")));
    there_again(set_up.dialer(0)).await?;
    let down_s = gone.elapsed().as_secs_f64();
    let first = look(options.metrics.as_ref()).await.ok().flatten();
    let _outage = meter.part();
    tell(&Progress::Say(format!("the server is there again: {count} devices come back")));
    crowd.back.cancel();
    let mut back = Vec::with_capacity(count);
    while let Some(ended) = coming.join_next().await {
        match ended {
            Ok(Ok(one)) => back.push(one),
            Ok(Err(error)) => meter.failed(error.to_string()),
            Err(error) => meter.failed(error.to_string()),
        }
    }
    let during = meter.part();
    let second = look(options.metrics.as_ref()).await?;
    tell(&Progress::Say(format!("{} of {count} devices are subscribed again", back.len())));
    tokio::time::sleep(options.duration.min(AFTERWARDS)).await;
    check(&mut restarting)?;
    Ok(Course { before, during, noticed, down_s, looks: [first, second], back })
}

fn restart(command: &str, tell: Tell<'_>) -> Result<Child, LoadError> {
    tell(&Progress::Say(format!("restarting the server: {command}")));
    let started = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    started.map_err(|error| LoadError::Restart(error.to_string()))
}

/// A command that has ended badly has not done what it was for; one that still runs may be the server itself.
fn check(process: &mut Option<Child>) -> Result<(), LoadError> {
    let Some(process) = process else { return Ok(()) };
    match process.try_wait() {
        Ok(Some(status)) if !status.success() => Err(LoadError::Restart(format!("it ended with {status}"))),
        Ok(_) => Ok(()),
        Err(error) => Err(LoadError::Restart(error.to_string())),
    }
}

/// Waits until at least half of the devices have noticed that the server is gone: a single one may have been closed.
async fn lost(crowd: &Crowd, count: usize, restarting: &mut Option<Child>) -> Result<(), LoadError> {
    let give_up = Instant::now() + LOAD_RESTART;
    while crowd.noticed.load(Ordering::SeqCst) < count.div_ceil(2).max(1) {
        if Instant::now() >= give_up {
            return Err(LoadError::NotRestarted);
        }
        check(restarting)?;
        tokio::time::sleep(LOAD_LOOK).await;
    }
    Ok(())
}

/// Waits until the server answers again.
async fn there_again(dialer: &Dialer) -> Result<(), LoadError> {
    let give_up = Instant::now() + LOAD_RESTART;
    loop {
        match dialer.connect().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= give_up => return Err(ClientError::from(error).into()),
            Err(_) => tokio::time::sleep(LOAD_PROBE).await,
        }
    }
}

/// Waits for the loss, then for the server, and comes back as often as it takes.
async fn come_back(subscribed: Subscribed, crowd: Arc<Crowd>) -> Result<Back, ClientError> {
    let Subscribed { device, link, mut events } = subscribed;
    tokio::select! {
        biased;
        () = crowd.back.cancelled() => (),
        () = closed(&mut events) => {
            crowd.noticed.fetch_add(1, Ordering::SeqCst);
            crowd.back.cancelled().await;
        }
    }
    drop((link, events));
    let (began, mut errors) = (Instant::now(), Vec::new());
    loop {
        let permit = crowd.places.acquire().await.map_err(|error| ClientError::Thread(error.to_string()))?;
        let error = match Box::pin(subscribe(device.clone())).await {
            Ok(subscribed) => {
                let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                return Ok(Back { took_ns, errors, _subscribed: subscribed });
            }
            Err(error) => ClientError::from(error),
        };
        drop(permit);
        if !error.is_temporary() || began.elapsed() >= LOAD_PATIENCE {
            return Err(error);
        }
        errors.push(error.to_string());
        let again = Duration::from_millis(100).saturating_mul(u32::try_from(errors.len()).unwrap_or(u32::MAX));
        tokio::time::sleep(error.retry_after().max(again)).await;
    }
}

async fn closed(events: &mut LinkEvents) {
    while !matches!(events.next().await, LinkEvent::Closed(_)) {}
}

fn told_of(course: &Course, cost: Option<Cost>) -> StormReport {
    let (mut took, mut last_ns, mut errors) = (histogram(), 0, BTreeMap::<String, u64>::new());
    for back in &course.back {
        took.saturating_record(latency_us(0, back.took_ns));
        last_ns = last_ns.max(back.took_ns);
        for error in &back.errors {
            if errors.len() < LOAD_ERRORS_MAX || errors.contains_key(error) {
                *errors.entry(error.clone()).or_default() += 1;
            }
        }
    }
    let subscribed = course.back.len();
    StormReport {
        noticed: course.noticed,
        down_s: thousandths(course.down_s),
        subscribed,
        all_subscribed_s: thousandths(Duration::from_nanos(last_ns).as_secs_f64()),
        subscribed_us: Latency::of(&took),
        cpu_us_per_device: cost
            .filter(|_| subscribed > 0)
            .map(|cost| thousandths(cost.cpu_s * 1e6 / subscribed as f64)),
        attempts_failed: course.back.iter().map(|back| back.errors.len()).sum(),
        errors,
        before_us: Latency::of(&course.before.delivery),
        during_us: Latency::of(&course.during.delivery),
        during_lateness_us: Latency::of(&course.during.lateness),
        during_delivered: course.during.delivered,
    }
}
