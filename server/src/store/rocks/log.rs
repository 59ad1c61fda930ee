//! RocksDB's write-ahead log as bytes: whether it merely ends early, as after a power cut, or is damaged before
//! records that were certainly on the disk. RocksDB stops at either and forgets what follows; we start after the first
//! alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// The log is written in blocks, of which each begins with a record.
const BLOCK_BYTES: usize = 32 * 1024;

/// Before each piece of a record: checksum, length, type.
const HEADER_BYTES: usize = 7;

/// A record that is whole in one block, and the pieces of one that is not.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// What a log is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogState {
    /// Every record reads, up to the end.
    Whole,
    /// It ends in the middle of a record: what was being written at a crash.
    Torn {
        /// Where that record begins.
        offset: u64,
    },
    /// Whole records follow what does not read.
    Damaged {
        /// Where it stops reading.
        offset: u64,
        /// The lowest sequence number among what follows.
        follows: u64,
    },
}

/// Refuses a database whose log lost something in its middle, or is missing. Up to `synced` everything was on the disk;
/// after it a power cut may have let later pages reach the disk before earlier ones, and nobody was told of those.
pub(crate) fn refuse_damage(database: &Path, must_exist: bool, synced: Option<u64>) -> Result<(), StoreError> {
    let logs = logs(database).map_err(|error| StoreError::Io(error.to_string()))?;
    if must_exist && logs.is_empty() && database.join("CURRENT").exists() {
        return Err(StoreError::Damaged(
            "the write-ahead log (db/*.log) is missing: put it back, or restore a backup with `gureumd restore`"
                .to_owned(),
        ));
    }
    let was_synced = |sequence: u64| synced.is_none_or(|synced| sequence <= synced);
    let mut torn: Option<(&Path, u64)> = None;
    for path in &logs {
        let scanned = File::open(path).and_then(scan).map_err(|error| StoreError::Io(error.to_string()))?;
        if let Some((before, offset)) = torn.filter(|_| scanned.first.is_some_and(was_synced)) {
            return Err(damaged(before, offset));
        }
        match scanned.state {
            LogState::Damaged { offset, follows } if was_synced(follows) => return Err(damaged(path, offset)),
            LogState::Damaged { offset, .. } | LogState::Torn { offset } => torn = Some((path, offset)),
            LogState::Whole => {}
        }
    }
    Ok(())
}

fn damaged(path: &Path, offset: u64) -> StoreError {
    StoreError::Damaged(format!(
        "the write-ahead log {path} is damaged at byte {offset}, and records that were written later follow. Restore a \
         backup; or, to go on without what follows (acknowledged messages may be among it), cut the log with `truncate \
         -s {offset} {path}`, then make a backup of the directory and restore that, so that no position is used twice",
        path = path.display()
    ))
}

/// The logs of a database, oldest first.
fn logs(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    match fs::read_dir(database) {
        Ok(entries) => {
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|ending| ending == "log") {
                    logs.push(path);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Their names are numbers with leading zeros.
    logs.sort();
    Ok(logs)
}

/// What reading a log has shown.
struct Scanned {
    state: LogState,
    /// The sequence number of its first record, if that is whole.
    first: Option<u64>,
}

/// Reads a log.
fn scan(mut log: impl Read) -> io::Result<Scanned> {
    let mut scanner = Scanner::default();
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0_u64;
    loop {
        let mut filled = 0;
        while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
            match log.read(room)? {
                0 => break,
                read => filled += read,
            }
        }
        let Some(bytes) = block.get(..filled).filter(|bytes| !bytes.is_empty()) else { break };
        scanner.block(offset, bytes);
        offset += u64::try_from(filled).unwrap_or(u64::MAX);
    }
    Ok(Scanned { state: scanner.end(), first: scanner.first })
}

/// A record as far as its pieces have come.
#[derive(Clone, Copy)]
struct Pieces {
    began: u64,
    /// Its first bytes: the sequence number. A block may end within them.
    head: [u8; 8],
    head_len: usize,
}

impl Pieces {
    const fn begin(place: u64) -> Self {
        Self { began: place, head: [0; 8], head_len: 0 }
    }

    fn add(&mut self, content: &[u8]) {
        for (to, from) in self.head.iter_mut().skip(self.head_len).zip(content) {
            *to = *from;
            self.head_len += 1;
        }
    }

    /// The sequence number; `None` of what is too short to be a batch.
    fn sequence(&self) -> Option<u64> {
        (self.head_len == self.head.len()).then(|| u64::from_le_bytes(self.head))
    }
}

#[derive(Default)]
struct Scanner {
    /// Where reading stopped.
    stopped: Option<u64>,
    /// The record whose last piece has not come yet.
    open: Option<Pieces>,
    /// The lowest sequence number of whole records after that.
    follows: Option<u64>,
    first: Option<u64>,
}

impl Scanner {
    fn block(&mut self, offset: u64, block: &[u8]) {
        let mut at = 0;
        let mut stopped_here = false;
        while let Some(rest) = block.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
            let place = offset + u64::try_from(at).unwrap_or(u64::MAX);
            match piece(rest) {
                Some((kind, content)) => {
                    self.piece(kind, place, content);
                    at += HEADER_BYTES + content.len();
                }
                None if self.stopped.is_none() => {
                    self.stopped = Some(self.open.take().map_or(place, |record| record.began));
                    stopped_here = true;
                    at += 1;
                }
                // In the block where it stopped the length of the piece may be what is wrong: any byte may begin
                // the next one. Further blocks begin with one.
                None if stopped_here => at += 1,
                None => break,
            }
        }
    }

    fn piece(&mut self, kind: u8, place: u64, content: &[u8]) {
        let goes_on = matches!(kind, MIDDLE | LAST);
        let open = self.open.take();
        if goes_on != open.is_some() {
            // A piece without its beginning, or a beginning before an end: the rest of what was lost, or the sign that
            // something was.
            self.stopped.get_or_insert(open.map_or(place, |record| record.began));
        }
        let record = if goes_on { open } else { Some(Pieces::begin(place)) };
        let Some(mut record) = record else { return };
        record.add(content);
        if matches!(kind, FIRST | MIDDLE) {
            self.open = Some(record);
            return;
        }
        let Some(sequence) = record.sequence() else { return };
        if self.stopped.is_some() {
            self.follows = Some(self.follows.map_or(sequence, |lowest| lowest.min(sequence)));
        } else {
            self.first.get_or_insert(sequence);
        }
    }

    fn end(&self) -> LogState {
        match (self.stopped.or(self.open.map(|record| record.began)), self.follows) {
            (Some(offset), Some(follows)) => LogState::Damaged { offset, follows },
            (Some(offset), None) => LogState::Torn { offset },
            (None, _) => LogState::Whole,
        }
    }
}

