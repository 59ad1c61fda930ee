//! Every bound of the server: queues, maps, records, files, memory.

mod phone;

pub use phone::*;

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

/// The longest statement of an account that leaves, as a conversation keeps it until the account is removed.
pub const LEAVE_RECORD_BYTES_MAX: usize = gureum_proto::limits::LEAVE_BYTES_MAX + 128;

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

/// The memtables of the state that every message changes: heads of inboxes, cursors, numbers of conversations, results of
/// sends. A lone message puts about 120, 90, 80 and 110 bytes into them, so that each holds more messages than that of the
/// bodies. A memtable that is full ends the log, with an fsync of the directory and one of the list of tables before the
/// next answer, and what its flush leaves is the newest value of each key: not worth that every few seconds.
pub const HOT_STATE_MEMTABLE_BYTES: usize = 16 * 1024 * 1024;

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

/// The list of the store's tables, at which it is begun anew. A table is named in about 200 bytes.
pub const STORE_MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// The most memory that the store takes: caches, memtables, and the floors.
#[must_use]
pub const fn store_memory_bytes_max() -> usize {
    // A memtable that is full while its predecessor is written counts once more.
    BLOCK_CACHE_BYTES + MEMTABLES_BYTES_MAX + MESSAGE_MEMTABLE_BYTES + TAKEN_FLOORS_MAX * 48
}

const _: () = assert!(KEY_BYTES_MAX <= 255, "a key's length is kept in one byte");
const _: () = assert!(SENT_RESULTS_KEPT <= 255, "a window's length and a result's place are kept in one byte");
const _: () = assert!(LIVES_LOST_KEPT <= 255, "their number is kept in one byte");
const _: () = assert!(
    MESSAGE_MEMTABLE_BYTES + INBOX_MEMTABLE_BYTES + 4 * HOT_STATE_MEMTABLE_BYTES <= MEMTABLES_BYTES_MAX / 8 * 7,
    "none of these is flushed before it is full, which RocksDB begins at seven eighths of the whole"
);

// ---- sealing keys ----

/// Keys in the keyring. With the longest period of an hour this is a retention of 680 days.
pub const KEYRING_KEYS_MAX: usize = 16_384;

// ---- router and delivery ----

/// Entries of each of the planner's caches (heads, windows, conversations, cursors, lives, counts of relations): past it,
/// for each that comes one that is neither used nor being written is forgotten, and read again when it is needed. A
/// conversation of two weighs about 300 bytes, a full window 2 KB, a life 300 bytes.
pub const PLANNER_CACHE_ENTRIES_MAX: usize = 20_000;

/// Entries of a full cache that are looked at to find one to forget, each at the cost of about a hit. The last two are not
/// spared for having been used: one makes room for what comes, the other for what a large batch has added beyond the bound.
pub const PLANNER_CACHE_LOOKS_MAX: usize = 16;

/// States of a device that another copy has taken over from and that are still told so; older ones count as stale.
pub const LIVES_LOST_KEPT: usize = 8;

/// Leaves of all conversations in the planner's cache, which weigh about [`CACHED_LEAF_BYTES`] each: past it others are
/// forgotten for a conversation that comes.
pub const PLANNER_CACHE_LEAVES_MAX: usize = 250_000;

/// A leaf in the planner's cache: in the roster, in the map of devices, and as a part of its account.
pub const CACHED_LEAF_BYTES: usize = 128;

/// Leaves of all public groups that are kept as they were verified: a hundred groups of a hundred accounts with two devices
/// each. Past it what was not used for the longest time is read and verified again when it is needed.
pub const FOLLOWED_LEAVES_MAX: usize = 32_768;

/// A leaf of a public group in memory: its node of about 900 bytes in 12 allocations, a parent node of 300, and its part of
/// the list of members. A tree has room for a power of two of them, and all of that counts.
pub const FOLLOWED_LEAF_BYTES: usize = 2 * 1024;

/// What a public group counts at least: its context and its places in the maps weigh about as much as so many leaves.
pub const FOLLOWED_GROUP_LEAVES_MIN: usize = 4;

const _: () = assert!(MEMBERS_MAX.next_power_of_two() <= FOLLOWED_LEAVES_MAX, "the largest conversation can be kept");

