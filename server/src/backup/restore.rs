//! The way back: verify, copy, and begin a new life of every inbox, since clients have seen what the backup has not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};

use super::{BESIDE, BackupError, KEYS, Manifest, copy};
use crate::files::{make_private_dir, read_small};
use crate::seal::{Keyring, MASTER, SecretName, key_id_of_file};
use crate::store::key::{self, ConversationTag, CursorTag, KeyPackageKind, PushTag};
use crate::store::record::{InboxHead, SealedMessage};
use crate::store::rocks::{fence, format, world};
use crate::store::{Family, Record, StoreError, decode};

/// Records changed in one batch.
const BATCH_MAX: usize = 1_000;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// When the backup was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Inboxes that go on in a new life.
    pub inboxes: u64,
    /// Conversations, whose message numbers go on likewise.
    pub conversations: u64,
    /// One-time KeyPackages that were left out, since they may have been given away meanwhile.
    pub key_packages_dropped: u64,
    /// Message keys that were put back.
    pub keys: u64,
    /// Secrets of push targets and phone numbers that were put back from the backup.
    pub secrets: u64,
    /// Secrets that the backup has and the directory has not, since no master key was there that opens them.
    pub secrets_left_out: u64,
    /// Messages with a key.
    pub messages_readable: u64,
    /// Messages without one: their readers are told of gaps.
    pub messages_unreadable: u64,
}

/// Restores a backup into a data directory that has no database. Message keys come from `keys`, or are the
/// directory's own if only the database was lost. `master` names a master key kept elsewhere.
///
/// # Errors
/// When the backup is damaged, the directory has a database, or a disk refuses; then there is still no database.
pub fn restore(
    from: &Path,
    data_dir: &Path,
    keys: Option<&Path>,
    master: Option<&Path>,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(from)?;
    if let Some((path, what)) = manifest.differences(from)?.first() {
        return Err(BackupError::Damaged(format!("{} {what}", path.display())));
    }
    if data_dir.join("db").exists() {
        return Err(BackupError::Occupied(data_dir.to_owned()));
    }
    make_private_dir(data_dir).map_err(BackupError::at(data_dir))?;
    let _lock = format::lock(data_dir)?;
    format::check(data_dir)?;
    // What is left of a database that is gone: it says nothing of the one that comes.
    format::unmark(data_dir).map_err(BackupError::at(data_dir))?;
    let mut restored = Restored { created_ms: manifest.created_ms, ..Restored::default() };
    for name in BESIDE {
        let (source, target) = (from.join(name), data_dir.join(name));
        if let Some(bytes) = read_small(&source).map_err(BackupError::at(&source))?
            && !target.exists()
        {
            copy::write(&target, &bytes)?;
        }
    }
    if let Some(keys) = keys {
        restored.keys = copy_keys(keys, &data_dir.join(KEYS))?;
    }
    let (secrets, to) = (from.join(KEYS), data_dir.join(KEYS));
    restored.secrets = put_back_secrets(&secrets, &to, master)?;
    let is_left_out = |name: &&SecretName| secrets.join(name.file()).exists() && !to.join(name.file()).exists();
    restored.secrets_left_out = SecretName::ALL.iter().filter(is_left_out).map(|_| 1).sum();
    let new = data_dir.join("db.new");
    copy::remove(&new)?;
    copy::database(&from.join("db"), &new)?;
    let sequence = begin_new_life(&new, &key_ids(&data_dir.join(KEYS))?, &mut restored)?;
    // Where a database was lost, the file says how far that one had come.
    fence::write(data_dir, sequence).map_err(BackupError::at(data_dir))?;
    let database = data_dir.join("db");
    fs::rename(&new, &database).and_then(|()| copy::sync_parent(&database)).map_err(BackupError::at(&database))?;
    // Last: a start refuses a database without it, and makes a new one with it alone.
    format::mark(data_dir).map_err(BackupError::at(data_dir))?;
    Ok(restored)
}

fn copy_keys(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let mut copied = 0;
    for entry in fs::read_dir(from).map_err(BackupError::at(from))? {
        let path = entry.map_err(BackupError::at(from))?.path();
        let is_kept = path.extension().is_some_and(|ending| ending == "key" || ending == "secret");
        let Some(name) = path.file_name().filter(|_| is_kept) else { continue };
        let target = to.join(name);
        if target.exists() {
            continue;
        }
        if let Some(bytes) = read_small(&path).map_err(BackupError::at(&path))? {
            copy::write(&target, &bytes)?;
            copied += u64::from(key_id_of_file(&path).is_some());
        }
    }
    Ok(copied)
}

