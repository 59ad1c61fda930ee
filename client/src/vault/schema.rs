//! The tables, and the opening of the database file.

use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use zeroize::Zeroizing;

use super::key::Key;
use super::{OpenError, VaultError};
use crate::e2ee;
use crate::limits::BUSY_TIMEOUT_MS;

/// The format of the tables; one that is newer is not touched.
const FORMAT: i64 = 19;

/// Ids are blobs of 16 bytes, times milliseconds since 1970.
const TABLES: &str = "
CREATE TABLE profile (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server TEXT NOT NULL,
    device_name TEXT NOT NULL,
    proof_seed BLOB NOT NULL,
    mls_seed BLOB NOT NULL,
    recovery_entropy BLOB,             -- until its words were shown
    root_entry BLOB NOT NULL,
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    handle TEXT,                       -- from when the registration is done
    log_entry INTEGER NOT NULL,
    cursor_seq INTEGER NOT NULL,
    cursor_count INTEGER NOT NULL,
    send_counter INTEGER NOT NULL      -- the highest given out
);
CREATE TABLE contact (
    account BLOB PRIMARY KEY,
    handle TEXT NOT NULL UNIQUE
) WITHOUT ROWID;
CREATE TABLE log_entry (
    account BLOB NOT NULL,
    number INTEGER NOT NULL,
    entry BLOB NOT NULL,
    PRIMARY KEY (account, number)
) WITHOUT ROWID;
CREATE TABLE conversation (
    id BLOB PRIMARY KEY,
    peer BLOB NOT NULL,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,            -- of this device's group; 0: none
    epoch_seen INTEGER NOT NULL,       -- the highest that was ever shown
    renewed_ms INTEGER NOT NULL,       -- when this device's keys in it were made; 0: due
    group_info BLOB, tree BLOB, welcome BLOB   -- while it is being created
) WITHOUT ROWID;
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,             -- 0 text, 1 gap, 2 unreadable, 3 restarted, 4 safety number
    conversation BLOB,
    content_id BLOB,
    message_id BLOB,
    sender_account BLOB,
    sender_device BLOB,
    own INTEGER NOT NULL DEFAULT 0,
    time_ms INTEGER NOT NULL,
    number INTEGER NOT NULL,
    seq INTEGER,                       -- of a gap: the first that is gone
    to_seq INTEGER,
    count INTEGER,
    reason INTEGER,
    text TEXT,                         -- of an unreadable one: why; of a safety number: both, a line each
    UNIQUE (conversation, sender_device, content_id)
);
CREATE INDEX message_by_time ON message (time_ms, number, id);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation BLOB NOT NULL,
    content_id BLOB NOT NULL,
    text TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0,
    counter INTEGER UNIQUE,
    epoch INTEGER,                     -- of the ciphertext; without one: too old an epoch to try again in
    ciphertext BLOB
);
CREATE TABLE pending_commit (
    conversation BLOB PRIMARY KEY,
    counter INTEGER NOT NULL UNIQUE,
    epoch INTEGER NOT NULL,            -- the one it ends
    message BLOB NOT NULL,
    group_info BLOB NOT NULL,
    welcome BLOB NOT NULL,
    rejoined BLOB                      -- of an external commit: the group as it will be
) WITHOUT ROWID;
CREATE TABLE rejoin_attempt (
    conversation BLOB NOT NULL,
    at_ms INTEGER NOT NULL
);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message INTEGER,                   -- a row of `message`, or else
    detail TEXT                        -- an event as JSON
);
";

