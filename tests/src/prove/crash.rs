//! Ends a server in the worst moments, again and again, and shows that what it acknowledged is there, once.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::books::Tally;
use super::fleet::Fleet;
use crate::disk::LoopDisk;
use crate::operator::gureumd;
use crate::wait::{SOON, eventually};
use crate::{Options as WorldOptions, World};

/// Senders under load. The first one encrypts.
const SENDERS: usize = 4;

/// Messages acknowledged between a start and the next end, at most.
const MESSAGES_MAX: u64 = 120;

/// How long the last step of a restart may take to be reached by a server under load.
const REACHED: Duration = Duration::from_secs(30);

/// The signal of `abort`, which a step ends the process with.
const SIGABRT: i32 = 6;

/// A retention under which keys are made and destroyed and tables are dropped all the time.
pub const SHORT: &str = "8s";
const SHORT_MS: u64 = 8_000;

/// The steps of a write, of a start, and of what is done by the clock. Those of the last group come only where the
/// retention is [`SHORT`].
pub const WRITE_STEPS: [&str; 7] = [
    "writer::queued",
    "writer::planned",
    "store::write",
    "writer::written",
    "writer::some_answered",
    "writer::answered",
    "writer::woken",
];

/// The steps of a start.
pub const START_STEPS: [&str; 6] =
    ["start::clock", "start::store", "start::keys", "start::bound", "clock::renamed", "start::serving"];

/// The steps of what is done by the clock.
pub const CLOCK_STEPS: [&str; 13] = [
    "key::written",
    "key::renamed",
    "key::created",
    "key::marked",
    "key::overwritten",
    "key::removed",
    "store::flush",
    "store::flushed",
    "store::drop",
    "store::dropped",
    "store::compact",
    "clock::written",
    "clock::saved",
];

/// A server under load that ends and starts.
#[derive(Debug)]
pub struct Crashes {
    runtime: Runtime,
    world: World,
    fleet: Fleet,
    disk: Option<LoopDisk>,
}

/// What a run has shown.
#[derive(Debug, Default, serde::Serialize)]
pub struct Shown {
    /// Ends at random.
    pub at_random: u32,
    /// Ends at a step: which, and how often.
    pub at_steps: Vec<(String, u32)>,
    /// The books at the end.
    pub tally: Tally,
    /// The longest restart until ready.
    pub restart_ms_max: u128,
    /// How long it took.
    pub seconds: u64,
}

impl Crashes {
    /// Starts a server and its load, on a disk that can lose its power or wherever temporary files lie.
    #[must_use]
    pub fn start(disk: Option<LoopDisk>, retention: Option<&'static str>) -> Self {
        Self::start_failing(disk, retention, None)
    }

