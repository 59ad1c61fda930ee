//! The device's own row: made with its keys, completed by the server's yes, and the claim of a Hello from it.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use gureum_proto::{
    AccountId, ConversationId, DeviceId, DeviceKeys, Handle, HelloClaim, Registered, ServerUrl, epochs_digest,
    sign_root,
};
use openmls_basic_credential::SignatureKeyPair;
use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::key::random;
use super::work::{REPLACED, load_log};
use super::{Identity, NewProfile, OpenError, RegistrationDraft, Vault, VaultError, life, push};
use crate::limits::DEVICE_NAME_BYTES_MAX;
use crate::words;

/// The row, read.
pub(super) struct Profile {
    server: ServerUrl,
    device_name: String,
    proof: SigningKey,
    pub(super) signer: SignatureKeyPair,
    entropy: Option<Zeroizing<[u8; words::ENTROPY_BYTES]>>,
    root_entry: Bytes,
    account: AccountId,
    device: DeviceId,
    handle: Option<Handle>,
    log_entry: u64,
}

impl Vault {
    /// The server has made the account: from here on the home is complete.
    ///
    /// # Errors
    /// The database failed, or the server answered for another account.
    pub fn registered(&mut self, handle: &Handle, registered: Registered) -> Result<Identity, VaultError> {
        let own = (self.identity.account, self.identity.device);
        if (registered.account, registered.device) != own {
            return Err(VaultError::Damaged("the server registered another account than this one"));
        }
        self.identity.handle = handle.clone();
        self.write(|work| {
            let account = own.0.as_bytes();
            let sql = "UPDATE profile SET handle = ?1";
            work.connection.execute(sql, params![handle.as_str()])?;
            let sql = "INSERT OR REPLACE INTO contact (account, handle) VALUES (?1, ?2)";
            work.connection.execute(sql, params![account, handle.as_str()])?;
            let sql = "INSERT OR IGNORE INTO log_entry (account, number, entry) SELECT ?1, 0, root_entry FROM profile";
            work.connection.execute(sql, params![account])?;
            Ok::<_, VaultError>(())
        })?;
        Ok(self.identity.clone())
    }

    /// The recovery words have been seen: they are forgotten here. Until then a second registration shows them again.
    ///
    /// # Errors
    /// The database failed.
    pub fn recovery_words_shown(&mut self) -> Result<(), VaultError> {
        self.write(|work| {
            work.connection.execute("UPDATE profile SET recovery_entropy = NULL WHERE handle IS NOT NULL", [])?;
            Ok(())
        })
    }

    /// The claim of the next Hello. When the server has said Ready: [`Self::life_confirmed`], or, where it says that the
    /// claim is stale, [`Self::begin_restore`].
    ///
    /// # Errors
    /// The database failed.
    pub fn hello_claim(&mut self, subscribe: bool) -> Result<HelloClaim, VaultError> {
        self.write(|work| {
            let account = work.identity.account;
            let log_entries = load_log(work.connection, account)?.map_or(0, |log| log.length());
            Ok(HelloClaim {
                server_name: work.identity.server.host.clone(),
                account,
                device: work.identity.device,
                subscribe,
                cursor: work.cursor()?,
                epochs_digest: Some(held_epochs(work.connection)?),
                log_entries,
                life: Some(life::claim(work)?),
                push_digest: push::held(work.connection)?.map(|held| held.target.digest()),
            })
        })
    }

    /// The digest over the conversations and their epochs as they are now: what a Hello claims, and what the server's own is
    /// held against.
    ///
    /// # Errors
    /// The database failed.
    pub fn epochs_digest(&mut self) -> Result<[u8; 32], VaultError> {
        self.read(|connection, _| held_epochs(connection))
    }
}

fn held_epochs(connection: &Connection) -> Result<[u8; 32], VaultError> {
    let sql =
        format!("SELECT id, epoch FROM conversation WHERE epoch > 0 AND state NOT IN (0, {REPLACED}) ORDER BY id");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement
        .query_map([], |row| Ok((ConversationId::from_bytes(row.get(0)?), row.get(1)?)))?
        .collect::<Result<Vec<(_, u64)>, _>>()?;
    Ok(epochs_digest(rows))
}