/// Since format 2: when the KeyPackages that are kept were made.
const KEY_PACKAGES: &str = "
CREATE TABLE key_package (
    reference BLOB PRIMARY KEY,
    made_ms INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Since format 3: conversations in which the server has gone back, and marks of it in the history. The tables are the
/// same; their rows are not ones that a program of format 2 can read.
const GONE_BACK: &str = "";

/// Since format 4: revoked devices that this device has seen removed from a conversation.
const EXPELLED: &str = "
CREATE TABLE expelled (
    conversation BLOB NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (conversation, device)
) WITHOUT ROWID;
";

/// Since format 5: revoked devices that have a leaf still, and the epoch in which this device first came into a
/// conversation. From before, it counts as having been in from the first on.
const REMOVAL: &str = "
ALTER TABLE conversation ADD COLUMN joined_epoch INTEGER NOT NULL DEFAULT 0;
UPDATE conversation SET joined_epoch = 1;
CREATE TABLE removal (
    conversation BLOB NOT NULL,
    device BLOB NOT NULL,              -- zeros: one that the server alone knows of yet
    PRIMARY KEY (conversation, device)
) WITHOUT ROWID;
";

/// Since format 6: where this database stands in the device's life, and, where it was an older copy, the conversations
/// whose keys are to be used for reading alone until this device has joined anew.
const LIFE: &str = "
ALTER TABLE profile ADD COLUMN life INTEGER NOT NULL DEFAULT 0;
ALTER TABLE profile ADD COLUMN life_token BLOB;    -- none before the first connection
ALTER TABLE profile ADD COLUMN life_next BLOB;     -- from when it is claimed until the server has confirmed it
ALTER TABLE profile ADD COLUMN taking_over INTEGER NOT NULL DEFAULT 0;
ALTER TABLE profile ADD COLUMN restored_seq INTEGER NOT NULL DEFAULT 0;  -- the end of the inbox when it last took over
ALTER TABLE conversation ADD COLUMN must_rejoin INTEGER NOT NULL DEFAULT 0;
";

/// Since format 7: a device before its account has it, and what it is told when it comes in.
const LINKING: &str = "
CREATE TABLE draft (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server TEXT NOT NULL,
    device_name TEXT NOT NULL,
    proof_seed BLOB NOT NULL,
    mls_seed BLOB NOT NULL,
    seal_seed BLOB NOT NULL,           -- of the key in the code
    secret BLOB NOT NULL,              -- the one in the code
    account BLOB,                      -- from when one answered, or is brought back
    handle TEXT,
    log_entry INTEGER,
    bundle_key BLOB
);
CREATE TABLE log_pin (                 -- of logs that another device has seen and this one not yet
    account BLOB PRIMARY KEY,
    length INTEGER NOT NULL,
    head BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE foretold (                -- conversations of which another device has told
    conversation BLOB PRIMARY KEY,
    epoch INTEGER NOT NULL,            -- the highest that it has seen
    place INTEGER NOT NULL             -- 0: the one with the newest message
) WITHOUT ROWID;
CREATE TABLE device_name (             -- of this account's devices
    device BLOB PRIMARY KEY,
    name TEXT NOT NULL
) WITHOUT ROWID;
";

/// Since format 8: receipts, how far conversations were read, and settings. What was there before counts as read.
const RECEIPTS: &str = "
ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;   -- 0 text, 1 receipt
ALTER TABLE outbox ADD COLUMN payload BLOB;                      -- the content of what is no text
CREATE TABLE receipt (
    conversation BLOB NOT NULL,
    content_id BLOB NOT NULL,          -- of the message, whose row may come later
    account BLOB NOT NULL,             -- who has it
    kind INTEGER NOT NULL,             -- 1 delivered, 2 read
    time_ms INTEGER NOT NULL,
    PRIMARY KEY (conversation, content_id, account, kind)
) WITHOUT ROWID;
CREATE TABLE receipt_owed (
    message INTEGER PRIMARY KEY,       -- a row of `message`
    kind INTEGER NOT NULL
);
CREATE TABLE mark (
    conversation BLOB PRIMARY KEY,
    read_number INTEGER NOT NULL       -- up to here everything was read
) WITHOUT ROWID;
CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX message_by_content ON message (conversation, content_id);
CREATE INDEX message_by_number ON message (conversation, number);
INSERT INTO mark (conversation, read_number)
    SELECT conversation, max(number) FROM message WHERE kind IN (0, 2) GROUP BY conversation;
";

/// Since format 9: conversations of many, who is in each, what this device wishes to change in one, and who leaves. The
/// KeyPackages of before do not say that their device can be in a group: they count as old, so that new ones are made.
const GROUPS: &str = "
CREATE TABLE conversation_of_many (
    id BLOB PRIMARY KEY,
    kind INTEGER NOT NULL,             -- 0 direct, 1 group
    peer BLOB,                         -- of a direct one: the other account
    name TEXT,                         -- of a group, as its authenticated state says
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    epoch_seen INTEGER NOT NULL,
    renewed_ms INTEGER NOT NULL,
    joined_epoch INTEGER NOT NULL DEFAULT 0,
    must_rejoin INTEGER NOT NULL DEFAULT 0,
    group_info BLOB, tree BLOB, welcome BLOB
) WITHOUT ROWID;
INSERT INTO conversation_of_many
    SELECT id, 0, peer, NULL, state, epoch, epoch_seen, renewed_ms, joined_epoch, must_rejoin, group_info, tree, welcome
    FROM conversation;
DROP TABLE conversation;
ALTER TABLE conversation_of_many RENAME TO conversation;
CREATE TABLE roster (                  -- the leaves, of conversations that were joined since
    conversation BLOB NOT NULL,
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (conversation, account, device)
) WITHOUT ROWID;
CREATE INDEX roster_by_account ON roster (account);
CREATE TABLE intent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation BLOB NOT NULL,
    kind INTEGER NOT NULL,             -- 0 add, 1 remove, 2 rename, 3 make an admin, 4 make one no more
    account BLOB,
    text TEXT,
    state INTEGER NOT NULL DEFAULT 0,  -- 0 open, 1 done, 2 refused
    why TEXT,                          -- of a refused one
    event INTEGER,                     -- what tells of it, until whoever wished it has been told
    counter INTEGER,                   -- of the pending commit that it is in
    created_ms INTEGER NOT NULL
);
CREATE TABLE claimed_package (         -- for an intent that adds somebody
    intent INTEGER NOT NULL,
    device BLOB NOT NULL,
    package BLOB NOT NULL,
    PRIMARY KEY (intent, device)
) WITHOUT ROWID;
CREATE TABLE leave (                   -- statements of accounts that still have a leaf
    conversation BLOB NOT NULL,
    account BLOB NOT NULL,
    statement BLOB NOT NULL,
    PRIMARY KEY (conversation, account)
) WITHOUT ROWID;
CREATE VIEW to_remove AS SELECT conversation FROM removal UNION ALL SELECT conversation FROM leave;
UPDATE key_package SET made_ms = max(0, made_ms - 2419200000);
";

/// Since format 10: handles that the server shows for another account than before, and messages that a conversation's
/// numbers promise. Of what was there before, nothing is known to be missing.
const TRUST: &str = "
CREATE TABLE contact_by_account (
    account BLOB PRIMARY KEY,
    handle TEXT NOT NULL,
    replaced_by BLOB,                  -- the account for which the server shows the handle instead
    former INTEGER NOT NULL DEFAULT 0  -- 1: a person was told so when they asked for it, and goes on with that one
) WITHOUT ROWID;
INSERT INTO contact_by_account (account, handle) SELECT account, handle FROM contact;
DROP TABLE contact;
ALTER TABLE contact_by_account RENAME TO contact;
CREATE UNIQUE INDEX contact_by_handle ON contact (handle) WHERE former = 0;
CREATE TABLE numbering (               -- conversations of which this device knows where their numbers stand
    conversation BLOB PRIMARY KEY,
    next_number INTEGER NOT NULL       -- the lowest that no message which came has passed
) WITHOUT ROWID;
CREATE TABLE hole (
    conversation BLOB NOT NULL,
    from_number INTEGER NOT NULL,
    to_number INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (conversation, from_number)
) WITHOUT ROWID;
ALTER TABLE foretold ADD COLUMN told INTEGER NOT NULL DEFAULT 0;  -- 1: that the server does not show it
";

/// Since format 11: what the devices of an account tell one another. What was decided before gives way to what is decided
/// since. The kind of a conversation may be 2 from here on, that of the account's own devices, and that of a row of the
/// outbox 2, records for them.
const IN_STEP: &str = "
ALTER TABLE setting ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
ALTER TABLE setting ADD COLUMN device BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
ALTER TABLE device_name ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
CREATE TABLE owed_record (             -- what the other devices are to be told, as it is when that goes out
    kind INTEGER NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE forked_log (              -- accounts of which it was told that another device was shown another log
    account BLOB PRIMARY KEY
) WITHOUT ROWID;
";

/// Since format 12: of whom the server has said that they do not exist any more.
const ACCOUNTS_GONE: &str = "
CREATE TABLE gone (
    conversation BLOB NOT NULL,
    account BLOB NOT NULL,
    PRIMARY KEY (conversation, account)
) WITHOUT ROWID;
";

/// Since format 13: groups whose name could be a handle, of which the server has said that it is nobody's.
const NAMES_ASKED: &str = "
CREATE TABLE name_asked (
    conversation BLOB PRIMARY KEY,
    handle TEXT NOT NULL               -- which the name was when it was asked
) WITHOUT ROWID;
";

/// Since format 14: histories that are handed over from one device of an account to another. The kind of a row of the outbox
/// may be 3 from here on, a part of one. A message that was handed over has no `seq`, as one that this device has sent.
const HISTORY: &str = "
CREATE TABLE hand_over (               -- devices that are to get this one's history
    device BLOB PRIMARY KEY,
    transfer BLOB NOT NULL,            -- the transfer's name
    owed_ms INTEGER NOT NULL,          -- since when
    number INTEGER NOT NULL DEFAULT 0,           -- of the next part,
    place INTEGER NOT NULL DEFAULT 0,            -- the row of `message` after which that begins,
    messages INTEGER NOT NULL DEFAULT 0,         -- and how many go before it
    taken_number INTEGER NOT NULL DEFAULT 0,     -- the same as the device has said it last
    taken_place INTEGER NOT NULL DEFAULT 0,
    taken_messages INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    is_cut INTEGER NOT NULL DEFAULT 0,           -- 1: the last part is made,
    is_done INTEGER NOT NULL DEFAULT 0           -- and 1: the device has it
) WITHOUT ROWID;
CREATE TABLE handed_over (             -- what comes of other devices' histories, or has come
    transfer BLOB PRIMARY KEY,
    device BLOB NOT NULL,
    number INTEGER NOT NULL DEFAULT 0,           -- of the part that comes next,
    place INTEGER NOT NULL DEFAULT 0,            -- where in the sender's history that begins,
    messages INTEGER NOT NULL DEFAULT 0,         -- and how many came before it
    total INTEGER NOT NULL DEFAULT 0,
    is_done INTEGER NOT NULL DEFAULT 0,
    is_owed INTEGER NOT NULL DEFAULT 0,          -- 1: the sender is to be told this,
    asks INTEGER NOT NULL DEFAULT 0,             -- and 1: to go on from here
    asked_number INTEGER,                        -- from where that was asked last
    heard_ms INTEGER NOT NULL                    -- when something came or was asked for
) WITHOUT ROWID;
CREATE TABLE past_conversation (       -- of which such a history tells: this device may be in it, or never be
    id BLOB PRIMARY KEY,
    peer BLOB,
    name TEXT
) WITHOUT ROWID;
";

/// Since format 15: which device has told of a log that is longer than the one here. Of what was told before it is not
/// known. A setting counts for no more than any device decides, and a stopped conversation of the own devices is joined
/// again. `is_done` in `handed_over` may be 2 from here on: the rest cannot come.
const OWN_DEVICES: &str = "
CREATE TABLE log_pin_by_device (
    account BLOB NOT NULL,
    device BLOB NOT NULL,              -- zeros: the one that has linked this one, or not known
    length INTEGER NOT NULL,
    head BLOB NOT NULL,
    PRIMARY KEY (account, device)
) WITHOUT ROWID;
INSERT INTO log_pin_by_device (account, device, length, head)
    SELECT account, x'00000000000000000000000000000000', length, head FROM log_pin;
DROP TABLE log_pin;
ALTER TABLE log_pin_by_device RENAME TO log_pin;
UPDATE setting SET stamp = 0 WHERE stamp > 4611686018427387904;
UPDATE conversation SET state = 2, epoch = 0 WHERE kind = 2 AND state = 3;
ALTER TABLE handed_over                -- for how long nothing may come before it is asked for again
    ADD COLUMN wait_ms INTEGER NOT NULL DEFAULT 600000;
";

/// Since format 16: how often a device that shows a code was answered; each time it tells something else.
const APPROVALS: &str = "
ALTER TABLE draft ADD COLUMN approvals INTEGER NOT NULL DEFAULT 0;
";

/// Since format 17: where this device is woken, the account's phone number, whose number is known, and what a person has
/// decided about people and conversations. Of what was decided, the greater stamp counts, then the greater device. Every
/// conversation with others that is there was wanted.
const PEOPLE: &str = "
CREATE TABLE push_target (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    target BLOB,                       -- as the server is told it
    key BLOB,                          -- of the receiver on this machine: its secret key, its auth secret and its path
    taken INTEGER NOT NULL DEFAULT 0,  -- 1: the server has said that it has this target
    dropped INTEGER NOT NULL DEFAULT 0 -- how often it did not have it any more after that
);
CREATE TABLE own_phone (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    phone TEXT,
    moved_ms INTEGER NOT NULL DEFAULT 0,
    tried_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE contact_phone (           -- by which number somebody was looked for
    phone TEXT PRIMARY KEY,
    account BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE relation (                -- how this account stands to another
    account BLOB PRIMARY KEY,
    relation INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    device BLOB NOT NULL,
    told INTEGER NOT NULL              -- 1: to the server
) WITHOUT ROWID;
CREATE TABLE preference (              -- how it takes a conversation
    conversation BLOB PRIMARY KEY,
    accepted INTEGER NOT NULL,
    muted_until_ms INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    device BLOB NOT NULL,
    told INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO preference SELECT id, 1, 0, 0, zeroblob(16), 0 FROM conversation WHERE kind != 2;
";

/// Whether the server has said what it knows of what this account has decided about people and conversations: 0 it was not
/// asked, 1 it has, and else when it was asked and was older than such requests.
const DECISIONS: &str = "
ALTER TABLE profile ADD COLUMN decisions_heard INTEGER NOT NULL DEFAULT 0;
";

/// Since format 18: the epoch from which on this account was out of a group, which a Welcome must go beyond that brings it
/// back.
const LEFT_EPOCH: &str = "
ALTER TABLE conversation ADD COLUMN left_epoch INTEGER;  -- NULL: it was not, or is in it again
UPDATE conversation SET left_epoch = epoch_seen WHERE state = 6;
";

/// What leads from each format to the next.
const STEPS: [&str; 19] = [
    TABLES,
    KEY_PACKAGES,
    GONE_BACK,
    EXPELLED,
    REMOVAL,
    LIFE,
    LINKING,
    RECEIPTS,
    GROUPS,
    TRUST,
    IN_STEP,
    ACCOUNTS_GONE,
    NAMES_ASKED,
    HISTORY,
    OWN_DEVICES,
    APPROVALS,
    PEOPLE,
    DECISIONS,
    LEFT_EPOCH,
];

const _: () = assert!(STEPS.len() == 19 && FORMAT == 19, "a step for each format");

/// Opens the database file, which must exist unless `create`.
pub(super) fn open(path: &Path, key: &Key, create: bool) -> Result<Connection, OpenError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let mut connection = Connection::open_with_flags(path, flags).map_err(VaultError::from)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS)).map_err(VaultError::from)?;
    unlock(&connection, key)?;
    let found = format(&connection)?;
    if found > FORMAT {
        return Err(OpenError::Newer { found, known: FORMAT });
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
             PRAGMA temp_store = MEMORY;",
        )
        .map_err(VaultError::from)?;
    if found < FORMAT {
        make_tables(&mut connection)?;
    }
    Ok(connection)
}

fn unlock(connection: &Connection, key: &Key) -> Result<(), OpenError> {
    let hex = Zeroizing::new(HEXLOWER.encode(key.as_slice()));
    let pragma = Zeroizing::new(format!("PRAGMA key = \"x'{}'\"; PRAGMA cipher_log_level = NONE;", hex.as_str()));
    connection.execute_batch(&pragma).map_err(VaultError::from)?;
    let probe = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
    match probe {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => Err(OpenError::WrongKey),
        Err(error) => Err(VaultError::from(error).into()),
    }
}

fn format(connection: &Connection) -> Result<i64, VaultError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

fn make_tables(connection: &mut Connection) -> Result<(), OpenError> {
    e2ee::migrate(connection).map_err(VaultError::from)?;
    let make = |connection: &mut Connection| -> Result<(), VaultError> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = usize::try_from(format(&transaction)?).map_err(|_| VaultError::Damaged("format"))?;
        for step in STEPS.iter().skip(found) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", FORMAT)?;
        Ok(transaction.commit()?)
    };
    Ok(make(connection)?)
}