/// Puts back the secrets that a directory lacks, if its master key opens them: beside another master the server would
/// not start with them. Returns how many.
fn put_back_secrets(from: &Path, to: &Path, master: Option<&Path>) -> Result<u64, BackupError> {
    let own = to.join(MASTER);
    if !from.exists() || master.is_none() && !own.exists() {
        return Ok(0);
    }
    let (keyring, _) = Keyring::inspect(from, Some(master.unwrap_or(&own)), 0).map_err(BackupError::Master)?;
    let mut put_back = 0;
    for name in SecretName::ALL {
        let (source, target) = (from.join(name.file()), to.join(name.file()));
        if target.exists() || !matches!(keyring.inspect_secret(name), Ok(Some(()))) {
            continue;
        }
        if let Some(bytes) = read_small(&source).map_err(BackupError::at(&source))? {
            copy::write(&target, &bytes)?;
            put_back += 1;
        }
    }
    Ok(put_back)
}

fn key_ids(directory: &Path) -> Result<BTreeSet<u64>, BackupError> {
    if !directory.exists() {
        return Ok(BTreeSet::new());
    }
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(BackupError::at(directory))? {
        ids.extend(key_id_of_file(&entry.map_err(BackupError::at(directory))?.path()));
    }
    Ok(ids)
}

/// Positions and numbers jump to where nobody has been, and what may have been used up goes. Returns the number of the
/// last change.
fn begin_new_life(database: &Path, keys: &BTreeSet<u64>, restored: &mut Restored) -> Result<u64, BackupError> {
    let families = std::iter::once("default").chain(Family::ALL.iter().map(|family| family.name()));
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    // Of a backup of before they came.
    options.create_missing_column_families(true);
    let db = DB::open_cf(&options, database, families).map_err(world)?;
    let mut changes = Changes { db: &db, batch: WriteBatch::default() };
    each(&db, Family::InboxHead, |record_key, value| {
        let mut head: InboxHead = decode(Family::InboxHead, &value.to_vec().into())?;
        head.seq = key::next_life(head.seq);
        head.floor = head.last();
        restored.inboxes += 1;
        changes.put(Family::InboxHead, record_key, &head)
    })?;
    each(&db, Family::Conversation, |record_key, value| {
        if record_key.last() != Some(&(ConversationTag::Number as u8)) {
            return Ok(());
        }
        let number: u64 = decode(Family::Conversation, &value.to_vec().into())?;
        restored.conversations += 1;
        changes.put(Family::Conversation, record_key, &key::next_life(number))
    })?;
    each(&db, Family::KeyPackage, |record_key, _| match key::parse_key_package(record_key) {
        Some((_, _, KeyPackageKind::OneTime)) => {
            restored.key_packages_dropped += 1;
            changes.delete(Family::KeyPackage, record_key)
        }
        Some((account, device, KeyPackageKind::LastResort)) => {
            changes.put(Family::Cursor, &key::cursor(&account, &device, CursorTag::LastResort), &())
        }
        None => Ok(()),
    })?;
    // Positions go on elsewhere, and each device is to be woken for what it finds there.
    each(&db, Family::Push, |push_key, _| match key::parse_push(push_key) {
        Some((_, _, PushTag::State)) => changes.delete(Family::Push, push_key),
        _ => Ok(()),
    })?;
    // Codes may have been used. How many went out on a day is kept.
    each(&db, Family::Code, |code_key, _| {
        if code_key.first() == Some(&b'c') { changes.delete(Family::Code, code_key) } else { Ok(()) }
    })?;
    each(&db, Family::Message, |_, value| {
        let sealed: SealedMessage = decode(Family::Message, &value.to_vec().into())?;
        if keys.contains(&sealed.key_id) {
            restored.messages_readable += 1;
        } else {
            restored.messages_unreadable += 1;
        }
        Ok(())
    })?;
    changes.flush()?;
    for family in Family::ALL {
        if let Some(handle) = db.cf_handle(family.name()) {
            db.flush_cf(handle).map_err(world)?;
        }
    }
    Ok(db.latest_sequence_number())
}

fn each(
    db: &DB,
    family: Family,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some(handle) = db.cf_handle(family.name()) else { return Ok(()) };
    for entry in db.iterator_cf(handle, IteratorMode::Start) {
        let (record_key, value) = entry.map_err(world)?;
        visit(&record_key, &value)?;
    }
    Ok(())
}

/// Changes that are written a batch at a time.
struct Changes<'a> {
    db: &'a DB,
    batch: WriteBatch,
}

impl Changes<'_> {
    fn put(&mut self, family: Family, record_key: &[u8], record: &impl Record) -> Result<(), StoreError> {
        if let Some(handle) = self.db.cf_handle(family.name()) {
            self.batch.put_cf(handle, record_key, record.encode());
        }
        self.flush_at(BATCH_MAX)
    }

    fn delete(&mut self, family: Family, record_key: &[u8]) -> Result<(), StoreError> {
        if let Some(handle) = self.db.cf_handle(family.name()) {
            self.batch.delete_cf(handle, record_key);
        }
        self.flush_at(BATCH_MAX)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.flush_at(1)
    }

    fn flush_at(&mut self, len: usize) -> Result<(), StoreError> {
        if self.batch.len() < len {
            return Ok(());
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(std::mem::take(&mut self.batch), &options).map_err(world)
    }
}
