//! Push services that hang while thousands of devices are away: live messages are relayed as before, memory stays within
//! its bound, and when the services are back every device is woken once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use gureum_proto::{Code, ConversationId, Position, PushAddress, PushTarget, Request, Response, Send};
use gureum_server::limits::process_memory_bytes_max;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::good::{Good, quantile};
use super::process::{self, Look};
use crate::device::Device;
use crate::outside::Outside;
use crate::push::{Act, Seen};
use crate::raw::Raw;
use crate::wait::eventually;
use crate::{Options as WorldOptions, World};

const START: Position = Position { seq: 0, count: 0 };
/// People to whom one account writes: it has at most 5,000 conversations.
const OF_ONE_WRITER: usize = 2_000;
/// Accounts that are made at one time.
const MADE_AT_ONCE: usize = 16;
/// One in so many of those who are away has no target: the load of the calm is the same, and goes to them.
const PLAIN_EVERY: usize = 10;
/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Within this time after the services are back everybody is to have been woken.
pub const WOKEN_IN: Duration = Duration::from_secs(180);
/// By how much the 99th percentile of live messages may change.
const RATIO_MAX: f64 = 1.1;

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Devices that are away and can be woken, a third of them by each service.
    pub devices: usize,
    /// How long the services hang, and how long the calm before and after is measured. Meanwhile each device gets a message.
    pub hang: Duration,
    /// Pairs of people who talk all the while, as many messages a second as go to the devices that are away.
    pub pairs: usize,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// What was seen. Latencies are of live messages in microseconds, from due to delivered.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Devices that were woken.
    pub devices: usize,
    /// Live messages; each arrived once and in order.
    pub messages: usize,
    /// Half of them in the calm: the mean of before and after.
    pub calm_p50_us: u64,
    /// 99 % of them.
    pub calm_p99_us: u64,
    /// Half of them while the services hung.
    pub hanging_p50_us: u64,
    /// 99 % of them.
    pub hanging_p99_us: u64,
    /// The one p99 over the other.
    pub p99_ratio: f64,
    /// Whether that is within what was promised.
    pub is_within: bool,
    /// Requests that the services took and did not answer.
    pub unanswered: usize,
    /// From when the services were back until the last device was woken, in seconds.
    pub woken_in_s: f64,
    /// The bound that the server's limits add up to for what was connected, in KiB.
    pub memory_bound_kib: u64,
    /// The server when everything was set up.
    pub before: Look,
    /// The most of each while the services hung and came back.
    pub peak: Look,
    /// At the end.
    pub after: Look,
}

/// Somebody who writes to people who are away.
struct Writer {
    device: Device,
    raw: Raw,
}

/// Somebody who is away.
#[derive(Clone, Copy)]
struct Absent {
    conversation: ConversationId,
    epoch: u64,
    writer: usize,
}

