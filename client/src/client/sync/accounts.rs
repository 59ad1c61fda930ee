//! Accounts: found by their handles, and their device logs learned.

use gureum_proto::{AccountId, Code, ConversationId, FindBy, Handle, Request, Response};

use super::{ClientError, Sync};
use crate::limits::{LISTING_PAGES_MAX, NEED_STEPS_MAX};
use crate::link::LinkError;
use crate::vault::{Contact, Resolved, Target, TrustError, Vault};

impl Sync {
    /// The account of a handle: known here, or found.
    pub(crate) async fn contact(&self, handle: &Handle) -> Result<Contact, ClientError> {
        let known = handle.clone();
        if let Some(contact) = self.vault.call(move |vault| vault.contact_by_handle(&known)).await? {
            return Ok(contact);
        }
        self.find(handle).await
    }

    /// The account that the server has for a handle now. Whoever asks for one that has moved is told so by the error; who
    /// asks again, knows it.
    pub(crate) async fn find(&self, handle: &Handle) -> Result<Contact, ClientError> {
        match self.learn(FindBy::Handle(handle.clone()), 0).await {
            Err(ClientError::Link(LinkError::Refused(refusal))) if refusal.code == Code::NotFound => {
                Err(ClientError::Nobody(handle.to_string()))
            }
            Err(ClientError::Trust(moved @ TrustError::HandleMoved { .. })) => {
                let handle = handle.clone();
                self.vault.call(move |vault| vault.go_on_with_moved(&handle)).await?;
                Err(moved.into())
            }
            result => result,
        }
    }

    /// The handle of an account that has ended, if the server has it for another one now. Whoever asks again goes on with
    /// that one.
    pub(crate) async fn taken_over(&self, ended: AccountId) -> Result<Option<Handle>, ClientError> {
        let Some(contact) = self.vault.call(move |vault| vault.contact(ended)).await? else { return Ok(None) };
        match self.find(&contact.handle).await {
            Err(error) if error.is_handle_moved() => Ok(Some(contact.handle)),
            Ok(_) | Err(ClientError::Nobody(_)) => Ok(None),
            Err(error) => error.confined().map(|_| None),
        }
    }

    /// What a target stands for, here or on the server. A handle on the server that is a group's name here is neither: the
    /// one may have been taken for the sake of the other.
    pub(crate) async fn resolve(&self, target: &Target) -> Result<Resolved, ClientError> {
        if let Some(phone) = target.phone() {
            return self.find_by_phone(&phone).await.map(Box::new).map(Resolved::Contact);
        }
        let name = target.clone();
        match self.vault.call(move |vault| vault.resolve(&name)).await? {
            Resolved::Group(group) => {
                let Some(handle) = target.handle_meant() else { return Ok(Resolved::Group(group)) };
                let request = Request::FindAccount { by: FindBy::Handle(handle.clone()), log_from: 0 };
                let is_somebodys = match self.link.request(&request).await {
                    Ok(_) => true,
                    Err(LinkError::Refused(refusal)) if refusal.code == Code::NotFound => false,
                    Err(error) => return Err(error.into()),
                };
                let (id, asked) = (group.id, handle.clone());
                self.vault.call(move |vault| vault.note_name_asked(id, &asked, is_somebodys)).await?;
                if is_somebodys {
                    Err(ClientError::NameOfBoth { name: target.to_string(), id, handle })
                } else {
                    Ok(Resolved::Group(group))
                }
            }
            Resolved::Unknown => match target.handle() {
                Some(handle) => self.contact(&handle).await.map(Box::new).map(Resolved::Contact),
                None => Ok(Resolved::Unknown),
            },
            resolved => Ok(resolved),
        }
    }

