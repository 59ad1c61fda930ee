//! This account's devices: one is added that shows a code, or revoked.

use bytes::Bytes;
use gureum_proto::{Code, ConversationKind, DeviceId, DeviceState, LinkCode, LinkOffer, Request, Response};
use tokio::time::Instant;

use super::{ClientError, Sync};
use crate::limits::{ADD_DEVICE_TRIES_MAX, LINK_ANSWER_TIMEOUT, LINK_FINISH_TRIES_MAX, LINK_FINISH_WAIT};
use crate::link::LinkError;
use crate::vault::{Agreed, Answer, Conversation, ConversationStatus, DeviceError, Vault, open_offer};

/// A device that shows a code, what it was answered, and that it has agreed.
#[derive(Debug)]
pub(crate) struct Answered {
    /// What it said, as it came.
    sealed_offer: Bytes,
    answer: Answer,
    agreed: Agreed,
}

impl Answered {
    pub(crate) const fn offer(&self) -> &LinkOffer {
        &self.answer.offer
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.answer.offer.keys.device()
    }

    /// What a person compares.
    pub(crate) fn digits(&self, code: &LinkCode) -> String {
        self.answer.digits(code, &self.sealed_offer, &self.agreed)
    }
}

impl Sync {
    /// Answers a device that shows a code; returns when it has consented, and that has been checked: a person sees digits
    /// of no other answer than the one that this device has taken.
    pub(crate) async fn answer_link(&self, code: &LinkCode) -> Result<Answered, ClientError> {
        self.learn_own().await?;
        let sealed_offer = match self.link.request(&Request::FindLink { link: code.id() }).await {
            Ok(Response::LinkFound { offer }) => offer,
            Ok(_) => return Err(ClientError::Mismatched),
            Err(error) => return Err(nobody_waits(error)),
        };
        let offer = open_offer(code, &sealed_offer)?;
        let code_of = code.clone();
        let answer = self.vault.call(move |vault| vault.answer(&code_of, &offer)).await?;
        let agreed = self.propose(code, &answer).await?;
        Ok(Answered { sealed_offer, answer, agreed })
    }

