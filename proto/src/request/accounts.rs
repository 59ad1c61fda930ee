//! Accounts and their device logs, as they are asked for and found.

use bytes::Bytes;

use crate::convert::{PayloadError, filled, id, raw, schema};
use crate::handle::Handle;
use crate::ids::AccountId;
use crate::limits::LOG_ENTRY_BYTES_MAX;

/// How to find an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindBy {
    /// By its handle.
    Handle(Handle),
    /// By its id.
    Account(AccountId),
}

impl FindBy {
    pub(super) fn write(&self) -> schema::find_account::By {
        match self {
            Self::Handle(handle) => schema::find_account::By::Handle(handle.to_string()),
            Self::Account(account) => schema::find_account::By::Account(raw(account)),
        }
    }

    pub(super) fn read(by: Option<schema::find_account::By>) -> Result<Self, PayloadError> {
        match by.ok_or(PayloadError::Missing("account"))? {
            schema::find_account::By::Handle(handle) => {
                handle.parse().map(Self::Handle).map_err(|_| PayloadError::Invalid("handle"))
            }
            schema::find_account::By::Account(account) => Ok(Self::Account(id(&account, "account")?)),
        }
    }
}

/// An account and a part of its device log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFound {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// Signed entries from the one asked for on, as many as fit.
    pub log_entries: Vec<Bytes>,
    /// The log's whole length.
    pub log_length: u64,
}

impl AccountFound {
    pub(super) fn write(&self) -> schema::AccountFound {
        schema::AccountFound {
            account: raw(self.account),
            handle: self.handle.to_string(),
            log_entries: self.log_entries.clone(),
            log_length: self.log_length,
        }
    }

    pub(super) fn read(found: schema::AccountFound) -> Result<Self, PayloadError> {
        let entry = |entry| filled(entry, LOG_ENTRY_BYTES_MAX, "log entry");
        Ok(Self {
            account: id(&found.account, "account")?,
            handle: found.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?,
            log_entries: found.log_entries.into_iter().map(entry).collect::<Result<_, _>>()?,
            log_length: found.log_length,
        })
    }
}
