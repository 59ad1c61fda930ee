//! Bad peers at scale: while they do their worst, good users talk on, the server's memory and descriptors stay within
//! their bounds, and afterwards everything is as before.

mod bad;
mod spoof;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gureum_server::limits::{UNPROVEN_MAX, process_memory_bytes_max};
use serde::Serialize;

use super::good::{Good, quantile};
use super::process::{self, Look};
use crate::device::Device;
use crate::raw::Raw;
use crate::wait::eventually;
use crate::{Options as WorldOptions, World};
pub use bad::{Force, KINDS, Kind};
use bad::{Leash, Members};

/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after the last attack everything is normal again: the longest time that a bad peer may keep something (30 s
/// for what it leaves unread, 30 s for a connection that fell silent), and some.
const NORMAL_IN: Duration = Duration::from_secs(75);
/// Descriptors that a server may have more of afterwards: table files come and go.
const DESCRIPTORS_SPARE: u64 = 32;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kinds of bad peers, one after the other.
    pub kinds: Vec<Kind>,
    /// How often each: a calm phase, then an attack, so that whatever else the machine does hits both.
    pub rounds: usize,
    /// How long each phase is measured.
    pub phase: Duration,
    /// How much of it.
    pub force: Force,
    /// Pairs of good users.
    pub pairs: usize,
    /// Between two messages of a pair.
    pub every: Duration,
    /// Whether to tell on standard error how it goes.
    pub tells: bool,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Kind by kind.
    pub kinds: Vec<Seen>,
    /// Messages of good users; each arrived once and in order.
    pub messages: usize,
    /// The bound that the server's limits add up to, in KiB.
    pub memory_bound_kib: u64,
    /// The server before, in the worst moment, and when everything was normal again.
    pub before: Look,
    /// The most of each.
    pub peak: Look,
    /// At the end.
    pub after: Look,
}

/// What was seen of one kind: medians over the rounds, latencies in microseconds, from due to delivered.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// What the bad peers did.
    pub kind: Kind,
    /// Half of all messages in calm.
    pub calm_p50_us: u64,
    /// 99 % of them.
    pub calm_p99_us: u64,
    /// Half of all messages under attack.
    pub attack_p50_us: u64,
    /// 99 % of them.
    pub attack_p99_us: u64,
    /// The one p99 over the other.
    pub p99_ratio: f64,
    /// The longest that a newcomer waited to be let in under attack, in microseconds.
    pub newcomer_max_us: u64,
    /// Newcomers let in under attack.
    pub newcomers: usize,
    /// What the bad peers did in a second: connections, messages, requests, frames or datagrams.
    pub done_per_s: f64,
    /// Processors that the server took, of those of the machine.
    pub server_cpu: f64,
    /// Processors that the bad peers took, which the server and the good users did not have.
    pub bad_peers_cpu: f64,
    /// Connections open at one time.
    pub connections: u64,
    /// Connections asked to prove their address.
    pub retries: u64,
}

/// Runs it.
#[must_use]
pub fn run(options: &Options) -> Report {
    let world = World::start_with(WorldOptions { flags: vec!["--registration", "open"], ..WorldOptions::default() });
    let mut members = Some(members(&world, options.force.devices));
    let good = Good::start(&world, options.pairs, options.every);
    let before = process::look(world.process_id());
    let mut peak = before;
    let kinds = options.kinds.iter().map(|kind| {
        let rounds = (0..options.rounds).map(|_| round(&world, &good, *kind, options, &mut members, &mut peak));
        let seen = median(*kind, rounds.collect());
        if options.tells {
            eprintln!("{seen:?}");
        }
        seen
    });
    let kinds = kinds.collect();
    normal_again(&world, before, options);
    let after = process::look(world.process_id());
    let messages = good.end();
    let proven = 2 * options.pairs + 1 + options.force.devices;
    let memory_bound_kib = u64::try_from(process_memory_bytes_max(proven, UNPROVEN_MAX) / 1024).unwrap();
    assert!(peak.resident_kib < memory_bound_kib, "{peak:?}, and the bound is {memory_bound_kib} KiB");
    assert!(peak.descriptors <= before.descriptors + DESCRIPTORS_SPARE, "{before:?}, {peak:?}");
    assert_eq!(world.log().matches("panicked").count(), 0);
    Report { kinds, messages, memory_bound_kib, before, peak, after }
}

