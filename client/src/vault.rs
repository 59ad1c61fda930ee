//! The encrypted local database: identity, contacts, conversations, outbox, inbox cursor and history.
//!
//! Every operation that changes something is one `BEGIN IMMEDIATE` transaction that loads what it needs, the MLS
//! groups included, so that several processes may have one home open. Nothing here waits for a network: the caller
//! carries values between a vault and the server, on a thread that may block.

mod account;
mod commits;
mod contacts;
mod conversations;
mod devices;
mod draft;
mod error;
mod event;
mod gone;
mod groups;
mod hand_over;
mod handed_over;
mod heard;
mod history;
mod holes;
mod in_step;
mod inbox;
mod intents;
mod judge;
mod key;
mod key_packages;
mod leaves;
mod life;
mod maker;
mod outbox;
mod own;
mod phone;
mod plan;
mod profile;
mod push;
mod receipts;
mod rejoin;
mod relations;
mod removals;
mod restart;
mod restore;
mod schema;
mod settings;
mod target;
mod types;
mod typing;
mod welcome;
mod work;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use rusqlite::{Connection, TransactionBehavior};
use zeroize::Zeroizing;

use crate::e2ee::ReadPackages;
pub use crate::e2ee::content::ReceiptKind;
use crate::ground::{Clock, system_clock};
pub use crate::identity::{Identity, NewProfile, RegistrationDraft};
pub use crate::limits::TEXT_BYTES_MAX;
pub(crate) use devices::{Agreed, Answer, open_offer};
pub(crate) use draft::{Draft, Joining};
pub use error::{
    BeginError, DeviceError, GoneBack, GroupError, OpenError, QueueError, RejoinError, TargetError, TrustError,
    VaultError,
};
pub use event::{Event, GroupChange, PhoneEvent, StoredEvent};
pub use groups::{GroupPerson, GroupView};
pub use in_step::InCommon;
pub use intents::{Intent, IntentId, IntentOutcome};
pub use leaves::Leaving;
pub use maker::CommitAnswer;
pub(crate) use phone::is_e164;
use profile::Profile;
pub(crate) use profile::check_device_name;
pub use relations::Decision;
pub use removals::Brought;
pub use target::{NoTarget, Resolved, Target};
pub use types::{
    Applied, Contact, Continuity, Conversation, ConversationStatus, HandOver, HandedOver, HistoryItem, Learned,
    Message, MessageRequest, Muted, Need, OutboxId, OwnPhone, ReadMark, Receipts, Removals, SentMessage, Settings,
    Settled, Taken, With,
};
use work::{Asked, Work};

const DATABASE: &str = "vault.db";

/// What opens the database.
pub enum KeySource {
    /// 32 random bytes in `<home>/key`, of mode 0600.
    File,
    /// A passphrase, by Argon2id with the parameters in `<home>/kdf.json`.
    Passphrase(Zeroizing<String>),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "File",
            Self::Passphrase(_) => "Passphrase",
        })
    }
}

/// A home directory's database, opened.
pub struct Vault {
    connection: Connection,
    crypto: RustCrypto,
    signer: SignatureKeyPair,
    identity: Identity,
    asked: Asked,
    packages: ReadPackages,
    clock: Clock,
}

impl Vault {
    /// Makes a home, or goes on with one whose registration did not finish: with the same keys and root entry.
    ///
    /// # Errors
    /// The home holds an account already, the key does not open it, or it cannot be written.
    pub fn create(home: &Path, key: &KeySource, new: &NewProfile) -> Result<(Self, RegistrationDraft), OpenError> {
        Self::create_by(system_clock(), home, key, new)
    }

    /// As [`Self::create`], by any clock.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_by(
        clock: Clock,
        home: &Path,
        key: &KeySource,
        new: &NewProfile,
    ) -> Result<(Self, RegistrationDraft), OpenError> {
        check_device_name(&new.device_name)?;
        let key = key::new_or_existing(home, key)?;
        let mut connection = schema::open(&home.join(DATABASE), &key, true)?;
        let profile = {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(VaultError::from)?;
            match Profile::load(&transaction)? {
                Some(profile) if profile.is_complete() => return Err(OpenError::Exists(home.to_owned())),
                Some(_) => Profile::redirect(&transaction, new)?,
                None if draft::is_there(&transaction)? => return Err(OpenError::Unlinked(home.to_owned())),
                None => Profile::make(&transaction, new, clock())?,
            }
            let profile = Profile::load(&transaction)?.ok_or(VaultError::Damaged("profile"))?;
            transaction.commit().map_err(VaultError::from)?;
            profile
        };
        let draft = profile.draft()?;
        Ok((Self::new(clock, connection, profile), draft))
    }

    /// Opens a home whose registration is done.
    ///
    /// # Errors
    /// There is none, or the key does not open it.
    pub fn open(home: &Path, key: &KeySource) -> Result<Self, OpenError> {
        Self::open_by(system_clock(), home, key)
    }

    /// As [`Self::open`], by any clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_by(clock: Clock, home: &Path, key: &KeySource) -> Result<Self, OpenError> {
        let path = home.join(DATABASE);
        if !path.exists() {
            return Err(OpenError::Missing(home.to_owned()));
        }
        let key = key::existing(home, key)?;
        let connection = schema::open(&path, &key, false)?;
        match Profile::load(&connection)? {
            Some(profile) if profile.is_registered() => Ok(Self::new(clock, connection, profile)),
            None if draft::is_there(&connection)? => Err(OpenError::Unlinked(home.to_owned())),
            Some(_) | None => Err(OpenError::Unfinished(home.to_owned())),
        }
    }

    /// Who this device is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    fn new(clock: Clock, connection: Connection, profile: Profile) -> Self {
        let identity = profile.identity();
        Self {
            connection,
            crypto: RustCrypto::default(),
            signer: profile.signer,
            identity,
            asked: Asked::default(),
            packages: ReadPackages::default(),
            clock,
        }
    }

    /// Runs an operation as one transaction: kept if it succeeds, without a trace if not.
    fn write<T, E: From<VaultError>>(&mut self, operation: impl FnOnce(&mut Work<'_>) -> Result<T, E>) -> Result<T, E> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(VaultError::from)?;
        let outcome = operation(&mut Work {
            connection: &transaction,
            crypto: &self.crypto,
            signer: &self.signer,
            identity: &self.identity,
            asked: &mut self.asked,
            packages: &mut self.packages,
            now_ms: (self.clock)(),
            groups: HashMap::new(),
        })?;
        transaction.commit().map_err(VaultError::from)?;
        Ok(outcome)
    }

    /// Runs a reading as one transaction, which waits for no writer.
    fn read<T>(&mut self, reading: impl FnOnce(&Connection, u64) -> Result<T, VaultError>) -> Result<T, VaultError> {
        let transaction = self.connection.transaction()?;
        let value = reading(&transaction, (self.clock)())?;
        transaction.commit()?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
