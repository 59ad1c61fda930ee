//! Bringing an account back by its recovery key, for a connection that has not proven anything: the entry that does it
//! is signed by that key, and proves more than any device could.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{Code, DeviceLog, LogChange, Recover, Recovering, Refusal, Registered};

use super::{Failure, Requests};
use crate::router::{Change, Changed, LogPlan};
use crate::session::Recovery;

enum Planned {
    Known(Recovering),
    /// The log ends with this very entry: its answer got lost.
    Before(Registered),
    Now(LogPlan, Registered),
}

impl Requests {
    /// Says where the account of a recovery key stands, or appends the entry that brings it back.
    ///
    /// # Errors
    /// No account has the key, or the entry does not follow from its log.
    pub(crate) async fn recover(self: &Arc<Self>, recover: Recover) -> Result<Recovery, Refusal> {
        match self.blocking(move |this| this.plan_recovery(recover)).await? {
            Planned::Known(recovering) => Ok(Recovery::Known(recovering)),
            Planned::Before(registered) => Ok(Recovery::Done(registered)),
            Planned::Now(plan, registered) => {
                let revoked = plan.revoked.clone();
                let Changed::LogAppended(_) = self.router.change(Change::AppendLog(plan)).await? else {
                    return Err(Refusal::new(Code::Internal));
                };
                let (account, now_ms) = (registered.account, self.clock.now_ms());
                revoked.iter().for_each(|device| self.linking.revoked(account, *device, now_ms));
                Ok(Recovery::Done(registered))
            }
        }
    }

    fn plan_recovery(&self, recover: Recover) -> Result<Planned, Failure> {
        let unknown = || Failure::Refused(Refusal::new(Code::RecoveryUnknown));
        let account = self.directory.by_recovery_key(&recover.recovery_key)?.ok_or_else(unknown)?;
        if self.directory.is_gone(account)? {
            return Err(Failure::Refused(Refusal::new(Code::AccountGone)));
        }
        let log = self.directory.log(account)?.ok_or_else(unknown)?;
        if log.recovery_key().as_bytes() != &recover.recovery_key {
            return Err(unknown());
        }
        let Some(entry) = recover.entry else {
            let handle = self.directory.handle(account)?.ok_or_else(unknown)?;
            return Ok(Planned::Known(Recovering { account, handle, head: log.at() }));
        };
        if self.directory.last_entry(&log)?.as_ref() == Some(&entry) {
            let added = log.active().next().ok_or_else(unknown)?.0;
            return Ok(Planned::Before(Registered { account, device: added }));
        }
        plan_entry(&log, entry)
    }
}

fn plan_entry(log: &DeviceLog, entry: Bytes) -> Result<Planned, Failure> {
    let account = log.account();
    let mut after = log.clone();
    let invalid = |why: String| Failure::Refused(Refusal::with_detail(Code::LogInvalid, why));
    let change = after.append(&entry).map_err(|error| invalid(error.to_string()))?;
    let LogChange::Recovered { added, .. } = &change else {
        return Err(invalid("the entry does not recover the account".to_owned()));
    };
    let registered = Registered { account, device: *added };
    let plan = LogPlan::new(log, &after, *added, entry, change);
    Ok(Planned::Now(plan, registered))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use gureum_proto::{DeviceKeys, LogHead, sign_recover, sign_root, sign_rotate_recovery};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> [u8; 32] {
        key(seed).verifying_key().to_bytes()
    }

    /// An account whose recovery key is 3.
    fn log() -> DeviceLog {
        DeviceLog::from_root(&sign_root(&key(1), &public(2), &key(3), 1).unwrap()).unwrap()
    }

    fn recovery(at: LogHead, by: u8) -> Bytes {
        let keys = DeviceKeys::new(&public(4), &public(5)).unwrap();
        sign_recover(at, &key(by), &keys, &key(4), 2)
    }

    #[track_caller]
    fn refuses(entry: Bytes) {
        match plan_entry(&log(), entry) {
            Err(Failure::Refused(refusal)) => assert_eq!(refusal.code, Code::LogInvalid),
            _ => panic!("it is taken"),
        }
    }

    #[test]
    fn the_entry_revokes_every_device_and_adds_the_one_that_asks() {
        let log = log();
        let Ok(Planned::Now(plan, registered)) = plan_entry(&log, recovery(log.at(), 3)) else { panic!("refused") };
        let (old, new) = (log.active().next().unwrap().0, registered.device);
        assert_eq!((registered.account, plan.account, plan.from), (log.account(), log.account(), new));
        assert_eq!((plan.added, plan.revoked, plan.recovery_keys), (vec![new], vec![old], None));
    }

    #[test]
    fn another_key_another_head_and_another_change_bring_nothing_back() {
        let log = log();
        refuses(recovery(log.at(), 9));
        refuses(recovery(LogHead { length: 2, ..log.at() }, 3));
        // It holds, but it is for a device to hand in that has proven itself.
        let first = log.active().next().unwrap().0;
        refuses(sign_rotate_recovery(&log, (first, &key(1)), &key(6), 2));
        refuses(Bytes::from_static(b"garbage"));
    }
}
