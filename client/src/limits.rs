//! Every bound of the client, with the reason for each.

use std::time::Duration;

use gureum_proto::limits::{
    ADDS_PER_COMMIT_MAX, CIPHERTEXT_BYTES_MAX, CLAIM_ACCOUNTS_MAX, CONVERSATION_ACCOUNTS_MAX, DEVICES_MAX,
    SENDS_IN_FLIGHT_MAX,
};

// ---- connection -----------------------------------------------------------------------------------------

/// Time to resolve, dial and finish the handshake: several round trips of the slowest mobile network.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the first answer on a new connection.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the answer to a request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for what is written to arrive when a connection is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);
/// NAT bindings for UDP die at about 30 s.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A keep-alive starts this anew, and is itself sent again and again meanwhile: a server that is gone shows at the
/// latest after the two together. The server has the same patience (the shorter of both counts), so that one that hears
/// nothing, but is heard as it repeats itself, shows within twice this.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Addresses of one host name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 4;
/// Unread bytes of one stream: the largest frame needs more, and gets it as it is read.
pub(crate) const STREAM_RECEIVE_BYTES: u32 = 256 * 1024;
/// Unread bytes of all streams.
pub(crate) const CONNECTION_RECEIVE_BYTES: u32 = 1024 * 1024;
/// Bytes sent and not yet acknowledged.
pub(crate) const CONNECTION_SEND_BYTES: u64 = 1024 * 1024;
/// Packets that the server may take before it confirms them: what a window of sends brings is answered soon, and the
/// confirmation rides with the answers. One fewer than the ten that the transport sends before it has heard anything, so that
/// a first burst is confirmed for its number, and does not wait for the timer of 25 ms.
pub(crate) const UNCONFIRMED_PACKETS_MAX: u32 = 9;
/// Unidirectional streams that a server may open; it needs one.
pub(crate) const DELIVERY_STREAMS_MAX: u32 = 4;
/// Bytes taken from a stream at once where one frame is expected.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Chunks taken from a stream at once; below the decoder's own bound of 64.
pub(crate) const READ_CHUNKS: usize = 32;
/// Events of a connection that wait for their reader; each holds at most [`READ_CHUNKS`] packets' frames.
pub(crate) const LINK_EVENTS_MAX: usize = 16;
/// Bytes that wait to be written: as many sends as may be in flight, at their longest.
pub(crate) const OUTGOING_BYTES_MAX: usize = SENDS_IN_FLIGHT_MAX as usize * CIPHERTEXT_BYTES_MAX;
/// Bytes of datagrams that have come and were not read yet, each with 32 bytes beside its payload.
pub(crate) const DATAGRAM_RECEIVE_BYTES: usize = 4 * 1024;
/// Bytes of datagrams that wait to leave, likewise; past it the oldest go.
pub(crate) const DATAGRAM_SEND_BYTES: usize = 4 * 1024;
/// The longest that a stopping server may send its clients away for.
pub(crate) const COME_BACK_MAX: Duration = Duration::from_secs(300);

const _: () = assert!(gureum_proto::limits::DATAGRAM_BYTES_MAX + 32 <= DATAGRAM_RECEIVE_BYTES);
const _: () = assert!(READ_CHUNKS <= gureum_wire::limits::UNREAD_CHUNKS_MAX);

// ---- reconnecting ---------------------------------------------------------------------------------------

/// The first wait before connecting again, before jitter.
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The longest wait before connecting again, before jitter.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next wait is the first one again.
pub(crate) const BACKOFF_RESET: Duration = Duration::from_secs(10);

/// The longest wait that a server can ask for, in milliseconds: none may send its clients away for ever.
pub(crate) const RETRY_AFTER_MAX_MS: u64 = 3_600_000;
/// The first wait before what was refused for one conversation is tried again, before jitter.
pub(crate) const MEND_FIRST: Duration = Duration::from_secs(1);
/// The longest such wait, before jitter: what is refused so often may be refused for good.
pub(crate) const MEND_MAX: Duration = Duration::from_secs(900);
/// How often a connection that lasts looks after what would else wait for the next one, before jitter.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How soon that is tried again after a refusal, before jitter.
pub(crate) const UPKEEP_RETRY: Duration = Duration::from_secs(600);

