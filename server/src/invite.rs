//! Invites: minted without the running server, by whoever can read the data directory.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gureum_proto::{InviteId, ServerUrl};

use crate::checked::{CHECKSUM_BYTES, checksum};
use crate::files::{create_private, read_small, write_private};

const TOKEN_VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const TOKEN_BYTES: usize = 1 + 16 + 4 + 8 + MAC_BYTES;
const MAC_CONTEXT: &[u8] = b"gureum invite v1\0";
const KEY_FILE: &str = "invite.key";
const KEY_BYTES: usize = 32;
const ADDRESS_FILE: &str = "server.json";

/// The key that a data directory's invites are made with. Whoever has it can invite anybody.
#[derive(Clone)]
pub struct InviteKey([u8; KEY_BYTES]);

impl std::fmt::Debug for InviteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteKey(..)")
    }
}

/// What a token says once its MAC has been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// Its uses are counted under this id.
    pub id: InviteId,
    /// How many may register with it.
    pub uses: u32,
    /// Its end.
    pub expires_ms: u64,
}

/// Why a token invites nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not made with this server's key.
    #[error("the invite is not one of this server's")]
    Forged,
    /// Its time has passed.
    #[error("the invite has expired")]
    Expired,
}

/// Why no invite could be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The directory is not one of a server.
    #[error(
        "{0} holds no Gureum server that has run: start one with `gureumd serve --data-dir {0}`, or give the \
         --data-dir of the one that runs"
    )]
    NoServer(PathBuf),
    /// A file of it cannot be read or written.
    #[error("the file {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Where the server of a data directory is reached, as it wrote down when it last began to serve.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ServerFile {
    /// The address listened on.
    pub listen: SocketAddr,
    /// The address with the certificate's pin, as clients take it.
    pub url: String,
    /// How long messages live there.
    #[serde(default)]
    pub retention_ms: Option<u64>,
    /// How long commits live there.
    #[serde(default)]
    pub commit_retention_ms: Option<u64>,
    /// Whether registering needs an invite.
    #[serde(default)]
    pub invites: Option<bool>,
}

impl ServerFile {
    /// Writes it down: to be called when the server is ready.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(&Checked { checksum: self.checksum()?, server: self.clone() })?;
        write_private(&data_dir.join(ADDRESS_FILE), &bytes)
    }

    /// Reads what the last start wrote down, if there was one.
    ///
    /// # Errors
    /// The file cannot be read or is no such file.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = read_small(&data_dir.join(ADDRESS_FILE))? else { return Ok(None) };
        let found: Option<Checked> = serde_json::from_slice(&bytes).ok();
        // As it was written, to the letter: of a name that does not read, a default would stand in.
        let is_whole = |found: &Checked| {
            found.server.checksum().is_ok_and(|checksum| checksum == found.checksum)
                && serde_json::to_vec(found).is_ok_and(|written| written == bytes)
        };
        let whole = found.filter(is_whole);
        let server = whole.map(|found| found.server);
        server.map(Some).ok_or_else(|| damaged("start the server, which writes it anew"))
    }

    fn checksum(&self) -> io::Result<String> {
        Ok(data_encoding::HEXLOWER.encode(&checksum(ADDRESS_FILE, &serde_json::to_vec(self)?)))
    }
}

/// As it stands in the file: a flipped bit in an address would invite to another server, or to none.
#[derive(serde::Serialize, serde::Deserialize)]
struct Checked {
    #[serde(flatten)]
    server: ServerFile,
    checksum: String,
}

fn damaged(what_to_do: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged: {what_to_do}"))
}

impl InviteKey {
    /// The data directory's key, made when it is not there.
    ///
    /// # Errors
    /// The file cannot be read or written, or is no key.
    pub fn load(data_dir: &Path) -> Result<Self, MintError> {
        let path = data_dir.join(KEY_FILE);
        let mut fresh = [0; KEY_BYTES];
        getrandom::fill(&mut fresh).map_err(|_| MintError::Random)?;
        let file = [fresh.as_slice(), &checksum(KEY_FILE, &fresh)].concat();
        let is_served = data_dir.join(ADDRESS_FILE).exists();
        if let Some(key) = Self::read(data_dir).map_err(|error| MintError::File { path: path.clone(), error })? {
            return Ok(key);
        }
        let read = create_private(&path, &file).and_then(|is_new| {
            if is_new && is_served {
                tracing::warn!("the file `invite.key` was missing: a new one is made, and invites of the old are void");
            }
            Self::read(data_dir)
        });
        let read = read.and_then(|key| key.ok_or_else(|| io::ErrorKind::NotFound.into()));
        read.map_err(|error| MintError::File { path, error })
    }