/// Devices with accounts and a conversation that nobody reads.
fn members(world: &World, devices: usize) -> Members {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, server) = (world.url().to_owned(), world.listen());
    let register = async |name: String| {
        let device = Device::new();
        let mut raw = Raw::dial(&url).await;
        device.register(&mut raw, &url, &name).await.unwrap();
        raw.close().await;
        device
    };
    let devices = runtime.block_on(async {
        let mut made = Vec::new();
        for index in 0..devices {
            let (device, sink) = (register(format!("bad{index}")).await, register(format!("sink{index}")).await);
            let start = gureum_proto::Position { seq: 0, count: 0 };
            let (listener, _) = sink.connect(&url, false, start).await;
            sink.publish(&listener, 1).await;
            listener.close().await;
            let (raw, _) = device.connect(&url, false, start).await;
            let talk = device.begin(&raw, &sink).await;
            raw.close().await;
            made.push((device, talk));
        }
        made
    });
    Members { devices, url, server }
}

/// The bad peers of one phase, on a thread of their own.
struct Attack {
    leash: Arc<Leash>,
    thread: JoinHandle<Members>,
    /// The thread as the kernel counts it.
    counted: process::Thread,
}

impl Attack {
    fn start(kind: Kind, force: Force, mut members: Members) -> Self {
        let leash = Arc::<Leash>::default();
        let theirs = Arc::clone(&leash);
        let (begun, wait) = mpsc::channel();
        let run = move || {
            begun.send(process::Thread::this()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(bad::run(kind, &mut members, force, theirs));
            members
        };
        let thread = std::thread::spawn(run);
        Self { leash, thread, counted: wait.recv().expect("it begins") }
    }

    fn done(&self) -> usize {
        self.leash.done.load(Ordering::Relaxed)
    }

    fn end(self) -> Members {
        self.leash.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A calm phase, then an attack.
fn round(
    world: &World,
    good: &Good,
    kind: Kind,
    options: &Options,
    members: &mut Option<Members>,
    peak: &mut Look,
) -> Seen {
    let (calm_from, calm_to) = watch(world, options.phase, peak, &mut 0);
    let attack = Attack::start(kind, options.force, members.take().expect("one attack at a time"));
    // A second for them to get going: what is measured is the attack in full force.
    watch(world, Duration::from_secs(1), peak, &mut 0);
    let look = process::look(world.process_id());
    let (bad_cpu_s, done) = (attack.counted.cpu_s(), attack.done());
    let retries = world.admin().count("gureum_retries_total");
    let mut connections = 0;
    let (from, to) = watch(world, options.phase, peak, &mut connections);
    let seconds = (to - from).as_secs_f64();
    let server_cpu = (process::look(world.process_id()).cpu_s - look.cpu_s) / seconds;
    let bad_peers_cpu = (attack.counted.cpu_s() - bad_cpu_s) / seconds;
    #[expect(clippy::cast_precision_loss, reason = "a rate has few digits that mean anything")]
    let done_per_s = (attack.done() - done) as f64 / seconds;
    let retries = world.admin().count("gureum_retries_total") - retries;
    *members = Some(attack.end());
    let (calm, attacked) = (good.messages(calm_from, calm_to), good.messages(from, to));
    let newcomers = good.connections(from, to);
    assert!(!calm.is_empty() && !attacked.is_empty() && !newcomers.is_empty(), "{kind:?}: the good users stand still");
    let (calm_p50_us, calm_p99_us) = (quantile(&calm, 0.5), quantile(&calm, 0.99));
    let (attack_p50_us, attack_p99_us) = (quantile(&attacked, 0.5), quantile(&attacked, 0.99));
    Seen {
        kind,
        calm_p50_us,
        calm_p99_us,
        attack_p50_us,
        attack_p99_us,
        p99_ratio: ratio(attack_p99_us, calm_p99_us),
        newcomer_max_us: quantile(&newcomers, 1.0),
        newcomers: newcomers.len(),
        done_per_s,
        server_cpu,
        bad_peers_cpu,
        connections,
        retries,
    }
}

/// Looks at the server for a while.
fn watch(world: &World, duration: Duration, peak: &mut Look, connections: &mut u64) -> (Instant, Instant) {
    let from = Instant::now();
    while from.elapsed() < duration {
        let look = process::look(world.process_id());
        peak.resident_kib = peak.resident_kib.max(look.resident_kib);
        peak.descriptors = peak.descriptors.max(look.descriptors);
        peak.cpu_s = look.cpu_s;
        *connections = (*connections).max(world.admin().count("gureum_connections"));
        std::thread::park_timeout(LOOK_EVERY);
    }
    (from, Instant::now())
}

fn normal_again(world: &World, before: Look, options: &Options) {
    let admin = world.admin();
    let good = u64::try_from(2 * options.pairs).unwrap();
    // One more: a newcomer who is there for a moment.
    eventually("the bad peers are forgotten", NORMAL_IN, || {
        (admin.count("gureum_connections") <= good + 1).then_some(())
    });
    eventually("addresses are believed again", NORMAL_IN, || {
        (admin.count("gureum_address_validation") == 0 && admin.count("gureum_handshakes_unvalidated") <= 1)
            .then_some(())
    });
    eventually("descriptors are given back", NORMAL_IN, || {
        (process::look(world.process_id()).descriptors <= before.descriptors + DESCRIPTORS_SPARE).then_some(())
    });
    assert!(admin.ready().0, "ready again");
}

fn median(kind: Kind, mut rounds: Vec<Seen>) -> Seen {
    let mut of = |field: fn(&Seen) -> u64| {
        rounds.sort_by_key(field);
        field(&rounds[rounds.len() / 2])
    };
    let (calm_p50_us, calm_p99_us) = (of(|seen| seen.calm_p50_us), of(|seen| seen.calm_p99_us));
    let (attack_p50_us, attack_p99_us) = (of(|seen| seen.attack_p50_us), of(|seen| seen.attack_p99_us));
    let newcomer_max_us = of(|seen| seen.newcomer_max_us);
    let newcomers = rounds.iter().map(|seen| seen.newcomers).sum();
    let connections = rounds.iter().map(|seen| seen.connections).max().unwrap_or_default();
    let retries = rounds.iter().map(|seen| seen.retries).sum();
    let middle = rounds.swap_remove(rounds.len() / 2);
    Seen {
        kind,
        calm_p50_us,
        calm_p99_us,
        attack_p50_us,
        attack_p99_us,
        p99_ratio: ratio(attack_p99_us, calm_p99_us),
        newcomer_max_us,
        newcomers,
        connections,
        retries,
        ..middle
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a test are far below 2^52")]
fn ratio(one: u64, other: u64) -> f64 {
    (one as f64 / other.max(1) as f64 * 100.0).round() / 100.0
}

/// Begins so many handshakes from addresses that nobody has, and says what the server made of it: how many it asked to
/// prove their address, and how much larger it grew, in KiB. Somebody who is who they say they are gets in meanwhile.
#[must_use]
pub fn spoof(world: &World, per_s: u32, duration: Duration) -> (u64, u64) {
    let members = Members { devices: Vec::new(), url: world.url().to_owned(), server: world.listen() };
    let force = Force { connections: 0, connections_per_s: 1, devices: 0, datagrams_per_s: per_s };
    let before_kib = world.resident_kib();
    let attack = Attack::start(Kind::Spoofed, force, members);
    let admin = world.admin();
    eventually("addresses must be proven", duration, || (admin.count("gureum_address_validation") == 1).then_some(()));
    let (let_in, wait) = mpsc::channel();
    let url = world.url().to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let raw = runtime.block_on(Raw::dial(&url));
        let from = raw.connection.local_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let_in.send(from).unwrap();
    });
    wait.recv_timeout(duration).expect("who has its address gets in");
    watch(world, duration, &mut Look::default(), &mut 0);
    let retries = admin.count("gureum_retries_total");
    drop(attack.end());
    (retries, world.resident_kib().saturating_sub(before_kib))
}