/// How many epochs a message may be behind its conversation. Receivers keep the secrets of five.
pub const EPOCHS_BEHIND_MAX: u64 = 3;

/// Accounts that are told of an entry of a device log, in one batch: a position of each one's inbox, of about 100 bytes.
pub const ANNOUNCED_ACCOUNTS_MAX: usize = 20_000;

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

/// Submissions that wait for the writer. Each is of one connection, and holds at most what it read at once.
pub const SUBMIT_QUEUE_MAX: usize = 4_096;

/// Bytes of messages that wait for the writer, all connections together.
pub const SUBMIT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Submissions that the writer takes into one batch: with 64 sends each at most 16,384 messages.
pub const BATCH_OPS_MAX: usize = 256;

// ---- operation ----

/// The settings file: all settings, each with a comment, are far below.
pub const CONFIG_FILE_BYTES_MAX: usize = 64 * 1024;

/// Certificates, keys and the other small files of a data directory.
pub const SMALL_FILE_BYTES_MAX: u64 = 256 * 1024;

/// Connections to the admin listener at one time: a collector, a prober and a person, with room.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// How long one of them may last, in milliseconds: whoever holds one open makes room for the others.
pub const ADMIN_CONNECTION_MS_MAX: u64 = 10_000;

/// A request on the control socket: a word and a handle are shorter.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 64;

/// How long such a request may take to arrive, in milliseconds.
pub const CONTROL_REQUEST_MS_MAX: u64 = 10_000;

/// How long a copy of the database for a backup stays in the data directory, in milliseconds. It keeps expired
/// ciphertext on the disk meanwhile, so it is far below the bound of that.
pub const CHECKPOINT_MS_MAX: u64 = 30 * 60 * 1_000;

// ---- push ----

/// Devices that can be woken. One more is refused.
pub const PUSH_DEVICES_MAX: usize = 200_000;

/// What one of them takes in memory, its account's part included: 270 bytes in the machine of push, up to 200 more while a
/// wake-up waits, and 110 where the writer looks whether anybody can be woken.
pub const PUSH_DEVICE_BYTES: usize = 640;

/// Requests to all push services that are under way.
pub const PUSH_SENDS_MAX: usize = 128;

/// Of those, to one service; all hosts of Web Push together are one.
pub const PUSH_SENDS_A_SERVICE_MAX: usize = 64;

/// To one host of Web Push, or to APNs for apps under development.
pub const PUSH_SENDS_A_HOST_MAX: usize = 4;

/// What no service can take away from another, however long its requests hang.
pub const PUSH_SENDS_RESERVED: usize = 16;

/// A request under way: its target, its body, its head and its answer, with what TLS and HTTP hold.
pub const PUSH_SEND_BYTES: usize = 96 * 1024;

/// Connections to push services that are kept.
pub const PUSH_CONNECTIONS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a request may take, in milliseconds.
pub const PUSH_SEND_MS_MAX: u64 = 10_000;

/// How long a server that stops waits for answers, in milliseconds.
pub const PUSH_END_MS_MAX: u64 = 1_000;

/// Hosts of Web Push of which each has a queue and a breaker of its own. Whoever runs a host of one's own is among the many
/// that share.
pub const PUSH_HOSTS_MAX: usize = 1_024;

/// Queues and breakers that further hosts share.
pub const PUSH_SHARED_HOSTS: u64 = 256;

/// Looks into inboxes that are under way.
pub const LOOKS_IN_FLIGHT_MAX: usize = 4;

/// Of those, by the rounds through all accounts: they have hours, and leave the processor to others.
pub const SWEEP_LOOKS_IN_FLIGHT_MAX: usize = 1;

/// Entries of an inbox that one look reads before it makes room for others.
pub const LOOK_ENTRIES_MAX: usize = 512;

/// After how long an account is looked at again whose inbox could not be read, in milliseconds.
pub const LOOK_RETRY_MS: u64 = 30_000;

/// How old the look may be, in milliseconds, by which a device is woken.
pub const FACTS_MS_MAX: u64 = 2_000;

/// After how long the feed is heard again, in milliseconds: what comes meanwhile is merged. Far below any delay of push.
pub const FEED_PACE_MS: u64 = 50;