/// How often within [`DISPLACED_WINDOW`] a session comes back after a newer connection took over: it may have been one of
/// its own that was given up and arrived late, but a copy of the home elsewhere would do the same for ever.
pub(crate) const DISPLACED_MAX: usize = 3;
/// The window of [`DISPLACED_MAX`].
pub(crate) const DISPLACED_WINDOW: Duration = Duration::from_secs(3600);

// ---- vault and encryption -------------------------------------------------------------------------------

/// The longest text of one message, in bytes: padded, encrypted and framed it stays below
/// the bound on a ciphertext.
pub const TEXT_BYTES_MAX: usize = 48 * 1024;
/// Messages in the outbox that the server has not accepted yet; more are refused.
pub(crate) const OUTBOX_ROWS_MAX: u64 = 10_000;
/// Messages that the server refused for good and that are kept for a person to see; past it the oldest go.
pub(crate) const OUTBOX_FAILED_MAX: u64 = 1_000;
/// How long to wait before a refused send is tried again, in milliseconds, where the server does not say.
pub(crate) const RETRY_MS: u64 = 500;
/// How old this device's keys in a conversation may be, in milliseconds: a week.
pub(crate) const SELF_UPDATE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// A group of more leaves than this may have been made all at once: whoever comes into one does not renew its keys at once.
pub(crate) const RENEWED_AT_ONCE_MAX: usize = 16;
/// Within what time it does, in milliseconds: a day.
pub(crate) const FIRST_RENEWAL_WITHIN_MS: u64 = 24 * 60 * 60 * 1000;
/// In a group of up to so many leaves a device renews the keys of its KeyPackage before it says anything by them; in a larger
/// one too many others may commit at the same time.
pub(crate) const RENEWED_BEFORE_SENDING_MAX: usize = 64;
/// Commits in a row by which it tries to, before it goes on with the keys that it has.
pub(crate) const FIRST_RENEWAL_RACES_MAX: usize = 3;
/// Sends and commits that may be without an answer: the span of their counters stays below this, because the server
/// remembers the results of as many.
pub(crate) const COUNTERS_UNRESOLVED_MAX: u64 = SENDS_IN_FLIGHT_MAX as u64;
/// Counters that are left out when this database goes on in the place of a newer copy: more than that one may have used
/// between the server's answer and its end.
pub(crate) const COUNTERS_SKIPPED: u64 = 4096;
/// How long a connection waits for another one of the same home that is about to prove itself.
pub(crate) const LIFE_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks whether that has.
pub(crate) const LIFE_POLL: Duration = Duration::from_millis(10);
/// Deliveries taken in one transaction: as many share one fsync and one loading of their groups.
pub(crate) const TAKE_FRAMES_MAX: usize = 256;
/// KeyPackages of others that are kept as they were verified, of 2 KB each: those of one claim, of every device.
pub(crate) const READ_PACKAGES_MAX: usize = CLAIM_ACCOUNTS_MAX * DEVICES_MAX;
/// Events that wait to be reported; past it the oldest are dropped from the list (the history keeps its rows).
pub(crate) const EVENTS_MAX: u64 = 100_000;
/// Rows of one reading of the history.
pub(crate) const HISTORY_ROWS_MAX: u32 = 100_000;
/// How long messages may be missing from a conversation's numbers before they count as withheld, in milliseconds: an
/// answer that tells the number of an own one comes on another stream, or on the next connection.
pub(crate) const HOLE_PATIENCE_MS: u64 = 10 * 60 * 1000;
/// Holes in the numbers of conversations that are looked into at once; a server that makes more is told of by these.
pub(crate) const HOLES_MAX: u64 = 1_000;
/// How soon a hole is looked at again for which an own message without an answer may account.
pub(crate) const HOLE_AGAIN: Duration = Duration::from_secs(60);
/// Attempts to rejoin one conversation within [`REJOIN_WINDOW_MS`].
pub(crate) const REJOINS_MAX: u32 = 3;
/// Messages in a row of a conversation's present epoch that do not open before its keys count as broken.
pub(crate) const UNOPENED_MAX: u32 = 3;
/// The window of [`REJOINS_MAX`], in milliseconds.
pub(crate) const REJOIN_WINDOW_MS: u64 = 60 * 60 * 1000;
/// The highest position, count or number of a server, and of another device of the account: far beyond what can be reached,
/// and such that sums of two fit the database's integers.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
/// The bits of an inbox's positions that count within one life; those above count how often the server has gone back to
/// a backup (docs/protocol.md, Delivery).
pub(crate) const LIFE_BITS: u32 = 40;
/// The highest epoch of a conversation: far beyond what commits can reach, and such that neither it nor those that
/// follow overflow the database's integers. Nobody means a higher one well.
pub(crate) const EPOCH_MAX: u64 = 1 << 62;
/// Things that the vault has asked its caller for and that are not answered yet; past it all are asked again.
pub(crate) const NEEDS_REMEMBERED_MAX: usize = 256;
/// Past epochs whose messages can still be read. The server refuses messages of an epoch more than 3 behind; two
/// more leave room for commits that cross them on the way.
pub(crate) const PAST_EPOCHS_MAX: usize = 5;
/// Messages of one sender that may overtake another.
pub(crate) const OUT_OF_ORDER_MAX: u32 = 64;
/// Messages of one sender in one epoch that may be missing between two: a long absence, with its gap, is not to
/// leave the rest unreadable.
pub(crate) const FORWARD_DISTANCE_MAX: u32 = 25_000;
/// Plaintexts are padded to a multiple of this, in bytes, so that the length says little.
pub(crate) const PADDING_BYTES: usize = 64;
/// How long a KeyPackage may be used after it was made, in seconds.
pub(crate) const KEY_PACKAGE_LIFETIME_S: u64 = 84 * 24 * 60 * 60;
/// How old the newest KeyPackages may be, in milliseconds, before others take their place: four weeks, so that
/// uploads may fail twice before the old ones end.
pub(crate) const KEY_PACKAGE_RENEW_MS: u64 = 28 * 24 * 60 * 60 * 1000;
/// How long the secrets of a KeyPackage are kept, in milliseconds: its lifetime, and as long as a Welcome that was made
/// on its last day may wait on a server with a long retention.
pub(crate) const KEY_PACKAGE_KEPT_MS: u64 = KEY_PACKAGE_LIFETIME_S * 1000 + 30 * 24 * 60 * 60 * 1000;
/// How long a statement waits for another process of the same home, in milliseconds.
pub(crate) const BUSY_TIMEOUT_MS: u64 = 10_000;
/// Messages that one receipt names: 2.2 KB.
pub(crate) const RECEIPT_IDS_MAX: usize = 128;
/// Receipts in the outbox; further ones wait until those are out, and name more messages each.
pub(crate) const RECEIPT_ROWS_MAX: usize = 64;
/// How many messages may have come since one for which a receipt is owed still; nobody waits for it after that.
pub(crate) const RECEIPTS_OWED_MAX: i64 = 100_000;
/// Accounts of a conversation in which receipts are sent: of a message to more people nobody counts who has read it, and
/// each would send them to all.
pub(crate) const RECEIPT_ACCOUNTS_MAX: usize = 32;
/// Records that one message between the devices of an account holds: 40 KB.
pub(crate) const RECORDS_MAX: usize = 256;
/// Messages with records in the outbox; what further ones would hold waits until those are out.
pub(crate) const RECORD_ROWS_MAX: u64 = 64;
/// Bytes of one part of a history that is handed over, before it is padded and encrypted: few parts, and one message of
/// any length, with all that it names, fits.
pub(crate) const HISTORY_PART_BYTES_MAX: usize = 56 * 1024;
/// Messages of one part, and accounts and conversations that it names.
pub(crate) const HISTORY_PART_ENTRIES_MAX: usize = 512;
/// Receipts that go with one message: delivered and read, of each account that sends any.
pub(crate) const HISTORY_RECEIPTS_MAX: usize = 2 * RECEIPT_ACCOUNTS_MAX;
/// Parts that are on their way at once, 1 MB: a small share of what an inbox holds, enough that a round trip is not waited
/// for with each, and all that is sent again where a device stays away for longer than messages are kept.
pub(crate) const HISTORY_WINDOW: u64 = 16;
/// Histories that are handed over to a device, or were: one of each other device of the account that has not come to its end,
/// and some that have, which make room.
pub(crate) const HISTORY_TRANSFERS_MAX: u64 = 16;
/// How long a history waits for its device to be in all conversations, in milliseconds: what is said there after that, the
/// device gets by itself.
pub(crate) const HISTORY_PATIENCE_MS: u64 = 10 * 60 * 1000;
/// How long nothing of a history may come before the rest is asked for again, in milliseconds; its sender may be away for
/// as long as it likes.
pub(crate) const HISTORY_ASK_MS: u64 = 10 * 60 * 1000;
/// The longest that this becomes, doubled with each time that nothing came of it: a day.
pub(crate) const HISTORY_ASK_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a history is owed to a device that is not in the account's log, in milliseconds: adding it failed.
pub(crate) const HISTORY_OWED_MS: u64 = 24 * 60 * 60 * 1000;
/// How often a session looks whether a history is to go on that nothing has come of: the waits above end without a word.
pub(crate) const HISTORY_AGAIN: Duration = Duration::from_secs(60);
/// Conversations that were read and accounts that were met, of which other devices of the account tell and this one knows
/// nothing else: twice what they hand to a device that is linked, and more.
pub(crate) const TOLD_MAX: u64 = 20_000;
/// Devices of the account whose names are kept: as many as its log can ever name.
pub(crate) const DEVICE_NAMES_MAX: u64 = gureum_proto::limits::LOG_ENTRIES_MAX;
/// Devices of the account that are to be told everything; one that is not heard asks again when it comes in.
pub(crate) const WISHES_MAX: u64 = 64;
/// The key of a setting, and its value, in bytes each.
pub(crate) const SETTING_BYTES_MAX: usize = 32;
/// Settings that are kept, those included that this program does not know.
pub(crate) const SETTINGS_MAX: u64 = 64;
/// Argon2id of a registration lock: memory in KiB, as with a passphrase. Every client must come to the same from a PIN: another
/// number here opens no lock that was made before.
pub(crate) const LOCK_MEMORY_KIB: u32 = 64 * 1024;
/// Its passes, likewise.
pub(crate) const LOCK_PASSES: u32 = 3;
/// Its lanes, likewise.
pub(crate) const LOCK_LANES: u32 = 1;
/// The least bytes of a PIN: fewer digits are guessed within the tries that the server allows.
pub(crate) const PIN_BYTES_MIN: usize = 4;
/// The most: a line, not a document.
pub(crate) const PIN_BYTES_MAX: usize = 64;
/// KeyPackages made in one transaction: as many as one upload takes.
pub(crate) const KEY_PACKAGES_MADE_MAX: usize = gureum_proto::limits::KEY_PACKAGES_MAX;
/// A device name, in bytes.
pub(crate) const DEVICE_NAME_BYTES_MAX: usize = gureum_proto::limits::DEVICE_NAME_BYTES_MAX;
/// Argon2id: memory in KiB, passes and lanes (the first recommended option of RFC 9106 needs 2 GiB; this is the
/// second, which fits a phone).
pub(crate) const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of Argon2id.
pub(crate) const ARGON2_PASSES: u32 = 3;
/// Lanes of Argon2id.
pub(crate) const ARGON2_LANES: u32 = 4;
/// The largest `kdf.json` that is read, in bytes.
pub(crate) const KDF_FILE_BYTES_MAX: u64 = 4096;
/// The most memory that a `kdf.json` may ask for, in KiB.
pub(crate) const KDF_MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes that a `kdf.json` may ask for.
pub(crate) const KDF_PASSES_MAX: u32 = 64;

