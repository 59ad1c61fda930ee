//! How many bytes the store writes for each byte that it is handed, once as much expires as comes in: simulated days of
//! messages through the server's planner, keyring and store on a real disk.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use gureum_server::store::expiry::ReclaimPeriods;
use gureum_server::store::{Durability, Footprint};
use gureum_server::time::{ManualClock, WallClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::machine::{Machine, Written};
use super::people::People;
use crate::limits::report::median;
use crate::limits::used::CpuClock;
use crate::proven::{COMMIT_RETENTION_MS, RETENTION_MS};

/// The most that the store may write for a byte that it is handed.
pub const AMPLIFICATION_MAX: f64 = 6.0;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// By then the first messages are gone from the disk, too.
const WARM_UP_MS: u64 = RETENTION_MS + 6 * HOUR_MS;
const START_MS: u64 = 1_800_000_000_000;
const SEED: u64 = 1;

/// How much, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Messages of a simulated day, which come evenly.
    pub messages_a_day: u64,
    /// Simulated days that are measured, after those in which the store fills.
    pub days: u64,
    /// Conversations of two, in which one sends and the other receives.
    pub talks: usize,
    /// Of a hundred receivers, those that never come.
    pub absent_percent: usize,
    /// Bytes of a message's ciphertext.
    pub sealed_bytes: usize,
    /// Messages of one batch, with an fsync.
    pub batch_messages: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Amplification {
    /// What the store was handed in the days that were measured.
    pub written: Written,
    /// Simulated days that were measured.
    pub days: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of new tables.
    pub flush_bytes: u64,
    /// Bytes of tables that were rewritten.
    pub compaction_bytes: u64,
    /// Records that have expired or were taken, and left the disk.
    pub entries_gone: u64,
    /// All bytes written by those handed over: keys and values of every change of every batch.
    pub by_handed: f64,
    /// The same without the log.
    pub tables_by_handed: f64,
    /// The bytes of tables by those of the log.
    pub tables_by_log: f64,
    /// Bytes of the database's files for each message that has not expired; the median of the hours.
    pub disk_bytes_a_message: f64,
    /// Bytes of the database's files by those that can still be read, as the store estimates them: median of the hours.
    pub space: f64,
    /// The same at its highest.
    pub space_max: f64,
    /// Processor time of planning, sealing, writing, flushing and compacting, for a message, in microseconds.
    pub cpu_us: f64,
    /// How long all of it took, in seconds.
    pub took_s: f64,
}

/// Runs the days in a directory of its own.
///
/// # Errors
/// What the disk says, or there is nothing to measure.
pub fn run(directory: &Path, options: &Options, tell: impl Fn(u64)) -> Result<Amplification> {
    ensure!(options.messages_a_day > 0 && options.days > 0 && options.talks > 0, "there is nothing to write");
    let (started, process) = (Instant::now(), CpuClock::of_this_process());
    let mut run = Days::begin(directory, options)?;
    let round_ms = ReclaimPeriods::new(RETENTION_MS, COMMIT_RETENTION_MS).round_ms;
    let (rounds_a_day, rounds_an_hour) = (DAY_MS / round_ms, HOUR_MS / round_ms);
    let warm_up = WARM_UP_MS.div_ceil(round_ms);
    let (mut before, mut cpu_before) = (run.mark()?, process.now()?);
    let (mut spaces, mut weights) = (Vec::new(), Vec::new());
    for round in 0..warm_up + options.days * rounds_a_day {
        if round == warm_up {
            (before, cpu_before) = (run.mark()?, process.now()?);
        }
        run.round(share(options.messages_a_day, rounds_a_day, round), round_ms)?;
        if round >= warm_up && round.is_multiple_of(rounds_an_hour) {
            let footprint = run.machine.footprint()?;
            spaces.push(footprint.disk_bytes as f64 / footprint.live_bytes.max(1) as f64);
            weights.push(footprint.disk_bytes as f64 / run.kept.messages.max(1) as f64);
        }
        if (round + 1).is_multiple_of(rounds_a_day) {
            tell((round + 1) / rounds_a_day);
        }
    }
    let cpu = process.now()?.saturating_sub(cpu_before);
    let after = run.mark()?;
    let mut report = Amplification::between(&before, &after);
    report.days = options.days;
    report.disk_bytes_a_message = median(weights.into_iter()).unwrap_or_default();
    report.space_max = spaces.iter().copied().fold(0.0, f64::max);
    report.space = median(spaces.into_iter()).unwrap_or_default();
    report.cpu_us = cpu.as_secs_f64() * 1e6 / report.written.messages.max(1) as f64;
    report.took_s = started.elapsed().as_secs_f64();
    Ok(report)
}

impl Amplification {
    fn between((before, handed_before): &Mark, (after, handed): &Mark) -> Self {
        let written = handed.since(handed_before);
        let log_bytes = after.log_bytes.saturating_sub(before.log_bytes);
        let flush_bytes = after.flush_bytes.saturating_sub(before.flush_bytes);
        let compaction_bytes = after.compaction_bytes.saturating_sub(before.compaction_bytes);
        let gone = |footprint: &Footprint| footprint.entries_filtered.saturating_add(footprint.entries_dropped);
        let tables = (flush_bytes + compaction_bytes) as f64;
        let handed = written.bytes.max(1) as f64;
        Self {
            written,
            days: 0,
            log_bytes,
            flush_bytes,
            compaction_bytes,
            entries_gone: gone(after).saturating_sub(gone(before)),
            by_handed: (log_bytes as f64 + tables) / handed,
            tables_by_handed: tables / handed,
            tables_by_log: tables / log_bytes.max(1) as f64,
            disk_bytes_a_message: 0.0,
            space: 0.0,
            space_max: 0.0,
            cpu_us: 0.0,
            took_s: 0.0,
        }
    }

    /// Whether the store writes no more than it may.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.by_handed <= AMPLIFICATION_MAX
    }
}

