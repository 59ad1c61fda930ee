//! An account is made: from an invite, or for a phone number.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{CodeSent, Handle, Phone, PhoneNotice, Register, ServerUrl};
use zeroize::Zeroizing;

use super::Client;
use super::error::ClientError;
use super::phone::NewPhone;
use crate::ground::Ground;
use crate::link::Dialer;
use crate::vault::{KeySource, NewProfile, RegistrationDraft, Vault, VaultError, is_e164};

/// What a registration leaves to be shown.
pub struct Registration {
    /// The home, ready for use.
    pub client: Client,
    /// The recovery key as words. Call [`Client::recovery_words_shown`] when they are; then they are nowhere else.
    pub recovery_words: Zeroizing<String>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What is to be registered.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The server's address, with the invite's token where registration needs one.
    pub invite: ServerUrl,
    /// The handle wanted.
    pub handle: Handle,
    /// A name by which a person knows the device.
    pub device_name: String,
}

impl Client {
    /// Makes an account on a server and a home for it. After a failure the same call goes on where it stopped.
    ///
    /// # Errors
    /// The home holds an account already, the server cannot be reached, or it refuses.
    pub async fn register(home: &Path, key: KeySource, account: NewAccount) -> Result<Registration, ClientError> {
        Box::pin(Self::register_on(Ground::system(), home, key, account)).await
    }

    /// As [`Self::register`], on any ground.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_on(
        ground: Ground,
        home: &Path,
        key: KeySource,
        account: NewAccount,
    ) -> Result<Registration, ClientError> {
        Box::pin(Self::register_with(ground, home, key, account, None)).await
    }

    /// Asks the server to send a code to a phone number, by which [`Self::register_by_phone`] makes the account. The keys of
    /// the account are made before that, and kept. `None`: the server has made the account already, and
    /// [`Self::register`] shows its words.
    ///
    /// # Errors
    /// The home holds an account already, the server cannot be reached, or it refuses: it sends no codes, none to this
    /// number, or has sent too many.
    pub async fn request_code(
        home: &Path,
        key: KeySource,
        account: &NewAccount,
        phone: &Phone,
    ) -> Result<Option<CodeSent>, ClientError> {
        Box::pin(Self::request_code_on(Ground::system(), home, key, account, phone)).await
    }

    /// As [`Self::request_code`], on any ground.
    ///
    /// # Errors
    /// As [`Self::request_code`].
    pub async fn request_code_on(
        ground: Ground,
        home: &Path,
        key: KeySource,
        account: &NewAccount,
        phone: &Phone,
    ) -> Result<Option<CodeSent>, ClientError> {
        let mut unproven = Dialer::over(Arc::clone(&ground.sockets), account.invite.clone())?.connect().await?;
        let (mut vault, draft) = begin(&ground, home, key, account).await?;
        if draft.handle.is_some() {
            return Ok(None);
        }
        let sent = unproven.request_code(phone).await?;
        if !is_e164(&sent.phone) {
            return Err(ClientError::Mismatched);
        }
        let (typed, number) = (phone.clone(), sent.phone.clone());
        ground.work.run(move || vault.note_code_asked(&typed, &number)).await??;
        Ok(Some(sent))
    }

    /// As [`Self::register`], for a phone number to which a code was sent. The number moves to the new account, whoever had
    /// it before.
    ///
    /// # Errors
    /// As [`Self::register`]; or the code is wrong, or the number is locked.
    pub async fn register_by_phone(
        home: &Path,
        key: KeySource,
        account: NewAccount,
        phone: NewPhone,
    ) -> Result<Registration, ClientError> {
        Box::pin(Self::register_by_phone_on(Ground::system(), home, key, account, phone)).await
    }

    /// As [`Self::register_by_phone`], on any ground.
    ///
    /// # Errors
    /// As [`Self::register_by_phone`].
    pub async fn register_by_phone_on(
        ground: Ground,
        home: &Path,
        key: KeySource,
        account: NewAccount,
        phone: NewPhone,
    ) -> Result<Registration, ClientError> {
        Box::pin(Self::register_with(ground, home, key, account, Some(phone))).await
    }

    async fn register_with(
        ground: Ground,
        home: &Path,
        key: KeySource,
        account: NewAccount,
        phone: Option<NewPhone>,
    ) -> Result<Registration, ClientError> {
        // Before anything is written: an address that answers nobody leaves nothing behind.
        let dialer = Dialer::over(Arc::clone(&ground.sockets), account.invite.clone())?;
        let mut unproven = dialer.connect().await?;
        let (mut vault, draft) = begin(&ground, home, key, &account).await?;
        if draft.handle.is_none() {
            let (mut number, mut proof) = (None, None);
            if let Some(phone) = phone {
                let (in_e164, locks) = (vault.number_of(&phone.phone)?, phone.pin.is_some());
                number = Some((in_e164.clone(), phone.findable, locks));
                proof = Some(phone.proof(ground.work, in_e164).await?);
                if locks {
                    // A PIN takes a while, and a connection that proves nothing has a short life.
                    unproven = dialer.connect().await?;
                }
            }
            let token = account.invite.token.map_or_else(Bytes::new, Bytes::from);
            let handle = account.handle;
            let register = Register { token, handle: handle.to_string(), root_entry: draft.root_entry, phone: proof };
            let registered = unproven.register(&register).await?;
            let complete = move || -> Result<Vault, VaultError> {
                vault.registered(&handle, registered)?;
                if let Some((number, findable, locks)) = number {
                    vault.set_own_phone(&number, PhoneNotice::default(), findable, locks)?;
                }
                Ok(vault)
            };
            vault = ground.work.run(complete).await??;
        }
        let identity = vault.identity().clone();
        let client = Self::new(ground, home, vault, identity)?;
        // The account exists whatever happens now, and the next connection fills what is missing.
        let _ = client.first_connection(unproven).await;
        Ok(Registration { client, recovery_words: draft.recovery_words })
    }
}

/// Makes the home, or goes on with one whose registration did not finish.
async fn begin(
    ground: &Ground,
    home: &Path,
    key: KeySource,
    account: &NewAccount,
) -> Result<(Vault, RegistrationDraft), ClientError> {
    let server = ServerUrl { token: None, ..account.invite.clone() };
    let profile = NewProfile { server, device_name: account.device_name.clone() };
    let (clock, directory) = (Arc::clone(&ground.clock), home.to_owned());
    Ok(ground.work.run(move || Vault::create_by(clock, &directory, &key, &profile)).await??)
}
