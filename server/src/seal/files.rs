//! The keyring's files: on the disk before they are used, and gone from it when they are destroyed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeyringError;
use super::cipher::{Cipher, KEY_BYTES, KeyBytes, NONCE_BYTES, TAG_BYTES, generate};
use super::secret::SecretName;
use crate::fault::{is_wanted, step};
use crate::limits::KEYRING_KEYS_MAX;

/// The master key's file, unless it is kept elsewhere.
pub(crate) const MASTER: &str = "master.key";

const WRAP_LABEL: &[u8] = b"gureum/1 wrapped key";
const SECRET_LABEL: &[u8] = b"gureum/1 wrapped secret";

/// The layout of a key's file, and of a secret's: version, nonce, wrapped key with its tag.
const FILE_VERSION: u8 = 1;
const FILE_BYTES: usize = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// The times for which a key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) start_ms: u64,
    /// The first time for which it is no longer used.
    pub(super) end_ms: u64,
}

/// Keys of periods, or why they do not open.
type Inspected = Vec<(Period, Result<Cipher, KeyringError>)>;

/// The directory of the keys, and the master that wraps them.
pub(super) struct KeyFiles {
    directory: PathBuf,
    master: Cipher,
}

impl KeyFiles {
    /// Opens the directory and unwraps all keys; finishes what a crash interrupted.
    pub(super) fn open(directory: &Path, master: Option<&Path>) -> Result<(Self, Vec<(Period, Cipher)>), KeyringError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| failed("create", directory, source))?;
        let (mut periods, mut has_secret) = (Vec::new(), false);
        for entry in fs::read_dir(directory).map_err(|source| failed("list", directory, source))? {
            let path = entry.map_err(|source| failed("list", directory, source))?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                // Never renamed to its name, so never used.
                Some("new") => fs::remove_file(&path).map_err(|source| failed("remove", &path, source))?,
                Some("gone") => erase(&path)?,
                Some("secret") => has_secret = true,
                _ => periods.extend(Period::parse(&path)),
            }
            if periods.len() > KEYRING_KEYS_MAX {
                return Err(KeyringError::TooManyKeys);
            }
        }
        let master = match master {
            Some(path) => read_master(path)?,
            // Another master would open nothing of what is there.
            None => own_master(directory, periods.is_empty() && !has_secret)?,
        };
        let files = Self { directory: directory.to_path_buf(), master: Cipher::new(&master)? };
        let keys = periods
            .into_iter()
            .map(|period| files.unwrap_key(period).map(|cipher| (period, cipher)))
            .collect::<Result<_, _>>()?;
        Ok((files, keys))
    }

    /// Reads the directory as it is: each key, or why it does not open.
    pub(super) fn inspect(directory: &Path, master: Option<&Path>) -> Result<(Self, Inspected), KeyringError> {
        let mut periods = Vec::new();
        for entry in fs::read_dir(directory).map_err(|source| failed("list", directory, source))? {
            periods.extend(Period::parse(&entry.map_err(|source| failed("list", directory, source))?.path()));
            if periods.len() > KEYRING_KEYS_MAX {
                return Err(KeyringError::TooManyKeys);
            }
        }
        let master = read_master(&master.map_or_else(|| directory.join(MASTER), Path::to_path_buf))?;
        let files = Self { directory: directory.to_path_buf(), master: Cipher::new(&master)? };
        let keys = periods.into_iter().map(|period| (period, files.unwrap_key(period))).collect();
        Ok((files, keys))
    }

    /// Makes a key; when this returns it is on the disk.
    pub(super) fn create(&self, period: Period) -> Result<Cipher, KeyringError> {
        let bytes = generate()?;
        self.write_wrapped(&period.name(), &period.context(), &bytes)?;
        step("key::created");
        Cipher::new(&bytes)
    }

    /// Makes a secret; when this returns it is on the disk.
    pub(super) fn create_secret(&self, name: SecretName) -> Result<KeyBytes, KeyringError> {
        let bytes = generate()?;
        self.write_wrapped(name.file(), &secret_context(name), &bytes)?;
        Ok(bytes)
    }

    /// A secret, if it was made.
    pub(super) fn read_secret(&self, name: SecretName) -> Result<Option<KeyBytes>, KeyringError> {
        let path = self.directory.join(name.file());
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &path, source)),
        };
        let opened = self.unwrap_bytes(&secret_context(name), &file);
        opened.map(Some).ok_or_else(|| KeyringError::SecretDamaged(path.display().to_string()))
    }

    /// Destroys a key's file; when this returns its bytes are off the disk, as far as a file system can say.
    /// May be repeated.
    pub(super) fn destroy(&self, period: Period) -> Result<(), KeyringError> {
        let path = self.directory.join(period.name());
        let gone = path.with_extension("gone");
        // A crash from here on leaves a file that says it is to be erased, not a damaged key.
        match fs::rename(&path, &gone) {
            Ok(()) => {
                sync_directory(&self.directory)?;
                step("key::marked");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("rename", &path, source)),
        }
        erase(&gone)?;
        sync_directory(&self.directory)
    }

    fn unwrap_key(&self, period: Period) -> Result<Cipher, KeyringError> {
        let path = self.directory.join(period.name());
        let file = fs::read(&path).map_err(|source| failed("read", &path, source))?;
        let opened = self.unwrap_bytes(&period.context(), &file);
        Cipher::new(&opened.ok_or_else(|| KeyringError::KeyDamaged(path.display().to_string()))?)
    }

    fn write_wrapped(&self, name: &str, context: &[Vec<u8>], bytes: &KeyBytes) -> Result<(), KeyringError> {
        let (nonce, wrapped) = self.master.seal(context, bytes.as_slice())?;
        let mut file = Vec::with_capacity(FILE_BYTES);
        file.push(FILE_VERSION);
        file.extend_from_slice(&nonce);
        file.extend_from_slice(&wrapped);
        write_new(&self.directory, name, &file)
    }

    /// What a file holds, if it was wrapped by the master for this context.
    fn unwrap_bytes(&self, context: &[Vec<u8>], file: &[u8]) -> Option<KeyBytes> {
        let (version, rest) = file.split_first()?;
        let (nonce, wrapped) = rest.split_first_chunk::<NONCE_BYTES>()?;
        if *version != FILE_VERSION {
            return None;
        }
        let text = Zeroizing::new(self.master.open(context, nonce, wrapped)?);
        <[u8; KEY_BYTES]>::try_from(text.as_slice()).ok().map(KeyBytes::new)
    }
}