    /// As [`Self::start`], with a server that fails in some way from the beginning.
    #[must_use]
    pub fn start_failing(disk: Option<LoopDisk>, retention: Option<&'static str>, failpoints: Option<String>) -> Self {
        let data_dir = disk.as_ref().map(|disk| disk.path().join("server"));
        let world = World::start_with(WorldOptions { data_dir, retention, failpoints, ..WorldOptions::default() });
        eventually("gureumd says that it has failpoints: `cargo build --workspace --bins` builds it so", SOON, || {
            world.log().contains("failpoints").then_some(())
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let fleet = runtime.block_on(Fleet::start(&world, SENDERS));
        fleet.send();
        // It joins the one conversation that it decrypts over a connection that must hold meanwhile.
        eventually("the listener has joined", SOON, || {
            (fleet.books().position().seq >= u64::try_from(SENDERS).unwrap()).then_some(())
        });
        Self { runtime, world, fleet, disk }
    }

    /// The server.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The server, to do something with.
    pub const fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// Its disk.
    ///
    /// # Panics
    /// If it has none of its own.
    #[must_use]
    pub const fn disk(&self) -> &LoopDisk {
        self.disk.as_ref().expect("a disk of its own")
    }

    /// The devices.
    #[must_use]
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Waits until so many more messages are acknowledged.
    pub fn acknowledge(&self, messages: u64) {
        let goal = self.fleet.books().acknowledged() + messages;
        eventually("messages are acknowledged", REACHED, || {
            assert!(!self.fleet.has_failed(), "a device has panicked; what it saw stands above");
            (self.fleet.books().acknowledged() >= goal).then_some(())
        });
    }

    /// Waits until everything sent is answered and heard. Nothing is sent then until [`Fleet::send`].
    pub fn come_to_rest(&self) {
        self.runtime.block_on(self.fleet.settle());
    }

    /// Ends the server, and the power of its disk in the same moment, as far as two calls can: first the process, for
    /// an fsync that is under way while ext4 shuts down may say that it is done, which no process hears after a
    /// power cut.
    fn end_now(&mut self) {
        self.world.kill();
        if let Some(disk) = &self.disk {
            disk.cut();
        }
    }

    /// Ends the server after a random number of messages: by a power cut, if it has a disk for that, else by SIGKILL.
    pub fn end_at_random(&mut self) {
        self.acknowledge(rand::random_range(1..=MESSAGES_MAX));
        self.end_now();
        self.fleet.rest();
        if let Some(disk) = &self.disk {
            disk.come_back();
        }
    }

    /// Kills the running server, and lets the next one come to its end at a step.
    ///
    /// # Panics
    /// When the step is never reached.
    pub fn end_at_step(&mut self, step: &str, passes: u32) {
        self.acknowledge(1);
        self.world.kill();
        self.fleet.rest();
        self.world.fail_at(Some(format!("{step}={passes}*off->return")));
        let status = if START_STEPS.contains(&step) {
            self.world.restart_in_vain().0
        } else {
            // The step may come before the server is ready.
            match self.world.try_restart() {
                Ok(()) => {
                    self.fleet.send();
                    eventually(step, REACHED, || self.world.has_ended())
                }
                Err(status) => status,
            }
        };
        assert_eq!(status.signal(), Some(SIGABRT), "{step}: {}", self.world.log());
        self.fleet.rest();
        if let Some(disk) = &self.disk {
            disk.cut();
            disk.come_back();
        }
        self.world.fail_at(None);
    }

    /// Whatever end a server came to, its store is sound: an audit finds nothing but a key that was being destroyed.
    fn audit(&self) {
        let said = gureumd(["check".as_ref(), self.world.data_dir().as_os_str(), "--json".as_ref()]);
        let report = said.json();
        let findings = report["findings"].as_array().unwrap();
        let is_sound = |finding: &serde_json::Value| {
            finding["kind"] == "key_past_its_time" && finding["place"].as_str().unwrap().ends_with(".gone")
        };
        assert!(findings.iter().all(is_sound), "{report:#}");
    }

    /// Starts the server again, with the same certificate at the same address. How long it took, in milliseconds.
    pub fn restart(&mut self) -> u128 {
        let started = Instant::now();
        self.world.restart();
        let restart_ms = started.elapsed().as_millis();
        self.fleet.send();
        restart_ms
    }

    /// Runs ends at random and at steps in turn; then looks whether everything is there.
    #[must_use]
    pub fn run(mut self, rounds: u32, steps: &[&str], tells: bool) -> Shown {
        let started = Instant::now();
        let mut shown = Shown::default();
        let url = self.world.url().to_owned();
        let mut at_steps: Vec<(String, u32)> = steps.iter().map(|step| ((*step).to_owned(), 0)).collect();
        for round in 0..rounds {
            // Every other end is at a step, each of them in turn.
            let turn = usize::try_from(round / 2).unwrap();
            match (round % 2, steps.get(turn % steps.len().max(1))) {
                (1, Some(step)) => {
                    let is_frequent = WRITE_STEPS.contains(step);
                    self.end_at_step(step, if is_frequent { rand::random_range(0..30) } else { 0 });
                    at_steps[turn % steps.len()].1 += 1;
                }
                _ => {
                    self.end_at_random();
                    shown.at_random += 1;
                }
            }
            self.audit();
            shown.restart_ms_max = shown.restart_ms_max.max(self.restart());
            assert_eq!(self.world.url(), url, "the certificate has stayed");
            if tells {
                eprintln!("{} ends, {} messages acknowledged", round + 1, self.fleet.books().acknowledged());
            }
        }
        shown.at_steps = at_steps;
        shown.tally = self.settle();
        shown.seconds = started.elapsed().as_secs();
        shown
    }

    /// Lets everything be answered, ends the devices and closes the books: over the whole inbox, unless parts of it
    /// have expired meanwhile.
    #[must_use]
    pub fn settle(&mut self) -> Tally {
        self.acknowledge(1);
        self.runtime.block_on(self.fleet.settle());
        self.runtime.block_on(self.fleet.end());
        if self.world.has_retention() {
            let tally = self.fleet.books().tally();
            assert_eq!((tally.doubled, tally.changed), (0, 0), "{tally:?}");
            assert_eq!(tally.lost, tally.missed, "what has expired unheard is reported, to the message: {tally:?}");
            self.fleet.books().assert_missed_had_expired(SHORT_MS);
            return tally;
        }
        let inbox = self.runtime.block_on(self.fleet.read_again());
        let tally = self.fleet.books().audit(&inbox);
        tally.assert_whole();
        tally
    }

    /// Cuts the power under load and starts again without the devices; what the inbox then holds, against the books.
    ///
    /// # Errors
    /// The server refuses to start; what it said.
    pub fn cut_and_compare(mut self) -> Result<Tally, String> {
        self.acknowledge(MESSAGES_MAX);
        self.end_now();
        self.runtime.block_on(self.fleet.end());
        self.disk().come_back();
        self.world.fail_at(None);
        if let Err(status) = self.world.try_restart() {
            return Err(format!("{status}"));
        }
        let inbox = self.runtime.block_on(self.fleet.read_again());
        Ok(self.fleet.books().compare(&inbox))
    }

    /// Restarts the server with a failpoint; then [`Self::cut_and_compare`] shows what that costs.
    pub fn restart_with(&mut self, failpoints: &str) {
        self.fleet.rest();
        assert_eq!(self.world.stop().code(), Some(0));
        self.world.fail_at(Some(failpoints.to_owned()));
        self.world.restart();
        self.fleet.send();
    }

    /// Waits until the server has ended by itself.
    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let status = eventually("the server ends by itself", SOON, || self.world.has_ended());
        self.fleet.rest();
        status
    }
}
