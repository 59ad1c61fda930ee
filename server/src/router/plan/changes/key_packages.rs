//! KeyPackages: one-time ones go out once, a last resort as often as it must.

use bytes::Bytes;
use gureum_proto::{AccountId, Code, DeviceId, Refusal};

use super::{Answer, Changed};
use crate::limits::KEY_PACKAGES_STORED_MAX;
use crate::router::plan::{Plan, Planner};
use crate::session::Authenticated;
use crate::store::key::{self, CursorTag, KeyPackageKind};
use crate::store::record::KeyPackageRecord;
use crate::store::{Family, StoreError, decode};

impl Planner {
    pub(super) fn put_key_packages(
        &self,
        from: Authenticated,
        one_time: &[([u8; 32], KeyPackageRecord)],
        last_resort: Option<&([u8; 32], KeyPackageRecord)>,
        plan: &mut Plan,
    ) -> Answer {
        let (account, device) = (from.account(), from.device());
        if self.store.get(Family::Cursor, key::cursor(&account, &device, CursorTag::Cursor).as_ref())?.is_none() {
            // It was revoked after they were validated: nobody is to be given them.
            return Ok(Err(Refusal::new(Code::DeviceRevoked)));
        }
        let range = key::key_packages(&account, &device, KeyPackageKind::OneTime);
        let stored = self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)?.len();
        if stored + one_time.len() > KEY_PACKAGES_STORED_MAX {
            let detail = format!("the directory keeps at most {KEY_PACKAGES_STORED_MAX} KeyPackages of a device");
            return Ok(Err(Refusal::with_detail(Code::LimitReached, detail)));
        }
        for (hash, record) in one_time {
            let key = key::key_package(&account, &device, KeyPackageKind::OneTime, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        if let Some((hash, record)) = last_resort {
            let range = key::key_packages(&account, &device, KeyPackageKind::LastResort);
            for (old, _) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                plan.batch.delete(Family::KeyPackage, old);
            }
            let key = key::key_package(&account, &device, KeyPackageKind::LastResort, hash);
            plan.batch.put_record(Family::KeyPackage, key, record);
        }
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackagesStored(u32::try_from(stored + one_time.len()).unwrap_or(u32::MAX))))
    }

    pub(super) fn claim_key_packages(
        &self,
        account: AccountId,
        devices: &[DeviceId],
        now_ms: u64,
        plan: &mut Plan,
    ) -> Answer {
        let mut packages = Vec::with_capacity(devices.len());
        // Set aside until it is known that nothing is refused: the batch holds what came before this change.
        let mut spent = Vec::new();
        for device in devices {
            // One that has none left joins by a commit of its own: it must not keep the others out.
            if let Some(package) = self.claim(account, *device, now_ms, &mut spent)? {
                packages.push((*device, package));
            }
        }
        if packages.is_empty() && !devices.is_empty() {
            return Ok(Err(Refusal::new(Code::KeyPackagesExhausted)));
        }
        spent.into_iter().for_each(|key| plan.batch.delete(Family::KeyPackage, key));
        // A package that went out must not go out again after a crash.
        plan.must_sync = true;
        Ok(Ok(Changed::KeyPackages(packages)))
    }

    fn claim(
        &self,
        account: AccountId,
        device: DeviceId,
        now_ms: u64,
        spent: &mut Vec<Bytes>,
    ) -> Result<Option<Bytes>, StoreError> {
        for kind in [KeyPackageKind::OneTime, KeyPackageKind::LastResort] {
            let range = key::key_packages(&account, &device, kind);
            for (key, value) in self.store.scan(Family::KeyPackage, range.as_range(), KEY_PACKAGES_STORED_MAX)? {
                let record: KeyPackageRecord = decode(Family::KeyPackage, &value)?;
                let is_current = record.not_after_ms > now_ms;
                if kind == KeyPackageKind::OneTime || !is_current {
                    spent.push(key);
                }
                if is_current {
                    return Ok(Some(record.package));
                }
            }
        }
        Ok(None)
    }
}