/// Binds a wrapped secret to its name, and tells it apart from a wrapped key.
fn secret_context(name: SecretName) -> [Vec<u8>; 2] {
    [SECRET_LABEL.to_vec(), name.file().as_bytes().to_vec()]
}

/// The bits of an id that hold the length in seconds, of at most an hour.
const LENGTH_BITS: u32 = 12;

impl Period {
    /// The period of this length that a time lies in.
    pub(super) const fn of(time_ms: u64, length_ms: u64) -> Self {
        let start_ms = match time_ms.checked_rem(length_ms) {
            Some(past_ms) => time_ms.saturating_sub(past_ms),
            None => time_ms,
        };
        Self { start_ms, end_ms: start_ms.saturating_add(length_ms) }
    }

    /// The id of the period's key: start, then length, so that periods of different lengths never share one.
    pub(super) const fn id(self) -> u64 {
        (self.start_ms << LENGTH_BITS) | (self.length_ms() / 1_000)
    }

    /// The highest id of a period that starts at or before a time.
    pub(super) const fn id_max(time_ms: u64) -> u64 {
        (time_ms << LENGTH_BITS) | ((1 << LENGTH_BITS) - 1)
    }

    pub(super) const fn covers(self, time_ms: u64) -> bool {
        self.start_ms <= time_ms && time_ms < self.end_ms
    }

    pub(super) const fn length_ms(self) -> u64 {
        self.end_ms.saturating_sub(self.start_ms)
    }

    fn name(self) -> String {
        format!("{}-{}.key", self.start_ms, self.end_ms)
    }

    pub(super) fn parse(path: &Path) -> Option<Self> {
        let (start, end) = path.file_name()?.to_str()?.strip_suffix(".key")?.split_once('-')?;
        let period = Self { start_ms: start.parse().ok()?, end_ms: end.parse().ok()? };
        // Only names as this program writes them: `007-8.key` would be looked for under another name, and
        // an id has room for these lengths and times alone.
        let is_named = period.length_ms() <= 3_600_000 && period.end_ms < 1 << 48;
        (is_named && path.file_name()?.to_str()? == period.name()).then_some(period)
    }

    /// Binds a wrapped key to its name: a renamed file does not open.
    fn context(self) -> [Vec<u8>; 3] {
        [WRAP_LABEL.to_vec(), self.start_ms.to_be_bytes().to_vec(), self.end_ms.to_be_bytes().to_vec()]
    }
}

fn read_master(path: &Path) -> Result<KeyBytes, KeyringError> {
    let file = match fs::read(path) {
        Ok(file) => Zeroizing::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyringError::MasterMissing(path.display().to_string()));
        }
        Err(source) => return Err(failed("read", path, source)),
    };
    let bytes = <[u8; KEY_BYTES]>::try_from(file.as_slice())
        .map_err(|_| KeyringError::MasterLength { path: path.display().to_string(), found: file.len() })?;
    Ok(KeyBytes::new(bytes))
}

fn own_master(directory: &Path, may_create: bool) -> Result<KeyBytes, KeyringError> {
    let path = directory.join(MASTER);
    if may_create && !path.exists() {
        write_new(directory, MASTER, generate()?.as_slice())?;
    }
    read_master(&path)
}

/// Writes a file that others can't read, under its name only when it is whole and on the disk.
fn write_new(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), KeyringError> {
    let (path, new) = (directory.join(name), directory.join(format!("{name}.new")));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        if !is_wanted("key::unsynced") {
            file.sync_all()?;
        }
        step("key::written");
        fs::rename(&new, &path)?;
        step("key::renamed");
        Ok(())
    };
    write().map_err(|source| failed("write", &path, source))?;
    if is_wanted("key::unsynced") { Ok(()) } else { sync_directory(directory) }
}

/// Overwrites and removes a file, if it is there.
fn erase(path: &Path) -> Result<(), KeyringError> {
    let erase = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(FILE_BYTES).min(4_096);
        file.write_all(&vec![0; len])?;
        file.sync_all()?;
        step("key::overwritten");
        fs::remove_file(path)?;
        step("key::removed");
        Ok(())
    };
    match erase() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("erase", path, error)),
        _ => Ok(()),
    }
}

fn sync_directory(directory: &Path) -> Result<(), KeyringError> {
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(|source| failed("write", directory, source))
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> KeyringError {
    KeyringError::Io { step, path: path.display().to_string(), source }
}
