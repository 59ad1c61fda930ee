//! The keyring: messages are sealed with the key of their hour, and expire for certain when it is destroyed.

mod cipher;
mod files;
mod ports;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use gureum_proto::MessageId;

use crate::limits::KEYRING_KEYS_MAX;
use crate::store::record::SealedMessage;
use crate::time::is_expired;
use cipher::Cipher;
pub(crate) use files::MASTER;
use files::{KeyFiles, Period};
pub(crate) use secret::{SecretName, TokenSeal};

/// The bytes by which a sealed message is longer than its content.
pub const SEAL_OVERHEAD_BYTES: usize = cipher::TAG_BYTES;

const MESSAGE_LABEL: &[u8] = b"gureum/1 sealed message";

/// Why the keyring can't be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The disk refused.
    #[error("could not {step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// There are wrapped keys, and nothing to unwrap them with.
    #[error(
        "the master key {0} is missing: put it back, or name it with --master-key if it is kept \
         elsewhere; without it no stored message can be read"
    )]
    MasterMissing(String),
    /// The master key has a wrong length.
    #[error("the master key {path} has {found} bytes instead of 32")]
    MasterLength {
        /// Its file.
        path: String,
        /// Its length.
        found: usize,
    },
    /// A wrapped key does not open.
    #[error("the key {0} does not open with the master key: it is damaged, or the master key is another's")]
    KeyDamaged(String),
    /// A secret does not open.
    #[error(
        "the secret {0} does not open with the master key: put both back as they belong together; or remove the secret, and \
         the push targets or phone numbers that were stored under it are void"
    )]
    SecretDamaged(String),
    /// More keys than are allowed.
    #[error("the keyring holds more than {KEYRING_KEYS_MAX} keys")]
    TooManyKeys,
    /// The system gave no random bytes, or the cipher refused.
    #[error("the cryptographic library refuses to work")]
    Crypto,
}

/// Why a message can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key was destroyed: to the reader the message has expired.
    #[error("the key {key_id} of the message is destroyed")]
    KeyGone {
        /// Which key.
        key_id: u64,
    },
    /// It is not what was sealed under this id.
    #[error("the sealed message is not what was stored under its id")]
    Forged,
    /// A new key could not be made.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// The keys of the last hours, each in a file of its own, wrapped by the master key.
pub struct Keyring {
    files: KeyFiles,
    retention_ms: u64,
    period_ms: u64,
    ring: RwLock<Arc<Ring>>,
    /// Held while keys are made or destroyed, so that readers never wait for a disk.
    changing: Mutex<()>,
}

/// Keys by id, which sorts by the start of their period.
type Ring = BTreeMap<u64, Arc<PeriodKey>>;

struct PeriodKey {
    period: Period,
    cipher: Cipher,
}

impl Keyring {
    /// Opens the keyring in a directory, or makes one. `master` names a master key kept elsewhere; without it
    /// the directory's own is used, and made at the first start.
    ///
    /// # Errors
    /// When a file can't be read or written, or a key does not open.
    pub fn open(directory: &Path, master: Option<&Path>, retention_ms: u64) -> Result<Self, KeyringError> {
        let (files, keys) = KeyFiles::open(directory, master)?;
        let ring: Ring =
            keys.into_iter().map(|(period, cipher)| (period.id(), Arc::new(PeriodKey { period, cipher }))).collect();
        Ok(Self {
            files,
            retention_ms,
            period_ms: period_ms(retention_ms),
            ring: RwLock::new(Arc::new(ring)),
            changing: Mutex::new(()),
        })
    }

    /// Reads a keyring without changing its directory: what opens, and what does not.
    ///
    /// # Errors
    /// When the directory or the master key can't be read.
    pub fn inspect(
        directory: &Path,
        master: Option<&Path>,
        retention_ms: u64,
    ) -> Result<(Self, Vec<KeyringError>), KeyringError> {
        let (files, opened) = KeyFiles::inspect(directory, master)?;
        let (mut ring, mut damaged) = (Ring::new(), Vec::new());
        for (period, cipher) in opened {
            match cipher {
                Ok(cipher) => drop(ring.insert(period.id(), Arc::new(PeriodKey { period, cipher }))),
                Err(error) => damaged.push(error),
            }
        }
        let keyring = Self {
            files,
            retention_ms,
            period_ms: period_ms(retention_ms),
            ring: RwLock::new(Arc::new(ring)),
            changing: Mutex::new(()),
        };
        Ok((keyring, damaged))
    }

    /// Seals a message's header and body for its id, with the key of the id's time.
    ///
    /// Waits for the disk only when that key does not exist yet: call [`Keyring::tick`] ahead of it.
    ///
    /// # Errors
    /// When a key is needed and can't be made.
    pub fn seal(&self, id: &MessageId, content: &[u8]) -> Result<SealedMessage, SealError> {
        let key = self.key_at(id.time_ms())?;
        let (nonce, ciphertext) = key.cipher.seal(&[MESSAGE_LABEL, id.as_bytes()], content)?;
        Ok(SealedMessage { key_id: key.period.id(), nonce, ciphertext: Bytes::from(ciphertext) })
    }

