//! Bad peers at scale: while they do their worst, good users talk on, the server's memory and descriptors stay within
//! their bounds, and afterwards everything is as before.

mod bad;
mod spoof;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gureum_server::limits::{
    MEMTABLES_BYTES_MAX, UNVALIDATED_HANDSHAKES_MAX, connections_memory_bytes_max, process_memory_bytes_max,
};
use serde::Serialize;

use super::good::{Good, quantile};
use super::process::{self, Look};
use crate::device::Device;
use crate::raw::Raw;
use crate::wait::eventually;
use crate::{Options as WorldOptions, World};
pub use bad::{Force, KINDS, Kind};
use bad::{Leash, Members};
pub use spoof::Victim;

/// Between two looks at the server.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long after the last attack everything is normal again: the longest time that a bad peer may keep something (30 s
/// for what it leaves unread, 30 s for a connection that fell silent), and some.
const NORMAL_IN: Duration = Duration::from_secs(75);
/// Memory that a server may have more of afterwards, in KiB, beside what it stored: pages that the allocator keeps.
const MEMORY_SPARE_KIB: u64 = 24 * 1024;
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
    /// What was written to the server's log meanwhile, in KiB: some of it is still in memtables.
    pub stored_kib: u64,
    /// The bound that the server's limits add up to for what was really connected and stored, in KiB.
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
    /// Processors that the bad peers took, of what the server and the good users left.
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
    let logged_before = logged_bytes(&world);
    let mut peak = before;
    let kinds = options.kinds.iter().map(|kind| {
        let rounds = (0..options.rounds).map(|_| round(&world, &good, *kind, options, &mut members, &mut peak));
        let seen = median(*kind, rounds.collect());
        if options.tells {
            eprintln!("{seen:?}");
        }
        seen
    });
    let kinds: Vec<Seen> = kinds.collect();
    let after = normal_again(&world, before, logged_before, options);
    let messages = good.end();
    let stored_bytes = logged_bytes(&world) - logged_before;
    let connected = kinds.iter().map(|seen| seen.connections).max().unwrap_or_default();
    let memory_bound_kib = memory_bound_kib(before, options, connected, stored_bytes);
    assert!(peak.resident_kib < memory_bound_kib, "{peak:?}, and the bound is {memory_bound_kib} KiB");
    assert!(peak.descriptors <= before.descriptors + DESCRIPTORS_SPARE, "{before:?}, {peak:?}");
    assert_eq!(world.log().matches("panicked").count(), 0);
    Report { kinds, messages, stored_kib: stored_bytes / 1024, memory_bound_kib, before, peak, after }
}

/// The most memory that a server may take, in KiB: as it was before, with so many more connections, what it stored
/// meanwhile, and a second time what of that is being flushed; and in any case what all its limits add up to.
fn memory_bound_kib(before: Look, options: &Options, connected: u64, stored_bytes: u64) -> u64 {
    let proven = 2 * options.pairs + 1 + options.force.devices;
    let unproven = usize::try_from(connected).unwrap() + UNVALIDATED_HANDSHAKES_MAX;
    let kib = |bytes: usize| u64::try_from(bytes / 1024).unwrap();
    let really_there = before.resident_kib + kib(connections_memory_bytes_max(proven, unproven));
    (really_there + 2 * stored_bytes / 1024).min(kib(process_memory_bytes_max(proven, unproven)))
}