/// What the store had done, and what it was handed, at one moment.
type Mark = (Footprint, Written);

/// Messages whose time has not come.
#[derive(Debug, Default)]
struct Kept {
    batches: VecDeque<(u64, u64)>,
    messages: u64,
}

impl Kept {
    fn add(&mut self, messages: u64, now_ms: u64) {
        self.batches.push_back((now_ms, messages));
        self.messages += messages;
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some((at_ms, messages)) = self.batches.front().copied()
            && now_ms.saturating_sub(at_ms) >= RETENTION_MS
        {
            self.batches.pop_front();
            self.messages = self.messages.saturating_sub(messages);
        }
    }
}

struct Days {
    time: Arc<ManualClock>,
    machine: Machine,
    people: People,
    random: StdRng,
    body: Bytes,
    batch_messages: u64,
    /// Conversations whose receivers have something to ack.
    due: Vec<usize>,
    written: Written,
    kept: Kept,
}

impl Days {
    fn begin(directory: &Path, options: &Options) -> Result<Self> {
        let time = Arc::new(ManualClock::at(START_MS));
        let machine = Machine::open(directory, Arc::clone(&time) as Arc<dyn WallClock>)?;
        let people = People::new(SEED, options.talks, 1, |index| index % 100 >= options.absent_percent)?;
        people.enter(&machine)?;
        Ok(Self {
            time,
            machine,
            people,
            random: StdRng::seed_from_u64(SEED),
            body: Bytes::from(vec![0x5a; options.sealed_bytes]),
            batch_messages: options.batch_messages.max(1),
            due: Vec::new(),
            written: Written::default(),
            kept: Kept::default(),
        })
    }

    /// What is said until the next round of maintenance, and that.
    fn round(&mut self, messages: u64, round_ms: u64) -> Result<()> {
        let batches = messages.div_ceil(self.batch_messages).max(1);
        for batch in 0..batches {
            self.time.advance(share(round_ms, batches, batch));
            self.batch(share(messages, batches, batch))?;
        }
        self.machine.round()?;
        self.kept.expire(self.machine.now_ms());
        Ok(())
    }

