//! The key of the database: random in a file, or from a passphrase.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{KeySource, OpenError, VaultError};
use crate::limits::{
    ARGON2_LANES, ARGON2_MEMORY_KIB, ARGON2_PASSES, KDF_FILE_BYTES_MAX, KDF_MEMORY_KIB_MAX, KDF_PASSES_MAX,
};

const KEY_FILE: &str = "key";
const KDF_FILE: &str = "kdf.json";
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

pub(super) type Key = Zeroizing<[u8; KEY_BYTES]>;

/// The parameters beside a database that a passphrase opens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    algorithm: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

/// The key of an existing home.
pub(super) fn existing(home: &Path, source: &KeySource) -> Result<Key, OpenError> {
    let (key_file, kdf_file) = (home.join(KEY_FILE), home.join(KDF_FILE));
    match source {
        KeySource::File if !key_file.exists() && kdf_file.exists() => Err(OpenError::PassphraseNeeded),
        KeySource::File => read_key(&key_file),
        KeySource::Passphrase(_) if !kdf_file.exists() && key_file.exists() => Err(OpenError::PassphraseUnused),
        KeySource::Passphrase(passphrase) => derive(passphrase.as_bytes(), &read_kdf(&kdf_file)?, &kdf_file),
    }
}

/// The key of a new home, or of one whose making was interrupted.
pub(super) fn new_or_existing(home: &Path, source: &KeySource) -> Result<Key, OpenError> {
    make_home(home)?;
    if !home.join(KEY_FILE).exists() && !home.join(KDF_FILE).exists() {
        match source {
            KeySource::File => write_new(&home.join(KEY_FILE), &*random::<KEY_BYTES>()?)?,
            KeySource::Passphrase(_) => {
                let kdf = Kdf {
                    algorithm: "argon2id".into(),
                    memory_kib: ARGON2_MEMORY_KIB,
                    passes: ARGON2_PASSES,
                    lanes: ARGON2_LANES,
                    salt: HEXLOWER.encode(&*random::<SALT_BYTES>()?),
                };
                let text = serde_json::to_vec_pretty(&kdf).expect("a flat struct is JSON");
                write_new(&home.join(KDF_FILE), &text)?;
            }
        }
    }
    existing(home, source)
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, VaultError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}

fn make_home(home: &Path) -> Result<(), OpenError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(home);
    // A home that a person made beforehand is tightened too: what is in it is nobody else's.
    made.and_then(|()| fs::set_permissions(home, fs::Permissions::from_mode(0o700))).map_err(|e| io(home, e))
}

/// Writes a file that is whole or not there, on disk before its name is.
fn write_new(path: &Path, content: &[u8]) -> Result<(), OpenError> {
    let aside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        file.write_all(content)?;
        if !gureum_proto::mutated(311) {
            file.sync_all()?;
        }
        fs::rename(&aside, path)?;
        match path.parent() {
            Some(_) if gureum_proto::mutated(311) => Ok(()),
            Some(directory) => fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|error| io(path, error))
}

fn read_key(path: &Path) -> Result<Key, OpenError> {
    let mut content = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    read_bounded(path, KEY_BYTES as u64 + 1, &mut content)?;
    let key = <[u8; KEY_BYTES]>::try_from(content.as_slice()).map_err(|_| damaged(path, "a key has 32 bytes"))?;
    Ok(Zeroizing::new(key))
}

fn read_kdf(path: &Path) -> Result<Kdf, OpenError> {
    let mut content = Vec::new();
    read_bounded(path, KDF_FILE_BYTES_MAX, &mut content)?;
    let kdf: Kdf = serde_json::from_slice(&content).map_err(|_| damaged(path, "it is not the JSON it should be"))?;
    let bounded = kdf.memory_kib <= KDF_MEMORY_KIB_MAX && kdf.passes <= KDF_PASSES_MAX && kdf.lanes <= ARGON2_LANES * 4;
    if kdf.algorithm != "argon2id" || !bounded {
        return Err(damaged(path, "it asks for what this program does not do"));
    }
    Ok(kdf)
}

fn derive(passphrase: &[u8], kdf: &Kdf, path: &Path) -> Result<Key, OpenError> {
    let salt = HEXLOWER.decode(kdf.salt.as_bytes()).map_err(|_| damaged(path, "its salt is not hexadecimal"))?;
    let params = Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(KEY_BYTES))
        .map_err(|_| damaged(path, "its parameters are out of range"))?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, &salt, key.as_mut_slice())
        .map_err(|_| damaged(path, "its parameters are out of range"))?;
    Ok(key)
}

fn read_bounded(path: &Path, bytes_max: u64, content: &mut Vec<u8>) -> Result<(), OpenError> {
    let file = fs::File::open(path).map_err(|error| io(path, error))?;
    file.take(bytes_max).read_to_end(content).map(drop).map_err(|error| io(path, error))
}

fn damaged(path: &Path, why: &'static str) -> OpenError {
    OpenError::KeyFile { path: path.to_owned(), why }
}

pub(super) fn io(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { path: PathBuf::from(path), source }
}