/// The first pause after a request that failed, in milliseconds; each further one is twice as long.
pub const PUSH_BACK_OFF_MS_MIN: u64 = 5_000;

/// The longest of these pauses, before it is spread by a quarter.
pub const PUSH_BACK_OFF_MS_MAX: u64 = 15 * 60 * 1_000;

/// The longest that a service is believed when it says when to come back, in milliseconds.
pub const PUSH_RETRY_AFTER_MS_MAX: u64 = 60 * 60 * 1_000;

/// Failures in a row at which a service is left alone.
pub const BREAKER_FAILURES_MAX: u32 = 5;

/// For how long it is at first, in milliseconds; each further time is twice as long.
pub const BREAKER_MS_MIN: u64 = 1_000;

/// The longest of these times: so much later than a service comes back, what has waited for it goes.
pub const BREAKER_MS_MAX: u64 = 60_000;

/// For how long a service is left alone that does not let this server in, in milliseconds: until an operator has had a look.
pub const BREAKER_MISCONFIGURED_MS: u64 = 5 * 60 * 1_000;

/// Between two wake-ups of a device that shows nothing to its person, in milliseconds. Apple and Google throttle apps that
/// are woken more often, and then all their wake-ups are late.
pub const PUSH_SILENT_INTERVAL_MS: u64 = 20 * 60 * 1_000;

/// How long before a message expires whoever has not taken it is warned, at the most.
pub const PUSH_WARNING_MS: u64 = DAY_MS;

/// Rounds that look for what expires, in the time that messages stay: once an hour at three days.
pub const PUSH_SWEEPS_PER_RETENTION: u64 = 72;

/// The longest time between two of these rounds, in milliseconds: by so much a warning may be late.
pub const PUSH_SWEEP_MS_MAX: u64 = PUSH_WARNING_MS / 24;

/// The most memory that push takes.
#[must_use]
pub const fn push_memory_bytes_max() -> usize {
    PUSH_DEVICES_MAX * PUSH_DEVICE_BYTES + PUSH_SENDS_MAX * PUSH_SEND_BYTES + PUSH_CONNECTIONS_BYTES_MAX
}

const _: () = assert!(PUSH_SENDS_A_SERVICE_MAX + 2 * PUSH_SENDS_RESERVED <= PUSH_SENDS_MAX, "one service leaves room");
const _: () = assert!(PUSH_SENDS_A_HOST_MAX <= PUSH_SENDS_RESERVED, "one host can always be tried");
const _: () = assert!(SWEEP_LOOKS_IN_FLIGHT_MAX < LOOKS_IN_FLIGHT_MAX, "rounds hold up nobody who waits");
const _: () = assert!(PUSH_SEND_MS_MAX > PUSH_END_MS_MAX && PUSH_END_MS_MAX < 5_000, "a stop waits for 5 s in all");

// ---- directory and requests ----

/// Device logs kept in memory; one of a few entries takes about 1 KB.
pub const LOG_CACHE_ENTRIES_MAX: usize = 20_000;

/// Conversations of one account: all count into its digest of epochs, and none is begun or joined past it.
pub const ACCOUNT_CONVERSATIONS_MAX: usize = 5_000;

/// Bytes of device-log entries in one answer.
pub const LOG_PAGE_BYTES: usize = 512 * 1024;

/// Commits looked at for one page of the commit log.
pub const COMMITS_SCAN_MAX: usize = 512;

/// How often one account may take KeyPackages a minute: each claim uses one up for every device of the other.
pub const CLAIMS_PER_MINUTE: std::num::NonZeroU32 = std::num::NonZeroU32::new(120).expect("it is not 0");

/// Of how many accounts, each time counted, one account may take KeyPackages an hour: all of a large group at once, and
/// then one every few seconds.
pub const CLAIMED_ACCOUNTS_PER_HOUR: std::num::NonZeroU32 = std::num::NonZeroU32::new(1_500).expect("it is not 0");

/// How often one account may take KeyPackages of the same other account an hour: fewer than a device keeps in the
/// directory, so that nobody alone uses them up.
pub const CLAIMS_OF_ONE_PER_HOUR: std::num::NonZeroU32 = std::num::NonZeroU32::new(10).expect("it is not 0");