const _: () = assert!(COUNTERS_SKIPPED >= 16 * COUNTERS_UNRESOLVED_MAX);
const _: () = assert!(FIRST_RENEWAL_WITHIN_MS < SELF_UPDATE_MS);
const _: () = assert!(ADDS_PER_COMMIT_MAX <= CLAIM_ACCOUNTS_MAX);
const _: () = assert!(KEY_PACKAGE_RENEW_MS * 2 < KEY_PACKAGE_LIFETIME_S * 1000);
const _: () = assert!(TEXT_BYTES_MAX + 4096 <= CIPHERTEXT_BYTES_MAX);
const _: () = assert!(RECORDS_MAX * 160 + 4096 <= CIPHERTEXT_BYTES_MAX);
const _: () = assert!(DEVICE_NAME_BYTES_MAX + 32 <= 160 && 2 * SETTING_BYTES_MAX + 40 <= 160);
const _: () = assert!(TEXT_BYTES_MAX + RECEIPT_ACCOUNTS_MAX * 160 + 1024 <= HISTORY_PART_BYTES_MAX);
const _: () = assert!(HISTORY_PART_BYTES_MAX + 4096 <= CIPHERTEXT_BYTES_MAX);
const _: () = assert!(DEVICES_MAX as u64 <= HISTORY_TRANSFERS_MAX);
const _: () = assert!(RECEIPT_IDS_MAX * 32 + 4096 <= CIPHERTEXT_BYTES_MAX);

