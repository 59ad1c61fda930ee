//! The days, one round of maintenance after the other: who speaks, who reads, what is looked at.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use gureum_proto::{Position, Send};
use gureum_server::router::{Change, Changed, CommitPlan, Op};
use gureum_server::seal::period_ms;
use gureum_server::session::Item;
use gureum_server::store::{Durability, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::machine::Machine;
use super::model::{Found, Model, SILENT, Said};
use super::people::{People, Talks};
use super::report::Watch;
use super::{DAY_MS, EPOCH_FIRST, HOUR_MS, LATE_MS_MAX, Options, RETENTION_MS, Report, START_MS, body, database};
use crate::prove::raw::{self, Needles};

/// Messages of one batch, about.
const BATCH_MESSAGES: u64 = 2_000;
/// How many of a hundred messages are said on the first day, by those who then say nothing more.
const FIRST_DAY_PERCENT: u64 = 10;
/// How many messages are silent, of one.
const SILENT_SHARE: f64 = 0.125;
/// Messages of a conversation in which hardly anything is said.
const HARDLY_MESSAGES: u64 = 3;
/// Devices that look into their inbox in a round beside their habit, and take nothing.
const PEEKS_PER_ROUND: usize = 1;
/// How often the files are read by a plain RocksDB.
const LOOKS: u64 = 4;
/// Bodies that are looked for in the files after their time.
const SAMPLES: u64 = 64;
/// A needle: long enough to stand nowhere by chance.
const NEEDLE_BYTES: usize = 32;
/// Bytes of a commit.
const COMMIT_BYTES: usize = 700;

pub(super) struct Run {
    options: Options,
    directory: PathBuf,
    random: StdRng,
    people: People,
    model: Model,
    machine: Machine,
    watch: Watch,
    /// By device: its own counter of sends.
    counters: Vec<u64>,
    /// By device: when it reads next.
    next_read_ms: Vec<u64>,
    /// By conversation: the last number, how many silent messages, and the epoch.
    numbers: Vec<u32>,
    silents: Vec<u32>,
    epochs: Vec<u64>,
    /// Conversations in which something is said all along.
    steady: Vec<usize>,
    /// Numbers that the batch in hand must get.
    awaited: Vec<u64>,
    /// Messages still to be said: all along, and on the first day.
    left_steady: u64,
    left_first_day: u64,
    samples: Needles,
    sampled_every: u64,
}

impl Run {
    pub(super) fn new(options: &Options, directory: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(options.seed);
        let people = People::new(options.accounts, &mut random);
        let machine = Machine::open(directory);
        machine.store.write(&people.records(START_MS), Durability::Synced).expect("the disk takes it");
        let next_read_ms = people.devices.iter().map(|device| START_MS + device.reads.pause_ms(&mut random)).collect();
        let with = |kind: Talks| {
            let talks = people.talks.iter().enumerate().filter(move |(_, talk)| talk.talks == kind);
            talks.map(|(index, _)| index).collect::<Vec<_>>()
        };
        let hardly = with(Talks::Hardly);
        let first_day = options.messages * FIRST_DAY_PERCENT / 100;
        let hardly_messages = (HARDLY_MESSAGES * hardly.len() as u64).min(options.messages / 10);
        let mut run = Self {
            options: options.clone(),
            directory: directory.to_owned(),
            model: Model::new(&people, options.body_bytes),
            watch: Watch::start(directory, &machine),
            counters: vec![0; people.devices.len()],
            next_read_ms,
            numbers: vec![0; people.talks.len()],
            silents: vec![0; people.talks.len()],
            epochs: vec![EPOCH_FIRST; people.talks.len()],
            steady: with(Talks::Steadily),
            awaited: Vec::new(),
            left_steady: options.messages - first_day - hardly_messages,
            left_first_day: first_day,
            samples: Needles::default(),
            sampled_every: (options.messages / SAMPLES).max(1),
            random,
            people,
            machine,
        };
        for at in 0..hardly_messages {
            run.say(hardly[usize::try_from(at).expect("few") % hardly.len()], 1);
        }
        run.write();
        run
    }

    /// All days, and then as many without a word until nothing may be left.
    pub(super) fn finish(mut self) -> Report {
        let round_ms = self.machine.periods.round_ms;
        let rounds = self.options.days * DAY_MS / round_ms;
        let batches = (self.options.messages / rounds).div_ceil(BATCH_MESSAGES).max(1);
        let once: Vec<_> =
            (0..self.people.talks.len()).filter(|talk| self.people.talks[*talk].talks == Talks::Once).collect();
        let look_every = rounds / LOOKS;
        for round in 0..rounds {
            for batch in 0..batches {
                self.machine.time.advance(round_ms / batches);
                let batches_left = (rounds - round) * batches - batch;
                self.talk(batches_left, round_ms / batches, &once);
                self.write();
            }
            self.read_due();
            self.peek();
            self.write();
            self.maintain(round);
            if (round + 1) % look_every == 0 {
                self.look();
            }
        }
        assert_eq!((self.left_steady, self.left_first_day), (0, 0), "everything was said");
        self.read_everything();
        self.rest(rounds, round_ms);
        self.watch.report(&self.options, &self.people, &self.machine, &self.samples)
    }

    /// What is said until the next batch.
    fn talk(&mut self, batches_left: u64, batch_ms: u64, once: &[usize]) {
        let first_day_left = (START_MS + DAY_MS).saturating_sub(self.machine.now_ms()) / batch_ms;
        let mut quota = self.left_first_day / (first_day_left + 1);
        self.left_first_day -= quota;
        while quota > 0 {
            let talk = once[self.random.random_range(0..once.len())];
            quota -= self.say(talk, quota);
        }
        let mut quota = self.left_steady / batches_left;
        self.left_steady -= quota;
        while quota > 0 {
            // A few conversations hold most of what is said, as everywhere.
            let skewed = (0..3).map(|_| self.random.random_range(0..self.steady.len())).min();
            let talk = self.steady[skewed.unwrap_or_default()];
            quota -= self.say(talk, quota);
        }
        if self.random.random_range(0..20) == 0 {
            let talk = self.steady[self.random.random_range(0..self.steady.len())];
            self.commit(talk);
        }
    }

    /// A device says one or more things in a row, at most so many. Returns how many.
    fn say(&mut self, talk: usize, messages_max: u64) -> u64 {
        let sender = self.people.sender(talk, &mut self.random);
        let messages = match self.random.random_range(0..100) {
            0..70 => self.random.random_range(1..=3),
            70..95 => self.random.random_range(4..=16),
            _ => 64,
        };
        let messages = messages.min(messages_max);
        let now_ms = self.machine.now_ms();
        for _ in 0..messages {
            self.counters[sender] += 1;
            let silent = self.random.random_bool(SILENT_SHARE);
            let (said, named) = if silent {
                let before = self.silents[talk];
                self.silents[talk] += 1;
                (Said::Silent { before }, SILENT | before)
            } else {
                self.numbers[talk] += 1;
                let number = self.numbers[talk];
                (Said::Message { number }, number)
            };
            let send = Send {
                counter: self.counters[sender],
                conversation: self.people.talks[talk].id,
                epoch: self.epochs[talk],
                ciphertext: body(talk, named, self.options.body_bytes),
                silent,
            };
            self.machine.add(Op::Send { from: self.people.devices[sender].authority, send });
            self.awaited.push(if silent { 0 } else { u64::from(named) });
            for account in self.people.readers(talk, sender) {
                self.model.append(account, talk, said, now_ms);
                self.watch.entries += 1;
            }
        }
        self.watch.messages += messages;
        messages
    }

    /// A device ends an epoch.
    fn commit(&mut self, talk: usize) {
        self.write();
        let sender = self.people.sender(talk, &mut self.random);
        let device = &self.people.devices[sender];
        self.counters[sender] += 1;
        let epoch = self.epochs[talk];
        let commit = CommitPlan {
            from: device.authority,
            counter: self.counters[sender],
            conversation: self.people.talks[talk].id,
            epoch,
            commit: Bytes::from_static(&[7; COMMIT_BYTES]),
            members: self.people.members(talk),
            welcomed: Vec::new(),
            welcome: Bytes::new(),
            group_info: Bytes::from_static(&[7; COMMIT_BYTES]),
            tree: Bytes::from_static(&[7; COMMIT_BYTES]),
        };
        let changed = self.machine.change(Change::Commit(commit));
        assert_eq!(changed, Changed::Committed { epoch: epoch + 1 });
        self.epochs[talk] += 1;
        let said = Said::Commit { epoch: u32::try_from(epoch).expect("few epochs") };
        for account in self.people.readers(talk, sender) {
            self.model.append(account, talk, said, self.machine.now_ms());
            self.watch.entries += 1;
        }
        self.watch.commits += 1;
    }

    /// Makes what was said durable, and holds the answers against what was expected.
    fn write(&mut self) {
        let (sent, bytes) = self.machine.commit();
        assert_eq!(sent.len(), self.awaited.len(), "every send is answered");
        let before = self.watch.sampled;
        for (sent, number) in sent.iter().zip(self.awaited.drain(..)) {
            let accepted = sent.result.as_ref().expect("a send is accepted");
            assert!(!accepted.repeated, "a send is new");
            assert_eq!(accepted.number, number, "the number in the conversation");
            self.watch.sampled += 1;
            if self.watch.sampled.is_multiple_of(self.sampled_every) {
                let id = accepted.message_id.expect("a new message has an id");
                let sealed = self.machine.sealed(id);
                self.samples.add(&sealed[sealed.len() - NEEDLE_BYTES..]);
            }
        }
        if self.watch.sampled > before {
            self.watch.body_bytes += bytes;
            self.model.wrote_bodies(self.machine.now_ms(), bytes);
        }
    }

    /// Devices whose time has come read, and take what they read.
    fn read_due(&mut self) {
        let now_ms = self.machine.now_ms();
        for device in 0..self.people.devices.len() {
            if self.next_read_ms[device] <= now_ms {
                self.next_read_ms[device] = now_ms + self.people.devices[device].reads.pause_ms(&mut self.random);
                self.take(device);
            }
        }
    }

    fn take(&mut self, device: usize) {
        let (position, _) = self.read(device);
        if position != self.model.cursor(device) {
            self.machine.add(Op::Ack { from: self.people.devices[device].authority, position });
            self.model.set_cursor(device, position);
        }
    }

    /// Devices look at a time that is not theirs.
    fn peek(&mut self) {
        for _ in 0..PEEKS_PER_ROUND {
            let device = self.random.random_range(0..self.people.devices.len());
            self.read(device);
        }
    }

    fn read(&mut self, device: usize) -> (Position, Found) {
        let items: Vec<Item> = self.machine.read(&self.people.devices[device], self.model.cursor(device));
        let (position, found) = self.model.check(&self.people, device, &items, self.machine.now_ms());
        self.watch.reads += 1;
        self.watch.add(found);
        (position, found)
    }

    fn read_everything(&mut self) {
        for device in 0..self.people.devices.len() {
            self.read(device);
        }
    }

    /// A round of maintenance; once in an hour the books are looked at.
    fn maintain(&mut self, round: u64) {
        self.machine.round();
        let (now_ms, round_ms) = (self.machine.now_ms(), self.machine.periods.round_ms);
        if (now_ms - START_MS) / HOUR_MS == (now_ms - round_ms - START_MS) / HOUR_MS {
            return;
        }
        let living = self.model.living_body_bytes(now_ms)
            + self.model.living_pointers(&self.people, now_ms) * super::report::POINTER_BYTES;
        self.watch.hour(&self.machine, living, now_ms - START_MS);
        if self.options.tells && (now_ms - START_MS) % DAY_MS < round_ms {
            self.watch.tell(round, (now_ms - START_MS) / DAY_MS);
        }
    }

    /// Looks into the files behind the server's back.
    fn look(&mut self) {
        let now_ms = self.machine.now_ms();
        let found = raw::physical(&database(&self.directory), RETENTION_MS, now_ms);
        let bound_ms = RETENTION_MS + LATE_MS_MAX;
        let hours = (now_ms - START_MS) / HOUR_MS;
        if self.options.tells {
            eprintln!("hour {hours}: {found:?}");
        }
        assert!(found.oldest_message_age_ms <= bound_ms, "a body is in a file for too long: {found:?}");
        assert!(found.oldest_pointer_age_ms <= bound_ms, "an inbox entry is in a file for too long: {found:?}");
        self.watch.physical.push((hours, found));
    }

    /// Nobody says anything any more: after the retention and the bound nothing of all that is anywhere.
    fn rest(&mut self, rounds: u64, round_ms: u64) {
        let started = Instant::now();
        for round in 0..(RETENTION_MS + LATE_MS_MAX).div_ceil(round_ms) {
            self.machine.time.advance(round_ms);
            self.maintain(rounds + round);
        }
        self.read_everything();
        self.look();
        let left = self.watch.physical.last().expect("just looked").1;
        assert_eq!((left.messages, left.pointers), (0, 0), "nothing is left");
        assert_eq!(self.machine.store.oldest_physical_ms().expect("the files can be listed"), None);
        assert_eq!(self.samples.count_in(&self.directory), 0, "samples of sealed bodies are in no file");
        let oldest_ms = self.machine.keyring.oldest_key_ms().expect("the next key is there");
        let destroyed_ms = oldest_ms + period_ms(RETENTION_MS) + RETENTION_MS + round_ms;
        assert!(destroyed_ms > self.machine.now_ms(), "keys are destroyed in the round after their last message");
        self.watch.rested_seconds = started.elapsed().as_secs_f64();
    }
}
