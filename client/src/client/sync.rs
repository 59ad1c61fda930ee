//! What a device asks its server for: accounts, conversations, commits, and the way back into a conversation.

mod accounts;
mod commits;
mod conversations;
mod devices;
mod gone_back;
mod groups;
mod in_vain;
mod key_packages;
mod looked_up;
mod own;
mod people;
mod phone;

use std::sync::Arc;
use std::time::Duration;

use gureum_proto::Ready;

use super::error::ClientError;
use super::vault_handle::VaultHandle;
use crate::link::Link;
use crate::vault::{Identity, Need, Vault};
pub(crate) use devices::Answered;
pub(crate) use gone_back::Seen;
use gone_back::went_back;
pub(crate) use groups::{Begun, Pursued};
pub use groups::{GroupAnswer, GroupCommand};
use in_vain::InVain;
use looked_up::LookedUp;
pub(crate) use people::Told;

/// A connection and the database that it serves.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) link: Link,
    pub(crate) vault: VaultHandle,
    pub(crate) identity: Arc<Identity>,
    looked_up: LookedUp,
    brought_in_vain: InVain,
}

/// What is left of several attempts of which none may hold up the others.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Left {
    /// Something is refused still, and the server wants to be left alone for so long.
    pub(crate) refused: Option<Duration>,
    /// Anything was tried at all.
    pub(crate) tried: bool,
}

impl Left {
    /// Counts an attempt in; what ends the connection is an error.
    fn note(&mut self, result: Result<(), ClientError>) -> Result<(), ClientError> {
        self.tried = true;
        if let Err(error) = result {
            let error = error.confined()?;
            tracing::warn!(%error, "this has to wait");
            self.refused = self.refused.max(Some(error.retry_after()));
        }
        Ok(())
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.refused = self.refused.max(other.refused);
        self.tried |= other.tried;
    }
}

impl Sync {
    pub(crate) fn new(link: Link, vault: VaultHandle, identity: Arc<Identity>) -> Self {
        Self { link, vault, identity, looked_up: LookedUp::default(), brought_in_vain: InVain::default() }
    }

    /// Fetches what the vault lacks.
    pub(crate) async fn meet(&self, need: Need) -> Result<(), ClientError> {
        match need {
            Need::Account { account, log_from } => self.learn_needed(account, log_from).await,
            Need::Commits { conversation, from_epoch, to_epoch } => {
                self.fetch_commits(conversation, from_epoch, to_epoch).await
            }
            Need::Rejoin { conversation } => self.rejoin(conversation).await,
            Need::Removal { conversation } => self.remove_revoked(conversation).await,
            Need::Members { conversation } => self.learn_members(conversation).await,
        }
    }

    /// Gives up for now what cannot be met, so that it holds up nothing else.
    pub(crate) async fn give_up(&self, need: Need) -> Result<(), ClientError> {
        self.vault.run(move |vault| vault.give_up(need)).await?;
        match need {
            Need::Account { .. } | Need::Members { .. } => Ok(()),
            Need::Commits { conversation, .. } | Need::Rejoin { conversation } | Need::Removal { conversation } => {
                self.vault.call(move |vault| vault.release_counters(conversation)).await
            }
        }
    }

    /// Tries again what was refused: creations, commits, and the way forward in conversations that are behind; those
    /// that this device is not in, if it is to join.
    pub(crate) async fn mend(&self, joins: bool) -> Result<Left, ClientError> {
        let mut left = self.confirm_creations().await?;
        left.add(self.resubmit_commits().await?);
        let is_wanted = |need: &Need| joins || !matches!(need, Need::Rejoin { .. });
        for need in self.vault.call(Vault::behind).await? {
            if is_wanted(&need) {
                let met = self.meet(need).await;
                if met.is_err() {
                    self.give_up(need).await?;
                }
                left.note(met)?;
            }
        }
        if left.tried && left.refused.is_none() && self.vault.call(Vault::behind).await?.iter().any(is_wanted) {
            left.refused = Some(Duration::ZERO);
        }
        Ok(left)
    }

    /// What a new connection asks first: nothing, mostly.
    pub(crate) async fn begin_session(&self, ready: &Ready, seen: Seen) -> Result<Left, ClientError> {
        let mut left = Left::default();
        if went_back(ready.head, seen.cursor) {
            // Before anything is sent: what is encrypted for a history that is no more, nobody reads.
            self.check_all().await?;
            self.vault.call(Vault::tell_all_decisions).await?;
        }
        if seen.log_entries <= self.identity.log_entry {
            // Nothing is done on the word of a server that this is the account which has added the device.
            self.learn_own().await?;
        } else if ready.log_entries > seen.log_entries {
            left.note(self.learn_account(self.identity.account).await.map(drop))?;
        }
        // Before anything of somebody is shown who may be blocked.
        left.note(self.read_decisions().await)?;
        let (server_time_ms, phone) = (ready.server_time_ms, ready.phone);
        self.vault.call(move |vault| vault.note_phone(phone)).await?;
        self.vault.call(move |vault| vault.forget_key_packages(server_time_ms)).await?;
        left.note(self.fill_key_packages(ready.key_packages_left, ready.last_resort_used).await)?;
        left.add(self.confirm_creations().await?);
        Ok(left)
    }
}