// ---- client ---------------------------------------------------------------------------------------------

/// Calls that wait for the database's thread.
pub(crate) const VAULT_JOBS_MAX: usize = 32;
/// Commands that wait for a session.
pub(crate) const COMMANDS_MAX: usize = 64;
/// Events of a session that wait for their reader.
pub(crate) const CLIENT_EVENTS_MAX: usize = 64;
/// Callers that wait for the result of their message.
pub(crate) const WAITING_MAX: usize = 1024;
/// Deliveries read ahead of the database.
pub(crate) const DELIVERIES_AHEAD_MAX: usize = 1024;
/// Steps taken to meet one need of the vault: pages of a commit log or a device log.
pub(crate) const NEED_STEPS_MAX: usize = 256;
/// How often the same need may come back before the inbox counts as stuck.
pub(crate) const NEED_REPEATS_MAX: usize = 3;
/// External commits in a row that may lose against another commit.
pub(crate) const REJOIN_RACES_MAX: usize = 4;
/// How often a device answers one that it adds, or revokes one, while others change the account's log at the same time.
pub(crate) const ADD_DEVICE_TRIES_MAX: usize = 5;
/// Time for the answer of a device that is being added: the server waits 30 s for it.
pub(crate) const LINK_ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// How often a device that has been added and does not wait just now is offered what it needs.
pub(crate) const LINK_FINISH_TRIES_MAX: u32 = 10;
/// The wait between two such attempts: a device connects again sooner than that, mostly.
pub(crate) const LINK_FINISH_WAIT: Duration = Duration::from_millis(500);
/// How long whoever adds a device takes its own inbox first, where it must: the new one waits meanwhile, and no other device
/// of the account may answer it in the place of this one for 2 minutes.
pub(crate) const LINK_INBOX_MAX: Duration = Duration::from_secs(20);
/// How often a device that was answered on an earlier connection looks whether it was added meanwhile.
pub(crate) const LINK_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Connections on which a device tries to finish what a person has agreed to.
pub(crate) const APPROVE_CONNECTIONS_MAX: usize = 10;
/// Attempts to recover an account whose log grows at the same time.
pub(crate) const RECOVER_TRIES_MAX: usize = 5;
/// Commits in a row that remove a revoked device and may lose against another commit.
pub(crate) const REMOVAL_RACES_MAX: usize = 8;
/// How long a device leaves the removal of a revoked one to others, at most: whoever wants to send does it at once.
pub(crate) const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);
/// Likewise where only groups wait for it: many may do it there, and one is enough.
pub(crate) const GROUP_REMOVAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before a change of a group is tried again after another commit came first; doubled with each such loss
/// in a row.
pub(crate) const CHANGE_AGAIN_FIRST: Duration = Duration::from_millis(20);
/// The most turns that are waited, of as long as an attempt takes: with as many at it, one in three attempts is won.
pub(crate) const CHANGE_TURNS_MAX: u32 = 64;
/// The longest such wait, before jitter.
pub(crate) const CHANGE_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Losses in a row after each of which that wait is halved: with 50 at it one attempt in five is won, and one client in four
/// loses more than these. Without that, the longest wait among 50 was 76 s, and one had changed nothing in a minute.
pub(crate) const CHANGE_LOSSES_FAIR: u32 = 6;
/// Attempts in a row to change a group in which nothing could be done, before whoever waits is told that it is kept.
pub(crate) const CHANGE_TRIES_MAX: u32 = 10;
/// How long an account that was looked up is not looked up again only because it is added to a group: a thousand people are
/// added within minutes of being looked up. What has changed since shows, as the KeyPackage of a device that is not in the
/// log; and the server holds each commit to the logs of that moment.
pub(crate) const LOOKED_UP_FRESH: Duration = Duration::from_secs(5 * 60);
/// Accounts of which that is remembered: two groups of the largest kind. Past it they are looked up again.
pub(crate) const LOOKED_UP_MAX: usize = 2 * CONVERSATION_ACCOUNTS_MAX;
/// Pages of a listing of conversations, or of who is in one.
pub(crate) const LISTING_PAGES_MAX: usize = 4096;
/// The least time between two answers to what the server says of this device's KeyPackages.
pub(crate) const REFILL_PAUSE: Duration = Duration::from_secs(2);
/// One-time KeyPackages that the directory is filled up to.
pub(crate) const KEY_PACKAGES_FULL: u32 = 20;
/// Below so many, the directory is filled up.
pub(crate) const KEY_PACKAGES_LOW: u32 = gureum_proto::limits::KEY_PACKAGES_LOW;
/// Decisions about people that the server is told in a row, before a session looks after everything else.
pub(crate) const DECISIONS_AT_ONCE: usize = 32;
/// How long after a server was asked what it knows of such decisions, and was older than that request, it is asked again: it
/// closes the connection for it.
pub(crate) const DECISIONS_AGAIN_MS: u64 = 60 * 60 * 1000;
/// How long a conversation made elsewhere may take to arrive as a Welcome before this device joins by itself.
pub(crate) const WELCOME_PATIENCE: Duration = Duration::from_millis(500);
/// How long a command waits for the inbox to be taken first; a long absence is not to hold it up.
pub(crate) const COMMANDS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a command that must come after what the inbox holds waits while nothing more of that is taken: the longest a lost
/// connection goes unnoticed, and once more.
pub(crate) const INBOX_STALL: Duration = Duration::from_secs(60);
/// Between two looks at how far another process has taken the inbox: people wait for what they have typed.
pub(crate) const INBOX_LOOK_WAIT: Duration = Duration::from_millis(200);
/// How long receipts wait for more that can go with them.
pub(crate) const RECEIPTS_TOGETHER: Duration = Duration::from_secs(1);
/// How much longer, at most, where another device of the account may say the same: one of them is enough.
pub(crate) const RECEIPTS_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is said again that somebody types.
pub(crate) const TYPING_EVERY: Duration = Duration::from_secs(3);
/// How long somebody counts as typing who has said so: one that is lost is not to be noticed.
pub(crate) const TYPING_SHOWN: Duration = Duration::from_secs(7);
/// Typing indicators that are looked at within [`TYPING_HEARD_WINDOW`].
pub(crate) const TYPING_HEARD_MAX: u32 = 32;
/// The window of [`TYPING_HEARD_MAX`].
pub(crate) const TYPING_HEARD_WINDOW: Duration = Duration::from_secs(1);
/// Entries of the history among which a message is looked for that another process has sent.
pub(crate) const HISTORY_SEARCHED: u32 = 256;