/// What was written to the log since the start, and may still be in memtables.
fn logged_bytes(world: &World) -> u64 {
    world.admin().count("gureum_store_written_bytes_total{by=\"log\"}")
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

/// The bad peers of one phase, on a thread of their own. They have machines of their own: of this one's processors they
/// take what the server and the good users leave, so that what is measured is what they do to the server.
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
            let this = process::Thread::this();
            this.gives_way();
            begun.send(this).unwrap();
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
    let mut connections = 0;
    watch(world, Duration::from_secs(1), peak, &mut connections);
    let look = process::look(world.process_id());
    let (bad_cpu_s, done) = (attack.counted.cpu_s(), attack.done());
    let retries = world.admin().count("gureum_retries_total");
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

/// Waits until everything is as before, and looks.
fn normal_again(world: &World, before: Look, logged_before: u64, options: &Options) -> Look {
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
    // While the good users go on: what they and the bad peers stored may be in a memtable, once.
    eventually("memory is given back", NORMAL_IN, || {
        let memtables = u64::try_from(MEMTABLES_BYTES_MAX).unwrap();
        let stored_kib = (logged_bytes(world) - logged_before).min(memtables) / 1024;
        (process::look(world.process_id()).resident_kib <= before.resident_kib + stored_kib + MEMORY_SPARE_KIB)
            .then_some(())
    });
    assert!(admin.ready().0, "ready again");
    process::look(world.process_id())
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

/// What spoofed handshakes cost.
#[derive(Debug)]
pub struct Spoofed {
    /// Connections that were asked to prove their address.
    pub retries: u64,
    /// How much larger the server grew, in KiB.
    pub grown_kib: u64,
    /// Whose addresses were written on handshakes before the flood, and got all that the server had to say to them.
    pub victims: Vec<Victim>,
    /// The same in the midst of the flood.
    pub victims_of_flood: Vec<Victim>,
    /// Whose addresses were written on packets of an unknown version.
    pub victims_of_versions: Vec<Victim>,
}

/// Victims of each kind.
const VICTIMS: u8 = 20;
/// How long a server may go on with a handshake that nobody answers: its own bound, 3 s, and a machine under load.
const FORGOTTEN: Duration = Duration::from_secs(15);

/// Begins so many handshakes a second from addresses that nobody has. Somebody who is who they say they are gets in
/// meanwhile.
#[must_use]
pub fn spoof(world: &World, per_s: u32, duration: Duration) -> Spoofed {
    let (server, admin) = (world.listen(), world.admin());
    let in_flight = |is_wanted: fn(u64) -> bool| is_wanted(admin.count("gureum_handshakes_unvalidated")).then_some(());
    let mut victims: Vec<_> = (1..=VICTIMS).map(|last| Victim::of_handshake(last, server)).collect();
    let all_answered = |victims: &mut [Victim]| {
        victims.iter_mut().for_each(Victim::listen);
        victims.iter().all(|victim| !victim.received.is_empty()).then_some(())
    };
    eventually("each gets an answer", FORGOTTEN, || all_answered(&mut victims));
    // With all that is sent again to who does not answer.
    eventually("their handshakes are in flight", FORGOTTEN, || in_flight(|count| count > 0));
    eventually("and are given up", FORGOTTEN, || in_flight(|count| count == 0));
    let mut victims_of_versions: Vec<_> = (1..=VICTIMS).map(|last| Victim::of_unknown_version(last, server)).collect();
    eventually("each is told the versions", FORGOTTEN, || all_answered(&mut victims_of_versions));

    let members = Members { devices: Vec::new(), url: world.url().to_owned(), server };
    let force = Force { connections: 0, connections_per_s: 1, devices: 0, datagrams_per_s: per_s };
    let before_kib = world.resident_kib();
    let attack = Attack::start(Kind::Spoofed, force, members);
    eventually("addresses must be proven", duration, || (admin.count("gureum_address_validation") == 1).then_some(()));
    let mut victims_of_flood: Vec<_> = (1..=VICTIMS).map(|last| Victim::of_handshake(last, server)).collect();
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
    let grown_kib = world.resident_kib().saturating_sub(before_kib);
    eventually("each of these gets an answer too", FORGOTTEN, || all_answered(&mut victims_of_flood));
    victims.iter_mut().for_each(Victim::listen);
    Spoofed { retries, grown_kib, victims, victims_of_flood, victims_of_versions }
}
