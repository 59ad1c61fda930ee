//! An account whose devices are all lost comes back with a new one, by its recovery words.

use std::path::Path;
use std::sync::Arc;

use gureum_proto::{Code, Recovering};

use super::Client;
use super::error::ClientError;
use super::link::{NewDevice, NewHome};
use crate::ground::Ground;
use crate::limits::RECOVER_TRIES_MAX;
use crate::link::{Dialer, LinkError};
use crate::vault::{DeviceError, KeySource};
use crate::words;

impl Client {
    /// Brings an account back whose devices are lost: they are revoked, and the device of this home is added. After a
    /// failure the same call goes on where it stopped. The first session that takes the inbox joins the account's
    /// conversations and removes the lost devices from them.
    ///
    /// # Errors
    /// The words are not those of an account on this server, the home holds an account already, or the server cannot be
    /// reached.
    pub async fn recover(home: &Path, key: KeySource, new: NewDevice, words: &str) -> Result<Self, ClientError> {
        Self::recover_on(Ground::system(), home, key, new, words).await
    }

    /// As [`Self::recover`], on any ground.
    ///
    /// # Errors
    /// As [`Self::recover`].
    pub async fn recover_on(
        ground: Ground,
        home: &Path,
        key: KeySource,
        new: NewDevice,
        words: &str,
    ) -> Result<Self, ClientError> {
        let entropy = words::entropy(words)?;
        let recovery = words::recovery_key(&entropy);
        let public = recovery.verifying_key().to_bytes();
        let dialer = Dialer::over(Arc::clone(&ground.sockets), new.server.clone())?;
        // Before anything is written: words that no account here has leave nothing behind.
        dialer.connect().await?.recovering(public).await?;
        let home = NewHome::begin(ground, home, key, &new).await?;
        for _ in 0..RECOVER_TRIES_MAX {
            let mut unproven = dialer.connect().await?;
            let Recovering { account, handle, head } = unproven.recovering(public).await?;
            // A try whose answer was lost may have brought it back.
            if let Some(joining) = home.joining().await?
                && joining.account == account
                && home.is_in(&dialer, &joining).await?
            {
                return recovered(&home, &dialer).await;
            }
            let key = recovery.clone();
            let entry = home.with(move |draft| draft.recover(account, handle, head, &key)).await?;
            match unproven.recover(public, entry).await {
                Ok(registered) if registered.account == account => return recovered(&home, &dialer).await,
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::LogInvalid => (),
                Err(error) => return Err(error.into()),
            }
        }
        Err(DeviceError::Raced.into())
    }
}

/// The account is back: there is no other device that could hand anything over.
async fn recovered(home: &NewHome, dialer: &Dialer) -> Result<Client, ClientError> {
    home.settle(dialer, None).await.map(|(client, _)| client)
}