    /// The data directory's key, if it has one.
    ///
    /// # Errors
    /// The file cannot be read, or is not what was written: another key would silently void all invites.
    pub(crate) fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = read_small(&data_dir.join(KEY_FILE))? else { return Ok(None) };
        let (key, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().unwrap_or((&[], &[0; CHECKSUM_BYTES]));
        let key = <[u8; KEY_BYTES]>::try_from(key).ok().filter(|key| checksum(KEY_FILE, key) == *sum);
        let what_to_do = "put it back from a backup, or remove it for a new one (invites given out are then void)";
        key.map(|key| Some(Self(key))).ok_or_else(|| damaged(what_to_do))
    }

    /// The token of an invite.
    #[must_use]
    pub fn token(&self, invite: &Invite) -> Vec<u8> {
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.push(TOKEN_VERSION);
        token.extend_from_slice(invite.id.as_bytes());
        token.extend_from_slice(&invite.uses.to_be_bytes());
        token.extend_from_slice(&invite.expires_ms.to_be_bytes());
        let mac = self.mac(&token);
        token.extend_from_slice(mac.as_bytes().split_at(MAC_BYTES).0);
        token
    }

    /// Reads a token that was made with this key and has not expired. How often it was used is not in it.
    ///
    /// # Errors
    /// It is not one of this key's, or has expired.
    pub fn verify(&self, token: &[u8], now_ms: u64) -> Result<Invite, InviteError> {
        let (claim, mac) = token.split_last_chunk::<MAC_BYTES>().ok_or(InviteError::Forged)?;
        let mut expected = [0; MAC_BYTES];
        expected.copy_from_slice(self.mac(claim).as_bytes().split_at(MAC_BYTES).0);
        if !same(&expected, mac) {
            return Err(InviteError::Forged);
        }
        let invite = Invite::read(claim).ok_or(InviteError::Forged)?;
        if invite.expires_ms <= now_ms { Err(InviteError::Expired) } else { Ok(invite) }
    }

    fn mac(&self, claim: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.0).update(MAC_CONTEXT).update(claim).finalize()
    }
}

impl Invite {
    /// An invite with an id of its own.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(uses: u32, expires_ms: u64) -> Result<Self, MintError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| MintError::Random)?;
        Ok(Self { id: InviteId::from_bytes(id), uses, expires_ms })
    }

    fn read(claim: &[u8]) -> Option<Self> {
        let (version, rest) = claim.split_first()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (uses, rest) = rest.split_first_chunk::<4>()?;
        let expires = <[u8; 8]>::try_from(rest).ok()?;
        (*version == TOKEN_VERSION).then(|| Self {
            id: InviteId::from_bytes(*id),
            uses: u32::from_be_bytes(*uses),
            expires_ms: u64::from_be_bytes(expires),
        })
    }
}

/// Mints an invite to the server of a data directory, running or not.
///
/// # Errors
/// No server has run there, or its files cannot be read.
pub fn mint(data_dir: &Path, uses: u32, expires_ms: u64) -> Result<ServerUrl, MintError> {
    let path = data_dir.join(ADDRESS_FILE);
    let server = ServerFile::read(data_dir).map_err(|error| MintError::File { path: path.clone(), error })?;
    let server = server.ok_or_else(|| MintError::NoServer(data_dir.to_owned()))?;
    let url: Result<ServerUrl, _> = server.url.parse();
    let malformed = |error: gureum_proto::UrlError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let mut url = url.map_err(|error| MintError::File { path, error: malformed(error) })?;
    url.token = Some(InviteKey::load(data_dir)?.token(&Invite::new(uses, expires_ms)?));
    Ok(url)
}

