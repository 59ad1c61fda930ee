//! The store: families of ordered keys and values, atomic durable batches, and expiry by rule.

pub mod audit;
#[cfg(test)]
pub mod conformance;
pub mod disk;
pub mod expiry;
pub mod faulty;
pub mod key;
pub mod memory;
pub mod record;
#[cfg(feature = "node")]
pub mod rocks;

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use gureum_proto::{AccountId, DeviceId};

use crate::limits::SENT_RESULTS_KEPT;
pub use expiry::{Expiry, ExpiryRule, Retentions, TakenFloors};
use key::CursorTag;
pub use key::Key;
use record::SenderWindow;
pub use record::{Record, RecordError};

/// A family of records: what is called a column family in RocksDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Names → facts of this data directory.
    Meta,
    /// Message id → sealed header and body, once a message.
    Message,
    /// Message id → the shared envelope of a Welcome, once for all whom it welcomes; or of a statement to leave.
    Welcome,
    /// Account and seq → what stands there.
    Inbox,
    /// Conversation and epoch → the commit that ended it.
    Commit,
    /// Account → the last seq given, and the running counts.
    InboxHead,
    /// Account and device → how far it has taken its inbox, when it was seen, where its life stands.
    Cursor,
    /// Account and index → an entry of its device log.
    DeviceLog,
    /// Conversation → roster, last number, GroupInfo, tree.
    Conversation,
    /// Account, device, kind and hash → a KeyPackage.
    KeyPackage,
    /// Handles and phone numbers, which conversations an account has, and what it has decided about them and about others.
    Directory,
    /// Invite → its uses.
    Registration,
    /// Account and device → where its wake-ups go, and what it was last woken for.
    Push,
    /// Number → the code that was last sent to it; day → how many codes were sent.
    Code,
    /// Account, device and counter → the result of a send, for as long as it may be repeated.
    Sent,
}

/// How a family is read, which decides its table options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By whole key.
    Point,
    /// By range, within the keys that share this many first bytes (0: across all).
    Range {
        /// The length of the shared prefix.
        prefix_bytes: usize,
    },
}

/// What is particular to one family.
#[derive(Debug, Clone, Copy)]
pub struct FamilyOptions {
    /// How it is read.
    pub access: Access,
    /// When its records expire.
    pub expiry: ExpiryRule,
    /// The size of its memtable.
    pub memtable_bytes: usize,
}

impl Family {
    /// All families, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Message,
        Self::Welcome,
        Self::Inbox,
        Self::Commit,
        Self::InboxHead,
        Self::Cursor,
        Self::DeviceLog,
        Self::Conversation,
        Self::KeyPackage,
        Self::Directory,
        Self::Registration,
        Self::Push,
        Self::Code,
        Self::Sent,
    ];

    /// Whether a database of this format may lack it: one that a program wrote which did not know it yet. Opening such a
    /// database for writing makes it.
    #[must_use]
    pub const fn may_lack(self) -> bool {
        matches!(self, Self::Push | Self::Code | Self::Sent)
    }

    /// The name that stands in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Message => "message",
            Self::Welcome => "welcome",
            Self::Inbox => "inbox",
            Self::Commit => "commit",
            Self::InboxHead => "inbox_head",
            Self::Cursor => "cursor",
            Self::DeviceLog => "device_log",
            Self::Conversation => "conversation",
            Self::KeyPackage => "key_package",
            Self::Directory => "directory",
            Self::Registration => "registration",
            Self::Push => "push",
            Self::Code => "code",
            Self::Sent => "sent",
        }
    }

    /// The family's options, as a table.
    #[must_use]
    pub const fn options(self) -> FamilyOptions {
        use crate::limits::{
            HOT_STATE_MEMTABLE_BYTES, INBOX_MEMTABLE_BYTES, MESSAGE_MEMTABLE_BYTES, STATE_MEMTABLE_BYTES,
        };
        use Access::{Point, Range};
        let (access, expiry, memtable_bytes) = match self {
            Self::Message => (Range { prefix_bytes: 0 }, ExpiryRule::MessageAge, MESSAGE_MEMTABLE_BYTES),
            Self::Welcome => (Point, ExpiryRule::WelcomeAge, STATE_MEMTABLE_BYTES),
            Self::Inbox => (Range { prefix_bytes: 16 }, ExpiryRule::InboxAgeOrTaken, INBOX_MEMTABLE_BYTES),
            Self::Commit => (Range { prefix_bytes: 16 }, ExpiryRule::CommitAge, STATE_MEMTABLE_BYTES),
            Self::DeviceLog | Self::KeyPackage | Self::Push => {
                (Range { prefix_bytes: 16 }, ExpiryRule::Never, STATE_MEMTABLE_BYTES)
            }
            Self::Directory => (Range { prefix_bytes: 0 }, ExpiryRule::Never, STATE_MEMTABLE_BYTES),
            Self::Registration => (Point, ExpiryRule::InviteEnd, STATE_MEMTABLE_BYTES),
            Self::Code => (Point, ExpiryRule::CodeEnd, STATE_MEMTABLE_BYTES),
            Self::InboxHead | Self::Cursor | Self::Conversation => (Point, ExpiryRule::Never, HOT_STATE_MEMTABLE_BYTES),
            Self::Sent => (Range { prefix_bytes: 32 }, ExpiryRule::Never, HOT_STATE_MEMTABLE_BYTES),
            Self::Meta => (Point, ExpiryRule::Never, STATE_MEMTABLE_BYTES),
        };
        FamilyOptions { access, expiry, memtable_bytes }
    }
}