/// Runs it.
///
/// # Panics
/// When a device is not woken, or more than once; when memory passes its bound; when a live message does not arrive.
#[must_use]
pub fn run(options: &Options) -> Report {
    let outside = Outside::start();
    let world = World::start_with(WorldOptions {
        flags: vec!["--registration", "open"],
        settings: outside.push_settings(),
        ..WorldOptions::default()
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let plain = options.devices.div_ceil(PLAIN_EVERY);
    let writers = runtime.block_on(writers(world.url(), options.devices + plain));
    let targets = targets(&outside, options.devices);
    let tell = |what: &str| {
        if options.tells {
            eprintln!("{what}");
        }
    };
    let wanted = targets.iter().cloned().map(Some).chain(std::iter::repeat_n(None, plain)).collect();
    let mut absent = runtime.block_on(absent(world.url(), &writers, wanted));
    let plain = absent.split_off(options.devices);
    eventually("the targets are known", WOKEN_IN, || {
        (world.admin().count("gureum_push_targets") == u64::try_from(options.devices).unwrap()).then_some(())
    });
    tell("everybody is set up");

    let every = options.hang.mul_f64(share(options.pairs, options.devices));
    let good = Good::start(&world, options.pairs, every);
    let mut phase = Phase { world: &world, runtime: &runtime, good: &good, writers, hang: options.hang };
    let load = || plain.iter().copied().cycle().take(options.devices).collect::<Vec<_>>();
    let mut calm = Look::default();
    let first = phase.run(load(), &mut calm);
    let before = process::look(world.process_id());
    let services = [&outside.apns.service, &outside.fcm.service, &outside.web.service];
    services.iter().for_each(|service| service.always(Act::Hang));
    let mut peak = before;
    let hanging = phase.run(absent, &mut peak);
    tell("the services come back");
    services.iter().for_each(|service| service.always(Act::Accept));
    let woken_in_s = phase.until_woken(&outside, options.devices, &mut peak);
    let unanswered = services.iter().flat_map(|service| service.statuses()).filter(Option::is_none).count();
    let second = phase.run(load(), &mut calm);
    each_once(&outside, &targets);

    let after = process::look(world.process_id());
    let proven = 2 * options.pairs + 1 + phase.writers.len();
    drop(phase);
    let messages = good.end();
    let memory_bound_kib = u64::try_from(process_memory_bytes_max(proven, 1) / 1024).unwrap();
    assert!(peak.resident_kib < memory_bound_kib, "{peak:?}, and the bound is {memory_bound_kib} KiB");
    assert_eq!(world.log().matches("panicked").count(), 0, "{}", world.log());
    let both = |share: f64| u64::midpoint(quantile(&first, share), quantile(&second, share));
    let (calm_p99_us, hanging_p99_us) = (both(0.99), quantile(&hanging, 0.99));
    let p99_ratio = ratio(hanging_p99_us, calm_p99_us);
    Report {
        devices: options.devices,
        messages,
        calm_p50_us: both(0.5),
        calm_p99_us,
        hanging_p50_us: quantile(&hanging, 0.5),
        hanging_p99_us,
        p99_ratio,
        is_within: p99_ratio < RATIO_MAX,
        unanswered,
        woken_in_s,
        memory_bound_kib,
        before,
        peak,
        after,
    }
}

/// What all phases share.
struct Phase<'a> {
    world: &'a World,
    runtime: &'a Runtime,
    good: &'a Good,
    writers: Vec<Writer>,
    hang: Duration,
}

impl Phase<'_> {
    /// Lets each of these people get a message while the others talk, evenly over the time; how long those took who talk.
    fn run(&mut self, people: Vec<Absent>, peak: &mut Look) -> Vec<Duration> {
        let from = Instant::now();
        let mut tasks = JoinSet::new();
        for (index, writer) in std::mem::take(&mut self.writers).into_iter().enumerate() {
            let theirs: Vec<_> = people.iter().filter(|absent| absent.writer == index).copied().collect();
            let every = self.hang.mul_f64(share(1, theirs.len()));
            let write = async move { (index, write(writer, theirs, every).await) };
            tasks.spawn_on(write, self.runtime.handle());
        }
        while from.elapsed() < self.hang {
            self.look(peak);
        }
        let mut writers = self.runtime.block_on(tasks.join_all());
        writers.sort_by_key(|(index, _)| *index);
        self.writers = writers.into_iter().map(|(_, writer)| writer).collect();
        let took = self.good.messages(from, from + self.hang);
        assert!(!took.is_empty(), "nobody talks any more\n{}", self.world.log());
        took
    }

    fn look(&self, peak: &mut Look) {
        let look = process::look(self.world.process_id());
        peak.resident_kib = peak.resident_kib.max(look.resident_kib);
        peak.descriptors = peak.descriptors.max(look.descriptors);
        peak.cpu_s = look.cpu_s;
        std::thread::park_timeout(LOOK_EVERY);
    }

    /// Waits until all devices are woken and nothing is under way any more; how many seconds that took.
    fn until_woken(&self, outside: &Outside, devices: usize, peak: &mut Look) -> f64 {
        let from = Instant::now();
        let woken = || {
            let services = [&outside.apns.service, &outside.fcm.service, &outside.web.service];
            // One of those that FCM has answered was for the access token.
            services.iter().map(|service| service.accepted()).sum::<usize>() > devices
        };
        while !woken() {
            self.look(peak);
            assert!(from.elapsed() < WOKEN_IN, "some were not woken within {WOKEN_IN:?}\n{}", self.world.log());
        }
        let woken_in_s = from.elapsed().as_secs_f64();
        // Whoever is woken a second time is it now: requests that nobody answered end after 10 s, and are tried again.
        eventually("nothing is owed to anybody", WOKEN_IN, || {
            (self.world.admin().count("gureum_push_waiting") == 0).then_some(())
        });
        (woken_in_s * 10.0).round() / 10.0
    }
}

/// Sends a message to each of these people, one every so often.
async fn write(mut writer: Writer, people: Vec<Absent>, every: Duration) -> Writer {
    let mut ticks = tokio::time::interval(every);
    for absent in people {
        ticks.tick().await;
        let (conversation, epoch) = (absent.conversation, absent.epoch);
        let ciphertext = vec![7; 256].into();
        let send = Send { counter: writer.device.next_counter(), conversation, epoch, ciphertext, silent: false };
        writer.raw.send(&[send]).await.remove(0).result.unwrap();
    }
    writer
}