impl Profile {
    /// Makes the keys and the root entry, in one row.
    pub(super) fn make(connection: &Connection, new: &NewProfile, now_ms: u64) -> Result<(), OpenError> {
        let (proof_seed, mls_seed) = (random::<32>()?, random::<32>()?);
        let entropy = random::<{ words::ENTROPY_BYTES }>()?;
        let (proof, mls) = (SigningKey::from_bytes(&proof_seed), SigningKey::from_bytes(&mls_seed));
        let recovery = words::recovery_key(&entropy);
        let unfit = |_| VaultError::Damaged("new keys");
        let mls_key = mls.verifying_key().to_bytes();
        let keys = DeviceKeys::new(proof.verifying_key().as_bytes(), &mls_key).map_err(unfit)?;
        let root_entry = sign_root(&proof, &mls_key, &recovery, now_ms).map_err(unfit)?;
        let account = gureum_proto::DeviceLog::from_root(&root_entry).map_err(unfit)?.account();
        let sql = "INSERT INTO profile (id, server, device_name, proof_seed, mls_seed, recovery_entropy, root_entry,
                   account, device, log_entry, cursor_seq, cursor_count, send_counter)
                   VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, 0, 0)";
        let seeds = (proof_seed.as_slice(), mls_seed.as_slice(), entropy.as_slice());
        connection
            .execute(
                sql,
                params![
                    server_text(&new.server),
                    new.device_name,
                    seeds.0,
                    seeds.1,
                    seeds.2,
                    root_entry.as_ref(),
                    account.as_bytes(),
                    keys.device().as_bytes()
                ],
            )
            .map_err(VaultError::from)?;
        Ok(())
    }

    /// Goes on with a registration that did not finish, perhaps with another invite.
    pub(super) fn redirect(connection: &Connection, new: &NewProfile) -> Result<(), VaultError> {
        let sql = "UPDATE profile SET server = ?1, device_name = ?2 WHERE handle IS NULL";
        connection.execute(sql, params![server_text(&new.server), new.device_name])?;
        Ok(())
    }

    pub(super) fn load(connection: &Connection) -> Result<Option<Self>, VaultError> {
        let sql = "SELECT server, device_name, proof_seed, mls_seed, recovery_entropy, root_entry, account, device,
                   handle, log_entry FROM profile";
        let read = |row: &rusqlite::Row<'_>| {
            let proof_seed = Zeroizing::new(row.get::<_, [u8; 32]>(2)?);
            let mls_seed = Zeroizing::new(row.get::<_, [u8; 32]>(3)?);
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, Option<String>>(8)?,
                Self {
                    server: ServerUrl { host: String::new(), port: 0, pin: None, token: None },
                    device_name: row.get(1)?,
                    proof: SigningKey::from_bytes(&proof_seed),
                    signer: signer(&mls_seed),
                    entropy: row.get::<_, Option<[u8; words::ENTROPY_BYTES]>>(4)?.map(Zeroizing::new),
                    root_entry: row.get::<_, Vec<u8>>(5)?.into(),
                    account: AccountId::from_bytes(row.get(6)?),
                    device: DeviceId::from_bytes(row.get(7)?),
                    handle: None,
                    log_entry: row.get(9)?,
                },
            ))
        };
        let Some((server, handle, profile)) = connection.query_row(sql, [], read).optional()? else { return Ok(None) };
        let server = server.parse().map_err(|_| VaultError::Damaged("server address"))?;
        let handle = handle.map(|text| text.parse()).transpose().map_err(|_| VaultError::Damaged("handle"))?;
        Ok(Some(Self { server, handle, ..profile }))
    }

    pub(super) const fn is_registered(&self) -> bool {
        self.handle.is_some()
    }

    /// Whether nothing of the registration is left to be done.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_registered() && self.entropy.is_none()
    }

    pub(super) fn draft(&self) -> Result<RegistrationDraft, VaultError> {
        let entropy = self.entropy.as_ref().ok_or(VaultError::Damaged("recovery key"))?;
        let (root_entry, handle) = (self.root_entry.clone(), self.handle.clone());
        Ok(RegistrationDraft { root_entry, handle, recovery_words: words::words(entropy) })
    }

    /// Who the device is; of an unfinished registration, with a handle that stands for none.
    pub(super) fn identity(&self) -> Identity {
        let none = || "unregistered".parse().expect("it is a well-formed handle");
        Identity {
            handle: self.handle.clone().unwrap_or_else(none),
            account: self.account,
            device: self.device,
            device_name: self.device_name.clone(),
            server: self.server.clone(),
            proof: self.proof.clone(),
            log_entry: self.log_entry,
        }
    }
}

/// A name by which a person knows a device.
pub(crate) fn check_device_name(name: &str) -> Result<(), OpenError> {
    let fits = !name.is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(OpenError::DeviceName) }
}

pub(super) fn server_text(server: &ServerUrl) -> String {
    ServerUrl { token: None, ..server.clone() }.to_string()
}

fn signer(seed: &[u8; 32]) -> SignatureKeyPair {
    let public = SigningKey::from_bytes(seed).verifying_key().to_bytes().to_vec();
    SignatureKeyPair::from_raw(openmls_traits::types::SignatureScheme::ED25519, seed.to_vec(), public)
}