/// How durable a write is when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk.
    Synced,
    /// With the operating system: a crash of the machine may lose it, and nothing that follows is ever
    /// kept without it. For acks, which the client repeats, and for when a device was seen.
    Lazy,
}

/// Why the store refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room is left on the disk (the world's fault: try again when there is).
    #[error("the disk of the data directory is full: {0}")]
    Full(String),
    /// The disk refused (the world's fault: may pass).
    #[error("the disk of the data directory refuses: {0}")]
    Io(String),
    /// A stored record is not what was written (ours, or the disk's).
    #[error("the record in {} is corrupt: {what}", family.name())]
    Corrupt {
        /// Where it stands.
        family: Family,
        /// What is wrong with it.
        what: String,
    },
    /// The database itself is damaged.
    #[error("the database is damaged: {0} (`gureumd check` tells what is hit; `gureumd restore` puts a backup back)")]
    Damaged(String),
    /// The data directory is of another format (the operator's).
    #[error("the data directory has format `{found}`; this program knows `{known}`: use the version that wrote it")]
    UnknownFormat {
        /// What it says.
        found: String,
        /// What this program reads and writes.
        known: &'static str,
    },
    /// Another process has the data directory open (the operator's).
    #[error("the data directory {0} is in use by another process")]
    InUse(String),
    /// An earlier failure left the store unfit to write; only a restart helps.
    #[error("the store has failed and writes nothing more until the server is started again: {0}")]
    Poisoned(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's restart.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io(_))
    }
}

/// What one round of reclaiming did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Everything unwritten went to tables, and the log before it is gone.
    pub flushed: bool,
    /// Files or (in the memory store) records dropped whole.
    pub dropped: u64,
    /// Families that were rewritten through their filter.
    pub compacted: u64,
}

/// What a store takes on its disk, and what it has done since it was opened. A store without a disk has zeroes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// About how many of them are of records that can still be read.
    pub live_bytes: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Bytes written to new tables.
    pub flush_bytes: u64,
    /// Bytes written in rewriting tables.
    pub compaction_bytes: u64,
    /// Expired or taken records that were left out in rewriting.
    pub entries_filtered: u64,
    /// Expired records that went with their whole table.
    pub entries_dropped: u64,
}

/// Key and value, in the order of keys.
pub type Entry = (Bytes, Bytes);

