//! Accounts and their device logs, as they are asked for and found.

use bytes::Bytes;

use crate::convert::{PayloadError, filled, id, raw, schema};
use crate::handle::Handle;
use crate::ids::AccountId;
use crate::leave::SignedLeave;
use crate::limits::{CONVERSATION_ACCOUNTS_MAX, LOG_ENTRY_BYTES_MAX};
use crate::phone::Phone;

/// How to find an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindBy {
    /// By its handle.
    Handle(Handle),
    /// By its id.
    Account(AccountId),
    /// By its phone number, if its owner allows that.
    Phone(Phone),
}

impl FindBy {
    pub(super) fn write(&self) -> schema::find_account::By {
        match self {
            Self::Handle(handle) => schema::find_account::By::Handle(handle.to_string()),
            Self::Account(account) => schema::find_account::By::Account(raw(account)),
            Self::Phone(phone) => schema::find_account::By::Phone(phone.to_string()),
        }
    }

    pub(super) fn read(by: Option<schema::find_account::By>) -> Result<Self, PayloadError> {
        match by.ok_or(PayloadError::Missing("account"))? {
            schema::find_account::By::Handle(handle) => {
                handle.parse().map(Self::Handle).map_err(|_| PayloadError::Invalid("handle"))
            }
            schema::find_account::By::Account(account) => Ok(Self::Account(id(&account, "account")?)),
            schema::find_account::By::Phone(phone) => Phone::read(&phone).map(Self::Phone),
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
        Ok(Self {
            account: id(&found.account, "account")?,
            handle: found.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?,
            log_entries: read_entries(found.log_entries)?,
            log_length: found.log_length,
        })
    }
}

/// An account in a conversation and its device log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLog {
    /// The account.
    pub account: AccountId,
    /// Its handle.
    pub handle: Handle,
    /// Signed entries from the first one on, as many as fit.
    pub log_entries: Vec<Bytes>,
    /// What the account has signed, if it has left and is to be removed.
    pub leave: Option<SignedLeave>,
}

impl MemberLog {
    pub(super) fn write_page(logs: &[Self], more: bool) -> schema::MemberLogs {
        let log = |log: &Self| schema::MemberLog {
            account: raw(log.account),
            handle: log.handle.to_string(),
            log_entries: log.log_entries.clone(),
            leave: log.leave.as_ref().map(SignedLeave::write),
        };
        schema::MemberLogs { logs: logs.iter().map(log).collect(), more }
    }

    pub(super) fn read_page(page: schema::MemberLogs) -> Result<(Vec<Self>, bool), PayloadError> {
        if page.logs.len() > CONVERSATION_ACCOUNTS_MAX {
            return Err(PayloadError::TooLong("page of device logs"));
        }
        let logs = page.logs.into_iter().map(Self::read).collect::<Result<Vec<_>, _>>()?;
        if !logs.is_sorted_by(|a, b| a.account < b.account) {
            return Err(PayloadError::Invalid("order of accounts"));
        }
        Ok((logs, page.more))
    }

    fn read(log: schema::MemberLog) -> Result<Self, PayloadError> {
        Ok(Self {
            account: id(&log.account, "account")?,
            handle: log.handle.parse().map_err(|_| PayloadError::Invalid("handle"))?,
            log_entries: read_entries(log.log_entries)?,
            leave: log.leave.map(SignedLeave::read).transpose()?,
        })
    }
}

fn read_entries(entries: Vec<Bytes>) -> Result<Vec<Bytes>, PayloadError> {
    entries.into_iter().map(|entry| filled(entry, LOG_ENTRY_BYTES_MAX, "log entry")).collect()
}
