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
            Planned::Now(plan, registered) => match self.router.change(Change::AppendLog(plan)).await? {
                Changed::LogAppended(_) => Ok(Recovery::Done(registered)),
                _ => Err(Refusal::new(Code::Internal)),
            },
        }
    }

    fn plan_recovery(&self, recover: Recover) -> Result<Planned, Failure> {
        let unknown = || Failure::Refused(Refusal::new(Code::RecoveryUnknown));
        let account = self.directory.by_recovery_key(&recover.recovery_key)?.ok_or_else(unknown)?;
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