const _: () = assert!(TYPING_SHOWN.as_secs() > 2 * TYPING_EVERY.as_secs());
const _: () = assert!(KEY_PACKAGES_LOW <= KEY_PACKAGES_FULL);
const _: () = assert!(KEY_PACKAGES_FULL as usize <= gureum_proto::limits::KEY_PACKAGES_MAX);

// ---- load tester ----------------------------------------------------------------------------------------

/// Pairs of one load tester; each holds two connections, and with texts two databases.
pub const LOAD_PAIRS_MAX: usize = 5_000;
/// Accounts with a home in one load tester.
pub const LOAD_ACCOUNTS_MAX: usize = 2 * LOAD_PAIRS_MAX;
/// Groups of one load tester.
pub const LOAD_GROUPS_MAX: usize = 1_000;
/// Accounts of one of its groups: as many as a conversation may have.
pub const LOAD_MEMBERS_MAX: usize = gureum_proto::limits::CONVERSATION_ACCOUNTS_MAX;
/// Silent devices of one load tester.
pub const LOAD_DEVICES_MAX: usize = 60_000;
/// Messages that are stored for one absent device. Servers keep 100,000 entries of an inbox unless they are told otherwise.
pub const LOAD_MESSAGES_MAX: u64 = 10_000_000;
/// Connections that begin at once in a storm, at most: a server has room for 512 of one address that have not proven
/// themselves.
pub const LOAD_AT_ONCE_MAX: usize = 500;
/// The longest load, in seconds: a day.
pub const LOAD_DURATION_S_MAX: u64 = 24 * 60 * 60;
/// Seconds that a report tells apart; each takes about 70 bytes. More than the longest load and its tail have.
pub(crate) const LOAD_MOMENTS_MAX: usize = 100_000;
/// Accounts that register at once: more would measure the server's patience with strangers.
pub(crate) const LOAD_SET_UP_AT_ONCE: usize = 16;
/// Members that are added to a group with one command: as many as one commit takes.
pub(crate) const LOAD_ADDS_AT_ONCE: usize = gureum_proto::limits::ADDS_PER_COMMIT_MAX;
/// How often a group that is being made is looked at.
pub(crate) const LOAD_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Attempts to register or connect that one device makes.
pub(crate) const LOAD_TRIES_MAX: u64 = 50;
/// How long such attempts may take together.
pub(crate) const LOAD_PATIENCE: Duration = Duration::from_secs(120);
/// How long to look for a server at all: with the last attempt's own time-out, an address where there is none is
/// known within 15 s.
pub(crate) const LOAD_REACH: Duration = Duration::from_secs(8);
/// Connections that share a UDP socket.
pub(crate) const LOAD_CONNECTIONS_PER_SOCKET: usize = 16;
/// What each of these sockets asks to be able to hold: with the system's default of 208 KiB it drops packets while the
/// load tester is at something else, and what is measured then is how they are sent again.
pub(crate) const LOAD_SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// Sets of histograms; each takes 0.6 MB, and all are added up each second.
pub(crate) const LOAD_LANES_MAX: usize = 4;
/// Errors of devices that a report names.
pub(crate) const LOAD_ERRORS_MAX: usize = 16;
/// Points of a line of a plot, which is 1,060 pixels wide: more cannot be told apart.
pub(crate) const LOAD_PLOT_POINTS_MAX: usize = 1_000;
/// Lines of a plot's title.
pub(crate) const LOAD_PLOT_LINES_MAX: usize = 4;
/// Rates of one sweep.
pub(crate) const LOAD_RATES_MAX: usize = 32;
/// The highest of them, in messages a second: far beyond any server, and where the axis of a plot ends.
pub(crate) const LOAD_RATE_MAX: f64 = 1e9;
/// For how long nothing more may come before what is missing counts as missing.
pub(crate) const LOAD_TAIL: Duration = Duration::from_secs(10);
/// How often is looked whether everything has come.
pub(crate) const LOAD_LOOK: Duration = Duration::from_millis(10);
/// How long a server that is to be started again may take to go, and to be there again: who does it by hand needs a while, and
/// devices of a server that was killed notice it only when they next say that they are there.
pub(crate) const LOAD_RESTART: Duration = Duration::from_secs(300);
/// Between two attempts to reach a server that restarts.
pub(crate) const LOAD_PROBE: Duration = Duration::from_millis(20);
/// How often a device of a mixed load that has heard something confirms it: as often as a client sends receipts.
pub(crate) const LOAD_RECEIPTS_EVERY: Duration = RECEIPTS_TOGETHER;
/// The largest page of metrics that is read, in bytes: a server's has 40 KB.
pub(crate) const LOAD_METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long such a page may take.
pub(crate) const LOAD_METRICS_TIMEOUT: Duration = Duration::from_secs(5);