const _: () = assert!(CLAIMED_ACCOUNTS_PER_HOUR.get() as usize >= gureum_proto::limits::CLAIM_ACCOUNTS_MAX);

/// How often one account may look accounts up a minute.
pub const LOOK_UPS_PER_MINUTE: std::num::NonZeroU32 = std::num::NonZeroU32::new(600).expect("it is not 0");

/// Sends of one device that are taken as fast as they come: what a device has written while it was away. Beyond, it is
/// held to the setting `sends_per_second`.
pub const SENDS_AT_ONCE_MAX: u32 = 4_096;

/// What of a session stream counts as one send: every frame, and this much of longer ones, known or to be skipped.
pub const SEND_COUNTED_BYTES: usize = 4 * 1024;

/// How many accounts one address may register a minute, beside what its invites allow.
pub const REGISTRATIONS_PER_MINUTE: std::num::NonZeroU32 = std::num::NonZeroU32::new(6_000).expect("it is not 0");

// ---- connections ----

/// Connections of one process. At about 48 KiB each an idle one costs 4.7 GiB in all at the bound.
pub const CONNECTIONS_MAX: usize = 100_000;

/// Connections of one address that have not proven themselves yet.
pub const UNPROVEN_PER_ADDRESS_MAX: usize = 512;

/// Connections of all addresses that have not proven themselves yet. At 3 s each this lets thousands a second in.
pub const UNPROVEN_MAX: usize = 8_192;

/// Handshakes in flight whose address may be a lie; at this many who connects must prove its address first. Honest ones
/// last for a round trip: so many at once are a flood, or everybody coming back after a restart.
pub const UNVALIDATED_HANDSHAKES_MAX: usize = 256;

/// Retries in a second that are no flood any more.
pub const RETRY_CALM_PER_TICK: usize = 64;

/// Seconds of calm in a row after which addresses are believed again.
pub const RETRY_CALM_TICKS: u32 = 5;

/// First packets that are looked at before the next handshake begins: a flood of them holds up nobody whose turn it is.
pub const FIRST_PACKETS_AT_ONCE_MAX: usize = 64;

/// How long a handshake may wait for its turn, in milliseconds. Clients give a connection up after 5 s, so that whoever is
/// let in later may be gone; who is refused comes back by itself, when fewer wait.
pub const HANDSHAKE_WAIT_MS_MAX: u64 = 2_000;

/// First packets that wait: for the turn of their handshake, which those do that have a place, or to be looked at, which is
/// done as soon as the task that accepts runs. quinn drops unanswered what is beyond, so that no place may be without one.
pub const INCOMING_MAX: usize = UNPROVEN_MAX + 1_024;

/// Bytes of packets that wait behind one of them.
pub const INCOMING_ONE_BYTES_MAX: u64 = 32 * 1024;

/// Bytes of packets that wait behind all of them: the second packet of each, since a ClientHello takes two.
pub const INCOMING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that all streams of a connection may have under way before its proof: the longest registration, with room for
/// what a client sends without waiting for the answer.
pub const UNPROVEN_WINDOW_BYTES: u32 = 64 * 1024;

/// Sessions of one device; a newer one displaces the oldest. A network that changes often leaves some behind until
/// they time out, and commands of one home run side by side.
pub const DEVICE_SESSIONS_MAX: usize = 16;

const _: () = assert!(UNVALIDATED_HANDSHAKES_MAX < UNPROVEN_PER_ADDRESS_MAX, "liars leave room to who has the address");
const _: () = assert!(INCOMING_BYTES_MAX >= INCOMING_MAX * 1_500, "the second packet of a ClientHello is not dropped");
const _: () = assert!(HANDSHAKE_WAIT_MS_MAX < 5_000, "clients are told before they give up");
const _: () = assert!(UNPROVEN_WINDOW_BYTES as usize >= 2 * gureum_wire::limits::REGISTER_BYTES_MAX);

/// Devices that wait to be linked. Each holds a place among the connections without a proof.
pub const LINKS_MAX: usize = 1_024;

/// Devices of one address that wait to be linked.
pub const LINKS_PER_ADDRESS_MAX: usize = 16;

/// Links that devices of one account have answered and that are not over.
pub const LINKS_PER_ACCOUNT_MAX: usize = 4;