    /// Who is there has taken what the batch before brought.
    fn batch(&mut self, messages: u64) -> Result<()> {
        for talk in std::mem::take(&mut self.due) {
            if let Some(ack) = self.people.ack(talk) {
                self.machine.add(ack)?;
            }
        }
        for _ in 0..messages {
            let talk = self.random.random_range(0..self.people.talks());
            self.machine.add(self.people.send(talk, &self.body)?)?;
            self.due.push(talk);
        }
        self.due.sort_unstable();
        self.due.dedup();
        self.written += self.machine.commit(Durability::Synced)?;
        self.kept.add(messages, self.machine.now_ms());
        Ok(())
    }

    fn mark(&self) -> Result<Mark> {
        Ok((self.machine.footprint()?, self.written))
    }
}

/// The part of one of so many, all of which add up to the total; it goes on beyond them.
const fn share(total: u64, of: u64, number: u64) -> u64 {
    total * (number + 1) / of - total * number / of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_held_against_what_was_handed_over() {
        let before = Footprint { log_bytes: 100, flush_bytes: 100, entries_filtered: 5, ..Footprint::default() };
        let after = Footprint {
            log_bytes: 1_300,
            flush_bytes: 1_100,
            compaction_bytes: 1_400,
            entries_filtered: 7,
            entries_dropped: 3,
            ..Footprint::default()
        };
        let handed = |bytes| Written { messages: 1, bytes, ..Written::default() };
        let report = Amplification::between(&(before, handed(500)), &(after, handed(1_500)));
        assert_eq!((report.log_bytes, report.flush_bytes, report.compaction_bytes), (1_200, 1_000, 1_400));
        assert_eq!((report.written.bytes, report.entries_gone), (1_000, 5));
        for (measured, expected) in
            [(report.by_handed, 3.6), (report.tables_by_handed, 2.4), (report.tables_by_log, 2.0)]
        {
            assert!((measured - expected).abs() < 1e-9, "{measured} {expected}");
        }
        assert!(report.is_within());
        assert!(!Amplification { by_handed: 6.01, ..report }.is_within());
    }

    #[test]
    fn shares_add_up() {
        assert_eq!((0..3).map(|number| share(10, 3, number)).collect::<Vec<_>>(), [3, 3, 4]);
        assert_eq!((0..288).map(|number| share(1_000_000, 288, number)).sum::<u64>(), 1_000_000);
        assert_eq!((288..576).map(|number| share(1_000_000, 288, number)).sum::<u64>(), 1_000_000);
    }

    #[test]
    fn messages_are_kept_until_their_retention() {
        let mut kept = Kept::default();
        kept.add(3, 0);
        kept.add(4, 1);
        kept.expire(RETENTION_MS - 1);
        assert_eq!(kept.messages, 7);
        kept.expire(RETENTION_MS);
        assert_eq!(kept.messages, 4);
        kept.expire(RETENTION_MS + 1);
        assert_eq!((kept.messages, kept.batches.len()), (0, 0));
    }

    #[test]
    fn a_day_in_which_as_much_goes_as_comes() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            messages_a_day: 2_000,
            days: 1,
            talks: 20,
            absent_percent: 10,
            sealed_bytes: 256,
            batch_messages: 100,
        };
        let report = run(directory.path(), &options, |_| ()).unwrap();
        assert_eq!((report.written.messages, report.days), (2_000, 1));
        assert!(report.written.body_bytes > 2_000 * 256, "{report:?}");
        assert!(report.written.state_bytes() > 0 && report.written.pointer_bytes > 0, "{report:?}");
        // The log has all that was handed over, and some bytes with each change.
        assert!(report.log_bytes > report.written.bytes, "{report:?}");
        assert!(report.by_handed > 1.5, "the log, and tables of most of it: {report:?}");
        // A body for each that has come, and more than nothing of the entries.
        assert!(report.entries_gone > 2_000, "{report:?}");
        assert!(report.disk_bytes_a_message > 256.0, "{report:?}");
    }

    #[test]
    fn nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let options =
            Options { messages_a_day: 0, days: 1, talks: 1, absent_percent: 0, sealed_bytes: 1, batch_messages: 1 };
        assert!(run(directory.path(), &options, |_| ()).is_err());
    }
}