/// The type of the piece that begins here and its content, if its checksum holds.
fn piece(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    let content = rest.get(..len).filter(|_| (FULL..=LAST).contains(&kind))?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), content);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == u32::from_le_bytes([c0, c1, c2, c3])).then_some((kind, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(log: &mut Vec<u8>, kind: u8, content: &[u8]) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), content);
        log.extend_from_slice(&crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
        log.extend_from_slice(&u16::try_from(content.len()).expect("short").to_le_bytes());
        log.push(kind);
        log.extend_from_slice(content);
    }

    /// Three records, of which the second spans two blocks.
    fn log() -> Vec<u8> {
        let mut log = Vec::new();
        put(&mut log, FULL, &[1; 100]);
        put(&mut log, FIRST, &vec![2; BLOCK_BYTES - 107 - HEADER_BYTES]);
        put(&mut log, LAST, &[2; 50]);
        put(&mut log, FULL, &[3; 100]);
        log
    }

    fn state(log: &[u8]) -> LogState {
        scan(log).expect("readable").state
    }

    #[test]
    fn a_whole_log_is_whole_and_an_empty_one_too() {
        assert_eq!(state(&log()), LogState::Whole);
        assert_eq!(state(&[]), LogState::Whole);
    }

    #[test]
    fn a_log_that_is_cut_anywhere_is_torn_and_not_damaged() {
        let whole = log();
        for len in (1..whole.len()).step_by(37) {
            assert!(!matches!(state(&whole[..len]), LogState::Damaged { .. }), "cut at {len}");
        }
        assert_eq!(state(&whole[..50]), LogState::Torn { offset: 0 });
        let mut zeros = whole[..50].to_vec();
        zeros.resize(4_096, 0);
        assert_eq!(state(&zeros), LogState::Torn { offset: 0 });
    }

    #[test]
    fn a_flipped_bit_before_the_last_record_is_damage_and_in_it_a_torn_end() {
        let whole = log();
        let last = whole.len() - 107;
        for at in (0..whole.len()).step_by(13) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            let expected_damage = at < last;
            assert_eq!(matches!(state(&flipped), LogState::Damaged { .. }), expected_damage, "bit at {at}");
        }
    }

    #[test]
    fn the_place_where_the_log_must_be_cut_is_where_the_first_lost_record_begins() {
        let mut flipped = log();
        flipped[BLOCK_BYTES + 20] ^= 1;
        assert_eq!(state(&flipped), LogState::Damaged { offset: 107, follows: 0x0303_0303_0303_0303 });
    }

    #[test]
    fn damage_is_refused_where_what_follows_was_certainly_on_the_disk_and_else_a_power_cut() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = Vec::new();
        for sequence in [10_u64, 20, 30] {
            put(&mut log, FULL, &[sequence.to_le_bytes().as_slice(), &[7; 50]].concat());
        }
        log[80] ^= 1;
        std::fs::write(directory.path().join("000004.log"), log).expect("writable");
        let refused = |synced| refuse_damage(directory.path(), false, synced).is_err();
        assert!(refused(None), "nothing is known");
        assert!(refused(Some(30)), "the last record had been synced");
        assert!(!refused(Some(29)), "nobody was told of the last record");
    }

    #[test]
    fn the_number_of_a_record_whose_first_piece_is_short_is_gathered_over_its_pieces() {
        let whole = [30_u64.to_le_bytes().as_slice(), &[7; 50]].concat();
        for first in 0..=whole.len() {
            let mut log = Vec::new();
            put(&mut log, FULL, &[10_u64.to_le_bytes().as_slice(), &[7; 50]].concat());
            // What a power cut tears: never synced, and long enough to leave room for the first piece alone.
            let torn = BLOCK_BYTES - log.len() - 2 * HEADER_BYTES - first;
            put(&mut log, FULL, &[20_u64.to_le_bytes().as_slice(), &vec![7; torn - 8]].concat());
            log[100] ^= 1;
            let (one, rest) = whole.split_at(first);
            put(&mut log, FIRST, one);
            assert_eq!(log.len(), BLOCK_BYTES);
            let (two, three) = rest.split_at(rest.len().min(3));
            put(&mut log, MIDDLE, two);
            put(&mut log, LAST, three);
            assert_eq!(state(&log), LogState::Damaged { offset: 65, follows: 30 }, "{first} bytes in the first piece");
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::write(directory.path().join("000004.log"), log).expect("writable");
            assert!(refuse_damage(directory.path(), false, Some(30)).is_err());
            assert!(refuse_damage(directory.path(), false, Some(19)).is_ok(), "{first} bytes in the first piece");
        }
    }
}