/// Those who write to so many people.
async fn writers(url: &str, people: usize) -> Vec<Writer> {
    let mut writers = Vec::new();
    for index in 0..people.div_ceil(OF_ONE_WRITER) {
        let device = Device::new();
        let mut raw = Raw::dial(url).await;
        device.register(&mut raw, url, &format!("writer{index}")).await.unwrap();
        device.prove(&mut raw, false, START).await;
        let (key_packages, last_resort) = (vec![device.key_package()], Some(device.last_resort()));
        let put = Request::PutKeyPackages { key_packages, last_resort, replace: false };
        let answer = raw.request(&put).await;
        assert!(matches!(answer, Response::KeyPackagesStored { .. }), "{answer:?}");
        writers.push(Writer { device, raw });
    }
    writers
}

/// A target for each device, in turn at each service.
fn targets(outside: &Outside, devices: usize) -> Vec<PushTarget> {
    let target = |index: usize| match index % 3 {
        0 => {
            let token = rand::random::<[u8; 32]>().to_vec().into();
            PushTarget { address: PushAddress::Apns { token, sandbox: false }, visible: true }
        }
        1 => {
            let token = format!("registration-token-{index}-{:032x}", rand::random::<u128>());
            PushTarget { address: PushAddress::Fcm { token }, visible: true }
        }
        _ => outside.web.subscribe().target(true),
    };
    (0..devices).map(target).collect()
}

/// Makes an account for each of these targets, in a conversation that it has begun with a writer.
async fn absent(url: &str, writers: &[Writer], targets: Vec<Option<PushTarget>>) -> Vec<Absent> {
    let mut made = Vec::new();
    let mut tasks = JoinSet::new();
    for (index, target) in targets.into_iter().enumerate() {
        if tasks.len() == MADE_AT_ONCE {
            made.push(tasks.join_next().await.expect("there are some").unwrap());
        }
        // Whoever begins a conversation names the other one's account alone.
        let writer = &writers[index % writers.len()].device;
        tasks.spawn(one(url.to_owned(), index, target, Device::posing_as(writer.account, writer.device)));
    }
    made.extend(tasks.join_all().await);
    made.sort_by_key(|(index, ..)| *index);
    let absent = |(index, conversation, epoch)| Absent { conversation, epoch, writer: index % writers.len() };
    made.into_iter().map(absent).collect()
}

async fn one(url: String, index: usize, target: Option<PushTarget>, writer: Device) -> (usize, ConversationId, u64) {
    let device = Device::new();
    let mut raw = Raw::dial(&url).await;
    let handle = format!("absent{index}");
    // One address makes so many accounts a minute and no more.
    while let Err(refusal) = device.register(&mut raw, &url, &handle).await {
        assert_eq!(refusal.code, Code::RateLimited, "{refusal:?}");
        raw.close().await;
        tokio::time::sleep(Duration::from_millis(refusal.retry_after_ms.max(1))).await;
        raw = Raw::dial(&url).await;
    }
    device.prove(&mut raw, false, START).await;
    // Whoever begins a conversation wants to hear of it.
    let talk = device.begin(&raw, &writer).await;
    if let Some(target) = target {
        let answer = raw.request(&Request::SetPushTarget(target)).await;
        assert_eq!(answer, Response::Done);
    }
    raw.close().await;
    (index, talk.id, talk.epoch())
}

/// Each device has had exactly one wake-up, by what its service answered.
fn each_once(outside: &Outside, targets: &[PushTarget]) {
    fn successes(seen: &[Seen], address: impl Fn(&Seen) -> String) -> HashMap<String, usize> {
        let mut times = HashMap::new();
        for seen in seen.iter().filter(|seen| seen.status.is_some_and(|status| (200..300).contains(&status))) {
            *times.entry(address(seen)).or_default() += 1;
        }
        times
    }

    let apns = successes(&outside.apns.service.seen(), |seen| seen.path.clone());
    let fcm = successes(&outside.fcm.messages(), |seen| seen.json()["message"]["token"].as_str().unwrap().to_owned());
    let base = outside.web.service.url();
    let web = successes(&outside.web.service.seen(), |seen| format!("{base}{}", seen.path));
    for target in targets {
        let times = match &target.address {
            PushAddress::Apns { token, .. } => {
                apns.get(&format!("/3/device/{}", data_encoding::HEXLOWER.encode(token)))
            }
            PushAddress::Fcm { token } => fcm.get(token),
            PushAddress::WebPush { endpoint, .. } => web.get(endpoint),
        };
        assert_eq!(times, Some(&1), "{target:?}");
    }
}

fn share(part: usize, whole: usize) -> f64 {
    f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole.max(1)).unwrap())
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a test are far below 2^52")]
fn ratio(one: u64, other: u64) -> f64 {
    (one as f64 / other.max(1) as f64 * 100.0).round() / 100.0
}
