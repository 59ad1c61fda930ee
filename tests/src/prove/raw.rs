//! What lies on the disk, read by a plain RocksDB that knows nothing of expiry.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use gureum_server::store::record::InboxEntry;
use gureum_server::store::{Family, key};
use rocksdb::{DB, IteratorMode, Options};
use serde::Serialize;

/// How often a directory is opened anew whose files go away meanwhile.
const OPENS_MAX: usize = 20;
/// As much of a file as is looked at together.
const CHUNK_BYTES: usize = 1 << 20;

/// The messages and pointers that are physically there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Physical {
    /// Sealed bodies.
    pub messages: u64,
    /// Inbox entries.
    pub pointers: u64,
    /// Bodies that have expired.
    pub messages_expired: u64,
    /// Inbox entries that have expired.
    pub pointers_expired: u64,
    /// The age of the oldest body, in milliseconds.
    pub oldest_message_age_ms: u64,
    /// The age of the oldest inbox entry, in milliseconds.
    pub oldest_pointer_age_ms: u64,
}

/// Opens a database to read, its log included, whoever else has it open. It changes nothing.
///
/// # Panics
/// When there is none, or it is damaged.
#[must_use]
pub fn open(database: &Path) -> DB {
    let mut options = Options::default();
    // Without, RocksDB 11 ends the process when it only reads a database that notes its logs.
    options.set_track_and_verify_wals_in_manifest(true);
    let mut failed = String::new();
    for _ in 0..OPENS_MAX {
        let opened = DB::list_cf(&Options::default(), database)
            .and_then(|families| DB::open_cf_for_read_only(&options, database, families, false));
        match opened {
            Ok(opened) => return opened,
            // The owner has removed a file between two steps.
            Err(error) => failed = error.into_string(),
        }
    }
    panic!("{} cannot be read: {failed}", database.display());
}

/// Calls `see` with each key and value of a family.
///
/// # Panics
/// When the database is damaged.
pub fn each(database: &DB, family: Family, mut see: impl FnMut(&[u8], &[u8])) {
    let handle = database.cf_handle(family.name()).expect("every family is there");
    for entry in database.iterator_cf(handle, IteratorMode::Start) {
        let (key, value) = entry.expect("the table can be read");
        see(&key, &value);
    }
}

/// Counts what a database holds, and how old it is.
///
/// # Panics
/// When the database is damaged.
#[must_use]
pub fn physical(database: &Path, retention_ms: u64, now_ms: u64) -> Physical {
    let database = open(database);
    let mut found = Physical::default();
    each(&database, Family::Message, |key, _| {
        let age_ms = now_ms.saturating_sub(key::message_time_ms(key).expect("a message's key"));
        found.messages += 1;
        found.messages_expired += u64::from(age_ms >= retention_ms);
        found.oldest_message_age_ms = found.oldest_message_age_ms.max(age_ms);
    });
    each(&database, Family::Inbox, |_, value| {
        let age_ms = now_ms.saturating_sub(InboxEntry::peek_time_ms(value).expect("an inbox entry"));
        found.pointers += 1;
        found.pointers_expired += u64::from(age_ms >= retention_ms);
        found.oldest_pointer_age_ms = found.oldest_pointer_age_ms.max(age_ms);
    });
    found
}

/// The bytes of all files below a directory. A file that goes away meanwhile counts as gone.
#[must_use]
pub fn size_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().map_while(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Looks for byte strings in whole directories.
#[derive(Debug, Default)]
pub struct Needles {
    /// By their first bytes.
    needles: HashMap<[u8; PREFIX_BYTES], Vec<Vec<u8>>>,
    length_max: usize,
}

const PREFIX_BYTES: usize = 8;

impl Needles {
    /// Adds one.
    ///
    /// # Panics
    /// When it is too short to be found by its content alone.
    pub fn add(&mut self, needle: &[u8]) {
        let prefix = *needle.first_chunk().expect("a needle that stands nowhere by chance");
        self.needles.entry(prefix).or_default().push(needle.to_vec());
        self.length_max = self.length_max.max(needle.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.needles.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// How often any of them stands in the files below a directory.
    ///
    /// # Panics
    /// When the directory cannot be listed.
    #[must_use]
    pub fn count_in(&self, directory: &Path) -> usize {
        let mut left: Vec<PathBuf> = vec![directory.to_owned()];
        let mut found = 0;
        while let Some(path) = left.pop() {
            if path.is_dir() {
                left.extend(fs::read_dir(&path).expect("a directory").map_while(Result::ok).map(|entry| entry.path()));
            } else if let Ok(file) = fs::File::open(&path) {
                found += self.count_in_file(file);
            }
        }
        found
    }

    fn count_in_file(&self, mut file: impl Read) -> usize {
        let mut is_first = vec![false; 1 << 16];
        for prefix in self.needles.keys() {
            is_first[usize::from(u16::from_be_bytes([prefix[0], prefix[1]]))] = true;
        }
        let (mut window, mut found) = (Vec::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = file.read(&mut chunk) {
            window.extend_from_slice(&chunk[..read]);
            // What could go on in the next chunk is looked at with it.
            let whole = window.len().saturating_sub(self.length_max);
            found += (0..whole).filter(|at| self.stands_at(&window[*at..], &is_first)).count();
            window.drain(..whole);
        }
        found + (0..window.len()).filter(|at| self.stands_at(&window[*at..], &is_first)).count()
    }

    fn stands_at(&self, bytes: &[u8], is_first: &[bool]) -> bool {
        let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else { return false };
        is_first[usize::from(u16::from_be_bytes([prefix[0], prefix[1]]))]
            && self.needles.get(prefix).is_some_and(|needles| needles.iter().any(|needle| bytes.starts_with(needle)))
    }
}