/// A database of families. Blocking: call it from a thread that may wait for a disk.
pub trait Store: Send + Sync + 'static {
    /// Writes all of the batch or nothing.
    ///
    /// # Errors
    /// After an error nothing of the batch is visible, but it may reappear after a restart.
    fn write(&self, batch: &Batch, durability: Durability) -> Result<(), StoreError>;

    /// The value of a key.
    ///
    /// # Errors
    /// When the disk refuses or is damaged.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The values of many keys, in the order of the keys given.
    ///
    /// # Errors
    /// When the disk refuses or is damaged.
    fn get_many(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// The first entries of a range, ascending: at most `limit` and [`crate::limits::SCAN_ENTRIES_MAX`].
    ///
    /// # Errors
    /// When the disk refuses or is damaged.
    fn scan(&self, family: Family, range: Range<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// The last entry of a range.
    ///
    /// # Errors
    /// When the disk refuses or is damaged.
    fn last(&self, family: Family, range: Range<&[u8]>) -> Result<Option<Entry>, StoreError>;

    /// One round of physical expiry at the clock's now, as far as it is due: what has expired goes from
    /// tables and from the log. To be called every [`expiry::ReclaimPeriods::round_ms`].
    ///
    /// # Errors
    /// When the disk refuses; the next round tries again.
    fn reclaim(&self) -> Result<Reclaimed, StoreError>;

    /// The time of the oldest message of which a byte may still be on the disk: of its body or of a pointer to it.
    ///
    /// # Errors
    /// When the disk refuses.
    fn oldest_physical_ms(&self) -> Result<Option<u64>, StoreError>;

    /// What it takes and has done, for the metrics.
    ///
    /// # Errors
    /// When the disk refuses.
    fn footprint(&self) -> Result<Footprint, StoreError> {
        Ok(Footprint::default())
    }

    /// Whether the store can write. After a failed write this tries again, so that it turns well by itself.
    ///
    /// # Errors
    /// Why it cannot.
    fn healthy(&self) -> Result<(), StoreError>;

    /// Copies the store as it stands at one moment into a new directory, with hard links where the disk allows.
    ///
    /// # Errors
    /// When the disk refuses, or the store is not on one.
    fn checkpoint(&self, to: &Path) -> Result<(), StoreError> {
        Err(StoreError::Io(format!("this store is on no disk, and cannot be copied to {}", to.display())))
    }

    /// Brings everything to the disk, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// When the disk refuses.
    fn close(&self) -> Result<(), StoreError>;
}

/// How far a batch had come at some moment.
#[derive(Debug, Clone, Copy)]
pub struct BatchEnd {
    bytes: usize,
    changes: usize,
}

/// One change of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets a key.
    Put {
        /// Its family.
        family: Family,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// Its family.
        family: Family,
        /// The key.
        key: &'a [u8],
    },
}

/// Changes that are written together; keeps its memory when cleared.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    family: Family,
    key_bytes: usize,
    value_bytes: Option<usize>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key to a value.
    pub fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_with(family, key, |out| out.extend_from_slice(value.as_ref()));
    }

    /// Sets a key to a record.
    pub fn put_record(&mut self, family: Family, key: impl AsRef<[u8]>, record: &impl Record) {
        self.put_with(family, key, |out| record.encode_into(out));
    }

    /// Sets a key to what `write` appends.
    pub fn put_with(&mut self, family: Family, key: impl AsRef<[u8]>, write: impl FnOnce(&mut Vec<u8>)) {
        let key = key.as_ref();
        self.bytes.extend_from_slice(key);
        let start = self.bytes.len();
        write(&mut self.bytes);
        let value_bytes = Some(self.bytes.len().saturating_sub(start));
        self.changes.push(Slot { family, key_bytes: key.len(), value_bytes });
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        self.bytes.extend_from_slice(key);
        self.changes.push(Slot { family, key_bytes: key.len(), value_bytes: None });
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How far it has come, for [`Self::cut`].
    #[must_use]
    pub fn end(&self) -> BatchEnd {
        BatchEnd { bytes: self.bytes.len(), changes: self.changes.len() }
    }

    /// Takes back what was added since it had come so far.
    pub fn cut(&mut self, end: BatchEnd) {
        self.bytes.truncate(end.bytes);
        self.changes.truncate(end.changes);
    }

    /// Forgets the changes and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
    }

    /// The changes, in the order they were made.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut rest = self.bytes.as_slice();
        self.changes.iter().map(move |slot| {
            let mut take = |bytes: usize| {
                let (taken, left) = rest.split_at(bytes);
                rest = left;
                taken
            };
            let (family, key) = (slot.family, take(slot.key_bytes));
            match slot.value_bytes {
                Some(bytes) => Change::Put { family, key, value: take(bytes) },
                None => Change::Delete { family, key },
            }
        })
    }
}