    /// Has the log add the device that was answered. The log may have grown since: then the device is answered again.
    pub(crate) async fn add_device(&self, code: &LinkCode, answered: &mut Answered) -> Result<DeviceId, ClientError> {
        let device = answered.device();
        for _ in 0..ADD_DEVICE_TRIES_MAX {
            // A try whose answer was lost may have added it.
            if self.learn_own().await?.log.is_active(device) {
                return Ok(device);
            }
            match self.link.request(&Request::AppendDeviceLog { entry: answered.agreed.entry.clone() }).await {
                Ok(Response::DeviceLogAppended { .. }) => {
                    self.learn_own().await?;
                    return Ok(device);
                }
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::LogInvalid => {
                    self.learn_own().await?;
                    self.propose_again(code, answered).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(DeviceError::Raced.into())
    }

    /// Answers once more on another connection: a server that was restarted has forgotten that the device was answered, and
    /// would not hand on to it what it needs. One that does not come back soon goes without.
    pub(crate) async fn answer_again(&self, code: &LinkCode, answered: &mut Answered) -> Result<(), ClientError> {
        let until = Instant::now() + LINK_FINISH_WAIT * LINK_FINISH_TRIES_MAX;
        while Instant::now() < until {
            match self.propose_again(code, answered).await {
                Ok(()) => return Ok(()),
                Err(ClientError::Device(DeviceError::Added)) => return Ok(()),
                Err(ClientError::Device(DeviceError::NobodyWaits)) => tokio::time::sleep(LINK_FINISH_WAIT).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers with an entry that follows the log as it is now; the digits stay.
    async fn propose_again(&self, code: &LinkCode, answered: &mut Answered) -> Result<(), ClientError> {
        let (code_of, before) = (code.clone(), answered.answer.clone());
        let answer = self.vault.call(move |vault| vault.answer_again(&code_of, &before)).await?;
        answered.agreed = self.propose(code, &answer).await?;
        answered.answer = answer;
        Ok(())
    }

    async fn propose(&self, code: &LinkCode, answer: &Answer) -> Result<Agreed, ClientError> {
        let request = Request::AnswerLink { link: code.id(), payload: answer.sealed.clone() };
        let consent = match self.link.request_within(&request, LINK_ANSWER_TIMEOUT).await {
            Ok(Response::LinkCountersigned { payload }) => payload,
            Ok(_) => return Err(ClientError::Mismatched),
            Err(error) => return Err(nobody_waits(error)),
        };
        let (code_of, answer) = (code.clone(), answer.clone());
        self.vault.call(move |vault| vault.agreed(&code_of, &answer, &consent)).await
    }

    /// Whether the server does not list a group that this device has. That the account is out of it may be news that waits in
    /// the inbox.
    pub(crate) async fn has_unlisted_groups(&self) -> Result<bool, ClientError> {
        let held = self.vault.call(Vault::conversations).await?;
        let listing = self.list_conversations().await?;
        let is_in = |held: &&Conversation| {
            let is_in = matches!(held.state, ConversationStatus::Active | ConversationStatus::Absent);
            is_in && held.kind == ConversationKind::Group
        };
        let is_listed = |held: &Conversation| listing.conversations.contains_key(&held.id);
        Ok(listing.is_whole && !held.iter().filter(is_in).all(is_listed))
    }

    /// Hands over to the new device what it needs, and says whether the server has taken it. The device may be connecting
    /// again just now; and without what it is handed it believes the server's first word, which is not worth failing for.
    pub(crate) async fn finish_link(
        &self,
        code: &LinkCode,
        answered: &Answered,
        name: &str,
    ) -> Result<bool, ClientError> {
        let device = answered.device();
        let (code_of, answer, name) = (code.clone(), answered.answer.clone(), name.to_owned());
        let payload = self.vault.call(move |vault| vault.bundle(&code_of, &answer, (device, name.as_str()))).await?;
        let finish = Request::FinishLink { link: code.id(), payload };
        for _ in 0..LINK_FINISH_TRIES_MAX {
            match self.link.request(&finish).await {
                Ok(Response::LinkFinished) => return Ok(true),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) => {
                    tracing::info!(%refusal, "the new device is not handed what it needs yet");
                    tokio::time::sleep(LINK_FINISH_WAIT).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Has the log revoke a device. From that moment on it is cut off, and it is to be removed from conversations.
    pub(crate) async fn revoke(&self, device: DeviceId) -> Result<(), ClientError> {
        let is_own = device == self.identity.device;
        for _ in 0..ADD_DEVICE_TRIES_MAX {
            self.learn_own().await?;
            let Some(entry) = self.vault.call(move |vault| vault.revocation(device)).await? else { return Ok(()) };
            match self.link.request(&Request::AppendDeviceLog { entry }).await {
                Ok(Response::DeviceLogAppended { .. }) if is_own => return Ok(()),
                // The server cuts off whom it concerns, and may do so before it answers.
                Err(error) if is_own && error.code() == Some(Code::DeviceRevoked) => return Ok(()),
                Ok(Response::DeviceLogAppended { .. }) => return self.learn_own().await.map(drop),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::LogInvalid => (),
                Err(error) => return Err(error.into()),
            }
        }
        Err(DeviceError::Raced.into())
    }

    /// The active devices of this account, as the server sees them.
    pub(crate) async fn list_devices(&self) -> Result<Vec<DeviceState>, ClientError> {
        match self.link.request(&Request::ListDevices).await? {
            Response::Devices(devices) => Ok(devices),
            _ => Err(ClientError::Mismatched),
        }
    }
}

fn nobody_waits(error: LinkError) -> ClientError {
    if error.code() == Some(Code::LinkGone) { DeviceError::NobodyWaits.into() } else { error.into() }
}
