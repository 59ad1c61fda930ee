//! Every bound of the server: queues, maps, records, files, memory.

// ---- store ----

/// The results of a device's latest sends that are kept to answer a repeated send. A device has at most
/// this many sends unanswered.
pub const SENT_RESULTS_KEPT: usize = 64;

/// The longest key of any family: a KeyPackage's (16 + 16 + 1 + 32), with room for a handle of 64 bytes.
pub const KEY_BYTES_MAX: usize = 72;

/// The most entries that one scan returns, whatever the caller asks for.
pub const SCAN_ENTRIES_MAX: usize = 10_000;

/// The most members (devices) that a stored conversation may list.
pub const MEMBERS_MAX: usize = 10_000;

/// The longest sealed body, KeyPackage, commit or other opaque field in a record.
pub const RECORD_FIELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Accounts whose floor is remembered for the compaction filter. One that is left out costs nothing but
/// an earlier reclaim of its inbox entries; at about 48 bytes each the map stays under 13 MB.
pub const TAKEN_FLOORS_MAX: usize = 262_144;

/// The memtable of message bodies. A batch of 500 messages of 350 bytes is 175 KB: 32 MiB take two
/// seconds of 50,000 messages a second, so that flushes stay rare and files large.
pub const MESSAGE_MEMTABLE_BYTES: usize = 32 * 1024 * 1024;

/// The memtable of inbox entries: about 60 bytes for each recipient of a message.
pub const INBOX_MEMTABLE_BYTES: usize = 16 * 1024 * 1024;

/// The memtable of each other family.
pub const STATE_MEMTABLE_BYTES: usize = 4 * 1024 * 1024;

/// Memtables of one family, the one being filled included. A third lets writing go on while two flushes
/// of a slow disk are waiting.
pub const MEMTABLES_PER_FAMILY_MAX: i32 = 3;

/// All memtables together; past it the largest is flushed.
pub const MEMTABLES_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Blocks of table files kept in memory, indexes and bloom filters included.
pub const BLOCK_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The write-ahead log at which everything is flushed: bounds the time that a start takes to replay it
/// (about a second) and the disk that it holds.
pub const WAL_BYTES_MAX: u64 = 192 * 1024 * 1024;

/// Table files held open, of the 1,024 descriptors that a process may have by default.
pub const STORE_OPEN_FILES_MAX: i32 = 384;

/// RocksDB's own log: two files of this size.
pub const STORE_LOG_BYTES_MAX: usize = 1024 * 1024;

/// The most memory that the store takes: caches, memtables, and the floors.
#[must_use]
pub const fn store_memory_bytes_max() -> usize {
    // A memtable that is full while its predecessor is written counts once more.
    BLOCK_CACHE_BYTES + MEMTABLES_BYTES_MAX + MESSAGE_MEMTABLE_BYTES + TAKEN_FLOORS_MAX * 48
}

const _: () = assert!(KEY_BYTES_MAX <= 255, "a key's length is kept in one byte");
const _: () = assert!(SENT_RESULTS_KEPT <= 255, "a window's length is kept in one byte");
const _: () = assert!(MESSAGE_MEMTABLE_BYTES + INBOX_MEMTABLE_BYTES <= MEMTABLES_BYTES_MAX);

// ---- sealing keys ----

/// Keys in the keyring. With the longest period of an hour this is a retention of 680 days.
pub const KEYRING_KEYS_MAX: usize = 16_384;

// ---- router and delivery ----

/// Entries of each of the planner's caches (heads, windows, conversations, cursors): past it all that is not being
/// written is forgotten and read again. A conversation of two weighs about 300 bytes, a full window 2 KB.
pub const PLANNER_CACHE_ENTRIES_MAX: usize = 20_000;

/// How many epochs a message may be behind its conversation. Receivers keep the secrets of five.
pub const EPOCHS_BEHIND_MAX: u64 = 3;

/// One-time KeyPackages that the directory keeps of a device.
pub const KEY_PACKAGES_STORED_MAX: usize = 200;

/// Locks over which the hub spreads the accounts.
pub const WAKE_SHARDS: usize = 16;

/// Entries of one inbox that are kept in memory while somebody reads it.
pub const TAIL_ENTRIES_MAX: usize = 1024;

/// All tails together.
pub const TAIL_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What an entry of a tail takes beside its body.
pub const TAIL_ENTRY_OVERHEAD_BYTES: usize = 96;

/// Entries that one read of an inbox returns.
pub const PAGE_ENTRIES_MAX: usize = 512;

/// Bytes of bodies at which a page ends.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