/// How long a device waits to be linked, in milliseconds: until its person has found the other device.
pub const LINK_MS_MAX: u64 = 10 * 60 * 1_000;

/// How long a request that answers a link is held open for the countersignature, in milliseconds.
pub const LINK_REPLY_MS_MAX: u64 = 30_000;

/// For how long a device that has answered a link may keep the account's others from answering it, in milliseconds: until its
/// person has compared the digits.
pub const LINK_ANSWER_MS_MAX: u64 = 2 * 60 * 1_000;

/// How long a device that has been added waits for what it is to be handed, in milliseconds. Without it goes on as well.
pub const LINK_BUNDLE_MS_MAX: u64 = 10_000;

/// What all devices that wait are to be handed, in bytes.
pub const LINK_BUNDLES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most memory of devices that wait to be linked: what each has said and was told, and what they are handed, which
/// counts once more while it is written.
#[must_use]
pub const fn links_memory_bytes_max() -> usize {
    use gureum_wire::limits::{LINK_ANSWER_BYTES_MAX, LINK_BYTES_MAX, LINK_REPLY_BYTES_MAX};
    LINKS_MAX * (LINK_BYTES_MAX + 2 * LINK_ANSWER_BYTES_MAX + LINK_REPLY_BYTES_MAX) + 2 * LINK_BUNDLES_BYTES_MAX
}

const _: () = assert!(LINK_BUNDLES_BYTES_MAX >= gureum_wire::limits::LINKED_BYTES_MAX);
const _: () = assert!(LINK_REPLY_MS_MAX < LINK_ANSWER_MS_MAX && LINK_ANSWER_MS_MAX < LINK_MS_MAX);
const _: () = assert!(LINKS_MAX < UNPROVEN_MAX && LINKS_PER_ADDRESS_MAX < UNPROVEN_PER_ADDRESS_MAX, "others get in");

/// Request streams that one connection may have open.
pub const REQUEST_STREAMS_MAX: u32 = 8;

/// Requests of one connection that are taken as fast as they come: a device that was away asks about each of its
/// conversations.
pub const REQUESTS_AT_ONCE_MAX: u32 = 1_024;

/// After those, one in so many milliseconds: far more than any client needs, and under a twentieth of a processor.
pub const REQUEST_INTERVAL_MS: u64 = 2;

/// Bytes that one stream of a client may have under way: four reads ahead of what the session takes.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes that all streams of a connection may have under way.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes written to a connection that its client has not acknowledged.
pub const SEND_WINDOW_BYTES: u32 = 1024 * 1024;

/// What the UDP socket may hold in each direction: a burst of 3,000 full packets. The system's limit may be lower.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes taken from the session stream at once.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// Pieces in which they are taken, each of one packet: those of as many messages of 256 bytes as a device may have without
/// an answer. A decoder keeps 32 bytes for each.
pub const READ_CHUNKS_MAX: usize = 16;

const _: () = assert!(READ_CHUNKS_MAX <= gureum_wire::limits::UNREAD_CHUNKS_MAX);

/// Answers waiting to be written at which a session takes no more frames.
pub const SESSION_OUT_BYTES_MAX: usize = 256 * 1024;

/// How long a connection may be silent before it counts as lost, in milliseconds.
pub const IDLE_TIMEOUT_MS: u32 = 60_000;

/// How long a session that hears of nothing waits before it looks into its inbox, in milliseconds: the longest that
/// a lost wake may hold up a message. At the bound of connections this makes 333 short reads a second.
pub const REREAD_MS: u64 = 300_000;

/// How long a client may leave what it asked for unread, in milliseconds.
pub const WRITE_STALL_MS: u64 = 30_000;

/// How long a request may take to arrive, and its answer to be read, in milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;

// ---- datagrams ----

/// Bytes of datagrams of one client that were not looked at yet, each with 32 bytes beside its payload; past it the oldest
/// go. They are read as they come, so that there is room for few.
pub const DATAGRAM_RECEIVE_BYTES: usize = 1_024;

/// Bytes of datagrams that wait to leave for one client, likewise.
pub const DATAGRAM_SEND_BYTES: usize = 4 * 1_024;

/// Datagrams that wait for the task of their connection; past it the oldest go.
pub const SIGNALS_MAX: usize = 16;

