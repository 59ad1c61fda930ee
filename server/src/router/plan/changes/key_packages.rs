//! KeyPackages: one-time ones go out once, a last resort as often as it must.

use bytes::Bytes;
use gureum_proto::limits::{CLAIM_PAGE_BYTES, KEY_PACKAGES_LOW};
use gureum_proto::{AccountId, Code, DeviceId, DeviceKeyPackage, KeyPackages, Notice, Refusal};

use super::{Answer, Changed};
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag, Key, KeyPackageKind};
use crate::store::record::KeyPackageRecord;
use crate::store::{Entry, Family, StoreError, decode};

/// KeyPackages that were validated, each with its hash.
#[derive(Debug)]
pub struct KeyPackagesPlan {
    /// Whose.
    pub from: Authenticated,
    /// One-time packages.
    pub one_time: Vec<([u8; 32], KeyPackageRecord)>,
    /// The new last resort.
    pub last_resort: Option<([u8; 32], KeyPackageRecord)>,
    /// Whether whatever is there of the device goes first.
    pub replace: bool,
}

/// Of whom KeyPackages are claimed.
#[derive(Debug)]
pub struct ClaimPlan {
    /// Accounts, each with those of its active devices that are meant.
    pub of: Vec<(AccountId, Vec<DeviceId>)>,
}

/// What a claim takes with it. Set aside until it is known that nothing is refused: the batch holds what came before it.
#[derive(Default)]
struct Taken {
    /// Keys of packages that went out or have expired.
    spent: Vec<Bytes>,
    /// Devices whose last resort went out for the first time.
    last_resorts: Vec<Key>,
}

impl Planner {
    pub(super) fn put_key_packages(&self, put: &KeyPackagesPlan, plan: &mut Plan) -> Answer {
        let (account, device) = (put.from.account(), put.from.device());
        if self.store.get(Family::Cursor, key::cursor(&account, &device, CursorTag::Cursor).as_ref())?.is_none() {
            // It was revoked after they were validated: nobody is to be given them.
            return Ok(Err(Refusal::new(Code::DeviceRevoked)));
        }
        let before = self.stored(account, device, KeyPackageKind::OneTime)?;
        let kept = if put.replace { 0 } else { before.len() };
        let left = kept + put.one_time.len();
        if left > KEY_PACKAGES_STORED_MAX {
            let detail = format!("the directory keeps at most {KEY_PACKAGES_STORED_MAX} KeyPackages of a device");
            return Ok(Err(Refusal::with_detail(Code::LimitReached, detail)));
        }
        if put.replace {
            before.into_iter().for_each(|(key, _)| plan.batch.delete(Family::KeyPackage, key));
        }
        if put.replace || put.last_resort.is_some() {
            for (old, _) in self.stored(account, device, KeyPackageKind::LastResort)? {
                plan.batch.delete(Family::KeyPackage, old);
            }
            plan.batch.delete(Family::Cursor, key::cursor(&account, &device, CursorTag::LastResort));
        }
        for (hash, record) in &put.one_time {
            let key = key::key_package(&account, &device, KeyPackageKind::OneTime, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        if let Some((hash, record)) = &put.last_resort {
            let key = key::key_package(&account, &device, KeyPackageKind::LastResort, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackagesStored(u32::try_from(left).unwrap_or(u32::MAX))))
    }

    pub(super) fn claim_key_packages(&self, claim: &ClaimPlan, now_ms: u64, plan: &mut Plan) -> Answer {
        let (mut claimed, mut taken, mut bytes) = (KeyPackages::default(), Taken::default(), 0);
        for (account, devices) in &claim.of {
            if bytes > CLAIM_PAGE_BYTES {
                // Those that are left are in no list of the answer, and are asked for again.
                break;
            }
            let before = claimed.packages.len();
            for device in devices {
                // One that has none left joins by a commit of its own: it must not keep the others out.
                if let Some(key_package) = self.claim(*account, *device, now_ms, &mut taken, plan)? {
                    bytes += key_package.len();
                    claimed.packages.push(DeviceKeyPackage { account: *account, device: *device, key_package });
                }
            }
            if claimed.packages.len() == before && !devices.is_empty() {
                claimed.missing.push(*account);
            }
        }
        if claimed.packages.is_empty() && !claimed.missing.is_empty() {
            return Ok(Err(Refusal::new(Code::KeyPackagesExhausted)));
        }
        taken.spent.into_iter().for_each(|key| plan.batch.delete(Family::KeyPackage, key));
        taken.last_resorts.into_iter().for_each(|key| plan.batch.put_record(Family::Cursor, key, &()));
        // A package that went out must not go out again after a crash.
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackages(claimed)))
    }

    /// Takes a package of a device, and has the device told when few are left.
    fn claim(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
        taken: &mut Taken,
        plan: &mut Plan,
    ) -> Result<Option<Bytes>, StoreError> {
        let stored = self.stored(account, device, KeyPackageKind::OneTime)?;
        let (mut left, mut package) = (stored.len(), None);
        for (key, value) in stored {
            let record: KeyPackageRecord = decode(Family::KeyPackage, &value)?;
            taken.spent.push(key);
            left -= 1;
            if record.not_after_ms > now_ms {
                package = Some(record.package);
                break;
            }
        }
        let key_packages_left = u32::try_from(left).unwrap_or(u32::MAX);
        if key_packages_left >= KEY_PACKAGES_LOW {
            return Ok(package);
        }
        let given_out = key::cursor(&account, &device, CursorTag::LastResort);
        let was_used = self.store.get(Family::Cursor, given_out.as_ref())?.is_some();
        let needs_last_resort = package.is_none();
        if needs_last_resort {
            package = self.last_resort(account, device, now_ms, taken)?;
            if package.is_some() && !was_used {
                taken.last_resorts.push(given_out);
            }
        }
        // Also where the claim is refused because nobody has any: whoever is connected can put some.
        let last_resort_used = was_used || needs_last_resort;
        plan.notices.push((account, device, Notice { key_packages_left, last_resort_used }));
        Ok(package)
    }

    fn last_resort(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
        taken: &mut Taken,
    ) -> Result<Option<Bytes>, StoreError> {
        for (key, value) in self.stored(account, device, KeyPackageKind::LastResort)? {
            let record: KeyPackageRecord = decode(Family::KeyPackage, &value)?;
            if record.not_after_ms > now_ms {
                return Ok(Some(record.package));
            }
            taken.spent.push(key);
        }
        Ok(None)
    }

    fn stored(&self, account: AccountId, device: DeviceId, kind: KeyPackageKind) -> Result<Vec<Entry>, StoreError> {
        let range = key::key_packages(&account, &device, kind);
        self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)
    }
}
