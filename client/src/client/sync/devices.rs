//! This account's devices: one is added that shows a code, or revoked.

use bytes::Bytes;
use gureum_proto::{Code, DeviceId, DeviceState, LinkCode, LinkOffer, Request, Response};
use tokio::time::Instant;

use super::{ClientError, Sync};
use crate::limits::{ADD_DEVICE_TRIES_MAX, LINK_ANSWER_TIMEOUT, LINK_FINISH_TRIES_MAX, LINK_FINISH_WAIT};
use crate::link::LinkError;
use crate::vault::{Answer, DeviceError, open_offer};

/// What the device said that shows a code, and what it was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) offer: LinkOffer,
    /// As it came.
    pub(crate) sealed_offer: Bytes,
    pub(crate) answer: Answer,
    /// The device's consent, as it came.
    consent: Bytes,
}

impl Sync {
    /// Answers a device that shows a code; returns when it has consented.
    pub(crate) async fn answer_link(&self, code: &LinkCode) -> Result<Answered, ClientError> {
        self.learn_own().await?;
        let sealed_offer = match self.link.request(&Request::FindLink { link: code.id() }).await {
            Ok(Response::LinkFound { offer }) => offer,
            Ok(_) => return Err(ClientError::Mismatched),
            Err(error) => return Err(nobody_waits(error)),
        };
        let offer = open_offer(code, &sealed_offer)?;
        let (answer, consent) = self.propose(code, &offer, None).await?;
        Ok(Answered { offer, sealed_offer, answer, consent })
    }

    /// Has the log add the device that was answered. The log may have grown since: then the device is answered again.
    pub(crate) async fn add_device(&self, code: &LinkCode, answered: &mut Answered) -> Result<DeviceId, ClientError> {
        let device = answered.offer.keys.device();
        for _ in 0..ADD_DEVICE_TRIES_MAX {
            // A try whose answer was lost may have added it.
            if self.learn_own().await?.log.is_active(device) {
                return Ok(device);
            }
            let (code_of, answer, consent) = (code.clone(), answered.answer.clone(), answered.consent.clone());
            let entry = self.vault.call(move |vault| vault.added(&code_of, &answer, &consent)).await?;
            match self.link.request(&Request::AppendDeviceLog { entry }).await {
                Ok(Response::DeviceLogAppended { .. }) => {
                    self.learn_own().await?;
                    return Ok(device);
                }
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(refusal)) if refusal.code == Code::LogInvalid => {
                    self.learn_own().await?;
                    let again = self.propose(code, &answered.offer, Some(answered.answer.clone()));
                    let (answer, consent) = again.await?;
                    (answered.answer, answered.consent) = (answer, consent);
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
            match self.propose(code, &answered.offer, Some(answered.answer.clone())).await {
                Ok((answer, consent)) => {
                    (answered.answer, answered.consent) = (answer, consent);
                    return Ok(());
                }
                Err(ClientError::Device(DeviceError::Added)) => return Ok(()),
                Err(ClientError::Device(DeviceError::NobodyWaits)) => tokio::time::sleep(LINK_FINISH_WAIT).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn propose(
        &self,
        code: &LinkCode,
        offer: &LinkOffer,
        before: Option<Answer>,
    ) -> Result<(Answer, Bytes), ClientError> {
        let (code_of, keys) = (code.clone(), offer.keys);
        let answer = self.vault.call(move |vault| match &before {
            None => vault.answer(&code_of, &keys),
            Some(before) => vault.answer_again(&code_of, &keys, before),
        });
        let answer = answer.await?;
        let request = Request::AnswerLink { link: code.id(), payload: answer.sealed.clone() };
        match self.link.request_within(&request, LINK_ANSWER_TIMEOUT).await {
            Ok(Response::LinkCountersigned { payload }) => Ok((answer, payload)),
            Ok(_) => Err(ClientError::Mismatched),
            Err(error) => Err(nobody_waits(error)),
        }
    }

    /// Hands over to the new device what it needs. It may be connecting again just now; and without what it is handed it
    /// believes the server's first word, which is not worth failing for.
    pub(crate) async fn finish_link(
        &self,
        code: &LinkCode,
        answered: &Answered,
        name: &str,
    ) -> Result<(), ClientError> {
        let device = answered.offer.keys.device();
        let (code_of, answer, name) = (code.clone(), answered.answer.clone(), name.to_owned());
        let payload = self.vault.call(move |vault| vault.bundle(&code_of, &answer, (device, name.as_str()))).await?;
        let finish = Request::FinishLink { link: code.id(), payload };
        for _ in 0..LINK_FINISH_TRIES_MAX {
            match self.link.request(&finish).await {
                Ok(Response::LinkFinished) => return Ok(()),
                Ok(_) => return Err(ClientError::Mismatched),
                Err(LinkError::Refused(_)) => tokio::time::sleep(LINK_FINISH_WAIT).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
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
