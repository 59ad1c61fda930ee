//! What copies of a data directory can still tell: how many sealed bodies a database and a keyring open together, for
//! copies from before and after an expiry.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::MessageId;
use gureum_server::seal::{Keyring, SealError, period_ms};
use gureum_server::store::record::SealedMessage;
use gureum_server::store::rocks::RocksStore;
use gureum_server::store::{Batch, Durability, Expiry, Family, Record, Store, key};
use gureum_server::time::{Clock, ManualClock};
use serde::Serialize;

use super::raw::{self, Needles};
use crate::disk::files;

const HOUR_MS: u64 = 3_600_000;
const RETENTION_MS: u64 = 72 * HOUR_MS;
const START_MS: u64 = 1_800_000_000_000;
/// What every body of the proof begins with, before it is sealed.
const PLAIN: &[u8] = b"a header and a ciphertext, as devices send them";

/// What a database and a keyring open together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readable {
    /// Sealed bodies in the database.
    pub bodies: u64,
    /// Those that open.
    pub opened: u64,
    /// Those whose key is not in the keyring.
    pub key_gone: u64,
    /// Those that their key does not open.
    pub forged: u64,
}

/// Tries to open every sealed body of a database with a keyring. Both directories are copies: opening a keyring
/// finishes what a crash interrupted.
///
/// # Panics
/// When one of them is damaged.
#[must_use]
pub fn readable(database: &Path, keyring: &Path, retention_ms: u64) -> Readable {
    let keyring = Keyring::open(keyring, None, retention_ms).expect("the keyring opens");
    let mut found = Readable::default();
    raw::each(&raw::open(database), Family::Message, |key, value| {
        let id = MessageId::from_bytes(key.try_into().expect("a message's key"));
        let sealed = SealedMessage::decode(&Bytes::copy_from_slice(value)).expect("a sealed message");
        found.bodies += 1;
        match keyring.open_message(&id, &sealed) {
            Ok(_) => found.opened += 1,
            Err(SealError::KeyGone { .. }) => found.key_gone += 1,
            Err(_) => found.forged += 1,
        }
    });
    found
}

/// The bytes of the wrapped keys in a keyring's directory: not the master key, and not the secrets that stay for good.
#[must_use]
pub fn wrapped_keys(keyring: &Path) -> Needles {
    let mut needles = Needles::default();
    for (path, bytes) in files(keyring) {
        if path.extension().is_some_and(|ending| ending == "key") && !path.ends_with("master.key") {
            // The first byte is the version, the same for all.
            needles.add(&bytes[1..]);
        }
    }
    needles
}

/// Copies a directory with all below it.
///
/// # Panics
/// When the disk refuses.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room for a copy");
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("below the copy")).expect("room for a copy");
        fs::write(target, bytes).expect("room for a copy");
    }
}

/// What each pair of copies opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Messages sealed before the first copy.
    pub messages: u64,
    /// Database and keyring from before.
    pub before: Readable,
    /// The database from before with the keyring when half of the hours have expired.
    pub before_with_half_keys: Readable,
    /// The database from before with the keyring after the expiry.
    pub before_with_later_keys: Readable,
    /// Database and keyring after the expiry.
    pub after: Readable,
    /// The database after the expiry with the keyring from before.
    pub after_with_earlier_keys: Readable,
    /// Wrapped keys that were looked for in all files after the expiry.
    pub keys: usize,
    /// How many of them were found.
    pub keys_found: usize,
}

/// Seals so many messages over the hours of one retention, and compares copies from before, amid and after their expiry.
///
/// # Panics
/// When the disk refuses, or a copy opens more or less than it must.
#[must_use]
pub fn run(messages: u64) -> Report {
    let home = tempfile::tempdir().expect("room for a directory");
    let [live, before, half, after] = ["live", "before", "half", "after"].map(|name| home.path().join(name));
    let time = Arc::new(ManualClock::at(START_MS));
    let clock = Arc::new(Clock::resume(Arc::clone(&time) as _, RETENTION_MS, None).expect("a first start"));
    let (retention_ms, commit_retention_ms) = (RETENTION_MS, 10 * RETENTION_MS);
    let expiry = Expiry { clock, retention_ms, commit_retention_ms, floors: Arc::default() };
    let round_ms = expiry.periods().round_ms;
    let store = RocksStore::open(&live, expiry).expect("a new directory opens");
    let keyring = Keyring::open(&live.join("keys"), None, RETENTION_MS).expect("a new keyring");
    let mut passed_ms = 0;
    let mut pass = |until_ms: u64| {
        while passed_ms < until_ms {
            passed_ms += round_ms;
            time.advance(round_ms);
            keyring.tick(START_MS + passed_ms).expect("a key is made");
            keyring.destroy_expired(START_MS + passed_ms).expect("a key is destroyed");
            store.reclaim().expect("the disk is reclaimed");
        }
    };

    let span_ms = RETENTION_MS - HOUR_MS;
    for at in 0..messages {
        let sent_ms = u64::try_from(u128::from(span_ms) * u128::from(at) / u128::from(messages)).expect("within days");
        pass(sent_ms);
        write(&store, &keyring, MessageId::new(START_MS + sent_ms, u128::from(at)));
    }
    copy(&live, &before);
    let keys = wrapped_keys(&live.join("keys"));
    pass(RETENTION_MS + span_ms / 2);
    copy(&live, &half);
    pass(2 * RETENTION_MS + 6 * HOUR_MS);
    copy(&live, &after);

    let open = |database: &Path, keys: &Path| readable(&database.join("db"), &keys.join("keys"), RETENTION_MS);
    let report = Report {
        messages,
        before: open(&before, &before),
        before_with_half_keys: open(&before, &half),
        before_with_later_keys: open(&before, &after),
        after: open(&after, &after),
        after_with_earlier_keys: open(&after, &before),
        keys: keys.len(),
        keys_found: keys.count_in(&live),
    };
    check(&report);
    report
}

fn write(store: &RocksStore, keyring: &Keyring, id: MessageId) {
    let content = [PLAIN, id.as_bytes()].concat();
    let sealed = keyring.seal(&id, &content).expect("a key is there");
    let mut batch = Batch::new();
    batch.put_record(Family::Message, key::message(&id), &sealed);
    store.write(&batch, Durability::Lazy).expect("the disk takes it");
}

fn check(report: &Report) {
    let all = Readable { bodies: report.messages, opened: report.messages, ..Readable::default() };
    let none_of_all = Readable { bodies: report.messages, key_gone: report.messages, ..Readable::default() };
    assert_eq!(report.before, all, "the copy from before opens everything");
    assert_eq!(report.before_with_later_keys, none_of_all, "the copy from before opens nothing with the keys of later");
    assert_eq!(report.after, Readable::default(), "afterwards there is nothing to open");
    assert_eq!(report.after_with_earlier_keys, Readable::default(), "nor with the keys of before");
    let half = report.before_with_half_keys;
    // An hour of messages is a key's; the middle is known to within one.
    let hour = report.messages.div_ceil((RETENTION_MS - HOUR_MS) / period_ms(RETENTION_MS)) + 1;
    assert!(half.opened.abs_diff(report.messages / 2) <= hour, "half of the keys open half of the copy: {half:?}");
    assert_eq!(half.opened + half.key_gone, report.messages, "every body opens or has lost its key");
    assert!(report.keys > 0, "there were keys");
    assert_eq!(report.keys_found, 0, "the bytes of destroyed keys are in no file");
}