    pub(super) async fn learn(&self, by: FindBy, mut log_from: u64) -> Result<Contact, ClientError> {
        for _ in 0..NEED_STEPS_MAX {
            let request = Request::FindAccount { by: by.clone(), log_from };
            let Response::Account(found) = self.link.request(&request).await? else {
                return Err(ClientError::Mismatched);
            };
            if matches!(&by, FindBy::Account(account) if *account != found.account)
                || matches!(&by, FindBy::Handle(handle) if *handle != found.handle)
            {
                return Err(ClientError::Mismatched);
            }
            let learned = self.vault.call(move |vault| vault.learn_account(&found, log_from)).await?;
            if !learned.more {
                self.looked_up.note(learned.contact.account);
                return Ok(learned.contact);
            }
            log_from = learned.contact.log.length();
        }
        Err(ClientError::Stuck("a device log without end".to_owned()))
    }

    /// This account's log as the server has it now. The device must stand in it where it was added: another account,
    /// or another past of this one, is not to be taken for the right one.
    pub(crate) async fn learn_own(&self) -> Result<Contact, ClientError> {
        let (account, device) = (self.identity.account, self.identity.device);
        let contact = self.learn_account(account).await?;
        let logged = contact.log.device(device);
        if logged.is_some_and(|logged| logged.added_at == self.identity.log_entry) {
            Ok(contact)
        } else {
            Err(TrustError::Unlisted(account).into())
        }
    }

    /// Learns the log of an account by which something is judged. That its handle stands for another account here has been
    /// told by the vault, which has the log all the same.
    pub(super) async fn learn_needed(&self, account: AccountId, log_from: u64) -> Result<(), ClientError> {
        match self.learn(FindBy::Account(account), log_from).await {
            Err(ClientError::Trust(TrustError::HandleMoved { .. })) => Ok(()),
            learned => learned.map(drop),
        }
    }

    /// The same from where the log is known to.
    pub(super) async fn learn_log(&self, account: AccountId) -> Result<(), ClientError> {
        let log_from = self.vault.call(move |vault| vault.log_from(account)).await?;
        self.learn_needed(account, log_from).await
    }

    pub(super) async fn learn_account(&self, account: AccountId) -> Result<Contact, ClientError> {
        let log_from = self.vault.call(move |vault| vault.log_from(account)).await?;
        self.learn(FindBy::Account(account), log_from).await
    }

    /// Learns the device logs of a conversation's accounts. One that does not hold is passed: whoever needs it asks for it
    /// by itself, and hears why.
    pub(super) async fn learn_members(&self, conversation: ConversationId) -> Result<(), ClientError> {
        self.read_members(conversation, false).await
    }

    /// Learns of whom something is to be removed in a conversation.
    pub(super) async fn learn_pending(&self, conversation: ConversationId) -> Result<(), ClientError> {
        self.read_members(conversation, true).await
    }

    async fn read_members(&self, conversation: ConversationId, pending_only: bool) -> Result<(), ClientError> {
        let mut after = None;
        for _ in 0..LISTING_PAGES_MAX {
            let request = Request::ReadMemberLogs { conversation, after, pending_only };
            let Response::MemberLogs { logs, more } = self.link.request(&request).await? else {
                return Err(ClientError::Mismatched);
            };
            let last = logs.last().map(|member| member.account);
            let learn = move |vault: &mut Vault| vault.learn_members(conversation, &logs);
            for learned in self.vault.call(learn).await? {
                match learned {
                    Err(TrustError::Vault(error)) => return Err(error.into()),
                    // Of a handle that stands for another account here the vault has told.
                    Ok(()) | Err(TrustError::HandleMoved { .. }) => (),
                    Err(error) => tracing::warn!(%error, %conversation, "a member is not believed"),
                }
            }
            if !more || last <= after {
                return Ok(());
            }
            after = last;
        }
        Err(ClientError::Stuck("a list of members without end".to_owned()))
    }

    pub(super) async fn has_other_devices(&self) -> Result<bool, ClientError> {
        let account = self.identity.account;
        let contact = match self.vault.call(move |vault| vault.contact(account)).await? {
            Some(contact) => contact,
            None => self.learn_account(account).await?,
        };
        Ok(contact.log.active().any(|(device, _)| device != self.identity.device))
    }
}