/// Between two typing indicators of one connection that are heard, in milliseconds: clients say it every 3 s.
pub const TYPING_INTERVAL_MS: u64 = 250;

/// Typing indicators of one connection that are heard at once.
pub const TYPING_AT_ONCE_MAX: u64 = 4;

/// Accounts of a conversation in which typing indicators are relayed.
pub const TYPING_ACCOUNTS_MAX: usize = 64;

/// Conversations whose accounts a connection remembers for its typing indicators.
pub const TYPING_ROSTERS_MAX: usize = 4;

/// How long it does, in milliseconds: who has left hears of it no longer than that. A newer epoch is looked up at once, and a
/// look reads two keys.
pub const TYPING_ROSTER_MS: u64 = 2_000;

/// The most memory of one client's datagrams, coming and going. One that was not read yet holds on to its packet.
#[must_use]
pub const fn datagrams_memory_bytes_max() -> usize {
    const PACKET_BYTES_MAX: usize = 1_500;
    DATAGRAM_RECEIVE_BYTES / 32 * PACKET_BYTES_MAX
        + DATAGRAM_SEND_BYTES
        + SIGNALS_MAX * gureum_proto::limits::DATAGRAM_BYTES_MAX
        + TYPING_ROSTERS_MAX * TYPING_ACCOUNTS_MAX * gureum_proto::ID_BYTES
}

const _: () = assert!(gureum_proto::limits::DATAGRAM_BYTES_MAX + 32 <= DATAGRAM_RECEIVE_BYTES);

/// The most memory that one connection pins beside quinn's own state: windows, buffers and queued sends.
#[must_use]
pub const fn connection_memory_bytes_max() -> usize {
    CONNECTION_WINDOW_BYTES as usize
        + SEND_WINDOW_BYTES as usize
        + SESSION_OUT_BYTES_MAX
        + READ_BYTES_MAX
        + 2 * PAGE_BYTES_MAX
        + REQUEST_STREAMS_MAX as usize * gureum_wire::limits::REQUEST_BYTES_MAX
        + datagrams_memory_bytes_max()
}

/// What one connection takes beside its windows and buffers: quinn's state, TLS, its task. An idle one was measured at
/// 47 KiB; a handshake in flight takes as much, with its certificate and key shares.
pub const CONNECTION_STATE_BYTES: usize = 96 * 1024;

/// The most memory of a connection that has not proven itself.
#[must_use]
pub const fn unproven_memory_bytes_max() -> usize {
    CONNECTION_STATE_BYTES + UNPROVEN_WINDOW_BYTES as usize + READ_BYTES_MAX + datagrams_memory_bytes_max()
}

/// The most memory of a process with so many connections, proven and not.
#[must_use]
pub const fn process_memory_bytes_max(proven: usize, unproven: usize) -> usize {
    shared_memory_bytes_max() + connections_memory_bytes_max(proven, unproven)
}

/// The most memory of so many connections, proven and not, and of the first packets of those to come.
#[must_use]
pub const fn connections_memory_bytes_max(proven: usize, unproven: usize) -> usize {
    INCOMING_BYTES_MAX
        + proven * (CONNECTION_STATE_BYTES + connection_memory_bytes_max())
        + unproven * unproven_memory_bytes_max()
}

/// The most memory of what all connections share.
#[must_use]
pub const fn shared_memory_bytes_max() -> usize {
    store_memory_bytes_max()
        + SUBMIT_BYTES_MAX
        + TAIL_BYTES_MAX
        + PLANNER_CACHE_ENTRIES_MAX * (4 * 2_500 + 400)
        + PLANNER_CACHE_LEAVES_MAX * CACHED_LEAF_BYTES
        + FOLLOWED_LEAVES_MAX * FOLLOWED_LEAF_BYTES
        + links_memory_bytes_max()
        + push_memory_bytes_max()
}

/// The longest time between two rounds of maintenance, whatever the retention: how late a full disk shows on
/// `/readyz`, and how much time a crash can forget.
pub const MAINTENANCE_MS_MAX: u64 = 5_000;

/// Floors that wait for the next synced batch; at this many the batch of acks itself is synced.
pub const UNSYNCED_FLOORS_MAX: usize = 4_096;