/// Compares in a time that does not depend on where the first difference stands.
fn same(expected: &[u8; MAC_BYTES], found: &[u8; MAC_BYTES]) -> bool {
    u128::from_be_bytes(*expected) ^ u128::from_be_bytes(*found) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

    use super::*;

    fn key(byte: u8) -> InviteKey {
        InviteKey([byte; 32])
    }

    fn invite() -> Invite {
        Invite { id: InviteId::from_bytes([7; 16]), uses: 3, expires_ms: 1_000 }
    }

    #[test]
    fn a_token_is_valid_until_its_end_and_with_its_key_alone() {
        let token = key(1).token(&invite());
        assert_eq!(key(1).verify(&token, 999), Ok(invite()));
        assert_eq!(key(1).verify(&token, 1_000), Err(InviteError::Expired));
        assert_eq!(key(2).verify(&token, 0), Err(InviteError::Forged));
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let token = key(1).token(&invite());
        for bit in 0..token.len() * 8 {
            let mut forged = token.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).verify(&forged, 0), Err(InviteError::Forged), "bit {bit}");
        }
        for len in 0..token.len() {
            assert_eq!(key(1).verify(&token[..len], 0), Err(InviteError::Forged), "{len} bytes");
        }
    }

    /// Each bit of a file flips in turn; `is_refused` says whether that is noticed.
    #[track_caller]
    fn flip(path: &Path, is_refused: impl Fn() -> bool) {
        let written = std::fs::read(path).unwrap();
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, &flipped).unwrap();
            assert!(is_refused(), "bit {bit} of {}", path.display());
        }
        std::fs::write(path, written).unwrap();
        assert!(!is_refused());
    }

    #[test]
    fn no_flipped_bit_makes_another_key_or_another_address() {
        let dir = tempfile::tempdir().unwrap();
        InviteKey::load(dir.path()).unwrap();
        flip(&dir.path().join(KEY_FILE), || InviteKey::load(dir.path()).is_err());
        let server = ServerFile {
            listen: "127.0.0.1:4433".parse().unwrap(),
            url: "gureum://h:1".into(),
            retention_ms: Some(1_000),
            commit_retention_ms: None,
            invites: None,
        };
        server.write(dir.path()).unwrap();
        assert_eq!(ServerFile::read(dir.path()).unwrap(), Some(server));
        flip(&dir.path().join(ADDRESS_FILE), || ServerFile::read(dir.path()).is_err());
    }

    #[test]
    fn a_damaged_key_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&[][..], &[7; 32], &[7; 40], &[7; 41]] {
            std::fs::write(dir.path().join(KEY_FILE), bytes).unwrap();
            let error = InviteKey::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains("invite.key") && error.contains("from a backup"), "{error}");
        }
    }

    #[test]
    fn a_token_has_these_bytes() {
        let token = data_encoding::HEXLOWER.encode(&key(1).token(&invite()));
        let claim = "01".to_owned() + &"07".repeat(16) + "00000003" + "00000000000003e8";
        assert_eq!(token.split_at(claim.len()).0, claim);
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
    }

    #[test]
    fn minting_needs_a_server_that_has_run_and_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let error = mint(dir.path(), 1, 5).unwrap_err().to_string();
        assert!(error.contains("start one with `gureumd serve --data-dir"), "{error}");
        assert!(!dir.path().join(KEY_FILE).exists(), "a wrong directory stays as it was");

        let listen = "127.0.0.1:4433".parse().unwrap();
        let url = "gureum://h:1".into();
        ServerFile { listen, url, retention_ms: None, commit_retention_ms: None, invites: None }
            .write(dir.path())
            .unwrap();
        let first = mint(dir.path(), 2, 5).unwrap();
        let second = mint(dir.path(), 2, 5).unwrap();
        assert_eq!((first.host.as_str(), first.port), ("h", 1));
        assert_ne!(first.token, second.token);
        let key = InviteKey::load(dir.path()).unwrap();
        for url in [first, second] {
            assert_eq!(key.verify(&url.token.unwrap(), 0).unwrap().uses, 2);
        }
    }
}
