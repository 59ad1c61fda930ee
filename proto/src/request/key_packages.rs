//! KeyPackages, as they are put into the directory and claimed from it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Request;
use crate::convert::{PayloadError, bounded, filled, id, raw, schema};
use crate::ids::{AccountId, DeviceId};
use crate::limits::{CLAIM_ACCOUNTS_MAX, DEVICES_MAX, KEY_PACKAGE_BYTES_MAX, KEY_PACKAGES_MAX};

/// What a claim has got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPackages {
    /// One of each device that has one; those of an account stand together.
    pub packages: Vec<DeviceKeyPackage>,
    /// Accounts of which none can be had: there is no such account, or none of its devices has one.
    pub missing: Vec<AccountId>,
}

/// A KeyPackage, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKeyPackage {
    /// The account.
    pub account: AccountId,
    /// Its device.
    pub device: DeviceId,
    /// An MLSMessage with the KeyPackage.
    pub key_package: Bytes,
}

impl KeyPackages {
    /// Those of one account's devices.
    pub fn of(&self, account: AccountId) -> impl Iterator<Item = (DeviceId, Bytes)> {
        let its = self.packages.iter().filter(move |package| package.account == account);
        its.map(|package| (package.device, package.key_package.clone()))
    }

    pub(super) fn write(&self) -> schema::KeyPackages {
        let package = |package: &DeviceKeyPackage| schema::DeviceKeyPackage {
            device: raw(package.device),
            key_package: package.key_package.clone(),
            account: raw(package.account),
        };
        schema::KeyPackages {
            packages: self.packages.iter().map(package).collect(),
            missing: self.missing.iter().map(raw).collect(),
        }
    }

    pub(super) fn read(found: schema::KeyPackages) -> Result<Self, PayloadError> {
        if found.packages.len() > CLAIM_ACCOUNTS_MAX * DEVICES_MAX {
            return Err(PayloadError::TooLong("list of KeyPackages"));
        }
        if found.missing.len() > CLAIM_ACCOUNTS_MAX {
            return Err(PayloadError::TooLong("list of accounts"));
        }
        let package = |package: schema::DeviceKeyPackage| {
            Ok(DeviceKeyPackage {
                account: id(&package.account, "account")?,
                device: id(&package.device, "device")?,
                key_package: filled(package.key_package, KEY_PACKAGE_BYTES_MAX, "KeyPackage")?,
            })
        };
        Ok(Self {
            packages: found.packages.into_iter().map(package).collect::<Result<_, PayloadError>>()?,
            missing: found.missing.iter().map(|account| id(account, "account")).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) fn read_put(packages: schema::PutKeyPackages) -> Result<Request, PayloadError> {
    if packages.key_packages.len() > KEY_PACKAGES_MAX {
        return Err(PayloadError::TooLong("list of KeyPackages"));
    }
    let key_packages = packages
        .key_packages
        .into_iter()
        .map(|package| filled(package, KEY_PACKAGE_BYTES_MAX, "KeyPackage"))
        .collect::<Result<_, _>>()?;
    let last_resort = bounded(packages.last_resort, KEY_PACKAGE_BYTES_MAX, "last resort")?;
    Ok(Request::PutKeyPackages {
        key_packages,
        last_resort: Some(last_resort).filter(|bytes| !bytes.is_empty()),
        replace: packages.replace,
    })
}

/// One account has a field of its own, several have another.
pub(super) fn write_claim(accounts: &[AccountId]) -> schema::ClaimKeyPackages {
    match accounts {
        [account] => schema::ClaimKeyPackages { account: raw(account), accounts: Vec::new() },
        accounts => schema::ClaimKeyPackages { account: Bytes::new(), accounts: accounts.iter().map(raw).collect() },
    }
}

pub(super) fn read_claim(claim: schema::ClaimKeyPackages) -> Result<Request, PayloadError> {
    let one = Some(claim.account).filter(|account| !account.is_empty());
    let accounts: Vec<Bytes> = one.into_iter().chain(claim.accounts).collect();
    if accounts.is_empty() {
        return Err(PayloadError::Missing("account"));
    }
    if accounts.len() > CLAIM_ACCOUNTS_MAX {
        return Err(PayloadError::TooLong("list of accounts"));
    }
    let accounts: Vec<AccountId> =
        accounts.iter().map(|account| id(account, "account")).collect::<Result<_, PayloadError>>()?;
    if accounts.iter().collect::<BTreeSet<_>>().len() < accounts.len() {
        return Err(PayloadError::Invalid("list of accounts"));
    }
    Ok(Request::ClaimKeyPackages { accounts })
}