/// Reads and decodes one record.
///
/// # Errors
/// As [`Store::get`], and [`StoreError::Corrupt`] for bytes that are no such record.
pub fn read<R: Record>(store: &dyn Store, family: Family, key: &[u8]) -> Result<Option<R>, StoreError> {
    store.get(family, key)?.map(|value| decode(family, &value)).transpose()
}

/// The window of a device's latest sends.
///
/// # Errors
/// As [`read`].
pub fn read_window(store: &dyn Store, account: AccountId, device: DeviceId) -> Result<SenderWindow, StoreError> {
    read_windows(store, account, device).map(|(window, _)| window)
}

/// The same, and whether a part of it was written as a whole, which is read first: whoever deletes it writes its results one
/// by one with that.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_windows(
    store: &dyn Store,
    account: AccountId,
    device: DeviceId,
) -> Result<(SenderWindow, bool), StoreError> {
    let written_whole = key::cursor(&account, &device, CursorTag::SenderWindow);
    let whole: Option<SenderWindow> = read(store, Family::Cursor, written_whole.as_ref())?;
    let is_whole = whole.is_some();
    let since = store.scan(Family::Sent, key::sent_of(&account, &device).as_range(), SENT_RESULTS_KEPT)?;
    let results: Result<Vec<_>, _> = since.iter().map(|(_, value)| decode(Family::Sent, value)).collect();
    Ok((whole.unwrap_or_default().with(results?), is_whole))
}

/// Decodes a value that came from a family.
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are no such record.
pub fn decode<R: Record>(family: Family, value: &Bytes) -> Result<R, StoreError> {
    R::decode(value).map_err(|error| StoreError::Corrupt { family, what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_listed_in_the_order_of_their_numbers_with_names_of_their_own() {
        let mut names = std::collections::BTreeSet::new();
        for (index, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!(family as usize, index);
            assert!(names.insert(family.name()), "{} stands twice", family.name());
        }
    }

    #[test]
    fn a_batch_gives_back_its_changes_in_order() {
        let mut batch = Batch::new();
        batch.put(Family::Meta, b"a", b"one");
        batch.delete(Family::Inbox, b"gone");
        batch.put(Family::Meta, b"", b"");
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.bytes(), 8);
        let changes: Vec<_> = batch.changes().collect();
        assert_eq!(
            changes,
            [
                Change::Put { family: Family::Meta, key: b"a", value: b"one" },
                Change::Delete { family: Family::Inbox, key: b"gone" },
                Change::Put { family: Family::Meta, key: b"", value: b"" },
            ]
        );
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.changes().count(), 0);
    }

    #[test]
    fn what_was_added_to_a_batch_can_be_taken_back() {
        let mut batch = Batch::new();
        batch.put(Family::Meta, b"a", b"one");
        let end = batch.end();
        batch.delete(Family::Inbox, b"gone");
        batch.put(Family::Meta, b"b", b"two");
        batch.cut(end);
        batch.put(Family::Meta, b"c", b"three");
        let changes: Vec<_> = batch.changes().collect();
        let put = |key, value| Change::Put { family: Family::Meta, key, value };
        assert_eq!(changes, [put(&b"a"[..], &b"one"[..]), put(&b"c"[..], &b"three"[..])]);
    }

    #[test]
    fn only_errors_of_the_world_may_pass() {
        assert!(StoreError::Full(String::new()).may_pass());
        assert!(StoreError::Io(String::new()).may_pass());
        assert!(!StoreError::Poisoned(String::new()).may_pass());
        assert!(!StoreError::InUse(String::new()).may_pass());
    }
}
