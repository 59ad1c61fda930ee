//! Accounts: registering, finding one, an entry more in one's own device log, and a device that goes on from a copy.

use std::sync::Arc;

use bytes::Bytes;
use gureum_proto::{Code, DeviceLog, FindBy, LifeToken, Refusal, Register, Registered, Response};

use super::{Answer, Requests};
use crate::router::{Change, Changed, LogPlan, RegisterPlan};
use crate::session::Authenticated;

impl Requests {
    /// Makes an account for a connection that has not proven anything yet.
    ///
    /// # Errors
    /// The handle, the root entry, the invite or the phone number is refused.
    pub(crate) async fn register(self: &Arc<Self>, register: Register) -> Result<Registered, Refusal> {
        let handle = register.handle.parse().map_err(|_| Refusal::new(Code::HandleInvalid))?;
        let log = DeviceLog::from_root(&register.root_entry)
            .map_err(|error| Refusal::with_detail(Code::LogInvalid, error.to_string()))?;
        if self.invites.is_some() && register.token.is_empty() {
            let detail = "registering here needs an invite, which the address does not hold";
            return Err(Refusal::with_detail(Code::InviteInvalid, detail));
        }
        let invite = match &self.invites {
            Some(key) => {
                Some(key.verify(&register.token, self.clock.now_ms()).map_err(|_| Refusal::new(Code::InviteInvalid))?)
            }
            None => None,
        };
        let phone = self.registers_phone(&register).await?;
        let (device, _) = log.active().next().ok_or_else(|| Refusal::new(Code::LogInvalid))?;
        let account = log.account();
        let invite = invite.map(|invite| (invite.id, invite.uses, invite.expires_ms));
        let recovery_key = log.recovery_key().to_bytes();
        let number = phone.as_ref().map(|phone| phone.number);
        let plan =
            RegisterPlan { account, device, handle, root_entry: register.root_entry, recovery_key, invite, phone };
        let changed = self.router.change(Change::Register(plan)).await;
        if let Some(number) = number {
            self.tell_holder(number, &changed).await;
        }
        match changed? {
            Changed::Registered | Changed::Moved { .. } => Ok(Registered { account, device }),
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    pub(super) async fn find_account(self: &Arc<Self>, from: Authenticated, by: FindBy, log_from: u64) -> Answer {
        self.quotas.look_up(from.account())?;
        let unknown = || Refusal::with_detail(Code::NotFound, "no such account");
        let by = match by {
            FindBy::Phone(phone) => FindBy::Account(self.find_by_phone(from, &phone).await?.ok_or_else(unknown)?),
            by => by,
        };
        let found = self.blocking(move |this| Ok(this.directory.find(&by, log_from)?)).await?;
        found.map(Response::Account).ok_or_else(unknown)
    }

    pub(super) async fn append_log(self: &Arc<Self>, from: Authenticated, entry: Bytes) -> Answer {
        let plan = self
            .blocking(move |this| {
                let log = this.own_log(from)?;
                let mut after = DeviceLog::clone(&log);
                let change =
                    after.append(&entry).map_err(|error| Refusal::with_detail(Code::LogInvalid, error.to_string()))?;
                Ok(LogPlan::new(&log, &after, from.device(), entry, change))
            })
            .await?;
        let (added, revoked) = (plan.added.clone(), plan.revoked.clone());
        match self.router.change(Change::AppendLog(plan)).await? {
            Changed::LogAppended(log_length) => {
                // Before the answer: what the device is to be handed comes after it.
                let (account, now_ms) = (from.account(), self.clock.now_ms());
                added.iter().for_each(|device| self.linking.logged(account, *device, now_ms));
                revoked.iter().for_each(|device| self.linking.revoked(account, *device, now_ms));
                Ok(Response::DeviceLogAppended { log_length })
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }

    pub(super) async fn take_over(self: &Arc<Self>, from: Authenticated, next: LifeToken) -> Answer {
        match self.router.change(Change::TakeOver { from, next }).await? {
            Changed::TakenOver { generation, accepted_counter } => {
                Ok(Response::TakenOver { generation, accepted_counter })
            }
            _ => Err(Refusal::new(Code::Internal)),
        }
    }
}