    /// Opens what was sealed for this id.
    ///
    /// # Errors
    /// [`SealError::KeyGone`] when its key is destroyed, [`SealError::Forged`] when it is anything else.
    pub fn open_message(&self, id: &MessageId, sealed: &SealedMessage) -> Result<Bytes, SealError> {
        let key =
            self.ring().get(&sealed.key_id).map(Arc::clone).ok_or(SealError::KeyGone { key_id: sealed.key_id })?;
        key.cipher
            .open(&[MESSAGE_LABEL, id.as_bytes()], &sealed.nonce, &sealed.ciphertext)
            .map(Bytes::from)
            .ok_or(SealError::Forged)
    }

    /// Makes the keys of this period and the next, if they don't exist. To be called every
    /// [`Keyring::tick_ms`].
    ///
    /// # Errors
    /// When a key can't be made.
    pub fn tick(&self, now_ms: u64) -> Result<(), KeyringError> {
        self.key_at(now_ms)?;
        self.key_at(now_ms.saturating_add(self.period_ms))?;
        Ok(())
    }

    /// How often [`Keyring::tick`] and [`Keyring::destroy_expired`] are due.
    #[must_use]
    pub const fn tick_ms(&self) -> u64 {
        self.period_ms / 4
    }

    /// Destroys the keys whose every message has expired: overwritten, removed, forgotten. Returns how many.
    ///
    /// # Errors
    /// The first that can't be destroyed; the others are, and it is tried again at the next call.
    pub fn destroy_expired(&self, now_ms: u64) -> Result<usize, KeyringError> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring();
        let expired: Vec<Period> = ring
            .values()
            .map(|key| key.period)
            .filter(|period| is_expired(period.end_ms, self.retention_ms, now_ms))
            .collect();
        let (mut destroyed, mut failed) = (0, None);
        for period in expired {
            match self.files.destroy(period) {
                Ok(()) => {
                    self.change(|ring| ring.remove(&period.id()));
                    destroyed += 1;
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        drop(changing);
        failed.map_or(Ok(destroyed), Err)
    }

    /// The start of the oldest key's period.
    #[must_use]
    pub fn oldest_key_ms(&self) -> Option<u64> {
        self.ring().first_key_value().map(|(_, key)| key.period.start_ms)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring().is_empty()
    }

    fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key for a time, made if there is none.
    fn key_at(&self, time_ms: u64) -> Result<Arc<PeriodKey>, KeyringError> {
        if let Some(key) = self.find(time_ms) {
            return Ok(key);
        }
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first.
        if let Some(key) = self.find(time_ms) {
            return Ok(key);
        }
        let ring = self.ring();
        if ring.len() >= KEYRING_KEYS_MAX {
            return Err(KeyringError::TooManyKeys);
        }
        let period = Period::of(time_ms, self.period_ms);
        let cipher = self.files.create(period)?;
        let key = Arc::new(PeriodKey { period, cipher });
        self.change(|ring| ring.insert(period.id(), Arc::clone(&key)));
        drop(changing);
        Ok(key)
    }

    /// The latest key that covers a time. One of a longer period, from before the retention was shortened,
    /// would live too long and is used for opening alone.
    fn find(&self, time_ms: u64) -> Option<Arc<PeriodKey>> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let covers = |key: &&Arc<PeriodKey>| key.period.covers(time_ms) && key.period.length_ms() <= self.period_ms;
        ring.range(..=Period::id_max(time_ms)).rev().map(|(_, key)| key).find(covers).map(Arc::clone)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Ring) -> T) {
        let mut ring = Ring::clone(&self.ring());
        change(&mut ring);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }
}

/// The id of the key that a file of a keyring holds, as its name says; `None` for any other file.
#[must_use]
pub fn key_id_of_file(path: &Path) -> Option<u64> {
    Period::parse(path).map(Period::id)
}

/// The end of the time for which a key file's key was used; `None` for any other file.
#[must_use]
pub fn key_end_ms_of_file(path: &Path) -> Option<u64> {
    Period::parse(path).map(|period| period.end_ms)
}

/// Says what it holds and shows no key.
impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("keys", &self.ring().len())
            .field("period_ms", &self.period_ms)
            .finish_non_exhaustive()
    }
}

/// How long one key is used: an hour at three days. A message may outlive its retention, as ciphertext with
/// a key, by so much.
#[must_use]
pub const fn period_ms(retention_ms: u64) -> u64 {
    const SECOND_MS: u64 = 1_000;
    const HOUR_MS: u64 = 3_600 * SECOND_MS;
    // Whole seconds, so that a key's id can name its length.
    let part_ms = (retention_ms / 72).next_multiple_of(SECOND_MS);
    if part_ms < SECOND_MS {
        SECOND_MS
    } else if part_ms > HOUR_MS {
        HOUR_MS
    } else {
        part_ms
    }
}
